/*
 * The two 8259A behind LINT0, with the test device's wires: initialization, masks, priorities, the
 * ways to end an interrupt, polling, special mask, rotation, ELCR. Lines 3, 5, 6, 7 and 10, 11 are
 * used.
 */
#include "irqs.h"

#define INIT "8259A, initialization command words"
#define MASK "8259A, interrupt mask register"
#define SEQUENCE "8259A, interrupt sequence"
#define NESTED "8259A, fully nested mode"
#define EOIT "8259A, end of interrupt"
#define AEOI "8259A, automatic end of interrupt mode"
#define ROTATE "8259A, rotation of priorities"
#define SPECIAL "8259A, special mask mode"
#define POLL "8259A, poll command"
#define SFNM "8259A, special fully nested mode"
#define STATUS "8259A, reading the status"
#define ELCR "I/O controller hub, edge/level control registers"

#define LINES 0xf313u /* masked: all but 3, 5, 6, 7, 10, 11 and the cascade */
#define V(irq) (PIC_BASE + (irq))

static const uint8_t used[] = {3, 5, 6, 7, 10, 11};

/* ---- commands ---- */

static void eoi(unsigned chip)
{
    outb(chip ? 0xa0 : 0x20, 0x20);
}

static uint8_t irr(unsigned chip)
{
    outb(chip ? 0xa0 : 0x20, 0x0a);
    return inb(chip ? 0xa0 : 0x20);
}

static uint8_t isr(unsigned chip)
{
    outb(chip ? 0xa0 : 0x20, 0x0b);
    return inb(chip ? 0xa0 : 0x20);
}

static uint8_t poll(unsigned chip)
{
    outb(chip ? 0xa0 : 0x20, 0x0c);
    return inb(chip ? 0xa0 : 0x20);
}

/* ---- handlers ---- */

static struct {
    uint8_t isr[2], irr[2];
    unsigned keep; /* the line stays high for so many interrupts */
} saw;

static void look(void)
{
    for (unsigned i = 0; i < 2; i++) {
        saw.isr[i] = isr(i);
        saw.irr[i] = irr(i);
    }
}

static void done(unsigned vector, const struct irq_frame *frame)
{
    (void)frame;
    look();
    if (irq_count[vector] > saw.keep)
        line(vector - PIC_BASE, false);
    if (vector >= V(8))
        eoi(1);
    eoi(0);
}

static void no_eoi(unsigned vector, const struct irq_frame *frame)
{
    (void)frame;
    look();
    line(vector - PIC_BASE, false);
}

/* Another line rises in the handler, which lets it in before its own EOI. */
static unsigned second;
static unsigned taken_inside;

static void raises(unsigned vector, const struct irq_frame *frame)
{
    irq_handler[vector] = done;
    line(second, true);
    irqs_let_in();
    taken_inside = irq_total;
    done(vector, frame);
}

static void all_handlers(irq_function *handler)
{
    for (unsigned i = 0; i < 16; i++)
        irq_handler[V(i)] = handler;
}

/* All lines low, nothing requested or in service, all handlers `done`. */
static void fresh(unsigned icw4)
{
    for (unsigned i = 0; i < sizeof(used); i++)
        line(used[i], false);
    outb(0x4d0, 0);
    outb(0x4d1, 0);
    pic_start(icw4);
    pic_mask(LINES);
    irqs_let_in();
    all_handlers(done);
    saw.keep = 0;
    irqs_forget();
}

/* ---- */

