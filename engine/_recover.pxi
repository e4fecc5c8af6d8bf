# Checkpoint and replay. The steps of recovery, as in docs/architecture.md: 1 the newest checkpoint that is whole;
# 2 the state out of it; 3 replay of the frames after it; 4 where they end, a torn tail told from corruption;
# 5 leases dropped, sums made anew; 6 a new segment, so that nothing behind the end can ever come back.

cdef enum Ending:
    TAIL = 0                    # the log ends here, as a crash leaves it
    DAMAGED = 1                 # frames that were promised are not whole

cdef enum:
    INDEX_PIECE = 1 << 19       # bytes of the index written back before the next


cdef uint64_t image_size(core_t* core) noexcept nogil:
    cdef state_t* state = &core.control.state
    return (sizeof(state_t) + state.queue_slots * 256 + state.group_slots * 256
            + (PRODUCERS * <uint64_t>64 if state.producer_slots else 0) + state.arena_pages * PAGE)


cdef bint image_fits(const state_t* state, uint64_t size) noexcept nogil:
    """Whether an image has the parts that its head says."""
    return (state.queue_slots <= QUEUES and state.group_slots <= GROUPS and state.arena_pages < CONTROL_ROOM // PAGE
            and size == sizeof(state_t) + state.queue_slots * 256 + state.group_slots * 256
            + (PRODUCERS * <uint64_t>64 if state.producer_slots else 0) + state.arena_pages * PAGE)


cdef void image_copy(core_t* core, uint8_t* image, bint out) noexcept nogil:
    """Copy the state to an image, or (out False) an image to the state."""
    cdef state_t* state = &core.control.state
    cdef uint64_t sizes[5]
    cdef uint8_t* parts[5]
    cdef int at
    parts[0] = <uint8_t*>state
    sizes[0] = sizeof(state_t)
    for at in range(5):
        if at == 1:
            parts[1] = core.base + QUEUES_AT
            sizes[1] = state.queue_slots * 256
            parts[2] = core.base + GROUPS_AT
            sizes[2] = state.group_slots * 256
            parts[3] = core.base + PRODUCERS_AT
            sizes[3] = PRODUCERS * <uint64_t>64 if state.producer_slots else 0
            parts[4] = core.arena + PAGE
            sizes[4] = state.arena_pages * PAGE
            if not out:
                reach(core, 0, QUEUES_AT + sizes[1])
                reach(core, 1, GROUPS_AT + sizes[2])
                reach(core, 3, ARENA_AT + PAGE + sizes[4])
        if out:
            memcpy(image, parts[at], sizes[at])
        else:
            memcpy(parts[at], image, sizes[at])
        image += sizes[at]


cdef uint8_t* snapshot(core_t* core, checkpoint_t* head) noexcept nogil:
    """A consistent copy of the state, malloc'd; NULL when memory is out. Every lock is held for one copy."""
    cdef control_t* control = core.control
    cdef uint32_t at
    cdef uint8_t* image
    store_lock(core)
    for at in range(STRIPES):
        stripe_take(core, at)
    mutex_lock(&control.arena_lock)
    control.state.checkpoints += 1
    head.size = image_size(core)
    head.position = control.written
    head.sequence = control.sequence
    head.epoch = control.epoch
    head.last_us = control.last_us
    image = <uint8_t*>malloc(head.size)
    if image != NULL:
        image_copy(core, image, True)
    pthread_mutex_unlock(&control.arena_lock)
    for at in range(STRIPES):
        pthread_mutex_unlock(&control.stripes[at])
    pthread_mutex_unlock(&control.store_lock)
    return image


cdef int index_sync(core_t* core) noexcept nogil:
    """Put the index on disk. 0 or errno: what was not written then no later sync tells of.

    In pieces, because it is megabytes all over the file, and a commit meanwhile waits for one of them.
    """
    cdef uint64_t at = 0
    cdef int failed = 0
    while failed == 0 and at < core.control.index_allocated:
        failed = faulty(core, 6) or write_back(core.index_fd, <int64_t>at, INDEX_PIECE)
        at += INDEX_PIECE
    if failed == 0 and fdatasync(core.index_fd):
        failed = errno
    return failed


