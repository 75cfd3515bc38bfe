/*
 * Files and block devices of the host. Past the host's cache the kernel takes whole blocks in
 * aligned memory alone; read and write here take anything, by a copy, so that a format need not
 * care. A write of part of a block then reads the block first: such writes come alone, the others
 * together.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "block/file.h"
#include "host/file.h"

#define BOUNCE (256 * KIB)

struct host_file {
    struct bfile f;
    pthread_rwlock_t partial; /* exclusive: a write of parts of blocks; shared: other writes */
    char name[];
};

static struct host_file *to_host(struct bfile *f)
{
    return container_of(f, struct host_file, f);
}

static bool aligned(const struct bfile *f, uint64_t offset, const struct iovec *iov, unsigned count)
{
    uint64_t all = offset;

    if (f->fd_align <= 1)
        return true;
    for (unsigned i = 0; i < count; i++)
        all |= (uintptr_t)iov[i].iov_base | iov[i].iov_len;
    return (all & (f->fd_align - 1)) == 0;
}

/* Copies between iov, `skip` bytes from its beginning, and p. */
static void iov_copy(const struct iovec *iov, unsigned count, uint64_t skip, uint8_t *p, size_t len,
                     bool to_iov)
{
    for (unsigned i = 0; i < count && len > 0; i++) {
        uint8_t *base = iov[i].iov_base;
        size_t n;

        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        n = (size_t)min_u64(iov[i].iov_len - skip, len);
        if (to_iov)
            memcpy(base + skip, p, n);
        else
            memcpy(p, base + skip, n);
        p += n;
        len -= n;
        skip = 0;
    }
}

static int one(const struct bfile *f, bool write, uint64_t offset, void *p, size_t len)
{
    struct iovec iov = {.iov_base = p, .iov_len = len};

    return write ? hfile_write(f->fd, offset, &iov, 1) : hfile_read(f->fd, offset, &iov, 1);
}

/* The blocks around [offset, offset + len), by way of `copy`. */
static int bounce_piece(struct bfile *f, bool write, uint64_t offset, const struct iovec *iov,
                        unsigned count, uint64_t skip, size_t len, uint8_t *copy)
{
    uint64_t from = align_down(offset, f->fd_align);
    size_t size = (size_t)(align_up(offset + len, f->fd_align) - from);
    size_t before = (size_t)(offset - from);
    int rc = 0;

    if (!write || size != len) {
        rc = one(f, false, from, copy, size);
        if (rc < 0 && rc != -ENXIO)
            return rc;
    }
    iov_copy(iov, count, skip, copy + before, len, !write);
    return write ? one(f, true, from, copy, size) : rc;
}

static int bounce(struct bfile *f, bool write, uint64_t offset, const struct iovec *iov,
                  unsigned count)
{
    uint64_t len = 0, done = 0, size = 0;
    void *copy;
    int rc = 0;

    for (unsigned i = 0; i < count; i++)
        len += iov[i].iov_len;
    if (offset > INT64_MAX || len > INT64_MAX - offset)
        return write ? -EFBIG : -EINVAL;
    if (posix_memalign(&copy, 4096, BOUNCE) != 0)
        return -ENOMEM;
    while (rc == 0 && done < len) {
        size_t before = (size_t)((offset + done) & (f->fd_align - 1));
        size_t piece = (size_t)min_u64(len - done, BOUNCE - before);

        rc = bounce_piece(f, write, offset + done, iov, count, done, piece, copy);
        done += piece;
        if (rc == -ENXIO && !write)
            rc = 0; /* the blocks around it are cut by the end, the piece perhaps not: see below */
    }
    free(copy);
    if (rc == 0 && !write && len > 0) {
        rc = f->ops->size(f, &size);
        if (rc == 0 && offset + len > size)
            rc = -ENXIO;
    }
    return rc;
}

static int host_read(struct bfile *f, uint64_t offset, const struct iovec *iov, unsigned count)
{
    if (aligned(f, offset, iov, count))
        return hfile_read(f->fd, offset, iov, count);
    return bounce(f, false, offset, iov, count);
}

/* With `partial` held as the write needs it. */
static int write_locked(struct bfile *f, uint64_t offset, const struct iovec *iov, unsigned count)
{
    if (aligned(f, offset, iov, count))
        return hfile_write(f->fd, offset, iov, count);
    return bounce(f, true, offset, iov, count);
}

static int host_write(struct bfile *f, uint64_t offset, const struct iovec *iov, unsigned count)
{
    struct host_file *h = to_host(f);
    uint64_t end = offset;
    int rc;

    if (f->read_only)
        return -EBADF;
    if (f->fd_align <= 1)
        return hfile_write(f->fd, offset, iov, count);
    for (unsigned i = 0; i < count; i++)
        end += iov[i].iov_len;
    if (((offset | end) & (f->fd_align - 1)) == 0)
        pthread_rwlock_rdlock(&h->partial);
    else
        pthread_rwlock_wrlock(&h->partial);
    rc = write_locked(f, offset, iov, count);
    pthread_rwlock_unlock(&h->partial);
    return rc;
}

static int host_flush(struct bfile *f)
{
    return f->read_only ? 0 : hfile_flush(f->fd);
}

/* Where the host has no zeros to give, and the blocks at the ends are not whole. */
static int write_zeros(struct bfile *f, uint64_t offset, uint64_t len)
{
    uint8_t *zeros = calloc(1, BOUNCE);
    uint64_t size;
    int rc = f->ops->size(f, &size);

    if (zeros == NULL)
        rc = -ENOMEM;
    if (rc == 0)
        len = offset < size ? min_u64(len, size - offset) : 0;
    while (rc == 0 && len > 0) {
        struct iovec iov = {.iov_base = zeros, .iov_len = (size_t)min_u64(len, BOUNCE)};

        rc = write_locked(f, offset, &iov, 1);
        offset += iov.iov_len;
        len -= iov.iov_len;
    }
    free(zeros);
    return rc;
}

