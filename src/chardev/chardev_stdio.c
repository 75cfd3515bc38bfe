/*
 * "stdio": the process's standard input and output.
 *
 * On a terminal it is put into raw mode and Ctrl-A starts a command: x quits, h helps, a second
 * Ctrl-A is one for the guest. Otherwise every byte is the guest's, and the end of input is only
 * that: the guest runs on.
 *
 * "stdio=output" is standard output alone: the terminal stays as it is, and several devices may
 * write there.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "chardev/kinds.h"
#include "host/fd.h"
#include "host/term.h"

#define CTRL_A 0x01
#define TERMINAL_CHUNK 64u /* a terminal that polls writable may still take less than PIPE_BUF */

struct stdio {
    bool terminal; /* input is one, and raw */
    bool escaped;  /* Ctrl-A was typed */
};

static const char help[] = "\r\nCtrl-A x       quit\r\n"
                           "Ctrl-A Ctrl-A  send Ctrl-A\r\n"
                           "Ctrl-A h       this help\r\n";

/* The byte after Ctrl-A. True if it is for the guest. */
static bool stdio_command(struct chardev *c, uint8_t byte)
{
    switch (byte) {
    case 'x':
    case 'X':
        if (c->events != NULL && c->events->quit != NULL)
            c->events->quit(c->ctx);
        return false;
    case 'h':
    case 'H':
    case '?':
        chardev_write(c, help, sizeof(help) - 1);
        return false;
    default:
        return byte == CTRL_A;
    }
}

static size_t stdio_filter(struct chardev *c, uint8_t *data, size_t len)
{
    struct stdio *s = c->impl;
    size_t kept = 0;

    if (!s->terminal)
        return len;
    for (size_t i = 0; i < len; i++) {
        bool pass = true;

        if (s->escaped) {
            s->escaped = false;
            pass = stdio_command(c, data[i]);
        } else if (data[i] == CTRL_A) {
            s->escaped = true;
            pass = false;
        }
        if (pass)
            data[kept++] = data[i];
    }
    return kept;
}

/*
 * Standard output is shared with whoever started us, so its flags stay as they are: we open it a
 * second time, or else write no more at once than a ready pipe or terminal takes.
 */
static int stdio_output(struct chardev *c)
{
    struct stat st;
    int fd = fd_reopen_write(STDOUT_FILENO);

    if (fd >= 0) {
        c->owned[0] = fd;
        return fd;
    }
    if (fstat(STDOUT_FILENO, &st) == 0 && !S_ISREG(st.st_mode)) {
        c->out_careful = true;
        c->out_max = isatty(STDOUT_FILENO) ? TERMINAL_CHUNK : PIPE_BUF;
    }
    return STDOUT_FILENO;
}

static int stdio_open(struct chardev *c, const char *arg, struct error *err)
{
    bool output = arg != NULL && strcmp(arg, "output") == 0;
    struct stdio *s;
    int rc;

    if (arg != NULL && !output)
        return error_set(err, -EINVAL, "back end 'stdio' takes no argument but 'output'");
    c->impl = s = calloc(1, sizeof(*s));
    if (s == NULL)
        return error_set(err, -ENOMEM, "no memory for back end 'stdio'");
    rc = chardev_attach(c, output ? -1 : STDIN_FILENO, stdio_output(c), err);
    if (rc < 0 || output || !isatty(STDIN_FILENO))
        return rc;
    rc = term_raw(STDIN_FILENO, err);
    if (rc < 0)
        return rc;
    s->terminal = true;
    c->in_discard = true; /* Ctrl-A x must be heard though the guest reads nothing */
    log_set_crlf(c->log, true);
    return 0;
}

static void stdio_close(struct chardev *c)
{
    struct stdio *s = c->impl;

    if (s != NULL && s->terminal) {
        term_restore();
        log_set_crlf(c->log, false);
    }
    free(s);
}

const struct chardev_kind chardev_stdio = {
    .name = "stdio",
    .in_size = 64 * KIB,
    .out_size = 1 * MIB,
    .flush_ns = CHARDEV_SECOND,
    .open = stdio_open,
    .close = stdio_close,
    .filter = stdio_filter,
};
