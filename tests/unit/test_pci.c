/* Configuration space, BARs, INTx, MSI and MSI-X, with a device made for it. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>

#include "pci_fixture.h"
#include "pci/table.h"

/* A device with everything: I/O, 32- and 64-bit memory, MSI, MSI-X, INTx. */
struct toy {
    struct pci_func *f;
    uint64_t reg[6];
    uint32_t saved;
};

static struct toy *toy_of[2]; /* the latest ones made */

static int toy_create(struct dev_env *env, struct pci_func *f, const struct options *opts,
                      void **out_dev, struct error *err)
{
    struct toy *t = calloc(1, sizeof(*t));
    int rc;

    (void)env;
    (void)opts;
    *out_dev = t;
    t->f = f;
    toy_of[1] = toy_of[0];
    toy_of[0] = t;
    pci_set_ids(f, 0x1234, 0x5678, 3, 0xFF0102, 0x1111, 0x2222);
    rc = pci_add_bar(f, 0, PCI_BAR_IO, 32, err);
    if (rc == 0)
        rc = pci_add_bar(f, 1, PCI_BAR_MEM32, 4096, err);
    if (rc == 0)
        rc = pci_add_bar(f, 2, PCI_BAR_MEM64, 65536, err);
    if (rc == 0)
        rc = pci_add_bar(f, 0, PCI_BAR_ROM, 2048, err);
    pci_add_intx(f);
    if (rc == 0)
        rc = pci_add_msi(f, 4, err);
    if (rc == 0)
        rc = pci_add_msix(f, 3, 4, err);
    assert_int_equal(pci_add_bar(f, 3, PCI_BAR_MEM32, 4096, NULL), -EEXIST);
    assert_int_equal(pci_add_bar(f, 5, PCI_BAR_MEM32, 4095, NULL), -EINVAL);
    assert_int_equal(pci_add_bar(f, 5, PCI_BAR_MEM64, 4096, NULL), -EINVAL);
    assert_int_equal(pci_add_bar(f, 9, PCI_BAR_MEM32, 4096, NULL), -EINVAL);
    return rc;
}

static uint64_t toy_read(void *dev, unsigned bar, uint64_t offset, unsigned size)
{
    struct toy *t = dev;

    return t->reg[bar] + offset + ((uint64_t)size << 8);
}

static void toy_write(void *dev, unsigned bar, uint64_t offset, unsigned size, uint64_t value)
{
    struct toy *t = dev;

    (void)size;
    t->reg[bar] = value + offset;
}

static const struct state_field toy_state[] = {
    STATE_FIELD(1, struct toy, reg),
};

static const struct pci_ops toy_ops = {
    .name = "toy",
    .summary = "a device for tests",
    .state = toy_state,
    .state_count = countof(toy_state),
    .create = toy_create,
    .destroy = free,
    .bar_read = toy_read,
    .bar_write = toy_write,
};

static void start(struct machine *m)
{
    machine_start(m, false);
    assert_int_equal(machine_add(m, 0, 0, &pci_hostbridge_ops), 0);
    assert_int_equal(machine_add(m, 31, 0, &pci_lpc_ops), 0);
    assert_int_equal(machine_add(m, 3, 0, &toy_ops), 0);
    assert_int_equal(machine_add(m, 3, 1, &toy_ops), 0);
    assert_int_equal(machine_add(m, 3, 1, &toy_ops), -EEXIST);
    assert_int_equal(machine_add(m, 5, 0, &pci_lpc_ops), -EEXIST);
    assert_int_equal(machine_add(m, 32, 0, &toy_ops), -EINVAL);
    assert_int_equal(pci_assign(m->pci, NULL), 0);
}

