/* Far jumps, calls and returns between 64-bit and compatibility mode, and call gates. */
#include "bare.h"

#define FAR "SDM Vol.2, JMP far, CALL far"
#define RETF "SDM Vol.2, RET far"
#define GATE "SDM Vol.3, 64-bit call gates"

enum {
    D_GATE = S_FREE,          /* with its upper half */
    D_ABSENT = S_FREE + 0x10, /* code, 64-bit, not present */
    D_BOTH = S_FREE + 0x18,   /* code, L and D */
    D_INNER = S_FREE + 0x20,  /* code, 64-bit, DPL 0, the same as S_CODE */
    D_TSS = S_FREE + 0x28,    /* with its upper half */
};
#define OUTSIDE 0x8000000000000000ul

static struct {
    uint32_t offset;
    uint16_t selector;
} __attribute__((packed)) far USER_DATA = {0, 0};

static void descriptors(void)
{
    gdt_reset();
    gdt_set(D_ABSENT, descriptor(0, 0xfffff, 0x1b, 0xa));
    gdt_set(D_BOTH, descriptor(0, 0xfffff, 0x9b, 0xe));
    gdt_set(D_INNER, descriptor(0, 0xfffff, 0x9b, 0xa));
    gdt_set(D_TSS, descriptor((uint32_t)(word)tss, 103, 0x89, 0));
}

static void gate(word offset, unsigned selector, unsigned access)
{
    gdt_set(D_GATE, (offset & 0xffff) | (uint64_t)selector << 16 | (uint64_t)access << 40 |
                        (offset >> 16 & 0xffff) << 48);
    gdt_set(D_GATE + 8, offset >> 32);
}

/* JMP or CALL to what `far` says, from a level; the fragments use RDI. */
static struct cpu transfer(bool call, unsigned cpl, word offset, unsigned selector)
{
    struct cpu c = at_level(call ? UCODE(".byte 0xff, 0x1f") : UCODE(".byte 0xff, 0x2f"), cpl);

    far.offset = (uint32_t)offset;
    far.selector = (uint16_t)selector;
    c.di = (word)&far;
    run(&c);
    return c;
}

static void refused(const char *name, bool call, unsigned cpl, unsigned selector, int vector,
                    uint32_t error)
{
    struct cpu c = transfer(call, cpl, 0x100000, selector);

    check_fault(name, FAR, &c, vector, error);
}

