/*
 * The text of a stub. Registers are renamed, so that one stub serves every combination of guest
 * registers: XMM1 and up in the order of first use, a GPR always becomes RAX, the memory operand is
 * (%rsi). x87 and MMX registers keep their numbers, since FXRSTOR loads all of them.
 *
 *     rdi  struct soft_cpu      rsi  struct native_buf      rdx rcx r8 r9  the guest's registers
 */
#include <stddef.h>
#include <string.h>

#include "engine/soft/native.h"

#define OFF_GPR(n) ((uint32_t)(offsetof(struct soft_cpu, st.gpr) + 8u * (n)))
#define OFF_XMM(n) ((uint32_t)(offsetof(struct soft_cpu, st.xsave) + FX_XMM + 16u * (n)))
#define OFF_CC ((uint32_t)offsetof(struct soft_cpu, cc))
#define OFF_BUF(field) ((uint32_t)offsetof(struct native_buf, field))
#define YMM_FROM_XMM (X86_XSAVE_YMM - FX_XMM) /* from a register's low half to its high half */

enum { RAX, RCX, RDX, RSI = 6, RDI = 7, R8 = 8, R9 = 9 };
static const uint8_t slot_reg[4] = {RDX, RCX, R8, R9};

struct emit {
    struct native_code *out;
    const struct x86_insn *insn;
    const uint8_t *bytes;
    unsigned flags;
    uint8_t vec[4]; /* guest number of host XMM(i + 1) */
    unsigned vecs;
    bool written[4];
    int gpr; /* slot of the explicit GPR operand, or -1 */
    bool gpr_written;
    bool mem;
    bool xmm0_read, xmm0_written;
};

static void put(struct emit *e, unsigned count, const uint8_t *p)
{
    if (e->out->size + count > sizeof(e->out->text)) {
        e->out->overflow = true;
        return;
    }
    memcpy(e->out->text + e->out->size, p, count);
    e->out->size += count;
}

#define PUT(e, ...) put(e, sizeof((const uint8_t[]){__VA_ARGS__}), (const uint8_t[]){__VA_ARGS__})

static void put32(struct emit *e, uint32_t v)
{
    PUT(e, (uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24));
}

/* ModRM and disp32 for reg, [base + disp]; base is none that needs a SIB byte. */
static void put_mem(struct emit *e, unsigned reg, unsigned base, uint32_t disp)
{
    PUT(e, (uint8_t)(0x80u | (reg & 7u) << 3 | (base & 7u)));
    put32(e, disp);
}

/* mov rax-class reg (0-7), [base + disp], 64 bits, or the store */
static void put_mov64(struct emit *e, bool store, unsigned reg, unsigned base, uint32_t disp)
{
    PUT(e, (uint8_t)(0x48u | (base >= 8 ? 1u : 0u)), store ? 0x89 : 0x8b);
    put_mem(e, reg, base, disp);
}

static void put_movups(struct emit *e, bool store, unsigned xmm, unsigned base, uint32_t disp)
{
    if (base >= 8)
        PUT(e, 0x41);
    PUT(e, 0x0f, store ? 0x11 : 0x10);
    put_mem(e, xmm, base, disp);
}

/* The same of a YMM register, whose halves lie apart. half: VEX.128 is loaded. */
static void put_vmovups(struct emit *e, bool store, unsigned xmm, unsigned base, uint32_t disp,
                        bool half)
{
    uint8_t b = base >= 8 ? 0xc1 : 0xe1;

    PUT(e, 0xc4, b, 0x78, store ? 0x11 : 0x10); /* vmovups */
    put_mem(e, xmm, base, disp);
    if (half)
        return;
    b = (uint8_t)((b & 0xe0u) | 3u);
    if (store)
        PUT(e, 0xc4, b, 0x7d, 0x19); /* vextractf128 */
    else
        PUT(e, 0xc4, b, (uint8_t)(0x05u | (~xmm & 15u) << 3), 0x18); /* vinsertf128 */
    put_mem(e, xmm, base, disp + YMM_FROM_XMM);
    PUT(e, 1);
}

