# Putting many messages that are stored into a queue, in one commit.

cdef enum:
    PLACES = 1024               # at a time


cdef void places_resolve(core_t* core, uint64_t* positions, uint32_t count) noexcept nogil:
    """Turn positions of entries into those of the records with the bodies; 0 where there is none."""
    cdef uint64_t pin
    cdef const record_t* record
    cdef uint32_t at
    pin_take(core, &pin)
    for at in range(count):
        record = record_at(core, positions[at])
        if record != NULL:
            record = message_of(core, record)
        positions[at] = record.position if record != NULL else 0
    pin_give(core)


cdef int places_stage(core_t* core, lane_t* lane, uint32_t queue, const uint64_t* positions, uint32_t count,
                      round_t** into, uint32_t* place) noexcept nogil:
    """Stage a PLACE for each position, in their order and in one round; how many were staged."""
    cdef uint64_t need = count * <uint64_t>(sizeof(record_t) + 8)
    cdef round_t* round
    cdef uint64_t at
    cdef uint32_t staged = 0
    while True:
        pthread_mutex_lock(&lane.lock)
        round = lane.filling
        if round.size + need <= lane.limit or round.count == 0:
            break
        pthread_mutex_unlock(&lane.lock)
        lane_turn(lane)
    place[0] = round.count
    while staged < count and round_reserve(round, sizeof(record_t) + 8):
        at = round.size
        record_stage(core, round, RECORD_PLACE, 0, 0, NULL, 0, <const uint8_t*>(positions + staged), 8)
        operation_stage(round, 0, KIND_PLACE, queue, 1, 1, at)
        staged += 1
    if staged:
        round.claims += 1
    pthread_mutex_unlock(&lane.lock)
    into[0] = round
    return staged


cdef int places_put(Store store, Queue queue, uint64_t[::1] positions) except -1:
    """Place up to PLACES messages, durably; how many of them were still there."""
    cdef core_t* core = enter(store)
    cdef lane_t* lane = <lane_t*>store.direct
    cdef round_t* round = NULL
    cdef uint32_t place = 0
    cdef uint32_t count = <uint32_t>positions.shape[0]
    cdef uint32_t id = queue.id
    cdef uint32_t at
    cdef int staged
    cdef int placed = 0
    cdef int verdict = DONE
    with nogil:
        places_resolve(core, &positions[0], count)
        staged = places_stage(core, lane, id, &positions[0], count, &round, &place)
        if staged:
            lane_direct(lane, round)
            for at in range(<uint32_t>staged):
                if round.operations[place + at].verdict == DONE:
                    placed += 1
                elif round.operations[place + at].verdict != NOT_FOUND:
                    verdict = round.operations[place + at].verdict
            lane_claimed(lane, round)
        leave(core)
    if staged < <int>count:
        raise MemoryError()
    raise_verdict(verdict, f"placing messages in queue {queue.name!r}")
    return placed


def place_many(Store store not None, Queue queue not None, positions):
    """Put messages, named by the positions of their index entries, into a queue, in order and with no body written
    again; how many, those that were reclaimed meanwhile left out. Durable on return.
    """
    cdef int placed = 0
    given = np.ascontiguousarray(positions, np.uint64).copy()
    for at in range(0, len(given), PLACES):
        placed += places_put(store, queue, given[at:at + PLACES])
    return placed
