/*
 * Disks for devices: requests that take their time. A disk is opened from a device's options, works
 * many requests at once, out of order, and tells when each is done.
 *
 * Owner: a device, whose env->lock is held around every call here but block_open; around
 * block_close it need not be when no other thread can be in the device any more. `done` and the
 * events come with that lock held: on env->loop, inside block_drain and block_unplug, or, where
 * env->loop is NULL (tests on a stepped clock), inside block_submit. `done` may submit; it is never
 * called inside another `done`.
 *
 * A flush is a barrier: it covers every write that was submitted before it, and waits for those.
 * Between two flushes there is no order among requests.
 */
#ifndef BLOCK_BLOCK_H
#define BLOCK_BLOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "bus/device.h"

struct block;

enum block_op {
    BLOCK_READ,
    BLOCK_WRITE,
    BLOCK_FLUSH,
    BLOCK_DISCARD, /* the content does not matter any more; it may read as anything once written */
    BLOCK_ZERO,    /* reads as zeros; space is given back if `punch` */
};

/*
 * The device's, and not touched by it from block_submit to done. offset and len are multiples of
 * the disk's sector; READ and WRITE: len is the sum of iov.
 */
struct block_request {
    enum block_op op;
    bool fua;   /* WRITE, ZERO: on stable storage when it is done */
    bool punch; /* ZERO */
    uint64_t offset, len;
    const struct iovec *iov; /* host memory, any alignment; borrowed until done */
    unsigned iov_count;
    /*
     * rc: 0; -EINVAL (not in sectors, behind the end: a device has usually said so itself), -EROFS,
     * -ENOSPC, -EIO. Which host error stood behind it was logged.
     */
    void (*done)(struct block_request *r, int rc);
    struct {
        struct block_request *next;
        struct block *block;
        uint64_t submitted_ns, seq;
        void *aux;
        int rc;
        unsigned state;
    } private;
};

struct block_geometry {
    uint64_t size;             /* bytes, a multiple of `sector` */
    unsigned sector, physical; /* bytes: 512 or 4096; physical at least sector */
    bool read_only, discard;
    bool removable;  /* no image is in (see block_insert): size is 0 */
    char serial[64]; /* made from the image's path, stable from run to run; for devices without ser=
                      */
};

struct block_events {
    /* The disk has another size, or another image was put in, or taken out. */
    void (*changed)(void *ctx);
};

/*
 * The rows that every disk's table of options has; a device adds its own behind them. `path` is
 * positional. Meanings: docs and the manual page.
 */
#define BLOCK_OPTIONS                                                                              \
    {.name = "path",                                                                               \
     .type = OPT_STRING,                                                                           \
     .value_name = "PATH",                                                                         \
     .help = "the image, or a block device",                                                       \
     .positional = true},                                                                          \
        {.name = "ram",                                                                            \
         .type = OPT_SIZE,                                                                         \
         .value_name = "SIZE",                                                                     \
         .help = "a disk in memory instead, empty at every start"},                                \
        {.name = "format",                                                                         \
         .type = OPT_STRING,                                                                       \
         .value_name = "raw|qcow2",                                                                \
         .help = "the image's format (default: by its content)"},                                  \
        {.name = "ro", .type = OPT_BOOL, .help = "the guest cannot write"},                        \
        {.name = "nocache", .type = OPT_BOOL, .help = "past the host's cache"},                    \
        {.name = "direct", .type = OPT_BOOL, .help = "every write is stable before it is done"},   \
        {.name = "sync", .type = OPT_BOOL, .help = "the same as direct"},                          \
        {.name = "nodelete", .type = OPT_BOOL, .help = "do not offer discard"},                    \
        {.name = "sectorsize",                                                                     \
         .type = OPT_STRING,                                                                       \
         .value_name = "LOGICAL[/PHYSICAL]",                                                       \
         .help = "bytes of a sector, 512 or 4096"},                                                \
        {.name = "backing",                                                                        \
         .type = OPT_BOOL,                                                                         \
         .help = "follow the backing file that the image names"},                                  \
        {.name = "aio",                                                                            \
         .type = OPT_STRING,                                                                       \
         .value_name = "io_uring|threads",                                                         \
         .help = "how requests reach the host (default: io_uring where it can be had)"},           \
        {.name = "iops", .type = OPT_U64, .value_name = "N", .help = "requests in a second"},      \
        {.name = "bps", .type = OPT_SIZE, .value_name = "BYTES", .help = "bytes in a second"},     \
        {.name = "on_error",                                                                       \
         .type = OPT_STRING,                                                                       \
         .value_name = "report|pause",                                                             \
         .help = "tell the guest of a host's error, or hold the request and try again"},           \
    {                                                                                              \
        .name = "iothread", .type = OPT_U64, .value_name = "N",                                    \
        .help = "a thread for the completions of this disk and all others with this number"        \
    }

/*
 * Opens the image that the options name (their rows are BLOCK_OPTIONS). removable: the path may be
 * missing, the disk is read-only, and its image can be changed. Errors are one sentence that names
 * the image and what to do.
 */
int block_open(struct dev_env *env, const struct options *opts, bool removable,
               const struct block_events *events, void *ctx, struct block **out, struct error *err);
/* Waits for what is under way, whose `done` is called; then the image is flushed and closed. */
void block_close(struct block *b);

void block_geometry(struct block *b, struct block_geometry *out);

void block_submit(struct block *b, struct block_request *r);
/*
 * Between the two, submitted requests may wait, so that they reach the host together. Those that
 * are done by then end inside the last block_unplug: their `done` is called there.
 */
void block_plug(struct block *b);
void block_unplug(struct block *b);

/* Returns when no request is under way; their `done` were called here. For a device's reset. */
void block_drain(struct block *b);

/* Looks at the image's size again; `changed` if it is another. */
void block_refresh(struct block *b);

/* Removable: another image, NULL takes out what is in. The old one stays if the new cannot be had.
 */
int block_insert(struct block *b, const char *path, struct error *err);

struct block_stats {
    uint64_t reads, writes, flushes, discards, read_bytes, written_bytes, errors, direct;
};
void block_stats(struct block *b, struct block_stats *out);

#endif
