# The index of a queue: offset -> entry, a radix tree of 4 KiB pages in the one mapped file "index". A leaf has 128
# entries, a node 1024 page numbers; page 0 is none. Entries are derived from the log and never evidence about it:
# what counts is the queue's next offset, and a page is made exactly when its first offset is appended, so what an
# older life of the store left in the file is never followed.

cdef enum:
    LEAF = 128
    FAN = 1024
    CHUNK_BITS = 18             # pages in one map of the index: 1 GiB of addresses
    CHUNKS = 1024

assert CHUNKS * <uint64_t>PAGE << CHUNK_BITS == INDEX_ROOM

# What stands for a page that a damaged number leads to, or that cannot be mapped: position 0 is no message's.
cdef entry_t[128] no_leaf
memset(no_leaf, 0, sizeof(no_leaf))


cdef inline uint8_t* index_page(core_t* core, uint32_t page) noexcept nogil:
    cdef uint8_t* chunk = <uint8_t*>load64(<uint64_t*>&core.chunks[page >> CHUNK_BITS])
    if chunk == NULL:
        chunk = index_map(core, page >> CHUNK_BITS)
        if chunk == NULL:
            return <uint8_t*>no_leaf    # only a reader gets here: index_reserve mapped what is written to
    return chunk + <uint64_t>(page & ((1 << CHUNK_BITS) - 1)) * PAGE


cdef uint8_t* index_map(core_t* core, uint32_t chunk) noexcept nogil:
    """Map a chunk of the index file, which need not reach so far yet; NULL if there are no addresses left."""
    cdef void* base
    pthread_mutex_lock(&core.maps_lock)
    if chunk < CHUNKS and core.chunks[chunk] == NULL:
        base = mmap(NULL, <uint64_t>PAGE << CHUNK_BITS, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                    core.index_fd, <uint64_t>chunk * (<uint64_t>PAGE << CHUNK_BITS))
        if base != MAP_FAILED:
            store64(<uint64_t*>&core.chunks[chunk], <uint64_t>base)
    base = core.chunks[chunk] if chunk < CHUNKS else NULL
    pthread_mutex_unlock(&core.maps_lock)
    return <uint8_t*>base


