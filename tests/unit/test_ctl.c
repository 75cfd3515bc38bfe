/* The control socket: its words, what is asked and answered, and clients that mean it no good. */
#include "ctl_fixture.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

/* ---- words ---- */

static int cut(const char *text, char *words[CTL_WORDS_MAX], struct error *err)
{
    static _Thread_local char line[CTL_LINE_MAX];

    snprintf(line, sizeof(line), "%s\n", text);
    return ctl_words(line, strlen(line) - 1, words, err);
}

static void words_are_cut_and_decoded(void **state)
{
    char *w[CTL_WORDS_MAX];

    (void)state;
    assert_int_equal(cut("insert  3:0 /a%20b%0a%25 ", w, NULL), 3);
    assert_string_equal(w[0], "insert");
    assert_string_equal(w[1], "3:0");
    assert_string_equal(w[2], "/a b\n%");
    assert_int_equal(cut("a b c d e f g h", w, NULL), 8);
    assert_int_equal(cut("%e2%82%AC", w, NULL), 1);
    assert_string_equal(w[0], "\xE2\x82\xAC");
}

static void wrong_words_are_refused(void **state)
{
    static const char *const wrong[] = {
        "",      "   ",   "a b c d e f g h i",
        "%",     "a%",    "%4",
        "a%4 x", "%zz",   "%0",
        "%00",   "x%00y", "%-1",
        "a\tb",  "\x7F",  "\xFF",
        "a\x01",
    };
    char *w[CTL_WORDS_MAX];
    struct error err;

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        err = (struct error){0};
        if (cut(wrong[i], w, &err) != -EINVAL || err.text[0] == '\0')
            fail_msg("'%s' was taken", wrong[i]);
    }
}

