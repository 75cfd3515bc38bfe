/*
 * The instructions that save, restore and clear FPU and vector state. In C since their memory
 * images hold addresses, of which the host's unit would store its own, and since the guest's XCR0
 * decides.
 *
 * FCS and FDS are always zero, as on processors that have deprecated them.
 */
#include <string.h>

#include "base/endian.h"
#include "engine/soft/interp.h"
#include "engine/soft/native.h"

#define HDR_BV 512u
#define HDR_COMP 520u
#define HDR_SIZE 64u
#define XCOMP_COMPACT (1ull << 63)
#define XSAVE_ALL (XFEATURE_X87 | XFEATURE_SSE | XFEATURE_YMM | X86_XCR0_AVX512 | XFEATURE_PKRU)
#define AREA_MAX X86_XSAVE_SIZE

static unsigned xmm_count(const struct soft_cpu *cpu)
{
    return cpu->long_code ? 16 : 8;
}

static void set_es(struct soft_cpu *cpu)
{
    uint16_t fsw = fx_get16(cpu, FX_FSW) & (uint16_t) ~(FSW_ES | FSW_B);

    if ((fsw & ~(unsigned)fx_get16(cpu, FX_FCW) & 0x3fu) != 0)
        fsw |= FSW_ES | FSW_B;
    fx_set16(cpu, FX_FSW, fsw);
}

void native_set_fsw(struct soft_cpu *cpu, uint16_t fsw)
{
    unsigned turn = ((unsigned)fsw >> 11) - (fx_get16(cpu, FX_FSW) >> 11), i;
    uint8_t old[128];

    memcpy(old, cpu->st.xsave + FX_ST, sizeof(old));
    for (i = 0; i < 8; i++)
        memcpy(cpu->st.xsave + FX_ST + 16 * i, old + 16 * ((i + turn) & 7u), 16);
    fx_set16(cpu, FX_FSW, fsw);
}

static void x87_init(struct soft_cpu *cpu)
{
    native_set_fsw(cpu, 0);
    memset(cpu->st.xsave, 0, FX_MXCSR);
    fx_set16(cpu, FX_FCW, FCW_DEFAULT);
}

static uint64_t aligned_ea(struct soft_cpu *cpu, const struct uop *u, unsigned align)
{
    uint64_t ea = soft_ea(cpu, u);

    if (((cpu->base[u->seg] + ea) & (align - 1)) != 0)
        soft_raise_error(cpu, X86_EXC_GP, 0);
    return ea;
}

static void load_mxcsr(struct soft_cpu *cpu, uint32_t v)
{
    if ((v & ~native_mxcsr_mask(cpu)) != 0)
        soft_raise_error(cpu, X86_EXC_GP, 0);
    fx_set32(cpu, FX_MXCSR, v);
}

/* ---- MXCSR, FWAIT, VZEROUPPER ---- */

static void ldmxcsr(struct soft_cpu *cpu, const struct uop *u)
{
    if (u->cc != 0)
        native_need_avx(cpu);
    else
        native_need_sse(cpu);
    load_mxcsr(cpu, soft_ld32(cpu, u->seg, soft_ea(cpu, u)));
    fx_touch(cpu, XFEATURE_SSE);
}

static void stmxcsr(struct soft_cpu *cpu, const struct uop *u)
{
    if (u->cc != 0)
        native_need_avx(cpu);
    else
        native_need_sse(cpu);
    soft_st32(cpu, u->seg, soft_ea(cpu, u), fx_get32(cpu, FX_MXCSR));
}

static void fwait(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t both = X86_CR0_MP | X86_CR0_TS;

    (void)u;
    if ((cpu->st.cr0 & both) == both)
        soft_raise(cpu, X86_EXC_NM);
    native_pending_x87(cpu);
}

static void vzero(struct soft_cpu *cpu, const struct uop *u)
{
    native_need_avx(cpu);
    if ((cpu->st.xcr0 & X86_XCR0_AVX512) != 0)
        memset(cpu->st.xsave + X86_XSAVE_ZMM_HI, 0, 32u * xmm_count(cpu));
    memset(cpu->st.xsave + X86_XSAVE_YMM, 0, 16u * xmm_count(cpu));
    if (u->cc != 0)
        memset(cpu->st.xsave + FX_XMM, 0, 16u * xmm_count(cpu));
}

