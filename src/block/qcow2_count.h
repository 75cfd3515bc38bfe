/*
 * Who uses which cluster of a qcow2 file, counted from its tables: for the check, and for making
 * reference counts again. Memory follows what is used, not the file's size; it is bounded.
 */
#ifndef BLOCK_QCOW2_COUNT_H
#define BLOCK_QCOW2_COUNT_H

#include "block/qcow2.h"

#define COUNT_METADATA (1u << 31)     /* beside the count: it holds tables */
#define COUNT_PAGE 1024u              /* counters */
#define COUNT_PAGES_MAX (256u * 1024) /* 1 GiB */

struct qcow2_count_page {
    uint64_t number; /* + 1; 0: none */
    uint32_t *count;
};

struct qcow2_counts {
    struct qcow2_count_page *page; /* a hash table */
    size_t size, used;
    uint64_t end; /* behind the last used cluster */
};

/* The counter of a cluster, made if it is not there; NULL: no memory. */
uint32_t *qcow2_count_at(struct qcow2_counts *c, uint64_t cluster);
uint32_t qcow2_count_get(const struct qcow2_counts *c, uint64_t cluster);
/* Whether any cluster of [first, first + n) is used; n is a power of two, first a multiple. */
bool qcow2_count_any(const struct qcow2_counts *c, uint64_t first, uint64_t n);
void qcow2_count_free(struct qcow2_counts *c);

/* A check under way. */
struct qcow2_check {
    struct bfile *file;
    struct qcow2_header h;
    struct block_check *out;
    struct qcow2_counts used;
    uint64_t *reftable;
    uint64_t reftable_entries;
    uint64_t *l1; /* the active one */
    uint64_t done, total;
    uint64_t said;
    uint64_t wrong_counts, wrong_flags; /* of the faults: those that `fix` mends */
    uint64_t too_many;                  /* counts that do not fit; they stay */
    bool bitmaps;                       /* whose clusters are not counted */
};

/* A fault in one sentence. */
void qcow2_check_say(struct qcow2_check *c, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void qcow2_check_progress(struct qcow2_check *c, uint64_t step);

/* qcow2_rebuild.c: new refcount blocks and table for what was counted, then right flags. */
int qcow2_rebuild(struct qcow2_check *c, struct error *err);
/* Marks entries of active tables as shared or not, by the counts; fix: writes. Counts the wrong. */
int qcow2_check_flags(struct qcow2_check *c, bool fix);

#endif
