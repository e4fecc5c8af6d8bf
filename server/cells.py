"""Memory that all workers of a server share: made before they are forked, inherited by each."""

import mmap

CELL_BYTES = 16
CELLS = 16384

# A rate is one rate however many workers there are, so what counts it must be one as well.
SHARED = mmap.mmap(-1, CELLS * CELL_BYTES)

# How many connections each of up to 256 workers has under each cell: 16 MiB, if touched.
WORKERS = 256
CONNECTED = mmap.mmap(-1, WORKERS * CELLS * 4)

# 2^18 messages whose first delivery is remembered: 4 MiB, as far as it was touched.
FIRSTS = mmap.mmap(-1, 1 << 22)

# 2^17 counters of calls in a second, where the original limits are wanted: 2 MiB, if touched.
CALLS = mmap.mmap(-1, 1 << 21)

# The last name that was given to a message, and what this server's names end with.
NAMES = mmap.mmap(-1, 16)

# What the last half million signed requests came to: 12 MiB, as far as it was touched.
REPEATS = mmap.mmap(-1, 12 << 20)
