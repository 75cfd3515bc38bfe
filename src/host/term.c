#include "host/term.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "base/bits.h"
#include "host/fd.h"
#include "host/loop.h"

/* One of the two mutable globals: written by term_raw, read by any thread that dies. */
static struct {
    atomic_bool raw;
    int fd;
    struct termios saved;
} terminal;

/* The other: what the handlers need. */
static struct {
    bool installed;
    int pipe[2]; /* one byte a signal, to the loop */
    struct loop_fd *watch;
    void (*fn)(void *ctx, int signo);
    void *ctx;
    bool (*_Atomic fault_hook)(int signo, void *siginfo, void *ucontext);
    /* For the thread that installs: a stack overflow of its own leaves no other place to run. */
    _Alignas(64) uint8_t stack[64 * 1024];
} signals;

int term_raw(int fd, struct error *err)
{
    struct termios raw;

    if (!isatty(fd) || atomic_load(&terminal.raw))
        return 0;
    if (tcgetattr(fd, &terminal.saved) < 0)
        return error_set(err, -errno, "cannot read the terminal's settings: %s", strerror(errno));
    raw = terminal.saved;
    cfmakeraw(&raw);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    terminal.fd = fd;
    atomic_store(&terminal.raw, true); /* before the change: a crash in between restores */
    if (tcsetattr(fd, TCSANOW, &raw) < 0) {
        int code = -errno;

        atomic_store(&terminal.raw, false);
        return error_set(err, code, "cannot put the terminal into raw mode: %s", strerror(-code));
    }
    return 0;
}

