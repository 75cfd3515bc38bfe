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
#ifdef __linux__
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#endif

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

/* Those of a lane: one at a time, in order, and neither the others nor the other lane wait for
 * them. */
struct turns {
    _Atomic(unsigned) inside, most, next, *others;
};

struct turn_job {
    struct aio_job job;
    struct turns *t;
    unsigned number;
    bool in_order;
};

static void take_turn(struct aio_job *job)
{
    struct turn_job *j = container_of(job, struct turn_job, job);
    unsigned now = ++j->t->inside;

    if (now > j->t->most)
        j->t->most = now;
    j->in_order = j->t->next++ == j->number;
    /* The first stands until one of the others has run, which its being first must not hinder. */
    for (unsigned i = 0; j->number == 0 && *j->t->others == 0 && i < 10000; i++)
        usleep(1000);
    usleep(j->number % 3 * 50);
    j->t->inside--;
}

static void beside(struct aio_job *job)
{
    struct turn_job *j = container_of(job, struct turn_job, job);

    ++*j->t->others;
    usleep(j->number % 5 * 100);
}

static void test_lanes(void **state)
{
    static const enum aio_lane lanes[] = {AIO_WRITES, AIO_READS,   AIO_READS,
                                          AIO_WRITES, AIO_NO_LANE, AIO_NO_LANE};
    struct turn_job *j = calloc(COUNT, sizeof(*j));
    struct aio *a = make(false, 4);
    _Atomic(unsigned) others = 0;
    struct turns t[AIO_LANES];
    unsigned count[AIO_LANES] = {0};

    (void)state;
    for (unsigned i = 0; i < AIO_LANES; i++)
        t[i] = (struct turns){.others = &others};
    for (unsigned i = 0; i < COUNT; i++) {
        enum aio_lane lane = lanes[i % countof(lanes)];

        j[i].t = &t[lane];
        j[i].number = count[lane]++;
        j[i].job = (struct aio_job){
            .op = AIO_CALL, .call = lane != AIO_NO_LANE ? take_turn : beside, .lane = lane};
        aio_submit(a, &j[i].job);
        if (i % 100 == 99)
            usleep(5000); /* the threads run out of work */
    }
    for (unsigned i = 0; i < COUNT; i++)
        assert_non_null(next(a));
    for (unsigned i = 0; i < COUNT; i++)
        assert_true(j[i].job.lane == AIO_NO_LANE || j[i].in_order);
    for (unsigned i = AIO_NO_LANE + 1; i < AIO_LANES; i++) {
        assert_int_equal(t[i].most, 1);
        assert_int_equal(t[i].next, count[i]);
    }
    assert_int_equal(others, count[AIO_NO_LANE]);
    aio_destroy(a);
    free(j);
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

/* ---- kernels that refuse ---- */

#ifdef __linux__
/* From here on this process gets that errno from that system call, as in a container. */
static bool forbid(unsigned call, unsigned code)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0), /* seccomp_data.nr */
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | code),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = countof(filter), .filter = filter};

    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* Its status: 0 as it should be, 2 no filters here. */
static int in_child(int (*fn)(void))
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0)
        _exit(fn());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 2)
        print_message("skipped: no system call filters here\n");
    return WEXITSTATUS(status) == 2 ? 0 : WEXITSTATUS(status);
}

static int no_setup(void)
{
    struct error err = {0};
    struct aio *a;

    if (!forbid(__NR_io_uring_setup, EPERM))
        return 2;
    if (aio_create(true, 1, &a, &err) != -EPERM || strstr(err.text, "aio=threads") == NULL)
        return 1;
    return aio_create(false, 1, &a, &err) == 0 && !aio_has_uring(a) ? 0 : 1;
}

/* A ring that takes nothing more: threads do all of it. */
static int no_enter(void)
{
    struct aio *a = make(true, 2);
    int fd = make_file();
    static char text[300];
    static struct iovec iov[300];
    static struct aio_job job[300];

    if (a == NULL || !forbid(__NR_io_uring_enter, EAGAIN))
        return 2;
    for (unsigned i = 0; i < 300; i++) {
        iov[i] = (struct iovec){.iov_base = &text[i], .iov_len = 1};
        text[i] = (char)i;
        job[i] = (struct aio_job){
            .op = AIO_WRITE, .fd = fd, .offset = i, .iov = &iov[i], .count = 1, .result = 99};
        aio_submit(a, &job[i]);
        if (i % 7 == 0)
            aio_kick(a);
    }
    for (unsigned i = 0; i < 300; i++) {
        if (next(a)->result != 1)
            return 1;
    }
    if (aio_reap(a) != NULL)
        return 1;
    for (unsigned i = 0; i < 300; i++) {
        char c;

        if (pread(fd, &c, 1, i) != 1 || c != (char)i)
            return 1;
    }
    aio_destroy(a);
    return 0;
}

static void test_refused(void **state)
{
    (void)state;
    assert_int_equal(in_child(no_setup), 0);
    assert_int_equal(in_child(no_enter), 0);
}
#else
static void test_refused(void **state)
{
    (void)state;
    print_message("skipped: there is no io_uring here\n");
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many),    cmocka_unit_test(test_answers),
        cmocka_unit_test(test_threads), cmocka_unit_test(test_descriptor),
        cmocka_unit_test(test_leaver),  cmocka_unit_test(test_refused),
        cmocka_unit_test(test_lanes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
