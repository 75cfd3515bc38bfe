#include "boot/multiboot.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/endian.h"
#include "boot/elf.h"
#include "boot/layout.h"
#include "boot/tables.h"

/* The header in the kernel's file. Multiboot Specification 0.6.96, 3.1 */
#define HEADER_SEARCH 8192u
#define HEADER_MAGIC 0x1BADB002u
#define HEADER_SIZE 12u
#define HEADER_SIZE_ADDRESSES 32u
#define HEADER2_MAGIC 0xE85250D6u /* of version 2, which is another format altogether */
#define HEADER2_SEARCH 32768u
#define FLAG_PAGE_ALIGN (1u << 0)
#define FLAG_MEMORY (1u << 1)
#define FLAG_VIDEO (1u << 2)
#define FLAGS_MANDATORY 0xFFFFu
#define FLAG_ADDRESSES (1u << 16)

/* What the kernel gets. Multiboot Specification 0.6.96, 3.3 */
#define INFO_SIZE 116u
#define INFO_FLAGS 0u
#define INFO_MEM_LOWER 4u
#define INFO_MEM_UPPER 8u
#define INFO_CMDLINE 16u
#define INFO_MODS_COUNT 20u
#define INFO_MODS_ADDR 24u
#define INFO_ELF_NUM 28u
#define INFO_ELF_SIZE 32u
#define INFO_ELF_ADDR 36u
#define INFO_ELF_SHNDX 40u
#define INFO_MMAP_LENGTH 44u
#define INFO_MMAP_ADDR 48u
#define INFO_LOADER_NAME 64u
#define HAS_MEM (1u << 0)
#define HAS_CMDLINE (1u << 2)
#define HAS_MODS (1u << 3)
#define HAS_ELF (1u << 5)
#define HAS_MMAP (1u << 6)
#define HAS_LOADER_NAME (1u << 9)
#define MOD_SIZE 16u
#define MMAP_ENTRY 24u
#define MMAP_ENTRY_SIZE (MMAP_ENTRY - 4) /* the size field does not count itself */

#define LOADER_NAME "xhyve"
#define LOWER_MAX_KIB 640u
#define MODULES_MAX 64u
/* Sections of debug information can be larger than all the rest; they are left out then. */
#define SYMBOLS_MAX (64 * MIB)
#define SYMBOL_ALIGN 16u

struct module {
    char *path;   /* owned */
    char *string; /* owned: path and arguments */
    uint64_t addr, size;
};

struct load {
    const struct board *board;
    const struct multiboot_params *p;
    uint8_t *data;
    uint64_t size;
    uint32_t flags;  /* of the header */
    uint64_t header; /* its place in the file */
    struct elf elf;
    struct layout layout;
    struct module mod[MODULES_MAX];
    uint8_t *sections; /* owned: the table as the kernel gets it, or NULL */
    size_t sections_size;
    char *cmdline; /* owned, with the kernel's name */
    struct multiboot_result res;
};

static int bad(const struct load *l, struct error *err, const char *why)
{
    return error_set(err, -EINVAL, "kernel '%s' %s", l->p->kernel, why);
}

/* ---- the header ---- */

static uint64_t header_size(uint32_t flags)
{
    return (flags & FLAG_ADDRESSES) != 0 ? HEADER_SIZE_ADDRESSES : HEADER_SIZE;
}

/* The place of the header; if there is none, size, and *broken is one with a bad checksum. */
static uint64_t find_header(const uint8_t *d, uint64_t size, uint64_t *broken)
{
    uint64_t end = min_u64(size, HEADER_SEARCH);

    *broken = size;
    for (uint64_t at = 0; at + HEADER_SIZE <= end; at += 4) {
        uint32_t flags = le32_load(d + at + 4);

        if (le32_load(d + at) != HEADER_MAGIC)
            continue;
        if (HEADER_MAGIC + flags + le32_load(d + at + 8) == 0 && at + header_size(flags) <= end)
            return at;
        *broken = min_u64(*broken, at);
    }
    return size;
}

