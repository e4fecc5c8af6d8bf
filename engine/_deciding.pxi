# Deciding what is pending: one event, or many in one commit. Which record an event needs is said here and nowhere else.

cdef enum:
    DECIDED_AT_ONCE = 1000      # events in one commit at most


cdef int event_stage(core_t* core, lane_t* lane, uint64_t cookie, int event, uint64_t id, uint64_t argument,
                     uint32_t attempts, bint wait, round_t** into, uint32_t* place) noexcept nogil:
    """Stage an event: argument is the new time of a move or check, the reason of a cancellation or rollback.

    DONE; UNKNOWN if nothing of that id is known; BUSY if the round is full (it is awaited if wait), or memory is out.
    """
    cdef pending_t* entry
    cdef const record_t* record = NULL
    cdef uint64_t pin, body = 0, due = 0, hint = 0
    cdef int kind = KIND_MOVE
    cdef bint staged = False
    pin_take(core, &pin)
    entry = pending_follow(core, id, &hint)
    if entry != NULL:
        body = pending_body(core, entry, &record)
    if body:
        due = record.offset
    pin_give(core)
    if body == 0:
        return UNKNOWN
    if event == EVENT_CANCEL or event == EVENT_ROLLBACK:
        kind = KIND_CANCEL
    elif event == EVENT_COMMIT:
        argument = due
        if due == 0 or due <= store_clock(core):
            kind = KIND_FIRE
    pthread_mutex_lock(&lane.lock)
    while wait and lane.filling.size + 256 > lane.limit:
        pthread_mutex_unlock(&lane.lock)
        lane_turn(lane)
        pthread_mutex_lock(&lane.lock)
    if lane.filling.size + 256 <= lane.limit:
        into[0] = lane.filling
        place[0] = lane.filling.count
        staged = verdict_stage(core, lane.filling, cookie, kind, event, body, hint, argument, 1)
        if staged:
            lane.filling.operations[place[0]].spare = attempts
            lane.filling.claims += wait
    pthread_mutex_unlock(&lane.lock)
    return DONE if staged else BUSY


cdef operation_t event_decide(Store store, int event, uint64_t id, uint64_t argument, uint32_t attempts=0) except *:
    """Commit one event durably: its operation, refusals raised."""
    cdef core_t* core = enter(store)
    cdef lane_t* lane = <lane_t*>store.direct
    cdef round_t* round = NULL
    cdef operation_t result
    cdef uint32_t place = 0
    cdef int verdict
    with nogil:
        verdict = event_stage(core, lane, 0, event, id, argument, attempts, True, &round, &place)
        if verdict == DONE:
            lane_direct(lane, round)
            result = round.operations[place]
            verdict = result.verdict
            lane_claimed(lane, round)
        leave(core)
    raise_decision(verdict, id)
    return result


cdef struct claim_t:
    uint64_t id, argument
    uint32_t checks, place
    int event, verdict
    round_t* round


cdef list halves_claim(Store store, list wanted):
    """Commit checks and rollbacks, (id, checks, when again or None), together: whether each was ours to make."""
    cdef lane_t* lane = <lane_t*>store.direct
    cdef claim_t[DECIDED_AT_ONCE] claims
    cdef claim_t* one
    cdef int at, count = <int>len(wanted)
    for at in range(count):
        one = claims + at
        one.id, one.checks, again = wanted[at]
        one.event = EVENT_ROLLBACK if again is None else EVENT_CHECK
        one.argument = REASON_CHECKS if again is None else due_checked(again)
    cdef core_t* core = enter(store)
    with nogil:
        for at in range(count):
            one = claims + at
            one.verdict = event_stage(core, lane, 0, one.event, one.id, one.argument, one.checks, True,
                                      &one.round, &one.place)
        for at in range(count):
            one = claims + at
            if one.verdict == DONE:
                lane_direct(lane, one.round)
                one.verdict = one.round.operations[one.place].verdict
                if one.round.operations[one.place].duplicate:
                    one.verdict = DECIDED
                lane_claimed(lane, one.round)
        leave(core)
    for at in range(count):
        if claims[at].verdict not in (DONE, DECIDED, UNKNOWN, WRONG_KIND, TOO_LARGE, NOT_FOUND):
            raise_decision(claims[at].verdict, claims[at].id)
    return [claims[at].verdict == DONE for at in range(count)]


cdef int raise_decision(int verdict, uint64_t id) except -1:
    if verdict == DECIDED:
        raise PendingDecidedError(f"the pending message {id:x} was decided otherwise before")
    if verdict == UNKNOWN:
        raise PendingNotFoundError(f"no message {id:x} is pending: it never was, was decided long ago, or is lost")
    if verdict == WRONG_KIND:
        raise InvalidError(f"{id:x}: only a half is committed or rolled back, only another message cancelled or moved")
    if verdict == TOO_LARGE:
        raise TooLargeError(f"the pending message {id:x} was moved {MOVES} times; no more")
    return raise_verdict(verdict, f"the pending message {id:x}")
