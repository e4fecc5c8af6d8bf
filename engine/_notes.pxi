# Notes: a small durable table name -> bytes in the one log, where the broker keeps its objects (topics,
# subscriptions, schedules). Applied from NOTE records under the store lock, read under the notes' own lock.
#
# Invariants:
#   1. A note becomes visible, is replaced or goes by the store of one word, so whoever applies it may be killed at any
#      instruction: applying the frame again finishes it. What was taken and not yet linked is lost until the next
#      recovery, never handed out twice.
#   2. A note is admitted only when the pages it needs are in the reserve: what is in the log fits into the table.

cdef enum:
    NOTES = 262144              # in a store
    NOTE_NAME = 512             # bytes
    NOTE_VALUE = 65536          # bytes
    NOTE_BUCKETS = 16384        # in 16 pages, made when first needed
    NOTE_CLASSES = 6            # blocks of 128 << class bytes
    NOTE_REMOVED = 1            # flag in the record: the note goes
    KIND_NOTE = 38

cdef struct note_body_t:
    # What a NOTE record holds, before the name and the value.
    uint16_t name_size
    uint16_t flags
    uint32_t spare

cdef struct note_t:
    # The first block of a note; name and value follow as one row of bytes, what does not fit in pages of their own.
    uint32_t following          # the next block of its bucket
    uint32_t hash
    uint32_t rest               # page: {u32 next page, u32 0, bytes}
    uint16_t name_size
    uint16_t class_
    uint32_t value_size
    uint32_t spare
    uint64_t position           # of the record that made it so: its version

cdef struct notes_t:
    uint64_t version            # grows with each change
    uint64_t count
    uint32_t free[8]            # blocks given back, by class, chained through their first word
    uint32_t reserve            # pages taken ahead, chained through their first word
    uint32_t reserved
    uint32_t buckets[16]        # pages of 1024 blocks each

assert sizeof(note_t) == 32 and sizeof(note_body_t) == 8


cdef inline note_t* note_at(core_t* core, uint32_t block) noexcept nogil:
    """The note in a block: page << 5 | unit of 128 bytes."""
    return <note_t*>(arena_page(core, block >> 5) + (block & 31) * 128)


