# The open loop: requests are due by the clock, whether or not the server keeps up with it.
#
# A request's latency counts from when it was due. One that waits because every slot is taken is not
# sent later "on purpose": the time that it waited is in its latency, and what could not be sent at all
# is an error. So a stall of the server is seen in full, by all the requests that it delayed.

cdef inline uint64_t next_due(const load_t* load) noexcept nogil:
    return load.started_ns + <uint64_t>(load.interval_ns * <double>load.sent_requests)


cdef inline bint more_due(const load_t* load) noexcept nogil:
    """Whether the clock has not yet asked for all requests."""
    if load.interval_ns == 0 or (load.limit and load.issued >= load.limit):
        return False
    return next_due(load) < load.end_ns


cdef connection_t* free_connection(load_t* load, uint32_t* index) noexcept nogil:
    """A connection with a free slot, in turn; NULL if there is none."""
    cdef uint32_t tried
    cdef connection_t* connection
    for tried in range(load.connection_count):
        index[0] = load.next_connection
        load.next_connection = (load.next_connection + 1) % load.connection_count
        connection = load.connections + index[0]
        if connection.fd >= 0 and connection.free_count:
            return connection
    return NULL


cdef bint pace(load_t* load, uint64_t now) noexcept nogil:
    """Send what is due; 0 if something is due and has no slot."""
    cdef connection_t* connection
    cdef uint32_t index
    cdef uint64_t due
    while more_due(load):
        due = next_due(load)
        if due > now:
            return True
        connection = free_connection(load, &index)
        if connection == NULL:
            return False
        issue(load, connection, due)
        flush(load, connection, index)
    return True


cdef uint64_t unsent(const load_t* load) noexcept nogil:
    """Requests that were due before the end and never left."""
    cdef uint64_t left = 0
    if more_due(load):
        left = <uint64_t>(<double>(load.end_ns - next_due(load)) / load.interval_ns) + 1
    return left


cdef inline uint64_t until_next(const load_t* load, uint64_t now, bint room) noexcept nogil:
    """How long to wait for replies, in ns."""
    cdef uint64_t slice_ns = <uint64_t>SLICE_MS * 1000000
    cdef uint64_t due
    if not room or not more_due(load):
        return slice_ns
    due = next_due(load)
    return min(due - now, slice_ns) if due > now else 0
