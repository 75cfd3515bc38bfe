/*
 * The firmware tables we write: ACPI, SMBIOS, MP, e820. Pure functions of the board; they write
 * guest memory at COMPAT addresses (BOARD_*_TABLE) or into the buffer given. The thread that builds
 * the VM.
 */
#ifndef BOOT_TABLES_H
#define BOOT_TABLES_H

#include <stddef.h>

#include "boot/board.h"

/*
 * Each writes its tables to guest memory. -ENOSPC with a sentence if they do not fit between their
 * address and the next. rsdp: where the ACPI root pointer went, may be NULL.
 */
int acpi_write(const struct board *b, uint64_t *rsdp, struct error *err);
int smbios_write(const struct board *b, struct error *err);
int mptable_write(const struct board *b, struct error *err);

#define E820_RAM 1u
#define E820_RESERVED 2u
#define E820_ACPI 3u
#define E820_NVS 4u
struct e820_entry {
    uint64_t base, size;
    uint32_t type;
};
#define E820_MAX 32u
/* The memory map for kexec guests; returns the number of entries. */
unsigned e820_build(const struct board *b, struct e820_entry out[E820_MAX]);

#endif
