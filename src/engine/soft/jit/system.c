#include <stddef.h>

#include "engine/soft/jit/translate.h"

/*
 * System instructions that kernels run all the time, written out. What is rare about them (an
 * interrupt that waits, a mode that needs checks) is left to the interpreter's handler.
 */

#define OFF(field) offsetof(struct soft_cpu, field)
#define OFF_GPR(n) (OFF(st.gpr) + 8u * (n))

/* op dword [m], imm32: ext 1 or, 4 and */
static void put_alu_mem(struct emit *e, unsigned ext, struct mem m, uint32_t imm)
{
    put_op_mem(e, false, 0x81, ext, m);
    put32(e, imm);
}

static void put_cli(struct tx *t)
{
    tx_clobber_flags(t);
    put_alu_mem(&t->hot, 4, mem_cpu(OFF(st.rflags)), ~X86_FL_IF);
}

/*
 * The shadow needs no flag: the next instruction follows in the same block, and interrupts are
 * looked for between blocks only. One that waits goes the interpreter's way.
 */
static void put_sti(struct tx *t)
{
    struct emit *e = &t->hot;
    struct cold *c;

    tx_clobber_flags(t);
    put_cmp8_mem(e, mem_cpu(OFF(irq_waits)), 0);
    c = tx_cold(t, COLD_STEP, put_jcc(e, CC_NE));
    c->packed = t->off[t->i];
    put_alu_mem(e, 1, mem_cpu(OFF(st.rflags)), X86_FL_IF);
    c->resume = e->p;
}

static void put_pushf(struct tx *t)
{
    struct emit *e = &t->hot;

    tx_clobber_flags(t);
    (void)tx_stack(t, X86_RSP, -(int32_t)t->word, true); /* never shared: S1 has the address */
    /* cpu->cc: OF in bit 0, the others from bit 8 on */
    put_op_mem(e, false, 0x8b, S3, mem_cpu(OFF(cc)));
    put_mov32(e, S2, S3);
    put_op_reg(e, false, 0xc1, 5, S2); /* shr */
    put8(e, 8);
    put_alu_imm(e, false, 4, S2, 0xd5);
    put_alu_imm(e, false, 4, S3, 1);
    put_op_reg(e, false, 0xc1, 4, S3); /* shl */
    put8(e, 11);
    put_op_reg(e, false, 0x09, S3, S2); /* or */
    put_load(e, S3, mem_cpu(OFF(st.rflags)));
    put_alu_imm(e, true, 4, S3, (int32_t) ~(X86_FL_ARITH | X86_FL_VM | X86_FL_RF));
    put_alu_imm(e, true, 1, S3, X86_FL_FIXED);
    put_op_reg(e, true, 0x09, S3, S2);
    tx_store(t, mem_at(S1, 0), S2);
    tx_lea(t, H_R10, mem_at(H_R10, -(int32_t)t->word));
}

static void put_swapgs(struct tx *t)
{
    struct emit *e = &t->hot;

    put_load(e, S1, mem_cpu(OFF(st.seg[X86_GS].base)));
    put_load(e, S2, mem_cpu(OFF(st.kernel_gs_base)));
    put_store(e, mem_cpu(OFF(st.seg[X86_GS].base)), S2);
    put_store(e, mem_cpu(OFF(base[X86_GS])), S2);
    put_store(e, mem_cpu(OFF(st.kernel_gs_base)), S1);
}

/* With SMAP on; turning it on or off empties the cache. */
static void put_ac(struct tx *t, bool set)
{
    struct emit *e = &t->hot;
    enum tlb_mode mode = set ? TLB_KERNEL_AC : TLB_KERNEL;

    tx_clobber_flags(t);
    put_alu_mem(e, set ? 1 : 4, mem_cpu(OFF(st.rflags)), set ? X86_FL_AC : ~X86_FL_AC);
    put_op_mem(e, false, 0xc6, 0, mem_cpu(OFF(tlb_mode)));
    put8(e, mode);
    put_lea(e, S1, mem_cpu(OFF(tables) + mode * sizeof(t->cpu->tables[0])));
    put_store(e, mem_cpu(OFF(tlb)), S1);
}

