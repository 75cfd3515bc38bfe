/* What waits for what: flushes, FUA, drains, limits, pauses; on a file that records and fails. */
#include "block_gate.h"

static uint8_t sector[4096];

struct fixture {
    struct disk *d;
    struct gate *g;
    char text[513];
};

static struct fixture *make(bool loop, const char *options)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    f->d = disk_create(loop);
    disk_open_ok(f->d, options);
    f->g = gate_install(f->d);
    return f;
}

static void drop(struct fixture *f)
{
    disk_destroy(f->d);
    free(f);
}

static void write_at(struct fixture *f, struct call *c, uint64_t offset)
{
    call_init(c, f->d, BLOCK_WRITE, offset, sector, 512);
    call_submit(c);
}

static void flush(struct fixture *f, struct call *c)
{
    call_init(c, f->d, BLOCK_FLUSH, 0, NULL, 0);
    call_submit(c);
}

/* Nothing is under way but what stands at the gate: by a request that goes through all the layers.
 */
static void settle(struct fixture *f)
{
    assert_int_equal(disk_do(f->d, BLOCK_READ, 0, sector, 512), 0);
}

/* A write with FUA has come to its flush, or (which would be wrong) is done without. */
static void until_flushing(struct fixture *f, struct call *c)
{
    for (bool moved = false; !moved;) {
        pthread_mutex_lock(&f->d->env.lock);
        pthread_mutex_lock(&f->g->lock);
        moved = c->rc != 1 || f->g->inside > 0;
        pthread_mutex_unlock(&f->g->lock);
        pthread_mutex_unlock(&f->d->env.lock);
        usleep(1000);
    }
}

static void test_flush_waits(void **state)
{
    struct fixture *f = make(true, "ram=1m");
    struct call before[2], barrier, after, second;

    (void)state;
    gate_set(f->g, "w");
    write_at(f, &before[0], 0);
    write_at(f, &before[1], 512);
    gate_wait(f->g, 2);
    flush(f, &barrier);
    settle(f);
    assert_string_equal(gate_text(f->g, f->text), "r"); /* no flush yet */
    gate_set(f->g, "f");
    assert_int_equal(call_wait(&before[0]), 0);
    assert_int_equal(call_wait(&before[1]), 0);
    gate_wait(f->g, 1); /* the flush has begun */
    write_at(f, &after, 1024);
    assert_int_equal(call_wait(&after), 0); /* passes it */
    flush(f, &second);
    settle(f);
    assert_int_equal(barrier.rc, 1);
    gate_set(f->g, "");
    assert_int_equal(call_wait(&barrier), 0);
    assert_int_equal(call_wait(&second), 0);
    /* The second was not taken for served by the flush that began before it. */
    assert_string_equal(gate_text(f->g, f->text), "rwwwrff");
    drop(f);
}

/* Many at once need one flush of the file. */
static void test_flush_shared(void **state)
{
    struct fixture *f = make(true, "ram=1m");
    struct call write, barrier[5];

    (void)state;
    gate_set(f->g, "w");
    write_at(f, &write, 0);
    for (unsigned i = 0; i < countof(barrier); i++)
        flush(f, &barrier[i]);
    gate_set(f->g, "");
    for (unsigned i = 0; i < countof(barrier); i++)
        assert_int_equal(call_wait(&barrier[i]), 0);
    assert_string_equal(gate_text(f->g, f->text), "wf");
    drop(f);
}

static void test_fua(void **state)
{
    struct fixture *f = make(true, "ram=1m");
    struct call c;

    (void)state;
    call_init(&c, f->d, BLOCK_WRITE, 0, sector, 512);
    c.r.fua = true;
    gate_set(f->g, "f");
    call_submit(&c);
    until_flushing(f, &c);
    settle(f);
    assert_int_equal(c.rc, 1);
    gate_set(f->g, "");
    assert_int_equal(call_wait(&c), 0);
    assert_string_equal(gate_text(f->g, f->text), "wrf");
    drop(f);
}

