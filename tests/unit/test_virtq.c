/* The split ring against drivers that are right, wrong and hostile. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "virtio/queue.h"

#define RAM (1ull << 20)
#define DESC 0x1000u
#define AVAIL 0x2000u
#define USED 0x3000u
#define TABLE 0x4000u
#define DATA 0x10000u
#define NEXT 1u
#define WRITE 2u
#define INDIRECT 4u

struct rig {
    struct gmem *mem;
    struct virtq q;
    struct virtq_chain c;
    uint16_t avail;
};

static void put(struct rig *r, uint64_t gpa, uint64_t v, size_t size)
{
    assert_int_equal(gmem_write(r->mem, gpa, &v, size), 0);
}

static void desc_at(struct rig *r, uint64_t table, unsigned n, uint64_t addr, uint32_t len,
                    uint16_t flags, uint16_t next)
{
    put(r, table + 16 * n, addr, 8);
    put(r, table + 16 * n + 8, len, 4);
    put(r, table + 16 * n + 12, flags, 2);
    put(r, table + 16 * n + 14, next, 2);
}

static void desc(struct rig *r, unsigned n, uint64_t addr, uint32_t len, uint16_t flags,
                 uint16_t next)
{
    desc_at(r, DESC, n, addr, len, flags, next);
}

static void offer(struct rig *r, uint16_t head)
{
    put(r, AVAIL + 4 + 2 * (r->avail & (r->q.size - 1u)), head, 2);
    put(r, AVAIL + 2, ++r->avail, 2);
}

/* Returns the request with that head, whether or not it was taken. */
static void give(struct rig *r, uint16_t head, uint32_t written)
{
    struct virtq_token t = {.head = head, .era = r->q.era};

    virtq_push(&r->q, &t, written);
}

static void set_up(struct rig *r)
{
    r->avail = 0;
    assert_int_equal(gmem_fill(r->mem, 0, 0, RAM), 0);
    virtq_reset(&r->q);
    r->q.desc = DESC;
    r->q.avail = AVAIL;
    r->q.used = USED;
    r->q.indirect = true;
    assert_int_equal(virtq_enable(&r->q), 0);
}

static int start(void **state)
{
    struct rig *r = calloc(1, sizeof(*r));

    r->mem = gmem_create(RAM, NULL);
    virtq_init(&r->q, r->mem, 8);
    set_up(r);
    *state = r;
    return 0;
}

static int stop(void **state)
{
    struct rig *r = *state;

    gmem_destroy(r->mem);
    free(r);
    return 0;
}

static void expect_broken(struct rig *r, const char *why)
{
    assert_int_equal(virtq_pop(&r->q, &r->c), -22);
    assert_true(r->q.broken);
    assert_string_equal(r->q.why, why);
    assert_int_equal(virtq_pop(&r->q, &r->c), 0); /* silent from now on */
    give(r, 0, 0);
    assert_int_equal(gmem_read16(r->mem, USED + 2), 0);
    set_up(r);
}

static void test_request(void **state)
{
    struct rig *r = *state;
    char text[8] = {0};

    assert_int_equal(virtq_pop(&r->q, &r->c), 0);
    assert_int_equal(gmem_write(r->mem, DATA, "abcdef", 6), 0);
    desc(r, 1, DATA, 3, NEXT, 0);
    desc(r, 0, DATA + 0x100, 4, WRITE, 0);
    offer(r, 1);
    assert_int_equal(virtq_pop(&r->q, &r->c), 1);
    assert_int_equal(r->c.token.head, 1);
    assert_int_equal(r->c.out_count, 1);
    assert_int_equal(r->c.in_count, 1);
    assert_int_equal(r->c.out_len, 3);
    assert_int_equal(r->c.in_len, 4);
    assert_int_equal(virtq_copy_out(&r->c, 1, text, 8), 2);
    assert_string_equal(text, "bc");
    assert_int_equal(virtq_copy_in(&r->q, &r->c, 1, "WXYZ", 4), 3);
    assert_int_equal(gmem_read32(r->mem, DATA + 0x100), 0x59585700);
    virtq_push(&r->q, &r->c.token, 4);
    assert_int_equal(gmem_read16(r->mem, USED + 2), 1);
    assert_int_equal(gmem_read32(r->mem, USED + 4), 1);
    assert_int_equal(gmem_read32(r->mem, USED + 8), 4);
    assert_true(virtq_wants_interrupt(&r->q));
    assert_false(virtq_wants_interrupt(&r->q)); /* nothing new */
    put(r, AVAIL, 1, 2);
    give(r, 0, 0);
    assert_false(virtq_wants_interrupt(&r->q)); /* not wanted */
    virtq_set_notify(&r->q, false);
    assert_int_equal(gmem_read16(r->mem, USED), 1);
    virtq_set_notify(&r->q, true);
    assert_int_equal(gmem_read16(r->mem, USED), 0);
}

