/*
 * Segments in long mode: loading registers, limits and rights in compatibility mode, the
 * instructions that look at descriptors, UMIP, LDT and TSS.
 */
#include "bare.h"

#define LOAD "SDM Vol.2, MOV to segment registers"
#define LIMIT "SDM Vol.3, limit checking"
#define TYPE "SDM Vol.3, type checking"
#define LAR "SDM Vol.2, LAR"
#define LSL "SDM Vol.2, LSL"
#define VERIFY "SDM Vol.2, VERR and VERW"
#define UMIP "SDM Vol.3, user-mode instruction prevention"
#define SYSTEM "SDM Vol.2, LTR and LLDT"

/* Test descriptors; selectors without RPL. */
enum {
    D_ABSENT = S_FREE,         /* data, DPL 3, not present */
    D_READ = S_FREE + 0x08,    /* data, read-only, DPL 3 */
    D_LIMIT = S_FREE + 0x10,   /* data, DPL 3, at user_page, limit 0xff */
    D_DOWN = S_FREE + 0x18,    /* expand-down, 32-bit, at user_page, limit 0xff */
    D_DOWN16 = S_FREE + 0x20,  /* expand-down, 16-bit */
    D_EXEC = S_FREE + 0x28,    /* code, execute-only, 32-bit, DPL 3 */
    D_SMALL = S_FREE + 0x30,   /* code, 32-bit, limit up to a fragment's end: set by the test */
    D_SYSTEM = S_FREE + 0x38,  /* LDT without upper half in sight: a system type */
    D_HIGH = S_FREE + 0x48,    /* data, DPL 3, base 0xfffff000 */
    D_FRESH = S_FREE + 0x50,   /* data, DPL 3, not accessed yet */
    D_CONF = S_FREE + 0x58,    /* code, conforming, readable, DPL 0 */
    D_TSS = S_FREE + 0x60,     /* and its upper half */
    D_INNER = S_FREE + 0x70,   /* data, DPL 0 */
    D_STACK16 = S_FREE + 0x78, /* stack, 16-bit, DPL 3, at user_page[1] */
    D_DPL1 = S_FREE + 0x80,    /* data, DPL 1 */
};

static void descriptors(void)
{
    uint32_t page = (uint32_t)(word)user_page[0];

    gdt_reset();
    gdt_set(D_ABSENT, descriptor(0, 0xfffff, 0x73, 0xc));
    gdt_set(D_READ, descriptor(0, 0xfffff, 0xf1, 0xc));
    gdt_set(D_LIMIT, descriptor(page, 0xff, 0xf3, 0x4));
    gdt_set(D_DOWN, descriptor(page, 0xff, 0xf7, 0x4));
    gdt_set(D_DOWN16, descriptor(page, 0xff, 0xf7, 0));
    gdt_set(D_EXEC, descriptor(0, 0xfffff, 0xf9, 0xc));
    gdt_set(D_SYSTEM, descriptor(0, 0xff, 0x82, 0));
    gdt_set(D_HIGH, descriptor(0xfffff000, 0xfffff, 0xf3, 0xc));
    gdt_set(D_FRESH, descriptor(0, 0xfffff, 0xf2, 0xc));
    gdt_set(D_CONF, descriptor(0, 0xfffff, 0x9f, 0xa));
    gdt_set(D_TSS, descriptor((uint32_t)(word)tss, 103, 0x89, 0));
    gdt_set(D_INNER, descriptor(0, 0xfffff, 0x93, 0xc));
    gdt_set(D_STACK16, descriptor((uint32_t)(word)user_page[1], 0xffff, 0xf3, 0));
    gdt_set(D_DPL1, descriptor(0, 0xfffff, 0xb3, 0xc));
}

/* ---- loading ---- */

static void load_case(const char *name, bool ss, unsigned cpl, word selector, int vector,
                      uint32_t error)
{
    struct cpu c = at_level(ss ? UCODE("mov ss, eax") : UCODE("mov fs, eax"), cpl);

    c.ax = selector;
    run(&c);
    if (vector == V_DONE)
        check_done(name, LOAD, &c);
    else
        check_fault(name, LOAD, &c, vector, error);
}

