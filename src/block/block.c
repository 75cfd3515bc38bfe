#include "block/block.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "block/internal.h"
#include "host/loop.h"

#define THREADS 8u /* of a disk: enough to keep a device busy, few enough for many disks */

static void make_serial(const char *of, char *out, size_t size)
{
    uint64_t h = fnv1a(FNV1A_START, of, strlen(of));

    h = (h ^ h >> 32) * 0x9e3779b97f4a7c15ull; /* so that near names give far numbers */
    h ^= h >> 29;
    snprintf(out, size, "BHYVE-%04X-%04X-%04X", (unsigned)(h >> 32 & 0xffff),
             (unsigned)(h >> 16 & 0xffff), (unsigned)(h & 0xffff));
}

/* From the image that is in; true if a guest could see a difference. */
static bool make_geometry(struct block *b)
{
    struct block_geometry g = {.removable = b->removable, .read_only = b->opt.read_only};
    const struct block_image *i = b->image;
    bool same;

    g.sector = b->opt.sector != 0 ? b->opt.sector : 512;
    g.physical = b->opt.physical != 0 ? b->opt.physical : g.sector;
    if (i != NULL) {
        if (b->opt.sector == 0) {
            /* The device's own, unless a format lies between. */
            bool large = i->info.cluster == 1 && i->file->sector == 4096;

            g.sector = large && i->info.size % 4096 == 0 ? 4096 : 512;
            g.physical = i->file->physical >= 4096 ? 4096 : g.sector;
        }
        g.size = align_down(i->info.size, g.sector);
        g.discard = i->info.discard && !b->opt.read_only && !b->opt.nodelete;
    }
    memcpy(g.serial, b->geometry.serial, sizeof(g.serial));
    same = g.size == b->geometry.size && g.sector == b->geometry.sector;
    b->geometry = g;
    return !same;
}

static void on_events(void *ctx, unsigned events)
{
    (void)events;
    block_process(ctx);
}

/* Without a loop (tests on a stepped clock) all is done by whoever submits. */
static int start_aio(struct block *b, struct error *err)
{
    struct error why = {0};
    int rc = -ENOSYS;

    if (b->env->loop == NULL)
        return 0;
    if (b->opt.aio != BLOCK_AIO_THREADS)
        rc = aio_create(true, THREADS, &b->aio, &why);
    if (rc < 0 && b->opt.aio == BLOCK_AIO_URING)
        return error_set(err, rc, "aio=io_uring: %s", why.text);
    if (rc < 0)
        rc = aio_create(false, THREADS, &b->aio, err);
    if (rc < 0)
        return rc;
    b->watch = loop_add(b->env->loop, aio_fd(b->aio), LOOP_READ, &b->env->lock, on_events, b, err);
    return b->watch != NULL ? 0 : -ENOMEM;
}

/* Frees what there is; nothing is under way. */
static void destroy(struct block *b)
{
    loop_del(b->watch);
    block_hold_close(b);
    aio_destroy(b->aio);
    block_image_close(b->image, b->env->log);
    block_options_free(&b->opt);
    free(b);
}

int block_open(struct dev_env *env, const struct options *opts, bool removable,
               const struct block_events *events, void *ctx, struct block **out, struct error *err)
{
    struct block *b = calloc(1, sizeof(*b));
    int rc;

    if (b == NULL)
        return error_set(err, -ENOMEM, "no memory for a disk");
    b->env = env;
    b->events = events;
    b->ctx = ctx;
    b->removable = removable;
    b->done_end = &b->done_first;
    rc = block_options_read(opts, removable, &b->opt, err);
    if (rc == 0 && (b->opt.path != NULL || b->opt.ram != 0))
        rc = block_image_open(&b->opt, b->opt.path, env->log, &b->image, err);
    if (rc == 0 && block_hold_open(b) < 0)
        rc = error_set(err, -ENOMEM, "no memory for a disk's timer");
    if (rc == 0)
        rc = start_aio(b, err);
    if (rc < 0) {
        destroy(b);
        return rc;
    }
    make_serial(b->opt.path != NULL ? b->opt.path : env->name, b->geometry.serial,
                sizeof(b->geometry.serial));
    make_geometry(b);
    if (b->image != NULL)
        log_debug(env->log, "%s: %s: %s, %" PRIu64 " bytes, %s", env->name, b->image->file->name,
                  b->image->format->name, b->geometry.size,
                  b->aio == NULL          ? "inline"
                  : aio_has_uring(b->aio) ? "io_uring"
                                          : "threads");
    *out = b;
    return 0;
}

void block_close(struct block *b)
{
    if (b == NULL)
        return;
    block_drain(b);
    destroy(b);
}

void block_geometry(struct block *b, struct block_geometry *out)
{
    *out = b->geometry;
}

void block_refresh(struct block *b)
{
    if (b->image == NULL)
        return;
    block_quiet(b);
    b->image->format->info(b->image->image, &b->image->info);
    if (make_geometry(b))
        b->changed = true;
    block_settle(b); /* of what was finished meanwhile, too */
}

int block_insert(struct block *b, const char *path, struct error *err)
{
    struct block_image *old = b->image, *new = NULL;
    int rc = 0;

    if (!b->removable)
        return error_set(err, -EINVAL, "%s: its image cannot be changed", b->env->name);
    if (path != NULL)
        rc = block_image_open(&b->opt, path, b->env->log, &new, err);
    if (rc < 0)
        return rc;
    block_finish(b);
    b->image = new;
    block_image_close(old, b->env->log);
    make_geometry(b);
    b->changed = true;
    block_settle(b);
    return 0;
}

void block_stats(struct block *b, struct block_stats *out)
{
    *out = b->stats;
}
