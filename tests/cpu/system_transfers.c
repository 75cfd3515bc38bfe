/* Far transfers, call gates, returns, IRET, and the fast system calls. */
#include "system.h"

static int run(struct machine *m, const uint8_t *code, size_t len)
{
    m_write(m, m->st.rip, code, len);
    return m_run(m);
}
#define RUN(m, code) run(m, code, (size_t)(code##_end - (code)))

CODE(tr_callm, 64, ".byte 0x48\nlcall *(%rbx)\n" DONE);
CODE(tr_jmpm, 64, ".byte 0x48\nljmp *(%rbx)\n" DONE);
CODE(tr_lret, 64, "lretq\n");
CODE(tr_iretq, 64, "iretq\n");
CODE(tr_done, 64, DONE);
CODE(tr_jmp32, 32, "ljmp *(%ebx)\n" DONE);
CODE(tr_iret32, 32, "iret\n");
CODE(tr_lret32, 32, "lret\n");
CODE(tr_gated, 64, "mov %rsp, %r8\nmov %cs, %r9d\nmov %ss, %r10d\nlretq\n");

static void far_target(struct machine *m, uint16_t sel, uint64_t off)
{
    m->st.gpr[X86_RBX] = A_UDATA; /* readable at any CPL */
    m_put64(m, A_UDATA, off);
    m_put16(m, A_UDATA + 8, sel);
}

static void gate64(struct machine *m, unsigned dpl, uint16_t sel, uint64_t to)
{
    m_put64(m, A_GDT + S_GATE,
            (to & 0xffff) | (uint64_t)sel << 16 | (0x8c00ull | dpl << 13) << 32 |
                (to >> 16 & 0xffff) << 48);
    m_put64(m, A_GDT + S_GATE + 8, to >> 32);
}

static void check_far64(struct machine *m)
{
    m_long(m);
    far_target(m, S_CODE64, A_CODE + 0x100);
    LOAD(m, A_CODE + 0x100, tr_lret);
    RUN(m, tr_callm);
    expect_event(m, "64-bit far CALL and RET", 0x80, NO_ERROR, A_CODE + 5);
    m_long(m);
    far_target(m, S_CODE64, A_CODE + 0x100);
    LOAD(m, A_CODE + 0x100, tr_done);
    RUN(m, tr_jmpm);
    expect_event(m, "64-bit far JMP", 0x80, NO_ERROR, A_CODE + 0x102);
    m_long(m);
    far_target(m, S_DATA, A_CODE);
    RUN(m, tr_jmpm);
    expect_event(m, "far JMP to data", X86_EXC_GP, S_DATA, A_CODE);
    m_long(m);
    far_target(m, 0, A_CODE);
    RUN(m, tr_jmpm);
    expect_event(m, "far JMP to null", X86_EXC_GP, 0, A_CODE);
    m_long(m);
    far_target(m, S_UCODE64, A_UCODE);
    RUN(m, tr_jmpm);
    expect_event(m, "far JMP to another privilege", X86_EXC_GP, S_UCODE64 & ~3, A_CODE);
    m_long(m);
    far_target(m, S_CODE64, 1ull << 47);
    RUN(m, tr_jmpm);
    expect_event(m, "far JMP to a non-canonical address", X86_EXC_GP, 0, A_CODE);
    m_long(m);
    m_desc(m, S_FREE, 0x00ef9b000000ffffull);
    far_target(m, S_FREE, A_CODE);
    RUN(m, tr_jmpm);
    expect_event(m, "code with L and D", X86_EXC_GP, S_FREE, A_CODE);
    m_long(m);
    far_target(m, S_TSS, A_CODE);
    RUN(m, tr_jmpm);
    expect_event(m, "far JMP to a TSS in long mode", X86_EXC_GP, S_TSS, A_CODE);
    m_long(m);
    m_user(m);
    far_target(m, S_CONF64, A_UCODE + 0x100);
    LOAD(m, A_UCODE + 0x100, tr_done);
    RUN(m, tr_jmpm);
    expect_event(m, "conforming code from CPL 3", 0x80, NO_ERROR, A_UCODE + 0x102);
    expect("CPL stays 3", m_frame(m, 1), S_CONF64 | 3);
    m_long(m);
    far_target(m, S_CODE32, 0x10100);
    LOAD(m, A_CODE + 0x100, tr_done);
    RUN(m, tr_jmpm);
    expect_event(m, "far JMP to compatibility mode", 0x80, NO_ERROR, A_CODE + 0x102);
}

