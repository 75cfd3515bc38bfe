/* Data and stack segments in 32-bit protected mode: limits, types, loads, LAR and its like, LDT. */
#include "bare.h"

#define LIMITS "SDM Vol.3, limit checking"
#define TYPES "SDM Vol.3, type checking"
#define LOADS "SDM Vol.3, privilege checking when accessing data segments"
#define STACKS "SDM Vol.3, privilege checking when loading SS"
#define POINTERS "SDM Vol.3, pointer validation"
#define TABLES "SDM Vol.2, LLDT and LTR"

#define GONE 0x1f8 /* in the GDT, always empty */
#define OUTSIDE 0x208

static const char *hex(unsigned v)
{
    static char text[3];

    text[0] = "0123456789abcdef"[v >> 4 & 15];
    text[1] = "0123456789abcdef"[v & 15];
    return text;
}

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

/* ---- loads ---- */

struct load {
    const char *name;
    unsigned cpl, rpl, access; /* access 0: no descriptor */
    int vector;
};

static const struct load data_loads[] = {
    {"load.cpl0-dpl0", 0, 0, 0x92, V_DONE},
    {"load.cpl0-dpl0-rpl1", 0, 1, 0x92, V_GP},
    {"load.cpl0-dpl0-rpl3", 0, 3, 0x92, V_GP},
    {"load.cpl0-dpl2-rpl2", 0, 2, 0xd2, V_DONE},
    {"load.cpl0-dpl2-rpl3", 0, 3, 0xd2, V_GP},
    {"load.cpl0-dpl3-rpl3", 0, 3, 0xf2, V_DONE},
    {"load.cpl1-dpl0", 1, 0, 0x92, V_GP},
    {"load.cpl1-dpl1", 1, 0, 0xb2, V_DONE},
    {"load.cpl1-dpl1-rpl2", 1, 2, 0xb2, V_GP},
    {"load.cpl1-dpl3", 1, 1, 0xf2, V_DONE},
    {"load.cpl3-dpl0", 3, 0, 0x92, V_GP},
    {"load.cpl3-dpl2", 3, 3, 0xd2, V_GP},
    {"load.cpl3-dpl3-rpl0", 3, 0, 0xf2, V_DONE},
    {"load.cpl3-read-only", 3, 3, 0xf0, V_DONE},
    {"load.cpl3-expand-down", 3, 3, 0xf4, V_DONE},
    {"load.code-readable", 0, 0, 0x9a, V_DONE},
    {"load.code-execute-only", 0, 0, 0x98, V_GP},
    {"load.code-dpl0-cpl3", 3, 3, 0x9a, V_GP},
    {"load.code-dpl3-cpl3", 3, 3, 0xfa, V_DONE},
    {"load.conforming-dpl0-cpl3", 3, 3, 0x9e, V_DONE},
    {"load.conforming-dpl3-cpl0", 0, 0, 0xfe, V_DONE},
    {"load.conforming-rpl3", 0, 3, 0x9e, V_DONE},
    {"load.conforming-execute-only", 3, 3, 0x9c, V_GP},
    {"load.absent", 0, 0, 0x12, V_NP},
    {"load.absent-cpl3", 3, 3, 0x72, V_NP},
    {"load.absent-and-privilege", 3, 3, 0x12, V_GP},
    {"load.absent-and-type", 0, 0, 0x18, V_GP},
    {"load.absent-conforming", 3, 3, 0x1e, V_NP},
    {"load.empty", 0, 0, 0, V_GP},
    {"load.tss", 0, 0, 0x89, V_GP},
    {"load.ldt", 0, 0, 0x82, V_GP},
    {"load.call-gate", 0, 0, 0x8c, V_GP},
    {"load.absent-system", 0, 0, 0x09, V_GP},
};

