/* SIMD floating-point exceptions, MXCSR, and what FXSAVE and FXRSTOR do with it. */
#include "fpu.h"

#define XM "SDM Vol.1, SIMD floating-point exceptions"
#define MASKED "SDM Vol.1, masked responses of SSE"
#define ORDER "SDM Vol.1, pre-computation and post-computation exceptions"
#define LDMX "SDM Vol.2, LDMXCSR"
#define FX "SDM Vol.2, FXSAVE, FXRSTOR"
#define FTZ_DAZ "SDM Vol.1, flush-to-zero and denormals-are-zeros"
#define SSE_UNMASK(e) (MXCSR_INIT & ~((e) << 7))
#define FTZ 0x8000u
#define DAZ 0x40u
#define RC(n) ((unsigned)(n) << 13)
#define F_ONE 0x3f800000u
#define F_DENORMAL 1u
#define F_LEAST 0x00800000u
#define F_LARGEST 0x7f7fffffu
#define F_QNAN 0x7fc00000u
#define F_SNAN 0x7f800001u

/* Loads MXCSR from DI, then XMM0 and XMM1 from DI + 16 and DI + 32. */
#define LOAD "ldmxcsr [rdi]\n movups xmm0, [rdi + 16]\n movups xmm1, [rdi + 32]\n"
#define SSE(text) CODE(LOAD "9: " text)

static void operands(uint32_t a, uint32_t b)
{
    for (unsigned i = 0; i < 4; i++) {
        put(data, 16 + 4 * i, 4, i == 0 ? a : F_ONE);
        put(data, 32 + 4 * i, 4, i == 0 ? b : F_ONE);
    }
}

static struct cpu go_sse(uint32_t mxcsr, struct code code)
{
    struct cpu c;

    put(data, 0, 4, mxcsr);
    c = go(code);
    look();
    return c;
}

static uint32_t seen_mxcsr(void)
{
    return (uint32_t)get(seen, 24, 4);
}

static uint64_t xmm(unsigned i)
{
    return get(seen, 160 + 16 * i, 8);
}

/* XMM0 op XMM1 raises #XM when unmasked, sets flags and leaves XMM0; masked it gives a result. */
static void scalar(const char *name, struct code code, uint32_t a, uint32_t b, unsigned unmasked,
                   unsigned flags, uint32_t result, unsigned masked_flags)
{
    struct cpu c;

    operands(a, b);
    c = go_sse(SSE_UNMASK(unmasked), code);
    check_fault(joined("xm.", name, ""), XM, &c, V_XM, NO_ERROR);
    check(joined("xm.", name, "-flags"), XM, seen_mxcsr(), SSE_UNMASK(unmasked) | flags);
    check(joined("xm.", name, "-keeps"), XM, (uint32_t)xmm(0), a);
    c = go_sse(MXCSR_INIT, code);
    check_done(joined("masked.", name, ""), MASKED, &c);
    check(joined("masked.", name, "-flags"), MASKED, seen_mxcsr(), MXCSR_INIT | masked_flags);
    check(joined("masked.", name, "-result"), MASKED, (uint32_t)xmm(0), result);
}

static void each(void)
{
    scalar("invalid", SSE("sqrtss xmm0, xmm1"), F_ONE, 0xbf800000, IE, IE, 0xffc00000, IE);
    scalar("snan", SSE("addss xmm0, xmm1"), F_ONE, F_SNAN, IE, IE, 0x7fc00001, IE);
    scalar("denormal", SSE("addss xmm0, xmm1"), F_ONE, F_DENORMAL, DE, DE, F_ONE, DE | PE);
    scalar("zero-divide", SSE("divss xmm0, xmm1"), F_ONE, 0, ZE, ZE, 0x7f800000, ZE);
    scalar("overflow", SSE("addss xmm0, xmm1"), F_LARGEST, F_LARGEST, OE, OE | PE, 0x7f800000,
           OE | PE);
    scalar("underflow", SSE("mulss xmm0, xmm1"), F_LEAST, 0x3f000000, UE, UE, 0x00400000, 0);
    scalar("underflow-inexact", SSE("mulss xmm0, xmm1"), F_LEAST | 1, 0x3f000000, UE, UE | PE,
           0x00400000, UE | PE);
    scalar("precision", SSE("divss xmm0, xmm1"), F_ONE, 0x40400000, PE, PE, 0x3eaaaaab, PE);
    scalar("packed", SSE("divps xmm0, xmm1"), F_ONE, 0, ZE, ZE, 0x7f800000, ZE);
    scalar("min-qnan", SSE("minss xmm0, xmm1"), F_ONE, F_QNAN, IE, IE, F_QNAN, IE);
    scalar("compare-less-qnan", SSE("cmpltss xmm0, xmm1"), F_ONE, F_QNAN, IE, IE, 0, IE);
    scalar("zero-by-zero", SSE("divss xmm0, xmm1"), 0, 0, IE, IE, 0xffc00000, IE);
    scalar("round", SSE("cvtps2dq xmm0, xmm1"), F_ONE, 0x40200000, PE, PE, 2, PE);
    scalar("convert-invalid", SSE("cvttps2dq xmm0, xmm1"), F_ONE, 0x4f000000, IE, IE, 0x80000000,
           IE);
}

