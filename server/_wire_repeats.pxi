# What signed requests came to, so that one that comes again gets the answer it got: in memory that all workers share.

cdef enum:
    REPEAT_WAYS = 4

cdef struct repeat_t:
    uint64_t name               # of its signature; 0: a free place
    uint64_t result             # 0: not known yet
    uint64_t moment             # when it came, in s


@cython.final
cdef class Repeats:
    """The last requests, by the first bytes of their signatures.

    Invariants:
      1. A result is stored after the request was done; until then whoever asks is told 0.
      2. A place is given up to a newer request only if its set has no free one: what is forgotten is done again.
    """
    cdef object shared
    cdef repeat_t* places
    cdef uint64_t sets

    def __init__(self, shared):
        """shared: a writable buffer, the same for all workers, zero at first."""
        cdef uint8_t[::1] view = shared
        self.shared = shared
        self.places = <repeat_t*>&view[0]
        self.sets = <uint64_t>view.shape[0] // (REPEAT_WAYS * sizeof(repeat_t))

    cdef repeat_t* find(self, uint64_t name) noexcept nogil:
        cdef repeat_t* place = self.places + name % self.sets * REPEAT_WAYS
        cdef int way
        for way in range(REPEAT_WAYS):
            if cell_load(&place[way].name) == name:
                return place + way
        return NULL

    cdef void begin(self, uint64_t name, uint64_t now_s) noexcept nogil:
        """The request is being done."""
        cdef repeat_t* place = self.places + name % self.sets * REPEAT_WAYS
        cdef repeat_t* oldest = place
        cdef int way
        for way in range(1, REPEAT_WAYS):
            if cell_load(&place[way].moment) < cell_load(&oldest.moment):
                oldest = place + way
        cell_store(&oldest.name, 0)
        cell_store(&oldest.result, 0)
        cell_store(&oldest.moment, now_s)
        cell_store(&oldest.name, name)

    cdef void settle(self, uint64_t name, uint64_t result) noexcept nogil:
        """It was done with that result; 0: it was refused, and may be tried again."""
        cdef repeat_t* place = self.find(name)
        if place == NULL:
            return
        if result:
            cell_store(&place.result, result)
        else:
            cell_store(&place.moment, 0)
            cell_store(&place.name, 0)

    def told(self, uint64_t name):
        """The result; 0 while it is not known; None of a request that was not seen."""
        cdef repeat_t* place = self.find(name)
        return None if place == NULL else cell_load(&place.result)

    def note(self, uint64_t name, uint64_t now_s, uint64_t result):
        """The same as begin and settle, for Python; a result of 0 only begins."""
        if result == 0:
            self.begin(name, now_s)
        else:
            self.settle(name, result)

    def forget(self, uint64_t name):
        """It was refused."""
        self.settle(name, 0)
