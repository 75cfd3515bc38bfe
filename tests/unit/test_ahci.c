/* AHCI with requests that take their time: order, errors, resets, and what a guest may get wrong.
 */
#include "ahci_fixture.h"

#define OK 0x50u

static uint32_t read_back(struct driver *d, unsigned slot, unsigned at)
{
    return gmem_read32(d->m.mem, DATA_OF(slot) + at);
}

static uint32_t on_disk(struct driver *d, unsigned sector, unsigned at)
{
    uint32_t v;

    memcpy(&v, d->b->data + sector * 512 + at, 4);
    return v;
}

/* Three queued ones are under way at once, and end in an order of their own. */
static void test_queue(void **state)
{
    struct driver d;

    (void)state;
    driver_begin(&d, &ahci_hd_ops);
    d.b->hold = true;
    for (unsigned s = 4; s < 7; s++) {
        struct cmd c = fpdma(s, s == 5, 10 * s, 2);

        build(&d, s, &c, 1024);
        put(&d, DATA_OF(s), 0xABCD0000 + s, 4);
    }
    issue(&d, 0x70, true);
    assert_int_equal(d.b->count, 3);
    assert_int_equal(px(&d, CI), 0);
    assert_int_equal(px(&d, SACT), 0x70);
    assert_int_equal(px(&d, TFD) & 0x80, 0);
    assert_int_equal(px(&d, IS), 0);
    fake_finish(d.b, 1, 0);
    assert_int_equal(px(&d, SACT), 0x50);
    assert_int_equal(px(&d, IS), 8);
    assert_int_equal(gmem_read32(d.m.mem, FISES + 0x5C), 0x20);
    assert_int_equal(on_disk(&d, 50, 0), 0xABCD0005);
    assert_true(irq_gsi_level(d.m.irqs, 19));
    fake_finish(d.b, 1, 0);
    assert_int_equal(px(&d, SACT), 0x10);
    assert_int_equal(read_back(&d, 6, 512), on_disk(&d, 61, 0));
    assert_int_equal(read_back(&d, 4, 0), 0xABCD0004);
    /* the slot is taken until it has ended */
    pxw(&d, CI, 0x10);
    assert_int_equal(px(&d, CI), 0);
    assert_int_equal(d.m.guest_errors, 1);
    fake_finish(d.b, 0, 0);
    assert_int_equal(px(&d, SACT), 0);
    driver_end(&d);
}

/* All 32 slots, and the port takes turns. */
static void test_full_queue(void **state)
{
    struct driver d;

    (void)state;
    driver_begin(&d, &ahci_hd_ops);
    d.b->hold = true;
    for (unsigned s = 0; s < 32; s++) {
        struct cmd c = fpdma(s, false, s, 1);

        build(&d, s, &c, 512);
    }
    issue(&d, 0xFFFFFFFF, true);
    assert_int_equal(d.b->count, 32);
    assert_int_equal(px(&d, SACT), 0xFFFFFFFF);
    for (unsigned i = 0; i < 32; i++)
        fake_finish(d.b, (31 - i) / 2, 0);
    assert_int_equal(px(&d, SACT), 0);
    for (unsigned s = 0; s < 32; s++)
        assert_int_equal(read_back(&d, s, 4), on_disk(&d, s, 4));
    driver_end(&d);
}

/* What is not queued goes one after the other; the second waits in PxCI. */
static void test_one_by_one(void **state)
{
    struct cmd c = {.op = 0x25, .count = 1, .lba = 7};
    struct driver d;

    (void)state;
    driver_begin(&d, &ahci_hd_ops);
    d.b->hold = true;
    build(&d, 0, &c, 512);
    c.lba = 8;
    build(&d, 9, &c, 512);
    issue(&d, 0x201, false);
    assert_int_equal(d.b->count, 1);
    assert_int_equal(px(&d, CI), 0x201);
    assert_int_equal(px(&d, TFD) & 0x80, 0x80);
    fake_finish(d.b, 0, 0);
    assert_int_equal(px(&d, CI), 0x200);
    assert_int_equal(d.b->count, 1);
    fake_finish(d.b, 0, 0);
    assert_int_equal(px(&d, CI), 0);
    assert_int_equal(px(&d, TFD), OK);
    assert_int_equal(read_back(&d, 9, 0), on_disk(&d, 8, 0));
    driver_end(&d);
}

