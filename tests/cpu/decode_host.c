/*
 * Asks the host CPU: random instructions are put before an unmapped page and run. One byte short,
 * the fetch must fault at the page; whole, it must not; what the decoder calls invalid must raise
 * #UD. Only instructions that touch registers and memory at harmless addresses are tried. 64-bit
 * mode; skips (77) on other hosts.
 *
 *   decode_host [--strict 1] [--seed N] [--count N]
 *
 * Without --strict nothing is asked about invalid instructions: a newer CPU may know more.
 */
#include <inttypes.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "x86/decode.h"

#ifdef __x86_64__

#include <ucontext.h>

#define PAGE 4096u
#define CODE_AT 0x600000000000ull /* nothing else within reach of a RIP-relative operand */
#define DATA_AT 0x100000000000ull /* nothing there: what every register points to */
#define MAX_PRINTED 20u

enum outcome {
    FETCH,   /* the bytes ended inside the instruction */
    DONE,    /* it ran, and the fetch after it faulted */
    FAULT,   /* it began and faulted on its own: data, #GP, #DE */
    ILLEGAL, /* #UD */
    LOST,    /* it ran on: what follows was not the end */
};

/* Shared with the signal handler, which has no other way to get at it. */
static sigjmp_buf after;
static volatile enum outcome outcome;
static volatile uint64_t started __attribute__((used));

static void on_signal(int sig, siginfo_t *info, void *context)
{
    const ucontext_t *uc = context;
    uint64_t rip = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];

    if (sig == SIGALRM)
        outcome = LOST;
    else if (sig == SIGILL)
        outcome = ILLEGAL;
    else if (sig == SIGSEGV && (uint64_t)info->si_addr == CODE_AT + PAGE)
        outcome = rip == started ? FETCH : DONE;
    else
        outcome = FAULT;
    siglongjmp(after, 1);
}

/* Every register points nowhere, the stack pointer too; the only way back is a signal. */
__attribute__((noreturn)) static void run(void)
{
    __asm__ volatile("movabs %1, %%rax\n\t"
                     "mov %%rax, %%rcx\n\tmov %%rax, %%rdx\n\tmov %%rax, %%rbx\n\t"
                     "mov %%rax, %%rsp\n\tmov %%rax, %%rbp\n\tmov %%rax, %%rsi\n\t"
                     "mov %%rax, %%rdi\n\tmov %%rax, %%r8\n\tmov %%rax, %%r9\n\t"
                     "mov %%rax, %%r10\n\tmov %%rax, %%r11\n\tmov %%rax, %%r12\n\t"
                     "mov %%rax, %%r13\n\tmov %%rax, %%r14\n\tmov %%rax, %%r15\n\t"
                     "jmp *%0"
                     :
                     : "m"(started), "i"(DATA_AT)
                     : "memory");
    __builtin_unreachable();
}

static enum outcome try(uint8_t *page, const uint8_t *code, unsigned len)
{
    memcpy(page + PAGE - len, code, len);
    started = CODE_AT + PAGE - len;
    alarm(2);
    if (sigsetjmp(after, 1) == 0)
        run();
    alarm(0);
    __asm__ volatile("fninit; cld" ::: "memory"); /* the x87 stack may be MMX's by now */
    return outcome;
}

static bool harmless(const struct x86_insn *i)
{
    return (i->cls == X86_CLASS_VERBATIM || i->cls == X86_CLASS_MEMORY) && i->seg != X86_FS &&
           i->seg != X86_GS;
}

/*
 * Encodings on which vendors differ, and where we follow Intel's manual: AMD ignores EVEX.b where
 * nothing can be broadcast or rounded and the top bit of a mask register's number, and refuses the
 * register form of 0F 0D, which is a NOP for Intel.
 */
static bool vendors_differ(const struct x86_insn *i, bool valid)
{
    if ((i->prefixes & X86_PFX_LOCK) != 0 && i->map == X86_MAP_0F &&
        (i->opcode == 0x00 || i->opcode == 0x20 || i->opcode == 0x22))
        return true; /* AMD: CR8 by LOCK; VERW looks at its memory before LOCK */
    if (valid)
        return i->map == X86_MAP_0F && i->opcode == 0x0d && i->modrm >= 0xc0;
    if (i->enc == X86_ENC_LEGACY)
        return i->map == X86_MAP_0F && i->opcode == 0x01 && i->modrm == 0xc1; /* F2: hypercall */
    if (i->map == X86_MAP_0F3A && i->opcode <= 0x01)
        return true; /* VPERMQ with W clear */
    return i->enc == X86_ENC_EVEX ||
           (i->enc == X86_ENC_VEX &&
            (i->map == X86_MAP_0F ? (i->opcode >= 0x41 && i->opcode <= 0x4b) ||
                                        (i->opcode >= 0x90 && i->opcode <= 0x99)
                                  : i->opcode >= 0x30 && i->opcode <= 0x33)); /* in 0F 3A */
}

static uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state;

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    *state = x;
    return x * 0x2545f4914f6cdd1dull;
}

