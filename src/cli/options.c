/*
 * Flags → configuration tree. One table holds every flag, short and long; parsing and --help read
 * it. A flag without a function of its own sets one key.
 */
#include "cli/cli.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/log.h"

static int set_key(struct cli *cli, const struct cli_flag *f, const char *arg, struct error *err)
{
    if (f->arg != NULL && arg[0] == '\0')
        return error_set(err, -EINVAL, "--%s needs %s, not an empty word", f->name, f->arg);
    return config_set(cli->raw, f->key, f->arg != NULL ? arg : f->value, err);
}

/* The flag is known, what it asks for does not exist; .value says what that is. */
static int not_built(struct cli *cli, const struct cli_flag *f, const char *arg, struct error *err)
{
    (void)cli;
    (void)arg;
    return error_set(err, -ENOSYS, "-%c: %s", f->letter, f->value);
}

static int set_action(struct cli *cli, const struct cli_flag *f, const char *arg, struct error *err)
{
    (void)arg;
    (void)err;
    if (cli->action == CLI_RUN)
        cli->action = f->letter == 'h' ? CLI_HELP : CLI_VERSION;
    return 0;
}

static int set_cpus(struct cli *cli, const struct cli_flag *f, const char *arg, struct error *err)
{
    static const struct dev_option table[] = {
        {"cpus", OPT_U64, "N", "vCPUs", true},
        {"sockets", OPT_U64, "N", "sockets", false},
        {"cores", OPT_U64, "N", "cores a socket", false},
        {"threads", OPT_U64, "N", "threads a core", false},
    };

    (void)f;
    if (arg[0] == '\0')
        return error_set(err, -EINVAL, "-c needs a number of vCPUs");
    return options_parse(cli->raw, table, countof(table), arg, "-c", err);
}

int cli_memory(const char *text, char *to, size_t room, struct error *err)
{
    uint64_t size = 0, bare;
    bool has_suffix = parse_u64(text, &bare) != 0;
    int rc = parse_size(text, &size);

    if (rc == -ERANGE)
        return error_set(err, rc, "memory size '%s' is more than 2^64 bytes", text);
    if (rc < 0)
        return error_set(
            err, rc, "memory size '%s' is not a number, perhaps with one of the suffixes k m g t",
            text);
    if (!has_suffix && size < (1u << 20))
        size <<= 20;
    if (size == 0)
        return error_set(err, -EINVAL, "memory size '%s': a VM needs memory", text);
    if (size % 4096 != 0)
        return error_set(err, -EINVAL, "memory size '%s' is not a multiple of 4 KiB", text);
    snprintf(to, room, "%s%s", text, !has_suffix && bare < (1u << 20) ? "M" : "");
    return 0;
}

static int set_name(struct cli *cli, const struct cli_flag *f, const char *arg, struct error *err)
{
    (void)f;
    if (cli->name != NULL)
        return error_set(err, -EINVAL, "the VM has two names, '%s' and '%s'", cli->name, arg);
    cli->name = arg;
    return 0;
}

/* Patterns of several --trace add up. */
static int set_trace(struct cli *cli, const struct cli_flag *f, const char *arg, struct error *err)
{
    const char *old = config_get(cli->raw, "log.trace");
    char *both = NULL;
    int rc;

    if (old == NULL || arg[0] == '\0')
        return set_key(cli, f, arg, err);
    if (asprintf(&both, "%s,%s", old, arg) < 0)
        return error_set(err, -ENOMEM, "no memory for --trace");
    rc = config_set(cli->raw, "log.trace", both, err);
    free(both);
    return rc;
}

/* bhyve's [w][address:]port. */
static int set_gdb(struct cli *cli, const struct cli_flag *f, const char *arg, struct error *err)
{
    const char *port, *spec = arg;
    uint64_t number;
    int rc = 0;

    (void)f;
    if (spec[0] == 'w') {
        rc = config_set(cli->raw, "gdb.wait", "true", err);
        spec++;
    }
    port = strrchr(spec, ':');
    if (rc == 0 && port != NULL) {
        char *address = strndup(spec, (size_t)(port - spec));

        rc = address == NULL ? error_set(err, -ENOMEM, "no memory for -G")
                             : config_set(cli->raw, "gdb.address", address, err);
        free(address);
    }
    port = port == NULL ? spec : port + 1;
    if (rc == 0 && (parse_u64(port, &number) < 0 || number == 0 || number > 65535))
        rc = error_set(err, -EINVAL, "-G %s: '%s' is not a TCP port", arg, port);
    return rc < 0 ? rc : config_set(cli->raw, "gdb.port", port, err);
}

