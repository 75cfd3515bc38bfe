#include "host/aio.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "host/aio_ring.h"
#include "host/fd.h"
#include "host/file.h"

struct aio_list {
    struct aio_job *first, **end;
};

/*
 * The lock is innermost: nothing is called with it held. The owner's thread is the only one that
 * starts and joins threads.
 */
struct aio {
    struct aio_ring *ring; /* NULL: all goes to the threads */
    int read_fd, write_fd; /* the same eventfd, or a pipe */

    pthread_mutex_t lock;
    pthread_cond_t work;
    struct aio_list todo, done; /* under lock */
    unsigned idle, todo_count;  /* under lock */
    /* Under lock; of AIO_NO_LANE they say nothing. */
    unsigned waiting[AIO_LANES]; /* in todo */
    bool taken[AIO_LANES];       /* one is being carried out */
    bool stop;                   /* under lock */

    unsigned thread_count, thread_max;
    pthread_t *threads;
};

static void list_init(struct aio_list *l)
{
    l->first = NULL;
    l->end = &l->first;
}

static void list_put(struct aio_list *l, struct aio_job *job)
{
    job->next = NULL;
    *l->end = job;
    l->end = &job->next;
}

static struct aio_job *list_take(struct aio_list *l)
{
    struct aio_job *job = l->first;

    if (job != NULL) {
        l->first = job->next;
        if (l->first == NULL)
            l->end = &l->first;
    }
    return job;
}

/* ---- the descriptor ---- */

static int notify_open(struct aio *a)
{
#ifdef __linux__
    a->read_fd = a->write_fd = fd_event();
    return a->read_fd < 0 ? a->read_fd : 0;
#else
    int fds[2];
    int rc = fd_pipe(fds);

    if (rc == 0) {
        a->read_fd = fds[0];
        a->write_fd = fds[1];
    }
    return rc;
#endif
}

int aio_fd(const struct aio *a)
{
    return a->read_fd;
}

void aio_clear(struct aio *a)
{
    uint64_t sink[32];

    while (read(a->read_fd, sink, sizeof(sink)) == (ssize_t)sizeof(sink))
        continue;
}

void aio_wake(struct aio *a)
{
    uint64_t one = 1;
    ssize_t ignored = write(a->write_fd, &one, sizeof(one)); /* full: it is readable */

    (void)ignored;
}

void aio_wait(struct aio *a)
{
    struct pollfd p = {.fd = a->read_fd, .events = POLLIN};

    while (poll(&p, 1, -1) < 0 && errno == EINTR)
        continue;
}

/* ---- the threads ---- */

static void put_todo(struct aio *a, struct aio_job *job)
{
    list_put(&a->todo, job);
    a->todo_count++;
    if (job->lane != AIO_NO_LANE)
        a->waiting[job->lane]++;
}

static bool is_barred(const struct aio *a, const struct aio_job *job)
{
    return job->lane != AIO_NO_LANE && a->taken[job->lane];
}

/* The first that may be begun. */
static struct aio_job *take_todo(struct aio *a)
{
    struct aio_job **at = &a->todo.first, *job;

    while (*at != NULL && is_barred(a, *at))
        at = &(*at)->next;
    job = *at;
    if (job == NULL)
        return NULL;
    *at = job->next;
    if (a->todo.end == &job->next)
        a->todo.end = at;
    a->todo_count--;
    if (job->lane != AIO_NO_LANE) {
        a->waiting[job->lane]--;
        a->taken[job->lane] = true;
    }
    return job;
}

/* How many could be begun now if there were threads. */
static unsigned may_begin(const struct aio *a)
{
    unsigned n = a->todo_count;

    for (unsigned lane = AIO_NO_LANE + 1; lane < AIO_LANES; lane++) {
        n -= a->waiting[lane];
        n += a->waiting[lane] > 0 && !a->taken[lane];
    }
    return n;
}

void aio_run(struct aio_job *job)
{
    uint64_t len = 0;
    int rc = 0;

    for (unsigned i = 0; job->op != AIO_CALL && i < job->count; i++)
        len += job->iov[i].iov_len;
    switch (job->op) {
    case AIO_READ:
        if (job->lane == AIO_READS) {
            job->result = hfile_read_now(job->fd, job->offset, job->iov, job->count);
            return;
        }
        rc = hfile_read(job->fd, job->offset, job->iov, job->count);
        break;
    case AIO_WRITE:
        rc = hfile_write(job->fd, job->offset, job->iov, job->count);
        break;
    case AIO_FLUSH:
        rc = hfile_flush(job->fd);
        break;
    case AIO_CALL:
        job->call(job);
        return;
    }
    /* Behind the end of the file: short, as io_uring says it, without the exact count. */
    job->result = rc == -ENXIO ? 0 : rc < 0 ? rc : job->op == AIO_FLUSH ? 0 : (ssize_t)len;
}

