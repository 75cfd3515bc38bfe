/* Exceptions by themselves: vector, error code, the IP and the RF that are pushed; #UD by encoding.
 */
#include "bare.h"

#define EXC "SDM Vol.3, exception and interrupt reference"
#define UD "SDM Vol.2, opcode map, 64-bit mode"
#define LOCKT "SDM Vol.2, LOCK"
#define AC "SDM Vol.3, alignment-check exception"
#define RF "SDM Vol.3, resume flag"

static void divide(void)
{
    struct cpu c = kernel(CODE("div cl"));

    run_fault("de.div8", EXC, &c, V_DE, NO_ERROR);
    c = kernel(CODE("div ecx"));
    run_fault("de.div32", EXC, &c, V_DE, NO_ERROR);
    c = kernel(CODE("div rcx"));
    c.dx = c.cx = 5;
    run_fault("de.div64-overflow", EXC, &c, V_DE, NO_ERROR);
    c = kernel(CODE("idiv ecx"));
    c.ax = 0x80000000;
    c.dx = 0xffffffff;
    c.cx = 0xffffffff;
    run_fault("de.idiv-minimum", EXC, &c, V_DE, NO_ERROR);
    check("de.registers-kept", EXC, c.ax, 0x80000000);
    check("de.rf", RF, c.flags & FL_RF, FL_RF);
    c = user(UCODE("div ecx"));
    run_fault("de.user", EXC, &c, V_DE, NO_ERROR);
    check("de.user-cs", EXC, c.cs, S_UCODE64);
    check("de.user-ss", EXC, c.ss, S_UDATA);
    check("de.user-rsp", EXC, c.sp, (word)user_stack_top);
}

/* Traps push the address of what comes next. */
static void traps(void)
{
    struct cpu c = kernel(CODE("int3\n 9: nop"));

    run_fault("bp.int3", EXC, &c, V_BP, NO_ERROR);
    check("bp.rf", RF, c.flags & FL_RF, 0);
    c = kernel(CODE(".byte 0xcd, 3\n 9: nop"));
    run_fault("bp.int-3", EXC, &c, V_BP, NO_ERROR);
    c = kernel(CODE(".byte 0xf1\n 9: nop"));
    run_fault("db.int1", EXC, &c, V_DB, NO_ERROR);
    c = user(UCODE(".byte 0xf1\n 9: nop"));
    run_fault("db.int1-user", "SDM Vol.2, INT1, no check of DPL", &c, V_DB, NO_ERROR);
    c = user(UCODE("int3"));
    run_fault("bp.user-dpl0", "SDM Vol.2, INT n", &c, V_GP, 3 * 8 + 2);
    idt_usual(V_BP, GATE_INT | GATE_DPL3, 1);
    c = user(UCODE("int3\n 9: nop"));
    run_fault("bp.user-dpl3", "SDM Vol.2, INT n", &c, V_BP, NO_ERROR);
    idt_reset();
    c = kernel(CODE(".byte 0xcd, 13\n 9: nop"));
    run_fault("int.13-has-no-error-code", "SDM Vol.2, INT n", &c, V_GP, NO_ERROR);
    c = kernel(CODE(".byte 0xcd, 8\n 9: nop"));
    run_fault("int.8-has-no-error-code", "SDM Vol.2, INT n", &c, V_DF, NO_ERROR);
    c = kernel(CODE("int 0xff\n 9: nop"));
    run_fault("int.255", "SDM Vol.2, INT n", &c, 0xff, NO_ERROR);
    c = kernel(CODE32("mov eax, 0x7fffffff\n inc eax\n into\n 9: nop"));
    c.cs = S_CODE32;
    run_fault("of.into-compat", EXC, &c, V_OF, NO_ERROR);
    c = kernel(CODE32("xor eax, eax\n into"));
    c.cs = S_CODE32;
    run_done("of.into-compat-clear", EXC, &c);
    {
        static int32_t bounds[2] = {-5, 10};

        c = kernel(CODE32("bound eax, [edi]"));
        c.cs = S_CODE32;
        c.di = (word)bounds;
        c.ax = 11;
        run_fault("br.above", EXC, &c, V_BR, NO_ERROR);
        c.ip = c.code.start;
        c.ax = (uint32_t)-6;
        run_fault("br.below", EXC, &c, V_BR, NO_ERROR);
        c.ip = c.code.start;
        c.ax = 10;
        run_done("br.inside", EXC, &c);
    }
}

