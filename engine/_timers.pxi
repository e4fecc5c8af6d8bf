# What is due when. One process at a time is the timekeeper: it holds the times of all open delayed messages in a wheel
# of its own memory, made from the table of what is pending, and places them into their queues when they are due.
#
# Invariants: 1. The wheel proposes and the table decides: an element that was decided or moved since is dropped, so a
# stale or a second wheel does no harm. 2. The wheel has every open entry below seen. 3. Slots of level 0 span one tick;
# an element lies in the lowest level at which its tick and the current one differ, so lower levels fall due first.

cdef enum:
    TICK_BITS = 10              # 1.024 ms
    LEVELS = 6
    BLOCK_ITEMS = 127
    FIRE_AT_ONCE = 4096         # messages placed by one commit
    KEEPER_SILENT_US = 500000   # after which another process takes over
    KEEPER_POLL_US = 100000
    FULL_AGAIN_US = 1000000     # a full disk is tried again

cdef enum:
    # Why a pending message was dropped: the offset of a CANCEL record.
    REASON_ASKED = 0
    REASON_ROLLBACK = 1
    REASON_CHECKS = 2           # its producer was asked as often as may be and never said
    REASON_QUEUE = 3            # its queue was deleted

cdef struct timer_t:
    uint64_t due_us
    uint64_t number

cdef struct block_t:
    block_t* next
    uint64_t count
    timer_t items[127]

cdef struct chain_t:
    block_t* first
    block_t* last

cdef struct wheel_t:
    uint64_t current            # the tick up to which all is out
    uint64_t seen               # entries of the table that were taken over
    uint64_t count
    block_t* idle
    timer_t* ready              # due, in order; from ready_at on not yet placed
    uint64_t ready_count, ready_at, ready_room
    round_t* round
    uint64_t bits[24]           # LEVELS × 256: slots that are not empty
    chain_t slots[1536]         # LEVELS × 256

cdef extern from *:
    """
    #include <stdlib.h>
    typedef struct { unsigned long long due, number; } timer_pair;
    static int timer_order(const void *a, const void *b) {
        const timer_pair *one = (const timer_pair *)a, *other = (const timer_pair *)b;
        if (one->due != other->due) return one->due < other->due ? -1 : 1;
        return one->number < other->number ? -1 : one->number > other->number;
    }
    static void timers_sort(void *items, size_t count) { qsort(items, count, sizeof(timer_pair), timer_order); }
    static inline int high_bit(unsigned long long word) { return 63 - __builtin_clzll(word); }
    static inline int low_bit(unsigned long long word) { return __builtin_ctzll(word); }
    static inline unsigned long long keeper_token(const void *core) {
        return (unsigned long long)getpid() << 32 | ((uintptr_t)core >> 4 & 0xFFFFFFFF);
    }
    """
    void timers_sort(void*, size_t) nogil
    int high_bit(uint64_t) nogil
    int low_bit(uint64_t) nogil
    uint64_t keeper_token(const void*) nogil


cdef wheel_t* wheel_new(uint64_t now) noexcept nogil:
    cdef wheel_t* wheel = <wheel_t*>calloc(1, sizeof(wheel_t))
    if wheel == NULL:
        return NULL
    wheel.current = now >> TICK_BITS
    wheel.round = round_new()
    if wheel.round == NULL:
        free(wheel)
        return NULL
    return wheel


cdef void wheel_free(core_t* core) noexcept nogil:
    cdef wheel_t* wheel = <wheel_t*>core.wheel
    cdef int at
    core.wheel = NULL
    if wheel == NULL:
        return
    for at in range(LEVELS * 256):
        blocks_free(wheel.slots[at].first)
    blocks_free(wheel.idle)
    round_free(wheel.round)
    free(wheel.ready)
    free(wheel)


cdef void blocks_free(block_t* block) noexcept nogil:
    cdef block_t* next
    while block != NULL:
        next = block.next
        free(block)
        block = next


