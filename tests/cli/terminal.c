/*
 * The program on a terminal: raw mode while it runs, the old settings after every way to end, the
 * escape keys, and log lines that end in CR LF. terminal PROGRAM
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "../guest/tiny.h"

enum { PATIENCE_S = 60, SEEN_MAX = 1 << 16 };

struct run {
    pid_t pid;
    int master, slave; /* slave: kept open so that its settings survive the program */
    struct termios before;
    char seen[SEEN_MAX + 1];
    size_t len;
    int status; /* as waitpid gives it */
};

static const char *program;
static char kernel[64];
static unsigned passed, failed;

static void check(bool ok, const char *what, const char *which)
{
    if (ok) {
        passed++;
        return;
    }
    failed++;
    printf("FAIL: %s: %s\n", what, which);
}

static bool make_kernel(const char *name)
{
    uint8_t image[TINY_SIZE];
    FILE *f = fopen(kernel, "w");
    bool ok = f != NULL && tiny_guest(name, image) && fwrite(image, sizeof(image), 1, f) == 1;

    return f != NULL && fclose(f) == 0 && ok;
}

static void child(struct run *r)
{
    char arg[80];

    setsid();
    ioctl(r->slave, TIOCSCTTY, 0);
    for (int fd = 0; fd < 3; fd++)
        dup2(r->slave, fd);
    close(r->master);
    close(r->slave);
    snprintf(arg, sizeof(arg), "kexec,%s", kernel);
    signal(SIGHUP, SIG_DFL); /* whoever runs the tests may ignore it, as nohup does */
    execl(program, program, "--engine", "soft", "-m", "16M", "-s", "31,lpc", "-l", "com1,stdio",
          "-f", arg, NULL);
    _exit(127);
}

static bool start(struct run *r, const char *guest)
{
    memset(r, 0, sizeof(*r));
    if (!make_kernel(guest))
        return false;
    r->master = posix_openpt(O_RDWR | O_NOCTTY);
    if (r->master < 0 || grantpt(r->master) < 0 || unlockpt(r->master) < 0)
        return false;
    fcntl(r->master, F_SETFL, O_NONBLOCK);
    r->slave = open(ptsname(r->master), O_RDWR | O_NOCTTY);
    if (r->slave < 0 || tcgetattr(r->slave, &r->before) < 0)
        return false;
    r->pid = fork();
    if (r->pid == 0)
        child(r);
    return r->pid > 0;
}

/* Collects output for at most ms milliseconds; false when nothing came. */
static bool more(struct run *r, int ms)
{
    struct pollfd p = {.fd = r->master, .events = POLLIN};
    ssize_t n;

    if (poll(&p, 1, ms) <= 0 || r->len == SEEN_MAX)
        return false;
    n = read(r->master, r->seen + r->len, SEEN_MAX - r->len);
    if (n <= 0)
        return false;
    r->len += (size_t)n;
    r->seen[r->len] = '\0';
    return true;
}

static bool wait_for(struct run *r, const char *words)
{
    time_t end = time(NULL) + PATIENCE_S;

    while (strstr(r->seen, words) == NULL && time(NULL) < end)
        more(r, 100);
    return strstr(r->seen, words) != NULL;
}

/* False if the program does not take them for a second. */
static bool type(struct run *r, const char *keys)
{
    struct pollfd p = {.fd = r->master, .events = POLLOUT};

    return poll(&p, 1, 1000) > 0 && write(r->master, keys, strlen(keys)) > 0;
}

/* Until the program has ended and all that it said has been read. */
static void finish(struct run *r, const char *what)
{
    time_t end = time(NULL) + PATIENCE_S;
    struct termios after;

    while (waitpid(r->pid, &r->status, WNOHANG) == 0 && time(NULL) < end)
        more(r, 20);
    if (time(NULL) >= end) {
        kill(r->pid, SIGKILL);
        waitpid(r->pid, &r->status, 0);
    }
    while (more(r, 50))
        continue;
    check(tcgetattr(r->slave, &after) == 0 && after.c_iflag == r->before.c_iflag &&
              after.c_oflag == r->before.c_oflag && after.c_lflag == r->before.c_lflag &&
              after.c_cflag == r->before.c_cflag &&
              memcmp(after.c_cc, r->before.c_cc, sizeof(after.c_cc)) == 0,
          what, "the terminal has its old settings");
    close(r->slave);
    close(r->master);
}

static bool is_raw(const struct run *r)
{
    struct termios now;

    return tcgetattr(r->slave, &now) == 0 && (now.c_lflag & (ICANON | ECHO | ISIG)) == 0 &&
           (now.c_oflag & OPOST) == 0;
}

static bool exited(const struct run *r, int status)
{
    return WIFEXITED(r->status) && WEXITSTATUS(r->status) == status;
}

/* Every line that begins "xhyve: " ends in CR LF, and there is one. */
static bool log_lines_end_well(const struct run *r)
{
    unsigned lines = 0;

    for (const char *p = r->seen; (p = strstr(p, "xhyve: ")) != NULL; p++, lines++) {
        const char *end = strchr(p, '\n');

        if (end == NULL || end[-1] != '\r' || (end > p + 1 && end[-2] == '\r'))
            return false;
    }
    return lines > 0;
}

