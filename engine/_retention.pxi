# How long messages are kept: the settings of a queue, and what may be purged by them.

cdef enum:
    QUEUE_SETTINGS = 32         # fields there may be, numbered from 1, each a u64; the last is in no record
    RETAIN_MS = 1               # purge what is older; 0 never
    RETAIN_BYTES = 2            # purge the oldest while there is more; 0 never
    KEEP = 3                    # 0 all; 1 what a group has not confirmed; 2 what a named group has not
    REWIND_MS = 4               # confirmed messages are kept for so long
    CUT_STEP = 65536            # messages looked at for one purge by size
    CUT_AT_ONCE = 4096          # messages that are purged without waiting a second since the last purge

cdef struct queue_settings_t:
    # A page of the arena.
    uint64_t position           # of the record that changed it last
    uint64_t trimmed_us         # when it was last purged by these settings
    uint64_t values[32]


cdef bint queue_settings_fit(const uint8_t* body, uint64_t size) noexcept nogil:
    """Whether bytes are a list of known fields of 8 bytes."""
    cdef const field_t* head
    while size:
        head = <const field_t*>body
        if size < sizeof(field_t) + 8 or head.field < 1 or head.field >= QUEUE_SETTINGS or head.zero \
                or head.size != 8:
            return False
        body += sizeof(field_t) + 8
        size -= sizeof(field_t) + 8
    return True


cdef void queue_settings_apply(core_t* core, const record_t* record) noexcept nogil:
    """Apply a QUEUE_SETTINGS record; twice does no harm."""
    cdef queue_t* queue = find_queue(core, record.queue)
    cdef const uint8_t* body = record_body(record)
    cdef uint64_t left = record.body_size
    cdef uint32_t page
    cdef queue_settings_t* settings
    if queue == NULL or not queue_settings_fit(body, left):
        return
    page = queue.settings
    if page == 0:
        page = arena_take(core)
        if page == 0:
            return              # settings_room made sure of it
    settings = <queue_settings_t*>arena_page(core, page)
    if settings.position >= record.position:
        return
    while left:
        memcpy(&settings.values[(<const field_t*>body).field - 1], body + sizeof(field_t), 8)
        body += sizeof(field_t) + 8
        left -= sizeof(field_t) + 8
    settings.position = record.position
    if queue.settings and settings.values[DEDUP_MS - 1] == 0:
        dedup_free(core, queue)
    if queue.settings == 0:
        reclaim_page(core).configured = 1
        store32(&queue.settings, page)


cdef uint64_t setting_of(core_t* core, const queue_t* queue, int field) noexcept nogil:
    return (<queue_settings_t*>arena_page(core, queue.settings)).values[field - 1] if queue.settings else 0


cdef void trim_apply(core_t* core, queue_t* queue, const record_t* record) noexcept nogil:
    """Purge, or take a purge back that was to be kept for a while. Twice does no harm."""
    cdef bint timed = record.body_size == 8
    cdef uint64_t until = (<const uint64_t*>record_body(record))[0] if timed else 0
    if timed and until == 0:
        if queue.spared_until and queue.first > record.offset:
            store64(&queue.first, max(record.offset, queue.reclaimed))
        queue.spared_until = 0
    elif queue.first < record.offset:
        if until and queue.spared_until == 0:
            queue.spared = queue.first
        if until:
            store64(&queue.spared_until, max(queue.spared_until, until))
        # Never beyond the end: a purge of what was taken back must not hide what comes.
        store64(&queue.first, min(record.offset, queue.next))
        add64(&core.control.trims, 1)


cdef void unpurge_admit(core_t* core, operation_t* operation, record_t* record) noexcept nogil:
    """Taking a purge back: to where it began, if what it purged is still there. Under the store lock."""
    cdef queue_t* queue = find_queue(core, operation.queue)
    if record.body_size != 8 or (<const uint64_t*>record_body(record))[0]:
        return
    if queue.spared_until == 0 or queue.first <= queue.spared:
        operation.verdict = STALE
        return
    operation.offset = record.offset = queue.spared


cdef uint64_t giveup_end(core_t* core, const queue_t* queue) noexcept nogil:
    """Up to where purged messages may be given up now."""
    cdef uint64_t first = load64(&queue.first)
    if load64(&queue.spared_until) > store_clock(core):
        return min(first, queue.spared)
    return first


cdef void floors_find(core_t* core, uint64_t* floors) noexcept nogil:
    """Per slot of a queue, up to where every group that counts has confirmed; NEVER if there is none."""
    cdef uint32_t slot
    cdef group_t* group
    cdef queue_t* queue
    cdef uint64_t* floor
    memset(floors, 0xFF, core.control.state.queue_slots * 8)
    for slot in range(core.control.state.group_slots):
        group = group_slot(core, slot)
        queue = find_queue(core, group.queue) if group.id else NULL
        if queue != NULL and not (group.name_size == 0 and setting_of(core, queue, KEEP) == 2):
            floor = floors + (group.queue & (QUEUES - 1))
            floor[0] = min(floor[0], load64(&group.floor))


