"""The narrow C waist: what another extension may call without a Python object per message."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    # What stage_* and the delivery calls return, and the verdict of an operation.
    DONE = 0
    STALE = 1
    FORGED = 2
    NOT_FOUND = 3
    TOO_LARGE = 5
    STORE_FULL = 6
    POISONED = 7
    BUSY = 8
    CORRUPT = 12
    DECIDED = 20            # of a pending message: otherwise, and before
    WRONG_KIND = 21         # what is no half cannot be committed, nor a half cancelled
    EARLY = 22
    UNKNOWN = 23             # no such pending message, or one decided long ago

cdef enum:
    # What is asked of a pending message; the columns of PENDING_RULES.
    EVENT_FIRE = 0
    EVENT_CANCEL = 1
    EVENT_MOVE = 2
    EVENT_COMMIT = 3
    EVENT_ROLLBACK = 4
    EVENT_CHECK = 5
    EVENTS = 6

cdef enum:
    KIND_PENDING = 31       # of an operation: its messages wait, and offset is the id of the first

cdef enum:
    NO_HALF = 0xFFFFFFFF    # instead of when the producer of a half is asked first

cdef struct operation_t:
    # One staged request. The first four are the caller's and come back untouched.
    uint64_t cookie
    uint32_t queue
    uint32_t count          # messages in it (0 for a confirm)
    uint8_t durability      # 0 kernel, 1 disk
    uint8_t kind            # 0 append, 1 confirm, KIND_PENDING
    uint8_t duplicate       # result: it had been stored before
    uint8_t verdict         # result: DONE, STORE_FULL, POISONED, ...
    uint32_t spare          # result of EVENT_COMMIT: 1 if it waits for its time; offset is its id then
    uint64_t offset         # result: offset of the first message
    uint64_t position       # in the round's buffer
    uint64_t producer
    uint64_t sequence

cdef struct fan_t:
    # One message and the queues it goes to (ids, strictly ascending).
    const uint32_t* queues
    uint32_t count
    uint32_t home               # 0, or the one whose window of ids decides for all
    uint16_t ext_size
    const uint8_t* ext
    const uint8_t* body
    uint32_t body_size

cdef struct receipt_t:
    uint64_t offset
    uint32_t group
    uint32_t nonce
    uint64_t mac

cdef struct taken_t:
    # One message leased by take() or found by scan(); body points into a pinned map.
    receipt_t receipt
    uint64_t stored_us
    uint32_t attempts
    uint32_t ext_size
    uint32_t body_size
    uint32_t attributed     # ext is a list of attributes
    uint64_t sent_us        # when its body was stored first: before stored_us if it was moved here, or waited
    const uint8_t* origin   # origin_t of format.h if it was moved here, and the text behind; else NULL
    const char* origin_name # of the queue it was moved from
    uint32_t origin_name_size   # 0: that was deleted
    const uint8_t* ext      # ext and body are contiguous: body == ext + ext_size

cdef class Lane
cdef class Store:
    cdef readonly str path
    cdef void* core             # core_t: this process's view
    cdef void* direct           # lane_t of the callers without a loop
    cdef readonly object durability
    cdef object maintenance
    cdef object lanes
    cdef object __weakref__

    # Read without consuming, from offset on; returns how many, or a negative verdict (-NOT_FOUND ...). The bodies
    # stay mapped until pin_release(pin), called once with the pin stored in *pin when the result is > 0.
    cdef int scan(self, uint32_t queue, uint64_t offset, uint32_t count, uint32_t max_bytes,
                  taken_t* out, uint64_t* pin) noexcept nogil
    cdef void pin_release(self, uint64_t pin) noexcept nogil
    # Each receipt's verdict (DONE, STALE, FORGED) goes to verdicts; returns the number DONE.
    cdef int extend_(self, const receipt_t* receipts, uint32_t count, uint32_t lease_ms, uint8_t* verdicts) noexcept nogil
    # When the earliest lease or delay of the group (0 = the queue's own) runs out (µs since 1970; 0 = none): for
    # parked receivers.
    cdef uint64_t next_due(self, uint32_t queue, uint32_t group) noexcept nogil
    # How many messages the group (0 = the queue's own) has leased or delayed.
    cdef uint32_t leased(self, uint32_t queue, uint32_t group) noexcept nogil

cdef class Lane:
    """A staging lane with its own committer thread; used by one event loop."""
    cdef readonly Store store
    cdef void* lane
    cdef object __weakref__
    # durability: 0 kernel, 1 disk; | 2 (one message only) if ext is a list of attributes; | 4 (a batch only) if
    # sizes_u32 are pairs {u32 body, u32 attributes} and before each body stand its attributes, which may be none.
    # Stage one message / a batch / a confirmation. Returns DONE or a verdict at once (then nothing was staged; BUSY = the
    # lane is full, try again after the next drain). The result comes through drain().
    cdef int stage_one(self, uint64_t cookie, uint32_t queue, uint8_t durability, uint64_t producer, uint64_t sequence,
                       const uint8_t* ext, uint16_t ext_size, const uint8_t* body, uint32_t body_size) noexcept nogil
    cdef int stage_batch(self, uint64_t cookie, uint32_t queue, uint8_t durability, uint64_t producer, uint64_t sequence,
                         uint32_t count, const uint8_t* sizes_u32, const uint8_t* bodies, uint64_t bodies_size) noexcept nogil
    # One message for count queues (ids, strictly ascending): its operation comes back with its position as offset. notes:
    # 0, or the low half of Store.notes_version() plus 1: refused as STALE if any note changed since. home: 0, or one of
    # the queues: if it knows the message's id nothing is stored, and the operation is a duplicate.
    cdef int stage_fanout(self, uint64_t cookie, const uint32_t* queues, uint32_t count, uint8_t durability,
                          uint64_t producer, uint64_t sequence, const uint8_t* ext, uint16_t ext_size,
                          const uint8_t* body, uint32_t body_size, uint32_t notes, uint32_t home) noexcept nogil
    # The store's clock: µs since 1970.
    cdef uint64_t now_us(self) noexcept nogil
    # Messages that wait: due_us as in Queue.append (a time that is over is no delay), check_ms as in Queue.prepare if they
    # are halves, else NO_HALF. durability | 4: as in a batch; else all have the same ext, which is for one message.
    cdef int stage_aside(self, uint64_t cookie, uint32_t queue, uint8_t durability, uint64_t producer, uint64_t sequence,
                         uint32_t count, const uint8_t* sizes_u32, const uint8_t* bodies, uint64_t bodies_size,
                         const uint8_t* ext, uint16_t ext_size, uint64_t due_us, uint32_t check_ms) noexcept nogil
    # One event of a pending message, EVENT_COMMIT or EVENT_ROLLBACK, durably: DONE, UNKNOWN, or as stage_one.
    cdef int stage_event(self, uint64_t cookie, int event, uint64_t id) noexcept nogil
    # verdicts are known at once; the operation is drained when the confirmation is durable. If no receipt was DONE
    # nothing is staged and -1 is returned.
    cdef int stage_confirm(self, uint64_t cookie, const receipt_t* receipts, uint32_t count, uint8_t* verdicts) noexcept nogil
    # The same for one that may have been done before: what is confirmed already is DONE, not STALE.
    cdef int stage_confirm_again(self, uint64_t cookie, const receipt_t* receipts, uint32_t count,
                                 uint8_t* verdicts) noexcept nogil
    # Lease up to count messages of the group into out, under the contract of Store.scan; that some came again is
    # recorded through the lane.
    cdef int take(self, uint32_t queue, uint32_t group, uint32_t count, uint32_t max_bytes, uint32_t lease_ms,
                  taken_t* out, uint64_t* pin) noexcept nogil
    # Give back after delay_ms (0xFFFFFFFF: as the group's retry policy says), with a text for the dead-letter queue of at
    # most 1,024 bytes; each receipt's verdict (DONE, STALE, FORGED) goes to verdicts; returns the number DONE, or
    # a negative verdict.
    cdef int release_(self, const receipt_t* receipts, uint32_t count, uint32_t delay_ms, const uint8_t* text,
                      uint16_t text_size, uint8_t* verdicts) noexcept nogil
    # Wake the committer: once per socket read event or loop turn, after staging.
    cdef void kick(self) noexcept nogil
    # Whether what is staged would be committed in so short a time that the loop may wait for it.
    cdef bint brief(self) noexcept nogil
    # Commit what is staged on the loop's own thread, to be drained at once; False if the committer is at work.
    cdef bint commit(self) noexcept nogil
    # How long a round waits for the disk (µs), a running mean.
    cdef uint32_t sync_us(self) noexcept nogil
    # Whether the committer waits to be kicked.
    cdef bint resting(self) noexcept nogil
    # Completed operations, oldest first, up to room of them; returns how many. Call when fileno() is readable, until 0.
    cdef int drain(self, operation_t* out, int room) noexcept nogil
    # Whether receivers wait: then what other processes send makes fileno() readable too. Cheap to call.
    cdef void watch(self, bint waiting) noexcept nogil
    # A number that changes whenever something may have become visible or free: compare one from before a look that found
    # nothing with one from after starting to wait.
    cdef uint32_t arrivals(self) noexcept nogil
    # Groups (ids, possibly repeated) that messages were given back to since the last call; returns how many, -1 = something
    # else happened, or too much: wake all.
    cdef int woken(self, uint32_t* out, int room) noexcept nogil

# Lane.stage_fanout for several messages, which lie in one frame: their operations all have the cookie.
cdef int stage_fans(Lane lane, uint64_t cookie, const fan_t* fans, uint32_t many, uint8_t durability,
                    uint32_t notes) noexcept nogil

# A receipt as a number below 2^63: the low bits of its offset and of its keyed hash.
cdef inline uint64_t receipt_short(const receipt_t* receipt) noexcept nogil:
    return (receipt.offset & 0x7FFFFFFF) << 32 | <uint32_t>receipt.mac

# The receipt that such a number stands for in a group (0: the queue's own). DONE; STALE: late, or made up; NOT_FOUND.
cdef int receipt_whole(Store store, uint32_t queue, uint32_t group, uint64_t short_, receipt_t* out) noexcept nogil

# The id of the message that waits behind one of this id and these sizes, sent in one batch of Lane.stage_aside.
cdef uint64_t pending_after(uint64_t id, uint32_t body_size, uint32_t ext_size) noexcept nogil

# The queue of a group, 0 if there is no such group; own: whether it is the queue's own one.
cdef uint32_t group_queue(Store store, uint32_t group, bint* own) noexcept nogil

# Whether there is a queue with that number.
cdef bint queue_there(Store store, uint32_t queue) noexcept nogil
