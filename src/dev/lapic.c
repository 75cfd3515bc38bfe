#include "dev/lapic_impl.h"

#include <errno.h>
#include <stdlib.h>

#include "base/bits.h"
#include "dev/lapic_nmi.h"

/* ---- interrupt requests ---- */

int lapic_highest(const uint32_t bits[8])
{
    for (int i = 7; i >= 0; i--) {
        if (bits[i] != 0)
            return 32 * i + 31 - __builtin_clz(bits[i]);
    }
    return 0;
}

uint32_t lapic_highest_irr(struct lapic *a)
{
    for (int i = 7; i >= 0; i--) {
        uint32_t word = atomic_load(&a->irr[i]);

        if (word != 0)
            return 32u * (unsigned)i + 31u - (unsigned)__builtin_clz(word);
    }
    return 0;
}

static void raise_top(struct lapic *a, uint32_t vector)
{
    uint32_t top = atomic_load(&a->irr_top);

    while (top < vector && !atomic_compare_exchange_weak(&a->irr_top, &top, vector))
        ;
}

/*
 * On the vCPU's thread, after it took a bit out of IRR. A poster sets its bit, then reads irr_top;
 * we write irr_top, then read IRR again. One of the two sees the other (all are seq_cst), so
 * irr_top never stays below a set bit.
 */
static void lower_top(struct lapic *a)
{
    atomic_store(&a->irr_top, lapic_highest_irr(a));
    raise_top(a, lapic_highest_irr(a));
}

/*
 * LINT0 of the first processor is the PIC's output, which is active high; the others' pins are not
 * connected. A disabled APIC has no polarity bit to look at.
 */
static bool lint0_asserted(struct lapic *a)
{
    bool low = a->mode != LAPIC_DISABLED && (a->lvt[LVT_LINT0] & LVT_ACTIVE_LOW) != 0;

    return a->id == 0 && (bool)atomic_load(&a->set->extint_level) != low;
}

/* The bound may be too high for a moment; lapic_ack() then finds nothing and corrects it. */
bool lapic_pending(struct lapic *a)
{
    if (atomic_load(&a->irr_top) >> 4 > atomic_load(&a->ppr) >> 4)
        return true;
    if (atomic_load(&a->extint_message))
        return true;
    return atomic_load(&a->extint_open) && lint0_asserted(a);
}

void lapic_retry(struct lapic *a)
{
    if (lapic_pending(a))
        a->set->signals->interrupt(a->set->signals_ctx, a->id);
}

void lapic_update_ppr(struct lapic *a)
{
    uint32_t isrv = (uint32_t)lapic_highest(a->isr);

    a->ppr = a->tpr >> 4 >= isrv >> 4 ? a->tpr : isrv & 0xF0;
}

/* A hardware-disabled APIC passes its LINT0 pin through as INTR. */
void lapic_update_gates(struct lapic *a)
{
    uint32_t lint0 = a->lvt[LVT_LINT0];

    a->extint_open = a->id == 0 && (a->mode == LAPIC_DISABLED ||
                                    (!(lint0 & LVT_MASKED) && LVT_DELIVERY(lint0) == IRQ_EXTINT));
}

/*
 * Any thread. TMR goes before IRR, so that whoever sees the request sees its trigger mode. A
 * software-disabled APIC accepts nothing new.
 */
void lapic_post(struct lapic *a, uint8_t vector, bool level)
{
    uint32_t bit = 1u << (vector & 31);

    if (a->mode == LAPIC_DISABLED || !(a->svr & SVR_ENABLE))
        return;
    if (vector < 16) {
        lapic_error(a, ESR_RECEIVE_VECTOR);
        return;
    }
    if (level)
        atomic_fetch_or(&a->tmr[vector / 32], bit);
    else
        atomic_fetch_and(&a->tmr[vector / 32], ~bit);
    atomic_fetch_or(&a->irr[vector / 32], bit);
    raise_top(a, vector);
    a->set->signals->interrupt(a->set->signals_ctx, a->id);
}

/* Any thread. One interrupt stands for all errors until the guest writes ESR. */
void lapic_error(struct lapic *a, uint32_t esr_bit)
{
    uint32_t lvt = a->lvt[LVT_ERROR];

    atomic_fetch_or(&a->esr_new, esr_bit);
    if (lvt & LVT_MASKED)
        return;
    if ((lvt & 0xFF) < 16) /* its own vector is illegal: no second interrupt about that */
        atomic_fetch_or(&a->esr_new, ESR_RECEIVE_VECTOR);
    else if (!atomic_exchange(&a->error_told, true))
        lapic_post(a, (uint8_t)lvt, false);
}

