/* x87: what instructions compute, the condition codes, rounding, conversions, odd encodings. */
#include "fpu.h"

#define FXAM "SDM Vol.2, FXAM"
#define COMPARE "SDM Vol.2, FCOM, FUCOM, FCOMI"
#define PREM "SDM Vol.2, FPREM, FPREM1"
#define ROUNDING "SDM Vol.1, rounding control field"
#define PRECISION "SDM Vol.1, precision control field"
#define INTEGER "SDM Vol.2, FIST, FISTP, FISTTP"
#define BCD "SDM Vol.2, FBLD, FBSTP"
#define NANS "SDM Vol.1, NaNs"
#define UNSUPPORTED "SDM Vol.1, unsupported double extended-precision encodings"
#define TOPS "SDM Vol.1, x87 register stack"
#define NO_CC (0xffffu & ~CC_ALL)
#define ONE 0x8000000000000000
#define INDEFINITE 0xc000000000000000

/* Operands at DI + 16, + 32 and + 48. */
static void operands(unsigned se1, uint64_t m1, unsigned se2, uint64_t m2)
{
    put80(16, se1, m1);
    put80(32, se2, m2);
}

#define LD1 "fld tbyte ptr [" DI " + 16]\n"
#define LD2 "fld tbyte ptr [" DI " + 32]\n"

static void examine(void)
{
    static const struct {
        const char *name;
        uint16_t se;
        uint64_t m;
        uint16_t want;
    } classes[] = {
        {"fxam.zero", 0, 0, C3},
        {"fxam.minus-zero", 0x8000, 0, C3 | C1},
        {"fxam.normal", 0x4000, ONE, C2},
        {"fxam.minus-normal", 0xc000, ONE, C2 | C1},
        {"fxam.denormal", 0, 1, C3 | C2},
        {"fxam.infinity", 0x7fff, ONE, C2 | C0},
        {"fxam.minus-infinity", 0xffff, ONE, C2 | C0 | C1},
        {"fxam.qnan", 0x7fff, INDEFINITE, C0},
        {"fxam.snan", 0x7fff, ONE | 1, C0},
        {"fxam.unnormal", 0x3fff, 1, 0},
        {"fxam.pseudo-infinity", 0x7fff, 0, 0},
        {"fxam.pseudo-nan", 0x7fff, 5, 0},
    };

    for (unsigned i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
        operands(classes[i].se, classes[i].m, 0, 0);
        go_x87(FCW_INIT, X87(LD1 "fxam"));
        check_fsw(classes[i].name, FXAM, classes[i].want | TOP(7), 0xffff);
    }
    go_x87(FCW_INIT, X87("fxam"));
    check_fsw("fxam.empty", FXAM, C3 | C0, C3 | C2 | C0 | FLAGS_ALL);
}

static void tops(void)
{
    go_x87(FCW_INIT, X87("fldpi\n fincstp"));
    check_fsw("top.fincstp", TOPS, TOP(0), NO_CC | C1);
    check("top.fincstp-keeps-tags", TOPS, get(seen, 4, 1), 0x80);
    check_st("top.fincstp-rotates", TOPS, 7, 0x4000, 0xc90fdaa22168c235);
    go_x87(FCW_INIT, X87("fldpi\n fdecstp"));
    check_fsw("top.fdecstp", TOPS, TOP(6), NO_CC | C1);
    check_st("top.fdecstp-rotates", TOPS, 1, 0x4000, 0xc90fdaa22168c235);
    go_x87(FCW_INIT, X87("fdecstp"));
    check_fsw("top.fdecstp-wraps", TOPS, TOP(7), NO_CC);
    go_x87(FCW_INIT, X87("fldpi\n fld1\n ffree st(1)"));
    check("top.ffree", "SDM Vol.2, FFREE", get((look(), seen), 4, 1), 0x40);
    check_st("top.ffree-keeps-contents", "SDM Vol.2, FFREE", 1, 0x4000, 0xc90fdaa22168c235);
    go_x87(FCW_INIT, X87("fldpi\n fld1\n fxch st(1)"));
    check_st("top.fxch", "SDM Vol.2, FXCH", 0, 0x4000, 0xc90fdaa22168c235);
    go_x87(FCW_INIT, X87("fldpi\n fldz\n fld1\n fst st(2)"));
    check_st("top.fst-register", "SDM Vol.2, FST", 2, 0x3fff, ONE);
    go_x87(FCW_INIT, X87("fld1\n fst st(3)"));
    check("top.fst-to-empty", "SDM Vol.2, FST", get((look(), seen), 4, 1), 0x84);
    go_x87(FCW_INIT, X87("fld1\n fldpi\n fcompp"));
    check("top.fcompp-pops-two", COMPARE, get((look(), seen), 4, 1), 0);
}

