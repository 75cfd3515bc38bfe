#include "boot/linux.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/endian.h"
#include "boot/decompress.h"
#include "boot/file.h"
#include "boot/kaslr.h"
#include "boot/tables.h"
#include "boot/vmlinux.h"

/*
 * Low memory while the kernel starts:
 *
 *     0x1000 random seed   0x2000 GDT   0x3000 zero page   0x4000 command line
 *     0x10000 page tables   0x20000 command line that is too long for 0x4000
 */
#define SEED_ADDR 0x1000ull
#define GDT_ADDR 0x2000ull
#define ZERO_PAGE_ADDR 0x3000ull
#define CMDLINE_ADDR 0x4000ull
#define PAGE_TABLES_ADDR 0x10000ull
#define LONG_CMDLINE_ADDR 0x20000ull
#define LONG_CMDLINE_END 0x9F000ull
#define GUEST_UNPACK_ADDR 0x100000ull
#define UNPACK_LEAD (2 * MIB) /* what an unpacked kernel has before its first segment */

#define KERNEL_FILE_MAX (512 * MIB)
#define UNPACKED_MAX (512 * MIB)
#define KERNEL_ALIGN_MIN (2 * MIB) /* startup_64 maps itself with 2 MiB pages */
#define ENTRY64_OFFSET 0x200u
#define SEL_CODE 0x10u
#define SEL_DATA 0x18u

/* The setup header: offsets in the file and in the zero page. Linux: x86 boot protocol */
#define HDR_START 0x1F1u
#define HDR_SETUP_SECTS 0x1F1u
#define HDR_SYSSIZE 0x1F4u
#define HDR_VID_MODE 0x1FAu
#define HDR_BOOT_FLAG 0x1FEu
#define HDR_JUMP_LEN 0x201u
#define HDR_MAGIC 0x202u
#define HDR_VERSION 0x206u
#define HDR_LOADER 0x210u
#define HDR_LOADFLAGS 0x211u
#define HDR_CODE32_START 0x214u
#define HDR_INITRD_ADDR 0x218u
#define HDR_INITRD_SIZE 0x21Cu
#define HDR_CMDLINE 0x228u
#define HDR_INITRD_MAX 0x22Cu
#define HDR_ALIGN 0x230u
#define HDR_RELOCATABLE 0x234u
#define HDR_XLOADFLAGS 0x236u
#define HDR_CMDLINE_MAX 0x238u
#define HDR_PAYLOAD_OFFSET 0x248u
#define HDR_PAYLOAD_LEN 0x24Cu
#define HDR_SETUP_DATA 0x250u
#define HDR_PREF_ADDR 0x258u
#define HDR_INIT_SIZE 0x260u
#define HDR_MIN_END 0x23Cu /* header of protocol 2.06 */
#define HDR_MAX_END 0x290u /* where the zero page goes on with other things */

#define ZP_RSDP 0x070u
#define ZP_E820_COUNT 0x1E8u
#define ZP_E820 0x2D0u
#define ZP_E820_ENTRY 20u

#define SETUP_DATA_SIZE 16u /* next, type, length */
#define SETUP_RNG_SEED 9u
#define SEED_SIZE 32u

#define LOADFLAG_HIGH 0x01u
#define LOADFLAG_KASLR 0x02u
#define LOADFLAG_HEAP 0x80u
#define XLF_KERNEL_64 0x01u
#define LOADER_UNDEFINED 0xFFu

struct bzimage {
    uint8_t *data;
    uint64_t size;
    size_t header_end;
    uint16_t version;
    uint64_t initrd_max; /* highest byte an initrd may have */
    uint64_t align;
    uint32_t cmdline_max;
    bool relocatable, entry64;
    uint64_t pref, init_size; /* 0 before protocol 2.10 */
    const uint8_t *code;      /* the protected-mode part, and its length */
    uint64_t code_size;
    const uint8_t *payload; /* NULL before protocol 2.08 */
    uint64_t payload_size;
};

struct load {
    const struct board *b;
    const struct linux_params *p;
    const char *cmdline;
    struct bzimage img;
    struct linux_info info;
    uint64_t cmdline_addr;
};

static int bad_kernel(const struct load *l, struct error *err, const char *why)
{
    return error_set(err, -EINVAL, "kernel '%s' %s", l->p->kernel, why);
}

