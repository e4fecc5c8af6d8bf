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


cdef inline recipient_t* record_recipients(const record_t* record) noexcept nogil:
    """The table of a FANOUT, record.spare rows."""
    return <recipient_t*>(<uint8_t*>record + sizeof(record_t) + (16 if record.flags & RECORD_SEQUENCED else 0))


cdef inline uint64_t recipients_size(const record_t* record) noexcept nogil:
    return record.spare * <uint64_t>sizeof(recipient_t) if record.type == RECORD_FANOUT else 0


cdef inline const uint8_t* record_ext(const record_t* record) noexcept nogil:
    return (<const uint8_t*>record_recipients(record)) + recipients_size(record)


cdef inline const uint8_t* record_body(const record_t* record) noexcept nogil:
    return record_ext(record) + record.ext_size


cdef inline uint32_t message_size(const record_t* record) noexcept nogil:
    """The size of the body alone."""
    return record.body_size - <uint32_t>recipients_size(record)


cdef inline uint64_t message_room(const record_t* record) noexcept nogil:
    """What the message takes in the log: the size of its record without the recipients."""
    return record_size(record) - recipients_size(record)


cdef inline bint puts_message(const record_t* record, const entry_t* entry, uint32_t queue,
                              uint64_t offset) noexcept nogil:
    """Whether the record to which an entry leads put a message at this offset of the queue."""
    cdef const recipient_t* to
    if record.type != RECORD_FANOUT:
        return record.queue == queue and record.offset == offset
    to = record_recipients(record) + entry.spare
    return entry.spare < record.spare and to.queue == queue and to.offset == offset


cdef inline uint64_t payload_hash(core_t* core, const record_t* record) noexcept nogil:
    """Of a FANOUT, ext and body first, and their hash seeds that of what stands before them."""
    cdef const uint8_t* start = <const uint8_t*>(record + 1)
    cdef uint64_t size = payload_size(record)
    cdef uint64_t front
    if record.type != RECORD_FANOUT:
        return xxh3(start, size, core.salt)
    front = record_ext(record) - start
    return xxh3(start, front, xxh3(start + front, size - front, core.salt))


cdef const uint8_t* attribute_find(const uint8_t* ext, uint32_t size, uint8_t kind, uint16_t* found) noexcept nogil:
    """The value of the first attribute of a kind and its size; NULL if there is none. Sizes are not trusted."""
    cdef const attribute_t* head
    cdef uint32_t step
    while size >= sizeof(attribute_t):
        head = <const attribute_t*>ext
        step = <uint32_t>sizeof(attribute_t) + head.name_size + head.value_size
        if step > size:
            return NULL
        if head.kind == kind:
            found[0] = head.value_size
            return ext + sizeof(attribute_t) + head.name_size
        ext += step
        size -= step
    return NULL


cdef uint32_t attribute_hash(const record_t* record, uint8_t kind) noexcept nogil:
    """What the index holds for a message's tag or key: the low half of XXH3(value), 0 if there is none."""
    cdef uint16_t size = 0
    cdef const uint8_t* value
    if not record.flags & RECORD_ATTRIBUTED:
        return 0
    value = attribute_find(record_ext(record), record.ext_size, kind, &size)
    return (<uint32_t>xxh3(value, size, 0) or 1) if value != NULL else 0


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
    if recipients_size(record) > record.body_size:
        return BROKEN
    if record.check != xxh3(record, 40, payload_hash(core, record) ^ salt):
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


cdef struct judged_t:
    core_t* core
    const uint8_t* base         # of the segment's map
    uint64_t position
    uint64_t salt


cdef int record_judge_at(void* with_) noexcept nogil:
    cdef judged_t* what = <judged_t*>with_
    cdef uint64_t at = what.position & BYTE
    return record_judge(what.core, what.base + at, what.core.segment_size - at, what.position, what.salt)


cdef int frame_judge_at(void* with_) noexcept nogil:
    cdef judged_t* what = <judged_t*>with_
    return frame_judge(what.core, what.base, what.position & BYTE, what.position >> 32, what.salt, True)


cdef int blank_at(void* with_) noexcept nogil:
    """1 if no frame of this segment stands from a position on; what a former use left is of other salts."""
    cdef judged_t* what = <judged_t*>with_
    cdef uint64_t at = what.position & BYTE
    while at < what.core.segment_size:
        if frame_judge(what.core, what.base, at, what.position >> 32, what.salt, True) == WHOLE:
            return 0
        at += 8
    return 1


cdef int frame_verdict(core_t* core, const uint8_t* base, uint64_t position, uint64_t salt) noexcept nogil:
    """The verdict on the frame at a position of a mapped segment; -1 if some of it cannot be read."""
    cdef judged_t what
    what.core = core
    what.base = base
    what.position = position
    what.salt = salt
    return guarded(frame_judge_at, &what)


cdef bint frame_whole(core_t* core, const uint8_t* base, uint64_t position, uint64_t salt) noexcept nogil:
    """Whether a mapped segment has a whole frame at a position; one that cannot be read is none."""
    return frame_verdict(core, base, position, salt) == WHOLE


cdef const record_t* record_at(core_t* core, uint64_t position) noexcept nogil:
    """The whole record at a position; NULL if it is damaged or cannot be read.

    It stays mapped at least while a pin or the store lock is held.
    """
    cdef judged_t what
    cdef const record_t* cold
    if core.control.cold:
        cold = cold_record(core, position)
        if cold != NULL:
            return cold
    what.core = core
    what.position = position
    what.salt = 0
    what.base = segment_map(core, position >> 32, &what.salt) if position else NULL
    if what.base == NULL:
        # Compacted, and the segment gone, since we looked.
        return cold_record(core, position) if load64(&core.control.cold) != core.cold_seen else NULL
    if (position & BYTE) >= core.segment_size or guarded(record_judge_at, &what) != WHOLE:
        return NULL
    return <const record_t*>(what.base + (position & BYTE))


cdef const record_t* message_of(core_t* core, const record_t* record) noexcept nogil:
    """The record with the body that a record stands for: what a PLACE leads to, else itself. NULL if it is damaged."""
    if record.type != RECORD_PLACE:
        return record
    if record.body_size < 8:
        return NULL
    record = record_at(core, (<const uint64_t*>record_body(record))[0])
    return record if record != NULL and record.type != RECORD_PLACE else NULL
