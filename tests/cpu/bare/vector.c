/* AVX: upper halves, alignment, encodings that are #UD, masked elements, gathers that fault. */
#include "fpu.h"

#define VEX "SDM Vol.2, VEX prefix"
#define UPPER "SDM Vol.1, upper halves of YMM registers"
#define ALIGN "SDM Vol.2, exception classes of VEX instructions"
#define SSE_ALIGN "SDM Vol.2, exception classes of legacy SSE instructions"
#define MASKMOV "SDM Vol.2, VMASKMOV"
#define GATHER "SDM Vol.2, VGATHER"
#define NO_AVX "AVX is not offered"
#define NO_AVX2 "AVX2 is not offered"
#define XM "SDM Vol.1, SIMD floating-point exceptions"

/* YMM0 to YMM3 as of DI, 32 bytes each; and back to SI. */
#define LOAD4                                                                                      \
    "vmovups ymm0, [rdi]\n vmovups ymm1, [rdi + 32]\n vmovups ymm2, [rdi + 64]\n"                  \
    "vmovups ymm3, [rdi + 96]\n"
#define STORE4                                                                                     \
    "vmovups [rsi], ymm0\n vmovups [rsi + 32], ymm1\n vmovups [rsi + 64], ymm2\n"                  \
    "vmovups [rsi + 96], ymm3\n"

static void registers(void)
{
    for (unsigned i = 0; i < 4; i++) {
        fill(data, 32 * i, 16, 0x10 + i);
        fill(data, 32 * i + 16, 16, 0xe0 + i);
    }
}

/* After text, the upper half of YMM0 holds this byte. */
static void upper(const char *name, struct code code, unsigned byte)
{
    registers();
    go(code);
    check(name, UPPER, get(data, MIDDLE + 16, 8), byte * 0x0101010101010101ull);
}

static void halves(void)
{
    upper("upper.sse-move", CODE(LOAD4 "movaps xmm0, xmm1\n" STORE4), 0xe0);
    upper("upper.sse-add", CODE(LOAD4 "addps xmm0, xmm1\n" STORE4), 0xe0);
    upper("upper.sse-load", CODE(LOAD4 "movups xmm0, [rdi]\n" STORE4), 0xe0);
    upper("upper.sse-movd", CODE(LOAD4 "movd xmm0, eax\n" STORE4), 0xe0);
    upper("upper.sse-movss-load", CODE(LOAD4 "movss xmm0, [rdi]\n" STORE4), 0xe0);
    upper("upper.vex-move", CODE(LOAD4 "vmovaps xmm0, xmm1\n" STORE4), 0);
    upper("upper.vex-add", CODE(LOAD4 "vaddps xmm0, xmm1, xmm2\n" STORE4), 0);
    upper("upper.vex-load", CODE(LOAD4 "vmovups xmm0, [rdi]\n" STORE4), 0);
    upper("upper.vex-movd", CODE(LOAD4 "vmovd xmm0, eax\n" STORE4), 0);
    upper("upper.vex-scalar", CODE(LOAD4 "vaddss xmm0, xmm1, xmm2\n" STORE4), 0);
    upper("upper.vex-convert", CODE(LOAD4 "vcvtsi2sd xmm0, xmm1, eax\n" STORE4), 0);
    upper("upper.vex-insert", CODE(LOAD4 "vpinsrd xmm0, xmm1, eax, 1\n" STORE4), 0);
    upper("upper.vex-cvtpd2ps", CODE(LOAD4 "vcvtpd2ps xmm0, ymm1\n" STORE4), 0);
    upper("upper.vex-256", CODE(LOAD4 "vorps ymm0, ymm1, ymm1\n" STORE4), 0xe1);
    upper("upper.vzeroupper", CODE(LOAD4 "vzeroupper\n" STORE4), 0);
    check("upper.vzeroupper-keeps-low", UPPER, get(data, MIDDLE, 8), 0x1010101010101010);
    upper("upper.vzeroall", CODE(LOAD4 "vzeroall\n" STORE4), 0);
    check("upper.vzeroall-low", UPPER, get(data, MIDDLE, 8), 0);
    registers();
    go(CODE(LOAD4 "vmovups ymm9, ymm3\n vzeroupper\n vmovups [rsi], ymm9"));
    check("upper.vzeroupper-of-16", UPPER, get(data, MIDDLE + 16, 8), 0);
    check("upper.vzeroupper-of-16-low", UPPER, get(data, MIDDLE, 8), 0x1313131313131313);
    {
        struct cpu c = kernel(CODE32("vzeroall"));

        go(CODE("vmovups ymm9, [rdi + 96]\n vmovups ymm1, ymm9"));
        c.cs = S_CODE32;
        run(&c);
        go(CODE("vmovups [rsi], ymm9\n vmovups [rsi + 32], ymm1"));
        check("upper.vzeroall-compat", "SDM Vol.2, VZEROALL outside 64-bit mode",
              get(data, MIDDLE + 16, 8), 0xe3e3e3e3e3e3e3e3);
        check("upper.vzeroall-compat-low", "SDM Vol.2, VZEROALL outside 64-bit mode",
              get(data, MIDDLE + 32, 8), 0);
    }
}

