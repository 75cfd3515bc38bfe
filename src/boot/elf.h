/*
 * Reads kernels that are ELF files for x86, 32-bit or 64-bit, as a loader sees them: segments with
 * physical addresses, an entry point, notes, sections. Hostile input: whatever is stored here lies
 * inside the file. Pure; any thread. System V ABI, object files.
 */
#ifndef BOOT_ELF_H
#define BOOT_ELF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define ELF_SEGMENTS 32u

struct elf_segment {
    uint64_t vaddr, paddr, memsz;
    const uint8_t *data; /* filesz bytes, in the file */
    uint64_t filesz;     /* at most memsz */
};

struct elf {
    const uint8_t *data; /* borrowed */
    size_t size;
    bool is64;
    uint64_t entry;                       /* physical */
    struct elf_segment seg[ELF_SEGMENTS]; /* those to load that are not empty */
    unsigned segs;
    uint64_t phoff;
    unsigned phnum, phentsize;
    /* The table of sections, all of it inside the file; shnum is 0 if there is none. */
    uint64_t shoff;
    unsigned shnum, shentsize, shstrndx;
};

struct elf_section {
    uint32_t type;
    uint64_t flags, addr, offset, size;
};

#define ELF_SECTION_NOBITS 8u
#define ELF_SECTION_ALLOC 2u /* flag: a part of some segment */

bool elf_magic(const uint8_t *data, size_t size);

/* -EINVAL and a sentence that goes on after the file's name: "is a truncated ELF file; ...". */
int elf_parse(const uint8_t *data, size_t size, struct elf *e, struct error *err);

/* Section i, as it stands: its offset and size are not checked. */
struct elf_section elf_section(const struct elf *e, unsigned i);

/* The content of the first note of this owner and type; NULL if there is none. */
const uint8_t *elf_note(const struct elf *e, const char *owner, uint32_t type, uint32_t *len);

#endif
