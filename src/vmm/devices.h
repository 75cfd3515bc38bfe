/*
 * What a machine can be made of: every PCI device, and what of the configuration the VM cannot do
 * yet. Constant; any thread.
 */
#ifndef VMM_DEVICES_H
#define VMM_DEVICES_H

#include "base/config.h"
#include "base/error.h"
#include "pci/pci.h"

/* NULL-terminated; the list that "-s help" prints. */
extern const struct pci_ops *const pci_device_table[];

/* The entry of a NULL-terminated table, or NULL. */
const struct pci_ops *pci_device_find(const struct pci_ops *const *table, const char *name);

/*
 * -ENOSYS and a sentence if the configuration asks for something that is known but not built yet:
 * more than one vCPU, firmware, the gdb stub, ... The one place that knows.
 */
int vm_check_built(const struct config *cfg, struct error *err);

#endif