static int host_zero(struct bfile *f, uint64_t offset, uint64_t len, bool punch)
{
    struct host_file *h = to_host(f);
    int rc;

    if (f->read_only)
        return -EBADF;
    pthread_rwlock_wrlock(&h->partial);
    rc = hfile_zero(f->fd, offset, len, punch);
    if (rc == -EINVAL && f->fd_align > 1 && offset <= INT64_MAX && len <= INT64_MAX - offset)
        rc = write_zeros(f, offset, len);
    pthread_rwlock_unlock(&h->partial);
    return rc;
}

static int host_discard(struct bfile *f, uint64_t offset, uint64_t len)
{
    return f->read_only ? -EBADF : hfile_discard(f->fd, offset, len);
}

static int host_size(struct bfile *f, uint64_t *size)
{
    struct hfile_info info;
    int rc = hfile_info(f->fd, &info);

    *size = rc == 0 ? info.size : 0;
    return rc;
}

static int host_truncate(struct bfile *f, uint64_t size)
{
    return f->read_only ? -EBADF : hfile_truncate(f->fd, size);
}

static int host_extent(struct bfile *f, uint64_t offset, bool *data, uint64_t *len)
{
    return hfile_extent(f->fd, offset, data, len);
}

static void host_close(struct bfile *f)
{
    struct host_file *h = to_host(f);

    close(f->fd);
    pthread_rwlock_destroy(&h->partial);
    free(h);
}

static const struct bfile_ops host_ops = {
    .read = host_read,
    .write = host_write,
    .flush = host_flush,
    .zero = host_zero,
    .size = host_size,
    .truncate = host_truncate,
    .extent = host_extent,
    .discard = host_discard,
    .close = host_close,
};

static int open_error(const char *path, const struct bfile_flags *flags, int rc, struct error *err)
{
    switch (rc) {
    case -ENOENT:
    case -ENOTDIR:
        return error_set(err, rc,
                         flags->create ? "%s: its directory is not there"
                                       : "%s: there is no such file; check the path",
                         path);
    case -EEXIST:
        return error_set(err, rc, "%s: there is a file of this name already; choose another", path);
    case -EISDIR:
        return error_set(err, rc, "%s: is a directory; a disk is a file or a block device", path);
    case -ENODEV:
    case -ENXIO:
        return error_set(err, rc, "%s: is neither a regular file nor a block device", path);
    case -EACCES:
    case -EPERM:
        return error_set(err, rc,
                         flags->read_only ? "%s: no permission to read it"
                                          : "%s: no permission to read and write it; ro opens it "
                                            "for reading alone",
                         path);
    case -EROFS:
        return error_set(err, rc, "%s: its file system is read-only; ro opens it for reading alone",
                         path);
    case -EBUSY:
        return error_set(err, rc,
                         "%s: the host uses this device itself; unmount it, or open it "
                         "with ro",
                         path);
    case -EINVAL:
        if (flags->direct)
            return error_set(err, rc,
                             "%s: its file system cannot go past the host's cache; leave nocache "
                             "out",
                             path);
        break;
    }
    return error_set(err, rc, "%s: cannot be opened: %s", path, strerror(-rc));
}

/* A file system without locks is no reason to refuse a disk; the page about disks says so. */
static int take_lock(int fd, const char *path, bool write, struct error *err)
{
    int rc = hfile_lock(fd, write), pid;

    if (rc != -EAGAIN)
        return 0;
    pid = hfile_lock_holder(fd);
    if (pid != 0)
        return error_set(err, -EBUSY, "%s: is in use by process %d; %s", path, pid,
                         write ? "end that first, or open it with ro in both"
                               : "as long as that may write it nobody else can read it");
    return error_set(err, -EBUSY, "%s: is in use by another process; %s", path,
                     write ? "end that first, or open it with ro in both"
                           : "as long as that may write it nobody else can read it");
}

int bfile_open(const char *path, const struct bfile_flags *flags, struct bfile **out,
               struct error *err)
{
    const struct hfile_flags how = {.write = !flags->read_only,
                                    .direct = flags->direct,
                                    .sync = flags->sync,
                                    .create = flags->create,
                                    .claim = flags->lock && !flags->read_only};
    size_t len = strlen(path) + 1;
    struct hfile_info info = {0};
    struct host_file *h;
    int fd = hfile_open(path, &how);
    int rc = 0;

    if (fd < 0)
        return open_error(path, flags, fd, err);
    if (flags->lock)
        rc = take_lock(fd, path, !flags->read_only, err);
    if (rc == 0) {
        rc = hfile_info(fd, &info);
        if (rc < 0)
            error_set(err, rc, "%s: its size cannot be had: %s", path, strerror(-rc));
    }
    h = rc == 0 ? calloc(1, sizeof(*h) + len) : NULL;
    if (h == NULL) {
        close(fd);
        return rc < 0 ? rc : error_set(err, -ENOMEM, "%s: no memory to open it", path);
    }
    memcpy(h->name, path, len);
    pthread_rwlock_init(&h->partial, NULL);
    h->f = (struct bfile){.ops = &host_ops,
                          .name = h->name,
                          .read_only = flags->read_only,
                          .fd = fd,
                          .cached = !flags->direct && !flags->sync && !info.device,
                          .fd_align = flags->direct ? hfile_align(fd) : 1,
                          .sector = info.sector,
                          .physical = info.physical};
    *out = &h->f;
    return 0;
}
