/*
 * Which instructions CR0.TS, EM and MP and CR4.OSFXSR, OSXMMEXCPT and OSXSAVE rule out; MMX and the
 * x87 registers it shares.
 */
#include "fpu.h"

#define NM "SDM Vol.3, #NM; table of EM, MP and TS"
#define OSFXSR "SDM Vol.3, CR4.OSFXSR"
#define MMX "SDM Vol.1, MMX state and the x87 state"
#define MMX_NM "SDM Vol.3, MMX: effect of EM and TS"
#define ENV "SDM Vol.1, x87 environment in memory"
#define OSXSAVE "SDM Vol.3, CR4.OSXSAVE"

enum { X87, FWAIT, MMX_INSN, SSE, LDMXCSR, FXSAVE, FXRSTOR, INTEGER, FENCE, KINDS };
static const char *const kind_names[KINDS] = {"x87",    "fwait",   "mmx",     "sse",  "ldmxcsr",
                                              "fxsave", "fxrstor", "integer", "fence"};

static struct code kind_code(unsigned kind)
{
    switch (kind) {
    case X87:
        return CODE("fnstcw [" DI "]");
    case FWAIT:
        return CODE("fwait");
    case MMX_INSN:
        return CODE("emms");
    case SSE:
        return CODE("xorps xmm0, xmm0");
    case LDMXCSR:
        return CODE("ldmxcsr [" SI "]");
    case FXSAVE:
        return CODE("fxsave [" DI "]");
    case FXRSTOR:
        return CODE("fxrstor [" DI "]");
    case INTEGER:
        return CODE("movnti [" DI "], eax\n pause\n prefetcht0 [" DI "]");
    default:
        return CODE("sfence\n lfence\n mfence");
    }
}

/* What it does under these bits of CR0, with OSFXSR set or clear: a vector, or V_DONE. */
static int expected(unsigned kind, word bits, bool osfxsr)
{
    bool ts = bits & CR0_TS, em = bits & CR0_EM, mp = bits & CR0_MP;

    switch (kind) {
    case X87:
    case FXSAVE:
    case FXRSTOR:
        return ts || em ? V_NM : V_DONE;
    case FWAIT:
        return ts && mp ? V_NM : V_DONE;
    case MMX_INSN:
        return em ? V_UD : ts ? V_NM : V_DONE;
    case SSE:
    case LDMXCSR:
        return em || !osfxsr ? V_UD : ts ? V_NM : V_DONE;
    default:
        return V_DONE;
    }
}

static void combinations(void)
{
    static const char *const names[8] = {"-none", "-mp",    "-em",    "-em-mp",
                                         "-ts",   "-ts-mp", "-ts-em", "-ts-em-mp"};
    word base = cr0() & ~(CR0_TS | CR0_EM | CR0_MP);

    put(data, MIDDLE, 4, MXCSR_INIT);
    go(CODE("fninit\n fxsave [" DI "]"));
    for (word bits = 0; bits < 8; bits++) {
        word set = bits << 1; /* MP, EM, TS are bits 1 to 3 */

        for (unsigned kind = 0; kind < KINDS; kind++) {
            set_cr0(base | set);
            check_code(joined("cr0.", kind_names[kind], names[bits]), NM, kind_code(kind),
                       expected(kind, set, true));
            set_cr0(base);
        }
    }
    set_cr4(cr4() & ~CR4_OSFXSR);
    for (unsigned kind = 0; kind < KINDS; kind++)
        check_code(joined("osfxsr.", kind_names[kind], ""), OSFXSR, kind_code(kind),
                   expected(kind, 0, false));
    set_cr0(base | CR0_TS);
    check_code("osfxsr.before-ts", OSFXSR, kind_code(SSE), V_UD);
    set_cr0(base | CR0_MP);
    set_cr4(cr4() | CR4_OSFXSR);
}

