/* The packed ring against drivers that are right, wrong and hostile. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "virtio/queue.h"

#define RAM (1ull << 20)
#define RING 0x1000u
#define DRIVER 0x2000u
#define DEVICE 0x3000u
#define TABLE 0x4000u
#define DATA 0x10000u
#define NEXT 1u
#define WRITE 2u
#define INDIRECT 4u
#define AVAIL 0x80u
#define USED 0x8000u

struct rig {
    struct gmem *mem;
    struct virtq q;
    struct virtq_chain c;
    unsigned at; /* the driver's place and counter */
    bool wrap;
    unsigned used_at;
    bool used_wrap;
};

static void put(struct rig *r, uint64_t gpa, uint64_t v, size_t size)
{
    assert_int_equal(gmem_write(r->mem, gpa, &v, size), 0);
}

static void desc_at(struct rig *r, uint64_t at, uint64_t addr, uint32_t len, uint16_t id,
                    uint16_t flags)
{
    put(r, at, addr, 8);
    put(r, at + 8, len, 4);
    put(r, at + 12, id, 2);
    put(r, at + 14, flags, 2);
}

/* The driver's next descriptor, available as soon as it is written. */
static void offer(struct rig *r, uint64_t addr, uint32_t len, uint16_t id, uint16_t flags)
{
    flags |= (uint16_t)(r->wrap ? AVAIL : USED);
    desc_at(r, RING + 16 * r->at, addr, len, id, flags);
    if (++r->at == r->q.size) {
        r->at = 0;
        r->wrap = !r->wrap;
    }
}

/* Whether a used descriptor is there; then its id and length, and the place after `slots`. */
static bool used(struct rig *r, unsigned slots, uint16_t *id, uint32_t *len)
{
    uint64_t at = RING + 16 * r->used_at;
    uint16_t flags = gmem_read16(r->mem, at + 14);

    if (((flags & AVAIL) != 0) != r->used_wrap || ((flags & USED) != 0) != r->used_wrap)
        return false;
    *id = gmem_read16(r->mem, at + 12);
    *len = gmem_read32(r->mem, at + 8);
    assert_int_equal((flags & WRITE) != 0, *len != 0);
    r->used_at += slots;
    if (r->used_at >= r->q.size) {
        r->used_at -= r->q.size;
        r->used_wrap = !r->used_wrap;
    }
    return true;
}

static void expect_used(struct rig *r, unsigned slots, uint16_t id, uint32_t len)
{
    uint16_t got_id = 0;
    uint32_t got_len = 0;

    assert_true(used(r, slots, &got_id, &got_len));
    assert_int_equal(got_id, id);
    assert_int_equal(got_len, len);
}

static void set_up_size(struct rig *r, uint16_t size)
{
    assert_int_equal(gmem_fill(r->mem, 0, 0, RAM), 0);
    virtq_reset(&r->q);
    r->q.desc = RING;
    r->q.avail = DRIVER;
    r->q.used = DEVICE;
    r->q.indirect = r->q.packed = true;
    if (size != 0 && virtq_size_valid(&r->q, size))
        r->q.size = size;
    r->at = r->used_at = 0;
    r->wrap = r->used_wrap = true;
    assert_int_equal(virtq_enable(&r->q), 0);
}

static void set_up(struct rig *r)
{
    set_up_size(r, 0);
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
    struct virtq_token t = {.slots = 1, .era = r->q.era};

    assert_int_equal(virtq_pop(&r->q, &r->c), -22);
    assert_true(r->q.broken);
    assert_string_equal(r->q.why, why);
    assert_int_equal(virtq_pop(&r->q, &r->c), 0); /* silent from now on */
    virtq_push(&r->q, &t, 1);
    assert_false(virtq_wants_interrupt(&r->q));
    set_up(r);
}

/* Two places that the host's build may not have: XHYVE_HOSTILE. */
static bool tiny(const struct rig *r)
{
    return r->q.size < 8;
}

