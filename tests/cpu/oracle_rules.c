/*
 * What need not be equal: flags that the manual leaves undefined, images that hold addresses,
 * outcomes that belong to one processor. Each exception stands here with its reason, or in
 * oracle_flow.c, if it needs to be known what a program did.
 */
#include <string.h>

#include "oracle_compare.h"

/* Instructions of a single case that were complete when it ended at rip. */
static unsigned completed(const struct oracle_case *c, const struct oracle_result *r)
{
    unsigned k;

    if (r->vector == X86_EXC_BP)
        return c->count;
    for (k = 0; k < c->count; k++)
        if (r->out.rip == c->in.rip + c->off[k])
            return k;
    return c->count; /* a fault at a branch's target */
}

/* The instruction that faulted; NULL: none did, or it is not known. */
const struct x86_insn *rule_faulted(const struct oracle_case *c, const struct oracle_result *r,
                                    struct x86_insn *buf)
{
    uint64_t off = r->out.rip + c->cs_base - ORACLE_PROG;
    unsigned k;

    if (r->vector == X86_EXC_BP || r->vector == X86_EXC_DB)
        return NULL;
    if (!c->program) {
        k = completed(c, r);
        return k < c->count ? &c->insn[k] : NULL;
    }
    if (off >= ORACLE_PROG_SIZE ||
        x86_decode(r->prog + off, ORACLE_PROG_SIZE - off, oracle_mode(c), buf) <= 0)
        return NULL;
    return buf;
}

/* Was #IA unmasked at the beginning or at the end? FLDCW may stand in between. */
static bool invalid_unmasked(const struct oracle_case *c, const struct oracle_result *r)
{
    return (c->in.fx[0] & r->out.fx[0] & 1) == 0;
}

/* With an unmasked #IA Intel's leave C0, C2 and C3 as they were, AMD's set them. */
uint32_t rule_fsw_mask(const struct oracle_case *c, const struct oracle_result *host)
{
    bool invalid = (host->out.fx[2] & 1) != 0 || c->count > 1; /* FNCLEX clears only the flag */

    return invalid_unmasked(c, host) && invalid ? 0xbaff : 0xffff;
}

bool rule_flags_by_x87(const struct x86_insn *in)
{
    return in->op == X86_FCOMI || in->op == X86_FCOMIP || in->op == X86_FUCOMI ||
           in->op == X86_FUCOMIP;
}

/* Flags that the instructions run leave undefined, of a single case. */
uint32_t rule_undefined_flags(const struct oracle_case *c, const struct oracle_result *r)
{
    unsigned done = completed(c, r), k;
    uint32_t mask = 0;

    for (k = 0; k < c->count && k <= done; k++) {
        const struct x86_insn *in = &c->insn[k];

        if (k < done && !(in->op >= X86_ROL && in->op <= X86_SHRD)) /* by 0: no flag is written */
            mask &= ~in->flags_written;
        /* With an unmasked #IA Intel's leave the flags of FCOMI as they were, AMD's set them. */
        if (rule_flags_by_x87(in) && invalid_unmasked(c, r))
            mask |= X86_FL_ARITH;
        if (in->op == X86_RDSEED)
            mask |= X86_FL_CF;       /* there may be none yet */
        mask |= in->flags_undefined; /* one that faulted may have touched them or not */
        /* A fault inside a repeated compare restores the flags on Intel's, not on AMD's. */
        if (k == done && in->rep != 0 && (in->op == X86_CMPS || in->op == X86_SCAS))
            mask |= X86_FL_ARITH;
    }
    return mask;
}

bool rule_reads_status(const struct x86_insn *in)
{
    return in->op == X86_FNSTSW || in->op == X86_FNSTENV || in->op == X86_FNSAVE ||
           oracle_classify(in) == OC_STATE;
}

/* Can #IA be unmasked when the last instruction runs? */
static bool may_unmask(const struct oracle_case *c)
{
    unsigned k;

    for (k = 0; k < c->count; k++)
        if (c->insn[k].op == X86_FLDCW || c->insn[k].op == X86_FLDENV ||
            c->insn[k].op == X86_FRSTOR)
            return true;
    return (c->in.fx[0] & 1) == 0;
}

