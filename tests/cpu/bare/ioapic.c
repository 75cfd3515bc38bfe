/*
 * The I/O APIC with the test device's wires (a write to port 0x2000 + n sets line n): registers,
 * edges and levels, remote IRR, priorities, delivery modes, destinations; the PIC beside it.
 */
#include "irqs.h"

#define REGISTERS "82093AA, register description"
#define RTE "82093AA, I/O redirection table"
#define TRIGGER "82093AA, trigger mode and remote IRR"
#define MASK "82093AA, interrupt mask"
#define EOIT "SDM Vol.3, signaling interrupt servicing completion"
#define PRIORITY "SDM Vol.3, task and processor priorities"
#define DELIVERY "82093AA, delivery mode"
#define DEST "82093AA, destination mode"
#define ACCEPT "SDM Vol.3, interrupt acceptance for fixed interrupts"

#define PIN 10u
#define VECTOR 0x51u
#define LOGICAL 0x800u

static struct {
    bool tmr, isr;
    uint32_t entry;
    unsigned lower_after; /* the handler lowers the line when it has been taken so often */
    unsigned pin;
} saw;

static uint32_t me(void)
{
    return apic_id() << 24;
}

/* A handler that looks, and quiets the device in time. */
static void level_handler(unsigned vector, const struct irq_frame *frame)
{
    (void)frame;
    saw.tmr = apic_bit(APIC_TMR, vector);
    saw.isr = apic_bit(APIC_ISR, vector);
    saw.entry = ioapic_low(saw.pin);
    if (irq_count[vector] >= saw.lower_after)
        line(saw.pin, false);
    apic_write(APIC_EOI, 0);
}

static void quiet(void)
{
    static const uint8_t pins[] = {10, 11, 5};

    for (unsigned i = 0; i < sizeof(pins); i++) {
        line(pins[i], false);
        ioapic_entry(pins[i], IOAPIC_MASKED, 0);
    }
    irqs_let_in();
    irqs_forget();
    irq_handler[VECTOR] = apic_done;
    saw.lower_after = 1;
    saw.pin = PIN;
}

static void registers(void)
{
    uint32_t version = ioapic_read(1), id = ioapic_read(0);

    check("version.number", REGISTERS, (version & 0xff) == 0x11 || (version & 0xff) == 0x20, 1);
    check("version.pins", REGISTERS, version >> 16 & 0xff, 23);
    check_bits("version.reserved", REGISTERS, version, 0, 0xff007f00);
    ioapic_write(1, ~version);
    check("version.read-only", REGISTERS, ioapic_read(1), version);
    ioapic_write(0, 0xffffffff);
    check("id.writable", REGISTERS, ioapic_read(0), 0x0f000000);
    ioapic_write(0, 0x05000000);
    check("id.reads", REGISTERS, ioapic_read(0), 0x05000000);
    ioapic_write(0, id);
    ioapic_entry(PIN, 0x1ffff, 0xffffffff);
    check("entry.low-writable", RTE, ioapic_low(PIN), 0x1afff);
    check_bits("entry.high-writable", RTE, ioapic_read(0x11 + 2 * PIN), 0xff000000, 0xff00ffff);
    ioapic_entry(PIN, 0xfffe0000 | IOAPIC_MASKED, 0);
    check("entry.low-reserved", RTE, ioapic_low(PIN), IOAPIC_MASKED);
    check("entry.high-zero", RTE, ioapic_read(0x11 + 2 * PIN), 0);
    ioapic_write(0x10 + 2 * PIN, IOAPIC_MASKED | VECTOR);
    check("entry.halves", RTE, ioapic_read(0x11 + 2 * PIN), 0);
    ioapic_entry(PIN + 1, IOAPIC_MASKED | 0x77, 0x12000000);
    check("entry.neighbours", RTE, ioapic_low(PIN), IOAPIC_MASKED | VECTOR);
    check("entry.reads-high", RTE, ioapic_read(0x11 + 2 * PIN + 2) >> 24, 0x12);
    ioapic_read(0x2b);
    check("select.reads", REGISTERS, *(volatile uint32_t *)(word)0xfec00000 & 0xff, 0x2b);
    quiet();
}

