/* Every kind of character back end, with slow, closed and absent peers. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "chardev/chardev.h"
#include "host/clock.h"
#include "host/fd.h"
#include "host/loop.h"
#include "host/term.h"

#define MSEC 1000000ull

struct fixture {
    struct loop *loop;
    struct log *log;
    pthread_mutex_t lock;
    struct chardev *c;
    struct error err;
    char dir[32], path[64], line[256];
    unsigned lines, quits, rounds;
    uint64_t deadline;
    bool take; /* readable takes input into got */
    char *got;
    size_t got_len;
    int saved_in, saved_out;
};

static void sink(void *ctx, enum log_level level, const char *line)
{
    struct fixture *f = ctx;

    (void)level;
    f->lines++;
    snprintf(f->line, sizeof(f->line), "%s", line);
}

static uint64_t next_deadline(void *ctx)
{
    struct fixture *f = ctx;

    f->rounds++;
    return f->deadline;
}

static void run_timers(void *ctx)
{
    struct fixture *f = ctx;

    if (host_clock_ns() >= f->deadline)
        loop_stop(f->loop);
}

/* The loop for so long; how many rounds it made. */
static unsigned pump(struct fixture *f, unsigned ms)
{
    f->rounds = 0;
    f->deadline = host_clock_ns() + ms * MSEC;
    assert_int_equal(loop_run(f->loop), 0);
    return f->rounds;
}

static void take_input(struct fixture *f)
{
    f->got_len += chardev_read(f->c, f->got + f->got_len, 2 * MIB - f->got_len);
}

static void on_readable(void *ctx)
{
    struct fixture *f = ctx;

    if (f->take)
        take_input(f);
}

static void on_quit(void *ctx)
{
    ((struct fixture *)ctx)->quits++;
}

static const struct chardev_events events = {.readable = on_readable, .quit = on_quit};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    f->loop = loop_create(&f->err);
    f->log = log_create(2, LOG_INFO);
    log_set_sink(f->log, sink, f);
    pthread_mutex_init(&f->lock, NULL);
    loop_set_timers(f->loop, next_deadline, run_timers, f);
    f->take = true;
    f->got = malloc(2 * MIB);
    snprintf(f->dir, sizeof(f->dir), "/tmp/chardev.XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->path, sizeof(f->path), "%s/x", f->dir);
    fflush(stdout);
    f->saved_in = dup(0);
    f->saved_out = dup(1);
    signal(SIGPIPE, SIG_IGN);
    *state = f;
    return 0;
}

static void restore_stdio(struct fixture *f)
{
    dup2(f->saved_in, 0);
    dup2(f->saved_out, 1);
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    chardev_close(f->c);
    restore_stdio(f);
    close(f->saved_in);
    close(f->saved_out);
    loop_destroy(f->loop);
    log_destroy(f->log);
    unlink(f->path);
    rmdir(f->dir);
    free(f->got);
    free(f);
    return 0;
}

static int open_spec(struct fixture *f, const char *fmt, const char *arg)
{
    char spec[128];

    snprintf(spec, sizeof(spec), "%s%s", fmt, arg);
    return chardev_open(spec, "com1", f->loop, f->log, &f->lock, &events, f, &f->c, &f->err);
}

static void put(struct fixture *f, const char *text)
{
    pthread_mutex_lock(&f->lock);
    chardev_write(f->c, text, strlen(text));
    pthread_mutex_unlock(&f->lock);
}

static void close_it(struct fixture *f)
{
    pthread_mutex_lock(&f->lock);
    chardev_close(f->c);
    pthread_mutex_unlock(&f->lock);
    f->c = NULL;
}

/* What fd gives now, with the loop running in between. */
static void expect_read(struct fixture *f, int fd, const char *text)
{
    char buf[256];
    size_t n = 0;

    for (int i = 0; i < 100 && n < strlen(text); i++) {
        ssize_t got;

        pump(f, 5);
        got = recv(fd, buf + n, sizeof(buf) - 1 - n, MSG_DONTWAIT);
        if (got < 0 && errno == ENOTSOCK)
            got = read(fd, buf + n, sizeof(buf) - 1 - n);
        n += got > 0 ? (size_t)got : 0;
    }
    buf[n] = '\0';
    assert_string_equal(buf, text);
}

