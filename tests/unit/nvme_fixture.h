/*
 * An NVMe controller on a bare machine, with a driver of the tests' own, and a disk that stands in
 * for block/: it ends requests at once, or when the test says, in any order and with any error.
 */
#ifndef TESTS_NVME_FIXTURE_H
#define TESTS_NVME_FIXTURE_H

#include <errno.h>
#include <stdio.h>

#include "base/endian.h"
#include "block/block.h"
#include "pci_fixture.h"
#include "storage/storage.h"

#define SLOT 5u
#define DISK_SIZE (4u << 20)
#define DISK_QUEUE 4096u
#define QUEUES 8u

/* Where things lie in the guest's 16 MiB. */
#define ASQ 0x10000ull
#define ACQ 0x20000ull
#define ADMIN_ENTRIES 16u
#define IOSQ(q) (0x100000ull + (q)*0x20000ull)
#define IOCQ(q) (0x110000ull + (q)*0x20000ull)
#define DATA 0x800000ull
#define LISTS 0x300000ull
#define NO_RAM 0x3000000ull

/* ---- the disk ---- */

struct block {
    uint8_t *data, *stable; /* stable: what a flush has reached */
    struct block_geometry g;
    const struct block_events *events;
    void *ctx;
    bool manual, in_done;
    struct block_request *queue[DISK_QUEUE];
    unsigned count, most, submitted, flushes, discards, drains;
    bool last_fua, last_punch;
};

static struct block *disk; /* the one that is open */
static const struct block_geometry usual_geometry = {
    .size = DISK_SIZE, .sector = 512, .physical = 512};
static struct block_geometry disk_geometry = {
    .size = DISK_SIZE, .sector = 512, .physical = 512}; /* of the next */

int block_open(struct dev_env *env, const struct options *opts, bool removable,
               const struct block_events *events, void *ctx, struct block **out, struct error *err)
{
    struct block *b = calloc(1, sizeof(*b));

    (void)env;
    (void)opts;
    (void)removable;
    (void)err;
    b->data = calloc(1, DISK_SIZE);
    b->stable = calloc(1, DISK_SIZE);
    b->g = disk_geometry;
    snprintf(b->g.serial, sizeof(b->g.serial), "TEST-0123456789ABCDEF-and-more");
    b->events = events;
    b->ctx = ctx;
    disk = *out = b;
    return 0;
}

static int disk_carry_out(struct block *b, struct block_request *r)
{
    uint64_t at = r->offset;

    if (r->op != BLOCK_FLUSH && (r->offset > b->g.size || r->len > b->g.size - r->offset))
        return -EINVAL;
    for (unsigned i = 0; i < r->iov_count; i++) {
        if (r->op == BLOCK_WRITE)
            memcpy(b->data + at, r->iov[i].iov_base, r->iov[i].iov_len);
        else
            memcpy(r->iov[i].iov_base, b->data + at, r->iov[i].iov_len);
        at += r->iov[i].iov_len;
    }
    if (r->iov_count != 0)
        assert_int_equal(at - r->offset, r->len);
    if (r->op == BLOCK_ZERO)
        memset(b->data + r->offset, 0, r->len);
    if (r->op == BLOCK_DISCARD)
        memset(b->data + r->offset, 0xDD, r->len);
    b->discards += r->op == BLOCK_DISCARD;
    if (r->op == BLOCK_FLUSH) {
        memcpy(b->stable, b->data, DISK_SIZE);
        b->flushes++;
    } else if (r->fua) {
        memcpy(b->stable + r->offset, b->data + r->offset, r->len);
    }
    return 0;
}

/* Ends the n-th of those that wait. rc 0: carries it out first. */
static void disk_finish(unsigned n, int rc)
{
    struct block *b = disk;
    struct block_request *r = b->queue[n];

    assert_true(n < b->count);
    memmove(&b->queue[n], &b->queue[n + 1], (b->count - n - 1) * sizeof(b->queue[0]));
    b->count--;
    if (rc == 0)
        rc = disk_carry_out(b, r);
    b->in_done = true;
    r->done(r, rc);
    b->in_done = false;
}