static void test_access(void **state)
{
    struct machine m;

    (void)state;
    start(&m);
    assert_int_equal(cfgr(&m, 0, 0, 0, 4), 0x12751275);
    assert_int_equal(cfgr(&m, 31, 0, 0, 4), 0x70008086);
    assert_int_equal(cfgr(&m, 31, 0, 8, 4), 0x06010000);
    assert_int_equal(cfgr(&m, 3, 0, 2, 2), 0x5678);
    assert_int_equal(cfgr(&m, 3, 0, 9, 1), 0x02);
    assert_int_equal(cfgr(&m, 3, 0, 0x2C, 4), 0x22221111);
    assert_int_equal(cfgr(&m, 7, 0, 0, 4), 0xFFFFFFFF);
    assert_int_equal(cfgr(&m, 3, 0, 0x0E, 1), 0x80); /* two functions */
    assert_int_equal(cfgr(&m, 3, 1, 0x0E, 1), 0x80);
    assert_int_equal(cfgr(&m, 0, 0, 0x0E, 1), 0x00);
    /* 0xCF8 takes doublewords only */
    out(&m, 0xCF8, 4, 0xFFFFFFFF);
    assert_int_equal(in(&m, 0xCF8, 4), 0x80FFFFFC);
    out(&m, 0xCF9, 1, 0);
    out(&m, 0xCF8, 2, 0);
    assert_int_equal(in(&m, 0xCF8, 4), 0x80FFFFFC);
    assert_int_equal(in(&m, 0xCF8, 1), 0xFF);
    out(&m, 0xCF8, 4, 0x00000000); /* not enabled */
    assert_int_equal(in(&m, 0xCFC, 4), 0xFFFFFFFF);
    /* ECAM shows the same; 8 bytes and unaligned ones too */
    assert_int_equal(mmio_in(&m, ECAM + (3 << 15), 4), 0x56781234);
    assert_true(mmio_in(&m, ECAM + (3 << 15) + 4, 8) >> 32 == 0xFF010203);
    assert_int_equal(mmio_in(&m, ECAM + (3 << 15) + 2, 4), (cfgr(&m, 3, 0, 4, 2) << 16) | 0x5678);
    assert_int_equal(mmio_in(&m, ECAM + (3 << 15) + 0x100, 4), 0);
    assert_int_equal(mmio_in(&m, ECAM + (9 << 15), 2), 0xFFFF);
    assert_int_equal(mmio_in(&m, ECAM + (1 << 20), 4), 0xFFFFFFFF);
    mmio_out(&m, ECAM + (3 << 15) + 0x3C, 1, 0x55);
    assert_int_equal(cfgr(&m, 3, 0, 0x3C, 1), 0x55);
    /* read-only registers stay */
    cfgw(&m, 3, 0, 0, 4, 0);
    cfgw(&m, 3, 0, 8, 4, 0);
    cfgw(&m, 3, 0, 0x34, 1, 0);
    cfgw(&m, 3, 0, 0x3D, 1, 0);
    cfgw(&m, 3, 0, 6, 2, 0xFFFF);
    assert_int_equal(cfgr(&m, 3, 0, 0, 4), 0x56781234);
    assert_int_equal(cfgr(&m, 3, 0, 6, 2), 0x0010);
    assert_int_equal(cfgr(&m, 3, 0, 0x3D, 1), 1);
    assert_int_equal(cfgr(&m, 3, 1, 0x3D, 1), 2);
    /* PCI Express, a root port */
    unsigned cap = find_cap(&m, 0, 0x10, 0);
    assert_int_not_equal(cap, 0);
    assert_int_equal(cfgr(&m, 0, 0, cap + 2, 2), 0x42);
    machine_stop(&m);
}

