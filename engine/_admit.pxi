# Who is let into the log: each operation of a round is admitted or refused under the store lock, and what only the
# holder of the lock can know is filled into its records.


cdef enum:
    TWICE = 0xFFFFFFFF          # spare of the first operation of an atomic batch that was stored already


cdef void together_admit(core_t* core, round_t* round, uint32_t first, bint full) noexcept nogil:
    """Refuse all operations of an atomic batch if one of them must be; the first has their number in spare."""
    cdef uint32_t count = round.operations[first].spare
    cdef uint32_t index
    cdef uint8_t verdict = STORE_FULL if full else DONE
    cdef bint twice = together_stored(core, round.operations + first)
    for index in range(first, first + count):
        if find_queue(core, round.operations[index].queue) == NULL:
            verdict = NOT_FOUND
        elif round.operations[index].kind == KIND_PENDING and not pending_ready(core):
            verdict = STORE_FULL
    if verdict == DONE and round.operations[first].kind == KIND_TRANSFER:
        verdict = spread_admit(core, round, round.operations + first)
    for index in range(first, first + count):
        round.operations[index].verdict = DONE if twice else verdict
        round.operations[index].duplicate = twice
    if twice:
        round.operations[first].spare = TWICE


cdef bint together_stored(core_t* core, operation_t* first) noexcept nogil:
    """Whether an atomic batch was stored already, by the number that its first operation has."""
    cdef bint waits = False
    if first.sequence == 0 or not producer_stored(core, first.producer, first.sequence, &first.offset, &waits):
        return False
    first.kind = KIND_PENDING if waits else KIND_APPEND
    return True


cdef queue_t* operation_admit(core_t* core, operation_t* operation, bint full, uint64_t pending) noexcept nogil:
    """The queue to append to; NULL with the reason in the operation if it shall not be. pending: answered as id."""
    cdef queue_t* queue = find_queue(core, operation.queue)
    cdef bint waits = False
    if operation.verdict != DONE or operation.duplicate:
        return NULL
    if queue == NULL:
        operation.verdict = NOT_FOUND
    elif full:
        operation.verdict = STORE_FULL
        queue = NULL
    elif operation.sequence and producer_stored(core, operation.producer, operation.sequence, &operation.offset,
                                                &waits):
        # Whether the first one had to wait says what its number means, not whether this one would have.
        operation.duplicate = 1
        operation.kind = KIND_PENDING if waits else KIND_APPEND
        queue = NULL
    elif operation.sequence:
        # Noted at once, so that a second copy in the same round is seen; a frame that fails poisons the store.
        operation.offset = pending if pending else queue.next
        producer_keep(core, operation.producer, operation.sequence, operation.offset, pending != 0,
                      core.control.written, core.control.last_us)
    else:
        operation.offset = pending if pending else queue.next
    return queue


