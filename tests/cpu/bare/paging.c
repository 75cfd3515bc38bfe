/* 4-level paging: rights at each level, reserved bits, accessed and dirty bits, large pages. */
#include "bare.h"

#define RIGHTS "SDM Vol.3, determination of access rights"
#define ERRORS "SDM Vol.3, page-fault exceptions"
#define RESERVED "SDM Vol.3, 4-level paging, reserved bits"
#define AD "SDM Vol.3, accessed and dirty flags"
#define LARGE "SDM Vol.3, 4-level paging, page sizes"

static const char *const level_name[] = {"", "paging.pte", "paging.pde", "paging.pdpte",
                                         "paging.pml4e"};

static void frames_reset(void)
{
    test_pages_reset();
    test_frames_return();
}

/* Entry of a level with some bits changed, then accesses of several kinds. */
struct row {
    const char *name;
    uint64_t clear, set;
    char kind;
    unsigned cpl;
    uint32_t error;
};

static const struct row rows[] = {
    {"-absent-read", PTE_P, 0, 'r', 0, 0},
    {"-absent-write", PTE_P, 0, 'w', 0, 2},
    {"-absent-fetch", PTE_P, 0, 'x', 0, 0x10},
    {"-absent-user-read", PTE_P, 0, 'r', 3, 4},
    {"-absent-user-write", PTE_P, 0, 'w', 3, 6},
    {"-absent-user-fetch", PTE_P, 0, 'x', 3, 0x14},
    {"-readonly-read", PTE_W, 0, 'r', 0, NO_FAULT},
    {"-readonly-write", PTE_W, 0, 'w', 0, 3},
    {"-readonly-write-cpl1", PTE_W, 0, 'w', 1, 3},
    {"-readonly-user-read", PTE_W, 0, 'r', 3, NO_FAULT},
    {"-readonly-user-write", PTE_W, 0, 'w', 3, 7},
    {"-supervisor-write", PTE_U, 0, 'w', 0, NO_FAULT},
    {"-supervisor-read-cpl2", PTE_U, 0, 'r', 2, NO_FAULT},
    {"-supervisor-user-read", PTE_U, 0, 'r', 3, 5},
    {"-supervisor-user-write", PTE_U, 0, 'w', 3, 7},
    {"-supervisor-user-fetch", PTE_U, 0, 'x', 3, 0x15},
    {"-nx-read", 0, PTE_NX, 'r', 0, NO_FAULT},
    {"-nx-fetch", 0, PTE_NX, 'x', 0, 0x11},
    {"-nx-user-fetch", 0, PTE_NX, 'x', 3, 0x15},
};

static void rights(void)
{
    for (unsigned level = 1; level <= 4; level++) {
        for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
            const struct row *r = &rows[i];

            frames_reset();
            *test_entry[level] = (*test_entry[level] & ~r->clear) | r->set;
            flush_tlb();
            expect_access(joined(level_name[level], r->name, ""), RIGHTS, r->kind, r->cpl, TEST_VA,
                          r->error);
        }
        set_cr0(cr0() & ~CR0_WP);
        frames_reset();
        *test_entry[level] &= ~PTE_W;
        flush_tlb();
        expect_access(joined(level_name[level], "-readonly-write-wp0", ""), RIGHTS, 'w', 0, TEST_VA,
                      NO_FAULT);
        expect_access(joined(level_name[level], "-readonly-user-write-wp0", ""), RIGHTS, 'w', 3,
                      TEST_VA, 7);
        set_cr0(cr0() | CR0_WP);
    }
}

