# Protobuf, as far as fields go. A bound is checked where the bytes are taken; nothing is allocated.

cdef enum:
    PROTO_VARINT = 0
    PROTO_FIXED64 = 1
    PROTO_BYTES = 2
    PROTO_FIXED32 = 5
    FIELD_LARGEST = 0x1FFFFFFF

cdef struct proto_t:
    # What is left of a message.
    const uint8_t* at
    size_t left

cdef struct field_t:
    uint32_t number
    uint32_t kind
    uint64_t value              # of PROTO_BYTES: how many
    const uint8_t* data         # of PROTO_BYTES


cdef inline bint varint_take(proto_t* message, uint64_t* value) noexcept nogil:
    """False if there is none that is whole and has at most 64 bits; then nothing is taken."""
    cdef uint64_t found = 0
    cdef uint32_t shift = 0
    cdef size_t at = 0
    cdef uint8_t byte
    while at < message.left and shift <= 63:
        byte = message.at[at]
        at += 1
        if shift == 63 and byte > 1:
            return False
        found |= <uint64_t>(byte & 0x7F) << shift
        if byte < 0x80:
            value[0] = found
            message.at += at
            message.left -= at
            return True
        shift += 7
    return False


cdef int field_take(proto_t* message, field_t* field) noexcept nogil:
    """1 and the next field, 0 at the end, -1 if the bytes are no field. Groups, long gone, are none."""
    cdef uint64_t key = 0
    cdef uint32_t width
    if message.left == 0:
        return 0
    if not varint_take(message, &key) or key >> 3 == 0 or key >> 3 > FIELD_LARGEST:
        return -1
    field.number = <uint32_t>(key >> 3)
    field.kind = key & 7
    field.data = NULL
    if field.kind == PROTO_VARINT:
        return 1 if varint_take(message, &field.value) else -1
    if field.kind == PROTO_BYTES:
        if not varint_take(message, &field.value) or field.value > message.left:
            return -1
        field.data = message.at
        message.at += field.value
        message.left -= field.value
        return 1
    if field.kind != PROTO_FIXED64 and field.kind != PROTO_FIXED32:
        return -1
    width = 8 if field.kind == PROTO_FIXED64 else 4
    if width > message.left:
        return -1
    field.value = load64(message.at) if width == 8 else load32(message.at)
    message.at += width
    message.left -= width
    return 1


cdef inline size_t varint_size(uint64_t value) noexcept nogil:
    cdef size_t size = 1
    while value >= 0x80:
        value >>= 7
        size += 1
    return size


cdef inline uint8_t* varint_put(uint8_t* at, uint64_t value) noexcept nogil:
    """Returns where to go on, as all that put; the caller has seen to the room."""
    while value >= 0x80:
        at[0] = <uint8_t>(value | 0x80)
        value >>= 7
        at += 1
    at[0] = <uint8_t>value
    return at + 1


cdef inline uint8_t* number_put(uint8_t* at, uint32_t number, uint64_t value) noexcept nogil:
    return varint_put(varint_put(at, <uint64_t>number << 3 | PROTO_VARINT), value)


cdef inline uint8_t* head_put(uint8_t* at, uint32_t number, uint64_t size) noexcept nogil:
    """What stands before size bytes of a field."""
    return varint_put(varint_put(at, <uint64_t>number << 3 | PROTO_BYTES), size)


cdef inline uint8_t* bytes_put(uint8_t* at, uint32_t number, const void* data, size_t size) noexcept nogil:
    at = head_put(at, number, size)
    memcpy(at, data, size)
    return at + size


cdef inline size_t number_size(uint32_t number, uint64_t value) noexcept nogil:
    return varint_size(<uint64_t>number << 3) + varint_size(value)


cdef inline size_t bytes_size(uint32_t number, uint64_t size) noexcept nogil:
    return varint_size(<uint64_t>number << 3) + varint_size(size) + size
