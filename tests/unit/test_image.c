/* What a person does to images (block/image.h), on files of the host. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "block/image.h"

static char dir[] = "/tmp/image-XXXXXX";

static const char *in_dir(const char *name)
{
    static char path[4][256];
    static unsigned turn;

    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof(path[turn]), "%s/%s", dir, name);
    return path[turn];
}

/* `size` bytes with some data at 1 MiB and in the last sector. */
static void make_raw(const char *name, long size)
{
    FILE *f = fopen(in_dir(name), "wb");

    assert_non_null(f);
    assert_int_equal(ftruncate(fileno(f), size), 0);
    for (long at = 1 << 20; at < (1 << 20) + 70000; at += 4) {
        fseek(f, at, SEEK_SET);
        fwrite(&at, 4, 1, f);
    }
    fseek(f, size - 8, SEEK_SET);
    fwrite("the end.", 8, 1, f);
    fclose(f);
}

static void expect_same(const char *a, const char *b)
{
    char line[600];

    snprintf(line, sizeof(line), "cmp %s %s", in_dir(a), in_dir(b));
    assert_int_equal(system(line), 0);
}

static struct image_info info(const char *name)
{
    struct image_info i;
    struct error err = {0};

    if (image_info(in_dir(name), NULL, &i, &err) < 0)
        fail_msg("%s", err.text);
    return i;
}

static void convert(const char *from, const char *to, struct block_create o)
{
    struct error err = {0};

    if (image_convert(in_dir(from), NULL, in_dir(to), NULL, &o, true, NULL, &err) < 0)
        fail_msg("%s", err.text);
}

static void test_round_trip(void **state)
{
    static const unsigned clusters[] = {0, 512, 2 << 20};

    (void)state;
    make_raw("a.raw", 5 * 1024 * 1024 + 512);
    for (unsigned i = 0; i < countof(clusters); i++) {
        struct block_check c = {0};
        struct stat st;

        convert("a.raw", "a.qcow2", (struct block_create){.cluster = clusters[i]});
        assert_int_equal(image_check(in_dir("a.qcow2"), NULL, false, &c, NULL), 0);
        assert_int_equal(c.errors + c.leaks, 0);
        assert_string_equal(info("a.qcow2").format->name, "qcow2");
        convert("a.qcow2", "b.raw", (struct block_create){0});
        expect_same("a.raw", "b.raw");
        assert_int_equal(stat(in_dir("b.raw"), &st), 0);
        assert_true(st.st_blocks * 512 < 1 << 20); /* zeros take no space */
        unlink(in_dir("a.qcow2"));
        unlink(in_dir("b.raw"));
    }
}

static bool stop(void *ctx, uint64_t done, uint64_t total)
{
    uint64_t *last = ctx;

    assert_true(done >= *last && done <= total);
    *last = done;
    return done > total / 8;
}

static void test_cancel(void **state)
{
    uint64_t last = 0;
    struct image_progress p = {.step = stop, .ctx = &last};
    struct block_create o = {0};
    struct error err = {0};

    (void)state;
    make_raw("c.raw", 5 << 20);
    assert_int_equal(
        image_convert(in_dir("c.raw"), NULL, in_dir("c.qcow2"), NULL, &o, false, &p, &err),
        -ECANCELED);
    assert_int_equal(access(in_dir("c.qcow2"), F_OK), -1);
    assert_true(last > 0);
    /* and what is there already is not touched */
    assert_int_equal(
        image_convert(in_dir("c.raw"), NULL, in_dir("c.raw"), NULL, &o, false, NULL, &err),
        -EEXIST);
    assert_int_equal(access(in_dir("c.raw"), F_OK), 0);
}

static void over(const char *name, const char *base, const char *format, uint64_t size)
{
    struct block_create o = {.size = size, .backing = base, .backing_format = format};
    struct error err = {0};

    if (image_create(in_dir(name), NULL, &o, &err) < 0)
        fail_msg("%s", err.text);
}