static void loads(void)
{
    struct cpu c;

    load_case("load.null", false, 0, 0, V_DONE, 0);
    load_case("load.null-rpl3", false, 0, 3, V_DONE, 0);
    load_case("load.user-null", false, 3, 3, V_DONE, 0);
    load_case("load.data", false, 0, S_DATA, V_DONE, 0);
    load_case("load.absent", false, 0, D_ABSENT | 3, V_NP, D_ABSENT);
    load_case("load.beyond-gdt", false, 0, 0xff8, V_GP, 0xff8);
    load_case("load.partly-beyond-gdt", false, 0, sizeof(gdt), V_GP, sizeof(gdt));
    load_case("load.ldt-absent", false, 0, 0xc, V_GP, 0xc);
    load_case("load.system", false, 0, D_SYSTEM, V_GP, D_SYSTEM);
    load_case("load.execute-only", false, 3, D_EXEC | 3, V_GP, D_EXEC);
    load_case("load.readable-code", false, 3, S_UCODE32, V_DONE, 0);
    load_case("load.read-only-data", false, 3, D_READ | 3, V_DONE, 0);
    load_case("load.user-inner", false, 3, D_INNER | 3, V_GP, D_INNER);
    load_case("load.rpl-above-dpl", false, 0, D_INNER | 3, V_GP, D_INNER);
    load_case("load.cpl1-dpl1", false, 1, D_DPL1 | 1, V_DONE, 0);
    load_case("load.cpl2-dpl1", false, 2, D_DPL1 | 1, V_GP, D_DPL1);
    load_case("load.user-conforming", false, 3, D_CONF | 3, V_DONE, 0);
    load_case("load.user-inner-code", false, 3, S_CODE | 3, V_GP, S_CODE);
    load_case("load.ss-null-cpl0", true, 0, 0, V_DONE, 0);
    load_case("load.ss-null-cpl1", true, 1, 1, V_DONE, 0);
    load_case("load.ss-null-other-rpl", true, 1, 0, V_GP, 0);
    load_case("load.ss-null-user", true, 3, 3, V_GP, 0);
    load_case("load.ss-null-user-rpl0", true, 3, 0, V_GP, 0);
    load_case("load.ss-absent", true, 3, D_ABSENT | 3, V_SS, D_ABSENT);
    load_case("load.ss-read-only", true, 3, D_READ | 3, V_GP, D_READ);
    load_case("load.ss-code", true, 0, S_CODE, V_GP, S_CODE);
    load_case("load.ss-rpl", true, 0, S_DATA | 3, V_GP, S_DATA);
    load_case("load.ss-dpl", true, 0, S_UDATA & ~3ul, V_GP, S_UDATA & ~3u);
    load_case("load.ss-user-inner", true, 3, S_DATA | 3, V_GP, S_DATA);
    load_case("load.ss-beyond-gdt", true, 0, 0xff8, V_GP, 0xff8);
    load_case("load.accesses", false, 3, D_FRESH | 3, V_DONE, 0);
    check("load.sets-accessed", "SDM Vol.3, segment descriptors, accessed bit",
          gdt[D_FRESH / 8] >> 40 & 1, 1);
    c = user(UCODE("9: pop fs"));
    c.sp -= 8;
    *(volatile word *)c.sp = S_DATA | 3;
    run_fault("load.pop-fs", "SDM Vol.2, POP", &c, V_GP, S_DATA);
    check("load.pop-fs-keeps-rsp", "SDM Vol.2, POP", c.sp, (word)user_stack_top - 8);
    c = kernel(CODE(".byte 0x48, 0x8e, 0xe0\n mov ecx, fs")); /* mov fs, rax: 16 bits count */
    c.ax = 0xabcd0000 | S_UDATA;
    run(&c);
    check("load.upper-bits-ignored", LOAD, c.vector == V_DONE ? c.cx : 0, S_UDATA);
    c = kernel(CODE("mov rax, -1\n mov eax, ds\n mov rcx, -1\n mov cx, ds"));
    run(&c);
    check("load.store-32-zero-extends", "SDM Vol.2, MOV from segment registers", c.ax, S_UDATA);
    check("load.store-16-keeps-upper", "SDM Vol.2, MOV from segment registers", c.cx,
          0xffffffffffff0000 | S_UDATA);
    descriptors();
}

/* ---- compatibility mode ---- */

/* DS (and ES) is the selector, EDI the offset; SS the stack selector if not 0. */
static struct cpu compat(struct code code, word ds, word di)
{
    struct cpu c = kernel(code);

