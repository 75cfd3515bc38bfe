/*
 * Instructions of every kind whose memory operand is a device: where hardware runs the guest, it is
 * these that the hypervisor has to carry out itself. The device is the test device's window.
 */
#include "fpu.h"

#define MMIO "SDM Vol.3, memory-mapped I/O"
#define WINDOW ((uint8_t *)0xff000000u)

/* DI is the window, SI its middle, BX a page's end in it less four bytes; memory at BP. */
static struct cpu at_window(struct code code)
{
    struct cpu c = kernel(code);

    for (unsigned i = 0; i < 256; i++) {
        put(WINDOW, i, 1, i);
        put(WINDOW, 0x1f80 + i, 1, i);
        put(WINDOW, MIDDLE + i, 1, 0);
        put(data, i, 1, 0);
    }
    put(WINDOW, 0, 4, 0x03020100); /* once more by a plain access: the window is there */
    c.di = (word)WINDOW;
    c.si = (word)WINDOW + MIDDLE;
    c.bx = (word)WINDOW + 0x1ffc;
    c.bp = (word)data;
    c.ax = 0x1122334455667788;
    c.cx = 0x8877665544332211;
    c.dx = 0x5a;
    run(&c);
    return c;
}

/* After the fragment, what lies there. */
static void leaves(const char *name, struct code code, const void *base, unsigned offset,
                   unsigned size, uint64_t want)
{
    struct cpu c = at_window(code);

    check(name, MMIO, c.vector == V_DONE ? get(base, offset, size) : 0xbad0000 + c.vector, want);
}

static void gives_ax(const char *name, struct code code, uint64_t want)
{
    struct cpu c = at_window(code);

    check(name, MMIO, c.vector == V_DONE ? c.ax : 0xbad0000 + c.vector, want);
}

static void plain(void)
{
    gives_ax("plain.load8", CODE("mov al, [rdi + 5]"), 0x1122334455667705);
    gives_ax("plain.load16", CODE("mov ax, [rdi + 6]"), 0x1122334455660706);
    gives_ax("plain.load32", CODE("mov eax, [rdi + 8]"), 0x0b0a0908);
    gives_ax("plain.load64", CODE("mov rax, [rdi + 8]"), 0x0f0e0d0c0b0a0908);
    gives_ax("plain.odd", CODE("mov eax, [rdi + 9]"), 0x0c0b0a09);
    gives_ax("plain.sign", CODE("movsx rax, byte ptr [rdi + 0x85]"), 0xffffffffffffff85);
    gives_ax("plain.add", CODE("add al, [rdi + 1]"), 0x1122334455667789);
    gives_ax("plain.across-pages", CODE("mov rax, [rbx]"), 0x838281807f7e7d7c);
    leaves("plain.store-across", CODE("mov [rbx], rax"), WINDOW, 0x1ffc, 8, 0x1122334455667788);
    leaves("plain.immediate", CODE("mov dword ptr [rsi], 0x12345678"), WINDOW, MIDDLE, 4,
           0x12345678);
    leaves("plain.or", CODE("or dword ptr [rdi], 0x70"), WINDOW, 0, 4, 0x03020170);
    leaves("plain.not", CODE("not word ptr [rdi]"), WINDOW, 0, 2, 0xfeff);
    leaves("plain.shift", CODE("shl dword ptr [rdi + 4], 4"), WINDOW, 4, 4, 0x70605040);
    leaves("plain.push", CODE("push qword ptr [rdi + 8]\n pop [rbp]"), data, 0, 8,
           0x0f0e0d0c0b0a0908);
    leaves("plain.pop", CODE("push rax\n pop [rsi]"), WINDOW, MIDDLE, 8, 0x1122334455667788);
    leaves("plain.bts", CODE("bts dword ptr [rsi], 9"), WINDOW, MIDDLE, 4, 0x200);
    leaves("plain.setcc", CODE("cmp eax, eax\n sete [rdi + 3]"), WINDOW, 3, 1, 1);
    leaves("plain.cmov", CODE("cmp eax, eax\n cmove rax, [rdi + 8]\n mov [rbp], rax"), data, 0, 8,
           0x0f0e0d0c0b0a0908);
}

static void locked(void)
{
    leaves("locked.add", CODE("lock add dword ptr [rdi], 0x10"), WINDOW, 0, 4, 0x03020110);
    leaves("locked.inc", CODE("lock inc qword ptr [rdi]"), WINDOW, 0, 8, 0x0706050403020101);
    gives_ax("locked.xadd", CODE("lock xadd [rdi], rax"), 0x0706050403020100);
    leaves("locked.xadd-sum", CODE("lock xadd [rdi], eax"), WINDOW, 0, 4, 0x58687888);
    gives_ax("locked.xchg", CODE("xchg [rdi], eax"), 0x03020100);
    leaves("locked.cmpxchg", CODE("mov eax, 0x03020100\n lock cmpxchg [rdi], ecx"), WINDOW, 0, 4,
           0x44332211);
    gives_ax("locked.cmpxchg-not", CODE("lock cmpxchg [rdi], ecx"), 0x03020100);
    leaves("locked.cmpxchg8b",
           CODE("mov eax, 0x03020100\n mov edx, 0x07060504\n mov ebx, 0x11\n mov ecx, 0x22\n"
                "lock cmpxchg8b [rdi]"),
           WINDOW, 0, 8, 0x2200000011);
    leaves("locked.btc", CODE("lock btc dword ptr [rdi], 31"), WINDOW, 0, 4, 0x83020100);
}

