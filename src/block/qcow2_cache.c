/* Metadata in memory and how it gets to the file. The order of writes is in qcow2.h. */
#include "block/qcow2.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"

static size_t hash_of(const struct qcow2 *q, uint64_t offset)
{
    return (size_t)((offset / q->unit * 0x9e3779b97f4a7c15ull) >> 32) & (q->hash_size - 1);
}

struct qcow2_slot *qcow2_cache_peek(struct qcow2 *q, uint64_t offset)
{
    struct qcow2_slot *s = q->hash[hash_of(q, offset)];

    while (s != NULL && s->offset != offset)
        s = s->next;
    if (s != NULL)
        s->used = ++q->tick;
    return s;
}

static void unhash(struct qcow2 *q, struct qcow2_slot *s)
{
    struct qcow2_slot **p = &q->hash[hash_of(q, s->offset)];

    while (*p != s)
        p = &(*p)->next;
    *p = s->next;
    s->offset = 0;
    s->dirty = false;
}

static int write_slot(struct qcow2 *q, struct qcow2_slot *s)
{
    int rc = bfile_write(q->file, s->offset, s->data, q->unit);

    if (rc == 0)
        s->dirty = false;
    return rc;
}

/* The one that was not used for longest and may go: not an L2 unit that is still to be written. */
static struct qcow2_slot *oldest(struct qcow2 *q)
{
    struct qcow2_slot *best = NULL;

    for (size_t i = 0; i < q->slot_count; i++) {
        struct qcow2_slot *s = &q->slots[i];

        if (s->in_flight || (s->dirty && s->l2))
            continue;
        if (s->offset == 0)
            return s;
        if (best == NULL || s->used < best->used)
            best = s;
    }
    return best;
}

int qcow2_cache_get(struct qcow2 *q, uint64_t offset, bool l2, struct qcow2_slot **out)
{
    struct qcow2_slot *s = qcow2_cache_peek(q, offset), **p;
    int rc;

    if (s != NULL) {
        /* One cluster cannot be both; the order of writes depends on which it is. */
        if (s->l2 != l2)
            return qcow2_corrupt(q, "an L2 table and a refcount block are both at %#llx",
                                 (unsigned long long)offset);
        *out = s;
        return 0;
    }
    s = oldest(q);
    if (s == NULL)
        return -ENOMEM; /* does not happen: qcow2_cache_full leaves room for every call */
    if (s->dirty) {
        rc = write_slot(q, s);
        if (rc < 0)
            return rc;
    }
    if (s->offset != 0)
        unhash(q, s);
    if (s->data == NULL) {
        s->data = malloc(q->unit);
        if (s->data == NULL)
            return -ENOMEM;
    }
    rc = bfile_read(q->file, offset, s->data, q->unit);
    if (rc < 0 && rc != -ENXIO)
        return rc;
    s->offset = offset;
    s->l2 = l2;
    s->used = ++q->tick;
    p = &q->hash[hash_of(q, offset)];
    s->next = *p;
    *p = s;
    *out = s;
    return 0;
}

void qcow2_cache_dirty(struct qcow2 *q, struct qcow2_slot *s)
{
    if (!s->dirty && s->l2)
        q->l2_dirty++;
    s->dirty = true;
}

/* Its content was written past the cache, or belongs to nobody. */
void qcow2_cache_forget(struct qcow2 *q, uint64_t cluster_offset)
{
    for (uint64_t at = cluster_offset; at < cluster_offset + q->cluster; at += q->unit) {
        struct qcow2_slot *s = qcow2_cache_peek(q, at);

        if (s != NULL && !s->in_flight) {
            if (s->dirty && s->l2)
                q->l2_dirty--;
            unhash(q, s);
        }
    }
}

/* A quarter dirty and a quarter under way leave half for what calls need at once. */
bool qcow2_cache_full(const struct qcow2 *q)
{
    return q->l2_dirty >= q->slot_count / 4;
}