static void aligned(void)
{
    struct cpu c;

    check_code("align.vmovaps-128", ALIGN, CODE("vmovaps xmm0, [rdi + 8]"), V_GP);
    check_code("align.vmovaps-256", ALIGN, CODE("vmovaps ymm0, [rdi + 16]"), V_GP);
    check_code("align.vmovaps-256-store", ALIGN, CODE("vmovaps [rdi + 16], ymm0"), V_GP);
    check_code("align.vmovaps-aligned", ALIGN, CODE("vmovaps ymm0, [rdi + 32]"), V_DONE);
    check_code("align.vmovdqa", ALIGN, CODE("vmovdqa ymm0, [rdi + 16]"), V_GP);
    check_code("align.vmovntps", ALIGN, CODE("vmovntps [rdi + 16], ymm0"), V_GP);
    check_code("align.vmovntdqa", ALIGN, CODE("vmovntdqa xmm0, [rdi + 8]"), V_GP);
    check_code("align.vaddps", ALIGN, CODE("vaddps ymm0, ymm0, [rdi + 1]"), V_DONE);
    check_code("align.vpaddd", ALIGN, CODE("vpaddd xmm0, xmm0, [rdi + 3]"), V_DONE);
    check_code("align.vmovups", ALIGN, CODE("vmovups ymm0, [rdi + 5]"), V_DONE);
    check_code("align.vpcmpistri", ALIGN, CODE("vpcmpistri xmm0, [rdi + 1], 0"), V_DONE);
    check_code("align.addps", SSE_ALIGN, CODE("addps xmm0, [rdi + 4]"), V_GP);
    check_code("align.paddd", SSE_ALIGN, CODE("paddd xmm0, [rdi + 8]"), V_GP);
    check_code("align.pshufd", SSE_ALIGN, CODE("pshufd xmm0, [rdi + 8], 0"), V_GP);
    check_code("align.cvtdq2ps", SSE_ALIGN, CODE("cvtdq2ps xmm0, [rdi + 8]"), V_GP);
    check_code("align.cvtdq2pd", SSE_ALIGN, CODE("cvtdq2pd xmm0, [rdi + 1]"), V_DONE);
    check_code("align.movntps", SSE_ALIGN, CODE("movntps [rdi + 8], xmm0"), V_GP);
    check_code("align.movlps", SSE_ALIGN, CODE("movlps xmm0, [rdi + 1]"), V_DONE);
    check_code("align.lddqu", SSE_ALIGN, CODE("lddqu xmm0, [rdi + 1]"), V_DONE);
    require(cpuid_bit(1, 0, 2, 25), "AES is not offered");
    check_code("align.aesenc", SSE_ALIGN, CODE("aesenc xmm0, [rdi + 8]"), V_GP);
    check_code("align.vaesenc", ALIGN, CODE("vaesenc xmm0, xmm0, [rdi + 8]"), V_DONE);
    require_end();
    check_code("align.mpsadbw", SSE_ALIGN, CODE("mpsadbw xmm0, [rdi + 8], 0"), V_GP);
    check_code("align.pmovzxbw", SSE_ALIGN, CODE("pmovzxbw xmm0, [rdi + 1]"), V_DONE);
    check_code("align.haddps", SSE_ALIGN, CODE("haddps xmm0, [rdi + 4]"), V_GP);
    check_code("align.pshufb", SSE_ALIGN, CODE("pshufb xmm0, [rdi + 4]"), V_GP);
    check_code("align.pshufb-mmx", SSE_ALIGN, CODE("pshufb mm0, [rdi + 1]\n emms"), V_DONE);
    check_code("align.unpcklps", SSE_ALIGN, CODE("unpcklps xmm0, [rdi + 8]"), V_GP);
    check_code("align.cvtps2pd", SSE_ALIGN, CODE("cvtps2pd xmm0, [rdi + 4]"), V_DONE);
    check_code("align.addss", SSE_ALIGN, CODE("addss xmm0, [rdi + 1]"), V_DONE);
    check_code("align.movshdup", SSE_ALIGN, CODE("movshdup xmm0, [rdi + 4]"), V_GP);
    check_code("align.movddup", SSE_ALIGN, CODE("movddup xmm0, [rdi + 4]"), V_DONE);
    check_code("align.maskmovdqu", SSE_ALIGN,
               CODE("pcmpeqb xmm1, xmm1\n inc rdi\n maskmovdqu xmm0, xmm1"), V_DONE);
    check_code("align.pcmpistri", SSE_ALIGN, CODE("pcmpistri xmm0, [rdi + 1], 0"), V_DONE);
    check_code("align.movhpd-store", SSE_ALIGN, CODE("movhpd [rdi + 1], xmm0"), V_DONE);
    check_code("align.non-canonical", ALIGN,
               CODE("mov rax, 0x8000000000000000\n 9: vmovups ymm0, [rax]"), V_GP);
    check_code("align.non-canonical-stack", "SDM Vol.3, #SS",
               CODE("mov rbp, 0x8000000000000000\n 9: vaddps ymm0, ymm0, [rbp]"), V_SS);
    set_cr0(cr0() | CR0_AM);
    c = user(UCODE("vmovaps ymm0, [rdi]"));
    c.di = (word)user_page[0] + 16;
    c.flags |= FL_AC;
    run_fault("align.vmovaps-user", ALIGN, &c, V_GP, 0);
    c = user(UCODE("vmovss xmm0, [rdi]"));
    c.di = (word)user_page[0] + 1;
    c.flags |= FL_AC;
    run_fault("align.vmovss-user", "SDM Vol.3, #AC", &c, V_AC, 0);
    set_cr0(cr0() & ~CR0_AM);
}

