"""One mutant for each rule of safety: what is changed, and the tests that must fail then."""

from __future__ import annotations

from consuming import CONSUMING
from dying import DYING
from modelled import MODELLED
from mutant import Mutant
from speaking_cmq import CMQ
from waiting import WAITING

POWER = "tests/crash/test_power.py"
FAULTS = "tests/crash/test_faults.py"
FLIPS = "tests/crash/test_flips.py"
SYNCS = "tests/crash/test_syncs.py"
RECEIPTS = "tests/unit/test_engine_receipts.py"
DELIVERY = "tests/unit/test_engine_delivery.py"
QUEUE = "tests/unit/test_engine_queue.py"
BATCH = "tests/unit/test_engine_batch.py"
PENDING = "tests/unit/test_engine_pending.py"
PENDING_CRASH = "tests/crash/test_pending.py"
FILTERS = "tests/unit/test_engine_filters.py"
FILTERED = "tests/unit/test_engine_filtered.py"
ATTACKS = "tests/unit/test_server_attacks.py"
FILTER_MODEL = "tests/property/test_filter_model.py"

MUTANTS = (
    Mutant(
        "nothing is shown that a power cut could take back",
        "engine/_index.pxi",
        "    if leaf[(high - 1) % LEAF].position < durable:\n        return high\n",
        "    return high\n",
        (FAULTS,),
    ),
    Mutant(
        "nothing is acknowledged before it is durable",
        "engine/_commit.pxi",
        "    if round.disk and make_durable(core, round.end) != DONE:",
        "    if False:",
        (POWER, FAULTS, QUEUE),
    ),
    Mutant(
        "after a failed fsync the store is poisoned",
        "engine/_sync.pxi",
        "    store32(&core.control.poisoned, 1)\n",
        "    pass\n",
        (FAULTS,),
    ),
    Mutant(
        "the mark that is published was read before the sync",
        "engine/_sync.pxi",
        "        durable_raise(core, mark)",
        "        durable_raise(core, load64(&control.written))",
        (SYNCS, POWER, "tests/crash/test_kill.py"),
    ),
    Mutant(
        "the durable mark never shrinks when syncs end in another order than they began",
        "engine/_sync.pxi",
        "        while (old < value)\n",
        "        while (1)\n",
        (SYNCS,),
    ),
    Mutant(
        "a sync that succeeds after another has failed publishes nothing",
        "engine/_sync.pxi",
        "    elif not load32(&control.poisoned):\n",
        "    else:\n",
        (SYNCS,),
    ),
    Mutant(
        "each sync has an open file of its own, which is told every error",
        "engine/_sync.pxi",
        "fdatasync(core.sync_fds[slot])",
        "fdatasync(core.sync_fds[0])",
        (SYNCS,),
    ),
    Mutant(
        "what a dead leader's sync may have lost is written again",
        "engine/_sync.pxi",
        "            at = write_again(core)\n",
        "            at = 0\n",
        ("tests/crash/test_sync_death.py",),
    ),
    Mutant(
        "what is written again was looked at first",
        "engine/_sync.pxi",
        "        if not frame_whole(core, base, at, salt):\n            return EIO\n",
        "",
        ("tests/crash/test_sync_death.py",),
    ),
    Mutant(
        "a lane tells nothing before the disk has it",
        "engine/_staging.pxi",
        "load64(&lane.core.control.durable) < round.end:",
        "False:",
        (SYNCS,),
    ),
    Mutant(
        "rounds are written in the order in which they were staged",
        "engine/_staging.pxi",
        "        wrote = lane_write(lane, asleep, &target, &ticket)\n"
        "        pthread_mutex_unlock(&lane.turn)\n",
        "        pthread_mutex_unlock(&lane.turn)\n"
        "        wrote = lane_write(lane, asleep, &target, &ticket)\n",
        (SYNCS,),
    ),
    Mutant(
        "the old segment is on disk before the next one begins",
        "engine/_commit.pxi",
        "        failed = log_sync(core, 0)\n"
        "    if failed == 0:\n        durable_raise(core, end)\n"
        "        live_seal(core, end >> 32, end & BYTE)\n        failed = segment_begin",
        "        failed = 0\n    if failed == 0:\n        durable_raise(core, end)\n"
        "        failed = segment_begin",
        (POWER,),
    ),
    Mutant(
        "a frame counts whole or not at all",
        "engine/_record.pxi",
        "        if record_judge(core, base + at, end - at, number << 32 | at, salt) != WHOLE:\n"
        "            return BROKEN\n",
        "",
        (POWER, FLIPS),
    ),
    Mutant(
        "a record is judged before it is served",
        "engine/_record.pxi",
        "    if record.check != xxh3(record, 40, payload_hash(core, record) ^ salt):\n"
        "        return BROKEN\n",
        "",
        (FLIPS,),
    ),
    Mutant(
        "corruption is reported, not taken for a torn tail",
        "engine/recovery.py",
        "        promised = max(promised, store._promise_after(end))",
        "        promised = 0",
        (FLIPS,),
    ),
    Mutant(
        "after a crash nothing is written behind the end of a segment",
        "engine/recovery.py",
        "    if clean and end == position and",
        "    if end == max(position, end) and",
        (POWER, "tests/crash/test_kill.py"),
    ),
    Mutant(
        "what a killed process wrote is on disk before it is called durable",
        "engine/recovery.py",
        "            os.fsync(descriptor)\n            os.posix_fadvise",
        "            os.posix_fadvise",
        (POWER,),
    ),
    Mutant(
        "a forged receipt is refused",
        "engine/_take.pxi",
        "    if group == NULL or receipt.mac != receipt_mac(core, group, receipt.offset, "
        "receipt.nonce):",
        "    if group == NULL:",
        (RECEIPTS,),
    ),
    Mutant(
        "a late receipt is refused",
        "engine/_delivery.pxi",
        "path.slot.state != LEASED \\\n            or path.slot.nonce != nonce or "
        "path.slot.until_us <= now:",
        "path.slot.state != LEASED:",
        (RECEIPTS, DELIVERY, "tests/property"),
    ),
    Mutant(
        "a confirmed message is not delivered again",
        "engine/_apply.pxi",
        "                confirm_range(core, group, ranges[at].start, ranges[at].count)",
        "                pass",
        (DELIVERY, "tests/property"),
    ),
    Mutant(
        "a rewind outlives what was confirmed before it",
        "engine/_apply.pxi",
        "        if group != NULL and group.generation == confirm.generation:\n",
        "        if group != NULL:\n",
        (DELIVERY,),
    ),
    Mutant(
        "a confirmation that found no room counts for nothing",
        "engine/_commit.pxi",
        "            confirms_undo(core, round)\n",
        "            pass\n",
        (FAULTS,),
    ),
    Mutant(
        "a producer's number is stored once",
        "engine/_producers.pxi",
        "    if kept == NULL or kept.sequence < sequence:\n        return False\n"
        "    offset[0]",
        "    return False\n    offset[0]",
        (QUEUE,),
    ),
    Mutant(
        "what a killed process assigned and did not write is taken back",
        "engine/_apply.pxi",
        "            store64(&queue.next, queue.next - 1)\n",
        "            break\n",
        (FAULTS,),
    ),
    Mutant(
        "an atomic batch is stored in all of its queues or in none",
        "engine/_admit.pxi",
        "        if find_queue(core, round.operations[index].queue) == NULL:\n",
        "        if False:\n",
        (BATCH,),
    ),
    Mutant(
        "a page that cannot be read costs its messages, not the process",
        "engine/os.h",
        "    if (guard_mark) siglongjmp(*guard_mark, 1);\n",
        "",
        ("tests/crash/test_unreadable.py",),
    ),
    Mutant(
        "a page that cannot be read is not tried word by word",
        "engine/_recover.pxi",
        "PAGE - at % PAGE if verdict == -1 and not readable(base + at) else 8",
        "8",
        ("tests/crash/test_unreadable.py",),
    ),
    Mutant(
        "a head that comes again is cut where it was cut before",
        "server/_wire_http.pxi",
        " and memmem(data, size, b\"\\r\\n\\r\\n\", 4) == <void*>(data + size - body - 4):",
        ":",
        ("tests/unit/test_http_door.py",),
    ),
    Mutant(
        "what a filter decided before it was changed stays decided, after a crash too",
        "engine/_apply.pxi",
        "            filter_catch_up(core, group, record.offset)\n",
        "            pass\n",
        (FILTERED,),
    ),
    Mutant(
        "nothing is taken while a change of the filter is on its way",
        "engine/_take.pxi",
        "group.cursor if group.frozen else end, now",
        "end, now",
        (FILTERED,),
    ),
    Mutant(
        "a death on the way of a change leaves no group frozen",
        "engine/_apply.pxi",
        "        group.frozen = 0\n        if group.id and group.defined >= written:\n",
        "        if group.id and group.defined >= written:\n",
        (FILTERED,),
    ),
    Mutant(
        "replay takes nothing for a group that its filter may not want",
        "engine/_delivery.pxi",
        "        if offset >= group.cursor and group.settings[0] == 0:\n",
        "        if offset >= group.cursor:\n",
        (FILTERED, FILTER_MODEL),
    ),
    Mutant(
        "the floor passes nothing that is in flight",
        "engine/_passing.pxi",
        "    cdef bint alone = group.floor == group.cursor and (not some or "
        "(root.ready == 0 and root.waiting == 0))\n",
        "    cdef bint alone = True\n",
        (FILTERED, FILTER_MODEL),
    ),
    Mutant(
        "a tag of the same hash is another tag",
        "engine/_filter.pxi",
        "        return tag != NULL and tag_wanted(filter, tag, size)\n",
        "        return tag != NULL\n",
        (FILTERS,),
    ),
    Mutant(
        "a program's jumps lead to instructions",
        "engine/_filter.pxi",
        "    return jumps == 0 and depth == 1\n",
        "    return depth == 1\n",
        (FILTERS,),
    ),
    Mutant(
        "UNKNOWN is not FALSE",
        "engine/_filter_sql.pxi",
        "    return 0 if a == 0 and b == 0 else -1\n",
        "    return 0\n",
        ("tests/property/test_filter_sql.py",),
    ),
    Mutant(
        "nothing that is delayed comes early",
        "engine/_pending.pxi",
        "        elif event == EVENT_FIRE and entry.due_us > now:\n",
        "        elif False:\n",
        (PENDING,),
    ),
    Mutant(
        "of two verdicts on a pending message the first wins",
        "engine/_pending.pxi",
        "    OTHER, SAME, OTHER, WRONG, WRONG, WRONG,        # delayed, dropped\n",
        "    ACT, SAME, OTHER, WRONG, WRONG, WRONG,\n",
        (PENDING,),
    ),
    Mutant(
        "a verdict that no record bears out is dropped",
        "engine/_pending.pxi",
        "            if leaf[number % LEAF].verdict >= start:\n",
        "            if False:\n",
        (PENDING_CRASH, PENDING),
    ),
    Mutant(
        "what was placed is not placed again after a crash",
        "engine/_apply.pxi",
        "[0], record.position, QUEUED)\n",
        "[0] + 8, record.position, QUEUED)\n",
        (PENDING,),
    ),
    Mutant(
        "a half is seen only once it is committed",
        "engine/_queue.pxi",
        "        aside.spare = HALF | ",
        "        aside.spare = DELAYED | ",
        (PENDING,),
    ),
    Mutant(
        "a receipt said as a number fits one lease only",
        "engine/_short.pxi",
        "            if <uint32_t>mac == <uint32_t>short_:",
        "            if True:",
        ("tests/unit/test_engine_short.py",),
    ),
    Mutant(
        "nothing is done for a CMQ client that was not let in",
        "server/_wire_cmq.pxi",
        "        if not self.admitted:\n            if self.begin(",
        "        if False:\n            if self.begin(",
        ("tests/unit/test_cmq_attacks.py",),
    ),
    Mutant(
        "a CMQ frame is refused when it announces too much, not when it has come",
        "server/_wire_cmq.pxi",
        "length < CMQ_HEAD or length > self.largest():\n                outcome",
        "length < CMQ_HEAD:\n                outcome",
        ("tests/unit/test_cmq_attacks.py",),
    ),
    Mutant(
        "what is published goes by the subscriptions that stand when it is stored",
        "server/_wire_cmq_topics.pxi",
        "self.hub.http_durability | ATTRIBUTED, self.cmq.notes)",
        "self.hub.http_durability | ATTRIBUTED, 0)",
        ("tests/unit/test_cmq_tcp_topics.py",),
    ),
    Mutant(
        "a subscribed queue that was made again is found again",
        "server/_wire_cmq_topics.pxi",
        "            if not queue_there(self.hub.store, way.queues[index]):\n",
        "            if False:\n",
        ("tests/unit/test_cmq_tcp_topics.py",),
    ),
    Mutant(
        "who does not read the answers is asked no more of",
        "server/_wire_http.pxi",
        "and not self.closing and not self.held & HELD_BY_PEER:",
        "and not self.closing:",
        (ATTACKS,),
    ),
    Mutant(
        "a receiver that is gone takes nothing",
        "server/_wire_http_leaving.pxi",
        "            self.hub.waiting.remove(request.waiting)\n",
        "            return 0\n",
        (ATTACKS,),
    ),
    Mutant(
        "what is kept for all connections together has a limit",
        "server/_wire_endpoint.pxi",
        "        if self.hub.kept > self.hub.kept_limit:",
        "        if False:",
        (ATTACKS,),
    ),
    Mutant(
        "a peer that hung up behind unread requests is noticed",
        "server/_wire_hub.pxi",
        "            endpoint.transport.abort()\n        return 0\n",
        "            pass\n        return 0\n",
        (ATTACKS,),
    ),
    *CONSUMING,
    *DYING,
    *CMQ,
    *WAITING,
    *MODELLED,
)
