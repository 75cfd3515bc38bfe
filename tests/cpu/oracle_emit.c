/*
 * Puts a program's instructions down, with MOVs before them where an address or a count is needed,
 * and follows which registers hold what and which flags are undefined.
 */
#include <string.h>

#include "base/bits.h"
#include "oracle_program.h"

static uint32_t reg_bit(unsigned reg)
{
    return reg < 16 ? 1u << reg : 0;
}

uint64_t prog_address(const struct prog *p, unsigned at)
{
    return ORACLE_PROG + at - p->c->ds_base; /* 16-bit code: the segments have the same base */
}

/* What the stack instructions do to a known RSP. */
static void follow_stack(struct prog *p, const struct x86_insn *in, bool known)
{
    uint64_t rsp = p->val[X86_RSP];

    if (!known || (in->opnd[0].kind == X86_OPND_REG && in->opnd[0].reg == X86_RSP))
        return;
    if (in->op == X86_PUSH || in->op == X86_PUSHF)
        rsp -= in->osize;
    else if (in->op == X86_POP || in->op == X86_POPF)
        rsp += in->osize;
    else
        return;
    p->val[X86_RSP] = rsp;
    p->known |= reg_bit(X86_RSP);
}

static void follow(struct prog *p, const struct x86_insn *in)
{
    bool rsp = (p->known & reg_bit(X86_RSP)) != 0;
    unsigned i;

    p->known &= ~in->gpr_written;
    if (!(in->op >= X86_ROL && in->op <= X86_SHRD)) /* by 0: no flag is written */
        p->undefined &= ~in->flags_written;
    p->undefined |= in->flags_undefined;
    for (i = 0; i < p->branches; i++)
        p->branch[i].written |= in->gpr_written;
    follow_stack(p, in, rsp);
}

bool prog_put(struct prog *p, const uint8_t *bytes, unsigned n, bool keep)
{
    struct oracle_case *c = p->c;
    struct x86_insn in;

    if (p->full || c->count == ORACLE_INSNS || prog_here(p) + n > ORACLE_PROG_SIZE ||
        x86_decode(bytes, n, p->mode, &in) != (int)n) {
        p->full = true;
        return false;
    }
    memcpy(c->prog + prog_here(p), bytes, n);
    c->off[c->count] = (uint64_t)(int64_t)(int32_t)c->len; /* before addr: a subroutine */
    c->keep[c->count] = keep;
    c->insn[c->count++] = in;
    c->len += n;
    follow(p, &in);
    return true;
}

unsigned prog_mov(struct prog *p, unsigned reg, uint64_t v, bool keep)
{
    bool wide = p->mode == X86_MODE_64 && v > UINT32_MAX;
    unsigned n = 0, size = wide ? 8 : 4;
    uint8_t b[15];

    if (p->mode == X86_MODE_16)
        b[n++] = 0x66;
    if (wide || reg >= 8)
        b[n++] = (uint8_t)(0x40 | (wide ? 8 : 0) | reg >> 3);
    b[n++] = (uint8_t)(0xb8 | (reg & 7));
    memcpy(b + n, &v, size);
    if (!prog_put(p, b, n + size, keep))
        return 0;
    p->known |= reg_bit(reg);
    p->val[reg] = size == 4 ? (uint32_t)v : v;
    return prog_here(p) - size;
}

unsigned prog_scratch(struct prog *p, unsigned not )
{
    static const uint8_t some[] = {X86_RAX, X86_RCX, X86_RDX, X86_RBX, X86_RSI, X86_RDI};
    unsigned reg;

    do
        reg = some[below(p->r, sizeof(some))];
    while ((int)reg == p->counter || reg == not );
    return reg;
}

void prog_stack(struct prog *p)
{
    uint64_t lin = p->val[X86_RSP] + p->c->ds_base, t;

    if ((p->known & reg_bit(X86_RSP)) != 0 && lin >= ORACLE_DATA + ORACLE_WINDOW + 128 &&
        lin < ORACLE_DATA + ORACLE_WINDOW + ORACLE_WINDOW_SIZE - 128)
        return;
    t = chance(p->r, 4) ? target(p->r, p->c, 8)
                        : ORACLE_DATA + 0xf00 + 8 * below(p->r, 64) - p->c->ds_base;
    if (chance(p->r, 5))
        t = ORACLE_DATA + 0x1000 - below(p->r, 9) - p->c->ds_base;
    prog_mov(p, X86_RSP, t, false);
}

/* ---- operands ---- */

