/* Debug registers, single steps, RF, and what inhibits a trap. */
#include "system.h"

static int run(struct machine *m, const uint8_t *code, size_t len)
{
    m_write(m, m->st.rip, code, len);
    return m_run(m);
}
#define RUN(m, code) run(m, code, (size_t)(code##_end - (code)))

#define DR7_EXEC(n) (1u << (2 * (n)))
#define DR7_WRITE4(n) (1u << (2 * (n)) | 0xdu << (16 + 4 * (n)))
#define DR7_RW1(n) (1u << (2 * (n)) | 0x3u << (16 + 4 * (n)))

CODE(db_nops, 64, "nop\nnop\nnop\n" DONE);
CODE(db_store, 64, "nop\nmovl $1, (%rbx)\nnop\nnop\n" DONE);
CODE(db_load, 64, "nop\nmovb (%rbx), %al\nnop\nnop\n" DONE);
CODE(db_out, 64, "mov $" STR(A_PORT + 4) ", %edx\nout %al, (%dx)\nnop\n" DONE);
CODE(db_rmw_fault, 64, "mov %rbx, %rsi\nmov $" STR(A_TEST) ", %edi\nmovsb\n" DONE);
CODE(db_popf, 64, "pushq $0x102\npopf\nnop\nnop\n" DONE);
CODE(db_movss, 64, "mov %ss, %eax\npushq $0x102\npopf\nmov %eax, %ss\nnop\nnop\n" DONE);
CODE(db_rep, 64, "rep stosb\n" DONE);
CODE(db_count, 64, "inc %r15\norl $0x10000, 16(%rsp)\niretq\n");
CODE(db_int, 64, "int $0x81\nnop\n" DONE);
CODE(db_int_h, 64, "nop\nnop\n" DONE);
CODE(db_syscall, 64, "syscall\nnop\n" DONE);
CODE(db_sysret, 64, "sysretq\n");
CODE(db_gd, 64, "mov %dr7, %rax\n" DONE);
CODE(db_read, 64, "mov %dr6, %rax\nmov %dr7, %rcx\nmov %dr4, %rdx\nmov %dr5, %rsi\n" DONE);
CODE(db_write, 64, "mov %rax, %dr6\nmov %rcx, %dr7\nmov %dr6, %rax\nmov %dr7, %rcx\n" DONE);
CODE(db_dr4, 64, "mov %dr4, %rax\n" DONE);
CODE(db_store_jump, 64, "movl $1, (%rbx)\njmp 1f\nnop\n1: nop\n" DONE);

static void check_instruction(struct machine *m)
{
    m_long(m);
    m->st.dr[0] = A_CODE + 1;
    m->st.dr7 = 0x400 | DR7_EXEC(0);
    RUN(m, db_nops);
    expect_event(m, "instruction breakpoint: before the instruction", X86_EXC_DB, NO_ERROR,
                 A_CODE + 1);
    expect("DR6.B0", m->st.dr6 & 0xf, 1);
    expect("its frame has no RF", m_frame(m, 2) & X86_FL_RF, 0);
    m_long(m);
    m->st.dr[3] = A_CODE + 1;
    m->st.dr7 = 0x400 | DR7_EXEC(3);
    m->st.rip = A_CODE;
    m_write(m, A_CODE, db_nops, 5);
    m->st.rip = A_CODE + 1;
    m->st.rflags |= X86_FL_RF;
    m_run(m);
    expect_event(m, "RF passes the breakpoint by once", 0x80, NO_ERROR, ANY_RIP);
    m_long(m);
    m_gate_to(m, X86_EXC_DB, A_CODE + 0x1000);
    LOAD(m, A_CODE + 0x1000, db_count);
    m->st.dr[0] = A_CODE;
    m->st.dr7 = 0x400 | DR7_EXEC(0);
    m->st.gpr[X86_RCX] = 10;
    m->st.gpr[X86_RDI] = A_DATA;
    RUN(m, db_rep);
    expect("breakpoint on a REP with RF: once, not for each element", m->st.gpr[X86_R15], 1);
    expect("and all elements are done", m->st.gpr[X86_RCX], 0);
}

