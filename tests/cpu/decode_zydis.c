/*
 * Compares x86/decode.h with Zydis: over random byte strings in the three modes, and over the
 * executable sections of ELF files (64-bit and 32-bit) by a linear sweep. Validity, length,
 * mnemonic, operands, register masks and flags must agree but for the cases of known().
 *
 *   decode_zydis [--seed N] [--count N] [--max N] [--brief] [--bench] [FILE...]
 *
 * Exits with 1 on any difference and prints the first --max of them (20). --brief prints only the
 * first of each kind, --bench the speed of both over the files.
 *
 * The long run: find /usr/bin /usr/lib -type f -print0 | xargs -0 decode_zydis --count 100000000
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <Zydis/Zydis.h>

#include "base/bits.h"
#include "x86/decode.h"

#define DEFAULT_SEED 20240601u
#define BUF 16u
#define MAX_KINDS 4096u

struct checker {
    ZydisDecoder decoders[3];
    uint64_t cases, valid, differences, known;
    unsigned printed, max;
    bool brief;
    unsigned kind_count;
    char kinds[MAX_KINDS][64];
};

/* Both readings of one instruction. */
struct pair {
    const uint8_t *code;
    size_t avail;
    enum x86_mode mode;
    struct x86_insn ours;
    int result;
    bool zvalid;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand zop[ZYDIS_MAX_OPERAND_COUNT];
};

static void report(struct checker *c, const struct pair *p, const char *what, uint64_t ours,
                   uint64_t theirs)
{
    char text[128], key[64];
    const char *name =
        p->zvalid ? ZydisMnemonicGetString(p->z.mnemonic) : x86_op_name((enum x86_op)p->ours.op);

    c->differences++;
    if (c->brief) {
        snprintf(key, sizeof(key), "%s/%s/%d", name, what, p->ours.enc);
        for (unsigned i = 0; i < c->kind_count; i++)
            if (strcmp(c->kinds[i], key) == 0)
                return;
        if (c->kind_count < MAX_KINDS)
            snprintf(c->kinds[c->kind_count++], sizeof(c->kinds[0]), "%s", key);
    }
    if (c->printed >= c->max)
        return;
    c->printed++;
    printf("mode %d:", p->mode == X86_MODE_16 ? 16 : p->mode == X86_MODE_32 ? 32 : 64);
    for (size_t i = 0; i < p->avail && i < (p->zvalid ? p->z.length : 15u); i++)
        printf(" %02x", p->code[i]);
    if (p->result > 0)
        x86_format(&p->ours, 0, text, sizeof(text));
    else
        snprintf(text, sizeof(text), "(%d)", p->result);
    printf(": %s: ours %#" PRIx64 " zydis %#" PRIx64 "\n    ours:  %s\n    zydis: ", what, ours,
           theirs, text);
    if (p->zvalid) {
        ZydisFormatter f;

        ZydisFormatterInit(&f, ZYDIS_FORMATTER_STYLE_INTEL);
        ZydisFormatterFormatInstruction(&f, &p->z, p->zop, p->z.operand_count_visible, text,
                                        sizeof(text), 0, NULL);
        printf("%s [%s]\n", text, ZydisISASetGetString(p->z.meta.isa_set));
    } else {
        printf("(invalid)\n");
    }
}

/*
 * Where Zydis decodes what we leave out, and two cases in which the host CPU (a Zen 4) was asked
 * and sided with us.
 */
static bool known(const struct pair *p)
{
    const struct x86_insn *o = &p->ours;

    if (!p->zvalid)
        return false;
    /* F3 with REX.B before 90 exchanges; Zydis has PAUSE. */
    if (p->result > 0 && o->op == X86_XCHG && p->z.mnemonic == ZYDIS_MNEMONIC_PAUSE)
        return true;
    /* SIB without base under REX.B and 67: Zydis takes R13D for the base. */
    if (p->result > 0 && o->off_sib != 0 && o->asize == 4 && o->mode == X86_MODE_64 &&
        o->modrm < 0x40 && (p->code[o->off_sib] & 7) == 5 && (o->rex & 1) != 0)
        return true;
    switch (p->z.encoding) {
    case ZYDIS_INSTRUCTION_ENCODING_3DNOW:
    case ZYDIS_INSTRUCTION_ENCODING_XOP:
    case ZYDIS_INSTRUCTION_ENCODING_MVEX:
        return true;
    default:
        break;
    }
    switch (p->z.meta.isa_set) {
    case ZYDIS_ISA_SET_KNCE: /* Knights Corner's own VEX opcodes */
    case ZYDIS_ISA_SET_KNCJKBR:
    case ZYDIS_ISA_SET_KNCSTREAM:
    case ZYDIS_ISA_SET_KNCV:
    case ZYDIS_ISA_SET_KNC_MISC:
    case ZYDIS_ISA_SET_KNC_PF_HINT:
    case ZYDIS_ISA_SET_PADLOCK_ACE: /* VIA */
    case ZYDIS_ISA_SET_PADLOCK_PHE:
    case ZYDIS_ISA_SET_PADLOCK_PMM:
    case ZYDIS_ISA_SET_PADLOCK_RNG:
        return true;
    case ZYDIS_ISA_SET_MCOMMIT: /* AMD */
    case ZYDIS_ISA_SET_AMD3DNOW:
    case ZYDIS_ISA_SET_AVX512_FP16_128: /* no EVEX maps 5 and 6, so none of it */
    case ZYDIS_ISA_SET_AVX512_FP16_256:
    case ZYDIS_ISA_SET_AVX512_FP16_512:
    case ZYDIS_ISA_SET_AVX512_FP16_SCALAR:
    case ZYDIS_ISA_SET_AVX512_FP16_128N:
        return true;
    default:
        return false;
    }
}