/* ---- FSTENV, FSAVE ---- */

/* Two tag bits for each physical register from the one that is kept: 0 valid 1 zero 2 special 3
 * empty */
static uint16_t full_tags(const struct soft_cpu *cpu)
{
    unsigned top = fx_get16(cpu, FX_FSW) >> 11 & 7u, tags = 0, i;

    for (i = 0; i < 8; i++) {
        const uint8_t *r = cpu->st.xsave + FX_ST + 16u * ((i - top) & 7u);
        unsigned exponent = le16_load(r + 8) & 0x7fffu, tag;

        if ((cpu->st.xsave[FX_FTW] >> i & 1u) == 0)
            tag = 3;
        else if (exponent == 0 && le64_load(r) == 0)
            tag = 1;
        else if (exponent == 0 || exponent == 0x7fff || (r[7] & 0x80u) == 0)
            tag = 2;
        else
            tag = 0;
        tags |= tag << 2 * i;
    }
    return (uint16_t)tags;
}

static bool real_format(const struct soft_cpu *cpu)
{
    return (cpu->st.cr0 & X86_CR0_PE) == 0 || (cpu->st.rflags & X86_FL_VM) != 0;
}

static unsigned env_size(const struct uop *u)
{
    return u->cc == 2 ? 14 : 28;
}

static void env_make(const struct soft_cpu *cpu, const struct uop *u, uint8_t *p)
{
    unsigned w = u->cc == 2 ? 2 : 4, fop = fx_get16(cpu, FX_FOP) & 0x7ffu;
    uint32_t fip = fx_get32(cpu, FX_FIP), fdp = fx_get32(cpu, FX_FDP);

    memset(p, 0, 28);
    if (w == 4) /* the unused halves read as ones */
        memset(p, 0xff, 12);
    le16_store(p, fx_get16(cpu, FX_FCW));
    le16_store(p + w, fx_get16(cpu, FX_FSW));
    le16_store(p + 2 * w, full_tags(cpu));
    if (w == 2) {
        le16_store(p + 6, (uint16_t)fip);
        le16_store(p + 10, (uint16_t)fdp);
        if (real_format(cpu)) {
            le16_store(p + 8, (uint16_t)((fip >> 16 & 15u) << 12 | fop));
            le16_store(p + 12, (uint16_t)((fdp >> 16 & 15u) << 12));
        }
    } else if (real_format(cpu)) {
        le32_store(p + 12, 0xffff0000u | (fip & 0xffffu));
        le32_store(p + 16, (fip >> 16 & 0xffffu) << 12 | fop);
        le32_store(p + 20, 0xffff0000u | (fdp & 0xffffu));
        le32_store(p + 24, (fdp >> 16 & 0xffffu) << 12);
    } else {
        le32_store(p + 12, fip);
        le32_store(p + 16, fop << 16);
        le32_store(p + 20, fdp);
        le32_store(p + 24, 0xffff0000u);
    }
}

static void env_load(struct soft_cpu *cpu, const struct uop *u, const uint8_t *p)
{
    unsigned w = u->cc == 2 ? 2 : 4, tags = le16_load(p + 2 * w), fop = 0, ftw = 0, i;
    uint64_t fip, fdp;

    if (w == 2) {
        fip = le16_load(p + 6);
        fdp = le16_load(p + 10);
        if (real_format(cpu)) {
            fip |= (le16_load(p + 8) & 0xf000u) << 4;
            fdp |= (le16_load(p + 12) & 0xf000u) << 4;
            fop = le16_load(p + 8) & 0x7ffu;
        }
    } else if (real_format(cpu)) {
        fip = le16_load(p + 12) | (le32_load(p + 16) >> 12 & 0xffffu) << 16;
        fdp = le16_load(p + 20) | (le32_load(p + 24) >> 12 & 0xffffu) << 16;
        fop = le32_load(p + 16) & 0x7ffu;
    } else {
        fip = le32_load(p + 12);
        fdp = le32_load(p + 20);
        fop = le32_load(p + 16) >> 16 & 0x7ffu;
    }
    for (i = 0; i < 8; i++)
        ftw |= ((tags >> 2 * i & 3u) != 3u ? 1u : 0u) << i;
    fx_set16(cpu, FX_FCW, (uint16_t)((le16_load(p) & 0x1f3fu) | 0x40u));
    native_set_fsw(cpu, le16_load(p + w));
    fx_set16(cpu, FX_FTW, (uint16_t)ftw);
    fx_set16(cpu, FX_FOP, (uint16_t)fop);
    fx_set64(cpu, FX_FIP, fip);
    fx_set64(cpu, FX_FDP, fdp);
    set_es(cpu);
    fx_touch(cpu, XFEATURE_X87);
}