static void compare_case(const char *name, struct code code, unsigned want, unsigned mask)
{
    go_x87(FCW_INIT, code);
    check_fsw(name, COMPARE, want, mask);
}

static void flags_case(const char *name, unsigned fcw, struct code code, word before, word want)
{
    struct cpu c = kernel(code);

    put(data, 0, 2, fcw);
    c.di = (word)data;
    c.flags |= before;
    run(&c);
    check_bits(name, COMPARE, c.flags, want, FL_ZF | FL_PF | FL_CF | FL_OF | 0x80 | 0x10);
}

static void comparisons(void)
{
    unsigned all = C3 | C2 | C0 | FLAGS_ALL;

    compare_case("fcom.greater", X87("fld1\n fldpi\n fcom st(1)"), 0, all | C1);
    compare_case("fcom.less", X87("fldpi\n fld1\n fcom st(1)"), C0, all | C1);
    compare_case("fcom.equal", X87("fld1\n fld1\n fcom st(1)"), C3, all | C1);
    compare_case("fcom.zeros", X87("fldz\n fchs\n fldz\n fcom st(1)"), C3, all);
    compare_case("ftst.zero", X87("fldz\n ftst"), C3, all);
    compare_case("ftst.negative", X87("fld1\n fchs\n ftst"), C0, all);
    operands(0x7fff, INDEFINITE, 0x7fff, ONE | 1);
    compare_case("fcom.qnan", X87("fld1\n" LD1 "fcom st(1)"), C3 | C2 | C0 | IE, all);
    compare_case("fucom.qnan", X87("fld1\n" LD1 "fucom st(1)"), C3 | C2 | C0, all);
    compare_case("fucom.snan", X87("fld1\n" LD2 "fucom st(1)"), C3 | C2 | C0 | IE, all);
    compare_case("ftst.qnan", X87(LD1 "ftst"), C3 | C2 | C0 | IE, all);
    compare_case("fcom.empty", X87("fld1\n fcom st(1)"), C3 | C2 | C0 | IE | SF, all | C1);
    compare_case("fcomi.qnan-invalid", X87("fld1\n" LD1 "fcomi st, st(1)"), IE, FLAGS_ALL);
    compare_case("fucomi.qnan-quiet", X87("fld1\n" LD1 "fucomi st, st(1)"), 0, FLAGS_ALL);
    flags_case("fcomi.greater", FCW_INIT, X87("fld1\n fldpi\n fcomi st, st(1)"), FL_OF | 0x90, 0);
    flags_case("fcomi.less", FCW_INIT, X87("fldpi\n fld1\n fcomi st, st(1)"), FL_OF, FL_CF);
    flags_case("fcomi.equal", FCW_INIT, X87("fld1\n fld1\n fcomi st, st(1)"), 0, FL_ZF);
    flags_case("fucomi.unordered", FCW_INIT, X87("fld1\n" LD1 "fucomi st, st(1)"), 0,
               FL_ZF | FL_PF | FL_CF);
    require(intel(), "AMD's manual does not say that an unmasked exception keeps the flags");
    go_x87(UNMASK(IE), X87("fld1\n" LD1 "fcom st(1)"));
    check_fsw("fcom.unmasked-keeps-codes", COMPARE, PENDING | IE | TOP(6), all);
    flags_case("fcomi.unmasked-keeps-flags", UNMASK(IE), X87("fld1\n" LD1 "fcomi st, st(1)"), FL_CF,
               FL_CF);
    require_end();
    go_x87(FCW_INIT, X87("fld1\n fldpi\n cmp eax, eax\n fcmove st, st(1)"));
    check_st("fcmov.taken", "SDM Vol.2, FCMOVcc", 0, 0x3fff, ONE);
    go_x87(FCW_INIT, X87("fld1\n fldpi\n cmp eax, eax\n fcmovne st, st(1)"));
    check_st("fcmov.not-taken", "SDM Vol.2, FCMOVcc", 0, 0x4000, 0xc90fdaa22168c235);
    go_x87(FCW_INIT, X87("fldpi\n cmp eax, eax\n fcmovne st, st(1)"));
    check_fsw("fcmov.empty-not-taken", "SDM Vol.2, FCMOVcc", IE | SF, FLAGS_ALL | C1);
}

