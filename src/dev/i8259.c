/*
 * The PC's two 8259A interrupt controllers, cascaded on the master's input 2, and the ELCR that
 * chooses edge or level for each input.
 *
 *   0x20  ICW1, OCW2, OCW3 / IRR or ISR      0x21  ICW2-4, OCW1 / IMR       master, IRQ 0-7
 *   0xA0, 0xA1                                                              slave, IRQ 8-15
 *   0x4D0, 0x4D1                                                            ELCR
 *
 * An edge input's request, once latched, stays although the line falls again: the real chip would
 * drop it, but devices here may pulse their line faster than a vCPU gets to its INTA cycle. Inputs
 * in level mode follow the line, so that is where spurious interrupts come from, and from masking.
 *
 * As in the chipsets, the ELCR replaces ICW1's level bit, the chips are cascaded whatever ICW1
 * says, and vectors are those of 8086 mode always: no processor here could run the CALL of
 * MCS-80/85 mode. A guest that asks for these gets a line in the log.
 *
 * Ports on any vCPU's thread, inputs and INTA from the router, all with the device's lock held.
 */
#include "dev/chips.h"

#include <errno.h>
#include <stdlib.h>

#include "dev/bytes.h"

#define CASCADE_PIN 2u
#define SPURIOUS_PIN 7u

/* ICW1 */
#define ICW1_IC4 0x01u
#define ICW1_SNGL 0x02u
#define ICW1_LTIM 0x08u
#define ICW1_INIT 0x10u
/* ICW4 */
#define ICW4_8086 0x01u
#define ICW4_AEOI 0x02u
#define ICW4_SFNM 0x10u
/* OCW2: the command in bits 7-5 */
#define OCW2_ROTATE 4u
#define OCW2_SPECIFIC 2u
#define OCW2_EOI 1u
/* OCW3 */
#define OCW3_SELECT 0x08u
#define OCW3_ESMM 0x40u
#define OCW3_SMM 0x20u
#define OCW3_POLL 0x04u
#define OCW3_RR 0x02u
#define OCW3_RIS 0x01u

enum pic_step {
    PIC_READY,
    PIC_ICW2,
    PIC_ICW3,
    PIC_ICW4,
    PIC_COLD, /* power-on: no vector yet, so no interrupt either */
};

struct pic {
    uint8_t level; /* inputs now */
    uint8_t latch; /* edge inputs: requests seen and not yet acknowledged */
    uint8_t elcr;  /* 1 = level */
    uint8_t imr;
    uint8_t isr;
    uint8_t base;   /* vector of input 0 */
    uint8_t lowest; /* input with the lowest priority */
    uint8_t step;   /* enum pic_step */
    uint8_t icw1;
    uint8_t auto_eoi;
    uint8_t nested; /* special fully nested */
    uint8_t rotate; /* in automatic EOI */
    uint8_t special_mask;
    uint8_t read_isr;
    uint8_t poll;
    uint8_t output; /* INT as last driven */
};

struct i8259 {
    struct dev_env *env;
    struct pic pic[2]; /* master, slave */
};

static const uint8_t elcr_writable[2] = {0xF8, 0xDE}; /* not IRQ 0, 1, 2, 8 and 13 */

static uint8_t pic_irr(const struct pic *p)
{
    return (uint8_t)((p->latch & ~p->elcr) | (p->level & p->elcr));
}

/* 0 is the highest priority, 7 the lowest. */
static unsigned pic_rank(const struct pic *p, unsigned pin)
{
    return (pin - p->lowest - 1u) & 7;
}

/* The input with the highest priority among the bits, -1 if none. */
static int pic_first(const struct pic *p, uint8_t bits)
{
    for (unsigned i = 1; i <= 8; i++) {
        unsigned pin = (p->lowest + i) & 7;

        if (bits & (1u << pin))
            return (int)pin;
    }
    return -1;
}

/* The input that INTA would acknowledge now, -1 if none. */
static int pic_candidate(const struct pic *p)
{
    int request, served;

    if (p->step != PIC_READY)
        return -1;
    request = pic_first(p, pic_irr(p) & (uint8_t)~p->imr);
    if (request < 0)
        return -1;
    /* In special mask mode a masked level no longer holds the others back. */
    served = pic_first(p, p->special_mask ? (uint8_t)(p->isr & ~p->imr) : p->isr);
    if (served < 0 || pic_rank(p, (unsigned)request) < pic_rank(p, (unsigned)served))
        return request;
    /* Special fully nested: the slave may interrupt its own service routine. */
    if (p->nested && request == served && request == (int)CASCADE_PIN)
        return request;
    return -1;
}

