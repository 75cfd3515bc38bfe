/* Message-signalled interrupts: 64-bit address, mask for each vector. PCI 3.0, 6.8.1. */
#include <errno.h>

#include "base/endian.h"
#include "pci/internal.h"

/* Offsets in the capability, 64-bit with masking. */
#define MSI_CONTROL 0x02u
#define MSI_ADDR 0x04u
#define MSI_DATA 0x0Cu
#define MSI_MASK 0x10u
#define MSI_PENDING 0x14u
#define MSI_LEN 0x18u

#define MSI_CTL_ENABLE 0x0001u
#define MSI_CTL_64 0x0080u
#define MSI_CTL_MASKING 0x0100u

int pci_add_msi(struct pci_func *f, unsigned vectors, struct error *err)
{
    uint8_t *cap;

    if (vectors == 0 || vectors > 32 || (vectors & (vectors - 1)) != 0)
        return error_set(err, -EINVAL, "%s: %u MSI vectors: must be 1, 2, 4, 8, 16 or 32",
                         f->env->name, vectors);
    if (f->msi_cap != 0)
        return error_set(err, -EEXIST, "%s: two MSI capabilities", f->env->name);
    f->msi_cap = pci_add_cap(f, PCI_CAP_MSI, MSI_LEN);
    if (f->msi_cap == 0)
        return error_set(err, -ENOSPC, "%s: no room for the MSI capability", f->env->name);
    f->msi_vectors = vectors;
    cap = f->cfg + f->msi_cap;
    le16_store(cap + MSI_CONTROL,
               (uint16_t)(MSI_CTL_64 | MSI_CTL_MASKING | (unsigned)__builtin_ctz(vectors) << 1));
    cap = f->wmask + f->msi_cap;
    le16_store(cap + MSI_CONTROL, 0x0071);
    le32_store(cap + MSI_ADDR, 0xFFFFFFFC);
    le32_store(cap + MSI_ADDR + 4, 0xFFFFFFFF);
    le16_store(cap + MSI_DATA, 0xFFFF);
    le32_store(cap + MSI_MASK, (uint32_t)bytes_mask(4) >> (32 - vectors));
    return 0;
}

bool pci_msi_enabled(const struct pci_func *f)
{
    return f->msi_cap != 0 && (f->cfg[f->msi_cap + MSI_CONTROL] & MSI_CTL_ENABLE) != 0;
}

/* How many the guest has granted; it may ask for more than there are. */
static unsigned msi_granted(const struct pci_func *f)
{
    unsigned n = 1u << ((f->cfg[f->msi_cap + MSI_CONTROL] >> 4) & 7);

    return n < f->msi_vectors ? n : f->msi_vectors;
}

/* A message is a memory write: without bus mastering the function cannot do it. */
static void msi_emit(struct pci_func *f, unsigned vector)
{
    const uint8_t *cap = f->cfg + f->msi_cap;
    uint32_t data = le16_load(cap + MSI_DATA);

    if (!pci_bus_master(f))
        return;
    data = (data & ~(msi_granted(f) - 1)) | vector;
    msi_send(f->env->irqs, le64_load(cap + MSI_ADDR), data);
}

void pci_msi_send(struct pci_func *f, unsigned vector)
{
    uint8_t *cap = f->cfg + f->msi_cap;

    if (!pci_msi_enabled(f))
        return;
    vector &= msi_granted(f) - 1; /* fewer granted than asked for: they are shared */
    if ((le32_load(cap + MSI_MASK) >> vector & 1) != 0)
        le32_store(cap + MSI_PENDING, le32_load(cap + MSI_PENDING) | 1u << vector);
    else
        msi_emit(f, vector);
}

/* Sends what waited and is unmasked now. */
void pci_msi_written(struct pci_func *f)
{
    uint8_t *cap = f->cfg + f->msi_cap;
    uint32_t ready;

    if (f->msi_cap == 0 || !pci_msi_enabled(f))
        return;
    ready = le32_load(cap + MSI_PENDING) & ~le32_load(cap + MSI_MASK);
    le32_store(cap + MSI_PENDING, le32_load(cap + MSI_PENDING) & ~ready);
    for (; ready != 0; ready &= ready - 1)
        msi_emit(f, (unsigned)__builtin_ctz(ready) & (msi_granted(f) - 1));
}
