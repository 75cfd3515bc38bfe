/* The multiboot loader: hand-made kernels, good and hostile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/endian.h"
#include "boot/multiboot.h"
#include "boot/tables.h"

#define RAM (64 * MIB)
#define MAGIC 0x1BADB002u
#define FILE_SIZE 16384u
#define HEADER 0x200u  /* offset in the file */
#define TEXT 0x1000u   /* of the first segment's bytes */
#define BASE 0x100000u /* its address */
#define SECTIONS 0x3000u
#define SYMTAB 0x3800u

/* ---- a kernel ---- */

struct kernel {
    uint8_t file[FILE_SIZE];
    size_t size;
};

static void put_header(struct kernel *k, uint32_t at, uint32_t flags)
{
    le32_store(k->file + at, MAGIC);
    le32_store(k->file + at + 4, flags);
    le32_store(k->file + at + 8, 0 - (MAGIC + flags));
}

static void put_segment32(struct kernel *k, unsigned i, uint32_t offset, uint32_t paddr,
                          uint32_t filesz, uint32_t memsz)
{
    uint8_t *p = k->file + 52 + 32 * i;

    le32_store(p, 1);
    le32_store(p + 4, offset);
    le32_store(p + 8, 0xC0000000u + paddr); /* linked high, as kernels are */
    le32_store(p + 12, paddr);
    le32_store(p + 16, filesz);
    le32_store(p + 20, memsz);
    le16_store(k->file + 44, (uint16_t)(i + 1));
}

/* ELF32, one segment of 0x1000 bytes at BASE and 0x1000 of bss, entered at BASE + 0x10. */
static void make_elf32(struct kernel *k)
{
    static const uint8_t ident[7] = {0x7F, 'E', 'L', 'F', 1, 1, 1};

    memset(k, 0, sizeof(*k));
    k->size = FILE_SIZE;
    memcpy(k->file, ident, sizeof(ident));
    le16_store(k->file + 16, 2);
    le16_store(k->file + 18, 3);
    le32_store(k->file + 24, 0xC0000000u + BASE + 0x10);
    le32_store(k->file + 28, 52);
    le16_store(k->file + 42, 32);
    put_segment32(k, 0, TEXT, BASE, 0x1000, 0x2000);
    memset(k->file + TEXT, 0xA5, 0x1000);
    put_header(k, HEADER, 3);
}

/* The same as ELF64. */
static void make_elf64(struct kernel *k)
{
    static const uint8_t ident[7] = {0x7F, 'E', 'L', 'F', 2, 1, 1};
    uint8_t *p = k->file + 64;

    memset(k, 0, sizeof(*k));
    k->size = FILE_SIZE;
    memcpy(k->file, ident, sizeof(ident));
    le16_store(k->file + 16, 2);
    le16_store(k->file + 18, 62);
    le64_store(k->file + 24, BASE + 0x10);
    le64_store(k->file + 32, 64);
    le16_store(k->file + 54, 56);
    le16_store(k->file + 56, 1);
    le32_store(p, 1);
    le64_store(p + 8, TEXT);
    le64_store(p + 16, 0xFFFFFFFF80000000ull + BASE);
    le64_store(p + 24, BASE);
    le64_store(p + 32, 0x1000);
    le64_store(p + 40, 0x2000);
    memset(k->file + TEXT, 0xA5, 0x1000);
    put_header(k, HEADER, 3);
}

/* No ELF: the header at HEADER says that the file from 0x100 on goes to 0x200000. */
static void make_flat(struct kernel *k)
{
    memset(k, 0, sizeof(*k));
    k->size = 0x2000;
    memset(k->file, 0x5A, k->size);
    put_header(k, HEADER, 0x10003);
    le32_store(k->file + HEADER + 12, 0x200000 + HEADER - 0x100);
    le32_store(k->file + HEADER + 16, 0x200000);
    le32_store(k->file + HEADER + 20, 0x200800);
    le32_store(k->file + HEADER + 24, 0x202000);
    le32_store(k->file + HEADER + 28, 0x200400);
}

