/* Reads, writes and zeros of a qcow2 image. I/O of guest data is done without the lock. */
#include "block/qcow2.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RUN_MAX (4 * MIB) /* of one allocation, if a cluster is not larger */
/* Of a guest that never flushes: so much waits to be given out again, in pieces and in bytes. */
#ifdef XHYVE_HOSTILE
#define PENDING_PIECES 4u
#else
#define PENDING_PIECES 1024u
#endif
#define PENDING_BYTES (256 * MIB)
#define PAD_MAX 16384u /* longer zeros are asked from the file */

static unsigned enter(struct qcow2 *q)
{
    unsigned epoch;

    pthread_mutex_lock(&q->lock);
    epoch = q->epoch;
    q->calls[epoch]++;
    pthread_mutex_unlock(&q->lock);
    return epoch;
}

static void leave(struct qcow2 *q, unsigned epoch)
{
    pthread_mutex_lock(&q->lock);
    q->calls[epoch]--;
    pthread_mutex_unlock(&q->lock);
}

/* ---- pieces of vectors ---- */

/* A caller's vector and room for a part of it with two more pieces. */
struct vec {
    const struct iovec *iov;
    unsigned count;
    struct iovec *part, few[18];
    uint64_t len;
};

static int vec_init(struct vec *v, const struct iovec *iov, unsigned count)
{
    v->iov = iov;
    v->count = count;
    v->part = v->few;
    v->len = 0;
    for (unsigned i = 0; i < count; i++)
        v->len += iov[i].iov_len;
    if (count + 2 > countof(v->few))
        v->part = malloc((count + 2) * sizeof(*v->part));
    return v->part == NULL ? -ENOMEM : 0;
}

static void vec_free(struct vec *v)
{
    if (v->part != v->few)
        free(v->part);
}

/* Bytes [skip, skip + len) as pieces to->...; how many. */
static unsigned vec_cut(const struct vec *v, uint64_t skip, uint64_t len, struct iovec *to)
{
    unsigned n = 0;

    for (unsigned i = 0; i < v->count && len > 0; i++) {
        uint64_t have = v->iov[i].iov_len, take;

        if (skip >= have) {
            skip -= have;
            continue;
        }
        take = min_u64(have - skip, len);
        to[n].iov_base = (char *)v->iov[i].iov_base + skip;
        to[n++].iov_len = take;
        len -= take;
        skip = 0;
    }
    return n;
}

static void vec_fill(const struct iovec *part, unsigned n, const uint8_t *from)
{
    for (unsigned i = 0; i < n; i++) {
        if (from == NULL) {
            memset(part[i].iov_base, 0, part[i].iov_len);
        } else {
            memcpy(part[i].iov_base, from, part[i].iov_len);
            from += part[i].iov_len;
        }
    }
}

/* ---- reading ---- */

static int read_packed(struct qcow2 *q, uint64_t entry, uint64_t skip, const struct iovec *part,
                       unsigned n, uint64_t len)
{
    uint8_t *copy = malloc(len);
    int rc = copy == NULL ? -ENOMEM : qcow2_unpack(q, entry, skip, len, copy);

    if (rc == 0)
        vec_fill(part, n, copy);
    free(copy);
    return rc;
}

/* The backing file may end earlier; behind its end are zeros. */
static int read_backing(struct qcow2 *q, uint64_t offset, uint64_t len, struct vec *v,
                        uint64_t done)
{
    uint64_t have = offset < q->backing_size ? min_u64(q->backing_size - offset, len) : 0;
    unsigned n;
    int rc = 0;

    if (have > 0) {
        n = vec_cut(v, done, have, v->part);
        rc = q->backing_format->read(q->backing, offset, v->part, n);
    }
    if (rc == 0 && have < len) {
        n = vec_cut(v, done + have, len - have, v->part);
        vec_fill(v->part, n, NULL);
    }
    return rc;
}

static int read_run(struct qcow2 *q, const struct qcow2_mapping *m, uint64_t offset, uint64_t run,
                    struct vec *v, uint64_t done)
{
    unsigned n = vec_cut(v, done, run, v->part);
    int rc = 0;

