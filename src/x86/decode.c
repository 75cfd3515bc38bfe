#include "x86/decode.h"

#include <string.h>

#include "base/bits.h"
#include "x86/decode_tables.h"

#define REX_W 8u
#define REX_R 4u
#define REX_X 2u
#define REX_B 1u

#define ANY_SEG 0xffu

/* The bytes, and what the record does not keep. */
struct decoder {
    const uint8_t *code;
    unsigned pos, end; /* end: the bytes there are, 15 at most */
    bool too_long;     /* 15 or more are there: running out means #GP, not MORE */
    enum x86_mode mode;
    uint8_t seg;         /* override or ANY_SEG */
    bool evex_r, evex_v; /* fifth register bits, true polarity */
    uint8_t l;           /* vector length field */
    const struct x86_row *row;
    struct x86_insn *out;
};

enum prefix_kind { PK_NONE, PK_SEG, PK_OPSIZE, PK_ADDRSIZE, PK_LOCK, PK_REP, PK_REX };

/* PK_REX counts in 64-bit mode only. */
static const uint8_t prefix_kinds[256] = {
    [0x26] = PK_SEG,  [0x2e] = PK_SEG, [0x36] = PK_SEG,    [0x3e] = PK_SEG,
    [0x64] = PK_SEG,  [0x65] = PK_SEG, [0x66] = PK_OPSIZE, [0x67] = PK_ADDRSIZE,
    [0xf0] = PK_LOCK, [0xf2] = PK_REP, [0xf3] = PK_REP,    [0x40 ... 0x4f] = PK_REX,
};

static int ran_out(const struct decoder *d)
{
    return d->too_long ? X86_DECODE_TOOLONG : X86_DECODE_MORE;
}

static bool has(const struct decoder *d, unsigned n)
{
    return d->end - d->pos >= n;
}

/* Little-endian, size 1, 2, 4 or 8; the caller has asked has(). */
static uint64_t take(struct decoder *d, unsigned size)
{
    const uint8_t *p = d->code + d->pos;
    uint64_t v = 0;

    d->pos += size;
    switch (size) {
    case 1:
        return p[0];
    case 2:
        return (uint64_t)(p[0] | p[1] << 8);
    case 4: {
        uint32_t w;

        memcpy(&w, p, 4);
        return w;
    }
    default:
        for (unsigned i = size; i-- > 0;)
            v = v << 8 | p[i];
        return v;
    }
}

static uint64_t sign_extend(uint64_t v, unsigned size)
{
    unsigned shift = 64 - 8 * size;

    return (uint64_t)((int64_t)(v << shift) >> shift);
}

static uint8_t segment_of(uint8_t prefix)
{
    switch (prefix) {
    case 0x26:
        return X86_ES;
    case 0x2e:
        return X86_CS;
    case 0x36:
        return X86_SS;
    case 0x3e:
        return X86_DS;
    case 0x64:
        return X86_FS;
    default:
        return X86_GS;
    }
}

/*
 * Legacy prefixes and REX; leaves pos at the first byte that is none of them. A REX counts only
 * right before the opcode.
 */
static int prefixes(struct decoder *d)
{
    struct x86_insn *o = d->out;
    bool is64 = d->mode == X86_MODE_64;
    uint8_t rep = 0;

    for (;; d->pos++) {
        uint8_t byte;

        if (!has(d, 1))
            return ran_out(d);
        byte = d->code[d->pos];
        switch ((enum prefix_kind)prefix_kinds[byte]) {
        case PK_NONE:
            goto done;
        case PK_REX:
            if (!is64)
                goto done;
            o->rex = byte & 15;
            o->prefixes |= X86_PFX_REX;
            continue;
        case PK_SEG:
            o->prefixes |= X86_PFX_SEG;
            if (!is64 || byte >= 0x64)
                d->seg = segment_of(byte);
            break;
        case PK_OPSIZE:
            o->prefixes |= X86_PFX_OPSIZE;
            break;
        case PK_ADDRSIZE:
            o->prefixes |= X86_PFX_ADDRSIZE;
            break;
        case PK_LOCK:
            o->prefixes |= X86_PFX_LOCK;
            break;
        case PK_REP:
            o->prefixes |= (uint8_t)(byte == 0xf3 ? X86_PFX_REP : X86_PFX_REPNE);
            rep = byte;
            break;
        }
        o->rex = 0;
        o->prefixes &= (uint8_t)~X86_PFX_REX;
    }
done:
    o->rep = rep; /* narrowed to string instructions later */
    if (rep != 0)
        o->pp = rep == 0xf3 ? 2 : 3;
    else if ((o->prefixes & X86_PFX_OPSIZE) != 0)
        o->pp = 1;
    return 0;
}