    c.cs = S_UCODE32;
    c.ss = S_UDATA;
    c.sp = (word)user_stack_top;
    c.ds = ds;
    c.es = ds;
    c.di = c.si = c.bp = di;
    run(&c);
    return c;
}

static void compat_case(const char *name, const char *topic, struct code code, word ds, word di,
                        int vector)
{
    struct cpu c = compat(code, ds, di);

    if (vector == V_DONE)
        check_done(name, topic, &c);
    else
        check_fault(name, topic, &c, vector, 0);
}

static void limits(void)
{
    struct code byte = UCODE32("mov al, [edi]"), dword = UCODE32("mov eax, [edi]");
    struct code store = UCODE32("mov [edi], al");

    compat_case("limit.last-byte", LIMIT, byte, D_LIMIT | 3, 0xff, V_DONE);
    compat_case("limit.behind", LIMIT, byte, D_LIMIT | 3, 0x100, V_GP);
    compat_case("limit.last-dword", LIMIT, dword, D_LIMIT | 3, 0xfc, V_DONE);
    compat_case("limit.across", LIMIT, dword, D_LIMIT | 3, 0xfd, V_GP);
    compat_case("limit.highest", LIMIT, dword, D_LIMIT | 3, 0xffffffff, V_GP);
    compat_case("limit.store", LIMIT, store, D_LIMIT | 3, 0x100, V_GP);
    compat_case("limit.string-es", LIMIT, UCODE32("stosd"), D_LIMIT | 3, 0xfe, V_GP);
    compat_case("limit.string-ds", LIMIT, UCODE32("lodsw"), D_LIMIT | 3, 0xff, V_GP);
    compat_case("limit.down-below", LIMIT, byte, D_DOWN | 3, 0xff, V_GP);
    compat_case("limit.down-first", LIMIT, byte, D_DOWN | 3, 0x100, V_DONE);
    compat_case("limit.down-beyond-64k", LIMIT, byte, D_DOWN | 3, 0x10000, V_DONE);
    compat_case("limit.down-across", LIMIT, dword, D_DOWN | 3, 0xfd, V_GP);
    compat_case("limit.down16-top", LIMIT, byte, D_DOWN16 | 3, 0xffff, V_DONE);
    compat_case("limit.down16-beyond", LIMIT, byte, D_DOWN16 | 3, 0x10000, V_GP);
    compat_case("limit.down16-across", LIMIT, dword, D_DOWN16 | 3, 0xfffe, V_GP);
    compat_case("limit.null", TYPE, byte, 0, 0, V_GP);
    compat_case("limit.null-rpl3", TYPE, byte, 3, 0x800000, V_GP);
    compat_case("limit.read-only-read", TYPE, dword, D_READ | 3, 0x800000, V_DONE);
    compat_case("limit.read-only-write", TYPE, store, D_READ | 3, 0x800000, V_GP);
    compat_case("limit.write-to-code", TYPE, UCODE32("mov cs:[edi], al"), S_UDATA, 0x800000, V_GP);
    compat_case("limit.read-from-code", TYPE, UCODE32("mov al, cs:[edi]"), S_UDATA, 0x800000,
                V_DONE);
    compat_case("limit.modify-read-only", TYPE, UCODE32("inc byte ptr [edi]"), D_READ | 3, 0x800000,
                V_GP);
}

static void compat_stacks(void)
{
    struct cpu c = kernel(UCODE32("mov ss, eax\n 9: mov cl, [ebp]"));
    c.cs = S_UCODE32;
    c.ss = S_UDATA;
    c.ax = D_LIMIT | 3;
    c.bp = 0x100;
    run_fault("limit.ss", LIMIT, &c, V_SS, 0);
    c = kernel(UCODE32("mov ss, eax\n 9: push eax"));
    c.cs = S_UCODE32;
    c.ss = S_UDATA;
    c.ax = D_LIMIT | 3;
    c.sp = 0x104;
    run_fault("limit.ss-push", LIMIT, &c, V_SS, 0);
    c = kernel(UCODE32("mov ss, eax\n push eax\n mov ecx, esp"));
    c.cs = S_UCODE32;
    c.ss = S_UDATA;
    c.ax = D_STACK16 | 3;
    c.sp = 0xabcd0000; /* SP wraps; the upper half stays */
    gdt_set(D_STACK16, descriptor(0x800000, 0xffff, 0xf3, 0));
    run(&c);
    check("limit.16-bit-stack", "SDM Vol.1, stack address size", c.vector == V_DONE ? c.cx : 0,
          0xabcdfffc);
    descriptors();
}