cdef int index_reach(core_t* core, uint64_t end) noexcept nogil:
    """See to it that the index file is mapped up to a byte. 0 or errno."""
    cdef uint64_t chunk
    if end <= core.index_mapped:
        return 0
    for chunk in range((end + (<uint64_t>PAGE << CHUNK_BITS) - 1) // (<uint64_t>PAGE << CHUNK_BITS)):
        if core.chunks[chunk] == NULL and index_map(core, <uint32_t>chunk) == NULL:
            return ENOMEM
    core.index_mapped = end
    return 0


cdef int index_reserve(core_t* core, uint64_t pages) noexcept nogil:
    """Back the next pages of the index with disk blocks. 0 or errno. Under the store lock."""
    cdef uint64_t end = (core.control.state.index_pages + 1 + pages) * PAGE
    cdef uint64_t step = 1 << 20
    cdef int failed
    if end <= core.control.index_allocated \
            or core.control.state.index_taken + pages < core.control.index_reusable:
        return 0
    if core.control.index_allocated >= <uint64_t>64 << 20:
        step = 64 << 20
    end = (end + step - 1) // step * step
    if end > INDEX_ROOM:
        return ENOSPC
    if index_reach(core, end):
        return ENOMEM
    failed = file_grow_range(core.index_fd, core.control.index_allocated, end)
    if failed == 0:
        core.control.index_allocated = end
    return failed


cdef inline bint index_holds(core_t* core, uint32_t page) noexcept nogil:
    """Whether a page number read from the index file may be followed."""
    return page != 0 and page <= core.control.state.index_pages


cdef inline uint32_t index_take(core_t* core) noexcept nogil:
    """A page out of what index_reserve made sure of."""
    if core.control.state.index_taken < core.control.index_reusable:
        return index_reuse(core)
    core.control.state.index_pages += 1
    return <uint32_t>core.control.state.index_pages


cdef enum:
    GIVEN = 1020                # index pages in one page of the list

cdef struct given_t:
    # A page of the arena: index pages given back, in the order in which that was done.
    uint64_t base               # how many were given back before the first one here
    uint32_t next
    uint32_t spare
    uint32_t pages[GIVEN]

assert sizeof(given_t) == PAGE


cdef uint32_t index_reuse(core_t* core) noexcept nogil:
    """The index page that was given back first. Only those that no checkpoint kept can lead to are asked for."""
    cdef reclaim_t* reclaim = reclaim_page(core)
    cdef state_t* state = &core.control.state
    cdef uint32_t old = reclaim.free_first
    cdef given_t* given = <given_t*>arena_page(core, old)
    cdef uint32_t page
    if state.index_taken - given.base >= GIVEN:
        reclaim.free_first = given.next
        given = <given_t*>arena_page(core, given.next)
        arena_give(core, old)
    page = given.pages[state.index_taken - given.base]
    store64(&state.index_taken, state.index_taken + 1)
    return page


cdef void index_give(core_t* core, uint32_t page) noexcept nogil:
    """Give a page back. It keeps what it has until no checkpoint needs it. A death in between leaks it."""
    cdef reclaim_t* reclaim = reclaim_page(core)
    cdef state_t* state = &core.control.state
    cdef given_t* given
    cdef uint32_t fresh
    if reclaim == NULL:
        return
    given = <given_t*>arena_page(core, reclaim.free_last)
    if reclaim.free_last and given.next:
        reclaim.free_last = given.next
        given = <given_t*>arena_page(core, given.next)
    if reclaim.free_last == 0 or state.index_freed - given.base == GIVEN:
        fresh = arena_take(core)
        if fresh == 0:
            return
        (<given_t*>arena_page(core, fresh)).base = state.index_freed
        if reclaim.free_last:
            given.next = fresh
        else:
            reclaim.free_first = fresh
        reclaim.free_last = fresh
        given = <given_t*>arena_page(core, fresh)
    given.pages[state.index_freed - given.base] = page
    store64(&state.index_freed, state.index_freed + 1)


cdef entry_t* index_append(core_t* core, queue_t* queue) noexcept nogil:
    """The place for the entry of offset queue.next. Under the store lock, after index_reserve."""
    cdef uint64_t offset = queue.next
    cdef uint64_t leaf = offset // LEAF
    cdef uint32_t root = <uint32_t>queue.tree
    cdef uint32_t height = queue.tree >> 32
    cdef uint64_t span = 1
    cdef uint32_t page, child, level
    if offset % LEAF:
        return <entry_t*>index_page(core, queue.leaf) + offset % LEAF
    queue.leaf = index_take(core)
    if offset == 0:
        store64(&queue.tree, queue.leaf)
        return <entry_t*>index_page(core, queue.leaf)
    for level in range(height):
        span *= FAN
    if leaf == span:
        # The tree is full: the old root becomes the first child of a new one.
        page = index_take(core)
        (<uint32_t*>index_page(core, page))[0] = root
        root = page
        height += 1
        store64(&queue.tree, <uint64_t>height << 32 | root)
        span *= FAN
    page = root
    span //= FAN
    for level in range(height - 1):
        # A node is new when the leaf is its first; what stands in the file then is not ours.
        if leaf % span == 0:
            child = index_take(core)
            (<uint32_t*>index_page(core, page))[leaf // span % FAN] = child
        else:
            child = (<uint32_t*>index_page(core, page))[leaf // span % FAN]
            if not index_holds(core, child):
                # Damaged: what it led to is reported when it is read; what comes now finds a place.
                child = index_take(core)
                (<uint32_t*>index_page(core, page))[leaf // span % FAN] = child
        page = child
        span //= FAN
    (<uint32_t*>index_page(core, page))[leaf % FAN] = queue.leaf
    return <entry_t*>index_page(core, queue.leaf) + offset % LEAF


cdef inline entry_t* index_leaf(core_t* core, queue_t* queue, uint64_t offset) noexcept nogil:
    """The entries of the leaf that holds offset < queue.next; lock-free."""
    cdef uint32_t page = index_leaf_page(core, queue, offset)
    return <entry_t*>index_page(core, page) if page else no_leaf


cdef uint32_t index_leaf_page(core_t* core, queue_t* queue, uint64_t offset) noexcept nogil:
    """The page of the leaf that holds offset < queue.next, 0 if it cannot be found; lock-free."""
    cdef uint32_t height, page
    cdef uint64_t leaf = offset // LEAF
    cdef uint64_t span, tree
    cdef uint32_t level
    tree = load64(&queue.tree)
    page = <uint32_t>tree
    height = tree >> 32
    span = 1
    for level in range(height):
        span *= FAN
    while height and index_holds(core, page):
        span //= FAN
        page = (<uint32_t*>index_page(core, page))[leaf // span % FAN]
        height -= 1
    return page if index_holds(core, page) else 0


cdef uint64_t visible_end(core_t* core, queue_t* queue) noexcept nogil:
    """The offset up to which messages are on disk: what a consumer may see ends here."""
    cdef uint64_t high = load64(&queue.next)
    cdef uint64_t durable = load64(&core.control.durable)
    cdef uint64_t low = queue.first
    cdef uint64_t middle
    cdef entry_t* leaf
    if high <= low:
        return high
    leaf = index_leaf(core, queue, high - 1)
    if leaf[(high - 1) % LEAF].position < durable:
        return high
    # Positions grow with offsets: search for the first that is not durable, near the end first.
    middle = 64
    while high - low > middle:
        leaf = index_leaf(core, queue, high - middle)
        if leaf[(high - middle) % LEAF].position < durable:
            low = high - middle
            break
        high -= middle
        middle *= 2
    while low < high:
        middle = low + (high - low) // 2
        leaf = index_leaf(core, queue, middle)
        if leaf[middle % LEAF].position < durable:
            low = middle + 1
        else:
            high = middle
    return low


cdef uint64_t offset_at_time(core_t* core, queue_t* queue, uint64_t time_us) noexcept nogil:
    """The first offset stored at or after a time; times never fall within a queue."""
    cdef uint64_t low = queue.first
    cdef uint64_t high = load64(&queue.next)
    cdef uint64_t middle
    while low < high:
        middle = low + (high - low) // 2
        if index_leaf(core, queue, middle)[middle % LEAF].stored_us < time_us:
            low = middle + 1
        else:
            high = middle
    return low