static void check_gates64(struct machine *m)
{
    m_long(m);
    m_user(m);
    gate64(m, 3, S_CODE64, A_CODE);
    LOAD(m, A_CODE, tr_gated);
    far_target(m, S_GATE | 3, 0);
    RUN(m, tr_callm);
    expect_event(m, "call gate to CPL 0 and back", 0x80, NO_ERROR, A_UCODE + 5);
    expect("gate: RSP0 less four words", m->st.gpr[X86_R8], A_STACK - 32);
    expect("gate: CS with CPL 0", m->st.gpr[X86_R9], S_CODE64);
    expect("gate: null SS", m->st.gpr[X86_R10], 0);
    expect("after the return: RSP", m_frame(m, 3), A_USTACK);
    expect("after the return: SS", m_frame(m, 4), S_UDATA);
    m_long(m);
    m_user(m);
    gate64(m, 0, S_CODE64, A_CODE);
    far_target(m, S_GATE | 3, 0);
    RUN(m, tr_callm);
    expect_event(m, "gate of DPL 0 at CPL 3", X86_EXC_GP, S_GATE, A_UCODE);
    m_long(m);
    m_user(m);
    gate64(m, 3, S_CODE64, A_CODE);
    far_target(m, S_GATE | 3, 0);
    RUN(m, tr_jmpm);
    expect_event(m, "JMP through a gate must not raise privilege", X86_EXC_GP, S_CODE64, A_UCODE);
    m_long(m);
    gate64(m, 3, S_CODE64, A_CODE);
    m_put64(m, A_GDT + S_GATE + 8, 1ull << 40);
    far_target(m, S_GATE, 0);
    RUN(m, tr_callm);
    expect_event(m, "gate's upper type must be 0", X86_EXC_GP, S_GATE, A_CODE);
    m_long(m);
    gate64(m, 3, S_CODE32, A_CODE);
    far_target(m, S_GATE, 0);
    RUN(m, tr_callm);
    expect_event(m, "64-bit gate to 32-bit code", X86_EXC_GP, S_CODE32, A_CODE);
    m_long(m);
    gate64(m, 3, S_CODE64, A_CODE);
    m_put64(m, A_GDT + S_GATE, m_get64(m, A_GDT + S_GATE) & ~(0x8000ull << 32));
    far_target(m, S_GATE, 0);
    RUN(m, tr_callm);
    expect_event(m, "absent gate", X86_EXC_NP, S_GATE, A_CODE);
    m_long(m);
    m_user(m);
    m_pte(m, A_TEST, 0);
    m_put64(m, A_TSS + 4, A_TEST + 0x1000);
    gate64(m, 3, S_CODE64, A_CODE);
    m_gate(m, X86_EXC_PF, S_CODE64, 0x8e, 1);
    far_target(m, S_GATE | 3, 0);
    RUN(m, tr_callm);
    expect_event(m, "gate: fault on the new stack", X86_EXC_PF, 2, A_UCODE);
    expect("gate: old RSP is kept", m_frame(m, 3), A_USTACK);
    expect("gate: CPL is still 3", m_frame(m, 1), S_UCODE64);
}

static void check_gate_stack(struct machine *m)
{
    m_long(m);
    m_user(m);
    m_put64(m, A_TSS + 4, 1ull << 63);
    gate64(m, 3, S_CODE64, A_CODE);
    m_gate(m, X86_EXC_SS, S_CODE64, 0x8e, 1);
    far_target(m, S_GATE | 3, 0);
    RUN(m, tr_callm);
    expect_event(m, "gate: RSP0 not canonical", X86_EXC_SS, 0, A_UCODE);
}

CODE(tr_gated32, 32, "mov %esp, %edx\nmov 8(%esp), %esi\nmov 12(%esp), %edi\nlret $8\n");
CODE(tr_gate_call32, 32, "push $0x1111\npush $0x2222\nlcall *(%ebx)\n" DONE);

