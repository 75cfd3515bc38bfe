#include "boot/decompress.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/endian.h"
#include "host/memory.h"

#if HAVE_ZLIB
#define ZLIB_CONST /* makes its input pointer const */
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

/*
 * What a decoder may use for its own state. Kernels are packed with dictionaries of up to 128 MiB;
 * a header that asks for 4 GiB is an attack.
 */
#define DECODER_MEMORY (256 * MIB)
/* Bytes after the stream that give its unpacked size; gzip has them as its own. */
#define SIZE_TRAILER 4u

static const struct {
    enum packing packing;
    uint8_t magic[6];
    uint8_t len;
} magics[] = {
    {PACKING_GZIP, {0x1F, 0x8B}, 2},
    {PACKING_BZIP2, {'B', 'Z', 'h'}, 3},
    {PACKING_LZMA, {0x5D, 0x00, 0x00}, 3},
    {PACKING_XZ, {0xFD, '7', 'z', 'X', 'Z', 0}, 6},
    {PACKING_LZO, {0x89, 'L', 'Z', 'O'}, 4},
    {PACKING_LZ4, {0x02, 0x21, 0x4C, 0x18}, 4},
    {PACKING_ZSTD, {0x28, 0xB5, 0x2F, 0xFD}, 4},
};

enum packing packing_of(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < countof(magics); i++) {
        if (size >= magics[i].len && memcmp(data, magics[i].magic, magics[i].len) == 0)
            return magics[i].packing;
    }
    return PACKING_UNKNOWN;
}

const char *packing_name(enum packing p)
{
    switch (p) {
    case PACKING_UNKNOWN:
        break;
    case PACKING_GZIP:
        return "gzip";
    case PACKING_BZIP2:
        return "bzip2";
    case PACKING_LZMA:
        return "lzma";
    case PACKING_XZ:
        return "xz";
    case PACKING_LZO:
        return "lzo";
    case PACKING_LZ4:
        return "lz4";
    case PACKING_ZSTD:
        return "zstd";
    }
    return "";
}

/*
 * Each decoder fills to[0..cap) and stores how much it made. -EINVAL for a stream that is damaged
 * or makes more than cap bytes, -ENOTSUP if its library was absent at build time.
 */
typedef int decoder(const uint8_t *data, size_t size, uint8_t *to, size_t cap, size_t *made);

#if HAVE_ZLIB
static int unpack_gzip(const uint8_t *data, size_t size, uint8_t *to, size_t cap, size_t *made)
{
    z_stream z = {0};
    int rc;

    if (size > UINT_MAX || cap > UINT_MAX)
        return -EINVAL;
    if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK)
        return -ENOMEM;
    z.next_in = data;
    z.avail_in = (uInt)size;
    z.next_out = to;
    z.avail_out = (uInt)cap;
    rc = inflate(&z, Z_FINISH);
    *made = z.total_out;
    inflateEnd(&z);
    return rc == Z_STREAM_END ? 0 : -EINVAL;
}
#endif

#if HAVE_ZSTD
static int unpack_zstd(const uint8_t *data, size_t size, uint8_t *to, size_t cap, size_t *made)
{
    size_t n = ZSTD_decompress(to, cap, data, size);

    if (ZSTD_isError(n))
        return -EINVAL;
    *made = n;
    return 0;
}
#endif

#if HAVE_LZMA
static int run_lzma(lzma_stream *s, const uint8_t *data, size_t size, uint8_t *to, size_t cap,
                    size_t *made)
{
    lzma_ret rc;

    s->next_in = data;
    s->avail_in = size;
    s->next_out = to;
    s->avail_out = cap;
    rc = lzma_code(s, LZMA_FINISH);
    *made = (size_t)s->total_out;
    lzma_end(s);
    return rc == LZMA_STREAM_END ? 0 : -EINVAL;
}

static int unpack_xz(const uint8_t *data, size_t size, uint8_t *to, size_t cap, size_t *made)
{
    lzma_stream s = LZMA_STREAM_INIT;

    if (lzma_stream_decoder(&s, DECODER_MEMORY, 0) != LZMA_OK)
        return -ENOMEM;
    return run_lzma(&s, data, size, to, cap, made);
}

static int unpack_lzma(const uint8_t *data, size_t size, uint8_t *to, size_t cap, size_t *made)
{
    lzma_stream s = LZMA_STREAM_INIT;

    if (lzma_alone_decoder(&s, DECODER_MEMORY) != LZMA_OK)
        return -ENOMEM;
    return run_lzma(&s, data, size, to, cap, made);
}
#endif

#if HAVE_LZ4
/*
 * LZ4's legacy framing: the magic, then blocks of a 32-bit compressed length and the data, each at
 * most 8 MiB unpacked. Appended streams repeat the magic.
 */
