/* Control registers, MSRs, XCR0, time, ports, CPUID, descriptor-table instructions. */
#include "system.h"

static int run(struct machine *m, const uint8_t *code, size_t len)
{
    m_write(m, m->st.rip, code, len);
    return m_run(m);
}
#define RUN(m, code) run(m, code, (size_t)(code##_end - (code)))

CODE(cr0_w, 64, "mov %rax, %cr0\n" DONE);
CODE(cr3_w, 64, "mov %rax, %cr3\n" DONE);
CODE(cr4_w, 64, "mov %rax, %cr4\n" DONE);
CODE(cr8_w, 64, "mov %rax, %cr8\n" DONE);
CODE(cr0_r, 64, "mov %cr0, %rax\n" DONE);
CODE(cr1_r, 64, ".byte 0x0f, 0x20, 0xc8\n" DONE);
CODE(r_wrmsr, 64, "wrmsr\n" DONE);
CODE(r_rdmsr, 64, "rdmsr\n" DONE);
CODE(r_xsetbv, 64, "xsetbv\n" DONE);
CODE(r_xgetbv, 64, "xgetbv\n" DONE);
CODE(r_rdtsc, 64, "rdtsc\n" DONE);
CODE(r_rdtscp, 64, "rdtscp\n" DONE);
CODE(r_lmsw, 64, "lmsw %ax\n" DONE);
CODE(r_clts, 64, "clts\n" DONE);
CODE(r_swapgs, 64, "swapgs\nmov %gs:0, %rax\n" DONE);
CODE(r_fsbase, 64, "wrfsbase %rax\nrdfsbase %rcx\nwrgsbase %ebx\nrdgsbase %rdx\n" DONE);
CODE(r_gsbase, 64, "rdgsbase %r9\n" DONE);
CODE(r_in, 64, "mov $" STR(A_PORT) ", %edx\nin %dx, %al\n" DONE);
CODE(r_inl, 64, "mov $" STR(A_PORT + 6) ", %edx\nin %dx, %eax\n" DONE);
CODE(r_cpuid, 64, "cpuid\n" DONE);
CODE(r_sgdt, 64, "sgdt (%rbx)\n" DONE);
CODE(r_lgdt, 64, "lgdt (%rbx)\n" DONE);
CODE(r_smsw, 64, "smsw %eax\n" DONE);
CODE(r_str, 64, "str %eax\n" DONE);
CODE(r_ltr, 64, "ltr %ax\n" DONE);
CODE(r_lldt, 64, "lldt %ax\nmov $0xf, %ecx\nmov %ecx, %ds\n" DONE);
CODE(r_lar, 64, "lar %ecx, %eax\nsetz %bl\nlsl %ecx, %edx\nsetz %bh\n" DONE);
CODE(r_verw, 64, "verr %cx\nsetz %bl\nverw %cx\nsetz %bh\n" DONE);
CODE(r_popf, 64, "popf\npushf\npop %rax\n" DONE);
CODE(r_stac, 64, "stac\n" DONE);
CODE(r_tsc_adjust, 64,
     "rdtsc\nshl $32, %rdx\nor %rdx, %rax\nmov %rax, %r8\n"
     "mov $0x3b, %ecx\nxor %eax, %eax\nmov $0x100, %edx\nwrmsr\n"
     "rdtsc\nshl $32, %rdx\nor %rdx, %rax\nsub %r8, %rax\nmov %rax, %r9\n" DONE);
CODE(r_tsc_write, 64,
     "mov $0x10, %ecx\nxor %eax, %eax\nxor %edx, %edx\nwrmsr\n"
     "rdtsc\nmov %edx, %r8d\nmov $0x3b, %ecx\nrdmsr\nmov %eax, %r10d\n" DONE);
CODE(r_cli, 64, "cli\n" DONE);