bool oracle_meaningful(const struct oracle_case *c)
{
    uint32_t mask = 0;
    bool unmask = may_unmask(c), codes = false;
    unsigned k;

    for (k = 0; k < c->count; k++) {
        const struct x86_insn *in = &c->insn[k];

        if ((in->flags_read & mask) != 0 || (codes && rule_reads_status(in)))
            return false;
        /* Misaligned operands of SHA fault in Intel's manual, and do not on AMD's processors. */
        if (in->feature == X86_FEAT_SHA && in->modrm < 0xc0 &&
            (c->count > 1 ||
             (in->index != X86_REG_NONE && (in->base == X86_REG_NONE || in->base == in->index))))
            return false;
        mask = (mask & ~in->flags_written) | in->flags_undefined;
        if (unmask && rule_flags_by_x87(in)) /* see rule_fsw_mask */
            mask |= X86_FL_ARITH;
        codes |= unmask && oracle_classify(in) == OC_X87;
    }
    return c->count > 0;
}

/* Linux hides whether a kernel address is mapped: it reports every one as present. */
uint32_t rule_visible_error(const struct oracle_result *r)
{
    return r->vector == X86_EXC_PF && r->cr2 >= 0x7ffffffff000 ? r->error | 1u : r->error;
}

/* The address of a fault in an operand of many parts is the processor's choice; its page is not. */
uint64_t rule_cr2_mask(const struct oracle_case *c, const struct oracle_result *r)
{
    struct x86_insn buf;
    const struct x86_insn *in = rule_faulted(c, r, &buf);

    switch (in != NULL ? in->op : X86_INVALID) {
    case X86_FRSTOR:
    case X86_FLDENV:
    case X86_FXSAVE:
    case X86_FXRSTOR:
    case X86_XSAVE:
    case X86_XSAVEC:
    case X86_XSAVEOPT:
    case X86_XRSTOR:
    case X86_MASKMOVQ:
    case X86_MASKMOVDQU:
    case X86_VMASKMOVDQU:
        return ~0xfffull;
    case X86_CMPS: /* which of the two is read first */
        return 0;
    default:
        return UINT64_MAX;
    }
}

/*
 * After an unmasked underflow or overflow PE tells whether the result is inexact with unbounded
 * exponents, which a run with masked exceptions does not show: a documented difference.
 */
uint32_t rule_mxcsr_mask(const struct oracle_case *c, const struct oracle_result *r)
{
    struct x86_insn buf;
    const struct x86_insn *in = rule_faulted(c, r, &buf);
    uint32_t m;

    memcpy(&m, r->out.fx + 24, 4);
    if (r->vector != X86_EXC_XM)
        return UINT32_MAX;
    switch (in != NULL ? in->op : X86_INVALID) {
    case X86_DPPS: /* several operations in a row: which came before the exception is not known */
    case X86_DPPD:
    case X86_VDPPS:
    case X86_VDPPD:
        return ~0x3fu;
    default:
        return (m & ~(m >> 7) & 0x18) != 0 ? ~0x20u : UINT32_MAX;
    }
}

static bool loads_mxcsr(unsigned op)
{
    return op == X86_LDMXCSR || op == X86_VLDMXCSR || op == X86_FXRSTOR || op == X86_XRSTOR;
}

/*
 * Is a wide or masked access checked for alignment as a whole, as its halves, or by its elements?
 * AMD's processors do none of that for masked ones.
 */
static bool alignment_of_vectors(const struct oracle_case *c, const struct oracle_result *host,
                                 const struct oracle_result *soft)
{
    const struct oracle_result *sides[] = {host, soft};
    struct x86_insn buf;
    unsigned i;

    if (host->vector == soft->vector && host->out.rip == soft->out.rip)
        return false;
    for (i = 0; i < 2; i++) {
        const struct x86_insn *in = rule_faulted(c, sides[i], &buf);

        if (sides[i]->vector == X86_EXC_AC && in != NULL && in->enc == X86_ENC_VEX)
            return true;
    }
    return false;
}

/*
 * Outcomes that belong to the processor at hand: MXCSR.MM, which AMD has; whether bytes that
 * MASKMOV leaves out are checked; which of two faults comes first; how far PUSHA got.
 */