static uint64_t mask_of(const struct x86_insn *in)
{
    return in->asize == 8 ? UINT64_MAX : in->asize == 4 ? UINT32_MAX : 0xffff;
}

static bool in_window(const struct prog *p, uint64_t off)
{
    uint64_t lin = off + p->c->ds_base - ORACLE_DATA;

    return lin >= ORACLE_WINDOW + 64 && lin < ORACLE_WINDOW + ORACLE_WINDOW_SIZE - 64;
}

/* The displacement, where it is wide enough to carry a known base to t. */
static bool by_displacement(const struct prog *p, const struct x86_insn *in, uint8_t *code,
                            uint64_t rest, uint64_t t)
{
    uint64_t d = (t - rest) & mask_of(in);

    if (in->disp_size < 2)
        return in_window(p, (rest + (uint64_t)in->disp) & mask_of(in));
    if (in->asize == 8 && (uint64_t)(int64_t)(int32_t)d != d)
        return false;
    memcpy(code + in->off_disp, &d, in->disp_size);
    return true;
}

static void place_base(struct prog *p, const struct x86_insn *in, uint8_t *code, uint64_t t)
{
    uint64_t index = 0;

    if (in->index != X86_REG_NONE) {
        if ((p->known & reg_bit(in->index)) == 0 || chance(p->r, 20))
            prog_mov(p, in->index, below(p->r, 256), false);
        index = p->val[in->index] * in->scale;
    }
    if ((p->known & reg_bit(in->base)) != 0 &&
        by_displacement(p, in, code, p->val[in->base] + index, t))
        return;
    prog_mov(p, in->base, (t - (uint64_t)in->disp - index) & mask_of(in), false);
}

/* Registers and displacement so that the memory operand lies at t. */
static void place(struct prog *p, const struct x86_insn *in, uint8_t *code, uint64_t t)
{
    const struct oracle_state *st = &p->c->in;
    uint64_t next_rip = p->c->addr + p->c->len + in->len;
    uint32_t d;

    t -= in->seg == X86_FS ? st->fs_base : in->seg == X86_GS ? st->gs_base : 0;
    d = (uint32_t)(in->base == X86_REG_RIP ? t - next_rip : t);
    if (in->base == X86_REG_RIP || (in->base == X86_REG_NONE && in->index == X86_REG_NONE))
        memcpy(code + in->off_disp, in->disp_size == 8 ? (const void *)&t : &d, in->disp_size);
    else if (in->base == X86_REG_NONE)
        prog_mov(p, in->index, (t - (uint64_t)in->disp) / in->scale & mask_of(in), false);
    else if (in->index == in->base)
        prog_mov(p, in->base, (t - (uint64_t)in->disp) / (in->scale + 1u) & mask_of(in), false);
    else
        place_base(p, in, code, t);
}

static void place_gather(struct prog *p, const struct x86_insn *in)
{
    if (in->base != X86_REG_NONE)
        prog_mov(p, in->base, ORACLE_DATA + 0x1000 - p->c->ds_base, false);
}

static bool uses_strings(const struct x86_insn *in)
{
    return oracle_classify(in) == OC_STRING || in->op == X86_MASKMOVQ || in->op == X86_MASKMOVDQU ||
           in->op == X86_VMASKMOVDQU || in->op == X86_INS || in->op == X86_OUTS;
}

static bool uses_stack(const struct x86_insn *in)
{
    return oracle_classify(in) == OC_STACK || in->op == X86_PUSHA || in->op == X86_POPA;
}

/* Values for what the instruction uses besides its memory operand. */
static void prepare(struct prog *p, const struct x86_insn *in)
{
    if (uses_strings(in)) {
        uint64_t t = target(p->r, p->c, 8);

        if (in->op == X86_XLAT) {
            prog_mov(p, X86_RBX, ORACLE_DATA + ORACLE_WINDOW + 64 - p->c->ds_base, false);
            return;
        }
        prog_mov(p, X86_RSI, t, false);
        prog_mov(p, X86_RDI, chance(p->r, 20) ? t + below(p->r, 9) - 4 : target(p->r, p->c, 8),
                 false);
        if (in->rep != 0)
            prog_mov(p, X86_RCX, below(p->r, 20), false);
    }
    if (in->op == X86_LEAVE || in->op == X86_ENTER)
        prog_mov(p, X86_RBP, target(p->r, p->c, 8), false);
    if (uses_stack(in))
        prog_stack(p);
    if (in->op >= X86_BT && in->op <= X86_BTC && memory_operand(in) != NULL && in->imm_size == 0 &&
        in->reg != in->base && in->reg != in->index && (int)in->reg != p->counter)
        prog_mov(p, in->reg, (uint64_t)((int64_t)below(p->r, 1024) - 512), false);
}

