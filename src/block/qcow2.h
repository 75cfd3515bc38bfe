/*
 * qcow2 inside: what its files share. The format's face is block_qcow2 in block/format.h.
 *
 * In memory are the whole L1 table and refcount table, and a cache of pieces (units) of L2 tables
 * and refcount blocks. Changes stay there until qcow2_commit writes them, in an order under which
 * the file is whole at every moment, whatever part of the last writes reached the disk:
 *
 *   1. new refcount blocks and L2 tables were written when they were made, guest data before its
 *      cluster got an entry                                                          -> flush
 *   2. refcounts, refcount table. A count that is too high is a leak, no more        -> flush
 *   3. L2 and L1 entries: all that they point at is on stable storage                -> flush
 *   4. counts of what they pointed at before go down now, in memory, and reach the file by the
 * next 2.
 *
 * Refcount units may be written at any time: they hold only what steps 2 and 4 allow.
 *
 * Threads: `lock` guards everything but the fields that never change after open. It is held over
 * reads of metadata, never over I/O of guest data or a flush. `commit` comes before `lock` and
 * makes commits and what moves tables come one by one. A function says "locked" if it wants `lock`
 * held.
 *
 * An allocation drops `lock` while the new cluster is filled; the guest clusters it is for stand in
 * `allocs` meanwhile, and whoever wants one of them waits.
 *
 * Clusters that lost their entry keep their count (`pending`, then `quarantine`) until their entry
 * is gone from stable storage and every call that may have looked it up has returned. Requests past
 * these calls (format.h, `locate`) are not seen: that none is under way on clusters that `zero`
 * takes away is the layer above's part. Nothing else takes a cluster from where it was located.
 */
#ifndef BLOCK_QCOW2_H
#define BLOCK_QCOW2_H

#include <pthread.h>

#include "base/bits.h"
#include "block/format.h"

#define QCOW2_MAGIC 0x514649fbu
#define QCOW2_COPIED (1ull << 63)
#define QCOW2_COMPRESSED (1ull << 62)
#define QCOW2_ZERO 1ull
#define QCOW2_OFFSET 0x00fffffffffffe00ull      /* L1, L2 */
#define QCOW2_RESERVED_L1 0x7f000000000001ffull /* bits that must be 0 */
#define QCOW2_RESERVED_L2 0x3f000000000001feull
#define QCOW2_RESERVED_REF 0x1ffull

#define QCOW2_DIRTY (1ull << 0) /* incompatible features */
#define QCOW2_CORRUPT (1ull << 1)
#define QCOW2_EXTERNAL (1ull << 2)
#define QCOW2_COMPRESSION (1ull << 3)
#define QCOW2_EXTENDED_L2 (1ull << 4)
#define QCOW2_LAZY (1ull << 0) /* compatible features */

/* As qemu's: tables that are kept whole in memory, bytes. */
#define QCOW2_L1_MAX (32 * MIB)
#define QCOW2_REFTABLE_MAX (8 * MIB)
#define QCOW2_SNAPSHOTS_MAX 65536u
#define QCOW2_SNAPSHOT_TABLE_MAX (64 * MIB)
#define QCOW2_UNIT 4096u /* of metadata I/O; a cluster, if that is smaller */

/* Where the fields of the header are (qcow2 specification, Header). */
enum {
    QCOW2_H_VERSION = 4,
    QCOW2_H_BACKING_OFFSET = 8,
    QCOW2_H_BACKING_SIZE = 16,
    QCOW2_H_CLUSTER_BITS = 20,
    QCOW2_H_SIZE = 24,
    QCOW2_H_CRYPT = 32,
    QCOW2_H_L1_SIZE = 36,
    QCOW2_H_L1_OFFSET = 40,
    QCOW2_H_REFTABLE_OFFSET = 48,
    QCOW2_H_REFTABLE_CLUSTERS = 56,
    QCOW2_H_SNAPSHOTS = 60,
    QCOW2_H_SNAPSHOTS_OFFSET = 64,
    QCOW2_H_INCOMPATIBLE = 72,
    QCOW2_H_COMPATIBLE = 80,
    QCOW2_H_AUTOCLEAR = 88,
    QCOW2_H_REFCOUNT_ORDER = 96,
    QCOW2_H_LENGTH = 100,
    QCOW2_H_COMPRESSION = 104,
};

