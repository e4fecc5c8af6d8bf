# CMQ over TCP: frames, what their requests say, and replies. No engine, no Python objects.
#
# A frame: 00 00, u32 its size with these 6 bytes, then a CMQProto: a number (1), a command (2), a result (3), its
# text (4), a request's number (10), and one field for what the command is about.

cdef enum:
    CMQ_HEAD = 6
    CMQ_GREETING = 4096         # the largest frame before a connection is authenticated

    CMQ_AUTH = 1020
    CMQ_SEND = 1021
    CMQ_BATCH_SEND = 1022
    CMQ_PULL = 1023
    CMQ_BATCH_PULL = 1024
    CMQ_DELETE = 1025
    CMQ_BATCH_DELETE = 1026
    CMQ_PUBLISH = 1027
    CMQ_BATCH_PUBLISH = 1028
    CMQ_HEARTBEAT = 1040
    CMQ_CONFIRM = 1041
    CMQ_QUERY = 1042

    CMQ_UNAUTHENTICATED = 306
    CMQ_MISSING = 10010
    CMQ_NO_QUEUE = 10100
    CMQ_EMPTY_BODY = 10120
    CMQ_RECEIVE_FAILED = 10130
    CMQ_DELETE_FAILED = 10140
    CMQ_SOME_DELETED = 10150
    CMQ_NO_MESSAGE = 10200
    CMQ_MESSAGE_SIZE = 10230
    CMQ_HEAP = 10240
    CMQ_THROTTLED = 10250
    CMQ_HANDLE = 10260
    CMQ_NONE_DELETED = 10290
    CMQ_BATCH_BYTES = 10300
    CMQ_OUT_OF_RANGE = 10350
    CMQ_BATCH_SIZE = 10370
    CMQ_UNREADABLE = 10420
    CMQ_ACTION = 10430
    CMQ_DELAY = 10692
    CMQ_INTERNAL = 10050
    CMQ_SEND_FAILED = 10090
    CMQ_CONFIRM_FAILED = 10750
    CMQ_MESSAGE_ID = 10770
    CMQ_NOT_TRANSACTIONAL = 10790

cdef struct cmq_request_t:
    int64_t seqno
    uint64_t request_id
    uint32_t cmd
    proto_t member              # what the command is about; at is NULL if it is not there

cdef struct cmq_text_t:
    const uint8_t* data
    size_t size

cdef struct cmq_send_t:
    cmq_text_t name
    cmq_text_t body             # the last one
    uint64_t bodies_size
    uint32_t count              # of bodies
    uint32_t largest
    uint64_t delay_s, half
    int64_t first_check         # -1: not said

cdef struct cmq_pull_t:
    cmq_text_t name
    int64_t count, wait_s, lease_s      # -1: not said

cdef struct cmq_message_t:
    uint64_t id, handle
    int64_t enqueued_s, visible_s, first_s, count
    const uint8_t* body
    size_t body_size
    uint8_t origin_name[16]             # the queue it was in before it was dead; of no bytes if it is not
    size_t origin_size
    uint64_t origin_s, origin_count


cdef uint32_t cmq_member(uint32_t cmd) noexcept nogil:
    """The number of the field that a command's request stands in; 0 if it has none."""
    if cmd == CMQ_AUTH:
        return 199
    if cmd == CMQ_SEND or cmd == CMQ_BATCH_SEND:
        return cmd - 821
    if cmd == CMQ_PULL:
        return 202
    if cmd == CMQ_BATCH_PULL:
        return 204
    if cmd >= CMQ_DELETE and cmd <= CMQ_BATCH_PUBLISH:
        return cmd - 819
    return 221 if cmd == CMQ_CONFIRM else 0


