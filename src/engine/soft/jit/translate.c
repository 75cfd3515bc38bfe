#include <stddef.h>

#include "engine/soft/jit/internal.h"
#include "engine/soft/jit/translate.h"
#include "engine/soft/native.h"

/*
 * One block: decode, find out which flags are dead, emit. A block goes on past conditional jumps
 * and ends with what goes elsewhere always, with the page, or when it is long enough.
 *
 * What makes an instruction slow (a TLB miss, a link that is not made yet, an interrupt) is written
 * into the cold half of the cache, after the block's hot code.
 */

#define OFF(field) offsetof(struct soft_cpu, field)
#define OFF_GPR(n) (OFF(st.gpr) + 8u * (n))

/* ---- flags ---- */

void tx_save_flags(struct tx *t)
{
    struct emit *e = &t->hot;

    put_mov(e, S2, H_RAX);
    put8(e, 0x9f); /* lahf */
    put8(e, 0x0f);
    put8(e, 0x90);
    put8(e, 0xc0); /* seto al */
    put8(e, 0x66);
    put_op_mem(e, false, 0x89, H_RAX, mem_cpu(OFF(cc)));
    put_mov(e, H_RAX, S2);
}

static void put_restore_flags(struct emit *e)
{
    put_mov(e, S2, H_RAX);
    put8(e, 0x0f);
    put_op_mem(e, false, 0xb7, H_RAX, mem_cpu(OFF(cc))); /* movzx eax, word */
    put8(e, 0x04);
    put8(e, 0x7f); /* add al, 0x7f: overflows if OF was set */
    put8(e, 0x9e); /* sahf */
    put_mov(e, H_RAX, S2);
}

void tx_clobber_flags(struct tx *t)
{
    if (t->flags == FLAGS_HOST && t->live_in[t->i] != 0)
        tx_save_flags(t);
    t->flags = FLAGS_MEM;
}

void tx_need_flags(struct tx *t)
{
    if (t->flags != FLAGS_MEM)
        return;
    put_restore_flags(&t->hot);
    t->flags = FLAGS_BOTH;
}

/* The successor may read the flags: from memory, as the convention is. */
static void flags_out(struct tx *t, bool needed)
{
    if (needed && t->flags == FLAGS_HOST) {
        tx_save_flags(t);
        t->flags = FLAGS_BOTH;
    }
}

static void depend(struct tx *t, unsigned lo, unsigned hi)
{
    if (lo < t->lo)
        t->lo = lo;
    if (hi > t->hi)
        t->hi = hi;
}

/*
 * A store may change the instructions behind it, if the page lets it (KEY_STRICT). What they were
 * going to do with the flags is then no longer known.
 */
static bool stores(const struct x86_insn *in)
{
    for (unsigned k = 0; k < in->opnd_count; k++) {
        if (in->opnd[k].kind == X86_OPND_MEM && (in->opnd[k].access & X86_ACC_W))
            return true;
    }
    return in->op == X86_PUSH;
}

/* Does code at this offset of the page read flags that it has not written? A short look. */
static bool flags_read_at(struct tx *t, unsigned off)
{
    uint32_t live = X86_FL_ARITH;
    unsigned at = off;

    for (unsigned n = 0; n < 8 && at < PAGE_SIZE; n++) {
        struct x86_insn insn;
        int len = x86_decode(t->page + at, PAGE_SIZE - at, X86_MODE_64, &insn);

        if (len <= 0)
            return true;
        depend(t, at, at + (unsigned)len);
        if ((insn.flags_read & live) != 0 || ((t->key & KEY_STRICT) && stores(&insn)))
            return true;
        if (!tx_is_plain(t, &insn) && insn.op != X86_PUSH && insn.op != X86_POP &&
            insn.op != X86_LEA && insn.op != X86_NOP && insn.op != X86_JMP)
            return true;
        live &= ~(insn.flags_written | insn.flags_undefined);
        if (live == 0)
            return false;
        at += (unsigned)len;
        if (insn.op == X86_JMP) {
            if (insn.opnd[0].kind != X86_OPND_REL)
                return true;
            at += (unsigned)insn.imm;
        }
    }
    return true;
}

/* ---- cold code ---- */

struct cold *tx_cold(struct tx *t, enum cold_kind kind, uint8_t *jump)
{
    struct cold *c = &t->cold[t->colds++];

    *c = (struct cold){.kind = (uint8_t)kind, .jump = jump};
    return c;
}

/* A jump to the block at this offset of the page; at: its displacement in the hot code. */
static void add_link(struct tx *t, uint8_t *at, unsigned target)
{
    struct jit_link *l = &t->link[t->links++];
    struct cold *c = tx_cold(t, COLD_LINK, at);

    l->at = jit_offset(t->j, at);
    l->target = (uint16_t)target;
    c->packed = t->links - 1u;
}

static void put_stub_call(struct tx *t, struct emit *e, enum jit_fn fn)
{
    set_target(put_call(e), t->j->rw + (t->j->stub[fn] - t->j->rx));
}

static void put_stub_jmp(struct tx *t, struct emit *e, enum jit_fn fn)
{
    put_jmp_to(e, t->j->rw + (t->j->stub[fn] - t->j->rx));
}

