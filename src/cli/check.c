/*
 * The check of the whole tree, the same for what came from flags, -o and -k: every key is known,
 * every value is of its type, and the parts fit together.
 *
 * A key that xhyve does not know is allowed if a value refers to it, "%(key)": that is a user's
 * variable. Otherwise it is a typing error.
 */
#include "cli/cli.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"
#include "vmm/devices.h"

enum key_type { KEY_STRING, KEY_BOOL, KEY_U64, KEY_SIZE };

static const struct known_key {
    const char *name;
    enum key_type type;
} known_keys[] = {
    {"name", KEY_STRING},
    {"cpus", KEY_U64},
    {"sockets", KEY_U64},
    {"cores", KEY_U64},
    {"threads", KEY_U64},
    {"memory.size", KEY_SIZE},
    {"memory.wired", KEY_BOOL},
    {"memory.hugepages", KEY_BOOL},
    {"memory.guest_in_core", KEY_BOOL},
    {"acpi_tables", KEY_BOOL},
    {"destroy_on_poweroff", KEY_BOOL},
    {"gdb.address", KEY_STRING},
    {"gdb.port", KEY_U64},
    {"gdb.wait", KEY_BOOL},
    {"keyboard.layout", KEY_STRING},
    {"rtc.use_localtime", KEY_BOOL},
    {"uuid", KEY_STRING},
    {"virtio_msix", KEY_BOOL},
    {"config.dump", KEY_BOOL},
    {"x86.mptable", KEY_BOOL},
    {"x86.x2apic", KEY_BOOL},
    {"x86.strictio", KEY_BOOL},
    {"x86.strictmsr", KEY_BOOL},
    {"x86.vmexit_on_hlt", KEY_BOOL},
    {"x86.vmexit_on_pause", KEY_BOOL},
    {"lpc.com1.path", KEY_STRING},
    {"lpc.com2.path", KEY_STRING},
    {"lpc.com3.path", KEY_STRING},
    {"lpc.com4.path", KEY_STRING},
    {"lpc.bootrom", KEY_STRING},
    {"lpc.bootvars", KEY_STRING},
    {"lpc.fwcfg", KEY_STRING},
    {"lpc.pc-testdev", KEY_BOOL},
    {"lpc.tpm.type", KEY_STRING},
    {"lpc.tpm.path", KEY_STRING},
    {"lpc.tpm.version", KEY_STRING},
    {"boot.method", KEY_STRING},
    {"boot.kernel", KEY_STRING},
    {"boot.initrd", KEY_STRING},
    {"boot.modules", KEY_STRING},
    {"boot.cmdline", KEY_STRING},
    {"boot.decompress", KEY_STRING},
    {"engine", KEY_STRING},
    {"kvm.irqchip", KEY_STRING},
    {"kvm.irqfd", KEY_BOOL},
    {"kvm.leave", KEY_BOOL},
    {"jit.cache", KEY_STRING},
    {"jit.perfmap", KEY_BOOL},
    {"cpu.la57", KEY_BOOL},
    {"cpu.model", KEY_STRING},
    {"log.level", KEY_STRING},
    {"log.trace", KEY_STRING},
    {"pidfile", KEY_STRING},
    {"control", KEY_STRING},
    {"stats", KEY_BOOL},
    {"profile", KEY_STRING},
    {"profile.symbols", KEY_STRING},
    {"bios.vendor", KEY_STRING},
    {"bios.version", KEY_STRING},
    {"bios.release_date", KEY_STRING},
    {"system.manufacturer", KEY_STRING},
    {"system.product_name", KEY_STRING},
    {"system.version", KEY_STRING},
    {"system.serial_number", KEY_STRING},
    {"system.sku", KEY_STRING},
    {"system.family_name", KEY_STRING},
    {"board.manufacturer", KEY_STRING},
    {"board.product_name", KEY_STRING},
    {"board.version", KEY_STRING},
    {"board.serial_number", KEY_STRING},
    {"board.asset_tag", KEY_STRING},
    {"board.location", KEY_STRING},
    {"chassis.manufacturer", KEY_STRING},
    {"chassis.version", KEY_STRING},
    {"chassis.serial_number", KEY_STRING},
    {"chassis.asset_tag", KEY_STRING},
    {"chassis.sku", KEY_STRING},
};

struct check {
    const struct config *cfg;
    const struct cli_tables *tables;
    unsigned lpc_bridges;
    char stdio_user[64]; /* who has standard input and output; empty: nobody yet */
};

/* There is one standard input, and two readers would each get half of what is typed. */
static int check_stdio(struct check *c, const char *backend, const char *who, struct error *err)
{
    if (strcmp(backend, "stdio") != 0)
        return 0;
    if (c->stdio_user[0] != '\0')
        return error_set(err, -EINVAL, "%s and %s both want stdio", c->stdio_user, who);
    snprintf(c->stdio_user, sizeof(c->stdio_user), "%s", who);
    return 0;
}

