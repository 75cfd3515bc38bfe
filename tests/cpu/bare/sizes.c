/* Operand and address sizes in 32-bit code, stack instructions, and opcodes that 64-bit mode lacks.
 */
#include "bare.h"

#define SIZES "SDM Vol.1, operand-size and address-size attributes"
#define STACK "SDM Vol.1, calling procedures"
#define STRINGS "SDM Vol.1, string instructions"
#define BCD "SDM Vol.1, decimal arithmetic instructions"
#define BRANCHES "SDM Vol.1, control transfer instructions"
#define BASED 0xa0

static struct cpu done(const char *name, const char *topic, struct code code)
{
    struct cpu c = kernel(code);

    run_done(name, topic, &c);
    return c;
}

/* The fragment comes to its end with this in EAX. */
static void gives(const char *name, const char *topic, struct code code, word ax)
{
    struct cpu c = kernel(code);

    run(&c);
    check(name, topic, c.vector == V_DONE ? c.ax : 0xbad0bad, ax);
}

/* In a segment whose base is the fragment, so that its offsets have 16 bits. */
static struct cpu based(struct code code)
{
    struct cpu c = kernel(code);

    gdt_set(BASED, descriptor(code.start, 0xffff, 0x9a, 4));
    c.cs = BASED;
    c.ip = 0;
    c.code = (struct code){0, code.mark - code.start, code.end - code.start};
    return c;
}

static void based_done(const char *name, struct code code, word ax)
{
    struct cpu c = based(code);

    run(&c);
    check(name, BRANCHES, c.vector == V_DONE && c.ip == c.code.end ? c.ax : 0xbad0bad, ax);
}

static void addresses(void)
{
    gives("address.16-lea", SIZES,
          CODE("mov ebx, 0x1234fff0\n mov esi, 0x20\n .byte 0x67, 0x8d, 0"),
          0x10); /* lea eax, [bx+si] */
    gives("address.16-lea-disp8", SIZES, CODE("mov edi, 0x12340004\n .byte 0x67, 0x8d, 0x45, 0xf0"),
          0xfff4); /* [di-16] */
    gives("address.16-lea-16", SIZES,
          CODE("mov eax, -1\n mov ebx, 0x12345678\n .byte 0x66, 0x67, 0x8d, 7"), 0xffff5678);
    gives("address.16-moffs", SIZES,
          CODE("mov ebx, 0x20000\n mov dword ptr [0xf000], 0x11223344\n .byte 0x67, 0xa1\n"
               ".word 0xf000"),
          0x11223344);
    gives("address.16-read", SIZES,
          CODE("mov dword ptr [0xf010], 0x55667788\n mov ebx, 0xaaaaf000\n"
               "mov esi, 0xbbbb0010\n .byte 0x67, 0x8b, 0"),
          0x55667788);
    gives("address.16-bp", SIZES,
          CODE("mov ebp, 0xaaaaf000\n mov dword ptr [0xf000], 0x99\n .byte 0x67, 0x8b, 0x46, 0"),
          0x99);
    gives("address.sib-no-base", SIZES, CODE("mov ecx, 3\n lea eax, [ecx*8 + 5]"), 29);
    gives("address.sib-ebp", SIZES, CODE("mov ebp, 0x100\n mov ecx, 3\n lea eax, [ebp + ecx*4]"),
          0x10c);
    gives("address.wraps-32", SIZES, CODE("mov ecx, 0xfffffff0\n lea eax, [ecx + 0x20]"), 0x10);
    gives("operand.16-keeps-upper", SIZES, CODE("mov eax, 0x12345678\n mov ax, 0xffff"),
          0x1234ffff);
    gives("operand.8-keeps-rest", SIZES, CODE("mov eax, 0x12345678\n mov ah, 0xff"), 0x1234ff78);
    gives("operand.cbw", SIZES, CODE("mov eax, 0x12340080\n cbw"), 0x1234ff80);
    gives("operand.cwde", SIZES, CODE("mov eax, 0x12348000\n cwde"), 0xffff8000);
    gives("operand.inc-16", SIZES, CODE("mov eax, 0x1234ffff\n .byte 0x66, 0x40"), 0x12340000);
    gives("operand.dec-32", SIZES, CODE("xor eax, eax\n .byte 0x48"), 0xffffffff);
    gives("operand.opcode-82", SIZES, CODE("mov eax, 5\n .byte 0x82, 0xc0, 0xff"), 4);
    gives("operand.last-66-67", SIZES,
          CODE("mov eax, -1\n mov ebx, 0x12345678\n .byte 0x67, 0x66, 0x67, 0x66, 0x89, 0xd8"),
          0xffff5678);
    gives("operand.xlat-16", SIZES,
          CODE("mov byte ptr [0xf030], 0x77\n mov ebx, 0xaaaaf000\n mov eax, 0x30\n"
               ".byte 0x67, 0xd7"),
          0x77);
}

