/*
 * Every feature bit that the guest's CPUID table offers, and what shows that it works: an
 * instruction that the oracle compares, a check of another test, or one of oracle_msr.c. A bit
 * without an entry fails, and so does an entry that nothing stands behind.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "oracle.h"
#include "x86/cpuid.h"

enum { EAX, EBX, ECX, EDX };

struct offered {
    uint32_t leaf;
    uint8_t sub, reg, bit;
    const char *name;
    /* one of: instructions of this feature, instructions that `is` knows, */
    unsigned feature;
    bool (*is)(const struct x86_insn *in);
    /* a text in the source of a test that meson knows, a check of oracle_msr.c */
    const char *test, *file, *text, *check;
};

static bool is_rdtsc(const struct x86_insn *in)
{
    return in->op == X86_RDTSC;
}

static bool is_cmpxchg8b(const struct x86_insn *in)
{
    return in->op == X86_CMPXCHG8B;
}

static bool is_clflush(const struct x86_insn *in)
{
    return in->op == X86_CLFLUSH && in->feature == X86_FEAT_BASE;
}

static bool is_rep_bytes(const struct x86_insn *in)
{
    return in->rep != 0 && (in->op == X86_MOVS || in->op == X86_STOS) && in->opnd[0].size == 1;
}

static bool is_rep_movsb(const struct x86_insn *in)
{
    return is_rep_bytes(in) && in->op == X86_MOVS;
}

static bool is_xgetbv(const struct x86_insn *in)
{
    return in->op == X86_XGETBV;
}

static bool is_lahf_64(const struct x86_insn *in)
{
    return in->mode == X86_MODE_64 && (in->op == X86_LAHF || in->op == X86_SAHF);
}

static bool is_prefetchw(const struct x86_insn *in)
{
    return in->op == X86_PREFETCH && in->opcode == 0x0d;
}

static bool is_long(const struct x86_insn *in)
{
    return in->mode == X86_MODE_64;
}

#define FEATURE(leaf, sub, reg, bit, name)                                                         \
    {                                                                                              \
        leaf, sub, reg, bit, #name, X86_FEAT_##name, NULL, NULL, NULL, NULL, NULL                  \
    }
#define INSN(leaf, sub, reg, bit, name, is)                                                        \
    {                                                                                              \
        leaf, sub, reg, bit, name, 0, is, NULL, NULL, NULL, NULL                                   \
    }
#define TEST(leaf, sub, reg, bit, name, test, file, text)                                          \
    {                                                                                              \
        leaf, sub, reg, bit, name, 0, NULL, test, file, text, NULL                                 \
    }
#define SYSTEM(leaf, sub, reg, bit, name, group, text)                                             \
    TEST(leaf, sub, reg, bit, name, "system", "cpu/system_" group ".c", text)
#define LAPIC(leaf, sub, reg, bit, name, text)                                                     \
    TEST(leaf, sub, reg, bit, name, "test_lapic", "unit/test_lapic.c", text)
#define CHECK(leaf, sub, reg, bit, name, check)                                                    \
    {                                                                                              \
        leaf, sub, reg, bit, name, 0, NULL, NULL, NULL, NULL, check                                \
    }

