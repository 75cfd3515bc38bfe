/* Reference counts: who may have which cluster of the file. */
#include "block/qcow2.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"

/* Widths below a byte: entry 0 is in the least significant bits (Refcount block entry). */
uint64_t qcow2_ref_load(const uint8_t *block, unsigned order, uint64_t index)
{
    switch (order) {
    case 3:
        return block[index];
    case 4:
        return be16_load(block + 2 * index);
    case 5:
        return be32_load(block + 4 * index);
    case 6:
        return be64_load(block + 8 * index);
    default:
        return block[index >> (3 - order)] >> ((index << order) & 7) & ((1u << (1u << order)) - 1);
    }
}

void qcow2_ref_store(uint8_t *block, unsigned order, uint64_t index, uint64_t value)
{
    unsigned shift = (unsigned)((index << order) & 7);
    unsigned mask = ((1u << (1u << (order & 3))) - 1) << shift;
    uint8_t *byte = &block[index >> (3 - (order & 3))];

    switch (order) {
    case 3:
        block[index] = (uint8_t)value;
        break;
    case 4:
        be16_store(block + 2 * index, (uint16_t)value);
        break;
    case 5:
        be32_store(block + 4 * index, (uint32_t)value);
        break;
    case 6:
        be64_store(block + 8 * index, value);
        break;
    default:
        *byte = (uint8_t)((*byte & ~mask) | ((unsigned)value << shift));
        break;
    }
}

static uint64_t ref_max(const struct qcow2 *q)
{
    return q->refcount_order == 6 ? UINT64_MAX : (1ull << (1u << q->refcount_order)) - 1;
}

/* The unit that holds a cluster's count, and which entry it is there. NULL: no block, all are 0. */
static int ref_unit(struct qcow2 *q, uint64_t cluster, struct qcow2_slot **out, uint64_t *index)
{
    uint64_t table = cluster >> q->ref_bits, in = cluster & ((1ull << q->ref_bits) - 1);
    uint64_t bit = in << q->refcount_order, block;
    int rc;

    *out = NULL;
    if (table >= q->reftable.count || q->reftable.entry[table] == 0)
        return 0;
    block = q->reftable.entry[table];
    if ((block & (q->cluster - 1)) != 0 || block >> q->cluster_bits >= q->fresh_from)
        return qcow2_corrupt(q, "a refcount block cannot be at %#llx", (unsigned long long)block);
    rc = qcow2_cache_get(q, block + (bit / 8 & ~(uint64_t)(q->unit - 1)), false, out);
    *index = (bit & (q->unit * 8ull - 1)) >> q->refcount_order;
    return rc;
}

int qcow2_ref_get(struct qcow2 *q, uint64_t cluster, uint64_t *count)
{
    struct qcow2_slot *s;
    uint64_t index;
    int rc = ref_unit(q, cluster, &s, &index);

    *count = 0;
    if (rc == 0 && s != NULL)
        *count = qcow2_ref_load(s->data, q->refcount_order, index);
    return rc;
}

int qcow2_ref_set(struct qcow2 *q, uint64_t cluster, uint64_t count)
{
    struct qcow2_slot *s;
    uint64_t index;
    int rc = ref_unit(q, cluster, &s, &index);

    if (rc < 0)
        return rc;
    if (s == NULL || count > ref_max(q))
        return qcow2_corrupt(q, "cluster %llu has no reference count", (unsigned long long)cluster);
    qcow2_ref_store(s->data, q->refcount_order, index, count);
    qcow2_cache_dirty(q, s);
    return 0;
}

/*
 * A block for the clusters around `at`, which has none: it takes `at` itself, all around it is
 * free. The block is written as it must be found, since its table entry makes it valid at once.
 */
static int make_block(struct qcow2 *q, uint64_t at)
{
    uint8_t *block = calloc(1, q->cluster);
    int rc;

    if (block == NULL)
        return -ENOMEM;
    qcow2_ref_store(block, q->refcount_order, at & ((1ull << q->ref_bits) - 1), 1);
    rc = bfile_write(q->file, at << q->cluster_bits, block, q->cluster);
    free(block);
    if (rc == 0 && qcow2_set_add(&q->metadata, at) < 0)
        rc = -ENOMEM;
    if (rc < 0)
        return rc;
    qcow2_cache_forget(q, at << q->cluster_bits);
    qcow2_table_set(q, &q->reftable, at >> q->ref_bits, at << q->cluster_bits);
    q->fresh_from = max_u64(q->fresh_from, at + 1);
    q->eof = max_u64(q->eof, (at + 1) << q->cluster_bits);
    q->in_use += q->cluster;
    return 0;
}

