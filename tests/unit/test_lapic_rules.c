/*
 * The local APICs by the book (Intel SDM Vol.3, chapter on the APIC): every MSR, errors, LINT0,
 * where the registers are, and what a message may say.
 */
#include "lapic_fixture.h"

#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#include "dev/lapic_nmi.h"

/* ---- x2APIC: all 256 MSRs ---- */

struct msr_rule {
    unsigned first, last;
    bool readable;
    bool writable;
    uint64_t bits; /* that a write may set */
};

static const struct msr_rule msr_rules[] = {
    {0x802, 0x803, true, false, 0},                  /* id, version */
    {0x808, 0x808, true, true, 0xFF},                /* TPR */
    {0x80A, 0x80A, true, false, 0},                  /* PPR */
    {0x80B, 0x80B, false, true, 0},                  /* EOI */
    {0x80D, 0x80D, true, false, 0},                  /* LDR */
    {0x80F, 0x80F, true, true, 0x11FF},              /* SVR */
    {0x810, 0x827, true, false, 0},                  /* ISR, TMR, IRR */
    {0x828, 0x828, true, true, 0},                   /* ESR */
    {0x830, 0x830, true, true, 0xFFFFFFFF000CCFFFu}, /* ICR */
    {0x832, 0x832, true, true, 0x000710FF},          /* timer */
    {0x833, 0x834, true, true, 0x000117FF},          /* thermal, performance */
    {0x835, 0x836, true, true, 0x0001F7FF},          /* LINT0, LINT1 */
    {0x837, 0x837, true, true, 0x000110FF},          /* error */
    {0x838, 0x838, true, true, 0xFFFFFFFF},          /* initial count */
    {0x839, 0x839, true, false, 0},                  /* current count */
    {0x83E, 0x83E, true, true, 0xB},                 /* divide configuration */
    {0x83F, 0x83F, false, true, 0xFF},               /* self IPI */
};

static void check_msr(struct fixture *f, uint32_t msr)
{
    static const struct msr_rule nothing;
    const struct msr_rule *rule = &nothing;

    for (unsigned i = 0; i < countof(msr_rules); i++) {
        if (msr >= msr_rules[i].first && msr <= msr_rules[i].last)
            rule = &msr_rules[i];
    }
    if (rdmsr_rc(f, 0, msr) != (rule->readable ? 0 : -1))
        fail_msg("RDMSR %#x", msr);
    if (wrmsr(f, 0, msr, 0) != (rule->writable ? 0 : -1))
        fail_msg("WRMSR %#x of 0", msr);
    for (unsigned bit = 0; bit < 64; bit++) {
        int want = rule->writable && (rule->bits >> bit & 1) ? 0 : -1;

        if (wrmsr(f, 0, msr, 1ull << bit) != want)
            fail_msg("WRMSR %#x of bit %u", msr, bit);
    }
}

static void test_every_msr(void **state)
{
    struct fixture *f = *state;

    for (uint32_t msr = 0x800; msr <= 0x8FF; msr++) {
        assert_int_equal(rdmsr_rc(f, 0, msr), -1); /* not in xAPIC mode */
        assert_int_equal(wrmsr(f, 0, msr, 0), -1);
    }
    assert_int_equal(wrmsr(f, 0, BASE_MSR, 0xFEE00D00), 0);
    for (uint32_t msr = 0x800; msr <= 0x8FF; msr++)
        check_msr(f, msr);
    assert_int_equal(wrmsr(f, 0, BASE_MSR, 0xFEE00100), 0);
    for (uint32_t msr = 0x800; msr <= 0x8FF; msr++) {
        assert_int_equal(rdmsr_rc(f, 0, msr), -1); /* nor when disabled */
        assert_int_equal(wrmsr(f, 0, msr, 0), -1);
    }
}

/* ---- xAPIC: every register's address ---- */

static bool xapic_address(unsigned reg)
{
    return reg == 0x02 || reg == 0x03 || (reg >= 0x08 && reg <= 0x28) ||
           (reg >= 0x30 && reg <= 0x39) || reg == 0x3E;
}

