#include "host/peer.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#ifdef __linux__
int peer_user(int fd, uid_t *uid)
{
    struct ucred who;
    socklen_t len = sizeof(who);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) < 0)
        return -errno;
    if (len != sizeof(who))
        return -EPROTO;
    *uid = who.uid;
    return 0;
}
#else
int peer_user(int fd, uid_t *uid)
{
    gid_t gid;

    return getpeereid(fd, uid, &gid) < 0 ? -errno : 0;
}
#endif
