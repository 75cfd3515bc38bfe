#include "boot/symbols.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/endian.h"
#include "boot/decompress.h"
#include "boot/elf.h"
#include "boot/file.h"
#include "boot/symbols_build.h"

#define FILE_MAX GIB
#define UNPACKED_MAX (512 * MIB)

#define SECTION_SYMTAB 2u
#define SECTION_DYNSYM 11u
#define SECTION_EXEC 4u
#define SYM32_SIZE 16u
#define SYM64_SIZE 24u
#define TYPE_NONE 0u
#define TYPE_FUNC 2u
#define TYPE_IFUNC 10u

/* ---- ELF ---- */

struct elf_symbols {
    const struct elf *e;
    const uint8_t *table, *names;
    uint64_t n, names_size;
};

static bool content(const struct elf *e, unsigned i, const uint8_t **data, uint64_t *size)
{
    struct elf_section s = elf_section(e, i);

    *size = s.size;
    if (s.type == ELF_SECTION_NOBITS || s.offset > e->size || s.size > e->size - s.offset)
        return false;
    *data = e->data + s.offset;
    return true;
}

/* The first table of this kind with a table of strings to it. */
static bool find_table(const struct elf *e, uint32_t type, struct elf_symbols *t)
{
    for (unsigned i = 0; i < e->shnum; i++) {
        const uint8_t *header = e->data + e->shoff + (uint64_t)i * e->shentsize;
        uint32_t link = le32_load(header + (e->is64 ? 40 : 24));
        uint64_t size;

        if (elf_section(e, i).type != type || !content(e, i, &t->table, &size))
            continue;
        t->e = e;
        t->n = size / (e->is64 ? SYM64_SIZE : SYM32_SIZE);
        if (link < e->shnum && content(e, link, &t->names, &t->names_size))
            return true;
    }
    return false;
}

/* Functions, and what assembly code marks without saying that it is one. */
static int add_elf_symbol(struct symbols_build *b, const struct elf_symbols *t, uint64_t i)
{
    const uint8_t *p = t->table + i * (t->e->is64 ? SYM64_SIZE : SYM32_SIZE);
    bool is64 = t->e->is64;
    uint32_t name = le32_load(p);
    unsigned info = p[is64 ? 4 : 12], type = info & 15, bind = info >> 4;
    unsigned section = le16_load(p + (is64 ? 6 : 14));
    uint64_t value = is64 ? le64_load(p + 8) : le32_load(p + 4);
    uint64_t size = is64 ? le64_load(p + 16) : le32_load(p + 8);
    struct symbols_raw raw = {.addr = value, .sized = size != 0};
    struct elf_section s;
    size_t len;

    if ((type != TYPE_FUNC && type != TYPE_IFUNC && type != TYPE_NONE) || section == 0 ||
        section >= t->e->shnum || name >= t->names_size)
        return 0;
    s = elf_section(t->e, section);
    if ((s.flags & SECTION_EXEC) == 0)
        return 0;
    len = strnlen((const char *)t->names + name, t->names_size - name);
    if (len == 0)
        return 0;
    if (__builtin_add_overflow(value, size, &raw.end) ||
        (size == 0 && __builtin_add_overflow(s.addr, s.size, &raw.end)))
        raw.end = UINT64_MAX;
    /* Global names before weak and local ones, functions before labels. */
    raw.rank = (uint8_t)((type != TYPE_NONE ? 4 : 0) + (bind == 1 ? 2 : bind == 2 ? 1 : 0));
    return symbols_add(b, &raw, (const char *)t->names + name, len);
}

static int collect_elf(struct symbols_build *b, const struct elf *e)
{
    static const uint32_t kinds[] = {SECTION_SYMTAB, SECTION_DYNSYM};
    int rc = 0;

    for (unsigned k = 0; k < countof(kinds) && b->n == 0; k++) {
        struct elf_symbols t;

        if (!find_table(e, kinds[k], &t))
            continue;
        for (uint64_t i = 0; i < t.n && rc == 0; i++)
            rc = add_elf_symbol(b, &t, i);
    }
    if (rc == 0 && b->n == 0)
        rc = symbols_kallsyms(b, e->data, e->size, 0);
    return rc == -ENOENT ? 0 : rc;
}

/* ---- text ---- */

static bool hex_digit(char c, unsigned *v)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = c != '\0' ? strchr(digits, c) : NULL;

    *v = at != NULL ? (unsigned)(at - digits) : 0;
    return at != NULL;
}

struct line {
    uint64_t addr;
    char type;
    const char *name;
    size_t len;
};

