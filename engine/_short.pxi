# Receipts as one number, for protocols whose handles have 63 bits: the low 31 bits of the offset, then 32 bits of the
# receipt's keyed hash. The rest is found again in the group: the offset by its window, the number of the lease in its
# slot. So nothing is stored for one, every process makes and reads the same ones, and one that is late, or was made
# up, fits no lease.

cdef enum:
    SHORT_BITS = 31             # of the offset; beside them 32 of the hash, below 2^63 in all


cdef int receipt_whole(Store store, uint32_t queue_id, uint32_t group_id, uint64_t short_,
                       receipt_t* out) noexcept nogil:
    """The receipt that a number stands for. DONE; STALE if it is late or made up; NOT_FOUND: no such queue or group."""
    cdef core_t* core = <core_t*>store.core
    cdef queue_t* queue = find_queue(core, queue_id)
    cdef group_t* group
    cdef uint64_t window = <uint64_t>1 << SHORT_BITS
    cdef uint64_t offset, mac
    cdef path_t path
    cdef int verdict = STALE
    if queue == NULL:
        return NOT_FOUND
    group = find_group(core, group_id if group_id else queue.group)
    if group == NULL or group.queue != queue_id:
        return NOT_FOUND
    stripe_lock(core, group)
    offset = group.floor // window * window + (short_ >> 32 & (window - 1))
    if offset < group.floor:
        offset += window
    # With a filter, what is leased can lie before the cursor as well as behind it, after a crash.
    while offset < load64(&queue.next) and short_ >> 63 == 0:
        if tree_find(core, group, offset, False, &path) == DONE and path.slot.state == LEASED:
            mac = receipt_mac(core, group, offset, path.slot.nonce)
            if <uint32_t>mac == <uint32_t>short_:
                out.offset = offset
                out.group = group.id
                out.nonce = path.slot.nonce
                out.mac = mac
                verdict = DONE
                break
        offset += window
    stripe_unlock(core, group)
    return verdict


def short_receipts(receipts):
    """Each receipt as a number below 2^63."""
    cdef bytes raw = _receipts(receipts)
    cdef const receipt_t* given = <const receipt_t*>PyBytes_AS_STRING(raw)
    return [receipt_short(given + at) for at in range(len(raw) // sizeof(receipt_t))]


def whole_receipts(Consumer group, numbers):
    """The receipt (bytes) that each number stands for now, None for one that is late or made up."""
    cdef Store store = group.queue.store
    cdef receipt_t receipt
    cdef uint64_t short_
    cdef uint32_t queue = group.queue.id
    cdef uint32_t id = group.id
    cdef int verdict
    found = []
    for number in numbers:
        short_ = number if 0 <= number < 1 << 63 else NEVER
        enter(store)
        with nogil:
            verdict = receipt_whole(store, queue, id, short_, &receipt)
            leave(<core_t*>store.core)
        if verdict == NOT_FOUND:
            raise_verdict(verdict, f"group {group.name!r} of queue {group.queue.name!r}")
        found.append((<const char*>&receipt)[:sizeof(receipt_t)] if verdict == DONE else None)
    return found
