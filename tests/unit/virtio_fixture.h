/*
 * A driver for one modern virtio device on the machine of pci_fixture.h: negotiates, sets queues
 * up, puts requests into split or packed rings and takes them back. With a loop, completions come
 * on a thread of their own; without, before the notification returns.
 */
#ifndef TESTS_VIRTIO_FIXTURE_H
#define TESTS_VIRTIO_FIXTURE_H

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <time.h>

#include "host/loop.h"
#include "pci/internal.h"
#include "pci_fixture.h"
#include "virtio/pci.h"

#define VQ_MAX 8u
#define VQ_TAGS 16u
#define VQ_SIZE 64u
#define VQ_RINGS 0x10000u  /* 0x4000 for each queue */
#define VQ_TABLES 0x80000u /* indirect ones, 64 entries for each tag */

#define D_NEXT 1u
#define D_WRITE 2u
#define D_INDIRECT 4u
#define P_AVAIL 0x80u
#define P_USED 0x8000u

#define F_INDIRECT (1ull << 28)
#define F_EVENT_IDX (1ull << 29)
#define F_VERSION_1 (1ull << 32)
#define F_PACKED (1ull << 34)
#define F_RING_RESET (1ull << 40)

struct vbuf {
    uint64_t gpa;
    uint32_t len;
    bool write;
};

struct vq {
    uint64_t desc, avail, used;
    unsigned size, room;
    uint16_t at, used_at;
    bool wrap, used_wrap;
    bool busy[VQ_SIZE]; /* split: descriptors */
    unsigned tag_of[VQ_SIZE], slots[VQ_TAGS], head[VQ_TAGS];
};

struct driver {
    struct machine m;
    struct loop *loop;
    pthread_t thread;
    struct config *node;
    uint64_t bar, offered, features, x; /* x: of the random numbers */
    struct vq q[VQ_MAX];
};

static inline uint64_t rnd(struct driver *d, uint64_t n)
{
    d->x = d->x * 6364136223846793005ull + 1442695040888963407ull;
    return (d->x >> 33) % n;
}

/* VIRTIO_SEED=n plays the same again. */
static inline void driver_seed(struct driver *d)
{
    const char *given = getenv("VIRTIO_SEED");
    unsigned seed = given != NULL ? (unsigned)strtoul(given, NULL, 0) : (unsigned)time(NULL);

    printf("VIRTIO_SEED=%u\n", seed);
    d->x = seed * 2654435761ull + 1;
}

static inline void *driver_loop(void *ctx)
{
    loop_run(ctx);
    return NULL;
}

static inline void driver_start(struct driver *d, const struct pci_ops *ops, const char *options,
                                bool threaded)
{
    struct error err = {0};
    uint64_t x = d->x;

    memset(d, 0, sizeof(*d));
    d->x = x;
    machine_start(&d->m, false);
    d->node = config_create();
    assert_int_equal(
        options_parse(d->node, ops->options, ops->option_count, options, ops->name, &err), 0);
    machine_env(&d->m, &d->m.env[0], "disk");
    if (threaded) {
        d->loop = loop_create(&err);
        assert_non_null(d->loop);
        d->m.env[0].loop = d->loop;
    }
    if (pci_add(d->m.pci, 0, 4, 0, ops, &d->m.env[0], d->node, &err) != 0)
        fail_msg("%s", err.text);
    d->m.devices = 1;
    assert_int_equal(pci_assign(d->m.pci, &err), 0);
    cfgw(&d->m, 4, 0, 4, 2, 7);
    d->bar = cfgr(&d->m, 4, 0, 0x20, 4) & ~15u;
    if (threaded)
        assert_int_equal(pthread_create(&d->thread, NULL, driver_loop, d->loop), 0);
}

static inline void driver_stop(struct driver *d)
{
    if (d->loop != NULL) {
        loop_stop(d->loop);
        pthread_join(d->thread, NULL);
    }
    machine_stop(&d->m);
    if (d->loop != NULL)
        loop_destroy(d->loop);
    config_destroy(d->node);
}

static inline void put(struct driver *d, uint64_t gpa, uint64_t v, size_t size)
{
    assert_int_equal(gmem_write(d->m.mem, gpa, &v, size), 0);
}

/* What a device on another thread may look at meanwhile: after all that was put before. */
static inline void publish16(struct driver *d, uint64_t gpa, unsigned v)
{
    __atomic_store_n((uint16_t *)gmem_ptr(d->m.mem, gpa, 2), (uint16_t)v, __ATOMIC_RELEASE);
}

static inline uint8_t driver_status(struct driver *d)
{
    return (uint8_t)mmio_in(&d->m, d->bar + 0x14, 1);
}

