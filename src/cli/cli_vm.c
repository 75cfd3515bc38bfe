/*
 * Makes the VM from the tree, runs it, and hands it the process's signals. The only file of cli/
 * that knows the VM.
 */
#include "cli/cli.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "vmm/vm.h"

/*
 * SIGTERM, SIGINT and SIGHUP are blocked in every thread and taken here one by one, where any
 * function may be called.
 */
struct signals {
    struct vm *vm;
    pthread_t thread;
    atomic_bool done; /* set before SIGTERM is sent to the thread to wake it for the end */
};

static void *signals_thread(void *ctx)
{
    struct signals *s = ctx;
    sigset_t set;
    int signo;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    while (sigwait(&set, &signo) == 0 && !atomic_load(&s->done))
        vm_signal(s->vm, signo);
    return NULL;
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
    struct signals s = {0};
    struct log *log = NULL;
    int rc = make_log(cfg, &log, err);

    if (rc < 0)
        return rc;
    rc = vm_create_from_config(cfg, log, &s.vm, err);
    if (rc < 0)
        goto out;
    rc = pthread_create(&s.thread, NULL, signals_thread, &s);
    if (rc != 0) {
        rc = error_set(err, -rc, "cannot start a thread for signals: %s", strerror(rc));
        goto out;
    }
    rc = vm_run(s.vm);
    atomic_store(&s.done, true);
    pthread_kill(s.thread, SIGTERM);
    pthread_join(s.thread, NULL);
    if (rc < 0)
        error_set(err, rc, "the VM failed: %s", strerror(-rc));
out:
    vm_destroy(s.vm);
    log_destroy(log);
    return rc;
}
