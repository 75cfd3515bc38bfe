/*
 * Interrupts through the IDT: gates, stacks, the frame, faults on the way, double faults, and IRET
 * back.
 */
#include "bare.h"

#define GATES "SDM Vol.3, exception and interrupt handling in 64-bit mode"
#define STACKS "SDM Vol.3, stack switching in IA-32e mode"
#define INTN "SDM Vol.2, INT n, 64-bit mode exceptions"
#define DOUBLE "SDM Vol.3, conditions for generating a double fault"
#define EXT "SDM Vol.3, error code, external event bit"
#define IRET "SDM Vol.2, IRET, 64-bit mode exceptions"

#define VECTOR 0x81 /* a gate for tests */
#define ABSENT 0x0e /* an interrupt gate that is not present */
#define UNMAPPED 0x7000000000ul
#define OUTSIDE 0x8000000000000000ul

static void set_ist(unsigned n, word top)
{
    *(volatile uint32_t *)(tss + 28 + 8 * n) = (uint32_t)top;
    *(volatile uint32_t *)(tss + 32 + 8 * n) = (uint32_t)(top >> 32);
}

static void set_rsp(unsigned level, word top)
{
    *(volatile uint32_t *)(tss + 4 + 8 * level) = (uint32_t)top;
    *(volatile uint32_t *)(tss + 8 + 8 * level) = (uint32_t)(top >> 32);
}

static void reset(void)
{
    gdt_reset();
    idt_reset();
    test_pages_reset();
}

/* ---- where the frame goes ---- */

static void frames(void)
{
    struct code code = CODE("int 0x81\n 9: nop"), ucode = UCODE("int 0x81\n 9: nop");
    struct cpu c;

    idt_usual(VECTOR, GATE_INT | GATE_DPL3, 0);
    c = kernel(code);
    c.sp -= 0x100;
    run_fault("frame.same-level", GATES, &c, VECTOR, NO_ERROR);
    check("frame.same-stack", STACKS, c.frame, (word)fragment_stack_top - 0x100 - 40);
    check("frame.rsp", STACKS, c.sp, (word)fragment_stack_top - 0x100);
    check("frame.ss", STACKS, c.ss, S_DATA);
    check("frame.cs", STACKS, c.cs, S_CODE);
    for (unsigned i = 1; i < 16; i += 7) {
        static const char *const names[] = {"frame.aligned-1", "frame.aligned-8",
                                            "frame.aligned-15"};

        c = kernel(code);
        c.sp -= 0x100 + i;
        run(&c);
        check(names[i / 7], STACKS, c.frame, (word)fragment_stack_top - 0x110 - 40);
    }
    c = user(ucode);
    c.flags |= FL_IF;
    run_fault("frame.user", GATES, &c, VECTOR, NO_ERROR);
    check("frame.rsp0", STACKS, c.frame, (word)trap_stack_top - 40);
    check("frame.user-flags", GATES, c.flags & ~FL_RF, 2 | FL_IF);
    set_rsp(0, (word)trap_stack_top - 8);
    c = user(ucode);
    run(&c);
    check("frame.rsp0-aligned", STACKS, c.frame, (word)trap_stack_top - 16 - 40);
    reset();
    idt_usual(VECTOR, GATE_INT, 2);
    set_ist(2, (word)trap_stack_top);
    c = kernel(code);
    run_fault("frame.ist", STACKS, &c, VECTOR, NO_ERROR);
    check("frame.ist-stack", STACKS, c.frame, (word)trap_stack_top - 40);
    set_ist(7, (word)trap_stack_top - 3);
    idt_usual(VECTOR, GATE_INT, 7);
    c = kernel(code);
    run(&c);
    check("frame.ist-aligned", STACKS, c.frame, (word)trap_stack_top - 16 - 40);
    idt_usual(V_GP, GATE_INT, 0);
    c = at_level(CODE("hlt"), 1);
    run(&c);
    check("frame.error-code", GATES, c.frame, (word)trap_stack_top - 48);
    reset();
}

