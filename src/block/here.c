/*
 * Who carries out a part of a request: the thread that submits it, the kernel, or one of ours.
 *
 * io_uring serves a read from the host's cache inside the submission. A write to the cache of a
 * regular file it leaves to a thread of the kernel on most file systems, and that costs more than
 * the write. So small writes are made here, as long as the host takes them quickly: one that took
 * long (the host's memory is full of what must be written first, say) sends those that follow to a
 * thread for a while. There they go one after the other, since the kernel locks the file for each;
 * and none is made here meanwhile, which would wait for that lock.
 * Large reads are copied by the kernel's threads if something is under way already, so that the
 * submitter, which may be a vCPU, has time for it.
 */
#include "base/bits.h"
#include "block/internal.h"
#include "host/clock.h"

#define SMALL (64 * KIB)
#define LARGE (128 * KIB)
#define CHEAP_NS 12000u                   /* less than another thread would cost */
#define SLOW_NS (2 * NSEC_PER_SEC / 1000) /* so long a vCPU may be away */
#define BACK_OFF_MIN (NSEC_PER_SEC / 10)  /* doubles with each slow one, up to */
#define BACK_OFF_MAX (10 * NSEC_PER_SEC)

void block_choose(struct op *op)
{
    const struct bfile *f = op->b->image->file;

    if (op->r->op == BLOCK_READ)
        op->job.apart = f->cached && op->b->jobs > 0 && op->piece >= LARGE;
    else
        op->job.in_turn = f->cached;
}

void block_here_learn(struct block_here *h, uint64_t from, uint64_t to)
{
    uint64_t took = to - from;

    h->cost_ns = (7 * h->cost_ns + min_u64(took, SLOW_NS)) / 8;
    if (took < SLOW_NS) {
        h->back_off_ns = max_u64(h->back_off_ns - h->back_off_ns / 64, BACK_OFF_MIN);
        return;
    }
    h->back_off_ns = max_u64(h->back_off_ns, BACK_OFF_MIN);
    h->not_before_ns = to + h->back_off_ns;
    h->back_off_ns = min_u64(2 * h->back_off_ns, BACK_OFF_MAX);
}

bool block_write_here(struct op *op)
{
    struct block *b = op->b;
    struct block_here *h = &b->here;
    uint64_t from;

    if (!op->direct || op->r->op != BLOCK_WRITE || op->piece > SMALL || !b->image->file->cached ||
        h->turns > 0 || (b->jobs > 0 && h->cost_ns > CHEAP_NS))
        return false;
    from = host_clock_ns();
    if (from < h->not_before_ns)
        return false;
    aio_run(&op->job);
    block_here_learn(h, from, host_clock_ns());
    return true;
}