static int parse_code(const struct load *l, struct bzimage *k, struct error *err)
{
    uint64_t sects = k->data[HDR_SETUP_SECTS] != 0 ? k->data[HDR_SETUP_SECTS] : 4;
    uint64_t start = (sects + 1) * 512;

    if (start >= k->size)
        return bad_kernel(l, err, "is truncated: nothing follows its setup code; fetch it again");
    k->code = k->data + start;
    k->code_size = k->size - start;
    /* syssize counts 16-byte units and may include a last partial one and a checksum. */
    if (le32_load(k->data + HDR_SYSSIZE) * 16ull > align_up(k->code_size, 16))
        return bad_kernel(l, err, "is truncated: its header promises more; fetch it again");
    if (k->version >= 0x208) {
        uint64_t offset = le32_load(k->data + HDR_PAYLOAD_OFFSET);
        uint64_t len = le32_load(k->data + HDR_PAYLOAD_LEN);

        if (offset > k->code_size || len > k->code_size - offset)
            return bad_kernel(l, err, "has a payload beyond its end; fetch it again");
        k->payload = k->code + offset;
        k->payload_size = len;
    }
    return 0;
}

static int parse_bzimage(const struct load *l, struct bzimage *k, struct error *err)
{
    const uint8_t *d = k->data;
    uint32_t align;

    if (k->size >= 4 && memcmp(d, "\177ELF", 4) == 0)
        return bad_kernel(l, err, "is an ELF file; give the bzImage (arch/x86/boot/bzImage)");
    if (k->size < HDR_MAX_END || le16_load(d + HDR_BOOT_FLAG) != 0xAA55 ||
        memcmp(d + HDR_MAGIC, "HdrS", 4) != 0)
        return bad_kernel(l, err, "is not a Linux bzImage; give an x86 vmlinuz file");
    k->version = le16_load(d + HDR_VERSION);
    if (k->version < 0x206)
        return error_set(err, -ENOTSUP,
                         "kernel '%s' has boot protocol %u.%02u; 2.06 (Linux 2.6.22) or newer is "
                         "needed",
                         l->p->kernel, k->version >> 8, k->version & 0xFF);
    if ((d[HDR_LOADFLAGS] & LOADFLAG_HIGH) == 0)
        return bad_kernel(l, err, "is a zImage, loaded below 1 MiB; build a bzImage");
    k->header_end = HDR_MAGIC + d[HDR_JUMP_LEN];
    if (k->header_end < HDR_MIN_END)
        return bad_kernel(l, err, "has a broken setup header; fetch it again");
    if (k->header_end > HDR_MAX_END)
        k->header_end = HDR_MAX_END;
    k->initrd_max = le32_load(d + HDR_INITRD_MAX);
    align = le32_load(d + HDR_ALIGN);
    k->align = align != 0 && (align & (align - 1)) == 0 ? align : 0;
    k->relocatable = d[HDR_RELOCATABLE] != 0;
    k->cmdline_max = le32_load(d + HDR_CMDLINE_MAX);
    if (k->version >= 0x20A) {
        k->pref = le64_load(d + HDR_PREF_ADDR);
        k->init_size = le32_load(d + HDR_INIT_SIZE);
    }
    k->entry64 = k->version >= 0x20C && (le16_load(d + HDR_XLOADFLAGS) & XLF_KERNEL_64) != 0;
    return parse_code(l, k, err);
}

static int place_cmdline(struct load *l, struct error *err)
{
    uint64_t len = strlen(l->cmdline);

    if (len > l->img.cmdline_max)
        return error_set(err, -E2BIG,
                         "the command line has %llu characters, but kernel '%s' takes at most %u; "
                         "shorten it",
                         (unsigned long long)len, l->p->kernel, l->img.cmdline_max);
    if (len < PAGE_TABLES_ADDR - CMDLINE_ADDR)
        l->cmdline_addr = CMDLINE_ADDR;
    else if (len < LONG_CMDLINE_END - LONG_CMDLINE_ADDR)
        l->cmdline_addr = LONG_CMDLINE_ADDR;
    else
        return error_set(err, -E2BIG,
                         "the command line has %llu characters, but at most %llu fit in low "
                         "memory; shorten it",
                         (unsigned long long)len,
                         (unsigned long long)(LONG_CMDLINE_END - LONG_CMDLINE_ADDR - 1));
    if (gmem_write(l->b->mem, l->cmdline_addr, l->cmdline, len + 1) != 0)
        return error_set(err, -ENOMEM,
                         "the VM has no memory for the command line; use -m 64M or "
                         "more");
    return 0;
}

