/*
 * The modern interface: vendor capabilities that say where in the memory BAR each structure is.
 * virtio 1.2, "Virtio Structure PCI Capabilities".
 *
 *     0x0000 common configuration   0x1000 ISR   0x2000 the type's configuration
 *     0x3000 notification, four bytes for each queue
 */
#include <errno.h>
#include <string.h>

#include "base/endian.h"
#include "pci/internal.h"
#include "virtio/pci.h"
#include "virtio/transport.h"

#define AREA_COMMON 0x0000u
#define AREA_ISR 0x1000u
#define AREA_DEVICE 0x2000u
#define AREA_NOTIFY 0x3000u
#define AREA_SIZE 0x1000u
#define NOTIFY_MULTIPLIER 4u

/* The common configuration. */
#define COMMON_DEVICE_FEATURE_SELECT 0x00u
#define COMMON_DEVICE_FEATURE 0x04u
#define COMMON_DRIVER_FEATURE_SELECT 0x08u
#define COMMON_DRIVER_FEATURE 0x0Cu
#define COMMON_CONFIG_VECTOR 0x10u
#define COMMON_NUM_QUEUES 0x12u
#define COMMON_STATUS 0x14u
#define COMMON_GENERATION 0x15u
#define COMMON_QUEUE_SELECT 0x16u
#define COMMON_QUEUE_SIZE 0x18u
#define COMMON_QUEUE_VECTOR 0x1Au
#define COMMON_QUEUE_ENABLE 0x1Cu
#define COMMON_QUEUE_NOTIFY_OFF 0x1Eu
#define COMMON_QUEUE_DESC 0x20u
#define COMMON_QUEUE_AVAIL 0x28u
#define COMMON_QUEUE_USED 0x30u
#define COMMON_QUEUE_NOTIFY_DATA 0x38u
#define COMMON_QUEUE_RESET 0x3Au
#define COMMON_SIZE 0x3Cu

/* Structure types in the capabilities. */
#define CAP_COMMON 1u
#define CAP_NOTIFY 2u
#define CAP_ISR 3u
#define CAP_DEVICE 4u
#define CAP_PCI 5u

/* A capability. */
#define CAP_LEN 0x02u
#define CAP_TYPE 0x03u
#define CAP_BAR 0x04u
#define CAP_OFFSET 0x08u
#define CAP_LENGTH 0x0Cu
#define CAP_EXTRA 0x10u /* notify: the multiplier; pci: the data window */

static unsigned add_cap(struct virtio *v, unsigned type, unsigned len, uint32_t offset,
                        uint32_t length)
{
    unsigned at = pci_add_cap(v->f, PCI_CAP_VENDOR, len);
    uint8_t *cap = pci_cfg(v->f) + at;

    if (at == 0)
        return 0;
    cap[CAP_LEN] = (uint8_t)len;
    cap[CAP_TYPE] = (uint8_t)type;
    cap[CAP_BAR] = VIRTIO_BAR_MODERN;
    le32_store(cap + CAP_OFFSET, offset);
    le32_store(cap + CAP_LENGTH, length);
    return at;
}

int virtio_modern_create(struct virtio *v, struct error *err)
{
    unsigned notify;
    bool fits;
    int rc = pci_add_bar(v->f, VIRTIO_BAR_MODERN, PCI_BAR_MEM64, VIRTIO_MODERN_SIZE, err);

    if (rc != 0)
        return rc;
    fits = add_cap(v, CAP_COMMON, 16, AREA_COMMON, COMMON_SIZE) != 0;
    fits = add_cap(v, CAP_ISR, 16, AREA_ISR, 1) != 0 && fits;
    if (v->ops->cfg_len != 0)
        fits = add_cap(v, CAP_DEVICE, 16, AREA_DEVICE, v->ops->cfg_len) != 0 && fits;
    notify = add_cap(v, CAP_NOTIFY, 20, AREA_NOTIFY, NOTIFY_MULTIPLIER * v->queues);
    v->cfg_cap = add_cap(v, CAP_PCI, 20, 0, 0);
    if (!fits || notify == 0 || v->cfg_cap == 0)
        return error_set(err, -ENOSPC, "%s: no room for the capabilities", v->env->name);
    le32_store(pci_cfg(v->f) + notify + CAP_EXTRA, NOTIFY_MULTIPLIER);
    pci_cfg(v->f)[v->cfg_cap + CAP_BAR] = 0;
    pci_cfg_writable(v->f, v->cfg_cap + CAP_BAR, 1);
    pci_cfg_writable(v->f, v->cfg_cap + CAP_OFFSET, 12);
    return 0;
}

/* Drivers write the queue's number, 16 bits; other writes are accesses. */
void virtio_modern_doorbell(unsigned queue, struct pci_doorbell *out)
{
    *out = (struct pci_doorbell){
        .bar = VIRTIO_BAR_MODERN, .offset = AREA_NOTIFY + NOTIFY_MULTIPLIER * queue, .len = 2};
}

/* ---- common configuration ---- */

