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

/* A debugger's breakpoints, beside the guest's own. */
enum vcpu_break { VCPU_BREAK_NONE, VCPU_BREAK_EXEC, VCPU_BREAK_WRITE, VCPU_BREAK_ACCESS };

#define VCPU_BREAKS 4u
struct vcpu_debug {
    bool step; /* after one instruction, with what it made of interrupts or exceptions */
    struct vcpu_breakpoint {
        uint8_t kind;  /* enum vcpu_break; EXEC before the instruction, the others after it */
        uint8_t len;   /* bytes: 1, 2, 4, 8; 1 for EXEC */
        uint64_t addr; /* linear, a multiple of len */
    } point[VCPU_BREAKS];
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
            bool step;
            uint8_t points; /* a bit for each of struct vcpu_debug's that was hit */
        } debug;
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
    bool board_lapic;          /* kvm: the board's local APICs, not the kernel's */
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
    /*
     * After vcpu_create and before the first run. tsc_hz: how many times a second this vCPU's TSC
     * counts, 0: the engine does not know. settled: the frequency in env->cpuid is the last one.
     * NULL: it does not know; it does not mind.
     */
    uint64_t (*tsc_hz)(void *vcpu);
    int (*settled)(void *vcpu, struct error *err);
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
    /*
     * For an engine whose local APICs are its own, or may be: the vCPU's goes back to the board's
     * (env->lapic), for whoever runs or saves it there. The next run() takes it in again. On the
     * vCPU's thread, or while it is paused. NULL: it has none.
     */
    int (*lapic_home)(void *vcpu);
    /*
     * The log of the pages that vCPUs write, on or off; any thread. NULL: the engine keeps none.
     * dirty_take is for gmem_log_take, which makes the union with what others write: it sets the
     * bits of range n of gmem_range(), from the last call or `dirty` on.
     */
    int (*dirty)(void *vm, bool on, struct error *err);
    int (*dirty_take)(void *vm, unsigned n, uint64_t *bits, size_t words);
    /*
     * What a debugger wants from the next run() on; all zeros: nothing. While there is a breakpoint
     * or a step, run ends with VCPU_EXIT_DEBUG when the guest comes to it, and the guest's own
     * debug registers read as they were set, but do not act. NULL: the engine cannot. -EINVAL with
     * a sentence: no processor has such a breakpoint. On the vCPU's thread.
     */
    int (*debug)(void *vcpu, const struct vcpu_debug *want, struct error *err);
    void (*stats)(void *vcpu, struct vcpu_stats *out);
    /* Prints what the engine counts beside that, for a person. NULL: nothing. */
    void (*report)(void *vcpu, FILE *to);
};

/* NULL-terminated, in order of preference for "auto". */
extern const struct engine_ops *const engine_table[];

#endif
