/*
 * "autopty[=LINK]", a new pseudo-terminal, and "/dev/PATH", an existing terminal device.
 *
 * We hold the new pty's other side open ourselves. So it keeps its raw mode when readers come and
 * go, and none of them causes a hang-up, which a poll would report for ever.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "base/bits.h"
#include "chardev/kinds.h"
#include "host/fd.h"

static int make_raw(int fd, struct termios *saved)
{
    struct termios t;

    if (tcgetattr(fd, &t) < 0)
        return -errno;
    if (saved != NULL)
        *saved = t;
    cfmakeraw(&t);
    t.c_cflag |= CLOCAL | CREAD;
    t.c_cc[VMIN] = 1;
    t.c_cc[VTIME] = 0;
    return tcsetattr(fd, TCSANOW, &t) < 0 ? -errno : 0;
}

/* ---- autopty ---- */

struct autopty {
    char *link; /* NULL: none, or not ours */
    char path[128];
};

/* A link left over from an earlier run is replaced; anything else there is somebody's. */
static int pty_link(struct autopty *p, const char *link, struct error *err)
{
    struct stat st;
    int rc = symlink(p->path, link) < 0 ? -errno : 0;

    if (rc == -EEXIST && lstat(link, &st) == 0 && S_ISLNK(st.st_mode) && unlink(link) == 0)
        rc = symlink(p->path, link) < 0 ? -errno : 0;
    if (rc < 0)
        return error_set(err, rc, "cannot make '%s' a link to the pty: %s", link, strerror(-rc));
    p->link = strdup(link);
    return p->link == NULL ? error_set(err, -ENOMEM, "no memory for back end 'autopty'") : 0;
}

/* Fills owned[0] with our side, owned[1] with the other, and path. */
static int pty_pair(struct chardev *c, struct autopty *p)
{
    int fd = posix_openpt(O_RDWR | O_NOCTTY), rc;

    if (fd < 0)
        return -errno;
    c->owned[0] = fd;
    rc = fd_setup(fd, true);
    if (rc < 0)
        return rc;
    if (grantpt(fd) < 0 || unlockpt(fd) < 0)
        return -errno;
    rc = ptsname_r(fd, p->path, sizeof(p->path));
    if (rc != 0)
        return rc > 0 ? -rc : -errno;
    c->owned[1] = open(p->path, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (c->owned[1] < 0)
        return -errno;
    return make_raw(c->owned[1], NULL);
}

static int autopty_open(struct chardev *c, const char *arg, struct error *err)
{
    struct autopty *p;
    int rc;

    if (arg != NULL && arg[0] == '\0')
        return error_set(err, -EINVAL, "back end 'autopty=' lacks the link's path");
    c->impl = p = calloc(1, sizeof(*p));
    if (p == NULL)
        return error_set(err, -ENOMEM, "no memory for back end 'autopty'");
    rc = pty_pair(c, p);
    if (rc < 0)
        return error_set(err, rc, "cannot make a pty: %s", strerror(-rc));
    if (arg != NULL)
        rc = pty_link(p, arg, err);
    if (rc == 0)
        rc = chardev_attach(c, c->owned[0], c->owned[0], err);
    if (rc == 0)
        log_info(c->log, "%s: connected to pty %s", c->name, p->path);
    return rc;
}

static void autopty_close(struct chardev *c)
{
    struct autopty *p = c->impl;
    char target[sizeof(p->path)];
    ssize_t n;

    if (p == NULL)
        return;
    if (p->link != NULL) {
        n = readlink(p->link, target, sizeof(target));
        if (n == (ssize_t)strlen(p->path) && memcmp(target, p->path, (size_t)n) == 0)
            unlink(p->link);
    }
    free(p->link);
    free(p);
}

const struct chardev_kind chardev_autopty = {
    .name = "autopty",
    .in_size = 4 * KIB,
    .out_size = 64 * KIB,
    .flush_ns = CHARDEV_SECOND / 10, /* nobody may be there, and we cannot tell */
    .open = autopty_open,
    .close = autopty_close,
};

/* ---- a terminal device ---- */

static int tty_open(struct chardev *c, const char *arg, struct error *err)
{
    struct termios *saved;
    int fd = open(arg, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC), rc;

    if (fd < 0) {
        rc = -errno;
        return error_set(err, rc, "cannot open '%s': %s", arg, strerror(-rc));
    }
    c->owned[0] = fd;
    if (!isatty(fd))
        return error_set(err, -EINVAL, "'%s' is not a terminal; for a file write file=%s", arg,
                         arg);
    saved = calloc(1, sizeof(*saved));
    if (saved == NULL)
        return error_set(err, -ENOMEM, "no memory for back end '%s'", arg);
    rc = make_raw(fd, saved);
    if (rc < 0) {
        free(saved);
        return error_set(err, rc, "cannot set up terminal '%s': %s", arg, strerror(-rc));
    }
    c->impl = saved; /* only now is there something to restore */
    return chardev_attach(c, fd, fd, err);
}

static void tty_close(struct chardev *c)
{
    if (c->impl != NULL)
        tcsetattr(c->owned[0], TCSANOW, c->impl);
    free(c->impl);
}

const struct chardev_kind chardev_tty = {
    .name = "tty",
    .in_size = 4 * KIB,
    .out_size = 64 * KIB,
    .flush_ns = CHARDEV_SECOND,
    .open = tty_open,
    .close = tty_close,
};
