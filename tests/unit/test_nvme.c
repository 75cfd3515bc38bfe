/* The NVMe controller's admin side: registers, queues, every abuse of them that a driver can think
 * of, features, logs, events. */
#include "nvme_fixture.h"

static void test_registers(void **state)
{
    struct drv *d = *state;

    assert_int_equal(cfgr(&d->m, SLOT, 0, 8, 4), 0x01080200);
    assert_int_equal(mmio_in(&d->m, d->bar, 8), 0x000000202801003Full);
    assert_int_equal(reg(d, 0x08), 0x00010400);
    assert_int_equal(reg(d, 0x1C), 0);
    set_reg(d, 0x0C, 5);
    set_reg(d, 0x10, 4);
    assert_int_equal(reg(d, 0x0C), 1);
    assert_int_equal(reg(d, 0x10), 1);
    set_reg(d, 0x28, 0x12345FFF); /* the page's offset does not exist */
    assert_int_equal(reg(d, 0x28), 0x12345000);
    set_reg(d, 0x24, 0xFFFFFFFF);
    assert_int_equal(reg(d, 0x24), 0x0FFF0FFF);
    assert_int_equal(mmio_in(&d->m, d->bar + 0x25, 1), 0x0F);
    assert_int_equal(reg(d, 0x1000), 0);
    assert_int_equal(d->m.guest_errors, 0);
    set_reg(d, 0, 1);                       /* CAP */
    mmio_out(&d->m, d->bar + 0x24, 2, 0);   /* too narrow */
    mmio_out(&d->m, d->bar + 0x1000, 8, 0); /* a doorbell has 32 bits */
    set_reg(d, 0x1000, 1);                  /* and is not there yet */
    assert_int_equal(d->m.guest_errors, 4);
    assert_int_equal(reg(d, 0x24), 0x0FFF0FFF);
}

static void fatal(struct drv *d, uint32_t cc)
{
    set_reg(d, 0x14, cc);
    assert_int_equal(reg(d, 0x1C), 2);
    set_reg(d, 0x14, 0);
    assert_int_equal(reg(d, 0x1C), 0);
}

static void test_enable(void **state)
{
    struct drv *d = *state;

    set_reg(d, 0x24, 0x000F000F);
    mmio_out(&d->m, d->bar + 0x28, 8, ASQ);
    mmio_out(&d->m, d->bar + 0x30, 8, ACQ);
    fatal(d, 0x00460011); /* command set 1 */
    fatal(d, 0x00460081); /* pages of 8 KiB */
    fatal(d, 0x00460801); /* weighted round robin */
    set_reg(d, 0x24, 0x000F0000);
    fatal(d, 0x00460001); /* a queue of one entry */
    set_reg(d, 0x24, 0x000F000F);
    mmio_out(&d->m, d->bar + 0x28, 8, (16ull << 20) - 0x1000);
    set_reg(d, 0x24, 0x000F007F);
    fatal(d, 0x00460001); /* its end is not in RAM */
    mmio_out(&d->m, d->bar + 0x30, 8, 0xFFFFFFFFFFFFF000);
    set_reg(d, 0x24, 0x0FFF000F);
    fatal(d, 0x00460001);
    enable(d);
    set_reg(d, 0x24, 1); /* not while enabled */
    set_reg(d, 0x28, 0);
    assert_int_equal(reg(d, 0x24), 0x000F000F);
    assert_int_equal(reg(d, 0x28), ASQ);
    disable(d);
    enable(d);
    assert_int_equal(admin(d, (struct sqe){.op = 6, .prp1 = DATA, .dw10 = 1}), 0);
}

static void test_shutdown(void **state)
{
    struct drv *d = *state;

    enable(d);
    disk->manual = true;
    set_reg(d, 0x14, 0x00464001);
    assert_int_equal(reg(d, 0x1C), 1 | 1 << 2); /* under way */
    put(d, 0, &(struct sqe){.op = 6, .prp1 = DATA, .dw10 = 1});
    ring_sq(d, 0);
    assert_int_equal(disk->count, 1);
    disk_finish(0, 0);
    assert_int_equal(reg(d, 0x1C), 1 | 2 << 2);
    assert_int_equal(disk->flushes, 1);
    assert_int_equal(gmem_read32(d->m.mem, ACQ + 12), 0); /* nothing is begun any more */
    set_reg(d, 0x14, 0);
    assert_int_equal(reg(d, 0x1C), 0);
    enable(d);
    set_reg(d, 0x14, 0x00468001); /* abrupt; then a reset before it is done */
    disable(d);
    assert_int_equal(disk->count, 0);
    enable(d);
}

