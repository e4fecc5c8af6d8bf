# A message that is leased leaves its queue for several others at once: the PLACE for the first of them names its origin
# and confirms it there, the others lead to the same body. All of it is one frame: the message is in its old queue or in
# all the new ones. So a topic's message that had to wait is fanned out when it is due.


cdef int spread_stage(core_t* core, lane_t* lane, const dead_t* move, const uint32_t* queues, uint32_t count,
                      uint32_t notes, round_t** into, uint32_t* place) noexcept nogil:
    """Stage it. DONE; NOT_FOUND: the message cannot be read; BUSY: memory is out."""
    cdef uint64_t need = sizeof(origin_t) + (sizeof(record_t) + 8) * <uint64_t>count + 128
    cdef round_t* round
    cdef uint64_t body, at, size
    cdef uint32_t slot, before
    pthread_mutex_lock(&lane.lock)
    while lane.filling.size + need > lane.limit and lane.filling.count:
        pthread_mutex_unlock(&lane.lock)
        lane_turn(lane)
        pthread_mutex_lock(&lane.lock)
    round = lane.filling
    before = round.count
    size = round.size
    if not round_reserve(round, need):
        pthread_mutex_unlock(&lane.lock)
        return BUSY
    if not transfer_stage(core, round, 0, move, True, 1, NULL, 0):
        pthread_mutex_unlock(&lane.lock)
        return NOT_FOUND
    body = (<const uint64_t*>record_body(<const record_t*>(round.buffer + size)))[0]
    round.operations[before].spare = count
    round.operations[before].offset = notes
    for slot in range(1, count):
        at = round.size
        # The room was made above; only the table of operations may have to grow.
        if not round_reserve(round, 64):
            round.messages -= round.count - before
            round.disk -= round.count - before
            round.count = before
            round.size = size
            pthread_mutex_unlock(&lane.lock)
            return BUSY
        record_stage(core, round, RECORD_PLACE, 0, 0, NULL, 0, <const uint8_t*>&body, 8)
        operation_stage(round, 0, KIND_PLACE, queues[slot], 1, 1, at)
    round.claims += 1
    place[0] = before
    pthread_mutex_unlock(&lane.lock)
    into[0] = round
    return DONE


cdef uint8_t spread_admit(core_t* core, round_t* round, operation_t* first) noexcept nogil:
    """Whether a message may leave its queue: DONE; BUSY if a note changed, STALE if the lease is lost, NOT_FOUND."""
    cdef const record_t* record = <const record_t*>(round.buffer + first.position)
    first.verdict = DONE
    if not place_holds(core, record):
        return NOT_FOUND
    if first.offset and notes_changed(core, round, first, <uint32_t>first.offset):
        return BUSY
    if transfer_admit(core, first, record):
        spread_hold(core, <const origin_t*>record_body(record))
    return first.verdict


cdef void spread_hold(core_t* core, const origin_t* origin) noexcept nogil:
    """Lease a message that leaves under a number that nobody has: a second move in the same round finds it taken."""
    cdef group_t* group = find_group(core, origin.group)
    cdef path_t path
    stripe_lock(core, group)
    if tree_find(core, group, origin.offset, False, &path) == DONE and path.slot.state == LEASED:
        group.nonce += 1
        path.slot.nonce = group.nonce
    stripe_unlock(core, group)


cdef struct spread_t:
    round_t* round
    uint32_t place
    uint8_t verdict


cdef uint8_t spread_begin(core_t* core, lane_t* lane, uint32_t group, const receipt_t* receipt, const uint32_t* queues,
                          uint32_t count, uint32_t notes, spread_t* out) noexcept nogil:
    """Stage the move of what a receipt of the group names. DONE, STALE, or why not."""
    cdef dead_t move
    cdef uint8_t verdict = DONE
    cdef group_t* found = receipt_group(core, receipt, &verdict)
    if found == NULL or found.id != group:
        return STALE
    memset(&move, 0, sizeof(dead_t))
    move.offset, move.nonce = receipt.offset, receipt.nonce
    move.queue, move.group, move.generation = found.queue, group, found.generation
    move.to = queues[0]
    move.reason = REASON_DUE
    return <uint8_t>spread_stage(core, lane, &move, queues, count, notes, &out.round, &out.place)


def spread(Consumer consumer not None, bytes receipts not None, list targets not None, notes_version=None):
    """Move messages that the group has leased, each into the first of the queues of its target, with a place in each
    of the others: each all at once, durably, and with no body written again.

    Returns for each the offset that it has in the first, or the error: QueueNotFoundError if one of the queues is
    gone, ConflictError if a note stands between notes_version and the move, InvalidError if the lease is lost.
    """
    cdef Store store = consumer.queue.store
    cdef const receipt_t* given = <const receipt_t*>PyBytes_AS_STRING(receipts)
    cdef uint32_t notes = 0 if notes_version is None else <uint32_t>((notes_version + 1) & 0xFFFFFFFF)
    cdef uint32_t at
    cdef uint32_t count = <uint32_t>len(targets)
    cdef spread_t* moves
    cdef uint32_t[::1] ids
    cdef core_t* core
    cdef lane_t* lane
    if len(receipts) != count * sizeof(receipt_t) or any(not 1 <= len(one) <= FANOUT_QUEUES for one in targets):
        raise InvalidError(f"a receipt for each target, which is 1 to {FANOUT_QUEUES} queues")
    core = enter(store)
    lane = <lane_t*>store.direct
    moves = <spread_t*>calloc(count + 1, sizeof(spread_t))
    try:
        if moves == NULL:
            raise MemoryError()
        for at in range(count):
            ids = np.fromiter((queue.id for queue in targets[at]), np.uint32, len(targets[at]))
            with nogil:
                moves[at].verdict = spread_begin(core, lane, consumer.id, given + at, &ids[0],
                                                 <uint32_t>ids.shape[0], notes, moves + at)
        return [spread_end(lane, moves + at) for at in range(count)]
    finally:
        free(moves)
        leave(core)


