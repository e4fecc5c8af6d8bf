# Messages that are in the log and in no queue yet: delayed ones, and halves that wait for their producer's verdict.
# Two tables, one of what waits for its time and one of halves, each an index tree like a queue's: a PENDING or MOVE
# record appends an entry, in the order of positions, and what decides the message marks the entry.
#
# Invariants: 1. Positions grow with numbers in a table, so that a search finds an id. 2. Of an entry only the verdict
# ever changes, once, and it holds the position of the record that says so. A checkpoint has the index on disk and
# recovery drops every verdict from its position on: so the tables are a fold over the log, whatever pages a power cut
# left behind. 3. The first verdict wins: PENDING_RULES is the whole of what is legal, and only pending_admit and
# apply_control act on it, under the store lock.

cdef enum:
    # What an entry waits for.
    DELAYED = 1                 # its time
    HALF = 2                    # its producer's verdict; due is when the producer is asked next
    COMMITTED = 3               # its time, after it was committed as a half

cdef enum:
    # The low bits of a verdict; the others are the position of the record.
    OPEN = 0
    QUEUED = 1                  # it is in its queue
    DROPPED = 2
    MOVED = 3                   # the entry at that position goes on for this one

cdef enum:
    # What the rules answer.
    ACT = 0
    SAME = 1                    # it was decided so before: nothing to do
    OTHER = 2                   # it was decided otherwise before
    WRONG = 3                   # no such thing can be asked of it

# waits for × verdict × event (fire, cancel, move, commit, rollback, check). What is MOVED is never asked.
cdef uint8_t[54] PENDING_RULES = [
    ACT, ACT, ACT, WRONG, WRONG, WRONG,             # delayed, open
    SAME, OTHER, OTHER, WRONG, WRONG, WRONG,        # delayed, placed
    OTHER, SAME, OTHER, WRONG, WRONG, WRONG,        # delayed, dropped
    WRONG, WRONG, WRONG, ACT, ACT, ACT,             # half, open
    SAME, OTHER, OTHER, SAME, OTHER, OTHER,         # half, placed
    WRONG, WRONG, WRONG, OTHER, SAME, OTHER,        # half, dropped
    ACT, ACT, ACT, SAME, OTHER, OTHER,              # committed, open
    SAME, OTHER, OTHER, SAME, OTHER, OTHER,         # committed, placed
    OTHER, SAME, OTHER, SAME, OTHER, OTHER,         # committed, dropped
]

cdef enum:
    VERDICTS_KEPT = 1 << 20     # decided entries that are remembered at least
    MOVES = 1000                # of one message
    CHECK_UNIT_US = 100000      # of the first check in a PENDING record's spare
    CHECK_UNITS = 0xFFFFFF

cdef struct pending_t:
    # An entry; as large as one of a queue's index, the position in the same place.
    uint64_t position           # of the PENDING or MOVE record
    uint64_t due_us
    uint64_t verdict
    uint32_t queue
    uint32_t spare              # kind | attempts << 8 | moves << 16, as in a MOVE record

cdef struct aside_t:
    # What makes an append a pending one.
    uint64_t due_us
    uint32_t spare

assert sizeof(pending_t) == sizeof(entry_t)


cdef inline void record_aside(record_t* record, const aside_t* aside) noexcept nogil:
    record.type = <uint8_t>RECORD_PENDING
    record.offset = aside.due_us
    record.spare = aside.spare


cdef inline void operation_aside(round_t* round, operation_t* operation, uint64_t due_us) noexcept nogil:
    operation.kind = KIND_PENDING
    round.aside += operation.count
    round.soonest = min(round.soonest, due_us)


cdef void both_aside(round_t* round, record_t* record, operation_t* operation, uint64_t due_us) noexcept nogil:
    cdef aside_t aside
    aside.due_us = due_us
    aside.spare = DELAYED
    record_aside(record, &aside)
    operation_aside(round, operation, due_us)


cdef inline uint8_t pending_kind(const pending_t* entry) noexcept nogil:
    return entry.spare & 0xFF


cdef inline queue_t* pending_table(core_t* core, int table) noexcept nogil:
    """Table 0 of what waits for its time, table 1 of halves; NULL if nothing ever waited."""
    cdef uint64_t page = load64(&core.control.state.pending)
    return <queue_t*>(arena_page(core, <uint32_t>page) + table * 256) if page else NULL


cdef bint pending_ready(core_t* core) noexcept nogil:
    """Make the tables if there are none. False if the disk is full. Under the store lock."""
    if core.control.state.pending == 0:
        store64(&core.control.state.pending, arena_take(core))
    return core.control.state.pending != 0


cdef inline pending_t* pending_entry(core_t* core, queue_t* table, uint64_t number) noexcept nogil:
    return <pending_t*>index_leaf(core, table, number) + number % LEAF


cdef uint64_t pending_body(core_t* core, const pending_t* entry, const record_t** record) noexcept nogil:
    """The position of the PENDING record with an entry's message, and the record; 0 if it is damaged."""
    cdef uint64_t at = entry.position
    record[0] = record_at(core, at)
    if record[0] != NULL and record[0].type == RECORD_MOVE and record[0].body_size == 8:
        at = (<const uint64_t*>record_body(record[0]))[0]
        record[0] = record_at(core, at)
    return at if record[0] != NULL and record[0].type == RECORD_PENDING else 0


