# What a seek remembers, so that it can be undone: where the group's floor was and what was confirmed above it. It
# stands in the SEEK record itself, and the group's slot has the record's position. Undoing is a seek as well.

cdef enum:
    UNDO_RANGES = 4096          # of confirmed messages that a SEEK record may hold
    UNDO_SPAN = 1 << 18         # offsets above the floor that are looked at

cdef struct seek_t:
    # The body of a SEEK record; then held + kept ranges. Only the first two were there in a short one.
    uint32_t group
    uint32_t generation
    uint64_t floor              # where the group's was before
    uint64_t known              # held has what was confirmed below this; beyond it nobody looked
    uint32_t held               # ranges confirmed above that floor before: what undoing confirms again
    uint32_t kept               # ranges that are confirmed from now on


cdef const seek_t* seek_whole(const record_t* record) noexcept nogil:
    """The body of a SEEK record that says what was before, NULL if it does not."""
    cdef const seek_t* body = <const seek_t*>record_body(record)
    if record.type != RECORD_SEEK or record.body_size < sizeof(seek_t) \
            or record.body_size != sizeof(seek_t) + (<uint64_t>body.held + body.kept) * sizeof(range_t):
        return NULL
    return body


cdef uint64_t confirmed_gather(core_t* core, group_t* group, range_t* out, uint32_t* count) noexcept nogil:
    """The ranges that are confirmed above the floor; returns below what they are all. Under the stripe lock."""
    cdef uint64_t at = group.floor
    cdef uint64_t end = min(group.cursor, at + UNDO_SPAN)
    cdef uint64_t stop
    cdef uint32_t level
    cdef uint64_t span
    cdef child_t* child
    count[0] = 0
    while at < end:
        child = &group.root
        level = group.height
        span = tree_span(level)
        if at >= span:
            return end
        while level and child.page and child.page != FULL:
            span //= CHILDREN
            child = <child_t*>arena_page(core, child.page) + at // span % CHILDREN
            level -= 1
        stop = min(end, (at // span + 1) * span)
        if child.page == FULL:
            if not range_add(out, count, at, stop - at):
                return at
        elif child.page:
            while at < stop:
                if (<slot_t*>arena_page(core, child.page))[at % SLOTS].state == CONFIRMED \
                        and not range_add(out, count, at, 1):
                    return at
                at += 1
        at = stop
    return end


cdef bint range_add(range_t* out, uint32_t* count, uint64_t start, uint64_t size) noexcept nogil:
    """Append to ranges in order; False if there is no room."""
    if count[0] and out[count[0] - 1].start + out[count[0] - 1].count == start:
        out[count[0] - 1].count += size
        return True
    if count[0] == UNDO_RANGES:
        return False
    out[count[0]].start = start
    out[count[0]].count = size
    count[0] += 1
    return True


cdef void seek_apply(core_t* core, group_t* group, const record_t* record) noexcept nogil:
    """Move a group to where a SEEK record says. Under the stripe lock; doing it twice does no harm."""
    cdef const seek_t* body = <const seek_t*>record_body(record)
    cdef const seek_t* whole = seek_whole(record)
    cdef const range_t* ranges
    cdef uint32_t at
    if group.generation >= body.generation:
        return
    group_seek(core, group, record.offset)
    if whole != NULL:
        ranges = <const range_t*>(whole + 1)
        for at in range(whole.held, whole.held + whole.kept):
            confirm_range(core, group, ranges[at].start, min(ranges[at].count, <uint64_t>UNDO_SPAN))
        group.sought = record.position
        if whole.kept and group.order:
            order_of(core, group).stale = 1     # READY now is not the first of its line only
    # Last: whoever finds the store after a death in between does all of it again.
    store32(&group.generation, body.generation)


cdef tuple seek_now(Store store, uint32_t queue, uint32_t group_id):
    """What a SEEK record says of a group: (generation, floor, known, ranges, position of the last SEEK)."""
    cdef core_t* core
    cdef group_t* group
    cdef range_t* ranges = <range_t*>malloc(UNDO_RANGES * sizeof(range_t))
    cdef uint32_t count = 0
    cdef uint64_t known = 0, sought = 0, floor = 0
    cdef uint32_t generation = 0
    cdef bint found
    cdef list listed
    if ranges == NULL:
        raise MemoryError()
    try:
        core = enter(store)
    except StoreClosedError:
        free(ranges)
        raise
    with nogil:
        group = find_group(core, group_id)
        found = group != NULL and group.queue == queue and sight_lock(core, group)
        if found:
            known = confirmed_gather(core, group, ranges, &count)
            generation = group.generation
            floor = group.floor
            sought = group.sought
            stripe_unlock(core, group)
        leave(core)
    if not found:
        free(ranges)
        raise QueueNotFoundError(f"no group {group_id} of queue {queue}")
    listed = [(ranges[at].start, ranges[at].count) for at in range(count)]
    free(ranges)
    return generation, floor, known, listed, sought


cdef bytes seek_body(uint32_t group, tuple now, list kept):
    """The body of a SEEK record; kept: [(first, count), …] of what is confirmed from then on."""
    cdef seek_t head
    cdef list held = now[3]
    head.group = group
    head.generation = <uint32_t>now[0] + 1
    head.floor = now[1]
    head.known = now[2]
    head.held = <uint32_t>len(held)
    head.kept = <uint32_t>len(kept)
    words = np.array(held + kept, np.uint64).tobytes()
    return (<const char*>&head)[:sizeof(seek_t)] + words


cdef tuple seek_before(core_t* core, uint64_t position, uint32_t group):
    """What a SEEK record remembers: (target, floor, known, held ranges). Raises InvalidError if it is gone."""
    cdef uint64_t pin
    cdef const record_t* record
    cdef const seek_t* body = NULL
    cdef const range_t* ranges
    cdef uint32_t at
    cdef uint64_t target, floor, known
    cdef list held
    if position == 0:
        raise InvalidError("there is nothing to undo: the group was not moved")
    pin_take(core, &pin)
    record = record_at(core, position)
    if record != NULL:
        body = seek_whole(record)
    if body == NULL or body.group != group:
        pin_give(core)
        raise InvalidError("what there was before the last rewind is not in the log any more")
    ranges = <const range_t*>(body + 1)
    held = [(ranges[at].start, ranges[at].count) for at in range(body.held)]
    target = record.offset
    floor = body.floor
    known = body.known
    pin_give(core)
    return target, floor, known, held