int qcow2_cache_write_refs(struct qcow2 *q)
{
    for (size_t i = 0; i < q->slot_count; i++) {
        int rc = 0;

        if (q->slots[i].dirty && !q->slots[i].l2)
            rc = write_slot(q, &q->slots[i]);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ---- tables ---- */

int qcow2_table_load(struct qcow2 *q, struct qcow2_table *t, uint64_t offset, uint64_t count)
{
    size_t bytes = align_up(max_u64(count, 1) * 8, q->unit);
    int rc = 0;

    memset(t, 0, sizeof(*t));
    t->entry = calloc(1, bytes);
    t->dirty = calloc(1, bytes / q->unit);
    if (t->entry == NULL || t->dirty == NULL)
        return -ENOMEM;
    t->offset = offset;
    t->count = (uint32_t)count;
    if (count > 0)
        rc = bfile_read(q->file, offset, t->entry, bytes);
    if (rc < 0 && rc != -ENXIO)
        return rc;
    for (uint64_t i = 0; i < bytes / 8; i++)
        t->entry[i] = be64_load(&t->entry[i]);
    return 0;
}

void qcow2_table_free(struct qcow2_table *t)
{
    free(t->entry);
    free(t->dirty);
    memset(t, 0, sizeof(*t));
}

void qcow2_table_set(struct qcow2 *q, struct qcow2_table *t, uint64_t index, uint64_t entry)
{
    t->entry[index] = entry;
    t->dirty[index * 8 / q->unit] = 1;
    t->any_dirty = true;
}

static void encode(uint8_t *to, const uint64_t *entry, size_t count)
{
    for (size_t i = 0; i < count; i++)
        be64_store(to + 8 * i, entry[i]);
}

int qcow2_table_write(struct qcow2 *q, const struct qcow2_table *t, uint64_t offset)
{
    size_t bytes = align_up(t->count * 8ull, q->unit);
    uint8_t *copy = malloc(max_u64(bytes, 1));
    int rc;

    if (copy == NULL)
        return -ENOMEM;
    encode(copy, t->entry, bytes / 8);
    rc = bfile_write(q->file, offset, copy, bytes);
    free(copy);
    return rc;
}

/* ---- commit ---- */

/* What one commit writes: copies, so that the lock is free meanwhile. */
struct piece {
    uint64_t offset;
    struct qcow2_slot *slot; /* or */
    struct qcow2_table *table;
    uint8_t *data;
    bool late; /* L2 and L1: after what they point at */
};

struct batch {
    struct piece *piece;
    size_t count;
    bool new_blocks, late;
    uint8_t *memory;
};

static size_t table_dirty(const struct qcow2 *q, const struct qcow2_table *t)
{
    size_t n = 0;

    for (size_t i = 0; t->any_dirty && i < align_up(t->count * 8ull, q->unit) / q->unit; i++)
        n += t->dirty[i];
    return n;
}

static struct piece *batch_add(struct qcow2 *q, struct batch *b, uint64_t offset, bool late)
{
    struct piece *p = &b->piece[b->count];

    p->data = b->memory + b->count++ * q->unit;
    p->offset = offset;
    p->late = late;
    b->late |= late;
    return p;
}

static void batch_table(struct qcow2 *q, struct batch *b, struct qcow2_table *t, bool late)
{
    for (size_t i = 0; t->any_dirty && i < align_up(t->count * 8ull, q->unit) / q->unit; i++) {
        struct piece *p;

        if (!t->dirty[i])
            continue;
        p = batch_add(q, b, t->offset + i * q->unit, late);
        p->table = t;
        encode(p->data, t->entry + i * q->unit / 8, q->unit / 8);
        t->dirty[i] = 0;
        b->new_blocks |= !late;
    }
    t->any_dirty = false;
}

/* Locked. Everything dirty goes into the batch and is clean until something changes it. */
static int batch_collect(struct qcow2 *q, struct batch *b)
{
    size_t n = table_dirty(q, &q->l1) + table_dirty(q, &q->reftable);

    for (size_t i = 0; i < q->slot_count; i++)
        n += q->slots[i].dirty;
    if (n == 0)
        return 0;
    b->piece = calloc(n, sizeof(*b->piece));
    b->memory = malloc(n * q->unit);
    if (b->piece == NULL || b->memory == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < q->slot_count; i++) {
        struct qcow2_slot *s = &q->slots[i];
        struct piece *p;

        if (!s->dirty)
            continue;
        p = batch_add(q, b, s->offset, s->l2);
        p->slot = s;
        memcpy(p->data, s->data, q->unit);
        s->dirty = false;
        s->in_flight = true;
    }
    q->l2_dirty = 0;
    batch_table(q, b, &q->reftable, false);
    batch_table(q, b, &q->l1, true);
    return 0;
}

static int batch_write(struct qcow2 *q, const struct batch *b, bool late)
{
    for (size_t i = 0; i < b->count; i++) {
        const struct piece *p = &b->piece[i];
        int rc = 0;

        if (p->late == late)
            rc = bfile_write(q->file, p->offset, p->data, q->unit);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static void batch_end(struct qcow2 *q, struct batch *b, int rc)
{
    pthread_mutex_lock(&q->lock);
    for (size_t i = 0; i < b->count; i++) {
        struct piece *p = &b->piece[i];

        if (p->slot != NULL) {
            p->slot->in_flight = false;
            if (rc < 0)
                qcow2_cache_dirty(q, p->slot);
        } else if (rc < 0) {
            p->table->dirty[(p->offset - p->table->offset) / q->unit] = 1;
            p->table->any_dirty = true;
        }
    }
    pthread_mutex_unlock(&q->lock);
    free(b->piece);
    free(b->memory);
}

int qcow2_commit_locked(struct qcow2 *q)
{
    struct batch b = {0};
    int rc;

    pthread_mutex_lock(&q->lock);
    rc = batch_collect(q, &b);
    pthread_mutex_unlock(&q->lock);
    /* a block that the refcount table names must be there first */
    if (rc == 0 && b.new_blocks)
        rc = bfile_flush(q->file);
    if (rc == 0)
        rc = batch_write(q, &b, false);
    if (rc == 0)
        rc = bfile_flush(q->file);
    if (rc == 0 && b.late) {
        rc = batch_write(q, &b, true);
        if (rc == 0)
            rc = bfile_flush(q->file);
    }
    batch_end(q, &b, rc);
    return rc;
}

/* Locked. What was let go until now waits for this commit and the calls under way. */
static void begin_quarantine(struct qcow2 *q)
{
    if (q->quarantine.count > 0 || q->pending.count == 0 || q->calls[q->epoch ^ 1] > 0)
        return;
    q->quarantine = q->pending;
    memset(&q->pending, 0, sizeof(q->pending));
    q->pending_clusters = 0;
    q->quarantine_epoch = q->epoch;
    q->epoch ^= 1;
    q->quarantine_stable = false;
}

int qcow2_commit(struct qcow2 *q, bool quiet)
{
    int rc;

    pthread_mutex_lock(&q->commit);
    pthread_mutex_lock(&q->lock);
    if (quiet)
        begin_quarantine(q);
    pthread_mutex_unlock(&q->lock);
    rc = qcow2_commit_locked(q);
    if (rc == 0) {
        pthread_mutex_lock(&q->lock);
        q->quarantine_stable = q->quarantine.count > 0;
        pthread_mutex_unlock(&q->lock);
        if (quiet)
            qcow2_free_now(q);
    }
    pthread_mutex_unlock(&q->commit);
    return rc;
}

int qcow2_corrupt(struct qcow2 *q, const char *fmt, ...)
{
    char text[256];
    va_list ap;

    if (q->corrupt)
        return -EIO;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    q->corrupt = true;
    log_error(q->log,
              "%s is corrupt: %s; it is not written any more (xhyvectl image check looks at it)",
              q->file->name, text);
    if (!q->read_only && q->version >= 3) {
        q->header.incompatible |= QCOW2_CORRUPT;
        if (qcow2_header_write(q->file, &q->header) < 0)
            log_error(q->log, "%s cannot be marked as corrupt", q->file->name);
    }
    return -EIO;
}

int qcow2_header_change(struct qcow2 *q, const struct qcow2_header *h)
{
    struct qcow2_header changed = *h;
    int rc = qcow2_header_write(q->file, &changed);

    if (rc == 0)
        rc = bfile_flush(q->file);
    if (rc == 0) {
        q->header = changed;
    } else if (qcow2_header_write(q->file, &q->header) < 0) {
        /* Which header the file has now is not known, so nothing may go on from either. */
        log_error(q->log, "the header of %s cannot be written; the image is not written any more",
                  q->file->name);
        q->corrupt = true;
    }
    return rc;
}
