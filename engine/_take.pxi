# Taking messages and settling receipts: delivery state, index and log together.

cdef enum:
    BEFORE = 100                # while a confirmation is staged: it was confirmed already
    DAMAGED_US = 3600000000     # how long a damaged message is out of the way


cdef bint message_find(core_t* core, queue_t* queue, uint64_t offset, taken_t* out, uint64_t before,
                       uint64_t max_bytes, uint64_t* total) noexcept nogil:
    """Find, judge and describe a visible message. False if it is damaged, or over the room left (total tells)."""
    cdef entry_t* entry = index_leaf(core, queue, offset) + offset % LEAF
    cdef const record_t* record
    cdef const record_t* message = NULL
    total[0] = before + entry.size
    if total[0] > max_bytes:
        return False
    total[0] = before
    # The entry is derived data: it must not lead outside the segment, nor to another message's record.
    record = record_at(core, entry.position)
    if record != NULL and puts_message(record, entry, queue.id, offset):
        message = message_of(core, record)
    if message == NULL:
        add64(&core.control.corrupt, 1)
        return False
    total[0] = before + message_room(message)
    out.receipt.offset = offset
    out.stored_us = record.stored_us
    out.sent_us = message.stored_us
    out.ext_size = message.ext_size
    out.body_size = message_size(message)
    out.attributed = (message.flags & RECORD_ATTRIBUTED) != 0
    out.ext = record_ext(message)
    out.origin = record_body(record) if record.type == RECORD_PLACE and record.body_size >= sizeof(origin_t) else NULL
    if out.origin != NULL and (<const origin_t*>out.origin).reason == REASON_DUE:
        out.origin = NULL
    if out.origin != NULL:
        origin_name(core, <const origin_t*>out.origin, out)
    return True


cdef void origin_name(core_t* core, const origin_t* origin, taken_t* out) noexcept nogil:
    """Say what the queue is called that a message was moved from."""
    cdef queue_t* home = find_queue(core, origin.queue)
    out.origin_name = home.name if home != NULL else NULL
    out.origin_name_size = home.name_size if home != NULL else 0


cdef int queue_scan(core_t* core, uint32_t queue_id, uint64_t offset, uint32_t count, uint32_t max_bytes,
                    taken_t* out, uint64_t* pin) noexcept nogil:
    """Read up to count messages from an offset on, taking none. How many, or a negative verdict."""
    cdef queue_t* queue = find_queue(core, queue_id)
    cdef uint64_t end
    cdef uint64_t bytes_ = 0
    cdef int found = 0
    if queue == NULL:
        return -NOT_FOUND
    pin_take(core, pin)
    end = visible_end(core, queue)
    offset = max(offset, load64(&queue.first))
    while offset < end and found < <int>count:
        if message_find(core, queue, offset, out + found, bytes_, max_bytes if found else 0xFFFFFFFF, &bytes_):
            if bytes_ > max_bytes and found:
                break
            out[found].receipt.group = 0
            out[found].receipt.nonce = 0
            out[found].receipt.mac = 0
            out[found].attempts = 0
            found += 1
        elif bytes_ > max_bytes:
            break
        offset += 1
    if found == 0:
        pin_give(core)
    return found


cdef uint64_t receipt_mac(core_t* core, const group_t* group, uint64_t offset, uint32_t nonce) noexcept nogil:
    cdef uint64_t words[3]
    words[0] = offset
    words[1] = <uint64_t>group.id << 32 | nonce
    words[2] = group.queue
    return siphash(core.key, words, 3)


