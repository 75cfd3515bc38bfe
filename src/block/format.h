/*
 * A format of disk images: how the sectors of a disk lie in a file. A format is one const table.
 *
 * Synchronous: read, write, flush, zero and locate come from several threads at once and lock for
 * themselves what they share; the other functions come alone. Everything in the file is hostile:
 * sizes, offsets and tables are judged before they are used, and what is wrong with them is one
 * sentence.
 */
#ifndef BLOCK_FORMAT_H
#define BLOCK_FORMAT_H

#include "base/log.h"
#include "block/file.h"

#define BLOCK_HEAD 4096u /* bytes of the file that `probe` gets, fewer if it is shorter */

struct block_info {
    uint64_t size;       /* of the disk in bytes, a multiple of 512 */
    uint64_t allocated;  /* bytes of the file that are in use, about */
    unsigned cluster;    /* bytes of its unit of allocation; 1: none */
    bool discard;        /* zero with punch gives space back */
    const char *backing; /* as the image names it, borrowed; NULL: none */
    const char *detail;  /* more for a person, borrowed, "" if there is none: "version 3, zstd" */
};

struct block_open {
    bool read_only;
    struct log *log;
    /*
     * Opens a backing file that the image names: NULL where the user has not asked for that, and
     * such an image is then refused. The format closes what it gets. `depth` counts from 1.
     */
    int (*backing)(void *ctx, const char *name, unsigned depth, struct bfile **file,
                   struct error *err);
    void *backing_ctx;
    unsigned depth; /* of this image: 0 is the disk itself */
    /*
     * Only info and map are wanted: backing files are not opened, and what lies in them is
     * BLOCK_UNALLOCATED.
     */
    bool look;
};

struct block_create {
    uint64_t size;
    unsigned cluster; /* 0: the format's own choice */
    bool zstd, lazy_refcounts;
    unsigned version;    /* 0: the format's own choice */
    const char *backing; /* NULL: none */
    const char *backing_format;
};

struct block_check {
    uint64_t errors;                          /* what a guest can lose data by */
    uint64_t leaks;                           /* space that nothing uses */
    uint64_t fixed;                           /* of both */
    uint64_t clusters;                        /* in use */
    void (*say)(void *ctx, const char *text); /* each fault in one sentence; may be NULL */
    void (*progress)(void *ctx, uint64_t done, uint64_t total); /* may be NULL */
    void *ctx;
};

enum block_extent { BLOCK_DATA, BLOCK_ZEROS, BLOCK_COMPRESSED, BLOCK_UNALLOCATED };

struct block_format {
    const char *name;
    const char *summary;
    bool (*probe)(const uint8_t *head, size_t len, uint64_t file_size);
    /* file stays the caller's and outlives the image. */
    int (*open)(struct bfile *file, const struct block_open *o, void **image, struct error *err);
    void (*close)(void *image); /* writes what it kept back; errors are logged */
    void (*info)(void *image, struct block_info *out);
    /* offset and the sum of iov are multiples of 512 and lie within the disk. */
    int (*read)(void *image, uint64_t offset, const struct iovec *iov, unsigned count);
    int (*write)(void *image, uint64_t offset, const struct iovec *iov, unsigned count);
    int (*flush)(void *image);
    int (*zero)(void *image, uint64_t offset, uint64_t len, bool punch);
    /*
     * Where [offset, offset + len) lies in the file, if it is one piece there that can be read, or
     * written, in place, which stays so until every other call has returned. Never blocks; false:
     * use read and write. NULL: always false. Who uses the answer starts no zero of the same
     * clusters until it is done, and none of these while a zero runs (src/block/op.c): nothing
     * else moves a cluster that was located.
     */
    bool (*locate)(void *image, bool write, uint64_t offset, uint64_t len, uint64_t *in_file);
    int (*resize)(void *image, uint64_t size, struct error *err); /* NULL: cannot */
    /* What lies at offset, for how far (at least 512), and where in the file (BLOCK_DATA). */
    int (*map)(void *image, uint64_t offset, enum block_extent *kind, uint64_t *len,
               uint64_t *in_file);

    /* Of files that are not open: */
    int (*create)(struct bfile *file, const struct block_create *o, struct error *err);
    /* fix: mends what can be mended. 0 although errors were found. NULL: nothing to check. */
    int (*check)(struct bfile *file, bool fix, struct block_check *out, struct error *err);
};

extern const struct block_format block_raw;
extern const struct block_format block_qcow2;

/* NULL-terminated; raw, which takes anything, is the last. */
extern const struct block_format *const block_formats[];

const struct block_format *block_format_find(const char *name); /* NULL: unknown */
/* By the content: the first one whose probe says yes. */
int block_format_probe(struct bfile *file, const struct block_format **out, struct error *err);

#endif
