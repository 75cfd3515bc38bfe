#include <stddef.h>

#include "engine/soft/jit/translate.h"

/*
 * Where the operands of a guest instruction are in the host: flags, memory behind the soft TLB, the
 * vector registers and the x87 unit.
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

void tx_restore_flags(struct emit *e)
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
    tx_restore_flags(&t->hot);
    t->flags = FLAGS_BOTH;
}

void tx_flags_out(struct tx *t, bool needed)
{
    if (needed && t->flags == FLAGS_HOST) {
        tx_save_flags(t);
        t->flags = FLAGS_BOTH;
    }
}

/* ---- addresses and probes ---- */

/* By 48 bits: what is canonical by 57 alone is the interpreter's as well. */
struct cold *tx_canonical(struct tx *t, unsigned reg)
{
    struct emit *e = &t->hot;
    struct cold *c;

    put_mov(e, S2, reg);
    put_op_reg(e, true, 0xc1, 7, S2); /* sar */
    put8(e, 47);
    put_alu_imm(e, true, 0, S2, 1);
    put_alu_imm(e, true, 7, S2, 1);
    c = tx_cold(t, COLD_STEP, put_jcc(e, CC_A));
    c->packed = t->off[t->i];
    return c;
}

/* Jumps if S1 meets this mask; returns the place of the displacement. */
static uint8_t *put_align_check(struct emit *e, unsigned mask)
{
    put8(e, 0x40); /* test bpl, mask */
    put8(e, 0xf6);
    put8(e, 0xc5);
    put8(e, mask);
    return put_jcc(e, CC_NE);
}

unsigned tx_reg_or(struct tx *t, unsigned guest, unsigned temp)
{
    if (tx_home[guest] != H_NONE)
        return tx_home[guest];
    put_load(&t->hot, temp, mem_cpu(OFF_GPR(guest)));
    return temp;
}

void tx_load_gpr(struct tx *t, unsigned to, unsigned guest)
{
    if (tx_home[guest] != H_NONE)
        tx_mov(t, to, tx_home[guest]);
    else
        put_load(&t->hot, to, mem_cpu(OFF_GPR(guest)));
}

void tx_page_offset(const struct tx *t, struct emit *e, unsigned to, int64_t off)
{
    enum { STEP = 2 * PAGE_SIZE };

    put_load(e, to, mem_cpu(OFF(block_rip)));
    if (t->word == 4) {
        put_op_mem(e, false, 0x8d, to, mem_at(to, (int32_t)(uint32_t)off));
        return;
    }
    if (off > INT32_MAX) { /* from an instruction's end, as far as it reaches */
        put_lea(e, to, mem_at(to, STEP));
        off -= STEP;
    }
    put_lea(e, to, mem_at(to, (int32_t)off));
}

