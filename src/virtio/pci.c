#include "virtio/pci.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "pci/internal.h"
#include "virtio/transport.h"

#define VIRTIO_VENDOR 0x1AF4u

/* What every type offers: the ring's own. */
#define RING_FEATURES                                                                              \
    (VIRTIO_F_ANY_LAYOUT | VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | VIRTIO_F_VERSION_1 |      \
     VIRTIO_F_RING_RESET)

/* ---- for device types ---- */

void virtio_add_features(struct virtio *v, uint64_t features)
{
    v->offered |= features;
}

int virtio_set_queues(struct virtio *v, unsigned queues, struct error *err)
{
    if (queues == 0 || queues > VIRTIO_QUEUES_MAX)
        return error_set(err, -EINVAL, "%s: %u queues: must be 1 to %u", v->env->name, queues,
                         VIRTIO_QUEUES_MAX);
    v->queues = queues;
    return 0;
}

static bool negotiated(const struct virtio *v)
{
    return (v->status & (STATUS_FEATURES_OK | STATUS_DRIVER_OK)) != 0;
}

uint64_t virtio_features(const struct virtio *v)
{
    return negotiated(v) ? v->driver & v->offered : 0;
}

bool virtio_ready(const struct virtio *v)
{
    return (v->status & (STATUS_DRIVER_OK | STATUS_NEEDS_RESET)) == STATUS_DRIVER_OK;
}

struct virtq *virtio_queue(struct virtio *v, unsigned queue)
{
    return &v->q[queue];
}

/* ---- interrupts ---- */

static void interrupt(struct virtio *v, uint8_t isr, uint16_t vector)
{
    if (pci_msix_enabled(v->f)) {
        /* The ISR is not used for queues then; a configuration change still shows in it. */
        v->isr |= isr & ISR_CONFIG;
        if (vector != VIRTIO_NO_VECTOR)
            pci_msix_send(v->f, vector);
        return;
    }
    v->isr |= isr;
    if (pci_msi_enabled(v->f))
        pci_msi_send(v->f, 0);
    else
        pci_intx(v->f, true);
}

uint8_t virtio_take_isr(struct virtio *v)
{
    uint8_t isr = v->isr;

    v->isr = 0;
    pci_intx(v->f, false);
    return isr;
}

uint16_t virtio_valid_vector(const struct virtio *v, uint64_t vector)
{
    return vector < v->f->msix.vectors ? (uint16_t)vector : VIRTIO_NO_VECTOR;
}

void virtio_config_changed(struct virtio *v)
{
    v->generation++;
    if ((v->status & STATUS_DRIVER_OK) != 0)
        interrupt(v, ISR_CONFIG, v->config_vector);
}

void virtio_fail(struct virtio *v, const char *why)
{
    if ((v->status & STATUS_NEEDS_RESET) != 0)
        return;
    log_guest(v->env, "device needs a reset: %s", why);
    v->status |= STATUS_NEEDS_RESET;
    if ((v->status & STATUS_DRIVER_OK) != 0)
        interrupt(v, ISR_CONFIG, v->config_vector);
}

static void queue_failed(struct virtio *v, unsigned queue)
{
    char text[160];

    snprintf(text, sizeof(text), "queue %u: %s", queue, v->q[queue].why);
    virtio_fail(v, text);
}

bool virtio_pop(struct virtio *v, unsigned queue, struct virtq_chain *c)
{
    int rc;

    if ((v->status & STATUS_NEEDS_RESET) != 0)
        return false;
    rc = virtq_pop(&v->q[queue], c);
    if (rc < 0)
        queue_failed(v, queue);
    return rc > 0;
}

void virtio_push(struct virtio *v, unsigned queue, const struct virtq_token *t, uint32_t written)
{
    virtq_push(&v->q[queue], t, written);
}

void virtio_flush(struct virtio *v, unsigned queue)
{
    if (virtq_wants_interrupt(&v->q[queue]))
        interrupt(v, ISR_QUEUE, v->vector[queue]);
}

/* ---- for legacy.c and modern.c ---- */

