# Messages that are stored once though sent again: a queue with a window remembers the ids (attribute 5) of its newest
# messages. It is a ring in the order of the log, with a chain through it for each bucket of ids. Derived from the log:
# checkpoints save it, replay goes on with it. Under the store lock.
#
# What waits for its time or its verdict is remembered when it is sent, by its id, and once more when it gets its
# offset; dropped, it is not known any more.
#
# Invariants: 1. Entries have the numbers tail to head - 1, in the order of the log, times that do not fall. 2. An entry
# is complete before a bucket leads to it, and counts once head is behind it. 3. A chain leads to ever lower numbers;
# what is not between tail and head ends it or, ahead of head, is passed through. So a death anywhere may forget an
# id, and never makes one known that was not stored.

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

cdef uint64_t WAITED = <uint64_t>1 << 63    # in an entry's offset: the other bits are the id of what waits

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
    hash_id(core, value, size, out)
    return True


cdef void hash_id(core_t* core, const uint8_t* value, uint64_t size, remembered_t* out) noexcept nogil:
    out.low = xxh3(value, size, core.salt)
    out.high = xxh3(value, size, ~core.salt)


cdef bint dedup_known(core_t* core, queue_t* queue, const record_t* record, uint64_t now,
                      uint64_t* offset, bint* waits) noexcept nogil:
    """Whether a message with that id was stored within the queue's window, or waits for it.

    The offset it has, or (waits) its id.
    """
    cdef remembered_t wanted
    return dedup_of(core, queue) != NULL and id_hashes(core, record, &wanted) \
        and dedup_found(core, queue, &wanted, now, offset, waits)


cdef bint dedup_found(core_t* core, queue_t* queue, const remembered_t* wanted, uint64_t now, uint64_t* offset,
                      bint* waits) noexcept nogil:
    """The same by the hashes of the id."""
    cdef dedup_t* dedup = dedup_of(core, queue)
    cdef remembered_t* entry
    cdef uint64_t* bucket
    cdef uint64_t number, least
    cdef uint64_t span = setting_of(core, queue, DEDUP_MS) * 1000
    cdef int steps = 0
    waits[0] = False
    if dedup == NULL or span == 0:
        return False
    bucket = dedup_bucket(core, dedup, wanted.low, False)
    number = bucket[0] if bucket != NULL else 0
    least = NEVER
    while number and number - 1 >= dedup.tail and number < least and steps < CHAIN_LIMIT:
        entry = remembered(core, dedup, number - 1, False)
        if entry == NULL:
            return False
        if number - 1 < dedup.head and entry.low == wanted.low and entry.high == wanted.high:
            offset[0] = entry.offset & ~WAITED
            waits[0] = entry.offset >= WAITED
            if waits[0] and pending_waits(core, offset[0]):
                return True
            if not waits[0] and entry.stored_us + span > now:
                return True
        least = number
        number = entry.before
        steps += 1
    return False


cdef bint pending_waits(core_t* core, uint64_t id) noexcept nogil:
    """Whether the message of an id still waits."""
    cdef const pending_t* entry = pending_find(core, id)
    return entry != NULL and entry.verdict == OPEN


cdef void dedup_note(core_t* core, queue_t* queue, const record_t* message, uint64_t offset,
                     uint64_t stored_us) noexcept nogil:
    """Remember the id of a message that was just stored, if the queue has a window. offset: or WAITED | its id."""
    cdef dedup_t* dedup
    cdef uint64_t last
    cdef remembered_t fresh
    cdef remembered_t* entry
    cdef uint64_t* bucket
    if queue.settings == 0 or setting_of(core, queue, DEDUP_MS) == 0 or not id_hashes(core, message, &fresh):
        return
    dedup = dedup_ready(core, queue)
    # Without room it is forgotten: stored twice rather than not at all.
    if dedup == NULL:
        return
    if dedup.head > dedup.tail:
        # Noted already; what waits and what has an offset are two rows that grow, each by itself.
        last = remembered(core, dedup, dedup.head - 1, False).offset
        if last & WAITED == offset & WAITED and last >= offset:
            return
    bucket = dedup_bucket(core, dedup, fresh.low, True)
    entry = remembered(core, dedup, dedup.head, True)
    if bucket == NULL or entry == NULL:
        return
    if dedup.head - dedup.tail == dedup.room:
        dedup.tail += 1
    fresh.offset = offset
    fresh.stored_us = stored_us
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
        if entry != NULL and (entry.offset & ~WAITED) < (
                load64(&core.control.written) if entry.offset >= WAITED else queue.next):
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


