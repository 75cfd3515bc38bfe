/*
 * The edges of protection: the double-fault table, limits that end inside what is read, selectors
 * of the wrong privilege, rights that change while translations are cached.
 */
#include "system.h"

static int run(struct machine *m, const uint8_t *code, size_t len)
{
    m_write(m, m->st.seg[X86_CS].base + m->st.rip, code, len);
    return m_run(m);
}
#define RUN(m, code) run(m, code, (size_t)(code##_end - (code)))

CODE(pr_done, 64, DONE);
CODE(pr_ud2, 64, "ud2\n");
CODE(pr_hlt, 64, "hlt\n");
CODE(pr_int40, 64, "int $0x40\n" DONE);
CODE(pr_load, 64, "mov (%rbx), %rax\n" DONE);
CODE(pr_mov_ds, 64, "mov %ebx, %ds\n" DONE);
CODE(pr_lcall, 64, ".byte 0x48\nlcall *(%rbx)\n" DONE);
CODE(pr_lret, 64, "lretq\n");
CODE(pr_iret, 64, "iretq\n");
CODE(pr_ltr, 64, "ltr %bx\n" DONE);
CODE(pr_lar, 64, "lar %ebx, %eax\nsetz %cl\n" DONE);

/* ---- double faults, limits of the TSS ---- */

CODE(pr_nops, 64, "nop\nnop\nnop\n" DONE);

static void check_double_faults(struct machine *m)
{
    m_long(m);
    m_gate(m, X86_EXC_PF, S_CODE64, 0x85, 0);
    m_pte(m, A_TEST, 0);
    m->st.gpr[X86_RBX] = A_TEST;
    RUN(m, pr_load);
    expect_event(m, "#PF then #GP: double fault", X86_EXC_DF, 0, A_CODE);
    m_long(m);
    m_gate(m, X86_EXC_PF, S_CODE64, 0x8e, 1);
    m_user(m);
    m_put64(m, A_TSS + 4, A_TEST + 0x1000);
    m_pte(m, A_TEST, 0);
    RUN(m, pr_hlt);
    expect_event(m, "#GP then #PF: the #PF is delivered", X86_EXC_PF, 2, A_UCODE);
    m_long(m);
    m->st.tr.limit = 0x50;
    m_gate(m, X86_EXC_GP, S_CODE64, 0x8e, 7);
    m->st.gpr[X86_RBX] = 1ull << 47;
    RUN(m, pr_load);
    expect_event(m, "#GP then #TS: double fault", X86_EXC_DF, 0, A_CODE);
    m_long(m);
    m->st.tr.limit = 0x58;
    m_gate(m, 0x40, S_CODE64, 0x8e, 7);
    RUN(m, pr_int40);
    expect_event(m, "the TSS ends inside an IST entry", X86_EXC_TS, S_TSS, A_CODE);
    m_long(m);
    m->st.tr.limit = 8;
    m_user(m);
    RUN(m, pr_ud2);
    expect("the TSS ends inside RSP0: no stack at all", m->exit.reason, VCPU_EXIT_SHUTDOWN);
    m_long(m);
    m->st.movss_shadow = m->st.nmi_pending = true;
    RUN(m, pr_nops);
    expect_event(m, "MOV SS holds an NMI back, too", X86_EXC_NMI, NO_ERROR, A_CODE + 1);
    m->st.nmi_blocked = false;
}

/* ---- selectors and descriptors ---- */

