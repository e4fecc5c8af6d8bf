"""Mutants of compaction; see catalogue.py."""

from __future__ import annotations

from catalogue import Mutant

COMPACTION = "tests/unit/test_engine_compaction.py"
COMPACTION_POWER = "tests/crash/test_power_compaction.py"

COLD_MUTANTS = (
    Mutant(
        "a cold file is on disk before it gets its name",
        "engine/_compact.pxi",
        "    if failed == 0 and fsync(fd):\n        failed = errno\n    if failed == 0:\n"
        "        trace(core, 7, number, NULL, 0)\n",
        "",
        (COMPACTION_POWER,),
    ),
    Mutant(
        "a compacted segment goes only once every checkpoint kept is newer than the copy",
        "engine/_retire.pxi",
        "    return core.control.kept > checkpoint\n",
        "    return True\n",
        (COMPACTION,),
    ),
    Mutant(
        "what comes to be needed while it is copied is not left out",
        "engine/_compact.pxi",
        "sizeof(keep_t), by_position) == NULL:\n            failed = EAGAIN\n",
        "sizeof(keep_t), by_position) == NULL:\n            pass\n",
        (COMPACTION,),
    ),
    Mutant(
        "what only a PLACE leads to is looked for",
        "engine/_compact.pxi",
        "    if not gather.failed and not gather_explained(gather):\n"
        "        gather_places(gather)\n",
        "",
        (COMPACTION,),
    ),
    Mutant(
        "a segment whose count is not explained is left as it is",
        "engine/_gather.pxi",
        "            segment.refused = max(segment.refused, <uint32_t>1)\n"
        "    pthread_mutex_unlock(&control.store_lock)\n",
        "            pass\n    pthread_mutex_unlock(&control.store_lock)\n",
        (COMPACTION,),
    ),
    Mutant(
        "nothing is placed from what was left out",
        "engine/_admit.pxi",
        " and cold_keeps(core, position)\n",
        "\n",
        (COMPACTION,),
    ),
    Mutant(
        "a segment with a damaged record is not compacted",
        "engine/_gather.pxi",
        "        if verdict != WHOLE:\n            segment.refused = 2 if",
        "        if False:\n            segment.refused = 2 if",
        (COMPACTION,),
    ),
    Mutant(
        "a dead cold record is asked before it goes",
        "engine/_reclaim.pxi",
        "ENOTEMPTY if cold_needed(core, number) else 0",
        "0",
        (COMPACTION,),
    ),
)