cdef int delivery_take(core_t* core, lane_t* lane, uint32_t queue_id, uint32_t group_id, uint32_t count,
                       uint32_t max_bytes, uint32_t lease_ms, taken_t* out, uint64_t* pin) noexcept nogil:
    """Lease up to count messages; the lane takes the record of those that come again. The number taken, or a negative
    verdict."""
    cdef queue_t* queue = find_queue(core, queue_id)
    cdef group_t* group
    cdef int found = 0
    cdef uint32_t generation
    cdef uint64_t suspects
    cdef deads_t deads
    deads.count = 0
    if queue == NULL:
        return -NOT_FOUND
    group = find_group(core, group_id if group_id else queue.group)
    if group == NULL or group.queue != queue_id:
        return -NOT_FOUND
    if load32(&core.control.poisoned):
        return -POISONED
    group_id = group.id
    pin_take(core, pin)
    stripe_lock(core, group)
    # It may have been removed while we waited, and its slot may have another by now.
    if group_id and group.id == group_id:
        found = group_take(core, queue, group, count, max_bytes, lease_ms * <uint64_t>1000, out, &deads)
    generation = group.generation
    suspects = group.suspects
    stripe_unlock(core, group)
    if deads.count:
        deads_move(core, lane, deads.at, deads.count, NULL, 0)
    if found <= 0:
        pin_give(core)
    else:
        leases_record(core, lane, queue_id, out.receipt.group, generation, suspects, out, found)
    return found


cdef int group_take(core_t* core, queue_t* queue, group_t* group, uint32_t count, uint32_t max_bytes,
                    uint64_t lease_us, taken_t* out, deads_t* deads) noexcept nogil:
    cdef uint64_t now = store_clock(core)
    cdef uint64_t end = visible_end(core, queue)
    cdef uint64_t first = load64(&queue.first)
    cdef uint64_t total = 0
    cdef uint64_t offset = 0
    cdef int budget = 65536
    cdef int found = 0
    cdef int got
    cdef bint again
    cdef path_t path
    cdef filter_t filter
    cdef const policy_t* policy = policy_of(core, group)
    cdef filter_t* filtered = &filter if filter_of(core, group, &filter) else NULL
    expire(core, &group.root, group.height, now, &budget)
    group.behind = 0
    if group.floor < first:
        group_trim(core, group, first)
    if group.order and not order_whole(core, group):
        return -STORE_FULL
    while found < <int>count:
        again = ready_first(core, group, &path, &offset)
        if again and (offset < first or offset >= end):
            # Purged while it was in flight: nothing to deliver any more.
            slot_confirm(core, group, &path)
            if group.order:
                order_done(core, group, offset)
            continue
        if again:
            if group.order and not order_first(core, queue, group, offset):
                continue
            if used_up(policy, path.slot):
                if deads.count == DEADS:
                    break
                dying(core, group, &path, offset, now, policy, REASON_ATTEMPTS, deads.at + deads.count)
                deads.count += 1
                continue
        else:
            got = fresh_next(core, queue, group, filtered, group.cursor if group.frozen else end, now, &path, &offset)
            if got == STORE_FULL:
                return found if found else -STORE_FULL
            if got != DONE:
                break
        if not message_find(core, queue, offset, out + found, total, max_bytes if found else NEVER, &total):
            if total > max_bytes and found:
                if not again:
                    group.cursor -= 1
                    if group.order:
                        order_leave(core, queue, group, offset)
                break
            # Damaged: counted, kept, out of the way for an hour; the others are served.
            slot_lease(group, &path, now + <uint64_t>DAMAGED_US)
            if group.order:
                order_done(core, group, offset)
            continue
        slot_lease(group, &path, now + lease_us)
        taken_sign(core, group, &path, offset, out + found)
        found += 1
    return found


cdef inline void taken_sign(core_t* core, group_t* group, const path_t* path, uint64_t offset,
                            taken_t* out) noexcept nogil:
    """The receipt of a message that was just leased."""
    out.attempts = path.slot.attempts
    out.receipt.group = group.id
    out.receipt.nonce = path.slot.nonce
    out.receipt.mac = receipt_mac(core, group, offset, path.slot.nonce)


