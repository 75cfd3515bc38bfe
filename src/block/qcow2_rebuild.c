/*
 * Mending: reference counts are never repaired in place. A whole new set is written where nothing
 * is, and then the header names it: a crash leaves the old set or the new one.
 */
#include "block/qcow2_count.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"

struct rebuild {
    struct qcow2_check *c;
    uint64_t per;             /* clusters of one block */
    uint64_t first, total;    /* the new set: blocks, then the table */
    uint64_t blocks, entries; /* of the table */
    uint64_t table_clusters;
};

/* The old blocks and table are not used any more; a guest's cluster among them keeps its count. */
static void forget(struct qcow2_check *c, uint64_t cluster)
{
    uint32_t *count = qcow2_count_at(&c->used, cluster);

    if (count == NULL || (*count & ~COUNT_METADATA) == 0)
        return;
    --*count;
    if ((*count & ~COUNT_METADATA) == 0)
        *count = 0;
}

static bool needs_block(const struct rebuild *r, uint64_t index)
{
    uint64_t from = index * r->per, to = from + r->per;

    return (from < r->first + r->total && to > r->first) ||
           qcow2_count_any(&r->c->used, from, r->per);
}

/* It must hold itself; until that is settled. */
static int plan(struct rebuild *r)
{
    struct qcow2_check *c = r->c;
    uint64_t cluster = qcow2_cluster(&c->h), before;

    r->per = cluster * 8 >> c->h.refcount_order;
    r->first = max_u64(c->used.end, align_up(c->h.file_size, cluster) >> c->h.cluster_bits);
    do {
        before = r->total;
        r->entries = (r->first + max_u64(r->total, 1) - 1) / r->per + 1;
        if (r->entries > QCOW2_REFTABLE_MAX / 8)
            return -EFBIG;
        r->blocks = 0;
        for (uint64_t i = 0; i < r->entries; i++)
            r->blocks += needs_block(r, i);
        r->table_clusters = (r->entries * 8 + cluster - 1) / cluster;
        r->total = r->blocks + r->table_clusters;
    } while (r->total != before);
    return 0;
}

static void fill_block(struct rebuild *r, uint64_t index, uint8_t *block, uint64_t max)
{
    struct qcow2_check *c = r->c;

    memset(block, 0, qcow2_cluster(&c->h));
    for (uint64_t i = 0; i < r->per; i++) {
        uint64_t cluster = index * r->per + i;
        uint64_t count = qcow2_count_get(&c->used, cluster) & ~COUNT_METADATA;

        if (cluster >= r->first && cluster < r->first + r->total)
            count = 1;
        if (count > max) {
            c->too_many++;
            count = max;
        }
        if (count > 0)
            qcow2_ref_store(block, c->h.refcount_order, i, count);
    }
}

static int write_set(struct rebuild *r)
{
    struct qcow2_check *c = r->c;
    unsigned bits = 1u << c->h.refcount_order;
    uint64_t cluster = qcow2_cluster(&c->h), at = r->first;
    uint64_t max = bits == 64 ? UINT64_MAX : (1ull << bits) - 1;
    uint8_t *block = malloc(cluster), *table = calloc(r->table_clusters, cluster);
    int rc = block == NULL || table == NULL ? -ENOMEM : 0;

    for (uint64_t i = 0; rc == 0 && i < r->entries; i++) {
        if (!needs_block(r, i))
            continue;
        fill_block(r, i, block, max);
        rc = bfile_write(c->file, at << c->h.cluster_bits, block, cluster);
        be64_store(table + 8 * i, at << c->h.cluster_bits);
        at++;
    }
    if (rc == 0)
        rc = bfile_write(c->file, at << c->h.cluster_bits, table, r->table_clusters * cluster);
    if (rc == 0)
        rc = bfile_flush(c->file);
    if (rc == 0) {
        c->h.reftable_offset = at << c->h.cluster_bits;
        c->h.reftable_clusters = (uint32_t)r->table_clusters;
        rc = qcow2_header_write(c->file, &c->h);
    }
    if (rc == 0)
        rc = bfile_flush(c->file);
    free(block);
    free(table);
    return rc;
}

