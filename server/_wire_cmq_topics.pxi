# Publishing: where messages of a topic with the same tags and routing key go, remembered as numbers of queues.

cdef enum:
    CMQ_PUBLISH_KEY = 1024      # bytes of what tells the messages of one way from others; longer ones go through Python
    CMQ_WAYS = 4096             # a power of two

cdef struct cmq_way_t:
    # Where messages go, and what they carry.
    uint8_t* key                # malloc'd: topic, tags and routing key as the request has them; NULL: a free place
    uint32_t key_size, count, ext_size, message_bytes
    uint32_t* queues            # malloc'd, with ext behind: ascending
    uint8_t* ext


@cython.final
cdef class CmqWays:
    """The ways that publishers of one worker used lately.

    Invariants:
      1. Each was told by the notes as they were at the version of CmqShared, and is forgotten with them; a message is
         stored by a way only if that is still their version.
      2. All queues that get the message were there when the way was told, and are looked for before each use: one
         that was deleted and made again has another number, which Python finds out.
    """
    cdef cmq_way_t ways[CMQ_WAYS]
    cdef readonly uint32_t count

    def __dealloc__(self):
        self.clear()

    cdef void clear(self) noexcept:
        cdef uint32_t index
        if self.count == 0:
            return
        for index in range(CMQ_WAYS):
            self.drop(self.ways + index)
        self.count = 0

    cdef void drop(self, cmq_way_t* way) noexcept nogil:
        free(way.key)
        free(way.queues)
        memset(way, 0, sizeof(cmq_way_t))

    cdef cmq_way_t* find(self, const uint8_t* key, uint32_t size) noexcept nogil:
        """The way of that key, or NULL."""
        cdef cmq_way_t* way = self.ways + (name_hash(key, size) & (CMQ_WAYS - 1))
        if way.key is not NULL and way.key_size == size and memcmp(way.key, key, size) == 0:
            return way
        return NULL

    cdef int put(self, const uint8_t* key, uint32_t size, list queues, bytes ext, uint32_t message_bytes) except -1:
        """Remember a way; whichever had its place is forgotten."""
        cdef cmq_way_t* way = self.ways + (name_hash(key, size) & (CMQ_WAYS - 1))
        cdef uint32_t index
        self.drop(way)
        way.key = <uint8_t*>malloc(size)
        way.queues = <uint32_t*>malloc(4 * len(queues) + len(ext))
        if way.key is NULL or way.queues is NULL:
            self.drop(way)
            raise MemoryError
        memcpy(way.key, key, size)
        way.key_size = size
        for index in range(len(queues)):
            way.queues[index] = queues[index]
        way.count = <uint32_t>len(queues)
        way.ext = <uint8_t*>(way.queues + way.count)
        way.ext_size = <uint32_t>len(ext)
        memcpy(way.ext, PyBytes_AS_STRING(ext), way.ext_size)
        way.message_bytes = message_bytes
        self.count += 1
        return 0


cdef uint32_t cmq_publish_key(const proto_t* member, uint8_t* key, cmq_text_t* body) noexcept nogil:
    """Everything of a PUBLISH but its last body; 0 if that is too long, or the bytes are no fields."""
    cdef proto_t left = member[0]
    cdef field_t field
    cdef uint32_t size = 0
    cdef int got = 1
    body.data, body.size = NULL, 0
    while True:
        got = field_take(&left, &field)
        if got <= 0:
            return size if got == 0 else 0
        if field.kind != PROTO_BYTES:
            return 0
        if field.number == 2:
            body.data, body.size = field.data, field.value
        else:
            if field.value > CMQ_PUBLISH_KEY - 20 or size + field.value > CMQ_PUBLISH_KEY - 20:
                return 0
            size = <uint32_t>(bytes_put(key + size, field.number, field.data, field.value) - key)


cdef class CmqPublishing(CmqRequests):
    """Publishing over one connection: what has a way goes straight into the lane, the rest through Python."""

    cdef int publish(self, const cmq_request_t* request) noexcept nogil:
        cdef uint8_t key[CMQ_PUBLISH_KEY]
        cdef cmq_text_t body
        cdef cmq_way_t* way
        cdef uint32_t tag, index
        cdef uint32_t size = cmq_publish_key(&request.member, key, &body)
        cdef int verdict
        if size == 0 or body.size == 0 or request.cmd != CMQ_PUBLISH:
            return ASK
        way = self.cmq.ways.find(key, size)
        if way is NULL:
            return ROUTE
        for index in range(way.count):
            if not queue_there(self.hub.store, way.queues[index]):
                self.cmq.ways.drop(way)
                return ASK
        if body.size > way.message_bytes:
            return self.refuse(request, CMQ_MESSAGE_SIZE)
        tag = self.flight_take(request, 0, 1)
        if tag == NO_FLIGHT:
            return NO_MEMORY
        verdict = self.publish_staged(request, way, tag, &body)
        if verdict == DONE:
            self.hub.sends += 1
            self.hub.messages += 1
            return self.flown(tag)
        self.flight_give(tag)
        if verdict == BUSY and self.hub.in_flight:
            return HOLD
        return self.refuse(request, self.result_of(verdict, request.cmd))

    cdef int publish_staged(self, const cmq_request_t* request, cmq_way_t* way, uint32_t tag,
                            const cmq_text_t* body) noexcept nogil:
        cdef cmq_flight_t* flight = self.flight(tag)
        cdef uint8_t* ext
        cdef uint32_t own = ATTRIBUTE_HEAD + CMQ_ID_DIGITS
        self.cmq.bodies.used = 0
        ext = buffer_extend(&self.cmq.bodies, own + way.ext_size)
        # Kept for the case that a note changes before the message is stored.
        flight.extra = <uint64_t*>malloc(request.member.left)
        if ext is NULL or flight.extra is NULL:
            return BUSY
        memcpy(flight.extra, request.member.at, request.member.left)
        flight.extra_count = <uint32_t>request.member.left
        flight.first = self.cmq.name_messages(self.hub.lane.now_us(), 1)
        cmq_attributes(ext, flight.first, NULL)
        memcpy(ext + own, way.ext, way.ext_size)
        return self.hub.lane.stage_fanout(
            self.cookie(tag), way.queues, way.count, self.hub.http_durability | ATTRIBUTED, 0, 0,
            ext, <uint16_t>(own + way.ext_size), body.data, <uint32_t>body.size, self.cmq.notes)

    cdef int complete(self, operation_t* operation) except -1:
        cdef cmq_flight_t* flight = self.flight(<uint32_t>operation.cookie)
        if operation.verdict != STALE or flight.cmd != CMQ_PUBLISH:
            return CmqRequests.complete(self, operation)
        # The subscriptions are not what they were: once more, by those there are now.
        member = (<const char*>flight.extra)[:flight.extra_count]
        self.in_flight += 1
        self.hub.in_calls += 1
        future = self.hub.bridge.call(self.handler.answer, self, flight.cmd, member)
        future.add_done_callback(CmqAnswered(self, flight.seqno, flight.cmd))
        self.flight_give(<uint32_t>operation.cookie)
        return 0