static void remainders(void)
{
    operands(0x4003, 0x8800000000000000, 0x4001, ONE); /* 17 and 4 */
    go_x87(FCW_INIT, X87(LD2 LD1 "fprem"));
    check_fsw("fprem.quotient", PREM, C0, CC_ALL | FLAGS_ALL);
    check_st("fprem.rest", PREM, 0, 0x3fff, ONE);
    operands(0x4001, 0xe000000000000000, 0x4001, ONE); /* 7 and 4 */
    go_x87(FCW_INIT, X87(LD2 LD1 "fprem1"));
    check_fsw("fprem1.quotient", PREM, C3, CC_ALL | FLAGS_ALL);
    check_st("fprem1.rest", PREM, 0, 0xbfff, ONE);
    go_x87(FCW_INIT, X87(LD2 LD1 "fprem"));
    check_fsw("fprem.quotient-odd", PREM, C1, CC_ALL | FLAGS_ALL);
    operands(0x7000, ONE, 0x4000, 0xc000000000000000); /* far apart */
    go_x87(FCW_INIT, X87(LD2 LD1 "fprem"));
    check_fsw("fprem.incomplete", PREM, C2, C2 | FLAGS_ALL);
    go_x87(FCW_INIT, X87("fldz\n fld1\n fprem"));
    check_fsw("fprem.by-zero", PREM, IE, FLAGS_ALL);
    operands(0x403e, ONE, 0x403e, ONE | 1);
    go_x87(FCW_INIT, X87(LD1 "fsin"));
    check_fsw("fsin.out-of-range", "SDM Vol.2, FSIN", C2, C2 | FLAGS_ALL);
    check_st("fsin.out-of-range-keeps", "SDM Vol.2, FSIN", 0, 0x403e, ONE);
    go_x87(FCW_INIT, X87("fldz\n fptan"));
    check_st("fptan.pushes-one", "SDM Vol.2, FPTAN", 0, 0x3fff, ONE);
    check_st("fptan.zero", "SDM Vol.2, FPTAN", 1, 0, 0);
}

/* FRNDINT of x with each rounding control: nearest, down, up, to zero. */
static void round_case(const char *name, unsigned se, uint64_t m, const uint64_t want[4],
                       const unsigned want_se[4])
{
    static const char *const modes[] = {"-nearest", "-down", "-up", "-zero"};

    for (unsigned rc = 0; rc < 4; rc++) {
        operands(se, m, 0, 0);
        go_x87(FCW_INIT | rc << 10, X87(LD1 "frndint"));
        check_st(joined(name, modes[rc], ""), ROUNDING, 0, want_se[rc], want[rc]);
    }
}

