/*
 * What mktables.c makes of decode.tab, and how decode.c reads it: a row per encoding and, from each
 * opcode, a small tree of choices that leads to the row. Read-only data; any thread.
 */
#ifndef X86_DECODE_TABLES_H
#define X86_DECODE_TABLES_H

#include <stdint.h>

/* A choice's dimension; the first number in the node, followed by one child per value. */
enum x86_dim {
    X86_DIM_PP,   /* mandatory prefix: none 66 F3 F2 */
    X86_DIM_MODE, /* 64-bit mode or not */
    X86_DIM_MOD,  /* ModRM.mod is 3 or not */
    X86_DIM_REG,
    X86_DIM_RM,
    X86_DIM_W,
    X86_DIM_L, /* vector length 16, 32, 64 or reserved */
    X86_DIM_B, /* REX.B */
    X86_DIM_COUNT
};

#define X86_AT_LOCK 0x00001u   /* LOCK allowed with a memory destination */
#define X86_AT_SHIFT 0x00002u  /* a count of zero leaves the flags alone */
#define X86_AT_CC 0x00004u     /* the opcode's low bits are a condition */
#define X86_AT_D64 0x00008u    /* operand size 8 in 64-bit mode unless 66 says 2 */
#define X86_AT_F64 0x00010u    /* operand size 8 in 64-bit mode */
#define X86_AT_SP 0x00020u     /* pushes or pops */
#define X86_AT_REP 0x00040u    /* repeats under F3 and F2 */
#define X86_AT_BR 0x00080u     /* X86_CLASS_BRANCH */
#define X86_AT_SYS 0x00100u    /* X86_CLASS_SYSTEM */
#define X86_AT_MODREG 0x00200u /* ModRM.mod is taken for 3 */
#define X86_AT_BC4 0x00400u    /* EVEX.b broadcasts a 4-byte element */
#define X86_AT_BC8 0x00800u
#define X86_AT_ER 0x02000u       /* EVEX.b with a register: rounding in L'L */
#define X86_AT_SAE 0x04000u      /* EVEX.b with a register: no exceptions */
#define X86_AT_NOK 0x08000u      /* no EVEX mask */
#define X86_AT_RK 0x10000u       /* the mask must not be k0 */
#define X86_AT_NOZ 0x20000u      /* no EVEX.z */
#define X86_AT_LIG 0x40000u      /* vector length does not matter */
#define X86_AT_VS4 0x80000u      /* indexed elements of 4 bytes */
#define X86_AT_VS8 0x100000u     /* and of 8 */
#define X86_AT_NOVVVV 0x200000u  /* EVEX, VEX: vvvv must be 1111 */
#define X86_AT_SIB 0x400000u     /* needs a SIB byte */
#define X86_AT_DIST 0x800000u    /* vector or tile operands must differ */
#define X86_AT_L1AVX2 0x2000000u /* AVX2 at length 32 */
#define X86_AT_BLEND 0x40000000u /* the mask chooses; nothing of the destination stays */
/* disp8 counts elements of this size, not the whole operand */
#define X86_AT_ELEM1 0x4000000u
#define X86_AT_ELEM2 0x8000000u
#define X86_AT_ELEM4 0x10000000u
#define X86_AT_ELEM8 0x20000000u

/* As in decode.tab: addressing letter and size letter. Fixed registers: '$' rAX, '%' CL, '&' DX,
 * '#' segment register with its number as size, '1' the constant. */
struct x86_spec {
    char addr, size;
};

struct x86_row {
    uint32_t attr;
    uint16_t op;
    uint16_t access; /* two bits for each operand, the first lowest */
    struct x86_spec opnd[5];
    uint16_t gpr_read, gpr_written; /* implicit */
    uint8_t feature;
    uint8_t flags; /* in x86_flagsets */
};

struct x86_flagset {
    uint32_t read, written, undefined;
};

extern const struct x86_row x86_rows[];
extern const struct x86_flagset x86_flagsets[];

/* Root of each opcode: 0 none, below 0x8000 a row, else a node at that index less 0x8000. */
extern const uint16_t x86_roots[3][4][256];
extern const uint8_t x86_has_modrm[3][4][256];
extern const uint16_t x86_nodes[];

#endif
