/*
 * The whole architectural state of one x86-64 processor as plain data: what snapshots, the
 * debugger, vmmapi and a change of engine share. Pending port and MMIO accesses are completed
 * before it is read. Owned by the vCPU's thread; others only while the VM is paused.
 */
#ifndef X86_STATE_H
#define X86_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "x86/decode.h"

enum x86_gpr {
    X86_RAX,
    X86_RCX,
    X86_RDX,
    X86_RBX,
    X86_RSP,
    X86_RBP,
    X86_RSI,
    X86_RDI,
    X86_R8,
    X86_R9,
    X86_R10,
    X86_R11,
    X86_R12,
    X86_R13,
    X86_R14,
    X86_R15
};

#define X86_FL_CF (1u << 0)
#define X86_FL_FIXED (1u << 1)
#define X86_FL_PF (1u << 2)
#define X86_FL_AF (1u << 4)
#define X86_FL_ZF (1u << 6)
#define X86_FL_SF (1u << 7)
#define X86_FL_TF (1u << 8)
#define X86_FL_IF (1u << 9)
#define X86_FL_DF (1u << 10)
#define X86_FL_OF (1u << 11)
#define X86_FL_IOPL (3u << 12)
#define X86_FL_NT (1u << 14)
#define X86_FL_RF (1u << 16)
#define X86_FL_VM (1u << 17)
#define X86_FL_AC (1u << 18)
#define X86_FL_VIF (1u << 19)
#define X86_FL_VIP (1u << 20)
#define X86_FL_ID (1u << 21)
#define X86_FL_ARITH (X86_FL_CF | X86_FL_PF | X86_FL_AF | X86_FL_ZF | X86_FL_SF | X86_FL_OF)

#define X86_CR0_PE (1u << 0)
#define X86_CR0_MP (1u << 1)
#define X86_CR0_EM (1u << 2)
#define X86_CR0_TS (1u << 3)
#define X86_CR0_ET (1u << 4)
#define X86_CR0_NE (1u << 5)
#define X86_CR0_WP (1u << 16)
#define X86_CR0_AM (1u << 18)
#define X86_CR0_NW (1u << 29)
#define X86_CR0_CD (1u << 30)
#define X86_CR0_PG (1u << 31)

#define X86_CR4_VME (1u << 0)
#define X86_CR4_PVI (1u << 1)
#define X86_CR4_TSD (1u << 2)
#define X86_CR4_DE (1u << 3)
#define X86_CR4_PSE (1u << 4)
#define X86_CR4_PAE (1u << 5)
#define X86_CR4_MCE (1u << 6)
#define X86_CR4_PGE (1u << 7)
#define X86_CR4_PCE (1u << 8)
#define X86_CR4_OSFXSR (1u << 9)
#define X86_CR4_OSXMMEXCPT (1u << 10)
#define X86_CR4_UMIP (1u << 11)
#define X86_CR4_LA57 (1u << 12)
#define X86_CR4_FSGSBASE (1u << 16)
#define X86_CR4_PCIDE (1u << 17)
#define X86_CR4_OSXSAVE (1u << 18)
#define X86_CR4_SMEP (1u << 20)
#define X86_CR4_SMAP (1u << 21)
#define X86_CR4_PKE (1u << 22)
#define X86_CR4_PKS (1u << 24)

#define X86_EFER_SCE (1u << 0)
#define X86_EFER_LME (1u << 8)
#define X86_EFER_LMA (1u << 10)
#define X86_EFER_NXE (1u << 11)

enum x86_vector {
    X86_EXC_DE = 0,
    X86_EXC_DB = 1,
    X86_EXC_NMI = 2,
    X86_EXC_BP = 3,
    X86_EXC_OF = 4,
    X86_EXC_BR = 5,
    X86_EXC_UD = 6,
    X86_EXC_NM = 7,
    X86_EXC_DF = 8,
    X86_EXC_TS = 10,
    X86_EXC_NP = 11,
    X86_EXC_SS = 12,
    X86_EXC_GP = 13,
    X86_EXC_PF = 14,
    X86_EXC_MF = 16,
    X86_EXC_AC = 17,
    X86_EXC_MC = 18,
    X86_EXC_XM = 19
};

