/*
 * Inter-processor interrupts to oneself, in xAPIC and x2APIC mode: destinations, priorities, IRR,
 * ISR and TMR, EOI, NMI, errors, and the PIC behind LINT0.
 */
#include "irqs.h"

#define ICR "SDM Vol.3, interrupt command register"
#define DEST "SDM Vol.3, determining IPI destination"
#define ACCEPT "SDM Vol.3, interrupt acceptance for fixed interrupts"
#define PRIORITY "SDM Vol.3, task and processor priorities"
#define EOIT "SDM Vol.3, signaling interrupt servicing completion"
#define ERRORS "SDM Vol.3, error handling"
#define STATE "SDM Vol.3, local APIC state after it has been software disabled"
#define NMIT "SDM Vol.3, handling multiple NMIs"
#define LINT "SDM Vol.3, local vector table"
#define BROADCAST (apic_is_x2apic() ? 0xffffffffu : 0xffu)

static const char *mode;

static const char *named(const char *name)
{
    return joined(mode, name, "");
}

/* ---- what handlers saw ---- */

static struct {
    bool isr, irr, tmr;
    uint32_t ppr, ppr_after;
    bool isr_after;
    uint64_t flags, frame_flags;
} saw;

static void look(unsigned vector, const struct irq_frame *frame)
{
    saw.isr = apic_bit(APIC_ISR, vector);
    saw.irr = apic_bit(APIC_IRR, vector);
    saw.tmr = apic_bit(APIC_TMR, vector);
    saw.ppr = apic_read(APIC_PPR);
    __asm__ volatile("pushfq\n\tpopq %0" : "=r"(saw.flags));
    saw.frame_flags = frame->flags;
    apic_write(APIC_EOI, 0);
    saw.isr_after = apic_bit(APIC_ISR, vector);
    saw.ppr_after = apic_read(APIC_PPR);
}

static void life(void)
{
    irqs_forget();
    irq_handler[0x51] = look;
    apic_send(APIC_SELF | 0x51, 0);
    check(named("self.irr"), ACCEPT, apic_bit(APIC_IRR, 0x51), 1);
    check(named("self.isr-not-yet"), ACCEPT, apic_bit(APIC_ISR, 0x51), 0);
    check(named("self.waits-for-if"), ACCEPT, irq_total, 0);
    check(named("self.taken"), ICR, irqs_wait(0x51, 1, 100), 1);
    check(named("self.once"), ICR, irq_total, 1);
    check(named("handler.isr"), ACCEPT, saw.isr, 1);
    check(named("handler.irr"), ACCEPT, saw.irr, 0);
    check(named("handler.tmr"), ACCEPT, saw.tmr, 0);
    check(named("handler.ppr"), PRIORITY, saw.ppr, 0x50);
    check(named("handler.if"), "SDM Vol.3, flag usage by exception or interrupt handler",
          saw.flags & FL_IF, 0);
    check(named("handler.frame-if"), "SDM Vol.3, stack frame in 64-bit mode",
          saw.frame_flags & FL_IF, FL_IF);
    check(named("eoi.isr"), EOIT, saw.isr_after, 0);
    check(named("eoi.ppr"), EOIT, saw.ppr_after, 0);
    irq_handler[0x51] = apic_done;
    irqs_forget();
    apic_write(APIC_EOI, 0);
    check(named("eoi.stray"), EOIT, apic_busy(), 0);
}

/* ---- destinations ---- */

static void reaches(const char *name, uint32_t low, uint32_t destination, unsigned want)
{
    irqs_forget();
    apic_send(low, destination);
    irqs_let_in();
    check(named(name), DEST, irq_count[low & 0xff] == want && irq_total == want, 1);
}

static void destinations(void)
{
    uint32_t id = apic_id();

    reaches("dest.physical", 0x52, id, 1);
    reaches("dest.physical-other", 0x52, id ^ 0x41, 0);
    reaches("dest.physical-all", 0x52, BROADCAST, 1);
    reaches("dest.self", APIC_SELF | 0x53, id ^ 0x41, 1);
    reaches("dest.all", 0x80053, id ^ 0x41, 1);
    reaches("dest.others", 0xc0053, id, 0);
    reaches("dest.lowest-vector-31", 0x1f, id, 1);
}

