# Delivery state of one (queue, group). Offsets below floor are confirmed, from cursor on never taken; between them
# stands a tree: a leaf page has 256 slots of 16 bytes, a node 128 children, each child with the sums of its subtree.
# A leaf that is confirmed throughout is given back and leaves the mark FULL, so state is as large as what is in
# flight, not as what is stored. All of it under the group's stripe lock.
#
# Invariants: 1. floor <= cursor. 2. A slot is LEASED, WAITING, READY, HELD or CONFIRMED once taken, else FRESH.
# 3. child.ready and child.done are exact; child.due is at most the earliest deadline below it. 4. A holder may die
# between any two stores: a slot gets its state last, and who takes the lock next mends the rest (stripe_take).

cdef enum:
    SLOTS = 256
    CHILDREN = 128

cdef enum:
    FRESH = 0
    LEASED = 1
    WAITING = 2                 # given back with a delay
    READY = 3
    CONFIRMED = 4
    HELD = 5                    # behind another of its key; until_us is the offset of the next one in line

cdef enum:
    HEIGHT_LIMIT = 7            # 256 * 128^7 offsets: beyond any count

cdef enum:
    WIDENED_BITS = 24           # of root.done while the tree is made higher: its height then

cdef uint32_t WIDENED = 0x80000000

cdef struct slot_t:
    uint64_t until_us
    uint32_t nonce
    uint16_t attempts
    uint8_t state
    uint8_t spare

cdef struct path_t:
    # From the root to a leaf: the child entries passed.
    child_t* child[8]
    slot_t* slot


cdef inline uint64_t tree_span(uint32_t height) noexcept nogil:
    """How many offsets a tree of this height holds."""
    cdef uint64_t span = SLOTS
    while height:
        span *= CHILDREN
        height -= 1
    return span


cdef int tree_widen(core_t* core, group_t* group, uint64_t offset) noexcept nogil:
    """Make the tree high enough for an offset. DONE or STORE_FULL."""
    cdef uint32_t page
    cdef child_t* first
    while offset >= tree_span(group.height):
        if group.root.page == 0:
            group.height += 1
            continue
        page = arena_take(core)
        if page == 0:
            return STORE_FULL
        first = <child_t*>arena_page(core, page)
        first[0] = group.root
        # In one store: after a death here the mark says what the page is.
        store64(<uint64_t*>&group.root, page | <uint64_t>(WIDENED | (group.height + 1) << WIDENED_BITS) << 32)
        store32(&group.height, group.height + 1)
        group.root.done = 1 if first.page == FULL else 0
    return DONE


cdef bint child_make(core_t* core, child_t* child, uint32_t height, uint64_t base, uint64_t floor) noexcept nogil:
    """Give a child that has none its page; False if there is no room.

    What lies below the floor will never be taken: it must not keep the page from getting full.
    """
    cdef uint32_t page = arena_take(core)
    cdef uint64_t span = tree_span(height) // (CHILDREN if height else SLOTS)
    cdef uint32_t at = 0
    if page == 0:
        return False
    while at < (CHILDREN if height else SLOTS) and base + (at + 1) * span <= floor:
        if height:
            (<child_t*>arena_page(core, page))[at].page = FULL
            (<child_t*>arena_page(core, page))[at].due = NEVER
        else:
            (<slot_t*>arena_page(core, page))[at].state = CONFIRMED
        at += 1
    child.due = NEVER
    child.done = at
    child.ready = 0
    child.waiting = 0
    child.page = page
    return True


