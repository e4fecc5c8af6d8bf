# What nobody needs any more comes back: messages that were purged are given up in steps, the index pages that led to
# them are used again, and a segment of which nothing is needed is used again or removed.
#
# One process at a time does it, under the reclaim lock, in its maintenance thread; the store lock is held for the
# few counts of one step. Invariants: 1. queue.reclaimed <= queue.first <= queue.next; what stands between the first
# two is purged, and still counted. 2. What a step gives up was purged before, and is on disk as such before any file
# changes. 3. A kept checkpoint never leads to what was changed: a page or segment is used again only if the oldest
# checkpoint kept knows it as free.

cdef enum:
    STEP = 4096                 # messages given up at once
    TAKINGS = 64                # segments they may lie in
    SPARES = 8                  # segments that stand ready unless more are to; what is dead beyond them is removed

cdef uint32_t DAMAGED_PATH = 0xFFFFFFFF

cdef struct taking_t:
    uint64_t number             # of the segment
    uint64_t bytes

cdef struct takings_t:
    taking_t at[64]
    uint32_t count
    uint64_t bytes              # of messages, as the queue counts them


cdef void queue_dying(core_t* core, uint32_t slot) noexcept nogil:
    """Note a queue that is being deleted among those whose messages are to be given up; twice does no harm."""
    cdef reclaim_t* reclaim = reclaim_page(core)
    if reclaim == NULL or reclaim.dying == slot + 1:
        return
    queue_slot(core, slot).group = reclaim.dying
    reclaim.dying = slot + 1
    add64(&core.control.trims, 1)


cdef bint chain_drop(core_t* core, uint32_t* head, uint32_t slot) noexcept nogil:
    """Take a queue's slot out of a chain of them; False if it is not in it."""
    while head[0]:
        if head[0] == slot + 1:
            head[0] = queue_slot(core, slot).group
            return True
        head = &queue_slot(core, head[0] - 1).group
    return False


cdef void queue_slot_take(core_t* core, uint32_t slot) noexcept nogil:
    """See to it that a slot is free and on no list. Only a replay finds one whose messages are not given up yet."""
    cdef state_t* state = &core.control.state
    cdef uint32_t head
    if slot >= state.queue_slots:
        return
    while queue_slot(core, slot).tree and state.queue_free != slot + 1 and queue_giveup(core, slot) > 0:
        pass
    head = <uint32_t>state.queue_free
    if chain_drop(core, &head, slot):
        store64(&state.queue_free, head)
    elif state.reclaim:
        chain_drop(core, &reclaim_page(core).dying, slot)


cdef bint taking_add(takings_t* takings, uint64_t number, uint64_t bytes_) noexcept nogil:
    """Add to what will be taken from a segment; False if there is no room for one more."""
    cdef uint32_t at = takings.count
    while at:
        at -= 1
        if takings.at[at].number == number:
            takings.at[at].bytes += bytes_
            return True
    if takings.count == TAKINGS:
        return False
    takings.at[takings.count].number = number
    takings.at[takings.count].bytes = bytes_
    takings.count += 1
    return True


cdef uint64_t takings_gather(core_t* core, queue_t* queue, uint64_t low, uint64_t high,
                             takings_t* takings) noexcept nogil:
    """Add up by segment what the entries of [low, high) hold; returns how far it got. Without the store lock."""
    cdef uint64_t offset = low
    cdef const entry_t* leaf = NULL
    cdef const entry_t* entry
    cdef const record_t* record
    takings.count = 0
    takings.bytes = 0
    while offset < high:
        if leaf == NULL or offset % LEAF == 0:
            leaf = index_leaf(core, queue, offset)
        entry = leaf + offset % LEAF
        if entry.position:
            # Room for both segments of a PLACE, so that an entry is taken wholly or not at all.
            if takings.count + 2 > TAKINGS:
                return offset
            if entry.spare == PLACED:
                record = record_at(core, entry.position)
                # Of a PLACE that is damaged it is not known where it led: both segments keep its bytes.
                if record != NULL and record.type == RECORD_PLACE and record.body_size >= 8:
                    taking_add(takings, entry.position >> 32, record_size(record))
                    taking_add(takings, (<const uint64_t*>record_body(record))[0] >> 32, entry.size)
            else:
                taking_add(takings, entry.position >> 32, entry.size)
            takings.bytes += entry.size
        offset += 1
    return offset