static void test_request(void **state)
{
    struct rig *r = *state;
    char text[8] = {0};

    assert_int_equal(virtq_pop(&r->q, &r->c), 0);
    assert_int_equal(gmem_write(r->mem, DATA, "abcdef", 6), 0);
    offer(r, DATA, 3, 99, NEXT); /* the id of all but the last counts for nothing */
    offer(r, DATA + 0x100, 4, 0x1234, WRITE);
    assert_int_equal(virtq_pop(&r->q, &r->c), 1);
    assert_int_equal(r->c.token.head, 0x1234);
    assert_int_equal(r->c.token.slots, 2);
    assert_int_equal(r->c.out_count, 1);
    assert_int_equal(r->c.in_count, 1);
    assert_int_equal(r->c.out_len, 3);
    assert_int_equal(r->c.in_len, 4);
    assert_int_equal(virtq_copy_out(&r->c, 1, text, 8), 2);
    assert_string_equal(text, "bc");
    assert_int_equal(virtq_pop(&r->q, &r->c), 0);
    virtq_push(&r->q, &r->c.token, 0); /* an empty pop took its place */
    assert_false(virtq_wants_interrupt(&r->q));
    set_up(r);
    offer(r, DATA, 3, 0, NEXT);
    offer(r, DATA + 0x100, 4, 0x1234, WRITE);
    assert_int_equal(virtq_pop(&r->q, &r->c), 1);
    virtq_unpop(&r->q, &r->c.token);
    assert_int_equal(virtq_pop(&r->q, &r->c), 1);
    virtq_push(&r->q, &r->c.token, 4);
    expect_used(r, 2, 0x1234, 4);
    assert_true(virtq_wants_interrupt(&r->q));
    assert_false(virtq_wants_interrupt(&r->q)); /* nothing new */
    put(r, DRIVER + 2, 1, 2);                   /* disabled */
    offer(r, DATA, 3, 7, 0);
    assert_int_equal(virtq_pop(&r->q, &r->c), 1);
    virtq_push(&r->q, &r->c.token, 0);
    expect_used(r, 1, 7, 0);
    assert_false(virtq_wants_interrupt(&r->q));
    virtq_set_notify(&r->q, false);
    assert_int_equal(gmem_read16(r->mem, DEVICE + 2), 1);
    virtq_set_notify(&r->q, true);
    assert_int_equal(gmem_read16(r->mem, DEVICE + 2), 0);
}

/* Every size, also those that are no power of two, and requests across the ring's end. */
static void test_wrap(void **state)
{
    struct rig *r = *state;

    for (uint16_t size = 2; size <= r->q.max; size++) {
        set_up_size(r, size);
        assert_int_equal(r->q.size, size);
        for (unsigned i = 0; i < 5000; i++) {
            unsigned slots = 1 + i % (size < 3 ? size : 3);

            for (unsigned n = 1; n <= slots; n++)
                offer(r, DATA, 4, (uint16_t)i, n == slots ? WRITE : NEXT | WRITE);
            assert_int_equal(virtq_pop(&r->q, &r->c), 1);
            if (i % 3 == 0) {
                virtq_unpop(&r->q, &r->c.token);
                assert_int_equal(virtq_loaded(&r->q), 0);
                assert_int_equal(virtq_pop(&r->q, &r->c), 1);
            }
            assert_int_equal(r->c.token.slots, slots);
            assert_int_equal(virtq_loaded(&r->q), 0);
            virtq_push(&r->q, &r->c.token, 4);
            expect_used(r, slots, (uint16_t)i, 4);
            assert_int_equal(virtq_pop(&r->q, &r->c), 0);
        }
    }
}

