/* A loop with a thread of its own, for tests. */
#ifndef TESTS_LOOP_FIXTURE_H
#define TESTS_LOOP_FIXTURE_H

#include <pthread.h>

#include "host/loop.h"

struct loop_thread {
    struct loop *loop;
    pthread_t id;
};

static inline void *loop_thread_main(void *loop)
{
    (void)loop_run(loop);
    return NULL;
}

/* It runs from now on; 0 or not. */
static inline int loop_thread_start(struct loop_thread *t)
{
    struct error err = {0};

    t->loop = loop_create(&err);
    return t->loop == NULL ? -1 : pthread_create(&t->id, NULL, loop_thread_main, t->loop);
}

static inline void loop_thread_stop(struct loop_thread *t)
{
    loop_stop(t->loop);
    pthread_join(t->id, NULL);
    loop_destroy(t->loop);
}

#endif