/*
 * What waits behind a command is not begun inside its end: a reset, or the opening of the tray,
 * must wait for the block layer, which would wait for itself.
 */
/* Each ends only when the block layer is told to begin: the next must not be forgotten then. */
static void test_end_at_unplug(void **state)
{
    struct cmd c = {.op = 0x25, .count = 1, .lba = 7};
    struct driver d;

    (void)state;
    driver_begin(&d, &ahci_hd_ops);
    d.b->hold = d.b->at_unplug = true;
    for (unsigned s = 0; s < 3; s++)
        build(&d, s, &c, 512);
    issue(&d, 7, false);
    assert_int_equal(px(&d, CI), 0);
    assert_int_equal(d.b->submitted, 3);
    for (unsigned s = 0; s < 3; s++) {
        c = fpdma(s, false, 100 + s, 1);
        build(&d, s, &c, 512);
    }
    issue(&d, 7, true);
    assert_int_equal(px(&d, SACT), 0);
    assert_int_equal(d.b->submitted, 6);
    d.b->hold = false;
    driver_end(&d);
}

static void test_not_inside_an_end(void **state)
{
    struct cmd c = {.op = 0x25, .count = 1};
    struct driver d;

    (void)state;
    driver_begin(&d, &ahci_hd_ops);
    d.b->hold = true;
    build(&d, 0, &c, 512);
    c = fpdma(1, false, 1, 1);
    build(&d, 1, &c, 512);
    for (unsigned s = 2; s < 4; s++) { /* SRST set, and cleared */
        put(&d, LIST + s * 32ull, 5, 4);
        put(&d, LIST + s * 32ull + 8, TABLE(s), 8);
        put(&d, TABLE(s), 0x27, 8);
        put(&d, TABLE(s) + 8, s == 2 ? 4ull << 56 : 0, 8);
    }
    pxw(&d, SACT, 2);
    issue(&d, 0xF, false);
    assert_int_equal(px(&d, CI), 0xF);
    fake_finish(d.b, 0, 0);
    assert_int_equal(px(&d, CI), 0);
    assert_int_equal(px(&d, TFD), 0x150);
    assert_int_equal(d.b->count, 0);
    driver_end(&d);

    driver_begin(&d, &ahci_cd_ops);
    c = (struct cmd){.op = 0xA0, .feature = 1, .packet = true};
    build(&d, 0, &c, 2048);
    put(&d, TABLE(0) + 0x40, 0, 8);
    issue(&d, 1, false); /* TEST UNIT READY: the unit attention */
    port_restart(&d);
    d.b->hold = true;
    put(&d, TABLE(0) + 0x40, 0x28, 8);
    put(&d, TABLE(0) + 0x48, 1, 2);
    put(&d, TABLE(0) + 0x48, 1, 1);
    build(&d, 1, &c, 0);
    put(&d, TABLE(1) + 0x40, 0x000000020000001B, 8);
    issue(&d, 3, false);
    assert_int_equal(d.b->count, 1);
    fake_finish(d.b, 0, 0);
    assert_int_equal(px(&d, TFD), OK);
    assert_int_equal(px(&d, CI), 0);
    assert_int_equal(d.b->geo.size, 0);
    driver_end(&d);
}

enum stop { STOP_ST, STOP_COMRESET, STOP_HBA, STOP_PCI, STOP_SRST, STOPS };

