# Filters: which messages a group wants. A filter is compiled by filters.py, stored in the group's settings as
# {u8 kind, u8 version, u16 source size, u32 program size, program, source}, and run here, without memory of its own.
#
# A program comes from a caller or from the disk: filter_open accepts it only if each instruction lies inside, each jump
# leads forward to an instruction, and the stack neither runs dry nor over. Jumps lead forward only, so that a program
# ends; what LIKE and routing patterns may cost is bounded by FILTER_STEPS a message, beyond which the answer is no.

cdef extern from "format.h" nogil:
    int ATTRIBUTE_PROPERTY, ATTRIBUTE_ROUTING_KEY

cdef enum:
    FILTER_TAG = 1
    FILTER_ROUTING = 2
    FILTER_SQL = 3
    FILTER_VERSION = 1
    FILTER_STACK = 32
    FILTER_TAGS = 64
    FILTER_STEPS = 1 << 20
    PATTERN_ANY = 0xFF          # in a pattern: any bytes (LIKE %), any number of words (routing #); never in UTF-8
    PATTERN_ONE = 0xFE          # one character (LIKE _), one word (routing *)

cdef enum Instruction:
    PUSH_PROPERTY = 1           # u8 size, name
    PUSH_ATTRIBUTE = 2          # u8 kind
    PUSH_TEXT = 3               # u16 size, bytes
    PUSH_NUMBER = 4             # f64
    PUSH_FALSE = 5
    PUSH_TRUE = 6
    PUSH_NULL = 7
    IS_EQUAL = 16
    IS_UNEQUAL = 17
    IS_LESS = 18
    IS_AT_MOST = 19
    IS_MORE = 20
    IS_AT_LEAST = 21
    PLUS = 24
    MINUS = 25
    TIMES = 26
    DIVIDED = 27
    NEGATED = 28
    BOTH = 32                   # AND
    EITHER = 33                 # OR
    INVERSE = 34                # NOT
    JUMP_FALSE = 35             # u16 distance; the value stays
    JUMP_TRUE = 36
    IS_NULL = 40
    IS_LIKE = 41                # u16 size, pattern
    IS_AMONG = 42               # u16 size, items {u8 TEXT, u16 size, bytes} or {u8 NUMBER, f64}

cdef enum Kind:
    NOTHING = 0                 # NULL, and UNKNOWN
    TRUTH = 1                   # number is 0 or 1
    NUMBER = 2
    TEXT = 3

cdef struct value_t:
    double number
    const uint8_t* text
    uint32_t size
    uint32_t kind

cdef struct filter_head_t:
    uint8_t kind
    uint8_t version
    uint16_t source_size
    uint32_t program_size

cdef struct filter_t:
    # A filter ready to run; program points into the group's settings page.
    uint8_t kind                # 0: everything is wanted
    uint32_t size
    uint32_t count              # of tags
    const uint8_t* program

cdef struct asked_t:
    # One message that is asked about.
    const uint8_t* ext
    uint32_t ext_size
    uint32_t steps              # left


cdef inline uint16_t load_u16(const uint8_t* at) noexcept nogil:
    return at[0] | <uint16_t>at[1] << 8


cdef inline uint32_t load_u32(const uint8_t* at) noexcept nogil:
    cdef uint32_t value
    memcpy(&value, at, 4)
    return value


cdef uint32_t step_size(const uint8_t* at, uint32_t room) noexcept nogil:
    """How many bytes the instruction has; 0 if it is none or does not fit."""
    cdef uint32_t size = 1
    if room == 0:
        return 0
    if at[0] == PUSH_PROPERTY:
        size = 2 + at[1] if room >= 2 else 2
    elif at[0] == PUSH_TEXT or at[0] == IS_LIKE or at[0] == IS_AMONG:
        size = 3 + load_u16(at + 1) if room >= 3 else 3
    elif at[0] == PUSH_ATTRIBUTE:
        size = 2
    elif at[0] == PUSH_NUMBER:
        size = 9
    elif at[0] == JUMP_FALSE or at[0] == JUMP_TRUE:
        size = 3
    elif not (PUSH_FALSE <= at[0] <= PUSH_NULL or IS_EQUAL <= at[0] <= IS_AT_LEAST or PLUS <= at[0] <= NEGATED
              or BOTH <= at[0] <= INVERSE or at[0] == IS_NULL):
        return 0
    return size if size <= room else 0


