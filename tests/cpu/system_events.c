/* Exceptions and interrupts: frames, error codes, stacks, double faults, shadows, HLT. */
#include "system.h"

CODE(ev_ud2, 64, "ud2\n");
CODE(ev_int3, 64, "nop\nint3\nnop\n");
CODE(ev_int80, 64, "nop\nint $0x80\n");
CODE(ev_int40, 64, "int $0x40\n");
CODE(ev_div, 64, "xor %ecx, %ecx\ndiv %ecx\n");
CODE(ev_load, 64, "mov (%rbx), %rax\n" DONE);
CODE(ev_store_ss, 64, "mov %rax, (%rbp)\n" DONE);
CODE(ev_push, 64, "push %rax\n" DONE);
CODE(ev_pop, 64, "pop (%rbx)\n" DONE);
CODE(ev_call, 64, "call .+0x100\n");
CODE(ev_call_rm, 64, "call *%rbx\n");
CODE(ev_ret, 64, "ret\n");
CODE(ev_load_ds, 64, "mov %ebx, %ds\n" DONE);
CODE(ev_load_ss, 64, "mov %ebx, %ss\n" DONE);
CODE(ev_int1, 64, ".byte 0xf1\n" DONE);
CODE(ev_into, 32, "into\n" DONE);
CODE(ev_ud32, 32, "ud2\n");
CODE(ev_int40_32, 32, "int $0x40\n");
CODE(ev_bound, 32, "bound %eax, (%ebx)\n" DONE);
CODE(ev_enter, 64, "enter $0x100, $3\n" DONE);

static int run64(struct machine *m, const uint8_t *code, size_t len)
{
    m_write(m, m->st.rip, code, len);
    return m_run(m);
}
#define RUN(m, code) run64(m, code, (size_t)(code##_end - (code)))

static void check_frames(struct machine *m)
{
    m_long(m);
    m->st.rflags |= X86_FL_CF | X86_FL_DF;
    m->st.gpr[X86_RSP] = A_STACK - 0x105;
    RUN(m, ev_ud2);
    expect_event(m, "#UD: a fault, no error code", X86_EXC_UD, NO_ERROR, A_CODE);
    expect("64-bit frame: CS", m_frame(m, 1), S_CODE64);
    expect("64-bit frame: RFLAGS with RF", m_frame(m, 2), 0x10403);
    expect("64-bit frame: RSP", m_frame(m, 3), A_STACK - 0x105);
    expect("64-bit frame: SS", m_frame(m, 4), S_DATA);
    expect("64-bit frame is aligned to 16", m->st.gpr[X86_RSP], A_STACK - 0x110 - 40);
    m_long(m);
    RUN(m, ev_int3);
    expect_event(m, "INT3 saves the next RIP", X86_EXC_BP, NO_ERROR, A_CODE + 2);
    expect("a trap pushes no RF", m_frame(m, 2) & X86_FL_RF, 0);
    m_long(m);
    RUN(m, ev_int80);
    expect_event(m, "INT n saves the next RIP", 0x80, NO_ERROR, A_CODE + 3);
    m_long(m);
    RUN(m, ev_div);
    expect_event(m, "#DE: a fault", X86_EXC_DE, NO_ERROR, A_CODE + 2);
    m_long(m);
    RUN(m, ev_int1);
    expect_event(m, "INT1 is a #DB that saves the next RIP", X86_EXC_DB, NO_ERROR, A_CODE + 1);
}

