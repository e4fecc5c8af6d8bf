# Segments of the log: made ahead of need with all their bytes zero and on disk, written with pwrite, read through
# a map. A position is segment number << 32 | byte in the segment.

cdef enum:
    SEGMENT_HEADER = 4096
    MAPS = 512                  # more segments are mapped only while a pin is held

cdef extern from "format.h" nogil:
    uint64_t SEGMENT_MAGIC, CHECKPOINT_MAGIC
    uint32_t FRAME_MAGIC, SEGMENT_HEADER_SIZE, FORMAT_VERSION
    uint8_t RECORD_SEQUENCED, RECORD_ATTRIBUTED
    int RECORD_MESSAGE, RECORD_CONFIRM, RECORD_SEEK, RECORD_QUEUE, RECORD_QUEUE_DELETE
    int RECORD_GROUP, RECORD_TRIM, RECORD_LEASE, RECORD_SKIP, RECORD_PLACE, RECORD_GROUP_SETTINGS, RECORD_QUEUE_SETTINGS
    int RECORD_NOTE, RECORD_RELEASE, RECORD_GROUP_DELETE, RECORD_ADVANCE
    int RECORD_FANOUT, RECORD_PENDING, RECORD_CANCEL, RECORD_MOVE
    ctypedef struct origin_t:
        uint64_t position
        uint64_t offset
        uint32_t queue, group, generation, attempts
        uint16_t reason, text_size
        uint32_t spare
    int ATTRIBUTE_TAG, ATTRIBUTE_KEY, ATTRIBUTE_ID
    ctypedef struct attribute_t:
        uint8_t kind
        uint8_t name_size
        uint16_t value_size
    ctypedef struct recipient_t:
        uint64_t offset
        uint32_t queue
        uint32_t spare
    ctypedef struct segment_header_t:
        uint64_t magic
        uint32_t version
        uint32_t header_size
        uint8_t store[16]
        uint64_t number
        uint64_t salt
        uint64_t epoch
        uint64_t created_us
        uint64_t previous_end
        uint64_t size
        uint64_t check
    ctypedef struct frame_t:
        uint32_t magic
        uint32_t count
        uint64_t position
        uint64_t size
        uint64_t sequence
        uint64_t epoch
        uint64_t durable
        uint64_t chain
        uint64_t check
    ctypedef struct record_t:
        uint32_t body_size
        uint8_t type
        uint8_t flags
        uint16_t ext_size
        uint64_t position
        uint64_t offset
        uint32_t queue
        uint32_t spare
        uint64_t stored_us
        uint64_t check
    ctypedef struct entry_t:
        uint64_t position
        uint64_t stored_us
        uint32_t size
        uint32_t tag
        uint32_t key
        uint32_t spare
    uint64_t COLD_MAGIC
    ctypedef struct cold_header_t:
        uint64_t magic
        uint32_t version
        uint32_t sources
        uint8_t store[16]
        uint64_t number
        uint64_t checkpoint
        uint64_t created_us
        uint64_t records
        uint64_t first
        uint64_t size
        uint64_t table_check
        uint64_t check
    ctypedef struct cold_source_t:
        uint64_t number
        uint64_t salt
        uint64_t first
        uint64_t count
    ctypedef struct cold_row_t:
        uint32_t byte
        uint32_t size
        uint64_t at
    ctypedef struct checkpoint_t:
        uint64_t magic
        uint32_t version
        uint32_t clean
        uint64_t position
        uint64_t sequence
        uint64_t epoch
        uint64_t last_us
        uint64_t size
        uint64_t body_check
        uint8_t store[16]
        uint64_t check

cdef extern from *:
    """
    #include <sys/random.h>
    #include <stdio.h>
    #include <stdlib.h>
    static inline int random_fill(void *to, size_t size) { return getrandom(to, size, 0) == (ssize_t)size ? 0 : -1; }
    static inline int append_trace(int fd, const void *b, size_t n) { return write(fd, b, n) == (ssize_t)n ? 0 : -1; }
    """
    int random_fill(void*, size_t) nogil
    int append_trace(int, const void*, size_t) nogil
    int unlink(const char*) nogil


