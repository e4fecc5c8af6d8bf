# Queue: the engine's words for programs that embed it.


cdef enum:
    CONFIRMED_AT_ONCE = 4096    # receipts in one record: they fit the smallest segment

cdef uint64_t PURGE_KEEP_MS = 366 * 86400 * <uint64_t>1000


cdef class SendReceipt:
    """What an append returns."""
    cdef readonly uint32_t queue
    cdef readonly uint64_t offset
    cdef readonly uint32_t count
    cdef readonly bint duplicate
    cdef bint disk
    cdef uint64_t waiting

    @property
    def pending(self):
        """The id of a message that is delayed or a half: for store.pending. None if it is in its queue."""
        return self.waiting if self.waiting else None

    @property
    def durability(self):
        """The level reached: "disk" or "kernel"."""
        return "disk" if self.disk else "kernel"

    @property
    def id(self):
        """The first message's id, unique in the store."""
        return f"{self.queue:08x}-p{self.waiting:015x}" if self.waiting else f"{self.queue:08x}-{self.offset:016x}"

    def __repr__(self):
        return f"SendReceipt(id={self.id!r}, count={self.count}, durability={self.durability!r})"


cdef SendReceipt receipt_of(operation_t* operation):
    raise_verdict(operation.verdict, f"append to queue {operation.queue}")
    cdef SendReceipt receipt = SendReceipt.__new__(SendReceipt)
    receipt.queue = operation.queue
    receipt.waiting = operation.offset if operation.kind == KIND_PENDING else 0
    receipt.offset = NEVER if receipt.waiting else operation.offset
    receipt.count = operation.count
    receipt.duplicate = operation.duplicate
    receipt.disk = operation.durability
    return receipt


cdef int level_of(Store store, object durability) except -1:
    if durability is None:
        durability = store.durability
    if durability == "disk":
        return 1
    if durability == "kernel":
        return 0
    raise InvalidError(f"durability is 'disk' or 'kernel', not {durability!r}")


cdef bytes ext_packed(bytes ext, object attributes, int* level):
    """What stands before the body; level is marked if it is a list of attributes."""
    if attributes is not None:
        if ext:
            raise InvalidError("a message has attributes or ext, not both")
        ext = attributes.pack()
        level[0] |= ATTRIBUTED
    if len(ext) > 65535:
        raise TooLargeError(f"ext has {len(ext)} bytes, at most 65535")
    return ext


cdef Queue queue_new(Store store, str name, uint32_t id):
    cdef Queue queue = Queue.__new__(Queue)
    queue.store = store
    queue.name = name
    queue.id = id
    return queue


KEEPS = ("all", "unconfirmed", "subscribed")


def _keep_of(keep):
    if keep not in KEEPS:
        raise InvalidError(f"keep is one of {', '.join(KEEPS)}, not {keep!r}")
    return KEEPS.index(keep)


def _setting(int field, value):
    """One field of a QUEUE_SETTINGS record."""
    if not 0 <= value < 1 << 53:
        raise InvalidError(f"a setting is from 0 to 2^53, not {value}")
    return bytes((field, 0, 8, 0)) + int(value).to_bytes(8, "little")


