#include "boot/tables.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"

/*
 * The MP table: floating pointer, header, then entries in the order of their types. For guests
 * without ACPI. Intel MultiProcessor Specification 1.4: configuration table.
 */
#define ROOM (BOARD_SMBIOS_TABLE - BOARD_MP_TABLE)
#define FLOATING_SIZE 16u
#define HEADER_SIZE 44u
#define APIC_ID_ALL 0xFFu
#define IOAPIC_ID 0u
#define PIRQ_PIN 16u
#define MAX_CPUS 255u
#define LEVEL_LOW 0x000Fu

enum { ENTRY_CPU, ENTRY_BUS, ENTRY_IOAPIC, ENTRY_IO_INT, ENTRY_LOCAL_INT };
enum { INT_VECTORED = 0, INT_NMI = 1, INT_EXTINT = 3 };

struct mptable {
    uint8_t data[ROOM];
    size_t len;
    unsigned entries;
    bool full;
};

static uint8_t sum(const uint8_t *p, size_t len)
{
    uint8_t s = 0;

    while (len-- > 0)
        s = (uint8_t)(s + *p++);
    return s;
}

/* A zeroed entry; a scratch one once the table is full. */
static uint8_t *entry(struct mptable *t, uint8_t type)
{
    size_t size = type == ENTRY_CPU ? 20 : 8;
    uint8_t *p;

    if (t->len + size > sizeof(t->data)) {
        t->full = true;
        t->len = FLOATING_SIZE + HEADER_SIZE;
    }
    p = t->data + t->len;
    p[0] = type;
    t->len += size;
    t->entries++;
    return p;
}

static void add_cpus(const struct board *b, struct mptable *t)
{
    for (unsigned i = 0; i < b->cpus; i++) {
        uint8_t *p = entry(t, ENTRY_CPU);

        p[1] = (uint8_t)i;
        p[2] = 0x14;                         /* version of the local APIC */
        p[3] = (uint8_t)(1 | (i == 0) << 1); /* enabled, bootstrap */
        le32_store(p + 4, 0x6A5);            /* family, model, stepping; no one relies on it */
        le32_store(p + 8, 0x0383FBFF);       /* CPUID 1 EDX of any 64-bit CPU */
    }
}

static void add_bus(struct mptable *t, unsigned id, const char *type)
{
    uint8_t *p = entry(t, ENTRY_BUS);

    p[1] = (uint8_t)id;
    memcpy(p + 2, type, 6);
}

/* PCI buses keep their numbers; returns the ISA bus's, the lowest free one above. */
static unsigned add_buses(const struct board *b, struct mptable *t)
{
    bool used[256] = {true};
    unsigned isa = 1;

    for (unsigned i = 0; i < b->pci_count; i++)
        used[b->pci[i].bus] = true;
    for (unsigned i = 0; i < 256; i++) {
        if (used[i])
            add_bus(t, i, "PCI   ");
    }
    while (isa < 255 && used[isa])
        isa++;
    add_bus(t, isa, "ISA   ");
    return isa;
}

static void add_int(struct mptable *t, uint8_t entry_type, uint8_t type, unsigned flags,
                    unsigned bus, unsigned irq, unsigned apic, unsigned pin)
{
    uint8_t *p = entry(t, entry_type);

    p[1] = type;
    le16_store(p + 2, (uint16_t)flags);
    p[4] = (uint8_t)bus;
    p[5] = (uint8_t)irq;
    p[6] = (uint8_t)apic;
    p[7] = (uint8_t)pin;
}

static void add_isa_ints(struct mptable *t, unsigned isa)
{
    add_int(t, ENTRY_IO_INT, INT_EXTINT, 0, isa, 0, IOAPIC_ID, 0);
    for (unsigned irq = 0; irq < 16; irq++) {
        if (irq == 2) /* the second PIC's place; its pin belongs to the timer */
            continue;
        add_int(t, ENTRY_IO_INT, INT_VECTORED, irq == BOARD_SCI_IRQ ? LEVEL_LOW : 0, isa, irq,
                IOAPIC_ID, irq == 0 ? 2 : irq);
    }
}

