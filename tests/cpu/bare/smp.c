/*
 * Two processors: INIT and STARTUP, what they leave alone, and memory that both use: locked
 * instructions wherever they lie, and instructions that the other one writes. Run with two vCPUs.
 */
#include "irqs.h"

#define STARTT "SDM Vol.3, MP initialization protocol"
#define INITT "SDM Vol.3, processor state following INIT"
#define LOCKT "SDM Vol.3, locked atomic operations"
#define CROSST "SDM Vol.3, cross-modifying code"

#define FIRST_PAGE 0x8000u
#define SECOND_PAGE 0x9000u
#define MSR_STAR 0xc0000081u
#define PARTS 4u /* what the second processor can be told to do */

/*
 * Where the second processor begins, copied to the page that STARTUP names: notes what it finds
 * there and goes the way of start64.S to ap_main.
 */
extern const uint8_t ap_begin[], ap_end[];
__asm__(".pushsection .text\n.intel_syntax noprefix\n.code16\n"
        "ap_begin:\n"
        "    cli\n"
        "    mov bx, cs\n"
        "    mov ds, bx\n"
        "    mov ecx, cr0\n"
        "    data32 lgdt [ap_gdtr - ap_begin]\n"
        "    mov eax, [ap_cr4 - ap_begin]\n"
        "    mov cr4, eax\n"
        "    mov eax, [ap_cr3 - ap_begin]\n"
        "    mov cr3, eax\n"
        "    mov esi, ecx\n"
        "    mov edi, edx\n"
        "    mov ecx, 0xc0000080\n"
        "    rdmsr\n"
        "    or eax, 0x100\n"
        "    wrmsr\n"
        "    mov eax, 0x80010021\n"
        "    mov cr0, eax\n"
        "    .byte 0x66, 0xea\n"
        "    .long ap_long\n"
        "    .word 8\n"
        ".balign 8\n"
        "ap_gdtr: .word 0xff\n    .long gdt\n"
        ".balign 8\n"
        "ap_cr3: .long 0\n"
        "ap_cr4: .long 0\n"
        "ap_end:\n"
        ".code64\n"
        "ap_long:\n"
        "    mov eax, 0x10\n"
        "    mov ss, eax\n"
        "    mov ds, eax\n"
        "    mov es, eax\n"
        "    lea rsp, [ap_stack + 8192]\n"
        "    mov ecx, esi\n" /* CR0 as it was */
        "    mov esi, ebx\n" /* CS */
        "    xchg ecx, edi\n"
        "    call ap_main\n"
        "1:  hlt\n    jmp 1b\n"
        ".att_syntax prefix\n.popsection\n");
extern uint8_t ap_cr3[], ap_cr4[];
extern uint8_t ap_stack[];
__attribute__((aligned(16))) uint8_t ap_stack[8192];
void ap_main(uint32_t cr0_was, uint32_t cs_was);

static volatile struct {
    uint32_t starts, cr0, cs, id, bsp;
    uint64_t star, alive;
    uint32_t part, done;
} ap;

/* What both work on. */
static __attribute__((aligned(4096))) uint8_t both[4 * 4096];
#define LINE (both + 64 - 3)
#define PAGE (both + 4096 - 3)
#define CODE_PAGE (both + 2 * 4096)
#define ON_CODE (CODE_PAGE + 64)
static volatile uint32_t written, reads;
static uint64_t wrong;

#define ROUNDS 100000u

static void lock_inc(void *p)
{
    __asm__ volatile("lock incq (%0)" : : "r"(p) : "memory", "cc");
}

static uint32_t call_code(void)
{
    uint32_t value;

    __asm__ volatile("call *%1" : "=a"(value) : "r"(CODE_PAGE + 3) : "memory", "cc");
    return value;
}

/* Counters over two lines, two pages, beside instructions that run, and a byte that is a lock. */
static void count(void)
{
    volatile uint8_t *byte = ON_CODE + 16;

    for (uint32_t i = 0; i < ROUNDS; i++) {
        uint8_t taken = 1;

        lock_inc(LINE);
        lock_inc(PAGE);
        lock_inc(ON_CODE);
        if (i % 16 == 0)
            (void)call_code();
        do
            __asm__ volatile("xchgb %0, %1" : "+q"(taken), "+m"(*byte) : : "memory");
        while (taken != 0);
        ++*(volatile uint64_t *)(void *)(ON_CODE + 8);
        *byte = 0; /* a plain store ends it */
    }
}

/* The number in the instruction is never older than the one that was told after it. */
static void read_code(void)
{
    for (uint32_t i = 0; i < ROUNDS; i++) {
        uint32_t before = written, out[4];

        cpuid(0, 0, out); /* serializes */
        wrong += (int32_t)(call_code() - before) < 0;
        reads++;
    }
}

void ap_main(uint32_t cr0_was, uint32_t cs_was)
{
    uint32_t out[4];

    ap.cr0 = cr0_was;
    ap.cs = cs_was;
    cpuid(1, 0, out);
    ap.id = out[1] >> 24;
    __asm__ volatile("rdmsr" : "=a"(out[0]), "=d"(out[3]) : "c"(0x1b));
    ap.bsp = out[0] >> 8 & 1;
    __asm__ volatile("rdmsr" : "=a"(out[0]), "=d"(out[3]) : "c"(MSR_STAR));
    ap.star = (uint64_t)out[3] << 32 | out[0];
    __asm__ volatile("wrmsr" : : "a"(0x12345678), "d"(0x9abcdef0u), "c"(MSR_STAR));
    ap.starts++;
    for (;;) {
        ap.alive++;
        if (ap.part == ap.done)
            continue;
        if (ap.part == 1)
            count();
        else if (ap.part == 2)
            read_code();
        ap.done = ap.part;
    }
}

