"""The invariants of the models, each with a mutant that the model itself must catch."""

from __future__ import annotations

from mutant import Mutant

BROKER_MODEL = "tests/property/test_broker_model.py"
WAITING_MODEL = "tests/property/test_waiting_model.py"

MODELLED = (
    Mutant(
        "the model: none is lost",
        "engine/_delivery.pxi",
        "slot[at].until_us <= now:\n                    slot[at].state = READY\n",
        "slot[at].until_us <= now:\n                    slot[at].state = CONFIRMED\n",
        (BROKER_MODEL,),
    ),
    Mutant(
        "the model: order holds for each key",
        "engine/_order.pxi",
        "    if line == NULL:\n        return ORDER_FIRST if",
        "    if True:\n        return ORDER_FIRST if",
        (BROKER_MODEL,),
    ),
    Mutant(
        "the model: no half is seen before its commit",
        "engine/_queue.pxi",
        "        aside.spare = HALF | ",
        "        aside.spare = DELAYED | ",
        (WAITING_MODEL,),
    ),
    Mutant(
        "the model: one verdict",
        "engine/_pending.pxi",
        "    WRONG, WRONG, WRONG, OTHER, SAME, OTHER,        # half, dropped\n",
        "    WRONG, WRONG, WRONG, ACT, SAME, OTHER,\n",
        (WAITING_MODEL,),
    ),
    Mutant(
        "the model: what is confirmed comes again only after a rewind",
        "engine/_apply.pxi",
        "                confirm_range(core, group, ranges[at].start, ranges[at].count)",
        "                pass",
        (BROKER_MODEL,),
    ),
    Mutant(
        "the model: filters never lose",
        "engine/_passing.pxi",
        "    cdef bint alone = group.floor == group.cursor and ",
        "    cdef bint alone = True or ",
        (BROKER_MODEL,),
    ),
)
