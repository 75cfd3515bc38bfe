/*
 * Inside of src/boot/symbols*.c: a table while it is collected, in any order. The building thread.
 */
#ifndef BOOT_SYMBOLS_BUILD_H
#define BOOT_SYMBOLS_BUILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "boot/symbols.h"

/* What a table may hold at most; a hostile file could ask for more than there is memory. */
#define SYMBOLS_MAX (4u << 20)
#define SYMBOLS_POOL_MAX (128u << 20)
#define SYMBOLS_NAME_MAX 511u /* longer names are cut; Linux: KSYM_NAME_LEN */

struct symbols_raw {
    uint64_t addr, end; /* end: see sized */
    uint32_t name;      /* in the pool; 0: here begins what is not text */
    uint8_t rank;       /* of several names for an address the highest comes first */
    bool sized;         /* false: it reaches to the next one, or to end if that comes first */
};

struct symbols_build {
    struct symbols_raw *raw;
    size_t n, cap;
    char *pool;
    size_t used, room;
};

/* As nm writes them: T, t and weak functions. */
bool symbols_text_type(char type);

/* True if a symbol of this type says that text has ended; absolute ones are nowhere. */
bool symbols_ends_text(char type);

/* name is copied, with '?' for what is not printable. -ENOMEM or -E2BIG. */
int symbols_add(struct symbols_build *b, const struct symbols_raw *raw, const char *name,
                size_t len);

/* Text that reaches to the next symbol, or, where type is another, its end. */
int symbols_add_typed(struct symbols_build *b, uint64_t addr, char type, const char *name,
                      size_t len);

/* Makes the table and leaves b empty, whatever it returns. */
int symbols_finish(struct symbols_build *b, struct symbols **out, struct error *err);

/* The sentence for what these functions return. */
int symbols_build_failed(int rc, struct error *err);

void symbols_build_free(struct symbols_build *b);

/* kallsyms from an image, see symbols_from_kernel. -ENOENT, -ENOMEM, -E2BIG. */
int symbols_kallsyms(struct symbols_build *b, const uint8_t *image, size_t size, uint64_t linear);

#endif
