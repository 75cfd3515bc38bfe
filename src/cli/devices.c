/* -s and -l: devices into the configuration tree, each by its own table of options. */
#include "cli/cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "vmm/devices.h"

/* ---- -s ---- */

struct slot {
    uint64_t bus, slot, func;
};

/* "SLOT", "SLOT:FUNC" or "BUS:SLOT:FUNC", nothing after it. */
static int parse_slot(const char *text, struct slot *out, struct error *err)
{
    uint64_t part[3];
    unsigned n = 0;
    const char *p = text;

    for (;;) {
        size_t len = strcspn(p, ":");
        char number[24];

        snprintf(number, sizeof(number), "%.*s", (int)(len < 23 ? len : 23), p);
        if (n == 3 || len >= sizeof(number) || parse_u64(number, &part[n]) < 0)
            return error_set(err, -EINVAL,
                             "-s: '%s' is not a slot; wanted SLOT, SLOT:FUNC or BUS:SLOT:FUNC",
                             text);
        n++;
        if (p[len] == '\0')
            break;
        p += len + 1;
    }
    *out = (struct slot){
        .bus = n == 3 ? part[0] : 0,
        .slot = part[n == 3],
        .func = n == 1 ? 0 : part[n - 1],
    };
    if (out->bus > 255)
        return error_set(err, -EINVAL, "-s %s: PCI buses go from 0 to 255", text);
    if (out->slot > 31)
        return error_set(err, -EINVAL, "-s %s: PCI slots go from 0 to 31", text);
    if (out->func > 7)
        return error_set(err, -EINVAL, "-s %s: PCI functions go from 0 to 7", text);
    return 0;
}

/* All of a tree's values, under a key of another. */
static int copy_tree(struct config *to, const char *key, const struct config *from,
                     struct error *err)
{
    const struct config *child;
    const char *name;
    int rc = config_value(from) != NULL ? config_set(to, key, config_value(from), err) : 0;

    for (size_t i = 0; rc == 0 && (child = config_child(from, i, &name)) != NULL; i++) {
        char full[128];

        snprintf(full, sizeof(full), "%s.%s", key, name);
        rc = copy_tree(to, full, child, err);
    }
    return rc;
}

/*
 * Into a tree of its own first, since config_find gives no node that could be written to. ops is
 * a PCI device, or NULL: then it is lpc.
 */
static int parse_device_options(struct cli *cli, const char *key, const struct pci_ops *ops,
                                const struct cli_lpc_device *lpc, const char *text,
                                const char *what, struct error *err)
{
    struct config *scratch = config_create();
    int rc;

    if (scratch == NULL)
        return error_set(err, -ENOMEM, "%s: no memory", what);
    if (ops != NULL)
        rc = pci_options_parse(ops, scratch, text, what, err);
    else
        rc = options_parse(scratch, lpc->options, lpc->option_count, text, what, err);
    if (rc == 0)
        rc = copy_tree(cli->raw, key, scratch, err);
    config_destroy(scratch);
    return rc;
}

static int add_slot(struct cli *cli, char *where, char *device, const char *conf, struct error *err)
{
    const struct pci_ops *ops;
    struct slot s = {0};
    char key[64], what[128];
    const char *old;
    int rc = parse_slot(where, &s, err);

    if (rc < 0)
        return rc;
    snprintf(key, sizeof(key), "pci.%u.%u.%u.device", (unsigned)s.bus, (unsigned)s.slot,
             (unsigned)s.func);
    old = config_get(cli->raw, key);
    if (old != NULL)
        return error_set(err, -EEXIST, "slot %u:%u:%u is taken twice, by %s and by %s",
                         (unsigned)s.bus, (unsigned)s.slot, (unsigned)s.func, old, device);
    ops = pci_device_find(cli->tables->pci, device);
    /* an unknown name stays in the tree: cli_check names the nearest known one */
    rc = config_set(cli->raw, key, device, err);
    if (rc < 0 || ops == NULL || conf == NULL)
        return rc;
    key[strlen(key) - strlen(".device")] = '\0';
    snprintf(what, sizeof(what), "%s at %s", device, where);
    return parse_device_options(cli, key, ops, NULL, conf, what, err);
}

int cli_slot(struct cli *cli, const struct cli_flag *f, const char *arg, struct error *err)
{
    char *copy, *device, *conf;
    int rc;

    (void)f;
    if (strcmp(arg, "help") == 0) {
        cli->action = CLI_SLOT_HELP;
        return 0;
    }
    copy = strdup(arg);
    if (copy == NULL)
        return error_set(err, -ENOMEM, "no memory for -s");
    device = strchr(copy, ',');
    if (device == NULL || device[1] == '\0' || device[1] == ',') {
        rc = error_set(err, -EINVAL, "-s %s: no device; wanted SLOT,DEVICE[,OPTIONS]", arg);
    } else {
        *device++ = '\0';
        conf = strchr(device, ',');
        if (conf != NULL)
            *conf++ = '\0';
        if (conf != NULL && conf[0] == '\0')
            rc = error_set(err, -EINVAL, "-s %s: nothing after the last comma", arg);
        else
            rc = add_slot(cli, copy, device, conf, err);
    }
    free(copy);
    return rc;
}

