/*
 * The block layer as a fuzz target plays it, instead of src/block/: disks in memory that hold
 * requests and end them when the program says, in any order and with any error. What block.h asks
 * of its owners is checked. Include in one file of a target.
 */
#ifndef TESTS_FUZZ_DISK_H
#define TESTS_FUZZ_DISK_H

#include <errno.h>

#include "block/block.h"
#include "memory.h"

#define DISKS 2u
#define DISK_SIZE (1u << 20)
#define DISK_WAITING 8192u       /* more are never out: a device has so many slots, or its ring */
#define DISK_BUDGET (8ull << 20) /* bytes moved in one program; then all fails, so that it ends */

struct block {
    struct dev_env *env;
    const struct block_events *events;
    void *ctx;
    struct block_geometry geo;
    uint64_t next_size; /* what a refresh finds */
    bool change_due;    /* to be told, as from another thread a moment later */
    uint8_t *data;      /* kept from run to run, as its pages that were written */
    bool dirty[DISK_SIZE / 4096];
    struct block_request *waiting[DISK_WAITING];
    unsigned count;
};

static struct {
    struct block disk[DISKS];
    unsigned count;            /* that are open */
    struct block_geometry geo; /* of those to be opened */
    bool hold, in_done;
    int fail; /* for the next request */
    uint64_t moved;
} disks;

/* What the next disks to be opened are like. */
static inline void disks_like(bool large_sectors, bool large_blocks, bool read_only, bool discard)
{
    disks.geo = (struct block_geometry){.size = DISK_SIZE,
                                        .sector = large_sectors ? 4096 : 512,
                                        .physical = large_blocks ? 4096 : 512,
                                        .read_only = read_only,
                                        .discard = discard};
}

/* Iovecs are copied from and to as they stand: the sanitizers and the guards of RAM judge them. */
static int disk_carry_out(struct block *b, struct block_request *r)
{
    uint64_t at = r->offset;

    if (r->op == BLOCK_FLUSH)
        return 0;
    if (r->offset > b->geo.size || b->geo.size - r->offset < r->len)
        return -EINVAL;
    if (b->geo.read_only && r->op != BLOCK_READ)
        return -EROFS;
    disks.moved += r->len;
    if (disks.moved > DISK_BUDGET)
        return -EIO;
    for (uint64_t i = at / 4096; r->op != BLOCK_READ && i <= (at + r->len - 1) / 4096; i++)
        b->dirty[i] = true;
    if (r->op == BLOCK_ZERO || r->op == BLOCK_DISCARD) {
        memset(b->data + at, r->op == BLOCK_ZERO ? 0 : 0xDD, r->len);
        return 0;
    }
    for (unsigned i = 0; i < r->iov_count; i++) {
        if (r->op == BLOCK_READ)
            memcpy(r->iov[i].iov_base, b->data + at, r->iov[i].iov_len);
        else
            memcpy(b->data + at, r->iov[i].iov_base, r->iov[i].iov_len);
        at += r->iov[i].iov_len;
    }
    return 0;
}

static void disk_end(struct block *b, unsigned n, int rc)
{
    struct block_request *r = b->waiting[n];

    check(!disks.in_done && n < b->count);
    memmove(&b->waiting[n], &b->waiting[n + 1], (--b->count - n) * sizeof(b->waiting[0]));
    if (rc == 0)
        rc = disk_carry_out(b, r);
    disks.in_done = true;
    r->done(r, rc);
    disks.in_done = false;
}

/* As at the first time: a pattern in the first page, then zeros. */
static void disk_clean(struct block *b)
{
    if (b->data == NULL) {
        b->data = mmap(NULL, DISK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        check(b->data != MAP_FAILED);
    }
    for (unsigned i = 0; i < countof(b->dirty); i++) {
        if (b->dirty[i])
            memset(b->data + 4096 * (size_t)i, 0, 4096);
        b->dirty[i] = false;
    }
    for (unsigned i = 0; i < 4096; i++)
        b->data[i] = (uint8_t)(i >> 9 ^ i);
}

int block_open(struct dev_env *env, const struct options *opts, bool removable,
               const struct block_events *events, void *ctx, struct block **out, struct error *err)
{
    struct block *b = &disks.disk[disks.count++];

    (void)opts;
    (void)err;
    check(disks.count <= DISKS);
    disk_clean(b);
    b->count = 0;
    b->env = env;
    b->events = events;
    b->ctx = ctx;
    b->geo = disks.geo;
    b->geo.removable = removable;
    b->geo.read_only |= removable;
    b->next_size = b->geo.size;
    b->change_due = false;
    snprintf(b->geo.serial, sizeof(b->geo.serial), "FUZZ");
    *out = b;
    return 0;
}

void block_close(struct block *b)
{
    block_drain(b);
}

void block_geometry(struct block *b, struct block_geometry *out)
{
    *out = b->geo;
}

static void disk_judge(const struct block *b, const struct block_request *r)
{
    uint64_t sum = 0;

    check(r->done != NULL && b->count < DISK_WAITING);
    if (r->op == BLOCK_FLUSH)
        return;
    check(r->offset % b->geo.sector == 0 && r->len % b->geo.sector == 0);
    if (r->op != BLOCK_READ && r->op != BLOCK_WRITE)
        return;
    for (unsigned i = 0; i < r->iov_count; i++)
        sum += r->iov[i].iov_len;
    check(sum == r->len && sum != 0);
}

void block_submit(struct block *b, struct block_request *r)
{
    int rc = disks.fail;

    disk_judge(b, r);
    b->waiting[b->count++] = r;
    while (!disks.hold && !disks.in_done && b->count > 0) {
        disk_end(b, 0, rc);
        disks.fail = rc = 0;
    }
}

void block_plug(struct block *b)
{
    (void)b;
}

void block_unplug(struct block *b)
{
    (void)b;
}

void block_drain(struct block *b)
{
    check(!disks.in_done); /* it would wait for itself */
    while (b->count > 0)
        disk_end(b, 0, 0);
}

/* The owner's lock is held. */
static void disk_tell(struct block *b)
{
    if (!b->change_due || disks.in_done)
        return;
    b->change_due = false;
    b->events->changed(b->ctx);
}

static void disk_change(struct block *b, uint64_t size)
{
    b->change_due |= b->geo.size != size || b->geo.removable;
    b->geo.size = b->next_size = size;
    if (!disks.hold)
        disk_tell(b);
}

void block_refresh(struct block *b)
{
    if (b->next_size != b->geo.size || b->change_due)
        disk_change(b, b->next_size);
}

int block_insert(struct block *b, const char *path, struct error *err)
{
    check(!disks.in_done && b->geo.removable);
    block_drain(b);
    if (path != NULL && strcmp(path, "missing") == 0)
        return error_set(err, -ENOENT, "missing: it is");
    disk_change(b, path != NULL ? disks.geo.size : 0);
    return 0;
}

/* The owner's lock is not held. */
static inline void disk_finish(struct block *b, unsigned n, int rc)
{
    pthread_mutex_lock(&b->env->lock);
    disk_end(b, n, rc);
    while (!disks.hold && b->count > 0)
        disk_end(b, 0, 0);
    disk_tell(b);
    pthread_mutex_unlock(&b->env->lock);
}

void block_stats(struct block *b, struct block_stats *out)
{
    (void)b;
    memset(out, 0, sizeof(*out));
}

#endif
