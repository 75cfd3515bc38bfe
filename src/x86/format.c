#include "x86/decode.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/bits.h"

struct text {
    char *buf;
    size_t size, len; /* len may pass size */
};

__attribute__((format(printf, 2, 3))) static void put(struct text *t, const char *format, ...)
{
    va_list ap;
    int n;

    va_start(ap, format);
    n = vsnprintf(t->len < t->size ? t->buf + t->len : NULL,
                  t->len < t->size ? t->size - t->len : 0, format, ap);
    va_end(ap);
    if (n > 0)
        t->len += (size_t)n;
}

static void put_gpr(struct text *t, unsigned reg, unsigned size)
{
    static const char names[8][4] = {"ax", "cx", "dx", "bx", "sp", "bp", "si", "di"};
    static const char bytes[8][4] = {"al", "cl", "dl", "bl", "spl", "bpl", "sil", "dil"};

    if (reg == X86_REG_RIP)
        put(t, "%s", size == 8 ? "rip" : "eip");
    else if (reg >= 8)
        put(t, "r%u%s", reg, size == 8 ? "" : size == 4 ? "d" : size == 2 ? "w" : "b");
    else if (size == 1)
        put(t, "%s", bytes[reg]);
    else
        put(t, "%s%s", size == 8 ? "r" : size == 4 ? "e" : "", names[reg]);
}

static const char *segment_name(unsigned seg)
{
    static const char names[X86_SEG_COUNT][3] = {"es", "cs", "ss", "ds", "fs", "gs"};

    return seg < X86_SEG_COUNT ? names[seg] : "?";
}

static void put_reg(struct text *t, const struct x86_opnd *op)
{
    static const char high[4][3] = {"ah", "ch", "dh", "bh"};

    switch ((enum x86_reg_class)op->rclass) {
    case X86_RC_GPR:
        put_gpr(t, op->reg, op->size);
        break;
    case X86_RC_GPRH:
        put(t, "%s", high[op->reg & 3]);
        break;
    case X86_RC_SEG:
        put(t, "%s", segment_name(op->reg));
        break;
    case X86_RC_CR:
        put(t, "cr%u", op->reg);
        break;
    case X86_RC_DR:
        put(t, "dr%u", op->reg);
        break;
    case X86_RC_ST:
        put(t, "st(%u)", op->reg);
        break;
    case X86_RC_MMX:
        put(t, "mm%u", op->reg);
        break;
    case X86_RC_VEC:
        put(t, "%cmm%u", op->size >= 64 ? 'z' : op->size >= 32 ? 'y' : 'x', op->reg);
        break;
    case X86_RC_K:
        put(t, "k%u", op->reg);
        break;
    case X86_RC_OTHER:
        put(t, "tmm%u", op->reg);
        break;
    }
}

static const char *size_name(unsigned size)
{
    switch (size) {
    case 1:
        return "byte ptr ";
    case 2:
        return "word ptr ";
    case 4:
        return "dword ptr ";
    case 6:
        return "fword ptr ";
    case 8:
        return "qword ptr ";
    case 10:
        return "tbyte ptr ";
    case 16:
        return "xmmword ptr ";
    case 32:
        return "ymmword ptr ";
    case 64:
        return "zmmword ptr ";
    default:
        return "";
    }
}

static void put_number(struct text *t, int64_t v, bool after_register)
{
    if (v < 0 && after_register)
        put(t, "-%#llx", 0 - (unsigned long long)v);
    else
        put(t, "%s%#llx", after_register ? "+" : "", (unsigned long long)v);
}

static void put_mem(struct text *t, const struct x86_insn *i, const struct x86_opnd *op,
                    bool second)
{
    bool some = false;
    uint8_t base = i->base, seg = i->seg;

    if ((i->op == X86_MOVS && !second) || (i->op == X86_CMPS && second)) {
        base = 7; /* the record's base is the source */
        seg = X86_ES;
    }
    put(t, "%s", size_name(op->size));
    if ((i->prefixes & X86_PFX_SEG) != 0 || seg == X86_ES)
        put(t, "%s:", segment_name(seg));
    put(t, "[");
    if (base != X86_REG_NONE) {
        put_gpr(t, base, i->asize);
        some = true;
    }
    if (i->index != X86_REG_NONE) {
        put(t, "%s", some ? "+" : "");
        if (i->vsib)
            put(t, "%cmm%u", i->vl == 64 ? 'z' : i->vl == 32 ? 'y' : 'x', i->index);
        else
            put_gpr(t, i->index, i->asize);
        if (i->scale > 1)
            put(t, "*%u", i->scale);
        some = true;
    }
    if (!some)
        put_number(t, (int64_t)((uint64_t)i->disp & bytes_mask(i->asize)), false);
    else if (i->disp != 0)
        put_number(t, i->disp, true);
    put(t, "]");
}

static void put_opnd(struct text *t, const struct x86_insn *i, unsigned n, uint64_t rip,
                     unsigned imms)
{
    const struct x86_opnd *op = &i->opnd[n];

    switch ((enum x86_opnd_kind)op->kind) {
    case X86_OPND_NONE:
        break;
    case X86_OPND_REG:
        put_reg(t, op);
        break;
    case X86_OPND_MEM:
        put_mem(t, i, op, n > 0);
        if (i->evex_b)
            put(t, "{bcast}");
        break;
    case X86_OPND_IMM:
        put(t, "%#llx",
            (unsigned long long)(imms == 0 ? i->imm & bytes_mask(i->osize > op->size ? i->osize
                                                                                     : op->size)
                                           : i->imm2));
        break;
    case X86_OPND_REL:
        put(t, "%#llx", (unsigned long long)((rip + i->len + i->imm) & bytes_mask(i->osize)));
        break;
    case X86_OPND_FAR:
        put(t, "%#llx:%#llx", (unsigned long long)i->imm2, (unsigned long long)i->imm);
        break;
    }
}

/* The mnemonic, with the condition where the operation stands for sixteen. */
static void put_name(struct text *t, const struct x86_insn *i)
{
    static const char cc[16][4] = {"o", "no", "b", "nb", "z", "nz", "be", "nbe",
                                   "s", "ns", "p", "np", "l", "nl", "le", "nle"};

    if ((i->prefixes & X86_PFX_LOCK) != 0)
        put(t, "lock ");
    if (i->rep != 0)
        put(t, "%s", i->rep == 0xf2 ? "repne " : "rep ");
    put(t, "%s", x86_op_name((enum x86_op)i->op));
    if (i->op == X86_JCC || i->op == X86_SETCC || i->op == X86_CMOVCC)
        put(t, "%s", cc[i->opcode & 15]);
}

int x86_format(const struct x86_insn *insn, uint64_t rip, char *buf, size_t size)
{
    struct text t = {.buf = buf, .size = size, .len = 0};
    unsigned imms = 0;

    if (size > 0)
        buf[0] = 0;
    put_name(&t, insn);
    for (unsigned n = 0; n < insn->opnd_count; n++) {
        put(&t, n == 0 ? " " : ", ");
        put_opnd(&t, insn, n, rip, imms);
        imms += insn->opnd[n].kind == X86_OPND_IMM;
        if (n == 0 && insn->evex_aaa != 0)
            put(&t, " {k%u}%s", insn->evex_aaa, insn->evex_z ? "{z}" : "");
    }
    return (int)t.len;
}
