#include "bus/irqfd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bus/internal.h"
#include "host/fd.h"
#include "host/loop.h"

struct irq_fd {
    struct irq_fds *all;
    unsigned slot;
    int fd;
    struct loop_fd *watch;
    /* under the lock for these */
    struct irq_fd *next;
    struct irq_message msg;
    bool on;      /* it has a message */
    bool watched; /* the loop reads it */
    /* changed under the lock: the engine reads it */
    atomic_bool taken;
};

struct irq_fds {
    struct irq_router *router;
    struct loop *loop;
    pthread_mutex_t lock; /* after a device's and a chip's, before what irq_deliver takes */
    struct irq_fd *first; /* ascending by slot */
    irq_fd_set *set;
    void *set_ctx;
    bool refused;           /* has been told of */
    _Atomic(uint64_t) sent; /* without the lock */
    struct irq_fd *pin[IRQ_GSI_COUNT];
};

/* ---- who reads it; the lock is held ---- */

/* On the loop's thread, with the lock. The engine, or a mask, may have come first. */
static void ready(void *ctx, unsigned events)
{
    struct irq_fd *f = ctx;
    uint64_t count;

    (void)events;
    if (f->on && !atomic_load(&f->taken) &&
        read(f->fd, &count, sizeof(count)) == (ssize_t)sizeof(count))
        irq_deliver(f->all->router, &f->msg);
}

static void watch(struct irq_fd *f, bool on)
{
    if (f->watched != on)
        loop_mod(f->watch, on ? LOOP_READ : 0);
    f->watched = on;
}

/* The others are the VM's business (INIT, SMI), or need the PIC (ExtINT). */
static bool plain(const struct irq_message *m)
{
    return m->assert &&
           (m->delivery == IRQ_FIXED || m->delivery == IRQ_LOWEST || m->delivery == IRQ_NMI);
}

static void untake(struct irq_fds *s, struct irq_fd *f)
{
    if (atomic_load(&f->taken))
        (void)s->set(s->set_ctx, f->slot, f->fd, NULL);
    atomic_store(&f->taken, false);
}

static void take(struct irq_fds *s, struct irq_fd *f)
{
    int rc;

    watch(f, false);
    rc = s->set(s->set_ctx, f->slot, f->fd, &f->msg);
    if (rc < 0)
        untake(s, f);
    else
        atomic_store(&f->taken, true);
    if (rc < 0 && !s->refused) {
        s->refused = true;
        log_info(router_log(s->router),
                 "interrupt message %u: the kernel takes no descriptor for it (%s); it is sent "
                 "from here",
                 f->slot, strerror(-rc));
    }
}

static void update(struct irq_fds *s, struct irq_fd *f)
{
    if (s->set != NULL && f->on && plain(&f->msg))
        take(s, f);
    else
        untake(s, f);
    watch(f, f->on && !atomic_load(&f->taken));
}

/* ---- for an engine ---- */

void irq_attach_fds(struct irq_router *r, irq_fd_set *set, void *ctx)
{
    struct irq_fds *s = router_fds(r);

    if (s == NULL)
        return;
    pthread_mutex_lock(&s->lock);
    for (struct irq_fd *f = s->first; f != NULL; f = f->next)
        untake(s, f);
    s->set = set;
    s->set_ctx = ctx;
    for (struct irq_fd *f = s->first; f != NULL; f = f->next)
        update(s, f);
    pthread_mutex_unlock(&s->lock);
}

uint64_t irq_fds_sent(const struct irq_router *r)
{
    const struct irq_fds *s = router_fds(r);

    return s != NULL ? atomic_load(&s->sent) : 0;
}

/* ---- for owners ---- */

/* Into the list, at the lowest slot from `slot` on that nobody has. */
static void insert(struct irq_fds *s, struct irq_fd *f, unsigned slot)
{
    struct irq_fd **p = &s->first;

    for (; *p != NULL && (*p)->slot <= slot; p = &(*p)->next) {
        if ((*p)->slot == slot)
            slot++;
    }
    f->slot = slot;
    f->next = *p;
    *p = f;
}