static void check_far32(struct machine *m)
{
    m_protected(m);
    m_user(m);
    m_put64(m, A_GDT + S_GATE,
            (A_CODE & 0xffff) | (uint64_t)S_CODE32 << 16 | 0xec02ull << 32 |
                (uint64_t)(A_CODE >> 16) << 48);
    LOAD(m, A_CODE, tr_gated32);
    m->st.gpr[X86_RBX] = A_UDATA;
    m_put32(m, A_UDATA, 0);
    m_put16(m, A_UDATA + 4, S_GATE | 3);
    RUN(m, tr_gate_call32);
    expect_event(m, "32-bit gate with parameters, and back", 0x80, NO_ERROR, ANY_RIP);
    expect("32-bit gate: ESP0 less six words", m->st.gpr[X86_RDX], A_STACK - 24);
    expect("32-bit gate: parameters", m->st.gpr[X86_RSI] << 16 | m->st.gpr[X86_RDI], 0x22221111);
    expect("32-bit gate: RET n drops them on both stacks", m_frame(m, 3), A_USTACK);
    m_protected(m);
    m->st.gpr[X86_RBX] = A_UDATA;
    m_put32(m, A_UDATA, 0);
    m_put16(m, A_UDATA + 4, S_TSS);
    RUN(m, tr_jmp32);
    expect_event(m, "far JMP to the running task", X86_EXC_GP, S_TSS, A_CODE);
    m_protected(m);
    m->st.rflags |= X86_FL_NT;
    RUN(m, tr_iret32);
    expect_event(m, "IRET from a nested task without a link", X86_EXC_TS, 0, A_CODE);
    m_protected(m);
    m->st.gpr[X86_RBX] = A_UDATA;
    m_desc(m, S_FREE, 0x00409b000000000full); /* limit 0xf */
    m_put32(m, A_UDATA, 0x10);
    m_put16(m, A_UDATA + 4, S_FREE);
    RUN(m, tr_jmp32);
    expect_event(m, "target beyond the limit", X86_EXC_GP, 0, A_CODE);
    m_protected(m);
    m->st.gpr[X86_RSP] = A_STACK - 8;
    m_put32(m, A_STACK - 8, A_CODE);
    m_put32(m, A_STACK - 4, S_UCODE32 & ~3u);
    RUN(m, tr_lret32);
    expect_event(m, "RET: RPL and DPL must agree", X86_EXC_GP, S_UCODE32 & ~3, A_CODE);
}

/* A frame for IRETQ on the stack. */
static void frame64(struct machine *m, uint64_t rip, uint64_t cs, uint64_t flags, uint64_t rsp,
                    uint64_t ss)
{
    const uint64_t f[5] = {rip, cs, flags, rsp, ss};

    m->st.gpr[X86_RSP] = A_STACK - 40;
    m_write(m, A_STACK - 40, f, sizeof(f));
}

