/*
 * xhyvectl: what is done to images while no VM has them open, and what is asked of VMs that run. It
 * parses, does, and prints one sentence where that fails. One thread.
 */
#ifndef CLI_XHYVECTL_H
#define CLI_XHYVECTL_H

#include <stdio.h>

#include "base/error.h"

#define CTL_ERROR 1  /* exit status: it did not work */
#define CTL_ERRORS 2 /* image check: errors, and they are still there */
#define CTL_LEAKS 3  /* image check: leaks alone, and they are still there */

/* The arguments behind "xhyvectl image"; returns the exit status. */
int ctl_image(int argc, char **argv);
void ctl_image_help(FILE *to);

/* What is asked of VMs: all arguments; returns the exit status. */
int ctl_vm(int argc, char **argv);
void ctl_vm_help(FILE *to);

/* "xhyvectl list"; returns the exit status. */
int ctl_list(void);

/*
 * Calls `each` with name and socket of every file in the directory of sockets that may be one. 0,
 * or -errno and a sentence if it cannot be trusted; a directory that is not there holds none.
 */
int ctl_each_socket(void (*each)(void *ctx, const char *name, const char *path), void *ctx,
                    struct error *err);

/* The names of the VMs that run, "a, b"; "none" if there are none. */
void ctl_running(char *to, size_t room);

/* "512M", "1G"; "3d 4:05:06" of nanoseconds. */
void ctl_memory_text(const char *bytes, char *to, size_t room);
void ctl_uptime_text(const char *ns, char *to, size_t room);

int ctl_fail(const struct error *err);

#endif
