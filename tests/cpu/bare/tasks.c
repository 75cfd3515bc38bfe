/* Hardware task switches: by JMP, CALL, INT, exceptions and IRET, with both kinds of TSS. */
#include "bare.h"

#define SWITCH "SDM Vol.3, task switching"
#define LINKING "SDM Vol.3, task linking"
#define CHECKS "SDM Vol.3, exception conditions checked during a task switch"
#define GATES "SDM Vol.3, task-gate descriptor"
#define TSS16 "SDM Vol.3, 16-bit task-state segment"

enum {
    T2 = 0xa0,
    T3 = 0xa8,
    GATE = 0xb0,
    CODE3 = 0xb8,
    CONF0 = 0xc0,
    CONF3 = 0xc8,
    ABSENT = 0xd0, /* data */
    ABSENT_CODE = 0xd8,
    EXECUTE = 0xe0,
    READ_ONLY = 0xe8,
    SMALL = 0xf0,
    BASED = 0xf8,
    LDT2 = 0x100,
    ABSENT_LDT = 0x108,
    OUTSIDE = 0x208,
    VECTOR = 0x81
};

struct tss32 {
    uint32_t link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags;
    uint32_t eax, ecx, edx, ebx, esp, ebp, esi, edi;
    uint32_t es, cs, ss, ds, fs, gs, ldt;
    uint16_t trap, io;
};
struct tss16 {
    uint16_t link, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags;
    uint16_t ax, cx, dx, bx, sp, bp, si, di;
    uint16_t es, cs, ss, ds, ldt;
    uint16_t beyond[4];
};

static volatile struct tss32 two, three;
static volatile struct tss16 sixteen;
#define first ((volatile struct tss32 *)(word)tss)
static uint8_t stack2[2048] __attribute__((aligned(16)));
static uint8_t stack3[2048] __attribute__((aligned(16)));
static uint8_t inner[2048] __attribute__((aligned(16)));
static uint64_t ldt2[4];

static unsigned access_of(unsigned selector)
{
    return gdt[selector / 8] >> 40 & 0xff;
}

static void make_task(volatile struct tss32 *t, struct code code, word stack)
{
    *t = (struct tss32){.esp0 = (word)(inner + sizeof(inner)),
                        .ss0 = S_DATA,
                        .cr3 = cr3(),
                        .eip = code.start,
                        .eflags = 2,
                        .esp = stack,
                        .es = S_DATA,
                        .cs = S_CODE,
                        .ss = S_DATA,
                        .ds = S_DATA,
                        .fs = S_DATA,
                        .gs = S_DATA,
                        .io = 104};
}

/* Tables as every check begins: task 2 runs code, task 3 takes what task 2 cannot. */
static void tasks(struct code code)
{
    gdt_reset();
    idt_reset();
    make_task(&two, code, (word)(stack2 + sizeof(stack2)));
    make_task(&three, CODE("nop"), (word)(stack3 + sizeof(stack3)));
    gdt_set(T2, descriptor((word)&two, sizeof(two) - 1, 0x89, 0));
    gdt_set(T3, descriptor((word)&three, sizeof(three) - 1, 0x89, 0));
    gdt_set(GATE, (uint64_t)T2 << 16 | 0x8500ull << 32);
    gdt_set(CODE3, descriptor(0, 0xfffff, 0xfa, 0xc));
    gdt_set(CONF0, descriptor(0, 0xfffff, 0x9e, 0xc));
    gdt_set(CONF3, descriptor(0, 0xfffff, 0xfe, 0xc));
    gdt_set(ABSENT, descriptor(0, 0xfffff, 0x12, 0xc));
    gdt_set(ABSENT_CODE, descriptor(0, 0xfffff, 0x1a, 0xc));
    gdt_set(EXECUTE, descriptor(0, 0xfffff, 0x98, 0xc));
    gdt_set(READ_ONLY, descriptor(0, 0xfffff, 0x90, 0xc));
    gdt_set(SMALL, descriptor(0, 0xff, 0x9a, 4));
    gdt_set(LDT2, descriptor((word)ldt2, sizeof(ldt2) - 1, 0x82, 0));
    gdt_set(ABSENT_LDT, descriptor((word)ldt2, sizeof(ldt2) - 1, 0x02, 0));
    first->cr3 = cr3();
    first->ldt = 0;
}

static void task_gate(unsigned vector, unsigned selector, unsigned access)
{
    idt_gate(vector, selector, 0, access, 0);
}

/* So that a fault in task 2's context is seen whatever state that is in. */
static void faults_to_three(void)
{
    task_gate(V_TS, T3, 0x85);
    task_gate(V_NP, T3, 0x85);
    task_gate(V_SS, T3, 0x85);
    task_gate(V_GP, T3, 0x85);
    task_gate(V_DF, T3, 0x85);
}

static __attribute__((noinline)) struct code arrival(void)
{
    return CODE("str ax\n mov edx, cr0");
}

static void check_at(const char *name, const char *topic, const struct cpu *c, struct code code)
{
    check_event(name, topic, c, V_DONE, NO_ERROR, code.end);
}

/* ---- what is saved and loaded ---- */

