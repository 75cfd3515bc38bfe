/* The event loop, and the rest of host/ as far as a test can see it. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <ucontext.h>
#include <unistd.h>
#include <fcntl.h>

#include <cmocka.h>

#include "base/bits.h"
#include "host/clock.h"
#include "host/fd.h"
#include "host/loop.h"
#include "host/memory.h"
#include "host/term.h"

#define MSEC 1000000ull

struct fixture {
    struct loop *loop;
    pthread_mutex_t lock;
    pthread_t thread;
    int pipe[2];
    struct loop_fd *lf;
    unsigned calls, events, timer_runs, asked;
    uint64_t deadline, ran_at;
    int signo;
    char order[8];
    size_t order_len;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct error err;

    f->loop = loop_create(&err);
    f->deadline = UINT64_MAX;
    pthread_mutex_init(&f->lock, NULL);
    *state = f;
    return f->loop != NULL && fd_pipe(f->pipe) == 0 ? 0 : -1;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    loop_destroy(f->loop);
    close(f->pipe[0]);
    close(f->pipe[1]);
    pthread_mutex_destroy(&f->lock);
    free(f);
    return 0;
}

static void *run_thread(void *arg)
{
    struct fixture *f = arg;

    return (void *)(intptr_t)loop_run(f->loop);
}

static void read_one(void *ctx, unsigned events)
{
    struct fixture *f = ctx;
    char c;

    f->calls++;
    f->events |= events;
    assert_int_equal(pthread_mutex_trylock(&f->lock), EBUSY); /* the loop holds it */
    if (read(f->pipe[0], &c, 1) <= 0)
        loop_del(f->lf);
    if (f->calls == 2 || (events & LOOP_HANGUP))
        loop_stop(f->loop);
}

static void test_read(void **state)
{
    struct fixture *f = *state;

    f->lf = loop_add(f->loop, f->pipe[0], LOOP_READ, &f->lock, read_one, f, NULL);
    assert_int_equal(write(f->pipe[1], "ab", 2), 2);
    assert_int_equal(loop_run(f->loop), 0);
    assert_int_equal(f->calls, 2);
    assert_int_equal(f->events, LOOP_READ);
    loop_del(f->lf);
}

static void test_hangup(void **state)
{
    struct fixture *f = *state;

    f->lf = loop_add(f->loop, f->pipe[0], LOOP_READ, &f->lock, read_one, f, NULL);
    close(f->pipe[1]);
    assert_int_equal(loop_run(f->loop), 0);
    assert_int_equal(f->events & LOOP_HANGUP, LOOP_HANGUP);
    assert_int_equal(f->calls, 1);
    f->pipe[1] = -1;
}

static void stop(void *ctx)
{
    loop_stop(((struct fixture *)ctx)->loop);
}

static uint64_t next_deadline(void *ctx)
{
    struct fixture *f = ctx;

    f->asked++;
    return f->deadline;
}

static void run_timers(void *ctx)
{
    struct fixture *f = ctx;

    if (host_clock_ns() < f->deadline)
        return;
    f->ran_at = host_clock_ns();
    f->timer_runs++;
    loop_stop(f->loop);
}

/* Watching nothing, a hang-up must not be reported, nor spin. */
static void test_watch_nothing(void **state)
{
    struct fixture *f = *state;

    f->lf = loop_add(f->loop, f->pipe[0], 0, &f->lock, read_one, f, NULL);
    close(f->pipe[1]);
    f->pipe[1] = -1;
    loop_set_timers(f->loop, next_deadline, run_timers, f);
    f->deadline = host_clock_ns() + 20 * MSEC;
    assert_int_equal(loop_run(f->loop), 0);
    assert_int_equal(f->calls, 0);
    assert_true(f->asked < 10);
    f->deadline = UINT64_MAX;
    loop_mod(f->lf, LOOP_READ);
    assert_int_equal(loop_run(f->loop), 0);
    assert_int_equal(f->calls, 1);
}

static void must_not_run(void *ctx, unsigned events)
{
    (void)ctx;
    (void)events;
    fail_msg("called after loop_del");
}

