/* Opening and closing qcow2 images, and the table that is the format's face. */
#include "block/qcow2.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"

#define DEPTH_MAX 64u /* of backing files; more is a loop or a joke */
#ifdef XHYVE_HOSTILE
#define SLOTS 64u
#else
#define SLOTS 2048u
#endif
#define SLOTS_MIN 64u

static bool probe(const uint8_t *head, size_t len, uint64_t file_size)
{
    (void)file_size;
    return len >= 72 && be32_load(head) == QCOW2_MAGIC && be32_load(head + QCOW2_H_VERSION) >= 2;
}

/* ---- what guest data must not be written to ---- */

static int metadata_add(struct qcow2 *q, uint64_t offset, uint64_t bytes, const char *what,
                        struct error *err)
{
    uint64_t first = offset >> q->cluster_bits,
             end = (offset + bytes + q->cluster - 1) >> q->cluster_bits;

    for (; first < end; first++) {
        int rc = qcow2_set_add(&q->metadata, first);

        if (rc < 0)
            return error_set(err, rc, "no memory for the tables of %s", q->file->name);
        if (rc > 0)
            return error_set(err, -EINVAL,
                             "%s is corrupt: %s at %#llx lies on other metadata; it can be opened "
                             "read-only",
                             q->file->name, what, (unsigned long long)(first << q->cluster_bits));
    }
    return 0;
}

