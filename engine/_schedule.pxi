# The engine's words for what is pending: list, cancel, move, commit, roll back, check.

cdef enum:
    LISTED = 10000              # at most in one answer

cdef extern from "format.h":
    int ATTRIBUTE_PRODUCER_GROUP

cdef uint64_t LAST_US = <uint64_t>1 << 57       # the wheel's horizon: some 4,500 years


cdef extern from *:
    """
    /* A heap of the first `room` timers found so far, the last of them on top. */
    typedef struct { unsigned long long due, number; } heap_timer;
    static inline int timer_after(const heap_timer *a, const heap_timer *b) {
        return a->due != b->due ? a->due > b->due : a->number > b->number;
    }
    static unsigned long long heap_keep(void *items, unsigned long long count, unsigned long long room,
                                        unsigned long long due, unsigned long long number) {
        heap_timer *heap = (heap_timer *)items, one = {due, number};
        unsigned long long at, child;
        if (count < room) {
            for (at = count++; at && timer_after(&one, &heap[(at - 1) / 2]); at = (at - 1) / 2)
                heap[at] = heap[(at - 1) / 2];
        } else {
            if (!timer_after(&heap[0], &one)) return count;
            for (at = 0; (child = 2 * at + 1) < count; at = child) {
                if (child + 1 < count && timer_after(&heap[child + 1], &heap[child])) child++;
                if (!timer_after(&heap[child], &one)) break;
                heap[at] = heap[child];
            }
        }
        heap[at] = one;
        return count;
    }
    """
    uint64_t heap_keep(void*, uint64_t, uint64_t, uint64_t, uint64_t) nogil


cdef struct due_wanted_t:
    uint32_t queue              # 0: any
    uint8_t kind                # 0: any
    uint64_t low_us, high_us    # due in [low, high)
    uint64_t after_us, after    # and behind this one: a time, a position
    const uint32_t* producers   # hashes of groups of producers, one of which must be its; NULL: any
    uint32_t producer_count


