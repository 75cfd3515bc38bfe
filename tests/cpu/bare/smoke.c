/* The runtime itself: each way into a fragment and back, in both widths. */
#include "bare.h"

static void common(void)
{
    struct cpu c = kernel(CODE("xor ecx, ecx\n 9: div ecx"));

    run(&c);
    check_fault("smoke.fault", "SDM Vol.3, #DE", &c, V_DE, NO_ERROR);
    c.cx = 1;
    run(&c);
    check_done("smoke.resume", "SDM Vol.3, returning from a fault", &c);
    c = user(UCODE("mov eax, 5\n 9: hlt"));
    run(&c);
    check_fault("smoke.user", "SDM Vol.3, privileged instructions", &c, V_GP, 0);
    check("smoke.registers", "SDM Vol.3, privileged instructions", c.ax, 5);
    c = code16(CODE16("mov ax, cs\n mov [0x100], ax"));
    run(&c);
    check_done("smoke.code16", "SDM Vol.3, 16-bit code segments", &c);
    check("smoke.code16-data", "SDM Vol.3, 16-bit code segments",
          *(volatile uint16_t *)(word)(LOW_CODE + 0x100), S_CODE16);
}

static void levels(void)
{
    static const char *const names[] = {"smoke.cpl0", "smoke.cpl1", "smoke.cpl2", "smoke.cpl3"};
    struct code code = UCODE("mov eax, cs");

    for (unsigned level = 0; level < 4; level++) {
        struct cpu c = at_level(code, level);

        run(&c);
        check(names[level], "SDM Vol.3, CPL", c.ax & 3, level);
    }
}

#ifdef __x86_64__
static void wide(void)
{
    struct cpu c = kernel(CODE32("mov eax, [0x800000]\n dec eax"));

    c.cs = S_CODE32;
    run(&c);
    check_done("smoke.compat", "SDM Vol.3, compatibility mode", &c);
    *test_entry[1] = 0;
    flush_tlb();
    c = kernel(CODE("inc rax\n 9: mov rax, [rdi]"));
    c.di = TEST_VA;
    run(&c);
    check_pf("smoke.page", "SDM Vol.3, page-fault exceptions", &c, 0, TEST_VA);
}
#else
static void wide(void)
{
    static const char *const names[] = {"smoke.page-off", "smoke.page-32", "smoke.page-pae"};
    struct cpu c = real(CODE16("mov ax, 0x1234\n 9: ud2"));

    run_real(&c);
    check_fault("smoke.real", "SDM Vol.3, real-address mode", &c, V_UD, NO_ERROR);
    check("smoke.real-registers", "SDM Vol.3, real-address mode", c.ax, 0x1234);
    c = vm86(CODE16("mov ax, 0x1234\n 9: hlt"), 3);
    run(&c);
    check_fault("smoke.vm86", "SDM Vol.3, virtual-8086 mode", &c, V_GP, 0);
    c = kernel(CODE("9: mov eax, [edi]"));
    for (unsigned form = PAGING_OFF; form <= PAGING_PAE; form++) {
        paging(form);
        test_pte32[0] = 0;
        *test_entry[1] = 0;
        flush_tlb();
        c.ip = c.code.start;
        c.di = TEST_VA;
        run(&c);
        if (form == PAGING_OFF) /* whatever a machine has at 1 GiB */
            check_done(names[form], "SDM Vol.3, paging", &c);
        else
            check_pf(names[form], "SDM Vol.3, page-fault exceptions", &c, 0, TEST_VA);
    }
    paging(PAGING_OFF);
}
#endif

void test(void)
{
    common();
    levels();
    wide();
}
