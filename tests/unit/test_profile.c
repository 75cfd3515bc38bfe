/* The profile: counts, the table, its bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "boot/profile.h"

static struct symbols *some_symbols(void)
{
    static const char text[] = "ffffffff81000000 T alpha\nffffffff81000100 T beta\n"
                               "ffffffff81000200 D data\n";
    char path[] = "/tmp/test_profile.XXXXXX";
    int fd = mkstemp(path);
    struct symbols *s = NULL;

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, sizeof(text) - 1), sizeof(text) - 1);
    close(fd);
    assert_int_equal(symbols_load_file(path, &s, NULL), 0);
    unlink(path);
    return s;
}

static void add(struct profile *p, uint64_t addr, bool user, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        profile_add(p, addr, user);
}

static void reports(const struct profile *p, const struct symbols *s, unsigned rows,
                    const char *expected)
{
    char *text = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);

    assert_non_null(f);
    assert_int_equal(profile_report(p, s, rows, f), 0);
    fclose(f);
    assert_string_equal(text, expected);
    free(text);
}

static void fill(struct profile *p)
{
    add(p, 0xffffffff81000010, false, 30);
    add(p, 0xffffffff81000020, false, 20);
    add(p, 0xffffffff81000100, false, 10);
    add(p, 0xffffffffc0001234, false, 3);
    add(p, 0xffffffffc0001fff, false, 4);
    add(p, 0x401000, true, 10);
    add(p, 0x401ffe, true, 20);
    add(p, 0x402000, true, 1);
    add(p, 0, true, 1);
    add(p, 0xffffffff81000010, true, 1); /* a bad jump, not alpha */
}

static void table(void **state)
{
    struct profile *p = profile_create(100);
    struct symbols *s = some_symbols();

    (void)state;
    reports(p, s, 0, "0 samples: 0.0 % kernel, 0.0 % user\n");
    fill(p);
    assert_int_equal(profile_samples(p), 100);
    reports(p, s, 0,
            "100 samples: 67.0 % kernel, 33.0 % user\n"
            "   samples percent  mode    where (most at)\n"
            "        50   50.00  kernel  alpha (+0x10: 30)\n"
            "        30   30.00  user    page 0x401000 (0x401ffe: 20)\n"
            "        10   10.00  kernel  beta (+0: 10)\n"
            "         7    7.00  kernel  page 0xffffffffc0001000 (0xffffffffc0001fff: 4)\n"
            "         1    1.00  user    page 0 (0: 1)\n"
            "         1    1.00  user    page 0x402000 (0x402000: 1)\n"
            "         1    1.00  user    page 0xffffffff81000000 (0xffffffff81000010: 1)\n");
    reports(p, s, 2,
            "100 samples: 67.0 % kernel, 33.0 % user\n"
            "   samples percent  mode    where (most at)\n"
            "        50   50.00  kernel  alpha (+0x10: 30)\n"
            "        30   30.00  user    page 0x401000 (0x401ffe: 20)\n"
            "        20   20.00          in 5 more places\n");
    reports(p, NULL, 1,
            "100 samples: 67.0 % kernel, 33.0 % user\n"
            "   samples percent  mode    where (most at)\n"
            "        60   60.00  kernel  page 0xffffffff81000000 (0xffffffff81000010: 30)\n"
            "        40   40.00          in 5 more places\n");
    profile_clear(p);
    reports(p, s, 0, "0 samples: 0.0 % kernel, 0.0 % user\n");
    profile_destroy(p);
    symbols_destroy(s);
    profile_destroy(NULL);
}

static void modes_stay_apart(void **state)
{
    struct profile *p = profile_create(16);

    (void)state;
    add(p, 0x5000, false, 2);
    add(p, 0x5000, true, 2);
    reports(p, NULL, 0,
            "4 samples: 50.0 % kernel, 50.0 % user\n"
            "   samples percent  mode    where (most at)\n"
            "         2   50.00  kernel  page 0x5000 (0x5000: 2)\n"
            "         2   50.00  user    page 0x5000 (0x5000: 2)\n");
    profile_destroy(p);
}

static void bounded(void **state)
{
    struct profile *p = profile_create(1); /* 16 places, 14 of them used at most */

    (void)state;
    for (unsigned i = 0; i < 100; i++)
        profile_add(p, 0x1000ull * i, (i & 1) != 0);
    add(p, 0x1000, true, 5); /* those kept go on counting */
    assert_int_equal(profile_samples(p), 105);
    assert_int_equal(profile_lost(p), 86);
    reports(p, NULL, 1,
            "105 samples: 47.6 % kernel, 52.4 % user\n"
            "   samples percent  mode    where (most at)\n"
            "         6    5.71  user    page 0x1000 (0x1000: 6)\n"
            "        13   12.38          in 13 more places\n"
            "        43   40.95  kernel  not kept: more than 14 addresses\n"
            "        43   40.95  user    not kept: more than 14 addresses\n");
    profile_destroy(p);
}

static void merged(void **state)
{
    struct profile *a = profile_create(100), *b = profile_create(100), *small = profile_create(16);
    struct symbols *s = some_symbols();
    char *one = NULL, *two = NULL;
    size_t size;
    FILE *f;

    (void)state;
    fill(a);
    fill(a);
    fill(b);
    profile_merge(b, a);
    fill(a);
    f = open_memstream(&one, &size);
    assert_int_equal(profile_report(a, s, 0, f), 0);
    fclose(f);
    f = open_memstream(&two, &size);
    assert_int_equal(profile_report(b, s, 0, f), 0);
    fclose(f);
    assert_string_equal(one, two);
    free(one);
    free(two);
    for (unsigned i = 0; i < 20; i++)
        profile_add(small, i, false);
    profile_clear(a);
    profile_merge(a, small);
    assert_int_equal(profile_samples(a), 20);
    assert_int_equal(profile_lost(a), 6);
    profile_destroy(a);
    profile_destroy(b);
    profile_destroy(small);
    symbols_destroy(s);
}

static void failing_stream(void **state)
{
    struct profile *p = profile_create(16);
    FILE *f = fopen("/dev/full", "w");

    (void)state;
    if (f == NULL) {
        profile_destroy(p);
        skip();
    }
    setvbuf(f, NULL, _IONBF, 0);
    profile_add(p, 1, false);
    assert_int_equal(profile_report(p, NULL, 0, f), -EIO);
    fclose(f);
    profile_destroy(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table),  cmocka_unit_test(modes_stay_apart), cmocka_unit_test(bounded),
        cmocka_unit_test(merged), cmocka_unit_test(failing_stream),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