static void rounding(void)
{
    static const uint64_t two_three[4] = {ONE, ONE, 0xc000000000000000, ONE};
    static const unsigned two[4] = {0x4000, 0x4000, 0x4000, 0x4000};
    static const uint64_t minus[4] = {ONE, 0xc000000000000000, ONE, ONE};
    static const unsigned minus_two[4] = {0xc000, 0xc000, 0xc000, 0xc000};

    round_case("round.2.5", 0x4000, 0xa000000000000000, two_three, two);
    round_case("round.minus-2.5", 0xc000, 0xa000000000000000, minus, minus_two);
    go_x87(FCW_INIT, X87("fldpi"));
    check_st("constant.pi-nearest", "SDM Vol.2, FLDPI", 0, 0x4000, 0xc90fdaa22168c235);
    go_x87(FCW_INIT | 0x400, X87("fldpi"));
    check_st("constant.pi-down", "SDM Vol.2, FLDPI", 0, 0x4000, 0xc90fdaa22168c234);
    go_x87(FCW_INIT | 0x800, X87("fldl2t"));
    check_st("constant.log2-10-up", "SDM Vol.2, FLDL2T", 0, 0x4000, 0xd49a784bcd1b8aff);
    go_x87(FCW_INIT | 0xc00, X87("fldlg2"));
    check_st("constant.log10-2-zero", "SDM Vol.2, FLDLG2", 0, 0x3ffd, 0x9a209a84fbcff798);
    put(data, 48, 4, 0x40400000); /* 3.0 */
    go_x87(0x07f & ~0x300u, X87("fld1\n fdiv dword ptr [" DI " + 48]"));
    check_st("precision.24", PRECISION, 0, 0x3ffd, 0xaaaaab0000000000);
    go_x87(0x27f, X87("fld1\n fdiv dword ptr [" DI " + 48]"));
    check_st("precision.53", PRECISION, 0, 0x3ffd, 0xaaaaaaaaaaaaa800);
    go_x87(0x37f, X87("fld1\n fdiv dword ptr [" DI " + 48]"));
    check_st("precision.64", PRECISION, 0, 0x3ffd, 0xaaaaaaaaaaaaaaab);
    check_fsw("precision.rounded-up", "SDM Vol.1, C1 of a rounded result", PE | C1, FLAGS_ALL | C1);
    operands(0x3fff, ~0ull, 0, 0);
    go_x87(0x07f, X87(LD1 "fabs"));
    check_st("precision.not-of-load", PRECISION, 0, 0x3fff, ~0ull);
    go_x87(FCW_INIT | 0xc00, X87("fld1\n fdiv dword ptr [" DI " + 48]"));
    check_fsw("precision.truncated", "SDM Vol.1, C1 of a rounded result", PE, FLAGS_ALL | C1);
    go_x87(FCW_INIT, X87("fld1\n fld1\n fsubp st(1), st"));
    check_st("zero.difference-nearest", "SDM Vol.1, signed zeros", 0, 0, 0);
    go_x87(FCW_INIT | 0x400, X87("fld1\n fld1\n fsubp st(1), st"));
    check_st("zero.difference-down", "SDM Vol.1, signed zeros", 0, 0x8000, 0);
    go_x87(FCW_INIT, X87("fldz\n fchs\n fsqrt"));
    check_st("zero.root-of-minus", "SDM Vol.2, FSQRT", 0, 0x8000, 0);
}

