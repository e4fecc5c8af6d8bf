# Bytes in C: loads and stores of the wire's integers, and a buffer that grows with what it holds.

cdef enum:
    FRAME_HEAD = 16
    MESSAGE_HEAD = 48
    RECEIPT_SIZE = 24
    REASON_BYTES = 1024         # behind the receipts of a RELEASE
    BY_POLICY = 0xFFFFFFFF      # its delay: as the group's retry policy says
    EXISTS = 4
    INVALID = 9
    KEPT_ROOM = 65536       # an empty buffer larger than this is given back

# The wire is little-endian and so is every machine this is built for; memcpy because nothing is aligned.
cdef inline uint16_t load16(const uint8_t* at) noexcept nogil:
    cdef uint16_t value
    memcpy(&value, at, 2)
    return value

cdef inline uint32_t load32(const uint8_t* at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return value

cdef inline uint64_t load64(const uint8_t* at) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, at, 8)
    return value

cdef inline void store16(uint8_t* at, uint16_t value) noexcept nogil:
    memcpy(at, &value, 2)

cdef inline void store32(uint8_t* at, uint32_t value) noexcept nogil:
    memcpy(at, &value, 4)

cdef inline void store64(uint8_t* at, uint64_t value) noexcept nogil:
    memcpy(at, &value, 8)


cdef struct buffer_t:
    # used <= room; data is NULL exactly when room is 0.
    uint8_t* data
    size_t used
    size_t room


cdef inline uint8_t* buffer_extend(buffer_t* buffer, size_t more) noexcept nogil:
    """Room for more bytes at the end, counted as used; NULL when there is no memory."""
    cdef uint8_t* grown
    cdef size_t room
    if more > buffer.room - buffer.used:
        room = buffer.room * 2 if buffer.room else 512
        while room - buffer.used < more:
            room *= 2
        grown = <uint8_t*>realloc(buffer.data, room)
        if grown is NULL:
            return NULL
        buffer.data = grown
        buffer.room = room
    buffer.used += more
    return buffer.data + buffer.used - more


cdef inline int buffer_append(buffer_t* buffer, const void* data, size_t size) noexcept nogil:
    """0, or -1 when there is no memory."""
    cdef uint8_t* at
    if size == 0:
        return 0
    at = buffer_extend(buffer, size)
    if at is NULL:
        return -1
    memcpy(at, data, size)
    return 0


cdef inline void buffer_consume(buffer_t* buffer, size_t size) noexcept nogil:
    """Forget the first size bytes; an empty buffer that is large is given back."""
    buffer.used -= size
    if buffer.used:
        memmove(buffer.data, buffer.data + size, buffer.used)
    elif buffer.room > KEPT_ROOM:
        buffer_free(buffer)


cdef inline void buffer_free(buffer_t* buffer) noexcept nogil:
    free(buffer.data)
    buffer.data = NULL
    buffer.used = 0
    buffer.room = 0


cdef inline uint8_t* frame_begin(buffer_t* out, uint8_t verb, uint16_t status, uint32_t tag,
                                 size_t payload) noexcept nogil:
    """Append the head of a reply and room for its payload; returns where the payload goes, or NULL."""
    cdef uint8_t* at = buffer_extend(out, FRAME_HEAD + payload)
    if at is NULL:
        return NULL
    store32(at, <uint32_t>(12 + payload))
    at[4] = verb | 0x80
    at[5] = 0
    store16(at + 6, status)
    store32(at + 8, tag)
    store32(at + 12, 0)
    return at + FRAME_HEAD


cdef inline int frame_error(buffer_t* out, uint8_t verb, uint32_t tag, uint16_t status,
                            uint32_t retry_ms, const char* text) noexcept nogil:
    cdef size_t size = strlen(text)
    cdef uint8_t* at = frame_begin(out, verb, status, tag, 4 + size)
    if at is NULL:
        return -1
    store32(at, retry_ms)
    memcpy(at + 4, text, size)
    return 0


cdef inline const char* verdict_text(int verdict) noexcept nogil:
    if verdict == NOT_FOUND:
        return b"there is no such queue, group or message"
    if verdict == DECIDED:
        return b"it was decided otherwise before; the first verdict wins"
    if verdict == UNKNOWN:
        return b"no message of that id waits: none ever did, or it was decided long ago"
    if verdict == WRONG_KIND:
        return b"only a half is committed or rolled back"
    if verdict == TOO_LARGE:
        return b"the message or batch is over its limit"
    if verdict == STORE_FULL:
        return (b"the disk is full: free some space, purge a queue, or let queues keep less; "
                b"receiving and confirming go on")
    if verdict == POISONED:
        return b"a write or fsync failed; the store must be reopened"
    if verdict == BUSY:
        return b"too much is in flight"
    if verdict == CORRUPT:
        return b"the record is damaged; the others are served"
    return b"the request failed inside the server"


cdef inline uint32_t verdict_retry_ms(int verdict) noexcept nogil:
    if verdict == STORE_FULL:
        return 1000
    return 20 if verdict == BUSY else 0


cdef inline uint16_t verdict_status(int verdict) noexcept nogil:
    """The wire status of an engine verdict: they are the same numbers, 11 stands for the unexpected."""
    if verdict in (NOT_FOUND, TOO_LARGE, STORE_FULL, POISONED, BUSY, CORRUPT):
        return <uint16_t>verdict
    if verdict == DECIDED:
        return EXISTS
    if verdict == UNKNOWN:
        return NOT_FOUND
    return INVALID if verdict == WRONG_KIND else 11


cdef inline char* put_bytes(char* at, const char* text, size_t size) noexcept nogil:
    """Copy and return where to go on; the caller has seen to the room."""
    memcpy(at, text, size)
    return at + size


cdef const char* HEX_DIGITS = b"0123456789abcdef"


cdef inline char* put_hex(char* at, uint64_t value, int width) noexcept nogil:
    """The lowest width digits."""
    cdef int place
    for place in range(width - 1, -1, -1):
        at[0] = HEX_DIGITS[(value >> (4 * place)) & 15]
        at += 1
    return at


cdef inline char* put_decimal(char* at, uint64_t value) noexcept nogil:
    cdef char digits[20]
    cdef int count = 0
    while True:
        digits[count] = <char>(48 + value % 10)
        count += 1
        value //= 10
        if value == 0:
            break
    while count:
        count -= 1
        at[0] = digits[count]
        at += 1
    return at
