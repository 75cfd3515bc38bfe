/*
 * Writes ACPI machine language into a buffer: named objects, the few operators that our DSDT needs,
 * and resource descriptors. An object with a length is opened with a call that returns a mark and
 * closed with aml_end:
 *
 *     size_t dev = aml_device(&a, "COM1");
 *     aml_name_eisaid(&a, "_HID", "PNP0501");
 *     aml_end(&a, dev);
 *
 * Writing past the buffer's end sets `full` and drops the rest; check once at the end. Names are
 * paths as in ASL ("\\_SB.PCI0", "PIRA"), segments are padded. ACPI: AML encoding, resource data
 * types. Pure.
 */
#ifndef BOOT_AML_H
#define BOOT_AML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct aml {
    uint8_t *data;
    size_t len, cap;
    bool full;
};

#define AML_ARG(n) ((uint8_t)(0x68 + (n)))
#define AML_LOCAL(n) ((uint8_t)(0x60 + (n)))

enum aml_op {
    AML_STORE = 0x70,          /* value, target */
    AML_DECREMENT = 0x76,      /* target */
    AML_SHIFT_LEFT = 0x79,     /* value, count, target */
    AML_AND = 0x7B,            /* value, value, target */
    AML_FIND_RIGHT_BIT = 0x82, /* value, target: 1 for bit 0, 0 for none */
    AML_WORD_FIELD = 0x8B,     /* buffer, byte offset, name */
    AML_RETURN = 0xA4,         /* value */
};

enum aml_space { AML_SYSTEM_IO = 1, AML_PCI_CONFIG = 2 };

/* Raw parts of expressions. */
void aml_op(struct aml *a, enum aml_op op);
void aml_byte(struct aml *a, uint8_t byte); /* AML_ARG, AML_LOCAL, 0 for "no target" */
void aml_path(struct aml *a, const char *path);
void aml_int(struct aml *a, uint64_t value);
void aml_string(struct aml *a, const char *text);
void aml_eisaid(struct aml *a, const char *id); /* "PNP0501" */

/* Objects with a length. */
size_t aml_scope(struct aml *a, const char *path);
size_t aml_device(struct aml *a, const char *name);
size_t aml_method(struct aml *a, const char *name, unsigned args);
size_t aml_if(struct aml *a); /* the predicate follows */
size_t aml_else(struct aml *a);
size_t aml_package(struct aml *a, unsigned elements); /* at most 255 */
size_t aml_field(struct aml *a, const char *region);  /* byte access, preserve */
void aml_end(struct aml *a, size_t mark);

void aml_field_gap(struct aml *a, unsigned bits);
void aml_field_name(struct aml *a, const char *name, unsigned bits);
void aml_region(struct aml *a, const char *name, enum aml_space space, uint64_t at, uint64_t len);

/* Name (x, value). */
void aml_name(struct aml *a, const char *name); /* the value follows */
void aml_name_int(struct aml *a, const char *name, uint64_t value);
void aml_name_string(struct aml *a, const char *name, const char *text);
void aml_name_eisaid(struct aml *a, const char *name, const char *id);

/* A buffer of resource descriptors: open, descriptors, aml_resources_end. */
size_t aml_resources(struct aml *a);
void aml_resources_end(struct aml *a, size_t mark);
void aml_io(struct aml *a, uint16_t port, uint8_t len);
void aml_irq(struct aml *a, uint16_t mask);           /* edge, high */
void aml_irq_level_low(struct aml *a, uint16_t mask); /* and shared, as PCI links are */
void aml_memory32(struct aml *a, uint32_t base, uint32_t len);
void aml_bus_window(struct aml *a, uint16_t first, uint16_t last);
void aml_io_window(struct aml *a, uint16_t first, uint16_t last);
void aml_memory32_window(struct aml *a, uint32_t first, uint32_t last);
void aml_memory64_window(struct aml *a, uint64_t first, uint64_t last);

#endif