static inline void driver_set_status(struct driver *d, uint8_t status)
{
    mmio_out(&d->m, d->bar + 0x14, 1, status);
}

/* Up to FEATURES_OK, with what is offered of `want`. */
static inline void driver_negotiate(struct driver *d, uint64_t want)
{
    driver_set_status(d, 0);
    assert_int_equal(driver_status(d), 0);
    driver_set_status(d, 3);
    d->offered = 0;
    for (unsigned i = 0; i < 2; i++) {
        mmio_out(&d->m, d->bar, 4, i);
        d->offered |= mmio_in(&d->m, d->bar + 4, 4) << 32 * i;
    }
    d->features = d->offered & want;
    for (unsigned i = 0; i < 2; i++) {
        mmio_out(&d->m, d->bar + 8, 4, i);
        mmio_out(&d->m, d->bar + 0xC, 4, (uint32_t)(d->features >> 32 * i));
    }
    driver_set_status(d, 0xB);
    assert_int_equal(driver_status(d), 0xB);
}

static inline void queue_start(struct driver *d, unsigned n, unsigned size)
{
    struct vq *q = &d->q[n];

    memset(q, 0, sizeof(*q));
    q->desc = VQ_RINGS + 0x4000ull * n;
    q->avail = q->desc + 0x1000;
    q->used = q->desc + 0x2000;
    q->size = q->room = size;
    q->wrap = q->used_wrap = true;
    assert_int_equal(gmem_fill(d->m.mem, q->desc, 0, 0x3000), 0);
    mmio_out(&d->m, d->bar + 0x16, 2, n);
    mmio_out(&d->m, d->bar + 0x18, 2, size);
    assert_int_equal(mmio_in(&d->m, d->bar + 0x18, 2), size);
    mmio_out(&d->m, d->bar + 0x20, 8, q->desc);
    mmio_out(&d->m, d->bar + 0x28, 8, q->avail);
    mmio_out(&d->m, d->bar + 0x30, 8, q->used);
    mmio_out(&d->m, d->bar + 0x1C, 2, 1);
    assert_int_equal(mmio_in(&d->m, d->bar + 0x1C, 2), 1);
}

/* The image has another size now. */
static inline void driver_refresh(struct driver *d)
{
    pthread_mutex_lock(&d->m.env[0].lock);
    virtio_pci_refresh(d->m.pci->funcs[0]->impl);
    pthread_mutex_unlock(&d->m.env[0].lock);
}

/* The whole of it, `queues` of them of that size (2 at most in a hostile build). */
static inline void driver_begin(struct driver *d, uint64_t want, unsigned queues, unsigned size)
{
    driver_negotiate(d, want);
    mmio_out(&d->m, d->bar + 0x16, 2, 0);
    size = (unsigned)min_u64(size, mmio_in(&d->m, d->bar + 0x18, 2));
    for (unsigned i = 0; i < queues; i++)
        queue_start(d, i, size);
    driver_set_status(d, 0xF);
    assert_int_equal(driver_status(d), 0xF);
}

static inline void put_desc(struct driver *d, uint64_t at, const struct vbuf *b, unsigned flags,
                            unsigned next)
{
    bool packed = (d->features & F_PACKED) != 0;

    put(d, at, b->gpa, 8);
    put(d, at + 8, b->len, 4);
    put(d, at + (packed ? 14 : 12), flags | (b->write ? D_WRITE : 0), 2);
    put(d, at + (packed ? 12 : 14), next, 2);
}

static inline unsigned unused_desc(struct driver *d, struct vq *q)
{
    unsigned i = (unsigned)rnd(d, q->size);

    while (q->busy[i])
        i = (i + 1) % q->size;
    q->busy[i] = true;
    return i;
}

/* The chain in an indirect table of the tag's; what stands in the ring instead. */
static inline struct vbuf add_table(struct driver *d, const struct vbuf *b, unsigned n,
                                    unsigned tag)
{
    struct vbuf table = {VQ_TABLES + 0x400ull * tag, 16 * n, false};

    for (unsigned i = 0; i < n; i++)
        put_desc(d, table.gpa + 16 * i, &b[i],
                 i + 1 < n && (d->features & F_PACKED) == 0 ? D_NEXT : 0, i + 1);
    return table;
}

static inline void add_split(struct driver *d, struct vq *q, const struct vbuf *b, unsigned n,
                             unsigned flags, unsigned tag)
{
    unsigned first = unused_desc(d, q), at = first;

    for (unsigned i = 0; i < n; i++) {
        unsigned next = i + 1 < n ? unused_desc(d, q) : 0;

        put_desc(d, q->desc + 16 * at, &b[i], flags | (i + 1 < n ? D_NEXT : 0), next);
        at = next;
    }
    q->tag_of[first] = tag;
    q->head[tag] = first;
    put(d, q->avail + 4 + 2 * (q->at % q->size), first, 2);
    q->at++;
    publish16(d, q->avail + 2, q->at);
}

