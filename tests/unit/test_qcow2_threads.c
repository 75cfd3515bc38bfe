/*
 * Several threads at one qcow2 image: each owns some sectors, which lie between those of the others
 * in the same clusters, so that allocations meet. What a thread has written it reads again at once;
 * at the end all is compared and the image checked. Clusters are given back and taken all the time.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "block/qcow2.h"

#define THREADS 4u
#define SECTORS 4096u
#define ROUNDS 1500u

struct rig {
    struct bfile *f;
    struct qcow2 *q;
    uint8_t tag[SECTORS]; /* each written by its owner alone */
    atomic_uint wrong;
    atomic_bool done;
};

struct worker {
    struct rig *rig;
    unsigned index;
    uint64_t rng;
    pthread_t thread;
};

static uint64_t next(struct worker *w, uint64_t n)
{
    w->rng = w->rng * 6364136223846793005ull + 1442695040888963407ull;
    return (w->rng >> 33) % n;
}

static void expect(struct rig *r, bool ok)
{
    if (!ok)
        atomic_fetch_add(&r->wrong, 1);
}

static void check_sector(struct rig *r, uint64_t sector, uint8_t *buf)
{
    struct iovec iov = {.iov_base = buf, .iov_len = 512};

    expect(r, qcow2_read(r->q, sector * 512, &iov, 1) == 0);
    expect(r, buf[0] == r->tag[sector] && memcmp(buf, buf + 1, 511) == 0);
}

/* In one half of the disk the owner changes with each sector, in the other after eight. */
static uint64_t own(struct worker *w)
{
    uint64_t sector = next(w, SECTORS);

    if (sector < SECTORS / 2)
        return sector / THREADS * THREADS + w->index;
    return SECTORS / 2 + (next(w, SECTORS / 2 / 8 / THREADS) * THREADS + w->index) * 8;
}

static void *work(void *arg)
{
    struct worker *w = arg;
    struct rig *r = w->rig;
    uint8_t buf[8 * 512];

    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t sector = own(w), n = sector < SECTORS / 2 ? 1 : 8;
        uint8_t tag = (uint8_t)(1 + next(w, 255));
        struct iovec iov = {.iov_base = buf, .iov_len = n * 512};

        if (next(w, 4) == 0) {
            tag = 0;
            expect(r, qcow2_zero(r->q, sector * 512, n * 512, next(w, 2) == 0) == 0);
        } else {
            memset(buf, tag, sizeof(buf));
            expect(r, qcow2_write(r->q, sector * 512, &iov, 1) == 0);
        }
        memset(r->tag + sector, tag, n);
        check_sector(r, sector + next(w, n), buf);
        check_sector(r, own(w), buf);
        if (next(w, 64) == 0)
            expect(r, qcow2_commit(r->q, true) == 0);
    }
    return NULL;
}

/* The direct way: what is located is looked at in the file, past the format. */
static void *locate(void *arg)
{
    struct rig *r = arg;
    uint64_t in_file, sector = 0;

    while (!atomic_load(&r->done)) {
        sector = (sector + 997) % SECTORS;
        (void)qcow2_locate(r->q, sector % 2 == 0, sector * 512, 512, &in_file);
    }
    return NULL;
}

static void run(unsigned cluster, unsigned version)
{
    struct block_create o = {.cluster = cluster, .version = version, .size = SECTORS * 512};
    struct block_open how = {0};
    struct block_check c = {0};
    struct worker w[THREADS];
    struct rig *r = calloc(1, sizeof(*r));
    uint8_t buf[512];
    struct error err;
    pthread_t locator;

    assert_int_equal(bfile_memory("threads", 0, &r->f, &err), 0);
    assert_int_equal(qcow2_create(r->f, &o, &err), 0);
    assert_int_equal(qcow2_open_slots(r->f, &how, 64, &r->q, &err), 0);
    pthread_create(&locator, NULL, locate, r);
    for (unsigned i = 0; i < THREADS; i++) {
        w[i] = (struct worker){.rig = r, .index = i, .rng = i + 1};
        pthread_create(&w[i].thread, NULL, work, &w[i]);
    }
    for (unsigned i = 0; i < THREADS; i++)
        pthread_join(w[i].thread, NULL);
    atomic_store(&r->done, true);
    pthread_join(locator, NULL);
    for (unsigned i = 0; i < SECTORS; i++)
        check_sector(r, i, buf);
    qcow2_close(r->q);
    assert_int_equal(atomic_load(&r->wrong), 0);
    assert_int_equal(qcow2_check(r->f, false, &c, &err), 0);
    assert_int_equal(c.errors, 0);
    assert_int_equal(c.leaks, 0);
    bfile_close(r->f);
    free(r);
}

static void test_small(void **state)
{
    (void)state;
    run(512, 3);
}

static void test_four_sectors(void **state)
{
    (void)state;
    run(4096, 3);
}

static void test_large(void **state)
{
    (void)state;
    run(65536, 3);
}

static void test_version_2(void **state)
{
    (void)state;
    run(4096, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),
        cmocka_unit_test(test_four_sectors),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_version_2),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
