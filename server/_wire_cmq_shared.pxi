# What CMQ connections know: queues by name, halves by their message's id, the texts of refusals.

cdef enum:
    CMQ_NAME = 128
    CMQ_HALF = 320
    CMQ_ID_DIGITS = 19
    CMQ_FAULTS = 128
    CMQ_BATCH = 1024            # the largest batch that there is room for
    CMQ_OFFSET_BITS = 40        # of a message's id, behind its queue's number
    HALVES = 65536              # a power of two
    HALVES_NEAR = 8
    CMQ_ATTRIBUTE_ID = 5
    CMQ_LOOK_NS = 250000000     # how old the room of a queue may be

cdef struct cmq_queue_t:
    uint32_t queue              # 0: a free place
    uint32_t lease_ms, wait_ms, message_bytes, check_ms
    bint transactions
    bint bounded                # it may have so many unconfirmed messages: room more, as looked at
    int64_t room
    uint64_t looked
    uint32_t name_size, half_size
    uint8_t name[CMQ_NAME]
    uint8_t half[CMQ_HALF]      # the attributes of its halves: whom to ask, and how often

cdef struct cmq_half_t:
    uint64_t message            # the id that its producer knows; 0: a free place
    uint64_t pending            # the engine's
    uint32_t queue

cdef struct cmq_fault_t:
    uint32_t module
    uint32_t outcome            # as it is counted
    uint32_t size
    const char* text

cdef cmq_fault_t CMQ_NO_FAULT
CMQ_NO_FAULT.text = b""

cdef enum:
    CMQ_COMMANDS = 12           # that are counted: 1020 to 1028, HEARTBEAT, CONFIRM, others


