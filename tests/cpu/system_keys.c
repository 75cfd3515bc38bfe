/* Protection keys, five-level paging, the A20 gate, x87 errors by IRQ 13. */
#include "system.h"

#define KEY(n) ((uint64_t)(n) << 59)
#define AD(n) (1u << 2 * (n))
#define WD(n) (2u << 2 * (n))
#define MSR_PKRS 0x6e1

CODE(ky_load, 64, "mov (%rbx), %rax\n" DONE);
CODE(ky_load_twice, 64, "mov (%rbx), %rsi\nout %al, %dx\nmov (%rbx), %rax\n" DONE);
CODE(ky_store, 64, "mov %rax, (%rbx)\n" DONE);
CODE(ky_load_store, 64, "mov (%rbx), %rax\nmov %rax, (%rbx)\n" DONE);
CODE(ky_jump, 64, "jmp *%rbx\n");
CODE(ky_done, 64, DONE);
CODE(ky_wrpkru, 64, "wrpkru\nmov (%rbx), %rax\n" DONE);
CODE(ky_rdpkru, 64, "rdpkru\n" DONE);
CODE(ky_twice, 64,
     "mov (%rbx), %rsi\nmov $4, %eax\nxor %ecx, %ecx\nxor %edx, %edx\nwrpkru\n"
     "mov (%rbx), %rsi\n" DONE);
CODE(ky_wrmsr, 64, "mov (%rbx), %rsi\nwrmsr\nmov (%rbx), %rsi\n" DONE);
CODE(ky_wrmsr_only, 64, "wrmsr\n" DONE);
CODE(ky_cr4, 64, "mov %rax, %cr4\n" DONE);
CODE(ky_cpuid, 64, "cpuid\n" DONE);
CODE(ky_xrstor, 64,
     "mov (%rbx), %rsi\nmov $0x200, %eax\nxor %edx, %edx\nxrstor (%rdi)\n"
     "mov (%rbx), %rsi\n" DONE);

static int run(struct machine *m, const uint8_t *code, size_t len)
{
    m_write(m, m->st.rip, code, len);
    return m_run(m);
}
#define RUN(m, code) run(m, code, (size_t)(code##_end - (code)))

static void keyed(struct machine *m, bool user_page, uint32_t pkru)
{
    m_long(m);
    m->st.cr4 |= X86_CR4_PKE;
    m->st.xcr0 = 0x207;
    memcpy(m->st.xsave + X86_XSAVE_PKRU, &pkru, 4);
    m->st.gpr[X86_RBX] = A_TEST;
    m->st.gpr[X86_RCX] = m->st.gpr[X86_RDX] = 0;
    m_pte(m, A_TEST, PTE_P | PTE_W | (user_page ? PTE_U : 0) | KEY(1));
}

