#include <stddef.h>

#include "engine/soft/jit/translate.h"
#include "engine/soft/native.h"

/*
 * Instructions that are copied: registers renamed, a memory operand replaced by the host address
 * that the probe found. What may be copied is an explicit list.
 */

#define OFF(field) offsetof(struct soft_cpu, field)
#define OFF_GPR(n) (OFF(st.gpr) + 8u * (n))

const uint8_t tx_home[16] = {H_RAX,  H_RCX,  H_RDX,  H_RBX,  H_R10, H_R11, H_RSI, H_RDI,
                             H_NONE, H_NONE, H_NONE, H_NONE, H_R12, H_R13, H_R14, H_R15};

/* Integer operations that compute from their operands, RAX, RCX, RDX, RBX and the flags alone. */
static bool integer_op(const struct x86_insn *in)
{
    switch (in->op) {
    case X86_ADD:
    case X86_OR:
    case X86_ADC:
    case X86_SBB:
    case X86_AND:
    case X86_SUB:
    case X86_XOR:
    case X86_CMP:
    case X86_TEST:
    case X86_INC:
    case X86_DEC:
    case X86_NOT:
    case X86_NEG:
    case X86_MUL:
    case X86_IMUL:
    case X86_ROL:
    case X86_ROR:
    case X86_RCL:
    case X86_RCR:
    case X86_SHL:
    case X86_SHR:
    case X86_SAR:
    case X86_SHLD:
    case X86_SHRD:
    case X86_BSF:
    case X86_BSR:
    case X86_TZCNT:
    case X86_LZCNT:
    case X86_POPCNT:
    case X86_BSWAP:
    case X86_CRC32:
    case X86_ADCX:
    case X86_ADOX:
    case X86_ANDN:
    case X86_BEXTR:
    case X86_BLSI:
    case X86_BLSMSK:
    case X86_BLSR:
    case X86_BZHI:
    case X86_MULX:
    case X86_PDEP:
    case X86_PEXT:
    case X86_RORX:
    case X86_SARX:
    case X86_SHLX:
    case X86_SHRX:
    case X86_MOV:
    case X86_MOVSX:
    case X86_MOVSXD:
    case X86_MOVZX:
    case X86_MOVBE:
    case X86_MOVNTI:
    case X86_XCHG:
    case X86_XADD:
    case X86_CMPXCHG:
    case X86_CMPXCHG8B:
    case X86_CMPXCHG16B:
    case X86_CMOVCC:
    case X86_SETCC:
    case X86_CBW:
    case X86_CWD:
    case X86_LAHF:
    case X86_SAHF:
    case X86_CMC:
    case X86_CLC:
    case X86_STC:
        return true;
    case X86_BT: /* with a register as bit number the operand may lie far from its address */
    case X86_BTS:
    case X86_BTR:
    case X86_BTC:
        return tx_memory(in) == NULL || in->opnd[1].kind == X86_OPND_IMM;
    default:
        return false;
    }
}

static bool registers_ok(const struct x86_insn *in, bool *vector)
{
    bool high = false, moved = false;

    *vector = false;
    for (unsigned i = 0; i < in->opnd_count; i++) {
        const struct x86_opnd *o = &in->opnd[i];

        if (o->kind != X86_OPND_REG)
            continue;
        if (o->rclass == X86_RC_VEC)
            *vector = true;
        else if (o->rclass == X86_RC_GPRH)
            high = true;
        else if (o->rclass == X86_RC_MMX || o->rclass == X86_RC_ST)
            continue;
        else if (o->rclass != X86_RC_GPR)
            return false;
        else if (o->reg == X86_RSP || o->reg == X86_RBP || o->reg >= 8)
            moved = true;
    }
    return !(high && moved); /* a register that needs REX hides AH to BH */
}

/* Which field of an instruction with vector operands is the general register. */
static bool gpr_in_rm(const struct x86_insn *in)
{
    if (in->map == X86_MAP_0F)
        return in->opcode == 0x6e || in->opcode == 0x7e || in->opcode == 0x2a || in->opcode == 0xc4;
    if (in->map == X86_MAP_0F3A)
        return (in->opcode >= 0x14 && in->opcode <= 0x17) || in->opcode == 0x20 ||
               in->opcode == 0x22;
    return false;
}

/*
 * VEX instructions that 32-bit code may not have as they stand: what it ignores would count, a bit
 * of a register's number in the immediate, or W where a general register or its like takes part
 * (PCMPESTRM has its lengths in two).
 */
