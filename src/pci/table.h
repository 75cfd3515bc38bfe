/* The one visible list of PCI devices and the one of LPC devices. */
#ifndef PCI_TABLE_H
#define PCI_TABLE_H

#include "pci/pci.h"

extern const struct pci_ops pci_hostbridge_ops;     /* "hostbridge" 1275:1275 */
extern const struct pci_ops pci_amd_hostbridge_ops; /* "amd_hostbridge" 1022:7432 */
extern const struct pci_ops pci_lpc_ops;            /* "lpc" 8086:7000 */
extern const struct pci_ops pci_uart_ops;           /* "uart" 131F:2000, conf = a chardev spec */
/* virtio devices stand in virtio/virtio.h; the VM joins both lists */

#endif