static void test_wrap(void **state)
{
    struct rig *r = *state;

    desc(r, 0, DATA, 4, WRITE, 0);
    for (unsigned i = 0; i < 70000; i++) {
        offer(r, 0);
        assert_int_equal(virtq_pop(&r->q, &r->c), 1);
        give(r, 0, 4);
        assert_int_equal(virtq_pop(&r->q, &r->c), 0);
    }
    assert_int_equal(gmem_read16(r->mem, USED + 2), 70000 & 0xFFFF);
}

static void test_event_idx(void **state)
{
    struct rig *r = *state;
    unsigned n = r->q.size;

    r->q.event_idx = true;
    put(r, AVAIL + 4 + 2 * n, 1, 2); /* used_event: after the second */
    desc(r, 0, DATA, 4, WRITE, 0);
    offer(r, 0);
    assert_int_equal(virtq_pop(&r->q, &r->c), 1);
    assert_int_equal(virtq_pop(&r->q, &r->c), 0);
    assert_int_equal(gmem_read16(r->mem, USED + 4 + 8 * n), 1);
    give(r, 0, 0);
    assert_false(virtq_wants_interrupt(&r->q)); /* not yet */
    give(r, 0, 0);
    assert_true(virtq_wants_interrupt(&r->q));
    give(r, 0, 0);
    assert_false(virtq_wants_interrupt(&r->q));
    put(r, AVAIL + 4 + 2 * n, 4, 2);
    give(r, 0, 0);
    assert_false(virtq_wants_interrupt(&r->q));
    give(r, 0, 0);
    give(r, 0, 0);
    assert_true(virtq_wants_interrupt(&r->q)); /* passed over */
    virtq_set_notify(&r->q, false);
    assert_int_equal(gmem_read16(r->mem, USED + 4 + 8 * n), 0);
}

static void test_indirect(void **state)
{
    struct rig *r = *state;

    desc_at(r, TABLE + 8, 0, DATA, 16, NEXT, 2); /* no alignment is asked of the table */
    desc_at(r, TABLE + 8, 2, DATA + 16, 16, NEXT | WRITE, 1);
    desc_at(r, TABLE + 8, 1, DATA + 32, 0, WRITE, 0);
    desc(r, 0, TABLE + 8, 48, INDIRECT | WRITE, 0);
    offer(r, 0);
    assert_int_equal(virtq_pop(&r->q, &r->c), 1);
    assert_int_equal(r->c.out_count, 1);
    assert_int_equal(r->c.in_count, 2);
    assert_int_equal(r->c.in_len, 16);
    /* a direct one before it */
    desc(r, 1, DATA, 8, NEXT, 0);
    offer(r, 1);
    assert_int_equal(virtq_pop(&r->q, &r->c), 1);
    assert_int_equal(r->c.out_len, 24);
}