static void edge(void)
{
    ioapic_entry(PIN, VECTOR, me());
    line(PIN, true);
    check("edge.irr", ACCEPT, apic_bit(APIC_IRR, VECTOR), 1);
    check("edge.tmr", ACCEPT, apic_bit(APIC_TMR, VECTOR), 0);
    check("edge.taken", TRIGGER, irqs_wait(VECTOR, 1, 100), 1);
    irqs_let_in();
    check("edge.once-while-high", TRIGGER, irq_total, 1);
    line(PIN, true);
    irqs_let_in();
    check("edge.no-change-no-edge", TRIGGER, irq_total, 1);
    line(PIN, false);
    irqs_let_in();
    check("edge.not-falling", TRIGGER, irq_total, 1);
    line(PIN, true);
    check("edge.again", TRIGGER, irqs_wait(VECTOR, 2, 100), 2);
    line(PIN, false);
    line(PIN, true);
    line(PIN, false);
    line(PIN, true);
    irqs_let_in();
    check("edge.merge-in-irr", ACCEPT, irq_total, 3);
    check("edge.no-remote-irr", TRIGGER, ioapic_low(PIN) & IOAPIC_REMOTE_IRR, 0);
    quiet();
    ioapic_entry(PIN, IOAPIC_MASKED | VECTOR, me());
    line(PIN, true);
    irqs_let_in();
    check("edge.masked", MASK, irq_total, 0);
    ioapic_entry(PIN, VECTOR, me());
    irqs_let_in();
    check("edge.masked-is-lost", MASK, irq_total, 0);
    line(PIN, false);
    line(PIN, true);
    check("edge.after-unmasking", MASK, irqs_wait(VECTOR, 1, 100), 1);
    /* masking comes too late for what was sent */
    line(PIN, false);
    line(PIN, true);
    ioapic_entry(PIN, IOAPIC_MASKED | VECTOR, me());
    check("edge.masked-too-late", MASK, irqs_wait(VECTOR, 2, 100), 2);
    quiet();
}

static void level(void)
{
    ioapic_entry(PIN, IOAPIC_LEVEL | VECTOR, me());
    irq_handler[VECTOR] = level_handler;
    check("level.idle-remote-irr", TRIGGER, ioapic_low(PIN) & IOAPIC_REMOTE_IRR, 0);
    line(PIN, true);
    check("level.remote-irr", TRIGGER, ioapic_low(PIN) & IOAPIC_REMOTE_IRR, IOAPIC_REMOTE_IRR);
    check("level.tmr", ACCEPT, apic_bit(APIC_TMR, VECTOR), 1);
    saw.lower_after = 3;
    check("level.again-while-high", TRIGGER, irqs_wait(VECTOR, 3, 100), 3);
    irqs_let_in();
    check("level.until-low", TRIGGER, irq_total, 3);
    check("level.handler-tmr", ACCEPT, saw.tmr, 1);
    check("level.handler-remote-irr", TRIGGER, saw.entry & IOAPIC_REMOTE_IRR, IOAPIC_REMOTE_IRR);
    check("level.not-nested", PRIORITY, irq_depth_max, 1);
    check("level.eoi-clears", EOIT, ioapic_low(PIN) & IOAPIC_REMOTE_IRR, 0);
    /* once accepted, the line may go: it is taken, and remote IRR is up until the EOI */
    irqs_forget();
    line(PIN, true);
    line(PIN, false);
    check("level.falls-remote-irr", TRIGGER, ioapic_low(PIN) & IOAPIC_REMOTE_IRR,
          IOAPIC_REMOTE_IRR);
    irqs_let_in();
    check("level.falls-taken", TRIGGER, irq_total, 1);
    check("level.falls-eoi", EOIT, ioapic_low(PIN) & IOAPIC_REMOTE_IRR, 0);
    /* masked, then not */
    irqs_forget();
    saw.lower_after = 1;
    ioapic_entry(PIN, IOAPIC_MASKED | IOAPIC_LEVEL | VECTOR, me());
    line(PIN, true);
    irqs_let_in();
    check("level.masked", MASK, irq_total, 0);
    check("level.masked-remote-irr", MASK, ioapic_low(PIN) & IOAPIC_REMOTE_IRR, 0);
    ioapic_entry(PIN, IOAPIC_LEVEL | VECTOR, me());
    check("level.unmasked", MASK, irqs_wait(VECTOR, 1, 100), 1);
    irqs_let_in();
    check("level.unmasked-once", MASK, irq_total, 1);
    /* an edge-triggered IPI with the same vector clears TMR, and its EOI is not told */
    apic_send(APIC_SELF | VECTOR, 0);
    check("level.ipi-tmr", ACCEPT, apic_bit(APIC_TMR, VECTOR), 0);
    irqs_let_in();
    quiet();
}

