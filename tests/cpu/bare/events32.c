/* Interrupts and exceptions through the gates of 32-bit protected mode, and IRET. */
#include "bare.h"

#define GATES "SDM Vol.3, exception- or interrupt-handler procedures"
#define ERRORS "SDM Vol.3, error code"
#define STACKS "SDM Vol.3, stack usage on transfers to handlers"
#define FLAGS "SDM Vol.3, flag usage by handler procedures"
#define RETURNS "SDM Vol.2, IRET"

enum {
    CODE0 = 0xa0,
    CODE1 = 0xa8,
    CODE3 = 0xb0,
    CONF0 = 0xb8,
    CONF3 = 0xc0,
    ABSENT = 0xc8,
    SMALL = 0xd0,
    DATA = 0xd8,
    LOCAL = 0xe0,
    STACK = 0xe8,
    BASED = 0xf0,
    EMPTY = 0x1f8,
    OUTSIDE = 0x208,
    VECTOR = 0x81,
    IDT_ERROR = 8 * VECTOR + 2
};

static void put(unsigned offset, uint32_t v)
{
    *(volatile uint32_t *)(word)(tss + offset) = v;
}

static uint32_t peek(word at)
{
    return *(volatile uint32_t *)at;
}

static void tables(void)
{
    gdt_reset();
    idt_reset();
    gdt_set(CODE0, descriptor(0, 0xfffff, 0x9a, 0xc));
    gdt_set(CODE1, descriptor(0, 0xfffff, 0xba, 0xc));
    gdt_set(CODE3, descriptor(0, 0xfffff, 0xfa, 0xc));
    gdt_set(CONF0, descriptor(0, 0xfffff, 0x9e, 0xc));
    gdt_set(CONF3, descriptor(0, 0xfffff, 0xfe, 0xc));
    gdt_set(ABSENT, descriptor(0, 0xfffff, 0x1a, 0xc));
    gdt_set(SMALL, descriptor(0, 0xff, 0x9a, 4));
    gdt_set(DATA, descriptor(0, 0xfffff, 0x92, 0xc));
    gdt_set(LOCAL, descriptor(0, 0xfffff, 0x82, 0xc));
    put(12, (word)trap_stack_top - 2048); /* ESP1, SS1 */
    put(16, S_DATA_1);
}

/* A handler: where and how one arrives; EBX are the flags. */
static __attribute__((noinline)) struct code handler(void)
{
    return UCODE("mov eax, cs\n mov ecx, ss\n mov edx, esp\n pushfd\n pop ebx");
}

/* One that needs no stack. */
static __attribute__((noinline)) struct code quiet(void)
{
    return UCODE("nop");
}

/* ---- gates ---- */

struct row {
    const char *name;
    unsigned cpl, access, target;
    int vector;
    unsigned error, cs;
};

static const struct row rows[] = {
    {"same-level", 0, 0x8e, CODE0, V_DONE, 0, CODE0},
    {"trap-gate", 0, 0x8f, CODE0, V_DONE, 0, CODE0},
    {"target-rpl-ignored", 0, 0x8e, CODE0 | 3, V_DONE, 0, CODE0},
    {"inner", 3, 0xee, CODE0, V_DONE, 0, CODE0},
    {"inner1", 3, 0xee, CODE1, V_DONE, 0, CODE1 | 1},
    {"same-cpl3", 3, 0xee, CODE3, V_DONE, 0, CODE3 | 3},
    {"conforming", 3, 0xee, CONF0, V_DONE, 0, CONF0 | 3},
    {"gate-dpl0", 3, 0x8e, CODE0, V_GP, IDT_ERROR, 0},
    {"gate-dpl2", 3, 0xce, CODE0, V_GP, IDT_ERROR, 0},
    {"gate-dpl0-cpl1", 1, 0x8e, CODE0, V_GP, IDT_ERROR, 0},
    {"gate-dpl1-cpl1", 1, 0xae, CODE0, V_DONE, 0, CODE0},
    {"absent", 0, 0x0e, CODE0, V_NP, IDT_ERROR, 0},
    {"absent-dpl", 3, 0x0e, CODE0, V_GP, IDT_ERROR, 0},
    {"absent-bad-target", 0, 0x0e, 0, V_NP, IDT_ERROR, 0},
    {"call-gate", 0, 0x8c, CODE0, V_GP, IDT_ERROR, 0},
    {"tss-type", 0, 0x89, CODE0, V_GP, IDT_ERROR, 0},
    {"segment-type", 0, 0x9e, CODE0, V_GP, IDT_ERROR, 0},
    {"type-before-presence", 0, 0x0c, CODE0, V_GP, IDT_ERROR, 0},
    {"to-null", 0, 0x8e, 0, V_GP, 0, 0},
    {"to-null-rpl3", 0, 0x8e, 3, V_GP, 0, 0},
    {"to-data", 0, 0x8e, DATA, V_GP, DATA, 0},
    {"to-ldt", 0, 0x8e, LOCAL, V_GP, LOCAL, 0},
    {"to-outer", 0, 0x8e, CODE3, V_GP, CODE3, 0},
    {"to-outer-conforming", 0, 0x8e, CONF3, V_GP, CONF3, 0},
    {"to-absent", 0, 0x8e, ABSENT, V_NP, ABSENT, 0},
    {"to-absent-inner", 3, 0xee, ABSENT, V_NP, ABSENT, 0},
    {"to-empty", 0, 0x8e, EMPTY, V_GP, EMPTY, 0},
    {"to-outside", 0, 0x8e, OUTSIDE | 2, V_GP, OUTSIDE, 0},
    {"to-no-ldt", 0, 0x8e, CODE0 | 4, V_GP, CODE0 | 4, 0},
    {"offset-beyond", 0, 0x8e, SMALL, V_GP, 0, 0},
    {"offset-beyond-inner", 3, 0xee, SMALL, V_GP, 0, 0},
};

