# A list of attributes, judged before it is stored: whoever receives it must be able to read it.

cdef enum:
    ATTRIBUTED = 2              # beside a durability level, see Lane.stage_one
    PACKED = 4
    ATTRIBUTE_HEAD = 4
    PROPERTY = 3                # the only kind that may come more than once, and has a name


cdef bint attributes_whole(const uint8_t* at, uint32_t size) noexcept nogil:
    """Whether the bytes are attributes one behind the other, as docs/format.md has them."""
    cdef uint32_t seen = 0
    cdef uint32_t step
    cdef uint8_t kind, name_size
    while size:
        if size < ATTRIBUTE_HEAD:
            return False
        kind = at[0]
        name_size = at[1]
        step = <uint32_t>name_size + load16(at + 2)
        if step > size - ATTRIBUTE_HEAD or (name_size > 0) != (kind == PROPERTY):
            return False
        if kind != PROPERTY and kind < 32:
            if seen >> kind & 1:
                return False
            seen |= <uint32_t>1 << kind
        if not text_whole(at + ATTRIBUTE_HEAD, name_size):
            return False
        if not text_whole(at + ATTRIBUTE_HEAD + name_size, step - name_size):
            return False
        at += ATTRIBUTE_HEAD + step
        size -= ATTRIBUTE_HEAD + step
    return True


cdef bint text_whole(const uint8_t* at, uint32_t size) noexcept nogil:
    """Whether the bytes are UTF-8: no overlong form, no surrogate, nothing above U+10FFFF."""
    cdef uint32_t more, value, least
    while size:
        if at[0] < 0x80:
            at += 1
            size -= 1
            continue
        if at[0] & 0xE0 == 0xC0:
            more, least, value = 1, 0x80, at[0] & 0x1F
        elif at[0] & 0xF0 == 0xE0:
            more, least, value = 2, 0x800, at[0] & 0x0F
        elif at[0] & 0xF8 == 0xF0:
            more, least, value = 3, 0x10000, at[0] & 0x07
        else:
            return False
        if more >= size:
            return False
        at += 1
        size -= more + 1
        while more:
            if at[0] & 0xC0 != 0x80:
                return False
            value = value << 6 | (at[0] & 0x3F)
            at += 1
            more -= 1
        if value < least or value > 0x10FFFF or value >> 11 == 0x1B:
            return False
    return True
