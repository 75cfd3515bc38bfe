/*
 * Arithmetic by the host's own instructions: results and flags are the processor's, undefined flags
 * included. Each function takes and gives values of one size and leaves the flags in cpu->cc.
 */
#ifndef ENGINE_SOFT_ALU_H
#define ENGINE_SOFT_ALU_H

#include "engine/soft/interp.h"

#define ALU_SIZES(M)                                                                               \
    M(1, uint8_t, "b", "q")                                                                        \
    M(2, uint16_t, "w", "r")                                                                       \
    M(4, uint32_t, "l", "r")                                                                       \
    M(8, uint64_t, "q", "r")

#define ALU_FLAGS "lahf\n\tseto %%al\n\t"

/* a = a op b */
#define ALU_BINARY(name, insn, n, type, sfx, reg)                                                  \
    soft_inline type alu_##name##_##n(struct soft_cpu *cpu, type a, type b)                        \
    {                                                                                              \
        uint16_t f;                                                                                \
        __asm__(insn sfx " %[b], %[a]\n\t" ALU_FLAGS                                               \
                : [a] "+" reg(a), "=&a"(f)                                                         \
                : [b] reg(b)                                                                       \
                : "cc");                                                                           \
        cpu->cc = f;                                                                               \
        return a;                                                                                  \
    }

/* a = a op b with CF as input */
#define ALU_CARRY(name, insn, n, type, sfx, reg)                                                   \
    soft_inline type alu_##name##_##n(struct soft_cpu *cpu, type a, type b)                        \
    {                                                                                              \
        uint16_t f;                                                                                \
        __asm__("btl $8, %[c]\n\t" insn sfx " %[b], %[a]\n\t" ALU_FLAGS                            \
                : [a] "+" reg(a), "=&a"(f)                                                         \
                : [b] reg(b), [c] "r"(cpu->cc)                                                     \
                : "cc");                                                                           \
        cpu->cc = f;                                                                               \
        return a;                                                                                  \
    }

/* a = op a, flags in `keep` survive */
#define ALU_UNARY(name, insn, keep, n, type, sfx, reg)                                             \
    soft_inline type alu_##name##_##n(struct soft_cpu *cpu, type a)                                \
    {                                                                                              \
        uint16_t f;                                                                                \
        __asm__(insn sfx " %[a]\n\t" ALU_FLAGS : [a] "+" reg(a), "=&a"(f) : : "cc");               \
        cpu->cc = (f & ~(keep)) | (cpu->cc & (keep));                                              \
        return a;                                                                                  \
    }

/* a = a shifted by count (in CL); flags change only for a count that is not 0 after masking */
#define ALU_SHIFT(name, insn, keep, n, type, sfx, reg)                                             \
    soft_inline type alu_##name##_##n(struct soft_cpu *cpu, type a, uint8_t count)                 \
    {                                                                                              \
        uint16_t f;                                                                                \
        count &= n == 8 ? 63 : 31;                                                                 \
        if (count == 0)                                                                            \
            return a;                                                                              \
        __asm__("btl $8, %[cf]\n\t" insn sfx " %%cl, %[a]\n\t" ALU_FLAGS                           \
                : [a] "+" reg(a), "=&a"(f)                                                         \
                : "c"(count), [cf] "r"(cpu->cc)                                                    \
                : "cc");                                                                           \
        cpu->cc = (f & ~(keep)) | (cpu->cc & (keep));                                              \
        return a;                                                                                  \
    }

#define ALU_DEFINE(n, type, sfx, reg)                                                              \
    ALU_BINARY(add, "add", n, type, sfx, reg)                                                      \
    ALU_BINARY(or, "or", n, type, sfx, reg)                                                        \
    ALU_CARRY(adc, "adc", n, type, sfx, reg)                                                       \
    ALU_CARRY(sbb, "sbb", n, type, sfx, reg)                                                       \
    ALU_BINARY(and, "and", n, type, sfx, reg)                                                      \
    ALU_BINARY(sub, "sub", n, type, sfx, reg)                                                      \
    ALU_BINARY(xor, "xor", n, type, sfx, reg)                                                      \
    ALU_BINARY(test, "test", n, type, sfx, reg)                                                    \
    ALU_UNARY(inc, "inc", CC_CF, n, type, sfx, reg)                                                \
    ALU_UNARY(dec, "dec", CC_CF, n, type, sfx, reg)                                                \
    ALU_UNARY(neg, "neg", 0u, n, type, sfx, reg)                                                   \
    ALU_SHIFT(rol, "rol", (uint32_t) ~(CC_CF | CC_OF), n, type, sfx, reg)                          \
    ALU_SHIFT(ror, "ror", (uint32_t) ~(CC_CF | CC_OF), n, type, sfx, reg)                          \
    ALU_SHIFT(rcl, "rcl", (uint32_t) ~(CC_CF | CC_OF), n, type, sfx, reg)                          \
    ALU_SHIFT(rcr, "rcr", (uint32_t) ~(CC_CF | CC_OF), n, type, sfx, reg)                          \
    ALU_SHIFT(shl, "shl", 0u, n, type, sfx, reg)                                                   \
    ALU_SHIFT(shr, "shr", 0u, n, type, sfx, reg)                                                   \
    ALU_SHIFT(sar, "sar", 0u, n, type, sfx, reg)

ALU_SIZES(ALU_DEFINE)

#define ALU_NOT(n, type, sfx, reg)                                                                 \
    soft_inline type alu_not_##n(struct soft_cpu *cpu, type a)                                     \
    {                                                                                              \
        (void)cpu;                                                                                 \
        return (type)~a;                                                                           \
    }                                                                                              \
    /* CMP is SUB without the result */                                                            \
    soft_inline type alu_cmp_##n(struct soft_cpu *cpu, type a, type b)                             \
    {                                                                                              \
        (void)alu_sub_##n(cpu, a, b);                                                              \
        return a;                                                                                  \
    }
ALU_SIZES(ALU_NOT)

/* One compare-and-swap of a LOCKed read-modify-write; p may be unaligned, never over a page. */
#define ALU_CAS(n, type, sfx, reg)                                                                 \
    soft_inline bool alu_cas_##n(uint8_t *p, type *expect, type want)                              \
    {                                                                                              \
        bool ok;                                                                                   \
        __asm__ volatile("lock cmpxchg" sfx " %[w], %[m]\n\tsete %[ok]"                            \
                         : [m] "+m"(*(type(*)[1])(void *)p), "+a"(*expect), [ok] "=q"(ok)          \
                         : [w] reg(want)                                                           \
                         : "cc", "memory");                                                        \
        return ok;                                                                                 \
    }
ALU_SIZES(ALU_CAS)

#endif
