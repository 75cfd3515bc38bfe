/*
 * From arguments to a checked tree: flags and files into the raw tree, then defaults, then every
 * %(key) replaced, then the check.
 */
#include "cli/cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int cli_config_set(struct cli *cli, const struct cli_flag *f, const char *arg, struct error *err)
{
    const char *equals = strchr(arg, '=');
    char *key;
    int rc;

    (void)f;
    if (equals == NULL || equals == arg)
        return error_set(err, -EINVAL, "'%s' is not KEY=VALUE", arg);
    key = strndup(arg, (size_t)(equals - arg));
    if (key == NULL)
        return error_set(err, -ENOMEM, "no memory for a configuration key");
    rc = config_set(cli->raw, key, equals + 1, err);
    free(key);
    return rc;
}

#define LINE_MAX_LEN (1u << 20) /* of a configuration file; /dev/zero has no second line */

/* the length with the newline, 0 at the end, or negative with err. */
static ssize_t read_line(FILE *file, const char *name, unsigned number, char **line, size_t *room,
                         struct error *err)
{
    size_t len = 0;
    int c;

    do {
        if (len + 1 >= *room) {
            char *grown = realloc(*line, 2 * *room + 256);

            if (grown == NULL)
                return error_set(err, -ENOMEM, "no memory for configuration file %s", name);
            *line = grown;
            *room = 2 * *room + 256;
        }
        c = getc(file);
        if (c == '\0')
            return error_set(err, -EINVAL, "%s:%u: not a text file", name, number);
        if (len == LINE_MAX_LEN)
            return error_set(err, -EINVAL, "%s:%u: a line of more than %u characters", name, number,
                             LINE_MAX_LEN);
        if (c != EOF)
            (*line)[len++] = (char)c;
    } while (c != EOF && c != '\n');
    (*line)[len] = '\0';
    return (ssize_t)len;
}

int cli_config_file(struct cli *cli, const struct cli_flag *f, const char *arg, struct error *err)
{
    FILE *file = fopen(arg, "re");
    char *line = NULL;
    size_t room = 0;
    unsigned number = 0;
    ssize_t len;
    int rc = 0;

    if (file == NULL)
        return error_set(err, -errno, "cannot read configuration file %s: %s", arg,
                         strerror(errno));
    while (rc == 0 && (len = read_line(file, arg, ++number, &line, &room, err)) != 0) {
        char *p = line;

        if (len < 0) {
            rc = (int)len;
            break;
        }
        while (len > 0 && (line[len - 1] == '\n' || line[len - 1] == '\r'))
            line[--len] = '\0';
        p += strspn(p, " \t");
        if (*p == '\0' || *p == '#')
            continue;
        rc = cli_config_set(cli, f, p, err);
        if (rc < 0)
            error_prefix(err, "%s:%u", arg, number);
    }
    if (rc == 0 && ferror(file))
        rc = error_set(err, -EIO, "cannot read configuration file %s: it is no readable file", arg);
    free(line);
    fclose(file);
    return rc;
}

/*
 * Copies raw's values to cfg, expanded. User's variables have done their work then and are left
 * out, and so is config.dump: a dump can be fed to -k and runs the VM.
 */
static int expand_all(struct cli *cli, const struct config *node, const char *prefix,
                      struct error *err)
{
    const struct config *child;
    const char *name;
    int rc = 0;

    for (size_t i = 0; rc == 0 && (child = config_child(node, i, &name)) != NULL; i++) {
        char *key = NULL;

        if (asprintf(&key, "%s%s%s", prefix, prefix[0] == '\0' ? "" : ".", name) < 0)
            return error_set(err, -ENOMEM, "no memory for the configuration");
        if (config_value(child) != NULL) {
            char *value = config_expand(cli->raw, config_value(child), err);

            if (value == NULL) {
                error_prefix(err, "%s", key);
                rc = -EINVAL;
            } else if (strcmp(key, "config.dump") != 0 && !cli_is_variable(cli->raw, key)) {
                rc = config_set(cli->cfg, key, value, err);
            }
            free(value);
        }
        if (rc == 0)
            rc = expand_all(cli, child, key, err);
        free(key);
    }
    return rc;
}

static int set_default(struct config *node, const char *key, const char *value, struct error *err)
{
    return config_get(node, key) != NULL ? 0 : config_set(node, key, value, err);
}

