/*
 * Makes the VM from the tree and its control socket, runs it, and hands it the process's signals.
 * The only file of cli/ that knows the VM.
 */
#include "cli/cli.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "ctl/ctl.h"
#include "ctl/place.h"
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

/*
 * Where xhyvectl looks by the VM's name. Without it the VM runs as well; but two VMs of one name
 * would each answer for the other.
 */
static int default_socket(struct vm *vm, const char *name, struct log *log, struct ctl **out,
                          struct error *err)
{
    struct error why = {0};
    char path[256];
    int rc = ctl_place_socket(name, true, path, sizeof(path), &why);

    if (rc == 0)
        rc = ctl_create(vm, path, log, out, &why);
    if (rc == -EBUSY)
        return error_set(err, rc,
                         "a VM named '%s' runs already (%s): give another name, or control=off",
                         name, why.text);
    if (rc < 0)
        log_warn(log, "no control socket, so xhyvectl cannot reach this VM: %s", why.text);
    return 0;
}

static int make_control(const struct config *cfg, bool named, struct vm *vm, struct log *log,
                        struct ctl **out, struct error *err)
{
    const char *path = config_get(cfg, "control");
    int rc;

    if (path == NULL)
        return named ? default_socket(vm, config_get(cfg, "name"), log, out, err) : 0;
    if (strcmp(path, "off") == 0)
        return 0;
    rc = ctl_create(vm, path, log, out, err);
    if (rc < 0)
        error_prefix(err, "control");
    return rc < 0 ? rc : 0;
}

int cli_run_vm(const struct config *cfg, bool named, struct error *err)
{
    struct vm *vm = NULL;
    struct ctl *ctl = NULL;
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
        rc = make_control(cfg, named, vm, log, &ctl, err);
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
    ctl_stop(ctl);
    vm_destroy(vm);
    ctl_destroy(ctl); /* who has ended the VM by it waits for this, to use its disks again */
    term_restore();
    log_destroy(log);
    return rc;
}
