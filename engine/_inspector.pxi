# Inspector: the engine's words for looking into a store: states, counts, search, trace. It changes nothing.


cdef object sight_dict(sight_t* sight):
    held = {"behind": sight.behind} if sight.state == HELD else {}
    return {
        **held, "state": STATES[sight.state], "now_us": sight.now_us, "first": sight.first, "visible": sight.visible,
        "next": sight.next, "floor": sight.floor, "cursor": sight.cursor, "position": sight.position,
        "stored_us": sight.stored_us, "until_us": sight.until_us, "before": sight.before,
        "attempts": sight.attempts, "generation": sight.generation, "ran_out": bool(sight.ran_out),
        "unwanted": bool(sight.unwanted),
    }


cdef class Inspector:
    """Looks into an open store and changes nothing.

    Each call is one bounded step; whoever wants more calls again with the place where it ended.
    """
    cdef readonly Store store

    def __init__(self, Store store not None):
        self.store = store

    def now_us(self):
        """The store's clock, µs since 1970."""
        return store_clock(live(self.store))

    def message(self, uint32_t queue, uint32_t group, uint64_t offset):
        """What a message is to a group (0: the queue's own), by name; state is one of STATES.

        Raises QueueNotFoundError.
        """
        cdef core_t* core = enter(self.store)
        cdef sight_t sight
        cdef int verdict
        with nogil:
            verdict = message_sight(core, queue, group, offset, &sight)
            leave(core)
        raise_verdict(verdict, f"queue {queue}, group {group}")
        return sight_dict(&sight)

    def counts(self, uint32_t queue, uint32_t group, uint64_t low=0, uint64_t high=0xFFFFFFFFFFFFFFFF):
        """How many of the visible messages [low, high) are what to a group: (counts by state, low, high).

        low and high are what they were cut to. The group goes on meanwhile: a long range is added up in steps.
        """
        cdef core_t* core = enter(self.store)
        cdef queue_t* home = find_queue(core, queue)
        cdef group_t* held = find_group(core, group if group or home == NULL else home.group)
        cdef counts_t counts
        cdef uint64_t at, now
        cdef bint there = home != NULL and held != NULL and held.queue == queue
        memset(&counts, 0, sizeof(counts))
        if there:
            with nogil:
                low = max(low, load64(&home.first))
                high = max(low, min(high, visible_end(core, home)))
                at = low
                now = store_clock(core)
                while at < high and there:
                    there = sight_lock(core, held)
                    if there:
                        at = tree_count(core, held, at, high, now, &counts)
                        stripe_unlock(core, held)
        leave(core)
        if not there:
            raise QueueNotFoundError(f"no group {group} of queue {queue}")
        return counts, low, high

    def lag(self, uint32_t queue, uint32_t group):
        """How far a group (0: the queue's own) is behind, by name; oldest is None if it is not."""
        cdef core_t* core = enter(self.store)
        cdef queue_t* home = find_queue(core, queue)
        cdef group_t* held = find_group(core, group if group or home == NULL else home.group)
        cdef lag_t lag
        cdef bint there = home != NULL and held != NULL and held.queue == queue
        if there:
            with nogil:
                group_lag(core, home, held, &lag)
        leave(core)
        if not there:
            raise QueueNotFoundError(f"no group {group} of queue {queue}")
        return {"lag": lag.lag, "ready": lag.ready, "in_flight": lag.in_flight, "visible": lag.visible,
                "oldest": None if lag.oldest == NEVER else lag.oldest, "oldest_us": lag.oldest_us}

    def groups(self, uint64_t slot=0, uint32_t room=1000):
        """Up to room groups of the store from a slot of the table on: ([(queue's name, group's name, queue's id,
        group's id, queue's bytes), …], the next slot, 0 at the end)."""
        cdef core_t* core = live(self.store)
        cdef group_t* group
        cdef queue_t* queue
        cdef uint32_t last = <uint32_t>core.control.state.group_slots
        cdef uint32_t looks = 65536
        found = []
        while slot < last and room and looks:
            group = group_slot(core, <uint32_t>slot)
            queue = find_queue(core, group.queue) if group.id else NULL
            if queue != NULL:
                found.append(((<const char*>queue.name)[:queue.name_size].decode(),
                              (<const char*>group.name)[:group.name_size].decode(), queue.id, group.id, queue.bytes))
                room -= 1
            slot += 1
            looks -= 1
        return found, slot if slot < last else 0

    def search(self, uint32_t queue, uint64_t low, uint64_t high, *, bytes attributes=b"", bytes text=b"",
               uint32_t tag=0, uint32_t key=0, uint32_t limit=100, uint64_t entries=1 << 20,
               uint64_t read=32 << 20):
        """Offsets of visible messages in [low, high) that have every one of the packed attributes, and the text.

        tag and key are hash32 of those in attributes: the index alone passes over what has others. Ends after limit
        found, entries looked at, or read bytes of messages. Returns (offsets, next, high, damaged): search is done
        when next reaches high; damaged ones could not be looked at.
        """
        cdef core_t* core = enter(self.store)
        cdef queue_t* home = find_queue(core, queue)
        cdef wanted_t wanted
        cdef uint64_t pin
        cdef uint64_t damaged = 0
        cdef uint32_t count = 0
        cdef uint64_t* found = <uint64_t*>malloc(max(limit, <uint32_t>1) * sizeof(uint64_t))
        wanted.attributes = <const uint8_t*>PyBytes_AS_STRING(attributes)
        wanted.attributes_size = <uint32_t>PyBytes_GET_SIZE(attributes)
        wanted.text = <const uint8_t*>PyBytes_AS_STRING(text)
        wanted.text_size = PyBytes_GET_SIZE(text)
        wanted.tag = tag
        wanted.key = key
        if home != NULL and found != NULL:
            with nogil:
                pin_take(core, &pin)
                low = max(low, load64(&home.first))
                high = max(low, min(high, visible_end(core, home)))
                low = entries_search(core, home, low, high, &wanted, entries, read, found, &count, limit, &damaged)
                pin_give(core)
        leave(core)
        offsets = [found[at] for at in range(count)] if found != NULL else []
        free(found)
        if home == NULL:
            raise QueueNotFoundError(f"there is no queue number {queue}")
        return offsets, low, high, damaged

    def trace(self, uint32_t queue, uint64_t offset, uint64_t position=0, *, uint64_t read=64 << 20):
        """The records of the log that speak of a message, from a position on (0: its own), after read bytes at most.

        Returns (records, next, end, visible_us, skipped): records are (position, type, flags, queue, offset,
        stored_us, producer, sequence, body), the body empty for a message; done when next reaches end. visible_us:
        when a frame said that it was on disk, 0 if none did yet. skipped: segments that are gone or damaged.
        """
        cdef core_t* core = enter(self.store)
        cdef queue_t* home = find_queue(core, queue)
        cdef walk_t walk
        cdef uint64_t pin
        cdef const record_t* record
        cdef uint32_t at
        memset(&walk, 0, sizeof(walk))
        walk.queue = queue
        walk.offset = offset
        walk.end = load64(&core.control.durable)
        found = []
        try:
            if home == NULL:
                raise QueueNotFoundError(f"there is no queue number {queue}")
            if offset >= home.next:
                raise InvalidError(f"queue {queue} has no message {offset} yet, the next is {home.next}")
            walk.position = index_leaf(core, home, offset)[offset % LEAF].position
            if walk.position == 0:
                raise CorruptionError(f"where message {offset} of queue {queue} stands is not known: it was damaged")
            walk.at = max(position, walk.position)
            pin_take(core, &pin)
            with nogil:
                record = record_at(core, walk.position)
                walk.body = walk.position
                if record != NULL and record.type == RECORD_PLACE and record.body_size >= 8:
                    walk.body = (<const uint64_t*>record_body(record))[0]
                log_walk(core, &walk, read)
            for at in range(walk.count):
                record = record_at(core, walk.found[at])
                if record != NULL:
                    found.append(record_tuple(record))
            pin_give(core)
        finally:
            leave(core)
        return found, walk.at, walk.end, walk.visible_us, walk.skipped


cdef object record_tuple(const record_t* record):
    cdef const uint64_t* stamp = <const uint64_t*>(record + 1)
    cdef bint numbered = record.flags & RECORD_SEQUENCED
    cdef bytes body = b""
    if record.type != RECORD_MESSAGE and record.type != RECORD_FANOUT:
        body = (<const char*>record_body(record))[:record.body_size]
    return (record.position, record.type, record.flags, record.queue, record.offset, record.stored_us,
            stamp[0] if numbered else 0, stamp[1] if numbered else 0, body)
