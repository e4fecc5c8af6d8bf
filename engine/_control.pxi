# Shared memory: one mapped file "control" with the marks, the locks and the state of the store, and one mapped
# file "index". All processes that have the store open see the same bytes. Nothing here is trusted after an
# exclusive open: recovery makes it anew from the checkpoint and the log.

cdef extern from "os.h" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass
    ctypedef unsigned long pthread_t
    int pthread_mutex_init(pthread_mutex_t*, void*)
    int pthread_mutex_lock(pthread_mutex_t*)
    int pthread_mutex_unlock(pthread_mutex_t*)
    uint64_t load64(const uint64_t*)
    void store64(uint64_t*, uint64_t)
    uint32_t load32(const uint32_t*)
    void store32(uint32_t*, uint32_t)
    void store8(uint8_t*, uint8_t)
    uint32_t add32(uint32_t*, int)
    uint32_t swap32(uint32_t*, uint32_t)
    uint64_t add64(uint64_t*, int64_t)
    void futex_wait(uint32_t*, uint32_t, int64_t)
    void futex_wait_either(uint32_t*, uint32_t, uint32_t*, uint32_t, int64_t)
    void futex_wake(uint32_t*)
    void futex_wake_one(uint32_t*)
    int mutex_shared_init(pthread_mutex_t*)
    int mutex_lock(pthread_mutex_t*)
    int mutex_try(pthread_mutex_t*)
    uint64_t clock_us()
    uint64_t clock_tick_us()
    void guard_install()
    int guarded(int (*call)(void*) noexcept nogil, void* with_)
    bint readable(const void*)
    uint64_t monotonic_us()
    int file_lock(int fd, int kind, int wait)
    int byte_lock(int fd, int kind, uint64_t byte)
    int write_all(int fd, const void* bytes, size_t size, int64_t at)
    int file_grow(int fd, int64_t size)
    int write_back(int fd, int64_t at, int64_t size)
    void nap_us(uint32_t us)
    uint64_t siphash(const uint64_t* key, const uint64_t* words, int count)
    int F_RDLCK, F_WRLCK, F_UNLCK
    void* mmap(void*, size_t, int, int, int, int64_t)
    int munmap(void*, size_t)
    int c_open "open"(const char*, int, int)
    int c_close "close"(int)
    int fdatasync(int)
    int fsync(int)
    int rename(const char*, const char*)
    int64_t pread(int, void*, size_t, int64_t)
    int ftruncate(int, int64_t)
    int PROT_READ, PROT_WRITE, MAP_SHARED, MAP_NORESERVE
    int O_RDONLY, O_RDWR, O_CREAT, O_TRUNC, O_CLOEXEC, O_DIRECTORY, O_EXCL
    void* MAP_FAILED

cdef enum:
    PAGE = 4096
    QUEUES = 131072             # slots; a queue's id is generation << 17 | slot
    QUEUE_BITS = 17
    GROUPS = 262144             # slots; a group's id is generation << 18 | slot
    GROUP_BITS = 18
    PRODUCERS = 16384
    STRIPES = 64
    NAME_SIZE = 128
    NAME_BUCKETS = 524288      # u32 each: queues and groups in one table
    SYNCS = 2                   # fdatasyncs that may run at once
    COMMIT_BEGINS = SYNCS       # beside their slots: places where a test may hold a thread
    SYNC_FAILED = SYNCS + 1
    JOURNAL = 1024              # counts that one holder of the store lock may change and have put back

cdef enum:
    RELEASED = 2

cdef enum:
    CONTROL_VERSION = 5
    CONTROL_CLOSED = 2          # of ready: the last one out closed the store
    HEADER_BYTES = 65536

cdef struct child_t:
    # One subtree of the delivery state of a group.
    uint32_t page               # 0: nothing there; FULL: everything confirmed
    uint32_t done               # leaf: confirmed slots; node: full children
    uint64_t ready              # messages that may be taken at once
    uint64_t due                # no lease or delay in it ends before this; NEVER
    uint64_t waiting            # leased or delayed