/* Bytes that follow one another in a test frame, for CPL 3. */
static struct cpu go_bytes(const uint8_t *bytes, unsigned len)
{
    struct cpu c = user(UCODE("jmp rax"));

    for (unsigned i = 0; i < 16; i++)
        put(test_frame[0], i, 1, i < len ? bytes[i] : (i - len) % 2 ? 0x80 : 0xcd);
    c.ax = TEST_VA;
    c.di = (word)user_page[0];
    run(&c);
    return c;
}

static const struct {
    const char *name;
    uint8_t len, at[10];
} encodings[] = {
    {"vex.lock", 5, {0xf0, 0xc5, 0xfc, 0x54, 0xc0}},
    {"vex.66", 5, {0x66, 0xc5, 0xfc, 0x54, 0xc0}},
    {"vex.f2", 5, {0xf2, 0xc5, 0xfc, 0x54, 0xc0}},
    {"vex.f3", 5, {0xf3, 0xc5, 0xfc, 0x54, 0xc0}},
    {"vex.rex", 5, {0x48, 0xc5, 0xfc, 0x54, 0xc0}},
    {"vex.rex-three-byte", 6, {0x40, 0xc4, 0xe1, 0x7c, 0x54, 0xc0}},
    {"vex.66-before-segment", 6, {0x66, 0x3e, 0xc5, 0xfc, 0x54, 0xc0}},
    {"vex.map0", 5, {0xc4, 0xe0, 0x7c, 0x54, 0xc0}},
    {"vex.map31", 5, {0xc4, 0xff, 0x7c, 0x54, 0xc0}},
    {"vex.vvvv-of-vmovups", 4, {0xc5, 0xf4, 0x10, 0xc0}},
    {"vex.vvvv-of-vsqrtps", 4, {0xc5, 0xf4, 0x51, 0xc0}},
    {"vex.vvvv-of-vcomiss", 4, {0xc5, 0xf0, 0x2f, 0xc0}},
    {"vex.vvvv-of-vmovd", 4, {0xc5, 0xf1, 0x6e, 0xc0}},
    {"vex.l-of-vmovd", 4, {0xc5, 0xfd, 0x6e, 0xc0}},
    {"vex.l-of-vmovhlps", 4, {0xc5, 0xfc, 0x12, 0xc0}},
    {"vex.l-of-vldmxcsr", 4, {0xc5, 0xfc, 0xae, 0x17}},
    {"vex.vvvv-of-vldmxcsr", 4, {0xc5, 0xf0, 0xae, 0x17}},
    {"vex.l0-of-vperm2f128", 6, {0xc4, 0xe3, 0x79, 0x06, 0xc0, 0}},
    {"vex.w1-of-vperm2f128", 6, {0xc4, 0xe3, 0xfd, 0x06, 0xc0, 0}},
    {"vex.l0-of-vbroadcastsd", 5, {0xc4, 0xe2, 0x79, 0x19, 0x07}},
    {"vex.vvvv-of-vzeroupper", 3, {0xc5, 0xf0, 0x77}},
    {"vex.l-of-vpextrw", 5, {0xc5, 0xfd, 0xc5, 0xc0, 0}},
    {"vex.l-of-vpcmpistri", 6, {0xc4, 0xe3, 0x7d, 0x63, 0xc0, 0}},
    {"vex.vmaskmov-register", 5, {0xc4, 0xe2, 0x79, 0x2c, 0xc0}},
    {"vex.w1-of-vmaskmovps", 5, {0xc4, 0xe2, 0xf9, 0x2c, 0x07}},
    {"vex.mmx-opcode", 3, {0xc5, 0xf8, 0x0e}},
    {"vex.vmovntps-register", 4, {0xc5, 0xf8, 0x2b, 0xc0}},
    {"sse.lock-addps", 4, {0xf0, 0x0f, 0x58, 0x07}},
    {"sse.lock-movaps-store", 4, {0xf0, 0x0f, 0x29, 0x07}},
    {"sse.movntps-register", 3, {0x0f, 0x2b, 0xc0}},
    {"sse.movnti-66", 4, {0x66, 0x0f, 0xc3, 0x07}},
    {"sse.ldmxcsr-f3-memory", 4, {0xf3, 0x0f, 0xae, 0x17}},
    {"sse.ldmxcsr-66", 4, {0x66, 0x0f, 0xae, 0x17}},
    {"sse.movmskps-memory", 3, {0x0f, 0x50, 0x07}},
    {"sse.pextrw-memory", 5, {0x66, 0x0f, 0xc5, 0x07, 0}},
    {"sse.maskmovdqu-memory", 4, {0x66, 0x0f, 0xf7, 0x07}},
    {"mmx.lock-paddd", 4, {0xf0, 0x0f, 0xfe, 0x07}},
    {"x87.lock-fadd", 3, {0xf0, 0xd8, 0x07}},
    {"x87.undefined-d9d1", 2, {0xd9, 0xd1}},
    {"x87.undefined-d9e2", 2, {0xd9, 0xe2}},
    {"x87.undefined-dae0", 2, {0xda, 0xe0}},
};

