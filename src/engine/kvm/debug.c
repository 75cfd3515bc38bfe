#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "engine/kvm/internal.h"

/*
 * A debugger's breakpoints and steps by KVM_SET_GUEST_DEBUG. The kernel keeps the guest's own debug
 * registers meanwhile: it reads what it wrote, and what it wrote does not act.
 */

#define DR6_STEP (1u << 14)
#define DR7_FIXED (1u << 10)
#define DR7_EXACT (1u << 9) /* GE: of no effect since the P6, and what debuggers set */

/* DR7's two bits for each kind and for each length. Intel SDM Vol.3, debug registers. */
static int field_of(const struct vcpu_breakpoint *p, struct error *err)
{
    static const uint8_t kinds[] = {
        [VCPU_BREAK_EXEC] = 0, [VCPU_BREAK_WRITE] = 1, [VCPU_BREAK_ACCESS] = 3};
    static const int8_t lens[] = {[1] = 0, [2] = 1, [4] = 3, [8] = 2, [3] = -1, [5] = -1, -1, -1};

    if (p->kind > VCPU_BREAK_ACCESS || p->len == 0 || p->len > 8 || lens[p->len] < 0 ||
        (p->kind == VCPU_BREAK_EXEC && p->len != 1))
        return error_set(err, -EINVAL,
                         "a breakpoint of %u bytes: the processor has 1, 2, 4 and 8, and 1 for "
                         "instructions",
                         p->len);
    if (p->addr % p->len != 0)
        return error_set(err, -EINVAL,
                         "a breakpoint of %u bytes at %#llx: the address must be a multiple",
                         p->len, (unsigned long long)p->addr);
    return kinds[p->kind] | lens[p->len] << 2;
}

static bool any_point(const struct vcpu_debug *d)
{
    for (unsigned i = 0; i < VCPU_BREAKS; i++) {
        if (d->point[i].kind != VCPU_BREAK_NONE)
            return true;
    }
    return false;
}

int kvm_debug(void *vcpu, const struct vcpu_debug *want, struct error *err)
{
    struct kvm_cpu *cpu = vcpu;

    if (!cpu->vm->caps.guest_debug && (want->step || any_point(want)))
        return error_set(err, -ENOTSUP, "this kernel's KVM has no KVM_SET_GUEST_DEBUG");
    for (unsigned i = 0; i < VCPU_BREAKS; i++) {
        if (want->point[i].kind != VCPU_BREAK_NONE && field_of(&want->point[i], err) < 0)
            return -EINVAL;
    }
    cpu->wanted = *want;
    return 0;
}

/*
 * An instruction breakpoint ended the last run: its instruction goes by in a step without it, and
 * with RF, for who interrupts it. RF alone would not do, since KVM's emulator does not look at it.
 */
static int let_pass(struct kvm_cpu *cpu)
{
    struct kvm_regs r;
    int rc;

    if (!cpu->pass)
        return 0;
    rc = kvm_cpu_ioctl_p(cpu, KVM_GET_REGS, &r);
    if (rc < 0)
        return rc;
    if (cpu->passing && r.rip != cpu->pass_rip) { /* it has, by another exit */
        cpu->pass = false;
        cpu->passing = false;
        return 0;
    }
    if (cpu->passing)
        return 0;
    cpu->passing = true;
    cpu->pass_rip = r.rip;
    cpu->debug_stale = true;
    r.rflags |= X86_FL_RF;
    return kvm_cpu_ioctl_p(cpu, KVM_SET_REGS, &r);
}

static bool passes(const struct kvm_cpu *cpu, const struct vcpu_breakpoint *p)
{
    return cpu->passing && p->kind == VCPU_BREAK_EXEC && p->addr == cpu->pass_addr;
}

int kvm_debug_begin(struct kvm_cpu *cpu, bool count)
{
    const struct vcpu_debug *w = &cpu->wanted;
    struct kvm_guest_debug d;
    int rc = let_pass(cpu);

    cpu->debug_rearm = false;
    memset(&d, 0, sizeof(d));
    if (any_point(w)) {
        d.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
        d.arch.debugreg[7] = DR7_FIXED | DR7_EXACT;
    }
    if (count || w->step || cpu->passing)
        d.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
    for (unsigned i = 0; i < VCPU_BREAKS; i++) {
        if (w->point[i].kind == VCPU_BREAK_NONE || passes(cpu, &w->point[i]))
            continue;
        d.arch.debugreg[i] = w->point[i].addr;
        d.arch.debugreg[7] |= 2ull << (2 * i);
        d.arch.debugreg[7] |= (uint64_t)field_of(&w->point[i], NULL) << (16 + 4 * i);
    }
    /* KVM_SET_REGS takes the step's TF away if RIP is not where it was when the step was set. */
    if (rc < 0 ||
        (memcmp(&d, &cpu->debug, sizeof(d)) == 0 && !(cpu->debug_stale && d.control != 0)))
        return rc;
    cpu->debug_stale = false;
    cpu->debug = d;
    return kvm_cpu_ioctl_p(cpu, KVM_SET_GUEST_DEBUG, &d);
}

bool kvm_debug_exit(struct kvm_cpu *cpu, struct vcpu_exit *x)
{
    const struct kvm_debug_exit_arch *arch = &cpu->run->debug.arch;
    bool step = (arch->dr6 & DR6_STEP) != 0;

    if (cpu->passing) { /* it has gone by */
        cpu->pass = false;
        cpu->passing = false;
        cpu->debug_rearm = true;
    }
    x->debug.points = 0;
    for (unsigned i = 0; i < VCPU_BREAKS; i++) {
        if (cpu->wanted.point[i].kind == VCPU_BREAK_NONE || !(arch->dr6 >> i & 1))
            continue;
        x->debug.points |= (uint8_t)(1u << i);
        if (cpu->wanted.point[i].kind == VCPU_BREAK_EXEC) {
            cpu->pass = true;
            cpu->pass_addr = cpu->wanted.point[i].addr;
        }
    }
    x->debug.step = step && cpu->wanted.step;
    if (step)
        cpu->stats.instructions++;
    return x->debug.step || x->debug.points != 0;
}