static uint64_t seed_of_this_run(void)
{
    struct timespec now;
    const char *given = getenv("SEED");
    uint64_t seed;

    clock_gettime(CLOCK_REALTIME, &now);
    seed = given != NULL ? strtoull(given, NULL, 0)
                         : (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    printf("SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

static unsigned draw(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(*seed >> 33);
}

static void any_text_comes_back(void **state)
{
    uint64_t seed = seed_of_this_run();

    (void)state;
    for (unsigned n = 0; n < 5000; n++) {
        char text[64], line[200], *w[CTL_WORDS_MAX];
        unsigned len = draw(&seed) % 63 + 1;
        size_t room = draw(&seed) % 199 + 1, at;

        for (unsigned i = 0; i < len; i++)
            text[i] = (char)(draw(&seed) % 255 + 1);
        text[len] = '\0';
        memset(line, 'x', sizeof(line));
        at = ctl_word_put(line, room, 0, text);
        for (size_t i = room; i < sizeof(line); i++)
            assert_int_equal(line[i], 'x');
        if (at == room)
            continue; /* did not fit, and has said so */
        assert_int_equal(ctl_words(line, at, w, NULL), 1);
        assert_string_equal(w[0], text);
    }
}

/* ---- asking ---- */

static void requests_are_answered(void **state)
{
    struct box b;
    char line[1024];
    int fd;

    (void)state;
    box_make(&b, "a%b");
    box_start(&b);
    fd = dial(b.path);
    assert_true(hear(fd, line, sizeof(line)));
    assert_string_equal(line, "xhyve 1 a%25b");
    assert_true(say_line(fd, "status"));
    assert_true(hear_answer(fd, line, sizeof(line)) >= 10);
    assert_string_equal(line, "ok");
    expect_answer(fd, "help", "ok");
    expect_answer(fd, "nonsense", "error unknown request 'nonsense'");
    expect_answer(fd, "status now", "error the request is status");
    expect_answer(fd, "insert 3", "error the request is insert WHERE PATH");
    expect_answer(fd, "insert 3 disc", "error the path 'disc' does not begin with /");
    expect_answer(fd, "insert 3 /x harder", "error unknown word 'harder'");
    expect_answer(fd, "eject 3 harder", "error unknown word 'harder'");
    expect_answer(fd, "", "error an empty request");
    expect_answer(fd, "%", "error a % in the request");
    expect_answer(fd, "engine", "error the engine of this VM cannot change");
    snprintf(line, sizeof(line), "insert 3 %s", b.disc);
    expect_answer(fd, line, "ok");
    expect_answer(fd, "eject 0:3:0.0", "ok");
    expect_answer(fd, "eject 0:3:0.0 force", "ok");
    expect_answer(fd, "refresh", "ok");
    expect_answer(fd, "powerdown", "ok");
    close(fd);
    box_end(&b);
}

static void places_are_read_strictly(void **state)
{
    static const char *const wrong[] = {
        "x",       "3:", ":3",    "3.", "3:8", "32",   "0:0:0:3",
        "256:3:0", "3x", "3.256", "-3", "+3",  "3..0", "99999999999999999999",
        "%203"};
    struct box b;
    int fd;

    (void)state;
    box_make(&b, "places");
    box_start(&b);
    fd = dial_greeted(&b);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        char request[64];

        snprintf(request, sizeof(request), "eject %s", wrong[i]);
        expect_answer(fd, request, "error '");
    }
    expect_answer(fd, "eject 4", "error PCI slot 0:4:0 is empty");
    expect_answer(fd, "eject 3:1", "error PCI slot 0:3:1 is empty");
    expect_answer(fd, "eject 1:3:0", "error PCI slot 1:3:0 is empty");
    expect_answer(fd, "eject 3.1", "error ahci-cd has no such drive");
    expect_answer(fd, "insert 3 /dev", "error /dev");
    expect_answer(fd, "insert 3 /dev/null", "error /dev/null");
    expect_answer(fd, "insert 3 /nonsense/disc", "error /nonsense/disc");
    close(fd);
    box_end(&b);
}

static void an_end_is_answered_and_then_seen(void **state)
{
    static const char *const words[] = {"poweroff"};
    struct error err = {0};
    struct ctl_client *c;
    struct box b;

    (void)state;
    box_make(&b, "end");
    box_start(&b);
    if (ctl_client_open(b.path, PATIENCE_MS, &c, &err) != 0)
        fail_msg("%s", err.text);
    assert_string_equal(ctl_client_name(c), "end");
    assert_int_equal(ctl_client_ask(c, words, 1, NULL, NULL, &err), 0);
    box_join(&b);
    assert_int_equal(b.status, VM_POWEROFF);
    ctl_stop(b.ctl);
    ctl_client_renew(c, 1);
    assert_int_equal(ctl_client_wait_end(c), -ETIMEDOUT); /* its disks are not free yet */
    box_free(&b);
    ctl_client_renew(c, PATIENCE_MS);
    assert_int_equal(ctl_client_wait_end(c), 0);
    ctl_client_close(c);
}

static void two_vms_have_two_sockets(void **state)
{
    struct box a, b;

    (void)state;
    box_make(&a, "one");
    box_make(&b, "two");
    box_start(&a);
    box_start(&b);
    expect_alive(&a);
    box_end(&a);
    expect_alive(&b);
    box_end(&b);
}

/* ---- clients that mean no good ---- */

static void a_request_may_come_in_pieces(void **state)
{
    static const char text[] = "refresh\nstatus\nnonsense\n";
    struct box b;
    char line[1024];
    int fd;

    (void)state;
    box_make(&b, "pieces");
    box_start(&b);
    fd = dial_greeted(&b);
    for (size_t i = 0; i < sizeof(text) - 1; i++) {
        assert_true(say(fd, text + i, 1));
        if (i % 5 == 0)
            expect_alive(&b);
    }
    assert_int_equal(hear_answer(fd, line, sizeof(line)), 0);
    assert_string_equal(line, "ok");
    assert_true(hear_answer(fd, line, sizeof(line)) > 0);
    assert_string_equal(line, "ok");
    hear_answer(fd, line, sizeof(line));
    assert_memory_equal(line, "error ", 6);
    close(fd);
    box_end(&b);
}

static void long_lines_end_the_connection(void **state)
{
    char text[2 * CTL_LINE_MAX], line[1024];
    struct box b;
    int fd;

    (void)state;
    memset(text, 'x', sizeof(text));
    box_make(&b, "long");
    box_start(&b);
    fd = dial_greeted(&b);
    text[CTL_LINE_MAX - 1] = '\n'; /* the longest line that there may be */
    assert_true(say(fd, text, CTL_LINE_MAX));
    hear_answer(fd, line, sizeof(line));
    assert_memory_equal(line, "error unknown request", 21);
    expect_answer(fd, "status", "ok");
    text[CTL_LINE_MAX - 1] = 'x';
    (void)say(fd, text, sizeof(text));
    hear_answer(fd, line, sizeof(line));
    assert_memory_equal(line, "error a request of more than", 28);
    assert_false(hear(fd, line, sizeof(line)));
    close(fd);
    expect_alive(&b);
    box_end(&b);
}

static void bytes_that_no_request_holds(void **state)
{
    static const char text[] = "sta\0tus\nstatus\0\n\0\nstatus\r\n\n";
    struct box b;
    char line[1024];
    int fd;

    (void)state;
    box_make(&b, "bytes");
    box_start(&b);
    fd = dial_greeted(&b);
    assert_true(say(fd, text, sizeof(text) - 1));
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(hear_answer(fd, line, sizeof(line)), 0);
        assert_memory_equal(line, "error ", 6);
    }
    expect_answer(fd, "status", "ok");
    close(fd);
    box_end(&b);
}

static void the_most_silent_of_many_is_dropped(void **state)
{
    int fd[3 * CTL_CLIENTS];
    char line[1024];
    struct box b;

    (void)state;
    box_make(&b, "many");
    box_start(&b);
    for (unsigned i = 0; i < CTL_CLIENTS; i++)
        fd[i] = dial_greeted(&b);
    expect_answer(fd[0], "status", "ok"); /* so the second is the most silent now */
    fd[CTL_CLIENTS] = dial_greeted(&b);
    assert_false(hear(fd[1], line, sizeof(line)));
    expect_answer(fd[0], "status", "ok");
    for (unsigned i = CTL_CLIENTS + 1; i < 3 * CTL_CLIENTS; i++)
        fd[i] = dial_greeted(&b);
    for (unsigned i = 0; i < 2 * CTL_CLIENTS; i++)
        assert_false(hear(fd[i], line, sizeof(line)));
    for (unsigned i = 2 * CTL_CLIENTS; i < 3 * CTL_CLIENTS; i++)
        expect_answer(fd[i], "status", "ok");
    for (unsigned i = 0; i < 3 * CTL_CLIENTS; i++)
        close(fd[i]);
    box_end(&b);
}

/* The VM's end of the only connection, which is in this process too. */
static int other_end(const struct box *b)
{
    for (int fd = 0; fd < 1024; fd++) {
        struct sockaddr_un sun = {0};
        socklen_t len = sizeof(sun), size = sizeof(int);
        int listens = 1;

        if (getsockname(fd, (struct sockaddr *)&sun, &len) == 0 && sun.sun_family == AF_UNIX &&
            strcmp(sun.sun_path, b->path) == 0 &&
            getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) == 0 && listens == 0)
            return fd;
    }
    fail_msg("the VM has no connection");
    return -1;
}

