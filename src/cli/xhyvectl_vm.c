/* xhyvectl vm NAME COMMAND, and bhyvectl's spelling of it: what is asked of one VM. */
#include "cli/xhyvectl.h"

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/config.h"
#include "ctl/client.h"
#include "ctl/place.h"

#define ANSWER_MS 10000
#define ARGS_MAX 2

struct arguments {
    const char *name, *socket; /* which VM: one of them */
    const struct command *command;
    const char *arg[ARGS_MAX];
    int count;
    bool force;
};

struct command {
    const char *name, *usage, *text;
    int args;
    bool may_force;
    int (*run)(struct ctl_client *c, const struct arguments *a, struct error *err);
};

/* ---- commands ---- */

static int ask_plainly(struct ctl_client *c, const struct arguments *a, struct error *err)
{
    return ctl_client_ask(c, &a->command->name, 1, NULL, NULL, err);
}

/* And waits until its disks can be used again. */
static int ask_for_end(struct ctl_client *c, const struct arguments *a, struct error *err)
{
    int rc = ask_plainly(c, a, err);

    if (rc < 0)
        return rc;
    ctl_client_renew(c, ANSWER_MS);
    if (ctl_client_wait_end(c) == 0)
        return 0;
    return error_set(err, -ETIMEDOUT,
                     "the VM was told to end and has not within %d seconds; its process may wait "
                     "for a disk",
                     ANSWER_MS / 1000);
}

static void print_line(void *ctx, char *const *words, int count)
{
    char text[64];

    (void)ctx;
    if (count == 2 && strcmp(words[0], "memory") == 0) {
        ctl_memory_text(words[1], text, sizeof(text));
        printf("memory: %s\n", text);
        return;
    }
    if (count == 2 && strcmp(words[0], "uptime_ns") == 0) {
        ctl_uptime_text(words[1], text, sizeof(text));
        printf("uptime: %s\n", text);
        return;
    }
    printf("%s:", words[0]);
    for (int i = 1; i < count; i++) {
        putchar(' ');
        for (const char *p = words[i]; *p != '\0'; p++)
            putchar(iscntrl((unsigned char)*p) ? '?' : *p);
    }
    putchar('\n');
}

static int ask_status(struct ctl_client *c, const struct arguments *a, struct error *err)
{
    int rc = ctl_client_ask(c, &a->command->name, 1, print_line, NULL, err);

    if (rc == 0 && fflush(stdout) != 0)
        rc = error_set(err, -errno, "cannot write to standard output: %s", strerror(errno));
    return rc;
}

struct engine {
    char name[32];
    uint64_t changes, failed;
};

static void engine_word(void *ctx, char *const *words, int count)
{
    struct engine *e = ctx;

    if (count != 2)
        return;
    if (strcmp(words[0], "engine") == 0)
        snprintf(e->name, sizeof(e->name), "%.31s", words[1]);
    else if (strcmp(words[0], "engine_changes") == 0)
        (void)parse_u64(words[1], &e->changes);
    else if (strcmp(words[0], "engine_changes_failed") == 0)
        (void)parse_u64(words[1], &e->failed);
}

/* The VM only takes note of the wish; its counts say what became of it. */
static int ask_engine(struct ctl_client *c, const struct arguments *a, struct error *err)
{
    static const char *const status[] = {"status"};
    struct engine before = {0}, now = {0};
    int rc = ctl_client_ask(c, status, 1, engine_word, &before, err);

    if (rc == 0)
        rc = ask_plainly(c, a, err);
    while (rc == 0) {
        rc = ctl_client_ask(c, status, 1, engine_word, &now, err);
        if (rc == 0 && now.failed != before.failed)
            return error_set(err, -ENOTSUP,
                             "the engine has not changed, %s goes on; the VM's log says why",
                             now.name);
        if (rc == 0 && now.changes != before.changes) {
            printf("%s\n", now.name);
            return 0;
        }
        (void)poll(NULL, 0, 10);
    }
    return rc;
}

/* The VM has another working directory. Malloced; NULL and err. */
static char *absolute(const char *path, struct error *err)
{
    char *dir, *full = NULL;

    if (path[0] == '\0') {
        error_set(err, -EINVAL, "the name of the file is empty");
        return NULL;
    }
    dir = path[0] == '/' ? strdup("") : getcwd(NULL, 0);
    if (dir == NULL || asprintf(&full, "%s%s%s", dir, path[0] == '/' ? "" : "/", path) < 0) {
        error_set(err, -errno, "cannot find out where %s lies: %s; give its whole path", path,
                  strerror(errno));
        full = NULL;
    }
    free(dir);
    return full;
}

