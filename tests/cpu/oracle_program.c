/*
 * Random programs: up to thirty steps, each an instruction with what it needs before it, a branch
 * forward, a short loop, a call, a change of the program's own text. Every program comes to an end
 * by itself: at the INT3 behind it or by a fault.
 */
#include <string.h>

#include "base/bits.h"
#include "oracle_program.h"

#define STEPS 30u
#define FAR                                                                                        \
    100u /* a branch lands at the latest after so many bytes: its displacement is a byte           \
          */

/* ---- branches ---- */

static void set_field(struct prog *p, const struct prog_fix *f, uint64_t where)
{
    uint64_t v = f->end != 0 ? where - f->end : where;

    memcpy(p->c->prog + f->at, &v, f->size);
}

/* The branch leads here, where both ways meet. */
static void land(struct prog *p, unsigned k)
{
    struct prog_fix f = p->branch[k];
    unsigned at = prog_here(p);

    set_field(p, &f, f.end != 0 ? ORACLE_PROG + at : prog_address(p, at));
    p->known &= ~f.written;
    p->undefined |= f.undefined;
    p->branch[k] = p->branch[--p->branches];
}

static void land_due(struct prog *p, bool all)
{
    unsigned k = 0;

    while (k < p->branches) {
        struct prog_fix *f = &p->branch[k];
        bool far = prog_here(p) - f->at > FAR;

        if (all || far || f->steps == 0) {
            land(p, k);
        } else {
            f->steps--;
            k++;
        }
    }
}

static void later(struct prog *p, unsigned at, unsigned size, bool relative)
{
    p->branch[p->branches++] = (struct prog_fix){.at = at,
                                                 .size = size,
                                                 .end = relative ? ORACLE_PROG + prog_here(p) : 0,
                                                 .steps = 1 + below(p->r, 4),
                                                 .undefined = p->undefined};
}

/* Somewhere that cannot be executed: data, or nothing. */
static uint64_t nowhere(struct prog *p)
{
    return chance(p->r, 50) ? ORACLE_DATA + 0x800 + below(p->r, 16)
                            : ORACLE_PROG + ORACLE_PROG_SIZE + below(p->r, 16);
}

static void direct_branch(struct prog *p)
{
    struct x86_insn in;
    uint8_t b[15];
    unsigned tries, n = 0;

    for (tries = 0; tries < 1000 && n == 0; tries++) {
        n = try_insn(p->r, OC_BRANCH, p->mode, b, &in, p->feature);
        if (n != 0 && (in.opnd[0].kind != X86_OPND_REL || !prog_fits(p, &in)))
            n = 0;
    }
    if (n == 0)
        return;
    if (in.op == X86_CALL)
        prog_stack(p);
    memset(b + in.off_imm, 0, in.imm_size);
    if (!prog_put(p, b, n, false))
        return;
    later(p, prog_here(p) - n + in.off_imm, in.imm_size, true);
    if (in.imm_size == 4 && chance(p->r, 4)) {
        set_field(p, &p->branch[p->branches - 1], nowhere(p));
        p->branches--;
    }
}

/* jmp reg, call reg, jmp [reg], push imm and ret */
static void indirect_branch(struct prog *p)
{
    unsigned kind = below(p->r, 4), reg = prog_scratch(p, X86_RSP), at;
    bool small = p->mode == X86_MODE_16;

    if (kind == 0 || kind == 1) {
        if (kind == 1)
            prog_stack(p);
        at = prog_mov(p, reg, 0, false);
        PROG_PUT(p, 0xff, (uint8_t)((kind == 0 ? 0xe0 : 0xd0) | reg));
        p->known &= ~(1u << reg);
    } else if (kind == 2) {
        prog_mov(p, reg, ORACLE_DATA + ORACLE_WINDOW + 8 * (8 + below(p->r, 64)) - p->c->ds_base,
                 false);
        if (small)
            PROG_PUT(p, 0x67, 0xc7, (uint8_t)reg, 0, 0);
        else if (p->mode == X86_MODE_32)
            PROG_PUT(p, 0xc7, (uint8_t)reg, 0, 0, 0, 0);
        else
            PROG_PUT(p, 0x48, 0xc7, (uint8_t)reg, 0, 0, 0, 0);
        at = prog_here(p) - (small ? 2 : 4);
        if (small)
            PROG_PUT(p, 0x67, 0xff, (uint8_t)(0x20 | reg));
        else
            PROG_PUT(p, 0xff, (uint8_t)(0x20 | reg));
    } else {
        prog_stack(p);
        if (small)
            PROG_PUT(p, 0x68, 0, 0);
        else
            PROG_PUT(p, 0x68, 0, 0, 0, 0);
        at = prog_here(p) - (small ? 2 : 4);
        PROG_PUT(p, 0xc3);
    }
    if (!p->full)
        later(p, at, small && kind >= 2 ? 2 : 4, false);
}