/* cpus from the topology where only that is given. */
static int default_cpus(struct config *node, struct error *err)
{
    uint64_t sockets, cores, threads, all;
    char text[24];

    if (config_u64(node, "sockets", 1, &sockets, err) < 0 ||
        config_u64(node, "cores", 1, &cores, err) < 0 ||
        config_u64(node, "threads", 1, &threads, err) < 0)
        return -EINVAL;
    if (__builtin_mul_overflow(sockets, cores, &all) || __builtin_mul_overflow(all, threads, &all))
        return error_set(err, -EINVAL, "sockets, cores and threads make too many vCPUs");
    snprintf(text, sizeof(text), "%llu", (unsigned long long)all);
    return set_default(node, "cpus", text, err);
}

static int add_defaults(struct cli *cli, struct error *err)
{
    char name[32];
    int rc;

    cli->named = cli->name != NULL || config_get(cli->raw, "name") != NULL;
    snprintf(name, sizeof(name), "xhyve-%ld", (long)getpid());
    rc = cli->name != NULL ? config_set(cli->raw, "name", cli->name, err)
                           : set_default(cli->raw, "name", name, err);
    if (rc == 0)
        rc = set_default(cli->raw, "memory.size", "256M", err);
    return rc;
}

/* The last word of a bhyve line is the VM's name. */
static int take_name(struct cli *cli, struct error *err)
{
    if (cli->rest_count + cli->word_count > 1)
        return error_set(err, -EINVAL, "unexpected word '%s' after the VM's name '%s'",
                         cli->word_count > 1 ? cli->words[1] : cli->rest[cli->word_count == 0],
                         cli->word_count > 0 ? cli->words[0] : cli->rest[0]);
    if (cli->rest_count + cli->word_count == 0)
        return 0;
    if (cli->name != NULL)
        return error_set(err, -EINVAL, "the VM has two names, '%s' and '%s'", cli->name,
                         cli->word_count > 0 ? cli->words[0] : cli->rest[0]);
    cli->name = cli->word_count > 0 ? cli->words[0] : cli->rest[0];
    return 0;
}

/* The VM reads memory.size as a plain size, without -m's rule for bare numbers. */
static int settle_memory(struct config *cfg, struct error *err)
{
    char text[64];
    int rc = cli_memory(config_get(cfg, "memory.size"), text, sizeof(text), err);

    return rc < 0 ? rc : config_set(cfg, "memory.size", text, err);
}

static int finish(struct cli *cli, struct error *err)
{
    bool dump = false;
    int rc = add_defaults(cli, err);

    if (rc == 0)
        rc = expand_all(cli, cli->raw, "", err);
    if (rc == 0)
        rc = settle_memory(cli->cfg, err);
    if (rc == 0)
        rc = default_cpus(cli->cfg, err);
    if (rc == 0)
        rc = cli_check(cli->cfg, cli->tables, err);
    if (rc == 0)
        rc = config_bool(cli->raw, "config.dump", false, &dump, err);
    if (rc == 0 && dump)
        cli->action = CLI_DUMP;
    return rc;
}

static int parse_line(struct cli *cli, int argc, char **argv, struct error *err)
{
    int rc = cli_parse_flags(cli, argc, argv, err);

    if (rc < 0 || cli->action != CLI_RUN)
        return rc;
    rc = take_name(cli, err);
    return rc < 0 ? rc : finish(cli, err);
}

int cli_parse(struct cli *cli, const struct cli_tables *tables, int argc, char **argv,
              struct error *err)
{
    char **full = NULL;
    size_t count = 0;
    int rc;

    memset(cli, 0, sizeof(*cli));
    cli->tables = tables;
    cli->raw = config_create();
    cli->cfg = config_create();
    if (cli->raw == NULL || cli->cfg == NULL)
        return error_set(err, -ENOMEM, "no memory for the configuration");
    if (argc == 0) {
        cli->action = CLI_USAGE;
        return 0;
    }
    if (argc == 1 && strcmp(argv[0], "help") == 0) {
        cli->action = CLI_HELP;
        return 0;
    }
    if (strcmp(argv[0], "run") != 0)
        return parse_line(cli, argc, argv, err);
    rc = cli_run_expand(tables, argc - 1, argv + 1, &full, &count, err);
    if (rc == 0)
        rc = parse_line(cli, (int)count, full, err);
    if (rc == 0) {
        cli->line = cli_shell_line(full, count);
        cli->name = NULL; /* pointed into full */
    }
    for (size_t i = 0; i < count; i++)
        free(full[i]);
    free(full);
    return rc;
}

void cli_fini(struct cli *cli)
{
    config_destroy(cli->raw);
    config_destroy(cli->cfg);
    free(cli->line);
    free(cli->words);
    memset(cli, 0, sizeof(*cli));
}
