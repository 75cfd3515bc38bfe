/*
 * What the host knows about files and block devices that hold disks: whole reads and writes at an
 * offset, holes, sizes, sectors, locks. Any thread, no state; calls may block. Offsets and lengths
 * are bytes; 0 or -errno where nothing else is said.
 */
#ifndef HOST_FILE_H
#define HOST_FILE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct hfile_flags {
    bool write;
    bool direct; /* past the host's cache; hfile_align says what that asks of a caller */
    bool sync;   /* a write is stable when it returns */
    bool create; /* must not exist yet */
    bool claim;  /* a block device that the host itself uses (mounted, say) is -EBUSY */
};

struct hfile_info {
    bool device;               /* a block device, not a regular file */
    uint64_t size;             /* bytes */
    uint64_t allocated;        /* bytes that take space, about; a device: its size */
    unsigned sector, physical; /* a device's own; a file: 512, and what its file system suits */
};

/*
 * The descriptor or -errno: closed on exec, regular file or block device. -EISDIR for a directory,
 * -ENODEV for what is neither (a pipe, a terminal).
 */
int hfile_open(const char *path, const struct hfile_flags *flags);

int hfile_info(int fd, struct hfile_info *out);

/* What offset, length and memory must be multiples of, on a descriptor opened `direct`. */
unsigned hfile_align(int fd);

/*
 * All of iov, however often the host stops half way. What lies behind the end reads as zeros, and
 * the answer is -ENXIO.
 */
int hfile_read(int fd, uint64_t offset, const struct iovec *iov, unsigned count);
/*
 * As much of it as the host has in its cache: bytes, -EAGAIN if nothing, -EOPNOTSUPP if this host
 * or file cannot say. At most 1024 pieces.
 */
ssize_t hfile_read_now(int fd, uint64_t offset, const struct iovec *iov, unsigned count);
int hfile_write(int fd, uint64_t offset, const struct iovec *iov, unsigned count);

int hfile_flush(int fd);                   /* content and size, not the times */
int hfile_truncate(int fd, uint64_t size); /* -ENOTSUP: a device */
/*
 * Makes the range read as zeros, as a hole if `punch` and the host can, by writing them if nothing
 * else works. The file gets no longer.
 */
int hfile_zero(int fd, uint64_t offset, uint64_t len, bool punch);
/* Gives the range back; its content is lost. -EOPNOTSUPP: the host cannot, nothing was done. */
int hfile_discard(int fd, uint64_t offset, uint64_t len);
/* Whether there may be other than zeros at offset, and for how far; len is 0 at the end. */
int hfile_extent(int fd, uint64_t offset, bool *data, uint64_t *len);

/*
 * Held until the descriptor is closed: one writer, or many readers, in all processes. -EAGAIN:
 * another one has it. Other errors: this file system has no locks.
 */
int hfile_lock(int fd, bool write);
/* A process that has a lock on the same file, 0: not known. Costs a walk through /proc. */
int hfile_lock_holder(int fd);

#endif