/* As high as the kernel allows: away from wherever it unpacks or goes itself. */
static int load_initrd(struct load *l, struct error *err)
{
    struct linux_info *info = &l->info;
    uint64_t top = min_u64(gmem_lowmem(l->b->mem), l->img.initrd_max + 1);
    const char *path = l->p->initrd;
    uint64_t size, addr;
    void *to;
    int fd, rc;

    if (path == NULL)
        return 0;
    fd = file_open("initrd", path, UINT32_MAX, &size, err);
    if (fd < 0)
        return fd;
    addr = size < top ? align_down(top - size, GMEM_PAGE) : 0;
    to = addr >= GUEST_UNPACK_ADDR ? gmem_ptr(l->b->mem, addr, size) : NULL;
    if (to == NULL) {
        rc = error_set(err, -ENOMEM,
                       "initrd '%s' has %llu bytes, but only %llu MiB of memory can hold it; give "
                       "the VM more memory (-m)",
                       path, (unsigned long long)size, (unsigned long long)(top / MIB));
    } else {
        rc = file_read("initrd", path, fd, to, size, err);
        gmem_written(l->b->mem, addr, size);
        info->initrd_addr = addr;
        info->initrd_size = size;
    }
    close(fd);
    return rc;
}

/* RAM for the kernel, around the initrd and above `floor`. Returns the number of ranges. */
static unsigned free_ranges(const struct load *l, uint64_t floor, struct kaslr_range r[2])
{
    uint64_t low = gmem_lowmem(l->b->mem);

    if (l->info.initrd_size == 0) {
        r[0] = (struct kaslr_range){floor, low};
        return 1;
    }
    r[0] = (struct kaslr_range){floor, l->info.initrd_addr};
    r[1] = (struct kaslr_range){max_u64(floor, l->info.initrd_addr + l->info.initrd_size), low};
    return 2;
}

static int no_room(const struct load *l, uint64_t need, struct error *err)
{
    return error_set(err, -ENOMEM,
                     "kernel '%s' needs %llu MiB of memory beside its initrd (%llu MiB), but the "
                     "VM has %llu MiB; give it more (-m)",
                     l->p->kernel, (unsigned long long)((need + MIB - 1) / MIB),
                     (unsigned long long)((l->info.initrd_size + MIB - 1) / MIB),
                     (unsigned long long)(gmem_size(l->b->mem) / MIB));
}

/* The kernel is at phys: moves its virtual addresses, if they may be, and notes where it is. */
static void moved_vmlinux(struct load *l, const struct vmlinux *v, uint64_t phys, uint8_t *to,
                          uint64_t need, bool random)
{
    uint64_t slide = 0;

    if (random && v->link + need <= VMLINUX_WINDOW)
        slide = kaslr_random((VMLINUX_WINDOW - v->link - need) / l->img.align + 1) * l->img.align;
    vmlinux_relocate(v, to, slide);
    l->info.direct = true;
    l->info.entry64 = true;
    l->info.phys = phys;
    l->info.virt_slide = slide;
    l->info.virt = VMLINUX_MAP + v->link + slide;
    l->info.size = v->span;
    l->info.entry = phys + v->entry;
    if (random)
        gmem_write(l->b->mem, ZERO_PAGE_ADDR + HDR_LOADFLAGS,
                   &(uint8_t){LOADFLAG_HIGH | LOADFLAG_KASLR}, 1);
}

/*
 * Places the unpacked kernel. The list of places to change exists only where the kernel was built
 * to be moved, so without it the virtual addresses stay; the physical ones may differ in any case.
 */
static int place_vmlinux(struct load *l, const struct vmlinux *v, struct error *err)
{
    bool random = v->movable && !cmdline_has_word(l->cmdline, "nokaslr");
    uint64_t need = max_u64(v->span, l->img.init_size);
    struct kaslr_range ranges[2];
    uint64_t phys;
    uint8_t *to;

    if (!kaslr_place(ranges, free_ranges(l, v->link, ranges), need, l->img.align, random, &phys))
        return no_room(l, v->link + need, err);
    to = gmem_ptr(l->b->mem, phys, v->span);
    if (to == NULL)
        return no_room(l, v->link + need, err);
    vmlinux_copy(v, to);
    moved_vmlinux(l, v, phys, to, need, random);
    gmem_written(l->b->mem, phys, v->span);
    return 0;
}