/* After C4 or C5, at pos. */
static int vex_header(struct decoder *d, bool three)
{
    struct x86_insn *o = d->out;
    bool is64 = d->mode == X86_MODE_64;
    uint8_t p;

    if (!has(d, three ? 3 : 2))
        return ran_out(d);
    o->enc = X86_ENC_VEX;
    o->rex = (d->code[d->pos] & 0x80) != 0 ? 0 : REX_R;
    o->map = X86_MAP_0F;
    if (three) {
        p = d->code[d->pos++];
        o->rex = (uint8_t)(~p >> 5 & 7);
        o->map = p & 31;
        if (o->map < X86_MAP_0F || o->map > X86_MAP_0F3A)
            return X86_DECODE_INVALID;
        if ((d->code[d->pos] & 0x80) != 0)
            o->rex |= REX_W;
    }
    p = d->code[d->pos++];
    if (!is64)
        o->rex &= REX_W; /* the inverted bits that must be one make R and X zero; B is ignored */
    o->vvvv = ~p >> 3 & 15;
    d->l = p >> 2 & 1;
    o->pp = p & 3;
    return 0;
}

/* After 62, at pos. */
static int evex_header(struct decoder *d)
{
    struct x86_insn *o = d->out;
    const uint8_t *p = d->code + d->pos;

    if (!has(d, 4))
        return ran_out(d);
    d->pos += 3;
    o->enc = X86_ENC_EVEX;
    o->map = p[0] & 7;
    if ((p[0] & 8) != 0 || o->map < X86_MAP_0F || o->map > X86_MAP_0F3A || (p[1] & 4) == 0)
        return X86_DECODE_INVALID;
    o->rex = (uint8_t)((~p[0] >> 5 & 7) | ((p[1] & 0x80) != 0 ? REX_W : 0));
    o->pp = p[1] & 3;
    o->vvvv = ~p[1] >> 3 & 15;
    d->evex_r = (p[0] & 0x10) == 0;
    d->evex_v = (p[2] & 8) == 0;
    o->evex_z = (p[2] & 0x80) != 0;
    o->evex_b = (p[2] & 0x10) != 0;
    o->evex_aaa = p[2] & 7;
    d->l = p[2] >> 5 & 3;
    if (d->mode != X86_MODE_64) {
        o->rex &= REX_W;
        d->evex_r = false;
        if (d->evex_v)
            return X86_DECODE_INVALID;
    }
    return 0;
}

/* From the first byte after the prefixes to the opcode byte, which stays at pos. */
static int opcode_map(struct decoder *d)
{
    struct x86_insn *o = d->out;
    bool is64 = d->mode == X86_MODE_64;
    uint8_t byte = d->code[d->pos];
    int err;

    if (byte == 0x0f) {
        d->pos++;
        if (!has(d, 1))
            return ran_out(d);
        byte = d->code[d->pos];
        o->map = X86_MAP_0F;
        if (byte == 0x38 || byte == 0x3a) {
            d->pos++;
            o->map = byte == 0x38 ? X86_MAP_0F38 : X86_MAP_0F3A;
        }
    } else if (byte == 0xc4 || byte == 0xc5 || byte == 0x62) {
        if (!is64) {
            if (d->end - d->pos < 2)
                return ran_out(d);
            if (d->code[d->pos + 1] < 0xc0) /* LES, LDS or BOUND: their ModRM has memory */
                return 0;
        }
        if ((o->prefixes &
             (X86_PFX_LOCK | X86_PFX_REP | X86_PFX_REPNE | X86_PFX_OPSIZE | X86_PFX_REX)) != 0)
            return X86_DECODE_INVALID;
        d->pos++;
        err = byte == 0x62 ? evex_header(d) : vex_header(d, byte == 0xc4);
        if (err != 0)
            return err;
    }
    return has(d, 1) ? 0 : ran_out(d);
}

