/*
 * The user's terminal and the process's signals. Holds the program's only two mutable globals: the
 * saved terminal settings, so that a crash of any thread can restore them, and the signal table.
 */
#ifndef HOST_TERM_H
#define HOST_TERM_H

#include <stdbool.h>

#include "base/error.h"

struct loop;

/* Puts the terminal behind fd into raw mode and remembers how it was. No terminal: 0, no change. */
int term_raw(int fd, struct error *err);

/* Restores what term_raw changed. Async-signal-safe, idempotent. */
void term_restore(void);

/* True while a terminal is in raw mode. */
bool term_is_raw(void);

/*
 * Installs handlers: SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT restore the terminal, print one line
 * with the signal and address, and die by the same signal. SIGPIPE and SIGXFSZ are ignored. Of
 * SIGTERM, SIGINT, SIGHUP, SIGUSR1 and SIGUSR2 each arrival calls fn(ctx, signo) on the loop's
 * thread.
 */
int term_signals(struct loop *loop, void (*fn)(void *ctx, int signo), void *ctx, struct error *err);

/*
 * A hook for synchronous faults (SIGSEGV, SIGBUS, SIGILL, SIGFPE) of threads that expect them: if
 * fn returns true, execution resumes with the changed ucontext. Async-signal-safe functions only.
 */
void term_set_fault_hook(bool (*fn)(int signo, void *siginfo, void *ucontext));

#endif
