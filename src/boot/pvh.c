#include "boot/pvh.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/endian.h"
#include "boot/decompress.h"
#include "boot/layout.h"
#include "boot/tables.h"

#define NOTE_OWNER "Xen"
#define NOTE_PHYS32_ENTRY 18u

/* struct hvm_start_info, version 1, and what it points to. Xen: x86/HVM direct boot ABI */
#define START_MAGIC 0x336EC578u
#define START_VERSION 1u
#define START_SIZE 56u
#define START_AT_VERSION 4u
#define START_AT_MODULES 12u
#define START_AT_MODLIST 16u
#define START_AT_CMDLINE 24u
#define START_AT_RSDP 32u
#define START_AT_MEMMAP 40u
#define START_AT_MEMMAP_COUNT 48u
#define MODULE_SIZE 32u
#define MEMMAP_ENTRY 24u

/* The setup header of a bzImage, as far as it says where the payload is. Linux: x86 boot protocol
 */
#define HDR_SETUP_SECTS 0x1F1u
#define HDR_MAGIC 0x202u
#define HDR_VERSION 0x206u
#define HDR_PAYLOAD_OFFSET 0x248u
#define HDR_PAYLOAD_LEN 0x24Cu
#define HDR_END 0x250u

#define UNPACKED_MAX (512 * MIB)

struct load {
    const struct board *board;
    const struct pvh_params *p;
    uint8_t *data;
    uint64_t size;
    struct elf elf;
    struct layout layout;
    const char *cmdline;
    struct pvh_result res;
};

bool pvh_entry(const struct elf *e, uint64_t *entry)
{
    uint32_t len;
    const uint8_t *desc = elf_note(e, NOTE_OWNER, NOTE_PHYS32_ENTRY, &len);

    if (desc == NULL || (len != 4 && len != 8))
        return false;
    *entry = len == 4 ? le32_load(desc) : le64_load(desc);
    return true;
}

/* Linux in its usual package: its payload in place of the file. */
static int open_bzimage(struct load *l, struct error *err)
{
    uint64_t start, offset, len;
    struct error why = {0};
    uint8_t *image;
    size_t size;
    int rc;

    if (l->size < HDR_END || memcmp(l->data + HDR_MAGIC, "HdrS", 4) != 0)
        return 0;
    start = l->data[HDR_SETUP_SECTS] != 0 ? l->data[HDR_SETUP_SECTS] : 4;
    start = (start + 1) * 512;
    offset = le32_load(l->data + HDR_PAYLOAD_OFFSET);
    len = le32_load(l->data + HDR_PAYLOAD_LEN);
    if (le16_load(l->data + HDR_VERSION) < 0x208 || start > l->size || offset > l->size - start ||
        len > l->size - start - offset)
        return error_set(err, -EINVAL,
                         "kernel '%s' is a bzImage whose payload cannot be found; use -f kexec",
                         l->p->kernel);
    rc = unpack(l->data + start + offset, len, UNPACKED_MAX, &image, &size, &why);
    if (rc != 0)
        return error_set(err, rc, "kernel '%s': %s", l->p->kernel, why.text);
    free(l->data);
    l->data = image;
    l->size = size;
    return 0;
}

static bool in_segment(const struct elf *e, uint64_t addr)
{
    for (unsigned i = 0; i < e->segs; i++) {
        if (addr >= e->seg[i].paddr && addr - e->seg[i].paddr < e->seg[i].memsz)
            return true;
    }
    return false;
}

static int load_kernel(struct load *l, struct error *err)
{
    struct error why = {0};
    int rc = layout_read_kernel(l->p->kernel, &l->data, &l->size, err);

    if (rc == 0)
        rc = open_bzimage(l, err);
    if (rc != 0)
        return rc;
    rc = elf_parse(l->data, l->size, &l->elf, &why);
    if (rc != 0)
        return error_set(err, rc, "kernel '%s' %s", l->p->kernel, why.text);
    if (!pvh_entry(&l->elf, &l->res.entry))
        return error_set(err, -EINVAL,
                         "kernel '%s' has no PVH entry (a note of owner Xen, type 18); for Linux "
                         "build it with CONFIG_PVH, or use -f kexec",
                         l->p->kernel);
    if (!in_segment(&l->elf, l->res.entry))
        return error_set(err, -EINVAL,
                         "kernel '%s' has its PVH entry at %#llx, outside its segments; build it "
                         "again",
                         l->p->kernel, (unsigned long long)l->res.entry);
    for (unsigned i = 0; rc == 0 && i < l->elf.segs; i++) {
        const struct elf_segment *s = &l->elf.seg[i];

        rc = layout_segment(&l->layout, s->paddr, s->data, s->filesz, s->memsz, err);
    }
    return rc;
}

