# What of sparse segments is still needed, record by record: the first half of compaction.
#
# A record is needed if it is a message that a queue has, if it waits, if a PLACE that is needed leads to it, or if it
# says what a seek can take back. The first two and the last are asked of the record; a PLACE is found only from the
# index, so all of it is walked, in steps and without a lock.
#
# Invariants: 1. What something leads to when the watch begins and still leads to when it ends is found, and what comes
# to lead to a watched segment in between is noted (live_add calls watch_note under the store lock). So nothing that is
# needed when the watch ends, as the copy is published, is missing. 2. A segment whose count says that more is needed
# than was found is left as it is, and so is one with a record or frame that is not whole.

cdef struct keep_t:
    uint64_t position
    uint64_t offset
    uint32_t queue
    uint32_t size
    uint64_t at                 # in the new file

cdef struct origin_segment_t:
    uint64_t number
    uint64_t salt
    uint64_t found              # bytes that are needed, as live.bytes counts
    uint32_t file               # of the cold file it is read from, 0: its own
    uint32_t refused            # 1 not explained, 2 damaged

cdef struct gather_t:
    core_t* core
    origin_segment_t segments[64]
    uint32_t count
    uint32_t current            # being walked
    keep_t* keeps
    uint64_t kept, room
    uint64_t entries            # of the index, looked at
    uint64_t rate               # bytes a second, 0 without limit
    uint64_t checkpoint         # number of the last one when all was decided
    uint64_t size
    uint64_t failed             # errno
    const uint8_t* base         # of the segment that is walked
    cold_place_t place


cdef void watch_note(core_t* core, uint64_t position) noexcept nogil:
    """Something new leads to a record: note it if its segment is being compacted. Under the store lock."""
    cdef control_t* control = core.control
    cdef uint32_t at
    for at in range(min(control.watching, <uint32_t>WATCHED)):
        if control.watched[at] == position >> 32:
            if control.noted < NOTED:
                control.notes_at[control.noted] = position
                control.noted += 1
            else:
                control.noted = NOTED + 1
            return


cdef void watch_begin(gather_t* gather) noexcept nogil:
    cdef control_t* control = gather.core.control
    cdef uint32_t at
    store_lock(gather.core)
    for at in range(gather.count):
        control.watched[at] = gather.segments[at].number
    control.noted = 0
    store32(&control.watching, gather.count)
    pthread_mutex_unlock(&control.store_lock)


cdef bint watch_mark(gather_t* gather) noexcept nogil:
    """All is decided: keep what was noted so far, refuse what is not explained. False if too much was noted."""
    cdef control_t* control = gather.core.control
    cdef uint64_t noted[NOTED]
    cdef origin_segment_t* segment
    cdef live_t* live
    cdef uint32_t at, count
    store_lock(gather.core)
    count = control.noted
    memcpy(noted, control.notes_at, min(count, <uint32_t>NOTED) * sizeof(uint64_t))
    control.noted = 0
    gather.checkpoint = control.state.checkpoints
    for at in range(gather.count):
        segment = gather.segments + at
        live = live_entry(gather.core, segment.number, False)
        if live == NULL or live.bytes > segment.found + noted_bytes(noted, min(count, <uint32_t>NOTED), segment.number,
                                                                   gather.core):
            segment.refused = max(segment.refused, <uint32_t>1)
    pthread_mutex_unlock(&control.store_lock)
    for at in range(min(count, <uint32_t>NOTED)):
        if not keep_add(gather, noted[at]):
            return False
    return count <= NOTED


cdef uint64_t noted_bytes(const uint64_t* noted, uint32_t count, uint64_t number, core_t* core) noexcept nogil:
    """What notes may have added to a segment's count; a note is of one message at most as large as a segment."""
    cdef uint64_t total = 0
    cdef uint64_t pin
    cdef const record_t* record
    cdef uint32_t at
    for at in range(count):
        if noted[at] >> 32 == number:
            pin_take(core, &pin)
            record = record_at(core, noted[at])
            total += message_room(record) if record != NULL else 0
            pin_give(core)
    return total