/*
 * Asks and asks and takes no answer: it waits, and nobody else does. Each answer is larger than
 * what the host takes at once, so all of them are sent in pieces.
 */
static void who_does_not_listen_waits(void **state)
{
    static char kernel[1200], line[CTL_ANSWER_MAX];
    struct pollfd p;
    unsigned asked = 0;
    int fd, least = 1;
    struct box b;

    (void)state;
    box_make(&b, "deaf");
    memset(kernel, ' ', sizeof(kernel) - 1);
    set(&b, "boot.kernel", kernel);
    box_start(&b);
    fd = dial_greeted(&b);
    assert_int_equal(setsockopt(other_end(&b), SOL_SOCKET, SO_SNDBUF, &least, sizeof(least)), 0);
    assert_int_equal(fd_setup(fd, true), 0);
    p = (struct pollfd){.fd = fd, .events = POLLOUT};
    while (poll(&p, 1, 300) == 1 && fd_send(fd, "status\nstatus\n", 14) == 14)
        asked += 2;
    assert_true(asked > 50);
    expect_alive(&b);
    for (unsigned i = 0; i < asked; i++) {
        assert_true(hear_answer(fd, line, sizeof(line)) > 10);
        assert_string_equal(line, "ok");
    }
    close(fd);
    expect_alive(&b);
    box_end(&b);
}

static void who_goes_in_the_middle_hurts_nobody(void **state)
{
    static const char text[] = "status\nhelp\nrefresh\nstatus\nstatus\n";
    uint64_t seed = seed_of_this_run();
    struct box b;

    (void)state;
    box_make(&b, "gone");
    box_start(&b);
    for (unsigned i = 0; i < 500; i++) {
        int fd = dial(b.path);

        (void)say(fd, text, draw(&seed) % sizeof(text));
        if (draw(&seed) % 3 == 0)
            shutdown(fd, SHUT_WR);
        close(fd);
    }
    expect_alive(&b);
    box_end(&b);
}

