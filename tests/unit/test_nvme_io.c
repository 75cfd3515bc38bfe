/* The NVMe controller's I/O side: PRPs in all forms, errors, order, full queues, resets and
 * deletions while commands are under way, shadow doorbells, deallocation. */
#include "nvme_fixture.h"

#define FLUSH 0
#define WRITE 1
#define READ 2
#define ZEROES 8
#define DSM 9

static void start_io(struct drv *d, unsigned size)
{
    enable(d);
    create_pair(d, 1, size);
}

static void pattern(struct drv *d, uint64_t gpa, unsigned len, unsigned seed)
{
    uint8_t *p = malloc(len);

    for (unsigned i = 0; i < len; i++)
        p[i] = (uint8_t)(seed + i * 7 + (i >> 8));
    assert_int_equal(gmem_write(d->m.mem, gpa, p, len), 0);
    free(p);
}

static void same(struct drv *d, uint64_t gpa, const void *want, size_t len)
{
    const void *p = gmem_ptr_ro(d->m.mem, gpa, len);

    assert_non_null(p);
    assert_memory_equal(p, want, len);
}

static void put64(struct drv *d, uint64_t gpa, uint64_t v)
{
    assert_int_equal(gmem_write(d->m.mem, gpa, &v, 8), 0);
}

static void test_prp(void **state)
{
    struct drv *d = *state;
    struct sqe e;

    start_io(d, 16);
    /* one page; within a page; over its edge */
    pattern(d, DATA, 0x4000, 1);
    e = rw(WRITE, 8, 8, DATA, 0);
    assert_int_equal(run(d, 1, &e, NULL), 0);
    same(d, DATA, disk->data + 8 * 512, 4096);
    e = rw(WRITE, 100, 1, DATA + 0xE00, 0);
    assert_int_equal(run(d, 1, &e, NULL), 0);
    same(d, DATA + 0xE00, disk->data + 100 * 512, 512);
    e = rw(WRITE, 200, 2, DATA + 0xE04, DATA + 0x3000);
    assert_int_equal(run(d, 1, &e, NULL), 0);
    same(d, DATA + 0xE04, disk->data + 200 * 512, 0x1FC);
    same(d, DATA + 0x3000, disk->data + 200 * 512 + 0x1FC, 0x204);
    e = rw(READ, 200, 2, DATA + 0x10FFC, DATA + 0x20000);
    assert_int_equal(run(d, 1, &e, NULL), 0);
    same(d, DATA + 0x10FFC, disk->data + 200 * 512, 4);
    same(d, DATA + 0x20000, disk->data + 200 * 512 + 4, 1020);
    /* a list, entries not in order, that begins late in its page and goes on in another */
    for (unsigned i = 0; i < 127; i++)
        put64(d, i < 2 ? LISTS + 0xFE8 + 8 * i : LISTS + 0x2000 + 8 * (i - 2),
              DATA + 0x100000 + 0x2000 * (uint64_t)(126 - i));
    put64(d, LISTS + 0xFF8, LISTS + 0x2000);
    for (unsigned i = 0; i < 128; i++)
        pattern(d, i == 127 ? DATA : DATA + 0x100000 + 0x2000 * (uint64_t)(126 - i), 4096, i);
    e = rw(WRITE, 0, 1024, DATA, LISTS + 0xFE8);
    assert_int_equal(run(d, 1, &e, NULL), 0);
    same(d, DATA, disk->data, 4096);
    for (unsigned i = 0; i < 127; i++)
        same(d, DATA + 0x100000 + 0x2000 * (uint64_t)(126 - i), disk->data + 4096 * (i + 1), 4096);
    /* the largest transfer, begun in the middle of a page: 129 pieces */
    for (unsigned i = 0; i < 128; i++)
        put64(d, LISTS + 8 * i, DATA + 0x200000 + 0x2000 * (uint64_t)i);
    e = rw(READ, 0, 1024, DATA + 0x204, LISTS);
    assert_int_equal(run(d, 1, &e, NULL), 0);
    same(d, DATA + 0x204, disk->data, 0xDFC);
    same(d, DATA + 0x200000 + 0x2000 * 127, disk->data + 0xDFC + 4096 * 127, 0x204);
    assert_int_equal(d->m.guest_errors, 0);
}