static void jump(void)
{
    struct cpu c = kernel(CODE("clts\n ljmp 0xa0, 0x1234"));

    tasks(arrival());
    two.ecx = 0xc2c2c2c2;
    two.ebx = 0xb2b2b2b2;
    two.ebp = 0x52525252;
    two.esi = 0x62626262;
    two.edi = 0x72727272;
    two.eflags = 2 | FL_CF | FL_DF | FL_AC;
    two.es = S_UDATA;
    two.fs = 0;
    two.gs = S_DATA_2;
    two.link = 0x5555;
    first->link = 0x6666;
    first->cr3 = 0x77777000;
    c.ax = 0xa1a1a1a1;
    c.cx = 0xc1c1c1c1;
    c.dx = 0xd1d1d1d1;
    c.bx = 0xb1b1b1b1;
    c.bp = 0x51515151;
    c.si = 0x61616161;
    c.di = 0x71717171;
    c.gs = S_DATA_1;
    c.flags = 2 | FL_ZF | FL_AC;
    run(&c);
    check_at("jmp.arrives", SWITCH, &c, arrival());
    check("jmp.tr", SWITCH, c.ax & 0xffff, T2);
    check("jmp.ts", SWITCH, c.dx & CR0_TS, CR0_TS);
    check("jmp.ecx", SWITCH, c.cx, 0xc2c2c2c2);
    check("jmp.ebx", SWITCH, c.bx, 0xb2b2b2b2);
    check("jmp.ebp", SWITCH, c.bp, 0x52525252);
    check("jmp.esi", SWITCH, c.si, 0x62626262);
    check("jmp.edi", SWITCH, c.di, 0x72727272);
    check("jmp.esp", SWITCH, c.sp, (word)(stack2 + sizeof(stack2)));
    check("jmp.eflags", SWITCH, c.flags, 2 | FL_CF | FL_DF | FL_AC);
    check("jmp.es", SWITCH, c.es, S_UDATA);
    check("jmp.fs", SWITCH, c.fs, 0);
    check("jmp.gs", SWITCH, c.gs, S_DATA_2);
    check("jmp.saves-eip", SWITCH, first->eip, c.code.end - 2);
    check("jmp.saves-eflags", SWITCH, first->eflags, 2 | FL_ZF | FL_AC);
    check("jmp.saves-eax", SWITCH, first->eax, 0xa1a1a1a1);
    check("jmp.saves-ecx", SWITCH, first->ecx, 0xc1c1c1c1);
    check("jmp.saves-edx", SWITCH, first->edx, 0xd1d1d1d1);
    check("jmp.saves-ebx", SWITCH, first->ebx, 0xb1b1b1b1);
    check("jmp.saves-esp", SWITCH, first->esp, (word)fragment_stack_top);
    check("jmp.saves-ebp", SWITCH, first->ebp, 0x51515151);
    check("jmp.saves-esi", SWITCH, first->esi, 0x61616161);
    check("jmp.saves-edi", SWITCH, first->edi, 0x71717171);
    check("jmp.saves-cs", SWITCH, first->cs & 0xffff, S_CODE);
    check("jmp.saves-ss", SWITCH, first->ss & 0xffff, S_DATA);
    check("jmp.saves-ds", SWITCH, first->ds & 0xffff, S_UDATA);
    check("jmp.saves-gs", SWITCH, first->gs & 0xffff, S_DATA_1);
    check("jmp.keeps-old-cr3-field", SWITCH, first->cr3, 0x77777000);
    check("jmp.keeps-old-link", LINKING, first->link, 0x6666);
    check("jmp.keeps-new-link", LINKING, two.link, 0x5555);
    check("jmp.old-not-busy", LINKING, access_of(S_TSS), 0x89);
    check("jmp.new-busy", LINKING, access_of(T2), 0x8b);
    check("jmp.marks-accessed", SWITCH, access_of(S_DATA_2) & 1, 1);
    tasks(arrival());
    c = kernel(CODE("mov eax, 0x155\n mov dr7, eax\n ljmp 0xa0, 0"));
    run(&c);
    check("jmp.dr7-local", "SDM Vol.3, debug control register", dr7() & 0x55, 0);
    set_dr(7, 0x400);
    /* NT of the new task is its own, and a task switch leaves the link alone */
    tasks(arrival());
    two.eflags = 2 | FL_NT;
    c = kernel(CODE("ljmp 0xa0, 0"));
    run(&c);
    check("jmp.nt-from-tss", LINKING, c.flags & FL_NT, FL_NT);
    tasks(arrival());
    c = kernel(CODE("ljmp 0xb0, 0"));
    run(&c);
    check_at("jmp.task-gate", GATES, &c, arrival());
    tasks(arrival());
    two.eip = SMALL;
    two.cs = SMALL;
    faults_to_three();
    c = kernel(CODE("ljmp 0xa0, 0"));
    two.eip = 0x100;
    run(&c);
    check("jmp.eip-beyond-limit", CHECKS, three.link << 16 | two.eip, T2 << 16 | 0x100);
    check("jmp.eip-beyond-limit-error", CHECKS, *(volatile uint32_t *)c.sp, 0);
}

