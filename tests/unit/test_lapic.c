/* The local APICs: priorities, messages, timer, modes, saved state. */
#include "lapic_fixture.h"

#include <sched.h>

#include "dev/chips.h"
#include "dev/lapic_nmi.h"

/* ---- tests ---- */

static void test_reset_state(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(rd(f, 0, ID), 0);
    assert_int_equal(rd(f, 3, ID), 3u << 24);
    assert_int_equal(rd(f, 0, VERSION), 0x01050014);
    assert_int_equal(rd(f, 0, SVR), 0x1FF);
    assert_int_equal(rd(f, 0, LINT0), 0x700);
    assert_int_equal(rd(f, 0, LINT1), 0x400);
    assert_int_equal(rd(f, 1, SVR), 0xFF);
    assert_int_equal(rd(f, 1, LINT0), MASKED);
    assert_int_equal(rd(f, 1, DFR), 0xFFFFFFFF);
    assert_int_equal(rd(f, 1, LDR), 0);
    assert_int_equal(rdmsr(f, 0, BASE_MSR), 0xFEE00900);
    assert_int_equal(rdmsr(f, 1, BASE_MSR), 0xFEE00800);
    wr(f, 0, ID, 7u << 24);
    assert_int_equal(rd(f, 0, ID), 0);
    assert_int_equal(lapics_cpu_ops.mmio_read(f->l, 0, VERSION + 2, 1), 0x05);
    assert_int_equal(rd(f, 0, VERSION + 4), 0);
}

static void test_priorities(void **state)
{
    struct fixture *f = *state;

    enable(f);
    assert_false(pending(f, 1));
    assert_int_equal(ack(f, 1), -1);
    ipi(f, 0, 1, 0x51);
    ipi(f, 0, 1, 0x62);
    ipi(f, 0, 1, 0x55);
    assert_int_equal(f->interrupts[1], 3);
    assert_true(pending(f, 1));
    assert_int_equal(ack(f, 1), 0x62);
    assert_int_equal(rd(f, 1, ISR + 0x30), 1u << 2);
    assert_false(irr(f, 1, 0x62));
    assert_int_equal(rd(f, 1, PPR), 0x60);
    assert_false(pending(f, 1)); /* the rest is of a lower class */
    assert_int_equal(ack(f, 1), -1);
    ipi(f, 0, 1, 0x6F); /* same class as in service */
    assert_false(pending(f, 1));
    ipi(f, 0, 1, 0x70); /* nests */
    assert_int_equal(ack(f, 1), 0x70);
    wr(f, 1, EOI, 0);
    assert_int_equal(rd(f, 1, PPR), 0x60);
    wr(f, 1, EOI, 0);
    assert_int_equal(ack(f, 1), 0x6F);
    wr(f, 1, EOI, 0);
    assert_int_equal(ack(f, 1), 0x55);
    wr(f, 1, EOI, 0);
    assert_int_equal(ack(f, 1), 0x51);
    wr(f, 1, EOI, 0);
    assert_int_equal(rd(f, 1, PPR), 0);
    wr(f, 1, EOI, 0); /* stray */
    assert_int_equal(f->eois, 0);
}

static void test_tpr(void **state)
{
    struct fixture *f = *state;
    unsigned before;

    enable(f);
    wr(f, 1, TPR, 0x57);
    assert_int_equal(lapics_cpu_ops.get_cr8(f->l, 1), 5);
    assert_int_equal(rd(f, 1, PPR), 0x57);
    ipi(f, 0, 1, 0x5F);
    assert_false(pending(f, 1));
    assert_int_equal(rd(f, 1, APR), 0x57);
    ipi(f, 0, 1, 0x81);
    assert_int_equal(rd(f, 1, APR), 0x80);
    assert_int_equal(ack(f, 1), 0x81);
    wr(f, 1, EOI, 0);
    before = f->interrupts[1];
    lapics_cpu_ops.set_cr8(f->l, 1, 4); /* lets 0x5F through and says so */
    assert_int_equal(rd(f, 1, TPR), 0x40);
    assert_int_equal(f->interrupts[1], before + 1);
    assert_int_equal(ack(f, 1), 0x5F);
    wr(f, 1, TPR, 0x5A); /* as high as what is in service: its own lower bits show */
    assert_int_equal(rd(f, 1, PPR), 0x5A);
    ipi(f, 0, 1, 0x61);
    wr(f, 1, TPR, 0x60);
    before = f->interrupts[1];
    wr(f, 1, TPR, 0x50);
    assert_int_equal(f->interrupts[1], before + 1);
    wr(f, 1, TPR, 0xFFFFFF21);
    assert_int_equal(rd(f, 1, TPR), 0x21);
    assert_int_equal(rd(f, 1, PPR), 0x50);
}

static void test_software_disable(void **state)
{
    struct fixture *f = *state;

    enable(f);
    wr(f, 1, LINT1, 0x400);
    wr(f, 1, TIMER, 0x40);
    ipi(f, 0, 1, 0x50);
    wr(f, 1, SVR, 0xEF);
    assert_int_equal(rd(f, 1, LINT1), MASKED | 0x400);
    assert_int_equal(rd(f, 1, TIMER), MASKED | 0x40);
    wr(f, 1, TIMER, 0x41); /* stays masked */
    assert_int_equal(rd(f, 1, TIMER), MASKED | 0x41);
    ipi(f, 0, 1, 0x60);
    assert_false(irr(f, 1, 0x60));
    assert_true(pending(f, 1)); /* what was accepted before is held */
    ipi(f, 0, 1, 0x4400);       /* NMI still arrives */
    assert_int_equal(f->nmis[1], 1);
    wr(f, 1, SVR, 0x1FFFFFEF);
    assert_int_equal(rd(f, 1, SVR), 0x11EF);
}

