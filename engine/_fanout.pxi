# Fan-out: one record with one body, and a message in each of many queues that leads to it.
#
# The recipients stand in the record before ext and body: {offset, queue}, ascending by queue, so that none is there
# twice. The offsets are known only under the store lock; hence ext and body are hashed when they are staged, and the
# recipients, seeded with that hash, when the record gets its place.
#
# A message whose id is known in the queue that decides (home) is stored nowhere; another one that knows it is left out.

cdef enum:
    FANOUT_QUEUES = 16384       # in one record
    KIND_FANOUT = 34


cdef int fanout_stage(core_t* core, lane_t* lane, uint64_t cookie, const uint32_t* queues, uint32_t count, int level,
                      uint64_t producer, uint64_t sequence, const uint8_t* ext, uint16_t ext_size,
                      const uint8_t* body, uint32_t body_size, uint32_t notes, uint32_t home, bint wait,
                      round_t** into, uint32_t* place) noexcept nogil:
    """fans_stage for one message, which may have a producer and its number."""
    cdef fan_t fan
    fan.queues, fan.count, fan.home = queues, count, home
    fan.ext, fan.ext_size = ext, ext_size
    fan.body, fan.body_size = body, body_size
    return fans_stage(core, lane, cookie, &fan, 1, level, producer, sequence, notes, wait, into, place)


cdef int fans_stage(core_t* core, lane_t* lane, uint64_t cookie, const fan_t* fans, uint32_t many, int level,
                    uint64_t producer, uint64_t sequence, uint32_t notes, bint wait, round_t** into,
                    uint32_t* place) noexcept nogil:
    """Stage messages in one round, so in one frame: an operation each, with the same cookie, from place on.

    level: 0 kernel or 1 disk, | ATTRIBUTED. notes: 0, or the low half of the notes' version plus 1: STALE if any note
    changed since.

    DONE, TOO_LARGE, NOT_FOUND if the ids of one do not ascend, or BUSY if the round is full and wait is false.
    """
    cdef uint64_t need = 0
    cdef round_t* round
    cdef uint32_t slot, index
    for index in range(many):
        if fans[index].count == 0 or fans[index].count > FANOUT_QUEUES:
            return TOO_LARGE if fans[index].count else NOT_FOUND
        for slot in range(1, fans[index].count):
            if fans[index].queues[slot] <= fans[index].queues[slot - 1]:
                return NOT_FOUND
        need += fan_need(fans + index)
    if need > lane.limit - sizeof(frame_t):
        return TOO_LARGE
    while True:
        pthread_mutex_lock(&lane.lock)
        round = lane.filling
        if round.size + need <= lane.limit and round_reserve_many(round, need, many):
            break
        pthread_mutex_unlock(&lane.lock)
        if not wait:
            return BUSY
        lane_turn(lane)
    place[0] = round.count
    for index in range(many):
        # What is reserved is there: nothing can fail between two of them.
        fan_stage(core, round, cookie, fans + index, level, producer, sequence, notes)
    into[0] = round
    if wait:
        round.claims += 1
    pthread_mutex_unlock(&lane.lock)
    return DONE


cdef int stage_fans(Lane lane, uint64_t cookie, const fan_t* fans, uint32_t many, uint8_t durability,
                    uint32_t notes) noexcept nogil:
    cdef lane_t* direct = <lane_t*>lane.lane
    cdef round_t* round
    cdef uint32_t place
    return fans_stage(direct.core, direct, cookie, fans, many, durability, 0, 0, notes, False, &round, &place)


cdef inline uint64_t fan_need(const fan_t* fan) noexcept nogil:
    return (sizeof(record_t) + 24 + <uint64_t>fan.count * sizeof(recipient_t) + fan.ext_size + fan.body_size)


