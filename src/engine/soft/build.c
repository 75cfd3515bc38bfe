#include "engine/soft/interp.h"

/* From the decoder's record to the interpreter's: common fields, then the family that knows it. */

static void op_hidden(struct soft_cpu *cpu, const struct uop *u)
{
    (void)u;
    if (cpu->vm->env.visiting)
        soft_go_home(cpu);
    soft_raise(cpu, X86_EXC_UD);
}

/* One of AVX-512's, which the guest of an engine that has it may use. */
static void op_wide(struct soft_cpu *cpu, const struct uop *u)
{
    if ((cpu->st.xcr0 & X86_XCR0_AVX512) == 0)
        soft_raise(cpu, X86_EXC_UD);
    soft_go_home(cpu);
    soft_unimplemented(cpu, x86_op_name(u->op));
}

static void op_missing(struct soft_cpu *cpu, const struct uop *u)
{
    soft_unimplemented(cpu, x86_op_name(u->op));
}

static uint8_t reg_code(const struct x86_opnd *o)
{
    if (o->rclass == X86_RC_GPRH)
        return (uint8_t)(8 * o->reg + 1);
    return o->rclass == X86_RC_GPR && o->size == 1 ? (uint8_t)(8 * o->reg) : o->reg;
}

/*
 * dst is the first register operand, src the second. Where the first operand is memory, src is the
 * register beside it. UOP_REG: the instruction has no memory operand.
 */
static void set_operands(const struct x86_insn *insn, struct uop *u)
{
    bool mem = false;

    for (unsigned i = 0; i < insn->opnd_count; i++)
        mem |= insn->opnd[i].kind == X86_OPND_MEM;
    if (!mem)
        u->flags |= UOP_REG;
    if (insn->opnd[0].kind == X86_OPND_REG)
        u->dst = reg_code(&insn->opnd[0]);
    if (insn->opnd[1].kind == X86_OPND_REG)
        u->src = reg_code(&insn->opnd[1]);
}

bool soft_has(const struct soft_cpu *cpu, enum x86_feature f)
{
    return f == X86_FEAT_BASE || (f != X86_FEAT_HIDDEN && cpu->vm->env.cpuid->feature[f]);
}

/* Processors without TZCNT and LZCNT take F3 for a prefix that means nothing: BSF and BSR. */
static struct x86_insn without_f3(const struct soft_cpu *cpu, const struct x86_insn *insn)
{
    struct x86_insn plain = *insn;

    if ((insn->op == X86_TZCNT || insn->op == X86_LZCNT) && !soft_has(cpu, insn->feature)) {
        plain.op = insn->op == X86_TZCNT ? X86_BSF : X86_BSR;
        plain.feature = X86_FEAT_BASE;
    }
    return plain;
}

void uop_build(struct soft_cpu *cpu, const struct x86_insn *decoded, const uint8_t *bytes,
               struct uop *u)
{
    const struct x86_insn plain = without_f3(cpu, decoded), *insn = &plain;

    u->op = insn->op;
    u->len = insn->len;
    u->seg = insn->seg;
    u->base = insn->base;
    u->index = insn->vsib ? X86_REG_NONE : insn->index;
    u->shift = (uint8_t)__builtin_ctz(insn->scale | 0x100u);
    u->asize = insn->asize;
    u->osize = insn->osize;
    u->disp = insn->disp;
    u->imm = insn->imm;
    u->rep = insn->rep;
    u->cc = insn->opcode & 15;
    if (insn->base == X86_REG_RIP) {
        u->base = X86_REG_NONE;
        u->flags |= UOP_RIP;
    }
    if (insn->prefixes & X86_PFX_LOCK)
        u->flags |= UOP_LOCK;
    set_operands(insn, u);
    if (insn->cls == X86_CLASS_BRANCH)
        u->flags |= UOP_END;
    if (!soft_has(cpu, insn->feature) ||
        ((cpu->block_mode & BLOCK_REAL) && insn->enc == X86_ENC_VEX)) {
        u->fn = insn->enc == X86_ENC_EVEX && cpu->vm->env.visiting ? op_wide : op_hidden;
        u->flags |= UOP_END;
        return;
    }
    if (build_alu(insn, u) || build_data(insn, u) || build_bits(insn, u) ||
        build_control(insn, u) || build_string(insn, u) || build_system(insn, u) ||
        build_table(insn, u) || build_port(insn, u) || native_prepare(cpu, insn, bytes, u))
        return;
    u->fn = op_missing;
    u->flags |= UOP_END;
}