static void test_every_address(void **state)
{
    struct fixture *f = *state;

    enable(f);
    for (unsigned reg = 0; reg < 0x100; reg++) {
        uint32_t want = xapic_address(reg) ? 0 : 0x80;

        wr(f, 0, ESR, 0);
        rd(f, 0, reg * 16);
        wr(f, 0, ESR, 0);
        assert_int_equal(rd(f, 0, ESR), want);
        if (reg == ESR / 16 || reg == ICR / 16) /* ICR 0 is a message with an illegal vector */
            continue;
        wr(f, 0, reg * 16, reg == SVR / 16 ? 0x1FF : reg == LVT_ERROR / 16 ? MASKED : 0);
        wr(f, 0, ESR, 0);
        assert_int_equal(rd(f, 0, ESR), want);
    }
    /* What is read-only stays: version, APR, PPR, ISR, TMR, IRR, current count; and the id. */
    wr(f, 0, TPR, 0x20);
    for (unsigned reg = 0x02; reg <= 0x39; reg++) {
        uint32_t before = rd(f, 0, reg * 16);

        if (reg == 3 || reg == 9 || reg == 0xA || (reg >= 0x10 && reg <= 0x27) || reg == 2 ||
            reg == 0x39) {
            wr(f, 0, reg * 16, ~before);
            assert_int_equal(rd(f, 0, reg * 16), before);
        }
    }
    wr(f, 0, SVR, 0x3FF); /* there is no focus checking (bit 9) */
    assert_int_equal(rd(f, 0, SVR), 0x1FF);
    wr(f, 0, LINT0, 0xFFFFFFFF);
    assert_int_equal(rd(f, 0, LINT0), 0x1A7FF);
    wr(f, 0, TIMER, 0xFFFFFFFF);
    assert_int_equal(rd(f, 0, TIMER), 0x700FF);
}

/* ---- IA32_APIC_BASE ---- */

static void test_base_moves(void **state)
{
    struct fixture *f = *state;

    enable(f);
    wr(f, 0, TPR, 0x30);
    assert_int_equal(wrmsr(f, 0, BASE_MSR, 0x12345900), 0);
    assert_int_equal(rdmsr(f, 0, BASE_MSR), 0x12345900);
    assert_int_equal(rd(f, 0, TPR), 0x30); /* moving loses nothing */
    assert_int_equal(wrmsr(f, 0, BASE_MSR, 0xFFFFFFF900), 0);
    assert_int_equal(rdmsr(f, 0, BASE_MSR), 0xFFFFFFF900);
    assert_int_equal(wrmsr(f, 0, BASE_MSR, 0x10000000900), -1); /* past 40 bits */
    assert_int_equal(wrmsr(f, 0, BASE_MSR, 0), 0); /* disabled, at zero, no longer the BSP */
    assert_int_equal(rdmsr(f, 0, BASE_MSR), 0);
    assert_int_equal(wrmsr(f, 0, BASE_MSR, 0x900), 0);
    assert_int_equal(rd(f, 0, TPR), 0);
    for (unsigned bit = 0; bit < 64; bit++) {
        bool reserved = bit < 8 || bit == 9 || bit >= 40;

        if (reserved)
            assert_int_equal(wrmsr(f, 0, BASE_MSR, 0x900 | 1ull << bit), -1);
    }
    assert_int_equal(wrmsr(f, 0, BASE_MSR, 0xFED00900), 0);
    lapics_init(f->l, 0); /* an INIT leaves it */
    assert_int_equal(rdmsr(f, 0, BASE_MSR), 0xFED00900);
    msi_send(f->env.irqs, 0xFED00000, 0x50); /* messages do not move with the registers */
    assert_false(pending(f, 0));
    wr(f, 0, SVR, 0x1FF);
    msi_send(f->env.irqs, 0xFEE00000, 0x50);
    assert_int_equal(ack(f, 0), 0x50);
    lapics_reset(f->l);
    assert_int_equal(rdmsr(f, 0, BASE_MSR), 0xFEE00900);
    assert_int_equal(rdmsr(f, 1, BASE_MSR), 0xFEE00800);
}

static void test_base_saved(void **state)
{
    struct fixture *f = *state;
    struct state_buf buf = {0};
    size_t pos = 0;

    assert_int_equal(wrmsr(f, 3, BASE_MSR, 0xFE000C00 & ~0x400ull), 0);
    wr(f, 3, SVR, 0x1FF);
    wr(f, 3, LVT_ERROR, 0x44);
    rd(f, 3, 0x3F0);
    assert_int_equal(ack(f, 3), 0x44);
    wr(f, 3, EOI, 0);
    lapics_save(f->l, &buf);
    remake(f, false);
    assert_int_equal(lapics_load(f->l, buf.data, buf.len, &pos, NULL), 0);
    assert_int_equal(rdmsr(f, 3, BASE_MSR), 0xFE000800);
    rd(f, 3, 0x3F0); /* told already */
    assert_int_equal(ack(f, 3), -1);
    free(buf.data);
}