/* What a handler finds; each ends in the usual one. */
static void handlers(void)
{
    struct code flags = CODE("pushfq\n pop rax"), level1 = UCODE("mov eax, ss\n mov ecx, cs");
    struct code ucode = UCODE("int 0x81");
    struct cpu c;

    idt_gate(VECTOR, S_CODE, flags.start, GATE_INT | GATE_DPL3, 0);
    c = kernel(CODE("push 0x47202\n popfq\n int 0x81")); /* AC, NT, IOPL 3, IF */
    run(&c);
    check("gate.interrupt-clears-if", GATES, c.ax & FL_IF, 0);
    check("gate.clears-nt", GATES, c.ax & FL_NT, 0);
    check("gate.keeps-ac", GATES, c.ax & FL_AC, FL_AC);
    check("gate.keeps-iopl", GATES, c.ax & FL_IOPL, FL_IOPL);
    idt_gate(VECTOR, S_CODE, flags.start, GATE_TRAP | GATE_DPL3, 0);
    c = kernel(CODE("push 0x202\n popfq\n int 0x81"));
    run(&c);
    check("gate.trap-keeps-if", GATES, c.ax & FL_IF, FL_IF);
    c = kernel(CODE("int 0x81"));
    c.flags |= FL_TF;
    idt_gate(VECTOR, S_CODE, flags.start, GATE_TRAP, 0);
    run(&c);
    check("gate.clears-tf", GATES, c.vector == V_DONE ? c.ax & FL_TF : 1, 0);
    {
        struct code ss = CODE("mov eax, ss");

        idt_gate(VECTOR, S_CODE, ss.start, GATE_INT | GATE_DPL3, 0);
        c = user(ucode);
        run(&c);
        check("gate.ss-null-at-cpl0", STACKS, c.vector == V_DONE ? c.ax : 0xbad, 0);
        c = kernel(CODE("int 0x81"));
        run(&c);
        check("gate.ss-kept-at-same-level", STACKS, c.ax, S_DATA);
    }
    set_rsp(1, (word)user_page[1] + 0x800);
    idt_gate(VECTOR, S_CODE_1, level1.start, GATE_INT | GATE_DPL3, 0);
    c = user(ucode);
    run(&c);
    check("gate.to-cpl1-ss", STACKS, c.vector == V_DONE ? c.ax : 0xbad, 1);
    check("gate.to-cpl1-cs", STACKS, c.cx, S_CODE_1);
    check("gate.to-cpl1-rsp", STACKS, c.sp, (word)user_page[1] + 0x800 - 40);
    idt_gate(VECTOR, S_CONF, level1.start, GATE_INT | GATE_DPL3, 0);
    c = user(ucode);
    run(&c);
    check("gate.conforming-keeps-cpl", GATES, c.vector == V_DONE ? c.cs & 3 : 0xbad, 3);
    check("gate.conforming-keeps-ss", GATES, c.ax, S_UDATA);
    idt_gate(VECTOR, S_CODE | 3, flags.start, GATE_INT | GATE_DPL3, 0);
    c = user(ucode);
    run(&c);
    check("gate.rpl-ignored", GATES, c.vector == V_DONE ? c.cs : 0xbad, S_CODE);
    reset();
}

/* ---- gates that do not lead anywhere ---- */

static void refused(const char *name, int vector, uint32_t error)
{
    struct cpu c = kernel(CODE("int 0x81"));

    run(&c);
    check_fault(name, INTN, &c, vector, error);
}