static void integers(void)
{
    operands(0x400e, ONE, 0x4000, 0xe000000000000000); /* 32768, 3.5 */
    fill(data, 64, 64, 0x5a);
    go_x87(FCW_INIT, X87(LD1 "fistp word ptr [" DI " + 64]"));
    check("fist.16-overflow", INTEGER, get(data, 64, 4), 0x5a5a8000);
    check_fsw("fist.16-invalid", INTEGER, IE | TOP(0), NO_CC);
    go_x87(FCW_INIT, X87(LD1 "fchs\n fistp word ptr [" DI " + 64]"));
    check_fsw("fist.16-least-fits", INTEGER, TOP(0), NO_CC);
    go_x87(FCW_INIT, X87(LD1 "fist dword ptr [" DI " + 64]"));
    check("fist.32", INTEGER, get(data, 64, 4), 32768);
    go_x87(FCW_INIT, X87(LD2 "fist dword ptr [" DI " + 64]"));
    check("fist.nearest", INTEGER, get(data, 64, 4), 4);
    check_fsw("fist.inexact", INTEGER, PE | C1 | TOP(7), NO_CC | C1);
    go_x87(FCW_INIT, X87(LD2 "fisttp dword ptr [" DI " + 64]"));
    check("fisttp.truncates", INTEGER, get(data, 64, 4), 3);
    check_fsw("fisttp.c1", INTEGER, PE | TOP(0), NO_CC | C1);
    go_x87(FCW_INIT, X87("fldz\n fld1\n fdivrp st(1), st\n fistp dword ptr [" DI " + 64]"));
    check("fist.infinity", INTEGER, get(data, 64, 4), 0x80000000);
    operands(0x403e, ONE, 0x7fff, INDEFINITE);
    go_x87(FCW_INIT, X87(LD1 "fistp qword ptr [" DI " + 64]"));
    check("fist.64-overflow", INTEGER, get(data, 64, 8), 1ull << 63);
    go_x87(FCW_INIT, X87(LD2 "fistp qword ptr [" DI " + 64]"));
    check("fist.nan", INTEGER, get(data, 64, 8), 1ull << 63);
    fill(data, 64, 64, 0x5a);
    go_x87(UNMASK(IE), X87(LD1 "fistp qword ptr [" DI " + 64]"));
    check("fist.unmasked-keeps-memory", INTEGER, get(data, 64, 8), 0x5a5a5a5a5a5a5a5a);
    check_fsw("fist.unmasked-no-pop", INTEGER, PENDING | IE | TOP(7), NO_CC);
    put(data, 64, 8, 0x8000000000000000);
    go_x87(FCW_INIT, X87("fild qword ptr [" DI " + 64]"));
    check_st("fild.least", "SDM Vol.2, FILD", 0, 0xc03e, ONE);
    put(data, 64, 8, 0xfffe);
    go_x87(FCW_INIT, X87("fild word ptr [" DI " + 64]"));
    check_st("fild.16", "SDM Vol.2, FILD", 0, 0xc000, ONE);
    go_x87(FCW_INIT | 0x400, X87("fild dword ptr [" DI " + 66]"));
    check_st("fild.zero", "SDM Vol.2, FILD", 0, 0, 0);
}

static void decimals(void)
{
    put(data, 64, 8, 0x123456);
    put(data, 72, 2, 0x8000);
    go_x87(FCW_INIT, X87("fbld tbyte ptr [" DI " + 64]"));
    check_st("fbld.negative", BCD, 0, 0xc00f, 0xf120000000000000);
    fill(data, 64, 16, 0x5a);
    go_x87(FCW_INIT, X87("fbstp tbyte ptr [" DI " + 64]"));
    check("fbstp.empty", BCD, get(data, 64, 8), 0xc000000000000000);
    check("fbstp.empty-high", BCD, get(data, 72, 2), 0xffff);
    operands(0x4001, 0xf800000000000000, 0x4039, 0xde0b6b3a76400000); /* 7.75; 10^18 - 10^... */
    go_x87(FCW_INIT, X87(LD1 "fchs\n fbstp tbyte ptr [" DI " + 64]"));
    check("fbstp.rounds", BCD, get(data, 64, 8), 8);
    check("fbstp.sign", BCD, get(data, 72, 2), 0x8000);
    check_fsw("fbstp.inexact", BCD, PE | TOP(0), NO_CC & ~C1);
    operands(0x403a, 0xde0b6b3a76400000, 0, 0); /* 10^18: one digit too many */
    fill(data, 64, 16, 0x5a);
    go_x87(FCW_INIT, X87(LD1 "fbstp tbyte ptr [" DI " + 64]"));
    check("fbstp.overflow", BCD, get(data, 64, 8), 0xc000000000000000);
    check_fsw("fbstp.invalid", BCD, IE | TOP(0), NO_CC);
    operands(0x403a, 0xde0b6b3a763ffff0, 0, 0); /* 999999999999999999 */
    go_x87(FCW_INIT, X87(LD1 "fbstp tbyte ptr [" DI " + 64]"));
    check("fbstp.largest", BCD, get(data, 64, 8), 0x9999999999999999);
    check("fbstp.largest-high", BCD, get(data, 72, 2), 0x0099);
}

