/*
 * What CPUID says against what is there: leaves that must agree, XCR0 and XSAVE, time-stamp and
 * other instructions that a feature bit announces.
 */
#include "bare.h"

#define CPUID "SDM Vol.2, CPUID"
#define XCR "SDM Vol.2, XSETBV"
#define XSAVE "SDM Vol.2, XSAVE and XRSTOR"
#define TSC "SDM Vol.3, time-stamp counter"

static bool offered(unsigned leaf, unsigned reg, unsigned bit)
{
    return cpuid_bit(leaf, 0, reg, bit);
}

static void leaves(void)
{
    uint32_t a[4], b[4], c[4], max;
    struct cpu r = kernel(CODE("cpuid"));

    cpuid(0, 0, a);
    max = a[0];
    require(intel(), "only Intel says what lies beyond the last leaf");
    cpuid(max, 0, b);
    cpuid(max + 1, 0, c);
    /* data of the highest basic leaf, whichever; time may pass in none of those there are */
    check("cpuid.beyond-basic", CPUID, b[0] == c[0] && b[1] == c[1] && b[2] == c[2] && b[3] == c[3],
          1);
    require_end();
    r.ax = 0xffffffff00000000;
    r.cx = 0xffffffff00000000;
    r.bx = r.dx = ~0ul;
    run(&r);
    check("cpuid.upper-halves", CPUID, (r.ax | r.bx | r.cx | r.dx) >> 32, 0);
    check("cpuid.upper-input-ignored", CPUID, r.ax, max);
    r = user(UCODE("cpuid"));
    run_done("cpuid.user", CPUID, &r);
    r = kernel(CODE(".byte 0xf0, 0x0f, 0xa2"));
    run_fault("cpuid.lock", CPUID, &r, V_UD, NO_ERROR);
    check("cpuid.baseline", CPUID,
          offered(1, 3, 0) && offered(1, 3, 4) && offered(1, 3, 5) && offered(1, 3, 6) &&
              offered(1, 3, 8) && offered(1, 3, 15) && offered(1, 3, 24) && offered(1, 3, 25) &&
              offered(1, 3, 26),
          1);
    check("cpuid.long-mode", CPUID, offered(0x80000001, 3, 29), 1);
    check("cpuid.syscall-in-64-bit", CPUID, offered(0x80000001, 3, 11), 1);
    cpuid(0x80000000, 0, a);
    check("cpuid.extended-range", CPUID, a[0] >= 0x80000008 && a[0] < 0x80010000, 1);
    cpuid(0x80000008, 0, a);
    check("cpuid.physical-bits", CPUID, (a[0] & 0xff) >= 32 && (a[0] & 0xff) <= 52, 1);
    check("cpuid.linear-bits", CPUID, (a[0] >> 8 & 0xff), offered(7, 2, 16) ? 57 : 48);
    check("cpuid.avx-implies-xsave", CPUID, !offered(1, 2, 28) || offered(1, 2, 26), 1);
    check("cpuid.avx2-implies-avx", CPUID, !offered(7, 1, 5) || offered(1, 2, 28), 1);
    check("cpuid.fma-implies-avx", CPUID, !offered(1, 2, 12) || offered(1, 2, 28), 1);
    require(max >= 7, "there is no leaf 7");
    cpuid(7, 0, a);
    cpuid(7, a[0] + 1, b);
    check("cpuid.leaf7-beyond", CPUID, b[0] | b[1] | b[2] | b[3], 0);
    require_end();
    require(max >= 0xb, "there is no leaf 0xB");
    cpuid(0xb, 0, a);
    cpuid(0xb, 1, b);
    cpuid(0xb, 7, c);
    cpuid(1, 0, a);
    check("cpuid.topology-apic-id", CPUID, b[3] & 0xff, a[1] >> 24);
    check("cpuid.topology-same-id", CPUID, b[3], c[3]);
    check("cpuid.topology-echo", CPUID, (b[2] & 0xff) << 8 | (c[2] & 0xff), 1 << 8 | 7);
    check("cpuid.topology-beyond", CPUID, c[0] | c[1] | (c[2] & 0xff00), 0);
    require_end();
}

