# The hash of the stored bytes: XXH3, 64 bits, seeded, called in C out of the xxhash package's own library.

ctypedef uint64_t (*hash_function)(const void* bytes, size_t size, uint64_t seed) noexcept nogil

cdef hash_function xxh3


def _find_hash():
    """The address of XXH3 in the xxhash package, checked against its Python function."""
    library = ctypes.CDLL(xxhash._xxhash.__file__)
    try:
        function = library.XXH3_64bits_withSeed
    except AttributeError:
        raise ImportError(
            "this build of the xxhash package does not export XXH3_64bits_withSeed: "
            "install its wheel (pip install --force-reinstall xxhash)"
        ) from None
    function.restype = ctypes.c_uint64
    function.argtypes = (ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64)
    for size in (0, 3, 16, 128, 240, 1000):
        sample = bytes(range(251)) * 4
        if function(sample, size, 7) != xxhash.xxh3_64_intdigest(sample[:size], seed=7):
            raise ImportError("the C and the Python function of the xxhash package disagree")
    return ctypes.cast(function, ctypes.c_void_p).value


xxh3 = <hash_function><size_t>_find_hash()
