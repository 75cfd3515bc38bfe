/* The record's fields that the interpreter relies on, by hand; tests/cpu has the bulk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "x86/decode.h"

#define CF (1u << 0)
#define ZF (1u << 6)
#define DF (1u << 10)
#define RAX (1u << 0)
#define RCX (1u << 1)
#define RBX (1u << 3)
#define RSP (1u << 4)

/* Decodes all the given bytes as one instruction. */
static struct x86_insn decode(enum x86_mode mode, const uint8_t *code, size_t len)
{
    struct x86_insn i;

    assert_int_equal(x86_decode(code, len, mode, &i), len);
    assert_int_equal(i.len, len);
    assert_int_equal(i.mode, mode);
    return i;
}

static int result(enum x86_mode mode, const uint8_t *code, size_t len)
{
    struct x86_insn i;

    return x86_decode(code, len, mode, &i);
}

#define BYTES(...) (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})
#define D16(...) decode(X86_MODE_16, BYTES(__VA_ARGS__))
#define D32(...) decode(X86_MODE_32, BYTES(__VA_ARGS__))
#define D64(...) decode(X86_MODE_64, BYTES(__VA_ARGS__))
#define R16(...) result(X86_MODE_16, BYTES(__VA_ARGS__))
#define R32(...) result(X86_MODE_32, BYTES(__VA_ARGS__))
#define R64(...) result(X86_MODE_64, BYTES(__VA_ARGS__))

static void is_reg(const struct x86_opnd *op, unsigned rclass, unsigned reg, unsigned size)
{
    assert_int_equal(op->kind, X86_OPND_REG);
    assert_int_equal(op->rclass, rclass);
    assert_int_equal(op->reg, reg);
    assert_int_equal(op->size, size);
}

static void is_mem(const struct x86_opnd *op, unsigned size, unsigned access)
{
    assert_int_equal(op->kind, X86_OPND_MEM);
    assert_int_equal(op->size, size);
    assert_int_equal(op->access, access);
}

static void operand_size(void **state)
{
    (void)state;
    assert_int_equal(D16(0x40).osize, 2);
    assert_int_equal(D16(0x66, 0x40).osize, 4);
    assert_int_equal(D32(0x40).osize, 4);
    assert_int_equal(D32(0x66, 0x40).osize, 2);
    assert_int_equal(D64(0x01, 0xc0).osize, 4);
    assert_int_equal(D64(0x66, 0x01, 0xc0).osize, 2);
    assert_int_equal(D64(0x48, 0x01, 0xc0).osize, 8);
    assert_int_equal(D64(0x66, 0x48, 0x01, 0xc0).osize, 8);
    /* A REX that a prefix follows does not count. */
    assert_int_equal(D64(0x48, 0x66, 0x01, 0xc0).osize, 2);
    assert_int_equal(D64(0x48, 0x66, 0x01, 0xc0).rex, 0);
    /* Default 64 */
    assert_int_equal(D64(0x50).osize, 8);
    assert_int_equal(D64(0x66, 0x50).osize, 2);
    assert_int_equal(D64(0x9c).osize, 8);
    assert_int_equal(D64(0xc9).osize, 8);
    assert_int_equal(D64(0xff, 0x30).osize, 8);
    assert_int_equal(D64(0xff, 0x30).opnd[0].size, 8);
    /* Forced 64: 66 is ignored on near branches */
    assert_int_equal(D64(0xc3).osize, 8);
    assert_int_equal(D64(0x66, 0xc3).osize, 8);
    assert_int_equal(D64(0x66, 0xe8, 1, 2, 3, 4).osize, 8);
    assert_int_equal(D64(0x0f, 0x20, 0xc0).osize, 8);
    assert_int_equal(D32(0x66, 0x0f, 0x20, 0xc0).osize, 4);
    /* Far returns keep 32 */
    assert_int_equal(D64(0xcf).osize, 4);
    assert_int_equal(D64(0x48, 0xcf).osize, 8);
    assert_int_equal(D64(0xcb).osize, 4);
}

