/* From guest clusters to clusters of the file: L1 and L2 tables. */
#include "block/qcow2.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"

/* Compressed Clusters Descriptor: offset in bits 0 to x-1, further sectors in x to 61. */
void qcow2_packed_range(unsigned cluster_bits, uint64_t entry, uint64_t *offset, uint64_t *len)
{
    unsigned x = 62 - (cluster_bits - 8);
    uint64_t sectors = (entry & (QCOW2_COMPRESSED - 1)) >> x;

    *offset = entry & ((1ull << x) - 1);
    *len = (sectors + 1) * 512 - (*offset & 511);
}

const char *qcow2_entry_judge(const struct qcow2_header *h, uint64_t entry, struct qcow2_mapping *m)
{
    uint64_t cluster = qcow2_cluster(h), host = entry & QCOW2_OFFSET, len;

    memset(m, 0, sizeof(*m));
    m->entry = entry;
    if ((entry & QCOW2_COMPRESSED) != 0) {
        qcow2_packed_range(h->cluster_bits, entry, &host, &len);
        m->kind = QCOW2_K_PACKED;
        if ((entry & QCOW2_COPIED) != 0)
            return "is compressed and marked as not shared";
        if (host < cluster || host > QCOW2_OFFSET)
            return "is compressed and lies nowhere";
        return NULL;
    }
    m->copied = (entry & QCOW2_COPIED) != 0;
    m->host = host;
    if ((entry & QCOW2_RESERVED_L2) != 0 || (h->version < 3 && (entry & QCOW2_ZERO) != 0))
        return "has reserved bits set";
    if ((host & (cluster - 1)) != 0)
        return "lies inside a cluster";
    if (host == 0 && m->copied)
        return "lies on the header";
    if ((entry & QCOW2_ZERO) != 0)
        m->kind = QCOW2_K_ZERO;
    else
        m->kind = host == 0 ? QCOW2_K_NONE : QCOW2_K_DATA;
    return NULL;
}

/* Where the L2 table of a guest cluster is; 0: there is none. */
static int l2_table(struct qcow2 *q, uint64_t guest, uint64_t *offset)
{
    uint64_t l1 = guest >> q->l2_bits, entry;

    *offset = 0;
    if (l1 >= q->l1.count)
        return 0;
    entry = q->l1.entry[l1];
    *offset = entry & QCOW2_OFFSET;
    if ((entry & QCOW2_RESERVED_L1) != 0 || qcow2_in(q, *offset) != 0 ||
        (*offset == 0 && entry != 0) || *offset >> q->cluster_bits >= q->fresh_from)
        return qcow2_corrupt(q, "entry %llu of the L1 table is %#llx", (unsigned long long)l1,
                             (unsigned long long)entry);
    return 0;
}

static uint64_t in_table(const struct qcow2 *q, uint64_t guest)
{
    return (guest & ((1ull << q->l2_bits) - 1)) * 8;
}

static int l2_slot(struct qcow2 *q, uint64_t table, uint64_t guest, bool peek,
                   struct qcow2_slot **out)
{
    uint64_t at = table + (in_table(q, guest) & ~(uint64_t)(q->unit - 1));

    if (!peek)
        return qcow2_cache_get(q, at, true, out);
    *out = qcow2_cache_peek(q, at);
    return *out != NULL && (*out)->l2 ? 0 : -EAGAIN;
}

static int map_look(struct qcow2 *q, uint64_t guest, bool peek, struct qcow2_mapping *m)
{
    struct qcow2_slot *s;
    uint64_t table;
    const char *wrong;
    int rc = l2_table(q, guest, &table);

    memset(m, 0, sizeof(*m));
    if (rc < 0 || table == 0)
        return rc;
    rc = l2_slot(q, table, guest, peek, &s);
    if (rc < 0)
        return rc;
    wrong =
        qcow2_entry_judge(&q->header, be64_load(s->data + (in_table(q, guest) & (q->unit - 1))), m);
    if (wrong != NULL)
        return qcow2_corrupt(q, "cluster %llu of the disk %s (%#llx)", (unsigned long long)guest,
                             wrong, (unsigned long long)m->entry);
    return 0;
}

int qcow2_map_get(struct qcow2 *q, uint64_t guest_cluster, struct qcow2_mapping *m)
{
    return map_look(q, guest_cluster, false, m);
}

static bool continues(const struct qcow2 *q, const struct qcow2_mapping *m,
                      const struct qcow2_mapping *next, uint64_t clusters)
{
    if (next->kind != m->kind || m->kind == QCOW2_K_PACKED)
        return false;
    if (m->kind == QCOW2_K_DATA)
        return next->copied == m->copied && next->host == m->host + (clusters << q->cluster_bits);
    return m->kind == QCOW2_K_NONE || next->host == m->host;
}

