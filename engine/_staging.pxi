# Lanes: where operations are staged, and who commits them. An event loop's lane has a committer thread; callers
# without a loop (_direct.pxi) commit for one another.

cdef enum:
    SLOW_SYNC_US = 500          # where the disk takes longer, a second thread commits while the first waits for it
    BRIEF_BYTES = 1 << 18       # a loop commits no more than this by itself,
    BRIEF_FEW = 16              # and of fewer operations than that a quarter
    FLUSH_US = 5000             # a committer at work flushes what asks for no disk that often

cdef struct lane_t:
    core_t* core
    pthread_mutex_t lock
    pthread_mutex_t turn        # who commits, of the direct callers
    round_t* filling
    round_t* idle
    round_t* flight_first       # written and not finished, in that order
    uint64_t tickets
    round_t* done_first
    round_t* done_last
    uint32_t word               # futex: there is something to commit
    uint32_t asleep
    uint32_t assist_word        # futex: the same, for the second committer
    uint32_t assist_asleep
    uint32_t sync_us            # how long a round waits for the disk, a running mean
    uint32_t flying             # rounds of direct callers between their commit and their end
    uint32_t stop
    uint32_t pending            # rounds staged or under way
    uint32_t told               # the event is set, and the loop has not looked since
    uint32_t flushing           # the committer is about to flush what was sent at kernel durability
    uint32_t looking            # the loop commits by itself, and will look then
    uint64_t limit              # bytes a round may have
    int event
    pthread_t thread, assistant
    uint64_t flushed_us
    uint32_t threaded, assisted
    uint32_t arrived            # the arrival word when the loop was last told
    uint32_t common_seen        # of control's common_word and freed_count when receivers were last woken
    uint32_t freed_seen
    uint32_t watching           # the loop has receivers that wait: other processes' messages matter

cdef extern from *:
    """
    static inline int event_new(void) { return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC); }
    static inline void event_set(int fd) { uint64_t one = 1; if (write(fd, &one, 8) < 0) {} }
    static inline void event_clear(int fd) { uint64_t count; if (read(fd, &count, 8) < 0) {} }
    static inline int thread_start(pthread_t *thread, void *(*run)(void *), void *with) {
        sigset_t all, old;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        int failed = pthread_create(thread, NULL, run, with);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        return failed;
    }
    """
    int event_new() nogil
    void event_set(int) nogil
    void event_clear(int) nogil
    int thread_start(pthread_t*, void* (*)(void*) noexcept nogil, void*) nogil
    int pthread_join(pthread_t, void**) nogil


