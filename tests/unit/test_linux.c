/* The Linux loader: synthetic bzImages, good and bad. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/endian.h"
#include "boot/decompress.h"
#include "boot/kaslr.h"
#include "boot/linux.h"
#include "boot/vmlinux.h"

#if HAVE_ZLIB
#include <zlib.h>
#endif
#if HAVE_ZSTD
#include <zstd.h>
#endif
#if HAVE_LZMA
#include <lzma.h>
#endif
#if HAVE_LZ4
#include <lz4.h>
#endif
#if HAVE_BZ2
#include <bzlib.h>
#endif

#define LINK 0x1000000ull
#define ALIGN 0x200000ull
#define INIT_SIZE 0x400000u
#define PERCPU 0x200000u /* offset of the segment with virtual address 0 */
#define RAM (64 * MIB)

/* Offsets in the kernel of the places that a slide changes, and what they hold. */
#define AT_ABS64 0x100u
#define AT_INV32 0x110u
#define AT_ABS32 0x120u
#define AT_PERCPU64 (PERCPU + 0x10u)
#define VALUE64 (VMLINUX_MAP + LINK + 0x500)
#define VALUE32 0x81000600u
#define VALUE_INV 0x7F001234u
#define ENTRY 0x40u

struct blob {
    uint8_t *data;
    size_t len;
};

static void add(struct blob *b, const void *data, size_t len)
{
    b->data = realloc(b->data, b->len + len);
    assert_non_null(b->data);
    if (data != NULL)
        memcpy(b->data + b->len, data, len);
    else
        memset(b->data + b->len, 0, len);
    b->len += len;
}

static void add32(struct blob *b, uint32_t v)
{
    uint8_t raw[4];

    le32_store(raw, v);
    add(b, raw, 4);
}

static uint32_t link_addr(uint32_t offset)
{
    return (uint32_t)(VMLINUX_MAP + LINK + offset);
}

enum relocs { RELOCS_NONE, RELOCS_TWO, RELOCS_THREE, RELOCS_OUTSIDE };

/* Where the segments are in the file: at once, or as in a kernel that unpacks around its place. */
static uint64_t first_at = 0x1000, second_at = 0x1800;

static void segments_apart(bool apart)
{
    first_at = apart ? ALIGN : 0x1000;
    second_at = apart ? ALIGN + PERCPU + 0x1080 : 0x1800;
}

static struct blob make_vmlinux(enum relocs relocs)
{
    struct blob b = {0};
    Elf64_Ehdr eh = {.e_ident = {0x7F, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
                     .e_type = ET_EXEC,
                     .e_machine = EM_X86_64,
                     .e_entry = LINK + ENTRY,
                     .e_phoff = sizeof(Elf64_Ehdr),
                     .e_phentsize = sizeof(Elf64_Phdr),
                     .e_phnum = 2};
    Elf64_Phdr ph[2] = {{.p_type = PT_LOAD,
                         .p_offset = first_at,
                         .p_vaddr = VMLINUX_MAP + LINK,
                         .p_paddr = LINK,
                         .p_filesz = 0x800,
                         .p_memsz = 0x3000},
                        {.p_type = PT_LOAD,
                         .p_offset = second_at,
                         .p_vaddr = 0,
                         .p_paddr = LINK + PERCPU,
                         .p_filesz = 0x100,
                         .p_memsz = 0x1000}};

    add(&b, &eh, sizeof(eh));
    add(&b, ph, sizeof(ph));
    add(&b, NULL, second_at + 0x100 - b.len);
    b.data[first_at + ENTRY] = 0xF4;
    le64_store(b.data + first_at + AT_ABS64, VALUE64);
    le32_store(b.data + first_at + AT_INV32, VALUE_INV);
    le32_store(b.data + first_at + AT_ABS32, VALUE32);
    le64_store(b.data + second_at + 0x10, VALUE64);
    if (relocs == RELOCS_NONE)
        return b;
    add32(&b, 0);
    add32(&b, link_addr(AT_ABS64));
    add32(&b, link_addr(AT_PERCPU64));
    add32(&b, 0);
    if (relocs != RELOCS_TWO) {
        add32(&b, link_addr(AT_INV32));
        add32(&b, 0);
    }
    add32(&b, link_addr(relocs == RELOCS_OUTSIDE ? PERCPU + 0xFFE : AT_ABS32));
    return b;
}

/* ---- packers: stream and size trailer ---- */

static struct blob pack_stored(struct blob in, const char *magic)
{
    struct blob b = {0};