cdef uint32_t note_pages(uint64_t size) noexcept nogil:
    """How many pages a note of so many bytes may take, those of the table itself included."""
    return <uint32_t>(3 + size // (PAGE - 8) + 1)


cdef notes_t* notes_table(core_t* core, bint make) noexcept nogil:
    cdef state_t* state = &core.control.state
    cdef uint32_t page = <uint32_t>state.notes
    if page == 0 and make:
        page = arena_take(core)
        store64(&state.notes, page)
    return <notes_t*>arena_page(core, page) if page else NULL


cdef int notes_reserve(core_t* core, uint64_t pages) noexcept nogil:
    """Take pages ahead, so that what is admitted can be applied. DONE or STORE_FULL. Under the store lock."""
    cdef notes_t* notes = notes_table(core, True)
    cdef uint32_t page
    if notes == NULL:
        return STORE_FULL
    while notes.reserved < pages:
        page = arena_take(core)
        if page == 0:
            return STORE_FULL
        (<uint32_t*>arena_page(core, page))[0] = notes.reserve
        store32(&notes.reserve, page)
        notes.reserved += 1
    return DONE


cdef uint32_t notes_page(core_t* core, notes_t* notes) noexcept nogil:
    """A zeroed page out of the reserve; from the arena during replay."""
    cdef uint32_t page = notes.reserve
    if page == 0:
        return arena_take(core)
    store32(&notes.reserve, (<uint32_t*>arena_page(core, page))[0])
    if notes.reserved:
        notes.reserved -= 1
    (<uint32_t*>arena_page(core, page))[0] = 0
    return page


cdef uint32_t block_take(core_t* core, notes_t* notes, uint32_t class_) noexcept nogil:
    """A block of 128 << class bytes, or 0."""
    cdef uint32_t block = notes.free[class_]
    cdef uint32_t unit
    cdef uint32_t step = 1 << class_
    if block:
        store32(&notes.free[class_], note_at(core, block).following)
        return block
    block = notes_page(core, notes) << 5
    if block and step < 32:
        unit = step
        while unit < 32:
            note_at(core, block + unit).following = block + unit + step if unit + step < 32 else 0
            unit += step
        store32(&notes.free[class_], block + step)
    return block


cdef void note_free(core_t* core, notes_t* notes, uint32_t block) noexcept nogil:
    cdef note_t* note = note_at(core, block)
    cdef uint32_t page = note.rest
    cdef uint32_t next_
    note.following = notes.free[note.class_]
    store32(&notes.free[note.class_], block)
    while page:
        next_ = (<uint32_t*>arena_page(core, page))[0]
        arena_give(core, page)
        page = next_


cdef uint32_t note_new(core_t* core, notes_t* notes, const uint8_t* bytes_, uint32_t name_size,
                       uint32_t size) noexcept nogil:
    """A block, not yet linked, that holds name and value (size bytes together); 0 when there is no page."""
    cdef uint32_t class_ = 0
    cdef uint32_t block, some, page
    cdef uint32_t* link
    cdef note_t* note
    while class_ < NOTE_CLASSES - 1 and (<uint32_t>128 << class_) < size + sizeof(note_t):
        class_ += 1
    block = block_take(core, notes, class_)
    if block == 0:
        return 0
    note = note_at(core, block)
    memset(note, 0, sizeof(note_t))
    note.name_size = <uint16_t>name_size
    note.class_ = <uint16_t>class_
    note.value_size = size - name_size
    some = min(size, (<uint32_t>128 << class_) - <uint32_t>sizeof(note_t))
    memcpy(note + 1, bytes_, some)
    link = &note.rest
    while some < size:
        bytes_ += some
        size -= some
        page = notes_page(core, notes)
        if page == 0:
            return 0
        link[0] = page
        link = <uint32_t*>arena_page(core, page)
        some = min(size, <uint32_t>(PAGE - 8))
        memcpy(link + 2, bytes_, some)
    return block


cdef uint32_t* note_link(core_t* core, notes_t* notes, const uint8_t* name, uint32_t size, bint make) noexcept nogil:
    """The word that leads to the note of a name, or that would; NULL if the bucket's page is not there."""
    cdef uint64_t hash_ = xxh3(name, size, 2)
    cdef uint32_t bucket = hash_ % NOTE_BUCKETS
    cdef uint32_t* link
    cdef note_t* note
    if notes.buckets[bucket // 1024] == 0:
        if make:
            store32(&notes.buckets[bucket // 1024], notes_page(core, notes))
        if notes.buckets[bucket // 1024] == 0:
            return NULL
    link = <uint32_t*>arena_page(core, notes.buckets[bucket // 1024]) + bucket % 1024
    while link[0]:
        note = note_at(core, link[0])
        # A name lies in the first block whole: the largest block holds more than NOTE_NAME.
        if note.hash == <uint32_t>(hash_ >> 32) and note.name_size == size and memcmp(note + 1, name, size) == 0:
            break
        link = &note.following
    return link


cdef void note_apply(core_t* core, const record_t* record) noexcept nogil:
    """Set or remove a note; doing it twice does no harm."""
    cdef const note_body_t* head = <const note_body_t*>record_body(record)
    cdef const uint8_t* name = <const uint8_t*>(head + 1)
    cdef uint32_t size = record.body_size - <uint32_t>sizeof(note_body_t)
    cdef notes_t* notes
    if record.body_size < sizeof(note_body_t) or head.name_size > min(size, <uint32_t>NOTE_NAME):
        return
    mutex_lock(&core.control.notes_lock)
    notes = notes_table(core, True)
    if notes == NULL or not note_put(core, notes, record, head, name, size):
        core.control.full = 1
    pthread_mutex_unlock(&core.control.notes_lock)


cdef bint note_put(core_t* core, notes_t* notes, const record_t* record, const note_body_t* head, const uint8_t* name,
                   uint32_t size) noexcept nogil:
    """False when there is no page, which can be only during replay."""
    cdef bint removed = (head.flags & NOTE_REMOVED) != 0
    cdef uint32_t* link = note_link(core, notes, name, head.name_size, not removed)
    cdef uint32_t old, fresh
    if link == NULL:
        return removed
    old = link[0]
    if old and note_at(core, old).position >= record.position:
        return True
    if not removed:
        fresh = note_new(core, notes, name, head.name_size, size)
        if fresh == 0:
            return False
        note_at(core, fresh).hash = <uint32_t>(xxh3(name, head.name_size, 2) >> 32)
        note_at(core, fresh).position = record.position
        note_at(core, fresh).following = note_at(core, old).following if old else 0
        store32(link, fresh)
    elif old:
        store32(link, note_at(core, old).following)
    if old:
        note_free(core, notes, old)
    notes.count += (0 if removed else 1) - (1 if old else 0)
    store64(&notes.version, notes.version + 1)
    return True


cdef void notes_mend(core_t* core) noexcept nogil:
    """Count anew what a killed holder of the store lock may have left miscounted."""
    cdef notes_t* notes = notes_table(core, False)
    cdef uint64_t count = 0
    cdef uint32_t bucket, block, pages
    if notes == NULL:
        return
    mutex_lock(&core.control.notes_lock)
    for bucket in range(NOTE_BUCKETS):
        if notes.buckets[bucket // 1024]:
            block = (<uint32_t*>arena_page(core, notes.buckets[bucket // 1024]))[bucket % 1024]
            while block:
                count += 1
                block = note_at(core, block).following
    notes.count = count
    block = notes.reserve
    pages = 0
    while block:
        pages += 1
        block = (<uint32_t*>arena_page(core, block))[0]
    notes.reserved = pages
    notes.version += 1
    pthread_mutex_unlock(&core.control.notes_lock)


cdef uint64_t note_version(core_t* core, const uint8_t* name, uint32_t size) noexcept nogil:
    """The position of the record that set a note, 0 if there is none. Under the store or the notes' lock."""
    cdef notes_t* notes = notes_table(core, False)
    cdef uint32_t* link = note_link(core, notes, name, size, False) if notes != NULL else NULL
    return note_at(core, link[0]).position if link != NULL and link[0] else 0


cdef uint8_t* note_copy(core_t* core, const uint8_t* name, uint32_t name_size, uint32_t* size,
                        uint64_t* version) noexcept nogil:
    """A note's value, malloc'd; NULL if there is none (version 0) or memory is out."""
    cdef notes_t* notes = notes_table(core, False)
    cdef uint32_t* link
    cdef uint8_t* out = NULL
    version[0] = 0
    if notes == NULL:
        return NULL
    mutex_lock(&core.control.notes_lock)
    link = note_link(core, notes, name, name_size, False)
    if link != NULL and link[0]:
        version[0] = note_at(core, link[0]).position
        size[0] = note_at(core, link[0]).value_size
        out = <uint8_t*>malloc(max(size[0] + name_size, <uint32_t>1))
        if out != NULL:
            note_bytes(core, note_at(core, link[0]), out)
    pthread_mutex_unlock(&core.control.notes_lock)
    return out


cdef void note_bytes(core_t* core, const note_t* note, uint8_t* out) noexcept nogil:
    """Copy a note's name and value."""
    cdef uint32_t size = note.name_size + note.value_size
    cdef uint32_t some = min(size, (<uint32_t>128 << note.class_) - <uint32_t>sizeof(note_t))
    cdef uint32_t page = note.rest
    memcpy(out, note + 1, some)
    while some < size and page:
        out += some
        size -= some
        some = min(size, <uint32_t>(PAGE - 8))
        memcpy(out, arena_page(core, page) + 8, some)
        page = (<uint32_t*>arena_page(core, page))[0]


cdef uint8_t* notes_copy(core_t* core, uint32_t bucket, uint32_t count, const uint8_t* prefix, uint32_t prefix_size,
                         uint64_t* size) noexcept nogil:
    """The notes of some buckets whose names begin so: {u32 name size, u32 value size, name, value} each; malloc'd."""
    cdef notes_t* notes = notes_table(core, False)
    cdef uint8_t* out = NULL
    cdef uint8_t* wider
    cdef uint64_t room = 0
    cdef uint64_t need
    cdef uint32_t at, block
    cdef note_t* note
    size[0] = 0
    if notes == NULL:
        return NULL
    mutex_lock(&core.control.notes_lock)
    for at in range(bucket, bucket + count):
        block = (<uint32_t*>arena_page(core, notes.buckets[at // 1024]))[at % 1024] if notes.buckets[at // 1024] else 0
        while block:
            note = note_at(core, block)
            block = note.following
            if note.name_size < prefix_size or memcmp(note + 1, prefix, prefix_size):
                continue
            need = 8 + <uint64_t>note.name_size + note.value_size
            if room - size[0] < need:
                room = 2 * (size[0] + need)
                wider = <uint8_t*>realloc(out, room)
                if wider == NULL:
                    free(out)
                    pthread_mutex_unlock(&core.control.notes_lock)
                    size[0] = NEVER
                    return NULL
                out = wider
            (<uint32_t*>(out + size[0]))[0] = note.name_size
            (<uint32_t*>(out + size[0]))[1] = note.value_size
            note_bytes(core, note, out + size[0] + 8)
            size[0] += need
    pthread_mutex_unlock(&core.control.notes_lock)
    return out
