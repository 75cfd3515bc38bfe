/* Virtual-8086 mode, its extensions (CR4.VME), and virtual interrupts in protected mode (CR4.PVI).
 */
#include "bare.h"

#define ENTRY "SDM Vol.3, entering virtual-8086 mode"
#define LEAVE "SDM Vol.3, leaving virtual-8086 mode"
#define SENSITIVE "SDM Vol.3, sensitive instructions"
#define IO "SDM Vol.3, I/O in virtual-8086 mode"
#define SEGMENTS "SDM Vol.3, segmentation in virtual-8086 mode"
#define VME "SDM Vol.3, virtual-mode extensions"
#define REDIRECT "SDM Vol.3, software interrupt handling in virtual-8086 mode"
#define PVI "SDM Vol.3, protected-mode virtual interrupts"

#define LOW ((volatile uint8_t *)(word)LOW_CODE)
#define CODE1 0xa0
#define CONF0 0xa8
#define CODE3 0xb0

static uint16_t low16(unsigned offset)
{
    return *(volatile uint16_t *)(LOW_CODE + offset);
}

static struct cpu at_iopl(struct code code, unsigned iopl, word flags)
{
    struct cpu c = vm86(code, iopl);

    c.flags |= flags;
    run(&c);
    return c;
}

/* The closing INT of a fragment returns with IOPL 3 only; otherwise it is a #GP. */
static bool through(const struct cpu *c)
{
    if ((c->flags & FL_IOPL) == FL_IOPL)
        return c->vector == V_DONE;
    return c->vector == V_GP && c->error == 0 && c->ip == c->code.end - 2;
}

static void check_through(const char *name, const char *topic, const struct cpu *c)
{
    if ((c->flags & FL_IOPL) == FL_IOPL)
        check_done(name, topic, c);
    else
        check_event(name, topic, c, V_GP, 0, c->code.end - 2);
}

static void run_through(const char *name, const char *topic, struct cpu *c)
{
    run(c);
    check_through(name, topic, c);
}

/* ---- entering and what the segment registers hold ---- */

static void entry(void)
{
    struct cpu c = vm86(CODE16("mov ax, ds\n mov bx, es\n mov cx, fs\n mov dx, gs\n mov si, ss\n"
                               "mov di, cs"),
                        3);

    c.ds = 0x1111;
    c.es = 0x2222;
    c.fs = 0x3333;
    c.gs = 3;
    run(&c);
    check_through("vm86.runs", ENTRY, &c);
    check("vm86.ds", ENTRY, c.ax & 0xffff, 0x1111);
    check("vm86.es", ENTRY, c.bx & 0xffff, 0x2222);
    check("vm86.fs", ENTRY, c.cx & 0xffff, 0x3333);
    check("vm86.gs", ENTRY, c.dx & 0xffff, 3);
    check("vm86.ss", ENTRY, c.si & 0xffff, LOW_CODE >> 4);
    check("vm86.cs", ENTRY, c.di & 0xffff, LOW_CODE >> 4);
    check("vm86.flags", ENTRY, c.flags & (FL_VM | FL_IOPL), FL_VM | FL_IOPL);
    /* EIP beyond 64 KiB is refused, at the IRET */
    c = kernel(
        CODE("mov esi, esp\n push ecx\n push ecx\n push ecx\n push ecx\n push ecx\n push esi\n"
             "push 0x23002\n push ecx\n push 0x10000\n 9: iretd"));
    c.cx = LOW_CODE >> 4;
    run_fault("vm86.eip-beyond", ENTRY, &c, V_GP, 0);
    c = kernel(CODE("mov esi, 0x1234f000\n push ecx\n push ecx\n push ecx\n push ecx\n push ecx\n"
                    "push esi\n push 0x23002\n push ecx\n push 0\n 9: iretd"));
    c.cx = LOW_CODE >> 4;
    LOW[0] = 0x0f;
    LOW[1] = 0x0b;
    run(&c);
    check_event("vm86.esp-whole", ENTRY, &c, V_UD, NO_ERROR, 0);
    check("vm86.esp-whole-value", ENTRY, c.sp, 0x1234f000);
}