/*
 * Unpacks the kernel into guest memory so that its first segment comes to lie where it belongs and
 * the others need to move a little, if at all: clearing pages for another copy would take as long
 * as unpacking. 1: done; 0: this kernel is not like that, nothing is left of it; or an error.
 */
static int load_in_place(struct load *l, size_t size, struct error *why)
{
    bool random = !cmdline_has_word(l->cmdline, "nokaslr");
    uint64_t lead = max_u64(UNPACK_LEAD, l->img.align), base;
    uint64_t need = max_u64(size, l->img.init_size);
    struct kaslr_range ranges[2];
    void *places = NULL;
    struct vmlinux v;
    uint8_t *to;
    int rc;

    if (l->img.pref < GUEST_UNPACK_ADDR + lead ||
        !kaslr_place(ranges, free_ranges(l, l->img.pref - lead, ranges), lead + need, l->img.align,
                     random, &base))
        return 0;
    to = gmem_ptr(l->b->mem, base, lead + need);
    if (to == NULL)
        return 0;
    rc = unpack_to(l->img.payload, l->img.payload_size, to, size, why);
    if (rc == 0 && (vmlinux_parse(to, size, l->img.pref, &v, why) != 0 || v.span > need ||
                    (random && !v.movable) || vmlinux_settle(&v, to + lead, &places) != 0)) {
        memset(to, 0, size);
    } else if (rc == 0) {
        memset(to, 0, lead);
        if (lead + v.span < size)
            memset(to + lead + v.span, 0, size - lead - v.span);
        moved_vmlinux(l, &v, base + lead, to + lead, need, random);
        rc = 1;
    }
    gmem_written(l->b->mem, base, lead + need);
    free(places);
    return rc;
}

/* Why this image must unpack itself; NULL if the host can try. */
static const char *guest_unpack_reason(const struct load *l)
{
    const struct bzimage *k = &l->img;

    if (l->p->decompress == LINUX_DECOMPRESS_GUEST)
        return "as configured";
    if (k->payload == NULL || k->version < 0x20A)
        return "its boot protocol is older than 2.10";
    if (!k->entry64)
        return "it offers no 64-bit entry";
    if (!k->relocatable || k->align < KERNEL_ALIGN_MIN || (k->pref & (k->align - 1)) != 0)
        return "it cannot be moved";
    return NULL;
}

/* 1: done; 0: the guest must do it (logged); negative: an error. */
static int load_direct(struct load *l, struct error *err)
{
    const char *reason = guest_unpack_reason(l);
    uint64_t max = min_u64(UNPACKED_MAX, gmem_lowmem(l->b->mem));
    struct error why = {0};
    struct vmlinux v;
    uint8_t *image = NULL;
    size_t size;
    int rc;

    if (reason == NULL) {
        rc = unpack_size(l->img.payload, l->img.payload_size, max, &size, &why);
        if (rc == 0)
            rc = load_in_place(l, size, &why);
        if (rc == 1)
            return 1;
        if (rc == 0)
            rc = unpack(l->img.payload, l->img.payload_size, max, &image, &size, &why);
        if (rc != 0 && rc != -ENOTSUP)
            return error_set(err, rc, "kernel '%s': %s", l->p->kernel, why.text);
        if (rc == 0)
            rc = vmlinux_parse(image, size, l->img.pref, &v, &why);
        if (rc != 0)
            reason = why.text;
    }
    if (reason != NULL) {
        log_info(l->b->log, "kernel '%s' unpacks itself: %s", l->p->kernel, reason);
        free(image);
        return 0;
    }
    if (!v.movable)
        log_info(l->b->log, "kernel '%s' has no list of relocations: no KASLR", l->p->kernel);
    rc = place_vmlinux(l, &v, err);
    free(image);
    return rc != 0 ? rc : 1;
}

/*
 * The image as it is, at 1 MiB; it moves itself out of its own way. What it unpacks to must fit
 * below the initrd; kernels too old to say how much that is get an estimate.
 */
