/* 32-bit and PAE paging: rights, reserved bits, large pages, cached PDPTEs, the switch between. */
#include "bare.h"

#define RIGHTS "SDM Vol.3, determination of access rights"
#define ERRORS "SDM Vol.3, page-fault exceptions"
#define AD "SDM Vol.3, accessed and dirty flags"
#define PAGING32 "SDM Vol.3, 32-bit paging"
#define PAE "SDM Vol.3, PAE paging"
#define PDPTE "SDM Vol.3, PDPTE registers"
#define SUPERVISOR "SDM Vol.3, supervisor-mode access and execution prevention"
#define INVALIDATION "SDM Vol.3, invalidation of TLBs"

static enum paging form;

static const char *form_name(void)
{
    return form == PAGING_32 ? "32." : "pae.";
}

/* An entry of the test page: level 1 its page table's, 2 its directory's. */
static uint64_t entry(unsigned level)
{
    if (form == PAGING_PAE)
        return *(volatile uint64_t *)test_entry[level];
    return level == 1 ? *(volatile uint32_t *)test_pte32 : *(volatile uint32_t *)test_pde32;
}

static void set_entry(unsigned level, uint64_t value)
{
    if (form == PAGING_PAE)
        *(volatile uint64_t *)test_entry[level] = value;
    else
        *(volatile uint32_t *)(level == 1 ? test_pte32 : test_pde32) = (uint32_t)value;
}

static void frames_reset(void)
{
    test_pages_reset();
    test_frames_return();
}

static void change(unsigned level, uint64_t clear, uint64_t set)
{
    frames_reset();
    set_entry(level, (entry(level) & ~clear) | set);
    flush_tlb();
}

/* ---- rights ---- */

struct row {
    const char *name;
    uint64_t clear, set;
    char kind;
    unsigned cpl;
    uint32_t error; /* of a fetch with NX */
};

static const struct row rows[] = {
    {"present-read", 0, 0, 'r', 3, NO_FAULT},
    {"present-write", 0, 0, 'w', 3, NO_FAULT},
    {"present-fetch", 0, 0, 'x', 3, NO_FAULT},
    {"absent-read", PTE_P, 0, 'r', 0, 0},
    {"absent-write", PTE_P, 0, 'w', 0, 2},
    {"absent-fetch", PTE_P, 0, 'x', 0, 0x10},
    {"absent-user-read", PTE_P, 0, 'r', 3, 4},
    {"absent-user-write", PTE_P, 0, 'w', 3, 6},
    {"absent-user-fetch", PTE_P, 0, 'x', 3, 0x14},
    {"readonly-read", PTE_W, 0, 'r', 0, NO_FAULT},
    {"readonly-write", PTE_W, 0, 'w', 0, 3},
    {"readonly-write-cpl1", PTE_W, 0, 'w', 1, 3},
    {"readonly-user-write", PTE_W, 0, 'w', 3, 7},
    {"supervisor-write", PTE_U, 0, 'w', 0, NO_FAULT},
    {"supervisor-write-cpl2", PTE_U, 0, 'w', 2, NO_FAULT},
    {"supervisor-user-read", PTE_U, 0, 'r', 3, 5},
    {"supervisor-user-write", PTE_U, 0, 'w', 3, 7},
    {"supervisor-user-fetch", PTE_U, 0, 'x', 3, 0x15},
    {"nx-read", 0, PTE_NX, 'r', 3, NO_FAULT},
    {"nx-write", 0, PTE_NX, 'w', 3, NO_FAULT},
    {"nx-fetch", 0, PTE_NX, 'x', 0, 0x11},
    {"nx-user-fetch", 0, PTE_NX, 'x', 3, 0x15},
};

