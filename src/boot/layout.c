#include "boot/layout.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/endian.h"
#include "boot/decompress.h"
#include "boot/file.h"

#define KERNEL_FILE_MAX (512 * MIB)
#define AREA_ALIGN 16u
/*
 * Structures go here first: over no real-mode vectors, and not where kernels like to copy their
 * 16-bit code, at the bottom and at the very top of low memory.
 */
#define AREA_FLOOR 0x10000ull
#define AREA_CEILING 0x80000ull

/* What a PC's firmware leaves in its data areas. */
#define BDA 0x400u
#define BDA_SIZE 0x20u
#define BDA_EBDA_SEGMENT 0x0Eu
#define BDA_EQUIPMENT 0x10u
#define BDA_EQUIPMENT_COM 9u /* bit; the number of serial ports */
#define BDA_MEMORY_KIB 0x13u
#define EBDA_KIB 1u /* its first byte is its size */
#define VGA_HOLE 0xA0000u
#define BIOS_FIRST 0x10u /* below are exceptions and the first PIC's interrupts */
#define BIOS_IRQ8 0x70u  /* the second PIC's */
#define NO_SERVICE 0x500u

#define SEL_CODE 0x10u
#define SEL_DATA 0x18u
#define SEL_TSS 0x08u
#define GDT_TSS 0x00008B0000000067ull
#define GDT_CODE32 0x00CF9B000000FFFFull
#define GDT_DATA 0x00CF93000000FFFFull

void layout_init(struct layout *l, const struct board *b, const char *kernel)
{
    *l = (struct layout){.board = b, .kernel = kernel, .top = MIB};
}

/* There is no BIOS: each of its services answers "not supported", carry and AH, to 16-bit code. */
static const uint8_t no_service[] = {
    0xB4, 0x86,             /* mov ah, 0x86 */
    0x55,                   /* push bp */
    0x89, 0xE5,             /* mov bp, sp */
    0x80, 0x4E, 0x06, 0x01, /* or byte [bp + 6], 1: the caller's carry flag */
    0x5D,                   /* pop bp */
    0xCF,                   /* iret: what exceptions and hardware interrupts get */
};

static int write_vectors(struct gmem *mem)
{
    uint8_t ivt[4 * 256] = {0};

    for (unsigned i = 0; i < 256; i++) {
        bool service = i >= BIOS_FIRST && (i < BIOS_IRQ8 || i >= BIOS_IRQ8 + 8);

        le16_store(ivt + 4 * (size_t)i, NO_SERVICE + (service ? 0 : sizeof(no_service) - 1));
    }
    return gmem_write(mem, 0, ivt, sizeof(ivt)) != 0 ||
                   gmem_write(mem, NO_SERVICE, no_service, sizeof(no_service)) != 0
               ? -EFAULT
               : 0;
}

int layout_bios_data(struct layout *l)
{
    struct gmem *mem = l->board->mem;
    static const uint16_t com[4] = {0x3F8, 0x2F8, 0x3E8, 0x2E8};
    uint8_t bda[BDA_SIZE] = {0};
    unsigned n = 0;

    for (unsigned i = 0; i < countof(com); i++) {
        if (l->board->com[i])
            le16_store(bda + 2 * (size_t)n++, com[i]);
    }
    le16_store(bda + BDA_EBDA_SEGMENT, LAYOUT_LOW_END >> 4);
    le16_store(bda + BDA_EQUIPMENT, (uint16_t)(n << BDA_EQUIPMENT_COM));
    le16_store(bda + BDA_MEMORY_KIB, LAYOUT_LOW_END / KIB);
    if (gmem_lowmem(mem) < VGA_HOLE)
        return 0; /* nor has it conventional memory of that size */
    return write_vectors(mem) != 0 || gmem_write(mem, BDA, bda, sizeof(bda)) != 0 ||
                   gmem_write(mem, LAYOUT_LOW_END, &(uint8_t){EBDA_KIB}, 1) != 0
               ? -EFAULT
               : 0;
}