static void check_iret(struct machine *m)
{
    m_long(m);
    LOAD(m, A_UCODE, tr_done);
    frame64(m, A_UCODE, S_UCODE64, 0x3202 | X86_FL_AC | X86_FL_ID, A_USTACK - 8, S_UDATA);
    RUN(m, tr_iretq);
    expect_event(m, "IRETQ to 64-bit CPL 3", 0x80, NO_ERROR, A_UCODE + 2);
    expect("its flags", m_frame(m, 2), 0x3202 | X86_FL_AC | X86_FL_ID);
    expect("its stack", m_frame(m, 3), A_USTACK - 8);
    m_long(m);
    LOAD(m, A_UCODE, tr_done);
    frame64(m, A_UCODE, S_UCODE32, 0x202, A_USTACK - 8, S_UDATA);
    RUN(m, tr_iretq);
    expect_event(m, "IRETQ to compatibility mode", 0x80, NO_ERROR, A_UCODE + 2);
    m_long(m);
    LOAD(m, A_CODE + 0x100, tr_done);
    frame64(m, A_CODE + 0x100, S_CODE64, 2, A_STACK - 0x200, 0);
    RUN(m, tr_iretq);
    expect_event(m, "IRETQ to CPL 0 with a null SS", 0x80, NO_ERROR, A_CODE + 0x102);
    expect("and its RSP", m_frame(m, 3), A_STACK - 0x200);
    m_long(m);
    frame64(m, A_UCODE, S_UCODE64, 2, A_USTACK, 3);
    RUN(m, tr_iretq);
    expect_event(m, "IRETQ to CPL 3 with a null SS", X86_EXC_GP, 0, A_CODE);
    m_long(m);
    frame64(m, 1ull << 47, S_UCODE64, 2, A_USTACK, S_UDATA);
    RUN(m, tr_iretq);
    expect_event(m, "IRETQ to a non-canonical RIP", X86_EXC_GP, 0, A_CODE);
    expect("is at CPL 0 still", m_frame(m, 1), S_CODE64);
    m_long(m);
    m->st.rflags |= X86_FL_NT;
    frame64(m, A_CODE, S_CODE64, 2, A_STACK, S_DATA);
    RUN(m, tr_iretq);
    expect_event(m, "IRET with NT in long mode", X86_EXC_GP, 0, A_CODE);
    m_long(m);
    m_user(m);
    LOAD(m, A_UCODE + 0x100, tr_done);
    m->st.gpr[X86_RSP] = A_USTACK - 40;
    m_put64(m, A_USTACK - 40, A_UCODE + 0x100);
    m_put64(m, A_USTACK - 32, S_UCODE64);
    m_put64(m, A_USTACK - 24, 0x3202);
    m_put64(m, A_USTACK - 16, A_USTACK);
    m_put64(m, A_USTACK - 8, S_UDATA);
    RUN(m, tr_iretq);
    expect("IRET at CPL 3 changes neither IOPL nor IF", m_frame(m, 2), 2);
    m_long(m);
    m->st.seg[X86_DS].attr = 0xc093;
    m->st.seg[X86_FS].base = 0x1234;
    LOAD(m, A_UCODE, tr_done);
    frame64(m, A_UCODE, S_UCODE64, 2, A_USTACK, S_UDATA);
    RUN(m, tr_iretq);
    expect("IRET to CPL 3 nulls a DS of DPL 0", m->st.seg[X86_DS].selector, 0);
    m_long(m);
    LOAD(m, A_UCODE, tr_done);
    m->st.gpr[X86_RSP] = A_STACK - 32;
    m_put64(m, A_STACK - 32, A_UCODE);
    m_put64(m, A_STACK - 24, S_UCODE64);
    m_put64(m, A_STACK - 16, A_USTACK);
    m_put64(m, A_STACK - 8, S_UDATA);
    RUN(m, tr_lret);
    expect_event(m, "RETF to CPL 3", 0x80, NO_ERROR, A_UCODE + 2);
    m_protected(m);
    LOAD(m, A_UCODE, tr_done);
    m->st.gpr[X86_RSP] = A_STACK - 20;
    m_put32(m, A_STACK - 20, A_UCODE);
    m_put32(m, A_STACK - 16, S_UCODE32);
    m_put32(m, A_STACK - 12, 0x202);
    m_put32(m, A_STACK - 8, A_USTACK);
    m_put32(m, A_STACK - 4, S_UDATA);
    RUN(m, tr_iret32);
    expect_event(m, "32-bit IRET to CPL 3", 0x80, NO_ERROR, A_UCODE + 2);
    expect("32-bit IRET: ESP", m_frame(m, 3), A_USTACK);
}

/* ---- fast system calls ---- */

CODE(tr_syscall, 64, "syscall\n" DONE);
CODE(tr_sysret, 64, "sysretq\n");
CODE(tr_sysretl, 64, "sysretl\n");
CODE(tr_sysenter, 32, "sysenter\n");
CODE(tr_sysexit, 64, ".byte 0x48\nsysexit\n");
CODE(tr_sysexit32, 32, "sysexit\n");
CODE(tr_syscall32, 32, "syscall\n");

