/*
 * Interrupt routing: lines to PIC and IOAPIC, messages to local APICs.
 *
 * A global system interrupt (GSI) 0-15 is an ISA line and reaches the PIC's input n and the
 * IOAPIC's pin n (ISA 0 reaches pin 2; pin 0 is the PIC's output); 16-23 reach the IOAPIC only, and
 * so does 2, since the PIC's input 2 is its cascade.
 * Lines are wired-or: a GSI is high while any irq_line on it is.
 *
 * irq_*: any thread; the caller may hold its own device's lock. The PIC's and IOAPIC's locks are
 * taken inside (order: device, then PIC or IOAPIC). Posting to a local APIC is atomic.
 */
#ifndef BUS_IRQ_H
#define BUS_IRQ_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/log.h"

#define IRQ_GSI_COUNT 24u
#define IRQ_ISA_COUNT 16u

struct irq_router;

struct irq_router *irq_router_create(struct log *log);
void irq_router_destroy(struct irq_router *r);

/* One wire into a GSI, held by a device. Owner frees it with irq_line_free. NULL: no memory. */
struct irq_line;
struct irq_line *irq_line_create(struct irq_router *r, unsigned gsi);
void irq_line_free(struct irq_line *line);       /* lowers it first; NULL is allowed */
void irq_set(struct irq_line *line, bool level); /* one caller at a time for a line */
bool irq_level(const struct irq_line *line);
void irq_pulse(struct irq_line *line); /* an edge: high, then low */

/*
 * HPET legacy replacement: while it is on, GSI 0 and 8 follow only the lines made by
 * irq_line_create_hpet; the i8254's and the RTC's are cut off (their level is kept).
 */
struct irq_line *irq_line_create_hpet(struct irq_router *r, unsigned gsi);
void irq_legacy_replacement(struct irq_router *r, bool on);

/* A message-signalled interrupt: writes data to addr (0xFEExxxxx); else logged, dropped. */
void msi_send(struct irq_router *r, uint64_t addr, uint32_t data);

/* Level of a GSI now (any line high). */
bool irq_gsi_level(struct irq_router *r, unsigned gsi);

/*
 * What stands at the other end. The chips register themselves at creation; set is called with
 * `lock` held by the router, on any thread, for each change of the pin.
 */
struct irq_chip {
    void *ctx;
    pthread_mutex_t *lock;
    void (*set)(void *ctx, unsigned pin, bool level);
    /* IOAPIC only: an EOI for this vector was broadcast. Router holds lock. */
    void (*eoi)(void *ctx, uint8_t vector);
    /* PIC only: INTA cycle; the vector, a spurious one if nothing pends. Router holds lock. */
    uint8_t (*ack)(void *ctx);
};
void irq_attach_pic(struct irq_router *r, const struct irq_chip *pic);
void irq_attach_ioapic(struct irq_router *r, const struct irq_chip *ioapic);

/* From the PIC (lock held): its INT output. Reaches LINT0 of vCPU 0 and IOAPIC pin 0. */
void irq_pic_output(struct irq_router *r, bool level);
bool irq_pic_pending(struct irq_router *r);
/* From a local APIC in ExtINT delivery: runs the INTA cycle. No lock held by the caller. */
uint8_t irq_pic_ack(struct irq_router *r);

/* PIC pins beside the ISA lines: a PIRQ routed to an ISA IRQ by the LPC bridge. Wired-or too. */
struct irq_line *irq_line_create_pic(struct irq_router *r, unsigned irq);

/* ---- local APICs ---- */

enum irq_delivery { /* delivery modes as in APIC registers and MSI data */
                    IRQ_FIXED = 0,
                    IRQ_LOWEST = 1,
                    IRQ_SMI = 2,
                    IRQ_NMI = 4,
                    IRQ_INIT = 5,
                    IRQ_STARTUP = 6,
                    IRQ_EXTINT = 7
};

struct irq_message {
    uint32_t dest; /* APIC id (8 or 32 bits) or logical destination */
    bool logical;
    bool level;       /* trigger mode: level */
    bool assert;      /* false: the level has ended, or an INIT level de-assert */
    uint8_t delivery; /* enum irq_delivery */
    uint8_t vector;
};

