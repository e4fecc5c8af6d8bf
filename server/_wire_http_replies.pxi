# What an HTTP connection answers: replies in their order, whatever order the store was done in.

cdef enum:
    RENDERED_ROOM = 512


cdef class CmqHot


cdef class HttpReplies(HttpBase):
    """The replies of one HTTP connection, in the order of its requests.

    Invariants:
      1. Every request that is staged or answered at once takes the next tag; answered is the next to be written, ready
         holds the rendered replies of later ones.
      2. told has what the reply to a staged CMQ request must say beside its result, and what its repetition is told.
    """
    cdef object refusal
    cdef CmqHot cmq
    cdef dict ready, told
    cdef uint32_t tag, answered

    cdef int after(self) except -1:
        """Something was answered: go on."""
        return 0

    cdef inline uint64_t cookie(self, uint64_t shape) noexcept:
        return (<uint64_t>self.slot << SLOT_SHIFT) | (shape << SHAPE_SHIFT) | self.tag

    cdef int staged_one(self, uint64_t repeat, bint echoes, uint64_t echo) except -1:
        """A CMQ request was staged under the next tag."""
        if repeat or echoes:
            if self.told is None:
                self.told = {}
            self.told[self.tag] = (repeat, echoes, echo)
        self.tag += 1
        self.entered()
        return 0

    cdef int answer_json(self, const uint8_t* json, size_t size) except -1:
        """Answer the next request at once."""
        cdef uint32_t tag = self.tag
        self.tag += 1
        return self.write_json(tag, json, size)

    cdef int write_json(self, uint32_t tag, const uint8_t* json, size_t size) except -1:
        cdef char room[RENDERED_ROOM]
        cdef char* at = put_bytes(room, b"HTTP/1.1 200 OK\r\nDate: ", 23)
        at = put_bytes(at, PyBytes_AS_STRING(self.hub.date), PyBytes_GET_SIZE(self.hub.date))
        at = put_bytes(at, b"\r\nContent-Type: application/json\r\nContent-Length: ", 50)
        at = put_decimal(at, size)
        at = put_bytes(at, b"\r\n\r\n", 4)
        if tag != self.answered:
            self.ready[tag] = room[:at - room] + json[:size]
            return 0
        if buffer_append(&self.out, room, at - room) < 0 or buffer_append(&self.out, json, size) < 0:
            raise MemoryError
        self.answered += 1
        return 0

    cdef int complete_cmq(self, operation_t* operation, int shape) except -1:
        """The reply to a drained operation of CMQ's."""
        cdef uint32_t tag = <uint32_t>operation.cookie
        repeat, echoes, echo = self.told.pop(tag) if self.told and tag in self.told else (0, False, 0)
        self.cmq.finish(operation, shape, echoes, echo)
        if repeat:
            self.cmq.settle(repeat, operation, shape)
        return self.write_json(tag, self.cmq.json.data, self.cmq.json.used)

    cdef int drained_late(self, operation_t* operation) except -1:
        """An operation was drained whose connection is gone: its repetition may still come."""
        cdef uint32_t tag = <uint32_t>operation.cookie
        if self.told and tag in self.told:
            repeat = self.told.pop(tag)[0]
            if repeat:
                self.cmq.settle(repeat, operation, (operation.cookie >> SHAPE_SHIFT) & 3)
        return 0

    cdef int complete(self, operation_t* operation) except -1:
        cdef uint32_t tag = <uint32_t>operation.cookie
        cdef char room[RENDERED_ROOM]
        cdef int size
        cdef bint last = (self.last and self.in_flight == 0 and not self.backlog
                          and self.refusal is None)
        if (operation.cookie >> SHAPE_SHIFT) & 3:
            self.complete_cmq(operation, (operation.cookie >> SHAPE_SHIFT) & 3)
        elif operation.verdict == DONE:
            size = send_reply(room, operation, self.hub.date, last)
            if tag == self.answered:
                if buffer_append(&self.out, room, size) < 0:
                    raise MemoryError
                self.answered += 1
            else:
                self.ready[tag] = PyBytes_FromStringAndSize(room, size)
        else:
            status, head, body = self.door.verdict(operation.verdict)
            if tag == self.answered:
                self.write(status, head, body, last, False)
                self.answered += 1
            else:
                self.ready[tag] = (status, head, body)
        while self.ready and self.answered in self.ready:
            one = self.ready.pop(self.answered)
            self.answered += 1
            if isinstance(one, bytes):
                buffer_append(&self.out, PyBytes_AS_STRING(one), PyBytes_GET_SIZE(one))
            else:
                self.write(one[0], one[1], one[2], False, False)
        if self.backlog or (self.in_flight == 0 and (self.last or self.hub.stopping)):
            self.after()
        return 0