static void address(void **state)
{
    struct x86_insn i;

    (void)state;
    i = D64(0x8b, 0x44, 0x8b, 0xf0); /* mov eax, [rbx+rcx*4-16] */
    assert_int_equal(i.asize, 8);
    assert_int_equal(i.base, 3);
    assert_int_equal(i.index, 1);
    assert_int_equal(i.scale, 4);
    assert_int_equal(i.disp, -16);
    assert_int_equal(i.seg, X86_DS);
    assert_int_equal(i.off_sib, 2);
    assert_int_equal(i.off_disp, 3);
    assert_int_equal(i.gpr_read, RBX | RCX);
    assert_int_equal(i.gpr_written, RAX);
    is_mem(&i.opnd[1], 4, X86_ACC_R);
    i = D64(0x67, 0x8b, 0x04, 0x24); /* [esp] */
    assert_int_equal(i.asize, 4);
    assert_int_equal(i.base, 4);
    assert_int_equal(i.index, X86_REG_NONE);
    assert_int_equal(i.seg, X86_SS);
    i = D64(0x8b, 0x05, 0x00, 0x00, 0x00, 0x80); /* [rip-2G] */
    assert_int_equal(i.base, X86_REG_RIP);
    assert_int_equal(i.disp, INT32_MIN);
    i = D32(0x8b, 0x05, 0x00, 0x00, 0x00, 0x80); /* [0x80000000] */
    assert_int_equal(i.base, X86_REG_NONE);
    assert_int_equal(D64(0x8b, 0x45, 0x00).seg, X86_SS);
    i = D64(0x41, 0x8b, 0x45, 0x00); /* r13 is no SS base */
    assert_int_equal(i.base, 13);
    assert_int_equal(i.seg, X86_DS);
    i = D64(0x42, 0x8b, 0x04, 0x23); /* r12 may be an index */
    assert_int_equal(i.index, 12);
    i = D16(0x8b, 0x42, 0xff); /* [bp+si-1] */
    assert_int_equal(i.asize, 2);
    assert_int_equal(i.base, 5);
    assert_int_equal(i.index, 6);
    assert_int_equal(i.disp, -1);
    assert_int_equal(i.seg, X86_SS);
    i = D16(0x8b, 0x06, 0x34, 0x12); /* [0x1234] */
    assert_int_equal(i.base, X86_REG_NONE);
    assert_int_equal(i.disp, 0x1234);
    assert_int_equal(i.seg, X86_DS);
}

static void segments(void **state)
{
    (void)state;
    assert_int_equal(D32(0x2e, 0x8b, 0x00).seg, X86_CS);
    assert_int_equal(D32(0x26, 0x8b, 0x45, 0x00).seg, X86_ES);
    assert_int_equal(D64(0x2e, 0x8b, 0x00).seg, X86_DS); /* ignored */
    assert_int_equal(D64(0x2e, 0x8b, 0x04, 0x24).seg, X86_SS);
    assert_int_equal(D64(0x64, 0x8b, 0x00).seg, X86_FS);
    assert_int_equal(D64(0x64, 0x3e, 0x8b, 0x00).seg, X86_FS); /* 3E ignored */
    assert_int_equal(D32(0x64, 0x65, 0x8b, 0x00).seg, X86_GS); /* last one */
    assert_int_equal(D32(0x64, 0xd7).seg, X86_FS);             /* XLAT, no operand shown */
    assert_int_equal(D32(0x64, 0xaa).seg, X86_ES);             /* STOS has no choice */
}

