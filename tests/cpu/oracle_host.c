/*
 * Cases on the host CPU: a child process whose signal handler stores the result of one case and
 * loads the state of the next, so that the kernel's sigreturn is the loader and INT3 the end. The
 * handler finds its data at a fixed address.
 */
#include <asm/ldt.h>
#include <asm/prctl.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/ucontext.h>
#include <sys/wait.h>
#include <unistd.h>

#include "oracle.h"

#define CONTROL 0x5a69b7c35000ull /* nowhere that arithmetic leads to */
#define LIMIT_US 900000           /* of the processor's time, for a child */
#define FX_USED 416u
#define XHDR 512u
#define YMM 576u

struct control {
    const struct oracle_case *cases;
    struct oracle_result *results;
    unsigned n, current;
    bool running, fsgsbase; /* fsgsbase: the kernel lets programs use RDFSBASE and the like */
    uint64_t fs_base;       /* the C library's */
};

struct oracle_host {
    unsigned batch;
    struct oracle_result *results;
};

static const int greg_of[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                REG_R12, REG_R13, REG_R14, REG_R15};

static struct control *control(void)
{
    return (struct control *)CONTROL;
}

static void *data_pages(void)
{
    return (void *)ORACLE_DATA;
}

static void *prog_pages(void)
{
    return (void *)ORACLE_PROG;
}

static void store(const ucontext_t *uc, struct oracle_result *r)
{
    const uint8_t *x = (const uint8_t *)uc->uc_mcontext.fpregs;
    uint64_t features;
    unsigned i;

    for (i = 0; i < 16; i++)
        r->out.gpr[i] = (uint64_t)uc->uc_mcontext.gregs[greg_of[i]];
    r->out.rip = (uint64_t)uc->uc_mcontext.gregs[REG_RIP];
    r->out.rflags = (uint64_t)uc->uc_mcontext.gregs[REG_EFL];
    r->vector = (uint32_t)uc->uc_mcontext.gregs[REG_TRAPNO];
    r->error = (uint32_t)uc->uc_mcontext.gregs[REG_ERR];
    r->cr2 = (uint64_t)uc->uc_mcontext.gregs[REG_CR2];
    memcpy(r->out.fx, x, FX_USED);
    memcpy(r->out.ymm, x + YMM, 256);
    memcpy(&features, x + XHDR, 8);
    if ((features & 1) == 0) { /* components in their initial state are not stored */
        memset(r->out.fx, 0, 24);
        memset(r->out.fx + 32, 0, 128);
        r->out.fx[0] = 0x7f;
        r->out.fx[1] = 3;
    }
    if ((features & 2) == 0)
        memset(r->out.fx + 160, 0, 256);
    if ((features & 4) == 0)
        memset(r->out.ymm, 0, 256);
    memcpy(r->data, data_pages(), ORACLE_DATA_SIZE);
    memcpy(r->prog, prog_pages(), ORACLE_PROG_SIZE);
}

static void load(ucontext_t *uc, const struct oracle_case *c)
{
    uint8_t *x = (uint8_t *)uc->uc_mcontext.fpregs, *data = data_pages();
    unsigned cs16 = c->program ? ORACLE_CSP16 : ORACLE_CS16;
    unsigned cs = c->small ? cs16 : c->compat ? ORACLE_CS32 : ORACLE_CS64;
    unsigned ds = c->small ? ORACLE_DS16 : ORACLE_SS, i;
    uint64_t features;

    for (i = 0; i < 16; i++)
        uc->uc_mcontext.gregs[greg_of[i]] = (greg_t)c->in.gpr[i];
    /* CS is the lowest word of this one, SS the highest */
    uc->uc_mcontext.gregs[REG_CSGSFS] &= 0x0000ffffffff0000ll;
    uc->uc_mcontext.gregs[REG_CSGSFS] |= (greg_t)(cs | (uint64_t)ds << 48);
    __asm__ volatile("mov %0, %%ds; mov %0, %%es" : : "r"(ds)); /* not part of the context */
    uc->uc_mcontext.gregs[REG_RIP] = (greg_t)c->in.rip;
    uc->uc_mcontext.gregs[REG_EFL] = (greg_t)c->in.rflags;
    memcpy(x, c->in.fx, 28); /* the mask of MXCSR bits stays */
    memcpy(x + 32, c->in.fx + 32, FX_USED - 32);
    memcpy(x + YMM, c->in.ymm, 256);
    memcpy(&features, x + XHDR, 8);
    features |= 7;
    memcpy(x + XHDR, &features, 8);
    memset(data, 0, ORACLE_DATA_SIZE);
    memcpy(data + ORACLE_WINDOW, c->window, ORACLE_WINDOW_SIZE);
    memcpy(prog_pages(), c->prog, ORACLE_PROG_SIZE);
}

/*
 * Neither the way into a handler nor sigreturn touches NT and ID, and AC would make the handler
 * fault; a case begins without them.
 */
