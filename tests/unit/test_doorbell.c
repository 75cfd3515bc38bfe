/* Doorbells: which writes an engine is told to take, and who hears of them. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "bus/doorbell.h"
#include "bus/internal.h"
#include "loop_fixture.h"

/* An engine's side: the bells that it was told of, at most as many as `room`. */
struct engine {
    struct {
        struct bus_spot spot;
        int fd;
    } bell[8];
    unsigned count, room, calls;
};

struct fixture {
    struct log *log;
    struct bus *bus;
    struct loop_thread server;
    pthread_mutex_t lock; /* of the bells' owner */
    pthread_cond_t heard;
    unsigned rings, writes;
    struct engine engine;
    struct bus_doorbell *bell;
};

static bool same(const struct bus_spot *a, const struct bus_spot *b)
{
    return a->space == b->space && a->addr == b->addr && a->len == b->len && a->match == b->match &&
           a->value == b->value;
}

static int engine_set(void *ctx, const struct bus_spot *spot, int fd, bool on)
{
    struct engine *e = ctx;

    e->calls++;
    for (unsigned i = 0; i < e->count; i++) {
        if (!same(&e->bell[i].spot, spot))
            continue;
        assert_false(on); /* nothing is told twice */
        assert_int_equal(e->bell[i].fd, fd);
        e->bell[i] = e->bell[--e->count];
        return 0;
    }
    assert_true(on); /* nor taken back that was not told */
    if (e->count == e->room)
        return -ENOSPC;
    e->bell[e->count].spot = *spot;
    e->bell[e->count++].fd = fd;
    return 0;
}

static void rung(void *ctx)
{
    struct fixture *f = ctx;

    f->rings++;
    pthread_cond_signal(&f->heard);
}

static void region_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    struct fixture *f = ctx;

    (void)offset;
    (void)size;
    (void)value;
    f->writes++;
}

static const struct bus_ops region_ops = {.write = region_write};
static const struct bus_spot spot = {.space = BUS_MMIO, .addr = 0x1100, .len = 2};

static void map(struct fixture *f, uint64_t base, void *ctx, int priority)
{
    struct bus_region r = {.base = base,
                           .len = 0x1000,
                           .ops = &region_ops,
                           .ctx = ctx,
                           .name = "region",
                           .priority = priority};
    struct error err = {0};

    assert_int_equal(bus_map(f->bus, BUS_MMIO, &r, &err), 0);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    *state = f;
    f->log = log_create(2, LOG_WARN);
    f->bus = bus_create(f->log);
    f->engine.room = countof(f->engine.bell);
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->heard, NULL);
    map(f, 0x1000, f, 0);
    if (loop_thread_start(&f->server) != 0)
        return -1;
    f->bell = bus_doorbell_create(f->bus, f->server.loop, &f->lock, rung, f);
    return f->bell != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    bus_attach_doorbells(f->bus, NULL, NULL);
    pthread_mutex_lock(&f->lock);
    bus_doorbell_free(f->bell);
    pthread_mutex_unlock(&f->lock);
    loop_thread_stop(&f->server);
    bus_destroy(f->bus);
    log_destroy(f->log);
    pthread_mutex_destroy(&f->lock);
    pthread_cond_destroy(&f->heard);
    free(f);
    return 0;
}

static void attach(struct fixture *f)
{
    bus_attach_doorbells(f->bus, engine_set, &f->engine);
}

static bool has(const struct fixture *f, const struct bus_spot *want)
{
    return f->engine.count == 1 && same(&f->engine.bell[0].spot, want);
}

static void ring(const struct fixture *f)
{
    uint64_t one = 1;

    assert_int_equal(write(f->engine.bell[0].fd, &one, sizeof(one)), sizeof(one));
}

