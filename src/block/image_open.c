/* From options to an open image. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "block/internal.h"

/* ---- options ---- */

static int read_sectors(const char *text, struct block_options *o, struct error *err)
{
    char logical[16] = "";
    const char *slash = strchr(text, '/');
    size_t len = slash != NULL ? (size_t)(slash - text) : strlen(text);
    uint64_t sector = 0, physical = 0;
    int rc = -EINVAL;

    if (len < sizeof(logical)) {
        memcpy(logical, text, len);
        rc = parse_u64(logical, &sector);
    }
    physical = sector;
    if (rc == 0 && slash != NULL)
        rc = parse_u64(slash + 1, &physical);
    if (rc < 0 || (sector != 512 && sector != 4096) || (physical != 512 && physical != 4096) ||
        physical < sector)
        return error_set(err, -EINVAL,
                         "sectorsize=%s: a sector has 512 or 4096 bytes, a physical one is not "
                         "smaller: 512, 4096 or 512/4096",
                         text);
    o->sector = (unsigned)sector;
    o->physical = (unsigned)physical;
    return 0;
}

static int read_words(const struct options *opts, struct block_options *o, struct error *err)
{
    const char *format = opt_string(opts, "format", NULL);
    const char *aio = opt_string(opts, "aio", NULL);
    const char *on_error = opt_string(opts, "on_error", "report");

    if (format != NULL) {
        o->format = block_format_find(format);
        if (o->format == NULL) {
            char known[128] = "";
            size_t used = 0;

            for (unsigned i = 0; block_formats[i] != NULL && used < sizeof(known); i++)
                used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s",
                                         i > 0 ? ", " : "", block_formats[i]->name);
            return error_set(err, -EINVAL, "format=%s is not known; there are: %s", format, known);
        }
    }
    if (aio == NULL)
        o->aio = BLOCK_AIO_ANY;
    else if (strcmp(aio, "io_uring") == 0)
        o->aio = BLOCK_AIO_URING;
    else if (strcmp(aio, "threads") == 0)
        o->aio = BLOCK_AIO_THREADS;
    else
        return error_set(err, -EINVAL, "aio=%s is not known; there are io_uring and threads", aio);
    if (strcmp(on_error, "report") != 0 && strcmp(on_error, "pause") != 0)
        return error_set(err, -EINVAL, "on_error=%s is not known; there are report and pause",
                         on_error);
    o->pause = strcmp(on_error, "pause") == 0;
    return 0;
}

int block_options_read(const struct options *opts, bool removable, struct block_options *out,
                       struct error *err)
{
    const char *path = opt_string(opts, "path", NULL);
    const char *sectors = opt_string(opts, "sectorsize", NULL);
    int rc = 0;

    *out = (struct block_options){
        .ram = opt_u64(opts, "ram", 0),
        .read_only = removable || opt_bool(opts, "ro", false),
        .nocache = opt_bool(opts, "nocache", false),
        .sync = opt_bool(opts, "sync", false) || opt_bool(opts, "direct", false),
        .nodelete = opt_bool(opts, "nodelete", false),
        .backing = opt_bool(opts, "backing", false),
        .iops = opt_u64(opts, "iops", 0),
        .bps = opt_u64(opts, "bps", 0),
    };
    if (opt_string(opts, "ram", NULL) != NULL && out->ram == 0)
        return error_set(err, -EINVAL, "ram=0 is no disk; give it a size, such as ram=64m");
    if (path != NULL && out->ram != 0)
        return error_set(err, -EINVAL,
                         "%s: a disk is an image or in memory; leave out the path or "
                         "ram=",
                         path);
    if (path == NULL && out->ram == 0 && !removable)
        return error_set(err, -EINVAL,
                         "a disk needs an image: its path, or ram=SIZE for one in "
                         "memory");
    rc = read_words(opts, out, err);
    if (rc == 0 && sectors != NULL)
        rc = read_sectors(sectors, out, err);
    if (rc == 0 && path != NULL) {
        out->path = strdup(path);
        if (out->path == NULL)
            rc = error_set(err, -ENOMEM, "%s: no memory to open it", path);
    }
    return rc;
}

void block_options_free(struct block_options *o)
{
    free(o->path);
    o->path = NULL;
}

/* ---- images ---- */

static int open_format(const struct block_options *o, struct block_image *i, struct log *log,
                       struct error *err)
{
    struct block_open how = {.read_only = o->read_only,
                             .log = log,
                             .backing = o->backing ? backing_open : NULL,
                             .backing_ctx = &i->behind};
    int rc = 0;

    i->format = o->format;
    if (i->format == NULL)
        rc = block_format_probe(i->file, &i->format, err);
    if (rc == 0)
        rc = i->format->open(i->file, &how, &i->image, err);
    if (rc < 0)
        return rc;
    i->format->info(i->image, &i->info);
    if (i->info.size == 0)
        return error_set(err, -EINVAL, "%s: is a disk of no size", i->file->name);
    if (o->sector != 0 && i->info.size % o->sector != 0)
        return error_set(err, -EINVAL,
                         "%s: its size, %" PRIu64 " bytes, is not a multiple of the sector, %u; "
                         "leave sectorsize out, or resize it",
                         i->file->name, i->info.size, o->sector);
    /* A write of the last sectors would make the file longer: whole blocks alone can be written. */
    if (i->info.cluster == 1 && i->file->fd_align > 1 && i->info.size % i->file->fd_align != 0)
        return error_set(err, -EINVAL,
                         "%s: its size, %" PRIu64 " bytes, is not a multiple of %u, which nocache "
                         "needs here; leave nocache out, or resize it",
                         i->file->name, i->info.size, i->file->fd_align);
    return 0;
}

int block_image_open(const struct block_options *o, const char *path, struct log *log,
                     struct block_image **out, struct error *err)
{
    const struct bfile_flags flags = {
        .read_only = o->read_only, .direct = o->nocache, .sync = o->sync, .lock = true};
    struct block_image *i = calloc(1, sizeof(*i));
    int rc;

    if (i == NULL)
        return error_set(err, -ENOMEM, "no memory for a disk");
    if (path != NULL)
        rc = bfile_open(path, &flags, &i->file, err);
    else
        rc = bfile_memory("ram", o->ram, &i->file, err);
    backing_begin(&i->behind, path != NULL ? path : "", i->file);
    if (rc == 0)
        rc = open_format(o, i, log, err);
    if (rc < 0) {
        block_image_close(i, NULL);
        return rc;
    }
    *out = i;
    return 0;
}

void block_image_close(struct block_image *i, struct log *log)
{
    int rc;

    if (i == NULL)
        return;
    if (i->image != NULL) {
        rc = i->file->read_only ? 0 : i->format->flush(i->image);
        if (rc < 0)
            log_error(log, "%s: what was written last may be lost: %s", i->file->name,
                      strerror(-rc));
        i->format->close(i->image);
    }
    bfile_close(i->file);
    backing_end(&i->behind);
    free(i);
}
