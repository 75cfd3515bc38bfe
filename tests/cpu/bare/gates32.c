/* Far transfers in 32-bit protected mode: direct, through call gates, back by RETF. */
#include "bare.h"

#define DIRECT "SDM Vol.3, direct calls or jumps to code segments"
#define GATES "SDM Vol.3, call gates"
#define STACKS "SDM Vol.3, stack switching"
#define RETURNS "SDM Vol.3, returning from a called procedure"

enum {
    GATE = 0xa0,
    CODE0 = 0xa8,
    CODE1 = 0xb0,
    CODE3 = 0xb8,
    CONF0 = 0xc0,
    CONF3 = 0xc8,
    ABSENT = 0xd0,
    SMALL = 0xd8, /* code, DPL 0, limit 0xff */
    EXECUTE = 0xe0,
    DATA = 0xe8,
    LOCAL = 0xf0, /* an LDT descriptor */
    STACK = 0xf8,
    BASED = 0x100, /* code whose base is the target fragment */
    BASED3 = 0x108,
    EMPTY = 0x1f8,
    OUTSIDE = 0x208
};

static USER_DATA struct {
    uint32_t offset;
    uint16_t selector;
} far_pointer;

static void put(unsigned offset, uint32_t v)
{
    *(volatile uint32_t *)(word)(tss + offset) = v;
}

static uint32_t peek(word at)
{
    return *(volatile uint32_t *)at;
}

static uint16_t peek16(word at)
{
    return *(volatile uint16_t *)at;
}

static uint64_t gate(unsigned selector, word offset, unsigned access, unsigned params)
{
    return (offset & 0xffff) | selector << 16 |
           (uint64_t)((offset & 0xffff0000) | access << 8 | params) << 32;
}

static void tables(void)
{
    gdt_reset();
    gdt_set(CODE0, descriptor(0, 0xfffff, 0x9a, 0xc));
    gdt_set(CODE1, descriptor(0, 0xfffff, 0xba, 0xc));
    gdt_set(CODE3, descriptor(0, 0xfffff, 0xfa, 0xc));
    gdt_set(CONF0, descriptor(0, 0xfffff, 0x9e, 0xc));
    gdt_set(CONF3, descriptor(0, 0xfffff, 0xfe, 0xc));
    gdt_set(ABSENT, descriptor(0, 0xfffff, 0x1a, 0xc));
    gdt_set(SMALL, descriptor(0, 0xff, 0x9a, 4));
    gdt_set(EXECUTE, descriptor(0, 0xfffff, 0x98, 0xc));
    gdt_set(DATA, descriptor(0, 0xfffff, 0x92, 0xc));
    gdt_set(LOCAL, descriptor(0, 0xfffff, 0x82, 0xc));
    put(12, (word)trap_stack_top - 2048); /* ESP1, SS1 */
    put(16, S_DATA_1);
}

/* What a transfer arrives at; emitted once. */
static __attribute__((noinline)) struct code target(void)
{
    return UCODE("mov eax, cs\n mov ecx, ss\n mov edx, esp");
}

static void load_tr(unsigned selector)
{
    struct cpu c = kernel(CODE("ltr ax"));

    c.ax = selector;
    run(&c);
}

static struct cpu transfer(unsigned cpl, bool call, unsigned selector, word offset)
{
    struct code kernels = call ? CODE("call fword ptr [edi]") : CODE("jmp fword ptr [edi]");
    struct code users = call ? UCODE("call fword ptr [edi]") : UCODE("jmp fword ptr [edi]");
    struct cpu c = at_level(cpl == 3 ? users : kernels, cpl);

    far_pointer.offset = offset;
    far_pointer.selector = (uint16_t)selector;
    c.di = (word)&far_pointer;
    run(&c);
    return c;
}

/* c arrived at target(). */
static void check_arrived(const char *name, const char *topic, const struct cpu *c)
{
    check_event(name, topic, c, V_DONE, NO_ERROR, target().end);
}

/* ---- direct ---- */

struct direct {
    const char *name;
    unsigned cpl, selector;
    int vector;
    unsigned error, cs; /* or the CS one arrives with */
};

