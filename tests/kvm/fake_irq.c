/*
 * Interrupts: routes, irqfds, ioeventfds, the loop thread that serves timers and irqfds, and the
 * way to the vCPUs.
 */
#include "fake_impl.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "host/clock.h"
#include "host/fd.h"

/* ---- routes ---- */

static void send_route(struct fake_vm *vm, const struct kvm_irq_routing_entry *e)
{
    msi_send(vm->router, (uint64_t)e->u.msi.address_hi << 32 | e->u.msi.address_lo, e->u.msi.data);
}

/* Messages leave at the rise of a line; vm->lock is not held while they are sent. */
static int raise_gsi(struct fake_vm *vm, uint32_t gsi)
{
    struct kvm_irq_routing_entry hit[4];
    unsigned n = 0;

    pthread_mutex_lock(&vm->lock);
    for (unsigned i = 0; i < vm->routes && n < countof(hit); i++) {
        if (vm->route[i].gsi == gsi && vm->route[i].type == KVM_IRQ_ROUTING_MSI)
            hit[n++] = vm->route[i];
    }
    pthread_mutex_unlock(&vm->lock);
    for (unsigned i = 0; i < n; i++)
        send_route(vm, &hit[i]);
    return (int)n;
}

int fake_set_routing(struct fake_vm *vm, const struct kvm_irq_routing *r)
{
    if (!vm->split || r->flags != 0)
        return -EINVAL;
    if (r->nr > FAKE_ROUTES)
        return -EINVAL;
    for (unsigned i = 0; i < r->nr; i++) {
        if (r->entries[i].type != KVM_IRQ_ROUTING_MSI || r->entries[i].gsi >= 4096)
            return -EINVAL; /* there is no chip that a route could lead to */
    }
    pthread_mutex_lock(&vm->lock);
    memcpy(vm->route, r->entries, r->nr * sizeof(r->entries[0]));
    vm->routes = r->nr;
    pthread_mutex_unlock(&vm->lock);
    return 0;
}

int fake_signal_msi(struct fake_vm *vm, const struct kvm_msi *msi)
{
    unsigned before = vm->accepted;

    if (!vm->split || msi->flags != 0)
        return -EINVAL;
    msi_send(vm->router, (uint64_t)msi->address_hi << 32 | msi->address_lo, msi->data);
    return vm->accepted != before; /* 0: the guest does not want it */
}

int fake_irq_line(struct fake_vm *vm, uint32_t gsi, bool level)
{
    if (!vm->split)
        return -ENXIO;
    if (level)
        raise_gsi(vm, gsi);
    return 0;
}

/* ---- eventfds ---- */

static bool same_event(const struct kvm_ioeventfd *a, const struct kvm_ioeventfd *b)
{
    uint32_t kind = KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DATAMATCH;

    return a->addr == b->addr && a->len == b->len && (a->flags & kind) == (b->flags & kind) &&
           (!(a->flags & KVM_IOEVENTFD_FLAG_DATAMATCH) || a->datamatch == b->datamatch);
}

int fake_ioeventfd(struct fake_vm *vm, const struct kvm_ioeventfd *e)
{
    bool off = (e->flags & KVM_IOEVENTFD_FLAG_DEASSIGN) != 0;
    struct fake_ioevent *room = NULL, *found = NULL;
    int rc = 0;

    if (e->len != 0 && e->len != 1 && e->len != 2 && e->len != 4 && e->len != 8)
        return -EINVAL;
    if (e->addr + e->len < e->addr ||
        (e->flags & ~(uint32_t)(KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DATAMATCH |
                                KVM_IOEVENTFD_FLAG_DEASSIGN)) != 0)
        return -EINVAL;
    if (e->len == 0 && (e->flags & KVM_IOEVENTFD_FLAG_DATAMATCH))
        return -EINVAL;
    pthread_mutex_lock(&vm->lock);
    for (unsigned i = 0; i < FAKE_IOEVENTS; i++) {
        struct fake_ioevent *x = &vm->ioevent[i];

        if (!x->used)
            room = x;
        else if (same_event(&x->e, e) && (!off || x->e.fd == e->fd))
            found = x;
    }
    if (off && found == NULL)
        rc = -ENOENT;
    else if (off)
        found->used = false;
    else if (found != NULL)
        rc = -EEXIST;
    else if (room == NULL)
        rc = -ENOSPC;
    else
        *room = (struct fake_ioevent){.e = *e, .used = true};
    pthread_mutex_unlock(&vm->lock);
    return rc;
}

bool fake_ioevent_hit(struct fake_vm *vm, bool pio, uint64_t addr, unsigned size, uint64_t value)
{
    static const uint64_t one = 1;
    bool hit = false;

    pthread_mutex_lock(&vm->lock);
    for (unsigned i = 0; i < FAKE_IOEVENTS && !hit; i++) {
        const struct kvm_ioeventfd *e = &vm->ioevent[i].e;

        if (!vm->ioevent[i].used || e->addr != addr || (e->len != 0 && e->len != size) ||
            ((e->flags & KVM_IOEVENTFD_FLAG_PIO) != 0) != pio)
            continue;
        if ((e->flags & KVM_IOEVENTFD_FLAG_DATAMATCH) &&
            ((e->datamatch ^ value) & bytes_mask(size)) != 0)
            continue;
        hit = write(e->fd, &one, sizeof(one)) == (ssize_t)sizeof(one);
    }
    pthread_mutex_unlock(&vm->lock);
    return hit;
}