static void sizes(struct decoder *d)
{
    struct x86_insn *o = d->out;
    bool opsize = (o->prefixes & X86_PFX_OPSIZE) != 0;
    bool addrsize = (o->prefixes & X86_PFX_ADDRSIZE) != 0;

    switch (d->mode) {
    case X86_MODE_16:
        o->osize = opsize ? 4 : 2;
        o->asize = addrsize ? 4 : 2;
        break;
    case X86_MODE_32:
        o->osize = opsize ? 2 : 4;
        o->asize = addrsize ? 2 : 4;
        break;
    case X86_MODE_64:
        o->osize = (o->rex & REX_W) != 0 ? 8 : opsize ? 2 : 4;
        o->asize = addrsize ? 4 : 8;
        break;
    }
}

/* Follows the opcode's tree to its row. */
static bool find_row(struct decoder *d)
{
    struct x86_insn *o = d->out;
    unsigned node = x86_roots[o->enc][o->map][o->opcode];
    bool mandatory = false;

    if (node >= 0x8000) {
        const uint8_t value[X86_DIM_COUNT] = {
            [X86_DIM_PP] = o->pp,
            [X86_DIM_MODE] = d->mode == X86_MODE_64,
            [X86_DIM_MOD] = o->modrm >= 0xc0,
            [X86_DIM_REG] = o->modrm >> 3 & 7,
            [X86_DIM_RM] = o->modrm & 7,
            [X86_DIM_W] = (o->rex & REX_W) != 0,
            [X86_DIM_L] = d->l,
            [X86_DIM_B] = (o->rex & REX_B) != 0,
        };

        do {
            const uint16_t *n = &x86_nodes[node - 0x8000];

            mandatory |= n[0] == X86_DIM_PP;
            node = n[1 + value[n[0]]];
        } while (node >= 0x8000);
    }
    if (!mandatory && o->enc == X86_ENC_LEGACY)
        o->pp = 0; /* a plain prefix */
    d->row = &x86_rows[node];
    return node != 0;
}

static int displacement(struct decoder *d, unsigned size)
{
    struct x86_insn *o = d->out;

    if (size == 0)
        return 0;
    if (!has(d, size))
        return ran_out(d);
    o->off_disp = (uint8_t)d->pos;
    o->disp_size = (uint8_t)size;
    o->disp = (int64_t)sign_extend(take(d, size), size);
    return 0;
}

static int memory16(struct decoder *d)
{
    static const uint8_t bases[8] = {3, 3, 5, 5, 6, 7, 5, 3};
    static const uint8_t indexes[4] = {6, 7, 6, 7};
    struct x86_insn *o = d->out;
    unsigned mod = o->modrm >> 6, rm = o->modrm & 7;

    if (mod == 0 && rm == 6)
        return displacement(d, 2);
    o->base = bases[rm];
    if (rm < 4)
        o->index = indexes[rm];
    o->seg = o->base == 5 ? X86_SS : X86_DS;
    return displacement(d, mod);
}

/* The ModRM memory operand: SIB and displacement; the default segment. */
static int memory(struct decoder *d)
{
    struct x86_insn *o = d->out;
    unsigned mod = o->modrm >> 6, rm = o->modrm & 7;

    if (o->asize == 2)
        return memory16(d);
    if (rm == 4) {
        uint8_t sib;

        if (!has(d, 1))
            return ran_out(d);
        o->off_sib = (uint8_t)d->pos;
        sib = d->code[d->pos++];
        o->scale = (uint8_t)(1u << (sib >> 6));
        o->index = (uint8_t)((sib >> 3 & 7) | ((o->rex & REX_X) != 0 ? 8 : 0));
        if (o->vsib) {
            if (d->evex_v)
                o->index |= 16;
        } else if (o->index == 4) {
            o->index = X86_REG_NONE;
            o->scale = 1;
        }
        rm = sib & 7;
        if (mod == 0 && rm == 5)
            return displacement(d, 4);
    } else if (mod == 0 && rm == 5) {
        if (d->mode == X86_MODE_64)
            o->base = X86_REG_RIP;
        return displacement(d, 4);
    }
    o->base = (uint8_t)(rm | ((o->rex & REX_B) != 0 ? 8 : 0));
    o->seg = o->base == 4 || o->base == 5 ? X86_SS : X86_DS;
    return displacement(d, mod == 2 ? 4 : mod);
}