/* All nine transitions, and what they keep. */
static void test_transitions(void **state)
{
    static const uint64_t modes[] = {0, 0x800, 0xC00};
    static const int allowed[3][3] = {{0, 0, -1}, {0, 0, 0}, {0, -1, 0}}; /* [from][to] */
    struct fixture *f = *state;

    for (unsigned from = 0; from < 3; from++) {
        for (unsigned to = 0; to < 3; to++) {
            lapics_reset(f->l);
            if (from != 1)
                assert_int_equal(wrmsr(f, 2, BASE_MSR, LAPIC_BASE | modes[from]), 0);
            assert_int_equal(wrmsr(f, 2, BASE_MSR, LAPIC_BASE | modes[to]), allowed[from][to]);
            assert_int_equal(wrmsr(f, 2, BASE_MSR, LAPIC_BASE | 0x400), -1);
        }
    }
    lapics_reset(f->l);
    enable(f);
    wr(f, 2, TPR, 0x30);
    wr(f, 2, LDR, 0x04000000);
    wr(f, 2, DFR, 0);
    wr(f, 2, LINT1, 0x400);
    wr(f, 2, ICR_HIGH, 0x05000000);
    wr(f, 2, DIVIDE, 0xB);
    wr(f, 2, TIMER, 0x40);
    wr(f, 2, INITIAL, 1000);
    ipi(f, 0, 2, 0x50);
    assert_int_equal(wrmsr(f, 2, BASE_MSR, 0xFEE00C00), 0);
    assert_int_equal(rdmsr(f, 2, 0x80D), 4); /* cluster 0, member 2 */
    assert_int_equal(rdmsr(f, 2, 0x830) >> 32, 0);
    assert_int_equal(rdmsr(f, 2, 0x836), 0x400);
    assert_int_equal(rdmsr(f, 2, 0x80F), 0x1FF);
    ticks(f, 400);
    assert_int_equal(rdmsr(f, 2, 0x839), 600); /* the timer runs on */
    assert_int_equal(ack(f, 2), 0x50);
    assert_int_equal(wrmsr(f, 2, BASE_MSR, 0xFEE00000), 0);
    assert_int_equal(wrmsr(f, 2, BASE_MSR, 0xFEE00800), 0);
    assert_int_equal(rd(f, 2, LDR), 0);
    assert_int_equal(rd(f, 2, DFR), 0xFFFFFFFF);
    assert_int_equal(rd(f, 2, LINT1), MASKED);
    assert_int_equal(rd(f, 2, SVR), 0xFF);
    assert_int_equal(rd(f, 2, INITIAL), 0);
    assert_int_equal(rd(f, 2, DIVIDE), 0);
    assert_int_equal(rd(f, 2, ISR + 0x20), 0);
    assert_int_equal(rd(f, 2, ID), 2u << 24);
    lapics_init(f->l, 2);
    assert_int_equal(rdmsr(f, 2, BASE_MSR), 0xFEE00800);
}

/* ---- errors ---- */

static void test_error_interrupt(void **state)
{
    struct fixture *f = *state;

    enable(f);
    rd(f, 0, 0x3F0); /* masked: noted only, and tells nobody */
    wr(f, 0, LVT_ERROR, 0x33);
    rd(f, 0, 0x3F0);
    assert_int_equal(ack(f, 0), 0x33);
    wr(f, 0, EOI, 0);
    rd(f, 0, 0x3F0); /* no second interrupt before ESR is written */
    ipi(f, 0, 1, 0x05);
    assert_int_equal(ack(f, 0), -1);
    assert_int_equal(rd(f, 0, ESR), 0);
    wr(f, 0, ESR, 0);
    assert_int_equal(rd(f, 0, ESR), 0xA0);
    assert_int_equal(rd(f, 0, ESR), 0xA0); /* reading does not clear */
    rd(f, 0, 0x3F0);
    assert_int_equal(ack(f, 0), 0x33);
}

static void test_illegal_vectors(void **state)
{
    struct fixture *f = *state;

    enable(f);
    for (unsigned vector = 0; vector < 16; vector++) {
        ipi(f, 0, 1, vector); /* the sender notes it, and who receives it */
        wr(f, 0, ESR, 0);
        wr(f, 1, ESR, 0);
        assert_int_equal(rd(f, 0, ESR), 0x20);
        assert_int_equal(rd(f, 1, ESR), 0x40);
        ipi(f, 2, 0, 0x40000 | vector); /* oneself: both */
        wr(f, 2, ESR, 0);
        assert_int_equal(rd(f, 2, ESR), 0x60);
        wr(f, 3, DIVIDE, 0xB);
        wr(f, 3, TIMER, vector); /* a local one */
        wr(f, 3, INITIAL, 1);
        ticks(f, 2);
        wr(f, 3, ESR, 0);
        assert_int_equal(rd(f, 3, ESR), 0x40);
    }
    for (unsigned cpu = 0; cpu < 4; cpu++)
        assert_int_equal(rd(f, cpu, IRR), 0);
    ipi(f, 0, 1, 16); /* the lowest legal one; its class is above an idle priority */
    assert_int_equal(ack(f, 1), 16);
    wr(f, 0, ESR, 0);
    assert_int_equal(rd(f, 0, ESR), 0);
    ipi(f, 0, 1, 0x400); /* an NMI has no vector */
    wr(f, 0, ESR, 0);
    assert_int_equal(rd(f, 0, ESR), 0);
}