static int ask_insert(struct ctl_client *c, const struct arguments *a, struct error *err)
{
    char *path = absolute(a->arg[1], err);
    const char *words[] = {"insert", a->arg[0], path, "force"};
    int rc;

    if (path == NULL)
        return err->code;
    rc = ctl_client_ask(c, words, a->force ? 4 : 3, NULL, NULL, err);
    free(path);
    return rc;
}

static int ask_eject(struct ctl_client *c, const struct arguments *a, struct error *err)
{
    const char *const words[] = {"eject", a->arg[0], "force"};

    return ctl_client_ask(c, words, a->force ? 3 : 2, NULL, NULL, err);
}

static const struct command commands[] = {
    {"status", "", "what it is and how it is", 0, false, ask_status},
    {"powerdown", "", "presses the power button; the guest goes down", 0, false, ask_plainly},
    {"poweroff", "", "ends it at once; --force-poweroff and --destroy are the same", 0, false,
     ask_for_end},
    {"reset", "", "ends it at once with the status of a reboot; --force-reset is the same", 0,
     false, ask_for_end},
    {"refresh", "", "its disks look at the sizes of their images", 0, false, ask_plainly},
    {"insert", " WHERE FILE [--force]", "another disc into the drive at [BUS:]SLOT[:FUNC][.PORT]",
     2, true, ask_insert},
    {"eject", " WHERE [--force]", "takes the disc out; --force: although the guest holds it", 1,
     true, ask_eject},
    {"engine", "", "the engines soft and kvm change places", 0, false, ask_engine},
};

/* ---- bhyvectl's flags ---- */

static const struct {
    const char *flag, *command;
} synonyms[] = {
    {"--force-poweroff", "poweroff"},
    {"--destroy", "poweroff"},
    {"--force-reset", "reset"},
};

/* Those that begin so. */
static const struct {
    const char *flag, *why;
} absent[] = {
    {"--get-stats", "the counters cannot be read while the VM runs; xhyve --stats prints them at "
                    "its end"},
    {"--create", "a VM is made by starting xhyve"},
    {"--inject-nmi", "this is not built yet"},
    {"--checkpoint", "snapshots are not built yet"},
    {"--suspend", "snapshots are not built yet"},
    {"--get-", "registers and memory cannot be read from outside; status says what there is"},
    {"--set-", "registers and memory cannot be set from outside"},
    {"--cpu", "registers and memory cannot be read from outside; status says what there is"},
    {"--desc-", "registers and memory cannot be set from outside"},
    {"--capname", "the engine's capabilities cannot be read or set from outside"},
    {"--run", "a VM runs from its start"},
    {"--assert-lapic-lvt", "this is not built yet"},
    {"--unassign-pptdev", "devices of the host cannot be passed through yet"},
};

/* ---- arguments ---- */

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < countof(commands); i++) {
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    }
    return NULL;
}

static int set_command(struct arguments *a, const char *name, struct error *err)
{
    const char *names[countof(commands)], *near;

    if (a->command != NULL)
        return error_set(err, -EINVAL, "two commands, %s and %s; one at a time", a->command->name,
                         name);
    a->command = find_command(name);
    if (a->command != NULL)
        return 0;
    for (size_t i = 0; i < countof(commands); i++)
        names[i] = commands[i].name;
    near = nearest_name(name, names, countof(names));
    if (near != NULL)
        return error_set(err, -EINVAL, "unknown command '%s'; did you mean '%s'?", name, near);
    return error_set(err, -EINVAL, "unknown command '%s'; xhyvectl --help lists them", name);
}

/* Which VM, from "--vm=NAME", "--vm NAME" and the like; *used words. False: it is another flag. */
static bool take_target(struct arguments *a, char **argv, int left, const char *flag,
                        const char **to, int *used, int *rc, struct error *err)
{
    size_t len = strlen(flag);
    const char *value;

    if (strncmp(argv[0], flag, len) != 0 || (argv[0][len] != '\0' && argv[0][len] != '='))
        return false;
    *used = argv[0][len] == '=' ? 1 : 2;
    value = *used == 1 ? argv[0] + len + 1 : left > 1 ? argv[1] : "";
    if (value[0] == '\0')
        *rc = error_set(err, -EINVAL, "%s needs %s", flag,
                        to == &a->name ? "the name of a VM; xhyvectl list shows them"
                                       : "the path of a socket");
    else if (a->name != NULL || a->socket != NULL)
        *rc = error_set(err, -EINVAL, "two VMs, '%s' and '%s'; one at a time",
                        a->name != NULL ? a->name : a->socket, value);
    *to = value;
    return true;
}

