/*
 * What every user of descriptors needs and POSIX spells differently from host to host: pipes and
 * sockets that close on exec and do not block. Any thread, no state.
 */
#ifndef HOST_FD_H
#define HOST_FD_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* A pipe, both ends non-blocking and closed on exec. 0 or -errno. */
int fd_pipe(int fds[2]);

/*
 * An eventfd: writes of 8 bytes add to its count, a read takes it and leaves 0, or fails with
 * EAGAIN. Non-blocking, closed on exec. -errno; -ENOSYS: this host has no such thing.
 */
int fd_event(void);

/* Close on exec, and non-blocking or not. 0 or -errno. */
int fd_setup(int fd, bool nonblock);

/*
 * A second, non-blocking way to the pipe or terminal behind fd, open for writing: O_NONBLOCK on fd
 * itself would be seen by every process that shares it (the user's shell). -errno if the host
 * cannot; the caller then keeps to what poll promises.
 */
int fd_reopen_write(int fd);

/* accept(2) with fd_setup(fd, true). The descriptor or -errno. */
int fd_accept(int listener);

/* send(2) that neither blocks nor raises SIGPIPE. The count or -errno. */
ssize_t fd_send(int fd, const void *data, size_t len);

/* No SIGPIPE from send(2) on this socket, where that is an option of the socket; fd_accept has done
 * it. */
void fd_no_sigpipe(int fd);

#endif
