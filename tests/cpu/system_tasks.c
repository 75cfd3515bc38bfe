/* Hardware task switches: JMP, CALL, IRET, task gates, 16-bit tasks, and what is refused. */
#include "system.h"

#define A_TSS2 0x50000
#define A_TASK 0x51000 /* where the second task begins */
#define A_STACK2 0x52000
#define S_TSS2 S_FREE
#define S_TGATE S_GATE

CODE(ts_jmp, 32, "ljmp $0x80, $0\n" DONE);
CODE(ts_call, 32, "lcall $0x80, $0\n" DONE);
CODE(ts_call_gate, 32, "lcall $0x70, $0\n" DONE);
CODE(ts_int, 32, "int $0x30\n" DONE);
CODE(ts_ud, 32, "ud2\n");
CODE(ts_iret, 32, "iret\n" DONE);
CODE(ts_done, 32, DONE);
CODE(ts_back, 32, "str %ax\niret\n" DONE);
CODE(ts_drop, 32, "pop %ebx\niret\n");

static uint64_t tss_desc(uint32_t base, unsigned type, unsigned dpl, uint32_t limit)
{
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 |
           (uint64_t)(type | 0x80 | dpl << 5) << 40 | (uint64_t)(limit >> 16 & 15) << 48 |
           (uint64_t)(base >> 24) << 56;
}

/* A second 32-bit task, flat, at A_TASK. */
static void second_task(struct machine *m)
{
    static const uint16_t seg[6] = {S_DATA, S_CODE32, S_DATA, S_DATA, S_DATA, S_DATA};

    m_protected(m);
    m_desc(m, S_TSS2, tss_desc(A_TSS2, 9, 0, 0x67));
    m_desc(m, S_TGATE, (uint64_t)S_TSS2 << 16 | 0x8500ull << 32);
    gmem_fill(m->env.mem, A_TSS2, 0, 0x68);
    m_put32(m, A_TSS2 + 0x20, A_TASK);
    m_put32(m, A_TSS2 + 0x24, 0x202 | X86_FL_CF);
    for (unsigned i = 0; i < 8; i++)
        m_put32(m, A_TSS2 + 0x28 + 4 * i, 0x11111100u + i);
    m_put32(m, A_TSS2 + 0x38, A_STACK2);
    for (unsigned i = 0; i < 6; i++)
        m_put16(m, A_TSS2 + 0x48 + 4 * i, seg[i]);
    LOAD(m, A_TASK, ts_done);
    m->st.gpr[X86_RAX] = 0xa1a2a3a4;
    m->st.gpr[X86_RDI] = 0xd1d2d3d4;
    m->st.dr7 = 0x455;
    m->st.dr[0] = m->st.dr[1] = m->st.dr[2] = m->st.dr[3] = 0x70000;
}

static unsigned desc_type_of(struct machine *m, unsigned sel)
{
    return m_get32(m, A_GDT + sel + 4) >> 8 & 31;
}

static void check_jump(struct machine *m)
{
    second_task(m);
    LOAD(m, A_CODE, ts_jmp);
    m_run(m);
    expect_event(m, "task switch by JMP", 0x80, NO_ERROR, A_TASK + 2);
    expect("JMP: the old task's EIP", m_get32(m, A_TSS + 0x20), A_CODE + 7);
    expect("JMP: the old task's EAX", m_get32(m, A_TSS + 0x28), 0xa1a2a3a4);
    expect("JMP: the old task's EDI", m_get32(m, A_TSS + 0x44), 0xd1d2d3d4);
    expect("JMP: the old task's CS", m_get32(m, A_TSS + 0x4c), S_CODE32);
    expect("JMP: the old TSS is free", desc_type_of(m, S_TSS), 9);
    expect("JMP: the new TSS is busy", desc_type_of(m, S_TSS2), 11);
    expect("JMP: TR", m->st.tr.selector, S_TSS2);
    expect("JMP: no link", m_get32(m, A_TSS2), 0);
    expect("JMP: NT as in the image", m_frame(m, 2) & X86_FL_NT, 0);
    expect("JMP: CF from the image", m_frame(m, 2) & X86_FL_CF, X86_FL_CF);
    expect("JMP: ECX from the image", m->st.gpr[X86_RCX], 0x11111101);
    expect("JMP: ESP from the image", m->st.gpr[X86_RSP], A_STACK2 - 12);
    expect("JMP: CR0.TS", m->st.cr0 & X86_CR0_TS, X86_CR0_TS);
    expect("JMP: local breakpoints off", m->st.dr7, 0x400);
}