cdef int tree_find(core_t* core, group_t* group, uint64_t offset, bint make, path_t* path) noexcept nogil:
    """The path to an offset's slot. DONE; NOT_FOUND if it is FULL or absent; STORE_FULL if no page could be had."""
    cdef uint32_t level = group.height
    cdef child_t* child = &group.root
    cdef uint64_t span = tree_span(level)
    if offset >= span:
        if not make or tree_widen(core, group, offset) != DONE:
            return STORE_FULL if make else NOT_FOUND
        level = group.height
        span = tree_span(level)
    while True:
        path.child[level] = child
        if child.page == FULL:
            return NOT_FOUND
        if child.page == 0:
            if not make:
                return NOT_FOUND
            if not child_make(core, child, level, offset // span * span, group.floor):
                return STORE_FULL
        if level == 0:
            path.slot = <slot_t*>arena_page(core, child.page) + offset % SLOTS
            return DONE
        span //= CHILDREN
        child = <child_t*>arena_page(core, child.page) + offset // span % CHILDREN
        level -= 1


cdef void tree_free(core_t* core, child_t* child, uint32_t height) noexcept nogil:
    cdef uint32_t at
    cdef uint32_t page = child.page
    memset(child, 0, sizeof(child_t))
    child.due = NEVER
    if page and page != FULL:
        if height:
            for at in range(CHILDREN):
                tree_free(core, <child_t*>arena_page(core, page) + at, height - 1)
        arena_give(core, page)


cdef inline void path_ready(group_t* group, path_t* path, int64_t change) noexcept nogil:
    cdef uint32_t level
    for level in range(group.height + 1):
        path.child[level].ready += change


cdef inline void path_waiting(group_t* group, path_t* path, int64_t change) noexcept nogil:
    cdef uint32_t level
    for level in range(group.height + 1):
        path.child[level].waiting += change


cdef inline void path_due(group_t* group, path_t* path, uint64_t due) noexcept nogil:
    cdef uint32_t level
    for level in range(group.height + 1):
        if path.child[level].due > due:
            path.child[level].due = due


cdef void slot_confirm(core_t* core, group_t* group, path_t* path) noexcept nogil:
    """Mark the slot confirmed; fold full leaves and nodes away."""
    cdef uint32_t level = 0
    cdef uint32_t page
    cdef child_t* child = path.child[0]
    if path.slot.state == READY:
        path_ready(group, path, -1)
    elif path.slot.state == LEASED or path.slot.state == WAITING:
        path_waiting(group, path, -1)
    path.slot.state = CONFIRMED
    child.done += 1
    if child.done < SLOTS:
        return
    while True:
        # Unlinked before it is given back: a death between the two leaks a page, never shares one.
        page = child.page
        child.page = FULL
        child.due = NEVER
        arena_give(core, page)
        if level == group.height:
            return
        level += 1
        child = path.child[level]
        child.done += 1
        if child.done < CHILDREN:
            return


cdef void floor_advance(core_t* core, group_t* group) noexcept nogil:
    """Move the floor over what is confirmed."""
    cdef path_t path
    cdef int found
    cdef uint32_t level
    while group.floor < group.cursor:
        found = tree_find(core, group, group.floor, False, &path)
        if found == DONE:
            if path.slot.state != CONFIRMED:
                return
            group.floor += 1
            continue
        # A FULL subtree is passed at once.
        if not full_at(core, group, group.floor, &level):
            return
        group.floor = (group.floor // tree_span(level) + 1) * tree_span(level)
        if group.floor > group.cursor:
            group.floor = group.cursor


cdef bint full_at(core_t* core, group_t* group, uint64_t offset, uint32_t* height) noexcept nogil:
    """Whether the offset lies in a FULL subtree; its height."""
    cdef uint32_t level = group.height
    cdef child_t* child = &group.root
    cdef uint64_t span = tree_span(level)
    if offset >= span:
        return False
    while True:
        if child.page == FULL:
            height[0] = level
            return True
        if child.page == 0 or level == 0:
            return False
        span //= CHILDREN
        child = <child_t*>arena_page(core, child.page) + offset // span % CHILDREN
        level -= 1


cdef uint64_t expire(core_t* core, child_t* child, uint32_t height, uint64_t now, int* budget) noexcept nogil:
    """Make READY what is due below child; returns how many became so and puts child's sums right."""
    cdef uint64_t count = 0
    cdef uint64_t due = NEVER
    cdef uint32_t at
    cdef slot_t* slot
    cdef child_t* below
    if child.page == 0 or child.page == FULL or child.due > now or budget[0] <= 0:
        return 0
    if height == 0:
        slot = <slot_t*>arena_page(core, child.page)
        for at in range(SLOTS):
            if slot[at].state == LEASED or slot[at].state == WAITING:
                if slot[at].until_us <= now:
                    slot[at].state = READY
                    count += 1
                elif slot[at].until_us < due:
                    due = slot[at].until_us
        budget[0] -= SLOTS
    else:
        below = <child_t*>arena_page(core, child.page)
        for at in range(CHILDREN):
            if below[at].page and below[at].page != FULL:
                count += expire(core, below + at, height - 1, now, budget)
                if below[at].due < due:
                    due = below[at].due
    child.ready += count
    child.waiting -= count
    child.due = due
    return count


cdef bint ready_first(core_t* core, group_t* group, path_t* path, uint64_t* offset) noexcept nogil:
    """The lowest READY offset and the path to it."""
    cdef uint32_t level = group.height
    cdef child_t* child = &group.root
    cdef uint64_t base = 0
    cdef uint64_t span = tree_span(level)
    cdef uint32_t at
    cdef slot_t* slots
    if child.page == 0 or child.page == FULL or child.ready == 0:
        return False
    while True:
        path.child[level] = child
        if level == 0:
            slots = <slot_t*>arena_page(core, child.page)
            for at in range(SLOTS):
                if slots[at].state == READY:
                    path.slot = slots + at
                    offset[0] = base + at
                    return True
            return False
        span //= CHILDREN
        child = <child_t*>arena_page(core, child.page)
        at = 0
        while at < CHILDREN and (child.page == 0 or child.page == FULL or child.ready == 0):
            child += 1
            at += 1
        if at == CHILDREN:
            return False
        base += at * span
        level -= 1


cdef void slot_lease(group_t* group, path_t* path, uint64_t until_us) noexcept nogil:
    if path.slot.state == READY:
        path_ready(group, path, -1)
    group.nonce += 1
    path.slot.nonce = group.nonce
    path.slot.until_us = until_us
    store8(&path.slot.state, LEASED)
    if path.slot.attempts < 65535:
        path.slot.attempts += 1
    path_waiting(group, path, 1)
    path_due(group, path, until_us)


cdef int lease_find(core_t* core, group_t* group, uint64_t offset, uint32_t nonce, uint64_t now,
                    path_t* path) noexcept nogil:
    """The path to a message that is leased under that number. DONE or STALE."""
    if offset < group.floor or tree_find(core, group, offset, False, path) != DONE or path.slot.state != LEASED \
            or path.slot.nonce != nonce or path.slot.until_us <= now:
        return STALE
    return DONE


cdef int settle(core_t* core, group_t* group, uint64_t offset, uint32_t nonce, uint64_t now, uint8_t state,
                uint64_t until_us) noexcept nogil:
    """What a receipt asks for: CONFIRMED or LEASED (extend). DONE or STALE."""
    cdef path_t path
    if lease_find(core, group, offset, nonce, now, &path) != DONE:
        return STALE
    if state == CONFIRMED:
        slot_confirm(core, group, &path)
        if offset == group.floor:
            floor_advance(core, group)
        if group.order:
            order_done(core, group, offset)
    else:
        path.slot.state = state
        path.slot.until_us = until_us
        path_due(group, &path, until_us)
    return DONE


cdef void confirm_range(core_t* core, group_t* group, uint64_t start, uint64_t count) noexcept nogil:
    """Replay of a confirmation: idempotent, whatever the slots' state is."""
    cdef path_t path
    cdef uint64_t offset
    for offset in range(start, start + count):
        if offset >= group.floor and tree_find(core, group, offset, True, &path) == DONE:
            if path.slot.state != CONFIRMED:
                slot_confirm(core, group, &path)
        # With a filter, what lies between may be unwanted: take judges it again.
        if offset >= group.cursor and group.settings[0] == 0:
            group_skip(core, group, offset)
    floor_advance(core, group)


cdef void unconfirm(core_t* core, group_t* group, uint64_t offset) noexcept nogil:
    """Take back a confirmation that could not be recorded: the message is READY again."""
    cdef path_t path
    cdef uint32_t level
    cdef uint32_t at
    cdef uint32_t page
    cdef child_t* child
    # A FULL subtree on the way is spelled out again, one level a round.
    while full_at(core, group, offset, &level):
        page = arena_take(core)
        if page == 0:
            return
        for at in range(SLOTS if level == 0 else CHILDREN):
            if level == 0:
                (<slot_t*>arena_page(core, page))[at].state = CONFIRMED
            else:
                (<child_t*>arena_page(core, page))[at].page = FULL
        tree_find(core, group, offset, False, &path)
        child = path.child[level]
        child.page = page
        child.done = SLOTS if level == 0 else CHILDREN
        child.ready = 0
        child.waiting = 0
        child.due = NEVER
        if level < group.height:
            path.child[level + 1].done -= 1
    if tree_find(core, group, offset, False, &path) == DONE and path.slot.state == CONFIRMED:
        path.slot.state = READY
        path.child[0].done -= 1
        path_ready(group, &path, 1)
        group.floor = min(group.floor, offset)


cdef void group_skip(core_t* core, group_t* group, uint64_t offset) noexcept nogil:
    """Put the cursor behind offset; what lies between and was never settled is READY."""
    cdef path_t path
    while group.cursor < offset:
        if tree_find(core, group, group.cursor, True, &path) == DONE and path.slot.state == FRESH:
            path.slot.state = READY
            path_ready(group, &path, 1)
        group.cursor += 1
    group.cursor = offset + 1


cdef void group_seek(core_t* core, group_t* group, uint64_t offset) noexcept nogil:
    """Start again at an offset: whatever was leased or confirmed from there on comes again."""
    group.cursor = max(group.cursor, offset)
    group.floor = offset
    group.cursor = offset
    tree_free(core, &group.root, group.height)
    group.height = 0
    if group.order:
        order_clear(core, order_of(core, group))


cdef void lease_drop(core_t* core, child_t* child, uint32_t height) noexcept nogil:
    """After a restart nobody holds a lease: what was leased is READY, delays go on; sums are made anew."""
    cdef uint32_t at
    cdef slot_t* slot
    cdef child_t* below
    child.ready = 0
    child.waiting = 0
    child.due = NEVER
    if child.page == 0 or child.page == FULL:
        child.done = 0
        return
    child.done = 0
    if height == 0:
        slot = <slot_t*>arena_page(core, child.page)
        for at in range(SLOTS):
            if slot[at].state == LEASED:
                slot[at].state = READY
        slots_sum(child, slot)
        return
    below = <child_t*>arena_page(core, child.page)
    for at in range(CHILDREN):
        lease_drop(core, below + at, height - 1)
        child_sum(child, below + at)


cdef inline void slots_sum(child_t* child, const slot_t* slot) noexcept nogil:
    """Add up a leaf's slots in its child entry, whose sums are zero."""
    cdef uint32_t at
    for at in range(SLOTS):
        child.ready += slot[at].state == READY
        child.done += slot[at].state == CONFIRMED
        if slot[at].state == LEASED or slot[at].state == WAITING:
            child.waiting += 1
            child.due = min(child.due, slot[at].until_us)


cdef inline void child_sum(child_t* child, const child_t* below) noexcept nogil:
    """Add the sums of one subtree to those of its node's child entry."""
    child.ready += below.ready
    child.waiting += below.waiting
    child.done += below.page == FULL
    child.due = min(child.due, below.due)