/* A subroutine behind the program, which begins and ends unknown to it. */
static void call(struct prog *p)
{
    bool small = p->mode == X86_MODE_16;
    unsigned size = small ? 2 : 4;

    if (p->calls == PROG_CALLS)
        return;
    prog_stack(p);
    if (!(small ? PROG_PUT(p, 0xe8, 0, 0) : PROG_PUT(p, 0xe8, 0, 0, 0, 0)))
        return;
    p->call[p->calls++] = (struct prog_fix){
        .at = prog_here(p) - size, .size = size, .end = ORACLE_PROG + prog_here(p)};
    if (p->counter >= 0)
        p->call_avoid |= 1u << p->counter;
    p->known = 0;
    p->undefined |= X86_FL_ARITH;
}

/* ---- loops ---- */

static void loop_begin(struct prog *p)
{
    unsigned reg;

    do
        reg = below(p->r, p->c->compat ? 8 : 16);
    while (reg == X86_RSP);
    land_due(p, true); /* a branch over this would leave the counter alone */
    prog_mov(p, reg, 2 + below(p->r, 5), true);
    p->counter = (int)reg;
    p->loop_at = prog_here(p);
    p->loop_first = p->c->count;
    p->loop_left = 2 + below(p->r, 6);
    p->loop_undefined = p->undefined;
    p->known = 0;
}

static void put_back(struct prog *p, uint8_t opcode)
{
    int32_t d = (int32_t)p->loop_at - (int32_t)prog_here(p) - 2;
    uint32_t u;

    if (d >= -128 && chance(p->r, 80)) {
        prog_put(p, (const uint8_t[]){opcode, (uint8_t)d}, 2, true);
        return;
    }
    d -= p->mode == X86_MODE_16 ? 2 : 4;
    u = (uint32_t)d;
    if (p->mode == X86_MODE_16)
        prog_put(p, (const uint8_t[]){0x0f, 0x85, (uint8_t)u, (uint8_t)(u >> 8)}, 4, true);
    else
        prog_put(p,
                 (const uint8_t[]){0x0f, 0x85, (uint8_t)u, (uint8_t)(u >> 8), (uint8_t)(u >> 16),
                                   (uint8_t)(u >> 24)},
                 6, true);
}

static void loop_end(struct prog *p)
{
    unsigned reg = (unsigned)p->counter, n = 0;
    bool near = prog_here(p) - p->loop_at < 100;
    uint8_t b[8];

    if (reg == X86_RCX && near && (p->undefined & ~p->loop_undefined) == 0 && chance(p->r, 60)) {
        int32_t d = (int32_t)p->loop_at - (int32_t)prog_here(p) - 2;

        prog_put(p, (const uint8_t[]){0xe2, (uint8_t)d}, 2, true); /* loop */
    } else {
        if (p->mode == X86_MODE_16)
            b[n++] = 0x66;
        if (reg >= 8)
            b[n++] = 0x41;
        b[n++] = 0x83; /* sub reg, 1 */
        b[n++] = (uint8_t)(0xe8 | (reg & 7));
        b[n++] = 1;
        prog_put(p, b, n, true);
        put_back(p, 0x75);
    }
    p->counter = -1;
}

/* ---- flags, state ---- */

static void pop_flags(struct prog *p)
{
    uint32_t f = 0x202 | ((uint32_t)next(p->r) & X86_FL_ARITH);

    f |= chance(p->r, 20) ? X86_FL_DF : 0;
    f |= chance(p->r, 10) ? X86_FL_AC : 0;
    f |= chance(p->r, 10) ? X86_FL_NT : 0;
    f |= chance(p->r, 10) ? X86_FL_ID : 0;
    f |= chance(p->r, 10) ? X86_FL_TF : 0;
    prog_stack(p);
    if (p->mode == X86_MODE_16)
        PROG_PUT(p, 0x68, (uint8_t)f, (uint8_t)(f >> 8));
    else
        PROG_PUT(p, 0x68, (uint8_t)f, (uint8_t)(f >> 8), (uint8_t)(f >> 16), (uint8_t)(f >> 24));
    PROG_PUT(p, 0x9d);
}

