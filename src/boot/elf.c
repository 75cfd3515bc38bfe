#include "boot/elf.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "base/endian.h"

#define ELF_MAGIC "\177ELF"
#define ELF_CLASS 4u
#define ELF_DATA 5u
#define CLASS_32 1u
#define CLASS_64 2u
#define DATA_LITTLE 1u
#define MACHINE_386 3u
#define MACHINE_X86_64 62u
#define SEGMENT_LOAD 1u
#define SEGMENT_NOTE 4u

#define EHDR32_SIZE 52u
#define EHDR64_SIZE 64u
#define PHDR32_SIZE 32u
#define PHDR64_SIZE 56u
#define SHDR32_SIZE 40u
#define SHDR64_SIZE 64u
#define NOTE_HEADER 12u

struct phdr {
    uint32_t type;
    uint64_t offset, vaddr, paddr, filesz, memsz, align;
};

static bool inside(uint64_t offset, uint64_t len, uint64_t size)
{
    return offset <= size && len <= size - offset;
}

bool elf_magic(const uint8_t *data, size_t size)
{
    return size >= 4 && memcmp(data, ELF_MAGIC, 4) == 0;
}

/* Segment header i, which lies inside the file. */
static struct phdr phdr_at(const struct elf *e, unsigned i)
{
    const uint8_t *p = e->data + e->phoff + (uint64_t)i * e->phentsize;

    if (e->is64)
        return (struct phdr){
            .type = le32_load(p),
            .offset = le64_load(p + 8),
            .vaddr = le64_load(p + 16),
            .paddr = le64_load(p + 24),
            .filesz = le64_load(p + 32),
            .memsz = le64_load(p + 40),
            .align = le64_load(p + 48),
        };
    return (struct phdr){
        .type = le32_load(p),
        .offset = le32_load(p + 4),
        .vaddr = le32_load(p + 8),
        .paddr = le32_load(p + 12),
        .filesz = le32_load(p + 16),
        .memsz = le32_load(p + 20),
        .align = le32_load(p + 28),
    };
}

static int read_segments(struct elf *e, struct error *err)
{
    for (unsigned i = 0; i < e->phnum; i++) {
        struct phdr ph = phdr_at(e, i);
        uint64_t end;

        if (ph.type != SEGMENT_LOAD || ph.memsz == 0)
            continue;
        if (!inside(ph.offset, ph.filesz, e->size))
            return error_set(err, -EINVAL,
                             "is a truncated ELF file: its segment %u ends at byte %#llx+%#llx of "
                             "%#zx; fetch or build it again",
                             i, (unsigned long long)ph.offset, (unsigned long long)ph.filesz,
                             e->size);
        if (ph.filesz > ph.memsz || __builtin_add_overflow(ph.paddr, ph.memsz, &end))
            return error_set(err, -EINVAL,
                             "is a broken ELF file: its segment %u has impossible sizes; build it "
                             "again",
                             i);
        if (e->segs == ELF_SEGMENTS)
            return error_set(err, -EINVAL,
                             "is an ELF file of more than %u segments; link it into fewer",
                             ELF_SEGMENTS);
        e->seg[e->segs++] = (struct elf_segment){
            .vaddr = ph.vaddr,
            .paddr = ph.paddr,
            .memsz = ph.memsz,
            .data = e->data + ph.offset,
            .filesz = ph.filesz,
        };
    }
    if (e->segs == 0)
        return error_set(err, -EINVAL, "is an ELF file without a segment to load; is it linked?");
    return 0;
}

/* The header gives a virtual address; kernels linked high are entered by their physical one. */
static int find_entry(struct elf *e, uint64_t entry, struct error *err)
{
    for (unsigned i = 0; i < e->segs; i++) {
        const struct elf_segment *s = &e->seg[i];

        if (entry >= s->vaddr && entry - s->vaddr < s->memsz) {
            e->entry = s->paddr + (entry - s->vaddr);
            return 0;
        }
    }
    for (unsigned i = 0; i < e->segs; i++) {
        const struct elf_segment *s = &e->seg[i];

        if (entry >= s->paddr && entry - s->paddr < s->memsz) {
            e->entry = entry;
            return 0;
        }
    }
    return error_set(err, -EINVAL,
                     "is an ELF file that starts at %#llx, outside its segments; build it again",
                     (unsigned long long)entry);
}

