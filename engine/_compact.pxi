# Compaction: what is needed of sparse segments is copied, in the order of queues, into a cold file; then their files
# are used again. Here the copy is written and gets its name.
#
# Invariants: 1. A cold file gets its name when all of it is on disk and nothing leads to what it left out, under the
# store lock; from then on nothing comes to lead there (cold_keeps). 2. What cannot be judged or explained stays where
# it is.

cdef enum:
    COPY_STEP = 1 << 20         # bytes written at once


cdef int by_position(const void* one, const void* other) noexcept nogil:
    cdef uint64_t a = (<const keep_t*>one).position
    cdef uint64_t b = (<const keep_t*>other).position
    return (a > b) - (a < b)


cdef int by_queue(const void* one, const void* other) noexcept nogil:
    cdef const keep_t* a = <const keep_t*>one
    cdef const keep_t* b = <const keep_t*>other
    if a.queue != b.queue:
        return -1 if a.queue < b.queue else 1
    if a.offset != b.offset:
        return -1 if a.offset < b.offset else 1
    return by_position(one, other)


cdef void compact_arrange(gather_t* gather) noexcept nogil:
    """Drop what is there twice or refused, learn each record's size, and give each its place in the file."""
    cdef core_t* core = gather.core
    cdef const record_t* record
    cdef origin_segment_t* segment
    cdef uint64_t at, pin, position
    cdef uint64_t kept = 0
    qsort(gather.keeps, gather.kept, sizeof(keep_t), by_position)
    for at in range(gather.kept):
        position = gather.keeps[at].position
        segment = gather_segment(gather, position >> 32)
        if segment == NULL or segment.refused or (kept and gather.keeps[kept - 1].position == position):
            continue
        pin_take(core, &pin)
        record = record_at(core, position)
        if record != NULL:
            gather.keeps[kept].position = position
            gather.keeps[kept].queue = record.queue
            gather.keeps[kept].offset = record.offset
            gather.keeps[kept].size = <uint32_t>record_size(record)
            kept += 1
        else:
            segment.refused = 2
        pin_give(core)
    gather.kept = 0
    for at in range(kept):
        if not gather_segment(gather, gather.keeps[at].position >> 32).refused:
            gather.keeps[gather.kept] = gather.keeps[at]
            gather.kept += 1
    qsort(gather.keeps, gather.kept, sizeof(keep_t), by_queue)
    gather.size = SEGMENT_HEADER_SIZE + segments_left(gather) * sizeof(cold_source_t) + gather.kept * sizeof(cold_row_t)
    for at in range(gather.kept):
        gather.keeps[at].at = gather.size
        gather.size += gather.keeps[at].size


cdef uint32_t segments_left(gather_t* gather) noexcept nogil:
    cdef uint32_t at
    cdef uint32_t left = 0
    for at in range(gather.count):
        left += gather.segments[at].refused == 0
    return left


cdef int compact_put(gather_t* gather, int fd, const void* bytes_, uint64_t size, uint64_t at) noexcept nogil:
    """Write a part of the new file, in time. On a full disk the reserve makes room. 0 or errno."""
    cdef char reserve[4096]
    cdef int failed = faulty(gather.core, 6) or faulty_once(gather.core, 7)
    if failed == 0:
        failed = write_all(fd, bytes_, size, at)
    if failed == ENOSPC:
        cold_path(gather.core, b"reserve", 0, reserve, 4096)
        if unlink(reserve) == 0:
            failed = write_all(fd, bytes_, size, at)
    trace(gather.core, 6, at, bytes_, size)
    rate_pause(gather, size)
    return EINTR if load32(&gather.core.closing) else failed