/* Bytes of a size letter of decode.tab; is_reg where a letter means two things. */
static unsigned spec_size(const struct decoder *d, char letter, bool is_reg)
{
    const struct x86_insn *o = d->out;
    bool is64 = d->mode == X86_MODE_64;

    switch (letter) {
    case 'b':
        return 1;
    case 'w':
        return 2;
    case 'd':
        return 4;
    case 'q':
        return 8;
    case 't':
        return 10;
    case 'o':
        return 16;
    case 'y':
        return 32;
    case 'z':
        return 64;
    case 'v':
        return o->osize;
    case 'i':
        return o->osize == 2 ? 2 : 4;
    case 'r':
        return is64 && (o->rex & REX_W) != 0 ? 8 : 4;
    case 'm':
        return is64 ? 8 : 4;
    case 'n':
        return is64 ? 8 : o->osize;
    case 'x':
        return o->vl != 0 ? o->vl : 16;
    case 'h':
        return o->vl / 2u;
    case 'f':
        return o->vl / 4u;
    case 'e':
        return o->vl / 8u;
    case 'p':
        return o->osize + 2u;
    case 'g':
        return is_reg ? o->osize : 2;
    case 'l':
        return is_reg ? (o->osize == 8 ? 4 : o->osize) : 2;
    case 'c':
        return is_reg ? 4 : 2;
    case 'a':
        return is_reg ? 4 : 1;
    case 'A':
        return o->asize;
    case 'k':
        return 2u * o->osize;
    case 'D':
        return is64 ? 10 : 6;
    default:
        return 0;
    }
}

static void set_reg(struct x86_opnd *op, enum x86_reg_class rclass, unsigned reg, unsigned size)
{
    op->kind = X86_OPND_REG;
    op->rclass = (uint8_t)rclass;
    op->reg = (uint8_t)reg;
    op->size = (uint16_t)size;
}

static void set_gpr(struct decoder *d, struct x86_opnd *op, unsigned reg, unsigned size)
{
    struct x86_insn *o = d->out;
    enum x86_reg_class rclass = X86_RC_GPR;
    uint32_t bit = 1u << (reg & 15);

    if (size == 1 && reg >= 4 && reg < 8 && (o->prefixes & X86_PFX_REX) == 0 &&
        o->enc == X86_ENC_LEGACY) {
        rclass = X86_RC_GPRH;
        reg -= 4;
        bit = 1u << reg;
    }
    set_reg(op, rclass, reg, size);
    /* What a narrow write leaves standing counts as read. */
    if ((op->access & X86_ACC_R) != 0 || ((op->access & X86_ACC_W) != 0 && size < 4))
        o->gpr_read |= bit;
    if ((op->access & X86_ACC_W) != 0)
        o->gpr_written |= bit;
}

static void set_vec(struct x86_opnd *op, unsigned reg, unsigned size)
{
    set_reg(op, X86_RC_VEC, reg, size < 16 ? 16 : size);
}

static int set_imm(struct decoder *d, struct x86_opnd *op, unsigned size, bool is_signed)
{
    struct x86_insn *o = d->out;
    uint64_t v;

    if (!has(d, size))
        return ran_out(d);
    op->kind = X86_OPND_IMM;
    op->size = (uint16_t)size;
    if (o->imm_size == 0) {
        o->off_imm = (uint8_t)d->pos;
        o->imm_size = (uint8_t)size;
        v = take(d, size);
        o->imm = is_signed ? sign_extend(v, size) : v;
    } else {
        o->imm2_size = (uint8_t)size;
        o->imm2 = take(d, size);
    }
    return 0;
}

static int set_memory(struct decoder *d, struct x86_opnd *op, unsigned size)
{
    struct x86_insn *o = d->out;

    op->kind = X86_OPND_MEM;
    if (o->enc == X86_ENC_EVEX) {
        uint32_t attr = d->row->attr;

        if (o->evex_b)
            size = (attr & X86_AT_BC4) != 0 ? 4 : 8;
        if (o->disp_size == 1)
            o->disp *= (attr & X86_AT_ELEM1) != 0   ? 1
                       : (attr & X86_AT_ELEM2) != 0 ? 2
                       : (attr & X86_AT_ELEM4) != 0 ? 4
                       : (attr & X86_AT_ELEM8) != 0 ? 8
                                                    : (int64_t)size;
    }
    op->size = (uint16_t)size;
    return 0;
}

