# Retries and dead letters: what a group's retry policy makes of a message that is given back or whose lease ran out.
# While attempts are left it waits as long as the policy's table says; then it is moved to the dead-letter queue by
# one PLACE record that names where it came from. That record is the move: the entry there and the confirmation here
# come from it, live and in replay, so a message is never in neither and never in both.
#
# Invariant: a message on its way out is LEASED under a number that no receipt has (dying); the record is admitted only
# while that holds. If the mover dies, the lease ends and the next take moves it.

cdef enum:
    DELAYS = 64                 # of a back-off table
    DEADS = 64                  # messages moved out by one take
    DYING_US = 10000000         # how long a mover has
    REASON_BYTES = 1024         # of the text given with a release
    BY_POLICY = 0xFFFFFFFF      # a release's delay: as the group's table says
    FREED = 64                  # groups of releases that lanes may learn of one by one

cdef enum:
    REASON_ATTEMPTS = 1         # delivered as often as allowed, the last lease ran out
    REASON_RELEASED = 2         # given back for the last time
    REASON_REDRIVEN = 3         # taken out of a queue of dead letters
    REASON_AGED = 4             # nobody confirmed it in time
    REASON_DUE = 5              # it waited for a topic: its origin is told to nobody

cdef struct policy_t:
    # Field 3 of a group's settings.
    uint8_t version             # 1
    uint8_t zero
    uint16_t attempts           # 0: without limit
    uint32_t dead_letter        # the queue's id
    uint32_t count
    uint32_t delays_ms[64]

cdef struct dead_t:
    uint64_t offset
    uint32_t queue, group, generation
    uint32_t nonce
    uint32_t attempts
    uint32_t to
    uint32_t reason

cdef struct deads_t:
    uint32_t count
    dead_t at[64]


cdef const policy_t* policy_of(core_t* core, const group_t* group) noexcept nogil:
    """The group's retry policy; NULL if it has none. Under its stripe lock."""
    cdef uint32_t size = 0
    cdef const policy_t* policy
    if group.settings[SETTING_RETRY - 1] == 0:
        return NULL
    policy = <const policy_t*>setting_find(core, group, SETTING_RETRY, &size)
    if size < 12 or policy.version != 1 or policy.count > DELAYS or size != 12 + 4 * policy.count:
        return NULL
    return policy


cdef inline bint used_up(const policy_t* policy, const slot_t* slot) noexcept nogil:
    return policy != NULL and policy.attempts and slot.attempts >= policy.attempts


cdef uint64_t delay_us(const policy_t* policy, uint32_t attempts) noexcept nogil:
    """How long a message waits that was delivered so often."""
    if policy == NULL or policy.count == 0:
        return 0
    return policy.delays_ms[min(max(attempts, <uint32_t>1), policy.count) - 1] * <uint64_t>1000


cdef void dying(core_t* core, group_t* group, path_t* path, uint64_t offset, uint64_t now, const policy_t* policy,
                uint32_t reason, dead_t* out) noexcept nogil:
    """Hold a message for its mover, under a number that nobody has."""
    cdef uint16_t attempts = path.slot.attempts
    if path.slot.state == LEASED:
        group.nonce += 1
        path.slot.nonce = group.nonce
        path.slot.until_us = now + DYING_US
        path_due(group, path, path.slot.until_us)
    else:
        slot_lease(group, path, now + DYING_US)
    path.slot.attempts = attempts
    out.offset = offset
    out.queue = group.queue
    out.group = group.id
    out.generation = group.generation
    out.nonce = path.slot.nonce
    out.attempts = attempts
    out.to = policy.dead_letter
    out.reason = reason


cdef bint transfer_stage(core_t* core, round_t* round, uint64_t cookie, const dead_t* dead, bint held,
                         uint8_t durability, const uint8_t* text, uint16_t text_size) noexcept nogil:
    """Stage the PLACE that moves a message, into a round with room for it. False if it cannot be read."""
    cdef uint8_t body[1064]     # an origin and the longest text
    cdef origin_t* origin = <origin_t*>body
    cdef queue_t* queue = find_queue(core, dead.queue)
    cdef const record_t* record = NULL
    cdef entry_t* entry
    cdef uint64_t pin
    cdef uint64_t position = round.size
    cdef operation_t* operation
    memset(origin, 0, sizeof(origin_t))
    pin_take(core, &pin)
    if queue != NULL and dead.offset < load64(&queue.next):
        entry = index_leaf(core, queue, dead.offset) + dead.offset % LEAF
        record = record_at(core, entry.position)
        record = message_of(core, record) if record != NULL and puts_message(record, entry, dead.queue, dead.offset) \
            else NULL
    if record != NULL:
        origin.position = record.position
    pin_give(core)
    if origin.position == 0:
        return False
    origin.offset = dead.offset
    origin.queue = dead.queue
    origin.group = dead.group
    origin.generation = dead.generation
    origin.attempts = dead.attempts
    origin.reason = <uint16_t>dead.reason
    origin.text_size = text_size
    if text_size:
        memcpy(body + sizeof(origin_t), text, text_size)
    record_stage(core, round, RECORD_PLACE, 0, 0, NULL, 0, body, <uint32_t>sizeof(origin_t) + text_size)
    operation = operation_stage(round, cookie, KIND_TRANSFER, dead.to, 1, durability, position)
    # Which hold admits it: that of the mover, or (0) whichever leaves the message free.
    operation.producer = <uint64_t>1 << 32 | dead.nonce if held else 0
    return True