static void masks_itself(unsigned vector, const struct irq_frame *frame)
{
    (void)vector;
    (void)frame;
    ioapic_write(0x10 + 2 * PIN, IOAPIC_MASKED | IOAPIC_LEVEL | VECTOR);
    apic_write(APIC_EOI, 0);
}

/* What operating systems do: mask, EOI, serve later, unmask. Also changes of the trigger mode. */
static void reprogrammed(void)
{
    ioapic_entry(PIN, IOAPIC_LEVEL | VECTOR, me());
    irq_handler[VECTOR] = masks_itself;
    line(PIN, true);
    irqs_let_in();
    check("level.mask-then-eoi", MASK, irq_total, 1);
    ioapic_write(0x10 + 2 * PIN, IOAPIC_LEVEL | VECTOR);
    irqs_let_in();
    check("level.unmask-later", MASK, irq_total, 2);
    line(PIN, false);
    ioapic_write(0x10 + 2 * PIN, IOAPIC_LEVEL | VECTOR);
    irqs_let_in();
    check("level.unmask-when-low", MASK, irq_total, 2);
    /* to edge */
    irqs_forget();
    irq_handler[VECTOR] = apic_done;
    ioapic_write(0x10 + 2 * PIN, VECTOR);
    line(PIN, true);
    irqs_let_in();
    check("mode.to-edge", TRIGGER, irq_total, 1);
    irqs_let_in();
    check("mode.to-edge-once", TRIGGER, irq_total, 1);
    /* and back, with the line high */
    irq_handler[VECTOR] = level_handler;
    ioapic_write(0x10 + 2 * PIN, IOAPIC_LEVEL | VECTOR);
    check("mode.to-level", TRIGGER, irqs_wait(VECTOR, 2, 100), 2);
    /* another vector for the same wire */
    ioapic_write(0x10 + 2 * PIN, 0x61);
    irqs_forget();
    line(PIN, false);
    line(PIN, true);
    irqs_let_in();
    check("mode.vector", RTE, irq_count[0x61] == 1 && irq_total == 1, 1);
    quiet();
}

/* EOI without broadcast, and the I/O APIC's own register for it. */
static void directed_eoi(void)
{
    require((ioapic_read(1) & 0xff) >= 0x20, "the I/O APIC has no EOI register");
    require(skipping() || (apic_read(APIC_VERSION) >> 24 & 1) != 0,
            "the local APIC cannot suppress EOI broadcasts");
    apic_write(APIC_SVR, 0x1100 | APIC_SPURIOUS);
    check("directed.svr", EOIT, apic_read(APIC_SVR), 0x1100 | APIC_SPURIOUS);
    ioapic_entry(PIN, IOAPIC_LEVEL | VECTOR, me());
    line(PIN, true);
    irqs_let_in();
    check("directed.no-broadcast", EOIT, irq_total, 1);
    check("directed.remote-irr-stays", EOIT, ioapic_low(PIN) & IOAPIC_REMOTE_IRR,
          IOAPIC_REMOTE_IRR);
    if (!skipping())
        *(volatile uint32_t *)(word)0xfec00040 = 0x99;
    irqs_let_in();
    check("directed.other-vector", EOIT, irq_total, 1);
    if (!skipping())
        *(volatile uint32_t *)(word)0xfec00040 = VECTOR;
    irqs_let_in();
    check("directed.eoi-register", EOIT, irq_total, 2);
    line(PIN, false);
    if (!skipping())
        *(volatile uint32_t *)(word)0xfec00040 = VECTOR;
    check("directed.then-idle", EOIT, ioapic_low(PIN) & IOAPIC_REMOTE_IRR, 0);
    apic_write(APIC_SVR, 0x100 | APIC_SPURIOUS);
    quiet();
    require_end();
}

