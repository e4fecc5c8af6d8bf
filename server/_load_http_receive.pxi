# What a slot makes of messages that came over HTTP: the request that confirms them all, and what becomes of that.

cdef enum:
    CMQ_HTTP_EMPTY = 7000
    CMQ_HTTP_UNKNOWN = 999      # no code stands in the reply

cdef inline const uint8_t* found(const uint8_t* at, const uint8_t* end, const piece_t* what) noexcept nogil:
    """Behind the next such piece; NULL if there is none."""
    at = <const uint8_t*>memmem(at, <size_t>(end - at), <const char*>what.at, what.size)
    return NULL if at == NULL else at + what.size


cdef inline uint8_t* put_piece(uint8_t* to, const piece_t* what) noexcept nogil:
    memcpy(to, what.at, what.size)
    return to + what.size


cdef uint32_t cmq_http_code(const uint8_t* at, const uint8_t* end) noexcept nogil:
    """The code that a reply of CMQ begins with; 0: it went well."""
    cdef piece_t key
    cdef uint32_t code = 0
    key.at, key.size = <const uint8_t*><const char*>b'"code":', 7
    at = found(at, end, &key)
    if at == NULL or at == end or at[0] < 48 or at[0] > 57:
        return CMQ_HTTP_UNKNOWN
    while at < end and 48 <= at[0] <= 57 and code < 100000:
        code = code * 10 + (at[0] - 48)
        at += 1
    return code


cdef bint confirm_http(load_t* load, connection_t* connection, uint32_t tag, const uint8_t* body,
                       const uint8_t* end) noexcept nogil:
    """Answer a slot's messages with the confirmation of all their receipts; 0 if malformed."""
    cdef const confirming_t* told = &load.confirming
    cdef const uint8_t* at = found(body, end, &told.mark)
    cdef const uint8_t* quote
    cdef size_t size = told.first.size + told.last.size
    cdef size_t left
    cdef uint32_t count = 0
    cdef uint32_t place
    cdef uint8_t* to
    while at != NULL:
        quote = <const uint8_t*>memchr(at, 34, end - at)
        if quote == NULL or quote - at > RECEIPT_TEXT or count == load.batch:
            return False
        size += told.before[count].size + <size_t>(quote - at)
        count += 1
        at = found(quote, end, &told.mark)
    if count == 0:
        end_slot(load, connection, tag)
        return True
    to = put_piece(reserve(load, connection, told.head.size + HTTP_LENGTH + 4 + size), &told.head)
    # Spaces may stand before the digits, so that every length takes the same room.
    memset(to, 32, HTTP_LENGTH)
    left = size
    for place in range(HTTP_LENGTH):
        if left or place == 0:
            to[HTTP_LENGTH - 1 - place] = <uint8_t>(48 + left % 10)
            left //= 10
    memcpy(to + HTTP_LENGTH, <const char*>b"\r\n\r\n", 4)
    to = put_piece(to + HTTP_LENGTH + 4, &told.first)
    at = body
    for place in range(count):
        at = found(at, end, &told.mark)
        quote = <const uint8_t*>memchr(at, 34, end - at)
        to = put_piece(to, &told.before[place])
        memcpy(to, at, quote - at)
        to += quote - at
        at = quote
    put_piece(to, &told.last)
    connection.slots[tag].messages = count
    connection.slots[tag].confirming = True
    connection.order[(connection.order_first + connection.order_count) % load.in_flight] = tag
    connection.order_count += 1
    return True


cdef void confirmed_http(load_t* load, connection_t* connection, uint32_t tag, uint32_t status, const uint8_t* body,
                         const uint8_t* end, uint64_t now) noexcept nogil:
    """Count what was confirmed well. CMQ names in its reply only what was not."""
    cdef const piece_t* what = &load.confirming.mark if load.cmq_http else &load.confirming.good
    cdef uint32_t count = connection.slots[tag].messages
    cdef uint32_t named = 0
    cdef uint32_t good
    cdef const uint8_t* at = found(body, end, what)
    while at != NULL and named < count:
        named += 1
        at = found(at, end, what)
    if load.cmq_http:
        good = count - (named if named or status == 0 else count)
    else:
        good = 0 if status else named
    if good < count and load.status == 0:
        load.status = status
    load.errors += count - good
    finish(load, connection, tag, good, now)
