# Staging and group commit. Callers stage operations into a lane's filling round; whoever commits swaps the round
# out, takes the store lock once, assigns positions and offsets, writes one frame with one pwrite and publishes
# written; then one fdatasync, led by one process for all, publishes durable.
#
# Invariants: visible <= durable <= written. A round is written by one commit and never changed after. After a
# failed write or fsync the store is poisoned: nothing is appended, nothing is retried.

cdef enum:
    KIND_APPEND = 0
    KIND_CONFIRM = 1
    KIND_SEEK = 2
    KIND_QUEUE = 3
    KIND_QUEUE_DELETE = 4
    KIND_GROUP = 5
    KIND_TRIM = 6
    KIND_LEASE = 7
    KIND_PLACE = 8              # puts a stored message into a queue; its record is a PLACE
    # KIND_PENDING (31) is like an append; the time stands in the record's offset.
    KIND_CANCEL = 32            # these three: the body is the id, the event stands in producer
    KIND_MOVE = 33              # operation.offset: the new time
    KIND_GROUP_SETTINGS = 35    # operation.offset: the group
    KIND_QUEUE_SETTINGS = 36
    KIND_RELEASE = 37
    KIND_GROUP_DELETE = 41      # operation.offset: the group
    KIND_ADVANCE = 42           # the same
    KIND_FIRE = 50              # a PLACE of what was pending
    KIND_TRANSFER = 30          # a PLACE that also confirms the message where it was

cdef struct round_t:
    uint8_t* buffer             # a frame header's room, then whole records
    uint64_t size, room
    operation_t* operations
    uint32_t count, places
    uint32_t messages
    uint32_t disk               # operations that wait for the disk
    uint32_t aside              # of the messages, those that get no place in a queue
    uint64_t soonest            # when the first of them falls due
    uint32_t claims             # direct callers yet to read their result
    uint32_t finished
    uint32_t word               # futex of those who wait: it is finished, or is to be committed by one of them
    uint32_t waiters
    uint32_t drained
    uint64_t end
    uint64_t ticket             # names it while it flies; a round is used again
    uint32_t failed
    round_t* next

cdef round_t* round_new() noexcept nogil:
    cdef round_t* round = <round_t*>calloc(1, sizeof(round_t))
    if round == NULL:
        return NULL
    round.room = 1 << 16
    round.places = 256
    round.buffer = <uint8_t*>malloc(round.room)
    round.operations = <operation_t*>malloc(round.places * sizeof(operation_t))
    if round.buffer == NULL or round.operations == NULL:
        round_free(round)
        return NULL
    round.size = sizeof(frame_t)
    round.soonest = NEVER
    return round


cdef void round_free(round_t* round) noexcept nogil:
    if round != NULL:
        free(round.buffer)
        free(round.operations)
        free(round)


cdef void round_clear(round_t* round) noexcept nogil:
    round.size = sizeof(frame_t)
    round.count = 0
    round.messages = 0
    round.disk = 0
    round.aside = 0
    round.soonest = NEVER
    round.claims = 0
    round.finished = 0
    round.drained = 0
    round.failed = 0
    round.next = NULL


cdef inline int round_reserve(round_t* round, uint64_t bytes) noexcept nogil:
    """Room for one more operation of so many bytes; False when memory is out."""
    return round_reserve_many(round, bytes, 1)


cdef int round_reserve_many(round_t* round, uint64_t bytes, uint32_t count) noexcept nogil:
    """The same for so many operations of so many bytes together."""
    cdef uint64_t room = round.room
    cdef void* wider
    while room - round.size < bytes + PAGE:         # a page to fill up with when it is written
        room *= 2
    if room != round.room:
        wider = realloc(round.buffer, room)
        if wider == NULL:
            return False
        round.buffer = <uint8_t*>wider
        round.room = room
    while round.places - round.count < count:
        wider = realloc(round.operations, 2 * round.places * sizeof(operation_t))
        if wider == NULL:
            return False
        round.operations = <operation_t*>wider
        round.places *= 2
    return True