static bool odd_vex(const struct x86_insn *in)
{
    bool by_w = gpr_in_rm(in) || in->imm_size != 0;

    for (unsigned i = 0; i < in->opnd_count; i++)
        by_w |= in->opnd[i].kind == X86_OPND_REG && in->opnd[i].rclass == X86_RC_GPR;
    return in->opnd[3].kind == X86_OPND_REG || ((in->rex & 8) != 0 && by_w);
}

static bool has_mmx(const struct x86_insn *in)
{
    for (unsigned i = 0; i < in->opnd_count; i++) {
        if (in->opnd[i].kind == X86_OPND_REG && in->opnd[i].rclass == X86_RC_MMX)
            return true;
    }
    return false;
}

/* FLDCW looks at what it loads; the environment as a whole is the interpreter's. */
static bool x87_plain(const struct tx *t, const struct x86_insn *in)
{
    const struct x86_opnd *mem = tx_memory(in);

    if (!(t->key & KEY_X87) || (mem != NULL && (mem->size == 0 || mem->size > 10)))
        return false;
    return (mem == NULL || mem->access != 0) && in->enc == X86_ENC_LEGACY && in->rep == 0 &&
           in->op != X86_FENI && in->op != X86_FDISI && in->op != X86_FSETPM &&
           soft_has(t->cpu, in->feature);
}

bool tx_is_plain(const struct tx *t, const struct x86_insn *in)
{
    const struct x86_opnd *mem = tx_memory(in);
    unsigned flags;
    bool vector;

    if (native_flags(in->op, &flags) && (flags & N_X87) != 0)
        return x87_plain(t, in);
    if (has_mmx(in) && !(t->key & KEY_X87))
        return false;
    if (in->enc == X86_ENC_VEX && t->word == 4 && odd_vex(in))
        return false;
    if (in->enc == X86_ENC_EVEX || in->vsib || in->rep != 0 || in->cls > X86_CLASS_MEMORY ||
        !registers_ok(in, &vector) || !soft_has(t->cpu, in->feature))
        return false;
    if (mem != NULL && (mem->size == 0 || mem->size > 32 || (mem->size & (mem->size - 1)) != 0 ||
                        mem->access == 0))
        return false;
    if (integer_op(in) && !vector)
        return in->op != X86_MOV || in->opnd[0].kind != X86_OPND_REG ||
               in->opnd[0].rclass != X86_RC_SEG;
    if (in->op == X86_VZEROUPPER || in->op == X86_VZEROALL) /* in 32-bit code 8 to 15 stay */
        return t->word == 8 && (t->key & KEY_AVX) != 0 && soft_has(t->cpu, X86_FEAT_AVX);
    if (in->op == X86_EMMS || !native_flags(in->op, &flags) || (flags & N_X87) != 0)
        return false;
    if (in->enc == X86_ENC_VEX)
        return (t->key & KEY_AVX) != 0 && soft_has(t->cpu, X86_FEAT_AVX);
    return (t->key & KEY_SSE) != 0;
}

bool tx_is_cl_shift(const struct x86_insn *in)
{
    switch (in->op) {
    case X86_ROL:
    case X86_ROR:
    case X86_RCL:
    case X86_RCR:
    case X86_SHL:
    case X86_SHR:
    case X86_SAR:
    case X86_SHLD:
    case X86_SHRD:
        break;
    default:
        return false;
    }
    if (in->opnd[in->opnd_count - 1].kind == X86_OPND_REG)
        return true;
    return (in->imm & (in->opnd[0].size == 8 ? 63 : 31)) == 0;
}

/* ---- fields ---- */

/* Only 64-bit code has the fourth bit of a register's number; other code may set it. */
static unsigned vvvv_of(const struct x86_insn *in)
{
    return in->mode == X86_MODE_64 ? in->vvvv : in->vvvv & 7u;
}

/* Host registers for the fields of the encoding; H_NONE: as it stands. */
struct fields {
    uint8_t reg, rm, vvvv, z;
    bool mem;
    struct mem at;
};

enum { F_REG = 1, F_RM = 2, F_VVVV = 4, F_Z = 8 };