static void call(void)
{
    struct cpu c = kernel(CODE("lcall 0xa0, 0"));

    tasks(arrival());
    run(&c);
    check_at("call.arrives", LINKING, &c, arrival());
    check("call.nt", LINKING, c.flags, 2 | FL_NT);
    check("call.link", LINKING, two.link & 0xffff, S_TSS);
    check("call.old-busy", LINKING, access_of(S_TSS), 0x8b);
    check("call.new-busy", LINKING, access_of(T2), 0x8b);
    check("call.saves-eip", LINKING, first->eip, c.code.end - 2);
    check("call.saved-nt-clear", LINKING, first->eflags & FL_NT, 0);
    /* and back */
    tasks(CODE("mov ebp, 7\n clts\n iretd\n mov ebp, 9"));
    two.ebx = 0x1111;
    c = kernel(CODE("clts\n lcall 0xa0, 0\n str ax\n mov edx, cr0"));
    c.cx = 0xc1c1;
    c.bx = 0xb1b1;
    c.flags |= FL_CF;
    run(&c);
    check_done("call.iret", LINKING, &c);
    check("call.iret-tr", LINKING, c.ax & 0xffff, S_TSS);
    check("call.iret-ts", SWITCH, c.dx & CR0_TS, CR0_TS);
    check("call.iret-ecx", LINKING, c.cx, 0xc1c1);
    check("call.iret-ebx", LINKING, c.bx, 0xb1b1);
    check("call.iret-eflags", LINKING, c.flags, 2 | FL_CF);
    check("call.iret-not-busy", LINKING, access_of(T2), 0x89);
    check("call.iret-old-busy", LINKING, access_of(S_TSS), 0x8b);
    check("call.iret-saves-ebp", LINKING, two.ebp, 7);
    check("call.iret-saves-nt-clear", LINKING, two.eflags & FL_NT, 0);
    check("call.iret-keeps-link", LINKING, two.link & 0xffff, S_TSS);
    /* the next call goes on behind that IRET */
    c.ip = c.code.start;
    run(&c);
    check("call.again", LINKING, c.vector == V_DONE ? c.bp : 0xbad, 9);
    /* through a gate, with an outer caller; the TSS's own DPL does not count */
    tasks(CODE("iretd"));
    gdt_set(GATE, (uint64_t)T2 << 16 | 0xe500ull << 32);
    c = user(UCODE("lcall 0xb3, 0x5678\n nop"));
    run_done("call.gate-cpl3", GATES, &c);
    check("call.gate-cpl3-level", GATES, c.cs, S_UCODE32);
    /* an event in between returns by its frame, not by the link: NT is clear there */
    tasks(CODE("int 0x82\n iretd"));
    idt_gate(0x82, S_CODE, CODE("mov esi, 5\n pushfd\n pop edi\n iretd").start, 0x8e, 0);
    c = kernel(CODE("lcall 0xa0, 0"));
    run_done("call.event-inside", LINKING, &c);
    check("call.event-inside-nt", LINKING, two.edi & FL_NT, 0);
    check("call.event-inside-ran", LINKING, two.esi, 5);
}

static void nested(void)
{
    struct cpu c;

    tasks(CODE("1: lcall 0xa8, 0\n inc ebx\n iretd\n jmp 1b"));
    make_task(&three, CODE("1: inc ecx\n mov edx, cr0\n iretd\n jmp 1b"),
              (word)(stack3 + sizeof(stack3)));
    c = kernel(CODE("lcall 0xa0, 0\n lcall 0xa0, 0\n lcall 0xa0, 0"));
    run_done("nested.three", LINKING, &c);
    check("nested.second", LINKING, two.ebx, 3);
    check("nested.third", LINKING, three.ecx, 3);
    check("nested.link", LINKING, three.link & 0xffff, T2);
    check("nested.all-free", LINKING, access_of(T2) << 8 | access_of(T3), 0x8989);
    /* a task that is in the chain cannot be called or jumped to */
    tasks(CODE("lcall 0x80, 0"));
    c = kernel(CODE("lcall 0xa0, 0"));
    run(&c);
    check_event("nested.call-into-chain", LINKING, &c, V_GP, S_TSS, two.eip);
    check("nested.call-into-chain-from", LINKING, first->eip, c.code.end - 2);
    tasks(CODE("lcall 0xa0, 0"));
    c = kernel(CODE("lcall 0xa0, 0"));
    run(&c);
    check("nested.call-itself", LINKING, c.vector << 16 | c.error, V_GP << 16 | T2);
    /* JMP out of a nested task leaves the caller waiting */
    tasks(CODE("ljmp 0xa8, 0"));
    c = kernel(CODE("lcall 0xa0, 0"));
    run(&c);
    check("nested.jmp-out", LINKING, access_of(S_TSS) << 16 | access_of(T2) << 8 | access_of(T3),
          0x8b898b);
    check("nested.jmp-out-nt", LINKING, c.flags & FL_NT, 0);
}

/* ---- events through task gates ---- */

static void events(void)
{
    struct cpu c;

    tasks(arrival());
    task_gate(VECTOR, T2, 0x85);
    c = kernel(CODE("int 0x81\n nop"));
    run(&c);
    check_at("int.arrives", GATES, &c, arrival());
    check("int.nt", LINKING, c.flags, 2 | FL_NT);
    check("int.link", LINKING, two.link & 0xffff, S_TSS);
    check("int.saves-eip", SWITCH, first->eip, c.code.start + 2);
    check("int.no-error-code", SWITCH, c.sp, (word)(stack2 + sizeof(stack2)));
    tasks(CODE("iretd"));
    task_gate(VECTOR, T2, 0xe5);
    c = user(UCODE("int 0x81\n nop"));
    c.flags |= FL_CF | FL_IF;
    run_done("int.cpl3-and-back", GATES, &c);
    check("int.cpl3-flags", GATES, c.flags, 2 | FL_CF | FL_IF);
    tasks(arrival());
    task_gate(VECTOR, T2, 0x85);
    c = user(UCODE("int 0x81\n nop"));
    run_fault("int.gate-dpl", GATES, &c, V_GP, 8 * VECTOR + 2);
    tasks(arrival());
    task_gate(V_UD, T2, 0x85);
    c = user(UCODE("ud2"));
    run(&c);
    check_at("exception.arrives", GATES, &c, arrival());
    check("exception.saves-eip", SWITCH, first->eip, c.code.mark);
    check("exception.saves-rf", SWITCH, first->eflags & FL_RF, FL_RF);
    check("exception.saves-cs", SWITCH, first->cs & 0xffff, S_UCODE32);
    tasks(arrival());
    task_gate(V_GP, T2, 0x85);
    c = user(UCODE("mov fs, eax"));
    c.ax = S_FREE | 3;
    run(&c);
    check_at("exception-code.arrives", SWITCH, &c, arrival());
    check("exception-code.sp", SWITCH, c.sp, (word)(stack2 + sizeof(stack2)) - 4);
    check("exception-code.value", SWITCH, *(volatile uint32_t *)c.sp, S_FREE);
    c = user(UCODE("mov fs, eax\n nop"));
    c.ax = S_FREE | 3;
    tasks(CODE("add esp, 4\n add dword ptr [edi], 2\n iretd"));
    two.edi = (word)&first->eip;
    task_gate(V_GP, T2, 0x85);
    run_done("exception-code.and-back", SWITCH, &c);
    /* a breakpoint is a trap */
    tasks(CODE("iretd"));
    task_gate(V_BP, T2, 0xe5);
    c = user(UCODE("int3\n mov ecx, 3"));
    run_done("int3.and-back", GATES, &c);
    check("int3.goes-on", GATES, c.cx, 3);
    check("int3.no-rf", SWITCH, first->eflags & FL_RF, 0);
    /* #DF by a task gate: here the fault's own handler cannot be reached */
    tasks(arrival());
    task_gate(V_DF, T2, 0x85);
    idt_gate(V_GP, 0, 0, 0x0e, 0);
    c = kernel(CODE("mov fs, eax"));
    c.ax = OUTSIDE;
    run(&c);
    check_at("double-fault.arrives", GATES, &c, arrival());
    check("double-fault.code", GATES, *(volatile uint32_t *)c.sp, 0);
}