static void deliver_one(struct lapic *a, uint8_t delivery, uint8_t vector, bool level)
{
    struct lapics *l = a->set;

    switch ((enum irq_delivery)delivery) {
    case IRQ_FIXED:
    case IRQ_LOWEST:
        lapic_post(a, vector, level);
        break;
    case IRQ_SMI:
        l->signals->smi(l->signals_ctx, a->id);
        break;
    case IRQ_NMI:
        l->signals->nmi(l->signals_ctx, a->id);
        break;
    case IRQ_INIT:
        l->signals->init(l->signals_ctx, a->id);
        break;
    case IRQ_STARTUP:
        l->signals->sipi(l->signals_ctx, a->id, vector);
        break;
    case IRQ_EXTINT:
        if (!(a->svr & SVR_ENABLE)) /* INIT, NMI, SMI and SIPI are all it hears then */
            break;
        atomic_store(&a->extint_message, true);
        l->signals->interrupt(l->signals_ctx, a->id);
        break;
    }
}

/* Any thread. LINT0's ExtINT is not for here, it is a gate (lapic_update_gates). */
void lapic_lvt_fire(struct lapic *a, unsigned entry)
{
    uint32_t lvt = a->lvt[entry];

    if (a->mode == LAPIC_DISABLED || (lvt & LVT_MASKED) != 0)
        return;
    if (entry == LVT_TIMER || entry == LVT_ERROR) {
        lapic_post(a, (uint8_t)lvt, false);
        return;
    }
    if (LVT_DELIVERY(lvt) != IRQ_LOWEST && LVT_DELIVERY(lvt) != IRQ_STARTUP) /* of messages alone */
        deliver_one(a, LVT_DELIVERY(lvt), (uint8_t)lvt, false);
}

/*
 * Any thread: after a change of the wire, of LVT LINT0, or an EOI. Remote IRR goes up with the
 * request, whoever of them comes first, and holds back the next one until the EOI.
 */
void lapic_lint0_check(struct lapic *a)
{
    uint32_t lvt = a->lvt[LVT_LINT0];

    do {
        if (a->mode == LAPIC_DISABLED || LVT_DELIVERY(lvt) != IRQ_FIXED ||
            (lvt & (LVT_LEVEL | LVT_MASKED | LVT_REMOTE_IRR)) != LVT_LEVEL || !lint0_asserted(a))
            return;
        if ((lvt & 0xFF) < 16) {
            lapic_error(a, ESR_RECEIVE_VECTOR);
            return;
        }
    } while (!atomic_compare_exchange_weak(&a->lvt[LVT_LINT0], &lvt, lvt | LVT_REMOTE_IRR));
    lapic_post(a, (uint8_t)lvt, true);
}

/* ---- accepting and ending ---- */

static int lapic_ack(void *ctx, unsigned cpu)
{
    struct lapics *l = ctx;
    struct lapic *a = &l->cpu[cpu];
    uint32_t vector;

    if (atomic_exchange(&a->extint_message, false) || (a->extint_open && lint0_asserted(a)))
        return irq_pic_ack(l->env->irqs);
    vector = lapic_highest_irr(a);
    if (vector >> 4 <= a->ppr >> 4) {
        lower_top(a);
        return -1;
    }
    atomic_fetch_and(&a->irr[vector / 32], ~(1u << (vector & 31)));
    a->isr[vector / 32] |= 1u << (vector & 31);
    lower_top(a);
    lapic_update_ppr(a);
    return (int)vector;
}

/* A level-triggered LINT0 in fixed mode asks again while the pin stays asserted. */
static void lint0_eoi(struct lapic *a, uint32_t vector)
{
    uint32_t lvt = a->lvt[LVT_LINT0];

    if (!(lvt & LVT_REMOTE_IRR) || (lvt & 0xFF) != vector)
        return;
    atomic_fetch_and(&a->lvt[LVT_LINT0], ~LVT_REMOTE_IRR);
    lapic_lint0_check(a);
}

