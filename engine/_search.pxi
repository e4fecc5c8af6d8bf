# Search: which messages have given attributes or words, and which records of the log speak of a message. Steps of
# bounded length, no lock.

cdef enum:
    FOUND_ROOM = 256            # records of one step of a trace

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <string.h>
    static inline int holds_bytes(const void *in, size_t size, const void *what, size_t count) {
        return memmem(in, size, what, count) != NULL;
    }
    """
    bint holds_bytes(const void*, size_t, const void*, size_t) nogil

cdef struct wanted_t:
    const uint8_t* attributes   # packed; a message must have each of them
    uint32_t attributes_size
    const uint8_t* text
    uint64_t text_size
    uint32_t tag                # as the index has them; 0: any
    uint32_t key

cdef struct walk_t:
    # A walk over the log for the records about one message.
    uint32_t queue
    uint64_t offset
    uint64_t position           # of the message's record, and of the one with its body
    uint64_t body
    uint64_t at                 # records before this position were looked at
    uint64_t end
    uint64_t visible_us         # a frame written then says that the message was on disk
    uint64_t skipped            # segments that are gone or damaged, in part or wholly
    uint32_t count
    uint64_t found[256]


cdef bint attribute_there(const uint8_t* ext, uint32_t size, const attribute_t* wanted) noexcept nogil:
    """Whether an attribute list has exactly this attribute."""
    cdef const attribute_t* head
    cdef uint32_t step
    while size >= sizeof(attribute_t):
        head = <const attribute_t*>ext
        step = <uint32_t>sizeof(attribute_t) + head.name_size + head.value_size
        if step > size:
            return False
        if memcmp(head, wanted, sizeof(attribute_t)) == 0 \
                and memcmp(head + 1, wanted + 1, step - sizeof(attribute_t)) == 0:
            return True
        ext += step
        size -= step
    return False


cdef bint message_wanted(const record_t* message, const wanted_t* wanted) noexcept nogil:
    """Whether a message has the attributes and the text."""
    cdef uint32_t at = 0
    cdef const attribute_t* head
    if wanted.text_size and not holds_bytes(record_body(message), message_size(message), wanted.text, wanted.text_size):
        return False
    if wanted.attributes_size and not message.flags & RECORD_ATTRIBUTED:
        return False
    while at < wanted.attributes_size:
        head = <const attribute_t*>(wanted.attributes + at)
        if not attribute_there(record_ext(message), message.ext_size, head):
            return False
        at += <uint32_t>sizeof(attribute_t) + head.name_size + head.value_size
    return True


cdef uint64_t entries_search(core_t* core, queue_t* queue, uint64_t at, uint64_t high, const wanted_t* wanted,
                             uint64_t entries, uint64_t read, uint64_t* found, uint32_t* count,
                             uint32_t limit, uint64_t* damaged) noexcept nogil:
    """Offsets of what is wanted, from at on; returns where it stopped: found enough, or read enough.

    Of a message whose tag and key fit, what is read counts against read; every entry counts against entries.
    """
    cdef const entry_t* leaf = NULL
    cdef const entry_t* entry
    cdef const record_t* record
    cdef const record_t* message
    cdef bint look = wanted.text_size or wanted.attributes_size
    while at < high and count[0] < limit and entries:
        if leaf == NULL or at % LEAF == 0:
            leaf = index_leaf(core, queue, at)
        entry = leaf + at % LEAF
        entries -= 1
        if (wanted.tag and entry.tag != wanted.tag) or (wanted.key and entry.key != wanted.key):
            at += 1
            continue
        if look:
            if read < 64:
                break
            read -= min(read, <uint64_t>max(entry.size, <uint32_t>64))
            record = record_at(core, entry.position)
            message = NULL
            if record != NULL and puts_message(record, entry, queue.id, at):
                message = message_of(core, record)
            damaged[0] += message == NULL
            if message == NULL or not message_wanted(message, wanted):
                at += 1
                continue
        found[count[0]] = at
        count[0] += 1
        at += 1
    return at


cdef bint speaks_of(const record_t* record, const walk_t* walk) noexcept nogil:
    """Whether a record changes what becomes of the message. Sizes are not trusted."""
    cdef const uint64_t* pair
    cdef const confirm_t* head
    cdef const range_t* ranges
    cdef uint32_t at
    cdef int kind = record.type
    if kind == RECORD_PLACE and record.body_size >= 8:
        pair = <const uint64_t*>record_body(record)
        if pair[0] == walk.position or pair[0] == walk.body:
            return True
    if record.queue != walk.queue:
        return kind == RECORD_FANOUT and record.position == walk.position
    if kind == RECORD_CONFIRM or kind == RECORD_LEASE:
        head = <const confirm_t*>record_body(record)
        if record.body_size < sizeof(confirm_t) \
                or head.count > (record.body_size - sizeof(confirm_t)) // sizeof(range_t):
            return False
        ranges = <const range_t*>(head + 1)
        for at in range(head.count):
            if walk.offset >= ranges[at].start and (
                    walk.offset - ranges[at].start < ranges[at].count if kind == RECORD_CONFIRM
                    else walk.offset == ranges[at].start):
                return True
        return False
    if kind == RECORD_ADVANCE:
        return record.body_size == 16 and (<const uint64_t*>record_body(record))[1] > walk.offset
    if kind == RECORD_MESSAGE or kind == RECORD_PLACE:
        return record.offset == walk.offset
    if kind == RECORD_TRIM:
        return record.offset > walk.offset
    if kind == RECORD_GROUP:
        return record.body_size >= 8 and (<const uint64_t*>record_body(record))[0] > walk.offset
    return kind == RECORD_SEEK or kind == RECORD_QUEUE_DELETE


cdef void frame_walk(core_t* core, const uint8_t* base, uint64_t at, uint64_t number, walk_t* walk) noexcept nogil:
    """Note the records of a whole frame, from walk.at on, that speak of the message; walk.at goes behind them."""
    cdef const frame_t* frame = <const frame_t*>(base + at)
    cdef const record_t* record = <const record_t*>(frame + 1)
    cdef uint64_t end = at + frame.size
    at += sizeof(frame_t)
    if walk.visible_us == 0 and frame.durable > walk.position and at + sizeof(record_t) <= end:
        walk.visible_us = record.stored_us
    while end - at >= sizeof(record_t) and walk.count < FOUND_ROOM:
        record = <const record_t*>(base + at)
        if payload_size(record) > end - at - sizeof(record_t):
            break
        if (number << 32 | at) >= walk.at and speaks_of(record, walk):
            walk.found[walk.count] = number << 32 | at
            walk.count += 1
        at += record_size(record)
        walk.at = max(walk.at, number << 32 | at)
        if at >= end:
            break
    if walk.count < FOUND_ROOM:
        walk.at = max(walk.at, number << 32 | end)


cdef void log_walk(core_t* core, walk_t* walk, uint64_t budget) noexcept nogil:
    """Go on with a walk from walk.at (any position) for so many bytes, or until 256 records are found."""
    cdef uint64_t number = walk.at >> 32
    cdef uint64_t last = walk.end >> 32
    cdef uint64_t salt = 0
    cdef uint64_t at, size
    cdef const uint8_t* base
    while walk.at < walk.end and budget and walk.count < FOUND_ROOM:
        number = walk.at >> 32
        base = segment_map(core, number, &salt)
        at = SEGMENT_HEADER
        # Frames are counted off from the segment's first: only so is a position in one found.
        while base != NULL and (number << 32 | at) < walk.end and budget and walk.count < FOUND_ROOM:
            if frame_judge(core, base, at, number, salt, False) != WHOLE:
                break
            size = (<const frame_t*>(base + at)).size
            if (number << 32 | (at + size)) > walk.at:
                frame_walk(core, base, at, number, walk)
                budget -= min(budget, size)
            at += size
        if budget == 0 or walk.count == FOUND_ROOM:
            return
        if number == last:
            walk.skipped += (number << 32 | at) < walk.end
            walk.at = walk.end
            return
        walk.skipped += base == NULL or not ends_at(core, number + 1, number << 32 | at)
        walk.at = (number + 1) << 32 | SEGMENT_HEADER


cdef bint ends_at(core_t* core, uint64_t number, uint64_t position) noexcept nogil:
    """Whether a segment says that the log ended at a position before it."""
    cdef uint64_t salt = 0
    cdef const uint8_t* base = segment_map(core, number, &salt)
    return base != NULL and (<const segment_header_t*>base).previous_end == position
