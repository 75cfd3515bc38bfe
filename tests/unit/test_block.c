/* Disks as devices see them: what is read was written, in every way there is. */
#include "block_fixture.h"

#include <errno.h>

#define SIZE (8 * MIB)

static void fill(uint8_t *p, size_t len, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)(i * 7 + seed + (i >> 9) * 13);
}

static void round_trip(bool loop, const char *options, bool file)
{
    struct disk *d = disk_create(loop);
    struct block_geometry g;
    uint8_t *out = malloc(SIZE), *in = malloc(SIZE);

    if (file)
        disk_file(d, SIZE);
    disk_open_ok(d, options);
    block_geometry(d->b, &g);
    assert_int_equal(g.size, SIZE);
    assert_int_equal(g.sector, 512);
    assert_false(g.read_only);
    assert_int_equal(strlen(g.serial), 20);
    fill(out, SIZE, 1);
    assert_int_equal(disk_do(d, BLOCK_WRITE, 0, out, SIZE), 0);
    assert_int_equal(disk_do(d, BLOCK_READ, 0, in, SIZE), 0);
    assert_memory_equal(out, in, SIZE);
    assert_int_equal(disk_do(d, BLOCK_WRITE, 512, out + 3, 1536), 0);
    assert_int_equal(disk_do(d, BLOCK_FLUSH, 0, NULL, 0), 0);
    assert_int_equal(disk_do(d, BLOCK_READ, 512, in + 1, 1536), 0);
    assert_memory_equal(out + 3, in + 1, 1536);
    assert_int_equal(disk_do(d, BLOCK_ZERO, 4096, NULL, 8192), 0);
    assert_int_equal(disk_do(d, BLOCK_READ, 4096, in, 8192), 0);
    for (unsigned i = 0; i < 8192; i++)
        assert_int_equal(in[i], 0);
    assert_int_equal(disk_do(d, BLOCK_DISCARD, 65536, NULL, 65536), 0);
    assert_int_equal(disk_do(d, BLOCK_READ, SIZE, in, 512), -EINVAL);
    assert_int_equal(disk_do(d, BLOCK_READ, 1, in, 512), -EINVAL);
    disk_destroy(d);
    free(out);
    free(in);
}

static void test_inline(void **state)
{
    (void)state;
    round_trip(false, "", true);
    round_trip(false, "ram=8m", false);
    round_trip(false, "nocache", true);
}

static void test_threads(void **state)
{
    (void)state;
    round_trip(true, "aio=threads", true);
    round_trip(true, "ram=8m", false);
    round_trip(true, "aio=threads,nocache", true);
}

static void test_uring(void **state)
{
    (void)state;
    round_trip(true, "", true);
    round_trip(true, "nocache", true);
    round_trip(true, "sync", true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inline),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_uring),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
