/* The PCI object: buses and functions, the two ways to configuration space, state. */
#include "pci/pci.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "pci/internal.h"

#define PORT_ADDRESS 0xCF8u
#define PORT_DATA 0xCFCu
#define ADDRESS_ENABLE 0x80000000u

/*
 * Above BARs, which must not shadow it, and below the board's chips: 0xCF9 inside the address
 * register's four ports is the reset register's. A doubleword at 0xCF8 begins in our range and so
 * comes to us whole.
 */
#define SMALL_BAR (32 * MIB)
#define CONFIG_PRIORITY (-1)

/* ---- functions ---- */

static struct pci_func *func_at(const struct pci *p, unsigned bus, unsigned devfn)
{
    return p->buses[bus] != NULL ? p->buses[bus][devfn] : NULL;
}

void pci_set_ids(struct pci_func *f, uint16_t vendor, uint16_t device, uint8_t revision,
                 uint32_t class_code, uint16_t subsys_vendor, uint16_t subsys)
{
    le16_store(f->cfg + PCI_VENDOR, vendor);
    le16_store(f->cfg + PCI_DEVICE, device);
    le32_store(f->cfg + PCI_REVISION, class_code << 8 | revision);
    le16_store(f->cfg + PCI_SUBSYS_VENDOR, subsys_vendor);
    le16_store(f->cfg + PCI_SUBSYS, subsys);
}

unsigned pci_add_cap(struct pci_func *f, uint8_t id, unsigned len)
{
    unsigned at = f->cap_next;

    if (len < 2 || len > 256 || at + len > 256)
        return 0;
    f->cfg[at] = id;
    f->cfg[at + 1] = 0;
    f->cfg[f->cap_last != 0 ? f->cap_last + 1 : PCI_CAP_POINTER] = (uint8_t)at;
    f->cfg[PCI_STATUS] |= PCI_STATUS_CAPS;
    f->cap_last = at;
    f->cap_next = (unsigned)align_up(at + len, 4);
    return at;
}

void pci_cfg_writable(struct pci_func *f, unsigned offset, unsigned len)
{
    if (offset < PCI_CFG_SIZE && len <= PCI_CFG_SIZE - offset)
        memset(f->wmask + offset, 0xFF, len);
}

uint8_t *pci_cfg(struct pci_func *f)
{
    return f->cfg;
}

bool pci_bus_master(const struct pci_func *f)
{
    return (pci_command(f) & PCI_CMD_MASTER) != 0;
}

/* ---- access; the PCI object's lock is held ---- */

static bool touches(unsigned offset, unsigned size, unsigned reg, unsigned len)
{
    return offset < reg + len && reg < offset + size;
}

/* Not beyond the function's 4096 bytes. */
static uint32_t func_read(struct pci_func *f, unsigned offset, unsigned size)
{
    uint32_t value = 0;

    pthread_mutex_lock(&f->env->lock);
    if (f->ops->cfg_read != NULL)
        f->ops->cfg_read(f->impl, offset, size);
    for (unsigned i = 0; i < size; i++)
        value |= (uint32_t)f->cfg[offset + i] << 8 * i;
    pthread_mutex_unlock(&f->env->lock);
    return value;
}

/* A BAR has gone from where another one, which the bus refused, would like to be. */
static void retry_refused(struct pci *p)
{
    for (unsigned i = 0; i < p->func_count; i++) {
        struct pci_func *f = p->funcs[i];

        pthread_mutex_lock(&f->env->lock);
        if (pci_bars_refused(f))
            pci_bars_update(f);
        pthread_mutex_unlock(&f->env->lock);
    }
}

static void func_write(struct pci_func *f, unsigned offset, unsigned size, uint32_t value)
{
    bool decode = touches(offset, size, PCI_COMMAND, 2) || touches(offset, size, PCI_BAR0, 24) ||
                  touches(offset, size, PCI_ROM, 4);

    pthread_mutex_lock(&f->env->lock);
    for (unsigned i = 0; i < size; i++) {
        uint8_t mask = f->wmask[offset + i];
        uint8_t byte = (uint8_t)(value >> 8 * i);

        f->cfg[offset + i] = (uint8_t)((f->cfg[offset + i] & ~mask) | (byte & mask));
    }
    if (decode)
        pci_bars_update(f);
    /* Enabling MSI or MSI-X takes the line down, disabling brings it back. */
    pci_intx_update(f);
    if (f->msi_cap != 0 && touches(offset, size, f->msi_cap, 0x18))
        pci_msi_written(f);
    if (f->msix.cap != 0 && touches(offset, size, f->msix.cap, 4))
        pci_msix_written(f);
    if (touches(offset, size, PCI_COMMAND, 2))
        pci_msix_tell(f);
    if (offset + size > PCI_HEADER_END && f->ops->cfg_written != NULL)
        f->ops->cfg_written(f->impl, offset, size);
    pthread_mutex_unlock(&f->env->lock);
    if (decode)
        retry_refused(f->pci);
}

