/*
 * A virtio driver for fuzz targets: legacy or modern, split or packed, as the program says. It
 * trusts nothing that it reads, so it can go on whatever state the device is in; what came back it
 * does not look at. A type says what a request of its own consists of.
 */
#ifndef TESTS_FUZZ_VIRTIO_RIG_H
#define TESTS_FUZZ_VIRTIO_RIG_H

#include "rig.h"
#include "virtio/virtio.h"

#define MODERN 4u
#define LEGACY 0u
#define QUEUES 4u
#define PARTS 16u

#define RING(q) (0x10000ull + 0x4000ull * (q)) /* descriptors; the two others 4 KiB apart */
#define TABLES 0x80000ull                      /* indirect ones, 1 KiB apart */
#define HEADS 0x200000ull                      /* what requests begin with, 256 bytes apart */
#define ANSWERS 0x210000ull                    /* what they end with */
#define DATA 0x300000ull                       /* 64 KiB apart */

#define D_NEXT 1u
#define D_WRITE 2u
#define D_INDIRECT 4u
#define P_AVAIL 0x80u
#define P_USED 0x8000u

#define F_INDIRECT (1ull << 28)
#define F_EVENT_IDX (1ull << 29)
#define F_VERSION_1 (1ull << 32)
#define F_PACKED (1ull << 34)

struct part {
    uint64_t gpa;
    uint32_t len;
    bool write;
};

struct fuzz_queue {
    unsigned size, at, next_desc;
    uint64_t avail; /* where the driver's part is: a legacy ring has its own layout */
    bool wrap;
};

struct virtio_driver {
    bool packed, legacy;
    unsigned queues, tag;
    struct fuzz_queue q[QUEUES];
    /* Parts of a request by the program's choices; returns how many, *queue which ring. */
    unsigned (*parts)(struct rig *r, unsigned tag, struct part *parts, unsigned *queue);
};

static const uint64_t virtio_places[] = {
    RING(0),        RING(0) + 0x1000, RING(0) + 0x2000,
    RING(1),        RING(1) + 0x1000, RING(1) + 0x2000,
    RING(2),        RING(2) + 0x1000, RING(2) + 0x2000,
    TABLES,         TABLES + 0x400,   HEADS,
    HEADS + 0x100,  ANSWERS,          DATA,
    DATA + 0x10000, RING(0) + 0x1002, RING(2) + 0x1002,
};

static const uint16_t virtio_regs[] = {
    0x00, 0x04,   0x08,   0x0C,   0x10,   0x12,   0x14, 0x15,   0x16,   0x18,   0x1A,
    0x1C, 0x1E,   0x20,   0x28,   0x30,   0x38,   0x3A, 0x1000, 0x2000, 0x2020, 0x2004,
    0x24, 0x2014, 0x3000, 0x3004, 0x3008, 0x300C, 0x14, 0x16,   0x1C,   0x3A,
};

static struct virtio_driver *virtio_of(struct rig *r)
{
    return r->driver;
}

/* ---- setting up ---- */

static void modern_features(struct rig *r, uint64_t unwanted)
{
    struct virtio_driver *d = virtio_of(r);
    uint64_t features = 0;

    for (unsigned i = 0; i < 2; i++) {
        bar_out(r, MODERN, 0, 4, i);
        features |= bar_in(r, MODERN, 4, 4) << 32 * i;
    }
    features &= ~unwanted;
    d->packed = (features & F_PACKED) != 0;
    for (unsigned i = 0; i < 2; i++) {
        bar_out(r, MODERN, 8, 4, i);
        bar_out(r, MODERN, 0xC, 4, (uint32_t)(features >> 32 * i));
    }
}

static void new_queue(struct rig *r, unsigned n, unsigned size)
{
    struct fuzz_queue *q = &virtio_of(r)->q[n];

    *q = (struct fuzz_queue){.size = size != 0 ? size : 1, .avail = RING(n) + 0x1000, .wrap = true};
    guest_fill(r->m.mem, RING(n), 0, 0x3000);
}

