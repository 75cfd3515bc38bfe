/* 5-level paging: entered by way of compatibility mode with paging off, and left the same way. */
#include "bare.h"

#define LA57 "SDM Vol.3, 5-level paging"
#define CANON "SDM Vol.1, canonical addressing"

extern uint64_t pml4[512];
static uint64_t pml5[512] __attribute__((aligned(4096)));

/* TEST_VA through the second entry of the top. */
#define HIGH_VA (1ul << 48 | TEST_VA)
#define LOWER_END (1ul << 56)
#define UPPER_START 0xff00000000000000ul

/* Changes CR4.LA57 and the root; in a fragment, since paging is off in between. */
static struct cpu turn(bool on)
{
    struct cpu c = kernel(CODE32("mov eax, cr0\n and eax, 0x7fffffff\n mov cr0, eax\n"
                                 "mov eax, cr4\n xor eax, 0x1000\n mov cr4, eax\n mov cr3, edi\n"
                                 "mov eax, cr0\n or eax, 0x80000000\n mov cr0, eax"));

    c.cs = S_CODE32;
    c.ss = S_DATA;
    c.di = on ? (word)pml5 : (word)pml4;
    run(&c);
    return c;
}

static void reset(void)
{
    test_pages_reset();
    test_frames_return();
    for (unsigned i = 2; i < 512; i++) /* the first is in use */
        pml5[i] = 0;
    pml5[0] = pml5[1] = pml5[255] = pml5[256] = (word)pml4 | 7;
    flush_tlb();
}

static void walks(void)
{
    expect_access("la57.read", LA57, 'r', 0, HIGH_VA, NO_FAULT);
    check("la57.accessed", LA57, pml5[1] & PTE_A, PTE_A);
    expect_access("la57.user-write", LA57, 'w', 3, HIGH_VA, NO_FAULT);
    expect_access("la57.fetch", LA57, 'x', 3, HIGH_VA, NO_FAULT);
    expect_access("la57.absent", LA57, 'r', 0, 2ul << 48, 0);
    expect_access("la57.user-absent", LA57, 'w', 3, 2ul << 48, 6);
    expect_access("la57.last-of-lower", LA57, 'r', 0, (255ul << 48) | TEST_VA, NO_FAULT);
    expect_access("la57.first-of-upper", LA57, 'r', 0, UPPER_START | TEST_VA, NO_FAULT);
    pml5[1] &= ~PTE_W;
    flush_tlb();
    expect_access("la57.readonly", LA57, 'w', 3, HIGH_VA, 7);
    reset();
    pml5[1] &= ~PTE_U;
    flush_tlb();
    expect_access("la57.supervisor", LA57, 'r', 3, HIGH_VA, 5);
    reset();
    pml5[1] |= PTE_NX;
    flush_tlb();
    expect_access("la57.nx", LA57, 'x', 0, HIGH_VA, 0x11);
    reset();
    pml5[1] |= PTE_PS;
    flush_tlb();
    expect_access("la57.ps-reserved", LA57, 'r', 0, HIGH_VA, 9);
    reset();
    require((~physical_mask() & PTE_ADDR) != 0, "MAXPHYADDR is 52");
    pml5[1] |= 1ull << 51;
    flush_tlb();
    expect_access("la57.reserved", LA57, 'r', 0, HIGH_VA, 9);
    require_end();
    require(cpuid_bit(7, 0, 2, 16), "LA57 is not offered");
    reset();
}

static void canonical(void)
{
    struct cpu c = kernel(CODE("mov al, [rdi]"));

    c.di = LOWER_END;
    run_fault("la57.first-outside", CANON, &c, V_GP, 0);
    c.ip = c.code.start;
    c.di = UPPER_START - 1;
    run_fault("la57.last-outside", CANON, &c, V_GP, 0);
    c = kernel(CODE("mov al, [rbp]"));
    c.bp = LOWER_END;
    run_fault("la57.stack-outside", CANON, &c, V_SS, 0);
    c = kernel(CODE("jmp rdi"));
    c.di = LOWER_END;
    run_fault("la57.jump-outside", CANON, &c, V_GP, 0);
    check("la57.msr-outside", CANON, wrmsr_faults(0xc0000082, LOWER_END), 1);
    check("la57.msr-inside", CANON, wrmsr_faults(0xc0000082, UPPER_START), 0);
    wrmsr(0xc0000082, 0);
    c = kernel(CODE("mov cr4, rax"));
    c.ax = cr4() & ~CR4_LA57;
    run_fault("la57.no-change-in-64-bit", LA57, &c, V_GP, 0);
}

void test(void)
{
    struct cpu c;

    require(cpuid_bit(7, 0, 2, 16), "LA57 is not offered");
    reset();
    c = kernel(CODE("mov cr4, rax"));
    c.ax = cr4() | CR4_LA57;
    run_fault("la57.not-from-64-bit", LA57, &c, V_GP, 0);
    c = kernel(CODE("mov al, [rdi]"));
    c.di = 1ul << 48;
    run_fault("la57.off-canonical", CANON, &c, V_GP, 0);
    check("la57.off-msr", "SDM Vol.1, canonicality of MSRs, by the processor's width",
          wrmsr_faults(0xc0000082, 1ull << 48), 0);
    wrmsr(0xc0000082, 0);
    c = turn(true);
    check_done("la57.turned-on", LA57, &c);
    check("la57.cr4", LA57, cr4() & CR4_LA57, CR4_LA57);
    walks();
    canonical();
    c = turn(false);
    check_done("la57.turned-off", LA57, &c);
    c = kernel(CODE("mov al, [rdi]"));
    c.di = 1ul << 48;
    run_fault("la57.off-canonical-again", CANON, &c, V_GP, 0);
    require_end();
}
