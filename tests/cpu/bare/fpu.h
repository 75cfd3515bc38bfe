/* What the images about FPU and vector state share: fragments with data, and a look at the state.
 */
#ifndef TESTS_CPU_BARE_FPU_H
#define TESTS_CPU_BARE_FPU_H

#include "bare.h"

#ifdef __x86_64__
#define DI "rdi"
#define SI "rsi"
#define AX "rax"
#else
#define DI "edi"
#define SI "esi"
#define AX "eax"
#endif

/* x87 status word */
#define IE 1u
#define DE 2u
#define ZE 4u
#define OE 8u
#define UE 0x10u
#define PE 0x20u
#define SF 0x40u
#define ES 0x80u
#define C0 0x100u
#define C1 0x200u
#define C2 0x400u
#define C3 0x4000u
#define CC_ALL (C0 | C1 | C2 | C3)
#define BUSY 0x8000u
#define TOP(n) ((unsigned)(n) << 11)
#define FLAGS_ALL 0x7fu
#define PENDING (ES | BUSY)
#define FCW_INIT 0x37fu
#define UNMASK(e) (FCW_INIT & ~(e))
#define MXCSR_INIT 0x1f80u

/* Where fragments find data: DI is its start, SI its middle. For CPL 0 to 2. */
#define DATA_SIZE 8192
#define MIDDLE 4096
static uint8_t data[DATA_SIZE] __attribute__((aligned(4096)));
/* An FXSAVE image, by look(). */
static uint8_t seen[512] __attribute__((aligned(64)));

static inline void put(void *base, unsigned offset, unsigned size, uint64_t v)
{
    volatile uint8_t *p = (volatile uint8_t *)base + offset;

    for (unsigned i = 0; i < size; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

static inline uint64_t get(const void *base, unsigned offset, unsigned size)
{
    const volatile uint8_t *p = (const volatile uint8_t *)base + offset;
    uint64_t v = 0;

    for (unsigned i = 0; i < size; i++)
        v |= (uint64_t)p[i] << 8 * i;
    return v;
}

static inline void fill(void *base, unsigned offset, unsigned size, unsigned byte)
{
    for (unsigned i = 0; i < size; i++)
        put(base, offset + i, 1, byte);
}

static inline bool filled(const void *base, unsigned offset, unsigned size, unsigned byte)
{
    for (unsigned i = 0; i < size; i++)
        if (get(base, offset + i, 1) != byte)
            return false;
    return true;
}

static inline void put80(unsigned offset, unsigned sign_exponent, uint64_t significand)
{
    put(data, offset, 8, significand);
    put(data, offset + 8, 2, sign_exponent);
}

static inline struct cpu go(struct code code)
{
    struct cpu c = kernel(code);

    c.di = (word)data;
    c.si = (word)data + MIDDLE;
    run(&c);
    return c;
}

/* A fragment for go() that begins with FNINIT and the control word at DI. */
#define X87(text) CODE("fninit\n fldcw [" DI "]\n" text)

static inline struct cpu go_x87(unsigned fcw, struct code code)
{
    put(data, 0, 2, fcw);
    return go(code);
}

/* FXSAVE changes nothing, pends nothing and knows no unmasked exception. */
static inline void look(void)
{
    struct cpu c = kernel(CODE("fxsave [" DI "]"));

    c.di = (word)seen;
    run(&c);
    if (!skipping() && c.vector != V_DONE)
        give_up("FXSAVE faults");
}

static inline unsigned seen_fsw(void)
{
    return (unsigned)get(seen, 2, 2);
}

static inline void check_fsw(const char *name, const char *topic, unsigned want, unsigned mask)
{
    look();
    check_bits(name, topic, seen_fsw(), want, mask);
}

/* ST(i) of what look() saw. */
static inline void check_st(const char *name, const char *topic, unsigned i, unsigned sign_exponent,
                            uint64_t significand)
{
    look();
    if (get(seen, 32 + 16 * i, 8) != significand)
        check(name, topic, get(seen, 32 + 16 * i, 8), significand);
    else
        check(name, topic, get(seen, 40 + 16 * i, 2), sign_exponent);
}

static inline void check_code(const char *name, const char *topic, struct code code, int vector)
{
    struct cpu c = go(code);

    if (vector == V_DONE)
        check_done(name, topic, &c);
    else
        check_fault(name, topic, &c, vector, vector == V_GP || vector == V_SS ? 0 : NO_ERROR);
}

#endif
