/* Real mode, virtual-8086 mode, and the ways between the modes. */
#include "system.h"

static int run(struct machine *m, const uint8_t *code, size_t len)
{
    uint64_t base = m->st.seg[X86_CS].base;

    m_write(m, base + m->st.rip, code, len);
    return m_run(m);
}
#define RUN(m, code) run(m, code, (size_t)(code##_end - (code)))

CODE(rm_int, 16, "int $0x40\n");
CODE(rm_ud, 16, "ud2\n");
CODE(rm_load, 16, "mov (%bx), %ax\n" DONE);
CODE(rm_load32, 16, "mov (%ebx), %eax\n" DONE);
CODE(rm_wrap, 16, "mov 2(%bx,%si), %al\n" DONE);
CODE(rm_bp, 16, "mov (%bp), %ax\n" DONE);
CODE(rm_push, 16, "push %ax\n" DONE);
CODE(rm_pushl, 16, "pushl %eax\npopl %ecx\n" DONE);
CODE(rm_far, 16, "lcall $0x1010, $2\nnop\n" DONE);
CODE(rm_far_ret, 16, "nop\nnop\nmov %cs, %dx\nlret\n");
CODE(rm_iret, 16, "pushw $0x7fd7\npushw %cs\npushw $0x100\niretw\n");
CODE(rm_done, 16, DONE);
CODE(rm_lldt, 16, "lldt %ax\n" DONE);
CODE(rm_movseg, 16, "mov %ax, %es\nmov %es:0, %cx\n" DONE);
/* leaves real mode with a 4 GiB DS and comes back */
CODE(rm_big, 16,
     "lgdtl %cs:0x80\n"
     "mov %cr0, %eax\nor $1, %al\nmov %eax, %cr0\n"
     "mov $" STR(S_DATA) ", %cx\nmov %cx, %ds\n"
                         "and $0xfe, %al\nmov %eax, %cr0\n"
                         "xor %cx, %cx\nmov %cx, %ds\n"
                         "mov (%ebx), %edx\n" DONE);
/* all the way to 64-bit mode; 0x80(CS) holds a GDTR, far pointers follow */
CODE(up, 16,
     "lgdtl %cs:0x80\nlidtl %cs:0x88\n"
     "mov %cr0, %eax\nor $1, %al\nmov %eax, %cr0\n"
     "ljmpl *%cs:0x90\n");
CODE(up32, 32,
     "mov $" STR(S_DATA) ", %ecx\nmov %ecx, %ss\nmov %ecx, %ds\nmov $" STR(
         A_STACK) ", %esp\n"
                  "mov %cr4, %eax\nor $0x20, %eax\nmov %eax, %cr4\n"
                  "mov $" STR(A_PML4) ", %eax\nmov %eax, %cr3\n"
                                      "mov $0xc0000080, %ecx\nrdmsr\nor $0x100, %eax\nwrmsr\n"
                                      "mov %cr0, %eax\nor $0x80000000, %eax\nmov %eax, %cr0\n"
                                      "rdmsr\nmov %eax, %esi\n"
                                      "ljmp $" STR(S_CODE64) ", $" STR(A_CODE + 0x200) "\n");
CODE(up64, 64,
     "mov $0x123456789abcdef0, %r12\n"
     "mov $" STR(A_UDATA) ", %ebx\nrex.W ljmp *(%rbx)\n");
CODE(down32, 32,
     "mov %cr0, %eax\nand $0x7fffffff, %eax\nmov %eax, %cr0\n"
     "mov $0xc0000080, %ecx\nrdmsr\nmov %eax, %edi\n"
     "ljmp $" STR(S_CODE16) ", $0x400\n");
CODE(down16, 16,
     "mov $" STR(S_DATA16) ", %cx\nmov %cx, %ds\nmov %cx, %ss\nmov %cx, %es\n"
                           "lidtl %cs:0xf0\n"
                           "mov %cr0, %eax\nand $0xfe, %al\nmov %eax, %cr0\n"
                           "ljmp $" STR(A_CODE >> 4) ", $0x500\n");
