/*
 * Port and memory-mapped I/O dispatch. The map is an immutable table behind an atomic pointer; a
 * change publishes a new one and frees the old when no reader is inside it. Lookup takes no lock.
 *
 * bus_read/bus_write: any vCPU's thread, with its own reader number. The region's lock (if it has
 * one) is held around its callbacks. bus_map/bus_unmap: any thread, also from inside a callback.
 */
#ifndef BUS_BUS_H
#define BUS_BUS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/log.h"

enum bus_space { BUS_PIO, BUS_MMIO, BUS_SPACES };

#define BUS_READERS 257u /* one for each vCPU, and one more: BUS_READER_OTHER */
#define BUS_READER_OTHER 256u

/*
 * offset is from the region's base; size is 1, 2, 4 or 8 (ports: up to 4); offset + size never
 * passes the region's end (an access that would is split by the bus into bytes).
 */
struct bus_ops {
    uint64_t (*read)(void *ctx, uint64_t offset, unsigned size);
    void (*write)(void *ctx, uint64_t offset, unsigned size, uint64_t value);
};

struct bus_region {
    uint64_t base, len;
    const struct bus_ops *ops; /* borrowed; read or write may be NULL: all ones, dropped */
    void *ctx;
    pthread_mutex_t *lock; /* may be NULL: the callbacks are thread-safe */
    const char *name;      /* for traces and conflicts; borrowed */
    int priority;          /* where two overlap the higher wins; same priority: -EEXIST */
};

struct bus;

struct bus *bus_create(struct log *log);
void bus_destroy(struct bus *bus);

int bus_map(struct bus *bus, enum bus_space space, const struct bus_region *r, struct error *err);

/*
 * Removes the region with this base and ctx. A call that had begun on another thread may still run,
 * so ctx is freed only while vCPUs are parked.
 */
void bus_unmap(struct bus *bus, enum bus_space space, uint64_t base, void *ctx);

/*
 * Returns false if nothing claims the address: *value is then all ones (size bytes), a write is
 * dropped, both are traced. An access that crosses a region's edge is done bytewise.
 */
bool bus_read(struct bus *bus, unsigned reader, enum bus_space space, uint64_t addr, unsigned size,
              uint64_t *value);
bool bus_write(struct bus *bus, unsigned reader, enum bus_space space, uint64_t addr, unsigned size,
               uint64_t value);

/* The n-th region in ascending order of base, for tables and tests; false past the last. */
bool bus_region_at(struct bus *bus, enum bus_space space, unsigned n, struct bus_region *out);

#endif
