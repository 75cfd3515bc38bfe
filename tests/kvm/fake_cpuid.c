/* CPUID: what is supported, what a vCPU was given, the table that the software CPU answers from. */
#include "fake_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Leaves that tell something else for each index. */
static bool indexed(uint32_t leaf)
{
    return leaf == 4 || leaf == 7 || leaf == 0xb || leaf == 0xd;
}

#define TSC_DEADLINE (1u << 24) /* leaf 1, ECX: KVM tells of it by KVM_CAP_TSC_DEADLINE_TIMER */

/* The hypervisor's leaves are KVM's own, without one of its features. */
static const struct kvm_cpuid_entry2 own[] = {
    {.function = 0x40000000, .eax = 0x40000001, .ebx = 0x4b4d564b, .ecx = 0x564b4d56, .edx = 0x4d},
    {.function = 0x40000001},
};

int fake_supported_cpuid(struct kvm_fake *fake, struct kvm_cpuid2 *c)
{
    const struct x86_cpuid *h = &fake->host;
    unsigned n = 0;

    for (unsigned i = 0; i < h->count; i++) {
        const struct x86_cpuid_leaf *l = &h->leaf[i];
        uint32_t r[4], sub = l->subleaf == UINT32_MAX ? 0 : l->subleaf;

        if (l->leaf >= 0x40000000 && l->leaf < 0x80000000u)
            continue;
        if (n + countof(own) >= c->nent)
            return -E2BIG;
        x86_cpuid_query(h, l->leaf, sub, 0, 1, 0, 1, 0, r);
        if (l->leaf == 1)
            r[2] &= ~TSC_DEADLINE;
        c->entries[n++] = (struct kvm_cpuid_entry2){
            .function = l->leaf,
            .index = sub,
            .flags = indexed(l->leaf) ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0,
            .eax = r[0],
            .ebx = r[1],
            .ecx = r[2],
            .edx = r[3],
        };
    }
    memcpy(c->entries + n, own, sizeof(own));
    c->nent = n + (unsigned)countof(own);
    return 0;
}

static struct kvm_cpuid_entry2 *find(struct fake_vcpu *v, uint32_t leaf, uint32_t index)
{
    for (unsigned i = 0; i < v->cpuid_count; i++) {
        struct kvm_cpuid_entry2 *e = &v->cpuid[i];

        if (e->function == leaf &&
            (!(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || e->index == index))
            return e;
    }
    return NULL;
}

/* CR4 bits that the guest's CPUID allows, as KVM judges them. */
uint64_t fake_cr4_mask(struct fake_vcpu *v)
{
    static const struct {
        uint64_t cr4;
        uint32_t leaf;
        uint8_t reg, bit;
    } by_feature[] = {
        {X86_CR4_OSXSAVE, 1, 2, 26}, {X86_CR4_PCIDE, 1, 2, 17},   {X86_CR4_SMEP, 7, 1, 7},
        {X86_CR4_SMAP, 7, 1, 20},    {X86_CR4_FSGSBASE, 7, 1, 0}, {X86_CR4_PKE, 7, 2, 3},
        {X86_CR4_LA57, 7, 2, 16},    {X86_CR4_UMIP, 7, 2, 2},     {X86_CR4_PKS, 7, 2, 31},
    };
    uint64_t mask = v->vm->fake->host.cr4_mask;

    for (unsigned i = 0; i < countof(by_feature); i++) {
        const struct kvm_cpuid_entry2 *e = find(v, by_feature[i].leaf, 0);

        if (e == NULL || !((&e->eax)[by_feature[i].reg] >> by_feature[i].bit & 1))
            mask &= ~by_feature[i].cr4;
    }
    return mask;
}

/* As KVM keeps it: with OSXSAVE by CR4, the size of XSAVE's area by XCR0. */
int fake_get_cpuid(struct fake_vcpu *v, struct kvm_cpuid2 *c)
{
    if (c->nent < v->cpuid_count)
        return -E2BIG;
    memcpy(c->entries, v->cpuid, v->cpuid_count * sizeof(v->cpuid[0]));
    c->nent = v->cpuid_count;
    for (unsigned i = 0; i < c->nent; i++) {
        if (c->entries[i].function == 1) {
            c->entries[i].ecx &= ~(1u << 27);
            c->entries[i].ecx |= v->st.cr4 & X86_CR4_OSXSAVE ? 1u << 27 : 0;
        }
    }
    return 0;
}

static void show(struct fake_vcpu *v)
{
    static const uint32_t leaves[] = {1, 7};

    for (unsigned i = 0; i < countof(leaves); i++) {
        struct kvm_cpuid_entry2 *e = find(v, leaves[i], 0);
        uint32_t r[4];

        if (e == NULL)
            continue;
        x86_cpuid_query(&v->vm->fake->host, leaves[i], 0, 0, 1, 0, 1, 0, r);
        e->ebx |= leaves[i] == 7 ? r[1] : 0;
        e->ecx |= leaves[i] == 1 ? r[2] : 0;
    }
}

int fake_set_cpuid(struct fake_vcpu *v, const struct kvm_cpuid2 *c)
{
    struct fake_vm *vm = v->vm;
    size_t size = c->nent * sizeof(c->entries[0]);

    if (c->nent > FAKE_CPUID)
        return -E2BIG;
    if (v->has_run) /* Linux 6.1: only the same once more */
        return c->nent == v->cpuid_count && memcmp(v->cpuid, c->entries, size) == 0 ? 0 : -EINVAL;
    memcpy(v->cpuid, c->entries, size);
    v->cpuid_count = c->nent;
    if (vm->fake->shows)
        show(v);
    pthread_mutex_lock(&vm->lock);
    memcpy(vm->cpuid, v->cpuid, size);
    vm->cpuid_count = c->nent;
    pthread_mutex_unlock(&vm->lock);
    fake_generation(vm);
    return 0;
}

/*
 * Under vm->lock. Features stay the host's, for KVM does not take instructions away that CPUID does
 * not tell of. APIC ids are put in by x86_cpuid_query: one table serves all vCPUs.
 */
void fake_make_cpuid(struct fake_vm *vm, struct x86_cpuid *out)
{
    *out = vm->fake->host;
    out->count = 0;
    out->max_basic = out->max_ext = 0;
    out->lin_bits = 48;
    for (unsigned i = 0; i < vm->cpuid_count && out->count < X86_CPUID_MAX; i++) {
        const struct kvm_cpuid_entry2 *e = &vm->cpuid[i];
        uint32_t sub = e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX ? e->index : UINT32_MAX;

        out->leaf[out->count++] =
            (struct x86_cpuid_leaf){e->function, sub, e->eax, e->ebx, e->ecx, e->edx};
        if (e->function == 0)
            out->max_basic = e->eax;
        if (e->function == 0x80000000u)
            out->max_ext = e->eax;
        if (e->function == 0x80000008u) {
            out->phys_bits = (unsigned)min_u64(e->eax & 0xff, out->phys_bits);
            out->lin_bits = (unsigned)min_u64((e->eax >> 8) & 0xff, 57);
        }
        if (e->function == 0xd && e->index == 0)
            out->xcr0_mask &= (uint64_t)e->edx << 32 | e->eax;
        if (e->function == 7 && e->index == 0 && !(e->ecx & 1u << 16))
            out->cr4_mask &= ~(uint64_t)X86_CR4_LA57;
    }
    if (out->lin_bits < 48)
        out->lin_bits = 48;
    if (out->phys_bits < 36)
        out->phys_bits = 36;
}