static inline void add_packed(struct driver *d, struct vq *q, const struct vbuf *b, unsigned n,
                              unsigned flags, unsigned tag)
{
    uint64_t head = q->desc + 16 * q->at;
    unsigned head_flags = 0;

    for (unsigned i = 0; i < n; i++) {
        unsigned f = flags | (i + 1 < n ? D_NEXT : 0) | (q->wrap ? P_AVAIL : P_USED);

        if (i == 0) { /* the first one last, when all are there */
            head_flags = f | (b->write ? D_WRITE : 0);
            put(d, head, b->gpa, 8);
            put(d, head + 8, b->len, 4);
            put(d, head + 12, tag, 2);
        } else {
            put_desc(d, q->desc + 16 * q->at, &b[i], f, tag);
        }
        if (++q->at == q->size) {
            q->at = 0;
            q->wrap = !q->wrap;
        }
    }
    publish16(d, head + 14, head_flags);
}

/* False: no room now. tag: below VQ_TAGS, not out now. */
static inline bool queue_add(struct driver *d, unsigned queue, const struct vbuf *b, unsigned n,
                             unsigned tag)
{
    struct vq *q = &d->q[queue];
    bool indirect = (d->features & F_INDIRECT) != 0 && (n > q->size || rnd(d, 2) == 0);
    unsigned need = indirect ? 1 : n;
    struct vbuf table;

    if (need > q->room)
        return false;
    q->room -= need;
    q->slots[tag] = need;
    if (indirect)
        table = add_table(d, b, n, tag);
    if ((d->features & F_PACKED) != 0)
        add_packed(d, q, indirect ? &table : b, need, indirect ? D_INDIRECT : 0, tag);
    else
        add_split(d, q, indirect ? &table : b, need, indirect ? D_INDIRECT : 0, tag);
    return true;
}

static inline void queue_kick(struct driver *d, unsigned queue)
{
    mmio_out(&d->m, d->bar + 0x3000 + 4 * queue, 2, queue);
}

static inline uint16_t shared16(struct driver *d, uint64_t gpa)
{
    return __atomic_load_n((uint16_t *)gmem_ptr(d->m.mem, gpa, 2), __ATOMIC_ACQUIRE);
}

static inline void free_chain(struct driver *d, struct vq *q, unsigned at)
{
    for (;;) {
        uint16_t flags = gmem_read16(d->m.mem, q->desc + 16 * at + 12);

        assert_true(q->busy[at]);
        q->busy[at] = false;
        if ((flags & D_NEXT) == 0)
            return;
        at = gmem_read16(d->m.mem, q->desc + 16 * at + 14);
    }
}

/* True: one has come back. */
static inline bool queue_take(struct driver *d, unsigned queue, unsigned *tag, uint32_t *len)
{
    struct vq *q = &d->q[queue];
    uint64_t at;

    if ((d->features & F_PACKED) != 0) {
        uint16_t flags = shared16(d, q->desc + 16 * q->used_at + 14);

        at = q->desc + 16 * q->used_at;
        if (((flags & P_AVAIL) != 0) != q->used_wrap || ((flags & P_USED) != 0) != q->used_wrap)
            return false;
        *tag = gmem_read16(d->m.mem, at + 12);
        *len = gmem_read32(d->m.mem, at + 8);
        assert_true(*tag < VQ_TAGS && q->slots[*tag] != 0);
        q->used_at = (uint16_t)(q->used_at + q->slots[*tag]);
        if (q->used_at >= q->size) {
            q->used_at = (uint16_t)(q->used_at - q->size);
            q->used_wrap = !q->used_wrap;
        }
    } else {
        if (shared16(d, q->used + 2) == q->used_at)
            return false;
        at = q->used + 4 + 8 * (q->used_at % q->size);
        assert_true(gmem_read32(d->m.mem, at) < q->size);
        *tag = q->tag_of[gmem_read32(d->m.mem, at)];
        *len = gmem_read32(d->m.mem, at + 4);
        assert_true(q->slots[*tag] != 0);
        free_chain(d, q, q->head[*tag]);
        q->used_at++;
    }
    q->room += q->slots[*tag];
    q->slots[*tag] = 0;
    return true;
}

/* Takes one, waiting for the device's thread. */
static inline void queue_wait(struct driver *d, unsigned queue, unsigned *tag, uint32_t *len)
{
    while (!queue_take(d, queue, tag, len)) {
        if (d->loop == NULL)
            fail_msg("the request did not come back");
        timerq_step(d->m.timers, 1000000); /* for those that a limit holds back */
        sched_yield();
    }
}

#endif
