/* Symbol tables from text and from ELF files, good and damaged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

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

static int load_bytes(const void *data, size_t len, struct symbols **s, struct error *err)
{
    char path[] = "/tmp/test_symbols.XXXXXX";
    int fd = mkstemp(path), rc;

    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), len);
    close(fd);
    *err = (struct error){0};
    rc = symbols_load_file(path, s, err);
    unlink(path);
    return rc;
}

static struct symbols *load_text(const char *text)
{
    struct symbols *s = NULL;
    struct error err;

    if (load_bytes(text, strlen(text), &s, &err) != 0)
        fail_msg("%s", err.text);
    return s;
}

static void refuses(const void *data, size_t len, const char *words)
{
    struct symbols *s = NULL;
    struct error err;

    assert_true(load_bytes(data, len, &s, &err) < 0);
    assert_null(s);
    if (strstr(err.text, words) == NULL)
        fail_msg("'%s' lacks '%s'", err.text, words);
}

/* name NULL: nothing is known there. */
static void finds(const struct symbols *s, uint64_t addr, const char *name, uint64_t offset)
{
    uint64_t at = ~0ull;
    const char *seen = symbols_find(s, addr, &at);

    if (name == NULL) {
        assert_null(seen);
        return;
    }
    if (seen == NULL)
        fail_msg("nothing at %#llx instead of %s", (unsigned long long)addr, name);
    assert_string_equal(seen, name);
    assert_int_equal(at, offset);
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

/* ---- System.map ---- */

static void system_map(void **state)
{
    struct symbols *s = load_text("0000000000000000 D fixed_percpu_data\n"
                                  "ffffffff81000000 T _text\n"
                                  "ffffffff81000000 T _stext\n"
                                  "ffffffff81000100 t local\n"
                                  "ffffffff81000180 A absolute\n"
                                  "ffffffff81000200 W weak\t[module]\n"
                                  "ffffffff81000300 R rodata\n"
                                  "ffffffff81000380 d data\n"
                                  "ffffffff81000400 T init\n"
                                  "ffffffff81000500 B _end");
    uint64_t addr;

    (void)state;
    assert_int_equal(symbols_count(s), 5);
    finds(s, 0, NULL, 0);
    finds(s, 0xffffffff80ffffff, NULL, 0);
    finds(s, 0xffffffff81000000, "_text", 0);
    finds(s, 0xffffffff810000ff, "_text", 0xff);
    finds(s, 0xffffffff81000100, "local", 0);
    finds(s, 0xffffffff81000190, "local", 0x90);
    finds(s, 0xffffffff81000200, "weak", 0);
    finds(s, 0xffffffff810002ff, "weak", 0xff);
    finds(s, 0xffffffff81000300, NULL, 0);
    finds(s, 0xffffffff810003ff, NULL, 0);
    finds(s, 0xffffffff81000400, "init", 0);
    finds(s, 0xffffffff81000500, NULL, 0);
    finds(s, UINT64_MAX, NULL, 0);
    assert_true(symbols_lookup(s, "_stext", &addr));
    assert_int_equal(addr, 0xffffffff81000000);
    assert_false(symbols_lookup(s, "rodata", &addr));
    symbols_destroy(s);
    symbols_destroy(NULL);
}

static void unsorted_map(void **state)
{
    struct symbols *s = load_text("30 T c\n20 D data\n10 T a\n20 T b\n40 D data\n18 D data\n");

    (void)state;
    finds(s, 0xf, NULL, 0);
    finds(s, 0x17, "a", 7);
    finds(s, 0x18, NULL, 0);
    finds(s, 0x2f, "b", 0xf);
    finds(s, 0x3f, "c", 0xf);
    finds(s, 0x40, NULL, 0);
    symbols_destroy(s);
}

static void end_marks(void **state)
{
    struct symbols *s = load_text("1000 T _text\n1800 T _etext\n3000 T init\n3400 T _einittext\n");

    (void)state;
    finds(s, 0x17ff, "_text", 0x7ff);
    finds(s, 0x1800, "_etext", 0);
    finds(s, 0x1801, NULL, 0);
    finds(s, 0x33ff, "init", 0x3ff);
    finds(s, 0x3500, NULL, 0);
    symbols_destroy(s);
}

static void moved(void **state)
{
    struct symbols *s = load_text("1000 T a\n2000 T b\n3000 T c\n4000 D d\n");

    (void)state;
    symbols_move(s, 0x10000);
    finds(s, 0x1000, NULL, 0);
    finds(s, 0x12010, "b", 0x10);
    finds(s, 0x14000, NULL, 0);
    symbols_move(s, (uint64_t)-0x12800); /* a below 0, so at the top */
    finds(s, 0xf00, "c", 0x700);
    finds(s, 0x800, "c", 0);
    finds(s, 0x7ff, NULL, 0);
    finds(s, (uint64_t)-0x800, "b", 0);
    finds(s, (uint64_t)-0x1800, "a", 0);
    finds(s, (uint64_t)-0x1801, NULL, 0);
    symbols_destroy(s);
}

static void bad_text(void **state)
{
    static const char stub[] = "ffffffffffffffff B The real System.map is in the "
                               "linux-image-<version>-dbg package\n";

    (void)state;
    refuses(stub, sizeof(stub) - 1, "names no functions");
    refuses("hello\n", 6, "is no ELF file");
    refuses("\n", 1, "is no ELF file");
    refuses("10 T\n", 5, "is no ELF file");
    refuses("10 T \n", 6, "is no ELF file");
    refuses("11112222333344445 T a\n", 22, "is no ELF file");
    refuses("10 T a\n11 T\n", 12, "line 2");
    refuses("00 T a\n00 t b\n", 14, "as root");
    refuses("", 0, "is empty");
}

static void names_are_printable(void **state)
{
    struct symbols *s = load_text("10 T a\x1b[2J\x7f\xff\n");
    char text[1024];

    (void)state;
    finds(s, 0x10, "a?[2J??", 0);
    symbols_destroy(s);
    strcpy(text, "10 T ");
    memset(text + 5, 'x', 1000);
    text[1005] = '\0';
    s = load_text(text);
    assert_int_equal(strlen(symbols_find(s, 0x10, NULL)), 511);
    symbols_destroy(s);
}

/* ---- ELF ---- */

static void own_program(void **state)
{
    struct symbols *s = NULL;
    struct error err = {0};
    uint64_t offset;

    (void)state;
    if (symbols_load_file("/proc/self/exe", &s, &err) != 0)
        fail_msg("%s", err.text);
    /* It may be loaded anywhere, so one function says where, and others are looked up. */
    assert_true(symbols_lookup(s, "own_program", &offset));
    symbols_move(s, (uintptr_t)own_program - offset);
    finds(s, (uintptr_t)own_program + 1, "own_program", 1);
    finds(s, (uintptr_t)symbols_find, "symbols_find", 0);
    finds(s, (uintptr_t)&err, NULL, 0);
    symbols_destroy(s);
}

#define ELF_ROOM 2048u

struct elf_file {
    uint8_t d[ELF_ROOM];
    bool is64;
    unsigned symbols, names;
};

#define AT_SECTIONS 0x100u
#define AT_TEXT 0x300u
#define AT_SYMBOLS 0x400u
#define AT_NAMES 0x600u
#define ELF_SIZE 0x700u

static void put_word(struct elf_file *f, unsigned at32, unsigned at64, uint64_t v)
{
    if (f->is64)
        le64_store(f->d + at64, v);
    else
        le32_store(f->d + at32, (uint32_t)v);
}

static void put_section(struct elf_file *f, unsigned i, uint32_t type, uint64_t flags,
                        uint64_t addr, uint64_t offset, uint64_t size, uint32_t link)
{
    unsigned p = AT_SECTIONS + i * (f->is64 ? 64 : 40);

    le32_store(f->d + p + 4, type);
    put_word(f, p + 8, p + 8, flags);
    put_word(f, p + 12, p + 16, addr);
    put_word(f, p + 16, p + 24, offset);
    put_word(f, p + 20, p + 32, size);
    le32_store(f->d + p + (f->is64 ? 40 : 24), link);
}

static void put_symbol(struct elf_file *f, const char *name, unsigned info, unsigned section,
                       uint64_t value, uint64_t size)
{
    unsigned p = AT_SYMBOLS + f->symbols++ * (f->is64 ? 24 : 16);

    le32_store(f->d + p, f->names);
    strcpy((char *)f->d + AT_NAMES + f->names, name);
    f->names += (unsigned)strlen(name) + 1;
    put_word(f, p + 4, p + 8, value);
    put_word(f, p + 8, p + 16, size);
    f->d[p + (f->is64 ? 4 : 12)] = (uint8_t)info;
    le16_store(f->d + p + (f->is64 ? 6 : 14), (uint16_t)section);
}

/* Sections: none, text at 0x400000 of 0x100 bytes, data behind it, symbols, strings. */
static void make_elf(struct elf_file *f, bool is64, bool dynamic)
{
    static const uint8_t magic[7] = {0x7F, 'E', 'L', 'F', 0, 1, 1};

    memset(f, 0, sizeof(*f));
    f->is64 = is64;
    memcpy(f->d, magic, sizeof(magic));
    f->d[4] = is64 ? 2 : 1;
    le16_store(f->d + 18, is64 ? 62 : 3);
    put_word(f, 24, 24, 0x400000);
    put_word(f, 28, 32, 0x40);
    put_word(f, 32, 40, AT_SECTIONS);
    le16_store(f->d + (is64 ? 54 : 42), is64 ? 56 : 32);
    le16_store(f->d + (is64 ? 56 : 44), 1);
    le16_store(f->d + (is64 ? 58 : 46), is64 ? 64 : 40);
    le16_store(f->d + (is64 ? 60 : 48), 5);
    le32_store(f->d + 0x40, 1);
    put_word(f, 0x44, 0x48, AT_TEXT);
    put_word(f, 0x48, 0x50, 0x400000);
    put_word(f, 0x4C, 0x58, 0x400000);
    put_word(f, 0x50, 0x60, 0x100);
    put_word(f, 0x54, 0x68, 0x200);
    f->names = 1;
    f->symbols = 1;
    put_symbol(f, "local", 0x02, 1, 0x400020, 0x10);
    put_symbol(f, "_start", 0x10, 1, 0x400000, 0);
    put_symbol(f, "weak", 0x22, 1, 0x400040, 0x20);
    put_symbol(f, "global", 0x12, 1, 0x400040, 0x20);
    put_symbol(f, "inner", 0x02, 1, 0x400048, 4);
    put_symbol(f, "label", 0x00, 1, 0x4000f0, 0);
    put_symbol(f, "object", 0x11, 2, 0x400100, 8);
    put_symbol(f, "in_data", 0x10, 2, 0x400108, 8);
    put_symbol(f, "undefined", 0x12, 0, 0, 0);
    put_symbol(f, "file.c", 0x04, 0xfff1, 0, 0);
    put_section(f, 1, 1, 6, 0x400000, AT_TEXT, 0x100, 0);
    put_section(f, 2, 8, 3, 0x400100, 0, 0x100, 0);
    put_section(f, 3, dynamic ? 11 : 2, 0, 0, AT_SYMBOLS, f->symbols * (is64 ? 24u : 16u), 4);
    put_section(f, 4, 3, 0, 0, AT_NAMES, f->names, 0);
}

static void elf_files(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < 4; kind++) {
        struct symbols *s = NULL;
        struct elf_file f;
        struct error err;

        make_elf(&f, (kind & 1) != 0, (kind & 2) != 0);
        if (load_bytes(f.d, ELF_SIZE, &s, &err) != 0)
            fail_msg("kind %u: %s", kind, err.text);
        assert_int_equal(symbols_count(s), 6);
        finds(s, 0x3fffff, NULL, 0);
        finds(s, 0x400000, "_start", 0);
        finds(s, 0x40001f, "_start", 0x1f);
        finds(s, 0x40002f, "local", 0xf);
        finds(s, 0x400030, NULL, 0);
        finds(s, 0x400040, "global", 0);
        finds(s, 0x40004a, "inner", 2);
        finds(s, 0x40005f, "inner", 0x17); /* of global, which reaches this far */
        finds(s, 0x400060, NULL, 0);
        finds(s, 0x4000ff, "label", 0xf);
        finds(s, 0x400100, NULL, 0);
        symbols_destroy(s);
    }
}

static void damaged_elf(void **state)
{
    uint64_t random = seed_of_run();

    (void)state;
    for (unsigned i = 0; i < 2 * ELF_SIZE; i++) {
        struct symbols *s = NULL;
        struct elf_file f;
        struct error err;

        make_elf(&f, (i & 1) != 0, false);
        f.d[i / 2] ^= (uint8_t)(1 + next_random(&random) % 255);
        if (load_bytes(f.d, next_random(&random) % 4 != 0 ? ELF_SIZE : ELF_SIZE - i / 2, &s,
                       &err) == 0)
            use(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(system_map),  cmocka_unit_test(unsorted_map),
        cmocka_unit_test(end_marks),   cmocka_unit_test(moved),
        cmocka_unit_test(bad_text),    cmocka_unit_test(names_are_printable),
        cmocka_unit_test(own_program), cmocka_unit_test(elf_files),
        cmocka_unit_test(damaged_elf),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
