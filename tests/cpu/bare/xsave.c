/* XSAVE and its kin: XCR0, the area's layout and header, initial states, faults. */
#include "fpu.h"

#define XCR "SDM Vol.2, XSETBV"
#define LAYOUT "SDM Vol.1, XSAVE area"
#define LEAF "SDM Vol.2, CPUID leaf 0xD"
#define SAVE "SDM Vol.2, XSAVE"
#define RESTORE "SDM Vol.2, XRSTOR"
#define COMPACT "SDM Vol.1, compacted form of the XSAVE area"
#define SAVEC "SDM Vol.2, XSAVEC"
#define SAVES "SDM Vol.2, XSAVES, XRSTORS"
#define HEADER "SDM Vol.1, XRSTOR: #GP by the header"
#define MXCSR_RULE "SDM Vol.1, XRSTOR: MXCSR"

#define F_X87 1ull
#define F_SSE 2ull
#define F_YMM 4ull
#define F_PKRU (1ull << 9)
#define XCOMP (1ull << 63)
#define BV 512
#define BV_COMP 520
#define AREA 3072 /* the most that images look at */
#define XSS_MSR 0xda0

static uint64_t supported;
static bool has_avx, has_opt, has_compact, has_super, has_pkru;

static struct cpu go_mask(uint64_t mask, struct code code)
{
    struct cpu c = kernel(code);

    c.di = (word)data;
    c.si = (word)data + MIDDLE;
    c.ax = (uint32_t)mask;
    c.dx = (uint32_t)(mask >> 32);
    run(&c);
    return c;
}

static void set_xcr0(uint64_t v)
{
    struct cpu c = go_mask(v, CODE("xor ecx, ecx\n xsetbv"));

    if (!skipping() && c.vector != V_DONE)
        give_up("XSETBV faults");
}

static uint64_t xgetbv(uint32_t index)
{
    struct cpu c = kernel(CODE("xgetbv"));

    c.cx = index;
    run(&c);
    return c.vector == V_DONE ? (uint32_t)c.ax | (uint64_t)c.dx << 32 : ~0ull;
}

static uint32_t leaf(uint32_t sub, unsigned reg)
{
    uint32_t r[4];

    cpuid(0xd, sub, r);
    return r[reg];
}

/* Every component differs from its initial state: 0x77 in XMM2, 0x66 in the upper half of YMM2. */
static void dirty(void)
{
    fill(data, MIDDLE, 16, 0x77);
    fill(data, MIDDLE + 16, 16, 0x66);
    if (has_avx)
        go(CODE("fninit\n fldpi\n vmovups ymm2, [rsi]"));
    else
        go(CODE("fninit\n fldpi\n movups xmm2, [rsi]"));
}

static void setbv_fault(const char *name, uint64_t v, uint32_t index)
{
    struct cpu c = kernel(CODE("xsetbv"));

    c.ax = (uint32_t)v;
    c.dx = (uint32_t)(v >> 32);
    c.cx = index;
    run_fault(name, XCR, &c, V_GP, 0);
}

static void xcr0(void)
{
    struct cpu c;

    set_xcr0(F_X87 | F_SSE);
    setbv_fault("xsetbv.bit0-clear", F_SSE, 0);
    setbv_fault("xsetbv.zero", 0, 0);
    setbv_fault("xsetbv.avx-without-sse", F_X87 | F_YMM, 0);
    setbv_fault("xsetbv.bit63", F_X87 | F_SSE | XCOMP, 0);
    setbv_fault("xsetbv.bit8", F_X87 | F_SSE | 0x100, 0); /* of IA32_XSS */
    setbv_fault("xsetbv.unsupported", F_X87 | F_SSE | 1ull << 61, 0);
    setbv_fault("xsetbv.index1", F_X87 | F_SSE, 1);
    setbv_fault("xsetbv.index-high", F_X87 | F_SSE, 0x80000000);
    check("xsetbv.fault-keeps", XCR, xgetbv(0), F_X87 | F_SSE);
    c = user(UCODE("xor ecx, ecx\n xor edx, edx\n mov eax, 3\n 9: xsetbv"));
    run_fault("xsetbv.user", XCR, &c, V_GP, 0);
    c = user(UCODE("xor ecx, ecx\n xgetbv"));
    run_done("xgetbv.user", "SDM Vol.2, XGETBV", &c);
    check("xgetbv.value", "SDM Vol.2, XGETBV", (uint32_t)c.ax, 3);
    c = kernel(CODE("xgetbv"));
    c.ax = c.dx = ~0ul;
    c.cx = 0xffffffff00000000;
    run_done("xgetbv.ecx-only", "SDM Vol.2, XGETBV", &c);
    check("xgetbv.clears-high", "SDM Vol.2, XGETBV", c.ax | c.dx, 3);
    c = kernel(CODE("xgetbv"));
    c.cx = 2;
    run_fault("xgetbv.index2", "SDM Vol.2, XGETBV", &c, V_GP, 0);
    check_code("xsetbv.lock", XCR, CODE(".byte 0xf0\n xsetbv"), V_UD);
    check_code("xgetbv.lock", "SDM Vol.2, XGETBV", CODE(".byte 0xf0\n xgetbv"), V_UD);
    check_code("xsave.lock", SAVE, CODE(".byte 0xf0\n xsave [rdi]"), V_UD);
    check_code("xsave.register", SAVE, CODE(".byte 0x0f, 0xae, 0xe0"), V_UD);
    set_xcr0(supported);
    check("xsetbv.all-supported", LEAF, xgetbv(0), supported);
    set_cr4(cr4() & ~CR4_OSXSAVE);
    set_cr4(cr4() | CR4_OSXSAVE);
    check("xsetbv.survives-osxsave", "SDM Vol.1, XCR0", xgetbv(0), supported);
}