/* The count of a cluster that is about to be given out. */
static int is_free(struct qcow2 *q, uint64_t cluster, bool *yes)
{
    uint64_t count;
    int rc = qcow2_ref_get(q, cluster, &count);

    *yes = rc == 0 && count == 0;
    if (*yes && qcow2_set_has(&q->metadata, cluster))
        return qcow2_corrupt(q, "cluster %llu holds metadata, but counts as free",
                             (unsigned long long)cluster);
    return rc;
}

int qcow2_alloc_clusters(struct qcow2 *q, uint64_t want, uint64_t *first, uint64_t *count,
                         bool *fresh)
{
    uint64_t at = q->free_hint, n = 0, limit = (uint64_t)q->reftable.count << q->ref_bits;
    bool yes = false;
    int rc = 0;

    for (;; at++) {
        if (at >= limit) {
            q->free_hint = at;
            return -EAGAIN;
        }
        if (at << q->cluster_bits > QCOW2_OFFSET - q->cluster)
            return -EFBIG;
        rc = is_free(q, at, &yes);
        if (rc < 0)
            return rc;
        if (yes && q->reftable.entry[at >> q->ref_bits] != 0)
            break;
        if (yes && (rc = make_block(q, at)) < 0)
            return rc;
    }
    *first = at;
    *fresh = at >= q->fresh_from;
    while (n < want && at + n < limit && q->reftable.entry[(at + n) >> q->ref_bits] != 0) {
        rc = n == 0 ? 0 : is_free(q, at + n, &yes);
        /* one piece is all old or all new */
        if (rc < 0 || !yes || (at + n >= q->fresh_from) != *fresh)
            break;
        rc = qcow2_ref_set(q, at + n, 1);
        if (rc < 0)
            break;
        n++;
    }
    if (n == 0)
        return rc;
    *count = n;
    q->free_hint = at + n;
    q->fresh_from = max_u64(q->fresh_from, at + n);
    q->in_use += n << q->cluster_bits;
    return 0;
}

/* One reference less; returns whether it was the last. */
static bool ref_drop(struct qcow2 *q, uint64_t cluster)
{
    uint64_t count;

    if (qcow2_ref_get(q, cluster, &count) < 0)
        return false;
    if (count == 0) {
        qcow2_corrupt(q, "cluster %llu is used, but counts as free", (unsigned long long)cluster);
        return false;
    }
    if (qcow2_ref_set(q, cluster, count - 1) < 0 || count > 1)
        return false;
    q->free_hint = q->free_hint < cluster ? q->free_hint : cluster;
    q->in_use -= min_u64(q->in_use, q->cluster);
    return true;
}

void qcow2_unalloc(struct qcow2 *q, uint64_t first, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        ref_drop(q, first + i);
}

int qcow2_ranges_add(struct qcow2_ranges *r, uint64_t first, uint64_t count)
{
    struct qcow2_range *last = r->count > 0 ? &r->range[r->count - 1] : NULL;

    if (last != NULL && last->first + last->count == first) {
        last->count += count;
        return 0;
    }
    if (r->count == r->room) {
        size_t room = r->room == 0 ? 64 : r->room * 2;
        struct qcow2_range *more = realloc(r->range, room * sizeof(*more));

        if (more == NULL)
            return -ENOMEM;
        r->range = more;
        r->room = room;
    }
    r->range[r->count++] = (struct qcow2_range){.first = first, .count = count};
    return 0;
}

void qcow2_free_later(struct qcow2 *q, uint64_t first, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        qcow2_set_remove(&q->metadata, first + i);
    q->pending_clusters += count;
    if (qcow2_ranges_add(&q->pending, first, count) < 0)
        log_warn(q->log, "%s: no memory to give clusters back, some are lost until the next check",
                 q->file->name);
}

/* Locked. How many clusters from `first` on, at most `count`, have no other user. */
static uint64_t last_users(struct qcow2 *q, uint64_t first, uint64_t count, bool *alone)
{
    uint64_t n = 0, refs;

    while (n < count && !qcow2_set_has(&q->metadata, first + n) &&
           qcow2_ref_get(q, first + n, &refs) == 0) {
        if (n == 0)
            *alone = refs == 1;
        else if (*alone != (refs == 1))
            break;
        n++;
    }
    return n;
}

