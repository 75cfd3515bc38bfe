/*
 * Loads Linux by the kexec protocol: a bzImage, an initrd, a command line; into guest memory.
 * Normally the host unpacks the kernel itself and enters it in long mode at its own address or,
 * with KASLR, at a random one; an image we do not understand is entered as it is and unpacks
 * itself. Every file is hostile. The thread that builds the VM. Linux: the x86 boot protocol.
 */
#ifndef BOOT_LINUX_H
#define BOOT_LINUX_H

#include "boot/board.h"
#include "x86/state.h"

enum linux_decompress { LINUX_DECOMPRESS_HOST, LINUX_DECOMPRESS_GUEST };

struct linux_params {
    const char *kernel;  /* path */
    const char *initrd;  /* path, or NULL */
    const char *cmdline; /* may be NULL: empty */
    enum linux_decompress decompress;
    uint64_t rsdp; /* for zero page's acpi_rsdp_addr, 0: none */
};

/* How a load went, for the log and for tests. */
struct linux_info {
    bool direct;               /* unpacked by the host, entered in long mode */
    bool entry64;              /* 64-bit entry point used (also when not direct) */
    uint64_t phys, virt_slide; /* where the kernel lies; its KASLR slide */
    uint64_t virt, size;       /* if direct: the linear address of phys; bytes of the kernel */
    uint64_t entry;
    uint64_t initrd_addr, initrd_size;
    char compression[8]; /* "gzip", "lz4", ... or "" */
};

/*
 * On success `state` (already reset) holds the registers of vCPU 0. Errors are one sentence naming
 * the file and what to do. info may be NULL.
 */
int linux_load(const struct board *b, const struct linux_params *p, struct x86_state *state,
               struct linux_info *info, struct error *err);

#endif