static void gate_table(void)
{
    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        const struct row *r = &rows[i];
        struct cpu c = at_level(r->cpl == 3 ? UCODE("int 0x81") : CODE("int 0x81"), r->cpl);
        word sp = c.sp;

        tables();
        idt_gate(VECTOR, r->target, handler().start, r->access, 0);
        run(&c);
        if (r->vector == V_DONE) {
            check_event(joined("int.", r->name, ""), GATES, &c, V_DONE, NO_ERROR, handler().end);
            check(joined("int.", r->name, "-cs"), GATES, c.ax, r->cs);
            check(joined("int.", r->name, "-frame-ip"), STACKS, peek(c.dx), c.code.end - 2);
            continue;
        }
        check_fault(joined("int.", r->name, ""), GATES, &c, r->vector, r->error);
        check(joined("int.", r->name, "-sp"), GATES, c.sp, sp);
    }
}

/* The same from an exception, whose failing delivery has EXT set in the error code. */
static void external(void)
{
    static const struct row bad[] = {
        {"absent", 0, 0x0e, CODE0, V_NP, 8 * V_UD + 3, 0},
        {"call-gate", 0, 0x8c, CODE0, V_GP, 8 * V_UD + 3, 0},
        {"to-null", 0, 0x8e, 0, V_GP, 1, 0},
        {"to-data", 0, 0x8e, DATA, V_GP, DATA + 1, 0},
        {"to-absent", 0, 0x8e, ABSENT, V_NP, ABSENT + 1, 0},
        {"to-outside", 0, 0x8e, OUTSIDE, V_GP, OUTSIDE + 1, 0},
        {"to-outer", 0, 0x8e, CODE3, V_GP, CODE3 + 1, 0},
        {"offset-beyond", 0, 0x8e, SMALL, V_GP, 1, 0},
        {"absent-cpl3", 3, 0x0e, CODE0, V_NP, 8 * V_UD + 3, 0},
    };
    struct cpu c;

    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const struct row *r = &bad[i];

        tables();
        c = at_level(r->cpl == 3 ? UCODE("ud2") : CODE("ud2"), r->cpl);
        idt_gate(V_UD, r->target, handler().start, r->access, 0);
        run(&c);
        check_fault(joined("exception.", r->name, ""), ERRORS, &c, r->vector, r->error);
    }
    tables();
    idt_gate(V_UD, CODE0, handler().start, 0x8e, 0); /* the DPL of the gate counts for INT only */
    c = user(UCODE("ud2"));
    run(&c);
    check_event("exception.gate-dpl0", GATES, &c, V_DONE, NO_ERROR, handler().end);
    /* INT3, INTO and BOUND: the first two ask the gate's DPL */
    tables();
    c = user(UCODE("int3"));
    run_fault("int3.dpl0", GATES, &c, V_GP, 8 * V_BP + 2);
    c = user(UCODE("mov al, 0x7f\n add al, 1\n 9: into"));
    run_fault("into.dpl0", GATES, &c, V_GP, 8 * V_OF + 2);
    c = user(UCODE("int 3"));
    run_fault("int-3.dpl0", GATES, &c, V_GP, 8 * V_BP + 2);
    idt_usual(V_BP, 0xee, 0);
    idt_usual(V_OF, 0xee, 0);
    c = user(UCODE("int3\n nop"));
    run(&c);
    check_event("int3.dpl3", GATES, &c, V_BP, NO_ERROR, c.code.start + 1);
    c = user(UCODE("mov al, 0x7f\n add al, 1\n 9: into\n nop"));
    run(&c);
    check_event("into.dpl3", GATES, &c, V_OF, NO_ERROR, c.code.mark + 1);
    c = user(UCODE("mov al, 1\n add al, 1\n 9: into\n nop"));
    run_done("into.no-overflow", GATES, &c);
    c = user(UCODE("push 10\n push 5\n mov eax, 11\n 9: bound eax, [esp]"));
    run_fault("bound.above", "SDM Vol.2, BOUND", &c, V_BR, NO_ERROR);
    c = user(UCODE("push 10\n push 5\n mov eax, 4\n 9: bound eax, [esp]"));
    run_fault("bound.below", "SDM Vol.2, BOUND", &c, V_BR, NO_ERROR);
    c = user(UCODE("push 10\n push -5\n mov eax, 10\n bound eax, [esp]\n mov eax, -5\n"
                   "bound eax, [esp]"));
    run_done("bound.within", "SDM Vol.2, BOUND", &c);
    c = user(UCODE("push 0x000a0005\n mov ax, 11\n 9: bound ax, [esp]"));
    run_fault("bound.16-bit", "SDM Vol.2, BOUND", &c, V_BR, NO_ERROR);
    c = user(UCODE(".byte 0x62, 0xc0\n .byte 0x90, 0x90, 0x90, 0x90"));
    run(&c);
    check("bound.register", "SDM Vol.2, BOUND", c.vector, V_UD);
    c = user(UCODE(".byte 0xf1\n nop"));
    run(&c);
    check_event("int1.ignores-dpl", "SDM Vol.2, INT", &c, V_DB, NO_ERROR, c.code.start + 1);
}

