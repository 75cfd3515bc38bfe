#include "base/endian.h"
#include "engine/soft/interp.h"
#include "engine/soft/jit/jit.h"
#include "host/clock.h"

/* Model-specific and control registers: Intel SDM Vol.4 and Vol.3, chapter on system architecture.
 */

enum {
    MSR_TSC = 0x10,
    MSR_PLATFORM_ID = 0x17,
    MSR_APIC_BASE = 0x1b,
    MSR_POWER_ON = 0x2a,
    MSR_SMI_COUNT = 0x34,
    MSR_CORE_THREAD_COUNT = 0x35,
    MSR_FEATURE_CONTROL = 0x3a,
    MSR_TSC_ADJUST = 0x3b,
    MSR_SPEC_CTRL = 0x48,
    MSR_PRED_CMD = 0x49,
    MSR_UCODE_TRIGGER = 0x79,
    MSR_UCODE_REV = 0x8b,
    MSR_PLATFORM_INFO = 0xce,
    MSR_MTRR_CAP = 0xfe,
    MSR_ARCH_CAP = 0x10a,
    MSR_SYSENTER_CS = 0x174,
    MSR_SYSENTER_ESP = 0x175,
    MSR_SYSENTER_EIP = 0x176,
    MSR_MCG_CAP = 0x179,
    MSR_MCG_STATUS = 0x17a,
    MSR_MISC_FEATURES = 0x140,
    MSR_PERF_STATUS = 0x198,
    MSR_PERF_CTL = 0x199,
    MSR_MISC_ENABLE = 0x1a0,
    MSR_TURBO_RATIO_LIMIT = 0x1ad,
    MSR_DEBUGCTL = 0x1d9,
    MSR_LAST_BRANCH = 0x1db, /* to 0x1de: last branch and exception, from and to */
    MSR_MTRR_PHYS = 0x200,
    MSR_MTRR_FIX64K = 0x250,
    MSR_MTRR_FIX16K = 0x258,
    MSR_MTRR_FIX4K = 0x268,
    MSR_PAT = 0x277,
    MSR_MTRR_DEF = 0x2ff,
    MSR_MC0_CTL = 0x400,
    MSR_RAPL_UNIT = 0x606,
    MSR_PKG_ENERGY = 0x611,
    MSR_DRAM_ENERGY = 0x619,
    MSR_PP0_ENERGY = 0x639,
    MSR_PP1_ENERGY = 0x641,
    MSR_TSC_DEADLINE = 0x6e0,
    MSR_PKRS = 0x6e1,
    MSR_X2APIC = 0x800,
    MSR_XSS = 0xda0
};
enum {
    MSR_EFER = 0xc0000080u,
    MSR_STAR,
    MSR_LSTAR,
    MSR_CSTAR,
    MSR_SFMASK,
    MSR_FS_BASE = 0xc0000100u,
    MSR_GS_BASE,
    MSR_KERNEL_GS_BASE,
    MSR_TSC_AUX
};

/* Fast strings, thermal control, performance monitoring, BTS and PEBS unavailable, SpeedStep,
 * MONITOR, CPUID limit, xTPR off, XD off. */
#define MISC_ENABLE_BITS 0x400c51889ull
#define MISC_ENABLE_FIXED 0x1880ull

uint64_t soft_guest_tsc(const struct soft_cpu *cpu)
{
    return host_tsc() + cpu->st.tsc_offset;
}

static _Noreturn void gp0(struct soft_cpu *cpu)
{
    soft_raise_error(cpu, X86_EXC_GP, 0);
}

static bool lapic_msr(uint32_t i)
{
    return i == MSR_APIC_BASE || i == MSR_TSC_DEADLINE || (i >= MSR_X2APIC && i < 0x900);
}

/* Registers that are only state: where they live and which bits may be set. NULL: not such a one.
 */