static int load_packed(struct load *l, struct error *err)
{
    const struct bzimage *k = &l->img;
    uint64_t room = k->init_size != 0 ? k->init_size : 4 * k->code_size;
    uint64_t start = k->relocatable ? max_u64(k->pref, GUEST_UNPACK_ADDR) : GUEST_UNPACK_ADDR;
    uint64_t top = l->info.initrd_size != 0 ? l->info.initrd_addr : gmem_lowmem(l->b->mem);
    uint64_t end;

    if (__builtin_add_overflow(start, room, &end) || end > top)
        return no_room(l, end, err);
    if (k->code_size > top - GUEST_UNPACK_ADDR ||
        gmem_write(l->b->mem, GUEST_UNPACK_ADDR, k->code, k->code_size) != 0)
        return no_room(l, GUEST_UNPACK_ADDR + k->code_size, err);
    l->info.entry64 = k->entry64;
    l->info.phys = GUEST_UNPACK_ADDR;
    l->info.entry = GUEST_UNPACK_ADDR + (k->entry64 ? ENTRY64_OFFSET : 0);
    return 0;
}

/*
 * A seed for the guest's random numbers, which a VM without RDRAND would gather for minutes.
 * Kernels before 6.0 do not know this type and pass over it. Returns its address, 0 if there is
 * none.
 */
static uint64_t write_seed(const struct load *l)
{
    uint8_t s[SETUP_DATA_SIZE + SEED_SIZE] = {0};

    if (l->img.version < 0x209 || !kaslr_bytes(s + SETUP_DATA_SIZE, SEED_SIZE))
        return 0;
    le32_store(s + 8, SETUP_RNG_SEED);
    le32_store(s + 12, SEED_SIZE);
    return gmem_write(l->b->mem, SEED_ADDR, s, sizeof(s)) == 0 ? SEED_ADDR : 0;
}

/* What does not depend on where the kernel goes. */
static void build_zero_page(const struct load *l, uint8_t zp[GMEM_PAGE])
{
    struct e820_entry map[E820_MAX];
    unsigned n = e820_build(l->b, map);

    memset(zp, 0, GMEM_PAGE);
    memcpy(zp + HDR_START, l->img.data + HDR_START, l->img.header_end - HDR_START);
    zp[HDR_LOADER] = LOADER_UNDEFINED;
    zp[HDR_LOADFLAGS] = LOADFLAG_HIGH;
    le16_store(zp + HDR_VID_MODE, 0xFFFF); /* "normal" */
    le32_store(zp + HDR_CODE32_START, (uint32_t)GUEST_UNPACK_ADDR);
    le32_store(zp + HDR_CMDLINE, (uint32_t)l->cmdline_addr);
    le32_store(zp + HDR_INITRD_ADDR, (uint32_t)l->info.initrd_addr);
    le32_store(zp + HDR_INITRD_SIZE, (uint32_t)l->info.initrd_size);
    le64_store(zp + HDR_SETUP_DATA, write_seed(l));
    if (l->img.version >= 0x20E)
        le64_store(zp + ZP_RSDP, l->p->rsdp);
    zp[ZP_E820_COUNT] = (uint8_t)n;
    for (unsigned i = 0; i < n; i++) {
        uint8_t *e = zp + ZP_E820 + (size_t)i * ZP_E820_ENTRY;

        le64_store(e, map[i].base);
        le64_store(e + 8, map[i].size);
        le32_store(e + 16, map[i].type);
    }
}

#define GDT_CODE32 0x00CF9B000000FFFFull
#define GDT_CODE64 0x00AF9B000000FFFFull
#define GDT_DATA 0x00CF93000000FFFFull

/* Identity map of the low 4 GiB: one PML4, one PDPT, four directories of 2 MiB pages. */
static int write_page_tables(struct gmem *m)
{
    enum { PRESENT_WRITE = 0x3, LARGE = 0x80, DIRS = 4, ENTRIES = 512 };
    uint64_t *t = calloc(2 + DIRS, GMEM_PAGE);
    int rc;

    if (t == NULL)
        return -ENOMEM;
    t[0] = (PAGE_TABLES_ADDR + GMEM_PAGE) | PRESENT_WRITE;
    for (unsigned i = 0; i < DIRS; i++)
        t[ENTRIES + i] = (PAGE_TABLES_ADDR + (2ull + i) * GMEM_PAGE) | PRESENT_WRITE;
    for (unsigned i = 0; i < DIRS * ENTRIES; i++)
        t[2 * ENTRIES + i] = (uint64_t)i * 2 * MIB | LARGE | PRESENT_WRITE;
    rc = gmem_write(m, PAGE_TABLES_ADDR, t, (size_t)(2 + DIRS) * GMEM_PAGE);
    free(t);
    return rc;
}

