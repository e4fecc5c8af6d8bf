# What each segment of the log is still needed for: the bytes of its records that something leads to (an entry of a
# queue's index, a message that is pending). A sealed segment with none is dead, and what is dead stays dead.
#
# Whoever makes a record findable calls live_add *before* it can be found; whoever gives it up calls live_take *after*
# it cannot be found any more. A PLACE counts twice: its own record in its segment, and the record with the body in
# that one's. All of it under the store lock, or alone in recovery.
#
# Invariants: 1. A count is never less than what is needed. 2. A holder of the lock who dies takes nothing with it: the
# journal has what each count was, and holds as long as the word whose change publishes the work still has its value.
# 3. A count that would fall below zero is wrong: its segment is KEPT for good.

cdef enum:
    LIVE_LEAF = 256             # segments in one page of the table

cdef uint32_t PLACED = 0xFFFFFFFF       # spare of the entry of a PLACE whose body is counted in that one's segment
cdef uint64_t KEPT = <uint64_t>1 << 63
cdef uint32_t COLD = 0x80000000         # its file is gone, and a cold file has what is needed of it

cdef struct live_t:
    uint64_t bytes              # of records that something leads to
    uint32_t dead               # the first checkpoint that knows it as dead; 0: it is not
    uint32_t end                # byte where its frames end, once it is sealed; | COLD

cdef struct reclaim_t:
    # A page of the arena, named in state.reclaim.
    uint32_t roots[16]          # table of segments: 4, 10, 10 and 8 bits of the number
    uint32_t dying              # slot + 1 of a deleted queue whose messages are not given up; chained through group
    uint32_t free_first, free_last      # pages of the arena: the list of index pages given back, oldest first
    uint32_t free_at, free_end          # where the oldest stands in the first, where the next goes in the last
    uint32_t configured         # 1: some queue has settings
    uint64_t recycled           # segments used again
    uint64_t removed            # segments unlinked

assert sizeof(live_t) == 16


cdef reclaim_t* reclaim_page(core_t* core) noexcept nogil:
    """What reclaiming keeps in the state; NULL if the disk is full."""
    cdef state_t* state = &core.control.state
    cdef uint32_t page
    if state.reclaim == 0:
        page = arena_take(core)
        if page == 0:
            return NULL
        store64(&state.reclaim, page)
    return <reclaim_t*>arena_page(core, <uint32_t>state.reclaim)


cdef live_t* live_entry(core_t* core, uint64_t number, bint make) noexcept nogil:
    """A segment's place in the table; NULL if there is none (or, to make it, no room)."""
    cdef reclaim_t* reclaim
    cdef uint32_t* slot
    cdef uint32_t page
    cdef int level
    if core.control.state.reclaim == 0 and not make:
        return NULL
    reclaim = reclaim_page(core)
    if reclaim == NULL or number >> 32:
        return NULL
    slot = &reclaim.roots[number >> 28]
    for level in range(3):
        page = load32(slot)
        if page == 0:
            if not make:
                return NULL
            page = arena_take(core)
            if page == 0:
                return NULL
            store32(slot, page)
        if level < 2:
            slot = <uint32_t*>arena_page(core, page) + (number >> (18 - 10 * level)) % 1024
    return <live_t*>arena_page(core, page) + number % LIVE_LEAF


cdef inline void journal_begin(core_t* core, uint64_t* word) noexcept nogil:
    """Counts change from now on; what changes them counts once this word of the control file does."""
    store64(&core.control.journal_count, 0)
    core.control.journal_word = <uint64_t>((<uint8_t*>word) - core.base)
    core.control.journal_value = word[0]


cdef inline void journal_end(core_t* core) noexcept nogil:
    store64(&core.control.journal_count, 0)


cdef void journal_note(core_t* core, live_t* live) noexcept nogil:
    """Note what a count is before it changes. With no room left, a death leaves the count too high."""
    cdef control_t* control = core.control
    cdef uint64_t count = control.journal_count
    cdef uint64_t at = <uint64_t>((<uint8_t*>live) - core.base)
    if count == JOURNAL or (count and control.journal[count - 1].at == at):
        return
    control.journal[count].at = at
    control.journal[count].bytes = live.bytes
    store64(&control.journal_count, count + 1)


cdef void journal_undo(core_t* core) noexcept nogil:
    """A holder of the store lock died: put the counts back if its work was not published."""
    cdef control_t* control = core.control
    cdef live_t* live
    cdef uint64_t at = control.journal_count
    if at and (<uint64_t*>(core.base + control.journal_word))[0] == control.journal_value:
        # The oldest note of a count is what it was.
        while at:
            at -= 1
            live = <live_t*>(core.base + control.journal[at].at)
            live.bytes = control.journal[at].bytes
            if live.bytes:
                live.dead = 0
    journal_end(core)