static void test_redirectable_ipi(void **state)
{
    struct fixture *f = *state;

    enable(f);
    wr(f, 1, LDR, 0x02000000);
    ipi(f, 0, 2, 0x950); /* xAPIC mode has them */
    assert_int_equal(ack(f, 1), 0x50);
    remake(f, true);
    enable_x2apic(f);
    assert_int_equal(wrmsr(f, 0, 0x830, 2ull << 32 | 0x950), 0);
    assert_int_equal(ack(f, 1), -1);
    assert_int_equal(wrmsr(f, 0, 0x828, 0), 0);
    assert_int_equal(rdmsr(f, 0, 0x828), 0x10);
    assert_int_equal(wrmsr(f, 0, 0x830, 2ull << 32 | 0x905), 0); /* its vector does not count */
    assert_int_equal(wrmsr(f, 0, 0x828, 0), 0);
    assert_int_equal(rdmsr(f, 0, 0x828), 0x10);
}

/* ---- LINT0 and LINT1 ---- */

static void pic(struct fixture *f, bool level)
{
    irq_pic_output(f->env.irqs, level);
}

static void test_lint0_level(void **state)
{
    struct fixture *f = *state;

    enable(f);
    wr(f, 0, LINT0, MASKED | 0x8048);
    pic(f, true);
    assert_int_equal(rd(f, 0, LINT0), MASKED | 0x8048);
    assert_int_equal(ack(f, 0), -1);
    wr(f, 0, LINT0, 0x8048); /* unmasked while the pin is asserted */
    assert_int_equal(rd(f, 0, LINT0), 0xC048);
    wr(f, 0, LINT0, 0x8048); /* once */
    assert_int_equal(rd(f, 0, TMR + 0x20), 1u << 8);
    assert_int_equal(ack(f, 0), 0x48);
    wr(f, 0, LINT0, MASKED | 0x8048);
    assert_int_equal(rd(f, 0, LINT0), MASKED | 0xC048);
    wr(f, 0, EOI, 0); /* ends it although it is masked */
    assert_int_equal(rd(f, 0, LINT0), MASKED | 0x8048);
    assert_int_equal(ack(f, 0), -1);
    wr(f, 0, LINT0, 0x8048);
    assert_int_equal(ack(f, 0), 0x48);
    wr(f, 0, LINT0, 0x48); /* edge: no remote IRR, and no new edge */
    assert_int_equal(rd(f, 0, LINT0), 0x48);
    wr(f, 0, EOI, 0);
    assert_int_equal(ack(f, 0), -1);
    pic(f, false);
    wr(f, 0, LINT0, 0x8048);
    pic(f, true);
    assert_int_equal(ack(f, 0), 0x48);
    wr(f, 0, SVR, 0xFF); /* software-disabled: masked, remote IRR stays until the EOI */
    assert_int_equal(rd(f, 0, LINT0), MASKED | 0xC048);
    wr(f, 0, EOI, 0);
    assert_int_equal(rd(f, 0, LINT0), MASKED | 0x8048);
    assert_int_equal(f->eois, 3); /* a level has its bit in TMR, so I/O APICs hear of the EOI */
}

static void test_lint0_polarity(void **state)
{
    struct fixture *f = *state;

    enable(f);
    pic(f, true);
    wr(f, 0, LINT0, 0xA048); /* active low, level */
    assert_int_equal(ack(f, 0), -1);
    pic(f, false);
    assert_int_equal(ack(f, 0), 0x48);
    pic(f, true);
    wr(f, 0, EOI, 0);
    assert_int_equal(rd(f, 0, LINT0), 0xA048);
    wr(f, 0, LINT0, 0x2400); /* NMI at the falling edge */
    assert_int_equal(f->nmis[0], 0);
    pic(f, false);
    assert_int_equal(f->nmis[0], 1);
    wr(f, 0, LINT0, 0x2700); /* ExtINT is a level whatever the trigger mode says */
    assert_true(pending(f, 0));
    pic(f, true);
    assert_false(pending(f, 0));
    wr(f, 0, LINT0, 0x700);
    assert_true(pending(f, 0));
}

/* The wire moves on one thread while its entry is written and ended on another: none is lost. */
struct toggler {
    struct fixture *f;
    atomic_bool done;
};

static void *toggle(void *ctx)
{
    struct toggler *t = ctx;

    for (unsigned i = 0; i < 40000; i++)
        pic(t->f, i & 1); /* ends high */
    t->done = true;
    return NULL;
}

static void unheard(void *ctx, unsigned cpu)
{
    (void)ctx;
    (void)cpu;
}

