/*
 * Which instructions are compared, in which class: those whose outcome a program may rely on, on
 * the processors of both vendors. Vendor rules stand at the instruction they concern.
 */
#include <cpuid.h>

#include "oracle.h"

#include "engine/soft/native.h"

const char *const oracle_class_name[OC_COUNT] = {
    [OC_INT] = "int",       [OC_BIT] = "bit",         [OC_MULDIV] = "muldiv",
    [OC_STRING] = "string", [OC_STACK] = "stack",     [OC_BRANCH] = "branch",
    [OC_ATOMIC] = "atomic", [OC_BMI] = "bmi",         [OC_X87] = "x87",
    [OC_MMX] = "mmx",       [OC_SSE] = "sse",         [OC_AVX] = "avx",
    [OC_SYSTEM] = "system", [OC_STATE] = "state",     [OC_OLD] = "old",
    [OC_OWN] = "own",       [OC_PROGRAM] = "program",
};

void oracle_features(bool f[X86_FEAT_HIDDEN + 1])
{
    uint32_t a = 0, b = 0, c = 0, d = 0, b7 = 0, c7 = 0, d7 = 0, cx = 0, dx = 0;

    native_host_features(f);
    __get_cpuid(1, &a, &b, &c, &d);
    __get_cpuid_count(7, 0, &a, &b7, &c7, &d7);
    __get_cpuid(0x80000001, &a, &b, &cx, &dx);
    f[X86_FEAT_POPCNT] = (c >> 23 & 1) != 0;
    f[X86_FEAT_MOVBE] = (c >> 22 & 1) != 0;
    f[X86_FEAT_CX16] = (c >> 13 & 1) != 0;
    f[X86_FEAT_LZCNT] = (cx >> 5 & 1) != 0;
    f[X86_FEAT_BMI1] = (b7 >> 3 & 1) != 0;
    f[X86_FEAT_BMI2] = (b7 >> 8 & 1) != 0;
    f[X86_FEAT_ADX] = (b7 >> 19 & 1) != 0;
    f[X86_FEAT_SMAP] = (b7 >> 20 & 1) != 0;
    f[X86_FEAT_CLFLUSHOPT] = (b7 >> 23 & 1) != 0;
    f[X86_FEAT_CLWB] = (b7 >> 24 & 1) != 0;
    f[X86_FEAT_RDRAND] = (c >> 30 & 1) != 0;
    f[X86_FEAT_RDSEED] = (b7 >> 18 & 1) != 0;
    f[X86_FEAT_RDPID] = (c7 >> 22 & 1) != 0;
    f[X86_FEAT_RDTSCP] = (dx >> 27 & 1) != 0;
    f[X86_FEAT_FSGSBASE] = oracle_host_fsgsbase();
    f[X86_FEAT_XSAVE] = (c >> 27 & 1) != 0;
    if (f[X86_FEAT_XSAVE]) {
        __get_cpuid_count(0xd, 1, &a, &b, &c, &d);
        f[X86_FEAT_XSAVEOPT] = (a & 1) != 0;
        f[X86_FEAT_XSAVEC] = (a >> 1 & 1) != 0;
        f[X86_FEAT_XSAVES] = (a >> 3 & 1) != 0;
    }
}

/* ---- which instructions ---- */

static bool vector_operand(const struct x86_insn *in)
{
    unsigned i;

    for (i = 0; i < in->opnd_count; i++)
        if (in->opnd[i].kind == X86_OPND_REG && in->opnd[i].rclass == X86_RC_VEC)
            return true;
    return false;
}

static bool mmx_operand(const struct x86_insn *in)
{
    unsigned i;

    for (i = 0; i < in->opnd_count; i++)
        if (in->opnd[i].kind == X86_OPND_REG && in->opnd[i].rclass == X86_RC_MMX)
            return true;
    return false;
}

static bool segment_operand(const struct x86_insn *in)
{
    return in->opnd_count > 0 && in->opnd[0].kind == X86_OPND_REG &&
           in->opnd[0].rclass == X86_RC_SEG;
}

