"""Mutants of what consumers rest on: order, retries, offsets, ids."""

from __future__ import annotations

from mutant import Mutant

BROKER_MODEL = "tests/property/test_broker_model.py"
ATTEMPTS = "tests/unit/test_engine_attempts.py"
DELIVERY = "tests/unit/test_engine_delivery.py"
DEDUP = "tests/unit/test_engine_dedup.py"
GLANCE = "tests/crash/test_glance.py"
MODES = "tests/unit/test_engine_modes.py"

CONSUMING = (
    Mutant(
        "of one key the next comes when the one before is confirmed",
        "engine/_order.pxi",
        "    if line == NULL:\n        return ORDER_FIRST if",
        "    if True:\n        return ORDER_FIRST if",
        (BROKER_MODEL,),
    ),
    Mutant(
        "what was tried as often as allowed is not given again",
        "engine/_retry.pxi",
        "policy.attempts and slot.attempts >= policy.attempts",
        "policy.attempts and slot.attempts > policy.attempts",
        (BROKER_MODEL,),
    ),
    Mutant(
        "a message that is moved is confirmed where it was",
        "engine/_retry.pxi",
        "        slot_confirm(core, group, &path)\n",
        "        pass\n",
        (BROKER_MODEL,),
    ),
    Mutant(
        "what was given back with a delay does not come early",
        "engine/_retry.pxi",
        "    path.slot.until_us = now + wait_us\n",
        "    path.slot.until_us = now\n",
        (DELIVERY,),
    ),
    Mutant(
        "a delay survives a restart",
        "engine/_attempts.pxi",
        "        path.slot.state = WAITING\n        path.slot.attempts",
        "        path.slot.state = READY\n        path.slot.attempts",
        (ATTEMPTS,),
    ),
    Mutant(
        "a committed offset leaves what was confirmed behind it",
        "engine/_advance.pxi",
        "    if base + span <= before:\n",
        "    if base + span <= before or height == 0:\n",
        (MODES, BROKER_MODEL),
    ),
    Mutant(
        "who waits for another process's lock leaves the interpreter to other threads",
        "engine/_glance.pxi",
        "    got = mutex_try(",
        "    got = mutex_lock(",
        (GLANCE,),
    ),
    Mutant(
        "what comes again comes before what is new",
        "engine/_glance.pxi",
        " or group.root.ready or",
        " or",
        (GLANCE,),
    ),
    Mutant(
        "a repeated confirmation is done only under its own receipt",
        "engine/_take.pxi",
        "path.slot.state == CONFIRMED and path.slot.nonce == receipt.nonce",
        "path.slot.state == CONFIRMED",
        (MODES,),
    ),
    Mutant(
        "what a group with a filter knows beyond its cursor counts as confirmed, too",
        "engine/_take.pxi",
        "queue != NULL and receipt.offset < load64(&queue.next):",
        "queue != NULL and receipt.offset < group.cursor:",
        ("tests/unit/test_engine_filtered.py",),
    ),
    Mutant(
        "an id is forgotten when its window ends",
        "engine/_dedup.pxi",
        "            if not waits[0] and entry.stored_us + span > now:\n",
        "            if not waits[0]:\n",
        (DEDUP,),
    ),
    Mutant(
        "ids are known after a crash",
        "engine/_apply.pxi",
        "dedup_append(core, queue, record, NULL)",
        "message_append(core, queue, record, NULL)",
        (DEDUP,),
    ),
    Mutant(
        "an id that was never stored is not known",
        "engine/_dedup.pxi",
        "number - 1 < dedup.head and entry.low == wanted.low and entry.high == wanted.high",
        "number - 1 < dedup.head",
        (DEDUP, BROKER_MODEL),
    ),
)
