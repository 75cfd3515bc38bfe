/*
 * Plays a scenario on a guest's serial console: starts the VM with its console on a pipe or a
 * terminal, waits for what should appear, types, sends signals, checks the exit status.
 *
 *     boot-console [-v] [-q] [-x PROGRAM] [-g GUESTS] [-l LOG] [-t PATIENCE] SCENARIO
 *
 * A scenario is a text file; '#' begins a comment line. What machine:
 *     guest NAME          GUESTS/NAME/vmlinuz, and GUESTS/NAME/initrd if there is one; cloud by
 *                         default
 *     flags FLAGS         instead of "-A -m 1G"
 *     cmdline WORDS       after console=ttyS0
 *     boot METHOD         pvh, or multiboot: then no initrd and no console=ttyS0; kexec by default
 *     terminal            a pseudo-terminal instead of pipes
 *     prepare COMMAND     first, a shell's command on the host; must end with 0
 *     quick, long PART    which test command plays it (read by tools/boot-test.sh); memtest is
 *                         played beside boot
 * What happens, in order:
 *     expect [SECONDS] TEXT   TEXT appears after the last match
 *     send TEXT               types a line; \xHH is a byte, \c at the end: no newline
 *     clock SECONDS           the guest's clock is that close to the host's
 *     signal NAME             TERM, INT, HUP or USR1 to the VM
 *     mark NAME               prints the time since the start and the VM's memory
 *     host COMMAND            a shell's command on the host; must end with 0
 *     include FILE            more of these, from a file beside the scenario
 *     status N [SECONDS]      the VM ends with exit status N
 *     says TEXT               standard error holds TEXT by now
 *     never TEXT              anywhere in the file: TEXT ends the test as failed
 *
 * A guest echoes what is typed, so expect something that the typed line does not hold:
 * "send echo A$((1+1))" and "expect A2".
 *
 * -t waits so many times as long for everything, for a build or a machine that is slow.
 * -q plays the same on qemu (a check of the scenario, and the peer of the benchmark), where exit
 * statuses and flags other than -m mean nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_SECONDS 120
#define MAX_ARGS 64
#define MAX_LINES 512

enum line_kind {
    LINE_EXPECT,
    LINE_SEND,
    LINE_CLOCK,
    LINE_SIGNAL,
    LINE_MARK,
    LINE_STATUS,
    LINE_SAYS,
    LINE_HOST
};

struct line {
    enum line_kind kind;
    unsigned number, seconds;
    char *text; /* owned */
};

struct play {
    const char *scenario, *program, *guests, *log;
    bool verbose, qemu, terminal;
    unsigned patience;
    char guest[64], flags[512], cmdline[512], boot[16];
    struct line lines[MAX_LINES];
    size_t line_count;
    char *never[32]; /* owned */
    size_t never_count;
    char *prepare[8]; /* owned */
    size_t prepare_count;

    pid_t pid;
    int in, out; /* to and from the guest's console; -1: closed */
    int log_fd;
    uint64_t start_ns;
    char *text; /* all output so far, NUL-terminated */
    size_t len, room, seen;
    int wait_status;
    bool ended;
};

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static double elapsed(const struct play *p)
{
    return (double)(now_ns() - p->start_ns) / 1e9;
}

__attribute__((format(printf, 2, 3), noreturn)) static void die(const char *where, const char *fmt,
                                                                ...)
{
    va_list ap;

    fprintf(stderr, "boot-console: %s: ", where);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(2);
}

/* ---- the scenario ---- */

static char *copy_text(const char *s)
{
    char *copy = strdup(s);

    if (copy == NULL)
        die("memory", "none left");
    return copy;
}

/* \xHH and \\ in place. */
static char *unescape(char *s)
{
    char *to = s;

    for (const char *from = s; *from != '\0'; from++) {
        unsigned byte;

        if (from[0] == '\\' && from[1] == 'x' && sscanf(from + 2, "%2x", &byte) == 1) {
            *to++ = (char)byte;
            from += 3;
        } else if (from[0] == '\\' && from[1] == '\\') {
            *to++ = '\\';
            from++;
        } else {
            *to++ = *from;
        }
    }
    *to = '\0';
    return s;
}