cdef class Queue:
    """A queue of a store: appending, reading, its index and its groups."""
    cdef readonly Store store
    cdef readonly str name
    cdef readonly uint32_t id

    cdef SendReceipt commit(self, const uint8_t* bodies, const uint32_t* sizes, uint32_t count, uint64_t total,
                            const uint8_t* ext, uint16_t ext_size, int level, uint64_t producer, uint64_t sequence,
                            const aside_t* aside):
        """Append count bodies that stand one behind the other, as one operation; aside: NULL, or they are pending."""
        cdef core_t* core = enter(self.store)
        cdef lane_t* lane = <lane_t*>self.store.direct
        cdef round_t* round = NULL
        cdef operation_t result
        cdef uint32_t place = 0
        cdef int verdict
        with nogil:
            verdict = bodies_stage(core, lane, 0, self.id, level, producer, sequence, count, sizes, bodies, total,
                                   ext, ext_size, True, &round, &place, aside)
            if verdict == DONE:
                lane_direct(lane, round)
                result = round.operations[place]
                lane_claimed(lane, round)
            leave(core)
        raise_verdict(verdict, f"append to queue {self.name!r}")
        return receipt_of(&result)

    def append(self, body, *, bytes ext=b"", attributes=None, durability=None, uint64_t producer=0,
               uint64_t sequence=0, uint64_t due_us=0):
        """Append one message (any bytes-like object); returns when it has the durability asked for.

        attributes: an Attributes (tag, key, properties); else ext is kept with the message as it is. due_us (µs since
        1970): it gets into the queue then and not before; the receipt's pending is its id until then.

        producer and sequence (1, 2, 3, …) make a repetition store it once. Raises StoreFullError,
        StorePoisonedError, TooLargeError, QueueNotFoundError.
        """
        cdef aside_t aside
        aside.due_us = due_checked(due_us)
        aside.spare = DELAYED
        return self.commit_one(body, ext, attributes, level_of(self.store, durability), producer, sequence,
                               &aside if due_us and due_us > store_clock(live(self.store)) else NULL)

    def prepare(self, body, *, bytes ext=b"", attributes=None, durability=None, uint64_t producer=0,
                uint64_t sequence=0, uint64_t due_us=0, uint64_t check_ms=6000):
        """Append a half: nobody sees it until store.pending.commit(receipt.pending); rollback drops it.

        check_ms: when store.pending.checks() asks for it first, in steps of 100 ms. due_us: as append, when committed.
        """
        cdef aside_t aside
        if check_ms > CHECK_UNITS * <uint64_t>CHECK_UNIT_US // 1000:
            raise InvalidError(f"check_ms of {check_ms}, at most {CHECK_UNITS * <uint64_t>CHECK_UNIT_US // 1000}")
        aside.due_us = due_checked(due_us)
        aside.spare = HALF | <uint32_t>((check_ms * 1000 + CHECK_UNIT_US - 1) // CHECK_UNIT_US) << 8
        return self.commit_one(body, ext, attributes, level_of(self.store, durability), producer, sequence, &aside)

    cdef SendReceipt commit_one(self, object body, bytes ext, object attributes, int level, uint64_t producer,
                                uint64_t sequence, const aside_t* aside):
        cdef Py_buffer view
        cdef uint32_t size
        ext = ext_packed(ext, attributes, &level)
        PyObject_GetBuffer(body, &view, PyBUF_SIMPLE)
        try:
            if view.len > 0x7FFFFFFF:
                raise TooLargeError(f"a body of {view.len} bytes")
            size = <uint32_t>view.len
            return self.commit(<const uint8_t*>view.buf, &size, 1, size, <const uint8_t*>PyBytes_AS_STRING(ext),
                               <uint16_t>len(ext), level, producer, sequence, aside)
        finally:
            PyBuffer_Release(&view)

    def append_many(self, bodies, *, attributes=None, durability=None, uint64_t producer=0, uint64_t sequence=0,
                    uint64_t due_us=0):
        """Append a sequence of bytes objects as one atomic operation.

        attributes: one Attributes, or None, for each body. due_us as append; the receipt has the first one's id.
        """
        cdef list items = list(bodies)
        sizes = np.fromiter(map(len, items), np.uint32, len(items))
        if attributes is None:
            return self._packed(b"".join(items), sizes, 1, level_of(self.store, durability), producer, sequence, due_us)
        packed = [one.pack() if one is not None else b"" for one in attributes]
        if len(packed) != len(items):
            raise InvalidError(f"{len(items)} bodies and {len(packed)} attributes")
        pairs = np.stack((sizes, np.fromiter(map(len, packed), np.uint32, len(packed))), axis=1).reshape(-1)
        parts = [part for pair in zip(packed, items) for part in pair]
        return self._packed(b"".join(parts), pairs, 2, level_of(self.store, durability) | PACKED, producer, sequence,
                            due_us)

    def append_packed(self, bodies, sizes, *, durability=None, uint64_t producer=0, uint64_t sequence=0,
                      uint64_t due_us=0):
        """Append bodies that stand one behind the other in a buffer, as one atomic operation; sizes: uint32 array."""
        return self._packed(bodies, sizes, 1, level_of(self.store, durability), producer, sequence, due_us)

    def _packed(self, bodies, sizes, uint32_t stride, int level, uint64_t producer, uint64_t sequence,
                uint64_t due_us):
        cdef Py_buffer view
        cdef aside_t aside
        cdef const uint32_t[::1] lengths = np.ascontiguousarray(sizes, dtype=np.uint32)
        aside.due_us = due_checked(due_us)
        aside.spare = DELAYED
        if lengths.shape[0] == 0:
            raise InvalidError("an empty batch")
        total = int(np.sum(np.asarray(lengths), dtype=np.uint64))
        PyObject_GetBuffer(bodies, &view, PyBUF_SIMPLE)
        try:
            if total != view.len:
                raise InvalidError(f"the sizes add up to {total} bytes, the buffer has {view.len}")
            return self.commit(<const uint8_t*>view.buf, &lengths[0], <uint32_t>lengths.shape[0] // stride, view.len,
                               NULL, 0, level, producer, sequence,
                               &aside if due_us and due_us > store_clock(live(self.store)) else NULL)
        finally:
            PyBuffer_Release(&view)

    def read(self, *, offset=None, time_us=None, uint32_t max_messages=1000, uint32_t max_bytes=1 << 20):
        """The messages from an offset or a time (µs since 1970) on, without consuming them.

        Only what is on disk is read. Damaged messages are left out and counted in stat()["corrupt"].
        """
        if offset is not None and time_us is not None:
            raise InvalidError("a read begins at an offset or at a time, not at both")
        cdef uint64_t start = self.offset_at(time_us) if time_us is not None else (offset or 0)
        cdef taken_t* out = <taken_t*>malloc(max(max_messages, 1) * sizeof(taken_t))
        cdef uint64_t pin = 0
        cdef int found
        cdef core_t* core
        if out == NULL:
            raise MemoryError()
        try:
            core = enter(self.store)
        except StoreClosedError:
            free(out)
            raise
        with nogil:
            found = self.store.scan(self.id, start, max_messages, max_bytes, out, &pin)
            leave(core)
        if found < 0:
            free(out)
            raise_verdict(-found, f"queue {self.name!r}")
        return batch_new(self.store, out, found, pin)

    def offset_at(self, time_us):
        """The offset of the first message stored at or after a time (µs since 1970, or beyond either end of that)."""
        cdef uint64_t at = min(max(0, time_us), 0xFFFFFFFFFFFFFFFF)
        cdef core_t* core = enter(self.store)
        cdef queue_t* queue = find_queue(core, self.id)
        cdef uint64_t offset = 0
        if queue != NULL:
            with nogil:
                offset = offset_at_time(core, queue, at)
        leave(core)
        if queue == NULL:
            raise QueueNotFoundError(f"queue {self.name!r} was deleted")
        return offset

    def _pages(self, uint64_t low, uint64_t high):
        """The pages of the index file that hold [low, high): (page, first entry, count) triples."""
        cdef core_t* core = live(self.store)
        cdef queue_t* queue = find_queue(core, self.id)
        pages = []
        if queue == NULL:
            raise QueueNotFoundError(f"queue {self.name!r} was deleted")
        high = min(high, visible_end(core, queue))
        low = max(low, queue.first)
        while low < high:
            count = min(high - low, LEAF - low % LEAF)
            page = index_leaf_page(core, queue, low)
            if page == 0:
                raise CorruptionError(f"{self.store.path}/index: the entries of queue {self.name!r} from offset "
                                      f"{low} on cannot be found; reading the messages counts what is lost")
            pages.append((page, low % LEAF, count))
            low += count
        return pages

    def index(self, low=0, high=None):
        """The index entries of offsets [low, high) as one array (dtype penstock.engine.store.ENTRY).

        A view of the mapped index if the range lies in one chunk of 128, a copy otherwise; index_chunks gives views.
        """
        from penstock.engine.store import index_array
        return index_array(self, low, 0xFFFFFFFFFFFFFFFF if high is None else high)

    def index_chunks(self, low=0, high=None):
        """Read-only views, over numpy.memmap, of the chunks of index entries of offsets [low, high)."""
        from penstock.engine.store import index_chunks
        return index_chunks(self, low, 0xFFFFFFFFFFFFFFFF if high is None else high)

    def group(self, str name=""):
        """A consumer group of this queue, made at the queue's first message if there is none; "" is its own."""
        cdef core_t* core = live(self.store)
        cdef bytes raw = name.encode()
        cdef uint32_t bucket
        cdef const char* text = raw
        cdef uint32_t size = <uint32_t>len(raw)
        cdef Consumer consumer = Consumer.__new__(Consumer)
        if size > NAME_SIZE:
            raise InvalidError(f"a group's name has at most {NAME_SIZE} bytes")
        consumer.id = name_find(core, self.id, text, size, &bucket)
        if consumer.id == 0:
            consumer.id = self.store._group(self.id, raw, 0)
        consumer.queue = self
        consumer.name = name
        return consumer

    def delete_group(self, str name):
        """Delete a named group with its state, durably; what it has under a lease is nobody's any more."""
        group_delete(self, name)

    def groups(self):
        """The ids of this queue's groups by name; "" is its own."""
        cdef core_t* core = live(self.store)
        cdef uint32_t slot
        cdef group_t* group
        found = {}
        for slot in range(core.control.state.group_slots):
            group = group_slot(core, slot)
            if group.id != 0 and group.queue == self.id:
                found[(<const char*>group.name)[:group.name_size].decode()] = group.id
        return found

    def stat(self):
        """Offsets and sizes of the queue, by name."""
        cdef core_t* core = live(self.store)
        cdef queue_t* queue = find_queue(core, self.id)
        if queue == NULL:
            raise QueueNotFoundError(f"queue {self.name!r} was deleted")
        return {"id": queue.id, "reclaimed": queue.reclaimed, "first": queue.first, "next": queue.next,
                "visible": visible_end(core, queue),
                "pending": queue.waiting, "bytes": queue.bytes,
                "created_us": queue.created_us, "last_us": queue.last_us,
                **self.group().stat()}

    def configure(self, *, retain_ms=None, retain_bytes=None, keep=None, rewind_ms=None, dedup_ms=None,
                  dedup_count=None):
        """Change how long messages are kept and which are stored once, durably; what is not named stays as it is.

        retain_ms, retain_bytes: what is older, or more, is purged, confirmed or not; 0 never. keep: "all";
        "unconfirmed" purges what every group has confirmed, "subscribed" the same without the queue's own group.
        rewind_ms: even then a message is kept for so long. Each is looked at about once a second.

        dedup_ms: a message whose id (Attributes.id) was stored so lately is not stored again, its receipt says
        duplicate; 0 never. dedup_count: so many ids are known at most (65,536); another number begins with none.
        """
        if dedup_count is not None and not 0 <= dedup_count <= DEDUP_LIMIT:
            raise InvalidError(f"dedup_count is from 0 to {DEDUP_LIMIT}, not {dedup_count}")
        body = b"".join(
            _setting(field, value) for field, value in (
                (RETAIN_MS, retain_ms), (RETAIN_BYTES, retain_bytes), (REWIND_MS, rewind_ms),
                (DEDUP_MS, dedup_ms), (DEDUP_COUNT, dedup_count),
                (KEEP, None if keep is None else _keep_of(keep))) if value is not None)
        if body:
            verdict, _, _ = self.store._operate(KIND_QUEUE_SETTINGS, self.id, 0, RECORD_QUEUE_SETTINGS, body)
            raise_verdict(verdict, f"settings of queue {self.name!r}")

    def settings(self):
        """How long messages are kept, as configure takes it."""
        cdef core_t* core = live(self.store)
        cdef queue_t* queue = find_queue(core, self.id)
        if queue == NULL:
            raise QueueNotFoundError(f"queue {self.name!r} was deleted")
        return {"retain_ms": setting_of(core, queue, RETAIN_MS), "retain_bytes": setting_of(core, queue, RETAIN_BYTES),
                "keep": KEEPS[setting_of(core, queue, KEEP)], "rewind_ms": setting_of(core, queue, REWIND_MS),
                "dedup_ms": setting_of(core, queue, DEDUP_MS), "dedup_count": setting_of(core, queue, DEDUP_COUNT)}

    def purge(self, *, uint64_t keep_ms=0):
        """Drop every message stored so far; returns how many. They cannot be read or rewound to any more.

        keep_ms: for so long unpurge takes it back, and what they take is not given back to the disk.
        """
        stat = self.stat()
        if keep_ms > PURGE_KEEP_MS:
            raise InvalidError(f"keep_ms of {keep_ms}, at most {PURGE_KEEP_MS}")
        until = store_clock(live(self.store)) + keep_ms * 1000
        verdict, _, _ = self.store._operate(KIND_TRIM, self.id, stat["next"], RECORD_TRIM,
                                            int(until).to_bytes(8, "little") if keep_ms else b"")
        raise_verdict(verdict, f"queue {self.name!r}")
        return stat["next"] - stat["first"]

    def unpurge(self):
        """Take purges back, durably, as long as what they purged is kept: (the first offset, how many come again).

        A group that took meanwhile has passed over them: seek it to the offset. Raises InvalidError if there is none.
        """
        before = self.stat()["first"]
        verdict, _, _ = self.store._operate(KIND_TRIM, self.id, 0, RECORD_TRIM, bytes(8))
        if verdict == STALE:
            raise InvalidError(f"queue {self.name!r} has no purge that can be taken back")
        raise_verdict(verdict, f"queue {self.name!r}")
        first = self.stat()["first"]
        return first, before - first