int qcow2_map_run(struct qcow2 *q, uint64_t offset, uint64_t len, bool peek,
                  struct qcow2_mapping *m, uint64_t *run)
{
    uint64_t guest = offset >> q->cluster_bits, n = 1, have = q->cluster - qcow2_in(q, offset);
    int rc = map_look(q, guest, peek, m);

    while (rc == 0 && have < len) {
        struct qcow2_mapping next;

        /* a whole L2 table that is not there is one step */
        if (m->kind == QCOW2_K_NONE && in_table(q, guest + n) == 0 &&
            ((guest + n) >> q->l2_bits >= q->l1.count ||
             q->l1.entry[(guest + n) >> q->l2_bits] == 0)) {
            n += 1ull << q->l2_bits;
            have += q->cluster << q->l2_bits;
            continue;
        }
        /* what comes next may be wrong or not in memory: that is for when it is its turn */
        if (map_look(q, guest + n, true, &next) < 0 || !continues(q, m, &next, n))
            break;
        n++;
        have += q->cluster;
    }
    *run = min_u64(have, len);
    return rc;
}

/* A cluster for an L2 table, filled with the old table's content or nothing. */
static int new_table(struct qcow2 *q, uint64_t old, uint64_t *out)
{
    uint64_t first, n;
    bool fresh;
    uint8_t *table;
    int rc = qcow2_alloc_clusters(q, 1, &first, &n, &fresh);

    if (rc < 0)
        return rc;
    *out = first << q->cluster_bits;
    table = calloc(1, q->cluster);
    if (table == NULL)
        rc = -ENOMEM;
    if (rc == 0 && old != 0) {
        rc = bfile_read(q->file, old, table, q->cluster);
        rc = rc == -ENXIO ? 0 : rc;
    }
    if (rc == 0)
        rc = bfile_write(q->file, *out, table, q->cluster);
    if (rc == 0 && qcow2_set_add(&q->metadata, first) < 0)
        rc = -ENOMEM;
    free(table);
    if (rc < 0)
        qcow2_unalloc(q, first, 1);
    else
        q->eof = max_u64(q->eof, *out + q->cluster);
    return rc;
}

int qcow2_map_prepare(struct qcow2 *q, uint64_t guest_cluster)
{
    uint64_t l1 = guest_cluster >> q->l2_bits, old, made = 0;
    int rc = l2_table(q, guest_cluster, &old);

    if (rc < 0 || (old != 0 && (q->l1.entry[l1] & QCOW2_COPIED) != 0))
        return rc;
    if (l1 >= q->l1.count)
        return -EINVAL;
    rc = new_table(q, old, &made);
    if (rc < 0)
        return rc;
    qcow2_cache_forget(q, made);
    qcow2_table_set(q, &q->l1, l1, made | QCOW2_COPIED);
    if (old != 0)
        qcow2_free_later(q, old >> q->cluster_bits, 1);
    return 0;
}

static void let_go_one(struct qcow2 *q, uint64_t cluster)
{
    if (qcow2_set_has(&q->metadata, cluster))
        qcow2_corrupt(q, "cluster %llu holds metadata and guest data", (unsigned long long)cluster);
    else
        qcow2_free_later(q, cluster, 1);
}

/* Its clusters lose one reference, after the entry is gone for good. */
static void let_go(struct qcow2 *q, const struct qcow2_mapping *m)
{
    uint64_t offset, len, first;

    if (m->kind == QCOW2_K_PACKED) {
        qcow2_packed_range(q->cluster_bits, m->entry, &offset, &len);
        first = offset >> q->cluster_bits;
        for (uint64_t c = first; c <= (offset + len - 1) >> q->cluster_bits; c++)
            let_go_one(q, c);
    } else if (m->host != 0) {
        let_go_one(q, m->host >> q->cluster_bits);
    }
}

int qcow2_map_set(struct qcow2 *q, uint64_t guest_cluster, uint64_t entry)
{
    struct qcow2_mapping old;
    struct qcow2_slot *s;
    uint64_t table;
    int rc = qcow2_map_get(q, guest_cluster, &old);

    if (rc == 0)
        rc = l2_table(q, guest_cluster, &table);
    if (rc == 0)
        rc = l2_slot(q, table, guest_cluster, false, &s);
    if (rc < 0)
        return rc;
    be64_store(s->data + (in_table(q, guest_cluster) & (q->unit - 1)), entry);
    qcow2_cache_dirty(q, s);
    if (old.kind == QCOW2_K_PACKED || old.host != (entry & QCOW2_OFFSET))
        let_go(q, &old);
    return 0;
}
