/* Single steps, breakpoints, the debug registers, and what holds #DB back. */
#include "bare.h"

#define STEP "SDM Vol.3, single-step exception condition"
#define BREAK "SDM Vol.3, breakpoint exception conditions"
#define REGS "SDM Vol.3, debug registers"
#define SHADOW "SDM Vol.3, masking exceptions and interrupts when switching stacks"
#define RFT "SDM Vol.3, instruction-breakpoint exception condition"

#define DR6_CLEAR 0xffff0ff0ul
#define DR6_BS 0x4000ul
#define DR6_BD 0x2000ul
#define DR7_FIXED 0x400ul
#define ENABLE(n) (1ul << (2 * (n)))
#define KIND(n, rw, len) ((word)((rw) | (len) << 2) << (16 + 4 * (n)))
enum { RW_X, RW_W, RW_IO, RW_RW };
enum { LEN1, LEN2, LEN8, LEN4 };

static void clear(void)
{
    set_dr(7, DR7_FIXED);
    set_dr(6, DR6_CLEAR);
}

/* Runs, and reads and clears DR6 afterwards: what it says in ax is not needed any more. */
static word run_dr6(struct cpu *c)
{
    word v;

    run(c);
    v = dr6();
    set_dr(6, DR6_CLEAR);
    return v;
}

/* ---- single step ---- */

static void stepped(const char *name, struct code code)
{
    struct cpu c = kernel(code);

    c.flags |= FL_TF;
    c.cx = 2;
    c.di = c.si = (word)user_page[0];
    c.ax = S_DATA;
    clear();
    run(&c);
    check_fault(name, STEP, &c, V_DB, NO_ERROR);
}

static void steps(void)
{
    struct cpu c;
    unsigned n = 0;

    stepped("step.nop", CODE("nop\n 9: nop"));
    check("step.dr6", STEP, dr6(), DR6_CLEAR | DR6_BS);
    stepped("step.jump", CODE("jmp 9f\n nop\n 9: nop"));
    stepped("step.jump-not-taken", CODE("jc 1f\n 9: nop\n 1: nop"));
    stepped("step.call", CODE("call 9f\n nop\n 9: nop"));
    stepped("step.load", CODE("mov rax, [rdi]\n 9: nop"));
    stepped("step.pushf", CODE("pushfq\n 9: nop"));
    stepped("step.sti", CODE("sti\n 9: cli"));
    stepped("step.cpuid", CODE("cpuid\n 9: nop"));
    stepped("step.sgdt", CODE("sgdt [rdi]\n 9: nop"));
    stepped("step.mov-cr", CODE("mov rax, cr3\n 9: nop"));
    stepped("step.rdmsr", CODE("mov ecx, 0x277\n 9: rdmsr"));
    stepped("step.string-once", CODE("movsb\n 9: nop"));
    stepped("step.mov-ds", CODE("mov ds, eax\n 9: nop"));
    stepped("step.mov-ss-waits", CODE("mov ss, eax\n nop\n 9: nop"));
    c = kernel(CODE("pushfq\n pop rax\n nop"));
    c.flags |= FL_TF;
    run(&c);
    check("step.frame-has-tf", STEP, c.flags & FL_TF, FL_TF);
    check("step.no-rf", STEP, c.flags & FL_RF, 0);
    run(&c);
    check("step.pushf-pushes-tf", STEP, c.ax & FL_TF, FL_TF);
    /* POPF: the TF of before counts */
    c = kernel(CODE("pushfq\n or dword ptr [rsp], 0x100\n popfq\n inc eax\n 9: inc eax"));
    run(&c);
    check_fault("step.popf-sets", STEP, &c, V_DB, NO_ERROR);
    check("step.popf-sets-late", STEP, c.ax, 1);
    c = kernel(CODE("popfq\n 9: inc eax"));
    c.flags |= FL_TF;
    c.sp -= 8;
    *(volatile word *)c.sp = 2;
    run(&c);
    check_fault("step.popf-clears", STEP, &c, V_DB, NO_ERROR);
    check("step.popf-clears-frame", STEP, c.flags & FL_TF, 0);
    run_done("step.popf-cleared", STEP, &c);
    /* repeated strings: a trap for each iteration */
    c = kernel(CODE("rep movsb\n 9: nop"));
    c.flags |= FL_TF;
    c.cx = 3;
    c.di = (word)user_page[0];
    c.si = (word)user_page[1];
    run(&c);
    check_event("step.rep-iteration", STEP, &c, V_DB, NO_ERROR, c.code.start);
    check("step.rep-rcx", STEP, c.cx, 2);
    check("step.rep-rsi", STEP, c.si, (word)user_page[1] + 1);
    run(&c);
    check("step.rep-second", STEP, c.cx, 1);
    run(&c);
    check_fault("step.rep-last", STEP, &c, V_DB, NO_ERROR);
    check("step.rep-done", STEP, c.cx, 0);
    /* a loop takes as many steps as instructions */
    c = kernel(CODE("1: dec ecx\n jnz 1b"));
    c.cx = 5;
    c.flags |= FL_TF;
    for (run(&c); c.vector == V_DB && n < 100; run(&c))
        n++;
    check("step.count", STEP, n, skipping() ? 0 : 10);
    c = user(UCODE("nop\n 9: nop"));
    c.flags |= FL_TF;
    run_fault("step.user", STEP, &c, V_DB, NO_ERROR);
    c = kernel(CODE32("nop\n 9: nop"));
    c.cs = S_CODE32;
    c.flags |= FL_TF;
    run_fault("step.compat", STEP, &c, V_DB, NO_ERROR);
}

