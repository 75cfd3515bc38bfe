/*
 * The real-time clock's interrupts, the ACPI power-management timer and the time-stamp counter, and
 * whether these agree about how fast time goes, within five per cent.
 */
#include "irqs.h"

#define PERIODIC "MC146818, periodic interrupt"
#define UPDATE "MC146818, update-ended interrupt"
#define ALARM "MC146818, alarm interrupt"
#define REGISTERS "MC146818, registers A to D"
#define PMT "ACPI, power management timer"
#define TSC "SDM Vol.3, time-stamp counter"
#define ADJUST "SDM Vol.3, IA32_TSC_ADJUST"
#define FREQUENCY "SDM Vol.2, CPUID leaf 0x15"

#define IRQ8 (PIC_BASE + 8)
#define MSR_TSC 0x10u
#define MSR_ADJUST 0x3bu

/* ---- real-time clock ---- */

enum { RTC_A = 10, RTC_B, RTC_C, RTC_D };
enum { B_24 = 2, B_UIE = 0x10, B_AIE = 0x20, B_PIE = 0x40, B_SET = 0x80 };

static uint8_t rtc(unsigned reg)
{
    outb(0x70, (uint8_t)reg);
    return inb(0x71);
}

static void set_rtc(unsigned reg, unsigned value)
{
    outb(0x70, (uint8_t)reg);
    outb(0x71, (uint8_t)value);
}

static uint8_t c_seen;
static bool c_unread;

static void rtc_done(unsigned vector, const struct irq_frame *frame)
{
    (void)vector;
    (void)frame;
    if (!c_unread)
        c_seen = rtc(RTC_C);
    outb(0xa0, 0x20);
    outb(0x20, 0x20);
}

static void rtc_quiet(void)
{
    set_rtc(RTC_B, B_24);
    (void)rtc(RTC_C);
    irqs_let_in();
    c_unread = false;
    irqs_forget();
}

static void rtc_periodic(void)
{
    uint64_t start;
    unsigned n;

    rtc_quiet();
    set_rtc(RTC_A, 0x26);
    check_bits("rtc.a-reads", REGISTERS, rtc(RTC_A), 0x26, 0x7f);
    check("rtc.b-reads", REGISTERS, rtc(RTC_B), B_24);
    check("rtc.d-valid", REGISTERS, rtc(RTC_D), 0x80);
    /* the flag comes without the interrupt, and goes by reading */
    delay(3000);
    check("rtc.flag-without-enable", PERIODIC, rtc(RTC_C) & 0xc0, 0x40);
    (void)rtc(RTC_C);
    check("rtc.c-cleared", REGISTERS, rtc(RTC_C) & 0x80, 0);
    irqs_let_in();
    check("rtc.not-enabled", PERIODIC, irq_total, 0);
    start = tsc();
    set_rtc(RTC_B, B_24 | B_PIE);
    check("rtc.periodic", PERIODIC, irqs_wait(IRQ8, 8, 1000) >= 8, 1);
    n = irq_count[IRQ8];
    check("rtc.periodic-c", PERIODIC, c_seen & 0xc0, 0xc0);
    check("rtc.periodic-rate", PERIODIC, n <= (tsc() - start) / (tsc_hz() / 1024) * 11 / 10 + 2, 1);
    check("rtc.only-irq-8", PERIODIC, irq_total, n);
    /* nobody reads register C: no more edges */
    c_unread = true;
    rtc_quiet();
    c_unread = true;
    set_rtc(RTC_B, B_24 | B_PIE);
    (void)irqs_wait(IRQ8, 1, 1000);
    irqs_on_for(5000);
    check("rtc.unread-once", REGISTERS, irq_total, 1);
    c_unread = false;
    (void)rtc(RTC_C);
    check("rtc.read-goes-on", REGISTERS, irqs_wait(IRQ8, 3, 1000) >= 3, 1);
    /* rate 0: none */
    set_rtc(RTC_A, 0x20);
    rtc_quiet();
    set_rtc(RTC_B, B_24 | B_PIE);
    irqs_on_for(5000);
    check("rtc.rate-zero", PERIODIC, irq_total, 0);
    rtc_quiet();
}

