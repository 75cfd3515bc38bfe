/* SMEP, SMAP and protection keys. */
#include "bare.h"

#define SMEP "SDM Vol.3, supervisor-mode execution prevention"
#define SMAP "SDM Vol.3, supervisor-mode access prevention"
#define PKU "SDM Vol.3, protection keys"
#define MSR_PKRS 0x6e1

static void frames_reset(void)
{
    test_pages_reset();
    test_frames_return();
}

static void smep(void)
{
    require(cpuid_bit(7, 0, 1, 7), "SMEP is not offered");
    frames_reset();
    expect_access("smep.off-fetch", SMEP, 'x', 0, TEST_VA, NO_FAULT);
    set_cr4(cr4() | CR4_SMEP);
    expect_access("smep.fetch", SMEP, 'x', 0, TEST_VA, 0x11);
    expect_access("smep.fetch-cpl1", SMEP, 'x', 1, TEST_VA, 0x11);
    expect_access("smep.fetch-cpl2", SMEP, 'x', 2, TEST_VA, 0x11);
    expect_access("smep.user-fetch", SMEP, 'x', 3, TEST_VA, NO_FAULT);
    expect_access("smep.read", SMEP, 'r', 0, TEST_VA, NO_FAULT);
    expect_access("smep.write", SMEP, 'w', 0, TEST_VA, NO_FAULT);
    for (unsigned level = 1; level <= 4; level++) {
        static const char *const names[] = {"", "smep.supervisor-pte", "smep.supervisor-pde",
                                            "smep.supervisor-pdpte", "smep.supervisor-pml4e"};

        frames_reset();
        *test_entry[level] &= ~PTE_U;
        flush_tlb();
        expect_access(names[level], SMEP, 'x', 0, TEST_VA, NO_FAULT);
    }
    frames_reset();
    set_cr4(cr4() & ~CR4_SMEP);
    expect_access("smep.off-again", SMEP, 'x', 0, TEST_VA, NO_FAULT);
    require_end();
}

static void smap_access(const char *name, struct code code, word flags, bool fails, uint32_t error)
{
    struct cpu c = kernel(code);

    c.flags |= flags;
    c.di = TEST_VA;
    c.si = TEST_VA + 0x1000;
    c.cx = 1;
    run(&c);
    if (fails)
        check_pf(name, SMAP, &c, error, TEST_VA);
    else
        check_done(name, SMAP, &c);
}

/* Descriptors are read by the processor itself, as a supervisor whatever CPL and AC are. */
static void smap_implicit(void)
{
    struct code load = UCODE("9: mov fs, eax");
    struct code kload = CODE("mov eax, 7\n 9: mov fs, eax");
    struct cpu c;

    for (unsigned i = 0; i < 2; i++) {
        word keep = cr4();

        gdt_set(S_LDT, descriptor((uint32_t)TEST_VA, 0xfff, 0x82, 0));
        gdt_set(S_LDT + 8, TEST_VA >> 32);
        if (i == 0)
            set_cr4(keep & ~CR4_SMAP);
        *(volatile uint64_t *)test_frame[0] = descriptor(0, 0xfffff, 0xf3, 0xc);
        if (!skipping())
            __asm__ volatile("lldt %w0" : : "r"(S_LDT));
        c = user(load);
        c.ax = 7;
        c.flags |= FL_AC;
        run(&c);
        if (i == 0) {
            check_done("smap.off-implicit", SMAP, &c);
            set_cr4(keep);
            continue;
        }
        check_pf("smap.implicit-user-ac", SMAP, &c, 1, TEST_VA);
        c = user(load);
        c.ax = 7;
        run(&c);
        check_pf("smap.implicit-user", SMAP, &c, 1, TEST_VA);
        c = kernel(kload);
        c.flags |= FL_AC;
        run(&c);
        check_pf("smap.implicit-ac", SMAP, &c, 1, TEST_VA);
    }
    if (!skipping())
        __asm__ volatile("lldt %w0" : : "r"(0));
    gdt_reset();
    frames_reset();
}