/* The way to code that is not in this page: S1 is its linear address. */
static void put_indirect(struct tx *t, struct emit *e)
{
    struct mem slot = {.base = H_RSP, .index = S2, .shift = 2};

    slot.disp = (int32_t)(OFF(slots) + (t->key & KEY_USER ? sizeof(t->cpu->slots[0]) : 0));
    put8(e, 0x44); /* movzx r8d, bp */
    put8(e, 0x0f);
    put8(e, 0xb7);
    put8(e, 0xc5);
    put8(e, 0x41); /* shl r8d, 3 */
    put8(e, 0xc1);
    put8(e, 0xe0);
    put8(e, 3);
    put_jmp_mem(e, slot);
}

static void put_far(struct tx *t, struct emit *e, int32_t off, uint32_t branch)
{
    put_mov_imm32(e, S3, branch);
    put_load(e, S1, mem_cpu(OFF(block_rip)));
    put_lea(e, S1, mem_at(S1, off));
    put_indirect(t, e);
}

static void put_uncount(struct tx *t, struct emit *e, unsigned n)
{
    if (!(t->key & KEY_COUNT) || n == 0)
        return;
    put_load(e, S1, mem_cpu(OFF(stats.instructions)));
    put_lea(e, S1, mem_at(S1, -(int32_t)n));
    put_store(e, mem_cpu(OFF(stats.instructions)), S1);
}

static void finish_cold(struct tx *t, struct cold *c, struct emit *e)
{
    set_target(c->jump, e->p);
    switch ((enum cold_kind)c->kind) {
    case COLD_GROUP: {
        uint8_t *ret, *skip;
        struct jit_link *l;

        put_op_mem(e, true, 0x33, S1, c->tag);
        /* a span that crosses into the next page: the way past the probe is a jump of its own */
        put_mov32(e, S2, S1);
        put_alu_imm(e, false, 4, S2, 4095);
        put_alu_imm(e, false, 7, S2, (int32_t)(PAGE_SIZE - c->span));
        skip = put_jcc(e, CC_BE);
        put_uncount(t, e, t->n - c->index);
        l = &t->link[t->links++];
        l->at = jit_offset(t->j, put_jmp(e));
        l->target = (uint16_t)SLOW_OFF(c->packed);
        l->apart = true;
        l->cold = jit_offset(t->j, e->p);
        set_target(jit_at(t->j, l->at), e->p);
        put_mov_imm32(e, S1, (uint32_t)((uint8_t *)l - t->j->arena));
        put_stub_jmp(t, e, FN_LINK);
        set_target(skip, e->p);
        put_stub_call(t, e, FN_APART);
        ret = e->p;
        put32(e, c->packed);
        put32(e, (uint32_t)(int32_t)(jit_rx(t->j, c->retry) - jit_rx(t->j, ret)));
        put32(e, (uint32_t)c->distance);
        put32(e, c->span);
        break;
    }
    case COLD_SLOW: {
        uint8_t *ret;

        put_op_mem(e, true, 0x33, S1, c->tag); /* xor: the address again */
        put_stub_call(t, e, FN_SLOW);
        ret = e->p;
        put32(e, c->packed);
        put32(e, (uint32_t)(int32_t)(jit_rx(t->j, c->retry) - jit_rx(t->j, ret)));
        put32(e, (uint32_t)(int32_t)(jit_rx(t->j, c->found) - jit_rx(t->j, ret)));
        if (c->restore)
            put_restore_flags(e);
        put_jmp_to(e, c->resume);
        break;
    }
    case COLD_STEP:
        put_stub_call(t, e, FN_STEP);
        put32(e, c->packed);
        if (c->restore)
            put_restore_flags(e);
        put_jmp_to(e, c->resume);
        break;
    case COLD_LINK:
        t->link[c->packed].cold = jit_offset(t->j, e->p);
        put_mov_imm32(e, S1, (uint32_t)((uint8_t *)&t->link[c->packed] - t->j->arena));
        put_stub_jmp(t, e, FN_LINK);
        break;
    case COLD_FAR:
        put_uncount(t, e, c->uncount);
        put_far(t, e, (int32_t)c->packed, c->branch);
        break;
    case COLD_POLL:
        put_load(e, S1, mem_cpu(OFF(block_rip)));
        put_lea(e, S1, mem_at(S1, (int32_t)c->packed));
        put_store(e, mem_cpu(OFF(st.rip)), S1);
        put_jmp_to(e, t->j->rw + (t->j->exit - t->j->rx));
        break;
    case COLD_HELPER:
        put_mov_imm32(e, S1, c->packed);
        put_mov_imm32(e, S2, 0);
        put_stub_jmp(t, e, FN_END);
        break;
    case COLD_X87:
        set_target(put_call(e), t->j->rw + (t->j->x87_load - t->j->rx));
        put_jmp_to(e, c->resume);
        break;
    case COLD_VEC:
        set_target(put_call(e), t->j->rw + (t->j->vec_load - t->j->rx));
        put_jmp_to(e, c->resume);
        break;
    }
}

/* ---- addresses and probes ---- */

/* The host register of a guest register, or where it was loaded to: `temp`. */
static unsigned reg_or(struct tx *t, unsigned guest, unsigned temp)
{
    if (tx_home[guest] != H_NONE)
        return tx_home[guest];
    put_load(&t->hot, temp, mem_cpu(OFF_GPR(guest)));
    return temp;
}