static void frames(void)
{
    struct cpu c = vm86(CODE16("mov ax, 0x77\n 9: ud2"), 3);
    word top = (word)trap_stack_top;
    const volatile uint32_t *f;

    c.ds = 0x1111;
    c.es = 0x2222;
    c.fs = 0x3333;
    c.gs = 0x4444;
    c.flags |= FL_CF | FL_AC | FL_ID;
    run_fault("frame.ud", LEAVE, &c, V_UD, NO_ERROR);
    check("frame.at", LEAVE, c.frame, top - 36);
    f = (volatile uint32_t *)c.frame;
    check("frame.eip", LEAVE, f[0], 3);
    check("frame.cs", LEAVE, f[1] & 0xffff, LOW_CODE >> 4);
    check("frame.eflags", LEAVE, f[2], 2 | FL_CF | FL_AC | FL_ID | FL_VM | FL_IOPL | FL_RF);
    check("frame.esp", LEAVE, f[3], 0xf000);
    check("frame.ss", LEAVE, f[4] & 0xffff, LOW_CODE >> 4);
    check("frame.es", LEAVE, f[5] & 0xffff, 0x2222);
    check("frame.ds", LEAVE, f[6] & 0xffff, 0x1111);
    check("frame.fs", LEAVE, f[7] & 0xffff, 0x3333);
    check("frame.gs", LEAVE, f[8] & 0xffff, 0x4444);
    /* the handler begins with empty data registers, VM clear, CPL 0 */
    idt_gate(0x81, S_CODE,
             CODE("mov eax, ds\n mov ebx, es\n mov ecx, fs\n mov edx, gs\n mov esi, cs\n"
                  "pushfd\n pop edi")
                 .start,
             0xee, 0);
    c = vm86(CODE16("int 0x81"), 3);
    c.flags |= FL_CF;
    run(&c);
    check("handler.ds", LEAVE, c.ax, 0);
    check("handler.es", LEAVE, c.bx, 0);
    check("handler.fs", LEAVE, c.cx, 0);
    check("handler.gs", LEAVE, c.dx, 0);
    check("handler.cs", LEAVE, c.si, S_CODE);
    check("handler.flags", LEAVE, c.di & ~FL_IOPL, 2 | FL_CF);
    /* and returns */
    idt_gate(0x81, S_CODE, CODE("mov eax, 0x1234\n iretd").start, 0xee, 0);
    c = vm86(CODE16("int 0x81\n mov bx, ds\n mov cx, gs"), 3);
    c.gs = 0x4444;
    run_through("handler.returns", LEAVE, &c);
    check("handler.returns-ax", LEAVE, c.ax, 0x1234);
    check("handler.returns-ds", LEAVE, c.bx & 0xffff, LOW_CODE >> 4);
    check("handler.returns-gs", LEAVE, c.cx & 0xffff, 0x4444);
    /* a 16-bit gate pushes nine words */
    idt_gate(0x81, 0xb8, 0, 0xe6, 0);
    {
        struct code h = CODE("mov eax, esp");

        gdt_set(0xb8, descriptor(h.start, 0xffff, 0x9a, 4));
        c = vm86(CODE16("int 0x81"), 3);
        c.gs = 0x4444;
        run(&c);
        check("frame16.sp", LEAVE, c.ax, top - 18);
        check("frame16.gs", LEAVE, *(volatile uint16_t *)(top - 2), 0x4444);
        check("frame16.sp-saved", LEAVE, *(volatile uint16_t *)(top - 12), 0xf000);
        check("frame16.cs-saved", LEAVE, *(volatile uint16_t *)(top - 16), LOW_CODE >> 4);
    }
    gdt_reset();
    idt_reset();
}

/* The handler must run at CPL 0. */
static void bad_handlers(void)
{
    static const struct {
        const char *name;
        unsigned access, target;
        int vector;
        unsigned error;
    } rows[] = {
        {"handler.dpl1", 0xee, CODE1, V_GP, CODE1},
        {"handler.dpl3", 0xee, CODE3, V_GP, CODE3},
        {"handler.conforming", 0xee, CONF0, V_GP, CONF0},
        {"handler.null", 0xee, 0, V_GP, 0},
        {"handler.gate-dpl0", 0x8e, S_CODE, V_GP, 0x40a},
        {"handler.absent", 0x6e, S_CODE, V_NP, 0x40a},
    };

    for (unsigned i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct cpu c;

        gdt_set(CODE1, descriptor(0, 0xfffff, 0xba, 0xc));
        gdt_set(CONF0, descriptor(0, 0xfffff, 0x9e, 0xc));
        gdt_set(CODE3, descriptor(0, 0xfffff, 0xfa, 0xc));
        idt_gate(0x81, rows[i].target, CODE("nop").start, rows[i].access, 0);
        c = at_iopl(CODE16("int 0x81"), 3, 0);
        check_fault(rows[i].name, LEAVE, &c, rows[i].vector, rows[i].error);
        if (rows[i].access == 0x6e || rows[i].access == 0x8e)
            continue;
        idt_gate(V_UD, rows[i].target, CODE("nop").start, 0x8e, 0);
        c = at_iopl(CODE16("ud2"), 3, 0);
        check_fault(joined(rows[i].name, "-exception", ""), LEAVE, &c, rows[i].vector,
                    rows[i].error | 1);
        idt_reset();
    }
    gdt_reset();
    idt_reset();
}

