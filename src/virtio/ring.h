/*
 * Shared by queue.c (the split ring, and what both have) and packed.c. As virtio/queue.h: the
 * owner's lock is held; the queue is enabled and not broken.
 */
#ifndef VIRTIO_RING_H
#define VIRTIO_RING_H

#include "virtio/queue.h"

#define DESC_NEXT 1u
#define DESC_WRITE 2u
#define DESC_INDIRECT 4u
#define DESC_SIZE 16u
#define EVENT_SIZE 4u /* an event area of a packed ring */

/* A copy of a descriptor; next: of the split ring. */
struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

static_assert(DESC_SIZE == 8 + 4 + 2 + 2, "a descriptor on the wire");

/* queue.c. Each returns 0, or -EINVAL and the queue is broken for that reason. */
int virtq_break(struct virtq *q, const char *why); /* always -EINVAL */
int virtq_add_seg(struct virtq *q, struct virtq_chain *c, const struct desc *d);
int virtq_table_valid(struct virtq *q, const struct desc *table); /* an indirect one */
/*
 * table[index] as it stands, while its driver may be writing it: each part is loaded once. The
 * table need not be aligned.
 */
int virtq_copy_desc(struct virtq *q, uint64_t table, unsigned index, uint8_t raw[DESC_SIZE]);

/* packed.c: the functions of virtio/queue.h for that ring. */
bool packed_indices_valid(const struct virtq *q);
int packed_pop(struct virtq *q, struct virtq_chain *c);
void packed_unpop(struct virtq *q, const struct virtq_token *t);
void packed_push(struct virtq *q, const struct virtq_token *t, uint32_t written);
bool packed_wants_interrupt(struct virtq *q);
void packed_set_notify(struct virtq *q); /* as q->quiet says */

#endif
