#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "engine/kvm/internal.h"
#include "host/clock.h"
#include "mem/gmem.h"

/*
 * struct x86_state to the kernel's structures and back. KVM's interface: api.rst of Linux 6.1,
 * KVM_{GET,SET}_{REGS,SREGS2,XSAVE,XCRS,MSRS,DEBUGREGS,VCPU_EVENTS}.
 */

#define MSR_TSC 0x10u
#define MSR_APIC_BASE 0x1bu

/* ---- segments ---- */

static struct kvm_segment segment_out(const struct x86_segment *s)
{
    bool unusable = (s->attr & X86_SEG_UNUSABLE) != 0;

    return (struct kvm_segment){
        .base = s->base,
        .limit = s->limit,
        .selector = s->selector,
        .type = s->attr & 15,
        .s = s->attr >> 4 & 1,
        .dpl = s->attr >> 5 & 3,
        .present = unusable ? 0 : s->attr >> 7 & 1,
        .avl = s->attr >> 12 & 1,
        .l = s->attr >> 13 & 1,
        .db = s->attr >> 14 & 1,
        .g = s->attr >> 15 & 1,
        .unusable = unusable,
    };
}

static struct x86_segment segment_in(const struct kvm_segment *k)
{
    uint32_t attr = (uint32_t)(k->type & 15) | (k->s & 1u) << 4 | (k->dpl & 3u) << 5 |
                    (k->present & 1u) << 7 | (k->avl & 1u) << 12 | (k->l & 1u) << 13 |
                    (k->db & 1u) << 14 | (k->g & 1u) << 15;

    if (k->unusable || !k->present)
        attr |= X86_SEG_UNUSABLE;
    return (struct x86_segment){k->selector, attr, k->limit, k->base};
}

/* enum x86_seg's order */
static struct kvm_segment *segment_at(struct kvm_sregs2 *s, unsigned n)
{
    switch (n) {
    case X86_ES:
        return &s->es;
    case X86_CS:
        return &s->cs;
    case X86_SS:
        return &s->ss;
    case X86_DS:
        return &s->ds;
    case X86_FS:
        return &s->fs;
    default:
        return &s->gs;
    }
}

/* ---- general and system registers ---- */

static void regs_out(const struct x86_state *st, struct kvm_regs *r)
{
    *r = (struct kvm_regs){
        .rax = st->gpr[X86_RAX],
        .rbx = st->gpr[X86_RBX],
        .rcx = st->gpr[X86_RCX],
        .rdx = st->gpr[X86_RDX],
        .rsi = st->gpr[X86_RSI],
        .rdi = st->gpr[X86_RDI],
        .rsp = st->gpr[X86_RSP],
        .rbp = st->gpr[X86_RBP],
        .r8 = st->gpr[X86_R8],
        .r9 = st->gpr[X86_R9],
        .r10 = st->gpr[X86_R10],
        .r11 = st->gpr[X86_R11],
        .r12 = st->gpr[X86_R12],
        .r13 = st->gpr[X86_R13],
        .r14 = st->gpr[X86_R14],
        .r15 = st->gpr[X86_R15],
        .rip = st->rip,
        .rflags = st->rflags,
    };
}

static void regs_in(const struct kvm_regs *r, struct x86_state *st)
{
    const uint64_t gpr[16] = {r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp, r->rsi, r->rdi,
                              r->r8,  r->r9,  r->r10, r->r11, r->r12, r->r13, r->r14, r->r15};

    memcpy(st->gpr, gpr, sizeof(gpr));
    st->rip = r->rip;
    st->rflags = r->rflags;
}

