/*
 * Values: numbers at the edges of every format, in registers, vectors, the x87 stack and memory.
 */
#include <string.h>

#include "base/bits.h"
#include "oracle_gen.h"

uint64_t interesting(struct rng *r)
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

/* ---- binary32, binary64 ---- */

/* Zero, one, infinity, NaNs quiet and signalling, denormals, ends of the range, ends of integers.
 */
static uint32_t float_bits(struct rng *r)
{
    static const uint32_t some[] = {0,          0x3f800000, 0x7f800000, 0x7fc00000, 0x7fc12345,
                                    0x7f800001, 0x7fbfffff, 1,          0x007fffff, 0x00800000,
                                    0x00800001, 0x7f7fffff, 0x3f000000, 0x3fc00000, 0x40200000,
                                    0x4effffff, 0x4f000000, 0x4f7fffff, 0x4f800000, 0x5effffff,
                                    0x5f000000, 0x5f800000, 0x477fe000, 0x477ff000, 0x33800000,
                                    0x33000000, 0x46fffe00, 0x47000000, 0x42fe0000, 0x40490fdb};
    uint32_t sign = (uint32_t)below(r, 2) << 31, v = (uint32_t)next(r);

    switch (below(r, 8)) {
    case 0: /* denormal */
        return sign | (v & 0x007fffff) >> below(r, 23);
    case 1: /* near 1, where sums cancel */
        return sign | (0x3f000000 + (v & 0x01ffffff));
    case 2:
    case 3:
        return v;
    case 4: /* a special one and its neighbour */
        return sign | (some[below(r, countof(some))] ^ 1u);
    default:
        return sign | some[below(r, countof(some))];
    }
}

static uint64_t double_bits(struct rng *r)
{
    static const uint64_t some[] = {0,
                                    0x3ff0000000000000,
                                    0x7ff0000000000000,
                                    0x7ff8000000000000,
                                    0x7ff8000012345678,
                                    0x7ff0000000000001,
                                    0x7ff7ffffffffffff,
                                    1,
                                    0x000fffffffffffff,
                                    0x0010000000000000,
                                    0x7fefffffffffffff,
                                    0x3fe0000000000000,
                                    0x3ff8000000000000,
                                    0x4004000000000000,
                                    0x41dfffffffc00000, /* INT32_MAX */
                                    0x41dfffffffe00000, /* and a half */
                                    0x41e0000000000000,
                                    0x41e0000000100000,
                                    0x41efffffffe00000,
                                    0x41f0000000000000,
                                    0x43dfffffffffffff,
                                    0x43e0000000000000,
                                    0x43f0000000000000,
                                    0x40dfffc000000000, /* INT16_MAX */
                                    0x40e0000000000000,
                                    0x380fffffe0000000, /* denormal, or smallest normal, binary32 */
                                    0x36a0000000000000,
                                    0x3690000000000000,
                                    0x47efffffe0000000, /* the greatest binary32 */
                                    0x47effffff0000000,
                                    0x400921fb54442d18};
    uint64_t sign = (uint64_t)below(r, 2) << 63, v = next(r);

    switch (below(r, 8)) {
    case 0:
        return sign | (v & 0x000fffffffffffff) >> below(r, 52);
    case 1:
        return sign | (0x3fe0000000000000 + (v & 0x003fffffffffffff));
    case 2:
        return v;
    case 3: /* where binary32 ends */
        return sign | (0x3680000000000000 + (v & 0x01ffffffffffffff));
    case 4:
        return sign | (some[below(r, countof(some))] ^ 1u);
    default:
        return sign | some[below(r, countof(some))];
    }
}

static uint16_t half_bits(struct rng *r)
{
    static const uint16_t some[] = {0, 1, 0x3ff, 0x400, 0x3c00, 0x7bff, 0x7c00, 0x7c01, 0x7e00};
    unsigned sign = below(r, 2) << 15;

    return (uint16_t)(chance(r, 60) ? sign | some[below(r, countof(some))] : next(r));
}