static void put_rdtsc(struct tx *t, bool aux)
{
    struct emit *e = &t->hot;

    tx_clobber_flags(t);
    put8(e, 0x0f);
    put8(e, 0x31);
    put_op_reg(e, true, 0xc1, 4, H_RDX); /* shl rdx, 32 */
    put8(e, 32);
    put_op_reg(e, true, 0x09, H_RAX, H_RDX);
    put_op_mem(e, true, 0x03, H_RDX, mem_cpu(OFF(st.tsc_offset)));
    put_mov32(e, H_RAX, H_RDX);
    put_op_reg(e, true, 0xc1, 5, H_RDX); /* shr rdx, 32 */
    put8(e, 32);
    if (aux)
        put_op_mem(e, false, 0x8b, H_RCX, mem_cpu(OFF(st.tsc_aux)));
}

static bool reads_selector(const struct x86_insn *in)
{
    return in->opnd[0].kind == X86_OPND_REG && in->opnd[0].rclass == X86_RC_GPR &&
           in->opnd[1].kind == X86_OPND_REG && in->opnd[1].rclass == X86_RC_SEG;
}

/* MOV from a segment register to a general one: 16 bits, or zero-extended. */
static void put_selector(struct tx *t, const struct x86_insn *in)
{
    struct emit *e = &t->hot;
    unsigned guest = in->opnd[0].reg, host = tx_home[guest];
    struct mem from = mem_cpu(OFF(st.seg) + in->opnd[1].reg * sizeof(struct x86_segment) +
                              offsetof(struct x86_segment, selector));

    put_rex_mem(e, false, S1, from); /* movzx ebp, word */
    put8(e, 0x0f);
    put8(e, 0xb7);
    put_modrm_mem(e, S1, from);
    if (in->osize == 2)
        put8(e, 0x66);
    if (host != H_NONE)
        put_op_reg(e, in->osize != 2, 0x89, S1, host);
    else
        put_op_mem(e, in->osize != 2, 0x89, S1, mem_cpu(OFF_GPR(guest)));
}

/* The bit may lie far from the operand: its element is found first. */
static void put_bit(struct tx *t, const struct x86_insn *in)
{
    struct emit *e = &t->hot;
    unsigned size = in->opnd[0].size, guest = in->opnd[1].reg;
    bool wide = size == 8;
    struct mem at = {.base = S1, .index = S2, .shift = wide ? 3 : 2};

    tx_clobber_flags(t);
    tx_linear(t, in);
    tx_load_gpr(t, S2, guest);
    put_mov(e, S3, S2);
    put_alu_imm(e, false, 4, S3, wide ? 63 : 31);
    if (!wide) { /* the number is signed, of the operand's size */
        put8(e, 0x4d);
        put8(e, 0x63);
        put8(e, 0xc0); /* movsxd r8, r8d */
    }
    put_op_reg(e, true, 0xc1, 7, S2); /* sar */
    put8(e, wide ? 6 : 5);
    tx_lea(t, S1, at);
    tx_probe(t, in->seg, size, in->op != X86_BT, 0);
    if ((t->live_after[t->i] & ~X86_FL_CF & X86_FL_ARITH) != 0)
        tx_need_flags(t);
    if (in->prefixes & X86_PFX_LOCK)
        put8(e, 0xf0);
    put_rex_mem(e, wide, S3, mem_at(S1, 0));
    put8(e, 0x0f);
    put8(e, in->opcode);
    put_modrm_mem(e, S3, mem_at(S1, 0));
    t->flags = t->live_after[t->i] != 0 ? FLAGS_HOST : FLAGS_MEM;
}

static bool far_bit(const struct tx *t, const struct x86_insn *in)
{
    return in->opnd[0].kind == X86_OPND_MEM && in->opnd[1].kind == X86_OPND_REG &&
           in->opnd[0].size >= 4 && in->asize == t->word;
}