cdef bint keep_add(gather_t* gather, uint64_t position) noexcept nogil:
    """Remember a position; False if memory is out."""
    cdef uint64_t room = max(2 * gather.room, <uint64_t>4096)
    cdef keep_t* wider
    if gather.kept == gather.room:
        wider = <keep_t*>realloc(gather.keeps, room * sizeof(keep_t))
        if wider == NULL:
            gather.failed = ENOMEM
            return False
        gather.keeps = wider
        gather.room = room
    memset(gather.keeps + gather.kept, 0, sizeof(keep_t))
    gather.keeps[gather.kept].position = position
    gather.kept += 1
    return True


cdef origin_segment_t* gather_segment(gather_t* gather, uint64_t number) noexcept nogil:
    cdef uint32_t at
    for at in range(gather.count):
        if gather.segments[at].number == number:
            return gather.segments + at
    return NULL


cdef uint64_t record_counted(core_t* core, const record_t* record, bint* keep) noexcept nogil:
    """The bytes for which a record's segment is needed by the record itself; keep: whether it must stay."""
    cdef const recipient_t* to
    cdef const pending_t* entry = NULL
    cdef const group_t* group
    cdef uint64_t held = 0
    cdef uint64_t hint
    cdef uint32_t at
    keep[0] = False
    if record.type == RECORD_FANOUT:
        to = record_recipients(record)
        for at in range(record.spare):
            held += offset_held(core, to[at].queue, to[at].offset)
        keep[0] = held != 0
        return held * message_room(record)
    if record.type == RECORD_MESSAGE or record.type == RECORD_PLACE:
        keep[0] = offset_held(core, record.queue, record.offset)
    elif record.type == RECORD_PENDING:
        entry = pending_find(core, record.position)
        keep[0] = entry != NULL and entry.verdict == OPEN
    elif record.type == RECORD_MOVE:
        entry = pending_search(core, record.position, &hint)
        keep[0] = entry != NULL and entry.verdict == OPEN
    elif record.type == RECORD_SEEK and record.body_size >= 8:
        group = find_group(core, (<const uint32_t*>record_body(record))[0])
        keep[0] = group != NULL and group.sought == record.position
        return 0
    return record_size(record) if keep[0] else 0


cdef bint gather_record(gather_t* gather, const record_t* record) noexcept nogil:
    cdef bint keep = False
    gather.segments[gather.current].found += record_counted(gather.core, record, &keep)
    return not keep or keep_add(gather, record.position)


cdef int segment_walk(void* with_) noexcept nogil:
    """Judge all frames and records of a segment, and keep what is needed. WHOLE, or BROKEN."""
    cdef gather_t* gather = <gather_t*>with_
    cdef core_t* core = gather.core
    cdef origin_segment_t* segment = gather.segments + gather.current
    cdef live_t* live = live_entry(core, segment.number, False)
    cdef uint64_t at = SEGMENT_HEADER_SIZE
    cdef uint64_t end
    while live != NULL and at < live.end & ~COLD:
        if frame_judge(core, gather.base, at, segment.number, segment.salt, True) != WHOLE:
            return BROKEN
        end = at + (<const frame_t*>(gather.base + at)).size
        at += sizeof(frame_t)
        while at < end:
            if not gather_record(gather, <const record_t*>(gather.base + at)):
                return ENDS
            at += record_size(<const record_t*>(gather.base + at))
    return WHOLE


