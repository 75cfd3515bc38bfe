/*
 * Doorbells: places where a write says only that it happened, as a queue's notification does. An
 * engine that can takes such writes in the host's kernel: the vCPU goes on at once, and `rung` is
 * called on a loop of the owner's choice. Every other write there reaches the region as before
 * (another engine's, a script's), so both ways must mean the same to the owner, and a ring may come
 * late: after the guest has reset or moved what it rang at.
 *
 * create, place, free and poll: any thread, the owner's lock held; create and free also before and
 * after vCPUs run. attach: before vCPUs run, or while they are parked.
 */
#ifndef BUS_DOORBELL_H
#define BUS_DOORBELL_H

#include <pthread.h>

#include "bus/bus.h"

struct loop;
struct bus_doorbell;

/*
 * rung runs on the loop's thread with `lock` held; several writes may be one ring. All are
 * borrowed. NULL: no memory. It is nowhere until it is placed.
 */
struct bus_doorbell *bus_doorbell_create(struct bus *bus, struct loop *loop, pthread_mutex_t *lock,
                                         void (*rung)(void *ctx), void *ctx);
/* rung is not called again. NULL is allowed. */
void bus_doorbell_free(struct bus_doorbell *d);

/* Where it is: a write of `len` bytes at addr, of `value` alone if `match`. */
struct bus_spot {
    enum bus_space space;
    uint64_t addr;
    uint8_t len; /* bytes: 1, 2, 4, 8 */
    bool match;
    uint64_t value;
};

/*
 * Places it, or takes it away (spot NULL). `region` is the ctx of the region that it lies in: while
 * another one has these bytes, because it is in front or this one is not mapped, nothing rings.
 */
void bus_doorbell_place(struct bus_doorbell *d, const struct bus_spot *spot, const void *region);

/* Calls rung here and now if the bell was rung and the loop has not come to it. */
void bus_doorbell_poll(struct bus_doorbell *d);

/*
 * For an engine: `set` says that such a write is to count fd, an eventfd, up by one in place of an
 * access (on), or is one again. -errno: it remains an access, which is logged once. The bells that
 * are placed are set at once; set is called with the bus's lock for bells held and calls nothing of
 * the bus. NULL: the engine is going, and its bells with it.
 */
typedef int bus_doorbell_set(void *ctx, const struct bus_spot *spot, int fd, bool on);
void bus_attach_doorbells(struct bus *bus, bus_doorbell_set *set, void *ctx);

/* How often bells were heard until now; any thread. */
uint64_t bus_doorbell_rings(struct bus *bus);

#endif