static void undefined(void)
{
    test_pages_reset();
    for (unsigned i = 0; i < sizeof(encodings) / sizeof(encodings[0]); i++) {
        struct cpu c = go_bytes(encodings[i].at, encodings[i].len);

        check_event(encodings[i].name, VEX, &c, V_UD, NO_ERROR, TEST_VA);
    }
    {
        static const uint8_t segment[] = {0x3e, 0x67, 0xc5, 0xfc, 0x10, 0x07};
        struct cpu c = go_bytes(segment, sizeof(segment));

        check_event("vex.segment-and-67", VEX, &c, V_DONE, NO_ERROR, TEST_VA + sizeof(segment) + 2);
    }
    {
        static const uint8_t evex[] = {0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc0};
        static const uint8_t now[] = {0x0f, 0x0f, 0xc0, 0x9e};
        static const uint8_t fma4[] = {0xc4, 0xe3, 0xf9, 0x69, 0xc0, 0};
        struct cpu c;

        require(!cpuid_bit(7, 0, 1, 16), "AVX-512 is offered");
        c = go_bytes(evex, sizeof(evex));
        check_event("evex.not-offered", "SDM Vol.2, EVEX prefix", &c, V_UD, NO_ERROR, TEST_VA);
        require_end();
        require(intel(), "AMD has 3DNow! and FMA4");
        c = go_bytes(now, sizeof(now));
        check_event("ud.3dnow", "SDM Vol.2, opcode map", &c, V_UD, NO_ERROR, TEST_VA);
        c = go_bytes(fma4, sizeof(fma4));
        check_event("ud.fma4", "SDM Vol.2, opcode map", &c, V_UD, NO_ERROR, TEST_VA);
        require_end();
    }
    require(cpuid_bit(7, 0, 1, 5), NO_AVX2);
    {
        static const uint8_t same[][6] = {
            {0xc4, 0xe2, 0x69, 0x92, 0x04, 0x0f}, /* vgatherdps xmm0, [rdi + xmm1], xmm2 */
            {0xc4, 0xe2, 0x69, 0x92, 0x14, 0x0f}, /* destination is the mask */
            {0xc4, 0xe2, 0x69, 0x92, 0x0c, 0x0f}, /* destination is the index */
            {0xc4, 0xe2, 0x71, 0x92, 0x04, 0x0f}, /* mask is the index */
        };
        static const uint8_t no_sib[] = {0xc4, 0xe2, 0x69, 0x92, 0x07};
        struct cpu c = user(UCODE("vpxor xmm1, xmm1, xmm1\n vpxor xmm2, xmm2, xmm2"));

        run(&c);
        c = go_bytes(same[0], 6);
        check_event("gather.distinct", GATHER, &c, V_DONE, NO_ERROR, TEST_VA + 8);
        c = go_bytes(same[1], 6);
        check_event("gather.same-mask", GATHER, &c, V_UD, NO_ERROR, TEST_VA);
        c = go_bytes(same[2], 6);
        check_event("gather.same-index", GATHER, &c, V_UD, NO_ERROR, TEST_VA);
        c = go_bytes(same[3], 6);
        check_event("gather.mask-is-index", GATHER, &c, V_UD, NO_ERROR, TEST_VA);
        c = go_bytes(no_sib, 5);
        check_event("gather.no-sib", GATHER, &c, V_UD, NO_ERROR, TEST_VA);
    }
    require_end();
}