/* ---- instructions that ask IOPL ---- */

static void sensitive(void)
{
    static const char *const names[] = {"cli",  "sti",    "pushf", "popf",  "int",
                                        "iret", "pushfd", "popfd", "iretd", "int-128"};
    struct cpu c;

    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct code codes[] = {
            CODE16("cli"),
            CODE16("sti\n nop"),
            CODE16("pushf"),
            CODE16("push 2\n 9: popf"),
            CODE16("int 0x81"),
            CODE16("push 2\n push cs\n push 10\n 9: iret\n .balign 2\n nop\n nop\n nop\n nop"),
            CODE16("pushfd"),
            CODE16("push 0\n push 2\n 9: popfd"),
            CODE16("push 0\n push 2\n push 0\n push cs\n push 0\n push 16\n 9: iretd\n"
                   ".skip 16, 0x90"),
            CODE16("int 0x80"),
        };

        for (unsigned iopl = 0; iopl < 4; iopl++) {
            static const char *const levels[] = {"-iopl0", "-iopl1", "-iopl2", "-iopl3"};

            idt_reset();
            idt_usual(0x81, 0xee, 0);
            c = at_iopl(codes[i], iopl, 0);
            if (iopl < 3)
                check_fault(joined("sensitive.", names[i], levels[iopl]), SENSITIVE, &c, V_GP, 0);
            else if (i == 4)
                check_event(joined("sensitive.", names[i], levels[iopl]), SENSITIVE, &c, 0x81,
                            NO_ERROR, 2);
            else if (i == 9)
                check_event(joined("sensitive.", names[i], levels[iopl]), SENSITIVE, &c, 0x80,
                            NO_ERROR, 2);
            else
                check_through(joined("sensitive.", names[i], levels[iopl]), SENSITIVE, &c);
        }
    }
    /* INT n asks IOPL before it looks at its gate */
    idt_reset();
    c = at_iopl(CODE16("int 0x81"), 0, 0);
    check_fault("sensitive.int-before-gate-dpl", SENSITIVE, &c, V_GP, 0);
    idt_gate(0x81, S_CODE, 0, 0x6e, 0);
    c = at_iopl(CODE16("int 0x81"), 0, 0);
    check_fault("sensitive.int-before-gate-presence", SENSITIVE, &c, V_GP, 0);
    idt_gate(0x81, S_CODE, 0, 0xe9, 0);
    c = at_iopl(CODE16("int 0x81"), 2, 0);
    check_fault("sensitive.int-before-gate-type", SENSITIVE, &c, V_GP, 0);
    /* INT3 and INTO do not ask IOPL, but the gate's DPL */
    idt_reset();
    c = at_iopl(CODE16("int3"), 0, 0);
    check_fault("sensitive.int3-dpl0", SENSITIVE, &c, V_GP, 8 * V_BP + 2);
    idt_usual(V_BP, 0xee, 0);
    idt_usual(V_OF, 0xee, 0);
    c = at_iopl(CODE16("int3\n nop"), 0, 0);
    check_event("sensitive.int3", SENSITIVE, &c, V_BP, NO_ERROR, 1);
    c = at_iopl(CODE16("mov al, 0x7f\n add al, 1\n 9: into\n nop"), 0, 0);
    check_event("sensitive.into", SENSITIVE, &c, V_OF, NO_ERROR, 5);
    c = at_iopl(CODE16(".byte 0xcd, 3"), 0, 0); /* CD 03 is an INT n */
    check_fault("sensitive.int-3-long", SENSITIVE, &c, V_GP, 0);
    idt_reset();
}