static void leaves(void)
{
    set_xcr0(F_X87);
    check("leaf.size-x87", LEAF, leaf(0, 1), 576);
    check("leaf.size-most", LEAF, leaf(0, 2) >= leaf(0, 1), true);
    set_xcr0(F_X87 | F_SSE);
    check("leaf.size-sse", LEAF, leaf(0, 1), 576);
    check("leaf.size-most-fixed", LEAF, leaf(0, 2) >= 576, true);
    set_xcr0(supported);
    check("leaf.size-all", LEAF, leaf(0, 1), leaf(0, 2));
    check("leaf.reserved", LEAF, leaf(62, 0) | leaf(62, 1) | leaf(62, 2) | leaf(62, 3), 0);
    for (unsigned i = 2; i < 62; i++) {
        if (!(supported >> i & 1))
            continue;
        if (leaf(i, 0) + leaf(i, 1) > leaf(0, 2) || leaf(i, 1) < 576 || (leaf(i, 2) & 1))
            check("leaf.component", LEAF, i, 0);
    }
    require(has_avx, "AVX is not offered");
    check("leaf.ymm-size", LEAF, leaf(2, 0), 256);
    check("leaf.ymm-offset", LEAF, leaf(2, 1), 576);
    set_xcr0(7);
    check("leaf.size-avx", LEAF, leaf(0, 1), 832);
    require_end();
    require(has_pkru, "PKU is not offered");
    check("leaf.pkru-size", LEAF, leaf(9, 0), 8);
    set_xcr0(F_X87 | F_PKRU);
    check("leaf.size-pkru", LEAF, leaf(0, 1), leaf(9, 1) + 8);
    require(has_compact, "XSAVEC is not offered");
    check("leaf.compacted-pkru", LEAF, leaf(1, 1), 576 + 8);
    set_xcr0(F_X87 | F_SSE);
    check("leaf.compacted-sse", LEAF, leaf(1, 1), 576);
    require_end();
    set_xcr0(supported);
    require(has_super, "XSAVES is not offered");
    check("xss.zero", "SDM Vol.1, IA32_XSS", wrmsr_faults(XSS_MSR, 0), false);
    check("xss.user-component", "SDM Vol.1, IA32_XSS", wrmsr_faults(XSS_MSR, F_SSE), true);
    check("xss.bit63", "SDM Vol.1, IA32_XSS", wrmsr_faults(XSS_MSR, XCOMP), true);
    check("xss.fault-keeps", "SDM Vol.1, IA32_XSS", rdmsr(XSS_MSR), 0);
    require_end();
}

