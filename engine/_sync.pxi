# Durability: who asks the disk, when, and what the answer proves. Up to SYNCS fdatasyncs run at once in a store,
# whoever has a lock of sync_locks leading one, so that a frame need not wait for the end of a sync that began
# before it.
#
# Invariants:
# 1. A sync proves what was written before it began: durable grows to the mark read before, never shrinks.
# 2. Each sync in flight has an open file of its own. Linux tells an error of write-back once to each open file, so one
#    sync can neither take the error of another nor succeed without it. The files are opened with all locks held: then
#    no sync is under way that has failed and has not said so.
# 3. The first failure poisons; a sync that began before and succeeds after publishes nothing.
# 4. The segment written to changes only with all locks held, so a mark lies in the segment that is synced.
# 5. A sync is marked in syncing from before it begins until it has succeeded. A mark whose lock is free is of a
#    leader who died, perhaps with an error that Linux tells nobody who opens the file later. Who opens it then writes
#    what is not known to be on disk once more, so that its own sync proves it.

cdef void poison(core_t* core) noexcept nogil:
    store32(&core.control.poisoned, 1)
    add32(&core.control.durable_word, 1)
    futex_wake(&core.control.durable_word)
    futex_wake(&core.control.arrival_word)


cdef void syncs_lock(core_t* core) noexcept nogil:
    """All of them, always in this order; one by one they are only ever tried."""
    cdef int at
    for at in range(SYNCS):
        mutex_lock(&core.control.sync_locks[at])


cdef void syncs_unlock(core_t* core) noexcept nogil:
    cdef int at
    for at in range(SYNCS):
        pthread_mutex_unlock(&core.control.sync_locks[at])


cdef int sync_open(core_t* core) noexcept nogil:
    """Open the segment written to once for each sync. 0 or errno. With all locks held, and the store lock."""
    cdef uint64_t number = load64(&core.control.segment)
    cdef char name[4096]
    cdef int at, fd
    if core.sync_number == number:
        return 0
    segment_path(core, number, name, 4096, False)
    for at in range(SYNCS):
        fd = c_open(name, O_RDWR | O_CLOEXEC, 0)
        if fd < 0:
            return errno
        if core.sync_fds[at] >= 0:
            c_close(core.sync_fds[at])
        core.sync_fds[at] = fd
    for at in range(SYNCS):
        if load32(&core.control.syncing[at]):
            at = write_again(core)
            if at:
                return at
            break
    core.sync_number = number
    return 0


cdef int write_again(core_t* core) noexcept nogil:
    """Write the frames that are not known to be on disk over themselves. 0 or errno. With the locks of sync_open.

    After a failed write-back the page cache may show what the disk never got; if it shows another thing, that is lost.
    """
    cdef control_t* control = core.control
    cdef uint64_t number = load64(&control.segment)
    cdef uint64_t end = load64(&control.written)
    cdef uint64_t start = max(load64(&control.durable), number << 32 | SEGMENT_HEADER)
    cdef uint64_t at = start
    cdef uint64_t salt = 0
    cdef const uint8_t* base = segment_map(core, number, &salt)
    cdef int fd = write_file(core)
    cdef int failed, slot
    if base == NULL or fd < 0:
        return EIO
    while at < end:
        if not frame_whole(core, base, at, salt):
            return EIO
        at += (<const frame_t*>(base + (at & BYTE))).size
    failed = write_all(fd, base + (start & BYTE), end - start, start & BYTE)
    if failed:
        return failed
    trace(core, 1, start, base + (start & BYTE), end - start)
    for slot in range(SYNCS):
        store32(&control.syncing[slot], 0)
    return 0


cdef int sync_ready(core_t* core) noexcept nogil:
    """See to it that this process could sync the segment written to. 0 or errno. Under the store lock."""
    cdef int failed = 0
    if core.sync_number != load64(&core.control.segment):
        syncs_lock(core)
        failed = sync_open(core)
        syncs_unlock(core)
    return failed


