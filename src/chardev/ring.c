#include "chardev/ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

int ring_init(struct ring *r, size_t cap)
{
    *r = (struct ring){.data = malloc(cap), .cap = cap};
    return r->data == NULL ? -ENOMEM : 0;
}

void ring_fini(struct ring *r)
{
    free(r->data);
    *r = (struct ring){.data = NULL};
}

size_t ring_put(struct ring *r, const void *from, size_t len)
{
    const uint8_t *p = from;
    size_t lost = 0;

    if (len > r->cap) {
        lost = len - r->cap;
        p += lost;
        len = r->cap;
    }
    if (len > ring_room(r)) {
        size_t excess = len - ring_room(r);

        lost += excess;
        r->tail += excess;
    }
    while (len > 0) {
        size_t at = r->head & (r->cap - 1);
        size_t n = (size_t)min_u64(len, r->cap - at);

        memcpy(r->data + at, p, n);
        r->head += n;
        p += n;
        len -= n;
    }
    return lost;
}

size_t ring_take(struct ring *r, void *to, size_t len)
{
    uint8_t *out = to;
    size_t done = 0;

    while (done < len) {
        const uint8_t *run;
        size_t n = (size_t)min_u64(ring_peek(r, &run), len - done);

        if (n == 0)
            break;
        memcpy(out + done, run, n);
        ring_skip(r, n);
        done += n;
    }
    return done;
}

size_t ring_peek(const struct ring *r, const uint8_t **run)
{
    size_t at = r->tail & (r->cap - 1);

    *run = r->data + at;
    return (size_t)min_u64(ring_used(r), r->cap - at);
}

void ring_skip(struct ring *r, size_t len)
{
    r->tail += len;
}

int ring_grow(struct ring *r, size_t len)
{
    struct ring bigger;
    size_t used = ring_used(r), cap = r->cap;

    if (len > SIZE_MAX / 4 || used > SIZE_MAX / 4)
        return -ENOMEM;
    while (cap - used < len)
        cap *= 2;
    if (cap == r->cap)
        return 0;
    if (ring_init(&bigger, cap) < 0)
        return -ENOMEM;
    ring_take(r, bigger.data, used);
    bigger.head = used;
    ring_fini(r);
    *r = bigger;
    return 0;
}
