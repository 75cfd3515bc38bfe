/*
 * What software may rely on of cached translations: each change of a table, followed by what the
 * manual says makes it visible. That stale translations are used is never expected.
 */
#include "bare.h"

#define TLB "SDM Vol.3, caching translation information"
#define PCID "SDM Vol.3, process-context identifiers"
#define INVPCID "SDM Vol.2, INVPCID"
#define INVLPG "SDM Vol.2, INVLPG"

static void invlpg(word va)
{
    if (!skipping())
        __asm__ volatile("invlpg (%0)" : : "r"(va) : "memory");
}

static void invpcid(word type, uint64_t pcid, uint64_t va)
{
    uint64_t desc[2] = {pcid, va};

    if (!skipping())
        __asm__ volatile("invpcid %0, %1" : : "m"(desc), "r"(type) : "memory");
}

/* Tables as at the start; frame n holds n + 1. */
static void reset(void)
{
    for (unsigned i = 0; i < TEST_FRAMES; i++)
        *(volatile uint64_t *)test_frame[i] = i + 1;
    test_pages_reset();
}

static uint64_t peek(word va)
{
    return skipping() ? 0 : *(volatile uint64_t *)va;
}

/* Reads, so that the translation is cached; then points the page elsewhere. */
static void move(uint64_t flags)
{
    *test_entry[1] = (word)test_frame[0] | 7 | flags;
    invlpg(TEST_VA);
    peek(TEST_VA);
    *(volatile uint64_t *)test_entry[1] = (word)test_frame[5] | 7 | flags;
}

static void invalidations(void)
{
    reset();
    move(0);
    invlpg(TEST_VA);
    check("tlb.invlpg", TLB, peek(TEST_VA), 6);
    move(0);
    invlpg(TEST_VA + 0xabc);
    check("tlb.invlpg-inside", TLB, peek(TEST_VA), 6);
    move(0);
    set_cr3(cr3());
    check("tlb.cr3", TLB, peek(TEST_VA), 6);
    set_cr4(cr4() | CR4_PGE);
    move(PTE_G);
    invlpg(TEST_VA);
    check("tlb.invlpg-global", TLB, peek(TEST_VA), 6);
    move(PTE_G);
    set_cr4(cr4() & ~CR4_PGE);
    check("tlb.pge-clears-global", TLB, peek(TEST_VA), 6);
    move(PTE_G);
    set_cr4(cr4() | CR4_PGE);
    check("tlb.pge-set", TLB, peek(TEST_VA), 6);
    move(PTE_G);
    flush_tlb();
    check("tlb.pge-toggled", TLB, peek(TEST_VA), 6);
    set_cr4(cr4() & ~CR4_PGE);
    /* G means nothing while PGE is clear */
    move(PTE_G);
    set_cr3(cr3());
    check("tlb.global-without-pge", TLB, peek(TEST_VA), 6);
    move(0);
    set_cr4(cr4() ^ CR4_PGE);
    set_cr4(cr4() ^ CR4_PGE);
    check("tlb.pge-clears-all", TLB, peek(TEST_VA), 6);
}

static uint64_t other_pt[512] __attribute__((aligned(4096)));

static void upper_levels(void)
{
    reset();
    other_pt[0] = (word)test_frame[6] | 7;
    peek(TEST_VA);
    *test_entry[2] = (word)other_pt | 7;
    invlpg(TEST_VA);
    check("tlb.invlpg-directory", TLB, peek(TEST_VA), 7);
    reset();
    peek(TEST_VA);
    peek(TEST_VA + 0x1000);
    *test_entry[2] = (word)other_pt | 7;
    other_pt[1] = (word)test_frame[6] | 7;
    set_cr3(cr3());
    check("tlb.cr3-directory", TLB, peek(TEST_VA + 0x1000), 7);
    /* INVLPG drops the cached upper entries of all addresses */
    reset();
    peek(TEST_VA);
    *test_entry[2] = (word)other_pt | 7;
    invlpg(0x1000);
    invlpg(TEST_VA + 0x1000);
    check("tlb.invlpg-other-page", TLB, peek(TEST_VA + 0x1000), 7);
    /* a large page: any address in it names it */
    reset();
    *test_entry[2] = ((word)test_frame[0] & ~0x1ffffful) | 7 | PTE_PS;
    flush_tlb();
    check("tlb.large-page", TLB, peek(TEST_VA + ((word)test_frame[0] & 0x1fffff)), 1);
    *test_entry[2] = (word)other_pt | 7;
    invlpg(TEST_VA + 0x1ff000);
    check("tlb.invlpg-large-page", TLB, peek(TEST_VA), 7);
    reset();
}

