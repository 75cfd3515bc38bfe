/* Data, stack and code segments in 32-bit protected mode: limits and types. */
#include "bare.h"

#define LIMITS "SDM Vol.3, limit checking"
#define TYPES "SDM Vol.3, type checking"

static void expect(const char *name, const char *topic, struct cpu *c, int vector, uint32_t error)
{
    run(c);
    if (vector == V_DONE)
        check_done(name, topic, c);
    else
        check_fault(name, topic, c, vector, error);
}

/* ---- limits and types of a segment that is loaded already ---- */

struct reach {
    const char *name;
    uint32_t limit;
    unsigned access, flags; /* as descriptor() has them */
    char kind;              /* b w d read 1, 2, 4 bytes; B W D write; m changes a byte */
    uint32_t offset;
    int vector;
};

static const struct reach reaches[] = {
    {"limit.byte-last", 0xff, 0x93, 4, 'b', 0xff, V_DONE},
    {"limit.byte-beyond", 0xff, 0x93, 4, 'b', 0x100, V_GP},
    {"limit.byte-write-beyond", 0xff, 0x93, 4, 'B', 0x100, V_GP},
    {"limit.word-last", 0xff, 0x93, 4, 'w', 0xfe, V_DONE},
    {"limit.word-across", 0xff, 0x93, 4, 'w', 0xff, V_GP},
    {"limit.word-write-across", 0xff, 0x93, 4, 'W', 0xff, V_GP},
    {"limit.dword-last", 0xff, 0x93, 4, 'D', 0xfc, V_DONE},
    {"limit.dword-across1", 0xff, 0x93, 4, 'd', 0xfd, V_GP},
    {"limit.dword-across3", 0xff, 0x93, 4, 'd', 0xff, V_GP},
    {"limit.dword-wraps", 0xff, 0x93, 4, 'd', 0xfffffffd, V_GP},
    {"limit.zero-first", 0, 0x93, 4, 'b', 0, V_DONE},
    {"limit.zero-second", 0, 0x93, 4, 'b', 1, V_GP},
    {"limit.zero-word", 0, 0x93, 4, 'w', 0, V_GP},
    {"limit.page-zero-last", 0, 0x93, 0xc, 'b', 0xfff, V_DONE},
    {"limit.page-zero-beyond", 0, 0x93, 0xc, 'b', 0x1000, V_GP},
    {"limit.page-zero-dword", 0, 0x93, 0xc, 'd', 0xffc, V_DONE},
    {"limit.page-zero-across", 0, 0x93, 0xc, 'd', 0xffd, V_GP},
    {"limit.byte-1m-last", 0xfffff, 0x93, 4, 'b', 0xfffff, V_DONE},
    {"limit.byte-1m-beyond", 0xfffff, 0x93, 4, 'b', 0x100000, V_GP},
    {"limit.page-high-bits", 0x000ff, 0x93, 0xc, 'd', 0xffffc, V_DONE},
    {"limit.page-4g-last", 0xfffff, 0x93, 0xc, 'b', 0xffffffff, V_DONE},
    {"limit.up-ignores-b", 0x1ffff, 0x93, 0, 'b', 0x1ffff, V_DONE},
    {"limit.down-inside", 0xff, 0x97, 4, 'b', 0xff, V_GP},
    {"limit.down-zero", 0xff, 0x97, 4, 'b', 0, V_GP},
    {"limit.down-first", 0xff, 0x97, 4, 'b', 0x100, V_DONE},
    {"limit.down-write", 0xff, 0x97, 4, 'B', 0x100, V_DONE},
    {"limit.down-word-across", 0xff, 0x97, 4, 'w', 0xff, V_GP},
    {"limit.down-last", 0xff, 0x97, 4, 'b', 0xffffffff, V_DONE},
    {"limit.down-dword-last", 0xff, 0x97, 4, 'd', 0xfffffffc, V_DONE},
    {"limit.down16-first", 0xff, 0x97, 0, 'b', 0x100, V_DONE},
    {"limit.down16-inside", 0xff, 0x97, 0, 'b', 0xff, V_GP},
    {"limit.down16-last", 0xff, 0x97, 0, 'b', 0xffff, V_DONE},
    {"limit.down16-beyond", 0xff, 0x97, 0, 'b', 0x10000, V_GP},
    {"limit.down16-word-last", 0xff, 0x97, 0, 'w', 0xfffe, V_DONE},
    {"limit.down16-word-across", 0xff, 0x97, 0, 'w', 0xffff, V_GP},
    {"limit.down-page-inside", 0, 0x97, 0xc, 'b', 0xfff, V_GP},
    {"limit.down-page-first", 0, 0x97, 0xc, 'b', 0x1000, V_DONE},
    {"limit.down-empty", 0xfffff, 0x97, 0xc, 'b', 0xffffffff, V_GP},
    {"limit.down16-empty", 0xffff, 0x97, 0, 'b', 0x100, V_GP},
    {"type.read-only-read", 0xffff, 0x91, 4, 'd', 0, V_DONE},
    {"type.read-only-write", 0xffff, 0x91, 4, 'B', 0, V_GP},
    {"type.read-only-change", 0xffff, 0x91, 4, 'm', 0, V_GP},
    {"type.read-only-down-write", 0xff, 0x95, 4, 'B', 0x100, V_GP},
    {"type.read-only-down-read", 0xff, 0x95, 4, 'b', 0x100, V_DONE},
    {"type.code-read", 0xffff, 0x9b, 4, 'd', 0, V_DONE},
    {"type.code-write", 0xffff, 0x9b, 4, 'B', 0, V_GP},
    {"type.conforming-read", 0xffff, 0x9f, 4, 'd', 0, V_DONE},
    {"type.conforming-write", 0xffff, 0x9f, 4, 'W', 0, V_GP},
    {"type.code-limit", 0xff, 0x9b, 4, 'b', 0x100, V_GP},
};

