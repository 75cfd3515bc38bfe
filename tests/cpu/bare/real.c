/* Real-address mode and 16-bit protected mode: limits, wraps, interrupts, the ways between modes.
 */
#include "bare.h"

#define REAL "SDM Vol.3, real-address mode"
#define INTS "SDM Vol.3, interrupt and exception handling in real-address mode"
#define SWITCH "SDM Vol.3, switching modes"
#define PROTECTED16 "SDM Vol.3, 16-bit protected mode"
#define A20 "SDM Vol.3, address wraparound"

#define LOW ((volatile uint8_t *)(word)LOW_CODE)

static uint16_t low16(unsigned offset)
{
    return *(volatile uint16_t *)(LOW_CODE + offset);
}

static uint32_t low32(unsigned offset)
{
    return *(volatile uint32_t *)(LOW_CODE + offset);
}

static struct cpu in_real(struct code code)
{
    struct cpu c = real(code);

    run_real(&c);
    return c;
}

/* The fault's vector and address, and that no error code was pushed. */
static void faults(const char *name, struct code code, int vector)
{
    struct cpu c = in_real(code);

    check_event(name, REAL, &c, vector, NO_ERROR, c.code.mark);
}

static void done(const char *name, struct code code)
{
    struct cpu c = in_real(code);

    check_done(name, REAL, &c);
}

/* The fragment comes to its end with this in AX. */
static void gives(const char *name, struct code code, word ax)
{
    struct cpu c = in_real(code);

    check(name, REAL, c.vector == V_DONE ? c.ax & 0xffff : 0xbad0bad, ax);
}

/* ---- limits and wraps ---- */

static void limits(void)
{
    done("limit.byte-last", CODE16("mov al, [0xffff]"));
    faults("limit.word-at-end", CODE16("mov ax, [0xffff]"), V_GP);
    faults("limit.word-write-at-end", CODE16("mov [0xffff], ax"), V_GP);
    faults("limit.dword-at-end", CODE16("mov eax, [0xfffd]"), V_GP);
    done("limit.dword-last", CODE16("mov eax, [0xfffc]"));
    faults("limit.32-bit-offset", CODE16("mov edi, 0x10000\n 9: mov al, [edi]"), V_GP);
    faults("limit.32-bit-offset-write", CODE16("mov edi, -1\n 9: mov [edi], al"), V_GP);
    faults("limit.stack-word-at-end", CODE16("mov bp, 0xffff\n 9: mov ax, [bp]"), V_SS);
    faults("limit.es-override", CODE16("mov ax, es:[0xffff]"), V_GP);
    faults("limit.ss-override", CODE16("mov ax, ss:[0xffff]"), V_SS);
    faults("limit.fld-across", CODE16("fninit\n 9: fld tbyte ptr [0xfff7]"), V_GP);
    faults("limit.movs", CODE16("mov si, 0xffff\n mov di, 0x400\n 9: movsw"), V_GP);
    faults("limit.stos-32", CODE16("mov edi, 0x10000\n 9: .byte 0x67\n stosb"), V_GP);
    gives("wrap.bx-si",
          CODE16("mov byte ptr [0x300], 0x5a\n mov bx, 0xff00\n mov si, 0x400\n"
                 "xor ax, ax\n mov al, [bx+si]"),
          0x5a);
    gives("wrap.negative-displacement",
          CODE16("mov byte ptr [0xfff0], 0x5b\n xor bx, bx\n xor ax, ax\n mov al, [bx-16]"), 0x5b);
    gives("wrap.push-at-0",
          CODE16("mov dx, sp\n xor sp, sp\n push 0x1234\n mov ax, sp\n mov sp, dx"), 0xfffe);
    gives("wrap.pop-at-fffe",
          CODE16("mov dx, sp\n mov sp, 0xfffe\n pop cx\n mov ax, sp\n mov sp, dx"), 0);
    gives("wrap.stos",
          CODE16("mov di, 0xfffe\n mov cx, 4\n mov al, 0x90\n push word ptr [0]\n"
                 "rep stosb\n pop word ptr [0]\n mov ax, di"),
          2);
    gives("wrap.lods-down", CODE16("std\n mov si, 1\n mov cx, 3\n rep lodsb\n cld\n mov ax, si"),
          0xfffe);
    gives("wrap.xlat", CODE16("mov byte ptr [0x8f], 0x44\n mov bx, 0xffff\n mov ax, 0x90\n xlatb"),
          0x44);
    gives("wrap.lea", CODE16("mov bx, 0xfff0\n lea ax, [bx+0x20]"), 0x10);
    gives("wrap.cx-loop", CODE16("mov ecx, 0x10001\n xor ax, ax\n 1: inc ax\n loop 1b"), 1);
    gives("wrap.jmp",
          CODE16("mov byte ptr [0xfff0], 0xe9\n mov word ptr [0xfff1], offset 1f - 77b - "
                 "0xfff3\n mov ax, 0xfff0\n jmp ax\n 1: mov ax, 0x77"),
          0x77);
}