static void byte_registers(void **state)
{
    struct x86_insn i;

    (void)state;
    i = D64(0x88, 0xe0); /* mov al, ah */
    is_reg(&i.opnd[0], X86_RC_GPR, 0, 1);
    is_reg(&i.opnd[1], X86_RC_GPRH, 0, 1);
    assert_int_equal(i.gpr_read, RAX);
    i = D64(0x40, 0x88, 0xe0); /* mov al, spl */
    is_reg(&i.opnd[1], X86_RC_GPR, 4, 1);
    assert_int_equal(i.gpr_read, RAX | RSP); /* RAX keeps its upper bytes */
    i = D64(0xb7, 0x12);                     /* mov bh, 0x12 */
    is_reg(&i.opnd[0], X86_RC_GPRH, 3, 1);
    assert_int_equal(i.gpr_written, RBX);
}

static void strings(void **state)
{
    struct x86_insn i;

    (void)state;
    i = D64(0xf3, 0x48, 0xa5);
    assert_int_equal(i.op, X86_MOVS);
    assert_int_equal(i.rep, 0xf3);
    assert_int_equal(i.opnd[0].size, 8);
    assert_int_equal(i.seg, X86_DS);
    assert_int_equal(i.cls, X86_CLASS_SYSTEM);
    assert_int_equal(i.flags_read, DF);
    assert_int_not_equal(i.gpr_written & RCX, 0);
    i = D32(0x65, 0xa4);
    assert_int_equal(i.rep, 0);
    assert_int_equal(i.seg, X86_GS);
    assert_int_equal(i.opnd[0].size, 1);
    assert_int_equal(D64(0xf3, 0xf2, 0xae).rep, 0xf2); /* the last one counts */
    assert_int_equal(D64(0xf2, 0x66, 0xaf).opnd[0].size, 2);
    assert_int_equal(D16(0x6f).opnd[0].size, 2);
    assert_int_equal(D64(0x48, 0x6d).opnd[0].size, 4); /* no 64-bit ports */
    assert_int_equal(D64(0xf3, 0x01, 0xc0).rep, 0);    /* not a string instruction */
}

static void immediates(void **state)
{
    struct x86_insn i;

    (void)state;
    i = D64(0x48, 0x83, 0xc0, 0xff);
    assert_true(i.imm == ~0ull);
    i = D64(0x48, 0x05, 0x00, 0x00, 0x00, 0x80);
    assert_true(i.imm == 0xffffffff80000000ull);
    i = D64(0x66, 0x05, 0x00, 0x80);
    assert_int_equal(i.imm_size, 2);
    assert_true(i.imm == 0xffffffffffff8000ull);
    i = D64(0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8);
    assert_true(i.imm == 0x0807060504030201ull);
    assert_int_equal(i.imm_size, 8);
    assert_int_equal(i.off_imm, 2);
    i = D64(0x68, 0xff, 0xff, 0xff, 0xff);
    assert_true(i.imm == ~0ull);
    i = D64(0xc8, 0x34, 0x12, 0x05); /* enter */
    assert_int_equal(i.op, X86_ENTER);
    assert_int_equal(i.imm, 0x1234);
    assert_int_equal(i.imm2, 5);
    assert_int_equal(i.imm_size, 2);
    assert_int_equal(i.imm2_size, 1);
    i = D64(0xeb, 0xfe);
    assert_int_equal(i.opnd[0].kind, X86_OPND_REL);
    assert_true((int64_t)i.imm == -2);
    i = D16(0xe9, 0x00, 0x80);
    assert_true((int64_t)i.imm == -32768);
    i = D64(0xc2, 0xff, 0xff);
    assert_int_equal(i.imm, 0xffff); /* unsigned */
    i = D64(0xd1, 0xe0);             /* shl eax, 1: no byte holds the count */
    assert_int_equal(i.imm, 1);
    assert_int_equal(i.imm_size, 0);
}