static void initialization(void)
{
    fresh(1);
    outb(0x21, 0xa5);
    outb(0xa1, 0x5a);
    check("imr.reads", MASK, inb(0x21), 0xa5);
    check("imr.slave-reads", MASK, inb(0xa1), 0x5a);
    outb(0x20, 0x11);
    outb(0x21, 0x20);
    outb(0x21, 4);
    outb(0x21, 1);
    check("icw1.clears-imr", INIT, inb(0x21), 0);
    check("icw1.selects-irr", INIT, inb(0x20), 0);
    check("icw1.slave-apart", INIT, inb(0xa1), 0x5a);
    pic_mask(0xffff);
    /* the edge sense circuit is reset: what is high must fall and rise */
    line(5, true);
    check("irr.masked", STATUS, irr(0), 0x20);
    pic_start(1);
    pic_mask(LINES);
    check("icw1.edge-sense", INIT, irr(0) & 0x20, 0);
    irqs_let_in();
    check("icw1.no-interrupt", INIT, irq_total, 0);
    line(5, false);
    line(5, true);
    irqs_let_in();
    check("icw1.next-edge", INIT, irq_count[V(5)], 1);
    /* another vector base; its low bits do not count */
    fresh(1);
    outb(0x20, 0x11);
    outb(0x21, 0x6f);
    outb(0x21, 4);
    outb(0x21, 1);
    outb(0x21, 0x13);
    irq_handler[0x6d] = NULL;
    line(5, true);
    irqs_let_in();
    check("icw2.base", INIT, irq_count[0x6d] == 1 && irq_total == 1, 1);
    line(5, false);
    eoi(0);
}

static void requests(void)
{
    fresh(1);
    line(5, true);
    check("edge.irr", STATUS, irr(0), 0x20);
    check("edge.isr-not-yet", STATUS, isr(0), 0);
    irqs_let_in();
    check("edge.taken", SEQUENCE, irq_count[V(5)], 1);
    check("edge.only-that", SEQUENCE, irq_total, 1);
    check("handler.isr", STATUS, saw.isr[0], 0x20);
    check("handler.irr", STATUS, saw.irr[0], 0);
    check("eoi.isr", EOIT, isr(0), 0);
    saw.keep = 100;
    line(5, true);
    irqs_let_in();
    irqs_let_in();
    check("edge.once-while-high", SEQUENCE, irq_count[V(5)], 2);
    line(5, false);
    irqs_let_in();
    check("edge.not-falling", SEQUENCE, irq_count[V(5)], 2);
    pic_mask(0xffff);
    line(5, true);
    irqs_let_in();
    check("mask.holds-back", MASK, irq_count[V(5)], 2);
    check("mask.stays-in-irr", MASK, irr(0), 0x20);
    pic_mask(LINES);
    irqs_let_in();
    check("mask.then-taken", MASK, irq_count[V(5)], 3);
    check("status.keeps-selection", STATUS, (isr(0), inb(0x20)), 0);
    /* no EOI: nothing of that level and below */
    fresh(1);
    all_handlers(no_eoi);
    line(5, true);
    irqs_let_in();
    line(5, true);
    line(6, true);
    irqs_let_in();
    check("no-eoi.blocks", EOIT, irq_total, 1);
    line(3, true);
    irqs_let_in();
    check("no-eoi.higher-comes", NESTED, irqs_in_order(), V(5) << 8 | V(3));
    check("no-eoi.isr", STATUS, isr(0), 0x28);
    check("no-eoi.irr", STATUS, irr(0), 0x60);
}

static void slave(void)
{
    fresh(1);
    line(10, true);
    check("slave.irr", STATUS, irr(1), 4);
    check("slave.master-irr", STATUS, irr(0), 4);
    irqs_let_in();
    check("slave.taken", SEQUENCE, irq_count[V(10)] == 1 && irq_total == 1, 1);
    check("slave.isr", STATUS, saw.isr[1], 4);
    check("slave.master-isr", STATUS, saw.isr[0], 4);
    check("slave.eoi", EOIT, isr(0) | isr(1), 0);
    fresh(1);
    outb(0xa1, 0xff);
    line(10, true);
    irqs_let_in();
    check("slave.masked", MASK, irq_total, 0);
    check("slave.masked-not-to-master", MASK, irr(0) & 4, 0);
    fresh(1);
    outb(0x21, 0x13 | 4);
    line(10, true);
    irqs_let_in();
    check("slave.cascade-masked", MASK, irq_total, 0);
    outb(0x21, 0x13);
    irqs_let_in();
    check("slave.cascade-unmasked", MASK, irq_count[V(10)], 1);
    /* the slave's are between 1 and 3 */
    fresh(1);
    line(3, true);
    line(11, true);
    line(10, true);
    irqs_let_in();
    check("slave.priority", NESTED, irqs_in_order(), V(10) << 16 | V(11) << 8 | V(3));
    /* the master's EOI alone is not enough */
    fresh(1);
    all_handlers(no_eoi);
    line(10, true);
    irqs_let_in();
    eoi(0);
    line(11, true);
    irqs_let_in();
    check("slave.own-eoi", EOIT, irq_total, 1);
    eoi(1);
    irqs_let_in();
    check("slave.then-next", EOIT, irqs_in_order(), V(10) << 8 | V(11));
}

