# The groups' locks, and what is left by a holder who dies inside. State is changed in place, so a death can come
# between any two stores; whoever takes the lock next is told, and makes each group of that stripe whole first.
#
# Invariants that this rests on: a slot gets its state after all else that the state speaks of; a tree that is made
# higher says so in the store that makes it (WIDENED). Sums, lines and the floor are derived, and made anew.


cdef inline uint32_t stripe_of(core_t* core, const group_t* group) noexcept nogil:
    """The stripe by the slot, which stays when the group is removed while somebody waits for it or holds it."""
    return <uint32_t>((<const uint8_t*>group - (core.base + GROUPS_AT)) // 256 % STRIPES)


cdef void stripe_lock(core_t* core, group_t* group) noexcept nogil:
    """Take the group's lock; if its last holder died inside, mend every group it guards."""
    stripe_take(core, stripe_of(core, group))


cdef void stripe_take(core_t* core, uint32_t at) noexcept nogil:
    if mutex_lock(&core.control.stripes[at]):
        stripe_mend(core, at)


cdef void stripe_mend(core_t* core, uint32_t at) noexcept nogil:
    """Mend every group that a lock guards whose holder died."""
    cdef uint32_t slot
    cdef group_t* other
    for slot in range(core.control.state.group_slots):
        other = group_slot(core, slot)
        if other.id and other.id % STRIPES == at:
            group_mend(core, other)


cdef void stripe_unlock(core_t* core, group_t* group) noexcept nogil:
    pthread_mutex_unlock(&core.control.stripes[stripe_of(core, group)])


cdef void group_mend(core_t* core, group_t* group) noexcept nogil:
    """Make whole what a holder left who died between any two stores."""
    if group.root.done & WIDENED:
        group.height = (group.root.done & ~WIDENED) >> WIDENED_BITS
    group.cursor = max(group.cursor, group.floor)
    taken_mend(core, group, &group.root, group.height, 0)
    sums_mend(core, &group.root, group.height)
    if group.order:
        order_rebuild(core, group)
    floor_advance(core, group)


cdef void sums_mend(core_t* core, child_t* child, uint32_t height) noexcept nogil:
    """Make the sums anew from the slots: a holder of the stripe died in the middle of a change."""
    cdef uint32_t at
    cdef slot_t* slot
    cdef child_t* below
    child.ready = 0
    child.waiting = 0
    child.due = NEVER
    if child.page == 0 or child.page == FULL:
        return
    child.done = 0
    if height == 0:
        slot = <slot_t*>arena_page(core, child.page)
        slots_sum(child, slot)
        return
    below = <child_t*>arena_page(core, child.page)
    for at in range(CHILDREN):
        sums_mend(core, below + at, height - 1)
        child_sum(child, below + at)


cdef void taken_mend(core_t* core, const group_t* group, child_t* child, uint32_t height, uint64_t base) noexcept nogil:
    """What the cursor has passed and nobody took is READY: a holder of the stripe died on the way."""
    cdef uint64_t span = tree_span(height) // (CHILDREN if height else SLOTS)
    cdef uint64_t offset
    cdef uint32_t at
    cdef slot_t* slot
    if child.page == 0 or child.page == FULL:
        return
    for at in range(CHILDREN if height else SLOTS):
        offset = base + at * span
        if offset >= group.cursor or offset + span <= group.floor:
            continue
        if height:
            taken_mend(core, group, <child_t*>arena_page(core, child.page) + at, height - 1, offset)
            continue
        slot = <slot_t*>arena_page(core, child.page) + at
        if slot.state == FRESH:
            slot.state = READY
