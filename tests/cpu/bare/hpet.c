/*
 * The HPET at its usual address: counter, comparators by the I/O APIC, by messages and in place of
 * the 8254 and the RTC. Time is real: bounds are wide, what is exact are counts and order.
 */
#include "irqs.h"

#define CAPS "HPET 1.0a, general capabilities and ID register"
#define CONF "HPET 1.0a, general configuration register"
#define COUNTER "HPET 1.0a, main counter value register"
#define STATUS "HPET 1.0a, general interrupt status register"
#define TIMER "HPET 1.0a, timer N configuration and capability register"
#define COMPARE "HPET 1.0a, timer N comparator value register"
#define FSB "HPET 1.0a, timer N FSB interrupt route register"
#define LEGACY "HPET 1.0a, LegacyReplacement route option"

#define BASE 0xfed00000u
#define R_CONF 0x10u
#define R_STATUS 0x20u
#define R_COUNTER 0xf0u
#define ENABLE 1u
#define REPLACE 2u
#define T_LEVEL 2u
#define T_ENABLE 4u
#define T_PERIODIC 8u
#define T_SET 0x40u
#define T_32 0x100u
#define T_FSB 0x4000u

#define VECTOR 0x51u

static uint64_t hz;
static unsigned pin;

static uint64_t get(unsigned offset)
{
    return skipping() ? 0 : *(volatile uint64_t *)(word)(BASE + offset);
}

static void put(unsigned offset, uint64_t value)
{
    if (!skipping())
        *(volatile uint64_t *)(word)(BASE + offset) = value;
}

static unsigned timer(unsigned n)
{
    return 0x100 + 0x20 * n;
}

static uint64_t ms(unsigned n)
{
    return hz / 1000 * n;
}

static uint32_t me(void)
{
    return apic_id() << 24;
}

static uint64_t route(void)
{
    return (uint64_t)pin << 9;
}

/* A comparator a little ahead. The counter stands meanwhile, or a pause of ours could be longer. */
static void ahead(unsigned n, unsigned ms_ahead)
{
    uint64_t conf = get(R_CONF);

    put(R_CONF, conf & ~(uint64_t)ENABLE);
    put(timer(n) + 8, get(R_COUNTER) + ms(ms_ahead));
    put(R_CONF, conf);
}

/* All timers off, the counter too, nothing pending. */
static void quiet(void)
{
    put(R_CONF, 0);
    for (unsigned n = 0; n <= (get(0) >> 8 & 31); n++) {
        put(timer(n), 0);
        put(timer(n) + 8, ~0ull);
    }
    put(R_STATUS, 0xffffffff);
    put(R_COUNTER, 0);
    irqs_let_in();
    irq_handler[VECTOR] = apic_done;
    irqs_forget();
}

static void capabilities(void)
{
    uint64_t caps = get(0);

    check("caps.revision", CAPS, (caps & 0xff) != 0, 1);
    check("caps.period", CAPS, (caps >> 32) != 0 && (caps >> 32) <= 0x05f5e100, 1);
    check("caps.timers", CAPS, (caps >> 8 & 31) >= 2, 1);
    check("caps.vendor", CAPS, (caps >> 16 & 0xffff) != 0 && (caps >> 16 & 0xffff) != 0xffff, 1);
    put(0, ~caps);
    check("caps.read-only", CAPS, get(0), caps);
    check("timer0.periodic", TIMER, get(timer(0)) >> 4 & 1, 1);
    check("timer0.64-bit", TIMER, (get(timer(0)) >> 5 & 1) <= (caps >> 13 & 1), 1);
    put(R_CONF, ~0ull);
    check_bits("conf.reserved", CONF, get(R_CONF), 0, ~(uint64_t)(ENABLE | REPLACE));
    put(R_CONF, 0);
    check("conf.reads", CONF, get(R_CONF), 0);
    hz = 1000000000000000ull / (skipping() ? 1 : caps >> 32);
}

static void counter(void)
{
    uint64_t before, started, stopped, after, lost;

    quiet();
    put(R_COUNTER, 0x123456789);
    delay(100);
    check("counter.halted", COUNTER, get(R_COUNTER), 0x123456789);
    put(R_COUNTER, 0xffffff00);
    before = tsc();
    put(R_CONF, ENABLE);
    started = tsc();
    delay(10000);
    stopped = tsc();
    put(R_CONF, 0);
    after = tsc();
    lost = get(R_COUNTER) - 0xffffff00;
    check("counter.frequency", CAPS,
          lost <= (after - before) / 1000 * (hz / 100) * 105 / (tsc_hz() / 1000) + 2 &&
              lost + 2 >= (stopped - started) / 1000 * (hz / 100) * 95 / (tsc_hz() / 1000),
          1);
    check("counter.beyond-32-bits", COUNTER, get(R_COUNTER) >> 32, 1);
    lost = get(R_COUNTER);
    delay(100);
    check("counter.stands-again", COUNTER, get(R_COUNTER), lost);
}