static void check_fast(struct machine *m)
{
    m_long(m);
    m_user(m);
    m->st.lstar = A_CODE;
    m->st.sfmask = X86_FL_IF | X86_FL_DF;
    m->st.rflags |= X86_FL_IF | X86_FL_DF | X86_FL_CF;
    LOAD(m, A_CODE, tr_done);
    RUN(m, tr_syscall);
    expect_event(m, "SYSCALL", 0x80, NO_ERROR, A_CODE + 2);
    expect("SYSCALL: RCX", m->st.gpr[X86_RCX], A_UCODE + 2);
    expect("SYSCALL: R11", m->st.gpr[X86_R11], 0x603);
    expect("SYSCALL: RFLAGS less the mask", m_frame(m, 2), 3);
    expect("SYSCALL: CS", m_frame(m, 1), S_CODE64);
    expect("SYSCALL: SS", m_frame(m, 4), S_DATA);
    expect("SYSCALL: RSP is the user's", m_frame(m, 3), A_USTACK);
    m_long(m);
    m->st.efer &= ~(uint64_t)X86_EFER_SCE;
    RUN(m, tr_syscall);
    expect_event(m, "SYSCALL without EFER.SCE", X86_EXC_UD, NO_ERROR, A_CODE);
    m_protected(m);
    RUN(m, tr_syscall32);
    expect_event(m, "SYSCALL outside 64-bit mode", X86_EXC_UD, NO_ERROR, A_CODE);
    m_long(m);
    LOAD(m, A_UCODE, tr_done);
    m->st.gpr[X86_RCX] = A_UCODE;
    m->st.gpr[X86_R11] = 0x10246 | X86_FL_VM;
    RUN(m, tr_sysret);
    expect_event(m, "SYSRET", 0x80, NO_ERROR, A_UCODE + 2);
    expect("SYSRET: CS", m_frame(m, 1), S_UCODE64);
    expect("SYSRET: SS", m_frame(m, 4), S_UDATA);
    expect("SYSRET: RFLAGS without RF and VM", m_frame(m, 2), 0x246);
    m_long(m);
    LOAD(m, A_UCODE, tr_done);
    m->st.gpr[X86_RCX] = 0xff00000000ull << 32 | A_UCODE;
    m->st.gpr[X86_R11] = 2;
    RUN(m, tr_sysretl);
    expect_event(m, "SYSRET to 32 bits", 0x80, NO_ERROR, A_UCODE + 2);
    expect("SYSRET to 32 bits: CS", m_frame(m, 1), S_UCODE32);
    m_long(m);
    m->st.gpr[X86_RCX] = 1ull << 47;
    RUN(m, tr_sysret);
    expect_event(m, "SYSRET to a non-canonical address: #GP at CPL 0", X86_EXC_GP, 0, A_CODE);
    expect("CS is the kernel's", m_frame(m, 1), S_CODE64);
    m_long(m);
    m_user(m);
    RUN(m, tr_sysret);
    expect_event(m, "SYSRET at CPL 3", X86_EXC_GP, 0, A_UCODE);
    m_protected(m);
    m_user(m);
    m->st.sysenter_cs = S_CODE32;
    m->st.sysenter_esp = A_STACK - 0x100;
    m->st.sysenter_eip = A_CODE;
    m->st.rflags |= X86_FL_IF;
    LOAD(m, A_CODE, tr_done);
    RUN(m, tr_sysenter);
    expect_event(m, "SYSENTER", 0x80, NO_ERROR, A_CODE + 2);
    expect("SYSENTER: CS", m_frame(m, 1), S_CODE32);
    expect("SYSENTER clears IF", m_frame(m, 2) & X86_FL_IF, 0);
    expect("SYSENTER: ESP", m->st.gpr[X86_RSP], A_STACK - 0x100 - 12);
    m_protected(m);
    m_user(m);
    RUN(m, tr_sysenter);
    expect_event(m, "SYSENTER without its MSR", X86_EXC_GP, 0, A_UCODE);
    m_long(m);
    m->st.sysenter_cs = 0x100;
    m->st.gpr[X86_RDX] = A_UCODE;
    m->st.gpr[X86_RCX] = A_USTACK;
    LOAD(m, A_UCODE, tr_done);
    RUN(m, tr_sysexit);
    expect_event(m, "SYSEXIT to 64 bits", 0x80, NO_ERROR, A_UCODE + 2);
    expect("SYSEXIT: CS", m_frame(m, 1), 0x123);
    expect("SYSEXIT: SS", m_frame(m, 4), 0x12b);
    m_long(m);
    m->st.sysenter_cs = 0x100;
    m->st.gpr[X86_RDX] = 1ull << 47;
    RUN(m, tr_sysexit);
    expect_event(m, "SYSEXIT to a non-canonical address", X86_EXC_GP, 0, A_CODE);
    m_protected(m);
    m->st.sysenter_cs = S_CODE32;
    m_user(m);
    RUN(m, tr_sysexit32);
    expect_event(m, "SYSEXIT at CPL 3", X86_EXC_GP, 0, A_UCODE);
}

void test_transfers(struct machine *m)
{
    check_far64(m);
    check_gates64(m);
    check_gate_stack(m);
    check_far32(m);
    check_iret(m);
    check_fast(m);
}
