/*
 * Runs a VM with its console on pipes, and says on the host's clock what happens when:
 *
 *     bench-watch [-t SECONDS] [-m MIB] [-l LOG] [-w NAME=TEXT [-s LINE]]... -- PROGRAM ARGUMENT...
 *
 * Every line of the console is printed behind the seconds since PROGRAM was started:
 *     1.234567 LINE
 * -w waits for TEXT, which need not end a line, and prints
 *     1.234567 @NAME cpu SECONDS own KIB peak KIB
 * then -s types LINE. The next -w counts from there. At the end comes
 *     1.234567 @exit STATUS cpu SECONDS
 * where a STATUS above 255 is 256 and the signal's number.
 *
 * cpu is CPU time of all threads, own the proportional set size without the guest's memory of MIB
 * (-1 if no mappings of that size are there), peak VmHWM. Taking them costs the VM a pause at most,
 * and the time that it took is not counted. What the console says goes to LOG too, standard error
 * to LOG.stderr. After SECONDS the VM is killed and the status is 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_WAITS 16
#define MAX_MAPPINGS 8192
#define LINE_ROOM 4096

struct wait {
    char *name, *text;
    const char *line; /* NULL: types nothing */
};

struct watch {
    struct wait waits[MAX_WAITS];
    size_t wait_count, wait_at;
    unsigned long ram_mib;
    double started, lost; /* lost: spent on measuring */
    pid_t pid;
    int in, out, log;
    char line[LINE_ROOM]; /* what has come of a line, NUL-terminated */
    size_t len, seen;     /* seen: no match begins before it */
};

static void die(const char *what)
{
    fprintf(stderr, "bench-watch: %s: %s\n", what, strerror(errno));
    exit(2);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double elapsed(const struct watch *w)
{
    return now() - w->started - w->lost;
}

/* ---- what the VM costs ---- */

struct mapping {
    unsigned long from, to, pss_kib;
    bool executable;
};

/* Resident pages of a range, in KiB. */
static unsigned long present_kib(pid_t pid, unsigned long from, unsigned long to)
{
    unsigned long count = 0;
    char path[64];
    uint64_t entry;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)pid);
    f = fopen(path, "r");
    if (f == NULL)
        return 0;
    if (fseek(f, (long)(from / 4096 * sizeof(entry)), SEEK_SET) == 0) {
        for (; from < to && fread(&entry, sizeof(entry), 1, f) == 1; from += 4096)
            count += entry >> 63;
    }
    fclose(f);
    return count * 4;
}

/*
 * What the guest's memory has of the set: neighbours that are together of its size, as a VM may
 * protect pages of it and so split the mapping. Code buffers can be as large, so none is
 * executable. Where the host has merged it with other memory, its bounds are not known: then the
 * greater of what can be beside it counts as not the guest's.
 */
static long ram_pss_kib(pid_t pid, const struct mapping *map, size_t count, unsigned long size)
{
    long exact = -1, merged = -1;

    for (size_t i = 0; i < count; i++) {
        unsigned long pss = 0, from = map[i].from;

        for (size_t j = i; j < count && !map[j].executable; j++) {
            unsigned long to = map[j].to, below, above;

            if (j > i && map[j].from != map[j - 1].to)
                break;
            pss += map[j].pss_kib;
            if (to - from < size)
                continue;
            if (to - from == size) {
                exact = (long)pss > exact ? (long)pss : exact;
            } else {
                below = present_kib(pid, from, to - size);
                above = present_kib(pid, from + size, to);
                pss -= below > above ? below : above;
                merged = (long)pss > merged ? (long)pss : merged;
            }
            break;
        }
    }
    return exact >= 0 ? exact : merged;
}

static long own_kib(const struct watch *w)
{
    static struct mapping map[MAX_MAPPINGS];
    unsigned long from, to, value, total = 0;
    char path[64], line[512], rights[8];
    size_t count = 0;
    long ram;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/smaps", (int)w->pid);
    f = fopen(path, "r");
    if (f == NULL)
        return -1;
    while (fgets(line, sizeof(line), f) != NULL) {
        if (sscanf(line, "%lx-%lx %4s", &from, &to, rights) == 3 && count < MAX_MAPPINGS) {
            map[count++] = (struct mapping){from, to, 0, strchr(rights, 'x') != NULL};
        } else if (count > 0 && sscanf(line, "Pss: %lu", &value) == 1) {
            map[count - 1].pss_kib = value;
            total += value;
        }
    }
    fclose(f);
    ram = ram_pss_kib(w->pid, map, count, w->ram_mib << 20);
    return ram < 0 ? -1 : (long)total - ram;
}

static unsigned long peak_kib(const struct watch *w)
{
    unsigned long value = 0;
    char path[64], line[256];
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)w->pid);
    f = fopen(path, "r");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL)
        sscanf(line, "VmHWM: %lu", &value);
    if (f != NULL)
        fclose(f);
    return value;
}

