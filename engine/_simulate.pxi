# For benchmarks: a queue with more messages than a disk holds, and the look into an index alone.


def _simulate(Queue queue not None, uint64_t to):
    """Let the queue's next message get this offset, as if all before it had been stored.

    The index gets every page that it would have: nodes are filled in, leaves stay holes in the file. No record says
    so, hence the store is good for nothing but measuring.
    """
    cdef core_t* core = enter(queue.store)
    cdef uint32_t id = queue.id
    cdef queue_t* slot
    cdef uint64_t pages, end
    cdef int failed
    with nogil:
        store_lock(core)
        slot = find_queue(core, id)
        failed = ENOENT if slot == NULL else 0
        pages = (to - min(to, slot.next)) // LEAF if failed == 0 else 0
        end = (core.control.state.index_pages + pages + pages // (FAN // 2) + 256) * PAGE
        failed = failed or index_reach(core, end)
        if failed == 0 and ftruncate(core.index_fd, end):
            failed = errno
        if failed == 0:
            core.control.index_allocated = end
            while slot.next < to:
                index_append(core, slot)
                store64(&slot.next, min(to, (slot.next // LEAF + 1) * LEAF))
        pthread_mutex_unlock(&core.control.store_lock)
        leave(core)
    if failed:
        raise OSError(failed, "the index cannot grow so far")


def _look_up(Queue queue not None, const uint64_t[::1] offsets):
    """How many of these offsets have an entry that leads to a record."""
    cdef core_t* core = enter(queue.store)
    cdef queue_t* slot = find_queue(core, queue.id)
    cdef uint64_t at, found = 0
    with nogil:
        for at in range(<uint64_t>offsets.shape[0]):
            if slot != NULL and offsets[at] < load64(&slot.next):
                found += index_leaf(core, slot, offsets[at])[offsets[at] % LEAF].position != 0
        leave(core)
    return found
