# What a record does to the state: the same for a live commit and for replay, so that the state of a store is a fold
# over the accepted frames of its log. Under the store lock.

cdef struct confirm_t:
    uint32_t generation
    uint32_t count

cdef struct range_t:
    uint64_t start
    uint64_t count

cdef struct release_t:
    uint64_t offset
    uint64_t until_us
    uint64_t attempts


cdef inline uint64_t message_append(core_t* core, queue_t* queue, const record_t* record,
                                    const record_t* body) noexcept nogil:
    """Give the message its place in the index.

    body: the record a PLACE leads to, where the caller has judged it already (and holds a pin).
    Returns the bytes of its record, which the caller counts as needed (live_add).
    """
    cdef uint64_t pin
    cdef const record_t* message = record
    cdef entry_t* entry
    if record.type == RECORD_PLACE:
        pin_take(core, &pin)
        message = body if body != NULL else message_of(core, record)
    entry = entry_next(core, queue, record, <uint32_t>message_room(message if message != NULL else record))
    entry.tag = attribute_hash(message, ATTRIBUTE_TAG) if message != NULL else 0
    entry.key = attribute_hash(message, ATTRIBUTE_KEY) if message != NULL else 0
    entry.spare = 0
    if record.type == RECORD_PLACE:
        if message != NULL:
            live_add(core, message.position, entry.size)
            entry.spare = PLACED
        pin_give(core)
    store64(&queue.next, queue.next + 1)
    return record_size(record)


cdef inline entry_t* entry_next(core_t* core, queue_t* queue, const record_t* record, uint32_t size) noexcept nogil:
    """Begin the entry of the queue's next message; readers see it once next has grown and its frame is durable."""
    cdef entry_t* entry = index_append(core, queue)
    entry.position = record.position
    entry.stored_us = record.stored_us
    entry.size = size
    queue.last_us = record.stored_us
    queue.bytes += size
    return entry


cdef uint32_t queue_id_next(core_t* core) noexcept nogil:
    """The id a new queue will have, 0 when there are too many or the disk is full."""
    cdef state_t* state = &core.control.state
    cdef uint32_t slot
    if state.queue_free:
        slot = <uint32_t>state.queue_free - 1
        return (((queue_slot(core, slot).generation + 1) & 0x7FFF) << QUEUE_BITS) | slot
    slot = <uint32_t>state.queue_slots
    if slot == 0:
        slot = 1                # id 0 means none
    if slot >= QUEUES or reach(core, 0, QUEUES_AT + (slot + 1) * <uint64_t>256):
        return 0
    return slot


cdef void queue_apply(core_t* core, uint32_t id, const char* name, uint32_t size, uint64_t now,
                      uint64_t position) noexcept nogil:
    cdef state_t* state = &core.control.state
    cdef uint32_t slot = id & (QUEUES - 1)
    cdef queue_t* queue = queue_slot(core, slot)
    cdef uint32_t bucket
    if name_find(core, 0, name, size, &bucket):
        return
    reach(core, 0, QUEUES_AT + (slot + 1) * <uint64_t>256)
    queue_slot_take(core, slot)
    memset(queue, 0, sizeof(queue_t))
    queue.generation = id >> QUEUE_BITS
    queue.defined = position
    queue.created_us = now
    queue.name_size = size
    memcpy(queue.name, name, size)
    if state.queue_slots <= slot:
        store64(&state.queue_slots, slot + 1)
    state.queue_live += 1
    store32(&queue.id, id)
    name_put(core, 0, name, size, slot + 1)


cdef uint32_t group_id_next(core_t* core) noexcept nogil:
    cdef state_t* state = &core.control.state
    cdef uint32_t slot = <uint32_t>state.group_slots
    if state.group_free:
        slot = <uint32_t>state.group_free - 1
        return (((group_slot(core, slot).slot_generation + 1) & 0x3FFF) << GROUP_BITS) | slot
    if slot == 0:
        slot = 1
    if slot >= GROUPS or reach(core, 1, GROUPS_AT + (slot + 1) * <uint64_t>256):
        return 0
    return slot


cdef void group_apply(core_t* core, uint32_t id, uint32_t queue_id, uint64_t start, const char* name, uint32_t size,
                      uint64_t position) noexcept nogil:
    cdef state_t* state = &core.control.state
    cdef uint32_t slot = id & (GROUPS - 1)
    cdef group_t* group = group_slot(core, slot)
    cdef queue_t* queue = find_queue(core, queue_id)
    cdef uint32_t bucket
    if queue == NULL or name_find(core, queue_id, name, size, &bucket):
        return
    reach(core, 1, GROUPS_AT + (slot + 1) * <uint64_t>256)
    if state.group_free == slot + 1:
        state.group_free = group.queue
    memset(group, 0, sizeof(group_t))
    group.slot_generation = id >> GROUP_BITS
    group.queue = queue_id
    group.defined = position
    group.floor = start
    group.cursor = start
    group.root.due = NEVER
    group.name_size = size
    memcpy(group.name, name, size)
    if state.group_slots <= slot:
        store64(&state.group_slots, slot + 1)
    state.group_live += 1
    store32(&group.id, id)
    name_put(core, queue_id, name, size, (slot + 1) | OF_GROUP)
    if size == 0:
        queue.group = id