    add(&b, magic, strlen(magic));
    add(&b, in.data, in.len);
    add32(&b, (uint32_t)in.len);
    return b;
}

#if HAVE_ZLIB
static struct blob pack_gzip(struct blob in)
{
    struct blob b = {0};
    z_stream z = {0};

    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    add(&b, NULL, deflateBound(&z, in.len));
    z.next_in = in.data;
    z.avail_in = (uInt)in.len;
    z.next_out = b.data;
    z.avail_out = (uInt)b.len;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    b.len = z.total_out;
    deflateEnd(&z);
    return b;
}
#endif

#if HAVE_ZSTD
static struct blob pack_zstd(struct blob in)
{
    struct blob b = {0};

    add(&b, NULL, ZSTD_compressBound(in.len));
    b.len = ZSTD_compress(b.data, b.len, in.data, in.len, 3);
    assert_false(ZSTD_isError(b.len));
    add32(&b, (uint32_t)in.len);
    return b;
}
#endif

#if HAVE_LZMA
static struct blob run_lzma(lzma_stream *s, struct blob in)
{
    struct blob b = {0};

    add(&b, NULL, in.len + 4096);
    s->next_in = in.data;
    s->avail_in = in.len;
    s->next_out = b.data;
    s->avail_out = b.len;
    assert_int_equal(lzma_code(s, LZMA_FINISH), LZMA_STREAM_END);
    b.len = (size_t)s->total_out;
    lzma_end(s);
    add32(&b, (uint32_t)in.len);
    return b;
}

static struct blob pack_xz(struct blob in)
{
    lzma_stream s = LZMA_STREAM_INIT;

    assert_int_equal(lzma_easy_encoder(&s, 0, LZMA_CHECK_CRC32), LZMA_OK);
    return run_lzma(&s, in);
}

static struct blob pack_lzma(struct blob in)
{
    lzma_stream s = LZMA_STREAM_INIT;
    lzma_options_lzma opts;

    assert_false(lzma_lzma_preset(&opts, 0));
    assert_int_equal(lzma_alone_encoder(&s, &opts), LZMA_OK);
    return run_lzma(&s, in);
}
#endif

#if HAVE_LZ4
static struct blob pack_lz4(struct blob in)
{
    struct blob b = {0};

    add32(&b, 0x184C2102u);
    for (size_t done = 0; done < in.len;) {
        size_t n = min_u64(in.len - done, 8 * MIB), at = b.len;
        int made;

        add(&b, NULL, 4 + (size_t)LZ4_compressBound((int)n));
        made = LZ4_compress_default((const char *)in.data + done, (char *)b.data + at + 4, (int)n,
                                    (int)(b.len - at - 4));
        assert_true(made > 0);
        le32_store(b.data + at, (uint32_t)made);
        b.len = at + 4 + (size_t)made;
        done += n;
    }
    add32(&b, (uint32_t)in.len);
    return b;
}
#endif

#if HAVE_BZ2
static struct blob pack_bzip2(struct blob in)
{
    struct blob b = {0};
    unsigned len = (unsigned)in.len + 4096;

    add(&b, NULL, len);
    assert_int_equal(
        BZ2_bzBuffToBuffCompress((char *)b.data, &len, (char *)in.data, (unsigned)in.len, 9, 0, 0),
        BZ_OK);
    b.len = len;
    add32(&b, (uint32_t)in.len);
    return b;
}
#endif

static const struct packer {
    const char *name;
    struct blob (*pack)(struct blob in);
    bool checked; /* has a checksum */
} packers[] = {
#if HAVE_ZLIB
    {"gzip", pack_gzip, true},
#endif
#if HAVE_ZSTD
    {"zstd", pack_zstd, false},
#endif
#if HAVE_LZMA
    {"xz", pack_xz, true},       {"lzma", pack_lzma, false},
#endif
#if HAVE_LZ4
    {"lz4", pack_lz4, false},
#endif
#if HAVE_BZ2
    {"bzip2", pack_bzip2, true},
#endif
    {NULL, NULL, false},
};

/* ---- the bzImage around a payload ---- */

static struct blob make_bzimage(struct blob payload)
{
    struct blob b = {0};
    uint8_t *d;

