#include "x86/cpuid.h"

#include <cpuid.h>
#include <errno.h>
#include <string.h>

#include "x86/state.h"

/*
 * The processor that guests see: GenuineIntel, family 6 model 0x6A, with what the model and the
 * host allow. It needs no mitigation (ARCH_CAPABILITIES says so), its TSC is invariant and its
 * frequency stands in leaves 0x15 and 0x16, so that no guest has to measure it.
 */

#define SIGNATURE 0x000606a6u
#define ANY UINT32_MAX
#define NO_FCS_FDS (1u << 13) /* CPUID 7, EBX */

/* What XSAVE keeps beyond the legacy region, and where struct x86_state has it: Intel's places. */
static const struct {
    uint16_t size, home;
} components[X86_XSAVE_COMPONENTS] = {
    [2] = {256, X86_XSAVE_YMM},       [5] = {64, X86_XSAVE_OPMASK}, [6] = {512, X86_XSAVE_ZMM_HI},
    [7] = {1024, X86_XSAVE_HI16_ZMM}, [9] = {8, X86_XSAVE_PKRU},
};

unsigned x86_xsave_size(unsigned component)
{
    return component < X86_XSAVE_COMPONENTS ? components[component].size : 0;
}

unsigned x86_xsave_home(unsigned component)
{
    return component < X86_XSAVE_COMPONENTS ? components[component].home : 0;
}

/* None of these is aligned: CPUID 0xd, ECX bit 1. */
unsigned x86_xsave_compact_at(uint64_t xcomp, unsigned component)
{
    unsigned at = X86_XSAVE_YMM;

    for (unsigned i = 2; i < component && i < X86_XSAVE_COMPONENTS; i++)
        at += xcomp >> i & 1 ? components[i].size : 0;
    return at;
}

/* Which leaf, register and bit announces a feature. */
struct feature_bit {
    uint8_t feature;
    uint8_t reg; /* 0 EAX ... 3 EDX */
    uint8_t bit;
    bool host; /* executed natively: the host must have it */
    uint32_t leaf;
    uint8_t subleaf;
    uint8_t level; /* 2, 3: in x86-64-v2, v3; 0: in every model; 9: only "host" */
};

static const struct feature_bit feature_bits[] = {
    {X86_FEAT_X87, 3, 0, false, 1, 0, 0},
    {X86_FEAT_CMOV, 3, 15, false, 1, 0, 0},
    {X86_FEAT_MMX, 3, 23, false, 1, 0, 0},
    {X86_FEAT_FXSR, 3, 24, false, 1, 0, 0},
    {X86_FEAT_SSE, 3, 25, false, 1, 0, 0},
    {X86_FEAT_SSE2, 3, 26, false, 1, 0, 0},
    {X86_FEAT_SSE3, 2, 0, true, 1, 0, 2},
    {X86_FEAT_PCLMUL, 2, 1, true, 1, 0, 2},
    {X86_FEAT_SSSE3, 2, 9, true, 1, 0, 2},
    {X86_FEAT_FMA, 2, 12, true, 1, 0, 3},
    {X86_FEAT_CX16, 2, 13, true, 1, 0, 2},
    {X86_FEAT_SSE41, 2, 19, true, 1, 0, 2},
    {X86_FEAT_SSE42, 2, 20, true, 1, 0, 2},
    {X86_FEAT_MOVBE, 2, 22, false, 1, 0, 3},
    {X86_FEAT_POPCNT, 2, 23, false, 1, 0, 2},
    {X86_FEAT_AES, 2, 25, true, 1, 0, 2},
    {X86_FEAT_XSAVE, 2, 26, false, 1, 0, 3},
    {X86_FEAT_AVX, 2, 28, true, 1, 0, 3},
    {X86_FEAT_F16C, 2, 29, true, 1, 0, 3},
    {X86_FEAT_RDRAND, 2, 30, false, 1, 0, 2},
    {X86_FEAT_FSGSBASE, 1, 0, false, 7, 0, 2},
    {X86_FEAT_BMI1, 1, 3, false, 7, 0, 3},
    {X86_FEAT_AVX2, 1, 5, true, 7, 0, 3},
    {X86_FEAT_BMI2, 1, 8, false, 7, 0, 3},
    {X86_FEAT_INVPCID, 1, 10, false, 7, 0, 3},
    {X86_FEAT_RDSEED, 1, 18, false, 7, 0, 3},
    {X86_FEAT_ADX, 1, 19, false, 7, 0, 9},
    {X86_FEAT_SMAP, 1, 20, false, 7, 0, 2},
    {X86_FEAT_CLFLUSHOPT, 1, 23, false, 7, 0, 9},
    {X86_FEAT_CLWB, 1, 24, false, 7, 0, 9},
    {X86_FEAT_SHA, 1, 29, true, 7, 0, 9},
    {X86_FEAT_GFNI, 2, 8, true, 7, 0, 9},
    {X86_FEAT_VAES, 2, 9, true, 7, 0, 9},
    {X86_FEAT_VPCLMUL, 2, 10, true, 7, 0, 9},
    {X86_FEAT_PKU, 2, 3, false, 7, 0, 9},
    {X86_FEAT_RDPID, 2, 22, false, 7, 0, 9},
    {X86_FEAT_LZCNT, 2, 5, false, 0x80000001u, 0, 3},
    {X86_FEAT_RDTSCP, 3, 27, false, 0x80000001u, 0, 0},
    {X86_FEAT_XSAVEOPT, 0, 0, false, 0xd, 1, 3},
    {X86_FEAT_XSAVEC, 0, 1, false, 0xd, 1, 3},
    {X86_FEAT_XSAVES, 0, 3, false, 0xd, 1, 3},
};

