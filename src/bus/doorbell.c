#include "bus/doorbell.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bus/internal.h"
#include "host/fd.h"
#include "host/loop.h"

struct bus_doorbell {
    struct bus *bus;
    struct loop *loop;
    pthread_mutex_t *lock;
    void (*rung)(void *ctx);
    void *ctx;
    /* under the lock for bells */
    struct bus_doorbell *next;
    const void *region; /* NULL: nowhere */
    struct bus_spot spot;
    struct bus_spot set_at; /* as the engine knows it, while `set` */
    bool set;
    int fd; /* -1 until it is needed, and where the host has no such thing */
    struct loop_fd *watch;
};

/* The writes until now are one ring. */
static void hear(struct bus_doorbell *d, int fd)
{
    uint64_t count;

    if (fd < 0 || read(fd, &count, sizeof(count)) != (ssize_t)sizeof(count))
        return;
    atomic_fetch_add_explicit(&bus_bells(d->bus)->rings, 1, memory_order_relaxed);
    d->rung(d->ctx);
}

uint64_t bus_doorbell_rings(struct bus *bus)
{
    return atomic_load(&bus_bells(bus)->rings);
}

static void ready(void *ctx, unsigned events)
{
    struct bus_doorbell *d = ctx;

    (void)events;
    hear(d, d->fd); /* it is watched, so it stays what it is */
}

/* ---- what the engine knows; the lock for bells is held ---- */

static int watch(struct bus_doorbell *d)
{
    struct error err = {0};

    if (d->fd < 0)
        d->fd = fd_event();
    if (d->fd < 0)
        return d->fd;
    if (d->watch == NULL)
        d->watch = loop_add(d->loop, d->fd, LOOP_READ, d->lock, ready, d, &err);
    return d->watch != NULL ? 0 : -ENOMEM;
}

static void unset(struct bus_bells *b, struct bus_doorbell *d)
{
    if (d->set && b->set != NULL)
        (void)b->set(b->set_ctx, &d->set_at, d->fd, false);
    d->set = false;
}

static bool same_spot(const struct bus_spot *a, const struct bus_spot *b)
{
    return a->space == b->space && a->addr == b->addr && a->len == b->len && a->match == b->match &&
           a->value == b->value;
}

static void update(struct bus_bells *b, struct bus_doorbell *d)
{
    bool want = b->set != NULL && d->region != NULL && bus_owned(d->bus, &d->spot, d->region);
    int rc;

    if (d->set && (!want || !same_spot(&d->set_at, &d->spot)))
        unset(b, d);
    if (!want || d->set)
        return;
    rc = watch(d);
    if (rc == 0)
        rc = b->set(b->set_ctx, &d->spot, d->fd, true);
    d->set = rc == 0;
    d->set_at = d->spot;
    if (rc != 0 && !b->refused) {
        b->refused = true;
        log_info(bus_log(d->bus),
                 "doorbell at %#llx: the kernel does not take it (%s); writes there are accesses",
                 (unsigned long long)d->spot.addr, strerror(-rc));
    }
}

void bus_bells_changed(struct bus *bus)
{
    struct bus_bells *b = bus_bells(bus);

    pthread_mutex_lock(&b->lock);
    for (struct bus_doorbell *d = b->first; d != NULL && b->set != NULL; d = d->next)
        update(b, d);
    pthread_mutex_unlock(&b->lock);
}

void bus_attach_doorbells(struct bus *bus, bus_doorbell_set *set, void *ctx)
{
    struct bus_bells *b = bus_bells(bus);

    pthread_mutex_lock(&b->lock);
    for (struct bus_doorbell *d = b->first; d != NULL; d = d->next)
        unset(b, d);
    b->set = set;
    b->set_ctx = ctx;
    for (struct bus_doorbell *d = b->first; d != NULL && set != NULL; d = d->next)
        update(b, d);
    pthread_mutex_unlock(&b->lock);
}

/* ---- for owners ---- */

struct bus_doorbell *bus_doorbell_create(struct bus *bus, struct loop *loop, pthread_mutex_t *lock,
                                         void (*rung)(void *ctx), void *ctx)
{
    struct bus_bells *b = bus_bells(bus);
    struct bus_doorbell *d = calloc(1, sizeof(*d));

    if (d == NULL)
        return NULL;
    d->bus = bus;
    d->loop = loop;
    d->lock = lock;
    d->rung = rung;
    d->ctx = ctx;
    d->fd = -1;
    pthread_mutex_lock(&b->lock);
    d->next = b->first;
    b->first = d;
    pthread_mutex_unlock(&b->lock);
    return d;
}

void bus_doorbell_free(struct bus_doorbell *d)
{
    struct bus_bells *b;

    if (d == NULL)
        return;
    b = bus_bells(d->bus);
    pthread_mutex_lock(&b->lock);
    unset(b, d);
    for (struct bus_doorbell **p = &b->first; *p != NULL; p = &(*p)->next) {
        if (*p == d) {
            *p = d->next;
            break;
        }
    }
    pthread_mutex_unlock(&b->lock);
    loop_del(d->watch);
    if (d->fd >= 0)
        close(d->fd);
    free(d);
}

void bus_doorbell_place(struct bus_doorbell *d, const struct bus_spot *spot, const void *region)
{
    struct bus_bells *b = bus_bells(d->bus);

    pthread_mutex_lock(&b->lock);
    d->region = spot != NULL ? region : NULL;
    if (spot != NULL)
        d->spot = *spot;
    update(b, d);
    pthread_mutex_unlock(&b->lock);
}

void bus_doorbell_poll(struct bus_doorbell *d)
{
    struct bus_bells *b = bus_bells(d->bus);
    int fd;

    pthread_mutex_lock(&b->lock);
    fd = d->fd;
    pthread_mutex_unlock(&b->lock);
    hear(d, fd);
}
