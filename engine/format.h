/* Layouts on disk, little-endian; docs/format.md draws them. Nothing here may change without that page. */
#ifndef PENSTOCK_FORMAT_H
#define PENSTOCK_FORMAT_H
#include <stddef.h>
#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the formats are little-endian and read in place"
#endif

#define SEGMENT_MAGIC 0x31474553534e4550ull /* "PENSSEG1" */
#define FRAME_MAGIC 0x4d524650u             /* "PFRM" */
#define COLD_MAGIC 0x31444c43534e4550ull       /* "PENSCLD1" */
#define CHECKPOINT_MAGIC 0x31544b43534e4550ull /* "PENSCKT1" */
#define SEGMENT_HEADER_SIZE 4096
#define FORMAT_VERSION 1

enum record_type {
    RECORD_MESSAGE = 1,
    RECORD_CONFIRM = 2,
    RECORD_SEEK = 3,
    RECORD_QUEUE = 4,
    RECORD_QUEUE_DELETE = 5,
    RECORD_GROUP = 6,
    RECORD_TRIM = 7,
    RECORD_LEASE = 8,
    RECORD_SKIP = 9,
    RECORD_PLACE = 10,
    RECORD_PENDING = 11,
    RECORD_CANCEL = 12,
    RECORD_MOVE = 13,
    RECORD_FANOUT = 14,
    RECORD_GROUP_SETTINGS = 15,
    RECORD_QUEUE_SETTINGS = 16,
    RECORD_NOTE = 18,
    RECORD_RELEASE = 17,
    RECORD_GROUP_DELETE = 21,
    RECORD_ADVANCE = 22
};
#define RECORD_SEQUENCED 1  /* flag: 16 bytes {producer, sequence} stand before ext */
#define RECORD_ATTRIBUTED 2 /* flag: ext is a list of attributes */

enum attribute_kind {
    ATTRIBUTE_TAG = 1,
    ATTRIBUTE_KEY = 2,
    ATTRIBUTE_PROPERTY = 3,
    ATTRIBUTE_ROUTING_KEY = 4,
    ATTRIBUTE_ID = 5,
    ATTRIBUTE_REPLY_TO = 6,
    ATTRIBUTE_CORRELATION = 7,
    ATTRIBUTE_PRODUCER_GROUP = 8,
    ATTRIBUTE_CHECK_BACK = 9
};

typedef struct {
    uint8_t kind;
    uint8_t name_size;
    uint16_t value_size;
} attribute_t; /* then the name, then the value */

typedef struct {
    uint64_t offset;
    uint32_t queue; /* 0: deleted meanwhile */
    uint32_t spare;
} recipient_t;

typedef struct {
    uint64_t magic;
    uint32_t version;
    uint32_t header_size;
    uint8_t store[16];
    uint64_t number;
    uint64_t salt;
    uint64_t epoch;
    uint64_t created_us;
    uint64_t previous_end;
    uint64_t size;
    uint64_t check;
} segment_header_t;

typedef struct {
    uint32_t magic;
    uint32_t count;
    uint64_t position;
    uint64_t size;
    uint64_t sequence;
    uint64_t epoch;
    uint64_t durable;
    uint64_t chain;
    uint64_t check;
} frame_t;

typedef struct {
    uint32_t body_size;
    uint8_t type;
    uint8_t flags;
    uint16_t ext_size;
    uint64_t position;
    uint64_t offset;
    uint32_t queue;
    uint32_t spare;
    uint64_t stored_us;
    uint64_t check;
} record_t;

typedef struct {
    uint64_t position;
    uint64_t stored_us;
    uint32_t size;
    uint32_t tag;
    uint32_t key;
    uint32_t spare;
} entry_t;

/* The body of a PLACE that moves a message, then the text. */
typedef struct {
    uint64_t position;
    uint64_t offset;
    uint32_t queue;
    uint32_t group;
    uint32_t generation;
    uint32_t attempts;
    uint16_t reason;
    uint16_t text_size;
    uint32_t spare;
} origin_t;

typedef struct {
    uint64_t magic;
    uint32_t version;
    uint32_t clean;
    uint64_t position;
    uint64_t sequence;
    uint64_t epoch;
    uint64_t last_us;
    uint64_t size;
    uint64_t body_check;
    uint8_t store[16];
    uint64_t check;
} checkpoint_t;

typedef struct {
    uint64_t magic;
    uint32_t version;
    uint32_t sources;
    uint8_t store[16];
    uint64_t number;
    uint64_t checkpoint;
    uint64_t created_us;
    uint64_t records;
    uint64_t first;
    uint64_t size;
    uint64_t table_check;
    uint64_t check;
} cold_header_t;

/* A segment in a cold file, and a record of it. */
typedef struct {
    uint64_t number;
    uint64_t salt;
    uint64_t first;
    uint64_t count;
} cold_source_t;

typedef struct {
    uint32_t byte;
    uint32_t size;
    uint64_t at;
} cold_row_t;

_Static_assert(sizeof(cold_header_t) == 96, "cold header");
_Static_assert(offsetof(cold_header_t, check) == 88, "cold header check");
_Static_assert(sizeof(cold_source_t) == 32, "cold source");
_Static_assert(sizeof(cold_row_t) == 16, "cold row");
_Static_assert(sizeof(segment_header_t) == 88, "segment header");
_Static_assert(offsetof(segment_header_t, check) == 80, "segment header check");
_Static_assert(sizeof(frame_t) == 64, "frame header");
_Static_assert(offsetof(frame_t, check) == 56, "frame check");
_Static_assert(sizeof(record_t) == 48, "record header");
_Static_assert(offsetof(record_t, check) == 40, "record check");
_Static_assert(sizeof(attribute_t) == 4, "attribute");
_Static_assert(sizeof(recipient_t) == 16, "recipient");
_Static_assert(sizeof(entry_t) == 32, "index entry");
_Static_assert(sizeof(origin_t) == 40, "origin");
_Static_assert(sizeof(checkpoint_t) == 88, "checkpoint header");
_Static_assert(offsetof(checkpoint_t, check) == 80, "checkpoint check");
#endif