/* STAC and CLAC themselves. */
static void stac(void)
{
    struct cpu c = kernel(CODE("stac"));

    run(&c);
    check("smap.stac-sets", "SDM Vol.2, STAC", c.vector == V_DONE ? c.flags & FL_AC : 0, FL_AC);
    c = kernel(CODE("clac"));
    c.flags |= FL_AC | FL_CF;
    run(&c);
    check("smap.clac-clears", "SDM Vol.2, CLAC", c.vector == V_DONE ? c.flags & ~FL_RF : 0,
          2 | FL_CF);
    c = user(UCODE("stac"));
    run_fault("smap.user-stac", "SDM Vol.2, STAC", &c, V_UD, NO_ERROR);
    c = user(UCODE("clac"));
    run_fault("smap.user-clac", "SDM Vol.2, CLAC", &c, V_UD, NO_ERROR);
    c = at_level(CODE("stac"), 1);
    run_fault("smap.cpl1-stac", "SDM Vol.2, STAC", &c, V_UD, NO_ERROR);
    c = kernel(CODE(".byte 0xf0, 0x0f, 0x01, 0xcb"));
    run_fault("smap.lock-stac", "SDM Vol.2, STAC", &c, V_UD, NO_ERROR);
    /* an interrupt leaves AC as it is, and an IRET to CPL 3 takes it along */
    c = user(UCODE("nop"));
    c.flags |= FL_AC;
    run(&c);
    check("smap.ac-in-frame", "SDM Vol.3, alignment check flag", c.flags & FL_AC, FL_AC);
}

static void smap(void)
{
    require(cpuid_bit(7, 0, 1, 20), "SMAP is not offered");
    frames_reset();
    smap_access("smap.off-read", CODE("mov al, [rdi]"), 0, false, 0);
    set_cr4(cr4() | CR4_SMAP);
    smap_access("smap.read", CODE("mov al, [rdi]"), 0, true, 1);
    smap_access("smap.write", CODE("mov [rdi], al"), 0, true, 3);
    smap_access("smap.read-write", CODE("add [rdi], al"), 0, true, 3);
    smap_access("smap.string-read", CODE("xchg rsi, rdi\n 9: rep lodsb"), 0, true, 1);
    smap_access("smap.string-write", CODE("rep stosb"), 0, true, 3);
    smap_access("smap.push", CODE("lea rsp, [rdi + 8]\n 9: push rax"), 0, true, 3);
    smap_access("smap.pop", CODE("mov rsp, rdi\n 9: pop rax"), 0, true, 1);
    smap_access("smap.locked", CODE("lock inc dword ptr [rdi]"), 0, true, 3);
    smap_access("smap.ac-read", CODE("mov al, [rdi]"), FL_AC, false, 0);
    smap_access("smap.ac-write", CODE("mov [rdi], al"), FL_AC, false, 0);
    smap_access("smap.stac", CODE("stac\n mov al, [rdi]"), 0, false, 0);
    smap_access("smap.clac", CODE("clac\n 9: mov al, [rdi]"), FL_AC, true, 1);
    smap_access("smap.popf-sets-ac",
                CODE("pushfq\n or dword ptr [rsp], 0x40000\n popfq\n"
                     "mov al, [rdi]"),
                0, false, 0);
    smap_access("smap.popf-clears-ac",
                CODE("pushfq\n and dword ptr [rsp], 0xfffbffff\n popfq\n"
                     "9: mov al, [rdi]"),
                FL_AC, true, 1);
    test_frames_return();
    expect_access("smap.fetch", SMAP, 'x', 0, TEST_VA, NO_FAULT);
    expect_access("smap.user-read", SMAP, 'r', 3, TEST_VA, NO_FAULT);
    expect_access("smap.user-write", SMAP, 'w', 3, TEST_VA, NO_FAULT);
    expect_access("smap.read-cpl1", SMAP, 'r', 1, TEST_VA, 1);
    expect_access("smap.read-cpl2", SMAP, 'r', 2, TEST_VA, 1);
    *test_entry[1] &= ~PTE_W;
    flush_tlb();
    smap_access("smap.ac-readonly", CODE("mov [rdi], al"), FL_AC, true, 3);
    set_cr0(cr0() & ~CR0_WP);
    smap_access("smap.wp0-write", CODE("mov [rdi], al"), 0, true, 3);
    smap_access("smap.wp0-ac-write", CODE("mov [rdi], al"), FL_AC, false, 0);
    set_cr0(cr0() | CR0_WP);
    for (unsigned level = 1; level <= 4; level++) {
        static const char *const names[] = {"", "smap.supervisor-pte", "smap.supervisor-pde",
                                            "smap.supervisor-pdpte", "smap.supervisor-pml4e"};

        frames_reset();
        *test_entry[level] &= ~PTE_U;
        flush_tlb();
        expect_access(names[level], SMAP, 'r', 0, TEST_VA, NO_FAULT);
    }
    frames_reset();
    smap_implicit();
    set_cr4(cr4() & ~CR4_SMAP);
    stac();
    require_end();
}

