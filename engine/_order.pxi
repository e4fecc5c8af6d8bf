# Order in a group: the messages of one key stand in a line, and only the first of a line is delivered. A line is named
# by the key's hash in the index, so two keys may share one; strict order is one line for all. Whoever takes passes over
# what stands behind another (HELD) once and chains it to its line, so that nothing is looked at again for each take.
#
# Invariants: 1. A line there is has a first message that is LEASED, WAITING or READY; all others in it are HELD,
# chained in the order of offsets through their until_us. 2. A READY message with a key is the first of its line. 3. All
# of it is derived from the slots and the index: order_rebuild makes it anew after a death, at recovery and when in
# doubt. 4. A page is complete before it is linked, and unlinked before it is given back. Under the group's stripe lock.

cdef enum:
    ORDER_NONE = 0
    ORDER_KEY = 1
    ORDER_STRICT = 2
    LINES = 144                 # of a page; a full one holds newcomers back until a line of it ends
    LINES_WANTED = 64           # of a page on average: then one is split
    LINE_PAGES = 1016           # of directories, of 1024 pages each
    HELD_LIMIT = 1 << 20        # messages of a group that are passed over; beyond it the others wait as well
    PASSED_LIMIT = 1 << 16      # in one take

cdef enum:
    ORDER_FIRST = 0             # may be delivered
    ORDER_HELD = 1              # stands behind another, and was chained to it
    ORDER_STOP = 2              # must wait, and all that follow it

cdef struct line_t:
    uint64_t head
    uint64_t next               # the first that is HELD, NEVER if none is
    uint64_t tail

cdef struct lines_t:
    uint32_t count
    uint32_t spare
    uint32_t keys[144]
    line_t lines[144]

cdef struct order_t:
    # The page that group.order names; pages of u32 page numbers, of lines_t.
    uint32_t mode
    uint32_t pages              # linear hashing: so many, numbered from 0
    uint64_t lines
    uint64_t held
    uint32_t stale              # could not be made whole: nothing is delivered before that
    uint32_t spare
    uint32_t directories[1016]

assert sizeof(lines_t) <= PAGE and sizeof(order_t) <= PAGE


cdef inline order_t* order_of(core_t* core, const group_t* group) noexcept nogil:
    return <order_t*>arena_page(core, group.order)


cdef inline uint32_t order_key(core_t* core, const order_t* order, queue_t* queue, uint64_t offset) noexcept nogil:
    """The line a message stands in, 0 if in none."""
    if order.mode == ORDER_STRICT:
        return 1
    return index_leaf(core, queue, offset)[offset % LEAF].key