/* Bytes that #UD in 64-bit mode, at the start of a test frame. */
struct bytes {
    const char *name;
    uint8_t len, at[8];
};

static const struct bytes undefined[] = {
    {"ud.ud2", 2, {0x0f, 0x0b}},
    {"ud.ud1", 3, {0x0f, 0xb9, 0xc0}},
    {"ud.ud0", 3, {0x0f, 0xff, 0xc0}},
    {"ud.push-es", 1, {0x06}},
    {"ud.pop-es", 1, {0x07}},
    {"ud.push-cs", 1, {0x0e}},
    {"ud.push-ss", 1, {0x16}},
    {"ud.pop-ss", 1, {0x17}},
    {"ud.push-ds", 1, {0x1e}},
    {"ud.pop-ds", 1, {0x1f}},
    {"ud.daa", 1, {0x27}},
    {"ud.das", 1, {0x2f}},
    {"ud.aaa", 1, {0x37}},
    {"ud.aas", 1, {0x3f}},
    {"ud.pusha", 1, {0x60}},
    {"ud.popa", 1, {0x61}},
    {"ud.group-82", 3, {0x82, 0xc0, 1}},
    {"ud.call-far-direct", 7, {0x9a, 0, 0, 0, 0, 8, 0}},
    {"ud.into", 1, {0xce}},
    {"ud.aam", 2, {0xd4, 10}},
    {"ud.aad", 2, {0xd5, 10}},
    {"ud.salc", 1, {0xd6}},
    {"ud.jmp-far-direct", 7, {0xea, 0, 0, 0, 0, 8, 0}},
    {"ud.mov-cs", 2, {0x8e, 0xc8}},
    {"ud.mov-segment6", 2, {0x8e, 0xf0}},
    {"ud.mov-segment7", 2, {0x8e, 0xf8}},
    {"ud.mov-from-segment6", 2, {0x8c, 0xf0}},
    {"ud.lea-register", 2, {0x8d, 0xc0}},
    {"ud.group-fe", 2, {0xfe, 0xd0}},
    {"ud.group-ff-7", 2, {0xff, 0xf8}},
    {"ud.call-far-register", 2, {0xff, 0xd8}},
    {"ud.jmp-far-register", 2, {0xff, 0xe8}},
    {"ud.group-c6-1", 3, {0xc6, 0xc8, 1}},
    {"ud.group-c7-1", 6, {0xc7, 0xc8, 1, 0, 0, 0}},
    {"ud.cmpxchg8b-register", 3, {0x0f, 0xc7, 0xc8}},
    {"ud.movnti-register", 3, {0x0f, 0xc3, 0xc0}},
    {"ud.group-0f00-7", 3, {0x0f, 0x00, 0xf8}},
    {"ud.group-0fba-0", 4, {0x0f, 0xba, 0xc0, 1}},
    {"ud.fxsave-register", 3, {0x0f, 0xae, 0xc0}},
    {"ud.lss-register", 3, {0x0f, 0xb2, 0xc0}},
    {"ud.0f04", 2, {0x0f, 0x04}},
    {"ud.0f0a", 2, {0x0f, 0x0a}},
    {"ud.0f0c", 2, {0x0f, 0x0c}},
    {"ud.0f24", 3, {0x0f, 0x24, 0xc0}},
    {"ud.0f26", 3, {0x0f, 0x26, 0xc0}},
    {"ud.0f36", 2, {0x0f, 0x36}},
};

/* Prefixes that VZEROUPPER may not have. */
static const struct bytes vex[] = {
    {"vex.rex", 4, {0x48, 0xc5, 0xf8, 0x77}},
    {"vex.66", 4, {0x66, 0xc5, 0xf8, 0x77}},
    {"vex.lock", 4, {0xf0, 0xc5, 0xf8, 0x77}},
    {"vex.f3", 4, {0xf3, 0xc5, 0xf8, 0x77}},
};

