/* Console, checks and registers, the same for images of both widths. */
#include <stdarg.h>

#include "lib.h"

struct cpu bare_cpu;

static struct {
    unsigned checks, failed, skipped;
    const char *skip; /* why, or NULL */
} count;

/* ---- console ---- */

void outb(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

uint8_t inb(uint16_t port)
{
    uint8_t value;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static void console_init(void)
{
    outb(0x3f9, 0);    /* no interrupts */
    outb(0x3fb, 0x80); /* divisor: 115200 baud */
    outb(0x3f8, 1);
    outb(0x3f9, 0);
    outb(0x3fb, 3); /* 8 bits, no parity */
    outb(0x3fa, 7); /* FIFOs on and empty */
}

static void put_char(char c)
{
    /* where there is no UART, bit 5 reads as one */
    for (unsigned i = 0; i < 1000000 && !(inb(0x3fd) & 0x20); i++)
        ;
    outb(0x3f8, (uint8_t)c);
}

static void put_number(uint64_t v, unsigned base, unsigned width)
{
    char digits[24];
    unsigned n = 0;

    if (base == 16) {
        do {
            digits[n++] = "0123456789abcdef"[v & 15];
            v >>= 4;
        } while (v != 0);
    } else { /* 32 bits: a 64-bit division would need a library */
        uint32_t d = (uint32_t)v;

        do {
            digits[n++] = (char)('0' + d % 10);
            d /= 10;
        } while (d != 0);
    }
    while (width > n && n < sizeof(digits))
        digits[n++] = '0';
    while (n > 0)
        put_char(digits[--n]);
}

void say(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    for (const char *p = format; *p != '\0'; p++) {
        unsigned width = 0, longs = 0;
        uint64_t v;

        if (*p != '%') {
            put_char(*p);
            continue;
        }
        for (p++; *p >= '0' && *p <= '9'; p++)
            width = width * 10 + (unsigned)(*p - '0');
        for (; *p == 'l'; p++)
            longs++;
        if (*p == 's') {
            for (const char *s = va_arg(args, const char *); *s != '\0'; s++)
                put_char(*s);
            continue;
        }
        v = longs == 0   ? va_arg(args, unsigned)
            : longs == 1 ? va_arg(args, unsigned long)
                         : va_arg(args, unsigned long long);
        if (*p == 'c')
            put_char((char)v);
        else
            put_number(v, *p == 'x' ? 16 : 10, width);
    }
    va_end(args);
}

static _Noreturn void end(unsigned code)
{
    outb(0xf4, (uint8_t)code);
    for (;;)
        __asm__ volatile("cli; hlt");
}

_Noreturn void give_up(const char *reason)
{
    say("FAIL %s\n%u checks, %u failed, %u skipped\n", reason, count.checks, count.failed + 1,
        count.skipped);
    end(1);
}

/* ---- checks ---- */

void require(bool offered, const char *reason)
{
    if (!offered && count.skip == NULL)
        count.skip = reason;
}

void require_end(void)
{
    count.skip = NULL;
}

bool skipping(void)
{
    return count.skip != NULL;
}

/* Counts a check and prints its line, but for what a failure expected and saw. */
static bool verdict(const char *name, const char *topic, bool ok)
{
    count.checks++;
    if (count.skip != NULL) {
        count.skipped++;
        say("skip %s (%s): %s\n", name, topic, count.skip);
        return true;
    }
    if (ok)
        say("ok   %s (%s)\n", name, topic);
    else
        count.failed++;
    return ok;
}

void check_bits(const char *name, const char *topic, uint64_t got, uint64_t want, uint64_t mask)
{
    got &= mask;
    want &= mask;
    if (!verdict(name, topic, got == want))
        say("FAIL %s (%s): expected 0x%llx, seen 0x%llx\n", name, topic, (unsigned long long)want,
            (unsigned long long)got);
}

void check(const char *name, const char *topic, uint64_t got, uint64_t want)
{
    check_bits(name, topic, got, want, ~0ull);
}

static void say_event(const struct cpu *c, word vector, bool has_error, word error, word ip)
{
    static const char *const names[] = {"#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM",
                                        "#DF", "9",   "#TS", "#NP", "#SS", "#GP", "#PF", "15",
                                        "#MF", "#AC", "#MC", "#XM", "#VE", "#CP"};

    if (vector == V_DONE)
        say("the end");
    else if (vector < sizeof(names) / sizeof(names[0]))
        say("%s", names[vector]);
    else
        say("vector 0x%lx", vector);
    if (has_error)
        say("(0x%lx)", error);
    say(" at 0x%lx", ip);
    if (ip >= c->code.start && ip <= c->code.end)
        say(" (+0x%lx)", ip - c->code.start);
}

void check_event(const char *name, const char *topic, const struct cpu *c, int vector,
                 int64_t error, word ip)
{
    bool coded = error != NO_ERROR;

    if (verdict(name, topic,
                c->vector == (word)vector && c->has_error == coded &&
                    (!coded || c->error == (word)error) && c->ip == ip))
        return;
    say("FAIL %s (%s): expected ", name, topic);
    say_event(c, (word)vector, coded, (word)error, ip);
    say(", seen ");
    say_event(c, c->vector, c->has_error, c->error, c->ip);
    say("\n");
}

void check_fault(const char *name, const char *topic, const struct cpu *c, int vector,
                 int64_t error)
{
    check_event(name, topic, c, vector, error, c->code.mark);
}

void check_done(const char *name, const char *topic, const struct cpu *c)
{
    check_event(name, topic, c, V_DONE, NO_ERROR, c->code.end);
}

void check_pf(const char *name, const char *topic, const struct cpu *c, uint32_t error, word cr2)
{
    check_pf_at(name, topic, c, error, cr2, c->code.mark);
}

void check_pf_at(const char *name, const char *topic, const struct cpu *c, uint32_t error, word cr2,
                 word ip)
{
    if (verdict(name, topic,
                c->vector == V_PF && c->error == error && c->ip == ip && c->cr2 == cr2))
        return;
    say("FAIL %s (%s): expected ", name, topic);
    say_event(c, V_PF, true, error, ip);
    say(" for 0x%lx, seen ", cr2);
    say_event(c, c->vector, c->has_error, c->error, c->ip);
    if (c->vector == V_PF)
        say(" for 0x%lx", c->cr2);
    say("\n");
}

const char *joined(const char *a, const char *b, const char *c)
{
    static char buffer[96];
    const char *parts[] = {a, b, c};
    unsigned n = 0;

    for (unsigned i = 0; i < 3; i++) {
        for (const char *p = parts[i]; *p != '\0' && n < sizeof(buffer) - 1; p++)
            buffer[n++] = *p;
    }
    buffer[n] = '\0';
    return buffer;
}

/* ---- fragments ---- */

void run(struct cpu *c)
{
    struct code code = c->code;

    if (skipping()) {
        c->vector = (word)V_NONE;
        return;
    }
    bare_cpu = *c;
    set_cr2(0x5a5a); /* so that one sees who writes it */
    bare_enter();
    *c = bare_cpu;
    c->code = code;
}

void run_fault(const char *name, const char *topic, struct cpu *c, int vector, int64_t error)
{
    run(c);
    check_fault(name, topic, c, vector, error);
}

void run_done(const char *name, const char *topic, struct cpu *c)
{
    run(c);
    check_done(name, topic, c);
}

struct cpu kernel(struct code code)
{
    return at_level(code, 0);
}

struct cpu user(struct code code)
{
    return at_level(code, 3);
}

/* The runtime's own instruction faulted: there is nothing sensible to go on with. */
_Noreturn void bare_unexpected(void)
{
    say("unexpected ");
    say_event(&bare_cpu, bare_cpu.vector, bare_cpu.has_error, bare_cpu.error, bare_cpu.ip);
    say(", CR2 0x%lx, code segment 0x%lx\n", bare_cpu.cr2, bare_cpu.cs);
    give_up("an exception outside of any fragment");
}

void bare_main(void)
{
    console_init();
    outb(0x21, 0xff); /* whatever firmware has left on: fragments may set IF */
    outb(0xa1, 0xff);
    bare_setup();
    test();
    require_end();
    say("%u checks, %u failed, %u skipped\n", count.checks, count.failed, count.skipped);
    end(count.failed != 0);
}

/* ---- accesses ---- */

#ifdef __x86_64__
#define DI_ "rdi"
#else
#define DI_ "edi"
#endif

void test_frames_return(void)
{
    for (unsigned i = 0; i < TEST_FRAMES; i++) {
        test_frame[i][0] = 0xcd;
        test_frame[i][1] = V_DONE;
    }
}

struct cpu access_memory(char kind, unsigned cpl, word va)
{
    struct code kernels = kind == 'r'   ? CODE("mov al, [" DI_ "]")
                          : kind == 'w' ? CODE("mov [" DI_ "], al")
                                        : CODE("jmp " DI_);
    struct code users = kind == 'r'   ? UCODE("mov al, [" DI_ "]")
                        : kind == 'w' ? UCODE("mov [" DI_ "], al")
                                      : UCODE("jmp " DI_);
    struct cpu c = at_level(cpl == 3 ? users : kernels, cpl);

    c.di = va;
    c.ax = 0xcd;
    run(&c);
    return c;
}

void expect_access(const char *name, const char *topic, char kind, unsigned cpl, word va,
                   uint32_t error)
{
    struct cpu c = access_memory(kind, cpl, va);

    if (error == NO_FAULT && kind == 'x')
        check_event(name, topic, &c, V_DONE, NO_ERROR, va + 2);
    else if (error == NO_FAULT)
        check_done(name, topic, &c);
    else if (kind == 'x')
        check_pf_at(name, topic, &c, error, va, va);
    else
        check_pf(name, topic, &c, error, va);
}

/* ---- registers ---- */

void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4])
{
    __asm__ volatile("cpuid"
                     : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3])
                     : "a"(leaf), "c"(subleaf));
}