/* Whatever stops a port, the guest's memory is its own afterwards, and it hears of nothing. */
static void test_stops(void **state)
{
    (void)state;
    for (unsigned stop = 0; stop < STOPS; stop++) {
        struct cmd c = fpdma(2, false, 40, 8);
        struct driver d;

        driver_begin(&d, &ahci_hd_ops);
        d.b->hold = true;
        build(&d, 2, &c, 4096);
        c = fpdma(3, true, 80, 8);
        build(&d, 3, &c, 4096);
        issue(&d, 0xC, true);
        assert_int_equal(d.b->count, 2);
        switch ((enum stop)stop) {
        case STOP_ST:
            pxw(&d, CMD, 0x10);
            assert_int_equal(px(&d, CMD) & 0x8000, 0);
            break;
        case STOP_COMRESET:
            pxw(&d, SCTL, 1);
            pxw(&d, SCTL, 0);
            break;
        case STOP_HBA:
            mmio_out(&d.m, d.bar + 4, 4, 1);
            break;
        case STOP_PCI:
            pci_reset(d.m.pci);
            cfgw(&d.m, SLOT, 0, 4, 2, 7);
            break;
        case STOP_SRST:
            put(&d, LIST, 5, 4);
            put(&d, LIST + 8, TABLE(0), 8);
            put(&d, TABLE(0), 0x27, 8);
            put(&d, TABLE(0) + 8, 4ull << 56, 8);
            pxw(&d, CI, 1);
            put(&d, TABLE(0) + 8, 0, 8);
            pxw(&d, CI, 1);
            break;
        case STOPS:
            break;
        }
        assert_int_equal(d.b->count, 0);
        assert_int_equal(px(&d, IS) & ~0x40u, 0);
        assert_int_equal(gmem_read32(d.m.mem, FISES + 0x58), 0);
        if (stop != STOP_SRST)
            assert_int_equal(px(&d, SACT), 0);
        assert_int_equal(px(&d, TFD) & 0xFF, OK);
        /* and it works again */
        d.b->hold = false;
        port_restart(&d);
        c = (struct cmd){.op = 0xC8, .count = 1, .lba = 3};
        assert_int_equal(run(&d, &c, 512), OK);
        assert_int_equal(read_back(&d, 0, 0), on_disk(&d, 3, 0));
        driver_end(&d);
    }
}

/* One of three fails: the others are void, the log has its tag, and is asked for first. */
static void test_queued_error(void **state)
{
    struct cmd c, log = {.op = 0x2F, .count = 1, .lba = 0x10};
    struct driver d;

    (void)state;
    driver_begin(&d, &ahci_hd_ops);
    d.b->hold = true;
    for (unsigned s = 0; s < 3; s++) {
        c = fpdma(s, false, 100 + s, 1);
        build(&d, s, &c, 512);
    }
    issue(&d, 7, true);
    fake_finish(d.b, 0, 0);
    assert_int_equal(px(&d, SACT), 6);
    pxw(&d, IS, 8);
    fake_finish(d.b, 1, -EIO); /* tag 2 */
    assert_int_equal(px(&d, SACT), 6);
    assert_int_equal(px(&d, TFD), 0x4051);
    assert_int_equal(px(&d, IS), 0x40000008);
    fake_finish(d.b, 0, 0); /* tag 1: too late */
    assert_int_equal(px(&d, SACT), 6);
    d.b->hold = false;
    port_restart(&d);
    c = (struct cmd){.op = 0xEC};
    assert_int_equal(run(&d, &c, 512) & 0xFF, 0x51);
    port_restart(&d);
    log.lba = 0;
    assert_int_equal(run(&d, &log, 512) & 0xFF, 0x51); /* another log is no excuse */
    port_restart(&d);
    log.lba = 0x10;
    assert_int_equal(run(&d, &log, 512), OK);
    assert_int_equal(read_back(&d, 0, 0), 0x40510002);
    assert_int_equal(read_back(&d, 0, 4) & 0xFF, 102);
    assert_int_equal(run(&d, &c, 512), OK);
    driver_end(&d);
}

static void test_mixed(void **state)
{
    struct cmd c = fpdma(1, false, 1, 1), log = {.op = 0x47, .count = 1, .lba = 0x10};
    struct driver d;

    (void)state;
    driver_begin(&d, &ahci_hd_ops);
    d.b->hold = true;
    build(&d, 1, &c, 512);
    issue(&d, 2, true);
    c = (struct cmd){.op = 0x25, .count = 1};
    assert_int_equal(run(&d, &c, 512), 0x451);
    assert_int_equal(px(&d, SACT), 2);
    assert_int_equal(px(&d, IS), 0x40000001);
    d.b->hold = false;
    port_restart(&d);
    assert_int_equal(run(&d, &log, 512), OK);
    assert_int_equal(read_back(&d, 0, 0) & 0xFF, 0x80); /* it was not a queued one */
    /* the tag in the FIS is another than the slot */
    c = fpdma(4, false, 1, 1);
    build(&d, 3, &c, 512);
    issue(&d, 8, true);
    assert_int_equal(px(&d, TFD), 0x451);
    driver_end(&d);
}