/* The range that overlaps [base, end), or NULL. */
static const struct layout_range *overlap(const struct layout *l, uint64_t base, uint64_t end)
{
    for (unsigned i = 0; i < l->n; i++) {
        if (base < l->used[i].end && l->used[i].base < end)
            return &l->used[i];
    }
    return NULL;
}

static bool mark(struct layout *l, uint64_t base, uint64_t end)
{
    if (l->n == LAYOUT_MAX)
        return false;
    l->used[l->n++] = (struct layout_range){base, end};
    return true;
}

int layout_segment(struct layout *l, uint64_t addr, const uint8_t *data, uint64_t filesz,
                   uint64_t memsz, struct error *err)
{
    struct gmem *mem = l->board->mem;
    uint64_t end;

    assert(filesz <= memsz);
    if (memsz == 0)
        return 0;
    if (__builtin_add_overflow(addr, memsz, &end) || end > gmem_lowmem(mem))
        return error_set(err, -ENOMEM,
                         "kernel '%s' wants %#llx bytes at %#llx, but memory ends at %#llx; give "
                         "the VM more (-m, of which at most 3G count here)",
                         l->kernel, (unsigned long long)memsz, (unsigned long long)addr,
                         (unsigned long long)gmem_lowmem(mem));
    if (addr < MIB && end > LAYOUT_LOW_END)
        return error_set(err, -EINVAL,
                         "kernel '%s' wants to lie at %#llx to %#llx, over the firmware's tables "
                         "below 1 MiB; link it to start at 1 MiB",
                         l->kernel, (unsigned long long)addr, (unsigned long long)end);
    if (overlap(l, addr, end) != NULL)
        return error_set(err, -EINVAL,
                         "kernel '%s' has two segments that overlap at %#llx; build it again",
                         l->kernel, (unsigned long long)max_u64(addr, overlap(l, addr, end)->base));
    if (!mark(l, addr, end))
        return error_set(err, -EINVAL, "kernel '%s' has too many segments; link it into fewer",
                         l->kernel);
    if (gmem_write(mem, addr, data, filesz) != 0 ||
        gmem_fill(mem, addr + filesz, 0, memsz - filesz) != 0)
        return error_set(err, -EFAULT, "kernel '%s' cannot be written to memory at %#llx",
                         l->kernel, (unsigned long long)addr);
    l->top = max_u64(l->top, end);
    return 0;
}

bool layout_take(struct layout *l, uint64_t floor, uint64_t end, uint64_t size, uint64_t *addr)
{
    const struct layout_range *r;
    uint64_t at = align_up(floor, GMEM_PAGE);

    while (at <= end && size <= end - at) {
        r = overlap(l, at, at + size);
        if (r == NULL) {
            *addr = at;
            return size == 0 || mark(l, at, at + size);
        }
        at = align_up(r->end, GMEM_PAGE);
    }
    return false;
}

int layout_file(struct layout *l, const char *what, const char *path, uint64_t *addr,
                uint64_t *size, struct error *err)
{
    uint64_t end = gmem_lowmem(l->board->mem), len;
    void *to = NULL;
    int rc, fd = file_open(what, path, UINT32_MAX, &len, err);

    if (fd < 0)
        return fd;
    if (layout_take(l, l->top, end, len, addr))
        to = gmem_ptr(l->board->mem, *addr, len);
    if (to == NULL) {
        rc = error_set(err, -ENOMEM,
                       "%s '%s' has %llu bytes, but of the memory above the kernel only %llu are "
                       "left below 3 GiB; give the VM more (-m)",
                       what, path, (unsigned long long)len,
                       (unsigned long long)(end > l->top ? end - l->top : 0));
    } else {
        rc = file_read(what, path, fd, to, len, err);
        gmem_written(l->board->mem, *addr, len);
        l->top = *addr + len;
        *size = len;
    }
    close(fd);
    return rc;
}