/* The second page is missing; elements lie around its beginning. */
static struct cpu at_edge(struct code code, word offset)
{
    struct cpu c = kernel(code);

    c.di = TEST_VA + 4096 + offset;
    c.si = (word)data;
    run(&c);
    return c;
}

static void put_mask(uint32_t elements)
{
    for (unsigned i = 0; i < 8; i++)
        put(data, 4 * i, 4, elements >> i & 1 ? 0x80000000 : 0x7fffffff);
}

static void masked(void)
{
    struct cpu c;

    test_pages_reset();
    test_entry[1][1] = 0;
    flush_tlb();
    for (unsigned i = 0; i < 4; i++)
        put(test_frame[0], 4080 + 4 * i, 4, 0x1000 + i);
    put_mask(0x0f);
    c = at_edge(
        CODE("vmovups ymm1, [rsi]\n vmaskmovps ymm0, ymm1, [rdi]\n vmovups [rsi + 64], ymm0"),
        (word)-16);
    check_done("maskmov.load-masked", MASKMOV, &c);
    check("maskmov.load-value", MASKMOV, get(data, 64 + 12, 8), 0x1003);
    put_mask(0x1f);
    c = at_edge(CODE("vmovups ymm1, [rsi]\n vpcmpeqb xmm0, xmm0, xmm0\n"
                     "9: vmaskmovps ymm0, ymm1, [rdi]"),
                (word)-16);
    check_pf("maskmov.load-fault", MASKMOV, &c, 0, TEST_VA + 4096);
    go(CODE("vmovups [rdi + 64], ymm0"));
    check("maskmov.load-fault-keeps", MASKMOV, get(data, 64, 8), ~0ull);
    put_mask(0x10);
    c = at_edge(CODE("vmovups ymm1, [rsi]\n 9: vmaskmovps ymm0, ymm1, [rdi]"), (word)-16);
    check_pf("maskmov.load-only-fault", MASKMOV, &c, 0, TEST_VA + 4096);
    put_mask(0x00);
    c = at_edge(
        CODE("vmovups ymm1, [rsi]\n vmaskmovps ymm0, ymm1, [rdi]\n vmaskmovps [rdi], ymm1, ymm0"),
        0);
    check_done("maskmov.nothing", MASKMOV, &c);
    put_mask(0x05);
    fill(test_frame[0], 4080, 16, 0x11);
    c = at_edge(CODE("vmovups ymm1, [rsi]\n vpxor xmm0, xmm0, xmm0\n vmaskmovps [rdi], ymm1, ymm0"),
                (word)-16);
    check_done("maskmov.store-masked", MASKMOV, &c);
    check("maskmov.store-selected", MASKMOV, get(test_frame[0], 4080, 8), 0x1111111100000000);
    check("maskmov.store-third", MASKMOV, get(test_frame[0], 4088, 8), 0x1111111100000000);
    put_mask(0x21);
    c = at_edge(CODE("vmovups ymm1, [rsi]\n 9: vmaskmovps [rdi], ymm1, ymm0"), (word)-16);
    check_pf("maskmov.store-fault", MASKMOV, &c, 2, TEST_VA + 4096 + 4);
    c = at_edge(CODE("vmovups ymm1, [rsi]\n vmaskmovps ymm0, ymm1, [rdi + 1]"), (word)-96);
    check_done("maskmov.unaligned", "SDM Vol.2, VMASKMOV: any alignment", &c);
    fill(data, 128, 16, 0);
    put(data, 128 + 3, 1, 0x80);
    fill(test_frame[0], 4080, 16, 0x22);
    c = at_edge(CODE("movups xmm1, [rsi + 128]\n pcmpeqb xmm0, xmm0\n maskmovdqu xmm0, xmm1"),
                (word)-16);
    check_done("maskmovdqu.masked", "SDM Vol.2, MASKMOVDQU", &c);
    check("maskmovdqu.byte", "SDM Vol.2, MASKMOVDQU", get(test_frame[0], 4080, 8),
          0x22222222ff222222);
    put(data, 128 + 8, 1, 0x80);
    c = at_edge(CODE("movups xmm1, [rsi + 128]\n pcmpeqb xmm0, xmm0\n 9: maskmovdqu xmm0, xmm1"),
                (word)-8);
    check_pf("maskmovdqu.fault", "SDM Vol.2, MASKMOVDQU", &c, 2, TEST_VA + 4096);
    c = at_edge(
        CODE("fninit\n movq mm1, [rsi + 128]\n pcmpeqb mm0, mm0\n maskmovq mm0, mm1\n emms"),
        (word)-16);
    check_done("maskmovq.masked", "SDM Vol.2, MASKMOVQ", &c);
    c = at_edge(CODE("9: movups xmm0, [rdi]"), (word)-8);
    check_pf("movups.crossing", "SDM Vol.3, #PF", &c, 0, TEST_VA + 4096);
    c = at_edge(CODE("9: vmovups [rdi], ymm0"), (word)-31);
    check_pf("vmovups.crossing-store", "SDM Vol.3, #PF", &c, 2, TEST_VA + 4096);
    c = at_edge(CODE("9: movsd xmm0, [rdi]"), (word)-8);
    check_done("movsd.within", "SDM Vol.2, MOVSD: eight bytes", &c);
    c = at_edge(CODE("9: vpmovzxbd ymm0, [rdi]"), (word)-8);
    check_done("vpmovzx.within", "SDM Vol.2, PMOVZX: eight bytes", &c);
    c = at_edge(CODE("9: vbroadcastss ymm0, [rdi]"), (word)-4);
    check_done("vbroadcastss.within", "SDM Vol.2, VBROADCAST: four bytes", &c);
    c = at_edge(CODE("9: insertps xmm0, [rdi], 0x40"), (word)-4);
    check_done("insertps.within", "SDM Vol.2, INSERTPS: four bytes", &c);
}

