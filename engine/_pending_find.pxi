# Finding what is pending by its id, the position of its record.
#
# Entries lie about as far apart as their records, so a place is guessed: first behind the one that was found last, for
# verdicts often come in the order of their messages; then, near by, by how far apart the records of the leaf are that
# the guess hit, and from afar by how far apart those of all the table are. Bisection where guessing does not help.

cdef enum:
    GUESSES = 8                 # before a search bisects

cdef double NEAR = 4 << 20      # bytes of the log


cdef inline double straight(core_t* core, uint64_t position) noexcept nogil:
    """A position on one line: segments one behind the other, without the room between their numbers."""
    return <double>(position >> 32) * core.segment_size + <double>(position & BYTE)


cdef uint64_t pending_guess(uint64_t from_, double distance, double step, uint64_t low, uint64_t high) noexcept nogil:
    """The number so many bytes from that of another, in [low, high)."""
    cdef double number = <double>from_ + distance / step
    if number <= <double>low:
        return low
    return high - 1 if number >= <double>(high - 1) else <uint64_t>number


cdef uint64_t pending_number(core_t* core, int at, uint64_t position) noexcept nogil:
    """The number in a table of the entry of the record at exactly this position, or NEVER."""
    cdef queue_t* table = pending_table(core, at)
    cdef uint64_t first = load64(&table.first)
    cdef uint64_t low = first
    cdef uint64_t high = load64(&table.next)
    cdef uint64_t middle, start, end
    cdef uint64_t near = 0
    cdef uint64_t recent = load64(&core.recent[at])
    cdef double here = straight(core, position)
    cdef double from_ = -1.0        # of the entry near; below 0: none was looked at
    cdef double bottom = -1.0       # of the entry before low, and top of that at high
    cdef double top = -1.0
    cdef double step = 0.0
    cdef int guesses = 0
    cdef pending_t* leaf
    while low < high:
        middle = low + (high - low) // 2
        if guesses == 0 and low <= recent < high:
            middle = recent
        elif guesses < GUESSES:
            if from_ >= 0 and step > 0 and -NEAR < here - from_ < NEAR:
                middle = pending_guess(near, here - from_, step, low, high)
            else:
                if bottom < 0:
                    bottom = straight(core, pending_entry(core, table, first).position)
                if top < 0:
                    top = straight(core, load64(&core.control.written)) + core.segment_size
                if bottom <= here <= top and bottom < top:
                    middle = pending_guess(low, here - bottom, (top - bottom) / <double>(high - low), low, high)
        guesses += 1
        start = max(low, middle // LEAF * LEAF)
        end = min(high, (middle // LEAF + 1) * LEAF)
        leaf = <pending_t*>index_leaf(core, table, middle)
        if leaf[middle % LEAF].position == position:
            return middle
        if position < leaf[start % LEAF].position:
            high = near = start
            from_ = top = straight(core, leaf[start % LEAF].position)
        elif position > leaf[(end - 1) % LEAF].position:
            low, near = end, end - 1
            from_ = bottom = straight(core, leaf[(end - 1) % LEAF].position)
        else:
            return leaf_search(leaf, start, end, position)
        step = 0.0
        if end - start > 1:
            step = (straight(core, leaf[(end - 1) % LEAF].position) - straight(core, leaf[start % LEAF].position)) \
                / <double>(end - 1 - start)
    return NEVER


cdef uint64_t leaf_search(pending_t* leaf, uint64_t low, uint64_t high, uint64_t position) noexcept nogil:
    """The same within [low, high) of one leaf."""
    cdef uint64_t middle
    while low < high:
        middle = low + (high - low) // 2
        if leaf[middle % LEAF].position == position:
            return middle
        if leaf[middle % LEAF].position < position:
            low = middle + 1
        else:
            high = middle
    return NEVER


cdef pending_t* pending_search(core_t* core, uint64_t position, uint64_t* hint) noexcept nogil:
    """The entry of the record at exactly this position, or NULL; hint: where it was found, see pending_hinted."""
    cdef uint64_t number
    cdef int at
    hint[0] = 0
    if core.control.state.pending == 0:
        return NULL
    for at in range(2):
        number = pending_number(core, at, position)
        if number != NEVER:
            store64(&core.recent[at], number + 1)
            hint[0] = number * 2 + at + 1
            return pending_entry(core, pending_table(core, at), number)
    return NULL


cdef pending_t* pending_follow(core_t* core, uint64_t id, uint64_t* hint) noexcept nogil:
    """As pending_find; and the hint."""
    cdef pending_t* entry
    cdef uint32_t hops
    hint[0] = 0
    for hops in range(MOVES + 257):
        if id == 0:
            return NULL
        entry = pending_search(core, id, hint)
        if entry == NULL or entry.verdict & 7 != MOVED:
            return entry
        id = entry.verdict & ~<uint64_t>7
    return NULL


cdef pending_t* pending_find(core_t* core, uint64_t id) noexcept nogil:
    """The entry that stands for an id now, decided or not; NULL if it is unknown or forgotten."""
    cdef uint64_t hint
    return pending_follow(core, id, &hint)


cdef pending_t* pending_hinted(core_t* core, uint64_t id, uint64_t hint) noexcept nogil:
    """The same, looked for first where it was seen without the lock. A hint is only ever believed if it is true."""
    cdef queue_t* table
    cdef pending_t* entry
    cdef uint64_t number
    if hint and core.control.state.pending:
        table = pending_table(core, (hint - 1) & 1)
        number = (hint - 1) // 2
        if table.first <= number < table.next:
            entry = pending_entry(core, table, number)
            if entry.position == id and entry.verdict & 7 != MOVED:
                return entry
    return pending_find(core, id)