/*
 * S1 is a linear address that RCX elements begin at: its host address, if all lie in this page and
 * may be written or read. Everything else goes to the interpreter by `slow`.
 */
static void put_string_side(struct tx *t, unsigned reg, unsigned shift, bool write, uint8_t **slow,
                            unsigned *n)
{
    struct emit *e = &t->hot;
    struct mem end = {.base = S1, .index = H_RCX, .shift = (uint8_t)shift};

    put_mov(e, S1, reg);
    tx_index(t);
    put_op_mem(
        e, true, 0x33, S1,
        tx_tlb(t, write ? offsetof(struct tlb_entry, wtag) : offsetof(struct tlb_entry, rtag)));
    put_alu_imm(e, true, 7, S1, 4095);
    slow[(*n)++] = put_jcc(e, CC_A);
    put_lea(e, S3, end);
    put_alu_imm(e, true, 7, S3, 4096);
    slow[(*n)++] = put_jcc(e, CC_A);
    put_op_mem(e, true, 0x03, S1, tx_tlb(t, offsetof(struct tlb_entry, page)));
}

/* REP MOVS and REP STOS inside a page, forward, without an overlap that shows. */
static void put_string(struct tx *t, const struct x86_insn *in)
{
    struct emit *e = &t->hot;
    unsigned size = in->opnd[0].size, shift = (unsigned)__builtin_ctz(size), n = 0;
    bool movs = in->op == X86_MOVS;
    uint8_t *slow[8], *none;
    uint32_t uop = tx_uop(t);
    struct mem sum = {.base = H_RDI, .index = S2};

    tx_clobber_flags(t);
    put_op_reg(e, true, 0x85, H_RCX, H_RCX); /* test */
    none = put_jcc(e, CC_E);
    put_op_mem(e, false, 0xf6, 0, mem_cpu(OFF(st.rflags) + 1)); /* test byte */
    put8(e, X86_FL_DF >> 8);
    slow[n++] = put_jcc(e, CC_NE);
    put_alu_imm(e, true, 7, H_RCX, (int32_t)(4096 >> shift));
    slow[n++] = put_jcc(e, CC_A);
    if (movs) {
        put_string_side(t, H_RSI, shift, false, slow, &n);
        put_store(e, mem_cpu(OFF(hot.s1)), S1);
    }
    put_string_side(t, H_RDI, shift, true, slow, &n);
    put_mov(e, S2, H_RCX);
    if (shift != 0) {
        put_op_reg(e, true, 0xc1, 4, S2); /* shl */
        put8(e, shift);
    }
    if (movs) { /* a copy that reads what it has just written goes element by element */
        put_mov(e, S3, S1);
        put_op_mem(e, true, 0x2b, S3, mem_cpu(OFF(hot.s1))); /* sub */
        put_op_reg(e, true, 0x39, S2, S3);                   /* cmp S3, S2 */
        slow[n++] = put_jcc(e, CC_B);
        sum.base = H_RSI;
        put_lea(e, S3, sum);
        put_load(e, H_RSI, mem_cpu(OFF(hot.s1)));
        sum.base = H_RDI;
    }
    put_lea(e, S2, sum);
    put_mov(e, H_RDI, S1);
    put8(e, 0xf3);
    if (size == 2)
        put8(e, 0x66);
    if (size == 8)
        put8(e, 0x48);
    put8(e, (movs ? 0xa4u : 0xaau) | (size > 1 ? 1u : 0));
    tx_mov(t, H_RDI, S2);
    if (movs)
        tx_mov(t, H_RSI, S3);
    set_target(none, e->p);
    for (unsigned i = 0; i < n; i++) {
        struct cold *c = tx_cold(t, COLD_HELPER, slow[i]);

        c->packed = uop;
        c->index = (uint8_t)(t->uops - 1);
    }
}