cdef int64_t queue_giveup(core_t* core, uint32_t slot) noexcept nogil:
    """Give up some of what was purged from a queue: how many messages, 0 when there are none, -1 to come again."""
    cdef queue_t* queue = queue_slot(core, slot)
    cdef takings_t takings
    cdef uint64_t pin, reached
    cdef uint64_t low = queue.reclaimed
    cdef bint dead = load32(&queue.id) == 0
    cdef uint64_t high = load64(&queue.next) if dead else giveup_end(core, queue)
    cdef uint32_t at
    if low >= high and not dead:
        return 0
    pin_take(core, &pin)
    reached = takings_gather(core, queue, low, min(high, low + STEP), &takings)
    pin_give(core)
    store_lock(core)
    if queue.reclaimed != low or (queue.id and reached > giveup_end(core, queue)):
        pthread_mutex_unlock(&core.control.store_lock)
        return -1
    journal_begin(core, &queue.reclaimed)
    for at in range(takings.count):
        live_take(core, takings.at[at].number << 32, takings.at[at].bytes)
    mortal(core)
    store64(&queue.reclaimed, reached)
    mortal(core)
    journal_end(core)
    if queue.spared_until and reached > queue.spared:
        queue.spared_until = 0
    queue.bytes -= min(queue.bytes, takings.bytes)
    pages_give(core, queue, low, reached)
    if dead and reached == queue.next:
        tree_give(core, queue, low)
    pthread_mutex_unlock(&core.control.store_lock)
    return reached - low