static void test_out_of_order(void **state)
{
    struct rig *r = *state;
    struct virtq_token t[3];

    if (tiny(r))
        return;
    for (unsigned round = 0; round < 100; round++) {
        offer(r, DATA, 1, 10, 0);
        offer(r, DATA, 1, 0, NEXT);
        offer(r, DATA, 1, 0, NEXT);
        offer(r, DATA, 1, 11, 0);
        offer(r, DATA, 1, 0, NEXT);
        offer(r, DATA, 1, 12, 0);
        for (unsigned i = 0; i < 3; i++) {
            assert_int_equal(virtq_pop(&r->q, &r->c), 1);
            t[i] = r->c.token;
        }
        virtq_push(&r->q, &t[1], 1);
        virtq_push(&r->q, &t[2], 2);
        virtq_push(&r->q, &t[0], 3);
        expect_used(r, 3, 11, 1);
        expect_used(r, 2, 12, 2);
        expect_used(r, 1, 10, 3);
    }
}

/* One request through, of one place. */
static void one(struct rig *r)
{
    offer(r, DATA, 4, 0, WRITE);
    assert_int_equal(virtq_pop(&r->q, &r->c), 1);
    virtq_push(&r->q, &r->c.token, 4);
}

static void ask(struct rig *r, unsigned place, bool wrap)
{
    put(r, DRIVER, place | (wrap ? 0x8000u : 0), 2);
    put(r, DRIVER + 2, 2, 2);
}

static void test_events(void **state)
{
    struct rig *r = *state;

    if (tiny(r))
        return;
    r->q.event_idx = true;
    assert_int_equal(virtq_pop(&r->q, &r->c), 0);
    assert_int_equal(gmem_read32(r->mem, DEVICE), 0x00028000); /* of place 0, first round */
    ask(r, 1, true);
    one(r);
    assert_false(virtq_wants_interrupt(&r->q)); /* not yet */
    one(r);
    assert_true(virtq_wants_interrupt(&r->q));
    one(r);
    assert_false(virtq_wants_interrupt(&r->q)); /* passed before */
    assert_int_equal(virtq_pop(&r->q, &r->c), 0);
    assert_int_equal(gmem_read32(r->mem, DEVICE), 0x00028003);
    ask(r, 4, true);
    one(r);
    one(r);
    one(r);
    assert_true(virtq_wants_interrupt(&r->q)); /* among those at once */
    ask(r, 0, false);                          /* the next round's first */
    one(r);
    one(r);
    assert_int_equal(virtq_pop(&r->q, &r->c), 0);
    assert_int_equal(gmem_read32(r->mem, DEVICE), 0x00020000);
    assert_false(virtq_wants_interrupt(&r->q));
    one(r);
    assert_true(virtq_wants_interrupt(&r->q));
    ask(r, 7, true); /* of the round after */
    for (unsigned i = 0; i < 6; i++)
        one(r);
    assert_false(virtq_wants_interrupt(&r->q));
    ask(r, 7, false); /* of this round, and decided in the next */
    one(r);
    one(r);
    assert_true(virtq_wants_interrupt(&r->q));
    ask(r, 5, false); /* a whole ring at once passes everything */
    for (unsigned i = 0; i < 8; i++)
        one(r);
    assert_true(virtq_wants_interrupt(&r->q));
    virtq_set_notify(&r->q, false);
    assert_int_equal(gmem_read16(r->mem, DEVICE + 2), 1);
}

static void test_indirect(void **state)
{
    struct rig *r = *state;

    desc_at(r, TABLE + 8, DATA, 16, 9, 0); /* no alignment is asked of the table */
    desc_at(r, TABLE + 24, DATA + 16, 16, 9, WRITE);
    desc_at(r, TABLE + 40, DATA + 32, 0, 9, WRITE | NEXT); /* NEXT counts for nothing */
    offer(r, TABLE + 8, 48, 5, INDIRECT | WRITE);
    assert_int_equal(virtq_pop(&r->q, &r->c), 1);
    assert_int_equal(r->c.token.head, 5);
    assert_int_equal(r->c.token.slots, 1);
    assert_int_equal(r->c.out_count, 1);
    assert_int_equal(r->c.in_count, 2);
    assert_int_equal(r->c.in_len, 16);
}

