/*
 * The soft engine against the host CPU.
 *
 *   oracle [--seed N] [--count N] [--only CLASS] [--case SEED] [--max N]
 *
 * Every case has a seed of its own; a mismatch prints it, and --case runs just that one.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "oracle.h"
#include "x86/state.h"

#define BATCH 256u

struct options {
    uint64_t seed, count, one;
    bool have_one;
    enum oracle_class only;
    unsigned max;
};

static const char *const gpr_name[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                         "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};

/* Instructions that were complete when the case ended at rip. */
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

/* Condition codes after an unmasked #IA: Intel's leave them, AMD's do not. */
static uint32_t fsw_mask(const struct oracle_case *c, const struct oracle_result *host)
{
    return (c->in.fx[0] & 1) == 0 && (host->out.fx[2] & 1) != 0 ? 0xbaff : 0xffff;
}

static bool sets_flags_by_x87(unsigned op)
{
    return op == X86_FCOMI || op == X86_FCOMIP || op == X86_FUCOMI || op == X86_FUCOMIP;
}

/* Flags that the instructions run leave undefined. */
static uint32_t undefined_flags(const struct oracle_case *c, const struct oracle_result *r)
{
    unsigned done = completed(c, r), k;
    uint32_t mask = 0;

    for (k = 0; k < c->count && k <= done; k++) {
        const struct x86_insn *in = &c->insn[k];

        if (k < done && !(in->op >= X86_ROL && in->op <= X86_SHRD)) /* by 0: no flag is written */
            mask &= ~in->flags_written;
        mask |= in->flags_undefined; /* one that faulted may have touched them or not */
        /* With an unmasked #IA Intel's leave the flags of FCOMI as they were, AMD's set them. */
        if (sets_flags_by_x87(in->op) && (c->in.fx[0] & 1) == 0)
            mask |= X86_FL_ARITH;
        /* A fault inside a repeated compare restores the flags on Intel's, not on AMD's. */
        if (k == done && in->rep != 0 && (in->op == X86_CMPS || in->op == X86_SCAS))
            mask |= X86_FL_ARITH;
    }
    return mask;
}

/* Instructions that read flags which are undefined make the rest of the case meaningless. */
static bool meaningful(const struct oracle_case *c)
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