static const struct direct directs[] = {
    {"same-level", 0, CODE0, V_DONE, 0, CODE0},
    {"execute-only", 0, EXECUTE, V_DONE, 0, EXECUTE},
    {"rpl-above-cpl", 0, CODE0 | 3, V_GP, CODE0, 0},
    {"rpl-below-cpl", 3, CODE3, V_DONE, 0, CODE3 | 3},
    {"inner", 3, CODE0 | 3, V_GP, CODE0, 0},
    {"outer", 0, CODE3, V_GP, CODE3, 0},
    {"cpl1", 1, CODE1, V_DONE, 0, CODE1 | 1},
    {"conforming-same", 0, CONF0, V_DONE, 0, CONF0},
    {"conforming-inner", 3, CONF0 | 3, V_DONE, 0, CONF0 | 3},
    {"conforming-rpl-low", 3, CONF0, V_DONE, 0, CONF0 | 3},
    {"conforming-rpl-high", 0, CONF0 | 3, V_DONE, 0, CONF0},
    {"conforming-outer", 0, CONF3, V_GP, CONF3, 0},
    {"absent", 0, ABSENT, V_NP, ABSENT, 0},
    {"absent-inner", 3, ABSENT | 3, V_GP, ABSENT, 0},
    {"data", 0, DATA, V_GP, DATA, 0},
    {"ldt", 0, LOCAL, V_GP, LOCAL, 0},
    {"empty", 0, EMPTY, V_GP, EMPTY, 0},
    {"beyond-gdt", 0, OUTSIDE, V_GP, OUTSIDE, 0},
    {"no-ldt", 0, CODE0 | 4, V_GP, CODE0 | 4, 0},
    {"null", 0, 0, V_GP, 0, 0},
    {"null-rpl3", 3, 3, V_GP, 0, 0},
    {"offset-beyond", 0, SMALL, V_GP, 0, 0},
    {"busy-tss", 0, S_TSS, V_GP, S_TSS, 0},
};

static void direct(void)
{
    for (unsigned i = 0; i < 2 * sizeof(directs) / sizeof(directs[0]); i++) {
        const struct direct *d = &directs[i / 2];
        const char *insn = i & 1 ? "far-call." : "far-jmp.";
        struct cpu c;
        word sp;

        tables();
        c = transfer(d->cpl, i & 1, d->selector, target().start);
        sp = at_level(c.code, d->cpl).sp;
        if (d->vector != V_DONE) {
            check_fault(joined(insn, d->name, ""), DIRECT, &c, d->vector, d->error);
            check(joined(insn, d->name, "-sp"), DIRECT, c.sp, sp);
            continue;
        }
        check_arrived(joined(insn, d->name, ""), DIRECT, &c);
        check(joined(insn, d->name, "-cs"), DIRECT, c.ax, d->cs);
        check(joined(insn, d->name, "-accessed"), DIRECT, gdt[d->selector / 8] >> 40 & 1, 1);
        if (i & 1)
            check(joined(insn, d->name, "-frame"), DIRECT,
                  peek(c.dx) == c.code.end - 2 && c.dx == sp - 8 ? peek16(c.dx + 4) : 0xbad,
                  at_level(c.code, d->cpl).cs);
    }
}

/* 16-bit forms, whose offsets and frames are 16 bits wide. */
static void direct16(void)
{
    struct cpu c;
    word sp = (word)fragment_stack_top;

    tables();
    gdt_set(BASED, descriptor(target().start, 0xffff, 0x9a, 4));
    c = kernel(CODE(".byte 0x66, 0xff, 0x2f"));
    far_pointer.offset = BASED << 16;
    c.di = (word)&far_pointer;
    run(&c);
    check_event("far-jmp.16-bit", DIRECT, &c, V_DONE, NO_ERROR, target().end - target().start);
    c = kernel(CODE(".byte 0x66, 0xff, 0x1f"));
    c.cs = BASED + 0x10;
    gdt_set(BASED + 0x10, descriptor(c.code.start, 0xffff, 0x9a, 4));
    c.ip = 0;
    c.di = (word)&far_pointer;
    run(&c);
    check("far-call.16-bit-sp", DIRECT, c.dx, sp - 4);
    check("far-call.16-bit-frame", DIRECT, peek(sp - 4), (BASED + 0x10) << 16 | 3);
    c = kernel(CODE("push ecx\n .byte 0x66\n retf"));
    c.cx = BASED << 16;
    run(&c);
    check_event("retf.16-bit", RETURNS, &c, V_DONE, NO_ERROR, target().end - target().start);
    check("retf.16-bit-sp", RETURNS, c.dx, sp);
    c = kernel(CODE(".byte 0x66, 0xea, 0, 0, 0, 1")); /* ptr16:16, BASED is 0x100 */
    run(&c);
    check_event("far-jmp.ptr16-16", DIRECT, &c, V_DONE, NO_ERROR, target().end - target().start);
}