/* Vectors beyond the IDT's limit. */
static void idt_limit(void)
{
    static struct descriptor_table small;
    struct cpu c = kernel(CODE("lidt [ecx]\n 9: int 0x81"));

    tables();
    small.base = (word)idt;
    small.limit = 8 * 0x81 + 6;
    c.cx = (word)&small;
    run_fault("int.beyond-idt", ERRORS, &c, V_GP, IDT_ERROR);
    small.limit = 8 * 0x81 + 7;
    idt_gate(VECTOR, CODE0, handler().start, 0x8e, 0);
    c = kernel(CODE("lidt [ecx]\n 9: int 0x81"));
    c.cx = (word)&small;
    run(&c);
    check_event("int.last-of-idt", ERRORS, &c, V_DONE, NO_ERROR, handler().end);
    idt_reset();
}

/* ---- frames and flags ---- */

static void frames(void)
{
    struct cpu c;
    word top = (word)trap_stack_top;

    tables();
    idt_gate(VECTOR, CODE0, handler().start, 0xee, 0);
    c = user(UCODE("int 0x81"));
    c.flags |= FL_CF | FL_IF | FL_IOPL | FL_AC | FL_ID;
    run(&c);
    check("frame.inner-sp", STACKS, c.dx, top - 20);
    check("frame.inner-ss", STACKS, c.cx, S_DATA);
    check("frame.inner-eip", STACKS, peek(top - 20), c.code.end - 2);
    check("frame.inner-cs", STACKS, peek(top - 16) & 0xffff, S_UCODE32);
    check("frame.inner-flags", STACKS, peek(top - 12), 2 | FL_CF | FL_IF | FL_IOPL | FL_AC | FL_ID);
    check("frame.inner-old-sp", STACKS, peek(top - 8), (word)user_stack_top);
    check("frame.inner-old-ss", STACKS, peek(top - 4) & 0xffff, S_UDATA);
    check("flags.interrupt-gate", FLAGS, c.bx, 2 | FL_CF | FL_IOPL | FL_AC | FL_ID);
    idt_gate(VECTOR, CODE0, handler().start, 0xef, 0);
    c = user(UCODE("int 0x81"));
    c.flags |= FL_CF | FL_IF | FL_NT | FL_DF;
    run(&c);
    check("flags.trap-gate-keeps-if", FLAGS, c.bx, 2 | FL_CF | FL_IF | FL_DF);
    check("flags.frame-nt", FLAGS, peek(top - 12), 2 | FL_CF | FL_IF | FL_NT | FL_DF);
    idt_gate(VECTOR, CODE1, handler().start, 0xee, 0);
    c = user(UCODE("int 0x81"));
    run(&c);
    check("frame.level1-sp", STACKS, c.dx, top - 2048 - 20);
    check("frame.level1-ss", STACKS, c.cx, S_DATA_1);
    idt_gate(VECTOR, CODE0, handler().start, 0x8e, 0);
    c = kernel(CODE("int 0x81"));
    c.flags |= FL_IF;
    run(&c);
    check("frame.same-sp", STACKS, c.dx, (word)fragment_stack_top - 12);
    check("frame.same-flags", STACKS, peek(c.dx + 8), 2 | FL_IF);
    check("flags.same-if", FLAGS, c.bx, 2);
    /* an error code below the frame; a fault's flags have RF */
    idt_gate(V_GP, CODE0, handler().start, 0x8e, 0);
    c = user(UCODE("9: mov fs, eax"));
    c.ax = EMPTY | 3;
    run(&c);
    check("frame.error-sp", STACKS, c.dx, top - 24);
    check("frame.error-code", STACKS, peek(top - 24), EMPTY);
    check("frame.error-eip", STACKS, peek(top - 20), c.code.mark);
    check("frame.fault-rf", FLAGS, peek(top - 12), 2 | FL_RF);
    check("flags.handler-without-rf", FLAGS, c.bx, 2);
}

