# Consuming by offset: who needs no leases says up to where a group is done. An ADVANCE record confirms all that lies
# before an offset, whatever became of it; a group is never moved back by it. The floor is the stored offset, so lag,
# retention and explain are true for such a group as for any other.

cdef struct advance_t:
    # The body of an ADVANCE record; the group's id stands in the record's offset.
    uint32_t generation         # of the group: a SEEK ends what was recorded before it
    uint32_t zero
    uint64_t before


cdef void tree_confirm(core_t* core, child_t* child, uint32_t height, uint64_t base, uint64_t before) noexcept nogil:
    """Confirm every slot before an offset; sums are made anew afterwards."""
    cdef uint64_t span = tree_span(height)
    cdef uint32_t at
    if base >= before or child.page == FULL:
        return
    if base + span <= before:
        tree_free(core, child, height)
        child.page = FULL
        return
    if child.page == 0:
        return                  # made later, by the floor
    span //= CHILDREN if height else SLOTS
    for at in range(CHILDREN if height else SLOTS):
        if height:
            tree_confirm(core, <child_t*>arena_page(core, child.page) + at, height - 1, base + at * span, before)
        elif base + at < before:
            (<slot_t*>arena_page(core, child.page))[at].state = CONFIRMED


cdef void advance_apply(core_t* core, const record_t* record) noexcept nogil:
    """Apply an ADVANCE record; twice does no harm."""
    cdef const advance_t* body = <const advance_t*>record_body(record)
    cdef group_t* group = find_group(core, <uint32_t>record.offset)
    if group == NULL or record.body_size != sizeof(advance_t):
        return
    stripe_lock(core, group)
    if group.generation == body.generation and body.before > group.floor:
        # Behind the cursor of a group with a filter there may be confirmations, too: replay does not move it.
        tree_confirm(core, &group.root, group.height, 0, body.before)
        group.cursor = max(group.cursor, body.before)
        group.floor = body.before
        sums_mend(core, &group.root, group.height)
        floor_advance(core, group)
        if group.order:
            order_of(core, group).stale = 1
    stripe_unlock(core, group)


cdef void advance_prepare(core_t* core, operation_t* operation, record_t* record) noexcept nogil:
    """Say in the record which life of the group it is for; BUSY while that is about to end."""
    cdef advance_t* body = <advance_t*>record_body(record)
    cdef group_t* group = find_group(core, <uint32_t>operation.offset)
    cdef queue_t* queue = find_queue(core, operation.queue)
    if group == NULL or queue == NULL or group.queue != operation.queue:
        operation.verdict = NOT_FOUND
    elif body.before > queue.next:
        operation.verdict = TOO_LARGE
    elif group.frozen:
        operation.verdict = BUSY
    else:
        body.generation = group.generation
        # The body was hashed when it was staged.
        record.check = xxh3(body, sizeof(advance_t), core.salt)
    if operation.verdict != DONE:
        record.type = RECORD_SKIP


cdef uint64_t advance(Consumer consumer, uint64_t before) except? 0xFFFFFFFFFFFFFFFF:
    """Commit an ADVANCE record durably, unless the group is there already; where its floor is then."""
    cdef core_t* core
    cdef group_t* group
    cdef advance_t body
    memset(&body, 0, sizeof(body))
    body.before = before
    packed = (<const char*>&body)[:sizeof(advance_t)]
    verdict = BUSY
    while verdict == BUSY:
        core = live(consumer.queue.store)
        group = find_group(core, consumer.id)
        if group == NULL:
            raise QueueNotFoundError(f"group {consumer.name!r} of queue {consumer.queue.name!r} was deleted")
        if load64(&group.floor) >= before:
            return load64(&group.floor)
        verdict, _, _ = consumer.queue.store._operate(KIND_ADVANCE, consumer.queue.id, consumer.id, RECORD_ADVANCE,
                                                      packed)
    if verdict == TOO_LARGE:
        raise InvalidError(f"offset {before} lies beyond the end of queue {consumer.queue.name!r}")
    raise_verdict(verdict, f"group {consumer.name!r} of queue {consumer.queue.name!r}")
    group = find_group(live(consumer.queue.store), consumer.id)
    return load64(&group.floor) if group != NULL else before
