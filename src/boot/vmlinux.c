#include "boot/vmlinux.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/endian.h"
#include "boot/elf64.h"

static bool inside(uint64_t offset, uint64_t len, uint64_t size)
{
    return offset <= size && len <= size - offset;
}

/* Where the ELF file ends and the list of places begins: the furthest byte it refers to. */
static uint64_t elf_end(const uint8_t *image, size_t size, const Elf64_Ehdr *eh)
{
    uint64_t end = eh->e_phoff + (uint64_t)eh->e_phnum * sizeof(Elf64_Phdr);
    uint64_t table = (uint64_t)eh->e_shnum * sizeof(Elf64_Shdr);

    for (unsigned i = 0; i < eh->e_phnum; i++) {
        Elf64_Phdr ph;

        memcpy(&ph, image + eh->e_phoff + i * sizeof(ph), sizeof(ph));
        if (inside(ph.p_offset, ph.p_filesz, size))
            end = max_u64(end, ph.p_offset + ph.p_filesz);
    }
    if (eh->e_shentsize != sizeof(Elf64_Shdr) || !inside(eh->e_shoff, table, size))
        return end;
    end = max_u64(end, eh->e_shoff + table);
    for (unsigned i = 0; i < eh->e_shnum; i++) {
        Elf64_Shdr sh;

        memcpy(&sh, image + eh->e_shoff + i * sizeof(sh), sizeof(sh));
        if (sh.sh_type != SHT_NOBITS && inside(sh.sh_offset, sh.sh_size, size))
            end = max_u64(end, sh.sh_offset + sh.sh_size);
    }
    return end;
}

/* Every place must lie in the image, `width` bytes of it. */
static bool places_valid(const struct vmlinux *v, struct vmlinux_places p, unsigned width)
{
    uint64_t first = VMLINUX_MAP + v->link;

    for (size_t i = 0; i < p.n; i++) {
        uint64_t at = (uint64_t)(int64_t)(int32_t)le32_load(p.words + 4 * i);

        if (at < first || !inside(at - first, width, v->span))
            return false;
    }
    return true;
}

/*
 * Collects the groups from the end back to the ELF's end. Two groups: 32 and 64 bits. Three: the
 * inverse one lies between. Any other number means a layout that we do not know.
 */
static bool find_places(const uint8_t *image, size_t size, uint64_t end, struct vmlinux *v)
{
    struct vmlinux_places group[3];
    const uint8_t *p = image + size;
    unsigned groups = 0;
    size_t n = 0;

    while ((uint64_t)(p - image) >= end + 4) {
        p -= 4;
        if (le32_load(p) != 0) {
            n++;
            continue;
        }
        if (groups == countof(group))
            return false;
        group[groups++] = (struct vmlinux_places){p + 4, n};
        n = 0;
    }
    if (n != 0 || groups < 2)
        return false;
    v->abs32 = group[0];
    v->inv32 = groups == 3 ? group[1] : (struct vmlinux_places){NULL, 0};
    v->abs64 = group[groups - 1];
    return v->abs32.n > 0 && places_valid(v, v->abs32, 4) && places_valid(v, v->inv32, 4) &&
           places_valid(v, v->abs64, 8);
}

static int add_segment(const uint8_t *image, size_t size, const Elf64_Phdr *ph, struct vmlinux *v,
                       struct error *err)
{
    uint64_t offset = ph->p_paddr - v->link;

    if (!inside(ph->p_offset, ph->p_filesz, size) || ph->p_filesz > ph->p_memsz)
        return error_set(err, -EINVAL, "its ELF has a segment beyond the end of the file");
    if (ph->p_paddr < v->link || !inside(offset, ph->p_memsz, VMLINUX_WINDOW))
        return error_set(err, -EINVAL, "its ELF has a segment at %#llx, outside the kernel's room",
                         (unsigned long long)ph->p_paddr);
    if (v->segs == VMLINUX_SEGMENTS)
        return error_set(err, -EINVAL, "its ELF has more than %u segments", VMLINUX_SEGMENTS);
    v->seg[v->segs++] = (struct vmlinux_segment){
        .paddr = ph->p_paddr,
        .filesz = ph->p_filesz,
        .memsz = ph->p_memsz,
        .data = image + ph->p_offset,
    };
    v->span = max_u64(v->span, offset + ph->p_memsz);
    return 0;
}

int vmlinux_parse(const uint8_t *image, size_t size, uint64_t link, struct vmlinux *v,
                  struct error *err)
{
    Elf64_Ehdr eh;

