# Consumer: a group's side of a queue, for programs that embed the engine.


cdef class Consumer:
    """A group's side of a queue: receive under a lease, then confirm."""
    cdef readonly Queue queue
    cdef readonly str name
    cdef readonly uint32_t id

    def receive(self, uint32_t max_messages=1, *, uint32_t max_bytes=1 << 20, uint32_t lease_ms=30000,
                uint32_t wait_ms=0, bint once=False):
        """Up to max_messages messages, each ours for lease_ms; waits up to wait_ms for the first one.

        A filter may pass over millions of messages before one that it wants: once, for event loops, returns after
        some milliseconds of that, with nothing, to be called again.
        """
        cdef Store store = self.queue.store
        cdef core_t* core = live(store)
        cdef taken_t* out = <taken_t*>malloc(max(max_messages, 1) * sizeof(taken_t))
        cdef uint64_t pin = 0
        cdef uint64_t until = store_clock(core) + wait_ms * <uint64_t>1000
        cdef int found = 0
        cdef bint over = False
        if out == NULL:
            raise MemoryError()
        while not over:
            try:
                enter(store)
            except StoreClosedError:
                free(out)
                raise
            if max_messages == 1:
                found = delivery_glance(core, self.queue.id, self.id, lease_ms, out, &pin)
                if found:
                    leave(core)
                    break
            with nogil:
                found = take_or_wait(store, self.queue.id, self.id, max_messages, max_bytes, lease_ms, out, &pin, until)
                over = found or ((once or not group_behind(core, self.id))
                                 and (store_clock(core) >= until or load32(&core.closing)))
                leave(core)
            PyErr_CheckSignals()
        if found < 0:
            free(out)
            raise_verdict(-found, f"queue {self.queue.name!r}")
        return batch_new(store, out, found, pin)

    @property
    def exists(self):
        """Whether neither the group nor its queue was deleted."""
        cdef core_t* core = live(self.queue.store)
        cdef group_t* group = find_group(core, self.id)
        return group != NULL and find_queue(core, group.queue) != NULL

    @property
    def warm(self):
        """Whether the next message is among the last 256 MiB written, which are in memory, or there is none."""
        cdef core_t* core = live(self.queue.store)
        cdef group_t* group = find_group(core, self.id)
        cdef queue_t* queue = find_queue(core, group.queue) if group != NULL else NULL
        cdef uint64_t offset
        if queue == NULL:
            return True
        offset = max(load64(&group.cursor), load64(&queue.first))
        return offset >= visible_end(core, queue) \
            or is_warm(core, index_leaf(core, queue, offset)[offset % LEAF].position)

    def confirm(self, receipts, *, bint again=False):
        """Confirm what the receipts (24 bytes each) name; durable on return.

        Returns a byte for each: 0 done, 1 stale, 2 forged. again: it may have been done before, and the answer was
        lost; what is confirmed already is done then.
        """
        raw = _receipts(receipts)
        size = CONFIRMED_AT_ONCE * sizeof(receipt_t)
        return b"".join([self._confirm(raw[at : at + size], again) for at in range(0, len(raw), size)])

    def _confirm(self, receipts, bint again):
        cdef Store store = self.queue.store
        cdef bytes raw = _receipts(receipts)
        cdef core_t* core = enter(store)
        cdef lane_t* lane = <lane_t*>store.direct
        cdef uint32_t count = <uint32_t>(len(raw) // sizeof(receipt_t))
        cdef bytes verdicts = PyBytes_FromStringAndSize(NULL, count)
        cdef uint8_t* out = <uint8_t*>PyBytes_AS_STRING(verdicts)
        cdef const receipt_t* given = <const receipt_t*>PyBytes_AS_STRING(raw)
        cdef round_t* round = NULL
        cdef uint32_t place = 0
        cdef int staged = DONE
        cdef uint8_t verdict = DONE
        with nogil:
            while True:
                staged = confirm_stage(core, lane, 1, given, count, out, True, again, &round, &place)
                if staged != BUSY:
                    break
                lane_turn(lane)
            if staged == DONE:
                lane_direct(lane, round)
                verdict = round.operations[place].verdict
                lane_claimed(lane, round)
            leave(core)
        raise_verdict(verdict, "confirm")
        return verdicts

    def release(self, receipts, *, delay_ms=None, str reason=""):
        """Give messages back, to be delivered again after delay_ms. A byte for each, as confirm.

        Without delay_ms the group's back-off decides, or, without one, they come at once. A delay goes on after a
        restart. A message whose attempts are used up goes to the dead-letter queue, with the reason (1,024 bytes).
        """
        cdef uint32_t delay = BY_POLICY if delay_ms is None else min(delay_ms, BY_POLICY - 1)
        cdef bytes said = reason.encode()[:REASON_BYTES]
        cdef const uint8_t* text = <const uint8_t*>PyBytes_AS_STRING(said)
        cdef uint16_t text_size = <uint16_t>len(said)
        cdef core_t* core = enter(self.queue.store)
        cdef lane_t* lane = <lane_t*>self.queue.store.direct
        cdef bytes raw
        cdef bytes verdicts
        cdef const receipt_t* given
        cdef uint32_t count
        cdef uint8_t* out
        try:
            raw = _receipts(receipts)
            count = <uint32_t>(len(raw) // sizeof(receipt_t))
            verdicts = PyBytes_FromStringAndSize(NULL, count)
            given = <const receipt_t*>PyBytes_AS_STRING(raw)
            out = <uint8_t*>PyBytes_AS_STRING(verdicts)
            with nogil:
                release_noted(core, lane, given, count, delay, text, text_size, out)
            return verdicts
        finally:
            leave(core)

    def extend(self, receipts, *, uint32_t lease_ms):
        """Keep messages for lease_ms from now. A byte for each, as confirm."""
        cdef bytes raw = _receipts(receipts)
        cdef bytes verdicts = PyBytes_FromStringAndSize(NULL, len(raw) // sizeof(receipt_t))
        cdef const receipt_t* given = <const receipt_t*>PyBytes_AS_STRING(raw)
        cdef uint32_t count = <uint32_t>len(verdicts)
        cdef uint8_t* out = <uint8_t*>PyBytes_AS_STRING(verdicts)
        cdef core_t* core = enter(self.queue.store)
        # Who has the group's lock may be another process, and may have been stopped.
        with nogil:
            receipts_settle(core, given, count, LEASED, lease_ms, out)
            leave(core)
        return verdicts

    def seek(self, *, offset=None, time_us=None):
        """Go to an offset or a time (µs since 1970), durably: (the offset, how many messages come from there on).

        What was confirmed from there on comes again; receipts given out before no longer count.
        """
        if (offset is None) == (time_us is None):
            raise InvalidError("a seek goes to an offset or to a time: name one of them")
        stat = self.queue.stat()
        target = self.queue.offset_at(time_us) if time_us is not None else int(offset)
        target = min(max(target, stat["first"]), stat["next"])
        self.queue.store._seek(self.queue.id, self.id, target)
        return target, stat["next"] - target

    def advance(self, uint64_t before):
        """Confirm all that lies before an offset, durably, whatever became of it: consuming by offset, without leases.

        Never goes back (seek does). Returns where the floor is then: the offset that is stored for the group.
        """
        return advance(self, before)

    def rewind(self, *, uint64_t time_us):
        """Let what was stored at or after a time (µs since 1970) come again, durably; what stands before it stays as
        it is, but comes again as well beyond 262,144 messages above the floor, or 4,096 ranges. Returns as seek."""
        cdef tuple now = seek_now(self.queue.store, self.queue.id, self.id)
        stat = self.queue.stat()
        target = max(self.queue.offset_at(time_us), stat["first"])
        if target >= self.stat()["cursor"]:
            return target, stat["next"] - target        # nothing from there on was taken yet
        kept = [(first, min(count, target - first)) for first, count in now[3] if first < target]
        self.queue.store._seek(self.queue.id, self.id, min(target, now[1]), kept)
        return target, stat["next"] - target

    def undo(self):
        """Take the last seek back, durably: (the offset, how many messages come from there on and are not confirmed).

        What was confirmed before it or after it stays confirmed, if it lies in the 262,144 messages above the floor, in
        4,096 ranges; what lies beyond comes again. Undoing twice is as not undoing. Raises InvalidError.
        """
        cdef core_t* core = live(self.queue.store)
        cdef tuple now = seek_now(self.queue.store, self.queue.id, self.id)
        cdef tuple before = seek_before(core, now[4], self.id)
        target, kept = undone(before[0], before[1:4:2], now[1:4:2])
        self.queue.store._seek(self.queue.id, self.id, target, kept)
        return target, self.queue.stat()["next"] - target - sum(count for _, count in kept)

    def filter(self, kind, str source=""):
        """Let the group have only what a filter wants; kind: "tag", "routing", "sql", or None for everything.

        Durable on return. What the filter before passed over stays passed over, what is in flight stays in flight;
        from there on the new one decides. Returns the Filter; raises FilterError, which names the column.
        """
        stored = compile_filter(kind, source)
        settings_set(self, b"\x01\0" + len(stored).to_bytes(2, "little") + stored)
        return self.settings()["filter"]

    def settings(self):
        """What was set for the group: {"filter": Filter, "order": "none", "key" or "strict", "retry"}.

        retry is None, or (max_attempts, the dead-letter queue's id, backoff_ms).
        """
        from penstock.engine.retries import unpacked
        generation, stored = setting_get(self, SETTING_FILTER)
        order, retry = unpacked(setting_get(self, SETTING_ORDER)[1], setting_get(self, SETTING_RETRY)[1])
        return {"filter": stored_filter(stored, generation), "order": order, "retry": retry}

    def _settings(self, bytes fields):
        """Set fields of the group's settings durably: a list as in docs/format.md."""
        settings_set(self, fields)

    def _setting(self, int field):
        """A field of the group's settings: (its generation, its bytes); (0, b"") if it is not set."""
        return setting_get(self, field)

    def configure(self, *, order=None, retry=None):
        """Change how the group is served, durably; what is not named stays as it is.

        order: "none"; "key": a message is delivered only after those before it with the same key are confirmed; or
        "strict": one message at a time, in the order of the queue. retry: a Retry. Raises InvalidError,
        QueueNotFoundError.
        """
        from penstock.engine.retries import configure
        configure(self, order, retry)

    def _transfer(self, list offsets, list targets, *, bint aged=False):
        """Move messages of the queue to other queues, confirming them for this group; a verdict for each.

        targets: ids of queues. What somebody has under a lease, or what is confirmed, stays (STALE). Durable on return.
        """
        return transfer_many(self, offsets, targets, REASON_AGED if aged else REASON_REDRIVEN)

    def stat(self):
        """How far the group is, by name."""
        cdef core_t* core = live(self.queue.store)
        cdef group_t* group = find_group(core, self.id)
        cdef queue_t* queue = find_queue(core, self.queue.id)
        if group == NULL or queue == NULL:
            raise QueueNotFoundError(f"group {self.name!r} of queue {self.queue.name!r} was deleted")
        cdef bint some = group.root.page != 0 and group.root.page != FULL
        cdef uint64_t start = max(group.cursor, load64(&queue.first))
        ordered = {"held": order_of(core, group).held} if group.order else {}
        return {**ordered, "floor": group.floor, "cursor": group.cursor, "in_flight": group.root.waiting if some else 0,
                "ready": (group.root.ready if some else 0) + max(queue.next, start) - start}


cdef bytes _receipts(object receipts):
    cdef bytes raw = bytes(receipts)
    if len(raw) == 0 or len(raw) % sizeof(receipt_t):
        raise InvalidError(f"receipts have {sizeof(receipt_t)} bytes each, these are {len(raw)}")
    return raw


cdef int take_or_wait(Store store, uint32_t queue, uint32_t group, uint32_t count, uint32_t max_bytes,
                      uint32_t lease_ms, taken_t* out, uint64_t* pin, uint64_t until) noexcept nogil:
    """Take; if there is nothing, sleep until something arrives or falls due, at most 100 ms, and take once more."""
    cdef core_t* core = <core_t*>store.core
    cdef uint32_t seen = load32(&core.control.arrival_word)
    cdef lane_t* lane = <lane_t*>store.direct
    cdef int found = delivery_take(core, lane, queue, group, count, max_bytes, lease_ms, out, pin)
    cdef uint64_t now = store_clock(core)
    cdef uint64_t due
    if found or now >= until:
        return found
    due = store.next_due(queue, group)
    if due and due < until:
        until = due
    add32(&core.control.receivers, 1)
    if until > now:
        futex_wait(&core.control.arrival_word, seen, min(until - now, <uint64_t>100000))
    add32(&core.control.receivers, -1)
    return delivery_take(core, lane, queue, group, count, max_bytes, lease_ms, out, pin)
