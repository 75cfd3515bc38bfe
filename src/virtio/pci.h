/*
 * virtio over PCI: transitional devices, which legacy drivers find in the I/O BAR 0 and modern ones
 * through capabilities in the memory BAR 4. Interrupts by MSI-X (BAR 1), MSI or INTx.
 *
 *     static int rnd_create(struct dev_env *env, struct pci_func *f, const struct options *opts,
 *                           void **out, struct error *err)
 *     {
 *         return virtio_pci_create(env, f, opts, &rnd_ops, out, err);
 *     }
 *     static const struct dev_option rnd_options[] = {VIRTIO_PCI_OPTIONS};
 *     const struct pci_ops virtio_rnd_ops = {
 *         .name = "virtio-rnd", .summary = "...", .create = rnd_create, .options = rnd_options,
 *         .option_count = countof(rnd_options), VIRTIO_PCI_OPS };
 */
#ifndef VIRTIO_PCI_H
#define VIRTIO_PCI_H

#include "virtio/device.h"

int virtio_pci_create(struct dev_env *env, struct pci_func *f, const struct options *opts,
                      const struct virtio_ops *ops, void **out, struct error *err);

void virtio_pci_destroy(void *dev);
void virtio_pci_reset(void *dev);
uint64_t virtio_pci_bar_read(void *dev, unsigned bar, uint64_t offset, unsigned size);
void virtio_pci_bar_write(void *dev, unsigned bar, uint64_t offset, unsigned size, uint64_t value);
void virtio_pci_cfg_written(void *dev, unsigned offset, unsigned size);
void virtio_pci_cfg_read(void *dev, unsigned offset, unsigned size);
void virtio_pci_quiesce(void *dev);
void virtio_pci_doorbell(void *dev, unsigned n);
void virtio_pci_save(void *dev, struct state_buf *out);
/* What is behind the device may have another size; for who has changed it. env->lock held. */
void virtio_pci_refresh(void *dev);
int virtio_pci_load(void *dev, const uint8_t *data, size_t len, size_t *pos, struct error *err);

/* The rows that every type's table of options ends with. */
#define VIRTIO_PCI_OPTIONS                                                                         \
    {.name = "packed", .type = OPT_BOOL, .help = "offer packed rings (default: on)"},              \
    {                                                                                              \
        .name = "ioeventfd", .type = OPT_BOOL,                                                     \
        .help = "with kvm: notifications reach the device's thread through the host's kernel "     \
                "(default: on with iothread=)"                                                     \
    }

#define VIRTIO_PCI_OPS                                                                             \
    .destroy = virtio_pci_destroy, .reset = virtio_pci_reset, .bar_read = virtio_pci_bar_read,     \
    .bar_write = virtio_pci_bar_write, .cfg_written = virtio_pci_cfg_written,                      \
    .cfg_read = virtio_pci_cfg_read, .quiesce = virtio_pci_quiesce, .refresh = virtio_pci_refresh, \
    .doorbell = virtio_pci_doorbell, .save = virtio_pci_save, .load = virtio_pci_load

#endif
