/*
 * Random commands with a model of the disk beside, and random garbage. The seed is printed;
 * AHCI_SEED=N runs one again.
 */
#include "ahci_fixture.h"

#include <time.h>

#define SECTORS_OF_SLOT                                                                            \
    64u /* each slot has a stretch of the disk to itself: no order is promised */
#define ROUNDS 4000u

struct rng {
    uint64_t s;
};

static uint32_t rnd(struct rng *r, uint32_t below)
{
    r->s ^= r->s << 13;
    r->s ^= r->s >> 7;
    r->s ^= r->s << 17;
    return (uint32_t)((r->s >> 11) % below);
}

static struct rng seeded(const char *what)
{
    const char *text = getenv("AHCI_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : (uint64_t)time(NULL) * 2654435761u;
    struct rng r = {seed | 1};

    print_message("%s: AHCI_SEED=%#llx\n", what, (unsigned long long)seed);
    return r;
}

struct job {
    bool active, write, queued;
    unsigned sector, count;
    uint64_t gpa[8];
    uint32_t len[8], pieces;
    uint8_t data[32 * 512]; /* of a write */
};

static struct job jobs[32];
static uint8_t model[DISK_SIZE];

/* The data in up to eight pieces that do not touch, each of an even number of bytes. */
static void scatter(struct rng *r, struct job *j, unsigned slot)
{
    uint32_t left = j->count * 512, at = 0;

    for (j->pieces = 0; left != 0; j->pieces++) {
        uint32_t len = j->pieces == 7 ? left : 2 * (1 + rnd(r, left / 2));

        j->gpa[j->pieces] = DATA_OF(slot) + at;
        j->len[j->pieces] = len;
        at += len + 2 * rnd(r, 2000);
        left -= len;
    }
}

static void fill_or_compare(struct driver *d, struct job *j, const uint8_t *bytes, bool compare)
{
    uint8_t seen[32 * 512];

    for (unsigned i = 0; i < j->pieces; i++) {
        if (compare) {
            gmem_read(d->m.mem, j->gpa[i], seen, j->len[i]);
            assert_memory_equal(seen, bytes, j->len[i]);
        } else {
            gmem_write(d->m.mem, j->gpa[i], bytes, j->len[i]);
        }
        bytes += j->len[i];
    }
}

static void start(struct driver *d, struct rng *r, unsigned slot, bool queued)
{
    static const uint8_t ops[2][6] = {{0xC8, 0x25, 0x20, 0x24, 0xC4, 0x29},
                                      {0xCA, 0x35, 0x30, 0x34, 0xC5, 0x3D}};
    struct job *j = &jobs[slot];
    struct cmd c;

    j->active = true;
    j->queued = queued;
    j->write = rnd(r, 2) != 0;
    j->count = 1 + rnd(r, 32);
    j->sector = slot * SECTORS_OF_SLOT + rnd(r, SECTORS_OF_SLOT - j->count);
    c = fpdma(slot, j->write, j->sector, (uint16_t)j->count);
    if (!queued)
        c = (struct cmd){.op = ops[j->write][rnd(r, 6)],
                         .count = (uint16_t)j->count,
                         .lba = j->sector,
                         .write = j->write};
    scatter(r, j, slot);
    build(d, slot, &c, 0);
    put(d, LIST + slot * 32ull + 2, j->pieces, 2);
    for (unsigned i = 0; i < j->pieces; i++) {
        put(d, TABLE(slot) + 0x80 + i * 16ull, j->gpa[i], 8);
        put(d, TABLE(slot) + 0x8C + i * 16ull, j->len[i] - 1, 4);
    }
    for (unsigned i = 0; j->write && i < j->count * 512; i++)
        j->data[i] = (uint8_t)rnd(r, 256);
    if (j->write)
        fill_or_compare(d, j, j->data, false);
    issue(d, 1u << slot, queued);
}

/* Looks at every job that the registers say is done. */
static void reap(struct driver *d)
{
    uint32_t busy = px(d, CI) | px(d, SACT);

    for (unsigned s = 0; s < 32; s++) {
        struct job *j = &jobs[s];

        if (!j->active || (busy >> s & 1) != 0)
            continue;
        if (j->write)
            memcpy(model + j->sector * 512, j->data, j->count * 512);
        else
            fill_or_compare(d, j, model + j->sector * 512, true);
        j->active = false;
    }
    assert_int_equal(px(d, TFD) & 1, 0);
    assert_int_equal(px(d, IS) & 0x78000000, 0);
}

static void settle(struct driver *d, struct rng *r)
{
    while (d->b->count != 0) {
        fake_finish(d->b, rnd(r, d->b->count), 0);
        reap(d);
    }
    assert_int_equal(px(d, CI) | px(d, SACT), 0);
}

static void test_commands(void **state)
{
    struct rng r = seeded("commands");
    struct cmd multiple = {.op = 0xC6, .count = 16};
    bool queued = true;
    struct driver d;

    (void)state;
    driver_begin(&d, &ahci_hd_ops);
    memcpy(model, d.b->data, DISK_SIZE);
    memset(jobs, 0, sizeof(jobs));
    assert_int_equal(run(&d, &multiple, 0), 0x50);
    d.b->hold = true;
    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned slot = rnd(&r, 32), what = rnd(&r, 100);

        if (what < 50 && !jobs[slot].active) {
            start(&d, &r, slot, queued);
        } else if (what < 95 && d.b->count != 0) {
            fake_finish(d.b, rnd(&r, d.b->count), 0);
            reap(&d);
        } else if (what == 95) {
            settle(&d, &r);
            queued = !queued;
        } else if (what == 96) {
            machine_save_load(&d.m);
            reap(&d);
        } else if (what == 97) {
            settle(&d, &r);
            port_restart(&d);
        }
        pxw(&d, IS, 0xFFFFFFFF);
    }
    settle(&d, &r);
    assert_memory_equal(model, d.b->data, DISK_SIZE);
    assert_int_equal(d.m.guest_errors, 0);
    driver_end(&d);
}