/* Who has said all may still take the answers. */
static void half_closed_is_answered(void **state)
{
    struct box b;
    char line[1024];
    int fd;

    (void)state;
    box_make(&b, "half");
    box_start(&b);
    fd = dial_greeted(&b);
    assert_true(say(fd, "status\nrefresh\nhalf", 19));
    shutdown(fd, SHUT_WR);
    hear_answer(fd, line, sizeof(line));
    assert_string_equal(line, "ok");
    assert_true(hear(fd, line, sizeof(line)));
    assert_string_equal(line, "ok");
    assert_false(hear(fd, line, sizeof(line)));
    close(fd);
    box_end(&b);
}

static void random_bytes(void **state)
{
    uint64_t seed = seed_of_this_run();
    unsigned left = 100000;
    struct box b;
    int fd = -1;

    (void)state;
    box_make(&b, "random");
    box_start(&b);
    while (left > 0) {
        unsigned len = 1 + draw(&seed) % 2000;
        char bytes[2000], sink[4096];

        if (fd < 0)
            fd = dial(b.path);
        for (unsigned i = 0; i < len; i++)
            bytes[i] = (char)(draw(&seed) % 8 == 0 ? '\n' : draw(&seed));
        assert_int_equal(fd_setup(fd, true), 0);
        if (fd_send(fd, bytes, len) < 0 || draw(&seed) % 16 == 0) {
            close(fd);
            fd = -1;
        } else {
            (void)!read(fd, sink, sizeof(sink));
        }
        left -= len < left ? len : left;
    }
    close(fd);
    expect_alive(&b);
    box_end(&b);
}

/* No descriptor is left to take a client with: he is sent away, and the loop does not spin. */
static void no_descriptor_is_left(void **state)
{
    struct rlimit old, now;
    struct sockaddr_un sun;
    int hold[128], fd;
    struct box b;
    char c;

    (void)state;
    box_make(&b, "full");
    box_start(&b);
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    address(&sun, b.path);
    for (unsigned i = 0; i < 128; i++)
        hold[i] = dup(fd);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    now = old;
    now.rlim_cur = (rlim_t)hold[127] + 1;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(connect(fd, (const struct sockaddr *)&sun, sizeof(sun)), 0);
        assert_int_equal(read(fd, &c, 1), 0);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
        close(fd);
        fd = socket(AF_UNIX, SOCK_STREAM, 0);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &now), 0);
    }
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    close(fd);
    for (unsigned i = 0; i < 128; i++)
        close(hold[i]);
    expect_alive(&b);
    box_end(&b);
}

/* Not by the modes of files alone: the kernel says who it is. */
static void other_users_are_refused(void **state)
{
    struct box b;
    int status;
    pid_t pid;

    (void)state;
    if (geteuid() != 0)
        skip();
    box_make(&b, "refuse");
    box_start(&b);
    assert_int_equal(chmod(b.dir, 0755), 0);
    assert_int_equal(chmod(b.path, 0666), 0);
    pid = fork();
    if (pid == 0) {
        char line[256];
        int fd;

        if (setuid(65534) != 0)
            _exit(1);
        fd = dial(b.path);
        if (!hear(fd, line, sizeof(line)) || strncmp(line, "error the VM is another", 23) != 0)
            _exit(2);
        _exit(hear(fd, line, sizeof(line)) ? 3 : 0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    expect_alive(&b);
    box_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_cut_and_decoded),
        cmocka_unit_test(wrong_words_are_refused),
        cmocka_unit_test(any_text_comes_back),
        cmocka_unit_test(requests_are_answered),
        cmocka_unit_test(places_are_read_strictly),
        cmocka_unit_test(an_end_is_answered_and_then_seen),
        cmocka_unit_test(two_vms_have_two_sockets),
        cmocka_unit_test(a_request_may_come_in_pieces),
        cmocka_unit_test(long_lines_end_the_connection),
        cmocka_unit_test(bytes_that_no_request_holds),
        cmocka_unit_test(the_most_silent_of_many_is_dropped),
        cmocka_unit_test(who_does_not_listen_waits),
        cmocka_unit_test(who_goes_in_the_middle_hurts_nobody),
        cmocka_unit_test(half_closed_is_answered),
        cmocka_unit_test(random_bytes),
        cmocka_unit_test(no_descriptor_is_left),
        cmocka_unit_test(other_users_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
