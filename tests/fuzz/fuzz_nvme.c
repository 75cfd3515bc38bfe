/* The NVMe controller under a driver that does anything: see rig.h. */
#include "rig.h"
#include "storage/storage.h"

#define PAIRS 3u /* and the admin queue, 0 */
#define SQ(q) (0x10000ull + 0x4000ull * (q))
#define CQ(q) (0x12000ull + 0x4000ull * (q))
#define LISTS 0x100000ull /* of PRPs; 4 KiB for each */
#define SHADOW 0x180000ull
#define DATA 0x400000ull
#define BAR 0u

struct nvme_driver {
    struct {
        uint32_t size, tail, head;
        bool phase;
    } q[PAIRS + 1];
    uint16_t cid;
};

static const uint64_t places[] = {
    SQ(0),           CQ(0),         SQ(1),          CQ(1),      SQ(2),
    CQ(2),           SQ(1) + 24,    SQ(1) + 40,     SQ(0) + 24, SQ(0) + 40,
    LISTS,           LISTS + 0xFF8, LISTS + 0x1000, SHADOW,     SHADOW + 8,
    SHADOW + 0x1000, DATA,          DATA + 0x10000, SQ(1) + 64, SQ(0) + 64,
};

static const uint16_t regs[] = {
    0x00,   0x08,   0x0C,   0x10,   0x14,   0x1C,   0x20,   0x24,   0x28,   0x2C,   0x30,
    0x34,   0x38,   0x14,   0x14,   0x24,   0x28,   0x30,   0x1000, 0x1004, 0x1008, 0x100C,
    0x1010, 0x1014, 0x1018, 0x101C, 0x1008, 0x100C, 0x1010, 0x1014, 0x1000, 0x1020,
};

static struct nvme_driver *driver(struct rig *r)
{
    return r->driver;
}

static void reg_out(struct rig *r, unsigned offset, uint32_t v)
{
    bar_out(r, BAR, offset, 4, v);
}

struct sqe {
    uint8_t op, flags;
    uint32_t nsid;
    uint64_t prp1, prp2;
    uint32_t dw10, dw11, dw12, dw13;
};

static void put(struct rig *r, unsigned q, const struct sqe *e)
{
    struct nvme_driver *d = driver(r);
    uint64_t at = SQ(q) + 64ull * d->q[q].tail;

    poke(r, at, e->op | (uint32_t)e->flags << 8 | (uint32_t)d->cid++ << 16, 4);
    poke(r, at + 4, e->nsid, 4);
    guest_fill(r->m.mem, at + 8, 0, 16);
    poke(r, at + 24, e->prp1, 8);
    poke(r, at + 32, e->prp2, 8);
    poke(r, at + 40, e->dw10, 4);
    poke(r, at + 44, e->dw11, 4);
    poke(r, at + 48, e->dw12, 4);
    poke(r, at + 52, e->dw13, 4);
    poke(r, at + 56, 0, 8);
    if (++d->q[q].tail >= d->q[q].size)
        d->q[q].tail = 0;
}

static void ring(struct rig *r, unsigned q)
{
    reg_out(r, 0x1000 + 8 * q, driver(r)->q[q].tail);
}

/* Takes what was completed, and says so. */
static void reap(struct rig *r, unsigned q)
{
    struct nvme_driver *d = driver(r);
    unsigned n;

    for (n = 0; n < d->q[q].size; n++) {
        if ((guest_get(r->m.mem, CQ(q) + 16 * d->q[q].head + 14, 1) & 1) != d->q[q].phase)
            break;
        if (++d->q[q].head >= d->q[q].size) {
            d->q[q].head = 0;
            d->q[q].phase = !d->q[q].phase;
        }
    }
    if (n != 0)
        reg_out(r, 0x1004 + 8 * q, d->q[q].head);
}

static void new_queue(struct rig *r, unsigned q, uint32_t size)
{
    struct nvme_driver *d = driver(r);

    d->q[q].size = size;
    d->q[q].tail = d->q[q].head = 0;
    d->q[q].phase = true;
    guest_fill(r->m.mem, CQ(q), 0, 0x2000);
}

static void admin(struct rig *r, struct sqe e)
{
    put(r, 0, &e);
    ring(r, 0);
    reap(r, 0);
}