static void test_backing(void **state)
{
    struct block_create o = {0};
    struct error err = {0};

    (void)state;
    make_raw("base.raw", 3 << 20);
    over("one.qcow2", "base.raw", "raw", 3 << 20);
    over("two.qcow2", "one.qcow2", "qcow2", 3 << 20);
    assert_string_equal(info("two.qcow2").backing, "one.qcow2");
    convert("two.qcow2", "flat.raw", o);
    expect_same("base.raw", "flat.raw");
    assert_int_equal(
        image_convert(in_dir("two.qcow2"), NULL, in_dir("no.raw"), NULL, &o, false, NULL, &err),
        -EPERM);
    assert_int_equal(access(in_dir("no.raw"), F_OK), -1);
    /* a loop: one's backing file becomes two */
    unlink(in_dir("one.qcow2"));
    over("one.qcow2", "./two.qcow2", "qcow2", 3 << 20);
    assert_int_equal(
        image_convert(in_dir("two.qcow2"), NULL, in_dir("no.raw"), NULL, &o, true, NULL, &err),
        -ELOOP);
    assert_non_null(strstr(err.text, "loop"));
}

/* What a longer backing file holds does not come to light when the disk grows. */
static void test_resize(void **state)
{
    struct error err = {0};
    struct block_create o = {0};
    FILE *f;
    char buf[8] = {0};

    (void)state;
    make_raw("long.raw", 3 << 20);
    over("short.qcow2", "long.raw", "raw", 1 << 20);
    assert_int_equal(image_resize(in_dir("short.qcow2"), NULL, 3 << 20, false, &err), 0);
    assert_int_equal(info("short.qcow2").block.size, 3 << 20);
    convert("short.qcow2", "short.raw", o);
    f = fopen(in_dir("short.raw"), "rb");
    assert_non_null(f);
    fseek(f, (3 << 20) - 8, SEEK_SET);
    assert_int_equal(fread(buf, 1, 8, f), 8);
    fclose(f);
    assert_memory_equal(buf, "\0\0\0\0\0\0\0\0", 8);
    assert_int_equal(image_resize(in_dir("short.qcow2"), NULL, 1 << 20, false, &err), -EINVAL);
    assert_non_null(strstr(err.text, "--shrink"));
    assert_int_equal(image_resize(in_dir("short.qcow2"), NULL, 1 << 20, true, &err), 0);
    assert_int_equal(info("short.qcow2").block.size, 1 << 20);
}

struct sums {
    uint64_t next, kind[4];
};

static void each(void *ctx, uint64_t offset, uint64_t len, enum block_extent kind, uint64_t in_file)
{
    struct sums *s = ctx;

    (void)in_file;
    assert_int_equal(offset, s->next);
    s->next += len;
    s->kind[kind] += len;
}

static void test_map(void **state)
{
    struct sums s = {0};
    struct error err;

    (void)state;
    make_raw("m.raw", 3 << 20);
    convert("m.raw", "m.qcow2", (struct block_create){0});
    over("m2.qcow2", "m.qcow2", "qcow2", 4 << 20);
    assert_int_equal(image_map(in_dir("m.qcow2"), NULL, false, each, &s, &err), 0);
    assert_int_equal(s.next, 3 << 20);
    assert_int_equal(s.kind[BLOCK_DATA], 3 * 65536);
    assert_int_equal(s.kind[BLOCK_UNALLOCATED], (3 << 20) - 3 * 65536);
    s = (struct sums){0};
    assert_int_equal(image_map(in_dir("m2.qcow2"), NULL, false, each, &s, &err), 0);
    assert_int_equal(s.kind[BLOCK_UNALLOCATED], 4 << 20);
    s = (struct sums){0};
    assert_int_equal(image_map(in_dir("m2.qcow2"), NULL, true, each, &s, &err), 0);
    assert_int_equal(s.kind[BLOCK_DATA], 3 * 65536);
    assert_int_equal(s.kind[BLOCK_ZEROS], (4 << 20) - 3 * 65536);
}

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(dir) == NULL;
}

static int tear_down(void **state)
{
    char line[64];

    (void)state;
    snprintf(line, sizeof(line), "rm -rf %s", dir);
    return system(line);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip), cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_backing),    cmocka_unit_test(test_resize),
        cmocka_unit_test(test_map),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