/* A number of seconds at the front of *rest, which then goes past it. */
static unsigned leading_seconds(char **rest, unsigned otherwise)
{
    char *end;
    unsigned long n = strtoul(*rest, &end, 10);

    if (end == *rest || *end != ' ')
        return otherwise;
    *rest = end + 1;
    return (unsigned)n;
}

static void add_line(struct play *p, enum line_kind kind, unsigned number, unsigned seconds,
                     const char *text)
{
    if (p->line_count == MAX_LINES)
        die(p->scenario, "more than %d lines", MAX_LINES);
    p->lines[p->line_count++] = (struct line){kind, number, seconds, copy_text(text)};
}

static void set_text(char *to, size_t room, const char *from)
{
    if (strlen(from) >= room)
        die("scenario", "this is too long: %s", from);
    memcpy(to, from, strlen(from) + 1);
}

static void read_scenario(struct play *p, const char *path, unsigned depth);

static void include(struct play *p, const char *path, const char *name, unsigned depth)
{
    const char *slash = strrchr(path, '/');
    char full[1024];

    if (depth > 4)
        die(path, "included too deep");
    snprintf(full, sizeof(full), "%.*s%s", slash == NULL ? 0 : (int)(slash - path + 1), path, name);
    read_scenario(p, full, depth + 1);
}

static void read_line(struct play *p, const char *path, unsigned number, char *s, unsigned depth)
{
    char *rest = s + strcspn(s, " ");
    unsigned seconds = DEFAULT_SECONDS;

    if (*rest != '\0')
        *rest++ = '\0';
    if (strcmp(s, "guest") == 0) {
        set_text(p->guest, sizeof(p->guest), rest);
    } else if (strcmp(s, "flags") == 0) {
        set_text(p->flags, sizeof(p->flags), rest);
    } else if (strcmp(s, "cmdline") == 0) {
        set_text(p->cmdline, sizeof(p->cmdline), rest);
    } else if (strcmp(s, "boot") == 0) {
        set_text(p->boot, sizeof(p->boot), rest);
    } else if (strcmp(s, "terminal") == 0) {
        p->terminal = true;
    } else if (strcmp(s, "quick") == 0 || strcmp(s, "long") == 0) {
        return;
    } else if (strcmp(s, "include") == 0) {
        include(p, path, rest, depth);
    } else if (strcmp(s, "expect") == 0) {
        seconds = leading_seconds(&rest, DEFAULT_SECONDS);
        add_line(p, LINE_EXPECT, number, seconds, unescape(rest));
    } else if (strcmp(s, "send") == 0) {
        add_line(p, LINE_SEND, number, 0, rest);
    } else if (strcmp(s, "clock") == 0) {
        add_line(p, LINE_CLOCK, number, (unsigned)strtoul(rest, NULL, 10), "");
    } else if (strcmp(s, "signal") == 0) {
        add_line(p, LINE_SIGNAL, number, 0, rest);
    } else if (strcmp(s, "mark") == 0) {
        add_line(p, LINE_MARK, number, 0, rest);
    } else if (strcmp(s, "status") == 0) {
        char *end;

        strtoul(rest, &end, 10);
        if (*end == ' ')
            seconds = (unsigned)strtoul(end + 1, NULL, 10);
        add_line(p, LINE_STATUS, number, seconds, rest);
    } else if (strcmp(s, "says") == 0) {
        add_line(p, LINE_SAYS, number, 0, rest);
    } else if (strcmp(s, "host") == 0) {
        add_line(p, LINE_HOST, number, 0, rest);
    } else if (strcmp(s, "prepare") == 0 && p->prepare_count < 8) {
        p->prepare[p->prepare_count++] = copy_text(rest);
    } else if (strcmp(s, "never") == 0 && p->never_count < 32) {
        p->never[p->never_count++] = copy_text(rest);
    } else {
        die(path, "line %u: unknown word '%s'", number, s);
    }
}

static void read_scenario(struct play *p, const char *path, unsigned depth)
{
    FILE *f = fopen(path, "r");
    char line[1024];

    if (f == NULL)
        die(path, "%s", strerror(errno));
    for (unsigned number = 1; fgets(line, sizeof(line), f) != NULL; number++) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0] != '\0' && line[0] != '#')
            read_line(p, path, number, line, depth);
    }
    fclose(f);
}

