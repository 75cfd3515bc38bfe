/*
 * Who carries out a part of a request: the thread that submits it, the kernel, or one of ours.
 *
 * io_uring serves a read from the host's cache inside the submission. A write to the cache of a
 * regular file it leaves to a thread of the kernel on most file systems, and that costs more than
 * the write. So small writes are made here, as long as the host takes them quickly: one that took
 * long (the host's memory is full of what must be written first, say) sends those that follow to a
 * thread for a while. There they go one after the other, since the kernel locks the file for each;
 * and none is made here meanwhile, which would wait for that lock.
 *
 * Large reads of the cache are shared between a thread of ours and the submitter, if the guest asks
 * for more while one is under way: the thread copies, the guest goes on, and what exceeds the
 * thread's two the submitter copies itself. Whether the guest would ask cannot be seen while all
 * end inside their submission, so now and then one goes to the thread to find out. The thread reads
 * only what is there; a read that must wait goes to io_uring, with as many others as there are.
 */
#include <errno.h>

#include "base/bits.h"
#include "block/internal.h"
#include "host/clock.h"

#define SMALL (64 * KIB)
#define LARGE (128 * KIB)
#define SHARED_MAX 2u   /* large reads for the thread, the rest is the submitter's */
#define SHARED_TRY 32u  /* of so many that were alone, one finds out */
#define SHARED_KEEP 16u /* so many in a row that were alone end it */
#define CHEAP_NS 12000u /* less than another thread would cost */
#define SLOW_NS (2 * NSEC_PER_SEC / 1000) /* so long a vCPU may be away */
#define BACK_OFF_MIN (NSEC_PER_SEC / 10)  /* doubles with each slow one, up to */
#define BACK_OFF_MAX (10 * NSEC_PER_SEC)

/* Whether this read is for the thread that shares them. */
static bool share_read(struct block *b)
{
    struct block_here *h = &b->here;

    if (h->reads >= SHARED_MAX || h->no_reads)
        return false;
    if (b->jobs == 0 && h->keep == 0)
        return ++h->alone % SHARED_TRY == 0;
    return true;
}

void block_choose(struct op *op)
{
    struct block *b = op->b;

    if (!b->image->file->cached)
        return;
    if (op->r->op == BLOCK_WRITE)
        op->job.lane = AIO_WRITES;
    else if (op->piece >= LARGE && share_read(b))
        op->job.lane = AIO_READS;
}

bool block_here_back(struct op *op)
{
    struct block_here *h = &op->b->here;
    ssize_t n = op->job.result;

    if (op->job.lane != AIO_READS)
        return true;
    if (op->b->jobs > 0)
        h->keep = SHARED_KEEP;
    else if (h->keep > 0)
        h->keep--;
    if (n >= 0 ? (uint64_t)n == op->piece : n != -EAGAIN && n != -EOPNOTSUPP)
        return true;
    h->no_reads = n == -EOPNOTSUPP;
    h->keep = 0;
    op->job.lane = AIO_NO_LANE;
    block_job(op->b, &op->job);
    return false;
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
        h->writes > 0 || (b->jobs > 0 && h->cost_ns > CHEAP_NS))
        return false;
    from = host_clock_ns();
    if (from < h->not_before_ns)
        return false;
    aio_run(&op->job);
    block_here_learn(h, from, host_clock_ns());
    return true;
}