static void test_esr(void **state)
{
    struct fixture *f = *state;

    enable(f);
    wr(f, 0, LVT_ERROR, 0x33);
    ipi(f, 0, 1, 0x0F); /* illegal vector, sent */
    assert_int_equal(rd(f, 0, ESR), 0);
    wr(f, 0, ESR, 0);
    assert_int_equal(rd(f, 0, ESR), 0x20);
    assert_true(irr(f, 0, 0x33));
    wr(f, 0, ESR, 0xFFFFFFFF);
    assert_int_equal(rd(f, 0, ESR), 0);
    rd(f, 0, 0x3F0); /* no such register in xAPIC mode */
    wr(f, 0, 0x400, 0);
    wr(f, 0, ESR, 0);
    assert_int_equal(rd(f, 0, ESR), 0x80);
    msi_send(f->env.irqs, 0xFEE01000, 0x05); /* received */
    wr(f, 1, ESR, 0);
    assert_int_equal(rd(f, 1, ESR), 0x40);
    wr(f, 1, LVT_ERROR, 0x05); /* its own vector is illegal */
    msi_send(f->env.irqs, 0xFEE01000, 0x06);
    wr(f, 1, ESR, 0);
    assert_int_equal(rd(f, 1, ESR), 0x40);
    assert_false(pending(f, 1));
}

static void test_icr_shorthands(void **state)
{
    struct fixture *f = *state;

    enable(f);
    ipi(f, 2, 9, 0x40050); /* self, the destination does not count */
    assert_true(irr(f, 2, 0x50));
    assert_false(irr(f, 9, 0x50));
    assert_int_equal(rd(f, 2, ICR), 0x40050);
    assert_int_equal(rd(f, 2, ICR_HIGH), 9u << 24);
    ipi(f, 2, 0, 0x80051); /* all */
    for (unsigned i = 0; i < CPUS; i++)
        assert_true(irr(f, i, 0x51));
    ipi(f, 2, 0, 0xC0052); /* all but self */
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(irr(f, i, 0x52), i != 2);
    ipi(f, 2, 0xFF, 0x53); /* broadcast */
    assert_true(irr(f, 0, 0x53));
    assert_true(irr(f, 2, 0x53));
    ipi(f, 2, 4, 0xC0400);
    assert_int_equal(f->nmis[2], 0);
    assert_int_equal(f->nmis[3], 1);
    ipi(f, 0, 0, 0xC4500); /* INIT to all others */
    assert_int_equal(f->inits[0], 0);
    assert_int_equal(f->inits[19], 1);
    ipi(f, 0, 1, 0x8500); /* de-assertion: nothing */
    assert_int_equal(f->inits[1], 1);
    ipi(f, 0, 1, 0x4500);
    assert_int_equal(f->inits[1], 2);
    ipi(f, 0, 1, 0x4699);
    assert_int_equal(f->sipis[1], 1);
    assert_int_equal(f->sipis[0], 0);
    assert_int_equal(f->sipi_vector, 0x99);
    ipi(f, 0, 1, 0x4200);
    assert_int_equal(f->smis[1], 1);
    ipi(f, 0, 0, 0x84500); /* INIT may not include oneself */
    assert_int_equal(f->inits[0], 0);
    assert_int_equal(f->inits[1], 2);
    ipi(f, 0, 1, 0x4750); /* ExtINT and the reserved mode are not for ICR */
    ipi(f, 0, 1, 0x4350);
    assert_false(irr(f, 1, 0x50));
}

static void test_logical_flat(void **state)
{
    struct fixture *f = *state;

    enable(f);
    for (unsigned i = 0; i < 8; i++)
        wr(f, i, LDR, 0x01000000u << i | 0xFFFFFF);
    assert_int_equal(rd(f, 1, LDR), 0x02000000);
    ipi(f, 0, 0x06, 0x850);
    assert_false(irr(f, 0, 0x50));
    assert_true(irr(f, 1, 0x50));
    assert_true(irr(f, 2, 0x50));
    assert_false(irr(f, 3, 0x50));
    ipi(f, 0, 0xFF, 0x851);
    assert_true(irr(f, 7, 0x51));
    assert_false(irr(f, 8, 0x51)); /* no bit set in its LDR */
}

static void test_logical_cluster(void **state)
{
    struct fixture *f = *state;

    enable(f);
    for (unsigned i = 0; i < 8; i++) {
        wr(f, i, DFR, 0);
        wr(f, i, LDR, ((i / 4) << 4 | 1u << (i % 4)) << 24);
    }
    assert_int_equal(rd(f, 0, DFR), 0x0FFFFFFF);
    ipi(f, 0, 0x13, 0x850); /* members 0 and 1 of cluster 1 */
    assert_true(irr(f, 4, 0x50));
    assert_true(irr(f, 5, 0x50));
    assert_false(irr(f, 6, 0x50));
    assert_false(irr(f, 0, 0x50));
    ipi(f, 0, 0xF1, 0x851); /* member 0 of every cluster */
    assert_true(irr(f, 0, 0x51));
    assert_true(irr(f, 4, 0x51));
    assert_false(irr(f, 5, 0x51));
}