/* ---- call gates ---- */

struct gate_row {
    const char *name;
    unsigned cpl, rpl, access, target;
    int vector;
    unsigned error, cs;
    bool jump_too; /* JMP does the same */
};

static const struct gate_row gate_rows[] = {
    {"same-level", 0, 0, 0x8c, CODE0, V_DONE, 0, CODE0, true},
    {"target-rpl-ignored", 0, 0, 0x8c, CODE0 | 3, V_DONE, 0, CODE0, true},
    {"dpl-below-cpl", 3, 3, 0x8c, CODE0, V_GP, GATE, 0, true},
    {"dpl2-cpl3", 3, 3, 0xcc, CODE0, V_GP, GATE, 0, true},
    {"dpl-below-rpl", 0, 3, 0x8c, CODE0, V_GP, GATE, 0, true},
    {"dpl-and-rpl", 0, 3, 0xec, CODE0, V_DONE, 0, CODE0, true},
    {"absent", 0, 0, 0x0c, CODE0, V_NP, GATE, 0, true},
    {"absent-dpl", 3, 3, 0x0c, CODE0, V_GP, GATE, 0, true},
    {"absent-bad-target", 3, 3, 0x6c, 0, V_NP, GATE, 0, true},
    {"to-null", 3, 3, 0xec, 0, V_GP, 0, 0, true},
    {"to-null-rpl3", 3, 3, 0xec, 3, V_GP, 0, 0, true},
    {"to-data", 3, 3, 0xec, DATA, V_GP, DATA, 0, true},
    {"to-ldt", 3, 3, 0xec, LOCAL, V_GP, LOCAL, 0, true},
    {"to-gate", 3, 3, 0xec, GATE, V_GP, GATE, 0, true},
    {"to-outer", 0, 0, 0x8c, CODE3, V_GP, CODE3, 0, true},
    {"to-outer-conforming", 0, 0, 0x8c, CONF3, V_GP, CONF3, 0, true},
    {"to-absent", 3, 3, 0xec, ABSENT, V_NP, ABSENT, 0, false},
    {"to-absent-same", 0, 0, 0x8c, ABSENT, V_NP, ABSENT, 0, true},
    {"to-empty", 3, 3, 0xec, EMPTY, V_GP, EMPTY, 0, true},
    {"to-outside", 3, 3, 0xec, OUTSIDE, V_GP, OUTSIDE, 0, true},
    {"to-outside-rpl", 3, 3, 0xec, OUTSIDE | 3, V_GP, OUTSIDE, 0, true},
    {"to-no-ldt", 3, 3, 0xec, CODE0 | 4, V_GP, CODE0 | 4, 0, true},
    {"offset-beyond", 0, 0, 0x8c, SMALL, V_GP, 0, 0, true},
    {"offset-beyond-inner", 3, 3, 0xec, SMALL, V_GP, 0, 0, false},
    {"to-conforming", 3, 3, 0xec, CONF0, V_DONE, 0, CONF0 | 3, true},
    {"to-same-cpl3", 3, 3, 0xec, CODE3, V_DONE, 0, CODE3 | 3, true},
    {"to-inner", 3, 3, 0xec, CODE0 | 3, V_DONE, 0, CODE0, false},
    {"to-inner1", 3, 0, 0xec, CODE1, V_DONE, 0, CODE1 | 1, false},
    {"type6", 0, 0, 0x8e, CODE0, V_GP, GATE, 0, true},
    {"type7", 0, 0, 0x8f, CODE0, V_GP, GATE, 0, true},
    {"type14-16", 0, 0, 0x86, CODE0, V_GP, GATE, 0, true},
};

