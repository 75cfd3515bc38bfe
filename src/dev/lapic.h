/*
 * The local APICs of all vCPUs: xAPIC and x2APIC, timer (one-shot, periodic, TSC-deadline), LVTs,
 * inter-processor interrupts, priorities, EOI broadcast.
 *
 * One object holds them all, since messages address sets. IRR is atomic: posting takes no lock,
 * then signals the vCPU. All else of one APIC is touched only on its own vCPU's thread and, for the
 * timer, on the loop, under that APIC's own lock. Intel SDM Vol.3, chapter on the APIC.
 */
#ifndef DEV_LAPIC_H
#define DEV_LAPIC_H

#include "bus/device.h"
#include "x86/cpuid.h"

struct lapics;

#define LAPIC_BASE 0xFEE00000ull    /* after reset; messages go to 0xFEExxxxx always */
#define LAPIC_BUS_HZ X86_CRYSTAL_HZ /* timer input before the divider: CPUID 0x15's crystal */

struct lapic_config {
    unsigned cpus;      /* APIC ids 0 .. cpus-1 */
    bool x2apic;        /* start in x2APIC mode */
    uint32_t bus_hz;    /* the timer's input before the divider; 0: LAPIC_BUS_HZ */
    unsigned phys_bits; /* width of a physical address: how far a guest may move the registers */
    const struct vcpu_signal_ops *signals;
    void *signals_ctx;
};

int lapics_create(struct dev_env *env, const struct lapic_config *cfg, struct lapics **out,
                  struct error *err); /* attaches itself to env->irqs */
void lapics_destroy(struct lapics *l);
void lapics_reset(struct lapics *l);              /* power-on state of all */
void lapics_init(struct lapics *l, unsigned cpu); /* an INIT: keeps id and APIC_BASE */

/* ctx of lapics_cpu_ops is the struct lapics. */
extern const struct lapic_cpu_ops lapics_cpu_ops;

void lapics_save(struct lapics *l, struct state_buf *out);
int lapics_load(struct lapics *l, const uint8_t *data, size_t len, size_t *pos, struct error *err);

#endif