static void loops(void)
{
    struct cpu c = done("loop.ecx", BRANCHES, CODE("mov ecx, 0x10003\n 1: loop 1b"));

    check("loop.ecx-value", BRANCHES, c.cx, 0);
    c = done("loop.cx", BRANCHES, CODE("mov ecx, 0x10003\n 1: .byte 0x67\n loop 1b"));
    check("loop.cx-value", BRANCHES, c.cx, 0x10000);
    gives("loop.cx-wraps", BRANCHES,
          CODE("mov ecx, 0x10000\n .byte 0x67, 0xe2, 5\n mov eax, 1\n mov eax, ecx"), 0x1ffff);
    gives("loop.jecxz", BRANCHES, CODE("mov ecx, 0x10000\n xor eax, eax\n jecxz 1f\n inc eax\n 1:"),
          1);
    gives("loop.jcxz", BRANCHES, CODE("mov ecx, 0x10000\n xor eax, eax\n jcxz 1f\n inc eax\n 1:"),
          0);
    gives("loop.loopne", BRANCHES,
          CODE("mov ecx, 5\n xor eax, eax\n 1: inc eax\n cmp eax, 3\n loopne 1b"), 3);
    gives("loop.loope", BRANCHES,
          CODE("mov ecx, 5\n xor eax, eax\n 1: inc eax\n cmp ecx, ecx\n loope 1b"), 5);
    gives("loop.flags-stay", BRANCHES,
          CODE("mov ecx, 1\n xor eax, eax\n stc\n loop 1f\n 1: setc al"), 1);
}

static void strings(void)
{
    struct cpu c = kernel(CODE(".byte 0x67, 0xf3, 0xaa"));

    c.es = S_DATA16;
    c.di = 0x1234fffe;
    c.cx = 0xabcd0004;
    c.ax = 0x5a;
    run_done("string.stos-16", STRINGS, &c);
    check("string.stos-16-di", STRINGS, c.di, 0x12340002);
    check("string.stos-16-cx", STRINGS, c.cx, 0xabcd0000);
    check("string.stos-16-wrapped", STRINGS,
          *(volatile uint8_t *)(LOW_CODE + 0xffff) << 8 | *(volatile uint8_t *)(LOW_CODE + 1),
          0x5a5a);
    c = kernel(CODE(".byte 0x67, 0xf3, 0xa4"));
    c.es = c.ds = S_DATA16;
    c.si = 0x5555fff0;
    c.di = 0x66660100;
    c.cx = 0x77770020;
    run_done("string.movs-16", STRINGS, &c);
    check("string.movs-16-si", STRINGS, c.si, 0x55550010);
    check("string.movs-16-di", STRINGS, c.di, 0x66660120);
    c = kernel(CODE("std\n .byte 0x67, 0xf3, 0xad\n cld"));
    c.ds = S_DATA16;
    c.si = 0x55550004;
    c.cx = 3;
    run_done("string.lods-16-down", STRINGS, &c);
    check("string.lods-16-down-si", STRINGS, c.si, 0x5555fff8);
    c = kernel(CODE(".byte 0x67, 0xf3, 0xab"));
    c.es = S_DATA16;
    c.di = 0xfffd;
    c.cx = 1;
    run_fault("string.stos-16-across-limit", STRINGS, &c, V_GP, 0);
    check("string.stos-16-across-limit-cx", STRINGS, c.cx, 1);
    c = kernel(CODE("mov ecx, 0x10000\n .byte 0x67, 0xf3, 0xaa"));
    c.es = S_DATA16;
    run_done("string.none-by-cx", STRINGS, &c);
    check("string.none-by-cx-di", STRINGS, c.di, 0);
    c = kernel(CODE("mov ecx, 3\n .byte 0x67, 0xf3, 0xa6"));
    c.es = c.ds = S_DATA16;
    c.si = 0xfffe;
    c.di = 0xfffe;
    run_done("string.cmps-16", STRINGS, &c);
    check("string.cmps-16-si", STRINGS, c.si << 16 | c.di, 1u << 16 | 1);
    /* MOVS reads by any segment, writes by ES alone */
    c = kernel(CODE(".byte 0x26\n movsb"));
    c.es = S_DATA16;
    c.ds = 0;
    run_done("string.movs-override", STRINGS, &c);
}