static void put_section32(struct kernel *k, unsigned i, uint32_t type, uint32_t addr,
                          uint32_t offset, uint32_t size)
{
    uint8_t *p = k->file + SECTIONS + 40 * i;

    le32_store(p + 4, type);
    le32_store(p + 8, addr != 0 ? 2 : 0);
    le32_store(p + 12, addr);
    le32_store(p + 16, offset);
    le32_store(p + 20, size);
    le32_store(k->file + 32, SECTIONS);
    le16_store(k->file + 46, 40);
    le16_store(k->file + 48, (uint16_t)(i + 1));
    le16_store(k->file + 50, 2);
}

/* ---- one VM ---- */

struct vm {
    struct board b;
    struct x86_state state;
    struct multiboot_result res;
    struct error err;
    struct kernel k;
    char path[3][40]; /* kernel and two modules */
};

static void quiet(void *ctx, enum log_level level, const char *line)
{
    (void)ctx;
    (void)level;
    (void)line;
}

static void put_file(const char *path, const void *data, size_t len)
{
    FILE *f = fopen(path, "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    fclose(f);
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
    log_set_sink(vm->b.log, quiet, vm);
    for (int i = 0; i < 3; i++) {
        strcpy(vm->path[i], "/tmp/test_multiboot.XXXXXX");
        close(mkstemp(vm->path[i]));
    }
    put_file(vm->path[1], "first module", 12);
    put_file(vm->path[2], "second", 6);
    make_elf32(&vm->k);
    *state = vm;
    return 0;
}

static int teardown(void **state)
{
    struct vm *vm = *state;

    for (int i = 0; i < 3; i++)
        unlink(vm->path[i]);
    gmem_destroy(vm->b.mem);
    log_destroy(vm->b.log);
    free(vm);
    return 0;
}

static int load(struct vm *vm, const char *modules, const char *cmdline)
{
    struct multiboot_params p = {.kernel = vm->path[0], .modules = modules, .cmdline = cmdline};

    put_file(vm->path[0], vm->k.file, vm->k.size);
    vm->err = (struct error){0};
    x86_state_reset(&vm->state, true);
    return multiboot_load(&vm->b, &p, &vm->state, &vm->res, &vm->err);
}

static void loads(struct vm *vm, const char *modules, const char *cmdline)
{
    if (load(vm, modules, cmdline) != 0)
        fail_msg("%s", vm->err.text);
}

static void refuses(struct vm *vm, const char *modules, const char *words)
{
    assert_true(load(vm, modules, NULL) < 0);
    if (strstr(vm->err.text, words) == NULL)
        fail_msg("'%s' lacks '%s'", vm->err.text, words);
}

static void guest_string(struct vm *vm, uint64_t addr, char to[256])
{
    memset(to, 0, 256);
    assert_int_equal(gmem_read(vm->b.mem, addr, to, 255), 0);
}

static uint32_t info32(struct vm *vm, unsigned offset)
{
    return gmem_read32(vm->b.mem, vm->res.info + offset);
}

/* ---- what a kernel finds ---- */

static void registers(void **state)
{
    struct vm *vm = *state;
    const struct x86_state *s = &vm->state;

    loads(vm, NULL, NULL);
    assert_int_equal(s->rip, BASE + 0x10);
    assert_int_equal(s->gpr[X86_RAX], 0x2BADB002);
    assert_int_equal(s->gpr[X86_RBX], vm->res.info);
    assert_int_equal(s->cr0 & (X86_CR0_PG | X86_CR0_PE), X86_CR0_PE);
    assert_int_equal(s->rflags & (X86_FL_VM | X86_FL_IF), 0);
    assert_int_equal(s->efer, 0);
    assert_false(s->a20_masked);
    for (unsigned i = 0; i < X86_SEG_COUNT; i++) {
        uint64_t want = i == X86_CS ? 0x00CF9B000000FFFFull : 0x00CF93000000FFFFull;

        assert_int_equal(s->seg[i].base, 0);
        assert_int_equal(s->seg[i].limit, UINT32_MAX);
        assert_int_equal(s->seg[i].attr, i == X86_CS ? 0xC09B : 0xC093);
        assert_int_equal(gmem_read64(vm->b.mem, s->gdtr.base + s->seg[i].selector), want);
    }
    assert_int_equal(gmem_read32(vm->b.mem, BASE), 0xA5A5A5A5);
    assert_int_equal(gmem_read32(vm->b.mem, BASE + 0xFFC), 0xA5A5A5A5);
}

static void bss_is_zero(void **state)
{
    struct vm *vm = *state;

    gmem_fill(vm->b.mem, BASE, 0xFF, 0x3000);
    loads(vm, NULL, NULL);
    assert_int_equal(gmem_read32(vm->b.mem, BASE + 0x1000), 0);
    assert_int_equal(gmem_read32(vm->b.mem, BASE + 0x1FFC), 0);
    assert_int_equal(gmem_read32(vm->b.mem, BASE + 0x2000), 0xFFFFFFFF);
}

static void information(void **state)
{
    struct vm *vm = *state;
    struct e820_entry map[E820_MAX];
    unsigned n = e820_build(&vm->b, map);
    char text[256], want[256];
    uint32_t at;

    loads(vm, NULL, "a b=c,d");
    assert_int_equal(info32(vm, 0), 0x24D);
    assert_int_equal(info32(vm, 4), 639);
    assert_int_equal(info32(vm, 8), (RAM - MIB) / KIB);
    guest_string(vm, info32(vm, 16), text);
    snprintf(want, sizeof(want), "%s a b=c,d", vm->path[0]);
    assert_string_equal(text, want);
    assert_int_equal(info32(vm, 20), 0);
    guest_string(vm, info32(vm, 64), text);
    assert_string_equal(text, "xhyve");
    at = info32(vm, 48);
    assert_int_equal(info32(vm, 44), n * 24);
    for (unsigned i = 0; i < n; i++, at += 24) {
        assert_int_equal(gmem_read32(vm->b.mem, at), 20);
        assert_int_equal(gmem_read64(vm->b.mem, at + 4), map[i].base);
        assert_int_equal(gmem_read64(vm->b.mem, at + 12), map[i].size);
        assert_int_equal(gmem_read32(vm->b.mem, at + 20), map[i].type);
    }
    loads(vm, NULL, NULL);
    guest_string(vm, info32(vm, 16), text);
    assert_string_equal(text, vm->path[0]);
}

/* Free low memory as 16-bit code finds it, and nothing there where the kernel itself lies. */
static void bios_data(void **state)
{
    struct vm *vm = *state;

    vm->b.com[0] = vm->b.com[2] = true;
    loads(vm, NULL, NULL);
    assert_int_equal(gmem_read32(vm->b.mem, 4 * 0x15), 0x500);
    assert_int_equal(gmem_read16(vm->b.mem, 0x500), 0x86B4);
    assert_int_equal(gmem_read32(vm->b.mem, 4 * 8), 0x50A);
    assert_int_equal(gmem_read32(vm->b.mem, 4 * 0x77), 0x50A);
    assert_int_equal(gmem_read16(vm->b.mem, 0x50A), 0x00CF);
    assert_int_equal(gmem_read64(vm->b.mem, 0x400), 0x03E803F8);
    assert_int_equal(gmem_read16(vm->b.mem, 0x40E), 0x9FC0);
    assert_int_equal(gmem_read16(vm->b.mem, 0x410), 2u << 9);
    assert_int_equal(gmem_read16(vm->b.mem, 0x413), 639);
    put_segment32(&vm->k, 1, TEXT, 0x400, 0x100, 0x100);
    loads(vm, NULL, NULL);
    assert_int_equal(gmem_read32(vm->b.mem, 0x40E), 0xA5A5A5A5);
}

static void modules(void **state)
{
    struct vm *vm = *state;
    char list[256], text[256], want[256];
    uint32_t mods, start[2];

    snprintf(list, sizeof(list), "%s;x y=1:%s;", vm->path[1], vm->path[2]);
    loads(vm, list, NULL);
    assert_int_equal(info32(vm, 20), 2);
    mods = info32(vm, 24);
    start[0] = gmem_read32(vm->b.mem, mods);
    start[1] = gmem_read32(vm->b.mem, mods + 16);
    assert_int_equal(start[0], BASE + 0x2000);
    assert_int_equal(start[1], BASE + 0x3000);
    assert_int_equal(gmem_read32(vm->b.mem, mods + 4), start[0] + 12);
    assert_int_equal(gmem_read32(vm->b.mem, mods + 20), start[1] + 6);
    assert_int_equal(gmem_read32(vm->b.mem, mods + 12), 0);
    guest_string(vm, gmem_read32(vm->b.mem, mods + 8), text);
    snprintf(want, sizeof(want), "%s x y=1", vm->path[1]);
    assert_string_equal(text, want);
    guest_string(vm, gmem_read32(vm->b.mem, mods + 24), text);
    assert_string_equal(text, vm->path[2]);
    guest_string(vm, start[0], text);
    assert_string_equal(text, "first module");
    guest_string(vm, start[1], text);
    assert_string_equal(text, "second");
}

static void symbols(void **state)
{
    struct vm *vm = *state;
    uint32_t table, at;

    put_section32(&vm->k, 0, 0, 0, 0, 0);
    put_section32(&vm->k, 1, 1, BASE, TEXT, 0x1000);
    put_section32(&vm->k, 2, 3, 0, SYMTAB, 0x20);
    put_section32(&vm->k, 3, 2, 0, FILE_SIZE - 4, 8); /* beyond the end: stays unloaded */
    memset(vm->k.file + SYMTAB, 0x77, 0x20);
    loads(vm, NULL, NULL);
    assert_true(vm->res.symbols);
    assert_int_equal(info32(vm, 0), 0x26D);
    assert_int_equal(info32(vm, 28), 4);
    assert_int_equal(info32(vm, 32), 40);
    assert_int_equal(info32(vm, 40), 2);
    table = info32(vm, 36);
    assert_int_equal(gmem_read32(vm->b.mem, table + 40 + 12), BASE);
    at = gmem_read32(vm->b.mem, table + 80 + 12);
    assert_true(at >= BASE + 0x2000);
    assert_int_equal(gmem_read32(vm->b.mem, at), 0x77777777);
    assert_int_equal(gmem_read32(vm->b.mem, table + 120 + 12), 0);
}

static void elf64(void **state)
{
    struct vm *vm = *state;

    make_elf64(&vm->k);
    loads(vm, NULL, NULL);
    assert_int_equal(vm->state.rip, BASE + 0x10);
    assert_int_equal(vm->state.efer, 0);
    assert_int_equal(gmem_read32(vm->b.mem, BASE), 0xA5A5A5A5);
}

static void addresses_of_the_header(void **state)
{
    struct vm *vm = *state;

    make_flat(&vm->k);
    gmem_fill(vm->b.mem, 0x200000, 0xFF, 0x4000);
    loads(vm, NULL, NULL);
    assert_int_equal(vm->state.rip, 0x200400);
    assert_int_equal(gmem_read32(vm->b.mem, 0x200000 + HEADER - 0x100), MAGIC);
    assert_int_equal(gmem_read32(vm->b.mem, 0x2007FC), 0x5A5A5A5A);
    assert_int_equal(gmem_read32(vm->b.mem, 0x200800), 0);
    assert_int_equal(gmem_read32(vm->b.mem, 0x201FFC), 0);
    assert_int_equal(gmem_read32(vm->b.mem, 0x202000), 0xFFFFFFFF);

    le32_store(vm->k.file + HEADER + 20, 0); /* all of the file, no bss */
    le32_store(vm->k.file + HEADER + 24, 0);
    loads(vm, NULL, NULL);
    assert_int_equal(gmem_read32(vm->b.mem, 0x200000 + 0x1EFC), 0x5A5A5A5A);
    assert_int_equal(gmem_read32(vm->b.mem, 0x200000 + 0x1F00), 0);
}

/* The structures are not laid over a kernel that takes the usual place. */
static void structures_move_away(void **state)
{
    struct vm *vm = *state;

    put_segment32(&vm->k, 1, TEXT, 0x8000, 0x1000, 0x78000);
    loads(vm, NULL, NULL);
    assert_true(vm->res.info >= 0x80000 || vm->res.info + 116 <= 0x8000);
    assert_int_equal(gmem_read32(vm->b.mem, 0x8000), 0xA5A5A5A5);
    put_segment32(&vm->k, 1, TEXT, 0, 0x1000, 0x9FC00);
    loads(vm, NULL, NULL);
    assert_true(vm->res.info >= BASE + 0x2000);
}

static void header_at_the_last_place(void **state)
{
    struct vm *vm = *state;

    put_header(&vm->k, HEADER, 1u << 2); /* no longer one, with a wrong checksum */
    le32_store(vm->k.file + HEADER, 0);
    put_header(&vm->k, 8192 - 12, 0);
    loads(vm, NULL, NULL);
}

/* ---- what is refused ---- */

static void bad_headers(void **state)
{
    struct vm *vm = *state;

    le32_store(vm->k.file + HEADER + 8, 1);
    refuses(vm, NULL, "at byte 512 that is cut off or whose checksum is wrong");
    le32_store(vm->k.file + HEADER, 0);
    refuses(vm, NULL, "no multiboot header in its first 8192 bytes");
    put_header(&vm->k, 8192 - 8, 0);
    refuses(vm, NULL, "no multiboot header in its first 8192 bytes");
    le32_store(vm->k.file + 8188, MAGIC);
    refuses(vm, NULL, "no multiboot header in its first 8192 bytes");
    put_header(&vm->k, 8192 - 16, 0x10000); /* its addresses would be beyond */
    refuses(vm, NULL, "at byte 8176 that is cut off");
    put_header(&vm->k, HEADER + 2, 0);
    le32_store(vm->k.file + 8176, 0);
    refuses(vm, NULL, "no multiboot header");
    vm->k.size = 3;
    refuses(vm, NULL, "no multiboot header");
    make_elf32(&vm->k);
    put_header(&vm->k, HEADER, 7);
    refuses(vm, NULL, "demands a video mode");
    put_header(&vm->k, HEADER, 0x8003);
    refuses(vm, NULL, "demands features 0x8000");
    put_header(&vm->k, HEADER, 0xFFFE0003); /* optional ones are ignored */
    loads(vm, NULL, NULL);
    make_elf32(&vm->k);
    le32_store(vm->k.file + HEADER, 0xE85250D6);
    le32_store(vm->k.file + HEADER + 4, 0);
    le32_store(vm->k.file + HEADER + 8, 24);
    le32_store(vm->k.file + HEADER + 12, 0 - (0xE85250D6u + 24));
    refuses(vm, NULL, "only a multiboot 2 header");
}

static void bad_addresses(void **state)
{
    static const struct {
        unsigned field;
        uint32_t value;
        const char *words;
    } cases[] = {
        {12, 0x1FFFFF, "load address lies outside"},
        {16, 0xFFFFFFFF, "load address lies outside"},
        {16, 0x1FF000, "load address lies outside"},
        {20, 0x1FFFFF, "promises more than the file holds"},
        {20, 0x200000 + 0x1F01, "promises more than the file holds"},
        {20, 0xFFFFFFFF, "promises more than the file holds"},
        {24, 0x2007FF, "bss ends before it starts"},
        {24, 0xFFFFFFFF, "give the VM more (-m"},
        {28, 0x1FFFFF, "starts at 0x1fffff, outside"},
        {28, 0x202000, "starts at 0x202000, outside"},
        {28, 0xFFFFFFFF, "outside of what its multiboot header loads"},
    };
    struct vm *vm = *state;

    for (unsigned i = 0; i < countof(cases); i++) {
        make_flat(&vm->k);
        le32_store(vm->k.file + HEADER + cases[i].field, cases[i].value);
        refuses(vm, NULL, cases[i].words);
    }
    make_flat(&vm->k);
    put_header(&vm->k, HEADER, 3);
    refuses(vm, NULL, "is no ELF file, and its multiboot header has no addresses");
}

static void bad_elf(void **state)
{
    struct vm *vm = *state;

    vm->k.size = TEXT + 0x800;
    refuses(vm, NULL, "is a truncated ELF file: its segment 0");
    make_elf32(&vm->k);
    memmove(vm->k.file + 16, vm->k.file + HEADER, 12);
    vm->k.size = 40;
    refuses(vm, NULL, "is a truncated ELF file: only 40 bytes");
    make_elf32(&vm->k);
    vm->k.file[4] = 2;
    refuses(vm, NULL, "for another processor");
    make_elf32(&vm->k);
    le16_store(vm->k.file + 18, 40);
    refuses(vm, NULL, "for another processor");
    make_elf32(&vm->k);
    le16_store(vm->k.file + 42, 31);
    refuses(vm, NULL, "table of segments lies outside");
    make_elf32(&vm->k);
    le32_store(vm->k.file + 28, 0xFFFFFFF0);
    refuses(vm, NULL, "table of segments lies outside");
    make_elf32(&vm->k);
    le16_store(vm->k.file + 44, 0xFFFF);
    refuses(vm, NULL, "table of segments lies outside");
    make_elf32(&vm->k);
    le16_store(vm->k.file + 44, 0);
    refuses(vm, NULL, "without a segment to load");
    make_elf32(&vm->k);
    le32_store(vm->k.file + 24, 0x42);
    refuses(vm, NULL, "starts at 0x42, outside its segments");
}

static void bad_segments(void **state)
{
    struct vm *vm = *state;

    put_segment32(&vm->k, 0, TEXT, BASE, 0x1001, 0x1000);
    refuses(vm, NULL, "impossible sizes");
    put_segment32(&vm->k, 0, 0xFFFFF000, BASE, 0x1000, 0x2000);
    refuses(vm, NULL, "is a truncated ELF file");
    put_segment32(&vm->k, 0, TEXT, BASE, 0x1000, 0xFFFFF000);
    refuses(vm, NULL, "wants 0xfffff000 bytes at 0x100000, but memory ends at 0x4000000");
    put_segment32(&vm->k, 0, TEXT, BASE, 0x1000, (uint32_t)(RAM - BASE + 1));
    refuses(vm, NULL, "give the VM more (-m");
    make_elf32(&vm->k);
    put_segment32(&vm->k, 1, TEXT, (uint32_t)RAM, 0x10, 0x10);
    refuses(vm, NULL, "wants 0x10 bytes at 0x4000000");
    put_segment32(&vm->k, 1, TEXT, BASE + 0x1FFF, 0x10, 0x10);
    refuses(vm, NULL, "two segments that overlap at 0x101fff");
    put_segment32(&vm->k, 1, TEXT, BASE - 0x10, 0x10, 0x10);
    refuses(vm, NULL, "over the firmware's tables below 1 MiB");
    put_segment32(&vm->k, 1, TEXT, 0x9F000, 0x10, 0xC01);
    refuses(vm, NULL, "over the firmware's tables below 1 MiB");
    put_segment32(&vm->k, 1, TEXT, 0x9F000, 0x10, 0xC00);
    loads(vm, NULL, NULL);
    for (unsigned i = 1; i < 40; i++)
        put_segment32(&vm->k, i, TEXT, 0x200000 + 0x1000 * i, 0x10, 0x10);
    put_header(&vm->k, 0x1F00, 0);
    refuses(vm, NULL, "more than 32 segments");
    make_elf64(&vm->k);
    le64_store(vm->k.file + 64 + 24, UINT64_MAX - 0xFFF);
    refuses(vm, NULL, "impossible sizes");
    le64_store(vm->k.file + 24, 0xFFFFFFFF80000000ull + BASE);
    le64_store(vm->k.file + 64 + 24, GMEM_HIGH_BASE);
    refuses(vm, NULL, "wants 0x2000 bytes at 0x100000000");
    make_elf64(&vm->k);
    le64_store(vm->k.file + 64 + 40, UINT64_MAX);
    refuses(vm, NULL, "impossible sizes");
    make_elf64(&vm->k);
    le64_store(vm->k.file + 64 + 32, UINT64_MAX);
    refuses(vm, NULL, "is a truncated ELF file");
}

static void bad_modules(void **state)
{
    struct vm *vm = *state;
    char list[1024] = "";

    refuses(vm, "/nonexistent/module", "cannot open module '/nonexistent/module'");
    refuses(vm, "/tmp", "module '/tmp' is not a regular file");
    refuses(vm, ";x", "has an empty name");
    snprintf(list, sizeof(list), "%s:", vm->path[1]);
    refuses(vm, list, "has an empty name");
    assert_int_equal(truncate(vm->path[1], RAM), 0);
    refuses(vm, vm->path[1], "of the memory above the kernel only");
    assert_int_equal(truncate(vm->path[1], 5ll << 30), 0);
    refuses(vm, vm->path[1], "more than the 4294967295 allowed here");
    assert_int_equal(truncate(vm->path[1], 0), 0);
    refuses(vm, vm->path[1], "is empty");
}

static void too_many_modules(void **state)
{
    struct vm *vm = *state;
    char list[66 * 40] = "";

    for (unsigned i = 0; i < 64; i++)
        snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s", i > 0 ? ":" : "",
                 vm->path[1]);
    loads(vm, list, NULL);
    assert_int_equal(info32(vm, 20), 64);
    strcat(list, ":");
    strcat(list, vm->path[1]);
    refuses(vm, list, "more than 64 modules");
}