/* devfn: slot << 3 | function. Absent functions read all ones, as a master abort does. */
static uint32_t config_read(struct pci *p, unsigned bus, unsigned devfn, unsigned offset,
                            unsigned size)
{
    struct pci_func *f = func_at(p, bus, devfn);

    if (f == NULL || offset + size > PCI_CFG_SIZE)
        return ~0u;
    return func_read(f, offset, size);
}

static void config_write(struct pci *p, unsigned bus, unsigned devfn, unsigned offset,
                         unsigned size, uint32_t value)
{
    struct pci_func *f = func_at(p, bus, devfn);

    if (f != NULL && offset + size <= PCI_CFG_SIZE)
        func_write(f, offset, size, value);
}

/* 0xCF8: only a whole doubleword is the address register; the rest passes by. */
static uint64_t address_read(void *ctx, uint64_t offset, unsigned size)
{
    const struct pci *p = ctx;

    return offset == 0 && size == 4 ? p->address : ~0ull;
}

static void address_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci *p = ctx;

    if (offset == 0 && size == 4)
        p->address = (uint32_t)value & 0x80FFFFFCu;
}

static uint64_t data_read(void *ctx, uint64_t offset, unsigned size)
{
    struct pci *p = ctx;

    if ((p->address & ADDRESS_ENABLE) == 0)
        return ~0ull;
    return config_read(p, p->address >> 16 & 0xFF, p->address >> 8 & 0xFF,
                       (p->address & 0xFC) + (unsigned)offset, size);
}

static void data_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci *p = ctx;

    if ((p->address & ADDRESS_ENABLE) != 0)
        config_write(p, p->address >> 16 & 0xFF, p->address >> 8 & 0xFF,
                     (p->address & 0xFC) + (unsigned)offset, size, (uint32_t)value);
}

static unsigned piece_of(uint64_t offset, unsigned size)
{
    unsigned n = 4 - (unsigned)(offset & 3);

    return n < size ? n : size;
}

/* ECAM: bus 27:20, device and function 19:12, register 11:0. Cut at doublewords. */
static uint64_t ecam_read(void *ctx, uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    for (unsigned done = 0, n; done < size; done += n) {
        uint64_t at = offset + done;

        n = piece_of(at, size - done);
        value |= (config_read(ctx, at >> 20 & 0xFF, at >> 12 & 0xFF, at & 0xFFF, n) & bytes_mask(n))
                 << 8 * done;
    }
    return value;
}

static void ecam_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    for (unsigned done = 0, n; done < size; done += n) {
        uint64_t at = offset + done;

        n = piece_of(at, size - done);
        config_write(ctx, at >> 20 & 0xFF, at >> 12 & 0xFF, at & 0xFFF, n,
                     (uint32_t)(value >> 8 * done));
    }
}

static const struct bus_ops address_ops = {.read = address_read, .write = address_write};
static const struct bus_ops data_ops = {.read = data_read, .write = data_write};
static const struct bus_ops ecam_ops = {.read = ecam_read, .write = ecam_write};

/* ---- the object ---- */

int pci_create(const struct pci_config *cfg, struct pci **out, struct error *err)
{
    struct pci *p = calloc(1, sizeof(*p));
    struct bus_region r = {.base = PORT_ADDRESS,
                           .len = 4,
                           .ops = &address_ops,
                           .ctx = p,
                           .lock = &cfg->env->lock,
                           .name = cfg->env->name,
                           .priority = CONFIG_PRIORITY};
    int rc;

    if (p == NULL)
        return error_set(err, -ENOMEM, "no memory for PCI");
    p->config = *cfg;
    p->env = cfg->env;
    pthread_mutex_init(&p->route_lock, NULL);
    rc = bus_map(p->env->bus, BUS_PIO, &r, err);
    if (rc != 0)
        goto fail;
    r.base = PORT_DATA;
    r.ops = &data_ops;
    rc = bus_map(p->env->bus, BUS_PIO, &r, err);
    if (rc != 0) {
        bus_unmap(p->env->bus, BUS_PIO, PORT_ADDRESS, p);
        goto fail;
    }
    p->ports_mapped = true;
    if (cfg->ecam) {
        r.base = cfg->ecam_base;
        r.len = cfg->ecam_size;
        r.ops = &ecam_ops;
        rc = bus_map(p->env->bus, BUS_MMIO, &r, err);
        if (rc != 0)
            goto fail;
        p->ecam_mapped = true;
    }
    *out = p;
    return 0;
fail:
    pci_destroy(p);
    return rc;
}