static void check_data(struct machine *m)
{
    m_long(m);
    m->st.gpr[X86_RBX] = A_DATA;
    m->st.dr[1] = A_DATA;
    m->st.dr7 = 0x400 | DR7_WRITE4(1);
    RUN(m, db_store);
    expect_event(m, "data breakpoint: a trap after the store", X86_EXC_DB, NO_ERROR, A_CODE + 7);
    expect("DR6.B1", m->st.dr6 & 0xf, 2);
    expect("the store is done", m_get32(m, A_DATA), 1);
    m_long(m);
    m->st.gpr[X86_RBX] = A_DATA;
    m->st.dr[1] = A_DATA;
    m->st.dr7 = 0x400 | DR7_WRITE4(1);
    RUN(m, db_load);
    expect_event(m, "a write breakpoint ignores loads", 0x80, NO_ERROR, ANY_RIP);
    m_long(m);
    m->st.gpr[X86_RBX] = A_DATA + 3;
    m->st.dr[2] = A_DATA + 3;
    m->st.dr7 = 0x400 | DR7_RW1(2);
    RUN(m, db_load);
    expect_event(m, "a read/write breakpoint sees loads", X86_EXC_DB, NO_ERROR, A_CODE + 3);
    m_long(m);
    m->st.gpr[X86_RBX] = A_DATA - 3;
    m->st.dr[2] = A_DATA;
    m->st.dr7 = 0x400 | DR7_RW1(2);
    RUN(m, db_store);
    expect_event(m, "one byte of the access is enough", X86_EXC_DB, NO_ERROR, A_CODE + 7);
    m_long(m);
    m->st.gpr[X86_RBX] = A_DATA;
    m->st.dr[0] = A_DATA;
    m->st.dr7 = 0x400 | DR7_WRITE4(0);
    RUN(m, db_store_jump);
    expect_event(m, "data breakpoint before a jump", X86_EXC_DB, NO_ERROR, A_CODE + 6);
    m_long(m);
    m->st.gpr[X86_RBX] = A_DATA;
    m->st.dr[0] = A_DATA;
    m->st.dr7 = 0x400 | DR7_RW1(0);
    m_pte(m, A_TEST, PTE_P);
    m_gate_to(m, X86_EXC_PF, A_CODE + 0x1000);
    LOAD(m, A_CODE + 0x1000, db_nops);
    RUN(m, db_rmw_fault);
    expect_event(m, "an instruction that faults reports no data breakpoint", 0x80, NO_ERROR,
                 A_CODE + 0x1005);
}

static void check_port(struct machine *m)
{
    m_long(m);
    m->st.dr[2] = A_PORT + 4;
    m->st.dr7 = 0x400 | 1u << 4 | 2u << 24;
    m->st.cr4 |= X86_CR4_DE;
    RUN(m, db_out);
    expect_event(m, "CR4.DE: breakpoint on a port traps after the access", X86_EXC_DB, NO_ERROR,
                 A_CODE + 6);
    expect("DR6.B2", m->st.dr6 & 0xf, 4);
    m_long(m);
    m->st.dr[2] = A_PORT + 4;
    m->st.dr7 = 0x400 | 1u << 4 | 2u << 24;
    RUN(m, db_out);
    expect_event(m, "without CR4.DE there is no such kind", 0x80, NO_ERROR, ANY_RIP);
}

static void check_steps(struct machine *m)
{
    m_long(m);
    RUN(m, db_popf);
    expect_event(m, "TF by POPF: after the next instruction", X86_EXC_DB, NO_ERROR, A_CODE + 7);
    expect("DR6.BS", m->st.dr6 & 0x4000, 0x4000);
    expect("the frame has TF", m_frame(m, 2) & X86_FL_TF, X86_FL_TF);
    expect("the handler has not", m->st.rflags & X86_FL_TF, 0);
    m_long(m);
    RUN(m, db_movss);
    expect_event(m, "MOV SS holds the trap back", X86_EXC_DB, NO_ERROR, A_CODE + 11);
    m_long(m);
    m->st.rflags |= X86_FL_TF;
    m->st.gpr[X86_RCX] = 10;
    m->st.gpr[X86_RDI] = A_DATA;
    RUN(m, db_rep);
    expect_event(m, "TF: after one element of a REP", X86_EXC_DB, NO_ERROR, A_CODE);
    expect("nine left", m->st.gpr[X86_RCX], 9);
    m_long(m);
    m_gate_to(m, 0x81, A_CODE + 0x1000);
    LOAD(m, A_CODE + 0x1000, db_int_h);
    m->st.rflags |= X86_FL_TF;
    RUN(m, db_int);
    expect_event(m, "INT n clears TF: no trap in the handler", 0x80, NO_ERROR, A_CODE + 0x1004);
    m_long(m);
    m_user(m);
    m->st.lstar = A_CODE;
    m->st.sfmask = X86_FL_TF;
    m->st.rflags |= X86_FL_TF;
    LOAD(m, A_CODE, db_int_h);
    RUN(m, db_syscall);
    expect_event(m, "SYSCALL that masks TF: no trap in the kernel", 0x80, NO_ERROR, A_CODE + 4);
    m_long(m);
    LOAD(m, A_UCODE, db_int_h);
    m->st.gpr[X86_RCX] = A_UCODE;
    m->st.gpr[X86_R11] = 0x102;
    RUN(m, db_sysret);
    expect_event(m, "SYSRET that sets TF traps at once", X86_EXC_DB, NO_ERROR, A_UCODE);
}

