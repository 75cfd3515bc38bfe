#include "engine/soft/interp.h"
#include "engine/soft/jit/jit.h"
#include "base/endian.h"
#include "host/random.h"

/* System instructions: flags, descriptor tables, control registers, fast calls, ports. */

/* Which flag CLI and STI mean: IF, or VIF where the virtual-mode extensions stand in; else #GP. */
static bool virtual_if(struct soft_cpu *cpu)
{
    if (!in_protected(cpu) || cpu->cpl <= ((cpu->st.rflags >> 12) & 3))
        return false;
    if (cpu->cpl == 3 && (cpu->st.cr4 & (in_vm86(cpu) ? X86_CR4_VME : X86_CR4_PVI)))
        return true;
    soft_raise_error(cpu, X86_EXC_GP, 0);
}

/* PUSHF and POPF in virtual-8086 mode without IOPL 3: VIF stands for IF. #GP without CR4.VME. */
static bool vme_flags(struct soft_cpu *cpu, unsigned osize)
{
    if (!in_vm86(cpu) || (cpu->st.rflags & X86_FL_IOPL) == X86_FL_IOPL)
        return false;
    if (!(cpu->st.cr4 & X86_CR4_VME) || osize != 2)
        soft_raise_error(cpu, X86_EXC_GP, 0);
    return true;
}

/* ---- flags ---- */

static void op_clc(struct soft_cpu *cpu, const struct uop *u)
{
    (void)u;
    cpu->cc &= ~CC_CF;
}

static void op_stc(struct soft_cpu *cpu, const struct uop *u)
{
    (void)u;
    cpu->cc |= CC_CF;
}

static void op_cmc(struct soft_cpu *cpu, const struct uop *u)
{
    (void)u;
    cpu->cc ^= CC_CF;
}

static void op_cld(struct soft_cpu *cpu, const struct uop *u)
{
    (void)u;
    cpu->st.rflags &= ~(uint64_t)X86_FL_DF;
}

static void op_std(struct soft_cpu *cpu, const struct uop *u)
{
    (void)u;
    cpu->st.rflags |= X86_FL_DF;
}

static void op_cli(struct soft_cpu *cpu, const struct uop *u)
{
    (void)u;
    cpu->st.rflags &= ~(uint64_t)(virtual_if(cpu) ? X86_FL_VIF : X86_FL_IF);
}

static void op_sti(struct soft_cpu *cpu, const struct uop *u)
{
    (void)u;
    if (virtual_if(cpu)) {
        if (cpu->st.rflags & X86_FL_VIP)
            soft_raise_error(cpu, X86_EXC_GP, 0);
        cpu->st.rflags |= X86_FL_VIF;
    } else if (!(cpu->st.rflags & X86_FL_IF)) {
        cpu->st.rflags |= X86_FL_IF;
        cpu->st.sti_shadow = true;
        soft_set_slow(cpu);
        soft_check_irq(cpu);
    }
}

static void op_pushf(struct soft_cpu *cpu, const struct uop *u)
{
    if (vme_flags(cpu, u->osize))
        stack_push(cpu, 2, vme_image(cpu));
    else
        stack_push(cpu, u->osize, soft_flags(cpu) & ~(uint64_t)(X86_FL_VM | X86_FL_RF));
}

static void op_popf(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t mask = X86_FL_ARITH | X86_FL_TF | X86_FL_DF | X86_FL_NT, fl;
    unsigned iopl = (cpu->st.rflags >> 12) & 3;

    if (vme_flags(cpu, u->osize)) {
        fl = stack_peek(cpu, 2, 0);
        vme_load(cpu, fl);
        stack_drop(cpu, 2);
        return;
    }
    if (u->osize != 2)
        mask |= X86_FL_AC | X86_FL_ID | X86_FL_RF;
    if (!in_protected(cpu) || cpu->cpl == 0)
        mask |= X86_FL_IF | X86_FL_IOPL;
    else if (cpu->cpl <= iopl)
        mask |= X86_FL_IF;
    fl = stack_peek(cpu, u->osize, 0) & ~(uint64_t)X86_FL_RF; /* POPF clears RF */
    stack_drop(cpu, u->osize);
    soft_set_flags(cpu, (soft_flags(cpu) & ~mask) | (fl & mask));
}