static void test_prp_abuse(void **state)
{
    struct drv *d = *state;
    struct sqe e;
    unsigned before;

    start_io(d, 16);
    before = disk->submitted;
    e = rw(READ, 0, 1, DATA + 1, 0);
    assert_int_equal(run(d, 1, &e, NULL), 0x13);
    e = rw(READ, 0, 1, NO_RAM, 0);
    assert_int_equal(run(d, 1, &e, NULL), 4);
    e = rw(READ, 0, 1, 0xFFFFFFFFFFFFFF00, 0);
    assert_int_equal(run(d, 1, &e, NULL), 4);
    e = rw(READ, 0, 16, DATA, DATA + 0x2008); /* the second page has an offset */
    assert_int_equal(run(d, 1, &e, NULL), 0x13);
    e = rw(READ, 0, 16, DATA, NO_RAM);
    assert_int_equal(run(d, 1, &e, NULL), 4);
    e = rw(READ, 0, 24, DATA, LISTS + 4); /* a list at half an entry */
    assert_int_equal(run(d, 1, &e, NULL), 0x13);
    e = rw(READ, 0, 24, DATA, NO_RAM);
    assert_int_equal(run(d, 1, &e, NULL), 4);
    put64(d, LISTS, DATA + 0x1000);
    put64(d, LISTS + 8, DATA + 0x2010);
    e = rw(READ, 0, 24, DATA, LISTS);
    assert_int_equal(run(d, 1, &e, NULL), 0x13);
    put64(d, LISTS + 8, 0xFFFFFFFFFFFFF000);
    assert_int_equal(run(d, 1, &e, NULL), 4);
    /* lists that lead to themselves, misaligned, nowhere */
    put64(d, LISTS + 0xFF8, LISTS);
    e = rw(READ, 0, 24, DATA, LISTS + 0xFF8);
    put64(d, LISTS + 8, DATA + 0x2000);
    assert_int_equal(run(d, 1, &e, NULL), 0);
    put64(d, LISTS + 0xFF8, LISTS + 8);
    assert_int_equal(run(d, 1, &e, NULL), 0x13);
    put64(d, LISTS + 0xFF8, NO_RAM);
    assert_int_equal(run(d, 1, &e, NULL), 4);
    e = rw(READ, 0, 1025, DATA, LISTS); /* more than MDTS */
    assert_int_equal(run(d, 1, &e, NULL), 2);
    e = rw(READ, 0, 0x10000, DATA, LISTS);
    assert_int_equal(run(d, 1, &e, NULL), 0x80);
    assert_int_equal(disk->submitted, before + 1);
}

