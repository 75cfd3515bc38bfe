/*
 * The 8254: channel 0's interrupts through the PIC, channel 2's gate and output at port 0x61,
 * latching and reading back. Time is real: bounds are wide, what is exact are counts and order.
 */
#include "irqs.h"

#define MODE0 "8254, mode 0: interrupt on terminal count"
#define MODE1 "8254, mode 1: hardware retriggerable one-shot"
#define MODE2 "8254, mode 2: rate generator"
#define MODE3 "8254, mode 3: square wave mode"
#define MODE4 "8254, mode 4: software triggered strobe"
#define LATCH "8254, counter latch command"
#define READ_BACK "8254, read-back command"
#define ACCESS "8254, write operations"
#define BCD "8254, control word format: BCD"
#define PORT61 "I/O controller hub, NMI status and control register"

#define HZ 1193182u
#define IRQ0 PIC_BASE

enum { BINARY = 0, LOW = 0x10, HIGH = 0x20, BOTH = 0x30 };

static void command(uint8_t value)
{
    outb(0x43, value);
}

static void mode(unsigned channel, unsigned number, unsigned bits)
{
    command((uint8_t)(channel << 6 | bits | number << 1));
}

static void load(unsigned channel, unsigned count)
{
    outb((uint16_t)(0x40 + channel), (uint8_t)count);
    outb((uint16_t)(0x40 + channel), (uint8_t)(count >> 8));
}

static unsigned read_count(unsigned channel)
{
    unsigned low = inb((uint16_t)(0x40 + channel));

    return low | (unsigned)inb((uint16_t)(0x40 + channel)) << 8;
}

static unsigned latched(unsigned channel)
{
    command((uint8_t)(channel << 6));
    return read_count(channel);
}

static uint8_t status(unsigned channel)
{
    command((uint8_t)(0xe0 | 2u << channel));
    return inb((uint16_t)(0x40 + channel));
}

static void gate2(bool high)
{
    outb(0x61, (uint8_t)((inb(0x61) & 0x0c) | high));
}

static bool out2(void)
{
    return (inb(0x61) & 0x20) != 0;
}

/* Waits for it to be so, 200 ms at most. */
static bool out2_becomes(bool high)
{
    uint64_t end = tsc() + tsc_hz() / 5;

    while (out2() != high && tsc() < end)
        ;
    return out2() == high;
}

static void pic_done(unsigned vector, const struct irq_frame *frame)
{
    (void)vector;
    (void)frame;
    outb(0x20, 0x20);
}

static void quiet(void)
{
    mode(0, 0, BOTH); /* without a count */
    irqs_let_in();
    irqs_forget();
}

/* ---- interrupts ---- */

static void rate(const char *name, const char *topic, unsigned number)
{
    uint64_t start, periods;
    unsigned n;

    quiet();
    start = tsc();
    mode(0, number, BOTH);
    load(0, HZ / 1000);
    check(joined(name, "several", ""), topic, irqs_wait(IRQ0, 10, 1000) >= 10, 1);
    n = irq_count[IRQ0];
    periods = (tsc() - start) / (tsc_hz() / 1000);
    check(joined(name, "not-too-many", ""), topic, n <= periods * 11 / 10 + 2, 1);
    check(joined(name, "only-these", ""), topic, irq_total, n);
    quiet();
    irqs_on_for(3000);
    check(joined(name, "stops", ""), topic, irq_total, 0);
}

static void terminal_count(void)
{
    quiet();
    mode(0, 0, BOTH);
    irqs_on_for(1000);
    check("mode0.no-count-no-interrupt", MODE0, irq_total, 0);
    load(0, HZ / 1000);
    check("mode0.interrupt", MODE0, irqs_wait(IRQ0, 1, 1000), 1);
    irqs_on_for(3000);
    check("mode0.once", MODE0, irq_total, 1);
    load(0, HZ / 1000);
    check("mode0.new-count", MODE0, irqs_wait(IRQ0, 2, 1000), 2);
    /* half a count stops it */
    load(0, 0xffff);
    outb(0x40, 0x10);
    check("mode0.first-byte-stops", MODE0, (irqs_on_for(3000), irq_total), 2);
    outb(0x40, 0x01);
    check("mode0.second-byte-starts", MODE0, irqs_wait(IRQ0, 3, 1000), 3);
    /* a short one, and one that ends while nobody listens */
    load(0, 1);
    check("mode0.shortest", MODE0, irqs_wait(IRQ0, 4, 1000), 4);
    load(0, 0xffff);
    mode(0, 0, BOTH);
    irqs_on_for(1000);
    check("mode0.control-word-stops", MODE0, irq_total, 4);
    quiet();
}