static void check_pkru(struct machine *m)
{
    keyed(m, true, AD(1));
    RUN(m, ky_load);
    expect_pf(m, "PKRU.AD stops a supervisor's read of a user page", 0x21, A_TEST);
    keyed(m, true, AD(1));
    m_user(m);
    RUN(m, ky_load);
    expect_pf(m, "PKRU.AD stops a user's read", 0x25, A_TEST);
    keyed(m, true, AD(1));
    m_user(m);
    RUN(m, ky_store);
    expect_pf(m, "PKRU.AD stops a user's write", 0x27, A_TEST);
    keyed(m, true, WD(1));
    m_user(m);
    RUN(m, ky_load_store);
    expect_pf(m, "PKRU.WD stops a user's write, not the read", 0x27, A_TEST);
    keyed(m, true, WD(1));
    RUN(m, ky_load_store);
    expect_pf(m, "PKRU.WD stops a supervisor's write if CR0.WP", 0x23, A_TEST);
    keyed(m, true, WD(1));
    m->st.cr0 &= ~(uint64_t)X86_CR0_WP;
    RUN(m, ky_load_store);
    expect_event(m, "PKRU.WD lets a supervisor write if not CR0.WP", 0x80, NO_ERROR, ANY_RIP);
    keyed(m, true, AD(2) | WD(2));
    m_user(m);
    RUN(m, ky_load_store);
    expect_event(m, "another key's rights", 0x80, NO_ERROR, ANY_RIP);
    keyed(m, false, AD(1) | WD(1));
    RUN(m, ky_load_store);
    expect_event(m, "PKRU does not concern supervisor pages", 0x80, NO_ERROR, ANY_RIP);
    keyed(m, true, AD(1));
    m->st.cr4 &= ~(uint64_t)X86_CR4_PKE;
    RUN(m, ky_load);
    expect_event(m, "no keys without CR4.PKE", 0x80, NO_ERROR, ANY_RIP);
    keyed(m, true, AD(1) | WD(1));
    m_user(m);
    LOAD(m, A_TEST, ky_done);
    RUN(m, ky_jump);
    expect_event(m, "keys do not stop a fetch", 0x80, NO_ERROR, ANY_RIP);
    keyed(m, true, AD(1));
    m_user(m);
    m_pte(m, A_TEST, PTE_W | PTE_U | KEY(1));
    RUN(m, ky_load);
    expect_pf(m, "an absent page has no key", 4, A_TEST);
    keyed(m, true, 0);
    RUN(m, ky_twice);
    expect_pf(m, "WRPKRU counts at once", 0x21, A_TEST);
    keyed(m, true, AD(1));
    m->st.gpr[X86_RAX] = WD(1);
    RUN(m, ky_wrpkru);
    expect_event(m, "WRPKRU gives the right back", 0x80, NO_ERROR, ANY_RIP);
    keyed(m, true, 0x12345678);
    RUN(m, ky_rdpkru);
    expect("RDPKRU", m->st.gpr[X86_RAX], 0x12345678);
    expect("RDPKRU clears RDX", m->st.gpr[X86_RDX], 0);
    keyed(m, true, 0);
    m->st.gpr[X86_RCX] = 1;
    RUN(m, ky_rdpkru);
    expect_event(m, "RDPKRU with ECX", X86_EXC_GP, 0, A_CODE);
    keyed(m, true, 0);
    m->st.gpr[X86_RDX] = 1;
    RUN(m, ky_wrpkru);
    expect_event(m, "WRPKRU with EDX", X86_EXC_GP, 0, A_CODE);
    keyed(m, true, 0);
    m->st.cr4 &= ~(uint64_t)X86_CR4_PKE;
    RUN(m, ky_rdpkru);
    expect_event(m, "RDPKRU without CR4.PKE", X86_EXC_UD, NO_ERROR, A_CODE);
    keyed(m, true, 0);
    m->st.gpr[X86_RDI] = A_DATA;
    gmem_fill(m->env.mem, A_DATA, 0, 0x1000);
    m_put64(m, A_DATA + 512, 0x200);
    m_put32(m, A_DATA + X86_XSAVE_PKRU, AD(1));
    RUN(m, ky_xrstor);
    expect_pf(m, "XRSTOR of PKRU counts at once", 0x21, A_TEST);
}

static void check_pkrs(struct machine *m)
{
    keyed(m, false, 0);
    m->st.cr4 |= X86_CR4_PKS;
    m->st.pkrs = AD(1);
    RUN(m, ky_load);
    expect_pf(m, "PKRS.AD stops a read of a supervisor page", 0x21, A_TEST);
    keyed(m, false, 0);
    m->st.cr4 |= X86_CR4_PKS;
    m->st.pkrs = WD(1);
    RUN(m, ky_load_store);
    expect_pf(m, "PKRS.WD stops a write", 0x23, A_TEST);
    keyed(m, false, 0);
    m->st.cr4 |= X86_CR4_PKS;
    m->st.cr0 &= ~(uint64_t)X86_CR0_WP;
    m->st.pkrs = WD(1);
    RUN(m, ky_load_store);
    expect_event(m, "PKRS.WD lets a write pass if not CR0.WP", 0x80, NO_ERROR, ANY_RIP);
    keyed(m, true, 0);
    m->st.cr4 |= X86_CR4_PKS;
    m->st.pkrs = AD(1);
    RUN(m, ky_load);
    expect_event(m, "PKRS does not concern user pages", 0x80, NO_ERROR, ANY_RIP);
    keyed(m, false, 0);
    m->st.cr4 |= X86_CR4_PKS;
    m->st.gpr[X86_RCX] = MSR_PKRS;
    m->st.gpr[X86_RAX] = AD(1);
    RUN(m, ky_wrmsr);
    expect_pf(m, "WRMSR of PKRS counts at once", 0x21, A_TEST);
    keyed(m, false, 0);
    m->st.gpr[X86_RCX] = MSR_PKRS;
    m->st.gpr[X86_RDX] = 1;
    RUN(m, ky_wrmsr_only);
    expect_event(m, "PKRS has 32 bits", X86_EXC_GP, 0, A_CODE);
}