static void sizes(void)
{
    uint32_t a[4], b[4];
    word features;

    require(offered(1, 2, 26), "XSAVE is not offered");
    set_cr4(cr4() | CR4_OSXSAVE | CR4_OSFXSR);
    cpuid(0xd, 0, a);
    features = a[0];
    check("xsave.x87-and-sse-exist", CPUID, features & 3, 3);
    check("xsave.area-covers-all", CPUID, a[2] >= a[1] && a[1] >= 576, 1);
    check("xsave.area-at-start", CPUID, a[1], 576);
    require(features & 4, "AVX state is not offered");
    cpuid(0xd, 2, b);
    check("xsave.avx-size", CPUID, b[0], 256);
    check("xsave.avx-offset", CPUID, b[1], 576);
    check("xsave.avx-is-user-state", CPUID, b[2] & 1, 0);
    {
        struct cpu c = kernel(CODE("xsetbv"));

        c.ax = 7;
        run(&c);
        cpuid(0xd, 0, a);
        check("xsave.area-grows", CPUID, a[1], 832);
        c.ip = c.code.start;
        c.ax = 1;
        run(&c);
        cpuid(0xd, 0, a);
        check("xsave.area-shrinks", CPUID, a[1], 576);
    }
    require_end();
    require(offered(1, 2, 26), "XSAVE is not offered");
    cpuid(0xd, 63, b);
    check("xsave.component63-is-none", CPUID, b[0] | b[1] | b[2] | b[3], 0);
    set_cr4(cr4() & ~CR4_OSXSAVE);
    require_end();
}

static void xsetbv_case(const char *name, word cx, word dx, word ax)
{
    struct cpu c = kernel(CODE("xsetbv"));

    c.cx = cx;
    c.dx = dx;
    c.ax = ax;
    run_fault(name, XCR, &c, V_GP, 0);
}

static void xsetbv(void)
{
    uint32_t a[4];
    struct cpu c = kernel(CODE("xsetbv"));

    require(offered(1, 2, 26), "XSAVE is not offered");
    run_fault("xsetbv.osxsave-clear", XCR, &c, V_UD, NO_ERROR);
    set_cr4(cr4() | CR4_OSXSAVE | CR4_OSFXSR);
    c = user(UCODE("xsetbv"));
    c.ax = 1;
    run_fault("xsetbv.user", XCR, &c, V_GP, 0);
    xsetbv_case("xsetbv.ecx1", 1, 0, 1);
    xsetbv_case("xsetbv.x87-clear", 0, 0, 2);
    xsetbv_case("xsetbv.zero", 0, 0, 0);
    xsetbv_case("xsetbv.bit63", 0, 0x80000000, 3);
    cpuid(0xd, 0, a);
    require(a[0] & 4, "AVX state is not offered");
    xsetbv_case("xsetbv.avx-without-sse", 0, 0, 5);
    require_end();
    require(offered(1, 2, 26), "XSAVE is not offered");
    require(!(a[0] & 8), "MPX is offered");
    xsetbv_case("xsetbv.unoffered", 0, 0, 0x1b);
    require_end();
    require(offered(1, 2, 26), "XSAVE is not offered");
    c = kernel(CODE("mov eax, 3\n xsetbv\n mov rax, -1\n mov rdx, -1\n xgetbv"));
    run(&c);
    check("xgetbv.reads", "SDM Vol.2, XGETBV", c.vector == V_DONE ? c.ax : 0, 3);
    check("xgetbv.upper-halves", "SDM Vol.2, XGETBV", c.dx, 0);
    c = user(UCODE("xgetbv"));
    run_done("xgetbv.user", "SDM Vol.2, XGETBV", &c);
    c = kernel(CODE("xgetbv"));
    c.cx = 2;
    run_fault("xgetbv.ecx2", "SDM Vol.2, XGETBV", &c, V_GP, 0);
    c = kernel(CODE(".byte 0xf0, 0x0f, 0x01, 0xd0"));
    run_fault("xgetbv.lock", "SDM Vol.2, XGETBV", &c, V_UD, NO_ERROR);
    set_cr4(cr4() & ~CR4_OSXSAVE);
    require_end();
}

static uint8_t area[4096] __attribute__((aligned(64)));

static uint64_t area64(unsigned at)
{
    return *(volatile uint64_t *)(area + at);
}

static void area_fill(uint8_t value)
{
    for (unsigned i = 0; i < sizeof(area); i++)
        ((volatile uint8_t *)area)[i] = value;
}

static struct cpu with_area(struct code code, word ax, word offset)
{
    struct cpu c = kernel(code);

    c.ax = ax;
    c.di = (word)area + offset;
    run(&c);
    return c;
}