static void test_save(void **state)
{
    struct cmd c = fpdma(7, false, 33, 1);
    struct driver d;

    (void)state;
    driver_begin(&d, &ahci_hd_ops);
    d.b->hold = true;
    build(&d, 7, &c, 512);
    issue(&d, 0x80, true);
    machine_save_load(&d.m);
    assert_int_equal(px(&d, SACT), 0);
    assert_int_equal(px(&d, IS), 8);
    assert_true(irq_gsi_level(d.m.irqs, 19));
    assert_int_equal(read_back(&d, 7, 0), on_disk(&d, 33, 0));
    driver_end(&d);
}

static void test_host_errors(void **state)
{
    static const struct {
        struct cmd c;
        int rc;
        uint32_t len, tfd;
    } cases[] = {
        {{.op = 0x25, .count = 1, .lba = 5}, -EIO, 512, 0x4051},
        {{.op = 0x35, .count = 1, .lba = 5, .write = true}, -EROFS, 512, 0x451},
        {{.op = 0x35, .count = 1, .lba = 5, .write = true}, -ENOSPC, 512, 0x451},
        {{.op = 0x25, .count = 1, .lba = 5}, -EINVAL, 512, 0x1051},
        {{.op = 0xEA}, -EIO, 0, 0x451},
        {{.op = 0x42, .count = 300}, -EIO, 0, 0x4051},
        {{.op = 0xE0}, -EIO, 0, 0x451},
        {{.op = 0x06, .feature = 1, .count = 1, .write = true}, -EIO, 512, 0x451},
    };
    struct driver d;

    (void)state;
    driver_begin(&d, &ahci_hd_ops);
    for (unsigned i = 0; i < countof(cases); i++) {
        gmem_fill(d.m.mem, DATA_OF(0), 0, 512);
        put(&d, DATA_OF(0), 1ull << 48 | 9, 8); /* the range of the last one */
        d.b->fail = cases[i].rc;
        assert_int_equal(run(&d, &cases[i].c, cases[i].len), cases[i].tfd);
        port_restart(&d);
        assert_int_equal(run(&d, &cases[i].c, cases[i].len), OK);
        assert_int_equal(d.b->fail, 0);
    }
    driver_end(&d);
}

/* Stable when it ends: by the command's own wish, or since there is no write cache. */
static void test_fua(void **state)
{
    struct cmd c = {.op = 0x35, .count = 1, .write = true};
    struct cmd off = {.op = 0xEF, .feature = 0x82}, on = {.op = 0xEF, .feature = 2};
    struct driver d;

    (void)state;
    driver_begin(&d, &ahci_hd_ops);
    run(&d, &c, 512);
    assert_int_equal(d.b->fua, 0);
    c.op = 0x3D;
    run(&d, &c, 512);
    assert_int_equal(d.b->fua, 1);
    c = fpdma(0, true, 1, 1);
    c.device = 0x80;
    build(&d, 0, &c, 512);
    issue(&d, 1, true);
    assert_int_equal(d.b->fua, 2);
    assert_int_equal(run(&d, &off, 0), OK);
    assert_int_equal(d.b->flushes, 1);
    c = (struct cmd){.op = 0xCA, .count = 1, .write = true};
    run(&d, &c, 512);
    assert_int_equal(d.b->fua, 3);
    assert_int_equal(run(&d, &on, 0), OK);
    run(&d, &c, 512);
    assert_int_equal(d.b->fua, 3);
    driver_end(&d);
}