/* Functions of one slot may share a pin, which is listed once. */
static bool listed_before(const struct board *b, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        if (b->pci[i].bus == b->pci[n].bus && b->pci[i].slot == b->pci[n].slot &&
            b->pci[i].pin == b->pci[n].pin)
            return true;
    }
    return false;
}

static void add_pci_ints(const struct board *b, struct mptable *t)
{
    for (unsigned i = 0; i < b->pci_count; i++) {
        const struct board_pci *f = &b->pci[i];

        if (f->pin == 0 || listed_before(b, i))
            continue;
        add_int(t, ENTRY_IO_INT, INT_VECTORED, LEVEL_LOW, f->bus,
                (unsigned)f->slot << 2 | (f->pin - 1u), IOAPIC_ID, PIRQ_PIN + f->pirq);
    }
}

static void add_header(struct mptable *t)
{
    uint8_t *p = t->data, *h = t->data + FLOATING_SIZE;
    size_t len = t->len - FLOATING_SIZE;

    memcpy(p, "_MP_", 4);
    le32_store(p + 4, (uint32_t)(BOARD_MP_TABLE + FLOATING_SIZE));
    p[8] = 1; /* length in 16-byte units */
    p[9] = 4; /* revision 1.4 */
    p[10] = (uint8_t)-sum(p, FLOATING_SIZE);

    memcpy(h, "PCMP", 4);
    le16_store(h + 4, (uint16_t)len);
    h[6] = 4;
    memcpy(h + 8, "BHYVE   ", 8);
    memcpy(h + 16, "HYPERVISOR  ", 12);
    le16_store(h + 34, (uint16_t)t->entries);
    le32_store(h + 36, (uint32_t)BOARD_LAPIC_BASE);
    h[7] = (uint8_t)-sum(h, len);
}

int mptable_write(const struct board *b, struct error *err)
{
    struct mptable *t;
    unsigned isa;
    uint8_t *p;
    int rc;

    if (b->cpus > MAX_CPUS)
        return error_set(err, -ENOSPC,
                         "an MP table describes at most %u vCPUs, not %u; leave it out (-Y) and "
                         "use ACPI (-A)",
                         MAX_CPUS, b->cpus);
    t = calloc(1, sizeof(*t));
    if (t == NULL)
        return error_set(err, -ENOMEM, "no memory for the MP table");
    t->len = FLOATING_SIZE + HEADER_SIZE;
    add_cpus(b, t);
    isa = add_buses(b, t);
    p = entry(t, ENTRY_IOAPIC);
    p[1] = IOAPIC_ID;
    p[2] = 0x11; /* version */
    p[3] = 1;    /* enabled */
    le32_store(p + 4, (uint32_t)BOARD_IOAPIC_BASE);
    add_isa_ints(t, isa);
    add_pci_ints(b, t);
    add_int(t, ENTRY_LOCAL_INT, INT_EXTINT, 0, isa, 0, APIC_ID_ALL, 0);
    add_int(t, ENTRY_LOCAL_INT, INT_NMI, 0, isa, 0, APIC_ID_ALL, 1);
    add_header(t);
    if (t->full)
        rc = error_set(err, -ENOSPC,
                       "the MP table does not fit its 4 KiB with %u vCPUs and %u PCI functions; "
                       "leave it out (-Y) and use ACPI (-A)",
                       b->cpus, b->pci_count);
    else
        rc = gmem_write(b->mem, BOARD_MP_TABLE, t->data, t->len);
    if (rc == -EFAULT)
        error_set(err, rc, "the VM has less than 1 MiB of memory, too little for an MP table");
    free(t);
    return rc;
}