static void fnstenv(struct soft_cpu *cpu, const struct uop *u)
{
    uint8_t env[28];

    native_need_x87_nowait(cpu);
    env_make(cpu, u, env);
    soft_write(cpu, u->seg, soft_ea(cpu, u), env, env_size(u));
    fx_set16(cpu, FX_FCW, fx_get16(cpu, FX_FCW) | 0x3fu);
    set_es(cpu);
    fx_touch(cpu, XFEATURE_X87);
}

static void fldenv(struct soft_cpu *cpu, const struct uop *u)
{
    uint8_t env[28];

    native_need_x87(cpu);
    soft_read(cpu, u->seg, soft_ea(cpu, u), env, env_size(u));
    env_load(cpu, u, env);
}

static void fnsave(struct soft_cpu *cpu, const struct uop *u)
{
    uint8_t image[28 + 80];
    unsigned env = env_size(u), i;

    native_need_x87_nowait(cpu);
    env_make(cpu, u, image);
    for (i = 0; i < 8; i++)
        memcpy(image + env + 10u * i, cpu->st.xsave + FX_ST + 16u * i, 10);
    soft_write(cpu, u->seg, soft_ea(cpu, u), image, env + 80);
    x87_init(cpu);
    fx_touch(cpu, XFEATURE_X87);
}

static void frstor(struct soft_cpu *cpu, const struct uop *u)
{
    uint8_t image[28 + 80];
    unsigned env = env_size(u), i;

    native_need_x87(cpu);
    soft_read(cpu, u->seg, soft_ea(cpu, u), image, env + 80);
    env_load(cpu, u, image);
    memset(cpu->st.xsave + FX_ST, 0, 128);
    for (i = 0; i < 8; i++)
        memcpy(cpu->st.xsave + FX_ST + 16u * i, image + env + 10u * i, 10);
}

/* ---- FXSAVE ---- */

/* The first 24 bytes of the image; wide: 64-bit pointers (REX.W), else 32 bits and a selector. */
static void x87_head(const struct soft_cpu *cpu, bool wide, uint8_t head[24])
{
    memcpy(head, cpu->st.xsave, 24);
    head[FX_FTW + 1] = 0;
    if (!wide) {
        le32_store(head + FX_FIP + 4, 0);
        le32_store(head + FX_FDP + 4, 0);
    }
}

static void x87_load(struct soft_cpu *cpu, bool wide, const uint8_t *image)
{
    unsigned i;

    memcpy(cpu->st.xsave, image, 24);
    fx_set16(cpu, FX_FCW, (uint16_t)((le16_load(image) & 0x1f3fu) | 0x40u));
    fx_set16(cpu, FX_FTW, image[FX_FTW]);
    fx_set16(cpu, FX_FOP, le16_load(image + FX_FOP) & 0x7ffu);
    if (!wide) { /* selectors are not kept */
        fx_set32(cpu, FX_FIP + 4, 0);
        fx_set32(cpu, FX_FDP + 4, 0);
    }
    memset(cpu->st.xsave + FX_ST, 0, 128);
    for (i = 0; i < 8; i++)
        memcpy(cpu->st.xsave + FX_ST + 16u * i, image + FX_ST + 16u * i, 10);
    set_es(cpu);
}

static void fxsave(struct soft_cpu *cpu, const struct uop *u)
{
    uint8_t image[FX_XMM + 256];
    unsigned len = FX_XMM + 16u * xmm_count(cpu);
    uint64_t ea;

    native_need_x87_nowait(cpu);
    ea = aligned_ea(cpu, u, 16);
    soft_probe_write(cpu, u->seg, ea, FX_SIZE);
    memcpy(image, cpu->st.xsave, sizeof(image));
    x87_head(cpu, u->cc != 0, image);
    le32_store(image + FX_MXCSR + 4, native_mxcsr_mask(cpu));
    soft_write(cpu, u->seg, ea, image, len);
}

