#include "host/loop.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/bits.h"
#include "host/clock.h"
#include "host/fd.h"

struct loop_fd {
    struct loop *loop;
    int fd;
    atomic_uint events;
    atomic_bool dead;
    pthread_mutex_t *lock;
    void (*fn)(void *ctx, unsigned events);
    void *ctx;
    struct loop_fd *next; /* under loop->mutex: in `fds`, or in `graves` once dead */
};

struct loop_call {
    void (*fn)(void *ctx);
    void *ctx;
    struct loop_call *next;
};

/*
 * Lock order: an owner's lock, then mutex. The loop's thread takes owners' locks without mutex.
 */
struct loop {
    pthread_mutex_t mutex;   /* guards the lists */
    struct loop_fd *fds;     /* watched */
    struct loop_fd *graves;  /* deleted, perhaps still in `polled`: freed by the loop's thread */
    struct loop_call *calls; /* posted, oldest first */
    struct loop_call **call_end;
    size_t fd_count;

    int wake_read, wake_write; /* a pipe */
    /*
     * True from before the loop looks at calls and timers until it wakes. Who changes something
     * swaps it to false and writes to the pipe only if it was true: a busy loop, or one already
     * being woken, costs one atomic. Each swap reads the other side's (acquire, release), so
     * either the loop sees the change or the changer sees that it sleeps.
     */
    atomic_bool asleep;
    atomic_bool stop;

    uint64_t (*timer_next)(void *ctx);
    void (*timer_run)(void *ctx);
    void *timer_ctx;

    /* The loop's thread only: element 0 is the pipe, the others stand in the same order. */
    struct pollfd *pollfds;
    struct loop_fd **polled;
    size_t poll_cap, poll_count;
};

struct loop *loop_create(struct error *err)
{
    struct loop *loop = calloc(1, sizeof(*loop));
    int pipefd[2];
    int rc;

    if (loop == NULL) {
        error_set(err, -ENOMEM, "no memory for the event loop");
        return NULL;
    }
    rc = fd_pipe(pipefd);
    if (rc < 0) {
        error_set(err, rc, "cannot make a pipe for the event loop: %s", strerror(-rc));
        free(loop);
        return NULL;
    }
    loop->wake_read = pipefd[0];
    loop->wake_write = pipefd[1];
    loop->call_end = &loop->calls;
    pthread_mutex_init(&loop->mutex, NULL);
    return loop;
}

static void free_fds(struct loop_fd *lf)
{
    while (lf != NULL) {
        struct loop_fd *next = lf->next;

        free(lf);
        lf = next;
    }
}

void loop_destroy(struct loop *loop)
{
    if (loop == NULL)
        return;
    free_fds(loop->fds);
    free_fds(loop->graves);
    while (loop->calls != NULL) {
        struct loop_call *call = loop->calls;

        loop->calls = call->next;
        free(call);
    }
    close(loop->wake_read);
    close(loop->wake_write);
    pthread_mutex_destroy(&loop->mutex);
    free(loop->pollfds);
    free(loop->polled);
    free(loop);
}

void loop_wake(struct loop *loop)
{
    if (atomic_exchange(&loop->asleep, false)) {
        ssize_t ignored = write(loop->wake_write, "", 1); /* a full pipe wakes as well */

        (void)ignored;
    }
}

struct loop_fd *loop_add(struct loop *loop, int fd, unsigned events, pthread_mutex_t *lock,
                         void (*fn)(void *ctx, unsigned events), void *ctx, struct error *err)
{
    struct loop_fd *lf = calloc(1, sizeof(*lf));

    if (lf == NULL) {
        error_set(err, -ENOMEM, "no memory to watch a descriptor");
        return NULL;
    }
    lf->loop = loop;
    lf->fd = fd;
    lf->events = events;
    lf->lock = lock;
    lf->fn = fn;
    lf->ctx = ctx;
    pthread_mutex_lock(&loop->mutex);
    lf->next = loop->fds;
    loop->fds = lf;
    loop->fd_count++;
    pthread_mutex_unlock(&loop->mutex);
    loop_wake(loop);
    return lf;
}

void loop_mod(struct loop_fd *lf, unsigned events)
{
    if (atomic_exchange(&lf->events, events) != events)
        loop_wake(lf->loop);
}

/*
 * The loop may be about to take lf->lock: it finds `dead` behind it and goes on. So the struct
 * lives until the loop has passed, and the owner's mutex must live as long as the loop runs.
 */
void loop_del(struct loop_fd *lf)
{
    struct loop *loop;

    if (lf == NULL)
        return;
    loop = lf->loop;
    pthread_mutex_lock(&loop->mutex);
    for (struct loop_fd **p = &loop->fds; *p != NULL; p = &(*p)->next) {
        if (*p == lf) {
            *p = lf->next;
            lf->next = loop->graves;
            loop->graves = lf;
            loop->fd_count--;
            break;
        }
    }
    atomic_store(&lf->dead, true);
    pthread_mutex_unlock(&loop->mutex);
    loop_wake(loop);
}

int loop_post(struct loop *loop, void (*fn)(void *ctx), void *ctx)
{
    struct loop_call *call = calloc(1, sizeof(*call));

    if (call == NULL)
        return -ENOMEM;
    call->fn = fn;
    call->ctx = ctx;
    pthread_mutex_lock(&loop->mutex);
    *loop->call_end = call;
    loop->call_end = &call->next;
    pthread_mutex_unlock(&loop->mutex);
    loop_wake(loop);
    return 0;
}

