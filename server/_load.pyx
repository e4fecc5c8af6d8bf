"""A load generator for the native protocol, CMQ's and HTTP: one thread, epoll, no Python object per message.

A benchmark that shares its machine with the server must cost little, or it measures itself. All
requests that may leave on a connection go in one write, replies are counted where they lie in the
read buffer, and the clock is read once a turn. `Sink` answers at once and stores nothing: the rate
against it is the generator's own ceiling.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memchr, memcpy, memmove, memset

include "_load_os.pxi"

cdef enum:
    HEAD = 16
    VERB_HELLO = 1
    VERB_OPEN = 2
    VERB_SEND = 3
    VERB_SEND_BATCH = 4
    VERB_RECEIVE = 5
    VERB_CONFIRM = 6
    VERB_GROUP = 11
    REPLY = 0x80
    RECEIPT = 24
    MESSAGE_HEAD = 48
    EVENTS = 256
    # How long the replies to what was sent before the end are waited for.
    GRACE_MS = 10000
    SLICE_MS = 100

cdef enum Mode:
    MODE_SEND = 0
    MODE_RECEIVE = 1

include "_load_histogram.pxi"
include "_load_pieces.pxi"

cdef struct slot_t:
    uint64_t sent_ns        # when the request (or the pair's first) left; 0 = no request is out
    uint32_t messages       # how many messages the request has
    bint confirming         # of HTTP: the request that is out confirms what was received

cdef struct connection_t:
    int fd                  # -1: lost
    bint blocked            # the socket took less than it was given
    uint32_t free_count
    uint32_t* free_slots    # tags without a request, a stack
    uint32_t* order         # of HTTP: the tags whose replies come next, a ring
    uint32_t order_first
    uint32_t order_count
    slot_t* slots           # by tag
    uint8_t* out            # [out_start, out_end) is not written yet
    size_t out_start
    size_t out_end
    uint8_t* buffer         # [0, buffered) is read and not yet taken apart
    size_t buffered

cdef struct load_t:
    Mode mode
    int epoll
    uint32_t connection_count
    uint32_t in_flight
    uint32_t batch          # messages in a request
    bint cmq                # which protocol: CMQ's, HTTP, or else the native one
    bint http
    bint cmq_http           # over HTTP: replies are CMQ's
    confirming_t confirming # over HTTP: how what is received is confirmed
    const uint8_t* queue    # of CMQ: the field with the queue's name, as a deletion has it
    size_t queue_size
    uint8_t* request        # the first request of a slot, complete but for its tag
    size_t request_size
    size_t out_room         # in_flight times the largest request
    size_t buffer_room      # at least two of the largest replies
    connection_t* connections
    bint polling            # an empty reply is not the end: the server waited
    double interval_ns      # of the open loop: between the times at which requests are due; 0 = closed
    uint64_t started_ns     # when the first was due
    uint64_t sent_requests
    uint32_t next_connection
    uint32_t living         # connections that are not lost
    uint64_t begin_ns       # replies in [begin, end) are measured; of the open loop, what is due in it
    uint64_t end_ns
    uint64_t last_ns        # the last measured reply
    uint64_t limit          # stop after so many messages; 0 = none
    uint64_t issued         # messages asked for so far
    uint64_t acknowledged   # messages answered well, the warm-up included
    uint64_t measured       # messages answered well in [begin, end)
    uint64_t requests       # replies in [begin, end)
    uint64_t errors
    uint64_t waiting        # requests without a reply
    uint32_t idle_turns     # behind the end, in a row, without a reply
    uint32_t status         # of the first error reply
    histogram_t latency


cdef inline void put32(uint8_t* at, uint32_t value) noexcept nogil:
    memcpy(at, &value, 4)


cdef inline uint32_t get32(const uint8_t* at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return value


cdef inline void put_head(uint8_t* at, size_t payload, uint8_t verb, uint32_t tag) noexcept nogil:
    put32(at, <uint32_t>(12 + payload))
    put32(at + 4, verb)
    put32(at + 8, tag)
    put32(at + 12, 0)


cdef uint8_t* reserve(load_t* load, connection_t* connection, size_t size) noexcept nogil:
    """Where `size` bytes may be written; they are counted as pending from now on."""
    cdef uint8_t* at
    # A slot has one request at most, so what is pending always fits once it is moved down.
    if size > load.out_room - connection.out_end:
        memmove(connection.out, connection.out + connection.out_start,
                connection.out_end - connection.out_start)
        connection.out_end -= connection.out_start
        connection.out_start = 0
    at = connection.out + connection.out_end
    connection.out_end += size
    return at


cdef void lose(load_t* load, connection_t* connection) noexcept nogil:
    """Count what the connection still owed as errors and leave it out of the rest of the run."""
    cdef uint32_t tag
    for tag in range(load.in_flight):
        if connection.slots[tag].sent_ns:
            connection.slots[tag].sent_ns = 0
            load.waiting -= 1
            load.errors += 1
    load.errors += 1
    load.living -= 1
    epoll_ctl(load.epoll, EPOLL_CTL_DEL, connection.fd, NULL)
    connection.fd = -1


cdef void issue(load_t* load, connection_t* connection, uint64_t due) noexcept nogil:
    """Append a request in a free slot, whose latency counts from `due`."""
    cdef uint32_t tag
    cdef uint8_t* at
    connection.free_count -= 1
    tag = connection.free_slots[connection.free_count]
    at = reserve(load, connection, load.request_size)
    memcpy(at, load.request, load.request_size)
    if load.http:
        connection.order[(connection.order_first + connection.order_count) % load.in_flight] = tag
        connection.order_count += 1
    elif load.cmq:
        put_seqno(at, tag)
    else:
        put32(at + 8, tag)
    connection.slots[tag].sent_ns = due
    connection.slots[tag].messages = load.batch
    connection.slots[tag].confirming = False
    load.issued += load.batch
    load.sent_requests += 1
    load.waiting += 1


cdef void top_up(load_t* load, connection_t* connection, uint64_t now) noexcept nogil:
    """In the closed loop: a request for every free slot, as far as the limit and the clock allow."""
    if now >= load.end_ns or load.interval_ns:
        return
    while connection.free_count:
        if load.limit and load.issued >= load.limit:
            return
        issue(load, connection, now)


cdef void flush(load_t* load, connection_t* connection, uint32_t index) noexcept nogil:
    cdef epoll_event event
    cdef ssize_t written
    cdef size_t pending = connection.out_end - connection.out_start
    cdef bint blocked
    if pending == 0:
        return
    written = send(connection.fd, connection.out + connection.out_start, pending,
                   MSG_DONTWAIT | MSG_NOSIGNAL)
    if written < 0:
        if errno != EAGAIN and errno != EINTR:
            lose(load, connection)
            return
        written = 0
    connection.out_start += <size_t>written
    blocked = <size_t>written < pending
    if not blocked:
        connection.out_start = connection.out_end = 0
    if blocked != connection.blocked:
        connection.blocked = blocked
        event.events = EPOLLIN | EPOLLOUT if blocked else EPOLLIN
        event.data.u32 = index
        epoll_ctl(load.epoll, EPOLL_CTL_MOD, connection.fd, &event)


cdef inline void finish(load_t* load, connection_t* connection, uint32_t tag, uint64_t messages,
                        uint64_t now) noexcept nogil:
    """Close the slot's request; `messages` of those it had were answered well."""
    cdef slot_t* slot = connection.slots + tag
    load.acknowledged += messages
    if load.begin_ns <= (slot.sent_ns if load.interval_ns else now) < load.end_ns:
        load.requests += 1
        load.measured += messages
        load.last_ns = now
        histogram_add(&load.latency, now - slot.sent_ns)
    slot.sent_ns = 0
    load.waiting -= 1
    connection.free_slots[connection.free_count] = tag
    connection.free_count += 1


