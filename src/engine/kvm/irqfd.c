#include "bus/irqfd.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/kvm/internal.h"

/*
 * What is sent at which GSI: of the IOAPIC's pins, whose ends of interrupts the kernel exits for,
 * and of the irqfds behind them. The kernel takes the whole table at once.
 */

struct kvm_route {
    struct irq_message msg;
    bool used;
    bool assigned; /* an irqfd */
};

#define MSI_ADDRESS 0xfee00000u

static uint32_t address(const struct irq_message *m)
{
    return MSI_ADDRESS | (m->dest & 0xff) << 12 | (m->logical ? 4u : 0);
}

static uint32_t data(const struct irq_message *m)
{
    return m->vector | (uint32_t)m->delivery << 8 | (m->level ? 0xc000u : 0);
}

struct kvm_msi kvm_msi_of(const struct irq_message *m)
{
    return (struct kvm_msi){.address_lo = address(m), .data = data(m)};
}

/* `routes` is held. */
static int tell(struct kvm_machine *vm)
{
    struct kvm_irq_routing *r;
    unsigned used = 0;
    int rc;

    for (unsigned gsi = 0; gsi < vm->route_count; gsi++)
        used += vm->route[gsi].used;
    r = calloc(1, sizeof(*r) + used * sizeof(r->entries[0]));
    if (r == NULL)
        return -ENOMEM;
    for (unsigned gsi = 0; gsi < vm->route_count; gsi++) {
        const struct kvm_route *at = &vm->route[gsi];

        if (!at->used)
            continue;
        r->entries[r->nr++] = (struct kvm_irq_routing_entry){
            .gsi = gsi,
            .type = KVM_IRQ_ROUTING_MSI,
            .u.msi = {.address_lo = address(&at->msg), .data = data(&at->msg)},
        };
    }
    rc = kvm_vm_ioctl(vm, KVM_SET_GSI_ROUTING, (uintptr_t)r);
    free(r);
    return rc;
}

/* What a GSI sends from now on. `routes` is held. */
static int route(struct kvm_machine *vm, unsigned gsi, const struct irq_message *m)
{
    struct kvm_route *at = &vm->route[gsi];
    uint32_t before = at->used ? data(&at->msg) : ~0u;
    int rc;

    if (before == data(m) && address(&at->msg) == address(m))
        return 0;
    at->msg = *m;
    at->used = true;
    rc = tell(vm);
    at->used = rc == 0;
    return rc;
}

int kvm_route_pin(struct kvm_machine *vm, unsigned pin, const struct irq_message *m)
{
    int rc;

    pthread_mutex_lock(&vm->routes);
    rc = route(vm, pin, m);
    pthread_mutex_unlock(&vm->routes);
    return rc;
}

static int assign(struct kvm_machine *vm, unsigned gsi, int fd, bool on)
{
    struct kvm_irqfd irq = {
        .fd = (uint32_t)fd, .gsi = gsi, .flags = on ? 0 : KVM_IRQFD_FLAG_DEASSIGN};
    int rc = 0;

    if (vm->route[gsi].assigned != on)
        rc = kvm_vm_ioctl(vm, KVM_IRQFD, (uintptr_t)&irq);
    if (rc >= 0)
        vm->route[gsi].assigned = on;
    return rc < 0 ? rc : 0;
}

/* The route stays when the irqfd goes: it will be back after a rescue. */
static int set(void *ctx, unsigned slot, int fd, const struct irq_message *m)
{
    struct kvm_machine *vm = ctx;
    int rc = 0;

    if (slot >= vm->route_count)
        return -ENOSPC;
    pthread_mutex_lock(&vm->routes);
    if (m != NULL)
        rc = route(vm, slot, m);
    if (rc == 0)
        rc = assign(vm, slot, fd, m != NULL);
    pthread_mutex_unlock(&vm->routes);
    return rc;
}

int kvm_routes_begin(struct kvm_machine *vm)
{
    int max = kvm_check_extension(vm->sys, vm->fd, KVM_CAP_IRQ_ROUTING);

    vm->irqfds = kvm_check_extension(vm->sys, vm->fd, KVM_CAP_IRQFD) != 0;
    vm->route_count = max > (int)IRQ_GSI_COUNT ? (unsigned)max : IRQ_GSI_COUNT;
    vm->route = calloc(vm->route_count, sizeof(*vm->route));
    return vm->route != NULL ? 0 : -ENOMEM;
}

void kvm_routes_end(struct kvm_machine *vm)
{
    free(vm->route);
}

void kvm_irqfds(struct kvm_machine *vm, bool on)
{
    if (vm->irqfds)
        irq_attach_fds(vm->env.irqs, on ? set : NULL, vm);
}