/* The guest's own words: a log line may come in the middle of them. */
static bool guest_said(const struct run *r, const char *words)
{
    char text[SEEN_MAX + 1];
    const char *p = r->seen, *log;
    size_t n = 0;

    while ((log = strstr(p, "xhyve: ")) != NULL) {
        memcpy(text + n, p, (size_t)(log - p));
        n += (size_t)(log - p);
        p = strchr(log, '\n');
        if (p == NULL)
            break;
        p++;
    }
    if (p != NULL) {
        memcpy(text + n, p, strlen(p));
        n += strlen(p);
    }
    text[n] = '\0';
    return strstr(text, words) != NULL;
}

static void test_end(const char *guest, int status, bool logs)
{
    struct run r;

    if (!start(&r, guest)) {
        check(false, guest, strerror(errno));
        return;
    }
    finish(&r, guest);
    check(exited(&r, status), guest, "exit status");
    check(guest_said(&r, guest), guest, "its output");
    check(!logs || log_lines_end_well(&r), guest, "log lines end in CR LF");
}

static void test_signal(const char *name, int signo, int status)
{
    struct run r;

    if (!start(&r, "spin") || !wait_for(&r, "spin\n")) {
        check(false, name, "the guest does not start");
        return;
    }
    check(is_raw(&r), name, "the terminal is raw");
    kill(r.pid, signo);
    finish(&r, name);
    if (status >= 0) {
        check(exited(&r, status), name, "exit status");
        return;
    }
    check(WIFSIGNALED(r.status) && WTERMSIG(r.status) == signo, name, "it dies by that signal");
    check(strstr(r.seen, "killed by ") != NULL && strstr(r.seen, name) != NULL, name,
          "it says what killed it");
    check(log_lines_end_well(&r), name, "and ends that line well");
}

static void test_keys(void)
{
    struct run r;

    if (!start(&r, "echo") || !wait_for(&r, "echo\n")) {
        check(false, "keys", "the guest does not start");
        return;
    }
    check(is_raw(&r), "keys", "the terminal is raw");
    type(&r, "\x03\x04\x1a\x1c|"); /* what a cooked terminal would make signals and an end of */
    check(wait_for(&r, "\x03\x04\x1a\x1c|"), "keys", "control keys reach the guest");
    type(&r, "<\x01\x01>");
    check(wait_for(&r, "<\x01>"), "keys", "Ctrl-A twice is one Ctrl-A");
    type(&r, "\x01h");
    check(wait_for(&r, "Ctrl-A x"), "keys", "Ctrl-A h helps");
    type(&r, "{\x01z}");
    check(wait_for(&r, "{}"), "keys", "Ctrl-A and another key are dropped");
    type(&r, "q");
    finish(&r, "keys");
    check(exited(&r, 0), "keys", "exit status");
}

static void test_quit(const char *guest)
{
    bool taken = true;
    struct run r;

    if (!start(&r, guest) || !wait_for(&r, guest)) {
        check(false, "Ctrl-A x", "the guest does not start");
        return;
    }
    /* the guest reads nothing: more than any buffer holds must not be in the way */
    for (unsigned i = 0; taken && i < 5000; i++)
        taken = type(&r, "1234567890123456789012345678901234567890");
    check(taken, "Ctrl-A x", "the terminal's input is taken");
    type(&r, "\x01x");
    finish(&r, "Ctrl-A x");
    check(exited(&r, 1), "Ctrl-A x", "exit status");
}

/* The terminal goes away: with it go the controlling process's rights to live. */
static void test_hangup(void)
{
    time_t end = time(NULL) + PATIENCE_S;
    struct run r;
    int rc;

    if (!start(&r, "idle") || !wait_for(&r, "idle\n")) {
        check(false, "hangup", "the guest does not start");
        return;
    }
    close(r.slave);
    close(r.master);
    while ((rc = waitpid(r.pid, &r.status, WNOHANG)) == 0 && time(NULL) < end)
        usleep(20000);
    if (rc == 0) {
        kill(r.pid, SIGKILL);
        waitpid(r.pid, &r.status, 0);
    }
    check(exited(&r, 1), "hangup", "exit status");
}

int main(int argc, char **argv)
{
    int fd;

    if (argc != 2) {
        fprintf(stderr, "usage: %s PROGRAM\n", argv[0]);
        return 2;
    }
    program = argv[1];
    snprintf(kernel, sizeof(kernel), "/tmp/tiny-guest-XXXXXX");
    fd = mkstemp(kernel);
    if (fd < 0) {
        perror(kernel);
        return 2;
    }
    close(fd);
    test_end("reset", 0, false);
    test_end("halt", 2, false);
    test_end("triple", 3, true);
    test_end("panic", 4, true);
    test_end("smi", 4, true);
    test_signal("SIGTERM", SIGTERM, 1);
    test_signal("SIGHUP", SIGHUP, 1);
    test_signal("SIGINT", SIGINT, 1);
    test_signal("SIGSEGV", SIGSEGV, -1);
    test_signal("SIGABRT", SIGABRT, -1);
    test_signal("SIGBUS", SIGBUS, -1);
    test_keys();
    test_quit("spin");
    test_quit("idle");
    test_hangup();
    unlink(kernel);
    printf("%u passed, %u failed\n", passed, failed);
    return failed != 0;
}