cdef int faulty(core_t* core, uint32_t kind) noexcept nogil:
    """For tests: the errno this call shall fail with, or 0."""
    if core.fault_kind != kind:
        return 0
    if core.fault_after:
        core.fault_after -= 1
        return 0
    return core.fault_errno


cdef int faulty_once(core_t* core, uint32_t kind) noexcept nogil:
    """For tests: the same, for one call."""
    cdef int failed = faulty(core, kind)
    if failed:
        core.fault_kind = 0
    return failed


cdef extern from "signal.h" nogil:
    int raise_signal "raise"(int)
    int SIGKILL


cdef void mortal(core_t* core) noexcept nogil:
    """For tests: a place at which a process may die."""
    if faulty(core, 5):
        raise_signal(SIGKILL)


cdef void trace(core_t* core, uint64_t kind, uint64_t position, const void* bytes, uint64_t size) noexcept nogil:
    """For tests: note what reached the file, so that crash images can be made of it."""
    cdef uint64_t head[3]
    if core.trace_fd < 0:
        return
    head[0] = kind
    head[1] = position
    head[2] = size
    append_trace(core.trace_fd, head, 24)
    if size:
        append_trace(core.trace_fd, bytes, size)


cdef void segment_path(core_t* core, uint64_t number, char* out, size_t room, bint fresh) noexcept nogil:
    snprintf(out, room, b"%s/log/%08llx.%s", core.path, <unsigned long long>number, b"new" if fresh else b"seg")


cdef enum:
    ZERO_PIECE = 1 << 18


cdef int zero_fill(core_t* core, int fd) noexcept nogil:
    """Zeros through the page cache, so that a commit finds its pages there. 0 or errno. Stops when somebody waits.

    Each piece is on its way to the disk before the next: a sync meanwhile waits for one piece, not for a queue of them.
    """
    cdef void* zeros = calloc(1, ZERO_PIECE)
    cdef uint64_t at = 0
    cdef uint64_t some
    cdef int failed = 0 if zeros != NULL else ENOSPC
    while failed == 0 and at < core.segment_size and not load32(&core.control.hurry):
        some = min(core.segment_size - at, <uint64_t>ZERO_PIECE)
        failed = write_all(fd, zeros, some, <int64_t>at)
        if failed == 0:
            failed = write_back(fd, <int64_t>at, <int64_t>some)
        at += some
        index_ahead(core)       # while this takes its time the index grows on
    free(zeros)
    return failed