static void logical_x2apic(void)
{
    uint32_t ldr = apic_read(APIC_LDR);

    reaches("logical.cluster", APIC_LOGICAL | 0x54, ldr, 1);
    reaches("logical.several", APIC_LOGICAL | 0x54, ldr | 0xffff, 1);
    reaches("logical.other-bit", APIC_LOGICAL | 0x54, (ldr & 0xffff0000) | (~ldr & 0xffff), 0);
    reaches("logical.other-cluster", APIC_LOGICAL | 0x54, ldr ^ 0x30000, 0);
    reaches("logical.all", APIC_LOGICAL | 0x54, 0xffffffff, 1);
    require(cpuid_bit(1, 0, 2, 21), "there is no x2APIC mode");
    irqs_forget();
    wrmsr(0x83f, 0x61);
    check(named("self-msr.irr"), "SDM Vol.3, SELF IPI register", apic_bit(APIC_IRR, 0x61), 1);
    check(named("self-msr.taken"), "SDM Vol.3, SELF IPI register", irqs_wait(0x61, 1, 100), 1);
    apic_errors();
    wrmsr(0x83f, 0x05);
    check_bits(named("self-msr.illegal"), ERRORS, apic_errors(), 0x20, 0x20);
    require_end();
}

static void logical_xapic(void)
{
    apic_write(APIC_DFR, 0xffffffff);
    apic_write(APIC_LDR, 0x12000000);
    reaches("flat.bit", APIC_LOGICAL | 0x54, 0x02, 1);
    reaches("flat.other-bit-of-two", APIC_LOGICAL | 0x54, 0x10, 1);
    reaches("flat.among-others", APIC_LOGICAL | 0x54, 0x8f, 1);
    reaches("flat.not-this", APIC_LOGICAL | 0x54, 0xed, 0);
    reaches("flat.all", APIC_LOGICAL | 0x54, 0xff, 1);
    apic_write(APIC_DFR, 0x0fffffff);
    apic_write(APIC_LDR, 0x34000000);
    reaches("cluster.member", APIC_LOGICAL | 0x54, 0x34, 1);
    reaches("cluster.members", APIC_LOGICAL | 0x54, 0x3e, 1);
    reaches("cluster.other-member", APIC_LOGICAL | 0x54, 0x3b, 0);
    reaches("cluster.other-cluster", APIC_LOGICAL | 0x54, 0x24, 0);
    reaches("cluster.all", APIC_LOGICAL | 0x54, 0xff, 1);
    apic_write(APIC_DFR, 0xffffffff);
    apic_write(APIC_LDR, 0);
}

/* ---- priorities ---- */

static unsigned nested_vector;

/* Sends another one and lets it in before the EOI. */
static void sends(unsigned vector, const struct irq_frame *frame)
{
    (void)frame;
    irq_handler[vector] = apic_done;
    apic_send(APIC_SELF | nested_vector, 0);
    irqs_let_in();
    saw.ppr = apic_read(APIC_PPR);
    saw.irr = apic_bit(APIC_IRR, nested_vector);
    saw.isr = apic_bit(APIC_ISR, vector);
    saw.flags = irq_total;
    apic_write(APIC_EOI, 0);
}

/* Whether the second, sent in the handler of 0x55, is taken inside it; it is afterwards anyway. */
static void nests(const char *name, unsigned second, bool want)
{
    irqs_forget();
    irq_handler[0x55] = sends;
    nested_vector = second;
    apic_send(APIC_SELF | 0x55, 0);
    irqs_let_in();
    check(joined(mode, name, ".inside"), PRIORITY, saw.flags, want ? 2 : 1);
    check(joined(mode, name, ".waits-in-irr"), PRIORITY, saw.irr, !want);
    check(joined(mode, name, ".both"), PRIORITY, irqs_in_order(), 0x5500 | second);
    irq_handler[0x55] = apic_done;
}

