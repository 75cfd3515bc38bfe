/*
 * A fuzz target's input is a program: bytes that say, one after the other, what is done next and
 * with what. Behind its end all bytes are zero. One thread.
 */
#ifndef TESTS_FUZZ_PROGRAM_H
#define TESTS_FUZZ_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bits.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* What must hold whatever the program does. */
#define check(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #cond);              \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct program {
    const uint8_t *at, *end;
};

static inline uint8_t take8(struct program *g)
{
    return (uint8_t)(g->at < g->end ? *g->at++ : 0);
}

static inline uint64_t take(struct program *g, unsigned bytes)
{
    uint64_t v = 0;

    for (unsigned i = 0; i < bytes; i++)
        v |= (uint64_t)take8(g) << 8 * i;
    return v;
}

/* Small numbers and those around powers of two take one byte, any other up to nine. */
static inline uint64_t take_number(struct program *g)
{
    uint8_t b = take8(g);

    if (b < 0x80)
        return b;
    if (b < 0xC0)
        return 1ull << (b & 0x3F);
    if (b < 0xE0)
        return (1ull << 2 * (b & 0x1F)) - 1;
    if (b < 0xE8)
        return ~0ull - (b & 7);
    if (b < 0xF0)
        return take(g, 2);
    return take(g, b < 0xF8 ? 4 : 8);
}

/* 1, 2, 4 or 8. */
static inline unsigned take_size(struct program *g)
{
    return 1u << (take8(g) & 3);
}

#endif