static void moffs(void **state)
{
    struct x86_insn i;

    (void)state;
    i = D64(0xa0, 1, 2, 3, 4, 5, 6, 7, 0x88);
    assert_int_equal(i.op, X86_MOV);
    assert_int_equal(i.base, X86_REG_NONE);
    assert_true((uint64_t)i.disp == 0x8807060504030201ull);
    is_mem(&i.opnd[1], 1, X86_ACC_R);
    i = D64(0x67, 0xa3, 0xff, 0xff, 0xff, 0xff);
    assert_true(i.disp == 0xffffffff); /* an address, not an offset */
    is_mem(&i.opnd[0], 4, X86_ACC_W);
    i = D16(0x26, 0xa1, 0x34, 0x12);
    assert_int_equal(i.disp, 0x1234);
    assert_int_equal(i.seg, X86_ES);
}

static void far_pointers(void **state)
{
    struct x86_insn i;

    (void)state;
    i = D16(0xea, 0x34, 0x12, 0x78, 0x56);
    assert_int_equal(i.op, X86_JMPF);
    assert_int_equal(i.opnd[0].kind, X86_OPND_FAR);
    assert_int_equal(i.imm, 0x1234);
    assert_int_equal(i.imm2, 0x5678);
    i = D32(0x9a, 1, 0, 0, 0x80, 0x78, 0x56);
    assert_int_equal(i.op, X86_CALLF);
    assert_true(i.imm == 0x80000001);
    assert_int_equal(i.imm2, 0x5678);
    assert_int_equal(R64(0xea, 1, 2, 3, 4, 5, 6), X86_DECODE_INVALID);
    is_mem(&D16(0xff, 0x2f).opnd[0], 4, X86_ACC_R);
    is_mem(&D64(0xff, 0x2f).opnd[0], 6, X86_ACC_R);
    is_mem(&D64(0x48, 0xff, 0x1f).opnd[0], 10, X86_ACC_R);
    assert_int_equal(R64(0xff, 0xef), X86_DECODE_INVALID);
    i = D32(0xc4, 0x07);
    assert_int_equal(i.op, X86_LES);
    is_mem(&i.opnd[1], 6, X86_ACC_R);
}

static void lock(void **state)
{
    (void)state;
    assert_int_equal(R64(0xf0, 0x01, 0x00), 3);
    assert_int_equal(R64(0xf0, 0x01, 0xc0), X86_DECODE_INVALID); /* register */
    assert_int_equal(R64(0xf0, 0x03, 0x00), X86_DECODE_INVALID); /* memory is the source */
    assert_int_equal(R64(0xf0, 0x39, 0x00), X86_DECODE_INVALID); /* cmp */
    assert_int_equal(R64(0xf0, 0x89, 0x00), X86_DECODE_INVALID); /* mov */
    assert_int_equal(R64(0xf0, 0x0f, 0xba, 0x20, 0), X86_DECODE_INVALID);
    assert_int_equal(R64(0xf0, 0x0f, 0xba, 0x28, 0), 5);
    assert_int_equal(R64(0xf0, 0x0f, 0xb1, 0x0a), 4);
    assert_int_equal(R64(0xf0, 0x0f, 0xc7, 0x09), 4);
    assert_int_equal(R64(0xf0, 0x87, 0x00), 3);
    assert_int_equal(R64(0xf0, 0xc5, 0xf8, 0x77), X86_DECODE_INVALID);
    assert_int_not_equal(D64(0xf0, 0x01, 0x00).prefixes & X86_PFX_LOCK, 0);
}