static uint64_t *plain_msr(struct soft_cpu *cpu, uint32_t i, uint64_t *allowed)
{
    struct x86_state *st = &cpu->st;

    *allowed = ~0ull;
    if (i >= MSR_MTRR_PHYS && i < MSR_MTRR_PHYS + 2 * X86_MTRR_VAR) {
        unsigned n = (i - MSR_MTRR_PHYS) / 2;
        uint64_t page_bits = cpu->vm->phys_mask & PAGE_MASK;

        *allowed = page_bits | (i & 1 ? 0x800 : 0xff);
        return i & 1 ? &st->mtrr_mask[n] : &st->mtrr_base[n];
    }
    if (i == MSR_MTRR_FIX64K)
        return &st->mtrr_fix[0];
    if (i == MSR_MTRR_FIX16K || i == MSR_MTRR_FIX16K + 1)
        return &st->mtrr_fix[1 + i - MSR_MTRR_FIX16K];
    if (i >= MSR_MTRR_FIX4K && i < MSR_MTRR_FIX4K + 8)
        return &st->mtrr_fix[3 + i - MSR_MTRR_FIX4K];
    switch (i) {
    case MSR_STAR:
        return &st->star;
    case MSR_SFMASK:
        *allowed = 0xffffffff;
        return &st->sfmask;
    case MSR_TSC_AUX:
        *allowed = 0xffffffff;
        return &st->tsc_aux;
    case MSR_SYSENTER_CS:
        return &st->sysenter_cs;
    case MSR_DEBUGCTL:
        *allowed = DEBUGCTL_BTF;
        return &st->debugctl;
    case MSR_MTRR_DEF:
        *allowed = 0xcff;
        return &st->mtrr_def_type;
    case MSR_MCG_STATUS:
        *allowed = 0xf;
        return &st->mcg_status;
    case MSR_MISC_ENABLE:
        *allowed = MISC_ENABLE_BITS;
        return &st->misc_enable;
    case MSR_SPEC_CTRL:
        *allowed = 7 | 1u << 10; /* IBRS, STIBP, SSBD, BHI_DIS_S */
        return &st->spec_ctrl;
    case MSR_FEATURE_CONTROL:
        *allowed = 1;
        return &st->feature_control;
    default:
        return NULL;
    }
}

/* MTRRs refuse memory types that are none. */
static bool mtrr_valid(uint32_t i, uint64_t value)
{
    unsigned types = 1;

    if (i == MSR_MTRR_FIX64K || (i >= MSR_MTRR_FIX16K && i < MSR_MTRR_FIX16K + 2) ||
        (i >= MSR_MTRR_FIX4K && i < MSR_MTRR_FIX4K + 8))
        types = 8;
    else if (i != MSR_MTRR_DEF &&
             (i < MSR_MTRR_PHYS || i >= MSR_MTRR_PHYS + 2 * X86_MTRR_VAR || (i & 1)))
        return true;
    for (unsigned n = 0; n < types; n++, value >>= 8) {
        unsigned type = value & 0xff;

        if (type > 6 || type == 2 || type == 3)
            return false;
    }
    return true;
}

/* Those that hold a linear address. */
static uint64_t *address_msr(struct soft_cpu *cpu, uint32_t i)
{
    struct x86_state *st = &cpu->st;

    switch (i) {
    case MSR_LSTAR:
        return &st->lstar;
    case MSR_CSTAR:
        return &st->cstar;
    case MSR_SYSENTER_ESP:
        return &st->sysenter_esp;
    case MSR_SYSENTER_EIP:
        return &st->sysenter_eip;
    case MSR_FS_BASE:
        return &st->seg[X86_FS].base;
    case MSR_GS_BASE:
        return &st->seg[X86_GS].base;
    case MSR_KERNEL_GS_BASE:
        return &st->kernel_gs_base;
    default:
        return NULL;
    }
}