cdef struct queue_t:
    uint32_t id                 # 0: the slot is free
    uint32_t generation
    uint64_t defined            # position of the record that made it
    uint64_t next               # offset of the next message
    uint64_t first              # messages below were purged
    uint64_t last_us
    uint64_t created_us
    uint64_t bytes
    uint64_t tree               # of the index: height << 32 | root page, one word so that readers need no lock
    uint32_t leaf               # the page of the last leaf
    uint32_t group              # the queue's own group
    uint32_t name_size
    char name[128]
    uint32_t settings           # page of the arena, 0 none
    uint64_t reclaimed          # messages below were given up: what they took is counted as free; <= first
    uint64_t spared             # those from here on were purged, and are kept until then all the same
    uint64_t spared_until       # µs since 1970; 0: none
    uint64_t waiting            # messages for it that wait for their time or their verdict; counted anew by recovery

cdef struct group_t:
    uint32_t id
    uint32_t generation         # changes with each seek: older confirmations no longer count
    uint32_t slot_generation
    uint32_t queue
    uint64_t defined
    uint64_t floor              # all below are confirmed
    uint64_t cursor             # none from here on was ever taken
    child_t root
    uint32_t height
    uint32_t nonce
    uint32_t name_size
    char name[128]
    uint32_t settings[4]        # pages of the arena: filter, order, retry policy, one to come; 0 none
    uint64_t suspects           # below: maybe in flight when the store crashed, so each delivery is recorded
    uint8_t frozen              # a record that changes what is taken is on its way: nothing new is taken until then
    uint8_t behind              # the last take stopped for the time it took, not because there was no more
    uint16_t seeking            # low bits of the sequence of the frame that has its last SEEK
    uint32_t order              # page of the arena with its lines; 0: unordered
    uint64_t sought             # position of the last SEEK, which says what was before; 0 none

cdef struct producer_t:
    uint64_t id
    uint64_t last
    uint64_t used_us
    uint32_t ring[8]            # arena pages with the last sequence numbers, made when first needed

cdef struct state_t:
    # The image a checkpoint saves, with the tables and the arena behind it.
    uint64_t queue_slots        # used at some time
    uint64_t group_slots
    uint64_t queue_live
    uint64_t group_live
    uint64_t producer_slots
    uint64_t arena_pages        # handed out at some time, page 0 never
    uint64_t arena_free         # list of freed pages
    uint64_t index_pages
    uint64_t queue_free         # slot + 1 of a deleted queue, chained through group
    uint64_t group_free         # slot + 1 of a removed group, chained through queue
    uint64_t notes              # page of the table of notes
    uint64_t reclaim            # page of the arena with what reclaiming keeps, 0 before the first
    uint64_t index_taken        # index pages used again
    uint64_t uncounted          # 1: something needed was not counted, so that nothing may be reclaimed
    uint64_t pending            # page of the arena with the tables of what is pending, 0 before the first
    uint64_t spare[15]
    uint64_t checkpoints        # taken so far: the number of the one that has this image
    uint64_t index_freed        # index pages ever given back

cdef struct noted_t:
    uint64_t at                 # byte of the control file
    uint64_t bytes