static void standard(void)
{
    dirty();
    fill(data, 0, AREA, 0x5a);
    fill(data, BV, 64, 0);
    go_mask(~0ull, CODE("xsave [rdi]"));
    check("xsave.bv", SAVE, get(data, BV, 8) & 3, 3);
    check("xsave.size", LEAF, filled(data, leaf(0, 1), 64, 0x5a), true);
    check("xsave.fsw", LAYOUT, get(data, 2, 2), TOP(7));
    check("xsave.st0", LAYOUT, get(data, 32, 8), 0xc90fdaa22168c235);
    check("xsave.xmm2", LAYOUT, filled(data, 192, 16, 0x77), true);
    check("xsave.available", "SDM Vol.1, XSAVE area: bytes 464 to 511 are left",
          filled(data, 464, 48, 0x5a), true);
    fill(data, 0, AREA, 0x5a);
    go_mask(F_X87, CODE("xsave [rdi]"));
    check("xsave.x87-only", SAVE, filled(data, 24, 8, 0x5a) && filled(data, 160, 352, 0x5a), true);
    check("xsave.bv-others-kept", SAVE, get(data, BV, 8), 0x5a5a5a5a5a5a5a5b);
    check("xsave.header-kept", SAVE, filled(data, BV_COMP, 56, 0x5a), true);
    fill(data, 0, AREA, 0x5a);
    go_mask(F_SSE, CODE("xsave [rdi]"));
    check("xsave.sse-only", SAVE, filled(data, 0, 24, 0x5a) && filled(data, 32, 128, 0x5a), true);
    check("xsave.sse-mxcsr", SAVE, get(data, 24, 4), MXCSR_INIT);
    fill(data, 0, AREA, 0x5a);
    go_mask(0, CODE("xsave [rdi]"));
    check("xsave.nothing", SAVE, filled(data, 0, AREA, 0x5a), true);
    go_mask(1ull << 61, CODE("xsave [rdi]"));
    check("xsave.not-enabled", SAVE, filled(data, 0, AREA, 0x5a), true);
    require(has_avx, "AVX is not offered");
    dirty();
    fill(data, 0, AREA, 0x5a);
    go_mask(F_YMM, CODE("xsave [rdi]"));
    check("xsave.ymm-mxcsr", "SDM Vol.1, XSAVE: MXCSR with AVX", get(data, 24, 4), MXCSR_INIT);
    check("xsave.ymm-no-xmm", SAVE, filled(data, 160, 256, 0x5a), true);
    check("xsave.ymm2", LAYOUT, filled(data, 576 + 32, 16, 0x66), true);
    check("xsave.ymm-bv", SAVE, get(data, BV, 8) & 7, 6);
    set_xcr0(F_X87 | F_SSE);
    fill(data, 0, AREA, 0x5a);
    fill(data, BV, 64, 0);
    go_mask(7, CODE("xsave [rdi]"));
    check("xsave.xcr0-limits", SAVE, filled(data, 576, 256, 0x5a), true);
    set_xcr0(supported);
    require_end();
    require(has_opt, "XSAVEOPT is not offered");
    dirty();
    fill(data, 0, AREA, 0x5a);
    fill(data, BV, 64, 0);
    go_mask(F_SSE, CODE("xsaveopt [rdi]"));
    check("xsaveopt.bv", "SDM Vol.2, XSAVEOPT", get(data, BV, 8), F_SSE);
    check("xsaveopt.xmm2", "SDM Vol.2, XSAVEOPT", filled(data, 192, 16, 0x77), true);
    check("xsaveopt.x87-kept", "SDM Vol.2, XSAVEOPT", filled(data, 0, 24, 0x5a), true);
    require_end();
}

/* Ready for XRSTOR: ST0 pi, XMM2 0x77, YMM2 0x66; MXCSR with a flag. */
static void prepare(void)
{
    dirty();
    fill(data, 0, AREA, 0);
    go_mask(~0ull, CODE("xsave [rdi]"));
    put(data, 24, 4, MXCSR_INIT | PE);
}

/* Other values in the registers. */
static void other_state(void)
{
    put(data, MIDDLE, 4, MXCSR_INIT);
    go(CODE("fninit\n fldz\n pcmpeqb xmm2, xmm2\n ldmxcsr [rsi]"));
}

static bool xmm2_is(unsigned byte)
{
    look();
    return filled(seen, 192, 16, byte);
}

static uint32_t seen_mxcsr(void)
{
    look();
    return (uint32_t)get(seen, 24, 4);
}

