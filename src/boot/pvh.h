/*
 * Loads kernels by Xen's PVH boot protocol ("x86/HVM direct boot ABI"): an ELF file, 32-bit or
 * 64-bit, that names its 32-bit entry in a note; an initrd, a command line, the memory map and the
 * ACPI root pointer. Linux's bzImage is unpacked and its ELF file used. Every file is hostile. The
 * thread that builds the VM.
 */
#ifndef BOOT_PVH_H
#define BOOT_PVH_H

#include "boot/board.h"
#include "boot/elf.h"
#include "x86/state.h"

struct pvh_params {
    const char *kernel;  /* path */
    const char *initrd;  /* path, or NULL */
    const char *cmdline; /* may be NULL: empty */
    uint64_t rsdp;       /* 0: none */
};

/* How a load went, for the log and for tests. */
struct pvh_result {
    uint64_t entry, info; /* guest-physical */
    uint64_t initrd_addr, initrd_size;
};

/* The entry that the file's note names. False if there is none; it is not checked. */
bool pvh_entry(const struct elf *e, uint64_t *entry);

/*
 * On success `state` (already reset) holds the registers of vCPU 0. Errors are one sentence naming
 * the file and what to do. result may be NULL.
 */
int pvh_load(const struct board *b, const struct pvh_params *p, struct x86_state *state,
             struct pvh_result *result, struct error *err);

#endif