void tx_address(struct tx *t, const struct x86_insn *in, unsigned to)
{
    struct emit *e = &t->hot;
    struct mem m = {.base = H_NONE, .index = H_NONE};
    bool wide = in->asize == 8;

    if (in->base == X86_REG_RIP) {
        put_load(e, to, mem_cpu(OFF(block_rip)));
        m.base = (uint8_t)to;
        m.disp = (int32_t)(in->disp + t->off[t->i] + in->len);
    } else {
        if (in->base != X86_REG_NONE)
            m.base = (uint8_t)reg_or(t, in->base, S1);
        if (in->index != X86_REG_NONE) {
            m.index = (uint8_t)reg_or(t, in->index, S2);
            m.shift = (uint8_t)__builtin_ctz(in->scale | 0x100u);
        }
        m.disp = (int32_t)in->disp;
    }
    if (m.base == H_NONE && m.index == H_NONE)
        put_mov_imm64(e, to, wide ? (uint64_t)in->disp : (uint32_t)in->disp);
    else if (m.base != H_NONE && m.index == H_NONE && m.disp == 0)
        (wide ? put_mov : put_mov32)(e, to, m.base);
    else
        put_op_mem(e, wide, 0x8d, to, m);
}

void tx_linear(struct tx *t, const struct x86_insn *in)
{
    tx_address(t, in, S1);
    if (in->seg == X86_FS || in->seg == X86_GS)
        put_op_mem(&t->hot, true, 0x03, S1, mem_cpu(OFF(base) + 8u * in->seg));
}

/* The table's place as an operand with S2 as index, plus a field. */
struct mem tx_tlb(const struct tx *t, size_t field)
{
    if (t->key & KEY_USER)
        return (struct mem){.base = H_RSP,
                            .index = S2,
                            .disp = (int32_t)(OFF(tables[TLB_USER]) + field)};
    return mem_at(S2, (int32_t)field);
}

void tx_index(struct tx *t)
{
    struct emit *e = &t->hot;

    _Static_assert(sizeof(struct tlb_entry) == 32, "entries are found by shifting");
    put_mov32(e, S2, S1);
    put8(e, 0x41); /* shr r8d, 7 */
    put8(e, 0xc1);
    put8(e, 0xe8);
    put8(e, 7);
    put_alu_imm(e, false, 4, S2, (int32_t)((SOFT_TLB_SIZE - 1) << 5));
    if (!(t->key & KEY_USER))
        put_op_mem(e, true, 0x03, S2, mem_cpu(OFF(tlb)));
}

/*
 * S1 is a linear address; afterwards it is the host address of the same byte. Flags and S2 are
 * lost. align: what the address must not meet, else the instruction is left to the interpreter.
 */
void tx_probe(struct tx *t, unsigned seg, unsigned size, bool write, unsigned align)
{
    struct emit *e = &t->hot;
    struct cold *c;
    struct mem tag = tx_tlb(t, write ? offsetof(struct tlb_entry, wtag)
                                        : offsetof(struct tlb_entry, rtag));
    uint8_t *retry = e->p;

    tx_index(t);
    put_op_mem(e, true, 0x33, S1, tag);
    put_alu_imm(e, true, 7, S1, (int32_t)(PAGE_SIZE - size));
    c = tx_cold(t, COLD_SLOW, put_jcc(e, CC_A));
    c->tag = tag;
    c->retry = retry;
    c->packed = t->off[t->i] | size << 12 | (write ? SLOW_WRITE : 0) | seg << 20 | align << 23;
    if (align != 0) {
        struct cold *a;

        put8(e, 0x40); /* test bpl, align */
        put8(e, 0xf6);
        put8(e, 0xc5);
        put8(e, align);
        a = tx_cold(t, COLD_SLOW, put_jcc(e, CC_NE));
        a->tag = tag;
        a->retry = retry;
        a->packed = c->packed;
        a->found = e->p + 8; /* never used: the address is wrong */
    }
    put_op_mem(e, true, 0x03, S1, tx_tlb(t, offsetof(struct tlb_entry, page)));
    c->found = e->p;
}

/* The probe of a group's span; S3 becomes the distance from guest to host addresses. */
static void put_group_probe(struct tx *t, unsigned seg)
{
    struct emit *e = &t->hot;
    const struct access *a = &t->access[t->i];
    size_t field = a->group_write ? offsetof(struct tlb_entry, wtag)
                                  : offsetof(struct tlb_entry, rtag);
    struct mem tag = tx_tlb(t, field);
    struct cold *c;
    uint8_t *retry;

    /* S1: where the access itself would be is at `distance` from here */
    put_lea(e, S1, mem_at(tx_home[a->base] != H_NONE ? tx_home[a->base] : S1, t->group_disp));
    retry = e->p;
    tx_index(t);
    put_op_mem(e, true, 0x33, S1, tag);
    put_alu_imm(e, true, 7, S1, (int32_t)(PAGE_SIZE - a->span));
    c = tx_cold(t, COLD_GROUP, put_jcc(e, CC_A));
    c->tag = tag;
    c->retry = retry;
    c->packed = t->off[t->i] | (unsigned)a->size << 12 | (a->write ? SLOW_WRITE : 0) | seg << 20 |
                (a->group_write ? SLOW_GROUP_WRITE : 0) | t->group_align << 23;
    c->distance = a->at - a->lo;
    c->span = a->span;
    c->index = (uint8_t)t->i;
    put_load(e, S3, tx_tlb(t, offsetof(struct tlb_entry, addend)));
}