static void bad_gates(void)
{
    static const struct {
        const char *name;
        uint8_t type;
    } types[] = {
        {"gate.type-0", 0},       {"gate.type-286-call", 4}, {"gate.type-task", 5},
        {"gate.type-286-int", 6}, {"gate.type-286-trap", 7}, {"gate.type-tss", 9},
        {"gate.type-call", 0xc},  {"gate.type-code", 0x1a},
    };
    const uint32_t self = VECTOR * 8 + 2;
    struct descriptor_table shorter = {VECTOR * 16 + 14, (word)idt};
    struct cpu c;

    for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        idt_usual(VECTOR, 0x80 | types[i].type, 0);
        refused(types[i].name, V_GP, self);
    }
    idt_usual(VECTOR, ABSENT, 0);
    refused("gate.absent", V_NP, self);
    idt_usual(VECTOR, GATE_INT, 0);
    c = user(UCODE("int 0x81"));
    run_fault("gate.dpl0-from-user", INTN, &c, V_GP, self);
    idt_usual(VECTOR, GATE_INT | 2 << 5, 0);
    c = user(UCODE("int 0x81"));
    run_fault("gate.dpl2-from-user", INTN, &c, V_GP, self);
    c = at_level(CODE("int 0x81"), 2);
    run(&c);
    check("gate.dpl2-from-cpl2", INTN, c.vector, VECTOR);
    idt_usual(VECTOR, ABSENT, 0);
    c = user(UCODE("int 0x81"));
    run_fault("gate.dpl-before-present", INTN, &c, V_GP, self);
    if (!skipping())
        __asm__ volatile("lidt %0" : : "m"(shorter));
    refused("gate.beyond-limit", V_GP, self);
    idt_reset();
    idt_gate(VECTOR, 0, 0x100000, GATE_INT, 0);
    refused("gate.null-cs", V_GP, 0);
    idt_gate(VECTOR, 3, 0x100000, GATE_INT, 0);
    refused("gate.null-cs-rpl3", V_GP, 0);
    idt_gate(VECTOR, sizeof(gdt), 0x100000, GATE_INT, 0);
    refused("gate.cs-beyond-gdt", V_GP, sizeof(gdt));
    idt_gate(VECTOR, 0xc, 0x100000, GATE_INT, 0);
    refused("gate.cs-in-absent-ldt", V_GP, 0xc);
    idt_gate(VECTOR, S_DATA, 0x100000, GATE_INT, 0);
    refused("gate.cs-is-data", V_GP, S_DATA);
    idt_gate(VECTOR, S_TSS, 0x100000, GATE_INT, 0);
    refused("gate.cs-is-tss", V_GP, S_TSS);
    idt_gate(VECTOR, S_CODE32, 0x100000, GATE_INT, 0);
    refused("gate.cs-is-32-bit", V_GP, S_CODE32);
    idt_gate(VECTOR, S_CODE_1, 0x100000, GATE_INT, 0);
    refused("gate.cs-of-outer-level", V_GP, S_CODE_1 & ~3u);
    gdt_set(S_FREE, descriptor(0, 0xfffff, 0x9b, 0xe)); /* L and D */
    idt_gate(VECTOR, S_FREE, 0x100000, GATE_INT, 0);
    refused("gate.cs-l-and-d", V_GP, S_FREE);
    gdt_set(S_FREE, descriptor(0, 0xfffff, 0x1b, 0xa));
    refused("gate.cs-absent", V_NP, S_FREE);
    idt_gate(VECTOR, S_CODE, OUTSIDE, GATE_INT, 0);
    refused("gate.offset-non-canonical", V_GP, 0);
    reset();
    idt_usual(VECTOR, GATE_INT, 3);
    set_ist(3, OUTSIDE);
    refused("gate.ist-non-canonical", V_SS, 0);
    reset();
}

/* ---- faults during delivery ---- */

enum first { BY_UD, BY_GP, BY_DE, BY_PF, BY_DB, BY_NP, BY_SS, BY_BP, BY_INTN, FIRSTS };

static const struct {
    const char *name;
    uint8_t vector;
    bool external; /* the processor's own, not INT n */
} first_of[] = {
    {"ud", V_UD, true}, {"gp", V_GP, true},  {"de", V_DE, true},
    {"pf", V_PF, true}, {"db", V_DB, true},  {"np", V_NP, true},
    {"ss", V_SS, true}, {"bp", V_BP, false}, {"int", VECTOR, false},
};

