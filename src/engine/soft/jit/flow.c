#include <stddef.h>

#include "engine/soft/jit/translate.h"

/*
 * Ways out of a block: branches, links to other blocks, calls of stubs. What makes an instruction
 * slow (a TLB miss, a link that is not made yet, an interrupt) is written into the cold half of the
 * cache, after the block's hot code.
 */

#define OFF(field) offsetof(struct soft_cpu, field)

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
    tx_reloc(t, RELOC_FIXED, e->p - 4, 0);
}

static void put_stub_jmp(struct tx *t, struct emit *e, enum jit_fn fn)
{
    put_jmp_to(e, t->j->rw + (t->j->stub[fn] - t->j->rx));
    tx_reloc(t, RELOC_FIXED, e->p - 4, 0);
}

/* Back into the hot code. */
static void put_resume(struct tx *t, struct emit *e, const struct cold *c)
{
    put_jmp_to(e, c->resume);
    tx_reloc(t, RELOC_OTHER, e->p - 4, 0);
}

/* To S1: where link n is. */
static void put_link_place(struct tx *t, struct emit *e, unsigned n)
{
    put_mov_imm32(e, S1, 0); /* see keep_links */
    t->link_site[n] = e->p - 4;
    tx_reloc(t, RELOC_LINK, e->p - 4, n);
}

/* To S1: where the interpreter's instruction is that tx_uop has made last. */
static void put_uop_place(struct tx *t, struct emit *e, uint32_t at, unsigned n)
{
    put_mov_imm32(e, S1, at);
    tx_reloc(t, RELOC_UOP, e->p - 4, n);
}

/* Behind a call: the distance from there to a place in the hot code. */
static void put_distance(struct tx *t, struct emit *e, const uint8_t *ret, const uint8_t *to)
{
    put32(e, (uint32_t)(int32_t)(jit_rx(t->j, to) - jit_rx(t->j, ret)));
    tx_reloc(t, RELOC_OTHER, e->p - 4, 0);
}

/* The way to code that is not in this page: S1 is its linear address. */
static void put_indirect(struct tx *t, struct emit *e)
{
    struct mem slot = {.base = H_RSP, .index = S2, .shift = 2};

    slot.disp = (int32_t)(OFF(slots) + (t->key & KEY_USER ? sizeof(t->cpu->slots[0]) : 0));
    _Static_assert(sizeof(struct jit_slot) == 4 << 3, "slots are found by shifting");
    put8(e, 0x44); /* imul r8d, ebp, imm32 */
    put8(e, 0x69);
    put8(e, 0xc5);
    put32(e, JIT_SLOT_FACTOR);
    put8(e, 0x41); /* shr r8d, 16 - 3 */
    put8(e, 0xc1);
    put8(e, 0xe8);
    put8(e, 16 - 3);
    put_alu_imm(e, false, 4, S2, -8);
    put_jmp_mem(e, slot);
}