static bool host_has(const struct feature_bit *f)
{
    uint32_t r[4];

    if (!__get_cpuid_count(f->leaf, f->subleaf, &r[0], &r[1], &r[2], &r[3]))
        return false;
    return (r[f->reg] >> f->bit) & 1;
}

static struct x86_cpuid_leaf *add(struct x86_cpuid *c, uint32_t leaf, uint32_t subleaf,
                                  uint32_t eax, uint32_t ebx, uint32_t ecx, uint32_t edx)
{
    struct x86_cpuid_leaf *l = &c->leaf[c->count++];

    *l = (struct x86_cpuid_leaf){leaf, subleaf, eax, ebx, ecx, edx};
    return l;
}

/* 12 or 16 characters in the register order given. */
static uint32_t chars(const char *s)
{
    uint32_t v;

    memcpy(&v, s, 4);
    return v;
}

static void add_caches(struct x86_cpuid *c)
{
    /* leaf 4: type and level in EAX, ways - 1 << 22 | line - 1 in EBX, sets - 1 in ECX */
    add(c, 4, 0, 0x04000121, 7u << 22 | 63, 63, 0);    /* 32 KiB data */
    add(c, 4, 1, 0x04000122, 7u << 22 | 63, 63, 0);    /* 32 KiB instructions */
    add(c, 4, 2, 0x04000143, 15u << 22 | 63, 1023, 0); /* 1 MiB */
    add(c, 4, 3, 0, 0, 0, 0);
}

/* NULL: the table has no such leaf. */
static const struct x86_cpuid_leaf *leaf_of(const struct x86_cpuid_leaf *l, unsigned count,
                                            uint32_t leaf, uint32_t subleaf)
{
    for (unsigned i = 0; i < count; i++) {
        if (l[i].leaf == leaf && (l[i].subleaf == ANY || l[i].subleaf == subleaf))
            return &l[i];
    }
    return NULL;
}

/* The same in the VM's own table, to change. */
static struct x86_cpuid_leaf *find(struct x86_cpuid *c, uint32_t leaf, uint32_t subleaf)
{
    const struct x86_cpuid_leaf *l = leaf_of(c->leaf, c->count, leaf, subleaf);

    return l != NULL ? &c->leaf[l - c->leaf] : NULL;
}