static struct cpu raise(enum first kind)
{
    struct cpu c = kernel(kind == BY_UD   ? CODE("ud2")
                          : kind == BY_GP ? CODE("mov rdi, 0x8000000000000000\n mov al, [rdi]")
                          : kind == BY_DE ? CODE("xor ecx, ecx\n div ecx")
                          : kind == BY_PF ? CODE("mov rdi, 0x7000000000\n mov al, [rdi]")
                          : kind == BY_DB ? CODE(".byte 0xf1")
                          : kind == BY_NP ? CODE("mov eax, 0xa0\n mov fs, eax")
                          : kind == BY_SS ? CODE("mov rbp, 0x8000000000000000\n mov al, [rbp]")
                          : kind == BY_BP ? CODE("int3")
                                          : CODE("int 0x81"));

    gdt_set(S_FREE, descriptor(0, 0xfffff, 0x13, 0xc)); /* absent, for #NP */
    run(&c);
    return c;
}

/* The event's own vector has a gate that raises #NP, then #GP, then (its stack) #PF. */
static void second_faults(void)
{
    for (unsigned i = 0; i < FIRSTS; i++) {
        unsigned v = first_of[i].vector;
        bool contributory = i == BY_GP || i == BY_DE || i == BY_NP || i == BY_SS;
        struct cpu c;

        if (i != BY_NP) { /* else the gate of the second is the same again */
            idt_usual(v, ABSENT, 1);
            c = raise(i);
            if (contributory || i == BY_PF)
                check(joined("double.", first_of[i].name, "-then-np"), DOUBLE,
                      c.vector << 16 | c.error, V_DF << 16);
            else
                check(joined("double.", first_of[i].name, "-then-np"), EXT,
                      c.vector << 16 | c.error, V_NP << 16 | (8 * v + 2 + first_of[i].external));
            reset();
        }
        if (i != BY_GP) {
            idt_gate(v, S_DATA, 0x100000, GATE_INT, 1);
            c = raise(i);
            if (contributory || i == BY_PF)
                check(joined("double.", first_of[i].name, "-then-gp"), DOUBLE,
                      c.vector << 16 | c.error, V_DF << 16);
            else
                check(joined("double.", first_of[i].name, "-then-gp"), EXT,
                      c.vector << 16 | c.error, V_GP << 16 | (S_DATA + first_of[i].external));
            reset();
        }
        if (i == BY_PF)
            continue;
        set_ist(5, UNMAPPED);
        idt_usual(v, GATE_INT, 5);
        c = raise(i);
        check(joined("double.", first_of[i].name, "-then-pf"), DOUBLE,
              (c.vector << 16 | c.error) ^ (c.cr2 & ~0xffful),
              (V_PF << 16 | 2) ^ (UNMAPPED - 0x1000));
        reset();
    }
}

static void double_faults(void)
{
    struct cpu c;

    second_faults();
    /* a page fault on the way to the page fault's handler */
    set_ist(5, UNMAPPED);
    idt_usual(V_PF, GATE_INT, 5);
    c = raise(BY_PF);
    check("double.pf-then-pf", DOUBLE, c.vector << 16 | c.error, V_DF << 16);
    check("double.has-an-error-code", DOUBLE, c.has_error, 1);
    reset();
    /* a page fault after a benign event, whose handler cannot be reached: double */
    set_ist(5, UNMAPPED);
    idt_usual(V_UD, GATE_INT, 5);
    idt_usual(V_PF, ABSENT, 1);
    c = raise(BY_UD);
    check("double.ud-pf-np", DOUBLE, c.vector << 16 | c.error, V_DF << 16);
    reset();
    /* #GP, serially #PF, then a contributory one: double */
    set_ist(5, UNMAPPED);
    idt_usual(V_GP, GATE_INT, 5);
    idt_gate(V_PF, S_DATA, 0x100000, GATE_INT, 1);
    c = raise(BY_GP);
    check("double.gp-pf-gp", DOUBLE, c.vector << 16 | c.error, V_DF << 16);
    reset();
    idt_usual(V_AC, ABSENT, 1);
    set_cr0(cr0() | CR0_AM);
    c = user(UCODE("mov eax, [rdi]"));
    c.di = (word)user_page[0] + 1;
    c.flags |= FL_AC;
    run(&c);
    check("double.ac-then-np", DOUBLE, c.vector << 16 | c.error, V_NP << 16 | (8 * V_AC + 3));
    set_cr0(cr0() & ~CR0_AM);
    reset();
    /* the stack of the same level, at which nothing can be pushed */
    idt_usual(V_UD, GATE_INT, 0);
    c = kernel(CODE("ud2"));
    c.sp = OUTSIDE;
    run(&c);
    check("double.stack-non-canonical", GATES, c.vector << 16 | c.error, V_SS << 16 | 1);
    idt_usual(VECTOR, GATE_INT, 0);
    c = kernel(CODE("int 0x81"));
    c.sp = OUTSIDE;
    run(&c);
    check("gate.stack-non-canonical", INTN, c.vector << 16 | c.error, V_SS << 16);
    reset();
}