static void check_gates(struct machine *m)
{
    m_long(m);
    m->st.rflags |= X86_FL_IF | X86_FL_NT | X86_FL_AC;
    RUN(m, ev_ud2);
    expect("interrupt gate clears IF, NT, RF; AC stays",
           m->st.rflags & (X86_FL_IF | X86_FL_NT | X86_FL_RF | X86_FL_AC), X86_FL_AC);
    m_long(m);
    m_gate(m, X86_EXC_UD, S_CODE64, 0x8f, 0);
    m->st.rflags |= X86_FL_IF;
    RUN(m, ev_ud2);
    expect("trap gate leaves IF", m->st.rflags & X86_FL_IF, X86_FL_IF);
    m_long(m);
    m_user(m);
    RUN(m, ev_int40);
    expect_event(m, "INT n through a gate of DPL 0 at CPL 3", X86_EXC_GP, 0x202, A_UCODE);
    m_long(m);
    m_user(m);
    RUN(m, ev_ud2);
    expect_event(m, "a fault ignores the gate's DPL", X86_EXC_UD, NO_ERROR, A_UCODE);
    expect("64-bit switch to CPL 0: RSP0", m->st.gpr[X86_RSP], A_STACK - 40);
    expect("64-bit switch to CPL 0: SS is null", m->st.seg[X86_SS].selector, 0);
    expect("frame: user's SS", m_frame(m, 4), S_UDATA);
    expect("frame: user's RSP", m_frame(m, 3), A_USTACK);
    m_long(m);
    m_gate(m, X86_EXC_UD, S_CODE64, 0x8e, 1);
    RUN(m, ev_ud2);
    expect("IST switches the stack at the same CPL", m->st.gpr[X86_RSP], A_IST - 40);
    expect("and leaves SS", m->st.seg[X86_SS].selector, S_DATA);
    m_long(m);
    m_gate(m, 0x40, S_CODE64, 0x0e, 0);
    RUN(m, ev_int40);
    expect_event(m, "absent gate: #NP with the vector, IDT bit", X86_EXC_NP, 0x202, A_CODE);
    m_long(m);
    m_gate(m, 0x40, S_CODE64, 0x8c, 0);
    RUN(m, ev_int40);
    expect_event(m, "gate of another type: #GP", X86_EXC_GP, 0x202, A_CODE);
    m_long(m);
    m_gate(m, 0x40, S_CODE32, 0x8e, 0);
    RUN(m, ev_int40);
    expect_event(m, "long mode: handler must be 64-bit code", X86_EXC_GP, S_CODE32, A_CODE);
    m_long(m);
    m_gate(m, 0x40, 0, 0x8e, 0);
    RUN(m, ev_int40);
    expect_event(m, "gate with a null selector", X86_EXC_GP, 0, A_CODE);
    m_long(m);
    m->st.idtr.limit = 0x40 * 16 + 14;
    RUN(m, ev_int40);
    expect_event(m, "IDT limit", X86_EXC_GP, 0x202, A_CODE);
    m_long(m);
    m_gate(m, X86_EXC_UD, S_CODE64, 0x0e, 0);
    RUN(m, ev_ud2);
    expect_event(m, "error code's EXT bit: delivering an exception", X86_EXC_NP, 0x33, A_CODE);
    m_long(m);
    m_gate(m, X86_EXC_BP, S_CODE64, 0x6e, 0);
    RUN(m, ev_int3);
    expect_event(m, "no EXT bit: delivering INT3", X86_EXC_NP, 0x1a, A_CODE + 1);
    m_long(m);
    m_gate(m, X86_EXC_UD, S_CONF64, 0x8e, 0);
    m_user(m);
    m->st.gpr[X86_RSP] = A_USTACK;
    m_pte(m, A_HANDLERS, PTE_P | PTE_U);
    RUN(m, ev_ud2);
    expect("conforming handler runs at CPL 3 on the user's stack", m_get64(m, A_USTACK - 40),
           A_UCODE);
}