static void ends(void **state)
{
    uint8_t code[20];

    (void)state;
    memset(code, 0x66, sizeof(code));
    assert_int_equal(result(X86_MODE_64, code, 0), X86_DECODE_MORE);
    assert_int_equal(result(X86_MODE_64, code, 14), X86_DECODE_MORE);
    assert_int_equal(result(X86_MODE_64, code, 15), X86_DECODE_TOOLONG);
    code[14] = 0x90;
    assert_int_equal(result(X86_MODE_64, code, 15), 15);
    assert_int_equal(result(X86_MODE_64, code, sizeof(code)), 15);
    code[14] = 0xb0; /* its immediate would be the 16th byte */
    assert_int_equal(result(X86_MODE_64, code, sizeof(code)), X86_DECODE_TOOLONG);
    assert_int_equal(R64(0x48), X86_DECODE_MORE);
    assert_int_equal(R64(0x0f), X86_DECODE_MORE);
    assert_int_equal(R64(0x0f, 0x38), X86_DECODE_MORE);
    assert_int_equal(R64(0x8b), X86_DECODE_MORE);
    assert_int_equal(R64(0x8b, 0x04), X86_DECODE_MORE);
    assert_int_equal(R64(0x8b, 0x80, 1, 2, 3), X86_DECODE_MORE);
    assert_int_equal(R64(0xc4, 0xe2), X86_DECODE_MORE);
    assert_int_equal(R32(0xc5), X86_DECODE_MORE);
    assert_int_equal(R64(0x62, 0xf1, 0x7c), X86_DECODE_MORE);
}

static void overloaded(void **state)
{
    struct x86_insn i;

    (void)state;
    assert_int_equal(D64(0x90).op, X86_NOP);
    assert_int_equal(D64(0xf3, 0x90).op, X86_PAUSE);
    i = D64(0x41, 0x90);
    assert_int_equal(i.op, X86_XCHG);
    is_reg(&i.opnd[0], X86_RC_GPR, 8, 4);
    assert_int_equal(D64(0xf3, 0xc3).pp, 0); /* a prefix without meaning */
    assert_int_equal(D64(0xf3, 0x0f, 0x10, 0xc0).pp, 2);
    assert_int_equal(D64(0xf3, 0x0f, 0x1e, 0xfa).op, X86_NOP); /* ENDBR64 */
    assert_int_equal(D64(0x0f, 0xbc, 0xc0).op, X86_BSF);
    assert_int_equal(D64(0xf3, 0x0f, 0xbc, 0xc0).op, X86_TZCNT);
    assert_int_equal(D64(0x66, 0xf3, 0x0f, 0xbd, 0xc0).op, X86_LZCNT);
    assert_int_equal(D64(0xf3, 0x0f, 0xb8, 0xc0).op, X86_POPCNT);
    assert_int_equal(R64(0x0f, 0xb8, 0xc0), X86_DECODE_INVALID);
    i = D64(0x66, 0x0f, 0x38, 0xf1, 0x00);
    assert_int_equal(i.op, X86_MOVBE);
    assert_int_equal(i.opnd[0].size, 2);
    i = D64(0x66, 0xf2, 0x0f, 0x38, 0xf1, 0x00);
    assert_int_equal(i.op, X86_CRC32);
    assert_int_equal(i.opnd[1].size, 2);
    assert_int_equal(D64(0x66, 0x0f, 0x38, 0xf6, 0xc0).op, X86_ADCX);
    assert_int_equal(D64(0xf3, 0x0f, 0x38, 0xf6, 0xc0).op, X86_ADOX);
    assert_int_equal(D64(0x63, 0xc0).op, X86_MOVSXD);
    assert_int_equal(D32(0x63, 0xc0).op, X86_ARPL);
    assert_int_equal(D64(0x48, 0x0f, 0xc7, 0x0f).op, X86_CMPXCHG16B);
    assert_int_equal(D64(0x0f, 0xc7, 0x0f).op, X86_CMPXCHG8B);
    assert_int_equal(D32(0x62, 0x00).op, X86_BOUND);
    assert_int_equal(D64(0x0f, 0x01, 0xf8).op, X86_SWAPGS);
    assert_int_equal(D64(0x0f, 0x01, 0xc8).op, X86_MONITOR);
    assert_int_equal(R64(0x0f, 0x0f, 0xc0, 0x9e), X86_DECODE_INVALID); /* 3DNow! */
    assert_int_equal(R64(0x8e, 0xc8), X86_DECODE_INVALID);             /* mov cs, ax */
    assert_int_equal(R64(0x0f, 0x20, 0xc8), X86_DECODE_INVALID);       /* CR1 */
    assert_int_equal(D64(0x44, 0x0f, 0x20, 0xc0).opnd[1].reg, 8);
}

