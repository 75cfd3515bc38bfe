#include <stddef.h>

#include "engine/soft/jit/translate.h"

/*
 * One probe for several accesses: those of a block that go through the same base register, whose
 * value changes by constants only. The first of them probes the whole span; the distance from guest
 * to host addresses stays in S3 until the last one.
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

/* The access that instruction i makes through a base register alone. */
static bool describe(const struct tx *t, unsigned i, const struct value v[16], struct access *a)
{
    const struct x86_insn *in = &t->insn[i];
    const struct x86_opnd *mem = tx_memory(in);
    int64_t at;

    switch ((enum tx_kind)t->kind[i]) {
    case TX_PUSH:
    case TX_CALL:
        if (mem != NULL || in->opnd[0].kind == X86_OPND_REG)
            if (t->kind[i] == TX_CALL || mem != NULL)
                return false;
        *a = (struct access){.base = X86_RSP, .size = (uint8_t)t->word, .write = true};
        at = -(int64_t)t->word;
        break;
    case TX_POP:
    case TX_RET:
        *a = (struct access){.base = X86_RSP, .size = (uint8_t)t->word};
        at = 0;
        break;
    case TX_LEAVE:
        *a = (struct access){.base = X86_RBP, .size = (uint8_t)t->word};
        at = 0;
        break;
    case TX_PLAIN:
        if (mem == NULL || in->base >= 16 || in->index != X86_REG_NONE || in->asize != t->word ||
            in->seg == X86_FS || in->seg == X86_GS)
            return false;
        *a = (struct access){
            .base = in->base, .size = (uint8_t)mem->size, .write = (mem->access & X86_ACC_W) != 0};
        at = in->disp;
        break;
    default:
        return false;
    }
    a->version = v[a->base].version;
    at += v[a->base].offset;
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

/* S3 is lost there, or the TLB may change. */
static bool breaks(const struct tx *t, unsigned i)
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
    case TX_PLAIN: {
        unsigned slow = 0; /* registers that need a scratch */

        for (unsigned k = 0; k < in->opnd_count; k++)
            slow += in->opnd[k].kind == X86_OPND_REG && in->opnd[k].rclass == X86_RC_GPR &&
                    in->opnd[k].reg >= 8 && in->opnd[k].reg < 12;
        return slow > 1;
    }
    default:
        return false;
    }
}

void tx_share(struct tx *t)
{
    struct value v[16] = {{0, 0}};
    unsigned i, k;

    memset(t->access, 0, t->n * sizeof(t->access[0]));
    memset(t->busy, 0, t->n * sizeof(t->busy[0]));
    if (t->key & KEY_APART)
        return;
    for (i = 0; i < t->n; i++) {
        if (!describe(t, i, v, &t->access[i]))
            t->access[i].size = 0;
        follow(t, i, v);
    }
    for (i = 0; i < t->n; i++) {
        struct access *a = &t->access[i];
        int32_t lo = a->at, hi = a->at + a->size;
        unsigned count = 1, last = i;
        bool write = a->write;

        if (a->size == 0 || breaks(t, i))
            continue;
        for (k = i + 1; k < t->n && !breaks(t, k); k++) {
            const struct access *b = &t->access[k];
            int32_t l, h;

            if (b->size == 0 || b->base != a->base || b->version != a->version)
                continue;
            l = b->at < lo ? b->at : lo;
            h = b->at + b->size > hi ? b->at + b->size : hi;
            if (h - l > SPAN_MAX)
                continue;
            lo = l;
            hi = h;
            write |= b->write;
            count++;
            last = k;
        }
        if (count < 2)
            continue;
        t->groups++;
        a->first = true;
        a->lo = lo;
        a->span = (uint16_t)(hi - lo);
        a->group_write = write;
        for (k = i; k <= last; k++) {
            struct access *b = &t->access[k];

            b->shared = b->size != 0 && b->base == a->base && b->version == a->version &&
                        b->at >= lo && b->at + b->size <= hi;
            t->busy[k] = true;
        }
        i = last;
    }
}