/* Index I selects test_frame[0] + 4096 - 32 + 4 * I: eight and more are beyond the page. */
static void put_indices(const uint32_t index[8])
{
    for (unsigned i = 0; i < 8; i++) {
        put(data, 32 + 4 * i, 4, index[i]);
        put(test_frame[0], 4096 - 32 + 4 * i, 4, 0xa0 + i);
        put(data, 64 + 4 * i, 4, 0x5a5a5a5a);
    }
}

#define GATHER_LOAD "vmovups ymm2, [rsi]\n vmovups ymm1, [rsi + 32]\n vmovups ymm0, [rsi + 64]\n"
#define GATHER_STORE "vmovups [rsi + 96], ymm0\n vmovups [rsi + 128], ymm2\n"

static void gathers(void)
{
    static const uint32_t all[8] = {7, 6, 5, 4, 3, 2, 1, 0};
    static const uint32_t last_bad[8] = {7, 6, 5, 8, 3, 2, 1, 0};
    struct cpu c;

    require(cpuid_bit(7, 0, 1, 5), NO_AVX2);
    test_pages_reset();
    test_entry[1][1] = 0;
    flush_tlb();
    put_mask(0xff);
    put_indices(all);
    c = at_edge(CODE(GATHER_LOAD "vgatherdps ymm0, [rdi + ymm1 * 4], ymm2\n" GATHER_STORE),
                (word)-32);
    check_done("gather.all", GATHER, &c);
    check("gather.values", GATHER, get(data, 96, 8), 0xa6000000a7);
    check("gather.clears-mask", GATHER, filled(data, 128, 32, 0), true);
    put_mask(0xf7);
    put_indices(last_bad);
    c = at_edge(CODE(GATHER_LOAD "vgatherdps ymm0, [rdi + ymm1 * 4], ymm2\n" GATHER_STORE),
                (word)-32);
    check_done("gather.masked-off", GATHER, &c);
    check("gather.masked-off-keeps", GATHER, get(data, 96 + 12, 4), 0x5a5a5a5a);
    put_mask(0);
    c = at_edge(CODE(GATHER_LOAD "vgatherdps ymm0, [rdi + ymm1 * 4], ymm2"), 4096);
    check_done("gather.nothing", GATHER, &c);
    put_mask(0xff);
    c = at_edge(CODE(GATHER_LOAD "9: vgatherdps ymm0, [rdi + ymm1 * 4], ymm2"), (word)-32);
    check_pf("gather.fault", GATHER, &c, 0, TEST_VA + 4096);
    {
        struct cpu resumed = c;

        go(CODE("vmovups [rdi + 96], ymm0\n vmovups [rdi + 128], ymm2"));
        /* those to the right of the fault are done; it and those to its left may be, in any order
         */
        check("gather.fault-done", GATHER, get(data, 96, 4), 0xa7);
        check("gather.fault-done-last", GATHER, get(data, 96 + 8, 4), 0xa5);
        check("gather.fault-mask-cleared", GATHER,
              get(data, 128, 4) >> 31 | get(data, 136, 4) >> 31, 0);
        check("gather.fault-mask-kept", GATHER, get(data, 128 + 12, 4) >> 31, 1);
        check("gather.fault-element-kept", GATHER, get(data, 96 + 12, 4), 0x5a5a5a5a);
        test_pages_reset();
        put(test_frame[1], 0, 4, 0xb8);
        /* what is done is not read again */
        put(test_frame[0], 4096 - 4, 4, 0xdead);
        resumed.flags &= ~FL_RF;
        run(&resumed);
        check_done("gather.resumed", GATHER, &resumed);
        go(CODE("vmovups [rdi + 96], ymm0\n vmovups [rdi + 128], ymm2"));
        check("gather.resumed-values", GATHER, get(data, 96, 8), 0xa6000000a7);
        check("gather.resumed-element", GATHER, get(data, 96 + 12, 4), 0xb8);
        check("gather.resumed-mask", GATHER, filled(data, 128, 32, 0), true);
    }
    put_mask(0xff);
    put_indices(all);
    put(data, 32, 8, 6);
    put(data, 40, 8, (uint64_t)-4);
    put(test_frame[0], 4096 - 48, 8, 0x1234);
    c = at_edge(CODE(GATHER_LOAD "vpgatherqd xmm0, [rdi + xmm1 * 4], xmm2\n" GATHER_STORE),
                (word)-32);
    check("gather.qd-negative", GATHER, get(data, 96, 8), 0x1234000000a6);
    check("gather.qd-upper-zero", GATHER, filled(data, 104, 24, 0), true);
    check("gather.qd-mask-zero", GATHER, filled(data, 128, 32, 0), true);
    c = kernel(CODE(GATHER_LOAD "9: vgatherdps ymm0, [rdi + ymm1 * 4], ymm2"));
    c.si = (word)data;
    c.di = 0x8000000000000000;
    run_fault("gather.non-canonical", GATHER, &c, V_GP, 0);
    require_end();
}

