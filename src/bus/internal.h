/* Inside bus/: what the map of the bus and its doorbells know of each other, and the router and its
 * descriptors. */
#ifndef BUS_INTERNAL_H
#define BUS_INTERNAL_H

#include "bus/doorbell.h"
#include "bus/irqfd.h"

struct bus_bells {
    pthread_mutex_t lock; /* before the bus's own for changes; guards all */
    struct bus_doorbell *first;
    bus_doorbell_set *set;
    void *set_ctx;
    bool refused;            /* has been told of */
    _Atomic(uint64_t) rings; /* without the lock */
};

struct bus_bells *bus_bells(struct bus *bus);
struct log *bus_log(const struct bus *bus);

/* Whether these bytes are all one region's, of this ctx. */
bool bus_owned(struct bus *bus, const struct bus_spot *spot, const void *ctx);

/* doorbell.c: the map has changed. The lock for changes is not held. */
void bus_bells_changed(struct bus *bus);

/* irqfd.c: a router's descriptors; NULL: it has none. free: before the loop goes. */
struct irq_fds;
void irq_fds_free(struct irq_fds *s);
struct irq_fd *irq_fds_pin(const struct irq_fds *s, unsigned pin);

struct irq_fds *router_fds(const struct irq_router *r);
void router_set_fds(struct irq_router *r, struct irq_fds *fds);
struct log *router_log(const struct irq_router *r);

#endif
