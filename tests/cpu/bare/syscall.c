/* SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS, and the bases of FS and GS. */
#include "bare.h"

#define CALL "SDM Vol.2, SYSCALL"
#define RET "SDM Vol.2, SYSRET"
#define ENTER "SDM Vol.2, SYSENTER"
#define EXIT "SDM Vol.2, SYSEXIT"
#define BASES "SDM Vol.2, RDFSBASE and its kin"
#define GS "SDM Vol.2, SWAPGS"
#define SEG64 "SDM Vol.3, segment loading in IA-32e mode"

enum {
    MSR_SYSENTER_CS = 0x174,
    MSR_SYSENTER_ESP = 0x175,
    MSR_SYSENTER_EIP = 0x176,
};
#define MSR_EFER 0xc0000080u
#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_SFMASK 0xc0000084u
#define MSR_FS_BASE 0xc0000100u
#define MSR_GS_BASE 0xc0000101u
#define MSR_KERNEL_GS_BASE 0xc0000102u
#define OUTSIDE 0x8000000000000000ul
/* SYSRET finds S_UCODE32, S_UDATA and S_UCODE64 from here; SYSEXIT the same and S_UDATA2. */
#define STAR ((uint64_t)(S_UCODE32 - 3) << 48 | (uint64_t)S_CODE << 32)

static void syscalls(void)
{
    struct code target = CODE("mov edx, cs\n mov esi, ss\n pushfq\n pop rdi");
    struct cpu c = user(UCODE("syscall"));

    run_fault("syscall.sce-clear", CALL, &c, V_UD, NO_ERROR);
    c = kernel(CODE("sysretq"));
    run_fault("sysret.sce-clear", RET, &c, V_UD, NO_ERROR);
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) | 1);
    wrmsr(MSR_STAR, STAR);
    wrmsr(MSR_LSTAR, target.start);
    wrmsr(MSR_SFMASK, FL_IF | FL_DF | FL_CF | FL_AC);
    c = user(UCODE("mov rsp, rbp\n syscall\n 9:"));
    c.bp = (word)fragment_stack_top - 64;
    c.flags |= FL_IF | FL_DF | FL_CF | FL_ZF | FL_AC;
    c.cx = c.r11 = 5;
    run(&c);
    check_event("syscall.target", CALL, &c, V_DONE, NO_ERROR, target.end);
    check("syscall.rcx", CALL, c.cx, c.code.mark);
    check("syscall.r11", CALL, c.r11, 2 | FL_IF | FL_DF | FL_CF | FL_ZF | FL_AC);
    check("syscall.cs", CALL, c.dx, S_CODE);
    check("syscall.ss", CALL, c.si, S_DATA);
    check("syscall.mask", CALL, c.di, 2 | FL_ZF);
    check("syscall.keeps-rsp", CALL, c.sp, (word)fragment_stack_top - 64);
    check("syscall.cpl", CALL, c.cs, S_CODE);
    c = kernel(CODE("syscall"));
    run(&c);
    check("syscall.from-cpl0", CALL, c.vector == V_DONE && c.ip == target.end, 1);
    wrmsr(MSR_STAR, STAR | 3ull << 32);
    c = kernel(CODE("syscall"));
    run(&c);
    check("syscall.clears-rpl", CALL, c.dx, S_CODE);
    /* what CS and SS are then is fixed; the descriptors are not read */
    wrmsr(MSR_STAR, (STAR & ~(0xffffull << 32)) | (uint64_t)S_FREE << 32);
    c = kernel(CODE("syscall"));
    run(&c);
    check("syscall.descriptors-not-read", CALL, c.vector == V_DONE ? c.dx << 16 | c.si : 0,
          S_FREE << 16 | (S_FREE + 8));
    wrmsr(MSR_STAR, STAR);
    c = kernel(CODE(".byte 0xf0, 0x0f, 0x05"));
    run_fault("syscall.lock", CALL, &c, V_UD, NO_ERROR);
    require(intel(), "AMD has SYSCALL in compatibility mode");
    c = kernel(UCODE32("syscall"));
    c.cs = S_UCODE32;
    c.ss = S_UDATA;
    run_fault("syscall.compat", CALL, &c, V_UD, NO_ERROR);
    c = kernel(CODE32(".byte 0x0f, 0x07"));
    c.cs = S_CODE32;
    run_fault("sysret.compat", RET, &c, V_UD, NO_ERROR);
    require_end();
}

