#include "boot/dsdt.h"

#include <stdio.h>

#include "base/bits.h"

#define PIRQS 8u
#define PIRQ_ISA_MASK 0xDEF8u /* the ISA interrupts that a PIRQ may use */
#define PIRQ_OFF 0x80u
#define PIRQ_GSI 16u
#define SLOTS 32u
#define SLP_TYP_S5 5u

/* As pci/ wires it: neighbours get different lines. */
static unsigned pirq_of(unsigned slot, unsigned pin)
{
    return (slot + pin - 1) & (PIRQS - 1);
}

static void link_name(char out[5], unsigned pirq)
{
    snprintf(out, 5, "LNK%c", (char)('A' + pirq));
}

static void bridge_name(char out[5], unsigned bus)
{
    if (bus == 0)
        snprintf(out, 5, "PCI0");
    else
        snprintf(out, 5, "PC%02X", bus & 0xFF);
}

/* Where ISA devices hang: the bridge if there is one. */
static void isa_path(const struct board *b, char out[20])
{
    char bridge[5];

    bridge_name(bridge, b->lpc_bus);
    if (b->has_lpc)
        snprintf(out, 20, "\\_SB.%s.LPC", bridge);
    else
        snprintf(out, 20, "\\_SB");
}

/* Package (4) { slot and any function, pin - 1, source, index } for every slot and pin. */
static void write_routes(struct aml *a, bool apic)
{
    size_t all = aml_package(a, SLOTS * 4);

    for (unsigned slot = 0; slot < SLOTS; slot++) {
        for (unsigned pin = 1; pin <= 4; pin++) {
            size_t one = aml_package(a, 4);
            char link[5];

            aml_int(a, (uint64_t)slot << 16 | 0xFFFF);
            aml_int(a, pin - 1);
            if (apic) {
                aml_int(a, 0);
                aml_int(a, PIRQ_GSI + pirq_of(slot, pin));
            } else {
                link_name(link, pirq_of(slot, pin));
                aml_path(a, link);
                aml_int(a, 0);
            }
            aml_end(a, one);
        }
    }
    aml_end(a, all);
}

/* PICM is 1 once the system has said through \_PIC that it uses the IOAPIC. */
static void write_prt(const struct board *b, struct aml *a)
{
    size_t prt = aml_method(a, "_PRT", 0), apic;

    if (b->has_lpc) {
        apic = aml_if(a);
        aml_path(a, "PICM");
        aml_op(a, AML_RETURN);
        write_routes(a, true);
        aml_end(a, apic);
        aml_op(a, AML_RETURN);
        write_routes(a, false);
    } else { /* without the routing registers only the IOAPIC's wires exist */
        aml_op(a, AML_RETURN);
        write_routes(a, true);
    }
    aml_end(a, prt);
}

/* Root buses: 0 and every bus with a function. They share the windows in equal parts. */
struct roots {
    uint8_t bus[256];
    unsigned n;
};

static void find_roots(const struct board *b, struct roots *r)
{
    bool used[256] = {true};

    for (unsigned i = 0; i < b->pci_count; i++)
        used[b->pci[i].bus] = true;
    r->n = 0;
    for (unsigned bus = 0; bus < countof(used); bus++) {
        if (used[bus])
            r->bus[r->n++] = (uint8_t)bus;
    }
}

/* The i-th of n parts of [base, end): its first and last address. False if they would be empty. */
static bool part(uint64_t base, uint64_t end, unsigned i, unsigned n, uint64_t align,
                 uint64_t *first, uint64_t *last)
{
    uint64_t size = align_down((end - base) / n, align);

    if (size == 0)
        return false;
    *first = base + i * size;
    *last = i == n - 1 ? end - 1 : *first + size - 1;
    return true;
}