void term_restore(void)
{
    sigset_t block, old;

    if (!atomic_exchange(&terminal.raw, false))
        return;
    /* From the background, SIGTTOU would stop the process here instead of letting it die. */
    sigemptyset(&block);
    sigaddset(&block, SIGTTOU);
    pthread_sigmask(SIG_BLOCK, &block, &old);
    tcsetattr(terminal.fd, TCSANOW, &terminal.saved);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

bool term_is_raw(void)
{
    return atomic_load(&terminal.raw);
}

static const struct {
    int signo;
    bool fault; /* synchronous: the hook may take it */
    const char *name;
} fatal_signals[] = {
    {SIGSEGV, true, "SIGSEGV"}, {SIGBUS, true, "SIGBUS"},    {SIGILL, true, "SIGILL"},
    {SIGFPE, true, "SIGFPE"},   {SIGABRT, false, "SIGABRT"},
};

static const int loop_signals[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2};

/* printf may not be called in a handler. */
static size_t put_text(char *to, size_t at, size_t cap, const char *text)
{
    while (*text != '\0' && at < cap)
        to[at++] = *text++;
    return at;
}

static size_t put_hex(char *to, size_t at, size_t cap, uintptr_t value)
{
    char digits[2 * sizeof(value) + 1];
    size_t i = sizeof(digits) - 1;

    digits[i] = '\0';
    do {
        digits[--i] = "0123456789abcdef"[value & 15];
        value >>= 4;
    } while (value != 0);
    at = put_text(to, at, cap, "0x");
    return put_text(to, at, cap, digits + i);
}

static uintptr_t context_pc(void *ucontext)
{
    ucontext_t *uc = ucontext;

#ifdef __linux__
    return (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];
#else
    return (uintptr_t)uc->uc_mcontext->__ss.__rip;
#endif
}

static void report(const char *name, bool fault, siginfo_t *info, void *ucontext)
{
    char line[160];
    size_t n = 0;
    ssize_t ignored;

    n = put_text(line, n, sizeof(line), "xhyve: killed by ");
    n = put_text(line, n, sizeof(line), name);
    if (fault) {
        n = put_text(line, n, sizeof(line), ", address ");
        n = put_hex(line, n, sizeof(line), (uintptr_t)info->si_addr);
    }
    n = put_text(line, n, sizeof(line), ", at instruction ");
    n = put_hex(line, n, sizeof(line), context_pc(ucontext));
    n = put_text(line, n, sizeof(line), "\n");
    ignored = write(STDERR_FILENO, line, n);
    (void)ignored;
}

static void on_fatal(int signo, siginfo_t *info, void *ucontext)
{
    bool (*hook)(int, void *, void *) = atomic_load(&signals.fault_hook);
    int saved_errno = errno;
    struct sigaction dfl;

    for (size_t i = 0; i < countof(fatal_signals); i++) {
        if (fatal_signals[i].signo != signo)
            continue;
        if (fatal_signals[i].fault && hook != NULL && hook(signo, info, ucontext)) {
            errno = saved_errno;
            return;
        }
        term_restore();
        report(fatal_signals[i].name, fatal_signals[i].fault, info, ucontext);
    }
    memset(&dfl, 0, sizeof(dfl));
    dfl.sa_handler = SIG_DFL;
    sigemptyset(&dfl.sa_mask);
    sigaction(signo, &dfl, NULL);
    raise(signo); /* blocked until this handler returns, then fatal */
}

static void on_loop_signal(int signo)
{
    int saved_errno = errno;
    uint8_t byte = (uint8_t)signo;
    ssize_t ignored = write(signals.pipe[1], &byte, 1);

    (void)ignored; /* full: hundreds wait already */
    errno = saved_errno;
}

static void on_pipe(void *ctx, unsigned events)
{
    uint8_t bytes[32];
    ssize_t n = read(signals.pipe[0], bytes, sizeof(bytes));

    (void)ctx;
    (void)events;
    for (ssize_t i = 0; i < n; i++)
        signals.fn(signals.ctx, bytes[i]);
}

static int handle(int signo, void (*fatal)(int, siginfo_t *, void *), void (*plain)(int),
                  struct error *err)
{
    struct sigaction sa;

    memset(&sa, 0, sizeof(sa));
    sigemptyset(&sa.sa_mask);
    if (fatal != NULL) {
        sa.sa_sigaction = fatal;
        sa.sa_flags = SA_SIGINFO | SA_ONSTACK;
    } else {
        sa.sa_handler = plain;
        sa.sa_flags = SA_RESTART;
    }
    if (sigaction(signo, &sa, NULL) < 0)
        return error_set(err, -errno, "cannot handle signal %d: %s", signo, strerror(errno));
    return 0;
}

/* nohup and a shell's & ask for this by handing the signal down ignored. */
static bool ignored_from_start(int signo)
{
    struct sigaction old;

    return signo != SIGTERM && sigaction(signo, NULL, &old) == 0 && old.sa_handler == SIG_IGN;
}

static int prepare(struct error *err)
{
    stack_t stack = {.ss_sp = signals.stack, .ss_size = sizeof(signals.stack)};
    int rc = fd_pipe(signals.pipe);

    if (rc < 0)
        return error_set(err, rc, "cannot make a pipe for signals: %s", strerror(-rc));
    /* Threads without one take faults on their own stack; only overflowing it is then silent. */
    if (sigaltstack(&stack, NULL) < 0)
        return error_set(err, -errno, "cannot set the signal stack: %s", strerror(errno));
    signals.installed = true;
    return 0;
}

int term_signals(struct loop *loop, void (*fn)(void *ctx, int signo), void *ctx, struct error *err)
{
    int rc = signals.installed ? 0 : prepare(err);

    if (rc < 0)
        return rc;
    signals.fn = fn;
    signals.ctx = ctx;
    signals.watch = loop_add(loop, signals.pipe[0], LOOP_READ, NULL, on_pipe, NULL, err);
    if (signals.watch == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < countof(fatal_signals) && rc == 0; i++)
        rc = handle(fatal_signals[i].signo, on_fatal, NULL, err);
    for (size_t i = 0; i < countof(loop_signals) && rc == 0; i++) {
        if (!ignored_from_start(loop_signals[i]))
            rc = handle(loop_signals[i], NULL, on_loop_signal, err);
    }
    if (rc == 0)
        rc = handle(SIGPIPE, NULL, SIG_IGN, err);
    if (rc == 0)
        rc = handle(SIGXFSZ, NULL, SIG_IGN, err); /* the write says EFBIG, too */
    return rc;
}

void term_set_fault_hook(bool (*fn)(int signo, void *siginfo, void *ucontext))
{
    atomic_store(&signals.fault_hook, fn);
}