struct qcow2_header {
    unsigned version, cluster_bits, refcount_order, compression;
    uint64_t size; /* of the disk, rounded up to 512 */
    uint64_t l1_offset, reftable_offset, snapshots_offset;
    uint32_t l1_entries, reftable_clusters, snapshots;
    uint64_t incompatible, compatible, autoclear;
    uint64_t file_size;
    bool bitmaps;            /* the extension is there */
    char backing[1024];      /* "" : none */
    char backing_format[64]; /* "" : not said */
    uint8_t raw[QCOW2_UNIT]; /* the first unit as it is in the file */
};

static inline uint64_t qcow2_cluster(const struct qcow2_header *h)
{
    return 1ull << h->cluster_bits;
}

/* Reads and judges all that stands in the first cluster. */
int qcow2_header_read(struct bfile *file, struct qcow2_header *h, struct error *err);
/* Writes the fields that change while an image is used. Not flushed. */
int qcow2_header_write(struct bfile *file, struct qcow2_header *h);

/* ---- a set of cluster numbers ---- */

struct qcow2_set {
    uint64_t *slot; /* number + 1; 0: free */
    size_t size, used;
};

/* 1: it was in already. */
int qcow2_set_add(struct qcow2_set *s, uint64_t n);
bool qcow2_set_has(const struct qcow2_set *s, uint64_t n);
void qcow2_set_remove(struct qcow2_set *s, uint64_t n);
void qcow2_set_free(struct qcow2_set *s);

/* ---- the image ---- */

struct qcow2_slot {
    uint64_t offset; /* in the file, a multiple of the unit; 0: empty */
    uint64_t used;   /* when last */
    bool l2, dirty, in_flight;
    uint8_t *data;
    struct qcow2_slot *next; /* of the same hash */
};

/* A table that is whole in memory: L1, refcount table. */
struct qcow2_table {
    uint64_t *entry; /* host order */
    uint64_t offset;
    uint32_t count;
    uint8_t *dirty; /* a byte for each unit of the file */
    bool any_dirty;
};

/* Clusters of a guest that get a new place. */
struct qcow2_alloc {
    uint64_t first, count;
    struct qcow2_alloc *next;
};

struct qcow2_range {
    uint64_t first, count;
};

struct qcow2_ranges {
    struct qcow2_range *range;
    size_t count, room;
};

struct qcow2 {
    /* never change after open */
    struct bfile *file;
    struct log *log;
    bool read_only;
    unsigned version, cluster_bits, refcount_order;
    uint64_t cluster;
    unsigned unit;
    uint64_t unit_mask;
    unsigned l2_bits;  /* log2 of the entries of an L2 table */
    unsigned ref_bits; /* log2 of the entries of a refcount block */
    struct bfile *backing_file;
    const struct block_format *backing_format;
    void *backing;
    uint64_t backing_size;
    char detail[96];

    pthread_mutex_t commit; /* before lock */
    pthread_mutex_t lock;
    pthread_cond_t changed; /* an alloc has ended */
    struct qcow2_header header;
    struct qcow2_table l1, reftable;
    struct qcow2_set metadata; /* clusters that guest data must not be written to; if writable */
    struct qcow2_slot *slots, **hash;
    size_t slot_count, hash_size, l2_dirty;
    uint64_t tick;
    uint64_t free_hint;  /* no free cluster below */
    uint64_t fresh_from; /* nothing was ever written from here on: it reads as zeros */
    uint64_t eof;        /* the file is at least that long */
    uint64_t in_use;     /* bytes, for info */
    bool writing;        /* the first write has been announced in the header */
    bool corrupt;
    struct qcow2_alloc *allocs;
    struct qcow2_ranges pending, quarantine;
    uint64_t pending_clusters;
    unsigned epoch; /* 0, 1 */
    uint64_t calls[2];
    unsigned quarantine_epoch;
    bool quarantine_stable;