static void test_addresses(void **state)
{
    static const struct {
        uint8_t op, device;
        uint16_t count;
        uint64_t lba;
        uint32_t tfd;
    } cases[] = {
        {0x25, 0, 1, 2047, OK},
        {0x25, 0, 1, 2048, 0x1051},
        {0x25, 0, 2, 2047, 0x1051},
        {0x25, 0, 1, 0xFFFFFFFFFFFF, 0x1051},
        {0x25, 0, 0, 0, 0x1051}, /* 65536 sectors */
        {0xC8, 0, 0, 0x700, OK}, /* 256 */
        {0xC8, 0, 0, 0x701, 0x1051},
        {0xC8, 0x01, 1, 0, 0x1051},       /* bits 27:24 are in the device register */
        {0xC8, 0, 1, 0xFFFFFF000005, OK}, /* what is above 27 is not looked at */
        {0x24, 0, 3, 2045, OK},
        {0x20, 0, 1, 2048, 0x1051},
        {0x29, 0, 1, 0, 0x451}, /* READ MULTIPLE before SET MULTIPLE MODE */
    };
    struct cmd multiple = {.op = 0xC6, .count = 8}, c = {.op = 0xC4, .count = 11, .lba = 20};
    struct driver d;

    (void)state;
    driver_begin(&d, &ahci_hd_ops);
    for (unsigned i = 0; i < countof(cases); i++) {
        struct cmd one = {.op = cases[i].op,
                          .device = cases[i].device,
                          .count = cases[i].count,
                          .lba = cases[i].lba};

        assert_int_equal(run(&d, &one, 0x20000), cases[i].tfd);
        if (cases[i].tfd != OK)
            port_restart(&d);
    }
    assert_int_equal(run(&d, &multiple, 0), OK);
    assert_int_equal(run(&d, &c, 11 * 512), OK);
    assert_int_equal(read_back(&d, 0, 10 * 512), on_disk(&d, 30, 0));
    multiple.count = 3;
    assert_int_equal(run(&d, &multiple, 0), 0x451);
    driver_end(&d);
}

static void test_trim(void **state)
{
    struct cmd c = {.op = 0x06, .feature = 1, .count = 1, .write = true};
    struct driver d;

    (void)state;
    driver_begin(&d, &ahci_hd_ops);
    gmem_fill(d.m.mem, DATA_OF(0), 0, 512);
    put(&d, DATA_OF(0), 2ull << 48 | 100, 8);
    put(&d, DATA_OF(0) + 8, 1ull << 48 | 102, 8); /* a neighbour */
    put(&d, DATA_OF(0) + 24, 1ull << 48 | 2047, 8);
    assert_int_equal(run(&d, &c, 512), OK);
    assert_int_equal(d.b->zeros, 2);
    assert_int_equal(on_disk(&d, 102, 508), 0);
    assert_int_equal(on_disk(&d, 2047, 508), 0);
    assert_int_not_equal(on_disk(&d, 103, 508), 0);
    put(&d, DATA_OF(0) + 32, 2ull << 48 | 2047, 8); /* not on the disk: nothing is done */
    assert_int_equal(run(&d, &c, 512), 0x1051);
    assert_int_equal(d.b->zeros, 2);
    port_restart(&d);
    c.count = 9;
    assert_int_equal(run(&d, &c, 9 * 512), 0x451);
    driver_end(&d);
    next_geometry = (struct block_geometry){.size = DISK_SIZE, .sector = 512, .physical = 512};
    driver_begin(&d, &ahci_hd_ops);
    c.count = 1;
    assert_int_equal(run(&d, &c, 512), 0x451); /* nodelete */
    driver_end(&d);
}

static void test_sectors_of_4096(void **state)
{
    struct cmd id = {.op = 0xEC}, c = {.op = 0x25, .count = 2, .lba = 3};
    struct driver d;

    (void)state;
    next_geometry = (struct block_geometry){.size = DISK_SIZE, .sector = 4096, .physical = 4096};
    driver_begin(&d, &ahci_hd_ops);
    assert_int_equal(run(&d, &id, 512), OK);
    assert_int_equal(gmem_read16(d.m.mem, DATA_OF(0) + 212), 0x5000);
    assert_int_equal(read_back(&d, 0, 234), 2048);
    assert_int_equal(read_back(&d, 0, 200), DISK_SIZE / 4096);
    assert_int_equal(run(&d, &c, 8192), OK);
    assert_int_equal(read_back(&d, 0, 8188), on_disk(&d, 39, 508));
    driver_end(&d);
}