/* What tells of the TSC's frequency, where it is. */
static void put_time(struct x86_cpuid *c)
{
    struct x86_cpuid_leaf *crystal = find(c, 0x15, 0), *clock = find(c, 0x16, 0),
                          *pv = find(c, 0x40000010u, 0);
    uint32_t khz = (uint32_t)(c->tsc_hz / 1000), mhz = (khz + 500) / 1000;
    uint32_t parts = khz < 4290000 ? 1000 : 500;

    /*
     * TSC = crystal * EBX / EAX. Linux multiplies crystal kHz by EBX in 32 bits, so the ratio is
     * kept as fine as that allows: 10 MHz, thousandths (above 4.29 GHz: parts of five hundred).
     */
    if (crystal != NULL) {
        crystal->eax = parts;
        crystal->ebx = (uint32_t)(c->tsc_hz / (X86_CRYSTAL_HZ / parts));
        crystal->ecx = X86_CRYSTAL_HZ;
    }
    if (clock != NULL)
        clock->eax = clock->ebx = mhz;
    if (pv != NULL)
        pv->eax = khz;
}

static void add_time(struct x86_cpuid *c)
{
    add(c, 0x15, ANY, 0, 0, 0, 0);
    add(c, 0x16, ANY, 0, 0, 100, 0);
    add(c, 0x40000010, ANY, 0, X86_CRYSTAL_HZ / 1000, 0, 0);
    put_time(c);
}

static void add_vendor_leaves(struct x86_cpuid *c)
{
    static const char brand[49] = "xhyve virtual processor\0                        ";

    add(c, 0x40000000, ANY, 0x40000010, chars("bhyv"), chars("e bh"), chars("yve "));
    add(c, 0x40000100, ANY, 0x40000101, chars("KVMK"), chars("VMKV"), chars("M\0\0\0"));
    add(c, 0x40000101, ANY, 0, 0, 0, 0);
    add(c, 0x80000000u, ANY, c->max_ext, 0, 0, 0);
    for (unsigned i = 0; i < 3; i++)
        add(c, 0x80000002u + i, ANY, chars(brand + 16 * i), chars(brand + 16 * i + 4),
            chars(brand + 16 * i + 8), chars(brand + 16 * i + 12));
    add(c, 0x80000006u, ANY, 0, 0, 0x04008040, 0); /* L2: 1 MiB, 64-byte lines */
    add(c, 0x80000007u, ANY, 0, 0, 0, 1u << 8);    /* invariant TSC */
    add(c, 0x80000008u, ANY, c->lin_bits << 8 | c->phys_bits, 0, 0, 0);
}

static int model_level(const char *model)
{
    static const struct {
        const char *name;
        int level;
    } models[] = {{"host", 9}, {"v3", 3}, {"v2", 2}, {"portable", 2}};

    for (unsigned i = 0; i < sizeof(models) / sizeof(models[0]); i++) {
        if (strcmp(models[i].name, model) == 0)
            return models[i].level;
    }
    return -1;
}

/* Feature bits: each that the model has and the host can do, where CPUID shows it. */
static void add_features(struct x86_cpuid *c, int level)
{
    bool avx = level >= 3;

    for (unsigned i = 0; i < sizeof(feature_bits) / sizeof(feature_bits[0]); i++) {
        if (feature_bits[i].feature == X86_FEAT_AVX)
            avx = avx && host_has(&feature_bits[i]);
    }

    c->feature[X86_FEAT_BASE] = true;
    for (unsigned i = 0; i < sizeof(feature_bits) / sizeof(feature_bits[0]); i++) {
        const struct feature_bit *f = &feature_bits[i];
        struct x86_cpuid_leaf *l;
        bool vex = f->feature == X86_FEAT_AVX2 || f->feature == X86_FEAT_FMA ||
                   f->feature == X86_FEAT_F16C || f->feature == X86_FEAT_VAES ||
                   f->feature == X86_FEAT_VPCLMUL;

        if (f->level > level || (f->host && !host_has(f)) || (vex && !avx))
            continue;
        c->feature[f->feature] = true;
        l = find(c, f->leaf, f->subleaf);
        if (l != NULL)
            (&l->eax)[f->reg] |= 1u << f->bit;
    }
}

/* A bit of the table's: register 0 EAX ... 3 EDX. */
static bool has(const struct x86_cpuid *c, uint32_t leaf, unsigned reg, unsigned bit)
{
    const struct x86_cpuid_leaf *l = leaf_of(c->leaf, c->count, leaf, 0);

    return l != NULL && ((&l->eax)[reg] >> bit & 1) != 0;
}