cdef int checkpoint_write(core_t* core, bint clean) noexcept nogil:
    """Save the state so that recovery starts from here. 0 or errno; a failure leaves the older checkpoints."""
    cdef checkpoint_t head
    cdef uint8_t* image
    cdef char fresh[4096]
    cdef char final[4096]
    cdef int fd
    cdef int failed = 0
    memset(&head, 0, sizeof(head))
    image = snapshot(core, &head)
    if image == NULL:
        return ENOSPC
    head.magic = CHECKPOINT_MAGIC
    head.version = FORMAT_VERSION
    head.clean = clean
    memcpy(head.store, core.id, 16)
    head.body_check = xxh3(image, head.size, core.salt)
    head.check = xxh3(&head, sizeof(head) - 8, core.salt)
    # What the checkpoint says must be on disk before it: the log up to its position, and the index.
    if core.control.no_checkpoint or make_durable(core, head.position) != DONE:
        failed = EIO
    elif index_sync(core):
        core.control.no_checkpoint = 1
        failed = EIO
    snprintf(fresh, 4096, b"%s/ckpt/new", core.path)
    snprintf(final, 4096, b"%s/ckpt/%016llx", core.path, <unsigned long long>head.position)
    if failed == 0:
        fd = c_open(fresh, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        if fd < 0:
            failed = errno
        else:
            failed = write_all(fd, &head, sizeof(head), 0)
            if failed == 0:
                failed = write_all(fd, image, head.size, sizeof(head))
            if failed == 0 and fsync(fd):
                failed = errno
            c_close(fd)
            if failed == 0 and rename(fresh, final):
                failed = errno
            if failed == 0 and directory_sync(core.path):
                failed = errno
    free(image)
    if failed == 0:
        store64(&core.control.checkpoint, head.position)
    return failed


cdef extern from *:
    """
    static inline int directory_sync(const char *path) {
        char name[4096];
        snprintf(name, sizeof name, "%s/ckpt", path);
        int fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0) return -1;
        int failed = fsync(fd);
        close(fd);
        return failed;
    }
    """
    int directory_sync(const char*) nogil


cdef bint checkpoint_load(core_t* core, const uint8_t* bytes, uint64_t size, checkpoint_t* head) noexcept nogil:
    """Put a checkpoint file's state in place; False if it is not whole or not ours."""
    cdef uint32_t slot
    cdef queue_t* queue
    cdef group_t* group
    if size < sizeof(checkpoint_t):
        return False
    memcpy(head, bytes, sizeof(checkpoint_t))
    if head.magic != CHECKPOINT_MAGIC or head.version != FORMAT_VERSION or memcmp(head.store, core.id, 16) \
            or head.check != xxh3(head, sizeof(checkpoint_t) - 8, core.salt) \
            or head.size != size - sizeof(checkpoint_t) \
            or head.body_check != xxh3(bytes + sizeof(checkpoint_t), head.size, core.salt):
        return False
    if head.size < sizeof(state_t) or not image_fits(<const state_t*>(bytes + sizeof(checkpoint_t)), head.size):
        return False
    image_copy(core, <uint8_t*>bytes + sizeof(checkpoint_t), False)
    for slot in range(core.control.state.queue_slots):
        queue = queue_slot(core, slot)
        if queue.id:
            name_put(core, 0, queue.name, queue.name_size, slot + 1)
    for slot in range(core.control.state.group_slots):
        group = group_slot(core, slot)
        if group.id:
            name_put(core, group.queue, group.name, group.name_size, (slot + 1) | OF_GROUP)
    # Of what is pending, verdicts that were given later may have reached the disk before this.
    pending_settle(core, head.position)
    core.control.sequence = head.sequence
    core.control.epoch = head.epoch
    core.control.last_us = head.last_us
    return True


cdef uint64_t frames_replay(core_t* core, uint64_t position, uint64_t* promised) noexcept nogil:
    """Apply the whole frames from position on, over segment borders; returns where they end.

    promised: raised to the highest durable mark that any of them states.
    """
    cdef uint64_t number = position >> 32
    cdef uint64_t at = position & BYTE
    cdef uint64_t salt, end
    cdef const uint8_t* base
    cdef const frame_t* frame
    cdef const record_t* record
    while True:
        base = segment_map(core, number, &salt)
        if base == NULL:
            return number << 32 | at
        while frame_whole(core, base, number << 32 | at, salt):
            frame = <const frame_t*>(base + at)
            if frame.sequence != core.control.sequence or frame.epoch < core.control.epoch:
                break
            core.control.epoch = frame.epoch
            core.control.sequence = frame.sequence + 1
            promised[0] = max(promised[0], frame.durable)
            end = at + frame.size
            at += sizeof(frame_t)
            while at < end:
                record = <const record_t*>(base + at)
                core.control.last_us = max(core.control.last_us, record.stored_us)
                apply_replay(core, record)
                at += record_size(record)
        base = segment_map(core, number + 1, &salt)
        if base == NULL or (<const segment_header_t*>base).previous_end != (number << 32 | at):
            return number << 32 | at
        live_seal(core, number, at)
        number += 1
        at = SEGMENT_HEADER_SIZE


cdef uint64_t frame_next(core_t* core, uint64_t position) noexcept nogil:
    """The position of the next whole frame after a hole, 0 if there is none."""
    cdef uint64_t number = position >> 32
    cdef uint64_t at = (position & BYTE) + 8
    cdef uint64_t salt
    cdef int verdict
    cdef const uint8_t* base
    while number <= core.control.prepared:
        base = segment_map(core, number, &salt)
        # A segment whose header is damaged cannot be judged; those behind it can.
        while base != NULL and at < core.segment_size:
            verdict = frame_verdict(core, base, number << 32 | at, salt)
            if verdict == WHOLE:
                return number << 32 | at
            # No frame begins on a page that cannot be read, and each try can keep a failing disk busy for seconds.
            at += PAGE - at % PAGE if verdict == -1 and not readable(base + at) else 8
        number += 1
        at = SEGMENT_HEADER_SIZE
    return 0


cdef uint64_t promise_after(core_t* core, uint64_t position) noexcept nogil:
    """The highest mark that anything behind position says was durable: evidence against a torn tail."""
    cdef uint64_t found = position
    cdef uint64_t promise = 0
    cdef uint64_t salt
    cdef const uint8_t* base
    cdef uint64_t number = position >> 32
    while True:
        found = frame_next(core, found)
        if found == 0:
            break
        base = segment_map(core, found >> 32, &salt)
        promise = max(promise, (<const frame_t*>(base + (found & BYTE))).durable)
        found += (<const frame_t*>(base + (found & BYTE))).size - 8
    while number < core.control.prepared:
        number += 1
        base = segment_map(core, number, &salt)
        if base != NULL:
            promise = max(promise, (<const segment_header_t*>base).previous_end)
    return promise


cdef void leases_drop(core_t* core) noexcept nogil:
    cdef uint32_t slot
    cdef group_t* group
    cdef uint8_t start[4]
    for slot in range(core.control.state.group_slots):
        group = group_slot(core, slot)
        if group.id:
            lease_drop(core, &group.root, group.height)
            group.suspects = 0
            if group.order:
                order_rebuild(core, group)
            # Numbers that receipts of the last life did not have: a fresh random start.
            if random_fill(start, 4) == 0:
                memcpy(&group.nonce, start, 4)


cdef void suspects_note(core_t* core) noexcept nogil:
    """The last life did not end well: deliveries of what may have been in flight are recorded from the first on."""
    cdef uint32_t slot
    cdef group_t* group
    cdef queue_t* queue
    for slot in range(core.control.state.group_slots):
        group = group_slot(core, slot)
        queue = find_queue(core, group.queue) if group.id else NULL
        if queue != NULL:
            group.suspects = min(queue.next, group.cursor + SUSPECTS)


cdef void control_new(core_t* core) noexcept nogil:
    """Fresh locks and marks in a zeroed control file."""
    cdef control_t* control = core.control
    cdef int at
    control.magic = CONTROL_MAGIC
    control.version = CONTROL_VERSION
    mutex_shared_init(&control.store_lock)
    mutex_shared_init(&control.reclaim_lock)
    for at in range(SYNCS):
        mutex_shared_init(&control.sync_locks[at])
    mutex_shared_init(&control.arena_lock)
    mutex_shared_init(&control.prepare_lock)
    mutex_shared_init(&control.checkpoint_lock)
    mutex_shared_init(&control.notes_lock)
    mutex_shared_init(&control.due_lock)
    mutex_shared_init(&control.cold_lock)
    for at in range(STRIPES):
        mutex_shared_init(&control.stripes[at])
    control.tables_allocated[0] = QUEUES_AT
    control.tables_allocated[1] = GROUPS_AT
    control.tables_allocated[2] = ARENA_AT
    control.tables_allocated[3] = ARENA_AT
    control.trims = 1
    control.sequence = 1
    control.epoch = 1