static void more_of_ts(void)
{
    word base = cr0();
    struct cpu c;

    set_cr0(base | CR0_TS);
    check_code("ts.fninit", NM, CODE("fninit"), V_NM);
    check_code("ts.fnclex", NM, CODE("fnclex"), V_NM);
    check_code("ts.fnstsw", NM, CODE("fnstsw ax"), V_NM);
    check_code("ts.fcmov", NM, CODE("fcmove st, st(1)"), V_NM);
    check_code("ts.stmxcsr", NM, CODE("stmxcsr [" DI "]"), V_NM);
    check_code("ts.before-page-fault", NM, CODE("fld dword ptr [" DI " - 0x70000000]"), V_NM);
    check_code("ts.sse-store", NM, CODE("movups [" DI "], xmm0"), V_NM);
    check_code("ts.maskmovq", MMX_NM, CODE("maskmovq mm0, mm1"), V_NM);
    check_code("ts.cvtpi2ps", MMX_NM, CODE("cvtpi2ps xmm0, mm0"), V_NM);
    check_code("ts.clts", "SDM Vol.2, CLTS", CODE("clts\n fninit\n xorps xmm0, xmm0"), V_DONE);
    check("ts.clts-clears", "SDM Vol.2, CLTS", cr0() & CR0_TS, 0);
    check_code("ts.lmsw", "SDM Vol.2, LMSW", CODE("smsw ax\n or al, 8\n lmsw ax\n 9: fninit"),
               V_NM);
    c = user(UCODE("fninit"));
    run_fault("ts.user", NM, &c, V_NM, NO_ERROR);
    c = user(UCODE("emms"));
    run_fault("ts.user-mmx", MMX_NM, &c, V_NM, NO_ERROR);
    set_cr0(base | CR0_EM);
    c = user(UCODE("pand mm0, mm1"));
    run_fault("em.user-mmx", MMX_NM, &c, V_UD, NO_ERROR);
    check_code("em.sse2-integer", NM, CODE("paddd xmm0, xmm1"), V_UD);
    check_code("em.cvtpi2ps", NM, CODE("cvtpi2ps xmm0, mm0"), V_UD);
    set_cr0(base);
    set_cr0(base | CR0_TS);
    check_code("ts.pending-hidden", "SDM Vol.3, priority: #NM before #MF",
               CODE("clts\n fninit\n fldcw [" SI " + 8]\n fld1\n fchs\n fsqrt\n smsw ax\n"
                    "or al, 8\n lmsw ax\n 9: fwait"),
               V_NM);
    set_cr0(base);
    check_code("ts.pending-after", "SDM Vol.3, priority: #NM before #MF", CODE("9: fwait"), V_MF);
    go(CODE("fninit"));
}

/* ---- MMX ---- */