static struct code access_code(char kind)
{
    switch (kind) {
    case 'b':
        return CODE("mov fs, eax\n 9: mov cl, fs:[edi]");
    case 'w':
        return CODE("mov fs, eax\n 9: mov cx, fs:[edi]");
    case 'd':
        return CODE("mov fs, eax\n 9: mov ecx, fs:[edi]");
    case 'B':
        return CODE("mov fs, eax\n 9: mov fs:[edi], cl");
    case 'W':
        return CODE("mov fs, eax\n 9: mov fs:[edi], cx");
    case 'm':
        return CODE("mov fs, eax\n 9: inc byte ptr fs:[edi]");
    default:
        return CODE("mov fs, eax\n 9: mov fs:[edi], ecx");
    }
}

static struct code user_access_code(char kind)
{
    switch (kind) {
    case 'b':
        return UCODE("mov ss, eax\n 9: mov cl, ss:[edi]");
    case 'w':
        return UCODE("mov ss, eax\n 9: mov cx, ss:[edi]");
    case 'd':
        return UCODE("mov ss, eax\n 9: mov ecx, ss:[edi]");
    case 'B':
        return UCODE("mov ss, eax\n 9: mov ss:[edi], cl");
    case 'W':
        return UCODE("mov ss, eax\n 9: mov ss:[edi], cx");
    default:
        return UCODE("mov ss, eax\n 9: mov ss:[edi], ecx");
    }
}

static void limits(void)
{
    for (unsigned i = 0; i < sizeof(reaches) / sizeof(reaches[0]); i++) {
        const struct reach *r = &reaches[i];
        const char *topic = r->name[0] == 'l' ? LIMITS : TYPES;
        struct cpu c = kernel(access_code(r->kind));

        gdt_set(S_FREE, descriptor(LOW_CODE, r->limit, r->access, r->flags));
        c.ax = S_FREE;
        c.di = r->offset;
        c.cx = *(volatile uint32_t *)(LOW_CODE + r->offset); /* writes change nothing */
        expect(r->name, topic, &c, r->vector, 0);
        if ((r->access & 0xa) != 2 || r->kind == 'm')
            continue;
        /* the same through SS, from CPL 3 since the exception needs a stack */
        gdt_set(S_FREE, descriptor(LOW_CODE, r->limit, r->access | 0x60, r->flags));
        c = user(user_access_code(r->kind));
        c.ax = S_FREE | 3;
        c.di = r->offset;
        c.cx = *(volatile uint32_t *)(LOW_CODE + r->offset);
        expect(joined(r->name, "-ss", ""), topic, &c, r->vector == V_GP ? V_SS : r->vector, 0);
    }
    gdt_reset();
}

/* Operands that are larger, or lie elsewhere than one might think: limit 0xff throughout. */
static void operand(const char *name, struct code code, uint32_t offset, int vector)
{
    struct cpu c = kernel(code);

    gdt_set(S_FREE, descriptor(LOW_CODE, 0xff, 0x93, 4));
    c.gs = S_FREE;
    c.di = offset;
    expect(name, LIMITS, &c, vector, 0);
}