static void xsave(void)
{
    struct cpu c;
    uint32_t a[4];

    require(offered(1, 2, 26), "XSAVE is not offered");
    c = with_area(CODE("xsave [rdi]"), 3, 0);
    check_fault("xsave.osxsave-clear", XSAVE, &c, V_UD, NO_ERROR);
    set_cr4(cr4() | CR4_OSXSAVE | CR4_OSFXSR);
    c = with_area(CODE("xsave [rdi]"), 3, 16);
    check_fault("xsave.alignment", XSAVE, &c, V_GP, 0);
    c = with_area(CODE("xrstor [rdi]"), 3, 16);
    check_fault("xrstor.alignment", XSAVE, &c, V_GP, 0);
    set_cr0(cr0() | CR0_TS);
    c = with_area(CODE("xsave [rdi]"), 3, 0);
    check_fault("xsave.ts", XSAVE, &c, V_NM, NO_ERROR);
    set_cr0(cr0() & ~CR0_TS);
    c = kernel(CODE("mov eax, 3\n xor edx, edx\n xsetbv\n fninit\n pcmpeqb xmm3, xmm3"));
    run(&c);
    area_fill(0);
    c = with_area(CODE("xor edx, edx\n xsave [rdi]"), 3, 0);
    check_bits("xsave.bitmap-has-sse", XSAVE, c.vector == V_DONE ? area64(512) : 0, 2, 2);
    check("xsave.xmm3", XSAVE, area64(160 + 48), ~0ull);
    area_fill(0xee);
    c = with_area(CODE("xor edx, edx\n xsave [rdi]"), 1, 0);
    check("xsave.only-what-is-asked", XSAVE, area64(160 + 48), 0xeeeeeeeeeeeeeeee);
    check_bits("xsave.bitmap-keeps-others", XSAVE, area64(512), 0xeeeeeeeeeeeeeeee, ~1ull);
    area_fill(0);
    *(volatile uint32_t *)(area + 24) = 0x1f80;
    c = with_area(CODE("xor edx, edx\n xrstor [rdi]\n movq rcx, xmm3"), 2, 0);
    check("xrstor.initial-sse", XSAVE, c.vector == V_DONE ? c.cx : 1, 0);
    *(volatile uint64_t *)(area + 512) = 2;
    *(volatile uint64_t *)(area + 160 + 48) = 0x1234;
    c = with_area(CODE("xor edx, edx\n xrstor [rdi]\n movq rcx, xmm3"), 2, 0);
    check("xrstor.sse", XSAVE, c.vector == V_DONE ? c.cx : 0, 0x1234);
    *(volatile uint32_t *)(area + 24) = 0x80001f80;
    c = with_area(CODE("xor edx, edx\n 9: xrstor [rdi]"), 2, 0);
    check_fault("xrstor.mxcsr-reserved", XSAVE, &c, V_GP, 0);
    *(volatile uint32_t *)(area + 24) = 0x1f80;
    *(volatile uint64_t *)(area + 512) = 1ull << 62;
    c = with_area(CODE("xor edx, edx\n 9: xrstor [rdi]"), 2, 0);
    check_fault("xrstor.bitmap-reserved", XSAVE, &c, V_GP, 0);
    *(volatile uint64_t *)(area + 512) = 4; /* not in XCR0 now */
    c = with_area(CODE("xor edx, edx\n 9: xrstor [rdi]"), 2, 0);
    check_fault("xrstor.bitmap-beyond-xcr0", XSAVE, &c, V_GP, 0);
    *(volatile uint64_t *)(area + 512) = 2;
    *(volatile uint64_t *)(area + 520) = 1;
    c = with_area(CODE("xor edx, edx\n 9: xrstor [rdi]"), 2, 0);
    check_fault("xrstor.header-reserved", XSAVE, &c, V_GP, 0);
    *(volatile uint64_t *)(area + 520) = 0;
    *(volatile uint64_t *)(area + 528) = 1;
    c = with_area(CODE("xor edx, edx\n 9: xrstor [rdi]"), 2, 0);
    check_fault("xrstor.header-reserved-16", XSAVE, &c, V_GP, 0);
    cpuid(0xd, 0, a);
    require(a[0] & 4, "AVX state is not offered");
    c = kernel(CODE("vpxor xmm0, xmm0, xmm0"));
    run_fault("avx.xcr0-clear", "SDM Vol.2, AVX exceptions", &c, V_UD, NO_ERROR);
    c = kernel(CODE("mov eax, 7\n xor edx, edx\n xsetbv\n vpxor xmm0, xmm0, xmm0"));
    run_done("avx.xcr0-set", "SDM Vol.2, AVX exceptions", &c);
    set_cr0(cr0() | CR0_TS);
    c = kernel(CODE("vpxor xmm0, xmm0, xmm0"));
    run_fault("avx.ts", "SDM Vol.2, AVX exceptions", &c, V_NM, NO_ERROR);
    set_cr0(cr0() & ~CR0_TS);
    set_cr4(cr4() & ~CR4_OSXSAVE);
    c = kernel(CODE("vpxor xmm0, xmm0, xmm0"));
    run_fault("avx.osxsave-clear", "SDM Vol.2, AVX exceptions", &c, V_UD, NO_ERROR);
    require_end();
    set_cr4(cr4() & ~CR4_OSXSAVE);
}

