#include "block/file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"

#define BOUNCE (256 * KIB) /* of one copy */

static bool aligned(const struct bfile *f, uint64_t offset, const void *p, size_t len)
{
    return f->align <= 1 || ((offset | (uintptr_t)p | len) & (f->align - 1)) == 0;
}

static int transfer(struct bfile *f, bool write, uint64_t offset, void *p, size_t len)
{
    struct iovec iov = {.iov_base = p, .iov_len = len};

    return write ? f->ops->write(f, offset, &iov, 1) : f->ops->read(f, offset, &iov, 1);
}

/*
 * One piece by way of `copy`: [from, from + size) are whole blocks around [offset, offset + len).
 */
static int bounce_piece(struct bfile *f, bool write, uint64_t offset, uint8_t *p, size_t len,
                        uint8_t *copy)
{
    uint64_t from = align_down(offset, f->align);
    size_t size = (size_t)(align_up(offset + len, f->align) - from);
    size_t skip = (size_t)(offset - from);
    int rc = 0;

    if (!write || size != len) {
        rc = transfer(f, false, from, copy, size);
        if (rc < 0 && rc != -ENXIO)
            return rc;
    }
    if (!write) {
        memcpy(p, copy + skip, len);
        return rc;
    }
    memcpy(copy + skip, p, len);
    return transfer(f, true, from, copy, size);
}

static int bounce(struct bfile *f, bool write, uint64_t offset, uint8_t *p, size_t len)
{
    size_t room = (size_t)max_u64(BOUNCE, 2 * (uint64_t)f->align);
    bool behind = false;
    void *copy;
    int rc = 0;

    if (len == 0)
        return 0;
    if (posix_memalign(&copy, (size_t)max_u64(f->align, sizeof(void *)), room) != 0)
        return -ENOMEM;
    while (rc == 0 && len > 0) {
        size_t skip = (size_t)(offset & (f->align - 1));
        size_t piece = (size_t)min_u64(len, room - skip);

        rc = bounce_piece(f, write, offset, p, piece, copy);
        if (rc == -ENXIO && !write) {
            behind = true; /* the pieces that follow are zeros, too: let them become so */
            rc = 0;
        }
        offset += piece;
        p += piece;
        len -= piece;
    }
    free(copy);
    return rc == 0 && behind ? -ENXIO : rc;
}

/* A read may be cut by the end of the file inside the last block: then the answer is too careful.
 */
int bfile_read(struct bfile *f, uint64_t offset, void *to, size_t len)
{
    if (aligned(f, offset, to, len))
        return transfer(f, false, offset, to, len);
    return bounce(f, false, offset, to, len);
}

int bfile_write(struct bfile *f, uint64_t offset, const void *from, size_t len)
{
    void *p = (void *)(uintptr_t)from; /* struct iovec knows no const; it is only read */

    if (f->read_only)
        return -EBADF;
    if (aligned(f, offset, from, len))
        return transfer(f, true, offset, p, len);
    return bounce(f, true, offset, p, len);
}

void bfile_close(struct bfile *f)
{
    if (f != NULL)
        f->ops->close(f);
}
