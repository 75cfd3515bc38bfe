/*
 * Input and output that takes its time: reads, writes and flushes of a descriptor, by io_uring
 * where the kernel lets us, and any function that blocks, by a few threads. What is done is fetched
 * by the owner, whom a descriptor tells that there is something.
 *
 * One thread at a time (the owner's lock) calls these; only `call` runs on a thread of ours. The
 * threads start when there is work for them, and wait without using the processor.
 */
#ifndef HOST_AIO_H
#define HOST_AIO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/error.h"

struct aio;

enum aio_op { AIO_READ, AIO_WRITE, AIO_FLUSH, AIO_CALL };

/* By one of our threads, one such job after the other of its lane. */
enum aio_lane {
    AIO_NO_LANE, /* any number at once, by io_uring if it is there */
    AIO_WRITES,  /* where the kernel would let no more in */
    AIO_READS,   /* READ: only if it need not wait, else -EAGAIN or short; -EOPNOTSUPP: not here */
    AIO_LANES
};

#define AIO_IOV_MAX 1024u

/* The caller's, and not touched by it until aio_reap has given it back. */
struct aio_job {
    enum aio_op op;
    enum aio_lane lane;
    /* READ, WRITE, FLUSH: offset in bytes, at most AIO_IOV_MAX pieces */
    int fd;
    uint64_t offset;
    const struct iovec *iov;
    unsigned count;
    void (*call)(struct aio_job *job); /* CALL */
    /* READ, WRITE: the host's answer, bytes (perhaps fewer than asked) or -errno; FLUSH: 0 or so.
     */
    ssize_t result;
    struct aio_job *next; /* private */
};

/* uring: -errno and a sentence if it cannot be had here. threads: at most so many, at least 1. */
int aio_create(bool uring, unsigned threads, struct aio **out, struct error *err);
/* Nothing may be under way. NULL is allowed. */
void aio_destroy(struct aio *a);

/* Whether READ, WRITE and FLUSH go to io_uring. Without it a thread carries them out. */
bool aio_has_uring(const struct aio *a);

/* Readable from when something is done until aio_clear. */
int aio_fd(const struct aio *a);
void aio_clear(struct aio *a); /* before the loop of aio_reap, or a wake-up could be lost */
void aio_wake(struct aio *a);  /* makes it readable; any thread */
void aio_wait(struct aio *a);  /* blocks until it is readable */

/* Carries out READ, WRITE or FLUSH on the calling thread, whole or with an error. */
void aio_run(struct aio_job *job);

void aio_submit(struct aio *a, struct aio_job *job);
/*
 * What was submitted for io_uring may lie here until this is called. What is done before it returns
 * the descriptor does not tell: aio_reap has it.
 */
void aio_kick(struct aio *a);
struct aio_job *aio_reap(struct aio *a); /* NULL: no more just now */

#endif