static void restoring(void)
{
    prepare();
    other_state();
    go_mask(~0ull, CODE("xrstor [rdi]"));
    check_st("xrstor.st0", RESTORE, 0, 0x4000, 0xc90fdaa22168c235);
    check("xrstor.xmm2", RESTORE, xmm2_is(0x77), true);
    check("xrstor.mxcsr", RESTORE, seen_mxcsr(), MXCSR_INIT | PE);
    other_state();
    go_mask(F_X87, CODE("xrstor [rdi]"));
    check("xrstor.x87-only", RESTORE, xmm2_is(0xff), true);
    check("xrstor.x87-only-mxcsr", MXCSR_RULE, seen_mxcsr(), MXCSR_INIT);
    other_state();
    go_mask(F_SSE, CODE("xrstor [rdi]"));
    check_st("xrstor.sse-only", RESTORE, 0, 0, 0);
    check("xrstor.sse-only-xmm", RESTORE, xmm2_is(0x77), true);
    put(data, BV, 8, 0);
    other_state();
    go_mask(F_X87 | F_SSE, CODE("xrstor [rdi]"));
    check_fsw("xrstor.init-x87", RESTORE, 0, 0xffff);
    check("xrstor.init-fcw", RESTORE, get(seen, 0, 2), FCW_INIT);
    check("xrstor.init-tags", RESTORE, get(seen, 4, 1), 0);
    check_st("xrstor.init-st", RESTORE, 0, 0, 0);
    check("xrstor.init-xmm", RESTORE, xmm2_is(0), true);
    check("xrstor.init-keeps-mxcsr-of-memory", MXCSR_RULE, seen_mxcsr(), MXCSR_INIT | PE);
    other_state();
    go_mask(0, CODE("xrstor [rdi]"));
    check("xrstor.nothing", RESTORE, xmm2_is(0xff), true);
    put(data, 24, 4, 0x10000);
    check_code("xrstor.mxcsr-reserved", MXCSR_RULE,
               CODE("mov eax, 2\n xor edx, edx\n 9: xrstor [rdi]"), V_GP);
    check_code("xrstor.mxcsr-reserved-unasked", MXCSR_RULE,
               CODE("mov eax, 1\n xor edx, edx\n 9: xrstor [rdi]"), V_DONE);
    require(has_avx, "AVX is not offered");
    check_code("xrstor.mxcsr-reserved-ymm", MXCSR_RULE,
               CODE("mov eax, 4\n xor edx, edx\n 9: xrstor [rdi]"), V_GP);
    prepare();
    other_state();
    go_mask(F_YMM, CODE("xrstor [rdi]"));
    check("xrstor.ymm-loads-mxcsr", MXCSR_RULE, seen_mxcsr(), MXCSR_INIT | PE);
    check("xrstor.ymm-keeps-xmm", RESTORE, xmm2_is(0xff), true);
    go(CODE("vextractf128 [rsi], ymm2, 1"));
    check("xrstor.ymm-upper", RESTORE, filled(data, MIDDLE, 16, 0x66), true);
    put(data, BV, 8, F_SSE);
    go_mask(F_YMM | F_SSE, CODE("xrstor [rdi]\n vmovups [rsi], ymm2"));
    check("xrstor.init-ymm", RESTORE, filled(data, MIDDLE + 16, 16, 0), true);
    check("xrstor.init-ymm-lower", RESTORE, filled(data, MIDDLE, 16, 0x77), true);
    require_end();
    prepare();
    put(data, 0, 2, UNMASK(ZE));
    put(data, 2, 2, ZE);
    check_code(
        "xrstor.pending", "SDM Vol.1, x87 exception synchronization",
        CODE("mov eax, 1\n xor edx, edx\n xrstor [rdi]\n xrstor [rdi]\n xsave [rdi]\n 9: fwait"),
        V_MF);
    go(CODE("fninit"));
}

static void header_fault(const char *name, const char *topic, unsigned offset, uint64_t value,
                         uint64_t mask)
{
    struct cpu c;

    put(data, offset, 8, get(data, offset, 8) | value);
    c = go_mask(mask, CODE("xrstor [rdi]"));
    check_fault(name, topic, &c, V_GP, 0);
}

