/*
 * The program: parses, does what was asked, and is the only place that prints an error: one line,
 * status 4.
 */
#include "cli/cli.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "chardev/chardev.h"
#include "cli/version.h"
#include "vmm/devices.h"

/* Arguments may hold anything; the sentence stays one line and moves no cursor. */
static int print_error(const struct error *err)
{
    char text[sizeof(err->text)];

    snprintf(text, sizeof(text), "%s", err->text);
    for (char *p = text; *p != '\0'; p++) {
        if (iscntrl((unsigned char)*p))
            *p = '?';
    }
    fprintf(stderr, "xhyve: error: %s\n", text);
    return EXIT_ERROR;
}

static int check_file(const struct config *cfg, const char *key, const char *what,
                      struct error *err)
{
    const char *path = config_get(cfg, key);
    struct stat st;

    if (path == NULL)
        return 0;
    if (path[0] == '\0')
        return error_set(err, -EINVAL, "%s is empty", key);
    if (stat(path, &st) < 0 || access(path, R_OK) < 0)
        return error_set(err, -errno, "cannot read the %s %s: %s", what, path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return error_set(err, -EINVAL, "the %s %s is not a file", what, path);
    return 0;
}

/* What can be known to go wrong before anything is made. */
static int check_run(const struct config *cfg, struct error *err)
{
    int rc = vm_check_built(cfg, err);

    if (rc == 0 && config_get(cfg, "boot.method") == NULL)
        rc = error_set(err, -EINVAL,
                       "nothing to boot: add -f kexec,KERNEL[,INITRD[,CMDLINE]], or use xhyve run "
                       "KERNEL");
    if (rc == 0 && config_get(cfg, "boot.kernel") == NULL)
        rc = error_set(err, -EINVAL, "boot.method=%s needs boot.kernel",
                       config_get(cfg, "boot.method"));
    if (rc == 0)
        rc = check_file(cfg, "boot.kernel", "kernel", err);
    if (rc == 0)
        rc = check_file(cfg, "boot.initrd", "initrd", err);
    return rc;
}

static int run(const struct cli *cli)
{
    const char *pidfile = config_get(cli->cfg, "pidfile");
    struct error err = {0};
    sigset_t signals;
    int status = check_run(cli->cfg, &err);

    if (status < 0)
        return print_error(&err);
    /* from here on a signal goes to the VM's own thread for them: the pid file is never left */
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    sigaddset(&signals, SIGUSR1);
    sigaddset(&signals, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    if (pidfile != NULL && cli_pidfile_create(pidfile, &err) < 0)
        return print_error(&err);
    if (cli->line != NULL)
        fprintf(stderr, "%s\n", cli->line);
    status = cli_run_vm(cli->cfg, cli->named, &err);
    if (pidfile != NULL)
        unlink(pidfile);
    return status < 0 ? print_error(&err) : status;
}

static int act(const struct cli *cli)
{
    struct error err = {0};

    switch (cli->action) {
    case CLI_RUN:
        return run(cli);
    case CLI_DUMP:
        if (cli->line != NULL)
            fprintf(stderr, "%s\n", cli->line);
        config_dump(cli->cfg, stdout);
        break;
    case CLI_HELP:
        cli_help(stdout);
        break;
    case CLI_VERSION:
        printf("xhyve %s\n", XHYVE_VERSION);
        break;
    case CLI_SLOT_HELP:
        cli_slot_help(cli->tables, stdout);
        break;
    case CLI_LPC_HELP:
        cli_lpc_help(cli->tables, stdout);
        break;
    case CLI_USAGE:
        cli_usage(stderr);
        return EXIT_ERROR;
    }
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 0;
    error_set(&err, -errno, "cannot write to standard output: %s", strerror(errno));
    return print_error(&err);
}

/*
 * A standard descriptor that the caller has closed would be the next file that we open, and the
 * console's bytes would go into it.
 */
static int open_standard(struct error *err)
{
    int fd;

    do {
        fd = open("/dev/null", O_RDWR);
        if (fd < 0)
            return error_set(err, -errno, "cannot open /dev/null: %s", strerror(errno));
    } while (fd <= STDERR_FILENO);
    close(fd);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct cli_tables tables = {.pci = pci_device_table, .chardevs = chardev_kinds};
    struct error err = {0};
    struct cli cli;
    int status = open_standard(&err);

    if (status < 0)
        return print_error(&err);
    status = cli_parse(&cli, &tables, argc > 0 ? argc - 1 : 0, argv + 1, &err);
    status = status < 0 ? print_error(&err) : act(&cli);
    cli_fini(&cli);
    return status;
}