static void aliasing(void)
{
    struct cpu c;

    put(data, 0, 8, 0x1122334455667788);
    go(CODE("fninit\n fldpi\n fldpi\n movq mm3, [" DI "]"));
    check_fsw("mmx.top", MMX, 0, TOP(7) | FLAGS_ALL);
    check("mmx.tags", MMX, get(seen, 4, 1), 0xff);
    check("mmx.fxsave-value", MMX, get(seen, 32 + 16 * 3, 8), 0x1122334455667788);
    check("mmx.exponent-ones", MMX, get(seen, 40 + 16 * 3, 2), 0xffff);
    go(CODE("fninit\n fldpi\n movd eax, mm0"));
    check_fsw("mmx.read-resets-top", MMX, 0, TOP(7));
    check("mmx.read-sets-tags", MMX, get(seen, 4, 1), 0xff);
    c = go(CODE("fninit\n fldpi\n movd eax, mm7"));
    check("mmx.reads-significand", MMX, (uint32_t)c.ax, 0x2168c235);
    check("mmx.read-keeps-exponent", MMX, get((look(), seen), 40 + 16 * 7, 2), 0x4000);
    go(CODE("fninit\n fldpi\n movq mm0, [" DI "]\n movq [" DI " + 8], mm7"));
    check("mmx.physical-registers", MMX, get(data, 8, 8), 0xc90fdaa22168c235);
    go(CODE("fninit\n movq mm0, [" DI "]\n emms"));
    look();
    check("mmx.emms-tags", "SDM Vol.2, EMMS", get(seen, 4, 1), 0);
    check("mmx.emms-keeps-value", "SDM Vol.2, EMMS", get(seen, 32, 8), 0x1122334455667788);
    go(CODE("fninit\n movq mm0, [" DI "]\n fld1"));
    check_fsw("mmx.fld-overflows", "SDM Vol.1, x87 stack overflow", IE | SF | C1 | TOP(7),
              FLAGS_ALL | C1 | TOP(7));
    go(CODE("fninit\n movq mm0, [" DI "]\n fld st(0)\n emms\n fninit\n fld1"));
    check_fsw("mmx.after-emms", MMX, TOP(7), FLAGS_ALL | TOP(7));
    go(CODE("fninit\n pcmpeqb mm0, mm0\n fxam"));
    check_fsw("mmx.as-x87-nan", MMX, C0 | C1, CC_ALL);
    go(CODE("fninit\n movq mm0, [" DI "]\n fnstenv [" DI " + 64]"));
    check("mmx.fnstenv-special", MMX, get(data, 72, 2) & 3, 2);
    go(CODE("fninit\n fldpi\n movdq2q mm1, xmm0"));
    check("mmx.movdq2q", "SDM Vol.2, MOVDQ2Q: to MMX", get((look(), seen), 4, 1), 0xff);
    go(CODE("fninit\n fldpi\n movq2dq xmm0, mm7"));
    check("mmx.movq2dq", "SDM Vol.2, MOVQ2DQ: to MMX", get((look(), seen), 4, 1), 0xff);
    check("mmx.movq2dq-value", "SDM Vol.2, MOVQ2DQ", get(seen, 160, 8), 0xc90fdaa22168c235);
    check("mmx.movq2dq-upper", "SDM Vol.2, MOVQ2DQ", get(seen, 168, 8), 0);
    go(CODE("fninit\n fldpi\n cvtpi2pd xmm0, [" DI "]"));
    check("mmx.cvtpi2pd-memory", "SDM Vol.2, CVTPI2PD: memory leaves x87 alone",
          get((look(), seen), 4, 1), 0x80);
    go(CODE("fninit\n fldpi\n cvtps2pi mm0, xmm0"));
    check("mmx.cvtps2pi", "SDM Vol.2, CVTPS2PI: to MMX", get((look(), seen), 4, 1), 0xff);
    go(CODE("fninit\n fldpi\n pxor mm0, mm0\n maskmovq mm1, mm0"));
    check("mmx.maskmovq", "SDM Vol.2, MASKMOVQ: to MMX", get((look(), seen), 4, 1), 0xff);
    go(CODE("fninit\n pxor mm0, mm0\n pcmpeqb mm1, mm1\n emms"));
}