static void clocks(void)
{
    struct cpu c = kernel(CODE("rdtsc\n shl rdx, 32\n or rax, rdx\n mov rbx, rax\n"
                               "rdtsc\n shl rdx, 32\n or rax, rdx\n cmp rax, rbx\n setae cl"));

    run(&c);
    check("tsc.monotonic", TSC, c.cx & 1, 1);
    c = kernel(CODE("mov rax, -1\n mov rdx, -1\n rdtsc"));
    run(&c);
    check("tsc.upper-halves", "SDM Vol.2, RDTSC", (c.ax | c.dx) >> 32, 0);
    require(offered(0x80000001, 3, 27), "RDTSCP is not offered");
    wrmsr(0xc0000103, 0x1234567);
    c = user(UCODE("mov rcx, -1\n rdtscp"));
    run(&c);
    check("rdtscp.aux", "SDM Vol.2, RDTSCP", c.vector == V_DONE ? c.cx : 0, 0x1234567);
    require_end();
    require(offered(7, 2, 22), "RDPID is not offered");
    c = user(UCODE("mov rax, -1\n .byte 0xf3, 0x0f, 0xc7, 0xf8"));
    run(&c);
    check("rdpid.aux", "SDM Vol.2, RDPID", c.vector == V_DONE ? c.ax : 0, 0x1234567);
    require_end();
    c = user(UCODE("rdpmc"));
    run_fault("rdpmc.user-pce-clear", "SDM Vol.2, RDPMC", &c, V_GP, 0);
    c = kernel(CODE("rdpmc"));
    c.cx = 0x3fffffff;
    run_fault("rdpmc.no-such-counter", "SDM Vol.2, RDPMC", &c, V_GP, 0);
}

/* RAX = RBX = a value, RDI = a buffer that holds it; afterwards RAX. */
static void computes(const char *name, const char *topic, struct code code, word ax, word want)
{
    struct cpu c = kernel(code);

    c.ax = c.bx = ax;
    c.di = (word)area;
    *(volatile word *)area = ax;
    run(&c);
    check(name, topic, c.vector == V_DONE ? c.ax : 0xbadbad, want);
}