/* A flush waits for a write with FUA that is not flushed yet. */
static void test_fua_before_flush(void **state)
{
    struct fixture *f = make(true, "ram=1m");
    struct call c, barrier;

    (void)state;
    gate_set(f->g, "f");
    call_init(&c, f->d, BLOCK_ZERO, 0, NULL, 512);
    c.r.fua = true;
    call_submit(&c);
    gate_wait(f->g, 1);
    flush(f, &barrier);
    gate_set(f->g, "");
    assert_int_equal(call_wait(&barrier), 0);
    assert_int_equal(c.rc, 0);
    assert_string_equal(gate_text(f->g, f->text), "zff");
    drop(f);
}

static void test_errors(void **state)
{
    static const struct {
        char letter[2];
        enum block_op op;
        int host, guest;
    } cases[] = {
        {"r", BLOCK_READ, -EIO, -EIO},        {"r", BLOCK_READ, -ENXIO, -EIO},
        {"w", BLOCK_WRITE, -EIO, -EIO},       {"w", BLOCK_WRITE, -ENOSPC, -ENOSPC},
        {"w", BLOCK_WRITE, -EDQUOT, -ENOSPC}, {"w", BLOCK_WRITE, -EBADF, -EROFS},
        {"f", BLOCK_FLUSH, -EIO, -EIO},       {"z", BLOCK_ZERO, -ENOSPC, -ENOSPC},
        {"d", BLOCK_DISCARD, -EIO, -EIO},     {"d", BLOCK_DISCARD, -EOPNOTSUPP, 0},
        {"w", BLOCK_WRITE, -ETIMEDOUT, -EIO},
    };

    (void)state;
    for (unsigned loop = 0; loop < 2; loop++) {
        struct fixture *f = make(loop != 0, "ram=1m");
        struct block_stats stats;

        for (unsigned i = 0; i < countof(cases); i++) {
            gate_fail(f->g, cases[i].letter, cases[i].host, 1);
            assert_int_equal(disk_do(f->d, cases[i].op, 512, sector, 512), cases[i].guest);
            assert_int_equal(disk_do(f->d, cases[i].op, 512, sector, 512), 0);
        }
        /* ten errors were told of, in ten lines; the last says that there may be more */
        assert_int_equal(f->d->log_count, 10);
        assert_non_null(
            strstr(f->d->log[9 % 8], "disk0: gate: write of 512 bytes at 512 failed: "));
        assert_non_null(strstr(f->d->log[9 % 8], "dropped for a while"));
        gate_fail(f->g, "w", -EIO, 1);
        assert_int_equal(disk_do(f->d, BLOCK_WRITE, 512, sector, 512), -EIO);
        assert_int_equal(f->d->log_count, 10);
        block_stats(f->d->b, &stats);
        assert_int_equal(stats.errors, 11);
        drop(f);
    }
}

/* All that waited for a flush that failed are told. */
static void test_flush_fails(void **state)
{
    struct fixture *f = make(true, "ram=1m,on_error=pause");
    struct call write, fua, barrier[2];

    (void)state;
    gate_set(f->g, "w");
    gate_fail(f->g, "f", -EIO, 1);
    write_at(f, &write, 0);
    gate_wait(f->g, 1);
    flush(f, &barrier[0]);
    flush(f, &barrier[1]);
    gate_set(f->g, "");
    assert_int_equal(call_wait(&barrier[0]), -EIO);
    assert_int_equal(call_wait(&barrier[1]), -EIO);
    assert_int_equal(call_wait(&write), 0);
    gate_fail(f->g, "f", -EIO, 1);
    call_init(&fua, f->d, BLOCK_WRITE, 0, sector, 512);
    fua.r.fua = true;
    call_submit(&fua);
    assert_int_equal(call_wait(&fua), -EIO);
    drop(f);
}