static void test_commands(void **state)
{
    struct drv *d = *state;
    uint64_t last = DISK_SIZE / 512;
    struct sqe e;

    start_io(d, 16);
    e = rw(READ, last - 1, 1, DATA, 0);
    assert_int_equal(run(d, 1, &e, NULL), 0);
    e = rw(READ, last, 1, DATA, 0);
    assert_int_equal(run(d, 1, &e, NULL), 0x80);
    e = rw(READ, last - 1, 2, DATA, 0);
    assert_int_equal(run(d, 1, &e, NULL), 0x80);
    e = rw(WRITE, 0xFFFFFFFFFFFFFFFF, 1, DATA, 0);
    assert_int_equal(run(d, 1, &e, NULL), 0x80);
    e = rw(ZEROES, 0xFFFFFFFFFFFFFFFF, 2, 0, 0);
    assert_int_equal(run(d, 1, &e, NULL), 0x80);
    e = rw(READ, 0, 1, DATA, 0);
    e.nsid = 0;
    assert_int_equal(run(d, 1, &e, NULL), 0x0B);
    e.nsid = 0xFFFFFFFF;
    assert_int_equal(run(d, 1, &e, NULL), 0x0B);
    e.nsid = 1;
    e.flags = 0x40;
    assert_int_equal(run(d, 1, &e, NULL), 2);
    e.flags = 2;
    assert_int_equal(run(d, 1, &e, NULL), 2);
    e.flags = 0;
    e.op = 4; /* Write Uncorrectable */
    assert_int_equal(run(d, 1, &e, NULL), 1);
    e.op = 5; /* Compare */
    assert_int_equal(run(d, 1, &e, NULL), 1);
    e.op = DSM; /* not on this disk */
    assert_int_equal(run(d, 1, &e, NULL), 1);
    assert_int_equal(run(d, 1, &(struct sqe){.op = FLUSH, .nsid = 0xFFFFFFFF}, NULL), 0);
    assert_int_equal(run(d, 1, &(struct sqe){.op = FLUSH, .nsid = 2}, NULL), 0x0B);

    memset(disk->data, 0xAA, DISK_SIZE);
    e = rw(ZEROES, 1, 3, 0, 0);
    e.dw12 |= 1u << 25;
    assert_int_equal(run(d, 1, &e, NULL), 0);
    assert_true(disk->last_punch);
    assert_int_equal(disk->data[511], 0xAA);
    assert_int_equal(disk->data[512], 0);
    assert_int_equal(disk->data[4 * 512 - 1], 0);
    assert_int_equal(disk->data[4 * 512], 0xAA);

    /* what is stable, and when */
    memset(disk->stable, 0, DISK_SIZE);
    e = rw(WRITE, 0, 1, DATA, 0);
    assert_int_equal(run(d, 1, &e, NULL), 0);
    assert_false(disk->last_fua);
    e.dw12 |= 1u << 30;
    assert_int_equal(run(d, 1, &e, NULL), 0);
    assert_true(disk->last_fua);
    assert_int_equal(admin(d, (struct sqe){.op = 9, .dw10 = 6, .dw11 = 0}), 0); /* no cache */
    e = rw(WRITE, 0, 1, DATA, 0);
    assert_int_equal(run(d, 1, &e, NULL), 0);
    assert_true(disk->last_fua);
    e = rw(READ, 0, 1, DATA, 0);
    assert_int_equal(run(d, 1, &e, NULL), 0);
    assert_false(disk->last_fua);
}

static void test_host_errors(void **state)
{
    static const struct {
        uint8_t op;
        int rc;
        unsigned status;
    } cases[] = {
        {READ, -EIO, 0x281},   {WRITE, -EIO, 0x280},    {FLUSH, -EIO, 0x280},
        {READ, -EINVAL, 0x80}, {WRITE, -EROFS, 0x20},   {WRITE, -ENOSPC, 0x81},
        {ZEROES, -EIO, 0x280}, {ZEROES, -ENOSPC, 0x81},
    };
    struct drv *d = *state;
    struct cqe c = {0};

    start_io(d, 16);
    disk->manual = true;
    for (unsigned i = 0; i < countof(cases); i++) {
        struct sqe e = rw(cases[i].op, i, 1, DATA, 0);

        put(d, 1, &e);
        ring_sq(d, 1);
        assert_false(take(d, 1, &c, true));
        disk_finish(0, cases[i].rc);
        assert_true(take(d, 1, &c, true));
        assert_int_equal(c.status & 0x7FF, cases[i].status);
        assert_true((c.status & 0x2000) != 0); /* the error log has more */
    }
    assert_int_equal(admin(d, (struct sqe){.op = 2, .prp1 = DATA, .dw10 = 15 << 16 | 1}), 0);
    assert_int_equal(gmem_read16(d->m.mem, DATA + 8), 1);
    assert_int_equal(gmem_read64(d->m.mem, DATA + 16), 7);
    assert_int_equal(admin(d, (struct sqe){.op = 2, .prp1 = DATA, .dw10 = 127 << 16 | 2}), 0);
    assert_int_equal(gmem_read64(d->m.mem, DATA + 160), 4);
}

static void test_read_only(void **state)
{
    struct drv *d;
    struct sqe e;

    (void)state;
    disk_geometry.read_only = true;
    d = nvme_start("path=x,dsm=enable");
    start_io(d, 16);
    e = rw(WRITE, 0, 1, DATA, 0);
    assert_int_equal(run(d, 1, &e, NULL), 0x20);
    e.op = ZEROES;
    assert_int_equal(run(d, 1, &e, NULL), 0x20);
    e = (struct sqe){.op = DSM, .nsid = 1, .prp1 = DATA, .dw11 = 4};
    assert_int_equal(run(d, 1, &e, NULL), 0x20);
    assert_int_equal(disk->submitted, 0);
    e = rw(READ, 0, 1, DATA, 0);
    assert_int_equal(run(d, 1, &e, NULL), 0);
    nvme_stop(d);
    disk_geometry = usual_geometry;
}