cdef int compact_tables(gather_t* gather, int fd, uint32_t number) noexcept nogil:
    """Write header, sources and rows. The keeps are left in the order of positions. 0 or errno."""
    cdef uint64_t room = gather.keeps[0].at - SEGMENT_HEADER_SIZE
    cdef uint8_t* tables
    cdef uint8_t page[SEGMENT_HEADER]
    cdef cold_header_t* head = <cold_header_t*>page
    cdef cold_source_t* source
    cdef cold_row_t* row
    cdef uint64_t at = 0
    cdef uint64_t number_of
    cdef int failed
    tables = <uint8_t*>calloc(1, room)
    if tables == NULL:
        return ENOMEM
    source = <cold_source_t*>tables
    row = <cold_row_t*>(source + segments_left(gather))
    memset(page, 0, sizeof(page))
    head.magic = COLD_MAGIC
    head.version = FORMAT_VERSION
    head.sources = segments_left(gather)
    memcpy(head.store, gather.core.id, 16)
    head.number = number
    head.checkpoint = gather.checkpoint
    head.created_us = clock_us()
    head.records = gather.kept
    head.first = SEGMENT_HEADER_SIZE + room
    head.size = gather.size
    qsort(gather.keeps, gather.kept, sizeof(keep_t), by_position)
    # A segment of which nothing was found has rows too: none.
    number_of = segment_after(gather, 0)
    while number_of:
        source.number = number_of
        source.salt = gather_segment(gather, number_of).salt
        source.first = at
        while at < gather.kept and gather.keeps[at].position >> 32 == number_of:
            row[at].byte = <uint32_t>(gather.keeps[at].position & BYTE)
            row[at].size = gather.keeps[at].size
            row[at].at = gather.keeps[at].at
            at += 1
        source.count = at - source.first
        source += 1
        number_of = segment_after(gather, number_of)
    head.table_check = xxh3(tables, room, gather.core.salt)
    head.check = xxh3(head, sizeof(cold_header_t) - 8, gather.core.salt)
    failed = compact_put(gather, fd, page, sizeof(page), 0)
    if failed == 0:
        failed = compact_put(gather, fd, tables, room, SEGMENT_HEADER_SIZE)
    free(tables)
    return failed


cdef uint64_t segment_after(gather_t* gather, uint64_t number) noexcept nogil:
    """The segment with the lowest number above, of those that are not refused; 0 if there is none."""
    cdef uint64_t found = 0
    cdef uint32_t at
    for at in range(gather.count):
        if gather.segments[at].refused == 0 and gather.segments[at].number > number \
                and (found == 0 or gather.segments[at].number < found):
            found = gather.segments[at].number
    return found


cdef int compact_records(gather_t* gather, int fd) noexcept nogil:
    """Copy the records, each judged once more, a step at a time. 0 or errno."""
    cdef core_t* core = gather.core
    cdef uint64_t room = COPY_STEP
    cdef uint64_t start, at = 0
    cdef uint64_t filled, pin
    cdef const record_t* record
    cdef uint8_t* buffer
    cdef int failed = 0
    for start in range(gather.kept):
        room = max(room, <uint64_t>gather.keeps[start].size)
    buffer = <uint8_t*>malloc(room)
    if buffer == NULL:
        return ENOMEM
    while at < gather.kept and failed == 0:
        start = gather.keeps[at].at
        filled = 0
        pin_take(core, &pin)
        while at < gather.kept and gather.keeps[at].size <= room - filled:
            record = record_at(core, gather.keeps[at].position)
            if record == NULL or record_size(record) != gather.keeps[at].size:
                failed = EIO
                break
            memcpy(buffer + filled, record, gather.keeps[at].size)
            filled += gather.keeps[at].size
            at += 1
        pin_give(core)
        if failed == 0:
            failed = compact_put(gather, fd, buffer, filled, start)
            sync_behind(fd, start, filled)
    free(buffer)
    return failed


cdef extern from *:
    """
    static inline void sync_behind(int fd, uint64_t at, uint64_t size) {
        sync_file_range(fd, (off_t)at, (off_t)size, SYNC_FILE_RANGE_WRITE);
    }
    """
    void sync_behind(int, uint64_t, uint64_t) nogil
    int folder_make "mkdir"(const char*, unsigned int) nogil


