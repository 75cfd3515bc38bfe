/*
 * One script of KVM's calls, run on the fake or on the real device, and compared with what the
 * documentation and the kernel's known behaviour make one expect:
 *
 *     conform fake tests/kvm/conform.expected
 *     conform real tests/kvm/conform.expected     77 if this machine has no usable /dev/kvm
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

#include "fake.h"

static const struct step *const all[] = {system_steps, state_steps, run_steps, event_steps,
                                         mode_steps,   msr_steps,   apic_steps};

/* ---- comparing ---- */

/* The next line that belongs to the step (NULL: any), without its newline; false at the end. */
static bool next_line(FILE *f, const char *only, char *line, size_t size)
{
    while (fgets(line, (int)size, f) != NULL) {
        size_t n = only != NULL ? strlen(only) : 0;

        line[strcspn(line, "\n")] = '\0';
        if (line[0] == '#' || line[0] == '\0')
            continue;
        if (only == NULL || (strncmp(line, only, n) == 0 && line[n] == ':'))
            return true;
    }
    return false;
}

/* "STEP: WHAT", to find the partner of a line where one side has more. */
static bool same_question(const char *a, const char *b)
{
    const char *end = strrchr(a, ':'); /* answers hold no colon */

    return end != NULL && strncmp(a, b, (size_t)(end - a) + 1) == 0;
}

static int compare(FILE *expected, FILE *got, const char *only)
{
    char want[512] = "", is[512] = "";
    bool more_want, more_is;
    int lines = 0, wrong = 0;

    more_want = next_line(expected, only, want, sizeof(want));
    more_is = next_line(got, NULL, is, sizeof(is));
    while (more_want || more_is) {
        bool pair = more_want && more_is && same_question(want, is);

        if (!pair || strcmp(want, is) != 0) {
            wrong++;
            if (more_want)
                printf("expected  %s\n", want);
            if (more_is && (pair || !more_want))
                printf("answered  %s\n", is);
            if (more_want && more_is && !pair)
                printf("answered  something else: %s\n", is);
        }
        lines++;
        if (more_want)
            more_want = next_line(expected, only, want, sizeof(want));
        if (more_is)
            more_is = next_line(got, NULL, is, sizeof(is));
    }
    printf("%d answers, %d not as expected\n", lines, wrong);
    return wrong != 0 || lines == 0;
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
    FILE *expected, *got;
    int rc;

    if (path == NULL) {
        c->out = stdout;
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
    rc = compare(expected, got, only);
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
    c.sys = &conform_host;
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
    rc = check(&c, argc > 2 ? argv[2] : NULL, only);
    c.sys->close(c.sys->ctx, c.kvm);
    kvm_fake_destroy(fake);
    return rc;
}