static void check_protected_frames(struct machine *m)
{
    m_protected(m);
    RUN(m, ev_ud32);
    expect_event(m, "32-bit #UD", X86_EXC_UD, NO_ERROR, A_CODE);
    expect("32-bit frame at the same CPL is three words", m->st.gpr[X86_RSP], A_STACK - 12);
    m_protected(m);
    m_user(m);
    RUN(m, ev_ud32);
    expect_event(m, "32-bit switch to CPL 0", X86_EXC_UD, NO_ERROR, A_UCODE);
    expect("32-bit switch: ESP0", m->st.gpr[X86_RSP], A_STACK - 20);
    expect("32-bit switch: SS0", m->st.seg[X86_SS].selector, S_DATA);
    expect("32-bit switch: pushed ESP", m_frame(m, 3), A_USTACK);
    expect("32-bit switch: pushed SS", m_frame(m, 4), S_UDATA);
    m_protected(m);
    m_gate(m, 0x40, S_CODE32, 0xee, 0);
    m_user(m);
    m_put32(m, A_TSS + 8, S_ABSENT);
    RUN(m, ev_int40_32);
    expect("SS0 of another privilege or absent shuts down", m->exit.reason, VCPU_EXIT_SHUTDOWN);
    m_protected(m);
    m_gate(m, 0x40, S_CODE32, 0xee, 0);
    m_user(m);
    m_desc(m, S_FREE, 0x00409300c0000017ull); /* base 0xc000, 24 bytes */
    m_put16(m, A_TSS + 8, S_FREE);
    m_put32(m, A_TSS + 4, 16); /* the fifth word of the frame has no room */
    m_put32(m, 0xc00c, 0x5a5a5a5a);
    RUN(m, ev_int40_32);
    expect("no room on the inner stack: nothing is written", m_get32(m, 0xc00c), 0x5a5a5a5a);
    m_protected(m);
    m->st.rflags |= X86_FL_OF;
    RUN(m, ev_into);
    expect_event(m, "INTO with OF", X86_EXC_OF, NO_ERROR, A_CODE + 1);
    m_protected(m);
    m_put32(m, A_DATA, 5);
    m_put32(m, A_DATA + 4, 10);
    m->st.gpr[X86_RBX] = A_DATA;
    m->st.gpr[X86_RAX] = 11;
    RUN(m, ev_bound);
    expect_event(m, "BOUND out of range: #BR is a fault", X86_EXC_BR, NO_ERROR, A_CODE);
    m_protected(m);
    m_put64(m, A_IDT + 8 * 0x40, 0x0000850000000000ull | (uint64_t)S_TSS << 16);
    RUN(m, ev_int40_32);
    expect_event(m, "task gate to a busy TSS", X86_EXC_GP, S_TSS, A_CODE);
}

static void check_double(struct machine *m)
{
    m_long(m);
    m_gate(m, X86_EXC_GP, S_CODE64, 0x0e, 0);
    m->st.gpr[X86_RBX] = 1ull << 47;
    RUN(m, ev_load);
    expect_event(m, "#GP then #NP: double fault", X86_EXC_DF, 0, A_CODE);
    m_long(m);
    m_gate(m, X86_EXC_DF, S_CODE64, 0x8e, 1);
    m_user(m);
    m_put64(m, A_TSS + 4, A_TEST + 0x1000);
    m_pte(m, A_TEST, 0);
    m->st.gpr[X86_RBX] = 0x90000;
    m_pte(m, 0x90000, 0);
    RUN(m, ev_load);
    expect_event(m, "#PF then #PF: double fault, on its IST", X86_EXC_DF, 0, A_UCODE);
    expect("CR2 of the second", m->st.cr2, A_TEST + 0x1000 - 8);
    m_long(m);
    m_user(m);
    m_put64(m, A_TSS + 4, A_TEST + 0x1000);
    m_pte(m, A_TEST, 0);
    m->st.gpr[X86_RBX] = 0x90000;
    RUN(m, ev_load);
    expect("no good stack at all: shutdown", m->exit.reason, VCPU_EXIT_SHUTDOWN);
    m_long(m);
    m_gate(m, X86_EXC_PF, S_CODE64, 0x8e, 1);
    m_user(m);
    m_put64(m, A_TSS + 4, A_TEST + 0x1000);
    m_pte(m, A_TEST, 0);
    RUN(m, ev_ud2);
    expect_event(m, "#UD then #PF: the #PF is delivered", X86_EXC_PF, 2, A_UCODE);
    m_long(m);
    m->st.idtr.limit = 0;
    RUN(m, ev_ud2);
    expect("no IDT: shutdown", m->exit.reason, VCPU_EXIT_SHUTDOWN);
    m_long(m);
    m_user(m);
    m_put64(m, A_TSS + 4, 1ull << 47);
    m_gate(m, X86_EXC_SS, S_CODE64, 0x8e, 1);
    RUN(m, ev_ud2);
    expect_event(m, "RSP0 not canonical: #SS", X86_EXC_SS, 1, A_UCODE);
    m_long(m);
    m->st.tr.limit = 0x30;
    m_gate(m, 0x40, S_CODE64, 0x8e, 7);
    RUN(m, ev_int40);
    expect_event(m, "IST beyond the TSS: #TS", X86_EXC_TS, S_TSS, A_CODE);
}

