/*
 * Requests that are held back: by a rate limit (iops=, bps=), and those that the host failed while
 * on_error=pause. Both go by the VM's clock: while the VM is stopped nothing moves.
 */
#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "block/internal.h"

#define BURST (100 * NSEC_PER_SEC / 1000) /* how far ahead of its limit a disk may be */
#define RETRY NSEC_PER_SEC

/* ---- limits ---- */

static uint64_t add(uint64_t a, uint64_t b)
{
    return b > UINT64_MAX / 2 - a ? UINT64_MAX / 2 : a + b; /* a was made here, so it is below */
}

/*
 * Each request moves the moment at which all that was let through is paid for by its price. The
 * next may go when that moment is no more than BURST away: a large one is let through whole, and
 * those behind it wait for longer.
 */
static uint64_t may_go(const struct block *b)
{
    uint64_t paid = max_u64(b->limit_requests_ns, b->limit_bytes_ns);

    return paid > BURST ? paid - BURST : 0;
}

static void charge(struct block *b, const struct block_request *r)
{
    uint64_t now = clock_now(b->env);
    unsigned __int128 price;

    if (b->opt.iops != 0)
        b->limit_requests_ns = add(max_u64(b->limit_requests_ns, now),
                                   NSEC_PER_SEC / min_u64(b->opt.iops, NSEC_PER_SEC));
    if (b->opt.bps == 0 || (r->op != BLOCK_READ && r->op != BLOCK_WRITE))
        return;
    price = (unsigned __int128)r->len * NSEC_PER_SEC / b->opt.bps;
    b->limit_bytes_ns = add(max_u64(b->limit_bytes_ns, now),
                            price > UINT64_MAX / 2 ? UINT64_MAX / 2 : (uint64_t)price);
}

bool block_hold(struct op *op)
{
    struct block *b = op->b;

    if (b->limit_timer == NULL)
        return false;
    if (b->draining || (b->held == NULL && may_go(b) <= clock_now(b->env))) {
        charge(b, op->r); /* a drain does not wait, but it is paid for */
        return false;
    }
    op->state = OP_HELD;
    op->next_held = NULL;
    *b->held_end = op;
    b->held_end = &op->next_held;
    if (timer_when(b->limit_timer) == UINT64_MAX)
        timer_set(b->limit_timer, may_go(b));
    return true;
}

static void release(struct block *b, bool all)
{
    while (b->held != NULL && (all || may_go(b) <= clock_now(b->env))) {
        struct op *op = b->held;

        b->held = op->next_held;
        if (b->held == NULL)
            b->held_end = &b->held;
        charge(b, op->r);
        block_op_start(op);
    }
}

static void on_limit(void *ctx)
{
    struct block *b = ctx;

    release(b, false);
    if (b->held != NULL)
        timer_set(b->limit_timer, may_go(b));
    block_settle(b);
}

/* ---- pause ---- */

/* Whether trying again can help: not if the request or the image is the reason. */
static bool may_help(int rc)
{
    return rc != -EINVAL && rc != -EROFS && rc != -EBADF;
}

bool block_pause(struct op *op, int rc)
{
    struct block *b = op->b;

    if (b->pause_timer == NULL || b->draining || op->r->op == BLOCK_FLUSH || op->state != OP_RUNS ||
        !may_help(rc))
        return false;
    op->state = OP_PAUSED;
    if (!op->troubled) {
        op->troubled = true;
        if (b->troubled++ == 0)
            log_error(b->env->log, "%s: %s: %s; the guest's requests wait until it works",
                      b->env->name, b->image->file->name, strerror(-rc));
    }
    if (timer_when(b->pause_timer) == UINT64_MAX)
        timer_set(b->pause_timer, clock_now(b->env) + RETRY);
    return true;
}

void block_pause_end(struct op *op)
{
    struct block *b = op->b;

    if (op->troubled && --b->troubled == 0)
        log_info(b->env->log, "%s: %s: it works again, or nothing waits for it any more",
                 b->env->name, b->image->file->name);
}

/* Starting one can end it, and others with it: the list is looked at anew each time. */
static void retry(struct block *b)
{
    struct op *op;

    for (op = b->first; op != NULL; op = op->next) {
        if (op->state == OP_PAUSED)
            op->state = OP_RETRIED;
    }
    do {
        for (op = b->first; op != NULL && op->state != OP_RETRIED;)
            op = op->next;
        if (op != NULL)
            block_op_start(op);
    } while (op != NULL);
}

static void on_pause(void *ctx)
{
    struct block *b = ctx;

    retry(b);
    block_settle(b);
}

/* ---- both ---- */

int block_hold_open(struct block *b)
{
    b->held_end = &b->held;
    if (b->opt.iops != 0 || b->opt.bps != 0) {
        b->limit_timer = timer_create_env(b->env, on_limit, b);
        if (b->limit_timer == NULL)
            return -ENOMEM;
    }
    if (b->opt.pause) {
        b->pause_timer = timer_create_env(b->env, on_pause, b);
        if (b->pause_timer == NULL)
            return -ENOMEM;
    }
    return 0;
}

void block_hold_close(struct block *b)
{
    timer_free(b->limit_timer);
    timer_free(b->pause_timer);
}

void block_hold_drain(struct block *b)
{
    release(b, true);
    retry(b);
}