static const struct load stack_loads[] = {
    {"ss.cpl0", 0, 0, 0x92, V_DONE},
    {"ss.cpl0-rpl3", 0, 3, 0x92, V_GP},
    {"ss.cpl0-dpl3", 0, 0, 0xf2, V_GP},
    {"ss.cpl0-dpl3-rpl3", 0, 3, 0xf2, V_GP},
    {"ss.cpl1", 1, 1, 0xb2, V_DONE},
    {"ss.cpl1-dpl0", 1, 1, 0x92, V_GP},
    {"ss.cpl3", 3, 3, 0xf2, V_DONE},
    {"ss.cpl3-rpl0", 3, 0, 0xf2, V_GP},
    {"ss.cpl3-dpl0", 3, 3, 0x92, V_GP},
    {"ss.cpl3-expand-down", 3, 3, 0xf6, V_DONE},
    {"ss.read-only", 3, 3, 0xf0, V_GP},
    {"ss.read-only-down", 3, 3, 0xf4, V_GP},
    {"ss.code", 3, 3, 0xfa, V_GP},
    {"ss.conforming", 3, 3, 0xfe, V_GP},
    {"ss.absent", 3, 3, 0x72, V_SS},
    {"ss.absent-cpl0", 0, 0, 0x12, V_SS},
    {"ss.absent-read-only", 3, 3, 0x70, V_GP},
    {"ss.absent-privilege", 3, 3, 0x12, V_GP},
    {"ss.empty", 3, 3, 0, V_GP},
    {"ss.tss", 0, 0, 0x89, V_GP},
};

static void load_rows(const struct load *rows, unsigned n, struct code kernels, struct code users,
                      const char *topic)
{
    for (unsigned i = 0; i < n; i++) {
        const struct load *l = &rows[i];
        struct cpu c = at_level(l->cpl == 3 ? users : kernels, l->cpl);
        bool expand_down = (l->access & 0x1c) == 0x14;

        gdt_set(S_FREE, descriptor(0, expand_down ? 0 : 0xfffff, l->access, 0xc));
        c.ax = S_FREE | l->rpl;
        expect(l->name, topic, &c, l->vector, S_FREE);
        check(joined(l->name, "-accessed", ""), "SDM Vol.3, code- and data-segment types",
              gdt[S_FREE / 8] >> 40 & 1,
              l->vector == V_DONE || ((l->access & 0x10) == 0 && (l->access & 1)));
    }
    gdt_reset();
}

/* Each way to load a data register, with a selector that may not be loaded. */
static void ways(void)
{
    static const char *const names[] = {"load.mov-ds", "load.mov-es", "load.mov-fs",  "load.mov-gs",
                                        "load.pop-ds", "load.pop-es", "load.pop-fs",  "load.pop-gs",
                                        "load.lds",    "load.les",    "load.lfs",     "load.lgs",
                                        "load.lss",    "load.pop-ss", "load.pop16-es"};
    struct code codes[] = {
        CODE("mov ds, eax"),
        CODE("mov es, eax"),
        CODE("mov fs, eax"),
        CODE("mov gs, eax"),
        CODE("push eax\n 9: pop ds"),
        CODE("push eax\n 9: pop es"),
        CODE("push eax\n 9: pop fs"),
        CODE("push eax\n 9: pop gs"),
        CODE("push eax\n push 1\n 9: lds ecx, [esp]"),
        CODE("push eax\n push 1\n 9: les ecx, [esp]"),
        CODE("push eax\n push 1\n 9: lfs ecx, [esp]"),
        CODE("push eax\n push 1\n 9: lgs ecx, [esp]"),
        CODE("push eax\n push 1\n 9: lss ecx, [esp]"),
        CODE("push eax\n 9: pop ss"),
        CODE("push ax\n 9: .byte 0x66\n pop es"),
    };

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct cpu c = kernel(codes[i]);
        word sp;

        c.ax = GONE | 3;
        c.cx = 0x12345678;
        run(&c);
        check_fault(names[i], LOADS, &c, V_GP, GONE);
        check(joined(names[i], "-restores", ""), LOADS, c.cx, 0x12345678);
        sp = c.sp;
        c = kernel(codes[i]);
        check(joined(names[i], "-sp", ""), LOADS, sp,
              c.sp - (i < 4               ? 0
                      : i >= 8 && i <= 12 ? 8
                      : i == 14           ? 2
                                          : 4));
    }
}

