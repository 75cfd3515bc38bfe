/* What --help, -s help and -l help print; all of it comes from tables. */
#include "cli/cli.h"

#include <string.h>

#define HELP_COLUMN 32
#define HELP_WIDTH 80

void cli_usage(FILE *to)
{
    fputs("usage: xhyve run [FLAGS] KERNEL [INITRD | MODULE...] [-- CMDLINE]\n"
          "       xhyve [FLAGS] -f kexec,KERNEL,INITRD,CMDLINE [NAME]\n"
          "       xhyve --help\n",
          to);
}

/* How much of text goes on a line of `room` columns: whole words, at least one. */
static size_t line_length(const char *text, size_t room)
{
    size_t len = 0, next;

    do {
        next = len + strspn(text + len, " ");
        next += strcspn(text + next, " ");
        if (len > 0 && next > room)
            break;
        len = next;
    } while (text[len] != '\0');
    return len;
}

/* A column of names and one of text. */
static void help_row(FILE *to, const char *left, const char *text)
{
    int used = fprintf(to, "  %s", left);

    if (used >= HELP_COLUMN) {
        fputc('\n', to);
        used = 0;
    }
    do {
        size_t len = line_length(text, HELP_WIDTH - HELP_COLUMN);

        fprintf(to, "%*s%.*s\n", HELP_COLUMN - used, "", (int)len, text);
        text += len;
        text += strspn(text, " ");
        used = 0;
    } while (*text != '\0');
}

void cli_help(FILE *to)
{
    fputs("xhyve runs a virtual machine: one process, no privilege.\n\n", to);
    cli_usage(to);
    fputs("\n", to);
    for (size_t i = 0; i < cli_flag_count; i++) {
        const struct cli_flag *f = &cli_flags[i];
        char left[96];
        int n = f->letter != 0 ? snprintf(left, sizeof(left), "-%c, ", f->letter)
                               : snprintf(left, sizeof(left), "    ");

        snprintf(left + n, sizeof(left) - (size_t)n, "--%s%s%s", f->name, f->arg != NULL ? " " : "",
                 f->arg != NULL ? f->arg : "");
        help_row(to, left, f->help);
    }
    fputs("\nxhyve run takes the same flags; it adds ACPI, 1G of memory, a serial console and a\n"
          "random number device where they do not say otherwise, and prints the full line.\n"
          "On the console Ctrl-A x ends the VM and Ctrl-A Ctrl-A sends a Ctrl-A.\n"
          "\nExit status: 0 reboot, 1 power off, 2 halt, 3 triple fault, 4 error, 5 suspended.\n"
          "The manual page xhyve(8) says more.\n",
          to);
}

static void option_rows(FILE *to, const struct dev_option *table, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const struct dev_option *o = &table[i];
        const char *value = o->value_name != NULL ? o->value_name : "VALUE";
        char left[96];

        if (o->type == OPT_BOOL)
            snprintf(left, sizeof(left), "  %s", o->name);
        else if (o->positional)
            snprintf(left, sizeof(left), "  [%s=]%s", o->name, value);
        else
            snprintf(left, sizeof(left), "  %s=%s", o->name, value);
        help_row(to, left, o->help);
    }
}

void cli_slot_help(const struct cli_tables *tables, FILE *to)
{
    fputs("-s [BUS:]SLOT[:FUNC],DEVICE[,OPTIONS] with DEVICE one of:\n", to);
    if (tables->pci[0] == NULL)
        fputs("  (none is built yet)\n", to);
    for (const struct pci_ops *const *p = tables->pci; *p != NULL; p++) {
        help_row(to, (*p)->name, (*p)->summary);
        option_rows(to, (*p)->options, (*p)->option_count);
    }
}

void cli_lpc_help(const struct cli_tables *tables, FILE *to)
{
    fputs("-l DEVICE[,OPTIONS] with DEVICE one of:\n", to);
    for (size_t i = 0; i < cli_lpc_device_count; i++) {
        const struct cli_lpc_device *d = &cli_lpc_devices[i];

        help_row(to, d->name, d->summary);
        option_rows(to, d->options, d->option_count);
    }
    if (tables->chardevs == NULL)
        return;
    fputs("\nBACKEND of a serial port (none given: null):\n", to);
    for (const char *const *p = tables->chardevs; p[0] != NULL && p[1] != NULL; p += 2)
        help_row(to, p[0], p[1]);
}
