# One connection, whatever it speaks: when it reads, what it is owed, and its end.

cdef extern from "<sys/socket.h>" nogil:
    Py_ssize_t send(int, const void*, size_t, int)
    int MSG_DONTWAIT, MSG_NOSIGNAL


cdef class Endpoint:
    """One connection of either protocol, as the hub sees it.

    Invariants:
      1. in_flight is the number of operations staged with our slot and not drained; the slot is
         ours until it is 0, so an operation drained late never meets a stranger.
      2. transport is None after the connection was lost; nothing is written then.
      3. held is 0 exactly when the transport is reading.
      4. kept is what we count in hub.kept: bytes of requests that are not whole or not begun, and of replies
         that the peer does not read, unsent. kept_since is when it was last 0.
      5. behind is True if the transport may have bytes that it was handed and has not sent; what comes after them
         goes the same way. socket is the descriptor that replies may be sent on past the transport, -1 none.
    """
    cdef Hub hub
    cdef object transport
    cdef uint32_t slot, in_flight, held
    cdef uint32_t staged            # operations that the hub was not told of yet
    cdef bint touched, closing, behind
    cdef int socket
    cdef buffer_t out
    cdef double active, stalled, opened, kept_since
    cdef size_t kept, unsent
    cdef belongs_t belongs

    def __dealloc__(self):
        buffer_free(&self.out)

    cdef inline void entered(self) noexcept nogil:
        """One operation was staged."""
        self.in_flight += 1
        self.staged += 1
        self.hub.in_flight += 1

    cdef int complete(self, operation_t* operation) except -1:
        """Append the reply of a drained operation."""
        return 0

    cdef int drained_late(self, operation_t* operation) except -1:
        """An operation was drained after the connection was lost."""
        return 0

    cdef int proceed(self) except -1:
        """Go on with what was kept while the connection was held."""
        return 0

    cdef bint expired(self, double now) noexcept:
        return False

    cdef bint abandoned(self) except -1:
        """Whether we read no more and wait for somebody else, while the peer may be long gone."""
        return False

    cdef int stop(self) except -1:
        """The server stops: answer what waits, close when nothing is in flight."""
        return 0

    cdef int hold(self, uint32_t reason) except -1:
        if self.held == 0 and self.transport is not None:
            self.transport.pause_reading()
        self.held |= reason
        return 0

    cdef int release(self, uint32_t reason) except -1:
        if not self.held & reason:
            return 0
        self.held &= ~reason
        if self.held == 0:
            self.proceed()
            if self.held == 0 and self.transport is not None:
                self.transport.resume_reading()
        return 0

    cdef size_t unread(self) noexcept:
        """The bytes of requests that are not whole, or not begun."""
        return 0

    cdef int account(self) except -1:
        """Count anew what is kept for this connection."""
        cdef size_t now = 0 if self.closing else self.unread() + self.unsent
        if now == self.kept:
            return 0
        if self.kept == 0:
            self.kept_since = self.active
        self.hub.kept += now - self.kept
        self.kept = now
        if self.hub.kept > self.hub.kept_limit:
            if not self.hub.relief:
                self.hub.relief = True
                self.hub.loop.call_soon(self.hub.relieve)
        return 0

    cdef size_t sent_now(self, const uint8_t* data, size_t size) except? 0:
        """How much of it the socket took at once. A transport that is closing may have given its descriptor away."""
        if self.socket < 0 or self.transport.is_closing():
            return 0
        if self.behind:
            if self.transport.get_write_buffer_size():
                return 0
            self.behind = False
        # An error is found again by the transport, which knows what to do.
        return max(send(self.socket, data, size, MSG_DONTWAIT | MSG_NOSIGNAL), 0)

    cdef int hand(self, bytes data) except -1:
        """Leave it to the transport to send it."""
        self.transport.write(data)
        self.behind = True
        return 0

    cdef int flush(self) except -1:
        """Send all replies in one call; what the socket does not take is left to the transport."""
        cdef size_t used = self.out.used
        cdef size_t sent
        if used == 0:
            return 0
        self.out.used = 0
        if self.transport is not None:
            self.hub.sent_bytes += used
            sent = self.sent_now(self.out.data, used)
            if sent < used:
                self.hand(PyBytes_FromStringAndSize(<char*>self.out.data + sent, used - sent))
            if self.held & HELD_BY_PEER:
                self.unsent = self.transport.get_write_buffer_size()
                self.account()
        if self.out.room > KEPT_ROOM and self.out.used == 0:
            buffer_free(&self.out)
        return 0

    cdef int touch(self) except -1:
        if not self.touched:
            self.touched = True
            self.hub.touched.append(self)
        return 0

    def connection_made(self, transport):
        self.transport = transport
        self.socket = -1
        if transport.get_extra_info("sslcontext") is None:
            plain = transport.get_extra_info("socket")
            if plain is not None:
                self.socket = plain.fileno()
        self.opened = self.active = monotonic()
        transport.set_write_buffer_limits(self.hub.limits.write_bytes)
        if not self.hub.enter(self):
            self.closing = True
            transport.abort()

    def join(self, uint32_t queue):
        """0 if the connection may use the queue, else the milliseconds after which to try again: its namespace has as
        many connections as it may."""
        cdef uint32_t closed = self.hub.gates.outside(&self.belongs, queue)
        self.hub.gates.throttled += closed > 0
        return closed

    def connection_lost(self, error):
        self.transport = None
        tally_leave(&self.hub.gates.tally, &self.belongs)
        self.closing = True
        self.account()
        self.lost()
        if self.in_flight == 0:
            self.hub.leave(self)

    cdef int lost(self) except -1:
        return 0

    def pause_writing(self):
        self.stalled = monotonic()
        self.hold(HELD_BY_PEER)

    def resume_writing(self):
        self.stalled = 0
        self.unsent = 0
        self.active = monotonic()
        self.account()
        self.release(HELD_BY_PEER)
        self.hub.unstalled(self)

    def eof_received(self):
        return False

    def get_buffer(self, hint):
        return self.hub.scratch

    cdef int close_soon(self) except -1:
        """Send what there is, then close; what still arrives is thrown away for a moment, so that
        the close is no reset which would destroy the reply on its way."""
        self.closing = True
        self.flush()
        if self.transport is not None:
            self.hub.loop.call_later(0.5, self.transport.close)
        return 0