static void mmx_faults(void)
{
    struct cpu c;

    put(data, 0, 2, UNMASK(IE));
    check_code("mmx.pending-store", MMX,
               CODE("fninit\n fldcw [" DI "]\n fld1\n fchs\n fsqrt\n 9: movq [" DI "], mm0"), V_MF);
    look();
    check("mmx.pending-keeps-tags", MMX, get(seen, 4, 1), 0x80);
    check_code("mmx.pending-cvtpi2ps", MMX, CODE("cvtpi2ps xmm0, mm0"), V_MF);
    check_code("mmx.pending-movdq2q", MMX, CODE("movdq2q mm0, xmm0"), V_MF);
    check_code("mmx.pending-maskmovq", MMX, CODE("maskmovq mm0, mm1"), V_MF);
    check_code("mmx.pending-sse", "SDM Vol.1, SSE does not wait for x87",
               CODE("xorps xmm0, xmm0\n movups [" DI " + 64], xmm0\n paddq xmm1, xmm1"), V_DONE);
    go(CODE("fninit"));
    test_pages_reset();
#ifdef __x86_64__
    test_entry[1][1] = 0;
    flush_tlb();
    c = kernel(CODE("fninit\n fldpi\n 9: movq mm0, [rdi]"));
    c.di = TEST_VA + 4096 - 4;
    run(&c);
    check_pf("mmx.load-fault", "SDM Vol.3, #PF", &c, 0, TEST_VA + 4096);
    look();
    check("mmx.load-fault-keeps-tags", "SDM Vol.3, faults are restartable", get(seen, 4, 1), 0x80);
    c = kernel(CODE("fninit\n fldpi\n 9: fstp qword ptr [rdi]"));
    c.di = TEST_VA + 4096 - 4;
    run(&c);
    check_pf("x87.store-fault", "SDM Vol.3, #PF", &c, 2, TEST_VA + 4096);
    check_fsw("x87.store-fault-no-pop", "SDM Vol.3, faults are restartable", TOP(7), TOP(7));
    c = kernel(CODE("fninit\n fldpi\n 9: fld tbyte ptr [rdi]"));
    c.di = TEST_VA + 4096 - 9;
    run(&c);
    check_pf("x87.load-fault", "SDM Vol.3, #PF", &c, 0, TEST_VA + 4096);
    check_fsw("x87.load-fault-no-push", "SDM Vol.3, faults are restartable", TOP(7), TOP(7));
    test_pages_reset();
#endif
    set_cr0(cr0() | CR0_AM);
    c = user(UCODE("fninit\n 9: movq mm0, [" DI "]"));
    c.di = (word)user_page[0] + 4;
    c.flags |= FL_AC;
    run_fault("mmx.alignment", "SDM Vol.3, #AC", &c, V_AC, 0);
    c = user(UCODE("fninit\n 9: fld qword ptr [" DI "]"));
    c.di = (word)user_page[0] + 4;
    c.flags |= FL_AC;
    run_fault("x87.alignment-double", "SDM Vol.3, #AC", &c, V_AC, 0);
    c = user(UCODE("fninit\n 9: fld dword ptr [" DI "]"));
    c.di = (word)user_page[0] + 4;
    c.flags |= FL_AC;
    run_done("x87.alignment-single", "SDM Vol.3, #AC", &c);
    c = user(UCODE("fninit\n 9: fld tbyte ptr [" DI "]"));
    c.di = (word)user_page[0] + 4;
    c.flags |= FL_AC;
    run_fault("x87.alignment-extended", "SDM Vol.3, #AC", &c, V_AC, 0);
    set_cr0(cr0() & ~CR0_AM);
}

/* ---- AVX and XSAVE ---- */

