#include "boot/symbols.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "boot/symbols_build.h"

#define MEMORY_MAX (512 * MIB)
#define READ_PIECE (64 * KIB)
#define READ_PAGE (4 * KIB)

struct entry {
    uint64_t addr;
    uint32_t name; /* 0: no text from here on */
};

struct symbols {
    struct entry *entry; /* by address */
    size_t n;
    unsigned names;
    char *pool;
};

/* ---- collecting ---- */

bool symbols_text_type(char type)
{
    return type == 'T' || type == 't' || type == 'W' || type == 'w';
}

bool symbols_ends_text(char type)
{
    return !symbols_text_type(type) && strchr("AaUuNn?", type) == NULL;
}

/* Room for `more` elements behind the first n. */
static int grow(void **array, size_t *cap, size_t n, size_t more, size_t width)
{
    size_t want = *cap != 0 ? *cap : 4096;
    void *p;

    if (*cap - n >= more)
        return 0;
    while (want - n < more)
        want *= 2;
    p = realloc(*array, want * width);
    if (p == NULL)
        return -ENOMEM;
    *array = p;
    *cap = want;
    return 0;
}

static int add_name(struct symbols_build *b, const char *name, size_t len, uint32_t *at)
{
    size_t n = min_u64(len, SYMBOLS_NAME_MAX);
    void *pool = b->pool;
    char *to;

    if (b->used + n + 2 > SYMBOLS_POOL_MAX)
        return -E2BIG;
    if (grow(&pool, &b->room, b->used, n + 2, 1) != 0)
        return -ENOMEM;
    b->pool = pool;
    if (b->used == 0)
        b->pool[b->used++] = '\0'; /* so that no name has place 0 */
    to = b->pool + b->used;
    for (size_t i = 0; i < n; i++)
        to[i] = name[i] > ' ' && name[i] <= '~' ? name[i] : '?';
    to[n] = '\0';
    *at = (uint32_t)b->used;
    b->used += n + 1;
    return 0;
}

int symbols_add(struct symbols_build *b, const struct symbols_raw *raw, const char *name,
                size_t len)
{
    struct symbols_raw copy = *raw;
    void *array = b->raw;
    int rc = 0;

    if (b->n == SYMBOLS_MAX)
        return -E2BIG;
    if (grow(&array, &b->cap, b->n, 1, sizeof(*b->raw)) != 0)
        return -ENOMEM;
    b->raw = array;
    copy.name = 0;
    if (name != NULL)
        rc = add_name(b, name, len, &copy.name);
    if (rc == 0)
        b->raw[b->n++] = copy;
    return rc;
}

/*
 * What the kernel's linker puts behind its code. A kernel whose table lists functions only
 * (CONFIG_KALLSYMS_ALL off) has nothing else to say so.
 */
static bool is_end_mark(const char *name, size_t len)
{
    return (len == 6 && memcmp(name, "_etext", 6) == 0) ||
           (len == 10 && memcmp(name, "_einittext", 10) == 0);
}

int symbols_add_typed(struct symbols_build *b, uint64_t addr, char type, const char *name,
                      size_t len)
{
    struct symbols_raw raw = {.addr = addr, .end = UINT64_MAX};

    if (symbols_text_type(type) && len > 0) {
        if (is_end_mark(name, len) && addr != UINT64_MAX)
            raw.end = addr + 1;
        return symbols_add(b, &raw, name, len);
    }
    /* Tables are sorted as a rule; of a run of data symbols the first is enough then. */
    if (!symbols_ends_text(type) || b->n == 0 ||
        (b->raw[b->n - 1].name == 0 && b->raw[b->n - 1].addr <= addr))
        return 0;
    return symbols_add(b, &raw, NULL, 0);
}

void symbols_build_free(struct symbols_build *b)
{
    free(b->raw);
    free(b->pool);
    *b = (struct symbols_build){0};
}

/* Ends of text before names; among names of one address by rank, then as they came. */
static int compare(const void *pa, const void *pb)
{
    const struct symbols_raw *a = pa, *b = pb;

    if (a->addr != b->addr)
        return a->addr < b->addr ? -1 : 1;
    if ((a->name == 0) != (b->name == 0))
        return a->name == 0 ? -1 : 1;
    if (a->rank != b->rank)
        return a->rank > b->rank ? -1 : 1;
    return a->name < b->name ? -1 : a->name > b->name;
}

static void put_end(struct symbols *s, uint64_t addr)
{
    if (s->n > 0 && s->entry[s->n - 1].name != 0)
        s->entry[s->n++] = (struct entry){addr, 0};
}

/* Fills the entries, for which there is room: at most two for each raw symbol. */
static void settle(struct symbols *s, const struct symbols_build *b)
{
    uint64_t reach = 0; /* the furthest end so far: a function may lie inside another */

    for (size_t i = 0; i < b->n; i++) {
        const struct symbols_raw *r = &b->raw[i];
        uint64_t next = i + 1 < b->n ? b->raw[i + 1].addr : UINT64_MAX, end;

        if (r->name == 0) {
            if (next != r->addr)
                put_end(s, r->addr);
            continue;
        }
        s->entry[s->n++] = (struct entry){r->addr, r->name};
        s->names++;
        end = max_u64(reach, r->end);
        if (r->sized)
            reach = end;
        if (end < next)
            put_end(s, end);
    }
}