static const struct bytes locked[] = {
    {"lock.nop", 2, {0xf0, 0x90}},
    {"lock.mov", 3, {0xf0, 0x89, 0x07}},
    {"lock.mov-load", 3, {0xf0, 0x8b, 0x07}},
    {"lock.add-register", 3, {0xf0, 0x01, 0xc0}},
    {"lock.add-from-memory", 3, {0xf0, 0x03, 0x07}},
    {"lock.cmp", 3, {0xf0, 0x39, 0x07}},
    {"lock.test", 3, {0xf0, 0x85, 0x07}},
    {"lock.bt", 4, {0xf0, 0x0f, 0xa3, 0x07}},
    {"lock.bt-immediate", 5, {0xf0, 0x0f, 0xba, 0x27, 1}},
    {"lock.bts-register", 4, {0xf0, 0x0f, 0xab, 0xc0}},
    {"lock.xchg-register", 3, {0xf0, 0x87, 0xc8}},
    {"lock.inc-register", 3, {0xf0, 0xff, 0xc0}},
    {"lock.cmp-immediate", 4, {0xf0, 0x83, 0x3f, 1}},
    {"lock.push", 2, {0xf0, 0x50}},
    {"lock.jmp", 3, {0xf0, 0xeb, 0}},
    {"lock.movs", 2, {0xf0, 0xa4}},
    {"lock.shl", 3, {0xf0, 0xd1, 0x27}},
    {"lock.mul", 3, {0xf0, 0xf7, 0x27}},
    {"lock.cpuid", 3, {0xf0, 0x0f, 0xa2}},
    {"lock.pushf", 2, {0xf0, 0x9c}},
    {"lock.int3", 2, {0xf0, 0xcc}},
    {"lock.hlt", 2, {0xf0, 0xf4}},
};

static const struct bytes lockable[] = {
    {"lock.add-ok", 3, {0xf0, 0x01, 0x07}},
    {"lock.not-ok", 3, {0xf0, 0xf7, 0x17}},
    {"lock.neg-ok", 3, {0xf0, 0xf7, 0x1f}},
    {"lock.xadd-ok", 4, {0xf0, 0x0f, 0xc1, 0x07}},
    {"lock.btc-ok", 5, {0xf0, 0x0f, 0xba, 0x3f, 1}},
    {"lock.xchg-ok", 3, {0xf0, 0x87, 0x07}},
    {"lock.cmpxchg8b-ok", 4, {0xf0, 0x0f, 0xc7, 0x0f}},
    {"lock.adc-ok", 3, {0xf0, 0x11, 0x07}},
    {"lock.xor-immediate-ok", 4, {0xf0, 0x83, 0x37, 1}},
    {"lock.dec-ok", 3, {0xf0, 0xfe, 0x0f}},
};

static struct cpu run_bytes(const uint8_t *at, unsigned len, bool in_user)
{
    struct cpu c = in_user ? user(UCODE("jmp rax")) : kernel(CODE("jmp rax"));

    test_frames_return();
    for (unsigned i = 0; i < 16; i++)
        test_frame[0][16 + i] = i < len ? at[i] : (i - len) % 2 ? 0x80 : 0xcd;
    c.ax = TEST_VA + 16;
    c.di = c.si = (word)user_page[0];
    run(&c);
    return c;
}

static void encodings(void)
{
    test_pages_reset();
    set_cr4(cr4() | CR4_OSFXSR);
    for (unsigned i = 0; i < sizeof(undefined) / sizeof(undefined[0]); i++) {
        struct cpu c = run_bytes(undefined[i].at, undefined[i].len, i % 2);

        check_event(undefined[i].name, UD, &c, V_UD, NO_ERROR, TEST_VA + 16);
    }
    require(cpuid_bit(1, 0, 2, 28), "AVX is not offered");
    set_cr4(cr4() | CR4_OSXSAVE);
    if (!skipping())
        __asm__ volatile("xsetbv" : : "a"(7), "d"(0), "c"(0));
    {
        static const uint8_t plain[] = {0xc5, 0xf8, 0x77};
        struct cpu c = run_bytes(plain, sizeof(plain), true);

        check_event("vex.plain", UD, &c, V_DONE, NO_ERROR, TEST_VA + 16 + sizeof(plain) + 2);
    }
    for (unsigned i = 0; i < sizeof(vex) / sizeof(vex[0]); i++) {
        struct cpu c = run_bytes(vex[i].at, vex[i].len, true);

        check_event(vex[i].name, UD, &c, V_UD, NO_ERROR, TEST_VA + 16);
    }
    set_cr4(cr4() & ~CR4_OSXSAVE);
    require_end();
    for (unsigned i = 0; i < sizeof(locked) / sizeof(locked[0]); i++) {
        struct cpu c = run_bytes(locked[i].at, locked[i].len, true);

        check_event(locked[i].name, LOCKT, &c, V_UD, NO_ERROR, TEST_VA + 16);
    }
    for (unsigned i = 0; i < sizeof(lockable) / sizeof(lockable[0]); i++) {
        struct cpu c = run_bytes(lockable[i].at, lockable[i].len, true);

        check_event(lockable[i].name, LOCKT, &c, V_DONE, NO_ERROR,
                    TEST_VA + 16 + lockable[i].len + 2);
    }
    {
        struct cpu c = kernel(CODE("ud2"));

        run(&c);
        check("ud.rf", RF, c.flags & FL_RF, FL_RF);
    }
}