cdef inline void end_slot(load_t* load, connection_t* connection, uint32_t tag) noexcept nogil:
    """An empty queue ends the slot's work, unless the server is asked to wait for messages, or the clock asks."""
    connection.slots[tag].sent_ns = 0
    load.waiting -= 1
    if load.polling or load.interval_ns:
        connection.free_slots[connection.free_count] = tag
        connection.free_count += 1


cdef inline void refused(load_t* load, connection_t* connection, uint32_t tag, uint32_t status,
                         uint64_t now) noexcept nogil:
    load.errors += 1
    if load.status == 0:
        load.status = status
    finish(load, connection, tag, 0, now)


include "_load_native.pxi"
include "_load_cmq.pxi"
include "_load_http_receive.pxi"
include "_load_http.pxi"
include "_load_pace.pxi"


cdef inline int64_t reply_size(const load_t* load, const uint8_t* at, size_t left) noexcept nogil:
    """The bytes of the whole reply that begins here; 0 if it is not all there, -1 if it is none."""
    cdef size_t head = CMQ_HEAD if load.cmq else HEAD
    cdef size_t size
    cdef int64_t found
    if load.http:
        found = http_size(at, left)
        return -1 if found > <int64_t>load.buffer_room else found
    if left < head:
        return 0
    size = <size_t>get32(at + 2) if load.cmq else <size_t>get32(at) + 4
    if size < head or size > load.buffer_room:
        return -1
    return <int64_t>size if size <= left else 0