static void op_stac_clac(struct soft_cpu *cpu, const struct uop *u)
{
    if (cpu->cpl != 0)
        soft_raise(cpu, X86_EXC_UD);
    if (u->op == X86_STAC)
        cpu->st.rflags |= X86_FL_AC;
    else
        cpu->st.rflags &= ~(uint64_t)X86_FL_AC;
    mmu_update_mode(cpu);
}

static void op_nop(struct soft_cpu *cpu, const struct uop *u)
{
    (void)cpu;
    (void)u;
}

static void op_fence(struct soft_cpu *cpu, const struct uop *u)
{
    (void)cpu;
    (void)u;
    atomic_thread_fence(memory_order_seq_cst);
}

/* CLFLUSH checks its address as a read does, and reads nothing. */
static void op_clflush(struct soft_cpu *cpu, const struct uop *u)
{
    soft_probe_read(cpu, u->seg, soft_ea(cpu, u), 1);
}

static void op_ud(struct soft_cpu *cpu, const struct uop *u)
{
    (void)u;
    soft_raise(cpu, X86_EXC_UD);
}

static void op_hlt(struct soft_cpu *cpu, const struct uop *u)
{
    (void)u;
    need_cpl0(cpu);
    cpu->halt_wanted = true;
    atomic_fetch_or(&cpu->pending, SOFT_PENDING_SLOW);
}

/* A spinning guest: let another thread have the core now and then. */
static void op_pause(struct soft_cpu *cpu, const struct uop *u)
{
    (void)u;
    if (cpu->vm->env.exit_on_pause) {
        cpu->exit->reason = VCPU_EXIT_PAUSE;
        cpu->exit_wanted = true;
        atomic_fetch_or(&cpu->pending, SOFT_PENDING_SLOW);
    }
}

/* ---- control and debug registers ---- */

static void op_mov_from_cr(struct soft_cpu *cpu, const struct uop *u)
{
    need_cpl0(cpu);
    reg_set(cpu, u->dst, u->osize, cr_read(cpu, u->src));
}

static void op_mov_to_cr(struct soft_cpu *cpu, const struct uop *u)
{
    need_cpl0(cpu);
    cr_write(cpu, u->dst, reg_get(cpu, u->src, u->osize));
}

/* DR4 and DR5 are DR6 and DR7 unless CR4.DE. General detect (DR7.GD) comes first. */
static unsigned debug_register(struct soft_cpu *cpu, unsigned dr)
{
    if (dr == 4 || dr == 5) {
        if (cpu->st.cr4 & X86_CR4_DE)
            soft_raise(cpu, X86_EXC_UD);
        dr += 2;
    }
    need_cpl0(cpu);
    if (cpu->st.dr7 & (1u << 13)) {
        cpu->st.dr7 &= ~(1ull << 13);
        cpu->st.dr6 |= 1u << 13;
        cpu->st.rflags |= X86_FL_RF; /* a fault, unlike other #DBs: RF as faults push it */
        soft_raise(cpu, X86_EXC_DB);
    }
    return dr;
}

static void op_mov_from_dr(struct soft_cpu *cpu, const struct uop *u)
{
    unsigned dr = debug_register(cpu, u->src);

    reg_set(cpu, u->dst, u->osize, dr < 4 ? cpu->st.dr[dr] : dr == 6 ? cpu->st.dr6 : cpu->st.dr7);
}

static void op_mov_to_dr(struct soft_cpu *cpu, const struct uop *u)
{
    unsigned dr = debug_register(cpu, u->dst);
    uint64_t v = reg_get(cpu, u->src, u->osize);

    if (dr < 4) {
        cpu->st.dr[dr] = v;
        return;
    }
    if (v >> 32)
        soft_raise_error(cpu, X86_EXC_GP, 0);
    if (dr == 6)
        cpu->st.dr6 = (v & 0xe00f) | 0xffff0ff0;
    else
        cpu->st.dr7 = (v & 0xffff27ff) | 0x400;
    mmu_update_mode(cpu);
    soft_set_slow(cpu);
}

static void op_clts(struct soft_cpu *cpu, const struct uop *u)
{
    (void)u;
    need_cpl0(cpu);
    cpu->st.cr0 &= ~(uint64_t)X86_CR0_TS;
}

static void op_invlpg(struct soft_cpu *cpu, const struct uop *u)
{
    need_cpl0(cpu);
    mmu_flush_page(cpu, cpu->base[u->seg] + soft_ea(cpu, u));
}

