#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

int cli_pidfile_create(const char *path, struct error *err)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    char text[24];
    int len;

    if (fd < 0 && errno == EEXIST)
        return error_set(
            err, -EEXIST,
            "the pid file %s exists: another VM runs, or it was left behind; remove it", path);
    if (fd < 0)
        return error_set(err, -errno, "cannot create the pid file %s: %s", path, strerror(errno));
    len = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
    if (write(fd, text, (size_t)len) != len) {
        int code = errno;

        close(fd);
        unlink(path);
        return error_set(err, -code, "cannot write the pid file %s: %s", path, strerror(code));
    }
    close(fd);
    return 0;
}