static void strobe(void)
{
    quiet();
    mode(0, 4, BOTH); /* the output goes high: that is an edge */
    irqs_let_in();
    irqs_forget();
    load(0, HZ / 1000);
    check("mode4.strobe", MODE4, irqs_wait(IRQ0, 1, 1000), 1);
    irqs_on_for(3000);
    check("mode4.once", MODE4, irq_total, 1);
    quiet();
}

/* ---- counters read ---- */

static void reading(void)
{
    unsigned a, b, c;

    gate2(true);
    mode(2, 2, BOTH);
    load(2, 0);
    delay(100);
    a = latched(2);
    delay(100);
    b = latched(2);
    check("latch.counts-down", LATCH, a != b, 1);
    command(0x80);
    delay(200);
    command(0x80); /* ignored until the first has been read */
    a = read_count(2);
    b = latched(2);
    check("latch.holds", LATCH, ((a - b) & 0xffff) > 150, 1);
    /* reading without a latch goes on low, high, low, high */
    mode(2, 2, BOTH);
    gate2(false);
    load(2, 0x1234);
    gate2(true);
    delay(100);
    gate2(false);
    a = read_count(2);
    b = read_count(2);
    check("read.still", LATCH, a, b);
    check("read.in-bounds", MODE2, a <= 0x1234 && a != 0, 1);
    /* status and count, in this order whichever was asked for */
    command(0xc8);
    c = inb(0x42);
    check_bits("read-back.status-first", READ_BACK, c, 0x34, 0x3f);
    check("read-back.then-count", READ_BACK, read_count(2), a);
    check("read-back.out-high-gate-low", MODE2, status(2) & 0x80, 0x80);
    command(0xe8);
    mode(2, 3, LOW);
    check_bits("read-back.mode-access", READ_BACK, status(2), 0x16, 0x3f);
    check("read-back.null", READ_BACK, status(2) & 0x40, 0x40);
    outb(0x42, 100);
    gate2(true);
    delay(50);
    check("read-back.loaded", READ_BACK, status(2) & 0x40, 0);
    /* several counters with one command */
    mode(2, 2, BOTH);
    load(2, 5000);
    mode(0, 2, BOTH);
    load(0, 5000);
    command(0xea);
    check_bits("read-back.two-first", READ_BACK, inb(0x40), 0x34, 0x3f);
    check_bits("read-back.two-second", READ_BACK, inb(0x42), 0x34, 0x3f);
    quiet();
}

/* With the gate low a count is loaded, and stays; in mode 1 it waits for the trigger. */
static void loaded(void)
{
    unsigned a;

    gate2(false);
    mode(2, 2, BOTH);
    load(2, 0x1234);
    delay(20);
    check("load.mode2", MODE2, latched(2), 0x1234);
    mode(2, 0, BOTH);
    load(2, 0x4321);
    delay(20);
    check("load.mode0", MODE0, latched(2), 0x4321);
    mode(2, 3, BOTH);
    load(2, 0x2468);
    delay(20);
    check("load.mode3-even", MODE3, latched(2), 0x2468);
    mode(2, 3, BOTH);
    load(2, 0x2469);
    delay(20);
    check("load.mode3-odd", MODE3, latched(2), 0x2468);
    mode(2, 1, BOTH);
    load(2, 0xffff);
    delay(20);
    check("load.mode1-waits", MODE1, status(2) & 0x40, 0x40);
    gate2(true);
    delay(20);
    check("load.mode1-trigger", MODE1, status(2) & 0x40, 0);
    load(2, 0xfff0);
    delay(20);
    check("load.mode1-next-waits", MODE1, status(2) & 0x40, 0x40);
    mode(2, 0, BOTH);
    load(2, 0xffff);
    delay(100);
    outb(0x42, 0x10);
    a = latched(2);
    delay(100);
    check("load.mode0-first-byte-holds", MODE0, latched(2), a);
    outb(0x42, 0x10);
    gate2(false);
}

static void widths(void)
{
    uint64_t start;
    unsigned n;

    gate2(true);
    mode(2, 2, LOW);
    outb(0x42, 200);
    delay(20);
    n = inb(0x42);
    check("access.low-byte", ACCESS, n >= 1 && n <= 200, 1);
    mode(2, 2, HIGH);
    outb(0x42, 0x20);
    delay(20);
    n = inb(0x42);
    check("access.high-byte", ACCESS, n <= 0x20, 1);
    /* decimal: no digit above 9 */
    command(0xb5);
    load(2, 0x0999);
    n = 0;
    start = tsc();
    for (unsigned i = 0; i < 200; i++) {
        unsigned v = latched(2);

        if ((v & 0xf) > 9 || (v >> 4 & 0xf) > 9 || (v >> 8 & 0xf) > 9 || v > 0x999)
            n++;
        if (tsc() - start > tsc_hz() / 50)
            break;
        delay(7);
    }
    check("bcd.digits", BCD, n, 0);
    check_bits("bcd.status", READ_BACK, status(2), 0x35, 0x3f);
}

