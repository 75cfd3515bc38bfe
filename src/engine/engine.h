/*
 * An engine runs guest instructions: soft, kvm, hvf, null. One small interface for all.
 *
 * vm_* on the thread that builds the VM. run, get, set on the vCPU's own thread (get and set on any
 * thread while the VM is paused). kick from any thread, async: run returns soon, or does not begin.
 * The engine calls bus_read/bus_write and the local APIC itself and completes the instruction;
 * vcpu_exit is for what the VM must decide.
 */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"
#include "base/log.h"
#include "bus/bus.h"
#include "bus/irq.h"
#include "mem/gmem.h"
#include "x86/cpuid.h"
#include "x86/state.h"

enum vcpu_exit_reason {
    VCPU_EXIT_INTERRUPTED, /* kicked; nothing happened */
    VCPU_EXIT_BUDGET,      /* as many instructions as asked have run */
    VCPU_EXIT_HLT,         /* halted; state's mp_state says so; interrupts may be off */
    VCPU_EXIT_SHUTDOWN,    /* triple fault */
    VCPU_EXIT_PIO,         /* nothing claims the port (strictio); completed as all ones */
    VCPU_EXIT_MMIO,        /* nothing claims the address; completed as all ones */
    VCPU_EXIT_MSR,         /* unknown MSR, #GP not yet raised; see .msr */
    VCPU_EXIT_DEBUG,       /* breakpoint or single step that the debugger asked for */
    VCPU_EXIT_PAUSE,       /* vmexit_on_pause */
    VCPU_EXIT_EMULATE,     /* this engine cannot run the next instruction; another may; .insn */
    VCPU_EXIT_FAIL,        /* the engine cannot go on; .text says why */
};

struct vcpu_exit {
    enum vcpu_exit_reason reason;
    uint64_t rip;
    union {
        struct {
            uint64_t addr;
            uint8_t size;
            bool write;
            uint64_t value;
        } io;
        struct {
            uint32_t index;
            bool write;
            uint64_t value;
        } msr;
        struct {
            uint8_t len; /* bytes known; 0: none */
            uint8_t bytes[15];
        } insn;
    };
    bool interrupts_off; /* HLT with IF = 0 */
    char text[256];      /* FAIL: what, RIP, bytes */
};

struct engine_env {
    struct log *log;
    struct gmem *mem;
    struct bus *bus;
    struct irq_router *irqs;
    const struct lapic_cpu_ops *lapic; /* NULL: none (nolapic boards, null engine) */
    void *lapic_ctx;
    const struct x86_cpuid *cpuid; /* frozen table, borrowed */
    unsigned cpus;
    bool strict_msr; /* unknown MSRs raise #GP; else read 0, drop writes */
    bool strict_io;  /* exit on unclaimed ports */
    bool exit_on_pause;
    bool interpret;        /* soft: no translated code */
    bool check;            /* soft: translator and interpreter in lock-step */
    bool count;            /* soft: count every instruction, also in translated code */
    const char *jit_cache; /* soft: a directory where translations are kept; NULL: they are not */
    unsigned jit_worth;    /* as many new ones are worth writing it */
    bool perf_map;         /* soft: a map of translated code for the host's perf */
    /*
     * soft: the vCPU is another engine's, and here for a few instructions. What that one may know
     * and soft does not (an MSR, an instruction) ends the run with VCPU_EXIT_EMULATE.
     */
    bool visiting;
    const struct kvm_sys *kvm; /* kvm: NULL is the host's device */
    /* FERR#: an x87 error waits that CR0.NE = 0 reports by the board's IRQ 13. NULL: not wired. */
    void (*ferr)(void *ctx, unsigned cpu);
    void *ferr_ctx;
};

#define ENGINE_CAP_LAPIC 1u /* has its own local APIC */
#define ENGINE_CAP_STEP 2u  /* can single-step: run(budget) is exact */

/* Counters since creation, for --stats and benchmarks. */
struct vcpu_stats {
    uint64_t instructions, blocks, tlb_misses, pio, mmio, exceptions, interrupts, halts;
};

struct engine_ops {
    const char *name;
    const char *summary;
    unsigned caps;
    /*
     * 0 if this host can; otherwise -errno, and why not and what would change it; -ENOENT: the host
     * has nothing of the kind. choose: nobody has asked for this engine, so one that would be
     * slower than the next in the table says so, too. Of env only log and kvm are there yet.
     */
    int (*probe)(const struct engine_env *env, bool choose, struct error *err);
    /*
     * Fits the CPU model to what this engine can run, before the VM is made; env->cpuid is not
     * there yet. NULL: it runs all that x86_cpuid_create offers.
     */
    int (*cpuid)(const struct engine_env *env, const char *model, struct x86_cpuid *c,
                 struct error *err);
    int (*vm_create)(const struct engine_env *env, void **vm, struct error *err);
    void (*vm_destroy)(void *vm);
    int (*vcpu_create)(void *vm, unsigned id, void **vcpu, struct error *err);
    void (*vcpu_destroy)(void *vcpu);
    void (*get)(void *vcpu, struct x86_state *out);
    int (*set)(void *vcpu, const struct x86_state *in, struct error *err);
    /* Runs until an exit; budget: at most that many instructions, 0 = no limit. */
    int (*run)(void *vcpu, uint64_t budget, struct vcpu_exit *exit);
    void (*kick)(void *vcpu);
    /* `lapic->pending` may have become true: look before the next instruction. Any thread. */
    void (*interrupt)(void *vcpu);
    void (*nmi)(void *vcpu);     /* any thread */
    uint64_t (*tsc)(void *vcpu); /* guest TSC now; any thread */
    /* A20M#: with open false, physical address bit 20 reads as zero. Any thread, async. */
    void (*a20)(void *vm, bool open);
    /* IGNNE#: the board has seen FERR#; x87 errors are ignored until they are cleared. Any thread.
     */
    void (*ignne)(void *vm);
    void (*stats)(void *vcpu, struct vcpu_stats *out);
    /* Prints what the engine counts beside that, for a person. NULL: nothing. */
    void (*report)(void *vcpu, FILE *to);
};

/* NULL-terminated, in order of preference for "auto". */
extern const struct engine_ops *const engine_table[];

#endif
