#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "engine/kvm/internal.h"

/* The run loop: KVM_RUN, and what each way out of it asks for. Nothing here takes a lock. */

/* ---- signals from other threads ---- */

void kvm_poke(struct kvm_cpu *cpu)
{
    const struct kvm_sys *sys = cpu->vm->sys;

    __atomic_store_n(&cpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    if (atomic_load(&cpu->running))
        sys->kick(sys->ctx, cpu->fd, cpu->thread);
}

void kvm_kick(void *vcpu)
{
    struct kvm_cpu *cpu = vcpu;

    atomic_store(&cpu->kicked, true);
    kvm_poke(cpu);
}

void kvm_interrupt(void *vcpu)
{
    struct kvm_cpu *cpu = vcpu;

    atomic_store(&cpu->irq_signal, true);
    kvm_poke(cpu);
}

void kvm_nmi(void *vcpu)
{
    struct kvm_cpu *cpu = vcpu;

    atomic_store(&cpu->nmi_signal, true);
    kvm_poke(cpu);
}

/* ---- ports, memory-mapped registers ---- */

static void exit_io(struct kvm_cpu *cpu, struct vcpu_exit *x, enum vcpu_exit_reason reason,
                    uint64_t addr, unsigned size, bool write, uint64_t value)
{
    if (!cpu->vm->env.strict_io || cpu->exit_wanted)
        return;
    cpu->exit_wanted = true;
    x->reason = reason;
    x->io.addr = addr;
    x->io.size = (uint8_t)size;
    x->io.write = write;
    x->io.value = value;
}

static void exit_pio(struct kvm_cpu *cpu, struct vcpu_exit *x)
{
    struct bus *bus = cpu->vm->env.bus;
    struct kvm_run *run = cpu->run;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    unsigned size = run->io.size;
    bool write = run->io.direction == KVM_EXIT_IO_OUT;

    for (uint32_t i = 0; i < run->io.count; i++, data += size) {
        uint64_t v = 0;

        cpu->stats.pio++;
        if (write) {
            memcpy(&v, data, size);
            if (!bus_write(bus, cpu->id, BUS_PIO, run->io.port, size, v))
                exit_io(cpu, x, VCPU_EXIT_PIO, run->io.port, size, true, v);
        } else {
            if (!bus_read(bus, cpu->id, BUS_PIO, run->io.port, size, &v))
                exit_io(cpu, x, VCPU_EXIT_PIO, run->io.port, size, false, v);
            memcpy(data, &v, size);
        }
    }
    cpu->unfinished = true;
}

/* The APIC's page, while it is on and not in x2APIC mode: IA32_APIC_BASE bits 11 and 10. */
static bool is_apic(const struct kvm_cpu *cpu, uint64_t gpa)
{
    uint64_t base = cpu->run->apic_base;

    return cpu->vm->env.lapic != NULL && !cpu->vm->split && (base & 0xc00) == 0x800 &&
           gpa >> 12 == base >> 12;
}

/* Sizes that the bus has none of come from accesses that cross a page. */
static void mmio_piece(struct kvm_cpu *cpu, struct vcpu_exit *x, uint64_t gpa, unsigned size,
                       uint8_t *data, bool write)
{
    const struct engine_env *env = &cpu->vm->env;
    uint64_t v = 0;

    if (write)
        memcpy(&v, data, size);
    if (is_apic(cpu, gpa)) {
        if (write) {
            env->lapic->mmio_write(env->lapic_ctx, cpu->id, gpa & 4095, size, v);
            atomic_store(&cpu->irq_signal, true);
        } else {
            v = env->lapic->mmio_read(env->lapic_ctx, cpu->id, gpa & 4095, size);
        }
    } else if (write) {
        /* what reads as memory is a ROM, and drops it */
        if (gmem_ptr_ro(env->mem, gpa, size) == NULL &&
            !bus_write(env->bus, cpu->id, BUS_MMIO, gpa, size, v))
            exit_io(cpu, x, VCPU_EXIT_MMIO, gpa, size, true, v);
    } else if (!bus_read(env->bus, cpu->id, BUS_MMIO, gpa, size, &v)) {
        exit_io(cpu, x, VCPU_EXIT_MMIO, gpa, size, false, v);
    }
    if (!write)
        memcpy(data, &v, size);
}

static void exit_mmio(struct kvm_cpu *cpu, struct vcpu_exit *x)
{
    struct kvm_run *run = cpu->run;
    unsigned len = (unsigned)min_u64(run->mmio.len, sizeof(run->mmio.data)), at = 0;

    cpu->stats.mmio++;
    while (at < len) {
        unsigned size = len - at >= 8 ? 8 : len - at >= 4 ? 4 : len - at >= 2 ? 2 : 1;

        mmio_piece(cpu, x, run->mmio.phys_addr + at, size, run->mmio.data + at,
                   run->mmio.is_write != 0);
        at += size;
    }
    cpu->unfinished = true;
}

/* ---- giving up ---- */

/* Where the guest stands; nothing unfinished. */
static int read_rip(struct kvm_cpu *cpu, uint64_t *rip)
{
    struct kvm_regs regs;
    int rc;

    if (cpu->vm->caps.sync_regs) {
        *rip = cpu->run->s.regs.regs.rip;
        return 0;
    }
    rc = kvm_cpu_ioctl_p(cpu, KVM_GET_REGS, &regs);
    if (rc == 0)
        *rip = regs.rip;
    return rc;
}

static void fail(struct kvm_cpu *cpu, struct vcpu_exit *x, const char *what, uint64_t detail)
{
    (void)read_rip(cpu, &x->rip);
    cpu->exit_wanted = true;
    x->reason = VCPU_EXIT_FAIL;
    snprintf(x->text, sizeof(x->text),
             "KVM cannot go on at RIP %#llx: %s (%#llx); try --engine soft",
             (unsigned long long)x->rip, what, (unsigned long long)detail);
}

static void exit_internal(struct kvm_cpu *cpu, struct vcpu_exit *x)
{
    const struct kvm_run *run = cpu->run;

    if (run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION) {
        fail(cpu, x, "an error inside it", run->internal.suberror);
        return;
    }
    cpu->exit_wanted = true;
    x->reason = VCPU_EXIT_EMULATE;
    if (run->internal.ndata > 0 &&
        (run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES)) {
        x->insn.len = (uint8_t)min_u64(run->emulation_failure.insn_size, sizeof(x->insn.bytes));
        memcpy(x->insn.bytes, run->emulation_failure.insn_bytes, sizeof(x->insn.bytes));
    }
}

static void exit_debug(struct kvm_cpu *cpu, struct vcpu_exit *x)
{
    struct vcpu_exit d;

    /* the step may have ended an instruction whose access has said how the run ends */
    if (!kvm_debug_exit(cpu, &d) || cpu->exit_wanted)
        return;
    cpu->exit_wanted = true;
    x->reason = VCPU_EXIT_DEBUG;
    x->debug = d.debug;
}

/*
 * An NMI that came too late for the last instruction: one that was blocked while the vCPU ran to
 * its HLT. KVMs take it with the next KVM_RUN.
 */
static bool nmi_waits(struct kvm_cpu *cpu)
{
    struct kvm_vcpu_events e;

    if (!cpu->nmi_given || kvm_cpu_ioctl_p(cpu, KVM_GET_VCPU_EVENTS, &e) < 0)
        return false;
    cpu->nmi_given = e.nmi.pending != 0;
    return e.nmi.pending && !e.nmi.masked;
}

/* After KVM_RUN has returned 0. Sets exit_wanted if run must return. */
static void take_exit(struct kvm_cpu *cpu, struct vcpu_exit *x)
{
    const struct kvm_run *run = cpu->run;

    if (run->exit_reason < countof(cpu->exits))
        cpu->exits[run->exit_reason]++;
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        exit_pio(cpu, x);
        break;
    case KVM_EXIT_MMIO:
        exit_mmio(cpu, x);
        break;
    case KVM_EXIT_X86_RDMSR:
    case KVM_EXIT_X86_WRMSR:
        kvm_msr_exit(cpu);
        break;
    case KVM_EXIT_HLT:
        cpu->halted = !nmi_waits(cpu);
        cpu->stats.halts++;
        break;
    case KVM_EXIT_IRQ_WINDOW_OPEN:
    case KVM_EXIT_INTR:
    case KVM_EXIT_SET_TPR:
        break;
    case KVM_EXIT_IOAPIC_EOI:
        if (kvm_apic_eoi(cpu, run->eoi.vector) < 0)
            fail(cpu, x, "its local APIC cannot be read at the end of interrupt", run->eoi.vector);
        break;
    case KVM_EXIT_SHUTDOWN:
        cpu->shutdown = true;
        break;
    case KVM_EXIT_DEBUG:
        exit_debug(cpu, x);
        break;
    case KVM_EXIT_INTERNAL_ERROR:
        exit_internal(cpu, x);
        break;
    case KVM_EXIT_FAIL_ENTRY:
        fail(cpu, x, "the processor refuses to enter the guest",
             run->fail_entry.hardware_entry_failure_reason);
        break;
    default:
        fail(cpu, x, "an exit that it does not know how to answer", run->exit_reason);
        break;
    }
}