static void combined(void)
{
    frames_reset();
    *test_entry[1] &= ~PTE_W;
    *test_entry[2] &= ~PTE_U;
    flush_tlb();
    expect_access("paging.rights-and-user-write", RIGHTS, 'w', 3, TEST_VA, 7);
    expect_access("paging.rights-and-write", RIGHTS, 'w', 0, TEST_VA, 3);
    frames_reset();
    *test_entry[1] = 0xffffffff00000fe0; /* P = 0: all else is the software's */
    *test_entry[1] &= ~PTE_P;
    flush_tlb();
    expect_access("paging.absent-ignores-all", ERRORS, 'r', 0, TEST_VA, 0);
    frames_reset();
    *test_entry[1] |= 0xeull << 8 | 0x7full << 52; /* bits the software may use */
    *test_entry[2] |= 0xeull << 8 | 0x7ffull << 52;
    *test_entry[3] |= 0xeull << 8 | 0x7ffull << 52;
    *test_entry[4] |= 0xeull << 8 | 0x7ffull << 52;
    flush_tlb();
    expect_access("paging.available-bits", RESERVED, 'r', 0, TEST_VA, NO_FAULT);
    frames_reset();
    *test_entry[1] |= PTE_PS | PTE_PWT | PTE_PCD | PTE_G; /* PAT in a PTE */
    flush_tlb();
    expect_access("paging.pte-memory-type", RESERVED, 'w', 0, TEST_VA, NO_FAULT);
}

static void fetch_flag(void)
{
    frames_reset();
    wrmsr(0xc0000080, rdmsr(0xc0000080) & ~(1ull << 11));
    *test_entry[1] = 0;
    flush_tlb();
    expect_access("paging.error-fetch-without-nxe", ERRORS, 'x', 0, TEST_VA, 0);
    require(cpuid_bit(7, 0, 1, 7), "SMEP is not offered");
    *test_entry[1] = 0;
    set_cr4(cr4() | CR4_SMEP);
    {
        struct cpu c = kernel(CODE("jmp rdi"));

        c.di = TEST_VA;
        run(&c);
        set_cr4(cr4() & ~CR4_SMEP);
        check("paging.error-fetch-smep-without-nxe", ERRORS,
              c.vector == V_PF && c.cr2 == TEST_VA ? c.error : 0xbad, 0x10);
    }
    require_end();
    for (unsigned level = 1; level <= 4; level++) {
        frames_reset();
        *test_entry[level] |= PTE_NX;
        flush_tlb();
        expect_access(joined(level_name[level], "-nx-reserved-without-nxe", ""), RESERVED, 'r', 0,
                      TEST_VA, 9);
    }
    wrmsr(0xc0000080, rdmsr(0xc0000080) | 1ull << 11);
}

static void reserved_at(unsigned level, uint64_t bit, const char *what, const char *topic)
{
    frames_reset();
    *test_entry[level] |= bit;
    flush_tlb();
    expect_access(joined(level_name[level], what, "-read"), topic, 'r', 0, TEST_VA, 9);
    expect_access(joined(level_name[level], what, "-write"), topic, 'w', 0, TEST_VA, 0xb);
    expect_access(joined(level_name[level], what, "-fetch"), topic, 'x', 0, TEST_VA, 0x19);
    expect_access(joined(level_name[level], what, "-user-read"), topic, 'r', 3, TEST_VA, 0xd);
}

static void reserved(void)
{
    uint64_t above = ~physical_mask() & PTE_ADDR;

    require(above != 0, "MAXPHYADDR is 52");
    for (unsigned level = 1; level <= 4; level++) {
        reserved_at(level, 1ull << 51, "-bit51", RESERVED);
        frames_reset();
        *test_entry[level] |= above & -above;
        flush_tlb();
        expect_access(joined(level_name[level], "-bit-maxphyaddr", ""), RESERVED, 'r', 0, TEST_VA,
                      9);
    }
    /* a reserved bit counts for an access that the rights forbid as well */
    frames_reset();
    *test_entry[2] |= 1ull << 51;
    *test_entry[1] = 0;
    flush_tlb();
    expect_access("paging.reserved-above-absent", RESERVED, 'r', 0, TEST_VA, 9);
    require_end();
    reserved_at(4, PTE_PS, "-ps", RESERVED);
    require(!cpuid_bit(0x80000001, 0, 3, 26), "1-GiB pages are offered");
    reserved_at(3, PTE_PS, "-ps", RESERVED);
    require_end();
}