static void operands(void)
{
    set_cr4(cr4() | CR4_OSFXSR);
    operand("limit.fld-m80", CODE("fninit\n 9: fld tbyte ptr gs:[edi]"), 0xf6, V_DONE);
    operand("limit.fld-m80-across", CODE("fninit\n 9: fld tbyte ptr gs:[edi]"), 0xf7, V_GP);
    operand("limit.fnstenv", CODE("fnstenv gs:[edi]"), 0xe4, V_DONE);
    operand("limit.fnstenv-across", CODE("fnstenv gs:[edi]"), 0xe5, V_GP);
    operand("limit.fnstenv-16", CODE("data16 fnstenv gs:[edi]"), 0xf2, V_DONE);
    operand("limit.fnstenv-16-across", CODE("data16 fnstenv gs:[edi]"), 0xf3, V_GP);
    operand("limit.fnsave", CODE("fnsave gs:[edi]"), 0x94, V_DONE);
    operand("limit.fnsave-across", CODE("fnsave gs:[edi]"), 0x95, V_GP);
    operand("limit.fxsave-across", CODE("fxsave gs:[edi]"), 0, V_GP);
    operand("limit.movups", CODE("movups xmm0, gs:[edi]"), 0xf0, V_DONE);
    operand("limit.movups-across", CODE("movups xmm0, gs:[edi]"), 0xf1, V_GP);
    operand("limit.movaps-beyond", CODE("movaps gs:[edi], xmm0"), 0x100, V_GP);
    operand("limit.cmpxchg8b", CODE("cmpxchg8b gs:[edi]"), 0xf8, V_DONE);
    operand("limit.cmpxchg8b-across", CODE("cmpxchg8b gs:[edi]"), 0xf9, V_GP);
    operand("limit.bound-across", CODE("bound ecx, gs:[edi]"), 0xfc, V_GP);
    operand("limit.sgdt", CODE("sgdt gs:[edi]"), 0xfa, V_DONE);
    operand("limit.sgdt-across", CODE("sgdt gs:[edi]"), 0xfb, V_GP);
    operand("limit.lgdt-across", CODE("lgdt gs:[edi]"), 0xfb, V_GP);
    operand("limit.sidt-across", CODE("sidt gs:[edi]"), 0xfb, V_GP);
    operand("limit.sldt-word", CODE("sldt gs:[edi]"), 0xfe, V_DONE);
    operand("limit.smsw-word", CODE("smsw gs:[edi]"), 0xfe, V_DONE);
    operand("limit.str-across", CODE("str gs:[edi]"), 0xff, V_GP);
    operand("limit.les-across", CODE("les ecx, gs:[edi]"), 0xfb, V_GP);
    operand("limit.call-pointer-across", CODE("call fword ptr gs:[edi]"), 0xfb, V_GP);
    operand("limit.jmp-pointer-across", CODE("jmp fword ptr gs:[edi]"), 0xfb, V_GP);
    operand("limit.push-operand", CODE("push dword ptr gs:[edi]"), 0xfd, V_GP);
    operand("limit.pop-operand", CODE("push 0\n 9: pop dword ptr gs:[edi]"), 0xfd, V_GP);
    operand("limit.bt-register-far", CODE("mov ecx, 0x7f8\n 9: bt dword ptr gs:[edi], ecx"), 0,
            V_DONE);
    operand("limit.bt-register-beyond", CODE("mov ecx, 0x800\n 9: bt dword ptr gs:[edi], ecx"), 0,
            V_GP);
    operand("limit.bt-register-below", CODE("mov ecx, -1\n 9: bt dword ptr gs:[edi], ecx"), 0,
            V_GP);
    operand("limit.bt-immediate-wraps", CODE("bt dword ptr gs:[edi], 0xff"), 0xfc, V_DONE);
    operand("limit.xlat", CODE("mov ebx, 0xff\n xor eax, eax\n 9: xlatb gs:[ebx]"), 0, V_DONE);
    operand("limit.xlat-beyond", CODE("mov ebx, 0xff\n mov eax, 1\n 9: xlatb gs:[ebx]"), 0, V_GP);
    operand("limit.moffs-beyond", CODE("mov al, gs:[0x100]"), 0, V_GP);
    operand("limit.lea-never", CODE(".byte 0x65\n lea eax, [edi]"), 0x1000, V_DONE);
    operand("limit.nop-never", CODE("nop dword ptr gs:[edi]"), 0x1000, V_DONE);
    operand("limit.lods-beyond", CODE("mov esi, 0xfd\n 9: lodsd eax, gs:[esi]"), 0, V_GP);
    operand("limit.stos-es", CODE("push gs\n pop es\n mov edi, 0xf0\n mov ecx, 17\n 9: rep stosb"),
            0, V_GP);
    operand("limit.stos-down",
            CODE("push gs\n pop es\n mov edi, 1\n mov ecx, 3\n std\n 9: rep stosb"), 0, V_GP);
    operand("limit.stos-none",
            CODE("push gs\n pop es\n mov edi, 0x1000\n xor ecx, ecx\n 9: rep stosb"), 0, V_DONE);
    operand("limit.cmov-false", CODE("xor eax, eax\n 9: cmovnz eax, gs:[edi]"), 0x100, V_GP);
    operand("limit.prefetch-never", CODE("prefetcht0 gs:[edi]"), 0x1000, V_DONE);
    set_cr4(cr4() & ~CR4_OSFXSR);
    gdt_reset();
}