static void check_cpuid(struct machine *m)
{
    keyed(m, true, 0);
    m->st.gpr[X86_RAX] = 7;
    RUN(m, ky_cpuid);
    expect("CPUID 7: PKU, OSPKE", m->st.gpr[X86_RCX] >> 3 & 3, 3);
    keyed(m, true, 0);
    m->st.cr4 &= ~(uint64_t)X86_CR4_PKE;
    m->st.gpr[X86_RAX] = 7;
    RUN(m, ky_cpuid);
    expect("CPUID 7: OSPKE follows CR4", m->st.gpr[X86_RCX] >> 3 & 3, 1);
    keyed(m, true, 0);
    m->st.gpr[X86_RAX] = 0xd;
    RUN(m, ky_cpuid);
    expect("CPUID D: the standard area holds PKRU", m->st.gpr[X86_RBX], X86_XSAVE_PKRU + 8);
    keyed(m, true, 0);
    m->st.gpr[X86_RAX] = 1;
    RUN(m, ky_cpuid);
    expect("CPUID 1: no APIC while its base disables it", m->st.gpr[X86_RDX] >> 9 & 1, 0);
}

/* ---- A20 ---- */

static void check_a20(struct machine *m)
{
    m_long(m);
    m->st.a20_masked = true;
    m_put64(m, 0x300000, 0x1111);
    m_put64(m, 0x200000, 0x2222);
    m->st.gpr[X86_RBX] = 0x300000;
    RUN(m, ky_load);
    expect("A20 closed: bit 20 reads as zero", m->st.gpr[X86_RAX], 0x2222);
    m_long(m);
    m_put64(m, 0x300000, 0x1111);
    m->st.gpr[X86_RBX] = 0x300000;
    m->st.gpr[X86_RDX] = A_STOP;
    m->st.a20_masked = true;
    RUN(m, ky_load_twice);
    expect("A20 closed once more", m->st.gpr[X86_RSI], 0x2222);
    engine_soft.a20(m->vm, true);
    m_resume(m);
    expect("A20 opened while the guest runs", m->st.gpr[X86_RAX], 0x1111);
    m_real(m);
    m->st.a20_masked = true;
    m->st.seg[X86_DS] =
        (struct x86_segment){.selector = 0xffff, .attr = 0x93, .limit = 0xffff, .base = 0xffff0};
    m_write(m, A_CODE, "\xa1\x10\x05\xcd\x80", 5); /* mov 0x510, %ax */
    m_put32(m, 4 * 0x80, A_HANDLERS << 12 | 16 * 0x80);
    m_put16(m, 0x500, 0x3333); /* FFFF:0510 is 0x100500: wraps to 0x500 */
    m_run(m);
    expect("A20 closed: real mode wraps at 1 MiB", m->st.gpr[X86_RAX] & 0xffff, 0x3333);
    m->st.a20_masked = false;
}

/* ---- x87 errors with CR0.NE = 0 ---- */

CODE(fe_div, 64, "fninit\nfldcw (%rbx)\nfld1\nfldz\nfdivrp\nfwait\n" DONE);
CODE(fe_again, 64, "fnstsw %ax\nfnclex\nfld1\nfwait\n" DONE);
CODE(fe_ignored, 64, "fld1\nfld1\nfaddp\n" DONE);