void lapic_eoi(struct lapic *a)
{
    uint32_t vector = (uint32_t)lapic_highest(a->isr);
    uint32_t bit = 1u << (vector & 31);

    if (vector == 0)
        return; /* nothing in service: a stray EOI has no effect */
    a->isr[vector / 32] &= ~bit;
    lapic_update_ppr(a);
    if ((a->tmr[vector / 32] & bit) != 0 && !(a->svr & SVR_NO_EOI_BROADCAST))
        irq_eoi_broadcast(a->set->env->irqs, (uint8_t)vector);
    lint0_eoi(a, vector);
    lapic_retry(a);
}

/* ---- messages ---- */

/* broadcast is the sender's notion: 0xFF or 0xFFFFFFFF, by the width of its destination. */
static bool matches(struct lapic *a, uint32_t dest, bool logical, bool broadcast)
{
    uint32_t mode = a->mode, ldr = a->ldr;

    if (mode == LAPIC_DISABLED)
        return false;
    if (!logical)
        return broadcast || dest == a->id;
    if (mode == LAPIC_X2APIC)
        return broadcast || (dest >> 16 == ldr >> 16 && (dest & ldr & 0xFFFF) != 0);
    ldr >>= 24;
    dest &= 0xFF;
    if (a->dfr >> 28 == 0xF) /* flat: a bit for each processor */
        return (dest & ldr) != 0;
    /* Clusters: the upper four bits are equal, or all ones for every cluster. */
    return (dest >> 4 == ldr >> 4 || dest >> 4 == 0xF) && (dest & ldr & 0xF) != 0;
}

/* The least busy of those addressed; equals take turns. Only who would accept it stands. */
static void deliver_lowest(struct lapics *l, const struct irq_message *msg, bool broadcast,
                           const struct lapic *skip)
{
    struct lapic *best = NULL;
    unsigned start = atomic_load(&l->arbiter) % l->cpus;

    for (unsigned i = 0; i < l->cpus; i++) {
        struct lapic *a = &l->cpu[(start + i) % l->cpus];

        if (a == skip || !(a->svr & SVR_ENABLE) || !matches(a, msg->dest, msg->logical, broadcast))
            continue;
        if (best == NULL || a->ppr >> 4 < best->ppr >> 4)
            best = a;
    }
    if (best == NULL)
        return;
    atomic_store(&l->arbiter, best->id + 1);
    deliver_one(best, IRQ_LOWEST, msg->vector, msg->level);
}

/* skip: an APIC that does not take part (the sender's), or NULL. */
static void deliver_set(struct lapics *l, const struct irq_message *msg, bool broadcast,
                        const struct lapic *skip)
{
    /*
     * De-assertions have no effect: that of INIT only resets arbitration ids, which no longer
     * exist, and that of a level is for the sender to know.
     */
    if (!msg->assert)
        return;
    if (msg->delivery == IRQ_LOWEST) {
        deliver_lowest(l, msg, broadcast, skip);
        return;
    }
    for (unsigned i = 0; i < l->cpus; i++) {
        struct lapic *a = &l->cpu[i];

        if (a != skip && matches(a, msg->dest, msg->logical, broadcast))
            deliver_one(a, msg->delivery, msg->vector, msg->level);
    }
}

/*
 * From the IOAPIC and from MSIs: their destinations have eight bits, the APIC id 0xFF is everyone.
 * A logical 0xFF is a set of bits like others; for APICs in x2APIC mode, in cluster 0.
 */
static void lapics_deliver(void *ctx, const struct irq_message *msg)
{
    struct lapics *l = ctx;
    bool broadcast = (msg->dest == 0xFF && !msg->logical) || msg->dest == 0xFFFFFFFFu;

    deliver_set(l, msg, broadcast, NULL);
}