/* [base + disp] by the group's distance. */
static struct mem shared(struct tx *t, unsigned base, int32_t disp, unsigned seg)
{
    const struct access *a = &t->access[t->i];
    struct mem m = {.base = tx_home[base], .index = S3, .disp = disp};

    if (a->first) {
        tx_clobber_flags(t);
        if (m.base == H_NONE)
            put_load(&t->hot, S1, mem_cpu(OFF_GPR(base)));
        t->group_disp = disp - (a->at - a->lo);
        put_group_probe(t, seg);
    }
    if (m.base == H_NONE) {
        put_load(&t->hot, S1, mem_cpu(OFF_GPR(base)));
        m.base = S1;
    }
    return m;
}

static bool high_byte(const struct x86_insn *in)
{
    return (in->opnd[0].kind == X86_OPND_REG && in->opnd[0].rclass == X86_RC_GPRH) ||
           (in->opnd[1].kind == X86_OPND_REG && in->opnd[1].rclass == X86_RC_GPRH);
}

struct mem tx_operand(struct tx *t, const struct x86_insn *in, unsigned size, bool write,
                      unsigned align)
{
    struct emit *e = &t->hot;

    if (t->kind[t->i] == TX_PLAIN && t->access[t->i].shared) {
        struct mem m;

        t->group_align = align;
        m = shared(t, in->base, (int32_t)in->disp, in->seg);
        t->group_align = 0;
        if (align != 0 || high_byte(in)) {
            if (align != 0)
                tx_clobber_flags(t);
            put_lea(e, S1, m);
            m = mem_at(S1, 0);
        }
        if (align != 0) {
            put8(e, 0x40); /* test bpl, align */
            put8(e, 0xf6);
            put8(e, 0xc5);
            put8(e, align);
            tx_cold(t, COLD_STEP, put_jcc(e, CC_NE))->packed = t->off[t->i];
        }
        return m;
    }
    tx_clobber_flags(t);
    tx_linear(t, in);
    tx_probe(t, in->seg, size, write, align);
    return mem_at(S1, 0);
}

struct mem tx_stack(struct tx *t, unsigned base, int32_t disp, bool write)
{
    if (t->access[t->i].shared)
        return shared(t, base, disp, X86_SS);
    tx_clobber_flags(t);
    put_lea(&t->hot, S1, mem_at(tx_home[base], disp));
    tx_probe(t, X86_SS, 8, write, 0);
    return mem_at(S1, 0);
}

/* ---- vector registers ---- */

/* Before the first use in a block: the registers may still lie in st.xsave. */
void tx_need_vectors(struct tx *t)
{
    struct emit *e = &t->hot;
    struct cold *c;

    if (t->vectors)
        return;
    tx_clobber_flags(t);
    put_cmp8_mem(e, mem_cpu(OFF(hot.vec_live)), 0);
    c = tx_cold(t, COLD_VEC, put_jcc(e, CC_E));
    c->resume = e->p;
    t->vectors = true;
}

void tx_need_x87(struct tx *t)
{
    struct emit *e = &t->hot;
    struct cold *c;

    if (t->x87)
        return;
    tx_clobber_flags(t);
    put_cmp8_mem(e, mem_cpu(OFF(hot.x87_live)), 0);
    c = tx_cold(t, COLD_X87, put_jcc(e, CC_E));
    c->resume = e->p;
    t->x87 = true;
}

/* ---- instructions of their own kind ---- */

static void put_push(struct tx *t, const struct x86_insn *in)
{
    struct emit *e = &t->hot;
    const struct x86_opnd *o = &in->opnd[0];
    struct mem m;

    if (o->kind == X86_OPND_MEM)
        put_load(e, S3, tx_operand(t, in, 8, false, 0));
    m = tx_stack(t, X86_RSP, -8, true);
    if (o->kind == X86_OPND_MEM) {
        put_store(e, m, S3);
    } else if (o->kind == X86_OPND_IMM) {
        put_op_mem(e, true, 0xc7, 0, m);
        put32(e, (uint32_t)in->imm);
    } else {
        put_store(e, m, reg_or(t, o->reg, S2));
    }
    put_lea(e, H_R10, mem_at(H_R10, -8));
}

static void put_pop(struct tx *t, const struct x86_insn *in)
{
    struct emit *e = &t->hot;
    unsigned guest = in->opnd[0].reg, host = tx_home[guest];
    struct mem m = tx_stack(t, X86_RSP, 0, false);

    put_load(e, host != H_NONE ? host : S2, m);
    if (host == H_NONE)
        put_store(e, mem_cpu(OFF_GPR(guest)), S2);
    if (guest != X86_RSP)
        put_lea(e, H_R10, mem_at(H_R10, 8));
}

static void put_leave(struct tx *t)
{
    struct emit *e = &t->hot;
    struct mem m = tx_stack(t, X86_RBP, 0, false);

    put_lea(e, H_R10, mem_at(H_R11, 8));
    put_load(e, H_R11, m);
}