static bool refers_to(const struct config *node, const char *want)
{
    const struct config *child;
    size_t len = strlen(want);

    for (size_t i = 0; (child = config_child(node, i, NULL)) != NULL; i++) {
        const char *value = config_value(child);

        for (const char *p = value; p != NULL && (p = strstr(p, "%(")) != NULL; p++) {
            if (strncmp(p + 2, want, len) == 0 && p[2 + len] == ')')
                return true;
        }
        if (refers_to(child, want))
            return true;
    }
    return false;
}

bool cli_is_variable(const struct config *raw, const char *key)
{
    for (size_t i = 0; i < countof(known_keys); i++) {
        if (strcmp(known_keys[i].name, key) == 0)
            return false;
    }
    return strncmp(key, "pci.", 4) != 0 && refers_to(raw, key);
}

static int check_unknown(const char *key, struct error *err)
{
    const char *names[countof(known_keys)], *near;

    for (size_t i = 0; i < countof(known_keys); i++)
        names[i] = known_keys[i].name;
    near = nearest_name(key, names, countof(names));
    if (near != NULL)
        return error_set(err, -EINVAL, "unknown configuration key '%s'; did you mean '%s'?", key,
                         near);
    return error_set(err, -EINVAL, "unknown configuration key '%s', and no value refers to it",
                     key);
}

static int check_value(const struct check *c, const char *key, struct error *err)
{
    uint64_t number;
    bool flag;

    for (size_t i = 0; i < countof(known_keys); i++) {
        if (strcmp(known_keys[i].name, key) != 0)
            continue;
        switch (known_keys[i].type) {
        case KEY_STRING:
            return 0;
        case KEY_BOOL:
            return config_bool(c->cfg, key, false, &flag, err);
        case KEY_U64:
            return config_u64(c->cfg, key, 0, &number, err);
        case KEY_SIZE:
            return config_size(c->cfg, key, 0, &number, err);
        }
    }
    return check_unknown(key, err);
}

/* ---- PCI ---- */

static int check_function(struct check *c, const struct config *node, const char *where,
                          struct error *err)
{
    const char *device = config_get(node, "device");
    const char *names[64], *near;
    const struct pci_ops *ops;
    char what[64];
    size_t n = 0;
    int rc;

    if (device == NULL)
        return error_set(err, -EINVAL, "PCI slot %s has options but no device", where);
    ops = pci_device_find(c->tables->pci, device);
    if (ops != NULL) {
        c->lpc_bridges += strcmp(device, "lpc") == 0;
        snprintf(what, sizeof(what), "%s at %s", device, where);
        rc = pci_options_check(ops, node, what, err);
        for (size_t i = 0; rc == 0 && i < ops->option_count; i++) {
            const char *value = config_get(node, ops->options[i].name);

            /* the option whose value is a back end of a serial port */
            if (value != NULL && strcmp(ops->options[i].name, "backend") == 0)
                rc = check_stdio(c, value, what, err);
        }
        return rc;
    }
    for (const struct pci_ops *const *p = c->tables->pci; *p != NULL && n < countof(names); p++)
        names[n++] = (*p)->name;
    near = nearest_name(device, names, n);
    if (near != NULL)
        return error_set(err, -EINVAL, "slot %s: unknown device '%s'; did you mean '%s'?", where,
                         device, near);
    return error_set(err, -EINVAL, "slot %s: unknown device '%s'; -s help lists them", where,
                     device);
}

/* pci.B.S.F: canonical decimal numbers, so that no slot has two names. */
static int check_pci(struct check *c, const struct config *node, unsigned depth, char *where,
                     size_t room, struct error *err)
{
    static const unsigned limits[] = {255, 31, 7};
    const struct config *child;
    size_t used = strlen(where);
    const char *name;
    int rc = 0;

    if (depth == countof(limits))
        return check_function(c, node, where, err);
    for (size_t i = 0; rc == 0 && (child = config_child(node, i, &name)) != NULL; i++) {
        uint64_t number;
        char canonical[24];

        if (parse_u64(name, &number) < 0 || number > limits[depth])
            return error_set(err, -EINVAL, "configuration key pci.%s%s: wanted pci.BUS.SLOT.FUNC",
                             where, name);
        snprintf(canonical, sizeof(canonical), "%llu", (unsigned long long)number);
        if (strcmp(canonical, name) != 0 || config_value(child) != NULL)
            return error_set(err, -EINVAL,
                             "configuration key pci.%s%s: wanted pci.BUS.SLOT.FUNC.OPTION", where,
                             name);
        snprintf(where + used, room - used, "%s%s", name, depth + 1 < countof(limits) ? ":" : "");
        rc = check_pci(c, child, depth + 1, where, room, err);
        where[used] = '\0';
    }
    return rc;
}