static void sregs_out(struct kvm_cpu *cpu, const struct x86_state *st, struct kvm_sregs2 *s)
{
    const struct engine_env *env = &cpu->vm->env;
    uint64_t base = 0xfee00900;
    unsigned i;

    memset(s, 0, sizeof(*s));
    for (i = 0; i < X86_SEG_COUNT; i++)
        *segment_at(s, i) = segment_out(&st->seg[i]);
    s->tr = segment_out(&st->tr);
    s->ldt = segment_out(&st->ldtr);
    s->gdt = (struct kvm_dtable){.base = st->gdtr.base, .limit = st->gdtr.limit};
    s->idt = (struct kvm_dtable){.base = st->idtr.base, .limit = st->idtr.limit};
    s->cr0 = st->cr0;
    s->cr2 = st->cr2;
    s->cr3 = st->cr3;
    s->cr4 = st->cr4;
    s->efer = st->efer;
    if (env->lapic != NULL) {
        (void)env->lapic->msr_read(env->lapic_ctx, cpu->id, MSR_APIC_BASE, &base);
        s->cr8 = env->lapic->get_cr8(env->lapic_ctx, cpu->id);
    }
    if (cpu->vm->split && !cpu->vm->away) { /* the kernel's stays as it is */
        struct kvm_sregs now;

        if (kvm_cpu_ioctl_p(cpu, KVM_GET_SREGS, &now) == 0) {
            base = now.apic_base;
            s->cr8 = now.cr8;
        }
    }
    s->apic_base = base;
    if (x86_pae_paging(st->cr0, st->cr4, st->efer)) {
        s->flags = KVM_SREGS2_FLAGS_PDPTRS_VALID;
        for (i = 0; i < 4; i++)
            s->pdptrs[i] = st->pdptr[i];
    }
}

static void sregs_in(const struct kvm_sregs2 *s, struct x86_state *st)
{
    struct kvm_sregs2 copy = *s;
    unsigned i;

    for (i = 0; i < X86_SEG_COUNT; i++)
        st->seg[i] = segment_in(segment_at(&copy, i));
    st->tr = segment_in(&s->tr);
    st->ldtr = segment_in(&s->ldt);
    st->gdtr = (struct x86_dtable){s->gdt.base, s->gdt.limit};
    st->idtr = (struct x86_dtable){s->idt.base, s->idt.limit};
    st->cr0 = s->cr0;
    st->cr2 = s->cr2;
    st->cr3 = s->cr3;
    st->cr4 = s->cr4;
    st->efer = s->efer;
    for (i = 0; i < 4 && (s->flags & KVM_SREGS2_FLAGS_PDPTRS_VALID); i++)
        st->pdptr[i] = s->pdptrs[i];
}

/* The older form: all but the PDPTRs and the flags lies at the same place, a bitmap behind. */
static int sregs_write(struct kvm_cpu *cpu, struct kvm_sregs2 *s)
{
    struct kvm_sregs old;

    if (cpu->vm->caps.sregs2)
        return kvm_cpu_ioctl_p(cpu, KVM_SET_SREGS2, s);
    memset(&old, 0, sizeof(old));
    memcpy(&old, s, offsetof(struct kvm_sregs, interrupt_bitmap));
    return kvm_cpu_ioctl_p(cpu, KVM_SET_SREGS, &old);
}

static int sregs_read(struct kvm_cpu *cpu, struct kvm_sregs2 *s)
{
    struct kvm_sregs old;
    int rc;

    memset(s, 0, sizeof(*s));
    if (cpu->vm->caps.sregs2)
        return kvm_cpu_ioctl_p(cpu, KVM_GET_SREGS2, s);
    rc = kvm_cpu_ioctl_p(cpu, KVM_GET_SREGS, &old);
    memcpy(s, &old, offsetof(struct kvm_sregs, interrupt_bitmap));
    if (rc == 0 && x86_pae_paging(s->cr0, s->cr4, s->efer)) {
        s->flags = KVM_SREGS2_FLAGS_PDPTRS_VALID; /* in memory, if the guest has not changed it */
        for (unsigned i = 0; i < 4; i++)
            s->pdptrs[i] = gmem_read64(cpu->vm->env.mem, (s->cr3 & 0xffffffe0u) + 8 * i);
    }
    return rc;
}
_Static_assert(offsetof(struct kvm_sregs, interrupt_bitmap) == offsetof(struct kvm_sregs2, flags),
               "both forms of the system registers agree up to there");

/* ---- floating point ---- */

#define XSTATE_X87_SSE 3u

/* Ours has Intel's places for the components, the kernel's has the host's. */
static void xsave_out(const struct kvm_machine *vm, const struct x86_state *st, uint8_t *area)
{
    uint64_t have, keep = XSTATE_X87_SSE;

    memcpy(&have, st->xsave + X86_XSAVE_HDR, 8);
    memcpy(area, st->xsave, X86_XSAVE_HDR);
    for (unsigned i = 2; i < X86_XSAVE_COMPONENTS; i++) {
        if (vm->xsave_at[i] == 0)
            continue;
        memcpy(area + vm->xsave_at[i], st->xsave + x86_xsave_home(i), x86_xsave_size(i));
        keep |= 1ull << i;
    }
    have &= keep;
    memcpy(area + X86_XSAVE_HDR, &have, 8);
}