static void test_lowest_priority(void **state)
{
    struct fixture *f = *state;
    struct irq_message msg = {
        .dest = 0x0F, .logical = true, .assert = true, .delivery = IRQ_LOWEST, .vector = 0x50};

    enable(f);
    for (unsigned i = 0; i < 4; i++) {
        wr(f, i, LDR, 0x01000000u << i);
        wr(f, i, TPR, 0x40);
    }
    wr(f, 2, TPR, 0x30);
    irq_deliver(f->env.irqs, &msg);
    assert_true(irr(f, 2, 0x50));
    assert_false(irr(f, 0, 0x50) || irr(f, 1, 0x50) || irr(f, 3, 0x50));
    wr(f, 2, TPR, 0x40); /* all equal: they take turns */
    msg.vector = 0x51;
    for (unsigned i = 0; i < 4; i++)
        irq_deliver(f->env.irqs, &msg);
    for (unsigned i = 0; i < 4; i++)
        assert_true(irr(f, i, 0x51));
    wr(f, 0, SVR, 0xFF); /* who would not accept is not asked */
    wr(f, 0, TPR, 0);
    msg.vector = 0x52;
    msg.dest = 0x03;
    irq_deliver(f->env.irqs, &msg);
    assert_true(irr(f, 1, 0x52));
}

static void test_eoi_broadcast(void **state)
{
    struct fixture *f = *state;

    enable(f);
    msi_send(f->env.irqs, 0xFEE01000, 0xC050); /* level */
    assert_int_equal(rd(f, 1, TMR + 0x20), 1u << 16);
    assert_int_equal(ack(f, 1), 0x50);
    wr(f, 1, EOI, 0);
    assert_int_equal(f->eois, 1);
    assert_int_equal(f->eoi_vector, 0x50);
    msi_send(f->env.irqs, 0xFEE01000, 0x0050); /* edge clears TMR */
    assert_int_equal(rd(f, 1, TMR + 0x20), 0);
    assert_int_equal(ack(f, 1), 0x50);
    wr(f, 1, EOI, 0);
    assert_int_equal(f->eois, 1);
    wr(f, 1, SVR, 0x11FF); /* suppressed */
    msi_send(f->env.irqs, 0xFEE01000, 0xC050);
    assert_int_equal(ack(f, 1), 0x50);
    wr(f, 1, EOI, 0);
    assert_int_equal(f->eois, 1);
}

static void test_oneshot(void **state)
{
    struct fixture *f = *state;

    enable(f);
    wr(f, 0, DIVIDE, 0xB); /* by 1 */
    wr(f, 0, TIMER, 0x40);
    wr(f, 0, INITIAL, 1000000);
    assert_int_equal(rd(f, 0, CURRENT), 1000000);
    ticks(f, 400000);
    assert_int_equal(rd(f, 0, CURRENT), 600000);
    assert_false(pending(f, 0));
    ticks(f, 600000);
    assert_int_equal(ack(f, 0), 0x40);
    assert_int_equal(rd(f, 0, CURRENT), 0);
    assert_int_equal(rd(f, 0, INITIAL), 1000000);
    wr(f, 0, EOI, 0);
    ticks(f, 5000000);
    assert_false(pending(f, 0));
    wr(f, 0, DIVIDE, 0x0); /* by 2 */
    assert_int_equal(rd(f, 0, DIVIDE), 0);
    wr(f, 0, INITIAL, 1000);
    ticks(f, 1000);
    assert_int_equal(rd(f, 0, CURRENT), 500);
    wr(f, 0, DIVIDE, 0xA); /* by 128: goes on from 500 */
    assert_int_equal(rd(f, 0, CURRENT), 500);
    ticks(f, 128 * 100);
    assert_int_equal(rd(f, 0, CURRENT), 400);
    wr(f, 0, INITIAL, 0); /* stops */
    ticks(f, 1000000);
    assert_false(pending(f, 0));
    wr(f, 0, TIMER, MASKED | 0x40); /* masked: counts, does not interrupt */
    wr(f, 0, INITIAL, 1000);
    ticks(f, 12800);
    assert_int_equal(rd(f, 0, CURRENT), 900);
    ticks(f, 128000);
    assert_false(pending(f, 0));
}

static void test_divisors(void **state)
{
    static const struct {
        uint32_t code, by;
    } table[] = {{0, 2}, {1, 4}, {2, 8}, {3, 16}, {8, 32}, {9, 64}, {0xA, 128}, {0xB, 1}};
    struct fixture *f = *state;

    enable(f);
    for (unsigned i = 0; i < countof(table); i++) {
        wr(f, 0, DIVIDE, table[i].code);
        wr(f, 0, INITIAL, 1000000);
        ticks(f, 10ull * table[i].by);
        assert_int_equal(rd(f, 0, CURRENT), 1000000 - 10);
    }
}

