/*
 * Unpacks the compressed kernel inside a bzImage. The input is hostile: output never exceeds the
 * size that the image itself announces, which the caller bounds. Pure; any thread.
 */
#ifndef BOOT_DECOMPRESS_H
#define BOOT_DECOMPRESS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum packing {
    PACKING_UNKNOWN,
    PACKING_GZIP,
    PACKING_BZIP2,
    PACKING_LZMA,
    PACKING_XZ,
    PACKING_LZO,
    PACKING_LZ4,
    PACKING_ZSTD,
};

/* By the magic bytes. */
enum packing packing_of(const uint8_t *data, size_t size);

/* "gzip", "lz4", ...; "" for unknown. */
const char *packing_name(enum packing p);

/*
 * Unpacks data, which ends in the 32-bit size of the result (gzip's own trailer is one; the
 * kernel's build appends it to every other format). *out is new memory of *out_size bytes; free()
 * it. -ENOTSUP: we do not know the format or were built without its library; -EFBIG: the result
 * would exceed max; -EINVAL: damaged. The sentence lacks the file's name.
 */
int unpack(const uint8_t *data, size_t size, uint64_t max, uint8_t **out, size_t *out_size,
           struct error *err);

/*
 * The same in two steps, for who has a place for it: how many bytes it will be, at most max; and
 * those bytes to to[0..size). After a failure of the second one, what is there is undefined.
 */
int unpack_size(const uint8_t *data, size_t size, uint64_t max, size_t *out_size,
                struct error *err);
int unpack_to(const uint8_t *data, size_t size, uint8_t *to, size_t out_size, struct error *err);

#endif
