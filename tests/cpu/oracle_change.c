/*
 * Self-modification: an instruction that comes later, or one that a loop will come back to, and a
 * store that makes another of it. Next instruction, same block, same line, another page: as it
 * falls out. A store that inverts the difference changes the instruction back and forth, so that
 * blocks decoded from both exist when a loop goes round.
 */
#include <string.h>

#include "base/bits.h"
#include "oracle_program.h"

struct patch {
    unsigned width, offset; /* of the bytes that differ, in the instruction */
    uint64_t before, after;
};

/* Another instruction of the same length that differs within an aligned-or-not 1, 2, 4 or 8 bytes.
 */
static bool mutate(struct prog *p, const uint8_t *before, unsigned len, uint8_t *after,
                   struct x86_insn *in, struct patch *patch)
{
    unsigned tries, i, w = 1u << below(p->r, 4);

    while (w > len || (w == 8 && p->mode != X86_MODE_64))
        w >>= 1;
    patch->width = w;
    patch->offset = below(p->r, len - w + 1);
    for (tries = 0; tries < 200; tries++) {
        memcpy(after, before, len);
        for (i = 0; i < w; i++)
            if (chance(p->r, 50))
                after[patch->offset + i] = (uint8_t)next(p->r);
        if (memcmp(after, before, len) == 0 || x86_decode(after, len, p->mode, in) != (int)len ||
            !prog_simple(p, in) || !prog_fits(p, in))
            continue;
        patch->before = patch->after = 0;
        memcpy(&patch->before, before + patch->offset, w);
        memcpy(&patch->after, after + patch->offset, w);
        return true;
    }
    return false;
}

/* ---- the store ---- */

/* Prefixes for an operand of the size at [reg], 32-bit addressing. */
static unsigned prefixes(const struct prog *p, unsigned width, uint8_t *b)
{
    unsigned n = 0;

    if (p->mode == X86_MODE_16)
        b[n++] = 0x67;
    if ((width == 2) != (p->mode == X86_MODE_16) && (width == 2 || width == 4))
        b[n++] = 0x66;
    if (width == 8)
        b[n++] = 0x48;
    return n;
}

static void put_store(struct prog *p, unsigned width, uint8_t opcode, unsigned reg, unsigned rm,
                      const uint64_t *imm)
{
    uint8_t b[15];
    unsigned n = prefixes(p, width, b);

    b[n++] = (uint8_t)(opcode | (width != 1));
    b[n++] = (uint8_t)(reg << 3 | rm);
    if (imm != NULL) {
        memcpy(b + n, imm, width);
        n += width;
    }
    prog_put(p, b, n, false);
}

/* mov [r], xmm of four or eight bytes */
static void store_vector(struct prog *p, const struct patch *patch, unsigned rm)
{
    bool a32 = p->mode == X86_MODE_16, wide = patch->width == 8;
    unsigned xmm = below(p->r, 8), n = 0;
    uint8_t b[8];

    if (a32)
        b[n++] = 0x67;
    b[n++] = 0x66;
    b[n++] = 0x0f;
    b[n++] = wide ? 0xd6 : 0x7e; /* movq, movd */
    b[n++] = (uint8_t)(xmm << 3 | rm);
    if (wide)
        PROG_PUT(p, 0x66, 0x48, 0x0f, 0x6e, (uint8_t)(0xc0 | xmm << 3 | X86_RAX));
    else
        PROG_PUT(p, 0x66, 0x0f, 0x6e, (uint8_t)(0xc0 | xmm << 3 | X86_RAX));
    prog_put(p, b, n, false);
}

/*
 * Emits the store. Returns the offset of the 32-bit address in c->prog; what lies before the store
 * and must stand behind the address is added to it by *add.
 */
