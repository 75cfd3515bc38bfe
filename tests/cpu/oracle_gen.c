/*
 * Random cases: bytes shaped like an instruction of the wanted class, decoded, and then a state in
 * which it does something: addresses that meet the data pages, small counts, interesting numbers.
 */
#include <string.h>

#include "base/bits.h"
#include "oracle_gen.h"

/* ---- bytes ---- */

static unsigned shape_own(struct rng *r, bool rex, uint8_t *b)
{
    static const uint8_t ops[] = {0x31, 0xc7, 0xc7, 0xc7, 0x01, 0xae, 0xae};
    unsigned n = 0, op = ops[below(r, sizeof(ops))];

    if (chance(r, 20))
        b[n++] = 0x66;
    if (op == 0xae || (op == 0xc7 && chance(r, 30)))
        b[n++] = 0xf3;
    if (rex && chance(r, 60))
        b[n++] = (uint8_t)(0x40 | below(r, 16));
    b[n++] = 0x0f;
    b[n++] = (uint8_t)op;
    if (op == 0x01)
        b[n] = chance(r, 50) ? 0xd0 : 0xf9; /* xgetbv, rdtscp */
    else
        b[n] |= 0xc0;
    return n;
}

/* Encodings that chance alone would seldom find. */
static const struct {
    uint8_t cls, prefix, map, first, count; /* map as in VEX; prefix 0: any */
} rare_forms[] = {
    {OC_AVX, 0x66, 2, 0x13, 1},    /* vcvtph2ps */
    {OC_AVX, 0x66, 3, 0x1d, 1},    /* vcvtps2ph */
    {OC_AVX, 0x66, 3, 0x44, 1},    /* vpclmulqdq */
    {OC_AVX, 0x66, 2, 0xdb, 5},    /* vaesimc ... vaesdeclast */
    {OC_AVX, 0x66, 2, 0xcf, 1},    /* vgf2p8mulb */
    {OC_AVX, 0x66, 3, 0xce, 2},    /* vgf2p8affineqb, vgf2p8affineinvqb */
    {OC_SSE, 0x66, 3, 0x44, 1},    /* pclmulqdq */
    {OC_SSE, 0x66, 3, 0x60, 4},    /* pcmpestrm ... pcmpistri */
    {OC_SSE, 0x66, 2, 0xdb, 5},    /* aesimc ... aesdeclast */
    {OC_SSE, 0x66, 3, 0xce, 2},    /* gf2p8affineqb, gf2p8affineinvqb */
    {OC_SSE, 0, 2, 0xc8, 6},       /* sha1nexte ... sha256msg2 */
    {OC_SSE, 0, 3, 0xcc, 1},       /* sha1rnds4 */
    {OC_BIT, 0xf3, 1, 0xb8, 1},    /* popcnt */
    {OC_BIT, 0xf3, 1, 0xbc, 2},    /* tzcnt, lzcnt */
    {OC_BIT, 0xf2, 2, 0xf0, 2},    /* crc32 */
    {OC_ATOMIC, 0, 1, 0xc7, 1},    /* cmpxchg8b, cmpxchg16b */
    {OC_SYSTEM, 0, 1, 0xae, 1},    /* clflush */
    {OC_SYSTEM, 0x66, 1, 0xae, 1}, /* clflushopt, clwb */
};

static unsigned shape_rare(struct rng *r, enum oracle_class want, bool rex, uint8_t *b)
{
    unsigned k = below(r, countof(rare_forms)), n = 0;
    uint8_t map = rare_forms[k].map;

    if (rare_forms[k].cls != want)
        return 0; /* the usual way */
    if (want == OC_AVX) {
        b[n++] = 0xc4;
        b[n++] = (uint8_t)((rex ? b[1] & 0xe0u : 0xe0u) | map);
        b[n] = (uint8_t)((b[n] & 0x84u) | (chance(r, 50) ? 0x78u : b[n] & 0x78u) | 1u);
        n++;
    } else {
        if (rare_forms[k].prefix != 0)
            b[n++] = rare_forms[k].prefix;
        if (rex && chance(r, 50))
            b[n++] = (uint8_t)(0x40 | below(r, 16));
        b[n++] = 0x0f;
        if (map != 1)
            b[n++] = map == 2 ? 0x38 : 0x3a;
    }
    b[n++] = (uint8_t)(rare_forms[k].first + below(r, rare_forms[k].count));
    if (b[n - 1] == 0xc7)
        b[n] = (uint8_t)((b[n] & 0xc7u) | 0x08u);
    else if (b[n - 1] == 0xae)
        b[n] = (uint8_t)((b[n] & 0xc7u) | (6u + below(r, 2)) << 3);
    return n;
}

static unsigned shape(struct rng *r, enum oracle_class want, bool rex, uint8_t *b)
{
    static const uint8_t pp[] = {0, 0x66, 0xf3, 0xf2};
    unsigned n = 0, i;

    for (i = 0; i < 15; i++)
        b[i] = (uint8_t)(next(r) >> 40);
    if (chance(r, 10) && (n = shape_rare(r, want, rex, b)) != 0)
        return n;
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
    if (want == OC_OWN)
        return shape_own(r, rex, b);
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
        if (want == OC_BMI || chance(r, 5))
            b[n++] = 0x38;
        if (want == OC_INT && b[n - 1] == 0x38)
            b[n] = (uint8_t)(0xf0 | below(r, 2)); /* MOVBE */
    }
    return n;
}

