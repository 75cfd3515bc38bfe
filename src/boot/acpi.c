#include "boot/tables.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/endian.h"
#include "boot/aml.h"
#include "boot/dsdt.h"

#define ACPI_END MIB
#define HEADER_SIZE 36u
#define RSDP_SIZE 36u
#define FACS_SIZE 64u
#define FADT_SIZE 268u /* revision 5 */
#define TABLE_ALIGN 64u
#define MAX_TABLES 4u /* in RSDT and XSDT */

/*
 * All tables in one buffer that is copied to BOARD_ACPI_TABLE. Fields are written by their offsets.
 * ACPI: system description tables.
 */
struct acpi {
    const struct board *b;
    uint8_t *data;
    size_t len, cap;
    bool full;
    uint64_t listed[MAX_TABLES]; /* addresses for RSDT and XSDT */
    unsigned tables;
};

static uint8_t checksum(const uint8_t *p, size_t len)
{
    uint8_t sum = 0;

    while (len-- > 0)
        sum = (uint8_t)(sum + *p++);
    return (uint8_t)-sum;
}

/* Room for size zeroed bytes, aligned; NULL when full. */
static uint8_t *reserve(struct acpi *t, size_t size)
{
    size_t at = align_up(t->len, TABLE_ALIGN);
    uint8_t *p = t->data + at;

    if (t->full || at > t->cap || size > t->cap - at) {
        t->full = true;
        return NULL;
    }
    t->len = at + size;
    return p;
}

static uint64_t address(const struct acpi *t, const uint8_t *p)
{
    return BOARD_ACPI_TABLE + (uint64_t)(p - t->data);
}

static void header(uint8_t *p, const char *sig, uint8_t revision, const char *oem_table,
                   size_t size)
{
    memcpy(p, sig, 4);
    le32_store(p + 4, (uint32_t)size);
    p[8] = revision;
    memcpy(p + 10, "BHYVE ", 6);
    memcpy(p + 16, oem_table, 8);
    le32_store(p + 24, 1);
    memcpy(p + 28, "XHYV", 4);
    le32_store(p + 32, 1);
    p[9] = checksum(p, size);
}

static void list(struct acpi *t, const uint8_t *p)
{
    t->listed[t->tables++] = address(t, p);
}

static uint64_t write_facs(struct acpi *t)
{
    uint8_t *p = reserve(t, FACS_SIZE);

    if (p == NULL)
        return 0;
    memcpy(p, "FACS", 4);
    le32_store(p + 4, FACS_SIZE);
    p[32] = 2; /* version */
    return address(t, p);
}

/* A generic address in I/O space; access size 1 to 3: byte, word, dword. */
static void io_address(uint8_t *p, uint8_t bits, uint8_t access, uint64_t port)
{
    p[0] = 1;
    p[1] = bits;
    p[2] = 0;
    p[3] = access;
    le64_store(p + 4, port);
}

static bool has_vga(const struct board *b)
{
    for (unsigned i = 0; i < b->pci_count; i++) {
        if (b->pci[i].name != NULL && strcmp(b->pci[i].name, "fbuf") == 0)
            return true;
    }
    return false;
}

#define FADT_WBINVD (1u << 0)
#define FADT_PROC_C1 (1u << 2)
#define FADT_SLEEP_BUTTON_METHOD (1u << 5) /* no fixed sleep button; the power button is fixed */
#define FADT_RTC_NOT_FIXED (1u << 6)
#define FADT_TIMER_32 (1u << 8)
#define FADT_RESET (1u << 10)
#define FADT_APIC_PHYSICAL (1u << 19)
#define IAPC_LEGACY 0x01u
#define IAPC_8042 0x02u
#define IAPC_NO_VGA 0x04u

