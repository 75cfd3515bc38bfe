/* Requests come in and are handed back. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"
#include "block/internal.h"

#define DONE_ROUNDS 64u /* of run_done; a guest's read may bring in its next request, and so on */

static void count_job(struct block *b, const struct aio_job *job, unsigned by)
{
    b->jobs += by;
    if (job->lane == AIO_WRITES)
        b->here.writes += by;
    else if (job->lane == AIO_READS)
        b->here.reads += by;
}

void block_job(struct block *b, struct aio_job *job)
{
    count_job(b, job, 1);
    aio_submit(b->aio, job);
}

/* What is back goes on, or joins those whose `done` is to be called. False: nothing was back. */
static bool reap(struct block *b)
{
    struct aio_job *job;
    bool any = false;

    while ((job = aio_reap(b->aio)) != NULL) {
        any = true;
        count_job(b, job, -1u);
        if (job == &b->flush_job)
            block_flush_result(b);
        else
            block_op_result(container_of(job, struct op, job));
    }
    return any;
}

/*
 * All that was submitted goes to the host. What the host has in its cache is back at once, and no
 * thread need be woken for it.
 */
static void kick(struct block *b)
{
    do
        aio_kick(b->aio);
    while (reap(b));
}

static void run_done(struct block *b)
{
    struct block_request *r;
    unsigned rounds = 0;

    if (b->in_done)
        return; /* whoever called that `done` goes on with what came in meanwhile */
    b->in_done = true;
    b->plugged++;
    do {
        while ((r = b->done_first) != NULL) {
            b->done_first = r->private.next;
            if (b->done_first == NULL)
                b->done_end = &b->done_first;
            r->done(r, r->private.rc);
        }
        if (b->aio != NULL && b->plugged == 1)
            kick(b);
    } while (b->done_first != NULL && ++rounds < DONE_ROUNDS);
    b->plugged--;
    b->in_done = false;
    if (b->done_first != NULL)
        aio_wake(b->aio); /* without one it was called inside block_submit */
}

void block_process(struct block *b)
{
    if (b->aio != NULL) {
        aio_clear(b->aio);
        reap(b);
        if (b->plugged == 0)
            kick(b);
    }
    run_done(b);
    if (b->changed && !b->in_done) {
        b->changed = false;
        if (b->events != NULL && b->events->changed != NULL)
            b->events->changed(b->ctx);
    }
}

void block_settle(struct block *b)
{
    if (b->aio == NULL) {
        block_process(b);
        return;
    }
    if (b->plugged == 0)
        kick(b);
    if (b->done_first != NULL || b->changed)
        aio_wake(b->aio);
}

static int judge(const struct block *b, const struct block_request *r)
{
    uint64_t end;

    if (r->op == BLOCK_FLUSH)
        return 0;
    if (r->op != BLOCK_READ && b->geometry.read_only)
        return -EROFS;
    if (((r->offset | r->len) & (b->geometry.sector - 1)) != 0 ||
        __builtin_add_overflow(r->offset, r->len, &end) || end > b->geometry.size)
        return -EINVAL;
    return 0;
}

/* Nothing to do: an empty request, a flush of what cannot be written, an unwanted discard. */
static bool is_nothing(const struct block *b, const struct block_request *r)
{
    if (r->op == BLOCK_FLUSH)
        return b->image == NULL || b->geometry.read_only;
    return r->len == 0 || (r->op == BLOCK_DISCARD && !b->geometry.discard);
}

static void append(struct block *b, struct op *op)
{
    op->prev = b->last;
    if (b->last != NULL)
        b->last->next = op;
    else
        b->first = op;
    b->last = op;
    if (op_is_zero(op))
        b->zeros++;
}

void block_submit(struct block *b, struct block_request *r)
{
    struct op *op = NULL;
    int rc = judge(b, r);

    r->private.block = b;
    r->private.seq = ++b->seq;
    if (rc == 0 && !is_nothing(b, r)) {
        op = calloc(1, sizeof(*op));
        if (op == NULL)
            rc = -EIO;
    }
    if (op == NULL) {
        block_complete(b, r, rc);
    } else {
        *op = (struct op){.b = b, .r = r};
        r->private.aux = op;
        append(b, op);
        if (r->op == BLOCK_FLUSH)
            block_flush_wait(op);
        else if (!block_hold(op))
            block_op_start(op);
    }
    block_settle(b);
}

void block_plug(struct block *b)
{
    b->plugged++;
}

void block_unplug(struct block *b)
{
    assert(b->plugged > 0);
    if (--b->plugged > 0 || b->aio == NULL)
        return;
    kick(b);
    if (b->done_first != NULL)
        run_done(b);
}

void block_quiet(struct block *b)
{
    while (b->jobs > 0) {
        kick(b); /* plugged or not */
        if (b->jobs > 0) {
            aio_wait(b->aio);
            aio_clear(b->aio);
            reap(b);
        }
    }
}

void block_finish(struct block *b)
{
    b->draining = true;
    block_hold_drain(b);
    block_quiet(b);
    assert(b->first == NULL);
    b->draining = false;
}

void block_drain(struct block *b)
{
    assert(!b->in_done); /* `done` would have to be called inside another */
    do {
        block_finish(b);
        run_done(b);
    } while (b->first != NULL || b->done_first != NULL);
    block_settle(b); /* `changed` may be due; the loop was told, but that is forgotten */
}