/* ---- protection keys ---- */

static void set_key(unsigned key, uint64_t clear)
{
    frames_reset();
    *test_entry[1] = (*test_entry[1] & ~clear) | (uint64_t)key << 59;
    flush_tlb();
}

static void wrpkru(uint32_t value)
{
    if (!skipping())
        __asm__ volatile(".byte 0x0f, 0x01, 0xef" : : "a"(value), "c"(0), "d"(0) : "memory");
}

static void pku_instructions(void)
{
    struct cpu c = kernel(CODE(".byte 0x0f, 0x01, 0xee"));

    run_fault("pku.rdpkru-off", "SDM Vol.2, RDPKRU", &c, V_UD, NO_ERROR);
    c = kernel(CODE(".byte 0x0f, 0x01, 0xef"));
    run_fault("pku.wrpkru-off", "SDM Vol.2, WRPKRU", &c, V_UD, NO_ERROR);
    check("pku.ospke-clear", "SDM Vol.2, CPUID", cpuid_bit(7, 0, 2, 4), 0);
    set_cr4(cr4() | CR4_PKE);
    check("pku.ospke-set", "SDM Vol.2, CPUID", cpuid_bit(7, 0, 2, 4), 1);
    c = user(UCODE("mov eax, 0x12345670\n .byte 0x0f, 0x01, 0xef\n"
                   "mov rax, -1\n mov rdx, -1\n .byte 0x0f, 0x01, 0xee"));
    run(&c);
    check("pku.user-wrpkru", "SDM Vol.2, RDPKRU", c.vector == V_DONE ? c.ax : 0, 0x12345670);
    check("pku.rdpkru-clears-edx", "SDM Vol.2, RDPKRU", c.dx, 0);
    wrpkru(0);
    c = kernel(CODE(".byte 0x0f, 0x01, 0xee"));
    c.cx = 1;
    run_fault("pku.rdpkru-ecx", "SDM Vol.2, RDPKRU", &c, V_GP, 0);
    c = kernel(CODE(".byte 0x0f, 0x01, 0xef"));
    c.cx = 1;
    run_fault("pku.wrpkru-ecx", "SDM Vol.2, WRPKRU", &c, V_GP, 0);
    c = kernel(CODE(".byte 0x0f, 0x01, 0xef"));
    c.dx = 1;
    run_fault("pku.wrpkru-edx", "SDM Vol.2, WRPKRU", &c, V_GP, 0);
    c = kernel(CODE(".byte 0xf0, 0x0f, 0x01, 0xef"));
    run_fault("pku.lock-wrpkru", "SDM Vol.2, WRPKRU", &c, V_UD, NO_ERROR);
}