static void jumps(void)
{
    struct code there = UCODE("mov eax, cs"), there32 = UCODE32("mov eax, cs");
    struct cpu c = transfer(false, 0, there.start, S_CODE);

    check("far.same", FAR, c.vector == V_DONE ? c.ax : 0, S_CODE);
    c = transfer(false, 0, there32.start, S_CODE32);
    check("far.to-compat", FAR, c.vector == V_DONE ? c.ax : 0, S_CODE32);
    c = transfer(false, 3, there32.start, S_UCODE32);
    check("far.user-to-compat", FAR, c.vector == V_DONE ? c.ax : 0, S_UCODE32);
    c = transfer(false, 3, there.start, S_UCODE64 & ~3u);
    check("far.rpl-becomes-cpl", FAR, c.vector == V_DONE ? c.ax : 0, S_UCODE64);
    c = transfer(false, 3, there.start, S_CONF);
    check("far.conforming-keeps-cpl", FAR, c.vector == V_DONE ? c.ax : 0, S_CONF | 3);
    c = kernel(CODE32(".byte 0xea\n .long 1f\n .word 8\n .code64\n 1: mov rax, 0x123456789abc\n"
                      "mov ecx, cs"));
    c.cs = S_CODE32;
    run(&c);
    check("far.compat-to-64-bit", FAR, c.vector == V_DONE ? c.ax : 0, 0x123456789abc);
    check("far.compat-to-64-bit-cs", FAR, c.cx, S_CODE);
    c = transfer(true, 0, there.start, S_CODE);
    check("far.call", FAR, c.vector == V_DONE ? c.ax : 0, S_CODE);
    check("far.call-pushes-32-bit", FAR, c.sp, (word)fragment_stack_top - 8);
    check("far.call-return-address", FAR, *(volatile uint32_t *)c.sp, c.code.start + 2);
    check("far.call-return-cs", FAR, *(volatile uint32_t *)(c.sp + 4) & 0xffff, S_CODE);
    c = transfer(true, 0, there32.start, S_CODE32);
    check("far.call-to-compat", FAR, c.vector == V_DONE ? c.ax : 0, S_CODE32);
    c = kernel(CODE(".byte 0xff, 0x1f\n mov ecx, 77"));
    far.offset = CODE32("mov eax, cs\n retf").start;
    far.selector = S_CODE32;
    c.di = (word)&far;
    run(&c);
    check("far.call-to-compat-and-back", FAR, c.vector == V_DONE ? c.ax << 8 | c.cx : 0,
          S_CODE32 << 8 | 77);
    refused("far.null", false, 0, 0, V_GP, 0);
    refused("far.null-rpl3", false, 0, 3, V_GP, 0);
    refused("far.data", false, 0, S_DATA, V_GP, S_DATA);
    refused("far.beyond-gdt", false, 0, 0xff8, V_GP, 0xff8);
    refused("far.absent", false, 0, D_ABSENT, V_NP, D_ABSENT);
    refused("far.l-and-d", false, 0, D_BOTH, V_GP, D_BOTH);
    refused("far.user-inner", false, 3, D_INNER | 3, V_GP, D_INNER);
    refused("far.user-inner-rpl0", true, 3, D_INNER, V_GP, D_INNER);
    refused("far.rpl-above-cpl", false, 0, S_CODE | 3, V_GP, S_CODE);
    refused("far.outer", false, 0, S_UCODE64, V_GP, S_UCODE64 & ~3u);
    refused("far.call-outer", true, 0, S_UCODE64, V_GP, S_UCODE64 & ~3u);
    refused("far.tss", false, 0, D_TSS, V_GP, D_TSS);
    refused("far.call-null", true, 0, 0, V_GP, 0);
    gdt_set(D_TSS, (uint64_t)S_TSS << 16 | 0x850000000000);
    refused("far.task-gate", false, 0, D_TSS, V_GP, D_TSS);
    descriptors();
    /* a conforming segment of an inner level, from an outer one of the target: not allowed */
    gdt_set(D_INNER, descriptor(0, 0xfffff, 0xff, 0xa)); /* conforming, DPL 3 */
    refused("far.conforming-outer", false, 0, D_INNER, V_GP, D_INNER);
    descriptors();
}