/* The first pin that timer 0 can have, rather one that no ISA device has. */
static void choose_pin(void)
{
    uint32_t pins = (uint32_t)(get(timer(0)) >> 32);

    pin = 0;
    for (unsigned i = 0; i < 24; i++) {
        if ((pins >> i & 1) != 0 && (pin < 16 || pin == 0))
            pin = i;
    }
    check("timer0.pins", TIMER, pins != 0, 1);
    put(timer(0), route());
    check("timer0.route-reads", TIMER, get(timer(0)) >> 9 & 31, pin);
    for (unsigned i = 31; i > 0; i--) {
        if ((pins >> i & 1) == 0) {
            put(timer(0), (uint64_t)i << 9);
            check("timer0.route-refused", TIMER, (get(timer(0)) >> 9 & 31) != i, 1);
            break;
        }
    }
}

static void one_shot(void)
{
    quiet();
    ioapic_entry(pin, VECTOR, me());
    put(timer(0), route() | T_ENABLE);
    put(timer(0) + 8, ms(1));
    check("one-shot.compare-reads", COMPARE, get(timer(0) + 8), ms(1));
    irqs_on_for(2000);
    check("one-shot.not-while-halted", CONF, irq_total, 0);
    put(R_CONF, ENABLE);
    check("one-shot.interrupt", TIMER, irqs_wait(VECTOR, 1, 1000), 1);
    check("one-shot.not-too-early", COMPARE, get(R_COUNTER) >= ms(1), 1);
    irqs_on_for(3000);
    check("one-shot.once", TIMER, irq_total, 1);
    check("one-shot.edge-no-status", STATUS, get(R_STATUS) & 1, 0);
    check("one-shot.compare-stays", COMPARE, get(timer(0) + 8), ms(1));
    ahead(0, 2);
    check("one-shot.again", TIMER, irqs_wait(VECTOR, 2, 1000), 2);
    put(timer(0), route());
    ahead(0, 1);
    irqs_on_for(3000);
    check("one-shot.disabled", TIMER, irq_total, 2);
    quiet();
}

static void periodic(void)
{
    uint64_t start, compare;
    unsigned n;

    quiet();
    put(timer(0), route() | T_ENABLE | T_PERIODIC | T_SET);
    put(timer(0) + 8, ms(2)); /* the first match */
    put(timer(0) + 8, ms(1)); /* the period */
    check("periodic.conf-reads", TIMER, get(timer(0)) & (T_ENABLE | T_PERIODIC),
          T_ENABLE | T_PERIODIC);
    start = tsc();
    put(R_CONF, ENABLE);
    check("periodic.several", TIMER, irqs_wait(VECTOR, 6, 1000) >= 6, 1);
    n = irq_count[VECTOR];
    check("periodic.not-too-many", TIMER, n <= (tsc() - start) / (tsc_hz() / 1000) * 11 / 10 + 2,
          1);
    compare = get(timer(0) + 8);
    check("periodic.compare-moves", COMPARE, compare >= ms(7) && compare % ms(1) == 0, 1);
    delay(2000);
    check("periodic.compare-ahead", COMPARE, get(timer(0) + 8) > compare, 1);
    put(R_CONF, 0);
    irqs_let_in();
    n = irq_count[VECTOR];
    irqs_on_for(3000);
    check("periodic.halted", CONF, irq_count[VECTOR], n);
    quiet();
}

/* ---- level ---- */

static unsigned again; /* the status is cleared when it has been taken so often */

static void level_handler(unsigned vector, const struct irq_frame *frame)
{
    (void)frame;
    if (irq_count[vector] >= again)
        put(R_STATUS, 1);
    apic_write(APIC_EOI, 0);
}

static void level(void)
{
    quiet();
    ioapic_entry(pin, IOAPIC_LEVEL | IOAPIC_MASKED | VECTOR, me());
    put(timer(0), route() | T_ENABLE | T_LEVEL);
    put(timer(0) + 8, ms(1));
    put(R_CONF, ENABLE);
    for (unsigned i = 0; i < 1000 && (get(R_STATUS) & 1) == 0; i++)
        delay(100);
    check("level.status", STATUS, get(R_STATUS) & 1, 1);
    put(R_STATUS, 0);
    check("level.status-zero-keeps", STATUS, get(R_STATUS) & 1, 1);
    put(R_STATUS, 2);
    check("level.status-other-bit", STATUS, get(R_STATUS) & 1, 1);
    irq_handler[VECTOR] = level_handler;
    again = 3;
    ioapic_entry(pin, IOAPIC_LEVEL | VECTOR, me());
    irqs_let_in();
    check("level.again-while-set", TIMER, irq_total, 3);
    check("level.status-cleared", STATUS, get(R_STATUS) & 1, 0);
    check("level.remote-irr", TIMER, ioapic_low(pin) & IOAPIC_REMOTE_IRR, 0);
    quiet();
    ioapic_entry(pin, IOAPIC_MASKED, 0);
}

/* ---- 32 bits ---- */

