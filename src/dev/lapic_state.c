/*
 * What a snapshot holds of the local APICs: one section for the set, then one for each vCPU. All
 * vCPUs are parked.
 */
#include "dev/lapic_impl.h"

#include <errno.h>

#include "base/bits.h"

static const struct state_field set_state[] = {
    STATE_FIELD(1, struct lapics, cpus),
    STATE_FIELD(2, struct lapics, arbiter), /* 3 was the PIC's output: it is asked */
};

static const struct state_field cpu_state[] = {
    STATE_FIELD(1, struct lapic, mode),
    STATE_FIELD(2, struct lapic, irr),
    STATE_FIELD(3, struct lapic, tmr),
    STATE_FIELD(4, struct lapic, isr),
    STATE_FIELD(5, struct lapic, tpr),
    STATE_FIELD(6, struct lapic, ldr),
    STATE_FIELD(7, struct lapic, dfr),
    STATE_FIELD(8, struct lapic, svr),
    STATE_FIELD(9, struct lapic, esr),
    STATE_FIELD(10, struct lapic, esr_new),
    STATE_FIELD(11, struct lapic, icr_low),
    STATE_FIELD(12, struct lapic, icr_high),
    STATE_FIELD(13, struct lapic, lvt),
    STATE_FIELD(14, struct lapic, extint_message),
    STATE_FIELD(15, struct lapic, timer_initial),
    STATE_FIELD(16, struct lapic, timer_divide),
    STATE_FIELD(17, struct lapic, timer_base_count),
    STATE_FIELD(18, struct lapic, timer_running),
    STATE_CLOCK(19, struct lapic, timer_base_ns),
    STATE_FIELD(20, struct lapic, timer_deadline),
    STATE_TIMER(21, struct lapic, timer),
    STATE_FIELD(22, struct lapic, base),
    STATE_FIELD(23, struct lapic, error_told),
};

void lapics_save(struct lapics *l, struct state_buf *out)
{
    state_save(set_state, countof(set_state), l, l->env->timers, out);
    for (unsigned i = 0; i < l->cpus; i++) {
        struct lapic *a = &l->cpu[i];

        pthread_mutex_lock(&a->lock);
        state_save(cpu_state, countof(cpu_state), a, l->env->timers, out);
        pthread_mutex_unlock(&a->lock);
    }
}

/* A snapshot is a file, and files lie: nothing in it may lead to a division by zero or worse. */
static void loaded(struct lapic *a)
{
    if (a->mode > LAPIC_X2APIC)
        a->mode = LAPIC_XAPIC;
    if (a->mode == LAPIC_X2APIC)
        a->ldr = lapic_x2apic_ldr(a->id);
    a->tpr &= 0xFF;
    a->base &= a->set->base_mask | LAPIC_BASE_BSP;
    a->irr[0] &= 0xFFFF0000u;
    a->isr[0] &= 0xFFFF0000u;
    if (a->timer_initial == 0)
        a->timer_running = false;
    a->irr_top = lapic_highest_irr(a);
    lapic_update_ppr(a);
    lapic_update_gates(a);
}

int lapics_load(struct lapics *l, const uint8_t *data, size_t len, size_t *pos, struct error *err)
{
    unsigned cpus = l->cpus, saved;
    int rc = state_load(set_state, countof(set_state), l, l->env->timers, data, len, pos, err);

    saved = l->cpus;
    l->cpus = cpus;
    if (rc != 0)
        return rc;
    if (saved != cpus)
        return error_set(err, -EINVAL, "the snapshot has %u local APICs, this VM has %u", saved,
                         cpus);
    atomic_store(&l->extint_level, irq_pic_pending(l->env->irqs));
    for (unsigned i = 0; i < cpus && rc == 0; i++) {
        struct lapic *a = &l->cpu[i];

        pthread_mutex_lock(&a->lock);
        rc = state_load(cpu_state, countof(cpu_state), a, l->env->timers, data, len, pos, err);
        pthread_mutex_unlock(&a->lock);
        loaded(a);
    }
    for (unsigned i = 0; i < cpus; i++)
        lapic_retry(&l->cpu[i]);
    return rc;
}
