# A log-linear histogram of nanoseconds: 128 steps in every power of two, so a value read back
# from the middle of its step is off by less than 0.4 %. Adding is a shift and an increment.

cdef enum:
    STEP_BITS = 7
    STEPS = 128
    BUCKETS = 58 * 128

cdef struct histogram_t:
    uint64_t count
    uint64_t highest
    uint64_t buckets[BUCKETS]

cdef inline uint32_t bucket_of(uint64_t value) noexcept nogil:
    cdef uint32_t shift
    if value < STEPS:
        return <uint32_t>value
    shift = 63 - clz64(value) - STEP_BITS
    return (shift + 1) * STEPS + <uint32_t>((value >> shift) - STEPS)


cdef inline uint64_t middle_of(uint32_t bucket) noexcept nogil:
    cdef uint32_t shift
    if bucket < STEPS:
        return bucket
    shift = bucket // STEPS - 1
    return ((<uint64_t>(bucket % STEPS) + STEPS) << shift) + ((<uint64_t>1 << shift) >> 1)


cdef inline void histogram_add(histogram_t* histogram, uint64_t value) noexcept nogil:
    histogram.buckets[bucket_of(value)] += 1
    histogram.count += 1
    if value > histogram.highest:
        histogram.highest = value


cdef uint64_t histogram_quantile(const histogram_t* histogram, double share) noexcept nogil:
    """The value that `share` of the counted ones do not exceed; 0 if nothing was counted."""
    cdef uint64_t seen = 0
    cdef uint64_t wanted = <uint64_t>(share * <double>histogram.count)
    cdef uint32_t bucket
    if histogram.count == 0:
        return 0
    if wanted >= histogram.count:
        wanted = histogram.count - 1
    for bucket in range(<uint32_t>BUCKETS):
        seen += histogram.buckets[bucket]
        if seen > wanted:
            return min(middle_of(bucket), histogram.highest)
    return histogram.highest


cdef list histogram_counts(const histogram_t* histogram):
    """What was counted: pairs of the middle of a step, in µs, and how many."""
    return [
        (middle_of(bucket) / 1e3, histogram.buckets[bucket])
        for bucket in range(<uint32_t>BUCKETS) if histogram.buckets[bucket]
    ]


def quantiles(values, shares):
    """The quantiles that the generator's histogram gives for these nanoseconds; for its test."""
    cdef histogram_t* histogram = <histogram_t*>calloc(1, sizeof(histogram_t))
    if histogram == NULL:
        raise MemoryError
    try:
        for value in values:
            histogram_add(histogram, value)
        return [histogram_quantile(histogram, share) for share in shares]
    finally:
        free(histogram)
