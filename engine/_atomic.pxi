# Several appends as one: they lie in one round, so in one frame, which is accepted whole or not at all.


cdef class AtomicBatch:
    """Appends to several queues that are stored all or none, when the with block ends without an exception."""
    cdef Store store
    cdef list items
    cdef int level
    cdef readonly list receipts

    def __init__(self, Store store, durability=None):
        self.store = store
        self.level = level_of(store, durability)
        self.items = []
        self.receipts = []

    def append(self, Queue queue not None, bytes body not None, *, bytes ext=b"", attributes=None, uint64_t due_us=0):
        """Add a message; it is stored when the block ends, and gets into its queue at due_us as with Queue.append."""
        cdef int level = self.level
        ext = ext_packed(ext, attributes, &level)
        self.items.append((queue, body, ext, level, due_checked(due_us)))

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None and self.items:
            self.receipts = self.commit()

    cdef list commit(self):
        cdef core_t* core = enter(self.store)
        try:
            return self.commit_inside(core)
        finally:
            leave(core)

    cdef list commit_inside(self, core_t* core):
        cdef lane_t* lane = <lane_t*>self.store.direct
        cdef round_t* round
        cdef uint64_t need = sum(len(b) + len(e) + sizeof(record_t) + 8 for _, b, e, _, _ in self.items)
        cdef uint32_t place, aside_before
        cdef int level
        cdef uint64_t position, start
        cdef bytes body, ext
        cdef uint64_t due_us, now = store_clock(core)
        cdef record_t* record
        cdef operation_t* operation
        for queue, _, _, _, _ in self.items:
            if find_queue(core, queue.id) == NULL:
                raise QueueNotFoundError(f"queue {queue.name!r} was deleted")
        if need > lane.limit - sizeof(frame_t):
            raise TooLargeError(f"a batch of {need} bytes, at most {lane.limit - sizeof(frame_t)}")
        with nogil:
            pthread_mutex_lock(&lane.lock)
            while lane.filling.size + need > lane.limit:
                pthread_mutex_unlock(&lane.lock)
                lane_turn(lane)
                pthread_mutex_lock(&lane.lock)
        # The lock is held over these lines: one round means one frame, so all of it or nothing.
        round = lane.filling
        place = round.count
        start = round.size
        aside_before = round.aside
        for queue, body, ext, level, due_us in self.items:
            if not round_reserve(round, len(body) + len(ext) + 128):
                # Nothing of it may stay staged.
                round.messages -= round.count - place
                round.aside = aside_before
                round.disk -= (round.count - place) * self.level
                round.count = place
                round.size = start
                pthread_mutex_unlock(&lane.lock)
                raise MemoryError()
            position = round.size
            record = record_stage(core, round, RECORD_MESSAGE, 0, 0, <const uint8_t*>PyBytes_AS_STRING(ext),
                                  <uint16_t>len(ext), <const uint8_t*>PyBytes_AS_STRING(body), <uint32_t>len(body))
            operation = operation_stage(round, 0, KIND_APPEND, queue.id, 1, self.level, position)
            if level & ATTRIBUTED:
                record.flags |= RECORD_ATTRIBUTED
            if due_us > now:
                both_aside(round, record, operation, due_us)
        round.operations[place].spare = <uint32_t>len(self.items)
        round.claims += 1
        pthread_mutex_unlock(&lane.lock)
        with nogil:
            lane_direct(lane, round)
        try:
            return [receipt_of(round.operations + place + at) for at in range(<uint32_t>len(self.items))]
        finally:
            with nogil:
                lane_claimed(lane, round)