static void branches(void)
{
    based_done("branch.jmp-16",
               CODE("xor eax, eax\n .byte 0x66, 0xe9\n .word 5\n .skip 5, 0xf4\n"
                    "inc eax"),
               1);
    based_done("branch.jmp-16-wraps",
               CODE("jmp 2f\n 1: mov eax, 2\n jmp 3f\n 2: .byte 0x66, 0xe9\n .word 1b - 4f\n 4:\n"
                    "3:"),
               2);
    based_done("branch.jmp-register-16",
               CODE("mov eax, 0xaaaa000a\n .byte 0x66, 0xff, 0xe0\n"
                    "hlt\n hlt\n mov al, 9"),
               0xaaaa0009);
    based_done("branch.call-16",
               CODE("mov ecx, esp\n .byte 0x66, 0xe8\n .word 0\n sub ecx, esp\n mov eax, ecx\n"
                    "add esp, 2"),
               2);
    based_done("branch.call-16-pushes",
               CODE("push 0x55555555\n .byte 0x66, 0xe8\n .word 0\n pop ax\n cwde\n pop ecx"), 9);
    based_done("branch.ret-16",
               CODE("mov eax, 4\n push 0\n push ax\n mov word ptr [esp], offset 1f - 77b\n"
                    ".byte 0x66, 0xc3\n nop\n nop\n 1: add esp, 4"),
               4);
    based_done("branch.jcc-16",
               CODE("xor eax, eax\n .byte 0x66, 0x0f, 0x84\n .word 2\n hlt\n hlt\n inc eax"), 1);
    gives("branch.call-32", BRANCHES,
          CODE("call 1f\n 1: pop eax\n call 2f\n 2: pop ecx\n"
               "sub ecx, eax\n mov eax, ecx"),
          6);
    gives("branch.ret-imm", BRANCHES,
          CODE("mov ecx, esp\n push 1\n push 2\n call 1f\n jmp 2f\n 1: ret 8\n 2: sub ecx, esp\n"
               "mov eax, ecx"),
          0);
    gives("branch.call-esp", BRANCHES,
          CODE("push offset 1f\n mov ecx, esp\n call [esp]\n hlt\n 1: sub ecx, esp\n mov eax, ecx"),
          4);
    /* a jump whose 16-bit target lies beyond the limit */
    struct cpu c = based(CODE("mov eax, 0x8000\n 9: .byte 0x66, 0xff, 0xe0"));

    gdt_set(BASED, gdt[BASED / 8] & ~0xffffull);
    gdt_set(BASED, gdt[BASED / 8] | 0xff);
    run_fault("branch.jmp-16-beyond", BRANCHES, &c, V_GP, 0);
    gdt_reset();
}