static void test_lint0_race(void **state)
{
    struct fixture *f = *state;
    struct vcpu_signal_ops silent = signals; /* the fixture's counters are not atomic */
    struct lapic_config cfg = {.cpus = 1, .phys_bits = 40, .signals = &silent, .signals_ctx = f};
    struct toggler t = {.f = f};
    pthread_t thread;

    silent.interrupt = unheard;
    lapics_destroy(f->l);
    assert_int_equal(lapics_create(&f->env, &cfg, &f->l, NULL), 0);
    wr(f, 0, LINT0, 0x8048);
    assert_int_equal(pthread_create(&thread, NULL, toggle, &t), 0);
    for (unsigned i = 0; !t.done; i++) {
        wr(f, 0, LINT0, i & 1 ? MASKED | 0x8048 : 0x8048);
        if (ack(f, 0) == 0x48)
            wr(f, 0, EOI, 0);
    }
    pthread_join(thread, NULL);
    wr(f, 0, LINT0, 0x8048);
    for (unsigned i = 0; i < 10; i++) { /* asks again as long as the wire is high */
        assert_int_equal(rd(f, 0, LINT0), 0xC048);
        assert_int_equal(ack(f, 0), 0x48);
        wr(f, 0, EOI, 0);
    }
    pic(f, false);
    assert_int_equal(ack(f, 0), 0x48);
    wr(f, 0, EOI, 0);
    assert_int_equal(rd(f, 0, LINT0), 0x8048);
    assert_int_equal(ack(f, 0), -1);
}

/* What each delivery mode makes of the pins. */
static void test_lint_deliveries(void **state)
{
    struct fixture *f = *state;

    enable(f);
    wr(f, 0, LINT0, 0x8200); /* SMI, NMI and INIT are edges, whatever the trigger mode says */
    pic(f, true);
    pic(f, false);
    assert_int_equal(f->smis[0], 1);
    wr(f, 0, LINT0, 0x8400);
    pic(f, true);
    pic(f, false);
    assert_int_equal(f->nmis[0], 1);
    wr(f, 0, LINT0, 0x8500);
    pic(f, true);
    pic(f, false);
    assert_int_equal(f->inits[0], 1);
    assert_int_equal(rd(f, 0, LINT0), 0x8500);
    wr(f, 0, LINT0, 0x348); /* reserved */
    pic(f, true);
    pic(f, false);
    assert_false(pending(f, 0));
    wr(f, 0, LINT0, 0x10700);
    wr(f, 0, LINT1, 0x700); /* ExtINT on the button's pin: an INTA cycle */
    lapics_nmi(f->l);
    assert_int_equal(ack(f, 0), 0x38);
    assert_int_equal(f->nmis[0], 1);
    wr(f, 0, LINT1, 0x8049); /* level is not supported there: an edge */
    lapics_nmi(f->l);
    assert_int_equal(rd(f, 0, LINT1), 0x8049);
    assert_int_equal(ack(f, 0), 0x49);
    wr(f, 0, LINT1, 0x200);
    lapics_nmi(f->l);
    assert_int_equal(f->smis[0], 2);
    wr(f, 0, LINT0, 0x8005); /* fixed, level, illegal vector */
    pic(f, true);
    assert_int_equal(rd(f, 0, LINT0), 0x8005); /* not accepted */
    wr(f, 0, ESR, 0);
    assert_int_equal(rd(f, 0, ESR), 0x40);
}

/* ---- messages ---- */

static void test_init_levels(void **state)
{
    struct fixture *f = *state;

    enable(f);
    ipi(f, 0, 1, 0x8500); /* trigger mode level, level 0: a de-assertion */
    assert_int_equal(f->inits[1], 0);
    ipi(f, 0, 1, 0xC500);
    assert_int_equal(f->inits[1], 1);
    ipi(f, 0, 1, 0x0500); /* an edge is always one */
    assert_int_equal(f->inits[1], 2);
    ipi(f, 0, 1, 0x4500);
    assert_int_equal(f->inits[1], 3);
    ipi(f, 0, 0, 0x88500); /* to all: no harm */
    assert_int_equal(f->inits[0], 0);
    ipi(f, 0, 1, 0x8050); /* trigger mode and level do not count in others */
    assert_int_equal(rd(f, 1, TMR + 0x20), 0);
    assert_int_equal(ack(f, 1), 0x50);
    ipi(f, 0, 1, 0x0400);
    assert_int_equal(f->nmis[1], 1);
}

static void test_lowest_without_sender(void **state)
{
    struct fixture *f = *state;

    enable(f);
    for (unsigned i = 1; i < CPUS; i++)
        wr(f, i, TPR, 0x40);
    wr(f, 7, TPR, 0x30);
    ipi(f, 0, 0, 0xC0150);
    assert_false(irr(f, 0, 0x50)); /* the least busy, but it does not take part */
    assert_true(irr(f, 7, 0x50));
}

static void test_software_disabled_messages(void **state)
{
    struct irq_message msg = {.dest = 1, .assert = true, .delivery = IRQ_EXTINT};
    struct fixture *f = *state;

    irq_deliver(f->env.irqs, &msg); /* ExtINT is not what a software-disabled APIC hears */
    assert_false(pending(f, 1));
    msi_send(f->env.irqs, 0xFEE01000, 0x50);
    assert_false(irr(f, 1, 0x50));
    ipi(f, 0, 1, 0x4400);
    ipi(f, 0, 1, 0x4200);
    ipi(f, 0, 1, 0x4500);
    ipi(f, 0, 1, 0x4612);
    assert_int_equal(f->nmis[1] + f->smis[1] + f->inits[1] + f->sipis[1], 4);
    ipi(f, 1, 0, 0x51); /* it may still send */
    assert_int_equal(ack(f, 0), 0x51);
}

