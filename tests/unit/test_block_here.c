/* What ends inside the submission: reads and small writes of the host's cache. */
#include <fcntl.h>

#include "block_fixture.h"

#include "block/internal.h"
#include "host/clock.h"

#define SIZE (4u << 20)
#define SLOW (3 * NSEC_PER_SEC / 1000)
#define QUICK 3000u

static uint8_t buf[1 << 20];

static struct disk *make(const char *options)
{
    struct disk *d = disk_create(true);

    disk_file(d, SIZE);
    disk_open_ok(d, options);
    /* Pages of its own in the host's cache, so that a read need not wait. */
    memset(buf, 0x11, sizeof(buf));
    for (unsigned at = 0; at < SIZE; at += sizeof(buf))
        assert_int_equal(disk_do(d, BLOCK_WRITE, at, buf, sizeof(buf)), 0);
    return d;
}

/* Whether io_uring is here at all; a container may forbid it. */
static bool has_uring(const struct disk *d)
{
    if (aio_has_uring(d->b->aio))
        return true;
    print_message("there is no io_uring here: nothing to see\n");
    return false;
}

/* Between plug and unplug; true if it had ended when block_unplug returned. The loop is locked out.
 */
static bool ends_at_once(struct call *c)
{
    bool ended;

    pthread_mutex_lock(&c->d->env.lock);
    block_plug(c->d->b);
    block_submit(c->d->b, &c->r);
    must(c->rc == 1); /* not inside the submission: the device is in the middle of its own */
    block_unplug(c->d->b);
    ended = c->rc != 1;
    pthread_mutex_unlock(&c->d->env.lock);
    return ended;
}

static void test_read(void **state)
{
    struct disk *d = make("");
    struct call c;

    (void)state;
    if (has_uring(d)) {
        memset(buf, 0, 4096);
        call_init(&c, d, BLOCK_READ, 8192, buf, 4096);
        assert_true(ends_at_once(&c));
        assert_int_equal(c.rc, 0);
        assert_int_equal(buf[4095], 0x11);
    }
    disk_destroy(d);
}

static void test_write(void **state)
{
    struct disk *d = make("");
    struct call c;

    (void)state;
    if (has_uring(d)) {
        memset(buf, 0x22, 4096);
        call_init(&c, d, BLOCK_WRITE, 8192, buf, 4096);
        assert_true(ends_at_once(&c));
        assert_int_equal(c.rc, 0);
        assert_true(d->b->here.cost_ns > 0);
        memset(buf, 0, 12288);
        assert_int_equal(disk_do(d, BLOCK_READ, 4096, buf, 12288), 0);
        assert_true(buf[4095] == 0x11 && buf[4096] == 0x22 && buf[8191] == 0x22);
        assert_int_equal(buf[8192], 0x11);
    }
    disk_destroy(d);
}

/* Not in the cache, or not only there: that waits for a device. */
static void test_not_here(void **state)
{
    static const char *const options[] = {"direct", "nocache", "aio=threads"};
    struct call c;

    (void)state;
    for (unsigned i = 0; i < countof(options); i++) {
        struct disk *d = disk_create(true);
        struct error err = {0};

        disk_file(d, SIZE);
        if (disk_open(d, options[i], false, &err) == 0) { /* nocache is not had everywhere */
            call_init(&c, d, BLOCK_WRITE, 8192, buf, 4096);
            call_submit(&c);
            assert_int_equal(call_wait(&c), 0);
            assert_true(d->b->here.cost_ns == 0);
            disk_destroy(d);
        }
    }
}

static void test_slow(void **state)
{
    struct disk *d = make("");
    struct block_here *h = &d->b->here;
    uint64_t now = host_clock_ns(), pause = 0;
    struct call c;

    (void)state;
    h->not_before_ns = UINT64_MAX;
    h->cost_ns = 0;
    call_init(&c, d, BLOCK_WRITE, 0, buf, 4096);
    call_submit(&c);
    assert_int_equal(call_wait(&c), 0); /* the usual way */
    assert_int_equal(h->cost_ns, 0);

    *h = (struct block_here){0};
    block_here_learn(h, now, now + QUICK);
    assert_int_equal(h->not_before_ns, 0);
    for (unsigned i = 0; i < 12; i++) {
        block_here_learn(h, now, now + SLOW);
        assert_true(h->not_before_ns - (now + SLOW) >= pause);
        pause = h->not_before_ns - (now + SLOW);
        if (i == 0)
            assert_int_equal(pause, NSEC_PER_SEC / 10);
    }
    assert_int_equal(pause, 10 * NSEC_PER_SEC);
    for (unsigned i = 0; i < 1000; i++)
        block_here_learn(h, now, now + QUICK); /* forgiven in time */
    block_here_learn(h, now, now + SLOW);
    assert_int_equal(h->not_before_ns - (now + SLOW), NSEC_PER_SEC / 10);
    disk_destroy(d);
}

#define LARGE_SIZE (256u << 10)
#define LARGE_COUNT 5u

/* Large reads at once, each to memory of its own; the lanes that they took. */
struct large {
    struct call c[LARGE_COUNT];
    uint8_t to[LARGE_COUNT][LARGE_SIZE];
    enum aio_lane lane[LARGE_COUNT];
};