static void order(void)
{
    irqs_forget();
    apic_send(APIC_SELF | 0x41, 0);
    apic_send(APIC_SELF | 0x91, 0);
    apic_send(APIC_SELF | 0x61, 0);
    apic_send(APIC_SELF | 0x62, 0);
    apic_send(APIC_SELF | 0xe0, 0);
    irqs_let_in();
    check(named("order.highest-first"), PRIORITY, irqs_in_order(), 0xe091626141);
    check(named("order.one-after-another"), PRIORITY, irq_depth_max, 1);
    irqs_forget();
    apic_send(APIC_SELF | 0x41, 0);
    apic_send(APIC_SELF | 0x41, 0);
    apic_send(APIC_SELF | 0x41, 0);
    irqs_let_in();
    check(named("order.same-merge"), ACCEPT, irq_count[0x41], 1);
    nests("nest.higher-class", 0x61, true);
    nests("nest.same-class", 0x5f, false);
    nests("nest.same-vector", 0x55, false);
    nests("nest.lower-class", 0x4f, false);
}

static void tpr_admits(const char *name, uint32_t tpr, unsigned vector, bool want)
{
    irqs_forget();
    apic_write(APIC_TPR, tpr);
    apic_send(APIC_SELF | vector, 0);
    irqs_let_in();
    check(named(name), PRIORITY, irq_count[vector], want);
    apic_write(APIC_TPR, 0);
    irqs_let_in();
    check(joined(mode, name, ".then"), PRIORITY, irq_count[vector], 1);
}

static void task_priority(void)
{
    struct cpu c = kernel(CODE("mov eax, 0x4f\n sti\n int 0x51\n nop\n cli"));

    tpr_admits("tpr.same-class", 0x50, 0x5f, false);
    tpr_admits("tpr.low-bits-do-not-count", 0x5f, 0x61, true);
    tpr_admits("tpr.class-below", 0x4f, 0x50, true);
    tpr_admits("tpr.highest", 0xf0, 0xfe, false);
    tpr_admits("tpr.highest-but-one", 0xe0, 0xfe, true);
    irqs_forget();
    apic_write(APIC_TPR, 0xf0);
    irq_handler[0x51] = NULL; /* INT is none of the APIC's business: no EOI */
    run_done(named("tpr.int-n"), PRIORITY, &c);
    check(named("tpr.int-n-taken"), PRIORITY, irq_count[0x51], 1);
    check(named("tpr.int-n-no-isr"), PRIORITY, apic_busy(), 0);
    irq_handler[0x51] = apic_done;
    apic_write(APIC_TPR, 0);
}

/* ---- NMI ---- */

static struct {
    unsigned more;
    unsigned total_inside;
} nmi;

static void nmi_handler(unsigned vector, const struct irq_frame *frame)
{
    (void)vector;
    (void)frame;
    saw.isr = apic_busy();
    while (nmi.more > 0) {
        nmi.more--;
        apic_send(0x400, apic_id());
    }
    delay(50);
    nmi.total_inside = irq_count[V_NMI];
    saw.isr |= apic_busy();
}

static void nmis(void)
{
    irqs_forget();
    irq_handler[V_NMI] = nmi_handler;
    irq_on_handler(V_NMI);
    apic_write(APIC_TPR, 0xff);
    nmi.more = 0;
    apic_send(0x400 | 0x33, apic_id()); /* the vector does not count */
    delay(50);
    check(named("nmi.if-and-tpr-do-not-count"), ICR, irq_count[V_NMI], 1);
    check(named("nmi.vector-does-not-count"), ICR, irq_total, 1);
    check(named("nmi.not-in-isr"), ACCEPT, saw.isr, 0);
    apic_write(APIC_TPR, 0);
    irqs_forget();
    nmi.more = 3;
    apic_send(0x400, apic_id());
    delay(50);
    check(named("nmi.blocked-until-iret"), NMIT, nmi.total_inside == 2 && irq_depth_max == 1, 1);
    check(named("nmi.one-pends"), NMIT, irq_count[V_NMI], 2);
    idt_usual(V_NMI, GATE_INT, 1);
}