cdef queue_t* dedup_admit(core_t* core, operation_t* operation, record_t* record, bint full, uint64_t now,
                          uint64_t pending) noexcept nogil:
    """As operation_admit; a single message that was stored already is answered as one that was sent twice."""
    cdef queue_t* queue = find_queue(core, operation.queue)
    if queue != NULL and queue.settings and operation.count == 1 and operation.verdict == DONE \
            and not operation.duplicate and dedup_first(core, operation, queue, record, now):
        return NULL
    return operation_admit(core, operation, full, pending)


cdef bint dedup_first(core_t* core, operation_t* operation, queue_t* queue, record_t* record,
                      uint64_t now) noexcept nogil:
    """Whether the first message of an operation was stored already; then the operation is answered as that one was."""
    cdef uint64_t offset = 0
    cdef bint waits = False
    if operation.kind != KIND_APPEND and operation.kind != KIND_PENDING \
            or not dedup_known(core, queue, record, now, &offset, &waits):
        return False
    operation.duplicate = 1
    operation.offset = offset
    operation.kind = KIND_PENDING if waits else KIND_APPEND
    if operation.sequence:
        # The number counts as stored: what else stands in the batch must not be stored by a repetition.
        record.offset = offset
        record.spare = SKIP_WAITING if waits else SKIP_STORED
        producer_keep(core, operation.producer, operation.sequence, offset, waits, core.control.written,
                      core.control.last_us)
    return True


cdef uint64_t dedup_append(core_t* core, queue_t* queue, const record_t* record, const record_t* body) noexcept nogil:
    """As message_append; the id of a message that was sent here, now or to come, is remembered."""
    cdef uint64_t live = message_append(core, queue, record, body)
    cdef const record_t* message = body
    cdef uint64_t pin
    if queue.settings == 0 or setting_of(core, queue, DEDUP_MS) == 0:
        return live
    if record.type == RECORD_MESSAGE:
        dedup_note(core, queue, record, record.offset, record.stored_us)
    elif record.body_size == 8 or (<const origin_t*>record_body(record)).reason == REASON_DUE:
        # What waited; not what was moved here from another queue, nor what a subscription took over.
        pin_take(core, &pin)
        if message == NULL:
            message = message_of(core, record)
        if message != NULL and message.type == RECORD_PENDING:
            dedup_note(core, queue, message, record.offset, record.stored_us)
        pin_give(core)
    return live


cdef uint64_t dedup_place(core_t* core, uint32_t id, const record_t* record, uint64_t now) noexcept nogil:
    """Of one recipient of a fan-out: the position of the message with its id that is stored there, 0 if none is."""
    cdef queue_t* queue = find_queue(core, id)
    cdef uint64_t offset = 0
    cdef bint waits = False
    if queue == NULL or queue.settings == 0 or not dedup_known(core, queue, record, now, &offset, &waits):
        return 0
    if waits:
        return offset
    # One that was purged meanwhile is known all the same.
    return index_leaf(core, queue, offset)[offset % LEAF].position if offset >= queue.first else NEVER


cdef void dedup_await(core_t* core, const record_t* record) noexcept nogil:
    """The id of a message that has to wait is remembered."""
    cdef queue_t* queue = find_queue(core, record.queue)
    if queue != NULL and queue.settings and record.type == RECORD_PENDING:
        dedup_note(core, queue, record, WAITED | record.position, record.stored_us)


cdef bint dedup_drops(core_t* core, operation_t* operation, record_t* record, uint64_t now,
                      bint first) noexcept nogil:
    """Whether one message of a batch was stored already, and is left out."""
    cdef queue_t* queue
    cdef uint64_t offset = 0
    cdef bint waits = False
    if operation.count == 1 or (operation.kind != KIND_APPEND and operation.kind != KIND_PENDING):
        return False
    queue = find_queue(core, operation.queue)
    if queue.settings == 0 or not (dedup_first(core, operation, queue, record, now) if first
                                   else dedup_known(core, queue, record, now, &offset, &waits)):
        return False
    operation.duplicate = 1
    record.type = RECORD_SKIP
    return True