cdef int fresh_next(core_t* core, queue_t* queue, group_t* group, filter_t* filter, uint64_t end, uint64_t now,
                    path_t* path, uint64_t* offset) noexcept nogil:
    """The next message before end that was never taken, the cursor put behind it. DONE, STORE_FULL, or NOT_FOUND:
    there is none, or (group.behind) none yet."""
    cdef int got
    cdef int passed = 0
    while True:
        if filter != NULL and group.cursor < end:
            got = filter_pass(core, queue, group, filter, end, now + PASS_US)
            if got != DONE:
                return STORE_FULL if got == STORE_FULL else NOT_FOUND
        offset[0] = group.cursor
        if offset[0] >= end:
            return NOT_FOUND
        got = tree_find(core, group, offset[0], True, path)
        if got == STORE_FULL:
            return STORE_FULL
        group.cursor += 1
        if got != DONE or path.slot.state != FRESH:
            continue
        if group.order == 0:
            return DONE
        got = order_admit(core, queue, group, offset[0], path)
        if got == ORDER_FIRST:
            return DONE
        if got == ORDER_STOP:
            group.cursor -= 1
            return NOT_FOUND
        passed += 1
        if passed == PASSED_LIMIT:
            group.behind = 1
            return NOT_FOUND


cdef group_t* receipt_group(core_t* core, const receipt_t* receipt, uint8_t* verdict) noexcept nogil:
    """The group a genuine receipt belongs to; NULL with the verdict."""
    cdef group_t* group = find_group(core, receipt.group)
    verdict[0] = FORGED
    if group == NULL or receipt.mac != receipt_mac(core, group, receipt.offset, receipt.nonce):
        return NULL
    verdict[0] = DONE
    return group


cdef int receipts_settle(core_t* core, const receipt_t* receipts, uint32_t count, uint8_t state, uint32_t span_ms,
                         uint8_t* verdicts) noexcept nogil:
    """Confirm (CONFIRMED) or extend (LEASED) what the receipts name; returns how many were DONE."""
    cdef uint64_t now = store_clock(core)
    cdef uint32_t at
    cdef int done = 0
    cdef bint next_ready = False
    cdef group_t* group
    cdef group_t* held = NULL
    for at in range(count):
        group = receipt_group(core, receipts + at, verdicts + at)
        if group != held:
            if held != NULL:
                stripe_unlock(core, held)
            held = group
            if held != NULL:
                stripe_lock(core, held)
                next_ready = next_ready or held.order
        if group != NULL:
            verdicts[at] = <uint8_t>settle(core, group, receipts[at].offset, receipts[at].nonce, now, state,
                                           now + span_ms * <uint64_t>1000)
        done += verdicts[at] == DONE
    if held != NULL:
        stripe_unlock(core, held)
    if next_ready:
        add32(&core.control.common_word, 1)
        add32(&core.control.arrival_word, 1)
        if load32(&core.control.receivers):
            futex_wake(&core.control.arrival_word)
    return done


cdef bint confirmed_before(core_t* core, const receipt_t* receipt) noexcept nogil:
    """Whether what a genuine receipt names is confirmed: by itself, or by whom is not known any more."""
    cdef group_t* group = find_group(core, receipt.group)
    cdef queue_t* queue
    cdef path_t path
    cdef uint32_t level
    cdef bint found = False
    if group == NULL:
        return False
    stripe_lock(core, group)
    queue = find_queue(core, group.queue)
    # Not only below the cursor. With a filter, what the log says of a message is known before the cursor gets there.
    if group.id == receipt.group and queue != NULL and receipt.offset < load64(&queue.next):
        if receipt.offset < group.floor:
            found = True
        elif tree_find(core, group, receipt.offset, False, &path) == DONE:
            found = path.slot.state == CONFIRMED and path.slot.nonce == receipt.nonce
        else:
            found = full_at(core, group, receipt.offset, &level)
    stripe_unlock(core, group)
    return found


