# Settings of a group: what GROUP_SETTINGS records put together. A record's body is a list of fields {u8 field, u8 0,
# u16 size, bytes}; it replaces the fields that it names and no others, a field of size 0 removes it. Each field lies in
# a page of the arena, which the group's slot names.
#
# Invariants: 1. A page is complete before the slot names it, and no longer named before it is given back: a death in
# between leaks a page, never shares one. 2. A page's position is that of the record it came from, so that applying a
# record twice does no harm. All of it under the group's stripe lock; readers too.

cdef enum:
    SETTINGS = 4                # fields there may be, numbered from 1
    SETTING_FILTER = 1
    SETTING_ORDER = 2
    SETTING_RETRY = 3
    SETTING_SIZE = 4080         # bytes of one field: what a page has room for

cdef struct field_t:
    uint8_t field
    uint8_t zero
    uint16_t size

cdef struct setting_t:
    uint64_t position
    uint16_t size
    uint16_t spare[3]


cdef const uint8_t* setting_find(core_t* core, const group_t* group, int field, uint32_t* size) noexcept nogil:
    """The bytes of a group's field and their number; NULL if it is not set. Under the stripe lock."""
    cdef const setting_t* setting
    if group.settings[field - 1] == 0:
        return NULL
    setting = <const setting_t*>arena_page(core, group.settings[field - 1])
    size[0] = setting.size
    return <const uint8_t*>(setting + 1)


cdef uint64_t setting_generation(core_t* core, const group_t* group, int field) noexcept nogil:
    """The position of the record that set a field, 0 if it is not set. Under the stripe lock."""
    if group.settings[field - 1] == 0:
        return 0
    return (<const setting_t*>arena_page(core, group.settings[field - 1])).position


cdef bint settings_fit(const uint8_t* body, uint64_t size) noexcept nogil:
    """Whether bytes are a list of known fields."""
    cdef const field_t* head
    cdef filter_t filter
    while size:
        head = <const field_t*>body
        if size < sizeof(field_t) or head.field < 1 or head.field > SETTINGS or head.zero \
                or head.size > SETTING_SIZE or head.size > size - sizeof(field_t):
            return False
        if head.field == SETTING_FILTER and head.size \
                and not filter_open(body + sizeof(field_t), head.size, &filter):
            return False
        body += sizeof(field_t) + head.size
        size -= sizeof(field_t) + head.size
    return True


cdef void setting_put(core_t* core, group_t* group, int field, const uint8_t* bytes_, uint16_t size,
                      uint64_t position) noexcept nogil:
    """Set a field, or remove it if size is 0."""
    cdef uint32_t old = group.settings[field - 1]
    cdef uint32_t page = 0
    cdef setting_t* setting
    if old and (<setting_t*>arena_page(core, old)).position >= position:
        return
    if size:
        page = arena_take(core)
        if page == 0:
            return              # settings_room made sure of it
        setting = <setting_t*>arena_page(core, page)
        setting.position = position
        setting.size = size
        memcpy(setting + 1, bytes_, size)
    store32(&group.settings[field - 1], page)
    if old:
        arena_give(core, old)


cdef bint settings_room(core_t* core) noexcept nogil:
    """Whether the arena can hold another record's fields. Under the store lock."""
    cdef int failed
    mutex_lock(&core.control.arena_lock)
    failed = reach(core, 3, ARENA_AT + (core.control.state.arena_pages + 2 + 16 * SETTINGS) * PAGE)
    pthread_mutex_unlock(&core.control.arena_lock)
    return failed == 0


cdef void settings_apply(core_t* core, const record_t* record) noexcept nogil:
    """Apply a GROUP_SETTINGS record."""
    cdef group_t* group = find_group(core, record.spare)
    cdef const uint8_t* body = record_body(record)
    cdef uint64_t left = record.body_size
    cdef const field_t* head
    if group == NULL:
        return
    stripe_lock(core, group)
    group.frozen = 0
    if not settings_fit(body, left):
        left = 0
    while left:
        head = <const field_t*>body
        setting_put(core, group, head.field, body + sizeof(field_t), head.size, record.position)
        body += sizeof(field_t) + head.size
        left -= sizeof(field_t) + head.size
    order_set(core, group)
    stripe_unlock(core, group)


cdef bint names_filter(const record_t* record) noexcept nogil:
    """Whether a GROUP_SETTINGS record that fits sets or removes the filter."""
    cdef const uint8_t* body = record_body(record)
    cdef uint64_t left = record.body_size
    if not settings_fit(body, left):
        return False
    while left:
        if (<const field_t*>body).field == SETTING_FILTER:
            return True
        left -= sizeof(field_t) + (<const field_t*>body).size
        body += sizeof(field_t) + (<const field_t*>body).size
    return False


cdef void settings_free(core_t* core, group_t* group) noexcept nogil:
    """Give a group's pages back."""
    cdef int field
    cdef uint32_t page
    order_free(core, group)
    for field in range(SETTINGS):
        page = group.settings[field]
        if page:
            store32(&group.settings[field], 0)
            arena_give(core, page)