static void strings(void)
{
    leaves("string.movsb-from", CODE("mov rsi, rdi\n mov rdi, rbp\n mov ecx, 9\n rep movsb"), data,
           1, 8, 0x0807060504030201);
    leaves("string.movsq-to",
           CODE("mov [rbp], rax\n mov rdi, rsi\n mov rsi, rbp\n mov ecx, 2\n rep movsq"), WINDOW,
           MIDDLE, 8, 0x1122334455667788);
    leaves("string.movsd-both", CODE("xchg rsi, rdi\n mov ecx, 4\n rep movsd"), WINDOW, MIDDLE + 8,
           8, 0x0f0e0d0c0b0a0908);
    leaves("string.stosw", CODE("mov ecx, 5\n rep stosw"), WINDOW, 4, 8, 0x0b0a778877887788);
    gives_ax("string.lodsq", CODE("mov rsi, rdi\n lodsq"), 0x0706050403020100);
    gives_ax("string.scasb", CODE("mov al, 0x30\n mov ecx, 0x100\n repne scasb\n mov eax, ecx"),
             0xcf);
    gives_ax("string.cmpsb", CODE("mov rsi, rbp\n mov ecx, 4\n repe cmpsb\n mov eax, ecx"),
             2); /* 0, then 1 */
    leaves("string.stos-across", CODE("mov rdi, rbx\n mov ecx, 2\n rep stosd"), WINDOW, 0x2000, 4,
           0x55667788);
}

static void vectors(void)
{
    leaves("sse.movups", CODE("movups xmm0, [rdi + 1]\n movups [rbp], xmm0"), data, 8, 8,
           0x100f0e0d0c0b0a09);
    leaves("sse.movaps-store", CODE("movups xmm1, [rdi + 16]\n movaps [rsi], xmm1"), WINDOW,
           MIDDLE + 8, 8, 0x1f1e1d1c1b1a1918);
    leaves("sse.movdqu-across", CODE("movdqu xmm2, [rbx]\n movups [rbp], xmm2"), data, 0, 8,
           0x838281807f7e7d7c);
    leaves("sse.movnti", CODE("movnti [rsi], rax"), WINDOW, MIDDLE, 8, 0x1122334455667788);
    leaves("sse.movq", CODE("movq xmm3, [rdi + 8]\n movq [rbp], xmm3"), data, 0, 8,
           0x0f0e0d0c0b0a0908);
    leaves("sse.movss", CODE("movss xmm4, [rdi + 4]\n movss [rsi], xmm4"), WINDOW, MIDDLE, 4,
           0x07060504);
    leaves("sse.paddb", CODE("pxor xmm5, xmm5\n paddb xmm5, [rdi + 16]\n movups [rbp], xmm5"), data,
           0, 8, 0x1716151413121110);
    leaves("sse.pshufd", CODE("pshufd xmm6, [rdi], 0x1b\n movups [rbp], xmm6"), data, 0, 8,
           0x0b0a09080f0e0d0c);
    leaves("sse.cvt",
           CODE("mov dword ptr [rsi], 7\n cvtsi2sd xmm7, dword ptr [rsi]\n"
                "movsd [rbp], xmm7"),
           data, 0, 8, 0x401c000000000000);
    leaves("mmx.movq", CODE("movq mm0, [rdi + 8]\n movq [rsi], mm0\n emms"), WINDOW, MIDDLE, 8,
           0x0f0e0d0c0b0a0908);
    leaves("mmx.por", CODE("pxor mm1, mm1\n por mm1, [rdi]\n movq [rbp], mm1\n emms"), data, 0, 8,
           0x0706050403020100);
    leaves("sse.fxsave-mxcsr", CODE("fxsave [rsi]"), WINDOW, MIDDLE + 24, 4, MXCSR_INIT);
}