/* Code at the segment's end; CX keeps the way back. */
static void code_end(void)
{
    /* begins with a way out, should it come to offset 0 again */
    struct cpu c = in_real(CODE16("jcxz 1f\n int 0x80\n 1: inc cx\n mov word ptr [0xfffe], 0x9090\n"
                                  "mov ax, 0xfffe\n jmp ax"));

    check_event("code.runs-out", REAL, &c, V_GP, NO_ERROR, 0);
    c = in_real(CODE16("mov byte ptr [0xffff], 0xb8\n mov ax, 0xffff\n jmp ax"));
    check_event("code.across-end", REAL, &c, V_GP, NO_ERROR, 0xffff);
    c = in_real(CODE16("mov eax, 0x10000\n 9: jmp eax"));
    check_fault("code.jmp-beyond", REAL, &c, V_GP, NO_ERROR);
    c = in_real(CODE16("mov eax, 0x10000\n push eax\n 9: .byte 0x66\n ret"));
    check_fault("code.ret-beyond", REAL, &c, V_GP, NO_ERROR);
    check("code.ret-beyond-sp", REAL, c.sp, 0xeffc);
    c = in_real(CODE16(".byte 0x66, 0xe9\n .long 0x10000"));
    check_fault("code.jmp-rel32-beyond", REAL, &c, V_GP, NO_ERROR);
    c = in_real(CODE16(".byte 0x66, 0xea\n .long 0x10000\n .word 0x2000"));
    check_fault("code.far-jmp-beyond", REAL, &c, V_GP, NO_ERROR);
    c = in_real(CODE16(".byte 0x66, 0x9a\n .long 0x10000\n .word 0x2000"));
    check_fault("code.far-call-beyond", REAL, &c, V_GP, NO_ERROR);
    check("code.far-call-beyond-sp", REAL, c.sp, 0xf000);
    c = in_real(CODE16(".rept 15\n .byte 0x3e\n .endr\n nop"));
    check_fault("code.too-long", REAL, &c, V_GP, NO_ERROR);
}

/* ---- interrupts ---- */

