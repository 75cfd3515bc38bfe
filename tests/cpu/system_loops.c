/*
 * Short loops, of which translated code holds several turns, and accesses that share probes: every
 * way out, the carry from turn to turn, pages that follow each other in the guest and not in the
 * host, alignment. Every check runs with a budget and without: these are two translations.
 */
#include "system.h"

#include <stdio.h>
#include <stdlib.h>

#define A_FRAME 0x44000 /* of the second page at A_TEST; the first one's is above it */
#define PT_OF(va) (A_PT + 8 * ((va) >> 12))
#define END (A_TEST + 0x1000)

static const char *how; /* said in front of every check's name */

static bool counted;

static int run(struct machine *m)
{
    m->budget = counted ? 20000 : 0;
    return m_run(m);
}

static void expect_loop(const char *name, unsigned n, int at, uint64_t got, uint64_t want)
{
    char text[160];

    snprintf(text, sizeof(text), "%s%s, %u turns from %d", how, name, n, at);
    expect(text, got, want);
}

/*
 * 64-bit mode, the two pages at A_TEST in frames that do not follow each other, and code that
 * cannot write to itself.
 */
static void start(struct machine *m, const uint8_t *code, size_t len)
{
    m_long(m);
    m_put64(m, PT_OF(A_TEST), (A_FRAME + 0x2000) | PTE_P | PTE_W);
    m_put64(m, PT_OF(END), A_FRAME | PTE_P | PTE_W);
    m_put64(m, PT_OF(A_CODE), A_CODE | PTE_P);
    m->st.cr0 |= X86_CR0_WP;
    m_write(m, A_CODE, code, len);
    m->st.rip = A_CODE;
}

/* Where an address near the pages' border is in guest memory. */
static uint64_t frame_of(uint64_t va)
{
    return va < END ? va - A_TEST + A_FRAME + 0x2000 : va - END + A_FRAME;
}

static uint64_t word(unsigned i)
{
    return (i + 1) * 0x9E3779B97F4A7C15ull;
}

static void put_words(struct machine *m, uint64_t va, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        uint64_t w = word(i);

        for (unsigned k = 0; k < 8; k++) {
            uint8_t b = (uint8_t)(w >> (8 * k));

            m_write(m, frame_of(va + 8 * i + k), &b, 1);
        }
    }
}

static uint64_t get_word(struct machine *m, uint64_t va)
{
    uint64_t w = 0;

    for (unsigned k = 8; k-- > 0;)
        w = w << 8 | (m_get64(m, frame_of(va + k)) & 0xff);
    return w;
}

/* The carry goes from turn to turn; the sums are stored beside what they are of. */
CODE(loop_carry, 64,
     "xor %eax, %eax\n"
     "1: adc (%rsi), %rax\n"
     "mov %rax, (%rdi)\n"
     "lea 8(%rsi), %rsi\n"
     "lea 8(%rdi), %rdi\n"
     "dec %ecx\n"
     "jnz 1b\n"
     "setc %dl\n" DONE);
/* The same through a base and an index, each in registers with a home and without. */
CODE(loop_index, 64,
     "sub %rsi, %rdi\n"
     "mov %rdi, %r9\n"
     "mov %rsi, %r10\n"
     "xor %r8d, %r8d\n"
     "xor %eax, %eax\n"
     "1: adc (%r10,%r8,8), %rax\n"
     "mov %rax, (%r10,%r9)\n"
     "mov (%r10,%r9), %rdx\n"
     "lea 8(%r9), %r9\n"
     "lea 1(%r8), %r8\n"
     "dec %ecx\n"
     "jnz 1b\n"
     "setc %dl\n" DONE);
/* The same without memory. */
CODE(loop_registers, 64,
     "mov $3, %edx\n"
     "ror $1, %rdx\n"
     "xor %eax, %eax\n"
     "1: adc %rdx, %rax\n"
     "lea 1(%rdx,%rdx,2), %rdx\n"
     "dec %ecx\n"
     "jnz 1b\n"
     "setc %dl\n" DONE);
/* It ends in the middle as well: at a zero, which comes first. */
CODE(loop_middle, 64,
     "xor %eax, %eax\n"
     "1: mov (%rsi), %rdx\n"
     "test %rdx, %rdx\n"
     "jz 2f\n"
     "add %rdx, %rax\n"
     "add $8, %rsi\n"
     "dec %ecx\n"
     "jnz 1b\n"
     "2:\n" DONE);

