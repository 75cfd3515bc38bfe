#include "bus/doorbell.h"

#include "engine/kvm/internal.h"

/* Doorbells as ioeventfds: the kernel counts the eventfd up and the guest goes on. */

static int set(void *ctx, const struct bus_spot *spot, int fd, bool on)
{
    struct kvm_machine *vm = ctx;
    struct kvm_ioeventfd e = {.addr = spot->addr, .len = spot->len, .fd = fd};
    int rc;

    if (spot->space == BUS_PIO)
        e.flags |= KVM_IOEVENTFD_FLAG_PIO;
    if (spot->match) {
        e.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
        e.datamatch = spot->value;
    }
    if (!on)
        e.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
    rc = kvm_vm_ioctl(vm, KVM_IOEVENTFD, (uintptr_t)&e);
    return rc < 0 ? rc : 0;
}

void kvm_doorbells_begin(struct kvm_machine *vm)
{
    if (kvm_check_extension(vm->sys, vm->fd, KVM_CAP_IOEVENTFD) == 0)
        return;
    bus_attach_doorbells(vm->env.bus, set, vm);
    vm->doorbells = true;
}

void kvm_doorbells_end(struct kvm_machine *vm)
{
    if (vm->doorbells)
        bus_attach_doorbells(vm->env.bus, NULL, NULL);
}