static void write_windows(const struct board *b, const struct roots *r, unsigned i, struct aml *a)
{
    uint16_t last_bus = i + 1 < r->n ? (uint16_t)(r->bus[i + 1] - 1) : board_last_bus(b);
    uint64_t first, last;
    size_t crs;

    aml_name(a, "_CRS");
    crs = aml_resources(a);
    aml_bus_window(a, r->bus[i], last_bus);
    if (i == 0) {
        aml_io(a, 0xCF8, 8);
        aml_io_window(a, 0, 0xCF7);
        aml_io_window(a, 0xD00, BOARD_PCI_IO_BASE - 1);
        aml_memory32_window(a, 0xA0000, 0xBFFFF);
    }
    if (part(board_pci_io_base(b), 0x10000, i, r->n, 0x100, &first, &last))
        aml_io_window(a, (uint16_t)first, (uint16_t)last);
    if (part(BOARD_PCI32_BASE, BOARD_PCI32_END, i, r->n, MIB, &first, &last))
        aml_memory32_window(a, (uint32_t)first, (uint32_t)last);
    if (b->pci64_base != 0 &&
        part(b->pci64_base, b->pci64_base + BOARD_PCI64_SIZE, i, r->n, MIB, &first, &last))
        aml_memory64_window(a, first, last);
    aml_resources_end(a, crs);
}

static void write_lpc(const struct board *b, struct aml *a)
{
    size_t dev = aml_device(a, "LPC"), field;
    char reg[5] = "PIRA";

    aml_name_int(a, "_ADR", (uint64_t)b->lpc_slot << 16 | b->lpc_func);
    aml_region(a, "PRR", AML_PCI_CONFIG, 0x60, 12);
    field = aml_field(a, "PRR");
    for (unsigned i = 0; i < PIRQS; i++) {
        if (i == 4)
            aml_field_gap(a, 32); /* PIRQE's register is at 0x68 */
        reg[3] = (char)('A' + i);
        aml_field_name(a, reg, 8);
    }
    aml_end(a, field);
    aml_end(a, dev);
}

static void write_bridge(const struct board *b, const struct roots *r, unsigned i, struct aml *a)
{
    unsigned bus = r->bus[i];
    char name[5];
    size_t dev;

    bridge_name(name, bus);
    dev = aml_device(a, name);
    aml_name_eisaid(a, "_HID", "PNP0A08");
    aml_name_eisaid(a, "_CID", "PNP0A03");
    aml_name_int(a, "_UID", bus);
    aml_name_int(a, "_BBN", bus);
    aml_name_int(a, "_SEG", 0);
    write_windows(b, r, i, a);
    write_prt(b, a);
    if (b->has_lpc && b->lpc_bus == bus)
        write_lpc(b, a);
    aml_end(a, dev);
}

/* If (And (reg, 0x80)): not routed. */
static size_t if_off(struct aml *a, const char *reg)
{
    size_t test = aml_if(a);

    aml_op(a, AML_AND);
    aml_path(a, reg);
    aml_int(a, PIRQ_OFF);
    aml_byte(a, 0);
    return test;
}

static void write_link_methods(struct aml *a, const char *reg)
{
    size_t m, test;

    m = aml_method(a, "_STA", 0);
    test = if_off(a, reg);
    aml_op(a, AML_RETURN);
    aml_int(a, 0x09); /* present, working, not enabled */
    aml_end(a, test);
    aml_op(a, AML_RETURN);
    aml_int(a, 0x0B);
    aml_end(a, m);

    m = aml_method(a, "_DIS", 0);
    aml_op(a, AML_STORE);
    aml_int(a, PIRQ_OFF);
    aml_path(a, reg);
    aml_end(a, m);

    m = aml_method(a, "_CRS", 0);
    aml_op(a, AML_WORD_FIELD);
    aml_path(a, "CRSB");
    aml_int(a, 1); /* the mask follows the descriptor's tag */
    aml_path(a, "CMSK");
    test = if_off(a, reg);
    aml_op(a, AML_STORE);
    aml_int(a, 0);
    aml_path(a, "CMSK");
    aml_end(a, test);
    test = aml_else(a);
    aml_op(a, AML_AND);
    aml_path(a, reg);
    aml_int(a, 0x0F);
    aml_byte(a, AML_LOCAL(0));
    aml_op(a, AML_SHIFT_LEFT);
    aml_int(a, 1);
    aml_byte(a, AML_LOCAL(0));
    aml_path(a, "CMSK");
    aml_end(a, test);
    aml_op(a, AML_RETURN);
    aml_path(a, "CRSB");
    aml_end(a, m);

    m = aml_method(a, "_SRS", 1);
    aml_op(a, AML_WORD_FIELD);
    aml_byte(a, AML_ARG(0));
    aml_int(a, 1);
    aml_path(a, "SMSK");
    aml_op(a, AML_FIND_RIGHT_BIT);
    aml_path(a, "SMSK");
    aml_byte(a, AML_LOCAL(0));
    test = aml_if(a);
    aml_byte(a, AML_LOCAL(0));
    aml_op(a, AML_DECREMENT);
    aml_byte(a, AML_LOCAL(0));
    aml_op(a, AML_STORE);
    aml_byte(a, AML_LOCAL(0));
    aml_path(a, reg);
    aml_end(a, test);
    test = aml_else(a);
    aml_op(a, AML_STORE);
    aml_int(a, PIRQ_OFF);
    aml_path(a, reg);
    aml_end(a, test);
    aml_end(a, m);
}