static void differ(bool *bad, const char *what, uint64_t host, uint64_t soft)
{
    if (!*bad)
        *bad = true;
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

static void show_case(const struct oracle_case *c)
{
    unsigned k, i;
    char text[128];

    printf("case %#llx%s\n", (unsigned long long)c->seed,
           c->small    ? " (16-bit)"
           : c->compat ? " (32-bit)"
                       : "");
    for (k = 0; k < c->count; k++) {
        uint64_t rip = c->addr + c->off[k];

        x86_format(&c->insn[k], rip, text, sizeof(text));
        printf("  %08llx:", (unsigned long long)rip);
        for (i = c->off[k]; i < c->off[k + 1]; i++)
            printf(" %02x", c->code[i]);
        printf("  %s\n", text);
    }
}

static void show_input(const struct oracle_case *c)
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

static void compare_vectors(const struct oracle_result *host, const struct oracle_result *soft,
                            bool *bad)
{
    char name[16];
    unsigned i;

    for (i = 0; i < 8; i++) {
        if (memcmp(host->out.fx + 32 + 16 * i, soft->out.fx + 32 + 16 * i, 10) == 0)
            continue;
        snprintf(name, sizeof(name), "st%u", i);
        *bad = true;
        show_bytes(name, host->out.fx + 32 + 16 * i, 10);
        show_bytes("   soft", soft->out.fx + 32 + 16 * i, 10);
    }
    for (i = 0; i < 16; i++) {
        if (memcmp(host->out.fx + 160 + 16 * i, soft->out.fx + 160 + 16 * i, 16) != 0) {
            snprintf(name, sizeof(name), "xmm%u", i);
            *bad = true;
            show_bytes(name, host->out.fx + 160 + 16 * i, 16);
            show_bytes("   soft", soft->out.fx + 160 + 16 * i, 16);
        }
        if (memcmp(host->out.ymm + 16 * i, soft->out.ymm + 16 * i, 16) != 0) {
            snprintf(name, sizeof(name), "ymmh%u", i);
            *bad = true;
            show_bytes(name, host->out.ymm + 16 * i, 16);
            show_bytes("   soft", soft->out.ymm + 16 * i, 16);
        }
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
    unsigned k = completed(c, r);

    if (k == c->count)
        return UINT64_MAX;
    switch (c->insn[k].op) {
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
    unsigned k = completed(c, r);
    uint32_t m;

    memcpy(&m, r->out.fx + 24, 4);
    if (r->vector != X86_EXC_XM)
        return UINT32_MAX;
    switch (k < c->count ? c->insn[k].op : X86_INVALID) {
    case X86_DPPS: /* several operations in a row: which came before the exception is not known */
    case X86_DPPD:
    case X86_VDPPS:
    case X86_VDPPD:
        return ~0x3fu;
    default:
        return (m & ~(m >> 7) & 0x18) != 0 ? ~0x20u : UINT32_MAX;
    }
}

/*
 * Outcomes that belong to the processor at hand: MXCSR.MM, which AMD has; whether bytes that
 * MASKMOV leaves out are checked; which of two faults comes first; how far PUSHA got.
 */
static bool unspecified(const struct oracle_case *c, const struct oracle_result *host,
                        const struct oracle_result *soft)
{
    unsigned k;

    if ((host->out.fx[26] & 2) != 0)
        return true;
    if (host->vector == X86_EXC_BP)
        return false;
    k = completed(c, host);
    switch (k < c->count ? c->insn[k].op : X86_INVALID) {
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
    case X86_XSAVE:
    case X86_XSAVEC:
    case X86_XSAVEOPT:
    case X86_XRSTOR:
        return host->vector != soft->vector && soft->vector != X86_EXC_BP;
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
    uint64_t off = c->state_ea - ORACLE_DATA;
    const struct x86_insn *in = &c->insn[c->count - 1];
    unsigned first = 6, len = 18;

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

/* Prints what differs; true if anything does. */
static bool compare(const struct oracle_case *c, const struct oracle_result *host,
                    const struct oracle_result *soft)
{
    uint32_t flags = (X86_FL_ARITH | X86_FL_DF | X86_FL_AC | X86_FL_ID | X86_FL_NT | X86_FL_TF) &
                     ~undefined_flags(c, host);
    bool bad = false;
    unsigned i;

    if (strayed(c, host))
        flags &= ~X86_FL_ARITH;
    if (host->vector != soft->vector)
        differ(&bad, "vector", host->vector, soft->vector);
    else if (host->vector >= 10 && host->vector <= 14 && visible_error(host) != visible_error(soft))
        differ(&bad, "error", host->error, soft->error);
    else if (host->vector == X86_EXC_PF && ((host->cr2 ^ soft->cr2) & cr2_mask(c, host)) != 0)
        differ(&bad, "cr2", host->cr2, soft->cr2);
    if (((host->out.rip ^ soft->out.rip) & (c->small ? 0xffff : UINT64_MAX)) != 0) /* IP may wrap */
        differ(&bad, "rip", host->out.rip, soft->out.rip);
    for (i = 0; i < (c->compat ? 8u : 16u); i++)
        if (((host->out.gpr[i] ^ soft->out.gpr[i]) & (c->compat ? UINT32_MAX : UINT64_MAX)) != 0)
            differ(&bad, gpr_name[i], host->out.gpr[i], soft->out.gpr[i]);
    if (((host->out.rflags ^ soft->out.rflags) & flags) != 0)
        differ(&bad, "rflags", host->out.rflags & flags, soft->out.rflags & flags);
    if (((fx32(host, 24, 4) ^ fx32(soft, 24, 4)) & mxcsr_mask(c, host)) != 0)
        differ(&bad, "mxcsr", fx32(host, 24, 4), fx32(soft, 24, 4));
    if (fx32(host, 0, 2) != fx32(soft, 0, 2))
        differ(&bad, "fcw", fx32(host, 0, 2), fx32(soft, 0, 2));
    if (((fx32(host, 2, 2) ^ fx32(soft, 2, 2)) & fsw_mask(c, host)) != 0)
        differ(&bad, "fsw", fx32(host, 2, 2), fx32(soft, 2, 2));
    if (fx32(host, 4, 1) != fx32(soft, 4, 1))
        differ(&bad, "ftw", fx32(host, 4, 1), fx32(soft, 4, 1));
    compare_vectors(host, soft, &bad);
    for (i = 0; i < ORACLE_DATA_SIZE; i += 8) {
        uint64_t a, b;
        char name[16];

        memcpy(&a, host->data + i, 8);
        memcpy(&b, soft->data + i, 8);
        if (a == b)
            continue;
        snprintf(name, sizeof(name), "+%#x", i);
        differ(&bad, name, a, b);
    }
    return bad;
}

static int parse(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {
        {"seed", required_argument, NULL, 's'}, {"count", required_argument, NULL, 'n'},
        {"only", required_argument, NULL, 'o'}, {"case", required_argument, NULL, 'c'},
        {"max", required_argument, NULL, 'm'},  {NULL, 0, NULL, 0},
    };
    int opt;
    unsigned i;

    while ((opt = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (opt) {
        case 's':
            o->seed = strtoull(optarg, NULL, 0);
            break;
        case 'n':
            o->count = strtoull(optarg, NULL, 0);
            break;
        case 'm':
            o->max = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 'c':
            o->one = strtoull(optarg, NULL, 0);
            o->have_one = true;
            o->count = 1;
            break;
        case 'o':
            for (i = 0; i < OC_COUNT; i++)
                if (strcmp(optarg, oracle_class_name[i]) == 0)
                    break;
            if (i == OC_COUNT) {
                fprintf(stderr, "oracle: no class '%s'\n", optarg);
                return -1;
            }
            o->only = (enum oracle_class)i;
            break;
        default:
            return -1;
        }
    }
    return 0;
}

struct totals {
    uint64_t ran, skipped, ran16, ran32;
    unsigned bad;
    uint64_t vectors[256];
};

static void run_batch(const struct options *o, struct oracle_host *host, struct oracle_soft *soft,
                      const struct oracle_case *cases, unsigned n, struct totals *t)
{
    struct oracle_result *results = oracle_host_run(host, cases, n);
    static struct oracle_result mine; /* large for a stack */
    unsigned i;

    oracle_soft_load(soft, cases, n);
    for (i = 0; i < n && t->bad < o->max; i++) {
        if (results[i].vector >= ORACLE_FAILED) { /* the child died, or never came back */
            printf("no result from the host:\n");
            show_case(&cases[i]);
            t->skipped += n - i;
            return;
        }
        oracle_soft_run(soft, &cases[i], &mine);
        if (unspecified(&cases[i], &results[i], &mine) ||
            (results[i].vector != X86_EXC_BP && strayed(&cases[i], &results[i])))
            continue;
        t->ran++;
        t->ran16 += cases[i].small;
        t->ran32 += cases[i].compat && !cases[i].small;
        t->vectors[results[i].vector & 255]++;
        hide_pointers(&cases[i], &results[i]);
        hide_pointers(&cases[i], &mine);
        if (compare(&cases[i], &results[i], &mine)) {
            show_case(&cases[i]);
            show_input(&cases[i]);
            printf("\n");
            t->bad++;
        }
    }
}

int main(int argc, char **argv)
{
    struct options o = {.seed = 1, .count = 100000, .only = OC_COUNT, .max = 20};
    bool feature[X86_FEAT_HIDDEN + 1];
    struct totals t = {0};
    struct oracle_case *cases;
    struct oracle_host *host;
    struct oracle_soft *soft;
    uint64_t i = 0, slot = 0;
    bool small = oracle_host_has_ldt();

    if (parse(argc, argv, &o) < 0)
        return 2;
    oracle_features(feature);
    host = oracle_host_open(BATCH);
    soft = oracle_soft_open(feature);
    cases = calloc(BATCH, sizeof(*cases));
    if (soft == NULL || cases == NULL)
        return 2;
    printf("seed %llu, %llu cases\n", (unsigned long long)o.seed, (unsigned long long)o.count);
    while (i < o.count && t.bad < o.max) {
        unsigned n = 0;

        while (n < BATCH && i < o.count) {
            uint64_t seed = o.have_one ? o.one : o.seed * 0x100000000ull + i;

            oracle_generate(&cases[n], seed, (unsigned)slot, o.only, small, feature);
            i++;
            if (!meaningful(&cases[n]))
                continue;
            slot++;
            n++;
        }
        run_batch(&o, host, soft, cases, n, &t);
    }
    printf("%llu ran (%llu of 16 bits, %llu of 32), %llu skipped, %u differ\n",
           (unsigned long long)t.ran, (unsigned long long)t.ran16, (unsigned long long)t.ran32,
           (unsigned long long)t.skipped, t.bad);
    for (i = 0; i < 32; i++)
        if (t.vectors[i] != 0)
            printf("  vector %llu: %llu\n", (unsigned long long)i,
                   (unsigned long long)t.vectors[i]);
    oracle_soft_close(soft);
    free(cases);
    return t.bad != 0 || t.skipped != 0;
}