static void large(unsigned level, unsigned shift, const char *name)
{
    uint64_t offset = (word)test_frame[0] & ((1ull << shift) - 1);
    uint64_t base = ((word)test_frame[0] & ~((1ull << shift) - 1)) | 7 | PTE_PS;

    frames_reset();
    *test_entry[level] = base;
    flush_tlb();
    expect_access(joined(name, "-read", ""), LARGE, 'r', 3, TEST_VA + offset, NO_FAULT);
    check(joined(name, "-accessed", ""), AD, *test_entry[level] & (PTE_A | PTE_D), PTE_A);
    expect_access(joined(name, "-fetch", ""), LARGE, 'x', 3, TEST_VA + offset, NO_FAULT);
    expect_access(joined(name, "-write", ""), LARGE, 'w', 3, TEST_VA + offset, NO_FAULT);
    check(joined(name, "-dirty", ""), AD, *test_entry[level] & (PTE_A | PTE_D), PTE_A | PTE_D);
    *test_entry[level] = base | 1u << 12 | PTE_G;
    flush_tlb();
    expect_access(joined(name, "-pat-bit", ""), LARGE, 'r', 0, TEST_VA + offset, NO_FAULT);
    *test_entry[level] = base | 1u << 13;
    flush_tlb();
    expect_access(joined(name, "-reserved-bit13", ""), RESERVED, 'r', 0, TEST_VA + offset, 9);
    *test_entry[level] = base | 1u << (shift - 1);
    flush_tlb();
    expect_access(joined(name, "-reserved-highest", ""), RESERVED, 'w', 3, TEST_VA + offset, 0xf);
    *test_entry[level] = base & ~PTE_W;
    flush_tlb();
    expect_access(joined(name, "-readonly", ""), RIGHTS, 'w', 3, TEST_VA + offset, 7);
    *test_entry[level] = base & ~PTE_U;
    flush_tlb();
    expect_access(joined(name, "-supervisor", ""), RIGHTS, 'r', 3, TEST_VA + offset, 5);
    *test_entry[level] = base | PTE_NX;
    flush_tlb();
    expect_access(joined(name, "-nx", ""), RIGHTS, 'x', 3, TEST_VA + offset, 0x15);
}

static uint64_t flags_of(unsigned level)
{
    return *(volatile uint64_t *)test_entry[level] & (PTE_A | PTE_D);
}

static void accessed(void)
{
    frames_reset();
    access_memory('r', 0, TEST_VA);
    check("paging.read-accesses-pte", AD, flags_of(1), PTE_A);
    check("paging.read-accesses-pde", AD, flags_of(2) & PTE_A, PTE_A);
    check("paging.read-accesses-pdpte", AD, flags_of(3) & PTE_A, PTE_A);
    check("paging.read-accesses-pml4e", AD, flags_of(4) & PTE_A, PTE_A);
    access_memory('w', 0, TEST_VA);
    check("paging.write-dirties-pte", AD, flags_of(1), PTE_A | PTE_D);
    check("paging.write-leaves-pde", AD, flags_of(2), PTE_A);
    check("paging.write-leaves-pml4e", AD, flags_of(4), PTE_A);
    frames_reset();
    access_memory('x', 3, TEST_VA);
    check("paging.fetch-accesses", AD, flags_of(1), PTE_A);
    frames_reset();
    access_memory('w', 3, TEST_VA);
    check("paging.user-write-dirties", AD, flags_of(1), PTE_A | PTE_D);
    check("paging.neighbour-stays-clean", AD, test_entry[1][1] & (PTE_A | PTE_D), 0);
    /* what faults writes nothing, so it makes nothing dirty */
    frames_reset();
    *test_entry[1] &= ~PTE_W;
    flush_tlb();
    access_memory('w', 3, TEST_VA);
    check("paging.faulting-write-clean", AD, flags_of(1) & PTE_D, 0);
    frames_reset();
    test_entry[1][1] = 0;
    flush_tlb();
    {
        struct cpu c = kernel(CODE("mov [rdi], rax"));

        c.di = TEST_VA + 0xffc;
        run(&c);
        check_pf("paging.write-into-absent", ERRORS, &c, 2, TEST_VA + 0x1000);
    }
}