cdef int confirm_stage(core_t* core, lane_t* lane, uint64_t cookie, const receipt_t* receipts, uint32_t count,
                       uint8_t* verdicts, bint claim, bint again, round_t** into, uint32_t* place) noexcept nogil:
    """Confirm and stage the record of it. DONE, -1 if there is nothing to record, or BUSY (then nothing changed).

    again: it may have been done before. What is confirmed already is DONE then, and recorded once more, because the
    record of the first time may not be on disk yet.
    """
    cdef uint64_t need = count * <uint64_t>(sizeof(record_t) + sizeof(confirm_t) + sizeof(range_t) + 8) + 256
    cdef round_t* round
    cdef uint64_t start
    cdef uint32_t at = 0
    cdef int done
    pthread_mutex_lock(&lane.lock)
    round = lane.filling
    if need > lane.limit - sizeof(frame_t) or round.size + need > lane.limit or not round_reserve(round, need):
        pthread_mutex_unlock(&lane.lock)
        return TOO_LARGE if need > lane.limit - sizeof(frame_t) else BUSY
    # Settled under the lane's lock: no other commit of this lane can come between the state and its record.
    done = receipts_settle(core, receipts, count, CONFIRMED, 0, verdicts)
    for at in range(count if again else 0):
        if verdicts[at] == STALE and confirmed_before(core, receipts + at):
            verdicts[at] = BEFORE
            done += 1
    at = 0
    if done == 0:
        pthread_mutex_unlock(&lane.lock)
        return -1
    place[0] = round.count
    into[0] = round
    start = 0
    if claim:
        round.claims += 1
    while at < count:
        if verdicts[at] != DONE and verdicts[at] != BEFORE:
            at += 1
            continue
        if not round_reserve(round, 64 + 24 + 16 * (count - at)):
            break
        start += 1
        at = confirm_record(core, round, cookie, receipts, count, at, verdicts, start == 1)
    for at in range(count):
        if verdicts[at] == BEFORE:
            verdicts[at] = DONE
    pthread_mutex_unlock(&lane.lock)
    return DONE


cdef uint32_t confirm_record(core_t* core, round_t* round, uint64_t cookie, const receipt_t* receipts,
                             uint32_t count, uint32_t at, const uint8_t* verdicts, bint first) noexcept nogil:
    """Stage one record for the run of receipts of one group and verdict that begins at at; returns where it ends."""
    cdef record_t* record = <record_t*>(round.buffer + round.size)
    cdef confirm_t* head = <confirm_t*>(record + 1)
    cdef range_t* ranges = <range_t*>(head + 1)
    cdef group_t* group = find_group(core, receipts[at].group)
    cdef uint32_t id = receipts[at].group
    cdef uint8_t verdict = verdicts[at]
    cdef uint64_t position = round.size
    cdef operation_t* operation
    memset(record, 0, sizeof(record_t))
    head.generation = group.generation if group != NULL else 0
    head.count = 0
    while at < count and ((receipts[at].group == id and verdicts[at] == verdict)
                          or (verdicts[at] != DONE and verdicts[at] != BEFORE)):
        if verdicts[at] == verdict:
            if head.count and ranges[head.count - 1].start + ranges[head.count - 1].count == receipts[at].offset:
                ranges[head.count - 1].count += 1
            else:
                ranges[head.count].start = receipts[at].offset
                ranges[head.count].count = 1
                head.count += 1
        at += 1
    record.type = <uint8_t>RECORD_CONFIRM
    record.body_size = <uint32_t>(sizeof(confirm_t) + head.count * sizeof(range_t))
    record.check = xxh3(head, record.body_size, core.salt)
    round.size += record_size(record)
    # Further groups of the same call are operations nobody waits for: cookie 0 is never drained.
    operation = operation_stage(round, cookie if first else NEVER, KIND_CONFIRM,
                                group.queue if group != NULL else 0, 0, 1, position)
    operation.offset = id
    # Where there is no room for it, what was confirmed before stays so.
    operation.spare = verdict == BEFORE
    return at


cdef uint32_t group_leased(core_t* core, uint32_t queue, uint32_t group) noexcept nogil:
    """How many messages a group (0: the queue's own) has leased or delayed."""
    cdef queue_t* home = find_queue(core, queue) if group == 0 else NULL
    cdef group_t* held = find_group(core, home.group if home != NULL else group)
    return held.root.waiting if held != NULL and held.root.page != 0 and held.root.page != FULL else 0