/* What -f can boot. Those without a second field's key are not built yet. */
static const struct boot_kind {
    const char *name;
    const char *second_key;
    const char *second; /* the field's name, for sentences */
} boot_kinds[] = {
    {"kexec", "boot.initrd", "INITRD"},
    {"multiboot", "boot.modules", "MODULE[;ARGS][:MODULE...]"},
    {"pvh", "boot.initrd", "INITRD"},
    {"bootrom", NULL, NULL},
    {"fbsd", NULL, NULL},
};

/* KERNEL[,SECOND[,CMDLINE]]; the command line is the rest and may hold commas. */
static int set_kernel(struct cli *cli, const struct boot_kind *kind, const char *conf,
                      struct error *err)
{
    size_t kernel_len = strcspn(conf, ",");
    char *kernel = strndup(conf, kernel_len), *second = NULL;
    int rc;

    if (kernel == NULL)
        return error_set(err, -ENOMEM, "no memory for -f");
    if (config_get(cli->raw, "boot.kernel") != NULL)
        rc = error_set(err, -EINVAL, "two kernels to boot, '%s' and '%s'",
                       config_get(cli->raw, "boot.kernel"), kernel);
    else if (kernel[0] == '\0')
        rc = error_set(err, -EINVAL, "-f %s needs a kernel: -f %s,KERNEL[,%s[,CMDLINE]]",
                       kind->name, kind->name, kind->second);
    else
        rc = config_set(cli->raw, "boot.method", kind->name, err);
    if (rc == 0)
        rc = config_set(cli->raw, "boot.kernel", kernel, err);
    if (rc == 0 && conf[kernel_len] == ',') {
        const char *from = conf + kernel_len + 1;
        size_t len = strcspn(from, ",");

        second = strndup(from, len);
        if (second == NULL)
            rc = error_set(err, -ENOMEM, "no memory for -f");
        else if (len > 0)
            rc = config_set(cli->raw, kind->second_key, second, err);
        if (rc == 0 && from[len] == ',')
            rc = config_set(cli->raw, "boot.cmdline", from + len + 1, err);
    }
    free(second);
    free(kernel);
    return rc;
}

static int set_firmware(struct cli *cli, const struct cli_flag *f, const char *arg,
                        struct error *err)
{
    const char *names[countof(boot_kinds)], *near;
    size_t len = strcspn(arg, ",");
    char kind[32];

    (void)f;
    snprintf(kind, sizeof(kind), "%.*s", (int)(len > 31 ? 31 : len), arg);
    for (size_t i = 0; i < countof(boot_kinds); i++) {
        names[i] = boot_kinds[i].name;
        if (strcmp(kind, names[i]) != 0)
            continue;
        if (boot_kinds[i].second_key == NULL)
            return error_set(err, -ENOSYS, "-f %s is not built yet; kexec, multiboot and pvh are",
                             kind);
        return set_kernel(cli, &boot_kinds[i], arg[len] == '\0' ? "" : arg + len + 1, err);
    }
    near = nearest_name(kind, names, countof(names));
    if (near != NULL)
        return error_set(err, -EINVAL, "-f: unknown kind '%s'; did you mean '%s'?", kind, near);
    return error_set(err, -EINVAL,
                     "-f: unknown kind '%s'; known: kexec, multiboot, pvh (and, not built "
                     "yet: bootrom, fbsd)",
                     kind);
}

