# The two ends of an HTTP connection: where they are, what is owed to the other, and that it may be gone.

cdef enum:
    REQUEST_BYTES = 1024        # what a request costs that waits, besides its body and its target


cdef bint is_loopback(host) except -1:
    return host in ("127.0.0.1", "::1", "::ffff:127.0.0.1") or host.startswith("127.")


cdef class HttpBase(Endpoint):
    """What is owed on one HTTP connection.

    Invariants:
      1. asked is the request that the door answers; None when busy is False.
      2. last: behind the requests that are known none is taken any more.
    """
    cdef object door, backlog
    cdef HttpRequest asked
    cdef size_t waiting_bytes       # of the requests in backlog
    cdef bint busy, last, local
    cdef str here

    def connection_made(self, transport):
        Endpoint.connection_made(self, transport)
        ends = transport.get_extra_info("sockname"), transport.get_extra_info("peername")
        self.here = ends[0][0] if ends[0] else ""
        self.local = all(end and is_loopback(end[0]) for end in ends)

    def eof_received(self):
        """What is owed is still answered; whoever waits for a message is taken for gone."""
        if not (self.busy or self.backlog or self.in_flight):
            return False
        self.last = True
        self.forsake()
        return True

    cdef int lost(self) except -1:
        self.backlog.clear()
        self.waiting_bytes = 0
        return self.forsake()

    cdef HttpRequest next_request(self):
        """The first of those that wait."""
        cdef HttpRequest request = self.backlog.popleft()
        self.waiting_bytes -= REQUEST_BYTES + len(request.body) + len(request.url)
        if not self.backlog:
            self.account()
        return request

    cdef int forsake(self) except -1:
        """The request that is being answered waits no longer."""
        cdef HttpRequest request = self.asked
        if request is None:
            return 0
        request.gone = True
        if request.waiting is not None and not request.waiting.gone:
            self.hub.waiting.remove(request.waiting)
            self.hub.waiting.answer_nothing(request.waiting)
        return 0

    cdef bint abandoned(self) except -1:
        return (self.held & HELD_BY_CALL and self.asked is not None and self.asked.waiting is not None
                and not self.asked.waiting.gone)

    cdef int write(self, int status, bytes head, bytes body, bint last, bint bare) except -1:
        text = b"HTTP/1.1 %d %b\r\nDate: %b\r\n%bContent-Length: %d\r\n%b\r\n%b" % (
            status, self.door.reasons[status], self.hub.date, head, len(body),
            b"Connection: close\r\n" if last else b"", b"" if bare else body)
        if buffer_append(&self.out, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text)) < 0:
            raise MemoryError
        return 0