static void op_invpcid(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t kind = cpu->st.gpr[u->dst], ea, lo, lin;

    need_cpl0(cpu);
    ea = soft_ea(cpu, u);
    lo = mem_load(cpu, u->seg, ea, 8);
    lin = mem_load(cpu, u->seg, ea + 8, 8);
    if (!cpu->long_code)
        kind = (uint32_t)kind;
    if (kind > 3 || (lo >> 12) != 0 || (kind == 0 && !soft_canonical(cpu, lin)) ||
        (kind < 2 && !(cpu->st.cr4 & X86_CR4_PCIDE) && lo != 0))
        soft_raise_error(cpu, X86_EXC_GP, 0);
    if (kind == 0)
        mmu_flush_page(cpu, lin);
    else if (kind == 1 || kind == 3)
        mmu_flush_context(cpu);
    else
        mmu_flush_all(cpu);
    if (kind < 2)
        jit_space_dropped(cpu, (unsigned)lo);
    else
        jit_context_changed(cpu);
}

static void op_cpl0_nop(struct soft_cpu *cpu, const struct uop *u)
{
    (void)u;
    need_cpl0(cpu);
}

/* ---- FS, GS, SWAPGS ---- */

static void op_swapgs(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t base = cpu->st.seg[X86_GS].base;

    (void)u;
    need_cpl0(cpu);
    cpu->st.seg[X86_GS].base = cpu->base[X86_GS] = cpu->st.kernel_gs_base;
    cpu->st.kernel_gs_base = base;
}

/* 66 changes nothing: 32 bits or 64. */
static unsigned base_size(const struct uop *u)
{
    return u->osize == 8 ? 8 : 4;
}

/* cc: the segment */
static void op_read_base(struct soft_cpu *cpu, const struct uop *u)
{
    if (!(cpu->st.cr4 & X86_CR4_FSGSBASE))
        soft_raise(cpu, X86_EXC_UD);
    reg_set(cpu, u->dst, base_size(u), cpu->st.seg[u->cc].base);
}

static void op_write_base(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t v = reg_get(cpu, u->dst, base_size(u));

    if (!(cpu->st.cr4 & X86_CR4_FSGSBASE))
        soft_raise(cpu, X86_EXC_UD);
    if (!soft_canonical_register(cpu, v))
        soft_raise_error(cpu, X86_EXC_GP, 0);
    cpu->st.seg[u->cc].base = cpu->base[u->cc] = v;
}

/* ---- fast system calls ---- */

static void op_syscall(struct soft_cpu *cpu, const struct uop *u)
{
    uint16_t cs = (uint16_t)(cpu->st.star >> 32) & 0xfffc;

    (void)u;
    if (!(cpu->st.efer & X86_EFER_SCE) || !cpu->long_code)
        soft_raise(cpu, X86_EXC_UD); /* Intel: only in 64-bit mode */
    cpu->st.gpr[X86_RCX] = cpu->next_rip;
    cpu->st.gpr[X86_R11] = soft_flags(cpu) & ~(uint64_t)X86_FL_RF;
    seg_flat_code(cpu, cs, 0, true);
    seg_flat_stack(cpu, (uint16_t)(cs + 8), 0);
    soft_set_flags(cpu, soft_flags(cpu) & ~cpu->st.sfmask & ~(uint64_t)X86_FL_RF);
    cpu->next_rip = cpu->st.lstar;
    mmu_update_mode(cpu); /* of all that a mode is, only the privilege has changed */
}

static void op_sysret(struct soft_cpu *cpu, const struct uop *u)
{
    uint16_t base = (uint16_t)(cpu->st.star >> 48);
    bool to64 = u->osize == 8;
    uint64_t rip = cpu->st.gpr[X86_RCX];

    if (!(cpu->st.efer & X86_EFER_SCE) || !cpu->long_code)
        soft_raise(cpu, X86_EXC_UD);
    need_cpl0(cpu);
    if (to64 && !soft_canonical(cpu, rip))
        soft_raise_error(cpu, X86_EXC_GP, 0);
    seg_flat_code(cpu, (uint16_t)((base + (to64 ? 16 : 0)) | 3), 3, to64);
    seg_flat_stack(cpu, (uint16_t)((base + 8) | 3), 3);
    soft_set_flags(cpu, (cpu->st.gpr[X86_R11] & 0x3c7fd7) | X86_FL_FIXED);
    if (cpu->st.rflags & X86_FL_TF)
        cpu->db_hit |= 1u << 14; /* as if the SYSCALL had just been stepped */
    cpu->next_rip = to64 ? rip : (uint32_t)rip;
    if (to64)
        mmu_update_mode(cpu);
    else
        soft_mode_changed(cpu);
}