static void gate_table(void)
{
    for (unsigned i = 0; i < 2 * sizeof(gate_rows) / sizeof(gate_rows[0]); i++) {
        const struct gate_row *g = &gate_rows[i / 2];
        const char *insn = i & 1 ? "gate-call." : "gate-jmp.";
        struct cpu c;

        if (!(i & 1) && !g->jump_too)
            continue;
        tables();
        gdt_set(GATE, gate(g->target, target().start, g->access, 0));
        c = transfer(g->cpl, i & 1, GATE | g->rpl, 0xdeadbeef); /* the offset means nothing */
        if (g->vector != V_DONE) {
            check_fault(joined(insn, g->name, ""), GATES, &c, g->vector, g->error);
            check(joined(insn, g->name, "-sp"), GATES, c.sp, at_level(c.code, g->cpl).sp);
            check(joined(insn, g->name, "-level"), GATES, c.cs & 3, g->cpl);
            continue;
        }
        check_arrived(joined(insn, g->name, ""), GATES, &c);
        check(joined(insn, g->name, "-cs"), GATES, c.ax, g->cs);
    }
    for (unsigned i = 0; i < 3; i++) {
        static const char *const names[] = {"gate-jmp.to-inner", "gate-jmp.to-inner-absent",
                                            "gate-jmp.to-inner-small"};
        static const uint16_t to[] = {CODE0, ABSENT, SMALL};
        struct cpu c;

        tables();
        gdt_set(GATE, gate(to[i], target().start, 0xec, 0));
        c = transfer(3, false, GATE | 3, 0);
        check_fault(names[i], GATES, &c, V_GP, to[i]);
    }
}

/* The new stack: parameters, SS:ESP, CS:EIP. */
static void parameters(void)
{
    struct cpu c;
    word top = (word)trap_stack_top;
    static const char *const names[] = {"gate.params0", "gate.params1", "gate.params3",
                                        "gate.params31"};
    static const unsigned counts[] = {0, 1, 3, 31};

    for (unsigned i = 0; i < 4; i++) {
        unsigned n = counts[i];
        uint32_t *p = (uint32_t *)((word)user_stack_top - 160);

        tables();
        for (unsigned k = 0; k < 40; k++)
            p[k] = 0x11110000 + k;
        gdt_set(GATE, gate(CODE0, target().start, 0xec, n));
        far_pointer.selector = GATE;
        c = user(UCODE("call fword ptr [edi]"));
        c.di = (word)&far_pointer;
        c.sp = (word)p;
        run(&c);
        check(joined(names[i], "-sp", ""), STACKS, c.dx, top - 16 - 4 * n);
        check(joined(names[i], "-ss", ""), STACKS, c.cx, S_DATA);
        check(joined(names[i], "-eip", ""), STACKS, peek(c.dx), c.code.end - 2);
        check(joined(names[i], "-cs", ""), STACKS, peek16(c.dx + 4), S_UCODE32);
        check(joined(names[i], "-old-sp", ""), STACKS, peek(top - 8), (word)p);
        check(joined(names[i], "-old-ss", ""), STACKS, peek16(top - 4), S_UDATA);
        if (n != 0) {
            check(joined(names[i], "-first", ""), STACKS, peek(c.dx + 8), 0x11110000);
            check(joined(names[i], "-last", ""), STACKS, peek(top - 12), 0x11110000 + n - 1);
        }
    }
    /* the bits above the count mean nothing; the same level copies nothing */
    tables();
    gdt_set(GATE, gate(CODE0, target().start, 0xec, 0xe1));
    c = transfer(3, true, GATE, 0);
    check("gate.params-5-bits", STACKS, c.dx, top - 20);
    gdt_set(GATE, gate(CODE0, target().start, 0x8c, 3));
    c = transfer(0, true, GATE, 0);
    check("gate.params-same-level", STACKS, c.dx, (word)fragment_stack_top - 8);
}