cdef void on_readable(load_t* load, connection_t* connection) noexcept nogil:
    cdef size_t start = 0
    cdef int64_t size
    cdef const uint8_t* reply
    cdef uint64_t now
    cdef bint good
    cdef ssize_t got = recv(connection.fd, connection.buffer + connection.buffered,
                            load.buffer_room - connection.buffered, MSG_DONTWAIT)
    if got < 0 and (errno == EAGAIN or errno == EINTR):
        return
    if got <= 0:
        lose(load, connection)
        return
    now = clock_ns(CLOCK_MONOTONIC)
    connection.buffered += <size_t>got
    while start < connection.buffered:
        reply = connection.buffer + start
        size = reply_size(load, reply, connection.buffered - start)
        if size == 0:
            break
        if size < 0:
            good = False
        elif load.http:
            good = on_http_reply(load, connection, reply, <size_t>size, now)
        elif load.cmq:
            good = on_cmq_reply(load, connection, reply, <size_t>size, now)
        else:
            good = on_reply(load, connection, reply, <size_t>size, now)
        if not good:
            lose(load, connection)
            return
        start += <size_t>size
    connection.buffered -= start
    if start and connection.buffered:
        memmove(connection.buffer, connection.buffer + start, connection.buffered)
    top_up(load, connection, now)


cdef bint turn(load_t* load, uint64_t until_ns) noexcept nogil:
    """Work until `until_ns`; 0 once the run is over."""
    cdef epoll_event events[EVENTS]
    cdef connection_t* connection
    cdef uint64_t now = clock_ns(CLOCK_MONOTONIC)
    cdef int ready, index
    cdef bint room
    while now < until_ns:
        room = pace(load, now)
        if load.waiting == 0 and (load.living == 0 or not more_due(load)):
            return False
        # Turns are counted, not time: what stood still as a whole has its replies to read yet.
        if load.idle_turns >= GRACE_MS // SLICE_MS:
            return False
        ready = epoll_wait_ns(load.epoll, events, EVENTS, until_next(load, now, room))
        if ready > 0 or now < load.end_ns:
            load.idle_turns = 0
        elif ready == 0:
            load.idle_turns += 1
        for index in range(ready):
            connection = load.connections + events[index].data.u32
            if connection.fd >= 0 and events[index].events & ~<uint32_t>EPOLLOUT:
                on_readable(load, connection)
            if connection.fd >= 0:
                flush(load, connection, events[index].data.u32)
        now = clock_ns(CLOCK_MONOTONIC)
    return True


cdef bint allocate(load_t* load) noexcept nogil:
    cdef connection_t* connection
    cdef uint32_t index, tag
    load.connections = <connection_t*>calloc(load.connection_count, sizeof(connection_t))
    if load.connections == NULL:
        return False
    for index in range(load.connection_count):
        connection = load.connections + index
        connection.free_slots = <uint32_t*>calloc(load.in_flight, sizeof(uint32_t))
        connection.order = <uint32_t*>calloc(load.in_flight, sizeof(uint32_t))
        connection.slots = <slot_t*>calloc(load.in_flight, sizeof(slot_t))
        connection.out = <uint8_t*>malloc(load.out_room)
        connection.buffer = <uint8_t*>malloc(load.buffer_room)
        if (connection.free_slots == NULL or connection.slots == NULL or connection.out == NULL
                or connection.buffer == NULL or connection.order == NULL):
            return False
        for tag in range(load.in_flight):
            connection.free_slots[tag] = tag
        connection.free_count = load.in_flight
    return True


cdef void release(load_t* load) noexcept nogil:
    cdef uint32_t index
    if load.epoll >= 0:
        close(load.epoll)
    if load.connections != NULL:
        for index in range(load.connection_count):
            free(load.connections[index].free_slots)
            free(load.connections[index].order)
            free(load.connections[index].slots)
            free(load.connections[index].out)
            free(load.connections[index].buffer)
    free(load.connections)
    free(load.confirming.before)
    free(load)


cdef object summary(load_t* load, uint64_t cpu_ns):
    cdef uint64_t until = load.last_ns
    # A run that the clock ended lasted until the clock; one that ran dry, until its last reply.
    if load.issued and clock_ns(CLOCK_MONOTONIC) >= load.end_ns:
        until = load.end_ns
    seconds = (until - load.begin_ns) / 1e9 if until > load.begin_ns else 0.0
    microseconds = [
        histogram_quantile(&load.latency, share) / 1e3 for share in (0.5, 0.9, 0.99, 0.999, 0.9999)
    ]
    return {
        "rate": load.measured / seconds if seconds else 0.0,
        "p50_us": microseconds[0],
        "p90_us": microseconds[1],
        "p99_us": microseconds[2],
        "p999_us": microseconds[3],
        "p9999_us": microseconds[4],
        "max_us": load.latency.highest / 1e3,
        "errors": load.errors + load.waiting + unsent(load),
        "unsent": unsent(load),
        "status": load.status,
        "requests": load.requests,
        "messages": load.measured,
        "acknowledged": load.acknowledged,
        "seconds": seconds,
        "generator_cpu_seconds": cpu_ns / 1e9,
    }