    pthread_mutex_t unpack; /* guards the two below; innermost */
    uint64_t unpacked_entry;
    uint8_t *unpacked;
};

static inline uint64_t qcow2_in(const struct qcow2 *q, uint64_t offset)
{
    return offset & (q->cluster - 1);
}

/* slots: of the cache; 0: as many as usual. For tests. */
int qcow2_open_slots(struct bfile *file, const struct block_open *o, size_t slots,
                     struct qcow2 **out, struct error *err);
void qcow2_close(void *image);
int qcow2_load_tables(struct qcow2 *q, struct error *err);

/* ---- qcow2_cache.c ---- */

/*
 * The unit at that offset of the file, which is inside a cluster of metadata. Locked; good until
 * the next call that may get another. Dirty units are marked by qcow2_cache_dirty.
 */
int qcow2_cache_get(struct qcow2 *q, uint64_t offset, bool l2, struct qcow2_slot **out);
struct qcow2_slot *qcow2_cache_peek(struct qcow2 *q, uint64_t offset);
void qcow2_cache_dirty(struct qcow2 *q, struct qcow2_slot *s);
void qcow2_cache_forget(struct qcow2 *q, uint64_t cluster_offset);
bool qcow2_cache_full(const struct qcow2 *q);
/* All dirty units of refcounts, with `commit` and `lock` held. */
int qcow2_cache_write_refs(struct qcow2 *q);

/* Writes everything in order. `commit` held, `lock` not. */
int qcow2_commit_locked(struct qcow2 *q);
/* The same, and if `quiet`: what is pending may be given out again as soon as it can. */
int qcow2_commit(struct qcow2 *q, bool quiet);

int qcow2_table_load(struct qcow2 *q, struct qcow2_table *t, uint64_t offset, uint64_t count);
void qcow2_table_free(struct qcow2_table *t);
void qcow2_table_set(struct qcow2 *q, struct qcow2_table *t, uint64_t index, uint64_t entry);
int qcow2_table_write(struct qcow2 *q, const struct qcow2_table *t, uint64_t offset);

/*
 * Another header, on stable storage; the old one if that fails. Locked, and everything that it
 * names is on stable storage.
 */
int qcow2_header_change(struct qcow2 *q, const struct qcow2_header *h);

