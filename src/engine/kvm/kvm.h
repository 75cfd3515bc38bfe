/*
 * The kvm engine: the Linux kernel runs the guest's instructions. All that it asks of the kernel
 * goes through one table, so that tests can put something else in the device's place.
 *
 * KVM's interface: Documentation/virt/kvm/api.rst of Linux 6.1.
 */
#ifndef ENGINE_KVM_KVM_H
#define ENGINE_KVM_KVM_H

#include <pthread.h>
#include <stddef.h>

#include "engine/engine.h"

/*
 * What stands for open, ioctl, mmap, munmap and close. A vCPU's descriptors and mappings are used
 * on its thread, the others on any; `ioctl` with KVM_RUN blocks. Errors are negative errno, never
 * the global errno. ctx is handed to each call.
 */
struct kvm_sys {
    void *ctx;
    int (*open)(void *ctx, const char *path); /* for reading and writing; a descriptor */
    /* request and arg as for ioctl(2); arg is an integer or a pointer as the request says */
    int (*ioctl)(void *ctx, int fd, unsigned long request, uintptr_t arg);
    void *(*mmap)(void *ctx, int fd, size_t len); /* a vCPU's struct kvm_run; NULL: no memory */
    void (*munmap)(void *ctx, void *p, size_t len);
    void (*close)(void *ctx, int fd);
    /*
     * Makes the KVM_RUN that `thread` may be in on this vCPU return -EINTR soon. The engine has set
     * immediate_exit in its struct kvm_run before, so a run that begins later returns at once, too.
     * Any thread.
     */
    void (*kick)(void *ctx, int vcpu_fd, pthread_t thread);
};

extern const struct kvm_sys kvm_sys_host;

extern const struct engine_ops engine_kvm;

#endif