static void headers(void)
{
    prepare();
    header_fault("header.bv-unsupported", HEADER, BV, 1ull << 61, 1);
    prepare();
    header_fault("header.bv-63", HEADER, BV, XCOMP, 1);
    prepare();
    header_fault("header.xcomp-bit", HEADER, BV_COMP, F_X87, 1);
    prepare();
    header_fault("header.byte16", HEADER, BV + 16, 1, 1);
    prepare();
    header_fault("header.byte23", HEADER, BV + 16, 1ull << 63, 1);
    prepare();
    header_fault("header.unasked", HEADER, BV, 1ull << 61, 0);
    other_state();
    prepare();
    put(data, BV + 16, 1, 1);
    other_state();
    go_mask(~0ull, CODE("xrstor [rdi]"));
    check("header.fault-keeps", HEADER, xmm2_is(0xff), true);
    require(has_avx, "AVX is not offered");
    prepare();
    set_xcr0(F_X87 | F_SSE);
    put(data, BV, 8, F_YMM | F_SSE);
    header_fault("header.bv-not-enabled", HEADER, BV, 0, F_X87);
    set_xcr0(supported);
    require_end();
    prepare();
    check_code("align.xsave32", SAVE, CODE("xsave [rdi + 32]"), V_GP);
    check_code("align.xsave1", SAVE, CODE("xsave [rdi + 1]"), V_GP);
    check_code("align.xrstor16", RESTORE, CODE("xrstor [rdi + 16]"), V_GP);
    check_code("align.xsave64", SAVE, CODE("xsave [rdi + 64]"), V_DONE);
    require(has_opt, "XSAVEOPT is not offered");
    check_code("align.xsaveopt", "SDM Vol.2, XSAVEOPT", CODE("xsaveopt [rdi + 8]"), V_GP);
    require_end();
    require(has_compact, "XSAVEC is not offered");
    check_code("align.xsavec", SAVEC, CODE("xsavec [rdi + 48]"), V_GP);
    require_end();
    {
        struct cpu c = user(UCODE("xsave [rdi]"));

        c.ax = 3;
        c.di = (word)user_page[0];
        run_done("xsave.user", SAVE, &c);
        c = user(UCODE("xsave [rdi]"));
        c.ax = 3;
        c.di = (word)user_page[0] + 32;
        run_fault("align.user", SAVE, &c, V_GP, 0);
        c = user(UCODE("xrstor [rdi]"));
        c.ax = 1;
        put(user_page[0], BV_COMP, 8, 1);
        c.di = (word)user_page[0];
        run_fault("header.user", HEADER, &c, V_GP, 0);
        c = kernel(CODE("xsave [rdi]"));
        c.di = 0x8000000000000000;
        run_fault("xsave.non-canonical", SAVE, &c, V_GP, 0);
    }
}

static void compacted(void)
{
    require(has_compact, "XSAVEC is not offered");
    dirty();
    fill(data, 0, AREA, 0x5a);
    go_mask(F_X87 | F_SSE, CODE("xsavec [rdi]"));
    check("xsavec.bv", SAVEC, get(data, BV, 8), 3);
    check("xsavec.xcomp", SAVEC, get(data, BV_COMP, 8), XCOMP | 3);
    check("xsavec.size", COMPACT, filled(data, 576, 256, 0x5a), true);
    check("xsavec.xmm2", SAVEC, filled(data, 192, 16, 0x77), true);
    put(data, MIDDLE, 4, MXCSR_INIT | PE);
    go(CODE("ldmxcsr [rsi]"));
    fill(data, 0, AREA, 0);
    go_mask(F_X87 | F_SSE, CODE("xrstor [rdi]\n ldmxcsr [rsi]\n xsavec [rdi]"));
    check("xsavec.mxcsr-counts", "SDM Vol.1, XSAVEC: MXCSR is of SSE state", get(data, BV, 8) & 2,
          2);
    check("xsavec.mxcsr", SAVEC, get(data, 24, 4), MXCSR_INIT | PE);
    /* compacted XRSTOR */
    dirty();
    fill(data, 0, AREA, 0);
    go_mask(F_X87 | F_SSE, CODE("xsavec [rdi]"));
    other_state();
    go_mask(F_SSE, CODE("xrstor [rdi]"));
    check("compact.xmm2", COMPACT, xmm2_is(0x77), true);
    put(data, BV, 8, F_X87);
    put(data, 24, 4, 0x10000);
    put(data, MIDDLE, 4, MXCSR_INIT | ZE);
    go(CODE("ldmxcsr [rsi]"));
    {
        struct cpu c = go_mask(F_SSE, CODE("xrstor [rdi]"));

        check_done("compact.mxcsr-not-read", MXCSR_RULE, &c);
        check("compact.init-mxcsr", MXCSR_RULE, seen_mxcsr(), MXCSR_INIT);
        check("compact.init-xmm", COMPACT, xmm2_is(0), true);
    }
    put(data, 24, 4, MXCSR_INIT);
    header_fault("compact.bv-not-in-xcomp", HEADER, BV, has_avx ? F_YMM : F_PKRU, 1);
    put(data, BV, 8, F_X87);
    header_fault("compact.bv-63", HEADER, BV, XCOMP, 1);
    put(data, BV, 8, F_X87);
    header_fault("compact.xcomp-unsupported", HEADER, BV_COMP, 1ull << 61, 1);
    put(data, BV_COMP, 8, XCOMP | 3);
    header_fault("compact.byte16", HEADER, BV + 16, 1, 1);
    put(data, BV + 16, 8, 0);
    header_fault("compact.byte63", HEADER, BV + 56, 1ull << 63, 1);
    put(data, BV + 56, 8, 0);
    require(has_avx, "AVX is not offered");
    dirty();
    fill(data, 0, AREA, 0x5a);
    go_mask(F_YMM, CODE("xsavec [rdi]"));
    check("compact.ymm-only", COMPACT, filled(data, 576 + 32, 16, 0x66), true);
    check("compact.ymm-no-mxcsr", "SDM Vol.1, XSAVEC: MXCSR is of SSE state",
          filled(data, 0, 512, 0x5a), true);
    check("compact.ymm-xcomp", SAVEC, get(data, BV_COMP, 8), XCOMP | F_YMM);
    require_end();
}