cdef void fan_stage(core_t* core, round_t* round, uint64_t cookie, const fan_t* fan, int level, uint64_t producer,
                    uint64_t sequence, uint32_t notes) noexcept nogil:
    """The operation and the record of one message, for which there is room. Under the lane's lock."""
    cdef operation_t* operation = operation_stage(round, cookie, KIND_FANOUT, fan.home, 0, <uint8_t>level,
                                                  round.size)
    cdef record_t* record = <record_t*>(round.buffer + round.size)
    operation.producer = producer
    operation.sequence = sequence
    operation.spare = notes
    memset(record, 0, sizeof(record_t))
    record.type = <uint8_t>RECORD_FANOUT
    record.flags = (RECORD_SEQUENCED if sequence else 0) | (RECORD_ATTRIBUTED if level & ATTRIBUTED else 0)
    record.ext_size = fan.ext_size
    record.body_size = fan.body_size + fan.count * <uint32_t>sizeof(recipient_t)
    record.spare = fan.count
    if sequence:
        (<uint64_t*>(record + 1))[0] = producer
        (<uint64_t*>(record + 1))[1] = sequence
    round.size = fanout_fill(core, record, fan.queues, fan.ext, fan.body, fan.body_size) - round.buffer


cdef uint8_t* fanout_fill(core_t* core, record_t* record, const uint32_t* queues, const uint8_t* ext,
                          const uint8_t* body, uint32_t body_size) noexcept nogil:
    """Write recipients, ext and body behind a record's header, ext and body hashed; returns where it ends."""
    cdef recipient_t* recipients = record_recipients(record)
    cdef uint8_t* to = <uint8_t*>(recipients + record.spare)
    cdef uint32_t slot
    for slot in range(record.spare):
        recipients[slot].queue = queues[slot]
        recipients[slot].offset = 0
        recipients[slot].spare = 0
    if record.ext_size:
        memcpy(to, ext, record.ext_size)
    if body_size:
        memcpy(to + record.ext_size, body, body_size)
    record.check = xxh3(to, <uint64_t>record.ext_size + body_size, core.salt)
    to += <uint64_t>record.ext_size + body_size
    while (<size_t>to) & 7:
        to[0] = 0
        to += 1
    return to


cdef uint64_t fanout_admit(core_t* core, round_t* round, operation_t* operation, record_t* record, bint full,
                       uint64_t now) noexcept nogil:
    """Give the message its place in each queue that is there; refused, the record becomes a SKIP.

    Returns the bytes to be counted as needed.
    """
    cdef uint64_t pages = round.messages // LEAF + 4 * <uint64_t>round.count + 8
    cdef uint32_t reached = 0
    cdef bint waits = False
    cdef const uint8_t* suffix
    if full:
        operation.verdict = STORE_FULL
    elif operation.sequence and producer_stored(core, operation.producer, operation.sequence, &operation.offset,
                                                &waits):
        operation.duplicate = 1
    elif operation.spare and notes_changed(core, round, operation, operation.spare):
        operation.verdict = STALE
    elif fanout_known(core, operation, record, now):
        operation.duplicate = 1
    else:
        pages += recipients_assign(core, record, &reached)
        if reached == 0:
            operation.verdict = NOT_FOUND
        elif index_reserve(core, pages):
            operation.verdict = STORE_FULL
    if operation.verdict != DONE or operation.duplicate:
        record.type = RECORD_SKIP
        record.spare = 0
        record.check = xxh3(record + 1, payload_size(record), core.salt)
        operation.queue = 0
        return 0
    record.position = core.control.written + operation.position
    record.stored_us = now
    record.queue = 0
    record.offset = record.position
    suffix = <const uint8_t*>(record_recipients(record) + record.spare)
    record.check = xxh3(record + 1, suffix - <const uint8_t*>(record + 1), record.check)
    operation.offset = record.position
    operation.queue = reached
    if operation.sequence:
        producer_keep(core, operation.producer, operation.sequence, record.position, False, core.control.written, now)
    round.messages += 1
    return fanout_append(core, record, False)