static void put_lea_insn(struct tx *t, const struct x86_insn *in)
{
    struct emit *e = &t->hot;
    unsigned guest = in->opnd[0].reg, host = tx_home[guest];

    if (in->osize == 2) {
        tx_address(t, in, S1);
        if (host == H_NONE) {
            put8(e, 0x66);
            put_op_mem(e, false, 0x89, S1, mem_cpu(OFF_GPR(guest)));
        } else {
            put8(e, 0x66);
            put_op_reg(e, false, 0x89, S1, host);
        }
        return;
    }
    /* a 32-bit result, or a 32-bit address: the upper half is zero */
    if (host == H_NONE || in->base == X86_REG_RIP || in->osize != in->asize) {
        tx_address(t, in, S1);
        if (in->osize == 4)
            put_mov32(e, S1, S1);
        if (host == H_NONE)
            put_store(e, mem_cpu(OFF_GPR(guest)), S1);
        else
            put_mov(e, host, S1);
        return;
    }
    tx_address(t, in, host);
}

/* DIV and IDIV: what would fault goes to the interpreter. S1 or a register holds the divisor. */
static void put_div(struct tx *t, const struct x86_insn *in)
{
    struct emit *e = &t->hot;
    unsigned size = in->opnd[0].size, reg;
    bool wide = size == 8;
    struct cold *c[3];
    unsigned n = 0;

    if (in->opnd[0].kind == X86_OPND_MEM) {
        put_op_mem(e, wide, 0x8b, S3, tx_operand(t, in, size, false, 0));
        reg = S3;
    } else {
        tx_clobber_flags(t);
        reg = reg_or(t, in->opnd[0].reg, S3);
    }
    if (in->op == X86_DIV) {
        put_op_reg(e, wide, 0x39, reg, H_RDX); /* cmp rdx, reg */
        c[n++] = tx_cold(t, COLD_STEP, put_jcc(e, CC_AE));
    } else {
        /* RDX must be RAX's sign, and the divisor neither 0 nor -1 */
        put_op_reg(e, wide, 0x89, H_RAX, S1);
        put_op_reg(e, wide, 0xc1, 7, S1);
        put8(e, wide ? 63 : 31);
        put_op_reg(e, wide, 0x39, S1, H_RDX);
        c[n++] = tx_cold(t, COLD_STEP, put_jcc(e, CC_NE));
        put_op_mem(e, wide, 0x8d, S1, mem_at(reg, 1));
        put_alu_imm(e, wide, 7, S1, 1);
        c[n++] = tx_cold(t, COLD_STEP, put_jcc(e, CC_BE));
    }
    put_op_reg(e, wide, 0xf7, in->op == X86_DIV ? 6 : 7, reg);
    t->flags = t->live_after[t->i] != 0 ? FLAGS_HOST : FLAGS_MEM;
    for (unsigned i = 0; i < n; i++) {
        c[i]->packed = t->off[t->i];
        c[i]->restore = t->flags == FLAGS_HOST;
        c[i]->resume = e->p;
    }
}

/* ---- branches ---- */

static void put_count_at_start(struct tx *t)
{
    struct emit *e = &t->hot;
    struct cold *c;

    put_load(e, S1, mem_cpu(OFF(stats.instructions)));
    put_lea(e, S1, mem_at(S1, (int32_t)t->n));
    put_op_mem(e, true, 0x3b, S1, mem_cpu(OFF(hot.budget)));
    c = tx_cold(t, COLD_POLL, put_jcc(e, CC_A));
    c->packed = t->off[0];
    put_store(e, mem_cpu(OFF(stats.instructions)), S1);
    /* the block's own record, for what leaves it early */
    put_mov_imm64(e, S1, (uint64_t)(uintptr_t)t->block);
    put_store(e, mem_cpu(OFF(hot.block)), S1);
}

static void put_poll(struct tx *t)
{
    struct emit *e = &t->hot;
    struct cold *c;

    put_op_mem(e, false, 0x83, 7, mem_cpu(OFF(pending)));
    put8(e, 0);
    c = tx_cold(t, COLD_POLL, put_jcc(e, CC_NE));
    c->packed = t->off[0];
}

/* An unconditional way on, to an offset from this page's start. */
static void put_goto(struct tx *t, int64_t target, uint32_t branch)
{
    struct emit *e = &t->hot;

    if (target >= 0 && target < (int64_t)PAGE_SIZE)
        add_link(t, put_jmp(e), (unsigned)target);
    else
        put_far(t, e, (int32_t)target, branch);
}

static int64_t branch_target(const struct tx *t, const struct x86_insn *in)
{
    return (int64_t)t->off[t->i] + in->len + (int64_t)in->imm;
}

/* Tests of one condition in cpu->cc's bytes; false: more than a test. */
static bool test_saved(struct emit *e, unsigned cc, unsigned *host_cc)
{
    static const uint8_t mask[6] = {1, 0x01, 0x40, 0x41, 0x80, 0x04};

    if (cc >> 1 >= 6)
        return false;
    put_op_mem(e, false, 0xf6, 0, mem_cpu(OFF(cc) + (cc >> 1 == 0 ? 0 : 1)));
    put8(e, mask[cc >> 1]);
    *host_cc = cc & 1 ? CC_E : CC_NE;
    return true;
}

