#include "host/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/eventfd.h>
#endif

int fd_setup(int fd, bool nonblock)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0)
        return -errno;
    flags = nonblock ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
    if (fcntl(fd, F_SETFL, flags) < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
        return -errno;
    return 0;
}

int fd_pipe(int fds[2])
{
    int rc;

    if (pipe(fds) < 0)
        return -errno;
    rc = fd_setup(fds[0], true);
    if (rc == 0)
        rc = fd_setup(fds[1], true);
    if (rc < 0) {
        close(fds[0]);
        close(fds[1]);
    }
    return rc;
}

int fd_event(void)
{
#ifdef __linux__
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

    return fd >= 0 ? fd : -errno;
#else
    return -ENOSYS;
#endif
}

int fd_reopen_write(int fd)
{
    struct stat st;
    char path[64];
    int copy;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISFIFO(st.st_mode) && !isatty(fd))
        return -ENOTSUP;
#ifdef __linux__
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
#else
    /* Opening /dev/fd/N here is dup(2), which shares the flags; a terminal has a name at least. */
    if (!isatty(fd) || ttyname_r(fd, path, sizeof(path)) != 0)
        return -ENOTSUP;
#endif
    copy = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    return copy < 0 ? -errno : copy;
}

int fd_accept(int listener)
{
    int fd = accept(listener, NULL, NULL);
    int rc;

    if (fd < 0)
        return -errno;
    rc = fd_setup(fd, true);
    if (rc < 0) {
        close(fd);
        return rc;
    }
    fd_no_sigpipe(fd);
    return fd;
}

ssize_t fd_send(int fd, const void *data, size_t len)
{
#ifdef MSG_NOSIGNAL
    ssize_t n = send(fd, data, len, MSG_DONTWAIT | MSG_NOSIGNAL);
#else
    ssize_t n = send(fd, data, len, MSG_DONTWAIT);
#endif

    return n < 0 ? -errno : n;
}

void fd_no_sigpipe(int fd)
{
#ifdef SO_NOSIGPIPE
    int on = 1;

    (void)setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof(on));
#else
    (void)fd; /* fd_send does it */
#endif
}