cdef object spread_end(lane_t* lane, spread_t* move):
    """Wait for the disk; the offset, or the error."""
    cdef uint64_t offset = 0
    cdef uint8_t verdict = move.verdict
    if move.round != NULL:
        with nogil:
            lane_direct(lane, move.round)
            verdict = move.round.operations[move.place].verdict
            offset = move.round.operations[move.place].offset
            lane_claimed(lane, move.round)
    if verdict == STALE:
        return InvalidError("the lease is lost, or the receipt is not one of this group")
    if verdict == BUSY and move.round != NULL:
        return ConflictError("a note was changed since they were read: read them again")
    try:
        raise_verdict(verdict, "moving a message into several queues")
    except EngineError as error:
        return error
    return offset


def known_message(Queue queue not None, str id not None):
    """The receipt, with duplicate set, of the message of that id (Attributes.id) that the queue knows; None if none."""
    cdef core_t* core = enter(queue.store)
    cdef queue_t* found
    cdef remembered_t wanted
    cdef operation_t operation
    cdef bint waits = False
    cdef bint known = False
    cdef bytes raw = id.encode()
    memset(&operation, 0, sizeof(operation))
    hash_id(core, <const uint8_t*>PyBytes_AS_STRING(raw), len(raw), &wanted)
    with nogil:
        store_lock(core)
        found = find_queue(core, queue.id)
        if found != NULL and found.settings:
            known = dedup_found(core, found, &wanted, store_clock(core), &operation.offset, &waits)
        pthread_mutex_unlock(&core.control.store_lock)
        leave(core)
    if not known:
        return None
    operation.queue, operation.count, operation.duplicate = queue.id, 1, 1
    operation.durability = 1
    operation.kind = KIND_PENDING if waits else KIND_APPEND
    return receipt_of(&operation)


cdef bint group_ready(core_t* core, uint32_t id, uint64_t now) noexcept nogil:
    """Whether a take of the group would find something, as far as can be told without one."""
    cdef group_t* group = find_group(core, id)
    cdef queue_t* queue = find_queue(core, group.queue) if group != NULL else NULL
    if queue == NULL:
        return False
    return max(load64(&group.cursor), load64(&queue.first)) < visible_end(core, queue) or group.root.ready > 0 \
        or group.root.due <= now


def ready_groups(Store store not None, list consumers not None):
    """Those of the groups for which there is something to take."""
    cdef core_t* core = live(store)
    cdef uint64_t now = store_clock(core)
    cdef Consumer consumer
    return [consumer for consumer in consumers if group_ready(core, consumer.id, now)]


cdef bint any_ready(core_t* core, const uint32_t* groups, uint32_t count, uint64_t version) noexcept nogil:
    """Whether one of the groups has something to take, or notes are no more at that version."""
    cdef notes_t* notes = notes_table(core, False)
    cdef uint64_t now = store_clock(core)
    cdef uint32_t at
    if (load64(&notes.version) if notes != NULL else 0) != version:
        return True
    for at in range(count):
        if group_ready(core, groups[at], now):
            return True
    return False


cdef enum:
    LOOK_US = 100000            # what falls due by itself wakes nobody: it is looked for so often
    PAUSE_US = 2000             # between two looks where much arrives that is for others


def await_ready(Store store not None, list consumers not None, uint64_t version, uint32_t wait_ms):
    """Wait until one of the groups has something to take or notes_version() is another, at most wait_ms.

    Python runs on meanwhile: what arrives for others is looked at without its lock, once in PAUSE_US at most.
    """
    cdef core_t* core
    cdef uint64_t until = monotonic_us() + wait_ms * <uint64_t>1000
    cdef uint64_t now
    cdef uint32_t seen
    cdef Consumer consumer
    groups = np.fromiter((consumer.id for consumer in consumers), np.uint32, len(consumers))
    cdef const uint32_t[::1] ids = groups
    cdef uint32_t count = <uint32_t>len(consumers)
    core = enter(store)
    with nogil:
        while True:
            seen = load32(&core.control.arrival_word)
            now = monotonic_us()
            if any_ready(core, &ids[0] if count else NULL, count, version) or now >= until:
                break
            add32(&core.control.receivers, 1)
            futex_wait(&core.control.arrival_word, seen, min(until - now, <uint64_t>LOOK_US))
            add32(&core.control.receivers, -1)
            nap_us(PAUSE_US)
        leave(core)