/* Marks the image as corrupt, so that nobody writes it before a check. Locked. Returns -EIO. */
int qcow2_corrupt(struct qcow2 *q, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- qcow2_refs.c: all locked ---- */

uint64_t qcow2_ref_load(const uint8_t *block, unsigned order, uint64_t index);
void qcow2_ref_store(uint8_t *block, unsigned order, uint64_t index, uint64_t value);
int qcow2_ref_get(struct qcow2 *q, uint64_t cluster, uint64_t *count);
int qcow2_ref_set(struct qcow2 *q, uint64_t cluster, uint64_t count);

/*
 * Up to `want` free clusters in a row, at least one. -EAGAIN: the refcount table is full; let go of
 * the lock, call qcow2_grow_reftable and begin again. *fresh: they read as zeros.
 */
int qcow2_alloc_clusters(struct qcow2 *q, uint64_t want, uint64_t *first, uint64_t *count,
                         bool *fresh);
/* Back at once: no entry has ever pointed at them. */
void qcow2_unalloc(struct qcow2 *q, uint64_t first, uint64_t count);
/* Later: an entry on the disk may still point at them. */
void qcow2_free_later(struct qcow2 *q, uint64_t first, uint64_t count);
int qcow2_ranges_add(struct qcow2_ranges *r, uint64_t first, uint64_t count);

/* With `commit` held, `lock` not: */
int qcow2_grow_reftable(struct qcow2 *q);
/* `count` clusters in a row, with `commit` and `lock` held and everything committed. */
int qcow2_alloc_region(struct qcow2 *q, uint64_t count, uint64_t *first);
/* Gives back what is quarantined, if it is time. `commit` held, `lock` not. */
void qcow2_free_now(struct qcow2 *q);

/* ---- qcow2_map.c: all locked ---- */

enum qcow2_kind { QCOW2_K_NONE, QCOW2_K_ZERO, QCOW2_K_DATA, QCOW2_K_PACKED };

struct qcow2_mapping {
    enum qcow2_kind kind;
    bool copied;   /* may be written in place */
    uint64_t host; /* DATA: of the cluster; ZERO: of one kept for it, or 0 */
    uint64_t entry;
};

/* Judges an L2 entry; a sentence fragment if it is wrong, NULL if not. */
const char *qcow2_entry_judge(const struct qcow2_header *h, uint64_t entry,
                              struct qcow2_mapping *m);
int qcow2_map_get(struct qcow2 *q, uint64_t guest_cluster, struct qcow2_mapping *m);
/*
 * The mapping at guest byte `offset` and how many bytes from there on, at most len, continue it: of
 * one kind, DATA in one piece of the file. Packed clusters come one by one. peek: -EAGAIN instead
 * of reading from the file.
 */
int qcow2_map_run(struct qcow2 *q, uint64_t offset, uint64_t len, bool peek,
                  struct qcow2_mapping *m, uint64_t *run);
/* Makes the L2 table of that cluster one that only we use. -EAGAIN as qcow2_alloc_clusters. */
int qcow2_map_prepare(struct qcow2 *q, uint64_t guest_cluster);
/* After qcow2_map_prepare. What the old entry pointed at is freed later, unless it is kept. */
int qcow2_map_set(struct qcow2 *q, uint64_t guest_cluster, uint64_t entry);
/* Clusters of the file that a packed entry touches. */
void qcow2_packed_range(unsigned cluster_bits, uint64_t entry, uint64_t *offset, uint64_t *len);

/* ---- qcow2_io.c ---- */

int qcow2_read(void *image, uint64_t offset, const struct iovec *iov, unsigned count);
int qcow2_write(void *image, uint64_t offset, const struct iovec *iov, unsigned count);
int qcow2_zero(void *image, uint64_t offset, uint64_t len, bool punch);
/* Locked. Before the first change: the header says what others have not kept up to date. */
int qcow2_begin_write(struct qcow2 *q);
bool qcow2_locate(void *image, bool write, uint64_t offset, uint64_t len, uint64_t *in_file);
int qcow2_map(void *image, uint64_t offset, enum block_extent *kind, uint64_t *len,
              uint64_t *in_file);

/* ---- qcow2_unpack.c ---- */

/* The cluster's content into `to`. Not locked. */
int qcow2_unpack(struct qcow2 *q, uint64_t entry, uint64_t skip, uint64_t len, uint8_t *to);
bool qcow2_can_unpack(unsigned compression);

/* ---- qcow2_create.c, qcow2_check.c ---- */

int qcow2_create(struct bfile *file, const struct block_create *o, struct error *err);
int qcow2_resize(void *image, uint64_t size, struct error *err);
int qcow2_check(struct bfile *file, bool fix, struct block_check *out, struct error *err);

/* One entry of the snapshot table. */
struct qcow2_snapshot {
    uint64_t l1_offset;
    uint32_t l1_entries;
};

/* `each` for every snapshot; *bytes: length of the table. Judged: all lies in the file. */
int qcow2_snapshots(struct bfile *file, const struct qcow2_header *h, uint64_t *bytes,
                    int (*each)(void *ctx, const struct qcow2_snapshot *s), void *ctx,
                    struct error *err);

#endif
