/*
 * The legacy interface: registers of the guest's own (little) endianness in an I/O BAR, and rings
 * as one block of pages, placed by page number. virtio 1.2, "Legacy Interfaces: A Note on PCI
 * Device Layout".
 */
#include "base/bits.h"
#include "virtio/transport.h"

#define LEGACY_DEVICE_FEATURES 0x00u /* 4 */
#define LEGACY_DRIVER_FEATURES 0x04u /* 4 */
#define LEGACY_QUEUE_PFN 0x08u       /* 4 */
#define LEGACY_QUEUE_SIZE 0x0Cu      /* 2 */
#define LEGACY_QUEUE_SELECT 0x0Eu    /* 2 */
#define LEGACY_QUEUE_NOTIFY 0x10u    /* 2 */
#define LEGACY_STATUS 0x12u          /* 1 */
#define LEGACY_ISR 0x13u             /* 1 */
#define LEGACY_CONFIG_VECTOR 0x14u   /* 2, only while MSI-X is enabled */
#define LEGACY_QUEUE_VECTOR 0x16u    /* 2, likewise */

#define LEGACY_PAGE_SHIFT 12u

uint64_t virtio_legacy_size(const struct virtio *v)
{
    uint64_t size = 64;

    while (size < LEGACY_QUEUE_VECTOR + 2 + v->ops->cfg_len)
        size *= 2;
    return size;
}

void virtio_legacy_doorbell(unsigned queue, struct pci_doorbell *out)
{
    *out = (struct pci_doorbell){.bar = VIRTIO_BAR_LEGACY,
                                 .offset = LEGACY_QUEUE_NOTIFY,
                                 .len = 2,
                                 .match = true,
                                 .value = queue};
}

/* The type's configuration moves up while the vector registers are there. */
static unsigned config_start(const struct virtio *v)
{
    return pci_msix_enabled(v->f) ? LEGACY_QUEUE_VECTOR + 2 : LEGACY_CONFIG_VECTOR;
}

static struct virtq *selected(struct virtio *v)
{
    return v->queue_select < v->queues ? &v->q[v->queue_select] : NULL;
}

static uint64_t vector_read(const struct virtio *v, uint64_t offset)
{
    if (offset == LEGACY_CONFIG_VECTOR)
        return v->config_vector;
    return v->queue_select < v->queues ? v->vector[v->queue_select] : VIRTIO_NO_VECTOR;
}

/* A register is read from its beginning; what is narrower than it gets the low part. */
uint64_t virtio_legacy_read(struct virtio *v, uint64_t offset, unsigned size)
{
    const struct virtq *q = selected(v);

    if (offset >= config_start(v))
        return virtio_cfg_read(v, offset - config_start(v), size);
    switch (offset) {
    case LEGACY_DEVICE_FEATURES:
        return (uint32_t)v->offered;
    case LEGACY_DRIVER_FEATURES:
        return (uint32_t)v->driver;
    case LEGACY_QUEUE_PFN:
        return q != NULL && q->enabled ? q->desc >> LEGACY_PAGE_SHIFT : 0;
    case LEGACY_QUEUE_SIZE:
        return q != NULL ? q->max : 0;
    case LEGACY_QUEUE_SELECT:
        return v->queue_select;
    case LEGACY_QUEUE_NOTIFY:
        return 0;
    case LEGACY_STATUS:
        /* 0x13 is cleared by reading, so a wider access must not pass over it unseen. */
        return size == 1 ? v->status : v->status | (uint64_t)virtio_take_isr(v) << 8;
    case LEGACY_ISR:
        return virtio_take_isr(v);
    case LEGACY_CONFIG_VECTOR:
    case LEGACY_QUEUE_VECTOR:
        return vector_read(v, offset);
    default:
        log_guest(v->env, "legacy register +%#llx does not exist", (unsigned long long)offset);
        return ~0ull;
    }
}

static void set_pfn(struct virtio *v, uint32_t pfn)
{
    struct virtq *q = selected(v);

    if (q == NULL)
        return;
    if (pfn == 0) {
        virtq_reset(q);
        if (v->ops->queue_reset != NULL)
            v->ops->queue_reset(v->impl, v->queue_select);
        return;
    }
    if (q->enabled) {
        log_guest(v->env, "queue %u is moved while it is enabled", v->queue_select);
        return;
    }
    q->size = q->max;
    virtq_set_legacy(q, (uint64_t)pfn << LEGACY_PAGE_SHIFT);
    virtio_start_queue(v, v->queue_select);
}

void virtio_legacy_write(struct virtio *v, uint64_t offset, unsigned size, uint64_t value)
{
    value &= bytes_mask(size);
    if (offset >= config_start(v)) {
        virtio_cfg_write(v, offset - config_start(v), size, value);
        return;
    }
    switch (offset) {
    case LEGACY_DRIVER_FEATURES:
        /* Legacy drivers know the low 32 bits only, and so never VERSION_1. */
        if ((v->status & (STATUS_FEATURES_OK | STATUS_DRIVER_OK)) == 0)
            v->driver = value & (uint32_t)v->offered;
        break;
    case LEGACY_QUEUE_PFN:
        set_pfn(v, (uint32_t)value);
        break;
    case LEGACY_QUEUE_SELECT:
        v->queue_select = (uint16_t)value;
        break;
    case LEGACY_QUEUE_NOTIFY:
        virtio_notified(v, (unsigned)value & 0xFFFF, true);
        break;
    case LEGACY_STATUS:
        virtio_set_status(v, (uint8_t)value, true);
        break;
    case LEGACY_CONFIG_VECTOR:
        v->config_vector = virtio_valid_vector(v, value);
        break;
    case LEGACY_QUEUE_VECTOR:
        if (v->queue_select < v->queues)
            v->vector[v->queue_select] = virtio_valid_vector(v, value);
        break;
    default:
        log_guest(v->env, "write of %#llx to legacy register +%#llx", (unsigned long long)value,
                  (unsigned long long)offset);
        break;
    }
}
