# Cold files: records of segments that are gone, each under the position it had. docs/format.md draws them.
#
# A process maps every cold file when it first needs one, and reads the folder again when control.cold has grown. A file
# is never changed, so its map needs no lock on the file. One that is gone stays mapped while a pin is held.

cdef extern from *:
    """
    #include <dirent.h>
    /* The next cold file's number in an open folder; 0 at the end. */
    static inline uint32_t cold_next(DIR *folder) {
        struct dirent *entry;
        while ((entry = readdir(folder)) != NULL) {
            char *end;
            unsigned long number = strtoul(entry->d_name, &end, 16);
            if (end == entry->d_name + 8 && strcmp(end, ".cold") == 0 && number) return (uint32_t)number;
        }
        return 0;
    }
    static inline int64_t file_bytes(int fd) {
        struct stat facts;
        return fstat(fd, &facts) ? -1 : (int64_t)facts.st_size;
    }
    """
    ctypedef struct DIR:
        pass
    DIR* opendir(const char*) nogil
    int closedir(DIR*) nogil
    uint32_t cold_next(DIR*) nogil
    int64_t file_bytes(int) nogil

cdef extern from "stdlib.h" nogil:
    void qsort(void*, size_t, size_t, int (*)(const void*, const void*) noexcept nogil)


cdef void cold_path(core_t* core, const char* name, uint32_t number, char* out, size_t room) noexcept nogil:
    """The path of a cold file, or of something else in their folder."""
    if number:
        snprintf(out, room, b"%s/cold/%08x.cold", core.path, number)
    else:
        snprintf(out, room, b"%s/cold/%s", core.path, name)


cdef void cold_begin(core_t* core) noexcept nogil:
    """Of a store that is opened alone: see whether there are cold files."""
    cdef uint32_t at
    core.control.cold = 1
    pthread_mutex_lock(&core.maps_lock)
    cold_reload(core)
    for at in range(core.cold_count):
        core.control.cold_number = max(core.control.cold_number, <uint64_t>core.cold_files[at].number)
    core.control.cold = core.cold_seen = 1 if core.cold_count else 0
    pthread_mutex_unlock(&core.maps_lock)


cdef void cold_reload(core_t* core) noexcept nogil:
    """Read the folder: map what is new, note what is gone. Under the maps' lock."""
    cdef uint64_t seen = load64(&core.control.cold)
    cdef char path[4096]
    cdef DIR* folder
    cdef uint32_t number, at
    cold_path(core, b"", 0, path, 4096)
    folder = opendir(path)
    for at in range(core.cold_count):
        core.cold_files[at].gone += 1
    while folder != NULL:
        number = cold_next(folder)
        if number == 0:
            closedir(folder)
            break
        for at in range(core.cold_count):
            if core.cold_files[at].number == number:
                core.cold_files[at].gone = 0
                break
        else:
            cold_map(core, number)
    cold_arrange(core)
    core.cold_seen = seen


cdef bint cold_whole(core_t* core, const cold_header_t* head, uint32_t number, uint64_t size) noexcept nogil:
    """Whether a cold file's header is whole, and its tables lie inside."""
    return (head.magic == COLD_MAGIC and head.version == FORMAT_VERSION and head.number == number
            and memcmp(head.store, core.id, 16) == 0 and head.size == size
            and head.check == xxh3(head, sizeof(cold_header_t) - 8, core.salt)
            and head.records <= size // sizeof(cold_row_t)
            and head.first == SEGMENT_HEADER_SIZE + head.sources * <uint64_t>sizeof(cold_source_t)
            + head.records * sizeof(cold_row_t) and head.first <= size)


cdef void cold_map(core_t* core, uint32_t number) noexcept nogil:
    """Map a cold file if it is whole. Under the maps' lock."""
    cdef char path[4096]
    cdef cold_header_t head
    cdef cold_file_t* wider
    cdef void* base = NULL
    cdef int fd
    cdef uint32_t room = max(2 * core.cold_room, <uint32_t>16)
    if core.cold_count == core.cold_room:
        wider = <cold_file_t*>realloc(core.cold_files, room * sizeof(cold_file_t))
        if wider == NULL:
            return
        core.cold_files = wider
        core.cold_room = room
    cold_path(core, NULL, number, path, 4096)
    fd = c_open(path, O_RDONLY | O_CLOEXEC, 0)
    if fd < 0:
        return                  # gone meanwhile
    if pread(fd, &head, sizeof(head), 0) == sizeof(head) and cold_whole(core, &head, number, file_bytes(fd)):
        base = mmap(NULL, head.size, PROT_READ, MAP_SHARED, fd, 0)
        if base == MAP_FAILED:
            base = NULL
    else:
        # Kept, and its records are reported when they are asked for.
        add64(&core.control.corrupt, 1)
    c_close(fd)
    if base != NULL:
        memset(core.cold_files + core.cold_count, 0, sizeof(cold_file_t))
        core.cold_files[core.cold_count].number = number
        core.cold_files[core.cold_count].base = <uint8_t*>base
        core.cold_files[core.cold_count].size = head.size
        core.cold_files[core.cold_count].checkpoint = head.checkpoint
        core.cold_count += 1


cdef int place_order(const void* one, const void* other) noexcept nogil:
    cdef const cold_place_t* a = <const cold_place_t*>one
    cdef const cold_place_t* b = <const cold_place_t*>other
    if a.number != b.number:
        return -1 if a.number < b.number else 1
    return (a.file < b.file) - (a.file > b.file)