static void random_bytes(uint64_t *state, uint8_t code[16])
{
    static const uint8_t legacy[8] = {0x66, 0xf3, 0xf2, 0x67, 0xf0, 0x2e, 0x66, 0xf3};
    uint64_t r = next_random(state);
    unsigned n = 0;

    for (unsigned i = 0; i < 16; i += 8) {
        uint64_t v = next_random(state);

        memcpy(code + i, &v, 8);
    }
    if ((r & 7) < 3)
        code[n++] = legacy[r >> 8 & 7];
    if ((r & 0x30) == 0)
        code[n++] = 0x40 | (r >> 12 & 15);
    switch (r >> 16 & 7) {
    case 0:
    case 1:
        code[n++] = 0x0f;
        break;
    case 2:
        code[n++] = 0x0f;
        code[n++] = (r >> 20 & 1) != 0 ? 0x38 : 0x3a;
        break;
    case 3:
        code[0] = 0xc4;
        code[1] = (uint8_t)((code[1] & 0xe0) | (1 + (r >> 20) % 3));
        break;
    case 4:
        code[0] = 0x62;
        code[1] = (uint8_t)((code[1] & 0xf0) | (1 + (r >> 20) % 3));
        code[2] |= 4;
        break;
    default:
        break;
    }
}

static bool report(uint64_t *differences, const uint8_t *code, int len, const char *what)
{
    if (++*differences <= MAX_PRINTED) {
        printf("%s, ours %d:", what, len);
        for (int i = 0; i < 15; i++)
            printf("%s%02x", i == len ? " | " : " ", code[i]);
        printf("\n");
    }
    return false;
}

/* False if the host disagrees. */
static bool check(uint8_t *page, const uint8_t code[16], bool strict, uint64_t *tried,
                  uint64_t *differences)
{
    struct x86_insn insn;
    int len = x86_decode(code, 15, X86_MODE_64, &insn);
    enum outcome whole;

    if (vendors_differ(&insn, len > 0))
        return true;
    if (len < 0 && !strict)
        return true;
    if (len < 0) {
        ++*tried;
        whole = try(page, code, 15);
        /* Over 15 bytes is #GP, or a fetch beyond them. */
        if (len == X86_DECODE_INVALID ? whole != ILLEGAL : whole == DONE || whole == ILLEGAL)
            return report(differences, code, len, "the host runs it");
        return true;
    }
    if (!harmless(&insn))
        return true;
    ++*tried;
    whole = try(page, code, (unsigned)len);
    if (whole == ILLEGAL)
        /* A feature the host lacks, if it is one. */
        return insn.feature != X86_FEAT_BASE && insn.feature != X86_FEAT_X87 &&
                       insn.feature != X86_FEAT_SSE2
                   ? true
                   : report(differences, code, len, "the host refuses it");
    if (whole == LOST)
        return report(differences, code, len, "the host runs on");
    if (whole == FETCH)
        return report(differences, code, len, "the host wants more");
    if (len > 1 && try(page, code, (unsigned)len - 1) != FETCH)
        return report(differences, code, len, "the host wants less");
    return true;
}

static void catch_signals(void)
{
    static uint8_t stack[65536];
    const stack_t ss = {.ss_sp = stack, .ss_size = sizeof(stack)};
    struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};

    sigaltstack(&ss, NULL);
    sigaction(SIGSEGV, &sa, NULL);
    sigaction(SIGILL, &sa, NULL);
    sigaction(SIGBUS, &sa, NULL);
    sigaction(SIGFPE, &sa, NULL);
    sigaction(SIGTRAP, &sa, NULL);
    sigaction(SIGALRM, &sa, NULL);
}

int main(int argc, char **argv)
{
    uint64_t seed = 20240601, count = 100000, state, tried = 0, differences = 0;
    uint8_t code[16], *page;
    bool strict = false;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--seed") == 0)
            seed = strtoull(argv[i + 1], NULL, 0);
        else if (strcmp(argv[i], "--count") == 0)
            count = strtoull(argv[i + 1], NULL, 0);
        else if (strcmp(argv[i], "--strict") == 0)
            strict = strtoul(argv[i + 1], NULL, 0) != 0;
        else
            return 2;
    }
    page = mmap((void *)CODE_AT, 2 * PAGE, PROT_READ | PROT_WRITE | PROT_EXEC,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (page == MAP_FAILED || mprotect(page + PAGE, PAGE, PROT_NONE) != 0) {
        printf("no memory that can be written and run\n");
        return 77;
    }
    catch_signals();
    state = seed * 0x9e3779b97f4a7c15ull | 1;
    for (uint64_t i = 0; i < count; i++) {
        random_bytes(&state, code);
        check(page, code, strict, &tried, &differences);
    }
    printf("seed %" PRIu64 ": %" PRIu64 " cases, %" PRIu64 " tried, %" PRIu64 " differences\n",
           seed, count, tried, differences);
    return differences != 0;
}

#else

int main(void)
{
    printf("not an x86-64 host\n");
    return 77;
}

#endif
