/*
 * The local APIC's timer, in xAPIC and x2APIC mode: one-shot, periodic and TSC-deadline, by
 * interrupts that arrive. Time is real: bounds are wide, what is exact are counts and order.
 */
#include "irqs.h"

#define TIMER "SDM Vol.3, APIC timer"
#define MODES "SDM Vol.3, APIC timer modes"
#define DEADLINE "SDM Vol.3, TSC-deadline mode"
#define SHADOW "SDM Vol.2, STI"
#define HALT "SDM Vol.2, HLT"

#define VECTOR 0x51
#define ONE_SHOT 0u
#define PERIODIC 0x20000u
#define BY_DEADLINE 0x40000u
#define MSR_DEADLINE 0x6e0u
#define BY_1 0xbu

static const char *mode;
static uint64_t timer_hz;

static const char *named(const char *name)
{
    return joined(mode, name, "");
}

static void timer_off(void)
{
    apic_write(APIC_INITIAL, 0);
    apic_write(APIC_LVT_TIMER, APIC_MASKED | VECTOR);
    irqs_let_in();
    irqs_forget();
}

static uint32_t ms(unsigned n)
{
    return (uint32_t)(timer_hz / 1000 * n);
}

/* Whether something that had to be done within 2 ms was, or the host was busy with others. */
static bool prompt(uint64_t start)
{
    return skipping() || tsc() - start < tsc_hz() / 1000;
}

/* What the count lost between two readings of the TSC at each of its ends, with this divider. */
struct sample {
    uint64_t before, started, stopped, after, lost;
};

static struct sample sample(uint32_t divide)
{
    struct sample s;

    apic_write(APIC_LVT_TIMER, APIC_MASKED | VECTOR);
    apic_write(APIC_DIVIDE, divide);
    s.before = tsc();
    apic_write(APIC_INITIAL, 0xffffffff);
    s.started = tsc();
    delay(2000);
    s.stopped = tsc();
    s.lost = 0xffffffff - (uint64_t)apic_read(APIC_CURRENT);
    s.after = tsc();
    apic_write(APIC_INITIAL, 0);
    return s;
}

/* The count with the divider at 1, from the sample whose ends are the most certain. */
static void measure(void)
{
    uint64_t least = ~0ull;

    for (unsigned i = 0; i < 50; i++) {
        struct sample s = sample(BY_1);
        uint64_t doubt = s.started - s.before + s.after - s.stopped;

        if (doubt >= least)
            continue;
        least = doubt;
        timer_hz = s.lost * (tsc_hz() / 1000) / (s.stopped - s.before) * 1000;
        if (doubt < (s.after - s.before) / 200)
            break;
    }
}

/* It cannot have lost more than in the longer time, nor less than in the shorter one. */
static bool agrees(uint32_t divide, unsigned by)
{
    struct sample s = sample(divide);
    uint64_t most = (s.after - s.before) / 1000 * (timer_hz / 100) * 105 / (tsc_hz() / 1000) / by;
    uint64_t fewest =
        (s.stopped - s.started) / 1000 * (timer_hz / 100) * 95 / (tsc_hz() / 1000) / by;

    return s.lost <= most + 2 && s.lost + 2 >= fewest;
}

static void frequency(void)
{
    static const uint8_t code[] = {0, 1, 2, 3, 8, 9, 10, 11};
    uint32_t r[4], seen = 0, kept = 0;

    measure();
    check(named("counts"), TIMER, timer_hz > 1000000, 1);
    for (unsigned i = 0; i < 8; i++) {
        if (agrees(code[i], i == 7 ? 1 : 2u << i))
            seen |= 1u << i;
        if (apic_read(APIC_DIVIDE) == code[i])
            kept |= 1u << i;
    }
    check(named("divide.rates"), TIMER, seen, 0xff);
    check(named("divide.reads"), TIMER, kept, 0xff);
    cpuid(0, 0, r);
    if (r[0] >= 0x15)
        cpuid(0x15, 0, r);
    else
        r[2] = 0;
    require(r[2] != 0, "CPUID does not tell the crystal's frequency");
    check(named("crystal"), TIMER, within(timer_hz, r[2], 10), 1);
    require_end();
    apic_write(APIC_DIVIDE, BY_1);
}

/* ---- one-shot, periodic ---- */