static void expect_got(struct fixture *f, const char *text)
{
    for (int i = 0; i < 100 && f->got_len < strlen(text); i++)
        pump(f, 5);
    f->got[f->got_len] = '\0';
    assert_string_equal(f->got, text);
    f->got_len = 0;
}

static void test_memory(void **state)
{
    struct fixture *f = *state;
    char buf[8] = "";

    f->c = chardev_memory(&events, f);
    chardev_memory_feed(f->c, "in", 2);
    chardev_write(f->c, "out", 3);
    assert_int_equal(chardev_memory_take(f->c, buf, sizeof(buf)), 3);
    assert_string_equal(buf, "out");
    assert_memory_equal(f->got, "in", 2);
    f->take = false;
    for (int i = 0; i < 3000; i++)
        chardev_memory_feed(f->c, "0123456789", 10);
    f->got_len = 0;
    take_input(f);
    assert_int_equal(f->got_len, 30000);
    assert_memory_equal(f->got + 29990, "0123456789", 10);
    for (uint32_t i = 0; i < MIB; i++)
        chardev_write(f->c, &i, 4); /* four times what is kept */
    for (uint32_t i = MIB * 3 / 4; i < MIB; i++) {
        uint32_t word = 0;

        assert_int_equal(chardev_memory_take(f->c, &word, 4), 4);
        assert_int_equal(word, i);
    }
    assert_int_equal(chardev_memory_take(f->c, buf, 1), 0);
}

/* More than the ring holds, and the loop never runs: a file takes it all the same. */
static void test_file(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    char line[65];

    assert_int_equal(open_spec(f, "file=", f->path), 0);
    for (int i = 0; i < 65536; i++) {
        snprintf(line, sizeof(line), "%63d\n", i);
        put(f, line);
    }
    close_it(f);
    assert_int_equal(stat(f->path, &st), 0);
    assert_int_equal(st.st_size, 65536 * 64);
    assert_int_equal(f->lines, 0);
}

static void test_null(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(open_spec(f, "null", ""), 0);
    for (int i = 0; i < 100; i++)
        put(f, "dropped");
    assert_int_equal(chardev_read(f->c, f->got, 1), 0);
}

static void make_stdio(int in[2], int out[2])
{
    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe(out), 0);
    dup2(in[0], 0);
    dup2(out[1], 1);
    close(in[0]);
    close(out[1]);
    assert_int_equal(fd_setup(out[0], true), 0);
}

static void test_stdio_pipe(void **state)
{
    struct fixture *f = *state;
    int in[2], out[2];

    make_stdio(in, out);
    assert_int_equal(open_spec(f, "stdio", ""), 0);
    put(f, "hello ");
    put(f, "guest");
    expect_read(f, out[0], "hello guest");
    assert_int_equal(fcntl(1, F_GETFL) & O_NONBLOCK, 0); /* shared with the shell */
    assert_int_equal(write(in[1], "a\001xb\001\001", 6), 6);
    expect_got(f, "a\001xb\001\001"); /* no escapes but on terminals */
    assert_int_equal(f->quits, 0);
    close(in[1]);
    assert_in_range(pump(f, 50), 1, 10); /* the end of input: no spinning, not the end of all */
    put(f, "still here");
    expect_read(f, out[0], "still here");
    put(f, "last");
    close_it(f);
    expect_read(f, out[0], "last");
    close(out[0]);
}

/* Output alone leaves standard input to others. */
static void test_stdio_output(void **state)
{
    struct fixture *f = *state;
    char byte = 0;
    int in[2], out[2];

    make_stdio(in, out);
    assert_int_equal(open_spec(f, "stdio=output", ""), 0);
    assert_int_equal(write(in[1], "x", 1), 1);
    put(f, "text");
    expect_read(f, out[0], "text");
    assert_int_equal(read(0, &byte, 1), 1);
    assert_int_equal(byte, 'x');
    close_it(f);
    assert_int_equal(open_spec(f, "stdio=input", ""), -EINVAL);
    close(in[1]);
    close(out[0]);
}

