/* x87: unmasked exceptions and when they are raised, pointers, environments. */
#include "fpu.h"

#define MF "SDM Vol.1, x87 exception handling"
#define SYNC "SDM Vol.1, x87 exception synchronization"
#define INIT "SDM Vol.2, FINIT"
#define POINTERS "SDM Vol.1, x87 instruction and data pointers"
#define ENV "SDM Vol.2, FSTENV"
#define LDENV "SDM Vol.2, FLDENV"
#define SAVE "SDM Vol.2, FSAVE"
#define STACK "SDM Vol.1, x87 stack overflow and underflow"

/* Leaves an unmasked #IA pending with the control word at DI. */
#define PEND "fninit\n fldcw [" DI "]\n fld1\n fchs\n fsqrt\n"

static void initial(void)
{
    struct cpu c = go(CODE("fninit\n fnstenv [" DI "]"));

    check_done("init.runs", INIT, &c);
    check_bits("init.fcw", INIT, get(data, 0, 2), FCW_INIT, 0x1f3f);
    check("init.fsw", INIT, get(data, 4, 2), 0);
    check("init.tags", INIT, get(data, 8, 2), 0xffff);
    check("init.fip", INIT, get(data, 12, 4), 0);
    check("init.fop", INIT, get(data, 18, 2) & 0x7ff, 0);
    check("init.fdp", INIT, get(data, 20, 4), 0);
    go(CODE("fninit\n fld1\n fldpi\n fninit\n"));
    look();
    check("init.keeps-registers", "SDM Vol.2, FINIT: registers are tagged empty, not cleared",
          get(seen, 32 + 16 * 6, 8), 0xc90fdaa22168c235);
    c = go_x87(UNMASK(IE), CODE(PEND "fninit\n fwait"));
    check_done("init.drops-pending", INIT, &c);
}

/* The fragment ends in #MF at its mark; the status word is this then. */
static void pends(const char *name, unsigned fcw, struct code code, unsigned want, unsigned mask)
{
    struct cpu c = go_x87(fcw, code);

    check_fault(joined("mf.", name, ""), MF, &c, V_MF, NO_ERROR);
    check_fsw(joined("mf.", name, "-flags"), MF, want, mask);
}

#define NO_CC (0xffffu & ~CC_ALL)

static void invalid(void)
{
    struct cpu c;

    pends("ia", UNMASK(IE), X87("fld1\n fchs\n fsqrt\n 9: fwait"), PENDING | IE | TOP(7), NO_CC);
    check_st("mf.ia-operand-kept", MF, 0, 0xbfff, 1ull << 63);
    pends("overflow", UNMASK(IE),
          X87("fld1\n fld1\n fld1\n fld1\n fld1\n fld1\n fld1\n fldz\n fldpi\n 9: fwait"),
          PENDING | IE | SF | C1 | TOP(0), NO_CC | C1);
    check_st("mf.overflow-keeps", STACK, 0, 0, 0);
    pends("underflow", UNMASK(IE), X87("fstp st(0)\n 9: fwait"), PENDING | IE | SF | TOP(0),
          NO_CC | C1);
    pends("underflow-second", UNMASK(IE), X87("fld1\n fadd st, st(1)\n 9: fwait"),
          PENDING | IE | SF | TOP(7), NO_CC | C1);
    pends("exchange-underflow", UNMASK(IE), X87("fld1\n fxch st(1)\n 9: fwait"),
          PENDING | IE | SF | TOP(7), NO_CC | C1);
    fill(data, 16, 16, 0x5a);
    pends("store-underflow", UNMASK(IE), X87("fst dword ptr [" DI " + 16]\n 9: fwait"),
          PENDING | IE | SF | TOP(0), NO_CC | C1);
    check("mf.store-underflow-keeps-memory", STACK, get(data, 16, 4), 0x5a5a5a5a);
    go_x87(FCW_INIT, X87("fld1\n fld1\n fld1\n fld1\n fld1\n fld1\n fld1\n fld1\n fldpi"));
    check_fsw("masked.overflow", STACK, IE | SF | C1 | TOP(7), NO_CC | C1);
    check_st("masked.overflow-indefinite", STACK, 0, 0xffff, 0xc000000000000000);
    go_x87(FCW_INIT, X87("fadd st, st(1)"));
    check_fsw("masked.underflow", STACK, IE | SF, NO_CC | C1);
    check_st("masked.underflow-indefinite", STACK, 0, 0xffff, 0xc000000000000000);
    go_x87(FCW_INIT, X87("fld1\n fxch st(1)"));
    check_st("masked.exchange-underflow", STACK, 0, 0xffff, 0xc000000000000000);
    check_st("masked.exchange-underflow-other", STACK, 1, 0x3fff, 1ull << 63);
    go_x87(FCW_INIT, X87("fst dword ptr [" DI " + 16]"));
    check("masked.store-underflow", STACK, get(data, 16, 4), 0xffc00000);
    c = go_x87(FCW_INIT, X87("fld1\n fchs\n fsqrt\n fwait"));
    check_done("masked.ia", MF, &c);
    check_st("masked.ia-indefinite", MF, 0, 0xffff, 0xc000000000000000);
    check_fsw("masked.ia-no-summary", MF, IE | TOP(7), NO_CC);
}