static void pic_set_pin(struct pic *p, unsigned pin, bool level)
{
    uint8_t bit = (uint8_t)(1u << pin);

    if (level && !(p->level & bit) && !(p->elcr & bit))
        p->latch |= bit;
    p->level = level ? p->level | bit : (uint8_t)(p->level & ~bit);
}

static void i8259_update(struct i8259 *s)
{
    bool slave = pic_candidate(&s->pic[1]) >= 0;
    bool master;

    s->pic[1].output = slave;
    pic_set_pin(&s->pic[0], CASCADE_PIN, slave);
    master = pic_candidate(&s->pic[0]) >= 0;
    if (master != (bool)s->pic[0].output) {
        s->pic[0].output = master;
        irq_pic_output(s->env->irqs, master);
    }
}

/* Request → in service (or straight out again in automatic EOI). */
static void pic_accept(struct pic *p, unsigned pin)
{
    uint8_t bit = (uint8_t)(1u << pin);

    p->latch &= (uint8_t)~bit;
    if (!p->auto_eoi)
        p->isr |= bit;
    else if (p->rotate)
        p->lowest = (uint8_t)pin;
}

/* One chip's part of INTA, or a poll: its input, -1 if the request has gone. */
static int i8259_accept(struct i8259 *s, unsigned which)
{
    int pin = pic_candidate(&s->pic[which]);

    if (pin >= 0)
        pic_accept(&s->pic[which], (unsigned)pin);
    /* INT falls with INTA, so the next request gives the master, or the IOAPIC, a new edge. */
    if (which == 1) {
        pic_set_pin(&s->pic[0], CASCADE_PIN, false);
    } else if (s->pic[0].output) {
        s->pic[0].output = 0;
        irq_pic_output(s->env->irqs, false);
    }
    return pin;
}

static uint8_t i8259_ack(void *ctx)
{
    struct i8259 *s = ctx;
    int pin = i8259_accept(s, 0);
    uint8_t vector;

    if (pin == (int)CASCADE_PIN) {
        pin = i8259_accept(s, 1);
        vector = (uint8_t)(s->pic[1].base + (pin < 0 ? SPURIOUS_PIN : (unsigned)pin));
    } else {
        vector = (uint8_t)(s->pic[0].base + (pin < 0 ? SPURIOUS_PIN : (unsigned)pin));
    }
    i8259_update(s);
    return vector;
}

static void i8259_set(void *ctx, unsigned pin, bool level)
{
    struct i8259 *s = ctx;

    if (pin >= 16 || pin == CASCADE_PIN)
        return;
    pic_set_pin(&s->pic[pin / 8], pin % 8, level);
    i8259_update(s);
}

static void pic_icw1(struct i8259 *s, struct pic *p, uint8_t value)
{
    p->icw1 = value;
    p->step = PIC_ICW2;
    p->latch = 0; /* the edge sense circuit: a line that is high must fall and rise again */
    p->imr = 0;
    p->isr = 0;
    p->lowest = 7;
    p->special_mask = 0;
    p->read_isr = 0;
    p->poll = 0;
    p->rotate = 0;
    p->auto_eoi = 0;
    p->nested = 0;
    if (value & ICW1_SNGL)
        log_guest(s->env, "single mode (ICW1 %#x), but the chips are cascaded", value);
    if (value & ICW1_LTIM)
        log_guest(s->env, "level mode for all (ICW1 %#x), but the ELCR chooses here", value);
    if (!(value & ICW1_IC4))
        log_guest(s->env, "no ICW4 follows (ICW1 %#x): that is MCS-80/85 mode", value);
}

static void pic_ocw2(struct pic *p, uint8_t value)
{
    unsigned command = value >> 5, pin = value & 7;
    int served;

    switch (command) {
    case 0:
    case OCW2_ROTATE:
        p->rotate = command == OCW2_ROTATE;
        break;
    case OCW2_EOI:
    case OCW2_EOI | OCW2_ROTATE:
        /* A masked level's service bit is out of its reach in special mask mode. */
        served = pic_first(p, p->special_mask ? (uint8_t)(p->isr & ~p->imr) : p->isr);
        if (served >= 0) {
            p->isr &= (uint8_t) ~(1u << served);
            if (command & OCW2_ROTATE)
                p->lowest = (uint8_t)served;
        }
        break;
    case OCW2_EOI | OCW2_SPECIFIC:
    case OCW2_EOI | OCW2_SPECIFIC | OCW2_ROTATE:
        p->isr &= (uint8_t) ~(1u << pin);
        if (command & OCW2_ROTATE)
            p->lowest = (uint8_t)pin;
        break;
    case OCW2_ROTATE | OCW2_SPECIFIC:
        p->lowest = (uint8_t)pin;
        break;
    case OCW2_SPECIFIC: /* no operation */
        break;
    }
}