/* ---- IRET ---- */

static struct cpu frame_for(struct cpu c, word cs, word ss)
{
    c.cs = cs;
    c.ss = ss;
    run(&c);
    return c;
}

static void iret_fault(const char *name, word cs, word ss, int vector, uint32_t error)
{
    struct cpu c = frame_for(kernel(CODE("nop")), cs, ss);

    check_event(name, IRET, &c, vector, error, (word)bare_iret);
}

static void iret_faults(void)
{
    gdt_set(S_FREE, descriptor(0, 0xfffff, 0x1b, 0xa));      /* absent code */
    gdt_set(S_FREE + 8, descriptor(0, 0xfffff, 0x9b, 0xe));  /* L and D */
    gdt_set(S_FREE + 16, descriptor(0, 0xfffff, 0x73, 0xc)); /* absent data, DPL 3 */
    gdt_set(S_FREE + 24, descriptor(0, 0xfffff, 0xf1, 0xc)); /* data, read-only, DPL 3 */
    gdt_set(S_FREE + 32, descriptor(0, 0xfffff, 0xfb, 0xa)); /* code, DPL 3 */
    iret_fault("iret.null-cs", 0, S_DATA, V_GP, 0);
    iret_fault("iret.null-cs-rpl3", 3, S_UDATA, V_GP, 0);
    iret_fault("iret.data-cs", S_DATA, S_DATA, V_GP, S_DATA);
    iret_fault("iret.tss-cs", S_TSS, S_DATA, V_GP, S_TSS);
    iret_fault("iret.cs-beyond-gdt", 0x1008, S_DATA, V_GP, 0x1008);
    iret_fault("iret.cs-in-absent-ldt", 0xc, S_DATA, V_GP, 0xc);
    iret_fault("iret.absent-cs", S_FREE, S_DATA, V_NP, S_FREE);
    iret_fault("iret.cs-l-and-d", S_FREE + 8, S_DATA, V_GP, S_FREE + 8);
    iret_fault("iret.cs-dpl-not-rpl", S_UCODE64 & ~3ul, S_DATA, V_GP, S_UCODE64 & ~3u);
    iret_fault("iret.cs-dpl0-rpl3", S_CODE | 3, S_UDATA, V_GP, S_CODE);
    iret_fault("iret.user-null-ss", S_UCODE64, 0, V_GP, 0);
    iret_fault("iret.user-null-ss-rpl3", S_UCODE64, 3, V_GP, 0);
    iret_fault("iret.ss-rpl", S_UCODE64, S_UDATA & ~3ul, V_GP, S_UDATA & ~3u);
    iret_fault("iret.ss-dpl", S_UCODE64, S_DATA | 3, V_GP, S_DATA);
    iret_fault("iret.ss-absent", S_UCODE64, (S_FREE + 16) | 3, V_SS, S_FREE + 16);
    iret_fault("iret.ss-read-only", S_UCODE64, (S_FREE + 24) | 3, V_GP, S_FREE + 24);
    iret_fault("iret.ss-is-code", S_UCODE64, (S_FREE + 32) | 3, V_GP, S_FREE + 32);
    iret_fault("iret.ss-beyond-gdt", S_UCODE64, 0x1003, V_GP, 0x1000);
    iret_fault("iret.user32-null-ss", S_UCODE32, 3, V_GP, 0);
    gdt_reset();
}

