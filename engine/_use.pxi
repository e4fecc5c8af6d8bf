# Using a core from Python: who may, what a verdict is called, and what is freed at the end.

cdef enum:
    COPIED_AT_ONCE = 4096       # bytes: more is hashed and copied with the interpreter's lock given up
    REST_US = 50000             # between two looks of the maintenance thread
    RETAIN_US = 200000          # at most, where queues say how long they keep


cdef int raise_verdict(int verdict, object what) except -1:
    """Turn a verdict into the exception that names what was refused."""
    if verdict == NOT_FOUND:
        raise QueueNotFoundError(f"no such queue or group: {what}")
    if verdict == TOO_LARGE:
        raise TooLargeError(f"{what}: larger than one commit may be")
    if verdict == STORE_FULL:
        raise StoreFullError(
            ENOSPC, f"{what}: no room for another segment; reading and confirming go on, free space to append again")
    if verdict == POISONED:
        raise StorePoisonedError(
            EIO, f"{what}: a write or fsync failed; what was not acknowledged may be lost. Close the store "
                 "in every process and open it again")
    if verdict == BUSY:
        raise StoreBusyError(f"{what}: too much in flight")
    if verdict == CORRUPT:
        raise CorruptionError(f"{what}: stored bytes are not what was written")
    return 0


cdef core_t* live(Store store) except NULL:
    """The core of an open store; StoreClosedError if it is not."""
    cdef core_t* core = <core_t*>store.core
    if core == NULL or core.closed:
        raise StoreClosedError("the store is closed (or was inherited over a fork: open it again in the child)")
    return core


cdef core_t* enter(Store store) except NULL:
    """The core, which stays until leave: close() waits for those inside."""
    cdef core_t* core = live(store)
    add32(&core.users, 1)
    if load32(&core.closing):
        add32(&core.users, -1)
        raise StoreClosedError("the store is being closed")
    return core


cdef void leave(core_t* core) noexcept nogil:
    add32(&core.users, -1)


cdef bytes _name(str name):
    raw = name.encode()
    if not 1 <= len(raw) <= NAME_SIZE:
        raise InvalidError(f"a name has 1 to {NAME_SIZE} bytes, this one {len(raw)}")
    return raw


cdef int core_map(core_t* core, str path, bint fresh, bytes boot) except -1:
    """Map control and index; fresh: a new control file with every mark and lock anew."""
    cdef void* base
    cdef str control, index
    control = os.path.join(path, "control")
    index = os.path.join(path, "index")
    if fresh:
        # A new file, not a shortened one: a process that died may have left a map of the old one.
        with open(control + ".new", "wb"):
            pass
        os.replace(control + ".new", control)
    core.control_fd = os.open(control, os.O_RDWR | os.O_CLOEXEC)
    if fresh:
        os.posix_fallocate(core.control_fd, 0, HEADER_BYTES)
        os.posix_fallocate(core.control_fd, PRODUCERS_AT, ARENA_AT - PRODUCERS_AT)
    core.index_fd = os.open(index, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    base = mmap(NULL, CONTROL_ROOM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, core.control_fd, 0)
    if base == MAP_FAILED:
        raise OSError(errno, "the control file cannot be mapped", control)
    core.base = <uint8_t*>base
    core.control = <control_t*>core.base
    core.names = <uint32_t*>(core.base + NAMES_AT)
    core.arena = core.base + ARENA_AT
    if fresh:
        control_new(core)
        cold_begin(core)
        memcpy(core.control.boot, <const char*>boot, 16)
        core.control.index_allocated = os.fstat(core.index_fd).st_size // PAGE * PAGE
    if index_reach(core, max(core.control.index_allocated, <uint64_t>PAGE)):
        raise OSError(ENOMEM, "the index file cannot be mapped", index)
    return 0


cdef void core_rest(core_t* core, uint64_t most_us) noexcept nogil:
    """Sleep 50 ms, and on as long as nobody writes, up to most_us: an idle store shall cost next to nothing."""
    cdef control_t* control = core.control
    cdef uint64_t until = monotonic_us() + most_us
    cdef uint32_t seen = load32(&core.rested)
    cdef reclaim_t* reclaim = reclaim_page(core) if control.state.reclaim else NULL
    if reclaim != NULL and reclaim.configured:
        until -= most_us - min(most_us, <uint64_t>RETAIN_US)
    while load32(&core.rested) == seen and not load32(&core.closing):
        futex_wait(&core.rested, seen, REST_US)
        if load64(&control.written) != core.rested_written or load64(&control.durable) < control.written \
                or load64(&control.deaths) != core.rested_deaths or control.trims != control.trims_seen \
                or load32(&control.full) or load32(&control.scarce) or monotonic_us() >= until:
            break
    index_ahead(core)
    core.rested_written = load64(&control.written)
    core.rested_deaths = load64(&control.deaths)


cdef void core_release(core_t* core) noexcept nogil:
    """Give back addresses and descriptors, once nobody has a view of the log; the last view calls again."""
    cdef uint32_t at
    pthread_mutex_lock(&core.maps_lock)
    if core.pins == 0:
        for at in range(CHUNKS):
            if core.chunks[at] != NULL:
                munmap(core.chunks[at], <uint64_t>PAGE << CHUNK_BITS)
                core.chunks[at] = NULL
        for at in range(core.map_count):
            munmap(core.maps[at].base, core.segment_size)
        core.map_count = 0
        for at in range(core.cold_count):
            munmap(core.cold_files[at].base, core.cold_files[at].size)
        core.cold_count = core.cold_place_count = 0
        if core.base != NULL:
            munmap(core.base, CONTROL_ROOM)
            core.base = NULL
        descriptor_close(&core.write_fd)
        for at in range(SYNCS):
            descriptor_close(&core.sync_fds[at])
        descriptor_close(&core.control_fd)
        descriptor_close(&core.index_fd)
        descriptor_close(&core.directory_fd)
        descriptor_close(&core.maps_fd)
    pthread_mutex_unlock(&core.maps_lock)
    descriptor_close(&core.lock_fd)


cdef void core_free(core_t* core) noexcept nogil:
    wheel_free(core)
    core.pins = 0
    core_release(core)
    free(core.maps)
    free(core.cold_files)
    free(core.cold_places)
    free(core)


cdef void descriptor_close(int* fd) noexcept nogil:
    if fd[0] >= 0:
        c_close(fd[0])
        fd[0] = -1