/* What they do with IOPL 3. */
static void with_iopl3(void)
{
    struct cpu c = at_iopl(CODE16("cli\n pushf\n pop ax\n sti\n pushf\n pop bx"), 3, FL_IF);

    check("iopl3.cli", SENSITIVE, c.ax & FL_IF, 0);
    check("iopl3.sti", SENSITIVE, c.bx & FL_IF, FL_IF);
    check("iopl3.pushf-iopl", SENSITIVE, c.ax & FL_IOPL, FL_IOPL);
    c = at_iopl(CODE16("push 0x4201\n popf\n pushf\n pop ax\n push 2\n popf"), 3, 0);
    check("iopl3.popf", SENSITIVE, c.ax & 0xffff, 0x7203); /* IOPL stays */
    c = at_iopl(CODE16("pushfd\n pop eax"), 3, FL_CF | FL_AC | FL_ID);
    check("iopl3.pushfd", SENSITIVE, c.ax, 2 | FL_CF | FL_AC | FL_ID | FL_IOPL); /* VM, RF clear */
    c = at_iopl(CODE16("mov eax, 0x3a0003\n push eax\n popfd\n pushfd\n pop ebx"), 3, 0);
    check("iopl3.popfd-vm-stays", SENSITIVE, c.flags & FL_VM, FL_VM);
    check("iopl3.popfd-vif-vip-stay", SENSITIVE, c.bx & (FL_VIF | FL_VIP | FL_ID), FL_ID);
    c = at_iopl(CODE16("mov eax, 0x1a0203\n push eax\n push 0\n push cs\n push 0\n"
                       "push 28\n iretd\n .skip 28, 0x90\n pushfd\n pop ebx"),
                3, 0);
    check("iopl3.iretd-vm-stays", SENSITIVE, c.flags & FL_VM, FL_VM);
    check("iopl3.iretd-flags", SENSITIVE, c.bx, 2 | FL_CF | FL_IF | FL_IOPL);
}

/* ---- privileged and unrecognized instructions ---- */

static void privileged(void)
{
    static const char *const names[] = {
        "hlt",  "lgdt",   "lidt",   "lmsw",  "clts",  "mov-cr0", "mov-to-cr3", "mov-dr",
        "invd", "wbinvd", "invlpg", "rdmsr", "wrmsr", "lldt",    "ltr",        "sldt",
        "str",  "lar",    "lsl",    "verr",  "verw",  "arpl"};
    struct code codes[] = {
        CODE16("hlt"),     CODE16("lgdt [bx]"),    CODE16("lidt [bx]"),    CODE16("lmsw ax"),
        CODE16("clts"),    CODE16("mov eax, cr0"), CODE16("mov cr3, eax"), CODE16("mov eax, dr7"),
        CODE16("invd"),    CODE16("wbinvd"),       CODE16("invlpg [bx]"),  CODE16("rdmsr"),
        CODE16("wrmsr"),   CODE16("lldt ax"),      CODE16("ltr ax"),       CODE16("sldt ax"),
        CODE16("str ax"),  CODE16("lar ax, bx"),   CODE16("lsl ax, bx"),   CODE16("verr ax"),
        CODE16("verw ax"), CODE16("arpl ax, bx")};

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct cpu c = at_iopl(codes[i], 3, 0);

        check_fault(joined("vm86.", names[i], ""), "SDM Vol.3, instructions in virtual-8086 mode",
                    &c, i < 13 ? V_GP : V_UD, i < 13 ? 0 : NO_ERROR);
    }
    struct cpu c = at_iopl(CODE16("smsw ax\n sgdt [0x100]\n sidt [0x108]"), 0, 0);

    check_through("vm86.smsw-sgdt-sidt", "SDM Vol.3, instructions in virtual-8086 mode", &c);
    check("vm86.smsw", "SDM Vol.2, SMSW", c.ax & 0xffff, cr0() & 0xffff);
    set_cr4(cr4() | CR4_TSD);
    c = at_iopl(CODE16("rdtsc"), 3, 0);
    check_fault("vm86.rdtsc-tsd", "SDM Vol.2, RDTSC", &c, V_GP, 0);
    set_cr4(cr4() & ~CR4_TSD);
}

/* ---- ports: the bitmap, whatever IOPL is ---- */

