/* The fake's face: descriptors, faults, the calls of the system. */
#include "fake_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "host/clock.h"
#include "host/memory.h"

bool fake_lacks(const struct kvm_fake *fake, uint32_t cap)
{
    for (unsigned i = 0; i < fake->missing_count; i++) {
        if (fake->missing[i] == cap)
            return true;
    }
    return false;
}

/* ---- descriptors ---- */

/* A reference to the VM behind it, if any, goes with it. -EMFILE: there are too many. */
int fake_fd_new(struct kvm_fake *fake, enum fake_kind kind, void *object)
{
    int fd = -EMFILE;

    pthread_mutex_lock(&fake->lock);
    for (int i = 0; i < FAKE_FDS && fd < 0; i++) {
        if (fake->fd[i].kind == FAKE_FREE) {
            fake->fd[i] = (struct fake_fd){kind, object};
            fd = FAKE_FD_FIRST + i;
        }
    }
    pthread_mutex_unlock(&fake->lock);
    return fd;
}

static struct fake_fd fd_find(struct kvm_fake *fake, int fd)
{
    struct fake_fd found = {FAKE_FREE, NULL};

    pthread_mutex_lock(&fake->lock);
    if (fd >= FAKE_FD_FIRST && fd < FAKE_FD_FIRST + FAKE_FDS)
        found = fake->fd[fd - FAKE_FD_FIRST];
    pthread_mutex_unlock(&fake->lock);
    return found;
}

static struct fake_vm *vm_of(struct fake_fd d)
{
    if (d.kind == FAKE_VCPU)
        return ((struct fake_vcpu *)d.object)->vm;
    return d.kind == FAKE_VM ? d.object : NULL;
}

static void vm_ref(struct kvm_fake *fake, struct fake_vm *vm)
{
    pthread_mutex_lock(&fake->lock);
    vm->refs++;
    pthread_mutex_unlock(&fake->lock);
}

static void vm_unref(struct kvm_fake *fake, struct fake_vm *vm)
{
    bool last;

    pthread_mutex_lock(&fake->lock);
    last = --vm->refs == 0;
    for (unsigned i = 0; i < FAKE_FDS && last; i++) {
        if (fake->vm[i] == vm)
            fake->vm[i] = NULL;
    }
    pthread_mutex_unlock(&fake->lock);
    if (last)
        fake_vm_free(vm);
}

/* ---- calls ---- */

/* The fault that is due for this request: a negative errno, or 0. */
static int fault_due(struct kvm_fake *fake, unsigned long request)
{
    int rc = 0;

    pthread_mutex_lock(&fake->lock);
    for (unsigned i = 0; i < fake->faults && rc == 0; i++) {
        if (fake->fault[i].request != request)
            continue;
        rc = -fake->fault[i].err;
        if (!fake->fault[i].always)
            fake->fault[i] = fake->fault[--fake->faults];
    }
    pthread_mutex_unlock(&fake->lock);
    return rc;
}

static int create_vm(struct kvm_fake *fake, uintptr_t type)
{
    struct fake_vm *vm;
    int rc, fd;

    if (type != 0)
        return -EINVAL;
    rc = fake_vm_create(fake, &vm);
    if (rc < 0)
        return rc;
    vm->refs = 1;
    fd = fake_fd_new(fake, FAKE_VM, vm);
    if (fd < 0) {
        fake_vm_free(vm);
        return fd;
    }
    pthread_mutex_lock(&fake->lock);
    for (unsigned i = 0; i < FAKE_FDS; i++) {
        if (fake->vm[i] == NULL) {
            fake->vm[i] = vm;
            break;
        }
    }
    pthread_mutex_unlock(&fake->lock);
    return fd;
}

static int system_ioctl(struct kvm_fake *fake, unsigned long request, uintptr_t arg)
{
    switch (request) {
    case KVM_GET_API_VERSION:
        return arg == 0 ? KVM_API_VERSION : -EINVAL;
    case KVM_CREATE_VM:
        return create_vm(fake, arg);
    case KVM_CHECK_EXTENSION:
        return fake_check_extension(fake, (uint32_t)arg);
    case KVM_GET_VCPU_MMAP_SIZE:
        return arg == 0 ? FAKE_RUN_SIZE : -EINVAL;
    case KVM_GET_SUPPORTED_CPUID:
        return fake_supported_cpuid(fake, (struct kvm_cpuid2 *)arg);
    case KVM_GET_MSR_INDEX_LIST:
        return fake_msr_list((struct kvm_msr_list *)arg);
    default:
        return -EINVAL; /* kvm_arch_dev_ioctl's answer to what it does not know */
    }
}

/* A new vCPU's descriptor holds the VM. */
static int create_vcpu(struct kvm_fake *fake, struct fake_vm *vm, uint32_t id)
{
    struct fake_vcpu *v;
    int rc = fake_vcpu_create(vm, id, &v), fd;

    if (rc < 0)
        return rc;
    fd = fake_fd_new(fake, FAKE_VCPU, v);
    if (fd >= 0)
        vm_ref(fake, vm);
    return fd;
}

