/*
 * For images about interrupts that arrive while C code runs: handlers that come back by IRET, what
 * they saw, waiting with a bound, and access to the interrupt controllers.
 *
 *     irqs_start();
 *     irq_handler[0x51] = apic_done;      counted, then the handler is called
 *     irqs_forget();
 *     ... raise it ...
 *     check("area.what", TOPIC, irqs_wait(0x51, 1, 100), 1);
 *
 * Vectors from 0x20 on, but for V_DONE, are taken on the stack of what they interrupt, with
 * interrupts off. irq_on_fragment() gives one back to run(). After a `require` that does not hold,
 * all of this does nothing.
 */
#ifndef TESTS_CPU_BARE_IRQS_H
#define TESTS_CPU_BARE_IRQS_H

#include "bare.h"

struct irq_frame {
    word ip, cs, flags, sp, ss;
};

/* ---- handlers ---- */

typedef void irq_function(unsigned vector, const struct irq_frame *frame);
extern irq_function *irq_handler[256];
extern volatile unsigned irq_count[256];
extern volatile unsigned irq_total;
extern volatile unsigned irq_depth, irq_depth_max; /* handlers inside handlers */
extern volatile uint8_t irq_order[32];             /* the first ones' vectors */

void irqs_start(void);
void irq_on_handler(unsigned vector); /* any vector without an error code, NMI too */
void irq_on_fragment(unsigned vector);
void irqs_forget(void); /* counts start at zero */
/* The first eight vectors taken, the first one in the highest byte in use. */
uint64_t irqs_in_order(void);
/* Interrupts on for a few instructions. */
void irqs_let_in(void);
/* Interrupts on until the vector was taken n times, or for ms milliseconds; returns how often. */
unsigned irqs_wait(unsigned vector, unsigned n, unsigned ms);
/* Interrupts on for this long. */
void irqs_on_for(unsigned us);
/* The same, off. */
void delay(unsigned us);

/* ---- time ---- */

uint64_t tsc(void);
uint64_t tsc_hz(void); /* measured with the 8254's channel 2, within a few per cent */
/* a is within per cent of b */
bool within(uint64_t a, uint64_t b, unsigned percent);

/* ---- local APIC ---- */

enum {
    APIC_ID = 0x20,
    APIC_VERSION = 0x30,
    APIC_TPR = 0x80,
    APIC_PPR = 0xa0,
    APIC_EOI = 0xb0,
    APIC_LDR = 0xd0,
    APIC_DFR = 0xe0,
    APIC_SVR = 0xf0,
    APIC_ISR = 0x100,
    APIC_TMR = 0x180,
    APIC_IRR = 0x200,
    APIC_ESR = 0x280,
    APIC_ICR = 0x300,
    APIC_ICR_HIGH = 0x310,
    APIC_LVT_TIMER = 0x320,
    APIC_LVT_THERMAL = 0x330,
    APIC_LVT_PERF = 0x340,
    APIC_LVT_LINT0 = 0x350,
    APIC_LVT_LINT1 = 0x360,
    APIC_LVT_ERROR = 0x370,
    APIC_INITIAL = 0x380,
    APIC_CURRENT = 0x390,
    APIC_DIVIDE = 0x3e0,
};
#define MSR_APIC_BASE 0x1bu
#define APIC_BASE_EXTD 0x400u
#define APIC_BASE_EN 0x800u
#define APIC_MASKED 0x10000u
#define APIC_SELF 0x40000u /* destination shorthand of the ICR */
#define APIC_LOGICAL 0x800u
#define APIC_SPURIOUS 0xefu

/* By IA32_APIC_BASE: to xAPIC or x2APIC mode, through the disabled state where that is the way. */
void apic_mode(bool x2apic);
bool apic_is_x2apic(void);
/* Enabled, everything masked, all priorities let in, nothing in service. */
void apic_reset(void);
uint32_t apic_read(unsigned offset);
void apic_write(unsigned offset, uint32_t value);
uint32_t apic_id(void);
/* An inter-processor interrupt; waits until it has left. */
void apic_send(uint32_t low, uint32_t destination);
bool apic_bit(unsigned offset, unsigned vector); /* of ISR, TMR, IRR */
/* Any bit in ISR or IRR. */
bool apic_busy(void);
/* ESR after the write that updates it. */
uint32_t apic_errors(void);
irq_function apic_done; /* a handler that writes EOI */

/* ---- I/O APIC ---- */

#define IOAPIC_LEVEL 0x8000u
#define IOAPIC_MASKED 0x10000u
#define IOAPIC_REMOTE_IRR 0x4000u
uint32_t ioapic_read(unsigned index);
void ioapic_write(unsigned index, uint32_t value);
/* Both halves, the upper one first. */
void ioapic_entry(unsigned pin, uint32_t low, uint32_t high);
uint32_t ioapic_low(unsigned pin);
void ioapic_mask_all(void);
/* A wire of the test device. */
void line(unsigned gsi, bool high);

/* ---- 8259 ---- */

#define PIC_BASE 0x30u /* the slave's follow */
/* Both initialized and all masked; ICW4 of the master. */
void pic_start(unsigned icw4);
void pic_mask(unsigned mask); /* 16 bits */

#endif