cdef uint32_t index_path(core_t* core, uint64_t tree, uint64_t leaf, uint32_t* pages) noexcept nogil:
    """The pages from a leaf (pages[0]) up to the root; the tree's height, or DAMAGED_PATH."""
    cdef uint32_t height = tree >> 32
    cdef uint32_t level = height
    cdef uint64_t span = 1
    pages[height] = <uint32_t>tree
    while level:
        span = fan_span(level - 1)
        if not index_holds(core, pages[level]):
            return DAMAGED_PATH
        pages[level - 1] = (<uint32_t*>index_page(core, pages[level]))[leaf // span % FAN]
        level -= 1
    return height if index_holds(core, pages[0]) else DAMAGED_PATH


cdef inline uint64_t fan_span(uint32_t level) noexcept nogil:
    """How many leaves a subtree of the index has whose root stands at a level."""
    cdef uint64_t span = 1
    while level:
        span *= FAN
        level -= 1
    return span


cdef void pages_give(core_t* core, queue_t* queue, uint64_t low, uint64_t reached) noexcept nogil:
    """Give back the index pages of which the last entry was given up, the root excepted. Under the store lock."""
    cdef uint32_t pages[8]
    cdef uint32_t height, level
    cdef uint64_t leaf
    for leaf in range(low // LEAF, reached // LEAF):
        height = index_path(core, queue.tree, leaf, pages)
        if height == DAMAGED_PATH:
            continue
        level = 0
        while level < max(height, <uint32_t>1) and (leaf + 1) % fan_span(level) == 0:
            index_give(core, pages[level])
            level += 1


cdef void tree_give(core_t* core, queue_t* queue, uint64_t low) noexcept nogil:
    """A deleted queue has nothing left: give back the rest of its index, and its slot. Under the store lock."""
    cdef uint32_t pages[8]
    cdef uint32_t slot = <uint32_t>((<uint8_t*>queue - (core.base + QUEUES_AT)) // 256)
    cdef uint64_t tree = queue.tree
    cdef uint64_t leaf = (queue.next - 1) // LEAF
    cdef uint32_t height, level
    cdef bint given
    # Taken from the queue first: a death from here on leaks pages and never gives one twice.
    store64(&queue.tree, 0)
    height = index_path(core, tree, leaf, pages) if queue.next else DAMAGED_PATH
    if height != DAMAGED_PATH:
        for level in range(height + 1):
            # Those that pages_give gave: wholly below, and not the root of a tree with nodes.
            given = queue.next % LEAF == 0 and (leaf + 1) % fan_span(level) == 0 and (level < height or height == 0)
            if not given:
                index_give(core, pages[level])
    if queue.settings:
        dedup_free(core, queue)
        arena_give(core, queue.settings)
        queue.settings = 0
    if chain_drop(core, &reclaim_page(core).dying, slot):
        queue.group = <uint32_t>core.control.state.queue_free
        core.control.state.queue_free = slot + 1


cdef bint purged_giveup(core_t* core, uint64_t budget) noexcept nogil:
    """Give up to about budget messages of all queues; whether all was done. Under the reclaim lock."""
    cdef state_t* state = &core.control.state
    cdef reclaim_t* reclaim
    cdef uint64_t trims = load64(&core.control.trims)
    cdef uint64_t done = 0
    cdef int64_t some
    cdef uint32_t slot
    cdef bint spared = False
    if trims == core.control.trims_seen:
        return True
    reclaim = reclaim_page(core)
    while reclaim != NULL and reclaim.dying and done < budget:
        some = queue_giveup(core, reclaim.dying - 1)
        done += max(some, <int64_t>1)
    for slot in range(state.queue_slots):
        while done < budget and queue_slot(core, slot).id:
            some = queue_giveup(core, slot)
            if some <= 0:
                break
            done += some
        spared = spared or (queue_slot(core, slot).id and queue_slot(core, slot).spared_until)
    if done < budget and not spared:
        core.control.trims_seen = trims
    return done < budget


cdef struct gone_t:
    core_t* core
    uint64_t number
    const uint8_t* base


cdef bint offset_held(core_t* core, uint32_t id, uint64_t offset) noexcept nogil:
    cdef queue_t* queue = find_queue(core, id)
    return queue != NULL and offset >= queue.reclaimed and offset < load64(&queue.next)


cdef bint record_held(core_t* core, const record_t* record) noexcept nogil:
    """Whether a record is a message that some queue still has."""
    cdef const recipient_t* to
    cdef uint32_t at
    if record.type == RECORD_FANOUT:
        to = record_recipients(record)
        for at in range(record.spare):
            if offset_held(core, to[at].queue, to[at].offset):
                return True
        return False
    return (record.type == RECORD_MESSAGE or record.type == RECORD_PLACE) \
        and offset_held(core, record.queue, record.offset)


cdef int segment_needed_at(void* with_) noexcept nogil:
    """1 if a record of a mapped segment is still held, or its frames do not go on to where they ended; else 0."""
    cdef gone_t* what = <gone_t*>with_
    cdef const segment_header_t* header = <const segment_header_t*>what.base
    cdef live_t* live = live_entry(what.core, what.number, False)
    cdef uint64_t at = SEGMENT_HEADER_SIZE
    cdef uint64_t end
    cdef uint32_t index
    cdef const record_t* record
    if header.magic == 0 or live == NULL:
        return 0                # a former attempt got as far as that
    if not header_whole(what.core, header, what.number):
        return 1
    while at < live.end:
        if frame_judge(what.core, what.base, at, what.number, header.salt, False) != WHOLE:
            return 1
        end = at + (<const frame_t*>(what.base + at)).size
        at += sizeof(frame_t)
        while at < end:
            record = <const record_t*>(what.base + at)
            if end - at < sizeof(record_t) or payload_size(record) > end - at - sizeof(record_t) \
                    or record_held(what.core, record):
                return 1
            at += record_size(record)
    return 0


cdef bint segment_needed(core_t* core, uint64_t number, int fd) noexcept nogil:
    """Ask a dead segment's own records before it goes: a count may be wrong where an index entry was damaged."""
    cdef gone_t what
    cdef void* base = mmap(NULL, core.segment_size, PROT_READ, MAP_SHARED, fd, 0)
    cdef bint needed
    if base == MAP_FAILED:
        return True
    what.core = core
    what.number = number
    what.base = <const uint8_t*>base
    needed = guarded(segment_needed_at, &what) != 0
    munmap(base, core.segment_size)
    return needed


cdef int cold_needed_at(void* with_) noexcept nogil:
    """1 if a record of a segment in a cold file is still held, or cannot be judged; else 0."""
    cdef cold_look_t* look = <cold_look_t*>with_
    cdef const cold_row_t* row = <const cold_row_t*>(look.place.base + look.place.rows)
    cdef uint64_t at
    for at in range(look.place.count):
        look.position = look.place.number << 32 | row[at].byte
        if cold_look(look) != WHOLE or record_held(look.core, look.record):
            return 1
    return 0


cdef bint cold_needed(core_t* core, uint64_t number) noexcept nogil:
    """The same of a dead segment that was compacted."""
    cdef cold_look_t look
    cdef uint64_t pin
    cdef bint needed
    if core.control.cold == 0:
        return False
    look.core = core
    pin_take(core, &pin)
    needed = cold_place(core, number, 0xFFFFFFFF, &look.place) and guarded(cold_needed_at, &look) != 0
    pin_give(core)
    return needed


cdef bint segment_going(core_t* core, uint64_t number) noexcept nogil:
    """Let nobody map a segment from now on; False if somebody has."""
    cdef bint alone
    pthread_mutex_lock(&core.maps_lock)
    # Of this process the descriptor of the lock is one: its own maps and threads are kept off by other means.
    alone = map_drop(core, number) and byte_lock(core.maps_fd, F_WRLCK, 1 + number) == 0
    if alone:
        core.going = number
    pthread_mutex_unlock(&core.maps_lock)
    return alone


cdef void segment_stays(core_t* core, uint64_t number) noexcept nogil:
    pthread_mutex_lock(&core.maps_lock)
    core.going = 0
    byte_lock(core.maps_fd, F_UNLCK, 1 + number)
    pthread_mutex_unlock(&core.maps_lock)


cdef int segment_reuse(core_t* core, uint64_t number, int fd, bint* used) noexcept nogil:
    """Give a dead segment the number after the last prepared one, its header zero and on disk first. 0 or errno.

    used: whether that was done; not if there are enough of them.
    """
    cdef control_t* control = core.control
    cdef uint8_t page[SEGMENT_HEADER]
    cdef char name[4096]
    cdef char final[4096]
    cdef int failed = 0
    mutex_lock(&control.prepare_lock)
    used[0] = load64(&control.prepared) < load64(&control.segment) + max(<uint64_t>SPARES, core.spares)
    if used[0]:
        memset(page, 0, sizeof(page))
        failed = faulty(core, 4)
        if failed == 0:
            failed = write_all(fd, page, sizeof(page), 0)
            trace(core, 1, number << 32, page, sizeof(page))
        if failed == 0 and fsync(fd):
            failed = errno
        mortal(core)
        if failed == 0:
            trace(core, 2, number << 32, NULL, 0)
            segment_path(core, number, name, 4096, False)
            segment_path(core, control.prepared + 1, final, 4096, False)
            if rename(name, final):
                failed = errno
        mortal(core)
        if failed == 0:
            trace(core, 3, number << 32, &control.prepared, 8)
            if fsync(core.directory_fd):
                failed = errno
        if failed == 0:
            trace(core, 4, 0, NULL, 0)
            store64(&control.prepared, control.prepared + 1)
            store32(&control.scarce, 0)
            store32(&control.full, 0)
    pthread_mutex_unlock(&control.prepare_lock)
    mortal(core)
    return failed


cdef int segment_remove(core_t* core, uint64_t number) noexcept nogil:
    """Unlink a segment; who has it mapped keeps the bytes until it lets go. 0 or errno."""
    cdef char name[4096]
    cdef int failed = faulty(core, 4)
    segment_path(core, number, name, 4096, False)
    if failed == 0 and unlink(name):
        failed = errno
    if failed == 0:
        mortal(core)
        trace(core, 5, number << 32, NULL, 0)
        if fsync(core.directory_fd):
            failed = errno
        else:
            trace(core, 4, 0, NULL, 0)
    return failed


cdef int segment_reclaim(core_t* core, uint64_t number, bint insist) noexcept nogil:
    """Use a dead segment again or remove it: 0, errno, or EAGAIN while somebody has it mapped (insist: removed)."""
    cdef char name[4096]
    cdef bint used = False
    cdef bint alone = segment_going(core, number)
    cdef bint there
    cdef int failed = 0
    cdef int fd
    if not alone and not insist:
        return EAGAIN
    segment_path(core, number, name, 4096, False)
    fd = c_open(name, O_RDWR | O_CLOEXEC, 0)
    if fd < 0:
        failed = errno if errno != ENOENT else ENOTEMPTY if cold_needed(core, number) else 0
    elif segment_needed(core, number, fd):
        failed = ENOTEMPTY
    elif alone:
        failed = segment_reuse(core, number, fd, &used)
    there = fd >= 0
    if there and failed == 0 and not used:
        failed = segment_remove(core, number)
    descriptor_close(&fd)
    if alone:
        segment_stays(core, number)
    if failed and failed != ENOTEMPTY:
        return failed
    store_lock(core)
    if failed:
        live_keep(core, number)
    else:
        if used:
            reclaim_page(core).recycled += 1
        elif there:
            reclaim_page(core).removed += 1
        live_drop(core, number)
    pthread_mutex_unlock(&core.control.store_lock)
    return 0


cdef int segments_reclaim(core_t* core, bint insist, uint64_t* counts) noexcept nogil:
    """Use again or remove every dead segment that no kept checkpoint needs. 0 or errno. Under the reclaim lock.

    counts: those that went, those that somebody has mapped, those that wait for checkpoints.
    """
    cdef control_t* control = core.control
    cdef uint64_t number = live_next(core, 1)
    cdef live_t* live
    cdef int failed
    while number and number < control.segment and not control.state.uncounted:
        live = live_entry(core, number, False)
        if live.dead:
            if live.dead > control.kept or number >= control.kept_position >> 32:
                counts[2] += 1
            else:
                failed = segment_reclaim(core, number, insist)
                if failed and failed != EAGAIN:
                    return failed
                counts[1 if failed else 0] += 1
        number = live_next(core, number + 1)
    return 0