/* ---- the VM ---- */

/* Splits at blanks, in place. */
static void add_words(char **argv, size_t *n, char *words)
{
    for (char *save = NULL, *w = strtok_r(words, " ", &save); w != NULL;
         w = strtok_r(NULL, " ", &save)) {
        if (*n + 8 > MAX_ARGS)
            die("flags", "too many words");
        argv[(*n)++] = w;
    }
}

static void exec_vm(struct play *p)
{
    static char base[] = /* flags behind it may name another engine */
        "--engine soft -u -s 0:0,hostbridge -s 31,lpc -s 2,virtio-rnd -l com1,stdio";
    static char qemu_base[] = "-accel tcg -cpu max -nodefaults -display none -serial stdio "
                              "-no-reboot -device virtio-rng-pci";
    char kernel[1024], initrd[1024], boot[4096], cmdline[1024];
    char *argv[MAX_ARGS], *size = strstr(p->flags, "-m ");
    bool multiboot = strcmp(p->boot, "multiboot") == 0;
    size_t n = 0;

    snprintf(kernel, sizeof(kernel), "%s/%s/vmlinuz", p->guests, p->guest);
    snprintf(initrd, sizeof(initrd), "%s/%s/initrd", p->guests, p->guest);
    snprintf(cmdline, sizeof(cmdline), "%s%s", multiboot ? "" : "console=ttyS0 ", p->cmdline);
    if (access(initrd, R_OK) != 0)
        initrd[0] = '\0';
    if (p->qemu) {
        static char program[] = "qemu-system-x86_64", kernel_flag[] = "-kernel",
                    initrd_flag[] = "-initrd", append_flag[] = "-append", m_flag[] = "-m";

        argv[n++] = program;
        add_words(argv, &n, qemu_base);
        argv[n++] = m_flag;
        snprintf(boot, sizeof(boot), "%s", size == NULL ? "256M" : size + 3);
        boot[strcspn(boot, " ")] = '\0';
        argv[n++] = boot;
        argv[n++] = kernel_flag;
        argv[n++] = kernel;
        if (!multiboot && initrd[0] != '\0') {
            argv[n++] = initrd_flag;
            argv[n++] = initrd;
        }
        argv[n++] = append_flag;
        argv[n++] = cmdline;
    } else {
        static char f_flag[] = "-f";

        argv[n++] = (char *)(uintptr_t)p->program; /* execv writes to none of them */
        add_words(argv, &n, base);
        add_words(argv, &n, p->flags);
        snprintf(boot, sizeof(boot), "%s,%s,%s,%s", p->boot, kernel, multiboot ? "" : initrd,
                 cmdline);
        argv[n++] = f_flag;
        argv[n++] = boot;
    }
    argv[n] = NULL;
    execvp(argv[0], argv);
    fprintf(stderr, "cannot run %s: %s\n", argv[0], strerror(errno));
    _exit(127);
}

