/*
 * The local APIC's registers as its vCPU sees them: the xAPIC page, the x2APIC MSRs,
 * IA32_APIC_BASE and IA32_TSC_DEADLINE. Runs on that vCPU's thread.
 */
#include "dev/lapic_impl.h"

#include "base/bits.h"

#define MSR_APIC_BASE 0x1Bu
#define MSR_TSC_DEADLINE 0x6E0u
#define MSR_X2APIC 0x800u

#define BASE_EXTD (1ull << 10)
#define BASE_EN (1ull << 11)

/* Bits a guest may write, by entry; the rest are reserved or read-only. */
static const uint32_t lvt_writable[LVT_COUNT] = {
    [LVT_TIMER] = 0x000700FF, [LVT_THERMAL] = 0x000107FF, [LVT_PERF] = 0x000107FF,
    [LVT_LINT0] = 0x0001A7FF, [LVT_LINT1] = 0x0001A7FF,   [LVT_ERROR] = 0x000100FF,
};
/* Read-only bits, whose writing is not an error: delivery status and remote IRR. */
#define LVT_READ_ONLY 0x5000u

#define ICR_WRITABLE 0x000CCFFFu
#define SVR_WRITABLE (0xFFu | SVR_ENABLE | SVR_NO_EOI_BROADCAST)
#define DIVIDE_WRITABLE 0xBu

/* Cluster in the upper half, a bit for each of its 16 members in the lower. */
uint32_t lapic_x2apic_ldr(unsigned id)
{
    return (id >> 4) << 16 | 1u << (id & 15);
}

/* ---- reads ---- */

static uint32_t read_apr(struct lapic *a)
{
    uint32_t tpr = a->tpr, irrv = lapic_highest_irr(a), isrv = (uint32_t)lapic_highest(a->isr);

    if (tpr >> 4 >= irrv >> 4 && tpr >> 4 > isrv >> 4)
        return tpr;
    return (uint32_t)max_u64(max_u64(tpr, isrv), irrv) & 0xF0;
}

/* Returns false where there is no readable register. Those of one mode only are the callers'. */
static bool reg_read(struct lapic *a, unsigned reg, uint32_t *value)
{
    if (reg >= REG_ISR && reg < REG_ISR + 8)
        *value = a->isr[reg - REG_ISR];
    else if (reg >= REG_TMR && reg < REG_TMR + 8)
        *value = a->tmr[reg - REG_TMR];
    else if (reg >= REG_IRR && reg < REG_IRR + 8)
        *value = a->irr[reg - REG_IRR];
    else if (reg >= REG_LVT && reg <= REG_LVT_END)
        *value = a->lvt[reg - REG_LVT];
    else {
        switch (reg) {
        case REG_ID:
            *value = a->mode == LAPIC_X2APIC ? a->id : a->id << 24;
            break;
        case REG_VERSION:
            *value = LAPIC_VERSION;
            break;
        case REG_TPR:
            *value = a->tpr;
            break;
        case REG_PPR:
            *value = a->ppr;
            break;
        case REG_LDR:
            *value = a->ldr;
            break;
        case REG_SVR:
            *value = a->svr;
            break;
        case REG_ESR:
            *value = a->esr;
            break;
        case REG_ICR:
            *value = a->icr_low;
            break;
        case REG_INITIAL:
            pthread_mutex_lock(&a->lock);
            *value = a->timer_initial;
            pthread_mutex_unlock(&a->lock);
            break;
        case REG_CURRENT:
            *value = lapic_timer_current(a);
            break;
        case REG_DIVIDE:
            *value = a->timer_divide;
            break;
        default:
            return false;
        }
    }
    return true;
}

/* ---- writes ---- */

static void write_svr(struct lapic *a, uint32_t value)
{
    a->svr = value & SVR_WRITABLE;
    if (!(value & SVR_ENABLE)) {
        for (unsigned i = 0; i < LVT_COUNT; i++)
            a->lvt[i] |= LVT_MASKED;
    }
    lapic_update_gates(a);
    lapic_retry(a);
}

/* Remote IRR, which another thread may set meanwhile, goes when level triggering does. */
static void write_lint0(struct lapic *a, uint32_t value)
{
    bool level = (value & LVT_LEVEL) != 0 && LVT_DELIVERY(value) == IRQ_FIXED;
    uint32_t old = a->lvt[LVT_LINT0];

    while (!atomic_compare_exchange_weak(&a->lvt[LVT_LINT0], &old,
                                         value | (level ? old & LVT_REMOTE_IRR : 0)))
        ;
    lapic_update_gates(a);
    lapic_lint0_check(a);
    lapic_retry(a);
}