static void wide_state(void)
{
    word base = cr0();

    require(cpuid_bit(1, 0, 2, 26), "XSAVE is not offered");
    check_code("osxsave.xsave", OSXSAVE, CODE("xsave [" DI "]"), V_UD);
    check_code("osxsave.xrstor", OSXSAVE, CODE("xrstor [" DI "]"), V_UD);
    check_code("osxsave.xgetbv", OSXSAVE, CODE("xor ecx, ecx\n 9: xgetbv"), V_UD);
    check_code("osxsave.xsetbv", OSXSAVE,
               CODE("xor ecx, ecx\n xor edx, edx\n mov eax, 1\n 9: xsetbv"), V_UD);
    check("osxsave.cpuid-clear", "SDM Vol.2, CPUID: OSXSAVE", cpuid_bit(1, 0, 2, 27), 0);
    set_cr4(cr4() | CR4_OSXSAVE);
    check("osxsave.cpuid-set", "SDM Vol.2, CPUID: OSXSAVE", skipping() ? 1 : cpuid_bit(1, 0, 2, 27),
          1);
    go(CODE("xor ecx, ecx\n xor edx, edx\n mov eax, 3\n xsetbv"));
    set_cr0(base | CR0_TS);
    fill(data, 0, 1024, 0);
    check_code("ts.xsave", NM, CODE("mov eax, 3\n xor edx, edx\n 9: xsave [" DI "]"), V_NM);
    check_code("ts.xrstor", NM, CODE("mov eax, 3\n xor edx, edx\n 9: xrstor [" DI "]"), V_NM);
    check_code("ts.xgetbv", NM, CODE("xor ecx, ecx\n xgetbv"), V_DONE);
    set_cr0(base | CR0_EM);
    check_code("em.xsave", "SDM Vol.2, XSAVE: no exception from EM",
               CODE("mov eax, 3\n xor edx, edx\n xsave [" DI "]"), V_DONE);
    set_cr0(base);
    require_end();
    require(cpuid_bit(1, 0, 2, 28), "AVX is not offered");
    check_code("avx.not-enabled", "SDM Vol.2, VEX: XCR0", CODE("vxorps xmm0, xmm0, xmm0"), V_UD);
    check_code("avx.not-enabled-vzeroupper", "SDM Vol.2, VEX: XCR0", CODE("vzeroupper"), V_UD);
    check_code("avx.not-enabled-vldmxcsr", "SDM Vol.2, VEX: XCR0", CODE("vldmxcsr [" DI "]"), V_UD);
    set_cr0(base | CR0_TS);
    check_code("avx.not-enabled-ts", "SDM Vol.2, VEX: #UD before #NM",
               CODE("vpxor xmm0, xmm0, xmm0"), V_UD);
    set_cr0(base);
    go(CODE("xor ecx, ecx\n xor edx, edx\n mov eax, 7\n xsetbv"));
    check_code("avx.enabled", "SDM Vol.2, VEX: XCR0", CODE("vxorps ymm0, ymm0, ymm0"), V_DONE);
    set_cr0(base | CR0_TS);
    check_code("avx.ts", NM, CODE("vxorps ymm0, ymm0, ymm0"), V_NM);
    check_code("avx.ts-vzeroall", NM, CODE("vzeroall"), V_NM);
    set_cr0(base | CR0_EM);
    check_code("avx.em-ignored", "SDM Vol.2, VEX: no exception from EM",
               CODE("vxorps ymm0, ymm0, ymm0"), V_DONE);
    set_cr0(base);
    set_cr4(cr4() & ~CR4_OSFXSR);
    check_code("avx.osfxsr-ignored", "SDM Vol.2, VEX: no exception from OSFXSR",
               CODE("vxorps ymm0, ymm0, ymm0"), V_DONE);
    set_cr4((cr4() | CR4_OSFXSR) & ~CR4_OSXSAVE);
    check_code("avx.osxsave-clear", "SDM Vol.2, VEX: OSXSAVE", CODE("vxorps xmm0, xmm0, xmm0"),
               V_UD);
    require_end();
    require(cpuid_bit(7, 0, 1, 3), "BMI1 is not offered");
    set_cr0(base | CR0_TS | CR0_EM);
    check_code("andn.needs-no-vector-state", "SDM Vol.2, VEX-encoded general-purpose instructions",
               CODE("andn eax, ecx, edx\n blsi eax, ecx"), V_DONE);
    set_cr0(base);
    require_end();
}

/* ---- the mode ---- */

#ifndef __x86_64__
#define VEX_MODE "SDM Vol.2, VEX: not in real-address and virtual-8086 mode"

