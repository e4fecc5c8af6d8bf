# What a reader gets: arrays of numbers, and views of bodies in the mapped log.

cdef class _Body:
    """The buffer of one message in the mapped log; holds the batch, which holds the pin."""
    cdef Batch batch
    cdef const uint8_t* at
    cdef Py_ssize_t size

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, <void*>self.at, self.size, 1, flags)


cdef class Batch:
    """Messages that were read or received.

    offsets, timestamps (µs since 1970), sizes and attempts are arrays with one number a message; batch[i] is a
    read-only view of a body in the mapped log, valid as long as it is held; tolist() copies all of them.
    """
    cdef Store store
    cdef taken_t* taken
    cdef uint64_t pin
    cdef Py_ssize_t count
    cdef readonly object offsets, timestamps, sizes, attempts

    def __dealloc__(self):
        if self.pin and self.store is not None:
            self.store.pin_release(self.pin)
        free(self.taken)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        cdef _Body body
        cdef Py_ssize_t at
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.count))]
        at = index
        if at < 0:
            at += self.count
        if not 0 <= at < self.count:
            raise IndexError(index)
        body = _Body.__new__(_Body)
        body.batch = self
        body.at = self.taken[at].ext + self.taken[at].ext_size
        body.size = self.taken[at].body_size
        return memoryview(body)

    def __iter__(self):
        for at in range(self.count):
            yield self[at]

    def ext(self, Py_ssize_t at):
        """The extra bytes that were sent with a message."""
        if not 0 <= at < self.count:
            raise IndexError(at)
        return PyBytes_FromStringAndSize(<const char*>self.taken[at].ext, self.taken[at].ext_size)

    def attributes(self, Py_ssize_t at):
        """The Attributes of a message; empty if it was sent with other extra bytes or none."""
        packed = self.ext(at)
        return unpack_attributes(packed if self.taken[at].attributed else b"")

    def origin(self, Py_ssize_t at):
        """Where a message came from that was moved here (a dead letter, a redriven one): an Origin, or None."""
        cdef const origin_t* origin
        if not 0 <= at < self.count:
            raise IndexError(at)
        origin = <const origin_t*>self.taken[at].origin
        if origin == NULL:
            return None
        from penstock.engine.retries import Origin, REASONS
        name = self.taken[at].origin_name[:self.taken[at].origin_name_size] if self.taken[at].origin_name_size else b""
        return Origin(queue=origin.queue, queue_name=name.decode(), group=origin.group, offset=origin.offset,
                      sent_us=self.taken[at].sent_us, attempts=origin.attempts,
                      reason=REASONS.get(origin.reason, str(origin.reason)),
                      text=(<const char*>(origin + 1))[:origin.text_size].decode(errors="replace"))

    @property
    def receipts(self):
        """The receipts, 24 bytes each, in order: what confirm, release and extend take."""
        cdef Py_ssize_t at
        cdef bytes out = PyBytes_FromStringAndSize(NULL, self.count * sizeof(receipt_t))
        cdef receipt_t* to = <receipt_t*>PyBytes_AS_STRING(out)
        for at in range(self.count):
            to[at] = self.taken[at].receipt
        return out

    def tolist(self):
        """The bodies, copied."""
        cdef Py_ssize_t at
        cdef list out = [None] * self.count
        cdef bytes body
        cdef char* to
        for at in range(self.count):
            body = PyBytes_FromStringAndSize(NULL, self.taken[at].body_size)
            to = PyBytes_AS_STRING(body)
            if self.taken[at].body_size > COPIED_AT_ONCE:
                with nogil:
                    memcpy(to, self.taken[at].ext + self.taken[at].ext_size, self.taken[at].body_size)
            else:
                memcpy(to, self.taken[at].ext + self.taken[at].ext_size, self.taken[at].body_size)
            out[at] = body
        return out


cdef Batch batch_new(Store store, taken_t* taken, int count, uint64_t pin):
    """Takes over taken (malloc'd) and the pin."""
    cdef Batch batch = Batch.__new__(Batch)
    cdef int at
    batch.store = store
    batch.taken = taken
    batch.count = count
    batch.pin = pin if count else 0
    cdef uint64_t[::1] offsets = np.empty(count, np.uint64)
    cdef uint64_t[::1] times = np.empty(count, np.uint64)
    cdef uint32_t[::1] sizes = np.empty(count, np.uint32)
    cdef uint32_t[::1] attempts = np.empty(count, np.uint32)
    for at in range(count):
        offsets[at] = taken[at].receipt.offset
        times[at] = taken[at].stored_us
        sizes[at] = taken[at].body_size
        attempts[at] = taken[at].attempts
    batch.offsets = np.asarray(offsets)
    batch.timestamps = np.asarray(times)
    batch.sizes = np.asarray(sizes)
    batch.attempts = np.asarray(attempts)
    return batch