static void rights(void)
{
    for (unsigned level = 1; level <= 2; level++) {
        const char *at = level == 1 ? "pte-" : "pde-";

        for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
            const struct row *r = &rows[i];
            uint32_t error = r->error;

            if (form == PAGING_32 && (r->set & PTE_NX))
                continue;
            if (form == PAGING_32 && error != NO_FAULT) /* bit 4 says something with NX only */
                error &= ~0x10u;
            change(level, r->clear, r->set);
            expect_access(joined(form_name(), at, r->name), RIGHTS, r->kind, r->cpl, TEST_VA,
                          error);
        }
        set_cr0(cr0() & ~CR0_WP);
        change(level, PTE_W, 0);
        expect_access(joined(form_name(), at, "wp0-write"), RIGHTS, 'w', 0, TEST_VA, NO_FAULT);
        expect_access(joined(form_name(), at, "wp0-write-cpl2"), RIGHTS, 'w', 2, TEST_VA, NO_FAULT);
        expect_access(joined(form_name(), at, "wp0-user-write"), RIGHTS, 'w', 3, TEST_VA, 7);
        set_cr0(cr0() | CR0_WP);
    }
    frames_reset();
    set_entry(1, entry(1) & ~PTE_U);
    set_entry(2, entry(2) & ~PTE_W);
    flush_tlb();
    expect_access(joined(form_name(), "both-user-read", ""), RIGHTS, 'r', 3, TEST_VA, 5);
    expect_access(joined(form_name(), "both-write", ""), RIGHTS, 'w', 0, TEST_VA, 3);
    change(1, ~0ull, form == PAGING_32 ? 0xfffffffe : 0xfffffffffffffffe);
    expect_access(joined(form_name(), "absent-ignores-all", ""), ERRORS, 'r', 0, TEST_VA, 0);
    change(1, 0, 0xe00 | PTE_PWT | PTE_PCD | PTE_PS | PTE_G);
    expect_access(joined(form_name(), "pte-type-and-free-bits", ""), RIGHTS, 'w', 0, TEST_VA,
                  NO_FAULT);
    change(2, 0, 0xe00 | PTE_PWT | PTE_PCD | PTE_G | PTE_D);
    expect_access(joined(form_name(), "pde-ignored-bits", ""), RIGHTS, 'w', 0, TEST_VA, NO_FAULT);
}

static void accessed(void)
{
    frames_reset();
    flush_tlb();
    access_memory('r', 0, TEST_VA);
    check(joined(form_name(), "read-accesses-pte", ""), AD, entry(1) & (PTE_A | PTE_D), PTE_A);
    check(joined(form_name(), "read-accesses-pde", ""), AD, entry(2) & PTE_A, PTE_A);
    access_memory('w', 3, TEST_VA);
    check(joined(form_name(), "write-dirties-pte", ""), AD, entry(1) & (PTE_A | PTE_D),
          PTE_A | PTE_D);
    check(joined(form_name(), "write-leaves-pde", ""), AD, entry(2) & PTE_D, 0);
    change(1, PTE_W, 0);
    access_memory('w', 3, TEST_VA);
    check(joined(form_name(), "faulting-write-is-clean", ""), AD, entry(1) & PTE_D, 0);
    frames_reset();
    flush_tlb();
    access_memory('x', 3, TEST_VA);
    check(joined(form_name(), "fetch-accesses", ""), AD, entry(1) & (PTE_A | PTE_D), PTE_A);
}