static void test_identify(void **state)
{
    struct drv *d = *state;
    uint8_t p[4096];
    unsigned zeros = 0;

    enable(d);
    assert_int_equal(
        admin(d, (struct sqe){.op = 6, .prp1 = DATA + 0x800, .prp2 = DATA + 0x5000, .dw10 = 1}), 0);
    gmem_read(d->m.mem, DATA + 0x800, p, 2048);
    gmem_read(d->m.mem, DATA + 0x5000, p + 2048, 2048);
    assert_int_equal(le16_load(p), 0xFB5D);
    assert_memory_equal(p + 4, "TEST-0123456789ABCDE", 20);
    assert_memory_equal(p + 24, "xhyve-NVMe      ", 16);
    assert_int_equal(p[77], 7);
    assert_int_equal(p[512], 0x66);
    assert_int_equal(p[513], 0x44);
    assert_int_equal(le32_load(p + 516), 1);
    assert_int_equal(le16_load(p + 520), 8); /* no discard on this disk: Write Zeroes alone */
    assert_int_equal(le16_load(p + 256), 0x100);
    assert_memory_equal(p + 768, "nqn.2014-08.org.nvmexpress:uuid:", 32);
    assert_int_equal(admin(d, (struct sqe){.op = 6, .nsid = 1, .prp1 = DATA}), 0);
    gmem_read(d->m.mem, DATA, p, sizeof(p));
    assert_int_equal(le64_load(p), DISK_SIZE / 512);
    assert_int_equal(p[128 + 2], 9);
    assert_int_equal(p[99], 0);
    assert_int_equal(admin(d, (struct sqe){.op = 6, .nsid = 0, .prp1 = DATA, .dw10 = 2}), 0);
    assert_int_equal(gmem_read64(d->m.mem, DATA), 1);
    assert_int_equal(admin(d, (struct sqe){.op = 6, .nsid = 1, .prp1 = DATA, .dw10 = 2}), 0);
    assert_int_equal(gmem_read64(d->m.mem, DATA), 0);
    assert_int_equal(admin(d, (struct sqe){.op = 6, .nsid = 1, .prp1 = DATA, .dw10 = 3}), 0);
    gmem_read(d->m.mem, DATA, p, sizeof(p));
    assert_int_equal(le16_load(p), 0x0801);
    assert_int_equal(p[4] & 3, 2); /* locally administered, for one device */
    assert_int_equal(le16_load(p + 12), 0x1003);
    for (unsigned i = 32; i < 4096; i++)
        zeros += p[i] == 0;
    assert_int_equal(zeros, 4096 - 32);
    /* and what is none */
    assert_int_equal(admin(d, (struct sqe){.op = 6, .nsid = 2, .prp1 = DATA}), 0x0B);
    assert_int_equal(admin(d, (struct sqe){.op = 6, .nsid = ~0u, .prp1 = DATA}), 0x0B);
    assert_int_equal(admin(d, (struct sqe){.op = 6, .nsid = ~0u, .prp1 = DATA, .dw10 = 2}), 0x0B);
    assert_int_equal(admin(d, (struct sqe){.op = 6, .nsid = 0, .prp1 = DATA, .dw10 = 3}), 0x0B);
    assert_int_equal(admin(d, (struct sqe){.op = 6, .nsid = 1, .prp1 = DATA, .dw10 = 0x10}), 2);
    assert_int_equal(admin(d, (struct sqe){.op = 6, .prp1 = NO_RAM, .dw10 = 1}), 4);
    assert_int_equal(admin(d, (struct sqe){.op = 6, .prp1 = DATA + 2, .dw10 = 1}), 0x13);
    assert_int_equal(
        admin(d, (struct sqe){.op = 6, .prp1 = DATA + 4, .prp2 = DATA + 0x2004, .dw10 = 1}), 0x13);
    assert_int_equal(admin(d, (struct sqe){.op = 6, .flags = 0x40, .prp1 = DATA, .dw10 = 1}), 2);
    assert_int_equal(admin(d, (struct sqe){.op = 6, .flags = 0x01, .prp1 = DATA, .dw10 = 1}), 2);
    assert_int_equal(admin(d, (struct sqe){.op = 0x80}), 1); /* Format NVM */
    assert_int_equal(admin(d, (struct sqe){.op = 0x10}), 1); /* Firmware Commit */
    assert_int_equal(admin(d, (struct sqe){.op = 0xFF}), 1);
}

