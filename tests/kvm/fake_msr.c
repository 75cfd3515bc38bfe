/* Model-specific registers: from userspace, and which of them a guest may touch without an exit. */
#include "fake_impl.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "host/clock.h"

enum { MSR_TSC = 0x10, MSR_APIC_BASE = 0x1b, MSR_TSC_DEADLINE = 0x6e0 };
enum { MSR_MTRR_CAP = 0xfe, MSR_ARCH_CAP = 0x10a, MSR_UCODE_REV = 0x8b, MSR_PAT = 0x277 };
#define MSR_EFER 0xc0000080u

/* Those that are only state: where it lies. */
#define AT(member) offsetof(struct x86_state, member)
static const struct {
    uint32_t index, count; /* count: so many in a row */
    size_t offset;
} plain[] = {
    {0x3a, 1, AT(feature_control)},
    {0x3b, 1, AT(tsc_adjust)},
    {0x48, 1, AT(spec_ctrl)},
    {0x174, 1, AT(sysenter_cs)},
    {0x175, 1, AT(sysenter_esp)},
    {0x176, 1, AT(sysenter_eip)},
    {0x17a, 1, AT(mcg_status)},
    {0x1a0, 1, AT(misc_enable)},
    {0x1d9, 1, AT(debugctl)},
    {0x250, 1, AT(mtrr_fix[0])},
    {0x258, 2, AT(mtrr_fix[1])},
    {0x268, 8, AT(mtrr_fix[3])},
    {MSR_PAT, 1, AT(pat)},
    {0x2ff, 1, AT(mtrr_def_type)},
    {0x6e1, 1, AT(pkrs)},
    {0xda0, 1, AT(xss)},
    {MSR_EFER, 1, AT(efer)},
    {0xc0000081u, 1, AT(star)},
    {0xc0000082u, 1, AT(lstar)},
    {0xc0000083u, 1, AT(cstar)},
    {0xc0000084u, 1, AT(sfmask)},
    {0xc0000100u, 1, AT(seg[X86_FS].base)},
    {0xc0000101u, 1, AT(seg[X86_GS].base)},
    {0xc0000102u, 1, AT(kernel_gs_base)},
    {0xc0000103u, 1, AT(tsc_aux)},
};

/* Beside those, what the software CPU answers to a guest. */
static const uint32_t others[] = {MSR_TSC,      0x17,  MSR_APIC_BASE,   0x2a,         0x34,  0x35,
                                  0x49,         0x79,  MSR_UCODE_REV,   0xce,         0x140, 0x179,
                                  MSR_MTRR_CAP, 0x198, 0x199,           MSR_ARCH_CAP, 0x1ad, 0x1db,
                                  0x1dc,        0x1dd, 0x1de,           0x606,        0x611, 0x619,
                                  0x639,        0x641, MSR_TSC_DEADLINE};

#define MTRR_VAR 0x200u

static uint64_t *plain_msr(struct x86_state *st, uint32_t index)
{
    if (index >= MTRR_VAR && index < MTRR_VAR + 2 * X86_MTRR_VAR)
        return index & 1 ? &st->mtrr_mask[(index - MTRR_VAR) / 2]
                         : &st->mtrr_base[(index - MTRR_VAR) / 2];
    for (unsigned i = 0; i < countof(plain); i++) {
        if (index >= plain[i].index && index < plain[i].index + plain[i].count)
            return (uint64_t *)(void *)((char *)st + plain[i].offset) + (index - plain[i].index);
    }
    return NULL;
}

static bool x2apic(uint32_t index)
{
    return index >= 0x800 && index < 0x900;
}

static bool known(struct fake_vcpu *v, uint32_t index)
{
    if (plain_msr(&v->st, index) != NULL || x2apic(index))
        return true;
    for (unsigned i = 0; i < countof(others); i++) {
        if (others[i] == index)
            return true;
    }
    return false;
}

/* ---- from userspace ---- */

int fake_msr_list(struct kvm_msr_list *list)
{
    uint32_t all[64], n = 0, room = list->nmsrs;

    for (unsigned i = 0; i < countof(plain); i++) {
        for (unsigned k = 0; k < plain[i].count; k++)
            all[n++] = plain[i].index + k;
    }
    for (unsigned i = 0; i < 2 * X86_MTRR_VAR; i++)
        all[n++] = MTRR_VAR + i;
    all[n++] = MSR_TSC;
    all[n++] = MSR_TSC_DEADLINE;
    list->nmsrs = n;
    if (room < n)
        return -E2BIG;
    memcpy(list->indices, all, n * sizeof(all[0]));
    return 0;
}

static bool get_msr(struct fake_vcpu *v, uint32_t index, uint64_t *value)
{
    const uint64_t *p = plain_msr(&v->st, index);

    if (p != NULL) {
        *value = *p;
        return true;
    }
    switch (index) {
    case MSR_TSC:
        *value = host_tsc() + v->st.tsc_offset;
        return true;
    case MSR_APIC_BASE:
        *value = fake_get_apic_base(v);
        return true;
    case MSR_UCODE_REV:
        *value = 1ull << 32;
        return true;
    case MSR_MTRR_CAP:
        *value = 0x500 | X86_MTRR_VAR;
        return true;
    case MSR_ARCH_CAP:
        *value = X86_ARCH_CAPABILITIES;
        return true;
    case MSR_TSC_DEADLINE:
        *value = 0;
        return !v->vm->split || fake_lapic_ops.msr_read(v->vm, v->id, index, value) == 0;
    default:
        return x2apic(index) && fake_lapic_ops.msr_read(v->vm, v->id, index, value) == 0;
    }
}

