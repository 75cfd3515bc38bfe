/*
 * Where things go in guest memory before the start, for loaders of kernels that say themselves
 * where they want to be: the kernel's segments, its modules, and the structures that tell it about
 * them. Nothing here overlaps anything else, or the firmware's tables below 1 MiB. Everything is
 * below 4 GiB. The thread that builds the VM.
 */
#ifndef BOOT_LAYOUT_H
#define BOOT_LAYOUT_H

#include "boot/board.h"
#include "x86/state.h"

#define LAYOUT_LOW_END 0x9FC00ull /* of the memory below 640 KiB that is free */
#define LAYOUT_MAX 128u

struct layout {
    const struct board *board;
    const char *kernel; /* path, for sentences */
    struct layout_range {
        uint64_t base, end;
    } used[LAYOUT_MAX];
    unsigned n;
    uint64_t top; /* end of the highest segment or module, at least 1 MiB */
};

void layout_init(struct layout *l, const struct board *b, const char *kernel);

/*
 * For kernels that run 16-bit code of their own, whoever loaded them: the BIOS data area's serial
 * ports, size of conventional memory and place of the extended area, and interrupt vectors whose
 * every service says that it does not exist. To be called first: a kernel may lie over it.
 */
int layout_bios_data(struct layout *l);

/* Puts filesz bytes at an address that the kernel chose, and zeros up to memsz. */
int layout_segment(struct layout *l, uint64_t addr, const uint8_t *data, uint64_t filesz,
                   uint64_t memsz, struct error *err);

/*
 * The lowest free place for size bytes in [floor, end), page-aligned, and takes it. False if there
 * is none. A size of 0 takes nothing.
 */
bool layout_take(struct layout *l, uint64_t floor, uint64_t end, uint64_t size, uint64_t *addr);

/* A file above everything loaded so far, in whole pages. what: "module", "initrd". */
int layout_file(struct layout *l, const char *what, const char *path, uint64_t *addr,
                uint64_t *size, struct error *err);

/* Reads a kernel; unpacks it if all of it is one gzip file, as Xen's is. free() *data. */
int layout_read_kernel(const char *path, uint8_t **data, uint64_t *size, struct error *err);

/* ---- structures for the guest, put together here and written at once ---- */

struct area {
    uint8_t *buf;
    uint64_t addr; /* guest-physical */
    size_t size, used;
};

/* Takes room for size bytes, in low memory if it fits there, else above all that is loaded. */
int area_create(struct layout *l, size_t size, struct area *a, struct error *err);
/* Copies len bytes (zeros if data is NULL), aligned to 16. Returns the guest's address. */
uint64_t area_put(struct area *a, const void *data, size_t len);
/* Where an address that area_put gave is on our side. */
uint8_t *area_at(const struct area *a, uint64_t addr);
/* What area_put takes for len bytes. */
size_t area_room(size_t len);
/* Writes it to guest memory and frees it; also without success before, then it only frees. */
int area_finish(struct layout *l, struct area *a, bool ok);

/*
 * 32-bit protected mode without paging: flat segments, interrupts off, a GDT at `gdt` (an
 * area_put of AREA_GDT_SIZE bytes, filled here), all general registers 0.
 */
#define AREA_GDT_SIZE 32u
void layout_enter32(struct x86_state *s, const struct area *a, uint64_t gdt, uint64_t entry);

#endif