static void dsm_range(struct drv *d, unsigned i, uint64_t slba, uint32_t blocks)
{
    put64(d, DATA + 16 * i, (uint64_t)blocks << 32);
    put64(d, DATA + 16 * i + 8, slba);
}

static void test_dsm(void **state)
{
    struct drv *d;
    struct sqe e = {.op = DSM, .nsid = 1, .prp1 = DATA, .dw10 = 2, .dw11 = 4};
    struct cqe c = {0};

    (void)state;
    disk_geometry.discard = true;
    d = nvme_start("path=x");
    start_io(d, 16);
    dsm_range(d, 0, 0, 1);
    dsm_range(d, 1, 77, 0);
    dsm_range(d, 2, DISK_SIZE / 512 - 2, 2);
    assert_int_equal(run(d, 1, &e, NULL), 0);
    assert_int_equal(disk->discards, 2);
    assert_int_equal(disk->data[0], 0xDD);
    assert_int_equal(disk->data[512], 0);
    assert_int_equal(disk->data[DISK_SIZE - 1], 0xDD);
    e.dw11 = 3; /* hints */
    assert_int_equal(run(d, 1, &e, NULL), 0);
    assert_int_equal(disk->discards, 2);
    e.dw11 = 4;
    dsm_range(d, 2, DISK_SIZE / 512 - 2, 3); /* the last is wrong: nothing is done */
    assert_int_equal(run(d, 1, &e, NULL), 0x80);
    dsm_range(d, 2, 0xFFFFFFFFFFFFFFFF, 2);
    assert_int_equal(run(d, 1, &e, NULL), 0x80);
    assert_int_equal(disk->discards, 2);
    e.prp1 = NO_RAM;
    assert_int_equal(run(d, 1, &e, NULL), 4);
    e.prp1 = DATA;
    e.dw10 = 0xFF;
    for (unsigned i = 0; i < 256; i++)
        dsm_range(d, i, i * 2, 1);
    assert_int_equal(run(d, 1, &e, NULL), 0);
    assert_int_equal(disk->discards, 258);
    /* an error ends it; a reset in the middle, too */
    disk->manual = true;
    put(d, 1, &e);
    ring_sq(d, 1);
    dsm_range(d, 0, 0xFFFFFF, 1); /* read once */
    disk_finish(0, 0);
    disk_finish(0, 0);
    disk_finish(0, -EIO);
    assert_true(take(d, 1, &c, true));
    assert_int_equal(c.status & 0x7FF, 0x280);
    assert_int_equal(disk->count, 0);
    dsm_range(d, 0, 0, 1);
    put(d, 1, &e);
    ring_sq(d, 1);
    disable(d);
    assert_int_equal(disk->count, 0);
    assert_int_equal(disk->discards, 261);
    nvme_stop(d);
    disk_geometry = usual_geometry;
}

/* Completions in another order; more of them than the queue has room for. */
static void test_full(void **state)
{
    struct drv *d = *state;
    uint16_t first;
    struct cqe c = {0};

    enable(d);
    assert_int_equal(create_cq(d, 1, 4, 0), 0);
    assert_int_equal(create_sq(d, 1, 32, 1), 0);
    disk->manual = true;
    first = (uint16_t)(d->cid + 1);
    for (unsigned i = 0; i < 20; i++) {
        struct sqe e = rw(READ, i, 1, DATA + 512 * i, 0);

        put(d, 1, &e);
    }
    ring_sq(d, 1);
    assert_int_equal(disk->count, 20);
    while (disk->count > 0)
        disk_finish(disk->count - 1, 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(take(d, 1, &c, false));
        assert_int_equal(c.cid, first + 19 - i);
        assert_int_equal(c.sqhd, 20);
    }
    assert_false(take(d, 1, &c, false)); /* held: nothing is written over */
    for (unsigned i = 3; i < 20; i++) {
        set_reg(d, 0x100C, d->cq[1].at);
        assert_true(take(d, 1, &c, false));
        assert_int_equal(c.cid, first + 19 - i);
    }
    set_reg(d, 0x100C, d->cq[1].at);
    assert_false(take(d, 1, &c, false));
}