/* [rSI] and [rDI] of the string instructions; the source's segment is the one that counts. */
static void set_string(struct decoder *d, struct x86_opnd *op, bool source, unsigned size)
{
    struct x86_insn *o = d->out;

    op->kind = X86_OPND_MEM;
    op->size = (uint16_t)size;
    if (source) {
        o->base = 6;
        o->seg = d->seg != ANY_SEG ? d->seg : X86_DS;
    } else if (o->base == X86_REG_NONE) {
        o->base = 7;
        o->seg = X86_ES;
    }
}

static int set_control(struct decoder *d, struct x86_opnd *op, enum x86_reg_class rclass)
{
    const struct x86_insn *o = d->out;

    if (rclass == X86_RC_CR ? (0x11d & 1u << o->reg) == 0 : o->reg > 7)
        return X86_DECODE_INVALID;
    set_reg(op, rclass, o->reg, d->mode == X86_MODE_64 ? 8 : 4);
    return 0;
}

static int set_segment(const struct decoder *d, struct x86_opnd *op)
{
    unsigned reg = d->out->modrm >> 3 & 7;

    if (reg >= X86_SEG_COUNT || (reg == X86_CS && (op->access & X86_ACC_W) != 0))
        return X86_DECODE_INVALID;
    set_reg(op, X86_RC_SEG, reg, 2);
    return 0;
}

/* Register named by ModRM.reg, by its fifth bit in EVEX too. */
static unsigned vec_reg(const struct decoder *d)
{
    return d->out->reg | (d->evex_r ? 16u : 0);
}

static unsigned vec_rm(const struct decoder *d)
{
    const struct x86_insn *o = d->out;

    return o->rm | (o->enc == X86_ENC_EVEX && (o->rex & REX_X) != 0 ? 16u : 0);
}

static unsigned vec_vvvv(const struct decoder *d)
{
    const struct x86_insn *o = d->out;
    unsigned reg = o->vvvv | (d->evex_v ? 16u : 0);

    return d->mode == X86_MODE_64 ? reg : reg & 7;
}

static int set_mask(struct x86_opnd *op, unsigned reg)
{
    if (reg > 7)
        return X86_DECODE_INVALID;
    set_reg(op, X86_RC_K, reg, 8);
    return 0;
}