void virtio_start_queue(struct virtio *v, unsigned queue)
{
    struct virtq *q = &v->q[queue];
    uint64_t features = v->driver & v->offered; /* legacy drivers set up rings before they agree */

    q->indirect = (features & VIRTIO_F_INDIRECT_DESC) != 0;
    q->event_idx = (features & VIRTIO_F_EVENT_IDX) != 0;
    q->packed = (features & VIRTIO_F_RING_PACKED) != 0; /* for good: what is mapped follows it */
    if (virtq_enable(q) != 0)
        queue_failed(v, queue);
}

void virtio_notified(struct virtio *v, unsigned queue, bool legacy)
{
    if (queue >= v->queues) {
        log_guest(v->env, "notification of queue %u, there are %u", queue, v->queues);
        return;
    }
    /* Some legacy drivers begin before they say DRIVER_OK. */
    if ((v->status & STATUS_NEEDS_RESET) != 0 || !v->q[queue].enabled ||
        (!legacy && (v->status & STATUS_DRIVER_OK) == 0))
        return;
    v->ops->notify(v->impl, queue);
}

void virtio_reset(struct virtio *v)
{
    v->driver = 0;
    v->device_select = v->driver_select = 0;
    v->queue_select = 0;
    v->config_vector = VIRTIO_NO_VECTOR;
    v->status = 0;
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        v->vector[i] = VIRTIO_NO_VECTOR;
        v->renewed[i] = false;
        virtq_reset(&v->q[i]);
    }
    virtio_take_isr(v);
    if (v->ops->reset != NULL)
        v->ops->reset(v->impl);
}

/* The set cannot change any more: the rings learn theirs. */
static void features_settled(struct virtio *v)
{
    uint64_t features = v->driver & v->offered;

    for (unsigned i = 0; i < v->queues; i++) {
        v->q[i].indirect = (features & VIRTIO_F_INDIRECT_DESC) != 0;
        v->q[i].event_idx = (features & VIRTIO_F_EVENT_IDX) != 0;
    }
    if (v->ops->negotiated != NULL)
        v->ops->negotiated(v->impl, features);
}

void virtio_set_status(struct virtio *v, uint8_t status, bool legacy)
{
    uint8_t added = (uint8_t)(status & ~v->status);

    if (status == 0) {
        virtio_reset(v);
        return;
    }
    if ((added & STATUS_FEATURES_OK) != 0) {
        bool fine =
            (v->driver & ~v->offered) == 0 && (legacy || (v->driver & VIRTIO_F_VERSION_1) != 0);

        if (!fine) {
            log_guest(v->env, "driver's features %#llx are refused, offered are %#llx",
                      (unsigned long long)v->driver, (unsigned long long)v->offered);
            status &= (uint8_t)~STATUS_FEATURES_OK;
            added &= (uint8_t)~STATUS_FEATURES_OK;
        }
    }
    if (!legacy && (added & STATUS_DRIVER_OK) != 0 &&
        ((v->status | status) & STATUS_FEATURES_OK) == 0) {
        log_guest(v->env, "DRIVER_OK before FEATURES_OK");
        status &= (uint8_t)~STATUS_DRIVER_OK;
        added &= (uint8_t)~STATUS_DRIVER_OK;
    }
    if (legacy && (added & STATUS_DRIVER_OK) != 0) {
        /* Old Linux drivers forget bus mastering, and no interrupt could be sent. */
        uint8_t *cfg = pci_cfg(v->f);

        cfg[PCI_COMMAND] |= PCI_CMD_MASTER;
        v->driver &= v->offered;
    }
    /* NEEDS_RESET is ours, and a bit once set is cleared only by a reset. */
    v->status |= status & (uint8_t)~STATUS_NEEDS_RESET;
    if ((added & STATUS_FEATURES_OK) != 0 ||
        (legacy && (added & STATUS_DRIVER_OK) != 0 && (v->status & STATUS_FEATURES_OK) == 0))
        features_settled(v);
    if ((added & STATUS_DRIVER_OK) != 0)
        for (unsigned i = 0; i < v->queues; i++)
            if (v->q[i].enabled)
                virtio_notified(v, i, legacy); /* what was queued before is not notified again */
}

uint64_t virtio_cfg_read(struct virtio *v, uint64_t offset, unsigned size)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < size; i++) {
        uint8_t byte = 0xFF;

        if (offset + i < v->ops->cfg_len)
            byte = v->ops->cfg_read(v->impl, (unsigned)(offset + i));
        value |= (uint64_t)byte << 8 * i;
    }
    return value;
}