static void test_slots(void **state)
{
    struct drv *d = nvme_start("path=x,ioslots=2");
    struct sqe e = rw(READ, 0, 1, DATA, 0);
    struct cqe c = {0};

    (void)state;
    start_io(d, 8);
    disk->manual = true;
    for (unsigned i = 0; i < 6; i++)
        put(d, 1, &e);
    ring_sq(d, 1);
    assert_int_equal(disk->count, 2);
    set_reg(d, 0x1008, 5); /* 6 -> 5 would be seven more where four wait */
    assert_int_equal(disk->count, 2);
    for (unsigned i = 0; i < 6; i++) {
        disk_finish(0, 0);
        assert_int_equal(disk->count, i < 4 ? 2 : 5 - i);
        assert_true(take(d, 1, &c, true));
    }
    assert_int_equal(disk->most, 2);
    assert_int_equal(admin(d, (struct sqe){.op = 2, .prp1 = DATA, .dw10 = 15 << 16 | 1}), 0);
    assert_int_equal(gmem_read64(d->m.mem, DATA), 1);
    nvme_stop(d);
}

/* A completion queue that nobody empties does not stop the others. */
static void test_starve(void **state)
{
    struct drv *d = nvme_start("path=x,ioslots=6");
    struct sqe e = rw(READ, 0, 1, DATA, 0);
    struct cqe c = {0};

    (void)state;
    enable(d);
    assert_int_equal(create_cq(d, 1, 2, 0), 0);
    assert_int_equal(create_sq(d, 1, 32, 1), 0);
    create_pair(d, 2, 8);
    for (unsigned i = 0; i < 20; i++)
        put(d, 1, &e);
    ring_sq(d, 1);
    assert_int_equal(disk->submitted, 2);
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(run(d, 2, &e, NULL), 0);
    for (unsigned i = 0; i < 20; i++)
        assert_true(take(d, 1, &c, true));
    assert_int_equal(disk->submitted, 30);
    nvme_stop(d);
}

/* A queue is deleted, the controller reset, while commands are under way. */
static void test_reset_inflight(void **state)
{
    struct drv *d = *state;
    struct sqe e = rw(WRITE, 0, 1, DATA, 0);
    struct cqe c = {0};

    start_io(d, 8);
    assert_int_equal(create_sq(d, 2, 8, 1), 0);
    disk->manual = true;
    for (unsigned i = 0; i < 3; i++)
        put(d, 1, &e);
    ring_sq(d, 1);
    put(d, 2, &e);
    ring_sq(d, 2);
    put(d, 0, &(struct sqe){.op = 0, .dw10 = 1});
    put(d, 0, &(struct sqe){.op = 0, .dw10 = 1}); /* again: not twice */
    ring_sq(d, 0);
    assert_true(take(d, 0, &c, true));
    assert_int_equal(c.status & 0x7FF, 0x101);
    assert_int_equal(c.cid, d->cid);
    put(d, 1, &e); /* not taken any more */
    ring_sq(d, 1);
    assert_int_equal(disk->count, 4);
    disk_finish(0, 0);
    disk_finish(0, 0);
    assert_false(take(d, 0, &c, true));
    assert_int_equal(admin(d, (struct sqe){.op = 4, .dw10 = 1}), 0x10C);
    disk_finish(0, -EIO);
    assert_true(take(d, 0, &c, true));
    assert_int_equal(c.status, 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(take(d, 1, &c, true));
        assert_int_equal(c.sqid, 1);
    }
    assert_int_equal(create_sq(d, 1, 8, 1), 0);
    put(d, 1, &e);
    ring_sq(d, 1);
    assert_int_equal(disk->count, 2);
    disable(d);
    assert_int_equal(disk->count, 0);
    assert_int_equal(gmem_read32(d->m.mem, IOCQ(1) + 3 * 16 + 12), 0);
    start_io(d, 8);
    assert_false(take(d, 1, &c, true));
    put(d, 1, &e);
    ring_sq(d, 1);
    pci_reset(d->m.pci);
    assert_int_equal(disk->count, 0);
    cfgw(&d->m, SLOT, 0, 4, 2, 6);
    assert_int_equal(reg(d, 0x14), 0);
    assert_int_equal(reg(d, 0x24), 0);
}