static uint64_t read_header(struct elf *e)
{
    const uint8_t *d = e->data;

    if (e->is64) {
        e->phoff = le64_load(d + 32);
        e->shoff = le64_load(d + 40);
        e->phentsize = le16_load(d + 54);
        e->phnum = le16_load(d + 56);
        e->shentsize = le16_load(d + 58);
        e->shnum = le16_load(d + 60);
        e->shstrndx = le16_load(d + 62);
        return le64_load(d + 24);
    }
    e->phoff = le32_load(d + 28);
    e->shoff = le32_load(d + 32);
    e->phentsize = le16_load(d + 42);
    e->phnum = le16_load(d + 44);
    e->shentsize = le16_load(d + 46);
    e->shnum = le16_load(d + 48);
    e->shstrndx = le16_load(d + 50);
    return le32_load(d + 24);
}

int elf_parse(const uint8_t *data, size_t size, struct elf *e, struct error *err)
{
    uint64_t entry;
    unsigned machine;
    int rc;

    *e = (struct elf){.data = data, .size = size};
    if (!elf_magic(data, size))
        return error_set(err, -EINVAL, "is no ELF file");
    if (size < EHDR32_SIZE || (data[ELF_CLASS] == CLASS_64 && size < EHDR64_SIZE))
        return error_set(err, -EINVAL, "is a truncated ELF file: only %zu bytes; fetch it again",
                         size);
    e->is64 = data[ELF_CLASS] == CLASS_64;
    machine = le16_load(data + 18);
    if ((!e->is64 && data[ELF_CLASS] != CLASS_32) || data[ELF_DATA] != DATA_LITTLE ||
        (machine != MACHINE_X86_64 && (e->is64 || machine != MACHINE_386)))
        return error_set(err, -EINVAL, "is an ELF file for another processor; build it for x86");
    entry = read_header(e);
    if (e->phentsize != (e->is64 ? PHDR64_SIZE : PHDR32_SIZE) ||
        !inside(e->phoff, (uint64_t)e->phnum * e->phentsize, size))
        return error_set(err, -EINVAL,
                         "is a broken ELF file: its table of segments lies outside; fetch or "
                         "build it again");
    if (e->shentsize != (e->is64 ? SHDR64_SIZE : SHDR32_SIZE) ||
        !inside(e->shoff, (uint64_t)e->shnum * e->shentsize, size))
        e->shnum = 0;
    rc = read_segments(e, err);
    return rc != 0 ? rc : find_entry(e, entry, err);
}

struct elf_section elf_section(const struct elf *e, unsigned i)
{
    const uint8_t *p = e->data + e->shoff + (uint64_t)i * e->shentsize;

    if (e->is64)
        return (struct elf_section){
            .type = le32_load(p + 4),
            .flags = le64_load(p + 8),
            .addr = le64_load(p + 16),
            .offset = le64_load(p + 24),
            .size = le64_load(p + 32),
        };
    return (struct elf_section){
        .type = le32_load(p + 4),
        .flags = le32_load(p + 8),
        .addr = le32_load(p + 12),
        .offset = le32_load(p + 16),
        .size = le32_load(p + 20),
    };
}

/* Walks the notes in p[0..size): three words, the owner's name, the content, both padded. */
static const uint8_t *find_note(const uint8_t *p, uint64_t size, uint64_t align, const char *owner,
                                uint32_t type, uint32_t *len)
{
    uint64_t at = 0;

    while (inside(at, NOTE_HEADER, size)) {
        uint32_t name_len = le32_load(p + at), desc_len = le32_load(p + at + 4);
        uint64_t name = at + NOTE_HEADER;
        uint64_t desc = align_up(name + name_len, align);

        if (!inside(name, name_len, size) || !inside(desc, desc_len, size))
            return NULL;
        if (le32_load(p + at + 8) == type && name_len == strlen(owner) + 1 &&
            memcmp(p + name, owner, name_len) == 0) {
            *len = desc_len;
            return p + desc;
        }
        at = align_up(desc + desc_len, align);
    }
    return NULL;
}

const uint8_t *elf_note(const struct elf *e, const char *owner, uint32_t type, uint32_t *len)
{
    for (unsigned i = 0; i < e->phnum; i++) {
        struct phdr ph = phdr_at(e, i);
        const uint8_t *desc;

        if (ph.type != SEGMENT_NOTE || !inside(ph.offset, ph.filesz, e->size))
            continue;
        desc = find_note(e->data + ph.offset, ph.filesz, ph.align == 8 ? 8 : 4, owner, type, len);
        if (desc != NULL)
            return desc;
    }
    return NULL;
}
