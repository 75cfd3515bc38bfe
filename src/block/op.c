/*
 * A request on its way. It goes in parts of bounded size, each of them by io_uring straight to the
 * file, or by a thread that calls the format; where there is no loop, the format is called at once.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "block/internal.h"

#define PIECE (4 * MIB)        /* of a read or write */
#define ZERO_PIECE (256 * MIB) /* of a zero or discard: a thread is busy with it for so long */
#define LOG_BURST 10u          /* lines about errors in ten seconds */

/* ---- the end ---- */

static void count(struct block *b, const struct block_request *r, int rc)
{
    if (rc < 0)
        return;
    switch (r->op) {
    case BLOCK_READ:
        b->stats.reads++;
        b->stats.read_bytes += r->len;
        break;
    case BLOCK_WRITE:
        b->stats.writes++;
        b->stats.written_bytes += r->len;
        break;
    case BLOCK_FLUSH:
        b->stats.flushes++;
        break;
    case BLOCK_DISCARD:
    case BLOCK_ZERO:
        b->stats.discards++;
        break;
    }
}

void block_complete(struct block *b, struct block_request *r, int rc)
{
    count(b, r, rc);
    r->private.rc = rc;
    r->private.next = NULL;
    r->private.aux = NULL;
    *b->done_end = r;
    b->done_end = &r->private.next;
}

/* A part has ended that went direct: perhaps a zero or discard has waited for it. */
static void direct_end(struct op *ended)
{
    struct block *b = ended->b;

    ended->direct = false;
    if (b->zeros == 0)
        return;
    for (struct op *op = b->first, *next; op != NULL; op = next) {
        next = op->next;
        if (op->state == OP_BLOCKED)
            block_op_start(op);
    }
}

void block_op_finish(struct op *op, int rc)
{
    struct block *b = op->b;
    bool write = op_is_write(op);

    if (op->prev != NULL)
        op->prev->next = op->next;
    else
        b->first = op->next;
    if (op->next != NULL)
        op->next->prev = op->prev;
    else
        b->last = op->prev;
    if (op_is_zero(op))
        b->zeros--;
    block_pause_end(op);
    block_complete(b, op->r, rc);
    free(op->copy);
    free(op);
    if (write)
        block_flush_pump(b);
}

static int to_guest(int rc)
{
    switch (rc) {
    case -EROFS:
    case -EBADF:
        return -EROFS;
    case -ENOSPC:
    case -EDQUOT:
    case -EFBIG:
        return -ENOSPC;
    default:
        return -EIO;
    }
}

static const char *op_name(enum block_op op)
{
    static const char *const names[] = {"read", "write", "flush", "discard", "zero"};

    return names[op];
}

static void log_failure(struct op *op, int rc)
{
    struct block *b = op->b;
    uint64_t now = b->env->timers != NULL ? clock_now(b->env) : 0;
    const char *why = rc == -ENXIO ? "the file has become shorter" : strerror(-rc);

    if (now >= b->log_until) {
        b->log_until = now + 10 * NSEC_PER_SEC;
        b->log_left = LOG_BURST;
    }
    if (b->log_left == 0)
        return;
    b->log_left--;
    log_error(b->env->log, "%s: %s: %s of %" PRIu64 " bytes at %" PRIu64 " failed: %s%s",
              b->env->name, b->image->file->name, op_name(op->r->op), op->r->len,
              op->r->offset + op->done, why,
              b->log_left == 0 ? " (more of these are dropped for a while)" : "");
}

void block_op_failed(struct op *op, int rc)
{
    op->b->stats.errors++;
    if (block_pause(op, rc))
        return;
    log_failure(op, rc);
    block_op_finish(op, to_guest(rc));
}

/* ---- parts ---- */

/*
 * The pieces of memory of the next part: at most AIO_IOV_MAX of them, unless so many are not even a
 * sector. Most requests are one part, and their own array serves.
 */
