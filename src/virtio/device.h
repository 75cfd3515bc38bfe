/*
 * What a virtio device type is, apart from how drivers reach it. A type is one const table; the
 * transport (virtio/pci.c) owns queues, features, status and interrupts.
 *
 * env->lock is held around every callback but create, and must be held around every call here.
 */
#ifndef VIRTIO_DEVICE_H
#define VIRTIO_DEVICE_H

#include "pci/pci.h"
#include "virtio/queue.h"

#define VIRTIO_QUEUES_MAX 64u

#define VIRTIO_F_ANY_LAYOUT (1ull << 27)
#define VIRTIO_F_INDIRECT_DESC (1ull << 28)
#define VIRTIO_F_EVENT_IDX (1ull << 29)
#define VIRTIO_F_VERSION_1 (1ull << 32)
#define VIRTIO_F_RING_PACKED (1ull << 34)
#define VIRTIO_F_RING_RESET (1ull << 40)

struct virtio;

struct virtio_ops {
    uint16_t id;     /* virtio device id: 1 net, 2 blk, 4 entropy ... */
    uint16_t pci_id; /* transitional: 0x1000 net, 0x1001 blk, 0x1005 entropy ... */
    uint32_t class_code;
    uint64_t features; /* the type's own; the transport adds the ring's */
    unsigned queues;   /* at most VIRTIO_QUEUES_MAX */
    unsigned queue_size;
    unsigned cfg_len;                /* of the type's configuration, at most 256 */
    const struct state_field *state; /* of impl */
    size_t state_count;
    int (*create)(struct virtio *v, struct dev_env *env, const struct options *opts, void **out,
                  struct error *err);
    void (*destroy)(void *dev);
    /*
     * No request may be in flight when it returns, nor touch memory later. The queues are already
     * reset, so what still completes inside is not seen by the driver. May be NULL.
     */
    void (*reset)(void *dev);
    /* Before its state is saved: completes what is in flight. May be NULL. */
    void (*quiesce)(void *dev);
    void (*loaded)(void *dev); /* may be NULL */
    /* FEATURES_OK, or a legacy driver's DRIVER_OK: the negotiated set. May be NULL. */
    void (*negotiated)(void *dev, uint64_t features);
    /* The type's configuration, a byte at a time; offset < cfg_len. NULL if cfg_len is 0. */
    uint8_t (*cfg_read)(void *dev, unsigned offset);
    /* value little-endian; offset + size <= cfg_len. NULL: read-only. */
    void (*cfg_write)(void *dev, unsigned offset, unsigned size, uint32_t value);
    /* The driver has put requests into a queue. */
    void (*notify)(void *dev, unsigned queue);
    /* One queue was reset: as reset, for its requests. May be NULL. */
    void (*queue_reset)(void *dev, unsigned queue);
};

/* At create: features and queues that depend on options. */
void virtio_add_features(struct virtio *v, uint64_t features);
int virtio_set_queues(struct virtio *v, unsigned queues, struct error *err);

uint64_t virtio_features(const struct virtio *v); /* negotiated; 0 before */
bool virtio_ready(const struct virtio *v);        /* the driver has said DRIVER_OK */
struct virtq *virtio_queue(struct virtio *v, unsigned queue);

/* As virtq_pop, but a malformed ring sets DEVICE_NEEDS_RESET. true: a request is in *c. */
bool virtio_pop(struct virtio *v, unsigned queue, struct virtq_chain *c);
/* A request breaks the type's own rules: DEVICE_NEEDS_RESET, and a line in the log. */
void virtio_fail(struct virtio *v, const char *why);

void virtio_push(struct virtio *v, unsigned queue, const struct virtq_token *t, uint32_t written);
/* Interrupts if the driver wants one for what was pushed; once after a batch. */
void virtio_flush(struct virtio *v, unsigned queue);

/* The type's configuration has changed: generation and interrupt. */
void virtio_config_changed(struct virtio *v);

#endif