static void gate16(void)
{
    struct cpu c;
    word top = (word)trap_stack_top;
    uint16_t *p = (uint16_t *)((word)user_stack_top - 16);

    tables();
    for (unsigned k = 0; k < 8; k++)
        p[k] = (uint16_t)(0x2200 + k);
    gdt_set(BASED, descriptor(target().start, 0xffff, 0x9a, 4));
    gdt_set(GATE, gate(BASED, 0xffff0000, 0xe4, 2)); /* bits 63:48 mean nothing */
    far_pointer.selector = GATE;
    c = user(UCODE("call fword ptr [edi]"));
    gdt_set(BASED3, descriptor(c.code.start, 0xffff, 0xfa, 4));
    c.cs = BASED3 | 3;
    c.ip = 0;
    c.di = (word)&far_pointer;
    c.sp = (word)p;
    run(&c);
    check_event("gate16.inner", GATES, &c, V_DONE, NO_ERROR, target().end - target().start);
    check("gate16.inner-sp", STACKS, c.dx, top - 12);
    check("gate16.inner-return", STACKS, peek(c.dx), (BASED3 | 3) << 16 | 2);
    check("gate16.inner-params", STACKS, peek(c.dx + 4), 0x22012200);
    check("gate16.inner-stack", STACKS, peek(c.dx + 8), S_UDATA << 16 | ((word)p & 0xffff));
    gdt_set(GATE, gate(BASED, 0, 0x84, 2));
    c = kernel(CODE("call fword ptr [edi]"));
    gdt_set(BASED3, descriptor(c.code.start, 0xffff, 0x9a, 4));
    c.cs = BASED3;
    c.ip = 0;
    c.di = (word)&far_pointer;
    run(&c);
    check("gate16.same-sp", GATES, c.dx, (word)fragment_stack_top - 4);
    check("gate16.same-return", GATES, peek(c.dx), BASED3 << 16 | 2);
    /* the size of the instruction does not matter for a gate */
    gdt_set(GATE, gate(CODE0, target().start, 0xec, 0));
    c = user(UCODE(".byte 0x66, 0xff, 0x1f"));
    far_pointer.offset = GATE << 16 | 0x1234;
    c.di = (word)&far_pointer;
    run(&c);
    check_arrived("gate.by-16-bit-call", GATES, &c);
    check("gate.by-16-bit-call-sp", GATES, c.dx, top - 16);
}

/* ---- the stack that the TSS names for level 1 ---- */

struct stack_row {
    const char *name;
    unsigned access, rpl; /* of STACK; access 0: as selector says */
    uint32_t selector, limit, esp;
    int vector;
    unsigned error;
};

static const struct stack_row stack_rows[] = {
    {"good", 0xb2, 1, 0, 0xffff, 0x1000, V_DONE, 0},
    {"null", 0, 0, 0, 0, 0x1000, V_TS, 0},
    {"null-rpl1", 0, 0, 1, 0, 0x1000, V_TS, 0},
    {"rpl", 0xb2, 0, 0, 0xffff, 0x1000, V_TS, STACK},
    {"rpl3", 0xb2, 3, 0, 0xffff, 0x1000, V_TS, STACK},
    {"dpl0", 0x92, 1, 0, 0xffff, 0x1000, V_TS, STACK},
    {"dpl3", 0xf2, 1, 0, 0xffff, 0x1000, V_TS, STACK},
    {"read-only", 0xb0, 1, 0, 0xffff, 0x1000, V_TS, STACK},
    {"code", 0xba, 1, 0, 0xffff, 0x1000, V_TS, STACK},
    {"system", 0xa2, 1, 0, 0xffff, 0x1000, V_TS, STACK},
    {"absent", 0x32, 1, 0, 0xffff, 0x1000, V_SS, STACK},
    {"absent-dpl", 0x12, 1, 0, 0xffff, 0x1000, V_TS, STACK},
    {"beyond-gdt", 0, 0, OUTSIDE | 1, 0, 0x1000, V_TS, OUTSIDE},
    {"no-ldt", 0, 0, 8 | 5, 0, 0x1000, V_TS, 8 | 4},
    {"room-exact", 0xb2, 1, 0, 0xffff, 16, V_DONE, 0},
    {"room-short", 0xb2, 1, 0, 0xffff, 15, V_SS, STACK},
    {"room-short-top", 0xb2, 1, 0, 0xff, 0x102, V_SS, STACK},
};