static void ports(void)
{
    struct cpu c = vm86(CODE16("in al, dx"), 3);

    c.dx = 0x9000;
    run_fault("io.forbidden-iopl3", IO, &c, V_GP, 0);
    tss[104 + 0x9000 / 8] = 0xfe;
    c = vm86(CODE16("in al, dx"), 0);
    c.dx = 0x9000;
    run_through("io.allowed-iopl0", IO, &c);
    c = vm86(CODE16("in ax, dx"), 3);
    c.dx = 0x9000;
    run_fault("io.word-forbidden", IO, &c, V_GP, 0);
    c = vm86(CODE16("out dx, al"), 0);
    c.dx = 0x9000;
    run_through("io.out-allowed", IO, &c);
    c = vm86(CODE16("outsb"), 3);
    c.dx = 0x9001;
    run_fault("io.outs-forbidden", IO, &c, V_GP, 0);
    c = vm86(CODE16("insb"), 3);
    c.dx = 0x9000;
    c.di = 0x200;
    run_through("io.ins-allowed", IO, &c);
    gdt_reset();
}

/* ---- segments: 64 KiB, anything goes ---- */

static void segments(void)
{
    struct cpu c;

    LOW[0x100] = 0x5a;
    c = at_iopl(CODE16("mov ax, 0x2010\n mov ds, ax\n mov bl, [0]"), 0, 0);
    check("segment.load", SEGMENTS, through(&c) ? c.bx & 0xff : 0xbad, LOW[0x100]);
    c = at_iopl(CODE16("xor ax, ax\n mov ds, ax\n mov bx, [0x400]"), 0, 0);
    check_through("segment.null-is-zero", SEGMENTS, &c);
    c = at_iopl(CODE16("mov ax, [0xffff]"), 0, 0);
    check_fault("segment.word-at-end", SEGMENTS, &c, V_GP, 0);
    c = at_iopl(CODE16("mov eax, [0xfffd]"), 0, 0);
    check_fault("segment.dword-at-end", SEGMENTS, &c, V_GP, 0);
    c = at_iopl(CODE16("mov al, [0xffff]"), 0, 0);
    check_through("segment.byte-at-end", SEGMENTS, &c);
    c = at_iopl(CODE16("mov edi, 0x10000\n 9: mov al, [edi]"), 0, 0);
    check_fault("segment.32-bit-offset", SEGMENTS, &c, V_GP, 0);
    c = at_iopl(CODE16("mov bp, 0xffff\n 9: mov ax, [bp]"), 0, 0);
    check_fault("segment.stack-word-at-end", SEGMENTS, &c, V_SS, 0);
    c = at_iopl(CODE16("mov sp, 1\n 9: push ax"), 0, 0);
    check_fault("segment.push-at-1", SEGMENTS, &c, V_SS, 0);
    c = at_iopl(CODE16("xor sp, sp\n push ax\n mov cx, sp"), 0, 0);
    check("segment.push-at-0", SEGMENTS, through(&c) ? c.cx & 0xffff : 0xbad, 0xfffe);
    c = at_iopl(CODE16("mov byte ptr cs:[0x200], 7\n mov al, cs:[0x200]"), 0, 0);
    check("segment.cs-writable", SEGMENTS, through(&c) ? c.ax & 0xff : 0xbad, 7);
    c = at_iopl(CODE16("mov bx, 0xffff\n mov si, 0x202\n mov al, [bx+si]"), 0, 0);
    check("segment.offset-wraps", SEGMENTS, through(&c) ? c.ax & 0xff : 0xbad, LOW[0x201]);
    c = at_iopl(CODE16("mov eax, 0x10000\n 9: jmp eax"), 0, 0);
    check_fault("segment.jmp-beyond", SEGMENTS, &c, V_GP, 0);
    c = at_iopl(CODE16("push 0x2000\n push 8\n retf\n nop\n nop\n nop\n nop\n mov cx, cs"), 0, 0);
    check_through("segment.retf", SEGMENTS, &c);
    c = at_iopl(CODE16(".byte 0xea\n .word 24, 0x1fff\n .skip 3, 0xf4\n mov bx, cs\n mov cx, sp"),
                3, 0);
    check("segment.far-jmp", SEGMENTS, c.vector == V_DONE ? c.bx & 0xffff : 0xbad, 0x1fff);
    /* begins with a way out, should it come to offset 0 again */
    c = at_iopl(CODE16("jcxz 1f\n int 0x80\n 1: inc cx\n mov word ptr [0xfffe], 0x9090\n"
                       "mov ax, 0xfffe\n jmp ax"),
                3, 0);
    check_event("segment.code-runs-out", SEGMENTS, &c, V_GP, 0, 0x10000);
    c = at_iopl(CODE16("mov byte ptr [0xffff], 0xb8\n mov ax, 0xffff\n jmp ax"), 3, 0);
    check_event("segment.code-across-end", SEGMENTS, &c, V_GP, 0, 0xffff);
    /* above 1 MiB, since nothing closes A20 for linear addresses */
    c = at_iopl(CODE16("mov ax, 0xffff\n mov ds, ax\n mov bl, [0x10]"), 0, 0);
    check("segment.above-1m", SEGMENTS, through(&c) ? c.bx & 0xff : 0xbad,
          *(volatile uint8_t *)0x100000);
}