/* attr of flat segments, see struct x86_segment: present, S, accessed, G; code L or D. */
static const struct x86_segment flat_code32 = {SEL_CODE, 0xC09B, UINT32_MAX, 0};
static const struct x86_segment flat_code64 = {SEL_CODE, 0xA09B, UINT32_MAX, 0};
static const struct x86_segment flat_data = {SEL_DATA, 0xC093, UINT32_MAX, 0};
/* VMX refuses long mode without a busy 64-bit TSS in the hidden part of TR. */
static const struct x86_segment busy_tss = {0, 0x008B, 0xFFFF, 0};

static int set_registers(const struct load *l, struct x86_state *s)
{
    bool long_mode = l->info.entry64;
    const uint64_t gdt[4] = {0, 0, long_mode ? GDT_CODE64 : GDT_CODE32, GDT_DATA};

    if (gmem_write(l->b->mem, GDT_ADDR, gdt, sizeof(gdt)) != 0)
        return -EFAULT;
    if (long_mode && write_page_tables(l->b->mem) != 0)
        return -EFAULT;
    memset(s->gpr, 0, sizeof(s->gpr));
    s->gpr[X86_RSI] = ZERO_PAGE_ADDR;
    s->rip = l->info.entry;
    s->rflags = X86_FL_FIXED;
    for (unsigned i = 0; i < X86_SEG_COUNT; i++)
        s->seg[i] = flat_data;
    s->seg[X86_CS] = long_mode ? flat_code64 : flat_code32;
    s->tr = busy_tss;
    s->gdtr = (struct x86_dtable){GDT_ADDR, sizeof(gdt) - 1};
    s->idtr = (struct x86_dtable){0, 0};
    s->cr0 = X86_CR0_PE | X86_CR0_ET | X86_CR0_NE;
    s->cr3 = s->cr4 = s->efer = 0;
    if (long_mode) {
        s->cr0 |= X86_CR0_PG | X86_CR0_WP;
        s->cr3 = PAGE_TABLES_ADDR;
        s->cr4 = X86_CR4_PAE;
        s->efer = X86_EFER_LME | X86_EFER_LMA;
    }
    s->mp_state = X86_MP_RUNNING;
    return 0;
}

static void log_result(const struct load *l)
{
    const struct linux_info *i = &l->info;

    log_info(l->b->log, "kernel '%s' (%s) %s at %#llx, slide %#llx, %s-bit entry %#llx",
             l->p->kernel, i->compression, i->direct ? "unpacked" : "loaded",
             (unsigned long long)i->phys, (unsigned long long)i->virt_slide,
             i->entry64 ? "64" : "32", (unsigned long long)i->entry);
}

static int load_image(struct load *l, struct x86_state *state, struct error *err)
{
    uint8_t zp[GMEM_PAGE];
    int rc;

    rc = parse_bzimage(l, &l->img, err);
    if (rc != 0)
        return rc;
    if (l->img.payload != NULL)
        snprintf(l->info.compression, sizeof(l->info.compression), "%s",
                 packing_name(packing_of(l->img.payload, l->img.payload_size)));
    rc = place_cmdline(l, err);
    if (rc != 0)
        return rc;
    rc = load_initrd(l, err);
    if (rc != 0)
        return rc;
    build_zero_page(l, zp);
    if (gmem_write(l->b->mem, ZERO_PAGE_ADDR, zp, sizeof(zp)) != 0)
        return no_room(l, MIB, err);
    rc = load_direct(l, err);
    if (rc == 0)
        rc = load_packed(l, err);
    if (rc < 0)
        return rc;
    if (set_registers(l, state) != 0)
        return no_room(l, MIB, err);
    log_result(l);
    return 0;
}

int linux_load(const struct board *b, const struct linux_params *p, struct x86_state *state,
               struct linux_info *info, struct error *err)
{
    struct load l = {.b = b, .p = p, .cmdline = p->cmdline != NULL ? p->cmdline : ""};
    int rc = file_load("kernel", p->kernel, KERNEL_FILE_MAX, &l.img.data, &l.img.size, err);

    if (rc != 0)
        return rc;
    rc = load_image(&l, state, err);
    free(l.img.data);
    if (rc == 0 && info != NULL)
        *info = l.info;
    return rc;
}
