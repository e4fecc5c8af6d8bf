# The hub: one per worker. It owns the lane and knows every connection.

cdef enum:
    DRAIN_ROOM = 4096
    KICK_AT = 16            # requests staged that are worth a long commit before the loop has read from everybody
    WOKEN_ROOM = 1024
    SLOT_SHIFT = 42         # cookie = slot (22 bits) | shape (2 bits) | 8 spare bits | tag (32 bits)
    SHAPE_SHIFT = 40
    KEPT_LEAST = 8192       # who has less costs about as much as a connection does anyhow
    SHAPE_ONE = 0
    SHAPE_BATCH = 1
    SHAPE_CONFIRM = 2
    SHAPE_EVENT = 3         # its spare bits say which

    # Why a connection does not read.
    HELD_BY_LANE = 1        # the lane is full
    HELD_BY_PEER = 2        # the peer does not read its replies
    HELD_BY_CALL = 4        # a call on a thread has to come back first
    HELD_BY_FLIGHT = 8      # too many requests in flight
    HELD_BY_STOP = 16       # the server is stopping


cdef class Hub:
    """The lane, the connections and the waiting receivers of one worker.

    Invariants:
      1. slots[e.slot] is e from enter() to leave().
      2. Every operation that drain() yields was staged for the endpoint in its slot.
      3. No reply to a durable request is written before its operation was drained.
    """
    cdef Lane lane
    cdef Store store
    cdef readonly object loop, limits, bridge, broker
    cdef readonly bytearray scratch
    cdef list slots, touched
    cdef object free_slots, held, poll
    cdef operation_t* done
    cdef taken_t* taken
    cdef uint8_t* verdicts
    cdef uint8_t store_id[16]
    cdef public uint64_t received_bytes, sent_bytes, sends, messages, confirms, delivered, refused
    cdef public uint64_t requests, dropped, drains
    cdef readonly uint64_t in_flight
    cdef readonly uint32_t in_calls
    cdef readonly uint32_t connections
    cdef readonly size_t kept
    cdef bint relief
    cdef readonly bint stopping
    # Staged and not seen to: how many, how many of them when the turn before ended, how long that may go on.
    cdef uint32_t unkicked, seen
    cdef uint64_t linger_until
    cdef bint turning
    # limits as C numbers
    cdef uint32_t frame_bytes, message_bytes, batch_messages, take_messages, take_bytes
    cdef uint32_t confirm_receipts, wait_limit, lease_limit, flight_limit, parked_limit
    cdef uint32_t check_limit
    cdef uint64_t delay_us
    cdef size_t kept_limit
    cdef size_t out_bytes, head_bytes, url_bytes, body_bytes, chunk_overhead
    cdef uint32_t header_limit
    cdef double handshake_s, idle_s, http_idle_s, request_s
    cdef WaitingRoom waiting
    cdef readonly Gates gates
    # HTTP
    cdef readonly dict routes
    cdef object calls
    cdef readonly object http_handler
    cdef bytes date
    cdef uint8_t http_durability

    def __cinit__(self):
        self.done = <operation_t*>malloc(DRAIN_ROOM * sizeof(operation_t))
        self.verdicts = NULL
        self.taken = NULL
        if self.done is NULL:
            raise MemoryError

    def __init__(self, loop, Lane lane, broker, bridge, http_handler=None, durability="disk",
                 cells=None):
        limits = broker.limits
        self.loop = loop
        self.lane = lane
        self.store = lane.store
        self.broker = broker
        self.bridge = bridge
        self.limits = limits
        self.http_handler = http_handler
        self.http_durability = durability == "disk"
        self.slots = []
        self.touched = []
        self.held = []
        self.free_slots = deque()
        self.waiting = WaitingRoom(self)
        self.gates = Gates(bytearray(1024) if cells is None else cells)
        self.routes = {}
        self.scratch = bytearray(limits.read_bytes)
        self._take_limits(limits)
        memcpy(self.store_id, PyBytes_AS_STRING(bytes(self.store.id)[:16].ljust(16, b"\0")), 16)
        self.taken = <taken_t*>malloc(self.take_messages * sizeof(taken_t))
        self.verdicts = <uint8_t*>malloc(self.confirm_receipts)
        if self.taken is NULL or self.verdicts is NULL:
            raise MemoryError
        loop.add_reader(lane.fileno(), self.on_ready)
        self.sweep()

    def __dealloc__(self):
        free(self.done)
        free(self.taken)
        free(self.verdicts)

    cdef int _take_limits(self, limits) except -1:
        self.frame_bytes = limits.frame_bytes
        self.message_bytes = limits.message_bytes
        self.batch_messages = limits.batch_messages
        self.take_messages = limits.take_messages
        self.take_bytes = limits.take_bytes
        self.confirm_receipts = limits.confirm_receipts
        self.wait_limit = limits.wait_ms
        self.lease_limit = limits.lease_ms
        self.flight_limit = limits.in_flight
        self.parked_limit = limits.parked
        self.check_limit = limits.check_ms
        self.delay_us = limits.delay_ms * 1000
        self.out_bytes = limits.write_bytes
        self.kept_limit = limits.kept_bytes
        self.head_bytes = limits.head_bytes
        self.url_bytes = limits.url_bytes
        self.body_bytes = limits.body_bytes
        self.header_limit = limits.headers
        self.chunk_overhead = limits.chunk_overhead_bytes
        self.handshake_s = limits.handshake_s
        self.idle_s = limits.idle_s
        self.http_idle_s = limits.http_idle_s
        self.request_s = limits.request_s
        return 0

    cdef bint enter(self, Endpoint endpoint) except -1:
        if self.connections >= <uint32_t>self.limits.connections or self.stopping:
            self.refused += 1
            endpoint.slot = 0xffffffff
            return False
        if self.free_slots:
            endpoint.slot = self.free_slots.popleft()
            self.slots[endpoint.slot] = endpoint
        else:
            endpoint.slot = <uint32_t>len(self.slots)
            self.slots.append(endpoint)
        self.connections += 1
        return True

    cdef int leave(self, Endpoint endpoint) except -1:
        if endpoint.slot == 0xffffffff:
            return 0
        self.slots[endpoint.slot] = None
        self.free_slots.append(endpoint.slot)
        self.connections -= 1
        endpoint.slot = 0xffffffff
        return 0

    cdef int unstalled(self, Endpoint endpoint) except -1:
        """It reads again: what it waits for may have come meanwhile."""
        cdef Framed framed
        cdef Parked parked
        if isinstance(endpoint, Framed):
            framed = <Framed>endpoint
            for one in list(framed.waits or ()):
                parked = <Parked>one
                if not parked.gone:
                    self.waiting.wake_group(parked.queue, -1 if parked.verb == READ else <int64_t>parked.group)
            self.flush()
        return 0

    def on_ready(self):
        """Answer everything that became durable, then serve those who wait for a message."""
        cdef int count = DRAIN_ROOM
        cdef int index
        cdef Endpoint endpoint
        cdef operation_t* operation
        while count == DRAIN_ROOM:
            with nogil:
                count = self.lane.drain(self.done, DRAIN_ROOM)
            self.drains += 1
            for index in range(count):
                operation = self.done + index
                endpoint = <Endpoint>self.slots[operation.cookie >> SLOT_SHIFT]
                endpoint.in_flight -= 1
                self.in_flight -= 1
                if endpoint.transport is None:
                    endpoint.drained_late(operation)
                    if endpoint.in_flight == 0:
                        self.leave(endpoint)
                    continue
                endpoint.complete(operation)
                if not endpoint.touched:
                    endpoint.touched = True
                    self.touched.append(endpoint)
        self.serve_woken()
        if self.held:
            self.unhold()
        self.flush()

    cdef int kick(self, uint32_t staged) except -1:
        """So many were staged: see to it that they are committed, by the committer or by us at the end of the turn."""
        self.unkicked += staged
        if not self.lane.brief() and (self.unkicked >= KICK_AT or not self.lane.resting()):
            self.unkicked = 0
            self.lane.kick()
        elif not self.turning:
            self.turning = True
            self.loop.call_soon(self.on_turn)
        return 0

    def awaitable(self):
        """The store's awaitable calls on this loop, for requests whose replies are not made out of operations."""
        if self.calls is None:
            self.calls = Awaitable(self.store)
        return self.calls

    def on_turn(self):
        """The loop has read from all who had sent."""
        cdef bint committed = False
        self.turning = False
        if self.unkicked == 0:
            return
        if self.lane.brief():
            if self.linger():
                return
            with nogil:
                committed = self.lane.commit()
        self.unkicked = self.seen = 0
        if committed:
            self.on_ready()
        else:
            self.lane.kick()

    cdef bint linger(self) except -1:
        """Whether to read once more before the commit: while that brings more, for no longer than a sync takes.

        Whoever comes during a sync waits for its end and for another one.
        """
        cdef uint64_t now
        if self.unkicked == self.seen:
            return False
        now = now_ns()
        if self.seen == 0:
            self.linger_until = now + 1000 * <uint64_t>self.lane.sync_us()
        elif now > self.linger_until:
            return False
        self.seen = self.unkicked
        self.turning = True
        self.loop.call_soon(self.on_turn)
        return True

    cdef int serve_woken(self) except -1:
        cdef uint32_t groups[WOKEN_ROOM]
        cdef int index
        cdef int count = self.lane.woken(groups, WOKEN_ROOM)
        if self.waiting.count == 0:
            return 0
        if count < 0:
            self.waiting.wake_all()
        for index in range(count):
            self.waiting.wake_freed(groups[index])
        return 0

    @property
    def arrivals(self):
        """A number that changes whenever something may have become receivable."""
        return self.lane.arrivals()

    def wait(self, uint32_t queue, uint32_t group, uint32_t wait_ms, seen=None, HttpRequest request=None):
        """A future that is done when the group may have a message, at the latest after wait_ms.

        seen: arrivals from before the look that found nothing, which was on another thread: what came between
        that look and this call would else be noticed late. request: for whom; it is done as well when the peer is gone.
        """
        cdef Parked parked = Parked.__new__(Parked)
        parked.future = self.loop.create_future()
        parked.verb = RECEIVE
        parked.queue = queue
        parked.group = group
        self.waiting.park(parked, min(wait_ms, self.wait_limit))
        if request is not None:
            request.waiting = parked
        if (seen is not None and seen != self.lane.arrivals()) or (request is not None and request.gone):
            self.waiting.served(parked)
        return parked.future

    def took(self, uint32_t queue, uint32_t group):
        """One that was woken took something: there may be more for those behind it."""
        if self.waiting.count:
            self.waiting.wake_group(queue, group)
            self.flush()

    def released(self):
        """Messages were given back on another thread: who waits here for those groups may have them now."""
        if self.waiting.count:
            self.serve_woken()
            self.flush()

    @property
    def parked(self):
        return self.waiting.count

    cdef int unhold(self) except -1:
        cdef Endpoint endpoint
        held, self.held = self.held, []
        for endpoint in held:
            endpoint.release(HELD_BY_LANE)
        self.lane.kick()
        return 0

    cdef int flush(self) except -1:
        cdef Endpoint endpoint
        touched, self.touched = self.touched, []
        for endpoint in touched:
            endpoint.touched = False
            endpoint.flush()
            if endpoint.held & HELD_BY_FLIGHT and endpoint.in_flight <= self.flight_limit // 2:
                endpoint.release(HELD_BY_FLIGHT)
                self.lane.kick()
            if self.stopping:
                endpoint.stop()
        return 0

    def sweep(self):
        """Once a second: the date, and the connections that have gone silent or do not read."""
        cdef Endpoint endpoint
        cdef double now = monotonic()
        cdef double stall = self.limits.stall_s
        cdef list waiting = []
        self.date = formatdate(usegmt=True).encode()
        for endpoint in [one for one in self.slots if one is not None]:
            if endpoint.transport is None:
                continue
            if endpoint.stalled and now - endpoint.stalled > stall:
                self.dropped += 1
                endpoint.transport.abort()
            elif not endpoint.closing and endpoint.expired(now):
                self.dropped += 1
                endpoint.transport.close()
            elif endpoint.abandoned():
                waiting.append(endpoint)
        self.drop_gone(waiting)
        if not self.stopping or self.connections:
            self.loop.call_later(1.0, self.sweep)

    def relieve(self):
        """Too much is kept: those for whom it was kept longest go, for an honest peer is done sooner."""
        cdef Endpoint endpoint
        cdef size_t low = self.kept_limit - self.kept_limit // 8
        self.relief = False
        kept = [((<Endpoint>one).kept_since, number) for number, one in enumerate(self.slots)
                if one is not None and (<Endpoint>one).kept >= KEPT_LEAST]
        kept.sort()
        for _, number in kept:
            if self.kept <= low:
                break
            endpoint = <Endpoint>self.slots[number]
            self.dropped += 1
            endpoint.closing = True
            endpoint.account()
            if endpoint.transport is not None:
                endpoint.transport.abort()

    cdef int drop_gone(self, list endpoints) except -1:
        """Drop those whose peer has hung up: of a connection that is not read nobody else tells us."""
        cdef Endpoint endpoint
        if not endpoints:
            return 0
        asked = poll()
        found = {}
        for endpoint in endpoints:
            number = endpoint.transport.get_extra_info("socket").fileno()
            found[number] = endpoint
            asked.register(number, POLLRDHUP)
        for number, _ in asked.poll(0):
            endpoint = found[number]
            endpoint.transport.abort()
        return 0

    def begin_stop(self):
        """Read no more; answer those who wait; close each connection as soon as it is owed nothing."""
        cdef Endpoint endpoint
        self.stopping = True
        self.waiting.answer_all()
        for endpoint in [one for one in self.slots if one is not None]:
            endpoint.hold(HELD_BY_STOP)
            endpoint.flush()
            endpoint.stop()

    def abort_all(self):
        """Close what is still open, unsent bytes and all."""
        cdef Endpoint endpoint
        for endpoint in [one for one in self.slots if one is not None]:
            if endpoint.transport is not None:
                endpoint.transport.abort()

    def close(self):
        """Stop listening to the lane. The connections must be gone."""
        self.waiting.close()
        if self.calls is not None:
            self.calls.close()
        self.loop.remove_reader(self.lane.fileno())