cdef extern from *:
    """
    /* Lines that will be written soon: they are in the cache of the core that wrote the round before. */
    static inline void fetch_ahead(const uint8_t *at, size_t size) {
        for (size_t line = 0; line < size; line += 64) __builtin_prefetch(at + line, 1);
    }
    """
    void fetch_ahead(const uint8_t*, size_t) nogil


cdef inline record_t* record_stage(core_t* core, round_t* round, int kind, uint64_t producer, uint64_t sequence,
                                   const uint8_t* ext, uint16_t ext_size, const uint8_t* body,
                                   uint32_t body_size) noexcept nogil:
    """Copy a record behind the round's others, its payload hashed (the hash waits in check)."""
    cdef record_t* record = <record_t*>(round.buffer + round.size)
    cdef uint8_t* to = <uint8_t*>(record + 1)
    cdef uint8_t* start = to
    memset(record, 0, sizeof(record_t))
    record.type = <uint8_t>kind
    record.ext_size = ext_size
    record.body_size = body_size
    if sequence:
        record.flags = RECORD_SEQUENCED
        (<uint64_t*>to)[0] = producer
        (<uint64_t*>to)[1] = sequence
        to += 16
    if ext_size:
        memcpy(to, ext, ext_size)
        to += ext_size
    if body_size:
        memcpy(to, body, body_size)
        to += body_size
    record.check = xxh3(start, to - start, core.salt)
    while (<size_t>to) & 7:
        to[0] = 0
        to += 1
    round.size = to - round.buffer
    return record


cdef inline operation_t* operation_stage(round_t* round, uint64_t cookie, int kind, uint32_t queue, uint32_t count,
                                         uint8_t durability, uint64_t position) noexcept nogil:
    cdef operation_t* operation = round.operations + round.count
    memset(operation, 0, sizeof(operation_t))
    operation.cookie = cookie
    operation.kind = <uint8_t>kind
    operation.queue = queue
    operation.count = count
    operation.durability = durability & 1
    operation.position = position
    round.count += 1
    round.messages += count
    round.disk += durability & 1
    return operation


cdef void round_fail(round_t* round, uint8_t verdict) noexcept nogil:
    cdef uint32_t at
    for at in range(round.count):
        round.operations[at].verdict = verdict


cdef int log_roll(core_t* core, bint messages) noexcept nogil:
    """Go on in the next segment; the old one is on disk first. Under the store lock. DONE, STORE_FULL or POISONED.

    Where no more can be made, messages do not get the last one.
    """
    cdef control_t* control = core.control
    cdef int failed
    cdef uint64_t end = load64(&control.written)
    if messages and load32(&control.scarce) and load64(&control.prepared) <= control.segment + 1 \
            and segment_prepare(core, 2, False):
        store32(&control.full, 1)
        return STORE_FULL
    if segment_prepared(core) == 0 or not live_room(core, control.segment + 1):
        return STORE_FULL
    syncs_lock(core)
    failed = sync_open(core)
    if failed == 0:
        failed = log_sync(core, 0)
    if failed == 0:
        durable_raise(core, end)
        live_seal(core, end >> 32, end & BYTE)
        failed = segment_begin(core, control.segment + 1, end)
        if failed == 0:
            durable_raise(core, load64(&control.written))
    if failed:
        poison(core)
    syncs_unlock(core)
    return POISONED if failed else DONE


cdef void store_lock(core_t* core) noexcept nogil:
    if mutex_lock(&core.control.store_lock):
        state_undo(core)


