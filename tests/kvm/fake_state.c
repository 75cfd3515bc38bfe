/* Registers, segments and events between struct x86_state and KVM's structures. */
#include "fake_impl.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/endian.h"

static const uint8_t gpr_order[] = {X86_RAX, X86_RBX, X86_RCX, X86_RDX, X86_RSI, X86_RDI,
                                    X86_RSP, X86_RBP, X86_R8,  X86_R9,  X86_R10, X86_R11,
                                    X86_R12, X86_R13, X86_R14, X86_R15};

void fake_get_regs(struct fake_vcpu *v, struct kvm_regs *r)
{
    __u64 *gpr = &r->rax; /* the sixteen follow each other */

    for (unsigned i = 0; i < countof(gpr_order); i++)
        gpr[i] = v->st.gpr[gpr_order[i]];
    r->rip = v->st.rip;
    r->rflags = v->st.rflags;
}

void fake_set_regs(struct fake_vcpu *v, const struct kvm_regs *r)
{
    const __u64 *gpr = &r->rax;

    for (unsigned i = 0; i < countof(gpr_order); i++)
        v->st.gpr[gpr_order[i]] = gpr[i];
    v->st.rip = r->rip;
    v->st.rflags = r->rflags | X86_FL_FIXED;
    v->step_gone = v->st.seg[X86_CS].base + r->rip != v->step_pc; /* Linux: kvm_set_rflags */
    v->dirty = true;
}

/* ---- segments ---- */

static void get_segment(const struct x86_segment *s, struct kvm_segment *out)
{
    *out = (struct kvm_segment){
        .base = s->base,
        .limit = s->limit,
        .selector = s->selector,
        .type = s->attr & 15,
        .s = (s->attr & X86_SEG_S) != 0,
        .dpl = (s->attr & X86_SEG_DPL) >> 5,
        .present = (s->attr & X86_SEG_P) != 0 && !(s->attr & X86_SEG_UNUSABLE),
        .avl = (s->attr >> 12) & 1,
        .l = (s->attr & X86_SEG_L) != 0,
        .db = (s->attr & X86_SEG_DB) != 0,
        .g = (s->attr & X86_SEG_G) != 0,
        .unusable = (s->attr & X86_SEG_UNUSABLE) != 0,
    };
}

static struct x86_segment set_segment(const struct kvm_segment *s)
{
    uint32_t attr = (s->type & 15u) | (s->s & 1u) << 4 | (s->dpl & 3u) << 5 |
                    (s->present & 1u) << 7 | (s->avl & 1u) << 12 | (s->l & 1u) << 13 |
                    (s->db & 1u) << 14 | (s->g & 1u) << 15;

    if (s->unusable || !s->present)
        attr |= X86_SEG_UNUSABLE;
    return (struct x86_segment){s->selector, attr, s->limit, s->base};
}

/* What struct kvm_sregs and kvm_sregs2 begin with alike. */
static_assert(offsetof(struct kvm_sregs, interrupt_bitmap) == offsetof(struct kvm_sregs2, flags),
              "the two differ behind apic_base only");

void fake_get_sregs(struct fake_vcpu *v, struct kvm_sregs *s)
{
    const struct x86_state *st = &v->st;

    memset(s, 0, sizeof(*s));
    get_segment(&st->seg[X86_CS], &s->cs);
    get_segment(&st->seg[X86_DS], &s->ds);
    get_segment(&st->seg[X86_ES], &s->es);
    get_segment(&st->seg[X86_FS], &s->fs);
    get_segment(&st->seg[X86_GS], &s->gs);
    get_segment(&st->seg[X86_SS], &s->ss);
    get_segment(&st->tr, &s->tr);
    get_segment(&st->ldtr, &s->ldt);
    s->gdt = (struct kvm_dtable){.base = st->gdtr.base, .limit = st->gdtr.limit};
    s->idt = (struct kvm_dtable){.base = st->idtr.base, .limit = st->idtr.limit};
    s->cr0 = st->cr0;
    s->cr2 = st->cr2;
    s->cr3 = st->cr3;
    s->cr4 = st->cr4;
    s->efer = st->efer;
    s->cr8 = fake_lapic_ops.get_cr8(v->vm, v->id);
    s->apic_base = fake_get_apic_base(v);
    if (v->interrupt.valid)
        s->interrupt_bitmap[v->interrupt.nr / 64] |= 1ull << (v->interrupt.nr % 64);
}

void fake_get_sregs2(struct fake_vcpu *v, struct kvm_sregs2 *s)
{
    struct kvm_sregs old;

    memset(s, 0, sizeof(*s));
    fake_get_sregs(v, &old);
    memcpy(s, &old, offsetof(struct kvm_sregs2, flags));
    if (x86_pae_paging(v->st.cr0, v->st.cr4, v->st.efer)) {
        s->flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
        memcpy(s->pdptrs, v->st.pdptr, sizeof(s->pdptrs));
    }
}

/* Linux: kvm_is_valid_sregs. */
static bool valid(struct fake_vcpu *v, const struct kvm_sregs *s)
{
    if ((s->efer & X86_EFER_LME) && (s->cr0 & X86_CR0_PG)) {
        if (!(s->cr4 & X86_CR4_PAE) || !(s->efer & X86_EFER_LMA))
            return false;
        if (s->cr3 >> v->vm->fake->host.phys_bits)
            return false;
    } else if ((s->efer & X86_EFER_LMA) || s->cs.l) {
        return false;
    }
    return (s->cr4 & ~fake_cr4_mask(v)) == 0;
}