    switch (m->kind) {
    case QCOW2_K_NONE:
        if (q->backing != NULL)
            return read_backing(q, offset, run, v, done);
        vec_fill(v->part, n, NULL);
        break;
    case QCOW2_K_ZERO:
        vec_fill(v->part, n, NULL);
        break;
    case QCOW2_K_DATA:
        rc = q->file->ops->read(q->file, m->host + qcow2_in(q, offset), v->part, n);
        break;
    case QCOW2_K_PACKED:
        rc = read_packed(q, m->entry, qcow2_in(q, offset), v->part, n, run);
        break;
    }
    return rc == -ENXIO ? 0 : rc; /* the last cluster of the file may be cut */
}

static int read_all(struct qcow2 *q, uint64_t offset, struct vec *v)
{
    for (uint64_t done = 0; done < v->len;) {
        struct qcow2_mapping m;
        uint64_t run;
        int rc;

        pthread_mutex_lock(&q->lock);
        rc = qcow2_map_run(q, offset + done, v->len - done, false, &m, &run);
        pthread_mutex_unlock(&q->lock);
        if (rc == 0)
            rc = read_run(q, &m, offset + done, run, v, done);
        if (rc < 0)
            return rc;
        done += run;
    }
    return 0;
}

int qcow2_read(void *image, uint64_t offset, const struct iovec *iov, unsigned count)
{
    struct qcow2 *q = image;
    struct vec v;
    unsigned epoch;
    int rc = vec_init(&v, iov, count);

    if (rc < 0)
        return rc;
    epoch = enter(q);
    rc = read_all(q, offset, &v);
    leave(q, epoch);
    vec_free(&v);
    return rc;
}

static int read_flat(struct qcow2 *q, uint64_t offset, void *to, uint64_t len)
{
    struct iovec one = {.iov_base = to, .iov_len = len};
    struct vec v;
    int rc = vec_init(&v, &one, 1);

    return rc < 0 ? rc : read_all(q, offset, &v);
}

/* ---- writing ---- */

static bool overlaps(const struct qcow2_alloc *a, uint64_t first, uint64_t count)
{
    return a->first < first + count && first < a->first + a->count;
}

/* Locked. Until no allocation under way touches these clusters; true if it had to wait. */
static bool wait_allocs(struct qcow2 *q, uint64_t first, uint64_t count)
{
    bool waited = false;

    for (struct qcow2_alloc *a = q->allocs; a != NULL;) {
        if (overlaps(a, first, count)) {
            waited = true;
            pthread_cond_wait(&q->changed, &q->lock);
            a = q->allocs;
        } else {
            a = a->next;
        }
    }
    return waited;
}

static void alloc_begin(struct qcow2 *q, struct qcow2_alloc *a)
{
    a->next = q->allocs;
    q->allocs = a;
}

static void alloc_end(struct qcow2 *q, struct qcow2_alloc *a)
{
    struct qcow2_alloc **p = &q->allocs;

    while (*p != a)
        p = &(*p)->next;
    *p = a->next;
    pthread_cond_broadcast(&q->changed);
}

int qcow2_begin_write(struct qcow2 *q)
{
    struct qcow2_header h = q->header;
    int rc = 0;

    if (q->corrupt)
        return -EIO;
    h.autoclear = 0;
    if (!q->writing && q->header.autoclear != 0)
        rc = qcow2_header_change(q, &h);
    if (rc == 0)
        q->writing = true;
    return rc;
}

/*
 * Locked, and lets go of the lock. Before anything is looked up for a change: the image may be
 * written, and the cache has room. rc: of a try before, -EAGAIN if the refcount table was full.
 */
static int make_room(struct qcow2 *q, int rc)
{
    if (q->pending.count >= PENDING_PIECES ||
        q->pending_clusters << q->cluster_bits >= PENDING_BYTES) {
        int failed;

        pthread_mutex_unlock(&q->lock);
        failed = qcow2_commit(q, true);
        pthread_mutex_lock(&q->lock);
        if (failed < 0)
            return failed;
    }
    while (rc == -EAGAIN || qcow2_cache_full(q)) {
        bool grow = rc == -EAGAIN;

        pthread_mutex_unlock(&q->lock);
        if (grow) {
            pthread_mutex_lock(&q->commit);
            rc = qcow2_commit_locked(q);
            if (rc == 0)
                rc = qcow2_grow_reftable(q);
            pthread_mutex_unlock(&q->commit);
        } else {
            rc = qcow2_commit(q, false);
        }
        pthread_mutex_lock(&q->lock);
        if (rc < 0)
            return rc;
    }
    return qcow2_begin_write(q);
}