/* What ends in another event is not a step. */
static void not_steps(void)
{
    struct cpu c = kernel(CODE("ud2"));

    clear();
    c.flags |= FL_TF;
    check("step.fault-dr6", STEP, run_dr6(&c), DR6_CLEAR);
    check_fault("step.fault-first", STEP, &c, V_UD, NO_ERROR);
    c = kernel(CODE("int3\n 9: nop"));
    c.flags |= FL_TF;
    check("step.int3-dr6", STEP, run_dr6(&c), DR6_CLEAR);
    check_fault("step.int3", STEP, &c, V_BP, NO_ERROR);
    c = kernel(CODE("int 0x90\n 9: nop"));
    c.flags |= FL_TF;
    run_fault("step.int-n", STEP, &c, 0x90, NO_ERROR);
    check("step.int-n-frame", STEP, c.flags & FL_TF, FL_TF);
    c = kernel(CODE("mov rdi, 0x7000000000\n 9: mov al, [rdi]"));
    c.flags |= FL_TF;
    run(&c);
    run(&c);
    check_pf("step.page-fault-first", STEP, &c, 0, 0x7000000000);
    /* SYSCALL whose mask clears TF: nothing is stepped behind it */
    wrmsr(0xc0000080, rdmsr(0xc0000080) | 1);
    wrmsr(0xc0000081, (uint64_t)S_CODE << 32);
    c = kernel(CODE("syscall"));
    wrmsr(0xc0000082, CODE("mov ebx, 7").start);
    wrmsr(0xc0000084, FL_TF);
    c.flags |= FL_TF;
    require(intel(), "AMD does not say");
    run(&c);
    check("step.syscall-saves-tf", STEP, c.r11 & FL_TF, FL_TF);
    require_end();
    wrmsr(0xc0000084, 0);
    wrmsr(0xc0000080, rdmsr(0xc0000080) & ~1ull);
}

/* ---- breakpoints ---- */

static void at_instruction(void)
{
    struct cpu c = kernel(CODE("inc eax\n 9: inc eax\n inc eax"));

    clear();
    set_dr(0, c.code.mark);
    set_dr(7, DR7_FIXED | ENABLE(0));
    check("break.fetch-dr6", BREAK, run_dr6(&c), DR6_CLEAR | 1);
    check_fault("break.fetch", BREAK, &c, V_DB, NO_ERROR);
    check("break.fetch-is-a-fault", BREAK, c.ax, 1);
    check("break.fetch-frame-rf", RFT, c.flags & FL_RF, 0);
    c.flags |= FL_RF;
    run_done("break.rf-passes", RFT, &c);
    check("break.rf-ran", RFT, c.ax, 3);
    clear();
    c = kernel(CODE("9: dec ecx\n jnz 9b"));
    set_dr(3, c.code.mark);
    set_dr(7, DR7_FIXED | ENABLE(3));
    c.cx = 3;
    c.flags |= FL_RF;
    check("break.rf-once-dr6", RFT, run_dr6(&c), DR6_CLEAR | 8);
    check("break.rf-once", RFT, c.vector == V_DB ? c.cx : 0, 2);
    clear();
    c = kernel(CODE("9: .byte 0x66\n nop"));
    set_dr(1, c.code.start + 1);
    set_dr(7, DR7_FIXED | ENABLE(1));
    run_done("break.not-inside-instruction", BREAK, &c);
    c = user(UCODE("nop\n 9: nop"));
    set_dr(1, c.code.mark);
    set_dr(7, DR7_FIXED | ENABLE(1) << 1); /* the global enable */
    run_fault("break.user-global", BREAK, &c, V_DB, NO_ERROR);
    set_dr(7, DR7_FIXED);
    c = user(UCODE("nop\n nop"));
    run_done("break.disabled", BREAK, &c);
    /* before the instruction's own fault */
    clear();
    c = kernel(CODE("ud2"));
    set_dr(0, c.code.mark);
    set_dr(7, DR7_FIXED | ENABLE(0));
    run_fault("break.before-fault", BREAK, &c, V_DB, NO_ERROR);
    c.flags |= FL_RF;
    run_fault("break.fault-after-rf", BREAK, &c, V_UD, NO_ERROR);
    clear();
}