static unsigned raw_cq(struct drv *d, unsigned q, unsigned size, uint64_t base, uint32_t dw11)
{
    return admin(d,
                 (struct sqe){.op = 5, .prp1 = base, .dw10 = (size - 1) << 16 | q, .dw11 = dw11});
}

static unsigned raw_sq(struct drv *d, unsigned q, unsigned size, uint64_t base, uint32_t dw11)
{
    return admin(d,
                 (struct sqe){.op = 1, .prp1 = base, .dw10 = (size - 1) << 16 | q, .dw11 = dw11});
}

static void test_queues(void **state)
{
    struct drv *d = *state;

    enable(d);
    assert_int_equal(raw_cq(d, 0, 16, IOCQ(1), 3), 0x101);
    assert_int_equal(raw_cq(d, 5, 16, IOCQ(1), 3), 0x101);
    assert_int_equal(raw_cq(d, 1, 1, IOCQ(1), 3), 0x102);
    assert_int_equal(raw_cq(d, 1, 65, IOCQ(1), 3), 0x102);
    assert_int_equal(raw_cq(d, 1, 16, IOCQ(1), 5 << 16 | 3), 0x108);
    assert_int_equal(raw_cq(d, 1, 16, IOCQ(1), 1 << 16 | 3), 0x108); /* MSI-X is off */
    assert_int_equal(raw_cq(d, 1, 16, IOCQ(1), 2), 2);               /* not contiguous */
    assert_int_equal(raw_cq(d, 1, 16, IOCQ(1) + 16, 3), 0x13);
    assert_int_equal(raw_cq(d, 1, 16, NO_RAM, 3), 2);
    assert_int_equal(raw_sq(d, 1, 16, IOSQ(1), 1 << 16 | 1), 0x100); /* no such completion queue */
    assert_int_equal(create_cq(d, 1, 16, 0), 0);
    assert_int_equal(raw_cq(d, 1, 16, IOCQ(1), 3), 0x101);
    assert_int_equal(raw_sq(d, 1, 16, IOSQ(1), 0 << 16 | 1), 0x100);
    assert_int_equal(raw_sq(d, 1, 16, IOSQ(1), 0xFFFFu << 16 | 1), 0x100);
    assert_int_equal(raw_sq(d, 0, 16, IOSQ(1), 1 << 16 | 1), 0x101);
    assert_int_equal(raw_sq(d, 9, 16, IOSQ(1), 1 << 16 | 1), 0x101);
    assert_int_equal(raw_sq(d, 1, 65536, IOSQ(1), 1 << 16 | 1), 0x102);
    assert_int_equal(raw_sq(d, 1, 16, IOSQ(1), 1 << 16), 2);
    assert_int_equal(raw_sq(d, 1, 16, IOSQ(1) + 64, 1 << 16 | 1), 0x13);
    assert_int_equal(raw_sq(d, 1, 64, (16 << 20) - 0x800, 1 << 16 | 1), 0x13);
    assert_int_equal(raw_sq(d, 1, 64, (16 << 20), 1 << 16 | 1), 2);
    gmem_fill(d->m.mem, 0, 0x5A, 4096);
    assert_int_equal(create_sq(d, 1, 16, 1), 0);
    assert_int_equal(create_cq(d, 2, 16, 0), 0);
    for (unsigned i = 0; i < 4096; i += 8) /* shadow doorbells are off: no memory is theirs */
        assert_int_equal(gmem_read64(d->m.mem, i), 0x5A5A5A5A5A5A5A5A);
    assert_int_equal(admin(d, (struct sqe){.op = 4, .dw10 = 2}), 0);
    assert_int_equal(admin(d, (struct sqe){.op = 4, .dw10 = 1}), 0x10C); /* it has a queue */
    assert_int_equal(admin(d, (struct sqe){.op = 4, .dw10 = 0}), 0x101);
    assert_int_equal(admin(d, (struct sqe){.op = 4, .dw10 = 2}), 0x101);
    assert_int_equal(admin(d, (struct sqe){.op = 0, .dw10 = 0}), 0x101);
    assert_int_equal(admin(d, (struct sqe){.op = 0, .dw10 = 99}), 0x101);
    assert_int_equal(admin(d, (struct sqe){.op = 0, .dw10 = 1}), 0);
    assert_int_equal(admin(d, (struct sqe){.op = 0, .dw10 = 1}), 0x101);
    assert_int_equal(admin(d, (struct sqe){.op = 4, .dw10 = 1}), 0);
    assert_int_equal(admin(d, (struct sqe){.op = 4, .dw10 = 1}), 0x101);
    disable(d);
    set_reg(d, 0x14, 0x00000001); /* entries of no size: no I/O queues */
    d->sq[0] = new_ring(ASQ, ADMIN_ENTRIES);
    d->cq[0] = new_ring(ACQ, ADMIN_ENTRIES);
    gmem_fill(d->m.mem, ACQ, 0, ADMIN_ENTRIES * 16);
    assert_int_equal(raw_cq(d, 1, 16, IOCQ(1), 3), 0x102);
}