/* ---- refused in the old task ---- */

struct refusal {
    const char *name;
    unsigned tss_access, limit, gate_access, gate_target; /* gate_access 0: without a gate */
    int vector;
    unsigned error;
};

static const struct refusal refusals[] = {
    {"busy", 0x8b, 103, 0, 0, V_GP, T2},
    {"absent", 0x09, 103, 0, 0, V_NP, T2},
    {"absent-busy", 0x0b, 103, 0, 0, V_GP, T2},
    {"short", 0x89, 102, 0, 0, V_TS, T2},
    {"gate-absent", 0x89, 103, 0x05, T2, V_NP, GATE},
    {"gate-to-busy", 0x8b, 103, 0x85, T2, V_GP, T2},
    {"gate-to-absent", 0x09, 103, 0x85, T2, V_NP, T2},
    {"gate-to-short", 0x89, 102, 0x85, T2, V_TS, T2},
    {"gate-to-null", 0x89, 103, 0x85, 0, V_GP, 0},
    {"gate-to-ldt", 0x89, 103, 0x85, T2 | 4, V_GP, T2 | 4},
    {"gate-to-outside", 0x89, 103, 0x85, OUTSIDE, V_GP, OUTSIDE},
    {"gate-to-data", 0x89, 103, 0x85, S_DATA, V_GP, S_DATA},
    {"gate-to-gate", 0x89, 103, 0x85, GATE, V_GP, GATE},
    {"gate-target-rpl", 0x8b, 103, 0x85, T2 | 3, V_GP, T2},
};

static void refused(void)
{
    struct cpu c;

    for (unsigned i = 0; i < 2 * sizeof(refusals) / sizeof(refusals[0]); i++) {
        const struct refusal *r = &refusals[i / 2];
        const char *how = i & 1 ? "call-refused." : "jmp-refused.";

        tasks(arrival());
        c = kernel(i & 1 ? CODE("call fword ptr [edi]") : CODE("jmp fword ptr [edi]"));
        gdt_set(T2, descriptor((word)&two, r->limit, r->tss_access, 0));
        if (r->gate_access != 0)
            gdt_set(GATE, r->gate_target << 16 | (uint64_t)r->gate_access << 40);
        {
            static uint16_t pointer[3];

            pointer[2] = r->gate_access != 0 ? GATE : T2;
            c.di = (word)pointer;
        }
        first->eip = 0x5555;
        run(&c);
        check_fault(joined(how, r->name, ""), CHECKS, &c, r->vector, r->error);
        check(joined(how, r->name, "-nothing-saved"), CHECKS, first->eip, 0x5555);
        check(joined(how, r->name, "-access"), CHECKS, access_of(T2) << 8 | access_of(S_TSS),
              r->tss_access << 8 | 0x8b);
    }
    for (unsigned i = 0; i < 2 * sizeof(refusals) / sizeof(refusals[0]); i++) {
        const struct refusal *r = &refusals[i / 2];
        bool ext = i & 1;
        const char *how = ext ? "exception-refused." : "int-refused.";

        if (r->gate_access == 0)
            continue;
        tasks(arrival());
        c = kernel(ext ? CODE("ud2") : CODE("int 0x81"));
        gdt_set(T2, descriptor((word)&two, r->limit, r->tss_access, 0));
        gdt_set(GATE, (uint64_t)T2 << 16 | 0x8500ull << 32);
        task_gate(ext ? V_UD : VECTOR, r->gate_target, r->gate_access);
        run(&c);
        check_fault(joined(how, r->name, ""), CHECKS, &c, r->vector,
                    (r->error == GATE && r->gate_target == T2
                         ? 8u * (ext ? (unsigned)V_UD : VECTOR) + 2
                         : r->error) |
                        ext);
    }
    tasks(arrival());
    c = user(UCODE("ljmp 0xa0, 0"));
    run_fault("jmp-refused.dpl", CHECKS, &c, V_GP, T2);
    c = user(UCODE("lcall 0xb0, 0"));
    run_fault("call-refused.gate-dpl", CHECKS, &c, V_GP, GATE);
    c = kernel(CODE("ljmp 0xa3, 0"));
    run_fault("jmp-refused.rpl", CHECKS, &c, V_GP, T2);
    c = kernel(CODE("ljmp 0xb3, 0"));
    run_fault("jmp-refused.gate-rpl", CHECKS, &c, V_GP, GATE);
    gdt_set(T2, descriptor((word)&two, 103, 0xe9, 0));
    c = user(UCODE("lcall 0xa0, 0"));
    run(&c);
    check_at("call.tss-dpl3", CHECKS, &c, arrival());
}