static void test_periodic(void **state)
{
    struct fixture *f = *state;
    unsigned before;

    enable(f);
    wr(f, 0, DIVIDE, 0xB);
    wr(f, 0, TIMER, 0x20040);
    wr(f, 0, INITIAL, 1000000);
    for (unsigned i = 0; i < 3; i++) {
        ticks(f, 1000000);
        assert_int_equal(ack(f, 0), 0x40);
        wr(f, 0, EOI, 0);
    }
    ticks(f, 250000);
    assert_int_equal(rd(f, 0, CURRENT), 750000);
    before = f->interrupts[0];
    ticks(f, 10000000);
    assert_int_equal(f->interrupts[0], before + 10);
    assert_int_equal(rd(f, 0, CURRENT), 750000);
    assert_int_equal(ack(f, 0), 0x40);
    wr(f, 0, EOI, 0);
    wr(f, 0, TIMER, 0x40); /* one-shot from here: the running count ends it */
    ticks(f, 750000);
    assert_int_equal(ack(f, 0), 0x40);
    wr(f, 0, EOI, 0);
    ticks(f, 3000000);
    assert_false(pending(f, 0));
    wr(f, 0, TIMER, 0x20040); /* one tick's period must not stop the world */
    wr(f, 0, INITIAL, 1);
    before = f->interrupts[0];
    step(f, 1000000);
    assert_in_range(f->interrupts[0] - before, 10, 60);
}

static void test_tsc_deadline(void **state)
{
    struct fixture *f = *state;

    enable(f);
    assert_int_equal(wrmsr(f, 0, DEADLINE_MSR, 5000), 0); /* not in this mode: ignored */
    assert_int_equal(rdmsr(f, 0, DEADLINE_MSR), 0);
    wr(f, 0, TIMER, 0x40041);
    assert_int_equal(wrmsr(f, 0, DEADLINE_MSR, 2001), 0);
    assert_int_equal(rdmsr(f, 0, DEADLINE_MSR), 2001);
    assert_int_equal(rd(f, 0, CURRENT), 0);
    wr(f, 0, INITIAL, 77);
    assert_int_equal(rd(f, 0, INITIAL), 0);
    step(f, 1000); /* TSC 2000 */
    assert_false(pending(f, 0));
    step(f, 1);
    assert_int_equal(ack(f, 0), 0x41);
    assert_int_equal(rdmsr(f, 0, DEADLINE_MSR), 0);
    wr(f, 0, EOI, 0);
    wrmsr(f, 0, DEADLINE_MSR, 1); /* past: at once */
    assert_int_equal(ack(f, 0), 0x41);
    wr(f, 0, EOI, 0);
    wrmsr(f, 0, DEADLINE_MSR, 1000000);
    wrmsr(f, 0, DEADLINE_MSR, 0); /* disarms */
    step(f, 1000000);
    assert_false(pending(f, 0));
    wrmsr(f, 0, DEADLINE_MSR, UINT64_MAX); /* far, no overflow */
    step(f, 1000000000);
    assert_false(pending(f, 0));
    f->tsc_hz = 1000;
    wrmsr(f, 0, DEADLINE_MSR, UINT64_MAX);
    step(f, 1000000000);
    assert_false(pending(f, 0));
    f->tsc_hz = TSC_HZ;
    wrmsr(f, 0, DEADLINE_MSR, on_tsc_now(f, 0) + 2000);
    f->tsc_offset = (uint64_t)-1000; /* the guest set its TSC back meanwhile */
    step(f, 1000);
    assert_false(pending(f, 0));
    step(f, 500);
    assert_int_equal(ack(f, 0), 0x41);
    wr(f, 0, EOI, 0);
    wrmsr(f, 0, DEADLINE_MSR, on_tsc_now(f, 0) + 2000);
    wr(f, 0, TIMER, 0x41); /* leaving the mode disarms */
    wr(f, 0, TIMER, 0x40041);
    assert_int_equal(rdmsr(f, 0, DEADLINE_MSR), 0);
    step(f, 5000);
    assert_false(pending(f, 0));
}

static void test_base_transitions(void **state)
{
    struct fixture *f = *state;

    enable(f);
    wr(f, 1, TPR, 0x30);
    assert_int_equal(wrmsr(f, 1, BASE_MSR, 0xFEE00400), -1); /* EXTD without EN */
    assert_int_equal(wrmsr(f, 1, BASE_MSR, 0xFEE00801), -1); /* reserved bits */
    assert_int_equal(wrmsr(f, 1, BASE_MSR, 0xFEE00A00), -1);
    assert_int_equal(wrmsr(f, 1, BASE_MSR, 1ull << 60 | 0xFEE00800), -1);
    assert_int_equal(rdmsr_rc(f, 1, 0x802), -1); /* MSRs only in x2APIC mode */
    assert_int_equal(wrmsr(f, 1, 0x808, 0), -1);
    assert_int_equal(wrmsr(f, 1, BASE_MSR, 0xFEE00C00), 0);
    assert_int_equal(rdmsr(f, 1, BASE_MSR), 0xFEE00C00);
    assert_int_equal(rdmsr(f, 1, 0x808), 0x30); /* kept */
    assert_int_equal(rdmsr(f, 1, 0x80D), 2);
    assert_int_equal(rd(f, 1, ID), 0xFFFFFFFF); /* the page is gone */
    wr(f, 1, TPR, 0x70);
    assert_int_equal(rdmsr(f, 1, 0x808), 0x30);
    assert_int_equal(wrmsr(f, 1, BASE_MSR, 0xFEE00800), -1); /* not back to xAPIC */
    assert_int_equal(wrmsr(f, 1, BASE_MSR, 0xFEE00000), 0);
    assert_int_equal(rdmsr_rc(f, 1, 0x808), -1);
    assert_int_equal(wrmsr(f, 1, BASE_MSR, 0xFEE00C00), -1); /* not straight to x2APIC */
    ipi(f, 0, 1, 0x50);
    ipi(f, 0, 1, 0x4400);
    assert_int_equal(f->nmis[1], 0); /* disabled: hears nothing */
    assert_int_equal(wrmsr(f, 1, BASE_MSR, 0xFEE00800), 0);
    assert_int_equal(rd(f, 1, TPR), 0);
    assert_int_equal(rd(f, 1, SVR), 0xFF);
    assert_false(pending(f, 1));
}

