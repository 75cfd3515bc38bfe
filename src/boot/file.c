#include "boot/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/memory.h"

/* O_NONBLOCK: a FIFO given by mistake must not hang the start; it means nothing to a regular file.
 */
int file_open(const char *what, const char *path, uint64_t max, uint64_t *size, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    int rc;

    if (fd < 0)
        return error_set(err, -errno, "cannot open %s '%s': %s", what, path, strerror(errno));
    if (fstat(fd, &st) != 0)
        rc = error_set(err, -errno, "cannot examine %s '%s': %s", what, path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        rc = error_set(err, -EINVAL, "%s '%s' is not a regular file; give the path of an image",
                       what, path);
    else if (st.st_size == 0)
        rc = error_set(err, -EINVAL, "%s '%s' is empty; fetch or build it again", what, path);
    else if ((uint64_t)st.st_size > max)
        rc = error_set(err, -EFBIG, "%s '%s' has %lld bytes, more than the %llu allowed here", what,
                       path, (long long)st.st_size, (unsigned long long)max);
    else
        rc = 0;
    if (rc != 0) {
        close(fd);
        return rc;
    }
    *size = (uint64_t)st.st_size;
    return fd;
}

int file_read(const char *what, const char *path, int fd, void *to, uint64_t size,
              struct error *err)
{
    uint8_t *p = to;

    while (size > 0) {
        ssize_t n = read(fd, p, size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set(err, -errno, "cannot read %s '%s': %s", what, path, strerror(errno));
        if (n == 0)
            return error_set(err, -EIO, "%s '%s' became shorter while it was read; try again", what,
                             path);
        p += n;
        size -= (uint64_t)n;
    }
    return 0;
}

int file_load(const char *what, const char *path, uint64_t max, uint8_t **data, uint64_t *size,
              struct error *err)
{
    int fd = file_open(what, path, max, size, err);
    uint8_t *buf;
    int rc;

    if (fd < 0)
        return fd;
    buf = host_buffer(*size);
    if (buf == NULL)
        rc = error_set(err, -ENOMEM, "no memory for the %llu bytes of %s '%s'",
                       (unsigned long long)*size, what, path);
    else
        rc = file_read(what, path, fd, buf, *size, err);
    close(fd);
    if (rc != 0) {
        free(buf);
        return rc;
    }
    *data = buf;
    return 0;
}
