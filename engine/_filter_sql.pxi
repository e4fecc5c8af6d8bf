# The stack machine of SQL filters. Values have a kind; what an operation cannot use makes NULL, never an error. Three
# values of truth: TRUTH 0, TRUTH 1, and NOTHING for UNKNOWN. A message is wanted if the program leaves TRUTH 1.

cdef extern from *:
    """
    #include <locale.h>
    #include <math.h>
    #include <stdlib.h>
    static locale_t filter_locale;
    static inline void filter_begin(void) { if (!filter_locale) filter_locale = newlocale(LC_ALL_MASK, "C", 0); }
    static inline double text_to_double(const char *text) { return strtod_l(text, NULL, filter_locale); }
    static const double tens[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15};
    """
    void filter_begin() nogil
    double text_to_double(const char*) nogil
    const double* tens
    bint isnan(double) nogil

filter_begin()

cdef enum:
    NUMBER_SIZE = 63            # characters a number has at most


cdef bint text_number(const uint8_t* text, uint32_t size, double* out) noexcept nogil:
    """The number that a text spells: [+-] digits [. digits] [e [+-] digits]; False if it spells none."""
    cdef char copy[64]
    cdef uint64_t whole = 0
    cdef uint32_t at = 0
    cdef uint32_t digits = 0
    cdef uint32_t after = 0
    cdef bint plain = True
    if size == 0 or size > NUMBER_SIZE:
        return False
    if text[0] == c'-' or text[0] == c'+':
        at = 1
    while at < size and c'0' <= text[at] <= c'9':
        whole = whole * 10 + (text[at] - c'0')
        digits += 1
        at += 1
    if at < size and text[at] == c'.':
        at += 1
        while at < size and c'0' <= text[at] <= c'9':
            whole = whole * 10 + (text[at] - c'0')
            digits += 1
            after += 1
            at += 1
    if digits == 0:
        return False
    if at < size and (text[at] == c'e' or text[at] == c'E'):
        plain = False
        at += 1
        if at < size and (text[at] == c'-' or text[at] == c'+'):
            at += 1
        if at == size:
            return False
        while at < size and c'0' <= text[at] <= c'9':
            at += 1
    if at != size:
        return False
    if plain and digits <= 15:
        # Both are exact, so that the quotient is the nearest double.
        out[0] = <double>whole / tens[after]
        if text[0] == c'-':
            out[0] = -out[0]
        return True
    memcpy(copy, text, size)
    copy[size] = 0
    out[0] = text_to_double(copy)
    return True


cdef inline bint value_number(const value_t* value, double* out) noexcept nogil:
    if value.kind == NUMBER:
        out[0] = value.number
        return True
    return value.kind == TEXT and text_number(value.text, value.size, out)


cdef inline bint spells(const value_t* value, const char* word, uint32_t size) noexcept nogil:
    """Whether a text is a word of small letters, in whatever case."""
    cdef uint32_t at
    if value.size != size:
        return False
    for at in range(size):
        if (value.text[at] | 0x20) != <uint8_t>word[at]:
            return False
    return True


cdef inline int value_truth(const value_t* value) noexcept nogil:
    """0, 1, or -1 for UNKNOWN; a text may spell true or false."""
    if value.kind == TRUTH:
        return value.number != 0
    if value.kind == TEXT:
        if spells(value, b"true", 4):
            return 1
        if spells(value, b"false", 5):
            return 0
    return -1


cdef inline void put_truth(value_t* value, int truth) noexcept nogil:
    value.kind = NOTHING if truth < 0 else TRUTH
    value.number = truth


cdef int texts_compare(const value_t* left, const value_t* right) noexcept nogil:
    """Bytewise: below 0, 0 or above 0."""
    cdef int found = 0
    cdef uint32_t common = min(left.size, right.size)
    if common:
        found = memcmp(left.text, right.text, common)
    if found == 0:
        found = <int>(left.size > right.size) - <int>(left.size < right.size)
    return found