static void instructions(void)
{
    struct cpu c;

    require(offered(1, 2, 22), "MOVBE is not offered");
    computes("movbe.load64", "SDM Vol.2, MOVBE", CODE("movbe rax, [rdi]"), 0x0102030405060708,
             0x0807060504030201);
    computes("movbe.load16", "SDM Vol.2, MOVBE", CODE("movbe ax, [rdi]"), 0x0102030405060708,
             0x0102030405060807);
    computes("movbe.store32", "SDM Vol.2, MOVBE", CODE("movbe [rdi], eax\n mov rax, [rdi]"),
             0x0102030405060708, 0x0102030408070605);
    c = kernel(CODE(".byte 0x0f, 0x38, 0xf0, 0xc0"));
    run_fault("movbe.register", "SDM Vol.2, MOVBE", &c, V_UD, NO_ERROR);
    require_end();
    require(offered(1, 2, 23), "POPCNT is not offered");
    computes("popcnt.64", "SDM Vol.2, POPCNT", CODE("popcnt rax, rbx"), 0xf0f0000000000001, 9);
    require_end();
    require(offered(1, 2, 20), "SSE4.2 is not offered");
    computes("crc32.byte", "SDM Vol.2, CRC32", CODE("xor eax, eax\n crc32 eax, bl"), 1, 0xf26b8303);
    require_end();
    require(offered(1, 2, 30), "RDRAND is not offered");
    c = kernel(CODE("mov rax, -1\n stc\n rdrand eax\n setc cl"));
    c.flags |= FL_OF | FL_ZF;
    run(&c);
    check("rdrand.32-zero-extends", "SDM Vol.2, RDRAND", c.ax >> 32, 0);
    check("rdrand.clears-flags", "SDM Vol.2, RDRAND", c.flags & (FL_OF | FL_ZF | FL_PF), 0);
    require_end();
    require(offered(1, 2, 13), "CMPXCHG16B is not offered");
    c = kernel(CODE("lock cmpxchg16b [rdi]\n setz r8b\n mov r9, [rdi]\n mov r10, [rdi + 8]"));
    *(volatile word *)area = 1;
    *(volatile word *)(area + 8) = 2;
    c.di = (word)area;
    c.ax = 1;
    c.dx = 2;
    c.bx = 3;
    c.cx = 4;
    run(&c);
    check("cmpxchg16b.equal", "SDM Vol.2, CMPXCHG16B", c.r8 << 8 | c.r9 << 4 | c.r10, 0x134);
    c.ip = c.code.start;
    run(&c);
    check("cmpxchg16b.unequal", "SDM Vol.2, CMPXCHG16B", (c.r8 & 1) << 8 | c.ax << 4 | c.dx, 0x034);
    require_end();
    require(offered(0x80000001, 2, 0), "LAHF is not offered in 64-bit mode");
    computes("lahf.64-bit", "SDM Vol.2, LAHF", CODE("mov ah, 0xff\n sahf\n lahf"), 0, 0xd700);
    require_end();
    computes("write32.zero-extends", "SDM Vol.1, general-purpose registers", CODE("mov eax, eax"),
             ~0ul, 0xffffffff);
    computes("write16.keeps-upper", "SDM Vol.1, general-purpose registers", CODE("mov ax, 0x1234"),
             ~0ul, 0xffffffffffff1234);
    computes("cmov.zero-extends-always", "SDM Vol.2, CMOVcc",
             CODE("xor ecx, ecx\n inc ecx\n cmovz eax, ecx"), ~0ul, 0xffffffff);
    computes("movsxd", "SDM Vol.2, MOVSXD", CODE("movsxd rax, ebx"), 0x80000000,
             0xffffffff80000000);
    computes("loop.address-size", "SDM Vol.2, LOOP",
             CODE("mov rcx, 0x500000001\n xor eax, eax\n 1: inc eax\n .byte 0x67\n loop 1b\n"
                  "shl rcx, 8\n or rax, rcx"),
             0, 1);
    computes("jrcxz.address-size", "SDM Vol.2, Jcc",
             CODE("mov rcx, 0x500000000\n xor eax, eax\n jecxz 1f\n inc eax\n 1: jrcxz 1f\n"
                  "add eax, 16\n 1:"),
             0, 16);
    computes("stos.address-size", "SDM Vol.2, STOS",
             CODE("mov r8, 0x700000000\n or rdi, r8\n mov rcx, 0x300000002\n .byte 0x67\n"
                  "rep stosb\n mov rax, rcx"),
             0x41, 0);
    computes("bsf.zero-sets-zf", "SDM Vol.2, BSF", CODE("xor ecx, ecx\n bsf rdx, rcx\n setz al"), 0,
             1);
    computes("shift.count-masked", "SDM Vol.2, SHL", CODE("mov cl, 64\n shl rax, cl"), 5, 5);
    computes("shift.count-32-masked", "SDM Vol.2, SHL", CODE("mov cl, 33\n shl eax, cl"), 5, 10);
    computes("bswap.64", "SDM Vol.2, BSWAP", CODE("bswap rax"), 0x0102030405060708,
             0x0807060504030201);
    computes("endbr64.is-nop", "SDM Vol.2, ENDBR64", CODE(".byte 0xf3, 0x0f, 0x1e, 0xfa"), 7, 7);
    computes("push.sign-extends", "SDM Vol.2, PUSH", CODE("push -2\n pop rax"), 0,
             0xfffffffffffffffe);
    computes("pop.rsp-based", "SDM Vol.2, POP",
             CODE("push 7\n push 9\n pop qword ptr [rsp]\n pop rax"), 0, 9);
    computes("push.rsp", "SDM Vol.2, PUSH",
             CODE("mov rcx, rsp\n push rsp\n pop rax\n sub rax, rcx"), 0, 0);
    computes("xlat", "SDM Vol.2, XLAT", CODE("mov rbx, rdi\n mov al, 1\n xlatb\n movzx eax, al"),
             0x4433, 0x44);
}

/* Where TZCNT and LZCNT are not offered, F3 in front of BSF and BSR means nothing. */
static void ignored_f3(void)
{
    const char *bits = "SDM Vol.2, TZCNT and LZCNT";

    require(!cpuid_bit(7, 0, 1, 3), "BMI1 is offered");
    computes("f3.bsf", bits, CODE("tzcnt eax, ebx"), 0x40, 6);
    require_end();
    require(!cpuid_bit(0x80000001u, 0, 2, 5), "LZCNT is offered");
    computes("f3.bsr", bits, CODE("lzcnt eax, ebx"), 0x40, 6);
    require_end();
}

void test(void)
{
    leaves();
    xsetbv();
    sizes();
    xsave();
    clocks();
    instructions();
    ignored_f3();
}
