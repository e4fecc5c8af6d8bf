# Settings of a group from Python, and filters asked without a group.


cdef int settings_set(Consumer consumer, bytes fields) except -1:
    """Commit a GROUP_SETTINGS record durably."""
    if not settings_fit(<const uint8_t*>PyBytes_AS_STRING(fields), len(fields)):
        raise InvalidError("settings that are no list of known fields")
    verdict, _, _ = consumer.queue.store._operate(KIND_GROUP_SETTINGS, consumer.queue.id, consumer.id,
                                                  RECORD_GROUP_SETTINGS, fields)
    raise_verdict(verdict, f"settings of group {consumer.name!r} of queue {consumer.queue.name!r}")


cdef int group_delete(Queue queue, str name) except -1:
    """Commit a GROUP_DELETE record durably. Raises QueueNotFoundError, InvalidError for the queue's own group."""
    cdef uint32_t id = queue.groups().get(name, 0)
    if not name:
        raise InvalidError("a queue's own group goes with the queue")
    if id == 0:
        raise QueueNotFoundError(f"queue {queue.name!r} has no group {name!r}")
    verdict, _, _ = queue.store._operate(KIND_GROUP_DELETE, queue.id, id, RECORD_GROUP_DELETE, b"")
    raise_verdict(verdict, f"group {name!r} of queue {queue.name!r}")
    return 0


cdef tuple setting_get(Consumer consumer, int field):
    """(the generation of a field, its bytes); (0, b"") if it is not set."""
    cdef core_t* core
    cdef group_t* group
    cdef uint32_t size = 0
    cdef uint32_t id = consumer.id
    cdef uint64_t generation = 0
    cdef const uint8_t* found
    cdef char copied[PAGE]
    if not 1 <= field <= SETTINGS:
        raise InvalidError(f"settings have fields 1 to {SETTINGS}, not {field}")
    core = enter(consumer.queue.store)
    with nogil:
        group = find_group(core, id)
        if group != NULL:
            stripe_lock(core, group)
            found = setting_find(core, group, field, &size)
            generation = setting_generation(core, group, field)
            size = min(size, <uint32_t>PAGE) if found != NULL else 0
            if size:
                memcpy(copied, found, size)
            stripe_unlock(core, group)
        leave(core)
    if group == NULL:
        raise QueueNotFoundError(f"group {consumer.name!r} of queue {consumer.queue.name!r} was deleted")
    return generation, copied[:size]


def matches(bytes stored, bytes ext):
    """Whether a compiled filter (b"" wants everything) wants a message with these packed attributes.

    Raises InvalidError for bytes that are no filter.
    """
    cdef filter_t filter
    if not stored:
        return True
    if not filter_open(<const uint8_t*>PyBytes_AS_STRING(stored), <uint32_t>len(stored), &filter):
        raise InvalidError("bytes that are no compiled filter")
    return filter_wants(&filter, <const uint8_t*>PyBytes_AS_STRING(ext), <uint32_t>len(ext))


cdef uint32_t group_queue(Store store, uint32_t id, bint* own) noexcept nogil:
    """The queue of a group, 0 if there is no such group; own: whether it is the queue's own one."""
    cdef const group_t* group = find_group(<core_t*>store.core, id)
    own[0] = group != NULL and group.name_size == 0
    return group.queue if group != NULL else 0