cdef inline uint32_t* lines_page(core_t* core, order_t* order, uint32_t at) noexcept nogil:
    """Where the number of a page of lines stands; its directory must be there."""
    return <uint32_t*>arena_page(core, order.directories[at // FAN]) + at % FAN


cdef lines_t* lines_for(core_t* core, order_t* order, uint32_t key) noexcept nogil:
    cdef uint32_t span = 1
    cdef uint32_t at
    if order.pages == 0:
        return NULL
    while span * 2 <= order.pages:
        span *= 2
    at = key & (2 * span - 1)
    if at >= order.pages:
        at &= span - 1
    return <lines_t*>arena_page(core, lines_page(core, order, at)[0])


cdef line_t* line_find(core_t* core, order_t* order, uint32_t key) noexcept nogil:
    cdef lines_t* page = lines_for(core, order, key)
    cdef uint32_t at
    if page != NULL:
        for at in range(page.count):
            if page.keys[at] == key:
                return page.lines + at
    return NULL


cdef void line_drop(core_t* core, order_t* order, uint32_t key) noexcept nogil:
    cdef lines_t* page = lines_for(core, order, key)
    cdef uint32_t at
    for at in range(page.count):
        if page.keys[at] == key:
            page.count -= 1
            page.keys[at] = page.keys[page.count]
            page.lines[at] = page.lines[page.count]
            order.lines -= 1
            return


cdef line_t* line_make(core_t* core, order_t* order, uint32_t key, uint64_t head) noexcept nogil:
    """A new line with its first message; NULL if there is no room."""
    cdef lines_t* page
    if order.lines >= order.pages * <uint64_t>LINES_WANTED:
        lines_split(core, order)
    page = lines_for(core, order, key)
    if page == NULL or page.count == LINES:
        return NULL
    page.keys[page.count] = key
    page.lines[page.count].head = head
    page.lines[page.count].next = NEVER
    page.lines[page.count].tail = head
    page.count += 1
    order.lines += 1
    return page.lines + page.count - 1


cdef void lines_split(core_t* core, order_t* order) noexcept nogil:
    """One page more: what belongs there moves out of the page it shares the lower bits with."""
    cdef uint32_t span = 1
    cdef uint32_t fresh, at, kept
    cdef lines_t* old
    cdef lines_t* page
    if order.pages == LINE_PAGES * FAN:
        return
    if order.directories[order.pages // FAN] == 0:
        fresh = arena_take(core)
        if fresh == 0:
            return
        store32(&order.directories[order.pages // FAN], fresh)
    fresh = arena_take(core)
    if fresh == 0:
        return
    store32(lines_page(core, order, order.pages), fresh)
    page = <lines_t*>arena_page(core, fresh)
    while span * 2 <= order.pages:
        span *= 2
    if order.pages:
        old = <lines_t*>arena_page(core, lines_page(core, order, order.pages - span)[0])
        kept = 0
        for at in range(old.count):
            if old.keys[at] & (2 * span - 1) == order.pages:
                page.keys[page.count] = old.keys[at]
                page.lines[page.count] = old.lines[at]
                page.count += 1
            else:
                old.keys[kept] = old.keys[at]
                old.lines[kept] = old.lines[at]
                kept += 1
        old.count = kept
    order.pages += 1


cdef void order_clear(core_t* core, order_t* order) noexcept nogil:
    """Forget all lines. Follows what is linked, so that it may come after a death anywhere."""
    cdef uint32_t directory, at, page
    cdef uint32_t* pages
    order.pages = 0
    order.lines = 0
    order.held = 0
    for directory in range(LINE_PAGES):
        if order.directories[directory] == 0:
            continue
        pages = <uint32_t*>arena_page(core, order.directories[directory])
        for at in range(FAN):
            page = pages[at]
            if page:
                store32(&pages[at], 0)
                arena_give(core, page)
        page = order.directories[directory]
        store32(&order.directories[directory], 0)
        arena_give(core, page)


cdef int order_admit(core_t* core, queue_t* queue, group_t* group, uint64_t offset, path_t* path) noexcept nogil:
    """What becomes of the message at the cursor, whose slot is FRESH."""
    cdef order_t* order = order_of(core, group)
    cdef uint32_t key = order_key(core, order, queue, offset)
    cdef line_t* line
    cdef path_t before
    if key == 0:
        return ORDER_FIRST
    line = line_find(core, order, key)
    if line == NULL:
        return ORDER_FIRST if line_make(core, order, key, offset) != NULL else ORDER_STOP
    if order.mode == ORDER_STRICT or order.held >= HELD_LIMIT:
        return ORDER_STOP
    if line.next == NEVER:
        line.next = offset
    else:
        if tree_find(core, group, line.tail, False, &before) != DONE or before.slot.state != HELD:
            order.stale = 1
            return ORDER_STOP
        before.slot.until_us = offset
    path.slot.until_us = NEVER
    path.slot.state = HELD
    line.tail = offset
    order.held += 1
    return ORDER_HELD


cdef bint order_whole(core_t* core, group_t* group) noexcept nogil:
    """Whether the lines can be believed; they are made anew if they could not be made before."""
    if order_of(core, group).stale:
        order_rebuild(core, group)
    return not order_of(core, group).stale


cdef bint order_first(core_t* core, queue_t* queue, group_t* group, uint64_t offset) noexcept nogil:
    """Whether a READY message is the first of its line. If not, the lines are wrong and are made anew."""
    cdef order_t* order = order_of(core, group)
    cdef uint32_t key = order_key(core, order, queue, offset)
    cdef line_t* line
    if key == 0:
        return True
    line = line_find(core, order, key)
    if line != NULL and line.head == offset:
        return True
    order_rebuild(core, group)
    return False


cdef bint order_done(core_t* core, group_t* group, uint64_t offset) noexcept nogil:
    """A message is confirmed, or out of the way: the next of its line is READY; whether there is one."""
    cdef order_t* order = order_of(core, group)
    cdef queue_t* queue = find_queue(core, group.queue)
    cdef uint32_t key
    cdef line_t* line
    cdef path_t path
    if queue == NULL:
        return False
    key = order_key(core, order, queue, offset)
    line = line_find(core, order, key) if key else NULL
    if line == NULL or line.head != offset:
        return False
    if line.next == NEVER:
        line_drop(core, order, key)
        return False
    if tree_find(core, group, line.next, False, &path) != DONE or path.slot.state != HELD:
        order_rebuild(core, group)
        return True
    line.head = line.next
    line.next = path.slot.until_us
    path.slot.state = READY
    path_ready(group, &path, 1)
    order.held -= 1
    return True


cdef uint64_t order_ahead(core_t* core, group_t* group, uint64_t offset) noexcept nogil:
    """Who is the first of the line that a message must wait in; NEVER if it need not."""
    cdef order_t* order = order_of(core, group)
    cdef queue_t* queue = find_queue(core, group.queue)
    cdef uint32_t key = order_key(core, order, queue, offset) if queue != NULL and offset < queue.next else 0
    cdef line_t* line = line_find(core, order, key) if key else NULL
    return line.head if line != NULL and line.head != offset else NEVER


cdef void order_leave(core_t* core, queue_t* queue, group_t* group, uint64_t offset) noexcept nogil:
    """The message that was just admitted is not taken after all: its line ends."""
    cdef order_t* order = order_of(core, group)
    cdef uint32_t key = order_key(core, order, queue, offset)
    if key:
        line_drop(core, order, key)


cdef void order_rebuild(core_t* core, group_t* group) noexcept nogil:
    """Make the lines anew from the slots and the index; without an order, let go what was HELD."""
    cdef order_t* order = order_of(core, group) if group.order else NULL
    cdef queue_t* queue = find_queue(core, group.queue)
    if order != NULL:
        order_clear(core, order)
        order.stale = 0
    if queue != NULL:
        order_walk(core, queue, group, &group.root, group.height, 0)
    sums_mend(core, &group.root, group.height)


cdef void order_walk(core_t* core, queue_t* queue, group_t* group, child_t* child, uint32_t height,
                     uint64_t base) noexcept nogil:
    cdef uint32_t at
    cdef slot_t* slot
    if child.page == 0 or child.page == FULL:
        return
    for at in range(CHILDREN if height else SLOTS):
        if height:
            order_walk(core, queue, group, <child_t*>arena_page(core, child.page) + at, height - 1,
                       base + at * tree_span(height - 1))
        else:
            slot = <slot_t*>arena_page(core, child.page) + at
            if slot.state != FRESH and slot.state != CONFIRMED:
                order_place(core, queue, group, slot, base + at)


cdef void order_place(core_t* core, queue_t* queue, group_t* group, slot_t* slot, uint64_t offset) noexcept nogil:
    """Give the message with the next higher offset its place while the lines are made; sums are made afterwards."""
    cdef order_t* order = order_of(core, group) if group.order else NULL
    cdef uint32_t key = order_key(core, order, queue, offset) if order != NULL and offset < queue.next else 0
    cdef line_t* line
    cdef path_t before
    line = line_find(core, order, key) if key else NULL
    if key == 0 or line == NULL:
        if key and line_make(core, order, key, offset) == NULL:
            order.stale = 1
            if slot.state != LEASED:
                slot.state = HELD
        elif slot.state == HELD:
            slot.state = READY
        return
    if slot.state == LEASED:
        return                  # delivered before the order was asked for
    slot.state = HELD
    slot.until_us = NEVER
    if line.next == NEVER:
        line.next = offset
    elif tree_find(core, group, line.tail, False, &before) == DONE:
        before.slot.until_us = offset
    line.tail = offset
    order.held += 1


cdef void order_set(core_t* core, group_t* group) noexcept nogil:
    """Take over the order that the group's settings ask for."""
    cdef uint32_t size = 0
    cdef const uint8_t* field = setting_find(core, group, SETTING_ORDER, &size)
    cdef uint32_t mode = field[0] if field != NULL and field[0] <= ORDER_STRICT else ORDER_NONE
    cdef uint32_t page = group.order
    cdef uint32_t had = order_of(core, group).mode if page else ORDER_NONE
    if mode == had:
        return
    if page:
        order_free(core, group)
    if mode:
        page = arena_take(core)
        if page == 0:
            return              # settings_room made sure of it
        (<order_t*>arena_page(core, page)).mode = mode
        store32(&group.order, page)
    # During replay the index is not complete; recovery makes the lines at its end.
    if mode == ORDER_NONE or load32(&core.control.ready):
        order_rebuild(core, group)


cdef void order_free(core_t* core, group_t* group) noexcept nogil:
    """Give an order's pages back."""
    cdef uint32_t page = group.order
    if page:
        order_clear(core, order_of(core, group))
        store32(&group.order, 0)
        arena_give(core, page)