cdef void names_forget(core_t* core, uint32_t held, uint32_t queue, const char* name, uint32_t size) noexcept nogil:
    cdef uint32_t at = name_bucket(core, queue, name, size)
    while core.names[at]:
        if core.names[at] == held:
            store32(&core.names[at], GONE)
            return
        at = (at + 1) & (NAME_BUCKETS - 1)


cdef void queue_delete_apply(core_t* core, uint32_t id) noexcept nogil:
    """Forget a queue and its groups; its messages are given up in steps, and then its slot is free."""
    cdef state_t* state = &core.control.state
    cdef queue_t* queue = find_queue(core, id)
    cdef uint32_t slot
    cdef group_t* group
    if queue == NULL:
        return
    for slot in range(state.group_slots):
        group = group_slot(core, slot)
        if group.id and group.queue == id:
            group_forget(core, group)
    slot = id & (QUEUES - 1)
    names_forget(core, slot + 1, 0, queue.name, queue.name_size)
    queue_dying(core, slot)
    store32(&queue.id, 0)
    state.queue_live -= 1


cdef void group_forget(core_t* core, group_t* group) noexcept nogil:
    """Remove a group and its state."""
    cdef pthread_mutex_t* held = stripe(core, group.id)
    cdef queue_t* queue = find_queue(core, group.queue)
    cdef uint32_t at
    names_forget(core, ((group.id & (GROUPS - 1)) + 1) | OF_GROUP, group.queue, group.name, group.name_size)
    if queue != NULL and queue.group == group.id:
        queue.group = 0
    stripe_lock(core, group)
    tree_free(core, &group.root, group.height)
    settings_free(core, group)
    at = group.id & (GROUPS - 1)
    store32(&group.id, 0)
    pthread_mutex_unlock(held)
    group.queue = <uint32_t>core.control.state.group_free
    core.control.state.group_free = at + 1
    core.control.state.group_live -= 1


cdef void apply_control(core_t* core, const record_t* record) noexcept nogil:
    """Apply a record that is not a message; doing it twice does no harm."""
    cdef const uint8_t* body = record_body(record)
    cdef group_t* group
    cdef queue_t* queue
    if record.type == RECORD_QUEUE:
        queue_apply(core, record.queue, <const char*>body, record.body_size, record.stored_us, record.position)
    elif record.type == RECORD_GROUP:
        group_apply(core, <uint32_t>record.offset, record.queue, (<const uint64_t*>body)[0],
                    <const char*>body + 8, record.body_size - 8, record.position)
    elif record.type == RECORD_QUEUE_DELETE:
        queue_delete_apply(core, record.queue)
    elif record.type == RECORD_TRIM:
        queue = find_queue(core, record.queue)
        if queue != NULL:
            trim_apply(core, queue, record)
    elif record.type == RECORD_QUEUE_SETTINGS:
        queue_settings_apply(core, record)
    elif record.type == RECORD_NOTE:
        note_apply(core, record)
    elif record.type == RECORD_PLACE:
        transfer_apply(core, record)
    elif record.type == RECORD_SEEK:
        group = find_group(core, (<const uint32_t*>body)[0])
        if group != NULL:
            stripe_lock(core, group)
            group.frozen = 0
            seek_apply(core, group, record)
            stripe_unlock(core, group)
    elif record.type == RECORD_GROUP_SETTINGS:
        settings_apply(core, record)
    elif record.type == RECORD_CANCEL:
        pending_settled(core, (<const uint64_t*>body)[0], record.position, DROPPED)
    elif record.type == RECORD_ADVANCE:
        advance_apply(core, record)
    elif record.type == RECORD_GROUP_DELETE:
        group = find_group(core, <uint32_t>record.offset)
        if group != NULL:
            group_forget(core, group)