static int check_keys(struct check *c, const struct config *node, const char *prefix,
                      struct error *err)
{
    const struct config *child;
    const char *name;
    int rc = 0;

    for (size_t i = 0; rc == 0 && (child = config_child(node, i, &name)) != NULL; i++) {
        char *key = NULL, where[64] = "";

        if (prefix[0] == '\0' && strcmp(name, "pci") == 0) {
            if (config_value(child) != NULL)
                return error_set(err, -EINVAL,
                                 "configuration key pci: wanted pci.BUS.SLOT.FUNC.OPTION");
            rc = check_pci(c, child, 0, where, sizeof(where), err);
            continue;
        }
        if (asprintf(&key, "%s%s%s", prefix, prefix[0] == '\0' ? "" : ".", name) < 0)
            return error_set(err, -ENOMEM, "no memory to check the configuration");
        if (config_value(child) != NULL)
            rc = check_value(c, key, err);
        if (rc == 0)
            rc = check_keys(c, child, key, err);
        free(key);
    }
    return rc;
}

/* ---- what belongs together ---- */

static int check_cpus(const struct config *cfg, struct error *err)
{
    static const char *const keys[] = {"cpus", "sockets", "cores", "threads"};
    uint64_t n[4], product = 1;
    bool topology = false;

    for (size_t i = 0; i < countof(keys); i++) {
        if (config_u64(cfg, keys[i], 1, &n[i], err) < 0)
            return -EINVAL;
        if (n[i] == 0 || n[i] > 255)
            return error_set(err, -EINVAL, "%s is %s; wanted 1 to 255", keys[i],
                             config_get(cfg, keys[i]));
        topology |= i > 0 && config_get(cfg, keys[i]) != NULL;
        product *= i > 0 ? n[i] : 1;
    }
    if (topology && product != n[0])
        return error_set(err, -EINVAL,
                         "%u vCPUs do not fit the topology: %u sockets of %u cores of %u threads",
                         (unsigned)n[0], (unsigned)n[1], (unsigned)n[2], (unsigned)n[3]);
    return 0;
}

static int check_uuid(const char *uuid, struct error *err)
{
    bool ok = strlen(uuid) == 36;

    for (size_t i = 0; ok && i < 36; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;

        ok = dash ? uuid[i] == '-' : isxdigit((unsigned char)uuid[i]) != 0;
    }
    if (!ok)
        return error_set(err, -EINVAL,
                         "'%s' is not a UUID such as 01234567-89ab-cdef-0123-456789abcdef", uuid);
    return 0;
}

/* words: "a, b or c" for the sentence. */
static int check_word(const struct config *cfg, const char *key, const char *const *list,
                      size_t count, const char *words, struct error *err)
{
    const char *value = config_get(cfg, key), *near;

    for (size_t i = 0; value != NULL && i < count; i++) {
        if (strcmp(value, list[i]) == 0)
            return 0;
    }
    if (value == NULL)
        return 0;
    near = nearest_name(value, list, count);
    if (near != NULL)
        return error_set(err, -EINVAL, "%s: unknown word '%s'; did you mean '%s'?", key, value,
                         near);
    return error_set(err, -EINVAL, "%s: unknown word '%s'; wanted %s", key, value, words);
}

static int check_words(const struct config *cfg, struct error *err)
{
    static const char *const engines[] = {"auto",       "soft", "soft,interp",
                                          "soft,check", "kvm",  "hvf"};
    static const char *const levels[] = {"error", "warn", "info", "debug"};
    static const char *const methods[] = {"kexec", "bootrom", "fbsd", "multiboot", "pvh"};
    static const char *const decompress[] = {"host", "guest"};
    int rc;

    rc = check_word(cfg, "engine", engines, countof(engines),
                    "soft, soft,interp, soft,check, kvm, hvf or auto", err);
    if (rc == 0)
        rc = check_word(cfg, "log.level", levels, countof(levels), "error, warn, info or debug",
                        err);
    if (rc == 0)
        rc = check_word(cfg, "boot.method", methods, countof(methods), "kexec, multiboot or pvh",
                        err);
    if (rc == 0)
        rc = check_word(cfg, "boot.decompress", decompress, countof(decompress), "host or guest",
                        err);
    return rc;
}

static int check_profile(const struct config *cfg, struct error *err)
{
    if (config_get(cfg, "profile.symbols") != NULL && config_get(cfg, "profile") == NULL)
        return error_set(err, -EINVAL, "profile.symbols needs a profile: add --profile FILE");
    return 0;
}