static void test_pause(void **state)
{
    struct fixture *f = make(false, "ram=1m,on_error=pause");
    struct call c[2], barrier, read;

    (void)state;
    gate_fail(f->g, "w", -ENOSPC, 7);
    write_at(f, &c[0], 0);
    write_at(f, &c[1], 512);
    flush(f, &barrier);
    call_init(&read, f->d, BLOCK_READ, 0, sector, 512);
    call_submit(&read);
    assert_int_equal(read.rc, 0);
    assert_int_equal(c[0].rc, 1);
    assert_int_equal(f->d->log_count, 1);
    assert_non_null(strstr(f->d->log[0], "No space left"));
    timerq_step(f->d->env.timers, NSEC_PER_SEC - 1);
    assert_int_equal(f->g->fails, 5);
    timerq_step(f->d->env.timers, 1);
    assert_int_equal(f->g->fails, 3);
    timerq_step(f->d->env.timers, NSEC_PER_SEC);
    assert_int_equal(f->g->fails, 1);
    timerq_step(f->d->env.timers, NSEC_PER_SEC); /* the first fails once more, the second works */
    assert_int_equal(c[0].rc, 1);
    assert_int_equal(c[1].rc, 0);
    assert_int_equal(barrier.rc, 1);
    assert_int_equal(f->d->log_count, 1);
    timerq_step(f->d->env.timers, NSEC_PER_SEC);
    assert_int_equal(c[0].rc, 0);
    assert_int_equal(barrier.rc, 0);
    assert_int_equal(f->d->log_count, 2);
    timerq_step(f->d->env.timers, 10 * NSEC_PER_SEC);
    assert_int_equal(f->d->log_count, 2);
    drop(f);
}

/* A drain cannot wait for somebody to make room. */
static void test_pause_drain(void **state)
{
    (void)state;
    for (unsigned loop = 0; loop < 2; loop++) {
        struct fixture *f = make(loop != 0, "ram=1m,on_error=pause");
        struct call c, barrier;

        gate_fail(f->g, "w", -ENOSPC, 1000);
        write_at(f, &c, 0);
        flush(f, &barrier);
        pthread_mutex_lock(&f->d->env.lock);
        block_drain(f->d->b);
        assert_int_equal(c.rc, -ENOSPC);
        assert_int_equal(barrier.rc, 0);
        pthread_mutex_unlock(&f->d->env.lock);
        drop(f);
    }
}

static unsigned ended(struct call *c, unsigned n)
{
    unsigned count = 0;

    for (unsigned i = 0; i < n; i++)
        count += c[i].rc != 1;
    return count;
}

static void test_iops(void **state)
{
    struct fixture *f = make(false, "ram=1m,iops=10");
    struct call c[30], barrier;

    (void)state;
    for (unsigned i = 0; i < countof(c); i++) {
        write_at(f, &c[i], i * 512);
        if (i == 9)
            flush(f, &barrier);
    }
    assert_int_equal(ended(c, 30), 2); /* one, and one ahead */
    timerq_step(f->d->env.timers, 99 * NSEC_PER_SEC / 1000);
    assert_int_equal(ended(c, 30), 2);
    timerq_step(f->d->env.timers, NSEC_PER_SEC / 1000);
    assert_int_equal(ended(c, 30), 3);
    timerq_step(f->d->env.timers, 600 * NSEC_PER_SEC / 1000);
    assert_int_equal(ended(c, 30), 9);
    assert_int_equal(barrier.rc, 1); /* the tenth write is held, and it covers that */
    timerq_step(f->d->env.timers, 100 * NSEC_PER_SEC / 1000);
    assert_int_equal(ended(c, 30), 10);
    assert_int_equal(barrier.rc, 0);
    assert_string_equal(gate_text(f->g, f->text), "wwwwwwwwwwf");
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(f->g->log[i].offset, i * 512);
    timerq_step(f->d->env.timers, NSEC_PER_SEC);
    assert_int_equal(ended(c, 30), 20);
    /* A drain does not wait, but what it let through is paid for. */
    pthread_mutex_lock(&f->d->env.lock);
    block_drain(f->d->b);
    pthread_mutex_unlock(&f->d->env.lock);
    assert_int_equal(ended(c, 30), 30);
    write_at(f, &c[0], 0);
    assert_int_equal(c[0].rc, 1);
    timerq_step(f->d->env.timers, 900 * NSEC_PER_SEC / 1000);
    assert_int_equal(c[0].rc, 1);
    timerq_step(f->d->env.timers, 200 * NSEC_PER_SEC / 1000);
    assert_int_equal(c[0].rc, 0);
    drop(f);
}