/* Which fields name general registers. */
static unsigned gpr_fields(const struct x86_insn *in)
{
    bool vector = false, rm_free = in->has_modrm && in->modrm >= 0xc0;
    unsigned fields = 0;

    for (unsigned i = 0; i < in->opnd_count; i++)
        vector |= in->opnd[i].kind == X86_OPND_REG &&
                  (in->opnd[i].rclass == X86_RC_VEC || in->opnd[i].rclass == X86_RC_MMX);
    if (in->enc == X86_ENC_VEX && !vector) {
        fields = rm_free ? F_RM : 0;
        if (in->op == X86_BLSI || in->op == X86_BLSMSK || in->op == X86_BLSR)
            return fields | F_VVVV;
        return fields | F_REG | (in->op == X86_RORX ? 0 : F_VVVV);
    }
    for (unsigned i = 0; i < in->opnd_count; i++) {
        const struct x86_opnd *o = &in->opnd[i];

        if (o->kind != X86_OPND_REG || o->rclass != X86_RC_GPR)
            continue;
        if (!in->has_modrm) {
            unsigned z = (in->opcode & 7u) | (in->rex & 1 ? 8u : 0);

            /* `xchg rax, r` and the like name RAX too, which is at home */
            if (o->reg == z && (in->op == X86_MOV || in->op == X86_XCHG || in->op == X86_BSWAP))
                fields |= F_Z;
        } else if (vector) {
            fields |= gpr_in_rm(in) ? F_RM : F_REG;
        } else if (rm_free && o->reg == in->rm && !(fields & F_RM)) {
            fields |= F_RM;
        } else if (o->reg == in->reg) {
            fields |= F_REG;
        }
    }
    return fields;
}

/* ---- encoding ---- */

static void put_tail(struct emit *e, const struct x86_insn *in, const uint8_t *bytes,
                     const struct fields *f)
{
    unsigned reg = f->reg != H_NONE ? f->reg : in->reg;

    if (in->has_modrm) {
        if (f->mem)
            put_modrm_mem(e, reg, f->at);
        else
            put8(e, 0xc0 | (reg & 7) << 3 | ((f->rm != H_NONE ? f->rm : in->rm) & 7));
    }
    for (unsigned i = 0; i < (unsigned)in->imm_size + in->imm2_size; i++)
        put8(e, bytes[in->off_imm + i]);
}

static void put_vex(struct emit *e, const struct x86_insn *in, const uint8_t *bytes,
                    const struct fields *f)
{
    unsigned reg = f->reg != H_NONE ? f->reg : in->reg;
    unsigned rm = f->mem ? f->at.base : f->rm != H_NONE ? f->rm : in->rm;
    bool x = f->mem && f->at.index != H_NONE && f->at.index >= 8;
    unsigned vvvv = f->vvvv != H_NONE ? f->vvvv : vvvv_of(in);

    put8(e, 0xc4);
    put8(e, (reg < 8 ? 0x80u : 0) | (x ? 0 : 0x40u) | (rm < 8 ? 0x20u : 0) | in->map);
    put8(e, (in->rex & 8 ? 0x80u : 0) | (~vvvv & 15) << 3 | (in->vl == 32 ? 4u : 0) | in->pp);
    put8(e, in->opcode);
    put_tail(e, in, bytes, f);
}

static void put_renamed(struct emit *e, const struct x86_insn *in, const uint8_t *bytes,
                        const struct fields *f)
{
    unsigned reg = f->reg != H_NONE ? f->reg : in->reg;
    unsigned rm = f->z != H_NONE    ? f->z
                  : !in->has_modrm  ? 0
                  : f->mem          ? f->at.base
                  : f->rm != H_NONE ? f->rm
                                    : in->rm;
    unsigned rex = (in->rex & 8u) | (in->has_modrm && reg >= 8 ? 4u : 0) | (rm >= 8 ? 1u : 0);

    if (f->mem && in->has_modrm && f->at.index != H_NONE && f->at.index >= 8)
        rex |= 2;
    if (in->enc == X86_ENC_VEX) {
        put_vex(e, in, bytes, f);
        return;
    }
    if (in->prefixes & X86_PFX_LOCK)
        put8(e, 0xf0);
    if ((in->prefixes & X86_PFX_OPSIZE) || in->pp == 1)
        put8(e, 0x66);
    if (in->pp >= 2)
        put8(e, in->pp == 2 ? 0xf3 : 0xf2);
    if (rex != 0 || (in->prefixes & X86_PFX_REX))
        put8(e, 0x40 | rex);
    if (in->map != X86_MAP_ONE)
        put8(e, 0x0f);
    if (in->map == X86_MAP_0F38)
        put8(e, 0x38);
    if (in->map == X86_MAP_0F3A)
        put8(e, 0x3a);
    if (f->z != H_NONE)
        put8(e, (in->opcode & 0xf8u) | (f->z & 7u));
    else if (in->map == X86_MAP_ONE && in->opcode == 0x82) /* 80, which 64-bit code has alone */
        put8(e, 0x80);
    else
        put8(e, in->opcode);
    put_tail(e, in, bytes, f);
}