#define HPET 0xfed00000u
#define NOTHING 0xfed80000u /* reads as ones */

/* A device's page is read, so that its translation is cached; then the page is another. */
static void from_device(uint64_t to)
{
    *test_entry[1] = HPET | 7;
    invlpg(TEST_VA);
    peek(TEST_VA);
    *(volatile uint64_t *)test_entry[1] = to | 7;
}

static void devices(void)
{
    struct cpu c = kernel(CODE("mov rax, [rdi]\n 9: mov [rdi+0x20], rax"));

    reset();
    from_device((word)test_frame[5]);
    invlpg(TEST_VA);
    check("tlb.device-to-memory", TLB, peek(TEST_VA), 6);
    from_device((word)test_frame[5]);
    set_cr3(cr3());
    check("tlb.device-cr3", TLB, peek(TEST_VA), 6);
    from_device(NOTHING);
    invlpg(TEST_VA + 8);
    check("tlb.device-to-nothing", TLB, peek(TEST_VA), ~0ull);
    *test_entry[1] = (word)test_frame[5] | 7;
    invlpg(TEST_VA);
    check("tlb.nothing-to-memory", TLB, peek(TEST_VA), 6);
    /* a large page with the device in it */
    other_pt[256] = (word)test_frame[6] | 7;
    *test_entry[2] = (HPET & ~0x1fffffu) | 7 | PTE_PS;
    flush_tlb();
    peek(TEST_VA + (HPET & 0x1fffff));
    *test_entry[2] = (word)other_pt | 7;
    invlpg(TEST_VA + 0x1ff000);
    check("tlb.device-large-page", TLB, peek(TEST_VA + 0x100000), 7);
    /* that it can be read says nothing about writes */
    reset();
    *test_entry[1] = HPET | 5;
    invlpg(TEST_VA);
    c.di = TEST_VA;
    run(&c);
    check_pf("tlb.device-readonly", TLB, &c, 3, TEST_VA + 0x20);
    reset();
}

/* More rights need no invalidation, though one fault may be seen; that fault ends it. */
static void more_rights(void)
{
    struct cpu c = kernel(CODE("mov rax, [rdi]"));

    reset();
    *test_entry[1] = 0;
    invlpg(TEST_VA);
    c.di = TEST_VA;
    run(&c);
    check_pf("tlb.absent", TLB, &c, 0, TEST_VA);
    *test_entry[1] = (word)test_frame[2] | 7;
    run(&c);
    check_done("tlb.present-needs-nothing", TLB, &c);
    check("tlb.present-value", TLB, c.ax, 3);
    *test_entry[1] = (word)test_frame[2] | 5;
    invlpg(TEST_VA);
    c = kernel(CODE("mov rax, [rdi]\n 9: mov [rdi], rax"));
    c.di = TEST_VA;
    run(&c);
    check_pf("tlb.readonly", TLB, &c, 3, TEST_VA);
    *test_entry[1] = (word)test_frame[2] | 7;
    run(&c);
    if (c.vector == V_PF) /* it may have been cached as read-only */
        run(&c);
    check_done("tlb.writable-after-fault", TLB, &c);
}

static void bits(void)
{
    reset();
    peek(TEST_VA);
    *test_entry[1] &= ~PTE_A;
    invlpg(TEST_VA);
    peek(TEST_VA);
    check("tlb.accessed-again", TLB, *(volatile uint64_t *)test_entry[1] & PTE_A, PTE_A);
    reset();
    peek(TEST_VA); /* cached as clean */
    access_memory('w', 0, TEST_VA);
    check("tlb.dirty-after-read", TLB, *(volatile uint64_t *)test_entry[1] & PTE_D, PTE_D);
    *test_entry[1] &= ~PTE_D;
    invlpg(TEST_VA);
    access_memory('w', 0, TEST_VA);
    check("tlb.dirty-again", TLB, *(volatile uint64_t *)test_entry[1] & PTE_D, PTE_D);
    /* rights that registers give hold at once, without an invalidation */
    reset();
    *test_entry[1] &= ~PTE_W;
    flush_tlb();
    peek(TEST_VA);
    set_cr0(cr0() & ~CR0_WP);
    expect_access("tlb.wp-cleared", TLB, 'w', 0, TEST_VA, NO_FAULT);
    set_cr0(cr0() | CR0_WP);
    expect_access("tlb.wp-set", TLB, 'w', 0, TEST_VA, 3);
    require(cpuid_bit(7, 0, 1, 20), "SMAP is not offered");
    reset();
    expect_access("tlb.smap-clear", TLB, 'r', 0, TEST_VA, NO_FAULT);
    set_cr4(cr4() | CR4_SMAP);
    expect_access("tlb.smap-set", TLB, 'r', 0, TEST_VA, 1);
    set_cr4(cr4() & ~CR4_SMAP);
    expect_access("tlb.smap-cleared", TLB, 'r', 0, TEST_VA, NO_FAULT);
    require_end();
    require(cpuid_bit(7, 0, 1, 7), "SMEP is not offered");
    reset();
    test_frames_return();
    expect_access("tlb.smep-clear", TLB, 'x', 0, TEST_VA, NO_FAULT);
    set_cr4(cr4() | CR4_SMEP);
    expect_access("tlb.smep-set", TLB, 'x', 0, TEST_VA, 0x11);
    set_cr4(cr4() & ~CR4_SMEP);
    require_end();
}

