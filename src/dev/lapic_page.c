/*
 * A local APIC as its page has it: the form in which it goes to an engine with local APICs of its
 * own and comes back. On the vCPU's thread, or while it does not run.
 */
#include "dev/lapic_impl.h"

#include <string.h>

#include "base/bits.h"
#include "base/endian.h"

static void put(struct lapic_page *p, unsigned reg, uint32_t value)
{
    le32_store(p->reg + 16 * reg, value);
}

static uint32_t take(const struct lapic_page *p, unsigned reg)
{
    return le32_load(p->reg + 16 * reg);
}

void lapic_page_read(struct lapic *a, bool stop, struct lapic_page *out)
{
    struct lapic_timer_state t;

    memset(out, 0, sizeof(*out));
    (void)lapic_msr_read(a->set, a->id, 0x1b, &out->base);
    lapic_timer_get(a, stop, &t); /* before IRR: it may have run out */
    put(out, REG_ID, a->id << 24);
    put(out, REG_VERSION, LAPIC_VERSION);
    put(out, REG_TPR, a->tpr);
    put(out, REG_PPR, a->ppr);
    put(out, REG_LDR, a->ldr);
    put(out, REG_DFR, a->dfr);
    put(out, REG_SVR, a->svr);
    for (unsigned i = 0; i < 8; i++) {
        put(out, REG_ISR + i, a->isr[i]);
        put(out, REG_TMR + i, a->tmr[i]);
        put(out, REG_IRR + i, a->irr[i]);
    }
    put(out, REG_ESR, a->esr);
    put(out, REG_ICR, a->icr_low);
    put(out, REG_ICR_HIGH, a->icr_high);
    for (unsigned i = 0; i < LVT_COUNT; i++)
        put(out, REG_LVT + i, i == LVT_TIMER ? t.lvt : a->lvt[i]);
    put(out, REG_INITIAL, t.initial);
    put(out, REG_CURRENT, t.current);
    put(out, REG_DIVIDE, t.divide);
    out->deadline = t.deadline;
}

/* What is left has neither requests nor a timer, and its pins lead nowhere. */
void lapic_page_take(void *ctx, unsigned cpu, struct lapic_page *out)
{
    struct lapics *l = ctx;
    struct lapic *a = &l->cpu[cpu];

    lapic_page_read(a, true, out);
    lapic_clear(a);
}

void lapic_page_put(void *ctx, unsigned cpu, const struct lapic_page *in)
{
    struct lapics *l = ctx;
    struct lapic *a = &l->cpu[cpu];
    const struct lapic_timer_state t = {
        .lvt = take(in, REG_LVT),
        .divide = take(in, REG_DIVIDE),
        .initial = take(in, REG_INITIAL),
        .current = take(in, REG_CURRENT),
        .deadline = in->deadline,
    };

    lapic_clear(a);
    a->mode = !(in->base & 0x800) ? LAPIC_DISABLED : in->base & 0x400 ? LAPIC_X2APIC : LAPIC_XAPIC;
    a->base = in->base & (l->base_mask | LAPIC_BASE_BSP);
    a->tpr = take(in, REG_TPR) & 0xFF;
    a->ldr = a->mode == LAPIC_X2APIC ? lapic_x2apic_ldr(a->id) : take(in, REG_LDR);
    a->dfr = take(in, REG_DFR);
    a->svr = take(in, REG_SVR);
    for (unsigned i = 0; i < 8; i++) {
        a->isr[i] = take(in, REG_ISR + i) & (i == 0 ? 0xFFFF0000u : ~0u);
        a->tmr[i] = take(in, REG_TMR + i);
        a->irr[i] = take(in, REG_IRR + i) & (i == 0 ? 0xFFFF0000u : ~0u);
    }
    a->irr_top = lapic_highest_irr(a);
    a->esr = take(in, REG_ESR);
    a->icr_low = take(in, REG_ICR);
    a->icr_high = take(in, REG_ICR_HIGH);
    for (unsigned i = 0; i < LVT_COUNT; i++) {
        if (i != LVT_TIMER)
            a->lvt[i] = take(in, REG_LVT + i);
    }
    lapic_update_ppr(a);
    lapic_update_gates(a);
    lapic_timer_put(a, &t);
    lapic_retry(a);
}
