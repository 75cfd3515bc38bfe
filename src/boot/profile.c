#include "boot/profile.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "base/bits.h"

#define ADDRESSES_MIN 16u
#define ADDRESSES_MAX (1u << 24)
#define PAGE 4096ull

/* Unused while count is 0. The top bit of count says user: addresses take all 64 bits. */
struct slot {
    uint64_t addr, count;
};

#define COUNT_USER (1ull << 63)
#define COUNT_MASK (COUNT_USER - 1)

struct profile {
    struct slot *slot;            /* hashed by address and mode, open addressing */
    unsigned size;                /* a power of two */
    unsigned used;                /* at most 7/8 of it */
    uint64_t samples[2], lost[2]; /* kernel, user */
};

struct profile *profile_create(unsigned addresses)
{
    struct profile *p = calloc(1, sizeof(*p));

    if (p == NULL)
        return NULL;
    p->size = ADDRESSES_MIN;
    while (p->size < addresses && p->size < ADDRESSES_MAX)
        p->size *= 2;
    p->slot = calloc(p->size, sizeof(*p->slot));
    if (p->slot == NULL) {
        free(p);
        return NULL;
    }
    return p;
}

static void add(struct profile *p, uint64_t addr, bool user, uint64_t n)
{
    uint64_t mode = user ? COUNT_USER : 0;
    uint64_t hash = (addr ^ mode) * 0x9E3779B97F4A7C15ull;
    unsigned i = (unsigned)(hash >> 32) & (p->size - 1);

    p->samples[user] += n;
    for (; p->slot[i].count != 0; i = (i + 1) & (p->size - 1)) {
        if (p->slot[i].addr == addr && (p->slot[i].count & COUNT_USER) == mode) {
            p->slot[i].count += n;
            return;
        }
    }
    if (p->used >= p->size - p->size / 8) {
        p->lost[user] += n;
        return;
    }
    p->used++;
    p->slot[i] = (struct slot){addr, n | mode};
}

void profile_add(struct profile *p, uint64_t addr, bool user)
{
    add(p, addr, user, 1);
}

void profile_merge(struct profile *p, const struct profile *from)
{
    for (unsigned i = 0; i < from->size; i++) {
        const struct slot *s = &from->slot[i];

        if (s->count != 0)
            add(p, s->addr, (s->count & COUNT_USER) != 0, s->count & COUNT_MASK);
    }
    for (int user = 0; user < 2; user++) {
        p->samples[user] += from->lost[user];
        p->lost[user] += from->lost[user];
    }
}

uint64_t profile_samples(const struct profile *p)
{
    return p->samples[0] + p->samples[1];
}

uint64_t profile_lost(const struct profile *p)
{
    return p->lost[0] + p->lost[1];
}

void profile_clear(struct profile *p)
{
    for (unsigned i = 0; i < p->size; i++)
        p->slot[i] = (struct slot){0};
    p->used = 0;
    for (int user = 0; user < 2; user++)
        p->samples[user] = p->lost[user] = 0;
}

void profile_destroy(struct profile *p)
{
    if (p == NULL)
        return;
    free(p->slot);
    free(p);
}

/* ---- the table ---- */

struct row {
    uint64_t samples;
    uint64_t start; /* of the function or the page */
    uint64_t top, top_samples;
    const char *name; /* NULL: a page */
    bool user;
};

static int by_address(const void *pa, const void *pb)
{
    const struct slot *a = pa, *b = pb;
    bool user_a = (a->count & COUNT_USER) != 0, user_b = (b->count & COUNT_USER) != 0;

    if (user_a != user_b)
        return user_a ? 1 : -1;
    return a->addr < b->addr ? -1 : a->addr > b->addr;
}

/* Ties by address, so that the same samples give the same table. */
static int by_samples(const void *pa, const void *pb)
{
    const struct row *a = pa, *b = pb;

    if (a->samples != b->samples)
        return a->samples > b->samples ? -1 : 1;
    if (a->user != b->user)
        return a->user ? 1 : -1;
    return a->start < b->start ? -1 : a->start > b->start;
}