static void check_fault_loop(struct machine *m)
{
    m_long(m);
    m_gate_to(m, X86_EXC_UD, A_CODE);
    m->budget = 100;
    RUN(m, ev_ud2);
    expect("a handler that faults at once uses up the budget", m->exit.reason, VCPU_EXIT_BUDGET);
}

static void check_canonical(struct machine *m)
{
    m_long(m);
    m->st.gpr[X86_RBX] = 1ull << 47;
    RUN(m, ev_load);
    expect_event(m, "load from a non-canonical address", X86_EXC_GP, 0, A_CODE);
    m_long(m);
    m->st.gpr[X86_RBP] = 0xffff7fffffffff00ull;
    RUN(m, ev_store_ss);
    expect_event(m, "the same by RBP: #SS", X86_EXC_SS, 0, A_CODE);
    m_long(m);
    m_gate(m, X86_EXC_SS, S_CODE64, 0x8e, 1);
    m->st.gpr[X86_RSP] = 1ull << 63;
    RUN(m, ev_push);
    expect_event(m, "PUSH to a non-canonical address: #SS", X86_EXC_SS, 0, A_CODE);
    expect("RSP is as before", m_frame(m, 3), 1ull << 63);
    m_long(m);
    m->st.gpr[X86_RBX] = 1ull << 47;
    RUN(m, ev_call_rm);
    expect_event(m, "CALL to a non-canonical address: #GP at the CALL", X86_EXC_GP, 0, A_CODE);
    expect("nothing is pushed", m_frame(m, 3), A_STACK);
    m_long(m);
    m_put64(m, A_STACK - 8, 1ull << 47);
    m->st.gpr[X86_RSP] = A_STACK - 8;
    RUN(m, ev_ret);
    expect_event(m, "RET to a non-canonical address: #GP at the RET", X86_EXC_GP, 0, A_CODE);
    expect("RET has not moved RSP", m_frame(m, 3), A_STACK - 8);
    m_long(m);
    m->st.gpr[X86_RBX] = 0x00007ffffffffffcull;
    m_put64(m, A_PML4 + 8 * 255, A_PDPAE | 0x100000000ull); /* absent */
    RUN(m, ev_load);
    expect_event(m, "8 bytes across the end of the lower half: before the absent page", X86_EXC_GP,
                 0, A_CODE);
}

static void check_stack_atomicity(struct machine *m)
{
    m_long(m);
    m_gate(m, X86_EXC_PF, S_CODE64, 0x8e, 1);
    m_pte(m, A_TEST, PTE_P);
    m->st.gpr[X86_RSP] = A_TEST + 0x1000;
    RUN(m, ev_push);
    expect_event(m, "PUSH to a read-only page", X86_EXC_PF, 3, A_CODE);
    expect("PUSH: RSP unchanged", m_frame(m, 3), A_TEST + 0x1000);
    m_long(m);
    m_gate(m, X86_EXC_PF, S_CODE64, 0x8e, 1);
    m_pte(m, A_TEST, 0);
    m->st.gpr[X86_RSP] = A_TEST + 0x1004;
    RUN(m, ev_push);
    expect_event(m, "PUSH across a page, lower half absent", X86_EXC_PF, 2, A_CODE);
    expect("nothing written to the upper half", m_get32(m, A_TEST + 0x1000), 0);
    m_long(m);
    m_pte(m, A_TEST, PTE_P);
    m->st.gpr[X86_RBX] = A_TEST;
    m->st.gpr[X86_RSP] = A_STACK - 8;
    RUN(m, ev_pop);
    expect_event(m, "POP to a read-only page", X86_EXC_PF, 3, A_CODE);
    expect("POP: RSP unchanged", m_frame(m, 3), A_STACK - 8);
    m_long(m);
    m_gate(m, X86_EXC_PF, S_CODE64, 0x8e, 1);
    m_pte(m, A_TEST, 0);
    m->st.gpr[X86_RSP] = A_TEST + 0x1000;
    RUN(m, ev_call);
    expect_event(m, "CALL: push faults at the CALL", X86_EXC_PF, 2, A_CODE);
    expect("CALL: RSP unchanged", m_frame(m, 3), A_TEST + 0x1000);
    m_long(m);
    m_gate(m, X86_EXC_PF, S_CODE64, 0x8e, 1);
    m_pte(m, A_TEST, 0);
    m->st.gpr[X86_RSP] = A_TEST + 0x1008;
    m->st.gpr[X86_RBP] = A_DATA + 0x100;
    RUN(m, ev_enter);
    expect_event(m, "ENTER faults in the middle", X86_EXC_PF, 2, A_CODE);
    expect("ENTER: RSP unchanged", m_frame(m, 3), A_TEST + 0x1008);
    expect("ENTER: RBP unchanged", m->st.gpr[X86_RBP], A_DATA + 0x100);
}

