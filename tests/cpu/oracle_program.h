/*
 * What the two halves of the program generator share: oracle_emit.c puts instructions down and
 * follows what is known about registers and flags; oracle_program.c decides which.
 */
#ifndef TESTS_CPU_ORACLE_PROGRAM_H
#define TESTS_CPU_ORACLE_PROGRAM_H

#include "oracle_gen.h"

#define PROG_BRANCHES 4u
#define PROG_CALLS 3u
#define PROG_CHANGES 2u

/* An address to be filled in when the place it names is reached. */
struct prog_fix {
    unsigned at;    /* offset of the field in c->prog */
    unsigned size;  /* bytes */
    uint64_t end;   /* relative: linear address behind the branch; 0: the field is absolute */
    unsigned steps; /* left until it lands */
    uint32_t undefined, written; /* flags at the branch, registers written since */
};

/* An instruction that the program will change: `after` replaces `before`, of the same length. */
struct prog_change {
    bool used;
    unsigned steps;
    unsigned at, add; /* offset of the 32-bit address field, and what is added to the address */
    unsigned len;
    uint8_t before[15], after[15];
    struct x86_insn in[2];
};

struct prog {
    struct rng *r;
    struct oracle_case *c;
    const bool *feature;
    enum x86_mode mode;
    bool full;
    unsigned start; /* offset of c->addr in c->prog */
    uint32_t known; /* registers whose value is val[] unless a branch or a change tells otherwise */
    uint64_t val[16];
    uint32_t undefined; /* flags */
    int counter;        /* the loop's register, -1 outside of loops */
    unsigned loop_at, loop_first, loop_left;
    uint32_t loop_undefined;
    struct prog_fix branch[PROG_BRANCHES];
    unsigned branches;
    struct prog_fix call[PROG_CALLS];
    unsigned calls;
    uint32_t call_avoid; /* registers that subroutines must not write */
    struct prog_change change[PROG_CHANGES];
};

/* ---- oracle_emit.c ---- */

static inline unsigned prog_here(const struct prog *p)
{
    return p->start + p->c->len;
}

/* Appends one instruction; false if there is no room, and then the program is full. */
bool prog_put(struct prog *p, const uint8_t *bytes, unsigned n, bool keep);
#define PROG_PUT(p, ...)                                                                           \
    prog_put(p, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}), false)
/* mov reg, v; returns the offset in c->prog of the immediate's 32 bits. */
unsigned prog_mov(struct prog *p, unsigned reg, uint64_t v, bool keep);
/* A register for scratch use that is neither the counter nor `not`; among the first eight. */
unsigned prog_scratch(struct prog *p, unsigned not );
/* RSP inside the window, by a MOV if it is not there. */
void prog_stack(struct prog *p);
/* One random instruction of any class but branches, with its operands in place. */
void prog_random(struct prog *p);
/* Without memory operand, branch or use of flags: what a change may put anywhere. */
bool prog_simple(struct prog *p, const struct x86_insn *in);
unsigned prog_any_simple(struct prog *p, uint8_t *b, struct x86_insn *in);
/* May it stand here: no undefined flag read, the loop's counter left alone? */
bool prog_fits(const struct prog *p, const struct x86_insn *in);
/* The offset that code and data use for a place in c->prog. */
uint64_t prog_address(const struct prog *p, unsigned at);

/* ---- oracle_change.c ---- */

/* A store into the program, now or of an instruction that is still to come. */
void prog_change(struct prog *p);
/* Puts down the instruction that has been, or will be, changed. False: not here. */
bool prog_changed(struct prog *p, struct prog_change *k);

#endif
