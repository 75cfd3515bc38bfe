/* A VM of the fake: its calls and its capabilities. */
#include "fake_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool any_vcpu(struct fake_vm *vm)
{
    for (unsigned i = 0; i < FAKE_VCPUS; i++) {
        if (fake_vcpu_of(vm, i) != NULL)
            return true;
    }
    return false;
}

static int enable_cap(struct fake_vm *vm, const struct kvm_enable_cap *c)
{
    if (c->flags != 0 || fake_lacks(vm->fake, c->cap))
        return -EINVAL;
    switch (c->cap) {
    case KVM_CAP_EXIT_ON_EMULATION_FAILURE:
        if (c->args[0] & ~1ull)
            return -EINVAL;
        vm->emulation_exits = c->args[0] != 0;
        return 0;
    case KVM_CAP_X86_USER_SPACE_MSR:
        if (c->args[0] & ~(uint64_t)(KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN |
                                     KVM_MSR_EXIT_REASON_FILTER))
            return -EINVAL;
        vm->msr_exits = (unsigned)c->args[0];
        return 0;
    case KVM_CAP_SPLIT_IRQCHIP:
        if (c->args[0] > FAKE_ROUTES)
            return -EINVAL;
        if (vm->split || any_vcpu(vm))
            return -EEXIST;
        vm->ioapic_pins = (unsigned)c->args[0];
        return fake_irq_split(vm);
    case KVM_CAP_X86_DISABLE_EXITS:
        if (c->args[0] & ~(uint64_t)KVM_X86_DISABLE_VALID_EXITS)
            return -EINVAL;
        vm->disabled_exits = (unsigned)c->args[0];
        return 0;
    default:
        return -EINVAL;
    }
}

/* Three pages below 4 GiB that nothing is put into: the software CPU does not need them. */
static int set_tss(uintptr_t addr)
{
    return addr > UINT32_MAX - 3 * 4096u + 1 ? -EINVAL : 0;
}

int fake_vm_ioctl(struct fake_vm *vm, unsigned long request, uintptr_t arg)
{
    const void *p = (const void *)arg;

    switch (request) {
    case KVM_CHECK_EXTENSION:
        if (fake_lacks(vm->fake, KVM_CAP_CHECK_EXTENSION_VM))
            return -ENOTTY;
        return fake_check_extension(vm->fake, (uint32_t)arg);
    case KVM_SET_TSS_ADDR:
        return set_tss(arg);
    case KVM_SET_IDENTITY_MAP_ADDR:
        return any_vcpu(vm) ? -EINVAL : 0;
    case KVM_SET_USER_MEMORY_REGION:
        return fake_set_memory(vm, p);
    case KVM_GET_DIRTY_LOG:
        return fake_dirty_log(vm, p);
    case KVM_ENABLE_CAP:
        return enable_cap(vm, p);
    case KVM_X86_SET_MSR_FILTER:
        return fake_set_filter(vm, p);
    case KVM_IOEVENTFD:
        return fake_ioeventfd(vm, p);
    case KVM_IRQFD:
        return fake_irqfd(vm, p);
    case KVM_SET_GSI_ROUTING:
        return fake_set_routing(vm, p);
    case KVM_SIGNAL_MSI:
        return fake_signal_msi(vm, p);
    case KVM_IRQ_LINE:
        return fake_irq_line(vm, ((const struct kvm_irq_level *)p)->irq,
                             ((const struct kvm_irq_level *)p)->level != 0);
    case KVM_GET_TSC_KHZ:
        return (int)vm->fake->tsc_khz;
    default:
        return -ENOTTY;
    }
}

int fake_vm_create(struct kvm_fake *fake, struct fake_vm **out)
{
    static const struct bus_region port = {
        .len = 0x10000, .ops = &fake_port_ops, .name = "kvm ports"};
    static const struct bus_region mmio = {
        .len = UINT64_MAX, .ops = &fake_mmio_ops, .name = "kvm mmio"};
    struct fake_vm *vm = calloc(1, sizeof(*vm));
    struct bus_region r;

    if (vm == NULL)
        return -ENOMEM;
    vm->fake = fake;
    vm->generation = 1;
    pthread_mutex_init(&vm->lock, NULL);
    vm->bus = bus_create(fake->log);
    if (vm->bus == NULL || fake_irq_start(vm) < 0)
        goto fail;
    r = port;
    r.ctx = vm;
    if (bus_map(vm->bus, BUS_PIO, &r, NULL) < 0)
        goto fail;
    r = mmio;
    r.ctx = vm;
    if (bus_map(vm->bus, BUS_MMIO, &r, NULL) < 0)
        goto fail;
    *out = vm;
    return 0;
fail:
    fake_vm_free(vm);
    return -ENOMEM;
}

void fake_vm_free(struct fake_vm *vm)
{
    if (vm == NULL)
        return;
    fake_irq_stop(vm); /* before what it signals */
    for (unsigned i = 0; i < FAKE_VCPUS; i++)
        fake_vcpu_free(vm->vcpu[i]);
    lapics_destroy(vm->lapics);
    if (vm->machine != NULL)
        fake_machine_put(vm, vm->machine);
    for (unsigned i = 0; i < FAKE_SLOTS; i++)
        free(vm->slot[i].copy);
    fake_filter_free(vm);
    irq_router_destroy(vm->router);
    timerq_destroy(vm->timers);
    bus_destroy(vm->bus);
    pthread_mutex_destroy(&vm->lock);
    free(vm);
}