/* 3 MiB to a pipe nobody reads: no stall, the newest is kept, one line about it. */
static void test_stdio_slow(void **state)
{
    struct fixture *f = *state;
    int in[2], out[2];
    uint64_t before = host_clock_ns(), number = 0;
    char line[17] = "", *buf = malloc(2 * MIB);
    ssize_t n, total = 0;

    make_stdio(in, out);
    assert_int_equal(open_spec(f, "stdio", ""), 0);
    for (unsigned i = 0; i < 3 * MIB / 16; i++) {
        snprintf(line, sizeof(line), "%15u\n", i);
        put(f, line);
        if (i % 50000 == 0)
            assert_in_range(pump(f, 1), 1, 10);
    }
    assert_true(host_clock_ns() - before < 5000 * MSEC);
    for (int i = 0; i < 1000; i++) {
        pump(f, 1);
        n = read(out[0], buf + total, (size_t)((ssize_t)(2 * MIB) - total));
        if (n < 0 && i > 100)
            break;
        total += n > 0 ? n : 0;
    }
    assert_true(total >= (ssize_t)MIB);
    number = 3 * MIB / 16;
    for (ssize_t at = total - 16; at >= total - (ssize_t)MIB; at -= 16)
        assert_int_equal(strtoull(buf + at, NULL, 10), --number);
    assert_int_equal(f->lines, 1);
    assert_non_null(strstr(f->line, "lost"));
    close(in[1]);
    close(out[0]);
    free(buf);
}

/* A stuck reader delays the end by a second, not for ever. */
static void test_stdio_stuck_close(void **state)
{
    struct fixture *f = *state;
    int in[2], out[2];
    char *much = calloc(1, MIB);
    uint64_t before;

    make_stdio(in, out);
    assert_int_equal(open_spec(f, "stdio", ""), 0);
    chardev_write(f->c, much, MIB);
    before = host_clock_ns();
    close_it(f);
    assert_in_range(host_clock_ns() - before, 900 * MSEC, 3000 * MSEC);
    close(in[1]);
    close(out[0]);
    free(much);
}

static void test_stdio_closed(void **state)
{
    struct fixture *f = *state;
    int in[2], out[2];

    make_stdio(in, out);
    assert_int_equal(open_spec(f, "stdio", ""), 0);
    close(out[0]);
    for (int i = 0; i < 10; i++) {
        put(f, "to nobody");
        assert_in_range(pump(f, 5), 1, 10);
    }
    assert_int_equal(f->lines, 1);
    assert_int_equal(write(in[1], "a", 1), 1);
    expect_got(f, "a"); /* input goes on */
    close(in[1]);
}

/* The guest takes its time: the peer waits and nothing is lost. */
static void test_back_pressure(void **state)
{
    struct fixture *f = *state;
    int in[2], out[2];
    size_t sent = 0;
    uint32_t word;

    make_stdio(in, out);
    assert_int_equal(fd_setup(in[1], true), 0);
    assert_int_equal(open_spec(f, "stdio", ""), 0);
    f->take = false;
    for (int i = 0; i < 2000 && f->got_len < MIB; i++) {
        while (sent < MIB) {
            word = (uint32_t)sent;
            if (write(in[1], &word, 4) != 4)
                break;
            sent += 4;
        }
        assert_in_range(pump(f, 1), 1, 100);
        f->got_len += chardev_read(f->c, f->got + f->got_len, 7777);
    }
    assert_int_equal(f->got_len, MIB);
    for (uint32_t i = 0; i < MIB; i += 4) {
        memcpy(&word, f->got + i, 4);
        assert_int_equal(word, i);
    }
    close(in[1]);
    close(out[0]);
}

static int make_pty(char *path, size_t len)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY);

    assert_true(master >= 0 && grantpt(master) == 0 && unlockpt(master) == 0);
    snprintf(path, len, "%s", ptsname(master));
    assert_int_equal(fd_setup(master, true), 0);
    return master;
}

