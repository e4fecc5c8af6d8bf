# Compactor: the steps of compaction, for the thread that does it and for tests.


cdef class Compactor:
    """What makes sparse segments dense; engine/compaction.py says when."""
    cdef Store store

    def __init__(self, Store store not None):
        self.store = store

    def compact(self, uint32_t share=30, *, uint64_t rate=0, refused=()):
        """Copy what is needed of segments of which less than share per cent is, at most rate bytes a second.

        Returns {"segments", "records", "bytes", "refused"}, or None if there is nothing to gain or another process is
        at it; refused: numbers of segments, also those that shall be left out. Raises OSError.
        """
        cdef core_t* core = enter(self.store)
        cdef gather_t* gather = <gather_t*>calloc(1, sizeof(gather_t))
        cdef const uint64_t[::1] left = np.array(sorted(refused) or [0], np.uint64)
        cdef uint32_t left_count = <uint32_t>left.shape[0]
        cdef int failed = EAGAIN
        cdef bint busy = True
        try:
            if gather == NULL:
                raise MemoryError()
            gather.core = core
            gather.rate = rate
            with nogil:
                busy = mutex_try(&core.control.cold_lock) < 0
                if not busy:
                    if not core.control.state.uncounted and compact_pick(gather, share, &left[0], left_count):
                        failed = compact(gather)
                    pthread_mutex_unlock(&core.control.cold_lock)
            if failed and failed != EAGAIN and failed != EINTR:
                raise OSError(failed, os.strerror(failed), self.store.path)
            found = {"segments": segments_left(gather) if not failed else 0,
                     "records": gather.kept if not failed else 0, "bytes": gather.size if not failed else 0,
                     "refused": [gather.segments[at].number for at in range(gather.count)
                                 if gather.segments[at].refused]}
            return found if found["segments"] or found["refused"] else None
        finally:
            if gather != NULL:
                free(gather.keeps)
            free(gather)
            leave(core)

    def retire(self, bint insist=False):
        """Use the files of compacted segments again: (how many went, are mapped by somebody, wait for checkpoints).

        insist: those that are mapped are removed. None: another process is at it. Raises OSError.
        """
        cdef core_t* core = enter(self.store)
        cdef uint64_t counts[3]
        cdef int failed = 0
        cdef bint busy
        memset(counts, 0, sizeof(counts))
        with nogil:
            busy = mutex_try(&core.control.cold_lock) < 0
            if not busy:
                failed = cold_retire(core, insist, counts)
                pthread_mutex_unlock(&core.control.cold_lock)
            leave(core)
        if failed:
            raise OSError(failed, os.strerror(failed), self.store.path)
        return None if busy else (counts[0], counts[1], counts[2])

    def files(self):
        """Size of each cold file, by number."""
        cdef core_t* core = enter(self.store)
        cdef uint32_t at = 0, number
        cdef uint64_t size
        found = {}
        while core.control.cold and cold_nth(core, at, &number, &size):
            found[number] = size
            at += 1
        leave(core)
        return found
