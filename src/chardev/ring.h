/* A ring of bytes of fixed size. No locking: the owner's lock is held. */
#ifndef CHARDEV_RING_H
#define CHARDEV_RING_H

#include <stddef.h>
#include <stdint.h>

struct ring {
    uint8_t *data;
    size_t cap;        /* a power of two */
    size_t head, tail; /* counts of bytes put and taken; they wrap together */
};

int ring_init(struct ring *r, size_t cap); /* -ENOMEM */
void ring_fini(struct ring *r);

static inline size_t ring_used(const struct ring *r)
{
    return r->head - r->tail;
}

static inline size_t ring_room(const struct ring *r)
{
    return r->cap - ring_used(r);
}

/* Puts all of it; the oldest bytes (or the first of a longer `from`) give way. Bytes lost. */
size_t ring_put(struct ring *r, const void *from, size_t len);

/* Takes up to len bytes. */
size_t ring_take(struct ring *r, void *to, size_t len);

/* The longest run from the oldest byte; ring_skip drops what was used of it. */
size_t ring_peek(const struct ring *r, const uint8_t **run);
void ring_skip(struct ring *r, size_t len);

/* Makes room for len more bytes. -ENOMEM. */
int ring_grow(struct ring *r, size_t len);

#endif