/* Named by a family's name, or not at all: whoever meets one of these raises #UD. */
static bool is_family(const struct pair *p)
{
    switch (p->ours.op) {
    case X86_VMX:
    case X86_SVM:
    case X86_SGX:
    case X86_CET:
    case X86_WAITPKG:
    case X86_ENQCMD:
    case X86_PCONFIG:
    case X86_OTHER:
        return true;
    default:
        return false;
    }
}

/* Hints: Zydis has them read their memory, for us they touch nothing. */
static bool is_hint(const struct pair *p)
{
    switch (p->ours.op) {
    case X86_NOP:
    case X86_PREFETCH:
    case X86_CLDEMOTE:
    case X86_CLFLUSH:
    case X86_CLFLUSHOPT:
    case X86_CLWB:
    case X86_INVLPG:
        return true;
    default:
        return false;
    }
}

static bool is_string(const struct pair *p)
{
    switch (p->ours.op) {
    case X86_MOVS:
    case X86_CMPS:
    case X86_STOS:
    case X86_LODS:
    case X86_SCAS:
    case X86_INS:
    case X86_OUTS:
        return true;
    default:
        return false;
    }
}

static bool same_name(const struct pair *p)
{
    static const char cc[16][4] = {"o", "no", "b", "nb", "z", "nz", "be", "nbe",
                                   "s", "ns", "p", "np", "l", "nl", "le", "nle"};
    const char *theirs = ZydisMnemonicGetString(p->z.mnemonic);
    const char *name = x86_op_name((enum x86_op)p->ours.op);
    char ours[64];

    snprintf(ours, sizeof(ours), "%s", name);
    switch (p->ours.op) {
    case X86_JCC:
    case X86_SETCC:
    case X86_CMOVCC:
        snprintf(ours, sizeof(ours), "%s%s", name, cc[p->ours.opcode & 15]);
        break;
    case X86_CALLF:
    case X86_JMPF:
    case X86_RETF:
        ours[strcspn(ours, p->ours.op == X86_RETF ? "f" : " ")] = 0;
        break;
    case X86_CBW:
        return strcmp(theirs, "cbw") == 0 || strcmp(theirs, "cwde") == 0 ||
               strcmp(theirs, "cdqe") == 0;
    case X86_CWD:
        return strcmp(theirs, "cwd") == 0 || strcmp(theirs, "cdq") == 0 ||
               strcmp(theirs, "cqo") == 0;
    case X86_JCXZ:
        return strcmp(theirs, "jcxz") == 0 || strcmp(theirs, "jecxz") == 0 ||
               strcmp(theirs, "jrcxz") == 0;
    case X86_MOVS:
    case X86_CMPS:
    case X86_STOS:
    case X86_LODS:
    case X86_SCAS:
    case X86_INS:
    case X86_OUTS:
    case X86_PUSHA:
    case X86_POPA:
    case X86_PUSHF:
    case X86_POPF:
    case X86_IRET:
    case X86_PREFETCH:
    case X86_FXSAVE:
    case X86_FXRSTOR:
    case X86_XSAVE:
    case X86_XSAVEC:
    case X86_XSAVEOPT:
    case X86_XSAVES:
    case X86_XRSTOR:
    case X86_XRSTORS:
    case X86_ENQCMD:
        return strncmp(theirs, name, strlen(name)) == 0;
    case X86_WBNOINVD: /* Zydis: WBINVD, with F3 ignored */
        return strcmp(theirs, "wbinvd") == 0;
    case X86_FENI: /* the 8087's and 287's: Zydis spells out that they do nothing today */
    case X86_FDISI:
        return strncmp(theirs, name, strlen(name)) == 0;
    case X86_FSETPM:
        return strncmp(theirs, "fsetpm", 6) == 0;
    default:
        break;
    }
    return is_family(p) || strcmp(ours, theirs) == 0;
}