static void wake_loop(void *ctx)
{
    struct fake_vm *vm = ctx;

    if (write(vm->wake[1], "", 1) < 0)
        return; /* it is full: the loop will look anyway */
}

int fake_irqfd(struct fake_vm *vm, const struct kvm_irqfd *e)
{
    bool off = (e->flags & KVM_IRQFD_FLAG_DEASSIGN) != 0;
    struct fake_irqfd *room = NULL, *found = NULL, *same = NULL;
    int rc = 0;

    if (!vm->split || (e->flags & ~(uint32_t)KVM_IRQFD_FLAG_DEASSIGN) != 0)
        return -EINVAL; /* no resampling: nothing here acknowledges */
    pthread_mutex_lock(&vm->irqfd_lock);
    pthread_mutex_lock(&vm->lock);
    for (unsigned i = 0; i < FAKE_IRQFDS; i++) {
        struct fake_irqfd *x = &vm->irqfd[i];

        if (!x->used)
            room = x;
        else if (x->fd == (int)e->fd)
            *(x->gsi == e->gsi ? &found : &same) = x;
    }
    if (off && found != NULL)
        found->used = false;
    else if (!off && (found != NULL || same != NULL))
        rc = -EBUSY;
    else if (!off && room == NULL)
        rc = -ENOSPC;
    else if (!off)
        *room = (struct fake_irqfd){.fd = (int)e->fd, .gsi = e->gsi, .used = true};
    pthread_mutex_unlock(&vm->lock);
    pthread_mutex_unlock(&vm->irqfd_lock);
    wake_loop(vm);
    return rc;
}

/* ---- the loop ---- */

static unsigned loop_list(struct fake_vm *vm, struct pollfd *list, uint32_t *gsi)
{
    unsigned n = 0;

    list[n++] = (struct pollfd){.fd = vm->wake[0], .events = POLLIN};
    pthread_mutex_lock(&vm->lock);
    for (unsigned i = 0; i < FAKE_IRQFDS; i++) {
        if (!vm->irqfd[i].used)
            continue;
        gsi[n] = vm->irqfd[i].gsi;
        list[n++] = (struct pollfd){.fd = vm->irqfd[i].fd, .events = POLLIN};
    }
    pthread_mutex_unlock(&vm->lock);
    return n;
}

/* What was counted up is sent, and nothing more once it has been taken away. */
static void hear_irqfd(struct fake_vm *vm, int fd, uint32_t gsi)
{
    uint64_t count;
    bool used = false;

    pthread_mutex_lock(&vm->irqfd_lock);
    pthread_mutex_lock(&vm->lock);
    for (unsigned i = 0; i < FAKE_IRQFDS; i++) {
        const struct fake_irqfd *x = &vm->irqfd[i];

        used = used || (x->used && x->fd == fd && x->gsi == gsi);
    }
    pthread_mutex_unlock(&vm->lock);
    if (used && read(fd, &count, sizeof(count)) > 0)
        raise_gsi(vm, gsi);
    pthread_mutex_unlock(&vm->irqfd_lock);
}

static void *loop_main(void *p)
{
    struct fake_vm *vm = p;
    struct pollfd list[FAKE_IRQFDS + 1];
    uint32_t gsi[FAKE_IRQFDS + 1];

    while (!vm->loop_ends) {
        uint64_t now = host_clock_ns(), next = timerq_next_host(vm->timers);
        unsigned n = loop_list(vm, list, gsi);
        uint64_t wait = next <= now ? 0 : (next - now + 999999) / 1000000;
        char drop[64];

        if (poll(list, n, next == UINT64_MAX ? -1 : (int)min_u64(wait, 1000)) < 0)
            continue;
        if ((list[0].revents & POLLIN) && read(vm->wake[0], drop, sizeof(drop)) < 0)
            continue;
        for (unsigned i = 1; i < n; i++) {
            if (list[i].revents & POLLIN)
                hear_irqfd(vm, list[i].fd, gsi[i]);
        }
        timerq_run(vm->timers);
    }
    return NULL;
}

int fake_irq_start(struct fake_vm *vm)
{
    vm->wake[0] = vm->wake[1] = -1;
    pthread_mutex_init(&vm->eoi_lock, NULL);
    pthread_mutex_init(&vm->irqfd_lock, NULL);
    dev_env_init(&vm->env, "kvm lapics");
    vm->router = irq_router_create(vm->fake->log);
    vm->timers = timerq_create(false, wake_loop, vm);
    if (vm->router == NULL || vm->timers == NULL || fd_pipe(vm->wake) < 0)
        return -ENOMEM;
    vm->env.irqs = vm->router;
    vm->env.timers = vm->timers;
    vm->env.log = vm->fake->log;
    return 0;
}

