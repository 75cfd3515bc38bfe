/* virtio-rnd from the guest's side: a legacy and a modern driver, over the bus, by all interrupts.
 */
#include "pci_fixture.h"
#include "pci/table.h"
#include "virtio/virtio.h"

#define SLOT 4u
#define DESC 0x10000u /* legacy layout: page 0x10 */
#define USED_MODERN 0x13000u
#define DATA 0x20000u

struct driver {
    struct machine m;
    uint16_t io, size, avail_index;
    uint64_t mem, msix, desc, avail, used, notify;
    uint32_t notify_multiplier;
    unsigned common, isr;
};

static void find(struct driver *d)
{
    struct machine *m = &d->m;
    unsigned cap = 0;

    d->io = (uint16_t)(cfgr(m, SLOT, 0, 0x10, 4) & 0xFFFC);
    d->msix = cfgr(m, SLOT, 0, 0x14, 4) & ~0xFu;
    d->mem = (cfgr(m, SLOT, 0, 0x20, 4) & ~0xFu) | (uint64_t)cfgr(m, SLOT, 0, 0x24, 4) << 32;
    while ((cap = find_cap(m, SLOT, 9, cap)) != 0) {
        unsigned type = cfgr(m, SLOT, 0, cap + 3, 1);
        uint32_t offset = cfgr(m, SLOT, 0, cap + 8, 4);

        if (type == 1)
            d->common = offset;
        if (type == 3)
            d->isr = offset;
        if (type == 2) {
            d->notify = offset;
            d->notify_multiplier = cfgr(m, SLOT, 0, cap + 16, 4);
        }
    }
    cfgw(m, SLOT, 0, 4, 2, 7);
}

static void begin(struct driver *d, bool msi)
{
    memset(d, 0, sizeof(*d));
    machine_start(&d->m, msi);
    assert_int_equal(machine_add(&d->m, 31, 0, &pci_lpc_ops), 0);
    assert_int_equal(machine_add(&d->m, SLOT, 0, &virtio_rnd_ops), 0);
    assert_int_equal(pci_assign(d->m.pci, NULL), 0);
    find(d);
}

static uint32_t common_r(struct driver *d, unsigned reg, unsigned size)
{
    return (uint32_t)mmio_in(&d->m, d->mem + d->common + reg, size);
}

static void common_w(struct driver *d, unsigned reg, unsigned size, uint64_t v)
{
    mmio_out(&d->m, d->mem + d->common + reg, size, v);
}

static void put(struct driver *d, uint64_t gpa, uint64_t v, size_t size)
{
    assert_int_equal(gmem_write(d->m.mem, gpa, &v, size), 0);
}

/* Asks for len bytes at DATA; the caller notifies. */
static void ask(struct driver *d, uint32_t len)
{
    uint16_t slot = (uint16_t)(d->avail_index & (d->size - 1u));

    gmem_fill(d->m.mem, DATA, 0, 4096);
    put(d, d->desc, DATA, 8);
    put(d, d->desc + 8, len, 4);
    put(d, d->desc + 12, 2, 4);
    put(d, d->avail + 4 + 2 * (uint64_t)slot, 0, 2);
    put(d, d->avail + 2, ++d->avail_index, 2);
}

/* All len bytes have come, and they are not all zero. */
static void answered(struct driver *d, uint32_t len)
{
    uint16_t slot = (uint16_t)((d->avail_index - 1) & (d->size - 1u));
    uint64_t sum = 0;

    assert_int_equal(gmem_read16(d->m.mem, d->used + 2), d->avail_index);
    assert_int_equal(gmem_read32(d->m.mem, d->used + 8 + 8 * (uint64_t)slot), len);
    for (unsigned i = 0; i < len; i += 8)
        sum |= gmem_read64(d->m.mem, DATA + i);
    assert_true(sum != 0);
    assert_int_equal(gmem_read64(d->m.mem, DATA + len), 0);
}