static void modern_queue(struct rig *r, unsigned n, unsigned size)
{
    bar_out(r, MODERN, 0x16, 2, n);
    bar_out(r, MODERN, 0x18, 2, size);
    new_queue(r, n, (unsigned)min_u64(size, bar_in(r, MODERN, 0x18, 2)));
    bar_out(r, MODERN, 0x1A, 2, n + 1);
    bar_out(r, MODERN, 0x20, 8, RING(n));
    bar_out(r, MODERN, 0x28, 8, RING(n) + 0x1000);
    bar_out(r, MODERN, 0x30, 8, RING(n) + 0x2000);
    bar_out(r, MODERN, 0x1C, 2, 1);
}

/* A legacy ring has the size that the device says. */
static void legacy_queue(struct rig *r, unsigned n)
{
    struct fuzz_queue *q = &virtio_of(r)->q[n];

    bar_out(r, LEGACY, 0x0E, 2, n);
    new_queue(r, n, (unsigned)bar_in(r, LEGACY, 0x0C, 2) & 0xFF);
    q->avail = RING(n) + 16ull * q->size;
    bar_out(r, LEGACY, 0x08, 4, RING(n) >> 12);
}

/* config: bit 0 legacy, 1 no packed, 2 no indirect, 3 no event index, 4 no MSI-X, 5-7 the size. */
static void virtio_start(struct rig *r, uint8_t config, uint64_t unwanted)
{
    struct virtio_driver *d = virtio_of(r);
    unsigned size = 2u << (config >> 5);

    unwanted |= (config & 2 ? F_PACKED : 0) | (config & 4 ? F_INDIRECT : 0) |
                (config & 8 ? F_EVENT_IDX : 0);
    d->legacy = (config & 1) != 0;
    d->packed = false;
    cfgw(&r->m, SLOT, 0, find_cap(&r->m, SLOT, 0x11, 0) + 2, 2, (config & 16) != 0 ? 0 : 0x8000);
    for (unsigned i = 0; i < 3; i++) { /* the messages of MSI-X */
        bar_out(r, 1, 16 * i, 8, 0xFEE00000);
        bar_out(r, 1, 16 * i + 8, 8, 0x40 + i);
    }
    if (d->legacy) {
        bar_out(r, LEGACY, 0x12, 1, 0);
        bar_out(r, LEGACY, 0x12, 1, 3);
        bar_out(r, LEGACY, 4, 4, (uint32_t)(bar_in(r, LEGACY, 0, 4) & ~unwanted));
        for (unsigned i = 0; i < d->queues; i++)
            legacy_queue(r, i);
        bar_out(r, LEGACY, 0x12, 1, 7);
        return;
    }
    bar_out(r, MODERN, 0x14, 1, 0);
    bar_out(r, MODERN, 0x14, 1, 3);
    modern_features(r, unwanted);
    bar_out(r, MODERN, 0x14, 1, 0xB);
    for (unsigned i = 0; i < d->queues; i++) /* odd sizes where the ring takes them */
        modern_queue(r, i, d->packed && size > 2 ? size - i : size);
    bar_out(r, MODERN, 0x14, 1, 0xF);
}

static void virtio_begin(struct rig *r)
{
    uint8_t config = take8(&r->g);
    uint8_t mask = take8(&r->g);

    virtio_start(r, config, mask < 64 ? 1ull << mask : 0);
}

/* ---- requests ---- */

static void put_desc(struct rig *r, uint64_t at, const struct part *p, unsigned flags,
                     unsigned next, bool packed)
{
    poke(r, at, p->gpa, 8);
    poke(r, at + 8, p->len, 4);
    poke(r, at + (packed ? 12 : 14), next, 2);
    poke(r, at + (packed ? 14 : 12), flags | (p->write ? D_WRITE : 0), 2);
}

static struct part put_table(struct rig *r, const struct part *p, unsigned n, unsigned tag)
{
    bool packed = virtio_of(r)->packed;
    struct part table = {TABLES + 0x400ull * (tag % 16), 16 * n, false};

    for (unsigned i = 0; i < n; i++)
        put_desc(r, table.gpa + 16 * i, &p[i], !packed && i + 1 < n ? D_NEXT : 0, i + 1, packed);
    return table;
}

static void put_split(struct rig *r, unsigned queue, const struct part *p, unsigned n,
                      unsigned flags)
{
    struct fuzz_queue *q = &virtio_of(r)->q[queue];
    unsigned head = q->next_desc;

    for (unsigned i = 0; i < n; i++) {
        unsigned here = q->next_desc;

        q->next_desc = (here + 1) % q->size;
        put_desc(r, RING(queue) + 16 * here, &p[i], flags | (i + 1 < n ? D_NEXT : 0), q->next_desc,
                 false);
    }
    poke(r, q->avail + 4 + 2 * (q->at % q->size), head, 2);
    q->at++;
    poke(r, q->avail + 2, q->at, 2);
}