static inline void clear_flags(void)
{
    __asm__ volatile("lea -128(%%rsp), %%rsp\n\t" /* the red zone */
                     "pushfq\n\t"
                     "andl %0, (%%rsp)\n\t"
                     "popfq\n\t"
                     "lea 128(%%rsp), %%rsp"
                     :
                     : "i"(~(int)(X86_FL_NT | X86_FL_ID | X86_FL_AC))
                     : "memory", "cc");
}

/* arch_prctl without the C library, which would use FS. */
static inline void arch_prctl_raw(int code, uint64_t arg)
{
    long result = SYS_arch_prctl;

    __asm__ volatile("syscall" : "+a"(result) : "D"(code), "S"(arg) : "rcx", "r11", "memory");
    if (result != 0)
        __builtin_trap();
}

static inline uint64_t read_fs(bool fsgsbase)
{
    uint64_t v;

    if (fsgsbase)
        __asm__ volatile("rdfsbase %0" : "=r"(v));
    else
        arch_prctl_raw(ARCH_GET_FS, (uint64_t)&v);
    return v;
}

static inline uint64_t read_gs(bool fsgsbase)
{
    uint64_t v;

    if (fsgsbase)
        __asm__ volatile("rdgsbase %0" : "=r"(v));
    else
        arch_prctl_raw(ARCH_GET_GS, (uint64_t)&v);
    return v;
}

static inline void write_fs(bool fsgsbase, uint64_t v)
{
    if (fsgsbase)
        __asm__ volatile("wrfsbase %0" : : "r"(v) : "memory");
    else
        arch_prctl_raw(ARCH_SET_FS, v);
}

static inline void write_gs(bool fsgsbase, uint64_t v)
{
    if (fsgsbase)
        __asm__ volatile("wrgsbase %0" : : "r"(v) : "memory");
    else
        arch_prctl_raw(ARCH_SET_GS, v);
}

/* Not even the stack protector may use FS before it is the C library's again. */
__attribute__((no_stack_protector)) static void on_signal(int sig, siginfo_t *info, void *context)
{
    struct control *k = control();
    uint64_t fs, gs;

    (void)info;
    clear_flags();
    fs = read_fs(k->fsgsbase);
    gs = read_gs(k->fsgsbase);
    write_fs(k->fsgsbase, k->fs_base);
    if (sig == SIGPROF) {
        k->results[k->current].vector = ORACLE_TIMEOUT;
        _exit(0);
    }
    if (k->running) {
        store(context, &k->results[k->current]);
        k->results[k->current].out.fs_base = fs;
        k->results[k->current].out.gs_base = gs;
        if (sig == SIGSYS)
            k->results[k->current].vector = ORACLE_SYSCALL;
        k->current++;
    }
    k->running = true;
    if (k->current == k->n)
        _exit(0);
    load(context, &k->cases[k->current]);
    write_gs(k->fsgsbase, k->cases[k->current].in.gs_base);
    write_fs(k->fsgsbase, k->cases[k->current].in.fs_base);
}

static void fail(const char *what)
{
    perror(what);
    exit(2);
}

static void map_at(uint64_t addr, size_t size, int prot, int flags)
{
    void *p = mmap((void *)addr, size, prot, MAP_ANONYMOUS | MAP_FIXED_NOREPLACE | flags, -1, 0);

    if (p != (void *)addr)
        fail("mmap");
}

static bool make_segment(unsigned entry, uint64_t base, unsigned contents)
{
    struct user_desc d = {.entry_number = entry, .base_addr = (unsigned)base, .limit = 0xffff};

    d.contents = contents & 3;
    return syscall(SYS_modify_ldt, 1, &d, sizeof(d)) == 0;
}

static bool make_segments(void)
{
    return make_segment(ORACLE_CS16 >> 3, ORACLE_CODE, MODIFY_LDT_CONTENTS_CODE) &&
           make_segment(ORACLE_CSP16 >> 3, ORACLE_DS16_BASE, MODIFY_LDT_CONTENTS_CODE) &&
           make_segment(ORACLE_DS16 >> 3, ORACLE_DS16_BASE, MODIFY_LDT_CONTENTS_DATA);
}

bool oracle_host_fsgsbase(void)
{
    return (getauxval(AT_HWCAP2) & 2) != 0;
}

/* Does a child survive a jump into a segment of code at ORACLE_CODE, and back? */
static bool can_run(unsigned cs, bool small)
{
    static const uint8_t code[] = {
        0x66, 0xea, 0x08, 0x00, 0x00, 0x10, ORACLE_CS64, 0x00, /* jmp ORACLE_CS64:ORACLE_CODE + 8 */
        0x31, 0xff,                                            /* xor edi, edi */
        0xb8, 0xe7, 0x00, 0x00, 0x00,                          /* mov eax, SYS_exit_group */
        0x0f, 0x05,                                            /* syscall */
    };
    int status = 0;
    pid_t pid;

    fflush(NULL);
    pid = fork();
    if (pid == 0) {
        map_at(ORACLE_CODE, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE);
        memcpy((void *)ORACLE_CODE, code, sizeof(code));
        if (small && !make_segments())
            _exit(1);
        __asm__ volatile("pushq %0\n\tpushq %1\n\tlretq"
                         :
                         : "r"((uint64_t)cs), "r"(small ? 0 : ORACLE_CODE + 1)
                         : "memory");
        _exit(1);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

unsigned oracle_host_bits(void)
{
    if (!can_run(ORACLE_CS32, false))
        return 64;
    return can_run(ORACLE_CS16, true) ? 16 : 32;
}

/*
 * A program that writes into itself, or one gone astray, may hold any instruction. From here on
 * only the signal handler's system calls are carried out; others come back as SIGSYS. A kernel
 * without filters does without.
 */
static void forbid_system_calls(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 6),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 5, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 4, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_arch_prctl, 0, 2),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, instruction_pointer) + 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1), /* of a case: those lie low */
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog prog = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &prog);
}

