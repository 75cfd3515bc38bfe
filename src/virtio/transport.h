/* Shared by the files of the PCI transport: pci.c, legacy.c, modern.c. env->lock held throughout.
 */
#ifndef VIRTIO_TRANSPORT_H
#define VIRTIO_TRANSPORT_H

#include "virtio/device.h"

#define VIRTIO_BAR_LEGACY 0u
#define VIRTIO_BAR_MSIX 1u
#define VIRTIO_BAR_MODERN 4u

#define VIRTIO_NO_VECTOR 0xFFFFu

/* Device status. */
#define STATUS_DRIVER_OK 0x04u
#define STATUS_FEATURES_OK 0x08u
#define STATUS_NEEDS_RESET 0x40u

#define ISR_QUEUE 1u
#define ISR_CONFIG 2u

struct virtio {
    struct dev_env *env;
    struct pci_func *f;
    const struct virtio_ops *ops;
    void *impl;
    uint64_t offered; /* features */
    uint64_t driver;  /* as the driver wrote them; what counts once negotiated */
    uint32_t device_select, driver_select;
    unsigned queues;
    uint16_t queue_select;
    uint16_t config_vector;
    uint16_t vector[VIRTIO_QUEUES_MAX];
    bool renewed[VIRTIO_QUEUES_MAX]; /* was reset alone, so it may be set up after DRIVER_OK */
    uint8_t status, isr, generation;
    unsigned cfg_cap; /* offset of the PCI configuration access capability */
    struct virtq q[VIRTIO_QUEUES_MAX];
};

/* pci.c */
void virtio_reset(struct virtio *v);
void virtio_set_status(struct virtio *v, uint8_t status, bool legacy);
void virtio_notified(struct virtio *v, unsigned queue, bool legacy);
void virtio_start_queue(struct virtio *v, unsigned queue);
uint8_t virtio_take_isr(struct virtio *v); /* reads and clears; lowers the line */
uint16_t virtio_valid_vector(const struct virtio *v, uint64_t vector);
uint64_t virtio_cfg_read(struct virtio *v, uint64_t offset, unsigned size);
void virtio_cfg_write(struct virtio *v, uint64_t offset, unsigned size, uint64_t value);

/* legacy.c: the I/O BAR */
uint64_t virtio_legacy_size(const struct virtio *v);
/* Where this queue is notified, for pci_add_doorbell. */
void virtio_legacy_doorbell(unsigned queue, struct pci_doorbell *out);
uint64_t virtio_legacy_read(struct virtio *v, uint64_t offset, unsigned size);
void virtio_legacy_write(struct virtio *v, uint64_t offset, unsigned size, uint64_t value);

/* modern.c: the memory BAR and the capabilities that describe it */
#define VIRTIO_MODERN_SIZE 0x4000u
int virtio_modern_create(struct virtio *v, struct error *err);
void virtio_modern_doorbell(unsigned queue, struct pci_doorbell *out);
uint64_t virtio_modern_read(struct virtio *v, uint64_t offset, unsigned size);
void virtio_modern_write(struct virtio *v, uint64_t offset, unsigned size, uint64_t value);

#endif
