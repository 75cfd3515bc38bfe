#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/endian.h"
#include "engine/kvm/internal.h"

/*
 * Local APICs in the kernel (KVM_CAP_SPLIT_IRQCHIP): messages go there by KVM_SIGNAL_MSI or an
 * irqfd, the PIC and the IOAPIC stay ours. One vCPU: its APIC moves to the board's for a rescue and
 * comes back.
 */

#define MSR_TSC_DEADLINE 0x6e0u
#define REG_ID 0x20u /* offsets in the page */
#define REG_SVR 0xf0u
#define REG_LINT0 0x350u
#define REG_LINT1 0x360u
#define REG_LVT_TIMER 0x320u
#define REG_INITIAL 0x380u
#define REG_CURRENT 0x390u
#define SVR_NO_EOI_BROADCAST (1u << 12)
#define LVT_LEVEL (1u << 15)
#define LVT_MASKED (1u << 16)
#define LVT_PERIODIC (1u << 17)
#define BASE_ON 0x800u
#define BASE_X2APIC 0x400u

#ifndef KVM_CAP_X86_APIC_BUS_CYCLES_NS
#define KVM_CAP_X86_APIC_BUS_CYCLES_NS 237 /* Linux 6.11 */
#endif

_Static_assert(sizeof(struct kvm_lapic_state) == sizeof(((struct lapic_page *)0)->reg),
               "the kernel's form of an APIC is the board's");

/* ---- is it wanted ---- */

bool kvm_apic_wanted(const struct kvm_sys *sys, int dev_fd, const struct engine_env *env)
{
    static const unsigned long caps[] = {KVM_CAP_SPLIT_IRQCHIP, KVM_CAP_SIGNAL_MSI,
                                         KVM_CAP_TSC_DEADLINE_TIMER};

    if (env->board_lapic || env->cpus != 1)
        return false;
    for (unsigned i = 0; i < countof(caps); i++) {
        if (kvm_check_extension(sys, dev_fd, caps[i]) == 0)
            return false;
    }
    return kvm_check_extension(sys, dev_fd, KVM_CAP_IRQ_ROUTING) >= (int)IRQ_GSI_COUNT;
}

/* What the kernel's APIC timer counts: 1 GHz, unless it can be told the board's frequency. */
uint32_t kvm_apic_hz(const struct kvm_sys *sys, int dev_fd)
{
    return kvm_check_extension(sys, dev_fd, KVM_CAP_X86_APIC_BUS_CYCLES_NS) != 0 ? X86_CRYSTAL_HZ
                                                                                 : 1000000000u;
}

/* ---- messages; any thread ---- */

static int signal_msi(const struct kvm_machine *vm, const struct irq_message *m)
{
    struct kvm_msi msi = kvm_msi_of(m);

    return kvm_vm_ioctl(vm, KVM_SIGNAL_MSI, (uintptr_t)&msi);
}

/* INIT and SMI are the VM's business, and the board's APICs tell it so. */
static void to_kernel(struct kvm_machine *vm, const struct irq_message *m)
{
    switch ((enum irq_delivery)m->delivery) {
    case IRQ_FIXED:
    case IRQ_LOWEST:
    case IRQ_NMI:
        if (m->assert && signal_msi(vm, m) < 0 && !atomic_exchange(&vm->refused, true))
            log_warn(vm->env.log, "KVM refuses the interrupt message of vector %#x to %#x",
                     m->vector, m->dest);
        break;
    case IRQ_EXTINT:
        if (!atomic_exchange(&vm->refused, true))
            log_warn(vm->env.log,
                     "an ExtINT message is dropped: the kernel's local APIC takes none; "
                     "kvm.irqchip=user does");
        break;
    case IRQ_SMI:
    case IRQ_INIT:
    case IRQ_STARTUP:
        vm->board->deliver(vm->board_ctx, m);
        break;
    }
}

static void deliver(void *ctx, const struct irq_message *m)
{
    struct kvm_machine *vm = ctx;

    pthread_rwlock_rdlock(&vm->moving);
    if (vm->away)
        vm->board->deliver(vm->board_ctx, m);
    else
        to_kernel(vm, m);
    pthread_rwlock_unlock(&vm->moving);
}

/* The board's APIC keeps the level of its pin at all times; of the rest it has nothing now. */
static void extint(void *ctx, bool level)
{
    struct kvm_machine *vm = ctx;
    struct kvm_cpu *cpu = atomic_load(&vm->first);

    vm->board->extint(vm->board_ctx, level);
    if (cpu == NULL || !level)
        return;
    atomic_store(&cpu->lint0_signal, true);
    atomic_store(&cpu->irq_signal, true);
    kvm_poke(cpu);
}

