/*
 * What a program did, followed instruction by instruction in the software CPU: which flags are
 * undefined, and whether something ran whose outcome no rule knows.
 */
#include "oracle_compare.h"

/* Does it overwrite itself? Processors differ in when they notice. */
static bool eats_itself(const struct oracle_case *c, const struct x86_insn *in,
                        const struct x86_state *st)
{
    uint64_t size = in->opnd[0].size, bytes = (st->gpr[X86_RCX] & 0xffff) * size;
    uint64_t from = st->gpr[X86_RDI] + c->ds_base, rip = st->rip + c->cs_base;

    if (in->rep == 0 || (in->op != X86_MOVS && in->op != X86_STOS) || bytes == 0)
        return false;
    if ((st->rflags & X86_FL_DF) != 0)
        from -= bytes - size;
    return from < rip + in->len && rip < from + bytes;
}

static uint64_t address_mask(const struct x86_insn *in)
{
    return in->asize == 2 ? 0xffff : in->asize == 4 ? UINT32_MAX : UINT64_MAX;
}

static uint64_t effective(const struct x86_insn *in, const struct x86_state *st)
{
    uint64_t ea = (uint64_t)in->disp;

    ea += in->base < 16 ? st->gpr[in->base] : 0;
    ea += in->index < 16 && !in->vsib ? st->gpr[in->index] * in->scale : 0;
    return ea & address_mask(in);
}

/* FPU state saved or loaded, but not in the way that the generator does it: see
 * rule_hide_pointers. */
static bool foreign_image(const struct oracle_case *c, const struct x86_insn *in,
                          const struct x86_state *st)
{
    uint64_t area = ORACLE_DATA + ORACLE_STATE_AREA - c->ds_base, ea = effective(in, st);

    if (oracle_classify(in) != OC_STATE)
        return false;
    return !c->state_area || (ea != area && ea != area + ORACLE_STATE_ENV) ||
           (in->feature >= X86_FEAT_XSAVE && in->feature <= X86_FEAT_XSAVES &&
            ((st->gpr[X86_RAX] & ~7ull) | st->gpr[X86_RDX]) != 0);
}

/* The bytes of a saved image that rule_hide_pointers leaves out may not be used either. */
static bool uses_image(const struct oracle_case *c, const struct x86_insn *in,
                       const struct x86_state *st)
{
    uint64_t from = ORACLE_DATA + ORACLE_STATE_AREA - c->ds_base, ea = effective(in, st);
    uint64_t rsi = st->gpr[X86_RSI] & address_mask(in);
    unsigned i;

    if (!c->state_area || oracle_classify(in) == OC_STATE)
        return false;
    if (oracle_classify(in) == OC_STRING) /* a count may lead there from below */
        return rsi + 0x400 > from && rsi < from + ORACLE_WINDOW;
    for (i = 0; i < in->opnd_count && in->opnd[i].kind != X86_OPND_MEM; i++)
        ;
    if (i == in->opnd_count || in->op == X86_FLDENV || in->op == X86_FRSTOR)
        return false;
    return ea + 64 > from && ea < from + ORACLE_WINDOW - ORACLE_STATE_AREA;
}

/* AMD's processors allow it. */
static bool misaligned_sha(const struct oracle_case *c, const struct x86_insn *in,
                           const struct x86_state *st)
{
    return in->feature == X86_FEAT_SHA && in->modrm < 0xc0 &&
           ((effective(in, st) + c->ds_base) & 15) != 0;
}

/* An unmasked #IA waits: flags and condition codes are those of the vendor (see rule_fsw_mask). */
static bool invalid_waits(const struct x86_state *st)
{
    return (st->xsave[0] & 1) == 0 && (st->xsave[2] & 1) != 0;
}

bool flow_step(void *ctx, const struct x86_insn *in, const struct x86_state *st)
{
    struct flow *f = ctx;

    if (f->started && !(f->last.op >= X86_ROL && f->last.op <= X86_SHRD))
        f->undefined &= ~f->last.flags_written; /* a shift by 0 writes none */
    if (f->started)
        f->undefined |= f->last.flags_undefined;
    if (f->started && rule_flags_by_x87(&f->last) && invalid_waits(st))
        f->undefined |= X86_FL_ARITH;
    f->codes |= invalid_waits(st);
    if (rule_reads_status(in) && f->codes)
        f->unclear = true;
    f->started = true;
    f->last = *in;
    if ((in->flags_read & f->undefined) != 0)
        f->unclear = true;
    if ((in->op == X86_SHLD || in->op == X86_SHRD) && in->osize == 2 &&
        ((in->imm_size == 1 ? in->imm : st->gpr[X86_RCX]) & 31) > 16)
        f->unclear = true;
    if (eats_itself(f->c, in, st) || misaligned_sha(f->c, in, st) || foreign_image(f->c, in, st) ||
        uses_image(f->c, in, st))
        f->unclear = true;
    if (in->op != X86_INT3 && in->op != X86_POPF &&
        (oracle_classify(in) == OC_COUNT || oracle_random(in) || !oracle_allowed(in, f->feature)))
        f->unclear = true;
    return !f->unclear;
}