cdef bint wheel_put(wheel_t* wheel, uint64_t at_us, uint64_t due_us, uint64_t number) noexcept nogil:
    """Hold a message until at_us. False when memory is out."""
    cdef uint64_t tick = max(at_us >> TICK_BITS, wheel.current)
    cdef int level = high_bit(tick ^ wheel.current) >> 3 if tick != wheel.current else 0
    cdef uint32_t slot
    cdef chain_t* chain
    cdef block_t* block
    level = min(level, LEVELS - 1)
    slot = level * 256 + (tick >> 8 * level & 255)
    chain = &wheel.slots[slot]
    block = chain.last
    if block == NULL or block.count == BLOCK_ITEMS:
        block = wheel.idle
        if block != NULL:
            wheel.idle = block.next
        else:
            block = <block_t*>malloc(sizeof(block_t))
            if block == NULL:
                return False
        block.next = NULL
        block.count = 0
        if chain.last != NULL:
            chain.last.next = block
        else:
            chain.first = block
        chain.last = block
        wheel.bits[slot >> 6] |= <uint64_t>1 << (slot & 63)
    block.items[block.count].due_us = due_us
    block.items[block.count].number = number
    block.count += 1
    wheel.count += 1
    return True


cdef uint64_t wheel_next(wheel_t* wheel, uint32_t* slot) noexcept nogil:
    """The first tick of the earliest slot that is not empty, NEVER if all are."""
    cdef int level
    cdef uint32_t at
    cdef uint64_t word
    for level in range(LEVELS):
        at = (wheel.current >> 8 * level & 255) + (level > 0)
        while at < 256:
            word = wheel.bits[(level * 256 + at) >> 6] >> (at & 63)
            if word:
                at += low_bit(word)
                slot[0] = level * 256 + at
                return ((wheel.current >> 8 * (level + 1) << 8) | at) << 8 * level
            at = (at | 63) + 1
    return NEVER


cdef bint ready_reserve(wheel_t* wheel, uint64_t more) noexcept nogil:
    cdef uint64_t room = max(wheel.ready_room, <uint64_t>1024)
    cdef void* wider
    while room < wheel.ready_count + more:
        room *= 2
    if room != wheel.ready_room:
        wider = realloc(wheel.ready, room * sizeof(timer_t))
        if wider == NULL:
            return False
        wheel.ready = <timer_t*>wider
        wheel.ready_room = room
    return True


cdef inline void ready_add(wheel_t* wheel, uint64_t due_us, uint64_t number) noexcept nogil:
    wheel.ready[wheel.ready_count].due_us = due_us
    wheel.ready[wheel.ready_count].number = number
    wheel.ready_count += 1


cdef bint wheel_advance(wheel_t* wheel, uint64_t now) noexcept nogil:
    """Move what is due to the ready ones. False when memory is out: then the wheel is of no use."""
    cdef uint64_t tick
    cdef uint32_t slot = 0
    cdef block_t* block
    cdef block_t* next
    cdef uint64_t at
    while wheel.ready_count - wheel.ready_at < 16 * FIRE_AT_ONCE:
        tick = wheel_next(wheel, &slot)
        if tick > now >> TICK_BITS or (slot < 256 and tick == now >> TICK_BITS):
            wheel.current = max(wheel.current, now >> TICK_BITS)
            break
        wheel.current = tick
        block = wheel.slots[slot].first
        wheel.slots[slot].first = wheel.slots[slot].last = NULL
        wheel.bits[slot >> 6] &= ~(<uint64_t>1 << (slot & 63))
        while block != NULL:
            wheel.count -= block.count
            if not ready_reserve(wheel, block.count):
                return False
            for at in range(block.count):
                if slot >= 256:
                    if not wheel_put(wheel, block.items[at].due_us, block.items[at].due_us, block.items[at].number):
                        return False
                else:
                    ready_add(wheel, block.items[at].due_us, block.items[at].number)
            next = block.next
            block.next = wheel.idle
            wheel.idle = block
            block = next
    return True