static void set_masks(struct x86_cpuid *c)
{
    c->mxcsr_mask = 0xffff;
    c->xcr0_mask = c->feature[X86_FEAT_AVX] ? 7 : 3;
    if (c->feature[X86_FEAT_PKU])
        c->xcr0_mask |= X86_XCR0_PKRU;
    if (has(c, 7, 1, 16) && c->feature[X86_FEAT_AVX]) /* AVX-512F */
        c->xcr0_mask |= X86_XCR0_AVX512;
    c->efer_mask = X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
    c->cr4_mask = X86_CR4_VME | X86_CR4_PVI | X86_CR4_TSD | X86_CR4_DE | X86_CR4_PSE | X86_CR4_PAE |
                  X86_CR4_MCE | X86_CR4_PGE | X86_CR4_PCE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT |
                  (has(c, 1, 2, 17) ? X86_CR4_PCIDE : 0) | (has(c, 7, 1, 7) ? X86_CR4_SMEP : 0) |
                  (has(c, 7, 2, 2) ? X86_CR4_UMIP : 0);
    if (c->feature[X86_FEAT_FSGSBASE])
        c->cr4_mask |= X86_CR4_FSGSBASE;
    if (c->feature[X86_FEAT_SMAP])
        c->cr4_mask |= X86_CR4_SMAP;
    if (c->feature[X86_FEAT_XSAVE])
        c->cr4_mask |= X86_CR4_OSXSAVE;
    if (c->feature[X86_FEAT_PKU])
        c->cr4_mask |= X86_CR4_PKE | X86_CR4_PKS;
    if (c->lin_bits == 57)
        c->cr4_mask |= X86_CR4_LA57;
}

int x86_cpuid_create(struct x86_cpuid *c, const char *model, const struct x86_cpu_options *options,
                     uint64_t tsc_hz, struct error *err)
{
    bool la57 = options != NULL && options->la57;
    int level = model_level(model);

    if (level < 0)
        return error_set(err, -EINVAL,
                         "CPU model \"%s\" is not known; use host, v2, v3 or portable", model);
    memset(c, 0, sizeof(*c));
    c->tsc_hz = tsc_hz;
    c->crystal_hz = X86_CRYSTAL_HZ;
    c->phys_bits = 40;
    c->lin_bits = la57 ? 57 : 48;
    c->max_basic = 0x16;
    c->max_ext = 0x80000008u;
    add(c, 0, ANY, c->max_basic, chars("Genu"), chars("ntel"), chars("ineI"));
    /* PCID, x2APIC, TSC deadline, hypervisor; VME DE PSE TSC MSR PAE MCE CX8 APIC SEP ... SS */
    add(c, 1, ANY, SIGNATURE, 8u << 8, 1u << 17 | 1u << 21 | 1u << 24 | 1u << 31, 0x080b7bfe);
    add(c, 2, ANY, 0x00feff01, 0, 0, 0);
    add_caches(c);
    add(c, 6, ANY, 1u << 2, 0, 0, 0); /* the APIC timer never stops */
    /* TSC_ADJUST, SMEP, ERMS, no FCS and FDS; UMIP, LA57, PKS; fast short REP MOV, IBRS,
     * ARCH_CAPABILITIES, SSBD */
    add(c, 7, 0, 2, 1u << 1 | 1u << 7 | 1u << 9 | 1u << 13,
        1u << 2 | (la57 ? 1u << 16 : 0) | (level == 9 ? 1u << 31 : 0),
        1u << 4 | 1u << 26 | 1u << 29 | 1u << 31);
    add(c, 7, 2, 0, 0, 0, 1u << 4); /* BHI_CTRL: Linux then leaves its history clearing out */
    add(c, 0xb, 0, 0, 0, 0, 0);
    add(c, 0xb, 1, 0, 0, 0, 0);
    add(c, 0xd, 0, 0, 0, 0, 0);
    add(c, 0xd, 1, 0, 0, 0, 0);
    for (unsigned i = 2; i < X86_XSAVE_COMPONENTS; i++) {
        c->xsave_at[i] = components[i].home;
        if (components[i].size != 0)
            add(c, 0xd, i, components[i].size, components[i].home, 0, 0);
    }
    /* LAHF in long mode, PREFETCHW; SYSCALL, NX, 1 GiB pages, long mode */
    add(c, 0x80000001u, ANY, 0, 0, 1u << 0 | 1u << 8, 1u << 11 | 1u << 20 | 1u << 26 | 1u << 29);
    add_time(c);
    add_vendor_leaves(c);
    add_features(c, level);
    if (c->feature[X86_FEAT_XSAVEC])
        find(c, 0xd, 1)->eax |= 1u << 2; /* XGETBV with ECX = 1 */
    set_masks(c);
    return 0;
}

