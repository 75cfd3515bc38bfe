#include "bus/bus.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "bus/internal.h"

/* A piece of address space that one region answers. Pieces do not overlap and are sorted. */
struct piece {
    uint64_t start, end; /* end is exclusive */
    unsigned region;
};

struct map {
    struct map *next_retired;
    uint64_t retired_at; /* readers that entered at or before this epoch may be inside */
    unsigned regions, pieces;
    struct bus_region *region;
    struct piece *piece;
};

struct bus {
    struct log *log;
    _Atomic(struct map *) map[BUS_SPACES];
    _Atomic(uint64_t) epoch;               /* from 1; a change of a map advances it */
    _Atomic(uint64_t) inside[BUS_READERS]; /* epoch at which a reader entered, 0 = outside */
    pthread_mutex_t other;                 /* recursive: shares BUS_READER_OTHER */
    pthread_mutex_t change;                /* one change at a time; guards retired */
    struct map *retired;
    struct bus_bells bells;
};

static void map_free(struct map *m)
{
    if (m == NULL)
        return;
    free(m->region);
    free(m->piece);
    free(m);
}

struct bus *bus_create(struct log *log)
{
    struct bus *bus = calloc(1, sizeof(*bus));
    pthread_mutexattr_t attr;

    if (bus == NULL)
        return NULL;
    bus->log = log;
    bus->epoch = 1;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&bus->other, &attr);
    pthread_mutexattr_destroy(&attr);
    pthread_mutex_init(&bus->change, NULL);
    pthread_mutex_init(&bus->bells.lock, NULL);
    for (unsigned i = 0; i < BUS_SPACES; i++) {
        struct map *empty = calloc(1, sizeof(*empty));

        if (empty == NULL) {
            bus_destroy(bus);
            return NULL;
        }
        bus->map[i] = empty;
    }
    return bus;
}

void bus_destroy(struct bus *bus)
{
    if (bus == NULL)
        return;
    for (unsigned i = 0; i < BUS_SPACES; i++)
        map_free(bus->map[i]);
    while (bus->retired != NULL) {
        struct map *m = bus->retired;

        bus->retired = m->next_retired;
        map_free(m);
    }
    pthread_mutex_destroy(&bus->other);
    pthread_mutex_destroy(&bus->change);
    pthread_mutex_destroy(&bus->bells.lock);
    free(bus);
}

/* Frees retired maps that no reader can still be inside. Under `change`. */
static void bus_reclaim(struct bus *bus)
{
    uint64_t oldest = UINT64_MAX;
    struct map **link = &bus->retired;

    for (unsigned i = 0; i < BUS_READERS; i++) {
        uint64_t e = atomic_load(&bus->inside[i]);

        if (e != 0 && e < oldest)
            oldest = e;
    }
    while (*link != NULL) {
        struct map *m = *link;

        if (m->retired_at < oldest) {
            *link = m->next_retired;
            map_free(m);
        } else {
            link = &m->next_retired;
        }
    }
}

/* The region that answers addr: the highest priority among those that hold it, or -1. */
static int map_owner(const struct map *m, uint64_t addr)
{
    int best = -1;

    for (unsigned i = 0; i < m->regions; i++) {
        const struct bus_region *r = &m->region[i];

        if (addr - r->base < r->len && (best < 0 || r->priority > m->region[best].priority))
            best = (int)i;
    }
    return best;
}