static int open_terminal(struct play *p)
{
    struct termios t;
    int far;

    p->out = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (p->out < 0 || grantpt(p->out) < 0 || unlockpt(p->out) < 0)
        die("terminal", "%s", strerror(errno));
    far = open(ptsname(p->out), O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (far < 0)
        die("terminal", "%s", strerror(errno));
    /* Quiet until the VM makes it raw, so that nothing typed early is echoed twice. */
    if (tcgetattr(far, &t) == 0) {
        t.c_lflag &= (tcflag_t) ~(ECHO | ICANON);
        tcsetattr(far, TCSANOW, &t);
    }
    p->in = p->out;
    return far;
}

static void start_vm(struct play *p)
{
    int to[2] = {-1, -1}, from[2] = {-1, -1}, far = -1, errors;
    char path[1024];

    snprintf(path, sizeof(path), "%s.stderr", p->log);
    errors = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    p->log_fd = open(p->log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (errors < 0 || p->log_fd < 0)
        die(p->log, "%s", strerror(errno));
    if (p->terminal) {
        far = open_terminal(p);
    } else {
        if (pipe2(to, O_CLOEXEC) < 0 || pipe2(from, O_CLOEXEC) < 0)
            die("pipe", "%s", strerror(errno));
        p->in = to[1];
        p->out = from[0];
    }
    p->start_ns = now_ns();
    p->pid = fork();
    if (p->pid < 0)
        die("fork", "%s", strerror(errno));
    if (p->pid == 0) {
        setsid(); /* a Ctrl-C here ends the driver, and the end of the driver ends the VM */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(p->terminal ? far : to[0], 0);
        dup2(p->terminal ? far : from[1], 1);
        dup2(errors, 2);
        if (p->terminal)
            ioctl(0, TIOCSCTTY, 0);
        exec_vm(p);
    }
    close(errors);
    if (p->terminal) {
        close(far);
    } else {
        close(to[0]);
        close(from[1]);
    }
}

/* ---- playing ---- */

static void take(struct play *p)
{
    ssize_t n;

    if (p->room - p->len < 65537) {
        p->room = p->len + 262144;
        p->text = realloc(p->text, p->room);
        if (p->text == NULL)
            die("memory", "none left");
    }
    n = read(p->out, p->text + p->len, 65536);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0) { /* EIO is a terminal's way to say that the other side is closed */
        if (p->in != p->out)
            close(p->out);
        p->out = -1;
        return;
    }
    if (write(p->log_fd, p->text + p->len, (size_t)n) != n)
        die(p->log, "cannot write: %s", strerror(errno));
    for (ssize_t i = 0; i < n; i++) { /* a NUL would hide what follows it */
        if (p->text[p->len + (size_t)i] == '\0')
            p->text[p->len + (size_t)i] = '@';
    }
    p->len += (size_t)n;
    p->text[p->len] = '\0';
}

/* Waits for output until deadline; false when there will be no more by then. */
static bool more(struct play *p, uint64_t deadline)
{
    struct pollfd fd = {.fd = p->out, .events = POLLIN};
    uint64_t now = now_ns();

    if (p->out < 0 || now >= deadline)
        return false;
    if (poll(&fd, 1, (int)((deadline - now) / 1000000u) + 1) > 0)
        take(p);
    return true;
}

static bool said_never(const struct play *p)
{
    for (size_t i = 0; p->text != NULL && i < p->never_count; i++) {
        if (strstr(p->text, p->never[i]) != NULL) {
            printf("  the console says '%s', which it never should\n", p->never[i]);
            return true;
        }
    }
    return false;
}

static bool expect(struct play *p, const char *what, unsigned seconds)
{
    uint64_t deadline = now_ns() + seconds * p->patience * UINT64_C(1000000000);
    const char *hit;

    for (;;) {
        hit = p->text == NULL ? NULL : strstr(p->text + p->seen, what);
        if (hit != NULL) {
            p->seen = (size_t)(hit - p->text) + strlen(what);
            return true;
        }
        if (said_never(p)) /* no use in waiting for anything else */
            return false;
        if (!more(p, deadline)) {
            printf("  did not see '%s' %s\n", what,
                   p->out < 0 ? "before the output ended" : "in time");
            return false;
        }
    }
}

static bool type_bytes(struct play *p, const char *s, size_t len)
{
    while (len > 0) {
        ssize_t n = p->in < 0 ? -1 : write(p->in, s, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            printf("  cannot type: %s\n", strerror(errno));
            return false;
        }
        s += n;
        len -= (size_t)n;
    }
    return true;
}

static bool type_line(struct play *p, const char *text)
{
    char line[1100];
    size_t len = strlen(text);
    bool newline = len < 2 || strcmp(text + len - 2, "\\c") != 0;

    snprintf(line, sizeof(line), "%.*s", (int)(newline ? len : len - 2), text);
    unescape(line);
    return type_bytes(p, line, strlen(line)) && (!newline || type_bytes(p, "\n", 1));
}

static bool check_clock(struct play *p, unsigned seconds)
{
    struct timespec host;
    long long guest;
    size_t from;

    if (!type_line(p, "echo clock=$(date +%s)=") || !expect(p, "\nclock=", DEFAULT_SECONDS))
        return false;
    from = p->seen;
    if (!expect(p, "=", DEFAULT_SECONDS))
        return false;
    clock_gettime(CLOCK_REALTIME, &host);
    guest = strtoll(p->text + from, NULL, 10);
    if (llabs(guest - (long long)host.tv_sec) > (long long)seconds) {
        printf("  the guest's clock says %lld and the host's %lld\n", guest,
               (long long)host.tv_sec);
        return false;
    }
    return true;
}

static bool send_signal(struct play *p, const char *name)
{
    int signo = strcmp(name, "TERM") == 0   ? SIGTERM
                : strcmp(name, "INT") == 0  ? SIGINT
                : strcmp(name, "HUP") == 0  ? SIGHUP
                : strcmp(name, "USR1") == 0 ? SIGUSR1
                                            : 0;

    if (signo == 0)
        die(p->scenario, "unknown signal '%s'", name);
    return kill(p->pid, signo) == 0;
}

/* A line of /proc/PID/status, in KiB. */
static unsigned long memory_kib(pid_t pid, const char *field)
{
    unsigned long value = 0;
    char path[64], line[256];
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    f = fopen(path, "r");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        if (strncmp(line, field, strlen(field)) == 0)
            value = strtoul(line + strlen(field) + 1, NULL, 10);
    }
    if (f != NULL)
        fclose(f);
    return value;
}