/* Large pages: 4 MiB or 2 MiB. */
static void large(void)
{
    unsigned shift = form == PAGING_32 ? 22 : 21;
    word offset = (word)test_frame[0] & ((1u << shift) - 1);
    uint64_t base = ((word)test_frame[0] & ~((1u << shift) - 1)) | 7 | PTE_PS;
    const char *name = form == PAGING_32 ? "4m." : "2m.";

    change(2, ~0ull, base);
    expect_access(joined(name, "read", ""), RIGHTS, 'r', 3, TEST_VA + offset, NO_FAULT);
    check(joined(name, "accessed", ""), AD, entry(2) & (PTE_A | PTE_D), PTE_A);
    expect_access(joined(name, "write", ""), RIGHTS, 'w', 3, TEST_VA + offset, NO_FAULT);
    check(joined(name, "dirty", ""), AD, entry(2) & (PTE_A | PTE_D), PTE_A | PTE_D);
    expect_access(joined(name, "fetch", ""), RIGHTS, 'x', 3, TEST_VA + offset, NO_FAULT);
    change(2, ~0ull, base & ~PTE_W);
    expect_access(joined(name, "readonly", ""), RIGHTS, 'w', 0, TEST_VA + offset, 3);
    change(2, ~0ull, base & ~PTE_U);
    expect_access(joined(name, "supervisor", ""), RIGHTS, 'r', 3, TEST_VA + offset, 5);
    change(2, ~0ull, base & ~PTE_P);
    expect_access(joined(name, "absent", ""), RIGHTS, 'w', 3, TEST_VA + offset, 6);
    change(2, ~0ull, base | 1u << 12 | PTE_G | 0xe00);
    expect_access(joined(name, "pat-and-free-bits", ""), RIGHTS, 'w', 3, TEST_VA + offset,
                  NO_FAULT);
    if (form == PAGING_PAE) {
        static const char *const bits[] = {"reserved-13", "reserved-14", "reserved-15",
                                           "reserved-16", "reserved-17", "reserved-18",
                                           "reserved-19", "reserved-20"};

        for (unsigned bit = 13; bit <= 20; bit++) {
            change(2, ~0ull, base | 1u << bit);
            expect_access(joined(name, bits[bit - 13], ""), PAE, 'r', 0, TEST_VA + offset, 9);
        }
        change(2, ~0ull, base | PTE_NX);
        expect_access(joined(name, "nx", ""), RIGHTS, 'x', 3, TEST_VA + offset, 0x15);
        return;
    }
    change(2, ~0ull, base | 1u << 21);
    expect_access("4m.reserved-21-read", PAGING32, 'r', 0, TEST_VA + offset, 9);
    expect_access("4m.reserved-21-write", PAGING32, 'w', 0, TEST_VA + offset, 0xb);
    expect_access("4m.reserved-21-user", PAGING32, 'r', 3, TEST_VA + offset, 0xd);
    change(2, ~0ull, (base & ~PTE_U) | 1u << 21);
    expect_access("4m.reserved-21-supervisor", PAGING32, 'r', 3, TEST_VA + offset, 0xd);
    require(cpuid_bit(1, 0, 3, 17), "PSE-36 is not offered");
    change(2, ~0ull, base | 1u << 13);
    expect_access("4m.address-bit32", PAGING32, 'r', 0, TEST_VA + offset, NO_FAULT);
    require(cpuid_bit(1, 0, 3, 17) && physical_mask() < (1ull << 40) - 1,
            "physical addresses have 40 bits");
    change(2, ~0ull, base | 1u << 20);
    expect_access("4m.address-beyond-maxphyaddr", PAGING32, 'r', 0, TEST_VA + offset, 9);
    require_end();
}

/* ---- without CR4.PSE: PS in a directory entry means nothing ---- */

static uint32_t small_directory[1024] __attribute__((aligned(4096)));
static uint32_t small_tables[4][1024] __attribute__((aligned(4096)));

static void without_pse(void)
{
    paging(PAGING_32);
    frames_reset();
    for (unsigned i = 0; i < 4096; i++)
        small_tables[i / 1024][i % 1024] = i << 12 | (i >= 2048 ? 7 : 3);
    for (unsigned i = 0; i < 4; i++)
        small_directory[i] = (word)small_tables[i] | 7 | (uint32_t)PTE_PS; /* PS as well */
    small_directory[TEST_VA >> 22] = (word)test_pte32 | 7 | (uint32_t)PTE_PS;
    set_cr0(cr0() & ~CR0_PG);
    set_cr4(cr4() & ~CR4_PSE);
    set_cr3((word)small_directory);
    set_cr0(cr0() | CR0_PG);
    expect_access("pse-off.ps-ignored", PAGING32, 'w', 3, TEST_VA, NO_FAULT);
    check("pse-off.pte-dirty", AD, test_pte32[0] & (PTE_A | PTE_D), PTE_A | PTE_D);
    small_directory[TEST_VA >> 22] = (word)test_pte32 | 7;
    small_directory[0] &= ~(uint32_t)PTE_PS;
    small_directory[1] &= ~(uint32_t)PTE_PS;
    small_directory[2] &= ~(uint32_t)PTE_PS;
    small_directory[3] &= ~(uint32_t)PTE_PS;
    /* CR4.PSE may change while paging is on, which drops what was cached */
    set_cr4(cr4() | CR4_PSE);
    expect_access("pse-on.small-page", PAGING32, 'r', 3, TEST_VA, NO_FAULT);
    small_directory[TEST_VA >> 22] = ((word)test_frame[0] & 0xffc00000) | 7 | (uint32_t)PTE_PS;
    set_cr3((word)small_directory);
    expect_access("pse-on.large-page", PAGING32, 'r', 3, TEST_VA + ((word)test_frame[0] & 0x3fffff),
                  NO_FAULT);
    /* the low bits of CR3 do not belong to the address */
    small_directory[TEST_VA >> 22] = (word)test_pte32 | 7;
    set_cr3((word)small_directory | 0x18);
    expect_access("cr3.pwt-pcd", PAGING32, 'w', 3, TEST_VA, NO_FAULT);
    check("cr3.pwt-pcd-read", PAGING32, cr3(), (word)small_directory | 0x18);
    paging(PAGING_OFF);
}