static void numeric(void)
{
    put(data, 16, 4, 1); /* the smallest denormal */
    pends("denormal", UNMASK(DE), X87("fld1\n fadd dword ptr [" DI " + 16]\n 9: fwait"),
          PENDING | DE | TOP(7), NO_CC);
    check_st("mf.denormal-operand-kept", MF, 0, 0x3fff, 1ull << 63);
    pends("zero-divide", UNMASK(ZE), X87("fld1\n fldz\n fdivp st(1), st\n 9: fwait"),
          PENDING | ZE | TOP(6), NO_CC);
    check_st("mf.zero-divide-no-pop", MF, 1, 0x3fff, 1ull << 63);
    pends("zero-divide-log", UNMASK(ZE), X87("fld1\n fldz\n fyl2x\n 9: fwait"),
          PENDING | ZE | TOP(6), NO_CC);
    put80(16, 0x7ffe, 1ull << 63);
    pends("overflow-register", UNMASK(OE),
          X87("fld tbyte ptr [" DI " + 16]\n fadd st, st(0)\n 9: fwait"), PENDING | OE | TOP(7),
          NO_CC);
    check_st("mf.overflow-register-scaled", "SDM Vol.1, numeric overflow: divided by 2^24576", 0,
             0x7fff - 24576, 1ull << 63);
    fill(data, 32, 8, 0x5a);
    pends("overflow-store", UNMASK(OE),
          X87("fld tbyte ptr [" DI " + 16]\n fstp dword ptr [" DI " + 32]\n 9: fwait"),
          PENDING | OE | TOP(7), NO_CC);
    check("mf.overflow-store-keeps-memory", MF, get(data, 32, 8), 0x5a5a5a5a5a5a5a5a);
    put80(16, 1, 1ull << 63);
    pends("underflow-exact", UNMASK(UE),
          X87("fld tbyte ptr [" DI " + 16]\n fmul st, st(0)\n 9: fwait"), PENDING | UE | TOP(7),
          NO_CC);
    check_st("mf.underflow-scaled", "SDM Vol.1, numeric underflow: multiplied by 2^24576", 0,
             2 - 0x3fff + 24576, 1ull << 63);
    fill(data, 32, 8, 0x5a);
    pends("underflow-store", UNMASK(UE),
          X87("fld tbyte ptr [" DI " + 16]\n fst qword ptr [" DI " + 32]\n 9: fwait"),
          PENDING | UE | TOP(7), NO_CC);
    check("mf.underflow-store-keeps-memory", MF, get(data, 32, 8), 0x5a5a5a5a5a5a5a5a);
    put(data, 16, 4, 0x40400000); /* 3.0 */
    pends("precision", UNMASK(PE), X87("fld1\n fdiv dword ptr [" DI " + 16]\n 9: fwait"),
          PENDING | PE | C1 | TOP(7), NO_CC | C1);
    check_st("mf.precision-stored", MF, 0, 0x3ffd, 0xaaaaaaaaaaaaaaab);
    put80(48, 0x3fff, 0x8000000000000001);
    pends("precision-store", UNMASK(PE),
          X87("fld tbyte ptr [" DI " + 48]\n fstp dword ptr [" DI " + 32]\n 9: fwait"),
          PENDING | PE | TOP(0), NO_CC | C1);
    check("mf.precision-store-done", MF, get(data, 32, 4), 0x3f800000);
}

