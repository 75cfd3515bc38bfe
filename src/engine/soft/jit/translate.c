#include <stddef.h>

#include "engine/soft/jit/store.h"
#include "engine/soft/jit/translate.h"

/*
 * One block: decode, find out which flags are dead, emit. A block goes on past conditional jumps
 * and ends with what goes elsewhere always, with the page, or when it is long enough.
 */

#define OFF(field) offsetof(struct soft_cpu, field)
#define OFF_GPR(n) (OFF(st.gpr) + 8u * (n))

enum { TURNS = 4 }; /* of a loop in one block, at most */

static void depend(struct tx *t, unsigned lo, unsigned hi)
{
    if (lo < t->lo)
        t->lo = lo;
    if (hi > t->hi)
        t->hi = hi;
    if (t->spans != 0 && t->spans <= TX_SPANS && t->span[t->spans - 1][1] == lo) {
        t->span[t->spans - 1][1] = (uint16_t)hi;
        return;
    }
    if (t->spans < TX_SPANS) {
        t->span[t->spans][0] = (uint16_t)lo;
        t->span[t->spans][1] = (uint16_t)hi;
    }
    t->spans++;
}

/* Where an instruction holds what may be an address of a kernel that KASLR has moved. */
static void note_fields(struct tx *t, unsigned off, const struct x86_insn *in)
{
    unsigned at[2], n;

    if (t->j->store == NULL || (t->key & (KEY_USER | KEY_32)))
        return;
    n = store_fields(in, t->page + off, at);
    for (unsigned i = 0; i < n && t->fields < TX_FIELDS; i++)
        t->field[t->fields++] = (uint16_t)(off + at[i]);
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
        int len = x86_decode(t->page + at, PAGE_SIZE - at, t->mode, &insn);

        if (len <= 0)
            return true;
        depend(t, at, at + (unsigned)len);
        note_fields(t, at, &insn);
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
            if (insn.opnd[0].kind != X86_OPND_REL || insn.osize == 2)
                return true;
            at += (unsigned)insn.imm;
        }
    }
    return true;
}

/* ---- instructions of their own kind ---- */

static void put_push(struct tx *t, const struct x86_insn *in)
{
    struct emit *e = &t->hot;
    const struct x86_opnd *o = &in->opnd[0];
    struct mem m;

    if (o->kind == X86_OPND_MEM)
        tx_load(t, S3, tx_operand(t, in, t->word, false, 0));
    m = tx_stack(t, X86_RSP, -(int32_t)t->word, true);
    if (o->kind == X86_OPND_MEM) {
        tx_store(t, m, S3);
    } else if (o->kind == X86_OPND_IMM) {
        put_op_mem(e, t->word == 8, 0xc7, 0, m);
        put32(e, (uint32_t)in->imm);
    } else {
        tx_store(t, m, tx_reg_or(t, o->reg, S2));
    }
    tx_move_rsp(t, -(int32_t)t->word);
}

static void put_pop(struct tx *t, const struct x86_insn *in)
{
    struct emit *e = &t->hot;
    unsigned guest = in->opnd[0].reg, host = tx_home[guest];
    struct mem m = tx_stack(t, X86_RSP, 0, false);

    tx_load(t, host != H_NONE ? host : S2, m);
    if (host == H_NONE)
        put_store(e, mem_cpu(OFF_GPR(guest)), S2);
    if (guest != X86_RSP)
        tx_move_rsp(t, (int32_t)t->word);
}

static void put_leave(struct tx *t)
{
    struct mem m = tx_stack(t, X86_RBP, 0, false);

    tx_lea(t, H_R10, mem_at(H_R11, (int32_t)t->word));
    tx_load(t, H_R11, m);
}