/*
 * attr as in the high half of a descriptor, shifted down: type 3:0, S 4, DPL 6:5, P 7, AVL 12, L
 * 13, D/B 14, G 15; bit 16 set = unusable (a null selector). limit is in bytes, already scaled by
 * G.
 */
struct x86_segment {
    uint16_t selector;
    uint32_t attr;
    uint32_t limit;
    uint64_t base;
};
#define X86_SEG_S 0x0010u
#define X86_SEG_DPL 0x0060u
#define X86_SEG_P 0x0080u
#define X86_SEG_L 0x2000u
#define X86_SEG_DB 0x4000u
#define X86_SEG_G 0x8000u
#define X86_SEG_UNUSABLE 0x10000u

struct x86_dtable {
    uint64_t base;
    uint16_t limit;
};

enum x86_mp_state { X86_MP_RUNNING, X86_MP_HALTED, X86_MP_WAIT_SIPI, X86_MP_SHUTDOWN };

/* An event that the CPU will deliver before its next instruction. */
struct x86_event {
    bool valid;
    uint8_t type; /* 0 external interrupt, 2 NMI, 3 exception, 4 software interrupt, 6 INT3/INTO */
    uint8_t vector;
    bool has_error;
    uint32_t error;
    uint64_t payload; /* CR2 for #PF, DR6 bits for #DB */
};

#define X86_XSAVE_SIZE 2752u /* standard format up to PKRU, rounded to 64 */
#define X86_XSAVE_HDR 512u
#define X86_XSAVE_YMM 576u
#define X86_XSAVE_OPMASK 1088u /* AVX-512: kept for engines that run it */
#define X86_XSAVE_ZMM_HI 1152u
#define X86_XSAVE_HI16_ZMM 1664u
#define X86_XSAVE_PKRU 2688u
#define X86_MTRR_VAR 8u

struct x86_state {
    uint64_t gpr[16];
    uint64_t rip;
    uint64_t rflags;
    struct x86_segment seg[X86_SEG_COUNT]; /* CPL = DPL of SS */
    struct x86_segment ldtr, tr;
    struct x86_dtable gdtr, idtr;
    uint64_t cr0, cr2, cr3, cr4;
    uint64_t xcr0;
    uint64_t dr[4], dr6, dr7;
    uint64_t pdptr[4]; /* PAE paging's cached entries */

    /* MSRs; APIC ones belong to the local APIC */
    uint64_t efer, star, lstar, cstar, sfmask, kernel_gs_base;
    uint64_t sysenter_cs, sysenter_esp, sysenter_eip;
    uint64_t pat, tsc_aux, tsc_adjust, misc_enable, spec_ctrl, xss, pkrs;
    uint64_t mtrr_def_type, mtrr_fix[11], mtrr_base[X86_MTRR_VAR], mtrr_mask[X86_MTRR_VAR];
    uint64_t mcg_status, mc_ctl[4];
    uint64_t feature_control;
    uint64_t debugctl;
    uint64_t tsc_offset; /* guest TSC = host TSC + offset */

    struct x86_event event;
    bool sti_shadow, movss_shadow;
    bool nmi_blocked, nmi_pending;
    bool smi_pending;
    uint8_t mp_state; /* enum x86_mp_state */
    bool a20_masked;
    bool ferr, ignne; /* FERR# is driven; IGNNE# is */

    _Alignas(64) uint8_t xsave[X86_XSAVE_SIZE]; /* standard format; PKRU lies here too */
};

/* Power-on (RESET) state; cpu 0 runs at F000:FFF0, others wait for SIPI. Intel SDM Vol.3, reset. */
void x86_state_reset(struct x86_state *s, bool bsp);

/* Whether CR0, CR4 and EFER say paging by PAE, whose four PDPTRs are part of the state. */
static inline bool x86_pae_paging(uint64_t cr0, uint64_t cr4, uint64_t efer)
{
    return (cr0 & X86_CR0_PG) && (cr4 & X86_CR4_PAE) && !(efer & X86_EFER_LMA);
}

#endif