static void put_jcc_insn(struct tx *t, const struct x86_insn *in)
{
    struct emit *e = &t->hot;
    unsigned cc = in->opcode & 15;
    int64_t target = branch_target(t, in);
    bool near = target >= 0 && target < (int64_t)PAGE_SIZE;

    flags_out(t, t->taken_reads[t->i]);
    if (t->flags == FLAGS_MEM && !test_saved(e, cc, &cc))
        tx_need_flags(t);
    if (near && (t->key & KEY_COUNT) && t->i + 1 < t->n) {
        uint8_t *over = put_jcc(e, cc ^ 1);

        put_uncount(t, e, t->n - t->i - 1);
        add_link(t, put_jmp(e), (unsigned)target);
        set_target(over, e->p);
    } else if (near) {
        add_link(t, put_jcc(e, cc), (unsigned)target);
    } else {
        struct cold *c = tx_cold(t, COLD_FAR, put_jcc(e, cc));

        c->packed = (uint32_t)(int32_t)target;
        c->branch = t->off[t->i];
        c->uncount = (uint8_t)(t->n - t->i - 1);
    }
}

static void put_return_address(struct tx *t, const struct x86_insn *in)
{
    struct emit *e = &t->hot;

    struct mem m = tx_stack(t, X86_RSP, -8, true);

    put_load(e, S2, mem_cpu(OFF(block_rip)));
    put_lea(e, S2, mem_at(S2, t->off[t->i] + in->len));
    put_store(e, m, S2);
    put_lea(e, H_R10, mem_at(H_R10, -8));
}

static void put_call_insn(struct tx *t, const struct x86_insn *in)
{
    struct emit *e = &t->hot;
    struct cold *c;

    tx_clobber_flags(t);
    if (in->opnd[0].kind == X86_OPND_REL) {
        put_return_address(t, in);
        put_goto(t, branch_target(t, in), t->off[t->i] | 8u << 12);
        return;
    }
    if (in->opnd[0].kind == X86_OPND_MEM) {
        put_load(e, S3, tx_operand(t, in, 8, false, 0));
    } else if (tx_home[in->opnd[0].reg] != H_NONE) {
        put_mov(e, S3, tx_home[in->opnd[0].reg]);
    } else {
        put_load(e, S3, mem_cpu(OFF_GPR(in->opnd[0].reg)));
    }
    /* a target that is not canonical faults before anything is pushed */
    put_mov(e, S2, S3);
    put_op_reg(e, true, 0xc1, 7, S2);
    put8(e, 47);
    put_alu_imm(e, true, 0, S2, 1);
    put_alu_imm(e, true, 7, S2, 1);
    c = tx_cold(t, COLD_STEP, put_jcc(e, CC_A));
    c->packed = t->off[t->i] | SLOW_BRANCH;
    put_return_address(t, in);
    put_mov(e, S1, S3);
    put_mov_imm32(e, S3, t->off[t->i] | 8u << 12);
    c->resume = e->p;
    put_indirect(t, e);
}

static void put_jmp_insn(struct tx *t, const struct x86_insn *in)
{
    struct emit *e = &t->hot;

    if (in->opnd[0].kind == X86_OPND_REL) {
        flags_out(t, t->taken_reads[t->i]);
        put_goto(t, branch_target(t, in), t->off[t->i]);
        return;
    }
    tx_clobber_flags(t);
    if (in->opnd[0].kind == X86_OPND_MEM) {
        put_load(e, S1, tx_operand(t, in, 8, false, 0));
    } else if (tx_home[in->opnd[0].reg] != H_NONE) {
        put_mov(e, S1, tx_home[in->opnd[0].reg]);
    } else {
        put_load(e, S1, mem_cpu(OFF_GPR(in->opnd[0].reg)));
    }
    put_mov_imm32(e, S3, t->off[t->i]);
    put_indirect(t, e);
}

static void put_ret(struct tx *t, const struct x86_insn *in)
{
    struct emit *e = &t->hot;
    unsigned drop = 8 + (uint16_t)in->imm;

    struct mem m;

    tx_clobber_flags(t);
    m = tx_stack(t, X86_RSP, 0, false);
    put_load(e, S1, m);
    put_lea(e, H_R10, mem_at(H_R10, (int32_t)drop));
    put_mov_imm32(e, S3, t->off[t->i] | drop << 12);
    put_indirect(t, e);
}

/* ---- by the interpreter ---- */

/* Instructions that cannot change what translated code takes for granted. */
static bool changes_nothing(const struct x86_insn *in)
{
    switch (in->op) {
    case X86_CPUID:
    case X86_PUSHF:
    case X86_RDTSC:
    case X86_RDMSR:
    case X86_MOVS:
    case X86_STOS:
    case X86_LODS:
    case X86_CMPS:
    case X86_SCAS:
    case X86_PAUSE:
    case X86_RDPKRU:
    case X86_CLD:
    case X86_STD:
    case X86_RDFSBASE:
    case X86_RDGSBASE:
    case X86_WRFSBASE:
    case X86_WRGSBASE:
        return true;
    default:
        return in->opnd[0].rclass == X86_RC_ST || in->opnd[1].rclass == X86_RC_ST;
    }
}

uint32_t tx_uop(struct tx *t)
{
    struct uop *u = jit_alloc(t->j, sizeof(*u));

    block_make_uop(t->cpu, t->page + t->off[t->i], PAGE_SIZE - t->off[t->i], t->off[t->i], u);
    return (uint32_t)((uint8_t *)u - t->j->arena);
}

static void put_helper(struct tx *t, const struct x86_insn *in, bool ends)
{
    struct emit *e = &t->hot;
    uint32_t at = tx_uop(t);
    const struct uop *u = (const void *)(t->j->arena + at);

    tx_clobber_flags(t);
    put_mov_imm32(e, S1, at);
    put_mov_imm32(e, S2, changes_nothing(in));
    if (ends || (u->flags & UOP_END)) {
        put_stub_jmp(t, e, FN_END);
        t->ended = true;
    } else {
        put_stub_call(t, e, FN_UOP);
    }
}