/* ---- PAE: reserved bits and PDPTEs ---- */

static void reserved_pae(void)
{
    static const char *const bits[] = {"bit52", "bit62", "bit51"};
    static const unsigned numbers[] = {52, 62, 51};
    uint64_t above = ~physical_mask() & PTE_ADDR;

    for (unsigned level = 1; level <= 2; level++) {
        const char *at = level == 1 ? "pae.pte-" : "pae.pde-";

        for (unsigned i = 0; i < 3; i++) {
            require(numbers[i] >= 52 || above != 0, "MAXPHYADDR is 52");
            change(level, 0, 1ull << numbers[i]);
            expect_access(joined(at, bits[i], "-read"), PAE, 'r', 0, TEST_VA, 9);
            expect_access(joined(at, bits[i], "-user-write"), PAE, 'w', 3, TEST_VA, 0xf);
            expect_access(joined(at, bits[i], "-fetch"), PAE, 'x', 0, TEST_VA, 0x19);
            require_end();
        }
        require(above != 0, "MAXPHYADDR is 52");
        change(level, 0, above & -above);
        expect_access(joined(at, "maxphyaddr", ""), PAE, 'r', 0, TEST_VA, 9);
        require_end();
    }
    wrmsr(0xc0000080, rdmsr(0xc0000080) & ~(1ull << 11));
    change(1, 0, PTE_NX);
    expect_access("pae.pte-nx-without-nxe", PAE, 'r', 0, TEST_VA, 9);
    change(2, 0, PTE_NX);
    expect_access("pae.pde-nx-without-nxe", PAE, 'w', 3, TEST_VA, 0xf);
    change(1, PTE_P, 0);
    expect_access("pae.fetch-without-nxe", ERRORS, 'x', 3, TEST_VA, 4);
    wrmsr(0xc0000080, rdmsr(0xc0000080) | 1ull << 11);
    change(1, 0, 0);
    expect_access("pae.nxe-again", PAE, 'x', 3, TEST_VA, NO_FAULT);
}

static struct cpu load_cr3(word value)
{
    struct cpu c = kernel(CODE("mov cr3, eax"));

    c.ax = value;
    run(&c);
    return c;
}

