/*
 * Names for addresses: the functions of a Linux kernel or of another program, for a profiler and
 * for messages. The source may be a file, or the kernel's own table (kallsyms) inside its image,
 * which Debian's kernels carry though their System.map is empty. Hostile input: a damaged table is
 * an error or gives wrong names, and names hold printable ASCII only. Making and moving one is for
 * a single thread; once made, any thread may look things up. No file of its own is kept open.
 */
#ifndef BOOT_SYMBOLS_H
#define BOOT_SYMBOLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct symbols;

/*
 * Reads a file, told apart by content: ELF (.symtab; failing that .dynsym; failing that kallsyms),
 * a bzImage (kallsyms inside), or text as in System.map and /proc/kallsyms. Addresses are those it
 * is linked for; see symbols_move. -EINVAL if there is nothing of use in it; *out is for
 * symbols_destroy.
 */
int symbols_load_file(const char *path, struct symbols **out, struct error *err);

/*
 * Finds and decodes kallsyms in a kernel: an uncompressed ELF file, or a copy of it as it lies in
 * memory. `image` begins at a multiple of 8 of the kernel's addresses; it may begin before the
 * kernel, and end behind it. linear: the address of its first byte, 0 if unknown; only the newest
 * kernels (whose offsets count from their own place) need it. Where a kernel in memory was moved
 * the table was too, so the addresses are those it runs at. -ENOENT: no table was found.
 */
int symbols_from_kernel(const uint8_t *image, size_t size, uint64_t linear, struct symbols **out,
                        struct error *err);

/* Copies len bytes at a linear address; 0, or negative if some of them cannot be read. */
typedef int (*symbols_read_fn)(void *ctx, uint64_t linear, void *to, size_t len);

/*
 * The same from a guest's memory, size bytes (at most 512 MiB) from `linear` on, a multiple of
 * 4096. Pages that cannot be read are gaps. The guest may run: each byte is read once, and the copy
 * judged.
 */
int symbols_from_memory(symbols_read_fn read, void *ctx, uint64_t linear, size_t size,
                        struct symbols **out, struct error *err);

/* Adds slide, modulo 2^64, to all addresses: for a table of a kernel that its loader has moved. */
void symbols_move(struct symbols *s, uint64_t slide);

/*
 * The function at addr or the nearest one below, and how far into it addr is (offset may be NULL).
 * Of several names for one address, the first in the table. NULL where no text is known: below the
 * first one, behind the end of a function whose size is known, in data.
 */
const char *symbols_find(const struct symbols *s, uint64_t addr, uint64_t *offset);

/* The first symbol of that very name. Goes through all of them. */
bool symbols_lookup(const struct symbols *s, const char *name, uint64_t *addr);

/* Names in the table, those for the same address each counted. */
unsigned symbols_count(const struct symbols *s);

/* NULL is allowed. */
void symbols_destroy(struct symbols *s);

#endif