static void gates16(void)
{
    struct cpu c;
    word top = (word)trap_stack_top;
    struct code h = handler();

    tables();
    gdt_set(BASED, descriptor(h.start, 0xffff, 0x9a, 4));
    idt_gate(VECTOR, BASED, 0x55550000, 0xe6, 0); /* bits 31:16 of the offset mean nothing */
    c = user(UCODE("int 0x81"));
    c.flags |= FL_CF | FL_IF | FL_AC;
    run(&c);
    check_event("gate16.arrives", GATES, &c, V_DONE, NO_ERROR, h.end - h.start);
    check("gate16.inner-sp", STACKS, c.dx, top - 10);
    check("gate16.inner-ip-cs", STACKS, peek(top - 10),
          ((c.code.end - 2) & 0xffff) | S_UCODE32 << 16);
    check("gate16.inner-flags-sp", STACKS, peek(top - 6),
          2 | FL_CF | FL_IF | ((word)user_stack_top & 0xffff) << 16);
    check("gate16.inner-ss", STACKS, peek(top - 4) >> 16, S_UDATA);
    check("gate16.flags", FLAGS, c.bx, 2 | FL_CF | FL_AC);
    idt_gate(VECTOR, BASED, 0, 0xe7, 0);
    c = kernel(CODE("int 0x81"));
    c.flags |= FL_IF;
    run(&c);
    check("gate16.same-sp", STACKS, c.dx, (word)fragment_stack_top - 6);
    check("gate16.trap-keeps-if", FLAGS, c.bx, 2 | FL_IF);
    idt_gate(V_GP, BASED, 0, 0x86, 0);
    c = user(UCODE("mov fs, eax"));
    c.ax = EMPTY | 3;
    run(&c);
    check("gate16.error-sp", STACKS, c.dx, top - 12);
    check("gate16.error-code", STACKS, peek(top - 12) & 0xffff, EMPTY);
    /* and back by a 16-bit IRET */
    idt_reset();
    h = UCODE("mov eax, 5\n .byte 0x66\n iret");
    gdt_set(BASED, descriptor(h.start, 0xffff, 0x9a, 4));
    idt_gate(VECTOR, BASED, 0, 0xe6, 0);
    h = UCODE("int 0x81\n mov ecx, 6\n int 0x80");
    gdt_set(BASED + 8, descriptor(h.start, 0xffff, 0xfa, 4));
    gdt_set(BASED + 16, descriptor(0, 0xffff, 0xf2, 4));
    c = user(h);
    c.cs = (BASED + 8) | 3;
    c.ss = (BASED + 16) | 3;
    c.sp = 0xf000;
    c.ip = 0;
    run(&c);
    check("gate16.round-trip", RETURNS, c.vector == V_DONE && c.ax == 5 ? c.cx : 0xbad, 6);
    check("gate16.round-trip-sp", RETURNS, c.sp, 0xf000);
    check("gate16.round-trip-level", RETURNS, c.cs, (BASED + 8) | 3);
}

