/* Inside bus/: what the map of the bus and its doorbells know of each other. */
#ifndef BUS_INTERNAL_H
#define BUS_INTERNAL_H

#include "bus/doorbell.h"

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

#endif
