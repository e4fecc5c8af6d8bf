# The same load over CMQ's TCP protocol: frames of protobuf, slots told apart by the number of the request.

cdef enum:
    CMQ_HEAD = 6
    CMQ_SEQNO = 7               # of a request: five bytes of a varint, however small the number is
    CMQ_DELETE = 1025
    CMQ_BATCH_DELETE = 1026
    CMQ_NO_MESSAGE = 10200
    CMQ_HANDLES = 1024


cdef inline const uint8_t* varint(const uint8_t* at, const uint8_t* end, uint64_t* value) noexcept nogil:
    """Where to go on, NULL if no whole number stands there."""
    cdef uint32_t shift = 0
    cdef uint8_t byte
    value[0] = 0
    while at < end and shift < 64:
        byte = at[0]
        at += 1
        value[0] |= <uint64_t>(byte & 0x7F) << shift
        if byte < 0x80:
            return at
        shift += 7
    return NULL


cdef inline uint8_t* put_varint(uint8_t* at, uint64_t value) noexcept nogil:
    while value >= 0x80:
        at[0] = <uint8_t>(value | 0x80)
        value >>= 7
        at += 1
    at[0] = <uint8_t>value
    return at + 1


cdef inline void put_seqno(uint8_t* frame, uint32_t tag) noexcept nogil:
    cdef int index
    for index in range(4):
        frame[CMQ_SEQNO + index] = <uint8_t>(tag >> (7 * index) | 0x80)
    frame[CMQ_SEQNO + 4] = <uint8_t>(tag >> 28)


cdef const uint8_t* field(const uint8_t* at, const uint8_t* end, uint64_t* number, uint64_t* value,
                          const uint8_t** data) noexcept nogil:
    """The next field: its value, or where its value bytes are. NULL if there is none."""
    cdef uint64_t key
    at = varint(at, end, &key)
    if at == NULL:
        return NULL
    number[0] = key >> 3
    data[0] = NULL
    at = varint(at, end, value)
    if at == NULL or key & 7 == 0:
        return at
    if key & 7 != 2 or value[0] > <uint64_t>(end - at):
        return NULL
    data[0] = at
    return at + value[0]


cdef uint32_t handles_of(const uint8_t* at, const uint8_t* end, bint many, uint64_t* handles) noexcept nogil:
    """The handles of what a pull brought."""
    cdef uint64_t number, value
    cdef const uint8_t* data
    cdef uint32_t count = 0
    while at != NULL and at < end and count < CMQ_HANDLES:
        at = field(at, end, &number, &value, &data)
        if at == NULL:
            break
        if many and number == 1 and data != NULL:
            count += handles_of(data, data + value, False, handles + count)
        elif not many and number == 3 and data == NULL:
            handles[0] = value
            return 1
    return count


cdef void delete(load_t* load, connection_t* connection, uint32_t tag, const uint64_t* handles,
                 uint32_t count) noexcept nogil:
    """Answer a slot's messages with the deletion of them all."""
    cdef uint8_t member[CMQ_HANDLES * 10]
    cdef uint8_t* end = member
    cdef uint8_t* frame
    cdef uint8_t* at
    cdef uint32_t index
    for index in range(count):
        end[0] = 2 << 3
        end = put_varint(end + 1, handles[index])
    # At most: head, number, command, the member's head, the queue's name, the handles.
    at = frame = reserve(load, connection, 32 + load.queue_size + <size_t>(end - member))
    frame[0] = frame[1] = 0
    frame[6] = 1 << 3
    put_seqno(frame, tag)
    at[12] = 2 << 3
    at = put_varint(at + 13, CMQ_DELETE if count == 1 else CMQ_BATCH_DELETE)
    at = put_varint(at, (206 if count == 1 else 207) << 3 | 2)
    at = put_varint(at, load.queue_size + <size_t>(end - member))
    memcpy(at, load.queue, load.queue_size)
    memcpy(at + load.queue_size, member, end - member)
    at += load.queue_size + (end - member)
    put32(frame + 2, <uint32_t>(at - frame))
    # What was reserved and not needed.
    connection.out_end -= 32 + load.queue_size + <size_t>(end - member) - <size_t>(at - frame)
    connection.slots[tag].messages = count


cdef bint on_cmq_reply(load_t* load, connection_t* connection, const uint8_t* frame, size_t size,
                       uint64_t now) noexcept nogil:
    """Take one reply; 0 if it answers nothing that was asked."""
    cdef const uint8_t* at = frame + CMQ_HEAD
    cdef const uint8_t* end = frame + size
    cdef const uint8_t* data
    cdef uint64_t number, value
    cdef uint64_t tag = load.in_flight
    cdef uint64_t result = 0
    cdef uint32_t failed = 0
    cdef uint32_t count = 0
    cdef uint32_t cmd = 0
    cdef uint64_t handles[CMQ_HANDLES]
    while at < end:
        at = field(at, end, &number, &value, &data)
        if at == NULL:
            return False
        if number == 1:
            tag = value
        elif number == 2:
            cmd = <uint32_t>value
        elif number == 3:
            result = value
        elif number == 26 or number == 27:
            count = handles_of(data, data + value, number == 27, handles) if data != NULL else 0
        elif number == 28:
            failed += 1
    if tag >= load.in_flight or connection.slots[tag].sent_ns == 0:
        return False
    if result == CMQ_NO_MESSAGE:
        end_slot(load, connection, <uint32_t>tag)
    elif result and failed == 0:
        refused(load, connection, <uint32_t>tag, <uint32_t>result, now)
    elif count:
        delete(load, connection, <uint32_t>tag, handles, count)
    elif load.mode == MODE_RECEIVE and cmd != CMQ_DELETE and cmd != CMQ_BATCH_DELETE:
        return False
    else:
        load.errors += failed
        finish(load, connection, <uint32_t>tag, connection.slots[tag].messages - failed, now)
    return True
