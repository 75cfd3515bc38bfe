/*
 * The options of "ahci": as many disks and drives as it has ports, each with options of its own.
 *
 *     -s 3,ahci,hd:/images/root.img,ser=0001,cd:/images/install.iso
 *
 * is port.0.type=hd, port.0.path=/images/root.img, port.0.ser=0001, port.1.type=cd, ... in the
 * configuration tree. A path that holds ",hd:" or ",cd:" can only be given there.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/ahci.h"

static const char *const not_options[] = {"type", NULL};

/* Where the next port's "hd:" or "cd:" begins, NULL if this is the last. */
static char *next_port(char *text)
{
    char *hd = strstr(text, ",hd:"), *cd = strstr(text, ",cd:");

    return hd == NULL || (cd != NULL && cd < hd) ? cd : hd;
}

static int parse_port(struct config *node, unsigned port, const char *text, const char *what,
                      struct error *err)
{
    struct config *scratch;
    const struct config *child;
    const char *name;
    char key[64], type[3];
    int rc;

    if (strncmp(text, "hd:", 3) != 0 && strncmp(text, "cd:", 3) != 0)
        return error_set(err, -EINVAL, "%s: '%s' is no port; wanted hd:PATH or cd:PATH", what,
                         text);
    if (port == AHCI_PORTS)
        return error_set(err, -EINVAL, "%s: more than %u ports", what, AHCI_PORTS);
    snprintf(type, sizeof(type), "%.2s", text);
    scratch = config_create();
    if (scratch == NULL)
        return error_set(err, -ENOMEM, "%s: no memory for its options", what);
    rc = options_parse(scratch, ahci_port_options, ahci_port_option_count, text + 3, what, err);
    snprintf(key, sizeof(key), AHCI_KEY_PORT ".%u.type", port);
    if (rc == 0)
        rc = config_set(node, key, type, err);
    for (size_t i = 0; rc == 0 && (child = config_child(scratch, i, &name)) != NULL; i++) {
        snprintf(key, sizeof(key), AHCI_KEY_PORT ".%u.%s", port, name);
        rc = config_set(node, key, config_value(child), err);
    }
    config_destroy(scratch);
    return rc;
}

int ahci_options_parse(struct config *node, const char *text, const char *what, struct error *err)
{
    char *copy = strdup(text), *at = copy;
    int rc = 0;

    if (copy == NULL)
        return error_set(err, -ENOMEM, "%s: no memory for its options", what);
    for (unsigned port = 0; rc == 0 && at != NULL; port++) {
        char *next = next_port(at);

        if (next != NULL)
            *next++ = '\0';
        rc = parse_port(node, port, at, what, err);
        at = next;
    }
    free(copy);
    return rc;
}

static int check_port(const struct config *node, const char *number, const char *what,
                      struct error *err)
{
    const char *type = config_get(node, "type");
    char where[96], canonical[24];
    uint64_t port;

    snprintf(where, sizeof(where), "%s, port %s", what, number);
    if (parse_u64(number, &port) != 0 || port >= AHCI_PORTS)
        return error_set(err, -EINVAL, "%s: ports go from 0 to %u", where, AHCI_PORTS - 1);
    snprintf(canonical, sizeof(canonical), "%llu", (unsigned long long)port);
    if (strcmp(canonical, number) != 0)
        return error_set(err, -EINVAL, "%s: the port's number is written %s", where, canonical);
    if (type == NULL || (strcmp(type, "hd") != 0 && strcmp(type, "cd") != 0))
        return error_set(err, -EINVAL, "%s: type=%s; wanted hd or cd", where,
                         type == NULL ? "" : type);
    return options_check(node, ahci_port_options, ahci_port_option_count, not_options, where, err);
}

int ahci_options_check(const struct config *node, const char *what, struct error *err)
{
    static const char *const others[] = {"device", AHCI_KEY_PORT, NULL};
    const struct config *ports, *child;
    const char *name;
    int rc = options_check(node, NULL, 0, others, what, err);

    ports = node != NULL ? config_find(node, AHCI_KEY_PORT) : NULL;
    if (rc == 0 && ports != NULL && config_value(ports) != NULL)
        rc = error_set(err, -EINVAL, "%s: wanted port.NUMBER.type and port.NUMBER.path", what);
    for (size_t i = 0; rc == 0 && ports != NULL; i++) {
        child = config_child(ports, i, &name);
        if (child == NULL)
            break;
        rc = check_port(child, name, what, err);
    }
    return rc;
}