static void pku(void)
{
    require(cpuid_bit(7, 0, 2, 3), "protection keys for user pages are not offered");
    frames_reset();
    pku_instructions();
    set_key(5, 0);
    wrpkru(1u << 10); /* AD of key 5 */
    expect_access("pku.ad-user-read", PKU, 'r', 3, TEST_VA, 0x25);
    expect_access("pku.ad-user-write", PKU, 'w', 3, TEST_VA, 0x27);
    expect_access("pku.ad-read", PKU, 'r', 0, TEST_VA, 0x21);
    expect_access("pku.ad-write", PKU, 'w', 0, TEST_VA, 0x23);
    expect_access("pku.ad-user-fetch", PKU, 'x', 3, TEST_VA, NO_FAULT);
    expect_access("pku.ad-other-key", PKU, 'r', 3, TEST_VA + 0x1000, NO_FAULT);
    wrpkru(2u << 10); /* WD */
    expect_access("pku.wd-user-read", PKU, 'r', 3, TEST_VA, NO_FAULT);
    expect_access("pku.wd-user-write", PKU, 'w', 3, TEST_VA, 0x27);
    expect_access("pku.wd-write", PKU, 'w', 0, TEST_VA, 0x23);
    set_cr0(cr0() & ~CR0_WP);
    expect_access("pku.wd-write-wp0", PKU, 'w', 0, TEST_VA, NO_FAULT);
    expect_access("pku.wd-user-write-wp0", PKU, 'w', 3, TEST_VA, 0x27);
    wrpkru(1u << 10);
    expect_access("pku.ad-write-wp0", PKU, 'w', 0, TEST_VA, 0x23);
    set_cr0(cr0() | CR0_WP);
    wrpkru(~(3u << 10) & ~3u); /* all other keys but 0 */
    expect_access("pku.only-its-key", PKU, 'w', 3, TEST_VA, NO_FAULT);
    set_key(15, 0);
    expect_access("pku.key15", PKU, 'r', 3, TEST_VA, 0x25);
    wrpkru(1);
    set_key(0, 0);
    {
        struct cpu c = kernel(CODE("mov al, [rdi]"));

        c.di = TEST_VA;
        run(&c);
        wrpkru(0);
        check_pf("pku.key0", PKU, &c, 0x21, TEST_VA);
    }
    wrpkru(3u << 10);
    set_key(5, PTE_U);
    expect_access("pku.supervisor-page", PKU, 'w', 0, TEST_VA, NO_FAULT);
    expect_access("pku.user-of-supervisor-page", PKU, 'r', 3, TEST_VA, 5);
    set_key(5, PTE_P);
    expect_access("pku.absent", PKU, 'r', 3, TEST_VA, 4);
    set_key(5, 0);
    *test_entry[1] &= ~PTE_W;
    flush_tlb();
    expect_access("pku.readonly-too", PKU, 'w', 3, TEST_VA, 0x27);
    set_key(5, 0);
    *test_entry[1] = 0;
    *test_entry[2] = ((word)test_frame[0] & ~0x1ffffful) | 7 | PTE_PS | 5ull << 59;
    flush_tlb();
    expect_access("pku.large-page", PKU, 'r', 3, TEST_VA, 0x25);
    set_cr4(cr4() & ~CR4_PKE);
    set_key(5, 0);
    expect_access("pku.off", PKU, 'w', 3, TEST_VA, NO_FAULT);
    require_end();
}

static void pks(void)
{
    require(cpuid_bit(7, 0, 2, 31), "protection keys for supervisor pages are not offered");
    check("pks.reserved", PKU, wrmsr_faults(MSR_PKRS, 1ull << 32), 1);
    set_cr4(cr4() | CR4_PKS);
    set_key(5, PTE_U);
    wrmsr(MSR_PKRS, 1u << 10);
    check("pks.msr", PKU, rdmsr(MSR_PKRS), 1u << 10);
    expect_access("pks.ad-read", PKU, 'r', 0, TEST_VA, 0x21);
    expect_access("pks.ad-write", PKU, 'w', 0, TEST_VA, 0x23);
    expect_access("pks.ad-fetch", PKU, 'x', 0, TEST_VA, NO_FAULT);
    expect_access("pks.user", PKU, 'r', 3, TEST_VA, 5);
    wrmsr(MSR_PKRS, 2u << 10);
    expect_access("pks.wd-read", PKU, 'r', 0, TEST_VA, NO_FAULT);
    expect_access("pks.wd-write", PKU, 'w', 0, TEST_VA, 0x23);
    set_cr0(cr0() & ~CR0_WP);
    expect_access("pks.wd-write-wp0", PKU, 'w', 0, TEST_VA, NO_FAULT);
    set_cr0(cr0() | CR0_WP);
    wrmsr(MSR_PKRS, 3u << 10);
    set_key(5, 0);
    expect_access("pks.user-page", PKU, 'w', 0, TEST_VA, NO_FAULT);
    set_cr4(cr4() & ~CR4_PKS);
    set_key(5, PTE_U);
    expect_access("pks.off", PKU, 'w', 0, TEST_VA, NO_FAULT);
    wrmsr(MSR_PKRS, 0);
    require_end();
}

void test(void)
{
    smep();
    smap();
    pku();
    pks();
}