/*
 * Resident memory in KiB of all mappings but the largest, which is the guest's memory (as long as
 * the guest has more than the program keeps for itself).
 */
static unsigned long own_memory_kib(pid_t pid)
{
    unsigned long total = 0, largest = 0, guest = 0, size = 0, value;
    char path[64], line[512];
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/smaps", (int)pid);
    f = fopen(path, "r");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL) {
        if (sscanf(line, "Size: %lu", &value) == 1)
            size = value;
        if (sscanf(line, "Rss: %lu", &value) != 1)
            continue;
        total += value;
        if (size > largest) {
            largest = size;
            guest = value;
        }
    }
    if (f != NULL)
        fclose(f);
    return total - guest;
}

static void mark(struct play *p, const char *name)
{
    struct timespec cpu = {0};
    clockid_t clock;

    if (clock_getcpuclockid(p->pid, &clock) == 0)
        clock_gettime(clock, &cpu);
    printf("mark %s %.3f s, %.3f s of CPU, VmHWM %lu KiB, own %lu KiB\n", name, elapsed(p),
           (double)cpu.tv_sec + (double)cpu.tv_nsec / 1e9, memory_kib(p->pid, "VmHWM"),
           own_memory_kib(p->pid));
}

static bool wait_end(struct play *p, unsigned seconds)
{
    uint64_t deadline = now_ns() + seconds * p->patience * UINT64_C(1000000000);

    while (!p->ended) {
        pid_t pid = waitpid(p->pid, &p->wait_status, WNOHANG);

        if (pid == p->pid) {
            p->ended = true;
        } else if (now_ns() >= deadline) {
            printf("  the VM did not end in %u s\n", seconds);
            return false;
        } else if (p->out >= 0) {
            uint64_t soon = now_ns() + 50000000u;

            more(p, soon < deadline ? soon : deadline);
        } else {
            nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        }
    }
    while (p->out >= 0 && more(p, now_ns() + 1000000000u))
        ;
    return true;
}

/* For whoever reads a failure: the VM is gone, and how. */
static void show_end(struct play *p)
{
    if (!p->ended && !wait_end(p, 2))
        return;
    if (WIFSIGNALED(p->wait_status))
        printf("  the VM died of signal %d (%s)\n", WTERMSIG(p->wait_status),
               strsignal(WTERMSIG(p->wait_status)));
    else
        printf("  the VM had ended with status %d\n", WEXITSTATUS(p->wait_status));
}

static bool check_status(struct play *p, unsigned want, unsigned seconds)
{
    if (!wait_end(p, seconds))
        return false;
    if (WIFSIGNALED(p->wait_status))
        return false; /* show_end says which */
    if (!p->qemu && WEXITSTATUS(p->wait_status) != (int)want) {
        printf("  exit status %d instead of %u\n", WEXITSTATUS(p->wait_status), want);
        return false;
    }
    return true;
}

static bool check_says(const struct play *p, const char *text)
{
    char path[1024], line[1024];
    bool found = p->qemu;
    FILE *f;

    snprintf(path, sizeof(path), "%s.stderr", p->log);
    f = fopen(path, "r");
    while (!found && f != NULL && fgets(line, sizeof(line), f) != NULL)
        found = strstr(line, text) != NULL;
    if (f != NULL)
        fclose(f);
    return found;
}

