# How often a message was delivered, and until when it waits: recorded when that decides something. A first delivery
# costs nothing; from the second on a LEASE record says how many there were, and a release with a delay writes a
# RELEASE record. Both are staged beside whatever is committed next and nobody waits for the disk: a crash can take
# back the newest, never the count before it.

cdef struct released_t:
    # What a release did to one message: what its record will say.
    uint32_t group
    uint32_t generation
    release_t what

cdef enum:
    SUSPECTS = 65536            # messages of a group that a crash may have found in flight


cdef round_t* aside_begin(lane_t* lane, uint64_t need, bint claim) noexcept nogil:
    """The lane's filling round with room for a record, under the lane's lock; NULL, not locked, if none."""
    cdef round_t* round
    pthread_mutex_lock(&lane.lock)
    round = lane.filling
    if round.size + need > lane.limit or not round_reserve(round, need):
        pthread_mutex_unlock(&lane.lock)
        return NULL
    round.claims += claim
    return round


cdef void aside_end(core_t* core, lane_t* lane, round_t* round, record_t* record, int type, int kind, uint32_t queue,
                   uint32_t group, uint32_t size) noexcept nogil:
    """Finish a record whose body of size bytes stands behind record; the lane's lock is given back."""
    cdef uint64_t position = round.size
    memset(record, 0, sizeof(record_t))
    record.type = <uint8_t>type
    record.body_size = size
    record.check = xxh3(record + 1, size, core.salt)
    round.size += record_size(record)
    operation_stage(round, NEVER, kind, queue, 0, 0, position).offset = group
    pthread_mutex_unlock(&lane.lock)


cdef void aside_commit(lane_t* lane, round_t* round) noexcept nogil:
    """Get it on its way: by the lane's committer, or, if it has none, by us with one write."""
    if lane.threaded:
        lane_kick(lane)
    else:
        lane_direct(lane, round)
        lane_claimed(lane, round)


cdef void leases_record(core_t* core, lane_t* lane, uint32_t queue, uint32_t group, uint32_t generation,
                      uint64_t suspects, const taken_t* taken, int count) noexcept nogil:
    """Record how often messages were delivered, of those that may have been delivered before."""
    cdef round_t* round
    cdef record_t* record
    cdef confirm_t* head
    cdef range_t* pairs
    cdef int at
    cdef uint32_t again = 0
    for at in range(count):
        again += taken[at].attempts > 1 or taken[at].receipt.offset < suspects
    if again == 0:
        return
    round = aside_begin(lane, sizeof(record_t) + sizeof(confirm_t) + again * <uint64_t>sizeof(range_t),
                       not lane.threaded)
    if round == NULL:
        return
    record = <record_t*>(round.buffer + round.size)
    head = <confirm_t*>(record + 1)
    pairs = <range_t*>(head + 1)
    head.generation = generation
    head.count = 0
    for at in range(count):
        if taken[at].attempts > 1 or taken[at].receipt.offset < suspects:
            pairs[head.count].start = taken[at].receipt.offset
            pairs[head.count].count = taken[at].attempts
            head.count += 1
    aside_end(core, lane, round, record, RECORD_LEASE, KIND_LEASE, queue, group,
             <uint32_t>(sizeof(confirm_t) + again * sizeof(range_t)))
    aside_commit(lane, round)


cdef void releases_record(core_t* core, lane_t* lane, const released_t* released, uint32_t count) noexcept nogil:
    """Record until when messages wait; a run of one group becomes one record."""
    cdef uint32_t at = 0
    cdef uint32_t end
    cdef round_t* round
    cdef record_t* record
    cdef confirm_t* head
    cdef release_t* items
    cdef group_t* group
    while at < count:
        end = at + 1
        while end < count and end - at < CONFIRMED_AT_ONCE and released[end].group == released[at].group \
                and released[end].generation == released[at].generation:
            end += 1
        group = find_group(core, released[at].group)
        round = aside_begin(lane, sizeof(record_t) + sizeof(confirm_t) + (end - at) * <uint64_t>sizeof(release_t),
                           not lane.threaded) if group != NULL else NULL
        if round != NULL:
            record = <record_t*>(round.buffer + round.size)
            head = <confirm_t*>(record + 1)
            items = <release_t*>(head + 1)
            head.generation = released[at].generation
            head.count = end - at
            while at < end:
                items[0] = released[at].what
                items += 1
                at += 1
            aside_end(core, lane, round, record, RECORD_RELEASE, KIND_RELEASE, group.queue, group.id,
                     <uint32_t>(sizeof(confirm_t) + head.count * sizeof(release_t)))
            aside_commit(lane, round)
        at = end


cdef bint slot_replay(core_t* core, group_t* group, uint64_t offset, path_t* path) noexcept nogil:
    """The slot of a message that was delivered, READY if it was nothing yet; False if it is confirmed."""
    # With a filter, what lies between may be unwanted: take judges it again.
    if offset >= group.cursor and group.settings[SETTING_FILTER - 1] == 0:
        group_skip(core, group, offset)
    if offset < group.floor or tree_find(core, group, offset, True, path) != DONE or path.slot.state == CONFIRMED:
        return False
    if path.slot.state == FRESH:
        path.slot.state = READY
        path_ready(group, path, 1)
    return True


cdef void lease_replay(core_t* core, group_t* group, const record_t* record) noexcept nogil:
    """Take over how often messages were delivered."""
    cdef const confirm_t* head = <const confirm_t*>record_body(record)
    cdef const range_t* pairs = <const range_t*>(head + 1)
    cdef path_t path
    cdef uint32_t at
    if head.generation != group.generation:
        return
    for at in range(head.count):
        # A note may come behind that of a later release: only a higher count says that the wait was over.
        if slot_replay(core, group, pairs[at].start, &path) and path.slot.attempts < pairs[at].count:
            path.slot.attempts = <uint16_t>min(pairs[at].count, <uint64_t>65535)
            if path.slot.state == WAITING:
                path_waiting(group, &path, -1)
                path_ready(group, &path, 1)
                path.slot.state = READY


cdef void release_replay(core_t* core, group_t* group, const record_t* record) noexcept nogil:
    """Take over until when messages wait."""
    cdef const confirm_t* head = <const confirm_t*>record_body(record)
    cdef const release_t* items = <const release_t*>(head + 1)
    cdef path_t path
    cdef uint32_t at
    if head.generation != group.generation:
        return
    for at in range(head.count):
        if not slot_replay(core, group, items[at].offset, &path) or path.slot.attempts > items[at].attempts:
            continue
        if path.slot.state == READY:
            path_ready(group, &path, -1)
        if path.slot.state != WAITING:
            path_waiting(group, &path, 1)
        path.slot.state = WAITING
        path.slot.attempts = <uint16_t>min(items[at].attempts, <uint64_t>65535)
        path.slot.until_us = items[at].until_us
        path_due(group, &path, items[at].until_us)
