# What waits: sends with a time or as halves, verdicts on halves, and the checks that a producer is sent.

cdef enum:
    COMMIT = 14
    ROLLBACK = 15
    CHECK = 16              # the only frame that the server begins
    PRODUCER = 17
    SEND_ALL = 18

    # Flags of a send; all but the first ask for a later_t before ext.
    FLAG_ATTRIBUTED = 1
    FLAG_DUE = 2
    FLAG_DELAY = 4
    FLAG_HALF = 8
    FLAGS = 15
    LATER_SIZE = 16

cdef struct later_t:
    uint64_t due_us
    uint32_t check_ms           # NO_HALF, or when the producer is asked first


cdef class LaterBase(NativeBase):
    """Sends that wait, and their verdicts.

    Invariants: 1. places has our membership of each group of producers that we joined; it is empty
    once the connection is lost. 2. arrived_us is when the bytes came that are being read, 0 while nobody asked.
    """
    cdef dict places
    cdef uint64_t arrived_us

    cdef const char* read_later(self, uint8_t flags, const uint8_t* at, later_t* later) noexcept nogil:
        """When a message shall come; NULL, or why that cannot be."""
        cdef uint64_t time_us = load64(at)
        cdef uint32_t check_ms = load32(at + 8)
        cdef uint64_t now_us = 0
        if flags & (FLAG_DUE | FLAG_DELAY):
            # Read once for all that one read brought: for a small message the clock is a tenth of its cost.
            if self.arrived_us == 0:
                self.arrived_us = self.hub.lane.now_us()
            now_us = self.arrived_us
        if flags & FLAG_DUE and flags & FLAG_DELAY:
            return b"a message has a time or a delay, not both"
        if (time_us and not flags & (FLAG_DUE | FLAG_DELAY)) or (check_ms and not flags & FLAG_HALF) or load32(at + 12):
            return b"a field that the flags do not ask for is not 0"
        if check_ms > self.hub.check_limit:
            return b"the first check is over its limit"
        if time_us > self.hub.delay_us + (now_us if flags & FLAG_DUE else 0):
            return b"a message waits about ten years at most"
        later.due_us = time_us + now_us if flags & FLAG_DELAY and time_us else time_us
        later.check_ms = check_ms if flags & FLAG_HALF else NO_HALF
        return NULL

    cdef int decide(self, const uint8_t* frame, uint32_t size) noexcept nogil:
        """COMMIT and ROLLBACK of a half."""
        cdef uint32_t tag = load32(frame + 8)
        cdef int event = EVENT_COMMIT if frame[4] == COMMIT else EVENT_ROLLBACK
        cdef int verdict
        if size != 8:
            return self.malformed(frame)
        verdict = self.hub.lane.stage_event(
            self.cookie(SHAPE_EVENT, tag) | <uint64_t>event << 32, event, load64(frame + FRAME_HEAD))
        if verdict == BUSY and self.hub.in_flight:
            return HOLD
        if verdict != DONE:
            return self.refuse_verdict(frame[4], tag, verdict)
        self.entered()
        return NEXT

    cdef int decided(self, operation_t* operation) except -1:
        """Append the reply of a drained verdict."""
        cdef uint32_t tag = <uint32_t>operation.cookie
        cdef bint commit = (operation.cookie >> 32) & 0xFF == EVENT_COMMIT
        cdef uint8_t verb = COMMIT if commit else ROLLBACK
        cdef uint8_t* reply
        if operation.verdict != DONE:
            if self.refuse_verdict(verb, tag, operation.verdict) != NEXT:
                raise MemoryError
            return 0
        reply = frame_begin(&self.out, verb, 0, tag, 12)
        if reply is NULL:
            raise MemoryError
        store64(reply, operation.offset if commit else 0)
        reply[8] = operation.durability
        reply[9] = operation.duplicate
        store16(reply + 10, operation.spare if commit else 0)
        return 0

    cdef int produce(self, object answer, const uint8_t* frame) except -1:
        """PRODUCER: be asked, or asked no more; in the loop's thread, for it waits for nothing."""
        cdef uint8_t* reply
        payload = PyBytes_FromStringAndSize(<const char*>frame + FRAME_HEAD, load32(frame) - 12)
        if self.places is None:
            self.places = {}
        status, told = answer.produce(self, self.places, payload)
        reply = frame_begin(&self.out, PRODUCER, status, load32(frame + 8), PyBytes_GET_SIZE(told))
        if reply is NULL:
            raise MemoryError
        memcpy(reply, PyBytes_AS_STRING(told), PyBytes_GET_SIZE(told))
        return 0

    def check(self, bytes payload):
        """Send the producer a CHECK; False if it cannot be reached now. From any thread."""
        if self.transport is None or self.closing or self.held & HELD_BY_PEER or self.hub.stopping:
            return False
        try:
            self.hub.loop.call_soon_threadsafe(self.checked, payload)
        except RuntimeError:
            return False        # the loop has ended
        return True

    def checked(self, bytes payload):
        cdef uint8_t* at
        if self.transport is None or self.closing:
            return
        at = frame_begin(&self.out, CHECK, 0, 0, PyBytes_GET_SIZE(payload))
        if at is NULL:
            raise MemoryError
        (at - FRAME_HEAD)[4] = CHECK       # it is no reply
        memcpy(at, PyBytes_AS_STRING(payload), PyBytes_GET_SIZE(payload))
        self.flush()

    cdef int lost(self) except -1:
        if self.places:
            for place in self.places.values():
                place.leave()
            self.places.clear()
        return NativeBase.lost(self)