/* A Zydis register as class, number and size; -1 for one that has no class of ours. */
static int reg_class(const struct pair *p, ZydisRegister reg, unsigned *number, unsigned *size)
{
    *number = (unsigned)(unsigned char)ZydisRegisterGetId(reg);
    *size = ZydisRegisterGetWidth(p->z.machine_mode, reg) / 8u;
    switch (ZydisRegisterGetClass(reg)) {
    case ZYDIS_REGCLASS_GPR8:
        if (reg >= ZYDIS_REGISTER_AH && reg <= ZYDIS_REGISTER_BH) {
            *number = reg - ZYDIS_REGISTER_AH;
            return X86_RC_GPRH;
        }
        if (reg >= ZYDIS_REGISTER_SPL)
            *number = reg - ZYDIS_REGISTER_SPL + 4u;
        else
            *number = reg - ZYDIS_REGISTER_AL;
        return X86_RC_GPR;
    case ZYDIS_REGCLASS_GPR16:
    case ZYDIS_REGCLASS_GPR32:
    case ZYDIS_REGCLASS_GPR64:
        return X86_RC_GPR;
    case ZYDIS_REGCLASS_X87:
        *size = 10;
        return X86_RC_ST;
    case ZYDIS_REGCLASS_MMX:
        return X86_RC_MMX;
    case ZYDIS_REGCLASS_XMM:
    case ZYDIS_REGCLASS_YMM:
    case ZYDIS_REGCLASS_ZMM:
        return X86_RC_VEC;
    case ZYDIS_REGCLASS_TMM:
        *size = 0;
        return X86_RC_OTHER;
    case ZYDIS_REGCLASS_SEGMENT:
        *size = 2;
        return X86_RC_SEG;
    case ZYDIS_REGCLASS_CONTROL:
        return X86_RC_CR;
    case ZYDIS_REGCLASS_DEBUG:
        return X86_RC_DR;
    case ZYDIS_REGCLASS_MASK:
        *size = 8;
        return X86_RC_K;
    default:
        return -1;
    }
}

static unsigned plain_reg(const struct pair *p, ZydisRegister reg)
{
    unsigned number, size;

    if (reg == ZYDIS_REGISTER_NONE)
        return X86_REG_NONE;
    if (reg == ZYDIS_REGISTER_RIP || reg == ZYDIS_REGISTER_EIP)
        return X86_REG_RIP;
    reg_class(p, reg, &number, &size);
    return number;
}

static void check_mem(struct checker *c, const struct pair *p, const struct x86_opnd *op,
                      const ZydisDecodedOperand *z)
{
    const struct x86_insn *o = &p->ours;
    uint64_t mask = bytes_mask(o->asize);
    unsigned seg = (unsigned)(unsigned char)ZydisRegisterGetId(z->mem.segment);
    unsigned scale = z->mem.index == ZYDIS_REGISTER_NONE || z->mem.scale == 0 ? 1 : z->mem.scale;

    if (o->base != plain_reg(p, z->mem.base))
        report(c, p, "base", o->base, plain_reg(p, z->mem.base));
    if (o->index != plain_reg(p, z->mem.index))
        report(c, p, "index", o->index, plain_reg(p, z->mem.index));
    if (o->scale != scale)
        report(c, p, "scale", o->scale, scale);
    if (((uint64_t)o->disp & mask) != ((uint64_t)z->mem.disp.value & mask))
        report(c, p, "disp", (uint64_t)o->disp, (uint64_t)z->mem.disp.value);
    if (z->mem.type != ZYDIS_MEMOP_TYPE_AGEN && o->seg != seg)
        report(c, p, "seg", o->seg, seg);
    if (o->vsib != (z->mem.type == ZYDIS_MEMOP_TYPE_VSIB))
        report(c, p, "vsib", o->vsib, z->mem.type);
    /* The size of an AGEN operand means nothing, and Zydis has sizes for the state images. */
    if (z->mem.type == ZYDIS_MEMOP_TYPE_AGEN || op->size == 0 || is_hint(p))
        return;
    /* SDM: MOVSXD r16, r/m16; AMD's manual has r/m32, as Zydis. */
    if (o->op == X86_MOVSXD && o->osize == 2 && op->size == 2)
        return;
    if (o->vsib ? z->element_size != op->size * 8 : z->size != op->size * 8)
        report(c, p, "memory size", op->size * 8u, o->vsib ? z->element_size : z->size);
}