void msr_read(struct soft_cpu *cpu, uint32_t index, uint64_t *value)
{
    const struct engine_env *env = &cpu->vm->env;
    uint64_t allowed, *p = plain_msr(cpu, index, &allowed);

    if (p == NULL)
        p = address_msr(cpu, index);
    if (p != NULL) {
        *value = *p;
        return;
    }
    if (lapic_msr(index) && env->lapic != NULL) {
        if (env->lapic->msr_read(env->lapic_ctx, cpu->id, index, value) != 0)
            gp0(cpu);
        return;
    }
    switch (index) {
    case MSR_TSC:
        *value = soft_guest_tsc(cpu);
        return;
    case MSR_TSC_ADJUST:
        *value = cpu->st.tsc_adjust;
        return;
    case MSR_EFER:
        *value = cpu->st.efer;
        return;
    case MSR_PAT:
        *value = cpu->st.pat;
        return;
    case MSR_XSS:
        *value = cpu->st.xss;
        return;
    case MSR_PKRS:
        if (!(env->cpuid->cr4_mask & X86_CR4_PKS))
            break;
        *value = cpu->st.pkrs;
        return;
    case MSR_UCODE_REV:
        *value = 0x1ull << 32;
        return;
    case MSR_MTRR_CAP:
        *value = 0x500 | X86_MTRR_VAR; /* write-combining and fixed ranges */
        return;
    case MSR_ARCH_CAP: /* nothing to mitigate: see cpuid.c */
        *value = X86_ARCH_CAPABILITIES;
        return;
    case MSR_CORE_THREAD_COUNT:
        *value = (uint64_t)env->cpus << 16 | env->cpus;
        return;
    case MSR_MCG_CAP: /* no banks */
    case MSR_PLATFORM_ID:
    case MSR_POWER_ON:
    case MSR_SMI_COUNT: /* there are none */
    case MSR_TURBO_RATIO_LIMIT:
    case MSR_RAPL_UNIT: /* energy is not measured */
    case MSR_PKG_ENERGY:
    case MSR_DRAM_ENERGY:
    case MSR_PP0_ENERGY:
    case MSR_PP1_ENERGY:
    case MSR_PERF_STATUS:
    case MSR_PERF_CTL:
    case MSR_LAST_BRANCH:
    case MSR_LAST_BRANCH + 1:
    case MSR_LAST_BRANCH + 2:
    case MSR_LAST_BRANCH + 3:
    case MSR_PLATFORM_INFO:
    case MSR_MISC_FEATURES:
        *value = 0;
        return;
    default:
        break;
    }
    log_trace(env->log, "msr", "read of unknown MSR %#x at %#llx", index,
              (unsigned long long)soft_rip(cpu));
    if (env->visiting)
        soft_go_home(cpu);
    if (env->strict_msr)
        gp0(cpu);
    *value = 0;
}

static void write_efer(struct soft_cpu *cpu, uint64_t v)
{
    uint64_t mask = cpu->vm->env.cpuid->efer_mask;

    if (cpu->st.misc_enable & MISC_ENABLE_XD_OFF)
        mask &= ~(uint64_t)X86_EFER_NXE;
    if (v & ~(mask | X86_EFER_LMA))
        gp0(cpu);
    if (((v ^ cpu->st.efer) & X86_EFER_LME) && (cpu->st.cr0 & X86_CR0_PG))
        gp0(cpu);
    cpu->st.efer = (v & mask & ~(uint64_t)X86_EFER_LMA) | (cpu->st.efer & X86_EFER_LMA);
    mmu_flush_all(cpu);
}

static void write_pat(struct soft_cpu *cpu, uint64_t v)
{
    for (unsigned i = 0; i < 8; i++) {
        unsigned type = (v >> (8 * i)) & 0xff;

        if (type > 7 || type == 2 || type == 3)
            gp0(cpu);
    }
    cpu->st.pat = v;
}

static void write_lapic(struct soft_cpu *cpu, uint32_t index, uint64_t value)
{
    const struct engine_env *env = &cpu->vm->env;

    if (env->lapic->msr_write(env->lapic_ctx, cpu->id, index, value) != 0)
        gp0(cpu);
    if (index == MSR_APIC_BASE) {
        cpu->apic_page = (value & 0xc00) == 0x800 ? value & cpu->vm->phys_mask & PAGE_MASK : ~0ull;
        mmu_flush_all(cpu);
    }
    soft_check_irq(cpu);
}

/* A deadline that is armed comes sooner or later now: arming it again finds out when. */
static void tsc_moved(struct soft_cpu *cpu)
{
    const struct engine_env *env = &cpu->vm->env;
    uint64_t deadline = 0;

    if (env->lapic == NULL ||
        env->lapic->msr_read(env->lapic_ctx, cpu->id, MSR_TSC_DEADLINE, &deadline) != 0 ||
        deadline == 0)
        return;
    env->lapic->msr_write(env->lapic_ctx, cpu->id, MSR_TSC_DEADLINE, deadline);
    soft_check_irq(cpu);
}

