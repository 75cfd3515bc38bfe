/* Who is at the other end of a Unix socket. Any thread, no state. */
#ifndef HOST_PEER_H
#define HOST_PEER_H

#include <sys/types.h>

/* The effective user who connected (or listened), as the kernel noted it then. 0 or -errno. */
int peer_user(int fd, uid_t *uid);

#endif