/* ---- on the host's hardware ---- */

#define KVM_PV_LEAF 0x40000001u
/* Of KVM's own features: its clock, both ways to find it, its steadiness; no delay at port 0x80. */
#define KVM_PV_FEATURES (1u << 0 | 1u << 1 | 1u << 3 | 1u << 24)

/* Words of feature bits: what the hardware has to have of them, and what the board gives. */
static const struct {
    uint32_t leaf, subleaf;
    uint8_t reg;
    uint32_t ours, never;
} feature_words[] = {
    /* x2APIC, TSC deadline, hypervisor; MONITOR, DS-CPL, VMX, SMX, EST, TM2, CNXT-ID, xTPR, PDCM,
     * DCA, and OSXSAVE, which follows CR4 */
    {1, 0, 2, 1u << 21 | 1u << 24 | 1u << 31,
     1u << 2 | 1u << 3 | 1u << 4 | 1u << 5 | 1u << 6 | 1u << 7 | 1u << 8 | 1u << 10 | 1u << 14 |
         1u << 15 | 1u << 18 | 1u << 27},
    /* PSN, DS, ACPI, HTT, TM, PBE */
    {1, 0, 3, 0, 1u << 18 | 1u << 21 | 1u << 22 | 1u << 28 | 1u << 29 | 1u << 31},
    /* SGX, HLE, RTM, RDT, MPX, all of AVX-512, PT */
    {7, 0, 1, 0,
     1u << 2 | 1u << 4 | 1u << 11 | 1u << 12 | 1u << 14 | 1u << 15 | 1u << 16 | 1u << 17 |
         1u << 21 | 1u << 25 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 30 | 1u << 31},
    /* AVX-512 VBMI, OSPKE, WAITPKG, VBMI2, shadow stacks, VNNI, BITALG, TME, VPOPCNTDQ, key locker,
     * bus lock, ENQCMD, SGX_LC */
    {7, 0, 2, 0,
     1u << 1 | 1u << 4 | 1u << 5 | 1u << 6 | 1u << 7 | 1u << 11 | 1u << 12 | 1u << 13 | 1u << 14 |
         1u << 23 | 1u << 24 | 1u << 29 | 1u << 30},
    /* 4VNNIW, 4FMAPS, UINTR, VP2INTERSECT, RTM, hybrid, TSXLDTRK, PCONFIG, LBR, CET-IBT, AMX, FP16
     */
    {7, 0, 3, 0,
     1u << 2 | 1u << 3 | 1u << 5 | 1u << 8 | 1u << 11 | 1u << 13 | 1u << 15 | 1u << 16 | 1u << 18 |
         1u << 19 | 1u << 20 | 1u << 22 | 1u << 23 | 1u << 24 | 1u << 25},
    {7, 1, 0, 0, 0},
    {7, 2, 3, 0, 0},
    {0xd, 1, 0, 0, 1u << 4}, /* XFD */
    /* SVM, SSE4A, OSVW, IBS, XOP, SKINIT, WDT, LWP, FMA4, NodeId, TBM, TOPOEXT, PERFCTR, BPEXT,
     * MWAITX
     */
    {0x80000001u, 0, 2, 0,
     1u << 2 | 1u << 6 | 1u << 9 | 1u << 10 | 1u << 11 | 1u << 12 | 1u << 13 | 1u << 15 | 1u << 16 |
         1u << 19 | 1u << 21 | 1u << 22 | 1u << 23 | 1u << 24 | 1u << 26 | 1u << 28 | 1u << 29},
    {0x80000001u, 0, 3, 0, 1u << 30 | 1u << 31}, /* 3DNow! */
};