static void nmi(void *ctx)
{
    struct kvm_machine *vm = ctx;
    struct kvm_cpu *cpu = atomic_load(&vm->first);

    if (cpu == NULL)
        return;
    atomic_store(&cpu->lint1_signal, true);
    kvm_poke(cpu);
}

/* ---- which ends of interrupts the IOAPIC hears of ---- */

/* The kernel looks at vector, destination and trigger mode, and exits at those vectors' EOI. */
static void pin(void *ctx, unsigned n, const struct irq_message *m)
{
    struct kvm_machine *vm = ctx;
    int rc;

    if (n >= IRQ_GSI_COUNT)
        return;
    rc = kvm_route_pin(vm, n, m);
    if (rc < 0)
        log_error(vm->env.log, "KVM refuses the IOAPIC's routes: %s; try -o kvm.irqchip=user",
                  strerror(-rc));
}

static const struct lapic_ops ops = {.deliver = deliver, .extint = extint, .nmi = nmi, .pin = pin};

/* ---- life ---- */

int kvm_apic_setup(struct kvm_machine *vm, struct error *err)
{
    struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {IRQ_GSI_COUNT}};
    struct kvm_enable_cap ids = {.cap = KVM_CAP_X2APIC_API, .args = {KVM_X2APIC_API_USE_32BIT_IDS}};
    struct kvm_enable_cap cycle = {.cap = KVM_CAP_X86_APIC_BUS_CYCLES_NS,
                                   .args = {1000000000u / X86_CRYSTAL_HZ}};
    unsigned flags = (unsigned)kvm_check_extension(vm->sys, vm->fd, KVM_CAP_X2APIC_API);
    int rc = 0;

    if (flags & KVM_X2APIC_API_USE_32BIT_IDS) {
        rc = kvm_vm_ioctl(vm, KVM_ENABLE_CAP, (uintptr_t)&ids);
        vm->caps.x2apic_ids = rc >= 0;
    }
    if (rc >= 0)
        rc = kvm_vm_ioctl(vm, KVM_ENABLE_CAP, (uintptr_t)&split);
    if (rc >= 0 && kvm_apic_hz(vm->sys, vm->dev_fd) == X86_CRYSTAL_HZ)
        rc = kvm_vm_ioctl(vm, KVM_ENABLE_CAP, (uintptr_t)&cycle);
    if (rc >= 0)
        rc = kvm_routes_begin(vm);
    if (rc < 0)
        return error_set(err, rc, "KVM gives no local APICs: %s; try -o kvm.irqchip=user",
                         strerror(-rc));
    vm->away = true; /* until the first run */
    vm->board = irq_lapics(vm->env.irqs, &vm->board_ctx);
    if (vm->board == NULL)
        return error_set(err, -EINVAL, "the board has no local APICs");
    irq_attach_lapics(vm->env.irqs, &ops, vm);
    return 0;
}

void kvm_apic_end(struct kvm_machine *vm)
{
    if (vm->board != NULL) {
        kvm_irqfds(vm, false);
        irq_attach_lapics(vm->env.irqs, NULL, NULL);
    }
    kvm_routes_end(vm);
}

int kvm_mp_state(struct kvm_cpu *cpu, uint32_t *state)
{
    struct kvm_mp_state m = {KVM_MP_STATE_RUNNABLE};
    int rc = kvm_cpu_ioctl_p(cpu, KVM_GET_MP_STATE, &m);

    *state = m.mp_state;
    return rc;
}

/* ---- there and back; on the vCPU's thread ---- */

static bool wide_id(const struct kvm_cpu *cpu, uint64_t base)
{
    return cpu->vm->caps.x2apic_ids && (base & (BASE_ON | BASE_X2APIC)) == (BASE_ON | BASE_X2APIC);
}

static int set_base(struct kvm_cpu *cpu, const struct lapic_page *p)
{
    struct kvm_sregs s;
    int rc = kvm_cpu_ioctl_p(cpu, KVM_GET_SREGS, &s);

    if (rc < 0 || s.apic_base == p->base)
        return rc;
    s.apic_base = p->base;
    memset(s.interrupt_bitmap, 0, sizeof(s.interrupt_bitmap));
    return kvm_cpu_ioctl_p(cpu, KVM_SET_SREGS, &s);
}

static int put(struct kvm_cpu *cpu, struct lapic_page *p)
{
    int rc = set_base(cpu, p);

    if (wide_id(cpu, p->base))
        le32_store(p->reg + REG_ID, cpu->id);
    /* a count that has run out would run out again at once */
    if (!(le32_load(p->reg + REG_LVT_TIMER) & LVT_PERIODIC) && le32_load(p->reg + REG_CURRENT) == 0)
        le32_store(p->reg + REG_INITIAL, 0);
    if (rc == 0)
        rc = kvm_cpu_ioctl_p(cpu, KVM_SET_LAPIC, p->reg);
    if (rc == 0 && kvm_msr_set(cpu, MSR_TSC_DEADLINE, p->deadline) < 0 && p->deadline != 0)
        rc = -EINVAL;
    return rc;
}

