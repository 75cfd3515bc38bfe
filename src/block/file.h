/*
 * A file of bytes that an image lies in: on the host, in memory, or a test's that records or fails.
 * A back end is one const table; what it hands out begins with struct bfile.
 *
 * Any thread, several calls at once; a call may block. Offsets and lengths are bytes. Every
 * function returns 0 or -errno; none returns half of what was asked for.
 */
#ifndef BLOCK_FILE_H
#define BLOCK_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"

struct bfile;

struct bfile_ops {
    /*
     * The whole of iov. What lies behind the end of the file reads as zeros, and the answer is then
     * -ENXIO: a format whose last cluster may be cut takes that for success.
     */
    int (*read)(struct bfile *f, uint64_t offset, const struct iovec *iov, unsigned count);
    /*
     * A write behind the end makes the file longer (with fd_align above 1 perhaps up to a multiple
     * of that), unless it is a device: -ENOSPC.
     */
    int (*write)(struct bfile *f, uint64_t offset, const struct iovec *iov, unsigned count);
    /* All writes that have returned are on stable storage. */
    int (*flush)(struct bfile *f);
    /*
     * Makes [offset, offset + len) read as zeros, by a hole if punch is true. The file gets no
     * longer: what lies behind its end reads as zeros anyway.
     */
    int (*zero)(struct bfile *f, uint64_t offset, uint64_t len, bool punch);
    int (*size)(struct bfile *f, uint64_t *size);
    /* A longer file reads as zeros in its new part. -ENOTSUP: a device. */
    int (*truncate)(struct bfile *f, uint64_t size);
    /*
     * From offset on: *data says whether there may be other than zeros, *len for how far that holds
     * (more than 0 before the end of the file). NULL: it is not known, all is data.
     */
    int (*extent)(struct bfile *f, uint64_t offset, bool *data, uint64_t *len);
    /*
     * Gives the range back; its content is lost. -EOPNOTSUPP: cannot, and nothing was done. NULL:
     * the same, always.
     */
    int (*discard)(struct bfile *f, uint64_t offset, uint64_t len);
    void (*close)(struct bfile *f);
};

struct bfile {
    const struct bfile_ops *ops;
    const char *name;  /* for messages: the path; owned by the back end */
    bool read_only;    /* write, zero and truncate answer -EBADF */
    int fd;            /* for I/O past these functions; -1: there is none */
    bool cached;       /* fd is a regular file in the host's cache: I/O is done when it is there */
    unsigned fd_align; /* offset, length and memory of I/O on fd are multiples of it; 0, 1: any */
    /*
     * A device's sectors, or what suits the file, in bytes; 0: nothing is known. Powers of two,
     * physical at least sector.
     */
    unsigned sector, physical;
};

static inline int bfile_flush(struct bfile *f)
{
    return f->ops->flush(f);
}

static inline int bfile_zero(struct bfile *f, uint64_t offset, uint64_t len, bool punch)
{
    return f->ops->zero(f, offset, len, punch);
}

static inline int bfile_size(struct bfile *f, uint64_t *size)
{
    return f->ops->size(f, size);
}

static inline int bfile_truncate(struct bfile *f, uint64_t size)
{
    return f->ops->truncate(f, size);
}

/* One piece of memory; -ENXIO as above. */
int bfile_read(struct bfile *f, uint64_t offset, void *to, size_t len);
int bfile_write(struct bfile *f, uint64_t offset, const void *from, size_t len);

void bfile_close(struct bfile *f); /* NULL is allowed */

struct bfile_flags {
    bool read_only;
    bool direct; /* past the host's cache */
    bool sync;   /* every write is stable when it returns */
    bool create; /* must not exist yet */
    bool lock;   /* nobody else may write it meanwhile, nor read it if we write */
};

/*
 * A file or block device of the host. Errors have a sentence that names the path: not there, no
 * permission, a directory, locked (and by which process, where the host says), read-only.
 */
int bfile_open(const char *path, const struct bfile_flags *flags, struct bfile **out,
               struct error *err);

/* One in memory, of that many zero bytes; it may grow. */
int bfile_memory(const char *name, uint64_t size, struct bfile **out, struct error *err);

#endif