int layout_read_kernel(const char *path, uint8_t **data, uint64_t *size, struct error *err)
{
    uint8_t *packed, *image = NULL;
    size_t len = 0;
    int rc = file_load("kernel", path, KERNEL_FILE_MAX, data, size, err);

    if (rc != 0 || packing_of(*data, *size) != PACKING_GZIP)
        return rc;
    packed = *data;
    rc = unpack(packed, *size, KERNEL_FILE_MAX, &image, &len, err);
    free(packed);
    *data = image;
    *size = len;
    if (rc != 0)
        error_prefix(err, "kernel '%s'", path);
    return rc;
}

/* ---- area ---- */

size_t area_room(size_t len)
{
    return align_up(len, AREA_ALIGN);
}

int area_create(struct layout *l, size_t size, struct area *a, struct error *err)
{
    uint64_t low = gmem_lowmem(l->board->mem);

    *a = (struct area){.size = align_up(size, GMEM_PAGE)};
    if (!layout_take(l, AREA_FLOOR, min_u64(low, AREA_CEILING), a->size, &a->addr) &&
        !layout_take(l, GMEM_PAGE, min_u64(low, LAYOUT_LOW_END), a->size, &a->addr) &&
        !layout_take(l, l->top, low, a->size, &a->addr))
        return error_set(err, -ENOMEM,
                         "beside kernel '%s' the VM has no memory for what the kernel must be "
                         "told; give it more (-m)",
                         l->kernel);
    a->buf = calloc(1, a->size);
    if (a->buf == NULL)
        return error_set(err, -ENOMEM, "no memory to load kernel '%s'", l->kernel);
    return 0;
}

uint64_t area_put(struct area *a, const void *data, size_t len)
{
    uint64_t addr = a->addr + a->used;

    assert(area_room(len) <= a->size - a->used); /* the caller has counted */
    if (data != NULL)
        memcpy(a->buf + a->used, data, len);
    a->used += area_room(len);
    return addr;
}

uint8_t *area_at(const struct area *a, uint64_t addr)
{
    return a->buf + (addr - a->addr);
}

int area_finish(struct layout *l, struct area *a, bool ok)
{
    int rc = ok ? gmem_write(l->board->mem, a->addr, a->buf, a->size) : 0;

    free(a->buf);
    a->buf = NULL;
    return rc;
}

/* attr as in struct x86_segment: present, S, accessed, G, 32 bits. */
static const struct x86_segment flat_code = {SEL_CODE, 0xC09B, UINT32_MAX, 0};
static const struct x86_segment flat_data = {SEL_DATA, 0xC093, UINT32_MAX, 0};
static const struct x86_segment busy_tss = {SEL_TSS, 0x008B, 0x67, 0};

void layout_enter32(struct x86_state *s, const struct area *a, uint64_t gdt, uint64_t entry)
{
    uint8_t *p = area_at(a, gdt);

    le64_store(p + SEL_TSS, GDT_TSS);
    le64_store(p + SEL_CODE, GDT_CODE32);
    le64_store(p + SEL_DATA, GDT_DATA);
    memset(s->gpr, 0, sizeof(s->gpr));
    s->rip = entry;
    s->rflags = X86_FL_FIXED;
    for (unsigned i = 0; i < X86_SEG_COUNT; i++)
        s->seg[i] = flat_data;
    s->seg[X86_CS] = flat_code;
    s->tr = busy_tss;
    s->gdtr = (struct x86_dtable){gdt, AREA_GDT_SIZE - 1};
    s->idtr = (struct x86_dtable){0, 0};
    s->cr0 = X86_CR0_PE | X86_CR0_ET;
    s->cr3 = s->cr4 = s->efer = 0;
    s->mp_state = X86_MP_RUNNING;
}
