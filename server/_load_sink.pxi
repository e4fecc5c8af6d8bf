# A server that answers every request at once and stores nothing.

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    enum:
        POLLOUT
    int poll(pollfd* fds, unsigned long count, int timeout_ms)

cdef extern from "<sys/socket.h>" nogil:
    int accept4(int fd, void* address, void* size, int flags)
    enum:
        SOCK_CLOEXEC

cdef enum:
    PEERS = 4096            # by file descriptor; a higher one is closed at once
    SINK_IN = 262144
    SINK_OUT = 4194304
    PEEK = 40               # the head of a frame and as much of its payload as an answer needs

cdef struct peer_t:
    uint64_t skip           # bytes of the last request that are still to come
    uint32_t kept           # bytes of the next request's beginning
    uint8_t start[PEEK]

cdef struct sink_t:
    int epoll
    int listener
    int stopper
    uint32_t body_size
    size_t out_end
    peer_t* peers[PEERS]
    uint8_t buffer[SINK_IN]
    uint8_t out[SINK_OUT]


cdef size_t sink_answer(sink_t* sink, const uint8_t* frame) noexcept nogil:
    """Append the reply to the request that begins here; its size, 0 if it has no room."""
    cdef uint8_t* at = sink.out + sink.out_end
    cdef uint8_t verb = frame[4]
    cdef uint32_t count = 0, index
    cdef size_t payload = 8, message = MESSAGE_HEAD + <size_t>sink.body_size
    if verb == VERB_HELLO:
        payload = 24
    elif verb == VERB_SEND:
        payload = 12
    elif verb == VERB_SEND_BATCH:
        payload = 16
        count = get32(frame + HEAD + 16)
    elif verb == VERB_RECEIVE:
        count = min(get32(frame + HEAD + 8), <uint32_t>((SINK_OUT // 2) // message))
        payload = 8 + count * message
    elif verb == VERB_CONFIRM:
        count = min(get32(frame + HEAD), <uint32_t>(SINK_OUT // 2))
        payload = 4 + <size_t>count
    elif verb == VERB_OPEN or verb == VERB_GROUP:
        payload = 4
    if HEAD + payload > SINK_OUT - sink.out_end:
        return 0
    memset(at + HEAD, 0, payload)
    put_head(at, payload, verb | REPLY, get32(frame + 8))
    if verb == VERB_HELLO:
        at[HEAD] = 1
        put32(at + HEAD + 4, 8 << 20)
    elif verb == VERB_SEND_BATCH:
        put32(at + HEAD + 12, count)
    elif verb == VERB_RECEIVE or verb == VERB_CONFIRM:
        put32(at + HEAD, count)
    if verb == VERB_RECEIVE:
        for index in range(count):
            put32(at + HEAD + 8 + index * message + 32, 1)
            put32(at + HEAD + 8 + index * message + 40, sink.body_size)
    sink.out_end += HEAD + payload
    return HEAD + payload


cdef bint sink_flush(sink_t* sink, int fd) noexcept nogil:
    cdef size_t done = 0
    cdef ssize_t written
    cdef pollfd waiting
    while done < sink.out_end:
        written = send(fd, sink.out + done, sink.out_end - done, MSG_DONTWAIT | MSG_NOSIGNAL)
        if written < 0:
            if errno != EAGAIN and errno != EINTR:
                return False
            # The generator reads whatever it is writing, so waiting here cannot lock both.
            waiting.fd = fd
            waiting.events = POLLOUT
            if poll(&waiting, 1, 1000) <= 0:
                return False
            continue
        done += <size_t>written
    sink.out_end = 0
    return True


cdef bint sink_request(sink_t* sink, int fd, const uint8_t* frame) noexcept nogil:
    if sink_answer(sink, frame):
        return True
    return sink_flush(sink, fd) and sink_answer(sink, frame) != 0


cdef bint sink_read(sink_t* sink, int fd) noexcept nogil:
    """Answer what can be read; 0 if the connection is over."""
    cdef peer_t* peer = sink.peers[fd]
    cdef const uint8_t* at = sink.buffer
    cdef size_t left, part, size
    cdef ssize_t got = recv(fd, sink.buffer, SINK_IN, MSG_DONTWAIT)
    if got <= 0:
        return got < 0 and (errno == EAGAIN or errno == EINTR)
    left = <size_t>got
    while left:
        part = min(left, peer.skip)
        at += part
        left -= part
        peer.skip -= part
        if left == 0:
            break
        # The size is needed before it is known how much of the request an answer needs.
        part = HEAD if peer.kept < HEAD else min(
            <size_t>PEEK, <size_t>get32(peer.start) + 4)
        part = min(part - peer.kept, left)
        memcpy(peer.start + peer.kept, at, part)
        peer.kept += <uint32_t>part
        at += part
        left -= part
        if peer.kept < HEAD:
            break
        size = <size_t>get32(peer.start) + 4
        if size < HEAD:
            return False
        if peer.kept >= min(<size_t>PEEK, size):
            if not sink_request(sink, fd, peer.start):
                return False
            peer.skip = size - peer.kept
            peer.kept = 0
    return sink_flush(sink, fd)


cdef void sink_accept(sink_t* sink) noexcept nogil:
    cdef epoll_event event
    cdef int fd = accept4(sink.listener, NULL, NULL, SOCK_CLOEXEC)
    if fd < 0:
        return
    if fd < PEERS:
        if sink.peers[fd] == NULL:
            sink.peers[fd] = <peer_t*>malloc(sizeof(peer_t))
        if sink.peers[fd] != NULL:
            memset(sink.peers[fd], 0, sizeof(peer_t))
            event.events = EPOLLIN
            event.data.u32 = <uint32_t>fd
            if epoll_ctl(sink.epoll, EPOLL_CTL_ADD, fd, &event) == 0:
                return
    close(fd)


cdef void sink_run(sink_t* sink) noexcept nogil:
    cdef epoll_event events[EVENTS]
    cdef int index, ready, fd
    while True:
        ready = epoll_wait(sink.epoll, events, EVENTS, -1)
        for index in range(ready):
            fd = <int>events[index].data.u32
            if fd == sink.stopper:
                return
            if fd == sink.listener:
                sink_accept(sink)
            elif not sink_read(sink, fd):
                sink.out_end = 0
                close(fd)


cdef class Sink:
    """The answering end of `bench self`: serve() on a thread, until stop() is called.

    The listener and the stopper (an object whose fileno becomes readable) stay the caller's.
    """

    cdef sink_t* sink
    cdef object owners

    def __cinit__(self, listener, stopper, *, uint32_t body_size=128):
        cdef epoll_event event
        cdef int fd
        if body_size > 1 << 20:
            raise ValueError("the sink's messages have at most 1 MiB")
        self.owners = (listener, stopper)
        self.sink = <sink_t*>calloc(1, sizeof(sink_t))
        if self.sink == NULL:
            raise MemoryError
        self.sink.body_size = body_size
        self.sink.listener = listener.fileno()
        self.sink.stopper = stopper.fileno()
        self.sink.epoll = epoll_create1(EPOLL_CLOEXEC)
        for fd in (self.sink.listener, self.sink.stopper):
            event.events = EPOLLIN
            event.data.u32 = <uint32_t>fd
            if epoll_ctl(self.sink.epoll, EPOLL_CTL_ADD, fd, &event):
                raise OSError(errno, "epoll_ctl")

    def __dealloc__(self):
        cdef int fd
        if self.sink == NULL:
            return
        for fd in range(PEERS):
            free(self.sink.peers[fd])
        if self.sink.epoll >= 0:
            close(self.sink.epoll)
        free(self.sink)

    def serve(self):
        """Answer until the stopper is readable."""
        with nogil:
            sink_run(self.sink)
