/* Symbols of Debian's kernels, where they are there: in the file, and moved in memory. */
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
#include "boot/decompress.h"
#include "boot/file.h"
#include "boot/symbols.h"
#include "boot/vmlinux.h"

#define SLIDE 0x12600000ull

/* build/guest/NAME/vmlinuz beside this build's folder. */
static bool kernel_path(const char *name, char *path, size_t size)
{
    char exe[512];
    ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);

    if (n < 0)
        return false;
    exe[n] = '\0';
    for (int up = 0; up < 4; up++) { /* FOLDER/tests/unit/PROGRAM */
        char *slash = strrchr(exe, '/');

        if (slash == NULL)
            return false;
        *slash = '\0';
    }
    snprintf(path, size, "%s/build/guest/%s/vmlinuz", exe, name);
    return access(path, R_OK) == 0;
}

static double milliseconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static uint64_t where(const struct symbols *s, const char *name)
{
    uint64_t addr = 0;

    if (!symbols_lookup(s, name, &addr))
        fail_msg("no %s", name);
    return addr;
}

/* What holds for each kernel that Debian builds; slide: how far it is from its link address. */
static void check_kernel(const struct symbols *s, bool is64, uint64_t slide)
{
    static const char *const order[] = {"_text", "schedule", "_etext", "start_kernel",
                                        "_einittext"};
    uint64_t offset, addr, prev = 0;

    assert_true(symbols_count(s) > 40000);
    assert_int_equal(where(s, "_text"), (is64 ? 0xffffffff81000000 : 0xc1000000) + slide);
    for (unsigned i = 0; i < countof(order); i++) {
        addr = where(s, order[i]);
        assert_true(addr > prev);
        assert_true(addr - where(s, "_text") < 64 * MIB);
        prev = addr;
    }
    addr = where(s, is64 ? "__x64_sys_read" : "__ia32_sys_read");
    assert_true(addr > where(s, "_text") && addr < where(s, "_etext"));
    assert_string_equal(symbols_find(s, addr + 3, &offset),
                        is64 ? "__x64_sys_read" : "__ia32_sys_read");
    assert_int_equal(offset, 3);
    assert_null(symbols_find(s, where(s, "_text") - 1, NULL));
    assert_null(symbols_find(s, where(s, "_text") + GIB / 2, NULL));
    assert_null(symbols_find(s, 0x1000, NULL));
}

static void file_of(const char *name, bool is64)
{
    struct symbols *s = NULL;
    struct error err = {0};
    char path[600];

    if (!kernel_path(name, path, sizeof(path))) {
        printf("no build/guest/%s/vmlinuz: not looked at\n", name);
        return;
    }
    if (symbols_load_file(path, &s, &err) != 0)
        fail_msg("%s", err.text);
    printf("%s: %u functions\n", name, symbols_count(s));
    check_kernel(s, is64, 0);
    symbols_destroy(s);
}

static void files(void **state)
{
    (void)state;
    file_of("cloud", true);
    file_of("generic", true);
    file_of("rt", true);
    file_of("686", false);
}

/* The unpacked ELF file of a bzImage. */
static uint8_t *unpacked(const char *path, size_t *size, uint64_t *link)
{
    struct error err = {0};
    uint8_t *file, *elf;
    uint64_t n, start;

    if (file_load("kernel", path, 256 * MIB, &file, &n, &err) != 0)
        fail_msg("%s", err.text);
    assert_true(n > 0x260);
    start = (file[0x1f1] + 1u) * 512u + le32_load(file + 0x248);
    assert_true(start + le32_load(file + 0x24c) <= n);
    if (unpack(file + start, le32_load(file + 0x24c), 512 * MIB, &elf, size, &err) != 0)
        fail_msg("%s", err.text);
    *link = le64_load(file + 0x258);
    free(file);
    return elf;
}

struct guest {
    const uint8_t *ram;
    uint64_t linear, size;
};

/* Pages before and behind the kernel are not there. */
static int read_guest(void *ctx, uint64_t linear, void *to, size_t len)
{
    const struct guest *g = ctx;

    if (linear < g->linear || linear - g->linear > g->size || len > g->size - (linear - g->linear))
        return -1;
    memcpy(to, g->ram + (linear - g->linear), len);
    return 0;
}

static void in_memory(void **state)
{
    struct symbols *s = NULL;
    struct error err = {0};
    struct vmlinux v;
    struct guest g;
    uint64_t link;
    char path[600];
    uint8_t *elf, *ram;
    size_t size;
    double start;

    (void)state;
    assert_true(kernel_path("cloud", path, sizeof(path)));
    elf = unpacked(path, &size, &link);
    start = milliseconds();
    assert_int_equal(symbols_from_kernel(elf, size, 0, &s, &err), 0);
    printf("%zu bytes decoded in %.1f ms\n", size, milliseconds() - start);
    check_kernel(s, true, 0);
    symbols_destroy(s);
    if (vmlinux_parse(elf, size, link, &v, &err) != 0)
        fail_msg("%s", err.text);
    assert_true(v.movable);
    ram = malloc(v.span);
    assert_non_null(ram);
    vmlinux_copy(&v, ram);
    vmlinux_relocate(&v, ram, SLIDE);
    free(elf);
    g = (struct guest){ram, VMLINUX_MAP + link + SLIDE, v.span};
    if (symbols_from_memory(read_guest, &g, g.linear - 4 * MIB, 128 * MIB, &s, &err) != 0)
        fail_msg("%s", err.text);
    check_kernel(s, true, SLIDE);
    symbols_destroy(s);
    free(ram);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files),
        cmocka_unit_test(in_memory),
    };
    char path[600];

    if (!kernel_path("cloud", path, sizeof(path))) {
        puts("build/guest/cloud is not there; tools/guest.sh cloud fetches it");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