/* ---- which ---- */

bool prog_fits(const struct prog *p, const struct x86_insn *in)
{
    uint32_t needed = 0;

    if ((in->flags_read & p->undefined) != 0)
        return false;
    if (p->counter < 0)
        return true;
    if (uses_strings(in))
        needed |= reg_bit(X86_RSI) | reg_bit(X86_RDI) | reg_bit(X86_RCX) | reg_bit(X86_RBX);
    if (in->op == X86_LEAVE || in->op == X86_ENTER)
        needed |= reg_bit(X86_RBP);
    if (memory_operand(in) != NULL)
        needed |= reg_bit(in->base) | reg_bit(in->index);
    return ((in->gpr_written | needed) & reg_bit((unsigned)p->counter)) == 0;
}

/* Instructions that mostly fault, or whose result is undefined by what their registers hold. */
static bool welcome(struct prog *p, const struct x86_insn *in)
{
    if ((in->op == X86_SHLD || in->op == X86_SHRD) && in->osize == 2 &&
        (in->imm_size != 1 || !immediate_count_fits(in)))
        return false;
    if (in->feature == X86_FEAT_SHA && memory_operand(in) != NULL)
        return false; /* see oracle_rules.c */
    if (in->vsib)
        return chance(p->r, 20);
    switch (in->op) {
    case X86_DIV:
    case X86_IDIV:
    case X86_LDMXCSR:
    case X86_VLDMXCSR:
    case X86_ENTER:
    case X86_AAM:
    case X86_BOUND:
    case X86_FLDENV:
    case X86_FRSTOR:
        return chance(p->r, 25);
    case X86_INTO:
        return chance(p->r, 10);
    default:
        return oracle_classify(in) != OC_SYSTEM || in->op == X86_LFENCE || chance(p->r, 10);
    }
}

static unsigned choose(struct prog *p, uint8_t *b, struct x86_insn *in)
{
    unsigned tries, n;

    for (tries = 0; tries < 1000; tries++) {
        enum oracle_class want = (enum oracle_class)below(p->r, p->c->compat ? OC_CLASSES : OC_OLD);

        if (want == OC_BRANCH || want == OC_STATE)
            continue;
        n = try_insn(p->r, want, p->mode, b, in, p->feature);
        if (n != 0 && prog_fits(p, in) && welcome(p, in) && !oracle_random(in))
            return n;
    }
    return 0;
}

void prog_random(struct prog *p)
{
    const struct x86_opnd *m;
    struct x86_insn in;
    uint8_t b[15];
    unsigned n = choose(p, b, &in);

    if (n == 0)
        return;
    m = memory_operand(&in);
    prepare(p, &in);
    if (m != NULL && in.vsib)
        place_gather(p, &in);
    else if (m != NULL)
        place(p, &in, b, target(p->r, p->c, m->size));
    prog_put(p, b, n, false);
}

bool prog_simple(struct prog *p, const struct x86_insn *in)
{
    unsigned i;

    for (i = 0; i < in->opnd_count; i++)
        if (in->opnd[i].kind == X86_OPND_MEM || in->opnd[i].kind == X86_OPND_REL)
            return false;
    switch (oracle_classify(in)) {
    case OC_INT:
    case OC_BIT:
    case OC_BMI:
    case OC_MULDIV:
    case OC_X87:
    case OC_MMX:
    case OC_SSE:
    case OC_AVX:
        break;
    default:
        return false;
    }
    return in->flags_read == 0 && (in->gpr_written & reg_bit(X86_RSP)) == 0 &&
           oracle_allowed(in, p->feature) && !uses_strings(in) && in->op != X86_DIV &&
           in->op != X86_IDIV && in->op != X86_SHLD && in->op != X86_SHRD;
}

unsigned prog_any_simple(struct prog *p, uint8_t *b, struct x86_insn *in)
{
    static const enum oracle_class some[] = {OC_INT, OC_INT, OC_INT, OC_BIT, OC_BMI,
                                             OC_X87, OC_MMX, OC_SSE, OC_AVX, OC_MULDIV};
    unsigned tries, n;

    for (tries = 0; tries < 1000; tries++) {
        n = try_insn(p->r, some[below(p->r, countof(some))], p->mode, b, in, p->feature);
        if (n != 0 && prog_simple(p, in))
            return n;
    }
    return 0;
}
