/* Firmware tables that do not fit, and the encodings of AML. Their bytes are in tests/golden. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/endian.h"
#include "boot/aml.h"
#include "boot/tables.h"

static struct board *make_board(uint64_t ram, unsigned cpus)
{
    struct board *b = calloc(1, sizeof(*b));

    assert_non_null(b);
    b->mem = gmem_create(ram, NULL);
    assert_non_null(b->mem);
    b->cpus = cpus;
    return b;
}

static void free_board(struct board *b)
{
    gmem_destroy(b->mem);
    free(b);
}

static void too_many_cpus(void **state)
{
    struct board *b = make_board(2 * MIB, 255);
    struct error err = {0};
    uint64_t rsdp = 0;

    (void)state;
    assert_int_equal(mptable_write(b, &err), -ENOSPC);
    assert_non_null(strstr(err.text, "255 vCPUs"));
    b->cpus = 190;
    assert_int_equal(mptable_write(b, &err), 0);
    b->cpus = 256;
    assert_int_equal(mptable_write(b, &err), -ENOSPC);
    assert_non_null(strstr(err.text, "use ACPI"));
    assert_int_equal(acpi_write(b, &rsdp, &err), 0);
    assert_int_equal(rsdp, BOARD_ACPI_TABLE);
    b->cpus = 1500;
    assert_int_equal(acpi_write(b, NULL, &err), -ENOSPC);
    assert_non_null(strstr(err.text, "fewer vCPUs"));
    free_board(b);
}

static void too_little_memory(void **state)
{
    struct board *b = make_board(512 * KIB, 1);
    struct e820_entry map[E820_MAX];
    struct error err = {0};
    unsigned n = e820_build(b, map);

    (void)state;
    assert_true(acpi_write(b, NULL, &err) < 0);
    assert_non_null(strstr(err.text, "less than 1 MiB"));
    assert_true(smbios_write(b, &err) < 0);
    assert_true(mptable_write(b, &err) < 0);
    assert_int_equal(map[0].size, 512 * KIB);
    for (unsigned i = 1; i < n; i++)
        assert_int_equal(map[i].type, E820_RESERVED);
    free_board(b);
}

static void smbios_strings_do_not_fit(void **state)
{
    struct board *b = make_board(2 * MIB, 1);
    struct config *c = config_create();
    struct error err = {0};
    char text[2100] = "";

    (void)state;
    b->config = c;
    memset(text, 'x', 1900);
    assert_int_equal(config_set(c, "system.version", text, &err), 0);
    assert_int_equal(smbios_write(b, &err), 0);
    memset(text, 'x', 2099);
    assert_int_equal(config_set(c, "system.version", text, &err), 0);
    assert_int_equal(smbios_write(b, &err), -ENOSPC);
    config_destroy(c);
    free_board(b);
}

/* A scope of n bytes: the length counts itself and the name. */
static const uint8_t *scope_of(struct aml *a, uint8_t *buf, size_t cap, size_t n)
{
    size_t mark;

    *a = (struct aml){.data = buf, .cap = cap};
    mark = aml_scope(a, "X");
    for (size_t i = 0; i < n; i++)
        aml_byte(a, 0xA5);
    aml_end(a, mark);
    return buf + 1;
}

static void package_lengths(void **state)
{
    static uint8_t buf[70000];
    struct aml a;
    const uint8_t *p;

    (void)state;
    p = scope_of(&a, buf, sizeof(buf), 63 - 1 - 4);
    assert_int_equal(p[0], 63);
    assert_memory_equal(p + 1, "X___\xA5", 5);
    p = scope_of(&a, buf, sizeof(buf), 64 - 1 - 4);
    assert_int_equal(le16_load(p), 0x0441); /* 65, two bytes */
    assert_memory_equal(p + 2, "X___\xA5", 5);
    p = scope_of(&a, buf, sizeof(buf), 4095 - 2 - 4);
    assert_int_equal(le16_load(p), 0xFF4F);
    p = scope_of(&a, buf, sizeof(buf), 4096 - 2 - 4);
    assert_int_equal(le32_load(p) & 0xFFFFFF, 0x010081); /* 4097, three bytes */
    p = scope_of(&a, buf, sizeof(buf), 65536 - 3 - 4);
    assert_int_equal(le32_load(p) & 0xFFFFFF, 0x100080);
    assert_false(a.full);
    assert_int_equal(a.len, 1 + 65536);
    scope_of(&a, buf, 100, 200);
    assert_true(a.full);
    scope_of(&a, buf, 69, 64); /* all but the length itself */
    assert_true(a.full);
}

static void names_and_numbers(void **state)
{
    static const uint8_t want[] = {'\\', 0x2E, '_', 'S',  'B', '_', 'P',  'C',  'I',  '0',  0x2F,
                                   3,    'A',  '_', '_',  '_', 'B', 'B',  '_',  '_',  'C',  'C',
                                   'C',  'C',  '^', 'Z',  '_', '_', '_',  0,    1,    0x0A, 2,
                                   0x0B, 0,    1,   0x0C, 0,   0,   1,    0,    0x0E, 0,    0,
                                   0,    0,    1,   0,    0,   0,   0x0C, 0x41, 0xD0, 0x0A, 0x03};
    uint8_t buf[128];
    struct aml a = {.data = buf, .cap = sizeof(buf)};

    (void)state;
    aml_path(&a, "\\_SB.PCI0");
    aml_path(&a, "A.BB.CCCC");
    aml_path(&a, "^Z");
    aml_int(&a, 0);
    aml_int(&a, 1);
    aml_int(&a, 2);
    aml_int(&a, 0x100);
    aml_int(&a, 0x10000);
    aml_int(&a, 0x100000000);
    aml_eisaid(&a, "PNP0A03");
    assert_int_equal(a.len, sizeof(want));
    assert_memory_equal(buf, want, sizeof(want));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(too_many_cpus),
        cmocka_unit_test(too_little_memory),
        cmocka_unit_test(smbios_strings_do_not_fit),
        cmocka_unit_test(package_lengths),
        cmocka_unit_test(names_and_numbers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