/* FXSAVE, XSAVE, FNSAVE, FNSTENV and what restores them, all in one place. */
static void save_state(struct prog *p)
{
    static const uint8_t forms[][2] = {{0xae, 0}, {0xae, 1}, {0xae, 4}, {0xae, 5},
                                       {0xdd, 6}, {0xdd, 4}, {0xd9, 6}, {0xd9, 4}};
    const uint8_t *form = forms[below(p->r, countof(forms))];
    bool env = form[0] != 0xae;
    unsigned n = 0, rm = X86_RSI + below(p->r, 2);
    uint8_t b[8];

    if (p->counter == X86_RAX || p->counter == X86_RDX || p->counter == (int)rm)
        return;
    if (!env && form[1] >= 4) {
        prog_mov(p, X86_RAX, below(p->r, 8), true); /* the host has more components */
        prog_mov(p, X86_RDX, 0, true);
    }
    prog_mov(p, rm,
             ORACLE_DATA + (env ? ORACLE_STATE_AREA + ORACLE_STATE_ENV : ORACLE_STATE_AREA) -
                 p->c->ds_base,
             true);
    if (p->mode == X86_MODE_16)
        b[n++] = 0x67;
    if (p->mode == X86_MODE_64 && !env && chance(p->r, 50))
        b[n++] = 0x48;
    if (!env)
        b[n++] = 0x0f;
    b[n++] = form[0];
    b[n++] = (uint8_t)((unsigned)form[1] << 3 | rm);
    prog_put(p, b, n, false);
    p->c->state_area = true;
}

/* ---- all of it ---- */

static void step(struct prog *p)
{
    unsigned kind = below(p->r, 100), k;

    for (k = 0; k < PROG_CHANGES; k++)
        if (p->change[k].used && p->change[k].steps-- == 0 && !prog_changed(p, &p->change[k]))
            p->change[k].steps = 1;
    land_due(p, false);
    if (p->counter >= 0 && p->loop_left-- == 0) {
        loop_end(p);
        return;
    }
    if (kind < 8 && p->branches < PROG_BRANCHES)
        direct_branch(p);
    else if (kind < 11 && p->branches < PROG_BRANCHES)
        indirect_branch(p);
    else if (kind < 14)
        call(p);
    else if (kind < 22 && p->counter < 0)
        loop_begin(p);
    else if (kind < 32)
        prog_change(p);
    else if (kind < 34)
        pop_flags(p);
    else if (kind < 36)
        save_state(p);
    else
        prog_random(p);
}

static void finish(struct prog *p)
{
    unsigned k;

    if (p->counter >= 0)
        loop_end(p);
    for (k = 0; k < PROG_CHANGES; k++)
        if (p->change[k].used)
            prog_changed(p, &p->change[k]);
    land_due(p, true);
}

/* One or two instructions and RET, behind the INT3 or in the other page. */
static void subroutine(struct prog *p, const struct prog_fix *f, unsigned *behind)
{
    bool other = chance(p->r, 30);
    unsigned at = other ? (p->start < 0x1000 ? 0x1800 : 0x100) + below(p->r, 0x600)
                        : *behind + 1 + below(p->r, 8);
    unsigned len = p->c->len, from = at, count = 1 + below(p->r, 2), n;
    struct x86_insn in;
    uint8_t b[15];

    if (other && at + 40 > p->start && at < *behind)
        at = from = *behind + 1;
    if (at + 40 > ORACLE_PROG_SIZE)
        return;
    p->c->len = at - p->start; /* may wrap round: only sums are used */
    while (count-- > 0) {
        n = prog_any_simple(p, b, &in);
        if (n != 0 && (in.gpr_written & p->call_avoid) == 0)
            prog_put(p, b, n, false);
    }
    if (PROG_PUT(p, 0xc3))
        set_field(p, f, ORACLE_PROG + from);
    if (!other)
        *behind = prog_here(p);
    p->c->len = len;
}

static unsigned choose_start(struct rng *r)
{
    unsigned kind = below(r, 100);

    if (kind < 40)
        return 64 + below(r, 0xc00);
    if (kind < 80)
        return 0x1000 - below(r, 160);
    if (kind < 90)
        return 0x1000 + below(r, 0xc00);
    return ORACLE_PROG_SIZE - below(r, 200) - 1;
}

void oracle_program(struct rng *r, struct oracle_case *c, const bool feature[X86_FEAT_HIDDEN + 1])
{
    struct prog p = {
        .r = r, .c = c, .feature = feature, .mode = oracle_mode(c), .counter = -1, .known = 0xffff};
    unsigned steps, i, behind;

    p.start = choose_start(r);
    c->addr = ORACLE_PROG + p.start;
    memset(c->prog, 0xcc, sizeof(c->prog));
    fill_state(r, c);
    narrow_registers(c);
    memcpy(p.val, c->in.gpr, sizeof(p.val));
    steps = 1 + below(r, STEPS);
    for (i = 0; i < steps && !p.full && c->count < ORACLE_INSNS - 16; i++)
        step(&p);
    finish(&p);
    behind = prog_here(&p);
    p.full = false;
    p.known = 0;
    for (i = 0; i < p.calls; i++)
        subroutine(&p, &p.call[i], &behind);
}
