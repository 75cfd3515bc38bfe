/* A hostile input as a file, for what takes paths. */
#ifndef TESTS_FUZZ_FILE_H
#define TESTS_FUZZ_FILE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct hostile_file {
    int fd; /* the caller closes it, and the path is gone */
    char path[40];
};

static inline struct hostile_file hostile_file(const uint8_t *data, size_t len)
{
    struct hostile_file h = {.fd = memfd_create("hostile", MFD_CLOEXEC)};

    if (h.fd < 0 || (len > 0 && write(h.fd, data, len) != (ssize_t)len))
        abort();
    snprintf(h.path, sizeof(h.path), "/proc/self/fd/%d", h.fd);
    return h;
}

#endif