static void legacy_start(struct driver *d)
{
    struct machine *m = &d->m;

    out(m, (uint16_t)(d->io + 18), 1, 0);
    out(m, (uint16_t)(d->io + 18), 1, 1);
    out(m, (uint16_t)(d->io + 18), 1, 3);
    assert_int_equal(in(m, d->io, 4) & 0x38000000, 0x38000000);
    out(m, (uint16_t)(d->io + 4), 4, 0); /* no event index: simple rings */
    out(m, (uint16_t)(d->io + 14), 2, 0);
    d->size = (uint16_t)in(m, (uint16_t)(d->io + 12), 2);
    assert_true(d->size != 0);
    assert_int_equal(in(m, (uint16_t)(d->io + 8), 4), 0);
    out(m, (uint16_t)(d->io + 8), 4, DESC >> 12);
    assert_int_equal(in(m, (uint16_t)(d->io + 8), 4), DESC >> 12);
    d->desc = DESC;
    d->avail = DESC + 16ull * d->size;
    d->used = (d->avail + 6 + 2ull * d->size + 4095) & ~4095ull;
    d->avail_index = 0;
    gmem_fill(m->mem, DESC, 0, 0x4000);
    out(m, (uint16_t)(d->io + 18), 1, 7);
    assert_int_equal(in(m, (uint16_t)(d->io + 18), 1), 7);
}

static void test_legacy_intx(void **state)
{
    struct driver d;

    (void)state;
    begin(&d, false);
    assert_int_equal(cfgr(&d.m, SLOT, 0, 0, 4), 0x10051AF4);
    assert_int_equal(cfgr(&d.m, SLOT, 0, 0x2C, 4), 0x00041AF4);
    legacy_start(&d);
    out(&d.m, (uint16_t)(d.io + 14), 2, 1); /* there is no queue 1 */
    assert_int_equal(in(&d.m, (uint16_t)(d.io + 12), 2), 0);
    out(&d.m, (uint16_t)(d.io + 14), 2, 0);
    ask(&d, 64);
    assert_false(irq_gsi_level(d.m.irqs, 20));
    out(&d.m, (uint16_t)(d.io + 16), 2, 0);
    answered(&d, 64);
    assert_true(irq_gsi_level(d.m.irqs, 20));
    assert_true(d.m.pic[10]);
    machine_save_load(&d.m);
    assert_true(irq_gsi_level(d.m.irqs, 20));
    assert_int_equal(in(&d.m, (uint16_t)(d.io + 19), 1), 1);
    assert_int_equal(in(&d.m, (uint16_t)(d.io + 19), 1), 0);
    assert_false(irq_gsi_level(d.m.irqs, 20));
    ask(&d, 8);
    machine_save_load(&d.m);
    out(&d.m, (uint16_t)(d.io + 16), 2, 0);
    answered(&d, 8);
    out(&d.m, (uint16_t)(d.io + 18), 1, 0);
    assert_false(irq_gsi_level(d.m.irqs, 20));
    assert_int_equal(in(&d.m, (uint16_t)(d.io + 8), 4), 0);
    machine_stop(&d.m);
}

static void test_legacy_msix(void **state)
{
    struct driver d;
    unsigned cap;

    (void)state;
    begin(&d, false);
    cap = find_cap(&d.m, SLOT, 0x11, 0);
    cfgw(&d.m, SLOT, 0, cap + 2, 2, 0x8000);
    mmio_out(&d.m, d.msix + 16, 8, 0xFEE00000);
    mmio_out(&d.m, d.msix + 24, 8, 0x55);
    legacy_start(&d);
    assert_int_equal(in(&d.m, (uint16_t)(d.io + 20), 2), 0xFFFF);
    out(&d.m, (uint16_t)(d.io + 20), 2, 0);
    assert_int_equal(in(&d.m, (uint16_t)(d.io + 20), 2), 0);
    out(&d.m, (uint16_t)(d.io + 22), 2, 2); /* there are two */
    assert_int_equal(in(&d.m, (uint16_t)(d.io + 22), 2), 0xFFFF);
    out(&d.m, (uint16_t)(d.io + 22), 2, 1);
    assert_int_equal(in(&d.m, (uint16_t)(d.io + 22), 2), 1);
    cfgw(&d.m, SLOT, 0, 4, 2, 3);
    out(&d.m, (uint16_t)(d.io + 18), 1, 3);
    ask(&d, 16);
    out(&d.m, (uint16_t)(d.io + 16), 2, 0);
    answered(&d, 16);
    assert_int_equal(d.m.messages, 0);
    cfgw(&d.m, SLOT, 0, 4, 2, 7);
    ask(&d, 16);
    out(&d.m, (uint16_t)(d.io + 16), 2, 0);
    assert_int_equal(d.m.messages, 1);
    assert_int_equal(d.m.last.vector, 0x55);
    assert_false(irq_gsi_level(d.m.irqs, 20));
    machine_stop(&d.m);
}