static void test_bars(void **state)
{
    struct machine m;
    uint32_t io, mem;
    uint64_t big;

    (void)state;
    start(&m);
    io = cfgr(&m, 3, 0, 0x10, 4);
    mem = cfgr(&m, 3, 0, 0x14, 4);
    big = cfgr(&m, 3, 0, 0x18, 4) | (uint64_t)cfgr(&m, 3, 0, 0x1C, 4) << 32;
    assert_int_equal(io & 0x1F, 1);
    assert_true(io >= 0x2000);
    assert_true(mem >= 0xC0000000 && mem < 0xE0000000 && (mem & 0xFFF) == 0);
    assert_true(big >= 0xC0000000 && big < 0xE0000000 && (big & 0xFFFF) == 4); /* it is small */
    assert_int_equal(cfgr(&m, 3, 0, 4, 2), 3);
    assert_int_equal(in(&m, (uint16_t)(io - 1 + 5), 2), 0x205);
    assert_int_equal(mmio_in(&m, mem + 8, 4), 0x408);
    assert_int_equal(mmio_in(&m, big - 4 + 16, 8), 0x810);
    /* sizes, with decoding on and off */
    for (unsigned cmd = 0; cmd <= 3; cmd += 3) {
        cfgw(&m, 3, 0, 4, 2, cmd);
        cfgw(&m, 3, 0, 0x10, 4, ~0u);
        cfgw(&m, 3, 0, 0x14, 4, ~0u);
        cfgw(&m, 3, 0, 0x18, 4, ~0u);
        cfgw(&m, 3, 0, 0x1C, 4, ~0u);
        cfgw(&m, 3, 0, 0x24, 4, ~0u);
        cfgw(&m, 3, 0, 0x30, 4, ~0u);
        assert_int_equal(cfgr(&m, 3, 0, 0x10, 4), 0xFFFFFFE1);
        assert_int_equal(cfgr(&m, 3, 0, 0x14, 4), 0xFFFFF000);
        assert_int_equal(cfgr(&m, 3, 0, 0x18, 4), 0xFFFF0004);
        assert_int_equal(cfgr(&m, 3, 0, 0x1C, 4), 0xFFFFFFFF);
        assert_int_equal(cfgr(&m, 3, 0, 0x24, 4), 0);
        assert_int_equal(cfgr(&m, 3, 0, 0x30, 4), 0xFFFFF801);
        assert_int_equal(mmio_in(&m, 0xFFFFF008, 4), 0xFFFFFFFF); /* not there, only asked */
    }
    assert_int_equal(mmio_in(&m, mem + 8, 4), 0xFFFFFFFF);
    /* moving */
    cfgw(&m, 3, 0, 0x14, 4, 0xD0000000);
    assert_int_equal(mmio_in(&m, 0xD0000008, 4), 0x408);
    cfgw(&m, 3, 0, 0x16, 1, 0x11); /* by bytes */
    assert_int_equal(mmio_in(&m, 0xD0110008, 4), 0x408);
    assert_int_equal(mmio_in(&m, 0xD0000008, 4), 0xFFFFFFFF);
    cfgw(&m, 3, 0, 0x10, 4, 0x4000);
    assert_int_equal(in(&m, 0x4001, 2), 0x201);
    machine_save_load(&m);
    assert_int_equal(mmio_in(&m, 0xD0110008, 4), 0x408);
    assert_int_equal(in(&m, 0x4001, 2), 0x201);
    cfgw(&m, 3, 0, 4, 2, 2);
    assert_int_equal(in(&m, 0x4001, 1), 0xFF);
    assert_int_equal(mmio_in(&m, 0xD0110008, 4), 0x408);
    /* a reset brings firmware's addresses back */
    pci_reset(m.pci);
    assert_int_equal(cfgr(&m, 3, 0, 0x14, 4), mem);
    assert_int_equal(mmio_in(&m, mem + 8, 4), 0x408);
    assert_int_equal(mmio_in(&m, 0xD0110008, 4), 0xFFFFFFFF);
    machine_stop(&m);
}

/* Wherever the guest puts a BAR, nothing breaks, and fixed devices keep their place. */
static void test_bars_absurd(void **state)
{
    static const uint32_t at[] = {0, 0x1000, 0xFEC00000, 0xE0000000, 0xFFFFE000, 0x80000000};
    struct machine m;
    uint32_t other;

    (void)state;
    start(&m);
    for (unsigned i = 0; i < countof(at); i++) {
        cfgw(&m, 3, 0, 0x14, 4, at[i]);
        cfgw(&m, 3, 0, 0x18, 4, at[i]);
        cfgw(&m, 3, 0, 0x1C, 4, i % 2 ? 0xFFFFFFFF : 0);
        cfgw(&m, 3, 0, 0x10, 4, at[i]);
    }
    assert_int_equal(mmio_in(&m, ECAM, 4), 0x12751275);
    cfgw(&m, 3, 0, 0x10, 4, 0x0CE0); /* over the configuration ports */
    assert_int_equal(cfgr(&m, 3, 0, 0, 4), 0x56781234);
    cfgw(&m, 3, 0, 0x10, 4, 0xFFF0);
    cfgw(&m, 3, 0, 0x10, 4, 0x5000);
    cfgw(&m, 3, 0, 0x14, 4, 0xE0000000);
    assert_int_equal(mmio_in(&m, ECAM, 4), 0x12751275);
    /* two at one address: the second waits until the first leaves */
    toy_of[0]->reg[1] = 0x10000;
    toy_of[1]->reg[1] = 0x20000;
    other = cfgr(&m, 3, 1, 0x14, 4);
    m.guest_errors = 0;
    cfgw(&m, 3, 0, 0x14, 4, other);
    assert_int_equal(m.guest_errors, 1);
    assert_int_equal(mmio_in(&m, other, 4), 0x10400);
    cfgw(&m, 3, 1, 0x14, 4, 0xD0000000);
    assert_int_equal(mmio_in(&m, other, 4), 0x20400);
    assert_int_equal(mmio_in(&m, 0xD0000000, 4), 0x10400);
    machine_stop(&m);
}

