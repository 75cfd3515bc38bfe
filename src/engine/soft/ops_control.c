#include "engine/soft/interp.h"

/* Branches, calls, returns, software interrupts. A block ends with each of them. */

/* A near target by the operand size: truncated, and checked where it could leave the segment. */
static void branch_to(struct soft_cpu *cpu, uint64_t target, unsigned osize)
{
    if (!cpu->long_code) {
        target &= bytes_mask(osize);
        if (target > cpu->st.seg[X86_CS].limit)
            soft_raise_error(cpu, X86_EXC_GP, 0);
    } else if (!soft_canonical(cpu, target)) {
        soft_raise_error(cpu, X86_EXC_GP, 0);
    }
    cpu->next_rip = target;
}

#define DEF_JCC(c)                                                                                 \
    static void jcc64_##c(struct soft_cpu *cpu, const struct uop *u)                               \
    {                                                                                              \
        if (cond_true(cpu, c))                                                                     \
            branch_to(cpu, cpu->next_rip + u->imm, 8);                                             \
    }
DEF_JCC(0)
DEF_JCC(1)
DEF_JCC(2)
DEF_JCC(3)
DEF_JCC(4)
DEF_JCC(5)
DEF_JCC(6)
DEF_JCC(7)
DEF_JCC(8)
DEF_JCC(9)
DEF_JCC(10)
DEF_JCC(11)
DEF_JCC(12)
DEF_JCC(13)
DEF_JCC(14)
DEF_JCC(15)
static const uop_fn jcc64[16] = {jcc64_0,  jcc64_1,  jcc64_2,  jcc64_3, jcc64_4,  jcc64_5,
                                 jcc64_6,  jcc64_7,  jcc64_8,  jcc64_9, jcc64_10, jcc64_11,
                                 jcc64_12, jcc64_13, jcc64_14, jcc64_15};

static void op_jcc(struct soft_cpu *cpu, const struct uop *u)
{
    if (cond_true(cpu, u->cc))
        branch_to(cpu, cpu->next_rip + u->imm, u->osize);
}

static void op_jmp_rel(struct soft_cpu *cpu, const struct uop *u)
{
    branch_to(cpu, cpu->next_rip + u->imm, u->osize);
}

static void op_jmp_rm(struct soft_cpu *cpu, const struct uop *u)
{
    branch_to(cpu, rm_load(cpu, u, u->osize), u->osize);
}

/* The target is checked before the return address is pushed, and the push before RIP changes. */
static void call_to(struct soft_cpu *cpu, uint64_t target, unsigned osize)
{
    uint64_t ret = cpu->next_rip;

    branch_to(cpu, target, osize);
    stack_push(cpu, osize, ret);
}

static void op_call_rel(struct soft_cpu *cpu, const struct uop *u)
{
    call_to(cpu, cpu->next_rip + u->imm, u->osize);
}

static void op_call_rm(struct soft_cpu *cpu, const struct uop *u)
{
    call_to(cpu, rm_load(cpu, u, u->osize), u->osize);
}

static void op_ret(struct soft_cpu *cpu, const struct uop *u)
{
    branch_to(cpu, stack_peek(cpu, u->osize, 0), u->osize);
    stack_drop(cpu, u->osize + (uint16_t)u->imm);
}

static void op_far_imm(struct soft_cpu *cpu, const struct uop *u)
{
    uint16_t sel = (uint16_t)u->disp;

    if (u->op == X86_CALLF)
        far_call(cpu, sel, u->imm, u->osize);
    else
        far_jump(cpu, sel, u->imm, u->osize);
}

static void op_far_mem(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t ea = soft_ea(cpu, u);
    uint64_t off = mem_load(cpu, u->seg, ea, u->osize);
    uint16_t sel = (uint16_t)mem_load(cpu, u->seg, ea + u->osize, 2);

    if (u->op == X86_CALLF)
        far_call(cpu, sel, off, u->osize);
    else
        far_jump(cpu, sel, off, u->osize);
}

static void op_retf(struct soft_cpu *cpu, const struct uop *u)
{
    far_return(cpu, u->osize, (uint16_t)u->imm);
}

static void op_iret(struct soft_cpu *cpu, const struct uop *u)
{
    soft_iret(cpu, u->osize);
}

/* ---- counters ---- */

static uint64_t counter(const struct soft_cpu *cpu, const struct uop *u)
{
    return cpu->st.gpr[X86_RCX] & bytes_mask(u->asize);
}

/* cc: 0 LOOPNE, 1 LOOPE, 2 LOOP */
static void op_loop(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t left = (counter(cpu, u) - 1) & bytes_mask(u->asize);
    bool zf = (cpu->cc & CC_ZF) != 0;

    if (left != 0 && (u->cc == 2 || zf == (u->cc == 1)))
        branch_to(cpu, cpu->next_rip + u->imm, u->osize);
    reg_set(cpu, X86_RCX, u->asize, left);
}

static void op_jcxz(struct soft_cpu *cpu, const struct uop *u)
{
    if (counter(cpu, u) == 0)
        branch_to(cpu, cpu->next_rip + u->imm, u->osize);
}

/* ---- software events: the frame's RIP is the next instruction ---- */

static void software_event(struct soft_cpu *cpu, uint8_t vector, enum event_type type)
{
    cpu->st.rip = cpu->next_rip;
    event_deliver(cpu, vector, type, false, 0);
    cpu->next_rip = cpu->st.rip;
}

/*
 * CR4.VME: a clear bit in the TSS's map, the 32 bytes below the I/O map, sends INT n to the 8086
 * program's own handler.
 */