bool rule_unspecified(const struct oracle_case *c, const struct oracle_result *host,
                      const struct oracle_result *soft)
{
    struct x86_insn buf;
    const struct x86_insn *in = rule_faulted(c, soft, &buf);

    if ((host->out.fx[26] & 2) != 0)
        return true;
    /* a program may have loaded MXCSR.MM and gone on until something else stopped it */
    if (c->program && in != NULL && soft->vector == X86_EXC_GP && loads_mxcsr(in->op))
        return true;
    /* Are components touched that are not in use? AMD's processors do, the manuals do not say. */
    if (in != NULL && soft->vector == X86_EXC_PF && host->vector != X86_EXC_PF &&
        (in->op == X86_XSAVEC || in->op == X86_XSAVEOPT || in->op == X86_XRSTOR))
        return true;
    if (alignment_of_vectors(c, host, soft))
        return true;
    in = rule_faulted(c, host, &buf);
    switch (in != NULL ? in->op : X86_INVALID) {
    case X86_MASKMOVQ:
    case X86_MASKMOVDQU:
    case X86_VMASKMOVDQU:
    case X86_PUSHA:
    case X86_POPA:
        return true;
    case X86_CMPS:
        return soft->vector != X86_EXC_BP;
    case X86_FLD: /* ten bytes: does the absent page come first, or the segment's end behind it? */
    case X86_FSTP:
    case X86_FBLD:
    case X86_FBSTP:
        return c->small && host->vector == X86_EXC_PF && in->opnd[0].size == 10 &&
               (soft->vector == X86_EXC_GP || soft->vector == X86_EXC_SS);
    case X86_CALL:
    case X86_CMPXCHG16B:
    case X86_FLDENV:
    case X86_FRSTOR:
    case X86_FNSTENV:
    case X86_FNSAVE:
    case X86_FXSAVE:
    case X86_FXRSTOR:
        return host->vector != soft->vector && soft->vector != X86_EXC_BP;
    case X86_XSAVE:
    case X86_XSAVEC:
    case X86_XSAVEOPT:
    case X86_XRSTOR:
        return host->vector != soft->vector;
    default:
        return false;
    }
}

/*
 * Bytes of a stored image that the host's unit fills with what only it knows: addresses of the last
 * instruction, MXCSR's mask.
 */
void rule_hide_pointers(const struct oracle_case *c, struct oracle_result *r)
{
    uint8_t *area = r->data + ORACLE_STATE_AREA;
    uint64_t off = c->state_ea - ORACLE_DATA;
    const struct x86_insn *in = c->insn + c->count - 1;
    unsigned first = 6, len = 18;

    if (c->program && c->state_area) { /* several images, one upon the other */
        memset(area + 6, 0, 18);
        memset(area + 28, 0, 4);
        memset(area + 512, 0, 8); /* which components are in use */
        memset(area + ORACLE_STATE_ENV + 6, 0, 22);
    }
    if (c->state_ea == 0 || off > ORACLE_DATA_SIZE - 32)
        return;
    if (in->op == X86_FNSTENV || in->op == X86_FNSAVE) {
        bool small = ((in->prefixes & X86_PFX_OPSIZE) != 0) != c->small && (in->rex & 8) == 0;

        first = small ? 6 : 12;
        len = small ? 8 : 16;
    } else if (in->op == X86_XRSTOR || in->op == X86_FXRSTOR) {
        return;
    } else {
        memset(r->data + off + 28, 0, 4);
    }
    memset(r->data + off + first, 0, len);
}

/*
 * A branch led to what another case has left in the code area, and the end was there: instructions
 * may have run that no rule here has looked at. What processors disagree about is not known then:
 * the flags at a breakpoint, everything at a fault.
 */
bool rule_strayed(const struct oracle_case *c, const struct oracle_result *host)
{
    uint64_t at = c->addr + (host->out.rip - c->in.rip);

    if (host->vector == X86_EXC_BP)
        return host->out.rip - c->in.rip > c->len + 1u;
    return host->vector != X86_EXC_OF && completed(c, host) == c->count &&
           at - ORACLE_CODE < ORACLE_CODE_SIZE;
}