/* ---- windows that are full ---- */

static const struct {
    enum pci_bar_type type;
    uint64_t size;
    unsigned fit; /* devices with one such BAR */
    const char *words;
} greedy[] = {
    {PCI_BAR_MEM32, 256 << 20, 2, "(268435456 bytes) in the 32-bit memory window"},
    {PCI_BAR_MEM64, 16ull << 30, 2, "(17179869184 bytes) in the 64-bit memory window"},
};
static unsigned greedy_row;

static int greedy_create(struct dev_env *env, struct pci_func *f, const struct options *opts,
                         void **out, struct error *err)
{
    (void)env;
    (void)opts;
    *out = f;
    return pci_add_bar(f, 0, greedy[greedy_row].type, greedy[greedy_row].size, err);
}

static const struct pci_ops greedy_ops = {.name = "greedy", .create = greedy_create};

static void test_bars_full(void **state)
{
    (void)state;
    for (greedy_row = 0; greedy_row < countof(greedy); greedy_row++) {
        struct machine m;
        struct error err = {0};

        machine_start(&m, false);
        for (unsigned i = 0; i < greedy[greedy_row].fit; i++)
            assert_int_equal(machine_add(&m, 3 + i, 0, &greedy_ops), 0);
        assert_int_equal(pci_assign(m.pci, &err), 0);
        assert_int_equal(machine_add(&m, 10, 0, &greedy_ops), 0);
        assert_int_equal(pci_assign(m.pci, &err), -ENOSPC);
        if (strstr(err.text, greedy[greedy_row].words) == NULL)
            fail_msg("'%s' lacks '%s'", err.text, greedy[greedy_row].words);
        machine_stop(&m);
    }
}

static void test_intx(void **state)
{
    struct machine m;
    struct pci_func *f;
    struct pci_info info;

    (void)state;
    start(&m);
    f = toy_of[1]->f; /* 3.0: PIRQD, GSI 19, IRQ 15; 3.1: PIRQE, GSI 20, IRQ 10 */
    assert_true(pci_info_at(m.pci, 1, &info));
    assert_int_equal(info.slot, 3);
    assert_int_equal(info.pirq, 3);
    assert_int_equal(info.pin, 1);
    assert_false(pci_info_at(m.pci, 4, &info));
    assert_int_equal(pci_pirq(0, 3, 2), 4);
    assert_int_equal(cfgr(&m, 3, 0, 0x3C, 1), 15);
    assert_int_equal(cfgr(&m, 3, 1, 0x3C, 1), 10);
    pci_intx(f, true);
    assert_true(irq_gsi_level(m.irqs, 19));
    assert_true(m.pic[15]);
    assert_int_equal(cfgr(&m, 3, 0, 6, 2), 0x18);
    cfgw(&m, 3, 0, 4, 2, 0x400);
    assert_false(irq_gsi_level(m.irqs, 19));
    assert_false(m.pic[15]);
    assert_int_equal(cfgr(&m, 3, 0, 6, 2), 0x18);
    cfgw(&m, 3, 0, 4, 2, 0);
    assert_true(irq_gsi_level(m.irqs, 19));
    machine_save_load(&m);
    assert_true(irq_gsi_level(m.irqs, 19));
    assert_true(m.pic[15]);
    /* routing: elsewhere, forbidden, off */
    cfgw(&m, 31, 0, 0x63, 1, 0x05);
    assert_false(m.pic[15]);
    assert_true(m.pic[5]);
    machine_save_load(&m);
    assert_true(m.pic[5]);
    cfgw(&m, 31, 0, 0x60, 4, 0x08808080); /* IRQ 8 is not allowed */
    assert_false(m.pic[5]);
    assert_false(m.pic[8]);
    cfgw(&m, 31, 0, 0x63, 1, 0x0B);
    assert_true(m.pic[11]);
    cfgw(&m, 31, 0, 0x63, 1, 0x8B);
    assert_false(m.pic[11]);
    assert_int_equal(cfgr(&m, 31, 0, 0x63, 1), 0x8B);
    assert_true(irq_gsi_level(m.irqs, 19));
    pci_reset(m.pci);
    assert_false(irq_gsi_level(m.irqs, 19));
    assert_int_equal(cfgr(&m, 31, 0, 0x63, 1), 15);
    /* shared: high while one is */
    cfgw(&m, 31, 0, 0x68, 1, 15);
    pci_intx(toy_of[1]->f, true);
    pci_intx(toy_of[0]->f, true);
    pci_intx(toy_of[1]->f, false);
    assert_true(m.pic[15]);
    pci_intx(toy_of[0]->f, false);
    assert_false(m.pic[15]);
    machine_stop(&m);
}

