/*
 * kallsyms: the names that a Linux kernel carries for its own messages (Linux: scripts/kallsyms.c).
 * No header says where it is. Its parts, each aligned to a pointer:
 *
 *     num_syms     32 bits
 *     names        for each symbol a length (7 bits, and 7 more if the top bit is set) and as many
 *                  bytes, each the number of a token; the text begins with nm's letter
 *     markers      where each 256th name begins; 64 bits wide before Linux 4.20
 *     token_table  256 strings, each with its NUL
 *     token_index  where each string begins, 16 bits
 *
 * From 6.2 to 6.3 there is something between markers and token_table. The addresses are before
 * num_syms, or since 6.4 behind token_index, in one of the forms of enum form.
 *
 * The index is what can be recognized; from there it goes backwards.
 */
#include "boot/symbols_build.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/endian.h"
#include "boot/elf.h"

#define TOKENS 256u
#define INDEX_SIZE (2 * TOKENS)
#define TOKEN_MAX 512u
#define MARKER_EVERY 256u
#define MARKER_MIN (MARKER_EVERY * 2u)                     /* a length and one token */
#define MARKER_MAX (MARKER_EVERY * (SYMBOLS_NAME_MAX + 3)) /* letter, two bytes of length */
#define NAMES_REACH (32 * MIB)                             /* from token_table back to markers */
/* Steps of the search: an image made for it could else keep us for hours. A kernel takes 2^20. */
#define STEPS_MAX (1u << 28)

#define KERNEL64_MIN 0xFFFF800000000000ull
#define KERNEL32_MIN 0x40000000ull

enum form {
    FORM_RELATIVE, /* 32 bits from a base; per-CPU symbols may be absolute */
    FORM_ABSOLUTE, /* pointers */
    FORM_PLACE,    /* 32 bits, signed, from where they stand */
};

struct scan {
    const uint8_t *d;
    size_t size;
    uint64_t linear; /* of d, 0: unknown */
    uint64_t steps;
    struct elf elf; /* segs is 0 if it is no ELF file */
};

/* Offsets in the image. All of it was seen to lie inside, in find_*(). */
struct kallsyms {
    size_t index, tokens, num, names;
    uint32_t n;
    unsigned pointer; /* its size, 8 or 4 */
    uint16_t token[TOKENS], token_len[TOKENS];
};

struct addresses {
    enum form form;
    size_t at;
    unsigned width;
    bool percpu;   /* FORM_RELATIVE: values from 0 on are absolute, others count down from base-1 */
    uint64_t base; /* FORM_RELATIVE: as it says; FORM_PLACE: the address of `at` */
};

/* ---- tokens ---- */

static bool is_index(const uint8_t *p)
{
    uint32_t first = le32_load(p);

    if ((first & 0xFFFF) != 0 || first == 0 || first >> 16 > TOKEN_MAX)
        return false;
    for (unsigned i = 1; i < TOKENS; i++) {
        unsigned prev = le16_load(p + 2 * (i - 1)), next = le16_load(p + 2 * i);

        if (next <= prev || next - prev > TOKEN_MAX)
            return false;
    }
    return true;
}

/* Does the table of k->index begin at `tokens`? Each string ends where the next begins. */
static bool is_token_table(const struct scan *s, struct kallsyms *k, size_t tokens)
{
    const uint8_t *t = s->d + tokens, *end = s->d + k->index;

    for (unsigned i = 0; i < TOKENS; i++) {
        unsigned at = le16_load(s->d + k->index + 2 * i);
        const uint8_t *nul;
        size_t room = (size_t)(end - t);

        if (at >= room)
            return false;
        nul = memchr(t + at, 0, min_u64(room - at, TOKEN_MAX));
        if (nul == NULL ||
            (i + 1 < TOKENS && nul + 1 != t + le16_load(s->d + k->index + 2 * (i + 1))))
            return false;
        k->token[i] = (uint16_t)at;
        k->token_len[i] = (uint16_t)(nul - t - at);
        if (i + 1 == TOKENS && end - nul > 8) /* padding follows, less than a pointer */
            return false;
    }
    /* What occurs in names stands for itself; no kernel lacks a digit or a small letter. */
    for (unsigned c = '0'; c <= 'z'; c++)
        if ((c <= '9' || c >= 'a') && (k->token_len[c] != 1 || t[k->token[c]] != c))
            return false;
    k->tokens = tokens;
    return true;
}

static bool find_tokens(struct scan *s, struct kallsyms *k)
{
    unsigned last = le16_load(s->d + k->index + INDEX_SIZE - 2);

    for (size_t back = last + 1u; back <= last + TOKEN_MAX + 8u && back <= k->index; back++) {
        if (((k->index - back) & 3) != 0)
            continue;
        s->steps += 64; /* what it may read */
        if (is_token_table(s, k, k->index - back))
            return true;
    }
    return false;
}