static void put_initrd(const struct load *l, struct area *a, uint8_t *start)
{
    uint64_t addr;

    if (l->p->initrd == NULL)
        return;
    addr = area_put(a, NULL, MODULE_SIZE);
    le64_store(area_at(a, addr), l->res.initrd_addr);
    le64_store(area_at(a, addr) + 8, l->res.initrd_size);
    le32_store(start + START_AT_MODULES, 1);
    le64_store(start + START_AT_MODLIST, addr);
}

static void put_memmap(struct area *a, uint8_t *start, const struct e820_entry *map, unsigned n)
{
    uint64_t addr = area_put(a, NULL, (size_t)n * MEMMAP_ENTRY);
    uint8_t *e = area_at(a, addr);

    for (unsigned i = 0; i < n; i++, e += MEMMAP_ENTRY) {
        le64_store(e, map[i].base);
        le64_store(e + 8, map[i].size);
        le32_store(e + 16, map[i].type); /* the same numbers as e820's */
    }
    le64_store(start + START_AT_MEMMAP, addr);
    le32_store(start + START_AT_MEMMAP_COUNT, n);
}

static int write_info(struct load *l, struct x86_state *state, struct error *err)
{
    struct e820_entry map[E820_MAX];
    unsigned n = e820_build(l->board, map);
    size_t size = area_room(AREA_GDT_SIZE) + area_room(START_SIZE) + area_room(MODULE_SIZE) +
                  area_room((size_t)n * MEMMAP_ENTRY) + area_room(strlen(l->cmdline) + 1);
    struct area a;
    uint8_t *start;
    uint64_t gdt;
    int rc = area_create(&l->layout, size, &a, err);

    if (rc != 0)
        return rc;
    gdt = area_put(&a, NULL, AREA_GDT_SIZE);
    l->res.info = area_put(&a, NULL, START_SIZE);
    start = area_at(&a, l->res.info);
    le32_store(start, START_MAGIC);
    le32_store(start + START_AT_VERSION, START_VERSION);
    put_initrd(l, &a, start);
    le64_store(start + START_AT_CMDLINE, area_put(&a, l->cmdline, strlen(l->cmdline) + 1));
    le64_store(start + START_AT_RSDP, l->p->rsdp);
    put_memmap(&a, start, map, n);
    layout_enter32(state, &a, gdt, l->res.entry);
    state->gpr[X86_RBX] = l->res.info;
    if (area_finish(&l->layout, &a, true) != 0)
        return error_set(err, -EFAULT, "kernel '%s': its start information cannot be written",
                         l->p->kernel);
    return 0;
}

int pvh_load(const struct board *b, const struct pvh_params *p, struct x86_state *state,
             struct pvh_result *result, struct error *err)
{
    struct load l = {.board = b, .p = p, .cmdline = p->cmdline != NULL ? p->cmdline : ""};
    int rc;

    layout_init(&l.layout, b, p->kernel);
    rc = load_kernel(&l, err);
    if (rc == 0 && p->initrd != NULL)
        rc = layout_file(&l.layout, "initrd", p->initrd, &l.res.initrd_addr, &l.res.initrd_size,
                         err);
    if (rc == 0)
        rc = write_info(&l, state, err);
    free(l.data);
    if (rc != 0)
        return rc;
    log_info(b->log, "kernel '%s' (pvh) enters at %#llx, start information at %#llx", p->kernel,
             (unsigned long long)l.res.entry, (unsigned long long)l.res.info);
    if (result != NULL)
        *result = l.res;
    return 0;
}