/* Held completions of a deleted queue are gone, those of its neighbour stay. */
static void test_delete_held(void **state)
{
    struct drv *d = *state;
    struct sqe e = rw(READ, 0, 1, DATA, 0);
    unsigned of[3] = {0};
    struct cqe c = {0};

    enable(d);
    assert_int_equal(create_cq(d, 1, 2, 0), 0);
    assert_int_equal(create_sq(d, 1, 8, 1), 0);
    assert_int_equal(create_sq(d, 2, 8, 1), 0);
    for (unsigned i = 0; i < 3; i++) {
        put(d, 1, &e);
        put(d, 2, &e);
    }
    disk->manual = true;
    ring_sq(d, 1);
    ring_sq(d, 2);
    while (disk->count > 0)
        disk_finish(0, 0);
    disk->manual = false;
    assert_int_equal(admin(d, (struct sqe){.op = 0, .dw10 = 1}), 0);
    while (take(d, 1, &c, true))
        of[c.sqid]++;
    assert_int_equal(of[1], 1);
    assert_int_equal(of[2], 3);
    for (unsigned i = 0; i < 300; i++) { /* no slot is lost */
        put(d, 2, &e);
        ring_sq(d, 2);
        assert_true(take(d, 1, &c, true));
    }
}

static void test_msix(void **state)
{
    struct drv *d = *state;
    unsigned cap = find_cap(&d->m, SLOT, 0x11, 0);
    uint64_t table = cfgr(&d->m, SLOT, 0, 0x20, 4) & ~0xFu;
    struct sqe e = rw(READ, 0, 1, DATA, 0);
    struct cqe c = {0};

    assert_int_equal(cfgr(&d->m, SLOT, 0, cap + 2, 2), 4); /* five vectors */
    for (unsigned i = 0; i < 5; i++) {
        mmio_out(&d->m, table + 16 * i, 8, 0xFEE00000);
        mmio_out(&d->m, table + 16 * i + 8, 8, 0x40 + i);
    }
    cfgw(&d->m, SLOT, 0, cap + 2, 2, 0x8000);
    enable(d);
    assert_int_equal(create_cq(d, 1, 8, 4), 0);
    assert_int_equal(create_sq(d, 1, 8, 1), 0);
    assert_int_equal(d->m.last.vector, 0x40);
    d->m.messages = 0;
    for (unsigned i = 0; i < 4; i++)
        put(d, 1, &e);
    ring_sq(d, 1);
    assert_int_equal(d->m.last.vector, 0x44);
    assert_int_equal(d->m.messages, 1); /* for four completions of one call */
    assert_false(irq_gsi_level(d->m.irqs, 16 + 5));
    while (take(d, 1, &c, true))
        ;
    disk->manual = true;
    put(d, 1, &e);
    ring_sq(d, 1);
    assert_int_equal(d->m.messages, 1);
    disk_finish(0, 0);
    assert_int_equal(d->m.messages, 2);
    /* not wanted: bit 1 of Create I/O Completion Queue is clear */
    assert_int_equal(
        admin(d, (struct sqe){.op = 5, .prp1 = IOCQ(2), .dw10 = 7 << 16 | 2, .dw11 = 2 << 16 | 1}),
        0);
    d->cq[2] = new_ring(IOCQ(2), 8);
    assert_int_equal(create_sq(d, 2, 8, 2), 0);
    d->m.messages = 0;
    disk->manual = false;
    assert_int_equal(run(d, 2, &e, NULL), 0);
    assert_int_equal(d->m.messages, 0);
}

#define SHADOW 0x400000ull
#define EVENTIDX 0x401000ull