CODE(real_again, 16,
     "mov $" STR((A_STACK - 0x1000) >> 4) ", %cx\nmov %cx, %ss\nmov $0x1000, %sp\n" DONE);
CODE(lm_pg_off, 64, "mov %cr0, %rax\nbtr $31, %rax\nmov %rax, %cr0\n" DONE);
CODE(lm_pae_off, 64, "mov %cr4, %rax\nbtr $5, %rax\nmov %rax, %cr4\n" DONE);
CODE(pm_lma_no_pae, 32, "mov %cr0, %eax\nor $0x80000000, %eax\nmov %eax, %cr0\n" DONE);

static void check_real(struct machine *m)
{
    m_real(m);
    m->st.rflags |= X86_FL_IF | X86_FL_CF;
    RUN(m, rm_int);
    expect_event(m, "real-mode INT by the IVT", 0x40, NO_ERROR, 2);
    expect("its frame: CS", m_frame(m, 1), A_CODE >> 4);
    expect("its frame: FLAGS", m_frame(m, 2), 0x203);
    expect("three words", m->st.gpr[X86_RSP], 0x1000 - 6);
    expect("IF is off", m->st.rflags & X86_FL_IF, 0);
    m_real(m);
    RUN(m, rm_ud);
    expect_event(m, "real-mode fault pushes no error code", X86_EXC_UD, NO_ERROR, 0);
    m_real(m);
    m->st.gpr[X86_RBX] = 0xffff;
    RUN(m, rm_load);
    expect_event(m, "word at FFFF: #GP", X86_EXC_GP, NO_ERROR, 0);
    m_real(m);
    m->st.gpr[X86_RBP] = 0xffff;
    RUN(m, rm_bp);
    expect_event(m, "word at SS:FFFF: #SS", X86_EXC_SS, NO_ERROR, 0);
    m_real(m);
    m->st.gpr[X86_RBX] = 0x10000;
    RUN(m, rm_load32);
    expect_event(m, "32-bit offset beyond the limit", X86_EXC_GP, NO_ERROR, 0);
    m_real(m);
    m_put16(m, A_DATA + 0x12, 0x99);
    m->st.gpr[X86_RBX] = 0xfff0;
    m->st.gpr[X86_RSI] = 0x20;
    RUN(m, rm_wrap);
    expect("16-bit addresses wrap", m->st.gpr[X86_RAX] & 0xff, 0x99);
    m_real(m);
    m->st.gpr[X86_RAX] = 0xa5a5;
    m->st.gpr[X86_RSP] = 0x12340000;
    RUN(m, rm_push);
    expect("PUSH at SP = 0 wraps; upper half stays", m->st.gpr[X86_RSP] + 6, 0x1234fffe);
    m_real(m);
    m->st.gpr[X86_RAX] = 0xdeadbeef;
    RUN(m, rm_pushl);
    expect("32-bit PUSH and POP", m->st.gpr[X86_RCX], 0xdeadbeef);
    m_real(m);
    LOAD(m, A_CODE + 0x100, rm_far_ret);
    RUN(m, rm_far);
    expect_event(m, "real-mode far CALL and RET", 0x80, NO_ERROR, 8);
    expect("CS in between", m->st.gpr[X86_RDX] & 0xffff, 0x1010);
    m_real(m);
    LOAD(m, A_CODE + 0x100, rm_done);
    RUN(m, rm_iret);
    expect("real-mode IRET sets all flags but TF here", m_frame(m, 2) | X86_FL_TF, 0x7fd7);
    m_real(m);
    RUN(m, rm_lldt);
    expect_event(m, "LLDT in real mode", X86_EXC_UD, NO_ERROR, 0);
    m_real(m);
    m->st.gpr[X86_RAX] = 0xffff;
    m_put16(m, 0xffff0, 0x4321);
    RUN(m, rm_movseg);
    expect("MOV ES: base is 16 times", m->st.gpr[X86_RCX] & 0xffff, 0x4321);
    m_real(m);
    m->st.idtr.limit = 0x40 * 4 + 2;
    RUN(m, rm_int);
    expect_event(m, "vector beyond the IVT's limit: #GP", X86_EXC_GP, NO_ERROR, 0);
    m_real(m);
    m->st.rip = 0xffff;
    m_put16(m, A_CODE + 0xffff, 0x80cd);
    m_run(m);
    expect_event(m, "instruction across FFFF: #GP", X86_EXC_GP, NO_ERROR, 0xffff);
}