static void more_loads(void)
{
    struct cpu c = kernel(CODE("mov fs, eax"));

    c.ax = OUTSIDE;
    expect("load.beyond-gdt", LOADS, &c, V_GP, OUTSIDE);
    c.ip = c.code.start;
    c.ax = 0xffff;
    expect("load.beyond-gdt-last", LOADS, &c, V_GP, 0xfffc);
    c = kernel(CODE("mov fs, eax"));
    c.ax = S_FREE | 4;
    expect("load.no-ldt", LOADS, &c, V_GP, S_FREE | 4);
    for (unsigned rpl = 0; rpl < 4; rpl++) {
        c = user(UCODE("mov fs, eax\n mov ecx, fs"));
        c.ax = rpl;
        run(&c);
        check(joined("load.null-rpl", &"0\0001\0002\0003"[2 * rpl], ""), LOADS,
              c.vector == V_DONE ? c.cx : 0xbad, rpl);
    }
    c = kernel(CODE("mov ss, eax"));
    expect("ss.null", STACKS, &c, V_GP, 0);
    c = user(UCODE("mov ss, eax"));
    c.ax = 3;
    expect("ss.null-cpl3", STACKS, &c, V_GP, 0);
    c = kernel(CODE("mov ss, eax"));
    c.ax = OUTSIDE;
    expect("ss.beyond-gdt", STACKS, &c, V_GP, OUTSIDE);
    c = kernel(CODE("push 0\n 9: pop ss"));
    expect("ss.pop-null", STACKS, &c, V_GP, 0);
}

static void undefined(void)
{
    struct cpu c = kernel(CODE(".byte 0x8e, 0xc8"));

    c.ax = S_CODE;
    run_fault("load.mov-cs", "SDM Vol.2, MOV", &c, V_UD, NO_ERROR);
    c = kernel(CODE(".byte 0x8e, 0xf0"));
    run_fault("load.mov-segment6", "SDM Vol.2, MOV", &c, V_UD, NO_ERROR);
    c = kernel(CODE(".byte 0x8c, 0xf8"));
    run_fault("load.mov-from-segment7", "SDM Vol.2, MOV", &c, V_UD, NO_ERROR);
    c = kernel(CODE(".byte 0xc4, 0xc1"));
    run(&c);
    check("load.les-register", "SDM Vol.2, LDS and its like", c.vector, V_UD);
    c = kernel(CODE("mov ecx, -1\n mov ecx, fs"));
    c.fs = S_DATA;
    run(&c);
    check("load.mov-to-r32", "SDM Vol.2, MOV", c.cx, S_DATA);
    c = kernel(CODE("mov ecx, -1\n .byte 0x66\n mov ecx, fs"));
    c.fs = S_DATA;
    run(&c);
    check("load.mov-to-r16", "SDM Vol.2, MOV", c.cx, 0xffff0000 | S_DATA);
    c = kernel(CODE("push -1\n mov [esp], fs\n pop ecx"));
    c.fs = S_DATA;
    run(&c);
    check("load.mov-to-memory", "SDM Vol.2, MOV", c.cx, 0xffff0000 | S_DATA);
}

/* ---- LAR, LSL, VERR, VERW, ARPL ---- */

static const uint16_t lar_types = 0x1a3e; /* TSS, LDT, call gates, task gate; not INT gates */
static const uint16_t lsl_types = 0x0a0e;

static void system_types(void)
{
    for (unsigned type = 0; type < 16; type++) {
        struct cpu c = user(UCODE("xor ebx, ebx\n lar ecx, eax\n setz bl\n lsl edx, eax\n"
                                  "setz bh\n verr ax\n jnz 1f\n or ebx, 0x10000\n"
                                  "1: verw ax\n jnz 1f\n or ebx, 0x20000\n 1:"));
        uint64_t d = descriptor(0x12345678, 0xabcde, 0xe0 | type, 5);

        gdt_set(S_FREE, d);
        c.ax = S_FREE | 3;
        c.cx = c.dx = 0x55555555;
        run(&c);
        check(joined("lar.type", hex(type), ""), POINTERS, c.bx & 1, lar_types >> type & 1);
        check_bits(joined("lar.type", hex(type), "-value"), POINTERS, c.cx,
                   lar_types >> type & 1 ? d >> 32 & 0x00f0ff00 : 0x55555555, 0x00f0ff00);
        check(joined("lsl.type", hex(type), ""), POINTERS, c.bx >> 8 & 1, lsl_types >> type & 1);
        check(joined("lsl.type", hex(type), "-value"), POINTERS, c.dx,
              lsl_types >> type & 1 ? 0xabcde : 0x55555555);
        check(joined("verr.type", hex(type), ""), POINTERS, c.bx >> 16, 0);
    }
    gdt_reset();
}

