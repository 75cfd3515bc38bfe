#include "block/image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "block/backing.h"

#define PIECE (2 * MIB) /* of a copy: the largest cluster */
#define GRAIN 65536u    /* zeros of that size become holes, where the target has no clusters */

/* An open image and the backing files behind it. */
struct work {
    struct bfile *file;
    const struct block_format *format;
    void *image;
    struct block_info info;
    struct backing behind;
};

static void work_close(struct work *w)
{
    if (w->image != NULL)
        w->format->close(w->image);
    bfile_close(w->file);
    backing_end(&w->behind);
    memset(w, 0, sizeof(*w));
}

static int work_file(struct work *w, const char *path, const struct block_format *format,
                     bool read_only, struct error *err)
{
    const struct bfile_flags flags = {.read_only = read_only, .lock = true};
    int rc = bfile_open(path, &flags, &w->file, err);

    w->format = format;
    backing_begin(&w->behind, path, w->file);
    if (rc == 0 && format == NULL)
        rc = block_format_probe(w->file, &w->format, err);
    return rc;
}

static int work_open(struct work *w, const char *path, const struct block_format *format,
                     bool read_only, bool look, bool backing, struct error *err)
{
    struct block_open o = {.read_only = read_only, .look = look, .backing_ctx = &w->behind};
    int rc = work_file(w, path, format, read_only, err);

    if (backing)
        o.backing = backing_open;
    if (rc == 0)
        rc = w->format->open(w->file, &o, &w->image, err);
    if (rc == 0)
        w->format->info(w->image, &w->info);
    return rc;
}

/* ---- create, look ---- */

/* Without a format the name decides: there is no content yet. */
static const struct block_format *format_by_name(const char *path)
{
    const char *dot = strrchr(path, '.');
    const struct block_format *f = NULL;

    if (dot != NULL)
        f = block_format_find(dot + 1);
    return f != NULL ? f : &block_raw;
}

int image_create(const char *path, const struct block_format *format, const struct block_create *o,
                 struct error *err)
{
    const struct bfile_flags flags = {.create = true, .lock = true};
    struct bfile *file;
    int rc = bfile_open(path, &flags, &file, err);

    if (rc < 0)
        return rc;
    if (format == NULL)
        format = format_by_name(path);
    rc = format->create(file, o, err);
    bfile_close(file);
    if (rc < 0)
        unlink(path);
    return rc;
}

int image_info(const char *path, const struct block_format *format, struct image_info *out,
               struct error *err)
{
    struct work w = {0};
    int rc = work_open(&w, path, format, true, true, false, err);

    memset(out, 0, sizeof(*out));
    if (rc == 0) {
        rc = bfile_size(w.file, &out->file_size);
        if (rc < 0)
            error_set(err, rc, "%s: its size cannot be had: %s", path, strerror(-rc));
    }
    if (rc == 0) {
        out->format = w.format;
        out->block = w.info;
        snprintf(out->backing, sizeof(out->backing), "%s",
                 w.info.backing != NULL ? w.info.backing : "");
        snprintf(out->detail, sizeof(out->detail), "%s", w.info.detail);
        out->block.backing = w.info.backing != NULL ? out->backing : NULL;
        out->block.detail = out->detail;
    }
    work_close(&w);
    return rc;
}

int image_check(const char *path, const struct block_format *format, bool fix,
                struct block_check *out, struct error *err)
{
    struct work w = {0};
    int rc = work_file(&w, path, format, !fix, err);

    if (rc == 0 && w.format->check == NULL)
        rc = error_set(err, -ENOTSUP, "%s: there is nothing to check in a %s image", path,
                       w.format->name);
    if (rc == 0)
        rc = w.format->check(w.file, fix, out, err);
    work_close(&w);
    return rc;
}

int image_resize(const char *path, const struct block_format *format, uint64_t size, bool shrink,
                 struct error *err)
{
    struct work w = {0};
    int rc = work_open(&w, path, format, false, false, true, err);