static void test_msi(void **state)
{
    struct driver d;
    unsigned cap;

    (void)state;
    begin(&d, true); /* -W */
    assert_int_equal(find_cap(&d.m, SLOT, 0x11, 0), 0);
    cap = find_cap(&d.m, SLOT, 5, 0);
    assert_int_not_equal(cap, 0);
    cfgw(&d.m, SLOT, 0, cap + 4, 4, 0xFEE00000);
    cfgw(&d.m, SLOT, 0, cap + 12, 2, 0x66);
    cfgw(&d.m, SLOT, 0, cap + 2, 2, 1);
    legacy_start(&d);
    ask(&d, 16);
    out(&d.m, (uint16_t)(d.io + 16), 2, 0);
    answered(&d, 16);
    assert_int_equal(d.m.messages, 1);
    assert_int_equal(d.m.last.vector, 0x66);
    machine_stop(&d.m);
}

static void modern_start(struct driver *d, uint32_t low_features)
{
    gmem_fill(d->m.mem, DESC, 0, 0x4000);
    common_w(d, 0x14, 1, 0);
    assert_int_equal(common_r(d, 0x14, 1), 0);
    common_w(d, 0x14, 1, 3);
    common_w(d, 0x00, 4, 1);
    assert_int_equal(common_r(d, 0x04, 4) & 1, 1); /* VERSION_1 */
    common_w(d, 0x08, 4, 0);
    common_w(d, 0x0C, 4, low_features);
    common_w(d, 0x08, 4, 1);
    common_w(d, 0x0C, 4, 0x101); /* VERSION_1, RING_RESET */
    common_w(d, 0x14, 1, 0x0B);
    assert_int_equal(common_r(d, 0x14, 1), 0x0B);
    assert_int_equal(common_r(d, 0x12, 2), 1);
    common_w(d, 0x16, 2, 0);
    d->size = (uint16_t)common_r(d, 0x18, 2);
    d->size = d->size > 16 ? 16 : d->size;
    common_w(d, 0x18, 2, d->size);
    d->desc = DESC;
    d->avail = DESC + 0x1000;
    d->used = USED_MODERN;
    d->avail_index = 0;
    common_w(d, 0x20, 4, d->desc);
    common_w(d, 0x24, 4, 0);
    common_w(d, 0x28, 8, d->avail);
    common_w(d, 0x30, 8, d->used);
    common_w(d, 0x1C, 2, 1);
    assert_int_equal(common_r(d, 0x1C, 2), 1);
    common_w(d, 0x14, 1, 0x0F);
    assert_int_equal(common_r(d, 0x14, 1), 0x0F);
}

static void modern_notify(struct driver *d)
{
    uint32_t off = common_r(d, 0x1E, 2) * d->notify_multiplier;

    mmio_out(&d->m, d->mem + d->notify + off, 2, 0);
}

static void test_modern(void **state)
{
    struct driver d;

    (void)state;
    begin(&d, false);
    modern_start(&d, 0x30000000);
    for (unsigned i = 0; i < 40; i++) {
        put(&d, d.avail + 4 + 2ull * d.size, i, 2); /* used_event: at once */
        ask(&d, 32);
        modern_notify(&d);
        answered(&d, 32);
        assert_true(irq_gsi_level(d.m.irqs, 20));
        assert_int_equal(mmio_in(&d.m, d.mem + d.isr, 1), 1);
        assert_false(irq_gsi_level(d.m.irqs, 20));
        machine_save_load(&d.m);
    }
    /* more than is given at once */
    ask(&d, 0x100000);
    modern_notify(&d);
    assert_int_equal(gmem_read16(d.m.mem, d.used + 2), d.avail_index);
    /* a queue by itself */
    common_w(&d, 0x3A, 2, 1);
    assert_int_equal(common_r(&d, 0x3A, 2), 0);
    assert_int_equal(common_r(&d, 0x1C, 2), 0);
    ask(&d, 8);
    modern_notify(&d);
    assert_int_equal(gmem_read16(d.m.mem, d.used + 2), (uint16_t)(d.avail_index - 1));
    machine_stop(&d.m);
}

