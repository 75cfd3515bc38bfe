/*
 * One request of the control socket: a line in, an answer out. On the thread that runs the VM, from
 * a callback of its loop.
 */
#ifndef CTL_REQUEST_H
#define CTL_REQUEST_H

#include <stddef.h>

#include "ctl/wire.h"
#include "vmm/vm.h"

/*
 * Does what the line asks (len bytes without its newline, at least one more byte of room; it is
 * changed) and writes the whole answer, "ok" or "error" at its end; how many bytes of
 * CTL_ANSWER_MAX.
 */
size_t ctl_request(struct vm *vm, char *line, size_t len, char answer[CTL_ANSWER_MAX]);

/* The line "error SENTENCE" alone; how many bytes. */
size_t ctl_answer_error(char *to, size_t room, const char *sentence);

/* The line that the server begins with; how many bytes. */
size_t ctl_greeting(struct vm *vm, char *to, size_t room);

#endif