/* Sets the clock; the first update is half a second after the divider runs again. */
static void rtc_update(void)
{
    uint64_t start;

    rtc_quiet();
    set_rtc(RTC_B, B_24 | B_SET | B_UIE);
    check("rtc.set-clears-uie", REGISTERS, rtc(RTC_B) & B_UIE, 0);
    set_rtc(RTC_A, 0x70);
    set_rtc(0, 0x58);
    set_rtc(2, 0x34);
    set_rtc(4, 0x12);
    set_rtc(1, 0x59); /* the alarm: that second of any minute */
    set_rtc(3, 0xff);
    set_rtc(5, 0xff);
    check("rtc.reads-what-was-set", "MC146818, setting the time", rtc(0) << 8 | rtc(2), 0x5834);
    set_rtc(RTC_B, B_24 | B_AIE | B_UIE);
    start = tsc();
    set_rtc(RTC_A, 0x20);
    check("rtc.update", UPDATE, irqs_wait(IRQ8, 1, 2500), 1);
    check("rtc.half-a-second", "MC146818, divider bits", tsc() - start >= tsc_hz() / 5 * 2, 1);
    check("rtc.update-flag", UPDATE, c_seen & 0x90, 0x90);
    check("rtc.alarm-flag", ALARM, c_seen & 0x20, 0x20);
    check("rtc.next-second", UPDATE, rtc(0), 0x59);
    check("rtc.same-minute", UPDATE, rtc(2), 0x34);
    check("rtc.one-interrupt-for-both", REGISTERS, irq_total, 1);
    rtc_quiet();
}

/* ---- power-management timer ---- */

static uint32_t memory(uint32_t address)
{
    uint32_t value;

    /* the compiler does not believe in memory below 4 KiB */
    __asm__ volatile("movl (%q1), %0" : "=r"(value) : "r"((word)address));
    return value;
}

static uint32_t find_rsdp(uint32_t from, uint32_t to)
{
    for (uint32_t a = from; a < to; a += 16) {
        if (memory(a) == 0x20445352 && memory(a + 4) == 0x20525450)
            return a;
    }
    return 0;
}

/* The port that the FADT says, 0 if none. */
static uint16_t pm_port(bool *wide)
{
    uint32_t ebda = (memory(0x40e) & 0xffff) << 4;
    uint32_t rsdp = find_rsdp(0xe0000, 0x100000), rsdt;

    if (rsdp == 0 && ebda >= 0x80000)
        rsdp = find_rsdp(ebda, ebda + 1024);
    if (rsdp == 0)
        return 0;
    rsdt = memory(rsdp + 16);
    for (uint32_t a = rsdt + 36; rsdt != 0 && a < rsdt + memory(rsdt + 4); a += 4) {
        uint32_t table = memory(a);

        if (memory(table) == 0x50434146) {
            *wide = (memory(table + 112) >> 8 & 1) != 0;
            return (uint16_t)memory(table + 76);
        }
    }
    return 0;
}