    *v = (struct vmlinux){.link = link};
    if (size < sizeof(eh))
        return error_set(err, -EINVAL, "its payload is no ELF file");
    memcpy(&eh, image, sizeof(eh));
    if (memcmp(eh.e_ident, ELFMAG, SELFMAG) != 0)
        return error_set(err, -EINVAL, "its payload is no ELF file");
    if (eh.e_ident[EI_CLASS] != ELFCLASS64 || eh.e_ident[EI_DATA] != ELFDATA2LSB ||
        eh.e_machine != EM_X86_64)
        return error_set(err, -EINVAL, "its ELF is not for 64-bit x86");
    if (eh.e_phentsize != sizeof(Elf64_Phdr) ||
        !inside(eh.e_phoff, (uint64_t)eh.e_phnum * sizeof(Elf64_Phdr), size))
        return error_set(err, -EINVAL, "its ELF has a broken segment table");
    for (unsigned i = 0; i < eh.e_phnum; i++) {
        Elf64_Phdr ph;
        int rc;

        memcpy(&ph, image + eh.e_phoff + i * sizeof(ph), sizeof(ph));
        if (ph.p_type != PT_LOAD || ph.p_memsz == 0)
            continue;
        rc = add_segment(image, size, &ph, v, err);
        if (rc != 0)
            return rc;
    }
    if (eh.e_entry < link || eh.e_entry - link >= v->span)
        return error_set(err, -EINVAL, "its ELF enters at %#llx, outside the kernel",
                         (unsigned long long)eh.e_entry);
    v->entry = eh.e_entry - link;
    v->movable = find_places(image, size, elf_end(image, size, &eh), v);
    return 0;
}

static uint8_t *segment_at(const struct vmlinux *v, unsigned i, uint8_t *to)
{
    return to + (v->seg[i].paddr - v->link);
}

static void clear_rest(const struct vmlinux *v, unsigned i, uint8_t *to)
{
    const struct vmlinux_segment *s = &v->seg[i];

    memset(segment_at(v, i, to) + s->filesz, 0, s->memsz - s->filesz);
}

void vmlinux_copy(const struct vmlinux *v, uint8_t *to)
{
    for (unsigned i = 0; i < v->segs; i++) {
        memcpy(segment_at(v, i, to), v->seg[i].data, v->seg[i].filesz);
        clear_rest(v, i, to);
    }
}

/* Copies a list's words to `to`; returns what is behind them. */
static uint8_t *keep_places(struct vmlinux_places *p, uint8_t *to)
{
    if (p->n != 0)
        memcpy(to, p->words, 4 * p->n);
    p->words = to;
    return to + 4 * p->n;
}

int vmlinux_settle(struct vmlinux *v, uint8_t *to, void **places)
{
    uint8_t *list;

    for (unsigned i = 0; i < v->segs; i++) {
        const uint8_t *data = v->seg[i].data;

        if (segment_at(v, i, to) > data ||
            (i > 0 && data < v->seg[i - 1].data + v->seg[i - 1].filesz))
            return -ENOTSUP;
    }
    list = malloc(4 * (v->abs32.n + v->inv32.n + v->abs64.n) + 1);
    if (list == NULL)
        return -ENOMEM;
    *places = list;
    list = keep_places(&v->abs32, list);
    list = keep_places(&v->inv32, list);
    keep_places(&v->abs64, list);
    for (unsigned i = 0; i < v->segs; i++)
        memmove(segment_at(v, i, to), v->seg[i].data, v->seg[i].filesz);
    for (unsigned i = 0; i < v->segs; i++)
        clear_rest(v, i, to);
    return 0;
}

static uint8_t *place(const struct vmlinux *v, struct vmlinux_places p, size_t i, uint8_t *to)
{
    uint64_t at = (uint64_t)(int64_t)(int32_t)le32_load(p.words + 4 * i);

    return to + (at - VMLINUX_MAP - v->link);
}

void vmlinux_relocate(const struct vmlinux *v, uint8_t *to, uint64_t slide)
{
    uint32_t slide32 = (uint32_t)slide; /* below VMLINUX_WINDOW */
    uint8_t *at;

    if (slide == 0)
        return;
    for (size_t i = 0; i < v->abs32.n; i++) {
        at = place(v, v->abs32, i, to);
        le32_store(at, le32_load(at) + slide32);
    }
    for (size_t i = 0; i < v->inv32.n; i++) {
        at = place(v, v->inv32, i, to);
        le32_store(at, le32_load(at) - slide32);
    }
    for (size_t i = 0; i < v->abs64.n; i++) {
        at = place(v, v->abs64, i, to);
        le64_store(at, le64_load(at) + slide);
    }
}