static int set_common(struct fake_vcpu *v, const struct kvm_sregs *s)
{
    struct x86_state *st = &v->st;

    if (!valid(v, s) || !fake_set_apic_base(v, s->apic_base))
        return -EINVAL;
    st->seg[X86_CS] = set_segment(&s->cs);
    st->seg[X86_DS] = set_segment(&s->ds);
    st->seg[X86_ES] = set_segment(&s->es);
    st->seg[X86_FS] = set_segment(&s->fs);
    st->seg[X86_GS] = set_segment(&s->gs);
    st->seg[X86_SS] = set_segment(&s->ss);
    st->tr = set_segment(&s->tr);
    st->ldtr = set_segment(&s->ldt);
    st->gdtr = (struct x86_dtable){s->gdt.base, s->gdt.limit};
    st->idtr = (struct x86_dtable){s->idt.base, s->idt.limit};
    st->cr0 = s->cr0 | X86_CR0_ET;
    st->cr2 = s->cr2;
    st->cr3 = s->cr3;
    st->cr4 = s->cr4;
    st->efer = s->efer;
    if (v->vm->split)
        fake_lapic_ops.set_cr8(v->vm, v->id, s->cr8 & 15);
    else
        v->cr8 = s->cr8 & 15;
    v->dirty = true;
    return 0;
}

int fake_set_sregs(struct fake_vcpu *v, const struct kvm_sregs *s)
{
    int rc = set_common(v, s);

    if (rc < 0)
        return rc;
    if (x86_pae_paging(v->st.cr0, v->st.cr4, v->st.efer) &&
        !fake_memory_read(v->vm, v->st.cr3 & 0xffffffe0u, v->st.pdptr, sizeof(v->st.pdptr)))
        memset(v->st.pdptr, 0, sizeof(v->st.pdptr));
    for (unsigned i = 0; i < countof(s->interrupt_bitmap); i++) {
        if (s->interrupt_bitmap[i] != 0) {
            uint8_t nr = (uint8_t)(64 * i + (unsigned)__builtin_ctzll(s->interrupt_bitmap[i]));

            v->interrupt = (struct fake_event){.valid = true, .nr = nr};
            break;
        }
    }
    return 0;
}

int fake_set_sregs2(struct fake_vcpu *v, const struct kvm_sregs2 *s)
{
    bool pdptrs = (s->flags & KVM_SREGS2_FLAGS_PDPTRS_VALID) != 0;
    struct kvm_sregs old = {0};
    int rc;

    if (s->flags & ~(uint64_t)KVM_SREGS2_FLAGS_PDPTRS_VALID)
        return -EINVAL;
    if (pdptrs && !x86_pae_paging(s->cr0, s->cr4, s->efer))
        return -EINVAL;
    memcpy(&old, s, offsetof(struct kvm_sregs2, flags));
    rc = set_common(v, &old);
    if (rc == 0 && pdptrs)
        memcpy(v->st.pdptr, s->pdptrs, sizeof(s->pdptrs));
    return rc;
}

/* ---- events ---- */

void fake_get_events(struct fake_vcpu *v, struct kvm_vcpu_events *e)
{
    memset(e, 0, sizeof(*e));
    e->exception.injected = v->exception.valid;
    e->exception.nr = v->exception.nr;
    e->exception.has_error_code = v->exception.has_error;
    e->exception.error_code = v->exception.error;
    e->interrupt.injected = v->interrupt.valid;
    e->interrupt.nr = v->interrupt.nr;
    e->interrupt.shadow = (v->st.movss_shadow ? KVM_X86_SHADOW_INT_MOV_SS : 0) |
                          (v->st.sti_shadow ? KVM_X86_SHADOW_INT_STI : 0);
    e->nmi.injected = v->nmi.valid;
    e->nmi.pending = v->st.nmi_pending;
    e->nmi.masked = v->st.nmi_blocked;
    e->flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
}

int fake_set_events(struct fake_vcpu *v, const struct kvm_vcpu_events *e)
{
    uint32_t known = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |
                     KVM_VCPUEVENT_VALID_SHADOW | KVM_VCPUEVENT_VALID_SMM;

    if (e->flags & ~known)
        return -EINVAL;
    if (e->exception.injected && (e->exception.nr > 31 || e->exception.nr == X86_EXC_NMI))
        return -EINVAL;
    if ((e->flags & KVM_VCPUEVENT_VALID_SMM) && (e->smi.smm || e->smi.pending))
        return -EINVAL; /* there is no system management mode here */
    v->exception = (struct fake_event){.valid = e->exception.injected != 0,
                                       .nr = e->exception.nr,
                                       .has_error = e->exception.has_error_code != 0,
                                       .error = e->exception.error_code};
    v->interrupt = (struct fake_event){
        .valid = e->interrupt.injected != 0, .nr = e->interrupt.nr, .soft = e->interrupt.soft != 0};
    if (e->flags & KVM_VCPUEVENT_VALID_SHADOW) {
        v->st.sti_shadow = (e->interrupt.shadow & KVM_X86_SHADOW_INT_STI) != 0;
        v->st.movss_shadow = (e->interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS) != 0;
    }
    v->nmi = (struct fake_event){.valid = e->nmi.injected != 0, .nr = X86_EXC_NMI};
    if (e->flags & KVM_VCPUEVENT_VALID_NMI_PENDING)
        v->st.nmi_pending = e->nmi.pending != 0;
    v->st.nmi_blocked = e->nmi.masked != 0;
    v->dirty = true;
    return 0;
}