static void masked(void)
{
    put80(16, 1, 1ull << 63);
    put(data, 48, 4, 0x3f000000); /* 0.5 */
    go_x87(FCW_INIT, X87("fld tbyte ptr [" DI " + 16]\n fmul dword ptr [" DI " + 48]"));
    check_fsw("masked.tiny-exact", "SDM Vol.1, numeric underflow: masked only if inexact", TOP(7),
              NO_CC);
    check_st("masked.tiny-exact-value", MF, 0, 0, 1ull << 62);
    put80(16, 1, 0x8000000000000001);
    go_x87(FCW_INIT, X87("fld tbyte ptr [" DI " + 16]\n fmul dword ptr [" DI " + 48]"));
    check_fsw("masked.tiny-inexact", MF, UE | PE | TOP(7), NO_CC);
    go_x87(FCW_INIT, X87("fld1\n fldz\n fdivp st(1), st"));
    check_fsw("masked.zero-divide", MF, ZE | TOP(7), NO_CC);
    check_st("masked.zero-divide-infinity", MF, 0, 0x7fff, 1ull << 63);
    put80(16, 0x7ffe, ~0ull);
    go_x87(FCW_INIT, X87("fld tbyte ptr [" DI " + 16]\n fadd st, st(0)"));
    check_fsw("masked.overflow-inexact", MF, OE | PE | C1 | TOP(7), NO_CC | C1);
    check_st("masked.overflow-infinity", MF, 0, 0x7fff, 1ull << 63);
    go_x87(FCW_INIT | 0xc00, X87("fld tbyte ptr [" DI " + 16]\n fadd st, st(0)"));
    check_st("masked.overflow-truncated", MF, 0, 0x7ffe, ~0ull);
    go_x87(FCW_INIT, X87("fldz\n fldz\n fdivp st(1), st"));
    check_fsw("masked.zero-by-zero", MF, IE | TOP(7), NO_CC);
    go_x87(FCW_INIT, X87("fld1\n fldz\n fdiv st(1), st\n fmulp st(1), st"));
    check_fsw("masked.sticky", "SDM Vol.1, exception flags are sticky", ZE | IE | TOP(7), NO_CC);
}

static void raises(const char *name, struct code code, int vector)
{
    put(data, 0, 2, UNMASK(IE));
    check_code(joined("wait.", name, ""), SYNC, code, vector);
}

static void waiting(void)
{
    go(CODE("fninit\n fxsave [" SI "]"));
    raises("fwait", CODE(PEND "9: fwait"), V_MF);
    raises("arithmetic", CODE(PEND "9: fld1"), V_MF);
    raises("fnop", CODE(PEND "9: fnop"), V_MF);
    raises("fldcw", CODE(PEND "9: fldcw [" DI "]"), V_MF);
    raises("fldenv", CODE(PEND "9: fldenv [" DI "]"), V_MF);
    raises("frstor", CODE(PEND "9: frstor [" DI "]"), V_MF);
    raises("fincstp", CODE(PEND "9: fincstp"), V_MF);
    raises("ffree", CODE(PEND "9: ffree st(0)"), V_MF);
    raises("fxam", CODE(PEND "9: fxam"), V_MF);
    raises("fstsw", CODE(PEND "9: fstsw ax"), V_MF);
    raises("finit", CODE(PEND "9: finit"), V_MF);
    raises("emms", CODE(PEND "9: emms"), V_MF);
    raises("movd", CODE(PEND "9: movd mm0, eax"), V_MF);
    raises("integer-between", CODE(PEND "mov eax, 1\n inc eax\n cpuid\n 9: fwait"), V_MF);
    raises("fnstsw", CODE(PEND "fnstsw ax\n fnstsw [" DI " + 8]\n 9: fwait"), V_MF);
    raises("fnstcw", CODE(PEND "fnstcw [" DI " + 8]\n 9: fwait"), V_MF);
    raises("fnclex", CODE(PEND "fnclex\n fwait\n fld1"), V_DONE);
    raises("fnstenv-masks", CODE(PEND "fnstenv [" DI " + 16]\n fwait\n fld1"), V_DONE);
    raises("fnsave-inits", CODE(PEND "fnsave [" DI " + 16]\n fwait\n fld1"), V_DONE);
    raises("fxsave", CODE(PEND "fxsave [" SI " + 512]\n 9: fwait"), V_MF);
    raises("fxrstor", CODE(PEND "fxrstor [" SI "]\n fwait"), V_DONE);
    raises("fxrstor-of-pending", CODE("fninit\n fxrstor [" SI " + 512]\n 9: fwait"), V_MF);
    raises("unmask-by-fldcw",
           CODE("fninit\n fld1\n fchs\n fsqrt\n fldcw [" DI "]\n fnstsw ax\n 9: fld1"), V_MF);
    go(CODE(PEND "fnclex"));
    check_fsw("wait.fnclex-clears", "SDM Vol.2, FCLEX", TOP(7), NO_CC);
    go(CODE(PEND "fnstenv [" DI " + 16]"));
    check_bits("wait.fnstenv-masks-all", ENV, get(data, 16, 2), UNMASK(IE), 0x3f);
    look();
    check_bits("wait.fnstenv-masks-after", ENV, get(seen, 0, 2), 0x3f, 0x3f);
    check_bits("wait.fnstenv-keeps-flags", ENV, seen_fsw(), IE | TOP(7), NO_CC & ~PENDING);
}

