/*
 * For tests of the local APICs at register level: twenty of them on a stepped clock, with what they
 * ask of their vCPUs counted.
 */
#ifndef LAPIC_FIXTURE_H
#define LAPIC_FIXTURE_H

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "dev/lapic.h"

#define CPUS 20u
#define TSC_HZ 2000000000ull
#define TICK_NS (NSEC_PER_SEC / LAPIC_BUS_HZ) /* a period of the timer's input clock */

enum { ID = 0x20, VERSION = 0x30, TPR = 0x80, APR = 0x90, PPR = 0xA0, EOI = 0xB0, LDR = 0xD0 };
enum { DFR = 0xE0, SVR = 0xF0, ISR = 0x100, TMR = 0x180, IRR = 0x200, ESR = 0x280, ICR = 0x300 };
enum { ICR_HIGH = 0x310, TIMER = 0x320, LINT0 = 0x350, LINT1 = 0x360, LVT_ERROR = 0x370 };
enum { INITIAL = 0x380, CURRENT = 0x390, DIVIDE = 0x3E0 };

#define MASKED 0x10000u
#define BASE_MSR 0x1Bu
#define DEADLINE_MSR 0x6E0u

struct fixture {
    struct dev_env env;
    struct lapics *l;
    unsigned interrupts[CPUS], nmis[CPUS], smis[CPUS], inits[CPUS], sipis[CPUS];
    uint8_t sipi_vector;
    uint64_t tsc_offset, tsc_hz;
    unsigned eois;
    uint8_t eoi_vector;
    pthread_mutex_t chip_lock;
};

static inline void on_interrupt(void *ctx, unsigned cpu)
{
    ((struct fixture *)ctx)->interrupts[cpu]++;
}

static inline void on_nmi(void *ctx, unsigned cpu)
{
    ((struct fixture *)ctx)->nmis[cpu]++;
}

static inline void on_smi(void *ctx, unsigned cpu)
{
    ((struct fixture *)ctx)->smis[cpu]++;
}

static inline void on_init(void *ctx, unsigned cpu)
{
    ((struct fixture *)ctx)->inits[cpu]++;
}

static inline void on_sipi(void *ctx, unsigned cpu, uint8_t vector)
{
    struct fixture *f = ctx;

    f->sipis[cpu]++;
    f->sipi_vector = vector;
}

static inline uint64_t on_tsc_now(void *ctx, unsigned cpu)
{
    struct fixture *f = ctx;

    (void)cpu;
    return clock_now(&f->env) * 2 + f->tsc_offset;
}

static inline uint64_t on_tsc_hz(void *ctx, unsigned cpu)
{
    struct fixture *f = ctx;

    (void)cpu;
    return f->tsc_hz;
}

static const struct vcpu_signal_ops signals = {
    .interrupt = on_interrupt,
    .nmi = on_nmi,
    .smi = on_smi,
    .init = on_init,
    .sipi = on_sipi,
    .tsc_now = on_tsc_now,
    .tsc_hz = on_tsc_hz,
};

static inline void on_eoi(void *ctx, uint8_t vector)
{
    struct fixture *f = ctx;

    f->eois++;
    f->eoi_vector = vector;
}

static inline uint8_t on_inta(void *ctx)
{
    struct fixture *f = ctx;

    irq_pic_output(f->env.irqs, false);
    return 0x38;
}

static inline void make(struct fixture *f, bool x2apic)
{
    struct lapic_config cfg = {
        .cpus = CPUS, .x2apic = x2apic, .phys_bits = 40, .signals = &signals, .signals_ctx = f};
    struct irq_chip ioapic = {.ctx = f, .lock = &f->chip_lock, .eoi = on_eoi};
    struct irq_chip pic = {.ctx = f, .lock = &f->chip_lock, .ack = on_inta};

    assert_int_equal(lapics_create(&f->env, &cfg, &f->l, NULL), 0);
    irq_attach_ioapic(f->env.irqs, &ioapic);
    irq_attach_pic(f->env.irqs, &pic);
}

static inline int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    f->tsc_hz = TSC_HZ;
    dev_env_init(&f->env, "lapic");
    pthread_mutex_init(&f->chip_lock, NULL);
    f->env.timers = timerq_create(true, NULL, NULL);
    f->env.irqs = irq_router_create(NULL);
    make(f, false);
    *state = f;
    return 0;
}

static inline int teardown(void **state)
{
    struct fixture *f = *state;

    lapics_destroy(f->l);
    irq_router_destroy(f->env.irqs);
    timerq_destroy(f->env.timers);
    pthread_mutex_destroy(&f->chip_lock);
    dev_env_fini(&f->env);
    free(f);
    return 0;
}

static inline void remake(struct fixture *f, bool x2apic)
{
    lapics_destroy(f->l);
    make(f, x2apic);
}

/* ---- shorthands of the tests ---- */

static inline uint32_t rd(struct fixture *f, unsigned cpu, unsigned reg)
{
    return (uint32_t)lapics_cpu_ops.mmio_read(f->l, cpu, reg, 4);
}

static inline void wr(struct fixture *f, unsigned cpu, unsigned reg, uint32_t value)
{
    lapics_cpu_ops.mmio_write(f->l, cpu, reg, 4, value);
}

static inline int wrmsr(struct fixture *f, unsigned cpu, uint32_t msr, uint64_t value)
{
    return lapics_cpu_ops.msr_write(f->l, cpu, msr, value);
}

static inline uint64_t rdmsr(struct fixture *f, unsigned cpu, uint32_t msr)
{
    uint64_t value = 0;

    assert_int_equal(lapics_cpu_ops.msr_read(f->l, cpu, msr, &value), 0);
    return value;
}

static inline int rdmsr_rc(struct fixture *f, unsigned cpu, uint32_t msr)
{
    uint64_t value;

    return lapics_cpu_ops.msr_read(f->l, cpu, msr, &value);
}

static inline bool pending(struct fixture *f, unsigned cpu)
{
    return lapics_cpu_ops.pending(f->l, cpu);
}

static inline int ack(struct fixture *f, unsigned cpu)
{
    return lapics_cpu_ops.ack(f->l, cpu);
}

static inline void enable(struct fixture *f)
{
    for (unsigned i = 0; i < CPUS; i++)
        wr(f, i, SVR, 0x1FF);
}

static inline void enable_x2apic(struct fixture *f)
{
    for (unsigned i = 0; i < CPUS; i++)
        assert_int_equal(wrmsr(f, i, 0x80F, 0x1FF), 0);
}

static inline void ipi(struct fixture *f, unsigned cpu, uint32_t dest, uint32_t low)
{
    wr(f, cpu, ICR_HIGH, dest << 24);
    wr(f, cpu, ICR, low);
}

static inline bool irr(struct fixture *f, unsigned cpu, unsigned vector)
{
    return rd(f, cpu, IRR + 16 * (vector / 32)) >> (vector & 31) & 1;
}

static inline void step(struct fixture *f, uint64_t ns)
{
    timerq_step(f->env.timers, ns);
}

/* By the timer's input clock. */
static inline void ticks(struct fixture *f, uint64_t n)
{
    step(f, n * TICK_NS);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

#endif
