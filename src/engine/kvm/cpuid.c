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

/* The table as the kernel wants it, for vCPU `cpu` of `cpus`; the caller frees it. NULL: no memory.
 */
static struct kvm_cpuid2 *list_of(const struct x86_cpuid *c, unsigned cpu, unsigned cpus)
{
    struct kvm_cpuid2 *l = calloc(1, LIST_SIZE);

    for (unsigned i = 0; l != NULL && i < c->count && i < ENTRIES_MAX; i++) {
        struct kvm_cpuid_entry2 *e = &l->entries[l->nent++];
        bool any = c->leaf[i].subleaf == UINT32_MAX;
        uint32_t r[4];

        e->function = c->leaf[i].leaf;
        e->index = any ? 0 : c->leaf[i].subleaf;
        e->flags = any ? 0 : KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        x86_cpuid_query(c, e->function, e->index, cpu, cpus, 0, 1, 0, r);
        e->eax = r[0];
        e->ebx = r[1];
        e->ecx = r[2];
        e->edx = r[3];
    }
    return l;
}

/* What a vCPU that is given the table says instead, into `leaf` of ENTRIES_MAX; how many, or
 * -errno. */
static int seen_by(const struct kvm_sys *sys, int cpu, const struct x86_cpuid *c,
                   struct x86_cpuid_leaf *leaf)
{
    struct kvm_cpuid2 *l = list_of(c, 0, 1);
    int rc = l == NULL ? -ENOMEM : sys->ioctl(sys->ctx, cpu, KVM_SET_CPUID2, (uintptr_t)l), n = 0;

    if (rc >= 0) {
        l->nent = ENTRIES_MAX;
        rc = sys->ioctl(sys->ctx, cpu, KVM_GET_CPUID2, (uintptr_t)l);
    }
    for (unsigned i = 0; rc >= 0 && i < l->nent && i < ENTRIES_MAX; i++)
        leaf[n++] = leaf_in(&l->entries[i]);
    free(l);
    return rc < 0 ? rc : n;
}

/*
 * Does a guest see what it is told? A KVM that runs the guest's programs without the hardware's
 * help cannot hide the processor's features from them, and so shows them to all. Asked of a VM that
 * is made for it. A KVM that does not answer is taken at its word: the VM itself will be refused.
 */
static void insist(const struct kvm_sys *sys, int dev_fd, const struct engine_env *env,
                   struct x86_cpuid *c)
{
    struct x86_cpuid_leaf leaf[ENTRIES_MAX];
    int vm = sys->ioctl(sys->ctx, dev_fd, KVM_CREATE_VM, 0), cpu = vm, n;

    if (vm >= 0) {
        cpu = sys->ioctl(sys->ctx, vm, KVM_CREATE_VCPU, 0);
        n = cpu < 0 ? cpu : seen_by(sys, cpu, c, leaf);
        if (n > 0 && x86_cpuid_insist(c, leaf, (unsigned)n))
            log_info(env->log, "engine: kvm: this KVM cannot hide features of the host's processor "
                               "from the guest: the model has them, too");
        if (cpu >= 0)
            sys->close(sys->ctx, cpu);
        sys->close(sys->ctx, vm);
    }
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
    }
    if (n >= 0) {
        if (strcmp(model, "host") == 0)
            x86_cpuid_adopt(c, leaf, (unsigned)n);
        else
            x86_cpuid_limit(c, leaf, (unsigned)n);
        if (split && hz != c->crystal_hz)
            x86_cpuid_crystal(c, hz);
        insist(sys, fd, env, c);
    }
    if (fd >= 0)
        sys->close(sys->ctx, fd);
    if (n < 0)
        return error_set(err, n, "KVM does not say what its CPU can do: %s", strerror(-n));
    return 0;
}

int kvm_cpuid_set(struct kvm_cpu *cpu, struct error *err)
{
    const struct engine_env *env = &cpu->vm->env;
    struct kvm_cpuid2 *l = list_of(env->cpuid, cpu->id, env->cpus);
    int rc;

    if (l == NULL)
        return error_set(err, -ENOMEM, "no memory for CPUID's leaves");
    rc = kvm_cpu_ioctl_p(cpu, KVM_SET_CPUID2, l);
    free(l);
    if (rc < 0)
        return error_set(err, rc, "KVM refuses the CPU model: %s; try -o cpu.model=portable",
                         strerror(-rc));
    return 0;
}