static void check_segment_errors(struct machine *m)
{
    m_long(m);
    m->st.gpr[X86_RBX] = S_ABSENT;
    RUN(m, ev_load_ds);
    expect_event(m, "absent data segment: #NP", X86_EXC_NP, S_ABSENT, A_CODE);
    m_long(m);
    m->st.gpr[X86_RBX] = S_ABSENT;
    RUN(m, ev_load_ss);
    expect_event(m, "absent stack segment: #SS", X86_EXC_SS, S_ABSENT, A_CODE);
    m_long(m);
    m->st.gpr[X86_RBX] = 0x1000;
    RUN(m, ev_load_ds);
    expect_event(m, "selector beyond the GDT", X86_EXC_GP, 0x1000, A_CODE);
    m_long(m);
    m->st.gpr[X86_RBX] = 0x14;
    RUN(m, ev_load_ds);
    expect_event(m, "selector of an absent LDT", X86_EXC_GP, 0x14, A_CODE);
    m_long(m);
    m->st.gpr[X86_RBX] = S_UDATA;
    RUN(m, ev_load_ss);
    expect_event(m, "SS of another RPL", X86_EXC_GP, S_UDATA & ~3, A_CODE);
    m_long(m);
    m->st.gpr[X86_RBX] = S_TSS;
    RUN(m, ev_load_ds);
    expect_event(m, "system descriptor in DS", X86_EXC_GP, S_TSS, A_CODE);
    m_long(m);
    m->st.gpr[X86_RBX] = 0;
    RUN(m, ev_load_ss);
    expect_event(m, "null SS at CPL 0 in 64-bit mode", 0x80, NO_ERROR, ANY_RIP);
    m_long(m);
    m_user(m);
    m->st.gpr[X86_RBX] = 3;
    RUN(m, ev_load_ss);
    expect_event(m, "null SS at CPL 3", X86_EXC_GP, 0, A_UCODE);
    m_long(m);
    m_user(m);
    m->st.gpr[X86_RBX] = S_DATA | 3;
    RUN(m, ev_load_ds);
    expect_event(m, "DS of DPL 0 at CPL 3", X86_EXC_GP, S_DATA, A_UCODE);
    m_long(m);
    m_desc(m, S_FREE, 0x00cf92000000ffffull);
    m->st.gpr[X86_RBX] = S_FREE;
    RUN(m, ev_load_ds);
    expect("loading a segment sets its accessed bit", m_get64(m, A_GDT + S_FREE) >> 40 & 1, 1);
}

/* ---- interrupts ---- */