static void invlpg_faults(void)
{
    struct cpu c = kernel(CODE("invlpg [rdi]"));

    c.di = 0x8000000000000000;
    run_done("tlb.invlpg-non-canonical", INVLPG, &c);
    c = kernel(CODE("invlpg [rdi]"));
    c.di = 0x7000000000; /* not mapped */
    run_done("tlb.invlpg-unmapped", INVLPG, &c);
    c = user(UCODE("invlpg [rdi]"));
    run_fault("tlb.invlpg-user", INVLPG, &c, V_GP, 0);
    c = at_level(CODE("invlpg [rdi]"), 1);
    run_fault("tlb.invlpg-cpl1", INVLPG, &c, V_GP, 0);
    c = kernel(CODE(".byte 0xf0, 0x0f, 0x01, 0x3f"));
    run_fault("tlb.invlpg-lock", INVLPG, &c, V_UD, NO_ERROR);
    c = kernel(CODE(".byte 0x0f, 0x01, 0xff"));
    run_fault("tlb.invlpg-register", INVLPG, &c, V_UD, NO_ERROR);
}

/* ---- process-context identifiers ---- */

extern uint64_t pml4[512];
static uint64_t other_root[512] __attribute__((aligned(4096)));

/* A second root, whose TEST_VA has frame 7; the rest is the same. */
static void make_other_root(void)
{
    static uint64_t top[512] __attribute__((aligned(4096)));
    static uint64_t middle[512] __attribute__((aligned(4096)));

    for (unsigned i = 0; i < 512; i++)
        other_root[i] = pml4[i];
    other_root[TEST_VA >> 39 & 511] = (word)top | 7;
    top[0] = (word)middle | 7;
    middle[0] = (word)other_pt | 7;
    other_pt[0] = (word)test_frame[7] | 7;
}

static void pcid_rules(void)
{
    struct cpu c = kernel(CODE("9: mov cr4, rax"));

    set_cr3((word)pml4 | PTE_PWT);
    c.ax = cr4() | CR4_PCIDE;
    run_fault("pcid.enable-with-cr3-low-bits", PCID, &c, V_GP, 0);
    set_cr3((word)pml4);
    set_cr4(cr4() | CR4_PCIDE);
    check("pcid.enabled", PCID, cr4() & CR4_PCIDE, CR4_PCIDE);
    set_cr3((word)pml4 | 0xabc);
    check("pcid.cr3-reads-back", PCID, cr3(), (word)pml4 | 0xabc);
    set_cr3((word)pml4 | 0xabc | 1ul << 63);
    check("pcid.no-flush-reads-zero", PCID, cr3(), (word)pml4 | 0xabc);
    c = kernel(CODE("9: mov cr3, rax"));
    c.ax = (word)pml4 | 1ul << 62;
    run_fault("pcid.cr3-bit62", PCID, &c, V_GP, 0);
    set_cr4(cr4() & ~CR4_PCIDE);
    c = kernel(CODE("9: mov cr3, rax"));
    c.ax = (word)pml4 | 1ul << 63;
    set_cr3((word)pml4);
    run_fault("pcid.no-flush-while-off", PCID, &c, V_GP, 0);
    set_cr4(cr4() | CR4_PCIDE);
    c = kernel(CODE32("mov eax, cr0\n and eax, 0x7fffffff\n 9: mov cr0, eax"));
    c.cs = S_CODE32;
    c.ss = S_DATA;
    run_fault("pcid.paging-off", PCID, &c, V_GP, 0);
}

