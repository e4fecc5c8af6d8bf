# Store: one process's handle on an open store, and the C face that the server's extension calls.

_open_stores = weakref.WeakSet()


def _after_fork():
    """A child must not use its parent's locks and threads: every store it inherited is closed for it."""
    for store in list(_open_stores):
        (<Store>store)._forget()


os.register_at_fork(after_in_child=_after_fork)


cdef class Store:
    """A durable store of message queues in a directory; see penstock.engine.store.open.

    Any number of threads and processes may have the same store open. durability is the default for appends:
    "disk" (survives the loss of power) or "kernel" (survives the death of the process).
    """

    def __cinit__(self):
        self.core = NULL

    def __init__(self):
        raise TypeError("use Store.open(path)")

    @classmethod
    def open(cls, path, *, durability="disk", segment_size=64 << 20, repair=False, ready=0):
        """An open store, made if the directory is empty, recovered if nobody else has it open.

        segment_size (bytes, 1 MiB to 1 GiB) counts when the store is made. ready: bytes of log made ahead of need while
        little is written, for bursts of that size. Raises CorruptionError if promised messages are damaged
        (repair=True leaves them out, reports them and deletes nothing), StoreFullError, StoreLockedError.
        """
        from penstock.engine.store import open_store
        return open_store(cls, path, durability, segment_size, repair, ready)

    def __dealloc__(self):
        if self.core != NULL:
            core_free(<core_t*>self.core)
            self.core = NULL

    def _forget(self):
        cdef core_t* core = <core_t*>self.core
        if core != NULL and core.closed == 0:
            core.closed = 1
            # The lock belongs to the open file that parent and child share: only the parent may change it.
            descriptor_close(&core.lock_fd)

    @property
    def id(self):
        """16 bytes that name this store."""
        return (<const char*>live(self).id)[:16]

    @property
    def segment_size(self):
        return live(self).segment_size

    def stat(self):
        """Counters and marks of the store, by name."""
        cdef control_t* control = live(self).control
        return {
            "written": control.written, "durable": control.durable, "checkpoint": control.checkpoint,
            "epoch": control.epoch, "frames": control.frames, "fsyncs": control.fsyncs,
            "bytes_written": control.bytes_written, "messages_appended": control.messages,
            "queues": control.state.queue_live, "groups": control.state.group_live,
            "index_pages": control.state.index_pages, "index_given": control.state.index_freed,
            "state_pages": control.state.arena_pages,
            **Reclaimer(self).stat(), "corrupt": control.corrupt, "full": control.full,
            "poisoned": control.poisoned, "maps": live(self).map_count,
        }

    def _operate(self, int kind, uint32_t queue, uint64_t offset, int type, bytes body):
        """Commit one control record durably; returns (verdict, offset, duplicate)."""
        cdef core_t* core = enter(self)
        cdef lane_t* lane = <lane_t*>self.direct
        cdef round_t* round
        cdef operation_t* operation
        cdef operation_t result
        cdef uint32_t place
        cdef const uint8_t* bytes_ = <const uint8_t*>PyBytes_AS_STRING(body)
        cdef uint32_t size = <uint32_t>PyBytes_GET_SIZE(body)
        cdef uint64_t at
        with nogil:
            pthread_mutex_lock(&lane.lock)
            while lane.filling.count and lane.filling.size + size + 128 > lane.limit:
                pthread_mutex_unlock(&lane.lock)
                lane_turn(lane)
                pthread_mutex_lock(&lane.lock)
            round = lane.filling
            place = round.count
            if round_reserve(round, size + 128):
                at = round.size
                record_stage(core, round, type, 0, 0, NULL, 0, bytes_, size)
                operation = operation_stage(round, 0, kind, queue, kind == KIND_PLACE, 1, at)
                operation.offset = offset
                round.claims += 1
            else:
                round = NULL
            pthread_mutex_unlock(&lane.lock)
            if round != NULL:
                lane_direct(lane, round)
                result = round.operations[place]
                lane_claimed(lane, round)
            leave(core)
        if round == NULL:
            raise MemoryError()
        return result.verdict, result.offset, bool(result.duplicate)

    def queue(self, str name, *, bint create=True):
        """The queue of that name, made if there is none and create is true."""
        cdef core_t* core = live(self)
        cdef uint32_t bucket, id
        cdef bytes raw = _name(name)
        cdef const char* text = raw
        cdef uint32_t size = <uint32_t>len(raw)
        id = name_find(core, 0, text, size, &bucket)
        if id == 0:
            if not create:
                raise QueueNotFoundError(f"no queue named {name!r}; make it with queue({name!r}, create=True)")
            verdict, made, _ = self._operate(KIND_QUEUE, 0, 0, RECORD_QUEUE, raw)
            raise_verdict(verdict, f"queue {name!r}")
            id = made
            core = live(self)
        if find_queue(core, id) != NULL and find_queue(core, id).group == 0:
            try:
                self._group(id, b"", 0)
            except QueueNotFoundError:
                if not create:
                    raise
                return self.queue(name)     # deleted meanwhile: made again
        return queue_new(self, name, id)

    def _group(self, uint32_t queue, bytes name, uint64_t start):
        verdict, id, _ = self._operate(KIND_GROUP, queue, 0, RECORD_GROUP, start.to_bytes(8, "little") + name)
        raise_verdict(verdict, f"group {name.decode()!r}")
        return id

    def _seek(self, uint32_t queue, uint32_t group, uint64_t offset, list kept=[]):
        """Set a group to an offset, durably; kept: ranges (first, count) that are confirmed there."""
        cdef tuple now
        verdict = BUSY
        while verdict == BUSY:
            # Again if somebody else sought meanwhile: what a SEEK says of before must be what it finds.
            now = seek_now(self, queue, group)
            verdict, _, _ = self._operate(KIND_SEEK, queue, offset, RECORD_SEEK, seek_body(group, now, kept))
        raise_verdict(verdict, "seek")

    def _place(self, Queue queue not None, uint64_t position):
        """Put the message whose record is at a position into a queue, without writing its body again; its offset."""
        verdict, offset, _ = self._operate(KIND_PLACE, queue.id, 0, RECORD_PLACE, int(position).to_bytes(8, "little"))
        raise_verdict(verdict, f"placing a message in queue {queue.name!r}")
        return offset

    def queues(self):
        """The names of all queues, sorted."""
        cdef core_t* core = live(self)
        cdef uint32_t slot
        cdef queue_t* queue
        names = []
        for slot in range(core.control.state.queue_slots):
            queue = queue_slot(core, slot)
            if queue.id:
                names.append((<const char*>queue.name)[:queue.name_size].decode())
        return sorted(names)

    def delete(self, str name):
        """Delete a queue with its groups. What it stored stays in the log until its segments are reclaimed."""
        queue = self.queue(name, create=False)
        verdict, _, _ = self._operate(KIND_QUEUE_DELETE, queue.id, 0, RECORD_QUEUE_DELETE, b"")
        raise_verdict(verdict, f"queue {name!r}")

    def note(self, str name, value, *, expect=None):
        """Set a small object of the broker (bytes; None removes it), durably; returns its version, 0 when removed.

        expect: the version it must have now (0: it must not be there), else ConflictError.
        """
        return note_set(self, name, value, expect)

    def noted(self, str name):
        """A note: (bytes, its version), or None."""
        return note_get(self, name)

    def notes(self, str prefix=""):
        """The notes whose names begin so, sorted, each as it was at some moment of the call."""
        return notes_get(self, prefix)

    def notes_version(self):
        """A number that changes whenever any process changes a note: what was read before is still so if it did not."""
        cdef notes_t* notes = notes_table(live(self), False)
        return 0 if notes == NULL else load64(&notes.version)

    def fanout(self, queues, body, *, bytes ext=b"", attributes=None, durability=None, uint64_t producer=0,
               uint64_t sequence=0, notes_version=None, Queue home=None):
        """Put one message into many queues, its body stored once; all that are there get it, at the same moment.

        queues: 1 to 16,384 of them; one that is there twice gets it once, one that was deleted meanwhile is left
        out. home: one of them; if it knows the message's id nothing is stored. Raises as Queue.append does,
        QueueNotFoundError if all are gone; ConflictError if a note stands between notes_version and this message.
        """
        return fanout_send(self, queues, body, ext, attributes, durability, producer, sequence, notes_version, home)

    def batch(self, durability=None, *, uint64_t producer=0, uint64_t sequence=0):
        """A context in which appends to several queues are collected and stored all or none; one number is for all."""
        return AtomicBatch(self, durability, producer, sequence)

    @property
    def pending(self):
        """Delayed messages and halves: a PendingMessages."""
        cdef PendingMessages pending = PendingMessages.__new__(PendingMessages)
        live(self)
        pending.store = self
        return pending

    def checkpoint(self):
        """Save the state, so that the next recovery reads only what comes after."""
        cdef core_t* core = enter(self)
        try:
            self._checkpoint(False)
        finally:
            leave(core)

    def _checkpoint(self, bint clean):
        cdef core_t* core = live(self)
        cdef int failed
        with nogil:
            mutex_lock(&core.control.checkpoint_lock)
            failed = checkpoint_write(core, clean)
            pthread_mutex_unlock(&core.control.checkpoint_lock)
        if failed:
            raise OSError(failed, os.strerror(failed), os.fspath(self.path))

    def _prepare(self, uint64_t ahead=1):
        """Make the next segments if they are not there; False and the store marked full if the disk is."""
        cdef core_t* core = live(self)
        cdef int failed
        with nogil:
            failed = segment_prepare(core, ahead, True)
            if failed and load64(&core.control.prepared) <= load64(&core.control.segment):
                store32(&core.control.full, 1)
        return failed == 0

    def _flush(self):
        """Put on disk what was appended at kernel durability."""
        cdef core_t* core = live(self)
        with nogil:
            if load64(&core.control.durable) < load64(&core.control.written):
                make_durable(core, load64(&core.control.written))

    def _attach(self, path, bytes id, uint64_t salt, bytes key, uint64_t segment_size, int lock_fd):
        """Take over the descriptors and map nothing yet; a step of opening."""
        cdef bytes raw = os.fsencode(path)
        cdef core_t* core = <core_t*>calloc(1, sizeof(core_t))
        if core == NULL:
            raise MemoryError()
        core.control_fd = core.index_fd = core.directory_fd = core.write_fd = core.trace_fd = -1
        memset(core.sync_fds, 0xff, sizeof(core.sync_fds))
        guard_install()
        core.lock_fd = lock_fd
        core.maps_fd = -1
        core.segment_size = segment_size
        core.salt = salt
        core.map_room = 64
        core.maps = <mapped_t*>malloc(core.map_room * sizeof(mapped_t))
        pthread_mutex_init(&core.maps_lock, NULL)
        memcpy(core.id, <const char*>id, 16)
        memcpy(core.key, <const char*>key, 16)
        memcpy(core.path, <const char*>raw, len(raw))
        self.core = core
        self.path = path
        core.maps_fd = os.open(os.path.join(path, "LOCK"), os.O_RDWR | os.O_CLOEXEC)
        core.directory_fd = os.open(os.path.join(path, "log"), os.O_RDONLY | os.O_DIRECTORY)

    def _lanes(self):
        return list(self.lanes)

    def _map(self, bint fresh, bytes boot):
        """Map control and index; fresh: a new control file with every mark and lock anew."""
        core_map(live(self), self.path, fresh, boot)

    def _load(self, bytes checkpoint):
        """Put a checkpoint file in place: (position, clean), or None if it is not whole."""
        cdef checkpoint_t head
        if not checkpoint_load(live(self), <const uint8_t*>PyBytes_AS_STRING(checkpoint), len(checkpoint), &head):
            return None
        live(self).control.checkpoint = head.position
        return head.position, bool(head.clean)

    def _replay(self, uint64_t position, uint64_t promised):
        """Apply the frames from position: (where they end, what is known to have been promised)."""
        cdef core_t* core = live(self)
        with nogil:
            position = frames_replay(core, position, &promised)
        if core.control.full:
            raise StoreFullError(ENOSPC, "no room for the index; free some space and open again", self.path)
        return position, promised

    def _promise_after(self, uint64_t position):
        cdef core_t* core = live(self)
        with nogil:
            promise = promise_after(core, position)
        return promise

    def _frame_after(self, uint64_t position):
        """The next whole frame behind a hole: (position, its sequence number), or None."""
        cdef core_t* core = live(self)
        cdef uint64_t salt
        cdef uint64_t found
        with nogil:
            found = frame_next(core, position)
        if found == 0:
            return None
        return found, (<const frame_t*>(segment_map(core, found >> 32, &salt) + (found & BYTE))).sequence

    def _segments(self, uint64_t last, list numbers):
        """Say which segment is the last there is; of the numbers, those whose header is damaged."""
        cdef core_t* core = live(self)
        core.control.prepared = last
        return [number for number in numbers if not segment_whole(core, number)]

    def _blank(self, uint64_t position):
        """Whether no frame of the segment stands from a position on."""
        cdef core_t* core = live(self)
        cdef judged_t what
        cdef bint blank
        what.core = core
        what.position = position
        with nogil:
            what.base = segment_map(core, position >> 32, &what.salt)
            blank = what.base != NULL and guarded(blank_at, &what) == 1
        return blank

    def _create(self, uint64_t number):
        """Make one segment; raises StoreFullError."""
        cdef core_t* core = live(self)
        cdef int failed
        with nogil:
            failed = segment_create(core, number, True)
        if failed:
            raise StoreFullError(failed, f"a segment cannot be made: {os.strerror(failed)}", self.path)

    def _count_damage(self):
        add64(&live(self).control.corrupt, 1)

    def _expect(self, uint64_t sequence):
        live(self).control.sequence = sequence

    def _start(self, uint64_t end, uint64_t number, uint64_t prepared, bint go_on):
        """Make the store ready: go on at end, or in the new segment number whose header says that end is the end."""
        cdef core_t* core = live(self)
        cdef int failed
        cdef uint64_t salt = 0
        with nogil:
            leases_drop(core)
            core.control.epoch += 1
            core.control.prepared = prepared
            if go_on:
                failed = 0 if segment_map(core, end >> 32, &salt) != NULL else EIO
                core.control.salt = salt
                core.control.segment = end >> 32
                core.control.written = end
            else:
                failed = segment_begin(core, number, end)
            core.control.durable = core.control.written
            live_room(core, core.control.segment)
        if failed:
            raise OSError(failed, os.strerror(failed), self.path)
        store32(&core.control.ready, 1)

    def _suspect(self):
        """Note what may have been in flight when the last life ended without a close."""
        suspects_note(live(self))

    def _left(self):
        """Say in the control file that the store was closed, by the one who was alone in it."""
        store32(&live(self).control.ready, CONTROL_CLOSED)

    def _begin(self, str durability, maintenance):
        """The last step of opening: the lane of callers without a loop, and the maintenance thread."""
        self.durability = durability
        self.direct = lane_new(live(self))
        if self.direct == NULL:
            raise MemoryError()
        self.maintenance = maintenance
        self.lanes = weakref.WeakSet()
        _open_stores.add(self)

    def _closing(self):
        """Let nobody in any more and wait for those inside; False if another thread closes already."""
        cdef core_t* core = live(self)
        if add32(&core.closing, 1) > 1:
            return False
        with nogil:
            # Receivers that wait for messages are woken; those that wait for the disk get it.
            while load32(&core.users):
                add32(&core.control.arrival_word, 1)
                futex_wake(&core.control.arrival_word)
                add32(&core.control.due_word, 1)
                futex_wake(&core.control.due_word)
                futex_wait(&core.users, load32(&core.users), 1000)
        return True

    def _end(self):
        """Free what the process holds; batches still held keep the maps until the last of them goes."""
        cdef core_t* core = <core_t*>self.core
        if core == NULL or core.closed == RELEASED:
            return
        core.closed = RELEASED
        # It refers to us.
        self.maintenance = None
        lane_free(<lane_t*>self.direct)
        self.direct = NULL
        wheel_free(core)
        core_release(core)

    def _lock_fd(self):
        return live(self).lock_fd

    def _maintenance(self):
        return self.maintenance

    def _rest(self, uint64_t most_ms):
        """Sleep until there is something to maintain, 50 ms at least; in the maintenance thread."""
        cdef core_t* core = live(self)
        with nogil:
            core_rest(core, most_ms * 1000)

    def _rouse(self):
        """End the maintenance thread's sleep."""
        cdef core_t* core = live(self)
        add32(&core.rested, 1)
        futex_wake(&core.rested)

    def _due_checkpoint(self, uint64_t after):
        cdef control_t* control = live(self).control
        return control.written > control.checkpoint and (
            (control.written >> 32) != (control.checkpoint >> 32)
            or control.written - control.checkpoint > after)

    def _fault(self, uint32_t kind, int error, uint64_t after=0):
        """For tests: let a coming pwrite (1), fdatasync (2) or segment creation (3) fail with this errno."""
        cdef core_t* core = live(self)
        core.fault_errno = error
        core.fault_after = after
        core.fault_kind = kind

    def _clock(self, int64_t ahead_us):
        """For tests: set the clock of the store ahead, or back, in all its processes."""
        store64(&live(self).control.clock_ahead_us, <uint64_t>ahead_us)

    def _trace(self, int fd):
        """For tests: note every write and sync of the log in an open file; -1 ends it."""
        live(self).trace_fd = fd

    cdef int scan(self, uint32_t queue_id, uint64_t offset, uint32_t count, uint32_t max_bytes,
                  taken_t* out, uint64_t* pin) noexcept nogil:
        if (<core_t*>self.core).closed:
            return -NOT_FOUND
        return queue_scan(<core_t*>self.core, queue_id, offset, count, max_bytes, out, pin)

    cdef void pin_release(self, uint64_t pin) noexcept nogil:
        cdef core_t* core = <core_t*>self.core
        pin_give(core)
        if core.closed == RELEASED:
            core_release(core)

    cdef int extend_(self, const receipt_t* receipts, uint32_t count, uint32_t lease_ms,
                     uint8_t* verdicts) noexcept nogil:
        if (<core_t*>self.core).closed:
            memset(verdicts, STALE, count)
            return 0
        return receipts_settle(<core_t*>self.core, receipts, count, LEASED, lease_ms, verdicts)

    cdef uint64_t next_due(self, uint32_t queue, uint32_t group) noexcept nogil:
        cdef queue_t* home
        cdef group_t* held
        if (<core_t*>self.core).closed:
            return 0
        home = find_queue(<core_t*>self.core, queue) if group == 0 else NULL
        held = find_group(<core_t*>self.core, home.group if home != NULL else group)
        if held != NULL and held.behind:
            return 1            # it is not over: come again at once
        if held == NULL or held.root.page == 0 or held.root.page == FULL or held.root.due == NEVER:
            return 0
        return held.root.due

    cdef uint32_t leased(self, uint32_t queue, uint32_t group) noexcept nogil:
        return 0 if (<core_t*>self.core).closed else group_leased(<core_t*>self.core, queue, group)

    def close(self):
        """Leave the store; the last one out writes a checkpoint, so that the next open reads no log."""
        from penstock.engine.store import close_store
        close_store(self)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close()