static void check_switches(struct machine *m)
{
    m_real(m);
    m_put16(m, A_CODE + 0x80, 0x8f);
    m_put32(m, A_CODE + 0x82, A_GDT);
    m_put32(m, A_BIG, 0x600d600d);
    m->st.gpr[X86_RBX] = A_BIG;
    RUN(m, rm_big);
    expect("big real mode: DS keeps its limit", m->st.gpr[X86_RDX], 0x600d600d);
    expect("and has the real-mode base", m->st.seg[X86_DS].base, 0);

    m_long(m); /* for its tables, then a real-mode processor on them */
    x86_state_reset(&m->st, true);
    m->st.seg[X86_CS].base = A_CODE;
    m->st.seg[X86_CS].selector = A_CODE >> 4;
    m->st.rip = 0;
    m_desc(m, S_CODE16, 0x00009b000000ffffull | (uint64_t)A_CODE << 16);
    m_put16(m, A_CODE + 0x80, 0x8f);
    m_put32(m, A_CODE + 0x82, A_GDT);
    m_put16(m, A_CODE + 0x88, 0xfff);
    m_put32(m, A_CODE + 0x8a, A_IDT);
    m_put32(m, A_CODE + 0x90, A_CODE + 0x100);
    m_put16(m, A_CODE + 0x94, S_CODE32);
    m_put16(m, A_CODE + 0xf0, 0x3ff);
    m_put32(m, A_CODE + 0xf2, 0);
    m_put64(m, A_UDATA, A_CODE + 0x300);
    m_put16(m, A_UDATA + 8, S_CODE32);
    for (unsigned v = 0; v < 256; v++)
        m_put32(m, 4 * v, A_HANDLERS << 12 | 16 * v);
    LOAD(m, A_CODE + 0x100, up32);
    LOAD(m, A_CODE + 0x200, up64);
    LOAD(m, A_CODE + 0x300, down32);
    LOAD(m, A_CODE + 0x400, down16);
    LOAD(m, A_CODE + 0x500, real_again);
    RUN(m, up);
    expect("real, protected, long and back", (m->st.rip - 1) / 16, 0x80);
    expect("on the way: EFER.LMA", m->st.gpr[X86_RSI] & 0x500, 0x500);
    expect("on the way: 64-bit code", m->st.gpr[X86_R12], 0x123456789abcdef0ull);
    expect("on the way: paging off clears LMA", m->st.gpr[X86_RDI] & 0x500, 0x100);
    expect("real again: CS", m_frame(m, 1), A_CODE >> 4);

    m_long(m);
    RUN(m, lm_pg_off);
    expect_event(m, "paging off in 64-bit mode", X86_EXC_GP, 0, A_CODE + 8);
    m_long(m);
    RUN(m, lm_pae_off);
    expect_event(m, "PAE off in long mode", X86_EXC_GP, 0, A_CODE + 8);
    m_protected(m);
    m->st.efer |= X86_EFER_LME;
    RUN(m, pm_lma_no_pae);
    expect_event(m, "paging on with LME and no PAE", X86_EXC_GP, 0, A_CODE + 8);
    m_protected(m);
    m->st.efer |= X86_EFER_LME;
    m->st.cr4 |= X86_CR4_PAE;
    m->st.seg[X86_CS].attr |= X86_SEG_L;
    RUN(m, pm_lma_no_pae);
    expect("paging on with LME and CS.L = 1", m->st.efer & X86_EFER_LMA, 0);
}

