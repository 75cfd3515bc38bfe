/*
 * Makes the VM from the tree, runs it, and hands it the process's signals. The only file of cli/
 * that knows the VM.
 */
#include "cli/cli.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "host/term.h"
#include "vmm/vm.h"

static void on_signal(void *ctx, int signo)
{
    vm_signal(ctx, signo);
}

static int make_log(const struct config *cfg, struct log **out, struct error *err)
{
    const char *level = config_get(cfg, "log.level"), *trace = config_get(cfg, "log.trace");
    enum log_level n = LOG_WARN;
    struct log *log;
    int rc = 0;

    if (level != NULL && log_parse_level(level, &n) < 0)
        return error_set(err, -EINVAL, "log.level: unknown level '%s'", level);
    log = log_create(STDERR_FILENO, n);
    if (log == NULL)
        return error_set(err, -ENOMEM, "no memory for the log");
    if (trace != NULL)
        rc = log_set_trace(log, trace, err);
    if (rc < 0)
        log_destroy(log);
    else
        *out = log;
    return rc;
}

int cli_run_vm(const struct config *cfg, struct error *err)
{
    struct vm *vm = NULL;
    struct log *log = NULL;
    bool stats = false;
    sigset_t all;
    int rc = make_log(cfg, &log, err);

    if (rc < 0)
        return rc;
    rc = config_bool(cfg, "stats", false, &stats, err);
    if (rc == 0)
        rc = vm_create_from_config(cfg, log, &vm, err);
    if (rc == 0)
        rc = term_signals(vm_loop(vm), on_signal, vm, err);
    if (rc < 0)
        goto out;
    sigemptyset(&all); /* main has held them back until now */
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    rc = vm_run(vm);
    if (rc < 0)
        error_set(err, rc, "the VM failed: %s", strerror(-rc));
    term_restore(); /* a terminal in raw mode would show what follows as stairs */
    if (stats)
        vm_print_stats(vm, stderr);
    vm_write_profile(vm);
out:
    vm_destroy(vm);
    term_restore();
    log_destroy(log);
    return rc;
}