static void pic_ocw3(struct pic *p, uint8_t value)
{
    if (value & OCW3_ESMM)
        p->special_mask = (value & OCW3_SMM) != 0;
    p->poll = (value & OCW3_POLL) != 0;
    if (!p->poll && (value & OCW3_RR))
        p->read_isr = value & OCW3_RIS;
}

static void pic_write_data(struct i8259 *s, unsigned which, uint8_t value)
{
    struct pic *p = &s->pic[which];

    switch ((enum pic_step)p->step) {
    case PIC_COLD:
    case PIC_READY:
        p->imr = value;
        break;
    case PIC_ICW2:
        p->base = value & 0xF8;
        if (!(p->icw1 & ICW1_SNGL))
            p->step = PIC_ICW3;
        else
            p->step = (p->icw1 & ICW1_IC4) ? PIC_ICW4 : PIC_READY;
        break;
    case PIC_ICW3:
        if (value != (which == 0 ? 1u << CASCADE_PIN : CASCADE_PIN))
            log_guest(s->env, "ICW3 %#x does not match the wiring of the %s", value,
                      which == 0 ? "master" : "slave");
        p->step = (p->icw1 & ICW1_IC4) ? PIC_ICW4 : PIC_READY;
        break;
    case PIC_ICW4:
        if (!(value & ICW4_8086))
            log_guest(s->env, "ICW4 %#x: that is MCS-80/85 mode", value);
        p->auto_eoi = (value & ICW4_AEOI) != 0;
        p->nested = which == 0 && (value & ICW4_SFNM) != 0; /* the slave has no slaves */
        p->step = PIC_READY;
        break;
    }
}

static void pic_write(struct i8259 *s, unsigned which, unsigned offset, uint8_t value)
{
    struct pic *p = &s->pic[which];

    if (offset == 1)
        pic_write_data(s, which, value);
    else if (value & ICW1_INIT)
        pic_icw1(s, p, value);
    else if (value & OCW3_SELECT)
        pic_ocw3(p, value);
    else
        pic_ocw2(p, value);
    i8259_update(s);
}

static uint8_t pic_read(struct i8259 *s, unsigned which, unsigned offset)
{
    struct pic *p = &s->pic[which];

    if (p->poll) { /* the read stands for INTA, on either port */
        int pin = i8259_accept(s, which);

        p->poll = 0;
        i8259_update(s);
        return pin < 0 ? 0 : (uint8_t)(0x80 | pin);
    }
    if (offset == 1)
        return p->imr;
    return p->read_isr ? p->isr : pic_irr(p);
}

static uint8_t master_in_byte(void *dev, unsigned offset)
{
    return pic_read(dev, 0, offset);
}

static uint8_t slave_in_byte(void *dev, unsigned offset)
{
    return pic_read(dev, 1, offset);
}

static uint8_t elcr_in_byte(void *dev, unsigned offset)
{
    struct i8259 *s = dev;

    return s->pic[offset].elcr;
}

static void master_out_byte(void *dev, unsigned offset, uint8_t value)
{
    pic_write(dev, 0, offset, value);
}

static void slave_out_byte(void *dev, unsigned offset, uint8_t value)
{
    pic_write(dev, 1, offset, value);
}

static void elcr_out_byte(void *dev, unsigned offset, uint8_t value)
{
    struct i8259 *s = dev;
    struct pic *p = &s->pic[offset];

    if (value & ~elcr_writable[offset])
        log_guest(s->env, "ELCR%u %#x makes a motherboard interrupt level-triggered", offset + 1,
                  value);
    value &= elcr_writable[offset];
    p->latch &= (uint8_t) ~(p->elcr ^ value); /* an input that changes starts without a request */
    p->elcr = value;
    i8259_update(s);
}

static uint32_t master_in(void *dev, unsigned offset, unsigned size)
{
    return bytes_in(dev, offset, size, master_in_byte);
}

static uint32_t slave_in(void *dev, unsigned offset, unsigned size)
{
    return bytes_in(dev, offset, size, slave_in_byte);
}

static uint32_t elcr_in(void *dev, unsigned offset, unsigned size)
{
    return bytes_in(dev, offset, size, elcr_in_byte);
}