static struct irq_fd *create(struct irq_fds *s, unsigned slot)
{
    struct irq_fd *f = calloc(1, sizeof(*f));
    struct error err = {0};

    if (f == NULL)
        return NULL;
    f->all = s;
    f->fd = fd_event();
    if (f->fd >= 0)
        f->watch = loop_add(s->loop, f->fd, 0, &s->lock, ready, f, &err);
    if (f->watch == NULL) {
        if (f->fd >= 0)
            close(f->fd);
        free(f);
        return NULL;
    }
    pthread_mutex_lock(&s->lock);
    insert(s, f, slot);
    pthread_mutex_unlock(&s->lock);
    return f;
}

struct irq_fd *irq_fd_create(struct irq_router *r)
{
    struct irq_fds *s = router_fds(r);

    return s != NULL ? create(s, IRQ_GSI_COUNT) : NULL;
}

void irq_fd_free(struct irq_fd *f)
{
    struct irq_fds *s;
    struct irq_fd **p;

    if (f == NULL)
        return;
    s = f->all;
    pthread_mutex_lock(&s->lock);
    untake(s, f);
    for (p = &s->first; *p != f; p = &(*p)->next)
        ;
    *p = f->next;
    loop_del(f->watch);
    pthread_mutex_unlock(&s->lock);
    close(f->fd);
    free(f);
}

static bool same(const struct irq_message *a, const struct irq_message *b)
{
    return a->dest == b->dest && a->logical == b->logical && a->level == b->level &&
           a->assert == b->assert && a->delivery == b->delivery && a->vector == b->vector;
}

void irq_fd_message(struct irq_fd *f, const struct irq_message *msg)
{
    struct irq_fds *s = f->all;

    pthread_mutex_lock(&s->lock);
    if (f->on != (msg != NULL) || (f->on && !same(&f->msg, msg))) {
        f->on = msg != NULL;
        if (msg != NULL)
            f->msg = *msg;
        update(s, f);
    }
    pthread_mutex_unlock(&s->lock);
}

/*
 * If the engine gives the descriptor back between the look and the write, then the loop reads it;
 * if it takes it in between, the message finds its way to the kernel's APICs all the same.
 */
void irq_fd_send(struct irq_fd *f, const struct irq_message *msg)
{
    static const uint64_t one = 1;

    if (!atomic_load(&f->taken) || write(f->fd, &one, sizeof(one)) != (ssize_t)sizeof(one)) {
        irq_deliver(f->all->router, msg);
        return;
    }
    atomic_fetch_add_explicit(&f->all->sent, 1, memory_order_relaxed);
}

int irq_fd_descriptor(const struct irq_fd *f)
{
    return f->fd;
}

/* ---- for the router ---- */

int irq_fds_allow(struct irq_router *r, struct loop *loop, struct error *err)
{
    struct irq_fds *s = calloc(1, sizeof(*s));

    if (s == NULL)
        return error_set(err, -ENOMEM, "no memory for interrupts by descriptor");
    s->router = r;
    s->loop = loop;
    pthread_mutex_init(&s->lock, NULL);
    for (unsigned pin = 0; pin < IRQ_GSI_COUNT; pin++) {
        s->pin[pin] = create(s, pin);
        if (s->pin[pin] == NULL) {
            irq_fds_free(s);
            return error_set(err, -ENOSYS,
                             "interrupts by descriptor need eventfds, which this host does not "
                             "give; try it without kvm.irqfd, or with a higher ulimit -n");
        }
    }
    router_set_fds(r, s);
    return 0;
}

bool irq_fds_allowed(const struct irq_router *r)
{
    return router_fds(r) != NULL;
}

void irq_fds_free(struct irq_fds *s)
{
    if (s == NULL)
        return;
    for (unsigned pin = 0; pin < IRQ_GSI_COUNT; pin++)
        irq_fd_free(s->pin[pin]);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

struct irq_fd *irq_fds_pin(const struct irq_fds *s, unsigned pin)
{
    return s != NULL && pin < IRQ_GSI_COUNT ? s->pin[pin] : NULL;
}