int symbols_finish(struct symbols_build *b, struct symbols **out, struct error *err)
{
    struct symbols *s = calloc(1, sizeof(*s));
    size_t room = 2 * b->n;
    bool sorted = true;
    void *smaller;

    if (s != NULL && b->n > 0)
        s->entry = malloc(room * sizeof(*s->entry));
    if (s == NULL || (b->n > 0 && s->entry == NULL)) {
        free(s);
        symbols_build_free(b);
        return error_set(err, -ENOMEM, "no memory for a table of symbols");
    }
    for (size_t i = 1; i < b->n && sorted; i++)
        sorted = compare(&b->raw[i - 1], &b->raw[i]) <= 0;
    if (!sorted)
        qsort(b->raw, b->n, sizeof(*b->raw), compare);
    settle(s, b);
    if (s->n > 0 && (smaller = realloc(s->entry, s->n * sizeof(*s->entry))) != NULL)
        s->entry = smaller;
    if (b->used > 0 && (smaller = realloc(b->pool, b->used)) != NULL)
        b->pool = smaller;
    s->pool = b->pool;
    b->pool = NULL;
    symbols_build_free(b);
    *out = s;
    return 0;
}

int symbols_build_failed(int rc, struct error *err)
{
    return rc == -ENOMEM
               ? error_set(err, rc, "no memory for a table of symbols")
               : error_set(err, rc,
                           "more than %u symbols or %u MiB of names; is this a table of symbols?",
                           SYMBOLS_MAX, SYMBOLS_POOL_MAX >> 20);
}

/* ---- kernels in memory ---- */

int symbols_from_kernel(const uint8_t *image, size_t size, uint64_t linear, struct symbols **out,
                        struct error *err)
{
    struct symbols_build b = {0};
    int rc = symbols_kallsyms(&b, image, size, linear);

    if (rc == 0)
        return symbols_finish(&b, out, err);
    symbols_build_free(&b);
    if (rc != -ENOENT)
        return symbols_build_failed(rc, err);
    return error_set(err, rc,
                     "no kallsyms in these %zu bytes; is a Linux kernel there, built with "
                     "CONFIG_KALLSYMS?",
                     size);
}

int symbols_from_memory(symbols_read_fn read, void *ctx, uint64_t linear, size_t size,
                        struct symbols **out, struct error *err)
{
    size_t seen = 0;
    uint8_t *copy;
    int rc;

    if (size > MEMORY_MAX || (linear & (READ_PAGE - 1)) != 0)
        return error_set(err, -EINVAL, "symbols are looked for in whole pages, at most %llu MiB",
                         MEMORY_MAX / MIB);
    copy = calloc(1, size != 0 ? size : 1);
    if (copy == NULL)
        return error_set(err, -ENOMEM, "no memory for a copy of %zu bytes of the guest", size);
    for (size_t at = 0; at < size; at += READ_PIECE) {
        size_t len = min_u64(READ_PIECE, size - at);

        if (read(ctx, linear + at, copy + at, len) == 0) {
            seen += len;
            continue;
        }
        for (size_t page = at; page < at + len; page += READ_PAGE) {
            size_t part = min_u64(READ_PAGE, at + len - page);

            if (read(ctx, linear + page, copy + page, part) == 0)
                seen += part;
            else
                memset(copy + page, 0, part);
        }
    }
    rc = seen > 0 ? symbols_from_kernel(copy, size, linear, out, err)
                  : error_set(err, -EFAULT, "the guest has no memory at %#llx",
                              (unsigned long long)linear);
    free(copy);
    return rc;
}

/* ---- using ---- */

static void reverse(struct entry *e, size_t n)
{
    for (size_t lo = 0, hi = n; lo < hi--; lo++) {
        struct entry t = e[lo];

        e[lo] = e[hi];
        e[hi] = t;
    }
}

void symbols_move(struct symbols *s, uint64_t slide)
{
    size_t wrapped = 0;

    for (size_t i = 0; i < s->n; i++) {
        s->entry[i].addr += slide;
        if (i > 0 && s->entry[i].addr < s->entry[i - 1].addr)
            wrapped = i;
    }
    if (wrapped == 0)
        return;
    /* Past the top of the address space: those that came round are the lowest now. */
    reverse(s->entry, wrapped);
    reverse(s->entry + wrapped, s->n - wrapped);
    reverse(s->entry, s->n);
}

const char *symbols_find(const struct symbols *s, uint64_t addr, uint64_t *offset)
{
    size_t lo = 0, hi = s->n;

    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;

        if (s->entry[mid].addr <= addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == 0)
        return NULL;
    for (lo--; lo > 0 && s->entry[lo - 1].addr == s->entry[lo].addr;)
        lo--;
    if (s->entry[lo].name == 0)
        return NULL;
    if (offset != NULL)
        *offset = addr - s->entry[lo].addr;
    return s->pool + s->entry[lo].name;
}

bool symbols_lookup(const struct symbols *s, const char *name, uint64_t *addr)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->entry[i].name != 0 && strcmp(s->pool + s->entry[i].name, name) == 0) {
            *addr = s->entry[i].addr;
            return true;
        }
    return false;
}

unsigned symbols_count(const struct symbols *s)
{
    return s->names;
}

void symbols_destroy(struct symbols *s)
{
    if (s == NULL)
        return;
    free(s->entry);
    free(s->pool);
    free(s);
}