/* Locked. May this cluster of the file be written as guest data? Its entry is hostile. */
static bool may_write(const struct qcow2 *q, const struct qcow2_mapping *m)
{
    uint64_t host = m->host >> q->cluster_bits;

    return m->copied && host != 0 && host < q->fresh_from && !qcow2_set_has(&q->metadata, host);
}

/* Locked. How much of the run lies where it may be written in place. */
static int in_place_run(struct qcow2 *q, const struct qcow2_mapping *m, uint64_t offset,
                        uint64_t *run)
{
    struct qcow2_mapping at = *m;
    uint64_t n = 0;

    while (n < *run) {
        if (!may_write(q, &at))
            return qcow2_corrupt(q, "the disk at %llu lies at %#llx, where no data can be",
                                 (unsigned long long)(offset + n), (unsigned long long)at.host);
        n += q->cluster - qcow2_in(q, offset + n);
        at.host += q->cluster;
    }
    return 0;
}

/* What stands around the written bytes in the first and last cluster. */
struct pad {
    uint64_t len, offset; /* of the guest */
    uint8_t *data;        /* NULL: nothing to write */
    bool zero;            /* the file shall make zeros */
};

struct place {
    struct qcow2_alloc alloc;
    uint64_t host;
    bool fresh, kept; /* kept: it was there, behind a zero entry */
    struct pad head, tail;
};

/* Locked. Does the guest see only zeros there now? */
static bool reads_zero(const struct qcow2 *q, const struct qcow2_mapping *m, uint64_t offset)
{
    return m->kind == QCOW2_K_ZERO ||
           (m->kind == QCOW2_K_NONE && (q->backing == NULL || offset >= q->backing_size));
}

static int pad_fill(struct qcow2 *q, struct pad *p, bool fresh)
{
    struct qcow2_mapping m;
    uint64_t size, cut;
    int rc;

    if (p->len == 0)
        return 0;
    pthread_mutex_lock(&q->lock);
    rc = qcow2_map_get(q, p->offset >> q->cluster_bits, &m);
    size = q->header.size;
    pthread_mutex_unlock(&q->lock);
    if (rc < 0)
        return rc;
    if (reads_zero(q, &m, p->offset)) {
        p->zero = !fresh && p->len > PAD_MAX;
        if (fresh || p->zero)
            return 0;
    }
    p->data = calloc(1, p->len);
    if (p->data == NULL)
        return -ENOMEM;
    if (reads_zero(q, &m, p->offset) || p->offset >= size)
        return 0;
    cut = min_u64(p->len, size - p->offset);
    return read_flat(q, p->offset, p->data, cut);
}

/* The new clusters' content, whole. */
static int fill_place(struct qcow2 *q, struct place *p, uint64_t offset, uint64_t run,
                      struct vec *v, uint64_t done)
{
    uint64_t at = p->host + qcow2_in(q, offset);
    struct iovec *part = v->part;
    unsigned n = 0;
    int rc = pad_fill(q, &p->head, p->fresh);

    if (rc == 0)
        rc = pad_fill(q, &p->tail, p->fresh);
    if (rc == 0 && p->head.zero)
        rc = bfile_zero(q->file, p->host, p->head.len, false);
    if (rc == 0 && p->tail.zero)
        rc = bfile_zero(q->file, at + run, p->tail.len, false);
    if (rc == 0) {
        if (p->head.data != NULL) {
            part[n].iov_base = p->head.data;
            part[n++].iov_len = p->head.len;
            at -= p->head.len;
        }
        n += vec_cut(v, done, run, part + n);
        if (p->tail.data != NULL) {
            part[n].iov_base = p->tail.data;
            part[n++].iov_len = p->tail.len;
        }
        rc = q->file->ops->write(q->file, at, part, n);
    }
    free(p->head.data);
    free(p->tail.data);
    return rc;
}