const struct cli_flag cli_flags[] = {
    {'f', "firmware", "KIND,CONF",
     "what to boot: kexec,KERNEL[,INITRD[,CMDLINE]], "
     "pvh,KERNEL[,INITRD[,CMDLINE]], multiboot,KERNEL[,MODULE[;ARGS][:MODULE...][,CMDLINE]] "
     "(the command line may hold commas)",
     set_firmware, NULL, NULL},
    {'m', "memory", "SIZE",
     "memory, 256M if not given; suffixes k m g t, a bare number below 1048576 means MiB", set_key,
     "memory.size", NULL},
    {'c', "cpus", "N", "vCPUs: [cpus=]N[,sockets=N][,cores=N][,threads=N]", set_cpus, NULL, NULL},
    {'s', "slot", "SLOT,DEV",
     "PCI device: [BUS:]SLOT[:FUNC],DEVICE[,OPTIONS]; -s help lists the devices", cli_slot, NULL,
     NULL},
    {'l', "lpc", "DEV", "device of the LPC bridge: com1,stdio and such; -l help lists them",
     cli_lpc, NULL, NULL},
    {'A', "acpi", NULL, "give the guest ACPI tables", set_key, "acpi_tables", "true"},
    {'Y', "no-mptable", NULL, "no MP table", set_key, "x86.mptable", "false"},
    {'U', "uuid", "UUID", "the machine's UUID (SMBIOS)", set_key, "uuid", NULL},
    {'u', "utc", NULL, "the RTC shows UTC; local time if not given", set_key, "rtc.use_localtime",
     "false"},
    {'a', "xapic", NULL, "local APIC in xAPIC mode", set_key, "x86.x2apic", "false"},
    {'x', "x2apic", NULL, "local APIC in x2APIC mode", set_key, "x86.x2apic", "true"},
    {'W', "msi", NULL, "virtio interrupts by MSI, not MSI-X", set_key, "virtio_msix", "false"},
    {'w', "ignore-msrs", NULL, "unknown MSRs read 0; #GP if not given", set_key, "x86.strictmsr",
     "false"},
    {'e', "strict-io", NULL, "exit on an access to a port that nothing claims", set_key,
     "x86.strictio", "true"},
    {'H', "exit-on-hlt", NULL, "exit to the VMM on HLT", set_key, "x86.vmexit_on_hlt", "true"},
    {'P', "exit-on-pause", NULL, "exit to the VMM on PAUSE", set_key, "x86.vmexit_on_pause",
     "true"},
    {'D', "destroy", NULL, "destroy the VM when it powers off", set_key, "destroy_on_poweroff",
     "true"},
    {'C', "core", NULL, "guest memory in core files (not built yet)", set_key,
     "memory.guest_in_core", "true"},
    {'S', "wire", NULL, "wire guest memory: it is never paged out", set_key, "memory.wired",
     "true"},
    {'p', "pin", "VCPU:CPU", "pin a vCPU to a host CPU (not built yet)", not_built, NULL,
     "pinning vCPUs to host CPUs is not built yet"},
    {'K', "keyboard", "LAYOUT", "keyboard layout (not built yet)", set_key, "keyboard.layout",
     NULL},
    {'b', "bvmcons", NULL, "console at port 0x220 (not built yet)", not_built, NULL,
     "the console at port 0x220 is not built yet; use -l com1,stdio"},
    {'g', "bvmdebug", "PORT", "debug relay at port 0x224 (not built yet)", not_built, NULL,
     "the debug relay at port 0x224 is not built yet"},
    {'G', "gdb", "[w][ADDR:]PORT", "gdb stub (not built yet)", set_gdb, NULL, NULL},
    {'M', "mac", NULL, "print the MAC addresses (not built yet)", not_built, NULL,
     "networking is not built yet, so there are no MAC addresses to print"},
    {'k', "config", "FILE", "read KEY=VALUE lines", cli_config_file, NULL, NULL},
    {'o', "set", "KEY=VALUE", "set one configuration key; config.dump=1 prints them all",
     cli_config_set, NULL, NULL},
    {0, "name", "NAME", "name of the VM; also the last word of the line", set_name, NULL, NULL},
    {'F', "pidfile", "FILE", "write the process id to FILE, which must not exist", set_key,
     "pidfile", NULL},
    {0, "control", "PATH",
     "the socket that xhyvectl uses; off: none. A VM with a name has one of its own", set_key,
     "control", NULL},
    {0, "engine", "ENGINE", "soft, soft,interp, soft,check, kvm, hvf or auto", set_key, "engine",
     NULL},
    {0, "log", "LEVEL", "error, warn, info or debug", set_key, "log.level", NULL},
    {0, "trace", "PATTERN", "trace lines of these modules: 'pci*,lapic'", set_trace, "log.trace",
     NULL},
    {0, "stats", NULL, "print counters at the end", set_key, "stats", "true"},
    {0, "profile", "FILE",
     "write to FILE at the end where the guest has spent its time; - is standard error", set_key,
     "profile", NULL},
    {0, "profile-symbols", "FILE",
     "names for it: ELF, System.map or bzImage; those in the guest's kernel if not given", set_key,
     "profile.symbols", NULL},
    {0, "jit-cache", "DIR", "keep translated code for the next run here; off: nowhere", set_key,
     "jit.cache", NULL},
    {0, "perf-map", NULL, "name translated code for the host's perf in /tmp/perf-PID.map", set_key,
     "jit.perfmap", "true"},
    {'h', "help", NULL, "this text", set_action, NULL, NULL},
    {'v', "version", NULL, "print the version", set_action, NULL, NULL},
};
const size_t cli_flag_count = countof(cli_flags);