static void interrupts(void)
{
    struct cpu c = in_real(CODE16("int 0x81\n nop"));

    check_event("int.vector", INTS, &c, 0x81, NO_ERROR, 2);
    check("int.sp", INTS, c.sp, 0xf000);
    check("int.frame-cs", INTS, c.cs, LOW_CODE >> 4);
    c = in_real(CODE16("div cl"));
    check_fault("int.divide-is-a-fault", INTS, &c, V_DE, NO_ERROR);
    check("int.no-error-code", INTS, c.sp, 0xf000);
    c = in_real(CODE16("mov ax, [0xffff]"));
    check("int.gp-no-error-code", INTS, c.sp, 0xf000);
    faults("int.aam-0", CODE16("aam 0"), V_DE);
    faults("int.ud2", CODE16("ud2"), V_UD);
    c = in_real(CODE16("int3\n nop"));
    check_event("int.int3", INTS, &c, V_BP, NO_ERROR, 1);
    c = in_real(CODE16("mov al, 0x7f\n inc al\n 9: into\n nop"));
    check_event("int.into", INTS, &c, V_OF, NO_ERROR, 5);
    c = in_real(CODE16("mov dword ptr [0x100], 0x00050001\n mov ax, 6\n 9: bound ax, [0x100]"));
    check_fault("int.bound", INTS, &c, V_BR, NO_ERROR);
    c = in_real(CODE16(".byte 0xf1\n nop"));
    check_event("int.int1", INTS, &c, V_DB, NO_ERROR, 1);
    c = in_real(CODE16("push 0x102\n popf\n nop\n nop"));
    check_event("int.single-step", INTS, &c, V_DB, NO_ERROR, 5);
    check("int.single-step-flags", INTS, c.flags & FL_TF, FL_TF);
    /* a handler of the fragment: flags within and after */
    c = in_real(
        CODE16("cli\n push ds\n push 0\n pop ds\n mov word ptr [0x81 * 4], offset 1f - 77b\n"
               "mov word ptr [0x81 * 4 + 2], cs\n pop ds\n push 0x4ed7\n popf\n int 0x81\n"
               "cli\n pushf\n pop dx\n jmp 2f\n"
               "1: pushf\n pop bx\n mov bp, sp\n mov cx, [bp+4]\n iret\n 2:"));
    check_done("int.handler", INTS, &c);
    check("int.handler-flags", INTS, c.bx & 0xffff, 0x4cd7 & ~FL_TF);
    check("int.handler-frame", INTS, c.cx & 0xffff, 0x4ed7);
    check("int.after-iret", INTS, c.dx & 0xffff, 0x4cd7);
    c = in_real(CODE16("pushfd\n or dword ptr [esp], 0x40000\n popfd\n cli\n push ds\n push 0\n"
                       "pop ds\n mov word ptr [0x81 * 4], offset 1f - 77b\n"
                       "mov word ptr [0x81 * 4 + 2], cs\n pop ds\n int 0x81\n jmp 2f\n"
                       "1: pushfd\n pop eax\n iret\n 2:"));
    check("int.handler-ac-clear", INTS, c.vector == V_DONE ? c.ax & FL_AC : 0xbad, 0);
    /* a frame for 32 bits */
    c = in_real(CODE16("pushfd\n push 0\n push cs\n push 0\n push offset 1f - 77b\n"
                       ".byte 0x66, 0xcf\n nop\n 1: mov ax, sp"));
    check("int.iretd", INTS, c.vector == V_DONE ? c.ax & 0xffff : 0xbad, 0xf000);
    c = in_real(CODE16("pushfd\n push 1\n push cs\n push 1\n push 0\n 9: .byte 0x66, 0xcf"));
    check_fault("int.iretd-beyond", INTS, &c, V_GP, NO_ERROR);
}

/* The table where IDTR says, as long as IDTR says. */
static void tables(void)
{
    struct cpu c = in_real(CODE16("mov word ptr [0x100], 0x37\n mov dword ptr [0x102], 0\n"
                                  "lidt [0x100]\n 9: int 0x81"));

    check_fault("ivt.limit", INTS, &c, V_GP, NO_ERROR);
    c = in_real(CODE16("mov word ptr [0x100], 0x38\n mov dword ptr [0x102], 0\n"
                       "lidt [0x100]\n 9: int 14"));
    check_fault("ivt.limit-within-entry", INTS, &c, V_GP, NO_ERROR);
    c = in_real(CODE16("mov word ptr [0x100], 0x3b\n mov dword ptr [0x102], 0\n"
                       "lidt [0x100]\n int 14"));
    check("ivt.limit-exact", INTS, c.vector, 14);
    c = in_real(
        CODE16("mov word ptr [0x100], 0x3ff\n mov dword ptr [0x102], 0x21000\n"
               "push ds\n push 0\n pop ds\n push 0x2100\n pop es\n xor si, si\n xor di, di\n"
               "mov cx, 0x400\n rep movsb\n pop ds\n"
               "mov ax, [0x1000 + 4 * 0x33]\n mov [0x1000 + 4 * 0x44], ax\n"
               "lidt [0x100]\n int 0x44"));
    check("ivt.moved", INTS, c.vector, 0x33);
    c = in_real(CODE16("mov word ptr [0x100], 0x1234\n mov dword ptr [0x102], 0xaa123456\n"
                       "lgdt [0x100]\n .byte 0x66\n sgdt [0x108]"));
    check("lgdt.16-bit-limit", "SDM Vol.2, LGDT", low16(0x108), 0x1234);
    check("lgdt.16-bit-base", "SDM Vol.2, LGDT", low32(0x10a), 0x123456);
    c = in_real(CODE16("mov word ptr [0x100], 0x1234\n mov dword ptr [0x102], 0xaa123456\n"
                       ".byte 0x66, 0x0f, 0x01, 0x16, 0, 1\n .byte 0x66\n sgdt [0x108]"));
    check("lgdt.32-bit-base", "SDM Vol.2, LGDT", low32(0x10a), 0xaa123456);
}