/* A code segment from the fragment on to its mark, less some bytes; runs into #GP(0) at ip. */
static void code_limit(const char *name, struct code code, unsigned less, word ip)
{
    struct cpu c = kernel(code);

    gdt_set(D_SMALL, descriptor(code.start, code.mark - code.start - 1 - less, 0xfb, 0x4));
    c.cs = D_SMALL | 3;
    c.ss = S_UDATA;
    c.ip = 0;
    run(&c);
    check_event(name, LIMIT, &c, V_GP, 0, ip);
}

static void compat_addresses(void)
{
    struct cpu c;

    *(volatile uint32_t *)user_page[0] = 0x13572468;
    c = compat(UCODE32("mov eax, [edi]"), D_HIGH | 3, 0x1000 + (word)user_page[0]);
    check("compat.base-wraps-at-4g", "SDM Vol.3, compatibility mode, linear addresses",
          c.vector == V_DONE ? c.ax & 0xffffffff : 0, 0x13572468);
    c = compat(UCODE32("mov eax, [edi + 0x7fffffff]"), S_UDATA,
               (uint32_t)((word)user_page[0] - 0x7fffffff));
    check("compat.offset-wraps", "SDM Vol.3, compatibility mode, linear addresses",
          c.vector == V_DONE ? c.ax & 0xffffffff : 0, 0x13572468);
    c = kernel(UCODE32("inc eax\n .byte 0x48\n inc ecx")); /* DEC EAX, not REX */
    c.cs = S_UCODE32;
    c.ss = S_UDATA;
    run(&c);
    check("compat.no-rex", "SDM Vol.3, compatibility mode", c.ax << 8 | c.cx, 1);
    {
        /* the same bytes at the same address: INC RAX, or DEC EAX and INC EAX */
        struct code same = UCODE(".byte 0x48, 0xff, 0xc0");
        word seen = 0;

        for (unsigned i = 0; i < 4; i++) {
            c = user(same);
            c.ax = 5;
            if (i & 1) {
                c.cs = S_UCODE32;
                c.ss = S_UDATA;
            }
            run(&c);
            seen = seen << 8 | c.ax;
        }
        check("compat.same-address", "SDM Vol.3, compatibility mode", seen, 0x06050605);
    }
    c = kernel(UCODE32("push ds\n pop es\n aaa\n daa\n .byte 0xd6\n pusha\n popa"));
    c.cs = S_UCODE32;
    c.ss = S_UDATA;
    c.sp = (word)user_stack_top;
    run_done("compat.legacy-instructions", "SDM Vol.3, compatibility mode", &c);
    code_limit("compat.past-cs-limit", UCODE32("nop\n nop\n 9: nop\n nop"), 0, 2);
    code_limit("compat.jump-past-cs-limit", UCODE32("jmp 9f\n nop\n nop\n 9: nop"), 0, 0);
    code_limit("compat.across-cs-limit", UCODE32("nop\n mov eax, 0x12345678\n 9: nop"), 1, 1);
    descriptors();
}

/* ---- LAR, LSL, VERR, VERW ---- */

static struct cpu look(struct code code, unsigned cpl, word selector)
{
    struct cpu c = at_level(code, cpl);

    c.cx = selector;
    c.ax = 0x5555;
    c.flags |= FL_ZF;
    run(&c);
    return c;
}

/* Bits 19 to 16 of what LAR gives are undefined. */
static void lar(const char *name, unsigned cpl, word selector, word want)
{
    struct cpu c = look(UCODE("lar eax, ecx"), cpl, selector);
    word got = c.vector != V_DONE ? 0xbad : c.flags & FL_ZF ? c.ax : 0x5555;

    check(name, LAR, want == 0x5555 ? got : got & 0xfff0ffff, want & 0xfff0ffff);
}

static void lsl(const char *name, unsigned cpl, word selector, word want)
{
    struct cpu c = look(UCODE("lsl eax, ecx"), cpl, selector);

    check(name, LSL, c.vector != V_DONE ? 0xbad : c.flags & FL_ZF ? c.ax : 0x5555, want);
}

static void verify(const char *name, bool write, unsigned cpl, word selector, bool want)
{
    struct cpu c = look(write ? UCODE("verw cx") : UCODE("verr cx"), cpl, selector);

    check(name, VERIFY, c.vector != V_DONE ? 2 : c.flags >> 6 & 1, want);
}