/* IRET with NT: the back link. */
static void iret_refused(void)
{
    static const struct {
        const char *name;
        unsigned link, access, limit;
        int vector;
        unsigned error;
    } rows[] = {
        {"not-busy", T2, 0x89, 103, V_TS, T2},       {"data", S_DATA, 0x8b, 103, V_TS, S_DATA},
        {"gate", GATE, 0x8b, 103, V_TS, GATE},       {"null", 0, 0x8b, 103, V_TS, 0},
        {"in-ldt", T2 | 4, 0x8b, 103, V_TS, T2 | 4}, {"outside", OUTSIDE, 0x8b, 103, V_TS, OUTSIDE},
        {"absent", T2, 0x0b, 103, V_NP, T2},         {"absent-not-busy", T2, 0x09, 103, V_TS, T2},
        {"short", T2, 0x8b, 102, V_TS, T2},
    };
    struct cpu c;

    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        tasks(arrival());
        gdt_set(T2, descriptor((word)&two, rows[i].limit, rows[i].access, 0));
        first->link = rows[i].link;
        c = kernel(CODE("pushfd\n or dword ptr [esp], 0x4000\n popfd\n 9: iretd"));
        run(&c);
        check_fault(joined("iret-refused.", rows[i].name, ""), CHECKS, &c, rows[i].vector,
                    rows[i].error);
        check(joined("iret-refused.", rows[i].name, "-busy"), CHECKS, access_of(S_TSS), 0x8b);
    }
    tasks(arrival());
    gdt_set(T2, descriptor((word)&two, 103, 0x8b, 0));
    first->link = 0xabcd0000 | T2;
    c = user(UCODE("pushfd\n or dword ptr [esp], 0x4000\n popfd\n iretd"));
    run(&c);
    check_at("iret.nt-cpl3", LINKING, &c, arrival());
    check("iret.nt-clear-in-old", LINKING, first->eflags & FL_NT, 0);
    check("iret.nt-old-free", LINKING, access_of(S_TSS) << 8 | access_of(T2), 0x898b);
    tasks(arrival());
    gdt_set(T2, descriptor((word)&two, 103, 0x8b, 0));
    first->link = T2;
    c = kernel(CODE("pushfd\n or dword ptr [esp], 0x4000\n popfd\n .byte 0x66, 0xcf"));
    run(&c);
    check_at("iret.nt-16-bit", LINKING, &c, arrival());
}

/* ---- refused in the new task ---- */

struct segment {
    const char *name;
    unsigned cs, ss, ds, ldt; /* 0: as usual; NULLED: null */
    int vector;
    unsigned error;
};
#define NULLED 0x10000

static const struct segment segments[] = {
    {"cs-null", NULLED, 0, 0, 0, V_TS, 0},
    {"cs-data", S_DATA, 0, 0, 0, V_TS, S_DATA},
    {"cs-system", T3, 0, 0, 0, V_TS, T3},
    {"cs-outside", OUTSIDE, 0, 0, 0, V_TS, OUTSIDE},
    {"cs-absent", ABSENT_CODE, 0, 0, 0, V_NP, ABSENT_CODE},
    {"cs-rpl-not-dpl", S_CODE | 3, S_UDATA, 0, 0, V_TS, S_CODE},
    {"cs-dpl-not-rpl", CODE3, 0, 0, 0, V_TS, CODE3},
    {"cs-conforming-dpl3", CONF3, 0, 0, 0, V_TS, CONF3},
    {"cs-no-ldt", 8 | 4, 0, 0, 0, V_TS, 8 | 4},
    {"ss-null", 0, NULLED, 0, 0, V_TS, 0},
    {"ss-code", 0, S_CODE, 0, 0, V_TS, S_CODE},
    {"ss-read-only", 0, READ_ONLY, 0, 0, V_TS, READ_ONLY},
    {"ss-system", 0, T3, 0, 0, V_TS, T3},
    {"ss-outside", 0, OUTSIDE, 0, 0, V_TS, OUTSIDE},
    {"ss-dpl", 0, S_UDATA & ~3, 0, 0, V_TS, S_UDATA & ~3},
    {"ss-rpl", 0, S_DATA | 3, 0, 0, V_TS, S_DATA},
    {"ss-absent", 0, ABSENT, 0, 0, V_SS, ABSENT},
    {"ds-outside", 0, 0, OUTSIDE, 0, V_TS, OUTSIDE},
    {"ds-system", 0, 0, T3, 0, V_TS, T3},
    {"ds-execute-only", 0, 0, EXECUTE, 0, V_TS, EXECUTE},
    {"ds-rpl", 0, 0, S_DATA | 3, 0, V_TS, S_DATA},
    {"ds-absent", 0, 0, ABSENT, 0, V_NP, ABSENT},
    {"ds-dpl", S_UCODE32, S_UDATA, S_DATA, 0, V_TS, S_DATA},
    {"ds-no-ldt", 0, 0, 8 | 4, 0, V_TS, 8 | 4},
    {"ldt-data", 0, 0, 0, S_DATA, V_TS, S_DATA},
    {"ldt-tss", 0, 0, 0, T3, V_TS, T3},
    {"ldt-absent", 0, 0, 0, ABSENT_LDT, V_TS, ABSENT_LDT},
    {"ldt-in-ldt", 0, 0, 0, 8 | 4, V_TS, 8 | 4},
    {"ldt-outside", 0, 0, 0, OUTSIDE, V_TS, OUTSIDE},
};