cdef void round_commit(core_t* core, round_t* round) noexcept nogil:
    """Write the round as one frame and publish it; each operation gets its verdict and result."""
    cdef control_t* control = core.control
    cdef int verdict = DONE
    hold(core, COMMIT_BEGINS)
    store_lock(core)
    if load32(&control.poisoned):
        verdict = POISONED
    elif load32(&control.full) and round_sends(round):
        # Refused without being written: what room there is belongs to confirmations and purges.
        verdict = STORE_FULL
    elif index_reach(core, control.index_allocated):
        verdict = STORE_FULL        # what another process added to the index finds no addresses here
    elif core.segment_size - (control.written & BYTE) < round.size:
        verdict = log_roll(core, round.messages != 0)
    if verdict == DONE and round.messages \
            and index_reserve(core, round.messages // LEAF + 4 * <uint64_t>round.count + 8):
        verdict = STORE_FULL
    if verdict == DONE:
        journal_begin(core, &control.written)
        control.inside = 1
        round_assign(core, round)
        verdict = round_write(core, round)
        control.inside = 0
        journal_end(core)
    else:
        round_fail(round, <uint8_t>verdict)
        if verdict == STORE_FULL:
            confirms_undo(core, round)
    round.end = load64(&control.written)
    pthread_mutex_unlock(&control.store_lock)
    if round.soonest < load64(&control.due_next):
        add32(&control.due_word, 1)
        futex_wake(&control.due_word)


cdef void confirms_undo(core_t* core, round_t* round) noexcept nogil:
    """The round's confirmations found no room in the log: what they confirmed shall come again."""
    cdef uint32_t index, at
    cdef uint64_t offset
    cdef const record_t* record
    cdef const confirm_t* head
    cdef const range_t* ranges
    cdef group_t* group
    for index in range(round.count):
        if round.operations[index].kind != KIND_CONFIRM or round.operations[index].spare:
            continue
        record = <const record_t*>(round.buffer + round.operations[index].position)
        head = <const confirm_t*>record_body(record)
        ranges = <const range_t*>(head + 1)
        group = find_group(core, <uint32_t>round.operations[index].offset)
        if group == NULL or group.generation != head.generation:
            continue
        stripe_lock(core, group)
        for at in range(head.count):
            for offset in range(ranges[at].start, ranges[at].start + ranges[at].count):
                unconfirm(core, group, offset)
        if group.order:
            order_rebuild(core, group)
        stripe_unlock(core, group)


cdef void round_assign(core_t* core, round_t* round) noexcept nogil:
    """Positions, offsets, times and checks for everything in the round, and the index entries of its messages."""
    cdef control_t* control = core.control
    cdef uint64_t start = control.written
    cdef uint64_t clock = store_clock(core)
    cdef uint64_t now = clock
    cdef uint64_t at
    cdef uint64_t chain = 0
    cdef uint64_t live = 0
    cdef uint32_t index, within
    cdef uint32_t records = 0
    # Read once: the operations of an atomic batch must all find the same answer.
    cdef bint full = load32(&control.full)
    cdef bint aside, kept, fresh
    cdef operation_t* operation
    cdef record_t* record
    cdef const record_t* body
    cdef queue_t* queue
    cdef uint64_t pin
    if now < control.last_us:
        now = control.last_us
    control.last_us = now
    pin_take(core, &pin)
    for index in range(round.count):
        operation = round.operations + index
        at = operation.position
        body = NULL
        aside = False
        queue = operation_judge(core, round, index, start + at, now, clock, full, &aside, &body, &live)
        for within in range(max(operation.count, <uint32_t>1)):
            record = <record_t*>(round.buffer + at)
            record.position = start + at
            record.stored_us = now
            kept = (queue != NULL or aside) and not dedup_drops(core, operation, record, now, within == 0)
            fresh = kept and queue != NULL
            if fresh:
                record.queue = operation.queue
                record.offset = queue.next
            elif kept:
                record.queue = operation.queue
            elif operation.count:
                record.type = RECORD_SKIP
            record_seal(record, record.check, control.salt)
            if fresh:
                live += dedup_append(core, queue, record, body)
            elif kept:
                live += pending_append(core, record)
            chain = xxh3(&record.check, 8, chain)
            at += record_size(record)
            records += 1
    pin_give(core)
    if live:
        live_add(core, start, live)
    frame_seal(core, round, records, chain)


cdef queue_t* operation_judge(core_t* core, round_t* round, uint32_t index, uint64_t position, uint64_t now,
                              uint64_t clock, bint full, bint* aside, const record_t** body,
                              uint64_t* live) noexcept nogil:
    """The queue in which an operation's records get entries, or NULL; aside, body: as pending_admit has them."""
    cdef operation_t* operation = round.operations + index
    cdef record_t* record = <record_t*>(round.buffer + operation.position)
    if operation.spare and operation.kind in (KIND_APPEND, KIND_PLACE, KIND_PENDING, KIND_TRANSFER):
        together_admit(core, round, index, full)
    if operation.kind == KIND_APPEND or operation.kind == KIND_PLACE or operation.kind == KIND_TRANSFER:
        if operation.kind != KIND_APPEND and not (operation.kind == KIND_TRANSFER and operation.spare):
            place_admit(core, operation, record)
        return dedup_admit(core, operation, record, full, now, 0)
    if KIND_PENDING <= operation.kind <= KIND_MOVE or operation.kind == KIND_FIRE:
        # Judged by the clock as it is: when it steps back, what is delayed waits for it.
        return pending_admit(core, operation, record, position, clock, full, aside, body)
    operation_prepare(core, operation, record, now)
    live[0] += operation_more(core, round, index, full, now)
    return NULL


cdef void frame_seal(core_t* core, round_t* round, uint32_t records, uint64_t chain) noexcept nogil:
    """Finish the header of the round's frame."""
    cdef control_t* control = core.control
    cdef frame_t* frame = <frame_t*>round.buffer
    frame.magic = FRAME_MAGIC
    frame.count = records
    frame.position = control.written
    frame.size = round.size
    frame.sequence = control.sequence
    frame.epoch = control.epoch
    frame.durable = load64(&control.durable)
    frame.chain = chain
    frame.check = xxh3(frame, 56, core.salt ^ control.salt)


cdef int round_write(core_t* core, round_t* round) noexcept nogil:
    """One pwrite; then the frame counts. DONE or POISONED."""
    cdef control_t* control = core.control
    cdef uint64_t start = control.written
    cdef uint64_t padded
    cdef int fd = write_file(core)
    cdef int failed = faulty(core, 1)
    cdef uint32_t index
    cdef operation_t* operation
    if fd < 0:
        failed = EIO
    if failed == 0:
        # Before the first byte of ours is written: an error of write-back is told to files that were open then.
        failed = sync_ready(core)
    if failed == 0:
        # Up to the end of a page: zeros over zeros, so that the kernel never has to read a page to fill it in part.
        padded = (start + round.size + PAGE - 1) // PAGE * PAGE - start
        memset(round.buffer + round.size, 0, padded - round.size)
        failed = write_all(fd, round.buffer, padded, start & BYTE)
    if failed:
        poison(core)
        round_fail(round, POISONED)
        return POISONED
    trace(core, 1, start, round.buffer, round.size)
    control.last_frame = start
    control.inside = 2
    control.coming_sequence = control.sequence + 1
    control.coming_position = start + round.size
    control.frames += 1
    control.bytes_written += round.size
    control.messages += round.messages - round.aside
    store64(&control.written, start + round.size)
    control.sequence = control.coming_sequence
    for index in range(round.count):
        operation = round.operations + index
        if operation.count == 0 or operation.kind == KIND_TRANSFER:
            apply_control(core, <record_t*>(round.buffer + operation.position))
    return DONE


cdef void round_finish(core_t* core, round_t* round) noexcept nogil:
    """Wait for the disk if anything in the round asks for it."""
    if round.disk and make_durable(core, round.end) != DONE:
        round_unproved(round)


cdef void round_unproved(round_t* round) noexcept nogil:
    """Who asked for the disk is told that it failed."""
    cdef uint32_t index
    for index in range(round.count):
        if round.operations[index].durability and round.operations[index].verdict == DONE:
            round.operations[index].verdict = POISONED
