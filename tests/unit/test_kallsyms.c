/* kallsyms in all its layouts, made by a small encoder, good and damaged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bits.h"
#include "base/endian.h"
#include "boot/symbols.h"

/* ---- help ---- */

static uint64_t seed_of_run(void)
{
    const char *given = getenv("SYMBOLS_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 0) : (uint64_t)time(NULL);

    printf("SYMBOLS_SEED=%#llx\n", (unsigned long long)seed);
    return seed * 0x9E3779B97F4A7C15ull | 1;
}

static uint32_t next_random(uint64_t *x)
{
    *x ^= *x << 13;
    *x ^= *x >> 7;
    *x ^= *x << 17;
    return (uint32_t)(*x >> 32);
}

/* Whatever a damaged table gives must be usable. */
static void use(struct symbols *s)
{
    uint64_t addr;

    for (uint64_t a = 1; a != 0; a <<= 1) {
        const char *name = symbols_find(s, a, NULL);

        for (; name != NULL && *name != '\0'; name++)
            assert_true(*name > ' ' && *name <= '~');
    }
    symbols_find(s, UINT64_MAX, &addr);
    symbols_lookup(s, "func_1", &addr);
    symbols_move(s, 0x123456789ABCDEFull);
    symbols_destroy(s);
}

#define SYMBOLS 700u
#define BASE64 0xffffffff81000000ull
#define BASE32 0xc1000000ull

enum order { ORDER_OLD, ORDER_6_2, ORDER_6_4, ORDERS };
enum form { FORM_RELATIVE, FORM_PERCPU, FORM_ABSOLUTE, FORM_PLACE, FORMS };

struct layout {
    enum order order;
    enum form form;
    unsigned pointer, marker;
};

struct sym {
    uint64_t addr;
    char type;
    char name[400];
};

struct image {
    uint8_t d[128 * 1024];
    size_t n;       /* bytes so far */
    size_t table;   /* where kallsyms begins */
    size_t tokens;  /* where its token table begins */
    size_t linear;  /* of d */
    unsigned texts; /* functions */
    struct sym sym[SYMBOLS];
};

static void make_symbols(struct image *im, const struct layout *l)
{
    uint64_t addr = l->pointer == 8 ? BASE64 : BASE32;

    im->texts = 0;
    for (unsigned i = 0; i < SYMBOLS; i++) {
        struct sym *s = &im->sym[i];

        s->addr = addr;
        s->type = i % 7 == 3 ? 'd' : i % 5 == 0 ? 'T' : i % 5 == 1 ? 'W' : 't';
        snprintf(s->name, sizeof(s->name), i % 3 == 0 ? "func_%u" : "do_sys_open%u.isra.0", i);
        if (i == 300)
            memset(s->name, 'Q', 390); /* its length needs two bytes */
        if (l->form == FORM_PERCPU && i < 5) {
            s->addr = i * 64;
            s->type = 'A';
            continue;
        }
        im->texts += s->type != 'd';
        if (i % 11 != 4) /* else the next is an alias */
            addr += 16 + i % 90;
    }
}

static const char *const words[] = {"func_", "do_sys_", "open", ".isra.0", "tdo_sys_open"};

static const char *token(unsigned c, char one[2])
{
    if (c >= 0x80 && c < 0x80 + countof(words))
        return words[c - 0x80];
    one[0] = c > ' ' && c < 0x7f ? (char)c : '\0';
    one[1] = '\0';
    return one;
}

static void put(struct image *im, uint64_t v, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        im->d[im->n++] = (uint8_t)(v >> (8 * i));
}

static void align(struct image *im, unsigned to)
{
    while (im->n % to != 0)
        im->d[im->n++] = 0;
}

static void put_name(struct image *im, const struct sym *s)
{
    char text[401];
    uint8_t code[401];
    size_t n = 0;

    snprintf(text, sizeof(text), "%c%s", s->type, s->name);
    for (const char *p = text; *p != '\0';) {
        unsigned best = (uint8_t)*p;
        size_t len = 1;

        for (unsigned w = 0; w < countof(words); w++)
            if (strncmp(p, words[w], strlen(words[w])) == 0 && strlen(words[w]) > len) {
                best = 0x80 + w;
                len = strlen(words[w]);
            }
        code[n++] = (uint8_t)best;
        p += len;
    }
    if (n >= 0x80)
        put(im, 0x80 | (n & 0x7f), 1);
    put(im, n >= 0x80 ? n >> 7 : n, 1);
    for (size_t i = 0; i < n; i++)
        put(im, code[i], 1);
}

static void put_addresses(struct image *im, const struct layout *l)
{
    uint64_t base = l->pointer == 8 ? BASE64 : BASE32;

    align(im, l->pointer);
    for (unsigned i = 0; i < SYMBOLS; i++) {
        uint64_t addr = im->sym[i].addr;

        if (l->form == FORM_ABSOLUTE)
            put(im, addr, l->pointer);
        else if (l->form == FORM_PLACE)
            put(im, addr - (im->linear + im->n), 4);
        else if (l->form == FORM_PERCPU)
            put(im, addr >= base ? base - 1 - addr : addr, 4);
        else
            put(im, addr - base, 4);
    }
    align(im, l->pointer);
    if (l->form == FORM_RELATIVE || l->form == FORM_PERCPU)
        put(im, base, l->pointer);
}

static void put_sequence(struct image *im, const struct layout *l)
{
    align(im, l->pointer);
    for (unsigned i = 0; i < SYMBOLS; i++) {
        uint32_t v = (i * 271u + 1) % SYMBOLS; /* so the first looks like one more marker */

        put(im, v >> 16 | (v & 0xff00) | (v & 0xff) << 16, 3);
    }
}

static void make_image(struct image *im, const struct layout *l, uint64_t *random)
{
    uint32_t markers[(SYMBOLS + 255) / 256], index[256];
    char one[2];
    size_t names;

    im->n = 0;
    im->linear = l->pointer == 8 ? 0xffffffff82000000 : 0xc2000000;
    make_symbols(im, l);
    while (im->n < 4096 + 8 * 37)
        put(im, next_random(random), 4);
    im->table = im->n;
    if (l->order != ORDER_6_4)
        put_addresses(im, l);
    align(im, l->pointer);
    put(im, SYMBOLS, 4);
    align(im, l->pointer);
    names = im->n;
    for (unsigned i = 0; i < SYMBOLS; i++) {
        if (i % 256 == 0)
            markers[i / 256] = (uint32_t)(im->n - names);
        put_name(im, &im->sym[i]);
    }
    align(im, l->pointer);
    for (unsigned i = 0; i < countof(markers); i++)
        put(im, markers[i], l->marker);
    if (l->order == ORDER_6_2)
        put_sequence(im, l);
    align(im, l->pointer);
    im->tokens = im->n;
    for (unsigned c = 0; c < 256; c++) {
        index[c] = (uint32_t)(im->n - im->tokens);
        for (const char *p = token(c, one); *p != '\0'; p++)
            put(im, (uint8_t)*p, 1);
        put(im, 0, 1);
    }
    align(im, l->pointer);
    for (unsigned c = 0; c < 256; c++)
        put(im, index[c], 2);
    if (l->order == ORDER_6_4) {
        put_addresses(im, l);
        put_sequence(im, l);
    }
    assert_true(im->n < sizeof(im->d));
}

static int decode(const struct image *im, size_t size, uint64_t linear, struct symbols **s)
{
    uint8_t *copy = malloc(size + 1); /* no byte more: so that a sanitizer sees reads behind it */
    struct error err = {0};
    int rc;

    assert_non_null(copy);
    copy = realloc(copy, size != 0 ? size : 1);
    memcpy(copy, im->d, size);
    *s = NULL;
    rc = symbols_from_kernel(copy, size, linear, s, &err);
    free(copy);
    if (rc != 0)
        assert_true(strlen(err.text) > 0);
    return rc;
}

static void check_decoded(const struct image *im, const struct symbols *s)
{
    assert_int_equal(symbols_count(s), im->texts);
    for (unsigned i = 0; i < SYMBOLS; i++) {
        const struct sym *y = &im->sym[i];
        const char *name = symbols_find(s, y->addr + 1, NULL);
        uint64_t at;

        if (y->type == 'd' || y->type == 'A') {
            assert_false(symbols_lookup(s, y->name, &at));
            continue;
        }
        assert_true(symbols_lookup(s, y->name, &at));
        assert_int_equal(at, y->addr);
        if (i > 0 && im->sym[i - 1].addr != y->addr)
            assert_string_equal(name, y->name);
        else if (i > 0 && im->sym[i - 1].type != 'd')
            assert_string_equal(name, im->sym[i - 1].name);
    }
}

/* Calls each for every layout that a kernel can have. */
static void every_layout(struct image *im, uint64_t *random,
                         void (*each)(struct image *, const struct layout *, uint64_t *))
{
    for (unsigned i = 0; i < ORDERS * FORMS * 3; i++) {
        struct layout l = {.order = i % ORDERS,
                           .form = i / ORDERS % FORMS,
                           .pointer = i / ORDERS / FORMS < 2 ? 8 : 4,
                           .marker = i / ORDERS / FORMS == 1 ? 8 : 4};

        if ((l.form == FORM_PERCPU && l.pointer == 4) ||
            (l.form == FORM_PLACE && l.order != ORDER_6_4))
            continue;
        make_image(im, &l, random);
        each(im, &l, random);
    }
}

static void one_layout(struct image *im, const struct layout *l, uint64_t *random)
{
    struct symbols *s;

    (void)random;
    if (decode(im, im->n, im->linear, &s) != 0)
        fail_msg("order %d, form %d, pointers %u, markers %u: not found", (int)l->order,
                 (int)l->form, l->pointer, l->marker);
    check_decoded(im, s);
    symbols_destroy(s);
    /* Where the image lies must be known for one form only. */
    assert_int_equal(decode(im, im->n, 0, &s), l->form == FORM_PLACE ? -ENOENT : 0);
    symbols_destroy(s);
}

static void layouts(void **state)
{
    struct image *im = calloc(1, sizeof(*im));
    uint64_t random = seed_of_run();

    (void)state;
    assert_non_null(im);
    every_layout(im, &random, one_layout);
    free(im);
}

/* Each byte of the table in turn; some images also cut short. */
static void damage(struct image *im, const struct layout *l, uint64_t *random)
{
    struct symbols *s;
    unsigned step = l->order == ORDER_OLD && l->form == FORM_PERCPU ? 1 : 7;

    for (size_t at = im->table; at < im->n; at += step) {
        uint8_t was = im->d[at];

        im->d[at] ^= (uint8_t)(1 + next_random(random) % 255);
        if (decode(im, im->n, im->linear, &s) == 0)
            use(s);
        im->d[at] = was;
    }
    for (unsigned i = 0; i < 50; i++)
        if (decode(im, next_random(random) % im->n, im->linear, &s) == 0)
            use(s);
}

static void damaged_tables(void **state)
{
    struct image *im = calloc(1, sizeof(*im));
    uint64_t random = seed_of_run();

    (void)state;
    assert_non_null(im);
    every_layout(im, &random, damage);
    free(im);
}

/*
 * Names that agree with the markers wherever one begins: the search must give up, and not go
 * through a million of them from each of 30,000 places.
 */
static void endless_search(void **state)
{
    static const struct layout l = {ORDER_OLD, FORM_RELATIVE, 8, 4};
    const size_t names = 1040 * 1000, markers = 3907; /* what 0xf4203 names have */
    struct image *im = calloc(1, sizeof(*im));
    uint64_t random = seed_of_run();
    struct symbols *s = NULL;
    struct error err = {0};
    size_t size;
    uint8_t *big;
    clock_t start;

    (void)state;
    assert_non_null(im);
    make_image(im, &l, &random);
    size = 4 * (names + markers + 1) + im->n - im->tokens;
    big = calloc(1, size);
    assert_non_null(big);
    for (size_t i = 0; i < names; i++)
        le32_store(big + 4 * i, 0xf4203); /* a length of 3; also a number of names */
    for (size_t i = 0; i < markers; i++)
        le32_store(big + 4 * (names + i), (uint32_t)(1024 * i));
    memcpy(big + 4 * (names + markers + 1), im->d + im->tokens, im->n - im->tokens);
    start = clock();
    assert_int_equal(symbols_from_kernel(big, size, 0, &s, &err), -ENOENT);
    printf("gave up after %.1f s\n", (double)(clock() - start) / CLOCKS_PER_SEC);
    assert_true(clock() - start < 20 * CLOCKS_PER_SEC);
    free(big);
    free(im);
}

struct holes {
    const struct image *im;
    unsigned reads;
};

/* Whole pages from im->linear on, but the last, which no table needs. */
static int read_guest(void *ctx, uint64_t linear, void *to, size_t len)
{
    struct holes *h = ctx;
    uint64_t at = linear - h->im->linear;

    h->reads++;
    if (at + len > align_up(h->im->n, 4096))
        return -1;
    memcpy(to, h->im->d + at, len);
    return 0;
}

static int read_nothing(void *ctx, uint64_t linear, void *to, size_t len)
{
    (void)ctx;
    (void)linear;
    memset(to, 0xA5, len); /* what a failing reader leaves must not count */
    return -1;
}

static void guest_memory(void **state)
{
    static const struct layout l = {ORDER_6_4, FORM_PLACE, 8, 4};
    struct image *im = calloc(1, sizeof(*im));
    struct holes h = {im, 0};
    uint64_t random = seed_of_run();
    struct symbols *s = NULL;
    struct error err = {0};

    (void)state;
    assert_non_null(im);
    make_image(im, &l, &random);
    if (symbols_from_memory(read_guest, &h, im->linear, 1024 * 1024, &s, &err) != 0)
        fail_msg("%s", err.text);
    check_decoded(im, s);
    symbols_destroy(s);
    assert_true(h.reads > 16);
    assert_int_equal(symbols_from_memory(read_nothing, NULL, 0x1000, 65536, &s, &err), -EFAULT);
    assert_int_equal(symbols_from_memory(read_guest, &h, im->linear, 4096, &s, &err), -ENOENT);
    assert_int_equal(symbols_from_memory(read_guest, &h, im->linear + 8, 4096, &s, &err), -EINVAL);
    assert_int_equal(symbols_from_memory(read_guest, &h, 0, GIB, &s, &err), -EINVAL);
    free(im);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layouts),
        cmocka_unit_test(damaged_tables),
        cmocka_unit_test(endless_search),
        cmocka_unit_test(guest_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
