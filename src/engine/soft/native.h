/*
 * What native.c, native_emit.c, native_mask.c and fpu.c share: x87, MMX, SSE and AVX of the soft
 * engine. st.xsave's components are always valid in the standard format, whatever its XSTATE_BV
 * says; instructions executed here set the bits.
 *
 * On the vCPU's own thread, but for native_xinuse.
 */
#ifndef ENGINE_SOFT_NATIVE_H
#define ENGINE_SOFT_NATIVE_H

#include <string.h>

#include "engine/soft/cpu.h"

#define N_FP 0x01u        /* raises MXCSR's exceptions */
#define N_X87 0x02u       /* an x87 instruction */
#define N_CTL 0x04u       /* x87 control: leaves the last instruction's pointers alone */
#define N_NOWAIT 0x08u    /* does not look for pending x87 exceptions */
#define N_UNALIGNED 0x10u /* legacy SSE with a 16-byte operand at any address */
#define N_ALIGNED 0x20u   /* VEX, and the operand must be aligned nevertheless */
/* computed, not in the table */
#define N_MMX 0x40u /* uses MMX registers: switches the x87 unit to MMX */
#define N_AVX 0x80u /* VEX */
#define N_LOAD 0x100u
#define N_STORE 0x200u
#define N_INIT 0x400u /* FNINIT: clears the pointers */

#define FX_FCW 0u
#define FX_FSW 2u
#define FX_FTW 4u
#define FX_FOP 6u
#define FX_FIP 8u
#define FX_FDP 16u
#define FX_MXCSR 24u
#define FX_ST 32u
#define FX_XMM 160u
#define FX_SIZE 512u

#define MXCSR_DEFAULT 0x1f80u
#define MXCSR_FLAGS 0x3fu
#define MXCSR_UE 0x0010u
#define MXCSR_UM 0x0800u
#define MXCSR_FTZ 0x8000u
#define FCW_DEFAULT 0x037fu
#define FSW_TOP 0x3800u
#define FSW_ES 0x0080u
#define FSW_CODES 0x45u /* C0, C2, C3 in the upper byte */
#define FSW_B 0x8000u

#define XFEATURE_X87 1u
#define XFEATURE_SSE 2u
#define XFEATURE_YMM X86_XCR0_YMM
#define XFEATURE_PKRU X86_XCR0_PKRU

/* Where a stub finds its memory operand and leaves what is not guest state. */
struct native_buf {
    _Alignas(64) uint8_t mem[64];
    _Alignas(64) uint8_t fx[FX_SIZE];
    uint32_t mxcsr_host, mxcsr_in, mxcsr_out;
    uint32_t stop; /* MXCSR flags that keep the result from being stored */
    uint16_t fcw_host;
};

/* p0..p3: the guest's copies of the registers that the instruction names, in native_code's order.
 */
typedef void (*native_fn)(struct soft_cpu *cpu, struct native_buf *buf, void *p0, void *p1,
                          void *p2, void *p3);

struct native_stub {
    native_fn fn;
    uint16_t flags;   /* N_* */
    uint8_t mem_size; /* bytes, 0 if no memory operand */
    uint8_t align;    /* mask its linear address must not meet */
    uint16_t fop;     /* x87: what FOP holds afterwards */
    uint8_t code_size;
    uint32_t hash;
    const uint8_t *code;
    struct native_stub *next;
};

#define NATIVE_STUB_MAX 240u

/* A stub's text, and the guest registers it is called with. */
struct native_code {
    uint8_t text[NATIVE_STUB_MAX];
    unsigned size;
    bool overflow;
    uint8_t
        slot[4]; /* offsets in struct soft_cpu of p0..p3, in units of 8; dst src cc rep of uop */
    unsigned slots;
};

/* Makes the stub of an instruction in the table. False: its form cannot be run natively. */
bool native_emit(const struct x86_insn *insn, const uint8_t *bytes, unsigned flags,
                 struct native_code *out);

/* N_* of an operation that may run natively; false: it may not. */
bool native_flags(unsigned op, unsigned *flags);

/* Can this host execute the feature? Filled once for each vCPU. */
void native_host_features(bool feature[X86_FEAT_HIDDEN + 1]);

/* The handlers in C. NULL if there is none. */
uop_fn fpu_handler(const struct x86_insn *insn, struct uop *u);
uop_fn native_mask_handler(const struct x86_insn *insn, struct uop *u);

/* ---- checks before an instruction; each returns or raises ---- */

void native_need_x87(struct soft_cpu *cpu);        /* #NM, #MF */
void native_need_x87_nowait(struct soft_cpu *cpu); /* #NM */
void native_need_mmx(struct soft_cpu *cpu);        /* #UD, #NM, #MF */
void native_need_sse(struct soft_cpu *cpu);        /* #UD, #NM */
void native_need_avx(struct soft_cpu *cpu);        /* #UD, #NM */
void native_pending_x87(struct soft_cpu *cpu);     /* #MF if an unmasked exception is pending */

/* ---- the image ---- */

static inline uint16_t fx_get16(const struct soft_cpu *cpu, unsigned off)
{
    uint16_t v;

    __builtin_memcpy(&v, cpu->st.xsave + off, sizeof(v));
    return v;
}

static inline void fx_set16(struct soft_cpu *cpu, unsigned off, uint16_t v)
{
    __builtin_memcpy(cpu->st.xsave + off, &v, sizeof(v));
}

static inline uint32_t fx_get32(const struct soft_cpu *cpu, unsigned off)
{
    uint32_t v;

    __builtin_memcpy(&v, cpu->st.xsave + off, sizeof(v));
    return v;
}

static inline void fx_set32(struct soft_cpu *cpu, unsigned off, uint32_t v)
{
    __builtin_memcpy(cpu->st.xsave + off, &v, sizeof(v));
}

static inline uint64_t fx_get64(const struct soft_cpu *cpu, unsigned off)
{
    uint64_t v;

    __builtin_memcpy(&v, cpu->st.xsave + off, sizeof(v));
    return v;
}

static inline void fx_set64(struct soft_cpu *cpu, unsigned off, uint64_t v)
{
    __builtin_memcpy(cpu->st.xsave + off, &v, sizeof(v));
}

/* Changes FSW. Images hold the registers in the stack's order, so a new TOP moves them. */
void native_set_fsw(struct soft_cpu *cpu, uint16_t fsw);

/* Tells other readers of the image that these components are not in their initial state. */
static inline void fx_touch(struct soft_cpu *cpu, uint32_t features)
{
    fx_set64(cpu, X86_XSAVE_HDR, fx_get64(cpu, X86_XSAVE_HDR) | features);
}

/* A VEX instruction has written vector register `reg`: AVX-512's part of it is zero. */
static inline void native_wide_written(struct soft_cpu *cpu, unsigned reg)
{
    if (unlikely((cpu->st.xcr0 & X86_XCR0_AVX512) != 0))
        memset(cpu->st.xsave + X86_XSAVE_ZMM_HI + 32u * reg, 0, 32);
}

/* Bits a guest may set in MXCSR. */
uint32_t native_mxcsr_mask(const struct soft_cpu *cpu);

/* XINUSE (XGETBV with ECX = 1, less XCR0's mask): components that differ from their initial state.
 */
uint64_t native_xinuse(const struct soft_cpu *cpu);

#endif