static void looks(void)
{
    const word none = 0x5555;

    lar("lar.data", 0, S_DATA, 0xc09300);
    lar("lar.code64", 3, S_UCODE64, 0xaffb00);
    lar("lar.null", 0, 0, none);
    lar("lar.beyond-gdt", 0, 0xff8, none);
    lar("lar.user-inner", 3, D_INNER | 3, none);
    lar("lar.rpl", 0, D_INNER | 3, none);
    lar("lar.user-conforming", 3, D_CONF | 3, 0xaf9f00);
    lar("lar.absent", 3, D_ABSENT | 3, 0xcf7300);
    lar("lar.ldt", 0, D_SYSTEM, 0x008200);
    lar("lar.tss", 0, D_TSS, 0x008900);
    gdt_set(D_TSS, descriptor(0, 0, 0x8c, 0)); /* a call gate */
    lar("lar.call-gate", 0, D_TSS, 0x008c00);
    lsl("lsl.call-gate", 0, D_TSS, none);
    gdt_set(D_TSS, descriptor(0, 0, 0x8e, 0)); /* an interrupt gate */
    lar("lar.interrupt-gate", 0, D_TSS, none);
    gdt_set(D_TSS, descriptor(0, 0xff, 0x81, 0)); /* a 16-bit TSS: no such type here */
    lar("lar.286-tss", 0, D_TSS, none);
    lsl("lsl.286-tss", 0, D_TSS, none);
    descriptors();
    lsl("lsl.granular", 0, S_DATA, 0xffffffff);
    lsl("lsl.bytes", 3, D_LIMIT | 3, 0xff);
    lsl("lsl.null", 0, 0, none);
    lsl("lsl.user-inner", 3, D_INNER | 3, none);
    lsl("lsl.tss", 0, D_TSS, 103);
    lsl("lsl.ldt", 0, D_SYSTEM, 0xff);
    lsl("lsl.absent", 3, D_ABSENT | 3, 0xffffffff);
    verify("verr.data", false, 3, S_UDATA, true);
    verify("verr.null", false, 0, 0, false);
    verify("verr.readable-code", false, 3, S_UCODE32, true);
    verify("verr.execute-only", false, 3, D_EXEC | 3, false);
    verify("verr.user-inner", false, 3, D_INNER | 3, false);
    verify("verr.rpl", false, 0, D_INNER | 3, false);
    verify("verr.user-conforming", false, 3, D_CONF | 3, true);
    verify("verr.system", false, 0, D_TSS, false);
    verify("verw.data", true, 3, S_UDATA, true);
    verify("verw.read-only", true, 3, D_READ | 3, false);
    verify("verw.code", true, 0, S_CODE, false);
    verify("verw.user-inner", true, 3, D_INNER | 3, false);
    verify("verw.beyond-gdt", true, 0, 0xff8, false);
}

/* ---- UMIP ---- */

static void umip_case(const char *name, struct code ucode, struct code kcode)
{
    struct cpu c = user(ucode);

    c.di = (word)user_page[0];
    run_done(joined(name, "-user-off", ""), UMIP, &c);
    require(cpuid_bit(7, 0, 2, 2), "UMIP is not offered");
    set_cr4(cr4() | CR4_UMIP);
    c = user(ucode);
    c.di = (word)user_page[0];
    run_fault(joined(name, "-user", ""), UMIP, &c, V_GP, 0);
    c = at_level(kcode, 1);
    c.di = (word)user_page[0];
    run_fault(joined(name, "-cpl1", ""), UMIP, &c, V_GP, 0);
    c = kernel(kcode);
    c.di = (word)user_page[0];
    run_done(joined(name, "-cpl0", ""), UMIP, &c);
    set_cr4(cr4() & ~CR4_UMIP);
    require_end();
}

static void umip(void)
{
    umip_case("umip.sgdt", UCODE("sgdt [rdi]"), CODE("sgdt [rdi]"));
    umip_case("umip.sidt", UCODE("sidt [rdi]"), CODE("sidt [rdi]"));
    umip_case("umip.sldt", UCODE("sldt eax"), CODE("sldt eax"));
    umip_case("umip.str", UCODE("str eax"), CODE("str eax"));
    umip_case("umip.smsw", UCODE("smsw eax"), CODE("smsw eax"));
}