static void odd_operands(void)
{
    operands(0x3fff, 1, 0, ONE | 1); /* unnormal, pseudo-denormal */
    go_x87(FCW_INIT, X87(LD1));
    check_fsw("unnormal.load", UNSUPPORTED, TOP(7), NO_CC);
    go_x87(FCW_INIT, X87("fld1\n" LD1 "faddp st(1), st"));
    check_fsw("unnormal.add", UNSUPPORTED, IE | TOP(7), NO_CC);
    check_st("unnormal.indefinite", UNSUPPORTED, 0, 0xffff, INDEFINITE);
    go_x87(FCW_INIT, X87(LD1 "fstp dword ptr [" DI " + 64]"));
    check("unnormal.store", UNSUPPORTED, get(data, 64, 4), 0xffc00000);
    fill(data, 64, 16, 0);
    go_x87(FCW_INIT, X87(LD1 "fstp tbyte ptr [" DI " + 64]"));
    check("unnormal.store-extended", UNSUPPORTED, get(data, 64, 8), 1);
    go_x87(FCW_INIT, X87(LD2 "fadd st, st(0)"));
    check_fsw("pseudo-denormal.add", "SDM Vol.1, pseudo-denormals", DE | TOP(7), NO_CC);
    check_st("pseudo-denormal.value", "SDM Vol.1, pseudo-denormals", 0, 2, ONE | 1);
    operands(0, 5, 0x7fff, ONE | 0x123);
    go_x87(FCW_INIT, X87(LD1));
    check_fsw("denormal.load-extended", "SDM Vol.2, FLD", TOP(7), NO_CC);
    go_x87(FCW_INIT, X87(LD1 "fchs\n fabs"));
    check_fsw("denormal.sign", "SDM Vol.2, FCHS, FABS", TOP(7), NO_CC);
    go_x87(FCW_INIT, X87(LD1 "fld1\n fcompp"));
    check_fsw("denormal.compare", COMPARE, DE, FLAGS_ALL);
    put(data, 48, 4, 1);
    go_x87(FCW_INIT, X87("fld dword ptr [" DI " + 48]"));
    check_fsw("denormal.load-single", "SDM Vol.2, FLD", DE | TOP(7), NO_CC);
    check_st("denormal.load-single-value", "SDM Vol.2, FLD", 0, 0x3fff - 149, ONE);
    go_x87(FCW_INIT, X87(LD2));
    check_fsw("snan.load-extended", NANS, TOP(7), NO_CC);
    check_st("snan.load-extended-kept", NANS, 0, 0x7fff, ONE | 0x123);
    go_x87(FCW_INIT, X87(LD2 "fld1\n faddp st(1), st"));
    check_fsw("snan.add", NANS, IE | TOP(7), NO_CC);
    check_st("snan.quieted", NANS, 0, 0x7fff, INDEFINITE | 0x123);
    put(data, 48, 4, 0x7f800123);
    go_x87(FCW_INIT, X87("fld dword ptr [" DI " + 48]"));
    check_fsw("snan.load-single", NANS, IE | TOP(7), NO_CC);
    check_st("snan.load-single-quieted", NANS, 0, 0x7fff, INDEFINITE | 0x123ull << 40);
    operands(0x7fff, INDEFINITE | 5, 0x7fff, INDEFINITE | 9);
    go_x87(FCW_INIT, X87(LD1 LD2 "faddp st(1), st"));
    check_st("qnan.larger-significand", NANS, 0, 0x7fff, INDEFINITE | 9);
    check_fsw("qnan.quiet", NANS, TOP(7), NO_CC);
}