/* ---- the block ---- */

static bool ends_block(const struct x86_insn *in)
{
    return in->cls == X86_CLASS_BRANCH && in->op != X86_JCC;
}

static enum tx_kind kind_of(const struct tx *t, const struct x86_insn *in)
{
    unsigned kind = in->opnd[0].kind;
    bool gpr = kind == X86_OPND_REG && in->opnd[0].rclass == X86_RC_GPR;

    if (tx_is_system(t, in))
        return TX_SYSTEM;
    if (in->prefixes & X86_PFX_LOCK)
        return tx_is_plain(t, in) ? TX_PLAIN : TX_HELPER;
    switch (in->op) {
    case X86_JCC:
        return TX_JCC;
    case X86_JMP:
        return kind == X86_OPND_REL || in->osize == 8 ? TX_JMP : TX_HELPER;
    case X86_CALL:
        return in->osize == 8 ? TX_CALL : TX_HELPER;
    case X86_RET:
        return in->osize == 8 ? TX_RET : TX_HELPER;
    case X86_PUSH:
        return in->osize == 8 && (gpr || kind == X86_OPND_IMM || kind == X86_OPND_MEM) ? TX_PUSH
                                                                                       : TX_HELPER;
    case X86_POP:
        return in->osize == 8 && gpr ? TX_POP : TX_HELPER;
    case X86_LEAVE:
        return in->osize == 8 ? TX_LEAVE : TX_HELPER;
    case X86_LEA:
        return TX_LEA;
    case X86_FWAIT: /* nothing can be pending while all exceptions are masked */
        return t->key & KEY_X87 ? TX_NOP : TX_HELPER;
    case X86_PAUSE:
        return t->cpu->vm->env.exit_on_pause ? TX_HELPER : TX_NOP;
    case X86_NOP:
    case X86_PREFETCH:
        return TX_NOP;
    case X86_DIV:
    case X86_IDIV:
        return in->opnd[0].size >= 4 ? TX_DIV : TX_HELPER;
    default:
        return tx_is_plain(t, in) ? TX_PLAIN : TX_HELPER;
    }
}

/* Decodes up to the block's end. */
static void decode_block(struct tx *t, unsigned off)
{
    while (t->n < JIT_INSNS && t->exits < JIT_EXITS - 2 && off < PAGE_SIZE) {
        struct x86_insn *in = &t->insn[t->n];
        int len = x86_decode(t->page + off, PAGE_SIZE - off, X86_MODE_64, in);

        if (len == X86_DECODE_MORE)
            break; /* goes on in the next page, or is cut off there */
        t->off[t->n] = (uint16_t)off;
        depend(t, off, off + (len > 0 ? in->len : 15));
        t->kind[t->n] = len > 0 ? (uint8_t)kind_of(t, in) : TX_HELPER;
        if (len <= 0) {
            in->cls = X86_CLASS_BRANCH;
            in->flags_read = X86_FL_ARITH;
            in->len = (uint8_t)(len == X86_DECODE_TOOLONG ? 15 : in->len);
        }
        /* the interrupts it lets in must not come before the next instruction */
        if (len > 0 && in->op == X86_STI && t->kind[t->n] == TX_SYSTEM &&
            (t->n + 1 == JIT_INSNS || off + in->len + 15 > PAGE_SIZE))
            t->kind[t->n] = TX_HELPER;
        off += in->len;
        t->n++;
        if (in->op == X86_JCC)
            t->exits++;
        if (len <= 0 || ends_block(in))
            return;
    }
    t->falls = t->n > 0;
    t->end = off;
}

static bool near_target(const struct tx *t, unsigned i, unsigned *off)
{
    int64_t target = (int64_t)t->off[i] + t->insn[i].len + (int64_t)t->insn[i].imm;

    *off = (unsigned)target;
    return target >= 0 && target < (int64_t)PAGE_SIZE;
}

/* What a store in the block changes is behind it. */
static bool may_change_code(const struct tx *t, unsigned i)
{
    return (t->key & KEY_STRICT) && (stores(&t->insn[i]) || t->kind[i] == TX_PUSH ||
                                     t->kind[i] == TX_HELPER || t->kind[i] == TX_SYSTEM);
}