static void order(void)
{
    struct cpu c;

    /* 1/0, 0/0, 1/3, denormal/1 */
    put(data, 16, 4, F_ONE);
    put(data, 20, 4, 0);
    put(data, 24, 4, F_ONE);
    put(data, 28, 4, F_DENORMAL);
    put(data, 32, 4, 0);
    put(data, 36, 4, 0);
    put(data, 40, 4, 0x40400000);
    put(data, 44, 4, F_ONE);
    go_sse(MXCSR_INIT, SSE("divps xmm0, xmm1"));
    check("order.all-masked", ORDER, seen_mxcsr(), MXCSR_INIT | IE | ZE | DE | PE);
    c = go_sse(SSE_UNMASK(ZE), SSE("divps xmm0, xmm1"));
    check_fault("order.pre", ORDER, &c, V_XM, NO_ERROR);
    check("order.pre-hides-post", ORDER, seen_mxcsr(), SSE_UNMASK(ZE) | IE | ZE | DE);
    check("order.keeps-all", ORDER, xmm(0), F_ONE);
    c = go_sse(SSE_UNMASK(PE), SSE("divps xmm0, xmm1"));
    check_fault("order.post", ORDER, &c, V_XM, NO_ERROR);
    check("order.post-flags", ORDER, seen_mxcsr(), SSE_UNMASK(PE) | IE | ZE | DE | PE);
    c = go_sse(SSE_UNMASK(PE | ZE), SSE("divps xmm0, xmm1"));
    check("order.both-flags", ORDER, seen_mxcsr(), SSE_UNMASK(PE | ZE) | IE | ZE | DE);
    operands(F_ONE, F_SNAN);
    go_sse(MXCSR_INIT | PE | OE, SSE("addss xmm0, xmm1"));
    check("order.sticky", XM, seen_mxcsr(), MXCSR_INIT | PE | OE | IE);
    c = go_sse(SSE_UNMASK(ZE) | ZE, SSE("addps xmm1, xmm1"));
    check_done("order.old-flag-raises-nothing", LDMX, &c);
    set_cr4(cr4() & ~CR4_OSXMMEXCPT);
    operands(F_ONE, 0);
    c = go_sse(SSE_UNMASK(ZE), SSE("divss xmm0, xmm1"));
    check_fault("osxmmexcpt.clear", "SDM Vol.3, CR4.OSXMMEXCPT", &c, V_UD, NO_ERROR);
    check("osxmmexcpt.clear-keeps", "SDM Vol.3, CR4.OSXMMEXCPT", (uint32_t)xmm(0), F_ONE);
    c = go_sse(MXCSR_INIT, SSE("divss xmm0, xmm1"));
    check_done("osxmmexcpt.masked", "SDM Vol.3, CR4.OSXMMEXCPT", &c);
    set_cr4(cr4() | CR4_OSXMMEXCPT);
    c = go_sse(SSE_UNMASK(ZE), SSE("divps xmm0, [rdi + 33]"));
    check_fault("order.alignment-first", "SDM Vol.3, priority among exceptions", &c, V_GP, 0);
    c = user(UCODE("ldmxcsr [rdi]\n 9: sqrtss xmm0, [rdi + 4]"));
    put(user_page[0], 0, 4, SSE_UNMASK(IE));
    put(user_page[0], 4, 4, 0xbf800000);
    c.di = (word)user_page[0];
    run_fault("xm.user", XM, &c, V_XM, NO_ERROR);
    check("xm.rf", "SDM Vol.3, RF after faults", c.flags & FL_RF, FL_RF);
    put(user_page[0], 0, 4, MXCSR_INIT); /* the handler masks it, and the instruction runs again */
    go_sse(MXCSR_INIT, CODE("ldmxcsr [rdi]"));
    c.flags &= ~FL_RF;
    run_done("xm.restart", XM, &c);
}