static void fill_vector(struct rng *r, uint8_t *p, unsigned len)
{
    unsigned i;

    for (i = 0; i < len; i += 16) {
        unsigned kind = below(r, 9), k;
        uint64_t d[2] = {0, 0};
        uint32_t f[4];
        uint16_t h[8];

        if (kind < 2) {
            for (k = 0; k < 4; k++)
                f[k] = float_bits(r);
            memcpy(p + i, f, 16);
            continue;
        }
        if (kind == 2) {
            for (k = 0; k < 8; k++)
                h[k] = half_bits(r);
            memcpy(p + i, h, 16);
            continue;
        }
        for (k = 0; k < 2; k++)
            d[k] = kind < 5 ? double_bits(r) : kind < 7 ? next(r) : interesting(r);
        memcpy(p + i, d, 16);
    }
}

/* ---- x87 ---- */

static void put80(uint8_t *p, uint64_t mantissa, unsigned exponent)
{
    uint16_t e = (uint16_t)exponent;

    memcpy(p, &mantissa, 8);
    memcpy(p + 8, &e, 2);
}

/* Where binary32, binary64, the integers and packed decimals end. */
static void put_edge(struct rng *r, uint8_t *p, unsigned sign)
{
    static const uint64_t mantissa[] = {
        1ull << 63,         UINT64_MAX,         1ull << 63 | 1,
        0xffffff0000000000, 0xffffff8000000000, 0xfffffffffffff800,
        0xfffffffffffffc00, 0xde0b6b3a763ffff0, /* 10^18 - 1 */
        0xde0b6b3a76400000, 0xc000000000000000, 0xc90fdaa22168c235 /* pi */};
    static const int exponent[] = {-16445, -16383, -16382, -1075, -1074, -1023, -1022, -150,
                                   -149,   -127,   -126,   -64,   -63,   -1,    0,     1,
                                   2,      15,     16,     31,    32,    59,    63,    64,
                                   127,    128,    1023,   1024,  16382, 16383};
    int e = exponent[below(r, countof(exponent))] + 16383;

    put80(p, mantissa[below(r, countof(mantissa))], sign | (e < 0 ? 0u : (unsigned)e));
}

static void any80(struct rng *r, uint8_t *p)
{
    unsigned sign = below(r, 2) << 15;

    switch (below(r, 14)) {
    case 0: /* zero */
        put80(p, 0, sign);
        break;
    case 1: /* infinity */
        put80(p, 1ull << 63, sign | 0x7fff);
        break;
    case 2: /* NaN, quiet or not */
        put80(p, next(r) | 1ull << 63, sign | 0x7fff);
        break;
    case 3: /* pseudo-infinity, pseudo-NaN */
        put80(p, chance(r, 30) ? 0 : next(r) >> 1, sign | 0x7fff);
        break;
    case 4: /* unnormal */
        put80(p, next(r) >> 1, sign | (1 + below(r, 0x7ffe)));
        break;
    case 5: /* denormal */
        put80(p, next(r) >> (1 + below(r, 63)), sign);
        break;
    case 6: /* pseudo-denormal */
        put80(p, next(r) | 1ull << 63, sign);
        break;
    case 7:
        put80(p, next(r), sign | below(r, 0x8000));
        break;
    case 8:
    case 9:
    case 10:
        put_edge(r, p, sign);
        break;
    case 11: /* a whole number or a half */
        put80(p, (next(r) | 1ull << 63) & ~(uint64_t)0 << (63 - below(r, 12)),
              sign | (0x3fff + below(r, 12)));
        break;
    default:
        put80(p, next(r) | 1ull << 63, sign | (0x3fff - 70 + below(r, 140)));
        break;
    }
}

/* Packed decimal; now and then digits that are none. */
static void any_bcd(struct rng *r, uint8_t *p)
{
    unsigned i;

    for (i = 0; i < 9; i++)
        p[i] = (uint8_t)(chance(r, 50)   ? below(r, 10) | below(r, 10) << 4
                         : chance(r, 50) ? 0x99
                                         : 0);
    p[9] = (uint8_t)(below(r, 2) << 7);
    if (chance(r, 10))
        p[below(r, 10)] = (uint8_t)next(r);
}