static void test_negotiation(void **state)
{
    struct driver d;

    (void)state;
    begin(&d, false);
    common_w(&d, 0x14, 1, 3);
    common_w(&d, 0x14, 1, 0x0B); /* without VERSION_1 */
    assert_int_equal(common_r(&d, 0x14, 1), 0x03);
    common_w(&d, 0x08, 4, 1);
    common_w(&d, 0x0C, 4, 0x80000001); /* never offered */
    common_w(&d, 0x14, 1, 0x0B);
    assert_int_equal(common_r(&d, 0x14, 1), 0x03);
    common_w(&d, 0x14, 1, 0x07); /* DRIVER_OK before its time */
    assert_int_equal(common_r(&d, 0x14, 1), 0x03);
    common_w(&d, 0x0C, 4, 1);
    common_w(&d, 0x14, 1, 0x0B);
    assert_int_equal(common_r(&d, 0x14, 1), 0x0B);
    common_w(&d, 0x08, 4, 0);
    common_w(&d, 0x0C, 4, 0x10000000); /* too late */
    assert_int_equal(common_r(&d, 0x0C, 4), 0);
    common_w(&d, 0x18, 2, 3);
    common_w(&d, 0x18, 2, 0x4000);
    common_w(&d, 0x18, 2, 0);
    assert_int_not_equal(common_r(&d, 0x18, 2), 3);
    common_w(&d, 0x16, 2, 0xFFFF); /* no such queue */
    assert_int_equal(common_r(&d, 0x18, 2), 0);
    common_w(&d, 0x1C, 2, 1);
    common_w(&d, 0x3A, 2, 1);
    common_w(&d, 0x00, 4, 7);
    assert_int_equal(common_r(&d, 0x04, 4), 0);
    machine_stop(&d.m);
}

static void test_needs_reset(void **state)
{
    struct driver d;

    (void)state;
    begin(&d, false);
    modern_start(&d, 0);
    ask(&d, 64);
    put(&d, d.desc, 0xFEC00000, 8);
    modern_notify(&d);
    assert_int_equal(common_r(&d, 0x14, 1), 0x4F);
    assert_int_equal(mmio_in(&d.m, d.mem + d.isr, 1), 2); /* configuration change */
    ask(&d, 64);
    modern_notify(&d);
    assert_int_equal(gmem_read16(d.m.mem, d.used + 2), 0);
    machine_save_load(&d.m);
    assert_int_equal(common_r(&d, 0x14, 1), 0x4F);
    modern_start(&d, 0);
    ask(&d, 64);
    modern_notify(&d);
    answered(&d, 64);
    /* a request without room */
    ask(&d, 0);
    modern_notify(&d);
    assert_int_equal(common_r(&d, 0x14, 1), 0x4F);
    /* rings outside RAM */
    common_w(&d, 0x14, 1, 0);
    common_w(&d, 0x20, 8, 0xFFFFFFFFFFFFFFF0);
    common_w(&d, 0x1C, 2, 1); /* before its time */
    assert_int_equal(common_r(&d, 0x1C, 2), 0);
    common_w(&d, 0x14, 1, 3);
    common_w(&d, 0x08, 4, 1);
    common_w(&d, 0x0C, 4, 1);
    common_w(&d, 0x14, 1, 0x0B);
    common_w(&d, 0x1C, 2, 1);
    assert_int_equal(common_r(&d, 0x14, 1) & 0x40, 0x40);
    out(&d.m, (uint16_t)(d.io + 18), 1, 0);
    out(&d.m, (uint16_t)(d.io + 8), 4, 0xFFFFFFFF);
    assert_int_equal(in(&d.m, (uint16_t)(d.io + 18), 1) & 0x40, 0x40);
    machine_stop(&d.m);
}

