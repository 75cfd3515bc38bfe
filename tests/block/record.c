#include "record.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

uint64_t rng_next(struct rng *r)
{
    uint64_t z = (r->state += 0x9e3779b97f4a7c15ull);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

uint64_t rng_below(struct rng *r, uint64_t n)
{
    return rng_next(r) % n;
}

static struct version *hold(struct version *v)
{
    if (v != NULL)
        v->refs++;
    return v;
}

static void drop(struct version *v)
{
    if (v != NULL && --v->refs == 0)
        free(v);
}

static void grow(struct record *r, uint64_t sectors)
{
    uint64_t count = r->count == 0 ? 1024 : r->count;

    while (count < sectors)
        count *= 2;
    if (count == r->count)
        return;
    r->sector = realloc(r->sector, count * sizeof(*r->sector));
    memset(r->sector + r->count, 0, (count - r->count) * sizeof(*r->sector));
    r->count = count;
}

/* Takes the reference. */
static void put(struct record *r, uint64_t n, struct version *v)
{
    struct sector *s;

    grow(r, n + 1);
    s = &r->sector[n];
    if (s->count == 0) {
        if (r->touched_count == r->touched_room) {
            r->touched_room = r->touched_room * 2 + 64;
            r->touched = realloc(r->touched, r->touched_room * sizeof(*r->touched));
        }
        r->touched[r->touched_count++] = n;
    }
    if (s->count == s->room) {
        s->room = s->room * 2 + 2;
        s->later = realloc(s->later, s->room * sizeof(struct version *));
    }
    s->later[s->count++] = hold(v);
    drop(s->now);
    s->now = v;
}

static void put_bytes(struct record *r, uint64_t offset, const uint8_t *from, size_t len)
{
    while (len > 0) {
        uint64_t n = offset / SECTOR, in = offset % SECTOR;
        size_t part = min_u64(len, SECTOR - in);
        struct version *v = calloc(1, sizeof(*v));

        grow(r, n + 1);
        v->refs = 1;
        if (part < SECTOR && r->sector[n].now != NULL)
            memcpy(v->data, r->sector[n].now->data, SECTOR);
        if (from != NULL) {
            memcpy(v->data + in, from, part);
            from += part;
        } else {
            memset(v->data + in, 0, part);
        }
        put(r, n, v);
        offset += part;
        len -= part;
    }
}

static struct record *to_record(struct bfile *f)
{
    return container_of(f, struct record, f);
}

static int fault(struct record *r)
{
    r->calls++;
    if (r->fail_at == 0 || r->calls < r->fail_at || r->calls > r->fail_at + r->fail_for)
        return 0;
    r->faults++;
    return r->fault == FAULT_ENOSPC ? -ENOSPC : -EIO;
}

static int record_read(struct bfile *f, uint64_t offset, const struct iovec *iov, unsigned count)
{
    struct record *r = to_record(f);
    int rc = fault(r);

    for (unsigned i = 0; i < count && rc == 0; i++) {
        uint8_t *to = iov[i].iov_base;
        size_t len = iov[i].iov_len;

        while (len > 0) {
            uint64_t n = offset / SECTOR, in = offset % SECTOR;
            size_t part = min_u64(len, SECTOR - in);

            if (n < r->count && r->sector[n].now != NULL)
                memcpy(to, r->sector[n].now->data + in, part);
            else
                memset(to, 0, part);
            to += part;
            offset += part;
            len -= part;
        }
    }
    return rc == 0 && offset > r->size ? -ENXIO : rc;
}

static int record_write(struct bfile *f, uint64_t offset, const struct iovec *iov, unsigned count)
{
    struct record *r = to_record(f);
    size_t len = 0, at = 0;
    uint8_t *flat;
    int rc;

    if (r->before != NULL)
        r->before(r->ctx, false);
    rc = fault(r);
    if (rc < 0 && r->fault != FAULT_SHORT)
        return rc;
    /* one piece: a sector that two pieces meet in is still written at once */
    for (unsigned i = 0; i < count; i++)
        len += iov[i].iov_len;
    flat = malloc(len + 1);
    for (unsigned i = 0; i < count; i++) {
        memcpy(flat + at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
    }
    if (rc < 0)
        len = align_down(len / 2, SECTOR);
    put_bytes(r, offset, flat, len);
    if (len > 0)
        r->size = max_u64(r->size, offset + len);
    free(flat);
    return rc;
}

static int record_flush(struct bfile *f)
{
    struct record *r = to_record(f);
    int rc;

    if (r->before != NULL)
        r->before(r->ctx, true);
    rc = fault(r);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < r->touched_count; i++) {
        struct sector *s = &r->sector[r->touched[i]];

        for (unsigned v = 0; v < s->count; v++)
            drop(s->later[v]);
        s->count = 0;
        drop(s->stable);
        s->stable = hold(s->now);
    }
    r->touched_count = 0;
    r->stable_size = r->size;
    r->flushes++;
    return 0;
}

static int record_zero(struct bfile *f, uint64_t offset, uint64_t len, bool punch)
{
    struct record *r = to_record(f);
    int rc;

    (void)punch;
    if (r->before != NULL)
        r->before(r->ctx, false);
    rc = fault(r);
    if (rc == 0 && offset < r->size)
        put_bytes(r, offset, NULL, min_u64(len, r->size - offset));
    return rc;
}

static int record_discard(struct bfile *f, uint64_t offset, uint64_t len)
{
    return record_zero(f, offset, len, true);
}

static int record_size(struct bfile *f, uint64_t *size)
{
    *size = to_record(f)->size;
    return 0;
}

static int record_truncate(struct bfile *f, uint64_t size)
{
    (void)f, (void)size;
    return -ENOTSUP;
}

static void record_close(struct bfile *f)
{
    (void)f;
}

static const struct bfile_ops record_ops = {
    .read = record_read,
    .write = record_write,
    .flush = record_flush,
    .zero = record_zero,
    .size = record_size,
    .truncate = record_truncate,
    .discard = record_discard,
    .close = record_close,
};

struct record *record_create(const char *name)
{
    struct record *r = calloc(1, sizeof(*r));

    r->f = (struct bfile){.ops = &record_ops, .name = name, .fd = -1};
    return r;
}

void record_destroy(struct record *r)
{
    for (uint64_t i = 0; i < r->count; i++) {
        struct sector *s = &r->sector[i];

        for (unsigned v = 0; v < s->count; v++)
            drop(s->later[v]);
        free(s->later);
        drop(s->stable);
        drop(s->now);
    }
    free(r->sector);
    free(r->touched);
    free(r);
}

static bool all_zero(const uint8_t *p, size_t len)
{
    return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

void record_load(struct record *r, const char *path)
{
    FILE *from = fopen(path, "rb");
    uint8_t buf[SECTOR];
    size_t n;

    if (from == NULL) {
        perror(path);
        exit(1);
    }
    while ((n = fread(buf, 1, sizeof(buf), from)) > 0) {
        if (!all_zero(buf, n))
            put_bytes(r, r->size, buf, n);
        r->size += n;
    }
    fclose(from);
    record_flush(&r->f);
    r->calls = r->flushes = 0;
}

/* How likely a write is to be there: seldom the same twice. */
static unsigned luck(struct rng *rng)
{
    static const unsigned percent[] = {0, 2, 10, 50, 90, 98, 100};

    return percent[rng_below(rng, countof(percent))];
}

struct bfile *record_crash(struct record *r, struct rng *rng, bool now)
{
    unsigned percent = luck(rng);
    uint64_t size = now ? r->size : r->stable_size;
    struct bfile *f;
    struct error err;

    if (bfile_memory("crash", 0, &f, &err) < 0)
        exit(1);
    for (uint64_t i = 0; i < r->count; i++) {
        const struct sector *s = &r->sector[i];
        const struct version *v = now ? s->now : s->stable;

        if (!now && s->count > 0 && rng_below(rng, 100) < percent) {
            v = s->later[rng_below(rng, s->count)];
            size = max_u64(size, min_u64((i + 1) * SECTOR, r->size));
        }
        if (v != NULL)
            bfile_write(f, i * SECTOR, v->data, SECTOR);
    }
    bfile_truncate(f, size);
    return f;
}

void record_save(struct bfile *f, const char *path)
{
    uint8_t buf[65536];
    uint64_t size, at = 0;
    FILE *to = fopen(path, "wb");

    if (to == NULL || bfile_size(f, &size) < 0) {
        perror(path);
        exit(1);
    }
    for (; at < size; at += sizeof(buf)) {
        size_t n = min_u64(sizeof(buf), size - at);

        bfile_read(f, at, buf, n);
        if (all_zero(buf, n) && at + n < size)
            fseek(to, (long)n, SEEK_CUR);
        else
            fwrite(buf, 1, n, to);
    }
    fclose(to);
}
