/*
 * Loads kernels by the Multiboot Specification, version 1: ELF files, 32-bit or 64-bit, and files
 * of any kind whose header says where they go; modules, a command line, the memory map. The kernel
 * starts in 32-bit protected mode. Every file is hostile. The thread that builds the VM.
 */
#ifndef BOOT_MULTIBOOT_H
#define BOOT_MULTIBOOT_H

#include "boot/board.h"
#include "x86/state.h"

#define MULTIBOOT_EAX 0x2BADB002u

struct multiboot_params {
    const char *kernel;  /* path */
    const char *modules; /* "FILE[;ARGUMENTS][:FILE[;ARGUMENTS]...]"; NULL or empty: none */
    const char *cmdline; /* without the kernel's name; may be NULL */
};

/* How a load went, for the log and for tests. */
struct multiboot_result {
    uint64_t entry, info; /* guest-physical */
    unsigned modules;
    bool elf, symbols;
};

/* True if the file's bytes (unpacked) hold a multiboot header that is whole. */
bool multiboot_is(const uint8_t *data, uint64_t size);

/*
 * On success `state` (already reset) holds the registers of vCPU 0. Errors are one sentence naming
 * the file and what to do. result may be NULL.
 */
int multiboot_load(const struct board *b, const struct multiboot_params *p, struct x86_state *state,
                   struct multiboot_result *result, struct error *err);

#endif
