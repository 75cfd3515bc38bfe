/* The storage controllers' tables; the VM joins them with pci/table.h and virtio/virtio.h. */
#ifndef STORAGE_STORAGE_H
#define STORAGE_STORAGE_H

#include "pci/pci.h"

extern const struct pci_ops ahci_ops;    /* "ahci" 8086:2821, up to 32 disks and CD drives */
extern const struct pci_ops ahci_hd_ops; /* "ahci-hd", one disk */
extern const struct pci_ops ahci_cd_ops; /* "ahci-cd", one CD drive */
extern const struct pci_ops nvme_ops;    /* "nvme" FB5D:0A0A */

#endif