int qcow2_rebuild(struct qcow2_check *c, struct error *err)
{
    struct rebuild r = {.c = c};
    uint64_t old = c->h.reftable_offset >> c->h.cluster_bits;
    int rc;

    /* the old set is out of the way of the new one, but not counted in it */
    (void)qcow2_count_at(&c->used, old + c->h.reftable_clusters - 1);
    for (uint64_t i = 0; i < c->h.reftable_clusters; i++)
        forget(c, old + i);
    for (uint64_t i = 0; i < c->reftable_entries; i++) {
        if (c->reftable[i] != 0)
            forget(c, c->reftable[i] >> c->h.cluster_bits);
    }
    rc = plan(&r);
    if (rc == -EFBIG)
        return error_set(err, rc, "a refcount table for so large a file is not possible");
    if (rc == 0)
        rc = write_set(&r);
    if (rc == -ENOSPC)
        return error_set(err, rc, "there is no room behind the image for new reference counts");
    return rc;
}

/* ---- the flag that an entry is the only one ---- */

/* The entry as it should be. Those that are wrong in other ways stay as they are. */
static uint64_t right_l2(const struct qcow2_check *c, uint64_t entry)
{
    struct qcow2_mapping m;
    uint32_t count;

    if (qcow2_entry_judge(&c->h, entry, &m) != NULL || m.kind == QCOW2_K_PACKED || m.host == 0)
        return entry;
    count = qcow2_count_get(&c->used, m.host >> c->h.cluster_bits) & ~COUNT_METADATA;
    if (count == 0)
        return entry; /* behind the end of the file */
    return count == 1 ? entry | QCOW2_COPIED : entry & ~QCOW2_COPIED;
}

static int flags_l2(struct qcow2_check *c, uint64_t index, uint64_t offset, bool fix, uint8_t *l2)
{
    uint64_t cluster = qcow2_cluster(&c->h), unit = min_u64(cluster, QCOW2_UNIT);
    int rc = bfile_read(c->file, offset, l2, cluster);

    rc = rc == -ENXIO ? 0 : rc;
    for (uint64_t at = 0; rc == 0 && at < cluster; at += unit) {
        bool change = false;

        for (uint64_t i = at; i < at + unit; i += 8) {
            uint64_t entry = be64_load(l2 + i), right = right_l2(c, entry);

            if (entry == right)
                continue;
            change = true;
            be64_store(l2 + i, right);
            if (!fix) {
                c->wrong_flags++;
                c->out->errors++;
                qcow2_check_say(c, "cluster %llu of the disk is marked as %s, which it is not",
                                (unsigned long long)(index * cluster / 8 + i / 8),
                                (entry & QCOW2_COPIED) != 0 ? "not shared" : "shared");
            }
        }
        if (change && fix)
            rc = bfile_write(c->file, offset + at, l2 + at, unit);
    }
    return rc;
}

/* An entry of the L1 table; *table: where its L2 table is, 0 for none that can be used. */
static bool flags_l1(struct qcow2_check *c, uint64_t index, uint64_t *table)
{
    uint64_t entry = c->l1[index], offset = entry & QCOW2_OFFSET, right;
    uint32_t count = qcow2_count_get(&c->used, offset >> c->h.cluster_bits);

    *table = 0;
    if (offset == 0 || (entry & QCOW2_RESERVED_L1) != 0 ||
        (offset & (qcow2_cluster(&c->h) - 1)) != 0 || (count & COUNT_METADATA) == 0)
        return false;
    right = offset | ((count & ~COUNT_METADATA) == 1 ? QCOW2_COPIED : 0);
    *table = offset;
    if (right == entry)
        return false;
    c->l1[index] = right;
    return true;
}

int qcow2_check_flags(struct qcow2_check *c, bool fix)
{
    uint8_t *l2 = malloc(qcow2_cluster(&c->h)), *raw;
    bool change = false;
    int rc = l2 == NULL ? -ENOMEM : 0;

    for (uint64_t i = 0; rc == 0 && i < c->h.l1_entries; i++) {
        uint64_t table, entry = c->l1[i];

        if (flags_l1(c, i, &table)) {
            change = true;
            if (!fix) {
                c->l1[i] = entry;
                c->wrong_flags++;
                c->out->errors++;
                qcow2_check_say(c, "L2 table %llu is marked as %s, which it is not",
                                (unsigned long long)i,
                                (entry & QCOW2_COPIED) != 0 ? "not shared" : "shared");
            }
        }
        if (table != 0)
            rc = flags_l2(c, i, table, fix, l2);
    }
    free(l2);
    if (rc < 0 || !change || !fix)
        return rc;
    raw = malloc(c->h.l1_entries * 8ull);
    if (raw == NULL)
        return -ENOMEM;
    for (uint64_t i = 0; i < c->h.l1_entries; i++)
        be64_store(raw + 8 * i, c->l1[i]);
    rc = bfile_write(c->file, c->h.l1_offset, raw, c->h.l1_entries * 8ull);
    free(raw);
    return rc;
}