/* ---- -l ---- */

static const struct dev_option com_options[] = {
    {"path", OPT_STRING, "BACKEND", "where its bytes go", true},
};
static const struct dev_option tpm_options[] = {
    {"type", OPT_STRING, "TYPE", "passthru or swtpm", true},
    {"path", OPT_STRING, "PATH", "device or socket", false},
    {"version", OPT_STRING, "VERSION", "2.0", false},
};

const struct cli_lpc_device cli_lpc_devices[] = {
    {"com1", "serial port at 0x3f8, IRQ 4", com_options, countof(com_options)},
    {"com2", "serial port at 0x2f8, IRQ 3", com_options, countof(com_options)},
    {"com3", "serial port at 0x3e8, IRQ 4", com_options, countof(com_options)},
    {"com4", "serial port at 0x2e8, IRQ 3", com_options, countof(com_options)},
    {"bootrom", "firmware: FILE[,VARFILE] (not built yet)", NULL, 0},
    {"fwcfg", "firmware configuration (fw_cfg): TYPE, which is qemu", NULL, 0},
    {"pc-testdev", "test device: exit status, latches, interrupt lines, text", NULL, 0},
    {"tpm", "TPM (not built yet)", tpm_options, countof(tpm_options)},
};
const size_t cli_lpc_device_count = countof(cli_lpc_devices);

static int add_bootrom(struct cli *cli, const char *conf, struct error *err)
{
    size_t len = conf == NULL ? 0 : strcspn(conf, ",");
    char *file;
    int rc;

    if (len == 0)
        return error_set(err, -EINVAL, "-l bootrom needs a file: -l bootrom,FILE[,VARFILE]");
    file = strndup(conf, len);
    if (file == NULL)
        return error_set(err, -ENOMEM, "no memory for -l");
    rc = config_set(cli->raw, "lpc.bootrom", file, err);
    free(file);
    if (rc == 0 && conf[len] == ',')
        rc = config_set(cli->raw, "lpc.bootvars", conf + len + 1, err);
    return rc;
}

static int add_lpc(struct cli *cli, const char *name, const char *conf, struct error *err)
{
    const char *names[countof(cli_lpc_devices)], *near;
    const struct cli_lpc_device *d = NULL;
    char key[32], what[32];

    for (size_t i = 0; i < cli_lpc_device_count; i++) {
        names[i] = cli_lpc_devices[i].name;
        if (strcmp(names[i], name) == 0)
            d = &cli_lpc_devices[i];
    }
    if (d == NULL) {
        near = nearest_name(name, names, cli_lpc_device_count);
        if (near != NULL)
            return error_set(err, -EINVAL, "-l: unknown device '%s'; did you mean '%s'?", name,
                             near);
        return error_set(err, -EINVAL, "-l: unknown device '%s'; -l help lists them", name);
    }
    snprintf(key, sizeof(key), "lpc.%s", name);
    snprintf(what, sizeof(what), "-l %s", name);
    if (config_find(cli->raw, key) != NULL)
        return error_set(err, -EEXIST, "-l %s is given twice", name);
    if (strcmp(name, "bootrom") == 0)
        return add_bootrom(cli, conf, err);
    if (strcmp(name, "fwcfg") == 0) /* bhyve's own kind is what its bare form means */
        return config_set(cli->raw, key, conf != NULL ? conf : "bhyve", err);
    if (d->options == NULL && conf != NULL)
        return error_set(err, -EINVAL, "-l %s takes no options", name);
    if (d->options == NULL)
        return config_set(cli->raw, key, "true", err);
    /* a serial port nobody listens to must not stall the guest */
    if (d->options == com_options && conf == NULL)
        conf = "null";
    if (conf == NULL)
        return error_set(err, -EINVAL, "-l %s needs options; see -l help", name);
    return parse_device_options(cli, key, NULL, d, conf, what, err);
}

int cli_lpc(struct cli *cli, const struct cli_flag *f, const char *arg, struct error *err)
{
    char *copy, *conf;
    int rc;

    (void)f;
    if (strcmp(arg, "help") == 0) {
        cli->action = CLI_LPC_HELP;
        return 0;
    }
    copy = strdup(arg);
    if (copy == NULL)
        return error_set(err, -ENOMEM, "no memory for -l");
    conf = strchr(copy, ',');
    if (conf != NULL)
        *conf++ = '\0';
    if (conf != NULL && conf[0] == '\0')
        rc = error_set(err, -EINVAL, "-l %s: nothing after the last comma", arg);
    else
        rc = add_lpc(cli, copy, conf, err);
    free(copy);
    return rc;
}