static void delete_other(void *ctx, unsigned events)
{
    struct fixture *f = ctx;

    (void)events;
    loop_del(f->lf);
    f->lf = NULL;
    loop_stop(f->loop);
}

/* Both are ready in one round; the one dispatched first deletes the other. */
static void test_delete_in_callback(void **state)
{
    struct fixture *f = *state;
    struct loop_fd *killer;

    f->lf = loop_add(f->loop, f->pipe[1], LOOP_WRITE, NULL, must_not_run, f, NULL);
    killer = loop_add(f->loop, f->pipe[1], LOOP_WRITE, NULL, delete_other, f, NULL);
    assert_int_equal(loop_run(f->loop), 0);
    loop_del(killer);
}

static void note_a(void *ctx)
{
    struct fixture *f = ctx;

    f->order[f->order_len++] = 'a';
}

static void note_b_then_a(void *ctx)
{
    struct fixture *f = ctx;

    f->order[f->order_len++] = 'b';
    loop_post(f->loop, note_a, f);
    loop_post(f->loop, stop, f);
}

static void test_post_order(void **state)
{
    struct fixture *f = *state;

    loop_post(f->loop, note_a, f);
    loop_post(f->loop, note_b_then_a, f);
    assert_int_equal(loop_run(f->loop), 0);
    assert_string_equal(f->order, "aba");
}

static void test_deadline(void **state)
{
    struct fixture *f = *state;

    loop_set_timers(f->loop, next_deadline, run_timers, f);
    f->deadline = host_clock_ns() + 20 * MSEC;
    assert_int_equal(loop_run(f->loop), 0);
    assert_int_equal(f->timer_runs, 1);
    assert_true(f->ran_at >= f->deadline);
    assert_true(f->ran_at < f->deadline + 2000 * MSEC);
    assert_true(f->asked < 10); /* slept, did not spin */
}

static void wake_many(struct fixture *f)
{
    for (int i = 0; i < 100000; i++)
        loop_wake(f->loop);
    loop_stop(f->loop);
}

/* Every change must be seen, from any thread, also with the loop falling asleep just then. */
static void test_wake(void **state)
{
    struct fixture *f = *state;
    void *rc;

    loop_set_timers(f->loop, next_deadline, run_timers, f);
    for (int i = 0; i < 200; i++) {
        assert_int_equal(pthread_create(&f->thread, NULL, run_thread, f), 0);
        if (i % 8 == 7)
            usleep(1000); /* asleep for certain */
        if (i == 0)
            wake_many(f);
        else if (i & 16)
            loop_stop(f->loop);
        else
            loop_post(f->loop, stop, f);
        pthread_join(f->thread, &rc);
        assert_null(rc);
    }
}

static void on_signal(void *ctx, int signo)
{
    struct fixture *f = ctx;

    f->signo = signo;
    loop_stop(f->loop);
}

static void test_signal(void **state)
{
    struct fixture *f = *state;
    struct error err;

    assert_int_equal(term_signals(f->loop, on_signal, f, &err), 0);
    raise(SIGTERM);
    assert_int_equal(loop_run(f->loop), 0);
    assert_int_equal(f->signo, SIGTERM);
}

/* As under nohup: what was ignored at the start stays so. */
static void test_signal_ignored(void **state)
{
    struct fixture *f = *state;
    struct error err;

    signal(SIGHUP, SIG_IGN);
    assert_int_equal(term_signals(f->loop, on_signal, f, &err), 0);
    raise(SIGHUP);
    raise(SIGINT);
    assert_int_equal(loop_run(f->loop), 0);
    assert_int_equal(f->signo, SIGINT);
    signal(SIGHUP, SIG_DFL);
}