/* ---- reading argv ---- */

static int apply(struct cli *cli, const struct cli_flag *f, const char *arg, struct error *err)
{
    return f->set(cli, f, arg, err);
}

/* "--name", "--name=arg", "--name arg". Counts *used arguments. */
static int parse_long(struct cli *cli, char **argv, int left, int *used, struct error *err)
{
    const char *text = argv[0] + 2;
    size_t len = strcspn(text, "=");
    const char *names[64];
    const char *near;

    *used = 1;
    for (size_t i = 0; i < cli_flag_count; i++) {
        const struct cli_flag *f = &cli_flags[i];

        names[i % countof(names)] = f->name;
        if (strncmp(f->name, text, len) != 0 || f->name[len] != '\0')
            continue;
        if (f->arg == NULL && text[len] == '=')
            return error_set(err, -EINVAL, "--%s takes no argument", f->name);
        if (f->arg == NULL)
            return apply(cli, f, NULL, err);
        if (text[len] == '=')
            return apply(cli, f, text + len + 1, err);
        if (left < 2)
            return error_set(err, -EINVAL, "--%s needs an argument: %s", f->name, f->arg);
        *used = 2;
        return apply(cli, f, argv[1], err);
    }
    static_assert(countof(cli_flags) <= countof(names), "names holds every flag");
    near = len < 32 ? nearest_name(text, names, cli_flag_count) : NULL;
    if (near != NULL)
        return error_set(err, -EINVAL, "unknown flag '%s'; did you mean '--%s'?", argv[0], near);
    return error_set(err, -EINVAL, "unknown flag '%s'; see xhyve --help", argv[0]);
}

/* "-AHP", "-m1G", "-m 1G". */
static int parse_short(struct cli *cli, char **argv, int left, int *used, struct error *err)
{
    *used = 1;
    for (const char *p = argv[0] + 1; *p != '\0'; p++) {
        const struct cli_flag *f = NULL;
        int rc;

        for (size_t i = 0; i < cli_flag_count && f == NULL; i++)
            f = cli_flags[i].letter == *p ? &cli_flags[i] : NULL;
        if (f == NULL)
            return error_set(err, -EINVAL, "unknown flag '-%c'; see xhyve --help", *p);
        if (f->arg != NULL && p[1] != '\0')
            return apply(cli, f, p + 1, err);
        if (f->arg != NULL && left < 2)
            return error_set(err, -EINVAL, "-%c needs an argument: %s", *p, f->arg);
        if (f->arg != NULL) {
            *used = 2;
            return apply(cli, f, argv[1], err);
        }
        rc = apply(cli, f, NULL, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int cli_parse_flags(struct cli *cli, int argc, char **argv, struct error *err)
{
    int used, rc = 0;

    cli->words = calloc((size_t)argc + 1, sizeof(*cli->words));
    if (cli->words == NULL)
        return error_set(err, -ENOMEM, "no memory for the command line");
    for (int i = 0; i < argc && rc == 0; i += used) {
        used = 1;
        if (strcmp(argv[i], "--") == 0) {
            cli->rest = argv + i + 1;
            cli->rest_count = (size_t)(argc - i - 1);
            break;
        }
        if (argv[i][0] == '-' && argv[i][1] == '-')
            rc = parse_long(cli, argv + i, argc - i, &used, err);
        else if (argv[i][0] == '-' && argv[i][1] != '\0')
            rc = parse_short(cli, argv + i, argc - i, &used, err);
        else
            cli->words[cli->word_count++] = argv[i];
    }
    return rc;
}
