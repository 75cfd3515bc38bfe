/*
 * xhyvectl: what is done to things of a VM while no VM runs. It parses, does, and prints one
 * sentence where that fails. One thread.
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

int ctl_fail(const struct error *err);

#endif