static void test_hostile_chains(void **state)
{
    struct rig *r = *state;
    unsigned n = r->q.size;

    desc(r, 0, DATA, 4, NEXT, 0);
    offer(r, 0);
    expect_broken(r, "a chain loops");
    desc(r, 0, DATA, 4, NEXT, 1);
    desc(r, 1, DATA, 4, NEXT, 0);
    offer(r, 0);
    expect_broken(r, "a chain loops");
    offer(r, (uint16_t)n);
    expect_broken(r, "a head is outside the descriptor table");
    offer(r, 0xFFFF);
    expect_broken(r, "a head is outside the descriptor table");
    desc(r, 0, DATA, 4, NEXT, (uint16_t)n);
    offer(r, 0);
    expect_broken(r, "a descriptor's next one is outside the table");
    desc(r, 0, DATA, 0xFFFFFFFF, WRITE, 0);
    offer(r, 0);
    expect_broken(r, "a buffer is not in RAM");
    desc(r, 0, UINT64_MAX - 3, 8, WRITE, 0);
    offer(r, 0);
    expect_broken(r, "a buffer is not in RAM");
    desc(r, 0, RAM - 4, 5, 0, 0);
    offer(r, 0);
    expect_broken(r, "a buffer is not in RAM");
    desc(r, 0, 0xFEC00000, 4, 0, 0);
    offer(r, 0);
    expect_broken(r, "a buffer is not in RAM");
    desc(r, 0, DATA, 4, NEXT | WRITE, 1);
    desc(r, 1, DATA, 4, 0, 0);
    offer(r, 0);
    expect_broken(r, "a readable descriptor follows a writable one");
    put(r, AVAIL + 2, n + 1, 2);
    expect_broken(r, "the available index is further ahead than the ring is long");
    put(r, AVAIL + 2, 0xFFFF, 2);
    expect_broken(r, "the available index is further ahead than the ring is long");
    /* zero length, anywhere: nothing to touch */
    desc(r, 0, UINT64_MAX, 0, WRITE, 0);
    offer(r, 0);
    assert_int_equal(virtq_pop(&r->q, &r->c), 1);
    assert_int_equal(virtq_copy_in(&r->q, &r->c, 0, "x", 1), 0);
}

static void test_hostile_indirect(void **state)
{
    struct rig *r = *state;

    desc(r, 0, TABLE, 16, INDIRECT, 0);
    r->q.indirect = false;
    offer(r, 0);
    expect_broken(r, "an indirect descriptor was not negotiated");
    desc(r, 0, TABLE, 16, INDIRECT | NEXT, 1);
    offer(r, 0);
    expect_broken(r, "an indirect descriptor has a next one");
    for (unsigned len = 0; len <= 31; len += len == 0 ? 15 : 16) {
        desc(r, 0, TABLE, len, INDIRECT, 0);
        offer(r, 0);
        expect_broken(r, "an indirect table's length is not a multiple of 16");
    }
    desc(r, 0, TABLE, 0xFFFFFFF0, INDIRECT, 0);
    offer(r, 0);
    expect_broken(r, "an indirect table is not in RAM");
    desc(r, 0, UINT64_MAX - 15, 32, INDIRECT, 0);
    offer(r, 0);
    expect_broken(r, "an indirect table is not in RAM");
    desc(r, 0, TABLE, 32, INDIRECT, 0);
    desc_at(r, TABLE, 0, TABLE, 32, INDIRECT, 0);
    offer(r, 0);
    expect_broken(r, "an indirect table holds an indirect descriptor");
    desc(r, 0, TABLE, 32, INDIRECT, 0);
    desc_at(r, TABLE, 0, DATA, 32, NEXT, 2);
    offer(r, 0);
    expect_broken(r, "an indirect descriptor's next one is outside the table");
    desc(r, 0, TABLE, 32, INDIRECT, 0);
    desc_at(r, TABLE, 0, DATA, 32, NEXT, 1);
    desc_at(r, TABLE, 1, DATA, 32, NEXT, 0);
    offer(r, 0);
    expect_broken(r, "an indirect table loops");
    /* longer than any request may be */
    desc(r, 0, 0x20000, 16 * (VIRTQ_CHAIN_MAX + 1), INDIRECT, 0);
    for (unsigned i = 0; i <= VIRTQ_CHAIN_MAX; i++)
        desc_at(r, 0x20000, i, DATA, 1, i < VIRTQ_CHAIN_MAX ? NEXT : 0, (uint16_t)(i + 1));
    offer(r, 0);
    expect_broken(r, "a request has too many descriptors");
}