/* ---- stacks of the TSS ---- */

struct stack_row {
    const char *name;
    unsigned access, rpl;
    uint32_t selector, limit, esp;
    int vector;
    unsigned error;
};

static const struct stack_row stack_rows[] = {
    {"good", 0xb2, 1, 0, 0xffff, 0x1000, V_DONE, 0},
    {"null", 0, 0, 0, 0, 0x1000, V_TS, 0},
    {"null-rpl1", 0, 0, 1, 0, 0x1000, V_TS, 0},
    {"rpl", 0xb2, 0, 0, 0xffff, 0x1000, V_TS, STACK},
    {"dpl0", 0x92, 1, 0, 0xffff, 0x1000, V_TS, STACK},
    {"dpl3", 0xf2, 1, 0, 0xffff, 0x1000, V_TS, STACK},
    {"read-only", 0xb0, 1, 0, 0xffff, 0x1000, V_TS, STACK},
    {"code", 0xba, 1, 0, 0xffff, 0x1000, V_TS, STACK},
    {"system", 0xa2, 1, 0, 0xffff, 0x1000, V_TS, STACK},
    {"absent", 0x32, 1, 0, 0xffff, 0x1000, V_SS, STACK},
    {"outside", 0, 0, OUTSIDE | 1, 0, 0x1000, V_TS, OUTSIDE},
    {"no-ldt", 0, 0, 8 | 5, 0, 0x1000, V_TS, 8 | 4},
    {"room-exact", 0xb2, 1, 0, 0xffff, 20, V_DONE, 0},
    {"room-short", 0xb2, 1, 0, 0xffff, 19, V_SS, STACK},
};

static void stack_table(void)
{
    for (unsigned i = 0; i < 2 * sizeof(stack_rows) / sizeof(stack_rows[0]); i++) {
        const struct stack_row *s = &stack_rows[i / 2];
        bool ext = i & 1;
        const char *how = ext ? "exception-stack." : "int-stack.";
        struct cpu c = user(ext ? UCODE("ud2") : UCODE("int 0x81"));

        tables();
        idt_gate(ext ? V_UD : VECTOR, CODE1, quiet().start, 0xee, 0);
        gdt_set(STACK, descriptor((word)user_page, s->limit, s->access, 4));
        put(12, s->esp);
        put(16, s->access != 0 ? STACK | s->rpl : s->selector);
        run(&c);
        if (s->vector == V_DONE) {
            check_event(joined(how, s->name, ""), STACKS, &c, V_DONE, NO_ERROR, quiet().end);
            check(joined(how, s->name, "-accessed"), "SDM Vol.3, code- and data-segment types",
                  gdt[STACK / 8] >> 40 & 1, 1);
        } else
            check_fault(joined(how, s->name, ""), STACKS, &c, s->vector, s->error | ext);
    }
}