#define POST "mov $" STR(A_PORT) ", %edx\nmov $0x70, %al\nout %al, (%dx)\n"
CODE(ev_irq, 64, POST "nop\nnop\n" DONE);
CODE(ev_irq_off, 64, "cli\n" POST "nop\n" DONE);
CODE(ev_sti, 64, "cli\n" POST "sti\nnop\nnop\n" DONE);
CODE(ev_sti_hlt, 64, "cli\n" POST "sti\nhlt\nnop\n" DONE);
CODE(ev_sti_cli, 64, "cli\n" POST "sti\ncli\nnop\n" DONE);
CODE(ev_hlt, 64, "sti\nhlt\nnop\n" DONE);
CODE(ev_movss_irq, 64, "cli\n" POST "mov %ss, %ecx\nsti\nmov %ecx, %ss\nnop\nnop\n" DONE);
CODE(ev_hlt_user, 64, "hlt\n");
CODE(ev_nmi, 64, "mov $" STR(A_PORT + 1) ", %edx\nout %al, (%dx)\nnop\n" DONE);
CODE(ev_nmi_twice, 64, "mov $" STR(A_PORT + 1) ", %edx\nout %al, (%dx)\ninc %ebx\nnop\n" DONE);
CODE(ev_nmi_handler, 64,
     "inc %ecx\ncmp $1, %ecx\njne 1f\n"
     "out %al, (%dx)\nnop\nmov %ecx, %esi\n" /* another, held back until the IRET */
     "1: iretq\n");

static void check_interrupts(struct machine *m)
{
    m_long(m);
    m->st.rflags |= X86_FL_IF;
    RUN(m, ev_irq);
    expect("interrupt with IF = 1", (uint64_t)(m->st.rip - 1 - A_HANDLERS) / 16, 0x70);
    expect("acknowledged once", m->acks, 1);
    expect("an interrupt pushes IF", m_frame(m, 2) & X86_FL_IF, X86_FL_IF);
    m_long(m);
    RUN(m, ev_irq_off);
    expect_event(m, "IF = 0 holds it back", 0x80, NO_ERROR, ANY_RIP);
    m_long(m);
    RUN(m, ev_sti);
    expect_event(m, "STI: one more instruction, then the interrupt", 0x70, NO_ERROR,
                 A_CODE + 1 + 8 + 2);
    m_long(m);
    RUN(m, ev_sti_cli);
    expect_event(m, "STI; CLI lets none through", 0x80, NO_ERROR, ANY_RIP);
    m_long(m);
    RUN(m, ev_sti_hlt);
    expect_event(m, "STI; HLT with one waiting: taken after the HLT", 0x70, NO_ERROR,
                 A_CODE + 1 + 8 + 2);
    m_long(m);
    RUN(m, ev_movss_irq);
    expect_event(m, "STI; MOV SS: not beyond the instruction after", 0x70, NO_ERROR, ANY_RIP);
    m_long(m);
    expect("HLT stops", (uint64_t)RUN(m, ev_hlt), (uint64_t)RAN_ON);
    expect("HLT: mp_state", m->st.mp_state, X86_MP_HALTED);
    expect("HLT: interrupts are on", m->exit.interrupts_off, false);
    m->irq = 0x71;
    engine_soft.interrupt(m->vcpu);
    m_resume(m);
    expect_event(m, "an interrupt ends HLT; RIP is after it", 0x71, NO_ERROR, A_CODE + 2);
    m_long(m);
    m_user(m);
    RUN(m, ev_hlt_user);
    expect_event(m, "HLT at CPL 3", X86_EXC_GP, 0, A_UCODE);
    m_long(m);
    RUN(m, ev_nmi);
    expect_event(m, "NMI with IF = 0", X86_EXC_NMI, NO_ERROR, A_CODE + 6);
    m_long(m);
    m_gate_to(m, X86_EXC_NMI, A_CODE + 0x1000);
    LOAD(m, A_CODE + 0x1000, ev_nmi_handler);
    RUN(m, ev_nmi_twice);
    expect("NMI during NMI waits for IRET", m->st.gpr[X86_RSI] << 8 | m->st.gpr[X86_RCX], 0x102);
    m_long(m);
    m->st.event = (struct x86_event){
        .valid = true, .type = 3, .vector = 14, .has_error = true, .error = 6, .payload = 0x1234};
    RUN(m, ev_int80);
    expect_event(m, "an event in the state is delivered first", X86_EXC_PF, 6, A_CODE);
    expect("with its payload", m->st.cr2, 0x1234);
}

void test_events(struct machine *m)
{
    check_frames(m);
    check_gates(m);
    check_protected_frames(m);
    check_double(m);
    check_fault_loop(m);
    check_canonical(m);
    check_stack_atomicity(m);
    check_segment_errors(m);
    check_interrupts(m);
}