/* ---- virtual-mode extensions ---- */

static void ivt_to_low(unsigned vector)
{
    volatile word entry = 4 * vector; /* the compiler does not like addresses near zero */

    *(volatile uint32_t *)entry = (LOW_CODE >> 4) << 16 | 0x400;
}

/* Bitmap bits: 32 bytes before the I/O bitmap. */
static void redirect_map(bool redirect)
{
    gdt_reset();
    tss[102] = 136;
    for (unsigned i = 0; i < 32; i++)
        tss[104 + i] = redirect ? 0 : 0xff;
    ivt_to_low(0x21);
    /* mov ax, cs; mov bx, sp; pushf; pop cx; ud2 */
    static const uint8_t handler[] = {0x8c, 0xc8, 0x89, 0xe3, 0x0f, 0x0b};

    for (unsigned i = 0; i < sizeof(handler); i++)
        LOW[0x400 + i] = handler[i];
}

static void vme(void)
{
    struct cpu c;

    redirect_map(false);
    set_cr4(cr4() | CR4_VME);
    c = at_iopl(CODE16("cli"), 0, FL_VIF | FL_IF);
    check_through("vme.cli", VME, &c);
    check("vme.cli-vif", VME, c.flags & (FL_VIF | FL_IF), FL_IF);
    c = at_iopl(CODE16("sti"), 0, 0);
    check_through("vme.sti", VME, &c);
    check("vme.sti-vif", VME, c.flags & (FL_VIF | FL_IF), FL_VIF);
    c = at_iopl(CODE16("sti"), 0, FL_VIP);
    check_fault("vme.sti-vip", VME, &c, V_GP, 0);
    c = at_iopl(CODE16("cli"), 0, FL_VIP | FL_VIF);
    check_through("vme.cli-vip", VME, &c);
    c = at_iopl(CODE16("pushf\n pop ax"), 0, FL_VIF | FL_CF);
    check("vme.pushf-vif", VME, through(&c) ? c.ax & 0xffff : 0xbad, 2 | FL_CF | FL_IF | FL_IOPL);
    c = at_iopl(CODE16("pushf\n pop ax"), 1, FL_IF);
    check("vme.pushf-no-vif", VME, through(&c) ? c.ax & 0xffff : 0xbad, 2 | FL_IOPL);
    c = at_iopl(CODE16("push 0x203\n popf"), 0, 0);
    check("vme.popf-if", VME, through(&c) ? c.flags & (FL_VIF | FL_IF | FL_CF) : 0xbad,
          FL_VIF | FL_CF);
    c = at_iopl(CODE16("push 3\n popf"), 0, FL_VIF | FL_IF);
    check("vme.popf-no-if", VME, through(&c) ? c.flags & (FL_VIF | FL_IF | FL_CF) : 0xbad,
          FL_IF | FL_CF);
    c = at_iopl(CODE16("push 0x3002\n popf"), 0, 0);
    check("vme.popf-iopl-stays", VME, c.flags & FL_IOPL, 0);
    c = at_iopl(CODE16("push 0x202\n 9: popf"), 0, FL_VIP);
    check_fault("vme.popf-vip", VME, &c, V_GP, 0);
    c = at_iopl(CODE16("push 2\n 9: popf"), 0, FL_VIP);
    check_through("vme.popf-vip-no-if", VME, &c);
    c = at_iopl(CODE16("push 0x102\n 9: popf"), 0, 0);
    check_fault("vme.popf-tf", VME, &c, V_GP, 0);
    c = at_iopl(CODE16("pushfd"), 0, 0);
    check_fault("vme.pushfd", VME, &c, V_GP, 0);
    c = at_iopl(CODE16("push 0\n push 2\n 9: popfd"), 0, 0);
    check_fault("vme.popfd", VME, &c, V_GP, 0);
    c = at_iopl(CODE16("push 0x203\n push cs\n push 12\n 9: iret\n .skip 8, 0x90"), 0, 0);
    check_through("vme.iret", VME, &c);
    check("vme.iret-flags", VME, c.flags & (FL_VIF | FL_IF | FL_CF), FL_VIF | FL_CF);
    c = at_iopl(CODE16("push 0x202\n push cs\n push 12\n 9: iret\n .skip 8, 0x90"), 0, FL_VIP);
    check_fault("vme.iret-vip", VME, &c, V_GP, 0);
    c = at_iopl(CODE16("push 0x102\n push cs\n push 12\n 9: iret\n .skip 8, 0x90"), 0, 0);
    check_fault("vme.iret-tf", VME, &c, V_GP, 0);
    c = at_iopl(CODE16("push 0\n push 2\n push 0\n push cs\n push 0\n push 16\n 9: iretd"), 0, 0);
    check_fault("vme.iretd", VME, &c, V_GP, 0);
    /* IOPL 3: as without VME */
    c = at_iopl(CODE16("sti\n cli"), 3, FL_VIF);
    check("vme.iopl3-cli", VME, c.flags & (FL_VIF | FL_IF), FL_VIF);
    c = at_iopl(CODE16("sti\n nop"), 3, FL_VIP);
    check("vme.iopl3-sti-vip", VME, through(&c) ? c.flags & (FL_VIP | FL_IF) : 0xbad,
          FL_VIP | FL_IF);
    c = at_iopl(CODE16("pushf\n pop ax"), 3, FL_VIF);
    check("vme.iopl3-pushf", VME, c.ax & FL_IF, 0);
    set_cr4(cr4() & ~CR4_VME);
    c = at_iopl(CODE16("cli"), 0, 0);
    check_fault("vme.off-cli", VME, &c, V_GP, 0);
}