static void test_hostile_chains(void **state)
{
    struct rig *r = *state;
    unsigned n = r->q.size;

    for (unsigned i = 0; i < n; i++)
        offer(r, DATA, 4, 0, NEXT);
    expect_broken(r, "a request is longer than the ring has room");
    offer(r, DATA, 4, 0, 0); /* stays out: one place less */
    assert_int_equal(virtq_pop(&r->q, &r->c), 1);
    for (unsigned i = 1; i < n; i++)
        offer(r, DATA, 4, 0, NEXT);
    expect_broken(r, "a request is longer than the ring has room");
    for (unsigned i = 0; i < n; i++) {
        offer(r, DATA, 4, (uint16_t)i, 0);
        assert_int_equal(virtq_pop(&r->q, &r->c), 1);
    }
    assert_int_equal(virtq_loaded(&r->q), 0);
    offer(r, DATA, 4, 0, 0); /* over one that is out */
    expect_broken(r, "a request is longer than the ring has room");
    offer(r, DATA, 0xFFFFFFFF, 0, WRITE);
    expect_broken(r, "a buffer is not in RAM");
    offer(r, UINT64_MAX - 3, 8, 0, WRITE);
    expect_broken(r, "a buffer is not in RAM");
    offer(r, RAM - 4, 5, 0, 0);
    expect_broken(r, "a buffer is not in RAM");
    offer(r, 0xFEC00000, 4, 0, 0);
    expect_broken(r, "a buffer is not in RAM");
    offer(r, DATA, 4, 0, NEXT | WRITE);
    offer(r, DATA, 4, 0, 0);
    expect_broken(r, "a readable descriptor follows a writable one");
    offer(r, UINT64_MAX, 0, 0, WRITE); /* zero length, anywhere: nothing to touch */
    assert_int_equal(virtq_pop(&r->q, &r->c), 1);
    assert_int_equal(virtq_copy_in(&r->q, &r->c, 0, "x", 1), 0);
}

static void test_hostile_indirect(void **state)
{
    struct rig *r = *state;

    offer(r, TABLE, 16, 0, INDIRECT);
    r->q.indirect = false;
    expect_broken(r, "an indirect descriptor was not negotiated");
    offer(r, TABLE, 16, 0, INDIRECT | NEXT);
    expect_broken(r, "an indirect descriptor has a next one");
    for (unsigned len = 0; len <= 31; len += len == 0 ? 15 : 16) {
        offer(r, TABLE, len, 0, INDIRECT);
        expect_broken(r, "an indirect table's length is not a multiple of 16");
    }
    offer(r, TABLE, 0xFFFFFFF0, 0, INDIRECT);
    expect_broken(r, "an indirect table is not in RAM");
    offer(r, UINT64_MAX - 15, 32, 0, INDIRECT);
    expect_broken(r, "an indirect table is not in RAM");
    desc_at(r, TABLE, TABLE, 16, 0, INDIRECT);
    offer(r, TABLE, 16, 0, INDIRECT);
    expect_broken(r, "an indirect table holds an indirect descriptor");
    for (unsigned i = 0; i <= VIRTQ_CHAIN_MAX; i++)
        desc_at(r, 0x20000 + 16 * i, DATA, 1, 0, 0);
    offer(r, 0x20000, 16 * (VIRTQ_CHAIN_MAX + 1), 0, INDIRECT);
    expect_broken(r, "a request has too many descriptors");
}

