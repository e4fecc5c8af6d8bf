# Gates: which sends and receives a quota lets through. The cells are shared by all workers, so that a rate is one
# rate however many there are.

cdef extern from *:
    """
    #include <stdint.h>
    #include <time.h>
    static inline uint64_t now_ns(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    }
    static inline int cell_swap(uint64_t *at, uint64_t old, uint64_t fresh) {
        return __sync_bool_compare_and_swap(at, old, fresh);
    }
    static inline void cell_add(uint64_t *at, uint64_t more) { __sync_fetch_and_add(at, more); }
    static inline uint64_t cell_load(uint64_t *at) { return __atomic_load_n(at, __ATOMIC_RELAXED); }
    static inline void cell_store(uint64_t *at, uint64_t value) { __atomic_store_n(at, value, __ATOMIC_RELAXED); }
    """
    uint64_t now_ns() noexcept nogil
    int cell_swap(uint64_t*, uint64_t, uint64_t) noexcept nogil
    void cell_add(uint64_t*, uint64_t) noexcept nogil
    uint64_t cell_load(uint64_t*) noexcept nogil
    void cell_store(uint64_t*, uint64_t) noexcept nogil

cdef enum:
    ROOM_RETRY_MS = 500         # a full queue may have room after the next look at it
    LEASED_RETRY_MS = 50
    CONNECTIONS_RETRY_MS = 1000
    PROBES = 64

cdef struct cell_t:
    uint64_t name               # 0: free
    uint64_t value

cdef struct rule_t:
    # What one quota allows; a NULL cell is no limit. A rate's cell holds the time (ns) from which on it is open again:
    # each message moves it on by what it costs, and it is never further back than the burst.
    uint64_t* sends
    uint64_t* bytes_
    uint64_t* receives
    uint64_t* room_messages     # what is left, signed; told anew now and then by who counts
    uint64_t* room_bytes
    uint64_t* room_pending      # of messages that wait for their time or their verdict
    double send_ns, byte_ns, receive_ns
    uint64_t burst_ns
    uint32_t in_flight          # leased at most in each group; 0: no limit
    uint32_t connections        # 0: no limit
    uint32_t place              # where they are counted

cdef struct gate_t:
    uint32_t queue              # 0: free
    int32_t rules[2]            # the queue's own, its namespace's; -1: none

cdef struct keyed_t:
    uint64_t key                # the number of an access key; 0: free
    int32_t rule


