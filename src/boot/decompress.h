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

#endif