static void length(void)
{
    static const uint8_t fits[15] = {0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
                                     0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90};
    static const uint8_t too_long[16] = {0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
                                         0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x90};
    struct cpu c;

    for (unsigned i = 0; i < 15; i++)
        test_frame[0][64 + i] = fits[i];
    test_frame[0][79] = 0xcd;
    test_frame[0][80] = 0x80;
    c = kernel(CODE("jmp rax"));
    c.ax = TEST_VA + 64;
    run(&c);
    check_event("length.15", "SDM Vol.3, #GP, instruction length", &c, V_DONE, NO_ERROR,
                TEST_VA + 81);
    for (unsigned i = 0; i < 16; i++)
        test_frame[0][64 + i] = too_long[i];
    c = kernel(CODE("jmp rax"));
    c.ax = TEST_VA + 64;
    run(&c);
    check_event("length.16", "SDM Vol.3, #GP, instruction length", &c, V_GP, 0, TEST_VA + 64);
    /* without redundant prefixes: an immediate beyond the limit */
    for (unsigned i = 0; i < 12; i++)
        test_frame[0][64 + i] = 0x2e;
    test_frame[0][76] = 0x81; /* add ecx, immediate: 12 + 6 */
    test_frame[0][77] = 0xc1;
    c = kernel(CODE("jmp rax"));
    c.ax = TEST_VA + 64;
    run(&c);
    check_event("length.18-by-immediate", "SDM Vol.3, #GP, instruction length", &c, V_GP, 0,
                TEST_VA + 64);
}

static void align_case(const char *name, struct code code, unsigned cpl, word flags,
                       unsigned offset, bool faults)
{
    struct cpu c = at_level(code, cpl);

    c.flags |= flags;
    c.di = c.si = (word)user_page[0] + 64 + offset;
    c.sp = (cpl == 3 ? (word)user_page[1] : (word)fragment_stack_top - 128) + 64 + offset;
    run(&c);
    if (faults)
        check_fault(name, AC, &c, V_AC, 0);
    else
        check_done(name, AC, &c);
}