cdef uint64_t pending_append(core_t* core, const record_t* record) noexcept nogil:
    """Give a PENDING or MOVE record its entry. Under the store lock, the tables there and pages reserved.

    Returns the bytes of its record that the caller counts as needed.
    """
    cdef uint8_t kind = record.spare & 0xFF
    cdef queue_t* table = pending_table(core, kind == HALF)
    cdef pending_t* entry = <pending_t*>index_append(core, table)
    cdef uint64_t due = record.offset
    entry.spare = record.spare
    if record.type == RECORD_PENDING:
        entry.spare = kind
        if kind == HALF:
            due = record.stored_us + (record.spare >> 8) * <uint64_t>CHECK_UNIT_US
    entry.position = record.position
    entry.due_us = due
    entry.verdict = OPEN
    entry.queue = record.queue
    table.bytes += 1
    pending_count(core, entry, 1)
    store64(&table.next, table.next + 1)
    dedup_await(core, record)
    pending_forget(core, table)
    if record.type == RECORD_MOVE:
        # Counted at once: another MOVE in the same round may give this one up.
        live_add(core, record.position, record_size(record))
        return 0
    return record_size(record)


cdef inline void pending_count(core_t* core, const pending_t* entry, int more) noexcept nogil:
    """So many more of a queue's messages wait; nothing if it was deleted."""
    cdef queue_t* queue = find_queue(core, entry.queue)
    if queue != NULL:
        store64(&queue.waiting, queue.waiting + more)


cdef void pending_forget(core_t* core, queue_t* table) noexcept nogil:
    """Forget the oldest entries that are decided, two for each new one, beyond those that are kept."""
    cdef pending_t* entry
    cdef int steps
    for steps in range(2):
        if table.next - table.first <= VERDICTS_KEPT:
            return
        entry = pending_entry(core, table, table.first)
        if entry.verdict & 7 == MOVED:
            entry = pending_find(core, entry.verdict & ~<uint64_t>7)
        # What is not on disk could be taken back.
        if entry != NULL and (entry.verdict == OPEN or entry.verdict >= load64(&core.control.durable)):
            return
        store64(&table.first, table.first + 1)


cdef void pending_decide(core_t* core, pending_t* entry, uint64_t id, uint64_t position, int verdict,
                         const record_t* body) noexcept nogil:
    """Mark an entry with the record that decides it, and give up the records that nothing leads to any more.

    body: the record with the message, where the caller has judged it already.
    """
    cdef queue_t* table = pending_table(core, pending_kind(entry) == HALF)
    cdef uint64_t pin
    entry.verdict = position | <uint64_t>verdict
    table.bytes -= 1
    pending_count(core, entry, -1)
    if entry.position != id:
        live_take(core, entry.position, sizeof(record_t) + 8)
    if verdict != MOVED:
        pin_take(core, &pin)
        if body == NULL:
            body = record_at(core, id)
        if body != NULL:
            live_take(core, id, record_size(body))
        pin_give(core)


cdef void pending_settled(core_t* core, uint64_t id, uint64_t position, int verdict) noexcept nogil:
    """What the record at a position says of an id, at replay; nothing if it was decided before."""
    cdef pending_t* entry
    if core.control.state.pending == 0:
        return
    entry = pending_find(core, id)
    if entry != NULL and entry.verdict == OPEN:
        pending_decide(core, entry, id, position, verdict, NULL)


cdef void pending_replay(core_t* core, const record_t* record) noexcept nogil:
    """Apply a PENDING or MOVE record during recovery."""
    cdef queue_t* table
    cdef uint64_t last = 0
    if not pending_ready(core) or index_reserve(core, 8):
        core.control.full = 1
        return
    table = pending_table(core, record.spare & 0xFF == HALF)
    if table.next:
        last = pending_entry(core, table, table.next - 1).position
    if record.position > last:
        if record.type == RECORD_MOVE:
            pending_settled(core, (<const uint64_t*>record_body(record))[0], record.position, MOVED)
        live_add(core, record.position, pending_append(core, record))


cdef void pending_settle(core_t* core, uint64_t start) noexcept nogil:
    """Drop what was appended and decided from a position on, and count what is open anew."""
    cdef int at
    cdef uint32_t slot
    cdef queue_t* table
    cdef entry_t* leaf
    if core.control.state.pending == 0:
        return
    for slot in range(core.control.state.queue_slots):
        queue_slot(core, slot).waiting = 0
    for at in range(2):
        table = pending_table(core, at)
        while table.next:
            leaf = index_leaf(core, table, table.next - 1)
            if leaf[(table.next - 1) % LEAF].position < start:
                if leaf != no_leaf:
                    table.leaf = index_leaf_page(core, table, table.next - 1)
                break
            store64(&table.next, table.next - 1)
        table.first = min(table.first, table.next)
        table.bytes = table_settle(core, table, start)