/* The set of local APICs: dev/lapic.c, or the kernel's under kvm. ctx is lapic_ops' own. */
struct lapic_ops {
    /* Delivers to every APIC that matches; any thread, no lock needed. */
    void (*deliver)(void *ctx, const struct irq_message *msg);
    /* The PIC's output towards LINT0 changed. Any thread. */
    void (*extint)(void *ctx, bool level);
    /* NMI button: LINT1 of every vCPU. */
    void (*nmi)(void *ctx);
    /*
     * What an IOAPIC pin sends from now on, masked or not, before it does. For local APICs that
     * must know beforehand which vectors' ends to tell of. IOAPIC's lock held. NULL: not needed.
     */
    void (*pin)(void *ctx, unsigned pin, const struct irq_message *msg);
};
/* The last one counts; before vCPUs run. irq_lapics: who it is now, and its context. */
void irq_attach_lapics(struct irq_router *r, const struct lapic_ops *ops, void *ctx);
const struct lapic_ops *irq_lapics(const struct irq_router *r, void **ctx);

/* From the IOAPIC, with its lock held: see lapic_ops.pin. */
void irq_pin(struct irq_router *r, unsigned pin, const struct irq_message *msg, bool masked);
/* From MSI; and from the IOAPIC's pin, with its lock held, what irq_pin has told. */
void irq_deliver(struct irq_router *r, const struct irq_message *msg);
void irq_deliver_pin(struct irq_router *r, unsigned pin, const struct irq_message *msg);
/* From a local APIC: level-triggered interrupt ended. No lock held. */
void irq_eoi_broadcast(struct irq_router *r, uint8_t vector);

/* The message that such a write is. NULL, or why it is none. */
const char *msi_message(uint64_t addr, uint32_t data, struct irq_message *msg);

/* Observers for tests: called on every change of a GSI and for every message. */
void irq_set_observer(struct irq_router *r, void (*gsi)(void *ctx, unsigned gsi, bool level),
                      void (*msg)(void *ctx, const struct irq_message *msg), void *ctx);

/*
 * One local APIC as its page has it: register n (the offset over 16) is the little-endian word at
 * 16 n, the current count among them; REG_ID as in xAPIC mode. And what lies in MSRs beside it.
 */
struct lapic_page {
    uint8_t reg[1024];
    uint64_t base;     /* IA32_APIC_BASE, with the mode's bits */
    uint64_t deadline; /* IA32_TSC_DEADLINE; 0: not armed */
};

/*
 * A vCPU's side of its local APIC, called by an engine on that vCPU's thread (but `pending`, which
 * any thread may ask). Only for engines without a local APIC of their own.
 */
struct lapic_cpu_ops {
    /* An interrupt waits that the vCPU would take now if IF and shadows allow (priority done). */
    bool (*pending)(void *ctx, unsigned cpu);
    /* Accepts it: the vector, IRR → ISR (or the PIC's INTA cycle); -1 if it has gone. */
    int (*ack)(void *ctx, unsigned cpu);
    /* The xAPIC page; offset 0-0xFFF, size 1-8. */
    uint64_t (*mmio_read)(void *ctx, unsigned cpu, unsigned offset, unsigned size);
    void (*mmio_write)(void *ctx, unsigned cpu, unsigned offset, unsigned size, uint64_t value);
    /* IA32_APIC_BASE (0x1B), IA32_TSC_DEADLINE (0x6E0) and 0x800-0x8FF. -1 means #GP. */
    int (*msr_read)(void *ctx, unsigned cpu, uint32_t msr, uint64_t *value);
    int (*msr_write)(void *ctx, unsigned cpu, uint32_t msr, uint64_t value);
    /* CR8: bits 7:4 of TPR. */
    uint8_t (*get_cr8)(void *ctx, unsigned cpu);
    void (*set_cr8)(void *ctx, unsigned cpu, uint8_t value);
    /*
     * For an engine that has local APICs of its own: `take` gives all of this one's state and
     * leaves it without a request or a timer; `put` makes it the one in the page. No message may
     * arrive meanwhile.
     */
    void (*take)(void *ctx, unsigned cpu, struct lapic_page *out);
    void (*put)(void *ctx, unsigned cpu, const struct lapic_page *in);
    /* The guest's TSC for TSC-deadline: tsc = host_clock scaled; set by the VM, see lapic.h. */
};

/* What a local APIC asks of a vCPU; the VM provides it. Any thread, takes no lock. */
struct vcpu_signal_ops {
    void (*interrupt)(void *ctx, unsigned cpu); /* `pending` may have become true */
    void (*nmi)(void *ctx, unsigned cpu);
    void (*smi)(void *ctx, unsigned cpu);
    void (*init)(void *ctx, unsigned cpu);
    void (*sipi)(void *ctx, unsigned cpu, uint8_t vector);
    /* Guest TSC of this vCPU now, and its frequency, for the TSC-deadline timer. */
    uint64_t (*tsc_now)(void *ctx, unsigned cpu);
    uint64_t (*tsc_hz)(void *ctx, unsigned cpu);
};

#endif