cdef uint64_t cut_by_size(core_t* core, queue_t* queue, uint64_t end, uint64_t limit) noexcept nogil:
    """The first message to keep if the queue may have so many bytes; at most CUT_STEP are looked at."""
    cdef uint64_t offset = queue.first
    cdef uint64_t bytes_ = queue.bytes
    # Counted from reclaimed on: what was purged before must be given up first.
    if queue.reclaimed != queue.first:
        return offset
    end = min(end, offset + CUT_STEP)
    while offset < end and bytes_ > limit:
        bytes_ -= min(bytes_, <uint64_t>index_leaf(core, queue, offset)[offset % LEAF].size)
        offset += 1
    return offset


cdef uint64_t queue_cut(core_t* core, queue_t* queue, uint64_t floor, uint64_t now) noexcept nogil:
    """The first message that a queue's settings keep."""
    cdef uint64_t end = visible_end(core, queue)
    cdef uint64_t cut = queue.first
    cdef uint64_t span = setting_of(core, queue, RETAIN_MS) * 1000
    cdef uint64_t limit = setting_of(core, queue, RETAIN_BYTES)
    if span and span < now:
        cut = max(cut, offset_at_time(core, queue, now - span))
    if limit:
        cut = max(cut, cut_by_size(core, queue, end, limit))
    if setting_of(core, queue, KEEP) and floor != NEVER:
        span = setting_of(core, queue, REWIND_MS) * 1000
        if span < now:
            cut = max(cut, min(floor, offset_at_time(core, queue, now - span)))
    return min(cut, end)


cdef int64_t cuts_find(core_t* core, uint64_t now, uint32_t* ids, uint64_t* cuts, uint32_t room) noexcept nogil:
    """Queues that are due to be purged, and up to where; how many. -1 if memory is out."""
    cdef uint64_t slots = core.control.state.queue_slots
    cdef uint64_t* floors
    cdef uint64_t cut
    cdef uint32_t slot
    cdef uint32_t found = 0
    cdef queue_t* queue
    cdef queue_settings_t* settings
    if core.control.state.reclaim == 0 or reclaim_page(core).configured == 0:
        return 0
    floors = <uint64_t*>malloc((slots + 1) * 8)
    if floors == NULL:
        return -1
    floors_find(core, floors)
    for slot in range(slots):
        queue = queue_slot(core, slot)
        if found == room or queue.id == 0 or queue.settings == 0:
            continue
        settings = <queue_settings_t*>arena_page(core, queue.settings)
        cut = queue_cut(core, queue, max(floors[slot], queue.first), now)
        if cut > queue.first and (cut - queue.first >= CUT_AT_ONCE or now - settings.trimmed_us >= 1000000):
            settings.trimmed_us = now
            ids[found] = queue.id
            cuts[found] = cut
            found += 1
    free(floors)
    return found


cdef void tree_trim(core_t* core, child_t* child, uint32_t height, uint64_t base, uint64_t first) noexcept nogil:
    """Count what is below first and in nobody's hands as confirmed, and give back the pages that this frees."""
    cdef uint64_t span = tree_span(height)
    cdef uint32_t at
    cdef uint32_t page = child.page
    cdef child_t* below
    cdef slot_t* slots
    if base >= first or page == FULL:
        return
    if base + span <= first and child.waiting == 0:
        tree_free(core, child, height)
        child.page = FULL
        return
    if page == 0:
        return
    if height == 0:
        slots = <slot_t*>arena_page(core, page)
        for at in range(SLOTS):
            if base + at < first and slots[at].state != LEASED and slots[at].state != WAITING:
                slots[at].state = CONFIRMED
        sums_mend(core, child, 0)
        at = SLOTS
    else:
        below = <child_t*>arena_page(core, page)
        for at in range(CHILDREN):
            tree_trim(core, below + at, height - 1, base + at * (span // CHILDREN), first)
        child.ready = child.waiting = child.done = 0
        child.due = NEVER
        for at in range(CHILDREN):
            child.ready += below[at].ready
            child.waiting += below[at].waiting
            child.done += below[at].page == FULL
            if below[at].page and below[at].page != FULL:
                child.due = min(child.due, below[at].due)
        at = CHILDREN
    if child.done == at:
        child.page = FULL
        child.due = NEVER
        arena_give(core, page)


cdef void group_trim(core_t* core, group_t* group, uint64_t first) noexcept nogil:
    """What was purged comes no more, and what of it is leased can still be settled. Under the stripe lock."""
    if group.cursor >= first and group.root.waiting:
        return                  # looked at before: it goes as its leases end
    tree_trim(core, &group.root, group.height, 0, first)
    if group.order:
        order_of(core, group).stale = 1
    if group.root.waiting == 0:
        group.floor = max(group.floor, first)
    group.cursor = max(group.cursor, first)
    floor_advance(core, group)