static void pdptes(void)
{
    volatile uint64_t *p = test_entry[3];
    word top = cr3();
    struct cpu c;
    uint64_t keep;
    static const struct {
        const char *name;
        uint64_t bits;
    } bad[] = {
        {"pdpte.reserved-1", 2},      {"pdpte.reserved-2", 4},      {"pdpte.reserved-5", 0x20},
        {"pdpte.reserved-6", 0x40},   {"pdpte.reserved-7", 0x80},   {"pdpte.reserved-8", 0x100},
        {"pdpte.bit-52", 1ull << 52}, {"pdpte.bit-63", 1ull << 63},
    };

    frames_reset();
    keep = *p;
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        *p = keep | bad[i].bits;
        c = load_cr3(top | 8);
        check_fault(bad[i].name, PDPTE, &c, V_GP, 0);
        check(joined(bad[i].name, "-cr3-stays", ""), PDPTE, cr3(), top);
        *p = (keep & ~1ull) | bad[i].bits;
        c = load_cr3(top);
        check_done(joined(bad[i].name, "-absent", ""), PDPTE, &c);
        *p = keep;
        set_cr3(top);
    }
    *p = keep | 0xe18; /* PWT, PCD and what is free */
    c = load_cr3(top);
    check_done("pdpte.free-bits", PDPTE, &c);
    expect_access("pdpte.free-bits-access", PDPTE, 'w', 3, TEST_VA, NO_FAULT);
    check("pdpte.never-accessed", PDPTE, *p, keep | 0xe18);
    /* a change counts from the next load on */
    *p = keep & ~1ull;
    c = kernel(CODE("invlpg [edi]"));
    c.di = TEST_VA;
    run(&c);
    expect_access("pdpte.cached", PDPTE, 'r', 3, TEST_VA, NO_FAULT);
    set_cr3(top);
    expect_access("pdpte.absent-read", PDPTE, 'r', 0, TEST_VA, 0);
    expect_access("pdpte.absent-user-write", PDPTE, 'w', 3, TEST_VA, 6);
    expect_access("pdpte.absent-fetch", PDPTE, 'x', 0, TEST_VA, 0x10);
    *p = keep;
    c = kernel(CODE("invlpg [edi]"));
    c.di = TEST_VA;
    run(&c);
    expect_access("pdpte.absent-cached", PDPTE, 'r', 0, TEST_VA, 0);
    set_cr4(cr4() ^ CR4_PSE); /* loads them too */
    expect_access("pdpte.loaded-by-cr4-pse", PDPTE, 'r', 0, TEST_VA, NO_FAULT);
    *p = 0;
    set_cr4(cr4() ^ CR4_PGE);
    expect_access("pdpte.loaded-by-cr4-pge", PDPTE, 'r', 0, TEST_VA, 0);
    *p = keep;
    set_cr0(cr0() & ~CR0_PG);
    set_cr0(cr0() | CR0_PG);
    expect_access("pdpte.loaded-by-cr0-pg", PDPTE, 'r', 0, TEST_VA, NO_FAULT);
    *p = 0;
    set_cr0(cr0() | CR0_CD);
    c = kernel(CODE("invlpg [edi]")); /* this load need not drop translations */
    c.di = TEST_VA;
    run(&c);
    expect_access("pdpte.loaded-by-cr0-cd", PDPTE, 'r', 0, TEST_VA, 0);
    *p = keep;
    set_cr0(cr0() & ~CR0_CD);
    expect_access("pdpte.loaded-by-cr0-cd-off", PDPTE, 'r', 0, TEST_VA, NO_FAULT);
    set_cr4(cr4() & ~CR4_PGE);
    /* bad ones refuse the switch */
    set_cr0(cr0() & ~CR0_PG);
    *p = keep | 2;
    c = kernel(CODE("mov cr0, eax"));
    c.ax = cr0() | CR0_PG;
    run_fault("pdpte.bad-at-cr0-pg", PDPTE, &c, V_GP, 0);
    check("pdpte.bad-at-cr0-pg-stays", PDPTE, cr0() & CR0_PG, 0);
    c = load_cr3(top);
    check_done("pdpte.bad-without-pg", PDPTE, &c);
    *p = keep;
    set_cr0(cr0() | CR0_PG);
    *p = keep | 2;
    c = kernel(CODE("mov cr4, eax"));
    c.ax = cr4() ^ CR4_PGE;
    run_fault("pdpte.bad-at-cr4-pge", PDPTE, &c, V_GP, 0);
    *p = keep;
    set_cr3(top);
    /* 32 bytes of alignment are all that the table needs; bits 4:3 are PWT and PCD */
    {
        static uint64_t tables[12] __attribute__((aligned(64)));
        uint64_t *at = &tables[4];

        for (unsigned i = 0; i < 4; i++)
            at[i] = test_entry[3][(int)i - 1];
        c = load_cr3((word)at | 0x18);
        check_done("pdpte.32-byte-table", PDPTE, &c);
        expect_access("pdpte.32-byte-table-access", PDPTE, 'w', 3, TEST_VA, NO_FAULT);
        set_cr3(top);
    }
    frames_reset();
}