static void exceptions(void)
{
    struct cpu c;

    registers();
    put(data, 128, 4, MXCSR_INIT & ~(ZE << 7));
    for (unsigned i = 0; i < 8; i++) {
        put(data, 32 + 4 * i, 4, 0x3f800000);
        put(data, 64 + 4 * i, 4, i == 7 ? 0 : 0x3f800000);
    }
    c = go(CODE(LOAD4 "vldmxcsr [rdi + 128]\n 9: vdivps ymm0, ymm1, ymm2"));
    check_fault("xm.upper-element", XM, &c, V_XM, NO_ERROR);
    go(CODE(STORE4 "vstmxcsr [rsi + 128]"));
    check("xm.upper-keeps", XM, get(data, MIDDLE + 16, 8), 0xe0e0e0e0e0e0e0e0);
    check("xm.upper-flags", XM, get(data, MIDDLE + 128, 4), (MXCSR_INIT & ~(ZE << 7)) | ZE);
    c = go(CODE("vdivps xmm0, xmm1, xmm2"));
    check_done("xm.lower-has-none", XM, &c);
    put(data, 128, 4, 0x10000);
    check_code("vldmxcsr.reserved", "SDM Vol.2, LDMXCSR", CODE("vldmxcsr [rdi + 128]"), V_GP);
    put(data, 128, 4, MXCSR_INIT);
    go(CODE("vldmxcsr [rdi + 128]"));
    require(cpuid_bit(1, 0, 2, 12), "FMA is not offered");
    put(data, 128, 4, MXCSR_INIT & ~(IE << 7));
    put(data, 32, 4, 0x7f800000); /* infinity times zero */
    put(data, 64, 4, 0);
    c = go(CODE("vldmxcsr [rdi + 128]\n" LOAD4 "9: vfmadd132ss xmm1, xmm0, xmm2"));
    check_fault("xm.fma", XM, &c, V_XM, NO_ERROR);
    go(CODE(STORE4));
    check("xm.fma-keeps", XM, get(data, MIDDLE + 32, 4), 0x7f800000);
    require_end();
    require(cpuid_bit(1, 0, 2, 29), "F16C is not offered");
    put(data, 128, 4, MXCSR_INIT & ~(OE << 7));
    put(data, 32, 4, 0x7f7fffff);
    fill(data, 256, 16, 0x5a);
    c = go(CODE("vldmxcsr [rdi + 128]\n" LOAD4 "9: vcvtps2ph [rdi + 256], xmm1, 4"));
    check_fault("xm.store", XM, &c, V_XM, NO_ERROR);
    check("xm.store-keeps-memory", XM, filled(data, 256, 16, 0x5a), true);
    require_end();
    put(data, 128, 4, MXCSR_INIT);
    go(CODE("ldmxcsr [rdi + 128]"));
}

void test(void)
{
    bool avx = cpuid_bit(1, 0, 2, 28);

    set_cr0((cr0() & ~(CR0_TS | CR0_EM)) | CR0_MP | CR0_NE);
    set_cr4(cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
    require(avx, NO_AVX);
    check("avx.needs-xsave", VEX, cpuid_bit(1, 0, 2, 26), true);
    if (skipping())
        return;
    set_cr4(cr4() | CR4_OSXSAVE);
    go(CODE("xor ecx, ecx\n xor edx, edx\n mov eax, 7\n xsetbv"));
    halves();
    aligned();
    undefined();
    masked();
    gathers();
    exceptions();
}