static void check_call(struct machine *m)
{
    second_task(m);
    LOAD(m, A_CODE, ts_call);
    LOAD(m, A_TASK, ts_back);
    m_run(m);
    expect_event(m, "CALL to a task and IRET from it", 0x80, NO_ERROR, A_CODE + 9);
    expect("CALL: the link", m_get32(m, A_TSS2) & 0xffff, S_TSS);
    expect("CALL: back in TR", m->st.tr.selector, S_TSS);
    expect("CALL: the inner TSS is free again", desc_type_of(m, S_TSS2), 9);
    expect("CALL: the outer one stayed busy", desc_type_of(m, S_TSS), 11);
    expect("CALL: EAX is back", m->st.gpr[X86_RAX], 0xa1a2a3a4);
    expect("CALL: the inner task saw its TR", m_get32(m, A_TSS2 + 0x28) & 0xffff, S_TSS2);
    expect("CALL: IRET saved NT as clear", m_get32(m, A_TSS2 + 0x24) & X86_FL_NT, 0);
    expect("CALL: the inner task goes on after its IRET", m_get32(m, A_TSS2 + 0x20), A_TASK + 5);
    second_task(m);
    LOAD(m, A_CODE, ts_call);
    m_run(m);
    expect("CALL: NT set in the new task", m_frame(m, 2) & X86_FL_NT, X86_FL_NT);
    second_task(m);
    LOAD(m, A_CODE, ts_call_gate);
    m_run(m);
    expect_event(m, "CALL through a task gate", 0x80, NO_ERROR, A_TASK + 2);
}

static void check_events(struct machine *m)
{
    second_task(m);
    m_put64(m, A_IDT + 8 * 0x30, (uint64_t)S_TSS2 << 16 | 0x8500ull << 32);
    LOAD(m, A_CODE, ts_int);
    LOAD(m, A_TASK, ts_back);
    m_run(m);
    expect_event(m, "INT through a task gate and back", 0x80, NO_ERROR, A_CODE + 4);
    second_task(m);
    m_put64(m, A_IDT + 8 * X86_EXC_UD, (uint64_t)S_TSS2 << 16 | 0x8500ull << 32);
    LOAD(m, A_CODE, ts_ud);
    m_run(m);
    expect_event(m, "#UD by a task gate", 0x80, NO_ERROR, A_TASK + 2);
    expect("#UD: the old EIP is the instruction", m_get32(m, A_TSS + 0x20), A_CODE);
    expect("#UD: RF saved", m_get32(m, A_TSS + 0x24) & X86_FL_RF, X86_FL_RF);
    second_task(m);
    m_put64(m, A_IDT + 8 * X86_EXC_GP, (uint64_t)S_TSS2 << 16 | 0x8500ull << 32);
    m_write(m, A_CODE, "\xcd\xff", 2); /* its gate is beyond the limit */
    m->st.idtr.limit = 0x7f;
    LOAD(m, A_TASK, ts_drop);
    m_put16(m, A_CODE + 2, 0x80cd);
    m_put32(m, A_TSS + 0x20, 0);
    m->budget = 2;
    m_run(m);
    expect("#GP by a task gate: its error code is on the new stack", m->st.gpr[X86_RBX],
           0xff * 8 + 2);
}