void loop_set_timers(struct loop *loop, uint64_t (*next)(void *ctx), void (*run)(void *ctx),
                     void *ctx)
{
    loop->timer_next = next;
    loop->timer_run = run;
    loop->timer_ctx = ctx;
}

void loop_stop(struct loop *loop)
{
    atomic_store(&loop->stop, true);
    loop_wake(loop);
}

/* Runs what was posted before now; what these post waits for the next round. */
static void run_calls(struct loop *loop)
{
    struct loop_call *call;

    pthread_mutex_lock(&loop->mutex);
    call = loop->calls;
    loop->calls = NULL;
    loop->call_end = &loop->calls;
    pthread_mutex_unlock(&loop->mutex);
    while (call != NULL) {
        struct loop_call *next = call->next;

        call->fn(call->ctx);
        free(call);
        call = next;
    }
}

static int reserve(struct loop *loop, size_t count)
{
    size_t cap = count + 8;
    void *p;

    if (count <= loop->poll_cap)
        return 0;
    p = realloc(loop->pollfds, cap * sizeof(*loop->pollfds));
    if (p == NULL)
        return -ENOMEM;
    loop->pollfds = p;
    p = realloc(loop->polled, cap * sizeof(struct loop_fd *));
    if (p == NULL)
        return -ENOMEM;
    loop->polled = p;
    loop->poll_cap = cap;
    return 0;
}

/* Frees the dead, lists the living. Nothing watched: fd -1, or a hang-up would spin the loop. */
static int collect(struct loop *loop, bool *work)
{
    int rc;
    size_t n = 0;

    pthread_mutex_lock(&loop->mutex);
    free_fds(loop->graves);
    loop->graves = NULL;
    rc = reserve(loop, loop->fd_count + 1);
    if (rc == 0) {
        loop->polled[n] = NULL;
        loop->pollfds[n++] = (struct pollfd){.fd = loop->wake_read, .events = POLLIN};
        for (struct loop_fd *lf = loop->fds; lf != NULL; lf = lf->next) {
            unsigned events = atomic_load(&lf->events);
            int wanted = (events & LOOP_READ ? POLLIN : 0) | (events & LOOP_WRITE ? POLLOUT : 0);

            loop->polled[n] = lf;
            loop->pollfds[n++] =
                (struct pollfd){.fd = events != 0 ? lf->fd : -1, .events = (short)wanted};
        }
        loop->poll_count = n;
    }
    *work = loop->calls != NULL;
    pthread_mutex_unlock(&loop->mutex);
    return rc;
}

static int poll_until(struct loop *loop, uint64_t deadline)
{
    uint64_t now = deadline == 0 || deadline == UINT64_MAX ? 0 : host_clock_ns();
    uint64_t left = deadline > now ? deadline - now : 0;
    int n;

#ifdef __linux__
    struct timespec ts = {.tv_sec = (time_t)(left / NSEC_PER_SEC),
                          .tv_nsec = (long)(left % NSEC_PER_SEC)};

    n = ppoll(loop->pollfds, loop->poll_count, deadline == UINT64_MAX ? NULL : &ts, NULL);
#else
    /* Rounded up: a timer that is a little late is right, one that is early spins. */
    uint64_t ms = min_u64((left + 999999) / 1000000, 1000000);

    n = poll(loop->pollfds, (nfds_t)loop->poll_count, deadline == UINT64_MAX ? -1 : (int)ms);
#endif
    return n < 0 && errno != EINTR && errno != EAGAIN ? -errno : 0;
}

static void dispatch(struct loop_fd *lf, short revents)
{
    unsigned events = 0;

    if (revents & POLLIN)
        events |= LOOP_READ;
    if (revents & POLLOUT)
        events |= LOOP_WRITE;
    if (revents & (POLLHUP | POLLERR | POLLNVAL))
        events |= LOOP_HANGUP;
    if (lf->lock != NULL && !atomic_load(&lf->dead))
        pthread_mutex_lock(lf->lock);
    else if (lf->lock != NULL)
        return;
    /* An earlier callback of this round may have changed its mind about this one. */
    if (atomic_load(&lf->events) == 0)
        events = 0;
    else
        events &= atomic_load(&lf->events) | LOOP_HANGUP;
    if (events != 0 && !atomic_load(&lf->dead))
        lf->fn(lf->ctx, events);
    if (lf->lock != NULL)
        pthread_mutex_unlock(lf->lock);
}

static void drain_wake(struct loop *loop)
{
    char sink[64];

    while (read(loop->wake_read, sink, sizeof(sink)) == (ssize_t)sizeof(sink))
        continue;
}

int loop_run(struct loop *loop)
{
    int rc = 0;

    while (!atomic_exchange(&loop->stop, false)) {
        uint64_t deadline = UINT64_MAX;
        bool work;

        atomic_exchange(&loop->asleep, true); /* pairs with loop_wake */
        rc = collect(loop, &work);
        if (rc < 0)
            break;
        if (work || atomic_load(&loop->stop))
            deadline = 0;
        else if (loop->timer_next != NULL)
            deadline = loop->timer_next(loop->timer_ctx);
        rc = poll_until(loop, deadline);
        atomic_exchange(&loop->asleep, false);
        if (rc < 0)
            break;
        if (loop->pollfds[0].revents != 0)
            drain_wake(loop);
        if (loop->timer_run != NULL)
            loop->timer_run(loop->timer_ctx);
        run_calls(loop);
        for (size_t i = 1; i < loop->poll_count; i++) {
            if (loop->pollfds[i].revents != 0)
                dispatch(loop->polled[i], loop->pollfds[i].revents);
            loop->pollfds[i].revents = 0;
        }
    }
    return rc;
}
