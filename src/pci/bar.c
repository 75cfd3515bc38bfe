/* Base address registers: what they claim on the bus, and where. */
#include <errno.h>
#include <string.h>

#include "base/endian.h"
#include "pci/internal.h"

/*
 * Below the board's fixed devices: a guest that puts a BAR over the IOAPIC or the serial port gets
 * the chip, not the BAR.
 */
#define BAR_PRIORITY (-2)

#define BAR_IO_MIN 4u
#define BAR_IO_MAX 0x1000u
#define BAR_MEM_MIN 16u
#define BAR_MEM32_MAX (1ull << 28)
#define BAR_MEM64_MAX (1ull << 40)
#define BAR_ROM_MIN 2048u
#define BAR_ROM_MAX (16 * MIB)

unsigned pci_bar_register(const struct pci_bar *b)
{
    return b->index == PCI_BARS ? PCI_ROM : PCI_BAR0 + 4u * b->index;
}

uint64_t pci_bar_addr(const struct pci_bar *b)
{
    const uint8_t *reg = b->f->cfg + pci_bar_register(b);
    uint64_t addr = le32_load(reg);

    if (b->type == PCI_BAR_MEM64)
        addr |= (uint64_t)le32_load(reg + 4) << 32;
    return addr & ~(b->size - 1);
}

void pci_bar_set_addr(struct pci_bar *b, uint64_t addr)
{
    uint8_t *reg = b->f->cfg + pci_bar_register(b);
    uint32_t kept = le32_load(reg) & (uint32_t)(b->size - 1);

    le32_store(reg, (uint32_t)addr | kept);
    if (b->type == PCI_BAR_MEM64)
        le32_store(reg + 4, (uint32_t)(addr >> 32));
}

static bool size_fits(enum pci_bar_type type, uint64_t size)
{
    if (size == 0 || (size & (size - 1)) != 0)
        return false;
    switch (type) {
    case PCI_BAR_NONE:
        return false;
    case PCI_BAR_IO:
        return size >= BAR_IO_MIN && size <= BAR_IO_MAX;
    case PCI_BAR_MEM32:
        return size >= BAR_MEM_MIN && size <= BAR_MEM32_MAX;
    case PCI_BAR_MEM64:
        return size >= BAR_MEM_MIN && size <= BAR_MEM64_MAX;
    case PCI_BAR_ROM:
        return size >= BAR_ROM_MIN && size <= BAR_ROM_MAX;
    }
    return false;
}

int pci_add_bar(struct pci_func *f, unsigned bar, enum pci_bar_type type, uint64_t size,
                struct error *err)
{
    bool rom = type == PCI_BAR_ROM;
    struct pci_bar *b;
    unsigned reg;

    if (rom)
        bar = PCI_BARS;
    if (bar > PCI_BARS || (bar == PCI_BARS) != rom ||
        (type == PCI_BAR_MEM64 && bar + 1 >= PCI_BARS) || !size_fits(type, size))
        return error_set(err, -EINVAL, "%s: BAR %u of %#llx bytes is not possible", f->env->name,
                         bar, (unsigned long long)size);
    b = &f->bars[bar];
    if (b->type != PCI_BAR_NONE || b->upper ||
        (type == PCI_BAR_MEM64 && (b[1].type != PCI_BAR_NONE || b[1].upper)))
        return error_set(err, -EEXIST, "%s: BAR %u is used twice", f->env->name, bar);
    b->f = f;
    b->index = (uint8_t)bar;
    b->type = (uint8_t)type;
    b->size = size;
    reg = pci_bar_register(b);
    le32_store(f->wmask + reg, ~(uint32_t)(size - 1));
    if (type == PCI_BAR_IO) {
        f->cfg[reg] = 0x01;
    } else if (type == PCI_BAR_MEM64) {
        f->cfg[reg] = 0x04;
        le32_store(f->wmask + reg, (uint32_t) ~(size - 1));
        le32_store(f->wmask + reg + 4, (uint32_t)(~(size - 1) >> 32));
        b[1].upper = true;
    } else if (rom) {
        f->wmask[reg] |= 0x01; /* its own decode enable */
    }
    return 0;
}

/* ---- on the bus ---- */