static void create_pair(struct rig *r, unsigned q, uint32_t size, uint32_t cq, uint32_t vector)
{
    new_queue(r, q, size);
    admin(r, (struct sqe){
                 .op = 5, .prp1 = CQ(q), .dw10 = (size - 1) << 16 | q, .dw11 = vector << 16 | 3});
    admin(r,
          (struct sqe){.op = 1, .prp1 = SQ(q), .dw10 = (size - 1) << 16 | q, .dw11 = cq << 16 | 1});
}

static void enable(struct rig *r)
{
    reg_out(r, 0x14, 0x00460000);
    new_queue(r, 0, 16);
    reg_out(r, 0x24, 15u << 16 | 15);
    bar_out(r, BAR, 0x28, 8, SQ(0));
    bar_out(r, BAR, 0x30, 8, CQ(0));
    reg_out(r, 0x14, 0x00460001);
}

/* Bits: 0 MSI-X, 1 shadow doorbells, 2 all complete in the first queue, 4-7 the size. */
static void nvme_begin(struct rig *r)
{
    uint8_t b = take8(&r->g);

    cfgw(&r->m, SLOT, 0, find_cap(&r->m, SLOT, 0x11, 0) + 2, 2, (b & 1) != 0 ? 0x8000 : 0);
    enable(r);
    if ((b & 2) != 0) {
        guest_fill(r->m.mem, SHADOW, 0, 0x2000);
        admin(r, (struct sqe){.op = 0x7C, .prp1 = SHADOW, .prp2 = SHADOW + 0x1000});
    }
    for (unsigned q = 1; q <= PAIRS; q++)
        create_pair(r, q, 2 + 2u * (b >> 4), (b & 4) != 0 ? 1 : q, (b & 1) != 0 ? q : 0);
}

/* ---- requests ---- */

/* PRPs for that many bytes, from an odd place on if the program likes. */
static void lay_out(struct rig *r, unsigned tag, struct sqe *e, uint32_t len)
{
    uint8_t b = take8(&r->g);
    uint64_t data = DATA + 0x20000ull * (tag & 15), list = LISTS + 0x1000ull * (tag & 15);
    uint32_t offset = 4u * (b & 0x3F), pages = (offset + len + 4095) / 4096;

    e->prp1 = data + offset;
    e->prp2 = data + 0x1000;
    if (pages <= 2)
        return;
    list += (b & 0x40) != 0 ? 0xFF0 : 0; /* the list goes on in another page then */
    e->prp2 = list;
    for (unsigned i = 1; i < pages && i < 140; i++) {
        if ((list & 0xFFF) == 0xFF8 && i + 1 < pages) {
            poke(r, list, LISTS + 0x80000, 8);
            list = LISTS + 0x80000;
        }
        poke(r, list, data + 0x1000ull * i, 8);
        list += 8;
    }
}

static void io_request(struct rig *r, uint8_t b, struct sqe *e)
{
    static const uint8_t ops[] = {2, 1, 2, 1, 0, 8, 9, 2};
    uint64_t slba;
    uint32_t blocks;

    e->op = ops[b & 7];
    e->nsid = 1;
    if (e->op == 9) {
        unsigned n = take8(&r->g) & 7;

        e->prp1 = DATA;
        e->dw10 = n;
        e->dw11 = 4;
        for (unsigned i = 0; i <= n; i++) {
            poke(r, DATA + 16 * i, take(&r->g, 1) << 32, 8);
            poke(r, DATA + 16 * i + 8, take_number(&r->g), 8);
        }
        return;
    }
    slba = take_number(&r->g);
    blocks = (uint32_t)take_number(&r->g);
    e->dw10 = (uint32_t)slba;
    e->dw11 = (uint32_t)(slba >> 32);
    e->dw12 = blocks;
    lay_out(r, driver(r)->cid, e, 512 * ((blocks & 0x3FF) + 1));
}