static void set_segments(const struct segment *s)
{
    if (s->cs != 0)
        two.cs = s->cs & 0xffff;
    if (s->ss != 0)
        two.ss = s->ss & 0xffff;
    if (s->cs == S_UCODE32 || (s->cs & 3) == 3)
        two.es = two.ds = two.fs = two.gs = S_UDATA;
    if (s->ds != 0)
        two.ds = s->ds;
    two.ldt = s->ldt;
}

static void new_task_faults(void)
{
    for (unsigned i = 0; i < sizeof(segments) / sizeof(segments[0]); i++) {
        const struct segment *s = &segments[i];
        struct cpu c = kernel(CODE("ljmp 0xa0, 0"));

        tasks(arrival());
        faults_to_three();
        set_segments(s);
        run(&c);
        check(joined("new-task.", s->name, ""), CHECKS,
              c.vector == V_DONE ? *(volatile uint32_t *)c.sp : 0xbad, s->error);
        check(joined("new-task.", s->name, "-in-new"), CHECKS, three.link & 0xffff, T2);
        check(joined("new-task.", s->name, "-eip"), CHECKS, two.eip, arrival().start);
        check(joined("new-task.", s->name, "-old-saved"), CHECKS, first->eip, c.code.end - 2);
        /* which exception it is */
        tasks(arrival());
        faults_to_three();
        task_gate((unsigned)s->vector, T3, 0x85);
        for (unsigned v = V_TS; v <= V_GP; v++) {
            if (v != (unsigned)s->vector)
                task_gate(v, T2, 0x85); /* busy: leads to #DF, whose code is 0 */
        }
        set_segments(s);
        c = kernel(CODE("ljmp 0xa0, 0"));
        run(&c);
        check(joined("new-task.", s->name, "-vector"), CHECKS, *(volatile uint32_t *)c.sp,
              s->error);
    }
}

/* The EXT bit where an exception begins the switch. */
static void new_task_ext(void)
{
    struct cpu c;

    tasks(arrival());
    faults_to_three();
    task_gate(V_UD, T2, 0x85);
    two.ds = OUTSIDE;
    c = kernel(CODE("ud2"));
    run(&c);
    check("new-task.ext", "SDM Vol.3, error code", *(volatile uint32_t *)c.sp, OUTSIDE | 1);
    tasks(arrival());
    faults_to_three();
    task_gate(VECTOR, T2, 0x85);
    two.ds = OUTSIDE;
    c = kernel(CODE("int 0x81"));
    run(&c);
    check("new-task.int-without-ext", "SDM Vol.3, error code", *(volatile uint32_t *)c.sp, OUTSIDE);
}

static void levels(void)
{
    struct cpu c = kernel(CODE("ljmp 0xa0, 0"));

    tasks(UCODE("mov eax, cs"));
    two.cs = S_UCODE32;
    two.ss = two.ds = two.es = two.fs = two.gs = S_UDATA;
    two.esp = (word)user_stack_top;
    run(&c);
    check("level.cpl3", SWITCH, c.vector == V_DONE ? c.ax : 0xbad, S_UCODE32);
    check("level.cpl3-inner-stack", SWITCH, c.frame, (word)(inner + sizeof(inner)) - 20);
    tasks(UCODE("mov eax, cs"));
    two.cs = CONF0 | 3;
    two.ss = two.ds = two.es = two.fs = two.gs = S_UDATA;
    two.esp = (word)user_stack_top;
    c = kernel(CODE("ljmp 0xa0, 0"));
    run(&c);
    check("level.conforming-rpl3", SWITCH, c.vector == V_DONE ? c.ax : 0xbad, CONF0 | 3);
    /* from CPL 3 into a task at CPL 0 and back */
    tasks(CODE("mov eax, cr0\n iretd"));
    gdt_set(GATE, (uint64_t)T2 << 16 | 0xe500ull << 32);
    c = user(UCODE("lcall 0xb0, 0\n mov ecx, 1"));
    run_done("level.inner-and-back", SWITCH, &c);
    /* the new TSS's bitmap and level 0 stack count */
    tasks(UCODE("in al, dx"));
    two.cs = S_UCODE32;
    two.ss = two.ds = two.es = two.fs = two.gs = S_UDATA;
    two.esp = (word)user_stack_top;
    two.edx = 0x9000;
    tss[104 + 0x9000 / 8] = 0;
    c = kernel(CODE("ljmp 0xa0, 0"));
    run(&c);
    check("level.new-bitmap", SWITCH, c.vector, V_GP);
}

static void ldts(void)
{
    struct cpu c = kernel(CODE("ljmp 0xa0, 0"));

    tasks(CODE("sldt eax\n mov ecx, [0x10]"));
    ldt2[1] = descriptor((word)ldt2, 0xfff, 0x92, 4);
    ldt2[2] = 0x1234567812345678;
    two.ds = 8 | 4;
    two.ldt = LDT2;
    run(&c);
    check("ldt.loads", SWITCH, c.vector == V_DONE ? c.ax & 0xffff : 0xbad, LDT2);
    check("ldt.segment-in-it", SWITCH, c.cx, 0x12345678);
    check("ldt.accessed", SWITCH, ldt2[1] >> 40 & 1, 1);
    tasks(CODE("sldt eax"));
    c = kernel(CODE("mov eax, 0x100\n lldt ax\n ljmp 0xa0, 0"));
    run(&c);
    check("ldt.null", SWITCH, c.vector == V_DONE ? c.ax & 0xffff : 0xbad, 0);
    check("ldt.not-saved", SWITCH, first->ldt & 0xffff, 0);
    c = kernel(CODE("xor eax, eax\n lldt ax"));
    run(&c);
}

