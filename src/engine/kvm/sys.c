#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/kvm/kvm.h"
#include "host/kick.h"

/* The host's own device. */

static int host_open(void *ctx, const char *path)
{
    int fd, rc = host_kick_setup();

    (void)ctx;
    if (rc != 0)
        return rc;
    fd = open(path, O_RDWR | O_CLOEXEC);
    return fd >= 0 ? fd : -errno;
}

static int host_ioctl(void *ctx, int fd, unsigned long request, uintptr_t arg)
{
    int rc = ioctl(fd, request, arg);

    (void)ctx;
    return rc >= 0 ? rc : -errno;
}

static void *host_mmap(void *ctx, int fd, size_t len)
{
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    (void)ctx;
    return p != MAP_FAILED ? p : NULL;
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

static void kick(void *ctx, int vcpu_fd, pthread_t thread)
{
    (void)ctx;
    (void)vcpu_fd;
    host_kick(thread);
}

const struct kvm_sys kvm_sys_host = {
    .open = host_open,
    .ioctl = host_ioctl,
    .mmap = host_mmap,
    .munmap = host_munmap,
    .close = host_close,
    .kick = kick,
};
