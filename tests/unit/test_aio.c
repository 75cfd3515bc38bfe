/* Asynchronous I/O, by io_uring and by threads: the same answers from both. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "host/aio.h"

#define COUNT 1000u /* more than any ring takes */

/* NULL: this kernel has no io_uring for us, and the test says so. */
static struct aio *make(bool uring, unsigned threads)
{
    struct error err = {0};
    struct aio *a = NULL;
    int rc = aio_create(uring, threads, &a, &err);

    if (rc < 0 && uring) {
        print_message("skipped: %s\n", err.text);
        return NULL;
    }
    assert_int_equal(rc, 0);
    assert_int_equal(aio_has_uring(a), uring);
    return a;
}

static int make_file(void)
{
    char path[] = "/tmp/aio-XXXXXX";
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    unlink(path);
    return fd;
}

static struct aio_job *next(struct aio *a)
{
    struct aio_job *job;

    aio_kick(a);
    while ((job = aio_reap(a)) == NULL) {
        aio_clear(a);
        job = aio_reap(a);
        if (job != NULL)
            break;
        aio_wait(a);
    }
    return job;
}

static void many(bool uring)
{
    struct aio *a = make(uring, 4);
    struct aio_job *job = calloc(COUNT, sizeof(*job));
    struct iovec *iov = calloc(COUNT, sizeof(*iov));
    uint32_t *value = calloc(COUNT, sizeof(*value));
    int fd = make_file();

    for (unsigned pass = 0; a != NULL && pass < 3; pass++) {
        for (unsigned i = 0; i < COUNT; i++) {
            iov[i] = (struct iovec){.iov_base = &value[i], .iov_len = 4};
            job[i] = (struct aio_job){.op = pass == 0   ? AIO_WRITE
                                            : pass == 1 ? AIO_FLUSH
                                                        : AIO_READ,
                                      .fd = fd,
                                      .offset = 4 * (uint64_t)(COUNT - 1 - i),
                                      .iov = pass == 1 ? NULL : &iov[i],
                                      .count = pass != 1};
            if (pass == 0)
                value[i] = i * 2654435761u;
            if (pass == 2)
                value[i] = 0;
            aio_submit(a, &job[i]);
        }
        for (unsigned i = 0; i < COUNT; i++)
            assert_int_equal(next(a)->result, pass == 1 ? 0 : 4);
        assert_null(aio_reap(a));
    }
    for (unsigned i = 0; a != NULL && i < COUNT; i++)
        assert_int_equal(value[i], i * 2654435761u);
    aio_destroy(a);
    close(fd);
    free(value);
    free(iov);
    free(job);
}

static void test_many(void **state)
{
    (void)state;
    many(false);
    many(true);
}

static void answers(bool uring)
{
    struct aio *a = make(uring, 1);
    int fd = make_file();
    char text[16] = "0123456789";
    struct iovec iov[2] = {{.iov_base = text, .iov_len = 6}, {.iov_base = text + 6, .iov_len = 10}};
    struct aio_job job = {.op = AIO_WRITE, .fd = fd, .iov = iov, .count = 2};

    if (a != NULL) {
        aio_submit(a, &job);
        assert_ptr_equal(next(a), &job);
        assert_int_equal(job.result, 16);
        job.op = AIO_READ;
        job.offset = 8; /* half of it lies behind the end: not all, whatever the way */
        aio_submit(a, &job);
        assert_ptr_equal(next(a), &job);
        assert_true(job.result >= 0 && job.result < 16);
        job.fd = -1;
        aio_submit(a, &job);
        assert_ptr_equal(next(a), &job);
        assert_int_equal(job.result, -EBADF);
    }
    aio_destroy(a);
    close(fd);
}

static void test_answers(void **state)
{
    (void)state;
    answers(false);
    answers(true);
}

/* ---- calls ---- */

struct crowd {
    pthread_mutex_t lock;
    pthread_cond_t moved;
    unsigned inside, most, wanted;
};