static _Noreturn void child(const struct oracle_case *c, struct oracle_result *results, unsigned n)
{
    static const int signals[] = {SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGPROF, SIGSYS};
    struct sigaction sa = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    stack_t stack = {.ss_size = 1 << 17};
    struct itimerval limit = {.it_value = {.tv_usec = LIMIT_US}};
    volatile uint8_t touch;
    unsigned i;

    map_at(CONTROL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_PRIVATE);
    map_at(ORACLE_DATA, ORACLE_DATA_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_POPULATE);
    map_at(ORACLE_DATA + ORACLE_DATA_SIZE, 4096, PROT_NONE, MAP_PRIVATE); /* as good as none */
    map_at(ORACLE_PROG, ORACLE_PROG_SIZE, PROT_READ | PROT_WRITE | PROT_EXEC,
           MAP_PRIVATE | MAP_POPULATE);
    map_at(ORACLE_RO, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_POPULATE);
    memset((void *)ORACLE_RO, 0, 4096);
    if (mprotect((void *)ORACLE_RO, 4096, PROT_READ) < 0 ||
        mprotect((void *)ORACLE_CODE, ORACLE_CODE_SIZE, PROT_READ | PROT_EXEC) < 0)
        fail("mprotect");
    for (i = 0; i < ORACLE_CODE_SIZE; i += 4096) /* absent pages would show in error codes */
        touch = *(volatile const uint8_t *)(ORACLE_CODE + i);
    (void)touch;
    make_segments();
    *control() = (struct control){.cases = c, .results = results, .n = n};
    control()->fsgsbase = oracle_host_fsgsbase();
    control()->fs_base = read_fs(control()->fsgsbase);
    stack.ss_sp = malloc(stack.ss_size);
    sigaltstack(&stack, NULL);
    for (i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
        sigaction(signals[i], &sa, NULL);
    setitimer(ITIMER_PROF, &limit, NULL);
    forbid_system_calls();
    __asm__ volatile("int3");
    _exit(3);
}

struct oracle_host *oracle_host_open(unsigned batch)
{
    struct oracle_host *h = malloc(sizeof(*h));

    if (h == NULL)
        fail("malloc");
    h->batch = batch;
    map_at(ORACLE_CODE, ORACLE_CODE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED);
    h->results = mmap(NULL, batch * sizeof(struct oracle_result), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (h->results == MAP_FAILED)
        fail("mmap");
    return h;
}

/* The cases from `from` on in one child; the number of the first that has no result then. */
static unsigned run_child(struct oracle_host *h, const struct oracle_case *c, unsigned from,
                          unsigned n)
{
    int status = 0;
    pid_t pid;

    fflush(NULL);
    pid = fork();
    if (pid == 0)
        child(c + from, h->results + from, n - from);
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        fail("fork");
    while (from < n && h->results[from].vector < ORACLE_FAILED)
        from++;
    if (from < n && h->results[from].vector != ORACLE_TIMEOUT)
        fprintf(stderr, "oracle: the child ended with status %#x\n", (unsigned)status);
    return from;
}

bool oracle_host_any_rsp(struct oracle_host *h)
{
    static struct oracle_case c; /* large for a stack */
    bool any;

    c.slot = c.addr = c.in.rip = ORACLE_CODE;
    c.in.rflags = 0x202;
    c.in.gpr[X86_RSP] = 1ull << 63;
    c.in.fx[0] = 0x7f;
    c.in.fx[1] = 3;
    any = oracle_host_run(h, &c, 1)->vector == X86_EXC_BP; /* a slot is full of INT3 */
    memset((void *)ORACLE_CODE, 0, ORACLE_SLOT);           /* cases that read it see zeros */
    return any;
}

struct oracle_result *oracle_host_run(struct oracle_host *h, const struct oracle_case *c,
                                      unsigned n)
{
    unsigned i;

    for (i = 0; i < n; i++) {
        h->results[i].vector = ORACLE_FAILED;
        if (c[i].program)
            continue;
        memset((void *)c[i].slot, 0xcc, ORACLE_SLOT);
        memcpy((void *)c[i].addr, c[i].code, c[i].len);
    }
    for (i = 0; i < n; i++)
        i = run_child(h, c, i, n);
    return h->results;
}