@cython.final
cdef class CmqShared:
    """Shared by the CMQ connections of one worker.

    Invariants:
      1. Every place of the table was filled from the notes as they were at version, else version
         is -1 and the table is emptied before it is used for another read.
      2. halves is a cache: what is not there is looked for in the store.
    """
    cdef Store store
    cdef cmq_queue_t* places
    cdef cmq_half_t* halves
    cdef uint32_t mask, count, limit
    cdef cmq_fault_t faults[CMQ_FAULTS]
    cdef uint32_t fault_count
    cdef list texts
    cdef object version
    cdef MessageNames names
    cdef readonly uint32_t batch, parked, wait_s
    cdef CmqWays ways
    cdef FirstTimes firsts
    cdef uint32_t notes             # the low half of version, plus 1
    cdef readonly uint64_t batch_bytes, delay_s
    cdef public uint64_t requests
    cdef CallRates rates
    cdef uint64_t calls[CMQ_COMMANDS][OUTCOMES]
    cdef set endpoints              # the open connections
    # Room of one request.
    cdef buffer_t bodies
    cdef uint64_t handles[CMQ_BATCH]
    cdef receipt_t receipts[CMQ_BATCH]
    cdef uint32_t sizes[2 * CMQ_BATCH]
    cdef cmq_message_t* described
    cdef fan_t* fans

    def __init__(self, Store store, texts, FirstTimes firsts not None, MessageNames names not None, uint32_t limit,
                 CallRates rates not None, uint32_t batch=16, uint64_t batch_bytes=1 << 20, uint64_t delay_s=3600,
                 uint32_t wait_s=30, uint32_t parked=256):
        """texts: (module's code, text, outcome) of each refusal, the first of a code counts; limit: so many queues are
        known at a time."""
        self.store = store
        self.firsts = firsts
        self.limit = limit
        self.names = names
        self.batch = min(batch, CMQ_BATCH)
        self.batch_bytes = batch_bytes
        self.delay_s = delay_s
        self.wait_s = wait_s
        self.parked = parked
        self.version = -1
        self.ways = CmqWays()
        self.rates = rates
        self.endpoints = set()
        self.texts = [(module, text.encode(), outcome) for module, text, outcome in texts][:CMQ_FAULTS]
        for index, (module, text, outcome) in enumerate(self.texts):
            self.faults[<uint32_t>index].module = module
            self.faults[<uint32_t>index].outcome = outcome
            self.faults[<uint32_t>index].size = len(text)
            self.faults[<uint32_t>index].text = PyBytes_AS_STRING(text)
        self.fault_count = len(self.texts)
        self.requests = <uint64_t>(time() * 1e6)
        self.mask = 63
        self.places = <cmq_queue_t*>calloc(64, sizeof(cmq_queue_t))
        self.halves = <cmq_half_t*>calloc(HALVES, sizeof(cmq_half_t))
        self.described = <cmq_message_t*>calloc(CMQ_BATCH, sizeof(cmq_message_t))
        self.fans = <fan_t*>calloc(CMQ_BATCH, sizeof(fan_t))
        if self.places is NULL or self.halves is NULL or self.described is NULL or self.fans is NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.places)
        free(self.halves)
        free(self.described)
        free(self.fans)
        buffer_free(&self.bodies)

    cdef const cmq_fault_t* fault(self, uint32_t module) noexcept nogil:
        """The text of a code; an empty one if it has none."""
        cdef uint32_t index
        for index in range(self.fault_count):
            if self.faults[index].module == module:
                return self.faults + index
        return &CMQ_NO_FAULT

    cdef void tally(self, uint32_t cmd, uint32_t result) noexcept nogil:
        """A command was answered with that result."""
        cdef const cmq_fault_t* fault
        cdef uint32_t row = CMQ_COMMANDS - 1
        cdef uint32_t outcome = OUTCOME_OK
        if cmd - CMQ_AUTH <= CMQ_BATCH_PUBLISH - CMQ_AUTH:
            row = cmd - CMQ_AUTH
        elif cmd == CMQ_HEARTBEAT or cmd == CMQ_CONFIRM:
            row = 9 + cmd - CMQ_HEARTBEAT
        if result:
            fault = self.fault(result)
            outcome = fault.outcome if fault.module else OUTCOME_REFUSED
        self.calls[row][outcome] += 1

    def counted(self):
        """The outcomes of each command, one behind the other."""
        return [self.calls[at // OUTCOMES][at % OUTCOMES] for at in range(CMQ_COMMANDS * OUTCOMES)]

    def connections(self):
        return len(self.endpoints)

    def waiting(self):
        """How many polls wait. From any thread."""
        return sum([(<Framed>one).parked for one in list(self.endpoints)])

    cdef cmq_queue_t* find(self, const cmq_text_t* name) noexcept nogil:
        cdef uint32_t at
        if name.size > CMQ_NAME:
            return NULL
        at = name_hash(name.data, name.size) & self.mask
        while self.places[at].queue:
            if self.places[at].name_size == name.size and memcmp(self.places[at].name, name.data, name.size) == 0:
                return self.places + at
            at = (at + 1) & self.mask
        return NULL

    cdef int refresh(self) except -1:
        """Before a read: forget everything if any note changed."""
        version = self.store.notes_version()
        if version != self.version:
            self.clear()
            self.version = version
            self.notes = <uint32_t>((version + 1) & 0xFFFFFFFF)
        return 0

    cdef void clear(self) noexcept:
        memset(self.places, 0, (<size_t>self.mask + 1) * sizeof(cmq_queue_t))
        self.count = 0
        self.ways.clear()

    def put(self, version, bytes name, uint32_t queue, uint32_t lease_ms, uint32_t wait_ms, uint32_t message_bytes,
            bint transactions, uint32_t check_ms, bytes half, room):
        """Know a queue as its notes had it at version; half: the packed attributes of its halves, but for the id; room:
        how many more messages it may have now, None for any number."""
        cdef cmq_text_t text
        cdef cmq_queue_t* place
        text.data, text.size = <const uint8_t*>PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name)
        if text.size > CMQ_NAME or len(half) > CMQ_HALF or queue == 0:
            raise ValueError("no queue has such a name or number")
        if self.count >= self.limit:
            self.clear()
        if 2 * (self.count + 1) > self.mask:
            self.grow()
        place = self.find(&text)
        if place is NULL:
            place = self.place_for(&text)
            self.count += 1
        memcpy(place.name, text.data, text.size)
        place.name_size = <uint32_t>text.size
        place.queue, place.lease_ms, place.wait_ms = queue, lease_ms, wait_ms
        place.message_bytes, place.transactions, place.check_ms = message_bytes, transactions, check_ms
        place.bounded = room is not None
        place.room = 0 if room is None else room
        place.looked = now_ns()
        place.half_size = <uint32_t>len(half)
        memcpy(place.half, PyBytes_AS_STRING(half), place.half_size)
        if version != self.version:
            # Good for the request that asked; whoever comes next asks again.
            self.version = -1

    cdef cmq_queue_t* place_for(self, const cmq_text_t* name) noexcept nogil:
        cdef uint32_t at = name_hash(name.data, name.size) & self.mask
        while self.places[at].queue:
            at = (at + 1) & self.mask
        return self.places + at

    cdef int grow(self) except -1:
        cdef cmq_queue_t* old = self.places
        cdef uint32_t room = self.mask + 1
        cdef uint32_t index
        cdef cmq_text_t name
        cdef cmq_queue_t* fresh = <cmq_queue_t*>calloc(2 * room, sizeof(cmq_queue_t))
        if fresh is NULL:
            raise MemoryError
        self.places = fresh
        self.mask = 2 * room - 1
        for index in range(room):
            if old[index].queue:
                name.data, name.size = old[index].name, old[index].name_size
                self.place_for(&name)[0] = old[index]
        free(old)
        return 0

    cdef cmq_half_t* half_at(self, uint64_t message, int near) noexcept nogil:
        return self.halves + (((message >> CMQ_OWN_BITS) * <uint64_t>0x9E3779B97F4A7C15 >> 40) + near & (HALVES - 1))

    cdef cmq_half_t* half_find(self, uint64_t message) noexcept nogil:
        cdef int near
        for near in range(HALVES_NEAR):
            if self.half_at(message, near).message == message:
                return self.half_at(message, near)
        return NULL

    cdef void half_put(self, uint64_t message, uint64_t pending, uint32_t queue) noexcept nogil:
        """Know a half; if there is no free place near its own, the oldest one gives its."""
        cdef int near
        cdef cmq_half_t* place = self.half_find(message)
        cdef cmq_half_t* one
        for near in range(HALVES_NEAR if place is NULL else 0):
            one = self.half_at(message, near)
            if place is NULL or one.message < place.message:
                place = one
        place.message, place.pending, place.queue = message, pending, queue

    def know_half(self, uint64_t message, uint64_t pending, uint32_t queue):
        """The same for Python."""
        self.half_put(message, pending, queue)


cdef inline uint32_t name_hash(const uint8_t* name, size_t size) noexcept nogil:
    cdef uint32_t found = 2166136261
    cdef size_t at
    for at in range(size):
        found = (found ^ name[at]) * 16777619
    return found ^ found >> 15


cdef uint64_t cmq_carried_id(const uint8_t* ext, uint32_t size) noexcept nogil:
    """The id that was given to a message when it was sent; 0 if none was."""
    cdef uint64_t found = 0
    cdef uint32_t step, at
    while size >= ATTRIBUTE_HEAD:
        step = ATTRIBUTE_HEAD + <uint32_t>ext[1] + load16(ext + 2)
        if step > size:
            return 0
        if ext[0] == CMQ_ATTRIBUTE_ID:
            if step != ATTRIBUTE_HEAD + CMQ_ID_DIGITS:
                return 0
            for at in range(ATTRIBUTE_HEAD, step):
                if ext[at] < c'0' or ext[at] > c'9':
                    return 0
                found = 10 * found + (ext[at] - c'0')
            return found if found >> CMQ_GIVEN_SHIFT == 1 else 0
        ext += step
        size -= step
    return 0


cdef void cmq_attributes(uint8_t* at, uint64_t id, const cmq_queue_t* half) noexcept nogil:
    """What a message that waits carries: its id, and if it is a half whom to ask about it."""
    at[0] = CMQ_ATTRIBUTE_ID
    at[1] = 0
    store16(at + 2, CMQ_ID_DIGITS)
    put_decimal(<char*>at + ATTRIBUTE_HEAD, id)
    if half is not NULL:
        memcpy(at + ATTRIBUTE_HEAD + CMQ_ID_DIGITS, half.half, half.half_size)


def proto_fields(bytes message not None):
    """The fields of a message, in their order: (number, value), a whole number or bytes. ValueError if it is none."""
    cdef proto_t left
    cdef field_t field
    cdef int got
    left.at, left.left = <const uint8_t*>PyBytes_AS_STRING(message), PyBytes_GET_SIZE(message)
    found = []
    while True:
        got = field_take(&left, &field)
        if got < 0:
            raise ValueError("the bytes are no message of protobuf")
        if got == 0:
            return found
        found.append((field.number, field.data[:field.value] if field.kind == PROTO_BYTES else field.value))


def proto_field(uint32_t number, value):
    """The bytes of one field: of bytes, or of a whole number below 2^64."""
    cdef buffer_t out
    cdef bytes packed
    memset(&out, 0, sizeof(out))
    try:
        if isinstance(value, bytes):
            if buffer_extend(&out, bytes_size(number, len(value))) is NULL:
                raise MemoryError
            bytes_put(out.data, number, PyBytes_AS_STRING(value), len(value))
        else:
            if buffer_extend(&out, number_size(number, value)) is NULL:
                raise MemoryError
            number_put(out.data, number, value)
        return PyBytes_FromStringAndSize(<const char*>out.data, out.used)
    finally:
        buffer_free(&out)
