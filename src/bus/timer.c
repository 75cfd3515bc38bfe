#include "bus/timer.h"

#include <stdlib.h>

#include "host/clock.h"

/* Timers are few (some dozen): an unsorted list, searched for the nearest, is quick enough. */
struct timer {
    struct timer *next, *prev;
    struct timerq *q;
    pthread_mutex_t *lock;
    void (*fn)(void *ctx);
    void *ctx;
    uint64_t when; /* VM time; UINT64_MAX = not armed. Under q->lock */
};

struct timerq {
    pthread_mutex_t lock; /* innermost: nothing is called with it held */
    struct timer *head;
    bool stepped, paused;
    uint64_t now;     /* VM time, while stepped or paused */
    uint64_t epoch;   /* host time at which VM time was zero, while running */
    uint64_t nearest; /* as last told by timerq_next_host */
    void (*wake)(void *ctx);
    void *ctx;
};

struct timerq *timerq_create(bool stepped, void (*wake)(void *ctx), void *ctx)
{
    struct timerq *q = calloc(1, sizeof(*q));

    if (q == NULL)
        return NULL;
    pthread_mutex_init(&q->lock, NULL);
    q->stepped = stepped;
    q->epoch = host_clock_ns();
    q->nearest = UINT64_MAX;
    q->wake = wake;
    q->ctx = ctx;
    return q;
}

void timerq_destroy(struct timerq *q)
{
    if (q == NULL)
        return;
    pthread_mutex_destroy(&q->lock);
    free(q);
}

uint64_t timerq_now(struct timerq *q)
{
    uint64_t now;

    pthread_mutex_lock(&q->lock);
    now = q->stepped || q->paused ? q->now : host_clock_ns() - q->epoch;
    pthread_mutex_unlock(&q->lock);
    return now;
}

static struct timer *timerq_first(struct timerq *q)
{
    struct timer *first = NULL;

    for (struct timer *t = q->head; t != NULL; t = t->next) {
        if (t->when != UINT64_MAX && (first == NULL || t->when < first->when))
            first = t;
    }
    return first;
}

uint64_t timerq_next_host(struct timerq *q)
{
    uint64_t host = UINT64_MAX;
    struct timer *first;

    pthread_mutex_lock(&q->lock);
    first = timerq_first(q);
    q->nearest = first != NULL ? first->when : UINT64_MAX;
    if (first != NULL && !q->stepped && !q->paused &&
        __builtin_add_overflow(first->when, q->epoch, &host))
        host = UINT64_MAX;
    pthread_mutex_unlock(&q->lock);
    return host;
}

/* Runs the first timer due at `until`, if any. */
static bool timerq_run_one(struct timerq *q, uint64_t until)
{
    pthread_mutex_t *lock;
    struct timer *t;
    uint64_t when;

    pthread_mutex_lock(&q->lock);
    t = timerq_first(q);
    if (t == NULL || t->when > until) {
        pthread_mutex_unlock(&q->lock);
        return false;
    }
    when = t->when;
    if (q->stepped && when > q->now)
        q->now = when;
    lock = t->lock;
    if (lock == NULL) {
        void (*fn)(void *) = t->fn;
        void *ctx = t->ctx;

        t->when = UINT64_MAX;
        pthread_mutex_unlock(&q->lock);
        fn(ctx);
        return true;
    }
    pthread_mutex_unlock(&q->lock);
    /*
     * The owner's lock comes first in the lock order. Meanwhile the timer may have been moved or
     * freed: it counts only if it is still listed and still due then.
     */
    pthread_mutex_lock(lock);
    pthread_mutex_lock(&q->lock);
    for (struct timer *s = q->head; s != NULL; s = s->next) {
        if (s == t && s->lock == lock && s->when == when) {
            void (*fn)(void *) = t->fn;
            void *ctx = t->ctx;

            t->when = UINT64_MAX;
            pthread_mutex_unlock(&q->lock);
            fn(ctx);
            pthread_mutex_unlock(lock);
            return true;
        }
    }
    pthread_mutex_unlock(&q->lock);
    pthread_mutex_unlock(lock);
    return true;
}

void timerq_run(struct timerq *q)
{
    uint64_t until = timerq_now(q);

    if (q->paused)
        return;
    while (timerq_run_one(q, until))
        ;
}

void timerq_step(struct timerq *q, uint64_t ns)
{
    uint64_t until = timerq_now(q) + ns;

    while (timerq_run_one(q, until))
        ;
    pthread_mutex_lock(&q->lock);
    q->now = until;
    pthread_mutex_unlock(&q->lock);
}

void timerq_pause(struct timerq *q, bool paused)
{
    pthread_mutex_lock(&q->lock);
    if (!q->stepped && paused != q->paused) {
        if (paused)
            q->now = host_clock_ns() - q->epoch;
        else
            q->epoch = host_clock_ns() - q->now;
        q->paused = paused;
    }
    pthread_mutex_unlock(&q->lock);
    if (!paused && q->wake != NULL)
        q->wake(q->ctx);
}

void timerq_set_now(struct timerq *q, uint64_t now)
{
    pthread_mutex_lock(&q->lock);
    q->now = now;
    pthread_mutex_unlock(&q->lock);
}

struct timer *timer_create_on(struct timerq *q, pthread_mutex_t *lock, void (*fn)(void *ctx),
                              void *ctx)
{
    struct timer *t = calloc(1, sizeof(*t));

    if (t == NULL)
        return NULL;
    t->q = q;
    t->lock = lock;
    t->fn = fn;
    t->ctx = ctx;
    t->when = UINT64_MAX;
    pthread_mutex_lock(&q->lock);
    t->next = q->head;
    if (t->next != NULL)
        t->next->prev = t;
    q->head = t;
    pthread_mutex_unlock(&q->lock);
    return t;
}

void timer_free(struct timer *t)
{
    if (t == NULL)
        return;
    pthread_mutex_lock(&t->q->lock);
    if (t->next != NULL)
        t->next->prev = t->prev;
    if (t->prev != NULL)
        t->prev->next = t->next;
    else
        t->q->head = t->next;
    pthread_mutex_unlock(&t->q->lock);
    free(t);
}

void timer_set(struct timer *t, uint64_t when)
{
    struct timerq *q = t->q;
    bool nearer;

    pthread_mutex_lock(&q->lock);
    t->when = when;
    nearer = when < q->nearest;
    if (nearer)
        q->nearest = when;
    pthread_mutex_unlock(&q->lock);
    if (nearer && q->wake != NULL)
        q->wake(q->ctx);
}

void timer_cancel(struct timer *t)
{
    pthread_mutex_lock(&t->q->lock);
    t->when = UINT64_MAX;
    pthread_mutex_unlock(&t->q->lock);
}

uint64_t timer_when(const struct timer *t)
{
    uint64_t when;

    pthread_mutex_lock(&t->q->lock);
    when = t->when;
    pthread_mutex_unlock(&t->q->lock);
    return when;
}