static void test_x2apic_registers(void **state)
{
    static const uint32_t unreadable[] = {0x800, 0x801, 0x80B, 0x809, 0x80C, 0x80E,
                                          0x82F, 0x831, 0x83F, 0x840, 0x8FF};
    static const uint32_t read_only[] = {0x802, 0x803, 0x80A, 0x80D, 0x810, 0x81F, 0x827, 0x839};
    static const struct {
        uint32_t msr;
        uint64_t value;
    } faults[] = {{0x808, 0x100},      {0x80B, 1},        {0x828, 1},          {0x80F, 0x200},
                  {0x80F, 1ull << 32}, {0x830, 1u << 12}, {0x830, 1u << 13},   {0x830, 1u << 16},
                  {0x830, 1u << 20},   {0x832, 1u << 8},  {0x832, 1u << 19},   {0x833, 1u << 13},
                  {0x834, 1u << 17},   {0x835, 1u << 11}, {0x836, 1ull << 32}, {0x837, 1u << 8},
                  {0x838, 1ull << 32}, {0x83E, 4},        {0x83E, 0x10},       {0x83F, 0x100}};
    struct fixture *f = *state;

    remake(f, true);
    enable_x2apic(f);
    assert_int_equal(rdmsr(f, 0, BASE_MSR), 0xFEE00D00);
    assert_int_equal(rdmsr(f, 19, 0x802), 19);
    assert_int_equal(rdmsr(f, 19, 0x80D), 0x10008); /* cluster 1, member 3 */
    assert_int_equal(rdmsr(f, 19, 0x803), 0x01050014);
    for (unsigned i = 0; i < countof(unreadable); i++)
        assert_int_equal(rdmsr_rc(f, 0, unreadable[i]), -1);
    for (unsigned i = 0; i < countof(read_only); i++) {
        assert_int_equal(rdmsr_rc(f, 0, read_only[i]), 0);
        assert_int_equal(wrmsr(f, 0, read_only[i], 0), -1);
    }
    for (unsigned i = 0; i < countof(faults); i++)
        assert_int_equal(wrmsr(f, 0, faults[i].msr, faults[i].value), -1);
    assert_int_equal(wrmsr(f, 0, 0x83F, 0x61), 0); /* self IPI */
    assert_int_equal(rdmsr(f, 0, 0x823), 2);
    assert_int_equal(ack(f, 0), 0x61);
    assert_int_equal(wrmsr(f, 0, 0x80B, 0), 0);
    assert_int_equal(rdmsr(f, 0, 0x813), 0);
    assert_int_equal(wrmsr(f, 0, 0x83F, 0x0F), 0);
    assert_int_equal(wrmsr(f, 0, 0x828, 0), 0);
    assert_int_equal(rdmsr(f, 0, 0x828), 0x60);      /* sent, and received */
    assert_int_equal(wrmsr(f, 0, 0x832, 0x1040), 0); /* delivery status is read-only, no fault */
    assert_int_equal(rdmsr(f, 0, 0x832), 0x40);
}

static void test_x2apic_destinations(void **state)
{
    struct fixture *f = *state;

    remake(f, true);
    enable_x2apic(f);
    assert_int_equal(wrmsr(f, 0, 0x830, 19ull << 32 | 0x50), 0);
    assert_int_equal(rdmsr(f, 0, 0x830), 19ull << 32 | 0x50);
    assert_int_equal(ack(f, 19), 0x50);
    wrmsr(f, 0, 0x830, 0x10009ull << 32 | 0x851); /* cluster 1, members 0 and 3 */
    assert_true(pending(f, 16));
    assert_false(pending(f, 17));
    assert_int_equal(rdmsr(f, 19, 0x822), 1u << 17);
    wrmsr(f, 0, 0x830, 0xFFull << 32 | 0x52); /* id 255 is nobody here */
    assert_false(pending(f, 1));
    wrmsr(f, 0, 0x830, 0xFFFFFFFFull << 32 | 0x53);
    for (unsigned i = 0; i < CPUS - 1; i++) /* the last has 0x50 in service */
        assert_int_equal(ack(f, i), 0x53);
    wrmsr(f, 1, 0x830, 0xC0064);
    assert_int_equal(ack(f, 0), 0x64);
    assert_false(pending(f, 1));
    msi_send(f->env.irqs, 0xFEE05000, 0x65);
    assert_int_equal(ack(f, 5), 0x65);
    msi_send(f->env.irqs, 0xFEE00004 | 2u << 12, 0x66); /* logical: cluster 0, member 1 */
    assert_int_equal(ack(f, 1), 0x66);
}