cdef int values_compare(uint8_t instruction, const value_t* left, const value_t* right) noexcept nogil:
    """1, 0, or -1 for UNKNOWN. Texts: equal bytewise; ordered as numbers if both are some, else bytewise."""
    cdef double a = 0
    cdef double b = 0
    cdef int order
    cdef bint both
    if left.kind == NOTHING or right.kind == NOTHING:
        return -1
    if left.kind == TRUTH or right.kind == TRUTH:
        if instruction > IS_UNEQUAL or value_truth(left) < 0 or value_truth(right) < 0:
            return -1
        return (value_truth(left) == value_truth(right)) == (instruction == IS_EQUAL)
    if left.kind == TEXT and right.kind == TEXT:
        if instruction <= IS_UNEQUAL:
            return (texts_compare(left, right) == 0) == (instruction == IS_EQUAL)
        both = text_number(left.text, left.size, &a) and text_number(right.text, right.size, &b)
    else:
        both = value_number(left, &a) and value_number(right, &b)
        if not both:
            return -1
    order = (<int>(a > b) - <int>(a < b)) if both else texts_compare(left, right)
    if instruction == IS_EQUAL:
        return order == 0
    if instruction == IS_UNEQUAL:
        return order != 0
    if instruction == IS_LESS:
        return order < 0
    if instruction == IS_AT_MOST:
        return order <= 0
    if instruction == IS_MORE:
        return order > 0
    return order >= 0


cdef void values_reckon(uint8_t instruction, value_t* left, const value_t* right) noexcept nogil:
    """left = left (+ - * /) right; NULL if one is no number, for a division by zero, and for what is no number."""
    cdef double a = 0
    cdef double b = 0
    cdef bint both = value_number(left, &a) and value_number(right, &b)
    left.kind = NOTHING
    if not both or (instruction == DIVIDED and b == 0):
        return
    if instruction == PLUS:
        left.number = a + b
    elif instruction == MINUS:
        left.number = a - b
    elif instruction == TIMES:
        left.number = a * b
    else:
        left.number = a / b
    if not isnan(left.number):
        left.kind = NUMBER


cdef inline uint32_t character_end(const uint8_t* text, uint32_t at, uint32_t size) noexcept nogil:
    at += 1
    while at < size and (text[at] & 0xC0) == 0x80:
        at += 1
    return at


cdef int text_like(asked_t* asked, const uint8_t* pattern, uint32_t room, const uint8_t* text,
                   uint32_t size) noexcept nogil:
    """1, 0, or -1 if the steps ran out."""
    cdef uint32_t p = 0
    cdef uint32_t t = 0
    cdef uint32_t again = 0
    cdef uint32_t mark = 0
    cdef bint some = False
    while t < size:
        if asked.steps == 0:
            return -1
        asked.steps -= 1
        if p < room and pattern[p] == PATTERN_ANY:
            p += 1
            again = p
            mark = t
            some = True
        elif p < room and pattern[p] == PATTERN_ONE:
            p += 1
            t = character_end(text, t, size)
        elif p < room and pattern[p] == text[t]:
            p += 1
            t += 1
        elif some:
            mark = character_end(text, mark, size)
            t = mark
            p = again
        else:
            return 0
    while p < room and pattern[p] == PATTERN_ANY:
        p += 1
    return p == room


cdef bint property_find(const asked_t* asked, const uint8_t* name, uint32_t name_size, value_t* out) noexcept nogil:
    """The value of a property; sizes are not trusted."""
    cdef const uint8_t* at = asked.ext
    cdef uint32_t left = asked.ext_size
    cdef const attribute_t* head
    cdef uint32_t step
    while left >= sizeof(attribute_t):
        head = <const attribute_t*>at
        step = <uint32_t>sizeof(attribute_t) + head.name_size + head.value_size
        if step > left:
            return False
        if head.kind == ATTRIBUTE_PROPERTY and head.name_size == name_size \
                and memcmp(at + sizeof(attribute_t), name, name_size) == 0:
            out.kind = TEXT
            out.text = at + sizeof(attribute_t) + name_size
            out.size = head.value_size
            return True
        at += step
        left -= step
    return False