static void put_far(struct tx *t, struct emit *e, int64_t off, uint32_t branch)
{
    put_mov_imm32(e, S3, branch);
    tx_page_offset(t, e, S1, off);
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

void tx_finish_cold(struct tx *t, struct cold *c, struct emit *e)
{
    set_target(c->jump, e->p);
    tx_reloc(t, RELOC_OTHER, c->jump, 0);
    if (c->also != NULL) {
        set_target(c->also, e->p);
        tx_reloc(t, RELOC_OTHER, c->also, 0);
    }
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
        put_uncount(t, e, t->turn - c->index % t->turn);
        l = &t->link[t->links++];
        l->at = jit_offset(t->j, put_jmp(e));
        l->target = (uint16_t)SLOW_OFF(c->packed);
        l->apart = true;
        l->cold = jit_offset(t->j, e->p);
        set_target(jit_at(t->j, l->at), e->p);
        put_link_place(t, e, t->links - 1);
        put_stub_jmp(t, e, FN_LINK);
        set_target(skip, e->p);
        put_stub_call(t, e, FN_APART);
        ret = e->p;
        put32(e, c->packed);
        put_distance(t, e, ret, c->retry);
        put32(e, (uint32_t)c->distance);
        put32(e, c->span);
        break;
    }
    case COLD_SLOW: {
        uint8_t *ret;

        if (!(c->packed & SLOW_SPLIT))
            put_op_mem(e, true, 0x33, S1, c->tag); /* xor: the address again */
        put_stub_call(t, e, FN_SLOW);
        ret = e->p;
        put32(e, c->packed);
        put_distance(t, e, ret, c->retry);
        put_distance(t, e, ret, c->found);
        if (c->restore)
            tx_restore_flags(e);
        put_resume(t, e, c);
        break;
    }
    case COLD_STEP:
        put_stub_call(t, e, FN_STEP);
        put32(e, c->packed);
        if (c->restore)
            tx_restore_flags(e);
        put_resume(t, e, c);
        break;
    case COLD_LINK:
        t->link[c->packed].cold = jit_offset(t->j, e->p);
        put_link_place(t, e, c->packed);
        put_stub_jmp(t, e, FN_LINK);
        break;
    case COLD_FAR:
        put_uncount(t, e, c->uncount);
        put_far(t, e, c->target, c->branch);
        break;
    case COLD_POLL:
        put_load(e, S1, mem_cpu(OFF(block_rip)));
        put_lea(e, S1, mem_at(S1, (int32_t)c->packed));
        put_store(e, mem_cpu(OFF(st.rip)), S1);
        put_jmp_to(e, t->j->rw + (t->j->exit - t->j->rx));
        tx_reloc(t, RELOC_FIXED, e->p - 4, 0);
        break;
    case COLD_HELPER:
        put_uop_place(t, e, c->packed, c->index);
        put_mov_imm32(e, S2, 0);
        put_stub_jmp(t, e, FN_END);
        break;
    case COLD_X87:
        set_target(put_call(e), t->j->rw + (t->j->x87_load - t->j->rx));
        tx_reloc(t, RELOC_FIXED, e->p - 4, 0);
        put_resume(t, e, c);
        break;
    case COLD_VEC:
        set_target(put_call(e), t->j->rw + (t->j->vec_load - t->j->rx));
        tx_reloc(t, RELOC_FIXED, e->p - 4, 0);
        put_resume(t, e, c);
        break;
    }
}

/* ---- branches ---- */

void tx_count(struct tx *t)
{
    struct emit *e = &t->hot;
    struct cold *c;

    if (t->i != 0) /* the block's start has none in EFLAGS */
        tx_clobber_flags(t);
    put_load(e, S1, mem_cpu(OFF(stats.instructions)));
    put_lea(e, S1, mem_at(S1, (int32_t)t->turn));
    put_op_mem(e, true, 0x3b, S1, mem_cpu(OFF(hot.budget)));
    c = tx_cold(t, COLD_POLL, put_jcc(e, CC_A));
    c->packed = t->off[0];
    put_store(e, mem_cpu(OFF(stats.instructions)), S1);
    /* the block's own record, for what leaves it early */
    put_mov_imm64(e, S1, (uint64_t)(uintptr_t)t->block);
    put_store(e, mem_cpu(OFF(hot.block)), S1);
}

void tx_poll(struct tx *t)
{
    struct emit *e = &t->hot;
    struct cold *c;

    put_op_mem(e, false, 0x83, 7, mem_cpu(OFF(pending)));
    put8(e, 0);
    c = tx_cold(t, COLD_POLL, put_jcc(e, CC_NE));
    c->packed = t->off[0];
}

void tx_across(struct tx *t, uint64_t pa)
{
    struct emit *e = &t->hot;
    struct jit_across *a = jit_alloc(t->j, sizeof(*a));

    a->pa = pa;
    a->len = (uint8_t)(t->off[0] + t->insn[0].len - PAGE_SIZE);
    memcpy(a->bytes, t->text + PAGE_SIZE, a->len);
    put_stub_call(t, e, FN_ACROSS);
    put32(e, jit_place(t->j, a));
}