/* An ICR write. dest has the width of the sender's mode. Intel SDM Vol.3, interrupt command. */
void lapic_ipi(struct lapic *a, uint32_t low, uint32_t dest)
{
    struct lapics *l = a->set;
    unsigned shorthand = (low >> 18) & 3;
    struct irq_message msg = {
        .dest = dest,
        .logical = (low & 1u << 11) != 0,
        .assert = true,
        .delivery = (uint8_t)((low >> 8) & 7),
        .vector = (uint8_t)low,
    };
    bool broadcast = dest == (a->mode == LAPIC_X2APIC ? 0xFFFFFFFFu : 0xFFu);

    log_trace(l->env->log, "lapic", "vCPU %u: ICR %#x to %#x", a->id, low, dest);
    if (msg.delivery == 3 || msg.delivery == IRQ_EXTINT) {
        lapic_guest_error(a, "reserved delivery mode in ICR", low);
        return;
    }
    if (msg.delivery == IRQ_LOWEST && a->mode == LAPIC_X2APIC) {
        lapic_error(a, ESR_REDIRECTABLE); /* not sent, nor is its vector looked at */
        return;
    }
    /* Trigger mode and level have a meaning in INIT only. */
    if (msg.delivery == IRQ_INIT && (low & 3u << 14) == 1u << 15)
        msg.assert = false;
    if (msg.delivery <= IRQ_LOWEST && msg.vector < 16)
        lapic_error(a, ESR_SEND_VECTOR); /* sent all the same: who receives it notes that too */
    if (shorthand == 0) {
        deliver_set(l, &msg, broadcast, NULL);
        return;
    }
    if (shorthand == 1 || shorthand == 2) {
        /* INIT and STARTUP cannot include oneself. */
        if (msg.delivery == IRQ_INIT || msg.delivery == IRQ_STARTUP) {
            if (msg.assert)
                lapic_guest_error(a, "shorthand of ICR that includes the sender", low);
            return;
        }
    }
    if (shorthand == 1) {
        deliver_one(a, msg.delivery, msg.vector, false);
        return;
    }
    msg.logical = false;
    deliver_set(l, &msg, true, shorthand == 3 ? a : NULL);
}

/* The PIC's output. Any thread. */
static void lapics_extint(void *ctx, bool level)
{
    struct lapics *l = ctx;
    struct lapic *a = &l->cpu[0];
    uint32_t lvt;

    if (atomic_exchange(&l->extint_level, level) == level || !lint0_asserted(a))
        return;
    lvt = a->lvt[LVT_LINT0];
    if (a->extint_open)
        lapic_retry(a);
    else if (LVT_DELIVERY(lvt) == IRQ_FIXED && (lvt & LVT_LEVEL) != 0)
        lapic_lint0_check(a);
    else if (LVT_DELIVERY(lvt) != IRQ_EXTINT)
        lapic_lvt_fire(a, LVT_LINT0);
}

void lapics_nmi(struct lapics *l)
{
    for (unsigned i = 0; i < l->cpus; i++) {
        struct lapic *a = &l->cpu[i];

        if (a->mode == LAPIC_DISABLED)
            l->signals->nmi(l->signals_ctx, i); /* the pin is the processor's own NMI then */
        else
            lapic_lvt_fire(a, LVT_LINT1);
    }
}

static void nmi_op(void *ctx)
{
    lapics_nmi(ctx);
}

static const struct lapic_ops lapics_ops = {
    .deliver = lapics_deliver,
    .extint = lapics_extint,
    .nmi = nmi_op,
};

/* ---- the vCPU's side ---- */

static bool lapics_pending(void *ctx, unsigned cpu)
{
    struct lapics *l = ctx;

    return lapic_pending(&l->cpu[cpu]);
}

static uint8_t lapics_get_cr8(void *ctx, unsigned cpu)
{
    struct lapics *l = ctx;

    return (uint8_t)(l->cpu[cpu].tpr >> 4);
}

static void lapics_set_cr8(void *ctx, unsigned cpu, uint8_t value)
{
    struct lapics *l = ctx;
    struct lapic *a = &l->cpu[cpu];

    a->tpr = (uint32_t)(value & 15) << 4;
    lapic_update_ppr(a);
    lapic_retry(a);
}

const struct lapic_cpu_ops lapics_cpu_ops = {
    .pending = lapics_pending,
    .ack = lapic_ack,
    .mmio_read = lapic_mmio_read,
    .mmio_write = lapic_mmio_write,
    .msr_read = lapic_msr_read,
    .msr_write = lapic_msr_write,
    .get_cr8 = lapics_get_cr8,
    .set_cr8 = lapics_set_cr8,
    .take = lapic_page_take,
    .put = lapic_page_put,
};

/* The limit on lines is the environment's, which no one else guards here. */
void lapic_guest_error(struct lapic *a, const char *what, uint64_t value)
{
    struct dev_env *env = a->set->env;

    pthread_mutex_lock(&env->lock);
    log_guest(env, "vCPU %u: %s: %#llx", a->id, what, (unsigned long long)value);
    pthread_mutex_unlock(&env->lock);
}