cdef int cold_walk(void* with_) noexcept nogil:
    """The same for a segment in a cold file."""
    cdef gather_t* gather = <gather_t*>with_
    cdef const cold_place_t* place = &gather.place
    cdef const cold_row_t* row = <const cold_row_t*>(place.base + place.rows)
    cdef uint64_t at
    for at in range(place.count):
        if row[at].at > place.size or row[at].size > place.size - row[at].at \
                or record_judge(gather.core, place.base + row[at].at, row[at].size, place.number << 32 | row[at].byte,
                                place.salt) != WHOLE:
            return BROKEN
        if not gather_record(gather, <const record_t*>(place.base + row[at].at)):
            return ENDS
    return WHOLE


cdef void gather_walk(gather_t* gather) noexcept nogil:
    """Walk every segment, each under a pin of its own."""
    cdef core_t* core = gather.core
    cdef origin_segment_t* segment
    cdef uint64_t pin, before
    cdef int verdict
    for gather.current in range(gather.count):
        segment = gather.segments + gather.current
        before = gather.kept
        pin_take(core, &pin)
        if segment.file:
            verdict = BROKEN
            if cold_place(core, segment.number, segment.file + 1, &gather.place) \
                    and gather.place.file == segment.file:
                segment.salt = gather.place.salt
                verdict = guarded(cold_walk, gather)
        else:
            gather.base = segment_map(core, segment.number, &segment.salt)
            verdict = guarded(segment_walk, gather) if gather.base != NULL else BROKEN
        pin_give(core)
        if verdict != WHOLE:
            segment.refused = 2 if verdict == BROKEN or verdict == -1 else 1
            gather.kept = before
        if gather.failed or load32(&core.closing):
            return


cdef bint gather_explained(gather_t* gather) noexcept nogil:
    """Whether the records alone account for what is needed, so that no PLACE need be looked for."""
    cdef uint32_t at
    cdef live_t* live
    for at in range(gather.count):
        live = live_entry(gather.core, gather.segments[at].number, False)
        if live != NULL and not gather.segments[at].refused and load64(&live.bytes) > gather.segments[at].found:
            return False
    return True


cdef void gather_places(gather_t* gather) noexcept nogil:
    """Walk the index for messages that a PLACE put where they are, and keep what it leads to."""
    cdef core_t* core = gather.core
    cdef state_t* state = &core.control.state
    cdef uint32_t slot
    cdef queue_t* queue
    cdef uint64_t offset, end, stop, pin
    for slot in range(state.queue_slots):
        queue = queue_slot(core, slot)
        offset = load64(&queue.reclaimed)
        end = load64(&queue.next) if queue.tree else 0
        while offset < end and not load32(&core.closing) and not gather.failed:
            stop = min(end, offset + STEP)
            pin_take(core, &pin)
            while offset < stop:
                gather_entry(gather, index_leaf(core, queue, offset) + offset % LEAF)
                offset += 1
            pin_give(core)
            gather.entries += STEP
            rate_pause(gather, STEP * sizeof(entry_t))
            # What was given up meanwhile may have had its pages used again.
            offset = max(offset, load64(&queue.reclaimed))


cdef void gather_entry(gather_t* gather, const entry_t* entry) noexcept nogil:
    cdef const record_t* record
    cdef origin_segment_t* segment
    cdef uint64_t position
    cdef uint32_t at
    if entry.spare != PLACED or entry.position == 0:
        return
    record = record_at(gather.core, entry.position)
    if record == NULL or record.type != RECORD_PLACE or record.body_size < 8:
        # Where it leads is not known: not behind itself.
        for at in range(gather.count):
            if gather.segments[at].number <= entry.position >> 32:
                gather.segments[at].refused = max(gather.segments[at].refused, <uint32_t>1)
        return
    position = (<const uint64_t*>record_body(record))[0]
    segment = gather_segment(gather, position >> 32)
    if segment != NULL:
        segment.found += entry.size
        keep_add(gather, position)


cdef void rate_pause(gather_t* gather, uint64_t done) noexcept nogil:
    """Sleep as long as so many bytes may take."""
    if gather.rate and not load32(&gather.core.closing):
        futex_wait(&gather.core.closing, 0, done * 1000000 // gather.rate + 1)