static void write_links(const struct board *b, struct aml *a)
{
    char isa[20], reg[32], name[5];

    isa_path(b, isa);
    for (unsigned i = 0; i < PIRQS; i++) {
        size_t dev, res;

        link_name(name, i);
        snprintf(reg, sizeof(reg), "%s.PIR%c", isa, (char)('A' + i));
        dev = aml_device(a, name);
        aml_name_eisaid(a, "_HID", "PNP0C0F");
        aml_name_int(a, "_UID", i + 1);
        aml_name(a, "_PRS");
        res = aml_resources(a);
        aml_irq_level_low(a, PIRQ_ISA_MASK);
        aml_resources_end(a, res);
        aml_name(a, "CRSB");
        res = aml_resources(a);
        aml_irq_level_low(a, 0);
        aml_resources_end(a, res);
        write_link_methods(a, reg);
        aml_end(a, dev);
    }
}

/* A device at up to two port ranges and one ISA interrupt (irq < 0: none). */
struct isa_device {
    const char *name, *hid;
    int uid; /* < 0: none */
    struct {
        uint16_t port;
        uint8_t len;
    } io[2];
    int irq;
};

static void write_isa(struct aml *a, const struct isa_device *d)
{
    size_t dev = aml_device(a, d->name), res;

    if (d->hid[0] == 'P')
        aml_name_eisaid(a, "_HID", d->hid);
    else
        aml_name_string(a, "_HID", d->hid);
    if (d->uid >= 0)
        aml_name_int(a, "_UID", (uint64_t)d->uid);
    aml_name(a, "_CRS");
    res = aml_resources(a);
    for (unsigned i = 0; i < countof(d->io); i++) {
        if (d->io[i].len != 0)
            aml_io(a, d->io[i].port, d->io[i].len);
    }
    if (d->irq >= 0)
        aml_irq(a, (uint16_t)(1u << d->irq));
    aml_resources_end(a, res);
    aml_end(a, dev);
}

static const struct isa_device isa_fixed[] = {
    {"PIC", "PNP0000", -1, {{0x20, 2}, {0xA0, 2}}, 2},
    {"TIMR", "PNP0100", -1, {{0x40, 4}}, 0},
    {"RTC", "PNP0B00", -1, {{0x70, 2}}, 8},
};

static const struct isa_device isa_com[4] = {
    {"COM1", "PNP0501", 1, {{0x3F8, 8}}, 4},
    {"COM2", "PNP0501", 2, {{0x2F8, 8}}, 3},
    {"COM3", "PNP0501", 3, {{0x3E8, 8}}, 4},
    {"COM4", "PNP0501", 4, {{0x2E8, 8}}, 3},
};

static const struct isa_device isa_ps2[] = {
    {"KBD", "PNP0303", -1, {{0x60, 1}, {0x64, 1}}, 1},
    {"MOU", "PNP0F13", -1, {{0}}, 12},
};