/* ---- stack, flags, segments ---- */

static void stack(void)
{
    gives("stack.push-sp", CODE16("push sp\n pop ax"), 0xf000);
    gives("stack.pop-sp", CODE16("mov dx, sp\n push 0x1234\n pop sp\n mov ax, sp\n mov sp, dx"),
          0x1234);
    gives("stack.pusha-sp", CODE16("pusha\n mov bp, sp\n mov ax, [bp+6]\n add sp, 16"), 0xf000);
    gives("stack.popa-skips-sp",
          CODE16("pusha\n mov bp, sp\n mov word ptr [bp+6], 0x1111\n"
                 "mov word ptr [bp+14], 0x2222\n popa\n mov bx, sp"),
          0x2222);
    gives("stack.push-imm8", CODE16("push -2\n pop ax"), 0xfffe);
    gives("stack.push-imm8-size", CODE16("push -2\n mov ax, sp\n pop cx"), 0xeffe);
    gives("stack.push-32-size", CODE16(".byte 0x66\n push -2\n mov ax, sp\n pop ecx"), 0xeffc);
    gives("stack.push-ds-32-size", CODE16(".byte 0x66, 0x1e\n mov ax, sp\n .byte 0x66, 0x1f"),
          0xeffc);
    gives("stack.call-near", CODE16("call 1f\n 1: pop ax"), 3);
    gives("stack.call-near-sp", CODE16("call 1f\n 1: mov ax, sp\n pop cx"), 0xeffe);
    gives("stack.ret-imm", CODE16("push 5\n push 6\n call 1f\n jmp 2f\n 1: ret 4\n 2: mov ax, sp"),
          0xf000);
    gives("stack.enter-0", CODE16("mov bp, 0x3333\n enter 6, 0\n mov ax, sp\n leave"), 0xeff8);
    gives("stack.enter-2",
          CODE16(
              "mov bp, 0x500\n mov word ptr [0x4fe], 0x7777\n enter 0, 2\n mov ax, [bp-2]\n leave"),
          0x7777);
    gives("flags.popf-iopl-nt", CODE16("push 0x7000\n popf\n pushf\n pop ax"), 0x7002);
    gives("flags.popf-bit15", CODE16("push 0x8000\n popf\n pushf\n pop ax"), 2);
    gives("flags.pushfd-vm-rf", CODE16("push 3\n push 2\n popfd\n pushfd\n pop ax\n pop ax"), 0);
    gives("flags.cli-iopl0", CODE16("push 0x202\n popf\n cli\n pushf\n pop ax"), 2);
    gives("segment.mov",
          CODE16("mov byte ptr [0x350], 0x5d\n mov dx, 0x2035\n mov es, dx\n"
                 "xor ax, ax\n mov al, es:[0]"),
          0x5d);
    gives("segment.les", CODE16("mov dword ptr [0x100], 0x20350011\n les ax, [0x100]"), 0x11);
    gives("segment.any-selector", CODE16("mov dx, 3\n mov fs, dx\n mov ax, fs"), 3);
    gives("segment.cs-writable", CODE16("mov word ptr cs:[0x360], 0x4567\n mov ax, cs:[0x360]"),
          0x4567);
    gives("segment.1-mib", CODE16("mov dx, 0xffff\n mov es, dx\n mov ax, es:[0x10]"),
          *(volatile uint16_t *)0x100000);
    gives("far.call",
          CODE16("mov word ptr [0x100], offset 1f - 77b\n mov [0x102], cs\n"
                 "call dword ptr [0x100]\n jmp 2f\n 1: mov ax, sp\n retf\n 2:"),
          0xeffc);
    gives("far.retf-imm",
          CODE16("push 5\n push cs\n push offset 1f - 77b\n retf 2\n nop\n"
                 "1: mov ax, sp"),
          0xf000);
    gives("far.jmp-indirect-32",
          CODE16("mov dword ptr [0x100], offset 1f - 77b\n mov [0x104], cs\n"
                 ".byte 0x66, 0xff, 0x2e, 0, 1\n nop\n 1: mov ax, 0x77"),
          0x77);
}

