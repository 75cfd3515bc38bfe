#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "engine/kvm/internal.h"
#include "host/clock.h"

/*
 * Model-specific registers that the kernel leaves to us: those of the local APIC, which is the
 * board's, writes of the time-stamp counter, which others read by its offset, and all that the
 * kernel does not know.
 */

enum {
    MSR_TSC = 0x10,
    MSR_APIC_BASE = 0x1b,
    MSR_TSC_ADJUST = 0x3b,
    MSR_TSC_DEADLINE = 0x6e0,
    MSR_X2APIC = 0x800,
};

static bool lapic_msr(uint32_t i)
{
    return i == MSR_APIC_BASE || i == MSR_TSC_DEADLINE || (i >= MSR_X2APIC && i < 0x900);
}

int kvm_msr_setup(struct kvm_machine *vm, struct error *err)
{
    uint8_t none[2] = {0,
                       0}; /* a bit for each MSR of a range, 0: it comes to us; a word at least */
    struct kvm_enable_cap cap = {.cap = KVM_CAP_X86_USER_SPACE_MSR,
                                 .args = {KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN |
                                          KVM_MSR_EXIT_REASON_FILTER}};
    struct kvm_msr_filter filter = {.flags = KVM_MSR_FILTER_DEFAULT_ALLOW};
    static const struct {
        uint32_t flags, base;
    } ours[] = {
        {KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE, MSR_APIC_BASE},
        {KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE, MSR_TSC_DEADLINE},
        {KVM_MSR_FILTER_WRITE, MSR_TSC},
        {KVM_MSR_FILTER_WRITE, MSR_TSC_ADJUST},
    };
    int rc = kvm_vm_ioctl(vm, KVM_ENABLE_CAP, (uintptr_t)&cap);
    unsigned n = 0;

    if (rc == 0) {
        for (unsigned i = vm->split ? 2 : 0; i < countof(ours);
             i++) /* the APIC's are the kernel's */
            filter.ranges[n++] = (struct kvm_msr_filter_range){
                .flags = ours[i].flags, .base = ours[i].base, .nmsrs = 1, .bitmap = none};
        rc = kvm_vm_ioctl(vm, KVM_X86_SET_MSR_FILTER, (uintptr_t)&filter);
    }
    return rc < 0 ? error_set(err, rc, "KVM does not leave MSRs to us: %s", strerror(-rc)) : 0;
}

/* The kernel has a copy, from which CPUID's bit for the APIC follows and which run->apic_base
 * shows. */
static int move_apic(struct kvm_cpu *cpu, uint64_t base)
{
    struct kvm_sregs s;
    int rc = kvm_cpu_ioctl_p(cpu, KVM_GET_SREGS, &s);

    if (rc < 0)
        return rc;
    s.apic_base = base;
    memset(s.interrupt_bitmap, 0, sizeof(s.interrupt_bitmap));
    return kvm_cpu_ioctl_p(cpu, KVM_SET_SREGS, &s);
}

/* A deadline is a TSC value: what is left until then has changed. */
static void tsc_moved(struct kvm_cpu *cpu)
{
    const struct engine_env *env = &cpu->vm->env;
    uint64_t deadline;

    if (cpu->vm->split) { /* written again, so that the kernel computes anew */
        if (kvm_msr_get(cpu, MSR_TSC_DEADLINE, &deadline) == 0 && deadline != 0)
            (void)kvm_msr_set(cpu, MSR_TSC_DEADLINE, deadline);
        return;
    }
    if (env->lapic == NULL ||
        env->lapic->msr_read(env->lapic_ctx, cpu->id, MSR_TSC_DEADLINE, &deadline) != 0 ||
        deadline == 0)
        return;
    (void)env->lapic->msr_write(env->lapic_ctx, cpu->id, MSR_TSC_DEADLINE, deadline);
    atomic_store(&cpu->irq_signal, true);
}

/* What the guest adds to its TSC moves TSC_ADJUST by as much, and the other way round. */
static int write_tsc(struct kvm_cpu *cpu, uint32_t index, uint64_t value)
{
    uint64_t offset = kvm_tsc_offset(cpu), adjust, moved;
    int rc = kvm_msr_get(cpu, MSR_TSC_ADJUST, &adjust);

    if (rc < 0)
        return rc;
    moved = index == MSR_TSC ? value - (host_tsc() + offset) : value - adjust;
    rc = kvm_msr_set(cpu, MSR_TSC_ADJUST, adjust + moved);
    if (rc == 0)
        rc = kvm_tsc_set_offset(cpu, offset + moved);
    tsc_moved(cpu);
    return rc;
}

void kvm_msr_exit(struct kvm_cpu *cpu)
{
    const struct engine_env *env = &cpu->vm->env;
    struct kvm_run *run = cpu->run;
    bool write = run->exit_reason == KVM_EXIT_X86_WRMSR;
    uint32_t index = run->msr.index;
    uint64_t value = run->msr.data;
    int rc = -ENOENT;

    if (lapic_msr(index) && env->lapic != NULL && !cpu->vm->split) {
        if (write) {
            rc = env->lapic->msr_write(env->lapic_ctx, cpu->id, index, value);
            atomic_store(&cpu->irq_signal, true);
            if (rc == 0 && index == MSR_APIC_BASE)
                rc = move_apic(cpu, value);
        } else {
            rc = env->lapic->msr_read(env->lapic_ctx, cpu->id, index, &value);
        }
    } else if (write && (index == MSR_TSC || index == MSR_TSC_ADJUST)) {
        rc = write_tsc(cpu, index, value);
    } else {
        log_trace(env->log, "msr", "%s of MSR %#x, which the kernel refuses",
                  write ? "write" : "read", index);
        if (!env->strict_msr && (run->msr.reason & KVM_MSR_EXIT_REASON_UNKNOWN)) {
            rc = 0;
            value = 0;
        }
    }
    run->msr.error = rc != 0;
    if (!write)
        run->msr.data = value;
    cpu->unfinished = true;
}