static const struct offered offered[] = {
    FEATURE(1, 0, EDX, 0, X87),
    SYSTEM(1, 0, EDX, 1, "VME", "vme", "VME: STI sets VIF"),
    SYSTEM(1, 0, EDX, 2, "DE", "debug", "CR4.DE: DR4 is #UD"),
    SYSTEM(1, 0, EDX, 3, "PSE", "paging", "4 MiB page: address"),
    INSN(1, 0, EDX, 4, "TSC", is_rdtsc),
    SYSTEM(1, 0, EDX, 5, "MSR", "registers", "RDMSR clears the upper halves"),
    SYSTEM(1, 0, EDX, 6, "PAE", "paging", "PAE: pointers are read when CR3 is written"),
    CHECK(1, 0, EDX, 7, "MCE", "machine check"),
    INSN(1, 0, EDX, 8, "CX8", is_cmpxchg8b),
    LAPIC(1, 0, EDX, 9, "APIC", "test_reset_state"),
    SYSTEM(1, 0, EDX, 11, "SEP", "transfers", "SYSENTER: CS"),
    SYSTEM(1, 0, EDX, 12, "MTRR", "registers", "MTRR default type: reserved bits"),
    SYSTEM(1, 0, EDX, 13, "PGE", "paging", "CR4.PGE drops global pages"),
    CHECK(1, 0, EDX, 14, "MCA", "machine check"),
    FEATURE(1, 0, EDX, 15, CMOV),
    SYSTEM(1, 0, EDX, 16, "PAT", "registers", "PAT: type 2"),
    SYSTEM(1, 0, EDX, 17, "PSE36", "paging", "4 MiB page, bit 21 is reserved"),
    INSN(1, 0, EDX, 19, "CLFSH", is_clflush),
    FEATURE(1, 0, EDX, 23, MMX),
    FEATURE(1, 0, EDX, 24, FXSR),
    FEATURE(1, 0, EDX, 25, SSE),
    FEATURE(1, 0, EDX, 26, SSE2),
    SYSTEM(1, 0, EDX, 27, "SS", "registers", "PAT: good types"), /* memory types change nothing */
    CHECK(1, 0, EDX, 28, "HTT", "processors"),
    FEATURE(1, 0, ECX, 0, SSE3),
    FEATURE(1, 0, ECX, 1, PCLMUL),
    FEATURE(1, 0, ECX, 9, SSSE3),
    FEATURE(1, 0, ECX, 12, FMA),
    FEATURE(1, 0, ECX, 13, CX16),
    SYSTEM(1, 0, ECX, 17, "PCID", "paging", "INVPCID 1: one PCID"),
    FEATURE(1, 0, ECX, 19, SSE41),
    FEATURE(1, 0, ECX, 20, SSE42),
    LAPIC(1, 0, ECX, 21, "X2APIC", "test_x2apic_registers"),
    FEATURE(1, 0, ECX, 22, MOVBE),
    FEATURE(1, 0, ECX, 23, POPCNT),
    LAPIC(1, 0, ECX, 24, "TSC_DEADLINE", "test_tsc_deadline"),
    FEATURE(1, 0, ECX, 25, AES),
    FEATURE(1, 0, ECX, 26, XSAVE),
    SYSTEM(1, 0, ECX, 27, "OSXSAVE", "registers", "CPUID 1: OSXSAVE follows CR4"),
    FEATURE(1, 0, ECX, 28, AVX),
    FEATURE(1, 0, ECX, 29, F16C),
    FEATURE(1, 0, ECX, 30, RDRAND),
    CHECK(1, 0, ECX, 31, "HYPERVISOR", "hypervisor leaves"),
    LAPIC(6, 0, EAX, 2, "ARAT", "test_periodic"),
    FEATURE(7, 0, EBX, 0, FSGSBASE),
    SYSTEM(7, 0, EBX, 1, "TSC_ADJUST", "registers", "TSC_ADJUST moves the TSC by as much"),
    FEATURE(7, 0, EBX, 3, BMI1),
    FEATURE(7, 0, EBX, 5, AVX2),
    SYSTEM(7, 0, EBX, 7, "SMEP", "paging", "SMEP: supervisor runs a user's page"),
    FEATURE(7, 0, EBX, 8, BMI2),
    INSN(7, 0, EBX, 9, "ERMS", is_rep_bytes),
    SYSTEM(7, 0, EBX, 10, "INVPCID", "paging", "INVPCID 0: one address"),
    CHECK(7, 0, EBX, 13, "no FCS and FDS", "x87 selectors"),
    FEATURE(7, 0, EBX, 18, RDSEED),
    FEATURE(7, 0, EBX, 19, ADX),
    SYSTEM(7, 0, EBX, 20, "SMAP", "paging", "SMAP: read of a user's page"),
    FEATURE(7, 0, EBX, 23, CLFLUSHOPT),
    FEATURE(7, 0, EBX, 24, CLWB),
    FEATURE(7, 0, EBX, 29, SHA),
    SYSTEM(7, 0, ECX, 2, "UMIP", "registers", "UMIP: SMSW at CPL 3"),
    SYSTEM(7, 0, ECX, 3, "PKU", "keys", "PKRU.AD stops a user's read"),
    SYSTEM(7, 0, ECX, 4, "OSPKE", "keys", "CPUID 7: OSPKE follows CR4"),
    FEATURE(7, 0, ECX, 8, GFNI),
    FEATURE(7, 0, ECX, 9, VAES),
    FEATURE(7, 0, ECX, 10, VPCLMUL),
    FEATURE(7, 0, ECX, 22, RDPID),
    SYSTEM(7, 0, ECX, 31, "PKS", "keys", "PKRS.AD stops a read of a supervisor page"),
    INSN(7, 0, EDX, 4, "FSRM", is_rep_movsb),
    CHECK(7, 0, EDX, 26, "IBRS", "speculation control"),
    CHECK(7, 0, EDX, 29, "ARCH_CAPABILITIES", "architectural capabilities"),
    CHECK(7, 0, EDX, 31, "SSBD", "speculation control"),
    CHECK(7, 2, EDX, 4, "BHI_CTRL", "speculation control"),
    SYSTEM(0xd, 0, EAX, 0, "XCR0.X87", "registers", "XSETBV: without x87"),
    SYSTEM(0xd, 0, EAX, 1, "XCR0.SSE", "registers", "XSETBV: x87 and SSE"),
    SYSTEM(0xd, 0, EAX, 2, "XCR0.AVX", "registers", "XSETBV: AVX without SSE"),
    SYSTEM(0xd, 0, EAX, 9, "XCR0.PKRU", "keys", "XRSTOR of PKRU counts at once"),
    FEATURE(0xd, 1, EAX, 0, XSAVEOPT),
    FEATURE(0xd, 1, EAX, 1, XSAVEC),
    INSN(0xd, 1, EAX, 2, "XGETBV1", is_xgetbv),
    CHECK(0xd, 1, EAX, 3, "XSAVES", "XSAVES and XRSTORS"),
    INSN(0x80000001u, 0, ECX, 0, "LAHF", is_lahf_64),
    FEATURE(0x80000001u, 0, ECX, 5, LZCNT),
    INSN(0x80000001u, 0, ECX, 8, "PREFETCHW", is_prefetchw),
    SYSTEM(0x80000001u, 0, EDX, 11, "SYSCALL", "transfers", "SYSCALL: RCX"),
    SYSTEM(0x80000001u, 0, EDX, 20, "NX", "paging", "NX: user's fetch"),
    SYSTEM(0x80000001u, 0, EDX, 26, "PDPE1GB", "paging", "1 GiB page: address"),
    FEATURE(0x80000001u, 0, EDX, 27, RDTSCP),
    INSN(0x80000001u, 0, EDX, 29, "LM", is_long),
    CHECK(0x80000007u, 0, EDX, 8, "INVARIANT_TSC", "time stamp counter"),
};
_Static_assert(countof(offered) <= ORACLE_OFFERED_MAX, "counters for every entry");