/* ---- what waits ---- */

static void priority_out(struct kvm_cpu *cpu)
{
    const struct engine_env *env = &cpu->vm->env;

    if (env->lapic != NULL && !cpu->vm->split)
        cpu->run->cr8 = cpu->cr8 = env->lapic->get_cr8(env->lapic_ctx, cpu->id);
}

static void priority_in(struct kvm_cpu *cpu)
{
    const struct engine_env *env = &cpu->vm->env;

    if (env->lapic == NULL || cpu->vm->split || cpu->run->cr8 == cpu->cr8)
        return;
    env->lapic->set_cr8(env->lapic_ctx, cpu->id, (uint8_t)cpu->run->cr8);
    atomic_store(&cpu->irq_signal, true);
}

/* An interrupt from the local APIC: into the vCPU, or a request to be told when it would take one.
 */
static int offer_interrupt(struct kvm_cpu *cpu)
{
    const struct engine_env *env = &cpu->vm->env;
    struct kvm_run *run = cpu->run;

    if (atomic_exchange(&cpu->irq_signal, false)) /* first: what comes later comes again */
        cpu->irq_waits = true;
    if (!cpu->irq_waits)
        return 0;
    run->request_interrupt_window = 0;
    cpu->irq_waits = env->lapic != NULL && env->lapic->pending(env->lapic_ctx, cpu->id);
    if (!cpu->irq_waits)
        return 0;
    if (run->if_flag) /* it goes on, if only to say that it would take it now */
        cpu->halted = false;
    if (run->ready_for_interrupt_injection && run->if_flag) {
        int vector = env->lapic->ack(env->lapic_ctx, cpu->id), rc;
        struct kvm_interrupt irq = {.irq = (uint32_t)vector};

        cpu->irq_waits = env->lapic->pending(env->lapic_ctx, cpu->id);
        if (vector >= 0) {
            run->ready_for_interrupt_injection = 0;
            cpu->stats.interrupts++;
            rc = kvm_cpu_ioctl_p(cpu, KVM_INTERRUPT, &irq);
            if (rc < 0)
                return rc;
        }
    }
    run->request_interrupt_window = cpu->irq_waits;
    return 0;
}

