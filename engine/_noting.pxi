# Notes from Python: what Store.note, noted and notes do; and who is admitted to change one.


cdef void note_admit(core_t* core, round_t* round, uint32_t index, record_t* record) noexcept nogil:
    """Refuse a note whose version is not the one expected (operation.offset), or for which there is no room."""
    cdef operation_t* operation = round.operations + index
    cdef const note_body_t* head = <const note_body_t*>record_body(record)
    cdef const uint8_t* name = <const uint8_t*>(head + 1)
    cdef const note_body_t* other
    cdef const record_t* earlier
    cdef notes_t* notes = notes_table(core, False)
    cdef uint64_t expect = operation.offset
    cdef uint64_t version = note_version(core, name, head.name_size)
    cdef uint64_t pages = note_pages(record.body_size)
    cdef uint64_t count = notes.count if notes != NULL else 0
    cdef uint32_t at
    # What earlier operations of this round did is not applied yet.
    for at in range(index):
        if round.operations[at].kind != KIND_NOTE or round.operations[at].verdict != DONE:
            continue
        earlier = <const record_t*>(round.buffer + round.operations[at].position)
        other = <const note_body_t*>record_body(earlier)
        pages += note_pages(earlier.body_size)
        count += 1
        if other.name_size == head.name_size and memcmp(other + 1, name, head.name_size) == 0:
            version = 0 if other.flags & NOTE_REMOVED else round.operations[at].offset
    record.offset = 0
    operation.offset = core.control.written + operation.position
    if expect != NEVER and expect != version:
        operation.verdict = STALE
        operation.offset = version
    elif not head.flags & NOTE_REMOVED and ((count >= NOTES and version == 0) or notes_reserve(core, pages)):
        operation.verdict = STORE_FULL
    if operation.verdict != DONE:
        record.type = RECORD_SKIP


cdef bytes note_name(str name):
    raw = name.encode()
    if not 1 <= len(raw) <= NOTE_NAME:
        raise InvalidError(f"a note's name has 1 to {NOTE_NAME} bytes, this one {len(raw)}")
    return raw


cdef object note_set(Store store, str name, object value, object expect):
    raw = note_name(name)
    if value is not None and len(value) > NOTE_VALUE:
        raise TooLargeError(f"a note has at most {NOTE_VALUE} bytes, this one {len(value)}")
    body = (len(raw).to_bytes(2, "little") + (NOTE_REMOVED if value is None else 0).to_bytes(2, "little") + bytes(4)
            + raw + (value or b""))
    wanted = 0xFFFFFFFFFFFFFFFF if expect is None else int(expect)
    verdict, version, _ = store._operate(KIND_NOTE, 0, wanted, RECORD_NOTE, body)
    if verdict == STALE:
        raise ConflictError(f"note {name!r} has version {version}, not {expect}: it was changed meanwhile")
    raise_verdict(verdict, f"note {name!r}")
    return version if value is not None else 0


cdef object note_get(Store store, str name):
    cdef core_t* core = enter(store)
    cdef bytes raw
    cdef uint64_t version = 0
    cdef uint32_t size = 0
    cdef uint32_t name_size
    cdef const uint8_t* text
    cdef uint8_t* found
    try:
        raw = note_name(name)
        text = <const uint8_t*>PyBytes_AS_STRING(raw)
        name_size = <uint32_t>len(raw)
        with nogil:
            found = note_copy(core, text, name_size, &size, &version)
        if found == NULL:
            if version:
                raise MemoryError()
            return None
        value = PyBytes_FromStringAndSize(<const char*>found + name_size, size)
        free(found)
        return value, version
    finally:
        leave(core)


cdef dict notes_get(Store store, str prefix):
    cdef core_t* core = enter(store)
    cdef bytes raw = prefix.encode()
    cdef const uint8_t* text = <const uint8_t*>PyBytes_AS_STRING(raw)
    cdef uint32_t prefix_size = <uint32_t>len(raw)
    cdef uint32_t bucket
    cdef uint64_t size, at
    cdef uint32_t name_size, value_size
    cdef uint8_t* found
    notes = {}
    try:
        # A few buckets at a time, so that no writer waits for the whole table.
        for bucket in range(0, NOTE_BUCKETS, 64):
            with nogil:
                found = notes_copy(core, bucket, 64, text, prefix_size, &size)
            if size == NEVER:
                raise MemoryError()
            at = 0
            while at < size:
                name_size = (<uint32_t*>(found + at))[0]
                value_size = (<uint32_t*>(found + at))[1]
                name = PyBytes_FromStringAndSize(<const char*>found + at + 8, name_size)
                notes[name.decode()] = PyBytes_FromStringAndSize(<const char*>found + at + 8 + name_size, value_size)
                at += 8 + name_size + value_size
            free(found)
    finally:
        leave(core)
    return dict(sorted(notes.items()))