/* Registers of these leaves are bits, each a promise. */
static const struct {
    uint32_t leaf;
    uint8_t sub, reg;
} words[] = {
    {1, 0, ECX},           {1, 0, EDX},           {6, 0, EAX},           {7, 0, EBX},
    {7, 0, ECX},           {7, 0, EDX},           {7, 1, EAX},           {7, 2, EDX},
    {0xd, 0, EAX},         {0xd, 1, EAX},         {0x40000101, 0, EAX},  {0x80000001u, 0, ECX},
    {0x80000001u, 0, EDX}, {0x80000007u, 0, EDX}, {0x80000008u, 0, EBX},
};

/* What else is not zero in a leaf: numbers, names, sizes. A leaf that is neither here is new. */
static const struct {
    uint32_t leaf;
    uint8_t registers; /* bit n: register n */
} numbers[] = {
    {0, 15},          {1, 3},           {2, 1},           {4, 15},          {7, 1},
    {0xb, 15},        {0xd, 6},         {0x15, 7},        {0x16, 7},        {0x40000000, 15},
    {0x40000010, 3},  {0x40000100, 15}, {0x80000000, 1},  {0x80000002, 15}, {0x80000003, 15},
    {0x80000004, 15}, {0x80000006, 4},  {0x80000008u, 1},
};

/* ---- counting ---- */

void oracle_offered_count(uint64_t count[ORACLE_OFFERED_MAX], const struct x86_insn *in)
{
    unsigned i;

    for (i = 0; i < countof(offered); i++)
        if (offered[i].is != NULL ? offered[i].is(in)
                                  : offered[i].feature != 0 && in->feature == offered[i].feature)
            count[i]++;
}

/* ---- checking ---- */

struct context {
    const uint64_t *count;
    const bool *feature;
    const char *tests, *source;
    unsigned failed, entries;
    const struct offered *least; /* with the fewest instructions */
};

static void complain(struct context *x, const struct offered *f, const char *what)
{
    printf("FAIL CPUID %#x.%u register %u bit %u (%s): %s\n", f->leaf, f->sub, f->reg, f->bit,
           f->name, what);
    x->failed++;
}

/* Does the file hold the text? */
static bool holds(const char *path, const char *text)
{
    FILE *f = fopen(path, "r");
    char *buf = NULL;
    bool found = false;
    long size;

    if (f == NULL)
        return false;
    if (fseek(f, 0, SEEK_END) == 0 && (size = ftell(f)) > 0 &&
        (buf = calloc(1, (size_t)size + 1)) != NULL) {
        rewind(f);
        found = fread(buf, 1, (size_t)size, f) == (size_t)size && strstr(buf, text) != NULL;
    }
    free(buf);
    fclose(f);
    return found;
}

