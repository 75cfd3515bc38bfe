#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kvm/internal.h"

/* Guest memory in the kernel: slot n is range n of gmem_range(). The kernel's log of written pages.
 */

int kvm_memory_map(struct kvm_machine *vm, bool log, struct error *err)
{
    struct gmem_range r;

    for (unsigned n = 0; gmem_range(vm->env.mem, n, &r); n++) {
        struct kvm_userspace_memory_region m = {
            .slot = n,
            .flags = r.rom && vm->caps.readonly ? KVM_MEM_READONLY : 0,
            .guest_phys_addr = r.gpa,
            .memory_size = r.size,
            .userspace_addr = (uintptr_t)r.hva,
        };
        int rc;

        if (log && !r.rom)
            m.flags |= KVM_MEM_LOG_DIRTY_PAGES;
        rc = kvm_vm_ioctl(vm, KVM_SET_USER_MEMORY_REGION, (uintptr_t)&m);
        if (rc < 0)
            return error_set(err, rc, "KVM does not take %llu MiB of memory at %#llx%s: %s",
                             (unsigned long long)(r.size >> 20), (unsigned long long)r.gpa,
                             log ? " with a log of written pages" : "", strerror(-rc));
    }
    return 0;
}

int kvm_dirty(void *p, bool on, struct error *err)
{
    struct kvm_machine *vm = p;
    int rc = kvm_memory_map(vm, on, err);

    if (rc < 0 && on) /* some slots may keep one now */
        (void)kvm_memory_map(vm, false, NULL);
    return rc;
}

/* The kernel writes the whole bitmap, in words of 64 pages; ours keeps what is in it. */
int kvm_dirty_take(void *p, unsigned n, uint64_t *bits, size_t words)
{
    struct kvm_machine *vm = p;
    struct kvm_dirty_log log = {.slot = n};
    struct gmem_range r;
    uint64_t *map;
    size_t need;
    int rc;

    if (!gmem_range(vm->env.mem, n, &r))
        return -EINVAL;
    if (r.rom)
        return 0;
    need = (size_t)((r.size / GMEM_PAGE + 63) / 64);
    if (words < need)
        return -EINVAL;
    map = calloc(need, sizeof(*map));
    if (map == NULL)
        return -ENOMEM;
    log.dirty_bitmap = map;
    rc = kvm_vm_ioctl(vm, KVM_GET_DIRTY_LOG, (uintptr_t)&log);
    for (size_t w = 0; w < need && rc >= 0; w++)
        bits[w] |= map[w];
    free(map);
    return rc < 0 ? rc : 0;
}