static void modes(void)
{
    struct cpu c;

    require(cpuid_bit(1, 0, 2, 28), "AVX is not offered");
    set_cr4(cr4() | CR4_OSXSAVE | CR4_OSFXSR);
    go(CODE("xor ecx, ecx\n xor edx, edx\n mov eax, 7\n xsetbv"));
    c = vm86(CODE16("vxorps xmm0, xmm0, xmm0"), 3);
    run_fault("vex.vm86", VEX_MODE, &c, V_UD, NO_ERROR);
    c = vm86(CODE16("vzeroupper"), 3);
    run_fault("vex.vm86-vzeroupper", VEX_MODE, &c, V_UD, NO_ERROR);
    c = vm86(CODE16(".byte 0xc4, 0xe2, 0x70, 0xf2, 0xc2"), 3); /* ANDN */
    run_fault("vex.vm86-andn", VEX_MODE, &c, V_UD, NO_ERROR);
    c = vm86(CODE16("xorps xmm0, xmm0\n fninit\n fld1\n emms"), 3);
    run_done("vm86.sse", "SDM Vol.3, virtual-8086 mode", &c);
    c = real(CODE16("vxorps xmm0, xmm0, xmm0"));
    run_real(&c);
    check_event("vex.real", VEX_MODE, &c, V_UD, NO_ERROR, c.code.mark);
    c = real(CODE16(".byte 0xc4, 0xe2, 0x70, 0xf2, 0xc2"));
    run_real(&c);
    check_event("vex.real-andn", VEX_MODE, &c, V_UD, NO_ERROR, c.code.mark);
    c = real(CODE16("xorps xmm0, xmm0\n fninit\n fld1\n emms"));
    run_real(&c);
    check_event("real.sse", "SDM Vol.3, real-address mode", &c, V_DONE, NO_ERROR, c.code.end);
    c = code16(CODE16("vxorps xmm0, xmm0, xmm0"));
    run_done("vex.protected-16", VEX_MODE, &c);
    require_end();
    c = vm86(CODE16("les ax, [0x100]\n lds ax, [0x100]"), 3);
    run_done("vex.vm86-les-lds", "SDM Vol.2, LES, LDS", &c);
    put(data, 0, 2, UNMASK(IE));
    go(CODE("fninit\n fldcw [" DI "]\n fld1\n fchs\n fsqrt"));
    c = vm86(CODE16("fwait"), 3);
    run_fault("vm86.mf", "SDM Vol.3, #MF", &c, V_MF, NO_ERROR);
    c = real(CODE16("fwait"));
    run_real(&c);
    check_event("real.mf", "SDM Vol.3, #MF", &c, V_MF, NO_ERROR, c.code.mark);
    go(CODE("fninit"));
}

#define LIMITS "SDM Vol.3, limit checking"
#define REAL "SDM Vol.3, real-address mode"
#define VM86 "SDM Vol.3, virtual-8086 mode"

static struct cpu go_fs(struct code code, word offset)
{
    struct cpu c = kernel(code);

    c.fs = S_FREE;
    c.di = offset;
    c.si = (word)data;
    run(&c);
    return c;
}

static void limits(void)
{
    struct cpu c;

    gdt_set(S_FREE, descriptor((uint32_t)(word)data, 0x3ff, 0x93, 4));
    c = go_fs(CODE("fxsave fs:[edi]"), 0x200);
    check_done("limit.fxsave-fits", LIMITS, &c);
    c = go_fs(CODE("fxsave fs:[edi]"), 0x210);
    check_fault("limit.fxsave", LIMITS, &c, V_GP, 0);
    c = go_fs(CODE("fxrstor fs:[edi]"), 0x210);
    check_fault("limit.fxrstor", LIMITS, &c, V_GP, 0);
    c = go_fs(CODE("movups xmm0, fs:[edi]"), 0x3f0);
    check_done("limit.movups-fits", LIMITS, &c);
    c = go_fs(CODE("movups fs:[edi], xmm0"), 0x3f1);
    check_fault("limit.movups", LIMITS, &c, V_GP, 0);
    c = go_fs(CODE("fninit\n 9: fld tbyte ptr fs:[edi]"), 0x3f7);
    check_fault("limit.fld", LIMITS, &c, V_GP, 0);
    c = go_fs(CODE("fninit\n fldpi\n 9: fstp tbyte ptr fs:[edi]"), 0x3f7);
    check_fault("limit.fstp", LIMITS, &c, V_GP, 0);
    check_fsw("limit.fstp-no-pop", LIMITS, TOP(7), TOP(7));
    c = go_fs(CODE("fninit\n 9: fnsave fs:[edi]"), 0x400 - 107);
    check_fault("limit.fnsave", LIMITS, &c, V_GP, 0);
    c = go_fs(CODE("fninit\n fnsave fs:[edi]"), 0x400 - 108);
    check_done("limit.fnsave-fits", LIMITS, &c);
    c = kernel(CODE("mov ebp, 0x400\n mov ss, ecx\n mov esp, 0x300\n 9: movups xmm0, [ebp - 15]"));
    c.cx = S_FREE;
    run_fault("limit.stack", LIMITS, &c, V_SS, 0);
    gdt_set(S_FREE, descriptor((uint32_t)(word)data, 0x3ff, 0x91, 4));
    c = go_fs(CODE("movups fs:[edi], xmm0"), 0x100);
    check_fault("limit.read-only", "SDM Vol.3, type checking", &c, V_GP, 0);
    c = go_fs(CODE("fnstenv fs:[edi]"), 0x100);
    check_fault("limit.read-only-fnstenv", "SDM Vol.3, type checking", &c, V_GP, 0);
    c = kernel(CODE("movups xmm0, fs:[edi]"));
    c.fs = 0;
    run_fault("limit.null", "SDM Vol.3, null selectors", &c, V_GP, 0);
    gdt_reset();
    c = vm86(CODE16("fxsave [0xfe10]"), 3);
    run_fault("limit.vm86-fxsave", LIMITS, &c, V_GP, 0);
    c = vm86(CODE16("movups xmm0, [0xfff1]"), 3);
    run_fault("limit.vm86-movups", LIMITS, &c, V_GP, 0);
    c = real(CODE16("movups xmm0, [0xfff1]"));
    run_real(&c);
    check_event("limit.real-movups", LIMITS, &c, V_GP, NO_ERROR, c.code.mark);
    c = real(CODE16("mov bp, 0xfff1\n 9: movups xmm0, [bp]"));
    run_real(&c);
    check_event("limit.real-stack", LIMITS, &c, V_SS, NO_ERROR, c.code.mark);
}

