# Who is admitted to a round, where a kind of operation has rules of its own.


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
    """Whether what a PLACE leads to is in a segment that stays: dead ones may be gone at any time."""
    return record.body_size >= 8 and live_holds(core, (<const uint64_t*>record_body(record))[0])
