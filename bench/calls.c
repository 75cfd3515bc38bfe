/* Programs of calls and jumps whose targets are data. */
#include <stdbool.h>

#include "xbench.h"

/* ---- recursion ---- */

/* noipa: the compiler would unroll the recursion into itself. */
#if defined(__clang__)
#define ALONE __attribute__((noinline))
#else
#define ALONE __attribute__((noipa))
#endif

/* NOLINTNEXTLINE(misc-no-recursion) */
ALONE static uint64_t fib(unsigned n)
{
    return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

uint64_t fib_round(void)
{
    return fib(23);
}

/* ---- methods of objects, through their tables ---- */

#define OBJECTS 4096

struct shape;

struct shape_ops {
    int64_t (*area)(const struct shape *s);
    int64_t (*edge)(const struct shape *s);
    void (*grow)(struct shape *s, int64_t by);
};

struct shape {
    const struct shape_ops *ops;
    int64_t a, b;
};

static int64_t box_area(const struct shape *s)
{
    return s->a * s->b;
}

static int64_t box_edge(const struct shape *s)
{
    return 2 * (s->a + s->b);
}

static void box_grow(struct shape *s, int64_t by)
{
    s->a += by;
    s->b += by;
}

static int64_t square_area(const struct shape *s)
{
    return s->a * s->a;
}

static int64_t square_edge(const struct shape *s)
{
    return 4 * s->a;
}

static void square_grow(struct shape *s, int64_t by)
{
    s->a += 2 * by;
}

static int64_t disc_area(const struct shape *s)
{
    return s->a * s->a * 355 / 113;
}

static int64_t disc_edge(const struct shape *s)
{
    return 2 * s->a * 355 / 113;
}

static void disc_grow(struct shape *s, int64_t by)
{
    s->a ^= by;
}

static int64_t wedge_area(const struct shape *s)
{
    return s->a * s->b / 2;
}

static int64_t wedge_edge(const struct shape *s)
{
    return s->a + s->b + (s->a > s->b ? s->a : s->b);
}

static void wedge_grow(struct shape *s, int64_t by)
{
    s->b += by;
}

static const struct shape_ops shape_kinds[] = {
    {box_area, box_edge, box_grow},
    {square_area, square_edge, square_grow},
    {disc_area, disc_edge, disc_grow},
    {wedge_area, wedge_edge, wedge_grow},
};

static struct shape *shapes;

void virtual_setup(void)
{
    uint32_t seed = 5;

    shapes = need_memory(OBJECTS * sizeof(*shapes));
    for (unsigned i = 0; i < OBJECTS; i++)
        shapes[i].ops = &shape_kinds[(next_random(&seed) >> 7) % 4];
}

uint64_t virtual_round(void)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < OBJECTS; i++) {
        shapes[i].a = (int64_t)(i % 97) + 1;
        shapes[i].b = (int64_t)(i % 31) + 2;
    }
    for (unsigned pass = 0; pass < 8; pass++) {
        for (unsigned i = 0; i < OBJECTS; i++) {
            struct shape *s = &shapes[i];

            s->ops->grow(s, pass);
            sum += (uint64_t)(s->ops->area(s) - s->ops->edge(s));
        }
    }
    return sum;
}

/* ---- a program of pointers to functions, in no order that can be guessed ---- */

#define STEPS 65536

typedef uint64_t step(uint64_t x, uint64_t y);

#define STEP(name, expression)                                                                     \
    ALONE static uint64_t name(uint64_t x, uint64_t y)                                             \
    {                                                                                              \
        return expression;                                                                         \
    }
STEP(step_add, x + y)
STEP(step_sub, x - y)
STEP(step_xor, x ^ y)
STEP(step_mul, x *(y | 1))
STEP(step_ror, (x >> 7 | x << 57) ^ y)
STEP(step_shift, (x ^ x >> 12) + y)
STEP(step_swap, __builtin_bswap64(x) + y)
STEP(step_and, (x & ~y) + 3)
STEP(step_or, (x | y) * 5)
STEP(step_not, ~x + y)
STEP(step_neg, y - x)
STEP(step_pick, x > y ? x - y : y + 1)
STEP(step_lea, x * 9 + y * 3)
STEP(step_odd, (x & 1) != 0 ? x * 3 + y : x / 2)
STEP(step_high, (x >> 32) * (y >> 32) + x)
STEP(step_mask, x + (y & 0xff00))

static step *const steps[16] = {
    step_add, step_sub, step_xor, step_mul,  step_ror, step_shift, step_swap, step_and,
    step_or,  step_not, step_neg, step_pick, step_lea, step_odd,   step_high, step_mask,
};

static step **route;

void indirect_setup(void)
{
    uint32_t seed = 77;

    route = need_memory(STEPS * sizeof(step *));
    for (unsigned i = 0; i < STEPS; i++)
        route[i] = steps[(next_random(&seed) >> 9) % 16];
}