/* What 16-bit code at LOW_CODE left at offset 0x4000 of its segment. */
static uint64_t low(unsigned offset, unsigned size)
{
    return get((const void *)(word)(LOW_CODE + 0x4000), offset, size);
}

/* The environment in the formats of real-address mode, which virtual-8086 mode shares. */
static void real_environments(void)
{
    struct cpu c;

    put((void *)(word)LOW_CODE, 0x3000, 4, 0x7f800001);
    put((void *)(word)LOW_CODE, 0x3010, 2, UNMASK(IE));
    fill((void *)(word)LOW_CODE, 0x4000, 64, 0x5a);
    c = vm86(
        CODE16("fninit\n fldcw [0x3010]\n fld1\n 9: fadd dword ptr [0x3000]\n fnstenv [0x4000]"),
        3);
    run(&c);
    check("real-env16.fcw", ENV, low(0, 2), UNMASK(IE));
    check("real-env16.fsw", ENV, low(2, 2), PENDING | IE | TOP(7));
    check("real-env16.tags", ENV, low(4, 2), 0x3fff);
    check("real-env16.fip", ENV, low(6, 2), c.code.mark);
    check("real-env16.fop", ENV, low(8, 2) & 0x7ff, 0x006);
    check("real-env16.fdp", ENV, low(10, 2), 0x3000);
    check("real-env16.size", ENV, low(14, 2), 0x5a5a);
    fill((void *)(word)LOW_CODE, 0x4000, 64, 0x5a);
    c = real(CODE16("fninit\n fldcw [0x3010]\n fld1\n 9: fadd dword ptr [0x3000]\n .byte 0x66\n"
                    "fnstenv [0x4000]"));
    run_real(&c);
    check("real-env32.fsw", ENV, low(4, 2), PENDING | IE | TOP(7));
    check("real-env32.tags", ENV, low(8, 2), 0x3fff);
    check("real-env32.fip", ENV, low(12, 2), c.code.mark);
    check("real-env32.fop", ENV, low(16, 2) & 0x7ff, 0x006);
    check("real-env32.fdp", ENV, low(20, 2), 0x3000);
    check("real-env32.size", ENV, low(28, 2), 0x5a5a);
    c = code16(
        CODE16("fninit\n fldcw [0x3010]\n fld1\n 9: fadd dword ptr [0x3000]\n fnstenv [0x4000]"));
    run(&c);
    check("env16-default.fip", ENV, low(6, 2), c.code.mark);
    check("env16-default.fdp", ENV, low(10, 2), 0x3000);
    go(CODE("fninit"));
}

