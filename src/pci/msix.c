/* MSI-X: a table of messages and a pending-bit array in a BAR of their own. PCI 3.0, 6.8.2. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "bus/irqfd.h"
#include "pci/internal.h"

#define MSIX_CONTROL 0x02u
#define MSIX_TABLE 0x04u
#define MSIX_PBA 0x08u
#define MSIX_LEN 0x0Cu

#define MSIX_CTL_ENABLE 0x8000u
#define MSIX_CTL_MASK 0x4000u
#define MSIX_MAX 2048u

/* A table entry: address, data, vector control (bit 0: masked). */
#define ENTRY_SIZE 16u
#define ENTRY_DATA 8u
#define ENTRY_CONTROL 12u

static uint16_t msix_control(const struct pci_func *f)
{
    return le16_load(f->cfg + f->msix.cap + MSIX_CONTROL);
}

static bool masked(const struct pci_func *f, unsigned vector)
{
    return (msix_control(f) & MSIX_CTL_MASK) != 0 ||
           (f->msix.table[vector * ENTRY_SIZE + ENTRY_CONTROL] & 1) != 0;
}

/* The address and data of an entry. */
static uint64_t entry_addr(const struct pci_msix *x, unsigned vector)
{
    return le64_load(x->table + vector * ENTRY_SIZE) & ~3ull;
}

static uint32_t entry_data(const struct pci_msix *x, unsigned vector)
{
    return le32_load(x->table + vector * ENTRY_SIZE + ENTRY_DATA);
}

/* ---- by descriptor ---- */

/* What a vector's descriptor sends: nothing where the device itself could not. */
static void tell(struct pci_func *f, unsigned vector)
{
    struct pci_msix *x = &f->msix;
    struct irq_message msg;
    bool on = pci_msix_enabled(f) && !masked(f, vector) && pci_bus_master(f) &&
              msi_message(entry_addr(x, vector), entry_data(x, vector), &msg) == NULL;

    if (x->fd[vector] == NULL && on)
        x->fd[vector] = irq_fd_create(f->env->irqs);
    if (x->fd[vector] != NULL)
        irq_fd_message(x->fd[vector], on ? &msg : NULL);
}

void pci_msix_tell(struct pci_func *f)
{
    for (unsigned i = 0; f->msix.fd != NULL && i < f->msix.vectors; i++)
        tell(f, i);
}

static void emit(struct pci_func *f, unsigned vector)
{
    const struct pci_msix *x = &f->msix;
    uint64_t addr = entry_addr(x, vector);
    uint32_t data = entry_data(x, vector);
    struct irq_message msg;

    if (x->fd != NULL && x->fd[vector] != NULL && msi_message(addr, data, &msg) == NULL)
        irq_fd_send(x->fd[vector], &msg);
    else
        msi_send(f->env->irqs, addr, data);
}

void pci_msix_reset(struct pci_func *f)
{
    struct pci_msix *x = &f->msix;

    if (x->vectors == 0)
        return;
    memset(x->table, 0, x->vectors * ENTRY_SIZE);
    memset(x->pba, 0, (x->vectors + 63) / 64 * 8);
    for (unsigned i = 0; i < x->vectors; i++)
        x->table[i * ENTRY_SIZE + ENTRY_CONTROL] = 1;
    pci_msix_tell(f);
}

void pci_msix_free(struct pci_func *f)
{
    struct pci_msix *x = &f->msix;

    for (unsigned i = 0; x->fd != NULL && i < x->vectors; i++)
        irq_fd_free(x->fd[i]);
    free(x->fd);
    free(x->table);
    free(x->pba);
}