/* As it reads now, in the guest's byte order. Reading has no side effect. */
static void common_image(const struct virtio *v, uint8_t c[64])
{
    const struct virtq *q = v->queue_select < v->queues ? &v->q[v->queue_select] : NULL;

    memset(c, 0, 64);
    le32_store(c + COMMON_DEVICE_FEATURE_SELECT, v->device_select);
    if (v->device_select < 2)
        le32_store(c + COMMON_DEVICE_FEATURE, (uint32_t)(v->offered >> 32 * v->device_select));
    le32_store(c + COMMON_DRIVER_FEATURE_SELECT, v->driver_select);
    if (v->driver_select < 2)
        le32_store(c + COMMON_DRIVER_FEATURE, (uint32_t)(v->driver >> 32 * v->driver_select));
    le16_store(c + COMMON_CONFIG_VECTOR, v->config_vector);
    le16_store(c + COMMON_NUM_QUEUES, (uint16_t)v->queues);
    c[COMMON_STATUS] = v->status;
    c[COMMON_GENERATION] = v->generation;
    le16_store(c + COMMON_QUEUE_SELECT, v->queue_select);
    if (q == NULL) { /* size 0: no such queue */
        le16_store(c + COMMON_QUEUE_VECTOR, VIRTIO_NO_VECTOR);
        return;
    }
    le16_store(c + COMMON_QUEUE_SIZE, q->size);
    le16_store(c + COMMON_QUEUE_VECTOR, v->vector[v->queue_select]);
    le16_store(c + COMMON_QUEUE_ENABLE, q->enabled);
    le16_store(c + COMMON_QUEUE_NOTIFY_OFF, v->queue_select);
    le64_store(c + COMMON_QUEUE_DESC, q->desc);
    le64_store(c + COMMON_QUEUE_AVAIL, q->avail);
    le64_store(c + COMMON_QUEUE_USED, q->used);
    le16_store(c + COMMON_QUEUE_NOTIFY_DATA, v->queue_select);
}

static void set_half(uint64_t *field, uint64_t offset, uint64_t value)
{
    unsigned shift = 8 * (unsigned)(offset & 4);

    *field = (*field & ~(0xFFFFFFFFull << shift)) | value << shift;
}

static void set_driver_feature(struct virtio *v, uint64_t value)
{
    /* Settled once the device has agreed. */
    if (v->driver_select < 2 && (v->status & (STATUS_FEATURES_OK | STATUS_DRIVER_OK)) == 0)
        set_half(&v->driver, 4 * v->driver_select, value);
    else if (value != 0)
        log_guest(v->env, "features %#llx (word %u) written too late or too high",
                  (unsigned long long)value, v->driver_select);
}

static void reset_queue(struct virtio *v, unsigned queue)
{
    virtq_reset(&v->q[queue]);
    v->vector[queue] = VIRTIO_NO_VECTOR;
    v->renewed[queue] = true;
    if (v->ops->queue_reset != NULL)
        v->ops->queue_reset(v->impl, queue);
}

/* The registers of the selected queue. */
static void queue_write(struct virtio *v, uint64_t offset, uint64_t value)
{
    struct virtq *q;

    if (v->queue_select >= v->queues) {
        log_guest(v->env, "queue %u is set up, there are %u", v->queue_select, v->queues);
        return;
    }
    q = &v->q[v->queue_select];
    if (offset == COMMON_QUEUE_VECTOR) {
        v->vector[v->queue_select] = virtio_valid_vector(v, value);
        return;
    }
    if (offset == COMMON_QUEUE_RESET) {
        if (value == 1 && (virtio_features(v) & VIRTIO_F_RING_RESET) != 0)
            reset_queue(v, v->queue_select);
        return;
    }
    if (q->enabled) {
        log_guest(v->env, "queue %u is changed while it is enabled", v->queue_select);
        return;
    }
    if ((v->status & STATUS_DRIVER_OK) != 0 && !v->renewed[v->queue_select]) {
        log_guest(v->env, "queue %u is set up after DRIVER_OK", v->queue_select);
        return;
    }
    switch (offset) {
    case COMMON_QUEUE_SIZE:
        q->packed = (virtio_features(v) & VIRTIO_F_RING_PACKED) != 0; /* whose sizes are free */
        if (virtq_size_valid(q, (unsigned)value))
            q->size = (uint16_t)value;
        else
            log_guest(v->env, "queue size %u is not possible up to %u", (unsigned)value, q->max);
        break;
    case COMMON_QUEUE_ENABLE:
        if (value == 1 && (v->status & STATUS_FEATURES_OK) == 0)
            log_guest(v->env, "queue %u is enabled before FEATURES_OK", v->queue_select);
        else if (value == 1)
            virtio_start_queue(v, v->queue_select);
        break;
    case COMMON_QUEUE_DESC:
    case COMMON_QUEUE_DESC + 4:
        set_half(&q->desc, offset, value);
        break;
    case COMMON_QUEUE_AVAIL:
    case COMMON_QUEUE_AVAIL + 4:
        set_half(&q->avail, offset, value);
        break;
    case COMMON_QUEUE_USED:
    case COMMON_QUEUE_USED + 4:
        set_half(&q->used, offset, value);
        break;
    default:
        log_guest(v->env, "write to read-only register +%#llx", (unsigned long long)offset);
        break;
    }
}