static void flush(void)
{
    operands(F_LEAST | 1, 0x3f000000);
    go_sse(MXCSR_INIT | FTZ, SSE("mulss xmm0, xmm1"));
    check("ftz.result", FTZ_DAZ, (uint32_t)xmm(0), 0);
    check("ftz.flags", FTZ_DAZ, seen_mxcsr(), MXCSR_INIT | FTZ | UE | PE);
    operands(0x80000000 | F_LEAST, 0x3f000000);
    go_sse(MXCSR_INIT | FTZ, SSE("mulss xmm0, xmm1"));
    check("ftz.sign", FTZ_DAZ, (uint32_t)xmm(0), 0x80000000);
    {
        struct cpu c = go_sse(SSE_UNMASK(UE) | FTZ, SSE("mulss xmm0, xmm1"));

        check_fault("ftz.not-when-unmasked", FTZ_DAZ, &c, V_XM, NO_ERROR);
        check("ftz.unmasked-flags", FTZ_DAZ, seen_mxcsr(), SSE_UNMASK(UE) | FTZ | UE);
    }
    require(get(seen, 28, 4) & DAZ, "MXCSR_MASK rules out DAZ");
    operands(F_ONE, F_DENORMAL);
    go_sse(MXCSR_INIT | DAZ, SSE("divss xmm0, xmm1"));
    check("daz.divide", FTZ_DAZ, (uint32_t)xmm(0), 0x7f800000);
    check("daz.flags", FTZ_DAZ, seen_mxcsr(), MXCSR_INIT | DAZ | ZE);
    operands(F_ONE, 0x80000000 | F_DENORMAL);
    go_sse(MXCSR_INIT | DAZ, SSE("mulss xmm0, xmm1"));
    check("daz.sign", FTZ_DAZ, (uint32_t)xmm(0), 0x80000000);
    check("daz.no-de", FTZ_DAZ, seen_mxcsr(), MXCSR_INIT | DAZ);
    require_end();
    go_sse(MXCSR_INIT, CODE("ldmxcsr [rdi]"));
}

static void rounding(void)
{
    static const uint32_t up_down[4] = {2, 2, 3, 2};
    static const uint32_t minus[4] = {(uint32_t)-2, (uint32_t)-3, (uint32_t)-2, (uint32_t)-2};
    static const char *const modes[4] = {"nearest", "down", "up", "zero"};
    struct cpu c;

    for (unsigned rc = 0; rc < 4; rc++) {
        operands(F_ONE, 0x40200000); /* 2.5 */
        c = go_sse(MXCSR_INIT | RC(rc), SSE("cvtss2si eax, xmm1"));
        check(joined("rc.", modes[rc], ""), "SDM Vol.1, MXCSR.RC", (uint32_t)c.ax, up_down[rc]);
        operands(F_ONE, 0xc0200000);
        c = go_sse(MXCSR_INIT | RC(rc), SSE("cvtss2si eax, xmm1"));
        check(joined("rc.minus-", modes[rc], ""), "SDM Vol.1, MXCSR.RC", (uint32_t)c.ax, minus[rc]);
    }
    c = go_sse(MXCSR_INIT | RC(2), SSE("cvttss2si eax, xmm1"));
    check("rc.truncating", "SDM Vol.2, CVTTSS2SI", (uint32_t)c.ax, (uint32_t)-2);
    operands(F_LARGEST, F_LARGEST);
    go_sse(MXCSR_INIT | RC(3), SSE("addss xmm0, xmm1"));
    check("rc.overflow-truncated", MASKED, (uint32_t)xmm(0), F_LARGEST);
    operands(F_ONE, 0x4f000000); /* 2^31 */
    c = go_sse(MXCSR_INIT, SSE("cvtss2si eax, xmm1"));
    check("convert.indefinite", "SDM Vol.2, CVTSS2SI", (uint32_t)c.ax, 0x80000000);
    check("convert.invalid", "SDM Vol.2, CVTSS2SI", seen_mxcsr(), MXCSR_INIT | IE);
    c = go_sse(MXCSR_INIT, SSE("cvtss2si rax, xmm1"));
    check("convert.64", "SDM Vol.2, CVTSS2SI", c.ax, 0x80000000);
    c = go_sse(SSE_UNMASK(IE), SSE("mov eax, 77\n 9: cvttss2si eax, xmm1"));
    check_fault("convert.unmasked", XM, &c, V_XM, NO_ERROR);
    check("convert.unmasked-keeps", XM, c.ax, 77);
    require(cpuid_bit(1, 0, 2, 19), "SSE4.1 is not offered");
    operands(F_ONE, 0x40200000);
    c = go_sse(SSE_UNMASK(PE), SSE("roundss xmm0, xmm1, 10")); /* up, no #P */
    check_done("round.suppressed", "SDM Vol.2, ROUNDSS", &c);
    check("round.suppressed-flags", "SDM Vol.2, ROUNDSS", seen_mxcsr(), SSE_UNMASK(PE));
    check("round.immediate-mode", "SDM Vol.2, ROUNDSS", (uint32_t)xmm(0), 0x40400000);
    c = go_sse(SSE_UNMASK(PE), SSE("roundss xmm0, xmm1, 2"));
    check_fault("round.raises", "SDM Vol.2, ROUNDSS", &c, V_XM, NO_ERROR);
    require_end();
}