cdef void deads_move(core_t* core, lane_t* lane, const dead_t* deads, uint32_t count, const uint8_t* text,
                     uint16_t text_size) noexcept nogil:
    """Get messages that are dying on their way to their dead-letter queues."""
    cdef uint32_t at
    cdef round_t* round
    cdef bint staged
    for at in range(count):
        round = aside_begin(lane, sizeof(record_t) + sizeof(origin_t) + REASON_BYTES, not lane.threaded)
        if round == NULL:
            return              # their holds end, and they are found again
        staged = transfer_stage(core, round, NEVER, deads + at, True, 0, text, text_size)
        if not staged and not lane.threaded:
            round.claims -= 1
        pthread_mutex_unlock(&lane.lock)
        if staged:
            aside_commit(lane, round)


cdef void place_admit(core_t* core, operation_t* operation, const record_t* record) noexcept nogil:
    """Refuse a PLACE whose body is gone, or that moves what may not be moved now."""
    if not place_holds(core, record):
        operation.verdict = NOT_FOUND
    elif operation.kind == KIND_TRANSFER:
        transfer_admit(core, operation, record)


cdef bint transfer_admit(core_t* core, operation_t* operation, const record_t* record) noexcept nogil:
    """Whether a message may be moved now: it is still the mover's, or free. Under the store lock."""
    cdef const origin_t* origin = <const origin_t*>record_body(record)
    cdef group_t* group = find_group(core, origin.group)
    cdef path_t path
    cdef bint may = False
    if group == NULL or group.queue != origin.queue or find_queue(core, operation.queue) == NULL:
        operation.verdict = NOT_FOUND
        return False
    stripe_lock(core, group)
    if group.generation == origin.generation and origin.offset >= group.floor:
        if operation.producer:
            may = tree_find(core, group, origin.offset, False, &path) == DONE and path.slot.state == LEASED \
                and path.slot.nonce == <uint32_t>operation.producer
        elif tree_find(core, group, origin.offset, True, &path) == DONE and path.slot.state != CONFIRMED \
                and path.slot.state != LEASED:
            # Held at once, so that a second request in the same round finds it taken.
            slot_lease(group, &path, store_clock(core) + DYING_US)
            may = True
    stripe_unlock(core, group)
    if not may:
        operation.verdict = STALE
    return may


cdef void transfer_apply(core_t* core, const record_t* record) noexcept nogil:
    """A PLACE that names an origin confirms the message there. Idempotent."""
    cdef const origin_t* origin = <const origin_t*>record_body(record)
    cdef group_t* group
    cdef path_t path
    if record.type != RECORD_PLACE or record.body_size < sizeof(origin_t):
        return
    group = find_group(core, origin.group)
    if group == NULL or group.generation != origin.generation:
        return
    stripe_lock(core, group)
    if not load32(&core.control.ready):
        confirm_range(core, group, origin.offset, 1)
    elif origin.offset >= group.floor and tree_find(core, group, origin.offset, True, &path) == DONE \
            and path.slot.state != CONFIRMED:
        slot_confirm(core, group, &path)
        if group.cursor == origin.offset:
            group.cursor += 1
        if group.floor == origin.offset:
            floor_advance(core, group)
        if group.order:
            order_done(core, group, origin.offset)
    stripe_unlock(core, group)


cdef list transfer_many(Consumer consumer, list offsets, list targets, uint16_t reason):
    cdef Store store = consumer.queue.store
    cdef core_t* core = enter(store)
    cdef lane_t* lane = <lane_t*>store.direct
    cdef uint32_t count = <uint32_t>len(offsets)
    cdef dead_t* moves = <dead_t*>calloc(count + 1, sizeof(dead_t))
    cdef bytes verdicts = PyBytes_FromStringAndSize(NULL, count)
    cdef uint8_t* out = <uint8_t*>PyBytes_AS_STRING(verdicts)
    cdef group_t* group = find_group(core, consumer.id)
    cdef uint32_t at
    try:
        if moves == NULL:
            raise MemoryError()
        for at in range(count):
            moves[at].offset = offsets[at]
            moves[at].queue = consumer.queue.id
            moves[at].group = consumer.id
            moves[at].generation = group.generation if group != NULL else 0
            moves[at].to = targets[at]
            moves[at].reason = reason
        with nogil:
            transfers_commit(core, lane, moves, count, out)
        return list(verdicts)
    finally:
        free(moves)
        leave(core)