/* Instructions that write always, or never, though one might think otherwise. */
static void dirty_by(const char *name, struct code code, word ax, bool dirty)
{
    struct cpu c = kernel(code);

    frames_reset();
    c.di = TEST_VA;
    c.ax = ax;
    c.sp = TEST_VA + 64;
    run(&c);
    check(name, AD, c.vector == V_DONE ? flags_of(1) & PTE_D : 1, dirty ? PTE_D : 0);
}

static void dirty(void)
{
    dirty_by("paging.cmpxchg-unequal-dirties", CODE("lock cmpxchg [rdi], rcx"), 1, true);
    dirty_by("paging.push-dirties", CODE("push rax"), 0, true);
    dirty_by("paging.call-dirties", CODE("call 1f\n 1:"), 0, true);
    dirty_by("paging.pop-is-clean", CODE("pop rax"), 0, false);
    dirty_by("paging.bt-is-clean", CODE("bt qword ptr [rdi], 3"), 0, false);
    dirty_by("paging.bts-dirties", CODE("bts qword ptr [rdi], 3"), 0, true);
    dirty_by("paging.cmp-is-clean", CODE("cmp [rdi], rax"), 0, false);
    dirty_by("paging.sgdt-dirties", CODE("sgdt [rdi]"), 0, true);
    dirty_by("paging.stos-of-none-is-clean", CODE("rep stosb"), 0, false);
}

static void no_fault(void)
{
    struct cpu c;

    test_pages_reset();
    test_entry[1][0] = 0;
    flush_tlb();
    c = kernel(CODE("prefetcht0 [rdi]\n prefetchnta [rdi]"));
    c.di = TEST_VA;
    run_done("paging.prefetch-never-faults", "SDM Vol.2, PREFETCHh", &c);
    c = kernel(CODE("nop dword ptr [rdi]"));
    c.di = TEST_VA;
    run_done("paging.nop-never-faults", "SDM Vol.2, NOP", &c);
    c = kernel(CODE("lea rax, [rdi]"));
    c.di = 0x8000000000000000;
    run_done("paging.lea-never-faults", "SDM Vol.2, LEA", &c);
    c = kernel(CODE("xor ecx, ecx\n rep movsb"));
    c.di = c.si = TEST_VA;
    run_done("paging.movs-of-none", "SDM Vol.2, REP", &c);
    c = kernel(CODE("mov ecx, 1\n 9: cmovz eax, [rdi]")); /* ZF is clear */
    c.di = TEST_VA;
    c.flags = 2;
    run(&c);
    check_pf("paging.cmov-reads-always", "SDM Vol.2, CMOVcc", &c, 0, TEST_VA);
    c = kernel(CODE("clflush [rdi]"));
    c.di = TEST_VA;
    run(&c);
    check_pf("paging.clflush-reads", "SDM Vol.2, CLFLUSH", &c, 0, TEST_VA);
    c = kernel(CODE("xor eax, eax\n 9: rep movsb"));
    c.si = TEST_VA + 0x1000;
    c.di = TEST_VA + 0x3000 - 5;
    c.cx = 10;
    test_entry[1][3] = 0;
    flush_tlb();
    run(&c);
    check_pf("paging.movs-fault", "SDM Vol.2, REP", &c, 2, TEST_VA + 0x3000);
    check("paging.movs-fault-rcx", "SDM Vol.2, REP", c.cx, 5);
    check("paging.movs-fault-rsi", "SDM Vol.2, REP", c.si, TEST_VA + 0x1005);
    check("paging.movs-fault-rdi", "SDM Vol.2, REP", c.di, TEST_VA + 0x3000);
    check("paging.movs-fault-rf", "SDM Vol.3, resume flag", c.flags & FL_RF, FL_RF);
}

void test(void)
{
    rights();
    combined();
    fetch_flag();
    reserved();
    large(2, 21, "paging.2m");
    require(cpuid_bit(0x80000001, 0, 3, 26), "1-GiB pages are not offered");
    large(3, 30, "paging.1g");
    require_end();
    accessed();
    dirty();
    no_fault();
}