/* feature[] and the masks from the leaves. */
static void read_features(struct x86_cpuid *c)
{
    const struct x86_cpuid_leaf *l;

    for (unsigned i = 0; i < sizeof(feature_bits) / sizeof(feature_bits[0]); i++) {
        const struct feature_bit *f = &feature_bits[i];

        l = leaf_of(c->leaf, c->count, f->leaf, f->subleaf);
        c->feature[f->feature] = l != NULL && ((&l->eax)[f->reg] >> f->bit & 1);
    }
    c->feature[X86_FEAT_BASE] = true;
    l = leaf_of(c->leaf, c->count, 0x80000008u, 0);
    if (l != NULL && (l->eax & 0xff) != 0)
        c->phys_bits = l->eax & 0xff;
    l = leaf_of(c->leaf, c->count, 7, 0);
    c->lin_bits = l != NULL && (l->ecx >> 16 & 1) ? 57 : 48;
    set_masks(c);
}

/* Where the host's own XSAVE puts the components; what it puts elsewhere than can be is left out.
 */
static void read_places(struct x86_cpuid *c, const struct x86_cpuid_leaf *leaf, unsigned count)
{
    for (unsigned i = 2; i < X86_XSAVE_COMPONENTS; i++) {
        const struct x86_cpuid_leaf *l = leaf_of(leaf, count, 0xd, i);
        struct x86_cpuid_leaf *own = find(c, 0xd, i);

        if (l == NULL || l->eax != components[i].size || l->eax == 0 || l->ebx < X86_XSAVE_YMM ||
            l->ebx + l->eax > X86_XSAVE_SIZE)
            continue;
        c->xsave_at[i] = (uint16_t)l->ebx;
        if (own != NULL)
            own->ebx = l->ebx;
    }
}

void x86_cpuid_limit(struct x86_cpuid *c, const struct x86_cpuid_leaf *leaf, unsigned count)
{
    for (unsigned i = 0; i < sizeof(feature_words) / sizeof(feature_words[0]); i++) {
        struct x86_cpuid_leaf *l = find(c, feature_words[i].leaf, feature_words[i].subleaf);
        const struct x86_cpuid_leaf *k =
            leaf_of(leaf, count, feature_words[i].leaf, feature_words[i].subleaf);
        unsigned reg = feature_words[i].reg;

        if (l != NULL)
            (&l->eax)[reg] &= (k != NULL ? (&k->eax)[reg] : 0) | feature_words[i].ours;
    }
    read_places(c, leaf, count);
    read_features(c);
}

/* Leaves that are not the kernel's: those with a place for vCPUs, performance counters, tracing. */
static bool adopted(uint32_t leaf, uint32_t subleaf)
{
    switch (leaf) {
    case 0xa: /* counters */
    case 0xb: /* topology */
    case 0x1f:
    case 0x15: /* frequencies */
    case 0x16:
    case 0x80000000u:
    case 0x8000001du:
    case 0x8000001eu:
        return false;
    case 0xd: /* of the components, our own leaves with the host's places */
        return subleaf <= 1;
    default:
        return leaf <= 0x16 || (leaf >= 0x80000001u && leaf <= 0x80000021u);
    }
}