static void test_hostile_setup(void **state)
{
    static const struct {
        uint64_t desc, avail, used;
        uint16_t size;
    } bad[] = {
        {RING + 8, DRIVER, DEVICE, 0},
        {RING, DRIVER + 2, DEVICE, 0},
        {RING, DRIVER, DEVICE + 2, 0},
        {RAM - 16, DRIVER, DEVICE, 2},
        {RING, RAM, DEVICE, 0},
        {RING, DRIVER, RAM, 0},
        {UINT64_MAX - 15, DRIVER, DEVICE, 0},
        {RING, UINT64_MAX - 3, DEVICE, 0},
        {RING, DRIVER, UINT64_MAX - 3, 0},
        {RING, DRIVER, 0xFEE00000, 0},
        {RING, DRIVER, DEVICE, 9},
        {RING, DRIVER, DEVICE, 0xFFFF},
    };
    struct rig *r = *state;
    struct virtq_token t = {.slots = 1};

    for (size_t i = 0; i < countof(bad); i++) {
        virtq_reset(&r->q);
        r->q.packed = true;
        r->q.desc = bad[i].desc;
        r->q.avail = bad[i].avail;
        r->q.used = bad[i].used;
        if (bad[i].size != 0)
            r->q.size = bad[i].size;
        t.era = r->q.era;
        assert_int_equal(virtq_enable(&r->q), -22);
        assert_int_equal(virtq_pop(&r->q, &r->c), 0);
        virtq_push(&r->q, &t, 0);
        virtq_set_notify(&r->q, false);
        assert_false(virtq_wants_interrupt(&r->q));
    }
    assert_false(virtq_size_valid(&r->q, 0));
    assert_false(virtq_size_valid(&r->q, 0x10000));
    virtq_reset(&r->q);
    assert_false(virtq_size_valid(&r->q, 3)); /* not packed any more */
}

/* Indices of a snapshot that cannot be. */
static void test_hostile_state(void **state)
{
    struct rig *r = *state;
    uint16_t n = r->q.size;

    r->q.next_avail = n;
    assert_int_equal(virtq_loaded(&r->q), -22);
    r->q.next_avail = 0;
    r->q.next_used = 0xFFFF;
    assert_int_equal(virtq_loaded(&r->q), -22);
    r->q.next_used = 1;
    assert_int_equal(virtq_loaded(&r->q), -22); /* more returned than taken */
    r->q.avail_wrap = false;
    assert_int_equal(virtq_loaded(&r->q), 0); /* all but one are out */
    r->q.next_avail = 1;
    assert_int_equal(virtq_loaded(&r->q), 0); /* all */
    if (n > 2) {
        r->q.next_avail = 2;
        assert_int_equal(virtq_loaded(&r->q), -22); /* more than there are */
    }
    set_up(r);
    r->q.packed = false;
    r->q.next_avail = (uint16_t)(n + 1);
    assert_int_equal(virtq_loaded(&r->q), -22);
}

/* Completions that come after a reset, of either ring. */
static void test_reset(void **state)
{
    struct rig *r = *state;
    struct virtq_token old;

    offer(r, DATA, 4, 3, WRITE);
    assert_int_equal(virtq_pop(&r->q, &r->c), 1);
    old = r->c.token;
    set_up(r);
    virtq_push(&r->q, &old, 4);
    offer(r, DATA, 4, 4, WRITE);
    assert_int_equal(virtq_pop(&r->q, &r->c), 1);
    virtq_push(&r->q, &old, 4);
    virtq_unpop(&r->q, &old);
    assert_false(virtq_wants_interrupt(&r->q));
    virtq_push(&r->q, &r->c.token, 2);
    expect_used(r, 1, 4, 2);
    virtq_push(&r->q, &r->c.token, 2); /* twice */
    assert_true(virtq_wants_interrupt(&r->q));
    assert_int_equal(r->q.next_used, 1);
}

static uint64_t draw(uint64_t *x)
{
    *x = *x * 6364136223846793005ull + 1442695040888963407ull;
    return *x >> 33;
}

static void check_chain(struct rig *r)
{
    uint64_t out_len = 0, in_len = 0;

    assert_true(r->c.out_count + r->c.in_count <= VIRTQ_CHAIN_MAX);
    for (unsigned i = 0; i < r->c.out_count + r->c.in_count; i++) {
        const struct virtq_seg *s = &r->c.segs[i];

        assert_true(s->len == 0 || (s->gpa < RAM && s->len <= RAM - s->gpa));
        assert_ptr_equal(s->hva, s->len ? gmem_ptr(r->mem, s->gpa, s->len) : NULL);
        *(i < r->c.out_count ? &out_len : &in_len) += s->len;
    }
    assert_int_equal(out_len, r->c.out_len);
    assert_int_equal(in_len, r->c.in_len);
}