static void test_no_lpc(void **state)
{
    struct machine m;

    (void)state;
    machine_start(&m, false);
    assert_int_equal(machine_add(&m, 1, 0, &toy_ops), 0);
    assert_int_equal(pci_assign(m.pci, NULL), 0);
    pci_intx(toy_of[0]->f, true);
    assert_true(irq_gsi_level(m.irqs, 17));
    assert_int_equal(cfgr(&m, 1, 0, 0x3C, 1), 0xFF);
    machine_stop(&m);
}

static void test_msi(void **state)
{
    struct machine m;
    struct pci_func *f;
    unsigned cap;

    (void)state;
    start(&m);
    f = toy_of[1]->f;
    cap = find_cap(&m, 3, 5, 0);
    assert_int_equal(cfgr(&m, 3, 0, cap + 2, 2), 0x0184); /* 4 vectors, 64-bit, masking */
    pci_msi_send(f, 0);
    assert_int_equal(m.messages, 0);
    pci_intx(f, true);
    cfgw(&m, 3, 0, 4, 2, 7);
    cfgw(&m, 3, 0, cap + 4, 4, 0xFEE01000);
    cfgw(&m, 3, 0, cap + 12, 2, 0x4043);
    cfgw(&m, 3, 0, cap + 2, 2, 0xFFFF); /* enable; asks for 128 vectors, has 4 */
    assert_int_equal(cfgr(&m, 3, 0, cap + 2, 2), 0x01F5);
    assert_false(irq_gsi_level(m.irqs, 19));
    pci_msi_send(f, 2);
    assert_int_equal(m.messages, 1);
    assert_int_equal(m.last.vector, 0x42);
    assert_int_equal(m.last.dest, 1);
    cfgw(&m, 3, 0, cap + 16, 4, 0xFFFFFFFF);
    assert_int_equal(cfgr(&m, 3, 0, cap + 16, 4), 0xF);
    pci_msi_send(f, 1);
    pci_msi_send(f, 3);
    assert_int_equal(m.messages, 1);
    assert_int_equal(cfgr(&m, 3, 0, cap + 20, 4), 0xA);
    machine_save_load(&m);
    assert_int_equal(cfgr(&m, 3, 0, cap + 20, 4), 0xA);
    assert_int_equal(m.messages, 1);
    cfgw(&m, 3, 0, cap + 16, 4, 0x8);
    assert_int_equal(m.messages, 2);
    assert_int_equal(m.last.vector, 0x41);
    assert_int_equal(cfgr(&m, 3, 0, cap + 20, 4), 0x8);
    cfgw(&m, 3, 0, cap + 2, 2, 0x0001); /* one vector: all share it */
    pci_msi_send(f, 3);
    assert_int_equal(m.messages, 3);
    assert_int_equal(m.last.vector, 0x43);
    cfgw(&m, 3, 0, 4, 2, 3); /* no bus master, no message */
    pci_msi_send(f, 0);
    assert_int_equal(m.messages, 3);
    cfgw(&m, 3, 0, cap + 2, 2, 0);
    assert_true(irq_gsi_level(m.irqs, 19));
    machine_stop(&m);
}