/* With an exception pending, so that processors that keep pointers only then have to show them. */
static void pointers(void)
{
    struct cpu c;

    put(data, 16, 4, 0x7f800001); /* a signaling NaN */
    c = go_x87(UNMASK(IE), X87("fld1\n fld1\n 9: fadd dword ptr [" DI " + 16]\n"
                               "fnstenv [" SI "]"));
    check("pointers.fip", POINTERS, get(data, MIDDLE + 12, 4), c.code.mark);
    check("pointers.fdp", POINTERS, get(data, MIDDLE + 20, 4), (uint32_t)(word)data + 16);
    check("pointers.fop", POINTERS, get(data, MIDDLE + 18, 2) & 0x7ff, 0x047);
    c = go_x87(UNMASK(IE), X87("fld1\n 9: fadd dword ptr [" DI " + 16]\n fnclex\n fnstcw [" DI
                               " + 8]\n fnstsw ax\n fldcw [" DI "]\n fwait\n fnstenv [" SI "]"));
    check("pointers.control-keeps-fip", POINTERS, get(data, MIDDLE + 12, 4), c.code.mark);
    check("pointers.control-keeps-fdp", POINTERS, get(data, MIDDLE + 20, 4),
          (uint32_t)(word)data + 16);
    c = go_x87(UNMASK(IE), X87("fld1\n 9: .byte 0x3e\n fadd dword ptr [" DI " + 16]\n"
                               "fnsave [" SI "]"));
    check("pointers.prefix", POINTERS, get(data, MIDDLE + 12, 4), c.code.mark);
    check("pointers.fnsave-fdp", SAVE, get(data, MIDDLE + 20, 4), (uint32_t)(word)data + 16);
    go(CODE("fnstenv [" SI "]"));
    check("pointers.fnsave-clears", SAVE, get(data, MIDDLE + 12, 4), 0);
    c = go_x87(UNMASK(IE), X87("fld1\n 9: fadd dword ptr [" DI " + 16]\n fld1"));
    look();
    check("pointers.mf-keeps-fip", POINTERS, get(seen, 8, 4), c.code.mark);
    check("pointers.fxsave-fop", POINTERS, get(seen, 6, 2), 0x047);
    c = go_x87(UNMASK(IE), X87("fld1\n fchs\n 9: fsqrt\n fwait"));
    look();
    check("pointers.register-fip", POINTERS, get(seen, 8, 4), c.code.mark);
    check("pointers.register-fop", POINTERS, get(seen, 6, 2), 0x1fa);
    put(data, MIDDLE + 0, 4, FCW_INIT);
    put(data, MIDDLE + 4, 4, 0);
    put(data, MIDDLE + 8, 4, 0xffff);
    put(data, MIDDLE + 12, 4, 0x12345678);
    put(data, MIDDLE + 16, 4, 0x05550000);
    put(data, MIDDLE + 20, 4, 0x9abcdef0);
    put(data, MIDDLE + 24, 4, 0);
    go(CODE("fninit\n fldenv [" SI "]\n fnstenv [" SI " + 64]"));
    check("pointers.fldenv-fip", LDENV, get(data, MIDDLE + 64 + 12, 4), 0x12345678);
    check("pointers.fldenv-fop", LDENV, get(data, MIDDLE + 64 + 18, 2) & 0x7ff, 0x555);
    check("pointers.fldenv-fdp", LDENV, get(data, MIDDLE + 64 + 20, 4), 0x9abcdef0);
    c = go_x87(FCW_INIT, X87("fld1\n fldenv [" SI "]\n 9: fld1\n fnstenv [" SI " + 64]"));
    check("pointers.fldenv-then-fip", LDENV, get(data, MIDDLE + 64 + 12, 4), c.code.mark);
    require(cpuid_bit(7, 0, 1, 13), "FCS and FDS are not deprecated");
    go_x87(UNMASK(IE), X87("fld1\n fadd dword ptr [" DI " + 16]\n fnstenv [" SI "]"));
    check("pointers.fcs-deprecated", POINTERS, get(data, MIDDLE + 16, 2), 0);
    check("pointers.fds-deprecated", POINTERS, get(data, MIDDLE + 24, 2), 0);
    require_end();
}

