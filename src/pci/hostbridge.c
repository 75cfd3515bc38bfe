/*
 * Host bridges: the device that every guest expects in slot 0. They do nothing; the PCI Express
 * capability, as a root port, tells guests that they may use the memory-mapped configuration space.
 */
#include <errno.h>

#include "base/endian.h"
#include "pci/internal.h"
#include "pci/table.h"

#define EXPRESS_LEN 0x3Cu
#define EXPRESS_ROOT_PORT 0x0042u /* version 2, port type 4 */
#define EXPRESS_LINK 0x0411u      /* x1, 2.5 GT/s, L0s */

static int bridge_create(struct pci_func *f, uint16_t vendor, uint16_t device, struct error *err)
{
    uint8_t *cfg = pci_cfg(f);
    unsigned cap;

    pci_set_ids(f, vendor, device, 0, 0x060000, 0, 0);
    cap = pci_add_cap(f, PCI_CAP_EXPRESS, EXPRESS_LEN);
    if (cap == 0)
        return error_set(err, -ENOSPC, "no room for the PCI Express capability");
    le16_store(cfg + cap + 0x02, EXPRESS_ROOT_PORT);
    le32_store(cfg + cap + 0x0C, EXPRESS_LINK);
    le16_store(cfg + cap + 0x12, 0x0011); /* link status: x1, 2.5 GT/s */
    return 0;
}

static int hostbridge_create(struct dev_env *env, struct pci_func *f, const struct options *opts,
                             void **out, struct error *err)
{
    (void)env;
    (void)opts;
    *out = f;
    return bridge_create(f, 0x1275, 0x1275, err);
}

static int amd_hostbridge_create(struct dev_env *env, struct pci_func *f,
                                 const struct options *opts, void **out, struct error *err)
{
    (void)env;
    (void)opts;
    *out = f;
    return bridge_create(f, 0x1022, 0x7432, err);
}

const struct pci_ops pci_hostbridge_ops = {
    .name = "hostbridge",
    .summary = "host bridge",
    .create = hostbridge_create,
};

const struct pci_ops pci_amd_hostbridge_ops = {
    .name = "amd_hostbridge",
    .summary = "host bridge with AMD's ids, for guests that ask for them before they use MSI",
    .create = amd_hostbridge_create,
};
