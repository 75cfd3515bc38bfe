#include "boot/aml.h"

#include <string.h>

#include "base/endian.h"

enum {
    OP_NAME = 0x08,
    OP_BYTE = 0x0A,
    OP_WORD = 0x0B,
    OP_DWORD = 0x0C,
    OP_STRING = 0x0D,
    OP_QWORD = 0x0E,
    OP_SCOPE = 0x10,
    OP_BUFFER = 0x11,
    OP_PACKAGE = 0x12,
    OP_METHOD = 0x14,
    OP_DUAL_NAME = 0x2E,
    OP_MULTI_NAME = 0x2F,
    OP_EXT = 0x5B,
    OP_EXT_REGION = 0x80,
    OP_EXT_FIELD = 0x81,
    OP_EXT_DEVICE = 0x82,
    OP_IF = 0xA0,
    OP_ELSE = 0xA1,
};

static void put(struct aml *a, const void *data, size_t len)
{
    if (len > a->cap - a->len) {
        a->full = true;
        return;
    }
    memcpy(a->data + a->len, data, len);
    a->len += len;
}

void aml_byte(struct aml *a, uint8_t byte)
{
    put(a, &byte, 1);
}

void aml_op(struct aml *a, enum aml_op op)
{
    aml_byte(a, (uint8_t)op);
}

/* Little-endian. */
static void put_int(struct aml *a, uint64_t v, unsigned bytes)
{
    uint8_t b[8];

    le64_store(b, v);
    put(a, b, bytes);
}

/*
 * PkgLength: below 64 it is one byte; else the low nibble, then up to three bytes, whose number
 * stands in bits 7:6 of the first.
 */
static size_t encode_length(uint8_t out[4], size_t len)
{
    size_t extra = len < (1u << 12) ? 1 : len < (1u << 20) ? 2 : 3;

    if (len < 64) {
        out[0] = (uint8_t)len;
        return 1;
    }
    out[0] = (uint8_t)(extra << 6 | (len & 15));
    for (size_t i = 0; i < extra; i++)
        out[1 + i] = (uint8_t)(len >> (4 + 8 * i));
    return 1 + extra;
}

/* The length counts its own bytes, so it is known and put in only when the object is complete. */
void aml_end(struct aml *a, size_t mark)
{
    static const size_t limit[] = {64, 1u << 12, 1u << 20, 1u << 28};
    size_t body = a->len - mark;
    size_t own = 1;
    uint8_t enc[4];

    while (body + own >= limit[own - 1])
        own++;
    if (a->full || own > a->cap - a->len) {
        a->full = true;
        return;
    }
    encode_length(enc, body + own);
    memmove(a->data + mark + own, a->data + mark, body);
    memcpy(a->data + mark, enc, own);
    a->len += own;
}

static void put_segment(struct aml *a, const char *seg, size_t len)
{
    char s[4] = {'_', '_', '_', '_'};

    memcpy(s, seg, len < 4 ? len : 4);
    put(a, s, 4);
}

void aml_path(struct aml *a, const char *path)
{
    unsigned segments = 1;

    for (; *path == '\\' || *path == '^'; path++)
        aml_byte(a, (uint8_t)*path);
    if (*path == '\0') {
        aml_byte(a, 0);
        return;
    }
    for (const char *p = path; *p != '\0'; p++)
        segments += *p == '.';
    if (segments == 2) {
        aml_byte(a, OP_DUAL_NAME);
    } else if (segments > 2) {
        aml_byte(a, OP_MULTI_NAME);
        aml_byte(a, (uint8_t)segments);
    }
    for (unsigned i = 0; i < segments; i++) {
        size_t n = strcspn(path, ".");

        put_segment(a, path, n);
        path += n + 1;
    }
}

void aml_int(struct aml *a, uint64_t value)
{
    if (value <= 1) {
        aml_byte(a, (uint8_t)value);
    } else if (value <= UINT8_MAX) {
        aml_byte(a, OP_BYTE);
        put_int(a, value, 1);
    } else if (value <= UINT16_MAX) {
        aml_byte(a, OP_WORD);
        put_int(a, value, 2);
    } else if (value <= UINT32_MAX) {
        aml_byte(a, OP_DWORD);
        put_int(a, value, 4);
    } else {
        aml_byte(a, OP_QWORD);
        put_int(a, value, 8);
    }
}

void aml_string(struct aml *a, const char *text)
{
    aml_byte(a, OP_STRING);
    put(a, text, strlen(text) + 1);
}

static uint32_t hex_digit(char c)
{
    return (uint32_t)(c <= '9' ? c - '0' : c - 'A' + 10);
}

/* Three letters of five bits and four hexadecimal digits, big-endian. ACPI, _HID. */
void aml_eisaid(struct aml *a, const char *id)
{
    uint32_t v = 0;
    uint8_t b[4];

    for (unsigned i = 0; i < 3; i++)
        v = v << 5 | ((uint32_t)(id[i] - '@') & 31);
    for (unsigned i = 3; i < 7; i++)
        v = v << 4 | hex_digit(id[i]);
    be32_store(b, v);
    aml_byte(a, OP_DWORD);
    put(a, b, sizeof(b));
}

size_t aml_scope(struct aml *a, const char *path)
{
    size_t mark;

    aml_byte(a, OP_SCOPE);
    mark = a->len;
    aml_path(a, path);
    return mark;
}

size_t aml_device(struct aml *a, const char *name)
{
    size_t mark;

    aml_byte(a, OP_EXT);
    aml_byte(a, OP_EXT_DEVICE);
    mark = a->len;
    aml_path(a, name);
    return mark;
}