static void returns(void)
{
    struct code back = UCODE("mov eax, cs\n mov ecx, ss");
    struct cpu c = kernel(CODE("push 8\n push rdi\n .byte 0x48, 0xcb"));

    c.di = back.start;
    run(&c);
    check("retf.same", RETF, c.vector == V_DONE ? c.ax : 0, S_CODE);
    check("retf.same-rsp", RETF, c.sp, (word)fragment_stack_top);
    c = kernel(CODE("push 0x23\n push rsi\n push 0x2b\n push rdi\n .byte 0x48, 0xcb"));
    c.di = back.start;
    c.si = (word)user_stack_top - 0x40;
    run(&c);
    check("retf.outer", RETF, c.vector == V_DONE ? c.ax << 8 | c.cx : 0, S_UCODE64 << 8 | S_UDATA);
    check("retf.outer-rsp", RETF, c.sp, (word)user_stack_top - 0x40);
    c = kernel(CODE("push 0x23\n push rsi\n push 0\n push 0\n push 0x2b\n push rdi\n"
                    ".byte 0x48, 0xca, 0x10, 0")); /* releases 16 bytes on both stacks */
    c.di = back.start;
    c.si = (word)user_stack_top - 0x40;
    run(&c);
    check("retf.outer-releases", RETF, c.vector == V_DONE ? c.sp : 0, (word)user_stack_top - 0x30);
    c = kernel(CODE("push 0x23\n push rsi\n push 0x1b\n push rdi\n .byte 0x48, 0xcb"));
    c.di = UCODE32("mov eax, cs").start;
    c.si = (word)user_stack_top;
    run(&c);
    check("retf.outer-compat", RETF, c.vector == V_DONE ? c.ax : 0, S_UCODE32);
    c = user(UCODE("push 8\n push rdi\n 9: .byte 0x48, 0xcb"));
    run_fault("retf.inner", RETF, &c, V_GP, S_CODE);
    c = kernel(CODE("push 0\n push rdi\n 9: .byte 0x48, 0xcb"));
    run_fault("retf.null", RETF, &c, V_GP, 0);
    c = kernel(CODE("push 0x10\n push rdi\n 9: .byte 0x48, 0xcb"));
    run_fault("retf.data", RETF, &c, V_GP, S_DATA);
    c = kernel(CODE("push 0xb0\n push rdi\n 9: .byte 0x48, 0xcb"));
    run_fault("retf.absent", RETF, &c, V_NP, D_ABSENT);
    c = kernel(CODE("push 0\n push rsi\n push 0x2b\n push rdi\n 9: .byte 0x48, 0xcb"));
    c.di = back.start;
    run_fault("retf.outer-null-ss", RETF, &c, V_GP, 0);
    c = kernel(CODE("push 0x10\n push rsi\n push 0x2b\n push rdi\n 9: .byte 0x48, 0xcb"));
    c.di = back.start;
    run_fault("retf.outer-ss-rpl", RETF, &c, V_GP, S_DATA);
    c = kernel(CODE("mov eax, 0x10\n mov fs, eax\n mov eax, 0x23\n mov gs, eax\n"
                    "push 0x23\n push rsi\n push 0x2b\n push rdi\n .byte 0x48, 0xcb"));
    c.di = UCODE("mov eax, fs\n mov ecx, gs").start;
    c.si = (word)user_stack_top;
    run(&c);
    check("retf.outer-nulls-inner-segments", RETF, c.vector == V_DONE ? c.ax << 8 | c.cx : 1,
          S_UDATA);
    c = kernel(CODE("xor eax, eax\n mov fs, eax\n mov gs, eax"));
    run(&c);
}

static void gate_refused(const char *name, bool call, unsigned cpl, int vector, uint32_t error)
{
    struct cpu c = transfer(call, cpl, 0xdeadbeef, D_GATE);

    check_fault(name, GATE, &c, vector, error);
}