/* INC and DEC of one byte, which 64-bit code has not. */
static bool short_inc(const struct x86_insn *in)
{
    return (in->op == X86_INC || in->op == X86_DEC) && !in->has_modrm;
}

static void put_inc(struct emit *e, const struct x86_insn *in)
{
    if (in->osize == 2)
        put8(e, 0x66);
    put_op_reg(e, false, 0xff, in->op == X86_INC ? 0 : 1, tx_home[in->opnd[0].reg]);
}

/* ---- emission ---- */

/* Guest registers of the instruction that live in memory, and the scratch that stands for each. */
struct temps {
    unsigned n;
    struct {
        uint8_t guest, host;
        bool read, written;
    } t[3];
};

static uint8_t host_of(struct temps *ts, unsigned guest)
{
    if (tx_home[guest] != H_NONE)
        return tx_home[guest];
    for (unsigned i = 0; i < ts->n; i++) {
        if (ts->t[i].guest == guest)
            return ts->t[i].host;
    }
    ts->t[ts->n].guest = (uint8_t)guest;
    return ts->t[ts->n++].host;
}

/* A plain load of a whole register need not know what was there. */
static bool overwrites(const struct x86_insn *in)
{
    return (in->op == X86_MOV || in->op == X86_MOVZX || in->op == X86_MOVSX ||
            in->op == X86_MOVSXD) &&
           in->opnd[0].kind == X86_OPND_REG && in->opnd[0].size >= 4 && in->osize >= 4;
}

static void mark_access(struct temps *ts, const struct x86_insn *in)
{
    for (unsigned i = 0; i < ts->n; i++) {
        for (unsigned k = 0; k < in->opnd_count; k++) {
            const struct x86_opnd *o = &in->opnd[k];

            if (o->kind != X86_OPND_REG || o->rclass != X86_RC_GPR || o->reg != ts->t[i].guest)
                continue;
            if (!overwrites(in) || k != 0)
                ts->t[i].read = true;
            if (o->access & X86_ACC_W)
                ts->t[i].written = true;
        }
    }
}

unsigned tx_alignment(const struct x86_insn *in, const struct x86_opnd *mem)
{
    unsigned flags;

    if (in->op == X86_CMPXCHG16B)
        return 15;
    if (!native_flags(in->op, &flags))
        return 0;
    if (in->enc == X86_ENC_VEX)
        return flags & N_ALIGNED ? mem->size - 1u : 0;
    return mem->size == 16 && !(flags & N_UNALIGNED) ? 15 : 0;
}

static bool uses_vectors(const struct x86_insn *in)
{
    unsigned flags;

    return in->op == X86_VZEROUPPER || in->op == X86_VZEROALL || native_flags(in->op, &flags);
}

/* MOV between the accumulator and an absolute address has no ModRM to put our address into. */
static void put_moffs(struct tx *t, const struct x86_insn *in)
{
    bool load = in->opnd[0].kind == X86_OPND_REG;
    unsigned size = in->opnd[0].size;

    if (size == 2)
        put8(&t->hot, 0x66);
    put_op_mem(&t->hot, size == 8, (load ? 0x8a : 0x88) | (size > 1 ? 1u : 0), H_RAX,
               mem_at(S1, 0));
}

/* What FNSTENV and FXSAVE show of the last instruction: where it was, and its operand. */
static void put_pointers(struct tx *t, const struct x86_insn *in, bool mem)
{
    struct emit *e = &t->hot;
    uint32_t fop = (uint32_t)(in->opcode & 7) << 8 | in->modrm;

    if (mem) {
        tx_address(t, in, S1);
        put_store(e, mem_cpu(OFF(hot.x87_fdp)), S1);
    }
    if (!t->x87_page) {
        put_load(e, S2, mem_cpu(OFF(block_rip)));
        put_store(e, mem_cpu(OFF(hot.x87_page)), S2);
        t->x87_page = true;
    }
    put_op_mem(e, false, 0xc7, 0, mem_cpu(OFF(hot.x87_last)));
    put32(e, t->off[t->i] | fop << 12);
}