static int fake_ioctl(void *ctx, int fd, unsigned long request, uintptr_t arg)
{
    struct kvm_fake *fake = ctx;
    struct fake_fd d = fd_find(fake, fd);
    int cap = fake_cap_of(request), rc;

    if (d.kind == FAKE_FREE)
        return -EBADF;
    rc = fault_due(fake, request);
    if (rc < 0)
        return rc;
    if (cap >= 0 && fake_lacks(fake, (uint32_t)cap))
        request = 0; /* nobody knows it */
    switch (d.kind) {
    case FAKE_FREE:
        break;
    case FAKE_SYSTEM:
        return system_ioctl(fake, request, arg);
    case FAKE_VM:
        if (request == KVM_CREATE_VCPU)
            return create_vcpu(fake, d.object, (uint32_t)arg);
        return fake_vm_ioctl(d.object, request, arg);
    case FAKE_VCPU:
        return fake_vcpu_ioctl(d.object, request, arg);
    }
    return -EBADF;
}

static int fake_open(void *ctx, const char *path)
{
    struct kvm_fake *fake = ctx;
    int rc = fault_due(fake, 0);

    if (rc < 0)
        return rc;
    if (strcmp(path, "/dev/kvm") != 0)
        return -ENOENT;
    return fake_fd_new(fake, FAKE_SYSTEM, NULL);
}

static void *fake_mmap(void *ctx, int fd, size_t len)
{
    struct kvm_fake *fake = ctx;
    struct fake_fd d = fd_find(fake, fd);
    struct fake_vcpu *v = d.object;

    if (d.kind != FAKE_VCPU || len == 0 || len > FAKE_RUN_SIZE)
        return NULL;
    vm_ref(fake, v->vm); /* a mapping keeps the VM, as the file behind it does */
    return v->run;
}

static void fake_munmap(void *ctx, void *p, size_t len)
{
    struct kvm_fake *fake = ctx;
    struct fake_vm *found = NULL;

    (void)len;
    pthread_mutex_lock(&fake->lock);
    for (unsigned i = 0; i < FAKE_FDS && found == NULL; i++) {
        for (unsigned n = 0; fake->vm[i] != NULL && n < FAKE_VCPUS; n++) {
            if (fake->vm[i]->vcpu[n] != NULL && fake->vm[i]->vcpu[n]->run == p)
                found = fake->vm[i];
        }
    }
    pthread_mutex_unlock(&fake->lock);
    if (found != NULL)
        vm_unref(fake, found);
}

static void fake_close(void *ctx, int fd)
{
    struct kvm_fake *fake = ctx;
    struct fake_vm *vm = vm_of(fd_find(fake, fd));

    pthread_mutex_lock(&fake->lock);
    if (fd >= FAKE_FD_FIRST && fd < FAKE_FD_FIRST + FAKE_FDS)
        fake->fd[fd - FAKE_FD_FIRST].kind = FAKE_FREE;
    pthread_mutex_unlock(&fake->lock);
    if (vm != NULL)
        vm_unref(fake, vm);
}

static void fake_kick(void *ctx, int fd, pthread_t thread)
{
    struct fake_fd d = fd_find(ctx, fd);
    struct fake_vcpu *v = d.object;

    (void)thread; /* only who is in KVM_RUN would notice a signal */
    if (d.kind != FAKE_VCPU)
        return;
    pthread_mutex_lock(&v->lock);
    if (v->in_run)
        v->signal = true;
    pthread_mutex_unlock(&v->lock);
    fake_vcpu_wake(v);
}

/* ---- life ---- */

int kvm_fake_fail(struct kvm_fake *fake, const struct kvm_fake_fault *fault)
{
    int rc = -ENOSPC;

    pthread_mutex_lock(&fake->lock);
    if (fake->faults < FAKE_FAULTS) {
        fake->fault[fake->faults++] = *fault;
        rc = 0;
    }
    pthread_mutex_unlock(&fake->lock);
    return rc;
}

struct kvm_fake *kvm_fake_create(const struct kvm_fake_options *options)
{
    static const struct kvm_fake_options none;
    static const struct x86_cpu_options five_levels = {.la57 = true};
    struct host_tsc_sample since = host_tsc_sample();
    struct kvm_fake *fake = calloc(1, sizeof(*fake));

    if (fake == NULL)
        return NULL;
    if (options == NULL)
        options = &none;
    pthread_mutex_init(&fake->lock, NULL);
    fake->sys = (struct kvm_sys){fake,        fake_open,  fake_ioctl, fake_mmap,
                                 fake_munmap, fake_close, fake_kick};
    fake->missing_count = (unsigned)min_u64(options->missing_count, FAKE_MISSING);
    for (unsigned i = 0; i < fake->missing_count; i++)
        fake->missing[i] = options->missing[i];
    for (unsigned i = 0; i < options->fault_count; i++)
        kvm_fake_fail(fake, &options->faults[i]);
    fake->fails = options->fails;
    fake->fails_ctx = options->fails_ctx;
    fake->fast = options->fast;
    fake->shows = options->shows;
    fake->log = log_create(2, LOG_WARN);
    fake->tsc_khz = (uint32_t)(host_tsc_hz(since) / 1000);
    if (fake->log == NULL ||
        x86_cpuid_create(&fake->host, "host", &five_levels, 1000ull * fake->tsc_khz, NULL) < 0) {
        kvm_fake_destroy(fake);
        return NULL;
    }
    return fake;
}

void kvm_fake_destroy(struct kvm_fake *fake)
{
    if (fake == NULL)
        return;
    for (unsigned i = 0; i < FAKE_FDS; i++)
        fake_vm_free(fake->vm[i]);
    log_destroy(fake->log);
    pthread_mutex_destroy(&fake->lock);
    free(fake);
}

const struct kvm_sys *kvm_fake_sys(struct kvm_fake *fake)
{
    return &fake->sys;
}