static void fxrstor(struct soft_cpu *cpu, const struct uop *u)
{
    uint8_t image[FX_SIZE];
    uint64_t ea;

    native_need_x87_nowait(cpu);
    ea = aligned_ea(cpu, u, 16);
    soft_read(cpu, u->seg, ea, image, sizeof(image));
    load_mxcsr(cpu, le32_load(image + FX_MXCSR));
    x87_load(cpu, u->cc != 0, image);
    memcpy(cpu->st.xsave + FX_XMM, image + FX_XMM, 16u * xmm_count(cpu));
    fx_touch(cpu, XFEATURE_X87 | XFEATURE_SSE);
}

/* ---- XSAVE ---- */

static bool all_zero(const uint8_t *p, size_t n)
{
    size_t i;

    for (i = 0; i < n; i++)
        if (p[i] != 0)
            return false;
    return true;
}

uint64_t native_xinuse(const struct soft_cpu *cpu)
{
    const uint8_t *x = cpu->st.xsave;
    uint64_t used = 0;

    if (fx_get16(cpu, FX_FCW) != FCW_DEFAULT || !all_zero(x + FX_FSW, FX_MXCSR - FX_FSW) ||
        !all_zero(x + FX_ST, 128))
        used |= XFEATURE_X87;
    if (!all_zero(x + FX_XMM, 256))
        used |= XFEATURE_SSE;
    for (unsigned i = 2; i < X86_XSAVE_COMPONENTS; i++) {
        if (!all_zero(x + x86_xsave_home(i), x86_xsave_size(i)))
            used |= 1ull << i;
    }
    return used;
}

enum xsave_kind { XS_SAVE = 0, XS_OPT = 1, XS_COMPACT = 2, XS_SUPER = 3, XS_KIND = 3, XS_WIDE = 4 };

static void need_xsave(struct soft_cpu *cpu)
{
    if ((cpu->st.cr4 & X86_CR4_OSXSAVE) == 0)
        soft_raise(cpu, X86_EXC_UD);
    if ((cpu->st.cr0 & X86_CR0_TS) != 0)
        soft_raise(cpu, X86_EXC_NM);
}

static uint64_t requested(const struct soft_cpu *cpu)
{
    uint64_t asked = (uint32_t)cpu->st.gpr[X86_RAX] | cpu->st.gpr[X86_RDX] << 32;

    return asked & cpu->st.xcr0 & XSAVE_ALL;
}

/* Where component i, 2 and more, lies in an area; and the size of one that holds `features`. */
static unsigned place(const struct soft_cpu *cpu, uint64_t xcomp, unsigned i)
{
    const struct x86_cpuid *id = cpu->vm->env.cpuid;

    if ((xcomp & XCOMP_COMPACT) != 0)
        return x86_xsave_compact_at(xcomp, i);
    return id != NULL ? id->xsave_at[i] : x86_xsave_home(i);
}

static unsigned area_size(const struct soft_cpu *cpu, uint64_t features, uint64_t xcomp)
{
    unsigned size = HDR_BV + HDR_SIZE;

    for (unsigned i = 2; i < X86_XSAVE_COMPONENTS; i++) {
        if ((features >> i & 1) != 0 && place(cpu, xcomp, i) + x86_xsave_size(i) > size)
            size = place(cpu, xcomp, i) + x86_xsave_size(i);
    }
    return size;
}

/* Bytes of a component that this mode moves: outside of 64-bit mode registers 8 and more stay. */
static unsigned moved(const struct soft_cpu *cpu, unsigned i)
{
    if (cpu->long_code)
        return x86_xsave_size(i);
    return i == 7 ? 0 : i == 2 || i == 6 ? x86_xsave_size(i) / 2 : x86_xsave_size(i);
}