void virtio_cfg_write(struct virtio *v, uint64_t offset, unsigned size, uint64_t value)
{
    if (v->ops->cfg_write == NULL || size > 4 || offset > v->ops->cfg_len ||
        v->ops->cfg_len - offset < size) {
        log_guest(v->env, "write to read-only configuration at +%#llx", (unsigned long long)offset);
        return;
    }
    v->ops->cfg_write(v->impl, (unsigned)offset, size, (uint32_t)value);
}

/* ---- the PCI device ---- */

static int add_interrupts(struct virtio *v, struct error *err)
{
    pci_add_intx(v->f);
    if (pci_prefer_msi(v->f))
        return pci_add_msi(v->f, 1, err);
    return pci_add_msix(v->f, v->queues + 1, VIRTIO_BAR_MSIX, err);
}

/*
 * Each queue's, of both interfaces, numbered 2 queue and 2 queue + 1. They pay where another thread
 * serves the queue; without one a vCPU that does it itself saves the way there and back.
 */
static int add_doorbells(struct virtio *v, const struct options *opts, struct error *err)
{
    bool wanted = opt_bool(opts, "ioeventfd", opt_string(opts, "iothread", NULL) != NULL);
    int rc = 0;

    if (!wanted || v->env->loop == NULL)
        return 0;
    for (unsigned n = 0; n < 2 * v->queues && rc == 0; n++) {
        struct pci_doorbell d;

        if (n % 2 == 0)
            virtio_modern_doorbell(n / 2, &d);
        else
            virtio_legacy_doorbell(n / 2, &d);
        d.n = n;
        rc = pci_add_doorbell(v->f, &d, err);
    }
    return rc;
}

void virtio_pci_doorbell(void *dev, unsigned n)
{
    virtio_notified(dev, n / 2, n % 2 != 0);
}

int virtio_pci_create(struct dev_env *env, struct pci_func *f, const struct options *opts,
                      const struct virtio_ops *ops, void **out, struct error *err)
{
    struct virtio *v = calloc(1, sizeof(*v));
    int rc;

    if (v == NULL)
        return error_set(err, -ENOMEM, "no memory for %s", env->name);
    v->env = env;
    v->f = f;
    v->ops = ops;
    v->queues = ops->queues;
    v->offered = ops->features | RING_FEATURES;
    if (opt_bool(opts, "packed", true))
        v->offered |= VIRTIO_F_RING_PACKED;
    v->config_vector = VIRTIO_NO_VECTOR;
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++) {
        v->vector[i] = VIRTIO_NO_VECTOR;
        virtq_init(&v->q[i], env->mem, ops->queue_size);
    }
    pci_set_ids(f, VIRTIO_VENDOR, ops->pci_id, 0, ops->class_code, VIRTIO_VENDOR, ops->id);
    rc = ops->create(v, env, opts, &v->impl, err);
    if (rc == 0)
        rc = pci_add_bar(f, VIRTIO_BAR_LEGACY, PCI_BAR_IO, virtio_legacy_size(v), err);
    if (rc == 0)
        rc = add_interrupts(v, err);
    if (rc == 0)
        rc = virtio_modern_create(v, err);
    if (rc == 0)
        rc = add_doorbells(v, opts, err);
    if (rc != 0) {
        pthread_mutex_lock(&env->lock);
        virtio_pci_destroy(v);
        pthread_mutex_unlock(&env->lock);
        return rc;
    }
    *out = v;
    return 0;
}

void virtio_pci_destroy(void *dev)
{
    struct virtio *v = dev;

    if (v->impl != NULL && v->ops->destroy != NULL)
        v->ops->destroy(v->impl);
    free(v);
}

void virtio_pci_reset(void *dev)
{
    struct virtio *v = dev;

    v->generation = 0;
    virtio_reset(v);
}

void virtio_pci_refresh(void *dev)
{
    struct virtio *v = dev;

    if (v->ops->refresh != NULL)
        v->ops->refresh(v->impl);
}

uint64_t virtio_pci_bar_read(void *dev, unsigned bar, uint64_t offset, unsigned size)
{
    if (bar == VIRTIO_BAR_LEGACY)
        return virtio_legacy_read(dev, offset, size);
    return virtio_modern_read(dev, offset, size);
}

