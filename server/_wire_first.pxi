# When messages were received for the first time, for protocols that tell it with each redelivery. The engine does not
# keep it, so it is remembered for as many messages as there is room for, in memory that all workers share, and noted in
# the store now and then.

cdef struct first_t:
    uint64_t message            # its queue and offset, mixed; 0: a free place
    uint64_t moment             # in whatever unit the caller counts


@cython.final
cdef class FirstTimes:
    """A place for each of the last messages.

    Invariants:
      1. A place holds the last message that was first received and falls on it: an older one is forgotten, and its next
         redelivery counts as its first.
    """
    cdef object shared
    cdef first_t* places
    cdef uint64_t mask

    def __init__(self, shared):
        """shared: a writable buffer of a power of two of 16 bytes, the same for all workers, zero at first."""
        cdef uint8_t[::1] view = shared
        self.shared = shared
        self.places = <first_t*>&view[0]
        self.mask = <uint64_t>view.shape[0] // sizeof(first_t) - 1

    cdef uint64_t received(self, uint32_t queue, uint64_t offset, uint32_t attempts, uint64_t now) noexcept nogil:
        """When the message was received first, which may be now."""
        # Odd factors lose nothing: no two messages of one queue share a name.
        cdef uint64_t message = (offset * <uint64_t>0x9E3779B97F4A7C15) ^ (queue * <uint64_t>0xD1B54A32D192ED03) | 1
        cdef first_t* place = self.places + (message >> 20 & self.mask)
        if attempts > 1 and cell_load(&place.message) == message:
            return cell_load(&place.moment)
        # A reader in between sees another message's name, or this one's with a moment that is now.
        cell_store(&place.message, 0)
        cell_store(&place.moment, now)
        cell_store(&place.message, message)
        return now

    def saved(self):
        """The places that hold a message, as bytes: what restore takes, also in pieces of 16 bytes."""
        cdef uint64_t at
        cdef first_t found
        cdef buffer_t out
        memset(&out, 0, sizeof(out))
        try:
            for at in range(self.mask + 1):
                found.message, found.moment = cell_load(&self.places[at].message), cell_load(&self.places[at].moment)
                if found.message and buffer_append(&out, &found, sizeof(found)) < 0:
                    raise MemoryError
            return PyBytes_FromStringAndSize(<const char*>out.data, out.used)
        finally:
            buffer_free(&out)

    def restore(self, bytes saved not None):
        """Remember what was saved, in places that are free."""
        cdef const first_t* found = <const first_t*>PyBytes_AS_STRING(saved)
        cdef first_t* place
        cdef Py_ssize_t at
        for at in range(PyBytes_GET_SIZE(saved) // <Py_ssize_t>sizeof(first_t)):
            place = self.places + (found[at].message >> 20 & self.mask)
            if cell_load(&place.message) == 0:
                cell_store(&place.moment, found[at].moment)
                cell_store(&place.message, found[at].message)

    def told(self, uint32_t queue, uint64_t offset, uint32_t attempts, uint64_t now):
        """The same for Python."""
        return self.received(queue, offset, attempts, now)
