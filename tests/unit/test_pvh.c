/* The PVH loader, and telling kernels apart: hand-made files, good and hostile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/endian.h"
#include "boot/identify.h"
#include "boot/pvh.h"
#include "boot/tables.h"

#if HAVE_ZLIB
#include <zlib.h>
#endif

#define RAM (64 * MIB)
#define FILE_SIZE 8192u
#define NOTES 0x400u
#define NOTES_SIZE 0x200u
#define TEXT 0x1000u
#define BASE 0x1000000u
#define ENTRY (BASE + 0x850)

struct kernel {
    uint8_t file[FILE_SIZE];
    size_t size;
    uint32_t notes; /* bytes of notes so far */
};

/* Owner, type, content; the owner is padded to 4 bytes, the content too. */
static void add_note(struct kernel *k, const char *owner, uint32_t type, const void *desc,
                     uint32_t len)
{
    uint32_t name = (uint32_t)strlen(owner) + 1;
    uint8_t *p = k->file + NOTES + k->notes;

    le32_store(p, name);
    le32_store(p + 4, len);
    le32_store(p + 8, type);
    memcpy(p + 12, owner, name);
    memcpy(p + 12 + align_up(name, 4), desc, len);
    k->notes += 12 + (uint32_t)align_up(name, 4) + (uint32_t)align_up(len, 4);
}

static void add_entry_note(struct kernel *k, uint64_t entry, uint32_t len)
{
    uint8_t desc[8];

    le64_store(desc, entry);
    add_note(k, "Xen", 18, desc, len);
}

/* ELF64: one segment of 0x1000 bytes and 0x1000 of bss at BASE, linked high; room for notes. */
static void make_elf64(struct kernel *k)
{
    static const uint8_t ident[7] = {0x7F, 'E', 'L', 'F', 2, 1, 1};
    uint8_t *p = k->file + 64;

    memset(k, 0, sizeof(*k));
    k->size = FILE_SIZE;
    memcpy(k->file, ident, sizeof(ident));
    le16_store(k->file + 18, 62);
    le64_store(k->file + 24, BASE);
    le64_store(k->file + 32, 64);
    le16_store(k->file + 54, 56);
    le16_store(k->file + 56, 2);
    le32_store(p, 1);
    le64_store(p + 8, TEXT);
    le64_store(p + 16, 0xFFFFFFFF80000000ull + BASE);
    le64_store(p + 24, BASE);
    le64_store(p + 32, 0x1000);
    le64_store(p + 40, 0x2000);
    le32_store(p + 56, 4);
    le64_store(p + 56 + 8, NOTES);
    le64_store(p + 56 + 32, NOTES_SIZE);
    le64_store(p + 56 + 48, 4);
    memset(k->file + TEXT, 0xA5, 0x1000);
}

static void make_elf32(struct kernel *k)
{
    static const uint8_t ident[7] = {0x7F, 'E', 'L', 'F', 1, 1, 1};
    uint8_t *p = k->file + 52;

    memset(k, 0, sizeof(*k));
    k->size = FILE_SIZE;
    memcpy(k->file, ident, sizeof(ident));
    le16_store(k->file + 18, 3);
    le32_store(k->file + 24, BASE);
    le32_store(k->file + 28, 52);
    le16_store(k->file + 42, 32);
    le16_store(k->file + 44, 2);
    le32_store(p, 1);
    le32_store(p + 4, TEXT);
    le32_store(p + 8, BASE);
    le32_store(p + 12, BASE);
    le32_store(p + 16, 0x1000);
    le32_store(p + 20, 0x2000);
    le32_store(p + 32, 4);
    le32_store(p + 36, NOTES);
    le32_store(p + 48, NOTES_SIZE);
    memset(k->file + TEXT, 0xA5, 0x1000);
}

/* ---- one VM ---- */