/* ---- errors, software-disabled ---- */

static void errors(void)
{
    irq_on_handler(0x0f); /* should they be taken after all */
    irq_on_handler(0x03);
    irqs_forget();
    apic_errors();
    apic_send(APIC_SELF | 0x0f, 0);
    irqs_let_in();
    check_bits(named("esr.send-illegal"), ERRORS, apic_errors(), 0x20, 0x9f | 0x20);
    check(named("esr.cleared"), ERRORS, apic_errors(), 0);
    check(named("esr.nothing-taken"), ERRORS, irq_total, 0);
    apic_write(APIC_LVT_ERROR, 0x71);
    apic_send(0x03, apic_id());
    check(named("error.interrupt"), ERRORS, irqs_wait(0x71, 1, 100), 1);
    check_bits(named("error.esr"), ERRORS, apic_errors(), 0x20, 0x20);
    apic_send(0x03, apic_id());
    check(named("error.rearmed"), ERRORS, irqs_wait(0x71, 2, 100), 2);
    apic_write(APIC_LVT_ERROR, APIC_MASKED | 0x71);
    apic_errors();
    apic_send(0x03, apic_id());
    irqs_let_in();
    check(named("error.masked"), ERRORS, irq_count[0x71], 2);
    check_bits(named("error.masked-esr"), ERRORS, apic_errors(), 0x20, 0x20);
    irq_on_fragment(0x0f);
    irq_on_fragment(0x03);
}

static void software_disabled(void)
{
    irqs_forget();
    apic_send(APIC_SELF | 0x57, 0);
    apic_write(APIC_SVR, APIC_SPURIOUS);
    check(named("off.irr-held"), STATE, apic_bit(APIC_IRR, 0x57), 1);
    apic_write(APIC_SVR, 0x100 | APIC_SPURIOUS);
    check(named("off.held-taken"), STATE, irqs_wait(0x57, 1, 100), 1);
    irqs_forget();
    apic_write(APIC_SVR, APIC_SPURIOUS);
    apic_send(0x58, apic_id());
    apic_write(APIC_SVR, 0x100 | APIC_SPURIOUS);
    irqs_let_in();
    check(named("off.accepts-nothing"), STATE, irq_total, 0);
    irq_handler[V_NMI] = NULL;
    irq_on_handler(V_NMI);
    apic_write(APIC_SVR, APIC_SPURIOUS);
    apic_send(0x400, apic_id());
    delay(50);
    check(named("off.nmi"), STATE, irq_count[V_NMI], 1);
    idt_usual(V_NMI, GATE_INT, 1);
    apic_write(APIC_SVR, 0x100 | APIC_SPURIOUS);
}

/* ---- LINT0: the PIC ---- */

#define PIC_5 (PIC_BASE + 5)

static void pic_done(unsigned vector, const struct irq_frame *frame)
{
    (void)vector;
    (void)frame;
    saw.isr = apic_busy();
    line(5, false);
    outb(0x20, 0x20);
}

static void lint0_level_handler(unsigned vector, const struct irq_frame *frame)
{
    (void)frame;
    saw.irr = (apic_read(APIC_LVT_LINT0) & 0x4000) != 0;
    if (irq_count[vector] == 3)
        pic_mask(0xffff);
    apic_write(APIC_EOI, 0);
}

/* Fixed and level-triggered: again after each EOI while the PIC's output is high. */
static void lint0_level(void)
{
    irqs_forget();
    irq_handler[0x67] = lint0_level_handler;
    apic_write(APIC_LVT_LINT0, 0x8067);
    line(5, true);
    irqs_let_in();
    check(named("lint0.level-while-high"), LINT, irq_count[0x67] == 3 && irq_total == 3, 1);
    check(named("lint0.level-remote-irr"), LINT, saw.irr, 1);
    check(named("lint0.level-eoi"), LINT, apic_read(APIC_LVT_LINT0), 0x8067);
    line(5, false);
    apic_write(APIC_LVT_LINT0, APIC_MASKED);
    pic_mask(0xffdf);
    outb(0x20, 0x0c);
    (void)inb(0x20);
    outb(0x20, 0x20);
    irq_handler[0x67] = apic_done;
}

