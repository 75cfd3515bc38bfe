/*
 * The check of a qcow2 file that nobody has open: every table is followed, what is used is counted
 * and compared with the reference counts. A table that is found twice on one way is followed once,
 * so that the work is bounded by the file.
 */
#include "block/qcow2_count.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"

#define SAY_MAX 200u /* sentences; more say nothing new */

typedef unsigned long long ull; /* for %llu */

void qcow2_check_say(struct qcow2_check *c, const char *fmt, ...)
{
    char text[256];
    va_list ap;

    if (c->out->say == NULL || c->said > SAY_MAX)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    c->out->say(c->out->ctx, c->said++ == SAY_MAX ? "there is more of this" : text);
}

void qcow2_check_progress(struct qcow2_check *c, uint64_t step)
{
    c->done += step;
    if (c->out->progress != NULL)
        c->out->progress(c->out->ctx, min_u64(c->done, c->total), c->total);
}

/* ---- counting ---- */

static uint64_t end_cluster(const struct qcow2_check *c)
{
    return align_up(c->h.file_size, qcow2_cluster(&c->h)) >> c->h.cluster_bits;
}

static int use(struct qcow2_check *c, uint64_t cluster, bool metadata, const char *what)
{
    uint32_t *count = qcow2_count_at(&c->used, cluster);

    if (count == NULL)
        return -ENOMEM;
    if ((*count & COUNT_METADATA) != 0 || (metadata && *count != 0)) {
        c->out->errors++;
        qcow2_check_say(c, "%s at %#llx lies on %s", what, (ull)cluster << c->h.cluster_bits,
                        (*count & COUNT_METADATA) != 0 ? "metadata" : "data");
    }
    if ((*count & ~COUNT_METADATA) < COUNT_METADATA - 1)
        ++*count;
    if (metadata)
        *count |= COUNT_METADATA;
    return 0;
}

static int use_bytes(struct qcow2_check *c, uint64_t offset, uint64_t bytes, const char *what)
{
    uint64_t cluster = qcow2_cluster(&c->h);
    int rc = 0;

    for (uint64_t at = offset; rc == 0 && at < offset + bytes; at += cluster)
        rc = use(c, at >> c->h.cluster_bits, true, what);
    return rc;
}

/* A table that may be shared by snapshots: metadata, but met more than once. */
static int use_l2(struct qcow2_check *c, uint64_t cluster)
{
    uint32_t *count = qcow2_count_at(&c->used, cluster);

    if (count == NULL)
        return -ENOMEM;
    if (*count != 0 && (*count & COUNT_METADATA) == 0) {
        c->out->errors++;
        qcow2_check_say(c, "an L2 table at %#llx lies on data", (ull)cluster << c->h.cluster_bits);
    }
    *count = (*count + 1) | COUNT_METADATA;
    return 0;
}

static int use_entry(struct qcow2_check *c, uint64_t guest, uint64_t entry)
{
    struct qcow2_mapping m;
    const char *wrong = qcow2_entry_judge(&c->h, entry, &m);
    uint64_t first = m.host >> c->h.cluster_bits, last = first, offset, len;
    int rc = 0;

    if (wrong == NULL && m.kind == QCOW2_K_PACKED) {
        qcow2_packed_range(c->h.cluster_bits, entry, &offset, &len);
        first = offset >> c->h.cluster_bits;
        last = (offset + len - 1) >> c->h.cluster_bits;
    } else if (m.host == 0 && wrong == NULL) {
        return 0;
    }
    if (wrong == NULL && first >= end_cluster(c))
        wrong = "lies behind the end of the file";
    if (wrong != NULL) {
        c->out->errors++;
        qcow2_check_say(c, "cluster %llu of the disk %s (entry %#llx)", (ull)guest, wrong,
                        (ull)entry);
        return 0;
    }
    for (; rc == 0 && first <= last; first++)
        rc = use(c, first, false, "data");
    return rc;
}