/* The driver writes doorbells to memory and rings only where the controller asks for it. */
static void test_shadow(void **state)
{
    struct drv *d = *state;
    struct sqe e = rw(READ, 0, 1, DATA, 0);
    struct cqe c = {0};

    enable(d);
    assert_int_equal(admin(d, (struct sqe){.op = 0x7C, .prp1 = SHADOW + 8, .prp2 = EVENTIDX}), 2);
    assert_int_equal(admin(d, (struct sqe){.op = 0x7C, .prp1 = SHADOW, .prp2 = NO_RAM}), 2);
    assert_int_equal(admin(d, (struct sqe){.op = 0x7C, .prp1 = SHADOW}), 2);
    assert_int_equal(admin(d, (struct sqe){.op = 0x7C, .prp1 = SHADOW, .prp2 = EVENTIDX}), 0);
    assert_int_equal(create_cq(d, 1, 4, 0), 0);
    assert_int_equal(create_sq(d, 1, 16, 1), 0);
    disk->manual = true;
    for (unsigned i = 0; i < 3; i++)
        put(d, 1, &e);
    put64(d, SHADOW + 8, d->sq[1].at);
    assert_int_equal(disk->count, 0);
    ring_sq(d, 1);
    assert_int_equal(disk->count, 3);
    assert_int_equal(gmem_read32(d->m.mem, EVENTIDX + 8), 3);
    /* More of them, without the doorbell: found when one is done. */
    for (unsigned i = 0; i < 3; i++)
        put(d, 1, &e);
    put64(d, SHADOW + 8, d->sq[1].at);
    disk_finish(0, 0);
    assert_int_equal(disk->count, 5);
    assert_int_equal(gmem_read32(d->m.mem, EVENTIDX + 8), 6);
    while (disk->count > 0)
        disk_finish(0, 0);
    /* Three entries are full: now the head's doorbell is asked for. */
    for (unsigned i = 0; i < 3; i++)
        assert_true(take(d, 1, &c, false));
    assert_false(take(d, 1, &c, false));
    assert_int_equal(gmem_read32(d->m.mem, EVENTIDX + 12), 0);
    put64(d, SHADOW + 8, 6 | (uint64_t)d->cq[1].at << 32);
    set_reg(d, 0x100C, d->cq[1].at);
    for (unsigned i = 0; i < 3; i++)
        assert_true(take(d, 1, &c, false));
    /* A head in memory alone is seen when room is needed. */
    disk->manual = false;
    put64(d, SHADOW + 8, 6 | (uint64_t)d->cq[1].at << 32);
    for (unsigned i = 0; i < 2; i++)
        put(d, 1, &e);
    put64(d, SHADOW + 8, d->sq[1].at | (uint64_t)d->cq[1].at << 32);
    ring_sq(d, 1);
    assert_true(take(d, 1, &c, false));
    assert_true(take(d, 1, &c, false));
    /* Nonsense in the shadow is no more than nonsense in the register. */
    put64(d, SHADOW + 8, 0xFFFFFFFFFFFFFFFF);
    ring_sq(d, 1);
    for (unsigned i = 0; i < 3; i++)
        put(d, 1, &e);
    ring_sq(d, 1);
    assert_int_equal(admin(d, (struct sqe){.op = 6, .prp1 = DATA, .dw10 = 1}), 0);
    disable(d);
    start_io(d, 8); /* and a reset ends it */
    assert_int_equal(run(d, 1, &e, NULL), 0);
}