void x86_cpuid_adopt(struct x86_cpuid *c, const struct x86_cpuid_leaf *leaf, unsigned count)
{
    const struct x86_cpuid_leaf *zero = leaf_of(leaf, count, 0, 0);
    const struct x86_cpuid_leaf *ext = leaf_of(leaf, count, 0x80000000u, 0);
    const struct x86_cpuid_leaf *pv = leaf_of(leaf, count, KVM_PV_LEAF, 0);
    const struct x86_cpuid own = *c;

    c->count = 0;
    c->max_basic = zero != NULL && zero->eax < own.max_basic ? zero->eax : own.max_basic;
    c->max_ext = ext != NULL ? ext->eax : own.max_ext;
    /* room for the one that is added below */
    for (unsigned i = 0; i < count && c->count < X86_CPUID_MAX - 1; i++) {
        if (adopted(leaf[i].leaf, leaf[i].subleaf))
            c->leaf[c->count++] = leaf[i];
    }
    for (unsigned i = 0; i < own.count && c->count < X86_CPUID_MAX - 1; i++) {
        uint32_t n = own.leaf[i].leaf;

        if ((n >= 0x40000000u && n < 0x80000000u) || n == 0xb || n == 0x15 || n == 0x16 ||
            (n == 0xd && own.leaf[i].subleaf >= 2))
            c->leaf[c->count++] = own.leaf[i];
    }
    add(c, 0x80000000u, ANY, c->max_ext, 0, 0, 0);
    if (zero != NULL) { /* the vendor there too, as AMD has it */
        struct x86_cpuid_leaf *e = find(c, 0x80000000u, 0);

        find(c, 0, 0)->eax = c->max_basic;
        e->ebx = zero->ebx;
        e->ecx = zero->ecx;
        e->edx = zero->edx;
    }
    for (unsigned i = 0; i < sizeof(feature_words) / sizeof(feature_words[0]); i++) {
        struct x86_cpuid_leaf *l = find(c, feature_words[i].leaf, feature_words[i].subleaf);

        if (l != NULL) {
            uint32_t *word = &(&l->eax)[feature_words[i].reg];

            *word = (*word | feature_words[i].ours) & ~feature_words[i].never;
        }
    }
    if (find(c, 1, 0) != NULL)
        find(c, 1, 0)->ebx &= 0xff00; /* the size of a line: the rest is the vCPU's */
    if (find(c, 0xd, 1) != NULL)      /* no supervisor states */
        find(c, 0xd, 1)->ecx = find(c, 0xd, 1)->edx = 0;
    if (find(c, 0x40000101u, 0) != NULL && pv != NULL)
        find(c, 0x40000101u, 0)->eax = pv->eax & KVM_PV_FEATURES;
    read_places(c, leaf, count);
    read_features(c);
}

bool x86_cpuid_insist(struct x86_cpuid *c, const struct x86_cpuid_leaf *leaf, unsigned count)
{
    bool changed = false;

    for (unsigned i = 0; i < sizeof(feature_words) / sizeof(feature_words[0]); i++) {
        struct x86_cpuid_leaf *l = find(c, feature_words[i].leaf, feature_words[i].subleaf);
        const struct x86_cpuid_leaf *k =
            leaf_of(leaf, count, feature_words[i].leaf, feature_words[i].subleaf);
        unsigned reg = feature_words[i].reg;
        uint32_t more;

        if (l == NULL || k == NULL)
            continue;
        more = (&k->eax)[reg] & ~(&l->eax)[reg];
        if (reg == 2) /* OSXSAVE and OSPKE follow CR4 */
            more &= ~(l->leaf == 1 ? 1u << 27 : l->leaf == 7 ? 1u << 4 : 0);
        (&l->eax)[reg] |= more;
        changed |= more != 0;
    }
    if (changed)
        read_features(c);
    c->insisted |= changed;
    return changed;
}

void x86_cpuid_hide(struct x86_cpuid *c)
{
    struct x86_cpuid_leaf *pv = find(c, 0x40000101u, 0), *seven = find(c, 7, 0);

    for (unsigned i = 0; i < sizeof(feature_words) / sizeof(feature_words[0]); i++) {
        struct x86_cpuid_leaf *l = find(c, feature_words[i].leaf, feature_words[i].subleaf);

        if (l != NULL)
            (&l->eax)[feature_words[i].reg] &= ~feature_words[i].never;
    }
    if (seven != NULL)
        seven->ebx |= NO_FCS_FDS;
    if (pv != NULL)
        pv->eax = 0;
    read_features(c);
}

/*
 * The TSC is the crystal times EBX over EAX. Linux multiplies the crystal's kHz by EBX in 32 bits:
 * of the fractions that allow that, the nearest.
 */