static uint16_t any_fcw(struct rng *r)
{
    static const unsigned precision[] = {0, 0, 2, 2, 3, 3, 3, 1};
    unsigned fcw = 0x40 | precision[below(r, 8)] << 8 | below(r, 4) << 10;

    if (chance(r, 40))
        return 0x37f;
    fcw |= chance(r, 60) ? 0x3f : below(r, 64);
    return (uint16_t)(fcw | (chance(r, 10) ? 0x1000 : 0));
}

static uint32_t any_mxcsr(struct rng *r)
{
    uint32_t m = 0;

    if (chance(r, 40))
        return 0x1f80;
    m = below(r, 4) << 13 | (chance(r, 30) ? 0x8000u : 0) | (chance(r, 30) ? 0x40u : 0);
    m |= chance(r, 60) ? 0x1f80u : below(r, 64) << 7;
    return m | (chance(r, 20) ? below(r, 64) : 0); /* old flags raise nothing */
}

static void fill_x87(struct rng *r, uint8_t *fx)
{
    uint16_t fcw = any_fcw(r), fsw = (uint16_t)(below(r, 8) << 11 | below(r, 8) << 8);
    unsigned i;

    if (chance(r, 5))
        fsw |= (uint16_t)below(r, 64);
    if (chance(r, 5))
        fsw |= 0x4000;
    if ((fsw & ~fcw & 0x3f) != 0)
        fsw |= 0x8080;
    memcpy(fx, &fcw, 2);
    memcpy(fx + 2, &fsw, 2);
    fx[4] = chance(r, 70) ? 0xff : (uint8_t)next(r);
    for (i = 0; i < 8; i++)
        any80(r, fx + 32 + 16 * i);
}

void special_operand(struct rng *r, struct oracle_case *c, const struct x86_insn *in, uint64_t lin)
{
    const struct x86_opnd *m = memory_operand(in);
    uint8_t value[16];
    uint64_t v, off = lin - ORACLE_DATA - ORACLE_WINDOW;
    uint32_t f;

    if (m == NULL || in->map != X86_MAP_ONE || off > ORACLE_WINDOW_SIZE - sizeof(value))
        return;
    memset(value, 0, sizeof(value));
    /* the second bit of the opcode: an integer */
    v = (in->opcode & 2) != 0 ? interesting(r) : double_bits(r);
    f = float_bits(r);
    if (m->size == 10 && in->op == X86_FBLD)
        any_bcd(r, value);
    else if (m->size == 10)
        any80(r, value);
    else if (m->size == 4 && (in->opcode & 2) == 0)
        memcpy(value, &f, 4);
    else
        memcpy(value, &v, 8);
    memcpy(c->window + off, value, m->size <= 10 ? m->size : 0);
}

/* ---- all of it ---- */

void fill_state(struct rng *r, struct oracle_case *c)
{
    uint32_t mxcsr = any_mxcsr(r);
    unsigned i;

    for (i = 0; i < 16; i++)
        c->in.gpr[i] = interesting(r);
    c->in.fs_base = chance(r, 50) ? 0 : next(r) >> below(r, 47) & 0x7fffffffffff;
    c->in.gs_base = chance(r, 50) ? 0 : ~(next(r) >> 18 & 0x3fffffffffff); /* a kernel's address */
    if (!oracle_host_fsgsbase()) /* arch_prctl refuses those */
        c->in.gs_base &= 0x7fffffffffff;
    c->in.gpr[X86_RSP] = ORACLE_DATA + 0xf00 + 8ull * below(r, 64) - c->ds_base;
    c->in.rip = c->addr - c->cs_base;
    c->in.rflags = 0x202 | (next(r) & X86_FL_ARITH);
    if (chance(r, 10))
        c->in.rflags |= X86_FL_DF;
    fill_x87(r, c->in.fx);
    memcpy(c->in.fx + 24, &mxcsr, 4);
    fill_vector(r, c->in.fx + 160, 256);
    fill_vector(r, c->in.ymm, 256);
    fill_vector(r, c->window, ORACLE_WINDOW_SIZE);
}

uint64_t target(struct rng *r, const struct oracle_case *c, unsigned size)
{
    unsigned kind = below(r, c->program ? 300 : 100); /* a fault ends a program */
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
    else if (kind % 100 < 70)
        t &= ~(uint64_t)(size >= 32 ? 31 : size >= 16 ? 15 : 7);
    return t - c->ds_base;
}
