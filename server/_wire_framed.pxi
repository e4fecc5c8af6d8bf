# A connection whose requests are frames with their length in front, of whichever protocol.

cdef class Framed(Endpoint):
    """Whole frames out of what arrives, and receivers that wait.

    Invariants:
      1. While not held, pending holds the first bytes of at most one frame; while held, whatever
         has not been walked. It is as large as what arrived, never as what was announced.
      2. parked is the number of our requests in the waiting room, and waits holds them.
    """
    cdef buffer_t pending
    cdef uint32_t parked
    cdef dict waits
    cdef public uint64_t key        # the number of the access key whose holder is at the other end; 0: nobody was asked

    def __dealloc__(self):
        buffer_free(&self.pending)

    cdef size_t missing(self) noexcept nogil:
        """How many bytes pending lacks for its length, then for the frame; 0 also if it is refused."""
        return 0

    cdef size_t process(self, const uint8_t* data, size_t size) except? 0:
        """Walk all whole frames; returns how many bytes were dealt with."""
        return 0

    cdef int deliver(self, uint8_t verb, uint32_t tag, uint32_t queue, uint32_t group, uint64_t offset,
                     uint32_t max_messages, uint32_t max_bytes, uint32_t lease_ms) noexcept nogil:
        """Append a reply with the messages there are; returns how many, or a negative verdict."""
        return 0

    cdef int reply_empty(self, uint8_t verb, uint32_t tag) noexcept nogil:
        """Append the reply of a receiver whose time is up; -1 when there is no memory."""
        return 0

    cdef int refuse_verdict(self, uint8_t verb, uint32_t tag, int verdict) noexcept nogil:
        """Append the reply of a request that the engine refused."""
        return 0

    def buffer_updated(self, Py_ssize_t size):
        self.hub.received_bytes += size
        if self.closing:
            return
        self.active = monotonic()
        self.feed(<const uint8_t*>PyByteArray_AS_STRING(self.hub.scratch), size)
        self.finish()
        self.account()

    cdef size_t unread(self) noexcept:
        return self.pending.used

    cdef int finish(self) except -1:
        """After a read: wake the committer once, write what could be answered at once."""
        if self.staged:
            self.hub.kick(self.staged)
            self.staged = 0
        if self.out.used:
            self.flush()
        return 0

    cdef int feed(self, const uint8_t* data, size_t size) except -1:
        cdef size_t position = 0
        cdef size_t taken
        if self.held:
            return self.keep(data, size)
        while self.pending.used and position < size:
            taken = min(self.missing(), size - position)
            self.keep(data + position, taken)
            position += taken
            if self.missing() == 0:
                buffer_consume(&self.pending, self.process(self.pending.data, self.pending.used))
                if self.closing:
                    return 0
                if self.held:
                    break
        if not self.held and not self.closing:
            position += self.process(data + position, size - position)
        if not self.closing and position < size:
            self.keep(data + position, size - position)
        return 0

    cdef int keep(self, const uint8_t* data, size_t size) except -1:
        if buffer_append(&self.pending, data, size) < 0:
            raise MemoryError
        return 0

    cdef int proceed(self) except -1:
        if not self.closing and self.pending.used:
            buffer_consume(&self.pending, self.process(self.pending.data, self.pending.used))
        self.finish()
        self.account()
        return 0

    cdef int lost(self) except -1:
        if self.parked:
            self.hub.waiting.forget(self)
        buffer_free(&self.pending)
        return 0

    cdef int stop(self) except -1:
        if self.in_flight == 0 and self.transport is not None:
            self.closing = True
            self.flush()
            self.transport.close()
        return 0