static void others(void)
{
    operands(0x4002, 0xa000000000000000, 0x4000, ONE); /* 10, 2 */
    go_x87(FCW_INIT, X87(LD1 "fxtract"));
    check_st("fxtract.significand", "SDM Vol.2, FXTRACT", 0, 0x3fff, 0xa000000000000000);
    check_st("fxtract.exponent", "SDM Vol.2, FXTRACT", 1, 0x4000, 0xc000000000000000);
    go_x87(FCW_INIT, X87("fldz\n fxtract"));
    check_st("fxtract.zero", "SDM Vol.2, FXTRACT", 1, 0xffff, ONE);
    check_fsw("fxtract.zero-divide", "SDM Vol.2, FXTRACT", ZE | TOP(6), NO_CC);
    go_x87(FCW_INIT, X87(LD2 LD1 "fscale"));
    check_st("fscale", "SDM Vol.2, FSCALE", 0, 0x4004, 0xa000000000000000);
    go_x87(FCW_INIT, X87(LD2 LD1 "fsubp st(1), st"));
    check_st("fsubp.order", "SDM Vol.2, FSUBP", 0, 0xc002, ONE);
    go_x87(FCW_INIT, X87(LD2 LD1 "fsubrp st(1), st"));
    check_st("fsubrp.order", "SDM Vol.2, FSUBRP", 0, 0x4002, ONE);
    go_x87(FCW_INIT, X87("fldz\n fld1\n fldz\n fdivp st(1), st\n fmulp st(1), st"));
    check_fsw("infinity.times-zero", "SDM Vol.1, invalid arithmetic operands", IE | ZE | TOP(7),
              NO_CC);
    fill(data, 64, 16, 0x5a);
    go_x87(FCW_INIT, X87(LD1 "fstp dword ptr [" DI " + 64]"));
    check("fstp.single", "SDM Vol.2, FST", get(data, 64, 8), 0x5a5a5a5a41200000);
    go_x87(FCW_INIT, X87(LD1 "fstp qword ptr [" DI " + 64]"));
    check("fstp.double", "SDM Vol.2, FST", get(data, 64, 8), 0x4024000000000000);
    fill(data, 64, 16, 0x5a);
    go_x87(FCW_INIT, X87(LD1 "fstp tbyte ptr [" DI " + 64]"));
    check("fstp.extended-ten-bytes", "SDM Vol.2, FST", get(data, 72, 4), 0x5a5a4002);
    go_x87(0x1fff, X87("fnstcw [" DI " + 64]"));
    check_bits("fldcw.infinity-bit", "SDM Vol.1, x87 control word", get(data, 64, 2), 0x1f3f,
               0x1f3f);
    go_x87(FCW_INIT, X87("fld1\n fld1\n fnstsw ax"));
    {
        struct cpu c = go_x87(FCW_INIT, X87("mov eax, 0x5a5a5a5a\n fld1\n fnstsw ax"));

        check("fnstsw.ax-only", "SDM Vol.2, FSTSW", (uint32_t)c.ax, 0x5a5a0000 | TOP(7));
    }
    go_x87(FCW_INIT, X87("fldz\n fld1\n fpatan"));
    check_st("fpatan.zero", "SDM Vol.2, FPATAN", 0, 0, 0);
    go_x87(FCW_INIT, X87("fld1\n fchs\n f2xm1"));
    check_st("f2xm1.minus-one", "SDM Vol.2, F2XM1", 0, 0xbffe, ONE);
}

void test(void)
{
    set_cr0((cr0() & ~(CR0_TS | CR0_EM)) | CR0_MP | CR0_NE);
    set_cr4(cr4() | CR4_OSFXSR);
    examine();
    tops();
    comparisons();
    remainders();
    rounding();
    integers();
    decimals();
    odd_operands();
    others();
}