/* A breakpoint n of a kind on user_page[0] + 0x100 + at; the code accesses + 0x100. */
static void on_data(const char *name, struct code code, unsigned n, unsigned rw, unsigned len,
                    int at, bool hits)
{
    struct cpu c = kernel(code);
    word status;

    clear();
    c.di = c.si = (word)user_page[0] + 0x100;
    c.cx = 1;
    c.sp = (word)user_page[0] + 0x108;
    set_dr(n, (word)user_page[0] + 0x100 + (word)(long)at);
    set_dr(7, DR7_FIXED | ENABLE(n) | KIND(n, rw, len));
    status = run_dr6(&c);
    clear();
    if (hits)
        check(name, BREAK, c.vector == V_DB && c.ip == c.code.mark ? status : c.vector << 32,
              DR6_CLEAR | 1ul << n);
    else
        check(name, BREAK, c.vector, V_DONE);
}

static void data(void)
{
    on_data("break.write", CODE("mov [rdi], al\n 9: nop"), 0, RW_W, LEN1, 0, true);
    on_data("break.write-on-rw", CODE("mov [rdi], al\n 9: nop"), 1, RW_RW, LEN1, 0, true);
    on_data("break.read-on-rw", CODE("mov al, [rdi]\n 9: nop"), 2, RW_RW, LEN1, 0, true);
    on_data("break.read-on-write", CODE("mov al, [rdi]\n 9: nop"), 3, RW_W, LEN1, 0, false);
    on_data("break.modify", CODE("inc byte ptr [rdi]\n 9: nop"), 0, RW_W, LEN1, 0, true);
    on_data("break.locked", CODE("lock inc byte ptr [rdi]\n 9: nop"), 0, RW_W, LEN1, 0, true);
    on_data("break.byte-before", CODE("mov [rdi], al\n 9: nop"), 0, RW_W, LEN1, -1, false);
    on_data("break.byte-after", CODE("mov [rdi], al\n 9: nop"), 0, RW_W, LEN1, 1, false);
    on_data("break.inside-access", CODE("mov [rdi], rax\n 9: nop"), 0, RW_W, LEN1, 7, true);
    on_data("break.behind-access", CODE("mov [rdi], rax\n 9: nop"), 0, RW_W, LEN1, 8, false);
    on_data("break.len2", CODE("mov [rdi + 1], al\n 9: nop"), 0, RW_W, LEN2, 0, true);
    on_data("break.len2-behind", CODE("mov [rdi + 2], al\n 9: nop"), 0, RW_W, LEN2, 0, false);
    on_data("break.len4", CODE("mov [rdi + 3], al\n 9: nop"), 0, RW_W, LEN4, 0, true);
    on_data("break.len4-behind", CODE("mov [rdi + 4], al\n 9: nop"), 0, RW_W, LEN4, 0, false);
    on_data("break.len8", CODE("mov [rdi + 7], al\n 9: nop"), 0, RW_W, LEN8, 0, true);
    on_data("break.len8-behind", CODE("mov [rdi + 8], al\n 9: nop"), 0, RW_W, LEN8, 0, false);
    on_data("break.overlap-from-below", CODE("mov [rdi - 2], eax\n 9: nop"), 0, RW_W, LEN4, 0,
            true);
    on_data("break.push", CODE("push rax\n 9: nop"), 0, RW_W, LEN8, 0, true);
    on_data("break.pop", CODE("sub rsp, 8\n pop rax\n 9: nop"), 0, RW_RW, LEN8, 0, true);
    on_data("break.call", CODE("call 9f\n nop\n 9: nop"), 0, RW_W, LEN8, 0, true);
    on_data("break.stos", CODE("rep stosb\n 9: nop"), 0, RW_W, LEN1, 0, true);
    on_data("break.movs-read", CODE("add rdi, 64\n movsb\n 9: nop"), 0, RW_RW, LEN1, 0, true);
}

