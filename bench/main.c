/*
 *     xbench NAME [SCALE]     runs a program, prints "NAME CHECKSUM SECONDS USER SYSTEM"
 *     xbench names            prints names and groups
 *     xbench check            one round of each: are the checksums those of the table?
 *     xbench true             does nothing: what the program "exec" executes
 *
 * SECONDS is time on the wall of the rounds, USER and SYSTEM what the kernel counts for them,
 * children included. A wrong checksum is status 1.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "xbench.h"

const char *self_path;

void need(int ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "xbench: %s: %s\n", what, strerror(errno));
    exit(2);
}

void *need_memory(size_t size)
{
    void *p = aligned_alloc(4096, (size + 4095) & ~(size_t)4095);

    need(p != NULL, "memory");
    memset(p, 0, size);
    return p;
}

void make_text(char *text, size_t size)
{
    static const char *const words[] = {
        "the",  "guest",  "memory", "of",    "a",      "page",   "is",    "read",  "by",
        "disk", "clock",  "and",    "timer", "to",     "device", "write", "queue", "interrupt",
        "in",   "vector", "for",    "block", "kernel", "that",   "from",  "frame",
    };
    uint32_t seed = 12345;
    size_t at = 0;

    while (at < size) {
        uint32_t r = next_random(&seed);
        char word[32];
        size_t len;

        if (r % 11 == 0)
            len = (size_t)snprintf(word, sizeof(word), "%u\n", (r >> 8) % 100000);
        else if (r % 5 == 0)
            len = (size_t)snprintf(word, sizeof(word), "x%x ", (r >> 8) & 0xffff);
        else
            len = (size_t)snprintf(word, sizeof(word), "%s ",
                                   words[(r >> 8) % (sizeof(words) / sizeof(words[0]))]);
        for (size_t i = 0; i < len && at < size; i++)
            text[at++] = word[i];
    }
    text[size - 1] = '\0';
}

static double seconds(struct timespec t)
{
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double wall(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return seconds(t);
}

static void cpu(double *user, double *system)
{
    struct rusage self, children;

    getrusage(RUSAGE_SELF, &self);
    getrusage(RUSAGE_CHILDREN, &children);
    *user = (double)(self.ru_utime.tv_sec + children.ru_utime.tv_sec) +
            (double)(self.ru_utime.tv_usec + children.ru_utime.tv_usec) / 1e6;
    *system = (double)(self.ru_stime.tv_sec + children.ru_stime.tv_sec) +
              (double)(self.ru_stime.tv_usec + children.ru_stime.tv_usec) / 1e6;
}

/* Runs rounds of a program; false if one of them came out wrong. */
static bool run(const struct program *p, unsigned rounds)
{
    const char *unfit = p->unfit == NULL ? NULL : p->unfit();
    double start, took, user[2], system[2];
    uint64_t sum = p->sum;
    unsigned done = 0;

    if (unfit != NULL) {
        printf("%s skipped: %s\n", p->name, unfit);
        return true;
    }
    if (p->setup != NULL)
        p->setup();
    cpu(&user[0], &system[0]);
    start = wall();
    while (done < rounds && sum == p->sum) {
        BARRIER();
        sum = p->round();
        done++;
    }
    took = wall() - start;
    cpu(&user[1], &system[1]);
    printf("%s %016" PRIx64 " %.6f %.3f %.3f\n", p->name, sum, took, user[1] - user[0],
           system[1] - system[0]);
    fflush(stdout);
    if (sum == p->sum)
        return true;
    printf("%s wrong: round %u of %u should have come to %016" PRIx64 "\n", p->name, done, rounds,
           p->sum);
    return false;
}

static int usage(void)
{
    fputs("usage: xbench NAME [SCALE] | names | check | true\n", stderr);
    return 2;
}

int main(int argc, char **argv)
{
    bool check, ok = true, found = false;
    double scale = 1;

    if (argc == 2 && strcmp(argv[1], "true") == 0)
        return 0;
    if (argc < 2 || argc > 3)
        return usage();
    self_path = argv[0];
    check = strcmp(argv[1], "check") == 0;
    if (argc == 3) {
        char *end;

        scale = strtod(argv[2], &end);
        if (end == argv[2] || *end != '\0' || !(scale >= 0 && scale <= 1000))
            return usage();
    }
    for (size_t i = 0; i < program_count; i++) {
        const struct program *p = &programs[i];
        double rounds = (double)p->rounds * scale;

        if (strcmp(argv[1], "names") == 0)
            printf("%s %s\n", p->name, p->group);
        else if (check)
            ok = run(p, 1) && ok;
        else if (strcmp(argv[1], p->name) == 0)
            ok = run(p, rounds < 1 ? 1 : (unsigned)rounds);
        else
            continue;
        found = true;
    }
    return !found ? usage() : ok ? 0 : 1;
}