static void pushes(void)
{
    gives("push.esp", STACK, CODE("mov ecx, esp\n push esp\n pop eax\n sub eax, ecx"), 0);
    gives("push.memory-esp", STACK, CODE("push 7\n push 8\n push [esp + 4]\n pop eax\n add esp, 8"),
          7);
    gives("pop.esp", STACK,
          CODE("mov ecx, esp\n push 0x1234\n pop esp\n mov eax, esp\n mov esp, ecx"), 0x1234);
    gives("pop.memory-esp", STACK,
          CODE("push 1\n push 2\n push 3\n push 9\n pop [esp + 4]\n mov eax, [esp + 4]\n"
               "add esp, 12"),
          9);
    gives("push.16", STACK,
          CODE("mov ecx, esp\n push ax\n sub ecx, esp\n mov eax, ecx\n add esp, 2"), 2);
    gives("push.imm8-16", STACK,
          CODE("mov ecx, esp\n .byte 0x66, 0x6a, 0xfe\n sub ecx, esp\n mov eax, ecx\n pop dx"), 2);
    gives("push.imm8-extends", STACK, CODE(".byte 0x6a, 0xfe\n pop eax"), 0xfffffffe);
    gives("push.segment-size", STACK,
          CODE("mov ecx, esp\n push ds\n sub ecx, esp\n mov eax, ecx\n pop edx"), 4);
    gives("push.segment-16-size", STACK,
          CODE("mov ecx, esp\n .byte 0x66, 0x1e\n sub ecx, esp\n mov eax, ecx\n pop dx"), 2);
    gives("push.cs", STACK, CODE("push cs\n pop eax\n movzx eax, ax"), S_CODE);
    gives("pushad.size", STACK,
          CODE("mov ecx, esp\n pushad\n sub ecx, esp\n mov eax, ecx\n add esp, 32"), 32);
    gives("pushad.esp", STACK,
          CODE("mov ecx, esp\n pushad\n mov eax, [esp + 12]\n sub eax, ecx\n"
               "add esp, 32"),
          0);
    gives("pushad.order", STACK,
          CODE("mov eax, 1\n mov edi, 8\n pushad\n mov eax, [esp + 28]\n shl eax, 8\n"
               "or eax, [esp]\n add esp, 32"),
          0x108);
    gives("popad.skips-esp", STACK,
          CODE("mov edx, esp\n pushad\n mov dword ptr [esp + 12], 5\n popad\n mov eax, esp\n"
               "sub eax, edx"),
          0);
    gives("pusha.size", STACK,
          CODE("mov ecx, esp\n .byte 0x66, 0x60\n sub ecx, esp\n mov eax, ecx\n add esp, 16"), 16);
    gives("popa.keeps-upper", STACK,
          CODE("mov eax, 0x11112222\n .byte 0x66, 0x60\n mov eax, 0x33334444\n .byte 0x66, 0x61"),
          0x33332222);
    gives("popa.keeps-esp", STACK,
          CODE("mov edx, esp\n .byte 0x66, 0x60\n .byte 0x66, 0x61\n mov eax, esp\n sub eax, edx"),
          0);
}

static void enter(void)
{
    struct cpu c =
        kernel(CODE("mov edx, esp\n mov ebp, 0x11112222\n enter 0x10, 0\n mov eax, ebp\n"
                    "mov ecx, esp\n sub edx, eax\n sub eax, ecx\n mov ebx, [ebp]\n leave"));

    run_done("enter.0", STACK, &c);
    check("enter.0-frame", STACK, c.dx, 4);
    check("enter.0-room", STACK, c.ax, 0x10);
    check("enter.0-saved", STACK, c.bx, 0x11112222);
    check("enter.0-leave", STACK, c.bp, 0x11112222);
    c = kernel(CODE("mov edx, esp\n enter 8, 1\n sub edx, ebp\n mov eax, ebp\n sub eax, esp\n"
                    "mov ebx, [ebp - 4]\n sub ebx, ebp\n leave"));
    run_done("enter.1", STACK, &c);
    check("enter.1-frame", STACK, c.dx, 4);
    check("enter.1-room", STACK, c.ax, 12);
    check("enter.1-display", STACK, c.bx, 0);
    c = kernel(CODE("push 0x33\n push 0x22\n push 0x11\n lea ebp, [esp + 12]\n enter 8, 3\n"
                    "mov eax, [ebp - 4]\n mov ecx, [ebp - 8]\n mov edx, [ebp - 12]\n sub edx, ebp\n"
                    "mov esi, ebp\n sub esi, esp\n leave\n mov esp, ebp"));
    run_done("enter.3", STACK, &c);
    check("enter.3-first", STACK, c.ax, 0x33);
    check("enter.3-second", STACK, c.cx, 0x22);
    check("enter.3-own", STACK, c.dx, 0);
    check("enter.3-room", STACK, c.si, 20);
    c = kernel(CODE("mov ebp, esp\n enter 0, 33\n mov eax, ebp\n sub eax, esp\n leave"));
    run(&c);
    check("enter.level-mod-32", STACK, c.vector == V_DONE ? c.ax : 0xbad, 4);
    c = kernel(CODE("mov edx, esp\n mov ebp, 0x11112222\n .byte 0x66, 0xc8, 4, 0, 0\n"
                    "mov ecx, esp\n sub edx, ecx\n mov ax, [esp + 4]\n add esp, 6"));
    run_done("enter.16", STACK, &c);
    check("enter.16-size", STACK, c.dx, 6);
    check("enter.16-saved", STACK, c.ax, 0x2222);
    c = user(UCODE("mov esp, 0x100\n mov ebp, esp\n 9: enter 0x200, 0"));
    gdt_set(BASED, descriptor((word)user_page, 0xfff, 0xf2, 4));
    c.ss = BASED | 3;
    run_fault("enter.room-beyond-limit", "SDM Vol.2, ENTER", &c, V_SS, 0);
    check("enter.room-beyond-limit-sp", "SDM Vol.2, ENTER", c.sp << 16 | c.bp, 0x1000100);
    gdt_reset();
}

