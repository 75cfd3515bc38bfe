/*
 * One script of KVM's calls, run on the fake or on the real device, and compared with what the
 * documentation and the kernel's known behaviour make one expect:
 *
 *     conform fake tests/kvm/conform.expected
 *     conform real tests/kvm/conform.expected tests/kvm/conform.emulates
 *                                        77 if this machine has no usable /dev/kvm
 *     conform file ANSWERS EXPECTED      answers that were written down
 *     conform fake                       prints the answers
 *
 * A line that differs is printed with the one expected. The last file counts only on a KVM that
 * emulates (the engine's own trial says so): it lists what such a one may answer in the place of
 * what is expected. --only NAME runs one step (and compares with that step's lines).
 */
#include "conform.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/kvm/internal.h"
#include "fake.h"

static const struct step *const all[] = {system_steps, state_steps, run_steps, event_steps,
                                         mode_steps,   msr_steps,   apic_steps};

/* ---- the script ---- */

#define STEP_SECONDS 20 /* an emulated host may be slow; a vCPU that sleeps for ever is not */

/* A process for each step: one that does not end, or dies, takes no other with it. */
static void run_step(struct conform *c, const struct step *s)
{
    int status = 0;
    pid_t pid;

    c->step = s->name;
    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        alarm(STEP_SECONDS);
        s->run(c);
        exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        fprintf(c->out, "%s: no process for it\n", s->name);
    else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM)
        fprintf(c->out, "%s: does not end\n", s->name);
    else if (status != 0)
        fprintf(c->out, "%s: dies\n", s->name);
}

static void run_all(struct conform *c, const char *only)
{
    setvbuf(c->out, NULL, _IOLBF, 0); /* one sees where it hangs, and nothing is lost there */
    for (unsigned i = 0; i < countof(all); i++) {
        for (const struct step *s = all[i]; s->name != NULL; s++) {
            if (only == NULL || strcmp(only, s->name) == 0)
                run_step(c, s);
        }
    }
}

/* may: NULL, or the file of answers that may differ. */
static int check(struct conform *c, const char *only, const char *expected, const char *may)
{
    int rc;

    if (expected == NULL) {
        c->out = stdout;
        run_all(c, only);
        return 0;
    }
    c->out = tmpfile();
    if (c->out == NULL) {
        fprintf(stderr, "conform: a temporary file: %s\n", strerror(errno));
        return 2;
    }
    run_all(c, only);
    rewind(c->out);
    rc = conform_compare(c->out, only, expected, may);
    fclose(c->out);
    return rc;
}

static int on_fake(const char *only, const char *expected)
{
    struct kvm_fake *fake = kvm_fake_create(NULL);
    struct conform c = {0};
    int rc = 2;

    if (fake == NULL)
        return rc;
    c.sys = kvm_fake_sys(fake);
    c.kvm = c.sys->open(c.sys->ctx, KVM_DEVICE);
    if (c.kvm >= 0) {
        rc = check(&c, only, expected, NULL);
        c.sys->close(c.sys->ctx, c.kvm);
    }
    kvm_fake_destroy(fake);
    return rc;
}

static int on_real(const char *only, const char *expected, const char *emulates)
{
    struct conform c = {.sys = &kvm_sys_host};
    bool slow;
    int rc = 77;

    c.kvm = c.sys->open(c.sys->ctx, KVM_DEVICE);
    if (c.kvm < 0) {
        printf("skipped: /dev/kvm cannot be opened: %s\n", strerror(-c.kvm));
        return rc;
    }
    slow = expected != NULL && kvm_probe_speed(c.sys, c.kvm, NULL) < 0;
    if (slow && emulates == NULL)
        printf("skipped: this KVM emulates, and no file says what it may answer otherwise\n");
    else
        rc = check(&c, only, expected, slow ? emulates : NULL);
    c.sys->close(c.sys->ctx, c.kvm);
    return rc;
}

/* Answers that were written down. */
static int on_file(const char *path, const char *only, const char *expected, const char *may)
{
    FILE *f = fopen(path, "r");
    int rc;

    if (f == NULL) {
        fprintf(stderr, "conform: %s: %s\n", path, strerror(errno));
        return 2;
    }
    rc = conform_compare(f, only, expected, may);
    fclose(f);
    return rc;
}

int main(int argc, char **argv)
{
    const char *only = NULL;

    if (argc > 2 && strcmp(argv[1], "--only") == 0) {
        only = argv[2];
        argc -= 2;
        argv += 2;
    }
    /* argv ends with NULL, and so do the files that are not given */
    if (argc >= 2 && argc <= 3 && strcmp(argv[1], "fake") == 0)
        return on_fake(only, argv[2]);
    if (argc >= 2 && argc <= 4 && strcmp(argv[1], "real") == 0)
        return on_real(only, argv[2], argc > 3 ? argv[3] : NULL);
    if (argc >= 4 && argc <= 5 && strcmp(argv[1], "file") == 0)
        return on_file(argv[2], only, argv[3], argv[4]);
    fputs("usage: conform [--only STEP] fake [EXPECTED]\n"
          "       conform [--only STEP] real [EXPECTED [EMULATES]]\n"
          "       conform [--only STEP] file ANSWERS EXPECTED [EMULATES]\n",
          stderr);
    return 2;
}