/* A table may have 65535 entries; they are taken as far as they are needed, and not further. */
static void test_tables(void **state)
{
    struct cmd c = {.op = 0x25, .count = 64, .lba = 10};
    struct driver d;

    (void)state;
    driver_begin(&d, &ahci_hd_ops);
    build(&d, 0, &c, 512);
    put(&d, LIST, 5u | 4096u << 16, 4);
    put(&d, LIST + 8, TABLE(0), 8);
    for (unsigned i = 0; i < 4096; i++) { /* 8 bytes each, in reverse */
        put(&d, TABLE(0) + 0x80 + i * 16ull, DATA_OF(0) + (4095 - i) * 8ull, 8);
        put(&d, TABLE(0) + 0x8C + i * 16ull, 7, 4);
    }
    issue(&d, 1, false);
    assert_int_equal(px(&d, TFD), OK);
    assert_int_equal(gmem_read32(d.m.mem, LIST + 4), 64 * 512);
    for (unsigned i = 0; i < 4096; i++)
        assert_int_equal(read_back(&d, 0, (4095 - i) * 8), on_disk(&d, 10, i * 8));
    /* at the very end of memory: the entries behind it are not wanted */
    c.count = 1;
    build(&d, 0, &c, 512);
    put(&d, LIST, 5u | 0xFFFFu << 16, 4);
    put(&d, LIST + 8, (16u << 20) - 256, 8);
    c.lba = 12;
    put_fis(&d, 0, &c);
    for (unsigned i = 0; i < 20; i++) {
        uint8_t b;

        gmem_read(d.m.mem, TABLE(0) + i, &b, 1);
        put(&d, (16u << 20) - 256 + i, b, 1);
    }
    put(&d, (16u << 20) - 128, DATA_OF(0), 8);
    put(&d, (16u << 20) - 116, 511, 4);
    issue(&d, 1, false);
    assert_int_equal(px(&d, TFD), OK);
    assert_int_equal(read_back(&d, 0, 0), on_disk(&d, 12, 0));
    /* they are wanted, and are not there */
    put(&d, (16u << 20) - 116, 1, 4);
    for (unsigned i = 1; i < 8; i++) {
        put(&d, (16u << 20) - 128 + i * 16ull, DATA_OF(0), 8);
        put(&d, (16u << 20) - 116 + i * 16ull, 1, 4);
    }
    issue(&d, 1, false);
    assert_int_equal(px(&d, IS) & 0x21000000, 0x20000000);
    driver_end(&d);
}

/* Every register, every size, some values; then the port still works. */
static void test_registers(void **state)
{
    static const uint64_t values[] = {0, 1, 0x11, 0x7F, 0xFFFF, 0x80000000, UINT64_MAX};
    struct cmd c = {.op = 0xEC};
    struct driver d;

    (void)state;
    driver_begin(&d, &ahci_hd_ops);
    for (unsigned i = 0; i < countof(values); i++) {
        for (unsigned size = 1; size <= 8; size *= 2) {
            for (unsigned at = 0; at < 0x200; at++) {
                mmio_out(&d.m, d.bar + at, size, values[i]);
                mmio_in(&d.m, d.bar + at, size);
            }
            mmio_out(&d.m, d.bar + 0x1FFF, size, values[i]);
            mmio_in(&d.m, d.bar + 0x1FFC, size);
        }
    }
    machine_save_load(&d.m);
    mmio_out(&d.m, d.bar + 4, 4, 1);
    port_start(&d);
    assert_int_equal(run(&d, &c, 512), OK);
    /* narrow writes: only the bytes that are written count, also where ones clear */
    pxw(&d, IE, 0);
    mmio_out(&d.m, d.bar + 0x100 + IE, 1, 0x0F);
    mmio_out(&d.m, d.bar + 0x100 + IE + 3, 1, 0x40);
    assert_int_equal(px(&d, IE), 0x4000000F);
    assert_int_equal(px(&d, IS), 2);
    mmio_out(&d.m, d.bar + 0x100 + IS + 1, 1, 0xFF);
    assert_int_equal(px(&d, IS), 2);
    assert_int_equal(mmio_in(&d.m, d.bar + 0x100 + IS, 8), 0x4000000F00000002);
    driver_end(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_queue),           cmocka_unit_test(test_full_queue),
        cmocka_unit_test(test_one_by_one),      cmocka_unit_test(test_not_inside_an_end),
        cmocka_unit_test(test_stops),           cmocka_unit_test(test_queued_error),
        cmocka_unit_test(test_mixed),           cmocka_unit_test(test_save),
        cmocka_unit_test(test_host_errors),     cmocka_unit_test(test_fua),
        cmocka_unit_test(test_addresses),       cmocka_unit_test(test_trim),
        cmocka_unit_test(test_sectors_of_4096), cmocka_unit_test(test_tables),
        cmocka_unit_test(test_registers),       cmocka_unit_test(test_end_at_unplug),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
