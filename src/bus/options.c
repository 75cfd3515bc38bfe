/*
 * Device options: reads, the check of a configuration subtree against a device's table, and the
 * text form behind "-s 4,NAME,". All errors begin with the device, name what is wrong and say what
 * would be right.
 */
#include "bus/device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const struct dev_option *option_find(const struct dev_option *table, size_t count,
                                            const char *name, size_t len)
{
    for (size_t i = 0; i < count; i++) {
        if (strncmp(table[i].name, name, len) == 0 && table[i].name[len] == '\0')
            return &table[i];
    }
    return NULL;
}

const char *opt_string(const struct options *o, const char *name, const char *dflt)
{
    const char *value;

    if (o == NULL || o->node == NULL)
        return dflt;
    value = config_get(o->node, name);
    return value == NULL ? dflt : value;
}

bool opt_bool(const struct options *o, const char *name, bool dflt)
{
    bool value = dflt;

    if (o == NULL || o->node == NULL || config_bool(o->node, name, dflt, &value, NULL) < 0)
        return dflt;
    return value;
}

uint64_t opt_u64(const struct options *o, const char *name, uint64_t dflt)
{
    const struct dev_option *opt;
    uint64_t value = dflt;
    int rc;

    if (o == NULL || o->node == NULL)
        return dflt;
    opt = option_find(o->table, o->count, name, strlen(name));
    if (opt != NULL && opt->type == OPT_SIZE)
        rc = config_size(o->node, name, dflt, &value, NULL);
    else
        rc = config_u64(o->node, name, dflt, &value, NULL);
    return rc < 0 ? dflt : value;
}

/* The value as it stands in node. */
static int option_check(const struct config *node, const struct dev_option *opt, const char *what,
                        struct error *err)
{
    struct error why = {0};
    uint64_t number;
    bool flag;
    int rc = 0;

    switch (opt->type) {
    case OPT_STRING:
        if (config_get(node, opt->name)[0] == '\0')
            return error_set(err, -EINVAL, "%s: option '%s' is empty", what, opt->name);
        break;
    case OPT_BOOL:
        rc = config_bool(node, opt->name, false, &flag, &why);
        break;
    case OPT_U64:
        rc = config_u64(node, opt->name, 0, &number, &why);
        break;
    case OPT_SIZE:
        rc = config_size(node, opt->name, 0, &number, &why);
        break;
    }
    if (rc < 0)
        return error_set(err, rc, "%s: %s", what, why.text);
    return 0;
}

/* "; did you mean 'x'?", else the list of what there is. */
static int unknown_option(const struct dev_option *table, size_t count, const char *name,
                          const char *what, struct error *err)
{
    const char **names;
    const char *near = NULL;
    char list[256] = "";
    size_t used = 0;

    if (count == 0)
        return error_set(err, -EINVAL, "%s: unknown option '%s'; it takes no options", what, name);
    names = calloc(count, sizeof(*names));
    if (names == NULL)
        return error_set(err, -ENOMEM, "%s: unknown option '%s'", what, name);
    for (size_t i = 0; i < count; i++) {
        names[i] = table[i].name;
        if (used < sizeof(list))
            used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", i == 0 ? "" : ", ",
                                     names[i]);
    }
    near = nearest_name(name, names, count);
    free(names);
    if (near != NULL)
        return error_set(err, -EINVAL, "%s: unknown option '%s'; did you mean '%s'?", what, name,
                         near);
    return error_set(err, -EINVAL, "%s: unknown option '%s'; known: %s", what, name, list);
}

static bool in_list(const char *name, const char *const *list)
{
    for (; list != NULL && *list != NULL; list++) {
        if (strcmp(name, *list) == 0)
            return true;
    }
    return false;
}

int options_check(const struct config *node, const struct dev_option *table, size_t count,
                  const char *const *ignore, const char *what, struct error *err)
{
    const struct config *child;
    const char *name;

    if (node == NULL)
        return 0;
    for (size_t i = 0; (child = config_child(node, i, &name)) != NULL; i++) {
        const struct dev_option *opt = option_find(table, count, name, strlen(name));
        int rc;

        if (in_list(name, ignore))
            continue;
        if (opt == NULL)
            return unknown_option(table, count, name, what, err);
        if (config_value(child) == NULL || config_child(child, 0, NULL) != NULL)
            return error_set(err, -EINVAL, "%s: option '%s' has no parts of its own", what, name);
        rc = option_check(node, opt, what, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/*
 * One field of the text, e.g. "w=1024", "wait", or first in the text a positional value such as
 * "stdio" or "tcp=127.0.0.1:5555", which only a known name before '=' can take from it.
 */
static int parse_field(struct config *node, const struct dev_option *table, size_t count,
                       char *field, bool first, bool *seen, const char *what, struct error *err)
{
    size_t name_len = strcspn(field, "=");
    bool has_value = field[name_len] == '=';
    const struct dev_option *opt = option_find(table, count, field, name_len);
    const char *value = has_value ? field + name_len + 1 : "true";
    int rc;

    if (field[0] == '\0')
        return error_set(err, -EINVAL, "%s: empty option between commas", what);
    if (opt == NULL && first) {
        for (size_t i = 0; i < count && opt == NULL; i++)
            opt = table[i].positional ? &table[i] : NULL;
        value = field;
    } else if (opt != NULL && !has_value && opt->type != OPT_BOOL) {
        return error_set(err, -EINVAL, "%s: option '%s' needs a value (%s=%s)", what, opt->name,
                         opt->name, opt->value_name == NULL ? "VALUE" : opt->value_name);
    }
    if (opt == NULL) {
        field[name_len] = '\0';
        return unknown_option(table, count, field, what, err);
    }
    if (seen[opt - table])
        return error_set(err, -EINVAL, "%s: option '%s' is given twice", what, opt->name);
    seen[opt - table] = true;
    rc = config_set(node, opt->name, value, err);
    return rc < 0 ? rc : option_check(node, opt, what, err);
}

int options_parse(struct config *node, const struct dev_option *table, size_t count,
                  const char *text, const char *what, struct error *err)
{
    char *copy, *field;
    bool *seen;
    int rc = 0;

    if (text == NULL || text[0] == '\0')
        return 0;
    copy = strdup(text);
    seen = calloc(count + 1, sizeof(*seen));
    if (copy == NULL || seen == NULL) {
        rc = error_set(err, -ENOMEM, "%s: no memory for its options", what);
        goto out;
    }
    field = copy;
    for (bool first = true; rc == 0 && field != NULL; first = false) {
        char *next = strchr(field, ',');

        if (next != NULL)
            *next++ = '\0';
        rc = parse_field(node, table, count, field, first, seen, what, err);
        field = next;
    }
out:
    free(copy);
    free(seen);
    return rc;
}
