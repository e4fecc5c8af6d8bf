# The same load over HTTP/1.1: requests are answered in their order, so a connection's slots are a ring.

cdef enum:
    HTTP_HEAD_LIMIT = 65536
    HTTP_BODY_LIMIT = 1073741824


cdef inline bint same_letters(const uint8_t* at, const char* wanted, size_t size) noexcept nogil:
    """Whether these bytes are the wanted ones, small letters or large."""
    cdef size_t index
    for index in range(size):
        if at[index] | 0x20 != <uint8_t>wanted[index]:
            return False
    return True


cdef int64_t http_size(const uint8_t* at, size_t left) noexcept nogil:
    """The bytes of the whole reply that begins here; 0 if it is not all there, -1 if it is none."""
    cdef const uint8_t* end
    cdef const uint8_t* line
    cdef const uint8_t* digit
    cdef uint64_t body = 0
    if left > HTTP_HEAD_LIMIT:
        end = <const uint8_t*>memmem(at, HTTP_HEAD_LIMIT, <const char*>b"\r\n\r\n", 4)
    else:
        end = <const uint8_t*>memmem(at, left, <const char*>b"\r\n\r\n", 4)
    if end == NULL:
        return -1 if left > HTTP_HEAD_LIMIT else 0
    if end - at < 12 or not same_letters(at, b"http/1.", 7):
        return -1
    line = <const uint8_t*>memchr(at, 10, end - at)
    while line != NULL:
        line += 1
        if end - line > 15 and same_letters(line, b"content-length:", 15):
            digit = line + 15
            while digit < end and digit[0] == 32:
                digit += 1
            # More digits than a length that fits has are no reply.
            while digit < end and digit[0] >= 48 and digit[0] <= 57:
                if body > HTTP_BODY_LIMIT:
                    return -1
                body = body * 10 + (digit[0] - 48)
                digit += 1
        elif end - line > 18 and same_letters(line, b"transfer-encoding:", 18):
            return -1
        line = <const uint8_t*>memchr(line, 10, end - line)
    end += 4
    return end - at + <int64_t>body if body <= left - <size_t>(end - at) else 0


cdef uint32_t http_status(const uint8_t* reply) noexcept nogil:
    return (<uint32_t>reply[9] - 48) * 100 + (<uint32_t>reply[10] - 48) * 10 + reply[11] - 48


cdef bint on_http_reply(load_t* load, connection_t* connection, const uint8_t* reply, size_t size,
                        uint64_t now) noexcept nogil:
    """Take one reply; 0 if nothing was asked, or if it is not what was asked for."""
    cdef uint32_t tag, status
    cdef const uint8_t* end = reply + size
    cdef const uint8_t* body
    if connection.order_count == 0:
        return False
    tag = connection.order[connection.order_first]
    connection.order_first = (connection.order_first + 1) % load.in_flight
    connection.order_count -= 1
    body = <const uint8_t*>memmem(reply, size, <const char*>b"\r\n\r\n", 4) + 4
    status = http_status(reply)
    if status // 100 == 2:
        # CMQ answers everything with 200, and says in the body how it ended.
        status = cmq_http_code(body, end) if load.cmq_http else 0
    if connection.slots[tag].confirming:
        confirmed_http(load, connection, tag, status, body, end, now)
    elif load.cmq_http and status == CMQ_HTTP_EMPTY:
        end_slot(load, connection, tag)
    elif status:
        refused(load, connection, tag, status, now)
    elif load.mode == MODE_RECEIVE:
        return confirm_http(load, connection, tag, body, end)
    else:
        finish(load, connection, tag, connection.slots[tag].messages, now)
    return True
