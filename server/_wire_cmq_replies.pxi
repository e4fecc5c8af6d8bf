# What a CMQ connection replies with: deliveries, drained operations, refusals.

cdef struct cmq_flight_t:
    # One request that was read and not answered.
    int64_t seqno
    uint64_t first              # the id of the first message, if it was given one; a DELETE's handle
    uint64_t* extra             # malloc'd: handles that fit no lease, or of halves {u32 body, u32 attributes} each
    uint32_t cmd
    uint32_t count              # of messages, handles, or verdicts
    uint32_t extra_count
    uint32_t left               # operations that were not drained
    uint32_t queue, lease_ms
    uint32_t next               # in the list of free ones
    bint half, quiet
    int32_t failed              # the first result other than 0 of several operations

cdef enum:
    NO_FLIGHT = 0xFFFFFFFF

cdef extern from "format.h" nogil:
    ctypedef struct origin_t:
        uint32_t queue
        uint32_t attempts


cdef class CmqBase(Framed):
    """The replies of one CMQ connection.

    Invariants:
      1. A flight is taken when a request was found good, and given back when its reply is in out;
         the tag of an operation, or of a parked receiver, is its flight.
      2. A leased body is copied into out before its pin is released.
    """
    cdef CmqShared cmq
    cdef buffer_t flights
    cdef uint32_t free_flight

    def __cinit__(self, *_):
        self.free_flight = NO_FLIGHT

    def __dealloc__(self):
        cdef size_t at
        for at in range(self.flights.used // sizeof(cmq_flight_t)):
            free((<cmq_flight_t*>self.flights.data)[at].extra)
        buffer_free(&self.flights)

    cdef inline cmq_flight_t* flight(self, uint32_t tag) noexcept nogil:
        return <cmq_flight_t*>self.flights.data + tag

    cdef uint32_t flight_take(self, const cmq_request_t* request, uint32_t queue, uint32_t count) noexcept nogil:
        """A flight for a request; NO_FLIGHT when there is no memory."""
        cdef uint32_t tag = self.free_flight
        cdef cmq_flight_t* flight
        if tag == NO_FLIGHT:
            tag = <uint32_t>(self.flights.used // sizeof(cmq_flight_t))
            if buffer_extend(&self.flights, sizeof(cmq_flight_t)) is NULL:
                return NO_FLIGHT
            flight = self.flight(tag)
        else:
            flight = self.flight(tag)
            self.free_flight = flight.next
        memset(flight, 0, sizeof(cmq_flight_t))
        flight.seqno = request.seqno
        flight.cmd = request.cmd
        flight.queue = queue
        flight.count = count
        return tag

    cdef void flight_give(self, uint32_t tag) noexcept nogil:
        cdef cmq_flight_t* flight = self.flight(tag)
        free(flight.extra)
        flight.extra = NULL
        flight.next = self.free_flight
        self.free_flight = tag

    cdef uint8_t* begin(self, int64_t seqno, uint32_t cmd, uint32_t result, size_t more) noexcept nogil:
        """A reply with room for more bytes; NULL when there is no memory."""
        cdef const cmq_fault_t* fault = self.cmq.fault(result) if result else &CMQ_NO_FAULT
        self.cmq.requests += 1
        self.cmq.tally(cmd, result)
        return cmq_begin(&self.out, seqno, cmd, <int32_t>result, fault.text, fault.size, self.cmq.requests, more)

    cdef int refuse(self, const cmq_request_t* request, uint32_t result) noexcept nogil:
        """An error reply after which the connection goes on."""
        return NO_MEMORY if self.begin(request.seqno, request.cmd, result, 0) is NULL else NEXT

    cdef int answer_flight(self, uint32_t tag, uint32_t result) noexcept nogil:
        """The reply of a flight that tells nothing but its result."""
        cdef cmq_flight_t* flight = self.flight(tag)
        cdef int outcome = NEXT
        if not flight.quiet and self.begin(flight.seqno, flight.cmd, result, 0) is NULL:
            outcome = NO_MEMORY
        self.flight_give(tag)
        return outcome

    cdef uint32_t result_of(self, int verdict, uint32_t cmd) noexcept nogil:
        """The module's code of what the engine refused."""
        if verdict == NOT_FOUND:
            return CMQ_NO_QUEUE
        if verdict == TOO_LARGE:
            return CMQ_MESSAGE_SIZE
        if verdict == STORE_FULL:
            return CMQ_HEAP
        if verdict == BUSY:
            return CMQ_THROTTLED
        if cmd == CMQ_PULL or cmd == CMQ_BATCH_PULL:
            return CMQ_RECEIVE_FAILED
        if cmd == CMQ_DELETE or cmd == CMQ_BATCH_DELETE:
            return CMQ_DELETE_FAILED
        return CMQ_CONFIRM_FAILED if cmd == CMQ_CONFIRM else CMQ_SEND_FAILED

    cdef int refuse_verdict(self, uint8_t verb, uint32_t tag, int verdict) noexcept nogil:
        return self.answer_flight(tag, self.result_of(verdict, self.flight(tag).cmd))

    cdef int reply_empty(self, uint8_t verb, uint32_t tag) noexcept nogil:
        return -1 if self.answer_flight(tag, CMQ_NO_MESSAGE) != NEXT else 0

    cdef int deliver(self, uint8_t verb, uint32_t tag, uint32_t queue, uint32_t group, uint64_t offset,
                     uint32_t max_messages, uint32_t max_bytes, uint32_t lease_ms) noexcept nogil:
        cdef uint64_t pin = 0
        cdef int count
        max_messages = max(1, min(max_messages, self.hub.take_messages))
        max_bytes = max(1, min(max_bytes, self.hub.take_bytes))
        # One that may wait comes again by itself.
        if self.hub.gates.count and self.hub.gates.receive_closed(
                self.hub.store, queue, group, self.key, &max_messages, now_ns()):
            return 0
        count = self.hub.lane.take(queue, group, max_messages, max_bytes, lease_ms, self.hub.taken, &pin)
        if count > 0:
            if self.messages(tag, count, lease_ms) < 0:
                count = -NO_MEMORY
            self.hub.store.pin_release(pin)
            self.flight_give(tag)
            self.hub.delivered += count
            if self.hub.gates.count:
                self.hub.gates.receive_charge(queue, self.key, <uint32_t>count, now_ns())
        return count

    cdef void describe(self, const taken_t* one, uint32_t queue, uint64_t now_us, uint32_t lease_ms,
                       cmq_message_t* out) noexcept nogil:
        cdef uint64_t given = cmq_carried_id(one.ext, one.ext_size) if one.attributed else 0
        out.id = given if given else cmq_placed_id(queue, one.receipt.offset)
        out.handle = receipt_short(&one.receipt)
        out.body = one.ext + one.ext_size
        out.body_size = one.body_size
        out.count = one.attempts
        out.enqueued_s = <int64_t>(one.stored_us // 1000000)
        out.visible_s = <int64_t>((now_us + <uint64_t>lease_ms * 1000) // 1000000)
        out.first_s = <int64_t>self.cmq.firsts.received(queue, one.receipt.offset, one.attempts, now_us // 1000000)
        out.origin_size = 0
        if one.origin is not NULL:
            self.describe_origin(one, out)

    cdef void describe_origin(self, const taken_t* one, cmq_message_t* out) noexcept nogil:
        """Where a dead letter was before."""
        cdef const origin_t* origin = <const origin_t*>one.origin
        cdef char* at = put_bytes(<char*>out.origin_name, b"queue-", 6)
        out.origin_size = <uint8_t*>put_hex(at, origin.queue, 8) - out.origin_name
        out.origin_count = origin.attempts
        out.origin_s = one.sent_us // 1000000

    cdef int messages(self, uint32_t tag, int count, uint32_t lease_ms) noexcept nogil:
        """Append the reply with what was taken; -1 when there is no memory."""
        cdef cmq_flight_t* flight = self.flight(tag)
        cdef bint many = flight.cmd == CMQ_BATCH_PULL
        cdef uint64_t now_us = self.hub.lane.now_us()
        cdef cmq_message_t* described = self.cmq.described
        cdef size_t size = 0
        cdef size_t inner
        cdef int index
        cdef uint8_t* at
        count = min(count, <int>CMQ_BATCH)
        for index in range(count):
            self.describe(self.hub.taken + index, flight.queue, now_us, lease_ms, described + index)
            inner = cmq_message_size(described + index)
            size += bytes_size(1, inner) if many else inner
        at = self.begin(flight.seqno, flight.cmd, 0, bytes_size(27 if many else 26, size))
        if at is NULL:
            return -1
        at = head_put(at, 27 if many else 26, size)
        for index in range(count):
            if many:
                at = head_put(at, 1, cmq_message_size(described + index))
            at = cmq_message_put(at, described + index)
        return 0

    cdef int complete(self, operation_t* operation) except -1:
        """Append the reply of a drained operation."""
        cdef uint32_t tag = <uint32_t>operation.cookie
        cdef cmq_flight_t* flight = self.flight(tag)
        cdef int outcome
        if operation.verdict == NOT_FOUND:
            self.cmq.clear()
        if operation.verdict != DONE and flight.failed == 0:
            flight.failed = <int32_t>self.result_of(operation.verdict, flight.cmd)
        flight.left -= 1
        if flight.left:
            return 0
        if flight.failed:
            outcome = self.answer_flight(tag, <uint32_t>flight.failed)
        elif flight.cmd == CMQ_DELETE or flight.cmd == CMQ_BATCH_DELETE:
            outcome = self.deleted(tag)
        elif flight.cmd == CMQ_CONFIRM:
            outcome = self.answer_flight(tag, 0)
        else:
            outcome = self.sent(tag, operation)
        if outcome != NEXT:
            raise MemoryError
        return 0

    cdef int sent(self, uint32_t tag, const operation_t* operation) noexcept nogil:
        cdef cmq_flight_t* flight = self.flight(tag)
        cdef size_t size = 0
        cdef uint32_t index
        cdef uint64_t id, step
        cdef uint64_t pending = operation.offset
        cdef const uint32_t* sizes = <const uint32_t*>flight.extra
        cdef uint8_t* at
        if flight.first:
            id, step = flight.first, <uint64_t>1 << CMQ_OWN_BITS
        else:
            id, step = cmq_placed_id(flight.queue, operation.offset), 1
        for index in range(flight.count):
            size += number_size(29, id + index * step)
        at = self.begin(flight.seqno, flight.cmd, 0, size)
        if at is NULL:
            return NO_MEMORY
        for index in range(flight.count):
            at = number_put(at, 29, id + index * step)
            if flight.half and operation.kind == KIND_PENDING:
                self.cmq.half_put(id + index * step, pending, flight.queue)
                if index + 1 < flight.count:
                    pending = pending_after(pending, sizes[2 * index], sizes[2 * index + 1])
        self.flight_give(tag)
        return NEXT

    cdef int deleted(self, uint32_t tag) noexcept nogil:
        """The reply of a deletion: what it failed for is in extra."""
        cdef cmq_flight_t* flight = self.flight(tag)
        cdef uint32_t result = 0
        cdef uint32_t index
        cdef size_t size = 0
        cdef size_t inner
        cdef const cmq_fault_t* fault = self.cmq.fault(CMQ_HANDLE)
        cdef uint8_t* at
        cdef size_t tail = number_size(2, CMQ_HANDLE) + bytes_size(3, fault.size)
        if flight.extra_count:
            result = CMQ_NONE_DELETED if flight.extra_count == flight.count else CMQ_SOME_DELETED
            if flight.cmd == CMQ_DELETE:
                return self.answer_flight(tag, CMQ_HANDLE)
        for index in range(flight.extra_count):
            size += bytes_size(28, number_size(1, flight.extra[index]) + tail)
        at = self.begin(flight.seqno, flight.cmd, result, size)
        if at is NULL:
            return NO_MEMORY
        for index in range(flight.extra_count):
            inner = number_size(1, flight.extra[index]) + tail
            at = head_put(at, 28, inner)
            at = number_put(number_put(at, 1, flight.extra[index]), 2, CMQ_HANDLE)
            at = bytes_put(at, 3, fault.text, fault.size)
        self.flight_give(tag)
        return NEXT


cdef inline uint64_t cmq_placed_id(uint32_t queue, uint64_t offset) noexcept nogil:
    return <uint64_t>(queue & 0x3FFFFF) << CMQ_OFFSET_BITS | offset & ((<uint64_t>1 << CMQ_OFFSET_BITS) - 1)