static void several(void)
{
    quiet();
    ioapic_entry(10, 0x41, me());
    ioapic_entry(11, 0x91, me());
    ioapic_entry(5, 0x61, me());
    line(10, true);
    line(11, true);
    line(5, true);
    irqs_let_in();
    check("several.by-vector", PRIORITY, irqs_in_order(), 0x916141);
    quiet();
    ioapic_entry(10, VECTOR, me());
    ioapic_entry(11, VECTOR, me());
    line(10, true);
    line(11, true);
    irqs_let_in();
    check("several.one-vector-edge", ACCEPT, irq_total, 1);
    quiet();
    ioapic_entry(10, IOAPIC_LEVEL | VECTOR, me());
    ioapic_entry(11, IOAPIC_LEVEL | VECTOR, me());
    irq_handler[VECTOR] = level_handler; /* lowers line 10 alone, then 11 */
    line(10, true);
    line(11, true);
    saw.lower_after = 2;
    saw.pin = 11;
    line(10, false);
    irqs_let_in();
    check("several.one-vector-level", EOIT, irq_total, 2);
    check("several.one-vector-idle", EOIT, (ioapic_low(10) | ioapic_low(11)) & IOAPIC_REMOTE_IRR,
          0);
    quiet();
}

/* One edge on the pin with this entry: how often which vector is taken. */
static void pulse(const char *name, const char *topic, uint32_t low, uint32_t high, unsigned vector,
                  unsigned want)
{
    quiet();
    ioapic_entry(PIN, low, high);
    line(PIN, true);
    irqs_let_in();
    check(name, topic, irq_count[vector] == want && irq_total == want, 1);
    quiet();
}

static void modes(void)
{
    pulse("delivery.fixed", DELIVERY, 0x52, me(), 0x52, 1);
    pulse("delivery.lowest", DELIVERY, 0x152, me(), 0x52, 1);
    irq_handler[V_NMI] = NULL;
    irq_on_handler(V_NMI);
    quiet();
    ioapic_entry(PIN, 0x452, me());
    line(PIN, true);
    delay(50);
    check("delivery.nmi", DELIVERY, irq_count[V_NMI] == 1 && irq_total == 1, 1);
    idt_usual(V_NMI, GATE_INT, 1);
    pulse("dest.other", DEST, 0x52, me() ^ 0x05000000, 0x52, 0);
    pulse("dest.all", DEST, 0x52, 0xff000000, 0x52, 1);
    apic_write(APIC_DFR, 0xffffffff);
    apic_write(APIC_LDR, 0x24000000);
    pulse("dest.flat", DEST, LOGICAL | 0x52, 0x04000000, 0x52, 1);
    pulse("dest.flat-among", DEST, LOGICAL | 0x52, 0xe1000000, 0x52, 1);
    pulse("dest.flat-other", DEST, LOGICAL | 0x52, 0xdb000000, 0x52, 0);
    pulse("dest.flat-lowest", DEST, LOGICAL | 0x152, 0xff000000, 0x52, 1);
    apic_write(APIC_DFR, 0x0fffffff);
    pulse("dest.cluster", DEST, LOGICAL | 0x52, 0x24000000, 0x52, 1);
    pulse("dest.cluster-other", DEST, LOGICAL | 0x52, 0x34000000, 0x52, 0);
    apic_write(APIC_DFR, 0xffffffff);
    apic_write(APIC_LDR, 0);
    irq_on_handler(0x0f);
    apic_errors();
    pulse("vector.illegal", "SDM Vol.3, error handling", 0x0f, me(), 0x0f, 0);
    check_bits("vector.illegal-esr", "SDM Vol.3, error handling", apic_errors(), 0x40, 0x40);
    irq_on_fragment(0x0f);
    pulse("vector.highest", RTE, 0xfe, me(), 0xfe, 1);
    apic_write(APIC_TPR, 0x60);
    ioapic_entry(PIN, 0x52, me());
    line(PIN, true);
    irqs_let_in();
    check("tpr.waits", PRIORITY, irq_total, 0);
    apic_write(APIC_TPR, 0);
    check("tpr.then", PRIORITY, irqs_wait(0x52, 1, 100), 1);
    quiet();
}

