# Passing over what a group's filter does not want: such messages count as confirmed, without a record. After a crash
# the group stands where the last checkpoint saw it, and they are judged again; so in a group with a filter replay does
# not move the cursor, it only marks what records name (confirm_range), and passing leaves such marks alone.
#
# Changing a filter loses nothing: between the assignment of a GROUP_SETTINGS record and its application the group takes
# nothing new (frozen), so the record's offset is exactly how far the old filter decided, and replay lets the old filter
# decide up to there (filter_catch_up).

cdef enum:
    PASS_US = 2000              # how long one take may pass over messages: other groups wait for the same lock
    PASS_JUDGED = 16            # messages judged between two looks at the clock


cdef int tree_pass(core_t* core, child_t* child, uint32_t height, uint64_t base, uint64_t start, uint64_t end,
                   uint64_t floor, bint make) noexcept nogil:
    """Confirm what is FRESH in [start, end) below child. DONE or STORE_FULL.

    Without make, floor == start and nothing is missing below it: then what is not there may stay away.
    """
    cdef uint64_t span = tree_span(height)
    cdef uint64_t low, high, at
    cdef child_t* below
    cdef slot_t* slots
    cdef bint was
    if child.page == FULL:
        return DONE
    if child.page == 0:
        if end - base >= span and (start <= base or not make):
            child.due = NEVER
            child.page = FULL
            return DONE
        if not make:
            return DONE
        if not child_make(core, child, height, base, floor):
            return STORE_FULL
    low = max(start, base) - base
    high = min(end - base, span)
    if height == 0:
        slots = <slot_t*>arena_page(core, child.page)
        for at in range(low, high):
            if slots[at].state == FRESH:
                slots[at].state = CONFIRMED
                child.done += 1
        if child.done >= SLOTS:
            child_full(core, child)
        return DONE
    span //= CHILDREN
    below = <child_t*>arena_page(core, child.page)
    for at in range(low // span, (high + span - 1) // span):
        was = below[at].page == FULL
        if tree_pass(core, below + at, height - 1, base + at * span, start, end, floor, make) != DONE:
            return STORE_FULL
        child.done += not was and below[at].page == FULL
    if child.done >= CHILDREN:
        child_full(core, child)
    return DONE


cdef inline void child_full(core_t* core, child_t* child) noexcept nogil:
    # Unlinked before it is given back: a death between the two leaks a page, never shares one.
    cdef uint32_t page = child.page
    child.page = FULL
    child.due = NEVER
    arena_give(core, page)


cdef int group_pass(core_t* core, group_t* group, uint64_t end) noexcept nogil:
    """Move the cursor to end; what lies between and was not taken counts as confirmed. DONE or STORE_FULL."""
    cdef child_t* root = &group.root
    cdef bint some = root.page != 0 and root.page != FULL
    cdef uint64_t inside = min(end, tree_span(group.height))
    cdef bint alone = group.floor == group.cursor and (not some or (root.ready == 0 and root.waiting == 0))
    if end <= group.cursor:
        return DONE
    if alone:
        # Nothing is in flight, so nothing has to be written down beyond the pages that are there.
        if some and inside > group.cursor:
            tree_pass(core, root, group.height, 0, group.cursor, inside, group.floor, False)
        # The floor first: a death between the two is mended where the stripe is taken.
        store64(&group.floor, end)
        store64(&group.cursor, end)
        return DONE
    if tree_widen(core, group, end - 1) != DONE \
            or tree_pass(core, root, group.height, 0, group.cursor, end, group.floor, True) != DONE:
        return STORE_FULL
    store64(&group.cursor, end)
    floor_advance(core, group)
    return DONE


cdef bint filter_of(core_t* core, const group_t* group, filter_t* out) noexcept nogil:
    """The group's filter; False if it wants everything. Under the stripe lock."""
    cdef uint32_t size = 0
    cdef const uint8_t* stored = setting_find(core, group, SETTING_FILTER, &size)
    return stored != NULL and filter_open(stored, size, out)


cdef bint filter_judge(core_t* core, queue_t* queue, uint64_t offset, const entry_t* entry,
                       const filter_t* filter) noexcept nogil:
    """Whether a message is wanted. A damaged one is: who takes it learns of the damage. Needs a pin."""
    cdef const record_t* record = record_at(core, entry.position)
    cdef const record_t* message = NULL
    if record != NULL and record.queue == queue.id and record.offset == offset:
        message = message_of(core, record)
    if message == NULL:
        return True
    return filter_wants(filter, record_ext(message), message.ext_size if message.flags & RECORD_ATTRIBUTED else 0)


cdef uint64_t filter_next(core_t* core, queue_t* queue, const filter_t* filter, uint64_t offset, uint64_t end,
                          uint64_t until_us, bint* found) noexcept nogil:
    """The first wanted offset from offset on; found is False if none was met before end, or before until_us."""
    cdef entry_t* leaf
    cdef uint64_t stop
    cdef uint32_t judged = 0
    found[0] = False
    while offset < end:
        leaf = index_leaf(core, queue, offset)
        stop = min(end, (offset // LEAF + 1) * LEAF)
        while offset < stop:
            if filter.kind == FILTER_TAG:
                # An entry of position 0 was lost to damage, its tag with it.
                while offset < stop and leaf[offset % LEAF].position and not tag_maybe(filter, leaf[offset % LEAF].tag):
                    offset += 1
                if offset == stop:
                    break
            if filter_judge(core, queue, offset, leaf + offset % LEAF, filter):
                found[0] = True
                return offset
            offset += 1
            judged += 1
            if judged % PASS_JUDGED == 0 and clock_us() >= until_us:
                return offset
        if offset % (8 * LEAF) < LEAF and clock_us() >= until_us:
            return offset
    return offset


cdef int filter_pass(core_t* core, queue_t* queue, group_t* group, const filter_t* filter, uint64_t end,
                     uint64_t until_us) noexcept nogil:
    """Move the cursor to the next message that the group wants. DONE, NOT_FOUND (none yet), or STORE_FULL.

    If it stopped only for the time it took, group.behind says so.
    """
    cdef bint found = False
    cdef uint64_t offset = filter_next(core, queue, filter, group.cursor, end, until_us, &found)
    group.behind = not found and offset < end
    if group_pass(core, group, offset) != DONE:
        return STORE_FULL
    return DONE if found else NOT_FOUND


cdef inline bint group_behind(core_t* core, uint32_t id) noexcept nogil:
    """Whether the last take of the group stopped for the time it took."""
    cdef const group_t* group = find_group(core, id)
    return group != NULL and group.behind and not load32(&core.closing)


cdef void filter_catch_up(core_t* core, group_t* group, uint64_t end) noexcept nogil:
    """Replay of a change: up to end the filter so far decides, or without one everything was taken."""
    cdef queue_t* queue = find_queue(core, group.queue)
    cdef filter_t filter
    cdef path_t path
    cdef bint found = True
    cdef uint64_t offset, pin
    if queue == NULL or group.cursor >= end:
        return
    end = min(end, load64(&queue.next))
    pin_take(core, &pin)
    if not filter_of(core, group, &filter):
        filter.kind = 0
    while group.cursor < end:
        offset = group.cursor
        if filter.kind:
            offset = filter_next(core, queue, &filter, offset, end, NEVER, &found)
            group_pass(core, group, offset)
        if found and offset < end:
            if tree_find(core, group, offset, True, &path) == DONE and path.slot.state == FRESH:
                path.slot.state = READY
                path_ready(group, &path, 1)
            group.cursor = offset + 1
    floor_advance(core, group)
    pin_give(core)