static void stack_table(void)
{
    for (unsigned i = 0; i < sizeof(stack_rows) / sizeof(stack_rows[0]); i++) {
        const struct stack_row *s = &stack_rows[i];
        struct cpu c;

        tables();
        gdt_set(GATE, gate(CODE1, target().start, 0xec, 0));
        gdt_set(STACK, descriptor((word)user_page, s->limit, s->access, 4));
        put(12, s->esp);
        put(16, s->access != 0 ? STACK | s->rpl : s->selector);
        c = transfer(3, true, GATE | 3, 0);
        if (s->vector == V_DONE) {
            check_arrived(joined("gate-stack.", s->name, ""), STACKS, &c);
            check(joined("gate-stack.", s->name, "-sp"), STACKS, c.dx, s->esp - 16);
            continue;
        }
        check_fault(joined("gate-stack.", s->name, ""), STACKS, &c, s->vector, s->error);
        check(joined("gate-stack.", s->name, "-sp"), STACKS, c.sp, (word)user_stack_top);
        check(joined("gate-stack.", s->name, "-not-accessed"), STACKS,
              s->access == 0 || s->esp < 16 || s->limit < s->esp ? 0 : gdt[STACK / 8] >> 40 & 1, 0);
    }
}

static void short_tss(void)
{
    static const char *const names[] = {"gate-stack.tss-exact", "gate-stack.tss-short"};
    struct cpu c;

    for (unsigned i = 0; i < 2; i++) {
        tables();
        gdt_set(GATE, gate(CODE1, target().start, 0xec, 0));
        gdt_set(S_TSS, descriptor((word)tss, 17 - i, 0x89, 0));
        load_tr(S_TSS);
        c = transfer(3, true, GATE | 3, 0);
        if (i == 0)
            check_arrived(names[i], STACKS, &c);
        else
            check_fault(names[i], STACKS, &c, V_TS, S_TSS);
    }
    /* a 16-bit TSS holds 16-bit pointers */
    tables();
    gdt_set(GATE, gate(CODE1, target().start, 0xec, 0));
    gdt_set(S_TSS, descriptor((word)tss, 9, 0x81, 0));
    put(0, 0xf000u << 16); /* SP0 */
    put(4, S_DATA | 0xe800u << 16);
    put(8, S_DATA_1);
    load_tr(S_TSS);
    c = transfer(3, true, GATE | 3, 0);
    check_arrived("gate-stack.tss16", STACKS, &c);
    check("gate-stack.tss16-sp", STACKS, c.dx, 0xe800 - 16);
    tables();
    gdt_set(GATE, gate(CODE1, target().start, 0xec, 0));
    gdt_set(S_TSS, descriptor((word)tss, 8, 0x81, 0));
    put(0, 0xf000u << 16);
    put(4, S_DATA | 0xe800u << 16);
    put(8, S_DATA_1);
    load_tr(S_TSS);
    c = transfer(3, true, GATE | 3, 0);
    check_fault("gate-stack.tss16-short", STACKS, &c, V_TS, S_TSS);
    tables();
}

/* The caller's own stack has no room, or its parameters lie beyond its limit. */
static void caller_stack(void)
{
    struct cpu c;

    tables();
    gdt_set(STACK, descriptor((word)user_page, 0xff, 0xf2, 4));
    gdt_set(GATE, gate(CODE3, target().start, 0xec, 0));
    far_pointer.selector = GATE;
    c = user(UCODE("call fword ptr [edi]"));
    c.ss = STACK | 3;
    c.sp = 4;
    c.di = (word)&far_pointer;
    run_fault("gate.no-room", GATES, &c, V_SS, 0);
    far_pointer.selector = CODE3;
    far_pointer.offset = target().start;
    c = user(UCODE("call fword ptr [edi]"));
    c.ss = STACK | 3;
    c.sp = 4;
    c.di = (word)&far_pointer;
    run_fault("far-call.no-room", DIRECT, &c, V_SS, 0);
    tables();
}

/* ---- RETF ---- */

struct ret_row {
    const char *name;
    unsigned cpl, cs, ss;
    int vector;
    unsigned error;
};

