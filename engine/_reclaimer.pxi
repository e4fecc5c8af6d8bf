# Reclaimer: the steps of reclaiming, for the maintenance thread and for tests.


cdef class Reclaimer:
    """What gives disk back in one store; engine/reclaim.py says when."""
    cdef Store store

    def __init__(self, Store store not None):
        self.store = store

    def give_up(self, uint64_t budget=1 << 20):
        """Give up about so many purged messages; False if some are left. None: another process is at it."""
        cdef core_t* core = live(self.store)
        cdef bint done = False
        cdef bint busy
        with nogil:
            busy = mutex_try(&core.control.reclaim_lock) < 0
            if not busy:
                done = purged_giveup(core, budget)
                pthread_mutex_unlock(&core.control.reclaim_lock)
        return None if busy else done

    def keep(self, uint64_t number, uint64_t freed, uint64_t position):
        """Say which is the oldest checkpoint kept, how many index pages it knows as free, and its position."""
        cdef core_t* core = live(self.store)
        with nogil:
            store_lock(core)
            core.control.kept = max(core.control.kept, number)
            core.control.kept_position = max(core.control.kept_position, position)
            core.control.index_reusable = max(core.control.index_reusable, freed)
            pthread_mutex_unlock(&core.control.store_lock)

    def live(self):
        """What is needed of each segment that the log has: number -> (bytes, first checkpoint it is dead in, end)."""
        cdef core_t* core = live(self.store)
        cdef uint64_t number = live_next(core, 1)
        cdef live_t* entry
        found = {}
        while number:
            entry = live_entry(core, number, False)
            found[number] = (entry.bytes, entry.dead, entry.end)
            number = live_next(core, number + 1)
        return found
