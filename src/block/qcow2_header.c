/* The header of a qcow2 file, its extensions, the snapshot table. All of it is hostile. */
#include "block/qcow2.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"

#define EXT_END 0u
#define EXT_BACKING_FORMAT 0xe2792acau
#define EXT_BITMAPS 0x23852875u
#define EXT_ENCRYPTION 0x0537be77u

/* The first 104 bytes as numbers. Nothing is judged yet. */
static void decode(struct qcow2_header *h)
{
    const uint8_t *p = h->raw;

    h->version = be32_load(p + QCOW2_H_VERSION);
    h->cluster_bits = be32_load(p + QCOW2_H_CLUSTER_BITS);
    h->size = be64_load(p + QCOW2_H_SIZE);
    h->l1_entries = be32_load(p + QCOW2_H_L1_SIZE);
    h->l1_offset = be64_load(p + QCOW2_H_L1_OFFSET);
    h->reftable_offset = be64_load(p + QCOW2_H_REFTABLE_OFFSET);
    h->reftable_clusters = be32_load(p + QCOW2_H_REFTABLE_CLUSTERS);
    h->snapshots = be32_load(p + QCOW2_H_SNAPSHOTS);
    h->snapshots_offset = be64_load(p + QCOW2_H_SNAPSHOTS_OFFSET);
    h->refcount_order = 4;
    if (h->version < 3)
        return;
    h->incompatible = be64_load(p + QCOW2_H_INCOMPATIBLE);
    h->compatible = be64_load(p + QCOW2_H_COMPATIBLE);
    h->autoclear = be64_load(p + QCOW2_H_AUTOCLEAR);
    h->refcount_order = be32_load(p + QCOW2_H_REFCOUNT_ORDER);
    if (be32_load(p + QCOW2_H_LENGTH) > QCOW2_H_COMPRESSION)
        h->compression = p[QCOW2_H_COMPRESSION];
}

static int judge_features(const struct qcow2_header *h, const char *name, struct error *err)
{
    uint64_t known = QCOW2_DIRTY | QCOW2_CORRUPT | QCOW2_COMPRESSION, other;

    if (be32_load(h->raw + QCOW2_H_CRYPT) != 0)
        return error_set(err, -ENOTSUP, "%s is encrypted, which is not supported", name);
    if ((h->incompatible & QCOW2_EXTERNAL) != 0)
        return error_set(err, -ENOTSUP,
                         "%s keeps its data in an external data file, which is not supported",
                         name);
    if ((h->incompatible & QCOW2_EXTENDED_L2) != 0)
        return error_set(err, -ENOTSUP,
                         "%s has extended L2 entries (subclusters), which are not supported", name);
    other = h->incompatible & ~known;
    if (other != 0)
        return error_set(err, -ENOTSUP, "%s needs the unknown qcow2 feature of bit %d", name,
                         __builtin_ctzll(other));
    if (h->compression > 1 || ((h->incompatible & QCOW2_COMPRESSION) != 0) != (h->compression != 0))
        return error_set(err, -ENOTSUP, "%s has the unknown compression type %u", name,
                         h->compression);
    return 0;
}

/* A table of `bytes` at offset: whole clusters from a cluster's beginning, inside the file. */
static bool table_fits(const struct qcow2_header *h, uint64_t offset, uint64_t bytes)
{
    uint64_t cluster = qcow2_cluster(h), end;

    return (offset & (cluster - 1)) == 0 && offset >= cluster &&
           !__builtin_add_overflow(offset, bytes, &end) && end <= align_up(h->file_size, cluster);
}

