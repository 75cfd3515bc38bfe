/*
 * qcow2 files that lie. Good images of many kinds are made, some of the bytes of their tables
 * replaced by what is likely to hurt, and all is done to the result that is done to an image
 * (tests/fuzz/fuzz_qcow2.c). QCOW2_SEED and QCOW2_COUNT in the environment choose others.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../fuzz/fuzz_qcow2.c"
#include "base/endian.h"

static uint64_t rng(uint64_t *s)
{
    uint64_t z = (*s += 0x9e3779b97f4a7c15ull);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/* Some data, zeros, holes. The bytes; *len how many. */
static uint8_t *good_image(uint64_t *s, uint64_t *len)
{
    struct block_create o = {.cluster = 512u << rng(s) % 6, .size = 512 * (1 + rng(s) % 2000)};
    struct block_open how = {0};
    struct iovec iov;
    struct error err;
    struct bfile *f;
    struct qcow2 *q;
    uint8_t *data = malloc(1 << 16);

    o.version = rng(s) % 4 == 0 ? 2 : 3;
    assert_int_equal(bfile_memory("good", 0, &f, &err), 0);
    assert_int_equal(qcow2_create(f, &o, &err), 0);
    assert_int_equal(qcow2_open_slots(f, &how, 0, &q, &err), 0);
    for (int i = 0; i < 10; i++) {
        uint64_t at = align_down(rng(s) % o.size, 512);

        memset(data, i + 1, 1 << 16);
        iov =
            (struct iovec){.iov_base = data, .iov_len = min_u64(512ull << rng(s) % 8, o.size - at)};
        assert_int_equal(qcow2_write(q, at, &iov, 1), 0);
        if (i % 3 == 0)
            assert_int_equal(qcow2_zero(q, at, iov.iov_len, i % 2 == 0), 0);
    }
    qcow2_close(q);
    bfile_size(f, len);
    data = realloc(data, *len);
    bfile_read(f, 0, data, *len);
    bfile_close(f);
    return data;
}

/* A place that matters: the header, a table, or what a table points at. */
static uint64_t hot(uint64_t *s, const uint8_t *p, uint64_t len)
{
    static const unsigned fields[] = {QCOW2_H_L1_OFFSET, QCOW2_H_REFTABLE_OFFSET};
    uint64_t table = be64_load(p + fields[rng(s) % 2]) & (QCOW2_OFFSET);

    switch (rng(s) % 4) {
    case 0:
        return rng(s) % 112;
    case 1:
        return table + 8 * (rng(s) % 8);
    case 2:
        if (table + 64 < len)
            table = be64_load(p + table + 8 * (rng(s) % 4)) & QCOW2_OFFSET;
        return table + 8 * (rng(s) % 64);
    default:
        return rng(s) % len;
    }
}

static uint64_t nasty(uint64_t *s, uint64_t len)
{
    switch (rng(s) % 8) {
    case 0:
        return 1ull << rng(s) % 64;
    case 1:
        return ~0ull >> rng(s) % 64;
    case 2: /* some cluster of the file, as the only user */
        return align_down(rng(s) % len, 512) | QCOW2_COPIED;
    case 3:
        return align_down(rng(s) % len, 512) | (rng(s) % 2);
    case 4:
        return QCOW2_COMPRESSED | rng(s) >> 2;
    case 5:
        return QCOW2_COMPRESSED | rng(s) % len;
    case 6:
        return 0;
    default:
        return rng(s);
    }
}

static void mutate(uint64_t *s, uint8_t *p, uint64_t len)
{
    uint64_t n = 1 + rng(s) % 6;

    while (n-- > 0) {
        uint64_t at = hot(s, p, len);

        if (at + 8 > len)
            continue;
        if (rng(s) % 3 == 0)
            p[at] = (uint8_t)rng(s);
        else
            be64_store(p + at, nasty(s, len));
        if (rng(s) % 2 == 0) /* else it goes no further than the first look */
            be32_store(p, QCOW2_MAGIC);
    }
}

static uint64_t number(const char *name, uint64_t normal)
{
    const char *text = getenv(name);

    return text == NULL ? normal : strtoull(text, NULL, 0);
}

static void test_mutated(void **state)
{
    uint64_t seed = number("QCOW2_SEED", 1), count = number("QCOW2_COUNT", 1500);

    (void)state;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t s = (seed + i) * 0x1234567ull, len;
        uint8_t *p = good_image(&s, &len);

        if (getenv("QCOW2_VERBOSE") != NULL)
            fprintf(stderr, "seed %llu\n", (unsigned long long)(seed + i));
        mutate(&s, p, len);
        LLVMFuzzerTestOneInput(p, rng(&s) % 8 == 0 ? rng(&s) % (len + 1) : len);
        free(p);
    }
    print_message("%llu files from seed %llu\n", (unsigned long long)count,
                  (unsigned long long)seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mutated),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