bool multiboot_is(const uint8_t *data, uint64_t size)
{
    uint64_t broken;

    return find_header(data, size, &broken) != size;
}

static bool is_version2(const uint8_t *d, uint64_t size)
{
    for (uint64_t at = 0; at + 16 <= min_u64(size, HEADER2_SEARCH); at += 8) {
        if (le32_load(d + at) == HEADER2_MAGIC && HEADER2_MAGIC + le32_load(d + at + 4) +
                                                          le32_load(d + at + 8) +
                                                          le32_load(d + at + 12) ==
                                                      0)
            return true;
    }
    return false;
}

static int parse_header(struct load *l, struct error *err)
{
    uint64_t broken;
    uint32_t unknown;

    l->header = find_header(l->data, l->size, &broken);
    if (l->header == l->size && broken != l->size)
        return error_set(err, -EINVAL,
                         "kernel '%s' has a multiboot header at byte %llu that is cut off or whose "
                         "checksum is wrong; fetch or build it again",
                         l->p->kernel, (unsigned long long)broken);
    if (l->header == l->size && is_version2(l->data, l->size))
        return error_set(err, -ENOTSUP,
                         "kernel '%s' has only a multiboot 2 header; version 1 is what is built",
                         l->p->kernel);
    if (l->header == l->size)
        return bad(l, err,
                   "has no multiboot header in its first 8192 bytes; is it a multiboot kernel?");
    l->flags = le32_load(l->data + l->header + 4);
    if ((l->flags & FLAG_VIDEO) != 0)
        return bad(l, err,
                   "demands a video mode (bit 2 of its multiboot header), but there is no display; "
                   "build it without");
    unknown = l->flags & FLAGS_MANDATORY & ~(FLAG_PAGE_ALIGN | FLAG_MEMORY);
    if (unknown != 0)
        return error_set(err, -ENOTSUP,
                         "kernel '%s' demands features %#x in its multiboot header, which version "
                         "1 does not define; build it without",
                         l->p->kernel, unknown);
    return 0;
}

/* ---- the kernel ---- */

/* The header says where the file goes, whatever the file is. */
static int load_by_addresses(struct load *l, struct error *err)
{
    const uint8_t *h = l->data + l->header;
    uint64_t header_addr = le32_load(h + 12), load_addr = le32_load(h + 16);
    uint64_t load_end = le32_load(h + 20), bss_end = le32_load(h + 24);
    uint64_t before = header_addr - load_addr; /* bytes from the first loaded one to the header */
    uint64_t start, len, memsz;

    l->res.entry = le32_load(h + 28);
    if (load_addr > header_addr || before > l->header)
        return bad(l, err,
                   "has a multiboot header whose load address lies outside the file; build it "
                   "again");
    start = l->header - before;
    if (load_end == 0)
        load_end = load_addr + (l->size - start);
    if (load_end < load_addr || load_end - load_addr > l->size - start)
        return bad(l, err,
                   "is truncated: its multiboot header promises more than the file holds; fetch "
                   "it again");
    len = load_end - load_addr;
    if (bss_end != 0 && bss_end < load_end)
        return bad(l, err,
                   "has a multiboot header whose bss ends before it starts; build it again");
    memsz = bss_end != 0 ? bss_end - load_addr : len;
    if (l->res.entry < load_addr || l->res.entry - load_addr >= memsz)
        return error_set(err, -EINVAL,
                         "kernel '%s' starts at %#llx, outside of what its multiboot header loads; "
                         "build it again",
                         l->p->kernel, (unsigned long long)l->res.entry);
    return layout_segment(&l->layout, load_addr, l->data + start, len, memsz, err);
}

