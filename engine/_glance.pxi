# Taking one message without giving up the interpreter's lock. With many threads that costs less than to give it up and
# to wait for it: so it is done where nothing has to be waited for, and everything else is left to delivery_take.

cdef enum:
    WARM_BYTES = 1 << 28        # what was written last is in memory; older messages may have to come from the disk


cdef inline bint is_warm(core_t* core, uint64_t position) noexcept nogil:
    return ((load64(&core.control.written) >> 32) - (position >> 32)) * core.segment_size <= WARM_BYTES


cdef int delivery_glance(core_t* core, uint32_t queue_id, uint32_t group_id, uint32_t lease_ms, taken_t* out,
                         uint64_t* pin) noexcept nogil:
    """Lease the next message of a queue if it is plain to see: 1, or 0."""
    cdef queue_t* queue = find_queue(core, queue_id)
    cdef group_t* group
    cdef int found = 0
    cdef int got
    if queue == NULL or load32(&core.control.poisoned):
        return 0
    group = find_group(core, group_id if group_id else queue.group)
    if group == NULL or group.queue != queue_id:
        return 0
    group_id = group.id
    pin_take(core, pin)
    got = mutex_try(&core.control.stripes[stripe_of(core, group)])
    if got > 0:
        stripe_mend(core, stripe_of(core, group))
    if got >= 0:
        if group.id == group_id:
            found = group_glance(core, queue, group, lease_ms * <uint64_t>1000, out)
        stripe_unlock(core, group)
    if found == 0:
        pin_give(core)
    return found


cdef int group_glance(core_t* core, queue_t* queue, group_t* group, uint64_t lease_us, taken_t* out) noexcept nogil:
    """The same, under the stripe lock."""
    cdef uint64_t now = store_clock(core)
    cdef uint64_t offset = group.cursor
    cdef uint64_t room = 0
    cdef path_t path
    cdef filter_t filter
    cdef const entry_t* entry
    # Whatever comes again, is filtered or in order, or has to be recorded or made room for, is not plain.
    if offset >= visible_end(core, queue) or group.floor < load64(&queue.first) or group.order or group.frozen \
            or offset < group.suspects or group.root.ready or group.root.due <= now:
        return 0
    entry = index_leaf(core, queue, offset) + offset % LEAF
    if entry.size > COPIED_AT_ONCE or not is_warm(core, entry.position) \
            or filter_of(core, group, &filter) or tree_find(core, group, offset, False, &path) != DONE \
            or path.slot.state != FRESH or path.slot.attempts:
        return 0
    group.cursor += 1
    if not message_find(core, queue, offset, out, 0, NEVER, &room):
        slot_lease(group, &path, now + <uint64_t>DAMAGED_US)
        return 0
    slot_lease(group, &path, now + lease_us)
    taken_sign(core, group, &path, offset, out)
    return 1
