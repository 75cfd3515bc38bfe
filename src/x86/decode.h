/*
 * The x86 instruction decoder: bytes in, one plain record out. Table-driven, every map (one-byte,
 * 0F, 0F38, 0F3A, VEX, EVEX) and every mode. It knows the instruction, not the processor: what
 * CPUID hides or what the mode forbids at run time is the executor's to refuse.
 *
 * Pure functions without state; any thread. Follows the Intel SDM Vol.2 (opcode maps), with
 * Intel's choice where vendors differ (operand-size prefix on near branches in 64-bit mode is
 * ignored).
 */
#ifndef X86_DECODE_H
#define X86_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum x86_op {
    X86_INVALID,
#define OP(id, name) X86_##id,
#include "x86/ops.def"
#undef OP
    X86_OP_COUNT
};

enum x86_map { X86_MAP_ONE, X86_MAP_0F, X86_MAP_0F38, X86_MAP_0F3A };
enum x86_enc { X86_ENC_LEGACY, X86_ENC_VEX, X86_ENC_EVEX };

/* Code segment's default size. */
enum x86_mode { X86_MODE_16, X86_MODE_32, X86_MODE_64 };

enum x86_seg { X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS, X86_SEG_COUNT };

enum x86_opnd_kind {
    X86_OPND_NONE,
    X86_OPND_REG, /* .rclass, .reg */
    X86_OPND_MEM, /* address in insn.base/index/scale/disp/seg/asize */
    X86_OPND_IMM, /* insn.imm, or insn.imm2 for the second immediate */
    X86_OPND_REL, /* branch: insn.imm is the displacement from the next instruction */
    X86_OPND_FAR, /* insn.imm2 : insn.imm, selector and offset */
};

enum x86_reg_class {
    X86_RC_GPR,  /* reg 0-15; size 1 means the low byte */
    X86_RC_GPRH, /* AH CH DH BH as reg 0-3, size 1 */
    X86_RC_SEG,  /* enum x86_seg */
    X86_RC_CR,
    X86_RC_DR,
    X86_RC_ST,
    X86_RC_MMX,
    X86_RC_VEC, /* xmm, ymm, zmm by size 16, 32, 64; reg 0-31 */
    X86_RC_K,
    X86_RC_OTHER, /* bound, tile */
};

#define X86_ACC_R 1u /* operand is read */
#define X86_ACC_W 2u /* operand is written (a conditional write counts) */

struct x86_opnd {
    uint8_t kind;   /* enum x86_opnd_kind */
    uint8_t rclass; /* enum x86_reg_class */
    uint8_t reg;
    uint8_t access; /* X86_ACC_*; LEA's and NOP's memory operand has 0 */
    uint16_t size;  /* bytes; far pointers 4, 6, 10; 0 where the size is not fixed (XSAVE) */
};

#define X86_REG_NONE 0xff
#define X86_REG_RIP 0x10 /* as insn.base */

#define X86_PFX_LOCK 0x01u
#define X86_PFX_REP 0x02u   /* F3 is among the prefixes */
#define X86_PFX_REPNE 0x04u /* F2 is among the prefixes */
#define X86_PFX_OPSIZE 0x08u
#define X86_PFX_ADDRSIZE 0x10u
#define X86_PFX_SEG 0x20u
#define X86_PFX_REX 0x40u

enum x86_class {
    X86_CLASS_VERBATIM, /* touches GPRs, flags, vector registers only */
    X86_CLASS_MEMORY,   /* verbatim but for one explicit memory operand */
    X86_CLASS_BRANCH,   /* changes RIP; ends a block */
    X86_CLASS_SYSTEM,   /* needs a C handler (strings, stack, ports, system) */
};

/* CPUID feature an instruction belongs to; BASE is always there. */
enum x86_feature {
    X86_FEAT_BASE,
    X86_FEAT_X87,
    X86_FEAT_CMOV,
    X86_FEAT_MMX,
    X86_FEAT_FXSR,
    X86_FEAT_SSE,
    X86_FEAT_SSE2,
    X86_FEAT_SSE3,
    X86_FEAT_SSSE3,
    X86_FEAT_SSE41,
    X86_FEAT_SSE42,
    X86_FEAT_SSE4A,
    X86_FEAT_POPCNT,
    X86_FEAT_LZCNT,
    X86_FEAT_MOVBE,
    X86_FEAT_AES,
    X86_FEAT_PCLMUL,
    X86_FEAT_SHA,
    X86_FEAT_GFNI,
    X86_FEAT_VAES,
    X86_FEAT_VPCLMUL,
    X86_FEAT_XSAVE,
    X86_FEAT_XSAVEOPT,
    X86_FEAT_XSAVEC,
    X86_FEAT_XSAVES,
    X86_FEAT_AVX,
    X86_FEAT_AVX2,
    X86_FEAT_FMA,
    X86_FEAT_F16C,
    X86_FEAT_BMI1,
    X86_FEAT_BMI2,
    X86_FEAT_ADX,
    X86_FEAT_RDRAND,
    X86_FEAT_RDSEED,
    X86_FEAT_FSGSBASE,
    X86_FEAT_RDTSCP,
    X86_FEAT_RDPID,
    X86_FEAT_CLFLUSHOPT,
    X86_FEAT_CLWB,
    X86_FEAT_SMAP,
    X86_FEAT_INVPCID,
    X86_FEAT_PKU,
    X86_FEAT_CX16,
    X86_FEAT_MONITOR,
    X86_FEAT_TSX,
    X86_FEAT_AVXVNNI,
    X86_FEAT_AVX512,
    X86_FEAT_HIDDEN /* never offered to a guest */,
};