/* ---- beside the PIC ---- */

static void pic_handler(unsigned vector, const struct irq_frame *frame)
{
    (void)vector;
    (void)frame;
    outb(0x20, 0x20);
}

static void beside_pic(void)
{
    pic_start(1);
    pic_mask(0xffdf);
    irq_handler[PIC_BASE + 5] = pic_handler;
    ioapic_entry(5, 0x52, me());
    line(5, true);
    outb(0x20, 0x0a);
    check("pic.isa-line-in-both", "82093AA, interrupt signals", inb(0x20) & 0x20, 0x20);
    apic_write(APIC_LVT_LINT0, 0x700);
    irqs_let_in();
    check("pic.isa-taken-by-both", "82093AA, interrupt signals",
          irq_count[0x52] == 1 && irq_count[PIC_BASE + 5] == 1 && irq_total == 2, 1);
    apic_write(APIC_LVT_LINT0, APIC_MASKED);
    line(5, false);
    ioapic_entry(5, IOAPIC_MASKED, 0);
    /* an ExtINT entry: the vector is the PIC's */
    irqs_forget();
    line(5, true);
    irqs_let_in();
    check("extint.lint0-masked", DELIVERY, irq_total, 0);
    ioapic_entry(PIN, 0x752, me());
    line(PIN, true);
    irqs_let_in();
    check("extint.vector", DELIVERY, irq_count[PIC_BASE + 5] == 1 && irq_total == 1, 1);
    line(5, false);
    line(PIN, false);
    irqs_forget();
    irq_handler[PIC_BASE + 7] = NULL;
    line(PIN, true);
    irqs_let_in();
    check("extint.nothing-there", "8259A, interrupt sequence: spurious IR7",
          irq_count[PIC_BASE + 7] == 1 && irq_total == 1, 1);
    outb(0x20, 0x0b);
    check("extint.spurious-no-isr", "8259A, interrupt sequence: spurious IR7", inb(0x20), 0);
    pic_mask(0xffff);
    quiet();
}

/* The 8254's output: ISA interrupt 0, which comes in at pin 2. */
static void timer_pin(void)
{
    pic_mask(0xffff);
    irqs_forget();
    ioapic_entry(0, 0x62, me());
    ioapic_entry(2, 0x63, me());
    outb(0x43, 0x34);
    outb(0x40, 1193 & 0xff);
    outb(0x40, 1193 >> 8);
    check("irq0.pin-2", "MADT, interrupt source override", irqs_wait(0x63, 4, 1000) >= 4, 1);
    check("irq0.not-pin-0", "MADT, interrupt source override", irq_count[0x62], 0);
    ioapic_entry(0, IOAPIC_MASKED, 0);
    ioapic_entry(2, IOAPIC_MASKED, 0);
    outb(0x20, 0x0a);
    check("irq0.pic-too", "MADT, interrupt source override", inb(0x20) & 1, 1);
    outb(0x43, 0x30); /* mode 0 without a count: quiet */
    irqs_let_in();
    irqs_forget();
}

static void x2apic_mode(void)
{
    require(cpuid_bit(1, 0, 2, 21), "there is no x2APIC mode");
    if (!skipping())
        apic_mode(true);
    apic_reset();
    pulse("x2apic.physical", DEST, 0x52, me(), 0x52, 1);
    pulse("x2apic.other", DEST, 0x52, me() ^ 0x05000000, 0x52, 0);
    ioapic_entry(PIN, IOAPIC_LEVEL | VECTOR, me());
    irq_handler[VECTOR] = level_handler;
    saw.lower_after = 2;
    line(PIN, true);
    irqs_let_in();
    check("x2apic.level", TRIGGER, irq_total, skipping() ? 0 : 2);
    check("x2apic.eoi-clears", EOIT, ioapic_low(PIN) & IOAPIC_REMOTE_IRR, 0);
    quiet();
    if (!skipping())
        apic_mode(false);
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
    registers();
    edge();
    level();
    reprogrammed();
    directed_eoi();
    several();
    modes();
    beside_pic();
    timer_pin();
    x2apic_mode();
}