cdef bint cmq_read(const uint8_t* data, size_t size, cmq_request_t* request) noexcept nogil:
    """False if the bytes are no CMQProto. What stands twice counts as it stands last."""
    cdef proto_t left, again
    cdef field_t field
    cdef uint32_t known = 0
    cdef uint32_t member
    cdef int got = 1
    left.at, left.left = data, size
    again = left
    request.seqno, request.request_id, request.cmd = 0, 0, 0
    request.member.at, request.member.left = NULL, 0
    while True:
        got = field_take(&left, &field)
        if got <= 0:
            break
        if field.number == 1 or field.number == 2 or field.number == 10:
            if field.kind != PROTO_VARINT:
                return False
            if field.number == 1:
                request.seqno = <int64_t>field.value
            elif field.number == 10:
                request.request_id = field.value
            elif field.value > 0x7FFFFFFF:
                return False
            else:
                request.cmd = <uint32_t>field.value
            known |= <uint32_t>1 << field.number
    if got < 0 or (known & 6) != 6:
        return False
    member = cmq_member(request.cmd)
    while member and field_take(&again, &field) > 0:
        if field.number == member:
            if field.kind != PROTO_BYTES:
                return False
            request.member.at, request.member.left = field.data, field.value
    return True


cdef inline bint cmq_text(const field_t* field, cmq_text_t* text) noexcept nogil:
    text.data, text.size = field.data, field.value
    return field.kind == PROTO_BYTES


cdef int cmq_read_send(const proto_t* member, cmq_send_t* send) noexcept nogil:
    """SEND, BATCH_SEND and, but for its tags, PUBLISH: 0, or the module's code of what is wrong."""
    cdef proto_t left = member[0]
    cdef field_t field
    cdef int got = 1
    memset(send, 0, sizeof(cmq_send_t))
    send.first_check = -1
    while True:
        got = field_take(&left, &field)
        if got <= 0:
            break
        if field.number == 1:
            if not cmq_text(&field, &send.name):
                return CMQ_UNREADABLE
        elif field.number == 2:
            if not cmq_text(&field, &send.body):
                return CMQ_UNREADABLE
            if field.value == 0:
                return CMQ_EMPTY_BODY
            if field.value > 0x7FFFFFFF:
                return CMQ_MESSAGE_SIZE
            send.count += 1
            send.bodies_size += field.value
            send.largest = max(send.largest, <uint32_t>field.value)
        elif field.number <= 5:
            if field.kind != PROTO_VARINT:
                return CMQ_UNREADABLE
            if field.number == 3:
                send.delay_s = field.value
            elif field.number == 4:
                send.half = field.value
            else:
                send.first_check = <int64_t>field.value
    if got < 0:
        return CMQ_UNREADABLE
    if send.name.data == NULL:
        return CMQ_MISSING
    return 0 if send.count else CMQ_EMPTY_BODY


cdef bint cmq_next_body(proto_t* left, cmq_text_t* body) noexcept nogil:
    """The next body of a member that was read whole before."""
    cdef field_t field
    while field_take(left, &field) > 0:
        if field.number == 2:
            return cmq_text(&field, body)
    return False


cdef int cmq_read_pull(const proto_t* member, bint many, cmq_pull_t* pull) noexcept nogil:
    """PULL, or with its count BATCH_PULL: 0, or the module's code of what is wrong."""
    cdef proto_t left = member[0]
    cdef field_t field
    cdef int got = 1
    pull.name.data, pull.name.size = NULL, 0
    pull.count = pull.wait_s = pull.lease_s = -1
    while True:
        got = field_take(&left, &field)
        if got <= 0:
            break
        if field.number == 1:
            if not cmq_text(&field, &pull.name):
                return CMQ_UNREADABLE
            continue
        if field.kind != PROTO_VARINT:
            if field.number <= 3 + <uint32_t>many:
                return CMQ_UNREADABLE
            continue
        # An int32, ten bytes long if it is negative.
        if many and field.number == 2:
            pull.count = <int32_t>field.value
        elif field.number == 2 + <uint32_t>many:
            pull.wait_s = <int32_t>field.value
        elif field.number == 3 + <uint32_t>many:
            pull.lease_s = <int64_t><uint32_t>field.value
    if got < 0:
        return CMQ_UNREADABLE
    if pull.name.data == NULL or (many and pull.count == -1):
        return CMQ_MISSING
    return 0