cdef void cold_arrange(core_t* core) noexcept nogil:
    """Put the segments of all cold files in order. Under the maps' lock."""
    cdef uint64_t count = 0
    cdef uint32_t at, row
    cdef const cold_header_t* head
    cdef const cold_source_t* source
    cdef cold_place_t* place
    core.cold_gone = 0
    core.cold_place_count = 0
    for at in range(core.cold_count):
        core.cold_gone += core.cold_files[at].gone != 0
        count += (<const cold_header_t*>core.cold_files[at].base).sources
    free(core.cold_places)
    core.cold_places = <cold_place_t*>malloc((count + 1) * sizeof(cold_place_t))
    if core.cold_places == NULL:
        return
    for at in range(core.cold_count):
        if core.cold_files[at].gone:
            continue
        head = <const cold_header_t*>core.cold_files[at].base
        for row in range(head.sources):
            source = <const cold_source_t*>(core.cold_files[at].base + SEGMENT_HEADER_SIZE) + row
            if source.first > head.records or source.count > head.records - source.first:
                continue
            place = core.cold_places + core.cold_place_count
            place.number = source.number
            place.salt = source.salt
            place.base = core.cold_files[at].base
            place.size = head.size
            place.rows = SEGMENT_HEADER_SIZE + head.sources * <uint64_t>sizeof(cold_source_t) \
                + source.first * sizeof(cold_row_t)
            place.count = source.count
            place.file = core.cold_files[at].number
            core.cold_place_count += 1
    qsort(core.cold_places, core.cold_place_count, sizeof(cold_place_t), place_order)


cdef void cold_shed(core_t* core) noexcept nogil:
    """Unmap files that are gone. Under the maps' lock, while nobody holds a pin."""
    cdef uint32_t at = core.cold_count
    while at:
        at -= 1
        if core.cold_files[at].gone:
            munmap(core.cold_files[at].base, core.cold_files[at].size)
            core.cold_count -= 1
            core.cold_files[at] = core.cold_files[core.cold_count]
    core.cold_gone = 0


cdef bint cold_place(core_t* core, uint64_t number, uint32_t before, cold_place_t* out) noexcept nogil:
    """Where a segment stands in a cold file with a number below before, the newest of those."""
    cdef const cold_place_t* found
    pthread_mutex_lock(&core.maps_lock)
    found = cold_search(core, number, before)
    if found != NULL:
        out[0] = found[0]
    pthread_mutex_unlock(&core.maps_lock)
    return found != NULL


cdef const cold_place_t* cold_search(core_t* core, uint64_t number, uint32_t before) noexcept nogil:
    """The same under the maps' lock; NULL if there is none."""
    cdef uint32_t low = 0
    cdef uint32_t high, middle
    if core.cold_seen != load64(&core.control.cold):
        cold_reload(core)
    high = core.cold_place_count
    while low < high:
        middle = low + (high - low) // 2
        if core.cold_places[middle].number < number \
                or (core.cold_places[middle].number == number and core.cold_places[middle].file >= before):
            low = middle + 1
        else:
            high = middle
    if low < core.cold_place_count and core.cold_places[low].number == number:
        return core.cold_places + low
    return NULL


cdef struct cold_look_t:
    core_t* core
    uint64_t position
    cold_place_t place
    const record_t* record


cdef int cold_look(void* with_) noexcept nogil:
    """Find a position among the rows of its segment, and judge the record there."""
    cdef cold_look_t* look = <cold_look_t*>with_
    cdef const cold_row_t* rows = <const cold_row_t*>(look.place.base + look.place.rows)
    cdef uint32_t wanted = <uint32_t>(look.position & BYTE)
    cdef uint64_t low = 0
    cdef uint64_t high = look.place.count
    cdef uint64_t middle
    while low < high:
        middle = low + (high - low) // 2
        if rows[middle].byte < wanted:
            low = middle + 1
        else:
            high = middle
    if low == look.place.count or rows[low].byte != wanted:
        return ENDS
    if rows[low].at > look.place.size or rows[low].size > look.place.size - rows[low].at:
        return BROKEN
    look.record = <const record_t*>(look.place.base + rows[low].at)
    return record_judge(look.core, <const uint8_t*>look.record, rows[low].size, look.position, look.place.salt)


cdef const record_t* cold_record(core_t* core, uint64_t position) noexcept nogil:
    """The whole record that a cold file has for a position; NULL if there is none. Under a pin."""
    cdef cold_look_t look
    cdef uint32_t before = 0xFFFFFFFF
    look.core = core
    look.position = position
    while cold_place(core, position >> 32, before, &look.place):
        if guarded(cold_look, &look) == WHOLE:
            return look.record
        before = look.place.file
    return NULL


cdef bint cold_keeps(core_t* core, uint64_t position) noexcept nogil:
    """Whether a record stays: of a segment that was compacted, only what the newest cold file has does."""
    cdef cold_look_t look
    cdef uint64_t pin
    cdef bint keeps = True
    if core.control.cold == 0:
        return True
    look.core = core
    look.position = position
    pin_take(core, &pin)
    if cold_place(core, position >> 32, 0xFFFFFFFF, &look.place):
        keeps = guarded(cold_look, &look) != ENDS
    pin_give(core)
    return keeps