bool cpuid_bit(uint32_t leaf, uint32_t subleaf, unsigned reg, unsigned bit)
{
    uint32_t r[4];

    cpuid(leaf & 0xf0000000, 0, r);
    if (leaf > r[0])
        return false;
    cpuid(leaf, subleaf, r);
    return (r[reg] >> bit) & 1;
}

bool intel(void)
{
    uint32_t r[4];

    cpuid(0, 0, r);
    return r[1] == 0x756e6547; /* "Genu" */
}

uint64_t rdmsr(uint32_t index)
{
    uint32_t low, high;

    if (skipping())
        return 0;
    __asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index));
    return (uint64_t)high << 32 | low;
}

void wrmsr(uint32_t index, uint64_t value)
{
    if (!skipping())
        __asm__ volatile("wrmsr"
                         :
                         : "c"(index), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)));
}

static __attribute__((noinline)) struct code rdmsr_code(void)
{
    return CODE("rdmsr");
}

static __attribute__((noinline)) struct code wrmsr_code(void)
{
    return CODE("wrmsr");
}

static bool gp0(const struct cpu *c)
{
    return c->vector == V_GP && c->error == 0 && c->ip == c->code.mark;
}

bool rdmsr_faults(uint32_t index)
{
    struct cpu c = kernel(rdmsr_code());

    c.cx = index;
    run(&c);
    return gp0(&c);
}

