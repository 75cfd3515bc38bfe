/*
 * What the generators of single instructions and of programs share. Deterministic: the same seed
 * makes the same case.
 */
#ifndef TESTS_CPU_ORACLE_GEN_H
#define TESTS_CPU_ORACLE_GEN_H

#include "oracle.h"
#include "x86/state.h"

struct rng {
    uint64_t s;
};

/* splitmix64 */
static inline uint64_t next(struct rng *r)
{
    uint64_t z = r->s += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static inline unsigned below(struct rng *r, unsigned n)
{
    return (unsigned)(next(r) >> 33) % n;
}

static inline bool chance(struct rng *r, unsigned percent)
{
    return below(r, 100) < percent;
}

/* ---- oracle_values.c ---- */

uint64_t interesting(struct rng *r);
void fill_state(struct rng *r, struct oracle_case *c);
/* The offset in the data segment of a good address, or sometimes of a bad one. */
uint64_t target(struct rng *r, const struct oracle_case *c, unsigned size);
/* Puts a special value of the operand's format where the instruction will read it. */
void special_operand(struct rng *r, struct oracle_case *c, const struct x86_insn *in, uint64_t lin);

/* ---- oracle_gen.c ---- */

enum x86_mode oracle_mode(const struct oracle_case *c);
/* An instruction of the class at b; its length, 0 if this try failed. */
unsigned try_insn(struct rng *r, enum oracle_class want, enum x86_mode mode, uint8_t *b,
                  struct x86_insn *in, const bool feature[X86_FEAT_HIDDEN + 1]);
/* The explicit memory operand, or NULL. */
const struct x86_opnd *memory_operand(const struct x86_insn *in);
/* Counts above 16 bits leave undefined results. */
bool immediate_count_fits(const struct x86_insn *in);
/* 32-bit code has eight registers of 32 bits. */
void narrow_registers(struct oracle_case *c);

/* ---- oracle_program.c ---- */

void oracle_program(struct rng *r, struct oracle_case *c, const bool feature[X86_FEAT_HIDDEN + 1]);

#endif