static void comparisons(void)
{
    struct cpu c;

    operands(F_ONE, F_QNAN);
    c = go_sse(MXCSR_INIT, SSE("comiss xmm0, xmm1"));
    check("comiss.qnan-invalid", "SDM Vol.2, COMISS", seen_mxcsr(), MXCSR_INIT | IE);
    check_bits("comiss.unordered", "SDM Vol.2, COMISS", c.flags, FL_ZF | FL_PF | FL_CF,
               FL_ZF | FL_PF | FL_CF);
    c = go_sse(MXCSR_INIT, SSE("ucomiss xmm0, xmm1"));
    check("ucomiss.qnan-quiet", "SDM Vol.2, UCOMISS", seen_mxcsr(), MXCSR_INIT);
    operands(F_ONE, F_SNAN);
    c = go_sse(MXCSR_INIT, SSE("ucomiss xmm0, xmm1"));
    check("ucomiss.snan-invalid", "SDM Vol.2, UCOMISS", seen_mxcsr(), MXCSR_INIT | IE);
    c = go_sse(SSE_UNMASK(IE), SSE("stc\n 9: comiss xmm0, xmm1"));
    check_fault("comiss.unmasked", "SDM Vol.2, COMISS", &c, V_XM, NO_ERROR);
    check_bits("comiss.unmasked-keeps-flags", "SDM Vol.2, COMISS", c.flags, FL_CF,
               FL_ZF | FL_PF | FL_CF);
    operands(F_ONE, 0x40000000);
    c = go_sse(MXCSR_INIT, SSE("comiss xmm0, xmm1"));
    check_bits("comiss.less", "SDM Vol.2, COMISS", c.flags, FL_CF,
               FL_ZF | FL_PF | FL_CF | FL_OF | 0x90);
    operands(F_ONE, F_QNAN);
    go_sse(MXCSR_INIT, SSE("cmpeqss xmm0, xmm1"));
    check("cmpeq.qnan-quiet", "SDM Vol.2, CMPSS", seen_mxcsr(), MXCSR_INIT);
    go_sse(MXCSR_INIT, SSE("cmpunordss xmm0, xmm1"));
    check("cmpunord.qnan", "SDM Vol.2, CMPSS", (uint32_t)xmm(0), 0xffffffff);
    operands(0, 0x80000000);
    go_sse(MXCSR_INIT, SSE("maxss xmm0, xmm1"));
    check("max.zeros-second", "SDM Vol.2, MAXSS", (uint32_t)xmm(0), 0x80000000);
    operands(F_QNAN, F_ONE);
    go_sse(MXCSR_INIT, SSE("maxss xmm0, xmm1"));
    check("max.nan-second", "SDM Vol.2, MAXSS", (uint32_t)xmm(0), F_ONE);
    operands(F_QNAN | 1, F_QNAN | 2);
    go_sse(MXCSR_INIT, SSE("addss xmm0, xmm1"));
    check("nan.first-operand", "SDM Vol.1, NaNs", (uint32_t)xmm(0), F_QNAN | 1);
    check("nan.scalar-keeps-rest", "SDM Vol.2, ADDSS", xmm(0) >> 32, F_ONE);
}

