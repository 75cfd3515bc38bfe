/* New qcow2 images, and other sizes of old ones. */
#include "block/qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"

#define CLUSTER_DEFAULT 65536u
#define EXT_BACKING_FORMAT 0xe2792acau
#define HEADER_LENGTH 112u

/* Clusters of a new image: the header, then these, one behind the other. */
struct layout {
    uint64_t cluster, l1_entries;
    uint64_t table, blocks, l1, total;
};

static int l1_entries_for(uint64_t size, uint64_t cluster, const char *name, uint64_t *out,
                          struct error *err)
{
    uint64_t span = cluster * (cluster / 8);

    if (size > (uint64_t)INT64_MAX - span)
        return error_set(err, -EFBIG, "a disk of %" PRIu64 " bytes is too large for %s", size,
                         name);
    *out = (size + span - 1) / span;
    if (*out > QCOW2_L1_MAX / 8)
        return error_set(err, -EFBIG,
                         "a disk of %" PRIu64 " bytes needs clusters larger than %" PRIu64
                         " bytes in %s",
                         size, cluster, name);
    return 0;
}

static int plan(const struct block_create *o, const char *name, struct layout *l, struct error *err)
{
    uint64_t per_block, before;
    int rc;

    l->cluster = o->cluster == 0 ? CLUSTER_DEFAULT : o->cluster;
    if (l->cluster < 512 || l->cluster > 2 * MIB || (l->cluster & (l->cluster - 1)) != 0)
        return error_set(err, -EINVAL,
                         "a cluster of %" PRIu64
                         " bytes is not possible: it must be a power of two from 512 to 2M",
                         l->cluster);
    rc = l1_entries_for(o->size, l->cluster, name, &l->l1_entries, err);
    if (rc < 0)
        return rc;
    per_block = l->cluster / 2; /* refcounts of 16 bits */
    l->table = 1;
    l->blocks = 1;
    l->l1 = max_u64((l->l1_entries * 8 + l->cluster - 1) / l->cluster, 1);
    do {
        before = l->table + l->blocks;
        l->total = 1 + l->table + l->blocks + l->l1;
        l->blocks = (l->total + per_block - 1) / per_block;
        l->table = (l->blocks * 8 + l->cluster - 1) / l->cluster;
    } while (before != l->table + l->blocks);
    return 0;
}

static int judge(const struct block_create *o, struct error *err)
{
    if (o->size % 512 != 0)
        return error_set(err, -EINVAL, "the size %" PRIu64 " is not a multiple of 512", o->size);
    if (o->version != 0 && o->version != 2 && o->version != 3)
        return error_set(err, -EINVAL, "there is no qcow2 version %u: 2 and 3 are known",
                         o->version);
    if (o->version == 2 && (o->zstd || o->lazy_refcounts))
        return error_set(err, -EINVAL, "%s needs version 3", o->zstd ? "zstd" : "lazy_refcounts");
    if (o->backing != NULL && (o->backing[0] == '\0' || strlen(o->backing) > 1023))
        return error_set(err, -EINVAL, "the name of the backing file must have 1 to 1023 bytes");
    if (o->backing_format != NULL && block_format_find(o->backing_format) == NULL)
        return error_set(err, -EINVAL, "the backing file's format '%s' is not known",
                         o->backing_format);
    return 0;
}

static int build_header(const struct block_create *o, const struct layout *l, uint8_t *p,
                        struct error *err)
{
    bool v3 = o->version != 2;
    uint64_t at = v3 ? HEADER_LENGTH : 72;
    size_t name = o->backing != NULL ? strlen(o->backing) : 0;
    size_t format = o->backing_format != NULL ? strlen(o->backing_format) : 0;