static bool int_redirected(struct soft_cpu *cpu, uint8_t vector)
{
    const struct x86_segment *tr = &cpu->st.tr;
    uint32_t at;

    if (!(cpu->st.cr4 & X86_CR4_VME))
        return false;
    if ((tr->attr & 15) != 11 || tr->limit < 103)
        soft_raise_error(cpu, X86_EXC_GP, 0);
    at = (uint32_t)sys_load(cpu, tr->base + 102, 2) - 32 + vector / 8;
    if (at > tr->limit)
        soft_raise_error(cpu, X86_EXC_GP, 0);
    return !(sys_load(cpu, tr->base + at, 1) >> (vector & 7) & 1);
}

/* INT n as the 8086 does it, inside the virtual-8086 task. */
static void int_inside(struct soft_cpu *cpu, uint8_t vector)
{
    uint32_t entry = (uint32_t)mem_load_lin(cpu, X86_DS, vector * 4u, 4);
    bool full = (cpu->st.rflags & X86_FL_IOPL) == X86_FL_IOPL;
    uint64_t sp = cpu->st.gpr[X86_RSP], flags = full ? soft_flags(cpu) : vme_image(cpu);

    mem_store(cpu, X86_SS, (sp - 2) & 0xffff, 2, flags);
    mem_store(cpu, X86_SS, (sp - 4) & 0xffff, 2, cpu->st.seg[X86_CS].selector);
    mem_store(cpu, X86_SS, (sp - 6) & 0xffff, 2, cpu->next_rip);
    sp_set(cpu, sp - 6);
    seg_load_real(cpu, X86_CS, (uint16_t)(entry >> 16));
    soft_mode_changed(cpu);
    soft_set_flags(cpu, soft_flags(cpu) & ~(uint64_t)(X86_FL_TF | (full ? X86_FL_IF : X86_FL_VIF)));
    cpu->next_rip = entry & 0xffff;
}

static void op_int(struct soft_cpu *cpu, const struct uop *u)
{
    if (in_vm86(cpu)) {
        if (int_redirected(cpu, (uint8_t)u->imm)) {
            int_inside(cpu, (uint8_t)u->imm);
            return;
        }
        if ((cpu->st.rflags & X86_FL_IOPL) != X86_FL_IOPL)
            soft_raise_error(cpu, X86_EXC_GP, 0);
    }
    software_event(cpu, (uint8_t)u->imm, EV_SOFT_INT);
}

static void op_int3(struct soft_cpu *cpu, const struct uop *u)
{
    (void)u;
    software_event(cpu, X86_EXC_BP, EV_SOFT_EXC);
}

static void op_into(struct soft_cpu *cpu, const struct uop *u)
{
    (void)u;
    if (cpu->cc & CC_OF)
        software_event(cpu, X86_EXC_OF, EV_SOFT_EXC);
}

/* INT1 is a trap that no gate's DPL can refuse. */
static void op_int1(struct soft_cpu *cpu, const struct uop *u)
{
    (void)u;
    /* a breakpoint that MOV SS has put off is reported by the same #DB */
    cpu->st.dr6 = (cpu->st.dr6 & ~(cpu->db_hit != 0 ? 0xfull : 0)) | cpu->db_hit;
    cpu->db_hit = 0;
    software_event(cpu, X86_EXC_DB, EV_EXCEPTION);
}

static void op_bound(struct soft_cpu *cpu, const struct uop *u)
{
    unsigned n = u->osize;
    uint64_t ea = soft_ea(cpu, u);
    uint64_t lo = mem_load(cpu, u->seg, ea, n), hi = mem_load(cpu, u->seg, ea + n, n);
    uint64_t v = reg_get(cpu, u->dst, n);
    bool out = n == 2 ? (int16_t)v < (int16_t)lo || (int16_t)v > (int16_t)hi
                      : (int32_t)v < (int32_t)lo || (int32_t)v > (int32_t)hi;

    if (out)
        soft_raise(cpu, X86_EXC_BR);
}

static bool build_jump_call(const struct x86_insn *insn, struct uop *u)
{
    bool call = insn->op == X86_CALL;

    if (insn->opnd[0].kind == X86_OPND_REL)
        u->fn = call ? op_call_rel : op_jmp_rel;
    else
        u->fn = call ? op_call_rm : op_jmp_rm;
    return true;
}

bool build_control(const struct x86_insn *insn, struct uop *u)
{
    switch (insn->op) {
    case X86_JCC:
        u->fn = insn->mode == X86_MODE_64 ? jcc64[insn->opcode & 15] : op_jcc;
        break;
    case X86_JMP:
    case X86_CALL:
        build_jump_call(insn, u);
        break;
    case X86_RET:
        u->fn = op_ret;
        break;
    case X86_JMPF:
    case X86_CALLF:
        if (insn->opnd[0].kind == X86_OPND_FAR) {
            u->disp = (int64_t)insn->imm2;
            u->fn = op_far_imm;
        } else {
            u->fn = op_far_mem;
        }
        break;
    case X86_RETF:
        u->fn = op_retf;
        break;
    case X86_IRET:
        u->fn = op_iret;
        break;
    case X86_LOOP:
    case X86_LOOPE:
    case X86_LOOPNE:
        u->cc = insn->op == X86_LOOP ? 2 : insn->op == X86_LOOPE ? 1 : 0;
        u->fn = op_loop;
        break;
    case X86_JCXZ:
        u->fn = op_jcxz;
        break;
    case X86_INT:
        u->fn = op_int;
        break;
    case X86_INT3:
        u->fn = op_int3;
        break;
    case X86_INTO:
        u->fn = op_into;
        break;
    case X86_INT1:
        u->fn = op_int1;
        break;
    case X86_BOUND:
        u->fn = op_bound;
        return true;
    default:
        return false;
    }
    u->flags |= UOP_END;
    return true;
}