static void put_x87(struct tx *t, const struct x86_insn *in, const struct x86_opnd *mem,
                    unsigned native)
{
    struct emit *e = &t->hot;
    struct fields f = {H_NONE, H_NONE, H_NONE, H_NONE, mem != NULL, mem_at(S1, 0)};
    uint32_t changes = (in->flags_written | in->flags_undefined) & X86_FL_ARITH;

    tx_need_x87(t);
    if (in->op == X86_FNINIT) {
        put_op_mem(e, true, 0xc7, 0, mem_cpu(OFF(hot.x87_fdp)));
        put32(e, 0);
        put_op_mem(e, true, 0xc7, 0, mem_cpu(OFF(hot.x87_page)));
        put32(e, 0);
        put_op_mem(e, false, 0xc7, 0, mem_cpu(OFF(hot.x87_last)));
        put32(e, 0);
        t->x87_page = false;
    }
    if (mem != NULL)
        f.at = tx_operand(t, in, mem->size, (mem->access & X86_ACC_W) != 0, 0);
    if (in->op == X86_FLDCW) {
        tx_clobber_flags(t);
        put_rex_mem(e, false, S2, f.at); /* movzx r8d, word */
        put8(e, 0x0f);
        put8(e, 0xb7);
        put_modrm_mem(e, S2, f.at);
        put_alu_imm(e, false, 4, S2, 0x3f);
        put_alu_imm(e, false, 7, S2, 0x3f);
        tx_cold(t, COLD_STEP, put_jcc(e, CC_NE))->packed = t->off[t->i];
    }
    if (t->reads[t->i] != 0 || (changes != 0 && (t->live_after[t->i] & ~changes) != 0))
        tx_need_flags(t);
    put_renamed(e, in, t->text + t->off[t->i], &f);
    if (changes != 0)
        t->flags = t->live_after[t->i] != 0 ? FLAGS_HOST : FLAGS_MEM;
    if ((native & N_CTL) == 0)
        put_pointers(t, in, mem != NULL);
}

void tx_plain(struct tx *t, const struct x86_insn *in)
{
    const struct x86_opnd *mem = tx_memory(in);
    struct temps ts = {.n = 0};
    struct fields f = {H_NONE, H_NONE, H_NONE, H_NONE, mem != NULL, mem_at(S1, 0)};
    unsigned fields = gpr_fields(in);
    struct emit *e = &t->hot;
    unsigned native;
    uint32_t changes = (in->flags_written | in->flags_undefined) & X86_FL_ARITH;

    ts.t[0].host = S2;
    ts.t[1].host = t->busy[t->i] ? S1 : S3; /* S1 only where no address is in it */
    ts.t[2].host = S1;
    if (native_flags(in->op, &native) && (native & N_X87) != 0) {
        put_x87(t, in, mem, native);
        return;
    }
    if (has_mmx(in))
        tx_need_x87(t);
    if (uses_vectors(in))
        tx_need_vectors(t);
    if (mem != NULL)
        f.at = tx_operand(t, in, mem->size, (mem->access & X86_ACC_W) != 0, tx_alignment(in, mem));
    /* flags that go in, or stay as they are while others change */
    if (t->reads[t->i] != 0 || (changes != 0 && (t->live_after[t->i] & ~changes) != 0))
        tx_need_flags(t);
    if (mem != NULL && !in->has_modrm) {
        put_moffs(t, in);
        return;
    }
    if (fields & F_REG)
        f.reg = host_of(&ts, in->reg);
    if (fields & F_RM)
        f.rm = host_of(&ts, in->rm);
    if (fields & F_VVVV)
        f.vvvv = host_of(&ts, vvvv_of(in));
    if (fields & F_Z)
        f.z = host_of(&ts, (in->opcode & 7u) | (in->rex & 1 ? 8u : 0));
    mark_access(&ts, in);
    for (unsigned i = 0; i < ts.n; i++) {
        if (ts.t[i].read)
            put_load(e, ts.t[i].host, mem_cpu(OFF_GPR(ts.t[i].guest)));
    }
    if (short_inc(in))
        put_inc(e, in);
    else
        put_renamed(e, in, t->text + t->off[t->i], &f);
    for (unsigned i = 0; i < ts.n; i++) {
        if (ts.t[i].written)
            put_store(e, mem_cpu(OFF_GPR(ts.t[i].guest)), ts.t[i].host);
    }
    if (changes != 0)
        t->flags = t->live_after[t->i] != 0 ? FLAGS_HOST : FLAGS_MEM;
}