/* REP stops at the element that faults, with the registers after the last whole one. */
static void repeated(void)
{
    struct cpu c = kernel(CODE("rep stosb"));

    gdt_set(S_FREE, descriptor(LOW_CODE, 0xff, 0x93, 4));
    c.es = S_FREE;
    c.di = 0xf0;
    c.cx = 0x20;
    run(&c);
    check("limit.stos-cx", LIMITS, c.vector == V_GP ? c.cx : 0xbad, 0x10);
    check("limit.stos-di", LIMITS, c.di, 0x100);
    c = kernel(CODE("rep movsd"));
    c.es = S_FREE;
    c.ds = S_FREE;
    c.si = 0;
    c.di = 0xf2;
    c.cx = 0x20;
    run(&c);
    check("limit.movs-cx", LIMITS, c.vector == V_GP ? c.cx : 0xbad, 0x1d);
    check("limit.movs-si", LIMITS, c.si, 12);
    check("limit.movs-di", LIMITS, c.di, 0xfe);
    gdt_reset();
}

/* What CS and an empty register allow. */
static void overrides(void)
{
    struct cpu c = kernel(CODE("mov fs, eax\n 9: mov cl, fs:[edi]"));

    c.di = LOW_CODE;
    expect("null.read", TYPES, &c, V_GP, 0);
    c = kernel(CODE("mov fs, eax\n 9: mov fs:[edi], cl"));
    c.ax = 3;
    c.di = LOW_CODE;
    expect("null.write", TYPES, &c, V_GP, 0);
    c = kernel(CODE("mov ds, eax\n 9: lodsb"));
    expect("null.lods", TYPES, &c, V_GP, 0);
    c = kernel(CODE("mov es, eax\n 9: stosb"));
    expect("null.stos", TYPES, &c, V_GP, 0);
    c = kernel(CODE("mov es, eax\n 9: .byte 0x26\n lea ecx, [edi]"));
    expect("null.lea", TYPES, &c, V_DONE, 0);
    c = kernel(CODE("mov cl, cs:[edi]"));
    c.di = LOW_CODE;
    expect("type.cs-read", TYPES, &c, V_DONE, 0);
    c = kernel(CODE("mov cs:[edi], cl"));
    c.di = LOW_CODE;
    expect("type.cs-write", TYPES, &c, V_GP, 0);
    gdt_set(S_FREE, descriptor(0, 0xfffff, 0x99, 0xc));
    c = kernel(CODE("mov cl, cs:[edi]"));
    c.cs = S_FREE;
    c.di = LOW_CODE;
    expect("type.execute-only-cs-read", TYPES, &c, V_GP, 0);
    c = kernel(CODE("nop"));
    c.cs = S_FREE;
    expect("type.execute-only-runs", TYPES, &c, V_DONE, 0);
    gdt_reset();
}

/* ---- limits of the stack and of code ---- */

static void stack(const char *name, struct code code, uint32_t sp, unsigned flags, uint32_t limit,
                  int vector)
{
    struct cpu c = user(code);

    gdt_set(S_FREE, descriptor((word)user_page, limit, 0xf3, flags));
    c.ss = S_FREE | 3;
    c.sp = sp;
    c.bp = sp;
    expect(name, "SDM Vol.3, stack-fault exception", &c, vector, 0);
    if (vector == V_SS)
        check(joined(name, "-sp", ""), "SDM Vol.3, stack-fault exception", c.sp, sp);
}