static void op_sysenter(struct soft_cpu *cpu, const struct uop *u)
{
    uint16_t cs = (uint16_t)cpu->st.sysenter_cs & 0xfffc;
    bool lma = in_long_mode(cpu);

    (void)u;
    if (!in_protected(cpu) || cs == 0)
        soft_raise_error(cpu, X86_EXC_GP, 0);
    soft_set_flags(cpu, soft_flags(cpu) & ~(uint64_t)(X86_FL_VM | X86_FL_IF | X86_FL_RF));
    seg_flat_code(cpu, cs, 0, lma);
    seg_flat_stack(cpu, (uint16_t)(cs + 8), 0);
    cpu->st.gpr[X86_RSP] = lma ? cpu->st.sysenter_esp : (uint32_t)cpu->st.sysenter_esp;
    cpu->next_rip = lma ? cpu->st.sysenter_eip : (uint32_t)cpu->st.sysenter_eip;
    soft_mode_changed(cpu);
}

static void op_sysexit(struct soft_cpu *cpu, const struct uop *u)
{
    uint16_t cs = (uint16_t)cpu->st.sysenter_cs & 0xfffc;
    bool to64 = u->osize == 8;
    uint64_t rip = cpu->st.gpr[X86_RDX], rsp = cpu->st.gpr[X86_RCX];

    if (!in_protected(cpu) || cs == 0 || cpu->cpl != 0)
        soft_raise_error(cpu, X86_EXC_GP, 0);
    if (to64 && (!soft_canonical(cpu, rip) || !soft_canonical(cpu, rsp)))
        soft_raise_error(cpu, X86_EXC_GP, 0);
    seg_flat_code(cpu, (uint16_t)((cs + (to64 ? 32 : 16)) | 3), 3, to64);
    seg_flat_stack(cpu, (uint16_t)((cs + (to64 ? 40 : 24)) | 3), 3);
    cpu->st.gpr[X86_RSP] = to64 ? rsp : (uint32_t)rsp;
    cpu->next_rip = to64 ? rip : (uint32_t)rip;
    soft_mode_changed(cpu);
}

/* ---- identification, time, MSRs, random numbers ---- */

static void set_pair(struct soft_cpu *cpu, uint64_t v)
{
    cpu->st.gpr[X86_RAX] = (uint32_t)v;
    cpu->st.gpr[X86_RDX] = v >> 32;
}

static uint64_t get_pair(const struct soft_cpu *cpu)
{
    return (uint32_t)cpu->st.gpr[X86_RAX] | cpu->st.gpr[X86_RDX] << 32;
}

/* CPUID shows no APIC while IA32_APIC_BASE disables it. */
static bool apic_enabled(struct soft_cpu *cpu)
{
    const struct engine_env *env = &cpu->vm->env;
    uint64_t base = 0;

    return env->lapic != NULL && env->lapic->msr_read(env->lapic_ctx, cpu->id, 0x1b, &base) == 0 &&
           (base & (1u << 11));
}

/* Bits of CPUID that registers of the processor turn off. */
static void cpuid_by_registers(struct soft_cpu *cpu, uint32_t leaf, uint32_t r[4])
{
    if (leaf == 0 && (cpu->st.misc_enable & MISC_ENABLE_LIMIT_CPUID))
        r[0] = 2;
    if (leaf == 1 && !apic_enabled(cpu))
        r[3] &= ~(1u << 9);
    if (leaf == 0x80000001u && (cpu->st.misc_enable & MISC_ENABLE_XD_OFF))
        r[3] &= ~(1u << 20);
}

static void op_cpuid(struct soft_cpu *cpu, const struct uop *u)
{
    uint32_t leaf = (uint32_t)cpu->st.gpr[X86_RAX], r[4];

    (void)u;
    x86_cpuid_query(cpu->vm->env.cpuid, leaf, (uint32_t)cpu->st.gpr[X86_RCX], cpu->id,
                    cpu->vm->env.cpus, cpu->st.cr4, cpu->st.xcr0, cpu->st.xss, r);
    cpuid_by_registers(cpu, leaf, r);
    cpu->st.gpr[X86_RAX] = r[0];
    cpu->st.gpr[X86_RBX] = r[1];
    cpu->st.gpr[X86_RCX] = r[2];
    cpu->st.gpr[X86_RDX] = r[3];
}

