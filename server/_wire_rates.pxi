# Calls a second, for whoever wants the original's limits of CMQ: so many of each action on each queue or topic, over
# all workers.

cdef extern from *:
    """
    #include <time.h>
    static inline uint64_t epoch_s(void) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        return (uint64_t)now.tv_sec;
    }
    """
    uint64_t epoch_s() noexcept nogil

cdef enum:
    RATE_WAYS = 16
    RATE_BITS = 24              # of a cell's value that count; above them stands the second


@cython.final
cdef class CallRates:
    """Counts the calls of a second of the clock.

    Invariants:
      1. limit is 0 exactly if nothing is limited: then nobody looks further.
      2. A cell whose second is over counts nothing, and goes to whoever needs one.
    """
    cdef object shared
    cdef cell_t* cells
    cdef uint64_t mask
    cdef readonly uint32_t limit
    cdef public uint64_t second     # 0: as the clock has it
    cdef uint64_t* last             # the cell of the call that passed last

    def __init__(self, shared, uint32_t limit):
        """shared: a writable buffer of a power of two of 16 bytes, the same for all workers, zero at first."""
        cdef uint8_t[::1] view = shared
        self.shared = shared
        self.cells = <cell_t*>&view[0]
        self.mask = <uint64_t>view.shape[0] // sizeof(cell_t) - 1
        self.limit = min(limit, (1 << RATE_BITS) - 1)

    cdef bint passes(self, uint32_t action, const uint8_t* name, size_t size) noexcept nogil:
        """Count a call on what has that name, unless there were limit of them in this second."""
        cdef uint64_t now = self.second if self.second else epoch_s()
        cdef uint64_t* cell
        cdef uint64_t old, fresh
        self.last = NULL
        if self.limit == 0:
            return True
        cell = self.cell(rate_name(action, name, size), now)
        while cell != NULL:
            old = cell_load(cell)
            fresh = old + 1 if old >> RATE_BITS == now else now << RATE_BITS | 1
            if fresh & ((1 << RATE_BITS) - 1) > self.limit:
                return False
            if cell_swap(cell, old, fresh):
                self.last = cell
                return True
        # More than there is room for in one second: those are not limited.
        return True

    cdef void undo(self) noexcept nogil:
        """The call that passed last was not made, and comes again."""
        if self.last != NULL:
            cell_add(self.last, <uint64_t>-1)
            self.last = NULL

    cdef uint64_t* cell(self, uint64_t name, uint64_t now) noexcept nogil:
        """The cell of that name, or one that is free now; NULL if there is none near."""
        cdef int way
        cdef uint64_t old
        cdef cell_t* one
        for way in range(RATE_WAYS):
            one = self.cells + ((name + <uint64_t>way) & self.mask)
            if cell_load(&one.name) == name:
                return &one.value
        for way in range(RATE_WAYS):
            one = self.cells + ((name + <uint64_t>way) & self.mask)
            old = cell_load(&one.name)
            if cell_load(&one.value) >> RATE_BITS < now and cell_swap(&one.name, old, name):
                return &one.value
        return NULL

    def admit(self, uint32_t action, bytes name not None):
        """The same as passes for Python."""
        return self.passes(action, <const uint8_t*>PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))


cdef inline uint64_t rate_name(uint32_t action, const uint8_t* name, size_t size) noexcept nogil:
    cdef uint64_t found = <uint64_t>14695981039346656037 ^ action
    cdef size_t at
    for at in range(size):
        found = (found ^ name[at]) * <uint64_t>1099511628211
    return (found ^ found >> 29) | 1