static void nesting(const char *name, const char *topic, unsigned icw4, unsigned first,
                    unsigned other, bool want)
{
    fresh(icw4);
    irq_handler[V(first)] = raises;
    second = other;
    line(first, true);
    irqs_let_in();
    check(joined(name, ".inside", ""), topic, taken_inside, want ? 2 : 1);
    check(joined(name, ".both", ""), topic, irqs_in_order(), V(first) << 8 | V(other));
}

static void priorities(void)
{
    fresh(1);
    line(6, true);
    line(3, true);
    line(5, true);
    line(7, true);
    irqs_let_in();
    check("priority.order", NESTED, irqs_in_order(),
          (uint64_t)V(3) << 24 | V(5) << 16 | V(6) << 8 | V(7));
    check("priority.depth", NESTED, irq_depth_max, 1);
    nesting("nest.higher", NESTED, 1, 5, 3, true);
    nesting("nest.lower", NESTED, 1, 5, 6, false);
    nesting("nest.slave-over-master", NESTED, 1, 3, 10, true);
    nesting("nest.slave-higher", NESTED, 1, 11, 10, false);
    nesting("sfnm.slave-higher", SFNM, 0x11, 11, 10, true);
    nesting("sfnm.slave-lower", SFNM, 0x11, 10, 11, false);
}

static void ends(void)
{
    fresh(1);
    all_handlers(no_eoi);
    line(5, true);
    irqs_let_in();
    line(3, true);
    irqs_let_in();
    check("eoi.two-in-service", EOIT, isr(0), 0x28);
    outb(0x20, 0x20);
    check("eoi.non-specific-highest", EOIT, isr(0), 0x20);
    line(3, true);
    irqs_let_in();
    outb(0x20, 0x65);
    check("eoi.specific", EOIT, isr(0), 0x08);
    outb(0x20, 0x40);
    check("eoi.no-operation", EOIT, isr(0), 0x08);
    outb(0x20, 0x66);
    check("eoi.specific-other", EOIT, isr(0), 0x08);
    outb(0x20, 0x63);
    check("eoi.specific-last", EOIT, isr(0), 0);
    outb(0x20, 0x20);
    check("eoi.none-in-service", EOIT, isr(0), 0);
    /* automatic */
    fresh(3);
    all_handlers(no_eoi);
    line(5, true);
    irqs_let_in();
    check("aeoi.isr", AEOI, saw.isr[0], 0);
    line(6, true);
    irqs_let_in();
    check("aeoi.next", AEOI, irqs_in_order(), V(5) << 8 | V(6));
}

static uint64_t order_of_all(void)
{
    irqs_forget();
    line(3, true);
    line(5, true);
    line(6, true);
    line(7, true);
    irqs_let_in();
    return irqs_in_order();
}

#define ORDER(a, b, c, d) ((uint64_t)V(a) << 24 | V(b) << 16 | V(c) << 8 | V(d))

static void rotation(void)
{
    fresh(1);
    outb(0x20, 0xc5);
    check("rotate.set-priority", ROTATE, order_of_all(), ORDER(6, 7, 3, 5));
    outb(0x20, 0xc7);
    check("rotate.set-back", ROTATE, order_of_all(), ORDER(3, 5, 6, 7));
    all_handlers(no_eoi);
    irqs_forget();
    line(5, true);
    irqs_let_in();
    outb(0x20, 0xa0);
    check("rotate.eoi-ends", ROTATE, isr(0), 0);
    all_handlers(done);
    check("rotate.eoi", ROTATE, order_of_all(), ORDER(6, 7, 3, 5));
    all_handlers(no_eoi);
    line(3, true);
    irqs_let_in();
    outb(0x20, 0xe3);
    check("rotate.specific-ends", ROTATE, isr(0), 0);
    all_handlers(done);
    check("rotate.specific", ROTATE, order_of_all(), ORDER(5, 6, 7, 3));
    /* each that is served becomes the lowest */
    fresh(3);
    all_handlers(no_eoi);
    outb(0x20, 0x80);
    irqs_forget();
    line(5, true);
    irqs_let_in();
    check("rotate.aeoi", ROTATE, order_of_all(), ORDER(6, 7, 3, 5));
    outb(0x20, 0x00);
    outb(0x20, 0xc7);
    irqs_forget();
    line(5, true);
    irqs_let_in();
    check("rotate.aeoi-off", ROTATE, order_of_all(), ORDER(3, 5, 6, 7));
}

