/*
 * The host-CPU oracle: random instructions run on the host and in the soft engine from the same
 * state, in the same address space layout; everything a program can see must come out equal.
 *
 * Linear addresses, in the child process as in the guest (all else is unmapped):
 *
 *     ORACLE_CODE  slots of 64 bytes, one for each case; INT3 behind and before the instructions
 *     ORACLE_DATA  two writable pages, then one without access, then a read-only page
 *     ORACLE_PROG  two pages that hold a program, or zeros: readable, writable, executable; holes
 *                  around them
 *
 * A single case is one to four instructions in its slot of ORACLE_CODE; a program is longer, has
 * branches and loops, and writes into itself.
 */
#ifndef TESTS_CPU_ORACLE_H
#define TESTS_CPU_ORACLE_H

#include <stdbool.h>
#include <stdint.h>

#include "x86/cpuid.h"
#include "x86/decode.h"
#include "x86/state.h"

#define ORACLE_CODE 0x10000000ull
#define ORACLE_CODE_SIZE 0x200000ull
#define ORACLE_SLOT 64u
#define ORACLE_SLOTS (32u * ORACLE_SLOTS16) /* so that no two of a batch share one */
#define ORACLE_SHIFT 44u /* of the first slot; every 64th lies across a page boundary */
#define ORACLE_LEAD 8u   /* at least so many bytes of INT3 before the first instruction */
#define ORACLE_LEAD_MAX 20u
#define ORACLE_DATA 0x20000000ull
#define ORACLE_DATA_SIZE 0x2000u
#define ORACLE_RO 0x20003000ull
#define ORACLE_WINDOW                                                                              \
    0xe00u /* the part of the data pages with contents, across the page boundary */
#define ORACLE_WINDOW_SIZE 0x400u
#define ORACLE_SINGLES 4u
#define ORACLE_PROG 0x20005000ull
#define ORACLE_PROG_SIZE 0x2000u
#define ORACLE_STATE_AREA 0x100u /* of the data pages, where programs save FPU state; aligned */
#define ORACLE_STATE_ENV 0x380u  /* from there, FNSTENV's and FNSAVE's images */
#define ORACLE_INSNS 64u

struct oracle_state {
    uint64_t gpr[16], rip, rflags;
    uint8_t fx[512]; /* FXSAVE image */
    uint8_t ymm[256];
    uint64_t fs_base, gs_base; /* if the host has FSGSBASE */
};

struct oracle_case {
    uint64_t seed, addr; /* addr: linear, of the first instruction */
    bool program;
    bool compat; /* 32-bit code in compatibility mode */
    bool small;  /* 16-bit code and data segments, and compat */
    uint64_t cs_base, ds_base;
    unsigned slot_number; /* the place in a run decides where a single case lies */
    uint64_t slot;        /* linear */
    unsigned len;         /* bytes from addr on; a program's subroutines may lie elsewhere */
    uint8_t code[48];     /* of a single case */
    uint8_t prog[ORACLE_PROG_SIZE];
    unsigned count;
    struct x86_insn insn[ORACLE_INSNS];
    uint64_t off[ORACLE_INSNS]; /* from addr; of a subroutine it may be negative */
    bool keep[ORACLE_INSNS];    /* of a program: what shrinking must not take out */
    uint64_t state_ea;          /* where FXSAVE and its like write, 0 if none */
    bool state_area;            /* the program writes to ORACLE_STATE_AREA */
    struct oracle_state in;
    uint8_t window[ORACLE_WINDOW_SIZE];
};

struct oracle_result {
    struct oracle_state out;
    uint32_t vector, error;
    uint64_t cr2;
    uint8_t data[ORACLE_DATA_SIZE];
    uint8_t prog[ORACLE_PROG_SIZE];
};

#define ORACLE_TIMEOUT 0xffu /* as vector: never came to an end */
#define ORACLE_FAILED 0xfeu  /* the engine gave up */
#define ORACLE_SYSCALL 0xfdu /* the host's system calls are not for cases */

enum oracle_class {
    OC_INT,
    OC_BIT,
    OC_MULDIV,
    OC_STRING,
    OC_STACK,
    OC_BRANCH,
    OC_ATOMIC,
    OC_BMI,
    OC_X87,
    OC_MMX,
    OC_SSE,
    OC_AVX,
    OC_SYSTEM,
    OC_STATE,
    OC_OWN,     /* values that belong to the processor: time, randomness, FS and GS bases */
    OC_OLD,     /* not in 64-bit mode */
    OC_CLASSES, /* of instructions */
    OC_PROGRAM = OC_CLASSES,
    OC_COUNT
};
extern const char *const oracle_class_name[OC_COUNT];