static void ports_and_segments(void **state)
{
    struct x86_insn i;

    (void)state;
    i = D64(0xec);
    is_reg(&i.opnd[0], X86_RC_GPR, 0, 1);
    is_reg(&i.opnd[1], X86_RC_GPR, 2, 2);
    i = D64(0x66, 0xe7, 0x80);
    assert_int_equal(i.imm, 0x80);
    is_reg(&i.opnd[1], X86_RC_GPR, 0, 2);
    i = D64(0x0f, 0xa8);
    is_reg(&i.opnd[0], X86_RC_SEG, X86_GS, 2);
    i = D32(0x8c, 0xd8);
    is_reg(&i.opnd[0], X86_RC_GPR, 0, 4);
    is_reg(&i.opnd[1], X86_RC_SEG, X86_DS, 2);
    is_mem(&D32(0x8c, 0x18).opnd[0], 2, X86_ACC_W);
    is_mem(&D64(0x0f, 0x01, 0x10).opnd[0], 10, X86_ACC_R);
    is_mem(&D32(0x0f, 0x01, 0x10).opnd[0], 6, X86_ACC_R);
}

static void classes(void **state)
{
    struct x86_insn i;

    (void)state;
    assert_int_equal(D64(0x01, 0xc0).cls, X86_CLASS_VERBATIM);
    assert_int_equal(D64(0x01, 0x00).cls, X86_CLASS_MEMORY);
    assert_int_equal(D64(0x0f, 0x58, 0x00).cls, X86_CLASS_MEMORY);
    assert_int_equal(D64(0x50).cls, X86_CLASS_SYSTEM);
    assert_int_equal(D64(0xc3).cls, X86_CLASS_BRANCH);
    assert_int_equal(D64(0x0f, 0x05).cls, X86_CLASS_BRANCH);
    assert_int_equal(D64(0xec).cls, X86_CLASS_SYSTEM);
    assert_int_equal(D64(0x0f, 0xae, 0x00).cls, X86_CLASS_SYSTEM);
    assert_int_equal(D64(0x0f, 0xa3, 0xc1).cls, X86_CLASS_VERBATIM);
    assert_int_equal(D64(0x0f, 0xa3, 0x01).cls,
                     X86_CLASS_SYSTEM); /* may reach beyond its operand */
    assert_int_equal(D64(0x0f, 0xba, 0x21, 0x1f).cls, X86_CLASS_MEMORY);
    i = D64(0x8d, 0x04, 0x19); /* lea eax, [rcx+rbx] */
    assert_int_equal(i.cls, X86_CLASS_VERBATIM);
    is_mem(&i.opnd[1], 4, 0);
    assert_int_equal(i.gpr_read, RCX | RBX);
    assert_int_equal(D64(0x0f, 0x1f, 0x00).opnd[0].access, 0);
}

static void flags(void **state)
{
    struct x86_insn i;

    (void)state;
    i = D64(0x11, 0xc0);
    assert_int_equal(i.flags_read, CF);
    assert_int_equal(i.flags_written, 0x8d5);
    i = D64(0x74, 0x00);
    assert_int_equal(i.flags_read, ZF);
    assert_int_equal(i.flags_written, 0);
    i = D64(0x0f, 0x47, 0xc0); /* cmova */
    assert_int_equal(i.flags_read, CF | ZF);
    i = D64(0xff, 0xc0);
    assert_int_equal(i.flags_written, 0x8d4);
    i = D64(0xd3, 0xe0); /* a count of zero keeps the flags */
    assert_int_equal(i.flags_read, 0x8d5);
    assert_int_equal(D64(0xc1, 0xe0, 3).flags_read, 0);
    assert_int_equal(D64(0xc1, 0xe0, 32).flags_read, 0x8d5);
}

