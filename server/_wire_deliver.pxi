# What a native connection replies with: receipts' verdicts, deliveries, drained operations.

cdef enum:
    HELLO = 1
    OPEN = 2
    SEND = 3
    SEND_BATCH = 4
    RECEIVE = 5
    CONFIRM = 6
    RELEASE = 7
    EXTEND = 8
    SEEK = 9
    READ = 10
    GROUP = 11
    ADMIN = 12
    PING = 13

    MALFORMED = 1
    UNKNOWN_VERB = 2
    THROTTLED = 13

    # What a frame, or the walk over many, comes to.
    NEXT = 0                # done with it, or nothing whole is left
    HOLD = 1                # the lane is full: this frame again after the next drain
    ASK = 2                 # for Python
    PARK = 3                # found nothing and wants to wait
    RELEASED = 4            # leases were given up: those who wait may be served
    FLUSH = 5               # enough replies for one write
    CROWDED = 6             # too many requests in flight
    FATAL = 7               # answered; the connection ends
    NO_MEMORY = 8


cdef enum:
    MOVED = 2               # flag of a message: behind its body stands where it came from
    ORIGIN_HEAD = 36


cdef inline size_t origin_size(const taken_t* one) noexcept nogil:
    """Bytes that say where a message came from."""
    if one.origin == NULL:
        return 0
    return ORIGIN_HEAD + <size_t>one.origin_name_size + load16(one.origin + 34)


cdef size_t origin_put(const taken_t* one, uint8_t* at) noexcept nogil:
    """Say where a message came from, docs/wire.md; how many bytes that took."""
    cdef size_t size = origin_size(one)
    store32(at, <uint32_t>size - 4)
    memcpy(at + 4, one.origin + 8, 8)           # offset
    store64(at + 12, one.sent_us)
    memcpy(at + 20, one.origin + 16, 8)         # queue, group
    memcpy(at + 28, one.origin + 28, 6)         # attempts, reason
    store16(at + 34, <uint16_t>one.origin_name_size)
    if one.origin_name_size:        # else it is NULL, which memcpy must not be given
        memcpy(at + ORIGIN_HEAD, one.origin_name, one.origin_name_size)
    memcpy(at + ORIGIN_HEAD + one.origin_name_size, one.origin + 40, load16(one.origin + 34))
    return size


cdef struct confirm_t:
    uint32_t tag
    uint32_t count
    uint8_t* verdicts       # NULL: all DONE