static void check_test(struct context *x, const struct offered *f)
{
    char name[128], path[512], text[128];

    snprintf(name, sizeof(name), "\"name\": \"%s\"", f->test);
    snprintf(path, sizeof(path), "%s/%s", x->source, f->file);
    snprintf(text, sizeof(text), strncmp(f->text, "test_", 5) == 0 ? "%s" : "\"%s\"", f->text);
    if (!holds(x->tests, name))
        complain(x, f, "meson knows no such test");
    if (!holds(path, text))
        complain(x, f, "the test has no such check");
}

static void check_entry(struct context *x, const struct offered *f)
{
    x->entries++;
    if (f->test != NULL) {
        check_test(x, f);
    } else if (f->check != NULL) {
        if (!oracle_msr_check(f->check))
            complain(x, f, f->check);
    } else if (f->feature != 0 && !x->feature[f->feature]) {
        printf("  %s: the host does not have it, so it is not compared\n", f->name);
    } else if (x->count[f - offered] == 0) {
        complain(x, f, "no instruction of it was compared");
    } else if (x->least == NULL || x->count[f - offered] < x->count[x->least - offered]) {
        x->least = f;
    }
}

static const struct offered *find(uint32_t leaf, unsigned sub, unsigned reg, unsigned bit)
{
    unsigned i;

    for (i = 0; i < countof(offered); i++)
        if (offered[i].leaf == leaf && offered[i].sub == sub && offered[i].reg == reg &&
            offered[i].bit == bit)
            return &offered[i];
    return NULL;
}

static bool is_word(uint32_t leaf, unsigned sub, unsigned reg)
{
    unsigned i;

    for (i = 0; i < countof(words); i++)
        if (words[i].leaf == leaf && words[i].sub == sub && words[i].reg == reg)
            return true;
    return false;
}

static bool is_number(uint32_t leaf, unsigned sub, unsigned reg)
{
    unsigned i;

    if (leaf == 0xd && sub >= 2)
        return true; /* size, offset, and where it lies */
    for (i = 0; i < countof(numbers); i++)
        if (numbers[i].leaf == leaf && (numbers[i].registers >> reg & 1) != 0)
            return true;
    return false;
}

static void check_register(struct context *x, uint32_t leaf, unsigned sub, unsigned reg,
                           uint32_t value)
{
    unsigned bit;

    if (value == 0 || is_number(leaf, sub, reg))
        return;
    if (!is_word(leaf, sub, reg)) {
        printf("FAIL CPUID %#x.%u register %u: is it a number or are it features?\n", leaf, sub,
               reg);
        x->failed++;
        return;
    }
    for (bit = 0; bit < 32; bit++) {
        const struct offered *f = find(leaf, sub, reg, bit);

        if ((value >> bit & 1) == 0)
            continue;
        if (f != NULL) {
            check_entry(x, f);
            continue;
        }
        printf("FAIL CPUID %#x.%u register %u bit %u is offered, and nothing covers it\n", leaf,
               sub, reg, bit);
        x->failed++;
    }
}

unsigned oracle_offered_check(const uint64_t count[ORACLE_OFFERED_MAX],
                              const bool feature[X86_FEAT_HIDDEN + 1], const char *tests,
                              const char *source)
{
    struct context x = {.count = count, .feature = feature, .tests = tests, .source = source};
    struct x86_cpuid id;
    struct error err = {0};
    unsigned i, reg;

    if (x86_cpuid_create(&id, "host", NULL, NSEC_PER_SEC, &err) < 0) {
        printf("FAIL %s\n", err.text);
        return 1;
    }
    for (i = 0; i < id.count; i++) {
        uint32_t r[4], leaf = id.leaf[i].leaf;
        uint32_t sub = id.leaf[i].subleaf == UINT32_MAX ? 0 : id.leaf[i].subleaf;

        x86_cpuid_query(&id, leaf, sub, 0, 2, X86_CR4_OSXSAVE | X86_CR4_PKE, id.xcr0_mask, 0, r);
        for (reg = 0; reg < 4; reg++)
            check_register(&x, leaf, sub, reg, r[reg]);
    }
    printf("%u offered features, %u not covered", x.entries, x.failed);
    if (x.least != NULL)
        printf("; fewest instructions: %llu of %s", (unsigned long long)count[x.least - offered],
               x.least->name);
    printf("\n");
    return x.failed;
}