static void more_modes(void)
{
    struct cpu c;

    set_cr4(cr4() | CR4_OSXMMEXCPT);
    put((void *)(word)LOW_CODE, 0x3000, 4, MXCSR_INIT & ~(ZE << 7));
    put((void *)(word)LOW_CODE, 0x3004, 4, MXCSR_INIT);
    c = vm86(CODE16("ldmxcsr [0x3000]\n pcmpeqd xmm0, xmm0\n psrld xmm0, 25\n pslld xmm0, 23\n"
                    "xorps xmm1, xmm1\n 9: divss xmm0, xmm1"),
             3);
    run_fault("vm86.xm", "SDM Vol.3, #XM", &c, V_XM, NO_ERROR);
    c = real(CODE16("xorps xmm1, xmm1\n 9: divss xmm0, xmm1"));
    run_real(&c);
    check_event("real.xm", "SDM Vol.3, #XM", &c, V_XM, NO_ERROR, c.code.mark);
    c = real(CODE16("ldmxcsr [0x3004]"));
    run_real(&c);
    check_event("real.ldmxcsr", REAL, &c, V_DONE, NO_ERROR, c.code.end);
    c = real(CODE16("mov eax, cr0\n or al, 8\n mov cr0, eax\n 9: fninit"));
    run_real(&c);
    check_event("real.nm", "SDM Vol.3, #NM", &c, V_NM, NO_ERROR, c.code.mark);
    c = vm86(CODE16("paddd mm0, mm1"), 3);
    run_fault("vm86.nm", "SDM Vol.3, #NM", &c, V_NM, NO_ERROR);
    set_cr0(cr0() & ~CR0_TS);
    require(cpuid_bit(1, 0, 2, 26), "XSAVE is not offered");
    c = vm86(CODE16("xor ecx, ecx\n xor edx, edx\n mov eax, 3\n 9: xsetbv"), 3);
    run_fault("vm86.xsetbv", "SDM Vol.2, XSETBV", &c, V_GP, 0);
    c = vm86(CODE16("xor ecx, ecx\n xgetbv"), 3);
    run_done("vm86.xgetbv", "SDM Vol.2, XGETBV", &c);
    c = vm86(CODE16("xor edx, edx\n mov eax, 3\n xsave [0x4000]"), 3);
    run_done("vm86.xsave", "SDM Vol.2, XSAVE", &c);
    c = real(CODE16("xor ecx, ecx\n xor edx, edx\n mov eax, 3\n xsetbv\n xgetbv\n xsave [0x4000]"));
    run_real(&c);
    check_event("real.xsetbv", "SDM Vol.2, XSETBV", &c, V_DONE, NO_ERROR, c.code.end);
    c = real(CODE16("xsave [0x4020]"));
    run_real(&c);
    check_event("real.xsave-alignment", "SDM Vol.2, XSAVE", &c, V_GP, NO_ERROR, c.code.mark);
    require(cpuid_bit(13, 1, 0, 3), "XSAVES is not offered");
    c = vm86(CODE16("xsaves [0x4000]"), 3);
    run_fault("vm86.xsaves", "SDM Vol.2, XSAVES", &c, V_GP, 0);
    require_end();
}
#else
static void modes(void)
{
}

static void limits(void)
{
}

static void real_environments(void)
{
}

static void more_modes(void)
{
}
#endif

void test(void)
{
    set_cr0((cr0() & ~(CR0_TS | CR0_EM)) | CR0_MP | CR0_NE);
    set_cr4(cr4() | CR4_OSFXSR);
    combinations();
    put(data, MIDDLE + 8, 2, UNMASK(IE));
    more_of_ts();
    aliasing();
    mmx_faults();
    wide_state();
    modes();
    limits();
    real_environments();
    more_modes();
}
