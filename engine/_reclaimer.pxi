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

    def retain(self, now_us=None):
        """Purge what queues' settings no longer keep; how many messages. now_us: µs since 1970."""
        cdef core_t* core = live(self.store)
        cdef uint32_t ids[256]
        cdef uint64_t cuts[256]
        cdef uint64_t now = clock_us() if now_us is None else now_us
        cdef int64_t found = 0
        cdef bint busy
        cdef queue_t* queue
        purged = 0
        with nogil:
            busy = mutex_try(&core.control.reclaim_lock) < 0
            if not busy:
                found = cuts_find(core, now, ids, cuts, 256)
                pthread_mutex_unlock(&core.control.reclaim_lock)
        for at in range(found):
            queue = find_queue(core, ids[at])
            before = queue.first if queue != NULL else cuts[at]
            verdict, _, _ = self.store._operate(KIND_TRIM, ids[at], cuts[at], RECORD_TRIM, b"")
            if verdict != NOT_FOUND:
                raise_verdict(verdict, f"retention of queue {ids[at]}")
                purged += max(cuts[at] - before, 0)
        return purged

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
            found[number] = (entry.bytes, entry.dead, entry.end & ~COLD)
            number = live_next(core, number + 1)
        return found

    def spare(self, uint64_t segments):
        """So many segments may stand ready (8 do in any case); what is dead beyond them is removed."""
        live(self.store).spares = segments

    def stat(self):
        """Segments that there are, bytes of the log that are needed, ready, and dead, what was reclaimed."""
        cdef core_t* core = live(self.store)
        cdef control_t* control = core.control
        cdef uint64_t number = live_next(core, 1)
        cdef uint64_t known = 0, bytes_ = 0, dead = 0, kept = 0
        cdef live_t* entry
        cdef reclaim_t* page = reclaim_page(core) if control.state.reclaim else NULL
        while number and number < control.segment:
            entry = live_entry(core, number, False)
            known += not entry.end & COLD
            dead += entry.dead != 0 and not entry.end & COLD
            kept += entry.bytes >= KEPT
            bytes_ += entry.bytes if entry.bytes < KEPT else core.segment_size
            number = live_next(core, number + 1)
        if number:
            bytes_ += live_entry(core, number, False).bytes
        return {"segments": known + control.prepared - control.segment + 1, "live_bytes": bytes_,
                "ready": (control.prepared - control.segment) * core.segment_size,
                "reclaimable_bytes": dead * core.segment_size, "segments_kept_for_damage": kept,
                "cold_bytes": cold_bytes(core),
                "segments_recycled": page.recycled if page != NULL else 0,
                "segments_removed": page.removed if page != NULL else 0}

    def recycle(self, bint insist=False):
        """Use dead segments again, or remove them: (how many went, are mapped by somebody, wait for checkpoints).

        insist: those that are mapped are removed. None: another process is at it. Raises OSError.
        """
        cdef core_t* core = live(self.store)
        cdef uint64_t counts[3]
        cdef int failed = 0
        cdef bint busy
        memset(counts, 0, sizeof(counts))
        with nogil:
            busy = mutex_try(&core.control.reclaim_lock) < 0
            if not busy:
                failed = segments_reclaim(core, insist, counts)
                pthread_mutex_unlock(&core.control.reclaim_lock)
        if failed:
            raise OSError(failed, os.strerror(failed), self.store.path)
        return None if busy else (counts[0], counts[1], counts[2])

    def seal(self, list numbers, uint64_t end):
        """After recovery: these segments are not written to any more; the log ended at the position end."""
        cdef core_t* core = live(self.store)
        cdef uint64_t number
        cdef live_t* entry
        with nogil:
            store_lock(core)
        for number in numbers:
            entry = live_entry(core, number, False)
            if entry == NULL or entry.end == 0:
                live_seal(core, number, end & BYTE if end >> 32 == number else SEGMENT_HEADER_SIZE)
        pthread_mutex_unlock(&core.control.store_lock)

    def shed(self):
        """Unmap what is dead, if nobody here reads anything: other processes may wait for it."""
        cdef uint64_t pin = 0
        pin_take(live(self.store), &pin)
        pin_give(live(self.store))

    def mark(self):
        """Write a record that says nothing, so that the next checkpoint has a position of its own."""
        verdict, _, _ = self.store._operate(29, 0, 0, RECORD_SKIP, b"")
        raise_verdict(verdict, "a mark in the log")


cdef uint64_t cold_bytes(core_t* core):
    """What cold files take."""
    cdef uint32_t at = 0, number
    cdef uint64_t size, total = 0
    while core.control.cold and cold_nth(core, at, &number, &size):
        total += size
        at += 1
    return total