/* name, where the change goes, its value, then what comes of a JMP */
static void check_refused(struct machine *m)
{
    second_task(m);
    m_desc(m, S_TSS2, tss_desc(A_TSS2, 11, 0, 0x67));
    LOAD(m, A_CODE, ts_jmp);
    m_run(m);
    expect_event(m, "JMP to a busy TSS", X86_EXC_GP, S_TSS2, A_CODE);
    second_task(m);
    m_desc(m, S_TSS2, tss_desc(A_TSS2, 9, 0, 0x67) & ~(0x80ull << 40));
    LOAD(m, A_CODE, ts_jmp);
    m_run(m);
    expect_event(m, "JMP to an absent TSS", X86_EXC_NP, S_TSS2, A_CODE);
    second_task(m);
    m_desc(m, S_TSS2, tss_desc(A_TSS2, 9, 0, 0x66));
    LOAD(m, A_CODE, ts_jmp);
    m_run(m);
    expect_event(m, "TSS too short: in the old task", X86_EXC_TS, S_TSS2, A_CODE);
    expect("TSS too short: nothing saved", m_get32(m, A_TSS + 0x20), 0);
    second_task(m);
    m_user(m);
    m_put32(m, A_TSS + 4, A_STACK);
    m_put32(m, A_TSS + 8, S_DATA);
    LOAD(m, A_UCODE, ts_jmp);
    m_run(m);
    expect_event(m, "JMP to a TSS of more privilege", X86_EXC_GP, S_TSS2, A_UCODE);
    second_task(m);
    m->st.rflags |= X86_FL_NT;
    m_put16(m, A_TSS, S_DATA);
    LOAD(m, A_CODE, ts_iret);
    m_run(m);
    expect_event(m, "IRET to a link that is no TSS", X86_EXC_TS, S_DATA, A_CODE);
    second_task(m);
    m->st.rflags |= X86_FL_NT;
    m_put16(m, A_TSS, S_TSS2);
    LOAD(m, A_CODE, ts_iret);
    m_run(m);
    expect_event(m, "IRET to a TSS that is not busy", X86_EXC_TS, S_TSS2, A_CODE);
    second_task(m);
    m_desc(m, S_TGATE, (uint64_t)S_TSS2 << 16 | 0x0500ull << 32);
    LOAD(m, A_CODE, ts_call_gate);
    m_run(m);
    expect_event(m, "absent task gate", X86_EXC_NP, S_TGATE, A_CODE);
    second_task(m);
    m_desc(m, S_TGATE, (uint64_t)(S_TSS2 | 4) << 16 | 0x8500ull << 32);
    LOAD(m, A_CODE, ts_call_gate);
    m_run(m);
    expect_event(m, "task gate to a TSS in the LDT", X86_EXC_GP, S_TSS2 | 4, A_CODE);
}