static const struct ret_row ret_rows[] = {
    {"same", 0, CODE0, 0, V_DONE, 0},
    {"outer", 0, CODE3 | 3, S_UDATA, V_DONE, 0},
    {"outer1", 0, CODE1 | 1, S_DATA_1, V_DONE, 0},
    {"rpl-below-cpl", 3, CODE3, S_UDATA, V_GP, CODE3},
    {"inner", 3, CODE0, S_DATA, V_GP, CODE0},
    {"rpl-not-dpl", 0, CODE0 | 3, S_UDATA, V_GP, CODE0},
    {"same-other-dpl", 0, CODE3, 0, V_GP, CODE3},
    {"null", 0, 0, 0, V_GP, 0},
    {"null-rpl3", 0, 3, 0, V_GP, 0},
    {"data", 0, DATA, 0, V_GP, DATA},
    {"system", 0, LOCAL, 0, V_GP, LOCAL},
    {"absent", 0, ABSENT, 0, V_NP, ABSENT},
    {"empty", 0, EMPTY, 0, V_GP, EMPTY},
    {"outside", 0, OUTSIDE, 0, V_GP, OUTSIDE},
    {"outside-rpl3", 0, OUTSIDE | 3, 0, V_GP, OUTSIDE},
    {"no-ldt", 0, CODE0 | 4, 0, V_GP, CODE0 | 4},
    {"conforming-same", 0, CONF0, 0, V_DONE, 0},
    {"conforming-outer", 0, CONF0 | 3, S_UDATA, V_DONE, 0},
    {"conforming-dpl-above-rpl", 0, CONF3, 0, V_GP, CONF3},
    {"offset-beyond", 0, SMALL, 0, V_GP, 0},
    {"outer-ss-null", 0, CODE3 | 3, 0, V_GP, 0},
    {"outer-ss-null-rpl3", 0, CODE3 | 3, 3, V_GP, 0},
    {"outer-ss-rpl", 0, CODE3 | 3, S_UDATA & ~3u, V_GP, S_UDATA & ~3u},
    {"outer-ss-dpl", 0, CODE3 | 3, S_DATA | 3, V_GP, S_DATA},
    {"outer-ss-code", 0, CODE3 | 3, CODE3 | 3, V_GP, CODE3},
    {"outer-ss-absent", 0, CODE3 | 3, STACK | 3, V_SS, STACK},
    {"outer-ss-outside", 0, CODE3 | 3, OUTSIDE | 3, V_GP, OUTSIDE},
    {"outer-cs-before-ss", 0, ABSENT | 3, 0, V_GP, ABSENT},
};

static void returns(void)
{
    for (unsigned i = 0; i < sizeof(ret_rows) / sizeof(ret_rows[0]); i++) {
        const struct ret_row *r = &ret_rows[i];
        struct code kernels = CODE("push edx\n push ebx\n push ecx\n push eax\n 9: retf");
        struct code users = UCODE("push edx\n push ebx\n push ecx\n push eax\n 9: retf");
        struct cpu c = at_level(r->cpl == 3 ? users : kernels, r->cpl);
        word sp = c.sp;

        tables();
        gdt_set(STACK, descriptor(0, 0xfffff, 0x72, 0xc));
        c.ax = target().start;
        c.cx = 0x12340000 | r->cs; /* the upper half is not looked at */
        c.bx = (word)user_stack_top - 256;
        c.dx = 0x56780000 | r->ss;
        run(&c);
        if (r->vector != V_DONE) {
            check_fault(joined("retf.", r->name, ""), RETURNS, &c, r->vector, r->error);
            check(joined("retf.", r->name, "-sp"), RETURNS, c.sp, sp - 16);
            check(joined("retf.", r->name, "-ss"), RETURNS, c.ss, at_level(kernels, r->cpl).ss);
            continue;
        }
        check_arrived(joined("retf.", r->name, ""), RETURNS, &c);
        check(joined("retf.", r->name, "-cs"), RETURNS, c.ax, r->cs);
        if ((r->cs & 3) != 0) {
            check(joined("retf.", r->name, "-sp"), RETURNS, c.dx, (word)user_stack_top - 256);
            check(joined("retf.", r->name, "-ss"), RETURNS, c.cx, r->ss);
        } else {
            check(joined("retf.", r->name, "-sp"), RETURNS, c.dx, sp - 8);
        }
    }
}

