/*
 * The local APIC as the software CPU asks it (ours with KVM_CAP_SPLIT_IRQCHIP, else userspace's, of
 * which only the interrupt window is here), and as KVM_GET_LAPIC shows it. The latter reads and
 * writes the registers where they lie, which no message and no guest could.
 */
#include "fake_impl.h"

#include <errno.h>
#include <string.h>

#include "dev/lapic_impl.h"

static struct lapic *apic_of(struct fake_vcpu *v)
{
    return &v->vm->lapics->cpu[v->id];
}

bool fake_lapic_takes_extint(struct fake_vcpu *v)
{
    uint32_t lint0;

    if (!v->vm->split)
        return true;
    lint0 = apic_of(v)->lvt[LVT_LINT0];
    return apic_of(v)->mode == LAPIC_DISABLED ||
           (!(lint0 & LVT_MASKED) && LVT_DELIVERY(lint0) == IRQ_EXTINT);
}

/* Is there one that userspace has given, or is there a window for it to give one? */
static bool window_wanted(struct fake_vcpu *v)
{
    return v->run->request_interrupt_window && v->extint < 0 && fake_lapic_takes_extint(v) &&
           (v->vm->split || !fake_soft_halting(v)); /* without APICs HLT exits first */
}

static bool op_pending(void *ctx, unsigned cpu)
{
    struct fake_vm *vm = ctx;
    struct fake_vcpu *v = fake_vcpu_of(vm, cpu);

    if (v->extint >= 0 && fake_lapic_takes_extint(v))
        return true;
    return window_wanted(v) || (vm->split && lapics_cpu_ops.pending(vm->lapics, cpu));
}

/* The CPU would take an interrupt now: between two instructions, IF set, no shadow. */
static int op_ack(void *ctx, unsigned cpu)
{
    struct fake_vm *vm = ctx;
    struct fake_vcpu *v = fake_vcpu_of(vm, cpu);
    int vector = -1;

    if (v->extint >= 0 && fake_lapic_takes_extint(v)) {
        vector = v->extint;
        v->extint = -1;
    } else if (vm->split) {
        vector = lapics_cpu_ops.ack(vm->lapics, cpu);
    }
    if (vector >= 0) {
        fake_soft_forget(v); /* it may tell of memory that a device has written */
        return vector;
    }
    if (window_wanted(v))
        fake_window(v);
    return -1;
}

static uint64_t op_mmio_read(void *ctx, unsigned cpu, unsigned offset, unsigned size)
{
    struct fake_vm *vm = ctx;

    return lapics_cpu_ops.mmio_read(vm->lapics, cpu, offset, size);
}

static void op_mmio_write(void *ctx, unsigned cpu, unsigned offset, unsigned size, uint64_t value)
{
    struct fake_vm *vm = ctx;

    lapics_cpu_ops.mmio_write(vm->lapics, cpu, offset, size, value);
}

/*
 * Without APICs of ours the CPU's accesses go to userspace: it finds its APIC in the last page that
 * an address has bits for. Whether it is on shows in CPUID all the same.
 */
static int op_msr_read(void *ctx, unsigned cpu, uint32_t msr, uint64_t *value)
{
    struct fake_vm *vm = ctx;

    if (vm->split)
        return lapics_cpu_ops.msr_read(vm->lapics, cpu, msr, value);
    *value = (fake_vcpu_of(vm, cpu)->apic_base & 0xfff) | 0xffffffffff000;
    return msr == 0x1b ? 0 : -1;
}

static int op_msr_write(void *ctx, unsigned cpu, uint32_t msr, uint64_t value)
{
    struct fake_vm *vm = ctx;

    return vm->split ? lapics_cpu_ops.msr_write(vm->lapics, cpu, msr, value) : -1;
}

static uint8_t op_get_cr8(void *ctx, unsigned cpu)
{
    struct fake_vm *vm = ctx;

    return vm->split ? lapics_cpu_ops.get_cr8(vm->lapics, cpu)
                     : (uint8_t)fake_vcpu_of(vm, cpu)->cr8;
}

static void op_set_cr8(void *ctx, unsigned cpu, uint8_t value)
{
    struct fake_vm *vm = ctx;
    struct fake_vcpu *v = fake_vcpu_of(vm, cpu);

    if (vm->split) {
        lapics_cpu_ops.set_cr8(vm->lapics, cpu, value);
        return;
    }
    if (value < v->cr8) { /* what userspace's APIC held back may come now */
        v->tpr_lowered = true;
        fake_soft_stop_after(v);
    }
    v->cr8 = value;
}

const struct lapic_cpu_ops fake_lapic_ops = {
    .pending = op_pending,
    .ack = op_ack,
    .mmio_read = op_mmio_read,
    .mmio_write = op_mmio_write,
    .msr_read = op_msr_read,
    .msr_write = op_msr_write,
    .get_cr8 = op_get_cr8,
    .set_cr8 = op_set_cr8,
};

/* ---- IA32_APIC_BASE from userspace: any mode may follow any other ---- */

uint64_t fake_get_apic_base(struct fake_vcpu *v)
{
    uint64_t value = v->apic_base;

    if (v->vm->split)
        lapics_cpu_ops.msr_read(v->vm->lapics, v->id, 0x1b, &value);
    return value;
}

bool fake_set_apic_base(struct fake_vcpu *v, uint64_t value)
{
    uint64_t address = ((1ull << v->vm->fake->host.phys_bits) - 1) & ~0xfffull;
    struct lapic *a;

    if ((value & ~(address | 0xd00)) != 0 || (value & 0xc00) == 0x400)
        return false;
    v->apic_base = value;
    if (!v->vm->split)
        return true;
    a = apic_of(v);
    a->base = value & (address | LAPIC_BASE_BSP);
    a->mode = !(value & 0x800) ? LAPIC_DISABLED : value & 0x400 ? LAPIC_X2APIC : LAPIC_XAPIC;
    if (a->mode == LAPIC_X2APIC)
        a->ldr = lapic_x2apic_ldr(a->id);
    lapic_update_gates(a);
    v->dirty = true; /* the CPU looks for the page when its state is set */
    return true;
}

/* ---- KVM_GET_LAPIC ---- */

void fake_get_lapic(struct fake_vcpu *v, struct kvm_lapic_state *out)
{
    struct lapic_page p;

    lapic_page_read(apic_of(v), false, &p); /* the id as in xAPIC mode: no KVM_CAP_X2APIC_API */
    memcpy(out->regs, p.reg, sizeof(out->regs));
}

/* The deadline is an MSR's, and stays. */
void fake_set_lapic(struct fake_vcpu *v, const struct kvm_lapic_state *in)
{
    struct lapic_page p;

    lapic_page_read(apic_of(v), false, &p);
    memcpy(p.reg, in->regs, sizeof(p.reg));
    lapic_page_put(v->vm->lapics, v->id, &p);
}

/* As KVM makes one, not as ours wakes up: disabled by software, LINT0 of the first is ExtINT. */
void fake_lapic_reset(struct fake_vcpu *v)
{
    struct lapic *a = apic_of(v);

    lapics_init(v->vm->lapics, v->id);
    if (v->id == 0)
        a->lvt[LVT_LINT0] = IRQ_EXTINT << 8;
    lapic_update_gates(a);
}
