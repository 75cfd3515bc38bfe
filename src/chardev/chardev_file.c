/* "file=PATH" and "null": output without a peer. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "chardev/kinds.h"

/* Emptied first, as a shell's > would. A FIFO needs its reader there already (ENXIO). */
static int file_open(struct chardev *c, const char *arg, struct error *err)
{
    int fd;

    if (arg == NULL || arg[0] == '\0')
        return error_set(err, -EINVAL, "back end 'file' needs a path: file=PATH");
    fd = open(arg, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0666);
    if (fd < 0) {
        int code = -errno;

        return error_set(err, code, "cannot open '%s' for output: %s", arg,
                         code == -ENXIO ? "nothing reads it" : strerror(-code));
    }
    c->owned[0] = fd;
    return chardev_attach(c, -1, fd, err);
}

const struct chardev_kind chardev_file = {
    .name = "file",
    .in_size = 16,
    .out_size = 1 * MIB,
    .flush_ns = CHARDEV_SECOND,
    .open = file_open,
};

static int null_open(struct chardev *c, const char *arg, struct error *err)
{
    if (arg != NULL)
        return error_set(err, -EINVAL, "back end 'null' takes no argument");
    c->out_off = true;
    return 0;
}

const struct chardev_kind chardev_null = {
    .name = "null",
    .in_size = 16,
    .out_size = 16,
    .open = null_open,
};