int pci_add_msix(struct pci_func *f, unsigned vectors, unsigned bar, struct error *err)
{
    struct pci_msix *x = &f->msix;
    uint32_t half = 2048;
    int rc;

    if (vectors == 0 || vectors > MSIX_MAX)
        return error_set(err, -EINVAL, "%s: %u MSI-X vectors: must be 1 to %u", f->env->name,
                         vectors, MSIX_MAX);
    if (x->vectors != 0)
        return error_set(err, -EEXIST, "%s: two MSI-X capabilities", f->env->name);
    while (half < vectors * ENTRY_SIZE)
        half *= 2;
    rc = pci_add_bar(f, bar, PCI_BAR_MEM32, 2ull * half, err);
    if (rc != 0)
        return rc;
    f->bars[bar].msix = true;
    x->cap = pci_add_cap(f, PCI_CAP_MSIX, MSIX_LEN);
    if (x->cap == 0)
        return error_set(err, -ENOSPC, "%s: no room for the MSI-X capability", f->env->name);
    x->table = calloc(vectors, ENTRY_SIZE);
    x->pba = calloc((vectors + 63) / 64, 8);
    if (irq_fds_allowed(f->env->irqs))
        x->fd = calloc(vectors, sizeof(struct irq_fd *));
    if (x->table == NULL || x->pba == NULL || (x->fd == NULL && irq_fds_allowed(f->env->irqs)))
        return error_set(err, -ENOMEM, "no memory for the MSI-X table of %s", f->env->name);
    x->vectors = vectors;
    x->pba_offset = half;
    le16_store(f->cfg + x->cap + MSIX_CONTROL, (uint16_t)(vectors - 1));
    le32_store(f->cfg + x->cap + MSIX_TABLE, bar);
    le32_store(f->cfg + x->cap + MSIX_PBA, half | bar);
    le16_store(f->wmask + x->cap + MSIX_CONTROL, MSIX_CTL_ENABLE | MSIX_CTL_MASK);
    pci_msix_reset(f);
    return 0;
}

bool pci_msix_enabled(const struct pci_func *f)
{
    return f->msix.vectors != 0 && (msix_control(f) & MSIX_CTL_ENABLE) != 0;
}

/* Sends or leaves pending, as the masks say. */
static void msix_try(struct pci_func *f, unsigned vector)
{
    struct pci_msix *x = &f->msix;
    uint64_t bit = 1ull << (vector & 63);

    if (masked(f, vector)) {
        x->pba[vector / 64] |= bit;
        return;
    }
    x->pba[vector / 64] &= ~bit;
    if (pci_bus_master(f))
        emit(f, vector);
}

void pci_msix_send(struct pci_func *f, unsigned vector)
{
    if (pci_msix_enabled(f) && vector < f->msix.vectors)
        msix_try(f, vector);
}

static void msix_retry(struct pci_func *f, unsigned first, unsigned last)
{
    if (!pci_msix_enabled(f))
        return;
    for (unsigned i = first; i <= last; i++)
        if ((f->msix.pba[i / 64] >> (i & 63) & 1) != 0)
            msix_try(f, i);
}

void pci_msix_written(struct pci_func *f)
{
    pci_msix_tell(f);
    if (f->msix.vectors != 0)
        msix_retry(f, 0, f->msix.vectors - 1);
}

uint64_t pci_msix_bar_read(struct pci_func *f, uint64_t offset, unsigned size)
{
    const struct pci_msix *x = &f->msix;
    uint64_t value = 0;
    size_t pba_len = (x->vectors + 63) / 64 * 8;

    for (unsigned i = 0; i < size; i++) {
        uint64_t at = offset + i;
        uint8_t byte = 0;

        if (at < x->vectors * ENTRY_SIZE)
            byte = x->table[at];
        else if (at >= x->pba_offset && at - x->pba_offset < pba_len)
            byte = (uint8_t)(x->pba[(at - x->pba_offset) / 8] >> 8 * ((at - x->pba_offset) & 7));
        value |= (uint64_t)byte << 8 * i;
    }
    return value;
}

void pci_msix_bar_write(struct pci_func *f, uint64_t offset, unsigned size, uint64_t value)
{
    struct pci_msix *x = &f->msix;
    uint64_t end = offset + size;

    if (end > (uint64_t)x->vectors * ENTRY_SIZE) {
        log_guest(f->env, "write past the MSI-X table at +%#llx", (unsigned long long)offset);
        return;
    }
    for (unsigned i = 0; i < size; i++)
        x->table[offset + i] = (uint8_t)(value >> 8 * i);
    for (uint64_t v = offset / ENTRY_SIZE; v <= (end - 1) / ENTRY_SIZE; v++) {
        /* Only the mask bit of vector control exists. */
        le32_store(x->table + v * ENTRY_SIZE + ENTRY_CONTROL,
                   x->table[v * ENTRY_SIZE + ENTRY_CONTROL] & 1u);
        if (x->fd != NULL)
            tell(f, (unsigned)v);
        msix_retry(f, (unsigned)v, (unsigned)v);
    }
}