static int check_control(const struct config *cfg, struct error *err)
{
    const char *path = config_get(cfg, "control");

    if (path != NULL && path[0] == '\0')
        return error_set(err, -EINVAL, "control is empty; wanted the path of a socket, or off");
    return 0;
}

static int check_engine(const struct config *cfg, struct error *err)
{
    const char *engine = config_get(cfg, "engine");
    bool map = false;
    int rc = config_bool(cfg, "jit.perfmap", false, &map, err);

    if (rc == 0 && map && engine != NULL && strcmp(engine, "soft,interp") == 0)
        rc = error_set(err, -EINVAL,
                       "jit.perfmap names translated code, and engine=soft,interp translates none");
    return rc;
}

/* What -l adds stands behind the bridge; com ports are looked at with their back ends. */
static int check_lpc(struct check *c, struct error *err)
{
    static const char *const devices[] = {"pc-testdev", "fwcfg"};
    char key[32];

    for (size_t i = 0; i < countof(devices); i++) {
        snprintf(key, sizeof(key), "lpc.%s", devices[i]);
        if (config_get(c->cfg, key) != NULL && c->lpc_bridges == 0)
            return error_set(err, -EINVAL, "%s hangs on the LPC bridge: add -s 31,lpc", devices[i]);
    }
    return 0;
}

/* Each way to boot has its own second file; the other's key would be ignored. */
static int check_boot(const struct config *cfg, struct error *err)
{
    const char *method = config_get(cfg, "boot.method");
    bool kexec = method == NULL || strcmp(method, "kexec") == 0;
    bool multiboot = method != NULL && strcmp(method, "multiboot") == 0;

    if (multiboot && config_get(cfg, "boot.initrd") != NULL)
        return error_set(err, -EINVAL,
                         "boot.initrd means nothing to boot.method=multiboot; use boot.modules");
    if (!multiboot && config_get(cfg, "boot.modules") != NULL)
        return error_set(err, -EINVAL, "boot.modules needs boot.method=multiboot");
    if (!kexec && config_get(cfg, "boot.decompress") != NULL)
        return error_set(err, -EINVAL, "boot.decompress means nothing to boot.method=%s", method);
    return 0;
}

static int check_serial(struct check *c, struct error *err)
{
    char key[32], who[8];
    const char *path;
    int rc = 0;

    for (unsigned i = 1; i <= 4 && rc == 0; i++) {
        snprintf(key, sizeof(key), "lpc.com%u.path", i);
        snprintf(who, sizeof(who), "com%u", i);
        path = config_get(c->cfg, key);
        if (path == NULL)
            continue;
        if (path[0] == '\0')
            return error_set(err, -EINVAL, "%s has an empty path", who);
        if (c->lpc_bridges == 0)
            return error_set(err, -EINVAL, "%s hangs on the LPC bridge: add -s 31,lpc", who);
        rc = check_stdio(c, path, who, err);
    }
    return rc;
}

/* A name goes into SMBIOS, file names and one line of output. */
static int check_name(const char *name, struct error *err)
{
    if (name[0] == '\0' || strlen(name) > 64)
        return error_set(err, -EINVAL, "a VM's name has 1 to 64 characters, '%.64s' has %zu", name,
                         strlen(name));
    for (const char *p = name; *p != '\0'; p++) {
        if (!isgraph((unsigned char)*p) || *p == '/')
            return error_set(err, -EINVAL, "a VM's name holds no blanks and no '/': '%s'", name);
    }
    return 0;
}

int cli_check(const struct config *cfg, const struct cli_tables *tables, struct error *err)
{
    struct check c = {.cfg = cfg, .tables = tables};
    int rc = check_keys(&c, cfg, "", err);

    if (rc == 0 && c.lpc_bridges > 1)
        rc = error_set(err, -EINVAL, "a machine has one LPC bridge, not %u", c.lpc_bridges);
    if (rc == 0)
        rc = check_name(config_get(cfg, "name"), err);
    if (rc == 0)
        rc = check_cpus(cfg, err);
    if (rc == 0 && config_get(cfg, "uuid") != NULL)
        rc = check_uuid(config_get(cfg, "uuid"), err);
    if (rc == 0)
        rc = check_words(cfg, err);
    if (rc == 0)
        rc = check_engine(cfg, err);
    if (rc == 0)
        rc = check_profile(cfg, err);
    if (rc == 0)
        rc = check_control(cfg, err);
    if (rc == 0)
        rc = check_boot(cfg, err);
    if (rc == 0)
        rc = check_serial(&c, err);
    if (rc == 0)
        rc = check_lpc(&c, err);
    return rc;
}