static void test_told(void **state)
{
    struct fixture *f = *state;
    struct bus_spot port = {.space = BUS_PIO, .addr = 0x10, .len = 2, .match = true, .value = 7};

    bus_doorbell_place(f->bell, &spot, f);
    assert_int_equal(f->engine.calls, 0); /* there is no engine yet */
    attach(f);
    assert_true(has(f, &spot));
    bus_doorbell_place(f->bell, &spot, f);
    assert_int_equal(f->engine.calls, 1); /* the same again is nothing new */
    bus_doorbell_place(f->bell, &port, f);
    assert_int_equal(f->engine.count, 0); /* no region of ours has that port */
    bus_doorbell_place(f->bell, &spot, f);
    assert_true(has(f, &spot));
    bus_doorbell_place(f->bell, NULL, NULL);
    assert_int_equal(f->engine.count, 0);
    bus_doorbell_place(f->bell, &spot, f);
    bus_attach_doorbells(f->bus, NULL, NULL);
    assert_int_equal(f->engine.count, 0); /* taken back before the engine goes */
}

/* Only while the bytes are the region's. */
static void test_map(void **state)
{
    struct fixture *f = *state;
    struct bus_spot last = {.space = BUS_MMIO, .addr = 0x1ffe, .len = 4};
    int other;

    attach(f);
    bus_doorbell_place(f->bell, &spot, f);
    map(f, 0x800, &other, 1); /* in front, and over the spot */
    assert_int_equal(f->engine.count, 0);
    bus_unmap(f->bus, BUS_MMIO, 0x800, &other);
    assert_true(has(f, &spot));
    map(f, 0x800, &other, -1); /* behind */
    assert_true(has(f, &spot));
    bus_unmap(f->bus, BUS_MMIO, 0x1000, f);
    assert_int_equal(f->engine.count, 0);
    map(f, 0x1000, f, 0);
    assert_true(has(f, &spot));
    bus_doorbell_place(f->bell, &last, f); /* half of it is beyond the region */
    assert_int_equal(f->engine.count, 0);
}

static void test_rung(void **state)
{
    struct fixture *f = *state;
    uint64_t deaf = f->rings;

    attach(f);
    bus_doorbell_place(f->bell, &spot, f);
    pthread_mutex_lock(&f->lock);
    ring(f); /* the loop waits for the lock */
    ring(f);
    bus_doorbell_poll(f->bell);
    assert_int_equal(f->rings, deaf + 1);
    bus_doorbell_poll(f->bell);
    assert_int_equal(f->rings, deaf + 1); /* two writes were one ring, and it is heard once */
    ring(f);
    while (f->rings != deaf + 2)
        pthread_cond_wait(&f->heard, &f->lock);
    pthread_mutex_unlock(&f->lock);
    assert_int_equal(f->writes, 0);
    assert_true(bus_write(f->bus, BUS_READER_OTHER, BUS_MMIO, spot.addr, 2, 0));
    assert_int_equal(f->writes, 1); /* who writes on the bus reaches the region */
}

static void test_refused(void **state)
{
    struct fixture *f = *state;
    struct bus_spot next = spot;

    f->engine.room = 0;
    attach(f);
    bus_doorbell_place(f->bell, &spot, f);
    assert_int_equal(f->engine.count, 0);
    bus_doorbell_place(f->bell, NULL, NULL); /* engine_set would say that it never had it */
    f->engine.room = 1;
    next.addr += 4;
    bus_doorbell_place(f->bell, &next, f);
    assert_true(has(f, &next));
}

static void test_freed(void **state)
{
    struct fixture *f = *state;
    int fd;

    attach(f);
    bus_doorbell_place(f->bell, &spot, f);
    fd = f->engine.bell[0].fd;
    pthread_mutex_lock(&f->lock);
    ring(f);
    bus_doorbell_free(f->bell);
    f->bell = NULL;
    pthread_mutex_unlock(&f->lock);
    assert_int_equal(f->engine.count, 0);
    assert_int_equal(f->rings, 0);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    map(f, 0x8000, f, 0); /* nothing is left that a change would look at */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_told, setup, teardown),
        cmocka_unit_test_setup_teardown(test_map, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rung, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_freed, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