static int cmp_u64(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

/* Cuts the space at every region's edges and names each piece's owner. */
static int map_cut(struct map *m)
{
    unsigned n = 0;
    uint64_t *edge = calloc(2 * (size_t)m->regions + 1, sizeof(*edge));

    m->piece = calloc(2 * (size_t)m->regions + 1, sizeof(*m->piece));
    if (edge == NULL || m->piece == NULL) {
        free(edge);
        return -ENOMEM;
    }
    for (unsigned i = 0; i < m->regions; i++) {
        edge[n++] = m->region[i].base;
        edge[n++] = m->region[i].base + m->region[i].len;
    }
    qsort(edge, n, sizeof(*edge), cmp_u64);
    for (unsigned i = 0; i + 1 < n; i++) {
        int owner = edge[i] == edge[i + 1] ? -1 : map_owner(m, edge[i]);

        if (owner >= 0)
            m->piece[m->pieces++] = (struct piece){edge[i], edge[i + 1], (unsigned)owner};
    }
    free(edge);
    return 0;
}

/* A copy of old without the region `skip` (or -1) and with `add` (or NULL). */
static struct map *map_copy(const struct map *old, int skip, const struct bus_region *add)
{
    struct map *m = calloc(1, sizeof(*m));

    if (m == NULL)
        return NULL;
    m->region = calloc((size_t)old->regions + 1, sizeof(*m->region));
    if (m->region == NULL)
        goto fail;
    for (unsigned i = 0; i < old->regions; i++) {
        if ((int)i != skip)
            m->region[m->regions++] = old->region[i];
    }
    if (add != NULL)
        m->region[m->regions++] = *add;
    if (map_cut(m) == 0)
        return m;
fail:
    map_free(m);
    return NULL;
}

/* Under `change`. */
static void bus_publish(struct bus *bus, enum bus_space space, struct map *m)
{
    struct map *old = atomic_exchange(&bus->map[space], m);

    old->retired_at = atomic_fetch_add(&bus->epoch, 1);
    old->next_retired = bus->retired;
    bus->retired = old;
    bus_reclaim(bus);
}

int bus_map(struct bus *bus, enum bus_space space, const struct bus_region *r, struct error *err)
{
    int rc = 0;
    struct map *m;
    uint64_t top = space == BUS_PIO ? 0x10000 : UINT64_MAX;

    if (r->len == 0 || r->base + r->len < r->base || r->base + r->len > top)
        return error_set(err, -EINVAL, "%s: range %#llx+%#llx is outside the address space",
                         r->name, (unsigned long long)r->base, (unsigned long long)r->len);
    pthread_mutex_lock(&bus->change);
    m = bus->map[space];
    for (unsigned i = 0; i < m->regions; i++) {
        const struct bus_region *o = &m->region[i];

        if (o->priority == r->priority && r->base < o->base + o->len && o->base < r->base + r->len)
            rc = error_set(err, -EEXIST, "%s: range %#llx+%#llx is taken by %s", r->name,
                           (unsigned long long)r->base, (unsigned long long)r->len, o->name);
    }
    if (rc == 0) {
        m = map_copy(m, -1, r);
        if (m == NULL)
            rc = error_set(err, -ENOMEM, "%s: no memory for the bus map", r->name);
        else
            bus_publish(bus, space, m);
    }
    pthread_mutex_unlock(&bus->change);
    if (rc == 0)
        bus_bells_changed(bus);
    return rc;
}

void bus_unmap(struct bus *bus, enum bus_space space, uint64_t base, void *ctx)
{
    struct map *m;

    pthread_mutex_lock(&bus->change);
    m = bus->map[space];
    for (unsigned i = 0; i < m->regions; i++) {
        if (m->region[i].base == base && m->region[i].ctx == ctx) {
            struct map *copy = map_copy(m, (int)i, NULL);

            if (copy != NULL)
                bus_publish(bus, space, copy);
            else
                log_error(bus->log, "no memory to unmap %s; it stays", m->region[i].name);
            break;
        }
    }
    pthread_mutex_unlock(&bus->change);
    bus_bells_changed(bus);
}

bool bus_region_at(struct bus *bus, enum bus_space space, unsigned n, struct bus_region *out)
{
    bool found = false;
    struct map *m;

    pthread_mutex_lock(&bus->change);
    m = bus->map[space];
    for (unsigned i = 0; i < m->regions && !found; i++) {
        unsigned before = 0;

        for (unsigned j = 0; j < m->regions; j++)
            before += m->region[j].base < m->region[i].base ||
                      (m->region[j].base == m->region[i].base && j < i);
        if (before == n) {
            *out = m->region[i];
            found = true;
        }
    }
    pthread_mutex_unlock(&bus->change);
    return found;
}

/* Pairs with bus_publish: the epoch is announced before the map's pointer is read. */
static uint64_t bus_enter(struct bus *bus, unsigned reader)
{
    uint64_t before;

    if (reader == BUS_READER_OTHER)
        pthread_mutex_lock(&bus->other);
    before = atomic_load_explicit(&bus->inside[reader], memory_order_relaxed);
    if (before == 0)
        atomic_store(&bus->inside[reader], atomic_load(&bus->epoch));
    return before;
}

static void bus_leave(struct bus *bus, unsigned reader, uint64_t before)
{
    if (before == 0)
        atomic_store_explicit(&bus->inside[reader], 0, memory_order_release);
    if (reader == BUS_READER_OTHER)
        pthread_mutex_unlock(&bus->other);
}

static const struct bus_region *map_find(const struct map *m, uint64_t addr)
{
    unsigned lo = 0, hi = m->pieces;

    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;

        if (addr < m->piece[mid].start)
            hi = mid;
        else if (addr >= m->piece[mid].end)
            lo = mid + 1;
        else
            return &m->region[m->piece[mid].region];
    }
    return NULL;
}