void msr_write(struct soft_cpu *cpu, uint32_t index, uint64_t value)
{
    const struct engine_env *env = &cpu->vm->env;
    uint64_t allowed, *p = plain_msr(cpu, index, &allowed), delta;

    if (p != NULL) {
        if ((value & ~allowed) || (index == MSR_FEATURE_CONTROL && (*p & 1)) || /* bit 0 locks it */
            !mtrr_valid(index, value))
            gp0(cpu);
        if (index == MSR_MISC_ENABLE)
            value = (value & ~MISC_ENABLE_FIXED) | (*p & MISC_ENABLE_FIXED);
        *p = value;
        return;
    }
    p = address_msr(cpu, index);
    if (p != NULL) {
        if (!soft_canonical_register(cpu, value))
            gp0(cpu);
        *p = value;
        if (index == MSR_FS_BASE || index == MSR_GS_BASE)
            soft_mode_changed(cpu);
        return;
    }
    if (lapic_msr(index) && env->lapic != NULL) {
        write_lapic(cpu, index, value);
        return;
    }
    switch (index) {
    case MSR_TSC: /* also moves TSC_ADJUST by as much */
        delta = value - soft_guest_tsc(cpu);
        cpu->st.tsc_offset += delta;
        cpu->st.tsc_adjust += delta;
        tsc_moved(cpu);
        return;
    case MSR_TSC_ADJUST:
        cpu->st.tsc_offset += value - cpu->st.tsc_adjust;
        cpu->st.tsc_adjust = value;
        tsc_moved(cpu);
        return;
    case MSR_EFER:
        write_efer(cpu, value);
        return;
    case MSR_PAT:
        write_pat(cpu, value);
        return;
    case MSR_XSS:
        if (value != 0)
            gp0(cpu);
        return;
    case MSR_PKRS:
        if (!(env->cpuid->cr4_mask & X86_CR4_PKS))
            break;
        if (value >> 32)
            gp0(cpu);
        cpu->st.pkrs = value;
        mmu_flush_all(cpu);
        return;
    case MSR_PRED_CMD:
        if (value & ~1ull)
            gp0(cpu);
        return;
    case MSR_UCODE_REV:
    case MSR_UCODE_TRIGGER: /* an update that changes nothing */
    case MSR_PERF_CTL:      /* one frequency */
        return;
    case MSR_MISC_FEATURES: /* no feature to enable */
        if (value != 0)
            gp0(cpu);
        return;
    default:
        break;
    }
    log_trace(env->log, "msr", "write of %#llx to unknown MSR %#x at %#llx",
              (unsigned long long)value, index, (unsigned long long)soft_rip(cpu));
    if (env->visiting)
        soft_go_home(cpu);
    if (env->strict_msr)
        gp0(cpu);
}

void soft_pkru_changed(struct soft_cpu *cpu)
{
    if (cpu->st.cr4 & X86_CR4_PKE)
        mmu_flush_all(cpu);
}

/* ---- control registers ---- */

uint64_t cr_read(struct soft_cpu *cpu, unsigned cr)
{
    const struct engine_env *env = &cpu->vm->env;

    switch (cr) {
    case 0:
        return cpu->st.cr0;
    case 2:
        return cpu->st.cr2;
    case 3:
        return cpu->st.cr3;
    case 4:
        return cpu->st.cr4;
    case 8:
        return env->lapic != NULL ? env->lapic->get_cr8(env->lapic_ctx, cpu->id) : 0;
    default:
        soft_raise(cpu, X86_EXC_UD);
    }
}

/* PAE paging keeps its four top entries inside the processor. */
static void load_pdptrs(struct soft_cpu *cpu, uint64_t cr3)
{
    uint64_t pdptr[4], bad = ~cpu->vm->phys_mask | 0x1e6;

    for (unsigned i = 0; i < 4; i++) {
        pdptr[i] = gmem_read64(cpu->vm->env.mem, (cr3 & 0xffffffe0u) + 8 * i);
        if ((pdptr[i] & 1) && (pdptr[i] & bad))
            gp0(cpu);
    }
    memcpy(cpu->st.pdptr, pdptr, sizeof(pdptr));
}