/* Locked. Clusters for the run from offset on: *run becomes what they hold of it. */
static int take_place(struct qcow2 *q, struct place *p, const struct qcow2_mapping *m,
                      uint64_t offset, uint64_t *run)
{
    uint64_t first = offset >> q->cluster_bits, n = 1, end;
    uint64_t want = ((offset + *run - 1) >> q->cluster_bits) - first + 1;
    int rc = qcow2_map_prepare(q, first);

    if (rc < 0)
        return rc;
    p->kept = m->kind == QCOW2_K_ZERO && may_write(q, m);
    if (p->kept) {
        p->host = m->host;
        p->fresh = false;
    } else {
        rc = qcow2_alloc_clusters(q, want, &first, &n, &p->fresh);
        if (rc < 0)
            return rc;
        p->host = first << q->cluster_bits;
    }
    p->alloc.count = n;
    end = min_u64(offset + *run, align_down(offset, q->cluster) + (n << q->cluster_bits));
    *run = end - offset;
    p->head = (struct pad){.len = qcow2_in(q, offset), .offset = align_down(offset, q->cluster)};
    p->tail = (struct pad){.len = align_up(end, q->cluster) - end, .offset = end};
    return 0;
}

/* Locked. The clusters get their entries. */
static int link_place(struct qcow2 *q, const struct place *p)
{
    int rc = 0;
    uint64_t i;

    for (i = 0; i < p->alloc.count && rc == 0; i++)
        rc =
            qcow2_map_set(q, p->alloc.first + i, (p->host + (i << q->cluster_bits)) | QCOW2_COPIED);
    if (rc < 0) /* those before have theirs */
        i--;
    if (i < p->alloc.count && !p->kept)
        qcow2_unalloc(q, (p->host >> q->cluster_bits) + i, p->alloc.count - i);
    return rc;
}

/* How many clusters from offset on want a new place: in one part of an L2 table, not too much. */
static uint64_t alloc_run(struct qcow2 *q, const struct qcow2_mapping *m, uint64_t offset,
                          uint64_t len)
{
    uint64_t first = offset >> q->cluster_bits, per_unit = q->unit / 8, n = 1;
    uint64_t last = (offset + len - 1) >> q->cluster_bits;
    uint64_t most = max_u64(RUN_MAX >> q->cluster_bits, 1);

    if (m->kind == QCOW2_K_ZERO && may_write(q, m))
        last = first;
    while (first + n <= last && n < most && (first + n) % per_unit != 0) {
        struct qcow2_mapping next;

        if (qcow2_map_get(q, first + n, &next) < 0 || (next.host != 0 && next.copied))
            break;
        for (const struct qcow2_alloc *a = q->allocs; a != NULL; a = a->next) {
            if (overlaps(a, first + n, 1))
                return min_u64(len, (first + n) * q->cluster - offset);
        }
        n++;
    }
    return min_u64(len, (first + n) * q->cluster - offset);
}

/* Locked on entry and exit. */
static int write_new(struct qcow2 *q, const struct qcow2_mapping *m, uint64_t offset, uint64_t *run,
                     struct vec *v, uint64_t done)
{
    struct place p = {0};
    int rc;

    *run = alloc_run(q, m, offset, *run);
    rc = take_place(q, &p, m, offset, run);
    if (rc < 0)
        return rc;
    p.alloc.first = offset >> q->cluster_bits;
    alloc_begin(q, &p.alloc);
    pthread_mutex_unlock(&q->lock);
    rc = fill_place(q, &p, offset, *run, v, done);
    pthread_mutex_lock(&q->lock);
    if (rc == 0 && q->corrupt)
        rc = -EIO;
    if (rc == 0) {
        q->eof = max_u64(q->eof, p.host + qcow2_in(q, offset) + *run);
        rc = link_place(q, &p);
    } else if (!p.kept) {
        qcow2_unalloc(q, p.host >> q->cluster_bits, p.alloc.count);
    }
    alloc_end(q, &p.alloc);
    return rc;
}