cdef void apply_replay(core_t* core, const record_t* record) noexcept nogil:
    """Apply any record during recovery, alone in the store."""
    cdef queue_t* queue
    cdef group_t* group
    cdef const confirm_t* confirm
    cdef const range_t* ranges
    cdef uint64_t live
    cdef uint32_t at
    if record.type == RECORD_MESSAGE or record.type == RECORD_PLACE:
        queue = find_queue(core, record.queue)
        if queue != NULL and place_free(core, queue, record.offset):
            live_add(core, record.position, dedup_append(core, queue, record, NULL))
        if record.type == RECORD_PLACE:
            pending_settled(core, (<const uint64_t*>record_body(record))[0], record.position, QUEUED)
            transfer_apply(core, record)
        producer_note(core, record)
    elif record.type == RECORD_PENDING or record.type == RECORD_MOVE:
        pending_replay(core, record)
        producer_note(core, record)
    elif record.type == RECORD_SKIP:
        producer_note(core, record)
    elif record.type == RECORD_FANOUT:
        live = fanout_append(core, record, True)
        if live:
            live_add(core, record.position, live)
        producer_note(core, record)
    elif record.type == RECORD_CONFIRM:
        confirm = <const confirm_t*>record_body(record)
        ranges = <const range_t*>(record_body(record) + sizeof(confirm_t))
        group = find_group(core, <uint32_t>record.offset)
        if group != NULL and group.generation == confirm.generation:
            for at in range(confirm.count):
                confirm_range(core, group, ranges[at].start, ranges[at].count)
    elif record.type == RECORD_LEASE:
        group = find_group(core, <uint32_t>record.offset)
        if group != NULL:
            lease_replay(core, group, record)
    elif record.type == RECORD_RELEASE:
        group = find_group(core, <uint32_t>record.offset)
        if group != NULL:
            release_replay(core, group, record)
    elif record.type == RECORD_GROUP_SETTINGS:
        group = find_group(core, record.spare)
        if group != NULL and names_filter(record):
            filter_catch_up(core, group, record.offset)
        apply_control(core, record)
    else:
        apply_control(core, record)


cdef bint place_free(core_t* core, queue_t* queue, uint64_t offset) noexcept nogil:
    """During replay: make the queue ready for the entry of an offset; False if it has it, or the disk is full."""
    if offset < queue.next:
        return False
    # Offsets are missing only where a damaged frame was left out on request.
    while queue.next < offset and index_reserve(core, 8) == 0:
        lost_append(core, queue)
    if index_reserve(core, 8):
        core.control.full = 1
        return False
    return True


cdef void lost_append(core_t* core, queue_t* queue) noexcept nogil:
    cdef entry_t* entry = index_append(core, queue)
    memset(entry, 0, sizeof(entry_t))
    entry.stored_us = queue.last_us
    store64(&queue.next, queue.next + 1)


cdef void state_undo(core_t* core) noexcept nogil:
    """A process died holding the store lock: take back what it assigned but did not publish, or finish what it did."""
    cdef control_t* control = core.control
    cdef uint64_t written = load64(&control.written)
    cdef uint32_t slot
    cdef queue_t* queue
    cdef group_t* group
    cdef entry_t* leaf
    cdef uint64_t salt = 0
    journal_undo(core)
    control.cold += control.cold_naming
    control.cold_naming = 0
    control.epoch += 1
    if written == control.coming_position:
        control.sequence = control.coming_sequence
    # A roll that was cut off: the header of the segment written to says which salt counts.
    if control.segment != written >> 32:
        written = control.segment << 32 | SEGMENT_HEADER_SIZE
        store64(&control.written, written)
    if segment_map(core, control.segment, &salt) != NULL:
        control.salt = salt
    for slot in range(control.state.group_slots):
        group = group_slot(core, slot)
        group.frozen = 0
        if group.id and group.defined >= written:
            group_forget(core, group)
    for slot in range(control.state.queue_slots):
        queue = queue_slot(core, slot)
        if queue.id == 0:
            continue
        if queue.defined >= written:
            queue_delete_apply(core, queue.id)
            continue
        # What was purged is on disk, and its pages may be another queue's by now.
        while queue.next > queue.first:
            leaf = index_leaf(core, queue, queue.next - 1)
            if leaf[(queue.next - 1) % LEAF].position < written:
                if leaf != no_leaf:
                    queue.leaf = index_leaf_page(core, queue, queue.next - 1)
                break
            queue.bytes -= min(queue.bytes, <uint64_t>leaf[(queue.next - 1) % LEAF].size)
            store64(&queue.next, queue.next - 1)
        dedup_undo(core, queue)
    pending_settle(core, written)
    for slot in range(PRODUCERS if control.state.producer_slots else 0):
        producer_undo(core, producer_slot(core, slot), written)
    if control.inside == 2:
        frame_apply(core, control.last_frame)
    notes_mend(core)
    control.inside = 0


cdef void frame_apply(core_t* core, uint64_t position) noexcept nogil:
    """Apply the control records and the sequence numbers of a written frame."""
    cdef uint64_t salt, at, end
    cdef const uint8_t* base = segment_map(core, position >> 32, &salt)
    cdef const record_t* record
    if base == NULL:
        return
    at = position & BYTE
    end = at + (<const frame_t*>(base + at)).size
    at += sizeof(frame_t)
    while at < end:
        record = <const record_t*>(base + at)
        if record.type in (RECORD_MESSAGE, RECORD_PENDING, RECORD_FANOUT, RECORD_SKIP):
            producer_note(core, record)
        else:
            apply_control(core, record)
        at += record_size(record)