/* The new task's segments: its own faults, at its first instruction. */
static void check_segments(struct machine *m)
{
    static const struct {
        const char *name;
        unsigned off; /* in the TSS */
        uint16_t sel;
        int vector;
        uint32_t error;
    } bad[] = {
        {"new task: null CS", 0x4c, 0, X86_EXC_TS, 0},
        {"new task: CS is data", 0x4c, S_DATA, X86_EXC_TS, S_DATA},
        {"new task: CS beyond the table", 0x4c, 0x1000, X86_EXC_TS, 0x1000},
        {"new task: null SS", 0x50, 0, X86_EXC_TS, 0},
        {"new task: SS is code", 0x50, S_CODE32, X86_EXC_TS, S_CODE32},
        {"new task: SS of another privilege", 0x50, S_UDATA, X86_EXC_TS, S_UDATA & ~3u},
        {"new task: absent SS", 0x50, S_ABSENT, X86_EXC_SS, S_ABSENT},
        {"new task: absent DS", 0x54, S_ABSENT, X86_EXC_NP, S_ABSENT},
        {"new task: DS is a TSS", 0x54, S_TSS, X86_EXC_TS, S_TSS},
        {"new task: LDT is data", 0x60, S_DATA, X86_EXC_TS, S_DATA},
    };

    for (size_t i = 0; i < countof(bad); i++) {
        second_task(m);
        m_put16(m, A_TSS2 + bad[i].off, bad[i].sel);
        LOAD(m, A_CODE, ts_jmp);
        m_run(m);
        if (bad[i].off != 0x54) /* no stack or code segment to take it on */
            expect(bad[i].name, m->st.tr.selector, S_TSS2);
        else
            expect_event(m, bad[i].name, bad[i].vector, bad[i].error, A_TASK);
    }
    second_task(m);
    m_put32(m, A_TSS2 + 0x64, 1); /* the T flag */
    LOAD(m, A_CODE, ts_jmp);
    m_run(m);
    expect_event(m, "T flag: #DB before the first instruction", X86_EXC_DB, NO_ERROR, A_TASK);
    expect("T flag: DR6.BT", m->st.dr6 & 0x8000, 0x8000);
    second_task(m);
    m_put32(m, A_TSS2 + 0x24, 0x20202); /* VM */
    m_put32(m, A_TSS2 + 0x20, 0);
    m_put16(m, A_TSS2 + 0x4c, A_TASK >> 4);
    m_put16(m, A_TSS2 + 0x50, 0x4000);
    m_put32(m, A_TSS2 + 0x38, 0x100);
    m_put32(m, A_TSS2 + 4, A_STACK);
    m_put32(m, A_TSS2 + 8, S_DATA);
    m_write(m, A_TASK, "\x8c\xc8\x0f\x0b", 4); /* mov %cs, %ax; ud2 */
    LOAD(m, A_CODE, ts_jmp);
    m_run(m);
    expect_event(m, "a virtual-8086 task", X86_EXC_UD, NO_ERROR, 2);
    expect("a virtual-8086 task: CS", m->st.gpr[X86_RAX] & 0xffff, A_TASK >> 4);
}

static void check_16(struct machine *m)
{
    static const uint16_t seg[4] = {S_DATA, S_CODE32, S_DATA, S_DATA};

    second_task(m);
    m_desc(m, S_TSS2, tss_desc(A_TSS2, 1, 0, 0x2b));
    gmem_fill(m->env.mem, A_TSS2, 0, 0x68);
    m_desc(m, S_CODE32, 0x00cf9b000000ffffull);
    m_put16(m, A_TSS2 + 0x0e, 0x100);
    m_put16(m, A_TSS2 + 0x10, 0x202);
    m_put16(m, A_TSS2 + 0x12, 0x1234);
    m_put16(m, A_TSS2 + 0x1a, 0x800);
    for (unsigned i = 0; i < 4; i++)
        m_put16(m, A_TSS2 + 0x22 + 2 * i, seg[i]);
    m_desc(m, S_DATA16, 0x00cf93050000ffffull); /* a stack that ESP's upper half does not leave */
    LOAD(m, 0x100, ts_done);
    m_put16(m, A_TSS2 + 0x26, S_ABSENT);
    m_desc(m, S_ABSENT, 0x000093050000ffffull); /* 16 bits wide, at 0x50000 */
    LOAD(m, A_CODE, ts_jmp);
    m_run(m);
    expect("16-bit task: TR", m->st.tr.selector, S_TSS2);
    expect("16-bit task: AX", m->st.gpr[X86_RAX] & 0xffff, 0x1234);
    expect("16-bit task: busy", desc_type_of(m, S_TSS2), 3);
    expect("16-bit task: FS is null", m->st.seg[X86_FS].selector, 0);
    expect("16-bit task: SP after the frame", m->st.gpr[X86_RSP] & 0xffff, 0x800 - 12);
}

void test_tasks(struct machine *m)
{
    check_jump(m);
    check_call(m);
    check_events(m);
    check_refused(m);
    check_segments(m);
    check_16(m);
}