cdef uint64_t table_settle(core_t* core, queue_t* table, uint64_t start) noexcept nogil:
    """Drop a table's verdicts from a position on; how many entries are open."""
    cdef uint64_t number = table.first
    cdef uint64_t end, count = 0
    cdef pending_t* leaf
    while number < table.next:
        leaf = <pending_t*>index_leaf(core, table, number)
        end = min(table.next, (number // LEAF + 1) * LEAF)
        while number < end:
            if leaf[number % LEAF].verdict >= start:
                leaf[number % LEAF].verdict = OPEN
            if leaf[number % LEAF].verdict == OPEN and leaf[number % LEAF].position != 0:
                count += 1
                pending_count(core, leaf + number % LEAF, 1)
            number += 1
    return count


cdef uint64_t placed_offset(core_t* core, const pending_t* entry, const record_t* here,
                            uint64_t position) noexcept nogil:
    """The offset that a placed message got; NEVER if that record is gone. here: a record being assigned a position."""
    cdef uint64_t at = entry.verdict & ~<uint64_t>7
    cdef const record_t* place
    if at >= core.control.written:
        place = <const record_t*>(<const uint8_t*>here - (position - at))       # of the same round
    else:
        place = record_at(core, at)
    return place.offset if place != NULL and place.type == RECORD_PLACE else NEVER


cdef queue_t* pending_admit(core_t* core, operation_t* operation, record_t* record, uint64_t position, uint64_t now,
                            bint full, bint* aside, const record_t** body) noexcept nogil:
    """Judge a PENDING, CANCEL, MOVE or a PLACE of what is pending, and decide at once what it decides.

    The queue in which a PLACE goes, else NULL; body: the record it leads to, valid while the caller's pin is held.
    aside: the records get entries here. A refusal is in the operation.
    """
    cdef queue_t* queue
    cdef pending_t* entry
    cdef int event = <int>operation.producer
    cdef uint64_t hint = operation.sequence
    cdef uint64_t id
    cdef uint8_t answer
    if operation.kind == KIND_PENDING:
        queue = dedup_admit(core, operation, record, full, core.control.last_us, position)
        if queue != NULL and not pending_ready(core):
            operation.verdict = STORE_FULL
        aside[0] = queue != NULL and operation.verdict == DONE
        return NULL
    operation.verdict = DONE
    operation.producer = operation.sequence = 0
    id = (<const uint64_t*>record_body(record))[0]
    entry = pending_hinted(core, id, hint)
    if entry == NULL:
        operation.verdict = UNKNOWN
    else:
        operation.queue = entry.queue
        answer = PENDING_RULES[((pending_kind(entry) - DELAYED) * 3 + <int>(entry.verdict & 3)) * EVENTS + event]
        if answer == SAME:
            operation.duplicate = 1
            if event == EVENT_COMMIT:
                # Answered as the first one was.
                operation.spare = entry.verdict == OPEN
                operation.offset = id if operation.spare else placed_offset(core, entry, record, position)
        elif answer != ACT:
            operation.verdict = DECIDED if answer == OTHER else WRONG_KIND
        elif event == EVENT_FIRE and entry.due_us > now:
            operation.verdict = EARLY
    if entry == NULL or operation.verdict != DONE or operation.duplicate:
        record.type = RECORD_SKIP
        return NULL
    if operation.kind == KIND_CANCEL:
        record.queue = entry.queue
        record.offset = operation.offset
        pending_decide(core, entry, id, position, DROPPED, NULL)
    elif operation.kind == KIND_MOVE:
        aside[0] = pending_move(core, operation, record, entry, event, position, full)
        if aside[0]:
            pending_decide(core, entry, id, position, MOVED, NULL)
            if event == EVENT_COMMIT:
                operation.spare, operation.offset = 1, id
    else:
        queue = operation_admit(core, operation, full, 0)
        if queue != NULL:
            body[0] = record_at(core, id)
            pending_decide(core, entry, id, position, QUEUED, body[0])
        return queue
    return NULL


cdef bint pending_move(core_t* core, operation_t* operation, record_t* record, const pending_t* entry, int event,
                       uint64_t position, bint full) noexcept nogil:
    """Fill in a MOVE: another time, the next check of a half, or the time of a half that is committed."""
    cdef uint32_t moves = entry.spare >> 16
    cdef uint32_t attempts = entry.spare >> 8 & 0xFF
    cdef uint32_t kind = COMMITTED if event == EVENT_COMMIT else pending_kind(entry)
    if event == EVENT_CHECK:
        # Asked meanwhile: whoever saw the earlier time must not ask as well.
        if operation.spare != attempts:
            operation.verdict = DECIDED
        attempts += 1
    else:
        moves += 1
    if attempts > 0xFF or moves > MOVES:
        operation.verdict = TOO_LARGE
    elif full:
        operation.verdict = STORE_FULL
    elif find_queue(core, entry.queue) == NULL:
        operation.verdict = NOT_FOUND
    record.offset = operation.offset
    record.spare = kind | attempts << 8 | moves << 16
    if operation.verdict != DONE:
        return False
    operation.offset = position
    return True