static void test_msix(void **state)
{
    struct machine m;
    struct pci_func *f;
    unsigned cap;
    uint32_t bar;

    (void)state;
    start(&m);
    f = toy_of[1]->f;
    cap = find_cap(&m, 3, 0x11, 0);
    assert_int_equal(cfgr(&m, 3, 0, cap + 2, 2), 2);
    assert_int_equal(cfgr(&m, 3, 0, cap + 4, 4), 4);
    assert_int_equal(cfgr(&m, 3, 0, cap + 8, 4), 0x804);
    bar = cfgr(&m, 3, 0, 0x20, 4);
    cfgw(&m, 3, 0, 4, 2, 7);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(mmio_in(&m, bar + 16 * i + 12, 4), 1);
        mmio_out(&m, bar + 16 * i, 8, 0xFEE00000 | i << 12);
        mmio_out(&m, bar + 16 * i + 8, 4, 0x30 + i);
    }
    pci_msix_send(f, 0);
    assert_int_equal(m.messages, 0);
    cfgw(&m, 3, 0, cap + 2, 2, 0xFFFF);
    assert_int_equal(cfgr(&m, 3, 0, cap + 2, 2), 0xC002);
    mmio_out(&m, bar + 16 + 12, 4, 0xFFFFFFFE); /* unmask 1 */
    assert_int_equal(mmio_in(&m, bar + 16 + 12, 4), 0);
    pci_msix_send(f, 1);
    pci_msix_send(f, 2);
    pci_msix_send(f, 3); /* there is none */
    assert_int_equal(m.messages, 0);
    assert_int_equal(mmio_in(&m, bar + 0x800, 8), 6);
    machine_save_load(&m);
    assert_int_equal(mmio_in(&m, bar + 0x800, 8), 6);
    cfgw(&m, 3, 0, cap + 2, 2, 0x8000); /* function mask off */
    assert_int_equal(m.messages, 1);
    assert_int_equal(m.last.vector, 0x31);
    assert_int_equal(m.last.dest, 1);
    mmio_out(&m, bar + 32 + 12, 4, 0);
    assert_int_equal(m.messages, 2);
    assert_int_equal(m.last.vector, 0x32);
    assert_int_equal(mmio_in(&m, bar + 0x800, 8), 0);
    /* the rest of the BAR is empty */
    mmio_out(&m, bar + 0x800, 8, ~0ull);
    mmio_out(&m, bar + 44, 8, ~0ull);
    assert_int_equal(mmio_in(&m, bar + 0x800, 8), 0);
    assert_int_equal(mmio_in(&m, bar + 48, 4), 0);
    assert_int_equal(mmio_in(&m, bar + 0xFFC, 4), 0);
    machine_stop(&m);
}

/* Saved state is as hostile as a guest: any byte may be wrong. */
static void test_load_hostile(void **state)
{
    struct machine m;
    struct state_buf b = {0};

    (void)state;
    start(&m);
    pci_save(m.pci, &b);
    for (size_t cut = 0; cut < b.len; cut += 97) {
        size_t pos = 0;
        uint8_t *copy = malloc(cut + 1);

        memcpy(copy, b.data, cut);
        assert_int_equal(pci_load(m.pci, copy, cut, &pos, NULL), -EINVAL);
        free(copy);
    }
    for (size_t at = 0; at < b.len; at++) {
        size_t pos = 0;

        b.data[at] ^= 0xFF;
        pci_load(m.pci, b.data, b.len, &pos, NULL);
        b.data[at] ^= 0xFF;
        assert_int_equal(cfgr(&m, 3, 0, 0, 4), 0x56781234);
    }
    free(b.data);
    machine_stop(&m);
}

/* Configuration space and BARs at random, with saving and loading. Replay: PCI_SEED=n. */
static void test_random(void **state)
{
    const char *given = getenv("PCI_SEED");
    unsigned seed = given != NULL ? (unsigned)strtoul(given, NULL, 0) : (unsigned)time(NULL);
    static const uint32_t values[] = {0, ~0u, 0xFEE00000, 0xC0000000, 0xE0000000, 0x2000, 0x407};
    uint64_t x = seed;
    struct machine m;

    (void)state;
    printf("PCI_SEED=%u\n", seed);
    start(&m);
    for (unsigned i = 0; i < 20000; i++) {
        static const unsigned slots[] = {0, 3, 3, 31};
        unsigned slot, reg, size;
        uint32_t value;

        x = x * 6364136223846793005ull + 1442695040888963407ull;
        slot = slots[x >> 33 & 3];
        reg = (unsigned)(x >> 35) & 0xFF;
        size = 1u << (x >> 43 & 3) % 3;
        value = (x >> 45 & 1) != 0 ? values[(x >> 46) % countof(values)] : (uint32_t)(x >> 32);
        cfgw(&m, slot, (unsigned)(x >> 63), reg, size, value);
        cfgr(&m, slot, (unsigned)(x >> 63), reg, size);
        if ((x >> 56 & 15) == 0) {
            pci_intx(toy_of[0]->f, (x >> 60 & 1) != 0);
            pci_msi_send(toy_of[0]->f, (unsigned)(x >> 57) & 31);
            pci_msix_send(toy_of[1]->f, (unsigned)(x >> 57) & 3);
        }
        if (i % 500 == 0)
            machine_save_load(&m);
        if (i % 3000 == 0)
            pci_reset(m.pci);
        assert_int_equal(cfgr(&m, 3, 0, 0, 4), 0x56781234);
        assert_int_equal(mmio_in(&m, ECAM, 4), 0x12751275);
    }
    machine_stop(&m);
}

