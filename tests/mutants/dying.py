"""Mutants of what a death between two stores leaves to others, of checkpoints and of doors."""

from __future__ import annotations

from mutant import Mutant

DEATHS = "tests/crash/test_deaths.py::"

DYING = (
    Mutant(
        "an index that was not written back is no ground of a checkpoint",
        "engine/_recover.pxi",
        "        core.control.no_checkpoint = 1\n",
        "        pass\n",
        ("tests/crash/test_faults.py",),
    ),
    Mutant(
        "dying: what the cursor has passed and nobody took comes all the same",
        "engine/_mend.pxi",
        "    taken_mend(core, group, &group.root, group.height, 0)\n",
        "",
        (DEATHS + "test_who_dies_taking_loses_no_message",),
    ),
    Mutant(
        "dying: a lease has its end before it is one",
        "engine/_delivery.pxi",
        "    path.slot.until_us = until_us\n    store8(&path.slot.state, LEASED)\n",
        "    store8(&path.slot.state, LEASED)\n    path.slot.until_us = until_us\n",
        (DEATHS + "test_who_dies_taking_the_last_of_a_line_loses_no_message",),
    ),
    Mutant(
        "dying: a wait has its end before it is one",
        "engine/_retry.pxi",
        "    path.slot.until_us = now + wait_us\n    store8(&path.slot.state, WAITING)\n",
        "    store8(&path.slot.state, WAITING)\n    path.slot.until_us = now + wait_us\n",
        (DEATHS + "test_who_dies_giving_back_loses_no_message",),
    ),
    Mutant(
        "dying: a tree that was being made higher is as high as its root",
        "engine/_mend.pxi",
        "    if group.root.done & WIDENED:\n",
        "    if False:\n",
        (DEATHS + "test_who_dies_making_the_tree_higher_leaves_it_whole",),
    ),
    Mutant(
        "dying: what a dead process confirmed does not hold the floor back",
        "engine/_mend.pxi",
        "        order_rebuild(core, group)\n    floor_advance(core, group)\n",
        "        order_rebuild(core, group)\n",
        (DEATHS + "test_who_dies_confirming_leaves_the_rest_to_others",),
    ),
    Mutant(
        "dying: lines are made anew after a death",
        "engine/_mend.pxi",
        "    if group.order:\n        order_rebuild(core, group)\n    floor_advance",
        "    floor_advance",
        (DEATHS + "test_who_dies_confirming_leaves_the_rest_to_others",),
    ),
    Mutant(
        "sending: a descriptor that may be another connection's is not sent on",
        "server/_wire_endpoint.pxi",
        "        if self.socket < 0 or self.transport.is_closing():\n",
        "        if self.socket < 0:\n",
        ("tests/unit/test_server_sending.py",),
    ),
    Mutant(
        "sending: what follows what the transport keeps waits for it",
        "server/_wire_endpoint.pxi",
        "            if self.transport.get_write_buffer_size():\n                return 0\n",
        "",
        ("tests/unit/test_server_sending.py",),
    ),
    Mutant(
        "a group that was looked up is believed only while it is there",
        "server/protocols/http/queues.py",
        "        if group is None or not group.exists:\n",
        "        if group is None:\n",
        ("tests/unit/test_http_door.py",),
    ),
)
