# The hot actions of CMQ over HTTP: SendMessage, ReceiveMessage and DeleteMessage, from a form in the socket's buffer to
# a staged operation and its reply. Whatever is odd about a request is left to the door in Python, which says the same.

cdef enum:
    CMQ_SENT = 1                # shapes of operations, beside SHAPE_ONE of /v1
    CMQ_DELETED = 2
    HEAP_LOOK_NS = 250000000
    TELLING_NONCE = 10000
    MAC_BYTES = 32

    # As metrics/cmq.py has them.
    OUTCOMES = 5
    OUTCOME_OK = 0
    OUTCOME_EMPTY = 1
    OUTCOME_REFUSED = 2
    OUTCOME_THROTTLED = 3
    OUTCOME_FAILED = 4
    CALL_SEND = 0
    CALL_RECEIVE = 1
    CALL_DELETE = 2


@cython.final
cdef class CmqRoute:
    """A queue as its notes had it at the version of the hot path."""
    cdef uint32_t queue, lease_ms, wait_ms, most
    cdef uint64_t heap, looked
    cdef int64_t room
    cdef object group

    def __init__(self, uint32_t queue, uint32_t lease_ms, uint32_t wait_ms, uint32_t most, uint64_t heap, group):
        """most: the largest message; heap: so many may be unconfirmed, 0 any; group: the queue's own."""
        self.queue, self.lease_ms, self.wait_ms, self.most = queue, lease_ms, wait_ms, most
        self.heap = heap
        self.group = group

    cdef bint full(self, uint64_t now) except -1:
        """Whether the queue has as many messages as it may; looked at now and then."""
        if self.heap == 0:
            return False
        if now - self.looked > HEAP_LOOK_NS:
            stat = self.group.stat()
            self.room = <int64_t>self.heap - stat["ready"] - stat["in_flight"]
            self.looked = now
        return self.room <= 0


@cython.final
cdef class CmqKey:
    """A secret, worked into the hashes that every signature begins with."""
    cdef object inner1, outer1, inner256, outer256
    cdef uint64_t number

    def __init__(self, bytes secret, uint64_t number):
        """number: what quotas know the key by."""
        self.number = number
        self.inner1, self.outer1 = keyed(sha1, secret)
        self.inner256, self.outer256 = keyed(sha256, secret)

    cdef bytes mac(self, bytes text, bint long_):
        inner = (self.inner256 if long_ else self.inner1).copy()
        outer = (self.outer256 if long_ else self.outer1).copy()
        inner.update(text)
        outer.update(inner.digest())
        return outer.digest()


cdef tuple keyed(digest, bytes secret):
    """The inner and the outer hash of HMAC, as far as the secret goes."""
    block = (digest(secret).digest() if len(secret) > 64 else secret).ljust(64, b"\0")
    return digest(bytes(one ^ 0x36 for one in block)), digest(bytes(one ^ 0x5C for one in block))


cdef struct hot_t:
    # What a plain request says.
    text_t action, id, signature, method, queue, body, handle
    bint long_, waits, echoes
    uint64_t timestamp, nonce, wait_s, echo