/* ---- instructions of protected mode ---- */

static void undefined(void)
{
    faults("undefined.lldt", CODE16("lldt ax"), V_UD);
    faults("undefined.ltr", CODE16("ltr ax"), V_UD);
    faults("undefined.sldt", CODE16("sldt ax"), V_UD);
    faults("undefined.str", CODE16("str ax"), V_UD);
    faults("undefined.lar", CODE16("lar ax, bx"), V_UD);
    faults("undefined.lsl", CODE16("lsl ax, bx"), V_UD);
    faults("undefined.verr", CODE16("verr ax"), V_UD);
    faults("undefined.verw", CODE16("verw ax"), V_UD);
    faults("undefined.arpl", CODE16("arpl ax, bx"), V_UD);
    faults("undefined.lock-nop", CODE16(".byte 0xf0, 0x90"), V_UD);
    faults("undefined.mov-cs", CODE16(".byte 0x8e, 0xc8"), V_UD);
    faults("undefined.sysenter", CODE16("sysenter"), V_GP);
    faults("cr0.pg-without-pe", CODE16("mov eax, cr0\n or eax, 0x80000000\n 9: mov cr0, eax"),
           V_GP);
    faults("cr0.nw-without-cd", CODE16("mov eax, cr0\n or eax, 0x20000000\n 9: mov cr0, eax"),
           V_GP);
    faults("cr4.reserved", CODE16("mov eax, cr4\n or eax, 0x80000000\n 9: mov cr4, eax"), V_GP);
    faults("fpu.em", CODE16("mov eax, cr0\n mov ebx, eax\n or al, 4\n mov cr0, eax\n 9: fld1"),
           V_NM);
    done("fpu.em-off", CODE16("mov eax, cr0\n and al, 0xf1\n mov cr0, eax\n fninit\n fld1"));
    done("privileged.all", CODE16("clts\n mov eax, cr0\n mov cr0, eax\n mov eax, cr3\n"
                                  "mov cr3, eax\n mov eax, dr7\n sgdt [0x100]\n sti\n cli"));
    done("privileged.msr", CODE16("mov ecx, 0x10\n rdmsr"));
    gives("smsw", CODE16("smsw ax\n and ax, 1"), 0);
}

/* ---- between the modes ---- */

#define TO_PROTECTED "cli\n mov eax, cr0\n or al, 1\n mov cr0, eax\n jmp 1f\n 1:"
#define TO_REAL "mov eax, cr0\n and al, 0xfe\n mov cr0, eax\n jmp 1f\n 1:"