    add(&b, NULL, 1024 + 0x400);
    add(&b, payload.data, payload.len);
    d = b.data;
    d[0x1F1] = 1; /* setup sectors */
    le32_store(d + 0x1F4, (uint32_t)((b.len - 1024 + 15) / 16));
    le16_store(d + 0x1FE, 0xAA55);
    d[0x201] = 0x268 - 0x202;
    memcpy(d + 0x202, "HdrS", 4);
    le16_store(d + 0x206, 0x20F);
    d[0x211] = 0x81;
    le32_store(d + 0x22C, 0x7FFFFFFF);
    le32_store(d + 0x230, ALIGN);
    d[0x234] = 1;
    le16_store(d + 0x236, 1);
    le32_store(d + 0x238, 2047);
    le32_store(d + 0x248, 0x400);
    le32_store(d + 0x24C, (uint32_t)payload.len);
    le64_store(d + 0x258, LINK);
    le32_store(d + 0x260, INIT_SIZE);
    return b;
}

static struct blob make_kernel(enum relocs relocs)
{
    struct blob v = make_vmlinux(relocs), p, k;

    assert_non_null(packers[0].name);
    p = packers[0].pack(v);
    k = make_bzimage(p);
    free(v.data);
    free(p.data);
    return k;
}

/* ---- one VM ---- */

struct vm {
    struct board b;
    struct x86_state state;
    struct linux_info info;
    struct error err;
    char log[2048];
    char path[2][32];
};

static void sink(void *ctx, enum log_level level, const char *line)
{
    struct vm *vm = ctx;

    (void)level;
    snprintf(vm->log + strlen(vm->log), sizeof(vm->log) - strlen(vm->log), "%s\n", line);
}

static int setup(void **state)
{
    struct vm *vm = aligned_alloc(_Alignof(struct vm), sizeof(*vm));

    assert_non_null(vm);
    memset(vm, 0, sizeof(*vm));
    vm->b.mem = gmem_create(RAM, &vm->err);
    vm->b.log = log_create(2, LOG_INFO);
    vm->b.cpus = 1;
    assert_non_null(vm->b.mem);
    log_set_sink(vm->b.log, sink, vm);
    for (int i = 0; i < 2; i++) {
        strcpy(vm->path[i], "/tmp/test_linux.XXXXXX");
        close(mkstemp(vm->path[i]));
    }
    *state = vm;
    return 0;
}

static int teardown(void **state)
{
    struct vm *vm = *state;

    unlink(vm->path[0]);
    unlink(vm->path[1]);
    gmem_destroy(vm->b.mem);
    log_destroy(vm->b.log);
    free(vm);
    return 0;
}

static void put_file(const char *path, const void *data, size_t len)
{
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    fclose(f);
}

static int load(struct vm *vm, struct blob kernel, const char *cmdline, size_t initrd)
{
    struct linux_params p = {.kernel = vm->path[0], .cmdline = cmdline, .rsdp = 0xF2400};

    put_file(vm->path[0], kernel.data, kernel.len);
    if (initrd > 0) {
        struct blob i = {0};

        add(&i, NULL, initrd);
        memset(i.data, 0x5A, initrd);
        put_file(vm->path[1], i.data, i.len);
        free(i.data);
        p.initrd = vm->path[1];
    }
    vm->log[0] = '\0';
    vm->err = (struct error){0};
    return linux_load(&vm->b, &p, &vm->state, &vm->info, &vm->err);
}

static void expect_error(struct vm *vm, struct blob kernel, const char *words)
{
    assert_true(load(vm, kernel, NULL, 0) < 0);
    if (strstr(vm->err.text, words) == NULL)
        fail_msg("'%s' lacks '%s'", vm->err.text, words);
}

/* ---- tests ---- */

static void entered_unpacked_in_long_mode(void **state)
{
    struct vm *vm = *state;
    struct blob k = make_kernel(RELOCS_THREE);
    const struct x86_state *s = &vm->state;
    uint64_t pml4e, pdpte, pde;

    gmem_fill(vm->b.mem, LINK, 0xFF, 0x3000);
    assert_int_equal(load(vm, k, "console=ttyS0 nokaslr", 5000), 0);
    assert_true(vm->info.direct && vm->info.entry64);
    assert_int_equal(vm->info.phys, LINK);
    assert_int_equal(vm->info.virt_slide, 0);
    assert_int_equal(s->rip, LINK + ENTRY);
    assert_int_equal(s->gpr[X86_RSI], 0x3000);
    assert_int_equal(s->rflags, X86_FL_FIXED);
    assert_int_equal(s->efer, X86_EFER_LME | X86_EFER_LMA);
    assert_int_equal(s->cr4, X86_CR4_PAE);
    assert_true((s->cr0 & (X86_CR0_PE | X86_CR0_PG)) == (X86_CR0_PE | X86_CR0_PG));
    assert_int_equal(s->seg[X86_CS].selector, 0x10);
    assert_true((s->seg[X86_CS].attr & X86_SEG_L) != 0);
    assert_int_equal(s->seg[X86_SS].selector, 0x18);
    assert_int_equal(gmem_read64(vm->b.mem, s->gdtr.base + 0x10), 0x00AF9B000000FFFFull);
    assert_int_equal(gmem_read64(vm->b.mem, LINK + AT_ABS64), VALUE64);
    assert_int_equal(gmem_read64(vm->b.mem, LINK + AT_PERCPU64), VALUE64);
    assert_int_equal(gmem_read64(vm->b.mem, LINK + 0x800), 0); /* bss */
    assert_int_equal(gmem_read64(vm->b.mem, LINK + 0x2FF8), 0);

    /* 3 GiB + 5 MiB maps to itself */
    pml4e = gmem_read64(vm->b.mem, s->cr3);
    pdpte = gmem_read64(vm->b.mem, (pml4e & ~0xFFFull) + 3 * 8);
    pde = gmem_read64(vm->b.mem, (pdpte & ~0xFFFull) + 2 * 8);
    assert_int_equal(pde, 0xC0400083ull);

    /* zero page */
    assert_int_equal(gmem_read32(vm->b.mem, 0x3000 + 0x202), 0x53726448);
    assert_int_equal(gmem_read16(vm->b.mem, 0x3000 + 0x210), 0x01FF); /* loader, loadflags */
    assert_int_equal(gmem_read64(vm->b.mem, 0x3000 + 0x070), 0xF2400);
    assert_int_equal(gmem_read32(vm->b.mem, 0x3000 + 0x228), 0x4000);
    assert_int_equal(gmem_read32(vm->b.mem, 0x4000), 0x736E6F63); /* "cons" */
    assert_int_equal(gmem_read32(vm->b.mem, 0x3000 + 0x218), vm->info.initrd_addr);
    assert_int_equal(gmem_read32(vm->b.mem, 0x3000 + 0x21C), 5000);
    assert_int_equal(gmem_read32(vm->b.mem, vm->info.initrd_addr), 0x5A5A5A5A);
    assert_int_equal(vm->info.initrd_addr, RAM - 8192);
    assert_int_equal(gmem_read64(vm->b.mem, 0x3000 + 0x250), 0x1000); /* seed */
    assert_int_equal(gmem_read32(vm->b.mem, 0x1008), 9);
    assert_int_equal(gmem_read32(vm->b.mem, 0x100C), 32);
    assert_int_equal(gmem_read64(vm->b.mem, 0x3000 + 0x2D0), 0);
    assert_int_equal(gmem_read64(vm->b.mem, 0x3000 + 0x2D8), 0x9FC00);
    free(k.data);
}

static void check_slide(struct vm *vm, bool inverse)
{
    uint64_t at = vm->info.phys, slide = vm->info.virt_slide;
    struct gmem *m = vm->b.mem;

    assert_int_equal(gmem_read64(m, at + AT_ABS64), VALUE64 + slide);
    assert_int_equal(gmem_read64(m, at + AT_PERCPU64), VALUE64 + slide);
    assert_int_equal(gmem_read32(m, at + AT_ABS32), VALUE32 + (uint32_t)slide);
    assert_int_equal(gmem_read32(m, at + AT_INV32), VALUE_INV - (inverse ? (uint32_t)slide : 0));
}

static void random_address_is_valid(void **state)
{
    struct vm *vm = *state;
    struct blob k = make_kernel(RELOCS_THREE);
    bool moved = false, slid = false;

    for (unsigned i = 0; i < 24; i++) {
        assert_int_equal(load(vm, k, "quiet", 20 * MIB), 0);
        assert_int_equal(vm->info.phys % ALIGN, 0);
        assert_int_equal(vm->info.virt_slide % ALIGN, 0);
        assert_true(vm->info.virt == VMLINUX_MAP + LINK + vm->info.virt_slide);
        assert_true(vm->info.phys >= LINK);
        assert_true(vm->info.phys + INIT_SIZE <= vm->info.initrd_addr);
        assert_true(LINK + vm->info.virt_slide + INIT_SIZE <= VMLINUX_WINDOW);
        assert_int_equal(gmem_read16(vm->b.mem, 0x3000 + 0x210), 0x03FF);
        check_slide(vm, true);
        moved |= vm->info.phys != LINK;
        slid |= vm->info.virt_slide != 0;
    }
    assert_true(moved && slid);
    free(k.data);
}

static void two_groups_have_no_inverse(void **state)
{
    struct vm *vm = *state;
    struct blob k = make_kernel(RELOCS_TWO);

    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(load(vm, k, "quiet", 0), 0);
        check_slide(vm, false);
    }
    assert_int_equal(gmem_read16(vm->b.mem, 0x3000 + 0x210), 0x03FF);
    free(k.data);
}