struct bus_bells *bus_bells(struct bus *bus)
{
    return &bus->bells;
}

struct log *bus_log(const struct bus *bus)
{
    return bus->log;
}

bool bus_owned(struct bus *bus, const struct bus_spot *spot, const void *ctx)
{
    const struct bus_region *r;
    bool owned = true;

    pthread_mutex_lock(&bus->change);
    for (unsigned i = 0; i < spot->len && owned; i++) {
        r = map_find(bus->map[spot->space], spot->addr + i);
        owned = r != NULL && r->ctx == ctx;
    }
    pthread_mutex_unlock(&bus->change);
    return owned;
}

static const char *const space_name[] = {"port", "mmio"};

static bool bus_access(struct bus *bus, const struct map *m, enum bus_space space, uint64_t addr,
                       unsigned size, bool write, uint64_t *value)
{
    const struct bus_region *r = map_find(m, addr);

    if (r != NULL && r->len - (addr - r->base) >= size) {
        uint64_t offset = addr - r->base;

        if (r->lock != NULL)
            pthread_mutex_lock(r->lock);
        if (write && r->ops->write != NULL)
            r->ops->write(r->ctx, offset, size, *value);
        else if (!write)
            *value = (r->ops->read != NULL ? r->ops->read(r->ctx, offset, size) : ~0ull) &
                     bytes_mask(size);
        if (r->lock != NULL)
            pthread_mutex_unlock(r->lock);
        return true;
    }
    if (size > 1) { /* over an edge: each byte goes where it belongs */
        bool any = false;
        uint64_t sum = 0;

        for (unsigned i = 0; i < size; i++) {
            uint64_t byte = write ? (*value >> (8 * i)) & 0xff : 0;

            any |= bus_access(bus, m, space, addr + i, 1, write, &byte);
            sum |= byte << (8 * i);
        }
        if (!write)
            *value = sum;
        return any;
    }
    if (!write)
        *value = 0xff;
    return false;
}

static bool bus_dispatch(struct bus *bus, unsigned reader, enum bus_space space, uint64_t addr,
                         unsigned size, bool write, uint64_t *value)
{
    uint64_t before = bus_enter(bus, reader);
    bool claimed = bus_access(bus, atomic_load(&bus->map[space]), space, addr, size, write, value);

    bus_leave(bus, reader, before);
    log_trace(bus->log, space_name[space], "%s %#llx/%u %s %#llx%s", space_name[space],
              (unsigned long long)addr, size, write ? "<-" : "->", (unsigned long long)*value,
              claimed ? "" : " (unclaimed)");
    return claimed;
}

bool bus_read(struct bus *bus, unsigned reader, enum bus_space space, uint64_t addr, unsigned size,
              uint64_t *value)
{
    return bus_dispatch(bus, reader, space, addr, size, false, value);
}

bool bus_write(struct bus *bus, unsigned reader, enum bus_space space, uint64_t addr, unsigned size,
               uint64_t value)
{
    return bus_dispatch(bus, reader, space, addr, size, true, &value);
}