struct visit {
    struct aio_job job;
    struct crowd *crowd;
};

/* Leaves when `wanted` have been inside at once. */
static void visit(struct aio_job *job)
{
    struct crowd *c = container_of(job, struct visit, job)->crowd;

    pthread_mutex_lock(&c->lock);
    if (++c->inside > c->most)
        c->most = c->inside;
    pthread_cond_broadcast(&c->moved);
    while (c->most < c->wanted)
        pthread_cond_wait(&c->moved, &c->lock);
    c->inside--;
    pthread_mutex_unlock(&c->lock);
    job->result = 7;
}

/* As many threads as asked for, and no more. */
static void test_threads(void **state)
{
    struct aio *a = make(false, 3);
    struct crowd crowd = {.wanted = 3};
    struct visit v[50];

    (void)state;
    pthread_mutex_init(&crowd.lock, NULL);
    pthread_cond_init(&crowd.moved, NULL);
    for (unsigned i = 0; i < countof(v); i++) {
        v[i] = (struct visit){.job = {.op = AIO_CALL, .call = visit}, .crowd = &crowd};
        aio_submit(a, &v[i].job);
    }
    for (unsigned i = 0; i < countof(v); i++)
        assert_int_equal(next(a)->result, 7);
    assert_int_equal(crowd.most, 3);
    aio_destroy(a);
    pthread_cond_destroy(&crowd.moved);
    pthread_mutex_destroy(&crowd.lock);
}

/* The descriptor: not readable before anything is done, readable after, and only until cleared. */
static void test_descriptor(void **state)
{
    (void)state;
    for (unsigned uring = 0; uring < 2; uring++) {
        struct aio *a = make(uring != 0, 1);
        int fd = make_file();
        struct aio_job job = {.op = AIO_FLUSH, .fd = fd};
        struct pollfd p;

        if (a != NULL) {
            p = (struct pollfd){.fd = aio_fd(a), .events = POLLIN};
            assert_int_equal(poll(&p, 1, 0), 0);
            aio_submit(a, &job);
            aio_kick(a);
            aio_wait(a);
            assert_int_equal(poll(&p, 1, 0), 1);
            aio_clear(a);
            assert_int_equal(poll(&p, 1, 0), 0);
            while (aio_reap(a) == NULL)
                aio_wait(a);
            aio_wake(a);
            assert_int_equal(poll(&p, 1, 0), 1);
            aio_clear(a);
            assert_int_equal(poll(&p, 1, 0), 0);
        }
        aio_destroy(a);
        close(fd);
    }
}

/* A thread that has submitted may end before its request does; nothing is lost. */
struct leaver {
    struct aio *a;
    struct aio_job job;
    int fd;
    char c;
    struct iovec iov;
};

static void *leave(void *arg)
{
    struct leaver *l = arg;

    l->iov = (struct iovec){.iov_base = &l->c, .iov_len = 1};
    l->job = (struct aio_job){.op = AIO_READ, .fd = l->fd, .iov = &l->iov, .count = 1};
    aio_submit(l->a, &l->job);
    aio_kick(l->a);
    return NULL;
}

static void test_leaver(void **state)
{
    struct leaver l = {.a = make(true, 1)};
    pthread_t thread;
    int fds[2];

    (void)state;
    if (l.a == NULL)
        return;
    assert_int_equal(pipe(fds), 0); /* a read that takes as long as we like */
    l.fd = fds[0];
    assert_int_equal(pthread_create(&thread, NULL, leave, &l), 0);
    pthread_join(thread, NULL);
    assert_int_equal(write(fds[1], "x", 1), 1);
    assert_ptr_equal(next(l.a), &l.job);
    assert_true(l.job.result == 1 || l.job.result == -ECANCELED);
    aio_destroy(l.a);
    close(fds[0]);
    close(fds[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many),    cmocka_unit_test(test_answers),
        cmocka_unit_test(test_threads), cmocka_unit_test(test_descriptor),
        cmocka_unit_test(test_leaver),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
