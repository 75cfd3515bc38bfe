/*
 * The host-CPU oracle: random instructions run on the host and in the soft engine from the same
 * state, in the same address space layout; everything a program can see must come out equal.
 *
 * Linear addresses, in the child process as in the guest (all else is unmapped):
 *
 *     ORACLE_CODE  slots of 64 bytes, one for each case; INT3 behind and before the instructions
 *     ORACLE_DATA  two writable pages, then a hole of one page, then a read-only page
 */
#ifndef TESTS_CPU_ORACLE_H
#define TESTS_CPU_ORACLE_H

#include <stdbool.h>
#include <stdint.h>

#include "x86/cpuid.h"
#include "x86/decode.h"

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
#define ORACLE_INSNS 4u

struct oracle_state {
    uint64_t gpr[16], rip, rflags;
    uint8_t fx[512]; /* FXSAVE image */
    uint8_t ymm[256];
};

struct oracle_case {
    uint64_t seed, addr; /* addr: linear, of the first instruction */
    bool compat;         /* 32-bit code in compatibility mode */
    bool small;          /* 16-bit code and data segments, and compat */
    uint64_t cs_base, ds_base;
    uint64_t slot; /* linear */
    uint8_t code[48];
    unsigned len, count;
    struct x86_insn insn[ORACLE_INSNS];
    unsigned off[ORACLE_INSNS + 1];
    uint64_t state_ea; /* where FXSAVE and its like write, 0 if none */
    struct oracle_state in;
    uint8_t window[ORACLE_WINDOW_SIZE];
};

struct oracle_result {
    struct oracle_state out;
    uint32_t vector, error;
    uint64_t cr2;
    uint8_t data[ORACLE_DATA_SIZE];
};

#define ORACLE_TIMEOUT 0xffu /* as vector: never came to an end */
#define ORACLE_FAILED 0xfeu  /* the engine gave up */

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
    OC_OLD,
    OC_COUNT
};
extern const char *const oracle_class_name[OC_COUNT];

/* What both sides can execute. */
void oracle_features(bool feature[X86_FEAT_HIDDEN + 1]);

/* Makes the case that belongs to seed. only: a class, or OC_COUNT for any; small: 16 bits may be.
 */
void oracle_generate(struct oracle_case *c, uint64_t seed, unsigned slot, enum oracle_class only,
                     bool small, const bool feature[X86_FEAT_HIDDEN + 1]);

/* Selectors of user code, as Linux has them. */
#define ORACLE_CS64 0x33u
#define ORACLE_CS32 0x23u
#define ORACLE_SS 0x2bu
/* 16-bit segments in the LDT */
#define ORACLE_CS16 0x07u
#define ORACLE_DS16 0x0fu
#define ORACLE_DS16_BASE (ORACLE_DATA - 0x8000)
#define ORACLE_SLOTS16 (0x10000u / ORACLE_SLOT - 1)

/* Can 16-bit segments be made on this host? */
bool oracle_host_has_ldt(void);

/* The host. open maps memory shared with the children; run forks one for n cases. */
struct oracle_host;
struct oracle_host *oracle_host_open(unsigned batch);
struct oracle_result *oracle_host_run(struct oracle_host *h, const struct oracle_case *c,
                                      unsigned n);

/* The soft engine. */
struct oracle_soft;
struct oracle_soft *oracle_soft_open(const bool feature[X86_FEAT_HIDDEN + 1]);
void oracle_soft_load(struct oracle_soft *s, const struct oracle_case *c, unsigned n);
void oracle_soft_run(struct oracle_soft *s, const struct oracle_case *c, struct oracle_result *r);
void oracle_soft_close(struct oracle_soft *s);

#endif
