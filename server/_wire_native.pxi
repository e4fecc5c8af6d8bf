# One native connection: whole frames in the socket buffer become staged operations.

cdef class NativeEndpoint(LaterBase):
    """The frames of one connection."""
    cdef object answer

    def __init__(self, Hub hub, answer):
        self.hub = hub
        self.answer = answer

    cdef size_t missing(self) noexcept nogil:
        """How many bytes pending lacks for its length, then for the frame; 0 also if it is refused."""
        cdef uint32_t size
        if self.pending.used < 4:
            return 4 - self.pending.used
        size = load32(self.pending.data)
        if size < 12 or size > self.hub.frame_bytes:
            return 0
        return 4 + <size_t>size - min(self.pending.used, 4 + <size_t>size)

    cdef size_t process(self, const uint8_t* data, size_t size) except? 0:
        """Walk all whole frames; returns how many bytes were dealt with."""
        cdef size_t position = 0
        cdef size_t walked
        cdef int outcome
        cdef const uint8_t* frame
        self.arrived_us = 0
        while not self.held and not self.closing:
            with nogil:
                outcome = self.walk(data + position, size - position, &walked)
            position += walked
            frame = data + position
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
            elif outcome == RELEASED:
                if self.hub.waiting.count:
                    self.hub.serve_woken()
                    self.hub.flush()
            else:
                position += 4 + <size_t>load32(frame)
                if outcome == PARK:
                    self.park(frame)
                elif frame[4] == PRODUCER:
                    self.produce(self.answer, frame)
                else:
                    self.ask(frame)
        return position

    cdef int walk(self, const uint8_t* data, size_t size, size_t* walked) noexcept nogil:
        """Deal with frame after frame until one needs something else; walked excludes that one."""
        cdef size_t position = 0
        cdef uint32_t length
        cdef int outcome = NEXT
        while size - position >= 4:
            length = load32(data + position)
            if length < 12 or length > self.hub.frame_bytes:
                outcome = self.refuse_length(data + position, size - position, length)
                break
            if length > size - position - 4:
                break
            if self.in_flight >= self.hub.flight_limit:
                outcome = CROWDED
                break
            outcome = self.one(data + position, length - 12)
            if outcome == RELEASED:
                position += 4 + <size_t>length
                break
            if outcome != NEXT:
                break
            position += 4 + <size_t>length
            if self.out.used >= self.hub.out_bytes:
                outcome = FLUSH
                break
        walked[0] = position
        return outcome

    cdef int refuse_length(self, const uint8_t* frame, size_t size, uint32_t length) noexcept nogil:
        cdef uint8_t verb = frame[4] if size >= FRAME_HEAD else 0
        cdef uint32_t tag = load32(frame + 8) if size >= FRAME_HEAD else 0
        if length < 12:
            return self.fatal(verb, tag, MALFORMED, b"a frame has at least 12 bytes")
        return self.fatal(verb, tag, TOO_LARGE, b"the frame is over the limit told in HELLO")

    cdef int one(self, const uint8_t* frame, uint32_t size) noexcept nogil:
        """One whole frame with a payload of size bytes."""
        cdef uint8_t verb = frame[4]
        if frame[5] > (verb == CONFIRM) or load16(frame + 6) or load32(frame + 12):
            return self.fatal(verb, load32(frame + 8), MALFORMED, b"a reserved field is not 0")
        if not self.greeted:
            if verb != HELLO:
                return self.fatal(verb, load32(frame + 8), MALFORMED, b"HELLO comes first")
            return self.hello(frame, size)
        if verb == SEND:
            return self.send_one(frame, size)
        if verb == SEND_BATCH:
            return self.send_batch(frame, size)
        if verb == CONFIRM:
            return self.confirm(frame, size)
        if verb == RECEIVE or verb == READ:
            return self.fetch(frame, size)
        if verb == RELEASE or verb == EXTEND:
            return self.leases(frame, size)
        if verb == COMMIT or verb == ROLLBACK:
            return self.decide(frame, size)
        if verb == PING:
            return self.ping(frame, size)
        if verb in (OPEN, SEEK, GROUP, ADMIN, PRODUCER, SEND_ALL):
            return ASK
        if verb == HELLO:
            return self.fatal(verb, load32(frame + 8), MALFORMED, b"HELLO comes once")
        return self.refuse(frame, UNKNOWN_VERB, b"there is no such verb")

    cdef int hello(self, const uint8_t* frame, uint32_t size) noexcept nogil:
        cdef const uint8_t* at = frame + FRAME_HEAD
        cdef uint8_t* reply
        if size != 16 or at[0] != c'P' or at[1] != c'N' or at[2] != c'S' or at[3] != c'T':
            return self.malformed(frame)
        if load16(at + 4) != 1:
            return self.fatal(HELLO, load32(frame + 8), INVALID, b"the only version is 1")
        reply = frame_begin(&self.out, HELLO, 0, load32(frame + 8), 24)
        if reply is NULL:
            return NO_MEMORY
        store32(reply, 1)
        store32(reply + 4, self.hub.frame_bytes)
        memcpy(reply + 8, self.hub.store_id, 16)
        self.producer = load64(at + 8)
        self.greeted = True
        return NEXT

    cdef int ping(self, const uint8_t* frame, uint32_t size) noexcept nogil:
        cdef uint8_t* reply = frame_begin(&self.out, PING, 0, load32(frame + 8), size)
        if reply is NULL:
            return NO_MEMORY
        memcpy(reply, frame + FRAME_HEAD, size)
        return NEXT

    cdef int staged_as(self, const uint8_t* frame, int verdict, uint32_t messages, uint64_t size) noexcept nogil:
        """The outcome of staging an append of so many messages and bytes."""
        if verdict == DONE:
            if self.hub.gates.count:
                self.hub.gates.send_charge(load32(frame + FRAME_HEAD), self.key, messages, size,
                                           frame[FRAME_HEAD + 5] > FLAG_ATTRIBUTED, now_ns())
            self.entered()
            self.hub.sends += 1
            self.hub.messages += messages
            return NEXT
        # Something of this lane is on its way, so there will be a drain to wait for.
        if verdict == BUSY and self.hub.in_flight:
            return HOLD
        return self.refuse_verdict(frame[4], load32(frame + 8), verdict)

    cdef int send_one(self, const uint8_t* frame, uint32_t size) noexcept nogil:
        cdef const uint8_t* at = frame + FRAME_HEAD
        cdef const uint8_t* ext = at + 16
        cdef uint32_t ext_size, body_size, closed
        cdef later_t later
        cdef const char* wrong
        if size < 16:
            return self.malformed(frame)
        if at[4] > 1 or at[5] > FLAGS:
            return self.refuse(frame, INVALID, b"durability is 0 or 1, flags at most 15")
        if at[5] > FLAG_ATTRIBUTED:
            if size < 16 + LATER_SIZE:
                return self.malformed(frame)
            wrong = self.read_later(at[5], ext, &later)
            if wrong is not NULL:
                return self.refuse(frame, INVALID, wrong)
            ext += LATER_SIZE
        ext_size = load16(at + 6)
        if ext_size > size - (ext - at):
            return self.malformed(frame)
        body_size = size - <uint32_t>(ext - at) - ext_size
        if at[5] & FLAG_ATTRIBUTED and not attributes_whole(ext, ext_size):
            return self.refuse(frame, INVALID, b"the attributes are not a list of them")
        if body_size > self.hub.message_bytes:
            return self.refuse(frame, TOO_LARGE, b"the message is over its limit")
        if self.hub.gates.count:
            closed = self.hub.gates.outside(&self.belongs, load32(at))
            if closed:
                return self.refuse_crowd(frame, closed)
            closed = self.hub.gates.send_closed(load32(at), self.key, at[5] > FLAG_ATTRIBUTED, now_ns())
            if closed:
                return self.refuse_later(frame, closed)
        if at[5] > FLAG_ATTRIBUTED:
            return self.staged_as(frame, self.hub.lane.stage_aside(
                self.cookie(SHAPE_ONE, load32(frame + 8)), load32(at), at[4] | (at[5] & 1) << 1,
                self.producer, load64(at + 8), 1, <const uint8_t*>&body_size, ext + ext_size, body_size,
                ext, <uint16_t>ext_size, later.due_us, later.check_ms), 1, body_size + ext_size)
        return self.staged_as(frame, self.hub.lane.stage_one(
            self.cookie(SHAPE_ONE, load32(frame + 8)), load32(at),
            at[4] | at[5] << 1, self.producer, load64(at + 8),
            ext, <uint16_t>ext_size, ext + ext_size, body_size), 1, body_size + ext_size)

    cdef int send_batch(self, const uint8_t* frame, uint32_t size) noexcept nogil:
        cdef const uint8_t* at = frame + FRAME_HEAD
        cdef uint32_t count, stride, closed
        cdef size_t start
        cdef const uint8_t* sizes = at + 24
        cdef later_t later
        cdef const char* wrong
        cdef uint64_t total = 0
        cdef int found
        if size < 24:
            return self.malformed(frame)
        count = load32(at + 16)
        if at[4] > 1 or at[5] > FLAGS or load16(at + 6) or load32(at + 20) or count == 0:
            return self.refuse(frame, INVALID, b"durability is 0 or 1, flags at most 15, count at least 1")
        if at[5] > FLAG_ATTRIBUTED:
            if size < 24 + LATER_SIZE:
                return self.malformed(frame)
            wrong = self.read_later(at[5], sizes, &later)
            if wrong is not NULL:
                return self.refuse(frame, INVALID, wrong)
            sizes += LATER_SIZE
        stride = 1 + (at[5] & FLAG_ATTRIBUTED)
        if count > (size - (sizes - at)) // (4 * stride):
            return self.malformed(frame)
        if count > self.hub.batch_messages:
            return self.refuse(frame, TOO_LARGE, b"too many messages in the batch")
        start = (sizes - at) + 4 * <size_t>stride * count
        found = self.batch_sizes(sizes, count, stride, &total)
        if total != size - start:
            return self.malformed(frame)
        if found != DONE:
            return self.refuse(frame, TOO_LARGE, b"a message is over its limit")
        if stride == 2 and not self.batch_attributes(sizes, count, at + start):
            return self.refuse(frame, INVALID, b"the attributes are not a list of them")
        if self.hub.gates.count:
            closed = self.hub.gates.outside(&self.belongs, load32(at))
            if closed:
                return self.refuse_crowd(frame, closed)
            closed = self.hub.gates.send_closed(load32(at), self.key, at[5] > FLAG_ATTRIBUTED, now_ns())
            if closed:
                return self.refuse_later(frame, closed)
        if at[5] > FLAG_ATTRIBUTED:
            return self.staged_as(frame, self.hub.lane.stage_aside(
                self.cookie(SHAPE_BATCH, load32(frame + 8)), load32(at), at[4] | (at[5] & 1) << 2,
                self.producer, load64(at + 8), count, sizes, at + start, total, NULL, 0,
                later.due_us, later.check_ms), count, total)
        return self.staged_as(frame, self.hub.lane.stage_batch(
            self.cookie(SHAPE_BATCH, load32(frame + 8)), load32(at), at[4] | at[5] << 2,
            self.producer, load64(at + 8), count, sizes, at + start, total), count, total)

    cdef int batch_sizes(self, const uint8_t* sizes, uint32_t count, uint32_t stride,
                         uint64_t* total) noexcept nogil:
        """DONE or TOO_LARGE; total is the sum of all sizes, to be compared with what is there."""
        cdef uint32_t index
        cdef uint32_t largest = 0
        cdef uint32_t longest = 0
        for index in range(count):
            largest = max(largest, load32(sizes))
            total[0] += load32(sizes)
            if stride == 2:
                longest = max(longest, load32(sizes + 4))
                total[0] += load32(sizes + 4)
            sizes += 4 * stride
        return DONE if largest <= self.hub.message_bytes and longest <= 0xFFFF else TOO_LARGE

    cdef bint batch_attributes(self, const uint8_t* sizes, uint32_t count, const uint8_t* at) noexcept nogil:
        """Whether each message's attributes are a list of them; the sizes were compared with what is there."""
        cdef uint32_t index
        for index in range(count):
            if not attributes_whole(at, load32(sizes + 4)):
                return False
            at += <size_t>load32(sizes) + load32(sizes + 4)
            sizes += 8
        return True

    cdef int park(self, const uint8_t* frame) except -1:
        """Let a RECEIVE or READ that found nothing wait."""
        cdef const uint8_t* at = frame + FRAME_HEAD
        cdef Parked parked
        if self.parked >= self.hub.parked_limit:
            frame_error(&self.out, frame[4], load32(frame + 8), BUSY, 20,
                        b"too many requests of this connection wait already")
            return 0
        parked = Parked.__new__(Parked)
        parked.endpoint = self
        parked.verb = frame[4]
        parked.tag = load32(frame + 8)
        parked.queue = load32(at)
        if parked.verb == RECEIVE:
            parked.group = load32(at + 4)
            parked.max_messages = load32(at + 8)
            parked.max_bytes = load32(at + 12)
            parked.lease_ms = load32(at + 16)
        else:
            parked.offset = load64(at + 8)
            parked.max_messages = load32(at + 16)
            parked.max_bytes = load32(at + 20)
        self.hub.waiting.park(parked, min(self.wait_of(frame), self.hub.wait_limit))
        return 0

    cdef int ask(self, const uint8_t* frame) except -1:
        """Let Python answer on a thread; nothing after this frame is looked at before it has."""
        cdef uint8_t verb = frame[4]
        cdef uint32_t size = load32(frame) - 12
        payload = PyBytes_FromStringAndSize(<const char*>frame + FRAME_HEAD, size)
        self.hold(HELD_BY_CALL)
        self.in_flight += 1
        self.hub.in_calls += 1
        future = self.hub.bridge.call(self.answer, verb, payload, self.producer, self.join)
        future.add_done_callback(Answered(self, verb, load32(frame + 8)))
        return 0

    cdef int answered(self, uint8_t verb, uint32_t tag, outcome) except -1:
        """Reply with (status, payload); a READ whose place was found goes on as one by offset."""
        cdef uint16_t status = outcome[0]
        cdef bytes payload = outcome[1]
        cdef uint8_t* reply
        self.in_flight -= 1
        self.hub.in_calls -= 1
        if self.transport is None:
            if self.in_flight == 0:
                self.hub.leave(self)
            return 0
        if verb == READ and status == 0:
            # The resolved request replaces the frame in front of what was kept.
            self.reread(tag, payload)
        else:
            reply = frame_begin(&self.out, verb, status, tag, PyBytes_GET_SIZE(payload))
            if reply is NULL:
                raise MemoryError
            memcpy(reply, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))
        self.release(HELD_BY_CALL)
        self.flush()
        if self.hub.stopping:
            self.stop()
        return 0

    cdef int reread(self, uint32_t tag, bytes payload) except -1:
        cdef buffer_t frame
        memset(&frame, 0, sizeof(frame))
        cdef uint8_t* at = frame_begin(&frame, READ, 0, tag, PyBytes_GET_SIZE(payload))
        if at is NULL:
            raise MemoryError
        frame.data[4] = READ
        memcpy(at, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))
        try:
            if self.fetch(frame.data, <uint32_t>PyBytes_GET_SIZE(payload)) == PARK:
                self.park(frame.data)
        finally:
            buffer_free(&frame)
        return 0

    cdef bint expired(self, double now) noexcept:
        if not self.greeted:
            return now - self.opened > self.hub.handshake_s
        return not self.in_flight and not self.parked and not self.places and now - self.active > self.hub.idle_s


@cython.final
cdef class Answered:
    """What brings the outcome of a call back to its connection."""
    cdef NativeEndpoint endpoint
    cdef uint8_t verb
    cdef uint32_t tag

    def __init__(self, NativeEndpoint endpoint, verb, tag):
        self.endpoint = endpoint
        self.verb = verb
        self.tag = tag

    def __call__(self, future):
        self.endpoint.answered(self.verb, self.tag, future.result())


class Connection(NativeEndpoint, asyncio.BufferedProtocol):
    """What a loop accepts as the protocol of a native connection."""

    __slots__ = ()