/* VIP without VIF, and both where the extensions are off. */
static void pending(void)
{
    struct cpu c;

    redirect_map(false);
    set_cr4(cr4() | CR4_VME);
    c = at_iopl(CODE16("nop"), 0, FL_VIP);
    check_through("vme.pending-without-vif", VME, &c);
    set_cr4(cr4() & ~CR4_VME);
    c = at_iopl(CODE16("nop"), 3, FL_VIP | FL_VIF);
    check_through("vme.off-pending-at-entry", VME, &c);
}

/* ---- INT n by the redirection bitmap ---- */

static void redirection(void)
{
    struct cpu c;

    set_cr4(cr4() | CR4_VME);
    redirect_map(true);
    c = vm86(CODE16("mov dx, 7\n int 0x21\n nop"), 3);
    redirect_map(true);
    c.flags |= FL_IF | FL_CF;
    run(&c);
    check_event("redirect.iopl3", REDIRECT, &c, V_UD, NO_ERROR, 0x404);
    check("redirect.iopl3-sp", REDIRECT, c.bx & 0xffff, 0xeffa);
    check("redirect.iopl3-ip", REDIRECT, low16(0xeffa), 5);
    check("redirect.iopl3-cs", REDIRECT, low16(0xeffc), LOW_CODE >> 4);
    check("redirect.iopl3-flags", REDIRECT, low16(0xeffe), 2 | FL_CF | FL_IF | FL_IOPL);
    check("redirect.iopl3-if", REDIRECT, c.flags & (FL_IF | FL_VM), FL_VM);
    c = vm86(CODE16("mov dx, 7\n int 0x21\n nop"), 0);
    redirect_map(true);
    c.flags |= FL_IF | FL_VIF;
    run(&c);
    check_event("redirect.iopl0", REDIRECT, &c, V_UD, NO_ERROR, 0x404);
    check("redirect.iopl0-flags", REDIRECT, low16(0xeffe), 2 | FL_IF | FL_IOPL);
    check("redirect.iopl0-vif", REDIRECT, c.flags & (FL_IF | FL_VIF), FL_IF);
    c = vm86(CODE16("int 0x21\n nop"), 0);
    redirect_map(true);
    c.flags |= FL_IF;
    run(&c);
    check("redirect.iopl0-flags-no-vif", REDIRECT, low16(0xeffe), 2 | FL_IOPL);
    c = vm86(CODE16("int 0x21\n nop"), 0);
    redirect_map(false);
    run_fault("redirect.bit-set-iopl0", REDIRECT, &c, V_GP, 0);
    c = vm86(CODE16("int 0x21\n nop"), 3);
    redirect_map(false);
    idt_usual(0x21, 0xee, 0);
    run(&c);
    check_event("redirect.bit-set-iopl3", REDIRECT, &c, 0x21, NO_ERROR, 2);
    /* one bit alone, of the vector's byte */
    c = vm86(CODE16("int 0x21\n nop"), 3);
    redirect_map(false);
    tss[104 + 0x21 / 8] = (uint8_t) ~(1u << (0x21 % 8));
    run(&c);
    check_event("redirect.own-bit", REDIRECT, &c, V_UD, NO_ERROR, 0x404);
    c = vm86(CODE16("int 0x21\n nop"), 3);
    redirect_map(true);
    tss[104 + 0x21 / 8] = 1u << (0x21 % 8);
    run(&c);
    check_event("redirect.only-own-bit", REDIRECT, &c, 0x21, NO_ERROR, 2);
    /* INT3 and INTO are not redirected, CD 03 is */
    ivt_to_low(3);
    idt_usual(V_BP, 0xee, 0);
    c = vm86(CODE16("int3\n nop"), 0);
    redirect_map(true);
    run(&c);
    check_event("redirect.not-int3", REDIRECT, &c, V_BP, NO_ERROR, 1);
    c = vm86(CODE16(".byte 0xcd, 3\n nop"), 0);
    redirect_map(true);
    run(&c);
    check_event("redirect.cd-03", REDIRECT, &c, V_UD, NO_ERROR, 0x404);
    set_cr4(cr4() & ~CR4_VME);
    c = vm86(CODE16("int 0x21\n nop"), 0);
    redirect_map(true);
    run_fault("redirect.off", REDIRECT, &c, V_GP, 0);
    gdt_reset();
    idt_reset();
}