#ifdef __x86_64__
/* Code and data above 4 GiB. */
static void wide_pointers(void)
{
    static const uint8_t text[] = {0xd8, 0x06, 0xcd, 0x80}; /* fadd dword ptr [rsi]; int 0x80 */
    struct cpu c = kernel(CODE("fninit\n fldcw [rdi]\n fld1\n jmp rax"));

    test_pages_reset();
    for (unsigned i = 0; i < sizeof(text); i++)
        test_frame[0][0x40 + i] = text[i];
    put(test_frame[1], 0x10, 4, 0x7f800001);
    put(data, 0, 2, UNMASK(IE));
    c.di = (word)data;
    c.ax = TEST_VA + 0x40;
    c.si = TEST_VA + 0x1010;
    run(&c);
    check_event("pointers64.runs", POINTERS, &c, V_DONE, NO_ERROR, TEST_VA + 0x44);
    go(CODE("fxsave64 [rdi]\n fxsave [rsi]"));
    check("pointers64.fip", "SDM Vol.2, FXSAVE64", get(data, 8, 8), TEST_VA + 0x40);
    check("pointers64.fdp", "SDM Vol.2, FXSAVE64", get(data, 16, 8), TEST_VA + 0x1010);
    check("pointers64.fxsave-fip", "SDM Vol.2, FXSAVE", get(data, MIDDLE + 8, 4),
          (uint32_t)TEST_VA + 0x40);
    check("pointers64.fxsave-fdp", "SDM Vol.2, FXSAVE", get(data, MIDDLE + 16, 4),
          (uint32_t)TEST_VA + 0x1010);
    put(data, 8, 8, 0x00001234567890ab);
    put(data, 16, 8, 0x00005678abcdef01);
    go(CODE("fxrstor64 [rdi]\n fxsave64 [rsi]"));
    check("pointers64.fxrstor64-fip", "SDM Vol.2, FXRSTOR64", get(data, MIDDLE + 8, 8),
          0x00001234567890ab);
    check("pointers64.fxrstor64-fdp", "SDM Vol.2, FXRSTOR64", get(data, MIDDLE + 16, 8),
          0x00005678abcdef01);
    go(CODE("fxrstor64 [rdi]\n fnstenv [rsi]"));
    check("pointers64.fnstenv-low", ENV, get(data, MIDDLE + 12, 4), 0x567890ab);
}
#else
/* The data pointer is the offset, whatever the segment's base. */
static void wide_pointers(void)
{
    struct cpu c = kernel(CODE("fninit\n fldcw [edi]\n fld1\n fadd dword ptr fs:[0x10]\n"
                               "fnstenv [esi]"));

    gdt_set(S_FREE, descriptor((uint32_t)(word)data, 0xfff, 0x93, 4));
    put(data, 16, 4, 0x7f800001);
    put(data, 0, 2, UNMASK(IE));
    c.di = (word)data;
    c.si = (word)data + MIDDLE;
    c.fs = S_FREE;
    run(&c);
    check("pointers32.fdp-is-offset", POINTERS, get(data, MIDDLE + 20, 4), 0x10);
    require(!cpuid_bit(7, 0, 1, 13), "FCS and FDS are deprecated");
    check("pointers32.fcs", POINTERS, get(data, MIDDLE + 16, 2), S_CODE);
    check("pointers32.fds", POINTERS, get(data, MIDDLE + 24, 2), S_FREE);
    require_end();
    gdt_reset();
}
#endif