static void write_fadt(struct acpi *t, uint64_t facs, uint64_t dsdt)
{
    const struct board *b = t->b;
    uint8_t *p = reserve(t, FADT_SIZE);

    if (p == NULL)
        return;
    le32_store(p + 36, (uint32_t)facs);
    le32_store(p + 40, (uint32_t)dsdt);
    le16_store(p + 46, BOARD_SCI_IRQ);
    le32_store(p + 48, BOARD_SMI_CMD);
    p[52] = BOARD_ACPI_ENABLE;
    p[53] = BOARD_ACPI_DISABLE;
    le32_store(p + 56, BOARD_PM1A_EVT);
    le32_store(p + 64, BOARD_PM1A_CNT);
    le32_store(p + 76, BOARD_PM_TMR);
    p[88] = 4; /* PM1 event, control, timer: lengths */
    p[89] = 2;
    p[91] = 4;
    le16_store(p + 96, 101); /* C2 and C3: latencies that say "not supported" */
    le16_store(p + 98, 1001);
    p[108] = 0x32; /* RTC's century */
    le16_store(p + 109,
               (uint16_t)(IAPC_LEGACY | (b->ps2 ? IAPC_8042 : 0) | (has_vga(b) ? 0 : IAPC_NO_VGA)));
    le32_store(p + 112, FADT_WBINVD | FADT_PROC_C1 | FADT_SLEEP_BUTTON_METHOD | FADT_RTC_NOT_FIXED |
                            FADT_TIMER_32 | FADT_RESET | FADT_APIC_PHYSICAL);
    io_address(p + 116, 8, 1, BOARD_RESET_PORT);
    p[128] = 6; /* written there to reset */
    le64_store(p + 132, facs);
    le64_store(p + 140, dsdt);
    io_address(p + 148, 32, 2, BOARD_PM1A_EVT);
    io_address(p + 172, 16, 2, BOARD_PM1A_CNT);
    io_address(p + 208, 32, 3, BOARD_PM_TMR);
    header(p, "FACP", 5, "BVFACP  ", FADT_SIZE);
    list(t, p);
}

#define MADT_XAPIC_MAX 255u /* APIC ids below this fit a LAPIC entry */
#define MADT_LEVEL_LOW 0x000Fu
#define MADT_EDGE_HIGH 0x0005u

static uint8_t *madt_override(uint8_t *p, uint8_t irq, uint32_t gsi, uint16_t flags)
{
    p[0] = 2;
    p[1] = 10;
    p[3] = irq;
    le32_store(p + 4, gsi);
    le16_store(p + 8, flags);
    return p + 10;
}

static uint8_t *madt_cpu(uint8_t *p, unsigned id)
{
    if (id < MADT_XAPIC_MAX) {
        p[0] = 0;
        p[1] = 8;
        p[2] = (uint8_t)id;
        p[3] = (uint8_t)id;
        le32_store(p + 4, 1); /* enabled */
        return p + 8;
    }
    p[0] = 9;
    p[1] = 16;
    le32_store(p + 4, id);
    le32_store(p + 8, 1);
    le32_store(p + 12, id);
    return p + 16;
}

/* NMI is wired to LINT1 of every CPU; ids of all ones mean all. */
static uint8_t *madt_nmi(uint8_t *p, bool x2apic)
{
    if (!x2apic) {
        p[0] = 4;
        p[1] = 6;
        p[2] = 0xFF;
        le16_store(p + 3, MADT_EDGE_HIGH);
        p[5] = 1;
        return p + 6;
    }
    p[0] = 0x0A;
    p[1] = 12;
    le16_store(p + 2, MADT_EDGE_HIGH);
    le32_store(p + 4, UINT32_MAX);
    p[8] = 1;
    return p + 12;
}

static void write_madt(struct acpi *t)
{
    unsigned cpus = t->b->cpus;
    unsigned small = cpus < MADT_XAPIC_MAX ? cpus : MADT_XAPIC_MAX;
    bool x2 = cpus > small;
    size_t size =
        44 + 8 * (size_t)small + 16 * (size_t)(cpus - small) + 12 + 2 * 10 + 6 + (x2 ? 12 : 0);
    uint8_t *p = reserve(t, size), *e;

    if (p == NULL)
        return;
    le32_store(p + 36, (uint32_t)BOARD_LAPIC_BASE);
    le32_store(p + 40, 1); /* there are 8259s as well */
    e = p + 44;
    for (unsigned i = 0; i < cpus; i++)
        e = madt_cpu(e, i);
    e[0] = 1; /* IOAPIC, id 0, GSI 0 */
    e[1] = 12;
    le32_store(e + 4, (uint32_t)BOARD_IOAPIC_BASE);
    e += 12;
    e = madt_override(e, 0, 2, 0);
    e = madt_override(e, BOARD_SCI_IRQ, BOARD_SCI_IRQ, MADT_LEVEL_LOW);
    e = madt_nmi(e, false);
    if (x2)
        madt_nmi(e, true);
    header(p, "APIC", 4, "BVMADT  ", size);
    list(t, p);
}