static void narrow(void)
{
    quiet();
    ioapic_entry(pin, VECTOR, me());
    put(timer(0), route() | T_ENABLE | T_32);
    check("32-bit.reads", TIMER, get(timer(0)) & T_32, T_32);
    put(R_COUNTER, 0x5ffffff00);
    put(timer(0) + 8, 0x100);
    put(R_CONF, ENABLE);
    check("32-bit.compares-low-half", TIMER, irqs_wait(VECTOR, 1, 1000), 1);
    check("32-bit.at-its-time", TIMER, get(R_COUNTER) >= 0x600000100, 1);
    irqs_on_for(1000);
    check("32-bit.once", TIMER, irq_total, 1);
    quiet();
    ioapic_entry(pin, IOAPIC_MASKED, 0);
}

/* ---- messages ---- */

static void messages(void)
{
    require(skipping() || (get(timer(0)) >> 15 & 1) != 0, "timer 0 sends no messages");
    quiet();
    put(timer(0) + 0x10, (0xfee00000ull | apic_id() << 12) << 32 | 0x62);
    check("fsb.reads", FSB, get(timer(0) + 0x10),
          skipping() ? 0 : (0xfee00000ull | apic_id() << 12) << 32 | 0x62);
    put(timer(0), T_FSB | T_ENABLE);
    put(timer(0) + 8, ms(1));
    put(R_CONF, ENABLE);
    check("fsb.interrupt", FSB, irqs_wait(0x62, 1, 1000), 1);
    irqs_on_for(3000);
    check("fsb.once", FSB, irq_total, 1);
    check("fsb.no-status", STATUS, get(R_STATUS) & 1, 0);
    quiet();
    put(timer(0), T_FSB | T_ENABLE | T_PERIODIC | T_SET);
    put(timer(0) + 8, ms(1));
    put(timer(0) + 8, ms(1));
    put(R_CONF, ENABLE);
    check("fsb.periodic", FSB, irqs_wait(0x62, 4, 1000) >= 4, 1);
    quiet();
    require_end();
}

/* ---- in place of the 8254 and the RTC ---- */

static void pic_done(unsigned vector, const struct irq_frame *frame)
{
    (void)frame;
    if (vector >= PIC_BASE + 8)
        outb(0xa0, 0x20);
    outb(0x20, 0x20);
}

static void legacy(void)
{
    require(skipping() || (get(0) >> 15 & 1) != 0, "there is no legacy replacement");
    quiet();
    ioapic_entry(2, 0x63, me());
    ioapic_entry(8, 0x64, me());
    /* the 8254 runs, and is cut off */
    outb(0x43, 0x34);
    outb(0x40, 1193 & 0xff);
    outb(0x40, 1193 >> 8);
    check("legacy.8254-before", LEGACY, irqs_wait(0x63, 2, 1000) >= 2, 1);
    put(R_CONF, REPLACE);
    irqs_let_in();
    irqs_forget();
    irqs_on_for(5000);
    check("legacy.8254-cut-off", LEGACY, irq_total, 0);
    put(timer(0), T_ENABLE);
    put(timer(0) + 8, ms(1));
    put(timer(1), T_ENABLE);
    put(timer(1) + 8, ms(2));
    put(R_CONF, ENABLE | REPLACE);
    check("legacy.timer0-pin-2", LEGACY, irqs_wait(0x63, 1, 1000), 1);
    check("legacy.timer1-pin-8", LEGACY, irqs_wait(0x64, 1, 1000), 1);
    irqs_on_for(3000);
    check("legacy.once", LEGACY, irq_total, 2);
    /* by the PIC: interrupts 0 and 8 */
    ioapic_entry(2, IOAPIC_MASKED, 0);
    ioapic_entry(8, IOAPIC_MASKED, 0);
    pic_start(1);
    irq_handler[PIC_BASE] = irq_handler[PIC_BASE + 8] = pic_done;
    apic_write(APIC_LVT_LINT0, 0x700);
    irqs_forget();
    pic_mask(0xfefa);
    ahead(0, 2);
    ahead(1, 5);
    check("legacy.timer0-irq-0", LEGACY, irqs_wait(PIC_BASE, 1, 1000), 1);
    check("legacy.timer1-irq-8", LEGACY, irqs_wait(PIC_BASE + 8, 1, 1000), 1);
    check("legacy.pic-once", LEGACY, irq_total, 2);
    /* and back */
    quiet();
    check("legacy.8254-after", LEGACY, irqs_wait(PIC_BASE, 2, 1000) >= 2, 1);
    outb(0x43, 0x30);
    pic_mask(0xffff);
    apic_write(APIC_LVT_LINT0, APIC_MASKED);
    irqs_let_in();
    require_end();
}

void test(void)
{
    uint32_t period;

    require(cpuid_bit(1, 0, 3, 9), "there is no local APIC");
    irqs_start();
    pic_start(1);
    apic_mode(false);
    apic_reset();
    ioapic_mask_all();
    period = (uint32_t)(get(0) >> 32);
    require(period != 0 && period != 0xffffffff, "there is no HPET");
    capabilities();
    counter();
    choose_pin();
    one_shot();
    periodic();
    level();
    narrow();
    messages();
    legacy();
    require_end();
}