/* The same of a kernel that is unpacked where it goes; what else was in the image is gone. */
static void settles_where_it_was_unpacked(void **state)
{
    struct vm *vm = *state;
    const uint8_t *bytes;
    struct blob k, v;

    segments_apart(true);
    entered_unpacked_in_long_mode(state);
    k = make_kernel(RELOCS_THREE);
    gmem_fill(vm->b.mem, 14 * MIB, 0xFF, 16 * MIB);
    assert_int_equal(load(vm, k, "nokaslr", 0), 0);
    check_slide(vm, true);
    bytes = gmem_ptr_ro(vm->b.mem, 0, 30 * MIB);
    for (uint64_t at = LINK - ALIGN; at < LINK + second_at; at++) {
        if ((at < LINK || at >= LINK + PERCPU + 0x1000) && bytes[at] != 0 && bytes[at] != 0xFF)
            fail_msg("%#x is left at %#llx", bytes[at], (unsigned long long)at);
    }
    assert_int_equal(gmem_read64(vm->b.mem, LINK - ALIGN), 0); /* the ELF's head */
    free(k.data);
    random_address_is_valid(state);
    two_groups_have_no_inverse(state);
    /* a segment whose place in the file is before its place in memory; lists that are bad */
    second_at = first_at + 0x800;
    k = make_kernel(RELOCS_THREE);
    assert_int_equal(load(vm, k, "quiet", 0), 0);
    assert_true(vm->info.direct);
    check_slide(vm, true);
    free(k.data);
    segments_apart(true);
    k = make_kernel(RELOCS_OUTSIDE);
    assert_int_equal(load(vm, k, "quiet", 0), 0);
    assert_true(vm->info.direct);
    assert_int_equal(vm->info.virt_slide, 0);
    check_slide(vm, true);
    free(k.data);
    /* no ELF */
    v = make_vmlinux(RELOCS_THREE);
    v.data[1] = 'F';
    k = packers[0].pack(v);
    free(v.data);
    v = make_bzimage(k);
    free(k.data);
    gmem_fill(vm->b.mem, 14 * MIB, 0, 16 * MIB);
    assert_int_equal(load(vm, v, "nokaslr", 0), 0);
    assert_false(vm->info.direct);
    assert_int_equal(gmem_read64(vm->b.mem, LINK + AT_ABS64), 0);
    free(v.data);
    segments_apart(false);
}