cdef bint fanout_known(core_t* core, operation_t* operation, record_t* record, uint64_t now) noexcept nogil:
    """Strike out the recipients that have a message of this id; whether none is left. offset: where it is."""
    cdef recipient_t* recipients = record_recipients(record)
    cdef remembered_t unused
    cdef uint32_t slot
    cdef uint32_t left = record.spare
    cdef uint64_t found
    if not id_hashes(core, record, &unused):
        return False
    if operation.queue:
        operation.offset = dedup_place(core, operation.queue, record, now)
        if operation.offset:
            return True
    for slot in range(record.spare):
        found = dedup_place(core, recipients[slot].queue, record, now)
        if found:
            recipients[slot].queue = 0
            operation.offset = found
            left -= 1
    return left == 0


cdef void fanout_note(core_t* core, const record_t* record) noexcept nogil:
    """Remember the id of a message that was fanned out, in each queue that has a window."""
    cdef const recipient_t* recipients = record_recipients(record)
    cdef remembered_t unused
    cdef uint32_t slot
    cdef queue_t* queue
    if not id_hashes(core, record, &unused):
        return
    for slot in range(record.spare):
        queue = find_queue(core, recipients[slot].queue) if recipients[slot].queue else NULL
        if queue != NULL:
            dedup_note(core, queue, record, recipients[slot].offset, record.stored_us)


cdef bint notes_changed(core_t* core, round_t* round, const operation_t* operation, uint32_t seen) noexcept nogil:
    """Whether a note changed since the caller read them (seen: the low half of their version then, plus 1)."""
    cdef notes_t* notes = notes_table(core, False)
    cdef uint64_t version = notes.version if notes != NULL else 0
    cdef const operation_t* earlier = round.operations
    # A note of this round stands before us in the log, and is not applied yet.
    while earlier < operation:
        if earlier.kind == KIND_NOTE and earlier.verdict == DONE:
            return True
        earlier += 1
    return <uint32_t>(version + 1) != seen


cdef uint64_t recipients_assign(core_t* core, record_t* record, uint32_t* reached) noexcept nogil:
    """Set the offsets; queues that are not there become 0. How many pages of the index the entries may need."""
    cdef recipient_t* recipients = record_recipients(record)
    cdef uint64_t pages = 0
    cdef uint32_t slot
    cdef queue_t* queue
    for slot in range(record.spare):
        queue = find_queue(core, recipients[slot].queue)
        if queue == NULL:
            recipients[slot].queue = 0
            continue
        recipients[slot].offset = queue.next
        reached[0] += 1
        if queue.next % LEAF == 0:
            pages += 2 + (queue.tree >> 32)
    return pages


cdef uint64_t fanout_append(core_t* core, const record_t* record, bint replay) noexcept nogil:
    """An index entry in each recipient's queue. Each holds the record on its own: returns their bytes together."""
    cdef const recipient_t* recipients = record_recipients(record)
    cdef uint32_t tag = attribute_hash(record, ATTRIBUTE_TAG)
    cdef uint32_t key = attribute_hash(record, ATTRIBUTE_KEY)
    cdef uint32_t size = <uint32_t>message_room(record)
    cdef uint64_t live = 0
    cdef uint32_t slot
    cdef queue_t* queue
    cdef entry_t* entry
    for slot in range(record.spare):
        queue = find_queue(core, recipients[slot].queue) if recipients[slot].queue else NULL
        if queue == NULL:
            continue
        if replay and not place_free(core, queue, recipients[slot].offset):
            continue
        entry = entry_next(core, queue, record, size)
        entry.tag = tag
        entry.key = key
        entry.spare = slot
        store64(&queue.next, queue.next + 1)
        live += size
    fanout_note(core, record)
    return live


cdef bint queue_there(Store store, uint32_t queue) noexcept nogil:
    """Whether there is a queue with that number: one that was deleted and made again has another."""
    return find_queue(<core_t*>store.core, queue) != NULL