/* An unconditional way on, to an offset from this page's start. */
void tx_goto(struct tx *t, int64_t target, uint32_t branch)
{
    struct emit *e = &t->hot;

    if (target >= 0 && target < (int64_t)PAGE_SIZE)
        add_link(t, put_jmp(e), (unsigned)target);
    else
        put_far(t, e, target, branch);
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

void tx_jcc(struct tx *t, const struct x86_insn *in)
{
    struct emit *e = &t->hot;
    unsigned cc = in->opcode & 15;
    int64_t target = t->target[t->i];
    bool near = target >= 0 && target < (int64_t)PAGE_SIZE;
    unsigned behind = t->turn - t->i % t->turn - 1; /* counted, and not run */

    tx_flags_out(t, t->taken_reads[t->i]);
    if (t->flags == FLAGS_MEM && !test_saved(e, cc, &cc))
        tx_need_flags(t);
    if (near && (t->key & KEY_COUNT) && behind != 0) {
        uint8_t *over = put_jcc(e, cc ^ 1);

        put_uncount(t, e, behind);
        add_link(t, put_jmp(e), (unsigned)target);
        set_target(over, e->p);
    } else if (near) {
        add_link(t, put_jcc(e, cc), (unsigned)target);
    } else {
        struct cold *c = tx_cold(t, COLD_FAR, put_jcc(e, cc));

        c->target = target;
        c->branch = tx_between_turns(t) ? FAR_FALLS : t->off[t->i];
        c->uncount = (uint8_t)behind;
    }
}

static void put_return_address(struct tx *t, const struct x86_insn *in)
{
    struct emit *e = &t->hot;

    struct mem m = tx_stack(t, X86_RSP, -(int32_t)t->word, true);

    put_load(e, S2, mem_cpu(OFF(block_rip)));
    put_lea(e, S2, mem_at(S2, t->off[t->i] + in->len));
    tx_store(t, m, S2);
    tx_move_rsp(t, -(int32_t)t->word);
    tx_settle_rsp(t);
}

void tx_call(struct tx *t, const struct x86_insn *in)
{
    struct emit *e = &t->hot;
    struct cold *c;

    tx_clobber_flags(t);
    if (in->opnd[0].kind == X86_OPND_REL) {
        put_return_address(t, in);
        tx_goto(t, t->target[t->i], t->off[t->i] | t->word << 12);
        return;
    }
    if (in->opnd[0].kind == X86_OPND_MEM) {
        tx_load(t, S3, tx_operand(t, in, t->word, false, 0));
    } else {
        tx_load_gpr(t, S3, in->opnd[0].reg);
    }
    if (t->word == 8) { /* a target that is not canonical faults before anything is pushed */
        c = tx_canonical(t, S3);
        c->packed |= SLOW_BRANCH;
        c->resume = e->p; /* never gone back to */
    }
    put_return_address(t, in);
    put_mov(e, S1, S3);
    put_mov_imm32(e, S3, t->off[t->i] | t->word << 12);
    put_indirect(t, e);
}

void tx_jmp(struct tx *t, const struct x86_insn *in)
{
    struct emit *e = &t->hot;

    if (in->opnd[0].kind == X86_OPND_REL) {
        tx_flags_out(t, t->taken_reads[t->i]);
        tx_goto(t, t->target[t->i], t->off[t->i]);
        return;
    }
    tx_clobber_flags(t);
    if (in->opnd[0].kind == X86_OPND_MEM) {
        tx_load(t, S1, tx_operand(t, in, t->word, false, 0));
    } else {
        tx_load_gpr(t, S1, in->opnd[0].reg);
    }
    put_mov_imm32(e, S3, t->off[t->i]);
    put_indirect(t, e);
}

void tx_ret(struct tx *t, const struct x86_insn *in)
{
    struct emit *e = &t->hot;
    unsigned drop = t->word + (uint16_t)in->imm;

    struct mem m;

    tx_clobber_flags(t);
    m = tx_stack(t, X86_RSP, 0, false);
    tx_load(t, S1, m);
    tx_move_rsp(t, (int32_t)drop);
    tx_settle_rsp(t);
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

    block_make_uop(t->cpu, t->text + t->off[t->i], t->text_end - t->off[t->i], t->off[t->i], u);
    t->uop_at[t->uops++] = t->off[t->i];
    return (uint32_t)((uint8_t *)u - t->j->arena);
}

void tx_helper(struct tx *t, const struct x86_insn *in, bool ends)
{
    struct emit *e = &t->hot;
    uint32_t at = tx_uop(t);
    const struct uop *u = (const void *)(t->j->arena + at);

    tx_clobber_flags(t);
    put_uop_place(t, e, at, t->uops - 1);
    put_mov_imm32(e, S2, changes_nothing(in));
    if (ends || (u->flags & UOP_END)) {
        put_stub_jmp(t, e, FN_END);
        t->ended = true;
    } else {
        put_stub_call(t, e, FN_UOP);
        t->x87_page = false; /* FRSTOR and its like load other pointers */
    }
}
