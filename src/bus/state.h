/*
 * Saving and loading a device's state as tagged fields. A table names each field; tags are small
 * numbers that never change meaning, so old snapshots load: unknown tags are an error, absent ones
 * leave the value that create gave. Not for the hot path; the device's lock is held.
 */
#ifndef BUS_STATE_H
#define BUS_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct timerq;

enum state_kind {
    STATE_KIND_BYTES, /* scalars and arrays of them, as they lie in memory (little-endian) */
    STATE_KIND_CLOCK, /* uint64_t of VM time, stored as a distance from now */
    STATE_KIND_TIMER, /* struct timer *: armed or not, and its distance from now */
};

struct state_field {
    uint16_t tag; /* from 1, unique in its table */
    uint8_t kind;
    uint32_t offset, size;
    bool truth; /* of bool, one or an array: no byte may be other than 0 and 1 */
};

/* bool *: an array of them. */
#define STATE_IS_TRUTH(member) _Generic((member), bool : true, bool * : true, default : false)
#define STATE_FIELD(tag_, type, member)                                                            \
    {                                                                                              \
        .tag = (tag_), .kind = STATE_KIND_BYTES, .offset = offsetof(type, member),                 \
        .size = sizeof(((type *)0)->member), .truth = STATE_IS_TRUTH(((type *)0)->member)          \
    }
#define STATE_CLOCK(tag_, type, member)                                                            \
    {                                                                                              \
        .tag = (tag_), .kind = STATE_KIND_CLOCK, .offset = offsetof(type, member), .size = 8       \
    }
#define STATE_TIMER(tag_, type, member)                                                            \
    {                                                                                              \
        .tag = (tag_), .kind = STATE_KIND_TIMER, .offset = offsetof(type, member),                 \
        .size = sizeof(void *)                                                                     \
    }

/* A growing byte buffer; data is malloc'ed. Zero-initialise; free(data) ends it. */
struct state_buf {
    uint8_t *data;
    size_t len, cap;
    int error; /* -ENOMEM once an append failed; checked at the end */
};
void state_append(struct state_buf *b, const void *data, size_t len);

/* Appends obj's fields. A section ends with tag 0, so several can follow each other. */
void state_save(const struct state_field *fields, size_t count, const void *obj, struct timerq *q,
                struct state_buf *out);

/* Reads one section from data[*pos..len), advancing *pos. -EINVAL with a sentence. */
int state_load(const struct state_field *fields, size_t count, void *obj, struct timerq *q,
               const uint8_t *data, size_t len, size_t *pos, struct error *err);

#endif