static void test_extint(void **state)
{
    struct fixture *f = *state;

    wr(f, 1, SVR, 0x1FF);
    wr(f, 1, LINT0, 0x700); /* the wire ends at the first processor */
    irq_pic_output(f->env.irqs, true);
    assert_int_equal(f->interrupts[0], 1);
    assert_true(pending(f, 0));
    assert_false(pending(f, 1));
    assert_int_equal(ack(f, 0), 0x38);
    assert_false(pending(f, 0)); /* no ISR bit, no EOI of ours */
    assert_int_equal(rd(f, 0, PPR), 0);
    wr(f, 0, LINT0, MASKED | 0x700);
    irq_pic_output(f->env.irqs, true);
    assert_false(pending(f, 0));
    wr(f, 0, LINT0, 0x700);
    assert_true(pending(f, 0));
    wr(f, 0, SVR, 0xFF); /* masks LINT0 */
    assert_false(pending(f, 0));
    wrmsr(f, 0, BASE_MSR, 0xFEE00100); /* hardware-disabled: the pin is INTR */
    assert_true(pending(f, 0));
    assert_int_equal(ack(f, 0), 0x38);
    assert_int_equal(ack(f, 0), -1);
}

static void test_lint0_fixed(void **state)
{
    struct fixture *f = *state;

    enable(f);
    wr(f, 0, LINT0, 0x48); /* edge */
    irq_pic_output(f->env.irqs, true);
    assert_int_equal(ack(f, 0), 0x48);
    wr(f, 0, EOI, 0);
    assert_false(pending(f, 0));
    irq_pic_output(f->env.irqs, false);
    wr(f, 0, LINT0, 0x8048); /* level */
    irq_pic_output(f->env.irqs, true);
    assert_int_equal(rd(f, 0, LINT0), 0xC048);
    assert_int_equal(ack(f, 0), 0x48);
    wr(f, 0, EOI, 0);
    assert_int_equal(ack(f, 0), 0x48); /* still high */
    irq_pic_output(f->env.irqs, false);
    wr(f, 0, EOI, 0);
    assert_int_equal(rd(f, 0, LINT0), 0x8048);
    assert_false(pending(f, 0));
    assert_int_equal(f->eois, 2); /* those of the level */
    wr(f, 0, LINT0, 0x400);
    irq_pic_output(f->env.irqs, true);
    assert_int_equal(f->nmis[0], 1);
}

static void test_extint_message(void **state)
{
    struct fixture *f = *state;
    struct irq_message msg = {.dest = 2, .assert = true, .delivery = IRQ_EXTINT};

    enable(f);
    irq_deliver(f->env.irqs, &msg);
    assert_true(pending(f, 2));
    assert_int_equal(ack(f, 2), 0x38);
    assert_int_equal(ack(f, 2), -1);
}

static void test_init(void **state)
{
    struct fixture *f = *state;

    enable(f);
    wr(f, 1, TPR, 0x20);
    wr(f, 1, LDR, 0x02000000);
    wr(f, 1, TIMER, 0x20040);
    wr(f, 1, INITIAL, 1000000);
    ipi(f, 0, 1, 0x50);
    assert_int_equal(ack(f, 1), 0x50);
    lapics_init(f->l, 1);
    assert_int_equal(rd(f, 1, TPR), 0);
    assert_int_equal(rd(f, 1, LDR), 0);
    assert_int_equal(rd(f, 1, SVR), 0xFF);
    assert_int_equal(rd(f, 1, TIMER), MASKED);
    assert_int_equal(rd(f, 1, ISR + 0x20), 0);
    assert_int_equal(rd(f, 1, PPR), 0);
    assert_int_equal(rd(f, 1, ID), 1u << 24);
    assert_int_equal(rd(f, 1, CURRENT), 0);
    step(f, 5000000);
    assert_false(pending(f, 1));
    wrmsr(f, 1, BASE_MSR, 0xFEE00C00);
    lapics_init(f->l, 1);
    assert_int_equal(rdmsr(f, 1, BASE_MSR), 0xFEE00C00); /* kept */
    assert_int_equal(rdmsr(f, 1, 0x80D), 2);
    lapics_init(f->l, 0);
    assert_int_equal(rd(f, 0, LINT0), MASKED);
    lapics_reset(f->l);
    assert_int_equal(rd(f, 0, LINT0), 0x700);
    assert_int_equal(rdmsr(f, 1, BASE_MSR), 0xFEE00800);
}

static void test_nmi_button(void **state)
{
    struct fixture *f = *state;

    enable(f);
    wr(f, 1, LINT1, 0x10400);
    wr(f, 2, LINT1, 0x400);
    wr(f, 3, LINT1, 0x44);
    wrmsr(f, 4, BASE_MSR, 0xFEE00000);
    lapics_nmi(f->l);
    assert_int_equal(f->nmis[0], 1);
    assert_int_equal(f->nmis[1], 0);
    assert_int_equal(f->nmis[2], 1);
    assert_int_equal(f->nmis[3], 0);
    assert_int_equal(ack(f, 3), 0x44);
    assert_int_equal(f->nmis[4], 1); /* disabled: the pin is NMI */
}