/* Backward over the block: which flags are live after each instruction. */
static void scan_flags(struct tx *t)
{
    uint32_t live = X86_FL_ARITH;

    if (t->falls && t->end < PAGE_SIZE && !flags_read_at(t, t->end))
        live = 0;
    t->falls_reads = live != 0;
    for (unsigned i = t->n; i-- > 0;) {
        const struct x86_insn *in = &t->insn[i];
        uint32_t read = in->flags_read & X86_FL_ARITH;
        uint32_t gone = (in->flags_written | in->flags_undefined) & X86_FL_ARITH;
        unsigned off;

        switch ((enum tx_kind)t->kind[i]) {
        case TX_HELPER:
            read = X86_FL_ARITH;
            break;
        case TX_JCC:
        case TX_JMP:
            if (in->op == X86_JMP && in->opnd[0].kind != X86_OPND_REL) {
                live = X86_FL_ARITH;
                break;
            }
            t->taken_reads[i] = !near_target(t, i, &off) || flags_read_at(t, off);
            if (in->op == X86_JMP)
                live = 0;
            live |= t->taken_reads[i] ? X86_FL_ARITH : 0;
            break;
        case TX_CALL:
        case TX_RET:
            live = X86_FL_ARITH;
            break;
        case TX_PLAIN:
            /* a count in CL may be zero: flags come out as they went in */
            if (tx_is_cl_shift(in)) {
                read &= in->op == X86_RCL || in->op == X86_RCR ? X86_FL_ARITH : live;
                gone = 0;
            }
            break;
        case TX_SYSTEM:
            if (in->op == X86_PUSHF)
                read = X86_FL_ARITH;
            break;
        case TX_PUSH:
        case TX_POP:
        case TX_LEAVE:
        case TX_LEA:
        case TX_NOP:
        case TX_DIV:
            break;
        }
        t->live_after[i] = live;
        t->reads[i] = read;
        live = may_change_code(t, i) ? X86_FL_ARITH : (live & ~gone) | read;
        t->live_in[i] = live;
    }
}

/* A backward jump to within the page makes a cycle: such blocks look for interrupts. */
static bool jumps_back(const struct tx *t)
{
    for (unsigned i = 0; i < t->n; i++) {
        if ((t->kind[i] == TX_JCC || t->kind[i] == TX_JMP || t->kind[i] == TX_CALL) &&
            t->insn[i].opnd[0].kind == X86_OPND_REL && (int64_t)t->insn[i].imm < 0)
            return true;
    }
    return false;
}

static void emit_insn(struct tx *t)
{
    const struct x86_insn *in = &t->insn[t->i];
    unsigned first = t->colds;

    switch ((enum tx_kind)t->kind[t->i]) {
    case TX_PLAIN:
        tx_plain(t, in);
        break;
    case TX_HELPER:
        put_helper(t, in, ends_block(in));
        break;
    case TX_JCC:
        put_jcc_insn(t, in);
        return;
    case TX_JMP:
        put_jmp_insn(t, in);
        break;
    case TX_CALL:
        put_call_insn(t, in);
        break;
    case TX_RET:
        put_ret(t, in);
        break;
    case TX_PUSH:
        put_push(t, in);
        break;
    case TX_POP:
        put_pop(t, in);
        break;
    case TX_LEAVE:
        put_leave(t);
        break;
    case TX_LEA:
        put_lea_insn(t, in);
        break;
    case TX_DIV:
        put_div(t, in);
        break;
    case TX_SYSTEM:
        tx_system(t, in);
        break;
    case TX_NOP:
        break;
    }
    for (unsigned i = first; i < t->colds; i++) {
        struct cold *c = &t->cold[i];

        if (c->kind == COLD_STEP && c->resume == NULL) {
            c->resume = t->hot.p;
            c->restore = t->flags != FLAGS_MEM;
        }
        if (c->kind == COLD_SLOW) {
            if (ends_block(in))
                c->packed |= SLOW_BRANCH;
            c->resume = t->hot.p;
            c->restore = t->flags != FLAGS_MEM;
        }
    }
}

static void emit_block(struct tx *t)
{
    if (jumps_back(t))
        put_poll(t);
    if (t->key & KEY_COUNT)
        put_count_at_start(t);
    for (t->i = 0; t->i < t->n && !t->ended; t->i++)
        emit_insn(t);
    if (t->falls && !t->ended) {
        flags_out(t, t->falls_reads);
        put_goto(t, t->end, FAR_FALLS);
    }
}

struct jit_block *jit_translate(struct soft_cpu *cpu, uint64_t pa, const uint8_t *page,
                                unsigned key)
{
    struct jit *j = cpu->jit;
    struct tx *t = j->tx;
    struct jit_block *b;
    struct emit cold;

    memset(t, 0, offsetof(struct tx, insn));
    t->cpu = cpu;
    t->j = j;
    t->key = key;
    t->page = page;
    t->lo = PAGE_SIZE;
    t->hot.p = j->hot;
    decode_block(t, (unsigned)(pa & 4095));
    if (t->n == 0)
        return NULL;
    scan_flags(t);
    tx_share(t);
    b = t->block = jit_alloc(j, sizeof(*b));
    t->link = jit_alloc(j, (t->exits + t->groups + 2) * sizeof(struct jit_link));
    memset(t->link, 0, (t->exits + t->groups + 2) * sizeof(struct jit_link));
    memset(b, 0, sizeof(*b));
    b->body = jit_offset(j, t->hot.p);
    emit_block(t);
    cold.p = j->cold;
    for (unsigned i = 0; i < t->colds; i++)
        finish_cold(t, &t->cold[i], &cold);
    j->hot = t->hot.p;
    j->cold = cold.p;
    b->pa = pa;
    b->key = (uint16_t)key;
    b->lo = (uint16_t)t->lo;
    b->hi = (uint16_t)t->hi;
    b->insns = (uint8_t)t->n;
    b->link = t->link;
    b->links = (uint8_t)t->links;
    for (unsigned i = 0; i < t->links; i++) {
        t->link[i].from = b;
        t->link[i].to = NULL;
        t->link[i].next = NULL;
    }
    if (key & KEY_COUNT) {
        b->offsets = jit_alloc(j, t->n * sizeof(uint16_t));
        memcpy(b->offsets, t->off, t->n * sizeof(uint16_t));
    }
    jit_insert(j, b);
    return b;
}