static void pcid_tags(void)
{
    reset();
    make_other_root();
    set_cr3((word)pml4 | 1);
    check("pcid.first", PCID, peek(TEST_VA), 1);
    set_cr3((word)other_root | 2);
    check("pcid.second", PCID, peek(TEST_VA), 8);
    set_cr3((word)pml4 | 1 | 1ul << 63);
    check("pcid.first-kept", PCID, peek(TEST_VA), 1);
    set_cr3((word)other_root | 2 | 1ul << 63);
    check("pcid.second-kept", PCID, peek(TEST_VA), 8);
    /* loading an identifier without bit 63 drops what is cached for it */
    set_cr3((word)pml4 | 1);
    move(0);
    set_cr3((word)other_root | 2 | 1ul << 63);
    set_cr3((word)pml4 | 1);
    check("pcid.load-flushes", PCID, peek(TEST_VA), 6);
    /* the same root under another identifier knows nothing of the first's translations */
    move(0);
    set_cr3((word)pml4 | 3);
    check("pcid.other-identifier", PCID, peek(TEST_VA), 6);
    set_cr3((word)pml4 | 1);
    move(0);
    invlpg(TEST_VA);
    check("pcid.invlpg", PCID, peek(TEST_VA), 6);
    move(0);
    set_cr3((word)pml4);
    set_cr4(cr4() & ~CR4_PCIDE);
    check("pcid.disable-flushes", PCID, peek(TEST_VA), 6);
    set_cr4(cr4() | CR4_PCIDE);
    set_cr3((word)pml4 | 1);
}

static void invpcid_types(void)
{
    set_cr3((word)pml4 | 1);
    reset();
    move(0);
    invpcid(0, 1, TEST_VA);
    check("invpcid.address", INVPCID, peek(TEST_VA), 6);
    move(0);
    invpcid(1, 1, 0);
    check("invpcid.context", INVPCID, peek(TEST_VA), 6);
    move(0);
    invpcid(2, 0, 0);
    check("invpcid.all", INVPCID, peek(TEST_VA), 6);
    move(0);
    invpcid(3, 0, 0);
    check("invpcid.all-but-global", INVPCID, peek(TEST_VA), 6);
    set_cr4(cr4() | CR4_PGE);
    move(PTE_G);
    invpcid(2, 0, 0);
    check("invpcid.all-with-global", INVPCID, peek(TEST_VA), 6);
    set_cr4(cr4() & ~CR4_PGE);
    /* of an identifier that is not the current one */
    move(0);
    set_cr3((word)other_root | 2 | 1ul << 63);
    invpcid(0, 1, TEST_VA);
    set_cr3((word)pml4 | 1 | 1ul << 63);
    check("invpcid.address-elsewhere", INVPCID, peek(TEST_VA), 6);
    move(0);
    set_cr3((word)other_root | 2 | 1ul << 63);
    invpcid(1, 1, 0);
    set_cr3((word)pml4 | 1 | 1ul << 63);
    check("invpcid.context-elsewhere", INVPCID, peek(TEST_VA), 6);
    move(0);
    set_cr3((word)other_root | 2 | 1ul << 63);
    invpcid(3, 0, 0);
    set_cr3((word)pml4 | 1 | 1ul << 63);
    check("invpcid.all-elsewhere", INVPCID, peek(TEST_VA), 6);
}

static void invpcid_case(const char *name, word type, uint64_t pcid, uint64_t va, bool faults)
{
    struct cpu c = kernel(CODE("invpcid rax, [rdi]"));
    uint64_t desc[2] = {pcid, va};

    c.ax = type;
    c.di = (word)desc;
    run(&c);
    if (faults)
        check_fault(name, INVPCID, &c, V_GP, 0);
    else
        check_done(name, INVPCID, &c);
}