/* A component that is not there is in its initial state, which soft wants to see in the area. */
static void xsave_in(const struct kvm_machine *vm, const uint8_t *area, struct x86_state *st)
{
    uint64_t have, keep = XSTATE_X87_SSE;

    memset(st->xsave, 0, sizeof(st->xsave));
    memcpy(st->xsave, area, X86_XSAVE_HDR);
    memcpy(&have, area + X86_XSAVE_HDR, 8);
    for (unsigned i = 2; i < X86_XSAVE_COMPONENTS; i++) {
        if (vm->xsave_at[i] == 0 || !(have >> i & 1))
            continue;
        memcpy(st->xsave + x86_xsave_home(i), area + vm->xsave_at[i], x86_xsave_size(i));
        keep |= 1ull << i;
    }
    have &= keep;
    memcpy(st->xsave + X86_XSAVE_HDR, &have, 8);
}

/* Without XSAVE the kernel has a form of its own for what FXSAVE stores. */
static int fpu_write(struct kvm_cpu *cpu, const struct x86_state *st)
{
    struct kvm_fpu f;
    const uint8_t *x = st->xsave;

    memset(&f, 0, sizeof(f));
    for (unsigned i = 0; i < 8; i++)
        memcpy(f.fpr[i], x + 32 + 16 * i, 16);
    memcpy(&f.fcw, x, 2);
    memcpy(&f.fsw, x + 2, 2);
    f.ftwx = x[4];
    memcpy(&f.last_opcode, x + 6, 2);
    memcpy(&f.last_ip, x + 8, 8);
    memcpy(&f.last_dp, x + 16, 8);
    memcpy(&f.mxcsr, x + 24, 4);
    memcpy(f.xmm, x + 160, sizeof(f.xmm));
    return kvm_cpu_ioctl_p(cpu, KVM_SET_FPU, &f);
}

static int fpu_read(struct kvm_cpu *cpu, struct x86_state *st)
{
    uint64_t have = XSTATE_X87_SSE;
    uint8_t *x = st->xsave;
    struct kvm_fpu f;
    int rc;

    memset(&f, 0, sizeof(f));
    rc = kvm_cpu_ioctl_p(cpu, KVM_GET_FPU, &f);
    memset(st->xsave, 0, sizeof(st->xsave));
    for (unsigned i = 0; i < 8; i++)
        memcpy(x + 32 + 16 * i, f.fpr[i], 16);
    memcpy(x, &f.fcw, 2);
    memcpy(x + 2, &f.fsw, 2);
    x[4] = f.ftwx;
    memcpy(x + 6, &f.last_opcode, 2);
    memcpy(x + 8, &f.last_ip, 8);
    memcpy(x + 16, &f.last_dp, 8);
    memcpy(x + 24, &f.mxcsr, 4);
    memcpy(x + 28, &cpu->vm->env.cpuid->mxcsr_mask, 4);
    memcpy(x + 160, f.xmm, sizeof(f.xmm));
    memcpy(x + X86_XSAVE_HDR, &have, 8);
    return rc;
}

static int fp_write(struct kvm_cpu *cpu, const struct x86_state *st)
{
    struct kvm_xsave area;
    struct kvm_xcrs xcrs = {.nr_xcrs = 1};
    int rc;

    if (!cpu->vm->caps.xsave)
        return fpu_write(cpu, st);
    if (cpu->vm->caps.xcrs) {
        xcrs.xcrs[0].value = st->xcr0;
        rc = kvm_cpu_ioctl_p(cpu, KVM_SET_XCRS, &xcrs);
        if (rc < 0)
            return rc;
    }
    memset(&area, 0, sizeof(area));
    xsave_out(cpu->vm, st, (uint8_t *)&area);
    return kvm_cpu_ioctl_p(cpu, KVM_SET_XSAVE, &area);
}