/* ---- names ---- */

/* The name at *pos, which ends before limit: its tokens; NULL if it does not. Goes on behind it. */
static const uint8_t *next_name(const struct scan *s, size_t *pos, size_t limit, size_t *len)
{
    size_t at = *pos;

    if (at >= limit)
        return NULL;
    *len = s->d[at++];
    if ((*len & 0x80) != 0) {
        if (at >= limit)
            return NULL;
        *len = (*len & 0x7F) | (size_t)s->d[at++] << 7;
    }
    if (*len == 0 || *len > limit - at)
        return NULL;
    *pos = at + *len;
    return s->d + at;
}

static uint64_t marker(const struct scan *s, size_t markers, size_t i, unsigned width)
{
    const uint8_t *p = s->d + markers + i * width;

    return width == 8 ? le64_load(p) : le32_load(p);
}

/* Do k->n names begin at k->names, agree with the markers and end where those begin? */
static bool names_fit(struct scan *s, const struct kallsyms *k, size_t markers, unsigned width)
{
    size_t pos = k->names, len;

    for (uint32_t i = 0; i < k->n; i++) {
        if (s->steps++ >= STEPS_MAX)
            return false;
        if (i % MARKER_EVERY == 0 && marker(s, markers, i / MARKER_EVERY, width) != pos - k->names)
            return false;
        if (next_name(s, &pos, markers, &len) == NULL)
            return false;
    }
    for (; pos < markers && markers - pos < k->pointer; pos++)
        if (s->d[pos] != 0)
            return false;
    return pos == markers;
}

/*
 * `count` values at `markers` look like them; the last may be none, if what follows looks like one.
 * Names begin where the number of symbols stands before them that they are.
 */
static bool find_names(struct scan *s, struct kallsyms *k, size_t markers, unsigned width,
                       size_t count)
{
    uint64_t last = marker(s, markers, count - 1, width);
    uint64_t least = marker(s, markers, count >= 3 ? count - 2 : count - 1, width);

    for (k->pointer = 8; k->pointer >= 4; k->pointer -= 4) {
        for (uint64_t back = align_up(least + 2, 4); back <= last + MARKER_MAX; back += 4) {
            size_t need;

            s->steps++;
            if (back + k->pointer > markers || s->steps >= STEPS_MAX)
                break;
            k->names = markers - back;
            k->num = k->names - k->pointer;
            k->n = le32_load(s->d + k->num);
            need = ((uint64_t)k->n + MARKER_EVERY - 1) / MARKER_EVERY;
            if (k->n > SYMBOLS_MAX || need > count || need + 1 < count || need < 2 ||
                (k->names & (k->pointer - 1)) != 0)
                continue;
            if (names_fit(s, k, markers, width))
                return true;
        }
    }
    return false;
}

/* Markers: 0, and then each greater than the one before by what 256 names may take. */
static bool find_markers(struct scan *s, struct kallsyms *k)
{
    static const unsigned widths[] = {4, 8};
    size_t reach = min_u64(k->tokens, NAMES_REACH);

    for (size_t back = 8; back <= reach && s->steps < STEPS_MAX; back += 4) {
        size_t markers = k->tokens - back;

        s->steps++;
        if (le32_load(s->d + markers) != 0)
            continue;
        for (unsigned w = 0; w < countof(widths); w++) {
            size_t count = 1, max = back / widths[w];
            uint64_t prev = 0;

            for (; count < max; count++) {
                uint64_t v = marker(s, markers, count, widths[w]);

                s->steps++;
                if (v < prev + MARKER_MIN || v - prev > MARKER_MAX)
                    break;
                prev = v;
            }
            if (count >= 2 && find_names(s, k, markers, widths[w], count))
                return true;
        }
    }
    return false;
}

/* ---- addresses ---- */

static uint64_t address(const struct scan *s, const struct addresses *a, uint32_t i)
{
    const uint8_t *p = s->d + a->at + (size_t)i * a->width;
    uint64_t v;
    int64_t offset;

    if (a->form == FORM_ABSOLUTE)
        return a->width == 8 ? le64_load(p) : le32_load(p);
    v = le32_load(p);
    offset = (int32_t)v;
    if (a->form == FORM_PLACE)
        return a->base + (uint64_t)i * a->width + (uint64_t)offset;
    if (!a->percpu)
        return a->base + v;
    return offset >= 0 ? v : a->base - 1 - (uint64_t)offset;
}