static void sysrets(void)
{
    struct code target = UCODE("mov edx, cs\n mov esi, ss\n pushfq\n pop rdi");
    struct code target32 = UCODE32("mov edx, cs\n mov esi, ss");
    struct cpu c = kernel(CODE("mov rsp, rbp\n sysretq"));

    c.bp = (word)user_stack_top;
    c.cx = target.start;
    c.r11 = 0xfffffffffffffffful & ~FL_TF & ~FL_NT;
    run(&c);
    check_event("sysret.target", RET, &c, V_DONE, NO_ERROR, target.end);
    check("sysret.cs", RET, c.dx, S_UCODE64);
    check("sysret.ss", RET, c.si, S_UDATA);
    check("sysret.flags", RET, c.di, 0x3c7fd7 & ~FL_TF & ~FL_NT);
    check("sysret.cpl", RET, c.cs, S_UCODE64);
    c = kernel(CODE("mov rsp, rbp\n .byte 0x0f, 0x07"));
    c.bp = (word)user_stack_top;
    c.cx = 0xabcd00000000ul | target32.start;
    c.r11 = 2;
    run(&c);
    check_event("sysret.to-compat", RET, &c, V_DONE, NO_ERROR, target32.end);
    check("sysret.to-compat-cs", RET, c.dx, S_UCODE32);
    check("sysret.to-compat-ss", RET, c.si, S_UDATA);
    wrmsr(MSR_STAR, STAR & ~(3ull << 48));
    c = kernel(CODE("mov rsp, rbp\n sysretq"));
    c.bp = (word)user_stack_top;
    c.cx = target.start;
    run(&c);
    check("sysret.sets-rpl", RET, c.vector == V_DONE ? c.dx << 8 | c.si : 0,
          S_UCODE64 << 8 | S_UDATA);
    wrmsr(MSR_STAR, STAR);
    c = user(UCODE("sysretq"));
    run_fault("sysret.user", RET, &c, V_GP, 0);
    require(intel(), "AMD checks the target only afterwards");
    c = kernel(CODE("sysretq"));
    c.cx = OUTSIDE;
    run_fault("sysret.non-canonical", RET, &c, V_GP, 0);
    require_end();
    wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~1ull);
}

static void sysenters(void)
{
    struct code target = CODE("mov edx, cs\n mov esi, ss\n pushfq\n pop rdi");
    struct cpu c;

    require(intel(), "AMD has no SYSENTER in long mode");
    wrmsr(MSR_SYSENTER_CS, 0);
    c = user(UCODE("sysenter"));
    run_fault("sysenter.cs-zero", ENTER, &c, V_GP, 0);
    wrmsr(MSR_SYSENTER_CS, 3);
    c = user(UCODE("sysenter"));
    run_fault("sysenter.cs-rpl-only", ENTER, &c, V_GP, 0);
    c = kernel(CODE(".byte 0x48, 0x0f, 0x35"));
    run_fault("sysexit.cs-zero", EXIT, &c, V_GP, 0);
    wrmsr(MSR_SYSENTER_CS, S_CODE | 3);
    wrmsr(MSR_SYSENTER_ESP, (word)fragment_stack_top - 128);
    wrmsr(MSR_SYSENTER_EIP, target.start);
    c = user(UCODE("sysenter"));
    c.flags |= FL_IF | FL_ZF | FL_DF;
    run(&c);
    check_event("sysenter.target", ENTER, &c, V_DONE, NO_ERROR, target.end);
    check("sysenter.cs", ENTER, c.dx, S_CODE);
    check("sysenter.ss", ENTER, c.si, S_DATA);
    check("sysenter.clears-if-only", ENTER, c.di, 2 | FL_ZF | FL_DF);
    check("sysenter.rsp", ENTER, c.sp, (word)fragment_stack_top - 128);
    c = kernel(UCODE32("sysenter"));
    c.cs = S_UCODE32;
    c.ss = S_UDATA;
    run(&c);
    check_event("sysenter.from-compat", ENTER, &c, V_DONE, NO_ERROR, target.end);
    c = kernel(CODE("sysenter"));
    run(&c);
    check_event("sysenter.from-cpl0", ENTER, &c, V_DONE, NO_ERROR, target.end);
    require_end();
}

