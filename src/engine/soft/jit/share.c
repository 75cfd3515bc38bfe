#include <stddef.h>

#include "engine/soft/jit/translate.h"

/*
 * One probe for several accesses: those of a block that go through the same registers, whose values
 * change by constants only. The first of them probes the whole span; the distance from guest to
 * host addresses stays in S3 until the last one, or, where S3 is needed between them, in memory.
 *
 * A probe of a span promises more than the instruction at hand needs: later accesses may not happen
 * or have other rights. So its failure is no fault: after the one access has been looked at by
 * itself the block goes on in a translation without shared probes (KEY_APART).
 */

enum { SPAN_MAX = 512 };

struct value {
    unsigned version;
    int64_t offset; /* from what the register held when the version began */
};

/* Registers of the instruction that need a scratch. */
static unsigned slow_registers(const struct x86_insn *in)
{
    unsigned n = 0;

    for (unsigned k = 0; k < in->opnd_count; k++)
        n += in->opnd[k].kind == X86_OPND_REG && in->opnd[k].rclass == X86_RC_GPR &&
             in->opnd[k].reg >= 8 && in->opnd[k].reg < 12;
    return n;
}

static int64_t offset_of(const struct value v[16], unsigned reg, unsigned *version)
{
    if (reg >= 16)
        return 0;
    *version = v[reg].version;
    return v[reg].offset;
}

/* The operand of a plain instruction. */
static bool describe_operand(const struct tx *t, unsigned i, struct access *a, int64_t *at)
{
    const struct x86_insn *in = &t->insn[i];
    const struct x86_opnd *mem = tx_memory(in);

    if (mem == NULL || in->vsib || in->asize != t->word || in->seg == X86_FS || in->seg == X86_GS ||
        !in->has_modrm || slow_registers(in) > 1)
        return false;
    /* a negative index of 32 bits leads beyond 4 GiB: see put_shared_address */
    if (t->word == 4 && in->index != X86_REG_NONE)
        return false;
    *a = (struct access){.base = in->base,
                         .index = in->index,
                         .shift = (uint8_t)__builtin_ctz(in->scale | 0x100u),
                         .size = (uint8_t)mem->size,
                         .align = (uint8_t)tx_alignment(in, mem),
                         .write = (mem->access & X86_ACC_W) != 0};
    *at = in->disp + (in->base == X86_REG_RIP ? t->off[i] + in->len : 0);
    return in->base != X86_REG_NONE || in->index != X86_REG_NONE;
}

/* The access that instruction i makes, if it can be one of a group. */
static bool describe(const struct tx *t, unsigned i, const struct value v[16], struct access *a)
{
    const struct x86_insn *in = &t->insn[i];
    const struct x86_opnd *mem = tx_memory(in);
    int64_t at = 0;

    *a = (struct access){.base = X86_RSP, .index = X86_REG_NONE, .size = (uint8_t)t->word};
    switch ((enum tx_kind)t->kind[i]) {
    case TX_PUSH:
    case TX_CALL:
        if (mem != NULL || (t->kind[i] == TX_CALL && in->opnd[0].kind == X86_OPND_REG))
            return false;
        a->write = true;
        at = -(int64_t)t->word;
        break;
    case TX_POP:
    case TX_RET:
        break;
    case TX_LEAVE:
        a->base = X86_RBP;
        break;
    case TX_PLAIN:
        if (!describe_operand(t, i, a, &at))
            return false;
        break;
    default:
        return false;
    }
    at += offset_of(v, a->base, &a->version[0]);
    at += offset_of(v, a->index, &a->version[1]) * (1 << a->shift);
    if (at < INT32_MIN / 2 || at > INT32_MAX / 2)
        return false;
    a->at = (int32_t)at;
    return true;
}

