# cython: language_level=3
"""The storage engine's one translation unit; the parts stand beside it, in the order of dependence."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset, strlen
from libc.stdio cimport snprintf
from libc.errno cimport errno, EAGAIN, EINTR, EIO, ENOENT, ENOMEM, ENOSPC, ENOTEMPTY
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_FillInfo, PyBuffer_Release, PyObject_GetBuffer
from cpython.exc cimport PyErr_CheckSignals
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

import ctypes
import os
import threading
import weakref

import numpy as np
import xxhash

from penstock.engine.attributes import hash32, unpack as unpack_attributes
from penstock.engine.pending import WAITS, Pending
from penstock.engine.undo import undone
from penstock.engine.errors import (
    ConflictError, CorruptionError, EngineError, InvalidError, PendingDecidedError, PendingNotFoundError,
    QueueNotFoundError, StoreBusyError, StoreClosedError, StoreFullError, StoreLockedError, StorePoisonedError,
    TooLargeError,
)
from penstock.engine.filters import compile_filter, stored_filter

include "_checksum.pxi"     # one hash for every range
include "_control.pxi"      # shared memory: marks, tables, locks
include "_segment.pxi"      # log files: create, map, roll
include "_record.pxi"       # encode and judge records and frames
include "_cold.pxi"         # records of segments that are gone
include "_index.pxi"        # offset -> position
include "_index_ahead.pxi"  # its next pages, in memory before they are needed
include "_live.pxi"         # what each segment is still needed for
include "_delivery.pxi"     # leases and confirmations of a group
include "_mend.pxi"         # their locks, and what a dead holder left
include "_filter.pxi"      # programs of filters, and which may run
include "_filter_sql.pxi"  # conditions over properties
include "_order.pxi"        # who is next in line, by key
include "_settings.pxi"   # filter, order, retries of a group
include "_notes.pxi"        # the broker's objects: name -> bytes
include "_passing.pxi"     # over what it does not want
include "_pending.pxi"      # delayed messages and halves
include "_pending_find.pxi" # which of them has an id
include "_producers.pxi"    # which sequence numbers were stored
include "_apply.pxi"        # what a record does to the state
include "_admit.pxi"        # who is let into a round
include "_sync.pxi"       # fdatasync: what was promised is on disk
include "_commit.pxi"       # staging, group commit
include "_noting.pxi"       # notes, from Python
include "_timers.pxi"       # who places what is due
include "_staging.pxi"    # lanes: who commits what is staged
include "_direct.pxi"     # callers without a loop commit for one another
include "_attempts.pxi"   # how often delivered, and waiting until when: recorded
include "_retry.pxi"        # back-off, dead letters
include "_take.pxi"       # receive, confirm, release, extend
include "_glance.pxi"     # receive one that is plain to see
include "_recover.pxi"      # checkpoint and replay
include "_retention.pxi"    # how long messages are kept
include "_dedup.pxi"        # ids that are stored once
include "_reclaim.pxi"      # what nobody needs any more comes back
include "_gather.pxi"       # what of sparse segments is needed
include "_pick.pxi"         # which segments are sparse
include "_compact.pxi"      # copies of what is needed
include "_retire.pxi"       # and what they make superfluous
include "_batch.pxi"        # what a reader gets
include "_use.pxi"         # verdicts as exceptions, who is inside
include "_rewind.pxi"       # what a seek remembers
include "_store.pxi"        # Store, and the C face of it
include "_bodies.pxi"       # messages as staged operations
include "_deciding.pxi"     # one event of what is pending, or many
include "_schedule.pxi"     # what is pending, for Python
include "_queue.pxi"        # Queue
include "_consumer.pxi"     # Consumer
include "_group.pxi"        # settings of a group, from Python
include "_advance.pxi"      # all before an offset is confirmed
include "_short.pxi"        # receipts as one number
include "_placing.pxi"      # many stored messages into a queue
include "_fanout.pxi"       # one body in many queues
include "_spread.pxi"       # out of one queue, into many
include "_atomic.pxi"       # appends to several queues, all or none
include "_lane.pxi"         # the event loop's face
include "_sight.pxi"        # what a message is to a group, how far a group is behind
include "_search.pxi"       # messages by what they carry, records by what they speak of
include "_inspector.pxi"    # Inspector
include "_reclaimer.pxi"    # Reclaimer
include "_compactor.pxi"    # Compactor
include "_simulate.pxi"     # for benchmarks: a billion messages
