# Names for messages that have no place yet, in memory that all workers share.

cdef enum:
    CMQ_OWN_BITS = 11           # of a name, behind its µs
    CMQ_GIVEN_SHIFT = 62

# 51 bits of µs since 2020 last until 2091.
cdef uint64_t CMQ_EPOCH_US = 1577836800000000


@cython.final
cdef class MessageNames:
    """Names of 2^62 and above, ascending.

    Invariants:
      1. cells[0] is the µs of the last name: no two names of a server have the same, whichever worker gave them.
      2. cells[1] has the low bits of all names of this server, which another one on the same store hardly shares.
    """
    cdef object shared
    cdef uint64_t* cells
    cdef uint64_t own

    def __init__(self, shared):
        """shared: a writable buffer of 16 bytes, the same for all workers, zero at first."""
        cdef uint8_t[::1] view = shared
        cdef uint64_t mine = int.from_bytes(urandom(2), "little") | 1 << 32
        if view.shape[0] < 16:
            raise ValueError("16 bytes are needed")
        self.shared = shared
        self.cells = <uint64_t*>&view[0]
        cell_swap(self.cells + 1, 0, mine)
        self.own = cell_load(self.cells + 1) & ((1 << CMQ_OWN_BITS) - 1)

    cdef uint64_t take(self, uint64_t now_us, uint32_t count) noexcept nogil:
        """So many names, each (1 << CMQ_OWN_BITS) above the one before; the first of them."""
        cdef uint64_t last, first
        while True:
            last = cell_load(self.cells)
            first = max(last + 1, now_us - min(now_us, CMQ_EPOCH_US))
            if cell_swap(self.cells, last, first + count - 1):
                return (<uint64_t>1 << CMQ_GIVEN_SHIFT
                        | (first & ((<uint64_t>1 << 51) - 1)) << CMQ_OWN_BITS | self.own)

    def give(self, uint64_t now_us, uint32_t count):
        """The same as a list."""
        cdef uint64_t first = self.take(now_us, count)
        return list(names_after(first, count))


def names_after(first, count):
    """The names that were given together with the first one."""
    return range(first, first + (count << CMQ_OWN_BITS), 1 << CMQ_OWN_BITS)