static double cpu_seconds(const struct watch *w)
{
    struct timespec t = {0};
    clockid_t clock;

    if (clock_getcpuclockid(w->pid, &clock) == 0)
        clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* ---- the console ---- */

static void type(const struct watch *w, const char *line)
{
    char text[1024];
    int len = snprintf(text, sizeof(text), "%s\n", line);

    if (write(w->in, text, (size_t)len) != len)
        fprintf(stderr, "bench-watch: cannot type '%s'\n", line);
}

static void match(struct watch *w)
{
    while (w->wait_at < w->wait_count) {
        const struct wait *wait = &w->waits[w->wait_at];
        char *hit = strstr(w->line + w->seen, wait->text);
        double at = elapsed(w), before = now();

        if (hit == NULL)
            return;
        w->seen = (size_t)(hit - w->line) + strlen(wait->text);
        w->wait_at++;
        printf("%.6f @%s cpu %.3f own %ld peak %lu\n", at, wait->name, cpu_seconds(w), own_kib(w),
               peak_kib(w));
        fflush(stdout);
        w->lost += now() - before;
        if (wait->line != NULL)
            type(w, wait->line);
    }
}

static void take_byte(struct watch *w, char c)
{
    if (c != '\n' && w->len < LINE_ROOM - 1) {
        if (c != '\r' && c != '\0') {
            w->line[w->len++] = c;
            w->line[w->len] = '\0';
        }
        return;
    }
    match(w);
    printf("%.6f %s\n", elapsed(w), w->line);
    fflush(stdout);
    w->len = w->seen = 0;
    w->line[0] = '\0';
}

/* False once the console is closed. */
static bool take(struct watch *w)
{
    char text[16384];
    ssize_t n = read(w->out, text, sizeof(text));

    if (n < 0 && errno == EINTR)
        return true;
    if (n <= 0)
        return false;
    if (w->log >= 0 && write(w->log, text, (size_t)n) != n)
        die("the log");
    for (ssize_t i = 0; i < n; i++)
        take_byte(w, text[i]);
    match(w);
    return true;
}

static void start(struct watch *w, const char *log, char **argv)
{
    int to[2], from[2], errors = -1;
    char path[1024];

    if (log != NULL) {
        snprintf(path, sizeof(path), "%s.stderr", log);
        errors = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        w->log = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (errors < 0 || w->log < 0)
            die(log);
    }
    if (pipe2(to, O_CLOEXEC) < 0 || pipe2(from, O_CLOEXEC) < 0)
        die("pipe");
    w->started = now();
    w->pid = fork();
    if (w->pid < 0)
        die("fork");
    if (w->pid == 0) {
        setsid(); /* a Ctrl-C is for the script */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(to[0], 0);
        dup2(from[1], 1);
        if (errors >= 0)
            dup2(errors, 2);
        execvp(argv[0], argv);
        fprintf(stderr, "bench-watch: cannot run %s: %s\n", argv[0], strerror(errno));
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    if (errors >= 0)
        close(errors);
    w->in = to[1];
    w->out = from[0];
}

/* Until the VM has ended; false if it was killed for taking too long. */
static bool attend(struct watch *w, double limit)
{
    struct pollfd fd = {.fd = w->out, .events = POLLIN};

    for (;;) {
        double left = w->started + limit - now();

        if (left <= 0) {
            fprintf(stderr, "bench-watch: not done in %.0f s\n", limit);
            kill(w->pid, SIGKILL);
            return false;
        }
        if (poll(&fd, 1, left > 1 ? 1000 : (int)(left * 1000) + 1) > 0 && !take(w))
            return true;
    }
}

/* The console closes when the VM ends, or just before; one that stays is killed. */
static int reap(const struct watch *w, struct rusage *usage)
{
    int status;

    for (unsigned i = 0; i < 10000; i++) { /* a millisecond: times at the end are that good */
        if (wait4(w->pid, &status, WNOHANG, usage) == w->pid)
            return status;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    kill(w->pid, SIGKILL);
    if (wait4(w->pid, &status, 0, usage) != w->pid)
        die("wait");
    return status;
}

static void parse(struct watch *w, int option, char *value)
{
    char *equals = strchr(value, '=');

    if (option == 's' && w->wait_count > 0) {
        w->waits[w->wait_count - 1].line = value;
        return;
    }
    if (equals == NULL || w->wait_count == MAX_WAITS) {
        fputs("bench-watch: -w NAME=TEXT, at most 16 of them, then -s LINE\n", stderr);
        exit(2);
    }
    *equals = '\0';
    w->waits[w->wait_count++] = (struct wait){value, equals + 1, NULL};
}

int main(int argc, char **argv)
{
    struct watch w = {.ram_mib = 1024, .log = -1};
    const char *log = NULL;
    double limit = 600, at, cpu;
    struct rusage usage;
    bool in_time;
    int c, status;

    while ((c = getopt(argc, argv, "+t:m:l:w:s:")) != -1) {
        if (c == 't')
            limit = strtod(optarg, NULL);
        else if (c == 'm')
            w.ram_mib = strtoul(optarg, NULL, 10);
        else if (c == 'l')
            log = optarg;
        else if (c == 'w' || c == 's')
            parse(&w, c, optarg);
        else
            return 2;
    }
    if (optind >= argc) {
        fputs("usage: bench-watch [OPTIONS] -- PROGRAM ARGUMENT...\n", stderr);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    start(&w, log, argv + optind);
    in_time = attend(&w, limit);
    status = reap(&w, &usage);
    at = elapsed(&w);
    cpu = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
          (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    printf("%.6f @exit %d cpu %.3f\n", at,
           WIFSIGNALED(status) ? 256 + WTERMSIG(status) : WEXITSTATUS(status), cpu);
    return in_time ? 0 : 1;
}
