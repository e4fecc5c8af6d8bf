# Publishing: where messages of a topic with the same tags and routing key go, remembered as numbers of queues.

cdef enum:
    CMQ_PUBLISH_KEY = 1024      # bytes of what tells the messages of one way from others; longer ones go through Python
    CMQ_WAYS = 4096             # a power of two

cdef struct cmq_bodies_t:
    # What is published at once.
    cmq_text_t topic, last
    uint64_t size, largest
    uint32_t count
    bint empty                  # one of them

cdef struct cmq_way_t:
    # Where messages go, and what they carry.
    uint8_t* key                # malloc'd: topic, tags and routing key as the request has them; NULL: a free place
    uint32_t key_size, count, ext_size, message_bytes
    uint32_t home               # the topic's own queue, by which quotas know it
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

    cdef int put(self, const uint8_t* key, uint32_t size, list queues, bytes ext, uint32_t message_bytes,
                 uint32_t home) except -1:
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
        way.home = home
        self.count += 1
        return 0


cdef uint32_t cmq_publish_key(const proto_t* member, uint8_t* key, cmq_bodies_t* bodies) noexcept nogil:
    """Everything of a PUBLISH or BATCH_PUBLISH but its bodies; 0 if that is too long, or the bytes are no fields."""
    cdef proto_t left = member[0]
    cdef field_t field
    cdef uint32_t size = 0
    cdef int got = 1
    memset(bodies, 0, sizeof(cmq_bodies_t))
    while True:
        got = field_take(&left, &field)
        if got <= 0:
            return size if got == 0 else 0
        if field.kind != PROTO_BYTES:
            return 0
        if field.number == 2:
            bodies.last.data, bodies.last.size = field.data, field.value
            bodies.count += 1
            bodies.size += field.value
            bodies.largest = max(bodies.largest, field.value)
            bodies.empty |= field.value == 0
        else:
            if field.number == 1:
                bodies.topic.data, bodies.topic.size = field.data, field.value
            if field.value > CMQ_PUBLISH_KEY - 20 or size + field.value > CMQ_PUBLISH_KEY - 20:
                return 0
            size = <uint32_t>(bytes_put(key + size, field.number, field.data, field.value) - key)


cdef class CmqPublishing(CmqRequests):
    """Publishing over one connection: what has a way goes straight into the lane, the rest through Python."""

    cdef int publish(self, const cmq_request_t* request) noexcept nogil:
        cdef uint8_t key[CMQ_PUBLISH_KEY]
        cdef cmq_bodies_t bodies
        cdef cmq_way_t* way
        cdef uint32_t tag, index, closed
        cdef uint32_t size = cmq_publish_key(&request.member, key, &bodies)
        cdef int verdict
        if self.too_often(request, &bodies.topic):
            return self.refuse(request, CMQ_THROTTLED)
        if request.cmd == CMQ_PUBLISH and bodies.count:
            # A field that stands twice counts as it stands last.
            bodies.count = 1
            bodies.size = bodies.largest = bodies.last.size
            bodies.empty = bodies.last.size == 0
        if size == 0 or bodies.empty or not 1 <= bodies.count <= self.cmq.batch or (
                bodies.count > 1 and bodies.size > self.cmq.batch_bytes):
            return ASK
        way = self.cmq.ways.find(key, size)
        if way is NULL:
            return ROUTE
        for index in range(way.count):
            if not queue_there(self.hub.store, way.queues[index]):
                self.cmq.ways.drop(way)
                return ASK
        if bodies.largest > way.message_bytes:
            return self.refuse(request, CMQ_MESSAGE_SIZE)
        if self.hub.gates.count:
            closed = self.hub.gates.send_closed(way.home, self.key, False, now_ns())
            if closed:
                self.hub.gates.throttled += 1
                return self.refuse(request, CMQ_THROTTLED)
        tag = self.flight_take(request, 0, bodies.count)
        if tag == NO_FLIGHT:
            return NO_MEMORY
        verdict = self.publish_staged(request, way, tag, &bodies)
        if verdict == DONE:
            self.hub.sends += 1
            self.hub.messages += bodies.count
            if self.hub.gates.count:
                self.hub.gates.send_charge(way.home, self.key, bodies.count, bodies.size, False, now_ns())
            for index in range(bodies.count):
                self.flown(tag)
            return NEXT
        self.flight_give(tag)
        if verdict == BUSY and self.hub.in_flight:
            return HOLD
        return self.refuse(request, self.result_of(verdict, request.cmd))

    cdef int publish_staged(self, const cmq_request_t* request, cmq_way_t* way, uint32_t tag,
                            const cmq_bodies_t* bodies) noexcept nogil:
        """All of them in one frame of the log, each with an id of its own."""
        cdef cmq_flight_t* flight = self.flight(tag)
        cdef proto_t left = request.member
        cdef cmq_text_t body = bodies.last
        cdef fan_t* fan
        cdef uint32_t own = ATTRIBUTE_HEAD + CMQ_ID_DIGITS
        cdef uint32_t ext_size = own + way.ext_size
        cdef uint32_t index
        cdef uint8_t* ext
        self.cmq.bodies.used = 0
        ext = buffer_extend(&self.cmq.bodies, <size_t>bodies.count * ext_size)
        # Kept for the case that a note changes before the messages are stored.
        flight.extra = <uint64_t*>malloc(request.member.left)
        if ext is NULL or flight.extra is NULL:
            return BUSY
        memcpy(flight.extra, request.member.at, request.member.left)
        flight.extra_count = <uint32_t>request.member.left
        flight.first = self.cmq.names.take(self.hub.lane.now_us(), bodies.count)
        for index in range(bodies.count):
            if request.cmd == CMQ_BATCH_PUBLISH:
                cmq_next_body(&left, &body)
            cmq_attributes(ext, flight.first + (<uint64_t>index << CMQ_OWN_BITS), NULL)
            memcpy(ext + own, way.ext, way.ext_size)
            fan = self.cmq.fans + index
            fan.queues, fan.count, fan.home = way.queues, way.count, way.home
            fan.ext, fan.ext_size = ext, <uint16_t>ext_size
            fan.body, fan.body_size = body.data, <uint32_t>body.size
            ext += ext_size
        return stage_fans(self.hub.lane, self.cookie(tag), self.cmq.fans, bodies.count,
                          self.hub.http_durability | ATTRIBUTED, self.cmq.notes)

    cdef int complete(self, operation_t* operation) except -1:
        cdef cmq_flight_t* flight = self.flight(<uint32_t>operation.cookie)
        if operation.verdict != STALE or (flight.cmd != CMQ_PUBLISH and flight.cmd != CMQ_BATCH_PUBLISH):
            return CmqRequests.complete(self, operation)
        # One frame: what is stale of a batch is all of it.
        flight.left -= 1
        if flight.left:
            return 0
        # The subscriptions are not what they were: once more, by those there are now.
        member = (<const char*>flight.extra)[:flight.extra_count]
        self.in_flight += 1
        self.hub.in_calls += 1
        future = self.hub.bridge.call(self.handler.answer, self, flight.cmd, member)
        future.add_done_callback(CmqAnswered(self, flight.seqno, flight.cmd))
        self.flight_give(<uint32_t>operation.cookie)
        return 0