/* As much as can be done at once; *run says how much it was. */
static int write_some(struct qcow2 *q, uint64_t offset, uint64_t len, struct vec *v, uint64_t done,
                      uint64_t *run)
{
    struct qcow2_mapping m;
    unsigned n;
    int rc = 0;

    pthread_mutex_lock(&q->lock);
    do {
        rc = make_room(q, rc);
        while (rc == 0 && wait_allocs(q, offset >> q->cluster_bits, 1))
            rc = make_room(q, 0);
        if (rc == 0)
            rc = qcow2_map_run(q, offset, len, false, &m, run);
        if (rc == 0 && m.kind == QCOW2_K_DATA && m.copied) {
            rc = in_place_run(q, &m, offset, run);
            pthread_mutex_unlock(&q->lock);
            if (rc < 0)
                return rc;
            n = vec_cut(v, done, *run, v->part);
            return q->file->ops->write(q->file, m.host + qcow2_in(q, offset), v->part, n);
        }
        *run = len;
        if (rc == 0)
            rc = write_new(q, &m, offset, run, v, done);
    } while (rc == -EAGAIN);
    pthread_mutex_unlock(&q->lock);
    return rc;
}

static int write_all(struct qcow2 *q, uint64_t offset, struct vec *v)
{
    for (uint64_t done = 0; done < v->len;) {
        uint64_t run;
        int rc = write_some(q, offset + done, v->len - done, v, done, &run);

        if (rc < 0)
            return rc;
        done += run;
    }
    return 0;
}

int qcow2_write(void *image, uint64_t offset, const struct iovec *iov, unsigned count)
{
    struct qcow2 *q = image;
    struct vec v;
    unsigned epoch;
    int rc;

    if (q->read_only)
        return -EROFS;
    rc = vec_init(&v, iov, count);
    if (rc < 0)
        return rc;
    epoch = enter(q);
    rc = write_all(q, offset, &v);
    leave(q, epoch);
    vec_free(&v);
    return rc;
}

/* ---- zeros ---- */

/* Less than a cluster: zeros as data, unless that is what is there. */
static int zero_part(struct qcow2 *q, uint64_t offset, uint64_t len)
{
    struct qcow2_mapping m;
    struct iovec one;
    struct vec v;
    bool done;
    int rc;

    pthread_mutex_lock(&q->lock);
    wait_allocs(q, offset >> q->cluster_bits, 1);
    rc = qcow2_map_get(q, offset >> q->cluster_bits, &m);
    done = rc == 0 && reads_zero(q, &m, offset);
    pthread_mutex_unlock(&q->lock);
    if (rc < 0 || done)
        return rc;
    one = (struct iovec){.iov_base = calloc(1, len), .iov_len = len};
    if (one.iov_base == NULL)
        return -ENOMEM;
    rc = vec_init(&v, &one, 1);
    if (rc == 0)
        rc = write_all(q, offset, &v);
    free(one.iov_base);
    return rc;
}

/* Locked. The entry that makes a cluster zeros; false: what is there does it. */
static bool zero_entry(const struct qcow2 *q, const struct qcow2_mapping *m, uint64_t guest,
                       bool punch, uint64_t *entry)
{
    uint64_t at = guest << q->cluster_bits;
    bool keep = !punch && q->version >= 3 && m->kind == QCOW2_K_DATA && may_write(q, m);

    if (keep) {
        *entry = m->host | QCOW2_COPIED | QCOW2_ZERO;
        return true;
    }
    if (m->kind == QCOW2_K_ZERO && (m->host == 0 || !punch))
        return false;
    if (m->kind == QCOW2_K_NONE && reads_zero(q, m, at))
        return false;
    *entry = q->version >= 3 && q->backing != NULL && at < q->backing_size ? QCOW2_ZERO : 0;
    return true;
}

/* Whole clusters [first, end), as many as one hold of the lock allows: *next is where to go on. */
static int zero_clusters(struct qcow2 *q, uint64_t first, uint64_t end, bool punch, uint64_t *next)
{
    uint64_t guest = first, stop = min_u64(end, (first | (q->unit / 8 - 1)) + 1);
    int rc = 0;

    pthread_mutex_lock(&q->lock);
    do {
        rc = make_room(q, rc);
        /* nothing there for a whole L2 table */
        if (rc == 0 && q->backing == NULL && q->allocs == NULL &&
            guest >> q->l2_bits < q->l1.count && q->l1.entry[guest >> q->l2_bits] == 0) {
            guest = min_u64(end, ((guest >> q->l2_bits) + 1) << q->l2_bits);
            break;
        }
        while (rc == 0 && wait_allocs(q, guest, stop - guest))
            rc = make_room(q, 0);
        for (; rc == 0 && guest < stop; guest++) {
            struct qcow2_mapping m;
            uint64_t entry;

            rc = qcow2_map_get(q, guest, &m);
            if (rc < 0 || !zero_entry(q, &m, guest, punch, &entry))
                continue;
            rc = qcow2_map_prepare(q, guest);
            if (rc == 0)
                rc = qcow2_map_set(q, guest, entry);
            if (rc < 0)
                break;
        }
    } while (rc == -EAGAIN);
    pthread_mutex_unlock(&q->lock);
    *next = guest;
    return rc;
}