static void super(void)
{
    struct cpu c;

    require(has_super, "XSAVES is not offered");
    dirty();
    fill(data, 0, AREA, 0x5a);
    fill(data, BV, 64, 0);
    go_mask(F_X87 | F_SSE, CODE("xsaves [rdi]"));
    check("xsaves.bv", SAVES, get(data, BV, 8), 3);
    check("xsaves.xcomp", SAVES, get(data, BV_COMP, 8), XCOMP | 3);
    other_state();
    go_mask(F_X87 | F_SSE, CODE("xrstors [rdi]"));
    check("xrstors.xmm2", SAVES, xmm2_is(0x77), true);
    check_st("xrstors.st0", SAVES, 0, 0x4000, 0xc90fdaa22168c235);
    put(data, BV_COMP, 8, 0);
    c = go_mask(F_X87, CODE("xrstors [rdi]"));
    check_fault("xrstors.standard-form", SAVES, &c, V_GP, 0);
    put(data, BV_COMP, 8, XCOMP | 3 | 1ull << 61);
    c = go_mask(F_X87, CODE("xrstors [rdi]"));
    check_fault("xrstors.xcomp-unsupported", SAVES, &c, V_GP, 0);
    put(data, BV_COMP, 8, XCOMP | 1);
    c = go_mask(F_X87, CODE("xrstors [rdi]"));
    check_fault("xrstors.bv-not-in-xcomp", SAVES, &c, V_GP, 0);
    put(data, BV_COMP, 8, XCOMP | 3);
    put(data, BV + 24, 8, 1);
    c = go_mask(F_X87, CODE("xrstors [rdi]"));
    check_fault("xrstors.reserved", SAVES, &c, V_GP, 0);
    check_code("xsaves.alignment", SAVES, CODE("xsaves [rdi + 32]"), V_GP);
    check_code("xrstors.alignment", SAVES, CODE("xrstors [rdi + 32]"), V_GP);
    c = user(UCODE("xsaves [rdi]"));
    c.di = (word)user_page[0];
    run_fault("xsaves.user", SAVES, &c, V_GP, 0);
    c = user(UCODE("xrstors [rdi]"));
    c.di = (word)user_page[0];
    run_fault("xrstors.user", SAVES, &c, V_GP, 0);
    set_cr0(cr0() | CR0_TS);
    c = go_mask(3, CODE("xsaves [rdi]"));
    check_fault("xsaves.ts", SAVES, &c, V_NM, NO_ERROR);
    set_cr0(cr0() & ~CR0_TS);
    require_end();
}

static void in_use(void)
{
    require(leaf(1, 0) & 4, "XGETBV with ECX = 1 is not offered");
    dirty();
    check("xinuse.x87-and-sse", "SDM Vol.2, XGETBV with ECX = 1", xgetbv(1) & 3, 3);
    set_xcr0(F_X87);
    check("xinuse.within-xcr0", "SDM Vol.2, XGETBV with ECX = 1", xgetbv(1) & ~F_X87, 0);
    set_xcr0(supported);
    require(has_avx, "AVX is not offered");
    check("xinuse.ymm", "SDM Vol.2, XGETBV with ECX = 1", xgetbv(1) & F_YMM, F_YMM);
    require_end();
}