cdef load_t* prepare(Mode mode, bytes request, uint32_t connections, uint32_t in_flight,
                     uint32_t batch, size_t largest_reply, object confirming) except NULL:
    cdef size_t size = <size_t>len(request)
    cdef size_t confirm_size = 0
    cdef load_t* load = <load_t*>calloc(1, sizeof(load_t))
    if load == NULL:
        raise MemoryError
    if mode == MODE_RECEIVE:
        confirm_size = HEAD + 4 + <size_t>batch * RECEIPT + 256
    if confirming is not None:
        try:
            confirm_size = confirming_prepare(&load.confirming, confirming)
        except BaseException:
            free(load)
            raise
    load.mode = mode
    load.connection_count = load.living = connections
    load.in_flight = in_flight
    load.batch = batch
    load.request = request
    load.request_size = size
    load.out_room = in_flight * max(size, confirm_size)
    load.buffer_room = max(<size_t>65536, 2 * largest_reply)
    load.epoll = epoll_create1(EPOLL_CLOEXEC)
    if load.epoll < 0 or not allocate(load):
        release(load)
        raise MemoryError
    return load


cdef int begin(load_t* load, object sockets) except -1:
    """Send the first requests of every connection."""
    cdef epoll_event event
    cdef uint32_t index
    cdef uint64_t now = clock_ns(CLOCK_MONOTONIC)
    for index in range(load.connection_count):
        load.connections[index].fd = sockets[index].fileno()
        event.events = EPOLLIN
        event.data.u32 = index
        if epoll_ctl(load.epoll, EPOLL_CTL_ADD, load.connections[index].fd, &event):
            raise OSError(errno, "epoll_ctl")
        top_up(load, load.connections + index, now)
        flush(load, load.connections + index, index)
    return 0


def run(sockets, bytes request, *, str mode, uint32_t in_flight, uint32_t batch,
        size_t largest_reply, double seconds, double warm_up, uint64_t limit=0, bint polling=False, bytes cmq=None,
        bint http=False, bint cmq_http=False, confirming=None, double rate=0.0, watch=None, bint histogram=False):
    """Drive connections on which HELLO and OPEN are done, and return the counted figures.

    request is the frame that a slot begins with, and batch the messages that it has. In mode
    "receive" each slot confirms what it received before it receives again; the run ends when
    the queue is empty, unless polling. limit ends it after so many messages. Latencies are of
    a request, in "receive" of the pair. cmq: over CMQ's protocol, where AUTH is done; the field with
    the queue's name; http: over HTTP, with replies as CMQ's if cmq_http; confirming: a bench_http.Confirming,
    how what is received over HTTP is confirmed. rate: so many requests a second are due, and latencies count from
    then (the open loop). watch(acknowledged, errors, waiting) is called ten times a second; histogram
    adds the counts of all latencies. A lost connection counts as an error for each request
    that it had not answered and one for itself.
    """
    cdef load_t* load
    cdef uint64_t cpu_ns
    cdef bint going = True
    if mode not in ("send", "receive"):
        raise ValueError(f"mode is send or receive, not {mode!r}")
    if not sockets or not in_flight or not batch or len(request) < HEAD:
        raise ValueError("connections, in_flight and batch are at least 1")
    if http and mode == "receive" and (confirming is None or len(confirming.before) != batch):
        raise ValueError("over HTTP confirming says what stands before each of a batch's receipts")
    load = prepare(MODE_SEND if mode == "send" else MODE_RECEIVE, request, len(sockets),
                   in_flight, batch, largest_reply, confirming)
    try:
        load.polling = polling
        load.limit = limit
        load.http = http
        load.cmq_http = cmq_http
        load.interval_ns = 1e9 / rate if rate > 0 else 0.0
        if cmq is not None:
            load.cmq = True
            load.queue, load.queue_size = cmq, len(cmq)
        cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID)
        load.started_ns = clock_ns(CLOCK_MONOTONIC)
        load.begin_ns = load.started_ns + <uint64_t>(warm_up * 1e9)
        load.end_ns = load.begin_ns + <uint64_t>(seconds * 1e9)
        begin(load, sockets)
        while going:
            PyErr_CheckSignals()
            with nogil:
                going = turn(load, clock_ns(CLOCK_MONOTONIC) + <uint64_t>SLICE_MS * 1000000)
            if watch is not None:
                watch(load.acknowledged, load.errors, load.waiting)
        told = summary(load, clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu_ns)
        if histogram:
            told["histogram"] = histogram_counts(&load.latency)
        return told
    finally:
        release(load)


include "_load_sink.pxi"
