#include "ctl/place.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool own_dir(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid();
}

static int write_dir(char *to, size_t room)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    struct stat st;
    int n;

    /* root may have come by a shell that still has its user's: not there */
    if (runtime != NULL && runtime[0] == '/' && own_dir(runtime))
        n = snprintf(to, room, "%s/xhyve", runtime);
    else if (geteuid() == 0)
        n = snprintf(to, room, "%s/xhyve", stat("/run", &st) == 0 ? "/run" : "/var/run");
    else
        n = snprintf(to, room, "/tmp/xhyve-%lu", (unsigned long)geteuid());
    return n < 0 || (size_t)n >= room ? -ENAMETOOLONG : 0;
}

/* Not host_own_dir: in /tmp the name itself may be somebody's trap, so no link is followed. */
static int check_dir(const char *path, struct error *err)
{
    struct stat st;

    if (lstat(path, &st) < 0)
        return error_set(err, -errno, "cannot look at %s: %s", path, strerror(errno));
    if (S_ISLNK(st.st_mode))
        return error_set(err, -EPERM, "%s is a link, and must be a directory: remove it", path);
    if (!S_ISDIR(st.st_mode))
        return error_set(err, -ENOTDIR, "%s is not a directory: remove it", path);
    if (st.st_uid != geteuid())
        return error_set(err, -EPERM,
                         "%s belongs to user %lu: have it removed, or give a path of your own",
                         path, (unsigned long)st.st_uid);
    if ((st.st_mode & 077) != 0)
        return error_set(err, -EPERM, "%s is open to others: chmod 700 it", path);
    return 0;
}

int ctl_place_dir(bool make, char *to, size_t room, struct error *err)
{
    int rc = write_dir(to, room);

    if (rc < 0)
        return error_set(err, rc, "the path of the directory of control sockets is too long");
    if (make && mkdir(to, 0700) < 0 && errno != EEXIST)
        return error_set(err, -errno, "cannot make the directory %s: %s", to, strerror(errno));
    return check_dir(to, err);
}

int ctl_place_socket(const char *name, bool make, char *to, size_t room, struct error *err)
{
    int rc = ctl_place_dir(make, to, room, err);
    size_t at;

    if (rc < 0)
        return rc;
    at = strlen(to);
    if ((size_t)snprintf(to + at, room - at, "/%s" CTL_SUFFIX, name) >= room - at)
        return error_set(err, -ENAMETOOLONG, "the path of the control socket is too long");
    return 0;
}