static void admin_request(struct rig *r, struct sqe *e)
{
    static const uint8_t ops[] = {0, 1, 2, 4, 5, 6, 8, 9, 0xA, 0xC, 0x7C, 0xC, 6, 2, 9, 0xA};
    uint8_t b = take8(&r->g), q = take8(&r->g);
    uint32_t small = q & 7, more = q >> 3;

    e->op = ops[b & 15];
    e->nsid = (b & 0x10) != 0 ? 1 : 0;
    e->prp1 = DATA;
    e->prp2 = DATA + 0x1000;
    e->dw10 = small;
    switch (e->op) {
    case 1:
        e->prp1 = SQ(small);
        e->dw10 |= more << 16;
        e->dw11 = (uint32_t)(b >> 5) << 16 | 1;
        break;
    case 5:
        e->prp1 = CQ(small);
        e->dw10 |= more << 16;
        e->dw11 = (uint32_t)(b >> 5) << 16 | 3;
        break;
    case 2:
        e->dw10 |= (b & 0x80) != 0 ? 1023u << 16 : more << 16;
        e->dw12 = (b & 0x40) != 0 ? take8(&r->g) : 0;
        break;
    case 8:
        e->dw10 |= (uint32_t)(driver(r)->cid - more) << 16;
        break;
    case 9:
    case 0xA:
        e->dw10 = q & 15;
        e->dw11 = (uint32_t)take_number(&r->g);
        break;
    case 0x7C:
        e->prp1 = SHADOW;
        e->prp2 = SHADOW + 0x1000;
        break;
    default:
        break;
    }
}

/* Its last byte: bits 0-1 leave the doorbell for later, 2-4 spoil a field, 5 the flags. */
static void nvme_request(struct rig *r)
{
    struct nvme_driver *d = driver(r);
    uint8_t b = take8(&r->g), how;
    unsigned q = b >> 3 & 3;
    struct sqe e = {0};

    if (q == 0)
        admin_request(r, &e);
    else
        io_request(r, b, &e);
    how = take8(&r->g);
    switch (how >> 2 & 7) {
    case 1:
        e.prp1 = place(r);
        break;
    case 2:
        e.prp2 = place(r);
        break;
    case 3:
        e.dw10 = (uint32_t)take_number(&r->g);
        break;
    case 4:
        e.dw12 = (uint32_t)take_number(&r->g);
        break;
    case 5:
        e.nsid = (uint32_t)take_number(&r->g);
        break;
    default:
        break;
    }
    e.flags = (uint8_t)(how == 0xFF ? take8(&r->g) : 0);
    if (d->q[q].size == 0)
        return;
    put(r, q, &e);
    poke(r, SHADOW + 8 * q, d->q[q].tail, 4);
    if ((how & 3) != 3)
        ring(r, q);
}

/* Bits 0-1 the queue; 2: what was completed is taken; 3: the doorbell of the submissions. */
static void nvme_kick(struct rig *r)
{
    uint8_t b = take8(&r->g);
    unsigned q = b & 3;

    if ((b & 4) == 0)
        reap(r, q);
    if ((b & 8) == 0)
        ring(r, q);
    if ((b & 16) != 0)
        poke(r, SHADOW + 8 * q + 4, driver(r)->q[q].head, 4);
    if ((b & 0xE0) == 0xE0) /* shut down, which the next reset ends */
        reg_out(r, 0x14, 0x00464001);
}

/* One queue, and a read of the second sector. */
static void nvme_works(struct rig *r)
{
    struct sqe e = {.op = 2, .nsid = 1, .prp1 = DATA, .dw10 = 1};

    enable(r);
    check((bar_in(r, BAR, 0x1C, 4) & 3) == 1);
    create_pair(r, 1, 4, 1, 0);
    check(guest_get(r->m.mem, CQ(0) + 14, 2) == 1);
    check(guest_get(r->m.mem, CQ(0) + 30, 2) == 1);
    poke(r, DATA, 0, 8);
    put(r, 1, &e);
    ring(r, 1);
    check(guest_get(r->m.mem, CQ(1) + 14, 2) == 1);
    check(guest_get(r->m.mem, DATA, 1) == 0x5A || disks.geo.sector != 512);
}

static const struct target target = {
    .ops = &nvme_ops,
    .options = "x,maxq=4,qsz=64,ioslots=8",
    .main_bar = BAR,
    .regs = regs,
    .reg_count = countof(regs),
    .places = places,
    .place_count = countof(places),
    .begin = nvme_begin,
    .request = nvme_request,
    .kick = nvme_kick,
    .works = nvme_works,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct program g = {data, data + len};
    uint8_t how = take8(&g);
    struct nvme_driver d = {0};

    disks_like((how & 3) == 3, (how & 1) != 0, (how & 12) == 12, (how & 16) == 0);
    rig_run(&target, &g, &d);
    return 0;
}