static void special_mask(void)
{
    fresh(1);
    all_handlers(no_eoi);
    line(3, true);
    irqs_let_in();
    outb(0x21, 0x13 | 0x08);
    line(6, true);
    irqs_let_in();
    check("special.not-yet", SPECIAL, irq_total, 1);
    outb(0x20, 0x68);
    irqs_let_in();
    check("special.lower-comes", SPECIAL, irqs_in_order(), V(3) << 8 | V(6));
    check("special.isr", SPECIAL, isr(0), 0x48);
    line(7, true);
    irqs_let_in();
    check("special.below-served", SPECIAL, irq_total, 2);
    outb(0x20, 0x66);
    irqs_let_in();
    check("special.next", SPECIAL, irq_count[V(7)], 1);
    outb(0x20, 0x67);
    outb(0x20, 0x48);
    line(6, true);
    irqs_let_in();
    check("special.off", SPECIAL, irq_total, 3);
    outb(0x20, 0x63);
    irqs_let_in();
    check("special.off-then", SPECIAL, irq_total, 4);
}

static void polled(void)
{
    fresh(1);
    check("poll.none", POLL, poll(0) & 0x80, 0);
    line(6, true);
    check("poll.for-one-read", POLL, inb(0x20), 0x40);
    line(5, true);
    check("poll.highest", POLL, poll(0), 0x85);
    check("poll.isr", POLL, isr(0), 0x20);
    check("poll.blocked", POLL, poll(0) & 0x80, 0);
    irqs_let_in();
    check("poll.no-interrupt", POLL, irq_total, 0);
    eoi(0);
    check("poll.next", POLL, poll(0), 0x86);
    eoi(0);
    line(10, true);
    check("poll.cascade", POLL, poll(0), 0x82);
    check("poll.slave", POLL, poll(1), 0x82);
    eoi(1);
    eoi(0);
    irqs_let_in();
    check("poll.all-served", POLL, irq_total, 0);
}

static void level(void)
{
    fresh(1);
    outb(0x4d0, 0xff);
    outb(0x4d1, 0xff);
    check("elcr.fixed-edge", ELCR, inb(0x4d0), 0xf8);
    check("elcr.slave-fixed-edge", ELCR, inb(0x4d1), 0xde);
    outb(0x4d0, 0x20);
    outb(0x4d1, 0x08);
    check("elcr.reads", ELCR, inb(0x4d0), 0x20);
    irqs_forget();
    saw.keep = 3;
    line(5, true);
    irqs_let_in();
    check("level.again-while-high", ELCR, irq_count[V(5)], 4);
    irqs_let_in();
    check("level.until-low", ELCR, irq_total, 4);
    saw.keep = 0;
    check("level.irr-follows", ELCR, irr(0) & 0x20, 0);
    line(11, true);
    irqs_let_in();
    check("level.slave", ELCR, irq_count[V(11)], 1);
    /* gone before the CPU asks: no interrupt, or the one that stands for none */
    irqs_forget();
    line(5, true);
    line(5, false);
    irqs_let_in();
    check("level.withdrawn", "8259A, interrupt sequence: spurious IR7", irq_count[V(5)], 0);
    check("level.withdrawn-isr", "8259A, interrupt sequence: spurious IR7", isr(0), 0);
    /* high through an initialization */
    pic_mask(0xffff);
    line(5, true);
    pic_start(1);
    irqs_forget();
    pic_mask(LINES);
    irqs_let_in();
    check("level.through-init", ELCR, irq_count[V(5)], 1);
    outb(0x4d0, 0);
    outb(0x4d1, 0);
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
    initialization();
    requests();
    slave();
    priorities();
    ends();
    rotation();
    special_mask();
    polled();
    level();
    fresh(1);
    pic_mask(0xffff);
}