bool wrmsr_faults(uint32_t index, uint64_t value)
{
    struct cpu c = kernel(wrmsr_code());

    c.cx = index;
    c.ax = (uint32_t)value;
    c.dx = (uint32_t)(value >> 32);
    run(&c);
    return gp0(&c);
}

#define CONTROL(n)                                                                                 \
    word cr##n(void)                                                                               \
    {                                                                                              \
        word v;                                                                                    \
        __asm__ volatile("mov %%cr" #n ", %0" : "=r"(v));                                          \
        return v;                                                                                  \
    }                                                                                              \
    void set_cr##n(word v)                                                                         \
    {                                                                                              \
        if (!skipping())                                                                           \
            __asm__ volatile("mov %0, %%cr" #n : : "r"(v) : "memory");                             \
    }
CONTROL(0)
CONTROL(2)
CONTROL(3)
CONTROL(4)

word dr6(void)
{
    word v;

    __asm__ volatile("mov %%db6, %0" : "=r"(v));
    return v;
}

word dr7(void)
{
    word v;

    __asm__ volatile("mov %%db7, %0" : "=r"(v));
    return v;
}

void set_dr(unsigned n, word v)
{
    if (skipping())
        return;
    if (n == 0)
        __asm__ volatile("mov %0, %%db0" : : "r"(v));
    else if (n == 1)
        __asm__ volatile("mov %0, %%db1" : : "r"(v));
    else if (n == 2)
        __asm__ volatile("mov %0, %%db2" : : "r"(v));
    else if (n == 3)
        __asm__ volatile("mov %0, %%db3" : : "r"(v));
    else if (n == 6)
        __asm__ volatile("mov %0, %%db6" : : "r"(v));
    else
        __asm__ volatile("mov %0, %%db7" : : "r"(v));
}

uint64_t physical_mask(void)
{
    uint32_t r[4];

    cpuid(0x80000000, 0, r);
    if (r[0] < 0x80000008)
        return (1ull << 36) - 1;
    cpuid(0x80000008, 0, r);
    return (1ull << (r[0] & 0xff)) - 1;
}

void flush_tlb(void)
{
    word v = cr4();

    if (v & CR4_PGE) {
        set_cr4(v & ~CR4_PGE);
        set_cr4(v);
    } else {
        set_cr3(cr3());
    }
}

/* ---- descriptors ---- */

uint64_t gdt[GDT_ENTRIES] __attribute__((aligned(16)));
uint8_t tss[0x2100] __attribute__((aligned(4096)));
uint8_t idt[256 * 2 * sizeof(word)] __attribute__((aligned(4096)));
uint8_t test_frame[TEST_FRAMES][4096] __attribute__((aligned(4096)));

uint64_t descriptor(uint32_t base, uint32_t limit, unsigned access, unsigned flags)
{
    return (limit & 0xffff) | (uint64_t)(base & 0xffffff) << 16 | (uint64_t)access << 40 |
           (uint64_t)(limit >> 16 & 15) << 48 | (uint64_t)flags << 52 |
           (uint64_t)(base >> 24) << 56;
}

void gdt_set(unsigned selector, uint64_t value)
{
    *(volatile uint64_t *)&gdt[selector / 8] = value;
}

void idt_usual(unsigned vector, unsigned access, unsigned ist)
{
    idt_gate(vector, S_CODE, (word)bare_stubs + 16 * vector, access, ist);
}

void idt_reset(void)
{
    struct descriptor_table idtr = {sizeof(idt) - 1, (word)idt};

    for (unsigned v = 0; v < 256; v++)
        idt_usual(v, v == V_DONE ? GATE_INT | GATE_DPL3 : GATE_INT, 1);
    __asm__ volatile("lidt %0" : : "m"(idtr));
}

void bare_load_gdt(void)
{
    struct descriptor_table gdtr = {sizeof(gdt) - 1, (word)gdt};

    __asm__ volatile("lgdt %0\n\tltr %w1" : : "m"(gdtr), "r"(S_TSS));
}

void bare_copy(void *to, const void *from, size_t len)
{
    volatile uint8_t *d = to;
    const uint8_t *s = from;

    while (len-- > 0)
        *d++ = *s++;
}

/* The compiler may call these for structs. */
void *memcpy(void *restrict to, const void *restrict from, size_t len)
{
    void *d = to;

    __asm__ volatile("rep movsb" : "+D"(d), "+S"(from), "+c"(len) : : "memory");
    return to;
}

void *memset(void *to, int value, size_t len)
{
    void *d = to;

    __asm__ volatile("rep stosb" : "+D"(d), "+c"(len) : "a"(value) : "memory");
    return to;
}