static void bad_relocations_mean_no_slide(void **state)
{
    struct vm *vm = *state;
    const enum relocs kinds[] = {RELOCS_NONE, RELOCS_OUTSIDE};

    for (unsigned i = 0; i < countof(kinds); i++) {
        struct blob k = make_kernel(kinds[i]);

        assert_int_equal(load(vm, k, "quiet", 0), 0);
        assert_true(vm->info.direct);
        assert_int_equal(vm->info.virt_slide, 0);
        assert_non_null(strstr(vm->log, "no KASLR"));
        assert_int_equal(gmem_read16(vm->b.mem, 0x3000 + 0x210), 0x01FF);
        free(k.data);
    }
}

static void every_compression(void **state)
{
    struct vm *vm = *state;
    struct blob v = make_vmlinux(RELOCS_THREE);

    for (const struct packer *p = packers; p->name != NULL; p++) {
        struct blob packed = p->pack(v), k = make_bzimage(packed);

        if (load(vm, k, "nokaslr", 0) != 0)
            fail_msg("%s: %s", p->name, vm->err.text);
        assert_true(vm->info.direct);
        assert_string_equal(vm->info.compression, p->name);
        assert_int_equal(gmem_read64(vm->b.mem, LINK + AT_ABS64), VALUE64);

        /* damage in the middle, and a size that does not match */
        k.data[1024 + 0x400 + packed.len / 2] ^= 0xFF;
        if (load(vm, k, NULL, 0) == 0)
            assert_false(p->checked);
        else
            assert_non_null(strstr(vm->err.text, "damaged"));
        k.data[1024 + 0x400 + packed.len / 2] ^= 0xFF;
        le32_store(k.data + k.len - 4, (uint32_t)v.len - 1);
        expect_error(vm, k, "damaged");
        le32_store(k.data + k.len - 4, (uint32_t)v.len + 1);
        expect_error(vm, k, "damaged");
        free(packed.data);
        free(k.data);
    }
    free(v.data);
}