/* ---- SMEP and SMAP ---- */

static void prevention(void)
{
    const char *name = form_name();

    require(cpuid_bit(7, 0, 1, 7), "SMEP is not offered");
    frames_reset();
    set_cr4(cr4() | CR4_SMEP);
    expect_access(joined(name, "smep-fetch", ""), SUPERVISOR, 'x', 0, TEST_VA, 0x11);
    expect_access(joined(name, "smep-fetch-cpl2", ""), SUPERVISOR, 'x', 2, TEST_VA, 0x11);
    expect_access(joined(name, "smep-user-fetch", ""), SUPERVISOR, 'x', 3, TEST_VA, NO_FAULT);
    expect_access(joined(name, "smep-read", ""), SUPERVISOR, 'r', 0, TEST_VA, NO_FAULT);
    change(1, PTE_U, 0);
    expect_access(joined(name, "smep-supervisor-page", ""), SUPERVISOR, 'x', 0, TEST_VA, NO_FAULT);
    change(1, PTE_P, 0);
    expect_access(joined(name, "smep-absent-fetch", ""), ERRORS, 'x', 3, TEST_VA, 0x14);
    set_cr4(cr4() & ~CR4_SMEP);
    require_end();
    require(cpuid_bit(7, 0, 1, 20), "SMAP is not offered");
    frames_reset();
    flush_tlb();
    set_cr4(cr4() | CR4_SMAP);
    expect_access(joined(name, "smap-read", ""), SUPERVISOR, 'r', 0, TEST_VA, 1);
    expect_access(joined(name, "smap-write", ""), SUPERVISOR, 'w', 0, TEST_VA, 3);
    expect_access(joined(name, "smap-write-cpl1", ""), SUPERVISOR, 'w', 1, TEST_VA, 3);
    expect_access(joined(name, "smap-user-write", ""), SUPERVISOR, 'w', 3, TEST_VA, NO_FAULT);
    expect_access(joined(name, "smap-fetch", ""), SUPERVISOR, 'x', 0, TEST_VA, NO_FAULT);
    {
        struct cpu c = kernel(CODE("stac\n mov al, [edi]\n clac"));

        c.di = TEST_VA;
        run_done(joined(name, "smap-stac", ""), SUPERVISOR, &c);
    }
    change(1, PTE_U, 0);
    expect_access(joined(name, "smap-supervisor-page", ""), SUPERVISOR, 'w', 0, TEST_VA, NO_FAULT);
    set_cr4(cr4() & ~CR4_SMAP);
    require_end();
}

/* ---- what drops a translation ---- */

static word value_at(word va)
{
    struct cpu c = kernel(CODE("mov eax, [edi]"));

    c.di = va;
    run(&c);
    return c.vector == V_DONE ? c.ax : 0xbad;
}

static void invalidation(void)
{
    const char *name = form_name();

    for (unsigned global = 0; global < 2; global++) {
        uint64_t g = global ? PTE_G : 0;
        const char *kind = global ? "global-" : "local-";

        frames_reset();
        set_cr4(cr4() | CR4_PGE);
        *(volatile uint32_t *)test_frame[0] = 0x1111;
        *(volatile uint32_t *)test_frame[1] = 0x2222;
        set_entry(1, (word)test_frame[0] | 7 | g);
        flush_tlb();
        value_at(TEST_VA);
        set_entry(1, (word)test_frame[1] | 7 | g);
        {
            struct cpu c = kernel(CODE("invlpg [edi]"));

            c.di = TEST_VA + 0x123;
            run(&c);
        }
        check(joined(name, kind, "invlpg"), INVALIDATION, value_at(TEST_VA), 0x2222);
        set_entry(1, (word)test_frame[0] | 7 | g);
        set_cr4(cr4() & ~CR4_PGE);
        check(joined(name, kind, "cr4-pge"), INVALIDATION, value_at(TEST_VA), 0x1111);
        set_entry(1, (word)test_frame[1] | 7 | g);
        set_cr3(cr3()); /* PGE is off: G means nothing */
        check(joined(name, kind, "cr3"), INVALIDATION, value_at(TEST_VA), 0x2222);
        set_entry(1, (word)test_frame[0] | 7 | g);
        set_cr0(cr0() & ~CR0_PG);
        set_cr0(cr0() | CR0_PG);
        check(joined(name, kind, "cr0-pg"), INVALIDATION, value_at(TEST_VA), 0x1111);
    }
    /* a page that was not there needs nothing */
    change(1, PTE_P, 0);
    value_at(TEST_VA);
    *(volatile uint32_t *)test_frame[1] = 0x2222;
    set_entry(1, (word)test_frame[1] | 7);
    check(joined(name, "absent-then-present", ""), INVALIDATION, value_at(TEST_VA), 0x2222);
    frames_reset();
}