/* The slot of a guest register; false if there is no room. */
static bool add_slot(struct emit *e, size_t offset)
{
    if (e->out->slots == countof(e->out->slot))
        return false;
    e->out->slot[e->out->slots++] = (uint8_t)(offset / 8);
    return true;
}

/* The host register of a guest vector register, given on first use; 0 if there is no room. */
static unsigned map_vec(struct emit *e, unsigned guest)
{
    unsigned i;

    for (i = 0; i < e->vecs; i++)
        if (e->vec[i] == guest)
            return i + 1;
    /* slots of vectors come first, so slot i belongs to host XMM(i + 1) */
    if (e->vecs == countof(e->vec) || guest > 15 || !add_slot(e, OFF_XMM(guest)))
        return 0;
    e->vec[e->vecs++] = (uint8_t)guest;
    return e->vecs;
}

static bool reg_is_opcode(const struct x86_insn *in)
{
    return in->map == X86_MAP_0F && in->opcode >= 0x71 && in->opcode <= 0x73;
}

/* Instructions with a GPR in ModRM.reg; in all others it is in ModRM.rm. */
static bool gpr_in_reg(const struct x86_insn *in)
{
    if (in->map != X86_MAP_0F)
        return false;
    switch (in->opcode) {
    case 0x50: /* movmskps, movmskpd */
    case 0xc5: /* pextrw */
    case 0xd7: /* pmovmskb */
        return true;
    case 0x2c: /* cvttss2si, cvttsd2si */
    case 0x2d:
        return in->pp >= 2;
    }
    return false;
}

static bool has_is4(const struct x86_insn *in)
{
    return in->map == X86_MAP_0F3A && in->enc == X86_ENC_VEX && in->opcode >= 0x4a &&
           in->opcode <= 0x4c;
}

/* Non-temporal moves would leave our buffer in a write-combining buffer; the data is the same. */
static void plain_opcode(const struct x86_insn *in, uint8_t *opcode, uint8_t *pp, uint8_t *map)
{
    if (in->map == X86_MAP_0F && in->opcode == 0x2b) { /* movntps, movntpd */
        *opcode = 0x11;
    } else if (in->map == X86_MAP_0F && in->opcode == 0xe7) {
        *opcode = 0x7f; /* movntq; movntdq becomes movdqu */
        *pp = in->pp == 0 ? 0 : 2;
    } else if (in->map == X86_MAP_0F38 && in->opcode == 0x2a) { /* movntdqa */
        *map = X86_MAP_0F;
        *opcode = 0x6f;
    }
}

/* W is the size of a general register or integer in memory, which outside 64-bit mode is 4. */
static bool w_is_size(const struct x86_insn *in)
{
    if (in->map == X86_MAP_0F)
        return in->opcode == 0x2a || in->opcode == 0x2c || in->opcode == 0x2d ||
               in->opcode == 0x6e || in->opcode == 0x7e;
    return in->map == X86_MAP_0F3A &&
           ((in->opcode >= 0x14 && in->opcode <= 0x17) || (in->opcode & 0xfcu) == 0x20 ||
            (in->opcode & 0xfcu) == 0x60);
}

