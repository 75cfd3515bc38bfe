/* The format without a format: the file is the disk. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "block/format.h"
#include "host/file.h"

#define SECTOR 512u

struct raw {
    struct bfile *file; /* borrowed */
};

static bool raw_probe(const uint8_t *head, size_t len, uint64_t file_size)
{
    (void)head, (void)len, (void)file_size;
    return true;
}

static int raw_open(struct bfile *file, const struct block_open *o, void **image, struct error *err)
{
    struct raw *raw;
    uint64_t size;
    int rc = bfile_size(file, &size);

    (void)o;
    if (rc < 0)
        return error_set(err, rc, "%s: its size cannot be had: %s", file->name, strerror(-rc));
    if (size == 0)
        return error_set(err, -EINVAL,
                         "%s: is empty; a disk needs a size (truncate -s 10G makes one)",
                         file->name);
    if (size % SECTOR != 0)
        return error_set(err, -EINVAL,
                         "%s: its size, %" PRIu64 " bytes, is not a multiple of %u; is it a disk "
                         "image, and whole? (truncate -s %%%u rounds it up)",
                         file->name, size, SECTOR, SECTOR);
    raw = calloc(1, sizeof(*raw));
    if (raw == NULL)
        return error_set(err, -ENOMEM, "%s: no memory to open it", file->name);
    raw->file = file;
    *image = raw;
    return 0;
}

/* The size is asked for each time: the file may have been made longer or shorter since. */
static void raw_info(void *image, struct block_info *out)
{
    struct raw *raw = image;
    struct hfile_info info;
    uint64_t size = 0;

    memset(out, 0, sizeof(*out));
    out->detail = "";
    out->cluster = 1;
    if (bfile_size(raw->file, &size) == 0)
        out->size = align_down(size, SECTOR);
    out->allocated = size;
    if (raw->file->fd >= 0 && hfile_info(raw->file->fd, &info) == 0)
        out->allocated = info.allocated;
    out->discard = raw->file->ops->discard != NULL && !raw->file->read_only;
}

static int raw_read(void *image, uint64_t offset, const struct iovec *iov, unsigned count)
{
    struct raw *raw = image;

    return raw->file->ops->read(raw->file, offset, iov, count);
}

static int raw_write(void *image, uint64_t offset, const struct iovec *iov, unsigned count)
{
    struct raw *raw = image;

    return raw->file->read_only ? -EROFS : raw->file->ops->write(raw->file, offset, iov, count);
}

static int raw_flush(void *image)
{
    struct raw *raw = image;

    return bfile_flush(raw->file);
}

static int raw_zero(void *image, uint64_t offset, uint64_t len, bool punch)
{
    struct raw *raw = image;

    return raw->file->read_only ? -EROFS : bfile_zero(raw->file, offset, len, punch);
}

static bool raw_locate(void *image, bool write, uint64_t offset, uint64_t len, uint64_t *in_file)
{
    struct raw *raw = image;

    (void)len;
    *in_file = offset;
    return !write || !raw->file->read_only;
}

static int raw_resize(void *image, uint64_t size, struct error *err)
{
    struct raw *raw = image;
    int rc;

    if (size == 0 || size % SECTOR != 0)
        return error_set(err, -EINVAL, "%s: a disk's size is a multiple of %u bytes",
                         raw->file->name, SECTOR);
    rc = bfile_truncate(raw->file, size);
    if (rc == -ENOTSUP)
        return error_set(err, rc, "%s: a device has the size it has", raw->file->name);
    if (rc < 0)
        return error_set(err, rc, "%s: cannot be made %" PRIu64 " bytes long: %s", raw->file->name,
                         size, strerror(-rc));
    return 0;
}

/* In sectors: one that holds some data is data. */
static int raw_map(void *image, uint64_t offset, enum block_extent *kind, uint64_t *len,
                   uint64_t *in_file)
{
    struct raw *raw = image;
    uint64_t size, n;
    bool data = true;
    int rc = bfile_size(raw->file, &size);

    if (rc < 0)
        return rc;
    if (offset >= size)
        return -EINVAL;
    n = size - offset;
    if (raw->file->ops->extent != NULL)
        rc = raw->file->ops->extent(raw->file, offset, &data, &n);
    if (rc < 0)
        return rc;
    if (!data && n < SECTOR && offset + n < size)
        data = true;
    n = data ? align_up(n, SECTOR) : align_down(n, SECTOR);
    *kind = data ? BLOCK_DATA : BLOCK_ZEROS;
    *len = max_u64(min_u64(n, size - offset), SECTOR);
    *in_file = offset;
    return 0;
}

static int raw_create(struct bfile *file, const struct block_create *o, struct error *err)
{
    int rc;

    if (o->backing != NULL)
        return error_set(err, -EINVAL, "%s: a raw image has no backing file; qcow2 has",
                         file->name);
    if (o->size == 0 || o->size % SECTOR != 0)
        return error_set(err, -EINVAL, "%s: a disk's size is a multiple of %u bytes", file->name,
                         SECTOR);
    rc = bfile_truncate(file, o->size);
    if (rc < 0)
        return error_set(err, rc, "%s: cannot be made %" PRIu64 " bytes long: %s", file->name,
                         o->size, strerror(-rc));
    return 0;
}

const struct block_format block_raw = {
    .name = "raw",
    .summary = "the disk's bytes and nothing else",
    .probe = raw_probe,
    .open = raw_open,
    .close = free,
    .info = raw_info,
    .read = raw_read,
    .write = raw_write,
    .flush = raw_flush,
    .zero = raw_zero,
    .locate = raw_locate,
    .resize = raw_resize,
    .map = raw_map,
    .create = raw_create,
};