static void check_carry(struct machine *m, const char *name, const uint8_t *code, size_t len,
                        unsigned n, int at)
{
    uint64_t from = END + (uint64_t)(int64_t)at, to = from + 0x200, sum = 0;
    unsigned carry = 0;

    start(m, code, len);
    put_words(m, from, n);
    m->st.gpr[X86_RSI] = from;
    m->st.gpr[X86_RDI] = to;
    m->st.gpr[X86_RCX] = n;
    m->st.gpr[X86_RDX] = 0;
    expect_loop(name, n, at, (uint64_t)run(m), 0x80);
    for (unsigned i = 0; i < n; i++) {
        uint64_t w = word(i), old = sum;

        sum = old + w + carry;
        carry = sum < old || (carry && sum == old);
        expect_loop(name, n, at, get_word(m, to + 8 * i), sum);
    }
    expect_loop(name, n, at, m->st.gpr[X86_RAX], sum);
    expect_loop(name, n, at, m->st.gpr[X86_RDX] & 0xff, carry);
}

static void check_registers(struct machine *m, unsigned n)
{
    uint64_t sum = 0, value = 1ull << 63 | 1;
    unsigned carry = 0;

    start(m, loop_registers, (size_t)(loop_registers_end - loop_registers));
    m->st.gpr[X86_RCX] = n;
    run(m);
    for (unsigned i = 0; i < n; i++) {
        uint64_t old = sum;

        sum = old + value + carry;
        carry = sum < old || (carry && sum == old);
        value = 3 * value + 1;
    }
    expect_loop("a sum of registers", n, 0, m->st.gpr[X86_RAX], sum);
    expect_loop("its carry", n, 0, m->st.gpr[X86_RDX] & 0xff, carry);
}

/* The same base and index, which is another number at the second access. */
CODE(index_changes, 64,
     "mov (%rsi), %rdx\n"
     "mov (%rsi,%rcx,8), %rax\n"
     "imul $300, %rcx, %rcx\n"
     "add (%rsi,%rcx,8), %rax\n" DONE);

static void check_index(struct machine *m)
{
    uint64_t far = word(9);

    start(m, index_changes, (size_t)(index_changes_end - index_changes));
    put_words(m, A_TEST + 0x800, 4);
    m_write(m, frame_of(A_TEST + 0x800 + 8ull * 600), &far, 8);
    m->st.gpr[X86_RSI] = A_TEST + 0x800;
    m->st.gpr[X86_RCX] = 2;
    run(m);
    expect_loop("an index that changes", 0, 0, m->st.gpr[X86_RAX], word(2) + word(9));
}

static void check_middle(struct machine *m, unsigned n, unsigned zero, int at)
{
    uint64_t from = END + (uint64_t)(int64_t)at, sum = 0, none = 0;

    start(m, loop_middle, (size_t)(loop_middle_end - loop_middle));
    put_words(m, from, n);
    if (zero < n)
        m_write(m, frame_of(from + 8 * zero), &none, 8);
    m->st.gpr[X86_RSI] = from;
    m->st.gpr[X86_RCX] = n;
    expect_loop("a loop with two ends", n, at, (uint64_t)run(m), 0x80);
    for (unsigned i = 0; i < n && i < zero; i++)
        sum += word(i);
    expect_loop("a loop with two ends", n, at, m->st.gpr[X86_RAX], sum);
    expect_loop("a loop with two ends: what is left", n, at, m->st.gpr[X86_RCX],
                zero < n ? n - zero : 0);
}

/* ---- accesses that end in the next page ---- */

CODE(cross_load, 64,
     "mov (%rbx), %al\nmov 8(%rbx), %al\n1: mov (%rbx), %rax\ndec %ecx\njnz 1b\n" DONE);
CODE(cross_vector, 64,
     "movzbl (%rbx), %eax\n"
     "movzbl 16(%rbx), %eax\n"
     "movd %ecx, %xmm3\n"
     "1: movdqu (%rbx), %xmm1\n"
     "paddq %xmm3, %xmm3\n"
     "dec %ecx\n"
     "jnz 1b\n"
     "movdqu %xmm1, (%rdi)\n"
     "movdqu %xmm3, 16(%rdi)\n" DONE);