/* A second fault while one is delivered: contributory ones make a double fault. */
static void double_faults(void)
{
    static const struct {
        const char *name;
        unsigned first, access, target, ss1;
        int vector;
        unsigned error;
    } pairs[] = {
        {"de-then-np", V_DE, 0x0e, CODE0, S_DATA_1, V_DF, 0},
        {"de-then-gp", V_DE, 0x8e, DATA, S_DATA_1, V_DF, 0},
        {"de-then-ts", V_DE, 0x8e, CODE1, 0, V_DF, 0},
        {"de-then-ss", V_DE, 0x8e, CODE1, STACK | 1, V_DF, 0},
        {"gp-then-np", V_GP, 0x0e, CODE0, S_DATA_1, V_DF, 0},
        {"gp-then-gp", V_GP, 0x8e, 0, S_DATA_1, V_DF, 0},
        {"ud-then-ts", V_UD, 0x8e, CODE1, 0, V_TS, 1},
        {"ud-then-ss", V_UD, 0x8e, CODE1, STACK | 1, V_SS, STACK | 1},
        {"br-then-np", V_BR, 0x0e, CODE0, S_DATA_1, V_NP, 8 * V_BR + 3},
    };

    for (unsigned i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        struct code codes[] = {UCODE("div cl"), UCODE("hlt"), UCODE("ud2"),
                               UCODE("push 1\n push 0\n mov eax, 2\n 9: bound eax, [esp]")};
        unsigned first = pairs[i].first;
        struct cpu c = user(codes[first == V_DE ? 0 : first == V_GP ? 1 : first == V_UD ? 2 : 3]);

        tables();
        gdt_set(STACK, descriptor(0, 0xfffff, 0x32, 0xc));
        put(16, pairs[i].ss1);
        idt_gate(first, pairs[i].target, quiet().start, pairs[i].access, 0);
        run(&c);
        check_fault(joined("double.", pairs[i].name, ""),
                    "SDM Vol.3, conditions for generating a double fault", &c, pairs[i].vector,
                    pairs[i].error);
    }
    for (unsigned i = 0; i < 2; i++) {
        struct cpu c = user(UCODE("mov al, [edi]"));

        paging(PAGING_32);
        tables();
        test_pte32[0] = 0;
        flush_tlb();
        idt_gate(V_PF, CODE0, 0, i == 0 ? 0x0e : 0x8c, 0);
        c.di = TEST_VA;
        run(&c);
        check_fault(i == 0 ? "double.pf-then-np" : "double.pf-then-gp",
                    "SDM Vol.3, conditions for generating a double fault", &c, V_DF, 0);
        check(i == 0 ? "double.pf-then-np-cr2" : "double.pf-then-gp-cr2",
              "SDM Vol.3, conditions for generating a double fault", c.cr2, TEST_VA);
        /* and a page fault for the stack of a page fault */
        tables();
        put(12, TEST_VA + 0x100);
        idt_gate(V_PF, CODE1, quiet().start, 0x8e, 0);
        c = user(UCODE("mov al, [edi]"));
        c.di = TEST_VA;
        run(&c);
        check_fault(i == 0 ? "double.pf-then-pf" : "double.pf-then-pf-again",
                    "SDM Vol.3, conditions for generating a double fault", &c, V_DF, 0);
        /* not for another event: the page fault is then taken */
        tables();
        put(12, TEST_VA + 0x100);
        idt_gate(V_UD, CODE1, quiet().start, 0x8e, 0);
        c = user(UCODE("ud2"));
        run(&c);
        check(i == 0 ? "double.ud-then-pf" : "double.ud-then-pf-again",
              "SDM Vol.3, conditions for generating a double fault",
              c.vector == V_PF && c.ip == c.code.mark ? c.error : 0xbad, 2);
        paging(PAGING_OFF);
    }
    tables();
}

static void short_tss(void)
{
    for (unsigned i = 0; i < 2; i++) {
        struct cpu c = kernel(CODE("ltr ax"));

        tables();
        idt_gate(VECTOR, CODE1, handler().start, 0xee, 0);
        gdt_set(S_TSS, descriptor((word)tss, 17 - i, 0x89, 0));
        c.ax = S_TSS;
        run(&c);
        c = user(UCODE("int 0x81"));
        run(&c);
        if (i == 0)
            check_event("int-stack.tss-exact", STACKS, &c, V_DONE, NO_ERROR, handler().end);
        else
            check_fault("int-stack.tss-short", STACKS, &c, V_TS, S_TSS);
    }
    tables();
}

/* ---- IRET ---- */

struct iret_row {
    const char *name;
    unsigned cpl, cs, ss;
    int vector;
    unsigned error;
};