/* MOVS, STOS or LODS of one element. */
static void put_element(struct tx *t, const struct x86_insn *in)
{
    struct emit *e = &t->hot;
    unsigned size = in->opnd[0].size, reg = in->op == X86_MOVS ? S3 : H_RAX;

    tx_clobber_flags(t);
    put_op_mem(e, false, 0xf6, 0, mem_cpu(OFF(st.rflags) + 1)); /* test byte */
    put8(e, X86_FL_DF >> 8);
    tx_cold(t, COLD_STEP, put_jcc(e, CC_NE))->packed = t->off[t->i];
    if (in->op != X86_STOS) {
        tx_mov(t, S1, H_RSI);
        tx_probe(t, in->seg, size, false, 0);
        if (size == 2)
            put8(e, 0x66);
        put_op_mem(e, size == 8, size == 1 ? 0x8a : 0x8b, reg, mem_at(S1, 0));
    }
    if (in->op != X86_LODS) {
        tx_mov(t, S1, H_RDI);
        tx_probe(t, X86_ES, size, true, 0);
        if (size == 2)
            put8(e, 0x66);
        put_op_mem(e, size == 8, size == 1 ? 0x88 : 0x89, reg, mem_at(S1, 0));
        tx_lea(t, H_RDI, mem_at(H_RDI, (int32_t)size));
    }
    if (in->op != X86_STOS)
        tx_lea(t, H_RSI, mem_at(H_RSI, (int32_t)size));
}

static bool simple_string(const struct tx *t, const struct x86_insn *in)
{
    return in->asize == t->word && in->seg != X86_FS && in->seg != X86_GS;
}

/* Unless CR4 has this bit, which the interpreter says no to. */
static void put_needs_cr4(struct tx *t, uint32_t bit)
{
    struct emit *e = &t->hot;

    tx_clobber_flags(t);
    put_op_mem(e, false, 0xf7, 0, mem_cpu(OFF(st.cr4))); /* test dword, imm32 */
    put32(e, bit);
    tx_cold(t, COLD_STEP, put_jcc(e, CC_E))->packed = t->off[t->i];
}

static void put_to_gpr(struct tx *t, unsigned guest, bool wide, struct mem from)
{
    unsigned host = tx_home[guest] != H_NONE ? tx_home[guest] : S1;

    put_op_mem(&t->hot, wide, 0x8b, host, from);
    if (host == S1)
        put_store(&t->hot, mem_cpu(OFF_GPR(guest)), S1);
}

static void put_rdpkru(struct tx *t)
{
    struct emit *e = &t->hot;

    put_needs_cr4(t, X86_CR4_PKE);
    put_op_reg(e, false, 0x85, H_RCX, H_RCX); /* test */
    tx_cold(t, COLD_STEP, put_jcc(e, CC_NE))->packed = t->off[t->i];
    put_op_mem(e, false, 0x8b, H_RAX, mem_cpu(OFF(st.xsave) + X86_XSAVE_PKRU));
    put_mov_imm32(e, H_RDX, 0);
}

static unsigned base_of(const struct x86_insn *in)
{
    return in->op == X86_RDFSBASE || in->op == X86_WRFSBASE ? X86_FS : X86_GS;
}

static void put_read_base(struct tx *t, const struct x86_insn *in)
{
    size_t from =
        OFF(st.seg) + base_of(in) * sizeof(struct x86_segment) + offsetof(struct x86_segment, base);

    put_needs_cr4(t, X86_CR4_FSGSBASE);
    put_to_gpr(t, in->opnd[0].reg, in->osize == 8, mem_cpu(from));
}

/* What is not canonical by 48 bits may be by 57: the interpreter knows. */
static void put_write_base(struct tx *t, const struct x86_insn *in)
{
    struct emit *e = &t->hot;
    unsigned seg = base_of(in);
    size_t to = OFF(st.seg) + seg * sizeof(struct x86_segment) + offsetof(struct x86_segment, base);

    put_needs_cr4(t, X86_CR4_FSGSBASE);
    tx_load_gpr(t, S1, in->opnd[0].reg);
    if (in->osize == 8) {
        tx_canonical(t, S1);
    } else {
        put_mov32(e, S1, S1);
    }
    put_store(e, mem_cpu(to), S1);
    put_store(e, mem_cpu(OFF(base) + 8u * seg), S1);
}