/* One vCPU moves BARs while another uses them. */
struct mover {
    struct machine *m;
    unsigned reader;
};

static void *move(void *ctx)
{
    struct mover *v = ctx;
    uint64_t value;

    for (unsigned i = 0; i < 3000; i++) {
        uint32_t at = 0xD0000000u + (i % 7) * 0x1000;

        bus_write(v->m->bus, v->reader, BUS_MMIO, ECAM + (3 << 15) + 0x14, 4, at);
        bus_read(v->m->bus, v->reader, BUS_MMIO, at, 4, &value);
        bus_write(v->m->bus, v->reader, BUS_MMIO, ECAM + (31 << 15) + 0x63, 1, i & 0x8F);
        bus_write(v->m->bus, v->reader, BUS_MMIO, ECAM + (3 << 15) + 4, 2, i & 0x407);
    }
    return NULL;
}

static void test_threads(void **state)
{
    struct machine m;
    pthread_t other;
    struct mover a = {&m, 0}, b = {&m, 1};

    (void)state;
    start(&m);
    pci_intx(toy_of[1]->f, true);
    assert_int_equal(pthread_create(&other, NULL, move, &a), 0);
    move(&b);
    pthread_join(other, NULL);
    assert_int_equal(cfgr(&m, 3, 0, 0, 4), 0x56781234);
    machine_stop(&m);
}

/* A write that begins in the last entry and ends behind it changes nothing. */
static void test_msix_end(void **state)
{
    struct machine m;
    uint32_t bar;

    (void)state;
    start(&m);
    bar = cfgr(&m, 3, 0, 0x20, 4);
    cfgw(&m, 3, 0, 4, 2, 7);
    mmio_out(&m, bar + 44, 4, 0);
    assert_int_equal(mmio_in(&m, bar + 44, 4), 0);
    mmio_out(&m, bar + 44, 8, ~0ull);
    assert_int_equal(mmio_in(&m, bar + 44, 4), 0);
    machine_stop(&m);
}

/* Each vector has a mask bit of its own. */
static void test_msi_mask(void **state)
{
    struct machine m;
    struct pci_func *f;
    unsigned cap;

    (void)state;
    start(&m);
    f = toy_of[1]->f;
    cap = find_cap(&m, 3, 5, 0);
    cfgw(&m, 3, 0, 4, 2, 7);
    cfgw(&m, 3, 0, cap + 4, 4, 0xFEE01000);
    cfgw(&m, 3, 0, cap + 12, 2, 0x40);
    cfgw(&m, 3, 0, cap + 2, 2, 0x0021); /* four vectors */
    for (unsigned i = 0; i < 4; i++) {
        unsigned before = m.messages;

        cfgw(&m, 3, 0, cap + 16, 4, 1u << i);
        for (unsigned v = 0; v < 4; v++)
            pci_msi_send(f, v);
        assert_int_equal(m.messages - before, 3);
        assert_int_equal(cfgr(&m, 3, 0, cap + 20, 4), 1u << i);
        cfgw(&m, 3, 0, cap + 16, 4, 0);
        assert_int_equal(m.last.vector, 0x40 + i);
    }
    machine_stop(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_access),       cmocka_unit_test(test_bars),
        cmocka_unit_test(test_bars_absurd),  cmocka_unit_test(test_intx),
        cmocka_unit_test(test_bars_full),    cmocka_unit_test(test_no_lpc),
        cmocka_unit_test(test_msi),          cmocka_unit_test(test_msix),
        cmocka_unit_test(test_load_hostile), cmocka_unit_test(test_random),
        cmocka_unit_test(test_threads),      cmocka_unit_test(test_msix_end),
        cmocka_unit_test(test_msi_mask),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