static unsigned feature(struct drv *d, uint8_t op, uint32_t dw10, uint32_t dw11, uint32_t *result)
{
    return run(d, 0, &(struct sqe){.op = op, .dw10 = dw10, .dw11 = dw11}, result);
}

#define SET 9
#define GET 10

static void test_features(void **state)
{
    struct drv *d = *state;
    uint32_t v;

    enable(d);
    assert_int_equal(feature(d, GET, 7, 0, &v), 0);
    assert_int_equal(v, 0x00030003);
    assert_int_equal(feature(d, SET, 7, 0xFFFF, &v), 2);
    assert_int_equal(feature(d, SET, 7, 0xFFFF0000, &v), 2);
    assert_int_equal(feature(d, SET, 7, 0x00FF0001, &v), 0);
    assert_int_equal(v, 0x00030001);
    assert_int_equal(create_cq(d, 3, 8, 0), 0);
    assert_int_equal(raw_sq(d, 3, 8, IOSQ(3), 3 << 16 | 1), 0x101); /* two were asked for */
    assert_int_equal(feature(d, SET, 7, 0, &v), 0x0C);
    assert_int_equal(feature(d, GET, 6, 0, &v), 0);
    assert_int_equal(v, 1);
    assert_int_equal(feature(d, SET, 6, 0, &v), 0);
    assert_int_equal(feature(d, GET, 6, 0, &v), 0);
    assert_int_equal(v, 0);
    assert_int_equal(feature(d, SET, 2, 1, &v), 2);
    assert_int_equal(feature(d, SET, 9, 4 | 1 << 16, &v), 0);
    assert_int_equal(feature(d, GET, 9, 4, &v), 0);
    assert_int_equal(v, 4 | 1 << 16);
    assert_int_equal(feature(d, GET, 9, 5, &v), 2);
    assert_int_equal(feature(d, SET, 9, 5, &v), 2);
    assert_int_equal(feature(d, SET, 9, 0xFFFF, &v), 2);
    assert_int_equal(feature(d, SET, 8, 0x0102, &v), 0);
    assert_int_equal(feature(d, GET, 8, 0, &v), 0);
    assert_int_equal(v, 0x0102);
    assert_int_equal(feature(d, SET, 1, 0x01020304, &v), 0);
    assert_int_equal(feature(d, GET, 1, 0, &v), 0);
    assert_int_equal(v, 0x01020304);
    assert_int_equal(feature(d, SET, 0x80000001, 0, &v), 0x10D);
    assert_int_equal(feature(d, GET, 0x101, 0, &v), 2);
    assert_int_equal(feature(d, SET, 0x7F, 0, &v), 2);
    assert_int_equal(feature(d, GET, 0x00, 0, &v), 2);
    disable(d);
    enable(d);
    assert_int_equal(feature(d, GET, 6, 0, &v), 0);
    assert_int_equal(v, 1);
}