cdef struct control_t:
    uint64_t magic
    uint32_t version
    uint32_t ready              # 1 once recovery finished, 2 when the last one closed the store
    uint8_t boot[16]            # of the kernel whose memory this is
    uint64_t epoch
    uint64_t written            # position after the last written frame
    uint64_t durable            # position after the last frame known to be on disk
    uint64_t sequence           # of the next frame
    uint64_t coming_position    # written once the frame under way is published, and the sequence number then
    uint64_t coming_sequence
    uint32_t no_checkpoint      # the index could not be put on disk: its next sync proves nothing
    uint64_t last_us
    uint64_t segment            # number of the segment written to
    uint64_t prepared           # number of the last segment that exists
    uint32_t hurry              # a commit waits for a segment: zero no further
    uint32_t poisoned
    uint32_t full
    uint32_t scarce             # a segment could not be made: the last one is for confirmations and purges
    uint32_t durable_word       # futex: durable grew
    uint32_t durable_waiters
    uint32_t arrival_word       # futex: grows like durable_word, woken only if receivers wait
    uint32_t receivers          # processes or threads waiting on arrival_word
    uint32_t common_word        # grows before arrival_word does, where that may concern any group
    uint32_t freed_count        # where it concerns one: how often
    uint64_t freed[64]          # the last of them: number << 32 | group
    uint32_t inside             # the store lock's holder: 1 assigns and writes, 2 applies the frame it wrote
    uint64_t last_frame
    uint64_t checkpoint         # position of the last checkpoint
    uint64_t tables_allocated[4]
    uint64_t index_allocated
    uint64_t frames
    uint64_t fsyncs
    uint64_t bytes_written
    uint64_t corrupt
    uint64_t messages
    uint64_t salt               # of the segment written to
    uint64_t kept               # number of the oldest checkpoint that is kept, 0 not known
    uint64_t kept_position      # the log from here on is replayed when it is used
    uint64_t index_reusable     # index pages given back before it was taken
    uint64_t journal_word       # byte of the word that publishes what the journal's counts belong to
    uint64_t journal_value      # what it was
    uint64_t journal_count
    noted_t journal[1024]
    uint64_t deaths             # segments that became dead
    uint64_t trims              # purges and deletions applied so far
    uint64_t trims_seen         # of them, those whose messages were given up
    uint64_t cold               # grows when cold files come or go; 0: there never was one
    uint64_t cold_number        # of the newest
    uint64_t cold_naming        # 1 while the holder of the store lock gives one its name
    uint32_t watching           # segments that are being compacted: who leads something new to a record there notes it
    uint32_t noted
    uint64_t watched[64]
    uint64_t notes_at[1024]
    pthread_mutex_t cold_lock
    pthread_mutex_t reclaim_lock
    uint32_t due_word           # futex: something falls due earlier than was known
    uint64_t due_next           # when the timekeeper wakes by itself
    uint64_t keeper             # the timekeeper's token, and when it was last at work (monotonic)
    uint64_t keeper_us
    uint64_t clock_ahead_us     # for tests: added to the clock
    pthread_mutex_t due_lock
    pthread_mutex_t store_lock
    pthread_mutex_t sync_locks[SYNCS]
    uint64_t sync_marks[SYNCS]  # what the sync under way there proves when it succeeds
    uint32_t syncing[SYNCS]     # 1 while one is under way, and for good after one that failed
    pthread_mutex_t arena_lock
    pthread_mutex_t prepare_lock
    pthread_mutex_t checkpoint_lock
    pthread_mutex_t notes_lock
    pthread_mutex_t stripes[64]
    state_t state

cdef struct cold_file_t:
    # A cold file, mapped.
    uint32_t number
    uint32_t gone
    uint8_t* base
    uint64_t size
    uint64_t checkpoint

cdef struct cold_place_t:
    # One segment in one cold file.
    uint64_t number
    uint64_t salt
    const uint8_t* base
    uint64_t size
    uint64_t rows               # byte of the first of its rows
    uint64_t count
    uint32_t file               # number of the cold file
    uint32_t spare

cdef enum:
    WATCHED = 64                # segments that are compacted at once
    NOTED = 1024                # records in them that something new led to meanwhile

cdef struct mapped_t:
    uint64_t number
    uint8_t* base
    uint64_t salt