#ifdef __x86_64__
/* Stores that fault change nothing and run again. */
static void store_faults(void)
{
    static const struct {
        const char *name;
        unsigned bytes;
    } kinds[] = {{"fault.fnstenv", 28}, {"fault.fnsave", 108}, {"fault.fbstp", 10},
                 {"fault.fistp", 8},    {"fault.fisttp", 4},   {"fault.fnstcw", 2}};
    struct code codes[] = {CODE("fnstenv [rdi]"),          CODE("fnsave [rdi]"),
                           CODE("fbstp tbyte ptr [rdi]"),  CODE("fistp qword ptr [rdi]"),
                           CODE("fisttp dword ptr [rdi]"), CODE("fnstcw [rdi]")};

    test_pages_reset();
    for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        struct cpu c = kernel(codes[i]);

        test_entry[1][1] = 0;
        flush_tlb();
        go(CODE("fninit\n fld1\n fldpi\n fld1"));
        c.di = TEST_VA + 4096 - kinds[i].bytes + 1;
        run(&c);
        check_pf(kinds[i].name, "SDM Vol.3, #PF", &c, 2, TEST_VA + 4096);
        check_fsw(joined(kinds[i].name, "-keeps", ""), "SDM Vol.3, faults are restartable", TOP(5),
                  TOP(7) | FLAGS_ALL);
        check_bits(joined(kinds[i].name, "-keeps-control", ""), "SDM Vol.3, faults are restartable",
                   get(seen, 0, 2), FCW_INIT, 0x1f3f);
        test_pages_reset();
        c.flags &= ~FL_RF;
        run_done(joined(kinds[i].name, "-again", ""), "SDM Vol.3, faults are restartable", &c);
    }
    test_entry[1][1] = 0;
    flush_tlb();
    {
        struct cpu c = kernel(CODE("frstor [rdi]"));

        c.di = TEST_VA + 4096 - 107;
        run(&c);
        check_pf("fault.frstor", "SDM Vol.3, #PF", &c, 0, TEST_VA + 4096);
        c = kernel(CODE("fldenv [rdi]"));
        c.di = TEST_VA + 4096 - 28;
        put(test_frame[0], 4096 - 28, 4, FCW_INIT);
        put(test_frame[0], 4096 - 24, 4, 0);
        run_done("fault.fldenv-fits", "SDM Vol.2, FLDENV: 28 bytes", &c);
    }
    test_pages_reset();
}
#else
static void store_faults(void)
{
}
#endif

static void environments(void)
{
    struct cpu c;

    fill(data, 64, 256, 0x5a);
    go(CODE("fninit\n fld1\n fldz\n fnstenv [" DI " + 64]"));
    check("env.size", ENV, filled(data, 64 + 28, 16, 0x5a), true);
    check("env.tags", "SDM Vol.1, x87 tag word", get(data, 64 + 8, 2), 0x1fff);
    check("env.status", ENV, get(data, 64 + 4, 2), TOP(6));
    fill(data, 64, 256, 0x5a);
    go(CODE("fninit\n fld1\n .byte 0x66\n fnstenv [" DI " + 64]"));
    check("env16.size", ENV, filled(data, 64 + 14, 16, 0x5a), true);
    check("env16.status", ENV, get(data, 64 + 2, 2), TOP(7));
    check("env16.tags", ENV, get(data, 64 + 4, 2), 0x3fff);
    c = go_x87(UNMASK(IE), X87("fld1\n fchs\n 9: fsqrt\n .byte 0x66\n fnstenv [" DI " + 64]"));
    check("env16.fip", ENV, get(data, 64 + 6, 2), c.code.mark & 0xffff);
    put80(16, 0x7fff, 1ull << 63);
    put80(32, 0, 5);
    put80(48, 0x3fff, 5);
    go(CODE("fninit\n fld tbyte ptr [" DI " + 16]\n fld tbyte ptr [" DI
            " + 32]\n fld tbyte ptr [" DI " + 48]\n fldz\n fchs\n fld1\n ffree st(0)\n fnstenv [" DI
            " + 64]"));
    check("env.tags-special", "SDM Vol.1, x87 tag word", get(data, 64 + 8, 2),
          0xa9ff); /* 7 to 5 special, 4 zero */
    go(CODE("fninit\n fldz\n fld1\n fnstenv [" DI " + 64]\n mov word ptr [" DI
            " + 72], 0x0fff\n fldenv [" DI " + 64]\n fnstenv [" DI " + 64]"));
    check("env.tags-from-contents", LDENV, get(data, 64 + 8, 2), 0x4fff);
    look();
    check("env.tags-abridged", "SDM Vol.2, FXSAVE", get(seen, 4, 1), 0xc0);
    /* pending errors in a loaded environment */
    go(CODE("fninit\n fnstenv [" DI " + 64]"));
    put(data, 64, 2, UNMASK(ZE));
    put(data, 68, 2, ZE);
    check_code("env.load-unmasked", LDENV,
               CODE("fninit\n fldenv [" DI " + 64]\n fnstsw ax\n 9: fwait"), V_MF);
    check_fsw("env.load-sets-summary", LDENV, PENDING | ZE, NO_CC);
    put(data, 64, 2, FCW_INIT);
    put(data, 68, 2, ZE | PENDING);
    check_code("env.load-masked", LDENV, CODE("fninit\n fldenv [" DI " + 64]\n fwait"), V_DONE);
    check_fsw("env.load-clears-summary", LDENV, ZE, NO_CC);
    put(data, 64, 2, FCW_INIT);
    put(data, 68, 2, C0 | C2 | TOP(3));
    go(CODE("fninit\n fldenv [" DI " + 64]"));
    check_fsw("env.load-status", LDENV, C0 | C2 | TOP(3), 0xffff);
}