static void master_out(void *dev, unsigned offset, unsigned size, uint32_t value)
{
    bytes_out(dev, offset, size, value, master_out_byte);
}

static void slave_out(void *dev, unsigned offset, unsigned size, uint32_t value)
{
    bytes_out(dev, offset, size, value, slave_out_byte);
}

static void elcr_out(void *dev, unsigned offset, unsigned size, uint32_t value)
{
    bytes_out(dev, offset, size, value, elcr_out_byte);
}

static const struct port_range i8259_ports[] = {
    {.base = 0x20, .len = 2, .in = master_in, .out = master_out},
    {.base = 0xA0, .len = 2, .in = slave_in, .out = slave_out},
    {.base = 0x4D0, .len = 2, .in = elcr_in, .out = elcr_out},
};

/* The lines are driven from outside and keep their level. */
static void i8259_reset(void *dev)
{
    struct i8259 *s = dev;

    for (unsigned i = 0; i < 2; i++) {
        uint8_t level = s->pic[i].level;

        s->pic[i] = (struct pic){.level = level, .lowest = 7, .step = PIC_COLD};
    }
    pic_set_pin(&s->pic[0], CASCADE_PIN, false);
    s->pic[0].output = 0;
    irq_pic_output(s->env->irqs, false);
}

static void i8259_loaded(void *dev)
{
    struct i8259 *s = dev;

    for (unsigned i = 0; i < 2; i++) {
        struct pic *p = &s->pic[i];

        p->elcr &= elcr_writable[i];
        p->base &= 0xF8;
        p->lowest &= 7;
        if (p->step > PIC_COLD)
            p->step = PIC_COLD;
    }
    s->pic[0].output = pic_candidate(&s->pic[0]) >= 0;
    irq_pic_output(s->env->irqs, s->pic[0].output);
    i8259_update(s);
}

static int i8259_create(struct dev_env *env, const struct options *opts, void **out,
                        struct error *err)
{
    struct i8259 *s = calloc(1, sizeof(*s));

    (void)opts;
    if (s == NULL)
        return error_set(err, -ENOMEM, "no memory for the interrupt controllers");
    s->env = env;
    i8259_reset(s);
    irq_attach_pic(
        env->irqs,
        &(struct irq_chip){.ctx = s, .lock = &env->lock, .set = i8259_set, .ack = i8259_ack});
    *out = s;
    return 0;
}

static void i8259_destroy(void *dev)
{
    struct i8259 *s = dev;

    irq_attach_pic(s->env->irqs, &(struct irq_chip){0});
    free(s);
}

#define PIC_FIELDS(n, tag)                                                                         \
    STATE_FIELD((tag), struct i8259, pic[n].level),                                                \
        STATE_FIELD((tag) + 1, struct i8259, pic[n].latch),                                        \
        STATE_FIELD((tag) + 2, struct i8259, pic[n].elcr),                                         \
        STATE_FIELD((tag) + 3, struct i8259, pic[n].imr),                                          \
        STATE_FIELD((tag) + 4, struct i8259, pic[n].isr),                                          \
        STATE_FIELD((tag) + 5, struct i8259, pic[n].base),                                         \
        STATE_FIELD((tag) + 6, struct i8259, pic[n].lowest),                                       \
        STATE_FIELD((tag) + 7, struct i8259, pic[n].step),                                         \
        STATE_FIELD((tag) + 8, struct i8259, pic[n].icw1),                                         \
        STATE_FIELD((tag) + 9, struct i8259, pic[n].auto_eoi),                                     \
        STATE_FIELD((tag) + 10, struct i8259, pic[n].nested),                                      \
        STATE_FIELD((tag) + 11, struct i8259, pic[n].rotate),                                      \
        STATE_FIELD((tag) + 12, struct i8259, pic[n].special_mask),                                \
        STATE_FIELD((tag) + 13, struct i8259, pic[n].read_isr),                                    \
        STATE_FIELD((tag) + 14, struct i8259, pic[n].poll)

static const struct state_field i8259_state[] = {PIC_FIELDS(0, 1), PIC_FIELDS(1, 33)};

const struct dev_ops i8259_ops = {
    .name = "i8259",
    .summary = "interrupt controllers (two 8259A) and ELCR",
    .ports = i8259_ports,
    .port_count = countof(i8259_ports),
    .state = i8259_state,
    .state_count = countof(i8259_state),
    .create = i8259_create,
    .destroy = i8259_destroy,
    .reset = i8259_reset,
    .loaded = i8259_loaded,
};
