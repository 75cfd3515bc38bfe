/*
 * The VM's clock and its one timer queue. The clock is nanoseconds since the VM was created; it
 * stands still while the VM is paused. Callbacks run on the event loop's thread with the owner's
 * lock held; in tests the clock is stepped and they run inline.
 */
#ifndef BUS_TIMER_H
#define BUS_TIMER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct timerq;
struct timer;

/* stepped: the clock moves only by timerq_step. wake(ctx) is called when the next deadline moved
 * nearer; may be NULL. */
struct timerq *timerq_create(bool stepped, void (*wake)(void *ctx), void *ctx);
void timerq_destroy(struct timerq *q); /* timers must be freed before */

uint64_t timerq_now(struct timerq *q);

/* Absolute host_clock_ns() of the next deadline, UINT64_MAX if none (or stepped or paused). */
uint64_t timerq_next_host(struct timerq *q);
void timerq_run(struct timerq *q); /* runs what is due; the loop's thread */

/* Stepped clock only: to now + ns, running each timer at its own deadline on the way. */
void timerq_step(struct timerq *q, uint64_t ns);

void timerq_pause(struct timerq *q, bool paused);
/* After loading a snapshot: the clock goes on from there. Only while paused or stepped. */
void timerq_set_now(struct timerq *q, uint64_t now);

/* fn(ctx) runs with *lock held (may be NULL). NULL if no memory. */
struct timer *timer_create_on(struct timerq *q, pthread_mutex_t *lock, void (*fn)(void *ctx),
                              void *ctx);
void timer_free(struct timer *t); /* lock held or loop stopped; NULL is allowed */

/* One shot at absolute VM time; replaces an earlier setting. Any thread; lock held. */
void timer_set(struct timer *t, uint64_t when);
void timer_cancel(struct timer *t);
/* The deadline, or UINT64_MAX if not armed. */
uint64_t timer_when(const struct timer *t);

#endif
