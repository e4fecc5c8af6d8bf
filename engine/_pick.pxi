# Which segments are compacted: those of which little is needed, and cold files of which little is needed.

cdef uint64_t COMPACTED = <uint64_t>64 << 20    # bytes in one cold file, about, and at most a segment's


cdef bint compact_pick(gather_t* gather, uint32_t share, const uint64_t* refused,
                       uint32_t refused_count) noexcept nogil:
    """Choose segments of which less than share per cent is needed; False if there is nothing to gain."""
    cdef core_t* core = gather.core
    cdef uint64_t limit = min(core.segment_size, COMPACTED) // 2
    cdef uint64_t number = live_next(core, 1)
    cdef uint64_t last = min(core.control.segment, core.control.kept_position >> 32)
    cdef uint64_t bytes_, total = 0, gain = 0
    cdef live_t* live
    compact_pick_cold(gather, share, limit, &total, &gain)
    while number and number < last and gather.count < WATCHED:
        live = live_entry(core, number, False)
        bytes_ = load64(&live.bytes)
        if not live.end & COLD and live.end and bytes_ and bytes_ < KEPT and live.dead == 0 \
                and bytes_ * 100 < <uint64_t>share * live.end and total + bytes_ <= limit \
                and not cold_covered(core, number) and not listed(number, refused, refused_count):
            pick(gather, number, 0)
            total += bytes_
            gain += core.segment_size - bytes_
        number = live_next(core, number + 1)
    return gather.count and gain >= core.segment_size // 2


cdef bint listed(uint64_t number, const uint64_t* numbers, uint32_t count) noexcept nogil:
    cdef uint32_t at
    for at in range(count):
        if numbers[at] == number:
            return True
    return False


cdef void pick(gather_t* gather, uint64_t number, uint32_t file) noexcept nogil:
    cdef origin_segment_t* segment = gather.segments + gather.count
    memset(segment, 0, sizeof(origin_segment_t))
    segment.number = number
    segment.file = file
    gather.count += 1


cdef bint cold_covered(core_t* core, uint64_t number) noexcept nogil:
    """Whether a cold file has a segment, whose own file may still be there."""
    cdef cold_place_t place
    return core.control.cold != 0 and cold_place(core, number, 0xFFFFFFFF, &place)


cdef void compact_pick_cold(gather_t* gather, uint32_t share, uint64_t limit, uint64_t* total,
                            uint64_t* gain) noexcept nogil:
    """Choose the segments of cold files of which less than share per cent is needed."""
    cdef core_t* core = gather.core
    cdef cold_place_t place
    cdef uint64_t bytes_
    cdef uint32_t at, file, found
    cdef uint64_t size, number
    cdef live_t* live
    at = 0
    while core.control.cold and cold_nth(core, at, &file, &size):
        at += 1
        bytes_ = found = 0
        number = cold_source_next(core, file, 0)
        while number:
            live = live_entry(core, number, False)
            if cold_place(core, number, 0xFFFFFFFF, &place) and place.file == file and live != NULL:
                bytes_ += load64(&live.bytes) if live.bytes < KEPT else size
                found += live.bytes != 0
            number = cold_source_next(core, file, number + 1)
        if found == 0 or bytes_ * 100 >= size * share or total[0] + bytes_ > limit or gather.count + found > WATCHED:
            continue
        number = cold_source_next(core, file, 0)
        while number:
            live = live_entry(core, number, False)
            if cold_place(core, number, 0xFFFFFFFF, &place) and place.file == file and live != NULL and live.bytes:
                pick(gather, number, file)
            number = cold_source_next(core, file, number + 1)
        total[0] += bytes_
        gain[0] += size - bytes_


cdef bint cold_nth(core_t* core, uint32_t nth, uint32_t* number, uint64_t* size) noexcept nogil:
    """The nth cold file that there is: its number and size."""
    cdef uint32_t at
    cdef bint found = False
    pthread_mutex_lock(&core.maps_lock)
    if core.cold_seen != load64(&core.control.cold):
        cold_reload(core)
    for at in range(core.cold_count):
        if core.cold_files[at].gone == 0:
            if nth == 0:
                number[0] = core.cold_files[at].number
                size[0] = core.cold_files[at].size
                found = True
                break
            nth -= 1
    pthread_mutex_unlock(&core.maps_lock)
    return found


cdef uint64_t cold_source_next(core_t* core, uint32_t file, uint64_t number) noexcept nogil:
    """The first segment at or above number that a cold file has; 0 if there is none."""
    cdef uint32_t at
    cdef uint64_t found = 0
    pthread_mutex_lock(&core.maps_lock)
    for at in range(core.cold_place_count):
        if core.cold_places[at].file == file and core.cold_places[at].number >= number:
            found = core.cold_places[at].number
            break
    pthread_mutex_unlock(&core.maps_lock)
    return found
