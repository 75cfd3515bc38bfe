#include "block/qcow2_count.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static size_t find(const struct qcow2_counts *c, uint64_t number)
{
    size_t i = (size_t)((number * 0x9e3779b97f4a7c15ull) >> 20) & (c->size - 1);

    while (c->page[i].number != 0 && c->page[i].number != number + 1)
        i = (i + 1) & (c->size - 1);
    return i;
}

static int grow(struct qcow2_counts *c)
{
    struct qcow2_counts bigger = *c;

    bigger.size = c->size == 0 ? 64 : c->size * 2;
    bigger.page = calloc(bigger.size, sizeof(*bigger.page));
    if (bigger.page == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < c->size; i++) {
        if (c->page[i].number != 0)
            bigger.page[find(&bigger, c->page[i].number - 1)] = c->page[i];
    }
    free(c->page);
    *c = bigger;
    return 0;
}

uint32_t *qcow2_count_at(struct qcow2_counts *c, uint64_t cluster)
{
    uint64_t number = cluster / COUNT_PAGE;
    struct qcow2_count_page *p;

    if (c->used * 2 >= c->size && grow(c) < 0)
        return NULL;
    p = &c->page[find(c, number)];
    if (p->number == 0) {
        if (c->used >= COUNT_PAGES_MAX)
            return NULL;
        p->count = calloc(COUNT_PAGE, sizeof(*p->count));
        if (p->count == NULL)
            return NULL;
        p->number = number + 1;
        c->used++;
    }
    c->end = max_u64(c->end, cluster + 1);
    return &p->count[cluster % COUNT_PAGE];
}

uint32_t qcow2_count_get(const struct qcow2_counts *c, uint64_t cluster)
{
    const struct qcow2_count_page *p;

    if (c->size == 0)
        return 0;
    p = &c->page[find(c, cluster / COUNT_PAGE)];
    return p->number == 0 ? 0 : p->count[cluster % COUNT_PAGE];
}

bool qcow2_count_any(const struct qcow2_counts *c, uint64_t first, uint64_t n)
{
    for (uint64_t at = first; at < first + n && c->size > 0; at++) {
        if (c->page[find(c, at / COUNT_PAGE)].number == 0)
            at |= COUNT_PAGE - 1; /* a page that is not there */
        else if (qcow2_count_get(c, at) != 0)
            return true;
    }
    return false;
}

void qcow2_count_free(struct qcow2_counts *c)
{
    for (size_t i = 0; i < c->size; i++)
        free(c->page[i].count);
    free(c->page);
    memset(c, 0, sizeof(*c));
}
