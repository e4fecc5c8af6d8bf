# What the requests of a CMQ connection become: staged operations, deliveries, receivers that wait.

cdef enum:
    # What the walk over frames comes to, beside the outcomes of every protocol.
    RESOLVE = 64            # a queue that is not known here: this frame again when Python has told
    REGISTER = 65           # the first half for a queue: this frame again when we are its producer
    ROUTE = 66              # the way of what is published is not known here: as RESOLVE

    CMQ_CHECK_LIMIT_MS = 43200000

cdef struct cmq_want_t:
    # The receiver that wants to wait.
    uint32_t tag, queue, count, lease_ms, wait_ms


cdef inline uint32_t cmq_call(uint32_t cmd) noexcept nogil:
    """The action that a command is over HTTP, as metrics/cmq.py numbers them: the same calls count together."""
    cdef uint32_t at = cmd - CMQ_SEND
    if at < 6:
        return at // 2 + 3 * (at & 1)
    return at


cdef class CmqRequests(CmqBase):
    """The requests of one CMQ connection, whole and understood."""
    cdef object handler
    cdef cmq_want_t want
    cdef buffer_t produced          # numbers of the queues that this connection is a producer for

    def __dealloc__(self):
        buffer_free(&self.produced)

    cdef int send(self, const cmq_request_t* request) noexcept nogil:
        cdef cmq_send_t send
        cdef cmq_queue_t* queue
        cdef uint32_t result, closed
        cdef int outcome
        cdef bint many = request.cmd == CMQ_BATCH_SEND
        result = cmq_read_send(&request.member, &send)
        if not result and self.too_often(request, &send.name):
            result = CMQ_THROTTLED
        if result:
            return self.refuse(request, result)
        if not many:
            # A field that stands twice counts as it stands last.
            send.count = 1
            send.bodies_size = send.largest = <uint32_t>send.body.size
        queue = self.cmq.find(&send.name)
        if queue is NULL or (queue.bounded and now_ns() - queue.looked > CMQ_LOOK_NS):
            return RESOLVE
        result = self.send_checked(&send, queue)
        if result:
            return self.refuse(request, result)
        if send.half and not self.produces(queue.queue):
            return REGISTER
        if self.hub.gates.count:
            closed = self.hub.gates.send_closed(
                queue.queue, self.key, send.half != 0 or send.delay_s != 0, now_ns())
            if closed:
                self.hub.gates.throttled += 1
                return self.refuse(request, CMQ_THROTTLED)
        outcome = self.stage(request, &send, queue)
        if outcome == NEXT and queue.bounded:
            queue.room -= send.count
        return outcome

    cdef inline bint too_often(self, const cmq_request_t* request, const cmq_text_t* name) noexcept nogil:
        """Whether there were as many calls of this second as the original allows."""
        return self.cmq.rates.limit and not self.cmq.rates.passes(cmq_call(request.cmd), name.data, name.size)

    cdef uint32_t send_checked(self, const cmq_send_t* send, const cmq_queue_t* queue) noexcept nogil:
        """0, or the module's code of what is wrong with it."""
        cdef uint32_t largest = self.hub.message_bytes
        if queue.message_bytes:
            largest = min(largest, queue.message_bytes)
        if send.count > self.cmq.batch:
            return CMQ_BATCH_SIZE
        if send.largest > largest:
            return CMQ_MESSAGE_SIZE
        if send.bodies_size > self.cmq.batch_bytes and send.count > 1:
            return CMQ_BATCH_BYTES
        if queue.bounded and queue.room < <int64_t>send.count:
            return CMQ_HEAP
        if send.delay_s > self.cmq.delay_s:
            return CMQ_DELAY
        if send.half > 1:
            return CMQ_OUT_OF_RANGE
        return CMQ_NOT_TRANSACTIONAL if send.half and not queue.transactions else 0

    cdef bint produces(self, uint32_t queue) noexcept nogil:
        cdef size_t at
        for at in range(self.produced.used // 4):
            if (<uint32_t*>self.produced.data)[at] == queue:
                return True
        return False

    cdef int stage(self, const cmq_request_t* request, const cmq_send_t* send, const cmq_queue_t* queue) noexcept nogil:
        cdef uint32_t tag = self.flight_take(request, queue.queue, send.count)
        cdef uint8_t level = self.hub.http_durability
        cdef int verdict
        if tag == NO_FLIGHT:
            return NO_MEMORY
        if send.half or send.delay_s:
            verdict = self.stage_aside(request, send, queue, tag)
        elif request.cmd == CMQ_SEND:
            verdict = self.hub.lane.stage_one(self.cookie(tag), queue.queue, level, 0, 0, NULL, 0,
                                              send.body.data, <uint32_t>send.body.size)
        else:
            if self.gather(request, 0, NULL) < 0:
                return NO_MEMORY
            verdict = self.hub.lane.stage_batch(
                self.cookie(tag), queue.queue, level, 0, 0, send.count, <const uint8_t*>self.cmq.sizes,
                self.cmq.bodies.data, send.bodies_size)
        if verdict != DONE:
            self.flight_give(tag)
            # Something of this lane is on its way, so there will be a drain to wait for.
            if verdict == BUSY and self.hub.in_flight:
                return HOLD
            return self.refuse(request, self.result_of(verdict, request.cmd))
        if self.hub.gates.count:
            self.hub.gates.send_charge(queue.queue, self.key, send.count, send.bodies_size,
                                       send.half != 0 or send.delay_s != 0, now_ns())
        self.hub.sends += 1
        self.hub.messages += send.count
        return self.flown(tag)

    cdef int flown(self, uint32_t tag) noexcept nogil:
        """One operation of a flight was staged."""
        self.flight(tag).left += 1
        self.entered()
        return NEXT

    cdef inline uint64_t cookie(self, uint32_t tag) noexcept nogil:
        return (<uint64_t>self.slot << SLOT_SHIFT) | tag

    cdef int stage_aside(self, const cmq_request_t* request, const cmq_send_t* send, const cmq_queue_t* queue,
                         uint32_t tag) noexcept nogil:
        """Stage messages that wait: each carries the id that its sender is told."""
        cdef cmq_flight_t* flight = self.flight(tag)
        cdef uint64_t now_us = self.hub.lane.now_us()
        cdef uint64_t due_us = now_us
        cdef uint32_t check_ms = NO_HALF
        flight.first = self.cmq.names.take(now_us, send.count)
        if send.half:
            check_ms = queue.check_ms
            if send.first_check > 0:
                # Seconds, or milliseconds if they are many.
                check_ms = <uint32_t>min(send.first_check if send.first_check >= 1000 else 1000 * send.first_check,
                                         <int64_t>CMQ_CHECK_LIMIT_MS)
            flight.half = True
            flight.extra = <uint64_t*>malloc(2 * send.count * sizeof(uint32_t))
            if flight.extra is NULL:
                return BUSY
        if send.delay_s:
            # Whole seconds, so that what was sent together arrives together.
            due_us = (now_us + send.delay_s * 1000000 + 999999) // 1000000 * 1000000
        if self.gather(request, flight.first, queue if send.half else NULL) < 0:
            return BUSY
        if send.half:
            memcpy(flight.extra, self.cmq.sizes, 2 * send.count * sizeof(uint32_t))
        return self.hub.lane.stage_aside(
            self.cookie(tag), queue.queue, self.hub.http_durability | PACKED, 0, 0, send.count,
            <const uint8_t*>self.cmq.sizes, self.cmq.bodies.data, self.cmq.bodies.used, NULL, 0,
            due_us, check_ms)

    cdef int gather(self, const cmq_request_t* request, uint64_t first, const cmq_queue_t* half) noexcept nogil:
        """All bodies one behind the other, with their sizes; with a first id each behind its attributes.

        half: the queue whose attributes of a half they get. -1 when there is no memory.
        """
        cdef proto_t left = request.member
        cdef cmq_text_t body, found
        cdef uint32_t index = 0
        cdef uint32_t ext_size = 0
        cdef uint8_t* at
        self.cmq.bodies.used = 0
        if first:
            ext_size = ATTRIBUTE_HEAD + CMQ_ID_DIGITS + (half.half_size if half is not NULL else 0)
        while index < CMQ_BATCH and cmq_next_body(&left, &body):
            if request.cmd == CMQ_SEND:
                # Only the last one counts.
                while cmq_next_body(&left, &found):
                    body = found
            at = buffer_extend(&self.cmq.bodies, ext_size + body.size)
            if at is NULL:
                return -1
            if first:
                cmq_attributes(at, first, half)
                self.cmq.sizes[2 * index] = <uint32_t>body.size
                self.cmq.sizes[2 * index + 1] = ext_size
                first += <uint64_t>1 << CMQ_OWN_BITS
            else:
                self.cmq.sizes[index] = <uint32_t>body.size
            memcpy(at + ext_size, body.data, body.size)
            index += 1
        return 0

    cdef int pull(self, const cmq_request_t* request) noexcept nogil:
        """PULL and BATCH_PULL: what there is now, or wait."""
        cdef cmq_pull_t pull
        cdef cmq_queue_t* queue
        cdef uint32_t closed, tag
        cdef uint32_t most = 1
        cdef int got
        cdef uint32_t result = cmq_read_pull(&request.member, request.cmd == CMQ_BATCH_PULL, &pull)
        if not result and self.too_often(request, &pull.name):
            result = CMQ_THROTTLED
        if result:
            return self.refuse(request, result)
        if request.cmd == CMQ_PULL:
            pull.count = 1
        if pull.count < 1 or pull.count > self.cmq.batch:
            return self.refuse(request, CMQ_BATCH_SIZE)
        queue = self.cmq.find(&pull.name)
        if queue is NULL:
            return RESOLVE
        if pull.lease_s > self.hub.lease_limit // 1000:
            return self.refuse(request, CMQ_OUT_OF_RANGE)
        self.want.queue = queue.queue
        self.want.count = <uint32_t>pull.count
        self.want.lease_ms = <uint32_t>pull.lease_s * 1000 if pull.lease_s > 0 else queue.lease_ms
        self.want.wait_ms = queue.wait_ms
        if pull.wait_s >= 0:
            self.want.wait_ms = <uint32_t>min(pull.wait_s, <int64_t>self.cmq.wait_s) * 1000
        if self.hub.gates.count and not self.want.wait_ms:
            closed = self.hub.gates.receive_closed(self.hub.store, queue.queue, 0, self.key, &most, now_ns())
            if closed:
                self.hub.gates.throttled += 1
                return self.refuse(request, CMQ_THROTTLED)
        if self.parked >= self.cmq.parked and self.want.wait_ms:
            return self.refuse(request, CMQ_THROTTLED)
        tag = self.flight_take(request, queue.queue, self.want.count)
        if tag == NO_FLIGHT:
            return NO_MEMORY
        self.want.tag = tag
        got = self.deliver(RECEIVE, tag, queue.queue, 0, 0, self.want.count, self.hub.take_bytes, self.want.lease_ms)
        if got < 0:
            return self.refuse_verdict(RECEIVE, tag, -got)
        if got == 0 and self.want.wait_ms:
            return PARK
        return NO_MEMORY if got == 0 and self.reply_empty(RECEIVE, tag) < 0 else NEXT

    cdef int delete(self, const cmq_request_t* request) noexcept nogil:
        """DELETE and BATCH_DELETE."""
        cdef cmq_text_t name
        cdef cmq_queue_t* queue
        cdef cmq_flight_t* flight
        cdef uint32_t count, tag
        cdef uint32_t good = 0
        cdef int verdict = -1
        cdef uint32_t result = cmq_read_handles(&request.member, &name, self.cmq.handles, CMQ_BATCH, &count)
        if not result and self.too_often(request, &name):
            result = CMQ_THROTTLED
        if result:
            return self.refuse(request, result)
        if count > self.cmq.batch or (count > 1 and request.cmd == CMQ_DELETE):
            return self.refuse(request, CMQ_BATCH_SIZE)
        queue = self.cmq.find(&name)
        if queue is NULL:
            return RESOLVE
        tag = self.flight_take(request, queue.queue, count)
        if tag == NO_FLIGHT:
            return NO_MEMORY
        flight = self.flight(tag)
        if self.delete_whole(flight, &good) < 0:
            return NO_MEMORY
        if good:
            verdict = self.hub.lane.stage_confirm(self.cookie(tag), self.cmq.receipts, good, self.hub.verdicts)
        if verdict == -1:
            # Of those that were leased a moment ago none is now.
            if good and self.delete_lost(flight, good) < 0:
                return NO_MEMORY
            return self.deleted(tag)
        if verdict != DONE:
            self.flight_give(tag)
            if verdict == BUSY and self.hub.in_flight:
                return HOLD
            return self.refuse(request, self.result_of(verdict, request.cmd))
        if self.delete_lost(flight, good) < 0:
            return NO_MEMORY
        self.hub.confirms += good
        return self.flown(tag)

    cdef int delete_whole(self, cmq_flight_t* flight, uint32_t* good) noexcept nogil:
        """The receipts of the handles that fit a lease, side by side with these; the others go to extra."""
        cdef uint32_t index
        cdef uint64_t handle
        for index in range(flight.count):
            handle = self.cmq.handles[index]
            if receipt_whole(self.hub.store, flight.queue, 0, handle, self.cmq.receipts + good[0]) == DONE:
                self.cmq.handles[good[0]] = handle
                good[0] += 1
            elif self.extra_put(flight, handle) < 0:
                return -1
        return 0

    cdef int delete_lost(self, cmq_flight_t* flight, uint32_t good) noexcept nogil:
        """What was found not to be leased any more when it was confirmed."""
        cdef uint32_t index
        for index in range(good):
            if self.hub.verdicts[index] != DONE and self.extra_put(flight, self.cmq.handles[index]) < 0:
                return -1
        return 0

    cdef int extra_put(self, cmq_flight_t* flight, uint64_t value) noexcept nogil:
        if flight.extra is NULL:
            flight.extra = <uint64_t*>malloc(flight.count * sizeof(uint64_t))
            if flight.extra is NULL:
                return -1
        flight.extra[flight.extra_count] = value
        flight.extra_count += 1
        return 0

    cdef int confirm(self, const cmq_request_t* request) noexcept nogil:
        """CONFIRM: what became of halves. Those not known here, and what is odd, is for Python."""
        cdef proto_t left = request.member
        cdef field_t field
        cdef cmq_half_t* half
        cdef uint64_t id, state
        cdef uint32_t count = 0
        cdef uint32_t tag
        cdef int got = 1
        while got > 0:
            got = field_take(&left, &field)
            if got > 0 and field.number == 2:
                if not cmq_read_item(&field, &id, &state):
                    return self.refuse(request, CMQ_UNREADABLE)
                half = self.cmq.half_find(id)
                if half is NULL or state - 1 > 1:
                    return ASK
                count += 1
        if got < 0:
            return self.refuse(request, CMQ_UNREADABLE)
        if count == 0 or count > CMQ_BATCH:
            return self.refuse(request, CMQ_MISSING if count == 0 else CMQ_BATCH_SIZE)
        tag = self.flight_take(request, 0, count)
        if tag == NO_FLIGHT:
            return NO_MEMORY
        left = request.member
        while field_take(&left, &field) > 0:
            if field.number == 2 and cmq_read_item(&field, &id, &state):
                half = self.cmq.half_find(id)
                got = self.hub.lane.stage_event(
                    self.cookie(tag), EVENT_COMMIT if state == 1 else EVENT_ROLLBACK, half.pending)
                if got != DONE:
                    # A verdict that is said twice counts once: Python says them all again.
                    self.flight(tag).quiet = True
                    if self.flight(tag).left == 0:
                        self.flight_give(tag)
                    return ASK
                self.flown(tag)
        return NEXT
