# One HTTP connection: httptools parses, messages go to the lane, everything else to the door.

cdef extern from "string.h" nogil:
    int memcmp(const void*, const void*, size_t)
    void* memmem(const void*, size_t, const void*, size_t)

cdef enum:
    IN_NOTHING = 0
    IN_HEAD = 1
    IN_BODY = 2
    STRAY_BYTES = 1024


# Where a target may be as long as a body.
CMQ_TARGETS = (b"/v2/index.php?", b"//v2/index.php?", b"/?")
CMQ_PATHS = frozenset((b"/v2/index.php", b"/", b"//v2/index.php"))


cdef class HttpEndpoint(HttpReplies):
    """The requests of one connection, answered in their order.

    Invariants:
      1. A request that is not a plain send starts only when nothing is in flight, and nothing after
         it starts before it was answered.
      2. Staged sends have consecutive tags; answered is the next to be written, ready holds the
         rendered replies of later ones.
      3. The head and the body are counted as they arrive; what is over its limit is not kept.
      4. plain_head is a head that the parser once read as a plain send with a body of plain_body
         bytes to plain_url. Where the same bytes come again between two requests they mean the
         same, and the parser need not be asked.
    """
    cdef bytes plain_head, plain_url, plain_ext
    cdef size_t plain_body
    cdef uint32_t finished
    cdef object parser
    cdef HttpRequest current, plain
    cdef list parts
    cdef uint32_t hosts, lengths, header_count
    cdef size_t head_used, head_fed, stray, body_used, body_fed, chunks
    cdef uint8_t state
    cdef bint begun, chunked, expects
    cdef double began
    cdef bytes form_head, form_tail # a head up to its length, and behind it, that was read as a v2 request's
    cdef bytes form_path, form_host
    cdef object longer              # a target that comes in pieces
    cdef size_t url_used

    def __init__(self, Hub hub, door):
        self.hub = hub
        self.door = door
        self.cmq = door.hot
        self.parser = HttpRequestParser(self)
        self.backlog = deque()
        self.ready = {}
        self.parts = []

    def buffer_updated(self, Py_ssize_t size):
        self.hub.received_bytes += size
        if self.closing or self.last:
            return
        self.active = monotonic()
        self.begun = False
        cdef const char* data = PyByteArray_AS_STRING(self.hub.scratch)
        cdef bint fresh = self.state == IN_NOTHING and self.stray == 0
        cdef Py_ssize_t start = 0
        if fresh and self.plain_head is not None:
            start = self.repeat(data, size)
        elif fresh and self.form_head is not None:
            start = self.repeat_form(data, size)
        try:
            if start < size:
                self.finished = 0
                self.parser.feed_data(memoryview(self.hub.scratch)[start:size])
                self.count_fed(size - start)
                if fresh and self.finished == 1 and self.state == IN_NOTHING:
                    self.learn(data + start, size - start)
        except HttpParserUpgrade:
            self.refuse(400, "invalid", "no other protocol is spoken here")
        except RefusedError as error:
            self.refuse_for(error)
        except HttpParserError as error:
            reason = error.__context__
            if isinstance(reason, RefusedError):
                self.refuse_for(reason)
            else:
                self.refuse(400, "malformed", str(error))
        if self.staged:
            self.hub.kick(self.staged)
            self.staged = 0
        self.flush()
        self.account()

    cdef size_t unread(self) noexcept:
        cdef size_t size = self.waiting_bytes
        if self.state != IN_NOTHING:
            size += self.head_used + self.head_fed + self.url_used + self.body_used
        return size

    cdef Py_ssize_t repeat(self, const char* data, Py_ssize_t size) except -1:
        """Stage the whole requests at the start of data that have the known head; how many bytes."""
        cdef size_t head = PyBytes_GET_SIZE(self.plain_head)
        cdef size_t whole = head + self.plain_body
        cdef Py_ssize_t at = 0
        while (size - at >= <Py_ssize_t>whole and not self.busy and not self.backlog
               and memcmp(data + at, PyBytes_AS_STRING(self.plain_head), head) == 0):
            if self.stage(self.plain_url, 0, 0, self.plain_ext, data + at + head, self.plain_body) != NEXT:
                break
            self.hub.requests += 1
            at += whole
        return at

    cdef int learn(self, const char* data, size_t size) except -1:
        """Keep the head of the one request that data was, if it was a plain send."""
        cdef HttpRequest request = self.plain
        cdef size_t body
        self.plain = None
        if request is None or request.sequence or request.last or self.chunked or self.expects:
            return 0
        body = len(request.body)
        # Nothing else may be in data: the head ends where its first blank line does.
        if size > body + 4 and memmem(data, size, b"\r\n\r\n", 4) == <void*>(data + size - body - 4):
            if not request.octets:
                return self.learn_form(data, size - body, request)
            self.plain_head = PyBytes_FromStringAndSize(data, size - body)
            self.plain_body = body
            self.plain_url = request.url
            self.plain_ext = request.ext
        return 0

    cdef int learn_form(self, const char* data, size_t size, HttpRequest request) except -1:
        """Keep the head of a v2 request but for the digits of its length: with others it means the same."""
        cdef bytes head = data[:size]
        cdef Py_ssize_t at = head.lower().find(b"\r\ncontent-length:")
        cdef Py_ssize_t end
        if at < 0 or self.lengths != 1:
            return 0
        at += 17
        while head[at:at + 1] == b" ":
            at += 1
        end = head.index(b"\r", at)
        if not head[at:end].isdigit():
            return 0
        self.form_head, self.form_tail = head[:at], head[end:]
        self.form_path, self.form_host = request.url, request.host
        self.plain_head = None
        return 0

    cdef Py_ssize_t repeat_form(self, const char* data, Py_ssize_t size) except -1:
        """Stage the whole requests at the start of data that have the known head of a form; how many bytes."""
        cdef Py_ssize_t head = PyBytes_GET_SIZE(self.form_head)
        cdef Py_ssize_t tail = PyBytes_GET_SIZE(self.form_tail)
        cdef Py_ssize_t at = 0
        cdef Py_ssize_t place
        cdef size_t body
        while (size - at > head + tail and not self.busy and not self.backlog and not self.closing
               and memcmp(data + at, PyBytes_AS_STRING(self.form_head), head) == 0):
            place = at + head
            body = 0
            while place < size and data[place] >= c'0' and data[place] <= c'9' and body < 10000000:
                body = 10 * body + (data[place] - c'0')
                place += 1
            if (size - place < tail + <Py_ssize_t>body or place == at + head or body > self.hub.body_bytes
                    or memcmp(data + place, PyBytes_AS_STRING(self.form_tail), tail) != 0):
                break
            if self.cmq.stage(self, b"POST", self.form_host, self.form_path, <const uint8_t*>data + place + tail,
                              body) != NEXT:
                break
            self.hub.requests += 1
            at = place + tail + body
        return at

    cdef int count_fed(self, size_t size) except -1:
        """What the parser keeps to itself has limits too: half a head, chunk extensions, blank lines."""
        if self.begun or self.finished:
            self.head_fed = self.body_fed = self.stray = 0
        elif self.state == IN_HEAD:
            self.head_fed += size
            if self.head_fed > self.hub.head_bytes + self.url_used:
                raise RefusedError(431, "too-large", "the head is over its limit")
        elif self.state == IN_BODY:
            self.body_fed += size
            if self.chunked and self.body_fed > (
                    self.body_used + 12 * self.chunks + self.hub.chunk_overhead):
                raise RefusedError(400, "malformed", "too much between the chunks")
        else:
            self.stray += size
            if self.stray > STRAY_BYTES:
                raise RefusedError(400, "malformed", "too much between the requests")
        return 0

    def on_message_begin(self):
        if self.last:
            raise RefusedError(400, "invalid", "the connection was to be closed")
        self.current = HttpRequest.__new__(HttpRequest)
        self.current.url = b""
        self.state = IN_HEAD
        self.begun = True
        self.began = monotonic()
        self.hosts = self.lengths = self.header_count = 0
        self.head_used = self.body_used = self.chunks = self.url_used = 0
        self.chunked = self.expects = False
        self.current.endpoint = self

    def on_url(self, bytes url):
        self.url_used += len(url)
        if not self.current.url:
            self.current.url = url
        else:
            if self.longer is None:
                self.longer = bytearray(self.current.url)
            self.longer += url
        # CMQ sends messages in targets as well.
        if self.url_used > self.hub.url_bytes and not (
                self.url_used <= self.hub.body_bytes and self.current.url.startswith(CMQ_TARGETS)):
            raise RefusedError(414, "too-large", "the target is over its limit")

    def on_header(self, bytes name, bytes value):
        cdef Py_ssize_t size = len(name)
        self.header_count += 1
        self.head_used += size + len(value) + 4
        if self.header_count > self.hub.header_limit:
            raise RefusedError(431, "too-large", "too many header fields")
        if self.head_used + min(self.url_used, self.hub.url_bytes) > self.hub.head_bytes:
            raise RefusedError(431, "too-large", "the head is over its limit")
        if self.state != IN_HEAD:
            return
        if size > 9 and PyBytes_AS_STRING(name)[0] | 32 == c'p' and name[:9].lower() == b"penstock-":
            return self.own_header(name.lower()[9:], value)
        if size > 5 and PyBytes_AS_STRING(name)[0] | 32 == c'x' and name[:5].lower() == b"x-tc-" or size == 13:
            return self.signing_header(name.lower(), value)
        if size not in (4, 6, 12, 14, 17):
            return
        name = name.lower()
        if name == b"host":
            self.hosts += 1
            self.current.host = value
        elif name == b"content-type":
            self.current.content_type = value
            self.current.octets = value == b"application/octet-stream"
        elif name == b"content-length":
            self.lengths += 1
            if not value.isdigit() or len(value) > 15:
                raise RefusedError(400, "malformed", "Content-Length is a number")
            if int(value) > self.hub.limits.body_bytes:
                raise RefusedError(413, "too-large", "the body is over its limit")
        elif name == b"transfer-encoding":
            if self.chunked or value.lower() != b"chunked":
                raise RefusedError(501, "invalid", "the only transfer coding is chunked")
            self.chunked = True
        elif name == b"accept":
            self.current.accept = value
        elif name == b"expect":
            self.expects = value.lower() == b"100-continue"

    cdef own_header(self, bytes name, bytes value):
        if name == b"producer":
            self.current.producer = number_of(value)
        elif name == b"sequence":
            self.current.sequence = number_of(value)
        else:
            if self.current.fields is None:
                self.current.fields = []
            self.current.fields.append((name, value))

    cdef signing_header(self, bytes name, bytes value):
        if name == b"authorization" or name[:5] == b"x-tc-":
            if self.current.signed is None:
                self.current.signed = {}
            self.current.signed[name] = value

    def on_headers_complete(self):
        if self.longer is not None:
            self.current.url = bytes(self.longer)
            self.longer = None
        if self.parser.should_upgrade():
            raise RefusedError(400, "invalid", "no other protocol is spoken here")
        if self.chunked and self.lengths:
            raise RefusedError(400, "malformed", "both Transfer-Encoding and Content-Length")
        version = self.parser.get_http_version()
        if self.hosts != 1 and (self.hosts or version != "1.0"):
            raise RefusedError(400, "malformed", "exactly one Host is required")
        if version != "1.1" and version != "1.0":
            raise RefusedError(505, "invalid", "HTTP/1.1 is spoken here")
        self.state = IN_BODY
        if (self.expects and self.transport is not None and not self.backlog and not self.in_flight
                and not self.busy):
            self.flush()
            self.hand(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_chunk_header(self):
        self.chunks += 1

    def on_body(self, bytes body):
        self.body_used += len(body)
        if self.body_used > self.hub.body_bytes:
            raise RefusedError(413, "too-large", "the body is over its limit")
        self.parts.append(body)

    def on_message_complete(self):
        cdef HttpRequest request = self.current
        parts = self.parts
        if len(parts) == 1:
            request.body = parts[0]
        else:
            request.body = b"".join(parts)
        self.parts = []
        self.current = None
        self.state = IN_NOTHING
        self.hub.requests += 1
        request.method = self.parser.get_method()
        request.last = not self.parser.should_keep_alive()
        self.last = request.last
        self.finished += 1
        self.plain = None
        if not self.busy and not self.backlog and self.stage_request(request) == NEXT:
            self.plain = request
            return
        self.backlog.append(request)
        self.waiting_bytes += REQUEST_BYTES + len(request.body) + len(request.url)
        self.pump()

    cdef int stage_request(self, HttpRequest request) except -1:
        """As stage(); ASK as well if the request is no plain send."""
        if not request.octets or request.method != b"POST":
            if (self.cmq is not None and request.method == b"POST" and request.host is not None and not request.last
                    and request.signed is None and request.url in CMQ_PATHS):
                return self.cmq.stage(self, b"POST", request.host, request.url,
                                      <const uint8_t*>PyBytes_AS_STRING(request.body), len(request.body))
            return ASK
        if request.fields is not None and request.ext is None:
            request.ext = self.door.packed(request.fields)
            if request.ext is None:
                return ASK
        return self.stage(request.url, request.producer, request.sequence, request.ext,
                          PyBytes_AS_STRING(request.body), len(request.body))

    cdef int stage(self, bytes url, uint64_t producer, uint64_t sequence, bytes ext, const char* body,
                   size_t size) except -1:
        """NEXT if the message is on its way to a known queue, HOLD if the lane is full, CROWDED if the
        connection has too many in flight, ASK if the door has to be asked."""
        cdef uint64_t route
        cdef int verdict
        cdef const uint8_t* packed = NULL
        cdef uint16_t packed_size = 0
        known = self.hub.routes.get(url)
        if known is None:
            return ASK
        if self.in_flight >= self.hub.flight_limit:
            return CROWDED
        route = known
        if self.hub.gates.count and (self.hub.gates.outside(&self.belongs, <uint32_t>route)
                                     or self.hub.gates.send_closed(<uint32_t>route, 0, False, now_ns())):
            return ASK
        if ext is not None:
            packed = <const uint8_t*>PyBytes_AS_STRING(ext)
            packed_size = <uint16_t>PyBytes_GET_SIZE(ext)
        verdict = self.hub.lane.stage_one(
            (<uint64_t>self.slot << SLOT_SHIFT) | self.tag, <uint32_t>route,
            route >> 32 | (ATTRIBUTED if packed_size else 0),
            producer, sequence, packed, packed_size, <const uint8_t*>body, <uint32_t>size)
        if verdict == BUSY and self.hub.in_flight:
            return HOLD
        if verdict != DONE:
            # The door says it in full, and finds the queue again if it has another number now.
            self.hub.routes.pop(url, None)
            return ASK
        if self.hub.gates.count:
            self.hub.gates.send_charge(<uint32_t>route, 0, 1, size + packed_size, False, now_ns())
        self.tag += 1
        self.entered()
        self.hub.sends += 1
        self.hub.messages += 1
        return NEXT

    cdef int pump(self) except -1:
        """Start what may start; hold the connection while something has to wait."""
        cdef int outcome
        # Who does not read the answers is asked no more of: each can be large.
        while self.backlog and not self.busy and not self.closing and not self.held & HELD_BY_PEER:
            outcome = self.stage_request(self.backlog[0])
            if outcome == NEXT:
                self.next_request()
                continue
            if outcome == HOLD:
                if not self.held & HELD_BY_LANE:
                    self.hold(HELD_BY_LANE)
                    self.hub.held.append(self)
                return 0
            if outcome == CROWDED or self.in_flight:
                break
            self.busy = True
            self.hub.in_calls += 1
            request = self.asked = self.next_request()
            task = self.hub.loop.create_task(self.door.answer(request))
            task.add_done_callback(HttpAnswered(self, request))
        # While only one is answered we read on: else we would not see its peer hang up.
        if self.backlog:
            self.hold(HELD_BY_CALL)
        else:
            self.release(HELD_BY_CALL)
        return 0

    cdef int proceed(self) except -1:
        self.pump()
        if self.staged:
            self.hub.kick(self.staged)
            self.staged = 0
        return 0

    def resume_writing(self):
        Endpoint.resume_writing(self)
        if not self.held & HELD_BY_PEER and not self.closing:
            self.after()
            self.flush()

    cdef int answered_by(self, HttpRequest request, future) except -1:
        self.busy = False
        self.asked = None
        self.hub.in_calls -= 1
        if self.transport is None:
            return 0
        status, head, body = future.result()
        self.write(status, head, body, request.last, request.method == b"HEAD")
        self.after()
        self.flush()
        return 0

    cdef int after(self) except -1:
        """Something was answered: go on with the next, or close if that was the last."""
        if not self.backlog and not self.busy and not self.in_flight:
            if self.last or self.hub.stopping:
                if self.refusal is not None:
                    status, head, body = self.refusal
                    self.refusal = None
                    self.write(status, head, body, True, False)
                return self.close_soon()
        self.pump()
        if self.staged:
            self.hub.kick(self.staged)
            self.staged = 0
        return 0

    cdef int refuse_for(self, error) except -1:
        status, kind, text = error.args
        return self.refuse(status, kind, text)

    cdef int refuse(self, int status, kind, text) except -1:
        """The bytes are no request we take: say so after what is owed, and close."""
        if self.last:
            return 0        # nobody was to say anything more
        self.last = True
        self.state = IN_NOTHING
        self.parts = []
        status, head, body = self.door.refused(status, kind, text)
        if self.in_flight or self.busy or self.backlog:
            # The replies that are owed come first.
            self.refusal = (status, head, body)
            return 0
        self.write(status, head, body, True, False)
        return self.close_soon()

    cdef bint expired(self, double now) noexcept:
        if self.state != IN_NOTHING:
            return now - self.began > self.hub.request_s
        return (not self.in_flight and not self.busy and not self.backlog
                and now - self.active > self.hub.http_idle_s)

    cdef int stop(self) except -1:
        if self.transport is not None and not self.in_flight and not self.busy:
            self.closing = True
            self.flush()
            self.transport.close()
        return 0


@cython.final
cdef class HttpAnswered:
    """What brings the door's answer back to its connection."""
    cdef HttpEndpoint endpoint
    cdef HttpRequest request

    def __init__(self, HttpEndpoint endpoint, HttpRequest request):
        self.endpoint = endpoint
        self.request = request

    def __call__(self, future):
        self.endpoint.answered_by(self.request, future)


class HttpConnection(HttpEndpoint, asyncio.BufferedProtocol):
    """What a loop accepts as the protocol of an HTTP connection."""

    __slots__ = ()