static uint32_t other_directory[1024] __attribute__((aligned(4096)));
static uint32_t other_table[1024] __attribute__((aligned(4096)));

static void directories(void)
{
    struct cpu c = kernel(CODE("mov eax, [0x40000000]\n lcall 0xa0, 0\n mov edx, [0x40000000]\n"
                               "mov ebx, cr3"));
    word mine;

    paging(PAGING_32);
    mine = cr3();
    tasks(CODE("mov ecx, [0x40000000]\n mov ebx, cr3\n iretd"));
    for (unsigned i = 0; i < 1024; i++)
        other_directory[i] = ((uint32_t *)mine)[i];
    other_table[0] = (word)test_frame[1] | 7;
    other_directory[TEST_VA >> 22] = (word)other_table | 7;
    *(volatile uint32_t *)test_frame[0] = 0x1111;
    *(volatile uint32_t *)test_frame[1] = 0x2222;
    two.cr3 = (word)other_directory;
    run(&c);
    check_done("cr3.and-back", SWITCH, &c);
    check("cr3.old-map", SWITCH, c.ax, 0x1111);
    check("cr3.new-map", SWITCH, two.ecx, 0x2222);
    check("cr3.new-cr3", SWITCH, two.ebx, (word)other_directory);
    check("cr3.old-map-again", SWITCH, c.dx, 0x1111);
    check("cr3.old-cr3-again", SWITCH, c.bx, mine);
    check("cr3.not-saved", SWITCH, two.cr3, (word)other_directory);
    /* the new TSS must be there before anything changes */
    paging(PAGING_32);
    tasks(arrival());
    test_pte32[0] = 0;
    flush_tlb();
    gdt_set(T2, descriptor(TEST_VA, 103, 0x89, 0));
    first->eip = 0x5555;
    c = kernel(CODE("ljmp 0xa0, 0"));
    run(&c);
    check("cr3.tss-absent", CHECKS, c.vector << 16 | (c.error & ~2u), V_PF << 16);
    check("cr3.tss-absent-ip", CHECKS, c.ip, c.code.mark);
    check("cr3.tss-absent-nothing-saved", CHECKS, first->eip, 0x5555);
    paging(PAGING_OFF);
}

/* ---- the T flag ---- */

static void debug_trap(void)
{
    struct cpu c = kernel(CODE("ljmp 0xa0, 0"));

    tasks(arrival());
    two.trap = 1;
    set_dr(6, 0xffff0ff0);
    run(&c);
    check_event("trap.db", "SDM Vol.3, task-switch exception condition", &c, V_DB, NO_ERROR,
                arrival().start);
    check("trap.bt", "SDM Vol.3, task-switch exception condition", dr6() & 0xe00f, 0x8000);
    set_dr(6, 0xffff0ff0);
    tasks(CODE("iretd\n mov ecx, 3"));
    first->trap = 1;
    c = kernel(CODE("lcall 0xa0, 0\n nop"));
    run(&c);
    check_event("trap.db-by-iret", "SDM Vol.3, task-switch exception condition", &c, V_DB, NO_ERROR,
                c.code.start + 7);
    set_dr(6, 0xffff0ff0);
    first->trap = 0;
}

/* ---- 16-bit TSS ---- */

/* A 16-bit TSS says nothing about the upper half of ESP, which the runtime's handler uses. */
#define WHOLE_SP "movzx esp, sp\n"

static void make16(struct code code)
{
    gdt_set(BASED, descriptor(code.start, 0xffff, 0x9a, 4));
    gdt_set(BASED + 0x10, descriptor(0, 0xffff, 0x92, 0));
    sixteen = (struct tss16){.flags = 2,
                             .sp = 0xf000,
                             .ax = 0x1234,
                             .di = 0x5678,
                             .es = S_DATA,
                             .cs = BASED,
                             .ss = BASED + 0x10,
                             .ds = S_DATA,
                             .beyond = {0xbeef, 0xbeef, 0xbeef, 0xbeef}};
    gdt_set(T2, descriptor((word)&sixteen, 43, 0x81, 0));
}