void virtio_pci_bar_write(void *dev, unsigned bar, uint64_t offset, unsigned size, uint64_t value)
{
    if (bar == VIRTIO_BAR_LEGACY)
        virtio_legacy_write(dev, offset, size, value);
    else
        virtio_modern_write(dev, offset, size, value);
}

/* ---- state ---- */

static const struct state_field virtio_state[] = {
    STATE_FIELD(1, struct virtio, offered),       STATE_FIELD(2, struct virtio, driver),
    STATE_FIELD(3, struct virtio, device_select), STATE_FIELD(4, struct virtio, driver_select),
    STATE_FIELD(5, struct virtio, queue_select),  STATE_FIELD(6, struct virtio, config_vector),
    STATE_FIELD(7, struct virtio, status),        STATE_FIELD(8, struct virtio, isr),
    STATE_FIELD(9, struct virtio, generation),    STATE_FIELD(10, struct virtio, queues),
    STATE_FIELD(11, struct virtio, vector),       STATE_FIELD(12, struct virtio, renewed),
};

static const struct state_field virtq_state[] = {
    STATE_FIELD(1, struct virtq, size),       STATE_FIELD(2, struct virtq, desc),
    STATE_FIELD(3, struct virtq, avail),      STATE_FIELD(4, struct virtq, used),
    STATE_FIELD(5, struct virtq, enabled),    STATE_FIELD(6, struct virtq, broken),
    STATE_FIELD(7, struct virtq, indirect),   STATE_FIELD(8, struct virtq, event_idx),
    STATE_FIELD(9, struct virtq, quiet),      STATE_FIELD(10, struct virtq, next_avail),
    STATE_FIELD(11, struct virtq, next_used), STATE_FIELD(12, struct virtq, signalled),
    STATE_FIELD(13, struct virtq, packed),    STATE_FIELD(14, struct virtq, avail_wrap),
    STATE_FIELD(15, struct virtq, used_wrap), STATE_FIELD(16, struct virtq, pushed),
};

void virtio_pci_quiesce(void *dev)
{
    struct virtio *v = dev;

    if (v->ops->quiesce != NULL)
        v->ops->quiesce(v->impl);
}

void virtio_pci_save(void *dev, struct state_buf *out)
{
    struct virtio *v = dev;
    struct timerq *t = v->env->timers;

    state_save(virtio_state, countof(virtio_state), v, t, out);
    for (unsigned i = 0; i < v->queues; i++)
        state_save(virtq_state, countof(virtq_state), &v->q[i], t, out);
    state_save(v->ops->state, v->ops->state_count, v->impl, t, out);
}

int virtio_pci_load(void *dev, const uint8_t *data, size_t len, size_t *pos, struct error *err)
{
    struct virtio *v = dev;
    struct timerq *t = v->env->timers;
    uint64_t offered = v->offered;
    unsigned queues = v->queues;
    int rc;

    rc = state_load(virtio_state, countof(virtio_state), v, t, data, len, pos, err);
    if (rc == 0 && (v->queues != queues || v->offered != offered))
        rc = error_set(err, -EINVAL, "%s: the saved device has other queues or features",
                       v->env->name);
    v->queues = queues;
    v->offered = offered;
    v->config_vector = virtio_valid_vector(v, v->config_vector);
    for (unsigned i = 0; i < VIRTIO_QUEUES_MAX; i++)
        v->vector[i] = virtio_valid_vector(v, v->vector[i]);
    for (unsigned i = 0; i < queues && rc == 0; i++) {
        rc = state_load(virtq_state, countof(virtq_state), &v->q[i], t, data, len, pos, err);
        if (virtq_loaded(&v->q[i]) != 0) {
            virtq_reset(&v->q[i]);
            if (rc == 0)
                rc = error_set(err, -EINVAL, "%s: the saved queue %u is not possible", v->env->name,
                               i);
        }
    }
    if (rc == 0)
        rc = state_load(v->ops->state, v->ops->state_count, v->impl, t, data, len, pos, err);
    if (rc == 0 && v->ops->loaded != NULL)
        v->ops->loaded(v->impl);
    return rc;
}
