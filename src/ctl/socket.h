/*
 * The file of a control socket, and whose it is. Beside PATH lies PATH.lock, locked as long as its
 * VM lives; so whether a socket that lies there is a live VM's is known, not guessed. Any thread,
 * no state but what is returned.
 */
#ifndef CTL_SOCKET_H
#define CTL_SOCKET_H

#include "base/error.h"

struct ctl_socket {
    int fd;   /* listens, does not block */
    int lock; /* the lock file */
    char path[108];
    char lock_path[128];
};

/*
 * 0, or -errno and a sentence: -EBUSY if a VM that runs has the path, -EEXIST for what lies there
 * and no VM has left.
 */
int ctl_socket_open(const char *path, struct ctl_socket *out, struct error *err);

/* Removes both files and lets go of the name. */
void ctl_socket_close(struct ctl_socket *s);

#endif