/* The BAR through configuration space, as firmware does that cannot map it. */
static void test_pci_cfg(void **state)
{
    struct driver d;
    unsigned cap = 0;

    (void)state;
    begin(&d, false);
    do
        cap = find_cap(&d.m, SLOT, 9, cap);
    while (cap != 0 && cfgr(&d.m, SLOT, 0, cap + 3, 1) != 5);
    assert_int_not_equal(cap, 0);
    cfgw(&d.m, SLOT, 0, cap + 4, 1, 4);
    cfgw(&d.m, SLOT, 0, cap + 8, 4, d.common + 0x14);
    cfgw(&d.m, SLOT, 0, cap + 12, 4, 1);
    cfgw(&d.m, SLOT, 0, cap + 16, 1, 3);
    assert_int_equal(common_r(&d, 0x14, 1), 3);
    common_w(&d, 0x14, 1, 0);
    assert_int_equal(cfgr(&d.m, SLOT, 0, cap + 16, 1), 0);
    cfgw(&d.m, SLOT, 0, cap + 12, 4, 4);
    cfgw(&d.m, SLOT, 0, cap + 8, 4, 0);
    cfgw(&d.m, SLOT, 0, cap + 16, 4, 1);
    assert_int_equal(common_r(&d, 0, 4), 1);
    /* nowhere, or too long */
    for (unsigned bar = 0; bar < 8; bar++) {
        cfgw(&d.m, SLOT, 0, cap + 4, 1, bar * 37);
        cfgw(&d.m, SLOT, 0, cap + 8, 4, 0xFFFFFFFC);
        cfgw(&d.m, SLOT, 0, cap + 16, 4, 1);
        cfgw(&d.m, SLOT, 0, cap + 12, 4, 0xFFFFFFFF);
        cfgr(&d.m, SLOT, 0, cap + 16, 4);
        cfgw(&d.m, SLOT, 0, cap + 8, 4, 0);
        cfgr(&d.m, SLOT, 0, cap + 16, 4);
        cfgw(&d.m, SLOT, 0, cap + 12, 4, 4);
    }
    machine_stop(&d.m);
}

/* Every register, every size, some values: nothing but the contents may break. */
static void test_registers_hostile(void **state)
{
    static const uint64_t values[] = {0, 1, 0x7F, 0xFFFF, 0x80000000, UINT64_MAX};
    struct driver d;

    (void)state;
    begin(&d, false);
    for (unsigned i = 0; i < countof(values); i++) {
        for (unsigned size = 1; size <= 8; size *= 2) {
            for (unsigned at = 0; at < 0x44; at++) {
                if (size <= 4) {
                    out(&d.m, (uint16_t)(d.io + at), size, (uint32_t)values[i]);
                    in(&d.m, (uint16_t)(d.io + at), size);
                }
                common_w(&d, at, size, values[i]);
                common_r(&d, at, size);
                mmio_out(&d.m, d.mem + 0x1000 - 4 + at, size, values[i]);
                mmio_out(&d.m, d.mem + 0x2000 - 4 + at, size, values[i]);
                mmio_out(&d.m, d.mem + 0x4000 - 0x44 + at, size, values[i]);
                mmio_in(&d.m, d.mem + 0x1000 - 4 + at, size);
                mmio_in(&d.m, d.mem + 0x2000 - 4 + at, size);
                mmio_in(&d.m, d.mem + 0x4000 - 0x44 + at, size);
            }
        }
    }
    machine_save_load(&d.m);
    legacy_start(&d);
    ask(&d, 24);
    out(&d.m, (uint16_t)(d.io + 16), 2, 0);
    answered(&d, 24);
    machine_stop(&d.m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_legacy_intx), cmocka_unit_test(test_legacy_msix),
        cmocka_unit_test(test_msi),         cmocka_unit_test(test_modern),
        cmocka_unit_test(test_negotiation), cmocka_unit_test(test_needs_reset),
        cmocka_unit_test(test_pci_cfg),     cmocka_unit_test(test_registers_hostile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