cdef void live_add(core_t* core, uint64_t position, uint64_t size) noexcept nogil:
    """Count a record of so many bytes as needed, before anything leads to it."""
    cdef live_t* live = live_entry(core, position >> 32, True)
    if live == NULL:
        # No room to count: nothing may be reclaimed any more, as what is needed is not known.
        core.control.state.uncounted = 1
        return
    journal_note(core, live)
    live.dead = 0
    if live.bytes < KEPT:
        store64(&live.bytes, live.bytes + size)
    if core.control.watching:
        watch_note(core, position)


cdef void live_die(core_t* core, live_t* live) noexcept nogil:
    live.dead = <uint32_t>core.control.state.checkpoints + 1
    add64(&core.control.deaths, 1)


cdef void live_keep(core_t* core, uint64_t number) noexcept nogil:
    """A segment turned out to be needed, or cannot be judged: keep it for good, and report it."""
    cdef live_t* live = live_entry(core, number, True)
    if live != NULL:
        store64(&live.bytes, KEPT)
        live.dead = 0
    add64(&core.control.corrupt, 1)


cdef void live_take(core_t* core, uint64_t position, uint64_t size) noexcept nogil:
    """Count a record of so many bytes as given up, after nothing leads to it any more."""
    cdef live_t* live = live_entry(core, position >> 32, False)
    if live == NULL or live.bytes >= KEPT:
        return
    journal_note(core, live)
    if live.bytes < size:
        # Not what was counted (a damaged index): the segment may hold anything.
        live_keep(core, position >> 32)
        return
    store64(&live.bytes, live.bytes - size)
    if live.bytes == 0 and live.end:
        live_die(core, live)


cdef bint live_holds(core_t* core, uint64_t position) noexcept nogil:
    """Whether a position lies in a segment that is needed: what is dead may be gone at any time."""
    cdef live_t* live = live_entry(core, position >> 32, False)
    return position >> 32 == core.control.segment or (live != NULL and live.bytes != 0)


cdef bint live_dead(core_t* core, uint64_t number) noexcept nogil:
    """Whether a segment is dead or gone; asked without a lock."""
    cdef live_t* live = live_entry(core, number, False)
    return live == NULL or load32(&live.dead) != 0 or (live.bytes == 0 and live.end == 0
                                                       and number < load64(&core.control.segment))


cdef bint live_room(core_t* core, uint64_t number) noexcept nogil:
    """Make a segment's place in the table before it is begun; False if the disk is full."""
    return live_entry(core, number, True) != NULL


cdef void live_seal(core_t* core, uint64_t number, uint64_t end) noexcept nogil:
    """Nothing more is written to a segment; end: the byte where its frames end."""
    cdef live_t* live = live_entry(core, number, True)
    if live == NULL:
        core.control.state.uncounted = 1
        return
    live.end = <uint32_t>max(end, <uint64_t>SEGMENT_HEADER_SIZE)
    if live.bytes == 0 and live.dead == 0:
        live_die(core, live)


cdef void live_drop(core_t* core, uint64_t number) noexcept nogil:
    """A segment is gone: forget it, and the page of the table if it was the last there. Under the store lock."""
    cdef live_t* live = live_entry(core, number, False)
    cdef live_t* leaf
    cdef uint32_t* slot
    cdef uint32_t page
    cdef int at
    if live == NULL:
        return
    memset(live, 0, sizeof(live_t))
    mortal(core)
    if number // LIVE_LEAF == core.control.segment // LIVE_LEAF:
        return
    leaf = live - number % LIVE_LEAF
    for at in range(LIVE_LEAF):
        if leaf[at].bytes or leaf[at].end:
            return
    slot = <uint32_t*>arena_page(core, reclaim_page(core).roots[number >> 28]) + (number >> 18) % 1024
    slot = <uint32_t*>arena_page(core, slot[0]) + (number >> 8) % 1024
    page = slot[0]
    store32(slot, 0)
    arena_give(core, page)


cdef uint64_t live_next(core_t* core, uint64_t number) noexcept nogil:
    """The first segment at or above number that the table knows; 0 if there is none up to the current one."""
    cdef live_t* live
    while number <= core.control.segment:
        live = live_entry(core, number, False)
        if live == NULL:
            number = (number // LIVE_LEAF + 1) * LIVE_LEAF
        elif live.bytes or live.end:
            return number
        else:
            number += 1
    return 0