static void test_msi_fields(void **state)
{
    struct fixture *f = *state;

    enable(f);
    msi_send(f->env.irqs, 0xFEE01000, 0x8050); /* level, de-asserted */
    assert_false(irr(f, 1, 0x50));
    msi_send(f->env.irqs, 0xFEE01000, 0xC050);
    assert_true(irr(f, 1, 0x50));
    msi_send(f->env.irqs, 0xFEE01000, 0x0051); /* an edge has no level */
    assert_true(irr(f, 1, 0x51));
    msi_send(f->env.irqs, 0xFEE01000, 0x0352); /* reserved delivery modes */
    msi_send(f->env.irqs, 0xFEE01000, 0x0652);
    assert_int_equal(f->sipis[1], 0);
    assert_false(irr(f, 1, 0x52));
    msi_send(f->env.irqs, 0xFEE01000, 0x0400);
    msi_send(f->env.irqs, 0xFEE01000, 0x0200);
    msi_send(f->env.irqs, 0xFEE01000, 0x0500);
    assert_int_equal(f->nmis[1] + f->smis[1] + f->inits[1], 3);
    msi_send(f->env.irqs, 0xFEEFF000, 0x0053); /* everyone */
    for (unsigned i = 0; i < CPUS; i++)
        assert_true(irr(f, i, 0x53));
    for (unsigned i = 0; i < 4; i++) {
        wr(f, i, LDR, 0x01000000u << i);
        wr(f, i, TPR, 0x40);
    }
    wr(f, 2, TPR, 0);
    msi_send(f->env.irqs, 0xFEE0F00C, 0x0054); /* the redirection hint: one of the set */
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(irr(f, i, 0x54), i == 2);
    msi_send(f->env.irqs, 0xFEE0F004, 0x0055);
    for (unsigned i = 0; i < 4; i++)
        assert_true(irr(f, i, 0x55));
}

static void test_messages_to_x2apic(void **state)
{
    struct fixture *f = *state;

    remake(f, true);
    enable_x2apic(f);
    msi_send(f->env.irqs, 0xFEEFF004, 0x60); /* logical FF: the first eight of cluster 0 */
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(pending(f, i), i < 8);
    msi_send(f->env.irqs, 0xFEEFF000, 0x61); /* physical FF: everyone */
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(ack(f, i), 0x61);
}

/* Logical destinations of the two xAPIC models and of x2APIC, against the definition. */
static void test_logical_destinations(void **state)
{
    struct fixture *f = *state;
    uint32_t vector = 0x20;

    enable(f);
    for (unsigned i = 0; i < CPUS; i++) {
        wr(f, i, LDR, i * 37u << 24);
        wr(f, i, DFR, i & 1 ? 0xFFFFFFFF : 0x0FFFFFFF);
    }
    for (uint32_t dest = 0; dest < 256; dest++) {
        ipi(f, 0, dest, 0x800 | vector);
        for (unsigned i = 0; i < CPUS; i++) {
            uint32_t ldr = (i * 37u) & 0xFF;
            bool flat = (dest & ldr) != 0;
            bool cluster = (dest >> 4 == 15 || dest >> 4 == ldr >> 4) && (dest & ldr & 15) != 0;

            assert_int_equal(irr(f, i, vector), i & 1 ? flat : cluster);
            while (ack(f, i) >= 0)
                wr(f, i, EOI, 0);
        }
        vector = 0x20 + dest % 200;
    }
}

/* ---- timer ---- */

static void test_timer_modes(void **state)
{
    struct fixture *f = *state;

    enable(f);
    wr(f, 0, DIVIDE, 0xB);
    wr(f, 0, TIMER, 0x60040); /* the reserved mode counts nothing */
    wr(f, 0, INITIAL, 1000);
    ticks(f, 5000);
    assert_int_equal(rd(f, 0, CURRENT), 0);
    assert_false(pending(f, 0));
    wr(f, 0, TIMER, 0x20040);
    wr(f, 0, INITIAL, 1000);
    ticks(f, 2500);
    assert_int_equal(ack(f, 0), 0x40);
    wr(f, 0, EOI, 0);
    wr(f, 0, TIMER, 0x40040); /* deadline mode: the count is gone */
    assert_int_equal(rd(f, 0, CURRENT), 0);
    assert_int_equal(rd(f, 0, INITIAL), 0);
    ticks(f, 5000);
    assert_false(pending(f, 0));
    wr(f, 0, TIMER, 0x50040); /* masked: the deadline passes in silence, and is gone */
    wrmsr(f, 0, DEADLINE_MSR, on_tsc_now(f, 0) + 100);
    wr(f, 0, TIMER, 0x50041); /* the mode stays: still armed */
    assert_int_not_equal(rdmsr(f, 0, DEADLINE_MSR), 0);
    step(f, 1000);
    assert_int_equal(rdmsr(f, 0, DEADLINE_MSR), 0);
    assert_false(pending(f, 0));
    wr(f, 0, TIMER, 0x40041);
    assert_false(pending(f, 0));
    wrmsr(f, 0, DEADLINE_MSR, on_tsc_now(f, 0) + 2000);
    wrmsr(f, 0, DEADLINE_MSR, on_tsc_now(f, 0) + 200); /* a new one replaces it */
    step(f, 100);
    assert_int_equal(ack(f, 0), 0x41);
    wr(f, 0, EOI, 0);
    step(f, 2000);
    assert_false(pending(f, 0));
    wrmsr(f, 0, DEADLINE_MSR, on_tsc_now(f, 0) + 2000);
    lapics_init(f->l, 0); /* an INIT disarms */
    assert_int_equal(rdmsr(f, 0, DEADLINE_MSR), 0);
    step(f, 2000);
    assert_false(pending(f, 0));
}

