/* x87, vector and debug registers between struct x86_state and KVM's structures. */
#include "fake_impl.h"

#include <errno.h>
#include <string.h>

#include "base/endian.h"

/* Offsets in FXSAVE's image. */
enum { FX_FCW = 0, FX_FSW = 2, FX_FTW = 4, FX_FOP = 6, FX_IP = 8, FX_DP = 16, FX_MXCSR = 24 };
enum { FX_MASK = 28, FX_ST = 32, FX_XMM = 160 };

#define XCR0_X87 1u
#define XCR0_SSE 2u
#define XCR0_AVX 4u
#define XCR0_PKRU (1u << 9)

void fake_get_fpu(struct fake_vcpu *v, struct kvm_fpu *f)
{
    const uint8_t *x = v->st.xsave;

    memset(f, 0, sizeof(*f));
    memcpy(f->fpr, x + FX_ST, sizeof(f->fpr));
    memcpy(f->xmm, x + FX_XMM, sizeof(f->xmm));
    f->fcw = le16_load(x + FX_FCW);
    f->fsw = le16_load(x + FX_FSW);
    f->ftwx = x[FX_FTW];
    f->last_opcode = le16_load(x + FX_FOP);
    f->last_ip = le64_load(x + FX_IP);
    f->last_dp = le64_load(x + FX_DP); /* MXCSR stays 0, as in kvm_arch_vcpu_ioctl_get_fpu */
}

void fake_set_fpu(struct fake_vcpu *v, const struct kvm_fpu *f)
{
    uint8_t *x = v->st.xsave;

    memcpy(x + FX_ST, f->fpr, sizeof(f->fpr));
    memcpy(x + FX_XMM, f->xmm, sizeof(f->xmm));
    le16_store(x + FX_FCW, f->fcw);
    le16_store(x + FX_FSW, f->fsw);
    x[FX_FTW] = f->ftwx;
    le16_store(x + FX_FOP, f->last_opcode);
    le64_store(x + FX_IP, f->last_ip);
    le64_store(x + FX_DP, f->last_dp);
    v->dirty = true; /* nor is MXCSR set */
}

/* The header says that all is there: the software CPU keeps no initial components. */
void fake_get_xsave(struct fake_vcpu *v, struct kvm_xsave *x)
{
    uint8_t *out = (uint8_t *)x->region;

    memset(x->region, 0, sizeof(x->region));
    memcpy(out, v->st.xsave, X86_XSAVE_SIZE);
    memset(out + X86_XSAVE_HDR, 0, 64);
    le32_store(out + FX_MASK, v->vm->fake->host.mxcsr_mask);
    le64_store(out + X86_XSAVE_HDR, v->vm->fake->host.xcr0_mask);
}

int fake_set_xsave(struct fake_vcpu *v, const struct kvm_xsave *x)
{
    const uint8_t *in = (const uint8_t *)x->region;
    uint64_t has = le64_load(in + X86_XSAVE_HDR), all = v->vm->fake->host.xcr0_mask;
    uint8_t *to = v->st.xsave;

    if ((has & ~all) != 0 || (le32_load(in + FX_MXCSR) & ~v->vm->fake->host.mxcsr_mask) != 0)
        return -EINVAL;
    memset(to, 0, X86_XSAVE_SIZE); /* components that are not there take their initial values */
    le16_store(to + FX_FCW, 0x37f);
    le32_store(to + FX_MXCSR, le32_load(in + FX_MXCSR));
    le32_store(to + FX_MASK, v->vm->fake->host.mxcsr_mask);
    if (has & XCR0_X87) {
        memcpy(to, in, FX_MXCSR);
        memcpy(to + FX_ST, in + FX_ST, FX_XMM - FX_ST);
    }
    if (has & XCR0_SSE)
        memcpy(to + FX_XMM, in + FX_XMM, 256);
    if (has & XCR0_AVX)
        memcpy(to + X86_XSAVE_YMM, in + X86_XSAVE_YMM, 256);
    if (has & XCR0_PKRU)
        memcpy(to + X86_XSAVE_PKRU, in + X86_XSAVE_PKRU, 8);
    le64_store(to + X86_XSAVE_HDR, all);
    v->dirty = true;
    return 0;
}

void fake_get_xcrs(struct fake_vcpu *v, struct kvm_xcrs *x)
{
    memset(x, 0, sizeof(*x));
    x->nr_xcrs = 1;
    x->xcrs[0] = (struct kvm_xcr){.xcr = 0, .value = v->st.xcr0};
}

int fake_set_xcrs(struct fake_vcpu *v, const struct kvm_xcrs *x)
{
    if (x->nr_xcrs > KVM_MAX_XCRS || x->flags != 0)
        return -EINVAL;
    for (unsigned i = 0; i < x->nr_xcrs; i++) {
        uint64_t value = x->xcrs[i].value;

        if (x->xcrs[i].xcr != 0)
            continue;
        if (!(value & XCR0_X87) || ((value & XCR0_AVX) && !(value & XCR0_SSE)) ||
            (value & ~v->vm->fake->host.xcr0_mask))
            return -EINVAL;
        v->st.xcr0 = value;
        v->dirty = true;
        break;
    }
    return 0;
}

void fake_get_debugregs(struct fake_vcpu *v, struct kvm_debugregs *d)
{
    memset(d, 0, sizeof(*d));
    memcpy(d->db, v->st.dr, sizeof(d->db));
    d->dr6 = v->st.dr6;
    d->dr7 = v->st.dr7;
}

int fake_set_debugregs(struct fake_vcpu *v, const struct kvm_debugregs *d)
{
    if (d->flags != 0 || d->dr6 >> 32 != 0 || d->dr7 >> 32 != 0)
        return -EINVAL;
    memcpy(v->st.dr, d->db, sizeof(d->db));
    v->st.dr6 = d->dr6;
    v->st.dr7 = d->dr7;
    v->dirty = true;
    return 0;
}