static int load_elf(struct load *l, struct error *err)
{
    struct error why = {0};
    int rc;

    if (!elf_magic(l->data, l->size))
        return bad(l, err,
                   "is no ELF file, and its multiboot header has no addresses; build it again");
    rc = elf_parse(l->data, l->size, &l->elf, &why);
    if (rc != 0)
        return error_set(err, rc, "kernel '%s' %s", l->p->kernel, why.text);
    for (unsigned i = 0; rc == 0 && i < l->elf.segs; i++) {
        const struct elf_segment *s = &l->elf.seg[i];

        rc = layout_segment(&l->layout, s->paddr, s->data, s->filesz, s->memsz, err);
    }
    l->res.entry = l->elf.entry;
    l->res.elf = true;
    return rc;
}

/* ---- modules ---- */

/* One "FILE[;ARGUMENTS]" of len bytes. */
static int parse_module(struct load *l, const char *text, size_t len, struct error *err)
{
    struct module *m = &l->mod[l->res.modules];
    const char *args = memchr(text, ';', len);
    size_t path = args != NULL ? (size_t)(args - text) : len;

    if (path == 0)
        return error_set(err, -EINVAL,
                         "the list of modules '%s' has an empty name in it; wanted "
                         "FILE[;ARGUMENTS][:FILE[;ARGUMENTS]...]",
                         l->p->modules);
    if (l->res.modules == MODULES_MAX)
        return error_set(err, -E2BIG, "kernel '%s' is given more than %u modules", l->p->kernel,
                         MODULES_MAX);
    l->res.modules++;
    m->path = strndup(text, path);
    m->string = strndup(text, len);
    if (m->path == NULL || m->string == NULL)
        return error_set(err, -ENOMEM, "no memory for the list of modules");
    if (args != NULL)
        m->string[path] = args + 1 < text + len ? ' ' : '\0';
    return 0;
}

static int load_modules(struct load *l, struct error *err)
{
    const char *text = l->p->modules;
    int rc = 0;

    if (text == NULL || text[0] == '\0')
        return 0;
    for (;;) {
        struct module *m = &l->mod[l->res.modules];
        size_t len = strcspn(text, ":");

        rc = parse_module(l, text, len, err);
        if (rc == 0)
            rc = layout_file(&l->layout, "module", m->path, &m->addr, &m->size, err);
        if (rc != 0 || text[len] == '\0')
            return rc;
        text += len + 1;
    }
}

/* ---- symbols ---- */

/* Sections that no segment has brought. */
static bool is_loose(const struct load *l, const struct elf_section *s)
{
    return s->type != 0 && s->type != ELF_SECTION_NOBITS && (s->flags & ELF_SECTION_ALLOC) == 0 &&
           s->addr == 0 && s->size > 0 && s->offset <= l->size && s->size <= l->size - s->offset;
}

/*
 * Kernels that print names of their functions want the table of sections, and the sections
 * themselves in memory. Where they do not fit the kernel runs without.
 */
static int load_symbols(struct load *l, struct error *err)
{
    const struct elf *e = &l->elf;
    uint64_t total = 0, base = 0;

    if (!l->res.elf || e->shnum == 0)
        return 0;
    for (unsigned i = 0; i < e->shnum; i++) {
        struct elf_section s = elf_section(e, i);

        if (is_loose(l, &s))
            total += align_up(s.size, SYMBOL_ALIGN);
        if (total > SYMBOLS_MAX)
            break;
    }
    if (total > SYMBOLS_MAX ||
        !layout_take(&l->layout, l->layout.top, gmem_lowmem(l->board->mem), total, &base)) {
        log_info(l->board->log, "kernel '%s' goes without its symbols: there is no room for them",
                 l->p->kernel);
        return 0;
    }
    l->sections_size = (size_t)e->shnum * e->shentsize;
    l->sections = malloc(l->sections_size);
    if (l->sections == NULL)
        return error_set(err, -ENOMEM, "no memory for the symbols of kernel '%s'", l->p->kernel);
    memcpy(l->sections, l->data + e->shoff, l->sections_size);
    for (unsigned i = 0; i < e->shnum; i++) {
        struct elf_section s = elf_section(e, i);
        uint8_t *entry = l->sections + (size_t)i * e->shentsize;

        if (!is_loose(l, &s))
            continue;
        if (gmem_write(l->board->mem, base, l->data + s.offset, s.size) != 0)
            return error_set(err, -EFAULT, "kernel '%s': its symbols cannot be written",
                             l->p->kernel);
        if (e->is64)
            le64_store(entry + 16, base);
        else
            le32_store(entry + 12, (uint32_t)base);
        base += align_up(s.size, SYMBOL_ALIGN);
    }
    l->layout.top = max_u64(l->layout.top, base);
    l->res.symbols = true;
    return 0;
}