/* ---- channel 2: its gate and output ---- */

static void outputs(void)
{
    unsigned a, b;

    gate2(true);
    mode(2, 0, BOTH);
    check("out2.mode0-low", MODE0, out2(), 0);
    load(2, HZ / 1000);
    check("out2.mode0-high", MODE0, out2_becomes(true), 1);
    delay(1000);
    check("out2.mode0-stays", MODE0, out2(), 1);
    load(2, 0xffff);
    check("out2.mode0-new-count-low", MODE0, out2(), 0);
    gate2(false);
    a = latched(2);
    delay(200);
    b = latched(2);
    check("gate2.stops", MODE0, a, b);
    check("port61.gate-reads", PORT61, inb(0x61) & 1, 0);
    gate2(true);
    check("port61.gate-reads-high", PORT61, inb(0x61) & 1, 1);
    delay(100);
    check("gate2.goes-on", MODE0, latched(2) < b, 1);
    /* one-shot, by the gate */
    gate2(false);
    mode(2, 1, BOTH);
    load(2, HZ / 20);
    delay(100);
    check("out2.mode1-high", MODE1, out2(), 1);
    gate2(true);
    delay(20);
    check("out2.mode1-triggered", MODE1, out2(), 0);
    check("out2.mode1-ends", MODE1, out2_becomes(true), 1);
    gate2(false);
    delay(20);
    gate2(true);
    delay(20);
    check("out2.mode1-again", MODE1, out2(), 0);
    /* square wave */
    mode(2, 3, BOTH);
    load(2, HZ / 1000);
    a = out2_becomes(true) && out2_becomes(false) && out2_becomes(true) && out2_becomes(false);
    check("out2.mode3-toggles", MODE3, a, 1);
    gate2(false);
    delay(20);
    check("out2.mode3-gate-low", MODE3, out2(), 1);
    delay(2000);
    check("out2.mode3-stays", MODE3, out2(), 1);
    gate2(true);
    check("out2.mode3-restarts", MODE3, out2_becomes(false), 1);
    gate2(false);
}

static void port61(void)
{
    unsigned changes = 0;
    uint8_t before = inb(0x61), now;
    uint64_t end = tsc() + tsc_hz(); /* a second: we may be paused */

    while (changes < 10 && tsc() < end) {
        now = inb(0x61);
        changes += ((now ^ before) >> 4) & 1;
        before = now;
    }
    check("port61.refresh-toggles", PORT61, changes, 10);
    outb(0x61, 0x02);
    check("port61.speaker-reads", PORT61, inb(0x61) & 3, 2);
    outb(0x61, 0xf0);
    check("port61.read-only", PORT61, inb(0x61) & 0x0f, 0);
}

/* What the counter loses in the TSC's time, on either side of which it is read. */
static void frequency(void)
{
    uint64_t before, started, stopped, after;
    unsigned lost;

    gate2(true);
    mode(2, 2, BOTH);
    before = tsc();
    load(2, 0);
    started = tsc();
    delay(20000);
    stopped = tsc();
    lost = (0x10000 - latched(2)) & 0xffff;
    after = tsc();
    check("frequency", "8254, clocked at 1.193182 MHz",
          (lost <= (after - before) * (HZ / 1000) / (tsc_hz() / 1000) * 105 / 100 + 2 ||
           after - before > tsc_hz() / 20) &&
              (lost + 4 >= (stopped - started) * (HZ / 1000) / (tsc_hz() / 1000) * 95 / 100 ||
               stopped - started > tsc_hz() / 20),
          1);
    gate2(false);
}

void test(void)
{
    require(cpuid_bit(1, 0, 3, 9), "there is no local APIC");
    irqs_start();
    pic_start(1);
    apic_mode(false);
    apic_reset();
    ioapic_mask_all();
    apic_write(APIC_LVT_LINT0, 0x700);
    require_end();
    irq_handler[IRQ0] = pic_done;
    pic_mask(0xfffe);
    rate("mode2.", MODE2, 2);
    rate("mode3.", MODE3, 3);
    terminal_count();
    strobe();
    reading();
    loaded();
    widths();
    outputs();
    port61();
    frequency();
    pic_mask(0xffff);
}