static void sysexits(void)
{
    struct code target = UCODE("mov eax, cs\n mov esi, ss");
    struct code target32 = UCODE32("mov eax, cs\n mov esi, ss");
    struct cpu c;

    require(intel(), "AMD has no SYSEXIT in long mode");
    c = kernel(CODE(".byte 0x48, 0x0f, 0x35"));
    c.dx = target.start;
    c.cx = (word)user_stack_top;
    run(&c);
    check_event("sysexit.target", EXIT, &c, V_DONE, NO_ERROR, target.end);
    check("sysexit.cs", EXIT, c.ax, S_UCODE64);
    check("sysexit.ss", EXIT, c.si, S_UDATA2);
    check("sysexit.rsp", EXIT, c.sp, (word)user_stack_top);
    c = kernel(CODE(".byte 0x0f, 0x35"));
    c.dx = 0x500000000ul | target32.start;
    c.cx = 0x600000000ul | (word)user_stack_top;
    run(&c);
    check_event("sysexit.to-compat", EXIT, &c, V_DONE, NO_ERROR, target32.end);
    check("sysexit.to-compat-cs", EXIT, c.ax, S_UCODE32);
    check("sysexit.to-compat-ss", EXIT, c.si, S_UDATA);
    check("sysexit.to-compat-rsp", EXIT, c.sp, (word)user_stack_top);
    c = kernel(CODE(".byte 0x48, 0x0f, 0x35"));
    c.dx = OUTSIDE;
    run_fault("sysexit.rip-non-canonical", EXIT, &c, V_GP, 0);
    c = kernel(CODE(".byte 0x48, 0x0f, 0x35"));
    c.dx = target.start;
    c.cx = OUTSIDE;
    run_fault("sysexit.rsp-non-canonical", EXIT, &c, V_GP, 0);
    c = user(UCODE(".byte 0x0f, 0x35"));
    run_fault("sysexit.user", EXIT, &c, V_GP, 0);
    require_end();
}

static void swapgs(void)
{
    struct cpu c = kernel(CODE("swapgs"));

    wrmsr(MSR_GS_BASE, 0x1111);
    wrmsr(MSR_KERNEL_GS_BASE, 0x2222);
    run(&c);
    check("swapgs.gs", GS, rdmsr(MSR_GS_BASE), 0x2222);
    check("swapgs.kernel", GS, rdmsr(MSR_KERNEL_GS_BASE), 0x1111);
    c = kernel(CODE32(".byte 0x0f, 0x01, 0xf8"));
    c.cs = S_CODE32;
    run_fault("swapgs.compat", GS, &c, V_UD, NO_ERROR);
    c = at_level(CODE("swapgs"), 1);
    run_fault("swapgs.cpl1", GS, &c, V_GP, 0);
    c = kernel(CODE(".byte 0xf0, 0x0f, 0x01, 0xf8"));
    run_fault("swapgs.lock", GS, &c, V_UD, NO_ERROR);
    wrmsr(MSR_GS_BASE, 0);
    wrmsr(MSR_KERNEL_GS_BASE, 0);
}