static unsigned log_page(struct drv *d, unsigned id, unsigned bytes, uint64_t offset,
                         uint32_t flags)
{
    return admin(d, (struct sqe){.op = 2,
                                 .nsid = ~0u,
                                 .prp1 = DATA,
                                 .prp2 = DATA + 0x1000,
                                 .dw10 = (bytes / 4 - 1) << 16 | flags | id,
                                 .dw12 = (uint32_t)offset,
                                 .dw13 = (uint32_t)(offset >> 32)});
}

static void test_logs(void **state)
{
    struct drv *d = *state;

    enable(d);
    assert_int_equal(log_page(d, 2, 512, 0, 0), 0);
    assert_int_equal(gmem_read16(d->m.mem, DATA + 1), 300);
    assert_int_equal(log_page(d, 3, 512, 0, 0), 0);
    assert_int_equal(gmem_read64(d->m.mem, DATA + 8), 0x2020202020302E31); /* "1.0" */
    assert_int_equal(log_page(d, 5, 4096, 0, 0), 0);
    assert_int_equal(gmem_read32(d->m.mem, DATA + 4 * 6), 1);
    assert_int_equal(gmem_read32(d->m.mem, DATA + 1024 + 4 * 1), 3);
    assert_int_equal(gmem_read32(d->m.mem, DATA + 1024 + 4 * 9), 0); /* not offered here */
    assert_int_equal(log_page(d, 5, 4, 1024 + 8, 0), 0);
    assert_int_equal(gmem_read32(d->m.mem, DATA), 1);
    assert_int_equal(log_page(d, 5, 4, 4096, 0), 0);
    assert_int_equal(gmem_read32(d->m.mem, DATA), 0);
    assert_int_equal(log_page(d, 5, 4, 4100, 0), 2);
    assert_int_equal(log_page(d, 5, 4, 2, 0), 2);
    assert_int_equal(log_page(d, 5, 4, 0xFFFFFFFFFFFFFFFC, 0), 2);
    assert_int_equal(log_page(d, 0x70, 4, 0, 0), 0x109);
    assert_int_equal(
        admin(d, (struct sqe){.op = 2, .prp1 = DATA, .dw10 = 0xFFFF0002, .dw11 = 0xFFFF}),
        2); /* 16 GiB */
    assert_int_equal(admin(d, (struct sqe){.op = 2, .nsid = 1, .prp1 = DATA, .dw10 = 2}), 2);
    /* The newest error first: the last one was about namespace 1. */
    assert_int_equal(log_page(d, 1, 128, 0, 0), 0);
    assert_int_equal(gmem_read64(d->m.mem, DATA), 6);
    assert_int_equal(gmem_read16(d->m.mem, DATA + 12) >> 1 & 0x7FF, 2);
    assert_int_equal(gmem_read32(d->m.mem, DATA + 24), 1);
    assert_int_equal(gmem_read64(d->m.mem, DATA + 64), 5);
}

/* An Asynchronous Event Request; its completion, if it comes now. */
static bool event(struct drv *d, struct cqe *c)
{
    put(d, 0, &(struct sqe){.op = 12});
    ring_sq(d, 0);
    return take(d, 0, c, true);
}