/* One operand; the letters are decode.tab's. Immediates are taken from the bytes here. */
static int operand(struct decoder *d, struct x86_opnd *op, struct x86_spec spec)
{
    struct x86_insn *o = d->out;
    bool is_reg = o->modrm >= 0xc0 || (d->row->attr & X86_AT_MODREG) != 0;
    unsigned size = spec_size(d, spec.size, is_reg);

    switch (spec.addr) {
    case 'E':
    case 'R':
    case 'M':
        if (is_reg != (spec.addr == 'R') && spec.addr != 'E')
            return X86_DECODE_INVALID;
        if (!is_reg)
            return set_memory(d, op, size);
        set_gpr(d, op, o->rm, size);
        return 0;
    case 'G':
        if (d->evex_r)
            return X86_DECODE_INVALID;
        set_gpr(d, op, o->reg, size);
        return 0;
    case 'B':
        set_gpr(d, op, d->mode == X86_MODE_64 ? o->vvvv : o->vvvv & 7u, size);
        return 0;
    case 'Z':
        set_gpr(d, op, (o->opcode & 7u) | ((o->rex & REX_B) != 0 ? 8 : 0), size);
        return 0;
    case '$':
        set_gpr(d, op, 0, size);
        return 0;
    case '%':
        set_gpr(d, op, 1, size);
        return 0;
    case '&':
        set_gpr(d, op, 2, size);
        return 0;
    case 'V':
        set_vec(op, vec_reg(d), size);
        return 0;
    case 'H':
        set_vec(op, vec_vvvv(d), size);
        return 0;
    case 'W':
    case 'U':
        if (!is_reg && spec.addr == 'U')
            return X86_DECODE_INVALID;
        if (!is_reg)
            return set_memory(d, op, size);
        set_vec(op, vec_rm(d), size);
        return 0;
    case 'L':
        if (o->imm_size == 0) {
            if (!has(d, 1))
                return ran_out(d);
            o->off_imm = (uint8_t)d->pos;
            o->imm_size = 1;
            o->imm = take(d, 1);
        }
        set_vec(op, (unsigned)(o->imm >> 4) & (d->mode == X86_MODE_64 ? 15 : 7), size);
        return 0;
    case '0':
        set_vec(op, 0, size);
        return 0;
    case 'P':
        set_reg(op, X86_RC_MMX, o->modrm >> 3 & 7, 8);
        return 0;
    case 'Q':
    case 'N':
        if (!is_reg)
            return spec.addr == 'Q' ? set_memory(d, op, size) : X86_DECODE_INVALID;
        set_reg(op, X86_RC_MMX, o->modrm & 7, 8);
        return 0;
    case 'S':
        return set_segment(d, op);
    case '#':
        set_reg(op, X86_RC_SEG, (unsigned char)spec.size, 2);
        return 0;
    case 'C':
        return set_control(d, op, X86_RC_CR);
    case 'D':
        return set_control(d, op, X86_RC_DR);
    case 'I':
        if (spec.size == 'n') { /* the byte whose upper half is operand L */
            op->kind = X86_OPND_IMM;
            op->size = 1;
            o->imm &= 15;
            return 0;
        }
        if (spec.size == 's')
            return set_imm(d, op, 1, true);
        return set_imm(d, op, spec.size == 'z' ? (o->osize == 2 ? 2 : 4) : size, spec.size == 'z');
    case '1':
        op->kind = X86_OPND_IMM;
        op->size = 1;
        o->imm = 1;
        return 0;
    case 'J': {
        int err = set_imm(d, op, spec.size == 'b' ? 1 : o->osize == 2 ? 2 : 4, true);

        op->kind = X86_OPND_REL;
        return err;
    }
    case 'A': {
        int err = set_imm(d, op, o->osize, false);

        if (err == 0)
            err = set_imm(d, op, 2, false);
        op->kind = X86_OPND_FAR;
        op->size = (uint16_t)size;
        return err;
    }
    case 'O': {
        if (!has(d, o->asize))
            return ran_out(d);
        op->kind = X86_OPND_MEM;
        op->size = (uint16_t)size;
        o->off_disp = (uint8_t)d->pos;
        o->disp_size = o->asize;
        o->disp = (int64_t)take(d, o->asize);
        o->seg = d->seg != ANY_SEG ? d->seg : X86_DS;
        return 0;
    }
    case 'X':
    case 'Y':
        set_string(d, op, spec.addr == 'X', size);
        return 0;
    case 'f':
    case 'F':
        set_reg(op, X86_RC_ST, spec.addr == 'f' ? 0 : o->modrm & 7, 10);
        return 0;
    case 'K':
        return set_mask(op, vec_reg(d));
    case 'k':
        return set_mask(op, vec_vvvv(d));
    case 'j':
    case 'l':
        if (!is_reg)
            return spec.addr == 'j' ? set_memory(d, op, size) : X86_DECODE_INVALID;
        return set_mask(op, o->modrm & 7);
    case 'v':
        return set_memory(d, op, (d->row->attr & X86_AT_VS8) != 0 ? 8 : 4);
    case 'T':
    case 't':
    case 'u': {
        unsigned reg = spec.addr == 'T' ? o->reg : spec.addr == 't' ? o->rm : o->vvvv;

        if (reg > 7)
            return X86_DECODE_INVALID;
        set_reg(op, X86_RC_OTHER, reg, 0);
        return 0;
    }
    default:
        return X86_DECODE_INVALID;
    }
}

/* What VEX and EVEX forbid beyond the row's own conditions; the vector length. */
static bool vector_rules(struct decoder *d)
{
    struct x86_insn *o = d->out;
    uint32_t attr = d->row->attr;
    bool is_reg = o->modrm >= 0xc0;

    o->vl = (uint8_t)((attr & X86_AT_LIG) != 0 ? 16u : 16u << d->l);
    if ((attr & X86_AT_NOVVVV) != 0 && (o->vvvv != 0 || (d->evex_v && !o->vsib)))
        return false;
    if ((attr & X86_AT_L1AVX2) != 0 && d->l == 1)
        o->feature = X86_FEAT_AVX2;
    if (o->enc != X86_ENC_EVEX)
        return true;
    if (d->l == 3)
        return false;
    if (o->evex_b && is_reg && (attr & (X86_AT_ER | X86_AT_SAE)) == 0)
        return false;
    if (o->evex_b && !is_reg && (attr & (X86_AT_BC4 | X86_AT_BC8)) == 0)
        return false;
    if ((attr & X86_AT_NOK) != 0 && o->evex_aaa != 0)
        return false;
    if ((attr & X86_AT_RK) != 0 && o->evex_aaa == 0)
        return false;
    if (o->evex_z) {
        char dest = d->row->opnd[0].addr;

        if ((attr & (X86_AT_NOZ | X86_AT_NOK)) != 0 || dest == 'K' || o->evex_aaa == 0)
            return false;
        if (!is_reg && (dest == 'M' || dest == 'W'))
            return false;
    }
    return true;
}