cdef uint64_t pending_scan(core_t* core, int at, const due_wanted_t* wanted, timer_t* found, uint64_t count,
                           uint64_t room) noexcept nogil:
    """Keep the first open entries of a table that are wanted in the heap found; how many there are."""
    cdef queue_t* table = pending_table(core, at)
    cdef uint64_t number, end, stop
    cdef pending_t* leaf
    cdef pending_t* entry
    if table == NULL or table.bytes == 0:
        return count            # none is open
    number = load64(&table.first)
    end = visible_end(core, table)
    while number < end:
        leaf = <pending_t*>index_leaf(core, table, number)
        stop = min(end, (number // LEAF + 1) * LEAF)
        while number < stop:
            entry = leaf + number % LEAF
            number += 1
            if entry.verdict == OPEN and wanted.low_us <= entry.due_us < wanted.high_us and entry.position \
                    and (wanted.queue == 0 or wanted.queue == entry.queue) \
                    and (wanted.kind == 0 or wanted.kind == pending_kind(entry)) \
                    and (entry.due_us > wanted.after_us
                         or (entry.due_us == wanted.after_us and entry.position > wanted.after)) \
                    and find_queue(core, entry.queue) != NULL \
                    and (wanted.producers == NULL or produced_by(core, entry, wanted)):
                count = heap_keep(found, count, room, entry.due_us, entry.position)
    return count


cdef bint produced_by(core_t* core, const pending_t* entry, const due_wanted_t* wanted) noexcept nogil:
    """Whether the producers of a half are one of the groups that are wanted. Under a pin."""
    cdef const record_t* record = NULL
    cdef uint32_t at, hashed
    if pending_body(core, entry, &record) == 0:
        return False
    hashed = attribute_hash(record, ATTRIBUTE_PRODUCER_GROUP)
    for at in range(wanted.producer_count):
        if wanted.producers[at] == hashed:
            return True
    return False


cdef class PendingMessages:
    """Delayed messages and halves of a store: what is in the log and in no queue yet."""
    cdef Store store

    def __len__(self):
        """How many wait, delayed ones and halves."""
        cdef core_t* core = live(self.store)
        cdef queue_t* table = pending_table(core, 0)
        return 0 if table == NULL else table.bytes + pending_table(core, 1).bytes

    def list(self, Queue queue=None, *, uint64_t low_us=0, uint64_t high_us=LAST_US, uint32_t limit=1000, after=None,
             str state=None, producer_groups=None):
        """What falls due in [low_us, high_us), as Pending objects in the order of due_us, at most limit of them.

        after: the last one of the answer before. state: only what is "delayed", a "half" or "committed".
        producer_groups: only halves that one of these groups prepared (names that hash alike are not told apart).
        Only what is on disk is listed. It reads through all that is pending: 1e7 take some 0.1 s.
        """
        cdef core_t* core = enter(self.store)
        cdef due_wanted_t wanted
        cdef uint64_t count = 0
        cdef uint32_t room = min(max(limit, <uint32_t>1), <uint32_t>LISTED)
        cdef bint delayed = state != "half"
        cdef bint halves = state is None or state == "half"
        cdef timer_t* found = <timer_t*>malloc(room * sizeof(timer_t))
        cdef const uint32_t[::1] hashes = np.array([hash32(one) for one in producer_groups or [""]], np.uint32)
        cdef uint64_t pin
        try:
            if state is not None and state not in WAITS:
                raise InvalidError(f"state is one of {', '.join(WAITS)}, not {state!r}")
            if found == NULL:
                raise MemoryError()
            memset(&wanted, 0, sizeof(wanted))
            wanted.queue = queue.id if queue is not None else 0
            wanted.kind = WAITS.index(state) + DELAYED if state is not None else 0
            wanted.low_us, wanted.high_us = low_us, high_us
            if after is not None:
                wanted.after_us, wanted.after = after.due_us, after.position
            if producer_groups is not None:
                wanted.producers, wanted.producer_count = &hashes[0], <uint32_t>len(producer_groups)
            pin_take(core, &pin)
            with nogil:
                if delayed:
                    count = pending_scan(core, 0, &wanted, found, count, room)
                if halves:
                    count = pending_scan(core, 1, &wanted, found, count, room)
                timers_sort(found, count)
            pin_give(core)
            return [one for at in range(count) if (one := pending_shown(core, found[at].number)) is not None]
        finally:
            free(found)
            leave(core)

    def get(self, uint64_t id):
        """The Pending of an id, or None if it waits no more."""
        cdef core_t* core = live(self.store)
        cdef pending_t* entry = pending_find(core, id)
        return None if entry == NULL or entry.verdict != OPEN else pending_shown(core, entry.position)

    def read(self, uint64_t id):
        """A pending message's (body, ext, whether ext is attributes), copied. Raises PendingNotFoundError."""
        cdef core_t* core = enter(self.store)
        cdef pending_t* entry
        cdef const record_t* record = NULL
        cdef uint64_t pin
        pin_take(core, &pin)
        try:
            entry = pending_find(core, id)
            if entry == NULL:
                raise PendingNotFoundError(f"no message {id:x} is pending")
            if pending_body(core, entry, &record) == 0:
                raise CorruptionError(f"the pending message {id:x}: stored bytes are not what was written")
            return ((<const char*>record_body(record))[:record.body_size],
                    (<const char*>record_ext(record))[:record.ext_size],
                    bool(record.flags & RECORD_ATTRIBUTED))
        finally:
            pin_give(core)
            leave(core)

    def cancel(self, uint64_t id):
        """Drop a delayed message, durably. True, or False if it was cancelled before.

        Raises PendingDecidedError if it is in its queue already, PendingNotFoundError if it is unknown or was decided
        long ago, InvalidError for a half.
        """
        return not event_decide(self.store, EVENT_CANCEL, id, REASON_ASKED).duplicate

    def move(self, uint64_t id, uint64_t due_us):
        """Give a delayed message another time (µs since 1970), durably. Its id stays valid. Raises as cancel does."""
        event_decide(self.store, EVENT_MOVE, id, due_checked(due_us))

    def commit(self, uint64_t id):
        """Let a half into its queue, durably: its SendReceipt; at its time if it was prepared with one.

        If it was committed before, the receipt is the first one's, with duplicate true; its offset is 2^64 - 1 if it
        is not told any more. Raises PendingDecidedError if it was rolled back.
        """
        cdef operation_t result = event_decide(self.store, EVENT_COMMIT, id, 0)
        cdef SendReceipt receipt = SendReceipt.__new__(SendReceipt)
        receipt.queue, receipt.duplicate = result.queue, result.duplicate
        receipt.count, receipt.disk = 1, 1
        receipt.waiting = id if result.spare else 0
        receipt.offset = NEVER if result.spare else result.offset
        return receipt

    def rollback(self, uint64_t id):
        """Drop a half, durably. True, or False if it was rolled back before. Raises PendingDecidedError."""
        return not event_decide(self.store, EVENT_ROLLBACK, id, REASON_ROLLBACK).duplicate

    def checks(self, Queue queue=None, *, uint32_t limit=100, uint64_t interval_ms=30000, uint32_t attempts=15):
        """The halves whose producers are to be asked now, as Pending objects; each is given to one caller only.

        Asked again after interval_ms. Who was asked so often as attempts says and never decided is rolled back.
        """
        now = store_clock(live(self.store))
        due = self.list(queue, high_us=now + 1, limit=min(limit, DECIDED_AT_ONCE), state="half")
        again = [None if one.checks >= min(attempts, 255) else now + interval_ms * 1000 for one in due]
        ours = self.claim([(one.id, one.checks, when) for one, when in zip(due, again)])
        return [one for one, when, mine in zip(due, again, ours) if mine and when is not None]

    def claim(self, wanted):
        """Take it upon oneself to ask the producers of halves; for each, whether that is the caller's to do now.

        wanted: at most 1,000 times (id, checks as they were seen, when to ask again in µs since 1970; None: roll it
        back, it was asked often enough). All are committed together. False: decided meanwhile, or asked by another.
        """
        cdef list items = list(wanted)
        if len(items) > DECIDED_AT_ONCE:
            raise TooLargeError(f"{len(items)} halves, at most {DECIDED_AT_ONCE} at once")
        return halves_claim(self.store, items)

    def next_due(self):
        """When the first delayed message falls due (µs since 1970), or None."""
        first = self.list(limit=1, state="delayed") + self.list(limit=1, state="committed")
        return min(one.due_us for one in first) if first else None

    def _keep(self, uint32_t wait_ms=0):
        """Be the timekeeper for a moment, then sleep until something falls due: how many messages were placed."""
        cdef core_t* core = enter(self.store)
        cdef uint32_t seen
        cdef int64_t placed = 0
        cdef int64_t wait
        with nogil:
            seen = load32(&core.control.due_word)
            wait = time_keep(core, &placed)
            if placed == 0 and wait > 0 and wait_ms and not load32(&core.closing):
                futex_wait(&core.control.due_word, seen, min(wait, wait_ms * <int64_t>1000))
            leave(core)
        return placed

    def _wake(self):
        cdef core_t* core = <core_t*>self.store.core
        if core != NULL and core.closed == 0:
            add32(&core.control.due_word, 1)
            futex_wake(&core.control.due_word)


cdef uint64_t due_checked(uint64_t due_us) except? 0:
    if due_us >= LAST_US:
        raise InvalidError(f"a message can be delayed to {LAST_US} µs since 1970, not {due_us}")
    return due_us


cdef object pending_shown(core_t* core, uint64_t position):
    """The Pending of the entry at a position; None if it is gone or damaged."""
    cdef pending_t* entry = pending_find(core, position)
    cdef const record_t* record = NULL
    cdef queue_t* queue
    cdef uint64_t id, pin, stored_us
    if entry == NULL or entry.verdict != OPEN:
        return None
    pin_take(core, &pin)
    id = pending_body(core, entry, &record)
    stored_us = record.stored_us if id else 0
    pin_give(core)
    queue = find_queue(core, entry.queue)
    if id == 0 or queue == NULL:
        return None
    return Pending(id, (<const char*>queue.name)[:queue.name_size].decode(), entry.due_us,
                   WAITS[pending_kind(entry) - DELAYED], entry.spare >> 8 & 0xFF, stored_us, entry.position)


def pending_rules():
    """The rules as a table for tests: {(state, verdict, event): answer}, all of them small numbers."""
    return {(kind, verdict, event): PENDING_RULES[((kind - DELAYED) * 3 + verdict) * EVENTS + event]
            for kind in (DELAYED, HALF, COMMITTED) for verdict in (OPEN, QUEUED, DROPPED) for event in range(EVENTS)}
