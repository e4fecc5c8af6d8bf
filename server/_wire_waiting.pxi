# Receivers that found nothing: who they are, and what serves them.

cdef double RETRY_S = 0.2   # a safety net under the wake-ups, for what other processes do
cdef double LOOKS_A_S = 20000.0     # at most about so many groups are looked at by that net

cdef enum:
    CALLED_AT_ONCE = 4      # futures that one arrival wakes: each costs a call on a thread


@cython.final
cdef class Parked:
    """One request that waits for a message: of a native connection, or a future of the HTTP door."""
    cdef Framed endpoint
    cdef object future
    cdef uint8_t verb
    cdef uint32_t tag, queue, group, max_messages, max_bytes, lease_ms
    cdef uint64_t offset
    cdef bint gone


@cython.final
cdef class WaitingRoom:
    """Who waits for which queue and group, in the order they came.

    Invariants:
      1. queues[queue][group] holds the parked that are not gone, first come first; readers, who
         take nothing from one another, are under the group -1.
      2. timers is a heap; whatever is in rooms has its deadline in it.
      3. One loop timer is set, for the earliest entry.
    """
    cdef Hub hub
    cdef dict queues, due_at
    cdef list timers
    cdef object timer
    cdef double timer_at
    cdef uint64_t serial
    cdef readonly uint32_t count

    def __cinit__(self, Hub hub):
        self.hub = hub
        self.queues = {}
        self.due_at = {}
        self.timers = []

    cdef int park(self, Parked parked, uint32_t wait_ms) except -1:
        cdef int64_t group = -1 if parked.verb == READ else <int64_t>parked.group
        groups = self.queues.setdefault(parked.queue, {})
        groups.setdefault(group, OrderedDict())[parked] = None
        if parked.endpoint is not None:
            if parked.endpoint.waits is None:
                parked.endpoint.waits = {}
            parked.endpoint.parked += 1
            parked.endpoint.waits[parked] = None
        self.count += 1
        self.hub.lane.watch(True)
        self.at(monotonic() + wait_ms / 1000.0, parked)
        if group >= 0:
            self.watch(parked.queue, group)
        return 0

    cdef int remove(self, Parked parked) except -1:
        cdef int64_t group = -1 if parked.verb == READ else <int64_t>parked.group
        if parked.gone:
            return 0
        parked.gone = True
        self.count -= 1
        self.hub.lane.watch(self.count > 0)
        groups = self.queues[parked.queue]
        del groups[group][parked]
        if not groups[group]:
            del groups[group]
            if not groups:
                del self.queues[parked.queue]
        if parked.endpoint is not None:
            parked.endpoint.parked -= 1
            del parked.endpoint.waits[parked]
        return 0

    cdef int watch(self, uint32_t queue, int64_t group) except -1:
        """Come back when a lease or a delay of the group runs out."""
        cdef double now = monotonic()
        cdef double when = now + RETRY_S + len(self.due_at) / LOOKS_A_S
        cdef uint64_t due = self.hub.store.next_due(queue, <uint32_t>group)
        if due:
            when = min(when, now + max(0.001, due / 1e6 - time() + 0.0005))
        key = (queue, group)
        if self.due_at.get(key, 1e300) > when:
            self.due_at[key] = when
            self.at(when, key)
        return 0

    cdef int at(self, double when, item) except -1:
        self.serial += 1
        heappush(self.timers, (when, self.serial, item))
        if self.timer is None or when < self.timer_at:
            if self.timer is not None:
                self.timer.cancel()
            self.set_timer(when)
        return 0

    cdef int set_timer(self, double when) except -1:
        self.timer_at = when
        self.timer = self.hub.loop.call_later(max(0.0, when - monotonic()), self.on_timer)
        return 0

    def on_timer(self):
        cdef Parked parked
        cdef double now = monotonic() + 0.0005
        self.timer = None
        while self.timers and self.timers[0][0] <= now:
            item = heappop(self.timers)[2]
            if isinstance(item, Parked):
                parked = <Parked>item
                if not parked.gone:
                    self.remove(parked)
                    self.answer_nothing(parked)
            else:
                self.due_at.pop(item, None)
                self.wake_group(item[0], item[1])
        # Requests that were answered long before their deadline would else fill the heap.
        if len(self.timers) > 1024 and len(self.timers) > 4 * self.count:
            self.timers = [one for one in self.timers if not is_gone(one[2])]
            self.timers.sort()
        if self.timers and self.timer is None:
            self.set_timer(self.timers[0][0])
        self.hub.flush()

    cdef int answer_nothing(self, Parked parked) except -1:
        if parked.future is not None:
            if not parked.future.done():
                parked.future.set_result(None)
        elif parked.endpoint.transport is not None:
            parked.endpoint.reply_empty(parked.verb, parked.tag)
            parked.endpoint.touch()
        return 0

    cdef int wake_queue(self, uint32_t queue) except -1:
        groups = self.queues.get(queue)
        if groups is not None:
            for group in list(groups):
                self.wake_group(queue, group)
        return 0

    cdef int wake_all(self) except -1:
        for queue in list(self.queues):
            self.wake_queue(queue)
        return 0

    cdef int wake_freed(self, uint32_t group) except -1:
        """Serve those who wait for a group, under its number or as the queue's own."""
        cdef bint own
        cdef uint32_t queue = group_queue(self.hub.store, group, &own)
        self.wake_group(queue, group)
        if own:
            self.wake_group(queue, 0)
        return 0

    cdef int wake_group(self, uint32_t queue, int64_t group) except -1:
        """Serve the waiting of one group until it is dry; readers are all tried.

        Of futures a few are woken: nobody knows what they will take. One that took something passes it on, see
        Hub.took.
        """
        cdef Parked parked
        cdef Py_ssize_t left
        cdef int called = 0
        groups = self.queues.get(queue)
        line = None if groups is None else groups.get(group)
        if line is None:
            return 0
        if group < 0:
            for one in list(line):
                self.served(<Parked>one)
            return 0
        left = len(line)
        while left and line:
            left -= 1
            parked = <Parked>next(iter(line))
            if parked.future is not None:
                called += 1
                if called > CALLED_AT_ONCE:
                    break
            if not self.served(parked):
                break
            if not parked.gone:
                line.move_to_end(parked)
        if group in self.queues.get(queue, ()):
            self.watch(queue, group)
        return 0

    cdef bint served(self, Parked parked) except -1:
        cdef int got
        if parked.future is not None:
            self.remove(parked)
            self.answer_nothing(parked)
            return True
        if parked.endpoint.out.used >= self.hub.out_bytes:
            parked.endpoint.flush()
        if parked.endpoint.held & HELD_BY_PEER:
            # It could not read the messages; whoever waits behind it can.
            return True
        with nogil:
            got = parked.endpoint.deliver(
                parked.verb, parked.tag, parked.queue, parked.group, parked.offset,
                parked.max_messages, parked.max_bytes, parked.lease_ms,
            )
        if got == 0:
            return False
        self.remove(parked)
        if got < 0:
            parked.endpoint.refuse_verdict(parked.verb, parked.tag, -got)
        parked.endpoint.touch()
        return True

    cdef int answer_all(self) except -1:
        for groups in list(self.queues.values()):
            for line in list(groups.values()):
                for parked in list(line):
                    self.remove(parked)
                    self.answer_nothing(parked)
        return 0

    cdef int forget(self, Framed endpoint) except -1:
        """The connection is lost: nobody takes messages for it any more."""
        for parked in list(endpoint.waits):
            self.remove(parked)
        return 0

    cdef int close(self) except -1:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        return 0


cdef bint is_gone(item) except -1:
    return isinstance(item, Parked) and (<Parked>item).gone