static void lint0(void)
{
    irq_handler[PIC_5] = pic_done;
    pic_start(1);
    pic_mask(0xffdf);
    apic_write(APIC_LVT_LINT0, 0x10700);
    irqs_forget();
    line(5, true);
    irqs_let_in();
    check(named("lint0.masked"), LINT, irq_total, 0);
    apic_write(APIC_TPR, 0xff); /* not for ExtINT */
    apic_write(APIC_LVT_LINT0, 0x00700);
    check(named("lint0.extint"), LINT, irqs_wait(PIC_5, 1, 100), 1);
    check(named("lint0.extint-no-isr"), ACCEPT, saw.isr, 0);
    check(named("lint0.extint-once"), LINT, irq_total, 1);
    apic_write(APIC_TPR, 0);
    irqs_forget();
    line(5, true);
    apic_send(APIC_SELF | 0x59, 0);
    irqs_let_in();
    check(named("lint0.extint-and-fixed"), LINT, irq_count[PIC_5] == 1 && irq_count[0x59] == 1, 1);
    /* the PIC's output as a fixed interrupt, edge */
    apic_write(APIC_LVT_LINT0, 0x66);
    irqs_forget();
    line(5, true);
    check(named("lint0.fixed"), LINT, irqs_wait(0x66, 1, 100), 1);
    irqs_let_in();
    check(named("lint0.fixed-once"), LINT, irq_total, 1);
    outb(0x20, 0x0c); /* poll: the PIC still has its request */
    check(named("lint0.fixed-not-acknowledged"), LINT, inb(0x20), 0x85);
    outb(0x20, 0x20);
    line(5, false);
    apic_write(APIC_LVT_LINT0, APIC_MASKED);
    lint0_level();
    apic_write(APIC_SVR, APIC_SPURIOUS);
    apic_write(APIC_LVT_LINT0, 0x00700);
    irqs_forget();
    line(5, true);
    irqs_let_in();
    check(named("lint0.software-disabled"), STATE, irq_total, 0);
    line(5, false);
    outb(0x20, 0x0c);
    (void)inb(0x20);
    outb(0x20, 0x20);
    apic_reset();
}

/* With the APIC off for good, its pin is the processor's INTR. */
static void lint0_disabled(void)
{
    uint64_t base = rdmsr(MSR_APIC_BASE);

    wrmsr(MSR_APIC_BASE, base & ~(uint64_t)(APIC_BASE_EN | APIC_BASE_EXTD));
    irqs_forget();
    irq_handler[PIC_5] = NULL;
    line(5, true);
    irqs_let_in();
    check("disabled.intr", "SDM Vol.3, local APIC status and location", irq_count[PIC_5], 1);
    check("disabled.intr-once", "SDM Vol.3, local APIC status and location", irq_total, 1);
    line(5, false);
    outb(0x20, 0x20);
    pic_mask(0xffff);
    wrmsr(MSR_APIC_BASE, base);
    irq_handler[PIC_5] = apic_done;
    apic_reset();
}

static void all(void)
{
    apic_reset();
    life();
    destinations();
    if (mode[1] == '2')
        logical_x2apic();
    else
        logical_xapic();
    order();
    task_priority();
    nmis();
    errors();
    software_disabled();
    lint0();
}

void test(void)
{
    require(cpuid_bit(1, 0, 3, 9), "there is no local APIC");
    irqs_start();
    irq_handler[0x1f] = apic_done;
    irq_on_handler(0x1f);
    ioapic_mask_all();
    apic_mode(false);
    mode = "xapic.";
    all();
    lint0_disabled();
    require_end();
    require(cpuid_bit(1, 0, 2, 21), "there is no x2APIC mode");
    apic_mode(true);
    mode = "x2apic.";
    all();
    apic_mode(false);
}