CODE(db_hlt, 64, "pushq $0x302\npopf\nnop\nhlt\nnop\n" DONE);
CODE(db_movss_int1, 64, "movw (%rbx), %ss\n.byte 0xf1\nnop\n" DONE);
CODE(db_btf, 64, "wrmsr\npushq $0x102\npopf\nnop\nnop\njmp 1f\nnop\n1: nop\n" DONE);
CODE(db_step_on, 64, "inc %r15\niretq\n");

static void check_corners(struct machine *m)
{
    m_long(m);
    m->st.rip = A_CODE;
    m_gate_to(m, X86_EXC_DB, A_CODE + 0x1000);
    LOAD(m, A_CODE + 0x1000, db_step_on);
    RUN(m, db_hlt);
    expect("a HLT that is stepped does not halt", m->st.gpr[X86_R15], 3);
    m_long(m);
    m->st.dr[0] = A_DATA;
    m->st.dr7 = 0x400 | 1 | 0x7u << 16; /* reads and writes of two bytes */
    m_put16(m, A_DATA, S_DATA);
    m->st.gpr[X86_RBX] = A_DATA;
    m_gate_to(m, X86_EXC_DB, A_CODE + 0x1000);
    LOAD(m, A_CODE + 0x1000, db_step_on);
    RUN(m, db_movss_int1);
    expect("MOV SS, breakpoint, INT1: one #DB", m->st.gpr[X86_R15], 1);
    expect("MOV SS, breakpoint, INT1: DR6 tells the breakpoint", m->st.dr6 & 0xf, 1);
    m_long(m);
    m->st.gpr[X86_RCX] = 0x1d9;
    m->st.gpr[X86_RAX] = 2;
    m->st.gpr[X86_RDX] = 0;
    RUN(m, db_btf);
    expect_event(m, "BTF: a step is a taken branch", X86_EXC_DB, NO_ERROR, A_CODE + 13);
    expect("BTF: #DB clears it", m->st.debugctl, 0);
    m_long(m);
    m->st.dr7 = 0x400 | 1u << 13;
    RUN(m, db_gd);
    expect("general detect is a fault: RF", m_frame(m, 2) & X86_FL_RF, X86_FL_RF);
}

static void check_registers(struct machine *m)
{
    m_long(m);
    m->st.dr7 = 0x2400;
    RUN(m, db_gd);
    expect_event(m, "DR7.GD: #DB before MOV DR", X86_EXC_DB, NO_ERROR, A_CODE);
    expect("DR6.BD", m->st.dr6 & 0x2000, 0x2000);
    expect("GD is cleared", m->st.dr7 & 0x2000, 0);
    m_long(m);
    m->st.dr7 = 0x2400;
    m->st.rflags |= X86_FL_TF;
    RUN(m, db_nops);
    expect("any #DB clears GD", m->st.dr7 & 0x2000, 0);
    m_long(m);
    RUN(m, db_read);
    expect("DR4 is DR6", m->st.gpr[X86_RDX], m->st.gpr[X86_RAX]);
    expect("DR5 is DR7", m->st.gpr[X86_RSI], 0x400);
    m_long(m);
    m->st.cr4 |= X86_CR4_DE;
    RUN(m, db_dr4);
    expect_event(m, "CR4.DE: DR4 is #UD", X86_EXC_UD, NO_ERROR, A_CODE);
    m_long(m);
    m->st.gpr[X86_RAX] = 0;
    m->st.gpr[X86_RCX] = 0xd000;
    RUN(m, db_write);
    expect("DR6: fixed bits", m->st.gpr[X86_RAX], 0xffff0ff0);
    expect("DR7: fixed bits", m->st.gpr[X86_RCX], 0x400);
    m_long(m);
    m->st.gpr[X86_RAX] = 1ull << 32;
    RUN(m, db_write);
    expect_event(m, "DR6: upper half must be 0", X86_EXC_GP, 0, A_CODE);
    m_long(m);
    m_user(m);
    RUN(m, db_gd);
    expect_event(m, "MOV DR at CPL 3", X86_EXC_GP, 0, A_UCODE);
}

void test_debug(struct machine *m)
{
    check_instruction(m);
    check_data(m);
    check_port(m);
    check_steps(m);
    check_registers(m);
    check_corners(m);
}