static void func_free(struct pci_func *f)
{
    pci_bars_unmap(f);
    pthread_mutex_lock(&f->env->lock);
    pci_bells_free(f);
    if (f->impl != NULL && f->ops->destroy != NULL)
        f->ops->destroy(f->impl);
    pthread_mutex_unlock(&f->env->lock);
    irq_line_free(f->line);
    pci_msix_free(f);
    free(f);
}

void pci_destroy(struct pci *p)
{
    if (p == NULL)
        return;
    if (p->ports_mapped) {
        bus_unmap(p->env->bus, BUS_PIO, PORT_ADDRESS, p);
        bus_unmap(p->env->bus, BUS_PIO, PORT_DATA, p);
    }
    if (p->ecam_mapped)
        bus_unmap(p->env->bus, BUS_MMIO, p->config.ecam_base, p);
    for (unsigned i = 0; i < p->func_count; i++)
        func_free(p->funcs[i]);
    for (unsigned i = 0; i < countof(p->buses); i++)
        free(p->buses[i]);
    for (unsigned i = 0; i < PCI_PIRQS; i++)
        irq_line_free(p->pirqs[i].line);
    pthread_mutex_destroy(&p->route_lock);
    free(p);
}

int pci_claim_lpc(struct pci *p, struct pci_func *f, struct error *err)
{
    if (f != NULL && p->lpc != NULL)
        return error_set(err, -EEXIST, "there can be only one lpc device; slot %u has it",
                         p->lpc->slot);
    p->lpc = f;
    return 0;
}

/* What every function lets the guest write in the common header. */
static void header_init(struct pci_func *f)
{
    le16_store(f->wmask + PCI_COMMAND, 0x0547); /* I/O, memory, master, parity, SERR, INTx off */
    f->wmask[PCI_CACHE_LINE] = 0xFF;
    f->wmask[PCI_LATENCY] = 0xFF;
    f->wmask[PCI_INT_LINE] = 0xFF;
    f->cap_next = PCI_HEADER_END;
}

/* Keeps funcs ascending, and marks slots of more than one function. */
static void func_insert(struct pci *p, struct pci_func *f)
{
    unsigned devfn = (unsigned)f->slot << 3 | f->func;
    unsigned key = (unsigned)f->bus << 8 | devfn;
    unsigned at = p->func_count;
    struct pci_func **row = p->buses[f->bus];
    bool several = false;

    for (; at > 0 && ((unsigned)p->funcs[at - 1]->bus << 8 | (unsigned)p->funcs[at - 1]->slot << 3 |
                      p->funcs[at - 1]->func) > key;
         at--)
        p->funcs[at] = p->funcs[at - 1];
    p->funcs[at] = f;
    p->func_count++;
    row[devfn] = f;
    for (unsigned i = 1; i < 8; i++)
        several |= row[(devfn & ~7u) + i] != NULL;
    for (unsigned i = 0; several && i < 8; i++)
        if (row[(devfn & ~7u) + i] != NULL)
            row[(devfn & ~7u) + i]->cfg[PCI_HEADER_TYPE] |= PCI_MULTIFUNCTION;
}

int pci_add(struct pci *p, unsigned bus, unsigned slot, unsigned func, const struct pci_ops *ops,
            struct dev_env *env, const struct config *node, struct error *err)
{
    struct options opts = {.node = node, .table = ops->options, .count = ops->option_count};
    struct pci_func *f;
    int rc;