static void *thread_main(void *arg)
{
    struct aio *a = arg;

    pthread_mutex_lock(&a->lock);
    for (;;) {
        struct aio_job *job = take_todo(a);
        bool first;

        if (job == NULL && a->stop)
            break;
        if (job == NULL) {
            a->idle++;
            pthread_cond_wait(&a->work, &a->lock);
            a->idle--;
            continue;
        }
        if (may_begin(a) > 0)
            pthread_cond_signal(&a->work);
        pthread_mutex_unlock(&a->lock);
        aio_run(job);
        pthread_mutex_lock(&a->lock);
        a->taken[job->lane] = false; /* this thread takes the next, or wakes who can */
        first = a->done.first == NULL;
        list_put(&a->done, job);
        if (first)
            aio_wake(a); /* with the lock: the owner may destroy all when it has the last job */
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

/* Signals are for the thread that waits for them. */
static int thread_start(struct aio *a)
{
    sigset_t all, old;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    rc = pthread_create(&a->threads[a->thread_count], NULL, thread_main, a);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc == 0)
        a->thread_count++;
    return -rc;
}

static void to_threads(struct aio *a, struct aio_job *job)
{
    bool more;

    pthread_mutex_lock(&a->lock);
    put_todo(a, job);
    more = may_begin(a) > a->idle && a->thread_count < a->thread_max;
    if (!is_barred(a, job))
        pthread_cond_signal(&a->work);
    pthread_mutex_unlock(&a->lock);
    if (more && thread_start(a) < 0 && a->thread_count == 0) {
        /* Not even one: slowly, then, but it is done. */
        pthread_mutex_lock(&a->lock);
        job = take_todo(a);
        pthread_mutex_unlock(&a->lock);
        aio_run(job);
        pthread_mutex_lock(&a->lock);
        a->taken[job->lane] = false;
        list_put(&a->done, job);
        pthread_mutex_unlock(&a->lock);
        aio_wake(a);
    }
}

/* ---- both ---- */

int aio_create(bool uring, unsigned threads, struct aio **out, struct error *err)
{
    struct aio *a = calloc(1, sizeof(*a));
    int rc = 0;

    if (a == NULL)
        return error_set(err, -ENOMEM, "no memory for a disk's threads");
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->work, NULL);
    list_init(&a->todo);
    list_init(&a->done);
    a->read_fd = a->write_fd = -1;
    a->thread_max = threads > 0 ? threads : 1;
    a->threads = calloc(a->thread_max, sizeof(*a->threads));
    if (a->threads == NULL)
        rc = error_set(err, -ENOMEM, "no memory for a disk's threads");
    if (rc == 0) {
        rc = notify_open(a);
        if (rc < 0)
            error_set(err, rc, "cannot make a descriptor for a disk's events: %s", strerror(-rc));
    }
    if (rc == 0 && uring) {
#if defined(HAVE_URING) && HAVE_URING
        rc = aio_ring_create(a->write_fd, &a->ring, err);
#else
        rc = error_set(err, -ENOSYS,
                       "this program was built without io_uring; aio=threads does "
                       "without it");
#endif
    }
    if (rc < 0) {
        aio_destroy(a);
        return rc;
    }
    *out = a;
    return 0;
}

void aio_destroy(struct aio *a)
{
    if (a == NULL)
        return;
    pthread_mutex_lock(&a->lock);
    a->stop = true;
    pthread_cond_broadcast(&a->work);
    pthread_mutex_unlock(&a->lock);
    for (unsigned i = 0; i < a->thread_count; i++)
        pthread_join(a->threads[i], NULL);
#if defined(HAVE_URING) && HAVE_URING
    aio_ring_destroy(a->ring);
#endif
    if (a->read_fd >= 0)
        close(a->read_fd);
    if (a->write_fd >= 0 && a->write_fd != a->read_fd)
        close(a->write_fd);
    pthread_cond_destroy(&a->work);
    pthread_mutex_destroy(&a->lock);
    free(a->threads);
    free(a);
}

bool aio_has_uring(const struct aio *a)
{
    return a->ring != NULL;
}

void aio_kick(struct aio *a)
{
#if defined(HAVE_URING) && HAVE_URING
    struct aio_job *job = a->ring != NULL ? aio_ring_submit(a->ring) : NULL;

    while (job != NULL) {
        struct aio_job *next = job->next;

        to_threads(a, job);
        job = next;
    }
#else
    (void)a;
#endif
}

void aio_submit(struct aio *a, struct aio_job *job)
{
#if defined(HAVE_URING) && HAVE_URING
    if (a->ring != NULL && job->op != AIO_CALL && job->lane == AIO_NO_LANE) {
        if (aio_ring_put(a->ring, job))
            return;
        aio_kick(a);
        if (aio_ring_put(a->ring, job))
            return;
    }
#endif
    to_threads(a, job);
}

struct aio_job *aio_reap(struct aio *a)
{
    struct aio_job *job = NULL;

#if defined(HAVE_URING) && HAVE_URING
    if (a->ring != NULL)
        job = aio_ring_reap(a->ring);
#endif
    if (job == NULL) {
        pthread_mutex_lock(&a->lock);
        job = list_take(&a->done);
        pthread_mutex_unlock(&a->lock);
    }
    return job;
}
