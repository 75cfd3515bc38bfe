/*
 * The direct way past a format: which requests take it, and that no cluster is given back while one
 * is on its way. The file is a pipe, so that a read takes as long as we like.
 */
#include "block_fixture.h"

#include <errno.h>

#include "block/internal.h"

#define CLUSTER 65536u

struct fake {
    pthread_mutex_t lock;
    pthread_cond_t moved;
    bool closed; /* zero waits */
    unsigned reads, writes, zeros, inside;
};

struct fixture {
    struct disk *d;
    struct fake fake;
    void *raw; /* the real image, kept for the end */
    int pipe[2];
};

static int fake_read(void *image, uint64_t offset, const struct iovec *iov, unsigned count)
{
    struct fake *f = image;

    (void)offset;
    for (unsigned i = 0; i < count; i++)
        memset(iov[i].iov_base, 'f', iov[i].iov_len);
    pthread_mutex_lock(&f->lock);
    f->reads++;
    pthread_mutex_unlock(&f->lock);
    return 0;
}

static int fake_zero(void *image, uint64_t offset, uint64_t len, bool punch)
{
    struct fake *f = image;

    (void)offset, (void)len, (void)punch;
    pthread_mutex_lock(&f->lock);
    f->inside++;
    pthread_cond_broadcast(&f->moved);
    while (f->closed)
        pthread_cond_wait(&f->moved, &f->lock);
    f->inside--;
    f->zeros++;
    pthread_mutex_unlock(&f->lock);
    return 0;
}

static int fake_flush(void *image)
{
    (void)image;
    return 0;
}

static bool fake_locate(void *image, bool write, uint64_t offset, uint64_t len, uint64_t *in_file)
{
    (void)image, (void)len;
    *in_file = offset;
    return !write && offset < 8 * (uint64_t)CLUSTER;
}

static const struct block_format fake_format = {.name = "fake",
                                                .read = fake_read,
                                                .zero = fake_zero,
                                                .flush = fake_flush,
                                                .locate = fake_locate};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct block_image *i;

    assert_non_null(f);
    f->d = disk_create(true);
    disk_open_ok(f->d, "ram=1m");
    assert_int_equal(pipe(f->pipe), 0);
    pthread_mutex_init(&f->fake.lock, NULL);
    pthread_cond_init(&f->fake.moved, NULL);
    i = f->d->b->image;
    f->raw = i->image;
    i->format = &fake_format;
    i->image = &f->fake;
    i->info.cluster = CLUSTER;
    i->file->fd = f->pipe[0];
    *state = f;
    return 0;
}

static void gate(struct fixture *f, bool closed, unsigned wait)
{
    pthread_mutex_lock(&f->fake.lock);
    f->fake.closed = closed;
    pthread_cond_broadcast(&f->fake.moved);
    while (f->fake.inside < wait)
        pthread_cond_wait(&f->fake.moved, &f->fake.lock);
    pthread_mutex_unlock(&f->fake.lock);
}

static void feed(struct fixture *f, size_t len)
{
    static char text[CLUSTER];

    memset(text, 'p', sizeof(text));
    assert_int_equal(write(f->pipe[1], text, len), (ssize_t)len);
}

/* What a test that failed has left under way is let go. */
static int teardown(void **state)
{
    struct fixture *f = *state;
    struct block_image *i = f->d->b->image;

    gate(f, false, 0);
    feed(f, 4096);
    pthread_mutex_lock(&f->d->env.lock);
    block_drain(f->d->b);
    pthread_mutex_unlock(&f->d->env.lock);
    i->format = &block_raw;
    i->image = f->raw;
    i->file->fd = -1;
    disk_destroy(f->d);
    close(f->pipe[0]);
    close(f->pipe[1]);
    pthread_mutex_destroy(&f->fake.lock);
    pthread_cond_destroy(&f->fake.moved);
    free(f);
    return 0;
}

static struct fixture *with_uring(void **state)
{
    struct fixture *f = *state;

    if (aio_has_uring(f->d->b->aio))
        return f;
    print_message("skipped: no io_uring here\n");
    return NULL;
}

static unsigned look(struct fixture *f, const unsigned *counter)
{
    unsigned n;

    pthread_mutex_lock(&f->fake.lock);
    n = *counter;
    pthread_mutex_unlock(&f->fake.lock);
    return n;
}