/* Gathers must not name a register twice. */
static bool distinct(const struct decoder *d)
{
    const struct x86_insn *o = d->out;

    if (o->vsib) {
        unsigned dest = vec_reg(d), mask = vec_vvvv(d);

        if (o->enc == X86_ENC_EVEX)
            return dest != o->index;
        return dest != o->index && mask != o->index && dest != mask;
    }
    return o->reg != o->rm && o->reg != o->vvvv && o->rm != o->vvvv;
}

static uint32_t condition_flags(unsigned cc)
{
    static const uint32_t flags[8] = {1u << 11,
                                      1u << 0,
                                      1u << 6,
                                      1u << 6 | 1u << 0,
                                      1u << 7,
                                      1u << 2,
                                      1u << 7 | 1u << 11,
                                      1u << 6 | 1u << 7 | 1u << 11};

    return flags[cc >> 1 & 7];
}

/* Flags, implicit registers and class, once the operands stand. */
static void effects(struct decoder *d)
{
    struct x86_insn *o = d->out;
    const struct x86_row *row = d->row;
    const struct x86_flagset *f = &x86_flagsets[row->flags];
    uint32_t attr = row->attr;
    bool has_mem = false;

    o->flags_read = f->read;
    o->flags_written = f->written;
    o->flags_undefined = f->undefined;
    o->gpr_read |= row->gpr_read;
    o->gpr_written |= row->gpr_written;
    if (o->osize == 2) /* 16-bit results leave the rest standing */
        o->gpr_read |= row->gpr_written;
    for (unsigned i = 0; i < o->opnd_count; i++) {
        if (o->opnd[i].kind != X86_OPND_MEM)
            continue;
        if (o->base < 16)
            o->gpr_read |= 1u << o->base;
        if (o->index < 16 && !o->vsib)
            o->gpr_read |= 1u << o->index;
        has_mem |= o->opnd[i].access != 0;
    }
    if ((attr & X86_AT_CC) != 0)
        o->flags_read |= condition_flags(o->opcode);
    if ((attr & X86_AT_SP) != 0) {
        o->gpr_read |= 1u << 4;
        o->gpr_written |= 1u << 4;
    }
    if ((attr & X86_AT_SHIFT) != 0) {
        const struct x86_opnd *count = &o->opnd[o->opnd_count - 1];

        /* Flags that may come out as they went in are inputs. */
        if (count->kind == X86_OPND_REG || (o->imm & (o->opnd[0].size == 8 ? 63 : 31)) == 0)
            o->flags_read |= f->written | f->undefined;
    }
    if ((attr & X86_AT_REP) != 0 && o->rep != 0) {
        o->gpr_read |= 1u << 1;
        o->gpr_written |= 1u << 1;
        o->gpr_read |= o->gpr_written; /* a count of zero changes nothing */
        o->flags_read |= f->written;
    } else {
        o->rep = 0;
    }
    if ((attr & X86_AT_BR) != 0)
        o->cls = X86_CLASS_BRANCH;
    else if ((attr & (X86_AT_SYS | X86_AT_SP)) != 0)
        o->cls = X86_CLASS_SYSTEM;
    else
        o->cls = has_mem ? X86_CLASS_MEMORY : X86_CLASS_VERBATIM;
}

