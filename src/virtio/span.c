#include "virtio/span.h"

#include <stdlib.h>

static bool grow(struct virtq_span *s, unsigned count)
{
    unsigned capacity = s->capacity != 0 ? s->capacity : 8;
    struct iovec *iov;
    uint64_t *gpa;

    while (capacity < count)
        capacity *= 2;
    if (capacity == s->capacity)
        return true;
    iov = realloc(s->iov, capacity * sizeof(*iov));
    if (iov != NULL)
        s->iov = iov;
    gpa = realloc(s->gpa, capacity * sizeof(*gpa));
    if (gpa != NULL)
        s->gpa = gpa;
    if (iov == NULL || gpa == NULL)
        return false;
    s->capacity = capacity;
    return true;
}

bool virtq_span_set(struct virtq_span *s, const struct virtq_seg *segs, unsigned n, uint64_t skip,
                    uint64_t len)
{
    s->count = 0;
    if (!grow(s, n))
        return false;
    for (; n > 0 && len > 0; n--, segs++) {
        uint64_t part;

        if (skip >= segs->len) {
            skip -= segs->len;
            continue;
        }
        part = min_u64(segs->len - skip, len);
        s->iov[s->count].iov_base = (uint8_t *)segs->hva + skip;
        s->iov[s->count].iov_len = (size_t)part;
        s->gpa[s->count++] = segs->gpa + skip;
        skip = 0;
        len -= part;
    }
    return true;
}

void virtq_span_written(const struct virtq_span *s, struct gmem *mem)
{
    for (unsigned i = 0; i < s->count; i++)
        gmem_written(mem, s->gpa[i], s->iov[i].iov_len);
}

void virtq_span_free(struct virtq_span *s)
{
    free(s->iov);
    free(s->gpa);
}