static void modes(void)
{
    struct cpu c;

    /* the limit and base of a segment loaded in protected mode stay until the next load */
    *(volatile uint32_t *)(word)user_page = 0x13579bdf;
    c = real(CODE16(TO_PROTECTED "mov bx, 0x10\n mov fs, bx\n" TO_REAL "mov eax, fs:[edi]\n"
                                 "mov dx, fs"));
    c.di = (word)user_page;
    run_real(&c);
    check_done("unreal.big-limit", SWITCH, &c);
    check("unreal.big-limit-value", SWITCH, c.ax, 0x13579bdf);
    check("unreal.selector", SWITCH, c.dx & 0xffff, 0x10);
    c = real(CODE16(TO_PROTECTED "mov bx, 0x10\n mov fs, bx\n" TO_REAL
                                 "mov bx, 0x1000\n mov fs, bx\n mov eax, fs:[edi]"));
    c.di = (word)user_page - 0x10000;
    run_real(&c);
    check_done("unreal.limit-outlives-load", SWITCH, &c);
    check("unreal.new-base", SWITCH, c.ax, 0x13579bdf);
    /* and a small one as well */
    gdt_set(S_FREE, descriptor(LOW_CODE, 0xff, 0x93, 0));
    c = in_real(CODE16(TO_PROTECTED "mov bx, 0xa0\n mov fs, bx\n" TO_REAL
                                    "mov al, fs:[0xff]\n 9: mov al, fs:[0x100]"));
    check_fault("unreal.small-limit", SWITCH, &c, V_GP, NO_ERROR);
    /* the far jump decides about CS; until then code goes on as it was */
    c = in_real(CODE16("cli\n mov eax, cr0\n or al, 1\n mov cr0, eax\n mov bx, cs\n"
                       ".byte 0xea\n .word 1f - 77b, 0x40\n 1: mov cx, cs\n mov eax, cr0\n"
                       "and al, 0xfe\n mov cr0, eax\n mov dx, cs\n .byte 0xea\n"
                       ".word 1f - 77b, 0x2000\n 1: mov si, cs"));
    check_done("switch.there-and-back", SWITCH, &c);
    check("switch.cs-before-jump", SWITCH, c.bx & 0xffff, 0x2000);
    check("switch.cs-protected", SWITCH, c.cx & 0xffff, 0x40);
    check("switch.cs-real-before-jump", SWITCH, c.dx & 0xffff, 0x40);
    check("switch.cs-real", SWITCH, c.si & 0xffff, 0x2000);
    /* LMSW sets PE but does not clear it */
    c = in_real(CODE16("cli\n mov edi, cr0\n smsw ax\n or al, 1\n lmsw ax\n .byte 0xea\n"
                       ".word 1f - 77b, 0x40\n 1: smsw ax\n and al, 0xfe\n lmsw ax\n smsw bx\n"
                       "mov cx, 0x48\n mov es, cx\n lar cx, cx\n setz dl\n" TO_REAL ".byte 0xea\n"
                       ".word 1f - 77b, 0x2000\n 1: nop"));
    check_done("lmsw.to-protected", SWITCH, &c);
    check("lmsw.pe-stays", SWITCH, c.bx & 1, 1);
    check("lmsw.protected-instructions", SWITCH, c.dx & 0xff, 1);
    /* 32-bit code from a 32-bit descriptor, and back through a 16-bit one */
    gdt_set(S_FREE, descriptor(LOW_CODE, 0xffff, 0x9b, 4));
    c = in_real(CODE16(TO_PROTECTED ".byte 0xea\n .word 1f - 77b, 0xa0\n 1:\n .code32\n"
                                    "mov ebx, 0x12345678\n ljmp 0x40, offset 1f - 77b\n .code16\n"
                                    "1:" TO_REAL ".byte 0xea\n .word 1f - 77b, 0x2000\n 1: nop"));
    check_done("switch.through-32-bit", SWITCH, &c);
    check("switch.through-32-bit-ebx", SWITCH, c.bx, 0x12345678);
    gdt_reset();
}

/* ---- A20 ---- */

/* BX: the byte at 1 MiB + 0x500 after one at 0x500 was written; CX: the same with the gate open. */
#define ALIAS                                                                                      \
    "push 0\n pop fs\n push 0xffff\n pop gs\n mov byte ptr fs:[0x500], 0x11\n"                     \
    "mov bh, gs:[0x510]\n mov byte ptr fs:[0x500], 0x22\n mov bl, gs:[0x510]\n"