static void common_write(struct virtio *v, uint64_t offset, unsigned size, uint64_t value)
{
    if (size == 8) {
        common_write(v, offset, 4, value & 0xFFFFFFFF);
        common_write(v, offset + 4, 4, value >> 32);
        return;
    }
    value &= bytes_mask(size);
    switch (offset) {
    case COMMON_DEVICE_FEATURE_SELECT:
        v->device_select = (uint32_t)value;
        break;
    case COMMON_DRIVER_FEATURE_SELECT:
        v->driver_select = (uint32_t)value;
        break;
    case COMMON_DRIVER_FEATURE:
        set_driver_feature(v, value);
        break;
    case COMMON_CONFIG_VECTOR:
        v->config_vector = virtio_valid_vector(v, value);
        break;
    case COMMON_STATUS:
        virtio_set_status(v, (uint8_t)value, false);
        break;
    case COMMON_QUEUE_SELECT:
        v->queue_select = (uint16_t)value;
        break;
    default:
        queue_write(v, offset, value);
        break;
    }
}

/* ---- the BAR ---- */

/* Structures lie a page apart and the bus does not cut accesses at them: what passes a page's end
 * reads ones and writes nothing. */
static bool in_area(uint64_t offset, unsigned size)
{
    return (offset & (AREA_SIZE - 1)) + size <= AREA_SIZE;
}

uint64_t virtio_modern_read(struct virtio *v, uint64_t offset, unsigned size)
{
    uint64_t at = offset & (AREA_SIZE - 1);
    uint8_t image[64];
    uint64_t value = 0;

    if (!in_area(offset, size))
        return ~0ull;
    switch (offset & ~(uint64_t)(AREA_SIZE - 1)) {
    case AREA_COMMON:
        if (at + size > sizeof(image))
            return ~0ull;
        common_image(v, image);
        memcpy(&value, image + at, size);
        return value;
    case AREA_ISR:
        return at == 0 ? virtio_take_isr(v) : 0;
    case AREA_DEVICE:
        return virtio_cfg_read(v, at, size);
    default:
        return 0; /* notification: write-only */
    }
}

void virtio_modern_write(struct virtio *v, uint64_t offset, unsigned size, uint64_t value)
{
    uint64_t at = offset & (AREA_SIZE - 1);

    if (!in_area(offset, size))
        return;
    switch (offset & ~(uint64_t)(AREA_SIZE - 1)) {
    case AREA_COMMON:
        common_write(v, at, size, value);
        break;
    case AREA_ISR:
        break;
    case AREA_DEVICE:
        virtio_cfg_write(v, at, size, value);
        break;
    default: /* the queue is told by the address; the value repeats it */
        virtio_notified(v, (unsigned)(at / NOTIFY_MULTIPLIER), false);
        break;
    }
}

/* ---- access to the BAR through configuration space, for who cannot reach the BAR itself ---- */

/* Whether the window in the capability is on something, and where. */
static bool window(struct virtio *v, unsigned *bar, uint32_t *offset, unsigned *size)
{
    const uint8_t *cap = pci_cfg(v->f) + v->cfg_cap;
    uint32_t length = le32_load(cap + CAP_LENGTH);
    uint64_t limit;

    *bar = cap[CAP_BAR];
    *offset = le32_load(cap + CAP_OFFSET);
    *size = length;
    if (*bar == VIRTIO_BAR_MODERN)
        limit = VIRTIO_MODERN_SIZE;
    else if (*bar == VIRTIO_BAR_LEGACY)
        limit = virtio_legacy_size(v);
    else
        return false;
    return (length == 1 || length == 2 || length == 4) && *offset % length == 0 &&
           (uint64_t)*offset + length <= limit;
}

static bool touches_window(const struct virtio *v, unsigned offset, unsigned size)
{
    unsigned data = v->cfg_cap + CAP_EXTRA;

    return offset < data + 4 && offset + size > data;
}

void virtio_pci_cfg_read(void *dev, unsigned offset, unsigned size)
{
    struct virtio *v = dev;
    uint32_t at;
    unsigned bar, len;

    if (touches_window(v, offset, size) && window(v, &bar, &at, &len))
        le32_store(pci_cfg(v->f) + v->cfg_cap + CAP_EXTRA,
                   (uint32_t)(virtio_pci_bar_read(v, bar, at, len) & bytes_mask(len)));
}

void virtio_pci_cfg_written(void *dev, unsigned offset, unsigned size)
{
    struct virtio *v = dev;
    uint32_t at;
    unsigned bar, len;

    if (touches_window(v, offset, size) && window(v, &bar, &at, &len))
        virtio_pci_bar_write(v, bar, at, len,
                             le32_load(pci_cfg(v->f) + v->cfg_cap + CAP_EXTRA) & bytes_mask(len));
}