cdef lane_t* lane_new(core_t* core) noexcept nogil:
    cdef lane_t* lane = <lane_t*>calloc(1, sizeof(lane_t))
    if lane == NULL:
        return NULL
    lane.core = core
    lane.event = event_new()
    lane.limit = min(<uint64_t>16 << 20, (core.segment_size - SEGMENT_HEADER_SIZE) // 2)
    pthread_mutex_init(&lane.lock, NULL)
    pthread_mutex_init(&lane.turn, NULL)
    lane.filling = round_new()
    if lane.filling == NULL:
        free(lane)
        return NULL
    return lane


cdef void lane_free(lane_t* lane) noexcept nogil:
    cdef round_t* round
    if lane == NULL:
        return
    round_free(lane.filling)
    while lane.idle != NULL:
        round = lane.idle
        lane.idle = round.next
        round_free(round)
    while lane.done_first != NULL:
        round = lane.done_first
        lane.done_first = round.next
        round_free(round)
    while lane.flight_first != NULL:
        round = lane.flight_first
        lane.flight_first = round.next
        round_free(round)
    c_close(lane.event)
    free(lane)


cdef round_t* lane_swap(lane_t* lane) noexcept nogil:
    """Take the filling round out and put an idle one there; NULL if nothing is staged. Under the lane's lock."""
    cdef round_t* round = lane.filling
    cdef round_t* fresh
    if round.count == 0:
        return NULL
    fresh = lane.idle
    if fresh != NULL:
        lane.idle = fresh.next
        round_clear(fresh)
    else:
        fresh = round_new()
        if fresh == NULL:
            return NULL
    lane.filling = fresh
    lane.pending += 1
    return round


cdef void lane_rest(lane_t* lane, round_t* round) noexcept nogil:
    """Keep a round for later use, its buffer not too large. Under the lane's lock."""
    lane.pending -= 1
    if round.room > 4 << 20:
        round_free(round)
        return
    round_clear(round)
    round.next = lane.idle
    lane.idle = round


cdef bint lane_slow(lane_t* lane) noexcept nogil:
    """Whether a sync takes so long that the next round should not wait for its end."""
    return load32(&lane.sync_us) > SLOW_SYNC_US


cdef bint lane_brief(lane_t* lane) noexcept nogil:
    """Whether a loop commits what is staged by itself: waking a thread, and being woken, takes as long as the disk.

    While a large round is written the loop reads the next one.
    """
    cdef round_t* round = lane.filling
    return not lane_slow(lane) and round.size <= (BRIEF_BYTES if round.count >= BRIEF_FEW else BRIEF_BYTES // 4)


cdef void lane_paced(lane_t* lane, uint64_t began) noexcept nogil:
    """Learn how long a round waited for the disk."""
    cdef uint32_t mean = load32(&lane.sync_us)
    store32(&lane.sync_us, mean - mean // 8 + <uint32_t>min(monotonic_us() - began, <uint64_t>1000000) // 8)


cdef void lane_finish(lane_t* lane, round_t* round) noexcept nogil:
    """round_finish, and how long that took."""
    cdef uint64_t began = monotonic_us()
    if round.disk:
        round_finish(lane.core, round)
        lane_paced(lane, began)


cdef void lane_tell(lane_t* lane) noexcept nogil:
    """Make the loop look, once for all there is to see until it does."""
    if swap32(&lane.told, 1) == 0:
        event_set(lane.event)


cdef uint32_t lane_settle(lane_t* lane) noexcept nogil:
    """Hand over what is finished, in the order in which it was written; another thread's round as well. How many."""
    cdef round_t* round
    cdef uint32_t moved = 0
    pthread_mutex_lock(&lane.lock)
    while lane.flight_first != NULL:
        round = lane.flight_first
        if round.disk and not round.failed and load64(&lane.core.control.durable) < round.end:
            break
        lane.flight_first = round.next
        round.next = NULL
        if lane.done_last == NULL:
            lane.done_first = round
        else:
            lane.done_last.next = round
        lane.done_last = round
        moved += 1
    pthread_mutex_unlock(&lane.lock)
    return moved


cdef uint64_t lane_fly(lane_t* lane, round_t* round) noexcept nogil:
    """A round was written: from now on it belongs to whoever settles it. Its ticket. In the lane's turn."""
    cdef round_t** last = &lane.flight_first
    cdef uint64_t ticket
    pthread_mutex_lock(&lane.lock)
    while last[0] != NULL:
        last = &last[0].next
    last[0] = round
    round.next = NULL
    lane.tickets += 1
    ticket = lane.tickets
    round.ticket = ticket
    pthread_mutex_unlock(&lane.lock)
    return ticket


cdef void lane_fail(lane_t* lane, uint64_t ticket) noexcept nogil:
    """The disk failed a round, unless a sync of another thread has proved it meanwhile."""
    cdef round_t* round
    pthread_mutex_lock(&lane.lock)
    round = lane.flight_first
    while round != NULL and round.ticket != ticket:
        round = round.next
    if round != NULL:
        round_unproved(round)
        round.failed = 1
    pthread_mutex_unlock(&lane.lock)


cdef bint lane_write(lane_t* lane, uint32_t* asleep, uint64_t* target, uint64_t* ticket) noexcept nogil:
    """Write the round that is staged; False if there is none, and then asleep is set. In the lane's turn.

    target: what has to be on disk for it, or 0. The round itself belongs to whoever settles it.
    """
    cdef round_t* round
    pthread_mutex_lock(&lane.lock)
    round = lane_swap(lane)
    if round == NULL and asleep != NULL:
        store32(asleep, 1)
    pthread_mutex_unlock(&lane.lock)
    if round == NULL:
        return False
    round_commit(lane.core, round)
    target[0] = round.end if round.disk else 0
    ticket[0] = lane_fly(lane, round)
    return True


cdef uint32_t lane_prove(lane_t* lane, uint64_t target, uint64_t ticket) noexcept nogil:
    """Wait for the disk where a round asks for it, and hand over what is finished by then. How many rounds."""
    cdef uint64_t began
    if target:
        began = monotonic_us()
        if make_durable(lane.core, target) != DONE:
            lane_fail(lane, ticket)
        lane_paced(lane, began)
    return lane_settle(lane)


cdef void lane_work(lane_t* lane, uint32_t* asleep) noexcept nogil:
    """Commit what is staged until there is nothing; then asleep is set."""
    cdef uint64_t target, ticket
    cdef bint wrote
    store32(asleep, 0)
    while True:
        # Swapped and committed in one turn, so that rounds are written in the order in which they were staged.
        pthread_mutex_lock(&lane.turn)
        wrote = lane_write(lane, asleep, &target, &ticket)
        pthread_mutex_unlock(&lane.turn)
        if not wrote:
            return
        if lane_prove(lane, target, ticket):
            lane_tell(lane)
        if target == 0 and monotonic_us() - lane.flushed_us > FLUSH_US:
            make_durable(lane.core, load64(&lane.core.control.written))
            lane.flushed_us = monotonic_us()
            if lane_settle(lane):
                lane_tell(lane)


cdef bint lane_commit(lane_t* lane) noexcept nogil:
    """Commit what is staged on the loop's thread. False if there is nothing, or the committer is at work."""
    cdef uint64_t target, ticket
    cdef bint wrote
    if not load32(&lane.asleep) or mutex_try(&lane.turn) < 0:
        return False
    store32(&lane.looking, 1)
    wrote = lane_write(lane, NULL, &target, &ticket)
    pthread_mutex_unlock(&lane.turn)
    if wrote:
        lane_prove(lane, target, ticket)
        if target == 0 and not load32(&lane.flushing):
            lane_kick(lane)
    swap32(&lane.looking, 0)        # before the look: a fence
    return wrote


cdef void* lane_run(void* with_) noexcept nogil:
    """The committer thread of an event loop's lane."""
    cdef lane_t* lane = <lane_t*>with_
    cdef core_t* core = lane.core
    cdef uint32_t seen
    while True:
        seen = load32(&lane.word)
        lane_work(lane, &lane.asleep)
        if load32(&lane.stop):
            return NULL
        if load64(&core.control.durable) < load64(&core.control.written) and not load32(&core.control.poisoned):
            # What was sent at kernel durability becomes visible within a few milliseconds.
            store32(&lane.flushing, 1)
            futex_wait(&lane.word, seen, 2000)
            swap32(&lane.flushing, 0)       # before written is read: what is written later wakes us again
            if load32(&lane.word) == seen:
                make_durable(core, load64(&core.control.written))
                lane_tell(lane)
        else:
            lane_sleep(lane, seen)


cdef void* lane_assist(void* with_) noexcept nogil:
    """The second one, where the disk is slow: commits what is staged while the first waits for it."""
    cdef lane_t* lane = <lane_t*>with_
    cdef uint32_t seen
    while True:
        seen = load32(&lane.assist_word)
        lane_work(lane, &lane.assist_asleep)
        if load32(&lane.stop):
            return NULL
        futex_wait(&lane.assist_word, seen, 100000)


cdef void lane_stop(lane_t* lane) noexcept nogil:
    """Let the committer threads commit what is staged and end."""
    store32(&lane.stop, 1)
    add32(&lane.word, 1)
    add32(&lane.assist_word, 1)
    futex_wake(&lane.word)
    futex_wake(&lane.assist_word)
    pthread_join(lane.thread, NULL)
    if lane.assisted:
        pthread_join(lane.assistant, NULL)


cdef void lane_sleep(lane_t* lane, uint32_t seen) noexcept nogil:
    """Sleep until something is staged; if receivers wait, tell the loop what any process made visible meanwhile."""
    cdef control_t* control = lane.core.control
    cdef uint32_t arrived
    while load32(&lane.word) == seen:
        if not load32(&lane.watching):
            futex_wait(&lane.word, seen, 100000)
            return
        add32(&control.receivers, 1)
        arrived = load32(&control.arrival_word)
        if arrived == lane.arrived:
            futex_wait_either(&lane.word, seen, &control.arrival_word, arrived, 100000)
        add32(&control.receivers, -1)
        arrived = load32(&control.arrival_word)
        if arrived == lane.arrived:
            return
        lane.arrived = arrived
        # A loop that commits looks when it has done so.
        if not load32(&lane.looking):
            lane_tell(lane)


cdef void lane_kick(lane_t* lane) noexcept nogil:
    add32(&lane.word, 1)
    if load32(&lane.asleep):
        futex_wake(&lane.word)
    elif lane_slow(lane):
        add32(&lane.assist_word, 1)
        if load32(&lane.assist_asleep):
            futex_wake(&lane.assist_word)