static void large_read(struct disk *d, struct large *l, unsigned count)
{
    memset(l->to, 0, sizeof(l->to));
    pthread_mutex_lock(&d->env.lock);
    block_plug(d->b);
    for (unsigned i = 0; i < count; i++) {
        struct op *op;

        call_init(&l->c[i], d, BLOCK_READ, i * LARGE_SIZE, l->to[i], LARGE_SIZE);
        block_submit(d->b, &l->c[i].r);
        op = l->c[i].r.private.aux;
        l->lane[i] = op->job.lane;
    }
    block_unplug(d->b);
    pthread_mutex_unlock(&d->env.lock);
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(call_wait(&l->c[i]), 0);
        assert_true(l->to[i][0] == 0x11 && l->to[i][LARGE_SIZE - 1] == 0x11);
    }
    assert_true(d->b->here.reads == 0 && d->b->jobs == 0);
}

/* Alone they end here; of several at once a thread has two, so that the vCPU copies the others. */
static void test_large(void **state)
{
    struct disk *d = make("");
    struct large *l = calloc(1, sizeof(*l));
    const struct block_here *h = &d->b->here;

    (void)state;
    assert_non_null(l);
    if (has_uring(d)) {
        large_read(d, l, 1);
        assert_int_equal(l->lane[0], AIO_NO_LANE);
        large_read(d, l, LARGE_COUNT);
        for (unsigned i = 0; i < LARGE_COUNT; i++)
            assert_int_equal(l->lane[i], i == 1 || i == 2 ? AIO_READS : AIO_NO_LANE);
    }
    if (has_uring(d) && !h->no_reads) {
        /* It was of use, which is remembered for a while. */
        d->b->here.keep = 2;
        for (unsigned i = 2; i > 0; i--) {
            assert_int_equal(h->keep, i);
            large_read(d, l, 1);
            assert_int_equal(l->lane[0], AIO_READS);
        }
        /* Then one in many finds out whether it would be again. */
        for (unsigned n = 0, lanes = 0; n < 64; n++) {
            large_read(d, l, 1);
            lanes += l->lane[0] == AIO_READS;
            assert_int_equal(lanes, (h->alone) / 32);
        }
    }
    free(l);
    disk_destroy(d);
}

/* What the thread would have to wait for goes on by io_uring, as many as there are. */
static void test_large_not_there(void **state)
{
    struct disk *d = make("");
    struct large *l = calloc(1, sizeof(*l));

    (void)state;
    assert_non_null(l);
    if (has_uring(d)) {
        int fd = d->b->image->file->fd;

        assert_int_equal(fdatasync(fd), 0); /* or the pages stay */
        for (unsigned round = 0; round < 4; round++) {
            assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
            d->b->here.keep = round;
            large_read(d, l, LARGE_COUNT);
        }
    }
    free(l);
    disk_destroy(d);
}

/* The kernel locks a file for a write: a small one made here would wait for the large one's end. */
static void test_beside_large(void **state)
{
    struct disk *d = make("");
    struct call c[2];
    uint64_t cost;

    (void)state;
    if (has_uring(d)) {
        pthread_mutex_lock(&d->env.lock);
        cost = d->b->here.cost_ns;
        call_init(&c[0], d, BLOCK_WRITE, 0, buf, sizeof(buf));
        block_submit(d->b, &c[0].r);
        assert_int_equal(d->b->here.writes, 1);
        call_init(&c[1], d, BLOCK_WRITE, 2 << 20, buf, 4096);
        block_submit(d->b, &c[1].r);
        assert_int_equal(d->b->here.writes, 2);
        assert_int_equal(d->b->here.cost_ns, cost);
        pthread_mutex_unlock(&d->env.lock);
        for (unsigned i = 0; i < 2; i++)
            assert_int_equal(call_wait(&c[i]), 0);
        assert_int_equal(d->b->here.writes, 0);
    }
    disk_destroy(d);
}

/* Every `done` asks for one more: the loop gets its turn in between, and so does the lock. */
struct chain {
    struct call c;
    unsigned left;
};

static void chain_done(struct block_request *r, int rc)
{
    struct chain *chain = container_of(r, struct chain, c.r);

    must(rc == 0);
    if (--chain->left > 0)
        block_submit(chain->c.d->b, r);
    else
        call_done(r, rc);
}

static void test_chain(void **state)
{
    struct disk *d = make("");
    struct chain chain = {.left = 10000};

    (void)state;
    call_init(&chain.c, d, BLOCK_READ, 0, buf, 512);
    chain.c.r.done = chain_done;
    if (has_uring(d)) {
        assert_false(ends_at_once(&chain.c));
        assert_true(chain.left > 0);
        assert_int_equal(call_wait(&chain.c), 0);
    }
    disk_destroy(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),         cmocka_unit_test(test_write),
        cmocka_unit_test(test_not_here),     cmocka_unit_test(test_slow),
        cmocka_unit_test(test_large),        cmocka_unit_test(test_chain),
        cmocka_unit_test(test_beside_large), cmocka_unit_test(test_large_not_there),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
