# Sight: what a message is to a group, and what a group has before it. Reads only. A lock is held for one short step
# at a time, so what a long walk adds up is the truth of no single moment, and is said so.

cdef enum:
    # What a message is to a group. FRESH, LEASED, WAITING, READY, CONFIRMED and HELD are the slot's.
    ABSENT = 6                  # nothing was stored at that offset yet
    PURGED = 7
    UNSAFE = 8                  # stored, but not on disk yet: nobody may see it
    PASSED = 9                  # never taken, though the cursor is behind it: it was purged when the group came by
    DAMAGED_MESSAGE = 10

cdef enum:
    LEAVES_A_STEP = 64          # of 256 slots, under one lock

STATES = ("fresh", "leased", "waiting", "ready", "confirmed", "held", "absent", "purged", "not durable", "passed",
          "damaged")

cdef struct sight_t:
    uint64_t now_us
    uint64_t first, visible, next
    uint64_t floor, cursor
    uint64_t position, stored_us
    uint64_t until_us           # of a lease or delay
    uint64_t before             # how many messages the group would take before it
    uint64_t behind             # of one that is HELD: who must be confirmed before it
    uint32_t attempts
    uint32_t generation
    uint8_t state
    uint8_t ran_out             # READY because a lease or delay ended
    uint8_t unwanted            # the group's filter, as it is now, does not want it

cdef struct counts_t:
    uint64_t fresh, leased, waiting, ready, confirmed, held, passed