size_t aml_method(struct aml *a, const char *name, unsigned args)
{
    size_t mark;

    aml_byte(a, OP_METHOD);
    mark = a->len;
    aml_path(a, name);
    aml_byte(a, (uint8_t)args);
    return mark;
}

size_t aml_if(struct aml *a)
{
    aml_byte(a, OP_IF);
    return a->len;
}

size_t aml_else(struct aml *a)
{
    aml_byte(a, OP_ELSE);
    return a->len;
}

size_t aml_package(struct aml *a, unsigned elements)
{
    size_t mark;

    aml_byte(a, OP_PACKAGE);
    mark = a->len;
    aml_byte(a, (uint8_t)elements);
    return mark;
}

size_t aml_field(struct aml *a, const char *region)
{
    size_t mark;

    aml_byte(a, OP_EXT);
    aml_byte(a, OP_EXT_FIELD);
    mark = a->len;
    aml_path(a, region);
    aml_byte(a, 0x01); /* byte access, no lock, preserve */
    return mark;
}

static void put_field_bits(struct aml *a, unsigned bits)
{
    uint8_t enc[4];

    put(a, enc, encode_length(enc, bits));
}

void aml_field_gap(struct aml *a, unsigned bits)
{
    aml_byte(a, 0);
    put_field_bits(a, bits);
}

void aml_field_name(struct aml *a, const char *name, unsigned bits)
{
    put_segment(a, name, strlen(name));
    put_field_bits(a, bits);
}

void aml_region(struct aml *a, const char *name, enum aml_space space, uint64_t at, uint64_t len)
{
    aml_byte(a, OP_EXT);
    aml_byte(a, OP_EXT_REGION);
    aml_path(a, name);
    aml_byte(a, (uint8_t)space);
    aml_int(a, at);
    aml_int(a, len);
}

void aml_name(struct aml *a, const char *name)
{
    aml_byte(a, OP_NAME);
    aml_path(a, name);
}

void aml_name_int(struct aml *a, const char *name, uint64_t value)
{
    aml_name(a, name);
    aml_int(a, value);
}

void aml_name_string(struct aml *a, const char *name, const char *text)
{
    aml_name(a, name);
    aml_string(a, text);
}

void aml_name_eisaid(struct aml *a, const char *name, const char *id)
{
    aml_name(a, name);
    aml_eisaid(a, id);
}

/* The buffer's size is a 16-bit constant, filled in at the end. */
size_t aml_resources(struct aml *a)
{
    size_t mark;

    aml_byte(a, OP_BUFFER);
    mark = a->len;
    aml_byte(a, OP_WORD);
    put_int(a, 0, 2);
    return mark;
}

void aml_resources_end(struct aml *a, size_t mark)
{
    aml_byte(a, 0x79); /* end tag; checksum 0: not checked */
    aml_byte(a, 0);
    if (a->full)
        return;
    le16_store(a->data + mark + 1, (uint16_t)(a->len - mark - 3));
    aml_end(a, mark);
}

void aml_io(struct aml *a, uint16_t port, uint8_t len)
{
    aml_byte(a, 0x47);
    aml_byte(a, 1); /* decodes 16 bits */
    put_int(a, port, 2);
    put_int(a, port, 2);
    aml_byte(a, 1); /* alignment */
    aml_byte(a, len);
}

void aml_irq(struct aml *a, uint16_t mask)
{
    aml_byte(a, 0x22);
    put_int(a, mask, 2);
}

void aml_irq_level_low(struct aml *a, uint16_t mask)
{
    aml_byte(a, 0x23);
    put_int(a, mask, 2);
    aml_byte(a, 0x18);
}

void aml_memory32(struct aml *a, uint32_t base, uint32_t len)
{
    aml_byte(a, 0x86);
    put_int(a, 9, 2);
    aml_byte(a, 1); /* writable */
    put_int(a, base, 4);
    put_int(a, len, 4);
}

enum { WINDOW_MEMORY = 0, WINDOW_IO = 1, WINDOW_BUS = 2 };

/* An address space descriptor with fixed ends, which the bridge passes on. */
static void put_window(struct aml *a, uint8_t tag, unsigned width, uint8_t type, uint8_t flags,
                       uint64_t first, uint64_t last)
{
    aml_byte(a, tag);
    put_int(a, 3 + 5 * (uint64_t)width, 2);
    aml_byte(a, type);
    aml_byte(a, 0x0C); /* produced, minimum and maximum fixed */
    aml_byte(a, flags);
    put_int(a, 0, width); /* granularity */
    put_int(a, first, width);
    put_int(a, last, width);
    put_int(a, 0, width); /* translation */
    put_int(a, last - first + 1, width);
}

void aml_bus_window(struct aml *a, uint16_t first, uint16_t last)
{
    put_window(a, 0x88, 2, WINDOW_BUS, 0, first, last);
}

void aml_io_window(struct aml *a, uint16_t first, uint16_t last)
{
    put_window(a, 0x88, 2, WINDOW_IO, 3, first, last); /* ISA and other ports */
}

void aml_memory32_window(struct aml *a, uint32_t first, uint32_t last)
{
    put_window(a, 0x87, 4, WINDOW_MEMORY, 1, first, last); /* writable, not cacheable */
}

void aml_memory64_window(struct aml *a, uint64_t first, uint64_t last)
{
    put_window(a, 0x8A, 8, WINDOW_MEMORY, 1, first, last);
}