/* Beside the kernel's local APIC all that is ours is the PIC: what KVM_INTERRUPT gives is its
 * ExtINT. */
static int offer_pic(struct kvm_cpu *cpu)
{
    struct irq_router *irqs = cpu->vm->env.irqs;
    struct kvm_run *run = cpu->run;
    struct kvm_interrupt irq;

    if (atomic_exchange(&cpu->irq_signal, false))
        cpu->irq_waits = true;
    if (!cpu->irq_waits)
        return 0;
    run->request_interrupt_window = 0;
    cpu->irq_waits = cpu->id == 0 && irq_pic_pending(irqs);
    if (!cpu->irq_waits)
        return 0;
    if (run->ready_for_interrupt_injection) {
        run->ready_for_interrupt_injection = 0;
        cpu->stats.interrupts++;
        irq.irq = irq_pic_ack(irqs);
        cpu->irq_waits = irq_pic_pending(irqs);
        run->request_interrupt_window = cpu->irq_waits;
        return kvm_cpu_ioctl_p(cpu, KVM_INTERRUPT, &irq);
    }
    run->request_interrupt_window = 1;
    return 0;
}

static int offer_nmi(struct kvm_cpu *cpu)
{
    if (!atomic_exchange(&cpu->nmi_signal, false))
        return 0;
    cpu->halted = false;
    cpu->nmi_given = true;
    return kvm_cpu_ioctl(cpu, KVM_NMI, 0);
}

/* ---- the loop ---- */

/* A HLT in the kernel ends no run; one with interrupts off nothing ends, and the VM wants to know.
 */