static void one_shot(void)
{
    uint32_t first, second;
    uint64_t start;

    timer_off();
    apic_write(APIC_LVT_TIMER, ONE_SHOT | VECTOR);
    apic_write(APIC_INITIAL, ms(900));
    first = apic_read(APIC_CURRENT);
    delay(100);
    second = apic_read(APIC_CURRENT);
    check(named("one-shot.counts-down"), TIMER, first <= ms(900) && second < first, 1);
    check(named("one-shot.initial-reads"), TIMER, apic_read(APIC_INITIAL), ms(900));
    apic_write(APIC_INITIAL, ms(1));
    check(named("one-shot.begins-anew"), TIMER, apic_read(APIC_CURRENT) <= ms(1), 1);
    check(named("one-shot.interrupts"), TIMER, irqs_wait(VECTOR, 1, 1000), 1);
    check(named("one-shot.ends-at-zero"), TIMER, apic_read(APIC_CURRENT), 0);
    irqs_on_for(3000);
    check(named("one-shot.once"), TIMER, irq_total, 1);
    check(named("one-shot.initial-stays"), TIMER, apic_read(APIC_INITIAL), ms(1));
    /* stopped */
    do {
        timer_off();
        apic_write(APIC_LVT_TIMER, ONE_SHOT | VECTOR);
        start = tsc();
        apic_write(APIC_INITIAL, ms(2));
        apic_write(APIC_INITIAL, 0);
    } while (!prompt(start));
    check(named("stop.current"), TIMER, apic_read(APIC_CURRENT), 0);
    irqs_on_for(4000);
    check(named("stop.no-interrupt"), TIMER, irq_total, 0);
    /* with IF clear it waits in IRR */
    apic_write(APIC_INITIAL, ms(1));
    for (unsigned i = 0; i < 1000 && !apic_bit(APIC_IRR, VECTOR); i++)
        delay(100);
    check(named("one-shot.waits-in-irr"), TIMER, apic_bit(APIC_IRR, VECTOR), 1);
    check(named("one-shot.edge"), TIMER, apic_bit(APIC_TMR, VECTOR), 0);
    irqs_let_in();
    check(named("one-shot.then-taken"), TIMER, irq_total, 1);
}

static void masked(void)
{
    uint64_t start;

    timer_off();
    apic_write(APIC_INITIAL, ms(1));
    for (unsigned i = 0; i < 1000 && apic_read(APIC_CURRENT) != 0; i++)
        delay(100);
    check(named("masked.counts"), TIMER, apic_read(APIC_CURRENT), 0);
    irqs_let_in();
    check(named("masked.no-interrupt"), TIMER, irq_total, 0);
    apic_write(APIC_LVT_TIMER, ONE_SHOT | VECTOR);
    irqs_on_for(500);
    check(named("masked.nor-later"), TIMER, irq_total, 0);
    /* a vector changed while the count runs is the one that is used */
    do {
        timer_off();
        apic_write(APIC_LVT_TIMER, ONE_SHOT | VECTOR);
        start = tsc();
        apic_write(APIC_INITIAL, ms(2));
        apic_write(APIC_LVT_TIMER, ONE_SHOT | 0x62);
    } while (!prompt(start));
    check(named("vector.changed"), TIMER, irqs_wait(0x62, 1, 1000), 1);
    check(named("vector.not-the-old"), TIMER, irq_count[VECTOR], 0);
}

static void periodic(void)
{
    uint64_t start;
    uint32_t high = 0;
    unsigned n;

    timer_off();
    apic_write(APIC_LVT_TIMER, PERIODIC | VECTOR);
    start = tsc();
    apic_write(APIC_INITIAL, ms(1));
    check(named("periodic.several"), TIMER, irqs_wait(VECTOR, 6, 1000) >= 6, 1);
    n = irq_count[VECTOR];
    check(named("periodic.not-too-many"), TIMER,
          n <= (tsc() - start) / (tsc_hz() / 1000) * 11 / 10 + 2, 1);
    for (unsigned i = 0; i < 200; i++) {
        uint32_t now = apic_read(APIC_CURRENT);

        if (now > high)
            high = now;
        delay(20);
    }
    check(named("periodic.current-in-bounds"), TIMER, high <= ms(1) && high > ms(1) / 4, 1);
    check(named("periodic.merge-in-irr"), TIMER, apic_bit(APIC_IRR, VECTOR), 1);
    n = irq_count[VECTOR];
    apic_write(APIC_LVT_TIMER, APIC_MASKED | PERIODIC | VECTOR);
    irqs_on_for(3000);
    check(named("periodic.masked"), TIMER, irq_count[VECTOR], n + 1);
    apic_write(APIC_LVT_TIMER, PERIODIC | VECTOR);
    check(named("periodic.unmasked"), TIMER, irqs_wait(VECTOR, n + 3, 1000) >= n + 3, 1);
    apic_write(APIC_INITIAL, 0);
    irqs_let_in();
    n = irq_count[VECTOR];
    irqs_on_for(3000);
    check(named("periodic.stopped"), TIMER, irq_count[VECTOR], n);
    timer_off();
    apic_write(APIC_LVT_TIMER, PERIODIC | VECTOR);
    apic_write(APIC_INITIAL, ms(1));
    apic_write(APIC_SVR, APIC_SPURIOUS); /* masks the entry */
    irqs_on_for(3000);
    check(named("periodic.software-disabled"), TIMER, irq_count[VECTOR] <= 1, 1);
    apic_reset();
}