static void reserved(void)
{
    uint32_t mask;
    struct cpu c;

    look();
    mask = (uint32_t)get(seen, 28, 4);
    check("mask.fits", "SDM Vol.1, MXCSR_MASK", mask & 0xffff0000, 0);
    check("mask.least", "SDM Vol.1, MXCSR_MASK", mask & 0xffbf, 0xffbf);
    for (unsigned bit = 16; bit < 32; bit += 5) {
        static const char *const names[] = {"16", "21", "26", "31"};

        put(data, 0, 4, MXCSR_INIT | 1u << bit);
        check_code(joined("ldmxcsr.bit", names[(bit - 16) / 5], ""), LDMX, CODE("ldmxcsr [rdi]"),
                   V_GP);
    }
    put(data, 0, 4, MXCSR_INIT | PE);
    go(CODE("ldmxcsr [rdi]"));
    put(data, 0, 4, 0x10000);
    go(CODE("ldmxcsr [rdi]"));
    look();
    check("ldmxcsr.fault-keeps", LDMX, seen_mxcsr(), MXCSR_INIT | PE);
    put(data, 0, 4, mask);
    check_code("ldmxcsr.all-of-mask", LDMX, CODE("ldmxcsr [rdi]"), V_DONE);
    fill(data, 8, 8, 0x5a);
    go(CODE("stmxcsr [rdi + 8]"));
    check("stmxcsr.value", "SDM Vol.2, STMXCSR", get(data, 8, 8), 0x5a5a5a5a00000000 | mask);
    go(CODE("fninit\n ldmxcsr [rdi + 64]\n fxsave [rsi]"));
    put(data, MIDDLE + 24, 4, 0x80000000 | MXCSR_INIT);
    check_code("fxrstor.reserved", FX, CODE("fxrstor [rsi]"), V_GP);
    put(data, MIDDLE + 24, 4, MXCSR_INIT);
    put(data, MIDDLE + 28, 4, 0);
    check_code("fxrstor.mask-ignored", FX, CODE("fxrstor [rsi]"), V_DONE);
    set_cr0(cr0() | CR0_AM);
    c = user(UCODE("ldmxcsr [rdi]"));
    put(user_page[0], 2, 4, MXCSR_INIT);
    c.di = (word)user_page[0] + 2;
    c.flags |= FL_AC;
    run_fault("ldmxcsr.alignment", "SDM Vol.3, #AC", &c, V_AC, 0);
    c = user(UCODE("movss xmm0, [rdi]"));
    c.di = (word)user_page[0] + 2;
    c.flags |= FL_AC;
    run_fault("movss.alignment", "SDM Vol.3, #AC", &c, V_AC, 0);
    c = user(UCODE("movsd xmm0, [rdi]"));
    c.di = (word)user_page[0] + 4;
    c.flags |= FL_AC;
    run_fault("movsd.alignment", "SDM Vol.3, #AC", &c, V_AC, 0);
    c = user(UCODE("movsd xmm0, [rdi]"));
    c.di = (word)user_page[0] + 8;
    c.flags |= FL_AC;
    run_done("movsd.aligned", "SDM Vol.3, #AC", &c);
    c = user(UCODE("movaps xmm0, [rdi]"));
    c.di = (word)user_page[0] + 8;
    c.flags |= FL_AC;
    run_fault("movaps.alignment-user", "SDM Vol.2, MOVAPS: #GP, not #AC", &c, V_GP, 0);
    set_cr0(cr0() & ~CR0_AM);
}

