#include "block/file.h"

#include <errno.h>

static int transfer(struct bfile *f, bool write, uint64_t offset, void *p, size_t len)
{
    struct iovec iov = {.iov_base = p, .iov_len = len};

    return write ? f->ops->write(f, offset, &iov, 1) : f->ops->read(f, offset, &iov, 1);
}

int bfile_read(struct bfile *f, uint64_t offset, void *to, size_t len)
{
    return transfer(f, false, offset, to, len);
}

int bfile_write(struct bfile *f, uint64_t offset, const void *from, size_t len)
{
    if (f->read_only)
        return -EBADF;
    /* struct iovec knows no const; it is only read */
    return transfer(f, true, offset, (void *)(uintptr_t)from, len);
}

void bfile_close(struct bfile *f)
{
    if (f != NULL)
        f->ops->close(f);
}