cdef inline uint32_t rate_closed(uint64_t* cell, uint64_t now) noexcept nogil:
    """Milliseconds until the rate is open again, 0 if it is."""
    cdef uint64_t open_ = cell_load(cell) if cell != NULL else 0
    return 0 if open_ <= now else <uint32_t>min((open_ - now) // 1000000 + 1, <uint64_t>3600000)


cdef inline void rate_charge(uint64_t* cell, double cost_ns, uint64_t burst_ns, uint64_t now) noexcept nogil:
    cdef uint64_t old, start
    if cell == NULL:
        return
    while True:
        old = cell_load(cell)
        start = max(old, now - min(now, burst_ns))
        if cell_swap(cell, old, start + <uint64_t>cost_ns):
            return


@cython.final
cdef class Gates:
    """The gates of one worker.

    Invariants:
      1. count is 0 exactly when no quota applies to any queue or access key: then nobody looks further.
      2. Rules and gates are replaced in the loop's thread only, between two frames.
      3. A request is charged once, when it was staged or delivered; one that is refused costs nothing.
    """
    cdef object shared
    cdef cell_t* cells
    cdef uint32_t cell_count
    cdef rule_t* rules
    cdef gate_t* gates
    cdef keyed_t* keys
    cdef uint32_t mask, key_mask
    cdef object connected
    cdef tally_t tally
    cdef readonly uint32_t count
    cdef public uint64_t throttled

    def __init__(self, shared):
        """shared: a writable buffer, the same for all workers, zero at first."""
        cdef uint8_t[::1] view = shared
        self.shared = shared
        self.cells = <cell_t*>&view[0]
        self.cell_count = <uint32_t>(view.shape[0] // sizeof(cell_t))

    def __dealloc__(self):
        free(self.rules)
        free(self.gates)
        free(self.keys)

    def tell_connections(self, shared, uint32_t worker=0, uint32_t workers=1):
        """Count connections from now on. shared: a writable buffer with 4 bytes for each cell and worker."""
        cdef uint8_t[::1] view = shared
        if worker >= workers or <size_t>view.shape[0] < <size_t>workers * self.cell_count * sizeof(uint32_t):
            raise ValueError("there is no room for the connections of so many workers")
        self.connected = shared
        self.tally.places, self.tally.worker, self.tally.workers = self.cell_count, worker, workers
        self.tally.counts = <uint32_t*>&view[0]
        memset(tally_own(&self.tally, 0), 0, self.cell_count * sizeof(uint32_t))

    cdef uint64_t* cell(self, uint64_t name) except? NULL:
        """The value of the cell of that name, claimed if it is new. MemoryError if there is none left."""
        cdef uint32_t at = <uint32_t>(name % self.cell_count)
        cdef uint32_t step
        for step in range(PROBES):
            if cell_load(&self.cells[at].name) == name or cell_swap(&self.cells[at].name, 0, name):
                return &self.cells[at].value
            if cell_load(&self.cells[at].name) == name:
                return &self.cells[at].value
            at = at + 1 if at + 1 < self.cell_count else 0
        raise MemoryError("no cell is left for another quota")

    def replace(self, list rules, list members, list keys=[]):
        """Go by other rules from now on.

        rules: (cell name, messages/s, bytes/s, receives/s, burst in s, whether messages, bytes, what waits
        are bounded, in flight, connections), 0 for no limit; members: (queue, its rule or -1, its
        namespace's or -1); keys: (number of an access key, its rule).
        """
        cdef rule_t* fresh = <rule_t*>calloc(max(1, len(rules)), sizeof(rule_t))
        cdef uint32_t room = room_for(len(members))
        cdef uint32_t key_room = room_for(len(keys))
        cdef gate_t* table = <gate_t*>calloc(room, sizeof(gate_t))
        cdef keyed_t* key_table = <keyed_t*>calloc(key_room, sizeof(keyed_t))
        cdef uint32_t at
        try:
            if fresh is NULL or table is NULL or key_table is NULL:
                raise MemoryError
            for index, rule in enumerate(rules):
                self.fill(fresh + <int>index, rule)
        except BaseException:
            free(fresh)
            free(table)
            free(key_table)
            raise
        for queue, first, second in members:
            at = place_of(queue, room - 1)
            while table[at].queue:
                at = (at + 1) & (room - 1)
            table[at].queue = queue
            table[at].rules[0] = first
            table[at].rules[1] = second
        for key, only in keys:
            at = <uint32_t>(<uint64_t>key >> 32) & (key_room - 1)
            while key_table[at].key:
                at = (at + 1) & (key_room - 1)
            key_table[at].key = key
            key_table[at].rule = only
        free(self.rules)
        free(self.gates)
        free(self.keys)
        self.rules = fresh
        self.gates = table
        self.keys = key_table
        self.mask = room - 1
        self.key_mask = key_room - 1
        self.count = <uint32_t>(len(members) + len(keys))

    cdef int fill(self, rule_t* rule, given) except -1:
        cdef uint64_t name
        (name, sends, bytes_, receives, burst, messages_bounded, bytes_bounded, pending_bounded, in_flight,
         connections) = given
        rule.burst_ns = <uint64_t>(burst * 1e9)
        rule.in_flight = in_flight
        if sends:
            rule.sends = self.cell(name ^ 1)
            rule.send_ns = 1e9 / sends
        if bytes_:
            rule.bytes_ = self.cell(name ^ 2)
            rule.byte_ns = 1e9 / bytes_
        if receives:
            rule.receives = self.cell(name ^ 3)
            rule.receive_ns = 1e9 / receives
        if messages_bounded:
            rule.room_messages = self.cell(name ^ 4)
        if bytes_bounded:
            rule.room_bytes = self.cell(name ^ 5)
        if pending_bounded:
            rule.room_pending = self.cell(name ^ 6)
        if connections and self.tally.counts != NULL:
            rule.connections = min(connections, <uint32_t>-1)
            rule.place = <uint32_t>((<char*>self.cell(name ^ 7) - <char*>self.cells) // sizeof(cell_t))
        return 0

    def leave_room(self, uint64_t name, messages, bytes_, pending=None):
        """Tell all workers how much more may be sent under the quota of that cell; None where it is not bounded."""
        if messages is not None:
            cell_store(self.cell(name ^ 4), <uint64_t><int64_t>messages)
        if bytes_ is not None:
            cell_store(self.cell(name ^ 5), <uint64_t><int64_t>bytes_)
        if pending is not None:
            cell_store(self.cell(name ^ 6), <uint64_t><int64_t>pending)

    cdef int bound(self, uint32_t queue, uint64_t key, rule_t** rules) noexcept nogil:
        """The rules that bind a request: of its queue, that queue's namespace, its access key (0: none); how many."""
        cdef uint32_t at
        cdef int side
        cdef int count = 0
        if self.count == 0:
            return 0
        at = place_of(queue, self.mask)
        while self.gates[at].queue and self.gates[at].queue != queue:
            at = (at + 1) & self.mask
        for side in range(2 if self.gates[at].queue else 0):
            if self.gates[at].rules[side] >= 0:
                rules[count] = self.rules + self.gates[at].rules[side]
                count += 1
        if key:
            at = <uint32_t>(key >> 32) & self.key_mask
            while self.keys[at].key and self.keys[at].key != key:
                at = (at + 1) & self.key_mask
            if self.keys[at].key:
                rules[count] = self.rules + self.keys[at].rule
                count += 1
        return count

    cdef uint32_t outside(self, belongs_t* belongs, uint32_t queue) noexcept nogil:
        """0 if the connection counts under the quota of the queue's namespace, as it does from now on if that has one;
        else the milliseconds after which to try again."""
        cdef rule_t* rules[3]
        cdef int at
        for at in range(self.bound(queue, 0, rules)):
            if rules[at].connections and not tally_join(&self.tally, belongs, rules[at].place, rules[at].connections):
                return CONNECTIONS_RETRY_MS
        return 0

    cdef uint32_t send_closed(self, uint32_t queue, uint64_t key, bint waits, uint64_t now) noexcept nogil:
        """Milliseconds after which to try again, 0 if a send may pass. waits: for its time or its verdict."""
        cdef rule_t* rules[3]
        cdef uint32_t closed = 0
        cdef int at
        for at in range(self.bound(queue, key, rules)):
            closed = max(closed, self.rule_closed(rules[at], waits, now))
        return closed

    cdef uint32_t rule_closed(self, const rule_t* rule, bint waits, uint64_t now) noexcept nogil:
        if waits and rule.room_pending != NULL and <int64_t>cell_load(rule.room_pending) <= 0:
            return ROOM_RETRY_MS
        if rule.room_messages != NULL and <int64_t>cell_load(rule.room_messages) <= 0:
            return ROOM_RETRY_MS
        if rule.room_bytes != NULL and <int64_t>cell_load(rule.room_bytes) <= 0:
            return ROOM_RETRY_MS
        return max(rate_closed(rule.sends, now), rate_closed(rule.bytes_, now))

    cdef void send_charge(self, uint32_t queue, uint64_t key, uint32_t messages, uint64_t size, bint waits,
                          uint64_t now) noexcept nogil:
        cdef rule_t* rules[3]
        cdef rule_t* rule
        cdef int at
        for at in range(self.bound(queue, key, rules)):
            rule = rules[at]
            rate_charge(rule.sends, messages * rule.send_ns, rule.burst_ns, now)
            rate_charge(rule.bytes_, size * rule.byte_ns, rule.burst_ns, now)
            if rule.room_messages != NULL:
                cell_add(rule.room_messages, <uint64_t>-<int64_t>messages)
            if rule.room_bytes != NULL:
                cell_add(rule.room_bytes, <uint64_t>-<int64_t>size)
            if waits and rule.room_pending != NULL:
                cell_add(rule.room_pending, <uint64_t>-<int64_t>messages)

    cdef uint32_t receive_closed(self, Store store, uint32_t queue, uint32_t group, uint64_t key, uint32_t* most,
                                 uint64_t now) noexcept nogil:
        """As send_closed; most is lowered to what may be leased."""
        cdef rule_t* rules[3]
        cdef rule_t* rule
        cdef uint32_t leased, closed
        cdef int at
        for at in range(self.bound(queue, key, rules)):
            rule = rules[at]
            closed = rate_closed(rule.receives, now)
            if closed:
                return closed
            if rule.in_flight:
                leased = store.leased(queue, group)
                if leased >= rule.in_flight:
                    return LEASED_RETRY_MS
                most[0] = min(most[0], rule.in_flight - leased)
        return 0

    cdef void receive_charge(self, uint32_t queue, uint64_t key, uint32_t messages, uint64_t now) noexcept nogil:
        cdef rule_t* rules[3]
        cdef int at
        for at in range(self.bound(queue, key, rules)):
            rate_charge(rules[at].receives, messages * rules[at].receive_ns, rules[at].burst_ns, now)

    # The same for the doors that are written in Python.

    def admit(self, uint32_t queue, uint32_t messages, uint64_t size, now=None, *, bint waits=False, uint64_t key=0):
        """0 and the send is charged, or the milliseconds after which to try again.

        waits: the messages wait for their time or their verdict; key: the number of an access key; now: ns, for tests.
        """
        cdef uint64_t at = now_ns() if now is None else now
        cdef uint32_t closed = self.send_closed(queue, key, waits, at)
        if closed:
            self.throttled += 1
        else:
            self.send_charge(queue, key, messages, size, waits, at)
        return closed

    def may_receive(self, Store store, uint32_t queue, uint32_t group, uint32_t most, now=None, *, uint64_t key=0):
        """How many messages may be received now, and if none, the milliseconds after which to try again."""
        cdef uint32_t closed = self.receive_closed(store, queue, group, key, &most, now_ns() if now is None else now)
        if closed:
            return 0, closed
        return most, 0

    def received(self, uint32_t queue, uint32_t messages, now=None, *, uint64_t key=0):
        """So many were received."""
        self.receive_charge(queue, key, messages, now_ns() if now is None else now)


cdef inline uint32_t room_for(size_t count) noexcept nogil:
    """Places of a table that is at most half full: a power of two."""
    cdef uint32_t room = 8
    while room < 2 * count:
        room *= 2
    return room


cdef inline uint32_t place_of(uint32_t queue, uint32_t mask) noexcept nogil:
    return (queue * <uint32_t>2654435761) & mask