static void test_hostile_setup(void **state)
{
    static const struct {
        uint64_t desc, avail, used;
        uint16_t size;
    } bad[] = {
        {DESC + 8, AVAIL, USED, 0},
        {DESC, AVAIL + 1, USED, 0},
        {DESC, AVAIL, USED + 2, 0},
        {RAM - 16, AVAIL, USED, 0},
        {DESC, RAM - 6, USED, 0},
        {DESC, AVAIL, RAM - 4, 0},
        {UINT64_MAX - 15, AVAIL, USED, 0},
        {DESC, UINT64_MAX - 1, USED, 0},
        {DESC, AVAIL, UINT64_MAX - 3, 0},
        {DESC, AVAIL, 0xFEE00000, 0},
        {DESC, AVAIL, USED, 3},
        {DESC, AVAIL, USED, 2048},
    };
    struct rig *r = *state;

    for (size_t i = 0; i < countof(bad); i++) {
        virtq_reset(&r->q);
        r->q.desc = bad[i].desc;
        r->q.avail = bad[i].avail;
        r->q.used = bad[i].used;
        if (bad[i].size != 0)
            r->q.size = bad[i].size;
        assert_int_equal(virtq_enable(&r->q), -22);
        assert_int_equal(virtq_pop(&r->q, &r->c), 0);
        give(r, 0, 0);
        virtq_set_notify(&r->q, false);
        assert_false(virtq_wants_interrupt(&r->q));
        assert_true(virtq_loaded(&r->q) == 0 || bad[i].size != 0);
    }
    assert_false(virtq_size_valid(&r->q, 0));
    assert_false(virtq_size_valid(&r->q, 3));
    assert_false(virtq_size_valid(&r->q, 0x10000));
    assert_true(virtq_size_valid(&r->q, 1));
    virtq_reset(&r->q);
    virtq_set_legacy(&r->q, 0xFFFFFFFFull << 12);
    assert_int_equal(virtq_enable(&r->q), -22);
}

static uint64_t draw(uint64_t *x)
{
    *x = *x * 6364136223846793005ull + 1442695040888963407ull;
    return *x >> 33;
}

/* Random rings: whatever is popped lies in RAM and within the limits. Replay: VIRTQ_SEED=n. */
static void test_random(void **state)
{
    static const uint64_t places[] = {0,    DESC,     AVAIL,      USED,       TABLE,
                                      DATA, RAM - 16, 0xFEC00000, 1ull << 32, UINT64_MAX - 15};
    const char *given = getenv("VIRTQ_SEED");
    unsigned seed = given != NULL ? (unsigned)strtoul(given, NULL, 0) : (unsigned)time(NULL);
    uint64_t x = seed * 2654435761ull + 1;
    struct rig *r = *state;
    unsigned popped = 0;

#define RND(n) (draw(&x) % (n))
    printf("VIRTQ_SEED=%u\n", seed);
    for (unsigned round = 0; round < 20000; round++) {
        unsigned n = r->q.size;

        if (r->q.broken || RND(50) == 0) {
            set_up(r);
            r->q.event_idx = RND(2) != 0;
        }
        for (unsigned i = 0; i < 4; i++) {
            uint64_t addr = places[RND(countof(places))] + RND(64);
            uint32_t len = RND(8) == 0 ? (uint32_t)(RND(1u << 31)) * 2 : (uint32_t)(RND(6) * 16);
            uint16_t flags = (uint16_t)(RND(8));
            uint16_t next = (uint16_t)(RND(n + 1));

            desc_at(r, RND(2) != 0 ? DESC : TABLE, (unsigned)(RND(n)), addr, len, flags, next);
        }
        offer(r, (uint16_t)(RND(n + (RND(20) == 0))));
        if (RND(40) == 0)
            put(r, AVAIL + 2, RND(0x10000), 2);
        while (virtq_pop(&r->q, &r->c) == 1) {
            uint64_t out_len = 0, in_len = 0;

            popped++;
            assert_true(r->c.out_count + r->c.in_count <= VIRTQ_CHAIN_MAX);
            for (unsigned i = 0; i < r->c.out_count + r->c.in_count; i++) {
                const struct virtq_seg *s = &r->c.segs[i];

                assert_true(s->len == 0 || (s->gpa < RAM && s->len <= RAM - s->gpa));
                assert_ptr_equal(s->hva, s->len ? gmem_ptr(r->mem, s->gpa, s->len) : NULL);
                *(i < r->c.out_count ? &out_len : &in_len) += s->len;
            }
            assert_int_equal(out_len, r->c.out_len);
            assert_int_equal(in_len, r->c.in_len);
            if (RND(4) == 0)
                virtq_copy_in(&r->q, &r->c, RND(64), "0123456789abcdef", 16);
            virtq_push(&r->q, &r->c.token, (uint32_t)in_len);
            (void)virtq_wants_interrupt(&r->q);
        }
    }
    printf("%u requests\n", popped);
    assert_true(popped > 100);
#undef RND
}