/* ---- what the kernel is told ---- */

static void put_mmap(struct area *a, uint8_t *info, const struct e820_entry *map, unsigned n)
{
    uint64_t addr = area_put(a, NULL, (size_t)n * MMAP_ENTRY);
    uint8_t *e = area_at(a, addr);

    for (unsigned i = 0; i < n; i++, e += MMAP_ENTRY) {
        le32_store(e, MMAP_ENTRY_SIZE);
        le64_store(e + 4, map[i].base);
        le64_store(e + 12, map[i].size);
        le32_store(e + 20, map[i].type); /* the same numbers as e820's */
    }
    le32_store(info + INFO_MMAP_LENGTH, n * MMAP_ENTRY);
    le32_store(info + INFO_MMAP_ADDR, (uint32_t)addr);
}

static uint32_t put_string(struct area *a, const char *s)
{
    return (uint32_t)area_put(a, s, strlen(s) + 1);
}

static void put_modules(const struct load *l, struct area *a, uint8_t *info)
{
    uint64_t addr = area_put(a, NULL, (size_t)l->res.modules * MOD_SIZE);

    for (unsigned i = 0; i < l->res.modules; i++) {
        const struct module *m = &l->mod[i];
        uint8_t *e = area_at(a, addr) + (size_t)i * MOD_SIZE;

        le32_store(e, (uint32_t)m->addr);
        le32_store(e + 4, (uint32_t)(m->addr + m->size));
        le32_store(e + 8, put_string(a, m->string));
    }
    le32_store(info + INFO_MODS_COUNT, l->res.modules);
    le32_store(info + INFO_MODS_ADDR, (uint32_t)addr);
}

static void put_sections(const struct load *l, struct area *a, uint8_t *info)
{
    const struct elf *e = &l->elf;

    le32_store(info + INFO_ELF_NUM, e->shnum);
    le32_store(info + INFO_ELF_SIZE, e->shentsize);
    le32_store(info + INFO_ELF_ADDR, (uint32_t)area_put(a, l->sections, l->sections_size));
    le32_store(info + INFO_ELF_SHNDX, e->shstrndx);
}

/* Kilobytes of memory from 0, and from 1 MiB to the first hole. */
static void put_memory(const struct load *l, uint8_t *info)
{
    uint64_t low = gmem_lowmem(l->board->mem);

    le32_store(info + INFO_MEM_LOWER,
               (uint32_t)min_u64(min_u64(low, LAYOUT_LOW_END) / KIB, LOWER_MAX_KIB));
    le32_store(info + INFO_MEM_UPPER, (uint32_t)(low > MIB ? (low - MIB) / KIB : 0));
}

static size_t area_size(const struct load *l, unsigned map)
{
    size_t size = area_room(AREA_GDT_SIZE) + area_room(INFO_SIZE);

    size += area_room((size_t)map * MMAP_ENTRY) + area_room(sizeof(LOADER_NAME));
    size += area_room(strlen(l->cmdline) + 1) + area_room(l->sections_size);
    size += area_room((size_t)l->res.modules * MOD_SIZE);
    for (unsigned i = 0; i < l->res.modules; i++)
        size += area_room(strlen(l->mod[i].string) + 1);
    return size;
}

