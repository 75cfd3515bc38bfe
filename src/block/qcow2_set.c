/* A set of cluster numbers: open addressing, at most half full. */
#include "block/qcow2.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static size_t home(const struct qcow2_set *s, uint64_t n)
{
    return (size_t)((n * 0x9e3779b97f4a7c15ull) >> 20) & (s->size - 1);
}

static size_t find(const struct qcow2_set *s, uint64_t n)
{
    size_t i = home(s, n);

    while (s->slot[i] != 0 && s->slot[i] != n + 1)
        i = (i + 1) & (s->size - 1);
    return i;
}

static int grow(struct qcow2_set *s)
{
    struct qcow2_set bigger = {.size = s->size == 0 ? 64 : s->size * 2, .used = s->used};

    bigger.slot = calloc(bigger.size, sizeof(*bigger.slot));
    if (bigger.slot == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < s->size; i++) {
        if (s->slot[i] != 0)
            bigger.slot[find(&bigger, s->slot[i] - 1)] = s->slot[i];
    }
    free(s->slot);
    *s = bigger;
    return 0;
}

int qcow2_set_add(struct qcow2_set *s, uint64_t n)
{
    size_t i;

    if (s->used * 2 >= s->size && grow(s) < 0)
        return -ENOMEM;
    i = find(s, n);
    if (s->slot[i] != 0)
        return 1;
    s->slot[i] = n + 1;
    s->used++;
    return 0;
}

bool qcow2_set_has(const struct qcow2_set *s, uint64_t n)
{
    return s->size > 0 && s->slot[find(s, n)] != 0;
}

/* The rest of the run moves up, so that every member is still found from its home. */
void qcow2_set_remove(struct qcow2_set *s, uint64_t n)
{
    size_t hole, i;

    if (!qcow2_set_has(s, n))
        return;
    hole = find(s, n);
    s->slot[hole] = 0;
    s->used--;
    for (i = (hole + 1) & (s->size - 1); s->slot[i] != 0; i = (i + 1) & (s->size - 1)) {
        uint64_t moved = s->slot[i];

        s->slot[i] = 0;
        s->slot[find(s, moved - 1)] = moved;
    }
}

void qcow2_set_free(struct qcow2_set *s)
{
    free(s->slot);
    memset(s, 0, sizeof(*s));
}