static void xsave(struct soft_cpu *cpu, const struct uop *u)
{
    unsigned kind = u->cc & XS_KIND, xmms = xmm_count(cpu);
    bool compact = kind == XS_COMPACT || kind == XS_SUPER;
    uint64_t ea, rfbm, used, save, xcomp;
    uint8_t head[24];

    need_xsave(cpu);
    if (kind == XS_SUPER && cpu->cpl != 0)
        soft_raise_error(cpu, X86_EXC_GP, 0);
    ea = aligned_ea(cpu, u, 64);
    rfbm = requested(cpu);
    used = native_xinuse(cpu) & rfbm;
    if (compact && (rfbm & XFEATURE_SSE) != 0 && fx_get32(cpu, FX_MXCSR) != MXCSR_DEFAULT)
        used |= XFEATURE_SSE;
    save = kind == XS_SAVE ? rfbm : used;
    xcomp = compact ? rfbm | XCOMP_COMPACT : 0;
    soft_probe_write(cpu, u->seg, ea, area_size(cpu, rfbm, xcomp));
    if ((save & XFEATURE_X87) != 0) {
        x87_head(cpu, (u->cc & XS_WIDE) != 0, head);
        soft_write(cpu, u->seg, ea, head, sizeof(head));
        soft_write(cpu, u->seg, ea + FX_ST, cpu->st.xsave + FX_ST, 128);
    }
    if (compact ? (save & XFEATURE_SSE) != 0 : (rfbm & (XFEATURE_SSE | XFEATURE_YMM)) != 0) {
        soft_st32(cpu, u->seg, ea + FX_MXCSR, fx_get32(cpu, FX_MXCSR));
        soft_st32(cpu, u->seg, ea + FX_MXCSR + 4, native_mxcsr_mask(cpu));
    }
    if ((save & XFEATURE_SSE) != 0)
        soft_write(cpu, u->seg, ea + FX_XMM, cpu->st.xsave + FX_XMM, 16 * xmms);
    for (unsigned i = 2; i < X86_XSAVE_COMPONENTS; i++) {
        if ((save >> i & 1) != 0)
            soft_write(cpu, u->seg, ea + place(cpu, xcomp, i), cpu->st.xsave + x86_xsave_home(i),
                       moved(cpu, i));
    }
    if (compact) {
        soft_st64(cpu, u->seg, ea + HDR_BV, used);
        soft_st64(cpu, u->seg, ea + HDR_COMP, xcomp);
    } else {
        uint64_t old = soft_ld64(cpu, u->seg, ea + HDR_BV);

        soft_st64(cpu, u->seg, ea + HDR_BV, (old & ~rfbm) | used);
    }
}

static void check_header(struct soft_cpu *cpu, const uint8_t *hdr, bool super)
{
    uint64_t bv = le64_load(hdr), xcomp = le64_load(hdr + 8), allowed = cpu->st.xcr0 & XSAVE_ALL;
    const struct x86_cpuid *id = cpu->vm->env.cpuid;
    bool bad;

    if ((xcomp & XCOMP_COMPACT) != 0) {
        bad = (xcomp & ~XCOMP_COMPACT & ~allowed) != 0 || (bv & ~xcomp) != 0 ||
              (bv & XCOMP_COMPACT) != 0 || !all_zero(hdr + 16, 48) ||
              (id != NULL && !id->feature[X86_FEAT_XSAVEC]);
    } else {
        bad = super || (bv & ~allowed) != 0 || !all_zero(hdr + 8, 16);
    }
    if (bad)
        soft_raise_error(cpu, X86_EXC_GP, 0);
}