/* ---- the first processor's side ---- */

static void trampoline(uintptr_t page)
{
    uint8_t *to = (uint8_t *)page;

    for (const uint8_t *p = ap_begin; p < ap_end; p++)
        *to++ = *p;
    *(volatile uint32_t *)(page + (uintptr_t)(ap_cr3 - ap_begin)) = (uint32_t)cr3();
    *(volatile uint32_t *)(page + (uintptr_t)(ap_cr4 - ap_begin)) = (uint32_t)cr4();
}

static bool becomes(volatile uint32_t *what, uint32_t want)
{
    for (uint64_t i = 0; i < 4000000000ull && *what != want; i++)
        __asm__ volatile("pause");
    return *what == want;
}

static void wait_a_little(void)
{
    for (volatile uint32_t i = 0; i < 2000000; i++)
        ;
}

static bool is_alive(void)
{
    uint64_t before = ap.alive;

    for (uint32_t i = 0; i < 200000000 && ap.alive == before; i++)
        __asm__ volatile("pause");
    return ap.alive != before;
}

/* It takes its INIT when its thread comes to run. */
static bool comes_to_rest(void)
{
    for (unsigned i = 0; i < 200; i++) {
        uint64_t before = ap.alive;

        delay(20000);
        if (ap.alive == before)
            return true;
    }
    return false;
}

static void starts(void)
{
    trampoline(FIRST_PAGE);
    trampoline(SECOND_PAGE);
    wait_a_little();
    check("start.waits", STARTT, ap.starts, 0);
    apic_send(0x4500, 1);
    apic_send(0x4600 | FIRST_PAGE >> 12, 1);
    check("start.first", STARTT, becomes(&ap.starts, 1), 1);
    check("start.cs", STARTT, ap.cs, FIRST_PAGE >> 4);
    check("start.cr0", INITT, ap.cr0, 0x60000010);
    check("start.id", STARTT, ap.id, 1);
    check("start.no-bsp", STARTT, ap.bsp, 0);
    check("start.star", INITT, ap.star, 0);
    apic_send(0x4600 | SECOND_PAGE >> 12, 1);
    wait_a_little();
    check("start.second-sipi", STARTT, ap.starts, 1);
    check("start.runs-on", STARTT, is_alive(), 1);
    apic_send(0x4500, 1);
    check("init.stops", STARTT, comes_to_rest(), 1);
    apic_send(0x4600 | SECOND_PAGE >> 12, 1);
    check("init.again", STARTT, becomes(&ap.starts, 2), 1);
    check("init.cs", STARTT, ap.cs, SECOND_PAGE >> 4);
    check("init.msr-stays", INITT, ap.star, 0x9abcdef012345678);
}

/* The other one does its part, too, and is waited for. */
static bool together(uint32_t part, void (*mine)(void))
{
    ap.part = part;
    mine();
    return becomes(&ap.done, part);
}

/* Until the other one has run the code so often that an engine has settled on it. */
static void let_it_read(uint32_t times)
{
    uint32_t begin = reads;

    while (reads - begin < times && ap.done != 2)
        __asm__ volatile("pause");
}

/*
 * One store, one locked instruction, and many stores in a row, without a jump at which an engine
 * would look around; each with the number told behind it.
 */
static void write_code(void)
{
    uint32_t number = written;

    for (uint32_t i = 0; ap.done != 2; i++) {
        let_it_read(i % 64);
        switch (i % 3) {
        case 0:
            number++;
            __asm__ volatile("movl %0, (%1)\n movl %0, %%ecx\n xchgl %%ecx, (%2)"
                             :
                             : "r"(number), "r"(CODE_PAGE + 4), "r"(&written)
                             : "ecx", "memory");
            break;
        case 1:
            number++;
            __asm__ volatile("lock incl (%0)\n lock incl (%1)"
                             :
                             : "r"(CODE_PAGE + 4), "r"(&written)
                             : "memory", "cc");
            break;
        default:
            __asm__ volatile("jmp 1f\n .p2align 12\n 1: .rept 330\n"
                             "incl %0\n"
                             "movl %0, (%1)\n"
                             "movl %0, %%ecx\n"
                             "xchgl %%ecx, (%2)\n"
                             ".endr"
                             : "+r"(number)
                             : "r"(CODE_PAGE + 4), "r"(&written)
                             : "ecx", "memory", "cc");
            break;
        }
    }
}

static uint64_t counter(const void *p)
{
    uint64_t v;

    __asm__("movq (%1), %0" : "=r"(v) : "r"(p), "m"(*(const uint64_t *)p));
    return v;
}

void test(void)
{
    static const uint8_t mov[] = {0xb8, 0, 0, 0, 0, 0xc3}; /* the number at a multiple of four */

    for (unsigned i = 0; i < sizeof(mov); i++)
        CODE_PAGE[3 + i] = mov[i];
    irqs_start();
    starts();
    check("lock.end", LOCKT, together(1, count), 1);
    check("lock.two-lines", LOCKT, counter(LINE), 2 * ROUNDS);
    check("lock.two-pages", LOCKT, counter(PAGE), 2 * ROUNDS);
    check("lock.beside-code", LOCKT, counter(ON_CODE), 2 * ROUNDS);
    check("lock.spin", LOCKT, counter(ON_CODE + 8), 2 * ROUNDS);
    check("cross.end", CROSST, together(2, write_code), 1);
    check("cross.never-older", CROSST, wrong, 0);
}