static void decimal(void)
{
    struct cpu c = kernel(CODE("aam 0"));

    run_fault("aam.0", BCD, &c, V_DE, NO_ERROR);
    gives("aam", BCD, CODE("mov eax, 0x11110041\n aam"), 0x11110605);
    gives("aam.16", BCD, CODE("mov eax, 0x5b\n aam 16"), 0x050b);
    gives("aad", BCD, CODE("mov eax, 0x0605\n aad"), 0x41);
    gives("aad.16", BCD, CODE("mov eax, 0x050b\n aad 16"), 0x5b);
    gives("daa", BCD, CODE("mov eax, 0x79\n add al, 0x35\n daa"), 0x14);
    gives("daa.carry", BCD, CODE("mov eax, 0x79\n add al, 0x35\n daa\n setc al\n movzx eax, al"),
          1);
    gives("das", BCD, CODE("mov eax, 0x35\n sub al, 0x47\n das"), 0x88);
    gives("aaa", BCD, CODE("mov eax, 9\n add al, 8\n aaa"), 0x107);
    gives("aas", BCD, CODE("mov eax, 0x203\n sub al, 8\n aas"), 0x105);
    gives("aaa.no-carry", BCD, CODE("mov eax, 3\n add al, 4\n aaa"), 7);
}

static void far_pointers(void)
{
    gives("les.32", "SDM Vol.2, LDS and its like",
          CODE("push 0x10\n push 0x12345678\n les eax, [esp]\n add esp, 8"), 0x12345678);
    gives("les.16", "SDM Vol.2, LDS and its like",
          CODE("mov eax, 0x11111111\n push 0x00105678\n .byte 0x66, 0xc4, 0x04, 0x24\n add esp, 4"),
          0x11115678);
    gives(
        "lss.32", "SDM Vol.2, LDS and its like",
        CODE("mov ecx, esp\n push 0x10\n push ecx\n lss esp, [esp]\n mov eax, esp\n sub eax, ecx"),
        0);
}

/* What 32-bit mode has in the place of 64-bit encodings, and what neither has. */
static void opcodes(void)
{
    static const char *const names[] = {
        "lock-mov", "lock-add-register", "c4-register", "c5-register", "0f-04",  "0f-0a",
        "c6-group", "fe-group",          "ff-7",        "lock-in",     "mov-cr5"};
    struct code codes[] = {
        CODE(".byte 0xf0, 0x89, 0x03"), CODE(".byte 0xf0, 0x01, 0xc3"),
        CODE(".byte 0xf0, 0xc4, 0x03"), CODE(".byte 0xf0, 0xc5, 0x03"),
        CODE(".byte 0x0f, 0x04"),       CODE(".byte 0x0f, 0x0a"),
        CODE(".byte 0xc6, 0xcb, 0"),    CODE(".byte 0xfe, 0xd3"),
        CODE(".byte 0xff, 0xfb"),       CODE(".byte 0xf0, 0xec"),
        CODE(".byte 0x0f, 0x22, 0xe8"),
    };

    for (unsigned i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        struct cpu c = kernel(codes[i]);

        c.bx = LOW_CODE;
        run_fault(joined("undefined.", names[i], ""), "SDM Vol.2, opcode map", &c, V_UD, NO_ERROR);
    }
    struct cpu c = kernel(CODE(".rept 14\n .byte 0x3e\n .endr\n nop"));

    run_done("length.15", "SDM Vol.2, instruction format", &c);
    c = kernel(CODE(".rept 15\n .byte 0x3e\n .endr\n nop"));
    run_fault("length.16", "SDM Vol.2, instruction format", &c, V_GP, 0);
}

void test(void)
{
    addresses();
    loops();
    strings();
    branches();
    pushes();
    enter();
    decimal();
    far_pointers();
    opcodes();
}
