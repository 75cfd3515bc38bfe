/*
 * A driver of an AHCI port, and a block layer that the test plays: it takes requests, holds them if
 * it is told to, and ends them in any order and with any error. It stands for src/block/, of which
 * these programs link nothing.
 */
#ifndef TESTS_AHCI_FIXTURE_H
#define TESTS_AHCI_FIXTURE_H

#include "pci_fixture.h"

#include <errno.h>
#include <stdio.h>

#include "block/block.h"
#include "storage/storage.h"

#define DISK_SIZE (1u << 20)
#define PENDING 64u

struct block {
    struct dev_env *env;
    const struct block_events *events;
    void *ctx;
    struct block_geometry geo;
    uint8_t *data;
    bool hold, in_done;
    bool at_unplug; /* what is held ends inside block_unplug */
    int fail;       /* for the next request */
    struct block_request *pending[PENDING];
    unsigned count, submitted, drains, fua, flushes, zeros;
    struct block_request *queue[PENDING]; /* submitted inside a `done` */
    unsigned queued;
};

/* The last one that was opened; one thread, one test. */
static struct block *the_block;
/* For the next one. */
static struct block_geometry next_geometry;

static void fake_move(struct block *b, struct block_request *r)
{
    uint64_t at = r->offset;

    if (r->op == BLOCK_FLUSH)
        return;
    assert_true(r->len != 0 && r->len % b->geo.sector == 0 && r->offset % b->geo.sector == 0);
    assert_true(r->offset <= b->geo.size && b->geo.size - r->offset >= r->len);
    if (r->op == BLOCK_ZERO || r->op == BLOCK_DISCARD) {
        memset(b->data + at, 0, r->len);
        return;
    }
    for (unsigned i = 0; i < r->iov_count; i++) {
        assert_true(r->iov[i].iov_len != 0);
        if (r->op == BLOCK_READ)
            memcpy(r->iov[i].iov_base, b->data + at, r->iov[i].iov_len);
        else
            memcpy(b->data + at, r->iov[i].iov_base, r->iov[i].iov_len);
        at += r->iov[i].iov_len;
    }
    assert_int_equal(at - r->offset, r->len);
}

static void fake_end(struct block *b, struct block_request *r, int rc)
{
    assert_false(b->in_done);
    if (rc == 0)
        fake_move(b, r);
    b->in_done = true;
    r->done(r, rc);
    b->in_done = false;
    while (b->queued != 0) {
        struct block_request *next = b->queue[0];

        memmove(b->queue, b->queue + 1, --b->queued * sizeof(b->queue[0]));
        block_submit(b, next);
    }
}

static void fake_take(struct block *b, unsigned n, int rc)
{
    struct block_request *r = b->pending[n];

    assert_true(n < b->count);
    memmove(b->pending + n, b->pending + n + 1, (--b->count - n) * sizeof(b->pending[0]));
    fake_end(b, r, rc);
}

/* Ends the n-th that is held; what its end has put off goes on. */
static inline void fake_finish(struct block *b, unsigned n, int rc)
{
    fake_take(b, n, rc);
    timerq_step(b->env->timers, 0);
}

int block_open(struct dev_env *env, const struct options *opts, bool removable,
               const struct block_events *events, void *ctx, struct block **out, struct error *err)
{
    struct block *b = calloc(1, sizeof(*b));

    (void)opts;
    (void)err;
    assert_non_null(b);
    b->env = env;
    b->events = events;
    b->ctx = ctx;
    b->geo = next_geometry;
    b->geo.removable = removable;
    snprintf(b->geo.serial, sizeof(b->geo.serial), "FAKE");
    b->data = malloc(DISK_SIZE);
    assert_non_null(b->data);
    for (unsigned i = 0; i < DISK_SIZE; i++)
        b->data[i] = (uint8_t)(i >> 9 ^ i);
    *out = the_block = b;
    return 0;
}

void block_close(struct block *b)
{
    block_drain(b);
    free(b->data);
    free(b);
}

void block_geometry(struct block *b, struct block_geometry *out)
{
    *out = b->geo;
}

void block_submit(struct block *b, struct block_request *r)
{
    int rc = b->fail;

    if (b->in_done) {
        assert_true(b->queued < PENDING);
        b->queue[b->queued++] = r;
        return;
    }
    b->submitted++;
    b->fua += r->fua;
    b->flushes += r->op == BLOCK_FLUSH;
    b->zeros += r->op == BLOCK_ZERO && r->punch;
    if (b->hold) {
        assert_true(b->count < PENDING);
        b->pending[b->count++] = r;
        return;
    }
    b->fail = 0;
    fake_end(b, r, rc);
}

void block_plug(struct block *b)
{
    (void)b;
}

void block_unplug(struct block *b)
{
    for (unsigned n = b->at_unplug ? b->count : 0; n > 0; n--)
        fake_take(b, 0, 0);
}

void block_drain(struct block *b)
{
    bool hold = b->hold;

    assert_false(b->in_done); /* it would wait for itself */
    b->drains++;
    b->hold = false;
    while (b->count != 0)
        fake_take(b, 0, 0);
    b->hold = hold;
}

void block_refresh(struct block *b)
{
    (void)b;
}

int block_insert(struct block *b, const char *path, struct error *err)
{
    (void)err;
    assert_false(b->in_done); /* as for a drain */
    b->geo.size = path != NULL ? DISK_SIZE : 0;
    b->events->changed(b->ctx);
    return 0;
}