void block_submit(struct block *b, struct block_request *r)
{
    assert_true(b->count < DISK_QUEUE);
    if (r->op == BLOCK_READ || r->op == BLOCK_WRITE) {
        assert_true(r->len != 0 && r->len % b->g.sector == 0 && r->offset % b->g.sector == 0);
        assert_true(r->iov_count > 0);
    }
    b->last_fua = r->fua;
    b->last_punch = r->punch;
    b->submitted++;
    b->queue[b->count++] = r;
    if (b->count > b->most)
        b->most = b->count;
    while (!b->manual && !b->in_done && b->count > 0)
        disk_finish(0, 0);
}

void block_drain(struct block *b)
{
    b->drains++;
    while (b->count > 0)
        disk_finish(0, 0);
}

void block_close(struct block *b)
{
    block_drain(b);
    free(b->data);
    free(b->stable);
    free(b);
    disk = NULL;
}

void block_geometry(struct block *b, struct block_geometry *out)
{
    *out = b->g;
}

void block_plug(struct block *b)
{
    (void)b;
}

void block_unplug(struct block *b)
{
    (void)b;
}

void block_refresh(struct block *b)
{
    (void)b;
}

/* ---- the driver ---- */

struct ring {
    uint64_t base;
    unsigned size, at;
    unsigned phase;
};

struct drv {
    struct machine m;
    struct config *config;
    uint64_t bar;
    struct ring sq[QUEUES + 1], cq[QUEUES + 1];
    uint16_t cid;
};

struct cqe {
    uint32_t result;
    uint16_t sqhd, sqid, cid, status; /* status without the phase */
};

struct sqe {
    uint8_t op, flags;
    uint32_t nsid;
    uint64_t prp1, prp2;
    uint32_t dw10, dw11, dw12, dw13;
};

static inline uint32_t reg(struct drv *d, unsigned offset)
{
    return (uint32_t)mmio_in(&d->m, d->bar + offset, 4);
}

static inline void set_reg(struct drv *d, unsigned offset, uint32_t v)
{
    mmio_out(&d->m, d->bar + offset, 4, v);
}

static inline void ring_sq(struct drv *d, unsigned q)
{
    set_reg(d, 0x1000 + 8 * q, d->sq[q].at);
}

/* Puts a command into the ring; ring_sq tells the controller. Its cid. */
static inline uint16_t put(struct drv *d, unsigned q, const struct sqe *e)
{
    uint8_t raw[64] = {0};
    struct ring *r = &d->sq[q];

    raw[0] = e->op;
    raw[1] = e->flags;
    le16_store(raw + 2, ++d->cid);
    le32_store(raw + 4, e->nsid);
    le64_store(raw + 24, e->prp1);
    le64_store(raw + 32, e->prp2);
    le32_store(raw + 40, e->dw10);
    le32_store(raw + 44, e->dw11);
    le32_store(raw + 48, e->dw12);
    le32_store(raw + 52, e->dw13);
    assert_int_equal(gmem_write(d->m.mem, r->base + 64 * r->at, raw, 64), 0);
    r->at = (r->at + 1) % r->size;
    return d->cid;
}

/* Takes the next completion, if there is one; the head doorbell is rung if `bell`. */
static inline bool take(struct drv *d, unsigned q, struct cqe *out, bool bell)
{
    uint8_t raw[16];
    struct ring *r = &d->cq[q];

    assert_int_equal(gmem_read(d->m.mem, r->base + 16 * r->at, raw, 16), 0);
    if ((raw[14] & 1) != r->phase)
        return false;
    out->result = le32_load(raw);
    out->sqhd = le16_load(raw + 8);
    out->sqid = le16_load(raw + 10);
    out->cid = le16_load(raw + 12);
    out->status = le16_load(raw + 14) >> 1;
    if (++r->at == r->size) {
        r->at = 0;
        r->phase ^= 1;
    }
    if (bell)
        set_reg(d, 0x1004 + 8 * q, r->at);
    return true;
}

/* One command and its completion; the status without More and DNR. */
static inline unsigned run(struct drv *d, unsigned q, const struct sqe *e, uint32_t *result)
{
    struct cqe c = {0};
    uint16_t cid = put(d, q, e);

    ring_sq(d, q);
    assert_true(take(d, q, &c, true));
    assert_int_equal(c.cid, cid);
    assert_int_equal(c.sqid, q);
    assert_int_equal(c.sqhd, d->sq[q].at);
    if (result != NULL)
        *result = c.result;
    return c.status & 0x7FF;
}

