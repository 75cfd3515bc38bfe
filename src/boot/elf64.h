/*
 * What a loader reads of 64-bit ELF files: headers of the file, of segments and of sections, with
 * the ELF specification's field names. Not every host has a header for them.
 */
#ifndef BOOT_ELF64_H
#define BOOT_ELF64_H

#include <assert.h>
#include <stdint.h>

#define ELFMAG "\177ELF"
#define SELFMAG 4
#define EI_CLASS 4
#define EI_DATA 5
#define ELFCLASS64 2
#define ELFDATA2LSB 1
#define EM_X86_64 62
#define PT_LOAD 1
#define SHT_NOBITS 8

typedef struct {
    unsigned char e_ident[16];
    uint16_t e_type, e_machine;
    uint32_t e_version;
    uint64_t e_entry, e_phoff, e_shoff;
    uint32_t e_flags;
    uint16_t e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx;
} Elf64_Ehdr;

typedef struct {
    uint32_t p_type, p_flags;
    uint64_t p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align;
} Elf64_Phdr;

typedef struct {
    uint32_t sh_name, sh_type;
    uint64_t sh_flags, sh_addr, sh_offset, sh_size;
    uint32_t sh_link, sh_info;
    uint64_t sh_addralign, sh_entsize;
} Elf64_Shdr;

static_assert(sizeof(Elf64_Ehdr) == 64, "ELF file header");
static_assert(sizeof(Elf64_Phdr) == 56, "ELF program header");
static_assert(sizeof(Elf64_Shdr) == 64, "ELF section header");

#endif
