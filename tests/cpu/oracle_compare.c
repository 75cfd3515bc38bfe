/*
 * What must be equal, and what need not be: flags that the manual leaves undefined, images that
 * hold addresses, outcomes that belong to one processor. Every exception from equality stands here,
 * with its reason.
 */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "oracle.h"
#include "x86/state.h"

static const char *const gpr_name[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                         "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

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
static const struct x86_insn *faulted(const struct oracle_case *c, const struct oracle_result *r,
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

/* Flags that the instructions run leave undefined, of a single case. */
static uint32_t undefined_flags(const struct oracle_case *c, const struct oracle_result *r)
{
    unsigned done = completed(c, r), k;
    uint32_t mask = 0;

    for (k = 0; k < c->count && k <= done; k++) {
        const struct x86_insn *in = &c->insn[k];

        if (k < done && !(in->op >= X86_ROL && in->op <= X86_SHRD)) /* by 0: no flag is written */
            mask &= ~in->flags_written;
        if (in->op == X86_RDSEED)
            mask |= X86_FL_CF;       /* there may be none yet */
        mask |= in->flags_undefined; /* one that faulted may have touched them or not */
        /* A fault inside a repeated compare restores the flags on Intel's, not on AMD's. */
        if (k == done && in->rep != 0 && (in->op == X86_CMPS || in->op == X86_SCAS))
            mask |= X86_FL_ARITH;
    }
    return mask;
}

bool oracle_meaningful(const struct oracle_case *c)
{
    uint32_t mask = 0;
    unsigned k;

    for (k = 0; k < c->count; k++) {
        const struct x86_insn *in = &c->insn[k];

        if ((in->flags_read & mask) != 0)
            return false;
        /* Misaligned operands of SHA fault in Intel's manual, and do not on AMD's processors. */
        if (in->feature == X86_FEAT_SHA && in->modrm < 0xc0 &&
            (c->count > 1 ||
             (in->index != X86_REG_NONE && (in->base == X86_REG_NONE || in->base == in->index))))
            return false;
        mask = (mask & ~in->flags_written) | in->flags_undefined;
    }
    return c->count > 0;
}

struct report {
    bool print, bad;
};

static void differ(struct report *rep, const char *what, uint64_t host, uint64_t soft)
{
    rep->bad = true;
    if (!rep->print)
        return;
    printf("    %-8s host %016llx  soft %016llx\n", what, (unsigned long long)host,
           (unsigned long long)soft);
}

static void show_bytes(const char *what, const uint8_t *p, unsigned n)
{
    unsigned i;

    printf("    %-8s ", what);
    for (i = n; i-- > 0;)
        printf("%02x", p[i]);
    printf("\n");
}

void oracle_show_case(const struct oracle_case *c)
{
    unsigned k, i;
    char text[128];

    printf("case %#llx%s\n", (unsigned long long)c->seed,
           c->small    ? " (16-bit)"
           : c->compat ? " (32-bit)"
                       : "");
    for (k = 0; k < c->count; k++) {
        uint64_t lin = c->addr + c->off[k];
        const uint8_t *code = c->program ? c->prog + (lin - ORACLE_PROG) : c->code + c->off[k];
        unsigned len = c->insn[k].len;
        struct x86_insn in; /* addresses have been filled in since */

        if (x86_decode(code, len, oracle_mode(c), &in) != (int)len)
            continue; /* shrunk away */
        x86_format(&in, lin - c->cs_base, text, sizeof(text));
        printf("  %08llx:", (unsigned long long)lin);
        for (i = 0; i < len; i++)
            printf(" %02x", code[i]);
        printf("  %s\n", text);
    }
}

void oracle_show_input(const struct oracle_case *c)
{
    unsigned i, k;
    uint32_t mxcsr;
    bool vector = false, x87 = false;

    for (k = 0; k < c->count; k++) {
        const struct x86_insn *in = &c->insn[k];

        for (i = 0; i < in->opnd_count; i++) {
            vector |= in->opnd[i].kind == X86_OPND_REG && in->opnd[i].rclass == X86_RC_VEC;
            x87 |= in->opnd[i].kind == X86_OPND_REG && in->opnd[i].rclass == X86_RC_MMX;
        }
        x87 |= in->map == X86_MAP_ONE && in->op >= X86_FXSAVE;
    }
    for (i = 0; i < 16; i++)
        printf("    %s=%016llx%s", gpr_name[i], (unsigned long long)c->in.gpr[i],
               i % 4 == 3 ? "\n" : "");
    memcpy(&mxcsr, c->in.fx + 24, 4);
    printf("    rflags=%llx mxcsr=%x fcw=%02x%02x fsw=%02x%02x ftw=%02x\n",
           (unsigned long long)c->in.rflags, mxcsr, c->in.fx[1], c->in.fx[0], c->in.fx[3],
           c->in.fx[2], c->in.fx[4]);
    for (i = 0; vector && i < 16; i++) {
        bool used = false;
        char name[16];
        unsigned j;

        for (k = 0; k < c->count; k++)
            for (j = 0; j < c->insn[k].opnd_count; j++)
                used |= c->insn[k].opnd[j].kind == X86_OPND_REG &&
                        c->insn[k].opnd[j].rclass == X86_RC_VEC && c->insn[k].opnd[j].reg == i;
        if (!used)
            continue;
        snprintf(name, sizeof(name), "xmm%u", i);
        show_bytes(name, c->in.fx + 160 + 16 * i, 16);
    }
    for (i = 0; x87 && i < 8; i++) {
        char name[16];

        snprintf(name, sizeof(name), "st%u", i);
        show_bytes(name, c->in.fx + 32 + 16 * i, 10);
    }
}

static void differ_bytes(struct report *rep, const char *what, unsigned i, const uint8_t *host,
                         const uint8_t *soft, unsigned n)
{
    char name[16];

    rep->bad = true;
    if (!rep->print)
        return;
    snprintf(name, sizeof(name), "%s%u", what, i);
    show_bytes(name, host, n);
    show_bytes("   soft", soft, n);
}

static void compare_vectors(const struct oracle_result *host, const struct oracle_result *soft,
                            struct report *rep)
{
    const struct oracle_state *a = &host->out, *b = &soft->out;
    unsigned i;

    for (i = 0; i < 8; i++)
        if (memcmp(a->fx + 32 + 16 * i, b->fx + 32 + 16 * i, 10) != 0)
            differ_bytes(rep, "st", i, a->fx + 32 + 16 * i, b->fx + 32 + 16 * i, 10);
    for (i = 0; i < 16; i++) {
        if (memcmp(a->fx + 160 + 16 * i, b->fx + 160 + 16 * i, 16) != 0)
            differ_bytes(rep, "xmm", i, a->fx + 160 + 16 * i, b->fx + 160 + 16 * i, 16);
        if (memcmp(a->ymm + 16 * i, b->ymm + 16 * i, 16) != 0)
            differ_bytes(rep, "ymmh", i, a->ymm + 16 * i, b->ymm + 16 * i, 16);
    }
}

static uint32_t fx32(const struct oracle_result *r, unsigned off, unsigned size)
{
    uint32_t v = 0;

    memcpy(&v, r->out.fx + off, size);
    return v;
}

/* Linux hides whether a kernel address is mapped: it reports every one as present. */
static uint32_t visible_error(const struct oracle_result *r)
{
    return r->vector == X86_EXC_PF && r->cr2 >= 0x7ffffffff000 ? r->error | 1u : r->error;
}

/* The address of a fault in an operand of many parts is the processor's choice; its page is not. */
static uint64_t cr2_mask(const struct oracle_case *c, const struct oracle_result *r)
{
    struct x86_insn buf;
    const struct x86_insn *in = faulted(c, r, &buf);

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
static uint32_t mxcsr_mask(const struct oracle_case *c, const struct oracle_result *r)
{
    struct x86_insn buf;
    const struct x86_insn *in = faulted(c, r, &buf);
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
        const struct x86_insn *in = faulted(c, sides[i], &buf);

        if (sides[i]->vector == X86_EXC_AC && in != NULL && in->enc == X86_ENC_VEX)
            return true;
    }
    return false;
}

/*
 * To be taken out when they are mended: #AC comes before the check for a canonical address; bytes
 * that do not decode are not found again when a store makes an instruction of them.
 */
static bool known_bug(const struct oracle_case *c, const struct oracle_result *host,
                      const struct oracle_result *soft)
{
    struct x86_insn buf;
    const struct x86_insn *in = faulted(c, soft, &buf);

    if (soft->vector == X86_EXC_AC)
        return host->vector == X86_EXC_GP || host->vector == X86_EXC_SS;
    return c->program && soft->vector == X86_EXC_UD && host->vector != X86_EXC_UD && in != NULL &&
           oracle_classify(in) != OC_COUNT;
}

/*
 * Outcomes that belong to the processor at hand: MXCSR.MM, which AMD has; whether bytes that
 * MASKMOV leaves out are checked; which of two faults comes first; how far PUSHA got.
 */
static bool unspecified(const struct oracle_case *c, const struct oracle_result *host,
                        const struct oracle_result *soft)
{
    struct x86_insn buf;
    const struct x86_insn *in = faulted(c, soft, &buf);

    if ((host->out.fx[26] & 2) != 0)
        return true;
    /* a program may have loaded MXCSR.MM and gone on until something else stopped it */
    if (c->program && in != NULL && soft->vector == X86_EXC_GP && loads_mxcsr(in->op))
        return true;
    /* Are components touched that are not in use? AMD's processors do, the manuals do not say. */
    if (in != NULL && soft->vector == X86_EXC_PF && host->vector != X86_EXC_PF &&
        (in->op == X86_XSAVEC || in->op == X86_XSAVEOPT || in->op == X86_XRSTOR))
        return true;
    if (known_bug(c, host, soft) || alignment_of_vectors(c, host, soft))
        return true;
    in = faulted(c, host, &buf);
    switch (in != NULL ? in->op : X86_INVALID) {
    case X86_MASKMOVQ:
    case X86_MASKMOVDQU:
    case X86_VMASKMOVDQU:
    case X86_PUSHA:
    case X86_POPA:
        return true;
    case X86_CMPS:
        return soft->vector != X86_EXC_BP;
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
static void hide_pointers(const struct oracle_case *c, struct oracle_result *r)
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
static bool strayed(const struct oracle_case *c, const struct oracle_result *host)
{
    uint64_t at = c->addr + (host->out.rip - c->in.rip);

    if (host->vector == X86_EXC_BP)
        return host->out.rip - c->in.rip > c->len + 1u;
    return host->vector != X86_EXC_OF && completed(c, host) == c->count &&
           at - ORACLE_CODE < ORACLE_CODE_SIZE;
}

/* ---- flags of a program ---- */

struct flow {
    uint32_t undefined;
    bool unclear; /* something undefined was used, or an instruction ran that no rule here knows */
    bool started;
    const struct oracle_case *c;
    const bool *feature;
    struct x86_insn last;
};

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

/* The bytes of a saved image that compare_memory leaves out may not be used either. */
static bool uses_image(const struct oracle_case *c, const struct x86_insn *in,
                       const struct x86_state *st)
{
    uint64_t from = ORACLE_DATA + ORACLE_STATE_AREA - c->ds_base, ea = (uint64_t)in->disp;
    uint64_t mask = in->asize == 2 ? 0xffff : in->asize == 4 ? UINT32_MAX : UINT64_MAX;
    unsigned i;

    if (!c->state_area || (oracle_classify(in) == OC_STATE && in->op != X86_XSAVES))
        return false;
    if (oracle_classify(in) == OC_STRING) /* a count may lead there from below */
        return (st->gpr[X86_RSI] & mask) + 0x400 > from &&
               (st->gpr[X86_RSI] & mask) < from + ORACLE_WINDOW;
    for (i = 0; i < in->opnd_count && in->opnd[i].kind != X86_OPND_MEM; i++)
        ;
    if (i == in->opnd_count || in->op == X86_FLDENV || in->op == X86_FRSTOR)
        return false;
    ea += in->base < 16 ? st->gpr[in->base] : 0;
    ea += in->index < 16 && !in->vsib ? st->gpr[in->index] * in->scale : 0;
    return (ea & mask) + 64 > from && (ea & mask) < from + ORACLE_WINDOW - ORACLE_STATE_AREA;
}

static bool flow_step(void *ctx, const struct x86_insn *in, const struct x86_state *st)
{
    struct flow *f = ctx;

    if (f->started && !(f->last.op >= X86_ROL && f->last.op <= X86_SHRD))
        f->undefined &= ~f->last.flags_written; /* a shift by 0 writes none */
    if (f->started)
        f->undefined |= f->last.flags_undefined;
    f->started = true;
    f->last = *in;
    if ((in->flags_read & f->undefined) != 0)
        f->unclear = true;
    if ((in->op == X86_SHLD || in->op == X86_SHRD) && in->osize == 2 &&
        ((in->imm_size == 1 ? in->imm : st->gpr[X86_RCX]) & 31) > 16)
        f->unclear = true;
    if (eats_itself(f->c, in, st) || uses_image(f->c, in, st))
        f->unclear = true;
    if (in->op != X86_INT3 && in->op != X86_POPF &&
        (oracle_classify(in) == OC_COUNT || oracle_random(in) || !oracle_allowed(in, f->feature)))
        f->unclear = true;
    return !f->unclear;
}

/* ---- all of it ---- */

/* What must be equal of a register: all, or what a random value leaves. */
static uint64_t gpr_mask(const struct oracle_case *c, unsigned reg)
{
    const struct x86_insn *in = c->count > 0 ? &c->insn[c->count - 1] : NULL;

    if (c->compat)
        return in != NULL && !c->program && oracle_random(in) && (in->gpr_written >> reg & 1) != 0
                   ? 0
                   : UINT32_MAX;
    if (in == NULL || c->program || !oracle_random(in) || (in->gpr_written >> reg & 1) == 0)
        return UINT64_MAX;
    if (in->opnd_count == 0) /* EDX:EAX, ECX */
        return ~(uint64_t)UINT32_MAX;
    return in->osize == 2 ? ~(uint64_t)0xffff : in->osize == 4 ? ~(uint64_t)UINT32_MAX : 0;
}

static void compare_general(const struct oracle_case *c, const struct oracle_result *host,
                            const struct oracle_result *soft, uint32_t flags, struct report *rep)
{
    unsigned i;

    if (host->vector != soft->vector)
        differ(rep, "vector", host->vector, soft->vector);
    else if (host->vector >= 10 && host->vector <= 14 && visible_error(host) != visible_error(soft))
        differ(rep, "error", host->error, soft->error);
    else if (host->vector == X86_EXC_PF && ((host->cr2 ^ soft->cr2) & cr2_mask(c, host)) != 0)
        differ(rep, "cr2", host->cr2, soft->cr2);
    if (((host->out.rip ^ soft->out.rip) & (c->small ? 0xffff : UINT64_MAX)) != 0) /* IP may wrap */
        differ(rep, "rip", host->out.rip, soft->out.rip);
    for (i = 0; i < (c->compat ? 8u : 16u); i++)
        if (((host->out.gpr[i] ^ soft->out.gpr[i]) & gpr_mask(c, i)) != 0)
            differ(rep, gpr_name[i], host->out.gpr[i], soft->out.gpr[i]);
    if (host->out.fs_base != soft->out.fs_base)
        differ(rep, "fs base", host->out.fs_base, soft->out.fs_base);
    if (host->out.gs_base != soft->out.gs_base)
        differ(rep, "gs base", host->out.gs_base, soft->out.gs_base);
    if (((host->out.rflags ^ soft->out.rflags) & flags) != 0)
        differ(rep, "rflags", host->out.rflags & flags, soft->out.rflags & flags);
}

static void compare_control(const struct oracle_case *c, const struct oracle_result *host,
                            const struct oracle_result *soft, struct report *rep)
{
    if (((fx32(host, 24, 4) ^ fx32(soft, 24, 4)) & mxcsr_mask(c, host)) != 0)
        differ(rep, "mxcsr", fx32(host, 24, 4), fx32(soft, 24, 4));
    if (fx32(host, 0, 2) != fx32(soft, 0, 2))
        differ(rep, "fcw", fx32(host, 0, 2), fx32(soft, 0, 2));
    if (fx32(host, 2, 2) != fx32(soft, 2, 2))
        differ(rep, "fsw", fx32(host, 2, 2), fx32(soft, 2, 2));
    if (fx32(host, 4, 1) != fx32(soft, 4, 1))
        differ(rep, "ftw", fx32(host, 4, 1), fx32(soft, 4, 1));
}

static uint64_t fx64(const struct oracle_result *r, unsigned off)
{
    uint64_t v = 0;

    memcpy(&v, r->out.fx + off, 8);
    return v;
}

/*
 * AMD's processors save the last instruction's addresses only while an exception is pending;
 * Intel's may keep the operand's only then. That is what can be compared.
 */
static void compare_pointers(const struct oracle_result *host, const struct oracle_result *soft,
                             struct report *rep)
{
    if ((host->out.fx[2] & soft->out.fx[2] & 0x80) == 0)
        return;
    if (fx64(host, 8) != fx64(soft, 8))
        differ(rep, "fip", fx64(host, 8), fx64(soft, 8));
    if (fx32(host, 6, 2) != fx32(soft, 6, 2))
        differ(rep, "fop", fx32(host, 6, 2), fx32(soft, 6, 2));
    if (fx64(host, 16) != fx64(soft, 16))
        differ(rep, "fdp", fx64(host, 16), fx64(soft, 16));
}

static void compare_memory(const struct oracle_result *host, const struct oracle_result *soft,
                           struct report *rep)
{
    unsigned size = ORACLE_DATA_SIZE + ORACLE_PROG_SIZE, i;

    _Static_assert(offsetof(struct oracle_result, prog) ==
                       offsetof(struct oracle_result, data) + ORACLE_DATA_SIZE,
                   "code follows data");
    if (memcmp(host->data, soft->data, size) == 0)
        return;
    for (i = 0; i < size; i += 8) {
        bool code = i >= ORACLE_DATA_SIZE;
        const uint8_t *p = code ? host->prog + (i - ORACLE_DATA_SIZE) : host->data + i;
        const uint8_t *q = code ? soft->prog + (i - ORACLE_DATA_SIZE) : soft->data + i;
        uint64_t a, b;
        char name[16];

        memcpy(&a, p, 8);
        memcpy(&b, q, 8);
        if (a == b)
            continue;
        snprintf(name, sizeof(name), "%s+%#x", code ? "code" : "", code ? i - ORACLE_DATA_SIZE : i);
        differ(rep, name, a, b);
    }
}

static bool differs(const struct oracle_case *c, const struct oracle_result *host,
                    const struct oracle_result *soft, uint32_t undefined, bool print)
{
    uint32_t flags =
        (X86_FL_ARITH | X86_FL_DF | X86_FL_AC | X86_FL_ID | X86_FL_NT | X86_FL_TF) & ~undefined;
    struct report rep = {.print = print};

    compare_general(c, host, soft, flags, &rep);
    compare_control(c, host, soft, &rep);
    if (!c->state_area && c->state_ea == 0)
        compare_pointers(host, soft, &rep);
    compare_vectors(host, soft, &rep);
    compare_memory(host, soft, &rep);
    return rep.bad;
}

enum oracle_verdict oracle_compare(struct oracle_soft *engine, const struct oracle_case *c,
                                   struct oracle_result *host, struct oracle_result *soft,
                                   bool print)
{
    struct flow f = {.c = c, .feature = oracle_soft_features(engine)};
    uint32_t undefined = 0;

    if (unspecified(c, host, soft))
        return ORACLE_UNSPECIFIED;
    if (!c->program && host->vector != X86_EXC_BP && strayed(c, host))
        return ORACLE_UNSPECIFIED;
    hide_pointers(c, host);
    hide_pointers(c, soft);
    if (!c->program)
        undefined = strayed(c, host) ? X86_FL_ARITH : undefined_flags(c, host);
    if (!differs(c, host, soft, undefined, print && !c->program && !strayed(c, host)))
        return ORACLE_SAME;
    if (!c->program && !strayed(c, host))
        return ORACLE_DIFFERENT;
    if (!oracle_soft_trace(engine, c, flow_step, &f) || f.unclear)
        return ORACLE_UNSPECIFIED;
    f.undefined |= f.last.flags_undefined | undefined;
    if (f.last.rep != 0 && (f.last.op == X86_CMPS || f.last.op == X86_SCAS))
        f.undefined |= X86_FL_ARITH; /* as in undefined_flags */
    return differs(c, host, soft, f.undefined, print) ? ORACLE_DIFFERENT : ORACLE_SAME;
}
