/*
 * A file that remembers what a crash could lose. Writes go to sectors of 512 bytes; until the next
 * flush the disk may have any one of a sector's versions since the last, each sector on its own:
 * any subset of the writes in any order. Calls can be made to fail. One thread.
 */
#ifndef TESTS_BLOCK_RECORD_H
#define TESTS_BLOCK_RECORD_H

#include "block/file.h"

#define SECTOR 512u

struct rng {
    uint64_t state;
};

uint64_t rng_next(struct rng *r);
uint64_t rng_below(struct rng *r, uint64_t n);

struct version {
    unsigned refs;
    uint8_t data[SECTOR];
};

struct sector {
    struct version *stable, *now; /* NULL: zeros */
    struct version **later;       /* written since the last flush, the last is `now` */
    unsigned count, room;
};

enum record_fault { FAULT_EIO, FAULT_ENOSPC, FAULT_SHORT };

struct record {
    struct bfile f;
    struct sector *sector;
    uint64_t count;             /* of sectors that are kept */
    uint64_t size, stable_size; /* bytes */
    uint64_t *touched;          /* sectors with versions */
    size_t touched_count, touched_room;
    uint64_t calls, flushes; /* that can fail: all but size and extent */
    uint64_t fail_at;        /* the call that fails; 0: none */
    uint64_t fail_for;       /* and that many more */
    enum record_fault fault;
    uint64_t faults; /* calls that failed so far */
    /* Before each write and flush. */
    void (*before)(void *ctx, bool flush);
    void *ctx;
};

struct record *record_create(const char *name);
void record_destroy(struct record *r);
/* The content is on stable storage. */
void record_load(struct record *r, const char *path);
/* What the disk may hold if the power fails now; `now`: what was written, all of it. */
struct bfile *record_crash(struct record *r, struct rng *rng, bool now);
void record_save(struct bfile *f, const char *path);

#endif