static void op_rdtsc(struct soft_cpu *cpu, const struct uop *u)
{
    if ((cpu->st.cr4 & X86_CR4_TSD) && cpu->cpl != 0 && in_protected(cpu))
        soft_raise_error(cpu, X86_EXC_GP, 0);
    set_pair(cpu, soft_guest_tsc(cpu));
    if (u->op == X86_RDTSCP)
        cpu->st.gpr[X86_RCX] = (uint32_t)cpu->st.tsc_aux;
}

/* CPUID leaf 0xA offers no counters: any index is invalid. */
static void op_rdpmc(struct soft_cpu *cpu, const struct uop *u)
{
    (void)u;
    soft_raise_error(cpu, X86_EXC_GP, 0);
}

static void op_rdmsr(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t v;

    (void)u;
    need_cpl0(cpu);
    msr_read(cpu, (uint32_t)cpu->st.gpr[X86_RCX], &v);
    set_pair(cpu, v);
}

static void op_wrmsr(struct soft_cpu *cpu, const struct uop *u)
{
    (void)u;
    need_cpl0(cpu);
    msr_write(cpu, (uint32_t)cpu->st.gpr[X86_RCX], get_pair(cpu));
}

static void op_rdrand(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t v = 0;
    bool ok = host_random(&v, sizeof(v)) == 0;

    reg_set(cpu, u->dst, u->osize, ok ? v : 0);
    cpu->cc = ok ? CC_CF : 0; /* none just now: the guest tries again */
}

static void op_rdpid(struct soft_cpu *cpu, const struct uop *u)
{
    cpu->st.gpr[u->dst] = (uint32_t)cpu->st.tsc_aux;
}

static void op_xgetbv(struct soft_cpu *cpu, const struct uop *u)
{
    uint32_t index = (uint32_t)cpu->st.gpr[X86_RCX];

    (void)u;
    if (!(cpu->st.cr4 & X86_CR4_OSXSAVE))
        soft_raise(cpu, X86_EXC_UD);
    if (index == 0)
        set_pair(cpu, cpu->st.xcr0);
    else if (index == 1 && soft_has(cpu, X86_FEAT_XSAVEC))
        set_pair(cpu, cpu->st.xcr0 & (1 | le64_load(cpu->st.xsave + X86_XSAVE_HDR)));
    else
        soft_raise_error(cpu, X86_EXC_GP, 0);
}

static void op_xsetbv(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t v = get_pair(cpu);

    (void)u;
    if (!(cpu->st.cr4 & X86_CR4_OSXSAVE))
        soft_raise(cpu, X86_EXC_UD);
    need_cpl0(cpu);
    if ((uint32_t)cpu->st.gpr[X86_RCX] != 0 || !(v & 1) || (v & ~cpu->vm->env.cpuid->xcr0_mask) ||
        (v & 6) == 4)
        soft_raise_error(cpu, X86_EXC_GP, 0);
    cpu->st.xcr0 = v;
}

static void op_pkru(struct soft_cpu *cpu, const struct uop *u)
{
    uint8_t *pkru = cpu->st.xsave + X86_XSAVE_PKRU;

    if (!(cpu->st.cr4 & X86_CR4_PKE))
        soft_raise(cpu, X86_EXC_UD);
    if ((uint32_t)cpu->st.gpr[X86_RCX] != 0 ||
        (u->op == X86_WRPKRU && (uint32_t)cpu->st.gpr[X86_RDX] != 0))
        soft_raise_error(cpu, X86_EXC_GP, 0);
    if (u->op == X86_RDPKRU) {
        set_pair(cpu, le32_load(pkru));
    } else if (le32_load(pkru) != (uint32_t)cpu->st.gpr[X86_RAX]) {
        le32_store(pkru, (uint32_t)cpu->st.gpr[X86_RAX]);
        soft_pkru_changed(cpu);
    }
}

/* ---- table ---- */

