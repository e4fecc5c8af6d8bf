# Several appends as one: they lie in one round, so in one frame, which is accepted whole or not at all.


cdef class AtomicBatch:
    """Appends to several queues that are stored all or none, when the with block ends without an exception."""
    cdef Store store
    cdef list items
    cdef int level
    cdef uint64_t producer, sequence
    cdef readonly list receipts

    def __init__(self, Store store, durability=None, uint64_t producer=0, uint64_t sequence=0):
        self.store = store
        self.level = level_of(store, durability)
        self.producer = producer
        self.sequence = sequence
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

    cdef int stage(self, core_t* core, round_t* round, uint32_t queue, bytes body, bytes ext, int level,
                   uint64_t due_us, uint64_t sequence) except -1:
        """Stage one message, in room that was made for it."""
        cdef uint64_t position = round.size
        cdef record_t* record = record_stage(
            core, round, RECORD_MESSAGE, self.producer, sequence, <const uint8_t*>PyBytes_AS_STRING(ext),
            <uint16_t>len(ext), <const uint8_t*>PyBytes_AS_STRING(body), <uint32_t>len(body))
        cdef operation_t* operation = operation_stage(round, 0, KIND_APPEND, queue, 1, self.level, position)
        operation.producer = self.producer
        operation.sequence = sequence
        if level & ATTRIBUTED:
            record.flags |= RECORD_ATTRIBUTED
        if due_us:
            both_aside(round, record, operation, due_us)
        return 0

    cdef list commit_inside(self, core_t* core):
        cdef lane_t* lane = <lane_t*>self.store.direct
        cdef round_t* round
        cdef uint64_t need = 16 + sum(len(b) + len(e) + sizeof(record_t) + 8 for _, b, e, _, _ in self.items)
        cdef uint32_t place, aside_before
        cdef int level
        cdef uint64_t start
        cdef bytes body, ext
        cdef uint64_t due_us, now = store_clock(core)
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
            # The number stands with the first, and is for all.
            self.stage(core, round, queue.id, body, ext, level, due_us if due_us > now else 0,
                       self.sequence if round.count == place else 0)
        round.operations[place].spare = <uint32_t>len(self.items)
        round.claims += 1
        pthread_mutex_unlock(&lane.lock)
        with nogil:
            lane_direct(lane, round)
        try:
            receipts = [receipt_of(round.operations + place + at) for at in range(<uint32_t>len(self.items))]
            if round.operations[place].spare == TWICE:
                atomic_found(core, round.operations + place, receipts)
            return receipts
        finally:
            with nogil:
                lane_claimed(lane, round)


cdef int atomic_found(core_t* core, const operation_t* first, list receipts) except -1:
    """Fill in where the messages of a batch are that was stored before: its records stand one behind the other.

    What cannot be told any more has the offset NEVER, as has what a later batch of that number would not find: of a
    batch whose first message was known by its id the places of the others.
    """
    cdef uint64_t at = first.offset
    cdef uint64_t pin
    cdef queue_t* queue = find_queue(core, first.queue)
    cdef const record_t* record = NULL
    cdef SendReceipt receipt
    pin_take(core, &pin)
    if first.kind != KIND_PENDING:
        at = NEVER
        if queue != NULL and queue.first <= first.offset < queue.next:
            at = index_leaf(core, queue, first.offset)[first.offset % LEAF].position
    if at != NEVER and at:
        record = record_at(core, at)
    if record != NULL and not (record.flags & RECORD_SEQUENCED and record_stamp(record)[0] == first.producer
                               and record_stamp(record)[1] == first.sequence):
        record = NULL
    for receipt in receipts[1:] if record == NULL else receipts:
        receipt.waiting, receipt.offset, receipt.duplicate = 0, NEVER, True
        if record == NULL:
            continue
        if record.queue == receipt.queue and record.type == RECORD_PENDING:
            receipt.waiting = record.position
        elif record.queue == receipt.queue and record.type == RECORD_MESSAGE:
            receipt.offset = record.offset
        record = record_at(core, record.position + record_size(record))
    pin_give(core)
    return 0