static void check_selectors(struct machine *m)
{
    m_long(m);
    m_user(m);
    m->st.gpr[X86_RBX] = S_CONF64 | 3;
    RUN(m, pr_mov_ds);
    expect_event(m, "conforming code of any privilege may be data", 0x80, NO_ERROR, ANY_RIP);
    m_long(m);
    m_user(m);
    m->st.gpr[X86_RSP] = A_USTACK - 32;
    m_put64(m, A_USTACK - 32, A_CODE);
    m_put64(m, A_USTACK - 24, S_CODE64);
    RUN(m, pr_lret);
    expect_event(m, "RETF to more privilege", X86_EXC_GP, S_CODE64, A_UCODE);
    m_long(m);
    LOAD(m, A_UCODE, pr_done);
    m->st.seg[X86_DS] =
        (struct x86_segment){.selector = S_CONF64, .attr = 0xa09f, .limit = UINT32_MAX};
    m->st.gpr[X86_RSP] = A_STACK - 40;
    m_put64(m, A_STACK - 40, A_UCODE);
    m_put64(m, A_STACK - 32, S_UCODE64);
    m_put64(m, A_STACK - 24, 2);
    m_put64(m, A_STACK - 16, A_USTACK);
    m_put64(m, A_STACK - 8, S_UDATA);
    RUN(m, pr_iret);
    expect("IRET to CPL 3 leaves conforming code in DS", m->st.seg[X86_DS].selector, S_CONF64);
    m_long(m);
    m_desc(m, S_FREE, 0x0000890000000067ull | (uint64_t)A_TSS << 16);
    m_put64(m, A_GDT + S_FREE + 8, 1ull << 40);
    m->st.gpr[X86_RBX] = S_FREE;
    RUN(m, pr_ltr);
    expect_event(m, "LTR: the upper half's type must be 0", X86_EXC_GP, S_FREE, A_CODE);
    m_long(m);
    m_desc(m, S_GATE, (A_CODE & 0xffff) | (uint64_t)S_CODE64 << 16 | 0x8c00ull << 32 | 1ull << 48);
    m->st.gpr[X86_RBX] = A_DATA;
    m_put16(m, A_DATA + 8, S_GATE | 3);
    RUN(m, pr_lcall);
    expect_event(m, "call gate: RPL above its DPL", X86_EXC_GP, S_GATE, A_CODE);
    m_long(m);
    m_desc(m, S_FREE, 0x000081000000002bull);
    m->st.gpr[X86_RBX] = S_FREE;
    m->st.gpr[X86_RCX] = 5;
    RUN(m, pr_lar);
    expect("LAR in long mode refuses a 16-bit TSS", m->st.gpr[X86_RCX], 0);
}

CODE(pr_es_load, 32, "movb %es:(%ebx), %al\n" DONE);
CODE(pr_lcall32, 32, "lcall *(%ebx)\n" DONE);
CODE(pr_lgdt16, 32, "lgdtw (%ebx)\n" DONE);
CODE(pr_bound, 32, "bound %eax, (%ebx)\n" DONE);

static void down(struct machine *m, const char *name, bool big, uint32_t at, bool ok)
{
    m_protected(m);
    m->st.seg[X86_ES] = (struct x86_segment){
        .selector = S_FREE, .attr = 0x97 | (big ? X86_SEG_DB : 0u), .limit = 0xfff};
    m->st.gpr[X86_RBX] = at;
    RUN(m, pr_es_load);
    expect_event(m, name, ok ? 0x80 : X86_EXC_GP, ok ? NO_ERROR : 0, ok ? ANY_RIP : A_CODE);
}

static void check_segments32(struct machine *m)
{
    down(m, "expand-down: at the limit", true, 0xfff, false);
    down(m, "expand-down: above the limit", true, 0x1000, true);
    down(m, "expand-down of 32 bits: above 64 KiB", true, 0x10000, true);
    down(m, "expand-down of 16 bits: the last byte", false, 0xffff, true);
    down(m, "expand-down of 16 bits: above 64 KiB", false, 0x10000, false);
    m_protected(m);
    m_user(m);
    m_desc(m, S_GATE, (A_CODE & 0xffff) | (uint64_t)S_CODE32 << 16 | 0xec00ull << 32 | 1ull << 48);
    m_put32(m, A_TSS + 8, S_DATA | 1);
    m->st.gpr[X86_RBX] = A_UDATA;
    m_put16(m, A_UDATA + 4, S_GATE | 3);
    RUN(m, pr_lcall32);
    expect("call gate: SS0 of another RPL is no stack", m->exit.reason, VCPU_EXIT_SHUTDOWN);
    m_protected(m);
    m->st.gpr[X86_RBX] = A_DATA;
    m_put16(m, A_DATA, 0x8f);
    m_put32(m, A_DATA + 2, 0xff000000u | A_GDT);
    RUN(m, pr_lgdt16);
    expect("LGDT with 16-bit operands: 24 bits of base", m->st.gdtr.base, A_GDT);
    m_protected(m);
    m->st.gpr[X86_RBX] = A_DATA;
    m->st.gpr[X86_RAX] = 7;
    m_put32(m, A_DATA, (uint32_t)-7);
    m_put32(m, A_DATA + 4, 7);
    RUN(m, pr_bound);
    expect_event(m, "BOUND: the upper limit is inside", 0x80, NO_ERROR, ANY_RIP);
}