static void test_stdio_terminal(void **state)
{
    struct fixture *f = *state;
    struct termios t;
    char path[64];
    int master = make_pty(path, sizeof(path)), slave = open(path, O_RDWR | O_NOCTTY);

    dup2(slave, 0);
    dup2(slave, 1);
    assert_int_equal(open_spec(f, "stdio", ""), 0);
    assert_true(term_is_raw());
    assert_int_equal(tcgetattr(slave, &t), 0);
    assert_int_equal(t.c_lflag & (tcflag_t)(ICANON | ECHO | ISIG), 0);
    assert_int_equal(write(master, "a\001", 2), 2);
    expect_got(f, "a");
    assert_int_equal(write(master, "\001b\003\001q", 5), 5); /* Ctrl-C is the guest's */
    expect_got(f, "\001b\003");
    assert_int_equal(f->quits, 0);
    assert_int_equal(write(master, "\001h", 2), 2);
    expect_read(f, master,
                "\r\nCtrl-A x       quit\r\nCtrl-A Ctrl-A  send Ctrl-A\r\n"
                "Ctrl-A h       this help\r\n");
    put(f, "x\n");
    expect_read(f, master, "x\n"); /* no CR put in */
    assert_int_equal(fcntl(1, F_GETFL) & O_NONBLOCK, 0);

    /* A guest that reads nothing cannot keep the user from leaving. */
    f->take = false;
    for (int i = 0; i < 80; i++) {
        char flood[1024];

        memset(flood, 'x', sizeof(flood));
        assert_int_equal(write(master, flood, sizeof(flood)), sizeof(flood));
        pump(f, 2);
    }
    assert_int_equal(write(master, "\001x", 2), 2);
    pump(f, 20);
    assert_int_equal(f->quits, 1);
    close_it(f);
    assert_false(term_is_raw());
    assert_int_equal(tcgetattr(slave, &t), 0);
    assert_int_not_equal(t.c_lflag & (tcflag_t)ICANON, 0);
    close(slave);
    close(master);
}

static int connect_tcp(struct fixture *f)
{
    struct sockaddr_in sin = {.sin_family = AF_INET};
    const char *port = strstr(f->line, "port ");
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_non_null(port);
    sin.sin_port = htons((uint16_t)atoi(port + 5));
    sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(connect(fd, (struct sockaddr *)&sin, sizeof(sin)), 0);
    return fd;
}

static void talk(struct fixture *f, int (*connect_peer)(struct fixture *))
{
    int fd, second;

    put(f, "early ");
    pump(f, 5);
    fd = connect_peer(f);
    expect_read(f, fd, "early ");
    assert_int_equal(write(fd, "login\n", 6), 6);
    expect_got(f, "login\n");
    second = connect_peer(f); /* has to wait */
    put(f, "one");
    expect_read(f, fd, "one");
    assert_in_range(pump(f, 50), 1, 10);
    close(fd);
    pump(f, 10);
    put(f, "two");
    expect_read(f, second, "two");
    assert_int_equal(write(second, "hi", 2), 2);
    close(second); /* what it sent still arrives */
    expect_got(f, "hi");
    assert_in_range(pump(f, 50), 1, 10);

    /* A peer that does not read, then goes. */
    fd = connect_peer(f);
    pump(f, 5);
    for (int i = 0; i < 2000; i++) {
        char block[4096];

        memset(block, 'x', sizeof(block));
        chardev_write(f->c, block, sizeof(block));
        if (i % 100 == 0)
            pump(f, 1);
    }
    assert_in_range(pump(f, 50), 1, 10);
    close(fd);
    pump(f, 10);
    fd = connect_peer(f);
    pump(f, 10);
    assert_int_equal(write(fd, "back", 4), 4);
    expect_got(f, "back");
    close(fd);
}

static void test_tcp(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(open_spec(f, "tcp=0", ""), 0);
    assert_non_null(strstr(f->line, "127.0.0.1"));
    talk(f, connect_tcp);
}