cdef inline int step_change(uint8_t instruction, int* needs) noexcept nogil:
    """By how much an instruction changes the stack; needs: how many values it looks at."""
    if instruction < IS_EQUAL:
        needs[0] = 0
        return 1
    if instruction == NEGATED or instruction == INVERSE or instruction >= JUMP_FALSE:
        needs[0] = 1
        return 0
    needs[0] = 2
    return -1


cdef uint32_t item_size(const uint8_t* at, uint32_t room) noexcept nogil:
    """How many bytes an item of IS_AMONG has; 0 if it is none or does not fit."""
    cdef uint32_t size = 9
    if room < 3:
        return 0
    if at[0] == TEXT:
        size = 3 + load_u16(at + 1)
    elif at[0] != NUMBER:
        return 0
    return size if size <= room else 0


cdef bint items_valid(const uint8_t* at, uint32_t room) noexcept nogil:
    cdef uint32_t size
    while room:
        size = item_size(at, room)
        if size == 0:
            return False
        at += size
        room -= size
    return True


cdef bint sql_valid(const uint8_t* program, uint32_t size) noexcept nogil:
    cdef signed char wanted[4096]    # the depth that jumps to a byte arrive with, -1 if none does
    cdef uint32_t at = 0
    cdef uint32_t step, to
    cdef uint32_t jumps = 0
    cdef int depth = 0
    cdef int needs = 0
    cdef int change
    if size == 0 or size >= 4096:
        return False
    memset(wanted, -1, size + 1)
    while at < size:
        step = step_size(program + at, size - at)
        if step == 0 or (program[at] == IS_AMONG and not items_valid(program + at + 3, step - 3)):
            return False
        if wanted[at] >= 0:
            if wanted[at] != depth:
                return False
            jumps -= 1
        change = step_change(program[at], &needs)
        if depth < needs or depth + change > FILTER_STACK:
            return False
        depth += change
        if program[at] == JUMP_FALSE or program[at] == JUMP_TRUE:
            to = at + step + load_u16(program + at + 1)
            if to > size or (wanted[to] >= 0 and wanted[to] != depth):
                return False
            jumps += wanted[to] < 0
            wanted[to] = <signed char>depth
        at += step
    if wanted[size] >= 0:
        if wanted[size] != depth:
            return False
        jumps -= 1
    # A jump into the middle of an instruction was never arrived at.
    return jumps == 0 and depth == 1


cdef bint filter_open(const uint8_t* bytes_, uint32_t size, filter_t* out) noexcept nogil:
    """Look at a stored filter; False if it is none that may be run."""
    cdef const filter_head_t* head = <const filter_head_t*>bytes_
    cdef uint32_t at, index
    memset(out, 0, sizeof(filter_t))
    if size < sizeof(filter_head_t) or head.version != FILTER_VERSION \
            or head.program_size > size - sizeof(filter_head_t) \
            or head.source_size != size - sizeof(filter_head_t) - head.program_size:
        return False
    out.program = bytes_ + sizeof(filter_head_t)
    out.size = head.program_size
    if head.kind == FILTER_SQL:
        if not sql_valid(out.program, out.size):
            return False
    elif head.kind == FILTER_TAG or head.kind == FILTER_ROUTING:
        # u32 count; tags: count × u32 hash, rising; then count × {u16 size, bytes}
        if out.size < 4 or load_u32(out.program) > FILTER_TAGS:
            return False
        out.count = load_u32(out.program)
        at = 4 + (4 * out.count if head.kind == FILTER_TAG else 0)
        for index in range(out.count):
            if out.size < at or out.size - at < 2 or out.size - at - 2 < load_u16(out.program + at):
                return False
            at += 2 + load_u16(out.program + at)
        if at != out.size:
            return False
    else:
        return False
    out.kind = head.kind
    return True