static void gates(void)
{
    struct code there = UCODE("mov eax, cs\n mov ecx, ss\n mov rdx, rsp"), back;
    struct cpu c;

    gate(there.start, S_CODE, 0xec);
    c = transfer(true, 3, 0xdeadbeef, D_GATE | 3);
    check("callgate.inner", GATE, c.vector == V_DONE ? c.ax : 0, S_CODE);
    check("callgate.inner-null-ss", GATE, c.cx, 0);
    check("callgate.inner-stack", GATE, c.dx, (word)trap_stack_top - 32);
    check("callgate.frame-rip", GATE, *(volatile word *)c.dx, c.code.start + 2);
    check("callgate.frame-cs", GATE, *(volatile word *)(c.dx + 8), S_UCODE64);
    check("callgate.frame-rsp", GATE, *(volatile word *)(c.dx + 16), (word)user_stack_top);
    check("callgate.frame-ss", GATE, *(volatile word *)(c.dx + 24), S_UDATA);
    back = CODE("mov ebx, 5\n .byte 0x48, 0xcb");
    gate(back.start, S_CODE, 0xec);
    c = user(UCODE(".byte 0xff, 0x1f\n mov eax, cs"));
    far.selector = D_GATE;
    c.di = (word)&far;
    run(&c);
    check("callgate.and-back", GATE, c.vector == V_DONE ? c.ax << 8 | c.bx : 0, S_UCODE64 << 8 | 5);
    check("callgate.and-back-rsp", GATE, c.sp, (word)user_stack_top);
    gate(there.start, S_CODE, 0x8c);
    c = transfer(true, 0, 0, D_GATE);
    check("callgate.same-level", GATE, c.vector == V_DONE ? c.ax : 0, S_CODE);
    check("callgate.same-level-pushes-64-bit", GATE, c.dx, (word)fragment_stack_top - 16);
    c = transfer(false, 0, 0, D_GATE);
    check("callgate.jump", GATE, c.vector == V_DONE ? c.ax : 0, S_CODE);
    gate(there.start, S_CONF, 0xec);
    c = transfer(true, 3, 0, D_GATE);
    check("callgate.conforming", GATE, c.vector == V_DONE ? c.ax : 0, S_CONF | 3);
    gate(there.start, S_CODE, 0xec);
    c = kernel(UCODE32(".byte 0x9a\n .long 0\n .word 0xa3"));
    c.cs = S_UCODE32;
    c.ss = S_UDATA;
    c.sp = (word)user_stack_top;
    run(&c);
    check("callgate.from-compat", GATE, c.vector == V_DONE ? c.ax : 0, S_CODE);
    gate_refused("callgate.jump-inner", false, 3, V_GP, S_CODE);
    gate(there.start, S_CODE, 0x8c);
    gate_refused("callgate.dpl", true, 3, V_GP, D_GATE);
    gate(there.start, S_CODE, 0xec);
    c = transfer(true, 2, 0, D_GATE | 3);
    check("callgate.rpl-below-dpl", GATE, c.vector == V_DONE ? c.ax : 0, S_CODE);
    gate(there.start, S_CODE, 0xcc);
    c = transfer(true, 0, 0, D_GATE | 3);
    check_fault("callgate.rpl-above-dpl", GATE, &c, V_GP, D_GATE);
    gate(there.start, S_CODE, 0x6c);
    gate_refused("callgate.absent", true, 3, V_NP, D_GATE);
    gate(there.start, S_CODE32, 0xec);
    gate_refused("callgate.to-32-bit", true, 3, V_GP, S_CODE32);
    gate(there.start, 0, 0xec);
    gate_refused("callgate.to-null", true, 3, V_GP, 0);
    gate(there.start, S_DATA, 0xec);
    gate_refused("callgate.to-data", true, 3, V_GP, S_DATA);
    gate(there.start, D_ABSENT, 0xec);
    gate_refused("callgate.to-absent", true, 3, V_NP, D_ABSENT);
    gate(there.start, S_UCODE64, 0xec);
    gate_refused("callgate.to-outer", true, 0, V_GP, S_UCODE64 & ~3u);
    gate(OUTSIDE, S_CODE, 0xec);
    gate_refused("callgate.offset-non-canonical", true, 3, V_GP, 0);
    gate(there.start, S_CODE, 0xec);
    gdt_set(D_GATE + 8, 0x1f0000000000); /* the upper half's type is not zero */
    gate_refused("callgate.upper-type", true, 3, V_GP, D_GATE);
    gate(there.start, S_CODE, 0xe4); /* a 16-bit call gate */
    gate_refused("callgate.286", true, 3, V_GP, D_GATE);
    gate(there.start, S_CODE, 0xec);
    *(volatile uint64_t *)(tss + 4) = OUTSIDE;
    gate_refused("callgate.stack-non-canonical", true, 3, V_SS, 0);
    descriptors();
}

void test(void)
{
    descriptors();
    jumps();
    returns();
    gates();
    gdt_reset();
}
