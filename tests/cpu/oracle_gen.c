/*
 * Random cases: bytes shaped like an instruction of the wanted class, decoded, and then a state in
 * which it does something: addresses that meet the data pages, small counts, interesting numbers.
 */
#include <cpuid.h>
#include <string.h>

#include "base/bits.h"
#include "engine/soft/native.h"
#include "oracle.h"

const char *const oracle_class_name[OC_COUNT] = {
    [OC_INT] = "int",       [OC_BIT] = "bit",       [OC_MULDIV] = "muldiv", [OC_STRING] = "string",
    [OC_STACK] = "stack",   [OC_BRANCH] = "branch", [OC_ATOMIC] = "atomic", [OC_BMI] = "bmi",
    [OC_X87] = "x87",       [OC_MMX] = "mmx",       [OC_SSE] = "sse",       [OC_AVX] = "avx",
    [OC_SYSTEM] = "system", [OC_STATE] = "state",   [OC_OLD] = "old",
};

struct rng {
    uint64_t s;
};

/* splitmix64 */
static uint64_t next(struct rng *r)
{
    uint64_t z = r->s += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static unsigned below(struct rng *r, unsigned n)
{
    return (unsigned)(next(r) >> 33) % n;
}

static bool chance(struct rng *r, unsigned percent)
{
    return below(r, 100) < percent;
}

void oracle_features(bool f[X86_FEAT_HIDDEN + 1])
{
    uint32_t a = 0, b = 0, c = 0, d = 0, b7 = 0, c7 = 0, d7 = 0, cx = 0, dx = 0;

    native_host_features(f);
    __get_cpuid(1, &a, &b, &c, &d);
    __get_cpuid_count(7, 0, &a, &b7, &c7, &d7);
    __get_cpuid(0x80000001, &a, &b, &cx, &dx);
    f[X86_FEAT_POPCNT] = (c >> 23 & 1) != 0;
    f[X86_FEAT_MOVBE] = (c >> 22 & 1) != 0;
    f[X86_FEAT_CX16] = (c >> 13 & 1) != 0;
    f[X86_FEAT_LZCNT] = (cx >> 5 & 1) != 0;
    f[X86_FEAT_BMI1] = (b7 >> 3 & 1) != 0;
    f[X86_FEAT_BMI2] = (b7 >> 8 & 1) != 0;
    f[X86_FEAT_ADX] = (b7 >> 19 & 1) != 0;
    f[X86_FEAT_SMAP] = (b7 >> 20 & 1) != 0;
    f[X86_FEAT_CLFLUSHOPT] = (b7 >> 23 & 1) != 0;
    f[X86_FEAT_CLWB] = (b7 >> 24 & 1) != 0;
}

/* ---- which instructions ---- */

static bool vector_operand(const struct x86_insn *in)
{
    unsigned i;

    for (i = 0; i < in->opnd_count; i++)
        if (in->opnd[i].kind == X86_OPND_REG && in->opnd[i].rclass == X86_RC_VEC)
            return true;
    return false;
}

static bool mmx_operand(const struct x86_insn *in)
{
    unsigned i;

    for (i = 0; i < in->opnd_count; i++)
        if (in->opnd[i].kind == X86_OPND_REG && in->opnd[i].rclass == X86_RC_MMX)
            return true;
    return false;
}

static bool segment_operand(const struct x86_insn *in)
{
    return in->opnd_count > 0 && in->opnd[0].kind == X86_OPND_REG &&
           in->opnd[0].rclass == X86_RC_SEG;
}

/* The class, or OC_COUNT for what is not tested: not the same on both sides, or not for users. */
static enum oracle_class classify(const struct x86_insn *in)
{
    if (in->enc == X86_ENC_EVEX)
        return OC_COUNT;
    if (in->asize == 2 && in->mode == X86_MODE_32) /* these never meet our pages */
        return OC_COUNT;
    switch (in->op) {
    case X86_MOVS:
    case X86_CMPS:
    case X86_STOS:
    case X86_LODS:
    case X86_SCAS:
    case X86_XLAT:
        return OC_STRING;
    case X86_PUSH:
    case X86_POP:
        /* a segment pushed in 32-bit code: AMD writes four bytes, Intel two */
        if (segment_operand(in) && (in->op == X86_POP || in->mode != X86_MODE_64))
            return OC_COUNT;
        return OC_STACK;
    case X86_PUSHF:
    case X86_ENTER:
    case X86_LEAVE:
        return OC_STACK;
    case X86_JMP:
    case X86_CALL:
    case X86_RET:
    case X86_JCC:
    case X86_LOOP:
    case X86_LOOPE:
    case X86_LOOPNE:
    case X86_JCXZ: /* 66 before a near branch is where AMD and Intel differ, F2 and F3 too */
        return (in->prefixes & (X86_PFX_OPSIZE | X86_PFX_REP | X86_PFX_REPNE)) != 0 ? OC_COUNT
                                                                                    : OC_BRANCH;
    case X86_XCHG:
    case X86_XADD:
    case X86_CMPXCHG:
    case X86_CMPXCHG8B:
    case X86_CMPXCHG16B:
        return OC_ATOMIC;
    case X86_MUL:
    case X86_IMUL:
    case X86_DIV:
    case X86_IDIV:
        return OC_MULDIV;
    case X86_BT:
    case X86_BTS:
    case X86_BTR:
    case X86_BTC:
    case X86_BSF:
    case X86_BSR:
    case X86_TZCNT:
    case X86_LZCNT:
    case X86_POPCNT:
    case X86_CRC32:
    case X86_ROL:
    case X86_ROR:
    case X86_RCL:
    case X86_RCR:
    case X86_SHL:
    case X86_SHR:
    case X86_SAR:
    case X86_SHLD:
    case X86_SHRD:
        return OC_BIT;
    case X86_BSWAP: /* of 16 bits: undefined */
        return in->osize == 2 ? OC_COUNT : OC_BIT;
    case X86_ADCX:
    case X86_ADOX:
    case X86_ANDN:
    case X86_BEXTR:
    case X86_BLSI:
    case X86_BLSMSK:
    case X86_BLSR:
    case X86_BZHI:
    case X86_MULX:
    case X86_PDEP:
    case X86_PEXT:
    case X86_RORX:
    case X86_SARX:
    case X86_SHLX:
    case X86_SHRX:
        return OC_BMI;
    case X86_MOV:
        return segment_operand(in) ? OC_COUNT : OC_INT;
    case X86_ADD:
    case X86_OR:
    case X86_ADC:
    case X86_SBB:
    case X86_AND:
    case X86_SUB:
    case X86_XOR:
    case X86_CMP:
    case X86_TEST:
    case X86_INC:
    case X86_DEC:
    case X86_NOT:
    case X86_NEG:
    case X86_MOVSX:
    case X86_MOVZX:
    case X86_MOVBE:
    case X86_MOVNTI:
    case X86_LEA:
    case X86_CMOVCC:
    case X86_SETCC:
    case X86_CBW:
    case X86_CWD:
    case X86_LAHF:
    case X86_SAHF:
    case X86_CMC:
    case X86_CLC:
    case X86_STC:
    case X86_CLD:
    case X86_STD:
        return OC_INT;
    case X86_MOVSXD: /* of 16 bits: AMD reads four bytes */
        return in->osize == 2 ? OC_COUNT : OC_INT;
    case X86_NOP: /* 0D of registers: invalid on AMD */
        return in->map == X86_MAP_0F && in->opcode == 0x0d ? OC_COUNT : OC_INT;
    case X86_PAUSE:
        return OC_INT;
    case X86_CLI:
    case X86_STI:
    case X86_HLT:
    case X86_UD0:
    case X86_UD1:
    case X86_UD2:
    case X86_INVLPG:
    case X86_SWAPGS:
    case X86_CLTS:
    case X86_INVD:
    case X86_WBINVD:
    case X86_MOVCR:
    case X86_MOVDR:
    case X86_LMSW:
    case X86_LLDT:
    case X86_LTR:
    case X86_LGDT:
    case X86_LIDT:
    case X86_RDMSR:
    case X86_WRMSR:
    case X86_IN:
    case X86_OUT:
        return OC_SYSTEM;
    case X86_INS: /* with a count of zero: is the port checked? */
    case X86_OUTS:
        return in->rep != 0 ? OC_COUNT : OC_SYSTEM;
    case X86_LFENCE:
    case X86_MFENCE:
    case X86_SFENCE:
    case X86_PREFETCH:
    case X86_CLFLUSH:
    case X86_STAC:
    case X86_CLAC:
        return OC_SYSTEM;
    case X86_PUSHA:
    case X86_POPA:
    case X86_DAA:
    case X86_DAS:
    case X86_AAA:
    case X86_AAS:
    case X86_AAM:
    case X86_AAD:
    case X86_SALC:
    case X86_BOUND:
    case X86_INTO:
        return OC_OLD;
    case X86_EMMS:
        return OC_MMX;
    case X86_LDMXCSR:
    case X86_STMXCSR:
        return OC_SSE;
    case X86_VLDMXCSR:
    case X86_VSTMXCSR:
    case X86_VZEROUPPER:
    case X86_VZEROALL:
        return OC_AVX;
    case X86_FLDENV:
    case X86_FRSTOR:
    case X86_FWAIT:
        return OC_X87;
    case X86_FNSTENV:
    case X86_FNSAVE:
    case X86_FXSAVE:
    case X86_FXRSTOR:
    case X86_XSAVE:
    case X86_XSAVEC:
    case X86_XSAVEOPT:
    case X86_XSAVES:
    case X86_XRSTOR:
    case X86_XRSTORS:
        return OC_STATE;
    case X86_FENI: /* hints that some processors do not know */
    case X86_FDISI:
    case X86_FSETPM:
    case X86_FSTPNCE:
        return OC_COUNT;
    default:
        break;
    }
    if (in->op < X86_FADD)
        return OC_COUNT;
    if (in->map == X86_MAP_ONE)
        return OC_X87;
    if (mmx_operand(in))
        return OC_MMX;
    if (in->enc == X86_ENC_VEX)
        return OC_AVX;
    return vector_operand(in) ? OC_SSE : OC_COUNT;
}

/* ---- bytes ---- */

static unsigned shape(struct rng *r, enum oracle_class want, bool rex, uint8_t *b)
{
    static const uint8_t pp[] = {0, 0x66, 0xf3, 0xf2};
    unsigned n = 0, i;

    for (i = 0; i < 15; i++)
        b[i] = (uint8_t)(next(r) >> 40);
    if (want == OC_AVX || (want == OC_BMI && chance(r, 80))) {
        unsigned map = want == OC_BMI ? 2 + below(r, 2) : 1 + below(r, 3);

        if (want == OC_AVX && chance(r, 20)) {
            b[n++] = 0xc5;
            b[n] = (uint8_t)((b[n] & 0xfbu) | (rex ? 0 : 0xc0u));
            b[n++] |= chance(r, 50) ? 4 : 0;
        } else {
            b[n++] = 0xc4;
            b[n] = (uint8_t)((b[n] & 0xe0u) | map);
            if (!rex)
                b[n] |= 0xc0;
            else if (chance(r, 50))
                b[n] |= 0x40; /* no index extension */
            n++;
            if (chance(r, 30))
                b[n] |= 0x78; /* vvvv unused */
            n++;
        }
        return n;
    }
    if (chance(r, 3))
        b[n++] = 0x67;
    if (chance(r, want == OC_ATOMIC ? 30 : 2))
        b[n++] = 0xf0;
    if (want == OC_SSE || want == OC_MMX) {
        unsigned p = want == OC_MMX && chance(r, 80) ? 0 : below(r, 4);

        if (p != 0)
            b[n++] = pp[p];
        if (rex && chance(r, 50))
            b[n++] = (uint8_t)(0x40 | below(r, 16));
        b[n++] = 0x0f;
        if (chance(r, 30))
            b[n++] = chance(r, 60) ? 0x38 : 0x3a;
        return n;
    }
    if (want == OC_STATE) {
        static const uint8_t ops[] = {0xae, 0xae, 0xae, 0xc7, 0xd9, 0xdd};

        if (chance(r, 10))
            b[n++] = 0x66;
        if (rex && chance(r, 50))
            b[n++] = (uint8_t)(0x40 | below(r, 16));
        b[n] = ops[below(r, sizeof(ops))];
        if (b[n] < 0xd0) {
            b[n + 1] = b[n];
            b[n++] = 0x0f;
        }
        return n + 1;
    }
    if (want == OC_X87) {
        if (rex && chance(r, 10))
            b[n++] = (uint8_t)(0x40 | below(r, 16));
        b[n++] = chance(r, 2) ? 0x9b : (uint8_t)(0xd8 | below(r, 8));
        return n;
    }
    if (chance(r, 20))
        b[n++] = 0x66;
    if (chance(r, want == OC_STRING ? 40 : 4))
        b[n++] = pp[2 + below(r, 2)];
    if (rex && chance(r, 50))
        b[n++] = (uint8_t)(0x40 | below(r, 16));
    if (want == OC_OLD) {
        static const uint8_t ops[] = {0x27, 0x2f, 0x37, 0x3f, 0x60, 0x61,
                                      0x62, 0xce, 0xd4, 0xd5, 0xd6};

        b[n++] = ops[below(r, sizeof(ops))];
    } else if (want == OC_STRING) {
        static const uint8_t ops[] = {0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab,
                                      0xac, 0xad, 0xae, 0xaf, 0xd7};

        b[n++] = ops[below(r, sizeof(ops))];
    } else if (chance(r, want == OC_INT ? 20 : want == OC_BMI ? 100 : 50)) {
        b[n++] = 0x0f;
        if (want == OC_BMI)
            b[n++] = 0x38;
        else if (chance(r, 5))
            b[n++] = 0x38;
    }
    return n;
}

/* An instruction of the class at b; its length, 0 if this try failed. */
static unsigned try_insn(struct rng *r, enum oracle_class want, enum x86_mode mode, uint8_t *b,
                         struct x86_insn *in, const bool feature[X86_FEAT_HIDDEN + 1])
{
    int n;

    shape(r, want, mode == X86_MODE_64, b);
    n = x86_decode(b, 15, mode, in);
    if (n <= 0 || classify(in) != want || in->feature >= X86_FEAT_HIDDEN || !feature[in->feature])
        return 0;
    if (mode != X86_MODE_64 && in->enc == X86_ENC_VEX && in->map == X86_MAP_0F3A &&
        (in->opcode == 0x16 || in->opcode == 0x22) && (in->rex & 8) != 0)
        return 0; /* vpinsrq, vpextrq: Intel ignores W, AMD refuses it */
    if ((in->prefixes & X86_PFX_SEG) != 0 && (in->seg == X86_FS || in->seg == X86_GS))
        return 0; /* FS belongs to the child's C library */
    return (unsigned)n;
}

/* ---- state ---- */

static uint64_t interesting(struct rng *r)
{
    static const uint64_t some[] = {0,
                                    1,
                                    2,
                                    0x7f,
                                    0x80,
                                    0xff,
                                    0x7fff,
                                    0x8000,
                                    0xffff,
                                    0x7fffffff,
                                    0x80000000,
                                    0xffffffff,
                                    0x7fffffffffffffff,
                                    0x8000000000000000,
                                    UINT64_MAX};
    uint64_t v = next(r);

    switch (below(r, 4)) {
    case 0:
        return v;
    case 1:
        return v >> below(r, 64);
    case 2:
        return some[below(r, countof(some))];
    default:
        return some[below(r, countof(some))] ^ 1ull << below(r, 64);
    }
}

static uint32_t float_bits(struct rng *r)
{
    static const uint32_t some[] = {0,          0x80000000, 0x3f800000, 0xbf800000, 0x7f800000,
                                    0xff800000, 0x7fc00000, 0x7f800001, 1,          0x80000001,
                                    0x00800000, 0x7f7fffff, 0x4f000000, 0xcf000000, 0x40490fdb};

    return chance(r, 50) ? some[below(r, countof(some))] : (uint32_t)next(r);
}

static uint64_t double_bits(struct rng *r)
{
    static const uint64_t some[] = {0,
                                    1ull << 63,
                                    0x3ff0000000000000,
                                    0xbff0000000000000,
                                    0x7ff0000000000000,
                                    0x7ff8000000000000,
                                    0x7ff0000000000001,
                                    1,
                                    0x0010000000000000,
                                    0x7fefffffffffffff,
                                    0x41e0000000000000,
                                    0x43e0000000000000,
                                    0xc3e0000000000000,
                                    0x400921fb54442d18};

    return chance(r, 50) ? some[below(r, countof(some))] : next(r);
}

static void fill_vector(struct rng *r, uint8_t *p, unsigned len)
{
    unsigned i;

    for (i = 0; i < len; i += 16) {
        unsigned kind = below(r, 4), k;
        uint64_t d[2] = {0, 0};
        uint32_t f[4];

        if (kind == 0) {
            for (k = 0; k < 4; k++)
                f[k] = float_bits(r);
            memcpy(p + i, f, 16);
            continue;
        }
        for (k = 0; k < 2; k++)
            d[k] = kind == 1 ? double_bits(r) : kind == 2 ? next(r) : interesting(r);
        memcpy(p + i, d, 16);
    }
}

static void put80(uint8_t *p, uint64_t mantissa, unsigned exponent)
{
    uint16_t e = (uint16_t)exponent;

    memcpy(p, &mantissa, 8);
    memcpy(p + 8, &e, 2);
}

static void fill_x87(struct rng *r, uint8_t *fx)
{
    uint16_t fcw = 0x37f, fsw = (uint16_t)(below(r, 8) << 11 | (below(r, 16) & 7u) << 8);
    unsigned i;

    if (chance(r, 40))
        fcw = (uint16_t)(0x40 | (next(r) & 0xf3f));
    if (chance(r, 10))
        fsw |= (uint16_t)below(r, 64);
    if ((fsw & ~fcw & 0x3f) != 0)
        fsw |= 0x8080;
    memcpy(fx, &fcw, 2);
    memcpy(fx + 2, &fsw, 2);
    fx[4] = chance(r, 50) ? 0xff : (uint8_t)next(r);
    for (i = 0; i < 8; i++) {
        uint8_t *p = fx + 32 + 16 * i;
        unsigned sign = below(r, 2) << 15;

        switch (below(r, 8)) {
        case 0:
            put80(p, 0, sign);
            break;
        case 1:
            put80(p, 1ull << 63, sign | 0x7fff);
            break;
        case 2:
            put80(p, next(r) | 1ull << 63, sign | 0x7fff);
            break;
        case 3:
            put80(p, next(r), sign | below(r, 0x8000));
            break;
        case 4:
            put80(p, next(r) >> 1, sign);
            break;
        default:
            put80(p, next(r) | 1ull << 63, sign | (0x3fff - 70 + below(r, 140)));
            break;
        }
    }
}

static void fill_state(struct rng *r, struct oracle_case *c)
{
    uint32_t mxcsr = 0x1f80;
    unsigned i;

    for (i = 0; i < 16; i++)
        c->in.gpr[i] = interesting(r);
    c->in.gpr[X86_RSP] = ORACLE_DATA + 0xf00 + 8ull * below(r, 64) - c->ds_base;
    c->in.rip = c->addr - c->cs_base;
    c->in.rflags = 0x202 | (next(r) & X86_FL_ARITH);
    if (chance(r, 10))
        c->in.rflags |= X86_FL_DF;
    fill_x87(r, c->in.fx);
    if (chance(r, 30))
        mxcsr = (uint32_t)next(r) & 0xffff;
    memcpy(c->in.fx + 24, &mxcsr, 4);
    fill_vector(r, c->in.fx + 160, 256);
    fill_vector(r, c->in.ymm, 256);
    fill_vector(r, c->window, ORACLE_WINDOW_SIZE);
}

/* The offset in the data segment of a good address, or sometimes of a bad one. */
static uint64_t target(struct rng *r, const struct oracle_case *c, unsigned size)
{
    unsigned kind = below(r, 100);
    uint64_t t;

    if (kind < 3)
        return ORACLE_DATA + ORACLE_DATA_SIZE - below(r, 64) - c->ds_base; /* into the hole */
    if (kind < 5)
        return ORACLE_RO + below(r, 64) - c->ds_base;
    if (kind < 7)
        return next(r) | 1ull << 60; /* hardly ever canonical */
    if (kind < 8)
        return ORACLE_DATA - below(r, 32) - c->ds_base;
    t = ORACLE_DATA + ORACLE_WINDOW + 64 + below(r, ORACLE_WINDOW_SIZE - 192);
    if (kind < 20)
        t = ORACLE_DATA + 0x1000 - below(r, size + 1); /* across the pages */
    else if (kind < 70)
        t &= ~(uint64_t)(size >= 32 ? 31 : size >= 16 ? 15 : 7);
    return t - c->ds_base;
}

static void place_gather(struct rng *r, struct oracle_case *c, const struct x86_insn *in)
{
    unsigned i;

    if (in->base != X86_REG_NONE)
        c->in.gpr[in->base] = ORACLE_DATA + 0x1000 - c->ds_base - (uint64_t)in->disp;
    for (i = 0; i < 8; i++) {
        bool wide = (in->opcode & 1) != 0;
        int64_t k = (int64_t)below(r, 48) - 24;
        uint8_t *p;

        if (wide && i >= 4)
            break;
        if (chance(r, 1))
            k <<= 20;
        p = i * (wide ? 8u : 4u) < 16 ? c->in.fx + 160 + 16 * in->index + i * (wide ? 8u : 4u)
                                      : c->in.ymm + 16 * in->index + i * (wide ? 8u : 4u) - 16;
        memcpy(p, &k, wide ? 8 : 4);
    }
}

/* Makes the memory operand's address meet t, by its registers or by its displacement. */
static void place(struct rng *r, struct oracle_case *c, struct x86_insn *in, uint8_t *code,
                  uint64_t next_rip, uint64_t t)
{
    uint64_t *g = c->in.gpr;

    (void)r;
    if (in->base == X86_REG_RIP || (in->base == X86_REG_NONE && in->index == X86_REG_NONE)) {
        uint32_t d = (uint32_t)(in->base == X86_REG_RIP ? t - next_rip : t);

        if (in->disp_size == 4 || in->disp_size == 2) {
            memcpy(code + in->off_disp, &d, in->disp_size);
        } else if (in->disp_size == 8) {
            memcpy(code + in->off_disp, &t, 8);
        }
    } else if (in->base == X86_REG_NONE) {
        g[in->index] = (t - (uint64_t)in->disp) / in->scale;
    } else if (in->index == in->base) {
        g[in->base] = (t - (uint64_t)in->disp) / (in->scale + 1u);
    } else {
        if (in->index != X86_REG_NONE) {
            g[in->index] &= 0xff;
            t -= g[in->index] * in->scale;
        }
        g[in->base] = t - (uint64_t)in->disp;
    }
}

static const struct x86_opnd *memory(const struct x86_insn *in)
{
    unsigned i;

    for (i = 0; i < in->opnd_count; i++)
        if (in->opnd[i].kind == X86_OPND_MEM)
            return &in->opnd[i];
    return NULL;
}

static void shape_values(struct rng *r, struct oracle_case *c, const struct x86_insn *in)
{
    const struct x86_opnd *m = memory(in);
    uint64_t *g = c->in.gpr, end = c->in.rip + c->len;
    unsigned cls = classify(in);

    if (cls == OC_BIT && m != NULL && in->op >= X86_BT && in->op <= X86_BTC && in->reg < 16 &&
        in->reg != in->base && in->reg != in->index && chance(r, 95))
        g[in->reg] = (uint64_t)((int64_t)below(r, 1024) - 512);
    if (in->op == X86_SHLD || in->op == X86_SHRD || (in->osize == 2 && cls == OC_BIT))
        g[X86_RCX] &= ~(uint64_t)0x10; /* counts above 16 bits leave undefined results */
    if ((in->op == X86_DIV || in->op == X86_IDIV) && chance(r, 80)) {
        if (in->opnd[0].size == 1)
            g[X86_RAX] &= 0x3ff;
        else
            g[X86_RDX] = in->op == X86_IDIV && chance(r, 50) ? UINT64_MAX : below(r, 3);
    }
    if (cls == OC_STRING || in->op == X86_MASKMOVQ || in->op == X86_MASKMOVDQU ||
        in->op == X86_VMASKMOVDQU || in->op == X86_INS || in->op == X86_OUTS) {
        g[X86_RSI] = target(r, c, 8);
        g[X86_RDI] = chance(r, 20) ? g[X86_RSI] + below(r, 9) - 4 : target(r, c, 8);
        g[X86_RCX] = below(r, 20);
        if (in->op == X86_XLAT)
            g[X86_RBX] = target(r, c, 1) - (g[X86_RAX] & 0xff);
    }
    if (cls == OC_STACK || in->op == X86_CALL || in->op == X86_RET) {
        uint64_t where;

        if (chance(r, 10))
            g[X86_RSP] = target(r, c, 8);
        g[X86_RBP] = chance(r, 90) ? target(r, c, 8) : g[X86_RBP];
        where = g[X86_RSP] + c->ds_base - ORACLE_DATA - ORACLE_WINDOW;
        if (in->op == X86_RET && c->compat && where < ORACLE_WINDOW_SIZE - 8 && chance(r, 80)) {
            memcpy(c->window + where, &end, 4);
        } else if (in->op == X86_RET && where < ORACLE_WINDOW_SIZE - 8 && chance(r, 80)) {
            memcpy(c->window + where, &end, 8);
        }
    }
    if (cls == OC_BRANCH && m == NULL && in->opnd[0].kind == X86_OPND_REG && chance(r, 90))
        g[in->rm] = end;
    if ((in->op == X86_CMPXCHG || in->op == X86_CMPXCHG8B || in->op == X86_CMPXCHG16B) &&
        chance(r, 60)) {
        memset(c->window, 0, ORACLE_WINDOW_SIZE / 2);
        g[X86_RAX] = 0;
        g[X86_RDX] = 0;
    }
}

/* An image that XRSTOR may like, and components to choose from. */
static void shape_state(struct rng *r, struct oracle_case *c)
{
    static const uint16_t size[] = {512, 576, 832};
    uint64_t t = ORACLE_DATA + ORACLE_WINDOW + 64 * below(r, 4), off, header[8] = {0};
    uint32_t mxcsr = chance(r, 90) ? 0x1f80 : (uint32_t)next(r);

    c->in.gpr[X86_RAX] = below(r, 8); /* the host has more components than the guest */
    c->in.gpr[X86_RDX] = 0;
    if (chance(r, 10))
        t += below(r, 64);
    if (chance(r, 10))
        t = ORACLE_DATA + ORACLE_DATA_SIZE - size[below(r, 3)] + (chance(r, 30) ? 64 : 0);
    c->state_ea = t;
    off = t - ORACLE_DATA - ORACLE_WINDOW;
    if (off > ORACLE_WINDOW_SIZE - 576)
        return;
    header[0] = below(r, 8);
    if (chance(r, 30))
        header[1] = 1ull << 63 | header[0] | below(r, 8);
    if (chance(r, 5))
        header[below(r, 8)] |= 1ull << below(r, 64);
    memcpy(c->window + off + 24, &mxcsr, 4);
    memcpy(c->window + off + 512, header, 64);
}

/* A near branch must not come back to itself, nor leave its slot. */
static bool tame_branch(struct rng *r, const struct x86_insn *in, uint8_t *code, bool first)
{
    int32_t d = (int32_t)below(r, 8);

    if (in->opnd[0].kind != X86_OPND_REL)
        return true;
    if (first && chance(r, 20))
        d = -(int32_t)in->len - 1 - (int32_t)below(r, 4);
    memcpy(code + in->off_imm, &d, in->imm_size);
    return in->imm_size != 8;
}

/* False if the registers of the address are needed otherwise. */
static bool place_state(struct rng *r, struct oracle_case *c, struct x86_insn *in, uint8_t *b,
                        unsigned len)
{
    if (in->base == X86_RAX || in->base == X86_RDX || in->index == X86_RAX ||
        in->index == X86_RDX || in->base == in->index ||
        (in->base == X86_REG_NONE && in->index != X86_REG_NONE))
        return false;
    shape_state(r, c);
    place(r, c, in, b, c->addr + c->len + len, c->state_ea - c->ds_base);
    return true;
}

static bool immediate_count_fits(const struct x86_insn *in)
{
    return !((in->op == X86_SHLD || in->op == X86_SHRD) && in->osize == 2 && in->imm_size == 1 &&
             (in->imm & 31) > 16);
}

/* SHA's operands only aligned: see oracle.c. */
static uint64_t operand_target(struct rng *r, const struct oracle_case *c,
                               const struct x86_insn *in, const struct x86_opnd *m)
{
    uint64_t t = target(r, c, m->size);

    return in->feature == X86_FEAT_SHA ? t & ~15ull : t;
}

static bool append(struct rng *r, struct oracle_case *c, enum oracle_class want,
                   const bool feature[X86_FEAT_HIDDEN + 1])
{
    struct x86_insn in;
    uint8_t b[15];
    enum x86_mode mode = c->small ? X86_MODE_16 : c->compat ? X86_MODE_32 : X86_MODE_64;
    unsigned n = 0, tries;
    const struct x86_opnd *m;

    if (want == OC_STATE && c->count != 0)
        return false; /* where the image lies must be known */
    for (tries = 0; tries < 4000 && n == 0; tries++) {
        n = try_insn(r, want, mode, b, &in, feature);
        if (n != 0 && (!tame_branch(r, &in, b, c->count == 0) || !immediate_count_fits(&in)))
            n = 0;
    }
    if (n == 0 || c->len + n > 40)
        return false;
    m = memory(&in);
    if (m != NULL && in.vsib)
        place_gather(r, c, &in);
    else if (want == OC_STATE && !place_state(r, c, &in, b, n))
        return false;
    else if (m != NULL && want != OC_STATE)
        place(r, c, &in, b, c->addr + c->len + n, operand_target(r, c, &in, m));
    if (x86_decode(b, n, mode, &in) != (int)n)
        return false;
    memcpy(c->code + c->len, b, n);
    c->off[c->count] = c->len;
    c->insn[c->count++] = in;
    c->len += n;
    c->off[c->count] = c->len;
    shape_values(r, c, &in);
    return true;
}

void oracle_generate(struct oracle_case *c, uint64_t seed, unsigned slot, enum oracle_class only,
                     bool small, const bool feature[X86_FEAT_HIDDEN + 1])
{
    struct rng r = {.s = seed};
    unsigned wanted, i;

    memset(c, 0, sizeof(*c));
    c->seed = seed;
    c->compat = only == OC_OLD || chance(&r, 35);
    c->small = c->compat && small && chance(&r, 40);
    if (c->small) {
        c->cs_base = ORACLE_CODE;
        c->ds_base = ORACLE_DS16_BASE;
    }
    c->slot = ORACLE_CODE + ORACLE_SHIFT +
              (uint64_t)(slot % (c->small ? ORACLE_SLOTS16 : ORACLE_SLOTS)) * ORACLE_SLOT;
    c->addr = c->slot + ORACLE_LEAD + below(&r, ORACLE_LEAD_MAX - ORACLE_LEAD + 1);
    fill_state(&r, c);
    wanted = chance(&r, 70) ? 1 : 1 + below(&r, ORACLE_INSNS);
    for (i = 0; i < wanted; i++) {
        enum oracle_class want =
            only != OC_COUNT ? only : (enum oracle_class)below(&r, c->compat ? OC_COUNT : OC_OLD);

        append(&r, c, want, feature);
        if (want == OC_BRANCH || want == OC_STATE)
            break; /* these end a case */
    }
    for (i = 0; c->compat && i < 16; i++)
        c->in.gpr[i] = i < 8 ? (uint32_t)c->in.gpr[i] : 0;
}