static void images(void)
{
    struct cpu c;

    fill(data, 0, 1024, 0x5a);
    put(data, MIDDLE + 1024, 8, 0x1122334455667788);
    go(CODE("fninit\n fld1\n fldpi\n movq xmm15, [rsi + 1024]\n movq xmm7, xmm15\n fxsave [rdi]"));
    check("fxsave.fcw", FX, get(data, 0, 2), FCW_INIT);
    check("fxsave.fsw", FX, get(data, 2, 2), TOP(6));
    check("fxsave.ftw", FX, get(data, 4, 1), 0xc0);
    check("fxsave.st0", FX, get(data, 32, 8), 0xc90fdaa22168c235);
    check("fxsave.st1-exponent", FX, get(data, 56, 2), 0x3fff);
    check("fxsave.xmm15", FX, get(data, 160 + 240, 8), 0x1122334455667788);
    check("fxsave.available", "SDM Vol.2, FXSAVE: bytes 464 to 511 are not written",
          filled(data, 464, 48, 0x5a), true);
    check("fxsave.size", FX, filled(data, 512, 64, 0x5a), true);
    go(CODE("fninit\n xorps xmm7, xmm7\n fxrstor [rdi]"));
    check_st("fxrstor.st1", FX, 1, 0x3fff, 1ull << 63);
    check("fxrstor.xmm7", FX, xmm(7), 0x1122334455667788);
    check("fxrstor.top", FX, seen_fsw(), TOP(6));
    put(data, 0, 8, 0x0000000155550000 | FCW_INIT); /* FSW 5555: TOP 2; FTW 1 */
    put(data, 2, 2, TOP(2) | C0 | C3);
    put(data, 4, 2, 0x0004);
    go(CODE("fxrstor [rdi]\n fnstenv [rsi]"));
    check("fxrstor.tags", "SDM Vol.2, FXSAVE: the full tag word", get(data, MIDDLE + 8, 2), 0xffcf);
    put(data, 0, 2, FCW_INIT & ~ZE);
    put(data, 2, 2, ZE);
    check_code("fxrstor.sets-summary", FX, CODE("fxrstor [rdi]\n fnstsw ax\n 9: fwait"), V_MF);
    check_fsw("fxrstor.summary", FX, PENDING | ZE, PENDING | FLAGS_ALL);
    go(CODE("fninit"));
    check_code("fxsave.misaligned", FX, CODE("fxsave [rdi + 8]"), V_GP);
    check_code("fxrstor.misaligned", FX, CODE("fxrstor [rdi + 4]"), V_GP);
    check_code("fxsave.aligned-16", FX, CODE("fxsave [rdi + 16]"), V_DONE);
    c = kernel(CODE32("fninit\n movups xmm1, [edi + 1024]\n fxsave [edi]"));
    c.cs = S_CODE32;
    c.di = (word)data;
    fill(data, 160 + 128, 128, 0x5a);
    fill(data, 1024, 16, 0x77);
    run(&c);
    check("fxsave32.eight-registers", "SDM Vol.2, FXSAVE outside 64-bit mode",
          filled(data, 160 + 128, 128, 0x5a), true);
    check("fxsave32.xmm1", "SDM Vol.2, FXSAVE outside 64-bit mode", get(data, 176, 8),
          0x7777777777777777);
    go(CODE("fxsave [rsi]"));
    c = kernel(CODE32("fxrstor [edi]"));
    c.cs = S_CODE32;
    c.di = (word)data;
    run(&c);
    look();
    check("fxrstor32.keeps-xmm15", "SDM Vol.2, FXRSTOR outside 64-bit mode", xmm(15),
          0x1122334455667788);
}

/* An image across two pages of which one is missing. */
static void image_faults(void)
{
    struct cpu c;

    test_pages_reset();
    test_entry[1][1] = 0;
    flush_tlb();
    c = kernel(CODE("fxsave [rdi]"));
    c.di = TEST_VA + 4096 - 256;
    run(&c);
    check_pf("fxsave.page-fault", FX, &c, 2, TEST_VA + 4096);
    c = kernel(CODE("fxrstor [rdi]"));
    c.di = TEST_VA + 4096 - 256;
    run(&c);
    check_pf("fxrstor.page-fault", FX, &c, 0, TEST_VA + 4096);
    test_pages_reset();
    c = kernel(CODE("fxsave [rdi]"));
    c.di = 0x8000000000000000;
    run_fault("fxsave.non-canonical", FX, &c, V_GP, 0);
    c = kernel(CODE("mov rbp, rdi\n 9: movups xmm0, [rbp]"));
    c.di = 0x8000000000000000;
    run_fault("movups.non-canonical-stack", "SDM Vol.3, #SS", &c, V_SS, 0);
}

void test(void)
{
    set_cr0((cr0() & ~(CR0_TS | CR0_EM)) | CR0_MP | CR0_NE);
    set_cr4(cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
    put(data, 64, 4, MXCSR_INIT);
    go(CODE("ldmxcsr [rdi + 64]"));
    each();
    order();
    flush();
    rounding();
    comparisons();
    reserved();
    images();
    image_faults();
}