/* The instruction itself, with its operands where the stub has put them. */
static bool put_insn(struct emit *e)
{
    const struct x86_insn *in = e->insn;
    uint8_t opcode = in->opcode, pp = in->pp, map = in->map;
    bool own = (e->flags & (N_MMX | N_X87)) != 0; /* registers keep their numbers */
    bool w = (in->rex & 8u) != 0 && (in->mode == X86_MODE_64 || !w_is_size(in));
    unsigned last = in->mode == X86_MODE_64 ? 15 : 7; /* VEX.B and a vvvv bit are ignored there */
    unsigned reg, rm, vvvv = 0, is4 = 0, modrm;
    bool gpr_reg = e->gpr >= 0 && gpr_in_reg(in);
    bool gpr_rm = e->gpr >= 0 && !gpr_reg && !e->mem;

    plain_opcode(in, &opcode, &pp, &map);
    if ((e->flags & N_X87) != 0) {
        PUT(e, opcode, e->mem ? (uint8_t)((in->modrm & 0x38u) | RSI) : in->modrm);
        return true;
    }
    if (!in->has_modrm) { /* emms */
        PUT(e, 0x0f, opcode);
        return map == X86_MAP_0F;
    }
    /* order of map_vec: ModRM.reg, vvvv, ModRM.rm, is4 */
    if (reg_is_opcode(in))
        reg = in->modrm >> 3 & 7u;
    else if (gpr_reg)
        reg = RAX;
    else if (own)
        reg = in->reg & last;
    else if ((reg = map_vec(e, in->reg & last)) == 0)
        return false;
    if (in->enc == X86_ENC_VEX) {
        unsigned named = 0, count = 0, i;

        for (i = 0; i < in->opnd_count; i++)
            named += in->opnd[i].kind == X86_OPND_REG && in->opnd[i].rclass == X86_RC_VEC;
        count += !reg_is_opcode(in) && !gpr_reg;
        count += !e->mem && !gpr_rm;
        count += has_is4(in);
        if (named > count && (vvvv = map_vec(e, in->vvvv & last)) == 0)
            return false;
    }
    if (e->mem)
        rm = RSI;
    else if (gpr_rm)
        rm = RAX;
    else if (own)
        rm = in->rm & last;
    else if ((rm = map_vec(e, in->rm & last)) == 0)
        return false;
    if (has_is4(in)) {
        unsigned guest = (unsigned)(e->bytes[in->off_imm] >> 4);

        if ((is4 = map_vec(e, guest & last)) == 0)
            return false;
    }
    modrm = (e->mem ? 0u : 0xc0u) | (reg & 7u) << 3 | (rm & 7u);
    if (in->enc == X86_ENC_VEX) {
        PUT(e, 0xc4, (uint8_t)(0xe0u | map),
            (uint8_t)((w ? 0x80u : 0u) | (~vvvv & 15u) << 3 | (in->vl == 32 ? 4u : 0u) | pp),
            opcode, (uint8_t)modrm);
    } else {
        static const uint8_t prefix[4] = {0, 0x66, 0xf3, 0xf2};
        unsigned rex = (w ? 8u : 0u) | (reg >= 8 ? 4u : 0u) | (rm >= 8 ? 1u : 0u);

        if (pp != 0)
            PUT(e, prefix[pp]);
        if (rex != 0)
            PUT(e, (uint8_t)(0x40u | rex));
        PUT(e, 0x0f);
        if (map == X86_MAP_0F38)
            PUT(e, 0x38);
        else if (map == X86_MAP_0F3A)
            PUT(e, 0x3a);
        PUT(e, opcode, (uint8_t)modrm);
    }
    if (has_is4(in))
        PUT(e, (uint8_t)(is4 << 4 | (e->bytes[in->off_imm] & 15u)));
    else if (in->imm_size == 1)
        PUT(e, e->bytes[in->off_imm]);
    return in->imm_size <= 1;
}

/* Which operands there are; the renaming happens in put_insn. */
static bool survey(struct emit *e)
{
    const struct x86_insn *in = e->insn;
    unsigned i;

    e->gpr = -1;
    for (i = 0; i < in->opnd_count; i++) {
        const struct x86_opnd *o = &in->opnd[i];

        if (o->kind == X86_OPND_MEM) {
            e->mem = true;
        } else if (o->kind == X86_OPND_REG && o->rclass == X86_RC_GPR) {
            if (e->gpr >= 0)
                return false;
            e->gpr = o->reg;
            e->gpr_written = (o->access & X86_ACC_W) != 0;
        } else if (o->kind == X86_OPND_REG && o->rclass != X86_RC_VEC && o->rclass != X86_RC_MMX &&
                   o->rclass != X86_RC_ST) {
            return false;
        }
    }
    if (in->enc == X86_ENC_LEGACY && in->map == X86_MAP_0F38)
        e->xmm0_read =
            in->opcode == 0x10 || in->opcode == 0x14 || in->opcode == 0x15 || in->opcode == 0xcb;
    if (in->map == X86_MAP_0F3A)
        e->xmm0_written = in->opcode == 0x60 || in->opcode == 0x62;
    return true;
}

