/*
 * The event loop: one thread that runs descriptors' callbacks, posted calls and one deadline.
 * loop_run belongs to one thread; everything else may be called from any thread and wakes it.
 * Callbacks run on the loop's thread, one at a time, with `lock` (if given) held.
 */
#ifndef HOST_LOOP_H
#define HOST_LOOP_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

struct loop;
struct loop_fd;

#define LOOP_READ 1u
#define LOOP_WRITE 2u
#define LOOP_HANGUP 4u /* reported only; also with an error on the descriptor */

struct loop *loop_create(struct error *err);
void loop_destroy(struct loop *loop); /* not while it runs; forgets what was added */

/*
 * Watches fd (borrowed) for events; 0 is allowed and watches nothing yet. fn gets what happened.
 * NULL and err on failure. A regular file is always ready.
 */
struct loop_fd *loop_add(struct loop *loop, int fd, unsigned events, pthread_mutex_t *lock,
                         void (*fn)(void *ctx, unsigned events), void *ctx, struct error *err);
void loop_mod(struct loop_fd *lf, unsigned events);

/*
 * Stops watching and frees. When it returns on the loop's thread or with `lock` held, fn will not
 * be called again. NULL is allowed.
 */
void loop_del(struct loop_fd *lf);

/* Runs fn(ctx) once on the loop's thread, soon, without a lock. -ENOMEM. */
int loop_post(struct loop *loop, void (*fn)(void *ctx), void *ctx);

/*
 * `next` returns the absolute host_clock_ns() of the next timer (UINT64_MAX: none) and `run` runs
 * those that are due. Set once, before loop_run. loop_wake makes the loop ask `next` again.
 */
void loop_set_timers(struct loop *loop, uint64_t (*next)(void *ctx), void (*run)(void *ctx),
                     void *ctx);
void loop_wake(struct loop *loop);

/* Runs until loop_stop. -errno if polling fails. */
int loop_run(struct loop *loop);
void loop_stop(struct loop *loop);

#endif