static void a20(void)
{
    uint8_t keep = inb(0x92);
    struct cpu c;

    c = in_real(CODE16("cli\n" ALIAS));
    check("a20.open", A20, (c.bx & 0xff) == (c.bx >> 8 & 0xff), 1);
    outb(0x92, (uint8_t)((keep & 0xfe) | 2));
    require((inb(0x92) & 2) != 0, "port 0x92 is not there");
    c = in_real(CODE16(
        "cli\n in al, 0x92\n and al, 0xfc\n out 0x92, al\n in al, 0x80\n in al, 0x80\n"
        "in al, 0x92\n mov dl, al\n" ALIAS "mov byte ptr gs:[0x510], 0x33\n mov dh, fs:[0x500]\n"
        "in al, 0x92\n and al, 0xfe\n or al, 2\n out 0x92, al\n in al, 0x80\n"));
    check_done("a20.port-92", A20, &c);
    check("a20.port-92-reads-back", A20, c.dx & 2, 0);
    check("a20.port-92-read-wraps", A20, c.bx & 0xffff, 0x1122);
    check("a20.port-92-write-wraps", A20, c.dx >> 8 & 0xff, 0x33);
    c = in_real(CODE16("cli\n" ALIAS));
    check("a20.port-92-open-again", A20, (c.bx & 0xff) == (c.bx >> 8 & 0xff), 1);
    require_end();
    require((inb(0x64) & 0xff) != 0xff, "there is no keyboard controller");
    c = in_real(CODE16("cli\n jmp 3f\n"
                       "2: in al, 0x64\n test al, 2\n jnz 2b\n ret\n"
                       "3: in al, 0x92\n and al, 0xfc\n out 0x92, al\n"
                       "call 2b\n mov al, 0xd1\n out 0x64, al\n call 2b\n mov al, 0xdd\n"
                       "out 0x60, al\n call 2b\n in al, 0x80\n" ALIAS
                       "mov cx, bx\n mov al, 0xd1\n out 0x64, al\n call 2b\n mov al, 0xdf\n"
                       "out 0x60, al\n call 2b\n in al, 0x80\n" ALIAS
                       "in al, 0x92\n and al, 0xfe\n or al, 2\n out 0x92, al\n in al, 0x80"));
    check_done("a20.keyboard", A20, &c);
    check("a20.keyboard-wraps", A20, c.cx & 0xffff, 0x1122);
    check("a20.keyboard-opens", A20, (c.bx & 0xff) == (c.bx >> 8 & 0xff), 1);
    require_end();
}

/* ---- 16-bit protected mode ---- */

static struct cpu in_16(struct code code)
{
    struct cpu c = code16(code);

    run(&c);
    return c;
}

