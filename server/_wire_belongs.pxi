# Which connections count under a namespace's quota of them. Each worker counts its own, in a row that nobody else
# writes: what a worker that died had counted is gone when the next one begins.

cdef extern from *:
    """
    #include <stdint.h>
    static inline void count_add(uint32_t *at, uint32_t more) { __sync_fetch_and_add(at, more); }
    static inline uint32_t count_load(uint32_t *at) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); }
    """
    void count_add(uint32_t*, uint32_t) noexcept nogil
    uint32_t count_load(uint32_t*) noexcept nogil

cdef enum:
    BELONGS_MOST = 32           # namespaces with such a quota under which one connection counts

cdef struct belongs_t:
    # Under which places of the tally a connection counts.
    uint32_t places[BELONGS_MOST]
    uint32_t count
    uint32_t ended              # it is closed, and counts nowhere any more


cdef struct tally_t:
    uint32_t* counts            # of each worker a row with a number for each place; NULL: nothing is counted
    uint32_t places, worker, workers


cdef uint32_t* tally_own(const tally_t* tally, uint32_t place) noexcept nogil:
    return tally.counts + <size_t>tally.worker * tally.places + place


cdef bint tally_join(const tally_t* tally, belongs_t* belongs, uint32_t place, uint32_t most) noexcept nogil:
    """Whether the connection counts there, now or already; False if there are as many as may be."""
    cdef uint64_t total = 0
    cdef uint32_t at
    for at in range(belongs.count):
        if belongs.places[at] == place:
            return True
    if belongs.ended or belongs.count == BELONGS_MOST:
        return False
    # Counted before it is looked: of two workers that do so at once, each sees the other.
    count_add(tally_own(tally, place), 1)
    for at in range(tally.workers):
        total += count_load(tally.counts + <size_t>at * tally.places + place)
    if total > most:
        count_add(tally_own(tally, place), <uint32_t>-1)
        return False
    belongs.places[belongs.count] = place
    belongs.count += 1
    return True


cdef void tally_leave(const tally_t* tally, belongs_t* belongs) noexcept nogil:
    """The connection is closed."""
    cdef uint32_t at
    for at in range(belongs.count):
        count_add(tally_own(tally, belongs.places[at]), <uint32_t>-1)
    belongs.count = 0
    belongs.ended = 1