static void test_save_load(void **state)
{
    struct fixture *f = *state;
    struct state_buf buf = {0};
    struct error err = {0};
    size_t pos = 0;

    enable(f);
    wr(f, 0, DIVIDE, 0xB);
    wr(f, 0, TIMER, 0x20040);
    wr(f, 0, INITIAL, 1000000 / TICK_NS);
    wr(f, 2, TIMER, 0x40042);
    wrmsr(f, 2, DEADLINE_MSR, 4000000);
    wrmsr(f, 3, BASE_MSR, 0xFEE00C00);
    ipi(f, 0, 1, 0x50);
    ipi(f, 0, 1, 0x60);
    assert_int_equal(ack(f, 1), 0x60);
    wr(f, 0, LVT_ERROR, 0x33);
    rd(f, 0, 0x3F0);
    irq_pic_output(f->env.irqs, true);
    step(f, 300000);
    lapics_save(f->l, &buf);
    assert_int_equal(buf.error, 0);
    remake(f, false);
    assert_int_equal(lapics_load(f->l, buf.data, buf.len, &pos, &err), 0);
    assert_int_equal(pos, buf.len);
    assert_int_equal(rd(f, 0, CURRENT), 700000 / TICK_NS);
    assert_int_equal(rd(f, 1, PPR), 0x60);
    assert_true(irr(f, 1, 0x50));
    assert_false(pending(f, 1));
    wr(f, 1, EOI, 0);
    assert_true(pending(f, 1));
    assert_int_equal(ack(f, 1), 0x50);
    assert_int_equal(rdmsr(f, 3, BASE_MSR), 0xFEE00C00);
    wr(f, 0, ESR, 0);
    assert_int_equal(rd(f, 0, ESR), 0x80);
    assert_true(pending(f, 0));
    assert_int_equal(ack(f, 0), 0x38);
    assert_int_equal(ack(f, 0), 0x33);
    wr(f, 0, EOI, 0);
    step(f, 700000);
    assert_int_equal(ack(f, 0), 0x40);
    step(f, 999999);
    assert_false(pending(f, 2));
    step(f, 1);
    assert_int_equal(ack(f, 2), 0x42);

    pos = 0; /* truncated, and of another machine */
    assert_int_not_equal(lapics_load(f->l, buf.data, buf.len / 2, &pos, &err), 0);
    pos = 0;
    buf.data[8] ^= 1;
    assert_int_not_equal(lapics_load(f->l, buf.data, buf.len, &pos, &err), 0);
    free(buf.data);
}

/* A snapshot is a file: whatever it says, nothing breaks. */
static void test_hostile_state(void **state)
{
    static const uint8_t values[] = {0x00, 0x01, 0x7F, 0xFF};
    struct lapic_config cfg = {.cpus = 1, .phys_bits = 40, .signals = &signals};
    struct fixture *f = *state;
    struct state_buf buf = {0};

    cfg.signals_ctx = f;
    lapics_destroy(f->l);
    assert_int_equal(lapics_create(&f->env, &cfg, &f->l, NULL), 0);
    wr(f, 0, TIMER, 0x20040);
    wr(f, 0, INITIAL, 100000);
    msi_send(f->env.irqs, 0xFEE00000, 0xC050);
    lapics_save(f->l, &buf);
    for (size_t i = 0; i < buf.len; i++) {
        for (unsigned v = 0; v < countof(values); v++) {
            uint8_t before = buf.data[i];
            size_t pos = 0;

            buf.data[i] = values[v];
            lapics_load(f->l, buf.data, buf.len, &pos, NULL);
            buf.data[i] = before;
            for (unsigned n = 0; n < 3; n++) {
                rd(f, 0, CURRENT);
                wr(f, 0, DIVIDE, n);
                step(f, 200000);
                ack(f, 0);
                wr(f, 0, EOI, 0);
            }
        }
    }
    free(buf.data);
}

static void test_bounds(void **state)
{
    struct fixture *f = *state;
    struct lapic_config cfg = {.cpus = 257, .phys_bits = 40, .signals = &signals, .signals_ctx = f};
    struct lapics *l = NULL;
    struct error err;

    assert_true(lapics_create(&f->env, &cfg, &l, &err) < 0);
    cfg.cpus = 0;
    assert_true(lapics_create(&f->env, &cfg, &l, &err) < 0);
    wr(f, 0, TPR, 0x10);
    lapics_cpu_ops.mmio_write(f->l, 0, TPR, 1, 0x20); /* must be 32 bits wide */
    lapics_cpu_ops.mmio_write(f->l, 0, TPR + 4, 4, 0x20);
    assert_int_equal(rd(f, 0, TPR), 0x10);
    assert_int_equal(lapics_cpu_ops.mmio_read(f->l, 0, 0xFFC, 8), 0);
    for (unsigned offset = 0; offset < 0x1000; offset++)
        lapics_cpu_ops.mmio_read(f->l, 0, offset, 4);
}