static int connect_unix(struct fixture *f)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", f->path);
    assert_int_equal(connect(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
    return fd;
}

static void test_unix(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int stale = socket(AF_UNIX, SOCK_STREAM, 0);
    struct chardev *first;
    struct stat st;

    snprintf(sun.sun_path, sizeof(sun.sun_path), "%s", f->path);
    assert_int_equal(bind(stale, (struct sockaddr *)&sun, sizeof(sun)), 0);
    close(stale); /* the path stays, nobody listens */
    assert_int_equal(open_spec(f, "unix=", f->path), 0);
    first = f->c;
    assert_int_equal(open_spec(f, "unix=", f->path), -EADDRINUSE);
    f->c = first;
    talk(f, connect_unix);
    close_it(f);
    assert_int_equal(stat(f->path, &st), -1);
}

static void test_unix_not_a_socket(void **state)
{
    struct fixture *f = *state;
    int fd = open(f->path, O_CREAT | O_WRONLY, 0600);
    struct stat st;

    close(fd);
    assert_int_equal(open_spec(f, "unix=", f->path), -EADDRINUSE);
    assert_int_equal(stat(f->path, &st), 0); /* a user's file is not ours to remove */
}

static void test_autopty(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    int fd;

    assert_int_equal(symlink("/nonexistent", f->path), 0); /* left by an earlier run */
    assert_int_equal(open_spec(f, "autopty=", f->path), 0);
    assert_non_null(strstr(f->line, "/dev/"));
    assert_in_range(pump(f, 30), 1, 10);
    put(f, "early");
    fd = open(f->path, O_RDWR | O_NOCTTY | O_NONBLOCK);
    assert_true(fd >= 0);
    expect_read(f, fd, "early");
    assert_int_equal(write(fd, "in\r", 3), 3);
    expect_got(f, "in\r"); /* raw: no CR to LF, no echo */
    close(fd);
    assert_in_range(pump(f, 50), 1, 10); /* no hang-up to spin on */
    for (int i = 0; i < 10000; i++)
        put(f, "nobody reads this line, so the oldest goes\n");
    assert_in_range(pump(f, 50), 1, 10);
    put(f, "end");
    fd = open(f->path, O_RDWR | O_NOCTTY | O_NONBLOCK);
    for (int i = 0; i < 200; i++) {
        char buf[4097];
        ssize_t n = read(fd, buf, sizeof(buf) - 1);

        pump(f, 1);
        if (n > 3 && memcmp(buf + n - 3, "end", 3) == 0)
            break;
        assert_true(i < 199);
    }
    assert_int_equal(f->lines, 2);
    close(fd);
    close_it(f);
    assert_int_equal(lstat(f->path, &st), -1);
}

static void test_tty(void **state)
{
    struct fixture *f = *state;
    char path[64];
    int master = make_pty(path, sizeof(path));

    assert_int_equal(open_spec(f, path, ""), 0);
    put(f, "out\n");
    expect_read(f, master, "out\n");
    assert_int_equal(write(master, "in\r", 3), 3);
    expect_got(f, "in\r");
    close(master); /* unplugged */
    assert_in_range(pump(f, 50), 1, 10);
    put(f, "gone");
    assert_in_range(pump(f, 50), 1, 10);
}

static void expect_refused(struct fixture *f, const char *spec, const char *why)
{
    struct chardev *c = NULL;

    assert_true(chardev_open(spec, "com1", f->loop, f->log, &f->lock, &events, f, &c, &f->err) < 0);
    assert_null(c);
    assert_non_null(strstr(f->err.text, "com1: "));
    assert_non_null(strstr(f->err.text, why));
}

static void test_refused(void **state)
{
    struct fixture *f = *state;

    expect_refused(f, "", "unknown");
    expect_refused(f, "stdi", "unknown");
    expect_refused(f, "stdio=x", "no argument");
    expect_refused(f, "tcp", "ADDR");
    expect_refused(f, "tcp=", "port");
    expect_refused(f, "tcp=1.2.3.4", "port");
    expect_refused(f, "tcp=:65536", "port");
    expect_refused(f, "tcp=203.0.113.1:5000", "listen");
    expect_refused(f, "unix=", "path");
    expect_refused(f, "file=", "path");
    expect_refused(f, "file=/nonexistent/x", "No such file");
    expect_refused(f, "autopty=/nonexistent/x", "link");
    expect_refused(f, "/dev/null", "not a terminal");
    expect_refused(f, "/nonexistent", "No such file");
}

#define CASE(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_memory),
        CASE(test_file),
        CASE(test_null),
        CASE(test_stdio_pipe),
        CASE(test_stdio_output),
        CASE(test_stdio_slow),
        CASE(test_stdio_stuck_close),
        CASE(test_stdio_closed),
        CASE(test_back_pressure),
        CASE(test_stdio_terminal),
        CASE(test_tcp),
        CASE(test_unix),
        CASE(test_unix_not_a_socket),
        CASE(test_autopty),
        CASE(test_tty),
        CASE(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