static uint64_t bar_region_read(void *ctx, uint64_t offset, unsigned size)
{
    struct pci_bar *b = ctx;
    struct pci_func *f = b->f;

    if (b->msix)
        return pci_msix_bar_read(f, offset, size);
    if (f->ops->bar_read == NULL)
        return ~0ull;
    return f->ops->bar_read(f->impl, b->index, offset, size);
}

static void bar_region_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_bar *b = ctx;
    struct pci_func *f = b->f;

    if (b->msix)
        pci_msix_bar_write(f, offset, size, value);
    else if (f->ops->bar_write != NULL && b->type != PCI_BAR_ROM)
        f->ops->bar_write(f->impl, b->index, offset, size, value);
}

static const struct bus_ops bar_bus_ops = {
    .read = bar_region_read,
    .write = bar_region_write,
};

static enum bus_space bar_space(const struct pci_bar *b)
{
    return b->type == PCI_BAR_IO ? BUS_PIO : BUS_MMIO;
}

/*
 * Whether the registers ask for the BAR to be decoded at an address that can be. All ones is a
 * guest that sizes the BAR without switching decoding off first; zero is one that never set it.
 */
static bool bar_wanted(const struct pci_bar *b, uint64_t *addr)
{
    const struct pci_func *f = b->f;
    uint64_t limit, mask;

    *addr = pci_bar_addr(b);
    if ((pci_command(f) & (b->type == PCI_BAR_IO ? PCI_CMD_IO : PCI_CMD_MEM)) == 0)
        return false;
    if (b->type == PCI_BAR_ROM && (f->cfg[PCI_ROM] & 1) == 0)
        return false;
    mask = ~(b->size - 1);
    if (b->type != PCI_BAR_MEM64)
        mask &= 0xFFFFFFFFu;
    limit = b->type == PCI_BAR_IO ? 0x10000 : ~0ull;
    return *addr != 0 && *addr != mask && *addr <= limit - b->size;
}

static void bar_unmap(struct pci_bar *b)
{
    if (!b->mapped)
        return;
    b->mapped = false;
    pci_bells_place(b);
    bus_unmap(b->f->env->bus, bar_space(b), b->mapped_at, b);
}

static void bar_update(struct pci_bar *b)
{
    struct pci_func *f = b->f;
    struct bus_region r = {.len = b->size,
                           .ops = &bar_bus_ops,
                           .ctx = b,
                           .lock = &f->env->lock,
                           .name = f->env->name,
                           .priority = BAR_PRIORITY};
    struct error err = {0};
    bool wanted = bar_wanted(b, &r.base);

    if (b->mapped && wanted && b->mapped_at == r.base)
        return;
    bar_unmap(b);
    if (!wanted) {
        b->refused = false;
        return;
    }
    if (bus_map(f->env->bus, bar_space(b), &r, &err) != 0) {
        if (!b->refused || b->refused_at != r.base)
            log_guest(f->env, "BAR %u cannot be at %#llx: %s", b->index, (unsigned long long)r.base,
                      err.text);
        b->refused = true;
        b->refused_at = r.base;
        return;
    }
    b->refused = false;
    b->mapped = true;
    b->mapped_at = r.base;
    pci_bells_place(b);
    log_trace(f->env->log, "pci", "%s: BAR %u at %#llx", f->env->name, b->index,
              (unsigned long long)r.base);
}

void pci_bars_update(struct pci_func *f)
{
    /* Those that leave go first: two BARs of one device may change places. */
    for (unsigned i = 0; i < PCI_BAR_SLOTS; i++) {
        struct pci_bar *b = &f->bars[i];
        uint64_t addr;

        if (b->mapped && (!bar_wanted(b, &addr) || addr != b->mapped_at))
            bar_unmap(b);
    }
    for (unsigned i = 0; i < PCI_BAR_SLOTS; i++)
        if (f->bars[i].type != PCI_BAR_NONE && !f->bars[i].held)
            bar_update(&f->bars[i]);
}

void pci_bars_unmap(struct pci_func *f)
{
    for (unsigned i = 0; i < PCI_BAR_SLOTS; i++)
        bar_unmap(&f->bars[i]);
}

bool pci_bars_refused(const struct pci_func *f)
{
    for (unsigned i = 0; i < PCI_BAR_SLOTS; i++)
        if (f->bars[i].refused)
            return true;
    return false;
}