/* ---- garbage ---- */

static uint64_t some_address(struct rng *r)
{
    static const uint64_t bases[] = {
        0,          DATA,        TABLES, (16u << 20) - 64,  16u << 20, 0xFEE00000,
        0xFFFFFFFF, 0x100000000, LIST,   0xFFFFFFFFFFFFFFC0};

    return bases[rnd(r, countof(bases))] + rnd(r, 2) * rnd(r, 4096);
}

static void garbage_command(struct driver *d, struct rng *r, unsigned slot, bool cd)
{
    static const uint8_t often[] = {0x60, 0x61, 0x25, 0x35, 0x06, 0xEC, 0x2F, 0xA0,
                                    0xA1, 0x42, 0xEF, 0xE0, 0x47, 0xC6, 0x08, 0x90};
    uint64_t table = rnd(r, 8) != 0 ? TABLE(slot) : some_address(r);
    uint8_t fis[64];

    put(d, LIST + slot * 32ull, rnd(r, 8) != 0 ? 5u | rnd(r, 2) << 5 : rnd(r, 256), 2);
    put(d, LIST + slot * 32ull + 2, rnd(r, 4) != 0 ? rnd(r, 5) : rnd(r, 65536), 2);
    put(d, LIST + slot * 32ull + 8, table, 8);
    for (unsigned i = 0; i < sizeof(fis); i++)
        fis[i] = (uint8_t)rnd(r, 256);
    fis[0] = rnd(r, 20) != 0 ? 0x27 : fis[0];
    fis[1] = rnd(r, 20) != 0 ? 0x80 : fis[1];
    if (rnd(r, 4) != 0)
        fis[2] = cd && rnd(r, 2) != 0 ? 0xA0 : often[rnd(r, countof(often))];
    if (rnd(r, 2) != 0)
        memset(fis + 5, 0, 7), fis[7] = 0x40, fis[13] = 0;
    if (rnd(r, 2) != 0)
        fis[12] = (uint8_t)(slot << 3);
    gmem_write(d->m.mem, table, fis, sizeof(fis));
    for (unsigned i = 0; i < 20; i++)
        fis[i] = (uint8_t)rnd(r, rnd(r, 2) != 0 ? 256 : 4);
    if (rnd(r, 2) != 0)
        fis[0] = (uint8_t[]){
            0x00, 0x03, 0x12, 0x1B, 0x28, 0x43, 0x46, 0x4A, 0x5A, 0xA8, 0xBE, 0x52}[rnd(r, 12)];
    gmem_write(d->m.mem, table + 0x40, fis, 16);
    for (unsigned i = 0; i < 6; i++) {
        uint64_t gpa = rnd(r, 6) != 0 ? DATA_OF(slot) + rnd(r, 65536) : some_address(r);
        uint32_t len = rnd(r, 4) != 0 ? 2 * rnd(r, 4096) + 1 : (uint32_t)r->s;

        gmem_write(d->m.mem, table + 0x80 + i * 16ull, &gpa, 8);
        gmem_write(d->m.mem, table + 0x8C + i * 16ull, &len, 4);
    }
}

/* The port may stop, and must: nothing else may break. Then it works again. */
static void garbage(const struct pci_ops *ops, bool cd)
{
    struct rng r = seeded(ops->name);
    struct cmd c = {.op = cd ? 0xA1 : 0xEC};
    struct driver d;

    driver_begin(&d, ops);
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint32_t slots = (uint32_t)r.s;

        d.b->hold = rnd(&r, 2) != 0;
        d.b->fail = rnd(&r, 10) == 0 ? -EIO : 0;
        for (unsigned s = 0; s < 32; s++)
            if ((slots >> s & 1) != 0)
                garbage_command(&d, &r, s, cd);
        if (rnd(&r, 50) == 0)
            mmio_out(&d.m, d.bar + 0x100, 8, some_address(&r));
        if (rnd(&r, 50) == 0)
            mmio_out(&d.m, d.bar + 0x108, 8, some_address(&r));
        issue(&d, slots, rnd(&r, 2) != 0);
        while (d.b->count != 0 && rnd(&r, 8) != 0)
            fake_finish(d.b, rnd(&r, d.b->count), rnd(&r, 8) == 0 ? -EIO : 0);
        if (rnd(&r, 4) == 0)
            mmio_out(&d.m, d.bar + rnd(&r, 0x180), 1u << rnd(&r, 4), r.s);
        if (rnd(&r, 8) == 0)
            machine_save_load(&d.m);
        cfgw(&d.m, SLOT, 0, 4, 2, rnd(&r, 20) != 0 ? 7 : 3);
        if (rnd(&r, 3) != 0)
            port_restart(&d);
        if (rnd(&r, 20) == 0) {
            d.b->hold = false;
            d.b->fail = 0;
            cfgw(&d.m, SLOT, 0, 4, 2, 7);
            mmio_out(&d.m, d.bar + 4, 4, 1);
            port_restart(&d);
            assert_int_equal(run(&d, &c, 512), 0x50);
        }
    }
    driver_end(&d);
}

static void test_garbage_disk(void **state)
{
    (void)state;
    garbage(&ahci_hd_ops, false);
}

static void test_garbage_cd(void **state)
{
    (void)state;
    garbage(&ahci_cd_ops, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commands),
        cmocka_unit_test(test_garbage_disk),
        cmocka_unit_test(test_garbage_cd),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