/* Moves a register by a constant? */
static bool moves_by(const struct tx *t, const struct x86_insn *in, unsigned *reg, int64_t *by)
{
    *reg = in->opnd[0].reg;
    if (in->opnd[0].kind != X86_OPND_REG || in->opnd[0].rclass != X86_RC_GPR ||
        in->opnd[0].size != t->word)
        return false;
    switch (in->op) {
    case X86_ADD:
    case X86_SUB:
        if (in->opnd[1].kind != X86_OPND_IMM)
            return false;
        *by = in->op == X86_ADD ? (int64_t)in->imm : -(int64_t)in->imm;
        return true;
    case X86_INC:
    case X86_DEC:
        *by = in->op == X86_INC ? 1 : -1;
        return true;
    case X86_LEA:
        *by = in->disp;
        return in->base == *reg && in->index == X86_REG_NONE && in->asize == t->word;
    default:
        return false;
    }
}

static void follow(const struct tx *t, unsigned i, struct value v[16])
{
    const struct x86_insn *in = &t->insn[i];
    uint32_t written = in->gpr_written;
    unsigned reg;
    int64_t by;

    if (t->kind[i] == TX_PUSH)
        v[X86_RSP].offset -= t->word;
    else if (t->kind[i] == TX_POP)
        v[X86_RSP].offset += t->word;
    if (t->kind[i] == TX_PUSH || (t->kind[i] == TX_POP && in->opnd[0].reg != X86_RSP))
        written &= ~(1u << X86_RSP);
    if (t->kind[i] == TX_POP)
        written |= 1u << in->opnd[0].reg;
    if (t->kind[i] == TX_LEAVE)
        written |= 1u << X86_RSP | 1u << X86_RBP;
    for (unsigned k = 0; k < in->opnd_count; k++) {
        const struct x86_opnd *o = &in->opnd[k];

        if (o->kind == X86_OPND_REG && (o->access & X86_ACC_W) &&
            (o->rclass == X86_RC_GPR || o->rclass == X86_RC_GPRH))
            written |= 1u << o->reg;
    }
    if (moves_by(t, in, &reg, &by) && (t->kind[i] == TX_PLAIN || t->kind[i] == TX_LEA)) {
        v[reg].offset += by;
        written &= ~(1u << reg);
    }
    for (; written != 0; written &= written - 1) {
        reg = (unsigned)__builtin_ctz(written);
        v[reg].version++;
        v[reg].offset = 0;
    }
}

/* The TLB may change there. */
static bool breaks(const struct tx *t, unsigned i)
{
    return t->kind[i] == TX_HELPER || t->kind[i] == TX_SYSTEM;
}

/* S3 is lost there, if it may be. */
static bool loses(const struct tx *t, unsigned i)
{
    const struct x86_insn *in = &t->insn[i];

    switch ((enum tx_kind)t->kind[i]) {
    case TX_HELPER:
    case TX_SYSTEM:
    case TX_DIV:
        return true;
    case TX_PUSH:
        return tx_memory(in) != NULL;
    case TX_CALL:
    case TX_JMP:
        return in->opnd[0].kind != X86_OPND_REL;
    case TX_PLAIN:
        return slow_registers(in) > 1;
    default:
        return false;
    }
}

static bool same(const struct access *a, const struct access *b)
{
    return !b->shared && a->base == b->base && a->index == b->index && a->shift == b->shift &&
           a->version[0] == b->version[0] && a->version[1] == b->version[1];
}

/* The group's probe looks at the alignment of all members that are as far from a common one. */
static void align_group(struct access *a, struct access *member[], unsigned n)
{
    int32_t lo = a->lo, more;
    unsigned mask = 0, first = 0;

    for (unsigned i = n; i-- > 0;) {
        if (member[i]->align != 0) {
            mask = member[i]->align;
            first = i;
        }
    }
    if (mask == 0)
        return;
    more = (lo - member[first]->at) & (int32_t)mask;
    if (a->span + more > SPAN_MAX)
        return;
    a->lo -= more;
    a->span = (uint16_t)(a->span + more);
    a->group_align = (uint8_t)mask;
    for (unsigned i = 0; i < n; i++)
        member[i]->aligned = member[i]->align != 0 && (member[i]->align & ~mask) == 0 &&
                             ((member[i]->at - a->lo) & (int32_t)mask) == 0;
}

