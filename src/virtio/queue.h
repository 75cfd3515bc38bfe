/*
 * Virtqueues, device side. virtio 1.2, "Split Virtqueues" and "Packed Virtqueues". One interface;
 * which of the two a queue is stands in `packed`, and is settled when it is enabled.
 *
 * Split:
 *     descriptor table   16 bytes each: address 64, length 32, flags 16, next 16
 *     available ring     flags 16, index 16, head 16 each, used_event 16   (the driver writes)
 *     used ring          flags 16, index 16, {head 32, length 32} each, avail_event 16   (we write)
 *
 * Packed, where both sides write the ring, and the addresses `avail` and `used` are those of the
 * two event areas:
 *     descriptor ring    16 bytes each: address 64, length 32, buffer id 16, flags 16
 *     driver's area      descriptor 15 and wrap 1, flags 16     when we should interrupt
 *     device's area      the same                               when it should notify
 *
 * Everything in them is the guest's and may change while we look. So a descriptor is copied once
 * and the copy is judged: in bounds, not too many, readable ones before writable ones, every byte
 * in RAM. A ring that breaks a rule makes the queue `broken`: it hands out nothing more until it is
 * set up again, and the transport tells the driver by DEVICE_NEEDS_RESET.
 *
 * The owner's lock is held around every call. The driver's vCPUs run meanwhile.
 */
#ifndef VIRTIO_QUEUE_H
#define VIRTIO_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "bus/device.h"
#include "mem/gmem.h"

#ifdef XHYVE_HOSTILE
#define VIRTQ_SIZE_MAX 2u
#else
#define VIRTQ_SIZE_MAX 1024u
#endif

/* Segments of one request. A chain of the ring or an indirect table may not be longer. */
#define VIRTQ_CHAIN_MAX 512u

struct virtq_seg {
    void *hva; /* RAM, len bytes; NULL if len is 0 */
    uint64_t gpa;
    uint32_t len;
};

/* What a request is returned by. It means nothing any more once the queue was reset. */
struct virtq_token {
    uint16_t head;  /* split: its first descriptor; packed: the buffer's id */
    uint16_t slots; /* packed: how many places of the ring it takes */
    uint32_t era;
};

/* One request: segs[0..out_count) are read by the device, the in_count after them written. */
struct virtq_chain {
    struct virtq_token token;
    unsigned out_count, in_count;
    uint64_t out_len, in_len;
    struct virtq_seg segs[VIRTQ_CHAIN_MAX];
};

struct virtq {
    struct gmem *mem;
    uint16_t max;               /* the device's limit */
    uint16_t size;              /* at most max; split: a power of two */
    uint64_t desc, avail, used; /* guest-physical */
    bool enabled, broken;
    bool indirect, event_idx, packed; /* negotiated */
    bool quiet;                       /* no notifications wanted */
    uint16_t next_avail; /* the next available entry to take; packed: below size, as next_used */
    uint16_t next_used;  /* the next used entry to write */
    uint16_t signalled;  /* split: next_used at the last interrupt decision */
    bool avail_wrap, used_wrap; /* packed: the wrap counters that go with the two */
    uint32_t pushed;            /* packed: places given back since the last interrupt decision */
    uint32_t era;               /* counts resets, so that late completions are known */
    const char *why;            /* what broke it, a literal */
    uint8_t *desc_hva;          /* derived from the addresses by virtq_map */
    const uint8_t *avail_hva;
    uint8_t *used_hva;
};

/* max is a power of two; clamped to VIRTQ_SIZE_MAX. */
void virtq_init(struct virtq *q, struct gmem *mem, unsigned max);

/* Not set up, indices zero, size max; requests that are out cannot be returned any more. */
void virtq_reset(struct virtq *q);

/* Whether a driver may choose this size. */
bool virtq_size_valid(const struct virtq *q, unsigned size);

/*
 * Size and addresses are set: take them. -EINVAL (and broken) if a ring is not aligned or not in
 * RAM.
 */
int virtq_enable(struct virtq *q);

/* The addresses of the layout that begins at `base`, as legacy drivers lay it out. */
void virtq_set_legacy(struct virtq *q, uint64_t base);

/*
 * 1 and a request; 0: none waits; -EINVAL: the ring is malformed, now broken. No more requests than
 * `size` are ever out.
 */
int virtq_pop(struct virtq *q, struct virtq_chain *c);

/* Gives the last popped request back, as if it had not been popped. */
void virtq_unpop(struct virtq *q, const struct virtq_token *t);

/*
 * Returns a request, in any order; written: bytes stored into its writable segments, from the first
 * on. Nothing happens if the queue was reset meanwhile, or is broken.
 */
void virtq_push(struct virtq *q, const struct virtq_token *t, uint32_t written);

/* Whether the driver wants an interrupt for what was pushed since the last question. */
bool virtq_wants_interrupt(struct virtq *q);

/* Whether the driver should notify (as far as it listens). Look at the queue again after `true`. */
void virtq_set_notify(struct virtq *q, bool wanted);

/* Copies of up to len bytes from `offset` of the readable (to the writable) part; how many. */
size_t virtq_copy_out(const struct virtq_chain *c, uint64_t offset, void *to, size_t len);
size_t virtq_copy_in(struct virtq *q, const struct virtq_chain *c, uint64_t offset,
                     const void *from, size_t len);

/* Where the device wrote through segs[].hva itself: tells the engines. */
void virtq_written(struct virtq *q, const struct virtq_chain *c, uint64_t len);

/* After a snapshot: checks everything and finds the rings again. -EINVAL. */
int virtq_loaded(struct virtq *q);

#endif