static bool pat_valid(uint64_t value)
{
    for (unsigned i = 0; i < 8; i++, value >>= 8) {
        if ((value & 0xff) > 7 || (value & 0xff) == 2 || (value & 0xff) == 3)
            return false;
    }
    return true;
}

static bool set_msr(struct fake_vcpu *v, uint32_t index, uint64_t value)
{
    uint64_t *p = plain_msr(&v->st, index);

    if (index == MSR_PAT && !pat_valid(value))
        return false;
    if (index == MSR_EFER) { /* LMA follows CR0.PG, not this */
        if (value & ~(v->vm->fake->host.efer_mask | X86_EFER_LMA))
            return false;
        value = (value & ~(uint64_t)X86_EFER_LMA) | (*p & X86_EFER_LMA);
    }
    if (p != NULL) {
        *p = value;
        v->dirty = true;
        return true;
    }
    switch (index) {
    case MSR_TSC:
        v->st.tsc_offset = value - host_tsc();
        v->dirty = true;
        return true;
    case MSR_APIC_BASE:
        return fake_set_apic_base(v, value);
    case MSR_UCODE_REV:
    case MSR_ARCH_CAP:
        return true;
    case MSR_TSC_DEADLINE:
        return !v->vm->split || fake_lapic_ops.msr_write(v->vm, v->id, index, value) == 0;
    default:
        return x2apic(index) && fake_lapic_ops.msr_write(v->vm, v->id, index, value) == 0;
    }
}

/* The count of those that could be read, up to the first that cannot. */
int fake_get_msrs(struct fake_vcpu *v, struct kvm_msrs *m)
{
    int n = 0;

    if (m->nmsrs >= 256)
        return -E2BIG;
    while (n < (int)m->nmsrs) {
        uint64_t value;

        if (!get_msr(v, m->entries[n].index, &value))
            break;
        m->entries[n++].data = value;
    }
    return n;
}

int fake_set_msrs(struct fake_vcpu *v, const struct kvm_msrs *m)
{
    int n = 0;

    if (m->nmsrs >= 256)
        return -E2BIG;
    while (n < (int)m->nmsrs && set_msr(v, m->entries[n].index, m->entries[n].data))
        n++;
    return n;
}

/* ---- the filter ---- */

void fake_filter_free(struct fake_vm *vm)
{
    for (unsigned i = 0; i < vm->filter_count; i++)
        free(vm->filter[i].bitmap);
    vm->filter_count = 0;
    vm->filter_denies = false;
}

static int check_filter(const struct kvm_msr_filter *f)
{
    bool empty = true;

    if (f->flags & ~(uint32_t)KVM_MSR_FILTER_DEFAULT_DENY)
        return -EINVAL;
    for (unsigned i = 0; i < FAKE_RANGES; i++) {
        const struct kvm_msr_filter_range *r = &f->ranges[i];

        if (r->nmsrs == 0)
            continue;
        empty = false;
        if ((r->flags & ~(uint32_t)(KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE)) ||
            r->nmsrs > 8 * KVM_MSR_FILTER_MAX_BITMAP_SIZE)
            return -EINVAL;
    }
    return empty && f->flags != 0 ? -EINVAL : 0;
}

int fake_set_filter(struct fake_vm *vm, const struct kvm_msr_filter *f)
{
    int rc = check_filter(f);

    if (rc < 0)
        return rc;
    fake_filter_free(vm);
    for (unsigned i = 0; i < FAKE_RANGES; i++) {
        struct kvm_msr_filter_range *to = &vm->filter[vm->filter_count];
        size_t size = (f->ranges[i].nmsrs + 7) / 8;

        if (size == 0)
            continue;
        *to = f->ranges[i];
        to->bitmap = malloc(size);
        if (to->bitmap == NULL)
            return -ENOMEM;
        memcpy(to->bitmap, f->ranges[i].bitmap, size);
        vm->filter_count++;
    }
    vm->filter_denies = (f->flags & KVM_MSR_FILTER_DEFAULT_DENY) != 0;
    return 0;
}

static bool filtered(const struct fake_vm *vm, uint32_t index, uint32_t direction)
{
    if (x2apic(index))
        return false; /* the filter does not reach them */
    for (unsigned i = 0; i < vm->filter_count; i++) {
        const struct kvm_msr_filter_range *r = &vm->filter[i];

        if (index >= r->base && index - r->base < r->nmsrs && (r->flags & direction))
            return !(r->bitmap[(index - r->base) / 8] >> ((index - r->base) % 8) & 1);
    }
    return vm->filter_denies;
}

/* ---- from the guest ---- */

uint32_t fake_msr_refused(struct fake_vcpu *v, uint32_t index, bool write)
{
    if (filtered(v->vm, index, write ? KVM_MSR_FILTER_WRITE : KVM_MSR_FILTER_READ))
        return KVM_MSR_EXIT_REASON_FILTER;
    return known(v, index) ? 0 : KVM_MSR_EXIT_REASON_UNKNOWN;
}

bool fake_msr_exit(struct fake_vcpu *v, uint32_t reason, uint32_t index, bool write,
                   uint64_t *value)
{
    struct kvm_run *run = v->run;

    if (!(v->vm->msr_exits & reason))
        return false;
    run->exit_reason = write ? KVM_EXIT_X86_WRMSR : KVM_EXIT_X86_RDMSR;
    memset(&run->msr, 0, sizeof(run->msr));
    run->msr.reason = reason;
    run->msr.index = index;
    run->msr.data = write ? *value : 0;
    fake_park(v);
    if (run->msr.error)
        return false;
    if (!write)
        *value = run->msr.data;
    return true;
}