/* The accesses of a block that may share probes, in their order. */
struct accesses {
    unsigned n;
    uint8_t at[JIT_INSNS], zone[JIT_INSNS]; /* a zone ends where the TLB may change */
};

/* Makes a group of the i-th access and what can share its probe. */
static void make_group(struct tx *t, const struct accesses *list, unsigned i)
{
    struct access *a = &t->access[list->at[i]], *member[JIT_INSNS];
    int32_t lo = a->at, hi = a->at + a->size;
    bool write = a->write;
    unsigned n = 0;

    member[n++] = a;
    for (unsigned k = i + 1; k < list->n && list->zone[k] == list->zone[i]; k++) {
        struct access *b = &t->access[list->at[k]];
        int32_t l, h;

        if (!same(a, b))
            continue;
        l = b->at < lo ? b->at : lo;
        h = b->at + b->size > hi ? b->at + b->size : hi;
        if (h - l > SPAN_MAX)
            continue;
        lo = l;
        hi = h;
        write |= b->write;
        member[n++] = b;
    }
    if (n < 2)
        return;
    a->first = true;
    a->lo = lo;
    a->span = (uint16_t)(hi - lo);
    a->group_write = write;
    for (unsigned k = 0; k < n; k++) {
        member[k]->shared = true;
        member[k]->group = (uint8_t)t->groups;
    }
    align_group(a, member, n);
    t->groups++;
}

/*
 * Between the first and the last access of a group S3 stays as it is, unless an instruction or
 * another group needs it: then the distance is kept in memory as well.
 */
static void hold_distance(struct tx *t, unsigned first)
{
    struct access *a = &t->access[first];
    unsigned last = first;

    for (unsigned i = first; i < t->n; i++) {
        if (t->access[i].shared && t->access[i].group == a->group)
            last = i;
    }
    for (unsigned i = first; i <= last; i++)
        a->saved |= loses(t, i) || (t->access[i].shared && t->access[i].group != a->group);
    for (unsigned i = first; !a->saved && i <= last; i++)
        t->busy[i] = true;
}

/* Has the instruction a probe of its own, which may take S3? */
static bool probes(const struct tx *t, unsigned i)
{
    return t->kind[i] != TX_LEA && t->kind[i] != TX_NOP && tx_memory(&t->insn[i]) != NULL;
}

/* Where S3 has to be loaded again. */
static void find_reloads(struct tx *t)
{
    unsigned now = JIT_GROUPS;

    for (unsigned i = 0; i < t->n; i++) {
        struct access *a = &t->access[i];

        if (a->shared) {
            a->reload = !a->first && now != a->group;
            now = a->group;
        } else if (!t->busy[i] && (loses(t, i) || probes(t, i))) {
            now = JIT_GROUPS;
        }
    }
}

void tx_share(struct tx *t)
{
    struct value v[16] = {{0, 0}};
    struct accesses list = {0};
    uint8_t zone = 0;

    for (unsigned i = 0; i < t->n; i++)
        t->access[i].shared = t->access[i].first = false;
    memset(t->busy, 0, t->n * sizeof(t->busy[0]));
    if (t->key & KEY_APART)
        return;
    for (unsigned i = 0; i < t->n; i++) {
        if (breaks(t, i)) {
            zone++;
        } else if (describe(t, i, v, &t->access[i])) {
            list.zone[list.n] = zone;
            list.at[list.n++] = (uint8_t)i;
        }
        follow(t, i, v);
    }
    for (unsigned i = 0; i + 1 < list.n && t->groups < JIT_GROUPS; i++) {
        if (!t->access[list.at[i]].shared)
            make_group(t, &list, i);
    }
    if (t->groups == 0)
        return;
    for (unsigned i = 0; i < list.n; i++) {
        if (t->access[list.at[i]].first)
            hold_distance(t, list.at[i]);
    }
    find_reloads(t);
}