static void keys(void)
{
    struct cpu c;

    require(has_pkru, "PKU is not offered");
    set_cr4(cr4() | CR4_PKE);
    go(CODE("xor ecx, ecx\n xor edx, edx\n mov eax, 0x5550\n wrpkru"));
    fill(data, 0, 4096, 0);
    go_mask(F_PKRU, CODE("xsave [rdi]"));
    check("pkru.bv", SAVE, get(data, BV, 8), F_PKRU);
    check("pkru.place", LEAF, get(data, leaf(9, 1), 4), 0x5550);
    put(data, leaf(9, 1), 4, 0xcc0);
    c = go_mask(F_PKRU, CODE("xrstor [rdi]\n xor ecx, ecx\n rdpkru"));
    check("pkru.restored", RESTORE, (uint32_t)c.ax, 0xcc0);
    put(data, BV, 8, 0);
    c = go_mask(F_PKRU, CODE("xrstor [rdi]\n xor ecx, ecx\n rdpkru"));
    check("pkru.init", RESTORE, (uint32_t)c.ax, 0);
    put(data, leaf(9, 1), 4, 1);
    put(data, BV, 8, F_PKRU);
    c = kernel(
        CODE("mov al, [rsi]\n mov eax, 0x200\n xor edx, edx\n xrstor [rdi]\n 9: mov al, [rsi]"));
    c.di = (word)data;
    c.si = (word)user_page[0];
    run(&c);
    check_pf("pkru.takes-effect", "SDM Vol.3, protection keys", &c, 0x21, (word)user_page[0]);
    go(CODE("xor ecx, ecx\n xor edx, edx\n xor eax, eax\n wrpkru"));
    require(has_compact, "XSAVEC is not offered");
    go(CODE("xor ecx, ecx\n xor edx, edx\n mov eax, 0x5550\n wrpkru"));
    fill(data, 0, 4096, 0);
    go_mask(F_PKRU, CODE("xsavec [rdi]"));
    check("pkru.compact", COMPACT, get(data, 576, 4), 0x5550);
    put(data, 576, 4, 0x330);
    c = go_mask(F_PKRU, CODE("xrstor [rdi]\n xor ecx, ecx\n rdpkru"));
    check("pkru.compact-restored", COMPACT, (uint32_t)c.ax, 0x330);
    require(has_avx, "AVX is not offered");
    dirty();
    go_mask(F_YMM | F_PKRU, CODE("xsavec [rdi]"));
    check("pkru.compact-after-ymm", COMPACT, get(data, 576 + 256, 4), 0x330);
    put(data, BV, 8, F_PKRU);
    put(data, 832, 4, 0x440);
    c = go_mask(F_PKRU, CODE("xrstor [rdi]\n xor ecx, ecx\n rdpkru"));
    check("pkru.compact-place-by-xcomp", COMPACT, (uint32_t)c.ax, 0x440);
    go(CODE("xor ecx, ecx\n xor edx, edx\n xor eax, eax\n wrpkru"));
    require_end();
    set_cr4(cr4() & ~CR4_PKE);
}

static void faults(void)
{
    struct cpu c;

    test_pages_reset();
    test_entry[1][1] = 0;
    flush_tlb();
    c = kernel(CODE("xsave [rdi]"));
    c.di = TEST_VA + 4096 - 128;
    c.ax = 3;
    run(&c);
    check_pf("fault.xsave", SAVE, &c, 2, TEST_VA + 4096);
    test_entry[1][0] &= ~PTE_W;
    flush_tlb();
    c = kernel(CODE("xsave [rdi]"));
    c.di = TEST_VA;
    c.ax = 3;
    run(&c);
    check_bits("fault.xsave-read-only", SAVE, c.vector << 8 | c.error, V_PF << 8 | 3, ~0ull);
    c = kernel(CODE("xrstor [rdi]"));
    c.di = TEST_VA + 4096 - 576 + 64;
    c.ax = 3;
    fill(test_frame[0], 0, 4096, 0);
    run(&c);
    check_pf("fault.xrstor", RESTORE, &c, 0, TEST_VA + 4096);
    test_pages_reset();
    test_entry[1][1] = 0;
    flush_tlb();
    set_xcr0(F_X87 | F_SSE);
    c = kernel(CODE("xsave [rdi]\n xrstor [rdi]"));
    c.di = TEST_VA + 4096 - 576;
    c.ax = c.dx = ~0ul;
    run_done("fault.within-size", LAYOUT, &c);
    set_xcr0(supported);
    test_pages_reset();
}