static void x87(void)
{
    leaves("x87.fild", CODE("fninit\n fild dword ptr [rdi]\n fistp qword ptr [rbp]"), data, 0, 8,
           0x03020100);
    leaves("x87.fst", CODE("fninit\n fld1\n fstp qword ptr [rsi]"), WINDOW, MIDDLE, 8,
           0x3ff0000000000000);
    leaves("x87.fstp80", CODE("fninit\n fldpi\n fstp tbyte ptr [rsi]"), WINDOW, MIDDLE, 8,
           0xc90fdaa22168c235);
    leaves("x87.fadd",
           CODE("fninit\n mov dword ptr [rsi], 0x40000000\n fld1\n fadd dword ptr [rsi]\n"
                "fistp dword ptr [rbp]"),
           data, 0, 4, 3);
    leaves("x87.fnstcw", CODE("fninit\n fnstcw [rsi]"), WINDOW, MIDDLE, 2, FCW_INIT);
}

static void extensions(void)
{
    require(cpuid_bit(1, 0, 2, 22), "there is no MOVBE");
    gives_ax("movbe.load", CODE("movbe rax, [rdi]"), 0x0001020304050607);
    leaves("movbe.store", CODE("movbe [rsi], eax"), WINDOW, MIDDLE, 4, 0x88776655);
    require_end();
    require(cpuid_bit(7, 0, 1, 3) && cpuid_bit(7, 0, 1, 8), "there is no BMI");
    gives_ax("bmi.andn", CODE("mov eax, 0xff\n andn eax, eax, [rdi]"), 0x03020100);
    gives_ax("bmi.bextr", CODE("mov ecx, 0x0808\n bextr eax, [rdi], ecx"), 1);
    gives_ax("bmi.pext", CODE("mov eax, -1\n pext eax, eax, [rdi]"), 0xf); /* four bits of mask */
    gives_ax("bmi.rorx", CODE("rorx eax, [rdi], 8"), 0x00030201);
    gives_ax("bmi.shlx", CODE("mov ecx, 4\n shlx eax, [rdi], ecx"), 0x30201000);
    require_end();
    require(cpuid_bit(1, 0, 2, 23), "there is no POPCNT");
    gives_ax("popcnt", CODE("popcnt eax, [rdi + 4]"), 8);
    require_end();
    require(cpuid_bit(1, 0, 2, 20), "there is no SSE4.2");
    gives_ax("crc32", CODE("xor eax, eax\n crc32 eax, dword ptr [rsi]"), 0);
    require_end();
    require(cpuid_bit(1, 0, 2, 13), "there is no CMPXCHG16B");
    leaves("cmpxchg16b",
           CODE("mov rax, [rdi]\n mov rdx, [rdi + 8]\n mov rbx, rcx\n lock cmpxchg16b [rdi]"),
           WINDOW, 0, 8, 0x8877665544332211);
    require_end();
}

/* An exit to the hypervisor in between: does XCR0 stay what it was set to? */
static bool xcr0_stays(void)
{
    struct cpu c = kernel(CODE("xor ecx, ecx\n xor edx, edx\n mov eax, 7\n xsetbv\n in al, 0xe9\n"
                               "xor ecx, ecx\n xgetbv"));

    run(&c);
    return c.vector == V_DONE && (c.ax & 7) == 7;
}

static void avx(void)
{
    bool offered = cpuid_bit(1, 0, 2, 28) && cpuid_bit(7, 0, 1, 5);

    if (offered)
        set_cr4(cr4() | CR4_OSXSAVE);
    require(offered, "AVX and AVX2 are not offered");
    require(skipping() || xcr0_stays(), "XCR0 does not keep what XSETBV sets");
    leaves("avx.vmovups-256", CODE("vmovups ymm0, [rdi + 3]\n vmovups [rbp], ymm0\n vzeroupper"),
           data, 24, 8, 0x2221201f1e1d1c1b);
    leaves("avx.store-256", CODE("vmovups ymm1, [rdi]\n vmovups [rsi], ymm1\n vzeroupper"), WINDOW,
           MIDDLE + 16, 8, 0x1716151413121110);
    leaves("avx.across", CODE("vmovdqu ymm2, [rbx]\n vmovups [rbp], ymm2\n vzeroupper"), data, 0, 8,
           0x838281807f7e7d7c);
    leaves("avx.vpaddb",
           CODE("vpxor ymm3, ymm3, ymm3\n vpaddb ymm3, ymm3, [rdi + 32]\n"
                "vmovups [rbp], ymm3\n vzeroupper"),
           data, 8, 8, 0x2f2e2d2c2b2a2928);
    leaves("avx.broadcast", CODE("vbroadcastss ymm4, [rdi]\n vmovups [rbp], ymm4\n vzeroupper"),
           data, 28, 4, 0x03020100);
    require_end();
}

void test(void)
{
    set_cr0((cr0() & ~(CR0_TS | CR0_EM)) | CR0_MP | CR0_NE);
    set_cr4(cr4() | CR4_OSFXSR | CR4_OSXMMEXCPT);
    require(get(WINDOW, 0, 4) != 0xffffffff || (put(WINDOW, 0, 4, 1), get(WINDOW, 0, 4) == 1),
            "there is no test device");
    plain();
    locked();
    strings();
    vectors();
    x87();
    require_end();
    extensions();
    avx();
}