static void test_events(void **state)
{
    struct drv *d = *state;
    struct cqe c = {0};

    enable(d);
    assert_false(event(d, &c));
    set_reg(d, 0x1000 + 8 * 3, 0); /* no such queue */
    assert_true(take(d, 0, &c, true));
    assert_int_equal(c.result, 0x010000);
    set_reg(d, 0x1000, 99); /* no such entry: another event of that type, silent for now */
    assert_false(event(d, &c));
    assert_int_equal(log_page(d, 1, 64, 0, 1 << 15), 0); /* event retained */
    assert_false(take(d, 0, &c, true));
    put(d, 0, &(struct sqe){.op = 2, .prp1 = DATA, .dw10 = 15 << 16 | 1});
    ring_sq(d, 0);
    assert_true(take(d, 0, &c, true)); /* the log page */
    assert_int_equal(c.status, 0);
    assert_true(take(d, 0, &c, true)); /* and the event */
    assert_int_equal(c.result, 0x010100);

    /* Size changes, only if the driver wants to know. */
    disk->g.size = DISK_SIZE / 2;
    disk->events->changed(disk->ctx);
    assert_false(event(d, &c));
    assert_int_equal(admin(d, (struct sqe){.op = SET, .dw10 = 11, .dw11 = 0x1FF}), 0);
    disk->g.size = DISK_SIZE;
    disk->events->changed(disk->ctx);
    assert_true(take(d, 0, &c, true));
    assert_int_equal(c.result, 0x040002);
    assert_int_equal(log_page(d, 4, 4096, 0, 0), 0);
    assert_int_equal(gmem_read32(d->m.mem, DATA), 1);
    assert_int_equal(log_page(d, 4, 4096, 0, 0), 0);
    assert_int_equal(gmem_read32(d->m.mem, DATA), 0);

    /* Temperature: a threshold below what it is. */
    assert_false(event(d, &c));
    put(d, 0, &(struct sqe){.op = SET, .dw10 = 4, .dw11 = 299});
    ring_sq(d, 0);
    assert_true(take(d, 0, &c, true));
    assert_true(take(d, 0, &c, true));
    assert_int_equal(c.result, 0x020101);
    assert_int_equal(log_page(d, 2, 512, 0, 0), 0);
    assert_int_equal(gmem_read16(d->m.mem, DATA) & 0xFF, 2);

    /* Four requests may wait, a fifth is too many; Abort ends one. */
    for (unsigned i = 0; i < 4; i++)
        assert_false(event(d, &c));
    assert_true(event(d, &c));
    assert_int_equal(c.status & 0x7FF, 0x105);
    put(d, 0, &(struct sqe){.op = 8, .dw10 = (uint32_t)(d->cid - 1) << 16});
    ring_sq(d, 0);
    assert_true(take(d, 0, &c, true));
    assert_int_equal(c.status & 0x7FF, 7);
    assert_int_equal(c.cid, d->cid - 2);
    assert_true(take(d, 0, &c, true));
    assert_int_equal(c.result, 0);
    assert_int_equal(c.status, 0);
    assert_false(event(d, &c));
    {
        uint32_t v;

        assert_int_equal(run(d, 0, &(struct sqe){.op = 8, .dw10 = 0x12340000}, &v), 0);
        assert_int_equal(v, 1); /* no such command */
        assert_int_equal(run(d, 0, &(struct sqe){.op = 8, .dw10 = 4}, &v), 2);
    }
}

/* Doorbell values that cannot be: each is ignored and told. */
static void test_doorbells(void **state)
{
    struct drv *d = *state;

    enable(d);
    create_pair(d, 1, 8);
    disk->manual = true;
    for (unsigned i = 0; i < 3; i++)
        put(d, 1, &(struct sqe){.op = 0, .nsid = 1});
    ring_sq(d, 1);
    assert_int_equal(disk->count, 3);
    set_reg(d, 0x1008, 8);
    set_reg(d, 0x1008, 0xFFFFFFFF);
    assert_int_equal(disk->count, 3);
    for (unsigned i = 0; i < 7; i++)
        put(d, 1, &(struct sqe){.op = 0, .nsid = 1});
    assert_int_equal(d->sq[1].at, 2);
    ring_sq(d, 1); /* a full ring */
    assert_int_equal(disk->count, 10);
    set_reg(d, 0x100C, 1); /* nothing has been completed */
    set_reg(d, 0x100C, 8);
    assert_int_equal(log_page(d, 1, 64, 0, 0), 0);
    assert_int_equal(gmem_read64(d->m.mem, DATA), 4);
    assert_int_equal(gmem_read16(d->m.mem, DATA + 8), 1);
    assert_int_equal(gmem_read16(d->m.mem, DATA + 10), 0xFFFF);
    disk_finish(0, 0);
    set_reg(d, 0x100C, 2); /* one has */
    assert_int_equal(log_page(d, 1, 64, 0, 0), 0);
    assert_int_equal(gmem_read64(d->m.mem, DATA), 5);
    set_reg(d, 0x100C, 1);
    assert_int_equal(log_page(d, 1, 64, 0, 0), 0);
    assert_int_equal(gmem_read64(d->m.mem, DATA), 5);
}