/* Random rings: whatever is popped lies in RAM and within the limits. Replay: VIRTQ_SEED=n. */
static void test_random(void **state)
{
    static const uint64_t places[] = {0,    RING,     DRIVER,     DEVICE,     TABLE,
                                      DATA, RAM - 16, 0xFEC00000, 1ull << 32, UINT64_MAX - 15};
    const char *given = getenv("VIRTQ_SEED");
    unsigned seed = given != NULL ? (unsigned)strtoul(given, NULL, 0) : (unsigned)time(NULL);
    uint64_t x = seed * 2654435761ull + 1;
    struct rig *r = *state;
    struct virtq_token out[8];
    unsigned popped = 0, held = 0;

#define RND(n) (draw(&x) % (n))
    printf("VIRTQ_SEED=%u\n", seed);
    for (unsigned round = 0; round < 20000; round++) {
        if (r->q.broken || RND(50) == 0) {
            set_up_size(r, (uint16_t)(1 + RND(8)));
            r->q.event_idx = RND(2) != 0;
            if (RND(2) == 0)
                held = 0; /* or the old ones are returned late */
        }
        for (unsigned i = 0; i < 3; i++) {
            uint64_t addr = places[RND(countof(places))] + RND(64);
            uint32_t len = RND(8) == 0 ? (uint32_t)(RND(1u << 31)) * 2 : (uint32_t)(RND(6) * 16);

            desc_at(r, TABLE + 16 * RND(8), addr, len, 0, (uint16_t)RND(4));
            offer(r, addr, len, (uint16_t)RND(65536), (uint16_t)(RND(8)));
        }
        put(r, DRIVER, RND(1u << 31) * 2, 4);
        while (virtq_pop(&r->q, &r->c) == 1) {
            popped++;
            check_chain(r);
            if (RND(4) == 0)
                virtq_copy_in(&r->q, &r->c, RND(64), "0123456789abcdef", 16);
            if (held < countof(out))
                out[held++] = r->c.token;
            while (held > 0 && RND(3) != 0) {
                unsigned n = (unsigned)RND(held);

                virtq_push(&r->q, &out[n], (uint32_t)RND(3));
                out[n] = out[--held];
                (void)virtq_wants_interrupt(&r->q);
            }
            assert_true(r->q.next_avail < r->q.size && r->q.next_used < r->q.size);
            assert_int_equal(virtq_loaded(&r->q), 0);
        }
    }
    printf("%u requests\n", popped);
    assert_true(popped > 100);
#undef RND
}

/* A driver on a thread that changes a descriptor while it is read: one look, one judgement. */
struct flicker {
    struct rig *r;
    _Atomic(bool) stop;
};

static void *flicker(void *ctx)
{
    struct flicker *f = ctx;
    uint8_t *ring = gmem_ptr(f->r->mem, RING, 16);
    const uint64_t addrs[] = {DATA, 0xFEC00000, UINT64_MAX - 7, TABLE};

    for (unsigned i = 0; !f->stop; i++) {
        uint16_t flags = (uint16_t)(AVAIL | (i / 4 % 8));

        __atomic_store_n((uint64_t *)(void *)ring, addrs[i % 4], __ATOMIC_RELAXED);
        __atomic_store_n((uint32_t *)(void *)(ring + 8), i % 3 * 16, __ATOMIC_RELAXED);
        __atomic_store_n((uint16_t *)(void *)(ring + 14), flags, __ATOMIC_RELAXED);
    }
    return NULL;
}

static void test_changes(void **state)
{
    struct rig *r = *state;
    struct flicker f = {.r = r};
    pthread_t thread;

    desc_at(r, TABLE, DATA, 16, 0, WRITE);
    desc_at(r, TABLE + 16, DATA, 16, 0, WRITE);
    assert_int_equal(pthread_create(&thread, NULL, flicker, &f), 0);
    for (unsigned i = 0; i < 20000; i++) {
        assert_int_equal(virtq_enable(&r->q), 0);
        if (virtq_pop(&r->q, &r->c) == 1)
            check_chain(r);
    }
    f.stop = true;
    pthread_join(thread, NULL);
}