static const struct iret_row iret_rows[] = {
    {"same", 0, CODE0, 0, V_DONE, 0},
    {"outer", 0, CODE3 | 3, S_UDATA, V_DONE, 0},
    {"outer1", 0, CODE1 | 1, S_DATA_1, V_DONE, 0},
    {"inner", 3, CODE0, S_DATA, V_GP, CODE0},
    {"rpl-below-cpl", 3, CODE3, S_UDATA, V_GP, CODE3},
    {"rpl-not-dpl", 0, CODE0 | 3, S_UDATA, V_GP, CODE0},
    {"null", 0, 0, 0, V_GP, 0},
    {"null-rpl3", 0, 3, 0, V_GP, 0},
    {"data", 0, DATA, 0, V_GP, DATA},
    {"system", 0, LOCAL, 0, V_GP, LOCAL},
    {"absent", 0, ABSENT, 0, V_NP, ABSENT},
    {"outside", 0, OUTSIDE, 0, V_GP, OUTSIDE},
    {"no-ldt", 0, CODE0 | 4, 0, V_GP, CODE0 | 4},
    {"conforming-outer", 0, CONF0 | 3, S_UDATA, V_DONE, 0},
    {"conforming-dpl-above", 0, CONF3, 0, V_GP, CONF3},
    {"offset-beyond", 0, SMALL, 0, V_GP, 0},
    {"outer-ss-null", 0, CODE3 | 3, 0, V_GP, 0},
    {"outer-ss-rpl", 0, CODE3 | 3, S_UDATA & ~3u, V_GP, S_UDATA & ~3u},
    {"outer-ss-dpl", 0, CODE3 | 3, S_DATA | 3, V_GP, S_DATA},
    {"outer-ss-code", 0, CODE3 | 3, CODE3 | 3, V_GP, CODE3},
    {"outer-ss-absent", 0, CODE3 | 3, STACK | 3, V_SS, STACK},
    {"outer-ss-outside", 0, CODE3 | 3, OUTSIDE | 3, V_GP, OUTSIDE},
};

#define IRET_FRAME "push edx\n push ebx\n push esi\n push ecx\n push eax\n 9: iretd"

static struct cpu iret_to(unsigned cpl, word cs, word ss, word flags, word new_flags)
{
    struct cpu c = at_level(cpl == 3 ? UCODE(IRET_FRAME) : CODE(IRET_FRAME), cpl);

    c.flags = flags;
    c.ax = handler().start;
    c.cx = 0x12340000 | cs;
    c.bx = (word)user_stack_top - 256;
    c.dx = 0x56780000 | ss;
    c.si = new_flags;
    run(&c);
    return c;
}

static void irets(void)
{
    for (unsigned i = 0; i < sizeof(iret_rows) / sizeof(iret_rows[0]); i++) {
        const struct iret_row *r = &iret_rows[i];
        struct cpu c;

        tables();
        gdt_set(STACK, descriptor(0, 0xfffff, 0x72, 0xc));
        c = iret_to(r->cpl, r->cs, r->ss, 2, 2 | FL_CF);
        if (r->vector != V_DONE) {
            check_fault(joined("iret.", r->name, ""), RETURNS, &c, r->vector, r->error);
            check(joined("iret.", r->name, "-sp"), RETURNS, c.sp, at_level(c.code, r->cpl).sp - 20);
            check(joined("iret.", r->name, "-flags"), RETURNS, c.flags & FL_CF, 0);
            continue;
        }
        check_event(joined("iret.", r->name, ""), RETURNS, &c, V_DONE, NO_ERROR, handler().end);
        check(joined("iret.", r->name, "-cs"), RETURNS, c.ax, r->cs);
        check(joined("iret.", r->name, "-flags"), RETURNS, c.bx, 2 | FL_CF);
        if ((r->cs & 3) != 0)
            check(joined("iret.", r->name, "-sp"), RETURNS, c.dx, (word)user_stack_top - 256);
        else
            check(joined("iret.", r->name, "-sp"), RETURNS, c.dx, (word)fragment_stack_top - 8);
    }
}

