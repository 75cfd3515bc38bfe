/*
 * The insides of the local APICs, shared by lapic.c (messages, priorities), lapic_regs.c (MMIO and
 * MSR access) and lapic_timer.c. Nobody else includes this.
 *
 * What another thread may read or post into is atomic; the timer's fields are under `lock`, which
 * the vCPU's own thread and the loop take. ISR, TPR, ICR and the visible ESR belong to the vCPU's
 * thread alone. `lock` is never held while a message is sent.
 */
#ifndef DEV_LAPIC_IMPL_H
#define DEV_LAPIC_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "dev/lapic.h"

#define LAPIC_BASE_BSP (1ull << 8) /* IA32_APIC_BASE: the bootstrap processor */
#define LAPIC_MAX 256u             /* an 8-bit id for each; the bus has as many readers */

enum lapic_mode { LAPIC_DISABLED, LAPIC_XAPIC, LAPIC_X2APIC };

/* Register numbers: the MMIO offset over 16, the MSR less 0x800. */
enum {
    REG_ID = 0x02,
    REG_VERSION = 0x03,
    REG_TPR = 0x08,
    REG_APR = 0x09,
    REG_PPR = 0x0A,
    REG_EOI = 0x0B,
    REG_RRD = 0x0C,
    REG_LDR = 0x0D,
    REG_DFR = 0x0E,
    REG_SVR = 0x0F,
    REG_ISR = 0x10,
    REG_TMR = 0x18,
    REG_IRR = 0x20,
    REG_ESR = 0x28,
    REG_ICR = 0x30,
    REG_ICR_HIGH = 0x31,
    REG_LVT = 0x32,
    REG_LVT_END = 0x37,
    REG_INITIAL = 0x38,
    REG_CURRENT = 0x39,
    REG_DIVIDE = 0x3E,
    REG_SELF_IPI = 0x3F
};

enum { LVT_TIMER, LVT_THERMAL, LVT_PERF, LVT_LINT0, LVT_LINT1, LVT_ERROR, LVT_COUNT };

#define LVT_ACTIVE_LOW (1u << 13)
#define LVT_REMOTE_IRR (1u << 14)
#define LVT_LEVEL (1u << 15)
#define LVT_MASKED (1u << 16)
#define LVT_DELIVERY(lvt) (((lvt) >> 8) & 7)

enum { TIMER_ONESHOT, TIMER_PERIODIC, TIMER_DEADLINE }; /* LVT timer, bits 18:17 */

#define SVR_ENABLE (1u << 8)
#define SVR_NO_EOI_BROADCAST (1u << 12)

#define ESR_REDIRECTABLE (1u << 4)
#define ESR_SEND_VECTOR (1u << 5)
#define ESR_RECEIVE_VECTOR (1u << 6)
#define ESR_REGISTER (1u << 7)

/* Version 0x14, six LVT entries (the last is number 5), EOI broadcast can be suppressed. */
#define LAPIC_VERSION (0x14u | (LVT_COUNT - 1) << 16 | 1u << 24)

struct lapic {
    struct lapics *set;
    unsigned id;

    /* Any thread. irr_top is an upper bound of the highest bit in irr; 0: none. */
    _Atomic uint32_t irr[8], tmr[8];
    _Atomic uint32_t irr_top;
    _Atomic uint32_t esr_new;       /* errors since ESR was last written */
    _Atomic uint8_t error_told;     /* they have interrupted: not again before ESR is written */
    _Atomic uint8_t extint_message; /* an ExtINT message waits for its INTA cycle */

    /* Written by the vCPU's thread, read by any. */
    _Atomic uint32_t mode; /* enum lapic_mode */
    _Atomic uint32_t ldr, dfr, svr, ppr;
    _Atomic uint32_t lvt[LVT_COUNT];
    _Atomic bool extint_open; /* derived: the PIC's output reaches this processor */