unsigned try_insn(struct rng *r, enum oracle_class want, enum x86_mode mode, uint8_t *b,
                  struct x86_insn *in, const bool feature[X86_FEAT_HIDDEN + 1])
{
    int n;

    shape(r, want, mode == X86_MODE_64, b);
    n = x86_decode(b, 15, mode, in);
    if (n <= 0 || oracle_classify(in) != want || !oracle_allowed(in, feature))
        return 0;
    return (unsigned)n;
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

const struct x86_opnd *memory_operand(const struct x86_insn *in)
{
    unsigned i;

    for (i = 0; i < in->opnd_count; i++)
        if (in->opnd[i].kind == X86_OPND_MEM)
            return &in->opnd[i];
    return NULL;
}

static void shape_values(struct rng *r, struct oracle_case *c, const struct x86_insn *in)
{
    const struct x86_opnd *m = memory_operand(in);
    uint64_t *g = c->in.gpr, end = c->in.rip + c->len;
    unsigned cls = oracle_classify(in);

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
    if (in->op == X86_XGETBV)
        g[X86_RCX] = chance(r, 90) ? below(r, 3) : g[X86_RCX];
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
        header[below(r, 8)] |= 1ull << (20 + below(r, 44)); /* what no host has */
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

bool immediate_count_fits(const struct x86_insn *in)
{
    return !((in->op == X86_SHLD || in->op == X86_SHRD) && in->osize == 2 && in->imm_size == 1 &&
             (in->imm & 31) > 16);
}

/* SHA's operands only aligned: see oracle_rules.c. */
static void place_operand(struct rng *r, struct oracle_case *c, struct x86_insn *in, uint8_t *b,
                          uint64_t next_rip, const struct x86_opnd *m)
{
    uint64_t t = target(r, c, m->size);

    if (in->feature == X86_FEAT_SHA)
        t &= ~15ull;
    special_operand(r, c, in, t + c->ds_base);
    t -= in->seg == X86_FS ? c->in.fs_base : in->seg == X86_GS ? c->in.gs_base : 0;
    place(r, c, in, b, next_rip, t);
}

enum x86_mode oracle_mode(const struct oracle_case *c)
{
    return c->small ? X86_MODE_16 : c->compat ? X86_MODE_32 : X86_MODE_64;
}

static bool append(struct rng *r, struct oracle_case *c, enum oracle_class want,
                   const bool feature[X86_FEAT_HIDDEN + 1])
{
    struct x86_insn in;
    uint8_t b[15];
    enum x86_mode mode = oracle_mode(c);
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
    m = memory_operand(&in);
    if (m != NULL && in.vsib)
        place_gather(r, c, &in);
    else if (want == OC_STATE && !place_state(r, c, &in, b, n))
        return false;
    else if (m != NULL && want != OC_STATE)
        place_operand(r, c, &in, b, c->addr + c->len + n, m);
    if (x86_decode(b, n, mode, &in) != (int)n)
        return false;
    memcpy(c->code + c->len, b, n);
    c->off[c->count] = c->len;
    c->insn[c->count++] = in;
    c->len += n;
    shape_values(r, c, &in);
    return true;
}

/* 32-bit code has eight registers of 32 bits. */
void narrow_registers(struct oracle_case *c)
{
    unsigned i;

    for (i = 0; c->compat && i < 16; i++)
        c->in.gpr[i] = i < 8 ? (uint32_t)c->in.gpr[i] : 0;
}

/* In every third case at most; their seeds are as good as those of single instructions. */
static bool wants_program(struct rng *r, enum oracle_class only)
{
    bool program = chance(r, 30);

    return only == OC_PROGRAM || (program && only == OC_COUNT);
}

void oracle_generate(struct oracle_case *c, uint64_t seed, unsigned slot, enum oracle_class only,
                     unsigned bits, const bool feature[X86_FEAT_HIDDEN + 1])
{
    struct rng r = {.s = seed};
    unsigned wanted, i;

    memset(c, 0, sizeof(*c));
    c->seed = seed;
    c->slot_number = slot;
    c->program = wants_program(&r, only);
    c->compat = (only == OC_OLD || chance(&r, 35)) && bits <= 32;
    c->small = c->compat && bits <= 16 && chance(&r, 40);
    if (c->small) {
        c->cs_base = c->program ? ORACLE_DS16_BASE : ORACLE_CODE;
        c->ds_base = ORACLE_DS16_BASE;
    }
    if (c->program) {
        oracle_program(&r, c, feature);
        return;
    }
    c->slot = ORACLE_CODE + ORACLE_SHIFT +
              (uint64_t)(slot % (c->small ? ORACLE_SLOTS16 : ORACLE_SLOTS)) * ORACLE_SLOT;
    c->addr = c->slot + ORACLE_LEAD + below(&r, ORACLE_LEAD_MAX - ORACLE_LEAD + 1);
    fill_state(&r, c);
    wanted = chance(&r, 70) ? 1 : 1 + below(&r, ORACLE_SINGLES);
    for (i = 0; i < wanted; i++) {
        enum oracle_class want =
            only != OC_COUNT ? only : (enum oracle_class)below(&r, c->compat ? OC_CLASSES : OC_OLD);

        append(&r, c, want, feature);
        if (want == OC_BRANCH || want == OC_STATE ||
            (c->count > 0 && oracle_random(&c->insn[c->count - 1])))
            break; /* these end a case */
    }
    narrow_registers(c);
}