/* A driver on a thread of its own, events both ways: nobody waits for what the other left out. */
#define REQUESTS 20000u

struct peers {
    struct rig *r;
    _Atomic(unsigned) kicks, interrupts;
};

static void driver_asks(struct rig *r, unsigned at, bool wrap)
{
    uint32_t *area = gmem_ptr(r->mem, DRIVER, 4);

    __atomic_store_n(area, at | (wrap ? 0x8000u : 0) | 2u << 16, __ATOMIC_RELAXED);
    atomic_thread_fence(memory_order_seq_cst);
}

static bool device_asks(struct rig *r, unsigned at, bool wrap)
{
    uint32_t *area = gmem_ptr(r->mem, DEVICE, 4);

    atomic_thread_fence(memory_order_seq_cst);
    return (__atomic_load_n(area, __ATOMIC_RELAXED) & 0xFFFF) == (at | (wrap ? 0x8000u : 0));
}

static uint16_t *ring_flags(struct rig *r, unsigned at)
{
    return gmem_ptr(r->mem, RING + 16 * at + 14, 2);
}

static bool is_used(struct rig *r, unsigned at, bool wrap)
{
    uint16_t flags = __atomic_load_n(ring_flags(r, at), __ATOMIC_ACQUIRE);

    return ((flags & AVAIL) != 0) == wrap && ((flags & USED) != 0) == wrap;
}

static void *drive(void *ctx)
{
    struct peers *p = ctx;
    struct rig *r = p->r;
    unsigned size = r->q.size, at = 0, used_at = 0, out = 0;
    bool wrap = true, used_wrap = true;

    for (unsigned total = 0; total < REQUESTS;) {
        unsigned seen;

        while (out < size) {
            __atomic_store_n(ring_flags(r, at), (uint16_t)(WRITE | (wrap ? AVAIL : USED)),
                             __ATOMIC_RELEASE);
            out++;
            if (device_asks(r, at, wrap))
                p->kicks++;
            if (++at == size) {
                at = 0;
                wrap = !wrap;
            }
        }
        seen = p->interrupts;
        driver_asks(r, used_at, used_wrap);
        if (!is_used(r, used_at, used_wrap))
            while (p->interrupts == seen)
                sched_yield();
        while (out > 0 && is_used(r, used_at, used_wrap)) {
            out--;
            total++;
            if (++used_at == size) {
                used_at = 0;
                used_wrap = !used_wrap;
            }
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
    for (unsigned i = 0; i < r->q.size; i++)
        desc_at(r, RING + 16 * i, DATA, 4, 0, 0);
    assert_int_equal(virtq_pop(&r->q, &r->c), 0); /* asks for the first notification */
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
            /* The driver writes flags alone; length and address must come round. */
            put(r, RING + 16 * r->q.next_used + 8, 4, 4);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_request, start, stop),
        cmocka_unit_test_setup_teardown(test_wrap, start, stop),
        cmocka_unit_test_setup_teardown(test_out_of_order, start, stop),
        cmocka_unit_test_setup_teardown(test_events, start, stop),
        cmocka_unit_test_setup_teardown(test_indirect, start, stop),
        cmocka_unit_test_setup_teardown(test_hostile_chains, start, stop),
        cmocka_unit_test_setup_teardown(test_hostile_indirect, start, stop),
        cmocka_unit_test_setup_teardown(test_hostile_setup, start, stop),
        cmocka_unit_test_setup_teardown(test_hostile_state, start, stop),
        cmocka_unit_test_setup_teardown(test_reset, start, stop),
        cmocka_unit_test_setup_teardown(test_random, start, stop),
        cmocka_unit_test_setup_teardown(test_changes, start, stop),
        cmocka_unit_test_setup_teardown(test_two_threads, start, stop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