static void test_bps(void **state)
{
    struct fixture *f = make(false, "ram=64m,bps=1m");
    uint8_t *big = calloc(1, 4 * MIB);
    struct call c[3];

    (void)state;
    call_init(&c[0], f->d, BLOCK_WRITE, 0, big, 4 * MIB); /* larger than a second's worth: whole */
    call_submit(&c[0]);
    assert_int_equal(c[0].rc, 0);
    write_at(f, &c[1], 0);
    call_init(&c[2], f->d, BLOCK_ZERO, 0, NULL, 32 * MIB); /* moves no bytes, but keeps its turn */
    call_submit(&c[2]);
    timerq_step(f->d->env.timers, 3890 * NSEC_PER_SEC / 1000);
    assert_int_equal(ended(c, 3), 1);
    timerq_step(f->d->env.timers, 20 * NSEC_PER_SEC / 1000);
    assert_int_equal(ended(c, 3), 3);
    free(big);
    drop(f);
}

struct release {
    struct gate *g;
    pthread_t thread;
};

static void *release_main(void *arg)
{
    struct release *r = arg;

    gate_wait(r->g, 2);
    gate_set(r->g, "");
    return NULL;
}

/* With the lock held, while the loop's thread wants it; what is done is told here. */
static void drain_or_close(bool close_it)
{
    struct fixture *f = make(true, "ram=1m");
    struct release r = {.g = f->g};
    struct call c[2], barrier;

    gate_set(f->g, "w");
    pthread_mutex_lock(&f->d->env.lock);
    for (unsigned i = 0; i < 2; i++) {
        call_init(&c[i], f->d, BLOCK_WRITE, i * 512, sector, 512);
        block_submit(f->d->b, &c[i].r);
    }
    call_init(&barrier, f->d, BLOCK_FLUSH, 0, NULL, 0);
    block_submit(f->d->b, &barrier.r);
    assert_int_equal(pthread_create(&r.thread, NULL, release_main, &r), 0);
    if (close_it) {
        block_close(f->d->b);
        f->d->b = NULL;
    } else {
        block_drain(f->d->b);
    }
    assert_int_equal(ended(c, 2), 2);
    assert_int_equal(barrier.rc, 0);
    pthread_mutex_unlock(&f->d->env.lock);
    pthread_join(r.thread, NULL);
    drop(f);
}

static void test_drain(void **state)
{
    (void)state;
    drain_or_close(false);
}

static void test_close(void **state)
{
    (void)state;
    drain_or_close(true);
}

/* `done` submits the next one: no recursion, and the order is kept. */
struct chain {
    struct block_request r;
    struct disk *d;
    struct iovec iov;
    unsigned left;
    bool inside;
};

static void chain_done(struct block_request *r, int rc)
{
    struct chain *c = container_of(r, struct chain, r);

    must(rc == 0);
    must(!c->inside);
    c->inside = true;
    if (--c->left > 0)
        block_submit(c->d->b, &c->r);
    else
        pthread_cond_broadcast(&c->d->ended);
    c->inside = false;
}

static void chain(bool loop, unsigned count)
{
    struct disk *d = disk_create(loop);
    struct chain c = {.d = d, .left = count, .iov = {.iov_base = sector, .iov_len = 512}};

    disk_open_ok(d, "ram=1m");
    c.r = (struct block_request){
        .op = BLOCK_READ, .len = 512, .iov = &c.iov, .iov_count = 1, .done = chain_done};
    pthread_mutex_lock(&d->env.lock);
    block_submit(d->b, &c.r);
    while (loop && c.left > 0)
        pthread_cond_wait(&d->ended, &d->env.lock);
    pthread_mutex_unlock(&d->env.lock);
    assert_int_equal(c.left, 0);
    disk_destroy(d);
}

static void test_chain(void **state)
{
    (void)state;
    chain(false, 1000000);
    chain(true, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flush_waits), cmocka_unit_test(test_flush_shared),
        cmocka_unit_test(test_fua),         cmocka_unit_test(test_fua_before_flush),
        cmocka_unit_test(test_errors),      cmocka_unit_test(test_flush_fails),
        cmocka_unit_test(test_pause),       cmocka_unit_test(test_pause_drain),
        cmocka_unit_test(test_iops),        cmocka_unit_test(test_bps),
        cmocka_unit_test(test_drain),       cmocka_unit_test(test_close),
        cmocka_unit_test(test_chain),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
