#include "engine/soft/alu.h"

/*
 * Two-operand arithmetic and logic, INC, DEC, NEG, NOT, shifts and rotates: one handler for each
 * operation, size and operand form, made by macros.
 */

/* ---- reg/mem forms of a = a op b ---- */

#define LOADED(n, type) ((type)mem_load(cpu, u->seg, soft_ea(cpu, u), n))

/* Read-modify-write of memory: `expr` computes the new value from `old`. */
#define RMW(n, type, expr)                                                                         \
    do {                                                                                           \
        uint64_t lin = lin_addr(cpu, u->seg, soft_ea(cpu, u), n, true);                            \
        uint8_t *p = mem_rmw(cpu, u->seg, lin, n);                                                 \
        type old;                                                                                  \
        if (likely(p != NULL && !(u->flags & UOP_LOCK))) {                                         \
            old = (type)host_load(p, n);                                                           \
            host_store(p, n, expr);                                                                \
        } else if (p != NULL) {                                                                    \
            uint32_t cc = cpu->cc;                                                                 \
            type seen;                                                                             \
            old = (type)host_load(p, n);                                                           \
            for (;;) {                                                                             \
                seen = old;                                                                        \
                cpu->cc = cc; /* ADC and SBB read it */                                            \
                if (alu_cas_##n(p, &seen, expr))                                                   \
                    break;                                                                         \
                old = seen;                                                                        \
            }                                                                                      \
        } else {                                                                                   \
            old = (type)mem_load_lin(cpu, u->seg, lin, n);                                         \
            mem_store_lin(cpu, u->seg, lin, n, expr);                                              \
        }                                                                                          \
    } while (0)

#define DEF_RR(op, n, type)                                                                        \
    static void op##_rr_##n(struct soft_cpu *cpu, const struct uop *u)                             \
    {                                                                                              \
        reg_set(                                                                                   \
            cpu, u->dst, n,                                                                        \
            alu_##op##_##n(cpu, (type)reg_get(cpu, u->dst, n), (type)reg_get(cpu, u->src, n)));    \
    }
#define DEF_RI(op, n, type)                                                                        \
    static void op##_ri_##n(struct soft_cpu *cpu, const struct uop *u)                             \
    {                                                                                              \
        reg_set(cpu, u->dst, n, alu_##op##_##n(cpu, (type)reg_get(cpu, u->dst, n), (type)u->imm)); \
    }
#define DEF_RM(op, n, type)                                                                        \
    static void op##_rm_##n(struct soft_cpu *cpu, const struct uop *u)                             \
    {                                                                                              \
        type b = LOADED(n, type);                                                                  \
        reg_set(cpu, u->dst, n, alu_##op##_##n(cpu, (type)reg_get(cpu, u->dst, n), b));            \
    }
#define DEF_MR(op, n, type)                                                                        \
    static void op##_mr_##n(struct soft_cpu *cpu, const struct uop *u)                             \
    {                                                                                              \
        RMW(n, type, alu_##op##_##n(cpu, old, (type)reg_get(cpu, u->src, n)));                     \
    }
#define DEF_MI(op, n, type)                                                                        \
    static void op##_mi_##n(struct soft_cpu *cpu, const struct uop *u)                             \
    {                                                                                              \
        RMW(n, type, alu_##op##_##n(cpu, old, (type)u->imm));                                      \
    }

/* CMP and TEST write nothing */
#define DEF_CMP_FORMS(op, n, type)                                                                 \
    static void op##_rr_##n(struct soft_cpu *cpu, const struct uop *u)                             \
    {                                                                                              \
        (void)alu_##op##_##n(cpu, (type)reg_get(cpu, u->dst, n), (type)reg_get(cpu, u->src, n));   \
    }                                                                                              \
    static void op##_ri_##n(struct soft_cpu *cpu, const struct uop *u)                             \
    {                                                                                              \
        (void)alu_##op##_##n(cpu, (type)reg_get(cpu, u->dst, n), (type)u->imm);                    \
    }                                                                                              \
    static void op##_rm_##n(struct soft_cpu *cpu, const struct uop *u)                             \
    {                                                                                              \
        type b = LOADED(n, type);                                                                  \
        (void)alu_##op##_##n(cpu, (type)reg_get(cpu, u->dst, n), b);                               \
    }                                                                                              \
    static void op##_mr_##n(struct soft_cpu *cpu, const struct uop *u)                             \
    {                                                                                              \
        type a = LOADED(n, type);                                                                  \
        (void)alu_##op##_##n(cpu, a, (type)reg_get(cpu, u->src, n));                               \
    }                                                                                              \
    static void op##_mi_##n(struct soft_cpu *cpu, const struct uop *u)                             \
    {                                                                                              \
        type a = LOADED(n, type);                                                                  \
        (void)alu_##op##_##n(cpu, a, (type)u->imm);                                                \
    }

#define DEF_FORMS(op, n, type)                                                                     \
    DEF_RR(op, n, type)                                                                            \
    DEF_RI(op, n, type) DEF_RM(op, n, type) DEF_MR(op, n, type) DEF_MI(op, n, type)

#define DEF_UNARY(op, n, type)                                                                     \
    static void op##_r_##n(struct soft_cpu *cpu, const struct uop *u)                              \
    {                                                                                              \
        reg_set(cpu, u->dst, n, alu_##op##_##n(cpu, (type)reg_get(cpu, u->dst, n)));               \
    }                                                                                              \
    static void op##_m_##n(struct soft_cpu *cpu, const struct uop *u)                              \
    {                                                                                              \
        RMW(n, type, alu_##op##_##n(cpu, old));                                                    \
    }

#define DEF_SHIFT(op, n, type)                                                                     \
    static void op##_ri_##n(struct soft_cpu *cpu, const struct uop *u)                             \
    {                                                                                              \
        reg_set(cpu, u->dst, n,                                                                    \
                alu_##op##_##n(cpu, (type)reg_get(cpu, u->dst, n), (uint8_t)u->imm));              \
    }                                                                                              \
    static void op##_rc_##n(struct soft_cpu *cpu, const struct uop *u)                             \
    {                                                                                              \
        reg_set(                                                                                   \
            cpu, u->dst, n,                                                                        \
            alu_##op##_##n(cpu, (type)reg_get(cpu, u->dst, n), (uint8_t)cpu->st.gpr[X86_RCX]));    \
    }                                                                                              \
    static void op##_mi_##n(struct soft_cpu *cpu, const struct uop *u)                             \
    {                                                                                              \
        RMW(n, type, alu_##op##_##n(cpu, old, (uint8_t)u->imm));                                   \
    }                                                                                              \
    static void op##_mc_##n(struct soft_cpu *cpu, const struct uop *u)                             \
    {                                                                                              \
        RMW(n, type, alu_##op##_##n(cpu, old, (uint8_t)cpu->st.gpr[X86_RCX]));                     \
    }

#define DEF_ALL(n, type, sfx, reg)                                                                 \
    DEF_FORMS(add, n, type)                                                                        \
    DEF_FORMS(or, n, type)                                                                         \
    DEF_FORMS(adc, n, type)                                                                        \
    DEF_FORMS(sbb, n, type)                                                                        \
    DEF_FORMS(and, n, type)                                                                        \
    DEF_FORMS(sub, n, type)                                                                        \
    DEF_FORMS(xor, n, type)                                                                        \
    DEF_CMP_FORMS(cmp, n, type)                                                                    \
    DEF_CMP_FORMS(test, n, type)                                                                   \
    DEF_UNARY(inc, n, type)                                                                        \
    DEF_UNARY(dec, n, type)                                                                        \
    DEF_UNARY(neg, n, type)                                                                        \
    DEF_UNARY(not, n, type)                                                                        \
    DEF_SHIFT(rol, n, type)                                                                        \
    DEF_SHIFT(ror, n, type)                                                                        \
    DEF_SHIFT(rcl, n, type)                                                                        \
    DEF_SHIFT(rcr, n, type)                                                                        \
    DEF_SHIFT(shl, n, type)                                                                        \
    DEF_SHIFT(shr, n, type)                                                                        \
    DEF_SHIFT(sar, n, type)
ALU_SIZES(DEF_ALL)

/* XOR r, r and SUB r, r of 32 bits clear a register: the commonest instruction of its kind. */
static void zero_r(struct soft_cpu *cpu, const struct uop *u)
{
    cpu->st.gpr[u->dst] = 0;
    cpu->cc = CC_ZF | CC_PF;
}

enum form { FORM_RR, FORM_RI, FORM_RM, FORM_MR, FORM_MI, FORMS };

#define ROW(op, form)                                                                              \
    {                                                                                              \
        op##_##form##_1, op##_##form##_2, op##_##form##_4, op##_##form##_8                         \
    }
#define BINARY(id, op)                                                                             \
    {                                                                                              \
        X86_##id,                                                                                  \
        {                                                                                          \
            ROW(op, rr), ROW(op, ri), ROW(op, rm), ROW(op, mr), ROW(op, mi)                        \
        }                                                                                          \
    }
#define SHIFT(id, op)                                                                              \
    {                                                                                              \
        X86_##id,                                                                                  \
        {                                                                                          \
            ROW(op, ri), ROW(op, rc), ROW(op, mi), ROW(op, mc)                                     \
        }                                                                                          \
    }
#define UNARY(id, op)                                                                              \
    {                                                                                              \
        X86_##id,                                                                                  \
        {                                                                                          \
            ROW(op, r), ROW(op, m)                                                                 \
        }                                                                                          \
    }

static const struct {
    uint16_t op;
    uop_fn fn[FORMS][4];
} binary_table[] = {
    BINARY(ADD, add), BINARY(OR, or),   BINARY(ADC, adc), BINARY(SBB, sbb),   BINARY(AND, and),
    BINARY(SUB, sub), BINARY(XOR, xor), BINARY(CMP, cmp), BINARY(TEST, test),
};

static const struct {
    uint16_t op;
    uop_fn fn[4][4];
} shift_table[] = {
    SHIFT(ROL, rol), SHIFT(ROR, ror), SHIFT(RCL, rcl), SHIFT(RCR, rcr),
    SHIFT(SHL, shl), SHIFT(SHR, shr), SHIFT(SAR, sar),
};

static const struct {
    uint16_t op;
    uop_fn fn[2][4];
} unary_table[] = {UNARY(INC, inc), UNARY(DEC, dec), UNARY(NEG, neg), UNARY(NOT, not )};

static bool build_binary(const struct x86_insn *insn, struct uop *u)
{
    const struct x86_opnd *a = &insn->opnd[0], *b = &insn->opnd[1];
    unsigned size = size_index(a->size);
    enum form form;

    if (a->kind == X86_OPND_MEM)
        form = b->kind == X86_OPND_IMM ? FORM_MI : FORM_MR;
    else
        form = b->kind == X86_OPND_IMM ? FORM_RI : b->kind == X86_OPND_MEM ? FORM_RM : FORM_RR;
    for (size_t i = 0; i < countof(binary_table); i++) {
        if (binary_table[i].op == insn->op) {
            u->fn = binary_table[i].fn[form][size];
            if ((insn->op == X86_XOR || insn->op == X86_SUB) && form == FORM_RR && a->size >= 4 &&
                u->dst == u->src)
                u->fn = zero_r;
            return true;
        }
    }
    return false;
}

bool build_alu(const struct x86_insn *insn, struct uop *u)
{
    const struct x86_opnd *a = &insn->opnd[0], *b = &insn->opnd[1];
    unsigned size = size_index(a->size);
    bool mem = a->kind == X86_OPND_MEM;

    if (build_binary(insn, u))
        return true;
    for (size_t i = 0; i < countof(unary_table); i++) {
        if (unary_table[i].op == insn->op) {
            u->fn = unary_table[i].fn[mem][size];
            return true;
        }
    }
    for (size_t i = 0; i < countof(shift_table); i++) {
        if (shift_table[i].op == insn->op) {
            bool by_cl = b->kind == X86_OPND_REG;

            u->fn = shift_table[i].fn[(mem ? 2 : 0) + by_cl][size];
            return true;
        }
    }
    return false;
}