static int fp_read(struct kvm_cpu *cpu, struct x86_state *st)
{
    uint8_t area[8192] __attribute__((aligned(64))); /* what KVM_GET_XSAVE fills is a page */
    struct kvm_xcrs xcrs = {0};
    int rc;

    st->xcr0 = 1;
    if (!cpu->vm->caps.xsave)
        return fpu_read(cpu, st);
    if (cpu->vm->caps.xcrs) {
        rc = kvm_cpu_ioctl_p(cpu, KVM_GET_XCRS, &xcrs);
        if (rc < 0)
            return rc;
        for (unsigned i = 0; i < xcrs.nr_xcrs && i < countof(xcrs.xcrs); i++) {
            if (xcrs.xcrs[i].xcr == 0)
                st->xcr0 = xcrs.xcrs[i].value;
        }
    }
    memset(area, 0, sizeof(area));
    rc = kvm_cpu_ioctl_p(cpu, KVM_GET_XSAVE, area);
    xsave_in(cpu->vm, area, st);
    return rc;
}

/* ---- MSRs ---- */

/* Where each lies in the state. The TSC goes by its offset. */
static const struct state_msr {
    uint32_t index;
    uint16_t offset;
} state_msrs[] = {
    {0xc0000081u, offsetof(struct x86_state, star)},
    {0xc0000082u, offsetof(struct x86_state, lstar)},
    {0xc0000083u, offsetof(struct x86_state, cstar)},
    {0xc0000084u, offsetof(struct x86_state, sfmask)},
    {0xc0000102u, offsetof(struct x86_state, kernel_gs_base)},
    {0xc0000103u, offsetof(struct x86_state, tsc_aux)},
    {0x174, offsetof(struct x86_state, sysenter_cs)},
    {0x175, offsetof(struct x86_state, sysenter_esp)},
    {0x176, offsetof(struct x86_state, sysenter_eip)},
    {0x277, offsetof(struct x86_state, pat)},
    {0x3b, offsetof(struct x86_state, tsc_adjust)},
    {0x1a0, offsetof(struct x86_state, misc_enable)},
    {0x48, offsetof(struct x86_state, spec_ctrl)},
    {0xda0, offsetof(struct x86_state, xss)},
    {0x6e1, offsetof(struct x86_state, pkrs)},
    {0x2ff, offsetof(struct x86_state, mtrr_def_type)},
    {0x17a, offsetof(struct x86_state, mcg_status)},
    {0x3a, offsetof(struct x86_state, feature_control)},
    {0x1d9, offsetof(struct x86_state, debugctl)},
    {0x250, offsetof(struct x86_state, mtrr_fix[0])},
    {0x258, offsetof(struct x86_state, mtrr_fix[1])},
    {0x259, offsetof(struct x86_state, mtrr_fix[2])},
    {0x268, offsetof(struct x86_state, mtrr_fix[3])},
    {0x269, offsetof(struct x86_state, mtrr_fix[4])},
    {0x26a, offsetof(struct x86_state, mtrr_fix[5])},
    {0x26b, offsetof(struct x86_state, mtrr_fix[6])},
    {0x26c, offsetof(struct x86_state, mtrr_fix[7])},
    {0x26d, offsetof(struct x86_state, mtrr_fix[8])},
    {0x26e, offsetof(struct x86_state, mtrr_fix[9])},
    {0x26f, offsetof(struct x86_state, mtrr_fix[10])},
};

#define STATE_MSRS (countof(state_msrs) + 2 * X86_MTRR_VAR)
_Static_assert(STATE_MSRS <= KVM_MSRS_MAX && STATE_MSRS <= 64, "one call, a bit for each");

static struct state_msr state_msr(unsigned n)
{
    unsigned v = n - (unsigned)countof(state_msrs);

    if (n < countof(state_msrs))
        return state_msrs[n];
    return (struct state_msr){0x200 + v,
                              (uint16_t)((v & 1 ? offsetof(struct x86_state, mtrr_mask)
                                                : offsetof(struct x86_state, mtrr_base)) +
                                         8 * (v / 2))};
}

/*
 * KVM_GET_MSRS or KVM_SET_MSRS for all of them. A kernel stops at the first that it does not have
 * or whose value it refuses: its bit is set in *refused, and the rest is tried again behind it.
 */
