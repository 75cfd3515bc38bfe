#include "vmm/iothread.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "host/loop.h"

enum { MOST = 16 };

struct iothread {
    uint64_t number;
    struct loop *loop;
    pthread_t thread;
};

struct iothreads {
    struct iothread thread[MOST];
    unsigned count;
    unsigned running; /* of them, the first */
};

struct iothreads *iothreads_create(void)
{
    return calloc(1, sizeof(struct iothreads));
}

static void *serve(void *loop)
{
    (void)loop_run(loop);
    return NULL;
}

/* Signals are for the thread that waits for them. */
static int start(struct iothread *t)
{
    sigset_t all, old;
    int rc;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    rc = pthread_create(&t->thread, NULL, serve, t->loop);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -rc;
}

int iothreads_get(struct iothreads *t, uint64_t number, struct loop **out, struct error *err)
{
    struct iothread *new;
    int rc;

    for (unsigned i = 0; i < t->count; i++) {
        if (t->thread[i].number == number) {
            *out = t->thread[i].loop;
            return 0;
        }
    }
    if (t->count == MOST)
        return error_set(err, -EINVAL,
                         "iothread=%llu: a VM has at most %d of these threads; let devices share",
                         (unsigned long long)number, MOST);
    new = &t->thread[t->count];
    new->number = number;
    new->loop = loop_create(err);
    if (new->loop == NULL)
        return err->code;
    t->count++;
    rc = start(new);
    if (rc < 0)
        return error_set(err, rc, "iothread=%llu: its thread cannot be started: %s",
                         (unsigned long long)number, strerror(-rc));
    t->running++;
    *out = new->loop;
    return 0;
}

void iothreads_stop(struct iothreads *t)
{
    for (; t != NULL && t->running > 0; t->running--) {
        struct iothread *last = &t->thread[t->running - 1];

        loop_stop(last->loop);
        pthread_join(last->thread, NULL);
    }
}

void iothreads_destroy(struct iothreads *t)
{
    for (unsigned i = 0; t != NULL && i < t->count; i++)
        loop_destroy(t->thread[i].loop);
    free(t);
}