/* Gives the space of clusters back to the host, then the clusters to whoever asks next. */
static void free_range(struct qcow2 *q, uint64_t first, uint64_t count)
{
    while (count > 0) {
        bool alone = false;
        uint64_t n;

        pthread_mutex_lock(&q->lock);
        n = last_users(q, first, min_u64(count, 4096), &alone);
        pthread_mutex_unlock(&q->lock);
        /* a host that makes no holes is none the worse */
        if (n > 0 && alone && q->file->ops->discard != NULL)
            (void)q->file->ops->discard(q->file, first << q->cluster_bits, n << q->cluster_bits);
        pthread_mutex_lock(&q->lock);
        for (uint64_t i = 0; i < n && !q->corrupt; i++)
            ref_drop(q, first + i);
        pthread_mutex_unlock(&q->lock);
        /* one that came to be metadata, or whose count cannot be read, is left as it is */
        if (n == 0)
            n = 1;
        first += n;
        count -= n;
    }
}

void qcow2_free_now(struct qcow2 *q)
{
    struct qcow2_ranges r = {0};

    pthread_mutex_lock(&q->lock);
    if (q->quarantine_stable && q->calls[q->quarantine_epoch] == 0) {
        r = q->quarantine;
        memset(&q->quarantine, 0, sizeof(q->quarantine));
    }
    pthread_mutex_unlock(&q->lock);
    for (size_t i = 0; i < r.count; i++)
        free_range(q, r.range[i].first, r.range[i].count);
    free(r.range);
}

/* ---- whole regions: for tables, which must be in one piece ---- */

struct region {
    uint64_t first, count; /* what was asked for */
    uint64_t blocks;       /* new refcount blocks behind it */
    uint64_t table, room;  /* a new refcount table behind these: clusters, entries */
};

/* How many of the ranges that [first, first + n) touches have no refcount block. */
static uint64_t missing_blocks(const struct qcow2 *q, uint64_t first, uint64_t n)
{
    uint64_t missing = 0;

    for (uint64_t i = first >> q->ref_bits; i <= (first + n - 1) >> q->ref_bits; i++)
        missing += i >= q->reftable.count || q->reftable.entry[i] == 0;
    return missing;
}

/* What is needed beside the clusters asked for is itself to be counted; until that is settled. */
static int plan_region(const struct qcow2 *q, struct region *r, bool grow)
{
    uint64_t total = 0;

    for (;;) {
        uint64_t n = r->count + r->blocks + r->table, last;

        if (n == total)
            return 0;
        total = n;
        last = (r->first + n - 1) >> q->ref_bits;
        r->blocks = missing_blocks(q, r->first, n);
        if (grow || last >= q->reftable.count) {
            r->room = max_u64(last + 1, q->reftable.count + q->reftable.count / 2 + 1);
            r->table = (r->room * 8 + q->cluster - 1) >> q->cluster_bits;
            r->room = r->table * q->cluster / 8;
            if (r->table > QCOW2_REFTABLE_MAX / q->cluster)
                return -EFBIG;
        }
    }
}

/* The first place where all of it is free. */
static int find_region(struct qcow2 *q, struct region *r, bool grow)
{
    uint64_t limit = (uint64_t)q->reftable.count << q->ref_bits;

    r->first = grow ? limit : q->free_hint;
    for (;;) {
        uint64_t total, i;
        bool yes = true;
        int rc;

        r->blocks = r->table = 0;
        if (r->count == 0)
            r->blocks = 1; /* a new table alone: there is at least one block to count it */
        rc = plan_region(q, r, grow);
        if (rc < 0)
            return rc;
        total = r->count + r->blocks + r->table;
        for (i = 0; i < total && yes; i++) {
            rc = is_free(q, r->first + i, &yes);
            if (rc < 0)
                return rc;
        }
        if (yes)
            return (r->first + total) << q->cluster_bits > QCOW2_OFFSET ? -EFBIG : 0;
        r->first += i;
    }
}