/* From the found row to the last byte. */
static int finish(struct decoder *d)
{
    struct x86_insn *o = d->out;
    const struct x86_row *row = d->row;
    int err;

    if (d->seg != ANY_SEG)
        o->seg = d->seg;
    o->op = row->op;
    o->feature = row->feature;
    if (d->mode == X86_MODE_64) {
        if ((row->attr & X86_AT_F64) != 0)
            o->osize = 8;
        else if ((row->attr & X86_AT_D64) != 0 && o->osize == 4)
            o->osize = 8;
    }
    if ((row->attr & X86_AT_MODREG) != 0) /* MOV to and from CR, DR */
        o->osize = d->mode == X86_MODE_64 ? 8 : 4;
    o->vsib = (row->attr & (X86_AT_VS4 | X86_AT_VS8)) != 0;
    if (o->enc != X86_ENC_LEGACY && !vector_rules(d))
        return X86_DECODE_INVALID;
    if (o->has_modrm && o->modrm < 0xc0 && (row->attr & X86_AT_MODREG) == 0) {
        if ((o->vsib || (row->attr & X86_AT_SIB) != 0) && ((o->modrm & 7) != 4 || o->asize == 2))
            return X86_DECODE_INVALID;
        err = memory(d);
        if (err != 0)
            return err;
        if (d->seg != ANY_SEG)
            o->seg = d->seg;
    }
    for (unsigned i = 0; i < 5 && row->opnd[i].addr != 0; i++) {
        o->opnd[i].access = (uint8_t)(row->access >> (2 * i) & 3);
        err = operand(d, &o->opnd[i], row->opnd[i]);
        if (err != 0)
            return err;
        o->opnd_count++;
    }
    if (o->evex_aaa != 0 && !o->evex_z && o->opnd[0].rclass == X86_RC_VEC &&
        (o->opnd[0].access & X86_ACC_W) != 0 && (row->attr & X86_AT_BLEND) == 0)
        o->opnd[0].access |= X86_ACC_R; /* elements masked out stay */
    if ((row->attr & X86_AT_DIST) != 0 && !distinct(d))
        return X86_DECODE_INVALID;
    if ((o->prefixes & X86_PFX_LOCK) != 0 &&
        ((row->attr & X86_AT_LOCK) == 0 || o->opnd[0].kind != X86_OPND_MEM))
        return X86_DECODE_INVALID;
    effects(d);
    return 0;
}

static int decode(struct decoder *d)
{
    struct x86_insn *o = d->out;
    int err = prefixes(d);

    if (err == 0)
        err = opcode_map(d);
    if (err != 0)
        return err;
    o->off_opcode = (uint8_t)d->pos;
    o->opcode = d->code[d->pos++];
    if (x86_has_modrm[o->enc][o->map][o->opcode] != 0) {
        if (!has(d, 1))
            return ran_out(d);
        o->has_modrm = true;
        o->off_modrm = (uint8_t)d->pos;
        o->modrm = d->code[d->pos++];
        o->reg = (uint8_t)((o->modrm >> 3 & 7) | ((o->rex & REX_R) != 0 ? 8 : 0));
        o->rm = (uint8_t)((o->modrm & 7) | ((o->rex & REX_B) != 0 ? 8 : 0));
    }
    if (o->enc == X86_ENC_EVEX && o->evex_b && o->modrm >= 0xc0)
        d->l = 2; /* L'L is the rounding mode, the length is full */
    sizes(d);
    if (!find_row(d))
        return X86_DECODE_INVALID;
    return finish(d);
}

int x86_decode(const uint8_t *code, size_t avail, enum x86_mode mode, struct x86_insn *out)
{
    struct decoder d = {.code = code, .mode = mode, .seg = ANY_SEG, .out = out};
    int err;

    d.too_long = avail >= X86_MAX_LEN;
    d.end = d.too_long ? X86_MAX_LEN : (unsigned)avail;
    /* in two halves, since compilers make a slow loop of one */
    memset(out, 0, 64);
    memset((uint8_t *)out + 64, 0, sizeof(*out) - 64);
    out->mode = (uint8_t)mode;
    out->base = X86_REG_NONE;
    out->index = X86_REG_NONE;
    out->scale = 1;
    out->seg = X86_DS;
    err = decode(&d);
    out->len = (uint8_t)d.pos;
    if (err != 0) {
        out->op = X86_INVALID;
        return err;
    }
    return out->len;
}

const char *x86_op_name(enum x86_op op)
{
    static const char *const names[X86_OP_COUNT] = {
        "(invalid)",
#define OP(id, name) name,
#include "x86/ops.def"
#undef OP
    };

    return (unsigned)op < X86_OP_COUNT ? names[op] : names[X86_INVALID];
}
