"""Memory that all workers of a server share: made before they are forked, inherited by each."""

import mmap

CELL_BYTES = 16
CELLS = 16384

# A rate is one rate however many workers there are, so what counts it must be one as well.
SHARED = mmap.mmap(-1, CELLS * CELL_BYTES)

# 2^18 messages whose first delivery is remembered: 4 MiB, as far as it was touched.
FIRSTS = mmap.mmap(-1, 1 << 22)

# What the last half million signed requests came to: 12 MiB, as far as it was touched.
REPEATS = mmap.mmap(-1, 12 << 20)