static void base_instructions(void)
{
    struct cpu c;

    require(cpuid_bit(7, 0, 1, 0), "FSGSBASE is not offered");
    c = kernel(CODE("rdfsbase rax"));
    run_fault("fsgsbase.off", BASES, &c, V_UD, NO_ERROR);
    set_cr4(cr4() | CR4_FSGSBASE);
    c = user(UCODE("mov rdi, 0x7ffffffff000\n wrfsbase rdi\n rdfsbase rax\n"
                   "mov rdi, 0xffff800000000000\n wrgsbase rdi\n rdgsbase rcx"));
    run(&c);
    check("fsgsbase.user-fs", BASES, c.vector == V_DONE ? c.ax : 0, 0x7ffffffff000);
    check("fsgsbase.user-gs", BASES, c.cx, 0xffff800000000000);
    check("fsgsbase.msr", BASES, rdmsr(MSR_FS_BASE), 0x7ffffffff000);
    c = kernel(CODE("rdgsbase eax"));
    c.ax = ~0ul;
    run(&c);
    check("fsgsbase.read-32", BASES, c.ax, 0);
    c = kernel(CODE("mov rax, 0x123456789abc\n wrfsbase eax"));
    run(&c);
    check("fsgsbase.write-32", BASES, rdmsr(MSR_FS_BASE), 0x56789abc);
    c = kernel(CODE("wrfsbase rax"));
    c.ax = OUTSIDE;
    run_fault("fsgsbase.fs-non-canonical", BASES, &c, V_GP, 0);
    c = user(UCODE("wrgsbase rax"));
    c.ax = OUTSIDE;
    run_fault("fsgsbase.gs-non-canonical", BASES, &c, V_GP, 0);
    c = kernel(CODE32(".byte 0xf3, 0x0f, 0xae, 0xc0"));
    c.cs = S_CODE32;
    run_fault("fsgsbase.compat", BASES, &c, V_UD, NO_ERROR);
    c = kernel(CODE(".byte 0xf0, 0xf3, 0x0f, 0xae, 0xc0"));
    run_fault("fsgsbase.lock", BASES, &c, V_UD, NO_ERROR);
    set_cr4(cr4() & ~CR4_FSGSBASE);
    wrmsr(MSR_FS_BASE, 0);
    wrmsr(MSR_GS_BASE, 0);
    require_end();
}

static void bases(void)
{
    struct cpu c;

    *(volatile uint64_t *)(user_page[0] + 0x40) = 0x1122334455667788;
    gdt_set(S_FREE, descriptor((uint32_t)(word)user_page[0], 0xf, 0xf3, 0x4));
    c = kernel(CODE("mov eax, 0xa3\n mov fs, eax\n mov rax, fs:[0x40]"));
    run(&c);
    check("base.fs-from-descriptor", SEG64, c.vector == V_DONE ? c.ax : 0, 0x1122334455667788);
    check("base.fs-limit-ignored", SEG64, c.vector, V_DONE);
    check("base.fs-msr", SEG64, rdmsr(MSR_FS_BASE), (word)user_page[0]);
    wrmsr(MSR_GS_BASE, 0xffff800000000000);
    c = kernel(CODE("mov eax, 0xa3\n mov gs, eax"));
    run(&c);
    check("base.gs-upper-half-cleared", SEG64, rdmsr(MSR_GS_BASE), (word)user_page[0]);
    c = kernel(CODE("mov eax, 0xa3\n mov ds, eax\n mov rax, ds:[rdi + 0x40]"));
    c.di = (word)user_page[0];
    run(&c);
    check("base.ds-ignored", SEG64, c.vector == V_DONE ? c.ax : 0, 0x1122334455667788);
    c = kernel(CODE("mov eax, 0xa3\n mov es, eax\n mov al, 0x5a\n stosb"));
    c.di = (word)user_page[1];
    run(&c);
    check("base.es-ignored", SEG64, c.vector == V_DONE ? user_page[1][0] : 0, 0x5a);
    c = kernel(CODE("xor eax, eax\n mov ds, eax\n mov es, eax\n mov rax, [rdi + 0x40]"));
    c.di = (word)user_page[0];
    run(&c);
    check("base.ds-null", SEG64, c.vector == V_DONE ? c.ax : 0, 0x1122334455667788);
    wrmsr(MSR_FS_BASE, (word)user_page[0]);
    c = kernel(CODE(".byte 0x64, 0x48, 0x8d, 0x04, 0x25, 0x40, 0, 0, 0"));
    run(&c);
    check("base.lea-without", "SDM Vol.2, LEA", c.ax, 0x40);
    c = kernel(CODE("push fs\n pop rax"));
    run(&c);
    check("base.push-fs", SEG64, c.ax, 0xa3);
    c = kernel(CODE("xor eax, eax\n mov fs, eax\n mov gs, eax"));
    run(&c);
    wrmsr(MSR_FS_BASE, 0);
    wrmsr(MSR_GS_BASE, 0);
    gdt_reset();
}

void test(void)
{
    syscalls();
    sysrets();
    sysenters();
    sysexits();
    swapgs();
    base_instructions();
    bases();
}