/* A level interrupt all the way: wire, I/O APIC, local APIC, EOI, and again while it stays high. */
static void test_level_through_ioapic(void **state)
{
    struct fixture *f = *state;
    struct dev_env env;
    struct device ioapic;
    struct irq_line *line;

    enable(f);
    dev_env_init(&env, "ioapic");
    env.irqs = f->env.irqs;
    env.timers = f->env.timers;
    env.bus = bus_create(NULL);
    assert_int_equal(device_create(&ioapic_ops, &env, NULL, &ioapic, NULL), 0);
    line = irq_line_create(env.irqs, 17);
    bus_write(env.bus, BUS_READER_OTHER, BUS_MMIO, 0xFEC00000, 4, 0x33);
    bus_write(env.bus, BUS_READER_OTHER, BUS_MMIO, 0xFEC00010, 4, 1u << 24);
    bus_write(env.bus, BUS_READER_OTHER, BUS_MMIO, 0xFEC00000, 4, 0x32);
    bus_write(env.bus, BUS_READER_OTHER, BUS_MMIO, 0xFEC00010, 4, 0x8051);
    irq_set(line, true);
    assert_int_equal(ack(f, 1), 0x51);
    assert_int_equal(ack(f, 1), -1);
    wr(f, 1, EOI, 0);
    assert_int_equal(ack(f, 1), 0x51);
    irq_set(line, false);
    wr(f, 1, EOI, 0);
    assert_int_equal(ack(f, 1), -1);
    irq_set(line, true);
    assert_int_equal(ack(f, 1), 0x51);
    wr(f, 1, SVR, 0x11FF); /* without the broadcast the guest ends it itself */
    wr(f, 1, EOI, 0);
    assert_int_equal(ack(f, 1), -1);
    bus_write(env.bus, BUS_READER_OTHER, BUS_MMIO, 0xFEC00040, 4, 0x51);
    assert_int_equal(ack(f, 1), 0x51);
    irq_line_free(line);
    device_destroy(&ioapic);
    bus_destroy(env.bus);
    dev_env_fini(&env);
}

/*
 * A post that meets an acknowledgement half-way must not be lost: the poster sends a high and a low
 * vector and waits until the vCPU has taken both.
 */
#define POST_ROUNDS 60000u
#define PATIENCE 20000000u /* looks without a new interrupt before it counts as lost */

struct poster {
    struct fixture *f;
    atomic_uint taken;
    atomic_bool give_up;
};

static void *post_pairs(void *ctx)
{
    struct poster *p = ctx;

    for (unsigned i = 1; i <= POST_ROUNDS && !p->give_up; i++) {
        msi_send(p->f->env.irqs, 0xFEE01000, 0x90);
        msi_send(p->f->env.irqs, 0xFEE01000, 0x30);
        while (p->taken < 2 * i && !p->give_up)
            sched_yield();
    }
    return NULL;
}

static void quiet(void *ctx, unsigned cpu)
{
    (void)ctx;
    (void)cpu;
}

static void test_concurrent_posts(void **state)
{
    struct fixture *f = *state;
    struct vcpu_signal_ops silent = signals; /* the counters of the fixture are not atomic */
    struct lapic_config cfg = {.cpus = 2, .phys_bits = 40, .signals = &silent, .signals_ctx = f};
    struct poster poster = {.f = f};
    unsigned idle = 0;
    pthread_t thread;

    silent.interrupt = quiet;
    lapics_destroy(f->l);
    assert_int_equal(lapics_create(&f->env, &cfg, &f->l, NULL), 0);
    wr(f, 1, SVR, 0x1FF);
    assert_int_equal(pthread_create(&thread, NULL, post_pairs, &poster), 0);
    while (poster.taken < 2 * POST_ROUNDS && idle < PATIENCE) {
        idle++;
        if (!pending(f, 1) || ack(f, 1) < 0) {
            if (idle % 1024 == 0)
                sched_yield();
            continue;
        }
        wr(f, 1, EOI, 0);
        poster.taken++;
        idle = 0;
    }
    poster.give_up = true;
    pthread_join(thread, NULL);
    assert_int_equal(poster.taken, 2 * POST_ROUNDS);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(rd(f, 1, IRR + 16 * i), 0);
}

static void test_x2apic_cluster(void **state)
{
    struct fixture *f = *state;

    remake(f, true);
    enable_x2apic(f);
    wrmsr(f, 1, 0x830, 0x10001ull << 32 | 0x850); /* member 0 of cluster 1, not of cluster 0 */
    assert_true(pending(f, 16));
    assert_false(pending(f, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_reset_state),
        T(test_priorities),
        T(test_tpr),
        T(test_software_disable),
        T(test_esr),
        T(test_icr_shorthands),
        T(test_logical_flat),
        T(test_logical_cluster),
        T(test_lowest_priority),
        T(test_eoi_broadcast),
        T(test_oneshot),
        T(test_divisors),
        T(test_periodic),
        T(test_tsc_deadline),
        T(test_base_transitions),
        T(test_x2apic_registers),
        T(test_x2apic_destinations),
        T(test_extint),
        T(test_lint0_fixed),
        T(test_extint_message),
        T(test_init),
        T(test_nmi_button),
        T(test_save_load),
        T(test_bounds),
        T(test_hostile_state),
        T(test_level_through_ioapic),
        T(test_concurrent_posts),
        T(test_x2apic_cluster),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