/* Parts that have gone past the format. */
static unsigned direct(struct fixture *f)
{
    struct block_stats stats;

    pthread_mutex_lock(&f->d->env.lock);
    block_stats(f->d->b, &stats);
    pthread_mutex_unlock(&f->d->env.lock);
    return (unsigned)stats.direct;
}

static void test_zero_waits(void **state)
{
    struct fixture *f = with_uring(state);
    static struct call read, behind, discard;
    static char a[512], b[512];

    if (f == NULL)
        return;
    call_init(&read, f->d, BLOCK_READ, 512, a, 512);
    call_submit(&read);
    call_init(&discard, f->d, BLOCK_DISCARD, CLUSTER - 512, NULL, 512); /* the same cluster's end */
    call_submit(&discard);
    assert_int_equal(disk_do(f->d, BLOCK_ZERO, CLUSTER, NULL, CLUSTER), 0); /* the next cluster */
    assert_int_equal(look(f, &f->fake.zeros), 1);
    assert_int_equal(discard.rc, 1);
    /* A read that comes meanwhile does not make it wait for longer: it asks the format. */
    call_init(&behind, f->d, BLOCK_READ, 1024, b, 512);
    call_submit(&behind);
    assert_int_equal(direct(f), 1);
    assert_int_equal(call_wait(&behind), 0);
    assert_int_equal(b[0], 'f');
    assert_int_equal(look(f, &f->fake.zeros), 1);
    feed(f, 512);
    assert_int_equal(call_wait(&read), 0);
    assert_int_equal(a[511], 'p');
    assert_int_equal(call_wait(&discard), 0);
    assert_int_equal(look(f, &f->fake.zeros), 2);
}

static void test_direct_waits(void **state)
{
    struct fixture *f = with_uring(state);
    static struct call zero, other;
    static char a[512], b[512];

    if (f == NULL)
        return;
    gate(f, true, 0);
    call_init(&zero, f->d, BLOCK_ZERO, 0, NULL, 512);
    call_submit(&zero);
    gate(f, true, 1);
    feed(f, 512); /* is there for whoever reads the file itself */
    assert_int_equal(disk_do(f->d, BLOCK_READ, CLUSTER - 512, a, 512), 0);
    assert_int_equal(a[0], 'f'); /* by the format */
    call_init(&other, f->d, BLOCK_READ, CLUSTER, b, 512);
    call_submit(&other);
    assert_int_equal(call_wait(&other), 0);
    assert_int_equal(b[0], 'p'); /* past it */
    gate(f, false, 0);
    assert_int_equal(call_wait(&zero), 0);
}

/* What the host does only half goes to the format, whole. */
static void test_short(void **state)
{
    struct fixture *f = with_uring(state);
    static struct call read, discard;
    static char a[512];

    if (f == NULL)
        return;
    call_init(&read, f->d, BLOCK_READ, 0, a, 512);
    call_submit(&read);
    call_init(&discard, f->d, BLOCK_DISCARD, 0, NULL, 512);
    call_submit(&discard);
    feed(f, 100);
    assert_int_equal(call_wait(&read), 0);
    assert_int_equal(a[0], 'f');
    assert_int_equal(a[511], 'f');
    assert_int_equal(call_wait(&discard), 0); /* not forgotten */
    assert_int_equal(look(f, &f->fake.reads), 1);
}

/* The format has the last word on what may go past it. */
static void test_located(void **state)
{
    struct fixture *f = with_uring(state);
    struct block_stats stats;
    char a[512];

    if (f == NULL)
        return;
    assert_int_equal(disk_do(f->d, BLOCK_READ, 8 * (uint64_t)CLUSTER, a, 512), 0);
    assert_int_equal(a[0], 'f');
    feed(f, 512);
    assert_int_equal(disk_do(f->d, BLOCK_READ, 0, a, 512), 0);
    assert_int_equal(a[0], 'p');
    pthread_mutex_lock(&f->d->env.lock);
    block_stats(f->d->b, &stats);
    pthread_mutex_unlock(&f->d->env.lock);
    assert_int_equal(stats.direct, 1);
    assert_int_equal(stats.reads, 2);
    assert_int_equal(stats.read_bytes, 1024);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_zero_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_direct_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_short, setup, teardown),
        cmocka_unit_test_setup_teardown(test_located, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