void block_stats(struct block *b, struct block_stats *out)
{
    (void)b;
    memset(out, 0, sizeof(*out));
}

/* ---- the driver; one port, the first ---- */

#define SLOT 3u
#define LIST 0x10000u
#define FISES 0x11000u
#define TABLES 0x100000u /* 64 KiB apart */
#define TABLE(slot) (TABLES + (slot)*0x10000ull)
#define DATA 0x400000u /* 256 KiB for each slot */
#define DATA_OF(slot) (DATA + (slot)*0x40000ull)

enum { IS = 0x10, IE = 0x14, CMD = 0x18, TFD = 0x20, SIG = 0x24, SSTS = 0x28, SCTL = 0x2C };
enum { SERR = 0x30, SACT = 0x34, CI = 0x38 };

struct driver {
    struct machine m;
    uint64_t bar;
    struct block *b;
};

static inline uint32_t px(struct driver *d, unsigned reg)
{
    return (uint32_t)mmio_in(&d->m, d->bar + 0x100 + reg, 4);
}

static inline void pxw(struct driver *d, unsigned reg, uint32_t v)
{
    mmio_out(&d->m, d->bar + 0x100 + reg, 4, v);
}

static inline void port_start(struct driver *d)
{
    mmio_out(&d->m, d->bar + 0x100, 8, LIST);
    mmio_out(&d->m, d->bar + 0x108, 8, FISES);
    pxw(d, CMD, 0x10);
    pxw(d, SERR, 0xFFFFFFFF);
    pxw(d, IS, 0xFFFFFFFF);
    pxw(d, IE, 0xFFFFFFFF);
    pxw(d, CMD, 0x11);
    mmio_out(&d->m, d->bar + 8, 4, 0xFFFFFFFF);
    mmio_out(&d->m, d->bar + 4, 4, 2);
}

static inline void port_restart(struct driver *d)
{
    pxw(d, CMD, 0x10);
    pxw(d, CMD, 0x18);
    port_start(d);
}

static inline void driver_begin(struct driver *d, const struct pci_ops *ops)
{
    memset(d, 0, sizeof(*d));
    if (next_geometry.size == 0)
        next_geometry = (struct block_geometry){
            .size = DISK_SIZE, .sector = 512, .physical = 512, .discard = true};
    machine_start(&d->m, false);
    assert_int_equal(machine_add(&d->m, SLOT, 0, ops), 0);
    assert_int_equal(pci_assign(d->m.pci, NULL), 0);
    d->bar = cfgr(&d->m, SLOT, 0, 0x24, 4);
    cfgw(&d->m, SLOT, 0, 4, 2, 7);
    d->b = the_block;
    port_start(d);
}

static inline void driver_end(struct driver *d)
{
    machine_stop(&d->m);
    next_geometry = (struct block_geometry){0};
}

static inline void put(struct driver *d, uint64_t gpa, uint64_t v, size_t size)
{
    assert_int_equal(gmem_write(d->m.mem, gpa, &v, size), 0);
}

struct cmd {
    uint8_t op, device;
    uint16_t feature, count;
    uint64_t lba;
    bool write, packet;
};

static inline void put_fis(struct driver *d, unsigned slot, const struct cmd *c)
{
    uint8_t fis[20] = {0x27, 0x80, c->op, (uint8_t)c->feature};

    for (unsigned i = 0; i < 3; i++) {
        fis[4 + i] = (uint8_t)(c->lba >> 8 * i);
        fis[8 + i] = (uint8_t)(c->lba >> (24 + 8 * i));
    }
    fis[7] = c->device | 0x40;
    fis[11] = (uint8_t)(c->feature >> 8);
    fis[12] = (uint8_t)c->count;
    fis[13] = (uint8_t)(c->count >> 8);
    assert_int_equal(gmem_write(d->m.mem, TABLE(slot), fis, sizeof(fis)), 0);
}

/* One piece of len bytes in the slot's own area; the command is not issued yet. */
static inline void build(struct driver *d, unsigned slot, const struct cmd *c, uint32_t len)
{
    put(d, LIST + slot * 32ull,
        5u | (c->packet ? 0x20u : 0) | (c->write ? 0x40u : 0) | (len != 0 ? 1u << 16 : 0), 4);
    put(d, LIST + slot * 32ull + 4, 0, 4);
    put(d, LIST + slot * 32ull + 8, TABLE(slot), 8);
    put_fis(d, slot, c);
    if (len == 0)
        return;
    put(d, TABLE(slot) + 0x80, DATA_OF(slot), 8);
    put(d, TABLE(slot) + 0x8C, len - 1, 4);
}

static inline void issue(struct driver *d, uint32_t slots, bool queued)
{
    if (queued)
        pxw(d, SACT, slots);
    pxw(d, CI, slots);
}

/* Builds in slot 0, issues, and gives back PxTFD. */
static inline uint32_t run(struct driver *d, const struct cmd *c, uint32_t len)
{
    build(d, 0, c, len);
    issue(d, 1, false);
    return px(d, TFD);
}

static inline struct cmd fpdma(unsigned slot, bool write, uint64_t lba, uint16_t count)
{
    return (struct cmd){.op = write ? 0x61 : 0x60,
                        .feature = count,
                        .count = (uint16_t)(slot << 3),
                        .lba = lba,
                        .write = write};
}

#endif