cdef void operation_prepare(core_t* core, operation_t* operation, record_t* record, uint64_t now) noexcept nogil:
    """Fill in what only the holder of the lock can know; a refusal turns the record into a SKIP."""
    cdef uint32_t bucket
    cdef uint32_t found
    cdef group_t* group
    cdef const char* name = <const char*>record_body(record)
    record.queue = operation.queue
    record.offset = operation.offset
    if operation.kind == KIND_QUEUE:
        found = name_find(core, 0, name, record.body_size, &bucket)
        operation.duplicate = found != 0
        if found == 0:
            found = queue_id_next(core)
            record.queue = found
            if found:
                # The id must be taken before another operation of this round asks for the next.
                queue_apply(core, found, name, record.body_size, now, core.control.written)
        else:
            record.type = RECORD_SKIP
        operation.offset = found
    elif operation.kind == KIND_GROUP:
        found = name_find(core, operation.queue, name + 8, record.body_size - 8, &bucket)
        operation.duplicate = found != 0
        if found == 0 and find_queue(core, operation.queue) != NULL:
            found = group_id_next(core)
            record.offset = found
            if found:
                group_apply(core, found, operation.queue, (<const uint64_t*>name)[0], name + 8,
                            record.body_size - 8, core.control.written)
        else:
            record.type = RECORD_SKIP
        operation.offset = found
    elif operation.kind == KIND_GROUP_SETTINGS:
        settings_prepare(core, operation, record)
    elif operation.kind == KIND_ADVANCE:
        advance_prepare(core, operation, record)
    elif operation.kind == KIND_GROUP_DELETE:
        group = find_group(core, <uint32_t>operation.offset)
        if group == NULL or group.queue != operation.queue or group.name_size == 0:
            operation.verdict = NOT_FOUND
            record.type = RECORD_SKIP
    elif operation.kind == KIND_SEEK:
        seek_prepare(core, operation, record)
    elif operation.kind == KIND_QUEUE_DELETE or operation.kind == KIND_TRIM or operation.kind == KIND_QUEUE_SETTINGS:
        if find_queue(core, operation.queue) == NULL:
            operation.verdict = NOT_FOUND
        elif operation.kind == KIND_QUEUE_SETTINGS and not settings_room(core):
            operation.verdict = STORE_FULL
        elif operation.kind == KIND_TRIM:
            unpurge_admit(core, operation, record)
        if operation.verdict != DONE:
            record.type = RECORD_SKIP
    if (operation.kind == KIND_QUEUE or operation.kind == KIND_GROUP) and operation.offset == 0:
        operation.verdict = STORE_FULL if find_queue(core, operation.queue) != NULL \
            or operation.kind == KIND_QUEUE else NOT_FOUND
        record.type = RECORD_SKIP


cdef void settings_prepare(core_t* core, operation_t* operation, record_t* record) noexcept nogil:
    """Say in the record which group it is for and how far that had taken; refuse it if there is none."""
    cdef group_t* group = find_group(core, <uint32_t>operation.offset)
    if group == NULL or group.queue != operation.queue:
        operation.verdict = NOT_FOUND
    elif not settings_room(core):
        operation.verdict = STORE_FULL
    if operation.verdict != DONE:
        record.type = RECORD_SKIP
        return
    record.spare = group.id
    # Of a group that is frozen already the cursor says nothing: an earlier record of this round decides it.
    stripe_lock(core, group)
    record.offset = 0 if group.frozen else group.cursor
    group.frozen = 1
    stripe_unlock(core, group)


cdef void seek_prepare(core_t* core, operation_t* operation, record_t* record) noexcept nogil:
    """Freeze the group; BUSY if another seek came between, in this round or before: it is to be made anew."""
    cdef const seek_t* body = <const seek_t*>record_body(record)
    cdef group_t* group = find_group(core, body.group)
    if group == NULL:
        operation.verdict = NOT_FOUND
    elif body.generation != group.generation + 1 or group.seeking == <uint16_t>core.control.sequence:
        operation.verdict = BUSY
    if operation.verdict != DONE:
        record.type = RECORD_SKIP
        return
    group.seeking = <uint16_t>core.control.sequence
    stripe_lock(core, group)
    group.frozen = 1
    stripe_unlock(core, group)


cdef uint64_t operation_more(core_t* core, round_t* round, uint32_t index, bint full, uint64_t now) noexcept nogil:
    """What kinds that have rules of their own need besides; the bytes to be counted as needed."""
    cdef operation_t* operation = round.operations + index
    cdef record_t* record = <record_t*>(round.buffer + operation.position)
    if operation.kind == KIND_NOTE:
        note_admit(core, round, index, record)
    elif operation.kind == KIND_FANOUT:
        return fanout_admit(core, round, operation, record, full, now)
    return 0


cdef bint place_holds(core_t* core, const record_t* record) noexcept nogil:
    """Whether what a PLACE leads to stays: a dead segment may be gone at any time, and so what was not compacted."""
    cdef uint64_t position
    if record.body_size < 8:
        return False
    position = (<const uint64_t*>record_body(record))[0]
    return live_holds(core, position) and cold_keeps(core, position)


cdef bint round_sends(round_t* round) noexcept nogil:
    """Whether a round has messages and nothing else."""
    cdef uint32_t at
    for at in range(round.count):
        if round.operations[at].count == 0:
            return False
    return True