/* A crash restores the terminal, says one line, and dies by its signal. */
static void test_crash(void **state)
{
    struct fixture *f = *state;
    int master = posix_openpt(O_RDWR | O_NOCTTY), slave, status, out[2];
    struct termios before, after;
    char line[200] = "";
    volatile uintptr_t nowhere = 0x123;
    struct error err;
    pid_t pid;

    assert_true(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    assert_true(slave >= 0);
    assert_int_equal(tcgetattr(slave, &before), 0);
    assert_int_equal(pipe(out), 0);
    pid = fork();
    if (pid == 0) {
        dup2(out[1], STDERR_FILENO);
        close(out[1]);
        if (term_signals(f->loop, on_signal, f, &err) < 0 || term_raw(slave, &err) < 0 ||
            !term_is_raw())
            _exit(1);
        tcgetattr(slave, &after);
        if (after.c_lflag & ICANON)
            _exit(2);
        *(volatile char *)nowhere = 0;
        _exit(3);
    }
    close(out[1]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(read(out[0], line, sizeof(line) - 1) > 0);
    assert_non_null(strstr(line, "SIGSEGV, address 0x123"));
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSEGV);
    assert_int_equal(tcgetattr(slave, &after), 0);
    assert_int_equal(after.c_lflag, before.c_lflag);
    assert_int_equal(after.c_oflag, before.c_oflag);
    close(out[0]);
    close(slave);
    close(master);
}

static void *hook_page;

static bool unprotect(int signo, void *siginfo, void *ucontext)
{
    siginfo_t *info = siginfo;

    (void)signo;
    (void)ucontext;
    return info->si_addr == hook_page && host_code_unseal(hook_page, 4096, NULL) == 0;
}

static void test_fault_hook(void **state)
{
    struct fixture *f = *state;
    struct error err;

    assert_int_equal(term_signals(f->loop, on_signal, f, &err), 0);
    hook_page = host_code_alloc(4096, &err);
    assert_non_null(hook_page);
    assert_int_equal(host_code_seal(hook_page, 4096, &err), 0);
    term_set_fault_hook(unprotect);
    *(volatile uint32_t *)hook_page = 7; /* faults, the hook makes it writable, runs again */
    assert_int_equal(*(volatile uint32_t *)hook_page, 7);
    term_set_fault_hook(NULL);
    host_memory_free(hook_page, 4096);
}

static void test_memory(void **state)
{
    struct error err;
    uint8_t *p = host_memory_alloc(5 * MIB + 1, &err);

    (void)state;
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % (2 * MIB), 0);
    p[0] = p[4096] = p[5 * MIB] = 1;
    host_memory_discard(p, 4096);
    assert_int_equal(p[0], 0);
    assert_int_equal(p[4096], 1);
    host_memory_free(p, 5 * MIB + 1);
    assert_null(host_memory_alloc(0, &err));
    assert_null(host_memory_alloc(SIZE_MAX, &err));
    assert_int_equal(err.code, -EINVAL);
}

static void test_code(void **state)
{
    /* mov eax, 42; ret */
    static const uint8_t text[] = {0xB8, 42, 0, 0, 0, 0xC3};
    struct error err;
    void *p = host_code_alloc(sizeof(text), &err);
    int (*fn)(void);

    (void)state;
    assert_non_null(p);
    memcpy(p, text, sizeof(text));
    assert_int_equal(host_code_seal(p, sizeof(text), &err), 0);
    memcpy(&fn, &p, sizeof(fn));
    assert_int_equal(fn(), 42);
    host_memory_free(p, sizeof(text));
}

static void test_clock(void **state)
{
    struct host_tsc_sample since = host_tsc_sample();
    uint64_t before = host_clock_ns(), hz = host_tsc_hz(since);

    (void)state;
    assert_true(host_clock_ns() - before >= 5 * MSEC);
    assert_true(hz > 100000000 && hz < 20000000000);
    assert_true(host_wall_ns() > 1600000000ull * NSEC_PER_SEC);
    assert_true(host_cpu_ns() > 0);
    setenv("TZ", "XXX-3", 1);
    tzset();
    assert_int_equal(host_utc_offset(0), 3 * 3600);
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_read),
        CASE(test_hangup),
        CASE(test_watch_nothing),
        CASE(test_delete_in_callback),
        CASE(test_post_order),
        CASE(test_deadline),
        CASE(test_wake),
        CASE(test_signal),
        CASE(test_signal_ignored),
        CASE(test_crash),
        CASE(test_fault_hook),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_code),
        cmocka_unit_test(test_clock),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