static int msrs_transfer(struct kvm_cpu *cpu, unsigned long request, struct kvm_msr_entry *all,
                         uint64_t *refused)
{
    struct kvm_msr_buf b;
    struct kvm_msrs *m = kvm_msrs_in(&b);
    unsigned done = 0;

    *refused = 0;
    while (done < STATE_MSRS) {
        unsigned n = (unsigned)STATE_MSRS - done;
        int rc;

        memcpy(m->entries, all + done, n * sizeof(*all));
        m->nmsrs = n;
        rc = kvm_cpu_ioctl_p(cpu, request, m);
        if (rc < 0)
            return rc;
        n = (unsigned)min_u64((unsigned)rc, n);
        memcpy(all + done, m->entries, n * sizeof(*all));
        done += n;
        if (done < STATE_MSRS)
            *refused |= 1ull << done++;
    }
    return 0;
}

/*
 * An MSR that the kernel refuses keeps what the kernel has for it, and the value is remembered
 * here, so that a change of engine loses nothing.
 */
static int msrs_write(struct kvm_cpu *cpu, const struct x86_state *st)
{
    struct kvm_msr_entry all[STATE_MSRS];

    for (unsigned i = 0; i < STATE_MSRS; i++) {
        struct state_msr one = state_msr(i);

        all[i] = (struct kvm_msr_entry){.index = one.index};
        memcpy(&all[i].data, (const uint8_t *)st + one.offset, 8);
        cpu->msr_kept[i] = all[i].data;
    }
    return msrs_transfer(cpu, KVM_SET_MSRS, all, &cpu->msr_lost);
}

static int msrs_read(struct kvm_cpu *cpu, struct x86_state *st)
{
    struct kvm_msr_entry all[STATE_MSRS];
    uint64_t refused;
    int rc;

    for (unsigned i = 0; i < STATE_MSRS; i++)
        all[i] = (struct kvm_msr_entry){.index = state_msr(i).index};
    rc = msrs_transfer(cpu, KVM_GET_MSRS, all, &refused);
    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < STATE_MSRS; i++) {
        uint8_t *to = (uint8_t *)st + state_msr(i).offset;

        if (cpu->msr_lost >> i & 1)
            memcpy(to, &cpu->msr_kept[i], 8);
        else if (!(refused >> i & 1))
            memcpy(to, &all[i].data, 8);
    }
    return 0;
}

int kvm_msr_get(struct kvm_cpu *cpu, uint32_t index, uint64_t *value)
{
    struct kvm_msr_buf b;
    struct kvm_msrs *m = kvm_msrs_in(&b);
    int rc;

    m->nmsrs = 1;
    m->entries[0] = (struct kvm_msr_entry){.index = index};
    rc = kvm_cpu_ioctl_p(cpu, KVM_GET_MSRS, m);
    *value = m->entries[0].data;
    return rc == 1 ? 0 : rc < 0 ? rc : -EINVAL;
}

int kvm_msr_set(struct kvm_cpu *cpu, uint32_t index, uint64_t value)
{
    struct kvm_msr_buf b;
    struct kvm_msrs *m = kvm_msrs_in(&b);
    int rc;

    m->nmsrs = 1;
    m->entries[0] = (struct kvm_msr_entry){.index = index, .data = value};
    rc = kvm_cpu_ioctl_p(cpu, KVM_SET_MSRS, m);
    return rc == 1 ? 0 : rc < 0 ? rc : -EINVAL;
}

/* ---- time ---- */

static int tsc_attr(struct kvm_cpu *cpu, unsigned long request, uint64_t *value)
{
    struct kvm_device_attr a = {
        .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = (uintptr_t)value};

    return kvm_cpu_ioctl_p(cpu, request, &a);
}

/* By the TSC itself where the kernel does not tell the offset; some tens of nanoseconds off. */
uint64_t kvm_tsc_offset(struct kvm_cpu *cpu)
{
    uint64_t v = 0;

    if (tsc_attr(cpu, KVM_GET_DEVICE_ATTR, &v) == 0)
        return v;
    return kvm_msr_get(cpu, MSR_TSC, &v) == 0 ? v - host_tsc() : atomic_load(&cpu->tsc_offset);
}

