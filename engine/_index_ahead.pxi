# The pages of the index that come next are put into memory before anybody writes to them. The first touch of a page
# of a file makes the kernel fill it, and as many behind it as the machine reads ahead: with 8 MiB that held up a commit
# for 18 ms. Only a store that grows has it done, by who maintains it.

cdef enum:
    AHEAD_BYTES = 16 << 20      # half a million messages
    AHEAD_PIECE = 1 << 18

cdef extern from "fcntl.h" nogil:
    int posix_fadvise(int, int64_t, int64_t, int)
    int POSIX_FADV_WILLNEED


cdef void index_ahead(core_t* core) noexcept nogil:
    """See to it that what the index needs next has blocks and is in memory: half of what it has, 16 MiB at most."""
    cdef uint64_t used = (core.control.state.index_pages + 1) * PAGE
    cdef uint64_t end = used + min(used // 2, <uint64_t>AHEAD_BYTES)
    cdef uint64_t have = max(core.index_ahead, used)
    cdef bint grows = core.index_used != 0 and core.index_used < used
    cdef int got
    core.index_used = used
    if not grows or end - have < (end - used) // 2:
        return
    if end > core.control.index_allocated:
        # Whoever asks may hold the lock that a commit waits for, so nobody waits here.
        got = mutex_try(&core.control.store_lock)
        if got < 0:
            return
        if got:
            state_undo(core)
        index_reserve(core, (end - used) // PAGE)
        pthread_mutex_unlock(&core.control.store_lock)
    end = min(end, core.control.index_allocated)
    while have < end:
        posix_fadvise(core.index_fd, <int64_t>have, AHEAD_PIECE, POSIX_FADV_WILLNEED)
        have += AHEAD_PIECE
    core.index_ahead = have