cdef class FanoutReceipt:
    """What a fan-out returns: count queues got the message (0 if it had been stored before).

    A queue that has a message of that id already, within its window, is not counted.
    """
    cdef readonly Store store
    cdef readonly uint64_t position
    cdef readonly uint32_t count
    cdef readonly bint duplicate
    cdef bint disk

    @property
    def durability(self):
        """The level reached: "disk" or "kernel"."""
        return "disk" if self.disk else "kernel"

    @property
    def id(self):
        """The message's id, unique in the store."""
        return f"{self.position:016x}"

    def recipients(self):
        """Which queues (ids) got it, and the offset it has in each: an array with columns offset, queue.

        Of a duplicate by id those of the message that was stored first; none if that waits, or is purged.
        """
        return recipients_read(self.store, self.position)

    def __repr__(self):
        return f"FanoutReceipt(id={self.id!r}, count={self.count}, durability={self.durability!r})"


cdef object recipients_read(Store store, uint64_t position):
    cdef core_t* core = enter(store)
    cdef uint64_t pin
    cdef const record_t* record
    columns = [("offset", "<u8"), ("queue", "<u4")]
    pin_take(core, &pin)
    try:
        record = record_at(core, position) if position != NEVER else NULL
        if position == NEVER or (record != NULL and record.type == RECORD_PENDING):
            return np.zeros(0, columns)
        if record != NULL and record.type in (RECORD_MESSAGE, RECORD_PLACE):
            return np.array([(record.offset, record.queue)], columns)
        if record == NULL or record.type != RECORD_FANOUT:
            raise InvalidError(f"there is no fan-out at position {position:#x}, or not any more")
        found = np.frombuffer((<const char*>record_recipients(record))[:record.spare * sizeof(recipient_t)],
                              [*columns, ("spare", "<u4")])
        return found[found["queue"] != 0][["offset", "queue"]]
    finally:
        pin_give(core)
        leave(core)


cdef FanoutReceipt fanout_send(Store store, object queues, object body, bytes ext, object attributes,
                               object durability, uint64_t producer, uint64_t sequence, object notes_version,
                               Queue home):
    cdef core_t* core
    cdef lane_t* lane
    cdef round_t* round = NULL
    cdef operation_t result
    cdef uint32_t place = 0
    cdef int verdict
    cdef Py_buffer view
    cdef int level = level_of(store, durability)
    cdef const uint32_t[::1] ids = np.unique(np.fromiter((queue.id for queue in queues), np.uint32))
    cdef uint32_t count = <uint32_t>ids.shape[0]
    cdef uint32_t decides = 0 if home is None else home.id
    cdef uint32_t notes = 0 if notes_version is None else <uint32_t>((notes_version + 1) & 0xFFFFFFFF)
    cdef const uint8_t* text
    cdef uint16_t ext_size
    memset(&result, 0, sizeof(result))
    if not 1 <= count <= FANOUT_QUEUES:
        raise InvalidError(f"a fan-out goes to 1 to {FANOUT_QUEUES} queues, not {count}")
    if attributes is not None:
        if ext:
            raise InvalidError("a message has attributes or ext, not both")
        ext = attributes.pack()
        level |= ATTRIBUTED
    if len(ext) > 65535:
        raise TooLargeError(f"ext has {len(ext)} bytes, at most 65535")
    text = <const uint8_t*>PyBytes_AS_STRING(ext)
    ext_size = <uint16_t>len(ext)
    PyObject_GetBuffer(body, &view, PyBUF_SIMPLE)
    try:
        if view.len > 0x3FFFFFFF:
            raise TooLargeError(f"a body of {view.len} bytes")
        core = enter(store)
        lane = <lane_t*>store.direct
        with nogil:
            verdict = fanout_stage(core, lane, 0, &ids[0], count, level, producer, sequence, text, ext_size,
                                   <const uint8_t*>view.buf, <uint32_t>view.len, notes, decides, True, &round,
                                   &place)
            if verdict == DONE:
                lane_direct(lane, round)
                result = round.operations[place]
                lane_claimed(lane, round)
            leave(core)
    finally:
        PyBuffer_Release(&view)
    if verdict != DONE:
        raise_verdict(verdict, f"fan-out to {count} queues")
    return fanout_receipt(store, &result, count)