void fake_irq_stop(struct fake_vm *vm)
{
    if (vm->loop_runs) {
        vm->loop_ends = true;
        wake_loop(vm);
        pthread_join(vm->loop, NULL);
        vm->loop_runs = false;
    }
    if (vm->wake[0] >= 0) {
        close(vm->wake[0]);
        close(vm->wake[1]);
        vm->wake[0] = vm->wake[1] = -1;
    }
    dev_env_fini(&vm->env);
    pthread_mutex_destroy(&vm->eoi_lock);
    pthread_mutex_destroy(&vm->irqfd_lock);
}

/* ---- the vCPUs' local APICs ---- */

static void signal_interrupt(void *ctx, unsigned cpu)
{
    struct fake_vcpu *v = fake_vcpu_of(ctx, cpu);
    struct fake_vm *vm = ctx;

    vm->accepted++;
    if (v != NULL && fake_vcpu_self(ctx) != v)
        fake_vcpu_wake(v);
}

static void signal_nmi(void *ctx, unsigned cpu)
{
    struct fake_vcpu *v = fake_vcpu_of(ctx, cpu);
    struct fake_vm *vm = ctx;

    vm->accepted++;
    if (v == NULL)
        return;
    v->nmi_message = true;
    fake_vcpu_wake(v);
}

static void signal_smi(void *ctx, unsigned cpu)
{
    struct fake_vm *vm = ctx;

    log_warn(vm->fake->log, "kvm fake: SMI to vCPU %u dropped", cpu);
}

static void signal_init(void *ctx, unsigned cpu)
{
    struct fake_vcpu *v = fake_vcpu_of(ctx, cpu);
    struct fake_vm *vm = ctx;

    vm->accepted++;
    if (v == NULL)
        return;
    pthread_mutex_lock(&v->lock);
    v->init = true;
    v->sipi = -1;
    pthread_mutex_unlock(&v->lock);
    fake_vcpu_wake(v);
}

static void signal_sipi(void *ctx, unsigned cpu, uint8_t vector)
{
    struct fake_vcpu *v = fake_vcpu_of(ctx, cpu);

    if (v == NULL)
        return;
    pthread_mutex_lock(&v->lock);
    v->sipi = vector;
    pthread_mutex_unlock(&v->lock);
    fake_vcpu_wake(v);
}

static uint64_t signal_tsc_now(void *ctx, unsigned cpu)
{
    struct fake_vcpu *v = fake_vcpu_of(ctx, cpu);

    return host_tsc() + (v != NULL ? v->st.tsc_offset : 0);
}

static uint64_t signal_tsc_hz(void *ctx, unsigned cpu)
{
    struct fake_vm *vm = ctx;

    (void)cpu;
    return 1000ull * vm->fake->tsc_khz;
}

static const struct vcpu_signal_ops signals = {
    .interrupt = signal_interrupt,
    .nmi = signal_nmi,
    .smi = signal_smi,
    .init = signal_init,
    .sipi = signal_sipi,
    .tsc_now = signal_tsc_now,
    .tsc_hz = signal_tsc_hz,
};

/*
 * A level-triggered interrupt has ended, on this CPU thread. Userspace hears of it if one of the
 * IOAPIC's pins is routed to that vector as a level.
 */
static void eoi(void *ctx, uint8_t vector)
{
    struct fake_vm *vm = ctx;
    struct fake_vcpu *v = fake_vcpu_self(vm);
    bool wanted = false;

    pthread_mutex_lock(&vm->lock);
    for (unsigned i = 0; i < vm->routes; i++) {
        uint32_t data = vm->route[i].u.msi.data;

        if (vm->route[i].gsi < vm->ioapic_pins && (data & 0xff) == vector && (data & 0x8000))
            wanted = true;
    }
    pthread_mutex_unlock(&vm->lock);
    if (v != NULL && wanted) {
        v->eoi = vector;
        fake_soft_stop_after(v);
    }
}

static void no_pin(void *ctx, unsigned pin, bool level)
{
    (void)ctx;
    (void)pin;
    (void)level;
}

int fake_irq_split(struct fake_vm *vm)
{
    struct irq_chip ioapic = {.ctx = vm, .lock = &vm->eoi_lock, .set = no_pin, .eoi = eoi};
    struct lapic_config cfg = {.cpus = FAKE_VCPUS,
                               .phys_bits = vm->fake->host.phys_bits,
                               .bus_hz = 1000000000, /* Linux: APIC_BUS_CYCLE_NS */
                               .signals = &signals,
                               .signals_ctx = vm};
    int rc = lapics_create(&vm->env, &cfg, &vm->lapics, NULL);

    if (rc < 0)
        return rc;
    rc = -pthread_create(&vm->loop, NULL, loop_main, vm);
    if (rc < 0)
        return rc;
    vm->loop_runs = true;
    irq_attach_ioapic(vm->router, &ioapic);
    vm->split = true;
    return 0;
}