/* ---- TSC-deadline ---- */

static uint64_t taken_at;

static void notes_time(unsigned vector, const struct irq_frame *frame)
{
    taken_at = tsc();
    apic_done(vector, frame);
}

/* Another mode disarms it, it disarms them, and so does zero. */
static void deadline_disarmed(void)
{
    uint64_t start;

    do {
        timer_off();
        apic_write(APIC_LVT_TIMER, BY_DEADLINE | VECTOR);
        start = tsc();
        wrmsr(MSR_DEADLINE, start + tsc_hz() / 500);
        wrmsr(MSR_DEADLINE, 0);
    } while (!prompt(start));
    check(named("deadline.zero-reads"), DEADLINE, rdmsr(MSR_DEADLINE), 0);
    irqs_on_for(4000);
    check(named("deadline.zero-disarms"), DEADLINE, irq_total, 0);
    do {
        timer_off();
        apic_write(APIC_LVT_TIMER, BY_DEADLINE | VECTOR);
        start = tsc();
        wrmsr(MSR_DEADLINE, start + tsc_hz() / 500);
        apic_write(APIC_LVT_TIMER, ONE_SHOT | VECTOR);
    } while (!prompt(start));
    check(named("deadline.left-reads-zero"), MODES, rdmsr(MSR_DEADLINE), 0);
    irqs_on_for(4000);
    check(named("deadline.left-disarms"), MODES, irq_total, 0);
    apic_write(APIC_LVT_TIMER, BY_DEADLINE | VECTOR);
    check(named("deadline.back-reads-zero"), MODES, rdmsr(MSR_DEADLINE), 0);
    do {
        timer_off();
        apic_write(APIC_LVT_TIMER, ONE_SHOT | VECTOR);
        start = tsc();
        apic_write(APIC_INITIAL, ms(2));
        apic_write(APIC_LVT_TIMER, BY_DEADLINE | VECTOR);
    } while (!prompt(start));
    irqs_on_for(4000);
    check(named("deadline.entered-disarms"), MODES, irq_total, 0);
}

static void deadline(void)
{
    uint64_t when;

    timer_off();
    irq_handler[VECTOR] = notes_time;
    wrmsr(MSR_DEADLINE, tsc());
    check(named("deadline.other-mode"), DEADLINE, rdmsr(MSR_DEADLINE), 0);
    apic_write(APIC_LVT_TIMER, BY_DEADLINE | VECTOR);
    irqs_let_in();
    check(named("deadline.other-mode-no-interrupt"), DEADLINE, irq_total, 0);
    wrmsr(MSR_DEADLINE, 1);
    check(named("deadline.past-irr"), DEADLINE, apic_bit(APIC_IRR, VECTOR), 1);
    check(named("deadline.past-reads-zero"), DEADLINE, rdmsr(MSR_DEADLINE), 0);
    irqs_let_in();
    check(named("deadline.past-once"), DEADLINE, irq_total, 1);
    when = tsc() + tsc_hz() * 1000;
    wrmsr(MSR_DEADLINE, when);
    check(named("deadline.reads"), DEADLINE, rdmsr(MSR_DEADLINE), when);
    when = tsc() + tsc_hz() / 500;
    wrmsr(MSR_DEADLINE, when);
    check(named("deadline.earlier"), DEADLINE, irqs_wait(VECTOR, 2, 1000), 2);
    check(named("deadline.not-too-early"), DEADLINE, skipping() || taken_at >= when, 1);
    check(named("deadline.then-zero"), DEADLINE, rdmsr(MSR_DEADLINE), 0);
    irqs_on_for(3000);
    check(named("deadline.once"), DEADLINE, irq_total, 2);
    deadline_disarmed();
    timer_off();
    apic_write(APIC_LVT_TIMER, BY_DEADLINE | VECTOR);
    /* the count is not there in this mode */
    apic_write(APIC_INITIAL, ms(1));
    check(named("deadline.no-current"), DEADLINE, apic_read(APIC_CURRENT), 0);
    irqs_on_for(3000);
    check(named("deadline.no-count"), DEADLINE, irq_total, 0);
    /* masked it passes unheard */
    apic_write(APIC_LVT_TIMER, APIC_MASKED | BY_DEADLINE | VECTOR);
    wrmsr(MSR_DEADLINE, 1);
    irqs_let_in();
    apic_write(APIC_LVT_TIMER, BY_DEADLINE | VECTOR);
    irqs_let_in();
    check(named("deadline.masked"), DEADLINE, irq_total, 0);
    /* it is the TSC that counts, also when that is written */
    when = tsc();
    wrmsr(MSR_DEADLINE, when + tsc_hz() * 1000);
    wrmsr(0x10, when + tsc_hz() * 1001);
    check(named("deadline.tsc-moved"), DEADLINE, irqs_wait(VECTOR, 1, 1000), 1);
    wrmsr(0x10, when + tsc_hz() / 100);
    irq_handler[VECTOR] = apic_done;
    timer_off();
}

