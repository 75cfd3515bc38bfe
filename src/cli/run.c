/*
 * The short form: "xhyve run KERNEL [INITRD] [-- CMDLINE]" stands for a full line, which this file
 * writes. The kernel's content says how it is booted; a multiboot kernel takes any number of
 * modules. Every default gives way to a flag that says otherwise:
 *
 *   xhyve run -m 2G vmlinuz initrd.gz -- quiet
 *   xhyve -A -s 0:0,hostbridge -s 31,lpc -s 1,virtio-rnd -l com1,stdio -m 2G \
 *         -f 'kexec,vmlinuz,initrd.gz,console=ttyS0 quiet'
 */
#include "cli/cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "boot/identify.h"
#include "vmm/devices.h"

struct line {
    char **argv;
    size_t count, room;
    bool failed; /* no memory: remembered, looked at once */
};

static void line_add(struct line *l, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void line_add(struct line *l, const char *fmt, ...)
{
    va_list ap;

    if (l->count == l->room) {
        size_t room = l->room == 0 ? 32 : 2 * l->room;
        char **grown = realloc(l->argv, room * sizeof(*grown));

        if (grown == NULL) {
            l->failed = true;
            return;
        }
        l->argv = grown;
        l->room = room;
    }
    va_start(ap, fmt);
    if (vasprintf(&l->argv[l->count], fmt, ap) < 0)
        l->failed = true;
    else
        l->count++;
    va_end(ap);
}

/* True if a PCI function has this option or "device" with this value. */
static bool has_pci(const struct config *raw, const char *option, const char *want)
{
    const struct config *pci = config_find(raw, "pci"), *bus, *slot, *func;

    for (size_t b = 0; pci != NULL && (bus = config_child(pci, b, NULL)) != NULL; b++) {
        for (size_t s = 0; (slot = config_child(bus, s, NULL)) != NULL; s++) {
            for (size_t f = 0; (func = config_child(slot, f, NULL)) != NULL; f++) {
                const char *value = config_get(func, option);

                if (value != NULL && strcmp(value, want) == 0)
                    return true;
            }
        }
    }
    return false;
}

static bool slot_free(const struct config *raw, unsigned slot)
{
    char key[32];

    snprintf(key, sizeof(key), "pci.0.%u", slot);
    return config_find(raw, key) == NULL;
}

static bool stdio_taken(const struct config *raw)
{
    char key[32];
    const char *path;

    for (unsigned i = 1; i <= 4; i++) {
        snprintf(key, sizeof(key), "lpc.com%u.path", i);
        path = config_get(raw, key);
        if (path != NULL && strcmp(path, "stdio") == 0)
            return true;
    }
    return has_pci(raw, "backend", "stdio");
}

static void add_defaults(struct line *l, const struct cli *c)
{
    const struct config *raw = c->raw;

    if (config_get(raw, "acpi_tables") == NULL)
        line_add(l, "-A");
    if (config_get(raw, "memory.size") == NULL) {
        line_add(l, "-m");
        line_add(l, "1G");
    }
    if (slot_free(raw, 0)) {
        line_add(l, "-s");
        line_add(l, "0:0,hostbridge");
    }
    if (!has_pci(raw, "device", "lpc") && slot_free(raw, 31)) {
        line_add(l, "-s");
        line_add(l, "31,lpc");
    }
    for (unsigned slot = 1; slot < 31 && !has_pci(raw, "device", "virtio-rnd"); slot++) {
        if (!slot_free(raw, slot))
            continue;
        line_add(l, "-s");
        line_add(l, "%u,virtio-rnd", slot);
        break;
    }
    if (config_find(raw, "lpc.com1") == NULL && !stdio_taken(raw)) {
        line_add(l, "-l");
        line_add(l, "com1,stdio");
    }
}

/* The words after "--", behind a console if this is Linux and they name none. */
static char *command_line(const struct cli *c, bool linux_words)
{
    bool console = !linux_words;
    char *text = NULL;
    size_t len = 0;
    FILE *f;

    for (size_t i = 0; i < c->rest_count; i++)
        console |= strncmp(c->rest[i], "console=", 8) == 0 || strstr(c->rest[i], " console=");
    f = open_memstream(&text, &len);
    if (f == NULL)
        return NULL;
    if (!console)
        fputs("console=ttyS0", f);
    for (size_t i = 0; i < c->rest_count; i++)
        fprintf(f, "%s%s", console && i == 0 ? "" : " ", c->rest[i]);
    if (fclose(f) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

/* The words after the kernel, as the second field has them; malloced. */
static char *second_files(const struct cli *c)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);

    if (f == NULL)
        return NULL;
    for (size_t i = 1; i < c->word_count; i++)
        fprintf(f, "%s%s", i > 1 ? ":" : "", c->words[i]);
    if (fclose(f) != 0) {
        free(text);
        return NULL;
    }
    return text;
}

/* -f cannot hold a path with a comma; then the keys that it stands for. */
static void add_boot(struct line *l, const char *method, const char *kernel, const char *second,
                     const char *cmdline)
{
    if (strchr(kernel, ',') == NULL && strchr(second, ',') == NULL) {
        line_add(l, "-f");
        if (second[0] != '\0' || cmdline[0] != '\0')
            line_add(l, "%s,%s,%s%s%s", method, kernel, second, cmdline[0] != '\0' ? "," : "",
                     cmdline);
        else
            line_add(l, "%s,%s", method, kernel);
        return;
    }
    line_add(l, "-o");
    line_add(l, "boot.method=%s", method);
    line_add(l, "-o");
    line_add(l, "boot.kernel=%s", kernel);
    if (second[0] != '\0') {
        line_add(l, "-o");
        line_add(l, "boot.%s=%s", strcmp(method, "multiboot") == 0 ? "modules" : "initrd", second);
    }
    if (cmdline[0] != '\0') {
        line_add(l, "-o");
        line_add(l, "boot.cmdline=%s", cmdline);
    }
}

/* The kernel's words, its kind by its content. */
static int add_kernel(struct line *l, const struct cli *c, struct error *err)
{
    static const char *const methods[] = {
        [KERNEL_LINUX] = "kexec",
        [KERNEL_MULTIBOOT] = "multiboot",
        [KERNEL_PVH] = "pvh",
    };
    char *cmdline, *second;
    enum kernel_kind kind;
    bool linux_words;

    if (c->word_count == 0)
        return error_set(err, -EINVAL,
                         "run needs a kernel: xhyve run KERNEL [INITRD | MODULE...] [-- CMDLINE]");
    kind = kernel_identify(c->words[0], &linux_words);
    if (kind != KERNEL_MULTIBOOT && c->word_count > 2)
        return error_set(err, -EINVAL,
                         "unexpected word '%s': xhyve run KERNEL [INITRD] [-- CMDLINE]",
                         c->words[2]);
    for (size_t i = 1; kind == KERNEL_MULTIBOOT && i < c->word_count; i++) {
        if (strchr(c->words[i], ':') != NULL)
            return error_set(err, -EINVAL,
                             "module '%s' has a colon in its name, which separates modules; rename "
                             "it",
                             c->words[i]);
    }
    cmdline = command_line(c, linux_words);
    second = second_files(c);
    if (cmdline != NULL && second != NULL)
        add_boot(l, methods[kind], c->words[0], second, cmdline);
    else
        l->failed = true;
    free(cmdline);
    free(second);
    return 0;
}

static int build(struct line *l, const struct cli *c, int argc, char **argv, struct error *err)
{
    size_t word = 0;
    int rc = 0;

    if (c->action == CLI_RUN)
        add_defaults(l, c);
    for (int i = 0; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (word < c->word_count && argv[i] == c->words[word])
            word++;
        else
            line_add(l, "%s", argv[i]);
    }
    if (c->action == CLI_RUN)
        rc = add_kernel(l, c, err);
    if (rc < 0)
        return rc;
    return l->failed ? error_set(err, -ENOMEM, "no memory for the command line") : 0;
}

int cli_run_expand(const struct cli_tables *tables, int argc, char **argv, char ***out,
                   size_t *count, struct error *err)
{
    struct cli scratch = {.tables = tables};
    struct line l = {0};
    int rc;

    scratch.raw = config_create();
    if (scratch.raw == NULL)
        return error_set(err, -ENOMEM, "no memory for the configuration");
    rc = cli_parse_flags(&scratch, argc, argv, err);
    if (rc == 0)
        rc = build(&l, &scratch, argc, argv, err);
    cli_fini(&scratch);
    *out = l.argv;
    *count = l.count;
    return rc;
}

char *cli_shell_line(char *const *argv, size_t count)
{
    static const char safe[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                               "_@%+=:,./-";
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);

    if (f == NULL)
        return NULL;
    fputs("xhyve", f);
    for (size_t i = 0; i < count; i++) {
        const char *word = argv[i];

        fputc(' ', f);
        if (word[0] != '\0' && word[strspn(word, safe)] == '\0') {
            fputs(word, f);
            continue;
        }
        fputc('\'', f);
        for (; *word != '\0'; word++) {
            if (*word == '\'')
                fputs("'\\''", f);
            else
                fputc(*word, f);
        }
        fputc('\'', f);
    }
    if (fclose(f) != 0) {
        free(text);
        return NULL;
    }
    return text;
}