@cython.final
cdef class CmqHot:
    """Shared by the HTTP connections of one worker.

    Invariants:
      1. routes and keys are what the notes said at version; both are dropped when any note changed.
      2. A request is done only if its signature is right in the documented way, or if there is no key at all and the
         connection is of this machine.
    """
    cdef Hub hub
    cdef object door, version
    cdef dict routes, keys
    cdef uint64_t number, clock_s
    cdef FirstTimes firsts
    cdef Repeats repeats
    cdef buffer_t words, text, json
    cdef form_t form
    cdef hot_t hot
    cdef uint64_t repeat
    cdef bint limited               # calls a second are counted: that is the door's
    cdef uint64_t calls[3][OUTCOMES]
    cdef uint64_t key               # of the request that is looked at

    def __init__(self, Hub hub, door, FirstTimes firsts, Repeats repeats, uint64_t number, uint64_t clock_s=0,
                 bint limited=False):
        """door: tells route(name) and pairs(); number: the first request's; clock_s: 0, any clock will do."""
        self.hub = hub
        self.door = door
        self.firsts = firsts
        self.repeats = repeats
        self.number = number
        self.clock_s = clock_s
        self.limited = limited
        self.routes = {}
        self.keys = {}

    def __dealloc__(self):
        buffer_free(&self.words)
        buffer_free(&self.text)
        buffer_free(&self.json)

    def next(self):
        """The number of the next request."""
        self.number += 1
        return self.number

    def counted(self):
        """The outcomes of SendMessage, ReceiveMessage and DeleteMessage, one behind the other."""
        return [self.calls[at // OUTCOMES][at % OUTCOMES] for at in range(3 * OUTCOMES)]

    cdef int refresh(self) except -1:
        version = self.hub.store.notes_version()
        if version != self.version:
            self.routes = {}
            self.keys = {id.encode(): CmqKey(secret.encode(), number)
                         for id, (secret, number) in self.door.pairs().items()}
            self.version = version
        return 0

    cdef int stage(self, HttpReplies endpoint, bytes method, bytes host, bytes path, const uint8_t* body,
                   size_t size) except -1:
        """As HttpEndpoint.stage, for a v2 request; NEXT also if it is answered already."""
        self.words.used = 0
        if buffer_extend(&self.words, size + 1) is NULL:
            raise MemoryError
        self.repeat = 0
        if not form_read(body, size, self.words.data, &self.form) or not form_sort(&self.form):
            return ASK
        if self.limited or not hot_read(&self.form, &self.hot):
            return ASK
        if endpoint.in_flight >= self.hub.flight_limit:
            return CROWDED
        self.refresh()
        if not self.admitted(endpoint, method, host, path):
            return ASK
        route = self.route()
        if route is None:
            return ASK
        if self.hot.action.size == 11:
            return self.send(endpoint, <CmqRoute>route)
        if self.hot.action.at[0] == c'D':
            return self.delete(endpoint, <CmqRoute>route)
        return self.receive(endpoint, <CmqRoute>route)

    cdef bint admitted(self, HttpReplies endpoint, bytes method, bytes host, bytes path) except -1:
        cdef bytes mac
        self.key = 0
        if not self.keys:
            return endpoint.local
        found = self.keys.get(self.hot.id.at[:self.hot.id.size])
        if found is None or self.hot.signature.at == NULL:
            return False
        mac = (<CmqKey>found).mac(self.said(method, host, path), self.hot.long_)
        if not base64_is(<const uint8_t*>PyBytes_AS_STRING(mac), <uint32_t>PyBytes_GET_SIZE(mac), &self.hot.signature):
            return False
        if self.clock_s and abs(<int64_t>(self.hot.timestamp - epoch_s())) > <int64_t>self.clock_s:
            return False
        self.key = (<CmqKey>found).number
        if self.hot.nonce >= TELLING_NONCE:
            self.repeat = load64(<const uint8_t*>PyBytes_AS_STRING(mac)) | 1
        return True

    cdef bytes said(self, bytes method, bytes host, bytes path):
        """The text that is signed."""
        cdef uint32_t at
        cdef const pair_t* pair
        cdef uint8_t* to
        self.text.used = 0
        for one in (method, host, path):
            if buffer_append(&self.text, PyBytes_AS_STRING(one), PyBytes_GET_SIZE(one)) < 0:
                raise MemoryError
        for at in range(self.form.count):
            pair = self.form.pairs + at
            if pair.value.at == self.hot.signature.at:
                continue
            to = buffer_extend(&self.text, 2 + <size_t>pair.key.size + pair.value.size)
            if to is NULL:
                raise MemoryError
            to[0] = c'&'
            memcpy(to + 1, pair.key.at, pair.key.size)
            to[1 + pair.key.size] = c'='
            memcpy(to + 2 + pair.key.size, pair.value.at, pair.value.size)
        # The first pair stands behind a question mark.
        at = <uint32_t>(PyBytes_GET_SIZE(method) + PyBytes_GET_SIZE(host) + PyBytes_GET_SIZE(path))
        if at < self.text.used:
            self.text.data[at] = c'?'
        return self.text.data[:self.text.used]

    cdef route(self):
        cdef bytes name = self.hot.queue.at[:self.hot.queue.size]
        found = self.routes.get(name)
        if found is None:
            told = self.door.route(name)
            if told is None:
                return None
            if len(self.routes) >= <Py_ssize_t>self.hub.limits.route_names:
                self.routes = {}
            found = self.routes[name] = CmqRoute(*told)
        return found

    cdef int send(self, HttpReplies endpoint, CmqRoute route) except -1:
        cdef uint64_t now = now_ns()
        cdef const repeat_t* before
        cdef int verdict
        cdef uint64_t result
        if self.hot.body.size == 0 or self.hot.body.size > route.most or route.full(now):
            return ASK
        if self.repeat:
            before = self.repeats.find(self.repeat)
            if before != NULL:
                result = cell_load(<uint64_t*>&before.result)
                # Not known yet: the door waits for it.
                return ASK if result == 0 else self.sent(endpoint, result)
        if self.hub.gates.count and self.hub.gates.send_closed(route.queue, self.key, False, now):
            return ASK
        verdict = self.hub.lane.stage_one(
            endpoint.cookie(CMQ_SENT), route.queue, self.hub.http_durability, 0, 0, NULL, 0, self.hot.body.at,
            self.hot.body.size)
        if verdict == BUSY and self.hub.in_flight:
            return HOLD
        if verdict != DONE:
            self.routes.clear()
            return ASK
        if self.hub.gates.count:
            self.hub.gates.send_charge(route.queue, self.key, 1, self.hot.body.size, False, now)
        if self.repeat:
            self.repeats.begin(self.repeat, epoch_s())
        route.room -= 1
        endpoint.staged_one(self.repeat, self.hot.echoes, self.hot.echo)
        self.hub.sends += 1
        self.hub.messages += 1
        return NEXT

    cdef int delete(self, HttpReplies endpoint, CmqRoute route) except -1:
        cdef uint64_t handle
        cdef receipt_t receipt
        cdef uint8_t verdict = DONE
        cdef int staged
        if not text_number(&self.hot.handle, &handle):
            return ASK
        if self.repeat and self.repeats.find(self.repeat) != NULL:
            return ASK
        staged = receipt_whole(self.hub.store, route.queue, 0, handle, &receipt)
        if staged == DONE:
            staged = self.hub.lane.stage_confirm(endpoint.cookie(CMQ_DELETED), &receipt, 1, &verdict)
        if staged == BUSY and self.hub.in_flight:
            return HOLD
        if staged != DONE:
            # Late, or made up; or the queue is gone, or the lane is full and will not be drained.
            return ASK
        if self.repeat:
            self.repeats.begin(self.repeat, epoch_s())
        endpoint.staged_one(self.repeat, self.hot.echoes, self.hot.echo)
        self.hub.confirms += 1
        return NEXT

    cdef int receive(self, HttpReplies endpoint, CmqRoute route) except -1:
        cdef uint64_t pin = 0
        cdef uint64_t wait_s = self.hot.wait_s if self.hot.waits else (route.wait_ms + 999) // 1000
        cdef int count
        if endpoint.in_flight:
            # What was sent before has to be answered before.
            return ASK
        if self.hub.gates.count:
            return ASK
        with nogil:
            count = self.hub.lane.take(route.queue, 0, 1, self.hub.take_bytes, route.lease_ms, self.hub.taken, &pin)
        if count < 0 or (count == 0 and wait_s):
            return ASK
        self.calls[CALL_RECEIVE][OUTCOME_OK if count else OUTCOME_EMPTY] += 1
        self.begin(b'{"code":0,"message":""' if count else b'{"code":7000,"message":"(10200)no message"',
                   22 if count else 42, self.hot.echoes, self.hot.echo)
        if count:
            count = self.describe(route)
            self.hub.store.pin_release(pin)
            if count < 0:
                raise MemoryError
            self.hub.delivered += 1
        self.put(b"}", 1)
        endpoint.answer_json(self.json.data, self.json.used)
        return NEXT

    cdef int describe(self, CmqRoute route) noexcept nogil:
        """Append the first message that was taken to the reply. -1: no memory."""
        cdef const taken_t* one = self.hub.taken
        cdef uint64_t now_s = epoch_s()
        cdef uint64_t id = cmq_carried_id(one.ext, one.ext_size) if one.attributed else 0
        if self.add(b',"msgBody":"', 12) < 0 or json_text(&self.json, one.ext + one.ext_size, one.body_size) < 0:
            return -1
        if id == 0:
            id = cmq_placed_id(route.queue, one.receipt.offset)
        if self.add_number(b'","msgId":"', 11, id) < 0 \
                or self.add_number(b'","receiptHandle":"', 19, receipt_short(&one.receipt)) < 0 \
                or self.add_number(b'","enqueueTime":', 16, one.stored_us // 1000000) < 0 \
                or self.add_number(b',"firstDequeueTime":', 20, self.firsts.received(
                    route.queue, one.receipt.offset, one.attempts, now_s)) < 0 \
                or self.add_number(b',"nextVisibleTime":', 19, now_s + route.lease_ms // 1000) < 0 \
                or self.add_number(b',"dequeueCount":', 16, one.attempts) < 0:
            return -1
        return 0

    # Replies.

    cdef int begin(self, const char* text, size_t size, bint echoes, uint64_t echo) except -1:
        """Begin a reply: how it ended, and the request's number."""
        self.json.used = 0
        self.number += 1
        self.put(text, size)
        if self.add_number(b',"requestId":"', 14, self.number) < 0:
            raise MemoryError
        self.put(b'"', 1)
        if echoes and self.add_number(b',"clientRequestId":', 19, echo) < 0:
            raise MemoryError
        return 0

    cdef int sent(self, HttpReplies endpoint, uint64_t id) except -1:
        """Answer a send that was done before."""
        self.calls[CALL_SEND][OUTCOME_OK] += 1
        self.begin(b'{"code":0,"message":""', 22, self.hot.echoes, self.hot.echo)
        if self.add_number(b',"msgId":"', 10, id) < 0:
            raise MemoryError
        self.put(b'"}', 2)
        endpoint.answer_json(self.json.data, self.json.used)
        return NEXT

    cdef void settle(self, uint64_t repeat, operation_t* operation, int shape) noexcept:
        """What a repetition of the request will be told."""
        cdef uint64_t result = 1
        if shape == CMQ_SENT:
            result = cmq_placed_id(operation.queue, operation.offset)
        self.repeats.settle(repeat, result if operation.verdict == DONE else 0)

    cdef int finish(self, operation_t* operation, int shape, bint echoes, uint64_t echo) except -1:
        """The reply to a drained operation, into json."""
        self.calls[CALL_SEND if shape == CMQ_SENT else CALL_DELETE][verdict_outcome(operation.verdict)] += 1
        if operation.verdict != DONE:
            text = self.door.failed(shape, operation.verdict)
            self.begin(PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text), echoes, echo)
        else:
            self.begin(b'{"code":0,"message":""', 22, echoes, echo)
            if shape == CMQ_SENT:
                if self.add_number(b',"msgId":"', 10, cmq_placed_id(operation.queue, operation.offset)) < 0:
                    raise MemoryError
                self.put(b'"', 1)
        return self.put(b"}", 1)

    cdef int put(self, const char* text, size_t size) except -1:
        if self.add(text, size) < 0:
            raise MemoryError
        return 0

    cdef int add(self, const char* text, size_t size) noexcept nogil:
        return buffer_append(&self.json, text, size)

    cdef int add_number(self, const char* text, size_t size, uint64_t value) noexcept nogil:
        cdef uint8_t* at = buffer_extend(&self.json, size + 20)
        if at is NULL:
            return -1
        at = <uint8_t*>put_decimal(put_bytes(<char*>at, text, size), value)
        self.json.used = at - self.json.data
        return 0


cdef inline int verdict_outcome(uint8_t verdict) noexcept nogil:
    if verdict == DONE:
        return OUTCOME_OK
    if verdict == BUSY:
        return OUTCOME_THROTTLED
    return OUTCOME_REFUSED if verdict in (NOT_FOUND, TOO_LARGE, STORE_FULL) else OUTCOME_FAILED


cdef bint hot_read(const form_t* form, hot_t* hot) noexcept nogil:
    """What a plain request of a hot action says; False for any other."""
    cdef uint32_t at
    cdef const text_t* key
    cdef const text_t* value
    cdef uint64_t delay = 0
    memset(hot, 0, sizeof(hot_t))
    for at in range(form.count):
        key, value = &form.pairs[at].key, &form.pairs[at].value
        if text_is(key, b"Action", 6):
            hot.action = value[0]
        elif text_is(key, b"SecretId", 8):
            hot.id = value[0]
        elif text_is(key, b"Signature", 9):
            hot.signature = value[0]
        elif text_is(key, b"SignatureMethod", 15):
            hot.method = value[0]
        elif text_is(key, b"queueName", 9):
            hot.queue = value[0]
        elif text_is(key, b"msgBody", 7):
            hot.body = value[0]
        elif text_is(key, b"receiptHandle", 13):
            hot.handle = value[0]
        elif text_is(key, b"Timestamp", 9):
            if not text_number(value, &hot.timestamp):
                return False
        elif text_is(key, b"Nonce", 5):
            if not text_number(value, &hot.nonce):
                return False
        elif text_is(key, b"delaySeconds", 12):
            if not text_number(value, &delay) or delay:
                return False
        elif text_is(key, b"pollingWaitSeconds", 18):
            hot.waits = True
            if not text_number(value, &hot.wait_s):
                return False
        elif text_is(key, b"clientRequestId", 15):
            hot.echoes = True
            if not text_number(value, &hot.echo):
                return False
    hot.long_ = text_is(&hot.method, b"HmacSHA256", 10) or text_is(&hot.method, b"sha256", 6)
    return hot.queue.size > 0 and (
        text_is(&hot.action, b"SendMessage", 11) or text_is(&hot.action, b"ReceiveMessage", 14)
        or text_is(&hot.action, b"DeleteMessage", 13))