static int asleep_for_good(struct kvm_cpu *cpu, struct vcpu_exit *x)
{
    uint32_t state = KVM_MP_STATE_RUNNABLE;
    int rc = 0;

    if (cpu->vm->split && !cpu->run->if_flag && !atomic_load(&cpu->nmi_signal))
        rc = kvm_mp_state(cpu, &state);
    if (state == KVM_MP_STATE_HALTED) {
        x->reason = VCPU_EXIT_HLT;
        x->interrupts_off = true;
        cpu->exit_wanted = true;
    }
    return rc;
}

static int enter(struct kvm_cpu *cpu, struct vcpu_exit *x)
{
    int rc = kvm_cpu_ioctl(cpu, KVM_RUN, 0);

    cpu->unfinished = false;
    if (rc == -EINTR || rc == -EAGAIN)
        return asleep_for_good(cpu, x);
    if (rc < 0)
        return rc;
    take_exit(cpu, x);
    return 0;
}

int kvm_finish(struct kvm_cpu *cpu, struct vcpu_exit *x)
{
    int rc = 0;

    while (cpu->unfinished && rc == 0) {
        __atomic_store_n(&cpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
        rc = enter(cpu, x);
    }
    return rc;
}

/* A run of no length: the kernel says anew whether it would take an interrupt. */
static int refresh(struct kvm_cpu *cpu, struct vcpu_exit *x)
{
    if (!cpu->vm->split || !cpu->stale)
        return 0;
    cpu->stale = false;
    __atomic_store_n(&cpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    return enter(cpu, x);
}

/* Something came from another thread that has to be looked at before the guest goes on. */
static bool signalled(const struct kvm_cpu *cpu)
{
    return atomic_load(&cpu->kicked) || atomic_load(&cpu->irq_signal) ||
           atomic_load(&cpu->nmi_signal) || atomic_load(&cpu->lint1_signal);
}

/* One entry into the guest, unless something came meanwhile. */
static int run_once(struct kvm_cpu *cpu, struct vcpu_exit *x)
{
    int rc = 0;

    priority_out(cpu);
    atomic_store(&cpu->running, true);
    /* cleared before the signals are read: who sets one of them sets it again */
    __atomic_store_n(&cpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
    if (!signalled(cpu))
        rc = enter(cpu, x);
    atomic_store(&cpu->running, false);
    priority_in(cpu);
    return rc;
}

/* Is there a reason to return? */
static bool leave(struct kvm_cpu *cpu, struct vcpu_exit *x)
{
    if (cpu->exit_wanted)
        return true;
    if (cpu->shutdown) {
        x->reason = VCPU_EXIT_SHUTDOWN;
        return true;
    }
    if (atomic_exchange(&cpu->kicked, false)) {
        x->reason = VCPU_EXIT_INTERRUPTED;
        return true;
    }
    if (cpu->halted) {
        x->reason = VCPU_EXIT_HLT;
        x->interrupts_off = !cpu->run->if_flag;
        return true;
    }
    return false;
}

int kvm_run(void *vcpu, uint64_t budget, struct vcpu_exit *exit)
{
    struct kvm_cpu *cpu = vcpu;
    uint64_t end = cpu->stats.instructions + budget;
    int rc, done;

    memset(exit, 0, sizeof(*exit));
    cpu->exit_wanted = false;
    cpu->thread = pthread_self();
    rc = kvm_debug_begin(cpu, budget != 0);
    if (rc == 0)
        rc = kvm_apic_in(cpu);
    if (rc == 0)
        rc = refresh(cpu, exit);
    while (rc == 0) {
        if (cpu->unfinished && signalled(cpu)) /* the access before the interrupt */
            rc = kvm_finish(cpu, exit);
        if (rc == 0 && !cpu->unfinished) {
            rc = cpu->vm->split ? kvm_apic_pins(cpu) : 0;
            if (rc == 0)
                rc = offer_nmi(cpu);
            if (rc == 0)
                rc = cpu->vm->split ? offer_pic(cpu) : offer_interrupt(cpu);
        }
        if (rc < 0 || leave(cpu, exit))
            break;
        if (budget != 0 && cpu->stats.instructions >= end) {
            exit->reason = VCPU_EXIT_BUDGET;
            break;
        }
        if (cpu->debug_rearm)
            rc = kvm_debug_begin(cpu, budget != 0);
        if (rc == 0)
            rc = run_once(cpu, exit);
    }
    done = kvm_finish(cpu, exit);
    if (rc == 0)
        rc = done;
    if (rc == 0 && exit->reason != VCPU_EXIT_FAIL)
        rc = read_rip(cpu, &exit->rip);
    return rc;
}