static int judge_tables(struct qcow2_header *h, const char *name, struct error *err)
{
    uint64_t span = qcow2_cluster(h) * (qcow2_cluster(h) / 8); /* of one L2 table */

    if (h->size > INT64_MAX - span)
        return error_set(err, -EINVAL, "%s has a corrupt header: its disk has %" PRIu64 " bytes",
                         name, h->size);
    h->size = align_up(h->size, 512);
    if (h->l1_entries > QCOW2_L1_MAX / 8)
        return error_set(err, -EFBIG, "%s has a corrupt header: an L1 table of %u entries", name,
                         h->l1_entries);
    if (h->l1_entries < (h->size + span - 1) / span)
        return error_set(err, -EINVAL,
                         "%s has a corrupt header: its L1 table of %u entries is too "
                         "small for the disk",
                         name, h->l1_entries);
    if (h->l1_entries > 0 && !table_fits(h, h->l1_offset, h->l1_entries * 8ull))
        return error_set(err, -EINVAL,
                         "%s has a corrupt header: the L1 table cannot be at %#" PRIx64, name,
                         h->l1_offset);
    if (h->reftable_clusters == 0 || h->reftable_clusters > QCOW2_REFTABLE_MAX / qcow2_cluster(h))
        return error_set(err, -EINVAL, "%s has a corrupt header: a refcount table of %u clusters",
                         name, h->reftable_clusters);
    if (!table_fits(h, h->reftable_offset, h->reftable_clusters * qcow2_cluster(h)))
        return error_set(err, -EINVAL,
                         "%s has a corrupt header: the refcount table cannot be at %#" PRIx64, name,
                         h->reftable_offset);
    if (h->snapshots > QCOW2_SNAPSHOTS_MAX)
        return error_set(err, -EFBIG, "%s has a corrupt header: %u snapshots", name, h->snapshots);
    if (h->snapshots > 0 && !table_fits(h, h->snapshots_offset, h->snapshots * 40ull))
        return error_set(err, -EINVAL,
                         "%s has a corrupt header: the snapshot table cannot be at %#" PRIx64, name,
                         h->snapshots_offset);
    return 0;
}

/* Extensions and the backing file's name; `first` is the first cluster. */
static int read_rest(struct qcow2_header *h, const uint8_t *first, const char *name,
                     struct error *err)
{
    uint64_t cluster = qcow2_cluster(h), at = 72, len;
    uint64_t backing = be64_load(first + QCOW2_H_BACKING_OFFSET);
    uint32_t backing_len = be32_load(first + QCOW2_H_BACKING_SIZE), type;
    uint64_t end = backing != 0 && backing < cluster ? backing : cluster;

    if (h->version >= 3) {
        at = be32_load(first + QCOW2_H_LENGTH);
        if (at < QCOW2_H_COMPRESSION || at > cluster || at % 8 != 0)
            return error_set(err, -EINVAL,
                             "%s has a corrupt header: it says that it is %" PRIu64 " bytes long",
                             name, at);
    }
    for (; at + 8 <= end; at += 8 + align_up(len, 8)) {
        type = be32_load(first + at);
        len = be32_load(first + at + 4);
        if (type == EXT_END)
            break;
        if (len > end - at - 8)
            return error_set(err, -EINVAL,
                             "%s has a corrupt header: an extension of %" PRIu64 " bytes", name,
                             len);
        if (type == EXT_BITMAPS)
            h->bitmaps = true;
        if (type == EXT_ENCRYPTION)
            return error_set(err, -ENOTSUP, "%s is encrypted, which is not supported", name);
        if (type == EXT_BACKING_FORMAT) {
            if (len >= sizeof(h->backing_format) || memchr(first + at + 8, 0, len) != NULL)
                return error_set(err, -EINVAL, "%s has a corrupt header: the backing file's format",
                                 name);
            memcpy(h->backing_format, first + at + 8, len);
        }
    }
    if (backing == 0)
        return 0;
    if (backing_len == 0 || backing_len > 1023 || backing >= cluster ||
        backing_len > cluster - backing || memchr(first + backing, 0, backing_len) != NULL)
        return error_set(err, -EINVAL, "%s has a corrupt header: the backing file's name", name);
    memcpy(h->backing, first + backing, backing_len);
    return 0;
}

