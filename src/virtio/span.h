/*
 * Part of a request's memory as an iovec, for reads and writes that go straight to it. Grows as
 * needed, and is kept from one request to the next. The owner's lock is held.
 */
#ifndef VIRTIO_SPAN_H
#define VIRTIO_SPAN_H

#include <sys/uio.h>

#include "virtio/queue.h"

struct virtq_span { /* zero-initialise */
    struct iovec *iov;
    unsigned count;
    uint64_t *gpa; /* of each iov */
    unsigned capacity;
};

/* len bytes from `skip` on of n segments, empty ones left out. False: no memory, span is empty. */
bool virtq_span_set(struct virtq_span *s, const struct virtq_seg *segs, unsigned n, uint64_t skip,
                    uint64_t len);
/* Its bytes were stored into by host address: tells the engines. */
void virtq_span_written(const struct virtq_span *s, struct gmem *mem);
void virtq_span_free(struct virtq_span *s);

#endif