/* A stack whose addresses are not offsets, while those of all other segments are. */
static void moved_stack(void)
{
    struct cpu c =
        user(UCODE("push eax\n pop ecx\n push 0x5678\n mov edx, [esp]\n mov ebx, [edi]"));

    gdt_set(S_FREE, descriptor((word)user_page, 0xfffff, 0xf3, 0xc));
    c.ss = S_FREE | 3;
    c.sp = 0x100;
    c.ax = 0x1234;
    c.di = (word)user_page + 0xfc;
    run_done("stack.moved", "SDM Vol.3, segments", &c);
    check("stack.moved-pop", "SDM Vol.3, segments", c.cx, 0x1234);
    check("stack.moved-sp", "SDM Vol.3, segments", c.dx, 0x5678);
    check("stack.moved-by-ds", "SDM Vol.3, segments", c.bx, 0x5678);
}

static void stacks(void)
{
    moved_stack();
    stack("stack.push-last", UCODE("push eax"), 0x100, 4, 0xff, V_DONE);
    stack("stack.push-beyond", UCODE("push eax"), 0x101, 4, 0xff, V_SS);
    stack("stack.push-below-zero", UCODE("push eax"), 0, 4, 0xff, V_SS);
    stack("stack.push-16-bits", UCODE("push ax"), 0x100, 4, 0xff, V_DONE);
    stack("stack.pop-beyond", UCODE("pop eax"), 0xfe, 4, 0xff, V_SS);
    stack("stack.pop-last", UCODE("pop eax"), 0xfc, 4, 0xff, V_DONE);
    stack("stack.ret-beyond", UCODE("ret"), 0xfd, 4, 0xff, V_SS);
    stack("stack.call-beyond", UCODE("call 1f\n 1:"), 0x102, 4, 0xff, V_SS);
    stack("stack.pusha-across", UCODE("pushad"), 0x10, 4, 0xff, V_SS);
    stack("stack.popa-across", UCODE("popad"), 0xf0, 4, 0xff, V_SS);
    stack("stack.pushf", UCODE("pushfd"), 0x102, 4, 0xff, V_SS);
    stack("stack.popf", UCODE("popfd"), 0xfe, 4, 0xff, V_SS);
    stack("stack.enter", UCODE("enter 8, 0"), 0x104, 4, 0xff, V_SS);
    stack("stack.leave", UCODE("leave"), 0xfe, 4, 0xff, V_SS);
    stack("stack.retf", UCODE("retf"), 0xfa, 4, 0xff, V_SS);
    stack("stack.iret", UCODE("iretd"), 0xf6, 4, 0xff, V_SS);
    stack("stack.bp-base", UCODE("mov al, [ebp]"), 0x100, 4, 0xff, V_SS);
    stack("stack.sp-base", UCODE("mov al, [esp]"), 0x100, 4, 0xff, V_SS);
    stack("stack.bp-ds-override", UCODE("mov al, ds:[ebp]"), 0x800000, 4, 0xff, V_DONE);
    stack("stack.push-es", UCODE("push es"), 0x104, 4, 0xff, V_SS);
    stack("stack.16-wraps", UCODE("push eax"), 0, 0, 0xffff, V_DONE);
    stack("stack.16-high-bits", UCODE("or esp, 0x12340000\n 9: push eax"), 0x100, 0, 0xffff,
          V_DONE);
    stack("stack.32-high-bits", UCODE("push eax"), 0x12340100, 4, 0xffff, V_SS);
    stack("stack.16-limit", UCODE("mov esp, 0x102\n 9: push eax"), 0x102, 0, 0xff, V_SS);
    gdt_reset();
}

/* An IRET loads only SP into a 16-bit stack: the fragment sets the upper half itself. */
static void stack_size(void)
{
    struct cpu c = user(UCODE("mov esp, 0x1234f100\n push eax"));

    gdt_set(S_FREE, descriptor((word)user_page - 0xf000, 0xffff, 0xf3, 0));
    c.ss = S_FREE | 3;
    run(&c);
    check("stack.16-keeps-high-sp", "SDM Vol.3, stack address size", c.sp, 0x1234f0fc);
    c = user(UCODE("mov esp, 0x1234f100\n pushad\n popad\n mov eax, esp"));
    c.ss = S_FREE | 3;
    run(&c);
    check("stack.16-popad-keeps-high-sp", "SDM Vol.3, stack address size", c.ax, 0x1234f100);
    c = user(UCODE("mov esp, 0x1234f100\n mov ebp, 0x5678f010\n leave"));
    c.ss = S_FREE | 3;
    run(&c);
    check("stack.16-leave", "SDM Vol.2, LEAVE", c.sp, 0x1234f014);
    c = user(UCODE("mov esp, 0x1234f100\n mov ebp, 0x5678f010\n enter 4, 0"));
    c.ss = S_FREE | 3;
    run(&c);
    check("stack.16-enter-sp", "SDM Vol.2, ENTER", c.sp, 0x1234f0f8);
    check("stack.16-enter-bp", "SDM Vol.2, ENTER", c.bp & 0xffff, 0xf0fc);
    c = user(UCODE("mov esp, 0x1234f100\n call 1f\n 1: pop eax\n mov ecx, esp"));
    c.ss = S_FREE | 3;
    run(&c);
    check("stack.16-call", "SDM Vol.3, stack address size", c.cx, 0x1234f100);
    gdt_reset();
}