/* The class, or OC_COUNT for what is not tested: not the same on both sides, or not for users. */
enum oracle_class oracle_classify(const struct x86_insn *in);

/* Does it give another value every time? It ends a case. */
bool oracle_random(const struct x86_insn *in);
/* Both sides have the instruction, and mean the same by it. */
bool oracle_allowed(const struct x86_insn *in, const bool feature[X86_FEAT_HIDDEN + 1]);

/* What both sides can execute. */
void oracle_features(bool feature[X86_FEAT_HIDDEN + 1]);

/*
 * Makes the case that belongs to seed. only: a class, or OC_COUNT for any; bits: the narrowest code
 * that may be, 16, 32 or 64.
 */
void oracle_generate(struct oracle_case *c, uint64_t seed, unsigned slot, enum oracle_class only,
                     unsigned bits, const bool feature[X86_FEAT_HIDDEN + 1]);
enum x86_mode oracle_mode(const struct oracle_case *c);

/* Selectors of user code, as Linux has them. */
#define ORACLE_CS64 0x33u
#define ORACLE_CS32 0x23u
#define ORACLE_SS 0x2bu
/* 16-bit segments in the LDT */
#define ORACLE_CS16 0x07u
#define ORACLE_DS16 0x0fu
#define ORACLE_CSP16 0x17u /* of a program: data and code lie in one segment of 64 KiB */
#define ORACLE_DS16_BASE (ORACLE_DATA - 0x8000)
#define ORACLE_SLOTS16 (0x10000u / ORACLE_SLOT - 1)

/*
 * The narrowest code that the host executes: 16, 32 or 64 bits. A kernel may lack segments of 16
 * bits, and a virtual machine whose kernel is in ring 3 has segments of 64 bits alone.
 */
unsigned oracle_host_bits(void);

/* Whether programs may use RDFSBASE and the like, for which the kernel has to be ready. */
bool oracle_host_fsgsbase(void);

/* The host. open maps memory shared with the children; run forks one for n cases. */
struct oracle_host;
struct oracle_host *oracle_host_open(unsigned batch);
/* Whether a case may begin with an RSP that is not canonical: not every hypervisor loads it. */
bool oracle_host_any_rsp(struct oracle_host *h);
struct oracle_result *oracle_host_run(struct oracle_host *h, const struct oracle_case *c,
                                      unsigned n);

/* The soft engine. */
struct oracle_soft;
struct oracle_soft *oracle_soft_open(const bool feature[X86_FEAT_HIDDEN + 1], bool interpret);
bool oracle_soft_interprets(const struct oracle_soft *s);
const bool *oracle_soft_features(const struct oracle_soft *s);
void oracle_soft_load(struct oracle_soft *s, const struct oracle_case *c, unsigned n);
void oracle_soft_run(struct oracle_soft *s, const struct oracle_case *c, struct oracle_result *r);
/*
 * The same instruction by instruction: calls step before each until it says false. False: they are
 * too many, or one cannot be decoded.
 */
typedef bool (*oracle_step)(void *ctx, const struct x86_insn *in, const struct x86_state *st);
bool oracle_soft_trace(struct oracle_soft *s, const struct oracle_case *c, oracle_step step,
                       void *ctx);
void oracle_soft_close(struct oracle_soft *s);

/* ---- oracle_offered.c, oracle_msr.c: what CPUID offers is covered ---- */

#define ORACLE_OFFERED_MAX 128u
void oracle_offered_count(uint64_t count[ORACLE_OFFERED_MAX], const struct x86_insn *in);
/*
 * count: instructions compared for each entry of the table; feature: what the host has. tests:
 * meson's list of tests, source: the folder tests/. Prints what is wrong; how much that is.
 */
unsigned oracle_offered_check(const uint64_t count[ORACLE_OFFERED_MAX],
                              const bool feature[X86_FEAT_HIDDEN + 1], const char *tests,
                              const char *source);
bool oracle_msr_check(const char *name);

/* ---- oracle_compare.c ---- */

enum oracle_verdict {
    ORACLE_SAME,
    ORACLE_DIFFERENT,
    ORACLE_UNSPECIFIED, /* the manuals do not say, or no processor's outcome is the standard */
};

/* soft is the engine, to run a program once more where it matters. print: what differs. */
enum oracle_verdict oracle_compare(struct oracle_soft *engine, const struct oracle_case *c,
                                   struct oracle_result *host, struct oracle_result *soft,
                                   bool print);
/* Instructions that read flags which are undefined make the rest of a single case meaningless. */
bool oracle_meaningful(const struct oracle_case *c);
void oracle_show_case(const struct oracle_case *c);
void oracle_show_input(const struct oracle_case *c);

#endif