cdef struct core_t:
    # One process's view of an open store.
    control_t* control
    uint8_t* base               # of the control map
    queue_t* queues
    group_t* groups
    producer_t* producers
    uint32_t* names
    uint8_t* arena
    uint8_t* chunks[1024]       # of the index, mapped when they are first needed
    uint64_t index_mapped       # up to here they are
    uint64_t index_used, index_ahead    # bytes that pages were taken of when last looked, and that were put into memory
    int control_fd, index_fd, lock_fd, directory_fd
    uint64_t segment_size
    uint64_t salt               # of the store: seeds the hash of a body
    uint64_t key[2]             # of the receipts
    uint8_t id[16]
    char path[3072]
    pthread_mutex_t maps_lock
    mapped_t* maps
    uint32_t map_count, map_room
    uint64_t spares             # segments that are to stand ready
    uint64_t pins
    int maps_fd                 # LOCK once more: byte 1 + number is held, shared, for each segment that is mapped
    cold_file_t* cold_files
    cold_place_t* cold_places   # where each segment stands in them: ascending, of one segment the newest first
    uint32_t cold_count, cold_room, cold_place_count
    uint32_t cold_gone          # maps of files that are no more, kept while somebody may read them
    uint64_t cold_seen          # control.cold when the folder was last read
    uint64_t cold_settled       # control.cold when the folder was last put on disk
    uint64_t going              # the segment that this process is taking away, which nobody may map
    uint64_t deaths_seen        # when maps of dead segments were last dropped
    int write_fd
    uint64_t write_number
    int sync_fds[SYNCS]
    uint64_t sync_number        # the segment that sync_fds are of
    uint32_t closed             # 1 in a child after a fork, RELEASED when it was closed
    uint32_t closing
    uint32_t users              # calls that are inside
    uint32_t rested             # futex: the maintenance thread shall look at once
    uint64_t rested_written     # what it has seen
    uint64_t rested_deaths
    uint32_t fault_kind         # for tests: 1 pwrite, 2 fdatasync, 3 segment creation, 5 death, 6 write-back
    int fault_errno
    uint64_t fault_after
    uint32_t held[SYNCS + 2]    # for tests: who comes to that place waits
    int trace_fd                # for tests: every pwrite and fdatasync of the log, -1 none
    void* wheel                 # the timekeeper's, NULL in other processes
    uint64_t recent[2]          # behind what was found last in each table of what is pending

cdef uint64_t BYTE = 0xFFFFFFFF     # of a position: the byte in its segment
cdef uint64_t NEVER = 0xFFFFFFFFFFFFFFFF
cdef uint32_t FULL = 0xFFFFFFFF
cdef uint64_t CONTROL_MAGIC = 0x314c525453544e50
cdef uint64_t QUEUES_AT = HEADER_BYTES
cdef uint64_t GROUPS_AT = QUEUES_AT + QUEUES * <uint64_t>256
cdef uint64_t PRODUCERS_AT = GROUPS_AT + GROUPS * <uint64_t>256
cdef uint64_t NAMES_AT = PRODUCERS_AT + PRODUCERS * <uint64_t>64
cdef uint64_t ARENA_AT = NAMES_AT + NAME_BUCKETS * <uint64_t>4
cdef uint64_t CONTROL_ROOM = <uint64_t>16 << 30     # virtual, not memory
cdef uint64_t INDEX_ROOM = <uint64_t>1 << 40

assert sizeof(queue_t) <= 256 and sizeof(group_t) <= 256 and sizeof(control_t) <= HEADER_BYTES
assert sizeof(child_t) == 32 and sizeof(producer_t) <= 64 and sizeof(state_t) == 256


cdef inline uint64_t store_clock(core_t* core) noexcept nogil:
    """µs since 1970, the same for all processes; a test sets it ahead or back."""
    return clock_us() + load64(&core.control.clock_ahead_us)


cdef queue_t* queue_slot(core_t* core, uint32_t slot) noexcept nogil:
    return <queue_t*>(core.base + QUEUES_AT + slot * <uint64_t>256)


cdef group_t* group_slot(core_t* core, uint32_t slot) noexcept nogil:
    return <group_t*>(core.base + GROUPS_AT + slot * <uint64_t>256)


cdef producer_t* producer_slot(core_t* core, uint32_t slot) noexcept nogil:
    return <producer_t*>(core.base + PRODUCERS_AT + slot * <uint64_t>64)


cdef queue_t* find_queue(core_t* core, uint32_t id) noexcept nogil:
    """The live queue of this id, or NULL."""
    cdef queue_t* queue = queue_slot(core, id & (QUEUES - 1))
    if (id & (QUEUES - 1)) >= load64(&core.control.state.queue_slots) or queue.id != id or id == 0:
        return NULL
    return queue


cdef group_t* find_group(core_t* core, uint32_t id) noexcept nogil:
    """The live group of this id, or NULL."""
    cdef group_t* group = group_slot(core, id & (GROUPS - 1))
    if (id & (GROUPS - 1)) >= load64(&core.control.state.group_slots) or group.id != id or id == 0:
        return NULL
    return group


cdef pthread_mutex_t* stripe(core_t* core, uint32_t group) noexcept nogil:
    return &core.control.stripes[group % STRIPES]