static void mark_written(struct emit *e)
{
    unsigned i, k;

    for (i = 0; i < e->insn->opnd_count; i++) {
        const struct x86_opnd *o = &e->insn->opnd[i];

        if (o->kind != X86_OPND_REG || o->rclass != X86_RC_VEC || (o->access & X86_ACC_W) == 0)
            continue;
        for (k = 0; k < e->vecs; k++)
            if (e->vec[k] == o->reg)
                e->written[k] = true;
    }
}

static bool uses_strings(const struct x86_insn *in)
{
    return in->map == X86_MAP_0F3A && (in->opcode & 0xfcu) == 0x60;
}

static void put_load_flags(struct emit *e)
{
    PUT(e, 0x8b); /* mov eax, cc */
    put_mem(e, RAX, RDI, OFF_CC);
    PUT(e, 0x04, 0x7f, 0x9e); /* add al, 0x7f; sahf: OF from bit 0 */
}

static void put_save_flags(struct emit *e)
{
    PUT(e, 0x9f, 0x0f, 0x90, 0xc0, 0x0f, 0xb7, 0xc0, 0x89); /* lahf; seto al; movzx eax, ax */
    put_mem(e, RAX, RDI, OFF_CC);
}

static void put_mxcsr(struct emit *e, bool load, uint32_t off)
{
    PUT(e, 0x0f, 0xae);
    put_mem(e, load ? 2 : 3, RSI, off);
}

/* The slots are known only after the instruction has been renamed, so it is emitted twice. */
static bool rename_operands(struct emit *e)
{
    unsigned size = e->out->size;

    if (!put_insn(e))
        return false;
    e->out->size = size;
    mark_written(e);
    if (e->gpr >= 0) {
        unsigned guest = (unsigned)e->gpr;

        e->gpr = (int)e->out->slots;
        return add_slot(e, OFF_GPR(guest));
    }
    return true;
}

