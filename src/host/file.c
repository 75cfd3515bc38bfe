#include "host/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef __linux__
#include <linux/falloc.h>
#include <linux/fs.h>
#endif
#if defined(__APPLE__) && __has_include(<sys/disk.h>)
#include <sys/disk.h> /* a cross compiler's headers may lack it */
#endif

#include "base/bits.h"

#define BATCH 128u /* pieces of memory in one system call, at most IOV_MAX of any host */
#define ZEROS (64 * KIB)
#define OFFSET_MAX ((uint64_t)INT64_MAX)

static int neg_errno(void)
{
    return errno != 0 ? -errno : -EIO;
}

int hfile_open(const char *path, const struct hfile_flags *flags)
{
    int mode = (flags->write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
    struct stat st;
    int fd, rc = 0;

    if (flags->create)
        mode |= O_CREAT | O_EXCL;
    else if (flags->claim && stat(path, &st) == 0 && S_ISBLK(st.st_mode))
        mode |= O_EXCL; /* without O_CREAT: not while it is mounted */
    if (flags->sync)
        mode |= O_DSYNC;
#ifdef O_DIRECT
    if (flags->direct)
        mode |= O_DIRECT;
#endif
    do
        fd = open(path, mode, 0666);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return neg_errno();
    /* O_NONBLOCK was for a pipe without a peer; with it io_uring would give up on a busy file. */
    if (fstat(fd, &st) < 0 || fcntl(fd, F_SETFL, (mode & ~O_NONBLOCK) & ~(O_CREAT | O_EXCL)) < 0)
        rc = neg_errno();
    else if (S_ISDIR(st.st_mode))
        rc = -EISDIR;
#ifdef __APPLE__
    else if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode) && !S_ISCHR(st.st_mode))
#else
    else if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
#endif
        rc = -ENODEV;
#ifdef F_NOCACHE
    if (rc == 0 && flags->direct && fcntl(fd, F_NOCACHE, 1) < 0)
        rc = neg_errno();
#endif
    if (rc < 0) {
        close(fd);
        return rc;
    }
    return fd;
}

static int device_info(int fd, struct hfile_info *out)
{
#ifdef __linux__
    int sector = 0;
    unsigned physical = 0;

    if (ioctl(fd, BLKGETSIZE64, &out->size) < 0)
        return neg_errno();
    if (ioctl(fd, BLKSSZGET, &sector) == 0 && sector > 0)
        out->sector = (unsigned)sector;
    if (ioctl(fd, BLKPBSZGET, &physical) == 0)
        out->physical = physical;
#elif defined(DKIOCGETBLOCKCOUNT)
    uint64_t count = 0;
    uint32_t sector = 512, physical = 0;

    if (ioctl(fd, DKIOCGETBLOCKCOUNT, &count) < 0 || ioctl(fd, DKIOCGETBLOCKSIZE, &sector) < 0)
        return neg_errno();
    if (__builtin_mul_overflow(count, (uint64_t)sector, &out->size))
        return -EOVERFLOW;
    out->sector = sector;
    if (ioctl(fd, DKIOCGETPHYSICALBLOCKSIZE, &physical) == 0)
        out->physical = physical;
#else
    off_t end = lseek(fd, 0, SEEK_END);

    if (end < 0)
        return neg_errno();
    out->size = (uint64_t)end;
#endif
    out->allocated = out->size;
    return 0;
}

int hfile_info(int fd, struct hfile_info *out)
{
    struct stat st;
    int rc = 0;

    if (fstat(fd, &st) < 0)
        return neg_errno();
    memset(out, 0, sizeof(*out));
    out->device = !S_ISREG(st.st_mode);
    out->sector = 512;
    if (out->device) {
        rc = device_info(fd, out);
    } else {
        out->size = (uint64_t)st.st_size;
        out->allocated = (uint64_t)st.st_blocks * 512;
        out->physical = st.st_blksize >= 4096 ? 4096 : 512;
    }
    if (out->physical < out->sector)
        out->physical = out->sector;
    return rc;
}

/* Asked by trying: file systems and devices do not agree on where this could be read. */
unsigned hfile_align(int fd)
{
    unsigned align = 4096;

#ifndef O_DIRECT
    (void)fd;
    align = 1; /* F_NOCACHE asks nothing */
#else
    struct hfile_info info;
    void *p;

    if (hfile_info(fd, &info) < 0 || info.size < 1024)
        return align; /* behind the end anything is taken */
    if (posix_memalign(&p, 4096, 8192) != 0)
        return align;
    if (pread(fd, (char *)p + 512, 512, 512) >= 0)
        align = 512;
    free(p);
#endif
    return align;
}

/* ---- reading and writing ---- */

struct cursor {
    const struct iovec *iov;
    unsigned count;
    size_t skip; /* of iov[0] */
};