static int gather(struct op *op)
{
    const struct block_request *r = op->r;
    uint64_t left = r->len - op->done, bytes = 0;
    uint64_t want = min_u64(left, PIECE);
    unsigned sector = op->b->geometry.sector, n = 0, room;

    if (op->done == 0 && left <= PIECE && r->iov_count <= AIO_IOV_MAX) {
        for (unsigned i = 0; i < r->iov_count; i++)
            bytes += r->iov[i].iov_len;
        op->iov = r->iov;
        op->iov_count = r->iov_count;
        op->piece = left;
        return bytes == left ? 0 : -EINVAL;
    }
    room = (unsigned)min_u64(r->iov_count - op->index, AIO_IOV_MAX + sector);
    free(op->copy);
    op->copy = calloc(room, sizeof(*op->copy));
    if (op->copy == NULL)
        return -ENOMEM;
    for (unsigned i = op->index; i < r->iov_count && bytes < want && n < room; i++) {
        size_t skip = i == op->index ? op->skip : 0;
        size_t len = (size_t)min_u64(r->iov[i].iov_len - skip, want - bytes);

        if (n >= AIO_IOV_MAX && bytes >= sector)
            break;
        if (len == 0)
            continue;
        op->copy[n++] =
            (struct iovec){.iov_base = (char *)r->iov[i].iov_base + skip, .iov_len = len};
        bytes += len;
    }
    if (bytes < sector)
        return -EINVAL; /* iov is shorter than len */
    op->piece = align_down(bytes, sector);
    for (uint64_t cut = bytes - op->piece; cut > 0;) {
        size_t part = (size_t)min_u64(cut, op->copy[n - 1].iov_len);

        op->copy[n - 1].iov_len -= part;
        if (op->copy[n - 1].iov_len == 0)
            n--;
        cut -= part;
    }
    op->iov = op->copy;
    op->iov_count = n;
    return 0;
}

/* Behind the part that is finished. */
static void op_advance(struct op *op)
{
    uint64_t n = op->piece;

    op->done += n;
    if (op_is_zero(op) || op->done == op->r->len)
        return;
    while (op->index < op->r->iov_count && n >= op->r->iov[op->index].iov_len - op->skip) {
        n -= op->r->iov[op->index].iov_len - op->skip;
        op->index++;
        op->skip = 0;
    }
    op->skip += (size_t)n;
}

static bool overlap(const struct op *a, const struct op *b, uint64_t cluster)
{
    uint64_t a_from = align_down(a->r->offset, cluster), b_from = align_down(b->r->offset, cluster);
    uint64_t a_to = a->r->offset + a->r->len, b_to = b->r->offset + b->r->len;

    return a_from < b_to && b_from < a_to;
}

/*
 * A zero or discard may free a cluster, which the format then uses for something else. So none
 * starts while an operation that knows the cluster's place is under way, and none of these starts
 * while a zero is: it goes through the format then, which has locks.
 */
static bool overlaps_zero(const struct op *op)
{
    const struct block *b = op->b;

    for (const struct op *p = b->zeros > 0 ? b->first : NULL; p != NULL; p = p->next) {
        if (op_is_zero(p) && overlap(op, p, b->image->info.cluster))
            return true;
    }
    return false;
}

static bool overlaps_direct(const struct op *op)
{
    const struct block *b = op->b;

    for (const struct op *p = b->first; p != NULL; p = p->next) {
        if (p->state == OP_RUNS && p->direct && overlap(op, p, b->image->info.cluster))
            return true;
    }
    return false;
}

static bool memory_fits(const struct op *op, uint64_t offset, unsigned align)
{
    uint64_t all = offset;

    for (unsigned i = 0; i < op->iov_count; i++)
        all |= (uintptr_t)op->iov[i].iov_base | op->iov[i].iov_len;
    return (all & (align - 1)) == 0;
}

/* Whether the part can go to the file as it is, and where. */
static bool find_direct(struct op *op, uint64_t *in_file)
{
    const struct block *b = op->b;
    const struct block_image *i = b->image;
    const struct block_format *f = i->format;
    bool write = op->r->op == BLOCK_WRITE;
    unsigned align = i->file->fd_align > 1 ? i->file->fd_align : 1;

    if (b->aio == NULL || !aio_has_uring(b->aio) || i->file->fd < 0 || f->locate == NULL ||
        op->iov_count > AIO_IOV_MAX)
        return false;
    /* Blocks larger than a sector: another write may be changing its part of one just now. */
    if (write && align > b->geometry.sector)
        return false;
    if (overlaps_zero(op) ||
        !f->locate(i->image, write, op->r->offset + op->done, op->piece, in_file))
        return false;
    return align == 1 || memory_fits(op, *in_file, align);
}