static void put_packed(struct rig *r, unsigned queue, const struct part *p, unsigned n,
                       unsigned flags, unsigned tag)
{
    struct fuzz_queue *q = &virtio_of(r)->q[queue];

    for (unsigned i = 0; i < n; i++) {
        put_desc(r, RING(queue) + 16ull * q->at, &p[i],
                 flags | (i + 1 < n ? D_NEXT : 0) | (q->wrap ? P_AVAIL : P_USED), tag, true);
        if (++q->at >= q->size) {
            q->at = 0;
            q->wrap = !q->wrap;
        }
    }
}

static void put_parts(struct rig *r, unsigned queue, const struct part *p, unsigned n,
                      bool indirect, unsigned tag)
{
    struct part table;

    if (indirect) {
        table = put_table(r, p, n, tag);
        p = &table;
        n = 1;
    }
    if (virtio_of(r)->packed)
        put_packed(r, queue, p, n, indirect ? D_INDIRECT : 0, tag);
    else
        put_split(r, queue, p, n, indirect ? D_INDIRECT : 0);
}

static void virtio_notify(struct rig *r, unsigned queue)
{
    if (virtio_of(r)->legacy)
        bar_out(r, LEGACY, 0x10, 2, queue);
    else
        bar_out(r, MODERN, 0x3000 + 4 * queue, 2, queue);
}

/* Its last byte: bit 0 indirect, bit 1 no notification, above how many parts are left out. */
static void virtio_request(struct rig *r)
{
    struct virtio_driver *d = virtio_of(r);
    struct part parts[PARTS];
    unsigned queue = 0, n = d->parts(r, d->tag % 16, parts, &queue);
    uint8_t how = take8(&r->g);

    queue %= d->queues;
    if (n > how >> 5)
        n -= how >> 5;
    put_parts(r, queue, parts, n, (how & 1) != 0, d->tag++);
    if ((how & 2) == 0)
        virtio_notify(r, queue);
}

/* Data of `len` bytes in up to four pieces that lie apart, in memory of its own or anywhere. */
static unsigned put_data(struct rig *r, unsigned tag, struct part *p, uint32_t len, bool write)
{
    uint8_t b = take8(&r->g);
    uint64_t at = b < 0xE0 ? DATA + 0x10000ull * tag : place(r);
    unsigned pieces = 1 + b % 4u, n = 0;

    for (; pieces > 1 && len > pieces; pieces--) {
        uint32_t part = len / pieces;

        p[n++] = (struct part){at, part, write};
        at += part + pieces;
        len -= part;
    }
    p[n++] = (struct part){at, len, write};
    return n;
}

static void virtio_kick(struct rig *r)
{
    uint8_t b = take8(&r->g);

    if (b == 0xFF)
        bar_out(r, MODERN, 0x3000, 4, take_number(&r->g));
    else
        virtio_notify(r, b % (virtio_of(r)->queues + 1));
}

/* A disk of two queues for requests. */
#define VIRTIO_TARGET(ops_, works_)                                                                \
    {                                                                                              \
        .ops = (ops_), .options = "x,queues=2", .main_bar = MODERN, .regs = virtio_regs,           \
        .reg_count = countof(virtio_regs), .places = virtio_places,                                \
        .place_count = countof(virtio_places), .begin = virtio_begin, .request = virtio_request,   \
        .kick = virtio_kick, .works = (works_)                                                     \
    }

/* ---- that it works ---- */

/* One request on a queue set up anew, split, by a table; the used index must move. */
static void virtio_check_request(struct rig *r, unsigned queue, const struct part *p, unsigned n)
{
    virtio_start(r, 0x7A, 0); /* modern, split, 16 entries if it takes so many */
    check(bar_in(r, MODERN, 0x14, 1) == 0xF);
    check(bar_in(r, MODERN, 0x12, 2) == virtio_of(r)->queues);
    put_parts(r, queue, p, n, true, 0);
    virtio_notify(r, queue);
    check(guest_get(r->m.mem, RING(queue) + 0x2002, 2) == 1);
    check(bar_in(r, MODERN, 0x14, 1) == 0xF);
}

#endif