static int write_blocks(struct qcow2 *q, const struct region *r, struct qcow2_table *table)
{
    uint64_t total = r->count + r->blocks + r->table, at = r->first + r->count;
    uint64_t per = 1ull << q->ref_bits;
    uint8_t *block = malloc(q->cluster);
    int rc = block == NULL ? -ENOMEM : 0;

    for (uint64_t i = r->first >> q->ref_bits;
         rc == 0 && i <= (r->first + total - 1) >> q->ref_bits; i++) {
        uint64_t from = max_u64(r->first, i * per), to = min_u64(r->first + total, (i + 1) * per);

        if (i < q->reftable.count && q->reftable.entry[i] != 0) {
            for (uint64_t c = from; rc == 0 && c < to; c++)
                rc = qcow2_ref_set(q, c, 1);
            continue;
        }
        memset(block, 0, q->cluster);
        for (uint64_t c = from; c < to; c++)
            qcow2_ref_store(block, q->refcount_order, c & (per - 1), 1);
        rc = bfile_write(q->file, at << q->cluster_bits, block, q->cluster);
        if (rc == 0 && qcow2_set_add(&q->metadata, at) < 0)
            rc = -ENOMEM;
        qcow2_cache_forget(q, at << q->cluster_bits);
        qcow2_table_set(q, table, i, at << q->cluster_bits);
        at++;
    }
    free(block);
    return rc;
}

/* Everything that the new table names is on stable storage before the header names the table. */
static int switch_table(struct qcow2 *q, const struct region *r, struct qcow2_table *table)
{
    uint64_t first = r->first + r->count + r->blocks;
    struct qcow2_header h = q->header;
    struct qcow2_table old = q->reftable;
    uint64_t old_clusters = q->header.reftable_clusters;
    int rc = 0;

    table->offset = first << q->cluster_bits;
    for (uint64_t i = 0; i < r->table && rc == 0; i++)
        rc = qcow2_set_add(&q->metadata, first + i) < 0 ? -ENOMEM : 0;
    if (rc == 0)
        rc = qcow2_cache_write_refs(q);
    if (rc == 0)
        rc = qcow2_table_write(q, table, table->offset);
    if (rc == 0)
        rc = bfile_flush(q->file);
    if (rc < 0)
        return rc;
    h.reftable_offset = table->offset;
    h.reftable_clusters = (uint32_t)r->table;
    rc = qcow2_header_change(q, &h);
    if (rc < 0)
        return rc;
    memset(table->dirty, 0, align_up(table->count * 8ull, q->unit) / q->unit);
    table->any_dirty = false;
    q->reftable = *table;
    memset(table, 0, sizeof(*table));
    qcow2_free_later(q, old.offset >> q->cluster_bits, old_clusters);
    qcow2_table_free(&old);
    return 0;
}

static int take_region(struct qcow2 *q, struct region *r, bool grow)
{
    struct qcow2_table table = {0};
    uint64_t end;
    int rc = find_region(q, r, grow);

    if (rc == 0 && r->table > 0) {
        rc = qcow2_table_load(q, &table, 0, 0);
        qcow2_table_free(&table);
        table.entry = calloc(r->table, q->cluster);
        table.dirty = calloc(r->table, q->cluster / q->unit);
        table.count = (uint32_t)r->room;
        if (table.entry == NULL || table.dirty == NULL)
            rc = -ENOMEM;
        else
            memcpy(table.entry, q->reftable.entry, q->reftable.count * 8ull);
    }
    if (rc == 0)
        rc = write_blocks(q, r, r->table > 0 ? &table : &q->reftable);
    if (rc == 0) {
        end = r->first + r->count + r->blocks + r->table;
        q->fresh_from = max_u64(q->fresh_from, end);
        if (r->table > 0)
            rc = switch_table(q, r, &table);
    }
    /* what a table that did not come about names is as free as before */
    for (uint64_t i = 0; rc < 0 && r->table > 0 && i < r->blocks + r->table; i++)
        qcow2_set_remove(&q->metadata, r->first + r->count + i);
    qcow2_table_free(&table);
    return rc;
}

int qcow2_alloc_region(struct qcow2 *q, uint64_t count, uint64_t *first)
{
    struct region r = {.count = count};
    int rc = take_region(q, &r, false);

    *first = r.first;
    return rc;
}

int qcow2_grow_reftable(struct qcow2 *q)
{
    struct region r = {0};
    uint64_t limit, count;
    int rc = 0;

    pthread_mutex_lock(&q->lock);
    limit = (uint64_t)q->reftable.count << q->ref_bits;
    count = q->reftable.count;
    /* somebody else may have been here, or something was freed */
    if (q->free_hint >= limit || count == 0)
        rc = take_region(q, &r, true);
    pthread_mutex_unlock(&q->lock);
    return rc;
}