struct verify {
    const char *name;
    unsigned cpl, rpl, access;
    unsigned zf; /* 1 LAR, 2 LSL, 4 VERR, 8 VERW */
};

static const struct verify verifies[] = {
    {"data", 3, 3, 0xf2, 15},
    {"read-only", 3, 3, 0xf0, 7},
    {"dpl0", 3, 3, 0x92, 0},
    {"dpl0-cpl0", 0, 0, 0x92, 15},
    {"dpl0-rpl3", 0, 3, 0x92, 0},
    {"dpl2-rpl3", 0, 3, 0xd2, 0},
    {"dpl2-rpl2", 1, 2, 0xd2, 15},
    {"code", 3, 3, 0xfa, 7},
    {"code-execute-only", 3, 3, 0xf8, 3},
    {"code-dpl0", 3, 3, 0x9a, 0},
    {"conforming", 3, 3, 0x9e, 7},
    {"conforming-execute-only", 3, 3, 0x9c, 3},
    {"conforming-dpl3-cpl0", 0, 0, 0xfe, 7},
    {"absent", 3, 3, 0x72, 15},
    {"expand-down", 3, 3, 0xf6, 15},
    {"tss-dpl0", 3, 3, 0x89, 0},
    {"tss-cpl0", 0, 0, 0x89, 3},
};

#define VERIFY                                                                                     \
    "xor ebx, ebx\n lar ecx, eax\n jnz 1f\n or bl, 1\n 1: lsl ecx, eax\n jnz 1f\n or bl, 2\n"      \
    "1: verr ax\n jnz 1f\n or bl, 4\n 1: verw ax\n jnz 1f\n or bl, 8\n 1:"

static void verify(void)
{
    struct code kernels = CODE(VERIFY), users = UCODE(VERIFY);
    struct cpu c;

    for (unsigned i = 0; i < sizeof(verifies) / sizeof(verifies[0]); i++) {
        const struct verify *v = &verifies[i];
        static const char *const names[] = {"lar.", "lsl.", "verr.", "verw."};

        c = at_level(v->cpl == 3 ? users : kernels, v->cpl);
        gdt_set(S_FREE, descriptor(0, 0xfffff, v->access, 0xc));
        c.ax = S_FREE | v->rpl;
        run(&c);
        for (unsigned k = 0; k < 4; k++)
            check(joined(names[k], v->name, ""), POINTERS, c.bx >> k & 1, v->zf >> k & 1);
        check(joined("lar.", v->name, "-not-accessed"), POINTERS, gdt[S_FREE / 8] >> 40 & 0xff,
              v->access);
    }
    static const uint32_t others[] = {0, 3, OUTSIDE, S_FREE | 4, 0xffff};
    static const char *const other_names[] = {"null", "null-rpl3", "beyond-gdt", "no-ldt", "last"};

    for (unsigned i = 0; i < 5; i++) {
        c = user(users);
        c.ax = others[i];
        run(&c);
        check(joined("verify.", other_names[i], ""), POINTERS, c.vector == V_DONE ? c.bx : 0xbad,
              0);
    }
}