/* A segment that begins at a fragment and ends before its end. */
static void code_limits(void)
{
    struct cpu c = kernel(CODE("nop\n 9: nop"));

    gdt_set(S_FREE, descriptor(c.code.start, 0, 0x9b, 4));
    c.cs = S_FREE;
    c.ip = 0;
    run(&c);
    check_event("code.runs-beyond", LIMITS, &c, V_GP, 0, 1);
    c = kernel(CODE("nop\n mov eax, 0x12345678"));
    gdt_set(S_FREE, descriptor(c.code.start, 4, 0x9b, 4));
    c.cs = S_FREE;
    c.ip = 0;
    run(&c);
    check_event("code.instruction-across", LIMITS, &c, V_GP, 0, 1);
    c = kernel(CODE("jmp 1f\n .skip 32\n 1: nop"));
    gdt_set(S_FREE, descriptor(c.code.start, 16, 0x9b, 4));
    c.cs = S_FREE;
    c.ip = 0;
    run(&c);
    check_event("code.jmp-beyond", LIMITS, &c, V_GP, 0, 0);
    c = kernel(CODE("call 1f\n .skip 32\n 1: nop"));
    c.cs = S_FREE;
    c.ip = 0;
    gdt_set(S_FREE, descriptor(c.code.start, 16, 0x9b, 4));
    run(&c);
    check_event("code.call-beyond", LIMITS, &c, V_GP, 0, 0);
    check("code.call-beyond-sp", LIMITS, c.sp, (word)fragment_stack_top);
    c = kernel(CODE("push 0x1000\n ret"));
    gdt_set(S_FREE, descriptor(c.code.start, 16, 0x9b, 4));
    c.cs = S_FREE;
    c.ip = 0;
    run(&c);
    check_event("code.ret-beyond", LIMITS, &c, V_GP, 0, 5);
    check("code.ret-beyond-sp", LIMITS, c.sp, (word)fragment_stack_top - 4);
    c = kernel(CODE("mov ecx, 0x100\n jmp ecx"));
    gdt_set(S_FREE, descriptor(c.code.start, 16, 0x9b, 4));
    c.cs = S_FREE;
    c.ip = 0;
    run(&c);
    check_event("code.jmp-register-beyond", LIMITS, &c, V_GP, 0, 5);
    c = kernel(CODE("mov ecx, 2\n loop 1f\n .skip 32\n 1: nop"));
    gdt_set(S_FREE, descriptor(c.code.start, 16, 0x9b, 4));
    c.cs = S_FREE;
    c.ip = 0;
    run(&c);
    check_event("code.loop-beyond", LIMITS, &c, V_GP, 0, 5);
    check("code.loop-beyond-cx", LIMITS, c.cx, 2);
    c = kernel(CODE("xor eax, eax\n jz 1f\n .skip 32\n 1: nop"));
    gdt_set(S_FREE, descriptor(c.code.start, 16, 0x9b, 4));
    c.cs = S_FREE;
    c.ip = 0;
    run(&c);
    check_event("code.jcc-beyond", LIMITS, &c, V_GP, 0, 2);
    c = kernel(CODE("xor eax, eax\n jnz 1f\n int 0x80\n .skip 32\n 1: nop"));
    gdt_set(S_FREE, descriptor(c.code.start, 16, 0x9b, 4));
    c.cs = S_FREE;
    c.ip = 0;
    run(&c);
    check_event("code.jcc-not-taken-beyond", LIMITS, &c, V_DONE, NO_ERROR, 6);
    gdt_reset();
}

void test(void)
{
    limits();
    operands();
    repeated();
    overrides();
    stacks();
    stack_size();
    code_limits();
}
