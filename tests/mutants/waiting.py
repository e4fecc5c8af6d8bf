"""The rules of what waits: of each a mutant."""

from __future__ import annotations

from mutant import Mutant

TRANSACTION = "tests/unit/test_broker_transaction.py"
LATER = "tests/unit/test_server_later.py"
CRON = "tests/unit/test_broker_cron.py"
ONCE = "tests/unit/test_engine_once.py"
TOPIC_LATER = "tests/unit/test_topic_later.py"
RELEASE = "tests/unit/test_server_release.py"
TOPIC_ONCE = "tests/unit/test_topic_once_doors.py"
CONNECTIONS = "tests/unit/test_connection_quota.py"

WAITING = (
    Mutant(
        "waiting: what waits is known by its id",
        "engine/_dedup.pxi",
        "            if waits[0] and pending_waits(core, offset[0]):\n",
        "            if False:\n",
        (ONCE,),
    ),
    Mutant(
        "waiting: what was cancelled is not known by its id",
        "engine/_dedup.pxi",
        "    return entry != NULL and entry.verdict == OPEN\n",
        "    return entry != NULL\n",
        (ONCE,),
    ),
    Mutant(
        "waiting: a message that came is known by its id from then on",
        "engine/_dedup.pxi",
        "        if message != NULL and message.type == RECORD_PENDING:\n",
        "        if False:\n",
        (ONCE,),
    ),
    Mutant(
        "an atomic batch with a number is stored once",
        "engine/_admit.pxi",
        "    if first.sequence == 0 or not producer_stored(",
        "    if True or not producer_stored(",
        (ONCE,),
    ),
    Mutant(
        "a number whose message was known by its id counts as stored after a crash",
        "engine/_producers.pxi",
        "record.spare in (SKIP_STORED, SKIP_WAITING):\n",
        "False:\n",
        (ONCE,),
    ),
    Mutant(
        "the queue that decides about a fan-out's id decides for all",
        "engine/_fanout.pxi",
        "        if operation.offset:\n            return True\n",
        "        pass\n",
        (ONCE, TOPIC_LATER),
    ),
    Mutant(
        "waiting: a topic's message goes by the subscriptions that stand when it is placed",
        "engine/_spread.pxi",
        "    if first.offset and notes_changed(",
        "    if False and notes_changed(",
        (TOPIC_LATER,),
    ),
    Mutant(
        "waiting: a topic's message is placed in all of its queues or in none",
        "engine/_commit.pxi",
        "(KIND_APPEND, KIND_PLACE, KIND_PENDING, KIND_TRANSFER)",
        "(KIND_APPEND, KIND_PLACE, KIND_PENDING)",
        (TOPIC_LATER,),
    ),
    Mutant(
        "a release wakes who waits for its group",
        "server/_wire_hub.pxi",
        "            self.waiting.wake_freed(groups[index])\n",
        "            pass\n",
        (RELEASE,),
    ),
    Mutant(
        "waiting: of two that saw a half due one asks",
        "engine/_pending.pxi",
        "        if operation.spare != attempts:\n",
        "        if False:\n",
        (TRANSACTION,),
    ),
    Mutant(
        "waiting: a repeated commit is answered as the first",
        "engine/_pending.pxi",
        "id if operation.spare else placed_offset(core, entry, record, position)\n",
        "id if operation.spare else NEVER\n",
        (TRANSACTION,),
    ),
    Mutant(
        "waiting: a repeated commit in the same round is answered as the first",
        "engine/_pending.pxi",
        "    if at >= core.control.written:\n",
        "    if False:\n",
        (LATER,),
    ),
    Mutant(
        "waiting: where a message was seen without the lock is believed only while it stands there",
        "engine/_pending_find.pxi",
        "            if entry.position == id and entry.verdict & 7 != MOVED:\n",
        "            if entry.position == id:\n",
        (LATER,),
    ),
    Mutant(
        "waiting: what waited when it was sent is known as such when it is sent again",
        "engine/_admit.pxi",
        "        operation.kind = KIND_PENDING if waits else KIND_APPEND\n",
        "        pass\n",
        (LATER,),
    ),
    Mutant(
        "waiting: a half on the wire is a half in the store",
        "server/_wire_later.pxi",
        "check_ms if flags & FLAG_HALF else NO_HALF\n",
        "NO_HALF\n",
        (LATER,),
    ),
    Mutant(
        "waiting: a delay counts from the arrival",
        "server/_wire_later.pxi",
        "time_us + now_us if flags & FLAG_DELAY and time_us else time_us\n",
        "time_us\n",
        (LATER,),
    ),
    Mutant(
        "connections: one more than a namespace may have is refused",
        "server/_wire_belongs.pxi",
        "    if total > most:\n",
        "    if total > most + 1:\n",
        (CONNECTIONS,),
    ),
    Mutant(
        "connections: those of all workers count",
        "server/_wire_belongs.pxi",
        "total += count_load(tally.counts + <size_t>at * tally.places + place)",
        "total += count_load(tally_own(tally, place)) if at == 0 else 0",
        (CONNECTIONS,),
    ),
    Mutant(
        "connections: one that is closed counts no more",
        "server/_wire_endpoint.pxi",
        "        tally_leave(&self.hub.gates.tally, &self.belongs)\n",
        "",
        (CONNECTIONS,),
    ),
    Mutant(
        "connections: what a worker that died had counted is forgotten",
        "server/_wire_gate.pxi",
        "        memset(tally_own(&self.tally, 0), 0, self.cell_count * sizeof(uint32_t))\n",
        "",
        (CONNECTIONS,),
    ),
    Mutant(
        "waiting: a numbered send to a topic is stored once",
        "server/protocols/native/topics.py",
        "            sequence=sequence)\n",
        "            sequence=0)\n",
        (TOPIC_ONCE,),
    ),
    Mutant(
        "waiting: a client numbers what it sends to a topic",
        "client/model.py",
        'NUMBERED = ("topic.send",)',
        "NUMBERED = ()",
        (TOPIC_ONCE,),
    ),
    Mutant(
        "waiting: a repeated send to a topic is told where the first one is",
        "server/broker/topic.py",
        "            if home.id in rows:\n",
        "            if not rows:\n",
        (TOPIC_ONCE,),
    ),
    Mutant(
        "waiting: a half to a topic waits for its verdict",
        "server/protocols/native/topics.py",
        "half=later.check_back if later.half else None",
        "half=None",
        (TOPIC_ONCE,),
    ),
    Mutant(
        "waiting: who was asked as often as it may is asked no more",
        "server/broker/transaction.py",
        " if check.checks < back.limit else None\n",
        "\n",
        (TRANSACTION,),
    ),
    Mutant(
        "waiting: a half nobody comes back for is rolled back, and no younger one",
        "server/broker/transaction.py",
        " if one.stored_us + self.limits.half_ms * 1000 <= now_us]",
        "]",
        (TRANSACTION,),
    ),
    Mutant(
        "waiting: a firing is stored once",
        "server/broker/cron.py",
        "            producer=producer, sequence=at_us // 1_000_000)\n"
        "        return receipt.pending",
        "            )\n        return receipt.pending",
        (CRON,),
    ),
    Mutant(
        "waiting: who was overtaken by a change of its schedule withdraws what it sent",
        "server/broker/cron.py",
        "                self.withdraw(after)\n",
        "                pass\n",
        (CRON,),
    ),
    Mutant(
        "waiting: what was withdrawn may be sent again by the schedule that goes on",
        "server/broker/cron.py",
        "    return max(now_us, old.made_us + 1) if old is not None else now_us\n",
        "    return old.made_us if old is not None else now_us\n",
        (CRON,),
    ),
)