#if HAVE_LZ4
static void lz4_blocks(void **state)
{
    struct blob in = {0}, packed;
    uint8_t *out;
    size_t size;

    (void)state;
    add(&in, NULL, 17 * MIB);
    for (size_t i = 0; i < in.len; i++)
        in.data[i] = (uint8_t)(i >> 12);
    packed = pack_lz4(in);
    assert_int_equal(unpack(packed.data, packed.len, 17 * MIB, &out, &size, NULL), 0);
    assert_int_equal(size, in.len);
    assert_memory_equal(out, in.data, size);
    free(out);
    /* a block longer than the stream, an empty one, half a length */
    le32_store(packed.data + 4, (uint32_t)packed.len);
    assert_int_equal(unpack(packed.data, packed.len, 17 * MIB, &out, &size, NULL), -EINVAL);
    le32_store(packed.data + 4, 0);
    assert_int_equal(unpack(packed.data, packed.len, 17 * MIB, &out, &size, NULL), -EINVAL);
    free(packed.data);
    free(in.data);
}
#endif

static void unpacked_size_is_limited(void **state)
{
    struct vm *vm = *state;
    struct blob k = make_kernel(RELOCS_THREE);

    le32_store(k.data + k.len - 4, (uint32_t)(RAM + 1));
    expect_error(vm, k, "unpack to 67108865 bytes");
    free(k.data);
}

static void falls_back_to_the_guest(void **state)
{
    struct vm *vm = *state;
    struct blob k = make_kernel(RELOCS_THREE), v = make_vmlinux(RELOCS_THREE), p;
    struct linux_params params = {.kernel = vm->path[0], .decompress = LINUX_DECOMPRESS_GUEST};

    /* as asked */
    put_file(vm->path[0], k.data, k.len);
    assert_int_equal(linux_load(&vm->b, &params, &vm->state, &vm->info, &vm->err), 0);
    assert_false(vm->info.direct);
    assert_int_equal(vm->state.rip, 0x100200);
    assert_int_equal(vm->state.cr3, 0x10000);
    assert_non_null(strstr(vm->log, "as configured"));

    /* no 64-bit entry: protected mode */
    le16_store(k.data + 0x236, 0);
    assert_int_equal(load(vm, k, NULL, 0), 0);
    assert_false(vm->info.direct || vm->info.entry64);
    assert_int_equal(vm->state.rip, 0x100000);
    assert_int_equal(vm->state.efer, 0);
    assert_int_equal(vm->state.cr0 & (X86_CR0_PE | X86_CR0_PG), X86_CR0_PE);
    assert_int_equal(vm->state.seg[X86_CS].attr, 0xC09B);
    assert_int_equal(gmem_read64(vm->b.mem, 0x2010), 0x00CF9B000000FFFFull);
    assert_int_equal(vm->state.gpr[X86_RSI], 0x3000);
    assert_non_null(strstr(vm->log, "64-bit entry"));
    free(k.data);

    /* unknown compression; a payload that is no ELF */
    p = pack_stored(v, "\x89LZO");
    k = make_bzimage(p);
    assert_int_equal(load(vm, k, NULL, 0), 0);
    assert_non_null(strstr(vm->log, "no lzo decoder"));
    assert_string_equal(vm->info.compression, "lzo");
    free(k.data);
    free(p.data);
    v.data[1] = 'X';
    p = packers[0].pack(v);
    k = make_bzimage(p);
    assert_int_equal(load(vm, k, NULL, 0), 0);
    assert_non_null(strstr(vm->log, "no ELF"));
    assert_false(vm->info.direct);
    free(k.data);
    free(p.data);
    free(v.data);
}