/* A new divisor while it runs: the count goes on from where it is, for all pairs. */
static void test_divide_while_running(void **state)
{
    static const struct {
        uint32_t code, by;
    } d[] = {{0, 2}, {1, 4}, {2, 8}, {3, 16}, {8, 32}, {9, 64}, {0xA, 128}, {0xB, 1}};
    struct fixture *f = *state;

    enable(f);
    for (unsigned i = 0; i < countof(d); i++) {
        for (unsigned j = 0; j < countof(d); j++) {
            wr(f, 0, TIMER, i & 1 ? 0x20040 : 0x40);
            wr(f, 0, DIVIDE, d[i].code);
            wr(f, 0, INITIAL, 1000);
            ticks(f, 300ull * d[i].by);
            assert_int_equal(rd(f, 0, CURRENT), 700);
            wr(f, 0, DIVIDE, d[j].code);
            assert_int_equal(rd(f, 0, CURRENT), 700);
            ticks(f, 699ull * d[j].by);
            assert_int_equal(rd(f, 0, CURRENT), 1);
            assert_int_equal(ack(f, 0), -1);
            ticks(f, d[j].by);
            assert_int_equal(rd(f, 0, CURRENT), i & 1 ? 1000 : 0);
            assert_int_equal(ack(f, 0), 0x40);
            wr(f, 0, EOI, 0);
        }
    }
}

/* The clock goes on, and the loop has not come to its timers yet. */
static void late(struct fixture *f, uint64_t n)
{
    timerq_set_now(f->env.timers, timerq_now(f->env.timers) + n * TICK_NS);
}

static void test_timer_before_loop(void **state)
{
    struct fixture *f = *state;

    enable(f);
    wr(f, 0, DIVIDE, 0xB);
    wr(f, 0, TIMER, 0x41);
    wr(f, 0, INITIAL, 1000);
    late(f, 1000);
    assert_int_equal(rd(f, 0, CURRENT), 0); /* who reads zero has the interrupt */
    assert_int_equal(ack(f, 0), 0x41);
    wr(f, 0, EOI, 0);
    wr(f, 0, INITIAL, 1000);
    late(f, 1000);
    wr(f, 0, INITIAL, 500); /* the old count's interrupt is not lost, nor is the new count */
    assert_int_equal(ack(f, 0), 0x41);
    wr(f, 0, EOI, 0);
    assert_int_equal(rd(f, 0, CURRENT), 500);
    late(f, 500);
    wr(f, 0, TIMER, MASKED | 0x42); /* too late to mask it, or to change its vector */
    assert_int_equal(ack(f, 0), 0x41);
    wr(f, 0, EOI, 0);
    step(f, 0); /* the loop at last: once is enough */
    ticks(f, 5000);
    assert_int_equal(ack(f, 0), -1);
    wr(f, 0, TIMER, 0x20043);
    wr(f, 0, INITIAL, 1000);
    late(f, 2300);
    wr(f, 0, DIVIDE, 0);
    assert_int_equal(ack(f, 0), 0x43);
    wr(f, 0, EOI, 0);
    assert_int_equal(rd(f, 0, CURRENT), 700);
    ticks(f, 1400);
    assert_int_equal(ack(f, 0), 0x43);
    wr(f, 0, EOI, 0);
    wr(f, 0, TIMER, 0x40044);
    wrmsr(f, 0, DEADLINE_MSR, on_tsc_now(f, 0) + 1000);
    late(f, 100);
    assert_int_equal(rdmsr(f, 0, DEADLINE_MSR), 0);
    assert_int_equal(ack(f, 0), 0x44);
    wr(f, 0, EOI, 0);
    wrmsr(f, 0, DEADLINE_MSR, on_tsc_now(f, 0) + 1000);
    late(f, 100);
    wrmsr(f, 0, DEADLINE_MSR, on_tsc_now(f, 0) + 1000000);
    assert_int_equal(ack(f, 0), 0x44);
    assert_int_not_equal(rdmsr(f, 0, DEADLINE_MSR), 0);
}