static void pointers(void)
{
    struct cpu c = kernel(CODE("lsl ecx, eax"));

    gdt_set(S_FREE, descriptor(0, 0x12345, 0x92, 0xc));
    c.ax = S_FREE;
    run(&c);
    check("lsl.page-granular", POINTERS, c.cx, 0x12345fff);
    c = kernel(CODE("lsl ecx, eax"));
    gdt_set(S_FREE, descriptor(0, 0x12345, 0x92, 4));
    c.ax = S_FREE;
    run(&c);
    check("lsl.byte-granular", POINTERS, c.cx, 0x12345);
    c = kernel(CODE("lsl cx, ax"));
    c.ax = S_FREE;
    c.cx = 0xaaaaaaaa;
    run(&c);
    check("lsl.16-bit", POINTERS, c.cx, 0xaaaa2345);
    c = kernel(CODE("lar cx, ax"));
    c.ax = S_FREE;
    c.cx = 0xaaaaaaaa;
    run(&c);
    check("lar.16-bit", POINTERS, c.cx, 0xaaaa9200);
    c = kernel(CODE("lar ecx, eax"));
    c.ax = 0xffff0000 | S_FREE;
    run(&c);
    check_bits("lar.selector-16-bits", POINTERS, c.cx, 0x409200, 0xf0ff00);
    c = kernel(CODE("push eax\n lar ecx, word ptr [esp]\n pop eax"));
    c.ax = S_FREE;
    run(&c);
    check_bits("lar.memory", POINTERS, c.cx, 0x409200, 0xf0ff00);
    c = kernel(CODE("push eax\n verw word ptr [esp]\n pop eax"));
    c.ax = S_FREE;
    run(&c);
    check("verw.memory", POINTERS, c.flags & FL_ZF, FL_ZF);
    c = kernel(CODE("arpl cx, ax"));
    c.cx = 0x12340010;
    c.ax = 0xffff0003;
    run(&c);
    check("arpl.raises", POINTERS, c.cx, 0x12340013);
    check("arpl.raises-zf", POINTERS, c.flags & FL_ZF, FL_ZF);
    c = kernel(CODE("arpl cx, ax"));
    c.cx = 0x12340012;
    c.ax = 0xffff0002;
    c.flags |= FL_ZF | FL_CF;
    run(&c);
    check("arpl.keeps", POINTERS, c.cx, 0x12340012);
    check("arpl.keeps-flags", POINTERS, c.flags & (FL_ZF | FL_CF), FL_CF);
    c = user(UCODE("push 0x40\n arpl [esp], ax\n pop ecx"));
    c.ax = 1;
    run(&c);
    check("arpl.memory", POINTERS, c.cx, 0x41);
    gdt_reset();
}

/* ---- LDTR and TR ---- */

static void lldt(void)
{
    static uint64_t ldt[4];
    struct cpu c = kernel(CODE("lldt ax"));

    gdt_set(S_LDT, descriptor((word)ldt, sizeof(ldt) - 1, 0x82, 0));
    c.ax = S_LDT | 3; /* RPL means nothing */
    expect("lldt.loads", TABLES, &c, V_DONE, 0);
    ldt[1] = descriptor(0, 0xfffff, 0x92, 0xc);
    ldt[2] = descriptor(0, 0xfffff, 0x12, 0xc);
    ldt[3] = descriptor(0, 0xfffff, 0xf2, 0xc);
    c = kernel(CODE("mov fs, eax\n mov cl, fs:[edi]"));
    c.ax = 8 | 4;
    c.di = LOW_CODE;
    expect("ldt.data", "SDM Vol.3, segment selectors", &c, V_DONE, 0);
    check("ldt.accessed", "SDM Vol.3, segment selectors", ldt[1] >> 40 & 1, 1);
    c = kernel(CODE("mov fs, eax"));
    c.ax = 16 | 4;
    expect("ldt.absent", "SDM Vol.3, segment selectors", &c, V_NP, 16 | 4);
    c = kernel(CODE("mov fs, eax"));
    c.ax = 32 | 4;
    expect("ldt.beyond", "SDM Vol.3, segment selectors", &c, V_GP, 32 | 4);
    c = kernel(CODE("mov fs, eax"));
    c.ax = 4;
    expect("ldt.first-entry-is-not-null", "SDM Vol.3, segment selectors", &c, V_GP, 4);
    c = kernel(CODE("lldt ax"));
    c.ax = 8 | 4;
    expect("lldt.in-ldt", TABLES, &c, V_GP, 8 | 4);
    c = kernel(CODE("lldt ax"));
    c.ax = S_DATA;
    expect("lldt.data", TABLES, &c, V_GP, S_DATA);
    c = kernel(CODE("lldt ax"));
    c.ax = S_TSS;
    expect("lldt.tss", TABLES, &c, V_GP, S_TSS);
    c = kernel(CODE("lldt ax"));
    c.ax = OUTSIDE;
    expect("lldt.beyond", TABLES, &c, V_GP, OUTSIDE);
    gdt_set(S_FREE, descriptor((word)ldt, 7, 0x02, 0));
    c = kernel(CODE("lldt ax"));
    c.ax = S_FREE;
    expect("lldt.absent", TABLES, &c, V_NP, S_FREE);
    c = kernel(CODE("sldt ecx"));
    run(&c);
    check("lldt.keeps", TABLES, c.cx & 0xffff, S_LDT | 3);
    c = at_level(CODE("lldt ax"), 1);
    expect("lldt.cpl1", TABLES, &c, V_GP, 0);
    c = kernel(CODE("lldt ax"));
    c.ax = 3;
    expect("lldt.null", TABLES, &c, V_DONE, 0);
    c = kernel(CODE("mov fs, eax"));
    c.ax = 8 | 4;
    expect("ldt.none", TABLES, &c, V_GP, 8 | 4);
    c = kernel(CODE("lldt ax"));
    run(&c);
    gdt_reset();
}