static const struct isa_device isa_pvpanic = {
    "PEVT", "QEMU0001", -1, {{BOARD_PVPANIC_PORT, 1}}, -1};

/* Ports that belong to the board and to no device with a driver. */
static void write_board_ports(struct aml *a)
{
    static const struct {
        uint16_t port;
        uint8_t len;
    } ports[] = {
        {0x61, 1},  {0x80, 1},           {0x84, 1},           {0x92, 1},         {BOARD_SMI_CMD, 2},
        {0x4D0, 2}, {BOARD_PM1A_EVT, 4}, {BOARD_PM1A_CNT, 2}, {BOARD_PM_TMR, 4},
    };
    size_t dev = aml_device(a, "SYSR"), res;

    aml_name_eisaid(a, "_HID", "PNP0C02");
    aml_name_int(a, "_UID", 1);
    aml_name(a, "_CRS");
    res = aml_resources(a);
    for (unsigned i = 0; i < countof(ports); i++)
        aml_io(a, ports[i].port, ports[i].len);
    aml_resources_end(a, res);
    aml_end(a, dev);
}

static void write_isa_devices(const struct board *b, struct aml *a)
{
    char isa[20];
    size_t scope;

    isa_path(b, isa);
    scope = aml_scope(a, isa);
    write_board_ports(a);
    for (unsigned i = 0; i < countof(isa_fixed); i++)
        write_isa(a, &isa_fixed[i]);
    for (unsigned i = 0; i < countof(isa_com); i++) {
        if (b->com[i])
            write_isa(a, &isa_com[i]);
    }
    for (unsigned i = 0; b->ps2 && i < countof(isa_ps2); i++)
        write_isa(a, &isa_ps2[i]);
    if (b->pvpanic)
        write_isa(a, &isa_pvpanic);
    aml_end(a, scope);
}

/* A device at one memory range. */
static void write_mmio(struct aml *a, const char *name, const char *hid, unsigned uid,
                       uint64_t base, uint64_t size)
{
    size_t dev = aml_device(a, name), res;

    aml_name_eisaid(a, "_HID", hid);
    aml_name_int(a, "_UID", uid);
    aml_name(a, "_CRS");
    res = aml_resources(a);
    aml_memory32(a, (uint32_t)base, (uint32_t)size);
    aml_resources_end(a, res);
    aml_end(a, dev);
}

static void write_cpus(const struct board *b, struct aml *a)
{
    for (unsigned i = 0; i < b->cpus; i++) {
        char name[12];
        size_t dev;

        snprintf(name, sizeof(name), "C%03X", i & 0xFFF);
        dev = aml_device(a, name);
        aml_name_string(a, "_HID", "ACPI0007");
        aml_name_int(a, "_UID", i);
        aml_end(a, dev);
    }
}

void dsdt_write(const struct board *b, struct aml *a)
{
    struct roots roots;
    size_t m;

    find_roots(b, &roots);
    aml_name(a, "\\_S5");
    m = aml_package(a, 4);
    aml_int(a, SLP_TYP_S5);
    aml_int(a, SLP_TYP_S5);
    aml_int(a, 0);
    aml_int(a, 0);
    aml_end(a, m);
    aml_name_int(a, "\\PICM", 0);
    m = aml_method(a, "\\_PIC", 1);
    aml_op(a, AML_STORE);
    aml_byte(a, AML_ARG(0));
    aml_path(a, "\\PICM");
    aml_end(a, m);

    m = aml_scope(a, "\\_SB");
    write_cpus(b, a);
    for (unsigned i = 0; i < roots.n; i++)
        write_bridge(b, &roots, i, a);
    if (b->has_lpc)
        write_links(b, a);
    /* Linux uses the MCFG's window only if a motherboard device claims it. */
    write_mmio(a, "MCFG", "PNP0C02", 0, BOARD_ECAM_BASE, BOARD_ECAM_SIZE);
    if (b->hpet)
        write_mmio(a, "HPET", "PNP0103", 0, BOARD_HPET_BASE, 0x400);
    aml_end(a, m);
    write_isa_devices(b, a);
}