static void saved(void)
{
    fill(data, 64, 256, 0x5a);
    go(CODE("fninit\n fld1\n fldz\n fldpi\n fnsave [" DI " + 64]"));
    check("save.size", SAVE, filled(data, 64 + 108, 16, 0x5a), true);
    check("save.st0", SAVE, get(data, 64 + 28, 8), 0xc90fdaa22168c235);
    check("save.st2", SAVE, get(data, 64 + 28 + 20, 8), 1ull << 63);
    check("save.status", SAVE, get(data, 64 + 4, 2), TOP(5));
    check_fsw("save.then-init", SAVE, 0, 0xffff);
    check("save.then-empty", SAVE, get(seen, 4, 1), 0);
    go(CODE("fninit\n frstor [" DI " + 64]"));
    check_fsw("save.restored", "SDM Vol.2, FRSTOR", TOP(5), 0xffff);
    check_st("save.restored-st0", "SDM Vol.2, FRSTOR", 0, 0x4000, 0xc90fdaa22168c235);
    check_st("save.restored-st2", "SDM Vol.2, FRSTOR", 2, 0x3fff, 1ull << 63);
    fill(data, 64, 256, 0x5a);
    go(CODE("fninit\n fldpi\n .byte 0x66\n fnsave [" DI " + 64]"));
    check("save16.size", SAVE, filled(data, 64 + 94, 16, 0x5a), true);
    check("save16.st0", SAVE, get(data, 64 + 14, 8), 0xc90fdaa22168c235);
    go(CODE("fninit\n .byte 0x66\n frstor [" DI " + 64]"));
    check_st("save16.restored", "SDM Vol.2, FRSTOR", 0, 0x4000, 0xc90fdaa22168c235);
    put(data, 64, 2, UNMASK(OE));
    put(data, 66, 2, OE);
    check_code("save16.restore-unmasked", "SDM Vol.2, FRSTOR",
               CODE("fninit\n .byte 0x66\n frstor [" DI " + 64]\n 9: fwait"), V_MF);
}

static void in_user(void)
{
    struct cpu c = user(UCODE("fninit\n fldcw [" DI "]\n fld1\n fldz\n fdivp st(1), st\n nop\n"
                              "9: fwait"));

    put(user_page[0], 0, 2, UNMASK(ZE));
    c.di = (word)user_page[0];
    run_fault("mf.user", MF, &c, V_MF, NO_ERROR);
    check("mf.rf", "SDM Vol.3, RF after faults", c.flags & FL_RF, FL_RF);
    c = user(UCODE("fnclex\n fwait"));
    run_done("mf.user-cleared", MF, &c);
}

void test(void)
{
    set_cr0((cr0() & ~(CR0_TS | CR0_EM)) | CR0_MP | CR0_NE);
    set_cr4(cr4() | CR4_OSFXSR);
    initial();
    invalid();
    numeric();
    masked();
    waiting();
    pointers();
    wide_pointers();
    environments();
    saved();
    store_faults();
    in_user();
}
