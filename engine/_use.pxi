# Using a core from Python: who may, what a verdict is called, and what is freed at the end.


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


cdef void core_free(core_t* core) noexcept nogil:
    cdef uint32_t at
    wheel_free(core)
    if core.base != NULL:
        munmap(core.base, CONTROL_ROOM)
    if core.index != NULL:
        munmap(core.index, INDEX_ROOM)
    for at in range(core.map_count):
        munmap(core.maps[at].base, core.segment_size)
    free(core.maps)
    descriptor_close(core.write_fd)
    descriptor_close(core.control_fd)
    descriptor_close(core.index_fd)
    descriptor_close(core.directory_fd)
    descriptor_close(core.maps_fd)
    descriptor_close(core.lock_fd)
    free(core)


cdef void descriptor_close(int fd) noexcept nogil:
    if fd >= 0:
        c_close(fd)
