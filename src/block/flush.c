/*
 * Flushes: each waits for the writes that were submitted before it. Writes that must be stable when
 * they are done (FUA) come here once they are written.
 */
#include <errno.h>

#include "base/bits.h"
#include "block/internal.h"

static void flush_call(struct aio_job *job)
{
    struct block *b = container_of(job, struct block, flush_job);

    job->result = b->image->format->flush(b->image->image);
}

/* Nothing that was submitted before it is still to be written. */
static bool is_ready(const struct op *op)
{
    if (op->r->op != BLOCK_FLUSH)
        return true; /* a write with FUA: it has been written itself */
    for (const struct op *p = op->prev; p != NULL; p = p->prev) {
        if (op_is_write(p))
            return false;
    }
    return true;
}

/*
 * A flush that failed is told, also with on_error=pause: the kernel may have dropped what it could
 * not write, and a second try that works would be a lie about that.
 */
static void end(struct block *b)
{
    int rc = (int)b->flush_job.result;

    b->flush_runs = false;
    b->flush_guard++; /* what ends here may make others ready: not into this loop */
    for (struct op *op = b->first, *next; op != NULL; op = next) {
        next = op->next;
        if (op->state != OP_FLUSHES)
            continue;
        if (rc < 0)
            block_op_failed(op, rc);
        else
            block_op_finish(op, 0);
    }
    b->flush_guard--;
}

static void start(struct block *b)
{
    struct aio_job *job = &b->flush_job;
    const struct block_image *i = b->image;

    b->flush_runs = true;
    *job = (struct aio_job){.op = AIO_CALL, .call = flush_call, .fd = i->file->fd};
    if (b->aio == NULL) {
        flush_call(job);
        end(b);
        return;
    }
    if (i->info.cluster == 1 && i->file->fd >= 0 && aio_has_uring(b->aio))
        job->op = AIO_FLUSH; /* there is nothing but the file's content */
    block_job(b, job);
}

/* One flush of the file serves all that are ready; those that come meanwhile wait for the next. */
void block_flush_pump(struct block *b)
{
    bool any = true;

    if (b->flush_guard > 0)
        return;
    b->flush_guard++;
    while (any && !b->flush_runs && b->flush_waits > 0) {
        any = false;
        for (struct op *op = b->first; op != NULL; op = op->next) {
            if (op->state == OP_WAITS && is_ready(op)) {
                op->state = OP_FLUSHES;
                b->flush_waits--;
                any = true;
            }
        }
        if (any)
            start(b);
    }
    b->flush_guard--;
}

void block_flush_wait(struct op *op)
{
    op->state = OP_WAITS;
    op->b->flush_waits++;
    block_flush_pump(op->b);
}

void block_flush_result(struct block *b)
{
    struct aio_job *job = &b->flush_job;
    ssize_t rc = job->result;

    /* The kernel cancels what a thread has submitted that ends meanwhile (a vCPU, say). */
    if (job->op == AIO_FLUSH && (rc == -ECANCELED || rc == -EAGAIN || rc == -EINTR)) {
        *job = (struct aio_job){.op = AIO_CALL, .call = flush_call};
        block_job(b, job);
        return;
    }
    end(b);
    block_flush_pump(b);
}