static void write_lvt(struct lapic *a, unsigned entry, uint32_t value)
{
    value &= lvt_writable[entry];
    if (!(a->svr & SVR_ENABLE))
        value |= LVT_MASKED; /* cannot be cleared while software-disabled */
    if (entry == LVT_TIMER) {
        lapic_timer_set_lvt(a, value);
        return;
    }
    if (entry == LVT_LINT0)
        write_lint0(a, value);
    else
        a->lvt[entry] = value;
}

/* The value has passed the mode's own checks. Returns false where there is nothing to write. */
static bool reg_write(struct lapic *a, unsigned reg, uint32_t value)
{
    if (reg >= REG_LVT && reg <= REG_LVT_END) {
        write_lvt(a, reg - REG_LVT, value);
        return true;
    }
    switch (reg) {
    case REG_TPR:
        a->tpr = value & 0xFF;
        lapic_update_ppr(a);
        lapic_retry(a);
        return true;
    case REG_EOI:
        lapic_eoi(a);
        return true;
    case REG_SVR:
        write_svr(a, value);
        return true;
    case REG_ESR: /* a write latches what has gathered since the last one */
        a->error_told = false;
        a->esr = atomic_exchange(&a->esr_new, 0);
        return true;
    case REG_INITIAL:
        lapic_timer_set_initial(a, value);
        return true;
    case REG_DIVIDE:
        lapic_timer_set_divide(a, value & DIVIDE_WRITABLE);
        return true;
    default:
        return false;
    }
}

/* ---- xAPIC ---- */

static bool xapic_read(struct lapic *a, unsigned reg, uint32_t *value)
{
    switch (reg) {
    case REG_APR:
        *value = read_apr(a);
        return true;
    case REG_DFR:
        *value = a->dfr;
        return true;
    case REG_ICR_HIGH:
        *value = a->icr_high;
        return true;
    case REG_EOI: /* write-only, and remote reads are not offered: zero, no error */
    case REG_RRD:
        *value = 0;
        return true;
    default:
        return reg_read(a, reg, value);
    }
}

static bool xapic_write(struct lapic *a, unsigned reg, uint32_t value)
{
    switch (reg) {
    case REG_ID: /* the id is wired on processors of this version */
    case REG_VERSION:
    case REG_APR:
    case REG_PPR:
    case REG_RRD:
    case REG_CURRENT:
        return true;
    case REG_LDR:
        a->ldr = value & 0xFF000000u;
        return true;
    case REG_DFR:
        a->dfr = value | 0x0FFFFFFFu;
        return true;
    case REG_ICR_HIGH:
        a->icr_high = value & 0xFF000000u;
        return true;
    case REG_ICR:
        a->icr_low = value & ICR_WRITABLE;
        lapic_ipi(a, a->icr_low, a->icr_high >> 24);
        return true;
    default:
        if (reg >= REG_ISR && reg < REG_IRR + 8)
            return true; /* read-only */
        return reg_write(a, reg, value);
    }
}

uint64_t lapic_mmio_read(void *ctx, unsigned cpu, unsigned offset, unsigned size)
{
    struct lapics *l = ctx;
    struct lapic *a = &l->cpu[cpu];
    unsigned inside = offset & 15;
    uint32_t value = 0;

    if (a->mode != LAPIC_XAPIC)
        return bytes_mask(size);
    if (!xapic_read(a, (offset >> 4) & 0xFF, &value))
        lapic_error(a, ESR_REGISTER);
    /* Registers are four bytes wide and sixteen apart; between them is nothing. */
    return inside < 4 ? (value >> (8 * inside)) & bytes_mask(size) : 0;
}

void lapic_mmio_write(void *ctx, unsigned cpu, unsigned offset, unsigned size, uint64_t value)
{
    struct lapics *l = ctx;
    struct lapic *a = &l->cpu[cpu];

    if (a->mode != LAPIC_XAPIC)
        return;
    if ((offset & 15) != 0 || size < 4) {
        lapic_guest_error(a, "write that is not an aligned 32-bit one, at offset", offset);
        return;
    }
    if (!xapic_write(a, (offset >> 4) & 0xFF, (uint32_t)value))
        lapic_error(a, ESR_REGISTER);
}

/* ---- x2APIC ---- */

static int x2apic_read(struct lapic *a, unsigned reg, uint64_t *value)
{
    uint32_t low;

    if (!reg_read(a, reg, &low))
        return -1;
    *value = low;
    if (reg == REG_ICR)
        *value |= (uint64_t)a->icr_high << 32;
    return 0;
}