static bool run_on_host(const char *command)
{
    int status;

    fflush(stdout);
    status = system(command);
    if (status == 0)
        return true;
    printf("  the host's command ended with %d: %s\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1,
           command);
    return false;
}

static bool play_line(struct play *p, const struct line *l)
{
    switch (l->kind) {
    case LINE_EXPECT:
        return expect(p, l->text, l->seconds);
    case LINE_SEND:
        return type_line(p, l->text);
    case LINE_CLOCK:
        return check_clock(p, l->seconds);
    case LINE_SIGNAL:
        return send_signal(p, l->text);
    case LINE_MARK:
        mark(p, l->text);
        return true;
    case LINE_STATUS:
        return check_status(p, (unsigned)strtoul(l->text, NULL, 10), l->seconds);
    case LINE_SAYS:
        return check_says(p, l->text);
    case LINE_HOST:
        return run_on_host(l->text);
    }
    return false;
}

static bool play(struct play *p)
{
    for (size_t i = 0; i < p->line_count; i++) {
        const struct line *l = &p->lines[i];

        if (!play_line(p, l)) {
            printf("  that was line %u of the scenario, after %.1f s: %s\n", l->number, elapsed(p),
                   l->text);
            return false;
        }
        if (p->verbose)
            printf("  %7.2f s  line %u: %s\n", elapsed(p), l->number, l->text);
        fflush(stdout);
    }
    return !said_never(p);
}

/* The end of what the guest said and all that the VM said, for whoever reads the failure. */
static void show_log(const struct play *p)
{
    const char *from = p->text == NULL ? "" : p->text + p->len;
    char path[1024], line[512];
    unsigned lines = 0;
    FILE *f;

    while (p->text != NULL && from > p->text && lines < 25)
        lines += *--from == '\n';
    printf("  ---- end of the console (all of it: %s)\n%s\n  ---- standard error\n", p->log, from);
    snprintf(path, sizeof(path), "%s.stderr", p->log);
    f = fopen(path, "r");
    for (lines = 0; f != NULL && lines < 40 && fgets(line, sizeof(line), f) != NULL; lines++)
        fputs(line, stdout);
    if (f != NULL)
        fclose(f);
    puts("  ----");
}

int main(int argc, char **argv)
{
    struct play p = {.program = "build/xhyve",
                     .guests = "build/guest",
                     .log = "boot-console.log",
                     .guest = "cloud",
                     .flags = "-A -m 1G",
                     .boot = "kexec",
                     .patience = 1,
                     .in = -1,
                     .out = -1};
    bool ok;
    int c;

    while ((c = getopt(argc, argv, "vqx:g:l:t:")) != -1) {
        switch (c) {
        case 'v':
            p.verbose = true;
            break;
        case 'q':
            p.qemu = true;
            break;
        case 'x':
            p.program = optarg;
            break;
        case 'g':
            p.guests = optarg;
            break;
        case 'l':
            p.log = optarg;
            break;
        case 't':
            p.patience = (unsigned)strtoul(optarg, NULL, 10);
            if (p.patience == 0)
                die("-t", "how many times as long to wait: a number from 1 on");
            break;
        default:
            return 2;
        }
    }
    if (optind + 1 != argc)
        die("usage",
            "boot-console [-v] [-q] [-x PROGRAM] [-g GUESTS] [-l LOG] [-t PATIENCE] SCENARIO");
    p.scenario = argv[optind];
    read_scenario(&p, p.scenario, 0);
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < p.prepare_count; i++)
        if (!run_on_host(p.prepare[i]))
            return 1;
    start_vm(&p);
    ok = play(&p);
    if (!ok && p.out < 0)
        show_end(&p);
    if (!p.ended) {
        kill(p.pid, SIGKILL);
        waitpid(p.pid, &p.wait_status, 0);
    }
    if (!ok)
        show_log(&p);
    else
        printf("  played in %.1f s\n", elapsed(&p));
    for (size_t i = 0; i < p.line_count; i++)
        free(p.lines[i].text);
    for (size_t i = 0; i < p.never_count; i++)
        free(p.never[i]);
    for (size_t i = 0; i < p.prepare_count; i++)
        free(p.prepare[i]);
    free(p.text);
    return ok ? 0 : 1;
}