static void test_intx(void **state)
{
    struct drv *d = *state;
    struct cqe c = {0};

    enable(d);
    put(d, 0, &(struct sqe){.op = 6, .prp1 = DATA, .dw10 = 1});
    assert_false(irq_gsi_level(d->m.irqs, 16 + 5));
    ring_sq(d, 0);
    assert_true(irq_gsi_level(d->m.irqs, 16 + 5));
    set_reg(d, 0x0C, 1);
    assert_false(irq_gsi_level(d->m.irqs, 16 + 5));
    set_reg(d, 0x10, 1);
    assert_true(irq_gsi_level(d->m.irqs, 16 + 5));
    assert_true(take(d, 0, &c, true));
    assert_false(irq_gsi_level(d->m.irqs, 16 + 5));
    put(d, 0, &(struct sqe){.op = 6, .prp1 = DATA, .dw10 = 1});
    ring_sq(d, 0);
    disable(d);
    assert_false(irq_gsi_level(d->m.irqs, 16 + 5));
}

static void test_options(void **state)
{
    static const struct {
        const char *text, *why;
    } bad[] = {
        {"maxq=0", "disk0: maxq=0: must be 1 to 64"},
        {"maxq=65", "disk0: maxq=65: must be 1 to 64"},
        {"qsz=1", "disk0: qsz=1: must be 2 to 65536"},
        {"ioslots=0", "disk0: ioslots=0: must be 1 to 1024"},
        {"sectsz=1024", "disk0: sectsz=1024: must be 512, 4096 or 8192"},
        {"dsm=yes", "disk0: dsm=yes: must be auto, enable or disable"},
        {"ser=123456789012345678901",
         "disk0: ser=123456789012345678901: a serial number has up to 20 characters"},
    };

    (void)state;
    for (unsigned i = 0; i < countof(bad); i++) {
        struct drv *d = calloc(1, sizeof(*d));
        struct error err = {0};

        machine_start(&d->m, false);
        assert_int_equal(nvme_add(d, bad[i].text, &err), -EINVAL);
        assert_string_equal(err.text, bad[i].why);
        dev_env_fini(&d->m.env[0]);
        nvme_stop(d);
    }
}

static void test_named(void **state)
{
    struct drv *d;
    uint8_t p[4096];

    (void)state;
    disk_geometry.physical = 4096;
    disk_geometry.discard = true;
    disk_geometry.read_only = true;
    d = nvme_start(
        "path=x,ser=S1,eui64=0x0102030405060708,sectsz=4096,dsm=enable,qsz=65536,maxq=64");
    assert_int_equal(reg(d, 0) & 0xFFFF, 0xFFFF);
    enable(d);
    assert_int_equal(admin(d, (struct sqe){.op = 6, .prp1 = DATA, .dw10 = 1}), 0);
    gmem_read(d->m.mem, DATA, p, sizeof(p));
    assert_memory_equal(p + 4, "S1                  ", 20);
    assert_int_equal(le16_load(p + 520), 0xC);
    assert_int_equal(admin(d, (struct sqe){.op = 6, .nsid = 1, .prp1 = DATA}), 0);
    gmem_read(d->m.mem, DATA, p, sizeof(p));
    assert_int_equal(le64_load(p), DISK_SIZE / 4096);
    assert_int_equal(p[128 + 2], 12);
    assert_int_equal(p[99], 1);
    assert_int_equal(be64_load(p + 120), 0x0102030405060708);
    nvme_stop(d);
    disk_geometry = usual_geometry;
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        T(test_registers),
        T(test_enable),
        T(test_shutdown),
        T(test_identify),
        T(test_queues),
        T(test_features),
        T(test_logs),
        T(test_events),
        T(test_doorbells),
        T(test_intx),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
