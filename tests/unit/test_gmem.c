/* Guest memory: its two parts, its ends, ROM. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "mem/gmem.h"

static void two_parts(void **state)
{
    struct error err = {0};
    struct gmem *m = gmem_create(GMEM_LOWMEM_MAX + 2 * MIB, &err);
    uint32_t v = 0x11111111;

    (void)state;
    assert_non_null(m);
    assert_int_equal(gmem_lowmem(m), GMEM_LOWMEM_MAX);
    assert_int_equal(gmem_highmem(m), 2 * MIB);
    assert_int_equal(gmem_write(m, 0x1000, &v, 4), 0);
    v = 0x22222222;
    assert_int_equal(gmem_write(m, GMEM_HIGH_BASE + 0x1000, &v, 4), 0);
    assert_int_equal(gmem_read32(m, 0x1000), 0x11111111);
    assert_int_equal(gmem_read32(m, GMEM_HIGH_BASE + 0x1000), 0x22222222);
    gmem_destroy(m);
}

static void ends(void **state)
{
    struct error err = {0};
    struct gmem *m = gmem_create(MIB, &err);

    (void)state;
    assert_non_null(m);
    assert_non_null(gmem_ptr(m, MIB - 4, 4));
    assert_null(gmem_ptr(m, MIB - 4, 5));
    assert_null(gmem_ptr(m, MIB, 1));
    assert_null(gmem_ptr(m, UINT64_MAX, 2)); /* the sum wraps around */
    assert_null(gmem_ptr(m, 4, SIZE_MAX));
    assert_int_equal(gmem_read64(m, MIB - 4), UINT64_MAX);
    gmem_destroy(m);
}

static void rom(void **state)
{
    static const uint8_t bytes[GMEM_PAGE] = {1, 2, 3, 4};
    struct error err = {0};
    struct gmem *m = gmem_create(MIB, &err);

    (void)state;
    assert_non_null(m);
    assert_int_equal(gmem_add_rom(m, 0xFFFFF000, bytes, sizeof(bytes), &err), 0);
    assert_int_equal(gmem_read32(m, 0xFFFFF000), 0x04030201);
    assert_null(gmem_ptr(m, 0xFFFFF000, 4));
    assert_int_equal(gmem_write(m, 0xFFFFF000, "x", 1), -EFAULT);
    assert_int_equal(gmem_fill(m, 0xFFFFF000, 0, 1), -EFAULT);
    assert_int_equal(gmem_read32(m, 0xFFFFF000), 0x04030201);
    gmem_destroy(m);
}

static void over(void **state)
{
    static uint8_t low[2 * GMEM_PAGE], high[GMEM_PAGE];
    const struct gmem_range ranges[] = {
        {.gpa = 0, .size = sizeof(low), .hva = low},
        {.gpa = 0xFFFFF000, .size = sizeof(high), .hva = high},
    };
    struct error err = {0};
    struct gmem *m = gmem_create_over(ranges, countof(ranges), &err);

    (void)state;
    assert_non_null(m);
    assert_ptr_equal(gmem_ptr(m, GMEM_PAGE, GMEM_PAGE), low + GMEM_PAGE);
    assert_null(gmem_ptr(m, 2 * GMEM_PAGE, 1));
    assert_int_equal(gmem_write(m, 0xFFFFF004, "x", 1), 0);
    gmem_destroy(m);
    assert_int_equal(high[4], 'x'); /* the memory is still ours */
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_parts),
        cmocka_unit_test(ends),
        cmocka_unit_test(rom),
        cmocka_unit_test(over),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
