"""The hot path: frames and requests from the socket buffer into the engine, replies in one write.

Everything between a read event and the staging of its messages, and between a
drained operation and the bytes of its reply, is C. What is rare goes to Python.
"""

import asyncio
from collections import OrderedDict, deque
from email.utils import formatdate
from hashlib import sha1, sha256
from heapq import heappop, heappush
from os import urandom
from select import POLLRDHUP, poll
from time import monotonic, time

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from penstock.engine.aio import Awaitable

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove, memset, strlen

from penstock.engine._core cimport (
    BUSY,
    CORRUPT,
    DECIDED,
    DONE,
    EVENT_COMMIT,
    EVENT_ROLLBACK,
    KIND_PENDING,
    NO_HALF,
    NOT_FOUND,
    POISONED,
    STALE,
    STORE_FULL,
    TOO_LARGE,
    UNKNOWN,
    WRONG_KIND,
    Lane,
    Store,
    fan_t,
    group_queue,
    operation_t,
    pending_after,
    queue_there,
    receipt_short,
    receipt_t,
    receipt_whole,
    stage_fans,
    taken_t,
)

include "_wire_buffer.pxi"
include "_wire_attributes.pxi"
include "_wire_belongs.pxi"
include "_wire_gate.pxi"
include "_wire_hub.pxi"
include "_wire_endpoint.pxi"
include "_wire_framed.pxi"
include "_wire_waiting.pxi"
include "_wire_deliver.pxi"
include "_wire_later.pxi"
include "_wire_native.pxi"
include "_wire_first.pxi"
include "_wire_repeats.pxi"
include "_wire_names.pxi"
include "_wire_rates.pxi"
include "_wire_form.pxi"
include "_wire_http_shapes.pxi"
include "_wire_http_leaving.pxi"
include "_wire_http_replies.pxi"
include "_wire_cmq_http.pxi"
include "_wire_http.pxi"
include "_wire_proto.pxi"
include "_wire_cmq_frame.pxi"
include "_wire_cmq_shared.pxi"
include "_wire_cmq_replies.pxi"
include "_wire_cmq_requests.pxi"
include "_wire_cmq_topics.pxi"
include "_wire_cmq.pxi"