#define ENDS UOP_END
static const struct {
    uint16_t op;
    uint8_t flags, cc;
    uop_fn fn;
} system_table[] = {
    {X86_CLC, 0, 0, op_clc},
    {X86_STC, 0, 0, op_stc},
    {X86_CMC, 0, 0, op_cmc},
    {X86_CLD, 0, 0, op_cld},
    {X86_STD, 0, 0, op_std},
    {X86_CLI, 0, 0, op_cli},
    {X86_STI, ENDS, 0, op_sti},
    {X86_PUSHF, 0, 0, op_pushf},
    {X86_POPF, ENDS, 0, op_popf},
    {X86_STAC, 0, 0, op_stac_clac},
    {X86_CLAC, 0, 0, op_stac_clac},
    {X86_NOP, 0, 0, op_nop},
    {X86_PREFETCH, 0, 0, op_nop},
    {X86_CLDEMOTE, 0, 0, op_nop},
    {X86_PAUSE, ENDS, 0, op_pause},
    {X86_LFENCE, 0, 0, op_fence},
    {X86_SFENCE, 0, 0, op_fence},
    {X86_MFENCE, 0, 0, op_fence},
    {X86_CLFLUSH, 0, 0, op_clflush},
    {X86_CLFLUSHOPT, 0, 0, op_clflush},
    {X86_CLWB, 0, 0, op_clflush},
    {X86_UD0, ENDS, 0, op_ud},
    {X86_UD1, ENDS, 0, op_ud},
    {X86_UD2, ENDS, 0, op_ud},
    {X86_MONITOR, ENDS, 0, op_ud},
    {X86_MWAIT, ENDS, 0, op_ud},
    {X86_VMCALL, ENDS, 0, op_ud},
    {X86_VMMCALL, ENDS, 0, op_ud},
    {X86_RSM, ENDS, 0, op_ud},
    {X86_HLT, ENDS, 0, op_hlt},
    {X86_CLTS, ENDS, 0, op_clts},
    {X86_INVLPG, ENDS, 0, op_invlpg},
    {X86_INVPCID, ENDS, 0, op_invpcid},
    {X86_INVD, 0, 0, op_cpl0_nop},
    {X86_WBINVD, 0, 0, op_cpl0_nop},
    {X86_WBNOINVD, 0, 0, op_cpl0_nop},
    {X86_SWAPGS, 0, 0, op_swapgs},
    {X86_RDFSBASE, 0, X86_FS, op_read_base},
    {X86_RDGSBASE, 0, X86_GS, op_read_base},
    {X86_WRFSBASE, 0, X86_FS, op_write_base},
    {X86_WRGSBASE, 0, X86_GS, op_write_base},
    {X86_SYSCALL, ENDS, 0, op_syscall},
    {X86_SYSRET, ENDS, 0, op_sysret},
    {X86_SYSENTER, ENDS, 0, op_sysenter},
    {X86_SYSEXIT, ENDS, 0, op_sysexit},
    {X86_CPUID, 0, 0, op_cpuid},
    {X86_RDTSC, 0, 0, op_rdtsc},
    {X86_RDTSCP, 0, 0, op_rdtsc},
    {X86_RDPMC, 0, 0, op_rdpmc},
    {X86_RDMSR, 0, 0, op_rdmsr},
    {X86_WRMSR, ENDS, 0, op_wrmsr},
    {X86_RDRAND, 0, 0, op_rdrand},
    {X86_RDSEED, 0, 0, op_rdrand},
    {X86_RDPID, 0, 0, op_rdpid},
    {X86_RDPKRU, 0, 0, op_pkru},
    {X86_WRPKRU, 0, 0, op_pkru},
    {X86_XGETBV, 0, 0, op_xgetbv},
    {X86_XSETBV, ENDS, 0, op_xsetbv},
};

static bool build_moves(const struct x86_insn *insn, struct uop *u)
{
    bool to = insn->opnd[0].rclass != X86_RC_GPR;

    u->osize = insn->mode == X86_MODE_64 ? 8 : 4;
    if (insn->op == X86_MOVCR)
        u->fn = to ? op_mov_to_cr : op_mov_from_cr;
    else
        u->fn = to ? op_mov_to_dr : op_mov_from_dr;
    if (to)
        u->flags |= UOP_END;
    return true;
}

bool build_system(const struct x86_insn *insn, struct uop *u)
{
    switch (insn->op) {
    case X86_MOVCR:
    case X86_MOVDR:
        return build_moves(insn, u);
    default:
        break;
    }
    for (size_t i = 0; i < countof(system_table); i++) {
        if (system_table[i].op == insn->op) {
            u->fn = system_table[i].fn;
            u->cc = system_table[i].cc;
            u->flags |= system_table[i].flags;
            return true;
        }
    }
    return false;
}