cdef int cmq_read_handles(const proto_t* member, cmq_text_t* name, uint64_t* handles, uint32_t room,
                          uint32_t* count) noexcept nogil:
    """DELETE and BATCH_DELETE; packed or not: 0, or the module's code of what is wrong."""
    cdef proto_t left = member[0]
    cdef proto_t packed
    cdef field_t field
    cdef int got = 1
    name.data, name.size = NULL, 0
    count[0] = 0
    while True:
        got = field_take(&left, &field)
        if got <= 0:
            break
        if field.number == 1:
            if not cmq_text(&field, name):
                return CMQ_UNREADABLE
        elif field.number == 2:
            packed.at, packed.left = field.data, field.value
            while True:
                if field.kind == PROTO_BYTES and packed.left == 0:
                    break
                if field.kind == PROTO_BYTES and not varint_take(&packed, &field.value):
                    return CMQ_UNREADABLE
                if field.kind != PROTO_BYTES and field.kind != PROTO_VARINT:
                    return CMQ_UNREADABLE
                if count[0] == room:
                    return CMQ_BATCH_SIZE
                handles[count[0]] = field.value
                count[0] += 1
                if field.kind == PROTO_VARINT:
                    break
    if got < 0:
        return CMQ_UNREADABLE
    return 0 if name.data != NULL and count[0] else CMQ_MISSING


cdef bint cmq_read_item(const field_t* item, uint64_t* id, uint64_t* state) noexcept nogil:
    """One verdict of a CONFIRM."""
    cdef proto_t left
    cdef field_t field
    cdef int got = 1
    left.at, left.left = item.data, item.value
    id[0], state[0] = 0, 0
    if item.kind != PROTO_BYTES:
        return False
    while True:
        got = field_take(&left, &field)
        if got <= 0:
            return got == 0 and id[0] != 0
        if field.number <= 2 and field.kind != PROTO_VARINT:
            return False
        if field.number == 1:
            id[0] = field.value
        elif field.number == 2:
            state[0] = field.value


cdef uint8_t* cmq_begin(buffer_t* out, int64_t seqno, uint32_t cmd, int32_t result, const void* text, size_t text_size,
                        uint64_t request_id, size_t more) noexcept nogil:
    """Append a frame with room for more bytes of fields at its end; returns where they go, or NULL.

    result below 0: none, as in what the server asks.
    """
    cdef size_t size = CMQ_HEAD + number_size(1, <uint64_t>seqno) + number_size(2, cmd) + more
    cdef uint8_t* at
    if result >= 0:
        size += number_size(3, <uint64_t>result)
    if text_size:
        size += bytes_size(4, text_size)
    if request_id:
        size += number_size(10, request_id)
    at = buffer_extend(out, size)
    if at is NULL:
        return NULL
    store16(at, 0)
    store32(at + 2, <uint32_t>size)
    at = number_put(number_put(at + CMQ_HEAD, 1, <uint64_t>seqno), 2, cmd)
    if result >= 0:
        at = number_put(at, 3, <uint64_t>result)
    if text_size:
        at = bytes_put(at, 4, text, text_size)
    return number_put(at, 10, request_id) if request_id else at


cdef size_t cmq_message_size(const cmq_message_t* one) noexcept nogil:
    cdef size_t size = (number_size(1, one.id) + number_size(3, one.handle) + bytes_size(4, one.body_size)
                        + number_size(5, <uint64_t>one.enqueued_s) + number_size(6, <uint64_t>one.visible_s)
                        + number_size(7, <uint64_t>one.first_s) + number_size(8, <uint64_t>one.count))
    if one.origin_size:
        size += (bytes_size(9, one.origin_size) + number_size(10, one.origin_s)
                 + number_size(11, one.origin_count))
    return size


cdef uint8_t* cmq_message_put(uint8_t* at, const cmq_message_t* one) noexcept nogil:
    at = number_put(at, 1, one.id)
    at = number_put(at, 3, one.handle)
    at = bytes_put(at, 4, one.body, one.body_size)
    at = number_put(at, 5, <uint64_t>one.enqueued_s)
    at = number_put(at, 6, <uint64_t>one.visible_s)
    at = number_put(at, 7, <uint64_t>one.first_s)
    at = number_put(at, 8, <uint64_t>one.count)
    if one.origin_size:
        at = bytes_put(at, 9, one.origin_name, one.origin_size)
        at = number_put(at, 10, one.origin_s)
        at = number_put(at, 11, one.origin_count)
    return at