static uint32_t inl(uint16_t port)
{
    uint32_t value;

    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

/* The TSC's frequency by the PM timer; the least doubtful of some measurements. */
static uint64_t hz_by_pm(uint16_t port, uint32_t mask)
{
    uint64_t least = ~0ull, hz = 0;

    for (unsigned i = 0; i < 20 && least > hz / 100; i++) {
        uint64_t a = tsc(), b, c, d, ticks, doubt;
        uint32_t from = inl(port), to;

        b = tsc();
        delay(5000);
        c = tsc();
        to = inl(port);
        d = tsc();
        ticks = (to - from) & mask;
        if (ticks == 0)
            continue;
        doubt = ((b - a) + (d - c)) * 3579545 / ticks;
        if (doubt < least) {
            least = doubt;
            hz = (c - a) * 3579545 / ticks;
        }
    }
    return hz;
}

static void pm_timer(void)
{
    bool wide = false;
    uint16_t port = pm_port(&wide);
    uint32_t mask = wide ? 0xffffffff : 0xffffff, last, now, r[4], back = 0;
    uint64_t hz;

    require(port != 0, "there is no ACPI power management timer");
    last = inl(port);
    for (unsigned i = 0; i < 1000; i++) {
        now = inl(port);
        back += ((now - last) & mask) > mask / 2;
        last = now;
    }
    check("pm.monotonic", PMT, back, 0);
    check_bits("pm.width", PMT, inl(port), 0, ~(uint64_t)mask);
    hz = skipping() ? 0 : hz_by_pm(port, mask);
    check("pm.8254-agrees", PMT, within(hz, tsc_hz(), 5), 1);
    last = inl(port);
    __asm__ volatile("outl %0, %1" : : "a"(0), "Nd"(port));
    check("pm.read-only", PMT, ((inl(port) - last) & mask) < mask / 2, 1);
    cpuid(0, 0, r);
    if (r[0] >= 0x15)
        cpuid(0x15, 0, r);
    else
        r[0] = r[1] = r[2] = 0;
    require(r[0] != 0 && r[1] != 0 && r[2] != 0, "CPUID does not tell the TSC's frequency");
    check("tsc.cpuid-0x15", FREQUENCY, within((uint64_t)r[2] * r[1] / (r[0] ? r[0] : 1), hz, 5), 1);
    require_end();
}

/* ---- time-stamp counter ---- */

static void time_stamps(void)
{
    uint64_t last = tsc(), now, before, adjust;
    unsigned back = 0;
    struct cpu c;

    for (unsigned i = 0; i < 10000; i++) {
        now = tsc();
        back += now < last;
        last = now;
    }
    check("tsc.monotonic", TSC, back, 0);
    c = kernel(CODE("mov ecx, 0x10\n rdtsc\n shl rdx, 32\n lea rsi, [rdx + rax]\n"
                    "rdmsr\n shl rdx, 32\n lea rdi, [rdx + rax]\n"
                    "rdtsc\n shl rdx, 32\n lea rbx, [rdx + rax]"));
    run(&c);
    check("tsc.msr-is-the-same", TSC, c.si <= c.di && c.di <= c.bx, 1);
    before = tsc();
    wrmsr(MSR_TSC, 0x100000000000);
    now = tsc();
    check("tsc.written", TSC, now >= 0x100000000000 && now < 0x100000000000 + tsc_hz(), 1);
    wrmsr(MSR_TSC, before);
    require(cpuid_bit(7, 0, 1, 1), "there is no TSC adjustment");
    adjust = rdmsr(MSR_ADJUST);
    before = tsc();
    wrmsr(MSR_ADJUST, adjust + (1ull << 44));
    now = tsc();
    check("adjust.reads", ADJUST, rdmsr(MSR_ADJUST), adjust + (1ull << 44));
    check("adjust.moves-tsc", ADJUST,
          skipping() || (now - before >= 1ull << 44 && now - before < (1ull << 44) + tsc_hz()), 1);
    wrmsr(MSR_ADJUST, adjust);
    check("adjust.back", ADJUST, tsc() - before < tsc_hz(), 1);
    before = tsc();
    wrmsr(MSR_TSC, before + (1ull << 40));
    now = rdmsr(MSR_ADJUST) - adjust;
    check("adjust.follows-tsc", ADJUST,
          skipping() || (now <= 1ull << 40 && now + tsc_hz() >= 1ull << 40), 1);
    wrmsr(MSR_ADJUST, adjust);
    check("adjust.restores", ADJUST, tsc() - before < tsc_hz(), 1);
    require_end();
}

static void pic_done(unsigned vector, const struct irq_frame *frame)
{
    (void)vector;
    (void)frame;
    outb(0x20, 0x20);
}

/* The processor halts, the TSC does not. */
static void halted(void)
{
    uint64_t start, end;

    require(cpuid_bit(0x80000007, 0, 3, 8), "the TSC need not be invariant");
    irq_handler[PIC_BASE] = pic_done;
    irqs_forget();
    pic_mask(0xfffe);
    outb(0x43, 0x30);
    outb(0x40, 11932 & 0xff);
    start = tsc();
    outb(0x40, 11932 >> 8);
    for (unsigned i = 0; i < 100 && irq_count[PIC_BASE] == 0 && !skipping(); i++)
        __asm__ volatile("sti\n\thlt\n\tcli" : : : "memory");
    end = tsc();
    check("tsc.runs-in-hlt", "SDM Vol.3, invariant TSC", end - start > tsc_hz() / 100 * 95 / 100,
          1);
    check("tsc.hlt-woken", "SDM Vol.2, HLT", irq_total, 1);
    pic_mask(0xffff);
    require_end();
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
    irq_handler[IRQ8] = rtc_done;
    pic_mask(0xfefb);
    rtc_periodic();
    rtc_update();
    pic_mask(0xffff);
    pm_timer();
    time_stamps();
    halted();
}
