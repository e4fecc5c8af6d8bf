# Messages become an operation of the filling round, with or without attributes, one or many.

cdef enum:
    ATTRIBUTED = 2              # beside a durability level: ext is a list of attributes
    PACKED = 4                  # each message has attributes of its own: sizes are pairs (body, attributes)


cdef int bodies_stage(core_t* core, lane_t* lane, uint64_t cookie, uint32_t queue, int level, uint64_t producer,
                      uint64_t sequence, uint32_t count, const uint32_t* sizes, const uint8_t* bodies, uint64_t total,
                      const uint8_t* ext, uint16_t ext_size, bint wait, round_t** into,
                      uint32_t* place, const aside_t* aside) noexcept nogil:
    """Stage messages as one operation; level: 0 kernel or 1 disk, | ATTRIBUTED, or | PACKED without ext.

    PACKED: sizes has 2 × count numbers, and before each body stand its attributes. aside: NULL, or they are pending.
    DONE, TOO_LARGE, or BUSY if the round is full and wait is false.
    """
    cdef uint64_t need = total + count * <uint64_t>(sizeof(record_t) + ext_size + 8) + 16
    cdef uint64_t position
    cdef uint32_t at, size
    cdef round_t* round
    cdef record_t* record
    cdef operation_t* operation
    if need > lane.limit - sizeof(frame_t):
        return TOO_LARGE
    while True:
        pthread_mutex_lock(&lane.lock)
        round = lane.filling
        if round.size + need <= lane.limit and round_reserve(round, need):
            break
        pthread_mutex_unlock(&lane.lock)
        if not wait:
            return BUSY
        lane_turn(lane)
    position = round.size
    if count == 1 and need < 1024 and round.room - round.size > 4096:
        fetch_ahead(round.buffer + round.size + 3 * need, need)
        fetch_ahead(<uint8_t*>(round.operations + round.count + 3), sizeof(operation_t))
    for at in range(count):
        if level & PACKED:
            size = sizes[2 * at]
            ext = bodies
            ext_size = <uint16_t>sizes[2 * at + 1]
            bodies += ext_size
        else:
            size = sizes[at]
        record = record_stage(core, round, RECORD_MESSAGE, producer, sequence if at == 0 else 0, ext, ext_size,
                              bodies, size)
        if level & ATTRIBUTED or (level & PACKED and ext_size):
            record.flags |= RECORD_ATTRIBUTED
        if aside != NULL:
            record_aside(record, aside)
        bodies += size
    place[0] = round.count
    operation = operation_stage(round, cookie, KIND_APPEND, queue, count, <uint8_t>level, position)
    operation.producer = producer
    operation.sequence = sequence
    if aside != NULL:
        operation_aside(round, operation, aside.due_us)
    into[0] = round
    if wait:
        round.claims += 1
    pthread_mutex_unlock(&lane.lock)
    return DONE


cdef uint64_t pending_after(uint64_t id, uint32_t body_size, uint32_t ext_size) noexcept nogil:
    """The id of the message that was staged behind one of these sizes, in the same operation."""
    return id + ((sizeof(record_t) + <uint64_t>ext_size + body_size + 7) & ~<uint64_t>7)


cdef bint aside_fill(core_t* core, aside_t* aside, uint64_t due_us, uint32_t check_ms) noexcept nogil:
    """What makes messages wait; True if they need not: they are no halves (NO_HALF), and their time is over."""
    aside.due_us = due_us
    aside.spare = DELAYED
    if check_ms != NO_HALF:
        aside.spare = HALF | <uint32_t>(min((check_ms * <uint64_t>1000 + CHECK_UNIT_US - 1) // CHECK_UNIT_US,
                                            <uint64_t>CHECK_UNITS)) << 8
        return False
    # What comes in more than a second waits, whatever the exact clock says.
    return due_us <= clock_tick_us() + load64(&core.control.clock_ahead_us) + 1000000 and due_us <= store_clock(core)