static bool emit_vector(struct emit *e)
{
    const struct x86_insn *in = e->insn;
    bool vex = in->enc == X86_ENC_VEX;
    bool flags = (in->flags_written | in->flags_undefined) != 0;
    unsigned i, jump = 0;

    if (!rename_operands(e))
        return false;
    if ((e->flags & N_FP) != 0) {
        put_mxcsr(e, false, OFF_BUF(mxcsr_host));
        put_mxcsr(e, true, OFF_BUF(mxcsr_in));
    }
    for (i = 0; i < e->vecs; i++) {
        if (vex)
            put_vmovups(e, false, i + 1, slot_reg[i], 0, in->vl != 32);
        else
            put_movups(e, false, i + 1, slot_reg[i], 0);
    }
    if (e->xmm0_read)
        put_movups(e, false, 0, RDI, OFF_XMM(0));
    if (e->gpr >= 0)
        put_mov64(e, false, RAX, slot_reg[e->gpr], 0);
    if (uses_strings(in)) {
        put_mov64(e, false, RAX, RDI, OFF_GPR(X86_RAX));
        put_mov64(e, false, RDX, RDI, OFF_GPR(X86_RDX));
    }
    if (!put_insn(e))
        return false;
    if (flags && (e->flags & N_FP) == 0)
        put_save_flags(e);
    if (uses_strings(in) && !e->xmm0_written)
        put_mov64(e, true, RCX, RDI, OFF_GPR(X86_RCX));
    if ((e->flags & N_FP) != 0) {
        if (flags)
            PUT(e, 0x9f, 0x0f, 0x90, 0xc0, 0x0f, 0xb7, 0xc0); /* lahf; seto al; movzx eax, ax */
        put_mxcsr(e, false, OFF_BUF(mxcsr_out));
        put_mxcsr(e, true, OFF_BUF(mxcsr_host));
        PUT(e, 0x44, 0x8b); /* mov r10d, [rsi + mxcsr_out] */
        put_mem(e, 2, RSI, OFF_BUF(mxcsr_out));
        PUT(e, 0x44, 0x23); /* and r10d, [rsi + stop] */
        put_mem(e, 2, RSI, OFF_BUF(stop));
        PUT(e, 0x75, 0); /* jnz end */
        jump = e->out->size;
        if (flags) {
            PUT(e, 0x89);
            put_mem(e, RAX, RDI, OFF_CC);
        }
    }
    for (i = 0; i < e->vecs; i++) {
        if (!e->written[i])
            continue;
        if (vex)
            put_vmovups(e, true, i + 1, slot_reg[i], 0, false);
        else
            put_movups(e, true, i + 1, slot_reg[i], 0);
    }
    if (e->xmm0_written && vex)
        put_vmovups(e, true, 0, RDI, OFF_XMM(0), false);
    else if (e->xmm0_written)
        put_movups(e, true, 0, RDI, OFF_XMM(0));
    if (e->gpr >= 0 && e->gpr_written)
        put_mov64(e, true, RAX, slot_reg[e->gpr], 0);
    if (jump != 0 && !e->out->overflow) {
        if (e->out->size - jump > 127)
            return false;
        e->out->text[jump - 1] = (uint8_t)(e->out->size - jump);
    }
    if (vex)
        PUT(e, 0xc5, 0xf8, 0x77); /* vzeroupper */
    PUT(e, 0xc3);
    return true;
}

static bool emit_x87(struct emit *e)
{
    const struct x86_insn *in = e->insn;
    bool flags = ((in->flags_written | in->flags_undefined | in->flags_read) & X86_FL_ARITH) != 0;

    if (!rename_operands(e))
        return false;
    put_mxcsr(e, false, OFF_BUF(mxcsr_host));
    PUT(e, 0xd9); /* fnstcw */
    put_mem(e, 7, RSI, OFF_BUF(fcw_host));
    PUT(e, 0x48, 0x0f, 0xae); /* fxrstor64 */
    put_mem(e, 1, RSI, OFF_BUF(fx));
    if (flags)
        put_load_flags(e);
    if (e->gpr >= 0)
        put_mov64(e, false, RAX, slot_reg[e->gpr], 0);
    if (!put_insn(e))
        return false;
    if (flags)
        put_save_flags(e);
    if (e->gpr >= 0 && e->gpr_written)
        put_mov64(e, true, RAX, slot_reg[e->gpr], 0);
    PUT(e, 0x48, 0x0f, 0xae); /* fxsave64 */
    put_mem(e, 0, RSI, OFF_BUF(fx));
    PUT(e, 0xdb, 0xe3, 0xd9); /* fninit; fldcw */
    put_mem(e, 5, RSI, OFF_BUF(fcw_host));
    put_mxcsr(e, true, OFF_BUF(mxcsr_host));
    PUT(e, 0xc3);
    return true;
}

bool native_emit(const struct x86_insn *insn, const uint8_t *bytes, unsigned flags,
                 struct native_code *out)
{
    struct emit e = {.out = out, .insn = insn, .bytes = bytes, .flags = flags};

    memset(out->slot, 0, sizeof(out->slot));
    out->size = out->slots = 0;
    out->overflow = false;
    if (insn->enc == X86_ENC_EVEX || insn->vsib || !survey(&e))
        return false;
    if (insn->has_modrm && (insn->modrm < 0xc0) != e.mem)
        return false; /* a memory form without a memory operand */
    if ((flags & (N_X87 | N_MMX)) != 0) {
        if (!emit_x87(&e))
            return false;
    } else if (!emit_vector(&e)) {
        return false;
    }
    return !out->overflow;
}