/*
 * A driver on a thread of its own with event indices both ways: nobody waits for a notification
 * that the other thought was not wanted.
 */
#define REQUESTS 20000u

struct peers {
    struct rig *r;
    _Atomic(unsigned) kicks, interrupts;
};

static uint16_t ring_load(struct rig *r, uint64_t gpa)
{
    const uint16_t *p = gmem_ptr(r->mem, gpa, 2);

    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

static void ring_store(struct rig *r, uint64_t gpa, uint16_t v)
{
    uint16_t *p = gmem_ptr(r->mem, gpa, 2);

    __atomic_store_n(p, v, __ATOMIC_RELEASE);
}

static void *drive(void *ctx)
{
    struct peers *p = ctx;
    struct rig *r = p->r;
    uint16_t size = r->q.size, sent = 0, done = 0;
    uint64_t used_event = AVAIL + 4 + 2ull * size, avail_event = USED + 4 + 8ull * size;

    for (unsigned total = 0; total < REQUESTS;) {
        unsigned seen;

        while ((uint16_t)(sent - done) < size) {
            uint16_t old = sent++;

            ring_store(r, AVAIL + 4 + 2ull * (old & (size - 1u)), 0);
            ring_store(r, AVAIL + 2, sent);
            atomic_thread_fence(memory_order_seq_cst);
            if (ring_load(r, avail_event) == old)
                p->kicks++;
        }
        seen = p->interrupts;
        ring_store(r, used_event, done);
        atomic_thread_fence(memory_order_seq_cst);
        if (ring_load(r, USED + 2) == done)
            while (p->interrupts == seen)
                sched_yield();
        while (done != ring_load(r, USED + 2)) {
            done++;
            total++;
        }
    }
    return NULL;
}

static void test_two_threads(void **state)
{
    struct rig *r = *state;
    struct peers p = {.r = r};
    pthread_t driver;
    unsigned kicks = 0, taken = 0, idle = 0;

    r->q.event_idx = true;
    desc(r, 0, DATA, 4, WRITE, 0);
    assert_int_equal(pthread_create(&driver, NULL, drive, &p), 0);
    while (taken < REQUESTS && idle < 10000000) {
        if (p.kicks == kicks) { /* only a notification wakes us */
            idle++;
            sched_yield();
            continue;
        }
        idle = 0;
        kicks = p.kicks;
        while (virtq_pop(&r->q, &r->c) == 1) {
            virtq_push(&r->q, &r->c.token, 4);
            taken++;
            if (virtq_wants_interrupt(&r->q))
                p.interrupts++;
        }
        assert_false(r->q.broken);
    }
    assert_true(taken >= REQUESTS);
    pthread_join(driver, NULL);
}

/* Where used entries go, once round the ring. */
static void test_used_entries(void **state)
{
    struct rig *r = *state;

    desc(r, 0, DATA, 4, WRITE, 0);
    for (unsigned i = 0; i < r->q.size; i++) {
        offer(r, 0);
        assert_int_equal(virtq_pop(&r->q, &r->c), 1);
        give(r, 0, 100 + i);
    }
    for (unsigned i = 0; i < r->q.size; i++)
        assert_int_equal(gmem_read32(r->mem, USED + 8 + 8 * i), 100 + i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_request, start, stop),
        cmocka_unit_test_setup_teardown(test_wrap, start, stop),
        cmocka_unit_test_setup_teardown(test_event_idx, start, stop),
        cmocka_unit_test_setup_teardown(test_indirect, start, stop),
        cmocka_unit_test_setup_teardown(test_hostile_chains, start, stop),
        cmocka_unit_test_setup_teardown(test_hostile_indirect, start, stop),
        cmocka_unit_test_setup_teardown(test_hostile_setup, start, stop),
        cmocka_unit_test_setup_teardown(test_random, start, stop),
        cmocka_unit_test_setup_teardown(test_two_threads, start, stop),
        cmocka_unit_test_setup_teardown(test_used_entries, start, stop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