static void xrstor(struct soft_cpu *cpu, const struct uop *u)
{
    bool super = (u->cc & XS_KIND) == XS_SUPER, compact, mxcsr;
    unsigned xmms = xmm_count(cpu);
    uint8_t image[AREA_MAX];
    uint64_t ea, rfbm, bv, xcomp;
    uint32_t old_pkru;

    need_xsave(cpu);
    if (super && cpu->cpl != 0)
        soft_raise_error(cpu, X86_EXC_GP, 0);
    ea = aligned_ea(cpu, u, 64);
    rfbm = requested(cpu);
    soft_read(cpu, u->seg, ea + HDR_BV, image + HDR_BV, HDR_SIZE);
    check_header(cpu, image + HDR_BV, super);
    bv = le64_load(image + HDR_BV);
    xcomp = le64_load(image + HDR_COMP);
    compact = (xcomp & XCOMP_COMPACT) != 0;
    soft_read(cpu, u->seg, ea, image, area_size(cpu, bv & rfbm, xcomp));
    mxcsr = compact ? (rfbm & bv & XFEATURE_SSE) != 0 : (rfbm & (XFEATURE_SSE | XFEATURE_YMM)) != 0;
    if (mxcsr)
        load_mxcsr(cpu, le32_load(image + FX_MXCSR));
    else if ((rfbm & XFEATURE_SSE) != 0)
        fx_set32(cpu, FX_MXCSR, MXCSR_DEFAULT);
    if ((rfbm & bv & XFEATURE_X87) != 0) {
        x87_load(cpu, (u->cc & XS_WIDE) != 0, image);
    } else if ((rfbm & XFEATURE_X87) != 0) {
        x87_init(cpu);
        memset(cpu->st.xsave + FX_ST, 0, 128);
    }
    if ((rfbm & bv & XFEATURE_SSE) != 0)
        memcpy(cpu->st.xsave + FX_XMM, image + FX_XMM, 16 * xmms);
    else if ((rfbm & XFEATURE_SSE) != 0)
        memset(cpu->st.xsave + FX_XMM, 0, 16 * xmms);
    old_pkru = le32_load(cpu->st.xsave + X86_XSAVE_PKRU);
    for (unsigned i = 2; i < X86_XSAVE_COMPONENTS; i++) {
        if ((rfbm & bv) >> i & 1)
            memcpy(cpu->st.xsave + x86_xsave_home(i), image + place(cpu, xcomp, i), moved(cpu, i));
        else if (rfbm >> i & 1)
            memset(cpu->st.xsave + x86_xsave_home(i), 0, moved(cpu, i));
    }
    if (le32_load(cpu->st.xsave + X86_XSAVE_PKRU) != old_pkru)
        soft_pkru_changed(cpu);
    fx_touch(cpu, (uint32_t)rfbm);
}

/* ---- table ---- */

static const struct {
    uint16_t op;
    uint8_t kind;
    uop_fn fn;
} handlers[] = {
    {X86_FXSAVE, 0, fxsave},       {X86_FXRSTOR, 0, fxrstor},       {X86_XSAVE, XS_SAVE, xsave},
    {X86_XSAVEOPT, XS_OPT, xsave}, {X86_XSAVEC, XS_COMPACT, xsave}, {X86_XSAVES, XS_SUPER, xsave},
    {X86_XRSTOR, XS_SAVE, xrstor}, {X86_XRSTORS, XS_SUPER, xrstor}, {X86_LDMXCSR, 0, ldmxcsr},
    {X86_STMXCSR, 0, stmxcsr},     {X86_VLDMXCSR, 1, ldmxcsr},      {X86_VSTMXCSR, 1, stmxcsr},
    {X86_FNSTENV, 0, fnstenv},     {X86_FLDENV, 0, fldenv},         {X86_FNSAVE, 0, fnsave},
    {X86_FRSTOR, 0, frstor},       {X86_FWAIT, 0, fwait},           {X86_VZEROUPPER, 0, vzero},
    {X86_VZEROALL, 1, vzero},
};

/* 2 or 4: which of the formats FSTENV and FSAVE use. */
static uint8_t environment_size(const struct x86_insn *insn)
{
    bool prefix = (insn->prefixes & X86_PFX_OPSIZE) != 0;

    if (insn->mode == X86_MODE_64 && (insn->rex & 8u) != 0)
        return 4;
    return prefix == (insn->mode == X86_MODE_16) ? 4 : 2;
}

uop_fn fpu_handler(const struct x86_insn *insn, struct uop *u)
{
    unsigned i;

    if (insn->enc == X86_ENC_EVEX)
        return NULL;
    for (i = 0; i < countof(handlers); i++)
        if (handlers[i].op == insn->op)
            break;
    if (i == countof(handlers))
        return NULL;
    u->cc = handlers[i].kind;
    if (handlers[i].fn == xsave || handlers[i].fn == xrstor)
        u->cc |= (insn->rex & 8u) != 0 ? XS_WIDE : 0;
    else if (handlers[i].fn == fxsave || handlers[i].fn == fxrstor)
        u->cc = (insn->rex & 8u) != 0;
    else if (insn->op == X86_FNSTENV || insn->op == X86_FLDENV || insn->op == X86_FNSAVE ||
             insn->op == X86_FRSTOR)
        u->cc = environment_size(insn);
    return handlers[i].fn;
}