    be32_store(p, QCOW2_MAGIC);
    be32_store(p + QCOW2_H_VERSION, v3 ? 3 : 2);
    be32_store(p + QCOW2_H_CLUSTER_BITS, (uint32_t)__builtin_ctzll(l->cluster));
    be64_store(p + QCOW2_H_SIZE, o->size);
    be32_store(p + QCOW2_H_L1_SIZE, (uint32_t)l->l1_entries);
    be64_store(p + QCOW2_H_L1_OFFSET, (1 + l->table + l->blocks) * l->cluster);
    be64_store(p + QCOW2_H_REFTABLE_OFFSET, l->cluster);
    be32_store(p + QCOW2_H_REFTABLE_CLUSTERS, (uint32_t)l->table);
    if (v3) {
        be64_store(p + QCOW2_H_INCOMPATIBLE, o->zstd ? QCOW2_COMPRESSION : 0);
        be64_store(p + QCOW2_H_COMPATIBLE, o->lazy_refcounts ? QCOW2_LAZY : 0);
        be32_store(p + QCOW2_H_REFCOUNT_ORDER, 4);
        be32_store(p + QCOW2_H_LENGTH, HEADER_LENGTH);
        p[QCOW2_H_COMPRESSION] = o->zstd;
    }
    if (at + 16 + align_up(format, 8) + name > l->cluster)
        return error_set(err, -ENAMETOOLONG,
                         "the name of the backing file does not fit into a cluster of %" PRIu64
                         " bytes",
                         l->cluster);
    if (name > 0 && format > 0) {
        be32_store(p + at, EXT_BACKING_FORMAT);
        be32_store(p + at + 4, (uint32_t)format);
        memcpy(p + at + 8, o->backing_format, format);
        at += 8 + align_up(format, 8);
    }
    at += 8; /* the end of extensions is eight zeros */
    if (name > 0) {
        be64_store(p + QCOW2_H_BACKING_OFFSET, at);
        be32_store(p + QCOW2_H_BACKING_SIZE, (uint32_t)name);
        memcpy(p + at, o->backing, name);
    }
    return 0;
}

/* One cluster after the other; the header comes last, so that there is no image before it is whole.
 */
static int write_image(struct bfile *file, const struct layout *l, const uint8_t *header)
{
    uint64_t per_block = l->cluster / 2, cluster = l->cluster;
    uint8_t *buf = calloc(1, cluster);
    int rc = buf == NULL ? -ENOMEM : 0;

    for (uint64_t i = 0; rc == 0 && i < l->table; i++) {
        memset(buf, 0, cluster);
        for (uint64_t n = 0; n < cluster / 8 && i * (cluster / 8) + n < l->blocks; n++)
            be64_store(buf + 8 * n, (1 + l->table + i * (cluster / 8) + n) * cluster);
        rc = bfile_write(file, (1 + i) * cluster, buf, cluster);
    }
    for (uint64_t i = 0; rc == 0 && i < l->blocks; i++) {
        memset(buf, 0, cluster);
        for (uint64_t n = 0; n < per_block && i * per_block + n < l->total; n++)
            be16_store(buf + 2 * n, 1);
        rc = bfile_write(file, (1 + l->table + i) * cluster, buf, cluster);
    }
    if (rc == 0)
        memset(buf, 0, cluster);
    for (uint64_t i = l->total - l->l1; rc == 0 && i < l->total; i++)
        rc = bfile_write(file, i * cluster, buf, cluster);
    if (rc == 0)
        rc = bfile_flush(file);
    if (rc == 0)
        rc = bfile_write(file, 0, header, cluster);
    if (rc == 0)
        rc = bfile_flush(file);
    free(buf);
    return rc;
}

int qcow2_create(struct bfile *file, const struct block_create *o, struct error *err)
{
    struct layout l;
    uint8_t *header;
    int rc = judge(o, err);

    if (rc == 0)
        rc = plan(o, file->name, &l, err);
    if (rc < 0)
        return rc;
    header = calloc(1, l.cluster);
    if (header == NULL)
        return error_set(err, -ENOMEM, "no memory for %s", file->name);
    rc = build_header(o, &l, header, err);
    if (rc == 0) {
        rc = write_image(file, &l, header);
        if (rc < 0)
            error_set(err, rc, "cannot write %s: %s", file->name, strerror(-rc));
    }
    free(header);
    return rc;
}

/* ---- another size: no other call is under way ---- */

/* A longer table with the same content in a new place, not yet named by the header. */
static int write_l1(struct qcow2 *q, struct qcow2_table *t, uint64_t clusters, uint64_t *first)
{
    size_t bytes = clusters << q->cluster_bits;
    int rc;

    t->entry = calloc(1, bytes);
    t->dirty = calloc(1, bytes / q->unit);
    if (t->entry == NULL || t->dirty == NULL)
        return -ENOMEM;
    rc = qcow2_alloc_region(q, clusters, first);
    if (rc < 0)
        return rc;
    memcpy(t->entry, q->l1.entry, q->l1.count * 8ull);
    t->offset = *first << q->cluster_bits;
    t->count = (uint32_t)(bytes / 8); /* whole clusters are written */
    rc = qcow2_table_write(q, t, t->offset);
    for (uint64_t i = 0; rc == 0 && i < clusters; i++)
        rc = qcow2_set_add(&q->metadata, *first + i) < 0 ? -ENOMEM : 0;
    if (rc < 0) {
        for (uint64_t i = 0; i < clusters; i++)
            qcow2_set_remove(&q->metadata, *first + i);
        qcow2_unalloc(q, *first, clusters);
    }
    return rc;
}

