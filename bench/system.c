/* Programs that are mostly the kernel's work. */
#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "xbench.h"

#define PAGE 4096u
#define MIB 1048576u

/* ---- a system call that does nothing ---- */

uint64_t syscall_round(void)
{
    long parent = getppid();
    uint64_t same = 0;

    for (unsigned i = 0; i < 10000; i++)
        same += syscall(SYS_getppid) == parent;
    return same;
}

/* ---- fork, exec, wait ---- */

static char *exec_argv[3];

void exec_setup(void)
{
    static char word[] = "true";

    /* argv[0] may be a name found in PATH; this link is it without a search */
    exec_argv[0] = realpath("/proc/self/exe", NULL);
    if (exec_argv[0] == NULL)
        exec_argv[0] = realpath(self_path, NULL);
    need(exec_argv[0] != NULL, "the path of this program");
    exec_argv[1] = word;
}

uint64_t exec_round(void)
{
    static char *no_environment[] = {NULL};
    uint64_t good = 0;

    for (unsigned i = 0; i < 4; i++) {
        pid_t pid = fork();
        int status = -1;

        need(pid >= 0, "fork");
        if (pid == 0) {
            execve(exec_argv[0], exec_argv, no_environment);
            _exit(127);
        }
        need(waitpid(pid, &status, 0) == pid, "waitpid");
        good += WIFEXITED(status) && WEXITSTATUS(status) == 0;
    }
    return good;
}

/* ---- two processes on one CPU ---- */

/* On one CPU, as the guest has it: across two the host would measure how cores wake each other. */
static void one_cpu(void)
{
    cpu_set_t set;
    int cpu = sched_getcpu();

    CPU_ZERO(&set);
    CPU_SET(cpu < 0 ? 0 : (unsigned)cpu, &set);
    need(sched_setaffinity(0, sizeof(set), &set) == 0, "sched_setaffinity");
}

/* A child that ends with its parent; 0 in it. */
static pid_t partner(void)
{
    pid_t pid;

    one_cpu();
    pid = fork();
    need(pid >= 0, "fork");
    if (pid == 0)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    return pid;
}

static int ping[2], pong[2];

void pipe_setup(void)
{
    need(pipe(ping) == 0 && pipe(pong) == 0, "pipe");
    if (partner() == 0) {
        uint32_t x;

        close(ping[1]); /* so that the read sees the end when the parent goes */
        while (read(ping[0], &x, sizeof(x)) == sizeof(x)) {
            x = x * 3 + 1;
            if (write(pong[1], &x, sizeof(x)) != sizeof(x))
                break;
        }
        _exit(0);
    }
}

uint64_t pipe_round(void)
{
    uint32_t x = 1;

    for (unsigned i = 0; i < 500; i++) {
        need(write(ping[1], &x, sizeof(x)) == sizeof(x), "write to a pipe");
        need(read(pong[0], &x, sizeof(x)) == sizeof(x), "read from a pipe");
    }
    return x;
}

static struct turns {
    uint32_t turn; /* 0: the parent's */
    uint32_t value;
} * turns;

static void wait_turn(uint32_t mine)
{
    uint32_t other = 1 - mine;

    while (__atomic_load_n(&turns->turn, __ATOMIC_ACQUIRE) != mine)
        syscall(SYS_futex, &turns->turn, FUTEX_WAIT, other, NULL, NULL, 0);
}

static void pass_turn(uint32_t other)
{
    __atomic_store_n(&turns->turn, other, __ATOMIC_RELEASE);
    syscall(SYS_futex, &turns->turn, FUTEX_WAKE, 1, NULL, NULL, 0);
}

void switch_setup(void)
{
    turns = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    need(turns != MAP_FAILED, "mmap");
    if (partner() == 0) {
        for (;;) {
            wait_turn(1);
            turns->value = turns->value * 5 + 1;
            pass_turn(0);
        }
    }
}

uint64_t switch_round(void)
{
    turns->value = 1;
    for (unsigned i = 0; i < 500; i++) {
        pass_turn(1);
        wait_turn(0);
    }
    return turns->value;
}

/* ---- page faults: 256 MiB are touched, page by page, 16 MiB in each round ---- */

#define FAULT_BYTES (256u * MIB)
#define FAULT_ROUND (16u * MIB)

static char *fault_memory;
static size_t fault_next;

void fault_setup(void)
{
    fault_memory = mmap(NULL, FAULT_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    need(fault_memory != MAP_FAILED, "mmap");
    /* Huge pages would be 128 faults; a kernel without them fails this, which is as well. */
    madvise(fault_memory, FAULT_BYTES, MADV_NOHUGEPAGE);
}

uint64_t fault_round(void)
{
    uint64_t sum = 0;

    if (fault_next == FAULT_BYTES) {
        need(madvise(fault_memory, FAULT_BYTES, MADV_DONTNEED) == 0, "madvise");
        fault_next = 0;
    }
    for (size_t i = 0; i < FAULT_ROUND; i += PAGE) {
        volatile char *p = fault_memory + fault_next + i;

        sum += 1 + (uint64_t)p[8]; /* a fresh page is zero */
        p[8] = 1;
    }
    fault_next += FAULT_ROUND;
    return sum;
}

/* ---- mmap, a touch, munmap ---- */

uint64_t mmap_round(void)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < 200; i++) {
        size_t size = (1 + i % 8) * PAGE * 2;
        volatile char *p =
            mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        need(p != MAP_FAILED, "mmap");
        for (size_t at = 0; at < size; at += PAGE) {
            sum += 1 + (uint64_t)p[at];
            p[at] = 1;
        }
        need(munmap((void *)(uintptr_t)p, size) == 0, "munmap");
    }
    return sum;
}

/* ---- signals ---- */

static volatile sig_atomic_t signals;

static void count_signal(int signal)
{
    (void)signal;
    signals++;
}

void signal_setup(void)
{
    struct sigaction action = {.sa_handler = count_signal};

    need(sigaction(SIGUSR1, &action, NULL) == 0, "sigaction");
}

uint64_t signal_round(void)
{
    long pid = getpid();

    signals = 0;
    /* raise() would add two calls that block and unblock all signals */
    for (unsigned i = 0; i < 2000; i++)
        need(syscall(SYS_tgkill, pid, pid, SIGUSR1) == 0, "tgkill");
    return (uint64_t)signals;
}