int qcow2_header_read(struct bfile *file, struct qcow2_header *h, struct error *err)
{
    const char *name = file->name;
    uint8_t *first;
    int rc;

    memset(h, 0, sizeof(*h));
    rc = bfile_size(file, &h->file_size);
    if (rc == 0)
        rc = bfile_read(file, 0, h->raw, sizeof(h->raw));
    if (rc < 0 && rc != -ENXIO)
        return error_set(err, rc, "cannot read %s: %s", name, strerror(-rc));
    if (h->file_size < 72 || be32_load(h->raw) != QCOW2_MAGIC)
        return error_set(err, -EINVAL, "%s is no qcow2 image", name);
    decode(h);
    if (h->version != 2 && h->version != 3)
        return error_set(err, -ENOTSUP, "%s is of qcow2 version %u; supported are 2 and 3", name,
                         h->version);
    if (h->cluster_bits < 9 || h->cluster_bits > 21)
        return error_set(err, -ENOTSUP,
                         "%s has clusters of 2^%u bytes; supported are 512 bytes to 2 MiB", name,
                         h->cluster_bits);
    if (h->refcount_order > 6)
        return error_set(err, -EINVAL, "%s has a corrupt header: refcounts of 2^%u bits", name,
                         h->refcount_order);
    rc = judge_features(h, name, err);
    if (rc == 0)
        rc = judge_tables(h, name, err);
    if (rc < 0)
        return rc;
    first = calloc(1, qcow2_cluster(h));
    if (first == NULL)
        return error_set(err, -ENOMEM, "no memory for the header of %s", name);
    rc = bfile_read(file, 0, first, qcow2_cluster(h));
    if (rc < 0 && rc != -ENXIO)
        rc = error_set(err, rc, "cannot read %s: %s", name, strerror(-rc));
    else
        rc = read_rest(h, first, name, err);
    free(first);
    return rc;
}

int qcow2_header_write(struct bfile *file, struct qcow2_header *h)
{
    size_t unit = min_u64(qcow2_cluster(h), QCOW2_UNIT);
    uint8_t *p = h->raw;

    be64_store(p + QCOW2_H_SIZE, h->size);
    be32_store(p + QCOW2_H_L1_SIZE, h->l1_entries);
    be64_store(p + QCOW2_H_L1_OFFSET, h->l1_offset);
    be64_store(p + QCOW2_H_REFTABLE_OFFSET, h->reftable_offset);
    be32_store(p + QCOW2_H_REFTABLE_CLUSTERS, h->reftable_clusters);
    if (h->version >= 3) {
        be64_store(p + QCOW2_H_INCOMPATIBLE, h->incompatible);
        be64_store(p + QCOW2_H_AUTOCLEAR, h->autoclear);
    }
    return bfile_write(file, 0, p, unit);
}

int qcow2_snapshots(struct bfile *file, const struct qcow2_header *h, uint64_t *bytes,
                    int (*each)(void *ctx, const struct qcow2_snapshot *s), void *ctx,
                    struct error *err)
{
    uint64_t at = h->snapshots_offset;
    uint8_t entry[40];

    for (uint32_t i = 0; i < h->snapshots; i++) {
        struct qcow2_snapshot s;
        uint64_t len;
        int rc = bfile_read(file, at, entry, sizeof(entry));

        if (rc < 0)
            return error_set(err, rc == -ENXIO ? -EINVAL : rc,
                             "the snapshot table of %s cannot be read", file->name);
        s.l1_offset = be64_load(entry);
        s.l1_entries = be32_load(entry + 8);
        len = align_up(sizeof(entry) + be16_load(entry + 12) + be16_load(entry + 14) +
                           (uint64_t)be32_load(entry + 36),
                       8);
        at += len;
        if (at - h->snapshots_offset > QCOW2_SNAPSHOT_TABLE_MAX || at > h->file_size + 8)
            return error_set(err, -EINVAL, "the snapshot table of %s is corrupt", file->name);
        if (s.l1_entries > QCOW2_L1_MAX / 8 ||
            (s.l1_entries > 0 && !table_fits(h, s.l1_offset, s.l1_entries * 8ull)))
            return error_set(err, -EINVAL,
                             "snapshot %u of %s is corrupt: an L1 table of %u entries at %#" PRIx64,
                             i + 1, file->name, s.l1_entries, s.l1_offset);
        rc = each(ctx, &s);
        if (rc < 0)
            return error_set(err, rc, "the snapshots of %s cannot be read: %s", file->name,
                             strerror(-rc));
    }
    *bytes = at - h->snapshots_offset;
    return 0;
}