cdef int segment_create(core_t* core, uint64_t number, bint zeroed) noexcept nogil:
    """Make a segment that reads as zeros and has all its blocks. 0 or errno; leaves nothing behind on failure.

    Zeroed, its blocks are written and on disk, which makes each later fdatasync cheaper; not zeroed they are only
    reserved, which is done at once. Zeroing stops when somebody waits for the segment.
    """
    cdef char fresh[4096]
    cdef char final[4096]
    cdef int failed = faulty(core, 3)
    cdef int fd
    if failed:
        return failed
    segment_path(core, number, fresh, 4096, True)
    segment_path(core, number, final, 4096, False)
    fd = c_open(fresh, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    if fd < 0:
        return errno
    failed = file_grow(fd, core.segment_size)
    if failed == 0 and zeroed:
        failed = zero_fill(core, fd)
    if failed == 0 and fsync(fd):
        failed = errno
    c_close(fd)
    if failed == 0 and rename(fresh, final):
        failed = errno
    if failed == 0 and fsync(core.directory_fd):
        failed = errno
    if failed:
        unlink(fresh)
    return failed


cdef int segment_prepare(core_t* core, uint64_t ahead, bint zeroed) noexcept nogil:
    """See to it that so many segments after the current one exist. 0 or errno."""
    cdef control_t* control = core.control
    cdef int failed = 0
    if not zeroed:
        store32(&control.hurry, 1)
    mutex_lock(&control.prepare_lock)
    if not zeroed:
        store32(&control.hurry, 0)
    while failed == 0 and load64(&control.prepared) < load64(&control.segment) + ahead:
        failed = segment_create(core, control.prepared + 1, zeroed)
        store32(&control.scarce, failed != 0)
        if failed == 0:
            store64(&control.prepared, control.prepared + 1)
            store32(&control.full, 0)
    pthread_mutex_unlock(&control.prepare_lock)
    return failed


cdef bint segment_prepared(core_t* core) noexcept nogil:
    if load64(&core.control.prepared) <= load64(&core.control.segment):
        if segment_prepare(core, 1, False):
            store32(&core.control.full, 1)
    return load64(&core.control.prepared) > load64(&core.control.segment)


cdef int segment_begin(core_t* core, uint64_t number, uint64_t previous_end) noexcept nogil:
    """Write the header of a prepared segment, durably, and make it the one written to. 0 or errno."""
    cdef uint8_t page[SEGMENT_HEADER]
    cdef segment_header_t* header = <segment_header_t*>page
    cdef char name[4096]
    cdef int fd, failed
    memset(page, 0, sizeof(page))
    header.magic = SEGMENT_MAGIC
    header.version = FORMAT_VERSION
    header.header_size = SEGMENT_HEADER_SIZE
    memcpy(header.store, core.id, 16)
    header.number = number
    if random_fill(&header.salt, 8):
        return EIO
    header.epoch = core.control.epoch
    header.created_us = clock_us()
    header.previous_end = previous_end
    header.size = core.segment_size
    header.check = xxh3(header, sizeof(segment_header_t) - 8, core.salt)
    segment_path(core, number, name, 4096, False)
    fd = c_open(name, O_RDWR | O_CLOEXEC, 0)
    if fd < 0:
        return errno
    failed = faulty(core, 1)
    if failed == 0:
        failed = write_all(fd, page, sizeof(page), 0)
        trace(core, 1, number << 32, header, sizeof(segment_header_t))
    if failed == 0:
        failed = faulty(core, 2)
        if failed == 0 and fdatasync(fd):
            failed = errno
        if failed == 0:
            trace(core, 2, number << 32, NULL, 0)
    c_close(fd)
    if failed == 0:
        core.control.salt = header.salt
        store64(&core.control.segment, number)
        store64(&core.control.written, number << 32 | SEGMENT_HEADER_SIZE)
    return failed


cdef int write_file(core_t* core) noexcept nogil:
    """The descriptor of the segment written to, opened at need; -1 on failure. Under the store lock."""
    cdef uint64_t number = load64(&core.control.segment)
    cdef char name[4096]
    cdef int fd
    if core.write_number != number or core.write_fd < 0:
        segment_path(core, number, name, 4096, False)
        fd = c_open(name, O_RDWR | O_CLOEXEC, 0)
        if fd < 0:
            return -1
        if core.write_fd >= 0:
            c_close(core.write_fd)
        core.write_fd = fd
        core.write_number = number
    return core.write_fd


cdef bint header_whole(core_t* core, const segment_header_t* header, uint64_t number) noexcept nogil:
    return (header.magic == SEGMENT_MAGIC and header.number == number and header.size == core.segment_size
            and header.check == xxh3(header, sizeof(segment_header_t) - 8, core.salt))


cdef bint segment_whole(core_t* core, uint64_t number) noexcept nogil:
    """Whether a segment's header is whole."""
    cdef char name[4096]
    cdef segment_header_t header
    cdef bint whole
    cdef int fd
    segment_path(core, number, name, 4096, False)
    fd = c_open(name, O_RDONLY | O_CLOEXEC, 0)
    if fd < 0:
        return False
    whole = pread(fd, &header, sizeof(header), 0) == sizeof(header) and header_whole(core, &header, number)
    c_close(fd)
    return whole


cdef const uint8_t* segment_map(core_t* core, uint64_t number, uint64_t* salt) noexcept nogil:
    """The mapped bytes of a segment, or NULL. The map stays at least while a pin is held."""
    cdef uint32_t at
    cdef char name[4096]
    cdef int fd
    cdef void* base
    cdef segment_header_t header
    cdef const uint8_t* found = NULL
    pthread_mutex_lock(&core.maps_lock)
    for at in range(core.map_count):
        if core.maps[at].number == number:
            found = core.maps[at].base
            salt[0] = core.maps[at].salt
            break
    # Locked before it is opened: from then on nobody uses the file for another segment.
    if found == NULL and number != core.going and byte_lock(core.maps_fd, F_RDLCK, 1 + number) == 0:
        segment_path(core, number, name, 4096, False)
        fd = c_open(name, O_RDONLY | O_CLOEXEC, 0)
        if fd >= 0:
            if pread(fd, &header, sizeof(header), 0) == sizeof(header) and header_whole(core, &header, number):
                base = mmap(NULL, core.segment_size, PROT_READ, MAP_SHARED, fd, 0)
                if base != MAP_FAILED:
                    found = <const uint8_t*>base
                    salt[0] = header.salt
                    maps_add(core, number, <uint8_t*>base, header.salt)
            c_close(fd)
        if found == NULL:
            byte_lock(core.maps_fd, F_UNLCK, 1 + number)
    pthread_mutex_unlock(&core.maps_lock)
    return found


cdef void maps_add(core_t* core, uint64_t number, uint8_t* base, uint64_t salt) noexcept nogil:
    """Remember a map. Under the maps' lock."""
    cdef mapped_t* wider
    if core.map_count == core.map_room:
        wider = <mapped_t*>realloc(core.maps, 2 * core.map_room * sizeof(mapped_t))
        if wider == NULL:
            return
        core.maps = wider
        core.map_room *= 2
    core.maps[core.map_count].number = number
    core.maps[core.map_count].base = base
    core.maps[core.map_count].salt = salt
    core.map_count += 1


cdef void map_close(core_t* core, mapped_t* mapped) noexcept nogil:
    munmap(mapped.base, core.segment_size)
    byte_lock(core.maps_fd, F_UNLCK, 1 + mapped.number)


cdef bint map_drop(core_t* core, uint64_t number) noexcept nogil:
    """Unmap a segment, unless somebody here may be reading it. Under the maps' lock."""
    cdef uint32_t at
    for at in range(core.map_count):
        if core.maps[at].number == number:
            if core.pins:
                return False
            map_close(core, core.maps + at)
            core.map_count -= 1
            core.maps[at] = core.maps[core.map_count]
            return True
    return True


cdef void maps_shed(core_t* core) noexcept nogil:
    """Unmap what is dead or was copied, so that it can be used again. Under the maps' lock, while nobody has a pin."""
    cdef uint64_t deaths = load64(&core.control.deaths)
    cdef uint32_t at = core.map_count
    while at:
        at -= 1
        if live_dead(core, core.maps[at].number) \
                or (core.control.cold and cold_search(core, core.maps[at].number, 0xFFFFFFFF) != NULL):
            map_drop(core, core.maps[at].number)
    core.deaths_seen = deaths


cdef void pin_take(core_t* core, uint64_t* pin) noexcept nogil:
    """Keep every map from now on; the oldest are given up here, while nobody holds a pin."""
    cdef uint32_t half, at
    pthread_mutex_lock(&core.maps_lock)
    pin[0] = 1
    if core.pins == 0 and core.map_count >= MAPS:
        half = core.map_count // 2
        for at in range(half):
            map_close(core, core.maps + at)
        core.map_count -= half
        memmove_maps(core.maps, core.maps + half, core.map_count * sizeof(mapped_t))
    if core.pins == 0 and core.deaths_seen != load64(&core.control.deaths):
        maps_shed(core)
    if core.pins == 0 and core.cold_gone:
        cold_shed(core)
    core.pins += 1
    pthread_mutex_unlock(&core.maps_lock)


cdef void pin_give(core_t* core) noexcept nogil:
    pthread_mutex_lock(&core.maps_lock)
    core.pins -= 1
    pthread_mutex_unlock(&core.maps_lock)


cdef extern from "string.h" nogil:
    void* memmove_maps "memmove"(void*, const void*, size_t)