/* ---- CR4.PVI ---- */

static struct cpu at_cpl3(struct code code, word flags)
{
    struct cpu c = user(code);

    c.flags |= flags;
    run(&c);
    return c;
}

static void pvi(void)
{
    struct cpu c;

    set_cr4(cr4() | CR4_PVI);
    c = at_cpl3(UCODE("cli"), FL_VIF | FL_IF);
    check_done("pvi.cli", PVI, &c);
    check("pvi.cli-vif", PVI, c.flags & (FL_VIF | FL_IF), FL_IF);
    c = at_cpl3(UCODE("sti"), 0);
    check_done("pvi.sti", PVI, &c);
    check("pvi.sti-vif", PVI, c.flags & (FL_VIF | FL_IF), FL_VIF);
    c = at_cpl3(UCODE("sti"), FL_VIP);
    check_fault("pvi.sti-vip", PVI, &c, V_GP, 0);
    c = at_cpl3(UCODE("pushfd\n pop eax"), FL_VIF);
    check("pvi.pushf-is-as-ever", PVI, c.ax & (FL_IF | FL_IOPL), 0);
    c = at_cpl3(UCODE("push 0x202\n popfd"), 0);
    check("pvi.popf-is-as-ever", PVI, c.flags & (FL_IF | FL_VIF), 0);
    c = at_cpl3(UCODE("sti\n cli"), FL_IOPL | FL_VIF);
    check("pvi.iopl3-cli", PVI, c.flags & (FL_IF | FL_VIF), FL_VIF);
    c = at_level(CODE("cli"), 1);
    run_fault("pvi.cpl1-cli", PVI, &c, V_GP, 0);
    c = at_level(CODE("sti"), 2);
    run_fault("pvi.cpl2-sti", PVI, &c, V_GP, 0);
    c = at_iopl(CODE16("cli"), 0, 0);
    check_fault("pvi.not-in-vm86", PVI, &c, V_GP, 0);
    c = kernel(CODE("nop"));
    c.flags |= FL_VIF | FL_VIP;
    run_done("pvi.pending-cpl0", PVI, &c);
    set_cr4(cr4() & ~CR4_PVI);
    c = at_cpl3(UCODE("nop"), FL_VIF | FL_VIP);
    check_done("pvi.off-pending", PVI, &c);
    c = at_cpl3(UCODE("cli"), 0);
    check_fault("pvi.off-cli", PVI, &c, V_GP, 0);
}

void test(void)
{
    entry();
    frames();
    bad_handlers();
    sensitive();
    with_iopl3();
    privileged();
    ports();
    segments();
    require(cpuid_bit(1, 0, 3, 1), "virtual-mode extensions are not offered");
    vme();
    pending();
    redirection();
    pvi();
    require_end();
}
