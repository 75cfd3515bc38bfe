#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kvm/internal.h"

/* What the guest's CPUID says: the VM's table, which the kernel's list has been asked about. */

#define ENTRIES_MAX 256u

#define LIST_SIZE (sizeof(struct kvm_cpuid2) + ENTRIES_MAX * sizeof(struct kvm_cpuid_entry2))

static struct x86_cpuid_leaf leaf_in(const struct kvm_cpuid_entry2 *e)
{
    return (struct x86_cpuid_leaf){
        e->function, e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX ? e->index : UINT32_MAX,
        e->eax,      e->ebx,
        e->ecx,      e->edx,
    };
}

int kvm_cpuid_supported(const struct kvm_sys *sys, int dev_fd, struct x86_cpuid_leaf *leaf,
                        unsigned max)
{
    struct kvm_cpuid2 *l = calloc(1, LIST_SIZE);
    unsigned n = 0;
    int rc;

    if (l == NULL)
        return -ENOMEM;
    l->nent = ENTRIES_MAX;
    rc = sys->ioctl(sys->ctx, dev_fd, KVM_GET_SUPPORTED_CPUID, (uintptr_t)l);
    for (unsigned i = 0; rc >= 0 && i < l->nent && i < ENTRIES_MAX && n < max; i++)
        leaf[n++] = leaf_in(&l->entries[i]);
    free(l);
    return rc < 0 ? rc : (int)n;
}

int kvm_cpuid_fit(const struct engine_env *env, const char *model, struct x86_cpuid *c,
                  struct error *err)
{
    const struct kvm_sys *sys = env->kvm != NULL ? env->kvm : &kvm_sys_host;
    struct x86_cpuid_leaf leaf[ENTRIES_MAX];
    int fd = sys->open(sys->ctx, KVM_DEVICE), n = fd;

    bool split = false;
    uint32_t hz = 0;

    if (fd >= 0) {
        n = kvm_cpuid_supported(sys, fd, leaf, ENTRIES_MAX);
        split = kvm_apic_wanted(sys, fd, env);
        hz = kvm_apic_hz(sys, fd);
        sys->close(sys->ctx, fd);
    }
    if (n < 0)
        return error_set(err, n, "KVM does not say what its CPU can do: %s", strerror(-n));
    if (strcmp(model, "host") == 0)
        x86_cpuid_adopt(c, leaf, (unsigned)n);
    else
        x86_cpuid_limit(c, leaf, (unsigned)n);
    if (split && hz != c->crystal_hz)
        x86_cpuid_crystal(c, hz);
    return 0;
}

int kvm_cpuid_set(struct kvm_cpu *cpu, struct error *err)
{
    const struct engine_env *env = &cpu->vm->env;
    const struct x86_cpuid *c = env->cpuid;
    struct kvm_cpuid2 *l = calloc(1, LIST_SIZE);
    int rc;

    if (l == NULL)
        return error_set(err, -ENOMEM, "no memory for CPUID's leaves");
    for (unsigned i = 0; i < c->count && i < ENTRIES_MAX; i++) {
        struct kvm_cpuid_entry2 *e = &l->entries[l->nent++];
        bool any = c->leaf[i].subleaf == UINT32_MAX;
        uint32_t r[4];

        e->function = c->leaf[i].leaf;
        e->index = any ? 0 : c->leaf[i].subleaf;
        e->flags = any ? 0 : KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        x86_cpuid_query(c, e->function, e->index, cpu->id, env->cpus, 0, 1, 0, r);
        e->eax = r[0];
        e->ebx = r[1];
        e->ecx = r[2];
        e->edx = r[3];
    }
    rc = kvm_cpu_ioctl_p(cpu, KVM_SET_CPUID2, l);
    free(l);
    if (rc < 0)
        return error_set(err, rc, "KVM refuses the CPU model: %s; try -o cpu.model=portable",
                         strerror(-rc));
    return 0;
}