static struct row row_of(const struct slot *s, const struct symbols *symbols)
{
    struct row r = {.samples = s->count & COUNT_MASK,
                    .start = align_down(s->addr, PAGE),
                    .top = s->addr,
                    .user = (s->count & COUNT_USER) != 0};
    uint64_t offset;

    r.top_samples = r.samples;
    if (!r.user && symbols != NULL)
        r.name = symbols_find(symbols, s->addr, &offset);
    if (r.name != NULL)
        r.start = s->addr - offset;
    return r;
}

/* Sorts the slots and joins what stands together; returns the number of rows. */
static unsigned make_rows(struct slot *slot, unsigned n, const struct symbols *symbols,
                          struct row *row)
{
    unsigned rows = 0;

    qsort(slot, n, sizeof(*slot), by_address);
    for (unsigned i = 0; i < n; i++) {
        struct row r = row_of(&slot[i], symbols), *last = rows > 0 ? &row[rows - 1] : NULL;

        if (last == NULL || last->start != r.start || last->name != r.name ||
            last->user != r.user) {
            row[rows++] = r;
            continue;
        }
        last->samples += r.samples;
        if (r.top_samples > last->top_samples) {
            last->top = r.top;
            last->top_samples = r.top_samples;
        }
    }
    qsort(row, rows, sizeof(*row), by_samples);
    return rows;
}

static double percent(uint64_t part, uint64_t all)
{
    return all != 0 ? 100.0 * (double)part / (double)all : 0;
}

static void print_rows(const struct profile *p, const struct row *row, unsigned n, unsigned show,
                       FILE *to)
{
    uint64_t all = profile_samples(p), rest = 0;

    fprintf(to, "%" PRIu64 " samples: %.1f %% kernel, %.1f %% user\n", all,
            percent(p->samples[0], all), percent(p->samples[1], all));
    if (n > 0)
        fprintf(to, "%10s %7s  %-6s  %s\n", "samples", "percent", "mode", "where (most at)");
    for (unsigned i = 0; i < show; i++) {
        const struct row *r = &row[i];

        fprintf(to, "%10" PRIu64 " %7.2f  %-6s  ", r->samples, percent(r->samples, all),
                r->user ? "user" : "kernel");
        if (r->name != NULL)
            fprintf(to, "%s (+%#" PRIx64 ": %" PRIu64 ")\n", r->name, r->top - r->start,
                    r->top_samples);
        else
            fprintf(to, "page %#" PRIx64 " (%#" PRIx64 ": %" PRIu64 ")\n", r->start, r->top,
                    r->top_samples);
    }
    for (unsigned i = show; i < n; i++)
        rest += row[i].samples;
    if (rest != 0)
        fprintf(to, "%10" PRIu64 " %7.2f          in %u more places\n", rest, percent(rest, all),
                n - show);
    for (int user = 0; user < 2; user++)
        if (p->lost[user] != 0)
            fprintf(to, "%10" PRIu64 " %7.2f  %-6s  not kept: more than %u addresses\n",
                    p->lost[user], percent(p->lost[user], all), user ? "user" : "kernel", p->used);
}

int profile_report(const struct profile *p, const struct symbols *symbols, unsigned rows, FILE *to)
{
    struct slot *slot = malloc((p->used + 1) * sizeof(*slot));
    struct row *row = malloc((p->used + 1) * sizeof(*row));
    unsigned n = 0, made;
    int rc = -ENOMEM;

    if (slot != NULL && row != NULL) {
        for (unsigned i = 0; i < p->size; i++)
            if (p->slot[i].count != 0)
                slot[n++] = p->slot[i];
        made = make_rows(slot, n, symbols, row);
        print_rows(p, row, made, rows != 0 && rows < made ? rows : made, to);
        rc = ferror(to) ? -EIO : 0;
    }
    free(slot);
    free(row);
    return rc;
}
