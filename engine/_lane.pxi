# The event loop's face: staging without waiting, results through a file descriptor.


cdef class Lane:
    """A staging lane with a committer thread of its own; fileno() gets readable when results wait."""

    def __init__(self, Store store):
        cdef core_t* core = enter(store)
        cdef lane_t* lane
        try:
            lane = lane_new(core)
            if lane == NULL:
                raise MemoryError()
            lane.threaded = 1
            if thread_start(&lane.thread, lane_run, lane):
                lane_free(lane)
                raise OSError("the committer thread could not be started")
            if thread_start(&lane.assistant, lane_assist, lane):
                lane_stop(lane)
                lane_free(lane)
                raise OSError("the second committer thread could not be started")
            lane.assisted = 1
            self.store = store
            self.lane = lane
            store.lanes.add(self)
        finally:
            leave(core)

    def fileno(self):
        return (<lane_t*>self.lane).event

    def close(self):
        """Commit what is staged and stop the thread."""
        cdef lane_t* lane = <lane_t*>self.lane
        if lane == NULL:
            return
        self.lane = NULL
        if (<core_t*>self.store.core).closed == 1:
            return              # a child after fork: the thread is its parent's
        with nogil:
            lane_stop(lane)
            lane_free(lane)

    def __dealloc__(self):
        self.close()

    cdef int stage_one(self, uint64_t cookie, uint32_t queue, uint8_t durability, uint64_t producer, uint64_t sequence,
                       const uint8_t* ext, uint16_t ext_size, const uint8_t* body, uint32_t body_size) noexcept nogil:
        cdef lane_t* lane = <lane_t*>self.lane
        cdef round_t* round
        cdef uint32_t place
        return bodies_stage(lane.core, lane, cookie, queue, durability, producer, sequence, 1, &body_size, body,
                            body_size, ext, ext_size, False, &round, &place, NULL)

    cdef int stage_batch(self, uint64_t cookie, uint32_t queue, uint8_t durability, uint64_t producer,
                         uint64_t sequence, uint32_t count, const uint8_t* sizes_u32, const uint8_t* bodies,
                         uint64_t bodies_size) noexcept nogil:
        cdef lane_t* lane = <lane_t*>self.lane
        cdef round_t* round
        cdef uint32_t place
        return bodies_stage(lane.core, lane, cookie, queue, durability, producer, sequence, count,
                            <const uint32_t*>sizes_u32, bodies, bodies_size, NULL, 0, False, &round, &place, NULL)

    cdef uint64_t now_us(self) noexcept nogil:
        return store_clock((<lane_t*>self.lane).core)

    cdef int stage_aside(self, uint64_t cookie, uint32_t queue, uint8_t durability, uint64_t producer,
                         uint64_t sequence, uint32_t count, const uint8_t* sizes_u32, const uint8_t* bodies,
                         uint64_t bodies_size, const uint8_t* ext, uint16_t ext_size, uint64_t due_us,
                         uint32_t check_ms) noexcept nogil:
        cdef lane_t* lane = <lane_t*>self.lane
        cdef round_t* round
        cdef uint32_t place
        cdef aside_t aside
        cdef bint now = aside_fill(lane.core, &aside, due_us, check_ms)
        return bodies_stage(lane.core, lane, cookie, queue, durability, producer, sequence, count,
                            <const uint32_t*>sizes_u32, bodies, bodies_size, ext, ext_size, False, &round, &place,
                            NULL if now else &aside)

    cdef int stage_event(self, uint64_t cookie, int event, uint64_t id) noexcept nogil:
        cdef lane_t* lane = <lane_t*>self.lane
        cdef round_t* round
        cdef uint32_t place
        return event_stage(lane.core, lane, cookie, event, id,
                           REASON_ROLLBACK if event == EVENT_ROLLBACK else REASON_ASKED, 0, False, &round, &place)

    cdef int stage_fanout(self, uint64_t cookie, const uint32_t* queues, uint32_t count, uint8_t durability,
                          uint64_t producer, uint64_t sequence, const uint8_t* ext, uint16_t ext_size,
                          const uint8_t* body, uint32_t body_size, uint32_t notes, uint32_t home) noexcept nogil:
        cdef lane_t* lane = <lane_t*>self.lane
        cdef round_t* round
        cdef uint32_t place
        return fanout_stage(lane.core, lane, cookie, queues, count, durability, producer, sequence, ext, ext_size,
                            body, body_size, notes, home, False, &round, &place)

    cdef int stage_confirm(self, uint64_t cookie, const receipt_t* receipts, uint32_t count,
                           uint8_t* verdicts) noexcept nogil:
        cdef lane_t* lane = <lane_t*>self.lane
        cdef round_t* round
        cdef uint32_t place
        return confirm_stage(lane.core, lane, cookie, receipts, count, verdicts, False, False, &round, &place)

    cdef int stage_confirm_again(self, uint64_t cookie, const receipt_t* receipts, uint32_t count,
                                 uint8_t* verdicts) noexcept nogil:
        cdef lane_t* lane = <lane_t*>self.lane
        cdef round_t* round
        cdef uint32_t place
        return confirm_stage(lane.core, lane, cookie, receipts, count, verdicts, False, True, &round, &place)

    cdef int take(self, uint32_t queue, uint32_t group, uint32_t count, uint32_t max_bytes, uint32_t lease_ms,
                  taken_t* out, uint64_t* pin) noexcept nogil:
        cdef lane_t* lane = <lane_t*>self.lane
        return delivery_take(lane.core, lane, queue, group, count, max_bytes, lease_ms, out, pin)

    cdef int release_(self, const receipt_t* receipts, uint32_t count, uint32_t delay_ms, const uint8_t* text,
                      uint16_t text_size, uint8_t* verdicts) noexcept nogil:
        cdef lane_t* lane = <lane_t*>self.lane
        return release_noted(lane.core, lane, receipts, count, delay_ms, text, text_size, verdicts)

    cdef void kick(self) noexcept nogil:
        lane_kick(<lane_t*>self.lane)

    cdef bint brief(self) noexcept nogil:
        return lane_brief(<lane_t*>self.lane)

    cdef bint commit(self) noexcept nogil:
        return lane_commit(<lane_t*>self.lane)

    cdef uint32_t sync_us(self) noexcept nogil:
        return load32(&(<lane_t*>self.lane).sync_us)

    cdef bint resting(self) noexcept nogil:
        return load32(&(<lane_t*>self.lane).asleep)

    cdef int drain(self, operation_t* out, int room) noexcept nogil:
        cdef lane_t* lane = <lane_t*>self.lane
        cdef round_t* round
        cdef int found = 0
        if load32(&lane.told):
            event_clear(lane.event)
            swap32(&lane.told, 0)       # before the look, so that whoever is done after it tells again
        pthread_mutex_lock(&lane.lock)
        while lane.done_first != NULL:
            round = lane.done_first
            while round.drained < round.count and found < room:
                if round.operations[round.drained].cookie != NEVER:
                    out[found] = round.operations[round.drained]
                    found += 1
                round.drained += 1
            if round.drained < round.count:
                lane_tell(lane)
                break
            lane.done_first = round.next
            if lane.done_first == NULL:
                lane.done_last = NULL
            lane_rest(lane, round)
        pthread_mutex_unlock(&lane.lock)
        return found

    cdef void watch(self, bint waiting) noexcept nogil:
        cdef lane_t* lane = <lane_t*>self.lane
        if lane.watching != <uint32_t>waiting:
            store32(&lane.watching, waiting)
            if waiting:
                lane_kick(lane)

    cdef uint32_t arrivals(self) noexcept nogil:
        return load32(&(<lane_t*>self.lane).core.control.arrival_word)

    cdef int woken(self, uint32_t* out, int room) noexcept nogil:
        # After a commit every parked receiver looks for itself: a look costs less than keeping the books would.
        cdef lane_t* lane = <lane_t*>self.lane
        cdef control_t* control = lane.core.control
        cdef uint32_t common = load32(&control.common_word)
        cdef uint32_t count = load32(&control.freed_count)
        cdef uint64_t freed
        cdef int found = 0
        if common != lane.common_seen or count - lane.freed_seen > <uint32_t>min(room, <int>FREED):
            lane.common_seen = common
            lane.freed_seen = count
            return -1
        while lane.freed_seen != count:
            freed = load64(&control.freed[(lane.freed_seen + 1) % FREED])
            if freed >> 32 != <uint32_t>(lane.freed_seen + 1):
                break           # counted and not written yet: it will tell
            out[found] = <uint32_t>freed
            found += 1
            lane.freed_seen += 1
        return found

    # The same for Python; see engine/aio.py. 1: it is staged, 0: the lane is full, -1: there is nothing to do.

    def _append(self, uint64_t cookie, Queue queue not None, body, *, bytes ext=b"", attributes=None, durability=None,
                uint64_t producer=0, uint64_t sequence=0):
        cdef Py_buffer view
        cdef int verdict
        cdef int level = level_of(self.store, durability)
        cdef const uint8_t* text
        cdef uint16_t text_size
        cdef uint32_t id = queue.id
        cdef core_t* core
        ext = ext_packed(ext, attributes, &level)
        text = <const uint8_t*>PyBytes_AS_STRING(ext)
        text_size = <uint16_t>len(ext)
        PyObject_GetBuffer(body, &view, PyBUF_SIMPLE)
        try:
            core = enter(self.store)
        except StoreClosedError:
            PyBuffer_Release(&view)
            raise
        if view.len > 0x7FFFFFFF:
            verdict = TOO_LARGE
        elif view.len <= COPIED_AT_ONCE:
            verdict = self.stage_one(cookie, id, <uint8_t>level, producer, sequence, text, text_size,
                                     <const uint8_t*>view.buf, <uint32_t>view.len)
        else:
            with nogil:
                verdict = self.stage_one(cookie, id, <uint8_t>level, producer, sequence, text, text_size,
                                         <const uint8_t*>view.buf, <uint32_t>view.len)
        leave(core)
        PyBuffer_Release(&view)
        if verdict != BUSY:
            raise_verdict(verdict, f"append to queue {queue.name!r}")
        return verdict == DONE

    def _append_packed(self, uint64_t cookie, Queue queue not None, bytes bodies, sizes, *, durability=None,
                       uint64_t producer=0, uint64_t sequence=0):
        cdef const uint32_t[::1] lengths = np.asarray(sizes, dtype=np.uint32)
        cdef const uint8_t* packed = <const uint8_t*>PyBytes_AS_STRING(bodies)
        cdef uint64_t packed_size = PyBytes_GET_SIZE(bodies)
        cdef uint8_t level = <uint8_t>level_of(self.store, durability)
        cdef uint32_t id = queue.id
        cdef int verdict
        cdef core_t* core
        if lengths.shape[0] == 0:
            raise InvalidError("an empty batch")
        core = enter(self.store)
        with nogil:
            verdict = self.stage_batch(cookie, id, level, producer, sequence, <uint32_t>lengths.shape[0],
                                       <const uint8_t*>&lengths[0], packed, packed_size)
            leave(core)
        if verdict != BUSY:
            raise_verdict(verdict, f"append to queue {queue.name!r}")
        return verdict == DONE

    def _confirm(self, uint64_t cookie, receipts, bytearray verdicts not None, bint again=False):
        cdef bytes raw = _receipts(receipts)
        cdef uint32_t count = <uint32_t>(len(raw) // sizeof(receipt_t))
        cdef const receipt_t* given = <const receipt_t*>PyBytes_AS_STRING(raw)
        cdef uint8_t* out = <uint8_t*>PyByteArray_AS_STRING(verdicts)
        cdef int staged
        cdef core_t* core
        assert len(verdicts) == count
        core = enter(self.store)
        with nogil:
            staged = self.stage_confirm_again(cookie, given, count, out) if again \
                else self.stage_confirm(cookie, given, count, out)
            leave(core)
        if staged > 0 and staged != BUSY:
            raise_verdict(staged, "confirm")
        return -1 if staged < 0 else staged == DONE

    def _results(self):
        """What was committed: a list of (cookie, SendReceipt or exception)."""
        cdef operation_t[256] done
        cdef int count = 256
        cdef int at
        cdef list out = []
        while count == 256:
            with nogil:
                count = self.drain(done, 256)
            for at in range(count):
                try:
                    if done[at].kind == KIND_CONFIRM:
                        raise_verdict(done[at].verdict, "confirm")
                    out.append((done[at].cookie, receipt_of(&done[at])))
                except EngineError as error:
                    out.append((done[at].cookie, error))
        return out

    def _kick(self):
        self.kick()

    def _commit(self):
        """As a loop does; None where it leaves that to the committer."""
        cdef bint committed
        if not self.brief():
            return None
        with nogil:
            committed = self.commit()
        return committed

    def _pace(self, uint32_t sync_us):
        """For tests: as if the disk took so long."""
        store32(&(<lane_t*>self.lane).sync_us, sync_us)

    def _hold(self, uint32_t place, bint held):
        """For tests: who comes first there waits until it is let go. 0 and 1: syncs, 2: a commit, 3: a failed sync."""
        store32(&(<lane_t*>self.lane).core.held[place], held)

    def _holding(self, uint32_t place):
        """For tests: whether somebody waits there."""
        return load32(&(<lane_t*>self.lane).core.held[place]) == 2

    def _watch(self, bint waiting):
        if self.lane != NULL:
            self.watch(waiting)

    def _due_in(self, Consumer group not None):
        """Seconds until a lease or delay of the group ends; None if there is none."""
        cdef uint64_t now = store_clock(live(self.store))
        cdef uint64_t due = self.store.next_due(group.queue.id, group.id)
        if due == 0:
            return None
        return (due - now) / 1e6 if due > now else 0.0
