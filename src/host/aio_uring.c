#include "host/aio_ring.h"

#include <errno.h>
#include <liburing.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define ENTRIES 128u

struct aio_ring {
    struct io_uring uring;
    unsigned in_kernel; /* taken, not yet reaped: kept below what the completion ring holds */
    unsigned dead;      /* entries of the submission ring that were turned into no-ops */
    /* put, not yet taken by the kernel, oldest first; each with its entry */
    struct aio_job *put[ENTRIES];
    struct io_uring_sqe *entry[ENTRIES];
    unsigned put_count;
};

/* Old kernels have the system call and lack the operations. */
static bool has_ops(struct io_uring *uring)
{
    struct io_uring_probe *probe = io_uring_get_probe_ring(uring);
    bool has = probe != NULL && io_uring_opcode_supported(probe, IORING_OP_READV) &&
               io_uring_opcode_supported(probe, IORING_OP_WRITEV) &&
               io_uring_opcode_supported(probe, IORING_OP_FSYNC);

    if (probe != NULL)
        io_uring_free_probe(probe);
    /* SUBMIT_STABLE: iovec arrays may go after the submission; NODROP: no completion is lost. */
    return has && (uring->features & IORING_FEAT_NODROP) != 0;
}

int aio_ring_create(int notify, struct aio_ring **out, struct error *err)
{
    struct aio_ring *r = calloc(1, sizeof(*r));
    int rc;

    if (r == NULL)
        return error_set(err, -ENOMEM, "no memory for io_uring");
    rc = io_uring_queue_init(ENTRIES, &r->uring, IORING_SETUP_CLAMP);
    if (rc < 0) {
        free(r);
        return error_set(err, rc, "io_uring cannot be had here (%s); aio=threads does without it",
                         strerror(-rc));
    }
    rc = has_ops(&r->uring) ? io_uring_register_eventfd(&r->uring, notify) : -ENOSYS;
    if (rc < 0) {
        io_uring_queue_exit(&r->uring);
        free(r);
        return error_set(err, rc,
                         "this kernel's io_uring lacks what disks need; aio=threads does "
                         "without it");
    }
    *out = r;
    return 0;
}

void aio_ring_destroy(struct aio_ring *r)
{
    if (r == NULL)
        return;
    io_uring_queue_exit(&r->uring);
    free(r);
}

bool aio_ring_put(struct aio_ring *r, struct aio_job *job)
{
    struct io_uring_sqe *sqe;

    if (r->put_count == ENTRIES || r->in_kernel + r->put_count + r->dead >= 2 * ENTRIES)
        return false;
    sqe = io_uring_get_sqe(&r->uring);
    if (sqe == NULL)
        return false;
    switch (job->op) {
    case AIO_READ:
        io_uring_prep_readv(sqe, job->fd, job->iov, job->count, job->offset);
        break;
    case AIO_WRITE:
        io_uring_prep_writev(sqe, job->fd, job->iov, job->count, job->offset);
        break;
    case AIO_FLUSH:
    case AIO_CALL: /* never comes here */
        io_uring_prep_fsync(sqe, job->fd, IORING_FSYNC_DATASYNC);
        break;
    }
    io_uring_sqe_set_data(sqe, job);
    r->put[r->put_count] = job;
    r->entry[r->put_count++] = sqe;
    return true;
}

struct aio_job *aio_ring_submit(struct aio_ring *r)
{
    struct aio_job *list = NULL;
    unsigned taken = 0;
    int rc;

    if (r->put_count == 0)
        return NULL;
    io_uring_cq_eventfd_toggle(&r->uring, false);
    do
        rc = io_uring_submit(&r->uring);
    while (rc == -EINTR);
    io_uring_cq_eventfd_toggle(&r->uring, true);
    /*
     * Before the caller's look at what is done: the kernel writes that first and then asks whether
     * it may tell, so one of the two sees the other.
     */
    atomic_thread_fence(memory_order_seq_cst);
    if (rc > 0) {
        unsigned dead = (unsigned)rc < r->dead ? (unsigned)rc : r->dead; /* these came first */

        r->dead -= dead;
        r->in_kernel += (unsigned)rc; /* no-ops complete, too */
        taken = (unsigned)rc - dead;
    }
    /* The entries stay in the ring: as no-ops they do no harm when they go out some day. */
    for (unsigned i = r->put_count; i > taken; i--) {
        io_uring_prep_nop(r->entry[i - 1]);
        io_uring_sqe_set_data(r->entry[i - 1], NULL);
        r->put[i - 1]->next = list;
        list = r->put[i - 1];
        r->dead++;
    }
    r->put_count = 0;
    return list;
}

struct aio_job *aio_ring_reap(struct aio_ring *r)
{
    struct io_uring_cqe *cqe;

    while (io_uring_peek_cqe(&r->uring, &cqe) == 0) {
        struct aio_job *job = io_uring_cqe_get_data(cqe);

        if (job != NULL)
            job->result = cqe->res;
        io_uring_cqe_seen(&r->uring, cqe);
        r->in_kernel--;
        if (job != NULL)
            return job;
    }
    return NULL;
}