cdef int cold_folder(core_t* core) noexcept nogil:
    """Open the folder of cold files, made if there is none; -errno."""
    cdef char path[4096]
    cdef int fd, failed = 0
    cold_path(core, b"", 0, path, 4096)
    fd = c_open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
    if fd < 0 and errno == ENOENT:
        if folder_make(path, 0o755):
            return -errno
        fd = c_open(core.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
        if fd < 0:
            return -errno
        failed = fsync(fd)
        c_close(fd)
        if failed:
            return -EIO
        fd = c_open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0)
    return fd if fd >= 0 else -errno


cdef int compact_write(gather_t* gather, uint32_t number) noexcept nogil:
    """Write the cold file, put it on disk, then give it its name. 0 or errno, EAGAIN if it is of no use any more."""
    cdef core_t* core = gather.core
    cdef char fresh[4096]
    cdef int folder = cold_folder(core)
    cdef int fd, failed
    if folder < 0:
        return -folder
    cold_path(core, b"new", 0, fresh, 4096)
    fd = c_open(fresh, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
    failed = errno if fd < 0 else 0
    if failed == 0:
        failed = compact_records(gather, fd)
    if failed == 0:
        failed = compact_tables(gather, fd, number)
    mortal(core)
    if failed == 0 and fsync(fd):
        failed = errno
    if failed == 0:
        trace(core, 7, number, NULL, 0)
    descriptor_close(&fd)
    mortal(core)
    if failed == 0:
        failed = compact_publish(gather, number, fresh)
    mortal(core)
    if failed:
        unlink(fresh)
    elif fsync(folder):
        failed = errno          # whoever retires what was copied tries again
    else:
        trace(core, 9, 0, NULL, 0)
    c_close(folder)
    return failed


cdef int compact_publish(gather_t* gather, uint32_t number, const char* fresh) noexcept nogil:
    """Give the file its name, unless something new leads to what it left out. 0, errno or EAGAIN."""
    cdef control_t* control = gather.core.control
    cdef char final[4096]
    cdef keep_t wanted
    cdef uint32_t at
    cdef int failed = 0
    cold_path(gather.core, NULL, number, final, 4096)
    store_lock(gather.core)
    if control.noted > NOTED or control.watching != gather.count:
        failed = EAGAIN
    for at in range(min(control.noted, <uint32_t>NOTED)):
        wanted.position = control.notes_at[at]
        if not gather_segment(gather, wanted.position >> 32).refused \
                and bsearch(&wanted, gather.keeps, gather.kept, sizeof(keep_t), by_position) == NULL:
            failed = EAGAIN
    if failed == 0:
        # Who takes the lock from us if we die here looks into the folder anew.
        store64(&control.cold_naming, 1)
        if rename(fresh, final):
            failed = errno
        else:
            trace(gather.core, 8, number, NULL, 0)
            mortal(gather.core)
            store64(&control.cold, control.cold + 1)
            add64(&control.deaths, 1)       # who has mapped what was copied lets go of it
        store64(&control.cold_naming, 0)
    store32(&control.watching, 0)
    pthread_mutex_unlock(&control.store_lock)
    return failed


cdef extern from "stdlib.h" nogil:
    void* bsearch(const void*, const void*, size_t, size_t, int (*)(const void*, const void*) noexcept nogil)


cdef int compact(gather_t* gather) noexcept nogil:
    """Copy what is needed of the segments chosen. 0, errno, or EAGAIN if nothing came of it. Under the cold lock."""
    cdef core_t* core = gather.core
    cdef control_t* control = core.control
    cdef uint32_t number, at
    cdef int failed = 0
    watch_begin(gather)
    gather_walk(gather)
    if not gather.failed and not gather_explained(gather):
        gather_places(gather)
    if not watch_mark(gather):
        failed = EAGAIN
    if failed == 0:
        compact_arrange(gather)
        failed = <int>gather.failed
    for at in range(gather.count):
        if gather.segments[at].refused == 2:
            store_lock(core)
            live_keep(core, gather.segments[at].number)
            pthread_mutex_unlock(&control.store_lock)
    if failed == 0 and (gather.kept == 0 or load32(&core.closing)):
        failed = EAGAIN
    if failed == 0:
        control.cold_number += 1
        number = <uint32_t>control.cold_number
        failed = compact_write(gather, number)
    store32(&control.watching, 0)
    return failed
