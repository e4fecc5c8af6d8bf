# Records and frames. A record's checksum binds its own position, queue and offset; a frame is what one commit
# writes, accepted whole or not at all.

cdef enum Verdict:
    WHOLE = 0
    ENDS = 1                    # there is no record here
    BROKEN = 2


cdef inline uint64_t record_size(const record_t* record) noexcept nogil:
    cdef uint64_t size = sizeof(record_t) + <uint64_t>record.ext_size + record.body_size
    if record.flags & RECORD_SEQUENCED:
        size += 16
    return (size + 7) & ~<uint64_t>7


cdef inline uint64_t payload_size(const record_t* record) noexcept nogil:
    return <uint64_t>record.ext_size + record.body_size + (16 if record.flags & RECORD_SEQUENCED else 0)


cdef inline void record_seal(record_t* record, uint64_t body_hash, uint64_t salt) noexcept nogil:
    record.check = xxh3(record, 40, body_hash ^ salt)


cdef Verdict record_judge(core_t* core, const uint8_t* at, uint64_t room, uint64_t position,
                          uint64_t salt) noexcept nogil:
    """Judge the record at a position, reading nothing at or past room."""
    cdef const record_t* record = <const record_t*>at
    if room < sizeof(record_t):
        return ENDS
    if record.position != position:
        return BROKEN
    # Sizes come from the disk: compare by subtraction.
    if payload_size(record) > room - sizeof(record_t):
        return BROKEN
    if record.check != xxh3(record, 40, xxh3(at + sizeof(record_t), payload_size(record), core.salt) ^ salt):
        return BROKEN
    return WHOLE


cdef Verdict frame_judge(core_t* core, const uint8_t* base, uint64_t at, uint64_t number, uint64_t salt,
                         bint records) noexcept nogil:
    """Judge the frame at byte at of a mapped segment; its records too if asked."""
    cdef const frame_t* frame = <const frame_t*>(base + at)
    cdef uint64_t room = core.segment_size - at
    cdef uint64_t chain = 0
    cdef uint64_t step, end
    cdef uint32_t count = 0
    cdef const record_t* record
    if room < sizeof(frame_t) or frame.magic != FRAME_MAGIC:
        return ENDS
    if frame.position != (number << 32 | at) or frame.size > room or frame.size < sizeof(frame_t) \
            or frame.check != xxh3(frame, 56, core.salt ^ salt):
        return BROKEN
    if not records:
        return WHOLE
    end = at + frame.size
    at += sizeof(frame_t)
    while at < end:
        if record_judge(core, base + at, end - at, number << 32 | at, salt) != WHOLE:
            return BROKEN
        record = <const record_t*>(base + at)
        chain = xxh3(&record.check, 8, chain)
        count += 1
        step = record_size(record)
        if step > end - at:
            return BROKEN
        at += step
    return WHOLE if chain == frame.chain and count == frame.count else BROKEN