static void combinations(void)
{
    struct cpu c = kernel(CODE("mov [rdi], al\n 9: nop"));
    word status;

    clear();
    c.di = (word)user_page[0];
    c.flags |= FL_TF;
    set_dr(2, c.di);
    set_dr(7, DR7_FIXED | ENABLE(2) | KIND(2, RW_W, LEN1));
    status = run_dr6(&c);
    check("break.with-step", BREAK, c.vector == V_DB ? status : 0, DR6_CLEAR | DR6_BS | 4);
    c = kernel(CODE("mov [rdi], al\n 9: nop"));
    c.di = (word)user_page[0];
    set_dr(3, c.di);
    set_dr(7, DR7_FIXED | ENABLE(2) | ENABLE(3) | KIND(2, RW_W, LEN1) | KIND(3, RW_RW, LEN1));
    status = run_dr6(&c);
    check("break.two-at-once", BREAK, c.vector == V_DB ? status : 0, DR6_CLEAR | 4 | 8);
    clear();
    /* a repeated string stops after the iteration that hit */
    c = kernel(CODE("rep stosb\n 9: nop"));
    c.di = (word)user_page[0];
    c.cx = 8;
    set_dr(0, c.di + 3);
    set_dr(7, DR7_FIXED | ENABLE(0) | KIND(0, RW_W, LEN1));
    run(&c);
    check("break.rep-iteration", BREAK, c.vector == V_DB ? c.cx : 99, 4);
    check("break.rep-ip", BREAK, c.ip, c.code.start);
    clear();
    /* an access that faults hits nothing */
    c = kernel(CODE("mov rdi, 0x7000000000\n 9: mov [rdi], al"));
    set_dr(0, 0x7000000000);
    set_dr(7, DR7_FIXED | ENABLE(0) | KIND(0, RW_W, LEN1));
    run(&c);
    check_pf("break.page-fault-first", BREAK, &c, 2, 0x7000000000);
    clear();
    /* ports */
    set_cr4(cr4() | CR4_DE);
    c = kernel(CODE("out 0x80, al\n 9: nop"));
    set_dr(0, 0x80);
    set_dr(7, DR7_FIXED | ENABLE(0) | KIND(0, RW_IO, LEN1));
    status = run_dr6(&c);
    check_fault("break.out", BREAK, &c, V_DB, NO_ERROR);
    check("break.out-dr6", BREAK, status, DR6_CLEAR | 1);
    c = kernel(CODE("in al, 0x80\n 9: nop"));
    run_fault("break.in", BREAK, &c, V_DB, NO_ERROR);
    c = kernel(CODE("in al, 0x61\n nop"));
    run_done("break.other-port", BREAK, &c);
    set_cr4(cr4() & ~CR4_DE);
    clear();
}

/* #DB that waits behind MOV SS. */
static void behind_mov_ss(void)
{
    static uint16_t selector = S_DATA;
    struct cpu c = kernel(CODE("mov ss, [rdi]\n inc eax\n 9: inc eax"));

    clear();
    c.di = (word)&selector;
    set_dr(0, c.di);
    set_dr(7, DR7_FIXED | ENABLE(0) | KIND(0, RW_RW, LEN2));
    check("shadow.data-dr6", SHADOW, run_dr6(&c), DR6_CLEAR | 1);
    check_fault("shadow.data", SHADOW, &c, V_DB, NO_ERROR);
    check("shadow.data-one-instruction-later", SHADOW, c.ax, 1);
    c = kernel(CODE("mov ss, eax\n inc ecx\n 9: inc ecx"));
    clear();
    c.ax = S_DATA;
    c.flags |= FL_TF;
    run_fault("shadow.step", SHADOW, &c, V_DB, NO_ERROR);
    check("shadow.step-one-instruction-later", SHADOW, c.cx, 1);
    c = kernel(CODE("mov ds, [rdi]\n 9: inc eax"));
    c.di = (word)&selector;
    set_dr(0, c.di);
    set_dr(7, DR7_FIXED | ENABLE(0) | KIND(0, RW_RW, LEN2));
    run_fault("shadow.none-by-mov-ds", SHADOW, &c, V_DB, NO_ERROR);
    clear();
}

/* ---- the registers ---- */

static void general_detect(const char *name, struct code code)
{
    struct cpu c = kernel(code);
    word status;

    clear();
    set_dr(7, DR7_FIXED | 1u << 13);
    status = run_dr6(&c);
    check_fault(name, "SDM Vol.3, general-detect exception condition", &c, V_DB, NO_ERROR);
    check(joined(name, "-dr6", ""), REGS, status, DR6_CLEAR | DR6_BD);
    check(joined(name, "-clears-gd", ""), REGS, dr7(), DR7_FIXED);
}