static int take_flag(struct arguments *a, const char *flag, struct error *err)
{
    if (strcmp(flag, "--force") == 0) {
        a->force = true;
        return 0;
    }
    for (size_t i = 0; i < countof(synonyms); i++) {
        if (strcmp(synonyms[i].flag, flag) == 0)
            return set_command(a, synonyms[i].command, err);
    }
    for (size_t i = 0; i < countof(absent); i++) {
        if (strncmp(absent[i].flag, flag, strlen(absent[i].flag)) == 0)
            return error_set(err, -ENOSYS, "%s: %s", flag, absent[i].why);
    }
    return error_set(err, -EINVAL, "unknown flag '%s'; see xhyvectl --help", flag);
}

static int take_word(struct arguments *a, const char *word, struct error *err)
{
    if (a->command == NULL)
        return set_command(a, word, err);
    if (a->count == a->command->args)
        return error_set(err, -EINVAL, "unexpected word '%s'; it is %s%s", word, a->command->name,
                         a->command->usage);
    a->arg[a->count++] = word;
    return 0;
}

static int parse(struct arguments *a, int argc, char **argv, struct error *err)
{
    bool flags = true;
    int rc = 0, used;

    for (int i = 0; i < argc && rc == 0; i += used) {
        used = 1;
        if (i == 0 && strcmp(argv[0], "vm") == 0) {
            used = 2;
            a->name = argc > 1 ? argv[1] : "";
            if (a->name[0] == '\0' || a->name[0] == '-')
                rc = error_set(err, -EINVAL, "vm needs the name of a VM; xhyvectl list shows them");
        } else if (flags && strcmp(argv[i], "--") == 0) {
            flags = false;
        } else if (!flags || argv[i][0] != '-') {
            rc = take_word(a, argv[i], err);
        } else if (!take_target(a, argv + i, argc - i, "--vm", &a->name, &used, &rc, err) &&
                   !take_target(a, argv + i, argc - i, "--socket", &a->socket, &used, &rc, err)) {
            rc = take_flag(a, argv[i], err);
        }
    }
    if (rc < 0)
        return rc;
    if (a->name == NULL && a->socket == NULL)
        return error_set(err, -EINVAL, "which VM? Add --vm=NAME; xhyvectl list shows their names");
    if (a->command == NULL)
        return error_set(err, -EINVAL, "nothing to do; xhyvectl --help lists the commands");
    if (a->count < a->command->args)
        return error_set(err, -EINVAL, "it is %s%s", a->command->name, a->command->usage);
    if (a->force && !a->command->may_force)
        return error_set(err, -EINVAL, "--force means nothing to %s", a->command->name);
    return 0;
}

/* ---- the VM ---- */

static int connect_vm(const struct arguments *a, struct ctl_client **out, struct error *err)
{
    char path[512], running[256];
    int rc;

    if (a->socket != NULL)
        return ctl_client_open(a->socket, ANSWER_MS, out, err);
    if (strchr(a->name, '/') != NULL)
        return error_set(err, -EINVAL,
                         "'%s' is no name of a VM; --socket=PATH takes the path of its socket",
                         a->name);
    rc = ctl_place_socket(a->name, false, path, sizeof(path), err);
    if (rc == 0)
        rc = ctl_client_open(path, ANSWER_MS, out, err);
    if (rc != -ENOENT && rc != -ECONNREFUSED)
        return rc;
    ctl_running(running, sizeof(running));
    return error_set(err, -ENOENT,
                     "no VM named '%s' runs here; those that run: %s (one without a name has no "
                     "socket unless it was started with control=PATH)",
                     a->name, running);
}

int ctl_vm(int argc, char **argv)
{
    struct arguments a = {0};
    struct ctl_client *c = NULL;
    struct error err = {0};
    int rc = parse(&a, argc, argv, &err);

    if (rc == 0)
        rc = connect_vm(&a, &c, &err);
    if (rc == 0)
        rc = a.command->run(c, &a, &err);
    ctl_client_close(c);
    return rc < 0 ? ctl_fail(&err) : 0;
}

void ctl_vm_help(FILE *to)
{
    fputs("xhyvectl speaks to VMs that run, and works on disk images.\n\n"
          "  xhyvectl list\n"
          "        the VMs that run\n"
          "  xhyvectl vm NAME COMMAND\n"
          "  xhyvectl --vm=NAME COMMAND\n"
          "  xhyvectl --socket=PATH COMMAND\n"
          "        what is asked of one:\n\n",
          to);
    for (size_t i = 0; i < countof(commands); i++)
        fprintf(to, "  %s%s\n        %s\n", commands[i].name, commands[i].usage, commands[i].text);
}