static void tss16(void)
{
    struct cpu c = kernel(CODE("ljmp 0xa0, 0"));
    struct code code = CODE(WHOLE_SP "mov cl, 1");

    tasks(code);
    make16(code);
    sixteen.flags = 2 | FL_CF | FL_DF;
    run(&c);
    check_event("tss16.jmp", TSS16, &c, V_DONE, NO_ERROR, code.end - code.start);
    check("tss16.ax", TSS16, c.ax & 0xffff, 0x1234);
    check("tss16.di", TSS16, c.di & 0xffff, 0x5678);
    check("tss16.sp", TSS16, c.sp & 0xffff, 0xf000);
    check("tss16.flags", TSS16, c.flags & 0xffff, 2 | FL_CF | FL_DF);
    check("tss16.ds", TSS16, c.ds, S_DATA);
    check("tss16.busy", TSS16, access_of(T2), 0x83);
    check("tss16.old-free", TSS16, access_of(S_TSS), 0x89);
    check("tss16.saves-old-32", TSS16, first->eip, c.code.end - 2);
    /* there and back */
    tasks(code);
    code = CODE(WHOLE_SP "mov eax, 0x55556666\n iretd\n mov cl, 7\n iretd");
    make16(code);
    c = kernel(CODE("lcall 0xa0, 0"));
    c.bx = 0xb1b1b1b1;
    run_done("tss16.call-and-back", TSS16, &c);
    check("tss16.back-ebx", TSS16, c.bx, 0xb1b1b1b1);
    check("tss16.saved-ax", TSS16, sixteen.ax, 0x6666);
    check("tss16.saved-ip", TSS16, sixteen.ip, 9);
    check("tss16.saved-flags", TSS16, sixteen.flags, 2);
    check("tss16.saved-cs", TSS16, sixteen.cs, BASED);
    check("tss16.link", TSS16, sixteen.link, S_TSS);
    check("tss16.beyond", TSS16, sixteen.ldt << 16 | sixteen.beyond[0], 0xbeef);
    check("tss16.free-again", TSS16, access_of(T2), 0x81);
    /* a 16-bit task calls a 32-bit one */
    tasks(code);
    code = CODE(WHOLE_SP "lcall 0xa8, 0\n iretd");
    make16(code);
    make_task(&three, CODE("mov ecx, [edi]\n iretd"), (word)(stack3 + sizeof(stack3)));
    three.edi = (word)&sixteen.ip;
    c = kernel(CODE("lcall 0xa0, 0"));
    run_done("tss16.calls-32", TSS16, &c);
    check("tss16.calls-32-saved-ip", TSS16, three.ecx & 0xffff, 10);
    check("tss16.calls-32-link", TSS16, three.link & 0xffff, T2);
    /* an error code is pushed as 16 bits */
    tasks(code);
    code = CODE(WHOLE_SP "nop");
    make16(code);
    task_gate(V_GP, T2, 0x85);
    c = kernel(CODE("mov fs, eax"));
    c.ax = OUTSIDE;
    run(&c);
    check_event("tss16.error-arrives", TSS16, &c, V_DONE, NO_ERROR, code.end - code.start);
    check("tss16.error-sp", TSS16, c.sp & 0xffff, 0xf000 - 2);
    check("tss16.error-code", TSS16, *(volatile uint16_t *)(c.sp & 0xffff), OUTSIDE);
    tasks(code);
    make16(code);
    gdt_set(T2, descriptor((word)&sixteen, 42, 0x81, 0));
    c = kernel(CODE("ljmp 0xa0, 0"));
    run_fault("tss16.short", CHECKS, &c, V_TS, T2);
    tasks(code);
    make16(code);
    gdt_set(T2, descriptor((word)&sixteen, 43, 0x83, 0));
    c = kernel(CODE("ljmp 0xa0, 0"));
    run_fault("tss16.refuses-busy", CHECKS, &c, V_GP, T2);
}

/* ---- virtual-8086 tasks ---- */

static void virtual(void)
{
    struct cpu low = vm86(CODE16("mov ax, cs\n mov bx, ds\n ud2\n mov cx, 0x4321\n ud2"), 3);
    struct cpu c = kernel(CODE("ljmp 0xa0, 0"));

    for (unsigned i = 0; i < 2; i++) {
        tasks(arrival());
        two.eip = 0;
        two.eflags = 2 | FL_VM;
        two.esp = 0xf000;
        two.cs = two.ss = LOW_CODE >> 4;
        two.ds = 0x1234;
        two.es = two.fs = two.gs = 3; /* no selectors here */
        if (i == 1)
            break;
        run(&c);
        check_event("vm86-task.runs", SWITCH, &c, V_UD, NO_ERROR, 4);
        check("vm86-task.cs", SWITCH, c.ax & 0xffff, LOW_CODE >> 4);
        check("vm86-task.ds", SWITCH, c.bx & 0xffff, 0x1234);
        check("vm86-task.es", SWITCH, c.es, 3);
        check("vm86-task.flags", SWITCH, c.flags & FL_VM, FL_VM);
        check("vm86-task.stack", SWITCH, c.frame, (word)(inner + sizeof(inner)) - 36);
    }
    /* its #UD is a task, which lets it go on behind the instruction */
    make_task(&three,
              CODE("1: add word ptr [edi], 2\n inc ecx\n cmp ecx, 2\n je 2f\n iretd\n"
                   "jmp 1b\n 2: nop"),
              (word)(stack3 + sizeof(stack3)));
    three.edi = (word)&two.eip;
    task_gate(V_UD, T3, 0x85);
    c = kernel(CODE("ljmp 0xa0, 0"));
    run(&c);
    check("vm86-task.ud-twice", SWITCH, c.vector == V_DONE ? c.cx : 0xbad, 2);
    check("vm86-task.goes-on", SWITCH, two.ecx & 0xffff, 0x4321);
    check("vm86-task.saved-flags", SWITCH, two.eflags & FL_VM, FL_VM);
    check("vm86-task.saved-ds", SWITCH, two.ds & 0xffff, 0x1234);
    check("vm86-task.saved-eip", SWITCH, two.eip, 11);
    check("vm86-task.link", SWITCH, three.link & 0xffff, T2);
    (void)low;
    /* far jumps in virtual-8086 mode know no tasks */
    idt_reset();
    gdt_reset();
    low = vm86(CODE16("9: lldt ax"), 3);
    run_fault("vm86-task.lldt", SWITCH, &low, V_UD, NO_ERROR);
}

void test(void)
{
    struct cpu c = kernel(CODE("lldt ax"));

    run(&c);          /* after a reset the LDT is at 0, and large */
    outb(0x21, 0xff); /* some flags have IF */
    outb(0xa1, 0xff);
    jump();
    call();
    nested();
    events();
    refused();
    iret_refused();
    new_task_faults();
    new_task_ext();
    levels();
    ldts();
    directories();
    debug_trap();
    tss16();
    virtual();
    gdt_reset();
    idt_reset();
}
