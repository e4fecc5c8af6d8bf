# One CMQ connection: whole frames in the socket buffer, and what Python answers.

cdef class CmqEndpoint(CmqPublishing):
    """The frames of one connection.

    Invariants:
      1. Nothing but AUTH and heartbeats is done before admitted.
      2. begun is 0, or when the sweep first saw a frame that is not whole.
    """
    cdef readonly bint admitted
    cdef readonly object peer       # the address of the other end
    cdef double begun

    def __init__(self, Hub hub, CmqShared cmq, handler):
        self.hub = hub
        self.cmq = cmq
        self.handler = handler

    def connection_made(self, transport):
        self.peer = transport.get_extra_info("peername")
        self.cmq.endpoints.add(self)
        Framed.connection_made(self, transport)

    def buffer_updated(self, Py_ssize_t size):
        if not self.closing:
            self.cmq.refresh()
        Framed.buffer_updated(self, size)

    cdef size_t largest(self) noexcept nogil:
        return self.hub.frame_bytes if self.admitted else CMQ_GREETING

    cdef size_t missing(self) noexcept nogil:
        cdef size_t size
        if self.pending.used < CMQ_HEAD:
            return CMQ_HEAD - self.pending.used
        size = load32(self.pending.data + 2)
        if load16(self.pending.data) or size < CMQ_HEAD or size > self.largest():
            return 0
        return size - min(self.pending.used, size)

    cdef size_t process(self, const uint8_t* data, size_t size) except? 0:
        cdef size_t position = 0
        cdef size_t walked
        cdef int outcome
        cdef const uint8_t* frame
        while not self.held and not self.closing:
            with nogil:
                outcome = self.walk(data + position, size - position, &walked)
            position += walked
            frame = data + position
            if walked or outcome != NEXT:
                self.begun = 0
            if outcome == NEXT:
                break
            elif outcome == FLUSH:
                self.flush()
            elif outcome == HOLD:
                self.hold(HELD_BY_LANE)
                self.hub.held.append(self)
            elif outcome == CROWDED:
                self.hold(HELD_BY_FLIGHT)
            elif outcome == FATAL:
                self.close_soon()
                return size
            elif outcome == NO_MEMORY:
                raise MemoryError
            elif outcome == RESOLVE or outcome == REGISTER or outcome == ROUTE:
                self.learn(frame, outcome)
            else:
                position += load32(frame + 2)
                if outcome == PARK:
                    self.park()
                else:
                    self.ask(frame)
        return position

    cdef int walk(self, const uint8_t* data, size_t size, size_t* walked) noexcept nogil:
        """Deal with frame after frame until one needs something else; walked excludes that one."""
        cdef size_t position = 0
        cdef size_t length
        cdef int outcome = NEXT
        while size - position >= CMQ_HEAD:
            length = load32(data + position + 2)
            if load16(data + position) or length < CMQ_HEAD or length > self.largest():
                outcome = self.fatal(NULL)
                break
            if length > size - position:
                break
            if self.in_flight >= self.hub.flight_limit:
                outcome = CROWDED
                break
            self.cmq.rates.last = NULL
            outcome = self.one(data + position + CMQ_HEAD, length - CMQ_HEAD)
            if outcome != NEXT:
                if outcome != ASK and outcome != PARK:
                    # The frame is walked again.
                    self.cmq.rates.undo()
                break
            position += length
            if self.out.used >= self.hub.out_bytes:
                outcome = FLUSH
                break
        walked[0] = position
        return outcome

    cdef int fatal(self, const cmq_request_t* request) noexcept nogil:
        """What cannot be read: one reply, to request 0 if its number is not known, then the end."""
        self.hub.refused += 1
        if self.begin(0 if request is NULL else request.seqno, 0 if request is NULL else request.cmd,
                      CMQ_UNREADABLE, 0) is NULL:
            return NO_MEMORY
        return FATAL

    cdef int one(self, const uint8_t* data, size_t size) noexcept nogil:
        """One whole CMQProto."""
        cdef cmq_request_t request
        cdef uint32_t cmd
        if not cmq_read(data, size, &request):
            return self.fatal(NULL)
        cmd = request.cmd
        if cmd == CMQ_HEARTBEAT:
            return NO_MEMORY if self.begin(request.seqno, cmd, 0, 0) is NULL else NEXT
        if cmd == CMQ_AUTH:
            return ASK
        if not self.admitted:
            if self.begin(request.seqno, cmd, CMQ_UNAUTHENTICATED, 0) is NULL:
                return NO_MEMORY
            return FATAL
        if cmq_member(cmd) == 0:
            return self.refuse(&request, CMQ_ACTION)
        if request.member.at is NULL:
            return self.refuse(&request, CMQ_MISSING)
        if cmd == CMQ_SEND or cmd == CMQ_BATCH_SEND:
            return self.send(&request)
        if cmd == CMQ_PULL or cmd == CMQ_BATCH_PULL:
            return self.pull(&request)
        if cmd == CMQ_DELETE or cmd == CMQ_BATCH_DELETE:
            return self.delete(&request)
        if cmd == CMQ_CONFIRM:
            return self.confirm(&request)
        return self.publish(&request)

    cdef int park(self) except -1:
        """Let a receiver that found nothing wait."""
        cdef Parked parked = Parked.__new__(Parked)
        parked.endpoint = self
        parked.verb = RECEIVE
        parked.tag = self.want.tag
        parked.queue = self.want.queue
        parked.max_messages = self.want.count
        parked.max_bytes = self.hub.take_bytes
        parked.lease_ms = self.want.lease_ms
        self.hub.waiting.park(parked, self.want.wait_ms)
        return 0

    cdef int ask(self, const uint8_t* frame) except -1:
        """Let Python answer on a thread. Nothing behind an AUTH is looked at before it has."""
        cdef cmq_request_t request
        cmq_read(frame + CMQ_HEAD, load32(frame + 2) - CMQ_HEAD, &request)
        member = b""
        if request.member.at is not NULL:
            member = PyBytes_FromStringAndSize(<const char*>request.member.at, request.member.left)
        if request.cmd == CMQ_AUTH:
            self.hold(HELD_BY_CALL)
        self.in_flight += 1
        self.hub.in_calls += 1
        future = self.hub.bridge.call(self.handler.answer, self, request.cmd, member)
        future.add_done_callback(CmqAnswered(self, request.seqno, request.cmd))
        return 0

    cdef int answered(self, int64_t seqno, uint32_t cmd, outcome) except -1:
        """Reply with (result, text, fields)."""
        cdef uint32_t result = outcome[0]
        cdef bytes text = outcome[1].encode()
        cdef bytes more = outcome[2]
        cdef uint8_t* at
        self.returned()
        if self.transport is None:
            return 0
        self.cmq.requests += 1
        self.cmq.tally(cmd, result)
        at = cmq_begin(&self.out, seqno, cmd, <int32_t>result, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text),
                       self.cmq.requests, PyBytes_GET_SIZE(more))
        if at is NULL:
            raise MemoryError
        memcpy(at, PyBytes_AS_STRING(more), PyBytes_GET_SIZE(more))
        if cmd == CMQ_AUTH:
            if result == 0:
                self.admitted = True
            elif not self.admitted:
                self.close_soon()
                return 0
            self.release(HELD_BY_CALL)
        return self.call_over()

    cdef int returned(self) except -1:
        self.in_flight -= 1
        self.hub.in_calls -= 1
        if self.transport is None and self.in_flight == 0:
            self.hub.leave(self)
        return 0

    cdef int call_over(self) except -1:
        if self.held & HELD_BY_FLIGHT and self.in_flight <= self.hub.flight_limit // 2:
            self.release(HELD_BY_FLIGHT)
        self.finish()
        if self.hub.stopping:
            self.stop()
        return 0

    cdef int learn(self, const uint8_t* frame, int what) except -1:
        """Let Python tell what a frame has to know, or make us a producer; the frame is walked again then."""
        cdef cmq_request_t request
        cdef field_t field
        cdef proto_t left
        cmq_read(frame + CMQ_HEAD, load32(frame + 2) - CMQ_HEAD, &request)
        left = request.member
        name = b""
        while field_take(&left, &field) > 0:
            if field.number == 1:
                name = field.data[:field.value]
        self.hold(HELD_BY_CALL)
        self.in_flight += 1
        self.hub.in_calls += 1
        if what == ROUTE:
            member = PyBytes_FromStringAndSize(<const char*>request.member.at, request.member.left)
            future = self.hub.bridge.call(self.handler.route, self, member)
        else:
            call = self.handler.resolve if what == RESOLVE else self.handler.register
            future = self.hub.bridge.call(call, self, name)
        future.add_done_callback(CmqLearned(self, what, request.seqno, request.cmd))
        return 0

    cdef int learned(self, int what, int64_t seqno, uint32_t cmd, outcome) except -1:
        """outcome: (result, text) of a refusal, else as Handler has it."""
        cdef uint32_t queue
        self.returned()
        if self.transport is None:
            self.handler.lost(self)
            return 0
        if isinstance(outcome, tuple) and len(outcome) == 2:
            self.answer_front(seqno, cmd, outcome[0], outcome[1].encode())
        elif what == REGISTER:
            queue = outcome
            if buffer_append(&self.produced, &queue, 4) < 0:
                raise MemoryError
        elif what == RESOLVE:
            self.cmq.put(*outcome)
        elif outcome is None:
            self.ask(self.pending.data)
            buffer_consume(&self.pending, load32(self.pending.data + 2))
        else:
            self.know_way(outcome[0], outcome[1], outcome[2], outcome[3], outcome[4])
        self.release(HELD_BY_CALL)
        return self.call_over()

    cdef int answer_front(self, int64_t seqno, uint32_t cmd, uint32_t result, bytes text) except -1:
        """Refuse the frame that stands in front of what was kept."""
        cdef uint8_t* at
        self.cmq.requests += 1
        self.cmq.tally(cmd, result)
        at = cmq_begin(&self.out, seqno, cmd, <int32_t>result, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text),
                       self.cmq.requests, 0)
        if at is NULL:
            raise MemoryError
        buffer_consume(&self.pending, load32(self.pending.data + 2))
        return 0

    cdef int know_way(self, version, list queues, bytes ext, uint32_t message_bytes, uint32_t home) except -1:
        """Remember where the frame in front goes."""
        cdef uint8_t key[CMQ_PUBLISH_KEY]
        cdef cmq_bodies_t bodies
        cdef cmq_request_t request
        cdef uint32_t size
        cmq_read(self.pending.data + CMQ_HEAD, load32(self.pending.data + 2) - CMQ_HEAD, &request)
        size = cmq_publish_key(&request.member, key, &bodies)
        self.cmq.ways.put(key, size, queues, ext, message_bytes, home)
        if version != self.cmq.version:
            self.cmq.version = -1
        return 0

    def query(self, bytes queue not None, uint64_t message):
        """Ask the producer at the other end what became of a half. False if nobody is there."""
        cdef uint8_t* at
        cdef size_t size = bytes_size(1, len(queue)) + number_size(2, message)
        if self.transport is None or self.closing:
            return False
        self.cmq.requests += 1
        at = cmq_begin(&self.out, <int64_t>self.cmq.requests, CMQ_QUERY, -1, NULL, 0, 0, bytes_size(223, size))
        if at is NULL:
            raise MemoryError
        at = head_put(at, 223, size)
        number_put(bytes_put(at, 1, PyBytes_AS_STRING(queue), len(queue)), 2, message)
        self.flush()
        return True

    cdef int lost(self) except -1:
        self.cmq.endpoints.discard(self)
        if self.produced.used:
            self.handler.lost(self)
        return Framed.lost(self)

    cdef bint expired(self, double now) noexcept:
        if not self.admitted and not self.in_flight:
            return now - self.opened > self.hub.handshake_s
        if self.pending.used and not self.held:
            if self.begun == 0:
                self.begun = now
            elif now - self.begun > self.hub.request_s:
                return True
        return not self.in_flight and not self.parked and now - self.active > self.hub.idle_s


@cython.final
cdef class CmqAnswered:
    """What brings the outcome of a call back to its connection."""
    cdef CmqEndpoint endpoint
    cdef int64_t seqno
    cdef uint32_t cmd

    def __init__(self, CmqEndpoint endpoint, seqno, cmd):
        self.endpoint, self.seqno, self.cmd = endpoint, seqno, cmd

    def __call__(self, future):
        self.endpoint.answered(self.seqno, self.cmd, future.result())


@cython.final
cdef class CmqLearned:
    """The same for what a connection had to know before it can go on."""
    cdef CmqEndpoint endpoint
    cdef int what
    cdef int64_t seqno
    cdef uint32_t cmd

    def __init__(self, CmqEndpoint endpoint, what, seqno, cmd):
        self.endpoint, self.what, self.seqno, self.cmd = endpoint, what, seqno, cmd

    def __call__(self, future):
        self.endpoint.learned(self.what, self.seqno, self.cmd, future.result())


class CmqConnection(CmqEndpoint, asyncio.BufferedProtocol):
    """What a loop accepts as the protocol of a CMQ connection."""

    __slots__ = ()