/* An access that crosses two pages faults at the one that is wrong, and writes nothing. */
static void crossing(void)
{
    struct cpu c = kernel(CODE("mov [edi], eax"));

    frames_reset();
    if (form == PAGING_PAE)
        test_entry[1][1] = 0;
    else
        test_pte32[1] = 0;
    flush_tlb();
    *(volatile uint32_t *)(test_frame[0] + 0xffc) = 0x12345678;
    c.di = TEST_VA + 0xffe;
    c.ax = 0xffffffff;
    run(&c);
    check_pf(joined(form_name(), "crossing-second", ""), ERRORS, &c, 2, TEST_VA + 0x1000);
    check(joined(form_name(), "crossing-nothing-written", ""), ERRORS,
          *(volatile uint32_t *)(test_frame[0] + 0xffc), 0x12345678);
    set_entry(1, 0);
    flush_tlb();
    c = kernel(CODE("mov eax, [edi]"));
    c.di = TEST_VA + 0xffe;
    run(&c);
    check_pf(joined(form_name(), "crossing-first", ""), ERRORS, &c, 0, TEST_VA + 0xffe);
    frames_reset();
}

/* Descriptor tables are read as a supervisor, whatever CPL is. */
static void implicit(void)
{
    struct cpu c;

    change(1, PTE_U, 0);
    *(volatile uint64_t *)(test_frame[0] + 8) = descriptor(0, 0xfffff, 0xf2, 0xc);
    gdt_set(S_LDT, descriptor(TEST_VA, 0xfff, 0x82, 0));
    c = kernel(CODE("lldt ax"));
    c.ax = S_LDT;
    run(&c);
    c = user(UCODE("mov fs, eax"));
    c.ax = 8 | 7;
    run_done(joined(form_name(), "implicit-supervisor-read", ""), RIGHTS, &c);
    *(volatile uint64_t *)(test_frame[0] + 8) = descriptor(0, 0xfffff, 0xf2, 0xc);
    change(1, PTE_U | PTE_W, 0);
    *(volatile uint64_t *)(test_frame[0] + 8) = descriptor(0, 0xfffff, 0xf2, 0xc);
    c = user(UCODE("mov fs, eax"));
    c.ax = 8 | 7;
    run(&c);
    check(joined(form_name(), "implicit-accessed-bit-wp", ""), RIGHTS,
          c.vector == V_PF && c.cr2 >> 12 == TEST_VA >> 12 ? c.error : 0xbad, 3);
    change(1, PTE_P, 0);
    c = user(UCODE("mov fs, eax"));
    c.ax = 8 | 7;
    run(&c);
    check_pf(joined(form_name(), "implicit-absent", ""), RIGHTS, &c, 0, TEST_VA + 8);
    c = kernel(CODE("xor eax, eax\n lldt ax"));
    run(&c);
    gdt_reset();
    frames_reset();
}

void test(void)
{
    for (form = PAGING_32; form <= PAGING_PAE; form++) {
        require(form == PAGING_32 || cpuid_bit(1, 0, 3, 6), "PAE is not offered");
        if (!skipping()) {
            paging(form);
            rights();
            accessed();
            large();
            prevention();
            invalidation();
            crossing();
            implicit();
        }
        require_end();
    }
    form = PAGING_PAE;
    reserved_pae();
    pdptes();
    paging(PAGING_OFF);
    form = PAGING_32;
    without_pse();
}