CODE(cross_store, 64,
     "mov %al, (%rbx)\n"
     "mov %al, 8(%rbx)\n"
     "1: mov %rsi, (%rbx)\n"
     "add %rdx, %rsi\n"
     "dec %ecx\n"
     "jnz 1b\n" DONE);

static void vectors_on(struct machine *m)
{
    static const uint32_t masked = 0x1f80;

    m->st.cr0 = (m->st.cr0 | X86_CR0_MP) & ~(uint64_t)(X86_CR0_EM | X86_CR0_TS);
    m->st.cr4 |= X86_CR4_OSFXSR;
    memcpy(m->st.xsave + 24, &masked, sizeof(masked)); /* MXCSR */
}

static void check_crossing(struct machine *m)
{
    for (int at = -15; at < 0; at++) {
        uint64_t va = END + (uint64_t)(int64_t)at;

        start(m, cross_load, (size_t)(cross_load_end - cross_load));
        put_words(m, va, 2);
        m->st.gpr[X86_RBX] = va;
        m->st.gpr[X86_RCX] = 5;
        run(m);
        expect_loop("loads over two pages", 5, at, m->st.gpr[X86_RAX], word(0));
        start(m, cross_vector, (size_t)(cross_vector_end - cross_vector));
        put_words(m, va, 2);
        vectors_on(m);
        m->st.gpr[X86_RBX] = va;
        m->st.gpr[X86_RDI] = A_DATA;
        m->st.gpr[X86_RCX] = 5;
        run(m);
        expect_loop("vectors over two pages", 5, at, m_get64(m, A_DATA), word(0));
        expect_loop("vectors over two pages", 5, at, m_get64(m, A_DATA + 8), word(1));
        expect_loop("vectors that stay meanwhile", 5, at, m_get64(m, A_DATA + 16), 5 << 5);
        start(m, cross_store, (size_t)(cross_store_end - cross_store));
        m->st.gpr[X86_RBX] = va;
        m->st.gpr[X86_RCX] = 5;
        m->st.gpr[X86_RSI] = word(3);
        m->st.gpr[X86_RDX] = word(4);
        run(m);
        expect_loop("stores over two pages", 5, at, get_word(m, va), word(3) + 4 * word(4));
    }
}

/* ---- alignment ---- */

/* Each of them may be the one that is not aligned: EDX says how far they came. */
CODE(loop_aligned, 64,
     "mov %al, (%rdi)\njmp 1f\n" /* the page is known */
     "1: mov $1, %edx\n"
     "movups (%rsi), %xmm0\n"
     "mov $2, %edx\n"
     "movaps %xmm0, 0x10(%rdi)\n"
     "mov $3, %edx\n"
     "movaps 0x20(%rdi), %xmm1\n"
     "mov $4, %edx\n"
     "movaps 8(%rdi), %xmm2\n"
     "mov $5, %edx\n"
     "add $0x10, %rdi\n"
     "dec %ecx\n"
     "jnz 1b\n" DONE);

static void check_aligned(struct machine *m)
{
    for (unsigned off = 0; off < 16; off++) {
        start(m, loop_aligned, (size_t)(loop_aligned_end - loop_aligned));
        vectors_on(m);
        m->st.gpr[X86_RSI] = m->st.gpr[X86_RDI] = A_TEST + 0x100 + off;
        m->st.gpr[X86_RCX] = 8;
        expect_loop("an aligned access that is not", 8, (int)off, (uint64_t)run(m), X86_EXC_GP);
        expect_loop("which one", 8, (int)off, m->st.gpr[X86_RDX], off == 0 ? 4 : 2);
    }
}

void test_loops(struct machine *m)
{
    static const int places[] = {-0x400, -0x20c, -8, -7, -20, -32, -60, 0x40};

    for (unsigned i = 0; i < 2; i++) {
        counted = i != 0;
        how = counted ? "with a budget: " : "";
        for (unsigned n = 1; n < 12; n++) {
            check_registers(m, n);
            for (unsigned k = 0; k < countof(places); k++) {
                check_carry(m, "a sum with carry", loop_carry,
                            (size_t)(loop_carry_end - loop_carry), n, places[k]);
                check_carry(m, "the same by indices", loop_index,
                            (size_t)(loop_index_end - loop_index), n, places[k]);
                check_middle(m, n, n * 7 % 11, places[k] & ~7);
            }
        }
        check_index(m);
        check_crossing(m);
        check_aligned(m);
    }
}