static void check_ferr(struct machine *m)
{
    uint64_t at;

    m_long(m);
    m->st.cr0 &= ~(uint64_t)X86_CR0_NE;
    m->st.gpr[X86_RBX] = A_DATA;
    m_put16(m, A_DATA, 0x37b); /* division by zero unmasked */
    m->st.rflags |= X86_FL_IF;
    m->ferr = 0;
    RUN(m, fe_div);
    at = m->st.rip;
    expect("NE = 0: the waiting instruction waits", m->exit.reason, VCPU_EXIT_HLT);
    expect("NE = 0: before itself", at, A_CODE + 10);
    expect("NE = 0: FERR# once", m->ferr, 1);
    m->irq = 0x75;
    engine_soft.interrupt(m->vcpu);
    m_resume(m);
    expect_event(m, "NE = 0: an interrupt ends the wait", 0x75, NO_ERROR, at);
    m->st.mp_state = X86_MP_RUNNING;
    m->st.rip = A_CODE;
    m->st.ferr = m->st.ignne = true;
    RUN(m, fe_ignored);
    expect_event(m, "IGNNE#: instructions run although an error waits", 0x80, NO_ERROR, ANY_RIP);
    m_long(m);
    m->st.cr0 &= ~(uint64_t)X86_CR0_NE;
    m->st.ferr = m->st.ignne = true;
    RUN(m, fe_again);
    expect("FNCLEX takes FERR# and IGNNE# back", m->st.ferr | m->st.ignne, 0);
}

/* ---- five levels; a machine of its own ---- */

#define A_PML5 0x53000

static void again(struct machine *m)
{
    m->st.mp_state = X86_MP_RUNNING;
    m->st.rip = A_CODE;
    m->st.gpr[X86_RSP] = A_STACK;
}

static void check_la57(struct machine *m)
{
    const uint64_t high = 1ull << 50;

    m_long(m);
    m_put64(m, A_PML5, A_PML4 | PTE_P | PTE_W | PTE_U);
    m_put64(m, A_PML5 + 8 * 4, A_PML4 | PTE_P | PTE_W | PTE_U); /* 1 << 50 is entry 4 */
    m->st.cr3 = A_PML5;
    m->st.cr4 |= X86_CR4_LA57;
    m->st.gpr[X86_RBX] = high + A_DATA;
    m_put64(m, A_DATA, 0x5757);
    RUN(m, ky_load);
    expect("LA57: five levels", m->st.gpr[X86_RAX], 0x5757);
    expect("LA57: A in the fifth", m_get64(m, A_PML5 + 32) & PTE_A, PTE_A);
    again(m);
    m->st.gpr[X86_RBX] = 1ull << 56;
    RUN(m, ky_load);
    expect_event(m, "LA57: not canonical by 57 bits", X86_EXC_GP, 0, A_CODE);
    m_put64(m, A_PML5 + 8 * 5, A_PML4 | PTE_P | PTE_W | PTE_PS);
    again(m);
    m->st.gpr[X86_RBX] = 5ull << 48;
    RUN(m, ky_load);
    expect_pf(m, "LA57: PS is reserved in the fifth level", 9, 5ull << 48);
    again(m);
    m->st.gpr[X86_RAX] = m->st.cr4 & ~(uint64_t)X86_CR4_LA57;
    RUN(m, ky_cr4);
    expect_event(m, "LA57 does not change in long mode", X86_EXC_GP, 0, A_CODE);
    m_long(m);
    m->st.gpr[X86_RBX] = high;
    RUN(m, ky_load);
    expect_event(m, "LA57 off: 48 bits", X86_EXC_GP, 0, A_CODE);
    m_long(m);
    m->st.gpr[X86_RCX] = 0xc0000082; /* LSTAR */
    m->st.gpr[X86_RAX] = 0;
    m->st.gpr[X86_RDX] = 1u << 18;
    RUN(m, ky_wrmsr_only);
    expect_event(m, "LA57 off: registers take 57 bits all the same", 0x80, NO_ERROR, ANY_RIP);
}

void test_keys(struct machine *m)
{
    check_pkru(m);
    check_pkrs(m);
    check_cpuid(m);
    check_a20(m);
    check_ferr(m);
}

void test_la57(struct machine *m)
{
    const struct x86_cpu_options options = {.la57 = true};
    struct machine *wide = m_create(&options);

    (void)m;
    expect("a machine with five-level paging", wide != NULL, true);
    if (wide == NULL)
        return;
    check_la57(wide);
    m_destroy(wide);
}