/* ---- LTR, LLDT ---- */

static void system_case(const char *name, bool task, word selector, int vector, uint32_t error)
{
    struct cpu c = kernel(task ? CODE("ltr ax") : CODE("lldt ax"));

    c.ax = selector;
    run(&c);
    if (vector == V_DONE)
        check_done(name, SYSTEM, &c);
    else
        check_fault(name, SYSTEM, &c, vector, error);
}

static void systems(void)
{
    struct cpu c;

    system_case("ltr.null", true, 0, V_GP, 0);
    system_case("ltr.in-ldt", true, D_TSS | 4, V_GP, D_TSS | 4);
    system_case("ltr.data", true, S_DATA, V_GP, S_DATA);
    system_case("ltr.beyond-gdt", true, 0xff8, V_GP, 0xff8);
    gdt_set(D_TSS, descriptor((uint32_t)(word)tss, 103, 0x8b, 0));
    system_case("ltr.busy", true, D_TSS, V_GP, D_TSS);
    gdt_set(D_TSS, descriptor((uint32_t)(word)tss, 103, 0x09, 0));
    system_case("ltr.absent", true, D_TSS, V_NP, D_TSS);
    gdt_set(D_TSS, descriptor((uint32_t)(word)tss, 103, 0x81, 0));
    system_case("ltr.286", true, D_TSS, V_GP, D_TSS);
    gdt_set(D_TSS, descriptor((uint32_t)(word)tss, 103, 0x89, 0));
    gdt_set(D_TSS + 8, 0x80000000);
    system_case("ltr.base-non-canonical", true, D_TSS, V_GP, D_TSS);
    gdt_set(D_TSS + 8, 0);
    system_case("ltr.good", true, D_TSS, V_DONE, 0);
    check("ltr.sets-busy", SYSTEM, gdt[D_TSS / 8] >> 40 & 0xff, 0x8b);
    c = kernel(CODE("str eax"));
    run(&c);
    check("ltr.str", SYSTEM, c.ax, D_TSS);
    descriptors();
    system_case("lldt.null", false, 0, V_DONE, 0);
    system_case("lldt.null-rpl3", false, 3, V_DONE, 0);
    system_case("lldt.data", false, S_DATA, V_GP, S_DATA);
    system_case("lldt.in-ldt", false, D_SYSTEM | 4, V_GP, D_SYSTEM | 4);
    system_case("lldt.tss", false, D_TSS, V_GP, D_TSS);
    gdt_set(D_SYSTEM, descriptor(0, 0xff, 0x02, 0));
    gdt_set(D_SYSTEM + 8, 0);
    system_case("lldt.absent", false, D_SYSTEM, V_NP, D_SYSTEM);
    gdt_set(D_SYSTEM, descriptor(0, 0xff, 0x82, 0));
    gdt_set(D_SYSTEM + 8, 0x80000000);
    system_case("lldt.base-non-canonical", false, D_SYSTEM, V_GP, D_SYSTEM);
    /* one with three descriptors, the second beyond its limit's last byte */
    gdt_set(S_LDT, descriptor((uint32_t)(word)test_frame[0], 14, 0x82, 0));
    gdt_set(S_LDT + 8, 0);
    ((uint64_t *)(void *)test_frame[0])[0] = descriptor(0, 0xfffff, 0xf3, 0xc);
    ((uint64_t *)(void *)test_frame[0])[1] = descriptor(0, 0xfffff, 0xf3, 0xc);
    system_case("lldt.good", false, S_LDT, V_DONE, 0);
    load_case("lldt.entry", false, 3, 7, V_DONE, 0);
    load_case("lldt.entry-beyond-limit", false, 3, 0xf, V_GP, 0xc);
    system_case("lldt.back-to-null", false, 0, V_DONE, 0);
    load_case("lldt.null-entry", false, 3, 7, V_GP, 4);
    c = user(UCODE("lldt ax"));
    run_fault("lldt.user", SYSTEM, &c, V_GP, 0);
    c = kernel(CODE32("mov eax, 0xc0000000\n str ax"));
    c.cs = S_CODE32;
    run_done("str.compat", SYSTEM, &c);
    gdt_reset();
}

void test(void)
{
    test_pages_reset();
    descriptors();
    loads();
    limits();
    compat_stacks();
    compat_addresses();
    looks();
    umip();
    systems();
}