cdef int reach(core_t* core, int table, uint64_t end) noexcept nogil:
    """Make the table's bytes up to end backed by disk blocks, so that a store to them cannot fault. 0 or errno.

    table: 0 queues, 1 groups, 2 producers and names, 3 arena; end counts from the start of the control file.
    """
    cdef uint64_t step = 1 << 20
    cdef int failed
    if end <= core.control.tables_allocated[table]:
        return 0
    end = (end + step - 1) // step * step
    failed = file_grow_range(core.control_fd, core.control.tables_allocated[table], end)
    if failed == 0:
        core.control.tables_allocated[table] = end
    return failed


cdef extern from *:
    """
    static inline int file_grow_range(int fd, uint64_t from, uint64_t end) {
        int failed;
        do failed = fallocate(fd, 0, (off_t)from, (off_t)(end - from)) ? errno : 0; while (failed == EINTR);
        return failed;
    }
    """
    int file_grow_range(int fd, uint64_t start, uint64_t end) nogil


cdef uint8_t* arena_page(core_t* core, uint32_t page) noexcept nogil:
    return core.arena + <uint64_t>page * PAGE


cdef uint32_t arena_take(core_t* core) noexcept nogil:
    """A zeroed page, or 0 when the disk is full."""
    cdef state_t* state = &core.control.state
    cdef uint32_t page
    mutex_lock(&core.control.arena_lock)
    page = <uint32_t>state.arena_free
    if page:
        # A holder who died between these lines leaks one page until the next recovery.
        state.arena_free = (<uint32_t*>arena_page(core, page))[0]
    elif reach(core, 3, ARENA_AT + (state.arena_pages + 2) * PAGE) == 0:
        state.arena_pages += 1
        page = <uint32_t>state.arena_pages
    pthread_mutex_unlock(&core.control.arena_lock)
    if page:
        memset(arena_page(core, page), 0, PAGE)
    return page


cdef void arena_give(core_t* core, uint32_t page) noexcept nogil:
    mutex_lock(&core.control.arena_lock)
    (<uint32_t*>arena_page(core, page))[0] = <uint32_t>core.control.state.arena_free
    core.control.state.arena_free = page
    pthread_mutex_unlock(&core.control.arena_lock)


# Names: open addressing; a bucket holds 0, GONE, a queue's slot + 1, or a group's slot + 1 with bit 31 set.
cdef uint32_t GONE = 0x7FFFFFFF
cdef uint32_t OF_GROUP = 0x80000000


cdef uint32_t name_bucket(core_t* core, uint32_t queue, const char* name, uint32_t size) noexcept nogil:
    return <uint32_t>(xxh3(name, size, queue) & (NAME_BUCKETS - 1))


cdef uint32_t name_find(core_t* core, uint32_t queue, const char* name, uint32_t size, uint32_t* bucket) noexcept nogil:
    """The id of a queue (queue = 0) or of a group of that queue; 0 when there is none."""
    cdef uint32_t at = name_bucket(core, queue, name, size)
    cdef uint32_t held, looks
    cdef queue_t* found
    cdef group_t* group
    for looks in range(NAME_BUCKETS):
        held = load32(&core.names[at])
        if held == 0:
            return 0
        if held != GONE:
            if queue == 0 and not held & OF_GROUP:
                found = queue_slot(core, held - 1)
                if found.id and found.name_size == size and memcmp(found.name, name, size) == 0:
                    bucket[0] = at
                    return found.id
            elif queue and held & OF_GROUP:
                group = group_slot(core, (held & ~OF_GROUP) - 1)
                if group.queue == queue and group.id and group.name_size == size \
                        and memcmp(group.name, name, size) == 0:
                    bucket[0] = at
                    return group.id
        at = (at + 1) & (NAME_BUCKETS - 1)
    return 0


cdef void name_put(core_t* core, uint32_t queue, const char* name, uint32_t size, uint32_t held) noexcept nogil:
    cdef uint32_t at = name_bucket(core, queue, name, size)
    while core.names[at] != 0 and core.names[at] != GONE:
        at = (at + 1) & (NAME_BUCKETS - 1)
    store32(&core.names[at], held)