static void put_lea_insn(struct tx *t, const struct x86_insn *in)
{
    struct emit *e = &t->hot;
    unsigned guest = in->opnd[0].reg, host = tx_home[guest], to;

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
    to = host != H_NONE && in->base != X86_REG_RIP ? host : S1;
    tx_address(t, in, to);
    if (in->osize == 4 && (in->asize == 8 && to != host))
        put_mov32(e, S1, S1);
    if (host == H_NONE)
        put_store(e, mem_cpu(OFF_GPR(guest)), S1);
    else if (to != host)
        put_mov(e, host, S1);
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
        reg = tx_reg_or(t, in->opnd[0].reg, S3);
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

/* ---- the block ---- */

static bool ends_block(const struct x86_insn *in)
{
    return in->cls == X86_CLASS_BRANCH && in->op != X86_JCC;
}

/*
 * 32-bit code: 16-bit addresses, branches that cut EIP to 16 bits, far ones, and what may meet a
 * segment's limits or rights amid a branch are the interpreter's.
 */
static bool odd_32(const struct x86_insn *in)
{
    const struct x86_opnd *mem = tx_memory(in);
    bool branch = in->cls == X86_CLASS_BRANCH;

    if (mem != NULL && (in->asize != 4 || in->seg == X86_CS))
        return true;
    if (branch && (in->osize != 4 || in->opnd[0].kind == X86_OPND_FAR))
        return true;
    return branch && mem != NULL && (mem->size != 4 || in->seg == X86_FS || in->seg == X86_GS);
}

static enum tx_kind kind_of(const struct tx *t, const struct x86_insn *in)
{
    unsigned kind = in->opnd[0].kind;
    bool gpr = kind == X86_OPND_REG && in->opnd[0].rclass == X86_RC_GPR;

    if (t->word == 4 && odd_32(in))
        return TX_HELPER;
    if (tx_is_system(t, in))
        return TX_SYSTEM;
    if (in->prefixes & X86_PFX_LOCK)
        return tx_is_plain(t, in) ? TX_PLAIN : TX_HELPER;
    switch (in->op) {
    case X86_JCC:
        return TX_JCC;
    case X86_JMP:
        return kind == X86_OPND_REL || in->osize == t->word ? TX_JMP : TX_HELPER;
    case X86_CALL:
        return in->osize == t->word ? TX_CALL : TX_HELPER;
    case X86_RET:
        return in->osize == t->word ? TX_RET : TX_HELPER;
    case X86_PUSH:
        return in->osize == t->word && (gpr || kind == X86_OPND_IMM || kind == X86_OPND_MEM)
                   ? TX_PUSH
                   : TX_HELPER;
    case X86_POP:
        return in->osize == t->word && gpr ? TX_POP : TX_HELPER;
    case X86_LEAVE:
        return in->osize == t->word ? TX_LEAVE : TX_HELPER;
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

/*
 * The block is a short loop up to `end`: it is put down several times, so that its turns share
 * probes and a look for what is pending.
 */
static bool unroll(struct tx *t, unsigned end)
{
    unsigned n = t->n, exits = t->exits;

    if ((t->key & (KEY_APART | KEY_STRICT)) || t->text != t->page)
        return false;
    while (t->n + n <= JIT_INSNS && t->exits + exits <= JIT_EXITS - 2 && t->n / n < TURNS) {
        struct x86_insn *last = &t->insn[t->n - 1];

        t->target[t->n - 1] = end;
        last->opcode ^= 1;
        memcpy(&t->insn[t->n], t->insn, n * sizeof(t->insn[0]));
        memcpy(&t->off[t->n], t->off, n * sizeof(t->off[0]));
        memcpy(&t->kind[t->n], t->kind, n * sizeof(t->kind[0]));
        memcpy(&t->target[t->n], t->target, n * sizeof(t->target[0]));
        t->n += n;
        t->exits += exits;
        last = &t->insn[t->n - 1];
        last->opcode = t->insn[n - 1].opcode ^ 1;
        t->target[t->n - 1] = t->off[0];
    }
    if (t->n == n)
        return false;
    t->turn = n;
    return true;
}

/* Decodes up to the block's end. */
static void decode_block(struct tx *t, unsigned off)
{
    while (t->n < JIT_INSNS && t->exits < JIT_EXITS - 2 && off < PAGE_SIZE) {
        struct x86_insn *in = &t->insn[t->n];
        int len = x86_decode(t->text + off, t->text_end - off, t->mode, in);

        if (len == X86_DECODE_MORE)
            break; /* goes on in the next page: a block of its own */
        t->off[t->n] = (uint16_t)off;
        depend(t, off, off + (len > 0 ? in->len : 15));
        if (len > 0)
            note_fields(t, off, in);
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
        t->target[t->n] = (int64_t)(off + (uint64_t)in->imm); /* of a branch */
        t->n++;
        if (in->op == X86_JCC)
            t->exits++;
        if (len <= 0 || ends_block(in))
            return;
        if (in->op == X86_JCC && t->target[t->n - 1] == t->off[0] && unroll(t, off))
            break;
    }
    t->falls = t->n > 0;
    t->end = off;
}

/* The block's only instruction, which goes on in the next page. May fault; false: none of ours. */
static bool decode_across(struct tx *t, uint64_t lin)
{
    struct soft_cpu *cpu = t->cpu;
    unsigned off = (unsigned)(lin & 4095);
    uint64_t next = ((lin | 4095) + 1) & cpu->rip_mask, gpa;
    bool global = cpu->fetch_global;
    const uint8_t *code;

    if (lin == JIT_NOWHERE || !soft_canonical(cpu, next))
        return false;
    code = mmu_fetch(cpu, next, &gpa);
    cpu->fetch_global = cpu->fetch_global && global;
    if (code == NULL)
        return false;
    memcpy(t->over + off, t->page + off, PAGE_SIZE - off);
    memcpy(t->over + PAGE_SIZE, code, X86_MAX_LEN);
    t->text = t->over;
    t->text_end = sizeof(t->over);
    decode_block(t, off);
    /* one that is none may be shorter than what had to be seen of it: the interpreter raises #UD */
    return t->n != 0 && t->off[0] + t->insn[0].len > PAGE_SIZE;
}

static bool near_target(const struct tx *t, unsigned i, unsigned *off)
{
    *off = (unsigned)t->target[i];
    return t->target[i] >= 0 && t->target[i] < (int64_t)PAGE_SIZE;
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
            live = in->opnd[0].kind != X86_OPND_REL || !near_target(t, i, &off) ||
                           flags_read_at(t, off)
                       ? X86_FL_ARITH
                       : 0;
            break;
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

/* Can the running instruction do without RSP's value, and without a fault? */
static bool rsp_can_wait(const struct tx *t, const struct x86_insn *in)
{
    const struct access *a = &t->access[t->i];

    switch ((enum tx_kind)t->kind[t->i]) {
    case TX_PUSH:
    case TX_POP:
        if (in->opnd[0].kind == X86_OPND_REG && in->opnd[0].reg == X86_RSP)
            return false;
        break;
    case TX_CALL:
    case TX_RET:
        break;
    default:
        return false;
    }
    return a->shared && !a->first && a->base == X86_RSP;
}

static void emit_insn(struct tx *t)
{
    const struct x86_insn *in = &t->insn[t->i];
    unsigned first = t->colds;

    if (!rsp_can_wait(t, in))
        tx_settle_rsp(t);
    switch ((enum tx_kind)t->kind[t->i]) {
    case TX_PLAIN:
        tx_plain(t, in);
        break;
    case TX_HELPER:
        tx_helper(t, in, ends_block(in));
        break;
    case TX_JCC:
        tx_jcc(t, in);
        return;
    case TX_JMP:
        tx_jmp(t, in);
        break;
    case TX_CALL:
        tx_call(t, in);
        break;
    case TX_RET:
        tx_ret(t, in);
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
    if (t->text != t->page)
        tx_across(t, t->block->pa);
    if (t->block->polls)
        tx_poll(t);
    for (t->i = 0; t->i < t->n && !t->ended; t->i++) {
        if ((t->key & KEY_COUNT) && t->i % t->turn == 0)
            tx_count(t);
        t->code[t->i] = t->hot.p;
        emit_insn(t);
    }
    tx_settle_rsp(t);
    t->code[t->i] = t->hot.p;
    if (t->falls && !t->ended) {
        tx_flags_out(t, t->falls_reads);
        tx_goto(t, t->end, FAR_FALLS);
    }
}

/* The links go into the arena when it is known how many there are. */
static void keep_links(struct tx *t, struct jit_block *b)
{
    struct jit *j = t->j;

    b->links = (uint8_t)t->links;
    b->link = jit_alloc(j, t->links * sizeof(*b->link));
    memcpy(b->link, t->link, t->links * sizeof(*b->link));
    for (unsigned i = 0; i < t->links; i++) {
        uint32_t place = jit_place(j, &b->link[i]);

        b->link[i].from = jit_place(j, b);
        memcpy(t->link_site[i], &place, sizeof(place));
    }
}

struct jit_block *jit_translate(struct soft_cpu *cpu, uint64_t lin, uint64_t pa,
                                const uint8_t *page, unsigned key, bool entry)
{
    struct jit *j = cpu->jit;
    struct tx *t = j->tx;
    struct jit_block *b;
    struct emit cold;

    memset(t, 0, offsetof(struct tx, insn));
    t->cpu = cpu;
    t->j = j;
    t->key = key;
    t->mode = key & KEY_32 ? X86_MODE_32 : X86_MODE_64;
    t->word = key & KEY_32 ? 4 : 8;
    t->page = t->text = page;
    t->text_end = PAGE_SIZE;
    t->lo = PAGE_SIZE;
    t->hot.p = t->hot_start = j->hot;
    t->cold_start = j->cold;
    decode_block(t, (unsigned)(pa & 4095));
    if (t->n == 0 && !decode_across(t, lin))
        return NULL;
    if (t->turn == 0)
        t->turn = t->n;
    scan_flags(t);
    tx_share(t);
    b = t->block = jit_alloc(j, sizeof(*b));
    memset(t->link, 0, (t->exits + t->groups + 2) * sizeof(t->link[0]));
    memset(b, 0, sizeof(*b));
    b->pa = pa;
    b->polls = jumps_back(t);
    if (entry) {
        b->entry = jit_offset(j, t->hot.p);
        jit_put_entry(cpu, &t->hot, key, b->polls, t);
    }
    b->body = jit_offset(j, t->hot.p);
    emit_block(t);
    cold.p = j->cold;
    for (unsigned i = 0; i < t->colds; i++)
        tx_finish_cold(t, &t->cold[i], &cold);
    j->hot = t->hot.p;
    j->cold = cold.p;
    b->key = (uint16_t)key;
    b->lo = (uint16_t)t->lo;
    b->hi = (uint16_t)t->hi;
    b->insns = (uint8_t)t->turn;
    keep_links(t, b);
    if (key & KEY_COUNT) {
        b->offsets = jit_alloc(j, t->turn * sizeof(uint16_t));
        memcpy(b->offsets, t->off, t->turn * sizeof(uint16_t));
    }
    jit_insert(j, b);
    return b;
}