cdef void value_push(const uint8_t* at, const asked_t* asked, value_t* out) noexcept nogil:
    """What a push instruction puts on the stack."""
    cdef uint16_t size = 0
    out.kind = NOTHING
    if at[0] == PUSH_PROPERTY:
        property_find(asked, at + 2, at[1], out)
    elif at[0] == PUSH_ATTRIBUTE:
        out.text = attribute_find(asked.ext, asked.ext_size, at[1], &size)
        out.size = size
        if out.text != NULL:
            out.kind = TEXT
    elif at[0] == PUSH_TEXT:
        out.kind = TEXT
        out.size = load_u16(at + 1)
        out.text = at + 3
    elif at[0] == PUSH_NUMBER:
        out.kind = NUMBER
        memcpy(&out.number, at + 1, 8)
        if isnan(out.number):
            out.kind = NOTHING
    elif at[0] != PUSH_NULL:
        put_truth(out, at[0] == PUSH_TRUE)


cdef int truths_join(uint8_t instruction, const value_t* left, const value_t* right) noexcept nogil:
    """AND, OR of three values."""
    cdef int a = value_truth(left)
    cdef int b = value_truth(right)
    if instruction == BOTH:
        if a == 0 or b == 0:
            return 0
        return 1 if a > 0 and b > 0 else -1
    if a > 0 or b > 0:
        return 1
    return 0 if a == 0 and b == 0 else -1


cdef int value_among(const uint8_t* at, uint32_t room, const value_t* value) noexcept nogil:
    """Whether a value equals one of the items: 1, 0, or -1 for UNKNOWN."""
    cdef value_t item
    cdef int found = 0
    cdef int same
    cdef uint32_t size
    while room:
        size = item_size(at, room)
        item.kind = at[0]
        if item.kind == TEXT:
            item.size = load_u16(at + 1)
            item.text = at + 3
        else:
            memcpy(&item.number, at + 1, 8)
        same = values_compare(IS_EQUAL, value, &item)
        if same > 0:
            return 1
        if same < 0:
            found = -1
        at += size
        room -= size
    return found


cdef void value_change(const uint8_t* at, asked_t* asked, value_t* top) noexcept nogil:
    """What an instruction of one value makes of it."""
    cdef double number = 0
    cdef int truth
    if at[0] == INVERSE:
        truth = value_truth(top)
        put_truth(top, truth if truth < 0 else 1 - truth)
    elif at[0] == IS_NULL:
        put_truth(top, top.kind == NOTHING)
    elif at[0] == IS_LIKE:
        put_truth(top, text_like(asked, at + 3, load_u16(at + 1), top.text, top.size) if top.kind == TEXT else -1)
    elif at[0] == IS_AMONG:
        put_truth(top, value_among(at + 3, load_u16(at + 1), top))
    elif value_number(top, &number):
        top.kind = NUMBER
        top.number = -number
    else:
        top.kind = NOTHING


cdef bint sql_run(const filter_t* filter, asked_t* asked) noexcept nogil:
    """Run a program that filter_open accepted."""
    cdef value_t stack[FILTER_STACK + 1]
    cdef value_t* top = stack - 1
    cdef const uint8_t* at = filter.program
    cdef const uint8_t* end = at + filter.size
    cdef uint32_t step
    cdef uint8_t instruction
    while at < end:
        instruction = at[0]
        step = step_size(at, <uint32_t>(end - at))
        if instruction < IS_EQUAL:
            top += 1
            value_push(at, asked, top)
        elif instruction == JUMP_FALSE or instruction == JUMP_TRUE:
            if value_truth(top) == (instruction == JUMP_TRUE):
                put_truth(top, instruction == JUMP_TRUE)
                step += load_u16(at + 1)
        elif instruction == NEGATED or instruction == INVERSE or instruction > JUMP_TRUE:
            value_change(at, asked, top)
        else:
            top -= 1
            if instruction <= IS_AT_LEAST:
                put_truth(top, values_compare(instruction, top, top + 1))
            elif instruction <= DIVIDED:
                values_reckon(instruction, top, top + 1)
            else:
                put_truth(top, truths_join(instruction, top, top + 1))
        at += step
    return value_truth(top) == 1