static void iret_levels(void)
{
    struct code ucode = UCODE("mov eax, cs\n mov ecx, ss");
    struct cpu c = frame_for(kernel(ucode), S_CODE, 0);

    check("iret.null-ss-at-cpl0", IRET, c.vector == V_DONE ? c.cx : 0xbad, 0);
    c = frame_for(kernel(ucode), S_CODE_1, 1);
    check("iret.null-ss-at-cpl1", IRET, c.vector == V_DONE ? c.cx : 0xbad, 1);
    c = frame_for(kernel(ucode), S_CODE_2, 2);
    check("iret.null-ss-at-cpl2", IRET, c.vector == V_DONE ? c.cx : 0xbad, 2);
    c = frame_for(kernel(UCODE32("mov eax, cs")), S_UCODE32, S_UDATA);
    check("iret.to-compat-user", IRET, c.vector == V_DONE ? c.ax : 0, S_UCODE32);
    c = frame_for(kernel(ucode), S_CONF | 3, S_UDATA);
    check("iret.to-conforming", IRET, c.vector == V_DONE ? c.ax : 0, S_CONF | 3);
    /* from CPL 3 */
    c = user(UCODE("push 0x10\n push rsp\n push 2\n push 8\n push 0\n 9: iretq"));
    run_fault("iret.to-inner-level", IRET, &c, V_GP, S_CODE);
    c = user(UCODE("mov rax, rsp\n lea rdx, [rip + 1f]\n push 0x23\n push rax\n push 0x3202\n"
                   "push 0x2b\n push rdx\n iretq\n 1: pushfq\n pop rax"));
    run(&c);
    check("iret.user-keeps-iopl", IRET, c.vector == V_DONE ? c.ax & FL_IOPL : 1, 0);
    check("iret.user-keeps-if", IRET, c.ax & FL_IF, 0);
    c = kernel(CODE("mov rax, rsp\n lea rdx, [rip + 1f]\n push 0x10\n push rax\n push 2\n push 8\n"
                    "push rdx\n pushfq\n or dword ptr [rsp], 0x4000\n popfq\n 9: iretq\n 1: nop"));
    run_fault("iret.nt", IRET, &c, V_GP, 0);
    c = kernel(CODE("mov rax, rsp\n lea rdx, [rip + 1f]\n push 0x10\n push rax\n push 0x243cd7\n"
                    "push 8\n push rdx\n iretq\n 1: pushfq\n pop rax"));
    run(&c);
    check("iret.flags", IRET, c.ax, 0x243cd7);
    c = kernel(
        CODE("mov rax, rsp\n lea rdx, [rip + 1f]\n sub rsp, 20\n mov [rsp], edx\n"
             "mov dword ptr [rsp + 4], 8\n mov dword ptr [rsp + 8], 2\n mov [rsp + 12], eax\n"
             "mov dword ptr [rsp + 16], 0x10\n iretd\n 1: nop"));
    run_done("iret.32-bit-operands", IRET, &c);
    check("iret.32-bit-rsp", IRET, c.sp, (word)fragment_stack_top);
    /* segments that CPL 3 may not keep become null */
    c = kernel(CODE("mov eax, 0x10\n mov fs, eax\n mov eax, 0x23\n mov gs, eax\n mov rax, rsp\n"
                    "push 0x23\n push rdi\n push 2\n push 0x2b\n push rsi\n iretq"));
    c.di = (word)user_stack_top;
    c.si = UCODE("mov eax, fs\n mov ecx, gs").start;
    run(&c);
    check("iret.nulls-inner-segments", IRET, c.vector == V_DONE ? c.ax : 0xbad, 0);
    check("iret.keeps-outer-segments", IRET, c.cx, S_UDATA);
    c = kernel(CODE("xor eax, eax\n mov fs, eax\n mov gs, eax"));
    run(&c);
    gdt_reset();
}

void test(void)
{
    frames();
    handlers();
    bad_gates();
    double_faults();
    iret_faults();
    iret_levels();
}