    if (bus > 255 || slot > 31 || func > 7)
        return error_set(err, -EINVAL,
                         "PCI slot %u:%u:%u: buses are 0-255, slots 0-31, functions 0-7", bus, slot,
                         func);
    if (p->func_count == PCI_MAX_FUNCS)
        return error_set(err, -ENOSPC, "more than %u PCI functions", PCI_MAX_FUNCS);
    if (p->buses[bus] == NULL)
        p->buses[bus] = calloc(256, sizeof(struct pci_func *));
    f = calloc(1, sizeof(*f));
    if (p->buses[bus] == NULL || f == NULL) {
        free(f);
        return error_set(err, -ENOMEM, "no memory for PCI device %s", ops->name);
    }
    if (p->buses[bus][slot << 3 | func] != NULL) {
        free(f);
        return error_set(err, -EEXIST, "PCI slot %u:%u:%u already has a device", bus, slot, func);
    }
    f->pci = p;
    f->env = env;
    f->ops = ops;
    f->bus = (uint8_t)bus;
    f->slot = (uint8_t)slot;
    f->func = (uint8_t)func;
    header_init(f);
    rc = ops->create(env, f, &opts, &f->impl, err);
    if (rc == 0 && f->pin != 0 && f->line == NULL)
        rc = error_set(err, -ENOMEM, "no memory for the interrupt line of %s", env->name);
    if (rc != 0) {
        func_free(f);
        return rc;
    }
    func_insert(p, f);
    memcpy(f->cfg_reset, f->cfg, sizeof(f->cfg));
    return 0;
}

int pci_options_parse(const struct pci_ops *ops, struct config *node, const char *text,
                      const char *what, struct error *err)
{
    if (ops->parse != NULL)
        return ops->parse(node, text, what, err);
    return options_parse(node, ops->options, ops->option_count, text, what, err);
}

int pci_options_check(const struct pci_ops *ops, const struct config *node, const char *what,
                      struct error *err)
{
    static const char *const not_options[] = {"device", NULL};

    if (ops->check != NULL)
        return ops->check(node, what, err);
    return options_check(node, ops->options, ops->option_count, not_options, what, err);
}

void pci_refresh(struct pci *p)
{
    for (unsigned i = 0; i < p->func_count; i++) {
        struct pci_func *f = p->funcs[i];

        if (f->ops->refresh == NULL)
            continue;
        pthread_mutex_lock(&f->env->lock);
        f->ops->refresh(f->impl);
        pthread_mutex_unlock(&f->env->lock);
    }
}

int pci_insert(struct pci *p, unsigned bus, unsigned slot, unsigned func, unsigned unit,
               const char *path, bool force, struct error *err)
{
    struct pci_func *f =
        bus < 256 && slot < 32 && func < 8 ? func_at(p, bus, slot << 3 | func) : NULL;
    int rc;

    if (f == NULL || f->ops->insert == NULL)
        return error_set(err, -ENODEV, "PCI slot %u:%u:%u has no drive", bus, slot, func);
    pthread_mutex_lock(&f->env->lock);
    rc = f->ops->insert(f->impl, unit, path, force, err);
    pthread_mutex_unlock(&f->env->lock);
    return rc;
}

/* ---- addresses ---- */

struct window {
    uint64_t next, end;
    const char *name;
};

static int assign_bar(struct window *w, struct pci_bar *b, struct error *err)
{
    /* A page each at least: an engine may map a BAR of memory directly. */
    uint64_t align = b->type == PCI_BAR_IO ? b->size : max_u64(b->size, 4096);
    uint64_t at = align_up(w->next, align);

    if (at < w->next || at > w->end || w->end - at < b->size)
        return error_set(err, -ENOSPC, "%s: no room for BAR %u (%llu bytes) in the %s window",
                         b->f->env->name, b->index, (unsigned long long)b->size, w->name);
    w->next = at + b->size;
    pci_bar_set_addr(b, at);
    return 0;
}

/* Large ones first, so that alignment wastes nothing. */
/* 32-bit kernels reach nothing above 4 GiB: small 64-bit BARs lie below, if that leaves room. */
static bool small_fit(const struct pci *p)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < p->func_count; i++) {
        for (unsigned n = 0; n < PCI_BAR_SLOTS; n++) {
            const struct pci_bar *b = &p->funcs[i]->bars[n];

            if (b->type == PCI_BAR_MEM64 && b->size <= SMALL_BAR)
                sum += b->size;
        }
    }
    return sum <= (p->config.mem32_end - p->config.mem32_base) / 2;
}

enum place { PLACE_IO, PLACE_LOW, PLACE_HIGH, PLACE_NONE };