/* Data registers that an outer level may not have are emptied. */
static void dropped(void)
{
    struct cpu c = kernel(CODE("push edx\n push ebx\n push ecx\n push eax\n retf"));
    struct code users;

    tables();
    gdt_set(STACK, descriptor(0, 0xfffff, 0xb2, 0xc));
    c.ax = target().start;
    c.cx = CODE3 | 3;
    c.bx = (word)user_stack_top;
    c.dx = S_UDATA;
    c.es = CONF0; /* conforming: stays */
    c.ds = S_DATA;
    c.fs = STACK | 1;
    c.gs = S_UDATA & ~3u;
    run(&c);
    check_arrived("retf.drops", RETURNS, &c);
    check("retf.drops-dpl0", RETURNS, c.ds, 0);
    check("retf.drops-dpl1", RETURNS, c.fs, 0);
    check("retf.keeps-conforming", RETURNS, c.es, CONF0);
    check("retf.keeps-dpl3", RETURNS, c.gs, S_UDATA & ~3u);
    c = kernel(CODE("push edx\n push ebx\n push ecx\n push eax\n retf"));
    users = UCODE("mov cl, fs:[edi]");
    c.ax = users.start;
    c.cx = CODE3 | 3;
    c.bx = (word)user_stack_top;
    c.dx = S_UDATA;
    c.fs = S_DATA;
    run(&c);
    check_event("retf.dropped-faults", RETURNS, &c, V_GP, 0, users.start);
    c = kernel(CODE("push edx\n push ebx\n push ecx\n push eax\n retf"));
    c.ax = target().start;
    c.cx = CODE1 | 1;
    c.bx = (word)trap_stack_top - 1024;
    c.dx = S_DATA_1;
    c.fs = STACK | 1;
    c.gs = CODE0;
    run(&c);
    check("retf.level1-keeps-dpl1", RETURNS, c.fs, STACK | 1);
    check("retf.level1-drops-code0", RETURNS, c.gs, 0);
}

/* RETF n takes the parameters from both stacks. */
static void ret_parameters(void)
{
    struct cpu c = kernel(CODE("push edx\n push ebx\n push 1\n push 2\n push ecx\n push eax\n"
                               "9: retf 8"));

    tables();
    c.ax = target().start;
    c.cx = CODE3 | 3;
    c.bx = (word)user_stack_top - 256;
    c.dx = S_UDATA;
    run(&c);
    check_arrived("retf-n.outer", RETURNS, &c);
    check("retf-n.outer-sp", RETURNS, c.dx, (word)user_stack_top - 248);
    check("retf-n.outer-ss", RETURNS, c.cx, S_UDATA);
    c = kernel(CODE("push 1\n push 2\n push ecx\n push eax\n 9: retf 8"));
    c.ax = target().start;
    c.cx = CODE0;
    run(&c);
    check_arrived("retf-n.same", RETURNS, &c);
    check("retf-n.same-sp", RETURNS, c.dx, (word)fragment_stack_top);
    /* a call through a gate and its return */
    gdt_set(GATE, gate(CODE0, UCODE("mov ebx, [esp + 8]\n retf 4").start, 0xec, 1));
    far_pointer.selector = GATE;
    c = user(UCODE("push 0x1234\n call fword ptr [edi]\n mov eax, esp"));
    c.di = (word)&far_pointer;
    run_done("gate.round-trip", RETURNS, &c);
    check("gate.round-trip-parameter", RETURNS, c.bx, 0x1234);
    check("gate.round-trip-sp", RETURNS, c.ax, (word)user_stack_top);
    check("gate.round-trip-flags", RETURNS, c.flags, 2);
}

/* A descriptor's D bit decides about the code behind a jump. */
static void sizes(void)
{
    struct cpu c;
    struct code code = UCODE("mov eax, 0x11112222"); /* 16 bits: mov ax, 0x2222; adc [bx+di], dx */

    tables();
    gdt_set(BASED, descriptor(code.start, 0xffff, 0x9a, 0));
    c = transfer(0, false, BASED, 0);
    check_event("far-jmp.to-16-bit", DIRECT, &c, V_DONE, NO_ERROR, code.end - code.start);
    check("far-jmp.to-16-bit-ax", DIRECT, c.ax, 0x2222);
    gdt_set(BASED, descriptor(code.start, 0xffff, 0x9a, 4));
    c = transfer(0, false, BASED, 0);
    check("far-jmp.to-32-bit-ax", DIRECT, c.ax, 0x11112222);
}

void test(void)
{
    struct cpu c = kernel(CODE("lldt ax"));

    run(&c); /* after a reset the LDT is at 0, and large */
    direct();
    direct16();
    gate_table();
    parameters();
    gate16();
    stack_table();
    short_tss();
    caller_stack();
    returns();
    dropped();
    ret_parameters();
    sizes();
    gdt_reset();
}