/* Linux's rule for when the controller wants to hear of a doorbell. */
static bool wants(uint16_t event, uint16_t new, uint16_t old)
{
    return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

/* A wire falls by the head's doorbell, so each of these is asked for, however many one takes. */
static void test_shadow_intx(void **state)
{
    static const unsigned takes[] = {1, 2, 3, 1, 1, 4, 2, 5, 3, 1};
    struct drv *d = *state;
    struct sqe e = rw(READ, 0, 1, DATA, 0);
    struct cqe c = {0};

    enable(d);
    assert_int_equal(admin(d, (struct sqe){.op = 0x7C, .prp1 = SHADOW, .prp2 = EVENTIDX}), 0);
    create_pair(d, 1, 16);
    for (unsigned round = 0; round < 20; round++) {
        for (unsigned i = 0; i < 6; i++)
            put(d, 1, &e);
        put64(d, SHADOW + 8, d->sq[1].at | (uint64_t)d->cq[1].at << 32);
        ring_sq(d, 1);
        for (unsigned i = 0, left = 6; left > 0; i++) {
            unsigned old = d->cq[1].at, n = takes[(round + i) % 10];

            assert_true(irq_gsi_level(d->m.irqs, 16 + SLOT));
            for (; n > 0 && left > 0; n--, left--)
                assert_true(take(d, 1, &c, false));
            put64(d, SHADOW + 8, d->sq[1].at | (uint64_t)d->cq[1].at << 32);
            if (wants((uint16_t)gmem_read32(d->m.mem, EVENTIDX + 12), (uint16_t)d->cq[1].at,
                      (uint16_t)old))
                set_reg(d, 0x100C, d->cq[1].at);
        }
        assert_false(irq_gsi_level(d->m.irqs, 16 + SLOT));
    }
}

/* Held completions and a deletion that waits survive a snapshot; requests are done before it. */
static void test_snapshot(void **state)
{
    struct drv *d = *state;
    struct sqe e = rw(READ, 0, 1, DATA, 0);
    unsigned seen = 0;
    struct cqe c = {0};

    enable(d);
    assert_int_equal(create_cq(d, 1, 4, 0), 0);
    assert_int_equal(create_sq(d, 1, 16, 1), 0);
    assert_int_equal(create_sq(d, 2, 16, 1), 0);
    assert_int_equal(admin(d, (struct sqe){.op = 9, .dw10 = 6, .dw11 = 0}), 0);
    put(d, 0, &(struct sqe){.op = 12}); /* an event request that waits */
    ring_sq(d, 0);
    disk->manual = true;
    for (unsigned i = 0; i < 9; i++)
        put(d, 1, &e);
    ring_sq(d, 1);
    put(d, 2, &e);
    ring_sq(d, 2);
    machine_save_load(&d->m);
    assert_int_equal(disk->count, 0);
    while (take(d, 1, &c, true))
        seen++;
    assert_int_equal(seen, 10);
    disk->manual = false;
    assert_int_equal(run(d, 1, &e, NULL), 0);
    set_reg(d, 0x1000 + 8 * 7, 1);
    assert_true(take(d, 0, &c, true));
    assert_int_equal(c.result, 0x010000);
    assert_int_equal(run(d, 0, &(struct sqe){.op = 10, .dw10 = 6}, &c.result), 0);
    assert_int_equal(c.result, 0);
}

/* A snapshot with any byte changed is refused, or leads to a controller that works. */
static void test_snapshot_hostile(void **state)
{
    struct drv *d = *state;
    struct state_buf b = {0};
    struct sqe e = rw(READ, 0, 1, DATA, 0);
    unsigned refused = 0;

    enable(d);
    assert_int_equal(create_cq(d, 1, 4, 0), 0);
    assert_int_equal(create_sq(d, 1, 16, 1), 0);
    for (unsigned i = 0; i < 6; i++)
        put(d, 1, &e);
    ring_sq(d, 1);
    pci_save(d->m.pci, &b);
    assert_int_equal(b.error, 0);
    for (size_t i = 4200; i < b.len; i++) {
        struct error err = {0};
        uint8_t old = b.data[i];
        size_t pos = 0;

        b.data[i] ^= i % 3 == 0 ? 0x80 : i % 3 == 1 ? 0xFF : 1;
        refused += pci_load(d->m.pci, b.data, b.len, &pos, &err) != 0;
        b.data[i] = old;
        for (unsigned q = 0; q < 3; q++) {
            set_reg(d, 0x1000 + 8 * q, 3);
            set_reg(d, 0x1004 + 8 * q, 3);
        }
        set_reg(d, 0x14, 0x00464001);
        set_reg(d, 0x14, 0);
        pci_reset(d->m.pci);
        cfgw(&d->m, SLOT, 0, 4, 2, 6);
    }
    assert_true(refused > 1000);
    free(b.data);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        T(test_prp),
        T(test_prp_abuse),
        T(test_commands),
        T(test_host_errors),
        cmocka_unit_test(test_read_only),
        cmocka_unit_test(test_dsm),
        T(test_full),
        cmocka_unit_test(test_slots),
        cmocka_unit_test(test_starve),
        T(test_reset_inflight),
        T(test_delete_held),
        T(test_msix),
        T(test_shadow),
        T(test_shadow_intx),
        T(test_snapshot),
        T(test_snapshot_hostile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