cdef bint wheel_follow(core_t* core, wheel_t* wheel, uint64_t now) noexcept nogil:
    """Take over what was stored since. Only what is on disk: no commit can take it back."""
    cdef queue_t* table = pending_table(core, 0)
    cdef uint64_t end
    cdef pending_t* entry
    if table == NULL:
        return True
    end = visible_end(core, table)
    wheel.seen = max(wheel.seen, load64(&table.first))
    while wheel.seen < end:
        entry = pending_entry(core, table, wheel.seen)
        if load64(&entry.verdict) == OPEN and entry.position:
            if entry.due_us <= now:
                if not ready_reserve(wheel, 1):
                    return False
                ready_add(wheel, entry.due_us, wheel.seen)
            elif not wheel_put(wheel, entry.due_us, entry.due_us, wheel.seen):
                return False
        wheel.seen += 1
        if wheel.seen % 65536 == 0:
            store64(&core.control.keeper_us, monotonic_us())
    return True


cdef void fire_stage(core_t* core, wheel_t* wheel, queue_t* table) noexcept nogil:
    """Stage a PLACE for each of the next ready messages that is still open."""
    cdef round_t* round = wheel.round
    cdef uint64_t limit = min(<uint64_t>1 << 20, (core.segment_size - SEGMENT_HEADER_SIZE) // 2) - 256
    cdef uint64_t id, pin
    cdef timer_t* timer
    cdef pending_t* entry
    cdef const record_t* record
    round_clear(round)
    pin_take(core, &pin)
    while wheel.ready_at < wheel.ready_count and round.count < FIRE_AT_ONCE and round.size < limit:
        timer = wheel.ready + wheel.ready_at
        wheel.ready_at += 1
        if timer.number < load64(&table.first):
            continue
        entry = pending_entry(core, table, timer.number)
        if entry.verdict != OPEN or entry.due_us != timer.due_us:
            continue
        id = pending_body(core, entry, &record)
        if id == 0:
            # Damaged: counted, and kept in the table for who repairs it.
            add64(&core.control.corrupt, 1)
        elif not verdict_stage(core, round, timer.number, KIND_FIRE, EVENT_FIRE, id, timer.number * 2 + 1, 0, 1):
            wheel.ready_at -= 1
            break
    pin_give(core)


cdef bint verdict_stage(core_t* core, round_t* round, uint64_t cookie, int kind, int event, uint64_t id,
                        uint64_t hint, uint64_t argument, uint8_t durability) noexcept nogil:
    """Stage what decides a pending message: argument is the new time of a MOVE, the reason of a CANCEL."""
    cdef int type = RECORD_PLACE
    cdef uint64_t position = round.size
    cdef operation_t* operation
    if not round_reserve(round, 128):
        return False
    if kind == KIND_CANCEL:
        type = RECORD_CANCEL
    elif kind == KIND_MOVE:
        type = RECORD_MOVE
        round.soonest = min(round.soonest, argument)
        round.aside += 1
    record_stage(core, round, type, 0, 0, NULL, 0, <const uint8_t*>&id, 8)
    operation = operation_stage(round, cookie, kind, 0, kind != KIND_CANCEL, durability, position)
    operation.offset = argument
    operation.producer = event
    operation.sequence = hint
    return True


cdef void round_store(core_t* core, round_t* round) noexcept nogil:
    store64(&core.control.keeper_us, monotonic_us())
    round_commit(core, round)
    round_finish(core, round)


cdef int64_t fire(core_t* core, wheel_t* wheel, uint64_t now) noexcept nogil:
    """Place one commit's worth of what is ready; how many were placed, -1 when the store is poisoned or memory out."""
    cdef queue_t* table = pending_table(core, 0)
    cdef round_t* round = wheel.round
    cdef operation_t* operation
    cdef uint32_t at
    cdef uint32_t gone = 0
    cdef int64_t placed = 0
    cdef bint kept = True
    fire_stage(core, wheel, table)
    if round.count == 0:
        return 0
    round_store(core, round)
    for at in range(round.count):
        operation = round.operations + at
        if operation.verdict == DONE:
            placed += 1
        elif operation.verdict == POISONED:
            return -1
        elif operation.verdict == NOT_FOUND:
            gone += 1
        elif operation.verdict == STORE_FULL:
            kept &= wheel_put(wheel, now + FULL_AGAIN_US, pending_entry(core, table, operation.cookie).due_us,
                              operation.cookie)
        elif operation.verdict == EARLY:
            kept &= wheel_put(wheel, now + 1000, pending_entry(core, table, operation.cookie).due_us, operation.cookie)
    if gone:
        queue_gone(core, round)
    return placed if kept else -1


cdef void queue_gone(core_t* core, round_t* round) noexcept nogil:
    """Drop the messages of a round whose queues were deleted."""
    cdef uint32_t at, count
    cdef uint64_t id
    cdef round_t* drop = round_new()
    if drop == NULL:
        return
    count = round.count
    for at in range(count):
        if round.operations[at].verdict == NOT_FOUND:
            id = (<const uint64_t*>record_body(<const record_t*>(round.buffer + round.operations[at].position)))[0]
            verdict_stage(core, drop, 0, KIND_CANCEL, EVENT_CANCEL, id, 0, REASON_QUEUE, 0)
    round_store(core, drop)
    round_free(drop)


cdef int64_t time_keep(core_t* core, int64_t* placed) noexcept nogil:
    """Be the timekeeper for a moment, if nobody else is. How many µs there is nothing to do."""
    cdef control_t* control = core.control
    cdef int64_t wait = KEEPER_POLL_US
    cdef uint64_t token = keeper_token(core)
    cdef uint64_t keeper
    cdef int got
    placed[0] = 0
    if load32(&control.poisoned):
        return wait
    got = mutex_try(&control.due_lock)
    if got < 0:
        return wait
    if got == 1:
        store64(&control.keeper, 0)     # it died at its work
    keeper = load64(&control.keeper)
    if keeper != token and keeper and monotonic_us() - load64(&control.keeper_us) < KEEPER_SILENT_US:
        wheel_free(core)
    elif pending_table(core, 0) != NULL:
        store64(&control.keeper, token)
        store64(&control.keeper_us, monotonic_us())
        wait = wheel_turn(core, placed)
    pthread_mutex_unlock(&control.due_lock)
    return wait


cdef int64_t wheel_turn(core_t* core, int64_t* placed) noexcept nogil:
    """Follow, advance, place. How many µs there is nothing to do. Under the timekeeper's lock."""
    cdef control_t* control = core.control
    cdef uint64_t now = store_clock(core)
    cdef wheel_t* wheel = <wheel_t*>core.wheel
    cdef queue_t* table = pending_table(core, 0)
    cdef uint32_t slot = 0
    cdef uint64_t due, ready
    # Until we know better everybody who stores something pending wakes us.
    store64(&control.due_next, NEVER)
    if wheel != NULL and wheel.current > (now >> TICK_BITS) + 1000:
        wheel_free(core)        # the clock stepped back: begin anew
        wheel = NULL
    if wheel == NULL:
        wheel = wheel_new(now)
        core.wheel = wheel
    if wheel == NULL:
        return KEEPER_POLL_US
    if wheel.ready_at == wheel.ready_count:
        wheel.ready_at = wheel.ready_count = 0
    ready = wheel.ready_count
    if not wheel_follow(core, wheel, now) or not wheel_advance(wheel, now):
        wheel_free(core)
        return KEEPER_POLL_US
    if wheel.ready_count > ready:
        timers_sort(wheel.ready + wheel.ready_at, wheel.ready_count - wheel.ready_at)
    placed[0] = fire(core, wheel, now)
    if placed[0] < 0:
        placed[0] = 0
        wheel_free(core)
        return KEEPER_POLL_US
    if wheel.ready_at < wheel.ready_count:
        return 0
    due = wheel_next(wheel, &slot)
    if due != NEVER:
        # A slot of level 0 is over when its tick is.
        due = (due + (slot < 256)) << TICK_BITS
    store64(&control.due_next, due)
    now = store_clock(core)
    if due <= now:
        return 0
    if wheel.seen < load64(&table.next):
        return min(due - now, <uint64_t>1000)     # not on disk yet
    return min(due - now, <uint64_t>KEEPER_POLL_US)