static void registers(void)
{
    struct cpu c;

    clear();
    set_dr(6, 0);
    check("dr6.fixed-ones", REGS, dr6(), DR6_CLEAR);
    set_dr(6, 0xffffffff);
    check_bits("dr6.writable", REGS, dr6(), 0xe00f, 0xf00f & ~0x1000ul);
    check_bits("dr6.bit12-is-zero", REGS, dr6(), 0, 0x1000);
    set_dr(6, DR6_CLEAR);
    set_dr(7, 0);
    check("dr7.bit10-is-one", REGS, dr7(), DR7_FIXED);
    set_dr(7, 0xc000);
    check("dr7.bits14-15-are-zero", REGS, dr7(), DR7_FIXED);
    set_dr(7, 0x355);
    check("dr7.enables", REGS, dr7(), 0x355 | DR7_FIXED);
    clear();
    c = kernel(CODE("mov dr6, rax"));
    c.ax = 1ul << 32;
    run_fault("dr6.upper-half", "SDM Vol.2, MOV to debug registers", &c, V_GP, 0);
    c = kernel(CODE("mov dr7, rax"));
    c.ax = 1ul << 32 | DR7_FIXED;
    run_fault("dr7.upper-half", "SDM Vol.2, MOV to debug registers", &c, V_GP, 0);
    for (unsigned n = 0; n < 4; n++) {
        static const char *const names[] = {"dr0.reads-back", "dr1.reads-back", "dr2.reads-back",
                                            "dr3.reads-back"};
        struct code codes[] = {
            CODE("mov dr0, rdi\n mov rax, dr0"), CODE("mov dr1, rdi\n mov rax, dr1"),
            CODE("mov dr2, rdi\n mov rax, dr2"), CODE("mov dr3, rdi\n mov rax, dr3")};

        c = kernel(codes[n]);
        c.di = 0x123456789abcul + n;
        run(&c);
        check(names[n], REGS, c.ax, 0x123456789abcul + n);
    }
    c = kernel(CODE("mov rax, dr4")); /* an alias of DR6 while CR4.DE is clear */
    run(&c);
    check("dr4.alias", REGS, c.vector == V_DONE ? c.ax : 0, DR6_CLEAR);
    c = kernel(CODE("mov rax, dr5"));
    run(&c);
    check("dr5.alias", REGS, c.vector == V_DONE ? c.ax : 0, DR7_FIXED);
    set_cr4(cr4() | CR4_DE);
    c = kernel(CODE("mov rax, dr4"));
    run_fault("dr4.de", REGS, &c, V_UD, NO_ERROR);
    c = kernel(CODE("mov dr5, rax"));
    run_fault("dr5.de", REGS, &c, V_UD, NO_ERROR);
    set_cr4(cr4() & ~CR4_DE);
    c = kernel(CODE(".byte 0x44, 0x0f, 0x21, 0xc0")); /* DR8 */
    run_fault("dr8.undefined", REGS, &c, V_UD, NO_ERROR);
    general_detect("detect.read-dr7", CODE("mov rax, dr7"));
    general_detect("detect.write-dr0", CODE("mov dr0, rax"));
    general_detect("detect.read-dr6", CODE("mov rax, dr6"));
    c = user(UCODE("mov rax, dr7"));
    set_dr(7, DR7_FIXED | 1u << 13);
    run_fault("detect.user-gp-first", REGS, &c, V_GP, 0);
    if (!skipping()) { /* the write that clears GD is detected too */
        c = kernel(CODE("mov dr7, rax"));
        c.ax = DR7_FIXED;
        run(&c);
        c.ip = c.code.start;
        run(&c);
    }
    clear();
}

/* DR6 keeps what earlier events left. */
static void sticky(void)
{
    struct cpu c = kernel(CODE("nop\n 9: nop"));

    clear();
    set_dr(6, DR6_CLEAR | DR6_BS);
    c = kernel(CODE("mov [rdi], al\n 9: nop"));
    c.di = (word)user_page[0];
    set_dr(1, c.di);
    set_dr(7, DR7_FIXED | ENABLE(1) | KIND(1, RW_W, LEN1));
    check_bits("dr6.processor-keeps-bs", REGS, run_dr6(&c), DR6_BS | 2, DR6_BS | 2);
    clear();
}

void test(void)
{
    steps();
    not_steps();
    at_instruction();
    data();
    combinations();
    behind_mov_ss();
    registers();
    sticky();
}
