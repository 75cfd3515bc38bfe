/* The virtual-mode extensions: VIF and VIP, INT n inside the virtual-8086 task, CR4.PVI. */
#include "system.h"

#define A_IVT_TARGET 0x1230 /* where redirected interrupts go: 0100:0230 */

CODE(vm_cli, 16, "cli\npushf\npop %ax\nud2\n");
CODE(vm_sti, 16, "sti\npushf\npop %ax\nud2\n");
CODE(vm_popf, 16, "push %bx\npopf\npushf\npop %ax\nud2\n");
CODE(vm_pushfd, 16, "pushfl\nud2\n");
CODE(vm_iret, 16, "push %bx\npush %cs\npush $1f - vm_iret\niret\n1: pushf\npop %ax\nud2\n");
CODE(vm_int, 16, "int $0x21\nud2\n");
CODE(vm_handler, 16, "pop %dx\npop %si\npop %di\nud2\n");
CODE(pv_cli, 32, "cli\n" DONE);
CODE(pv_sti, 32, "sti\n" DONE);

/* A virtual-8086 task at A_UCODE, its stack at A_USTACK - 0x1000, with IOPL and CR4.VME as given.
 */
static void vm86(struct machine *m, unsigned iopl, uint64_t cr4, uint64_t flags)
{
    static const uint8_t segs[] = {X86_ES, X86_SS, X86_DS, X86_FS, X86_GS};

    m_protected(m);
    m->st.cr4 |= cr4;
    m->st.rflags = X86_FL_FIXED | X86_FL_VM | X86_FL_IF | iopl << 12 | flags;
    for (unsigned i = 0; i < countof(segs); i++)
        m->st.seg[segs[i]] = (struct x86_segment){
            .selector = A_UDATA >> 4, .attr = 0xf3, .limit = 0xffff, .base = A_UDATA};
    m->st.seg[X86_CS] = (struct x86_segment){
        .selector = A_UCODE >> 4, .attr = 0xf3, .limit = 0xffff, .base = A_UCODE};
    m->st.rip = 0;
    m->st.gpr[X86_RSP] = 0x800;
    m_put16(m, A_TSS + 0x66, 0x88); /* the I/O map; INT n's is below it */
    gmem_fill(m->env.mem, A_TSS + 0x68, 0, 0x20);
    m_put32(m, 4 * 0x21, 0x0100u << 16 | 0x230);
    LOAD(m, A_IVT_TARGET, vm_handler);
}

static int run(struct machine *m, const uint8_t *code, size_t len)
{
    m_write(m, A_UCODE, code, len);
    return m_run(m);
}
#define RUN(m, code) run(m, code, (size_t)(code##_end - (code)))

/* RFLAGS in the frame that a 32-bit handler got. */
static uint64_t frame_flags(struct machine *m)
{
    return m_frame(m, 2);
}

static void check_flags(struct machine *m)
{
    vm86(m, 0, 0, 0);
    RUN(m, vm_cli);
    expect_event(m, "VME off: CLI with IOPL 0", X86_EXC_GP, 0, 0);
    vm86(m, 3, 0, 0);
    RUN(m, vm_cli);
    expect("IOPL 3: CLI clears IF", frame_flags(m) & X86_FL_IF, 0);
    vm86(m, 0, X86_CR4_VME, X86_FL_VIF);
    RUN(m, vm_cli);
    expect_event(m, "VME: CLI", X86_EXC_UD, NO_ERROR, ANY_RIP);
    expect("VME: CLI clears VIF, not IF", frame_flags(m) & (X86_FL_VIF | X86_FL_IF), X86_FL_IF);
    expect("VME: PUSHF shows VIF as IF, and IOPL 3", m->st.gpr[X86_RAX] & 0x3200, 0x3000);
    vm86(m, 0, X86_CR4_VME, 0);
    RUN(m, vm_sti);
    expect("VME: STI sets VIF", frame_flags(m) & X86_FL_VIF, X86_FL_VIF);
    expect("VME: PUSHF after STI", m->st.gpr[X86_RAX] & 0x3200, 0x3200);
    vm86(m, 0, X86_CR4_VME, X86_FL_VIP);
    RUN(m, vm_sti);
    expect_event(m, "VME: STI while an interrupt waits", X86_EXC_GP, 0, 0);
    vm86(m, 0, X86_CR4_VME, 0);
    m->st.gpr[X86_RBX] = X86_FL_IF | X86_FL_CF;
    RUN(m, vm_popf);
    expect("VME: POPF loads VIF", frame_flags(m) & (X86_FL_VIF | X86_FL_CF | X86_FL_IOPL),
           X86_FL_VIF | X86_FL_CF);
    vm86(m, 0, X86_CR4_VME, X86_FL_VIP);
    m->st.gpr[X86_RBX] = X86_FL_IF;
    RUN(m, vm_popf);
    expect_event(m, "VME: POPF of IF while an interrupt waits", X86_EXC_GP, 0, 1);
    vm86(m, 0, X86_CR4_VME, 0);
    m->st.gpr[X86_RBX] = X86_FL_TF;
    RUN(m, vm_popf);
    expect_event(m, "VME: POPF of TF", X86_EXC_GP, 0, 1);
    vm86(m, 0, X86_CR4_VME, 0);
    RUN(m, vm_pushfd);
    expect_event(m, "VME: PUSHFD", X86_EXC_GP, 0, 0);
    vm86(m, 0, X86_CR4_VME, 0);
    m->st.gpr[X86_RBX] = X86_FL_IF;
    RUN(m, vm_iret);
    expect_event(m, "VME: IRET", X86_EXC_UD, NO_ERROR, ANY_RIP);
    expect("VME: IRET loads VIF", frame_flags(m) & X86_FL_VIF, X86_FL_VIF);
    vm86(m, 0, 0, 0);
    RUN(m, vm_iret);
    expect_event(m, "VME off: IRET with IOPL 0", X86_EXC_GP, 0, 5);
}

