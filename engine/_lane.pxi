# The event loop's face: staging without waiting, results through a file descriptor.


cdef class Lane:
    """A staging lane with a committer thread of its own; fileno() gets readable when results wait."""

    def __init__(self, Store store):
        cdef core_t* core = live(store)
        cdef lane_t* lane = lane_new(core)
        if lane == NULL:
            raise MemoryError()
        lane.threaded = 1
        if thread_start(&lane.thread, lane_run, lane):
            lane_free(lane)
            raise OSError("the committer thread could not be started")
        self.store = store
        self.lane = lane
        store.lanes.add(self)

    def fileno(self):
        return (<lane_t*>self.lane).event

    def close(self):
        """Commit what is staged and stop the thread."""
        cdef lane_t* lane = <lane_t*>self.lane
        if lane == NULL:
            return
        self.lane = NULL
        if (<core_t*>self.store.core).closed == 1:
            return              # a child after fork: the thread is its parent's
        with nogil:
            store32(&lane.stop, 1)
            add32(&lane.word, 1)
            futex_wake(&lane.word)
            pthread_join(lane.thread, NULL)
            lane_free(lane)

    def __dealloc__(self):
        self.close()

    cdef int stage_one(self, uint64_t cookie, uint32_t queue, uint8_t durability, uint64_t producer, uint64_t sequence,
                       const uint8_t* ext, uint16_t ext_size, const uint8_t* body, uint32_t body_size) noexcept nogil:
        cdef lane_t* lane = <lane_t*>self.lane
        cdef round_t* round
        cdef uint32_t place
        return bodies_stage(lane.core, lane, cookie, queue, durability, producer, sequence, 1, &body_size, body,
                            body_size, ext, ext_size, False, &round, &place)

    cdef int stage_batch(self, uint64_t cookie, uint32_t queue, uint8_t durability, uint64_t producer,
                         uint64_t sequence, uint32_t count, const uint8_t* sizes_u32, const uint8_t* bodies,
                         uint64_t bodies_size) noexcept nogil:
        cdef lane_t* lane = <lane_t*>self.lane
        cdef round_t* round
        cdef uint32_t place
        return bodies_stage(lane.core, lane, cookie, queue, durability, producer, sequence, count,
                            <const uint32_t*>sizes_u32, bodies, bodies_size, NULL, 0, False, &round, &place)

    cdef int stage_confirm(self, uint64_t cookie, const receipt_t* receipts, uint32_t count,
                           uint8_t* verdicts) noexcept nogil:
        cdef lane_t* lane = <lane_t*>self.lane
        cdef round_t* round
        cdef uint32_t place
        return confirm_stage(lane.core, lane, cookie, receipts, count, verdicts, False, &round, &place)

    cdef void kick(self) noexcept nogil:
        lane_kick(<lane_t*>self.lane)

    cdef int drain(self, operation_t* out, int room) noexcept nogil:
        cdef lane_t* lane = <lane_t*>self.lane
        cdef round_t* round
        cdef int found = 0
        event_clear(lane.event)
        pthread_mutex_lock(&lane.lock)
        while lane.done_first != NULL:
            round = lane.done_first
            while round.drained < round.count and found < room:
                if round.operations[round.drained].cookie != NEVER:
                    out[found] = round.operations[round.drained]
                    found += 1
                round.drained += 1
            if round.drained < round.count:
                event_set(lane.event)
                break
            lane.done_first = round.next
            if lane.done_first == NULL:
                lane.done_last = NULL
            lane_rest(lane, round)
        pthread_mutex_unlock(&lane.lock)
        return found

    cdef void watch(self, bint waiting) noexcept nogil:
        cdef lane_t* lane = <lane_t*>self.lane
        if lane.watching != <uint32_t>waiting:
            store32(&lane.watching, waiting)
            if waiting:
                lane_kick(lane)

    cdef int woken(self, uint32_t* out, int room) noexcept nogil:
        # Every parked receiver looks for itself: a look costs less than keeping the books would.
        return -1