static void vectors(void **state)
{
    struct x86_insn i;

    (void)state;
    i = D64(0xc4, 0xc1, 0x74, 0x58, 0x40, 0x20); /* vaddps ymm0, ymm1, [r8+0x20] */
    assert_int_equal(i.enc, X86_ENC_VEX);
    assert_int_equal(i.vl, 32);
    is_reg(&i.opnd[0], X86_RC_VEC, 0, 32);
    is_reg(&i.opnd[1], X86_RC_VEC, 1, 32);
    is_mem(&i.opnd[2], 32, X86_ACC_R);
    assert_int_equal(i.base, 8);
    i = D64(0xc4, 0xe2, 0x69, 0x90, 0x04, 0x88); /* vpgatherdd xmm0, [rax+xmm1*4], xmm2 */
    assert_true(i.vsib);
    assert_int_equal(i.index, 1);
    assert_int_equal(i.gpr_read, RAX);
    is_mem(&i.opnd[1], 4, X86_ACC_R);
    i = D64(0x62, 0xf1, 0x7c, 0x49, 0x58, 0x40, 0x01); /* vaddps zmm0{k1}, zmm0, [rax+64] */
    assert_int_equal(i.enc, X86_ENC_EVEX);
    assert_int_equal(i.vl, 64);
    assert_int_equal(i.evex_aaa, 1);
    assert_int_equal(i.disp, 64);
    assert_int_equal(i.feature, X86_FEAT_AVX512);
    i = D64(0x62, 0xf1, 0x7c, 0x58, 0x58, 0x40, 0x01); /* {1to16} */
    assert_true(i.evex_b);
    assert_int_equal(i.disp, 4);
    is_mem(&i.opnd[2], 4, X86_ACC_R);
}

static void text(void **state)
{
    static const struct {
        uint8_t code[12];
        const char *text;
    } cases[] = {
        {{0x8b, 0x43, 0x10}, "mov eax, dword ptr [rbx+0x10]"},
        {{0xf0, 0x48, 0x0f, 0xb1, 0x0a}, "lock cmpxchg qword ptr [rdx], rcx"},
        {{0x74, 0xfe}, "jz 0x1000"},
        {{0xf3, 0xa4}, "rep movs byte ptr es:[rdi], byte ptr [rsi]"},
        {{0x64, 0xff, 0x24, 0xcd, 0xf0, 0xff, 0xff, 0xff}, "jmp qword ptr fs:[rcx*8-0x10]"},
        {{0x83, 0xc0, 0xff}, "add eax, 0xffffffff"},
        {{0x88, 0xe0}, "mov al, ah"},
        {{0xc5, 0xf4, 0x58, 0xc2}, "vaddps ymm0, ymm1, ymm2"},
    };
    struct x86_insn i;
    char buf[64];

    (void)state;
    for (unsigned n = 0; n < countof(cases); n++) {
        assert_true(x86_decode(cases[n].code, sizeof(cases[n].code), X86_MODE_64, &i) > 0);
        assert_int_equal(x86_format(&i, 0x1000, buf, sizeof(buf)), strlen(cases[n].text));
        assert_string_equal(buf, cases[n].text);
    }
    assert_int_equal(x86_format(&i, 0, buf, 7), strlen(cases[countof(cases) - 1].text));
    assert_string_equal(buf, "vaddps");
    assert_string_equal(x86_op_name(X86_CALLF), "call far");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(operand_size), cmocka_unit_test(address),
        cmocka_unit_test(segments),     cmocka_unit_test(byte_registers),
        cmocka_unit_test(strings),      cmocka_unit_test(immediates),
        cmocka_unit_test(moffs),        cmocka_unit_test(far_pointers),
        cmocka_unit_test(lock),         cmocka_unit_test(ends),
        cmocka_unit_test(overloaded),   cmocka_unit_test(ports_and_segments),
        cmocka_unit_test(classes),      cmocka_unit_test(flags),
        cmocka_unit_test(vectors),      cmocka_unit_test(text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