cdef inline bint tag_maybe(const filter_t* filter, uint32_t tag) noexcept nogil:
    """Whether a tag's hash is one of the filter's."""
    cdef const uint8_t* at = filter.program + 4
    cdef uint32_t index
    for index in range(filter.count):
        if load_u32(at + 4 * index) == tag:
            return True
    return False


cdef bint tag_wanted(const filter_t* filter, const uint8_t* tag, uint32_t size) noexcept nogil:
    cdef const uint8_t* at = filter.program + 4 + 4 * filter.count
    cdef uint32_t index
    for index in range(filter.count):
        if load_u16(at) == size and memcmp(at + 2, tag, size) == 0:
            return True
        at += 2 + load_u16(at)
    return False


cdef inline uint32_t word_end(const uint8_t* text, uint32_t at, uint32_t size) noexcept nogil:
    while at < size and text[at] != c'.':
        at += 1
    return at


cdef bint routing_fits(asked_t* asked, const uint8_t* pattern, uint32_t room, const uint8_t* text,
                       uint32_t size) noexcept nogil:
    """Whether a routing key has a pattern's words; size 0 is no word. The last # is what is tried again."""
    cdef uint32_t p = 0
    cdef uint32_t t = 0
    cdef uint32_t again = 0
    cdef uint32_t mark = 0
    cdef uint32_t p_end, t_end, cost
    cdef bint some = False
    cdef bint fits
    # Both stand behind their end by one when there is no word left: an empty text has none, "a." has two.
    room += room > 0
    size += size > 0
    while t < size:
        t_end = word_end(text, t, size - 1)
        p_end = word_end(pattern, p, room - 1) if p < room else p
        cost = t_end - t + p_end - p + 1
        if asked.steps < cost:
            asked.steps = 0
            return False
        asked.steps -= cost
        if p < room and p_end == p + 1 and pattern[p] == PATTERN_ANY:
            p = p_end + 1
            again = p
            mark = t
            some = True
            continue
        fits = p < room and ((p_end == p + 1 and pattern[p] == PATTERN_ONE)
                             or (p_end - p == t_end - t and memcmp(pattern + p, text + t, t_end - t) == 0))
        if fits:
            p = p_end + 1
            t = t_end + 1
        elif some:
            mark = word_end(text, mark, size - 1) + 1
            t = mark
            p = again
        else:
            return False
    while p < room:
        p_end = word_end(pattern, p, room - 1)
        if p_end != p + 1 or pattern[p] != PATTERN_ANY:
            return False
        p = p_end + 1
    return True


cdef bint routing_wanted(const filter_t* filter, asked_t* asked) noexcept nogil:
    cdef uint16_t size = 0
    cdef const uint8_t* key = attribute_find(asked.ext, asked.ext_size, <uint8_t>ATTRIBUTE_ROUTING_KEY, &size)
    cdef const uint8_t* at = filter.program + 4
    cdef uint32_t index
    for index in range(filter.count):
        if routing_fits(asked, at + 2, load_u16(at), key, size if key != NULL else 0):
            return True
        at += 2 + load_u16(at)
    return False


cdef bint filter_wants(const filter_t* filter, const uint8_t* ext, uint32_t ext_size) noexcept nogil:
    """Whether the filter wants a message with these attributes."""
    cdef asked_t asked
    cdef uint16_t size = 0
    cdef const uint8_t* tag
    asked.ext = ext
    asked.ext_size = ext_size
    asked.steps = FILTER_STEPS
    if filter.kind == FILTER_TAG:
        tag = attribute_find(ext, ext_size, <uint8_t>ATTRIBUTE_TAG, &size)
        return tag != NULL and tag_wanted(filter, tag, size)
    if filter.kind == FILTER_ROUTING:
        return routing_wanted(filter, &asked)
    if filter.kind == FILTER_SQL:
        return sql_run(filter, &asked)
    return True
