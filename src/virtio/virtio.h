/* The virtio devices' tables, transitional and modern over PCI. virtio 1.2. */
#ifndef VIRTIO_VIRTIO_H
#define VIRTIO_VIRTIO_H

#include "pci/pci.h"

extern const struct pci_ops virtio_rnd_ops; /* "virtio-rnd" 1AF4:1005 */
extern const struct pci_ops virtio_blk_ops; /* "virtio-blk" 1AF4:1001 */

#endif