cdef class NativeBase(Framed):
    """The replies of one native connection.

    Invariants:
      1. confirms holds one entry for each staged confirmation that was not drained.
      2. A leased or read body is copied into out before its pin is released.
    """
    cdef buffer_t confirms          # confirm_t, oldest first
    cdef bint greeted
    cdef uint64_t producer

    def __dealloc__(self):
        cdef size_t index
        for index in range(self.confirms.used // sizeof(confirm_t)):
            free((<confirm_t*>self.confirms.data)[index].verdicts)
        buffer_free(&self.confirms)

    cdef int fatal(self, uint8_t verb, uint32_t tag, uint16_t status,
                   const char* text) noexcept nogil:
        return NO_MEMORY if frame_error(&self.out, verb, tag, status, 0, text) < 0 else FATAL

    cdef int refuse(self, const uint8_t* frame, uint16_t status, const char* text) noexcept nogil:
        """An error reply after which the connection goes on."""
        if frame_error(&self.out, frame[4], load32(frame + 8), status, 0, text) < 0:
            return NO_MEMORY
        return NEXT

    cdef int refuse_later(self, const uint8_t* frame, uint32_t retry_ms) noexcept nogil:
        """Over a quota: refused, with the time after which to try again."""
        self.hub.gates.throttled += 1
        if frame_error(&self.out, frame[4], load32(frame + 8), THROTTLED, retry_ms,
                       b"over a quota of the queue, its namespace or the access key") < 0:
            return NO_MEMORY
        return NEXT

    cdef int refuse_crowd(self, const uint8_t* frame, uint32_t retry_ms) noexcept nogil:
        """The queue's namespace has as many connections as it may."""
        self.hub.gates.throttled += 1
        if frame_error(&self.out, frame[4], load32(frame + 8), THROTTLED, retry_ms,
                       b"the namespace has as many connections as its quota lets it have") < 0:
            return NO_MEMORY
        return NEXT

    cdef int malformed(self, const uint8_t* frame) noexcept nogil:
        return self.fatal(frame[4], load32(frame + 8), MALFORMED, b"the payload is not this verb's")

    cdef inline uint64_t cookie(self, uint64_t shape, uint32_t tag) noexcept nogil:
        return (<uint64_t>self.slot << SLOT_SHIFT) | (shape << SHAPE_SHIFT) | tag

    cdef int refuse_verdict(self, uint8_t verb, uint32_t tag, int verdict) noexcept nogil:
        if frame_error(&self.out, verb, tag, verdict_status(verdict), verdict_retry_ms(verdict),
                       verdict_text(verdict)) < 0:
            return NO_MEMORY
        return NEXT

    cdef int reply_verdicts(self, uint8_t verb, uint32_t tag, uint32_t count,
                            const uint8_t* verdicts) noexcept nogil:
        """NULL stands for count times DONE."""
        cdef uint8_t* reply = frame_begin(&self.out, verb, 0, tag, 4 + <size_t>count)
        if reply is NULL:
            return NO_MEMORY
        store32(reply, count)
        if verdicts is NULL:
            memset(reply + 4, DONE, count)
        else:
            memcpy(reply + 4, verdicts, count)
        return NEXT

    cdef int confirm(self, const uint8_t* frame, uint32_t size) noexcept nogil:
        cdef const uint8_t* at = frame + FRAME_HEAD
        cdef uint32_t count, index
        cdef uint32_t tag = load32(frame + 8)
        cdef int verdict
        cdef confirm_t entry
        if size < 4 or load32(at) != (size - 4) // RECEIPT_SIZE or (size - 4) % RECEIPT_SIZE:
            return self.malformed(frame)
        count = load32(at)
        if count > self.hub.confirm_receipts:
            return self.refuse(frame, TOO_LARGE, b"too many receipts")
        if count == 0:
            return self.reply_verdicts(CONFIRM, tag, 0, NULL)
        if frame[5]:            # asked once before, on a connection that broke
            verdict = self.hub.lane.stage_confirm_again(
                self.cookie(SHAPE_CONFIRM, tag), <const receipt_t*>(at + 4), count, self.hub.verdicts)
        else:
            verdict = self.hub.lane.stage_confirm(
                self.cookie(SHAPE_CONFIRM, tag), <const receipt_t*>(at + 4), count, self.hub.verdicts)
        if verdict == -1:
            return self.reply_verdicts(CONFIRM, tag, count, self.hub.verdicts)
        if verdict == BUSY and self.hub.in_flight:
            return HOLD
        if verdict != DONE:
            return self.refuse_verdict(CONFIRM, tag, verdict)
        self.entered()
        self.hub.confirms += count
        entry.tag = tag
        entry.count = count
        entry.verdicts = NULL
        for index in range(count):
            if self.hub.verdicts[index] != DONE:
                entry.verdicts = <uint8_t*>malloc(count)
                if entry.verdicts is NULL:
                    return NO_MEMORY
                memcpy(entry.verdicts, self.hub.verdicts, count)
                break
        return NO_MEMORY if buffer_append(&self.confirms, &entry, sizeof(entry)) < 0 else NEXT

    cdef int confirmed(self, uint32_t tag, int verdict) noexcept nogil:
        """The confirmation with that tag was drained."""
        cdef confirm_t* entries = <confirm_t*>self.confirms.data
        cdef size_t count = self.confirms.used // sizeof(confirm_t)
        cdef size_t index
        cdef confirm_t entry
        cdef int outcome
        for index in range(count):
            if entries[index].tag == tag:
                entry = entries[index]
                memmove(entries + index, entries + index + 1,
                        (count - index - 1) * sizeof(confirm_t))
                self.confirms.used -= sizeof(confirm_t)
                if verdict == DONE:
                    outcome = self.reply_verdicts(CONFIRM, tag, entry.count, entry.verdicts)
                else:
                    outcome = self.refuse_verdict(CONFIRM, tag, verdict)
                free(entry.verdicts)
                return outcome
        return NEXT

    cdef int leases(self, const uint8_t* frame, uint32_t size) noexcept nogil:
        """RELEASE and EXTEND: known at once, nothing is stored."""
        cdef const uint8_t* at = frame + FRAME_HEAD
        cdef uint32_t count, time_ms
        cdef uint8_t verb = frame[4]
        cdef int done
        cdef const receipt_t* receipts = <const receipt_t*>(at + 8)
        cdef uint32_t text_size
        if size < 8 or load32(at) > (size - 8) // RECEIPT_SIZE:
            return self.malformed(frame)
        count = load32(at)
        time_ms = load32(at + 4)
        # Behind the receipts of a RELEASE stands why they are given back.
        text_size = size - 8 - count * RECEIPT_SIZE
        if text_size > REASON_BYTES or (text_size and verb == EXTEND):
            return self.malformed(frame)
        if count > self.hub.confirm_receipts:
            return self.refuse(frame, TOO_LARGE, b"too many receipts")
        if (time_ms > self.hub.lease_limit and (verb == EXTEND or time_ms != BY_POLICY)) \
                or (verb == EXTEND and time_ms == 0):
            return self.refuse(frame, INVALID, b"the time is over its limit, or an empty lease")
        if verb == RELEASE:
            done = self.hub.lane.release_(receipts, count, time_ms, <const uint8_t*>(receipts + count),
                                          <uint16_t>text_size, self.hub.verdicts)
        else:
            done = self.hub.store.extend_(receipts, count, time_ms, self.hub.verdicts)
        if done < 0:
            return self.refuse_verdict(verb, load32(frame + 8), -done)
        if self.reply_verdicts(verb, load32(frame + 8), count, self.hub.verdicts) != NEXT:
            return NO_MEMORY
        return RELEASED if verb == RELEASE and done else NEXT

    cdef uint32_t wait_of(self, const uint8_t* frame) noexcept nogil:
        return load32(frame + FRAME_HEAD + (20 if frame[4] == RECEIVE else 24))

    cdef int fetch(self, const uint8_t* frame, uint32_t size) noexcept nogil:
        """RECEIVE and READ: what there is now, or wait."""
        cdef const uint8_t* at = frame + FRAME_HEAD
        cdef uint8_t verb = frame[4]
        cdef uint32_t tag = load32(frame + 8)
        cdef int got
        cdef uint32_t most = 1
        cdef uint32_t closed
        if size != (24 if verb == RECEIVE else 32):
            return self.malformed(frame)
        if self.hub.gates.count:
            closed = self.hub.gates.outside(&self.belongs, load32(at))
            if closed:
                return self.refuse_crowd(frame, closed)
        if verb == READ:
            if load32(at + 4) != 0:
                return ASK
            got = self.deliver(verb, tag, load32(at), 0, load64(at + 8), load32(at + 16),
                               load32(at + 20), 0)
        else:
            if load32(at + 16) == 0 or load32(at + 16) > self.hub.lease_limit:
                return self.refuse(frame, INVALID, b"lease_ms is 1 to its limit")
            if self.hub.gates.count and not self.wait_of(frame):
                closed = self.hub.gates.receive_closed(
                    self.hub.store, load32(at), load32(at + 4), self.key, &most, now_ns())
                if closed:
                    return self.refuse_later(frame, closed)
            got = self.deliver(verb, tag, load32(at), load32(at + 4), 0, load32(at + 8),
                               load32(at + 12), load32(at + 16))
        if got < 0:
            return self.refuse_verdict(verb, tag, -got)
        if got == 0 and self.wait_of(frame):
            return PARK
        return NO_MEMORY if got == 0 and self.reply_empty(verb, tag) < 0 else NEXT

    cdef int reply_empty(self, uint8_t verb, uint32_t tag) noexcept nogil:
        cdef uint8_t* reply = frame_begin(&self.out, verb, 0, tag, 8)
        if reply is NULL:
            return -1
        memset(reply, 0, 8)
        return 0

    cdef int deliver(self, uint8_t verb, uint32_t tag, uint32_t queue, uint32_t group,
                     uint64_t offset, uint32_t max_messages, uint32_t max_bytes,
                     uint32_t lease_ms) noexcept nogil:
        """Append a reply with the messages there are; returns how many, or a negative verdict."""
        cdef uint64_t pin = 0
        cdef int count
        max_messages = max(1, min(max_messages, self.hub.take_messages))
        max_bytes = max(1, min(max_bytes, self.hub.take_bytes))
        if verb == RECEIVE:
            # One that may wait comes again by itself.
            if self.hub.gates.count and self.hub.gates.receive_closed(
                    self.hub.store, queue, group, self.key, &max_messages, now_ns()):
                return 0
            count = self.hub.lane.take(queue, group, max_messages, max_bytes, lease_ms,
                                       self.hub.taken, &pin)
        else:
            count = self.hub.store.scan(queue, offset, max_messages, max_bytes,
                                        self.hub.taken, &pin)
        if count > 0:
            if self.messages(verb, tag, count) < 0:
                count = -NO_MEMORY
            self.hub.store.pin_release(pin)
            self.hub.delivered += count
            if self.hub.gates.count and verb == RECEIVE:
                self.hub.gates.receive_charge(queue, self.key, <uint32_t>count, now_ns())
        return count

    cdef int messages(self, uint8_t verb, uint32_t tag, int count) noexcept nogil:
        cdef size_t size = 8
        cdef int index
        cdef const taken_t* one
        cdef uint8_t* at
        for index in range(count):
            one = self.hub.taken + index
            size += MESSAGE_HEAD + <size_t>one.ext_size + one.body_size + origin_size(one)
        at = frame_begin(&self.out, verb, 0, tag, size)
        if at is NULL:
            return -1
        store32(at, <uint32_t>count)
        store32(at + 4, 0)
        at += 8
        for index in range(count):
            one = self.hub.taken + index
            memcpy(at, &one.receipt, RECEIPT_SIZE)
            if verb == READ:
                # Not leased: the receipt opens nothing, only its offset is told.
                memset(at + 8, 0, RECEIPT_SIZE - 8)
            store64(at + 24, one.stored_us)
            store32(at + 32, one.attempts)
            store32(at + 36, one.ext_size)
            store32(at + 40, one.body_size)
            store32(at + 44, one.attributed | (0 if one.origin == NULL else MOVED))
            memcpy(at + MESSAGE_HEAD, one.ext, <size_t>one.ext_size + one.body_size)
            at += MESSAGE_HEAD + <size_t>one.ext_size + one.body_size
            if one.origin != NULL:
                at += origin_put(one, at)
        return 0

    cdef int decided(self, operation_t* operation) except -1:
        """Append the reply of a drained verdict on a half."""
        return 0

    cdef int complete(self, operation_t* operation) except -1:
        """Append the reply of a drained operation."""
        cdef uint32_t tag = <uint32_t>operation.cookie
        cdef uint32_t shape = (operation.cookie >> SHAPE_SHIFT) & 3
        cdef uint8_t verb = SEND if shape == SHAPE_ONE else SEND_BATCH
        cdef uint8_t* reply
        if shape == SHAPE_CONFIRM:
            if self.confirmed(tag, operation.verdict) != NEXT:
                raise MemoryError
            return 0
        if shape == SHAPE_EVENT:
            return self.decided(operation)
        if operation.verdict != DONE:
            if self.refuse_verdict(verb, tag, operation.verdict) != NEXT:
                raise MemoryError
            return 0
        reply = frame_begin(&self.out, verb, 0, tag, 12 if shape == SHAPE_ONE else 16)
        if reply is NULL:
            raise MemoryError
        store64(reply, operation.offset)
        reply[8] = operation.durability
        reply[9] = operation.duplicate
        store16(reply + 10, operation.kind == KIND_PENDING)
        if shape == SHAPE_BATCH:
            store32(reply + 12, operation.count)
        return 0