static void check_int(struct machine *m)
{
    vm86(m, 0, X86_CR4_VME, X86_FL_VIF);
    RUN(m, vm_int);
    expect_event(m, "VME: INT n inside the task", X86_EXC_UD, NO_ERROR, 0x233);
    expect("INT n inside: return address", m->st.gpr[X86_RDX] & 0xffff, 2);
    expect("INT n inside: CS", m->st.gpr[X86_RSI], A_UCODE >> 4);
    expect("INT n inside: FLAGS with VIF as IF and IOPL 3", m->st.gpr[X86_RDI] & 0x3200, 0x3200);
    expect("INT n inside: clears VIF, not IF", frame_flags(m) & (X86_FL_VIF | X86_FL_IF),
           X86_FL_IF);
    vm86(m, 3, X86_CR4_VME, 0);
    RUN(m, vm_int);
    expect("INT n inside with IOPL 3 clears IF", frame_flags(m) & X86_FL_IF, 0);
    vm86(m, 0, X86_CR4_VME, 0);
    m_put16(m, A_TSS + 0x68 + 4, 2); /* bit 0x21 */
    RUN(m, vm_int);
    expect_event(m, "VME: INT n kept from the task, IOPL 0", X86_EXC_GP, 0, 0);
    vm86(m, 3, X86_CR4_VME, 0);
    m_put16(m, A_TSS + 0x68 + 4, 2);
    RUN(m, vm_int);
    expect_event(m, "VME: INT n through the IDT, IOPL 3", X86_EXC_GP, 0x21 * 8 + 2, 0);
    vm86(m, 3, X86_CR4_VME, 0);
    m_put16(m, A_TSS + 0x68 + 4, 2);
    m_gate(m, 0x21, S_CODE32, 0xee, 0);
    RUN(m, vm_int);
    expect_event(m, "VME: INT n through the IDT", 0x21, NO_ERROR, 2);
    expect("and the task's ES lies on the stack", m_frame(m, 5), A_UDATA >> 4);
}

static void check_pvi(struct machine *m)
{
    m_protected(m);
    m_user(m);
    LOAD(m, A_UCODE, pv_cli);
    m_run(m);
    expect_event(m, "PVI off: CLI at CPL 3", X86_EXC_GP, 0, A_UCODE);
    m_protected(m);
    m_user(m);
    m->st.cr4 |= X86_CR4_PVI;
    m->st.rflags |= X86_FL_VIF | X86_FL_IF;
    LOAD(m, A_UCODE, pv_cli);
    m_run(m);
    expect_event(m, "PVI: CLI at CPL 3", 0x80, NO_ERROR, ANY_RIP);
    expect("PVI: CLI clears VIF, not IF", frame_flags(m) & (X86_FL_VIF | X86_FL_IF), X86_FL_IF);
    m_protected(m);
    m_user(m);
    m->st.cr4 |= X86_CR4_PVI;
    m->st.rflags |= X86_FL_VIP;
    LOAD(m, A_UCODE, pv_sti);
    m_run(m);
    expect_event(m, "PVI: STI while an interrupt waits", X86_EXC_GP, 0, A_UCODE);
}

void test_vme(struct machine *m)
{
    check_flags(m);
    check_int(m);
    check_pvi(m);
}
