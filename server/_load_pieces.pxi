# The pieces of which a confirmation over HTTP is made. Python tells them, so that C knows neither JSON nor forms.

cdef enum:
    RECEIPT_TEXT = 64           # the longest text of a receipt
    HTTP_LENGTH = 10            # room for the digits of Content-Length

cdef struct piece_t:
    const uint8_t* at
    size_t size

cdef struct confirming_t:
    piece_t mark                # what stands before each receipt in a reply; a quote stands behind it
    piece_t head                # of the confirmation: up to the digits of its length
    piece_t first               # its body, up to the first receipt's piece
    piece_t last                # and behind the last receipt
    piece_t* before             # what stands before each receipt: as many as a request asks for
    piece_t good                # what the reply says of each that is confirmed; nothing: see CMQ's code


cdef int piece(piece_t* into, bytes text) except -1:
    """The bytes of an object that the caller keeps alive."""
    into.at = <const uint8_t*><const char*>text
    into.size = <size_t>len(text)
    return 0


cdef size_t confirming_prepare(confirming_t* into, object told) except 0:
    """Take the pieces of a bench_http.Confirming; the largest size of the request they make."""
    cdef size_t size = HTTP_LENGTH + 4
    cdef Py_ssize_t at
    piece(&into.mark, told.mark)
    piece(&into.head, told.head)
    piece(&into.first, told.first)
    piece(&into.last, told.last)
    piece(&into.good, told.good)
    into.before = <piece_t*>calloc(len(told.before), sizeof(piece_t))
    if into.before == NULL:
        raise MemoryError
    for at in range(len(told.before)):
        piece(&into.before[at], told.before[at])
        size += into.before[at].size + RECEIPT_TEXT
    return size + into.head.size + into.first.size + into.last.size