cdef void transfers_commit(core_t* core, lane_t* lane, const dead_t* moves, uint32_t count,
                           uint8_t* verdicts) noexcept nogil:
    """Move messages and wait for the disk, in few commits."""
    cdef round_t** rounds = <round_t**>calloc(count + 1, sizeof(round_t*))
    cdef uint32_t* places = <uint32_t*>calloc(count + 1, sizeof(uint32_t))
    cdef uint32_t at
    for at in range(count):
        verdicts[at] = BUSY
        if rounds == NULL or places == NULL:
            continue
        rounds[at] = aside_begin(lane, sizeof(record_t) + sizeof(origin_t), True)
        if rounds[at] == NULL:
            continue
        places[at] = rounds[at].count
        if not transfer_stage(core, rounds[at], 0, moves + at, False, 1, NULL, 0):
            rounds[at].claims -= 1
            rounds[at] = NULL
            verdicts[at] = NOT_FOUND
        pthread_mutex_unlock(&lane.lock)
    for at in range(count):
        if rounds != NULL and places != NULL and rounds[at] != NULL:
            lane_direct(lane, rounds[at])
            verdicts[at] = rounds[at].operations[places[at]].verdict
            lane_claimed(lane, rounds[at])
    free(rounds)
    free(places)


cdef int release_noted(core_t* core, lane_t* lane, const receipt_t* receipts, uint32_t count, uint32_t delay_ms,
                       const uint8_t* text, uint16_t text_size, uint8_t* verdicts) noexcept nogil:
    """Give back what the receipts name: at once, after a delay, or (attempts used up) to the dead-letter queue.

    A delay survives a restart. Returns how many were DONE, or -STORE_FULL when memory is out.
    """
    cdef uint64_t now = store_clock(core)
    cdef released_t* released = <released_t*>malloc(count * (sizeof(released_t) + sizeof(dead_t)))
    cdef dead_t* deads = <dead_t*>(released + count)
    cdef uint32_t noted = 0
    cdef uint32_t dead = 0
    cdef uint32_t at
    cdef int done = 0
    cdef group_t* group
    cdef group_t* held = NULL
    if released == NULL:
        return -STORE_FULL
    for at in range(count):
        group = receipt_group(core, receipts + at, verdicts + at)
        if group != held:
            if held != NULL:
                stripe_unlock(core, held)
            held = group
            if held != NULL:
                stripe_lock(core, held)
        if group != NULL:
            verdicts[at] = <uint8_t>release_one(core, group, receipts + at, now, delay_ms, released + noted,
                                                &noted, deads + dead, &dead)
        done += verdicts[at] == DONE
    if held != NULL:
        stripe_unlock(core, held)
    groups_freed(core, receipts, count, verdicts)
    if noted:
        releases_record(core, lane, released, noted)
    if dead:
        deads_move(core, lane, deads, dead, text, text_size)
    free(released)
    return done


cdef void groups_freed(core_t* core, const receipt_t* receipts, uint32_t count, const uint8_t* verdicts) noexcept nogil:
    """Tell those who wait for a message of these groups, and nobody else."""
    cdef uint32_t at, number
    cdef uint32_t last = 0
    for at in range(count):
        if verdicts[at] == DONE and receipts[at].group != last:
            last = receipts[at].group
            number = add32(&core.control.freed_count, 1)
            store64(&core.control.freed[number % FREED], <uint64_t>number << 32 | last)
    add32(&core.control.arrival_word, 1)
    if load32(&core.control.receivers):
        futex_wake(&core.control.arrival_word)


cdef int release_one(core_t* core, group_t* group, const receipt_t* receipt, uint64_t now, uint32_t delay_ms,
                     released_t* released, uint32_t* noted, dead_t* dead, uint32_t* dead_count) noexcept nogil:
    """Give one message back. DONE or STALE."""
    cdef path_t path
    cdef const policy_t* policy = policy_of(core, group)
    cdef uint64_t wait_us
    if lease_find(core, group, receipt.offset, receipt.nonce, now, &path) != DONE:
        return STALE
    if used_up(policy, path.slot):
        dying(core, group, &path, receipt.offset, now, policy, REASON_RELEASED, dead)
        dead_count[0] += 1
        return DONE
    wait_us = delay_us(policy, path.slot.attempts) if delay_ms == BY_POLICY else delay_ms * <uint64_t>1000
    if wait_us == 0:
        path_waiting(group, &path, -1)
        path_ready(group, &path, 1)
        path.slot.state = READY
        return DONE
    path.slot.until_us = now + wait_us
    store8(&path.slot.state, WAITING)
    path_due(group, &path, path.slot.until_us)
    released.group = group.id
    released.generation = group.generation
    released.what.offset = receipt.offset
    released.what.until_us = path.slot.until_us
    released.what.attempts = path.slot.attempts
    noted[0] += 1
    return DONE
