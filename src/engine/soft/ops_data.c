#include "engine/soft/alu.h"

/* Moves, extensions, exchanges, address computation, stack, conditional moves and sets. */

#define DEF_MOV(n, type, sfx, reg)                                                                 \
    static void mov_rr_##n(struct soft_cpu *cpu, const struct uop *u)                              \
    {                                                                                              \
        reg_set(cpu, u->dst, n, reg_get(cpu, u->src, n));                                          \
    }                                                                                              \
    static void mov_ri_##n(struct soft_cpu *cpu, const struct uop *u)                              \
    {                                                                                              \
        reg_set(cpu, u->dst, n, u->imm);                                                           \
    }                                                                                              \
    static void mov_rm_##n(struct soft_cpu *cpu, const struct uop *u)                              \
    {                                                                                              \
        reg_set(cpu, u->dst, n, mem_load(cpu, u->seg, soft_ea(cpu, u), n));                        \
    }                                                                                              \
    static void mov_mr_##n(struct soft_cpu *cpu, const struct uop *u)                              \
    {                                                                                              \
        mem_store(cpu, u->seg, soft_ea(cpu, u), n, reg_get(cpu, u->src, n));                       \
    }                                                                                              \
    static void mov_mi_##n(struct soft_cpu *cpu, const struct uop *u)                              \
    {                                                                                              \
        mem_store(cpu, u->seg, soft_ea(cpu, u), n, u->imm);                                        \
    }                                                                                              \
    static void xchg_rr_##n(struct soft_cpu *cpu, const struct uop *u)                             \
    {                                                                                              \
        uint64_t a = reg_get(cpu, u->dst, n), b = reg_get(cpu, u->src, n);                         \
                                                                                                   \
        reg_set(cpu, u->src, n, a);                                                                \
        reg_set(cpu, u->dst, n, b);                                                                \
    }                                                                                              \
    /* with memory always atomic */                                                                \
    static void xchg_mr_##n(struct soft_cpu *cpu, const struct uop *u)                             \
    {                                                                                              \
        unsigned r = u->cc;                                                                        \
        uint64_t lin = lin_addr(cpu, u->seg, soft_ea(cpu, u), n, true);                            \
        uint8_t *p = mem_rmw(cpu, u->seg, lin, n);                                                 \
        type old, want = (type)reg_get(cpu, r, n);                                                 \
                                                                                                   \
        if (p != NULL) {                                                                           \
            old = (type)host_load(p, n);                                                           \
            while (!alu_cas_##n(p, &old, want))                                                    \
                ;                                                                                  \
        } else {                                                                                   \
            old = (type)mem_load_lin(cpu, u->seg, lin, n);                                         \
            mem_store_lin(cpu, u->seg, lin, n, want);                                              \
        }                                                                                          \
        reg_set(cpu, r, n, old);                                                                   \
    }                                                                                              \
    static void xadd_rr_##n(struct soft_cpu *cpu, const struct uop *u)                             \
    {                                                                                              \
        type a = (type)reg_get(cpu, u->dst, n), b = (type)reg_get(cpu, u->src, n);                 \
        type sum = alu_add_##n(cpu, a, b);                                                         \
                                                                                                   \
        reg_set(cpu, u->src, n, a);                                                                \
        reg_set(cpu, u->dst, n, sum);                                                              \
    }                                                                                              \
    static void xadd_mr_##n(struct soft_cpu *cpu, const struct uop *u)                             \
    {                                                                                              \
        uint64_t lin = lin_addr(cpu, u->seg, soft_ea(cpu, u), n, true);                            \
        uint8_t *p = mem_rmw(cpu, u->seg, lin, n);                                                 \
        type old, b = (type)reg_get(cpu, u->src, n);                                               \
                                                                                                   \
        if (p != NULL) {                                                                           \
            old = (type)host_load(p, n);                                                           \
            while (!alu_cas_##n(p, &old, alu_add_##n(cpu, old, b)))                                \
                ;                                                                                  \
        } else {                                                                                   \
            old = (type)mem_load_lin(cpu, u->seg, lin, n);                                         \
            mem_store_lin(cpu, u->seg, lin, n, alu_add_##n(cpu, old, b));                          \
        }                                                                                          \
        reg_set(cpu, u->src, n, old);                                                              \
    }                                                                                              \
    /* the destination is written in any case */                                                   \
    static void cmpxchg_rr_##n(struct soft_cpu *cpu, const struct uop *u)                          \
    {                                                                                              \
        type d = (type)reg_get(cpu, u->dst, n);                                                    \
        type s = (type)reg_get(cpu, u->src, n);                                                    \
                                                                                                   \
        (void)alu_cmp_##n(cpu, (type)reg_get(cpu, X86_RAX, n), d);                                 \
        if (cpu->cc & CC_ZF)                                                                       \
            reg_set(cpu, u->dst, n, s);                                                            \
        else                                                                                       \
            reg_set(cpu, X86_RAX, n, d);                                                           \
    }                                                                                              \
    static void cmpxchg_mr_##n(struct soft_cpu *cpu, const struct uop *u)                          \
    {                                                                                              \
        uint64_t lin = lin_addr(cpu, u->seg, soft_ea(cpu, u), n, true);                            \
        uint8_t *p = mem_rmw(cpu, u->seg, lin, n);                                                 \
        type want = (type)reg_get(cpu, u->src, n), acc = (type)reg_get(cpu, X86_RAX, n);           \
        type old = acc;                                                                            \
                                                                                                   \
        if (p != NULL) {                                                                           \
            if (u->flags & UOP_LOCK) {                                                             \
                alu_cas_##n(p, &old, want);                                                        \
            } else {                                                                               \
                old = (type)host_load(p, n);                                                       \
                host_store(p, n, old == acc ? want : old);                                         \
            }                                                                                      \
        } else {                                                                                   \
            old = (type)mem_load_lin(cpu, u->seg, lin, n);                                         \
            mem_store_lin(cpu, u->seg, lin, n, old == acc ? want : old);                           \
        }                                                                                          \
        (void)alu_cmp_##n(cpu, acc, old);                                                          \
        if (old != acc)                                                                            \
            reg_set(cpu, X86_RAX, n, old);                                                         \
    }
ALU_SIZES(DEF_MOV)

/* ---- extensions ---- */

#define DEF_EXT(name, stype, sn, dn)                                                               \
    static void name##_r_##sn##_##dn(struct soft_cpu *cpu, const struct uop *u)                    \
    {                                                                                              \
        reg_set(cpu, u->dst, dn, (uint64_t)(int64_t)(stype)reg_get(cpu, u->src, sn));              \
    }                                                                                              \
    static void name##_m_##sn##_##dn(struct soft_cpu *cpu, const struct uop *u)                    \
    {                                                                                              \
        reg_set(cpu, u->dst, dn,                                                                   \
                (uint64_t)(int64_t)(stype)mem_load(cpu, u->seg, soft_ea(cpu, u), sn));             \
    }
#define DEF_EXT_TO(sn, ut, st, dn) DEF_EXT(movzx, ut, sn, dn) DEF_EXT(movsx, st, sn, dn)
DEF_EXT_TO(1, uint8_t, int8_t, 2)
DEF_EXT_TO(1, uint8_t, int8_t, 4)
DEF_EXT_TO(1, uint8_t, int8_t, 8)
DEF_EXT_TO(2, uint16_t, int16_t, 2)
DEF_EXT_TO(2, uint16_t, int16_t, 4)
DEF_EXT_TO(2, uint16_t, int16_t, 8)
DEF_EXT(movsx, int32_t, 4, 4)
DEF_EXT(movsx, int32_t, 4, 8)
DEF_EXT(movsx, int32_t, 4, 2)

/* CBW, CWDE, CDQE and CWD, CDQ, CQO */
static void op_cbw(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t a = cpu->st.gpr[X86_RAX];

    reg_set(cpu, X86_RAX, u->osize,
            u->osize == 2   ? (uint64_t)(int64_t)(int8_t)a
            : u->osize == 4 ? (uint64_t)(int64_t)(int16_t)a
                            : (uint64_t)(int64_t)(int32_t)a);
}

static void op_cwd(struct soft_cpu *cpu, const struct uop *u)
{
    bool neg = (cpu->st.gpr[X86_RAX] >> (8 * u->osize - 1)) & 1;

    reg_set(cpu, X86_RDX, u->osize, neg ? ~0ull : 0);
}

static void lea_4(struct soft_cpu *cpu, const struct uop *u)
{
    cpu->st.gpr[u->dst] = (uint32_t)soft_ea(cpu, u);
}

static void lea_8(struct soft_cpu *cpu, const struct uop *u)
{
    cpu->st.gpr[u->dst] = soft_ea(cpu, u);
}

static void lea_2(struct soft_cpu *cpu, const struct uop *u)
{
    reg_set(cpu, u->dst, 2, soft_ea(cpu, u));
}

/* A false CMOV still reads memory and clears the upper half of a 32-bit destination. */
#define DEF_CMOV(n)                                                                                \
    static void cmov_r_##n(struct soft_cpu *cpu, const struct uop *u)                              \
    {                                                                                              \
        uint64_t v = reg_get(cpu, cond_true(cpu, u->cc) ? u->src : u->dst, n);                     \
                                                                                                   \
        reg_set(cpu, u->dst, n, v);                                                                \
    }                                                                                              \
    static void cmov_m_##n(struct soft_cpu *cpu, const struct uop *u)                              \
    {                                                                                              \
        uint64_t v = mem_load(cpu, u->seg, soft_ea(cpu, u), n);                                    \
                                                                                                   \
        reg_set(cpu, u->dst, n, cond_true(cpu, u->cc) ? v : reg_get(cpu, u->dst, n));              \
    }
DEF_CMOV(2)
DEF_CMOV(4)
DEF_CMOV(8)

static void op_setcc(struct soft_cpu *cpu, const struct uop *u)
{
    rm_store(cpu, u, 1, cond_true(cpu, u->cc));
}

static void op_xlat(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t ea = cpu->st.gpr[X86_RBX] + (uint8_t)cpu->st.gpr[X86_RAX];

    if (u->asize != 8)
        ea = u->asize == 4 ? (uint32_t)ea : (uint16_t)ea;
    reg_set(cpu, 8 * X86_RAX, 1, mem_load(cpu, u->seg, ea, 1));
}

static void op_lahf(struct soft_cpu *cpu, const struct uop *u)
{
    (void)u;
    reg_set(cpu, 8 * X86_RAX + 1, 1, (cc_to_flags(cpu->cc) & 0xd5) | X86_FL_FIXED);
}

static void op_sahf(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t ah = reg_get(cpu, 8 * X86_RAX + 1, 1);

    (void)u;
    cpu->cc = (cpu->cc & CC_OF) | (uint32_t)((ah & 0xd5) << 8);
}

static void op_salc(struct soft_cpu *cpu, const struct uop *u)
{
    (void)u;
    reg_set(cpu, 8 * X86_RAX, 1, cpu->cc & CC_CF ? 0xff : 0);
}

static uint64_t byte_swap(uint64_t v, unsigned size)
{
    return size == 2   ? __builtin_bswap16((uint16_t)v)
           : size == 4 ? __builtin_bswap32((uint32_t)v)
                       : __builtin_bswap64(v);
}

static void op_movbe_load(struct soft_cpu *cpu, const struct uop *u)
{
    reg_set(cpu, u->dst, u->osize,
            byte_swap(mem_load(cpu, u->seg, soft_ea(cpu, u), u->osize), u->osize));
}

static void op_movbe_store(struct soft_cpu *cpu, const struct uop *u)
{
    mem_store(cpu, u->seg, soft_ea(cpu, u), u->osize,
              byte_swap(reg_get(cpu, u->src, u->osize), u->osize));
}

/* BSWAP of 16 bits is undefined in the manual; processors clear the register. */
static void op_bswap(struct soft_cpu *cpu, const struct uop *u)
{
    if (u->osize == 2)
        reg_set(cpu, u->dst, 2, 0);
    else
        reg_set(cpu, u->dst, u->osize, byte_swap(cpu->st.gpr[u->dst], u->osize));
}

/* ---- segment registers ---- */

static void op_mov_from_seg(struct soft_cpu *cpu, const struct uop *u)
{
    uint16_t sel = cpu->st.seg[u->src].selector;

    if (u->flags & UOP_REG)
        reg_set(cpu, u->dst, u->osize, sel);
    else
        mem_store(cpu, u->seg, soft_ea(cpu, u), 2, sel);
}

static void load_segment(struct soft_cpu *cpu, unsigned seg, uint16_t sel)
{
    seg_load(cpu, seg, sel);
    if (seg == X86_SS) {
        cpu->st.movss_shadow = true;
        soft_set_slow(cpu);
    }
}

static void op_mov_to_seg(struct soft_cpu *cpu, const struct uop *u)
{
    uint16_t sel = (uint16_t)(u->flags & UOP_REG ? cpu->st.gpr[u->src]
                                                 : mem_load(cpu, u->seg, soft_ea(cpu, u), 2));

    load_segment(cpu, u->dst, sel);
}

/* LDS and family; u->cc is the segment register */
static void op_load_far(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t ea = soft_ea(cpu, u);
    uint64_t off = mem_load(cpu, u->seg, ea, u->osize);
    uint16_t sel = (uint16_t)mem_load(cpu, u->seg, ea + u->osize, 2);

    seg_load(cpu, u->cc, sel); /* LSS needs no shadow: it loads both */
    reg_set(cpu, u->dst, u->osize, off);
}

/* ---- stack ---- */

static void push_r_8(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t sp = cpu->st.gpr[X86_RSP] - 8;

    mem_store(cpu, X86_SS, sp, 8, cpu->st.gpr[u->dst]);
    cpu->st.gpr[X86_RSP] = sp;
}

static void pop_r_8(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t v = mem_load(cpu, X86_SS, cpu->st.gpr[X86_RSP], 8);

    cpu->st.gpr[X86_RSP] += 8;
    cpu->st.gpr[u->dst] = v;
}

static void op_push_reg(struct soft_cpu *cpu, const struct uop *u)
{
    stack_push(cpu, u->osize, reg_get(cpu, u->dst, u->osize));
}

static void op_push_imm(struct soft_cpu *cpu, const struct uop *u)
{
    stack_push(cpu, u->osize, u->imm);
}

static void op_push_mem(struct soft_cpu *cpu, const struct uop *u)
{
    stack_push(cpu, u->osize, mem_load(cpu, u->seg, soft_ea(cpu, u), u->osize));
}

/* A 32-bit push of a selector writes two bytes only and moves ESP by four. */
static void op_push_seg(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t sp = (cpu->st.gpr[X86_RSP] - u->osize) & sp_mask(cpu);
    uint16_t sel = cpu->st.seg[u->dst].selector;

    mem_store(cpu, X86_SS, sp, u->osize == 4 ? 2 : u->osize, sel);
    sp_set(cpu, sp);
}

static void op_pop_reg(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t v = stack_peek(cpu, u->osize, 0);

    stack_drop(cpu, u->osize);
    reg_set(cpu, u->dst, u->osize, v);
}

/* An address that uses RSP sees it already moved. */
static void op_pop_mem(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t v = stack_peek(cpu, u->osize, 0), ea, rsp = cpu->st.gpr[X86_RSP];

    stack_drop(cpu, u->osize);
    ea = soft_ea(cpu, u);
    cpu->st.gpr[X86_RSP] = rsp; /* as it was, should the store fault */
    mem_store(cpu, u->seg, ea, u->osize, v);
    stack_drop(cpu, u->osize);
}

static void op_pop_seg(struct soft_cpu *cpu, const struct uop *u)
{
    uint16_t sel = (uint16_t)stack_peek(cpu, u->osize == 2 ? 2 : 4, 0);
    unsigned size = u->osize;
    uint64_t mask = sp_mask(cpu); /* of the old SS */
    uint64_t sp = (cpu->st.gpr[X86_RSP] + size) & mask;

    seg_load(cpu, u->dst, sel);
    cpu->st.gpr[X86_RSP] = mask == ~0ull ? sp : (cpu->st.gpr[X86_RSP] & ~mask) | sp;
    if (mask == 0xffffffff)
        cpu->st.gpr[X86_RSP] = (uint32_t)sp;
    if (u->dst == X86_SS) {
        cpu->st.movss_shadow = true;
        soft_set_slow(cpu);
    }
}

static void op_pusha(struct soft_cpu *cpu, const struct uop *u)
{
    unsigned n = u->osize;
    uint64_t mask = sp_mask(cpu), sp = cpu->st.gpr[X86_RSP];

    for (unsigned i = 1; i <= 8; i++) /* all of it must be writable before a byte moves */
        soft_probe_write(cpu, X86_SS, (sp - i * n) & mask, n);
    for (unsigned r = 0; r < 8; r++)
        mem_store(cpu, X86_SS, (sp - (r + 1) * n) & mask, n, r == X86_RSP ? sp : cpu->st.gpr[r]);
    sp_set(cpu, sp - 8 * n);
}

static void op_popa(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t v[8];

    for (unsigned i = 0; i < 8; i++)
        v[7 - i] = stack_peek(cpu, u->osize, i * u->osize);
    stack_drop(cpu, 8u * u->osize);
    for (unsigned r = 0; r < 8; r++) {
        if (r != X86_RSP)
            reg_set(cpu, r, u->osize, v[r]);
    }
}

/* imm: bytes to reserve; disp: nesting level */
static void op_enter(struct soft_cpu *cpu, const struct uop *u)
{
    unsigned n = u->osize, level = (unsigned)u->disp & 31;
    uint64_t mask = sp_mask(cpu), sp = cpu->st.gpr[X86_RSP];
    uint64_t bp = cpu->st.gpr[X86_RBP], frame;

    sp = (sp - n) & mask;
    mem_store(cpu, X86_SS, sp, n, bp);
    frame = sp;
    for (unsigned i = 1; i < level; i++) {
        bp -= n;
        sp = (sp - n) & mask;
        mem_store(cpu, X86_SS, sp, n, mem_load(cpu, X86_SS, bp & mask, n));
    }
    if (level > 0) {
        sp = (sp - n) & mask;
        mem_store(cpu, X86_SS, sp, n, frame);
    }
    sp = (sp - (uint16_t)u->imm) & mask;
    soft_probe_write(cpu, X86_SS, sp, n); /* the manual: the new top must be writable */
    reg_set(cpu, X86_RBP, n, frame);
    sp_set(cpu, sp);
}

static void op_leave(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t sp = cpu->st.gpr[X86_RBP] & sp_mask(cpu);
    uint64_t bp = mem_load(cpu, X86_SS, sp, u->osize);

    sp_set(cpu, sp + u->osize);
    reg_set(cpu, X86_RBP, u->osize, bp);
}

#define ROW(f)                                                                                     \
    {                                                                                              \
        f##_1, f##_2, f##_4, f##_8                                                                 \
    }
static const uop_fn mov_fn[5][4] = {ROW(mov_rr), ROW(mov_ri), ROW(mov_rm), ROW(mov_mr),
                                    ROW(mov_mi)};
static const uop_fn xchg_fn[2][4] = {ROW(xchg_rr), ROW(xchg_mr)};
static const uop_fn xadd_fn[2][4] = {ROW(xadd_rr), ROW(xadd_mr)};
static const uop_fn cmpxchg_fn[2][4] = {ROW(cmpxchg_rr), ROW(cmpxchg_mr)};
static const uop_fn cmov_fn[2][4] = {{NULL, cmov_r_2, cmov_r_4, cmov_r_8},
                                     {NULL, cmov_m_2, cmov_m_4, cmov_m_8}};
/* [memory][source 1, 2, 4][destination 2, 4, 8] */
static const uop_fn movzx_fn[2][3][3] = {
    {{movzx_r_1_2, movzx_r_1_4, movzx_r_1_8}, {movzx_r_2_2, movzx_r_2_4, movzx_r_2_8}},
    {{movzx_m_1_2, movzx_m_1_4, movzx_m_1_8}, {movzx_m_2_2, movzx_m_2_4, movzx_m_2_8}},
};
static const uop_fn movsx_fn[2][3][3] = {
    {{movsx_r_1_2, movsx_r_1_4, movsx_r_1_8},
     {movsx_r_2_2, movsx_r_2_4, movsx_r_2_8},
     {movsx_r_4_2, movsx_r_4_4, movsx_r_4_8}},
    {{movsx_m_1_2, movsx_m_1_4, movsx_m_1_8},
     {movsx_m_2_2, movsx_m_2_4, movsx_m_2_8},
     {movsx_m_4_2, movsx_m_4_4, movsx_m_4_8}},
};

static bool build_mov(const struct x86_insn *insn, struct uop *u)
{
    const struct x86_opnd *a = &insn->opnd[0], *b = &insn->opnd[1];
    unsigned form;

    if (a->kind == X86_OPND_REG && a->rclass == X86_RC_SEG) {
        u->fn = op_mov_to_seg;
        u->flags |= UOP_END;
        return true;
    }
    if (b->kind == X86_OPND_REG && b->rclass == X86_RC_SEG) {
        u->fn = op_mov_from_seg;
        return true;
    }
    if (a->kind == X86_OPND_MEM)
        form = b->kind == X86_OPND_IMM ? 4 : 3;
    else
        form = b->kind == X86_OPND_IMM ? 1 : b->kind == X86_OPND_MEM ? 2 : 0;
    u->fn = mov_fn[form][size_index(a->size)];
    return true;
}

static bool build_push_pop(const struct x86_insn *insn, struct uop *u)
{
    const struct x86_opnd *a = &insn->opnd[0];
    bool push = insn->op == X86_PUSH;

    if (a->kind == X86_OPND_REG && a->rclass == X86_RC_SEG) {
        u->fn = push ? op_push_seg : op_pop_seg;
        if (!push)
            u->flags |= UOP_END;
    } else if (a->kind == X86_OPND_REG) {
        if (insn->mode == X86_MODE_64 && insn->osize == 8)
            u->fn = push ? push_r_8 : pop_r_8;
        else
            u->fn = push ? op_push_reg : op_pop_reg;
    } else if (a->kind == X86_OPND_IMM) {
        u->fn = op_push_imm;
    } else {
        u->fn = push ? op_push_mem : op_pop_mem;
    }
    return true;
}

/* XCHG names its operands in either order: the memory one may come second. */
static bool build_xchg(const struct x86_insn *insn, struct uop *u)
{
    bool mem = !(u->flags & UOP_REG);
    bool first = insn->opnd[0].kind == X86_OPND_MEM;

    u->cc = first ? u->src : u->dst;
    u->fn = xchg_fn[mem][size_index(insn->opnd[0].size)];
    return true;
}

static bool build_far_load(const struct x86_insn *insn, struct uop *u)
{
    u->cc = insn->op == X86_LDS   ? X86_DS
            : insn->op == X86_LES ? X86_ES
            : insn->op == X86_LFS ? X86_FS
            : insn->op == X86_LGS ? X86_GS
                                  : X86_SS;
    u->fn = op_load_far;
    u->flags |= UOP_END;
    return true;
}

static bool build_extend(const struct x86_insn *insn, struct uop *u)
{
    bool mem = !(u->flags & UOP_REG);
    unsigned from = size_index(insn->opnd[1].size), to = size_index(insn->opnd[0].size) - 1;

    u->fn = insn->op == X86_MOVZX ? movzx_fn[mem][from][to] : movsx_fn[mem][from][to];
    return u->fn != NULL;
}

bool build_data(const struct x86_insn *insn, struct uop *u)
{
    const struct x86_opnd *a = &insn->opnd[0];
    bool mem = !(u->flags & UOP_REG);
    unsigned size = size_index(a->size);

    switch (insn->op) {
    case X86_MOV:
    case X86_MOVNTI:
        return build_mov(insn, u);
    case X86_MOVZX:
    case X86_MOVSX:
    case X86_MOVSXD:
        return build_extend(insn, u);
    case X86_PUSH:
    case X86_POP:
        return build_push_pop(insn, u);
    case X86_LEA:
        u->fn = a->size == 2 ? lea_2 : a->size == 4 ? lea_4 : lea_8;
        return true;
    case X86_XCHG:
        return build_xchg(insn, u);
    case X86_XADD:
        u->fn = xadd_fn[mem][size];
        return true;
    case X86_CMPXCHG:
        u->fn = cmpxchg_fn[mem][size];
        return true;
    case X86_CMOVCC:
        u->fn = cmov_fn[mem][size];
        return true;
    case X86_SETCC:
        u->fn = op_setcc;
        return true;
    case X86_CBW:
        u->fn = op_cbw;
        return true;
    case X86_CWD:
        u->fn = op_cwd;
        return true;
    case X86_XLAT:
        u->fn = op_xlat;
        return true;
    case X86_LAHF:
        u->fn = op_lahf;
        return true;
    case X86_SAHF:
        u->fn = op_sahf;
        return true;
    case X86_SALC:
        u->fn = op_salc;
        return true;
    case X86_BSWAP:
        u->fn = op_bswap;
        return true;
    case X86_MOVBE:
        u->fn = a->kind == X86_OPND_MEM ? op_movbe_store : op_movbe_load;
        return true;
    case X86_LDS:
    case X86_LES:
    case X86_LFS:
    case X86_LGS:
    case X86_LSS:
        return build_far_load(insn, u);
    case X86_PUSHA:
        u->fn = op_pusha;
        return true;
    case X86_POPA:
        u->fn = op_popa;
        return true;
    case X86_ENTER:
        u->disp = (int64_t)insn->imm2;
        u->fn = op_enter;
        return true;
    case X86_LEAVE:
        u->fn = op_leave;
        return true;
    default:
        return false;
    }
}