static unsigned put_change(struct prog *p, const struct patch *patch, uint64_t address,
                           unsigned *add)
{
    unsigned kind = below(p->r, 9), w = patch->width, at, rm, value;
    unsigned natural = p->mode == X86_MODE_64 ? 8 : p->mode == X86_MODE_32 ? 4 : 2;
    uint64_t flip = patch->before ^ patch->after;

    *add = patch->offset;
    if (p->counter == X86_RAX && (kind == 6 || kind == 8))
        kind = 0;
    if (kind == 7 && w == natural) { /* push */
        value = prog_scratch(p, X86_RSP);
        prog_mov(p, value, patch->after, false);
        *add += w;
        at = prog_mov(p, X86_RSP, address + *add, false);
        PROG_PUT(p, (uint8_t)(0x50 | value));
        return at;
    }
    if (kind == 8 && p->counter != X86_RDI) { /* stos */
        uint8_t b[3];
        unsigned n = 0;

        prog_mov(p, X86_RAX, patch->after, false);
        at = prog_mov(p, X86_RDI, address + *add, false);
        n = prefixes(p, w, b);
        b[n] = w == 1 ? 0xaa : 0xab;
        prog_put(p, b, n + 1, false);
        return at;
    }
    rm = prog_scratch(p, X86_RAX);
    if (kind == 6 && w >= 4) {
        prog_mov(p, X86_RAX, patch->after, false);
        at = prog_mov(p, rm, address + *add, false);
        store_vector(p, patch, rm);
        return at;
    }
    if (kind < 3 && w < 8) { /* xor [r], imm; mov [r], imm */
        at = prog_mov(p, rm, address + *add, false);
        if (kind < 2)
            put_store(p, w, 0x80, 6, rm, &flip);
        else
            put_store(p, w, 0xc6, 0, rm, &patch->after);
        return at;
    }
    do
        value = prog_scratch(p, rm);
    while (value > X86_RBX); /* with a low byte in every mode */
    prog_mov(p, value, kind == 3 ? flip : patch->after, false);
    at = prog_mov(p, rm, address + *add, false);
    /* xor, mov, xchg */
    put_store(p, w, kind == 3 ? 0x30 : kind == 4 ? 0x88 : 0x86, value, rm, NULL);
    return at;
}

/* ---- when ---- */

/* cmp counter, k; jne over: the change only in one round. Returns where the displacement is. */
static unsigned skip_begin(struct prog *p)
{
    unsigned reg = (unsigned)p->counter, n = 0;
    uint8_t b[8];

    if (p->mode == X86_MODE_16)
        b[n++] = 0x66;
    if (reg >= 8)
        b[n++] = 0x41;
    b[n++] = 0x83;
    b[n++] = (uint8_t)(0xf8 | (reg & 7));
    b[n++] = (uint8_t)(1 + below(p->r, 3));
    if (!prog_put(p, b, n, true) || !PROG_PUT(p, 0x75, 0))
        return 0;
    return prog_here(p) - 1;
}

/* The instruction of the loop that is to be changed, or -1. */
static int earlier(struct prog *p)
{
    unsigned tries, k;

    if (p->counter < 0 || p->loop_first >= p->c->count)
        return -1;
    for (tries = 0; tries < 8; tries++) {
        k = p->loop_first + below(p->r, p->c->count - p->loop_first);
        if (!p->c->keep[k] && prog_simple(p, &p->c->insn[k]))
            return (int)k;
    }
    return -1;
}

static void change_earlier(struct prog *p, unsigned k)
{
    struct oracle_case *c = p->c;
    unsigned place = p->start + (unsigned)c->off[k], at, add;
    uint8_t after[15];
    struct patch patch;
    struct x86_insn in;
    uint32_t address;

    if (!mutate(p, c->prog + place, c->insn[k].len, after, &in, &patch))
        return;
    c->keep[k] = true;
    at = put_change(p, &patch, prog_address(p, place), &add);
    if (p->full)
        return;
    address = (uint32_t)prog_address(p, place) + add;
    memcpy(c->prog + at, &address, 4);
    p->known &= ~in.gpr_written;
    p->undefined |= in.flags_undefined;
}

static void change_later(struct prog *p)
{
    struct prog_change *k = p->change;
    struct patch patch;

    while (k->used)
        if (++k == p->change + PROG_CHANGES)
            return;
    k->len = prog_any_simple(p, k->before, &k->in[0]);
    if (k->len == 0 || !mutate(p, k->before, k->len, k->after, &k->in[1], &patch))
        return;
    k->at = put_change(p, &patch, 0, &k->add);
    k->steps = below(p->r, 5);
    k->used = !p->full;
}

void prog_change(struct prog *p)
{
    int k = earlier(p);
    uint32_t undefined = p->undefined;
    unsigned skip = 0;

    if (p->counter >= 0 && chance(p->r, 40))
        skip = skip_begin(p);
    if (k >= 0 && chance(p->r, 60))
        change_earlier(p, (unsigned)k);
    else
        change_later(p);
    if (skip != 0 && !p->full) {
        p->c->prog[skip] = (uint8_t)(prog_here(p) - skip - 1);
        p->known = 0;
        p->undefined |= undefined;
    }
}

bool prog_changed(struct prog *p, struct prog_change *k)
{
    uint32_t undefined = p->undefined, address;
    unsigned place = prog_here(p);

    if (!prog_fits(p, &k->in[0]) || !prog_fits(p, &k->in[1]))
        return false;
    k->used = false;
    address = (uint32_t)prog_address(p, place) + k->add;
    if (!prog_put(p, k->before, k->len, true))
        return true;
    memcpy(p->c->prog + k->at, &address, 4);
    p->known &= ~k->in[1].gpr_written;
    p->undefined |= (undefined & ~k->in[1].flags_written) | k->in[1].flags_undefined;
    return true;
}
