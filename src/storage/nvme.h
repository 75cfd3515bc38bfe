/*
 * "nvme": an NVM Express 1.4 controller with one namespace, whose content is a disk of block/.
 *
 * Registers in BAR 0, MSI-X in BAR 4 (a vector for each queue) or INTx, PRP lists, volatile write
 * cache, deallocation. Its env->lock is held around every callback, as for every PCI device.
 */
#ifndef STORAGE_NVME_H
#define STORAGE_NVME_H

#include "pci/pci.h"

extern const struct pci_ops nvme_ops;

#endif