static unsigned access_of(const ZydisDecodedOperand *z)
{
    return ((z->actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0 ? X86_ACC_R : 0) |
           ((z->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0 ? X86_ACC_W : 0);
}

static void check_opnd(struct checker *c, const struct pair *p, const struct x86_opnd *op,
                       const ZydisDecodedOperand *z, unsigned imms)
{
    const struct x86_insn *o = &p->ours;
    unsigned number, size, access = access_of(z);
    int rclass;

    switch (z->type) {
    case ZYDIS_OPERAND_TYPE_REGISTER:
        rclass = reg_class(p, z->reg.value, &number, &size);
        if (op->kind != X86_OPND_REG || op->rclass != rclass)
            report(c, p, "operand kind", op->kind * 16u + op->rclass, 16u + (unsigned)rclass);
        else if (op->reg != number)
            report(c, p, "register", op->reg, number);
        else if (op->size != size)
            report(c, p, "register size", op->size, size);
        break;
    case ZYDIS_OPERAND_TYPE_MEMORY:
        if (op->kind != X86_OPND_MEM)
            report(c, p, "operand kind", op->kind, X86_OPND_MEM);
        else
            check_mem(c, p, op, z);
        if (z->mem.type == ZYDIS_MEMOP_TYPE_AGEN || z->mem.type == ZYDIS_MEMOP_TYPE_MIB)
            access = 0;
        break;
    case ZYDIS_OPERAND_TYPE_POINTER:
        if (op->kind != X86_OPND_FAR || o->imm != z->ptr.offset || o->imm2 != z->ptr.segment)
            report(c, p, "far pointer", o->imm, z->ptr.offset);
        access = op->access;
        break;
    case ZYDIS_OPERAND_TYPE_IMMEDIATE: {
        uint64_t ours = imms == 0 ? o->imm : o->imm2;
        uint64_t mask = bytes_mask(z->imm.is_signed ? o->osize : op->size);

        if (op->kind != (z->imm.is_relative ? X86_OPND_REL : X86_OPND_IMM))
            report(c, p, "operand kind", op->kind, X86_OPND_IMM);
        else if (op->size == 1 && !z->imm.is_relative && (uint8_t)ours == (uint8_t)z->imm.value.u)
            break;
        else if (z->imm.is_relative ? ours != z->imm.value.u
                                    : (ours & mask) != (z->imm.value.u & mask))
            report(c, p, "immediate", ours, z->imm.value.u);
        access = op->access;
        break;
    }
    default:
        break;
    }
    if ((z->actions & ZYDIS_OPERAND_ACTION_CONDWRITE) != 0)
        access |= X86_ACC_R & op->access; /* what stays was read */
    switch (o->op) {
    case X86_BSF: /* a zero source leaves the destination */
    case X86_BSR:
    case X86_EXTRQ: /* AMD: a field of the first operand, the rest of it stays */
    case X86_INSERTQ:
        access |= op->access & X86_ACC_R;
        break;
    default:
        break;
    }
    if (access != op->access && !is_hint(p))
        report(c, p, "access", op->access, access);
}

static void check_operands(struct checker *c, const struct pair *p)
{
    const struct x86_insn *o = &p->ours;
    unsigned n = 0, imms = 0;

    if (is_string(p) || is_family(p) || (o->op == X86_NOP && o->modrm >= 0xc0))
        return;
    for (unsigned i = 0; i < p->z.operand_count_visible; i++) {
        if (p->zop[i].encoding == ZYDIS_OPERAND_ENCODING_MASK)
            continue; /* evex_aaa */
        if (n == o->opnd_count) {
            report(c, p, "operand missing", o->opnd_count, p->z.operand_count_visible);
            return;
        }
        check_opnd(c, p, &o->opnd[n++], &p->zop[i], imms);
        imms += p->zop[i].type == ZYDIS_OPERAND_TYPE_IMMEDIATE;
    }
    if (n != o->opnd_count && o->op != X86_NOP)
        report(c, p, "operand too many", o->opnd_count, n);
}

/* General registers: what Zydis lists, and what narrow and conditional writes leave standing. */
static void check_gprs(struct checker *c, const struct pair *p)
{
    const struct x86_insn *o = &p->ours;
    uint32_t rd = 0, wr = 0;

    if (is_family(p) || is_hint(p) || (o->op == X86_SYSCALL && o->mode != X86_MODE_64))
        return;
    for (unsigned i = 0; i < p->z.operand_count; i++) {
        const ZydisDecodedOperand *z = &p->zop[i];
        unsigned number, size;

        if (z->type == ZYDIS_OPERAND_TYPE_MEMORY) {
            unsigned base = plain_reg(p, z->mem.base), index = plain_reg(p, z->mem.index);

            rd |= base < 16 ? 1u << base : 0;
            rd |= index < 16 && z->mem.type != ZYDIS_MEMOP_TYPE_VSIB ? 1u << index : 0;
        } else if (z->type == ZYDIS_OPERAND_TYPE_REGISTER) {
            int rclass = reg_class(p, z->reg.value, &number, &size);

            if (rclass != X86_RC_GPR && rclass != X86_RC_GPRH)
                continue;
            if ((z->actions & ZYDIS_OPERAND_ACTION_MASK_READ) != 0)
                rd |= 1u << number;
            if ((z->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE) != 0) {
                wr |= 1u << number;
                if (size < 4 || (z->actions & ZYDIS_OPERAND_ACTION_CONDWRITE) != 0)
                    rd |= 1u << number;
            }
        }
    }
    if (rd != (o->gpr_read & (rd | ~o->gpr_written)))
        report(c, p, "gpr read", o->gpr_read, rd);
    if (is_string(p)) /* Zydis leaves out some of the index registers */
        wr |= o->gpr_written & (1u << 6 | 1u << 7);
    if (wr != o->gpr_written)
        report(c, p, "gpr written", o->gpr_written, wr);
}

static void check_flags(struct checker *c, const struct pair *p)
{
    static const ZydisAccessedFlags none;
    const ZydisAccessedFlags *f = p->z.cpu_flags != NULL ? p->z.cpu_flags : &none;
    const uint32_t iopl_high = 1u << 13; /* Zydis names only the lower bit */
    const struct x86_insn *o = &p->ours;
    uint32_t written = (f->modified | f->set_0 | f->set_1) & ~f->undefined;
    uint32_t undefined = f->undefined, tested = f->tested;
    uint32_t of = ZYDIS_CPUFLAG_OF, af = ZYDIS_CPUFLAG_AF;

    if (is_family(p) || o->op == X86_VMCALL || o->op == X86_VMMCALL)
        return;
    switch (o->op) {
    case X86_ROL:
    case X86_ROR:
    case X86_RCL:
    case X86_RCR:
    case X86_SHL:
    case X86_SHR:
    case X86_SAR:
    case X86_SHLD:
    case X86_SHRD:
        if (o->opcode == 0xd0 || o->opcode == 0xd1) { /* SDM: OF is defined for a count of 1 */
            written |= of;
            undefined &= ~of;
        } else { /* a count of zero passes flags through: our readers must know */
            tested |= o->flags_read & (written | undefined);
        }
        break;
    case X86_SBB: /* SDM: AF is defined */
        written |= af;
        undefined &= ~af;
        break;
    case X86_BEXTR: /* SDM: CF and OF are cleared */
        written |= ZYDIS_CPUFLAG_CF | of;
        undefined &= ~(ZYDIS_CPUFLAG_CF | of);
        break;
    case X86_VPTEST: /* SDM: the others are cleared, as Zydis has it for PTEST */
    case X86_VTESTPS:
    case X86_VTESTPD:
        written |= o->flags_written;
        break;
    case X86_MOVDR:
    case X86_MOVCR: /* SDM: undefined in both directions */
        undefined |= o->flags_undefined;
        break;
    case X86_SCAS: /* as for shifts, with REP */
    case X86_CMPS:
        tested |= o->flags_read & written;
        break;
    case X86_SYSCALL: /* SDM: R11 takes them */
        tested |= o->flags_read & ~iopl_high;
        break;
    default:
        break;
    }

    if ((o->flags_written & ~iopl_high) != written)
        report(c, p, "flags written", o->flags_written, written);
    if (o->flags_undefined != undefined)
        report(c, p, "flags undefined", o->flags_undefined, undefined);
    if ((o->flags_read & ~iopl_high) != tested)
        report(c, p, "flags read", o->flags_read, tested);
}

/* The CPUID feature by Zydis' instruction set; ISA sets that mix features are not here. */
static void check_feature(struct checker *c, const struct pair *p)
{
    static const uint8_t features[ZYDIS_ISA_SET_MAX_VALUE + 1] = {
        [ZYDIS_ISA_SET_ADOX_ADCX] = X86_FEAT_ADX,
        [ZYDIS_ISA_SET_AES] = X86_FEAT_AES,
        [ZYDIS_ISA_SET_AVXAES] = X86_FEAT_AES,
        [ZYDIS_ISA_SET_AVX2] = X86_FEAT_AVX2,
        [ZYDIS_ISA_SET_AVX2GATHER] = X86_FEAT_AVX2,
        [ZYDIS_ISA_SET_AVX_VNNI] = X86_FEAT_AVXVNNI,
        [ZYDIS_ISA_SET_BMI1] = X86_FEAT_BMI1,
        [ZYDIS_ISA_SET_BMI2] = X86_FEAT_BMI2,
        [ZYDIS_ISA_SET_CLFLUSHOPT] = X86_FEAT_CLFLUSHOPT,
        [ZYDIS_ISA_SET_CLWB] = X86_FEAT_CLWB,
        [ZYDIS_ISA_SET_CMOV] = X86_FEAT_CMOV,
        [ZYDIS_ISA_SET_CMPXCHG16B] = X86_FEAT_CX16,
        [ZYDIS_ISA_SET_F16C] = X86_FEAT_F16C,
        [ZYDIS_ISA_SET_FCMOV] = X86_FEAT_X87,
        [ZYDIS_ISA_SET_FMA] = X86_FEAT_FMA,
        [ZYDIS_ISA_SET_FXSAVE] = X86_FEAT_FXSR,
        [ZYDIS_ISA_SET_FXSAVE64] = X86_FEAT_FXSR,
        [ZYDIS_ISA_SET_GFNI] = X86_FEAT_GFNI,
        [ZYDIS_ISA_SET_AVX_GFNI] = X86_FEAT_GFNI,
        [ZYDIS_ISA_SET_INVPCID] = X86_FEAT_INVPCID,
        [ZYDIS_ISA_SET_LZCNT] = X86_FEAT_LZCNT,
        [ZYDIS_ISA_SET_MONITOR] = X86_FEAT_MONITOR,
        [ZYDIS_ISA_SET_MOVBE] = X86_FEAT_MOVBE,
        [ZYDIS_ISA_SET_PCLMULQDQ] = X86_FEAT_PCLMUL,
        [ZYDIS_ISA_SET_PKU] = X86_FEAT_PKU,
        [ZYDIS_ISA_SET_POPCNT] = X86_FEAT_POPCNT,
        [ZYDIS_ISA_SET_RDPID] = X86_FEAT_RDPID,
        [ZYDIS_ISA_SET_RDRAND] = X86_FEAT_RDRAND,
        [ZYDIS_ISA_SET_RDSEED] = X86_FEAT_RDSEED,
        [ZYDIS_ISA_SET_RDTSCP] = X86_FEAT_RDTSCP,
        [ZYDIS_ISA_SET_RDWRFSGS] = X86_FEAT_FSGSBASE,
        [ZYDIS_ISA_SET_RTM] = X86_FEAT_TSX,
        [ZYDIS_ISA_SET_SHA] = X86_FEAT_SHA,
        [ZYDIS_ISA_SET_SMAP] = X86_FEAT_SMAP,
        [ZYDIS_ISA_SET_SSE] = X86_FEAT_SSE,
        [ZYDIS_ISA_SET_SSEMXCSR] = X86_FEAT_SSE,
        [ZYDIS_ISA_SET_SSE2] = X86_FEAT_SSE2,
        [ZYDIS_ISA_SET_SSE2MMX] = X86_FEAT_SSE2,
        [ZYDIS_ISA_SET_SSE3] = X86_FEAT_SSE3,
        [ZYDIS_ISA_SET_SSE3X87] = X86_FEAT_SSE3,
        [ZYDIS_ISA_SET_SSE4] = X86_FEAT_SSE41,
        [ZYDIS_ISA_SET_SSE42] = X86_FEAT_SSE42,
        [ZYDIS_ISA_SET_SSE4A] = X86_FEAT_SSE4A,
        [ZYDIS_ISA_SET_SSSE3] = X86_FEAT_SSSE3,
        [ZYDIS_ISA_SET_SSSE3MMX] = X86_FEAT_SSSE3,
        [ZYDIS_ISA_SET_VAES] = X86_FEAT_VAES,
        [ZYDIS_ISA_SET_VPCLMULQDQ] = X86_FEAT_VPCLMUL,
        [ZYDIS_ISA_SET_X87] = X86_FEAT_X87,
        [ZYDIS_ISA_SET_XSAVE] = X86_FEAT_XSAVE,
        [ZYDIS_ISA_SET_XSAVEC] = X86_FEAT_XSAVEC,
        [ZYDIS_ISA_SET_XSAVEOPT] = X86_FEAT_XSAVEOPT,
        [ZYDIS_ISA_SET_XSAVES] = X86_FEAT_XSAVES,
        [ZYDIS_ISA_SET_AVX512F_128] = X86_FEAT_AVX512,
        [ZYDIS_ISA_SET_AVX512F_512] = X86_FEAT_AVX512,
        [ZYDIS_ISA_SET_AVX512F_KOP] = X86_FEAT_AVX512,
        [ZYDIS_ISA_SET_FMA4] = X86_FEAT_HIDDEN,
        [ZYDIS_ISA_SET_SGX] = X86_FEAT_HIDDEN,
        [ZYDIS_ISA_SET_CET] = X86_FEAT_HIDDEN,
        [ZYDIS_ISA_SET_WAITPKG] = X86_FEAT_HIDDEN,
        [ZYDIS_ISA_SET_MONITORX] = X86_FEAT_HIDDEN,
    };
    uint8_t expected = features[p->z.meta.isa_set];

    if (expected != X86_FEAT_BASE && p->ours.feature != expected)
        report(c, p, "feature", p->ours.feature, expected);
}

/* Zydis counts a byte operation as operand size 8, and ports by the data's size. */
static bool osize_comparable(const struct pair *p)
{
    switch (p->ours.op) {
    case X86_IN:
    case X86_OUT:
    case X86_INS:
    case X86_OUTS:
    case X86_SYSCALL:
    case X86_CMPXCHG8B: /* fixed, whatever 66 says */
        return false;
    default:
        return p->z.operand_width != 8 && p->ours.feature == X86_FEAT_BASE && !is_hint(p);
    }
}

static void check_sizes(struct checker *c, const struct pair *p)
{
    if (is_family(p))
        return;
    if (p->ours.asize * 8 != p->z.address_width)
        report(c, p, "asize", p->ours.asize * 8u, p->z.address_width);
    if (osize_comparable(p) && p->ours.osize * 8 != p->z.operand_width)
        report(c, p, "osize", p->ours.osize * 8u, p->z.operand_width);
    if (p->ours.off_disp != p->z.raw.disp.offset || p->ours.disp_size * 8 != p->z.raw.disp.size)
        report(c, p, "disp offset", p->ours.off_disp, p->z.raw.disp.offset);
    if (p->ours.off_imm != p->z.raw.imm[0].offset || p->ours.imm_size * 8 != p->z.raw.imm[0].size)
        if (p->z.raw.imm[0].size != 0 || p->ours.off_imm != 0)
            report(c, p, "imm offset", p->ours.off_imm, p->z.raw.imm[0].offset);
    if (p->ours.has_modrm && p->ours.off_modrm != p->z.raw.modrm.offset)
        report(c, p, "modrm offset", p->ours.off_modrm, p->z.raw.modrm.offset);
}

/* Every proper prefix of an instruction must ask for more. */
static void check_truncation(struct checker *c, const struct pair *p)
{
    struct x86_insn cut;

    for (int n = 0; n < p->result; n++)
        if (x86_decode(p->code, (size_t)n, p->mode, &cut) != X86_DECODE_MORE) {
            report(c, p, "truncation", (uint64_t)n, (uint64_t)p->result);
            return;
        }
}

/* Returns how far a sweep goes on: Zydis' length, or 1. */
static unsigned check(struct checker *c, const uint8_t *code, size_t avail, enum x86_mode mode)
{
    struct pair p = {.code = code, .avail = avail, .mode = mode};
    unsigned skip;

    c->cases++;
    p.zvalid = ZYAN_SUCCESS(ZydisDecoderDecodeFull(&c->decoders[mode], code, avail, &p.z, p.zop));
    p.result = x86_decode(code, avail, mode, &p.ours);
    skip = p.zvalid ? p.z.length : 1;
    c->valid += p.zvalid;
    if (known(&p)) {
        c->known++;
        return skip;
    }
    if ((p.result > 0) != p.zvalid) {
        report(c, &p, "validity", p.result > 0, p.zvalid);
        return skip;
    }
    if (!p.zvalid)
        return skip;
    if (p.result != p.z.length || p.ours.len != p.z.length) {
        report(c, &p, "length", (uint64_t)p.result, p.z.length);
        return skip;
    }
    if (!same_name(&p)) {
        report(c, &p, "mnemonic", 0, 0);
        return skip;
    }
    check_operands(c, &p);
    check_gprs(c, &p);
    check_flags(c, &p);
    check_sizes(c, &p);
    check_feature(c, &p);
    if ((c->cases & 15) == 0)
        check_truncation(c, &p);
    return skip;
}

static uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    *state = x;
    return x * 0x2545f4914f6cdd1dull;
}

/* Random bytes after a beginning that reaches every map. */
static void random_bytes(uint64_t *state, uint8_t *buf)
{
    static const uint8_t legacy[] = {0x66, 0x66, 0xf3, 0xf2, 0xf3, 0xf2, 0x67,
                                     0xf0, 0x2e, 0x36, 0x3e, 0x26, 0x64, 0x65};
    static const uint8_t few[8] = {0, 0, 0, 0, 1, 1, 1, 2};
    uint64_t r = next_random(state);
    unsigned n = 0, kind = r & 31;

    for (unsigned i = 0; i < BUF; i += 8) {
        uint64_t v = next_random(state);

        memcpy(buf + i, &v, 8);
    }
    r >>= 5;
    if (kind != 31) /* kind 31: all bytes random */
        for (unsigned count = few[r & 7]; count > 0; count--, r >>= 4)
            buf[n++] = legacy[(r >> 3 & 15) % sizeof(legacy)];
    r = next_random(state);
    if (kind < 20 && (r & 1) != 0)
        buf[n++] = 0x40 | (r >> 8 & 15);
    if (kind >= 8 && kind < 20)
        buf[n++] = 0x0f;
    if (kind >= 14 && kind < 20)
        buf[n++] = kind < 17 ? 0x38 : 0x3a;
    if (kind >= 20 && kind < 26 && (r & 15) != 0)
        n = 0; /* VEX and EVEX hardly ever stand a prefix */
    if (kind >= 20 && kind < 22)
        buf[n] = 0xc5;
    if (kind >= 22 && kind < 25) {
        buf[n++] = 0xc4;
        buf[n] = (uint8_t)((buf[n] & 0xe0) | (1 + (r >> 4) % 3));
        if ((r & 0x1000) != 0)
            buf[n + 1] |= 0x78;
    }
    if (kind >= 25 && kind < 31) {
        buf[n++] = 0x62;
        buf[n] = (uint8_t)((buf[n] & 0xf0) | (1 + (r >> 4) % 3));
        buf[n + 1] |= 4;
        if ((r & 0x1000) != 0) {
            buf[n + 1] |= 0x78;
            buf[n + 2] |= 8;
        }
        if ((r & 0x6000) != 0)
            buf[n + 2] &= 0x7f;
        if ((r & 0x18000) != 0)
            buf[n + 2] &= 0xef;
    }
}

static void check_random(struct checker *c, uint64_t seed, uint64_t count)
{
    uint64_t state = seed * 0x9e3779b97f4a7c15ull | 1;
    uint8_t buf[BUF];

    for (uint64_t i = 0; i < count; i++) {
        random_bytes(&state, buf);
        check(c, buf, sizeof(buf),
              (enum x86_mode)(i % 3 == 0   ? X86_MODE_32
                              : i % 7 == 0 ? X86_MODE_16
                                           : X86_MODE_64));
    }
}

static double seconds(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Both decoders over the same instructions, several rounds. */
static void bench(struct checker *c, const uint8_t *code, size_t size, enum x86_mode mode)
{
    struct x86_insn insn;
    ZydisDecodedInstruction z;
    ZydisDecodedOperand zop[ZYDIS_MAX_OPERAND_COUNT];
    const unsigned rounds = 5;
    double start, ours, theirs;
    uint64_t n = 0;

    start = seconds();
    for (unsigned r = 0; r < rounds; r++)
        for (size_t at = 0; at < size; n++) {
            int len = x86_decode(code + at, size - at, mode, &insn);

            at += len > 0 ? (size_t)len : 1;
        }
    ours = (seconds() - start) * 1e9 / (double)(n != 0 ? n : 1);
    n = 0;
    start = seconds();
    for (unsigned r = 0; r < rounds; r++)
        for (size_t at = 0; at < size; n++)
            at += ZYAN_SUCCESS(
                      ZydisDecoderDecodeFull(&c->decoders[mode], code + at, size - at, &z, zop))
                      ? z.length
                      : 1;
    theirs = (seconds() - start) * 1e9 / (double)(n != 0 ? n : 1);
    printf("%" PRIu64 " instructions: %.1f ns each, Zydis %.1f ns\n", n / rounds, ours, theirs);
}

static void sweep(struct checker *c, const uint8_t *code, size_t size, enum x86_mode mode,
                  bool measure)
{
    if (measure) {
        if (size > 4096)
            bench(c, code, size, mode);
        return;
    }
    for (size_t at = 0; at < size;)
        at += check(c, code + at, size - at, mode);
}

static bool within(size_t size, uint64_t offset, uint64_t len)
{
    return offset <= size && len <= size - offset;
}

/* The executable sections of an x86 ELF file; others are passed over in silence. */
static void check_elf(struct checker *c, const uint8_t *data, size_t size, bool measure)
{
    if (size < sizeof(Elf64_Ehdr) || memcmp(data, ELFMAG, SELFMAG) != 0)
        return;
    if (data[EI_CLASS] == ELFCLASS64) {
        Elf64_Ehdr eh;
        Elf64_Shdr sh;

        memcpy(&eh, data, sizeof(eh));
        for (unsigned i = 0; eh.e_machine == EM_X86_64 && i < eh.e_shnum; i++) {
            if (!within(size, eh.e_shoff + i * sizeof(sh), sizeof(sh)))
                return;
            memcpy(&sh, data + eh.e_shoff + i * sizeof(sh), sizeof(sh));
            if (sh.sh_type == SHT_PROGBITS && (sh.sh_flags & SHF_EXECINSTR) != 0 &&
                within(size, sh.sh_offset, sh.sh_size))
                sweep(c, data + sh.sh_offset, sh.sh_size, X86_MODE_64, measure);
        }
    } else {
        Elf32_Ehdr eh;
        Elf32_Shdr sh;

        memcpy(&eh, data, sizeof(eh));
        for (unsigned i = 0; eh.e_machine == EM_386 && i < eh.e_shnum; i++) {
            if (!within(size, eh.e_shoff + i * sizeof(sh), sizeof(sh)))
                return;
            memcpy(&sh, data + eh.e_shoff + i * sizeof(sh), sizeof(sh));
            if (sh.sh_type == SHT_PROGBITS && (sh.sh_flags & SHF_EXECINSTR) != 0 &&
                within(size, sh.sh_offset, sh.sh_size))
                sweep(c, data + sh.sh_offset, sh.sh_size, X86_MODE_32, measure);
        }
    }
}

static int check_file(struct checker *c, const char *path, bool measure)
{
    struct stat st;
    void *data;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || fstat(fd, &st) != 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        if (fd >= 0)
            close(fd);
        return -1;
    }
    if (!S_ISREG(st.st_mode) || st.st_size == 0) {
        close(fd);
        return 0;
    }
    data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    if (data == MAP_FAILED)
        return -1;
    check_elf(c, data, (size_t)st.st_size, measure);
    munmap(data, (size_t)st.st_size);
    return 0;
}

static void init(struct checker *c)
{
    static const struct {
        ZydisMachineMode mode;
        ZydisStackWidth width;
    } modes[3] = {
        [X86_MODE_16] = {ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16},
        [X86_MODE_32] = {ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32},
        [X86_MODE_64] = {ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64},
    };

    for (unsigned i = 0; i < 3; i++) {
        ZydisDecoderInit(&c->decoders[i], modes[i].mode, modes[i].width);
        /* No guest sees MPX or CET: their encodings are the hint NOPs they were made from. */
        ZydisDecoderEnableMode(&c->decoders[i], ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
        ZydisDecoderEnableMode(&c->decoders[i], ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
    }
}

int main(int argc, char **argv)
{
    static struct checker c = {.max = 20};
    uint64_t seed = DEFAULT_SEED, count = 0;
    bool measure = false;
    int status = 0;

    init(&c);
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
            seed = strtoull(argv[++i], NULL, 0);
        else if (strcmp(argv[i], "--count") == 0 && i + 1 < argc)
            count = strtoull(argv[++i], NULL, 0);
        else if (strcmp(argv[i], "--max") == 0 && i + 1 < argc)
            c.max = (unsigned)strtoul(argv[++i], NULL, 0);
        else if (strcmp(argv[i], "--brief") == 0)
            c.brief = true;
        else if (strcmp(argv[i], "--bench") == 0)
            measure = true;
        else if (argv[i][0] == '-')
            return fprintf(stderr, "unknown option %s\n", argv[i]), 2;
        else if (check_file(&c, argv[i], measure) != 0)
            status = 1;
    }
    if (measure)
        return status;
    if (count != 0) {
        printf("seed %" PRIu64 "\n", seed);
        check_random(&c, seed, count);
    }
    printf("%" PRIu64 " cases, %" PRIu64 " valid, %" PRIu64 " left out, %" PRIu64 " differences\n",
           c.cases, c.valid, c.known, c.differences);
    return c.differences != 0 ? 1 : status;
}