CODE(pr_jmp_task, 32, "ljmp $" STR(S_FREE) ", $0\n" DONE);
CODE(pr_int40_16, 16, "int $0x40\n" DONE);
CODE(pr_iret32, 32, "iret\n");
CODE(pr_ud16, 16, "ud2\n");

static void check_older_modes(struct machine *m)
{
    const uint32_t frame[9] = {0, A_UCODE >> 4, 0x20002, 0xfffe, A_USTACK >> 4};

    m_protected(m);
    m_paging32(m);
    m_desc(m, S_FREE, 0x0000890000000067ull | 0x50000ull << 16);
    m_pte(m, A_TSS, PTE_P);
    RUN(m, pr_jmp_task);
    expect_event(m, "task switch: the old TSS cannot be written", X86_EXC_PF, 3, A_CODE);
    expect("and is busy still", m_get64(m, A_GDT + S_TSS) >> 40 & 15, 11);
    m_real(m);
    m->st.rflags |= X86_FL_AC;
    RUN(m, pr_int40_16);
    expect("a real-mode interrupt clears AC", m->st.rflags & X86_FL_AC, 0);
    m_protected(m);
    m_gate(m, X86_EXC_UD, S_UCODE32, 0x8e, 0);
    m->st.gpr[X86_RSP] = A_STACK - sizeof(frame);
    m_write(m, A_STACK - sizeof(frame), frame, sizeof(frame));
    LOAD(m, A_UCODE, pr_ud16);
    RUN(m, pr_iret32);
    expect_event(m, "V86: a handler that is not of CPL 0", X86_EXC_GP, (S_UCODE32 & ~3) | 1, 0);
}

/* ---- rights, and what is cached of them ---- */

CODE(pr_wp, 64, "mov %rax, (%rbx)\nmov %rcx, %cr0\nmov %rax, (%rbx)\n" DONE);
CODE(pr_smep, 64, "call *%rbx\nmov %rcx, %cr4\ncall *%rbx\n" DONE);
CODE(pr_ret, 64, "mov $1, %eax\nret\n");
CODE(pr_ret2, 64, "mov $2, %eax\nret\n");
CODE(pr_cr3, 32, "mov %cr3, %eax\nmov %eax, %cr3\n" DONE);
CODE(pr_invpcid1, 64,
     "mov (%rbx), %rax\nmov %rcx, (%rdi)\nmov $1, %edx\ninvpcid (%rsi), %rdx\n"
     "mov (%rbx), %rdx\n" DONE);
CODE(pr_invlpg, 64,
     "call *%rbx\nmov %eax, %r8d\nmov %rcx, (%rdi)\ninvlpg 0x80(%rbx)\ncall *%rbx\n" DONE);

static void check_rights(struct machine *m)
{
    m_long(m);
    m->st.gpr[X86_RBX] = A_TEST;
    m->st.gpr[X86_RCX] = m->st.cr0;
    m->st.cr0 &= ~(uint64_t)X86_CR0_WP;
    m_pte(m, A_TEST, PTE_P | PTE_D);
    RUN(m, pr_wp);
    expect_event(m, "CR0.WP counts at once", X86_EXC_PF, 3, A_CODE + 6);
    m_long(m);
    m->st.gpr[X86_RBX] = A_TEST;
    m->st.gpr[X86_RCX] = m->st.cr4 | X86_CR4_SMEP;
    m_pte(m, A_TEST, PTE_P | PTE_U);
    LOAD(m, A_TEST, pr_ret);
    RUN(m, pr_smep);
    expect_event(m, "CR4.SMEP counts at once", X86_EXC_PF, 0x11, A_TEST);
    m_long(m);
    m->st.cr4 |= X86_CR4_SMAP;
    m->st.rflags |= X86_FL_AC;
    m->st.dr[0] = A_DATA + 0x800;
    m->st.dr7 = 0x400 | 1 | 3u << 16;
    m->st.gpr[X86_RBX] = A_UDATA;
    RUN(m, pr_load);
    expect_event(m, "SMAP with AC = 1 while data is watched", 0x80, NO_ERROR, ANY_RIP);
    m_long(m);
    m->st.cr4 |= X86_CR4_SMAP;
    m->st.rflags |= X86_FL_AC;
    m->st.ldtr =
        (struct x86_segment){.selector = S_FREE, .attr = 0x82, .base = A_UDATA, .limit = 0xff};
    m_put64(m, A_UDATA + 8, 0x00cf93000000ffffull);
    m->st.gpr[X86_RBX] = 0xc;
    RUN(m, pr_mov_ds);
    expect_pf(m, "SMAP: AC does not concern the processor's own reads", 1, A_UDATA + 8);
    m_long(m);
    m->st.gpr[X86_RBX] = A_TEST + 0xffd;
    m_pte(m, A_TEST + 0x1000, 0);
    RUN(m, pr_load);
    expect_pf(m, "load across a page: CR2 is the first byte of the second", 0, A_TEST + 0x1000);
    m_protected(m);
    m_pae(m);
    m_put64(m, A_PTRS + 16, 0x7003);
    RUN(m, pr_cr3);
    expect_event(m, "PAE: bit 1 of a pointer is reserved", X86_EXC_GP, 0, A_CODE + 3);
}