/* ---- virtual-8086 ---- */

CODE(v86_enter, 32, "iret\n");
CODE(v86_done, 16, DONE);
CODE(v86_cli, 16, "cli\n" DONE);
CODE(v86_pushf, 16, "pushf\npop %ax\n" DONE);
CODE(v86_hlt, 16, "hlt\n" DONE);
CODE(v86_seg, 16, "mov %ax, %ds\nmov 0, %bx\n" DONE);
CODE(v86_in, 16, "mov $" STR(A_PORT) ", %dx\nin %dx, %al\n" DONE);
CODE(v86_sldt, 16, "sldt %ax\n" DONE);

static void v86(struct machine *m, unsigned iopl, const uint8_t *code, size_t len)
{
    const uint32_t frame[9] = {0,      A_UCODE >> 4,  0x20202 | iopl << 12,
                               0xfffe, A_USTACK >> 4, 0x1111,
                               0x2222, 0x3333,        0x4444};

    m_protected(m);
    m->st.gpr[X86_RSP] = A_STACK - sizeof(frame);
    m_write(m, A_STACK - sizeof(frame), frame, sizeof(frame));
    m_write(m, A_UCODE, code, len);
    LOAD(m, A_CODE, v86_enter);
    m->st.gpr[X86_RAX] = A_UDATA >> 4;
    m_put16(m, A_UDATA, 0x5678);
    m_run(m);
}
#define V86(m, iopl, code) v86(m, iopl, code, (size_t)(code##_end - (code)))

static void check_v86(struct machine *m)
{
    V86(m, 3, v86_done);
    expect_event(m, "V86: entry by IRET, exit by INT", 0x80, NO_ERROR, 2);
    expect("V86 frame: nine words", m->st.gpr[X86_RSP], A_STACK - 36);
    expect("V86 frame: CS", m_frame(m, 1), A_UCODE >> 4);
    expect("V86 frame: EFLAGS with VM", m_frame(m, 2), 0x23202);
    expect("V86 frame: ESP", m_frame(m, 3), 0xfffe);
    expect("V86 frame: SS", m_frame(m, 4), A_USTACK >> 4);
    expect("V86 frame: ES DS FS GS",
           m_frame(m, 5) << 48 | m_frame(m, 6) << 32 | m_frame(m, 7) << 16 | m_frame(m, 8),
           0x1111222233334444ull);
    expect("after: DS is null", m->st.seg[X86_DS].selector, 0);
    expect("after: VM is clear", m->st.rflags & X86_FL_VM, 0);
    V86(m, 0, v86_done);
    expect_event(m, "V86: INT n with IOPL < 3", X86_EXC_GP, 0, 0);
    V86(m, 0, v86_cli);
    expect_event(m, "V86: CLI with IOPL < 3", X86_EXC_GP, 0, 0);
    V86(m, 3, v86_cli);
    expect_event(m, "V86: CLI with IOPL 3", 0x80, NO_ERROR, 3);
    V86(m, 0, v86_pushf);
    expect_event(m, "V86: PUSHF with IOPL < 3", X86_EXC_GP, 0, 0);
    V86(m, 3, v86_hlt);
    expect_event(m, "V86: HLT", X86_EXC_GP, 0, 0);
    V86(m, 3, v86_seg);
    expect("V86: segments as in real mode", m->st.gpr[X86_RBX] & 0xffff, 0x5678);
    V86(m, 3, v86_in);
    expect_event(m, "V86: ports by the bitmap even at IOPL 3", X86_EXC_GP, 0, 3);
    V86(m, 3, v86_sldt);
    expect_event(m, "V86: SLDT", X86_EXC_UD, NO_ERROR, 0);
}

void test_modes(struct machine *m)
{
    check_real(m);
    check_switches(m);
    check_v86(m);
}