static void invpcid_faults(void)
{
    const uint64_t outside = 0x8000000000000000;
    struct cpu c;

    invpcid_case("invpcid.type4", 4, 0, 0, true);
    invpcid_case("invpcid.type-64-bits", 1ul << 32, 0, 0, true);
    invpcid_case("invpcid.reserved-address", 0, 1u << 12, 0, true);
    invpcid_case("invpcid.reserved-context", 1, 1ull << 63, 0, true);
    invpcid_case("invpcid.reserved-all", 2, 1u << 12, 0, true);
    invpcid_case("invpcid.reserved-rest", 3, 1u << 13, 0, true);
    invpcid_case("invpcid.non-canonical", 0, 1, outside, true);
    invpcid_case("invpcid.context-ignores-address", 1, 1, outside, false);
    invpcid_case("invpcid.all-ignores-address", 2, 0, outside, false);
    invpcid_case("invpcid.all-ignores-pcid", 2, 0xfff, 0, false);
    set_cr3((word)pml4);
    set_cr4(cr4() & ~CR4_PCIDE);
    invpcid_case("invpcid.off-address-pcid1", 0, 1, 0, true);
    invpcid_case("invpcid.off-context-pcid1", 1, 1, 0, true);
    invpcid_case("invpcid.off-address", 0, 0, TEST_VA, false);
    invpcid_case("invpcid.off-all-pcid1", 2, 1, 0, false);
    c = user(UCODE("invpcid rax, [rdi]"));
    c.di = (word)user_page[0];
    run_fault("invpcid.user", INVPCID, &c, V_GP, 0);
    c = kernel(CODE(".byte 0xf0, 0x66, 0x0f, 0x38, 0x82, 0x07"));
    run_fault("invpcid.lock", INVPCID, &c, V_UD, NO_ERROR);
    c = kernel(CODE(".byte 0x66, 0x0f, 0x38, 0x82, 0xc7"));
    run_fault("invpcid.register", INVPCID, &c, V_UD, NO_ERROR);
    c = kernel(CODE("invpcid rax, [rdi]"));
    c.di = outside;
    run_fault("invpcid.operand-non-canonical", INVPCID, &c, V_GP, 0);
    reset();
    test_entry[1][1] = 0;
    flush_tlb();
    c = kernel(CODE("invpcid rax, [rdi]"));
    c.di = TEST_VA + 0xff8;
    run(&c);
    check_pf("invpcid.operand-absent", INVPCID, &c, 0, TEST_VA + 0x1000);
    reset();
}

/*
 * An instruction whose last bytes lie in the next page: they change, are another page's, are gone.
 * It is jumped to from its own page, so that what ran before is told from it.
 */
static struct cpu run_across(const uint8_t tail[3])
{
    struct cpu c = kernel(CODE("nop"));

    test_frame[1][0] = tail[0];
    test_frame[1][1] = tail[1];
    test_frame[1][2] = tail[2];
    c.ip = TEST_VA + 0xff0;
    run(&c);
    return c;
}

static void across(void)
{
    static const uint8_t text[] = {0xeb, 0x0c},
                         first[] = {0xb8, 0x11}; /* jmp +12; mov eax, imm32 */
    static const uint8_t rest[] = {0x22, 0x33, 0x44, 0xcd, V_DONE}, moved[] = {0x55, 0x66, 0x77};
    struct cpu c;

    reset();
    for (unsigned i = 0; i < sizeof(text); i++)
        test_frame[0][0xff0 + i] = text[i];
    for (unsigned i = 0; i < sizeof(first); i++)
        test_frame[0][0xffe + i] = first[i];
    for (unsigned i = 0; i < sizeof(rest); i++)
        test_frame[1][i] = test_frame[2][i] = rest[i];
    for (unsigned i = 0; i < 3; i++)
        test_frame[2][i] = moved[i];
    for (unsigned i = 0; i < 3; i++)
        c = run_across(rest);
    check("across.runs", TLB, c.vector == V_DONE ? c.ax : 0, 0x44332211);
    c = run_across(moved);
    check("across.bytes-change", TLB, c.vector == V_DONE ? c.ax : 0, 0x77665511);
    c = run_across(rest);
    check("across.bytes-back", TLB, c.vector == V_DONE ? c.ax : 0, 0x44332211);
    test_entry[1][1] = (uint64_t)(word)test_frame[2] | PTE_P | PTE_W | PTE_U;
    flush_tlb();
    c = run_across(rest);
    check("across.page-moves", TLB, c.vector == V_DONE ? c.ax : 0, 0x77665511);
    test_entry[1][1] = 0;
    flush_tlb();
    c = run_across(rest);
    check_pf_at("across.page-gone", TLB, &c, 0x10, TEST_VA + 0x1000, TEST_VA + 0xffe);
    reset();
}

void test(void)
{
    invalidations();
    across();
    upper_levels();
    devices();
    more_rights();
    bits();
    invlpg_faults();
    require(cpuid_bit(1, 0, 2, 17), "PCID is not offered");
    pcid_rules();
    pcid_tags();
    require(cpuid_bit(7, 0, 1, 10), "INVPCID is not offered");
    invpcid_types();
    invpcid_faults();
    require_end();
}
