# What producers sent: the sequence numbers that are remembered, so that a repetition is stored once.

cdef enum:
    REMEMBERED = 1024           # sequence numbers kept with their offsets, per producer
    RING_PAGE = 128             # of them in a page

cdef enum:
    # The spare of a SKIP whose number counts as stored, for its id was known. Its offset is where the message is, or
    # what it is called while it waits.
    SKIP_STORED = 0xFFFFFFFF
    SKIP_WAITING = 0xFFFFFFFE

cdef struct sequenced_t:
    uint64_t sequence
    uint64_t offset
    uint64_t position           # of the frame: what an unpublished frame noted can be taken back
    uint64_t waits              # 1: offset is the id of what waited when it was sent


cdef producer_t* producer_find(core_t* core, uint64_t id, bint make, uint64_t now) noexcept nogil:
    """A producer's slot: the table is cut in sets of 8; a newcomer takes the place of the one unused longest."""
    cdef uint32_t base = <uint32_t>(xxh3(&id, 8, 1) % (PRODUCERS // 8)) * 8
    cdef uint32_t at
    cdef producer_t* slot
    cdef producer_t* oldest = producer_slot(core, base)
    for at in range(8):
        slot = producer_slot(core, base + at)
        if slot.id == id:
            return slot
        if slot.used_us < oldest.used_us:
            oldest = slot
    if not make:
        return NULL
    for at in range(8):
        if oldest.ring[at]:
            memset(arena_page(core, oldest.ring[at]), 0, PAGE)
    core.control.state.producer_slots = 1
    oldest.id = id
    oldest.last = 0
    oldest.used_us = now
    return oldest


cdef sequenced_t* producer_ring(core_t* core, producer_t* producer, uint64_t sequence, bint make) noexcept nogil:
    """Where a sequence number is remembered; NULL if its page is not there (or the disk is full)."""
    cdef uint32_t at = <uint32_t>(sequence % REMEMBERED)
    cdef uint32_t page = producer.ring[at // RING_PAGE]
    if page == 0 and make:
        page = arena_take(core)
        producer.ring[at // RING_PAGE] = page
    return <sequenced_t*>arena_page(core, page) + at % RING_PAGE if page else NULL


cdef bint producer_stored(core_t* core, uint64_t id, uint64_t sequence, uint64_t* offset, bint* waits) noexcept nogil:
    """Whether the producer's sequence number was stored; the offset it had, NEVER if that is forgotten.

    waits: it is the id of a message that had to wait.

    A number below the last that left no trace where it would be remembered was refused then (a full disk, a queue
    that was not there): it was not stored, although later ones were.
    """
    cdef producer_t* producer = producer_find(core, id, False, 0)
    cdef sequenced_t* kept
    if producer == NULL or sequence > producer.last:
        return False
    kept = producer_ring(core, producer, sequence, False)
    if kept == NULL or kept.sequence < sequence:
        return False
    offset[0] = kept.offset if kept.sequence == sequence else NEVER
    waits[0] = kept.sequence == sequence and kept.waits
    return True


cdef void producer_keep(core_t* core, uint64_t id, uint64_t sequence, uint64_t offset, bint waits,
                        uint64_t position, uint64_t now) noexcept nogil:
    """Remember that a sequence number was stored."""
    cdef producer_t* producer = producer_find(core, id, True, now)
    cdef sequenced_t* kept = producer_ring(core, producer, sequence, True)
    if kept != NULL and kept.sequence < sequence:
        kept.sequence = sequence
        kept.offset = offset
        kept.waits = waits
        kept.position = position
    producer.last = max(producer.last, sequence)
    producer.used_us = now


cdef inline const uint64_t* record_stamp(const record_t* record) noexcept nogil:
    """Producer and sequence number of a record that is SEQUENCED."""
    return <const uint64_t*>((<const uint8_t*>record) + sizeof(record_t))


cdef void producer_note(core_t* core, const record_t* record) noexcept nogil:
    """Remember the sequence number of a stored record."""
    cdef const uint64_t* stamp = record_stamp(record)
    if record.type == RECORD_SKIP:
        if record.flags & RECORD_SEQUENCED and record.spare in (SKIP_STORED, SKIP_WAITING):
            producer_keep(core, stamp[0], stamp[1], record.offset, record.spare == SKIP_WAITING, record.position,
                          record.stored_us)
    elif record.flags & RECORD_SEQUENCED:
        producer_keep(core, stamp[0], stamp[1],
                      record.position if record.type == RECORD_PENDING else record.offset,
                      record.type == RECORD_PENDING,
                      record.position, record.stored_us)


cdef void producer_undo(core_t* core, producer_t* producer, uint64_t written) noexcept nogil:
    """Forget the numbers noted for a frame that was never published."""
    cdef uint64_t at
    cdef bint taken = False
    cdef uint64_t last = 0
    cdef sequenced_t* kept
    if producer.id == 0:
        return
    for at in range(REMEMBERED):
        kept = producer_ring(core, producer, at, False)
        if kept == NULL:
            continue
        if kept.sequence and kept.position >= written:
            kept.sequence = 0
            taken = True
        elif kept.sequence > last:
            last = kept.sequence
    if taken:
        producer.last = last
