/*
 * The DSDT's body: PCI root bridges with their windows and interrupt routing, the ISA bridge and
 * what hangs on it, CPUs, soft-off. A pure function of the board.
 */
#ifndef BOOT_DSDT_H
#define BOOT_DSDT_H

#include "boot/aml.h"
#include "boot/board.h"

void dsdt_write(const struct board *b, struct aml *a);

#endif