static int write_info(struct load *l, struct x86_state *state, struct error *err)
{
    struct e820_entry map[E820_MAX];
    unsigned n = e820_build(l->board, map);
    uint32_t flags = HAS_MEM | HAS_CMDLINE | HAS_MODS | HAS_MMAP | HAS_LOADER_NAME;
    struct area a;
    uint8_t *info;
    uint64_t gdt;
    int rc = area_create(&l->layout, area_size(l, n), &a, err);

    if (rc != 0)
        return rc;
    gdt = area_put(&a, NULL, AREA_GDT_SIZE);
    l->res.info = area_put(&a, NULL, INFO_SIZE);
    info = area_at(&a, l->res.info);
    put_memory(l, info);
    le32_store(info + INFO_CMDLINE, put_string(&a, l->cmdline));
    put_modules(l, &a, info);
    if (l->res.symbols) {
        put_sections(l, &a, info);
        flags |= HAS_ELF;
    }
    put_mmap(&a, info, map, n);
    le32_store(info + INFO_LOADER_NAME, put_string(&a, LOADER_NAME));
    le32_store(info + INFO_FLAGS, flags);
    layout_enter32(state, &a, gdt, l->res.entry);
    state->cr0 |= X86_CR0_NE; /* x87 errors as exceptions; the specification leaves it open */
    state->gpr[X86_RAX] = MULTIBOOT_EAX;
    state->gpr[X86_RBX] = l->res.info;
    if (area_finish(&l->layout, &a, true) != 0)
        return error_set(err, -EFAULT, "kernel '%s': its information cannot be written",
                         l->p->kernel);
    return 0;
}

/* The first word is the kernel's name, as other loaders have it. */
static int make_cmdline(struct load *l, struct error *err)
{
    const char *words = l->p->cmdline != NULL ? l->p->cmdline : "";

    if (asprintf(&l->cmdline, "%s%s%s", l->p->kernel, words[0] != '\0' ? " " : "", words) >= 0)
        return 0;
    l->cmdline = NULL;
    return error_set(err, -ENOMEM, "no memory for the command line");
}

static int load_all(struct load *l, struct x86_state *state, struct error *err)
{
    int rc = layout_read_kernel(l->p->kernel, &l->data, &l->size, err);

    if (rc == 0)
        rc = parse_header(l, err);
    if (rc == 0)
        rc = layout_bios_data(&l->layout);
    if (rc == 0)
        rc = (l->flags & FLAG_ADDRESSES) != 0 ? load_by_addresses(l, err) : load_elf(l, err);
    if (rc == 0)
        rc = load_modules(l, err);
    if (rc == 0)
        rc = load_symbols(l, err);
    if (rc == 0)
        rc = make_cmdline(l, err);
    if (rc == 0)
        rc = write_info(l, state, err);
    return rc;
}

int multiboot_load(const struct board *b, const struct multiboot_params *p, struct x86_state *state,
                   struct multiboot_result *result, struct error *err)
{
    struct load l = {.board = b, .p = p};
    int rc;

    layout_init(&l.layout, b, p->kernel);
    rc = load_all(&l, state, err);
    for (unsigned i = 0; i < l.res.modules; i++) {
        free(l.mod[i].path);
        free(l.mod[i].string);
    }
    free(l.sections);
    free(l.cmdline);
    free(l.data);
    if (rc != 0)
        return rc;
    log_info(b->log, "kernel '%s' (multiboot) enters at %#llx, %u modules, information at %#llx",
             p->kernel, (unsigned long long)l.res.entry, l.res.modules,
             (unsigned long long)l.res.info);
    if (result != NULL)
        *result = l.res;
    return 0;
}