static void alignment(void)
{
    struct code load = UCODE("mov eax, [rdi]");
    struct cpu c;

    align_case("ac.am-clear", load, 3, FL_AC, 1, false);
    set_cr0(cr0() | CR0_AM);
    align_case("ac.user", load, 3, FL_AC, 1, true);
    align_case("ac.aligned", load, 3, FL_AC, 4, false);
    align_case("ac.flag-clear", load, 3, 0, 1, false);
    align_case("ac.cpl0", CODE("mov eax, [rdi]"), 0, FL_AC, 1, false);
    align_case("ac.cpl1", CODE("mov eax, [rdi]"), 1, FL_AC, 1, false);
    align_case("ac.cpl2", CODE("mov eax, [rdi]"), 2, FL_AC, 1, false);
    align_case("ac.byte", UCODE("mov al, [rdi]"), 3, FL_AC, 1, false);
    align_case("ac.word", UCODE("mov ax, [rdi]"), 3, FL_AC, 1, true);
    align_case("ac.word-at-2", UCODE("mov ax, [rdi]"), 3, FL_AC, 2, false);
    align_case("ac.qword-at-4", UCODE("mov rax, [rdi]"), 3, FL_AC, 4, true);
    align_case("ac.store", UCODE("mov [rdi], eax"), 3, FL_AC, 2, true);
    align_case("ac.modify", UCODE("add [rdi], eax"), 3, FL_AC, 3, true);
    align_case("ac.locked", UCODE("lock add [rdi], eax"), 3, FL_AC, 3, true);
    align_case("ac.push", UCODE("push rax"), 3, FL_AC, 4, true);
    align_case("ac.pop", UCODE("pop rax"), 3, FL_AC, 4, true);
    align_case("ac.call", UCODE("call 1f\n 1:"), 3, FL_AC, 4, true);
    align_case("ac.movs", UCODE("movsq"), 3, FL_AC, 1, true);
    align_case("ac.stos", UCODE("stosd"), 3, FL_AC, 2, true);
    align_case("ac.cmpxchg", UCODE("cmpxchg [rdi], ecx"), 3, FL_AC, 1, true);
    align_case("ac.popf-sets",
               UCODE("pushfq\n or dword ptr [rsp], 0x40000\n popfq\n"
                     "9: mov eax, [rdi + 1]"),
               3, 0, 0, true);
    set_cr0(cr0() & ~CR0_AM);
    set_cr4(cr4() | CR4_OSFXSR);
    c = kernel(CODE("movaps xmm0, [rdi]"));
    c.di = (word)user_page[0] + 8;
    run_fault("gp.movaps-alignment", "SDM Vol.2, MOVAPS", &c, V_GP, 0);
    c = kernel(CODE("movntdq [rdi], xmm0"));
    c.di = (word)user_page[0] + 8;
    run_fault("gp.movntdq-alignment", "SDM Vol.2, MOVNTDQ", &c, V_GP, 0);
    c = kernel(CODE("movups xmm0, [rdi]"));
    c.di = (word)user_page[0] + 1;
    run_done("gp.movups-any", "SDM Vol.2, MOVUPS", &c);
    c = kernel(CODE("fxsave [rdi]"));
    c.di = (word)user_page[0] + 8;
    run_fault("gp.fxsave-alignment", "SDM Vol.2, FXSAVE", &c, V_GP, 0);
    require(cpuid_bit(1, 0, 2, 13), "CMPXCHG16B is not offered");
    c = kernel(CODE("lock cmpxchg16b [rdi]"));
    c.di = (word)user_page[0] + 8;
    run_fault("gp.cmpxchg16b-alignment", "SDM Vol.2, CMPXCHG16B", &c, V_GP, 0);
    c = kernel(CODE("lock cmpxchg16b [rdi]"));
    c.di = (word)user_page[0] + 16;
    run_done("gp.cmpxchg16b-aligned", "SDM Vol.2, CMPXCHG16B", &c);
    require_end();
}

/* RF in what is pushed: set by faults, clear by traps and interrupts. */
static void resume_flag(void)
{
    struct cpu c = kernel(CODE("hlt"));

    c.cs = S_CODE_1;
    c.ss = S_DATA_1;
    run(&c);
    check("rf.gp", RF, c.vector == V_GP ? c.flags & FL_RF : 0, FL_RF);
    c = kernel(CODE("mov rdi, 0x7000000000\n 9: mov al, [rdi]"));
    run(&c);
    check("rf.pf", RF, c.vector == V_PF ? c.flags & FL_RF : 0, FL_RF);
    c = kernel(CODE("nop\n nop"));
    c.flags |= FL_RF;
    run(&c);
    check("rf.cleared-by-instruction", RF, c.vector == V_DONE ? c.flags & FL_RF : 1, 0);
    c = kernel(CODE("pushfq\n pop rax"));
    c.flags |= FL_RF;
    run(&c);
    check("rf.pushf-shows-none", "SDM Vol.2, PUSHF", c.ax & FL_RF, 0);
    c = kernel(CODE("push 0x10002\n popfq\n pushfq\n pop rax"));
    run(&c);
    check("rf.popf-clears", "SDM Vol.2, POPF", c.ax & FL_RF, 0);
}

void test(void)
{
    divide();
    traps();
    encodings();
    length();
    alignment();
    resume_flag();
}