static void write_hpet(struct acpi *t)
{
    uint8_t *p = reserve(t, 56);

    if (p == NULL)
        return;
    le32_store(p + 36, 0x80860701); /* low half of its capabilities: 8 timers, revision 1 */
    p[41] = 64;                     /* memory space, 64 bits */
    le64_store(p + 44, BOARD_HPET_BASE);
    header(p, "HPET", 1, "BVHPET  ", 56);
    list(t, p);
}

static void write_mcfg(struct acpi *t)
{
    uint8_t *p = reserve(t, 60);

    if (p == NULL)
        return;
    le64_store(p + 44, BOARD_ECAM_BASE);
    /* Linux asks each slot of every bus that stands here, 32 slow questions for an empty one. */
    p[55] = board_last_bus(t->b);
    header(p, "MCFG", 1, "BVMCFG  ", 60);
    list(t, p);
}

static uint64_t write_dsdt(struct acpi *t)
{
    uint8_t *p = reserve(t, HEADER_SIZE);
    struct aml a;

    if (p == NULL)
        return 0;
    a = (struct aml){.data = t->data + t->len, .cap = t->cap - t->len};
    dsdt_write(t->b, &a);
    if (a.full) {
        t->full = true;
        return 0;
    }
    t->len += a.len;
    header(p, "DSDT", 2, "BVDSDT  ", HEADER_SIZE + a.len);
    return address(t, p);
}

/* RSDT and XSDT lie at fixed places, so they are filled in last. */
static void write_roots(struct acpi *t, uint8_t *rsdp, uint8_t *rsdt, uint8_t *xsdt)
{
    for (unsigned i = 0; i < t->tables; i++) {
        le32_store(rsdt + HEADER_SIZE + 4 * (size_t)i, (uint32_t)t->listed[i]);
        le64_store(xsdt + HEADER_SIZE + 8 * (size_t)i, t->listed[i]);
    }
    header(rsdt, "RSDT", 1, "BVRSDT  ", HEADER_SIZE + 4 * (size_t)t->tables);
    header(xsdt, "XSDT", 1, "BVXSDT  ", HEADER_SIZE + 8 * (size_t)t->tables);
    memcpy(rsdp, "RSD PTR ", 8);
    memcpy(rsdp + 9, "BHYVE ", 6);
    rsdp[15] = 2; /* revision */
    le32_store(rsdp + 16, (uint32_t)address(t, rsdt));
    le32_store(rsdp + 20, RSDP_SIZE);
    le64_store(rsdp + 24, address(t, xsdt));
    rsdp[8] = checksum(rsdp, 20);
    rsdp[32] = checksum(rsdp, RSDP_SIZE);
}

int acpi_write(const struct board *b, uint64_t *rsdp, struct error *err)
{
    struct acpi t = {.b = b, .cap = ACPI_END - BOARD_ACPI_TABLE};
    uint8_t *ptr, *rsdt, *xsdt;
    uint64_t facs, dsdt;
    int rc;

    t.data = calloc(1, t.cap);
    if (t.data == NULL)
        return error_set(err, -ENOMEM, "no memory for the ACPI tables");
    ptr = reserve(&t, RSDP_SIZE);
    rsdt = reserve(&t, HEADER_SIZE + 4 * MAX_TABLES);
    xsdt = reserve(&t, HEADER_SIZE + 8 * MAX_TABLES);
    facs = write_facs(&t);
    dsdt = write_dsdt(&t);
    write_fadt(&t, facs, dsdt);
    write_madt(&t);
    if (b->hpet)
        write_hpet(&t);
    write_mcfg(&t);
    if (t.full) {
        rc = error_set(err, -ENOSPC,
                       "the ACPI tables do not fit below 1 MiB; use fewer vCPUs or PCI buses");
    } else {
        write_roots(&t, ptr, rsdt, xsdt);
        rc = gmem_write(b->mem, BOARD_ACPI_TABLE, t.data, t.len);
        if (rc != 0)
            error_set(err, rc, "the VM has less than 1 MiB of memory, too little for ACPI tables");
        else if (rsdp != NULL)
            *rsdp = address(&t, ptr);
    }
    free(t.data);
    return rc;
}
