# What a slot makes of the replies of the native protocol.

cdef bint confirm(load_t* load, connection_t* connection, uint32_t tag, const uint8_t* payload,
                  size_t size) noexcept nogil:
    """Answer a slot's messages with the confirmation of all their receipts; 0 if malformed."""
    cdef uint32_t count, done
    cdef uint64_t body
    cdef uint8_t* at
    if size < 8:
        return False
    count = get32(payload)
    if count > load.batch:
        return False
    if count == 0:
        end_slot(load, connection, tag)
        return True
    at = reserve(load, connection, HEAD + 4 + <size_t>count * RECEIPT)
    put_head(at, 4 + <size_t>count * RECEIPT, VERB_CONFIRM, tag)
    put32(at + HEAD, count)
    at += HEAD + 4
    payload += 8
    size -= 8
    for done in range(count):
        if size < MESSAGE_HEAD:
            return False
        body = <uint64_t>get32(payload + 36) + get32(payload + 40)
        if body > size - MESSAGE_HEAD:
            return False
        memcpy(at, payload, RECEIPT)
        at += RECEIPT
        payload += MESSAGE_HEAD + body
        size -= MESSAGE_HEAD + body
    connection.slots[tag].messages = count
    return True


cdef bint on_reply(load_t* load, connection_t* connection, const uint8_t* frame, size_t size,
                   uint64_t now) noexcept nogil:
    """Take one reply; 0 if it answers nothing that was asked."""
    cdef uint8_t verb = frame[4]
    cdef uint16_t status
    cdef uint32_t tag = get32(frame + 8)
    cdef uint32_t index, count
    cdef uint64_t good = 0
    memcpy(&status, frame + 6, 2)
    if tag >= load.in_flight or connection.slots[tag].sent_ns == 0:
        return False
    if status:
        refused(load, connection, tag, status, now)
        return True
    if load.mode == MODE_SEND:
        if verb != (load.request[4] | REPLY):
            return False
        finish(load, connection, tag, connection.slots[tag].messages, now)
        return True
    if verb == (VERB_RECEIVE | REPLY):
        return confirm(load, connection, tag, frame + HEAD, size - HEAD)
    count = connection.slots[tag].messages
    if verb != (VERB_CONFIRM | REPLY) or size != HEAD + 4 + <size_t>count:
        return False
    for index in range(count):
        good += frame[HEAD + 4 + index] == 0
    load.errors += count - good
    finish(load, connection, tag, good, now)
    return True
