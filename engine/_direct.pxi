# Callers without a loop commit for one another: whoever gets the turn writes what all of them staged, and the others
# sleep on their round, so that nobody is woken by the end of a round that is not his.


cdef void lane_turn(lane_t* lane) noexcept nogil:
    """Commit what is staged, so that there is room."""
    mutex_lock(&lane.turn)
    lane_lead(lane)


cdef void lane_direct(lane_t* lane, round_t* mine) noexcept nogil:
    """Get the round finished, committing it ourselves if nobody does. lane_claimed has to follow."""
    cdef uint32_t seen
    while True:
        seen = load32(&mine.word)
        if load32(&mine.finished):
            return
        if load32(&lane.flying) < (SYNCS if lane_slow(lane) else 1) and mutex_try(&lane.turn) >= 0:
            lane_lead(lane)
        else:
            add32(&mine.waiters, 1)
            futex_wait(&mine.word, seen, 100000)
            add32(&mine.waiters, -1)


cdef void lane_lead(lane_t* lane) noexcept nogil:
    """Commit and finish what is staged. Takes over the lane's turn, and gives it back once the round is written."""
    cdef round_t* round
    pthread_mutex_lock(&lane.lock)
    round = lane_swap(lane)
    if round != NULL:
        round.claims += 1       # ours: it stays until we have told it
        add32(&lane.flying, 1)
    pthread_mutex_unlock(&lane.lock)
    if round != NULL:
        round_commit(lane.core, round)
    pthread_mutex_unlock(&lane.turn)
    if round != NULL:
        if lane_slow(lane):
            lane_next(lane)     # whoever staged meanwhile found the turn taken, and need not wait for our sync
        lane_finish(lane, round)
        store32(&round.finished, 1)
        add32(&round.word, 1)
        add32(&lane.flying, -1)
        if load32(&round.waiters):
            futex_wake(&round.word)
        lane_claimed(lane, round)
    lane_next(lane)


cdef void lane_next(lane_t* lane) noexcept nogil:
    """Wake one of those whose round is not begun, to commit it."""
    cdef round_t* round
    pthread_mutex_lock(&lane.lock)
    round = lane.filling
    if round.count:
        add32(&round.word, 1)
        if load32(&round.waiters):
            futex_wake_one(&round.word)
    pthread_mutex_unlock(&lane.lock)


cdef void lane_claimed(lane_t* lane, round_t* round) noexcept nogil:
    """A direct caller has read its result; the last one lets the round rest."""
    if add32(&round.claims, -1) == 0:
        pthread_mutex_lock(&lane.lock)
        lane_rest(lane, round)
        pthread_mutex_unlock(&lane.lock)
