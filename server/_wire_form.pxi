# A form as CMQ's v2 requests are: pairs decoded where the request is plain, left to Python where anything is odd.

cdef enum:
    FORM_PAIRS = 32             # a plain request has fewer

cdef struct text_t:
    const uint8_t* at
    uint32_t size

cdef struct pair_t:
    text_t key, value

cdef struct form_t:
    pair_t pairs[FORM_PAIRS]
    uint32_t count


cdef inline int hex_value(uint8_t digit) noexcept nogil:
    if digit >= c'0' and digit <= c'9':
        return digit - c'0'
    digit |= 32
    return digit - c'a' + 10 if digit >= c'a' and digit <= c'f' else -1


cdef inline bint text_is(const text_t* text, const char* word, size_t size) noexcept nogil:
    return text.size == size and memcmp(text.at, word, size) == 0


cdef inline bint plain_ascii(const uint8_t* at, size_t size) noexcept nogil:
    cdef uint64_t word
    while size >= 8:
        memcpy(&word, at, 8)
        if word & <uint64_t>0x8080808080808080:
            return False
        at += 8
        size -= 8
    while size:
        if at[0] & 0x80:
            return False
        at += 1
        size -= 1
    return True


cdef bint form_read(const uint8_t* raw, size_t size, uint8_t* words, form_t* form) noexcept nogil:
    """Decode into words, which has room for size bytes. False for what is odd: it may still be a good form."""
    cdef size_t at = 0
    cdef uint8_t letter
    cdef int high, low
    cdef pair_t* pair
    cdef uint8_t* start = words
    cdef bint in_value = False
    form.count = 0
    while True:
        if at == size or raw[at] == c'&':
            if not in_value:
                return False
            pair.value.at = start
            pair.value.size = <uint32_t>(words - start)
            if not plain_ascii(start, pair.value.size) and not text_whole(start, pair.value.size):
                return False
            if at == size:
                return True
            in_value = False
            start = words
            at += 1
            continue
        letter = raw[at]
        at += 1
        if letter == c'=' and not in_value:
            if form.count == FORM_PAIRS or words == start or (words - 1)[0] == c' ':
                return False
            pair = form.pairs + form.count
            form.count += 1
            pair.key.at = start
            pair.key.size = <uint32_t>(words - start)
            start = words
            in_value = True
            continue
        if letter == c'+':
            letter = c' '
        elif letter == c'%':
            if size - at < 2:
                return False
            high, low = hex_value(raw[at]), hex_value(raw[at + 1])
            if high < 0 or low < 0:
                return False
            letter = <uint8_t>(high << 4 | low)
            at += 2
        if not in_value and (letter == c'_' or letter & 0x80):
            return False
        words[0] = letter
        words += 1


cdef bint form_sort(form_t* form) noexcept nogil:
    """Sort by key, bytewise; False if two are the same."""
    cdef uint32_t at, place
    cdef int order
    cdef pair_t one
    for at in range(1, form.count):
        one = form.pairs[at]
        place = at
        while place:
            order = text_order(&form.pairs[place - 1].key, &one.key)
            if order == 0:
                return False
            if order < 0:
                break
            form.pairs[place] = form.pairs[place - 1]
            place -= 1
        form.pairs[place] = one
    return True


cdef inline int text_order(const text_t* one, const text_t* other) noexcept nogil:
    cdef int order = memcmp(one.at, other.at, min(one.size, other.size))
    return order if order else (one.size > other.size) - (one.size < other.size)


cdef bint text_number(const text_t* text, uint64_t* value) noexcept nogil:
    """Whether it is a whole number below 2^63, and which."""
    cdef uint32_t at
    value[0] = 0
    if text.size == 0 or text.size > 19:
        return False
    for at in range(text.size):
        if text.at[at] < c'0' or text.at[at] > c'9':
            return False
        value[0] = 10 * value[0] + (text.at[at] - c'0')
    return value[0] >> 63 == 0


cdef const char* BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


cdef bint base64_is(const uint8_t* mac, uint32_t size, const text_t* claimed) noexcept nogil:
    """Whether the text is the bytes in base64; the time it takes tells nothing about where they differ."""
    cdef uint32_t whole = (size + 2) // 3 * 4
    cdef uint32_t at, place, bits
    cdef uint8_t differ = 0
    cdef uint8_t letter
    if claimed.size != whole:
        return False
    for at in range(whole):
        place = at // 4 * 3
        bits = <uint32_t>mac[place] << 16
        if place + 1 < size:
            bits |= <uint32_t>mac[place + 1] << 8
        if place + 2 < size:
            bits |= mac[place + 2]
        letter = BASE64[bits >> (18 - 6 * (at % 4)) & 63]
        if place + at % 4 > size:
            letter = c'='
        differ |= letter ^ claimed.at[at]
    return differ == 0


cdef int json_text(buffer_t* out, const uint8_t* text, size_t size) noexcept nogil:
    """Append text as JSON of ASCII alone, without its quotes; what is no UTF-8 becomes U+FFFD. -1: no memory."""
    cdef uint8_t* at
    cdef size_t before = out.used
    cdef uint32_t value, more
    # A byte becomes six at most: \u and four digits, two of them for four bytes.
    if buffer_extend(out, 6 * size) is NULL:
        return -1
    at = out.data + before
    while size:
        if text[0] < 0x80:
            if text[0] == c'"' or text[0] == c'\\':
                at[0] = c'\\'
                at[1] = text[0]
                at += 2
            elif text[0] >= 0x20 and text[0] != 0x7F:
                at[0] = text[0]
                at += 1
            else:
                at = json_escape(at, text[0])
            text += 1
            size -= 1
            continue
        more = 0 if text[0] < 0xC2 else 1 if text[0] < 0xE0 else 2 if text[0] < 0xF0 else 3
        if more and more < size and text_whole(text, more + 1):
            value = text[0] & (0x3F >> more)
            text += 1
            size -= more + 1
            while more:
                value = value << 6 | (text[0] & 0x3F)
                text += 1
                more -= 1
            if value >= 0x10000:
                at = json_escape(at, 0xD800 + ((value - 0x10000) >> 10))
                value = 0xDC00 + (value - 0x10000 & 0x3FF)
            at = json_escape(at, value)
        else:
            at = json_escape(at, 0xFFFD)
            text += 1
            size -= 1
    out.used = at - out.data
    return 0


cdef inline uint8_t* json_escape(uint8_t* at, uint32_t value) noexcept nogil:
    at[0] = c'\\'
    at[1] = c'u'
    return <uint8_t*>put_hex(<char*>at + 2, value, 4)