    /* The vCPU's thread. */
    uint32_t isr[8];
    uint32_t tpr, esr, icr_low, icr_high;
    uint64_t base; /* IA32_APIC_BASE without the bits that `mode` stands for */

    /* Under lock: the count was timer_base_count at VM time timer_base_ns. */
    pthread_mutex_t lock;
    struct timer *timer;
    uint32_t timer_initial, timer_divide, timer_base_count;
    uint8_t timer_running; /* bool; saved, so no type with forbidden values */
    uint64_t timer_base_ns;
    uint64_t timer_deadline; /* IA32_TSC_DEADLINE; 0: not armed */
};

struct lapics {
    struct dev_env *env;
    unsigned cpus;
    bool x2apic;
    uint32_t bus_hz;
    uint64_t base_mask; /* the bits of IA32_APIC_BASE that are an address */
    const struct vcpu_signal_ops *signals;
    void *signals_ctx;
    _Atomic uint32_t arbiter;     /* where the search for a lowest priority begins */
    _Atomic uint8_t extint_level; /* the PIC's output; no state, the router knows it */
    struct lapic *cpu;            /* [cpus] */
};

/* lapic.c */
int lapic_highest(const uint32_t bits[8]); /* 0: none; vectors below 16 do not occur */
uint32_t lapic_highest_irr(struct lapic *a);
void lapic_update_ppr(struct lapic *a);
void lapic_update_gates(struct lapic *a);
void lapic_post(struct lapic *a, uint8_t vector, bool level);
void lapic_error(struct lapic *a, uint32_t esr_bit);
void lapic_lvt_fire(struct lapic *a, unsigned entry);
void lapic_lint0_check(struct lapic *a); /* level-triggered LINT0: a request, if it is time */
void lapic_ipi(struct lapic *a, uint32_t low, uint32_t dest);
void lapic_eoi(struct lapic *a);
void lapic_retry(struct lapic *a); /* signals the vCPU if something is deliverable now */
bool lapic_pending(struct lapic *a);
void lapic_clear(struct lapic *a); /* the state after INIT, but for the mode */
void lapic_guest_error(struct lapic *a, const char *what, uint64_t value);

/* lapic_regs.c */
uint64_t lapic_mmio_read(void *ctx, unsigned cpu, unsigned offset, unsigned size);
void lapic_mmio_write(void *ctx, unsigned cpu, unsigned offset, unsigned size, uint64_t value);
int lapic_msr_read(void *ctx, unsigned cpu, uint32_t msr, uint64_t *value);
int lapic_msr_write(void *ctx, unsigned cpu, uint32_t msr, uint64_t value);
uint32_t lapic_x2apic_ldr(unsigned id);

/* lapic_timer.c; all take the lock, but lapic_timer_fired, which the queue calls with it held. */
void lapic_timer_fired(void *lapic);
void lapic_timer_stop(struct lapic *a);
void lapic_timer_set_lvt(struct lapic *a, uint32_t value);
void lapic_timer_set_initial(struct lapic *a, uint32_t value);
void lapic_timer_set_divide(struct lapic *a, uint32_t value);
uint32_t lapic_timer_current(struct lapic *a);
uint64_t lapic_timer_get_deadline(struct lapic *a);
void lapic_timer_set_deadline(struct lapic *a, uint64_t tsc);
/* The timer as a whole; `stop`: it ends there, at the very count that is given. */
struct lapic_timer_state {
    uint32_t lvt, divide, initial, current;
    uint64_t deadline;
};
void lapic_timer_get(struct lapic *a, bool stop, struct lapic_timer_state *out);
void lapic_timer_put(struct lapic *a, const struct lapic_timer_state *in);

/* lapic_page.c: the APIC as its page has it, to look at; and lapic_cpu_ops.take and put. */
void lapic_page_read(struct lapic *a, bool stop, struct lapic_page *out);
void lapic_page_take(void *ctx, unsigned cpu, struct lapic_page *out);
void lapic_page_put(void *ctx, unsigned cpu, const struct lapic_page *in);

#endif
