/* Selectors in 32-bit protected mode: loads of segment registers, LAR and its like, LDTR and TR. */
#include "bare.h"

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

void test(void)
{
    struct cpu c = kernel(CODE("lldt ax"));

    run(&c); /* after a reset the LDT is at 0, and large */
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
}