static bool reads_cr2(const struct x86_insn *in)
{
    return in->opnd[0].rclass == X86_RC_GPR && in->opnd[1].rclass == X86_RC_CR &&
           in->opnd[1].reg == 2;
}

bool tx_is_system(const struct tx *t, const struct x86_insn *in)
{
    bool kernel = !(t->key & KEY_USER);

    switch (in->op) {
    case X86_CLI:
    case X86_STI:
        return kernel;
    case X86_SWAPGS:
        return kernel && t->word == 8;
    case X86_PUSHF:
        return in->osize == t->word;
    case X86_STAC:
    case X86_CLAC:
        return kernel && (t->cpu->st.cr4 & X86_CR4_SMAP) && soft_has(t->cpu, in->feature);
    case X86_RDTSC: /* not where a second run would read another value */
        return kernel && t->cpu->check == NULL;
    case X86_RDTSCP:
        return kernel && t->cpu->check == NULL && soft_has(t->cpu, in->feature);
    case X86_MOV:
        return reads_selector(in);
    case X86_LFENCE:
    case X86_MFENCE:
    case X86_SFENCE:
    case X86_CLD:
        return true;
    case X86_MOVCR:
        return kernel && t->word == 8 && reads_cr2(in);
    case X86_RDPKRU:
        return t->word == 8 && soft_has(t->cpu, in->feature);
    case X86_RDFSBASE:
    case X86_RDGSBASE:
    case X86_WRFSBASE:
    case X86_WRGSBASE:
        return t->word == 8 && soft_has(t->cpu, in->feature);
    case X86_BT:
    case X86_BTS:
    case X86_BTR:
    case X86_BTC:
        return far_bit(t, in);
    case X86_LODS:
        return in->rep == 0 && simple_string(t, in);
    case X86_MOVS:
    case X86_STOS:
        return simple_string(t, in);
    default:
        return false;
    }
}

void tx_system(struct tx *t, const struct x86_insn *in)
{
    switch (in->op) {
    case X86_CLI:
        put_cli(t);
        break;
    case X86_STI:
        put_sti(t);
        break;
    case X86_PUSHF:
        put_pushf(t);
        break;
    case X86_SWAPGS:
        put_swapgs(t);
        break;
    case X86_CLD:
        tx_clobber_flags(t);
        put_alu_mem(&t->hot, 4, mem_cpu(OFF(st.rflags)), ~X86_FL_DF);
        break;
    case X86_MOVCR:
        put_to_gpr(t, in->opnd[0].reg, true, mem_cpu(OFF(st.cr2)));
        break;
    case X86_RDPKRU:
        put_rdpkru(t);
        break;
    case X86_RDFSBASE:
    case X86_RDGSBASE:
        put_read_base(t, in);
        break;
    case X86_WRFSBASE:
    case X86_WRGSBASE:
        put_write_base(t, in);
        break;
    case X86_STAC:
    case X86_CLAC:
        put_ac(t, in->op == X86_STAC);
        break;
    case X86_MOV:
        put_selector(t, in);
        break;
    case X86_RDTSC:
    case X86_RDTSCP:
        put_rdtsc(t, in->op == X86_RDTSCP);
        break;
    case X86_BT:
    case X86_BTS:
    case X86_BTR:
    case X86_BTC:
        put_bit(t, in);
        break;
    case X86_MOVS:
    case X86_STOS:
    case X86_LODS:
        if (in->rep != 0)
            put_string(t, in);
        else
            put_element(t, in);
        break;
    default: /* fences */
        put8(&t->hot, 0x0f);
        put8(&t->hot, 0xae);
        put8(&t->hot, in->op == X86_LFENCE ? 0xe8 : in->op == X86_MFENCE ? 0xf0 : 0xf8);
        break;
    }
}
