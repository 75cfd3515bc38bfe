/* The host's own device behind the table, for `conform real`. */
#include "conform.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static void nothing(int sig)
{
    (void)sig; /* a handler is all it takes to make KVM_RUN return */
}

static int host_open(void *ctx, const char *path)
{
    struct sigaction action = {.sa_handler = nothing};
    int fd = open(path, O_RDWR | O_CLOEXEC);

    (void)ctx;
    sigaction(SIGUSR1, &action, NULL);
    return fd < 0 ? -errno : fd;
}

static int host_ioctl(void *ctx, int fd, unsigned long request, uintptr_t arg)
{
    int rc = ioctl(fd, request, arg);

    (void)ctx;
    return rc < 0 ? -errno : rc;
}

static void *host_mmap(void *ctx, int fd, size_t len)
{
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    (void)ctx;
    return p == MAP_FAILED ? NULL : p;
}

static void host_munmap(void *ctx, void *p, size_t len)
{
    (void)ctx;
    munmap(p, len);
}

static void host_close(void *ctx, int fd)
{
    (void)ctx;
    close(fd);
}

static void host_kick(void *ctx, int fd, pthread_t thread)
{
    (void)ctx;
    (void)fd;
    pthread_kill(thread, SIGUSR1);
}

const struct kvm_sys conform_host = {NULL,        host_open,  host_ioctl, host_mmap,
                                     host_munmap, host_close, host_kick};