void tx_address(struct tx *t, const struct x86_insn *in, unsigned to)
{
    struct emit *e = &t->hot;
    struct mem m = {.base = H_NONE, .index = H_NONE};
    /* a result of 32 bits is cut off the same way as an address of 32 bits */
    bool wide = in->asize == 8 && (in->op != X86_LEA || in->osize != 4);

    if (in->base == X86_REG_RIP) {
        tx_page_offset(t, e, to, in->disp + t->off[t->i] + in->len);
        if (!wide)
            put_mov32(e, to, to);
        return;
    } else {
        if (in->base != X86_REG_NONE)
            m.base = (uint8_t)tx_reg_or(t, in->base, S1);
        if (in->index != X86_REG_NONE) {
            m.index = (uint8_t)tx_reg_or(t, in->index, S2);
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
    struct emit *e = &t->hot;

    tx_address(t, in, S1);
    if (in->seg != X86_FS && in->seg != X86_GS)
        return;
    if (t->word == 4) { /* the key does not say what these segments are like */
        put_op_mem(e, false, 0xf6, 0, mem_cpu(OFF(flat))); /* test byte */
        put8(e, 1u << in->seg);
        tx_cold(t, COLD_STEP, put_jcc(e, CC_E))->packed = t->off[t->i];
    }
    put_op_mem(e, t->word == 8, 0x03, S1, mem_cpu(OFF(base) + 8u * in->seg));
}

/* The table's place as an operand with S2 as index, plus a field. */
struct mem tx_tlb(const struct tx *t, size_t field)
{
    if (t->key & KEY_USER)
        return (struct mem){
            .base = H_RSP, .index = S2, .disp = (int32_t)(OFF(tables[TLB_USER]) + field)};
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
    struct mem tag =
        tx_tlb(t, write ? offsetof(struct tlb_entry, wtag) : offsetof(struct tlb_entry, rtag));
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

        a = tx_cold(t, COLD_SLOW, put_align_check(e, align));
        a->tag = tag;
        a->retry = retry;
        a->packed = c->packed;
        a->found = e->p + 8; /* never used: the address is wrong */
    }
    put_op_mem(e, true, 0x03, S1, tx_tlb(t, offsetof(struct tlb_entry, page)));
    c->found = e->p;
}

static bool high_byte(const struct x86_insn *in)
{
    return (in->opnd[0].kind == X86_OPND_REG && in->opnd[0].rclass == X86_RC_GPRH) ||
           (in->opnd[1].kind == X86_OPND_REG && in->opnd[1].rclass == X86_RC_GPRH);
}

/*
 * The same, but S1 stays as it is and S3 becomes the distance to the host's address: the access
 * need not wait for the compare, nor for an addition. S2 is lost.
 */
static void put_split_probe(struct tx *t, unsigned seg, unsigned size, bool write, unsigned align)
{
    struct emit *e = &t->hot;
    struct mem tag =
        tx_tlb(t, write ? offsetof(struct tlb_entry, wtag) : offsetof(struct tlb_entry, rtag));
    uint8_t *retry = e->p, *jump[2];
    unsigned n = 0;

    tx_index(t);
    put_mov(e, S3, S1);
    put_op_mem(e, true, 0x33, S3, tag);
    put_alu_imm(e, true, 7, S3, (int32_t)(PAGE_SIZE - size));
    jump[n++] = put_jcc(e, CC_A);
    if (align != 0)
        jump[n++] = put_align_check(e, align);
    put_load(e, S3, tx_tlb(t, offsetof(struct tlb_entry, addend)));
    for (unsigned i = 0; i < n; i++) {
        struct cold *c = tx_cold(t, COLD_SLOW, jump[i]);

        c->retry = retry;
        c->found = e->p;
        c->packed = t->off[t->i] | size << 12 | (write ? SLOW_WRITE : 0) | seg << 20 | align << 23 |
                    SLOW_SPLIT;
    }
}

/* Has the instruction registers to spare for that? S2 may stand for one of the guest's. */
static bool can_split(const struct tx *t, const struct x86_insn *in)
{
    uint32_t slow = 0;

    if (t->kind[t->i] != TX_PLAIN || t->busy[t->i] || !in->has_modrm || high_byte(in))
        return false;
    for (unsigned k = 0; k < in->opnd_count; k++) {
        const struct x86_opnd *o = &in->opnd[k];

        if (o->kind == X86_OPND_REG && o->rclass == X86_RC_GPR && tx_home[o->reg] == H_NONE)
            slow |= 1u << o->reg;
    }
    return (slow & (slow - 1)) == 0;
}

/*
 * To S1: what a shared access goes through, and `disp` more. It is not cut to 32 bits: one that
 * would be is in no page, and goes apart.
 */
static void put_shared_address(struct tx *t, const struct access *a, int32_t disp)
{
    struct mem m = {.base = H_NONE, .index = H_NONE, .shift = a->shift, .disp = disp};

    if (a->base == X86_REG_RIP) {
        put_load(&t->hot, S1, mem_cpu(OFF(block_rip)));
        m.base = S1;
    } else if (a->base != X86_REG_NONE) {
        m.base = (uint8_t)tx_reg_or(t, a->base, S1);
    }
    if (a->index != X86_REG_NONE)
        m.index = (uint8_t)tx_reg_or(t, a->index, S2);
    put_lea(&t->hot, S1, m);
}

/* The probe of a group's span; S3 becomes the distance from guest to host addresses. */
static void put_group_probe(struct tx *t, const struct access *a, int32_t disp, unsigned seg)
{
    struct emit *e = &t->hot;
    size_t field =
        a->group_write ? offsetof(struct tlb_entry, wtag) : offsetof(struct tlb_entry, rtag);
    struct mem tag = tx_tlb(t, field);
    struct cold *c;
    uint8_t *retry;

    put_shared_address(t, a, disp - (a->at - a->lo));
    retry = e->p;
    tx_index(t);
    put_op_mem(e, true, 0x33, S1, tag);
    put_alu_imm(e, true, 7, S1, (int32_t)(PAGE_SIZE - a->span));
    c = tx_cold(t, COLD_GROUP, put_jcc(e, CC_A));
    if (a->group_align != 0)
        c->also = put_align_check(e, a->group_align);
    c->tag = tag;
    c->retry = retry;
    c->packed = t->off[t->i] | (unsigned)a->size << 12 | (a->write ? SLOW_WRITE : 0) | seg << 20 |
                (a->group_write ? SLOW_GROUP_WRITE : 0) | (unsigned)a->group_align << 23;
    c->distance = a->at - a->lo;
    c->span = a->span;
    c->index = (uint8_t)t->i;
    put_load(e, S3, tx_tlb(t, offsetof(struct tlb_entry, addend)));
    if (a->saved)
        put_store(e, mem_cpu(OFF(hot.distance) + 8u * a->group), S3);
}

/* The operand of a shared access, disp from its registers; S1 and, with an index, S2 are lost. */
static struct mem shared(struct tx *t, int32_t disp, unsigned seg)
{
    const struct access *a = &t->access[t->i];
    struct mem m = {.base = S1, .index = S3};

    if (a->first) {
        tx_clobber_flags(t);
        put_group_probe(t, a, disp, seg);
    } else if (a->reload) {
        put_load(&t->hot, S3, mem_cpu(OFF(hot.distance) + 8u * a->group));
    }
    if (a->base == X86_RSP && a->index == X86_REG_NONE)
        disp += t->rsp_off;
    if (a->base < 16 && a->index == X86_REG_NONE) {
        m.base = (uint8_t)tx_reg_or(t, a->base, S1);
        m.disp = disp;
    } else if (a->base == X86_REG_RIP) {
        put_load(&t->hot, S1, mem_cpu(OFF(block_rip)));
        m.disp = disp;
    } else {
        put_shared_address(t, a, disp);
    }
    return m;
}

void tx_settle_rsp(struct tx *t)
{
    if (t->rsp_off != 0)
        tx_lea(t, H_R10, mem_at(H_R10, t->rsp_off));
    t->rsp_off = 0;
}

void tx_move_rsp(struct tx *t, int32_t by)
{
    t->rsp_off += by;
    if (!t->access[t->i].shared)
        tx_settle_rsp(t);
}

struct mem tx_operand(struct tx *t, const struct x86_insn *in, unsigned size, bool write,
                      unsigned align)
{
    struct emit *e = &t->hot;

    if (t->kind[t->i] == TX_PLAIN && t->access[t->i].shared) {
        int32_t disp = in->base == X86_REG_RIP ? t->access[t->i].at : (int32_t)in->disp;
        struct mem m = shared(t, disp, in->seg);
        bool check = align != 0 && !t->access[t->i].aligned;

        if (check || high_byte(in)) {
            put_lea(e, S1, m);
            m = mem_at(S1, 0);
        }
        if (check) {
            tx_clobber_flags(t);
            tx_cold(t, COLD_STEP, put_align_check(e, align))->packed = t->off[t->i];
        }
        return m;
    }
    tx_clobber_flags(t);
    tx_linear(t, in);
    if (can_split(t, in)) {
        put_split_probe(t, in->seg, size, write, align);
        return (struct mem){.base = S1, .index = S3};
    }
    tx_probe(t, in->seg, size, write, align);
    return mem_at(S1, 0);
}

struct mem tx_stack(struct tx *t, unsigned base, int32_t disp, bool write)
{
    if (t->access[t->i].shared)
        return shared(t, disp, X86_SS);
    tx_clobber_flags(t);
    tx_lea(t, S1, mem_at(tx_home[base], disp));
    tx_probe(t, X86_SS, t->word, write, 0);
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