/* "ffffffff81000000 T _text", and perhaps a tab and a module's name. */
static bool parse_line(const char *p, const char *end, struct line *l)
{
    unsigned digit, digits = 0;

    *l = (struct line){0};
    for (; p < end && hex_digit(*p, &digit); p++, digits++)
        l->addr = l->addr << 4 | digit;
    if (digits == 0 || digits > 16 || end - p < 4 || p[0] != ' ' || p[2] != ' ' || p[1] <= ' ')
        return false;
    l->type = p[1];
    l->name = p + 3;
    while (l->name + l->len < end && strchr(" \t\r", l->name[l->len]) == NULL)
        l->len++;
    return l->len > 0;
}

/* The number of the first line that is none, 0 if all are; or a negative errno. */
static int collect_text(struct symbols_build *b, const char *p, size_t size)
{
    const char *end = p + size;
    int rc;

    for (int number = 1; p < end; number++) {
        const char *eol = memchr(p, '\n', (size_t)(end - p));
        struct line l;

        if (eol == NULL)
            eol = end;
        if (!parse_line(p, eol, &l))
            return number;
        rc = symbols_add_typed(b, l.addr, l.type, l.name, l.len);
        if (rc != 0)
            return rc;
        p = eol < end ? eol + 1 : end;
    }
    return 0;
}

/* ---- files ---- */

#define HDR_MAGIC 0x202u
#define HDR_VERSION 0x206u
#define HDR_SETUP_SECTS 0x1F1u
#define HDR_PAYLOAD_OFFSET 0x248u
#define HDR_PAYLOAD_LEN 0x24Cu
#define HDR_PAYLOAD_END 0x250u

static bool bzimage_magic(const uint8_t *d, size_t size)
{
    return size >= HDR_PAYLOAD_END && memcmp(d + HDR_MAGIC, "HdrS", 4) == 0;
}

/* Linux: x86 boot protocol. The sentence follows the file's name. */
static int collect_bzimage(struct symbols_build *b, const uint8_t *d, size_t size,
                           struct error *err)
{
    uint64_t sects = d[HDR_SETUP_SECTS] != 0 ? d[HDR_SETUP_SECTS] : 4;
    uint64_t start = (sects + 1) * 512 + le32_load(d + HDR_PAYLOAD_OFFSET);
    uint64_t len = le32_load(d + HDR_PAYLOAD_LEN);
    struct error why = {0};
    uint8_t *image = NULL;
    size_t image_size;
    int rc;

    if (le16_load(d + HDR_VERSION) < 0x208 || start > size || len > size - start)
        return error_set(err, -EINVAL, "is a bzImage too old or truncated; give a newer one");
    rc = unpack(d + start, len, UNPACKED_MAX, &image, &image_size, &why);
    if (rc != 0)
        return error_set(err, rc, "cannot be unpacked: %s", why.text);
    rc = symbols_kallsyms(b, image, image_size, 0);
    free(image);
    if (rc == -ENOENT)
        return error_set(err, -EINVAL,
                         "is a kernel without kallsyms; give one built with CONFIG_KALLSYMS, or "
                         "its System.map");
    return rc != 0 ? symbols_build_failed(rc, err) : 0;
}

static int collect_file(struct symbols_build *b, const uint8_t *d, size_t size, struct error *err)
{
    struct elf e;
    int rc;

    if (elf_magic(d, size)) {
        rc = elf_parse(d, size, &e, err);
        if (rc != 0)
            return rc;
        rc = collect_elf(b, &e);
    } else if (bzimage_magic(d, size)) {
        return collect_bzimage(b, d, size, err);
    } else {
        rc = collect_text(b, (const char *)d, size);
        if (rc == 1)
            return error_set(err, -EINVAL,
                             "is no ELF file, kernel or System.map; give one of these");
        if (rc > 1)
            return error_set(err, -EINVAL, "is not like a System.map in line %d; fetch it again",
                             rc);
    }
    return rc != 0 ? symbols_build_failed(rc, err) : 0;
}

int symbols_load_file(const char *path, struct symbols **out, struct error *err)
{
    struct symbols_build b = {0};
    struct error why = {0};
    uint8_t *data;
    uint64_t size, highest = 0;
    int rc;

    rc = file_load("symbol file", path, FILE_MAX, &data, &size, err);
    if (rc != 0)
        return rc;
    rc = collect_file(&b, data, size, &why);
    free(data);
    if (rc != 0)
        error_set(err, rc, "symbol file '%s' %s", path, why.text);
    for (size_t i = 0; i < b.n && rc == 0; i++)
        highest = max_u64(highest, b.raw[i].addr);
    if (rc == 0 && b.n == 0)
        rc = error_set(err, -EINVAL,
                       "symbol file '%s' names no functions; give the kernel itself, or a file "
                       "that is not stripped",
                       path);
    else if (rc == 0 && highest == 0) /* what /proc/kallsyms shows to those it does not trust */
        rc = error_set(err, -EINVAL, "symbol file '%s' has no addresses but 0; read it as root",
                       path);
    if (rc != 0) {
        symbols_build_free(&b);
        return rc;
    }
    return symbols_finish(&b, out, err);
}
