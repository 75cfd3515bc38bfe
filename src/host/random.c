#include "host/random.h"

#include <errno.h>
#include <stdlib.h>

#ifdef __linux__
#include <fcntl.h>
#include <sys/random.h>
#include <unistd.h>

/* Where the system call is forbidden or unknown. */
static int from_device(unsigned char *to, size_t len)
{
    int fd = open("/dev/urandom", O_RDONLY | O_CLOEXEC);
    size_t done = 0;

    if (fd < 0)
        return -EIO;
    while (done < len) {
        ssize_t n = read(fd, to + done, len - done);

        if (n > 0)
            done += (size_t)n;
        else if (n == 0 || errno != EINTR)
            break;
    }
    close(fd);
    return done == len ? 0 : -EIO;
}

int host_random(void *to, size_t len)
{
    unsigned char *p = to;

    while (len > 0) {
        ssize_t n = getrandom(p, len, 0);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return from_device(p, len);
        p += n;
        len -= (size_t)n;
    }
    return 0;
}
#else
int host_random(void *to, size_t len)
{
    arc4random_buf(to, len);
    return 0;
}
#endif
