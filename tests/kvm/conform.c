/*
 * One script of KVM's calls, run on the fake or on the real device, and compared with what the
 * documentation and the kernel's known behaviour make one expect:
 *
 *     conform fake tests/kvm/conform.expected
 *     conform real tests/kvm/conform.expected     77 if this machine has no usable /dev/kvm, or one
 *                                                 that emulates (the engine's own trial says so)
 *     conform fake                                prints the answers
 *
 * A line that differs is printed with the one expected. --only NAME runs one step (and compares
 * with that step's lines).
 */
#include "conform.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/kvm/internal.h"
#include "fake.h"

static const struct step *const all[] = {system_steps, state_steps, run_steps, event_steps,
                                         mode_steps,   msr_steps,   apic_steps};

/* ---- comparing ---- */

struct lines {
    char *text[1024];
    unsigned count;
};

/* Those that belong to the step (NULL: all), without comments. */
static void read_lines(FILE *f, const char *only, struct lines *out)
{
    size_t n = only != NULL ? strlen(only) : 0;
    char line[512];

    out->count = 0;
    while (out->count < countof(out->text) && fgets(line, sizeof(line), f) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (line[0] == '#' || line[0] == '\0')
            continue;
        if (only != NULL && (strncmp(line, only, n) != 0 || line[n] != ':'))
            continue;
        out->text[out->count] = strdup(line);
        if (out->text[out->count] == NULL)
            return;
        out->count++;
    }
}

static void free_lines(struct lines *l)
{
    for (unsigned i = 0; i < l->count; i++)
        free(l->text[i]);
}

/* "STEP: WHAT" is the same: answers hold no colon. */
static bool same_question(const char *a, const char *b)
{
    const char *end = strrchr(a, ':');

    return end != NULL && strncmp(a, b, (size_t)(end - a) + 1) == 0 &&
           strrchr(b, ':') == b + (end - a);
}

/* Where the question of `line` is, from `at` on; the count if nowhere. */
static unsigned find_question(const struct lines *l, unsigned at, const char *line)
{
    while (at < l->count && !same_question(l->text[at], line))
        at++;
    return at;
}

static int compare(const struct lines *want, const struct lines *is)
{
    unsigned i = 0, k = 0, wrong = 0;
    bool extra;

    while (i < want->count || k < is->count) {
        if (i < want->count && k < is->count && same_question(want->text[i], is->text[k])) {
            if (strcmp(want->text[i], is->text[k]) != 0) {
                printf("expected  %s\nanswered  %s\n", want->text[i], is->text[k]);
                wrong++;
            }
            i++;
            k++;
            continue;
        }
        wrong++;
        extra = i == want->count ||
                (k < is->count && find_question(want, i, is->text[k]) == want->count);
        if (extra)
            printf("not expected  %s\n", is->text[k++]);
        else
            printf("not answered  %s\n", want->text[i++]);
    }
    printf("%u answers, %u not as expected\n", is->count, wrong);
    return wrong != 0 || is->count == 0;
}

/* ---- the script ---- */

#define STEP_SECONDS 30 /* an emulated host may be slow; a vCPU that sleeps for ever is not */

static const char *volatile running; /* for the signal's handler */

static void hangs(int sig)
{
    static const char text[] = "conform: this step does not end: ";
    const char *step = running;

    (void)sig;
    if (write(2, text, sizeof(text) - 1) < 0 || write(2, step, strlen(step)) < 0 ||
        write(2, "\n", 1) < 0)
        _exit(2);
    _exit(1);
}

static void run_all(struct conform *c, const char *only)
{
    for (unsigned i = 0; i < countof(all); i++) {
        for (const struct step *s = all[i]; s->name != NULL; s++) {
            if (only != NULL && strcmp(only, s->name) != 0)
                continue;
            running = c->step = s->name;
            alarm(STEP_SECONDS);
            s->run(c);
        }
    }
    alarm(0);
}

static int check(struct conform *c, const char *path, const char *only)
{
    struct lines want, is;
    FILE *expected, *got;
    int rc;

    if (path == NULL) {
        c->out = stdout;
        setvbuf(stdout, NULL, _IOLBF, 0); /* one sees where it hangs */
        run_all(c, only);
        return 0;
    }
    expected = fopen(path, "r");
    got = tmpfile();
    if (expected == NULL || got == NULL) {
        fprintf(stderr, "conform: %s: %s\n", expected == NULL ? path : "a temporary file",
                strerror(errno));
        return 2;
    }
    c->out = got;
    run_all(c, only);
    rewind(got);
    read_lines(expected, only, &want);
    read_lines(got, NULL, &is);
    rc = compare(&want, &is);
    free_lines(&want);
    free_lines(&is);
    fclose(got);
    fclose(expected);
    return rc;
}

int main(int argc, char **argv)
{
    struct conform c = {.out = stdout};
    struct kvm_fake *fake = NULL;
    const char *only = NULL;
    int rc;

    if (argc > 2 && strcmp(argv[1], "--only") == 0) {
        only = argv[2];
        argc -= 2;
        argv += 2;
    }
    if (argc < 2 || argc > 3 || (strcmp(argv[1], "fake") != 0 && strcmp(argv[1], "real") != 0)) {
        fputs("usage: conform [--only STEP] fake|real [EXPECTED]\n", stderr);
        return 2;
    }
    signal(SIGALRM, hangs);
    c.sys = &kvm_sys_host;
    if (strcmp(argv[1], "fake") == 0) {
        fake = kvm_fake_create(NULL);
        if (fake == NULL)
            return 2;
        c.sys = kvm_fake_sys(fake);
    }
    c.kvm = c.sys->open(c.sys->ctx, "/dev/kvm");
    if (c.kvm < 0) {
        printf("skipped: /dev/kvm cannot be opened: %s\n", strerror(-c.kvm));
        kvm_fake_destroy(fake);
        return 77;
    }
    if (fake == NULL && argc > 2 && kvm_probe_speed(c.sys, c.kvm, NULL) < 0) {
        printf(
            "skipped: this KVM emulates, and answers in its own ways; without %s all is printed\n",
            argv[2]);
        c.sys->close(c.sys->ctx, c.kvm);
        return 77;
    }
    rc = check(&c, argc > 2 ? argv[2] : NULL, only);
    c.sys->close(c.sys->ctx, c.kvm);
    kvm_fake_destroy(fake);
    return rc;
}