static inline unsigned admin(struct drv *d, struct sqe e)
{
    return run(d, 0, &e, NULL);
}

static inline struct ring new_ring(uint64_t base, unsigned size)
{
    return (struct ring){.base = base, .size = size, .phase = 1};
}

/* The rings of the admin queue, as the registers say; CC.EN. */
static inline void enable(struct drv *d)
{
    gmem_fill(d->m.mem, ASQ, 0, ADMIN_ENTRIES * 64);
    gmem_fill(d->m.mem, ACQ, 0, ADMIN_ENTRIES * 16);
    d->sq[0] = new_ring(ASQ, ADMIN_ENTRIES);
    d->cq[0] = new_ring(ACQ, ADMIN_ENTRIES);
    set_reg(d, 0x24, (ADMIN_ENTRIES - 1) << 16 | (ADMIN_ENTRIES - 1));
    mmio_out(&d->m, d->bar + 0x28, 8, ASQ);
    mmio_out(&d->m, d->bar + 0x30, 8, ACQ);
    set_reg(d, 0x14, 0x00460001);
    assert_int_equal(reg(d, 0x1C), 1);
}

static inline void disable(struct drv *d)
{
    set_reg(d, 0x14, 0x00460000);
    assert_int_equal(reg(d, 0x1C), 0);
}

static inline unsigned create_cq(struct drv *d, unsigned q, unsigned size, unsigned vector)
{
    gmem_fill(d->m.mem, IOCQ(q), 0, 16 * size);
    d->cq[q] = new_ring(IOCQ(q), size);
    return admin(
        d, (struct sqe){
               .op = 5, .prp1 = IOCQ(q), .dw10 = (size - 1) << 16 | q, .dw11 = vector << 16 | 3});
}

static inline unsigned create_sq(struct drv *d, unsigned q, unsigned size, unsigned cq)
{
    d->sq[q] = new_ring(IOSQ(q), size);
    return admin(
        d,
        (struct sqe){.op = 1, .prp1 = IOSQ(q), .dw10 = (size - 1) << 16 | q, .dw11 = cq << 16 | 1});
}

static inline void create_pair(struct drv *d, unsigned q, unsigned size)
{
    assert_int_equal(create_cq(d, q, size, 0), 0);
    assert_int_equal(create_sq(d, q, size, q), 0);
}

static inline struct sqe rw(uint8_t op, uint64_t slba, unsigned blocks, uint64_t prp1,
                            uint64_t prp2)
{
    return (struct sqe){.op = op,
                        .nsid = 1,
                        .prp1 = prp1,
                        .prp2 = prp2,
                        .dw10 = (uint32_t)slba,
                        .dw11 = (uint32_t)(slba >> 32),
                        .dw12 = blocks - 1};
}

static inline int nvme_add(struct drv *d, const char *options, struct error *err)
{
    struct dev_env *env = &d->m.env[0];

    d->config = config_create();
    assert_int_equal(
        options_parse(d->config, nvme_ops.options, nvme_ops.option_count, options, "nvme", err), 0);
    machine_env(&d->m, env, "disk0");
    return pci_add(d->m.pci, 0, SLOT, 0, &nvme_ops, env, d->config, err);
}

static inline struct drv *nvme_start(const char *options)
{
    struct drv *d = calloc(1, sizeof(*d));
    struct error err = {0};

    machine_start(&d->m, false);
    assert_int_equal(nvme_add(d, options, &err), 0);
    d->m.devices = 1;
    assert_int_equal(pci_assign(d->m.pci, &err), 0);
    cfgw(&d->m, SLOT, 0, 4, 2, 6);
    d->bar = cfgr(&d->m, SLOT, 0, 0x10, 4) & ~0xFu;
    return d;
}

static inline void nvme_stop(struct drv *d)
{
    machine_stop(&d->m);
    config_destroy(d->config);
    free(d);
}

static inline int setup(void **state)
{
    *state = nvme_start("path=x,maxq=4,qsz=64");
    return 0;
}

static inline int teardown(void **state)
{
    nvme_stop(*state);
    disk_geometry = usual_geometry;
    return 0;
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

#endif