static enum place bar_place(const struct pci *p, const struct pci_bar *b, bool small_low)
{
    switch (b->type) {
    case PCI_BAR_IO:
        return PLACE_IO;
    case PCI_BAR_MEM32:
    case PCI_BAR_ROM:
        return PLACE_LOW;
    case PCI_BAR_MEM64:
        return p->config.mem64_size == 0 || (small_low && b->size <= SMALL_BAR) ? PLACE_LOW
                                                                                : PLACE_HIGH;
    case PCI_BAR_NONE:
        break;
    }
    return PLACE_NONE;
}

static int assign_window(struct pci *p, struct window *w, enum place place, bool small_low,
                         struct error *err)
{
    for (unsigned shift = 40; shift >= 2; shift--) {
        for (unsigned i = 0; i < p->func_count; i++) {
            for (unsigned n = 0; n < PCI_BAR_SLOTS; n++) {
                struct pci_bar *b = &p->funcs[i]->bars[n];
                int rc;

                if (bar_place(p, b, small_low) != place || b->size != 1ull << shift)
                    continue;
                rc = assign_bar(w, b, err);
                if (rc != 0)
                    return rc;
            }
        }
    }
    return 0;
}

int pci_assign(struct pci *p, struct error *err)
{
    const struct pci_config *c = &p->config;
    struct window io = {c->io_base, 0x10000, "I/O"};
    struct window low = {c->mem32_base, c->mem32_end, "32-bit memory"};
    struct window high = {c->mem64_base, c->mem64_base + c->mem64_size, "64-bit memory"};
    bool small_low = small_fit(p);
    int rc = assign_window(p, &io, PLACE_IO, small_low, err);

    if (rc == 0)
        rc = assign_window(p, &low, PLACE_LOW, small_low, err);
    if (rc == 0)
        rc = assign_window(p, &high, PLACE_HIGH, small_low, err);
    if (rc != 0)
        return rc;
    for (unsigned i = 0; i < p->func_count; i++) {
        struct pci_func *f = p->funcs[i];
        uint8_t cmd = 0;

        if (f->func != 0 && func_at(p, f->bus, (unsigned)f->slot << 3) == NULL)
            log_warn(p->env->log, "%s: guests will not find it, slot %u:%u has no function 0",
                     f->env->name, f->bus, f->slot);
        for (unsigned n = 0; n < PCI_BARS; n++)
            if (f->bars[n].type != PCI_BAR_NONE)
                cmd |= f->bars[n].type == PCI_BAR_IO ? PCI_CMD_IO : PCI_CMD_MEM;
        if (f->pin != 0)
            f->cfg[PCI_INT_LINE] =
                p->pirqs[f->pirq].irq != 0 ? (uint8_t)p->pirqs[f->pirq].irq : 0xFF;
        pthread_mutex_lock(&f->env->lock);
        f->cfg[PCI_COMMAND] |= cmd;
        memcpy(f->cfg_reset, f->cfg, sizeof(f->cfg));
        pci_bars_update(f);
        pthread_mutex_unlock(&f->env->lock);
    }
    return 0;
}

/*
 * Back to what pci_assign left: after a reset no firmware of ours runs again to give addresses, and
 * firmware of the guest's own does not mind them.
 */
void pci_reset(struct pci *p)
{
    pthread_mutex_lock(&p->env->lock);
    p->address = 0;
    for (unsigned i = 0; i < p->func_count; i++) {
        struct pci_func *f = p->funcs[i];

        pthread_mutex_lock(&f->env->lock);
        f->intx_level = false;
        memcpy(f->cfg, f->cfg_reset, sizeof(f->cfg));
        pci_msix_reset(f);
        pci_intx_update(f);
        if (f->ops->reset != NULL)
            f->ops->reset(f->impl);
        pci_bars_unmap(f);
        pthread_mutex_unlock(&f->env->lock);
    }
    for (unsigned i = 0; i < p->func_count; i++) {
        pthread_mutex_lock(&p->funcs[i]->env->lock);
        pci_bars_update(p->funcs[i]);
        pthread_mutex_unlock(&p->funcs[i]->env->lock);
    }
    pthread_mutex_unlock(&p->env->lock);
}

bool pci_info_at(struct pci *p, unsigned n, struct pci_info *out)
{
    const struct pci_func *f;

    if (n >= p->func_count)
        return false;
    f = p->funcs[n];
    *out = (struct pci_info){.bus = f->bus,
                             .slot = f->slot,
                             .func = f->func,
                             .pin = f->pin,
                             .pirq = f->pirq,
                             .name = f->ops->name};
    return true;
}
