/*
 * The CPUID table of a VM: made once from a model name and the host, then frozen. Engines answer
 * from it; the executor asks it which instructions exist. Pure but for x86_cpuid_host, which reads
 * the host's leaves (8 µs each inside a VM, so once).
 */
#ifndef X86_CPUID_H
#define X86_CPUID_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "x86/decode.h"

struct x86_cpuid_leaf {
    uint32_t leaf, subleaf; /* subleaf UINT32_MAX: any */
    uint32_t eax, ebx, ecx, edx;
};

/* The crystal of CPUID 0x15: also the local APIC timer's input clock (Linux takes it as that). */
#define X86_CRYSTAL_HZ 10000000u

/*
 * IA32_ARCH_CAPABILITIES: RDCL_NO, IBRS_ALL, no L1D flush at VM entry, SSB_NO, MDS_NO, no
 * page-size-change MCE, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO,
 * ITS_NO: a processor that needs no mitigation.
 */
#define X86_ARCH_CAPABILITIES                                                                      \
    (1u << 0 | 1u << 1 | 1u << 3 | 1u << 4 | 1u << 5 | 1u << 6 | 1u << 8 | 1u << 13 | 1u << 14 |   \
     1u << 15 | 1u << 20 | 1u << 24 | 1u << 26 | 1u << 27 | 1ull << 62)

#define X86_CPUID_MAX 128u

/*
 * State components beyond the legacy region: 2 YMM, 5 to 7 AVX-512 (opmask, upper halves of ZMM0 to
 * 15, ZMM16 to 31), 9 PKRU.
 */
#define X86_XSAVE_COMPONENTS 10u
#define X86_XCR0_YMM (1u << 2)
#define X86_XCR0_AVX512 (7u << 5)
#define X86_XCR0_PKRU (1u << 9)

/* Bytes of a component, and where struct x86_state keeps it; 0: there is no such component. */
unsigned x86_xsave_size(unsigned component);
unsigned x86_xsave_home(unsigned component);

/*
 * Where a component lies in an area of the compact format whose XCOMP_BV is `xcomp`; of
 * X86_XSAVE_COMPONENTS: the area's size.
 */
unsigned x86_xsave_compact_at(uint64_t xcomp, unsigned component);

struct x86_cpuid {
    struct x86_cpuid_leaf leaf[X86_CPUID_MAX];
    unsigned count;
    uint32_t max_basic, max_ext;
    uint64_t tsc_hz;
    uint32_t crystal_hz; /* also what the local APICs' timers count */
    unsigned phys_bits, lin_bits;
    bool insisted;      /* x86_cpuid_insist has put something in */
    uint64_t xcr0_mask; /* bits a guest may set */
    /* where each state component lies in XSAVE's standard format in the guest's memory, bytes */
    uint16_t xsave_at[X86_XSAVE_COMPONENTS];
    uint32_t mxcsr_mask;
    bool feature[X86_FEAT_HIDDEN + 1]; /* indexed by enum x86_feature */
    /* what the model's control registers allow */
    uint64_t cr4_mask, efer_mask;
};

/* What a user may ask for beside a model. */
struct x86_cpu_options {
    bool la57; /* five-level paging and 57-bit linear addresses */
};

/*
 * model: "host", "v2", "v3", "portable". tsc_hz is the frequency told to the guest. The vendor is
 * GenuineIntel. options may be NULL: none. -EINVAL with the known names for another model.
 */
int x86_cpuid_create(struct x86_cpuid *out, const char *model,
                     const struct x86_cpu_options *options, uint64_t tsc_hz, struct error *err);

/*
 * What an engine on the host's own hardware makes of it. `leaf` is what its kernel says it can run.
 * x86_cpuid_limit takes away what is not there. x86_cpuid_adopt puts the host's own processor in
 * the model's place, less what struct x86_state cannot hold or the board does not have.
 */
void x86_cpuid_limit(struct x86_cpuid *c, const struct x86_cpuid_leaf *leaf, unsigned count);
void x86_cpuid_adopt(struct x86_cpuid *c, const struct x86_cpuid_leaf *leaf, unsigned count);

/*
 * Features that a guest sees although the table has not got them, since its kernel cannot hide
 * them: `leaf` is what that says after it was given the table. They are in the table then,
 * AVX-512's state among them, which the software CPU can hold and not work with. True if there were
 * any.
 */
bool x86_cpuid_insist(struct x86_cpuid *c, const struct x86_cpuid_leaf *leaf, unsigned count);

/*
 * Makes such a table the software CPU's: without what it has not got of it, and without what only
 * KVM's kernel does for a guest.
 */
void x86_cpuid_hide(struct x86_cpuid *c);

/* Another crystal than X86_CRYSTAL_HZ: the local APICs are not the board's. hz of 1 MHz and more.
 */
void x86_cpuid_crystal(struct x86_cpuid *c, uint32_t hz);

/* Another frequency of the TSC than it was made with: one that took until now to be known. */
void x86_cpuid_tsc(struct x86_cpuid *c, uint64_t hz);

/*
 * What CPUID returns on vCPU `cpu` of `cpus` in this state (XCR0, CR4.OSXSAVE and PKE, APIC id). An
 * APIC that is disabled by its base register is the caller's to take out of leaf 1.
 */
void x86_cpuid_query(const struct x86_cpuid *c, uint32_t leaf, uint32_t subleaf, unsigned cpu,
                     unsigned cpus, uint64_t cr4, uint64_t xcr0, uint64_t xss, uint32_t out[4]);

#endif