static unsigned cursor_batch(const struct cursor *c, struct iovec *batch)
{
    unsigned n = 0;

    for (; n < BATCH && n < c->count; n++) {
        size_t skip = n == 0 ? c->skip : 0;

        batch[n].iov_base = (char *)c->iov[n].iov_base + skip;
        batch[n].iov_len = c->iov[n].iov_len - skip;
    }
    return n;
}

/* Empty pieces are passed over, so that the end is reached when count is 0. */
static void cursor_advance(struct cursor *c, size_t n)
{
    while (c->count > 0 && n >= c->iov->iov_len - c->skip) {
        n -= c->iov->iov_len - c->skip;
        c->iov++;
        c->count--;
        c->skip = 0;
    }
    c->skip += n;
}

static void cursor_zero(struct cursor *c)
{
    for (; c->count > 0; c->iov++, c->count--, c->skip = 0)
        memset((char *)c->iov->iov_base + c->skip, 0, c->iov->iov_len - c->skip);
}

static bool behind_end(int fd, uint64_t offset)
{
    struct hfile_info info;

    return hfile_info(fd, &info) == 0 && offset >= info.size;
}

/* -errno; reading: -ENXIO if the file ends before, and the rest is zeros. */
static int transfer(int fd, uint64_t offset, const struct iovec *iov, unsigned count, bool write)
{
    struct cursor c = {.iov = iov, .count = count};
    struct iovec batch[BATCH];

    cursor_advance(&c, 0);
    while (c.count > 0) {
        int pieces = (int)cursor_batch(&c, batch);
        ssize_t n;

        if (offset > OFFSET_MAX)
            return write ? -EFBIG : -EINVAL;
        n = write ? pwritev(fd, batch, pieces, (off_t)offset)
                  : preadv(fd, batch, pieces, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        /* O_DIRECT: what follows a last, half block is asked for at an offset it does not take. */
        if (n < 0 && errno == EINVAL && !write && behind_end(fd, offset))
            n = 0;
        if (n < 0)
            return neg_errno();
        if (n == 0 && write)
            return -EIO; /* nothing says what is wrong, and trying again would not end */
        if (n == 0) {
            cursor_zero(&c);
            return -ENXIO;
        }
        cursor_advance(&c, (size_t)n);
        offset += (uint64_t)n;
    }
    return 0;
}

int hfile_read(int fd, uint64_t offset, const struct iovec *iov, unsigned count)
{
    return transfer(fd, offset, iov, count, false);
}

ssize_t hfile_read_now(int fd, uint64_t offset, const struct iovec *iov, unsigned count)
{
#ifdef RWF_NOWAIT
    ssize_t n;

    do
        n = preadv2(fd, iov, (int)count, (off_t)offset, RWF_NOWAIT);
    while (n < 0 && errno == EINTR);
    return n < 0 ? neg_errno() : n;
#else
    (void)fd;
    (void)offset;
    (void)iov;
    (void)count;
    return -EOPNOTSUPP;
#endif
}

int hfile_write(int fd, uint64_t offset, const struct iovec *iov, unsigned count)
{
    return transfer(fd, offset, iov, count, true);
}

int hfile_flush(int fd)
{
    int rc;

    do {
#ifdef F_FULLFSYNC
        /* fsync stops at the drive's cache there; what has no such cache does not know it. */
        rc = fcntl(fd, F_FULLFSYNC);
        if (rc < 0 && errno != EINTR)
            rc = fsync(fd);
#else
        rc = fdatasync(fd);
#endif
    } while (rc < 0 && errno == EINTR);
    return rc < 0 ? neg_errno() : 0;
}

int hfile_truncate(int fd, uint64_t size)
{
    struct stat st;
    int rc;

    if (size > OFFSET_MAX)
        return -EFBIG;
    if (fstat(fd, &st) < 0)
        return neg_errno();
    if (!S_ISREG(st.st_mode))
        return -ENOTSUP;
    do
        rc = ftruncate(fd, (off_t)size);
    while (rc < 0 && errno == EINTR);
    return rc < 0 ? neg_errno() : 0;
}

/* ---- holes ---- */

static int write_zeros(int fd, uint64_t offset, uint64_t len)
{
    struct iovec iov[16];
    void *zeros;
    int rc = 0;

    if (posix_memalign(&zeros, 4096, ZEROS) != 0)
        return -ENOMEM;
    memset(zeros, 0, ZEROS);
    while (rc == 0 && len > 0) {
        uint64_t piece = 0;
        unsigned n = 0;

        while (n < countof(iov) && piece < len) {
            iov[n].iov_base = zeros;
            iov[n].iov_len = (size_t)min_u64(ZEROS, len - piece);
            piece += iov[n++].iov_len;
        }
        rc = hfile_write(fd, offset, iov, n);
        offset += piece;
        len -= piece;
    }
    free(zeros);
    return rc;
}

#ifdef __linux__
static int allocate(int fd, int mode, uint64_t offset, uint64_t len)
{
    int rc;

    do
        rc = fallocate(fd, mode, (off_t)offset, (off_t)len);
    while (rc < 0 && errno == EINTR);
    return rc < 0 ? neg_errno() : 0;
}

static int punch_hole(int fd, uint64_t offset, uint64_t len)
{
    return allocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len);
}