static int zero_call(struct op *op, uint64_t offset)
{
    const struct block_image *i = op->b->image;
    int rc;

    if (op->r->op == BLOCK_ZERO)
        return i->format->zero(i->image, offset, op->piece, op->r->punch);
    if (!op->plain)
        rc = i->format->zero(i->image, offset, op->piece, true);
    else if (i->file->ops->discard != NULL)
        rc = i->file->ops->discard(i->file, offset, op->piece);
    else
        rc = 0;
    return rc == -EOPNOTSUPP || rc == -ENOTSUP ? 0 : rc; /* a discard is no more than advice */
}

/* On a thread of the pool, or inline. What it reads of the operation nobody changes meanwhile. */
static void op_call(struct aio_job *job)
{
    struct op *op = container_of(job, struct op, job);
    const struct block_image *i = op->b->image;
    uint64_t offset = op->r->offset + op->done;

    switch (op->r->op) {
    case BLOCK_READ:
        job->result = i->format->read(i->image, offset, op->iov, op->iov_count);
        break;
    case BLOCK_WRITE:
        job->result = i->format->write(i->image, offset, op->iov, op->iov_count);
        break;
    case BLOCK_ZERO:
    case BLOCK_DISCARD:
        job->result = zero_call(op, offset);
        break;
    case BLOCK_FLUSH:
        break;
    }
}

/* Prepares the next part; -errno if there can be none. */
static int op_prepare(struct op *op)
{
    uint64_t in_file = 0;
    int rc = 0;

    op->direct = false;
    op->plain = op->b->image->info.cluster == 1;
    op->state = OP_RUNS;
    if (op_is_zero(op))
        op->piece = min_u64(op->r->len - op->done, ZERO_PIECE);
    else
        rc = gather(op);
    if (rc < 0)
        return rc;
    op->job = (struct aio_job){.op = AIO_CALL, .call = op_call};
    if (op_is_zero(op) || !find_direct(op, &in_file))
        return 0;
    op->direct = true;
    op->b->stats.direct++;
    op->job.op = op->r->op == BLOCK_READ ? AIO_READ : AIO_WRITE;
    op->job.fd = op->b->image->file->fd;
    op->job.offset = in_file;
    op->job.iov = op->iov;
    op->job.count = op->iov_count;
    block_choose(op);
    return 0;
}

/* The last part is finished. */
static void op_written(struct op *op)
{
    bool fua = op->r->fua;

    /* O_DSYNC makes writes of the file stable, but no format's tables, and zeros not everywhere. */
    if (op->b->opt.sync && (!op->plain || op->r->op == BLOCK_ZERO))
        fua = true;
    if (fua && (op->r->op == BLOCK_WRITE || op->r->op == BLOCK_ZERO))
        block_flush_wait(op);
    else
        block_op_finish(op, 0);
}

void block_op_start(struct op *op)
{
    struct block *b = op->b;
    int rc;

    if (op_is_zero(op) && overlaps_direct(op)) {
        op->state = OP_BLOCKED;
        return;
    }
    while (op->done < op->r->len) {
        rc = op_prepare(op);
        if (rc == 0 && block_write_here(op)) {
            op->direct = false;
            rc = op->job.result < 0 ? (int)op->job.result : 0;
        } else if (rc == 0 && b->aio != NULL) {
            block_job(b, &op->job);
            return;
        } else if (rc == 0) {
            op_call(&op->job);
            rc = (int)op->job.result;
        }
        if (rc < 0) {
            block_op_failed(op, rc);
            return;
        }
        op_advance(op);
    }
    op_written(op);
}

/* The host did not do all of it, or would not now: then the format does it on a thread. */
static bool try_again(const struct op *op)
{
    ssize_t n = op->job.result;

    return n >= 0
               ? (uint64_t)n != op->piece
               : n == -EAGAIN || n == -EINTR || n == -ECANCELED || n == -EINVAL || n == -EOPNOTSUPP;
}

void block_op_result(struct op *op)
{
    int rc = op->job.result < 0 ? (int)op->job.result : 0;

    if (op->direct && !block_here_back(op))
        return;
    if (op->direct) {
        bool again = try_again(op);

        direct_end(op);
        if (again) {
            op->job = (struct aio_job){.op = AIO_CALL, .call = op_call};
            block_job(op->b, &op->job);
            return;
        }
    }
    if (rc < 0) {
        block_op_failed(op, rc);
        return;
    }
    op_advance(op);
    block_op_start(op);
}
