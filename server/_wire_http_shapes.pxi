# What an HTTP connection reads and writes: a whole request, why bytes are none, the reply to a send.

cdef class HttpBase(Endpoint)


class RefusedError(Exception):
    """Stops the parser: status, kind and a sentence."""


@cython.final
cdef class HttpRequest:
    """A whole request, as the door gets it."""
    cdef readonly bytes method, url, body, content_type, accept
    cdef readonly uint64_t producer, sequence
    cdef readonly list fields       # (name in lower case behind Penstock-, value) of what a message carries; or None
    cdef readonly bytes host
    cdef bytes ext                  # the same, packed; None until it was asked for
    cdef dict signed
    cdef HttpBase endpoint
    cdef bint octets, last
    cdef readonly bint gone         # nobody reads the answer any more
    cdef Parked waiting

    @property
    def given(self):
        """The fields that API 3.0 signs with, by their names in lower case."""
        return self.signed or {}

    def join(self, uint32_t queue):
        """As the connection's: 0 if it may use the queue."""
        return self.endpoint.join(queue)

    @property
    def local(self):
        """Whether both ends of the connection are on this machine's loopback."""
        return self.endpoint.local

    @property
    def here(self):
        """The address that the client reached."""
        return self.endpoint.here

    @property
    def connected(self):
        """Whether there is still somebody to answer."""
        return not self.gone and self.endpoint.transport is not None


cdef uint64_t number_of(bytes value) except? 0:
    if not value.isdigit() or len(value) > 19:
        raise RefusedError(400, "invalid", "a producer or sequence is a number")
    return int(value)


cdef int send_reply(char* room, operation_t* operation, bytes date, bint last) noexcept:
    """The reply to a stored message, at most RENDERED_ROOM bytes; how many."""
    cdef char json[192]
    cdef char* at = put_bytes(json, b'{"id": "', 8)
    cdef size_t size
    at = put_hex(at, operation.queue, 8)
    at = put_bytes(at, b"-", 1)
    at = put_hex(at, operation.offset, 16)
    at = put_bytes(at, b'", "offset": ', 13)
    at = put_decimal(at, operation.offset)
    at = put_bytes(at, b', "durability": "', 17)
    if operation.durability:
        at = put_bytes(at, b"disk", 4)
    else:
        at = put_bytes(at, b"kernel", 6)
    if operation.duplicate:
        at = put_bytes(at, b'", "duplicate": true}', 21)
    else:
        at = put_bytes(at, b'"}', 2)
    size = at - json
    at = put_bytes(room, b"HTTP/1.1 201 Created\r\nDate: ", 28)
    at = put_bytes(at, PyBytes_AS_STRING(date), PyBytes_GET_SIZE(date))
    at = put_bytes(at, b"\r\nContent-Type: application/json\r\nContent-Length: ", 50)
    at = put_decimal(at, size)
    if last:
        at = put_bytes(at, b"\r\nConnection: close", 19)
    at = put_bytes(at, b"\r\n\r\n", 4)
    at = put_bytes(at, json, size)
    return <int>(at - room)