/* A version 2 image over a backing file has no entry that means zeros. */
static bool zero_as_data(const struct qcow2 *q, uint64_t offset)
{
    return q->version < 3 && q->backing != NULL && offset < q->backing_size;
}

static int zero_all(struct qcow2 *q, uint64_t offset, uint64_t len, bool punch)
{
    uint64_t end = offset + len, disk = q->header.size;
    int rc = 0;

    while (rc == 0 && offset < end) {
        uint64_t border = align_up(offset + 1, q->cluster), next;
        /* the disk may end inside its last cluster */
        bool whole = qcow2_in(q, offset) == 0 && (border <= end || end == disk);

        if (!whole || zero_as_data(q, offset)) {
            next = min_u64(border, end);
            rc = zero_part(q, offset, next - offset);
        } else {
            uint64_t last = end == disk ? align_up(end, q->cluster) : align_down(end, q->cluster);

            rc = zero_clusters(q, offset >> q->cluster_bits, last >> q->cluster_bits, punch, &next);
            next = min_u64(next << q->cluster_bits, end);
        }
        offset = next;
    }
    return rc;
}

int qcow2_zero(void *image, uint64_t offset, uint64_t len, bool punch)
{
    struct qcow2 *q = image;
    unsigned epoch;
    int rc;

    if (q->read_only)
        return -EROFS;
    epoch = enter(q);
    rc = zero_all(q, offset, len, punch);
    leave(q, epoch);
    return rc;
}

/* ---- where things are ---- */

bool qcow2_locate(void *image, bool write, uint64_t offset, uint64_t len, uint64_t *in_file)
{
    struct qcow2 *q = image;
    struct qcow2_mapping m;
    uint64_t run = 0;
    bool yes;

    if (len == 0 || (write && q->read_only) || pthread_mutex_trylock(&q->lock) != 0)
        return false;
    yes = qcow2_map_run(q, offset, len, true, &m, &run) == 0 && run == len &&
          m.kind == QCOW2_K_DATA && m.host + qcow2_in(q, offset) + len <= q->eof;
    if (yes && write)
        yes = m.copied && q->writing && !q->corrupt;
    for (uint64_t at = 0; yes && write && at < len; at += q->cluster - qcow2_in(q, offset + at)) {
        struct qcow2_mapping one = m;

        one.host = align_down(m.host + qcow2_in(q, offset) + at, q->cluster);
        yes = may_write(q, &one);
    }
    *in_file = m.host + qcow2_in(q, offset);
    pthread_mutex_unlock(&q->lock);
    return yes;
}

int qcow2_map(void *image, uint64_t offset, enum block_extent *kind, uint64_t *len,
              uint64_t *in_file)
{
    static const enum block_extent kinds[] = {
        [QCOW2_K_NONE] = BLOCK_UNALLOCATED,
        [QCOW2_K_ZERO] = BLOCK_ZEROS,
        [QCOW2_K_DATA] = BLOCK_DATA,
        [QCOW2_K_PACKED] = BLOCK_COMPRESSED,
    };
    struct qcow2 *q = image;
    struct qcow2_mapping m;
    int rc;

    if (offset >= q->header.size)
        return -EINVAL;
    pthread_mutex_lock(&q->lock);
    rc = qcow2_map_run(q, offset, q->header.size - offset, false, &m, len);
    pthread_mutex_unlock(&q->lock);
    *kind = kinds[m.kind];
    *in_file = m.kind == QCOW2_K_DATA ? m.host + qcow2_in(q, offset) : 0;
    return rc;
}