static void with_rax(struct machine *m, const char *name, const uint8_t *code, size_t len,
                     uint64_t rax, bool ok)
{
    m_long(m);
    m->st.gpr[X86_RAX] = rax;
    m_write(m, A_CODE, code, len);
    m_run(m);
    expect_event(m, name, ok ? 0x80 : X86_EXC_GP, ok ? NO_ERROR : 0, ok ? ANY_RIP : A_CODE);
}
#define WITH_RAX(m, name, code, rax, ok)                                                           \
    with_rax(m, name, code, (size_t)(code##_end - (code)), rax, ok)

static void check_control(struct machine *m)
{
    const uint64_t cr0 = 0x80010033, cr4 = 0x20;

    WITH_RAX(m, "CR0: as it is", cr0_w, cr0, true);
    WITH_RAX(m, "CR0: PG without PE", cr0_w, cr0 & ~1ull, false);
    WITH_RAX(m, "CR0: NW without CD", cr0_w, cr0 | X86_CR0_NW, false);
    WITH_RAX(m, "CR0: bits above 31", cr0_w, cr0 | 1ull << 32, false);
    WITH_RAX(m, "CR3: above the physical width", cr3_w, A_PML4 | 1ull << 45, false);
    WITH_RAX(m, "CR3: bit 63 without PCIDs", cr3_w, A_PML4 | 1ull << 63, false);
    WITH_RAX(m, "CR4: reserved bit 63", cr4_w, cr4 | 1ull << 63, false);
    WITH_RAX(m, "CR4: reserved bit 15", cr4_w, cr4 | 1ull << 15, false);
    WITH_RAX(m, "CR4: LA57 is not offered", cr4_w, cr4 | X86_CR4_LA57, false);
    WITH_RAX(m, "CR4: VMXE is not offered", cr4_w, cr4 | 1ull << 13, false);
    WITH_RAX(m, "CR4: PCIDE in long mode", cr4_w, cr4 | X86_CR4_PCIDE, true);
    WITH_RAX(m, "CR8: bits above 3", cr8_w, 0x10, false);
    m_long(m);
    m->st.cr3 |= 8;
    m->st.gpr[X86_RAX] = cr4 | X86_CR4_PCIDE;
    RUN(m, cr4_w);
    expect_event(m, "CR4: PCIDE while CR3 has low bits", X86_EXC_GP, 0, A_CODE);
    m_long(m);
    m->st.cr4 |= X86_CR4_PCIDE;
    m->st.gpr[X86_RAX] = A_PML4 | 5 | 1ull << 63;
    RUN(m, cr3_w);
    expect("CR3: bit 63 with PCIDs is not stored", m->st.cr3, A_PML4 | 5);
    m_long(m);
    RUN(m, cr1_r);
    expect_event(m, "CR1", X86_EXC_UD, NO_ERROR, A_CODE);
    m_long(m);
    m_user(m);
    RUN(m, cr0_r);
    expect_event(m, "MOV CR at CPL 3", X86_EXC_GP, 0, A_UCODE);
    m_long(m);
    m->st.gpr[X86_RAX] = 0;
    RUN(m, r_lmsw);
    expect("LMSW cannot clear PE", m->st.cr0 & 0xf, 1);
    m_long(m);
    m->st.cr0 |= X86_CR0_TS;
    RUN(m, r_clts);
    expect("CLTS", m->st.cr0 & X86_CR0_TS, 0);
    m_long(m);
    m->st.cr4 |= X86_CR4_UMIP;
    m_user(m);
    RUN(m, r_smsw);
    expect_event(m, "UMIP: SMSW at CPL 3", X86_EXC_GP, 0, A_UCODE);
    m_long(m);
    m_user(m);
    RUN(m, r_str);
    expect("STR at CPL 3", m->st.gpr[X86_RAX], S_TSS);
    m_long(m);
    m_user(m);
    RUN(m, r_cli);
    expect_event(m, "CLI beyond IOPL", X86_EXC_GP, 0, A_UCODE);
    m_long(m);
    m->st.rflags |= X86_FL_IOPL;
    m_user(m);
    RUN(m, r_cli);
    expect_event(m, "CLI at IOPL 3", 0x80, NO_ERROR, ANY_RIP);
    m_long(m);
    m_user(m);
    m->st.gpr[X86_RSP] = A_USTACK - 8;
    m_put64(m, A_USTACK - 8, 0x3202 | X86_FL_VM | X86_FL_RF | X86_FL_ID | X86_FL_NT);
    RUN(m, r_popf);
    expect("POPF at CPL 3: no IOPL, IF, VM, RF", m->st.gpr[X86_RAX], 2 | X86_FL_ID | X86_FL_NT);
    m_long(m);
    m_user(m);
    RUN(m, r_stac);
    expect_event(m, "STAC at CPL 3", X86_EXC_UD, NO_ERROR, A_UCODE);
}

static void msr(struct machine *m, const char *name, uint32_t index, uint64_t value, bool ok)
{
    m_long(m);
    m->st.gpr[X86_RCX] = index;
    m->st.gpr[X86_RAX] = (uint32_t)value;
    m->st.gpr[X86_RDX] = value >> 32;
    RUN(m, r_wrmsr);
    expect_event(m, name, ok ? 0x80 : X86_EXC_GP, ok ? NO_ERROR : 0, ok ? ANY_RIP : A_CODE);
}

static void check_msrs(struct machine *m)
{
    msr(m, "EFER: reserved bit", 0xc0000080, 0xd01 | 1 << 2, false);
    msr(m, "EFER: SVME is not offered", 0xc0000080, 0xd01 | 1 << 12, false);
    msr(m, "EFER: LME while paging is on", 0xc0000080, 0xc01, false);
    msr(m, "EFER: as it is", 0xc0000080, 0xd01, true);
    msr(m, "LSTAR: not canonical", 0xc0000082, 1ull << 47, false);
    msr(m, "FS base: not canonical", 0xc0000100, 1ull << 47, false);
    msr(m, "KERNEL_GS_BASE: not canonical", 0xc0000102, 1ull << 63, false);
    msr(m, "SYSENTER_EIP: not canonical", 0x176, 1ull << 47, false);
    msr(m, "PAT: type 2", 0x277, 0x0007040600070402ull, false);
    msr(m, "PAT: good types", 0x277, 0x0007050600070406ull, true);
    msr(m, "SFMASK: upper half", 0xc0000084, 1ull << 32, false);
    msr(m, "TSC_AUX: upper half", 0xc0000103, 1ull << 32, false);
    msr(m, "MTRR default type: reserved bits", 0x2ff, 1 << 8, false);
    msr(m, "FEATURE_CONTROL: locked", 0x3a, 1, false);
    msr(m, "unknown MSR", 0x12345, 0, false);
    msr(m, "read-only MSR: MTRR_CAP", 0xfe, 0, false);
    m_long(m);
    m_user(m);
    m->st.gpr[X86_RCX] = 0x10;
    RUN(m, r_rdmsr);
    expect_event(m, "RDMSR at CPL 3", X86_EXC_GP, 0, A_UCODE);
    m_long(m);
    m->st.gpr[X86_RCX] = 0xc0000080;
    m->st.gpr[X86_RAX] = m->st.gpr[X86_RDX] = ~0ull;
    RUN(m, r_rdmsr);
    expect("RDMSR clears the upper halves", m->st.gpr[X86_RAX] << 32 | m->st.gpr[X86_RDX],
           0xd01ull << 32);
}

static void xcr(struct machine *m, const char *name, uint32_t index, uint64_t value, bool ok)
{
    m_long(m);
    m->st.gpr[X86_RCX] = index;
    m->st.gpr[X86_RAX] = (uint32_t)value;
    m->st.gpr[X86_RDX] = value >> 32;
    RUN(m, r_xsetbv);
    expect_event(m, name, ok ? 0x80 : X86_EXC_GP, ok ? NO_ERROR : 0, ok ? ANY_RIP : A_CODE);
}

static void check_xcr(struct machine *m)
{
    xcr(m, "XSETBV: x87 and SSE", 0, 3, true);
    xcr(m, "XSETBV: without x87", 0, 2, false);
    xcr(m, "XSETBV: AVX without SSE", 0, 5, false);
    xcr(m, "XSETBV: reserved bit", 0, 1 | 1 << 8, false);
    xcr(m, "XSETBV: XCR1", 1, 1, false);
    m_long(m);
    m->st.cr4 &= ~(uint64_t)X86_CR4_OSXSAVE;
    RUN(m, r_xgetbv);
    expect_event(m, "XGETBV without CR4.OSXSAVE", X86_EXC_UD, NO_ERROR, A_CODE);
    m_long(m);
    m_user(m);
    m->st.gpr[X86_RAX] = 3;
    RUN(m, r_xsetbv);
    expect_event(m, "XSETBV at CPL 3", X86_EXC_GP, 0, A_UCODE);
}

static void check_time(struct machine *m)
{
    m_long(m);
    m->st.cr4 |= X86_CR4_TSD;
    m_user(m);
    RUN(m, r_rdtsc);
    expect_event(m, "CR4.TSD: RDTSC at CPL 3", X86_EXC_GP, 0, A_UCODE);
    m_long(m);
    m->st.cr4 |= X86_CR4_TSD;
    m_user(m);
    RUN(m, r_rdtscp);
    expect_event(m, "CR4.TSD: RDTSCP at CPL 3", X86_EXC_GP, 0, A_UCODE);
    m_long(m);
    m->st.cr4 |= X86_CR4_TSD;
    RUN(m, r_rdtsc);
    expect_event(m, "CR4.TSD: RDTSC at CPL 0", 0x80, NO_ERROR, ANY_RIP);
    m_long(m);
    m->st.tsc_aux = 0x55;
    RUN(m, r_rdtscp);
    expect("RDTSCP: ECX", m->st.gpr[X86_RCX], 0x55);
    m_long(m);
    RUN(m, r_tsc_adjust);
    expect("TSC_ADJUST moves the TSC by as much", m->st.gpr[X86_R9] >> 32, 0x100);
    m_long(m);
    RUN(m, r_tsc_write);
    expect("writing the TSC sets it", m->st.gpr[X86_R8], 0);
    expect("and moves TSC_ADJUST",
           m->st.tsc_adjust != 0 && (uint32_t)m->st.tsc_adjust == m->st.gpr[X86_R10], true);
}

static void check_bases(struct machine *m)
{
    m_long(m);
    m->st.kernel_gs_base = A_DATA;
    m->st.seg[X86_GS].base = 0x1234;
    m_put64(m, A_DATA, 0xabcd);
    RUN(m, r_swapgs);
    expect("SWAPGS: the new base", m->st.gpr[X86_RAX], 0xabcd);
    expect("SWAPGS: the old base", m->st.kernel_gs_base, 0x1234);
    m_long(m);
    m_user(m);
    RUN(m, r_swapgs);
    expect_event(m, "SWAPGS at CPL 3", X86_EXC_GP, 0, A_UCODE);
    m_long(m);
    RUN(m, r_fsbase);
    expect_event(m, "WRFSBASE without CR4.FSGSBASE", X86_EXC_UD, NO_ERROR, A_CODE);
    m_long(m);
    RUN(m, r_gsbase);
    expect_event(m, "RDGSBASE without CR4.FSGSBASE", X86_EXC_UD, NO_ERROR, A_CODE);
    m_long(m);
    m->st.cr4 |= X86_CR4_FSGSBASE;
    m->st.gpr[X86_RAX] = 0xffff800000001234ull;
    m->st.gpr[X86_RBX] = 0xffffffff80000000ull;
    m_user(m);
    RUN(m, r_fsbase);
    expect("WRFSBASE", m->st.gpr[X86_RCX], 0xffff800000001234ull);
    expect("WRGSBASE of 32 bits", m->st.gpr[X86_RDX], 0x80000000);
    m_long(m);
    m->st.cr4 |= X86_CR4_FSGSBASE;
    m->st.gpr[X86_RAX] = 1ull << 47;
    RUN(m, r_fsbase);
    expect_event(m, "WRFSBASE: not canonical", X86_EXC_GP, 0, A_CODE);
}

static void check_ports(struct machine *m)
{
    m_long(m);
    m_user(m);
    RUN(m, r_in);
    expect_event(m, "IN: the bitmap forbids", X86_EXC_GP, 0, A_UCODE + 5);
    m_long(m);
    m_user(m);
    m_put16(m, A_TSS + 0x68 + A_PORT / 8, 0xfffe);
    RUN(m, r_in);
    expect_event(m, "IN: the bitmap allows", 0x80, NO_ERROR, ANY_RIP);
    m_long(m);
    m_user(m);
    m_put16(m, A_TSS + 0x68 + A_PORT / 8, 0xfc3f);
    RUN(m, r_inl);
    expect_event(m, "IN of four ports: all bits, over a byte's end", 0x80, NO_ERROR, ANY_RIP);
    m_long(m);
    m_user(m);
    m_put16(m, A_TSS + 0x68 + A_PORT / 8, 0xfe3f);
    RUN(m, r_inl);
    expect_event(m, "IN of four ports: one forbidden", X86_EXC_GP, 0, A_UCODE + 5);
    m_long(m);
    m_user(m);
    m_put16(m, A_TSS + 0x68 + A_PORT / 8, 0xfffe);
    m->st.tr.limit = 0x68 + A_PORT / 8;
    RUN(m, r_in);
    expect_event(m, "IN: the bitmap's second byte beyond the TSS", X86_EXC_GP, 0, A_UCODE + 5);
    m_long(m);
    m->st.rflags |= X86_FL_IOPL;
    m_user(m);
    RUN(m, r_in);
    expect_event(m, "IN at IOPL 3 needs no bitmap", 0x80, NO_ERROR, ANY_RIP);
}

static void check_tables(struct machine *m)
{
    m_long(m);
    m->st.gpr[X86_RBX] = A_TEST + 0xffc;
    m_pte(m, A_TEST + 0x1000, PTE_P);
    RUN(m, r_sgdt);
    expect_event(m, "SGDT across a page, second read-only", X86_EXC_PF, 3, A_CODE);
    expect("SGDT: nothing written", m_get32(m, A_TEST + 0xffc), 0);
    m_long(m);
    m->st.gpr[X86_RBX] = A_DATA;
    m_put64(m, A_DATA + 2, 1ull << 47);
    RUN(m, r_lgdt);
    expect_event(m, "LGDT of a non-canonical base", X86_EXC_GP, 0, A_CODE);
    expect("LGDT: nothing loaded", m->st.gdtr.base, A_GDT);
    m_long(m);
    m->st.gpr[X86_RAX] = S_TSS;
    RUN(m, r_ltr);
    expect_event(m, "LTR of a busy TSS", X86_EXC_GP, S_TSS, A_CODE);
    m_long(m);
    m_desc(m, S_TSS, 0x0000890000000fffull | (uint64_t)A_TSS << 16);
    m->st.gpr[X86_RAX] = S_TSS;
    RUN(m, r_ltr);
    expect("LTR marks it busy", m_get64(m, A_GDT + S_TSS) >> 40 & 0xf, 11);
    m_long(m);
    m->st.gpr[X86_RAX] = 0;
    RUN(m, r_ltr);
    expect_event(m, "LTR of null", X86_EXC_GP, 0, A_CODE);
    m_long(m);
    m_desc(m, S_FREE, 0x000082000000000full | (uint64_t)A_LDT << 16);
    m_put64(m, A_LDT + 8, 0x00cff3000000ffffull);
    m->st.gpr[X86_RAX] = S_FREE;
    RUN(m, r_lldt);
    expect_event(m, "LLDT and a selector in the LDT", 0x80, NO_ERROR, ANY_RIP);
    expect("that selector", m->st.seg[X86_DS].selector, 0xf);
    m_long(m);
    m->st.gpr[X86_RCX] = S_UDATA;
    RUN(m, r_lar);
    expect("LAR and LSL of data", m->st.gpr[X86_RBX] & 0xffff, 0x101);
    expect("LAR", m->st.gpr[X86_RAX] & 0xf0ff00, 0xc0f300);
    expect("LSL with granularity", m->st.gpr[X86_RDX], 0xffffffff);
    m_long(m);
    m->st.gpr[X86_RCX] = S_DATA | 3;
    RUN(m, r_lar);
    expect("LAR and LSL without privilege", m->st.gpr[X86_RBX] & 0xffff, 0);
    m_long(m);
    m->st.gpr[X86_RCX] = S_CODE64;
    RUN(m, r_verw);
    expect("VERR and VERW of code", m->st.gpr[X86_RBX] & 0xffff, 1);
}

static uint64_t cpuid(struct machine *m, uint32_t leaf, uint32_t sub, unsigned reg)
{
    m_long(m);
    m->st.gpr[X86_RAX] = leaf;
    m->st.gpr[X86_RCX] = sub;
    RUN(m, r_cpuid);
    return m->st.gpr[reg];
}

static void check_cpuid(struct machine *m)
{
    uint64_t max = cpuid(m, 0, 0, X86_RAX);

    expect("CPUID 0: vendor", cpuid(m, 0, 0, X86_RBX), 0x756e6547);
    expect("CPUID 1: OSXSAVE follows CR4", cpuid(m, 1, 0, X86_RCX) >> 27 & 1, 1);
    m_long(m);
    m->st.cr4 &= ~(uint64_t)X86_CR4_OSXSAVE;
    m->st.gpr[X86_RAX] = 1;
    RUN(m, r_cpuid);
    expect("CPUID 1: no OSXSAVE", m->st.gpr[X86_RCX] >> 27 & 1, 0);
    expect("CPUID beyond the last leaf answers as the last", cpuid(m, 0x1000, 0, X86_RAX),
           cpuid(m, (uint32_t)max, 0, X86_RAX));
    expect("CPUID 7.1 is empty", cpuid(m, 7, 1, X86_RBX), 0);
    expect("CPUID D.0: size follows XCR0", cpuid(m, 0xd, 0, X86_RBX), 576);
    expect("CPUID 80000008: widths", cpuid(m, 0x80000008, 0, X86_RAX) & 0xffff, 48 << 8 | 40);
    expect("CPUID B.0: one thread, level type SMT", cpuid(m, 0xb, 0, X86_RCX), 0x100);
    expect("CPUID B.2: beyond the levels", cpuid(m, 0xb, 2, X86_RCX), 2);
    expect("CPUID 4.3: no more caches", cpuid(m, 4, 3, X86_RAX), 0);
    expect("CPUID 80000001: long mode, NX, SYSCALL", cpuid(m, 0x80000001, 0, X86_RDX) & 0x20100800,
           0x20100800);
}

CODE(r_misc_cpuid, 64, "wrmsr\nmov %esi, %eax\ncpuid\n" DONE);
CODE(r_misc_efer, 64, "wrmsr\nmov $0xc0000080, %ecx\nrdmsr\nwrmsr\n" DONE);

/* IA32_MISC_ENABLE: what its bits take away, and those that cannot be written. */
static void check_misc_enable(struct machine *m)
{
    m_long(m);
    m->st.gpr[X86_RCX] = 0x1a0;
    m->st.gpr[X86_RAX] = 1u << 22;
    m->st.gpr[X86_RDX] = 0;
    m->st.gpr[X86_RSI] = 0;
    RUN(m, r_misc_cpuid);
    expect("MISC_ENABLE: CPUID limited to leaf 2", m->st.gpr[X86_RAX], 2);
    expect("MISC_ENABLE: BTS and PEBS stay unavailable", m->st.misc_enable, 1u << 22 | 0x1800);
    m_long(m);
    m->st.gpr[X86_RCX] = 0x1a0;
    m->st.gpr[X86_RAX] = 0;
    m->st.gpr[X86_RDX] = 4;
    m->st.gpr[X86_RSI] = 0x80000001;
    RUN(m, r_misc_cpuid);
    expect("MISC_ENABLE: XD off hides NX", m->st.gpr[X86_RDX] >> 20 & 1, 0);
    m_long(m);
    m->st.gpr[X86_RCX] = 0x1a0;
    m->st.gpr[X86_RAX] = 0;
    m->st.gpr[X86_RDX] = 4;
    RUN(m, r_misc_efer);
    expect_event(m, "MISC_ENABLE: XD off refuses EFER.NXE", X86_EXC_GP, 0, A_CODE + 9);
    m_long(m);
    m->st.gpr[X86_RCX] = 0x1a0;
    m->st.gpr[X86_RAX] = 2;
    m->st.gpr[X86_RDX] = 0;
    RUN(m, r_wrmsr);
    expect_event(m, "MISC_ENABLE: a reserved bit", X86_EXC_GP, 0, A_CODE);
}

CODE(r_rdmsr_any, 64, "rdmsr\n" DONE);

/* Registers that systems read without asking CPUID first, or that CPUID here offers. */
static void check_touched(struct machine *m)
{
    static const struct {
        const char *name;
        uint32_t index, count;
    } touched[] = {
        {"everyone: TSC", 0x10, 1},
        {"Xen, FreeBSD, OpenBSD, Windows: PLATFORM_ID, before looking for microcode", 0x17, 1},
        {"BSD on old models: EBL_CR_POWERON", 0x2a, 1},
        {"Windows: SMI_COUNT", 0x34, 1},
        {"Windows: CORE_THREAD_COUNT", 0x35, 1},
        {"everyone: FEATURE_CONTROL, TSC_ADJUST", 0x3a, 2},
        {"Linux: SPEC_CTRL", 0x48, 1},
        {"everyone: BIOS_SIGN_ID", 0x8b, 1},
        {"Linux, FreeBSD, Windows: PLATFORM_INFO", 0xce, 1},
        {"firmware and everyone: MTRRCAP", 0xfe, 1},
        {"Linux: ARCH_CAPABILITIES", 0x10a, 1},
        {"Linux: MISC_FEATURES_ENABLES", 0x140, 1},
        {"everyone: SYSENTER_CS, _ESP, _EIP", 0x174, 3},
        {"everyone: MCG_CAP, MCG_STATUS", 0x179, 2},
        {"FreeBSD, Windows: PERF_STATUS, PERF_CTL", 0x198, 2},
        {"everyone: MISC_ENABLE", 0x1a0, 1},
        {"FreeBSD, bhyve's guests: TURBO_RATIO_LIMIT", 0x1ad, 1},
        {"Linux, Windows: DEBUGCTL", 0x1d9, 1},
        {"Windows: last branch and exception records", 0x1db, 4},
        {"firmware and everyone: variable MTRRs", 0x200, 2 * X86_MTRR_VAR},
        {"firmware and everyone: fixed MTRR of 64 KiB", 0x250, 1},
        {"firmware and everyone: fixed MTRRs of 16 KiB", 0x258, 2},
        {"firmware and everyone: fixed MTRRs of 4 KiB", 0x268, 8},
        {"everyone: PAT", 0x277, 1},
        {"firmware and everyone: MTRR_DEF_TYPE", 0x2ff, 1},
        {"Linux, bhyve's guests: RAPL units", 0x606, 1},
        {"bhyve's guests: package energy", 0x611, 1},
        {"bhyve's guests: memory's energy", 0x619, 1},
        {"bhyve's guests: cores' energy", 0x639, 1},
        {"bhyve's guests: graphics' energy", 0x641, 1},
        {"Linux: XSS", 0xda0, 1},
        {"everyone: EFER, STAR, LSTAR, CSTAR, SFMASK", 0xc0000080, 5},
        {"everyone: FS, GS and KERNEL_GS bases, TSC_AUX", 0xc0000100, 4},
    };

    for (size_t i = 0; i < countof(touched); i++) {
        unsigned there = 0;

        for (uint32_t n = 0; n < touched[i].count; n++) {
            m_long(m);
            m->st.gpr[X86_RCX] = touched[i].index + n;
            there += RUN(m, r_rdmsr_any) == 0x80;
        }
        expect(touched[i].name, there, touched[i].count);
    }
}

void test_registers(struct machine *m)
{
    check_touched(m);
    check_misc_enable(m);
    check_control(m);
    check_msrs(m);
    check_xcr(m);
    check_time(m);
    check_bases(m);
    check_ports(m);
    check_tables(m);
    check_cpuid(m);
}