static int zero_range(int fd, uint64_t offset, uint64_t len, bool device)
{
    uint64_t range[2] = {offset, len};
    int rc = allocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, offset, len);

    if (rc < 0 && device)
        rc = ioctl(fd, BLKZEROOUT, range) < 0 ? neg_errno() : 0;
    return rc;
}
#elif defined(F_PUNCHHOLE)
/* Only whole blocks: what is left at both ends is written. */
static int punch_hole(int fd, uint64_t offset, uint64_t len)
{
    struct stat st;
    struct fpunchhole hole = {0};
    uint64_t block, from, to;
    int rc = 0;

    if (fstat(fd, &st) < 0)
        return neg_errno();
    block = st.st_blksize > 0 ? (uint64_t)st.st_blksize : 4096;
    from = (offset + block - 1) / block * block;
    to = (offset + len) / block * block;
    if (from >= to)
        return write_zeros(fd, offset, len);
    hole.fp_offset = (off_t)from;
    hole.fp_length = (off_t)(to - from);
    if (fcntl(fd, F_PUNCHHOLE, &hole) < 0)
        return neg_errno();
    if (offset < from)
        rc = write_zeros(fd, offset, from - offset);
    if (rc == 0 && to < offset + len)
        rc = write_zeros(fd, to, offset + len - to);
    return rc;
}

static int zero_range(int fd, uint64_t offset, uint64_t len, bool device)
{
    (void)fd, (void)offset, (void)len, (void)device;
    return -EOPNOTSUPP;
}
#else
static int punch_hole(int fd, uint64_t offset, uint64_t len)
{
    (void)fd, (void)offset, (void)len;
    return -EOPNOTSUPP;
}

static int zero_range(int fd, uint64_t offset, uint64_t len, bool device)
{
    (void)fd, (void)offset, (void)len, (void)device;
    return -EOPNOTSUPP;
}
#endif

/* "This host cannot", in the words of various file systems; anything else is a real error. */
static bool not_supported(int rc)
{
    return rc == -EOPNOTSUPP || rc == -ENOTSUP || rc == -ENOSYS || rc == -EINVAL || rc == -ENOTTY ||
           rc == -ENODEV;
}

/* Cuts the range at the end of the file; -errno if it can be no range of a file. */
static int clip(int fd, uint64_t offset, uint64_t *len, struct hfile_info *info)
{
    uint64_t end;
    int rc = hfile_info(fd, info);

    if (rc < 0)
        return rc;
    if (__builtin_add_overflow(offset, *len, &end) || end > OFFSET_MAX)
        return -EINVAL;
    *len = offset < info->size ? min_u64(*len, info->size - offset) : 0;
    return 0;
}

int hfile_zero(int fd, uint64_t offset, uint64_t len, bool punch)
{
    struct hfile_info info;
    int rc = clip(fd, offset, &len, &info);

    if (rc < 0 || len == 0)
        return rc;
    rc = punch ? punch_hole(fd, offset, len) : -EOPNOTSUPP;
    if (not_supported(rc))
        rc = zero_range(fd, offset, len, info.device);
    if (not_supported(rc))
        rc = write_zeros(fd, offset, len);
    return rc;
}

int hfile_discard(int fd, uint64_t offset, uint64_t len)
{
    struct hfile_info info;
    int rc = clip(fd, offset, &len, &info);

    if (rc < 0 || len == 0)
        return rc;
#ifdef __linux__
    if (info.device) {
        uint64_t range[2] = {offset, len};

        rc = ioctl(fd, BLKDISCARD, range) < 0 ? neg_errno() : 0;
        return not_supported(rc) ? -EOPNOTSUPP : rc;
    }
#endif
    rc = punch_hole(fd, offset, len);
    return not_supported(rc) ? -EOPNOTSUPP : rc;
}

int hfile_extent(int fd, uint64_t offset, bool *data, uint64_t *len)
{
    struct hfile_info info;
    int rc = hfile_info(fd, &info);

    if (rc < 0)
        return rc;
    *data = true;
    *len = offset < info.size ? info.size - offset : 0;
#if defined(SEEK_DATA) && defined(SEEK_HOLE)
    if (*len > 0 && !info.device) {
        off_t next = lseek(fd, (off_t)offset, SEEK_DATA);

        if (next < 0 && errno == ENXIO) {
            *data = false; /* a hole up to the end */
        } else if (next > (off_t)offset) {
            *data = false;
            *len = min_u64(*len, (uint64_t)next - offset);
        } else if (next == (off_t)offset) {
            next = lseek(fd, (off_t)offset, SEEK_HOLE);
            if (next > (off_t)offset)
                *len = min_u64(*len, (uint64_t)next - offset);
        }
    }
#endif
    return 0;
}