struct vm {
    struct board b;
    struct x86_state state;
    struct pvh_result res;
    struct error err;
    struct kernel k;
    char path[2][32]; /* kernel and initrd */
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
    for (int i = 0; i < 2; i++) {
        strcpy(vm->path[i], "/tmp/test_pvh.XXXXXX");
        close(mkstemp(vm->path[i]));
    }
    put_file(vm->path[1], "the initrd", 10);
    make_elf64(&vm->k);
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

static int load_bytes(struct vm *vm, const void *data, size_t len, bool initrd, const char *cmdline)
{
    struct pvh_params p = {.kernel = vm->path[0],
                           .initrd = initrd ? vm->path[1] : NULL,
                           .cmdline = cmdline,
                           .rsdp = BOARD_ACPI_TABLE};

    put_file(vm->path[0], data, len);
    vm->err = (struct error){0};
    x86_state_reset(&vm->state, true);
    return pvh_load(&vm->b, &p, &vm->state, &vm->res, &vm->err);
}

static void loads(struct vm *vm, bool initrd, const char *cmdline)
{
    if (load_bytes(vm, vm->k.file, vm->k.size, initrd, cmdline) != 0)
        fail_msg("%s", vm->err.text);
}

static void refuses(struct vm *vm, const char *words)
{
    assert_true(load_bytes(vm, vm->k.file, vm->k.size, false, NULL) < 0);
    if (strstr(vm->err.text, words) == NULL)
        fail_msg("'%s' lacks '%s'", vm->err.text, words);
}

/* ---- what a kernel finds ---- */

static void check_registers(const struct vm *vm)
{
    const struct x86_state *s = &vm->state;

    assert_int_equal(s->rip, ENTRY);
    assert_int_equal(s->gpr[X86_RBX], vm->res.info);
    assert_int_equal(s->cr0, X86_CR0_PE | X86_CR0_ET); /* ET cannot be cleared */
    assert_int_equal(s->cr4, 0);
    assert_int_equal(s->efer, 0);
    assert_int_equal(s->rflags & (X86_FL_VM | X86_FL_IF | X86_FL_TF), 0);
    for (unsigned i = 0; i < X86_SEG_COUNT; i++) {
        assert_int_equal(s->seg[i].base, 0);
        assert_int_equal(s->seg[i].limit, UINT32_MAX);
        assert_int_equal(s->seg[i].attr, i == X86_CS ? 0xC09B : 0xC093);
    }
    assert_int_equal(s->tr.base, 0);
    assert_int_equal(s->tr.limit, 0x67);
    assert_int_equal(s->tr.attr, 0x8B);
}

static void entered_by_the_note(void **state)
{
    struct vm *vm = *state;

    add_note(&vm->k, "GNU", 3, "0123456789abcdefghij", 20);
    add_note(&vm->k, "Xen", 6, "linux", 6);
    add_note(&vm->k, "Xe", 18, "\0\0\0\1", 4);
    add_entry_note(&vm->k, ENTRY, 8);
    loads(vm, false, NULL);
    check_registers(vm);
    assert_int_equal(gmem_read32(vm->b.mem, BASE), 0xA5A5A5A5);
    assert_int_equal(gmem_read32(vm->b.mem, BASE + 0x1000), 0);
    make_elf32(&vm->k);
    add_entry_note(&vm->k, ENTRY, 4);
    loads(vm, false, NULL);
    check_registers(vm);
}

static void start_info(void **state)
{
    struct vm *vm = *state;
    struct gmem *m = vm->b.mem;
    struct e820_entry map[E820_MAX];
    unsigned n = e820_build(&vm->b, map);
    char text[32] = "";
    uint64_t at;

    add_entry_note(&vm->k, ENTRY, 8);
    loads(vm, true, "a b,c");
    at = vm->res.info;
    assert_int_equal(gmem_read32(m, at), 0x336EC578);
    assert_int_equal(gmem_read32(m, at + 4), 1);
    assert_int_equal(gmem_read32(m, at + 8), 0);
    assert_int_equal(gmem_read32(m, at + 12), 1);
    assert_int_equal(gmem_read64(m, at + 32), BOARD_ACPI_TABLE);
    assert_int_equal(gmem_read32(m, at + 48), n);
    assert_int_equal(gmem_read(m, gmem_read64(m, at + 24), text, 6), 0);
    assert_string_equal(text, "a b,c");
    at = gmem_read64(m, vm->res.info + 16);
    assert_int_equal(gmem_read64(m, at), BASE + 0x2000);
    assert_int_equal(gmem_read64(m, at + 8), 10);
    assert_int_equal(gmem_read64(m, at + 16), 0);
    assert_int_equal(gmem_read(m, BASE + 0x2000, text, 10), 0);
    assert_memory_equal(text, "the initrd", 10);
    at = gmem_read64(m, vm->res.info + 40);
    for (unsigned i = 0; i < n; i++, at += 24) {
        assert_int_equal(gmem_read64(m, at), map[i].base);
        assert_int_equal(gmem_read64(m, at + 8), map[i].size);
        assert_int_equal(gmem_read32(m, at + 16), map[i].type);
        assert_int_equal(gmem_read32(m, at + 20), 0);
    }
    loads(vm, false, NULL);
    assert_int_equal(gmem_read32(m, vm->res.info + 12), 0);
    assert_int_equal(gmem_read64(m, vm->res.info + 16), 0);
}

#if HAVE_ZLIB
static size_t gzip(const struct kernel *k, uint8_t *to, size_t room)
{
    z_stream z = {0};

    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (uint8_t *)(uintptr_t)k->file;
    z.avail_in = (uInt)k->size;
    z.next_out = to;
    z.avail_out = (uInt)room;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return z.total_out;
}

/* As one gzip file, and as the payload of a bzImage. */
static void packed(void **state)
{
    struct vm *vm = *state;
    uint8_t file[2 * FILE_SIZE] = {0};
    size_t len;

    add_entry_note(&vm->k, ENTRY, 8);
    len = gzip(&vm->k, file, sizeof(file));
    assert_int_equal(load_bytes(vm, file, len, false, NULL), 0);
    check_registers(vm);
    file[len / 2] ^= 0x55;
    assert_true(load_bytes(vm, file, len, false, NULL) < 0);
    assert_non_null(strstr(vm->err.text, "gzip payload is damaged"));

    memset(file, 0, sizeof(file));
    file[0x1F1] = 1;
    memcpy(file + 0x202, "HdrS", 4);
    le16_store(file + 0x206, 0x20F);
    le32_store(file + 0x248, 0x100);
    len = gzip(&vm->k, file + 1024 + 0x100, sizeof(file) - 1024 - 0x100);
    le32_store(file + 0x24C, (uint32_t)len);
    assert_int_equal(load_bytes(vm, file, 1024 + 0x100 + len, false, NULL), 0);
    check_registers(vm);
    assert_true(load_bytes(vm, file, 1024 + 0x100 + len - 1, false, NULL) < 0);
    assert_non_null(strstr(vm->err.text, "bzImage whose payload cannot be found"));
    le32_store(file + 0x248, 0xFFFFFFFF);
    assert_true(load_bytes(vm, file, 1024 + 0x100 + len, false, NULL) < 0);
    assert_non_null(strstr(vm->err.text, "bzImage whose payload cannot be found"));
}
#endif

/* ---- what is refused ---- */

static void bad_notes(void **state)
{
    struct vm *vm = *state;

    refuses(vm, "has no PVH entry");
    add_note(&vm->k, "Xen", 17, "\0\0\0\1", 4);
    add_note(&vm->k, "Xfn", 18, "\0\0\0\1", 4);
    refuses(vm, "has no PVH entry");
    add_entry_note(&vm->k, ENTRY, 2);
    refuses(vm, "has no PVH entry");
    make_elf64(&vm->k);
    add_entry_note(&vm->k, BASE - 1, 8);
    refuses(vm, "has its PVH entry at 0xffffff, outside its segments");
    make_elf64(&vm->k);
    add_entry_note(&vm->k, UINT64_MAX, 8);
    refuses(vm, "outside its segments");
    make_elf64(&vm->k);
    add_entry_note(&vm->k, ENTRY, 8);
    le32_store(vm->k.file + NOTES, 0xFFFFFFFF); /* a name, then a content, without end */
    refuses(vm, "has no PVH entry");
    le32_store(vm->k.file + NOTES, 4);
    le32_store(vm->k.file + NOTES + 4, 0xFFFFFFFD);
    refuses(vm, "has no PVH entry");
    make_elf64(&vm->k);
    add_entry_note(&vm->k, ENTRY, 8);
    le64_store(vm->k.file + 64 + 56 + 32, 23); /* the notes end a byte too soon */
    refuses(vm, "has no PVH entry");
    le64_store(vm->k.file + 64 + 56 + 32, UINT64_MAX);
    refuses(vm, "has no PVH entry");
    le64_store(vm->k.file + 64 + 56 + 32, NOTES_SIZE);
    le64_store(vm->k.file + 64 + 56 + 8, FILE_SIZE);
    refuses(vm, "has no PVH entry");
}

static void bad_files(void **state)
{
    struct vm *vm = *state;

    add_entry_note(&vm->k, ENTRY, 8);
    vm->k.size = TEXT + 0x10;
    refuses(vm, "is a truncated ELF file");
    vm->k.size = FILE_SIZE;
    le64_store(vm->k.file + 64 + 40, RAM);
    refuses(vm, "give the VM more (-m");
    vm->k.file[0] = 0;
    refuses(vm, "is no ELF file");
    make_elf64(&vm->k);
    add_entry_note(&vm->k, ENTRY, 8);
    assert_int_equal(truncate(vm->path[1], 60 << 20), 0);
    assert_true(load_bytes(vm, vm->k.file, vm->k.size, true, NULL) < 0);
    assert_non_null(strstr(vm->err.text, "of the memory above the kernel only 50323456 are left"));
}

/* ---- which loader a file is for ---- */

static void kind_is(struct vm *vm, enum kernel_kind kind, bool linux_words)
{
    bool words = !linux_words;

    put_file(vm->path[0], vm->k.file, vm->k.size);
    assert_int_equal(kernel_identify(vm->path[0], &words), kind);
    assert_int_equal(words, linux_words);
}

static void told_apart(void **state)
{
    struct vm *vm = *state;
    bool words;

    kind_is(vm, KERNEL_LINUX, true);
    add_entry_note(&vm->k, ENTRY, 8);
    kind_is(vm, KERNEL_PVH, false);
    add_note(&vm->k, "Xen", 6, "linux", 6);
    kind_is(vm, KERNEL_PVH, true);
    le32_store(vm->k.file + 0x800, 0x1BADB002); /* both: multiboot */
    le32_store(vm->k.file + 0x808, 0 - 0x1BADB002u);
    kind_is(vm, KERNEL_MULTIBOOT, false);
    memset(&vm->k, 0, sizeof(vm->k));
    vm->k.size = 5;
    kind_is(vm, KERNEL_LINUX, true);
    assert_int_equal(kernel_identify("/nonexistent", &words), KERNEL_LINUX);
    assert_int_equal(kernel_identify("/tmp", &words), KERNEL_LINUX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(entered_by_the_note, setup, teardown),
        cmocka_unit_test_setup_teardown(start_info, setup, teardown),
#if HAVE_ZLIB
        cmocka_unit_test_setup_teardown(packed, setup, teardown),
#endif
        cmocka_unit_test_setup_teardown(bad_notes, setup, teardown),
        cmocka_unit_test_setup_teardown(bad_files, setup, teardown),
        cmocka_unit_test_setup_teardown(told_apart, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