struct x86_insn {
    uint16_t op;      /* enum x86_op */
    uint8_t len;      /* 1-15 bytes */
    uint8_t mode;     /* enum x86_mode it was decoded for */
    uint8_t enc;      /* enum x86_enc */
    uint8_t map;      /* enum x86_map */
    uint8_t opcode;   /* last opcode byte */
    uint8_t cls;      /* enum x86_class */
    uint8_t feature;  /* enum x86_feature */
    uint8_t prefixes; /* X86_PFX_* seen */
    uint8_t pp;       /* mandatory prefix in force: 0 none, 1 66, 2 F3, 3 F2 (VEX.pp too) */
    uint8_t rex;      /* W R X B as bits 3 2 1 0, true polarity, from REX, VEX or EVEX */
    uint8_t rep;   /* 0, 0xF3 or 0xF2 where it repeats a string instruction; the last one counts */
    uint8_t osize; /* effective operand size 2, 4, 8 (after defaults to 64 in 64-bit mode) */
    uint8_t asize; /* effective address size 2, 4, 8 */
    uint8_t seg;   /* effective segment of the memory operand (SS for BP/SP bases) */
    bool has_modrm;
    uint8_t modrm; /* raw byte; reg and rm below are extended by REX/VEX/EVEX */
    uint8_t reg, rm;
    uint8_t base, index; /* GPR number, X86_REG_RIP or X86_REG_NONE; index may be a vector (VSIB) */
    uint8_t scale;       /* 1, 2, 4, 8 */
    bool vsib;
    uint8_t vvvv;     /* VEX/EVEX second source, true polarity */
    uint8_t vl;       /* vector length 16, 32, 64; 0 for legacy */
    uint8_t evex_aaa; /* mask register */
    bool evex_z, evex_b;
    /* byte offsets from the instruction's start; 0 where the part is absent (opcode: never) */
    uint8_t off_opcode, off_modrm, off_sib, off_disp, off_imm;
    uint8_t disp_size, imm_size, imm2_size; /* bytes */
    uint8_t opnd_count;                     /* explicit operands in Intel order, then none */
    struct x86_opnd opnd[5];
    int64_t disp;      /* sign-extended (EVEX: scaled by N); moffs is here, with base none */
    uint64_t imm;      /* sign-extended where the instruction does so */
    uint64_t imm2;     /* ENTER's level, far selector, EXTRQ/INSERTQ's second byte */
    uint32_t gpr_read; /* bit n: GPR n, implicit and address registers included */
    uint32_t gpr_written;
    uint32_t flags_read;    /* RFLAGS bits */
    uint32_t flags_written; /* defined result; includes bits forced to 0 or 1 */
    uint32_t flags_undefined;
};

#define X86_MAX_LEN 15u

#define X86_DECODE_MORE (-1)    /* the bytes end inside the instruction */
#define X86_DECODE_INVALID (-2) /* #UD; len holds the bytes looked at */
#define X86_DECODE_TOOLONG (-3) /* over 15 bytes: #GP */

/*
 * Decodes the instruction at code[0..avail). Returns its length (1-15) or X86_DECODE_*. LOCK on an
 * instruction or operand that does not allow it is INVALID. In mode 16 and 32 the instructions that
 * exist only outside real mode decode; the executor refuses them.
 */
int x86_decode(const uint8_t *code, size_t avail, enum x86_mode mode, struct x86_insn *out);

/* The operation's mnemonic, static storage. */
const char *x86_op_name(enum x86_op op);

/*
 * Writes Intel-syntax text ("mov eax, [rbx+0x10]") into buf, always terminated; rip is the
 * instruction's own address, for relative targets. Returns the length it would have had.
 */
int x86_format(const struct x86_insn *insn, uint64_t rip, char *buf, size_t size);

#endif
