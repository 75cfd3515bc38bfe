/*
 * The block layer's own view of a disk: its image, and the operations under way. All of it is under
 * env->lock, but what a job's `call` uses while it runs.
 */
#ifndef BLOCK_INTERNAL_H
#define BLOCK_INTERNAL_H

#include "block/backing.h"
#include "block/block.h"
#include "block/format.h"
#include "host/aio.h"

struct loop_fd;

enum block_aio { BLOCK_AIO_ANY, BLOCK_AIO_URING, BLOCK_AIO_THREADS };

/* What BLOCK_OPTIONS said, judged and copied. */
struct block_options {
    char *path;                        /* NULL: none given */
    uint64_t ram;                      /* 0: no disk in memory */
    const struct block_format *format; /* NULL: by the content */
    bool read_only, nocache, sync, nodelete, backing, pause;
    unsigned sector, physical; /* 0: the image's own */
    enum block_aio aio;
    uint64_t iops, bps; /* 0: no limit */
};

int block_options_read(const struct options *opts, bool removable, struct block_options *out,
                       struct error *err);
void block_options_free(struct block_options *o);

/* An open image. */
struct block_image {
    struct bfile *file;
    const struct block_format *format;
    void *image;
    struct block_info info; /* as it was when `geometry` was last made */
    struct backing behind;
};

/* path NULL: o->ram. */
int block_image_open(const struct block_options *o, const char *path, struct log *log,
                     struct block_image **out, struct error *err);
/* Flushes and closes; a failing flush is logged. NULL is allowed. */
void block_image_close(struct block_image *i, struct log *log);

enum op_state {
    OP_HELD,    /* by a rate limit: in `held` */
    OP_BLOCKED, /* a zero or discard that waits for direct operations on the same clusters */
    OP_RUNS,    /* its job is under way */
    OP_WAITS,   /* a flush, or a write's second half (FUA), until it may be flushed */
    OP_FLUSHES, /* covered by the flush under way */
    OP_PAUSED,  /* failed, and is tried again later */
    OP_RETRIED, /* and now is the time */
};

/* A request under way. */
struct op {
    struct aio_job job;
    struct block *b;
    struct block_request *r;
    struct op *prev, *next; /* in `active`, by seq */
    struct op *next_held;
    enum op_state state;
    uint64_t done;  /* bytes that are finished */
    uint64_t piece; /* bytes of the part under way, from done on */
    bool direct;    /* the part goes past the format */
    bool plain;     /* the format has nothing but the file's bytes */
    bool troubled;  /* has failed; counted in block.troubled */
    /* The first byte of the part in r->iov, and the part's pieces of memory. */
    unsigned index;
    size_t skip;
    const struct iovec *iov;
    unsigned iov_count;
    struct iovec *copy; /* iov, where it is not r->iov itself */
};

/* What the submitting thread does itself: here.c. Zeros to begin with. */
struct block_here {
    uint64_t cost_ns;       /* of a write, of late */
    uint64_t not_before_ns; /* host_clock_ns */
    uint64_t back_off_ns;   /* the next time that one is slow */
    unsigned writes, reads; /* jobs under way in the thread's lanes */
    unsigned alone;         /* large reads, while nothing else was asked for */
    unsigned keep;          /* above 0: large reads are shared, until so many more are alone */
    bool no_reads;          /* the thread cannot read without waiting */
};

struct block {
    struct dev_env *env;
    const struct block_events *events;
    void *ctx;
    struct block_options opt;
    bool removable;
    struct block_image *image; /* NULL: nothing is in */
    struct block_geometry geometry;

    struct aio *aio; /* NULL: no loop, all is done inside block_submit */
    struct loop_fd *watch;
    unsigned plugged;
    unsigned jobs; /* under way there */
    struct block_here here;

    struct op *first, *last; /* active: submitted, not done */
    unsigned zeros;          /* active ones that are ZERO or DISCARD */
    unsigned flush_waits;    /* active ones in OP_WAITS */
    uint64_t seq;
    struct block_request *done_first, **done_end; /* finished, `done` not called yet */
    bool draining, in_done, changed;

    struct aio_job flush_job;
    bool flush_runs;
    unsigned flush_guard; /* above 0: no flush is started */

    struct op *held, **held_end;                /* OP_HELD, oldest first */
    struct timer *limit_timer;                  /* NULL: no limit */
    uint64_t limit_requests_ns, limit_bytes_ns; /* VM time at which all let through is paid for */

    unsigned troubled;         /* active ones that have failed */
    struct timer *pause_timer; /* NULL: on_error=report */

    unsigned log_left; /* rate limit of lines about errors */
    uint64_t log_until;
    struct block_stats stats;
};

static inline bool op_is_zero(const struct op *op)
{
    return op->r->op == BLOCK_DISCARD || op->r->op == BLOCK_ZERO;
}

static inline bool op_is_write(const struct op *op)
{
    return op->r->op == BLOCK_WRITE || op_is_zero(op);
}

/* request.c */
/* Fetches what is finished, goes on with it, calls `done` and events. */
void block_process(struct block *b);
/* What is finished will be told by the loop; without one, it is now. */
void block_settle(struct block *b);
void block_job(struct block *b, struct aio_job *job);
/* Waits until no call of the format is under way, without calling a `done`. */
void block_quiet(struct block *b);
/* Waits until every request is finished, those that are held, too; no `done` is called. */
void block_finish(struct block *b);

/* op.c */
void block_complete(struct block *b, struct block_request *r, int rc); /* `done` comes later */
void block_op_start(struct op *op);          /* the next part; may end and free it */
void block_op_result(struct op *op);         /* its job is back */
void block_op_finish(struct op *op, int rc); /* frees it */
void block_op_failed(struct op *op, int rc); /* a host's error: logged; frees it, or pauses */

/* here.c */
/* Carries out the part that was prepared, if that may be done at once; then op->job has its result.
 */
bool block_write_here(struct op *op);
void block_choose(struct op *op); /* who else does */
/* False: the thread had to leave it, and it is under way again. */
bool block_here_back(struct op *op);
/* A write went on from `from` to `to`, by host_clock_ns. */
void block_here_learn(struct block_here *h, uint64_t from, uint64_t to);

/* flush.c */
void block_flush_wait(struct op *op); /* until what it covers is written; then it is flushed */
void block_flush_pump(struct block *b);
void block_flush_result(struct block *b); /* the flush's job is back */

/* hold.c */
int block_hold_open(struct block *b);
void block_hold_close(struct block *b);
bool block_hold(struct op *op);          /* true: it is started later */
bool block_pause(struct op *op, int rc); /* true: it is tried again later */
void block_pause_end(struct op *op);     /* it ends, one way or the other */
void block_hold_drain(struct block *b);  /* starts all that is held, once more what is paused */

#endif