static int table_metadata(struct qcow2 *q, const struct qcow2_table *t, uint64_t offset_bits,
                          uint64_t reserved, const char *what, struct error *err)
{
    for (uint32_t i = 0; i < t->count; i++) {
        uint64_t entry = t->entry[i], offset = entry & offset_bits;
        int rc;

        if (entry == 0)
            continue;
        if ((entry & reserved) != 0 || offset == 0 || qcow2_in(q, offset) != 0 ||
            offset >= q->fresh_from << q->cluster_bits)
            return error_set(err, -EINVAL,
                             "%s is corrupt: %s cannot be at %#llx; it can be opened read-only",
                             q->file->name, what, (unsigned long long)entry);
        rc = metadata_add(q, offset, q->cluster, what, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

struct snapshot_walk {
    struct qcow2 *q;
    struct error *err;
};

static int snapshot_metadata(void *ctx, const struct qcow2_snapshot *s)
{
    struct snapshot_walk *w = ctx;

    return metadata_add(w->q, s->l1_offset, s->l1_entries * 8ull, "a snapshot's L1 table", w->err);
}

static int collect_metadata(struct qcow2 *q, struct error *err)
{
    const struct qcow2_header *h = &q->header;
    struct snapshot_walk walk = {.q = q, .err = err};
    struct error inner = {0};
    uint64_t bytes;
    int rc = metadata_add(q, 0, q->cluster, "the header", err);

    if (rc == 0)
        rc = metadata_add(q, h->l1_offset, h->l1_entries * 8ull, "the L1 table", err);
    if (rc == 0)
        rc = metadata_add(q, h->reftable_offset, h->reftable_clusters * q->cluster,
                          "the refcount table", err);
    if (rc == 0)
        rc = table_metadata(q, &q->l1, QCOW2_OFFSET, QCOW2_RESERVED_L1, "an L2 table", err);
    if (rc == 0)
        rc = table_metadata(q, &q->reftable, ~QCOW2_RESERVED_REF, QCOW2_RESERVED_REF,
                            "a refcount block", err);
    if (rc < 0)
        return rc;
    if (err != NULL)
        err->code = 0;
    rc = qcow2_snapshots(q->file, h, &bytes, snapshot_metadata, &walk, &inner);
    if (rc < 0) { /* the sentence of what lies on what is the better one */
        if (err != NULL && err->code == 0)
            *err = inner;
        return rc;
    }
    return metadata_add(q, h->snapshots_offset, bytes, "the snapshot table", err);
}

/* ---- opening ---- */

int qcow2_load_tables(struct qcow2 *q, struct error *err)
{
    const struct qcow2_header *h = &q->header;
    int rc = qcow2_table_load(q, &q->l1, h->l1_offset, h->l1_entries);

    if (rc == 0)
        rc = qcow2_table_load(q, &q->reftable, h->reftable_offset,
                              h->reftable_clusters * q->cluster / 8);
    if (rc < 0)
        return error_set(err, rc, "cannot read the tables of %s: %s", q->file->name, strerror(-rc));
    return q->read_only ? 0 : collect_metadata(q, err);
}

static int open_backing(struct qcow2 *q, const struct block_open *o, struct error *err)
{
    const char *name = q->header.backing, *format = q->header.backing_format;
    struct block_open inner = *o;
    struct block_info info;
    int rc;

    if (name[0] == '\0' || o->look)
        return 0;
    if (o->backing == NULL)
        return error_set(err, -EPERM,
                         "%s has the backing file '%s', which is followed only if asked for",
                         q->file->name, name);
    if (o->depth >= DEPTH_MAX)
        return error_set(err, -ELOOP, "%s has more than %u backing files; they may form a loop",
                         q->file->name, DEPTH_MAX);
    rc = o->backing(o->backing_ctx, name, o->depth + 1, &q->backing_file, err);
    if (rc < 0)
        return rc;
    inner.read_only = true;
    inner.depth++;
    if (format[0] != '\0') {
        q->backing_format = block_format_find(format);
        if (q->backing_format == NULL)
            return error_set(err, -ENOTSUP, "%s has a backing file of the unknown format '%s'",
                             q->file->name, format);
    } else {
        /*
         * By the content, which a guest may have written: then it must not lead on to files of the
         * guest's choice.
         */
        inner.backing = NULL;
        rc = block_format_probe(q->backing_file, &q->backing_format, err);
        if (rc < 0)
            return rc;
    }
    rc = q->backing_format->open(q->backing_file, &inner, &q->backing, err);
    if (rc < 0) {
        error_prefix(err, "backing file of %s", q->file->name);
        return rc;
    }
    q->backing_format->info(q->backing, &info);
    q->backing_size = info.size;
    return 0;
}

static int make_cache(struct qcow2 *q, size_t slots)
{
    q->slot_count = max_u64(slots == 0 ? SLOTS : slots, SLOTS_MIN);
    for (q->hash_size = 64; q->hash_size < q->slot_count;)
        q->hash_size *= 2;
    q->slots = calloc(q->slot_count, sizeof(*q->slots));
    q->hash = calloc(q->hash_size, sizeof(*q->hash));
    return q->slots == NULL || q->hash == NULL ? -ENOMEM : 0;
}

/* What the header means for us. */
static void derive(struct qcow2 *q)
{
    const struct qcow2_header *h = &q->header;

    q->version = h->version;
    q->cluster_bits = h->cluster_bits;
    q->refcount_order = h->refcount_order;
    q->cluster = qcow2_cluster(h);
    q->unit = (unsigned)min_u64(q->cluster, QCOW2_UNIT);
    q->l2_bits = h->cluster_bits - 3;
    q->ref_bits = h->cluster_bits + 3 - h->refcount_order;
    q->fresh_from = (h->file_size + q->cluster - 1) >> h->cluster_bits;
    q->eof = h->file_size;
    q->in_use = h->file_size;
    snprintf(q->detail, sizeof(q->detail), "version %u, %s%s%s%s%s", h->version,
             h->compression == 0 ? "zlib" : "zstd",
             (h->compatible & QCOW2_LAZY) != 0 ? ", lazy refcounts" : "",
             h->snapshots > 0 ? ", has snapshots" : "",
             (h->incompatible & QCOW2_DIRTY) != 0 ? ", dirty" : "",
             (h->incompatible & QCOW2_CORRUPT) != 0 ? ", marked as corrupt" : "");
}

/* An image that was not closed may have wrong counts; they are made again from what is used. */
static int rebuild_dirty(struct qcow2 *q, struct error *err)
{
    struct block_check check = {0};
    int rc = qcow2_check(q->file, true, &check, err);

    if (rc == 0)
        rc = qcow2_header_read(q->file, &q->header, err);
    if (rc == 0 && (q->header.incompatible & QCOW2_DIRTY) != 0)
        rc = error_set(err, -EIO,
                       "%s was not closed and has %llu errors that cannot be mended; it can be "
                       "opened read-only",
                       q->file->name, (unsigned long long)check.errors);
    if (rc == 0)
        log_info(q->log, "%s was not closed; its reference counts were made again", q->file->name);
    return rc;
}

static int open_header(struct qcow2 *q, struct error *err)
{
    int rc = qcow2_header_read(q->file, &q->header, err);

    if (rc < 0 || q->read_only)
        return rc;
    if (q->file->read_only)
        return error_set(err, -EROFS, "%s is read-only", q->file->name);
    if ((q->header.incompatible & QCOW2_CORRUPT) != 0)
        return error_set(
            err, -EIO,
            "%s is marked as corrupt; mend it with xhyvectl image check --fix, or open "
            "it read-only",
            q->file->name);
    if ((q->header.incompatible & QCOW2_DIRTY) != 0)
        rc = rebuild_dirty(q, err);
    return rc;
}

static void destroy(struct qcow2 *q)
{
    if (q->backing != NULL)
        q->backing_format->close(q->backing);
    bfile_close(q->backing_file);
    for (size_t i = 0; q->slots != NULL && i < q->slot_count; i++)
        free(q->slots[i].data);
    free(q->slots);
    free(q->hash);
    qcow2_table_free(&q->l1);
    qcow2_table_free(&q->reftable);
    qcow2_set_free(&q->metadata);
    free(q->pending.range);
    free(q->quarantine.range);
    free(q->unpacked);
    pthread_mutex_destroy(&q->commit);
    pthread_mutex_destroy(&q->lock);
    pthread_mutex_destroy(&q->unpack);
    pthread_cond_destroy(&q->changed);
    free(q);
}

int qcow2_open_slots(struct bfile *file, const struct block_open *o, size_t slots,
                     struct qcow2 **out, struct error *err)
{
    struct qcow2 *q = calloc(1, sizeof(*q));
    int rc;

    if (q == NULL)
        return error_set(err, -ENOMEM, "no memory for %s", file->name);
    q->file = file;
    q->log = o->log;
    q->read_only = o->read_only;
    pthread_mutex_init(&q->commit, NULL);
    pthread_mutex_init(&q->lock, NULL);
    pthread_mutex_init(&q->unpack, NULL);
    pthread_cond_init(&q->changed, NULL);
    rc = open_header(q, err);
    if (rc == 0) {
        derive(q);
        rc = make_cache(q, slots);
        if (rc < 0)
            error_set(err, rc, "no memory for %s", file->name);
    }
    if (rc == 0)
        rc = qcow2_load_tables(q, err);
    if (rc == 0)
        rc = open_backing(q, o, err);
    if (rc < 0)
        destroy(q);
    else
        *out = q;
    return rc;
}

static int open_image(struct bfile *file, const struct block_open *o, void **image,
                      struct error *err)
{
    struct qcow2 *q;
    int rc = qcow2_open_slots(file, o, 0, &q, err);

    if (rc == 0)
        *image = q;
    return rc;
}

static int flush(void *image)
{
    struct qcow2 *q = image;

    return q->read_only ? 0 : qcow2_commit(q, true);
}

void qcow2_close(void *image)
{
    struct qcow2 *q = image;
    int rc = 0;

    /* Each round gives back what the one before made stable; counts that went down are written by
     * the last. */
    for (int i = 0; i < 3 && rc == 0 && !q->read_only && q->writing; i++)
        rc = qcow2_commit(q, true);
    if (rc < 0)
        log_error(q->log, "%s could not be written when it was closed: %s", q->file->name,
                  strerror(-rc));
    destroy(q);
}

static void info(void *image, struct block_info *out)
{
    struct qcow2 *q = image;

    pthread_mutex_lock(&q->lock);
    *out = (struct block_info){
        .size = q->header.size,
        .allocated = q->in_use,
        .cluster = (unsigned)q->cluster,
        .discard = true,
        .backing = q->header.backing[0] != '\0' ? q->header.backing : NULL,
        .detail = q->detail,
    };
    pthread_mutex_unlock(&q->lock);
}

const struct block_format block_qcow2 = {
    .name = "qcow2",
    .summary = "grows as it is written; snapshots, compression, backing files",
    .probe = probe,
    .open = open_image,
    .close = qcow2_close,
    .info = info,
    .read = qcow2_read,
    .write = qcow2_write,
    .flush = flush,
    .zero = qcow2_zero,
    .locate = qcow2_locate,
    .resize = qcow2_resize,
    .map = qcow2_map,
    .create = qcow2_create,
    .check = qcow2_check,
};