cdef int log_sync(core_t* core, int slot) noexcept nogil:
    """fdatasync the segment written to. 0 or errno. With that lock held."""
    cdef int failed = faulty(core, 2)
    store32(&core.control.syncing[slot], 1)
    hold(core, slot)
    if failed == 0 and fdatasync(core.sync_fds[slot]):
        failed = errno
    if failed == 0:
        store32(&core.control.syncing[slot], 0)
        trace(core, 2, core.sync_number << 32, NULL, 0)
    else:
        hold(core, SYNC_FAILED)
    add64(&core.control.fsyncs, 1)
    return failed


cdef void hold(core_t* core, int place) noexcept nogil:
    """For tests: who comes first waits here until let go. A place: a sync's slot, COMMIT_BEGINS or SYNC_FAILED."""
    if load32(&core.held[place]) == 1:
        store32(&core.held[place], 2)
        while load32(&core.held[place]) == 2:
            futex_wait(&core.held[place], 2, 1000)


cdef void durable_raise(core_t* core, uint64_t mark) noexcept nogil:
    """Publish that everything below mark is on disk. With a sync lock held."""
    if word_raise(&core.control.durable, mark):
        add32(&core.control.durable_word, 1)
        if load32(&core.control.durable_waiters):
            futex_wake(&core.control.durable_word)
        add32(&core.control.common_word, 1)
        add32(&core.control.arrival_word, 1)
        if load32(&core.control.receivers):
            futex_wake(&core.control.arrival_word)


cdef extern from *:
    """
    /* Whether the word grew. */
    static inline int word_raise(uint64_t *word, uint64_t value) {
        uint64_t old = __atomic_load_n(word, __ATOMIC_ACQUIRE);
        while (old < value)
            if (__atomic_compare_exchange_n(word, &old, value, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) return 1;
        return 0;
    }
    """
    int word_raise(uint64_t*, uint64_t) nogil


cdef void sync_lead(core_t* core, int slot, uint64_t target) noexcept nogil:
    """Sync for everybody whose bytes are written by now. With that lock held."""
    cdef control_t* control = core.control
    cdef uint64_t mark
    if load64(&control.durable) >= target or load32(&control.poisoned):
        return
    mark = load64(&control.written)
    store64(&control.sync_marks[slot], mark)
    if log_sync(core, slot):
        poison(core)
    elif not load32(&control.poisoned):
        durable_raise(core, mark)


cdef int sync_turn(core_t* core, uint64_t target) noexcept nogil:
    """The slot that may be led now, its lock held; -1 if none is free or one under way covers target."""
    cdef control_t* control = core.control
    cdef int at
    for at in range(SYNCS):
        if load64(&control.sync_marks[at]) >= target:
            # Free all the same: its leader died, or has just ended.
            return at if mutex_try(&control.sync_locks[at]) >= 0 else -1
    for at in range(SYNCS):
        if mutex_try(&control.sync_locks[at]) >= 0:
            return at
    return -1


cdef int make_durable(core_t* core, uint64_t target) noexcept nogil:
    """Wait until everything below target is on disk, leading a sync where nobody does. DONE or POISONED."""
    cdef control_t* control = core.control
    cdef uint32_t seen
    cdef int slot, failed
    while True:
        seen = load32(&control.durable_word)
        if load64(&control.durable) >= target:
            return DONE
        if load32(&control.poisoned):
            return POISONED
        slot = sync_turn(core, target)
        if slot < 0:
            # One that dies here is counted for good, which costs wake-ups that nobody hears.
            add32(&control.durable_waiters, 1)
            futex_wait(&control.durable_word, seen, 5000)
            add32(&control.durable_waiters, -1)
            continue
        if core.sync_number == load64(&control.segment):
            sync_lead(core, slot, target)
            pthread_mutex_unlock(&control.sync_locks[slot])
            continue
        pthread_mutex_unlock(&control.sync_locks[slot])
        store_lock(core)
        failed = sync_ready(core)
        pthread_mutex_unlock(&control.store_lock)
        if failed:
            poison(core)