int kvm_tsc_set_offset(struct kvm_cpu *cpu, uint64_t offset)
{
    int rc = tsc_attr(cpu, KVM_SET_DEVICE_ATTR, &offset);

    if (rc < 0)
        rc = kvm_msr_set(cpu, MSR_TSC, host_tsc() + offset);
    /* Read back: a KVM without hardware behind it says yes and leaves it. */
    atomic_store(&cpu->tsc_offset, rc == 0 ? kvm_tsc_offset(cpu) : offset);
    return rc;
}

/* ---- events ---- */

enum { EV_EXTERNAL = 0, EV_NMI = 2, EV_EXCEPTION = 3, EV_SOFTWARE = 4, EV_SOFT_EXCEPTION = 6 };

static void events_out(const struct x86_state *st, struct kvm_vcpu_events *e)
{
    const struct x86_event *ev = &st->event;

    memset(e, 0, sizeof(*e));
    e->flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SHADOW;
    e->interrupt.shadow = (uint8_t)((st->sti_shadow ? KVM_X86_SHADOW_INT_STI : 0) |
                                    (st->movss_shadow ? KVM_X86_SHADOW_INT_MOV_SS : 0));
    e->nmi.masked = st->nmi_blocked;
    e->nmi.pending = st->nmi_pending;
    if (!ev->valid)
        return;
    switch (ev->type) {
    case EV_EXTERNAL:
    case EV_SOFTWARE:
        e->interrupt.injected = 1;
        e->interrupt.nr = ev->vector;
        e->interrupt.soft = ev->type == EV_SOFTWARE;
        break;
    case EV_NMI:
        e->nmi.injected = 1;
        break;
    default:
        e->exception.injected = 1;
        e->exception.nr = ev->vector;
        e->exception.has_error_code = ev->has_error;
        e->exception.error_code = ev->error;
        break;
    }
}

static void events_in(const struct kvm_vcpu_events *e, struct x86_state *st)
{
    struct x86_event *ev = &st->event;

    st->sti_shadow = (e->interrupt.shadow & KVM_X86_SHADOW_INT_STI) != 0;
    st->movss_shadow = (e->interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS) != 0;
    st->nmi_blocked = e->nmi.masked != 0;
    st->nmi_pending = e->nmi.pending != 0;
    *ev = (struct x86_event){0};
    if (e->exception.injected || e->exception.pending) {
        *ev = (struct x86_event){.valid = true,
                                 .type = EV_EXCEPTION,
                                 .vector = e->exception.nr,
                                 .has_error = e->exception.has_error_code != 0,
                                 .error = e->exception.error_code};
        if (ev->vector == X86_EXC_BP || ev->vector == X86_EXC_OF)
            ev->type = EV_SOFT_EXCEPTION;
        ev->payload = ev->vector == X86_EXC_PF ? st->cr2 : 0;
    } else if (e->interrupt.injected) {
        *ev = (struct x86_event){.valid = true,
                                 .type = e->interrupt.soft ? EV_SOFTWARE : EV_EXTERNAL,
                                 .vector = e->interrupt.nr};
    } else if (e->nmi.injected) {
        *ev = (struct x86_event){.valid = true, .type = EV_NMI, .vector = X86_EXC_NMI};
    }
}

/* ---- all of it ---- */

static int debug_write(struct kvm_cpu *cpu, const struct x86_state *st)
{
    struct kvm_debugregs d = {.dr6 = st->dr6, .dr7 = st->dr7};

    if (!cpu->vm->caps.debugregs)
        return 0;
    memcpy(d.db, st->dr, sizeof(d.db));
    return kvm_cpu_ioctl_p(cpu, KVM_SET_DEBUGREGS, &d);
}

static int debug_read(struct kvm_cpu *cpu, struct x86_state *st)
{
    struct kvm_debugregs d = {0};
    int rc;

    st->dr6 = 0xffff0ff0;
    st->dr7 = 0x400;
    if (!cpu->vm->caps.debugregs)
        return 0;
    rc = kvm_cpu_ioctl_p(cpu, KVM_GET_DEBUGREGS, &d);
    memcpy(st->dr, d.db, sizeof(st->dr));
    st->dr6 = d.dr6;
    st->dr7 = d.dr7;
    return rc;
}

static int failed(const struct kvm_cpu *cpu, struct error *err, int rc, const char *what)
{
    return error_set(err, rc, "vCPU %u: KVM does not %s: %s", cpu->id, what, strerror(-rc));
}

