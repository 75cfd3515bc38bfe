/* What must be equal, once the rules have been asked. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "oracle_compare.h"

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

static void differ_bytes(struct report *rep, const char *what, unsigned i, const uint8_t *host,
                         const uint8_t *soft, unsigned n)
{
    char name[16];

    rep->bad = true;
    if (!rep->print)
        return;
    snprintf(name, sizeof(name), "%s%u", what, i);
    oracle_show_bytes(name, host, n);
    oracle_show_bytes("   soft", soft, n);
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
    else if (host->vector >= 10 && host->vector <= 14 &&
             rule_visible_error(host) != rule_visible_error(soft))
        differ(rep, "error", host->error, soft->error);
    else if (host->vector == X86_EXC_PF && ((host->cr2 ^ soft->cr2) & rule_cr2_mask(c, host)) != 0)
        differ(rep, "cr2", host->cr2, soft->cr2);
    if (rep->bad || /* IP may wrap */
        ((host->out.rip ^ soft->out.rip) & (c->small ? 0xffff : UINT64_MAX)) != 0)
        differ(rep, "rip", host->out.rip, soft->out.rip);
    for (i = 0; i < (c->compat ? 8u : 16u); i++)
        if (((host->out.gpr[i] ^ soft->out.gpr[i]) & gpr_mask(c, i)) != 0)
            differ(rep, oracle_gpr_name[i], host->out.gpr[i], soft->out.gpr[i]);
    if (host->out.fs_base != soft->out.fs_base)
        differ(rep, "fs base", host->out.fs_base, soft->out.fs_base);
    if (host->out.gs_base != soft->out.gs_base)
        differ(rep, "gs base", host->out.gs_base, soft->out.gs_base);
    if (((host->out.rflags ^ soft->out.rflags) & flags) != 0)
        differ(rep, "rflags", host->out.rflags & flags, soft->out.rflags & flags);
}

static void compare_control(const struct oracle_case *c, const struct oracle_result *host,
                            const struct oracle_result *soft, uint32_t fsw, struct report *rep)
{
    if (((fx32(host, 24, 4) ^ fx32(soft, 24, 4)) & rule_mxcsr_mask(c, host)) != 0)
        differ(rep, "mxcsr", fx32(host, 24, 4), fx32(soft, 24, 4));
    if (fx32(host, 0, 2) != fx32(soft, 0, 2))
        differ(rep, "fcw", fx32(host, 0, 2), fx32(soft, 0, 2));
    if (((fx32(host, 2, 2) ^ fx32(soft, 2, 2)) & fsw) != 0)
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
                    const struct oracle_result *soft, uint32_t undefined, uint32_t fsw, bool print)
{
    uint32_t flags =
        (X86_FL_ARITH | X86_FL_DF | X86_FL_AC | X86_FL_ID | X86_FL_NT | X86_FL_TF) & ~undefined;
    struct report rep = {.print = print};

    compare_general(c, host, soft, flags, &rep);
    compare_control(c, host, soft, fsw, &rep);
    if (!c->state_area && c->state_ea == 0)
        compare_pointers(host, soft, &rep);
    compare_vectors(host, soft, &rep);
    compare_memory(host, soft, &rep);
    return rep.bad;
}

static bool invalid_at_end(const struct oracle_result *r)
{
    return (r->out.fx[0] & 1) == 0 && (r->out.fx[2] & 1) != 0;
}

/*
 * Translated code does not compute flags that the code after it overwrites unread (decision 0013).
 * They can be seen where that code does not run: after a fault, and where a store has made other
 * instructions of it.
 */
static bool shows_dead_flags(const struct oracle_case *c, const struct oracle_result *host)
{
    if (host->vector != X86_EXC_BP && host->vector != X86_EXC_DB && host->vector != X86_EXC_OF)
        return true;
    return c->program && memcmp(c->prog, host->prog, sizeof(c->prog)) != 0;
}

enum oracle_verdict oracle_compare(struct oracle_soft *engine, const struct oracle_case *c,
                                   struct oracle_result *host, struct oracle_result *soft,
                                   bool print)
{
    struct flow f = {.c = c, .feature = oracle_soft_features(engine)};
    uint32_t undefined = 0, fsw = c->program ? 0xffff : rule_fsw_mask(c, host);

    if (rule_unspecified(c, host, soft))
        return ORACLE_UNSPECIFIED;
    if (!c->program && host->vector != X86_EXC_BP && rule_strayed(c, host))
        return ORACLE_UNSPECIFIED;
    rule_hide_pointers(c, host);
    rule_hide_pointers(c, soft);
    if (!c->program)
        undefined = rule_strayed(c, host) ? X86_FL_ARITH : rule_undefined_flags(c, host);
    if (!oracle_soft_interprets(engine) && shows_dead_flags(c, host))
        undefined |= X86_FL_ARITH;
    if (!differs(c, host, soft, undefined, fsw, print && !c->program && !rule_strayed(c, host)))
        return ORACLE_SAME;
    if (!c->program && !rule_strayed(c, host))
        return ORACLE_DIFFERENT;
    if (!oracle_soft_trace(engine, c, flow_step, &f) || f.unclear)
        return ORACLE_UNSPECIFIED;
    f.undefined |= f.last.flags_undefined | undefined;
    if (rule_flags_by_x87(&f.last)) /* see rule_fsw_mask */
        f.undefined |= X86_FL_ARITH;
    if (f.last.rep != 0 && (f.last.op == X86_CMPS || f.last.op == X86_SCAS))
        f.undefined |= X86_FL_ARITH; /* as in rule_undefined_flags */
    if (f.codes || invalid_at_end(host))
        fsw &= 0xbaff;
    return differs(c, host, soft, f.undefined, fsw, print) ? ORACLE_DIFFERENT : ORACLE_SAME;
}