uint64_t indirect_round(void)
{
    uint64_t x = 1;

    for (unsigned i = 0; i < STEPS; i++)
        x = route[i](x, i);
    return x;
}

/* ---- an interpreter of bytecode: one switch ---- */

enum {
    OP_CONST, /* push the byte that follows */
    OP_LOAD,  /* push a variable */
    OP_STORE,
    OP_ADD,
    OP_SUB,
    OP_MUL,
    OP_AND,
    OP_SHIFT, /* right by one */
    OP_LESS,
    OP_JUMP, /* to the byte that follows */
    OP_JUMP_ZERO,
    OP_END,
};

/* How many steps the numbers 1 to 199 take to come to 1 by x/2 and 3x+1. */
static const uint8_t collatz[] = {
    /*  0 */ OP_CONST, 1, OP_STORE, 0,
    /*  4 */ OP_LOAD,  0, OP_CONST, 200,      OP_LESS, OP_JUMP_ZERO, 61,
    /* 11 */ OP_LOAD,  0, OP_STORE, 1,
    /* 15 */ OP_CONST, 1, OP_LOAD,  1,        OP_LESS, OP_JUMP_ZERO, 52,
    /* 22 */ OP_LOAD,  2, OP_CONST, 1,        OP_ADD,  OP_STORE,     2,
    /* 29 */ OP_LOAD,  1, OP_CONST, 1,        OP_AND,  OP_JUMP_ZERO, 45,
    /* 36 */ OP_LOAD,  1, OP_CONST, 3,        OP_MUL,  OP_JUMP,      62, 0,       0,
    /* 45 */ OP_LOAD,  1, OP_SHIFT, OP_STORE, 1,       OP_JUMP,      15,
    /* 52 */ OP_LOAD,  0, OP_CONST, 1,        OP_ADD,  OP_STORE,     0,  OP_JUMP, 4,
    /* 61 */ OP_END,
    /* 62 */ OP_CONST, 1, OP_ADD,   OP_STORE, 1,       OP_JUMP,      15,
};

uint64_t interp_round(void)
{
    uint64_t variable[4] = {0}, stack[16], *top = stack;
    const uint8_t *volatile program = collatz; /* the compiler could run it itself */
    const uint8_t *code = program;
    size_t at = 0;

    for (;;) {
        switch (code[at++]) {
        case OP_CONST:
            *top++ = code[at++];
            break;
        case OP_LOAD:
            *top++ = variable[code[at++]];
            break;
        case OP_STORE:
            variable[code[at++]] = *--top;
            break;
        case OP_ADD:
            top--;
            top[-1] += top[0];
            break;
        case OP_SUB:
            top--;
            top[-1] -= top[0];
            break;
        case OP_MUL:
            top--;
            top[-1] *= top[0];
            break;
        case OP_AND:
            top--;
            top[-1] &= top[0];
            break;
        case OP_SHIFT:
            top[-1] >>= 1;
            break;
        case OP_LESS:
            top--;
            top[-1] = top[-1] < top[0];
            break;
        case OP_JUMP:
            at = code[at];
            break;
        case OP_JUMP_ZERO:
            at = *--top == 0 ? code[at] : at + 1;
            break;
        case OP_END:
            return mix(variable[2], variable[0]);
        }
    }
}

/* ---- a state machine: the tokens of a text ---- */

#define STATE_TEXT 131072

static char *state_text;

void state_setup(void)
{
    state_text = need_memory(STATE_TEXT);
    make_text(state_text, STATE_TEXT);
}

enum state { S_SPACE, S_WORD, S_HEX, S_NUMBER, S_LINE };

uint64_t state_round(void)
{
    uint64_t words = 0, hex = 0, numbers = 0, lines = 0, value = 0;
    enum state state = S_SPACE;

    for (const char *p = state_text; *p != '\0'; p++) {
        bool digit = *p >= '0' && *p <= '9', letter = *p >= 'a' && *p <= 'z';

        switch (state) {
        case S_LINE:
            lines++;
            state = S_SPACE;
            __attribute__((fallthrough));
        case S_SPACE:
            if (*p == 'x')
                state = S_HEX;
            else if (letter)
                state = S_WORD;
            else if (digit)
                state = S_NUMBER;
            break;
        case S_WORD:
            if (!letter) {
                words++;
                state = *p == '\n' ? S_LINE : S_SPACE;
            }
            break;
        case S_HEX:
            if (digit || (*p >= 'a' && *p <= 'f')) {
                value = value * 16 + (uint64_t)(digit ? *p - '0' : *p - 'a' + 10);
            } else {
                hex++;
                state = letter ? S_WORD : *p == '\n' ? S_LINE : S_SPACE;
            }
            break;
        case S_NUMBER:
            if (digit) {
                value = value * 10 + (uint64_t)(*p - '0');
            } else {
                numbers++;
                state = letter ? S_WORD : *p == '\n' ? S_LINE : S_SPACE;
            }
            break;
        }
    }
    return mix(mix(mix(mix(value, words), hex), numbers), lines);
}