/* Which flags an IRET may change, by CPL and IOPL. */
static void iret_flags(void)
{
    const word all = 2 | FL_CF | FL_IF | FL_DF | FL_IOPL | FL_AC | FL_ID;
    struct cpu c;

    tables();
    c = iret_to(0, CODE0, 0, 2, all);
    check("iret-flags.cpl0", RETURNS, c.bx, all);
    c = iret_to(0, CODE3 | 3, S_UDATA, 2, all);
    check("iret-flags.to-cpl3", RETURNS, c.bx, all);
    c = iret_to(3, CODE3 | 3, S_UDATA, 2, all);
    check("iret-flags.cpl3-iopl0", RETURNS, c.bx, all & ~(FL_IF | FL_IOPL));
    c = iret_to(3, CODE3 | 3, S_UDATA, 2 | FL_IOPL, all & ~FL_IOPL);
    check("iret-flags.cpl3-iopl3", RETURNS, c.bx, all);
    c = iret_to(1, CODE1 | 1, 0, 2 | 0x1000, all);
    check("iret-flags.cpl1-iopl1", RETURNS, c.bx, (all & ~FL_IOPL) | 0x1000);
    c = iret_to(1, CODE1 | 1, 0, 2, all);
    check("iret-flags.cpl1-iopl0", RETURNS, c.bx, all & ~(FL_IF | FL_IOPL));
    c = iret_to(3, CODE3 | 3, S_UDATA, 2 | FL_IF, 2);
    check("iret-flags.cpl3-keeps-if", RETURNS, c.bx, 2 | FL_IF);
    c = iret_to(3, CODE3 | 3, S_UDATA, 2, 2 | FL_VM);
    check_event("iret-flags.cpl3-vm-ignored", RETURNS, &c, V_DONE, NO_ERROR, handler().end);
    c = iret_to(1, CODE1 | 1, 0, 2 | FL_IOPL, 2 | FL_VM);
    check_event("iret-flags.cpl1-vm-ignored", RETURNS, &c, V_DONE, NO_ERROR, handler().end);
    c = iret_to(3, CODE3 | 3, S_UDATA, 2 | FL_IOPL, 2 | FL_VIF | FL_VIP);
    check("iret-flags.cpl3-vif-vip", RETURNS, c.bx & (FL_VIF | FL_VIP), 0);
    c = iret_to(0, CODE0, 0, 2, 0xffc08028 | 2);
    check("iret-flags.reserved", RETURNS, c.bx, 2);
    c = iret_to(0, CODE0, 0, 2, 2 | FL_NT);
    check("iret-flags.nt", RETURNS, c.bx, 2 | FL_NT);
    c = kernel(CODE("pushf\n push cs\n .byte 0x68\n .long 1f\n .byte 0xcf\n 1: pushfd\n pop ebx"));
    c.flags |= FL_CF;
    run(&c);
    check("iret.simple", RETURNS, c.vector == V_DONE ? c.bx : 0xbad, 2 | FL_CF);
    c = kernel(CODE("push edx\n push ebx\n push esi\n push ecx\n push eax\n 9: iretd"));
    c.ax = handler().start;
    c.cx = CODE3 | 3;
    c.bx = (word)user_stack_top;
    c.dx = S_UDATA;
    c.si = 2;
    c.ds = S_DATA;
    c.fs = CONF0;
    c.gs = S_DATA_1;
    run(&c);
    check("iret.drops-dpl0", RETURNS, c.ds, 0);
    check("iret.drops-dpl1", RETURNS, c.gs, 0);
    check("iret.keeps-conforming", RETURNS, c.fs, CONF0);
}

/* A 16-bit IRET leaves the upper halves of EFLAGS alone. */
static void iret16(void)
{
    struct cpu c;
    struct code h = handler();

    tables();
    gdt_set(BASED, descriptor(h.start, 0xffff, 0x9a, 4));
    c = kernel(CODE("push si\n push cx\n push ax\n .byte 0x66, 0xcf"));
    c.cx = BASED;
    c.si = 2 | FL_CF | FL_IOPL;
    c.flags |= FL_AC | FL_ID;
    run(&c);
    check("iret16.flags", RETURNS, c.bx, 2 | FL_CF | FL_IOPL | FL_AC | FL_ID);
    check("iret16.sp", RETURNS, c.dx, (word)fragment_stack_top);
    /* the upper half of the stack pointer is not part of a 16-bit stack */
    gdt_set(STACK, descriptor(0, 0xffff, 0xf2, 0));
    c = kernel(CODE("push edx\n push ebx\n push esi\n push ecx\n push eax\n 9: iretd"));
    c.ax = handler().start;
    c.cx = CODE3 | 3;
    c.bx = 0x5678e000;
    c.dx = STACK | 3;
    c.si = 2;
    run(&c);
    check("iret.16-bit-stack", RETURNS, c.dx & 0xffff, 0xe000);
}

void test(void)
{
    struct cpu c = kernel(CODE("lldt ax"));

    run(&c);          /* after a reset the LDT is at 0, and large */
    outb(0x21, 0xff); /* some flags have IF */
    outb(0xa1, 0xff);
    gate_table();
    external();
    idt_limit();
    frames();
    gates16();
    stack_table();
    double_faults();
    short_tss();
    irets();
    iret_flags();
    iret16();
    tables();
}