static void bad_kernels(void **state)
{
    struct vm *vm = *state;
    struct blob k = make_kernel(RELOCS_THREE), part = k;
    struct linux_params p = {.kernel = "/nonexistent/vmlinuz"};
    uint8_t elf[1024] = "\177ELF";

    assert_int_equal(linux_load(&vm->b, &p, &vm->state, NULL, &vm->err), -ENOENT);
    assert_non_null(strstr(vm->err.text, "'/nonexistent/vmlinuz'"));
    p.kernel = "/tmp";
    assert_int_equal(linux_load(&vm->b, &p, &vm->state, NULL, &vm->err), -EINVAL);
    assert_non_null(strstr(vm->err.text, "not a regular file"));
    expect_error(vm, (struct blob){elf, 0}, "is empty");
    expect_error(vm, (struct blob){elf, sizeof(elf)}, "is an ELF file");
    elf[0] = 0;
    expect_error(vm, (struct blob){elf, sizeof(elf)}, "not a Linux bzImage");
    part.len = 0x220;
    expect_error(vm, part, "not a Linux bzImage");
    part.len = 1024;
    expect_error(vm, part, "truncated");
    part.len = k.len - 64;
    expect_error(vm, part, "truncated");
    le32_store(k.data + 0x24C, 0xFFFFFFFF);
    expect_error(vm, k, "payload beyond its end");
    k.data[0x211] = 0;
    expect_error(vm, k, "zImage");
    le16_store(k.data + 0x206, 0x205);
    expect_error(vm, k, "boot protocol 2.05");
    free(k.data);
}

static void limits_of_command_line_and_initrd(void **state)
{
    struct vm *vm = *state;
    struct blob k = make_kernel(RELOCS_THREE);
    struct linux_params p = {.kernel = vm->path[0], .initrd = "/nonexistent/initrd"};
    char *line = calloc(1, 700000);

    assert_non_null(line);
    memset(line, 'x', 2047);
    assert_int_equal(load(vm, k, line, 0), 0);
    line[2047] = 'x';
    assert_int_equal(load(vm, k, line, 0), -E2BIG);
    assert_non_null(strstr(vm->err.text, "2048 characters"));
    le32_store(k.data + 0x238, UINT32_MAX);
    memset(line, 'x', 60000);
    assert_int_equal(load(vm, k, line, 0), 0);
    assert_int_equal(gmem_read32(vm->b.mem, 0x3000 + 0x228), 0x20000);
    assert_int_equal(gmem_read32(vm->b.mem, 0x20000 + 59996), 0x78787878);
    memset(line, 'x', 699999);
    assert_int_equal(load(vm, k, line, 0), -E2BIG);
    free(line);

    assert_int_equal(linux_load(&vm->b, &p, &vm->state, NULL, &vm->err), -ENOENT);
    assert_int_equal(load(vm, k, NULL, RAM + 1), -ENOMEM);
    assert_non_null(strstr(vm->err.text, "give the VM more memory"));
    assert_int_equal(load(vm, k, NULL, 45 * MIB), -ENOMEM); /* nothing left for the kernel */
    assert_non_null(strstr(vm->err.text, "beside its initrd"));
    le32_store(k.data + 0x22C, (uint32_t)(40 * MIB - 1));
    assert_int_equal(load(vm, k, NULL, 4096), 0);
    assert_int_equal(vm->info.initrd_addr, 40 * MIB - 4096);
    free(k.data);
}