/* Sections that refer to everything many times over must cost nothing. */
static void huge_symbols_are_left_out(void **state)
{
    struct vm *vm = *state;

    for (unsigned i = 0; i < 10; i++)
        put_section32(&vm->k, i, 3, 0, 0, FILE_SIZE);
    loads(vm, NULL, NULL);
    assert_true(vm->res.symbols);
    put_segment32(&vm->k, 0, TEXT, BASE, 0x1000, (uint32_t)(RAM - BASE - 0x2000));
    loads(vm, NULL, NULL);
    assert_false(vm->res.symbols);
    assert_int_equal(info32(vm, 0), 0x24D);
    le16_store(vm->k.file + 48, 0xFFFF); /* a table beyond the end of the file */
    loads(vm, NULL, NULL);
    assert_false(vm->res.symbols);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(registers, setup, teardown),
        cmocka_unit_test_setup_teardown(bss_is_zero, setup, teardown),
        cmocka_unit_test_setup_teardown(information, setup, teardown),
        cmocka_unit_test_setup_teardown(bios_data, setup, teardown),
        cmocka_unit_test_setup_teardown(modules, setup, teardown),
        cmocka_unit_test_setup_teardown(symbols, setup, teardown),
        cmocka_unit_test_setup_teardown(elf64, setup, teardown),
        cmocka_unit_test_setup_teardown(addresses_of_the_header, setup, teardown),
        cmocka_unit_test_setup_teardown(structures_move_away, setup, teardown),
        cmocka_unit_test_setup_teardown(header_at_the_last_place, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_headers, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_addresses, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_elf, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_segments, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_modules, setup, teardown),
        cmocka_unit_test_setup_teardown(too_many_modules, setup, teardown),
        cmocka_unit_test_setup_teardown(huge_symbols_are_left_out, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