static void ltr(void)
{
    struct cpu c = kernel(CODE("ltr ax"));

    expect("ltr.null", TABLES, &c, V_GP, 0);
    c = kernel(CODE("ltr ax"));
    c.ax = S_TSS;
    expect("ltr.busy", TABLES, &c, V_GP, S_TSS);
    c = kernel(CODE("ltr ax"));
    c.ax = 8 | 4;
    expect("ltr.in-ldt", TABLES, &c, V_GP, 8 | 4);
    c = kernel(CODE("ltr ax"));
    c.ax = S_DATA;
    expect("ltr.data", TABLES, &c, V_GP, S_DATA);
    c = kernel(CODE("ltr ax"));
    c.ax = OUTSIDE;
    expect("ltr.beyond", TABLES, &c, V_GP, OUTSIDE);
    gdt_set(S_FREE, descriptor((word)tss, sizeof(tss) - 1, 0x09, 0));
    c = kernel(CODE("ltr ax"));
    c.ax = S_FREE;
    expect("ltr.absent", TABLES, &c, V_NP, S_FREE);
    gdt_set(S_FREE, descriptor((word)tss, sizeof(tss) - 1, 0x82, 0));
    c = kernel(CODE("ltr ax"));
    c.ax = S_FREE;
    expect("ltr.ldt", TABLES, &c, V_GP, S_FREE);
    gdt_set(S_FREE, descriptor((word)tss, sizeof(tss) - 1, 0xe9, 0));
    c = kernel(CODE("ltr ax\n str ecx"));
    c.ax = S_FREE | 3;
    run(&c);
    check("ltr.loads", TABLES, c.vector == V_DONE ? c.cx & 0xffff : 0xbad, S_FREE | 3);
    check("ltr.marks-busy", TABLES, gdt[S_FREE / 8] >> 40 & 0xff, 0xeb);
    check("ltr.leaves-old", TABLES, gdt[S_TSS / 8] >> 40 & 0xff, 0x8b);
    gdt_set(S_FREE, descriptor((word)tss, sizeof(tss) - 1, 0x81, 0));
    c = kernel(CODE("ltr ax"));
    c.ax = S_FREE;
    expect("ltr.16-bit", TABLES, &c, V_DONE, 0);
    check("ltr.16-bit-busy", TABLES, gdt[S_FREE / 8] >> 40 & 0xff, 0x83);
    gdt_reset();
    c = at_level(CODE("ltr ax"), 2);
    expect("ltr.cpl2", TABLES, &c, V_GP, 0);
    gdt_reset();
}

/* SLDT and STR: 16 bits to memory, whatever the operand size. */
static void stores(void)
{
    struct cpu c = kernel(CODE("mov ecx, -1\n push ecx\n str [esp]\n pop eax\n str cx"));

    run(&c);
    check("str.memory", "SDM Vol.2, STR", c.ax, 0xffff0000 | S_TSS);
    check("str.r16", "SDM Vol.2, STR", c.cx, 0xffff0000 | S_TSS);
    c = kernel(CODE("mov ecx, -1\n str ecx"));
    run(&c);
    check("str.r32", "SDM Vol.2, STR", c.cx, S_TSS);
    c = user(UCODE("str ecx\n sldt edx"));
    expect("str.cpl3", "SDM Vol.2, STR", &c, V_DONE, 0);
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

static void stacks(void)
{
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
    struct cpu c = kernel(CODE("lldt ax"));

    run(&c); /* after a reset the LDT is at 0, and large */
    limits();
    operands();
    repeated();
    overrides();
    load_rows(data_loads, sizeof(data_loads) / sizeof(data_loads[0]), CODE("mov fs, eax"),
              UCODE("mov fs, eax"), LOADS);
    load_rows(stack_loads, sizeof(stack_loads) / sizeof(stack_loads[0]), CODE("mov ss, eax"),
              UCODE("mov ss, eax"), STACKS);
    ways();
    more_loads();
    undefined();
    system_types();
    verify();
    pointers();
    lldt();
    ltr();
    stores();
    stacks();
    stack_size();
    code_limits();
}