/* Whatever the bytes are: a sentence or a kernel, within memory (seen by sanitizers). */
static void random_damage(void **state)
{
    struct vm *vm = *state;
    struct blob k = make_kernel(RELOCS_THREE), v = make_vmlinux(RELOCS_THREE);
    uint32_t seed = 1;

    for (unsigned i = 0; i < 400; i++) {
        struct blob copy = {0};
        struct vmlinux parsed;

        add(&copy, k.data, k.len);
        for (unsigned n = 0; n < 3; n++) {
            seed = seed * 1664525 + 1013904223;
            copy.data[0x1F1 + (seed >> 16) % 0x80] = (uint8_t)(seed >> 8);
        }
        if (load(vm, copy, NULL, 0) != 0)
            assert_true(vm->err.text[0] != '\0');
        free(copy.data);

        copy = (struct blob){0};
        add(&copy, v.data, v.len);
        for (unsigned n = 0; n < 3; n++) {
            size_t room = n == 2 ? 32 : 176;

            seed = seed * 1664525 + 1013904223;
            copy.data[(n == 2 ? v.len - 32 : 0) + (seed >> 16) % room] = (uint8_t)(seed >> 8);
        }
        if (vmlinux_parse(copy.data, copy.len, LINK, &parsed, NULL) == 0 && parsed.span < RAM) {
            uint8_t *to = malloc(parsed.span);

            vmlinux_copy(&parsed, to);
            if (parsed.movable)
                vmlinux_relocate(&parsed, to, ALIGN);
            free(to);
        }
        free(copy.data);
    }
    free(k.data);
    free(v.data);
}

static void words_of_the_command_line(void **state)
{
    (void)state;
    assert_true(cmdline_has_word("nokaslr", "nokaslr"));
    assert_true(cmdline_has_word("a \t nokaslr\n", "nokaslr"));
    assert_false(cmdline_has_word("nokaslr=1 xnokaslr nokaslr2", "nokaslr"));
    assert_false(cmdline_has_word("", "nokaslr"));
}

static void places_between(void **state)
{
    struct kaslr_range r[2] = {{0x300000, 0x500000}, {0x900000, 0xE00001}};
    uint64_t at, seen = 0;

    (void)state;
    assert_true(kaslr_place(r, 2, 0x200000, ALIGN, false, &at));
    assert_int_equal(at, 0xA00000);
    for (unsigned i = 0; i < 100; i++) {
        assert_true(kaslr_place(r, 2, 0x100000, ALIGN, true, &at));
        assert_true(at == 0x400000 || at == 0xA00000 || at == 0xC00000);
        seen |= 1ull << (at / ALIGN);
    }
    assert_int_equal(seen, 1u << 2 | 1u << 5 | 1u << 6);
    assert_false(kaslr_place(r, 2, 0x600000, ALIGN, true, &at));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(entered_unpacked_in_long_mode, setup, teardown),
        cmocka_unit_test_setup_teardown(random_address_is_valid, setup, teardown),
        cmocka_unit_test_setup_teardown(two_groups_have_no_inverse, setup, teardown),
        cmocka_unit_test_setup_teardown(settles_where_it_was_unpacked, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_relocations_mean_no_slide, setup, teardown),
        cmocka_unit_test_setup_teardown(every_compression, setup, teardown),
#if HAVE_LZ4
        cmocka_unit_test(lz4_blocks),
#endif
        cmocka_unit_test_setup_teardown(unpacked_size_is_limited, setup, teardown),
        cmocka_unit_test_setup_teardown(falls_back_to_the_guest, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_kernels, setup, teardown),
        cmocka_unit_test_setup_teardown(limits_of_command_line_and_initrd, setup, teardown),
        cmocka_unit_test_setup_teardown(random_damage, setup, teardown),
        cmocka_unit_test(words_of_the_command_line),
        cmocka_unit_test(places_between),
    };

    if (packers[0].name == NULL) {
        puts("skipped: built without any compression library");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
