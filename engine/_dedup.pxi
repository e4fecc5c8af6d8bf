# Messages that are stored once though sent again: a queue with a window remembers the ids (attribute 5) of its newest
# messages. It is a ring in the order of the log, with a chain through it for each bucket of ids. Derived from the log:
# checkpoints save it, replay goes on with it. Under the store lock.
#
# Invariants: 1. Entries have the numbers tail to head - 1, growing offsets, times that do not fall. 2. An entry is
# complete before a bucket leads to it, and counts once head is behind it. 3. A chain leads to ever lower numbers; what
# is not between tail and head ends it or, ahead of head, is passed through. So a death anywhere may forget an id, and
# never makes one known that was not stored.

cdef enum:
    DEDUP_MS = 5                # of a queue's settings: how long an id is known; 0 never
    DEDUP_COUNT = 6             # how many ids at most; 0: DEDUP_USUAL
    DEDUP_PAGE = 32             # of its page: where the ring is; in no record
    DEDUP_USUAL = 65536
    DEDUP_LIMIT = 1 << 18
    NUMBERS = 1024              # page numbers in a page
    REMEMBERED_IDS = 102        # of a page of the ring
    BUCKETS = 512               # of a page
    CHAIN_LIMIT = 4096

cdef struct remembered_t:
    uint64_t low, high          # of the id: two hashes
    uint64_t offset
    uint64_t stored_us
    uint64_t before             # number + 1 of the next in the bucket's chain

cdef struct dedup_t:
    uint64_t head, tail
    uint32_t room               # entries; as many buckets, rounded up to a power of two
    uint32_t buckets
    uint32_t ring[4]            # pages of page numbers
    uint32_t chains[2]


cdef uint32_t numbered_page(core_t* core, uint32_t* directories, uint64_t at, bint make) noexcept nogil:
    """The page with a number, through a page of page numbers; 0 if it is not there and not made."""
    cdef uint32_t* directory = directories + at // NUMBERS
    cdef uint32_t* place
    if directory[0] == 0:
        if not make:
            return 0
        store32(directory, arena_take(core))
        if directory[0] == 0:
            return 0
    place = <uint32_t*>arena_page(core, directory[0]) + at % NUMBERS
    if place[0] == 0 and make:
        store32(place, arena_take(core))
    return place[0]