/* With local APICs in the kernel it is there that a vCPU sleeps. */
static int mp_write(struct kvm_cpu *cpu, const struct x86_state *st)
{
    struct kvm_mp_state m = {.mp_state = st->mp_state == X86_MP_HALTED ? KVM_MP_STATE_HALTED
                                                                       : KVM_MP_STATE_RUNNABLE};

    return kvm_cpu_ioctl_p(cpu, KVM_SET_MP_STATE, &m);
}

int kvm_state_set(struct kvm_cpu *cpu, const struct x86_state *in, struct error *err)
{
    struct kvm_regs regs;
    struct kvm_sregs2 sregs;
    struct kvm_vcpu_events events;
    int rc;

    regs_out(in, &regs);
    sregs_out(cpu, in, &sregs);
    events_out(in, &events);
    rc = sregs_write(cpu, &sregs);
    if (rc < 0)
        return failed(cpu, err, rc, "take these system registers");
    rc = kvm_cpu_ioctl_p(cpu, KVM_SET_REGS, &regs);
    if (rc < 0)
        return failed(cpu, err, rc, "take these registers");
    rc = fp_write(cpu, in);
    if (rc < 0)
        return failed(cpu, err, rc, "take this floating-point state");
    rc = msrs_write(cpu, in);
    if (rc == 0)
        rc = kvm_tsc_set_offset(cpu, in->tsc_offset);
    if (rc < 0)
        return failed(cpu, err, rc, "take these model-specific registers");
    rc = debug_write(cpu, in);
    if (rc < 0)
        return failed(cpu, err, rc, "take these debug registers");
    rc = kvm_cpu_ioctl_p(cpu, KVM_SET_VCPU_EVENTS, &events);
    if (rc < 0)
        return failed(cpu, err, rc, "take these pending events");
    if (cpu->vm->split)
        rc = mp_write(cpu, in);
    if (rc < 0)
        return failed(cpu, err, rc, "take this state of activity");
    cpu->stale = true;
    cpu->halted = !cpu->vm->split && in->mp_state == X86_MP_HALTED;
    cpu->shutdown = in->mp_state == X86_MP_SHUTDOWN;
    /* what the last exit told is no longer true */
    cpu->run->if_flag = (in->rflags & X86_FL_IF) != 0;
    cpu->run->ready_for_interrupt_injection = 0;
    cpu->run->apic_base = sregs.apic_base;
    cpu->run->s.regs.regs = regs;
    cpu->pass = false;
    cpu->passing = false;
    cpu->debug_stale = true;
    cpu->nmi_given = in->nmi_pending;
    atomic_store(&cpu->irq_signal, true);
    return 0;
}

int kvm_state_get(struct kvm_cpu *cpu, struct x86_state *out, struct error *err)
{
    struct kvm_regs regs;
    struct kvm_sregs2 sregs;
    struct kvm_vcpu_events events;
    uint32_t activity = KVM_MP_STATE_RUNNABLE;
    int rc;

    memset(out, 0, sizeof(*out));
    rc = kvm_cpu_ioctl_p(cpu, KVM_GET_REGS, &regs);
    if (rc == 0)
        rc = sregs_read(cpu, &sregs);
    if (rc == 0)
        rc = kvm_cpu_ioctl_p(cpu, KVM_GET_VCPU_EVENTS, &events);
    if (rc == 0)
        rc = fp_read(cpu, out);
    if (rc == 0)
        rc = msrs_read(cpu, out);
    if (rc == 0)
        rc = debug_read(cpu, out);
    if (rc == 0 && cpu->vm->split)
        rc = kvm_mp_state(cpu, &activity);
    if (rc < 0)
        return failed(cpu, err, rc, "give its state");
    regs_in(&regs, out);
    sregs_in(&sregs, out);
    events_in(&events, out);
    if (atomic_exchange(&cpu->nmi_signal, false)) /* signalled, not handed over yet */
        out->nmi_pending = true;
    out->tsc_offset = kvm_tsc_offset(cpu);
    atomic_store(&cpu->tsc_offset, out->tsc_offset);
    out->mp_state = cpu->shutdown                                    ? X86_MP_SHUTDOWN
                    : cpu->halted || activity == KVM_MP_STATE_HALTED ? X86_MP_HALTED
                                                                     : X86_MP_RUNNING;
    return 0;
}