enum oracle_class oracle_classify(const struct x86_insn *in)
{
    if (in->enc == X86_ENC_EVEX)
        return OC_COUNT;
    if (in->asize == 2 && in->mode == X86_MODE_32) /* these never meet our pages */
        return OC_COUNT;
    switch (in->op) {
    case X86_MOVS:
    case X86_CMPS:
    case X86_STOS:
    case X86_LODS:
    case X86_SCAS:
    case X86_XLAT:
        return OC_STRING;
    case X86_PUSH:
    case X86_POP:
        /* a segment pushed in 32-bit code: AMD writes four bytes, Intel two */
        if (segment_operand(in) && (in->op == X86_POP || in->mode != X86_MODE_64))
            return OC_COUNT;
        return OC_STACK;
    case X86_PUSHF:
    case X86_ENTER:
    case X86_LEAVE:
        return OC_STACK;
    case X86_JMP:
    case X86_CALL:
    case X86_RET:
    case X86_JCC:
    case X86_LOOP:
    case X86_LOOPE:
    case X86_LOOPNE:
    case X86_JCXZ: /* 66 before a near branch is where AMD and Intel differ, F2 and F3 too */
        return (in->prefixes & (X86_PFX_OPSIZE | X86_PFX_REP | X86_PFX_REPNE)) != 0 ? OC_COUNT
                                                                                    : OC_BRANCH;
    case X86_XCHG:
    case X86_XADD:
    case X86_CMPXCHG:
    case X86_CMPXCHG8B:
    case X86_CMPXCHG16B:
        return OC_ATOMIC;
    case X86_MUL:
    case X86_IMUL:
    case X86_DIV:
    case X86_IDIV:
        return OC_MULDIV;
    case X86_BT:
    case X86_BTS:
    case X86_BTR:
    case X86_BTC:
    case X86_BSF:
    case X86_BSR:
    case X86_TZCNT:
    case X86_LZCNT:
    case X86_POPCNT:
    case X86_CRC32:
    case X86_ROL:
    case X86_ROR:
    case X86_RCL:
    case X86_RCR:
    case X86_SHL:
    case X86_SHR:
    case X86_SAR:
    case X86_SHLD:
    case X86_SHRD:
        return OC_BIT;
    case X86_BSWAP: /* of 16 bits: undefined */
        return in->osize == 2 ? OC_COUNT : OC_BIT;
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
        return OC_BMI;
    case X86_MOV:
        return segment_operand(in) ? OC_COUNT : OC_INT;
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
    case X86_MOVSX:
    case X86_MOVZX:
    case X86_MOVBE:
    case X86_MOVNTI:
    case X86_LEA:
    case X86_CMOVCC:
    case X86_SETCC:
    case X86_CBW:
    case X86_CWD:
    case X86_LAHF:
    case X86_SAHF:
    case X86_CMC:
    case X86_CLC:
    case X86_STC:
    case X86_CLD:
    case X86_STD:
        return OC_INT;
    case X86_MOVSXD: /* of 16 bits: AMD reads four bytes */
        return in->osize == 2 ? OC_COUNT : OC_INT;
    case X86_NOP: /* 0D of registers: invalid on AMD */
        return in->map == X86_MAP_0F && in->opcode == 0x0d ? OC_COUNT : OC_INT;
    case X86_PAUSE:
        return OC_INT;
    case X86_CLI:
    case X86_STI:
    case X86_HLT:
    case X86_UD0:
    case X86_UD1:
    case X86_UD2:
    case X86_INVLPG:
    case X86_SWAPGS:
    case X86_CLTS:
    case X86_INVD:
    case X86_WBINVD:
    case X86_MOVCR:
    case X86_MOVDR:
    case X86_LMSW:
    case X86_LLDT:
    case X86_LTR:
    case X86_LGDT:
    case X86_LIDT:
    case X86_RDMSR:
    case X86_WRMSR:
    case X86_IN:
    case X86_OUT:
        return OC_SYSTEM;
    case X86_INS: /* with a count of zero: is the port checked? */
    case X86_OUTS:
        return in->rep != 0 ? OC_COUNT : OC_SYSTEM;
    case X86_LFENCE:
    case X86_MFENCE:
    case X86_SFENCE:
    case X86_PREFETCH:
    case X86_CLFLUSH:
    case X86_CLFLUSHOPT:
    case X86_CLWB:
    case X86_STAC:
    case X86_CLAC:
        return OC_SYSTEM;
    case X86_PUSHA:
    case X86_POPA:
    case X86_DAA:
    case X86_DAS:
    case X86_AAA:
    case X86_AAS:
    case X86_AAM:
    case X86_AAD:
    case X86_SALC:
    case X86_BOUND:
    case X86_INTO:
        return OC_OLD;
    case X86_EMMS:
        return OC_MMX;
    case X86_LDMXCSR:
    case X86_STMXCSR:
        return OC_SSE;
    case X86_VLDMXCSR:
    case X86_VSTMXCSR:
    case X86_VZEROUPPER:
    case X86_VZEROALL:
        return OC_AVX;
    case X86_FLDENV:
    case X86_FRSTOR:
    case X86_FWAIT:
        return OC_X87;
    case X86_FNSTENV:
    case X86_FNSAVE:
    case X86_FXSAVE:
    case X86_FXRSTOR:
    case X86_XSAVE:
    case X86_XSAVEC:
    case X86_XSAVEOPT:
    case X86_XSAVES:
    case X86_XRSTOR:
    case X86_XRSTORS:
        return OC_STATE;
    case X86_RDTSC:
    case X86_RDTSCP:
    case X86_RDPID:
    case X86_RDRAND:
    case X86_RDSEED:
    case X86_XGETBV:
    case X86_RDFSBASE:
    case X86_RDGSBASE:
    case X86_WRFSBASE:
    case X86_WRGSBASE:
        return OC_OWN;
    case X86_FENI: /* hints that some processors do not know */
    case X86_FDISI:
    case X86_FSETPM:
    case X86_FSTPNCE:
        return OC_COUNT;
    default:
        break;
    }
    if (in->op < X86_FADD)
        return OC_COUNT;
    if (in->map == X86_MAP_ONE)
        return OC_X87;
    if (mmx_operand(in))
        return OC_MMX;
    if (in->enc == X86_ENC_VEX)
        return OC_AVX;
    return vector_operand(in) ? OC_SSE : OC_COUNT;
}

bool oracle_random(const struct x86_insn *in)
{
    return oracle_classify(in) == OC_OWN && in->feature != X86_FEAT_FSGSBASE;
}

bool oracle_allowed(const struct x86_insn *in, const bool feature[X86_FEAT_HIDDEN + 1])
{
    if (in->feature >= X86_FEAT_HIDDEN || !feature[in->feature])
        return false;
    if (in->mode != X86_MODE_64 && in->enc == X86_ENC_VEX && in->map == X86_MAP_0F3A &&
        (in->opcode == 0x16 || in->opcode == 0x22) && (in->rex & 8) != 0)
        return false; /* vpinsrq, vpextrq: Intel ignores W, AMD refuses it */
    if ((in->prefixes & X86_PFX_SEG) != 0 && (in->seg == X86_FS || in->seg == X86_GS) &&
        (in->mode != X86_MODE_64 || !feature[X86_FEAT_FSGSBASE]))
        return false; /* null selectors; or FS belongs to the child's C library */
    return true;
}