#define LZ4_LEGACY_MAGIC 0x184C2102u
#define LZ4_LEGACY_BLOCK ((size_t)(8 * MIB))

static int unpack_lz4(const uint8_t *data, size_t size, uint8_t *to, size_t cap, size_t *made)
{
    size_t done = 0;

    while (size >= 4) {
        uint32_t len = le32_load(data);
        size_t room = cap - done < LZ4_LEGACY_BLOCK ? cap - done : LZ4_LEGACY_BLOCK;
        int n;

        data += 4;
        size -= 4;
        if (len == LZ4_LEGACY_MAGIC)
            continue;
        if (len == 0 || len > size || len > INT_MAX)
            return -EINVAL;
        n = LZ4_decompress_safe((const char *)data, (char *)to + done, (int)len, (int)room);
        if (n < 0)
            return -EINVAL;
        done += (size_t)n;
        data += len;
        size -= len;
    }
    *made = done;
    return size == 0 ? 0 : -EINVAL;
}
#endif

#if HAVE_BZ2
static int unpack_bzip2(const uint8_t *data, size_t size, uint8_t *to, size_t cap, size_t *made)
{
    bz_stream z = {0};
    int rc;

    if (size > UINT_MAX || cap > UINT_MAX)
        return -EINVAL;
    if (BZ2_bzDecompressInit(&z, 0, 0) != BZ_OK)
        return -ENOMEM;
    /* The library's input pointer is not const; it only reads. */
    z.next_in = (char *)(uintptr_t)data;
    z.avail_in = (unsigned)size;
    z.next_out = (char *)to;
    z.avail_out = (unsigned)cap;
    rc = BZ2_bzDecompress(&z);
    *made = ((size_t)z.total_out_hi32 << 32) | z.total_out_lo32;
    BZ2_bzDecompressEnd(&z);
    return rc == BZ_STREAM_END ? 0 : -EINVAL;
}
#endif

static decoder *decoder_of(enum packing p)
{
    switch (p) {
    case PACKING_UNKNOWN:
    case PACKING_LZO:
        break;
    case PACKING_GZIP:
#if HAVE_ZLIB
        return unpack_gzip;
#else
        break;
#endif
    case PACKING_ZSTD:
#if HAVE_ZSTD
        return unpack_zstd;
#else
        break;
#endif
    case PACKING_LZMA:
#if HAVE_LZMA
        return unpack_lzma;
#else
        break;
#endif
    case PACKING_XZ:
#if HAVE_LZMA
        return unpack_xz;
#else
        break;
#endif
    case PACKING_LZ4:
#if HAVE_LZ4
        return unpack_lz4;
#else
        break;
#endif
    case PACKING_BZIP2:
#if HAVE_BZ2
        return unpack_bzip2;
#else
        break;
#endif
    }
    return NULL;
}

int unpack_size(const uint8_t *data, size_t size, uint64_t max, size_t *out_size, struct error *err)
{
    enum packing p = packing_of(data, size);
    uint32_t want;

    if (p == PACKING_UNKNOWN)
        return error_set(err, -ENOTSUP, "its compression is unknown to us");
    if (decoder_of(p) == NULL)
        return error_set(err, -ENOTSUP, "this build has no %s decoder", packing_name(p));
    if (size < 2 * SIZE_TRAILER)
        return error_set(err, -EINVAL, "its %s payload is only %zu bytes long", packing_name(p),
                         size);
    want = le32_load(data + size - SIZE_TRAILER);
    if (want > max)
        return error_set(err, -EFBIG,
                         "it would unpack to %u bytes, more than the %llu that fit; give the VM "
                         "more memory or another kernel",
                         want, (unsigned long long)max);
    *out_size = want;
    return 0;
}

int unpack_to(const uint8_t *data, size_t size, uint8_t *to, size_t out_size, struct error *err)
{
    enum packing p = packing_of(data, size);
    size_t made = 0;
    int rc =
        decoder_of(p)(data, p == PACKING_GZIP ? size : size - SIZE_TRAILER, to, out_size, &made);

    if (rc == -ENOMEM)
        return error_set(err, rc, "no memory for the %s decoder", packing_name(p));
    if (rc != 0 || made != out_size)
        return error_set(err, -EINVAL, "its %s payload is damaged; fetch or build it again",
                         packing_name(p));
    return 0;
}

int unpack(const uint8_t *data, size_t size, uint64_t max, uint8_t **out, size_t *out_size,
           struct error *err)
{
    int rc = unpack_size(data, size, max, out_size, err);
    uint8_t *to;

    if (rc != 0)
        return rc;
    to = host_buffer(*out_size);
    if (to == NULL)
        return error_set(err, -ENOMEM, "no memory for its %zu bytes unpacked", *out_size);
    rc = unpack_to(data, size, to, *out_size, err);
    if (rc != 0) {
        free(to);
        return rc;
    }
    *out = to;
    return 0;
}