cdef uint64_t path_before(core_t* core, group_t* group, path_t* path, uint64_t offset) noexcept nogil:
    """How many READY messages of the group have lower offsets than the one at the end of a path."""
    cdef uint64_t before = 0
    cdef uint64_t span = tree_span(group.height)
    cdef uint32_t level = group.height
    cdef uint32_t at
    cdef child_t* child
    cdef slot_t* slots
    while level:
        span //= CHILDREN
        child = <child_t*>arena_page(core, path.child[level].page)
        for at in range(<uint32_t>(offset // span % CHILDREN)):
            if child[at].page and child[at].page != FULL:
                before += child[at].ready
        level -= 1
    slots = <slot_t*>arena_page(core, path.child[0].page)
    for at in range(<uint32_t>(offset % SLOTS)):
        before += slots[at].state == READY
    return before


cdef bint tree_marked(core_t* core, group_t* group, uint64_t offset) noexcept nogil:
    """Whether something is known of an offset the cursor has not reached: after a crash of a group with a filter."""
    cdef path_t path
    cdef uint32_t level
    return full_at(core, group, offset, &level) or (
        tree_find(core, group, offset, False, &path) == DONE and path.slot.state != FRESH)


cdef void slot_sight(core_t* core, group_t* group, uint64_t offset, sight_t* out) noexcept nogil:
    """What the group's tree says of an offset. Under the group's lock."""
    cdef path_t path
    cdef uint32_t level
    cdef bint some = group.root.page != 0 and group.root.page != FULL
    out.floor = group.floor
    out.cursor = group.cursor
    out.generation = group.generation
    if offset < group.floor:
        out.state = CONFIRMED
    elif offset >= group.cursor and not tree_marked(core, group, offset):
        out.state = FRESH
        out.before = (group.root.ready if some else 0) + offset - max(group.cursor, out.first)
    elif tree_find(core, group, offset, False, &path) != DONE:
        out.state = CONFIRMED if full_at(core, group, offset, &level) else PASSED
    else:
        out.state = PASSED if path.slot.state == FRESH else path.slot.state
        out.attempts = path.slot.attempts
        out.until_us = path.slot.until_us
        if out.state == LEASED or out.state == WAITING:
            if out.until_us <= out.now_us:
                out.state = READY
                out.ran_out = 1
        if out.state == READY:
            out.before = path_before(core, group, &path, offset)
        if out.state == HELD:
            out.until_us = 0
    if group.order and (out.state == FRESH or out.state == HELD):
        out.behind = order_ahead(core, group, offset)
        if out.behind != NEVER:
            out.state = HELD


cdef int message_sight(core_t* core, uint32_t queue_id, uint32_t group_id, uint64_t offset,
                       sight_t* out) noexcept nogil:
    """What a message is to a group (0: the queue's own). DONE or NOT_FOUND."""
    cdef queue_t* queue = find_queue(core, queue_id)
    cdef group_t* group
    cdef entry_t* entry
    cdef const record_t* record
    cdef uint64_t pin
    cdef uint8_t stored[SETTING_SIZE]
    cdef uint32_t stored_size = 0
    cdef const uint8_t* found
    cdef filter_t filter
    memset(out, 0, sizeof(sight_t))
    if queue == NULL:
        return NOT_FOUND
    group = find_group(core, group_id if group_id else queue.group)
    if group == NULL or group.queue != queue_id:
        return NOT_FOUND
    out.now_us = store_clock(core)
    out.visible = visible_end(core, queue)
    out.next = load64(&queue.next)
    out.first = load64(&queue.first)
    if not sight_lock(core, group):
        return NOT_FOUND
    slot_sight(core, group, offset, out)
    found = setting_find(core, group, SETTING_FILTER, &stored_size)
    if found != NULL:
        memcpy(stored, found, stored_size)
    stripe_unlock(core, group)
    if offset >= out.next:
        out.state = ABSENT
        return DONE
    entry = index_leaf(core, queue, offset) + offset % LEAF
    out.position = entry.position
    out.stored_us = entry.stored_us
    if offset < out.first:
        out.state = PURGED
    elif offset >= out.visible:
        out.state = UNSAFE
    else:
        pin_take(core, &pin)
        record = record_at(core, entry.position)
        if record == NULL or not puts_message(record, entry, queue_id, offset) or message_of(core, record) == NULL:
            out.state = CONFIRMED if out.state == CONFIRMED else DAMAGED_MESSAGE
        elif stored_size and filter_open(stored, stored_size, &filter):
            out.unwanted = not filter_judge(core, queue, offset, entry, &filter)
        pin_give(core)
    return DONE


cdef bint sight_lock(core_t* core, group_t* group) noexcept nogil:
    """Take a group's lock; False, and nothing taken, if it was removed meanwhile."""
    cdef uint32_t id = load32(&group.id)
    if id == 0:
        return False
    stripe_take(core, id % STRIPES)
    if group.id == id:
        return True
    pthread_mutex_unlock(stripe(core, id))
    return False


cdef void slots_count(core_t* core, child_t* child, uint64_t start, uint64_t end, uint64_t now,
                      counts_t* out) noexcept nogil:
    """Add up the slots [start, end) of one leaf."""
    cdef const slot_t* slots = <const slot_t*>arena_page(core, child.page)
    cdef uint64_t at
    cdef uint8_t state
    for at in range(start % SLOTS, start % SLOTS + (end - start)):
        state = slots[at].state
        if (state == LEASED or state == WAITING) and slots[at].until_us <= now:
            state = READY
        out.passed += state == FRESH
        out.leased += state == LEASED
        out.waiting += state == WAITING
        out.ready += state == READY
        out.confirmed += state == CONFIRMED
        out.held += state == HELD


cdef uint64_t tree_count(core_t* core, group_t* group, uint64_t at, uint64_t high, uint64_t now,
                         counts_t* out) noexcept nogil:
    """Add up what [at, high) is to the group; returns how far it came. Under the group's lock, a bounded step."""
    cdef uint32_t leaves = 0
    cdef uint32_t level
    cdef uint64_t span, end
    cdef child_t* child
    if at < group.floor:
        end = min(group.floor, high)
        out.confirmed += end - at
        at = end
    while at < high and at < group.cursor and leaves < LEAVES_A_STEP:
        child = &group.root
        level = group.height
        span = tree_span(level)
        if at >= span:
            end = min(high, group.cursor)
            out.passed += end - at
            at = end
            break
        while level and child.page and child.page != FULL:
            span //= CHILDREN
            child = <child_t*>arena_page(core, child.page) + at // span % CHILDREN
            level -= 1
        end = min(min(high, group.cursor), (at // span + 1) * span)
        if child.page == FULL:
            out.confirmed += end - at
        elif child.page == 0:
            out.passed += end - at
        else:
            slots_count(core, child, at, end, now, out)
        at = end
        leaves += 1
    if at >= group.cursor and at < high:
        out.fresh += high - at
        at = high
    return at


cdef uint64_t held_first(core_t* core, child_t* child, uint32_t height, uint64_t base, uint64_t low) noexcept nogil:
    """The lowest offset >= low below child that is leased, waiting or ready; NEVER if there is none."""
    cdef uint64_t span = tree_span(height)
    cdef uint64_t found
    cdef uint32_t at
    cdef child_t* below
    cdef slot_t* slots
    if child.page == 0 or child.page == FULL or child.ready + child.waiting == 0 or base + span <= low:
        return NEVER
    if height == 0:
        slots = <slot_t*>arena_page(core, child.page)
        for at in range(SLOTS):
            if base + at >= low and (slots[at].state == LEASED or slots[at].state == WAITING
                                     or slots[at].state == READY):
                return base + at
        return NEVER
    below = <child_t*>arena_page(core, child.page)
    span //= CHILDREN
    for at in range(CHILDREN):
        found = held_first(core, below + at, height - 1, base + at * span, low)
        if found != NEVER:
            return found
    return NEVER


cdef struct lag_t:
    uint64_t lag                # visible messages that are not confirmed
    uint64_t oldest             # offset of the first of them; NEVER: there is none
    uint64_t oldest_us          # when it was stored
    uint64_t ready, in_flight   # of those: may be taken at once; leased or delayed
    uint64_t visible


cdef void group_lag(core_t* core, queue_t* queue, group_t* group, lag_t* out) noexcept nogil:
    """How far a group is behind; from sums, whatever its size."""
    cdef uint64_t first = load64(&queue.first)
    cdef uint64_t visible = visible_end(core, queue)
    cdef uint64_t start
    memset(out, 0, sizeof(lag_t))
    out.oldest = NEVER
    out.visible = visible
    if not sight_lock(core, group):
        return
    start = max(group.cursor, first)
    if group.root.page != 0 and group.root.page != FULL:
        out.ready = group.root.ready
        out.in_flight = group.root.waiting
        out.oldest = held_first(core, &group.root, group.height, 0, max(group.floor, first))
    if start < visible:
        out.ready += visible - start
        out.oldest = min(out.oldest, start)
    stripe_unlock(core, group)
    out.lag = out.ready + out.in_flight
    if out.oldest != NEVER and out.oldest < load64(&queue.next):
        out.oldest_us = index_leaf(core, queue, out.oldest)[out.oldest % LEAF].stored_us