/* The header names the new table. */
static int switch_l1(struct qcow2 *q, struct qcow2_table *t, uint64_t entries)
{
    uint64_t old = (q->l1.count * 8ull + q->cluster - 1) >> q->cluster_bits;
    struct qcow2_header h = q->header;
    int rc;

    h.l1_offset = t->offset;
    h.l1_entries = (uint32_t)entries;
    rc = qcow2_header_change(q, &h);
    if (rc < 0)
        return rc;
    t->count = (uint32_t)entries;
    qcow2_free_later(q, q->l1.offset >> q->cluster_bits, old);
    qcow2_table_free(&q->l1);
    q->l1 = *t;
    memset(t, 0, sizeof(*t));
    return 0;
}

/* With `commit` held. Around the switch everything else is on stable storage. */
static int longer_l1(struct qcow2 *q, uint64_t entries)
{
    uint64_t clusters = (entries * 8 + q->cluster - 1) >> q->cluster_bits, first = 0;
    struct qcow2_table t = {0};
    int rc = qcow2_commit_locked(q);

    if (rc == 0) {
        pthread_mutex_lock(&q->lock);
        rc = write_l1(q, &t, clusters, &first);
        pthread_mutex_unlock(&q->lock);
    }
    if (rc == 0)
        rc = qcow2_commit_locked(q);
    if (rc == 0) {
        pthread_mutex_lock(&q->lock);
        rc = switch_l1(q, &t, entries);
        pthread_mutex_unlock(&q->lock);
    }
    qcow2_table_free(&t); /* after a failure its clusters are a leak, until the next check */
    return rc;
}

static int set_size(struct qcow2 *q, uint64_t size)
{
    struct qcow2_header h;
    int rc;

    pthread_mutex_lock(&q->lock);
    h = q->header;
    h.size = size;
    rc = qcow2_header_change(q, &h);
    pthread_mutex_unlock(&q->lock);
    return rc;
}

static int change_size(struct qcow2 *q, uint64_t size, uint64_t entries)
{
    uint64_t old = q->header.size, stale;
    int rc;

    pthread_mutex_lock(&q->lock);
    rc = qcow2_begin_write(q);
    pthread_mutex_unlock(&q->lock);
    if (rc < 0)
        return rc;
    if (size < old) {
        rc = qcow2_zero(q, size, old - size, true);
    } else {
        if (entries > q->l1.count) {
            pthread_mutex_lock(&q->commit);
            rc = longer_l1(q, entries);
            pthread_mutex_unlock(&q->commit);
        }
        /* neither the rest of a cluster nor a longer backing file shows in what is new */
        stale = max_u64(align_up(old, q->cluster), q->backing_size);
        stale = min_u64(stale, size);
        if (rc == 0 && stale > old)
            rc = qcow2_zero(q, old, stale - old, true);
    }
    if (rc == 0)
        rc = qcow2_commit(q, true);
    return rc == 0 ? set_size(q, size) : rc;
}

int qcow2_resize(void *image, uint64_t size, struct error *err)
{
    struct qcow2 *q = image;
    uint64_t entries;
    int rc;

    if (q->read_only)
        return error_set(err, -EROFS, "%s is open read-only", q->file->name);
    if (size % 512 != 0)
        return error_set(err, -EINVAL, "the size %" PRIu64 " is not a multiple of 512", size);
    rc = l1_entries_for(size, q->cluster, q->file->name, &entries, err);
    if (rc < 0)
        return rc;
    if (q->version < 3 && q->header.snapshots > 0)
        return error_set(err, -ENOTSUP,
                         "%s has snapshots, which in version 2 do not know their size; it cannot "
                         "be resized",
                         q->file->name);
    rc = size == q->header.size ? 0 : change_size(q, size, entries);
    if (rc < 0)
        return error_set(err, rc, "cannot resize %s: %s", q->file->name, strerror(-rc));
    return 0;
}
