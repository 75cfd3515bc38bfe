#include "ctl/socket.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "host/fd.h"
#include "host/file.h"

#define BACKLOG 8

static_assert(sizeof(((struct sockaddr_un *)0)->sun_path) <= sizeof(((struct ctl_socket *)0)->path),
              "a socket's path fits");

/* ---- the lock ---- */

/* The lock's file, made if it is not there; *left: it was. */
static int open_lock(const char *path, bool *left, struct error *err)
{
    struct stat st;
    int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);

    *left = fd >= 0;
    if (fd < 0 && errno == ENOENT)
        fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
    if (fd < 0)
        return error_set(err, -errno, "cannot make the lock file %s: %s", path, strerror(errno));
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid()) {
        close(fd);
        return error_set(err, -EPERM,
                         "%s is not a file of your own: remove it, or give another path", path);
    }
    return fd;
}

/* True if the path still leads to this file: who ends removes it, perhaps after we had opened it.
 */
static bool still_there(int fd, const char *path)
{
    struct stat a, b;

    return fstat(fd, &a) == 0 && lstat(path, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

static int take_lock(struct ctl_socket *s, bool *left, struct error *err)
{
    int rc;

    for (;;) {
        s->lock = open_lock(s->lock_path, left, err);
        if (s->lock < 0)
            return s->lock;
        rc = hfile_lock(s->lock, true);
        if (rc == 0 && still_there(s->lock, s->lock_path))
            break;
        if (rc == -EAGAIN) {
            int pid = hfile_lock_holder(s->lock);

            rc = pid > 0
                     ? error_set(err, -EBUSY, "%s is in use by the VM of process %d", s->path, pid)
                     : error_set(err, -EBUSY, "%s is in use by another VM", s->path);
        } else if (rc < 0) {
            rc = error_set(err, rc, "cannot lock %s: %s", s->lock_path, strerror(-rc));
        }
        close(s->lock);
        s->lock = -1;
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ---- the socket ---- */

/* left: a VM was here, and has left what lies there. */
static int make_room(const struct ctl_socket *s, bool left, struct error *err)
{
    struct stat st;

    if (lstat(s->path, &st) < 0)
        return errno == ENOENT
                   ? 0
                   : error_set(err, -errno, "cannot look at %s: %s", s->path, strerror(errno));
    if (!left || !S_ISSOCK(st.st_mode))
        return error_set(err, -EEXIST,
                         "%s exists and no VM has left it there: remove it, or give another path",
                         s->path);
    if (unlink(s->path) < 0)
        return error_set(err, -errno, "cannot remove the old socket %s: %s", s->path,
                         strerror(errno));
    return 0;
}

static int bind_socket(struct ctl_socket *s, struct error *err)
{
    struct sockaddr_un sun = {.sun_family = AF_UNIX};
    int rc;

    memcpy(sun.sun_path, s->path, strlen(s->path) + 1);
    s->fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (s->fd < 0)
        return error_set(err, -errno, "cannot make a socket: %s", strerror(errno));
    rc = fd_setup(s->fd, true);
    if (rc == 0 && bind(s->fd, (const struct sockaddr *)&sun, sizeof(sun)) < 0)
        rc = -errno;
    if (rc < 0)
        return error_set(err, rc, "cannot make the socket %s: %s", s->path, strerror(-rc));
    /* nobody gets through before listen, so there is no moment at which others could */
    if (chmod(s->path, 0600) < 0 || listen(s->fd, BACKLOG) < 0) {
        rc = error_set(err, -errno, "cannot listen on %s: %s", s->path, strerror(errno));
        unlink(s->path);
    }
    return rc;
}

static void let_go(struct ctl_socket *s)
{
    if (s->fd >= 0)
        close(s->fd);
    if (s->lock >= 0) {
        unlink(s->lock_path); /* while it is locked: see still_there */
        close(s->lock);
    }
    s->fd = s->lock = -1;
}

int ctl_socket_open(const char *path, struct ctl_socket *out, struct error *err)
{
    size_t room = sizeof(((struct sockaddr_un *)0)->sun_path);
    bool left = false;
    int rc;

    *out = (struct ctl_socket){.fd = -1, .lock = -1};
    if (path[0] == '\0' || strlen(path) >= room)
        return error_set(err, -ENAMETOOLONG,
                         "the path of a socket has 1 to %zu bytes, '%.40s...' has %zu", room - 1,
                         path, strlen(path));
    snprintf(out->path, sizeof(out->path), "%s", path);
    snprintf(out->lock_path, sizeof(out->lock_path), "%s.lock", path);
    rc = take_lock(out, &left, err);
    if (rc == 0)
        rc = make_room(out, left, err);
    if (rc == 0)
        rc = bind_socket(out, err);
    if (rc < 0)
        let_go(out);
    return rc;
}

void ctl_socket_close(struct ctl_socket *s)
{
    if (s->fd >= 0)
        unlink(s->path);
    let_go(s);
}