int kvm_apic_in(struct kvm_cpu *cpu)
{
    struct kvm_machine *vm = cpu->vm;
    struct lapic_page p;
    int rc;

    if (!vm->split || !vm->away)
        return 0;
    pthread_rwlock_wrlock(&vm->moving);
    vm->env.lapic->take(vm->env.lapic_ctx, cpu->id, &p);
    rc = put(cpu, &p);
    vm->away = rc != 0;
    pthread_rwlock_unlock(&vm->moving);
    cpu->stale = true;
    atomic_store(&cpu->irq_signal, true); /* the PIC may have spoken to the board's meanwhile */
    if (rc < 0)
        log_error(vm->env.log, "vCPU %u: KVM does not take its local APIC: %s", cpu->id,
                  strerror(-rc));
    else
        kvm_irqfds(vm, true);
    return rc;
}

int kvm_lapic_home(void *vcpu)
{
    struct kvm_cpu *cpu = vcpu;
    struct kvm_machine *vm = cpu->vm;
    struct lapic_page p = {0};
    struct kvm_sregs s;
    int rc;

    if (!vm->split || vm->away)
        return 0;
    kvm_irqfds(vm, false); /* the kernel would give their messages to an APIC that has gone */
    pthread_rwlock_wrlock(&vm->moving);
    rc = kvm_cpu_ioctl_p(cpu, KVM_GET_SREGS, &s);
    if (rc == 0)
        rc = kvm_cpu_ioctl_p(cpu, KVM_GET_LAPIC, p.reg);
    if (rc == 0 && kvm_msr_get(cpu, MSR_TSC_DEADLINE, &p.deadline) < 0)
        p.deadline = 0;
    if (rc == 0) {
        p.base = s.apic_base;
        if (wide_id(cpu, p.base))
            le32_store(p.reg + REG_ID, cpu->id << 24);
        /* the kernel's timer does not run beside ours */
        (void)kvm_msr_set(cpu, MSR_TSC_DEADLINE, 0);
        vm->env.lapic->put(vm->env.lapic_ctx, cpu->id, &p);
        vm->away = true;
    }
    pthread_rwlock_unlock(&vm->moving);
    return rc;
}

/* ---- what this kernel's APIC leaves to us ---- */

static int reg_get(struct kvm_cpu *cpu, unsigned offset, uint32_t *value)
{
    struct kvm_lapic_state s;
    int rc = kvm_cpu_ioctl_p(cpu, KVM_GET_LAPIC, &s);

    *value = rc == 0 ? le32_load((const uint8_t *)s.regs + offset) : 0;
    return rc;
}

/* A guest that ends level-triggered interrupts at the IOAPIC itself has said so in SVR. */
int kvm_apic_eoi(struct kvm_cpu *cpu, uint8_t vector)
{
    uint32_t svr;
    int rc = reg_get(cpu, REG_SVR, &svr);

    if (rc == 0 && !(svr & SVR_NO_EOI_BROADCAST))
        irq_eoi_broadcast(cpu->vm->env.irqs, vector);
    return rc;
}

/* The NMI button. A local APIC that is off passes its pins on. */
static int lint1(struct kvm_cpu *cpu)
{
    uint32_t lvt;
    int rc = reg_get(cpu, REG_LINT1, &lvt);

    if (rc < 0 ||
        ((cpu->run->apic_base & BASE_ON) && ((lvt & LVT_MASKED) || (lvt >> 8 & 7) != IRQ_NMI)))
        return rc;
    return kvm_cpu_ioctl(cpu, KVM_NMI, 0);
}

/* The PIC's output has risen, and the pin may be set to something else than to hear the PIC. */
static int lint0(struct kvm_cpu *cpu)
{
    struct irq_message m = {.dest = cpu->id, .assert = true};
    uint32_t lvt;
    int rc = reg_get(cpu, REG_LINT0, &lvt);

    if (rc < 0 || !(cpu->run->apic_base & BASE_ON) || (lvt & (LVT_MASKED | LVT_LEVEL)))
        return rc;
    m.vector = (uint8_t)lvt;
    m.delivery = lvt >> 8 & 7;
    if (m.delivery == IRQ_NMI)
        return kvm_cpu_ioctl(cpu, KVM_NMI, 0);
    rc = m.delivery == IRQ_FIXED ? signal_msi(cpu->vm, &m) : 0;
    return rc < 0 ? rc : 0;
}

int kvm_apic_pins(struct kvm_cpu *cpu)
{
    int rc = 0;

    if (atomic_exchange(&cpu->lint0_signal, false))
        rc = lint0(cpu);
    if (rc == 0 && atomic_exchange(&cpu->lint1_signal, false))
        rc = lint1(cpu);
    return rc;
}