/* A model that counts every pulse of the timer's clock. */
struct timer_model {
    unsigned by, phase; /* divisor, pulses since the last count */
    uint32_t initial, count;
    bool periodic, masked, pending;
};

static void timer_pulse(struct timer_model *m)
{
    if (m->count == 0 || ++m->phase < m->by)
        return;
    m->phase = 0;
    if (--m->count != 0)
        return;
    m->pending |= !m->masked;
    m->count = m->periodic ? m->initial : 0;
}

static void timer_command(struct fixture *f, struct timer_model *m, unsigned what)
{
    static const unsigned by[] = {2, 4, 8, 16, 32, 64, 128, 1};
    static const uint32_t code[] = {0, 1, 2, 3, 8, 9, 0xA, 0xB};
    unsigned n = (unsigned)rand() % 8;

    switch (what) {
    case 0:
        wr(f, 0, DIVIDE, code[n]);
        m->by = by[n];
        m->phase = 0; /* counting begins anew with the pulse; the manual leaves it open */
        break;
    case 1:
        m->initial = n == 0 ? 0 : 250 + (uint32_t)rand() % 500; /* shorter ones run together */
        wr(f, 0, INITIAL, m->initial);
        m->count = m->initial;
        m->phase = 0;
        break;
    case 2:
        m->periodic = n & 1;
        m->masked = n >= 6;
        wr(f, 0, TIMER, (m->periodic ? 0x20000u : 0) | (m->masked ? MASKED : 0) | 0x40);
        break;
    default:
        break;
    }
}

static void test_timer_random(void **state)
{
    unsigned seed = (unsigned)time(NULL);
    struct timer_model m = {.by = 2};
    struct fixture *f = *state;

    printf("seed %u\n", seed);
    srand(seed);
    enable(f);
    wr(f, 0, TIMER, 0x40);
    for (unsigned i = 0; i < 20000; i++) {
        unsigned pulses = (unsigned)rand() % (rand() % 8 ? 40 : 3000);

        timer_command(f, &m, (unsigned)rand() % 40);
        if (rand() & 1)
            late(f, pulses);
        else
            ticks(f, pulses);
        while (pulses-- > 0)
            timer_pulse(&m);
        if (rd(f, 0, CURRENT) != m.count || pending(f, 0) != m.pending)
            fail_msg("seed %u, step %u: count %u, not %u; interrupt %d, not %d", seed, i,
                     rd(f, 0, CURRENT), m.count, pending(f, 0), m.pending);
        if (m.pending && rand() % 3 == 0) {
            assert_int_equal(ack(f, 0), 0x40);
            wr(f, 0, EOI, 0);
            m.pending = false;
        }
    }
}

/* ---- priorities ---- */

/* PPR against its definition for every pair of classes; and who may interrupt. */
static void test_ppr(void **state)
{
    struct fixture *f = *state;

    enable(f);
    for (unsigned tpr = 0; tpr < 256; tpr += 7) {
        for (unsigned isrv = 0x10; isrv < 256; isrv += 13) {
            uint32_t want = tpr >> 4 >= isrv >> 4 ? tpr : isrv & 0xF0;

            wr(f, 1, TPR, 0);
            ipi(f, 0, 1, isrv);
            assert_int_equal(ack(f, 1), isrv);
            wr(f, 1, TPR, tpr);
            assert_int_equal(rd(f, 1, PPR), want);
            assert_int_equal(lapics_cpu_ops.get_cr8(f->l, 1), tpr >> 4);
            if (want >> 4 < 15) {
                ipi(f, 0, 1, (want & 0xF0) | 0xF);
                assert_false(pending(f, 1));
                ipi(f, 0, 1, (want & 0xF0) + 0x10);
                assert_true(pending(f, 1));
            }
            lapics_cpu_ops.set_cr8(f->l, 1, 0);
            assert_int_equal(rd(f, 1, TPR), 0);
            wr(f, 1, EOI, 0);
            while (ack(f, 1) >= 0)
                wr(f, 1, EOI, 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_every_msr),
        T(test_every_address),
        T(test_base_moves),
        T(test_base_saved),
        T(test_transitions),
        T(test_error_interrupt),
        T(test_illegal_vectors),
        T(test_redirectable_ipi),
        T(test_lint0_level),
        T(test_lint0_polarity),
        T(test_lint0_race),
        T(test_lint_deliveries),
        T(test_init_levels),
        T(test_lowest_without_sender),
        T(test_software_disabled_messages),
        T(test_msi_fields),
        T(test_messages_to_x2apic),
        T(test_logical_destinations),
        T(test_timer_modes),
        T(test_timer_before_loop),
        T(test_timer_random),
        T(test_divide_while_running),
        T(test_ppr),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