/* The bits that may be set in a write; zero for registers that cannot be written at all. */
static bool x2apic_write_mask(unsigned reg, uint64_t *mask)
{
    if (reg >= REG_LVT && reg <= REG_LVT_END) {
        *mask = lvt_writable[reg - REG_LVT] | 1u << 12;
        if (reg - REG_LVT == LVT_LINT0 || reg - REG_LVT == LVT_LINT1)
            *mask |= LVT_READ_ONLY;
        return true;
    }
    switch (reg) {
    case REG_TPR:
    case REG_SELF_IPI:
        *mask = 0xFF;
        return true;
    case REG_EOI:
    case REG_ESR:
        *mask = 0;
        return true;
    case REG_SVR:
        *mask = SVR_WRITABLE;
        return true;
    case REG_ICR:
        *mask = 0xFFFFFFFF00000000ull | ICR_WRITABLE;
        return true;
    case REG_INITIAL:
        *mask = 0xFFFFFFFFu;
        return true;
    case REG_DIVIDE:
        *mask = DIVIDE_WRITABLE;
        return true;
    default:
        return false;
    }
}

static int x2apic_write(struct lapic *a, unsigned reg, uint64_t value)
{
    uint64_t mask;

    if (!x2apic_write_mask(reg, &mask) || (value & ~mask) != 0)
        return -1;
    if (reg == REG_ICR) {
        a->icr_low = (uint32_t)value;
        a->icr_high = (uint32_t)(value >> 32);
        lapic_ipi(a, a->icr_low, a->icr_high);
        return 0;
    }
    if (reg == REG_SELF_IPI) {
        if (value < 16)
            lapic_error(a, ESR_SEND_VECTOR);
        lapic_post(a, (uint8_t)value, false);
        return 0;
    }
    return reg_write(a, reg, (uint32_t)value) ? 0 : -1;
}

/* ---- IA32_APIC_BASE ---- */

static uint64_t base_read(struct lapic *a)
{
    uint64_t value = a->base;

    if (a->mode != LAPIC_DISABLED)
        value |= BASE_EN;
    if (a->mode == LAPIC_X2APIC)
        value |= BASE_EXTD;
    return value;
}

/*
 * Disabled → xAPIC → x2APIC → disabled, and back from xAPIC; all else faults. Leaving for disabled
 * loses the state, as the SDM lets it. Intel SDM Vol.3, x2APIC state transitions.
 */
static int base_write(struct lapic *a, uint64_t value)
{
    uint32_t now = a->mode, next;

    if ((value & ~(LAPIC_BASE_BSP | BASE_EXTD | BASE_EN | a->set->base_mask)) != 0)
        return -1;
    if (!(value & BASE_EN))
        next = LAPIC_DISABLED;
    else
        next = value & BASE_EXTD ? LAPIC_X2APIC : LAPIC_XAPIC;
    if ((value & BASE_EXTD) != 0 && next != LAPIC_X2APIC)
        return -1;
    if ((now == LAPIC_DISABLED && next == LAPIC_X2APIC) ||
        (now == LAPIC_X2APIC && next == LAPIC_XAPIC))
        return -1;
    a->base = value & (LAPIC_BASE_BSP | a->set->base_mask); /* the engine moves the page */
    log_trace(a->set->env->log, "lapic", "vCPU %u: mode %u to %u, base %#llx", a->id, now, next,
              (unsigned long long)value);
    if (now == next)
        return 0;
    a->mode = next;
    if (next == LAPIC_DISABLED) {
        lapic_clear(a);
    } else if (next == LAPIC_X2APIC) {
        a->ldr = lapic_x2apic_ldr(a->id);
        a->icr_high = 0;
    }
    lapic_update_gates(a);
    lapic_retry(a);
    return 0;
}

int lapic_msr_read(void *ctx, unsigned cpu, uint32_t msr, uint64_t *value)
{
    struct lapics *l = ctx;
    struct lapic *a = &l->cpu[cpu];

    if (msr == MSR_APIC_BASE) {
        *value = base_read(a);
        return 0;
    }
    if (msr == MSR_TSC_DEADLINE) {
        *value = lapic_timer_get_deadline(a);
        return 0;
    }
    if (a->mode != LAPIC_X2APIC || msr < MSR_X2APIC || msr > MSR_X2APIC + 0xFF)
        return -1;
    return x2apic_read(a, msr - MSR_X2APIC, value);
}

int lapic_msr_write(void *ctx, unsigned cpu, uint32_t msr, uint64_t value)
{
    struct lapics *l = ctx;
    struct lapic *a = &l->cpu[cpu];

    if (msr == MSR_APIC_BASE)
        return base_write(a, value);
    if (msr == MSR_TSC_DEADLINE) {
        lapic_timer_set_deadline(a, value);
        return 0;
    }
    if (a->mode != LAPIC_X2APIC || msr < MSR_X2APIC || msr > MSR_X2APIC + 0xFF)
        return -1;
    return x2apic_write(a, msr - MSR_X2APIC, value);
}