cdef FanoutReceipt fanout_receipt(Store store, const operation_t* result, uint32_t count):
    """What a fan-out to so many queues came to; raises why it was refused."""
    cdef FanoutReceipt receipt
    if result.verdict == STALE:
        raise ConflictError("a note was changed since they were read: read them again")
    raise_verdict(result.verdict, f"fan-out to {count} queues")
    receipt = FanoutReceipt.__new__(FanoutReceipt)
    receipt.store = store
    receipt.position = result.offset
    receipt.count = result.queue
    receipt.duplicate = result.duplicate
    receipt.disk = result.durability
    return receipt


def fanout_many(Store store not None, messages, *, durability=None, notes_version=None):
    """Store.fanout for a sequence of (queues, body, attributes), in one frame: after a crash all are there or none.

    Returns a receipt each. Raises as it does; a store that the first of them have filled may keep those.
    """
    cdef core_t* core
    cdef lane_t* lane
    cdef round_t* round = NULL
    cdef uint32_t place = 0
    cdef int verdict
    cdef list given = list(messages)
    cdef uint32_t many = <uint32_t>len(given)
    cdef int level = level_of(store, durability)
    cdef uint32_t notes = 0 if notes_version is None else <uint32_t>((notes_version + 1) & 0xFFFFFFFF)
    cdef fan_t* fans
    cdef list kept = []         # what fans points into
    cdef operation_t* results
    if many == 0:
        return []
    fans = <fan_t*>calloc(many, sizeof(fan_t))
    results = <operation_t*>calloc(many, sizeof(operation_t))
    try:
        if fans == NULL or results == NULL:
            raise MemoryError()
        for index, message in enumerate(given):
            fan_fill(fans + <uint32_t>index, message, kept)
        core = enter(store)
        lane = <lane_t*>store.direct
        with nogil:
            verdict = fans_stage(core, lane, 0, fans, many, level | ATTRIBUTED, 0, 0, notes, True, &round, &place)
            if verdict == DONE:
                lane_direct(lane, round)
                memcpy(results, round.operations + place, many * sizeof(operation_t))
                lane_claimed(lane, round)
            leave(core)
        if verdict != DONE:
            raise_verdict(verdict, f"{many} fan-outs")
        return [fanout_receipt(store, results + index, fans[index].count) for index in range(many)]
    finally:
        free(fans)
        free(results)


cdef int fan_fill(fan_t* fan, tuple message, list kept) except -1:
    """One message of fanout_many; what it points into is added to kept."""
    queues, body, attributes = message
    cdef bytes text = body
    cdef bytes ext = attributes.pack()
    cdef bytes ids = np.unique(np.fromiter((queue.id for queue in queues), np.uint32)).tobytes()
    fan.count = <uint32_t>(PyBytes_GET_SIZE(ids) // 4)
    if not 1 <= fan.count <= FANOUT_QUEUES:
        raise InvalidError(f"a fan-out goes to 1 to {FANOUT_QUEUES} queues, not {fan.count}")
    if PyBytes_GET_SIZE(text) > 0x3FFFFFFF or PyBytes_GET_SIZE(ext) > 65535:
        raise TooLargeError(f"a body of {len(text)} bytes, attributes of {len(ext)}")
    fan.queues = <const uint32_t*>PyBytes_AS_STRING(ids)
    fan.ext, fan.ext_size = <const uint8_t*>PyBytes_AS_STRING(ext), <uint16_t>PyBytes_GET_SIZE(ext)
    fan.body, fan.body_size = <const uint8_t*>PyBytes_AS_STRING(text), <uint32_t>PyBytes_GET_SIZE(text)
    kept.extend((ids, ext, text))
    return 0