    if (rc == 0 && w.format->resize == NULL)
        rc = error_set(err, -ENOTSUP, "%s: a %s image keeps its size", path, w.format->name);
    if (rc == 0 && size < w.info.size && !shrink)
        rc = error_set(err, -EINVAL,
                       "%s: %" PRIu64 " bytes is less than the disk has (%" PRIu64
                       "); what is cut off is lost, so this must be asked for (--shrink)",
                       path, size, w.info.size);
    if (rc == 0)
        rc = w.format->resize(w.image, size, err);
    if (rc == 0) {
        rc = w.format->flush(w.image);
        if (rc < 0)
            error_set(err, rc, "%s: cannot be written: %s", path, strerror(-rc));
    }
    work_close(&w);
    return rc;
}

/* ---- copies ---- */

static bool all_zero(const uint8_t *p, size_t len)
{
    return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

struct copy {
    struct work from, to;
    uint8_t *buf; /* PIECE */
    uint64_t grain;
    const struct image_progress *progress;
    uint64_t size;
};

static int copy_error(const struct bfile *f, const char *what, int rc, struct error *err)
{
    return error_set(err, rc, "%s: cannot be %s: %s", f->name, what, strerror(-rc));
}

/* What is in buf, for [at, at + len): runs of grains that are not all zeros. */
static int copy_out(struct copy *c, uint64_t at, uint64_t len)
{
    for (uint64_t pos = 0; pos < len;) {
        uint64_t end = pos;
        struct iovec iov;
        int rc;

        while (end < len && !all_zero(c->buf + end, min_u64(c->grain, len - end)))
            end += min_u64(c->grain, len - end);
        if (end == pos) {
            pos += min_u64(c->grain, len - pos);
            continue;
        }
        iov = (struct iovec){.iov_base = c->buf + pos, .iov_len = end - pos};
        rc = c->to.format->write(c->to.image, at + pos, &iov, 1);
        if (rc < 0)
            return rc;
        pos = end;
    }
    return 0;
}

static int copy_piece(struct copy *c, uint64_t at, uint64_t len, struct error *err)
{
    struct iovec iov = {.iov_base = c->buf, .iov_len = len};
    int rc = c->from.format->read(c->from.image, at, &iov, 1);

    if (rc == -ENXIO) /* became shorter meanwhile: zeros */
        rc = 0;
    if (rc < 0)
        return copy_error(c->from.file, "read", rc, err);
    rc = copy_out(c, at, len);
    return rc < 0 ? copy_error(c->to.file, "written", rc, err) : 0;
}

static bool step(const struct copy *c, uint64_t done)
{
    return c->progress != NULL && c->progress->step(c->progress->ctx, done, c->size);
}

static int copy_all(struct copy *c, struct error *err)
{
    for (uint64_t at = 0; at < c->size;) {
        enum block_extent kind;
        uint64_t len, in_file, end;
        int rc = c->from.format->map(c->from.image, at, &kind, &len, &in_file);

        if (rc < 0)
            return copy_error(c->from.file, "read", rc, err);
        end = min_u64(at + max_u64(len, 512), c->size);
        if (kind == BLOCK_ZEROS || (kind == BLOCK_UNALLOCATED && c->from.info.backing == NULL)) {
            at = end;
        } else {
            /* up to a border of pieces, so that clusters of the target are written whole */
            end = min_u64(end, align_down(at, PIECE) + PIECE);
            if (end < c->size)
                end = min_u64(align_up(end, c->grain), c->size);
            rc = copy_piece(c, at, end - at, err);
            if (rc < 0)
                return rc;
            at = end;
        }
        if (step(c, at))
            return error_set(err, -ECANCELED, "stopped");
    }
    return 0;
}

static int copy_open(struct copy *c, const char *to, const struct block_format *to_format,
                     const struct block_create *o, struct error *err)
{
    struct block_create create = *o;
    int rc;

    create.size = c->size;
    if (to_format == NULL)
        to_format = format_by_name(to);
    c->buf = malloc(PIECE);
    if (c->buf == NULL)
        return error_set(err, -ENOMEM, "no memory for a copy");
    rc = image_create(to, to_format, &create, err);
    if (rc < 0)
        return rc;
    rc = work_open(&c->to, to, to_format, false, false, false, err);
    c->grain = c->to.info.cluster > 1 ? c->to.info.cluster : GRAIN;
    if (rc < 0)
        unlink(to);
    return rc;
}

int image_convert(const char *from, const struct block_format *from_format, const char *to,
                  const struct block_format *to_format, const struct block_create *o, bool backing,
                  const struct image_progress *progress, struct error *err)
{
    struct copy c = {.progress = progress};
    int rc;

    if (o->backing != NULL)
        return error_set(err, -EINVAL, "a copy holds all of the disk and has no backing file");
    rc = work_open(&c.from, from, from_format, true, false, backing, err);
    c.size = c.from.info.size;
    if (rc == 0)
        rc = copy_open(&c, to, to_format, o, err);
    if (rc == 0) {
        rc = copy_all(&c, err);
        if (rc == 0) {
            rc = c.to.format->flush(c.to.image);
            if (rc < 0)
                copy_error(c.to.file, "written", rc, err);
        }
        if (rc < 0)
            unlink(to); /* half a copy is none */
    }
    work_close(&c.to);
    work_close(&c.from);
    free(c.buf);
    return rc;
}

/* ---- map ---- */

struct mapping {
    void (*each)(void *ctx, uint64_t offset, uint64_t len, enum block_extent kind,
                 uint64_t in_file);
    void *ctx;
    uint64_t offset, len, in_file; /* an extent that may go on */
    enum block_extent kind;
};

static void map_add(struct mapping *m, uint64_t offset, uint64_t len, enum block_extent kind,
                    uint64_t in_file)
{
    bool joins = m->len > 0 && kind == m->kind &&
                 (kind != BLOCK_DATA || (m->in_file == 0 && in_file == 0) ||
                  (in_file != 0 && in_file == m->in_file + m->len));

    if (!joins) {
        if (m->len > 0)
            m->each(m->ctx, m->offset, m->len, m->kind, m->in_file);
        m->offset = offset;
        m->len = 0;
        m->kind = kind;
        m->in_file = in_file;
    }
    m->len += len;
}

/* What the backing files hold there: zeros or data of another file, by what can be read. */
static int map_backing(struct mapping *m, struct work *w, uint64_t at, uint64_t len, uint8_t *buf)
{
    for (uint64_t end = at + len; at < end;) {
        uint64_t n = min_u64(GRAIN, end - at);
        struct iovec iov = {.iov_base = buf, .iov_len = n};
        int rc = w->format->read(w->image, at, &iov, 1);

        if (rc < 0)
            return rc;
        map_add(m, at, n, all_zero(buf, n) ? BLOCK_ZEROS : BLOCK_DATA, 0);
        at += n;
    }
    return 0;
}

int image_map(const char *path, const struct block_format *format, bool backing,
              void (*each)(void *ctx, uint64_t offset, uint64_t len, enum block_extent kind,
                           uint64_t in_file),
              void *ctx, struct error *err)
{
    struct mapping m = {.each = each, .ctx = ctx};
    struct work w = {0};
    uint8_t *buf = malloc(GRAIN);
    int rc = buf == NULL ? error_set(err, -ENOMEM, "no memory for a map")
                         : work_open(&w, path, format, true, !backing, backing, err);

    for (uint64_t at = 0; rc == 0 && at < w.info.size;) {
        enum block_extent kind;
        uint64_t len, in_file;

        rc = w.format->map(w.image, at, &kind, &len, &in_file);
        if (rc == 0 && kind == BLOCK_UNALLOCATED && backing && w.info.backing != NULL)
            rc = map_backing(&m, &w, at, len, buf);
        else if (rc == 0)
            map_add(&m, at, len, kind, in_file);
        at += len;
        if (rc < 0)
            copy_error(w.file, "read", rc, err);
    }
    if (rc == 0 && m.len > 0)
        each(ctx, m.offset, m.len, m.kind, m.in_file);
    work_close(&w);
    free(buf);
    return rc;
}