void x86_cpuid_crystal(struct x86_cpuid *c, uint32_t hz)
{
    struct x86_cpuid_leaf *l = find(c, 0x15, 0), *pv = find(c, 0x40000010u, 0);
    uint64_t most = UINT32_MAX / (hz / 1000), best = UINT64_MAX;

    c->crystal_hz = hz;
    if (pv != NULL)
        pv->ebx = hz / 1000;
    for (uint64_t q = 1; l != NULL && q <= most; q++) {
        uint64_t p = (c->tsc_hz * q + hz / 2) / hz;
        uint64_t off = p * hz > c->tsc_hz * q ? p * hz - c->tsc_hz * q : c->tsc_hz * q - p * hz;

        if (p == 0 || p > most || off / q >= best)
            continue;
        best = off / q;
        l->eax = (uint32_t)q;
        l->ebx = (uint32_t)p;
        l->ecx = hz;
    }
}

void x86_cpuid_tsc(struct x86_cpuid *c, uint64_t hz)
{
    c->tsc_hz = hz;
    put_time(c);
    if (c->crystal_hz != X86_CRYSTAL_HZ)
        x86_cpuid_crystal(c, c->crystal_hz);
}

/* Of the standard format, where each component has its place; and of the compact one. */
static uint32_t xsave_size(const struct x86_cpuid *c, uint64_t mask, bool compact)
{
    uint32_t size = X86_XSAVE_YMM;

    if (compact)
        return x86_xsave_compact_at(mask, X86_XSAVE_COMPONENTS);
    for (unsigned i = 2; i < X86_XSAVE_COMPONENTS; i++) {
        uint32_t end = mask >> i & 1 ? c->xsave_at[i] + (uint32_t)components[i].size : 0;

        size = end > size ? end : size;
    }
    return size;
}

void x86_cpuid_query(const struct x86_cpuid *c, uint32_t leaf, uint32_t subleaf, unsigned cpu,
                     unsigned cpus, uint64_t cr4, uint64_t xcr0, uint64_t xss, uint32_t out[4])
{
    const struct x86_cpuid_leaf *l;
    unsigned shift = 0;

    memset(out, 0, 4 * sizeof(*out));
    /* beyond the last leaf Intel answers as the highest basic one */
    if ((leaf > c->max_basic && leaf < 0x40000000) || leaf > c->max_ext ||
        (leaf > 0x400001ff && leaf < 0x80000000u))
        leaf = c->max_basic;
    l = leaf_of(c->leaf, c->count, leaf, subleaf);
    if (l == NULL) {
        if (leaf == 0xb)
            out[2] = subleaf & 0xff;
        out[3] = leaf == 0xb ? cpu : 0;
        return;
    }
    out[0] = l->eax;
    out[1] = l->ebx;
    out[2] = l->ecx;
    out[3] = l->edx;
    while (cpus > 1u << shift)
        shift++;
    if (leaf == 1) {
        out[1] |= cpu << 24 | (cpus > 1 ? cpus << 16 : 0);
        out[2] |= cr4 & X86_CR4_OSXSAVE ? 1u << 27 : 0;
        out[3] |= cpus > 1 ? 1u << 28 : 0;
    } else if (leaf == 4 && out[0] != 0 && cpus > 1) {
        out[0] |= ((1u << shift) - 1) << 26;
    } else if (leaf == 0xb) {
        out[0] = subleaf == 0 ? 0 : shift;
        out[1] = subleaf == 0 ? 1 : cpus;
        out[2] = subleaf | (subleaf + 1) << 8;
        out[3] = cpu;
    } else if (leaf == 0xd && !c->feature[X86_FEAT_XSAVE]) {
        memset(out, 0, 4 * sizeof(*out));
    } else if (leaf == 0xd && subleaf == 0) {
        out[0] = (uint32_t)c->xcr0_mask;
        out[1] = xsave_size(c, xcr0, false);
        out[2] = xsave_size(c, c->xcr0_mask, false);
    } else if (leaf == 0xd && subleaf == 1) {
        out[1] = xsave_size(c, xcr0 | xss, true);
    } else if (leaf == 7 && subleaf == 0) {
        out[2] |= cr4 & X86_CR4_PKE ? 1u << 4 : 0;
    } else if (leaf == 0xd && subleaf >= 2 && subleaf < 64 && !(c->xcr0_mask >> subleaf & 1)) {
        memset(out, 0, 4 * sizeof(*out));
    }
}