/* ---- life ---- */

void lapic_clear(struct lapic *a)
{
    lapic_timer_stop(a);
    for (unsigned i = 0; i < 8; i++) {
        a->irr[i] = 0;
        a->tmr[i] = 0;
        a->isr[i] = 0;
    }
    a->irr_top = 0;
    a->esr_new = 0;
    a->error_told = false;
    a->extint_message = false;
    a->esr = a->tpr = a->icr_low = a->icr_high = 0;
    a->dfr = 0xFFFFFFFFu;
    a->ldr = a->mode == LAPIC_X2APIC ? lapic_x2apic_ldr(a->id) : 0;
    a->svr = 0xFF;
    for (unsigned i = 0; i < LVT_COUNT; i++)
        a->lvt[i] = LVT_MASKED;
    lapic_update_ppr(a);
    lapic_update_gates(a);
}

void lapics_init(struct lapics *l, unsigned cpu)
{
    lapic_clear(&l->cpu[cpu]);
}

/*
 * No firmware runs before the guest, so the first processor wakes up as firmware leaves it:
 * virtual wire mode, where a kernel that uses the PIC alone gets its interrupts.
 */
void lapics_reset(struct lapics *l)
{
    for (unsigned i = 0; i < l->cpus; i++) {
        l->cpu[i].mode = l->x2apic ? LAPIC_X2APIC : LAPIC_XAPIC;
        l->cpu[i].base = LAPIC_BASE | (i == 0 ? LAPIC_BASE_BSP : 0);
        lapic_clear(&l->cpu[i]);
    }
    l->arbiter = 0;
    l->cpu[0].svr = SVR_ENABLE | 0xFF;
    l->cpu[0].lvt[LVT_LINT0] = IRQ_EXTINT << 8;
    l->cpu[0].lvt[LVT_LINT1] = IRQ_NMI << 8;
    lapic_update_gates(&l->cpu[0]);
    lapic_retry(&l->cpu[0]);
}

int lapics_create(struct dev_env *env, const struct lapic_config *cfg, struct lapics **out,
                  struct error *err)
{
    struct lapics *l;

    if (cfg->cpus == 0 || cfg->cpus > LAPIC_MAX)
        return error_set(err, -EINVAL, "%u local APICs: there can be 1 to %u", cfg->cpus,
                         LAPIC_MAX);
    if (cfg->phys_bits < 32 || cfg->phys_bits > 52)
        return error_set(err, -EINVAL, "physical addresses of %u bits: there can be 32 to 52",
                         cfg->phys_bits);
    l = calloc(1, sizeof(*l));
    if (l == NULL)
        return error_set(err, -ENOMEM, "no memory for the local APICs");
    l->cpu = calloc(cfg->cpus, sizeof(*l->cpu));
    if (l->cpu == NULL)
        goto fail;
    l->env = env;
    l->x2apic = cfg->x2apic;
    l->bus_hz = cfg->bus_hz != 0 ? cfg->bus_hz : LAPIC_BUS_HZ;
    l->base_mask = ((1ull << cfg->phys_bits) - 1) & ~0xFFFull;
    l->signals = cfg->signals;
    l->signals_ctx = cfg->signals_ctx;
    for (unsigned i = 0; i < cfg->cpus; i++) {
        struct lapic *a = &l->cpu[i];

        a->set = l;
        a->id = i;
        if (pthread_mutex_init(&a->lock, NULL) != 0)
            goto fail;
        l->cpus = i + 1;
        a->timer = timer_create_on(env->timers, &a->lock, lapic_timer_fired, a);
        if (a->timer == NULL)
            goto fail;
    }
    lapics_reset(l);
    irq_attach_lapics(env->irqs, &lapics_ops, l);
    *out = l;
    return 0;
fail:
    lapics_destroy(l);
    return error_set(err, -ENOMEM, "no memory for the local APICs");
}

void lapics_destroy(struct lapics *l)
{
    if (l == NULL)
        return;
    for (unsigned i = 0; i < l->cpus; i++) {
        struct lapic *a = &l->cpu[i];

        pthread_mutex_lock(&a->lock);
        timer_free(a->timer);
        pthread_mutex_unlock(&a->lock);
        pthread_mutex_destroy(&a->lock);
    }
    free(l->cpu);
    free(l);
}