/* With an exception pending, as all processors keep pointers then. */
static void pointers(void)
{
    put(data, MIDDLE, 2, UNMASK(ZE));
    put(data, MIDDLE + 2, 2, ZE);
    go(CODE("fninit\n fxsave [rdi]\n mov eax, [rsi]\n mov [rdi], eax"));
    put(data, 6, 2, 0x123);
    put(data, 8, 8, 0x00001234567890ab);
    put(data, 16, 8, 0x00005678abcdef01);
    fill(data, BV, 64, 0);
    put(data, BV, 8, 1);
    fill(data, MIDDLE, AREA, 0);
    go_mask(1, CODE("xrstor64 [rdi]\n xsave64 [rsi]"));
    check("pointers.xsave64-fip", "SDM Vol.2, XSAVE64", get(data, MIDDLE + 8, 8),
          0x00001234567890ab);
    check("pointers.xsave64-fdp", "SDM Vol.2, XSAVE64", get(data, MIDDLE + 16, 8),
          0x00005678abcdef01);
    check("pointers.xsave64-fop", "SDM Vol.2, XSAVE64", get(data, MIDDLE + 6, 2), 0x123);
    go_mask(1, CODE("xrstor64 [rdi]\n xsave [rsi]"));
    check("pointers.xsave-fip", SAVE, get(data, MIDDLE + 8, 4), 0x567890ab);
    check("pointers.xsave-fdp", SAVE, get(data, MIDDLE + 16, 4), 0xabcdef01);
    require(has_compact, "XSAVEC is not offered");
    go_mask(1, CODE("xrstor64 [rdi]\n xsavec64 [rsi]"));
    check("pointers.xsavec64-fip", "SDM Vol.2, XSAVEC64", get(data, MIDDLE + 8, 8),
          0x00001234567890ab);
    require_end();
    go(CODE("fninit"));
}

/* Outside 64-bit mode XMM8 to 15 and their upper halves are left alone. */
static void compatibility(void)
{
    struct cpu c = kernel(CODE32("xsave [edi]"));

    go(CODE("pcmpeqb xmm2, xmm2\n pcmpeqb xmm12, xmm12"));
    fill(data, 0, AREA, 0x5a);
    fill(data, BV, 64, 0);
    c.cs = S_CODE32;
    c.di = (word)data;
    c.ax = 3;
    run(&c);
    check("compat.xsave-low", "SDM Vol.1, XSAVE outside 64-bit mode", filled(data, 192, 16, 0xff),
          true);
    check("compat.xsave-high", "SDM Vol.1, XSAVE outside 64-bit mode", filled(data, 288, 128, 0x5a),
          true);
    c = kernel(CODE32("xrstor [edi]"));
    c.cs = S_CODE32;
    c.di = (word)data;
    c.ax = 2;
    put(data, BV, 8, 0);
    put(data, 24, 4, MXCSR_INIT);
    run(&c);
    check("compat.xrstor-low", "SDM Vol.1, XRSTOR outside 64-bit mode", xmm2_is(0), true);
    check("compat.xrstor-high", "SDM Vol.1, XRSTOR outside 64-bit mode",
          filled(seen, 160 + 192, 16, 0xff), true);
}

void test(void)
{
    set_cr0((cr0() & ~(CR0_TS | CR0_EM)) | CR0_MP | CR0_NE);
    set_cr4(cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
    has_avx = cpuid_bit(1, 0, 2, 28);
    require(cpuid_bit(1, 0, 2, 26), "XSAVE is not offered");
    if (!skipping()) {
        set_cr4(cr4() | CR4_OSXSAVE);
        /* of the components that CPUID tells, those that images know */
        supported = ((uint64_t)leaf(0, 3) << 32 | leaf(0, 0)) & (F_X87 | F_SSE | F_YMM | F_PKRU);
        has_pkru = supported & F_PKRU;
        has_opt = leaf(1, 0) & 1;
        has_compact = leaf(1, 0) & 2;
        has_super = leaf(1, 0) & 8;
    }
    check("xsave.legacy", LEAF, supported & 3, 3);
    if (skipping())
        return;
    xcr0();
    leaves();
    standard();
    restoring();
    headers();
    compacted();
    super();
    in_use();
    keys();
    faults();
    compatibility();
    pointers();
}