static void check_cached(struct machine *m)
{
    m_long(m);
    m->st.cr4 |= X86_CR4_PCIDE;
    m_put64(m, A_TEST, 1);
    m_put64(m, A_TEST + 0x1000, 2);
    m->st.gpr[X86_RBX] = A_TEST;
    m->st.gpr[X86_RCX] = (A_TEST + 0x1000) | PTE_P;
    m->st.gpr[X86_RDI] = A_PT + 8 * (A_TEST >> 12);
    m->st.gpr[X86_RSI] = A_DATA;
    RUN(m, pr_invpcid1);
    expect("INVPCID 1 drops all pages", m->st.gpr[X86_RAX] << 8 | m->st.gpr[X86_RDX], 0x102);
    m_long(m);
    LOAD(m, A_TEST, pr_ret);
    LOAD(m, A_TEST + 0x1000, pr_ret2);
    m->st.gpr[X86_RBX] = A_TEST;
    m->st.gpr[X86_RCX] = (A_TEST + 0x1000) | PTE_P;
    m->st.gpr[X86_RDI] = A_PT + 8 * (A_TEST >> 12);
    RUN(m, pr_invlpg);
    expect("INVLPG by any address of a page of instructions",
           m->st.gpr[X86_R8] << 8 | m->st.gpr[X86_RAX], 0x102);
}

/* ---- decoded code ---- */

CODE(pr_two, 64,
     "lea 0x40(%rbx), %rcx\ncall *%rbx\ncall *%rcx\nmovb $7, 1(%rbx)\nmovb $8, 1(%rcx)\n"
     "call *%rcx\n" DONE);
CODE(pr_either, 64, ".byte 0x48, 0xff, 0xc0\nret\n"); /* inc %rax; or dec %eax, inc %eax */
CODE(pr_both, 64, "call *%rbx\n.byte 0x48\nljmp *(%rsi)\n");
CODE(pr_both32, 32, "call *%ebx\n" DONE);
CODE(pr_lods, 64, "rep lodsb\n" DONE);
CODE(pr_count, 64, "inc %r15\norl $0x10000, 16(%rsp)\niretq\n");
CODE(pr_popf, 64, "pushq $0x10002\npopf\nnop\n" DONE);