static void write_cr0(struct soft_cpu *cpu, uint64_t v)
{
    uint64_t old = cpu->st.cr0, efer = cpu->st.efer;

    if (v >> 32)
        gp0(cpu);
    v = (v & 0xe005003full) | X86_CR0_ET;
    if (((v & X86_CR0_PG) && !(v & X86_CR0_PE)) || ((v & X86_CR0_NW) && !(v & X86_CR0_CD)))
        gp0(cpu);
    if ((v & X86_CR0_PG) && !(old & X86_CR0_PG)) {
        if (efer & X86_EFER_LME) {
            if (!(cpu->st.cr4 & X86_CR4_PAE) || (cpu->st.seg[X86_CS].attr & X86_SEG_L) ||
                (cpu->st.tr.attr & 15) == 3 || (cpu->st.tr.attr & 15) == 1)
                gp0(cpu);
            efer |= X86_EFER_LMA;
        }
    } else if (!(v & X86_CR0_PG) && (old & X86_CR0_PG)) {
        if (cpu->long_code || (cpu->st.cr4 & X86_CR4_PCIDE))
            gp0(cpu);
        efer &= ~(uint64_t)X86_EFER_LMA;
    }
    if (x86_pae_paging(v, cpu->st.cr4, efer) &&
        ((v ^ old) & (X86_CR0_PG | X86_CR0_CD | X86_CR0_NW)))
        load_pdptrs(cpu, cpu->st.cr3);
    cpu->st.cr0 = v;
    cpu->st.efer = efer;
    if ((v ^ old) & (X86_CR0_PG | X86_CR0_WP | X86_CR0_PE))
        mmu_flush_all(cpu);
    if (!(v & X86_CR0_PE))
        cpu->cpl = 0;
    soft_mode_changed(cpu);
}

static void write_cr3(struct soft_cpu *cpu, uint64_t v)
{
    bool keep = false;

    if (cpu->st.cr4 & X86_CR4_PCIDE) {
        keep = v >> 63; /* this PCID's entries: the TLB drops them all the same */
        v &= ~(1ull << 63);
    }
    if (in_long_mode(cpu) && (v & ~cpu->vm->phys_mask))
        gp0(cpu);
    if (!in_long_mode(cpu))
        v = (uint32_t)v;
    if (x86_pae_paging(cpu->st.cr0, cpu->st.cr4, cpu->st.efer))
        load_pdptrs(cpu, v);
    cpu->st.cr3 = v;
    mmu_flush_context(cpu);
    jit_space_changed(cpu, cpu->st.cr4 & X86_CR4_PCIDE ? (unsigned)(v & 4095) : 0, keep);
}

static void write_cr4(struct soft_cpu *cpu, uint64_t v)
{
    uint64_t old = cpu->st.cr4;

    if (v & ~cpu->vm->env.cpuid->cr4_mask)
        gp0(cpu);
    if (in_long_mode(cpu) && (!(v & X86_CR4_PAE) || ((v ^ old) & X86_CR4_LA57)))
        gp0(cpu);
    if ((v & X86_CR4_PCIDE) && !(old & X86_CR4_PCIDE) &&
        (!in_long_mode(cpu) || (cpu->st.cr3 & 0xfff) != 0))
        gp0(cpu);
    if (x86_pae_paging(cpu->st.cr0, v, cpu->st.efer) &&
        ((v ^ old) & (X86_CR4_PAE | X86_CR4_PGE | X86_CR4_PSE | X86_CR4_SMEP)))
        load_pdptrs(cpu, cpu->st.cr3);
    cpu->st.cr4 = v;
    if ((v ^ old) & (X86_CR4_PAE | X86_CR4_PGE | X86_CR4_PSE | X86_CR4_SMEP | X86_CR4_SMAP |
                     X86_CR4_PCIDE | X86_CR4_LA57 | X86_CR4_PKE | X86_CR4_PKS))
        mmu_flush_all(cpu);
    if ((v ^ old) & X86_CR4_SMAP)
        jit_flush(cpu); /* STAC and CLAC are translated for one or the other */
    mmu_update_mode(cpu);
}

void cr_write(struct soft_cpu *cpu, unsigned cr, uint64_t value)
{
    const struct engine_env *env = &cpu->vm->env;

    switch (cr) {
    case 0:
        write_cr0(cpu, value);
        break;
    case 2:
        cpu->st.cr2 = value;
        break;
    case 3:
        write_cr3(cpu, value);
        break;
    case 4:
        write_cr4(cpu, value);
        break;
    case 8:
        if (value & ~0xfull)
            gp0(cpu);
        if (env->lapic != NULL)
            env->lapic->set_cr8(env->lapic_ctx, cpu->id, (uint8_t)value);
        soft_check_irq(cpu);
        break;
    default:
        soft_raise(cpu, X86_EXC_UD);
    }
}