/* ---- L1 and L2 ---- */

struct walk {
    struct qcow2_check *c;
    struct qcow2_set seen; /* L2 tables of this L1 table */
    uint8_t *l2;           /* a cluster */
    const char *whose;
};

static int walk_l2(struct walk *w, uint64_t index, uint64_t offset)
{
    struct qcow2_check *c = w->c;
    uint64_t cluster = qcow2_cluster(&c->h), entries = cluster / 8;
    int rc = bfile_read(c->file, offset, w->l2, cluster);

    if (rc < 0 && rc != -ENXIO)
        return rc;
    for (uint64_t i = 0; i < entries; i++) {
        uint64_t entry = be64_load(w->l2 + 8 * i);

        if (entry == 0)
            continue;
        rc = use_entry(c, index * entries + i, entry);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int walk_entry(struct walk *w, uint64_t index, uint64_t entry)
{
    struct qcow2_check *c = w->c;
    uint64_t offset = entry & QCOW2_OFFSET, cluster = qcow2_cluster(&c->h);
    const char *wrong = NULL;
    int rc;

    if ((entry & QCOW2_RESERVED_L1) != 0)
        wrong = "has reserved bits set";
    else if (offset == 0 || (offset & (cluster - 1)) != 0)
        wrong = "is not at a cluster";
    else if (offset >> c->h.cluster_bits >= end_cluster(c))
        wrong = "lies behind the end of the file";
    if (wrong == NULL) {
        rc = qcow2_set_add(&w->seen, offset >> c->h.cluster_bits);
        if (rc < 0)
            return rc;
        if (rc > 0)
            wrong = "is there a second time";
    }
    if (wrong != NULL) {
        c->out->errors++;
        qcow2_check_say(c, "L2 table %llu of %s %s (entry %#llx)", (ull)index, w->whose, wrong,
                        (ull)entry);
        return 0;
    }
    rc = use_l2(c, offset >> c->h.cluster_bits);
    return rc < 0 ? rc : walk_l2(w, index, offset);
}

static int read_table(struct qcow2_check *c, uint64_t offset, uint64_t count, uint64_t **out)
{
    uint64_t *t = calloc(max_u64(count, 1), 8);
    int rc;

    if (t == NULL)
        return -ENOMEM;
    rc = count == 0 ? 0 : bfile_read(c->file, offset, t, count * 8);
    if (rc < 0 && rc != -ENXIO) {
        free(t);
        return rc;
    }
    for (uint64_t i = 0; i < count; i++)
        t[i] = be64_load(&t[i]);
    *out = t;
    return 0;
}

static int walk_l1(struct qcow2_check *c, const uint64_t *l1, uint64_t entries, const char *whose)
{
    struct walk w = {.c = c, .whose = whose, .l2 = malloc(qcow2_cluster(&c->h))};
    int rc = w.l2 == NULL ? -ENOMEM : 0;

    for (uint64_t i = 0; rc == 0 && i < entries; i++) {
        if (l1[i] != 0)
            rc = walk_entry(&w, i, l1[i]);
        if (i % 64 == 0)
            qcow2_check_progress(c, min_u64(64, entries - i));
    }
    qcow2_set_free(&w.seen);
    free(w.l2);
    return rc;
}

struct snapshot_walk {
    struct qcow2_check *c;
    struct qcow2_set seen;
};

static int walk_snapshot(void *ctx, const struct qcow2_snapshot *s)
{
    struct snapshot_walk *w = ctx;
    struct qcow2_check *c = w->c;
    uint64_t *l1;
    int rc;

    if (s->l1_entries == 0)
        return 0;
    rc = qcow2_set_add(&w->seen, s->l1_offset >> c->h.cluster_bits);
    if (rc > 0) {
        c->out->errors++;
        qcow2_check_say(c, "two snapshots have their L1 table at %#llx", (ull)s->l1_offset);
        return 0;
    }
    if (rc == 0)
        rc = use_bytes(c, s->l1_offset, s->l1_entries * 8ull, "a snapshot's L1 table");
    if (rc == 0)
        rc = read_table(c, s->l1_offset, s->l1_entries, &l1);
    if (rc < 0)
        return rc;
    rc = walk_l1(c, l1, s->l1_entries, "a snapshot");
    free(l1);
    return rc;
}

/* ---- the counts in the file ---- */

static int use_refcounts(struct qcow2_check *c)
{
    uint64_t cluster = qcow2_cluster(&c->h);
    int rc =
        use_bytes(c, c->h.reftable_offset, c->h.reftable_clusters * cluster, "the refcount table");

    for (uint64_t i = 0; rc == 0 && i < c->reftable_entries; i++) {
        uint64_t entry = c->reftable[i];

        if (entry == 0)
            continue;
        if ((entry & (cluster - 1)) != 0 || entry >> c->h.cluster_bits >= end_cluster(c)) {
            c->out->errors++;
            c->wrong_counts++;
            qcow2_check_say(c, "refcount block %llu cannot be at %#llx", (ull)i, (ull)entry);
            c->reftable[i] = 0;
            continue;
        }
        if ((qcow2_count_get(&c->used, entry >> c->h.cluster_bits) & COUNT_METADATA) != 0) {
            c->out->errors++; /* and is not read again for each time that it is named */
            c->wrong_counts++;
            qcow2_check_say(c, "refcount block %llu at %#llx lies on metadata", (ull)i, (ull)entry);
            c->reftable[i] = 0;
            continue;
        }
        rc = use(c, entry >> c->h.cluster_bits, true, "a refcount block");
    }
    return rc;
}

static void compare(struct qcow2_check *c, uint64_t cluster, uint64_t stored)
{
    uint64_t used = qcow2_count_get(&c->used, cluster) & ~COUNT_METADATA;

    c->out->clusters += used > 0;
    if (used == stored)
        return;
    c->wrong_counts++;
    if (stored > used)
        c->out->leaks++;
    else
        c->out->errors++;
    qcow2_check_say(c, "cluster %llu is used %llu times, and counts as used %llu times",
                    (ull)cluster, (ull)used, (ull)stored);
}

/* The blocks that are there, and then what has none. */
static int compare_all(struct qcow2_check *c)
{
    uint64_t per = qcow2_cluster(&c->h) * 8 >> c->h.refcount_order;
    uint8_t *block = malloc(qcow2_cluster(&c->h));
    int rc = block == NULL ? -ENOMEM : 0;

    for (uint64_t i = 0; rc == 0 && i < c->reftable_entries; i++) {
        qcow2_check_progress(c, 1);
        if (c->reftable[i] == 0)
            continue;
        rc = bfile_read(c->file, c->reftable[i], block, qcow2_cluster(&c->h));
        rc = rc == -ENXIO ? 0 : rc;
        for (uint64_t n = 0; rc == 0 && n < per; n++)
            compare(c, i * per + n, qcow2_ref_load(block, c->h.refcount_order, n));
    }
    free(block);
    for (size_t p = 0; rc == 0 && p < c->used.size; p++) {
        const struct qcow2_count_page *page = &c->used.page[p];

        for (uint64_t n = 0; page->number != 0 && n < COUNT_PAGE; n++) {
            uint64_t cluster = (page->number - 1) * COUNT_PAGE + n;

            if (page->count[n] != 0 &&
                (cluster / per >= c->reftable_entries || c->reftable[cluster / per] == 0))
                compare(c, cluster, 0);
        }
    }
    return rc;
}

/* ---- all ---- */

static int count_all(struct qcow2_check *c, struct error *err)
{
    struct snapshot_walk snapshots = {.c = c};
    uint64_t bytes = 0;
    int rc = use(c, 0, true, "the header");

    if (rc == 0)
        rc = use_bytes(c, c->h.l1_offset, c->h.l1_entries * 8ull, "the L1 table");
    if (rc == 0)
        rc = use_refcounts(c);
    if (rc == 0) {
        rc = qcow2_snapshots(c->file, &c->h, &bytes, walk_snapshot, &snapshots, err);
        qcow2_set_free(&snapshots.seen);
        if (rc == -EINVAL || rc == -EFBIG) { /* what it says is wrong cannot be mended */
            c->out->errors++;
            qcow2_check_say(c, "%s", err != NULL ? err->text : "the snapshot table is corrupt");
            rc = 0;
            bytes = 0;
        }
    }
    if (rc == 0)
        rc = use_bytes(c, c->h.snapshots_offset, bytes, "the snapshot table");
    if (rc == 0)
        rc = walk_l1(c, c->l1, c->h.l1_entries, "the disk");
    return rc;
}

static int load(struct qcow2_check *c)
{
    int rc;

    c->reftable_entries = c->h.reftable_clusters * qcow2_cluster(&c->h) / 8;
    c->total = c->h.l1_entries + c->reftable_entries;
    c->bitmaps = c->h.bitmaps && (c->h.autoclear & 1) != 0;
    rc = read_table(c, c->h.reftable_offset, c->reftable_entries, &c->reftable);
    if (rc == 0)
        rc = read_table(c, c->h.l1_offset, c->h.l1_entries, &c->l1);
    return rc;
}

static int mend(struct qcow2_check *c, struct error *err)
{
    uint64_t marks = c->h.incompatible & (QCOW2_DIRTY | QCOW2_CORRUPT);
    int rc = 0;

    if (c->bitmaps)
        return error_set(err, -ENOTSUP,
                         "%s has dirty bitmaps, whose clusters are not counted here, so it is not "
                         "mended",
                         c->file->name);
    if (c->wrong_counts > 0)
        rc = qcow2_rebuild(c, err);
    if (rc < 0)
        return rc;
    if (c->wrong_flags > 0)
        rc = qcow2_check_flags(c, true);
    if (rc == 0)
        rc = bfile_flush(c->file);
    c->out->fixed = c->wrong_counts - c->too_many + c->wrong_flags;
    /* whole again: a mark that says otherwise may go */
    if (rc == 0 && marks != 0 && c->out->errors + c->out->leaks == c->out->fixed) {
        c->h.incompatible &= ~marks;
        rc = qcow2_header_write(c->file, &c->h);
        if (rc == 0)
            rc = bfile_flush(c->file);
    }
    return rc;
}

int qcow2_check(struct bfile *file, bool fix, struct block_check *out, struct error *err)
{
    struct qcow2_check c = {.file = file, .out = out};
    struct error inner = {0};
    int rc = qcow2_header_read(file, &c.h, err);

    out->errors = out->leaks = out->fixed = out->clusters = 0;
    if (rc < 0)
        return rc;
    rc = load(&c);
    if (rc == 0)
        rc = count_all(&c, &inner);
    if (rc == 0)
        rc = compare_all(&c);
    if (rc == 0)
        rc = qcow2_check_flags(&c, false);
    if (rc == 0 && c.bitmaps) {
        qcow2_check_say(&c,
                        "the clusters of its dirty bitmaps are not counted: leaks mean nothing");
        out->leaks = 0;
    }
    if (rc < 0)
        error_set(err, rc, "cannot check %s: %s", file->name,
                  inner.code != 0 ? inner.text : strerror(-rc));
    if (rc == 0 && fix) {
        rc = mend(&c, &inner);
        if (rc < 0)
            error_set(err, rc, "cannot mend %s: %s", file->name,
                      inner.code != 0 ? inner.text : strerror(-rc));
    }
    qcow2_count_free(&c.used);
    free(c.reftable);
    free(c.l1);
    return rc;
}