static void check_decoded(struct machine *m)
{
    m_long(m);
    LOAD(m, A_TEST, pr_ret);
    LOAD(m, A_TEST + 0x40, pr_ret2);
    m->st.gpr[X86_RBX] = A_TEST;
    RUN(m, pr_two);
    expect("stores into two functions of a page", m->st.gpr[X86_RAX], 8);
    m_long(m);
    LOAD(m, A_TEST, pr_either);
    LOAD(m, A_CODE + 0x100, pr_both32);
    m->st.gpr[X86_RBX] = A_TEST;
    m->st.gpr[X86_RSI] = A_DATA;
    m->st.gpr[X86_RAX] = 5;
    m_put64(m, A_DATA, A_CODE + 0x100);
    m_put16(m, A_DATA + 8, S_CODE32);
    RUN(m, pr_both);
    expect("the same bytes in 64-bit and in 32-bit code", m->st.gpr[X86_RAX], 6);
    m_long(m);
    m->st.dr[0] = A_CODE;
    m->st.dr7 = 0x400 | 1;
    m->st.gpr[X86_RCX] = 3000;
    m->st.gpr[X86_RSI] = A_DATA;
    m_gate_to(m, X86_EXC_DB, A_CODE + 0x1000);
    LOAD(m, A_CODE + 0x1000, pr_count);
    RUN(m, pr_lods);
    expect("breakpoint on a REP that pauses: once", m->st.gpr[X86_R15], 1);
    m_long(m);
    m->st.dr[0] = A_CODE + 6;
    m->st.dr7 = 0x400 | 1;
    RUN(m, pr_popf);
    expect_event(m, "POPF does not set RF", X86_EXC_DB, NO_ERROR, A_CODE + 6);
}

/* ---- registers and images ---- */

CODE(pr_fs, 64, "mov %fs:0, %rsi\nwrmsr\nmov %fs:0, %rdi\n" DONE);
CODE(pr_wrmsr, 64, "wrmsr\n" DONE);
CODE(pr_xgetbv, 64, "mov $1, %ecx\nxgetbv\n" DONE);
CODE(pr_xrstor, 64, "xrstor (%rbx)\n" DONE);
CODE(pr_xsave, 64, "xsave (%rbx)\n" DONE);
CODE(pr_fldcw, 64, "fld1\nfldcw (%rbx)\nfnstenv (%rbx)\n" DONE);
CODE(pr_addps, 64, "addps (%rbx), %xmm0\n" DONE);

static void check_state(struct machine *m)
{
    m_long(m);
    m->st.gpr[X86_RCX] = 0xc0000100;
    m->st.gpr[X86_RAX] = A_DATA;
    m->st.gpr[X86_RDX] = 0;
    m->st.seg[X86_FS].base = A_TEST;
    m_put64(m, A_DATA, 0x77);
    RUN(m, pr_fs);
    expect("WRMSR of the FS base counts at once", m->st.gpr[X86_RDI], 0x77);
    m_long(m);
    m->st.gpr[X86_RCX] = 0x250;
    m->st.gpr[X86_RAX] = 0x06060206;
    m->st.gpr[X86_RDX] = 0x06060606;
    RUN(m, pr_wrmsr);
    expect_event(m, "fixed MTRR: a bad type among eight", X86_EXC_GP, 0, A_CODE);
    m_long(m);
    m->st.xcr0 = 3;
    RUN(m, pr_xgetbv);
    expect("XGETBV 1: SSE is not in use", m->st.gpr[X86_RAX], 1);
    m_long(m);
    m->st.xcr0 = 3;
    m->st.gpr[X86_RBX] = A_DATA;
    m->st.gpr[X86_RAX] = 3;
    m_put64(m, A_DATA + 512 + 16, 1);
    RUN(m, pr_xrstor);
    expect_event(m, "XRSTOR: reserved bytes of the header", X86_EXC_GP, 0, A_CODE);
    m_long(m);
    m->st.xcr0 = 3;
    m->st.gpr[X86_RBX] = A_DATA;
    m->st.gpr[X86_RAX] = 1;
    m_put64(m, A_DATA + 512, 2);
    RUN(m, pr_xsave);
    expect("XSAVE keeps the header's bits of what it does not save", m_get64(m, A_DATA + 512) & 2,
           2);
    m_long(m);
    m->st.gpr[X86_RBX] = A_DATA;
    m_put16(m, A_DATA, 0x37f);
    RUN(m, pr_fldcw);
    expect("FLDCW is not the last x87 instruction", m_get32(m, A_DATA + 12), A_CODE);
    m_long(m);
    m->st.gpr[X86_RBX] = A_DATA + 8;
    RUN(m, pr_addps);
    expect_event(m, "a 16-byte operand wants alignment to 16", X86_EXC_GP, 0, A_CODE);
}

void test_protection(struct machine *m)
{
    check_double_faults(m);
    check_selectors(m);
    check_segments32(m);
    check_older_modes(m);
    check_rights(m);
    check_cached(m);
    check_decoded(m);
    check_state(m);
}
