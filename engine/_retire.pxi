# What a copy made superfluous goes: segments that were copied, cold files that stand in newer ones or are not needed.
#
# Invariant: it goes only once every checkpoint kept is newer than the copy, and the copy's name is on disk.


cdef bint kept_since(core_t* core, uint64_t checkpoint) noexcept nogil:
    """Whether every checkpoint kept was taken after that one."""
    return core.control.kept > checkpoint


cdef uint64_t cold_checkpoint(core_t* core, uint32_t file) noexcept nogil:
    cdef uint32_t at
    cdef uint64_t found = NEVER
    pthread_mutex_lock(&core.maps_lock)
    for at in range(core.cold_count):
        if core.cold_files[at].number == file and core.cold_files[at].gone == 0:
            found = core.cold_files[at].checkpoint
    pthread_mutex_unlock(&core.maps_lock)
    return found


cdef int segment_retire(core_t* core, uint64_t number, bint insist) noexcept nogil:
    """Use the file of a compacted segment again, or remove it. 0, errno, or EAGAIN while somebody has it mapped.

    insist: then it is removed.
    """
    cdef char name[4096]
    cdef bint used = False
    cdef bint alone = segment_going(core, number)
    cdef int failed = 0
    cdef int fd
    segment_path(core, number, name, 4096, False)
    if not alone and not insist:
        return EAGAIN
    fd = c_open(name, O_RDWR | O_CLOEXEC, 0)
    if fd < 0:
        failed = 0 if errno == ENOENT else errno
    else:
        if alone:
            failed = segment_reuse(core, number, fd, &used)
        if failed == 0 and not used:
            failed = segment_remove(core, number)
    descriptor_close(&fd)
    if alone:
        segment_stays(core, number)
    if failed == 0:
        mortal(core)
        store_lock(core)
        if live_entry(core, number, False) != NULL:
            live_entry(core, number, False).end |= COLD
        if used:
            reclaim_page(core).recycled += 1
        pthread_mutex_unlock(&core.control.store_lock)
    return failed


cdef int cold_retire(core_t* core, bint insist, uint64_t* counts) noexcept nogil:
    """Give back what copies made superfluous. 0 or errno. Under the cold lock.

    counts: what went, what somebody has mapped, what waits for checkpoints.
    """
    cdef uint32_t at = 0
    cdef uint32_t file
    cdef uint64_t size, number
    cdef cold_place_t newest
    cdef live_t* live
    cdef bint needed
    cdef int failed = cold_settle(core) if core.control.cold else 0
    if failed:
        return failed
    while core.control.cold and cold_nth(core, at, &file, &size):
        at += 1
        needed = False
        number = cold_source_next(core, file, 0)
        while number:
            live = live_entry(core, number, False)
            if live != NULL and (live.bytes or live.end) and cold_place(core, number, 0xFFFFFFFF, &newest):
                if newest.file == file:
                    needed = True
                if not kept_since(core, cold_checkpoint(core, newest.file)):
                    needed = True
                    counts[2] += not live.end & COLD or newest.file != file
                elif newest.file == file and live.bytes and not live.end & COLD:
                    failed = segment_retire(core, number, insist)
                    if failed and failed != EAGAIN:
                        return failed
                    counts[1 if failed else 0] += 1
            number = cold_source_next(core, file, number + 1)
        if not needed:
            failed = cold_remove(core, file)
            if failed:
                return failed
            counts[0] += 1
            at -= 1
    return 0


cdef int cold_settle(core_t* core) noexcept nogil:
    """Put the names of cold files on disk before anything that they replace goes. 0 or errno."""
    cdef int folder = cold_folder(core)
    cdef int failed = 0
    if folder < 0:
        return -folder
    if core.cold_settled != load64(&core.control.cold):
        core.cold_settled = load64(&core.control.cold)
        if fsync(folder):
            failed = errno
            core.cold_settled = 0
        trace(core, 9, 0, NULL, 0)
    c_close(folder)
    return failed


cdef int cold_remove(core_t* core, uint32_t file) noexcept nogil:
    """Unlink a cold file that nothing needs. 0 or errno."""
    cdef char path[4096]
    cdef int folder
    cdef int failed = faulty(core, 4)
    if failed:
        return failed
    cold_path(core, NULL, file, path, 4096)
    if unlink(path) and errno != ENOENT:
        return errno
    trace(core, 10, file, NULL, 0)
    mortal(core)
    store_lock(core)
    store64(&core.control.cold, core.control.cold + 1)
    pthread_mutex_unlock(&core.control.store_lock)
    folder = cold_folder(core)
    if folder >= 0:
        fsync(folder)
        c_close(folder)
    return 0