/* ---- as fragments see it ---- */

/* Taken at one of the few instructions after the WRMSR. */
static void at_once(void)
{
    struct cpu c = kernel(CODE("wrmsr\n 9: nop\n nop\n nop"));

    timer_off();
    apic_write(APIC_LVT_TIMER, BY_DEADLINE | VECTOR);
    irq_on_fragment(VECTOR);
    c.cx = MSR_DEADLINE;
    c.ax = 1;
    c.flags |= FL_IF;
    run(&c);
    check(named("deadline.past-at-once"), DEADLINE,
          skipping() || (c.vector == VECTOR && c.ip >= c.code.mark && c.ip <= c.code.mark + 2), 1);
    apic_write(APIC_EOI, 0);
    /* the shadow of STI */
    c = kernel(CODE("wrmsr\n sti\n inc rbx\n 9: inc rbx\n inc rbx"));
    c.cx = MSR_DEADLINE;
    c.ax = 1;
    run_fault(named("deadline.sti-shadow"), SHADOW, &c, VECTOR, NO_ERROR);
    apic_write(APIC_EOI, 0);
    c = kernel(CODE("wrmsr\n sti\n hlt\n 9: nop"));
    c.cx = MSR_DEADLINE;
    c.ax = 1;
    run_fault(named("deadline.sti-hlt"), HALT, &c, VECTOR, NO_ERROR);
    apic_write(APIC_EOI, 0);
    irq_on_handler(VECTOR);
    timer_off();
}

static void halted(void)
{
    struct cpu c = kernel(CODE("sti\n hlt\n 9: cli"));

    timer_off();
    apic_write(APIC_LVT_TIMER, ONE_SHOT | VECTOR);
    irq_on_fragment(VECTOR);
    apic_write(APIC_INITIAL, ms(1));
    run_fault(named("hlt.timer"), HALT, &c, VECTOR, NO_ERROR);
    apic_write(APIC_EOI, 0);
    irq_on_handler(VECTOR);
    /* the handler returns behind HLT, and five times over */
    c = kernel(CODE("mov ecx, 5\n 1: sti\n hlt\n cli\n dec ecx\n jnz 1b"));
    apic_write(APIC_LVT_TIMER, PERIODIC | VECTOR);
    apic_write(APIC_INITIAL, ms(1));
    run_done(named("hlt.periodic"), HALT, &c);
    check(named("hlt.periodic-each"), HALT, irq_total >= 5, 1);
    timer_off();
    /* a busy loop is left, too */
    c = kernel(CODE("9: jmp 9b"));
    c.flags |= FL_IF;
    apic_write(APIC_LVT_TIMER, ONE_SHOT | VECTOR);
    irq_on_fragment(VECTOR);
    apic_write(APIC_INITIAL, ms(1));
    run_fault(named("loop.left"), TIMER, &c, VECTOR, NO_ERROR);
    apic_write(APIC_EOI, 0);
    /* and a string instruction, between iterations: 4 GiB of them */
    c = kernel(CODE("9: rep lodsq"));
    c.flags |= FL_IF;
    c.cx = 1ul << 29;
    apic_write(APIC_INITIAL, ms(1));
    run_fault(named("rep.left"), "SDM Vol.2, REP", &c, VECTOR, NO_ERROR);
    check(named("rep.left-registers"), "SDM Vol.2, REP", c.cx > 0 && c.si == (1ul << 32) - 8 * c.cx,
          1);
    apic_write(APIC_EOI, 0);
    irq_on_handler(VECTOR);
    timer_off();
}

static void all(void)
{
    apic_reset();
    frequency();
    one_shot();
    masked();
    periodic();
    halted();
    require(cpuid_bit(1, 0, 2, 24), "the APIC timer has no TSC-deadline mode");
    deadline();
    at_once();
    require_end();
}

void test(void)
{
    require(cpuid_bit(1, 0, 3, 9), "there is no local APIC");
    irqs_start();
    ioapic_mask_all();
    pic_start(1);
    apic_mode(false);
    mode = "xapic.";
    all();
    if (cpuid_bit(1, 0, 2, 21)) {
        apic_mode(true);
        mode = "x2apic.";
        all();
        apic_mode(false);
    }
}