/* They are sorted, and end in the kernel's half of the address space. */
static bool addresses_fit(struct scan *s, const struct kallsyms *k, const struct addresses *a)
{
    uint64_t prev = address(s, a, 0), first = prev;

    for (uint32_t i = 1; i < k->n; i++) {
        uint64_t next = address(s, a, i);

        s->steps++;
        if (next < prev)
            return false;
        prev = next;
    }
    return prev > first && prev >= (k->pointer == 8 ? KERNEL64_MIN : KERNEL32_MIN) &&
           (k->pointer == 8 || prev <= UINT32_MAX);
}

/* The address of a place in the image, 0 if it is unknown. */
static uint64_t linear_at(const struct scan *s, size_t at)
{
    for (unsigned i = 0; i < s->elf.segs; i++) {
        const struct elf_segment *g = &s->elf.seg[i];
        size_t start = (size_t)(g->data - s->d);

        if (at >= start && at - start < g->filesz)
            return g->vaddr + (at - start);
    }
    return s->linear != 0 && s->elf.segs == 0 ? s->linear + at : 0;
}

/* base: where it would stand, for FORM_RELATIVE. */
static bool try_form(struct scan *s, const struct kallsyms *k, enum form form, size_t at,
                     size_t base, struct addresses *a)
{
    uint64_t bytes;

    *a =
        (struct addresses){.form = form, .at = at, .width = form == FORM_ABSOLUTE ? k->pointer : 4};
    bytes = (uint64_t)k->n * a->width;
    if (at > s->size || bytes > s->size - at)
        return false;
    if (form == FORM_RELATIVE) {
        if (base > s->size || s->size - base < k->pointer)
            return false;
        a->base = k->pointer == 8 ? le64_load(s->d + base) : le32_load(s->d + base);
        if (a->base < (k->pointer == 8 ? KERNEL64_MIN : KERNEL32_MIN))
            return false;
        a->percpu = (le32_load(s->d + at + bytes - 4) & 0x80000000u) != 0;
    } else if (form == FORM_PLACE) {
        a->base = linear_at(s, at);
        if (a->base == 0)
            return false;
    }
    return addresses_fit(s, k, a);
}

static bool find_addresses(struct scan *s, const struct kallsyms *k, struct addresses *a)
{
    size_t offsets = align_up(4 * (uint64_t)k->n, k->pointer);
    size_t pointers = (size_t)k->n * k->pointer;
    size_t behind = k->index + INDEX_SIZE;

    if (k->num >= offsets + k->pointer &&
        try_form(s, k, FORM_RELATIVE, k->num - k->pointer - offsets, k->num - k->pointer, a))
        return true;
    if (try_form(s, k, FORM_RELATIVE, behind, behind + offsets, a))
        return true;
    if (k->num >= pointers && try_form(s, k, FORM_ABSOLUTE, k->num - pointers, 0, a))
        return true;
    return try_form(s, k, FORM_ABSOLUTE, behind, 0, a) || try_form(s, k, FORM_PLACE, behind, 0, a);
}

/* ---- all of it ---- */

static int decode(struct symbols_build *b, const struct scan *s, const struct kallsyms *k,
                  const struct addresses *a)
{
    char text[SYMBOLS_NAME_MAX + 1]; /* the letter and the name */
    size_t pos = k->names;
    int rc = 0;

    for (uint32_t i = 0; i < k->n && rc == 0; i++) {
        size_t len, used = 0;
        const uint8_t *p = next_name(s, &pos, k->tokens, &len);

        if (p == NULL)
            break;
        for (size_t t = 0; t < len; t++) {
            size_t n = min_u64(k->token_len[p[t]], sizeof(text) - used);

            memcpy(text + used, s->d + k->tokens + k->token[p[t]], n);
            used += n;
        }
        if (used > 1)
            rc = symbols_add_typed(b, address(s, a, i), text[0], text + 1, used - 1);
    }
    return rc;
}

int symbols_kallsyms(struct symbols_build *b, const uint8_t *image, size_t size, uint64_t linear)
{
    struct scan s = {.d = image, .size = size, .linear = linear};
    struct addresses a;
    struct kallsyms k;

    if (elf_magic(image, size) && elf_parse(image, size, &s.elf, NULL) != 0)
        s.elf.segs = 0;
    for (size_t at = 0; at + INDEX_SIZE <= size && s.steps < STEPS_MAX; at += 4) {
        if (!is_index(image + at))
            continue;
        k = (struct kallsyms){.index = at};
        if (find_tokens(&s, &k) && find_markers(&s, &k) && find_addresses(&s, &k, &a))
            return decode(b, &s, &k, &a);
    }
    return -ENOENT;
}