static void protected16(void)
{
    struct cpu c = in_16(CODE16("mov ax, [0xffff]"));

    check_fault("protected16.word-at-end", PROTECTED16, &c, V_GP, 0);
    c = in_16(CODE16("mov byte ptr cs:[0], 0"));
    check_fault("protected16.cs-not-writable", PROTECTED16, &c, V_GP, 0);
    c = in_16(CODE16("mov ax, 0xfff8\n 9: mov ds, ax"));
    check_fault("protected16.selector", PROTECTED16, &c, V_GP, 0xfff8);
    c = in_16(CODE16("mov bp, 0xffff\n 9: mov ax, [bp]"));
    check_fault("protected16.stack-word-at-end", PROTECTED16, &c, V_SS, 0);
    c = in_16(CODE16("push ax\n mov cx, sp\n push eax\n mov dx, sp\n add sp, 6"));
    check("protected16.push-size", PROTECTED16, c.cx, 0xeffe);
    check("protected16.push-32-size", PROTECTED16, c.dx, 0xeffa);
    c = in_16(CODE16("mov eax, 0x10000\n 9: jmp eax"));
    check_fault("protected16.jmp-beyond", PROTECTED16, &c, V_GP, 0);
    c = in_16(CODE16("call 1f\n 1: pop ax\n mov cx, sp"));
    check("protected16.call", PROTECTED16, c.ax << 16 | c.cx, 3u << 16 | 0xf000);
    c = in_16(CODE16("push cs\n push offset 1f - 77b\n retf\n nop\n 1: mov cx, sp"));
    check("protected16.retf", PROTECTED16, c.vector == V_DONE ? c.cx : 0xbad, 0xf000);
    c = in_16(CODE16("push 0\n push cs\n push 0\n push offset 1f - 77b\n .byte 0x66, 0xcb\n nop\n"
                     "1: mov cx, sp"));
    check("protected16.retf-32", PROTECTED16, c.vector == V_DONE ? c.cx : 0xbad, 0xf000);
    c = in_16(CODE16("pushf\n push cs\n push offset 1f - 77b\n iret\n nop\n 1: mov cx, sp"));
    check("protected16.iret", PROTECTED16, c.vector == V_DONE ? c.cx : 0xbad, 0xf000);
    c = in_16(CODE16(".byte 0x9a\n .word 1f - 77b, 0x40\n jmp 2f\n 1: mov cx, sp\n retf\n"
                     "2: mov dx, sp"));
    check("protected16.far-call", PROTECTED16, c.cx << 16 | c.dx, 0xeffcu << 16 | 0xf000);
    c = in_16(CODE16("mov ecx, 0x10001\n xor ax, ax\n 1: inc ax\n loop 1b\n mov edx, ecx"));
    check("protected16.loop-cx", PROTECTED16, c.dx, 0x10000);
    c = in_16(CODE16("mov ecx, 2\n 1: .byte 0x67\n loop 1b\n mov edx, ecx"));
    check("protected16.loop-ecx", PROTECTED16, c.dx, 0);
    c = in_16(CODE16("mov ecx, 0x10000\n xor ax, ax\n jcxz 1f\n inc ax\n 1:"));
    check("protected16.jcxz", PROTECTED16, c.ax, 0);
    c = in_16(CODE16("mov ecx, 0x10000\n xor ax, ax\n jecxz 1f\n inc ax\n 1:"));
    check("protected16.jecxz", PROTECTED16, c.ax, 1);
    c = in_16(CODE16("mov edi, 0x1234fffe\n mov ecx, 4\n mov al, 0\n push word ptr [0]\n"
                     "push word ptr [0xfffe]\n rep stosb\n pop word ptr [0xfffe]\n"
                     "pop word ptr [0]\n mov edx, edi"));
    check("protected16.stos-wraps", PROTECTED16, c.vector == V_DONE ? c.dx : 0xbad, 0x12340002);
    c = in_16(CODE16("int 0x81\n nop"));
    check_event("protected16.int", PROTECTED16, &c, 0x81, NO_ERROR, 2);
    /* a 16-bit code segment of more than 64 KiB: EIP has 32 bits all the same */
    gdt_set(S_FREE, descriptor(LOW_CODE, 0x1ffff, 0x9b, 0));
    LOW[0x10100] = 0x41; /* inc cx */
    LOW[0x10101] = 0xcd;
    LOW[0x10102] = V_DONE;
    c = code16(CODE16("mov eax, 0x10100\n jmp eax"));
    c.cs = S_FREE;
    c.cx = 0x1ffff;
    run(&c);
    check_event("protected16.jmp-above-64k", PROTECTED16, &c, V_DONE, NO_ERROR, 0x10103);
    check("protected16.is-16-bit-above-64k", PROTECTED16, c.cx, 0x10000);
    c = in_16(CODE16("smsw ax\n sldt bx\n str cx"));
    check("protected16.str", PROTECTED16, c.cx & 0xffff, S_TSS);
}

void test(void)
{
    outb(0x21, 0xff);
    outb(0xa1, 0xff);
    limits();
    code_end();
    interrupts();
    tables();
    stack();
    undefined();
    modes();
    a20();
    protected16();
}