cdef remembered_t* remembered(core_t* core, dedup_t* dedup, uint64_t number, bint make) noexcept nogil:
    cdef uint64_t at = number % dedup.room
    cdef uint32_t page = numbered_page(core, dedup.ring, at // REMEMBERED_IDS, make)
    return <remembered_t*>arena_page(core, page) + at % REMEMBERED_IDS if page else NULL


cdef uint64_t* dedup_bucket(core_t* core, dedup_t* dedup, uint64_t low, bint make) noexcept nogil:
    cdef uint64_t at = low & (dedup.buckets - 1)
    cdef uint32_t page = numbered_page(core, dedup.chains, at // BUCKETS, make)
    return <uint64_t*>arena_page(core, page) + at % BUCKETS if page else NULL


cdef dedup_t* dedup_of(core_t* core, const queue_t* queue) noexcept nogil:
    """The ring of a queue, NULL if it has none."""
    cdef uint64_t page = setting_of(core, queue, DEDUP_PAGE)
    return <dedup_t*>arena_page(core, <uint32_t>page) if page else NULL


cdef bint id_hashes(core_t* core, const record_t* record, remembered_t* out) noexcept nogil:
    """The hashes of a message's id; False if it has none."""
    cdef uint16_t size = 0
    cdef const uint8_t* value = NULL
    if record.flags & RECORD_ATTRIBUTED:
        value = attribute_find(record_ext(record), record.ext_size, <uint8_t>ATTRIBUTE_ID, &size)
    if value == NULL or size == 0:
        return False
    out.low = xxh3(value, size, core.salt)
    out.high = xxh3(value, size, ~core.salt)
    return True


cdef bint dedup_known(core_t* core, queue_t* queue, const record_t* record, uint64_t now,
                      uint64_t* offset) noexcept nogil:
    """Whether a message with that id was stored within the queue's window; the offset it has."""
    cdef dedup_t* dedup = dedup_of(core, queue)
    cdef remembered_t wanted
    cdef remembered_t* entry
    cdef uint64_t* bucket
    cdef uint64_t number, least
    cdef uint64_t span = setting_of(core, queue, DEDUP_MS) * 1000
    cdef int steps = 0
    if dedup == NULL or span == 0 or not id_hashes(core, record, &wanted):
        return False
    bucket = dedup_bucket(core, dedup, wanted.low, False)
    number = bucket[0] if bucket != NULL else 0
    least = NEVER
    while number and number - 1 >= dedup.tail and number < least and steps < CHAIN_LIMIT:
        entry = remembered(core, dedup, number - 1, False)
        if entry == NULL:
            return False
        if number - 1 < dedup.head and entry.low == wanted.low and entry.high == wanted.high:
            if entry.stored_us + span <= now:
                return False
            offset[0] = entry.offset
            return True
        least = number
        number = entry.before
        steps += 1
    return False


cdef void dedup_note(core_t* core, queue_t* queue, const record_t* record) noexcept nogil:
    """Remember the id of a message that was just stored, if the queue has a window."""
    cdef dedup_t* dedup
    cdef remembered_t fresh
    cdef remembered_t* entry
    cdef uint64_t* bucket
    if queue.settings == 0 or setting_of(core, queue, DEDUP_MS) == 0 or not id_hashes(core, record, &fresh):
        return
    dedup = dedup_ready(core, queue)
    # Without room it is forgotten: stored twice rather than not at all.
    if dedup == NULL or (dedup.head > dedup.tail
                         and remembered(core, dedup, dedup.head - 1, False).offset >= record.offset):
        return
    bucket = dedup_bucket(core, dedup, fresh.low, True)
    entry = remembered(core, dedup, dedup.head, True)
    if bucket == NULL or entry == NULL:
        return
    if dedup.head - dedup.tail == dedup.room:
        dedup.tail += 1
    fresh.offset = record.offset
    fresh.stored_us = record.stored_us
    fresh.before = bucket[0]
    entry[0] = fresh
    store64(bucket, dedup.head + 1)
    store64(&dedup.head, dedup.head + 1)


cdef dedup_t* dedup_ready(core_t* core, queue_t* queue) noexcept nogil:
    """The ring, as large as the settings say; one of another size begins anew. NULL if there is no room."""
    cdef uint64_t wanted = setting_of(core, queue, DEDUP_COUNT)
    cdef dedup_t* dedup = dedup_of(core, queue)
    cdef uint32_t page
    wanted = min(max(wanted, <uint64_t>1), <uint64_t>DEDUP_LIMIT) if wanted else DEDUP_USUAL
    if dedup != NULL and dedup.room == wanted:
        return dedup
    dedup_free(core, queue)
    page = arena_take(core)
    if page == 0:
        return NULL
    dedup = <dedup_t*>arena_page(core, page)
    dedup.room = <uint32_t>wanted
    dedup.buckets = BUCKETS
    while dedup.buckets < wanted and dedup.buckets < DEDUP_LIMIT:
        dedup.buckets *= 2
    store64(&(<queue_settings_t*>arena_page(core, queue.settings)).values[DEDUP_PAGE - 1], page)
    return dedup


cdef void dedup_undo(core_t* core, queue_t* queue) noexcept nogil:
    """Forget the ids of messages that a frame had which was never published."""
    cdef dedup_t* dedup = dedup_of(core, queue)
    cdef remembered_t* entry
    while dedup != NULL and dedup.head > dedup.tail:
        entry = remembered(core, dedup, dedup.head - 1, False)
        if entry != NULL and entry.offset < queue.next:
            return
        store64(&dedup.head, dedup.head - 1)


cdef void dedup_free(core_t* core, queue_t* queue) noexcept nogil:
    """Give the ring's pages back."""
    cdef dedup_t* dedup = dedup_of(core, queue)
    cdef uint32_t page, at, number
    cdef uint32_t* directories
    if dedup == NULL:
        return
    page = <uint32_t>setting_of(core, queue, DEDUP_PAGE)
    store64(&(<queue_settings_t*>arena_page(core, queue.settings)).values[DEDUP_PAGE - 1], 0)
    directories = dedup.ring
    for at in range(6):         # of the ring, then of the chains, which stand behind it
        if directories[at]:
            for number in range(NUMBERS):
                if (<uint32_t*>arena_page(core, directories[at]))[number]:
                    arena_give(core, (<uint32_t*>arena_page(core, directories[at]))[number])
            arena_give(core, directories[at])
    arena_give(core, page)


cdef queue_t* dedup_admit(core_t* core, operation_t* operation, const record_t* record, bint full,
                          uint64_t now) noexcept nogil:
    """As operation_admit; a single message that was stored already is answered as one that was sent twice."""
    cdef queue_t* queue = find_queue(core, operation.queue)
    if queue != NULL and queue.settings and operation.kind == KIND_APPEND and operation.count == 1 \
            and operation.spare == 0 and operation.verdict == DONE \
            and dedup_known(core, queue, record, now, &operation.offset):
        operation.duplicate = 1
        return NULL
    return operation_admit(core, operation, full, 0)


cdef uint64_t dedup_append(core_t* core, queue_t* queue, const record_t* record, const record_t* body) noexcept nogil:
    """As message_append; the id of a message that was sent here is remembered."""
    cdef uint64_t live = message_append(core, queue, record, body)
    if record.type == RECORD_MESSAGE:
        dedup_note(core, queue, record)
    return live


cdef bint dedup_drops(core_t* core, operation_t* operation, queue_t* queue, record_t* record, uint64_t now,
                      bint first) noexcept nogil:
    """Whether one message of a batch was stored already, and is left out."""
    cdef uint64_t offset = 0
    if queue.settings == 0 or operation.kind != KIND_APPEND or operation.spare \
            or not dedup_known(core, queue, record, now, &offset):
        return False
    operation.duplicate = 1
    if first:
        operation.offset = offset
    record.type = RECORD_SKIP
    return True
