/*
 * The command line: arguments → configuration tree → VM. What the arguments mean is decided without
 * running anything (cli_parse), so that tests can look at the tree. One thread.
 */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "base/config.h"
#include "base/error.h"
#include "pci/pci.h"

/* Exit statuses, bhyve's. */
enum {
    EXIT_REBOOT = 0,
    EXIT_POWEROFF = 1,
    EXIT_HALT = 2,
    EXIT_TRIPLE_FAULT = 3,
    EXIT_ERROR = 4,
    EXIT_SUSPENDED = 5,
};

/* What the VM can be made of; tests bring their own. */
struct cli_tables {
    const struct pci_ops *const *pci; /* NULL-terminated */
    const char *const *chardevs;      /* name, what, ..., NULL; NULL: not known */
};

enum cli_action {
    CLI_RUN,
    CLI_DUMP, /* -o config.dump=1 */
    CLI_HELP,
    CLI_VERSION,
    CLI_SLOT_HELP, /* -s help */
    CLI_LPC_HELP,  /* -l help */
    CLI_USAGE,     /* no arguments at all: an error, and a hint */
};

struct cli {
    const struct cli_tables *tables;
    enum cli_action action;
    struct config *raw; /* as given */
    struct config *cfg; /* defaults added, %(key) expanded, checked */
    const char *name;   /* --name, or the last word */
    bool named;         /* somebody has named the VM: it has a control socket by default */
    char *line;         /* of "xhyve run": the full line it stands for */
    char **words;       /* arguments that are not flags; pointers into argv */
    size_t word_count;
    char **rest; /* what follows "--" */
    size_t rest_count;
};

/*
 * argv without the program's name. 0, or -errno and a sentence. Fills *cli, which wants cli_fini
 * either way. Reads the files of -k, and of "run" the kernel, to
 * know its kind; touches nothing else.
 */
int cli_parse(struct cli *cli, const struct cli_tables *tables, int argc, char **argv,
              struct error *err);
void cli_fini(struct cli *cli);

/* ---- parts of cli_parse ---- */

struct cli_flag {
    char letter;      /* 0: only long */
    const char *name; /* long form */
    const char *arg;  /* NULL: takes none */
    const char *help;
    int (*set)(struct cli *cli, const struct cli_flag *flag, const char *arg, struct error *err);
    const char *key;   /* of the configuration, for flags that only set one */
    const char *value; /* where the flag has no argument */
};
extern const struct cli_flag cli_flags[];
extern const size_t cli_flag_count;

/* Flags and words of argv into cli->raw, words, rest. */
int cli_parse_flags(struct cli *cli, int argc, char **argv, struct error *err);

int cli_slot(struct cli *cli, const struct cli_flag *f, const char *arg, struct error *err);
int cli_lpc(struct cli *cli, const struct cli_flag *f, const char *arg, struct error *err);
int cli_config_file(struct cli *cli, const struct cli_flag *f, const char *arg, struct error *err);
int cli_config_set(struct cli *cli, const struct cli_flag *f, const char *arg, struct error *err);

/* The LPC bridge's devices, for "-l help" and for the check of the tree. */
struct cli_lpc_device {
    const char *name, *summary;
    const struct dev_option *options;
    size_t option_count;
};
extern const struct cli_lpc_device cli_lpc_devices[];
extern const size_t cli_lpc_device_count;

/* The tree after expansion: every key known, each value of its type, the whole consistent. */
int cli_check(const struct config *cfg, const struct cli_tables *tables, struct error *err);

/*
 * -m's rules: suffixes k m g t, a bare number below 1 MiB means MiB; not 0, whole pages. The text
 * to store goes to `to`.
 */
int cli_memory(const char *text, char *to, size_t room, struct error *err);

/*
 * True for a key that means nothing to xhyve but that a value refers to, "%(key)": a user's
 * variable. raw is the tree before expansion.
 */
bool cli_is_variable(const struct config *raw, const char *key);

/* "xhyve run": argv of the full line for the words after "run". Strings and array are malloced. */
int cli_run_expand(const struct cli_tables *tables, int argc, char **argv, char ***out,
                   size_t *count, struct error *err);
/* The line as a shell would have to read it; malloced, NULL without memory. */
char *cli_shell_line(char *const *argv, size_t count);

/* ---- the edge ---- */

void cli_help(FILE *to);
void cli_usage(FILE *to);
void cli_slot_help(const struct cli_tables *tables, FILE *to);
void cli_lpc_help(const struct cli_tables *tables, FILE *to);

/* Creates the file exclusively with this process's id. */
int cli_pidfile_create(const char *path, struct error *err);

/*
 * Makes and runs the VM; its exit status, or -errno and a sentence. named: it has a control socket
 * where xhyvectl looks for it, unless the key "control" says otherwise.
 */
int cli_run_vm(const struct config *cfg, bool named, struct error *err);

#endif
