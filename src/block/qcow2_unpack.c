/*
 * Compressed clusters. What comes out is never more than a cluster, whatever the data says; of zstd
 * the window is bounded, too. The last cluster is kept, since reads are often smaller.
 */
#include "block/qcow2.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#if HAVE_ZLIB
#define ZLIB_CONST
#include <zlib.h>
#endif
#if HAVE_ZSTD
#include <zstd.h>
#endif

#define ZSTD_WINDOW_LOG 23 /* 8 MiB, four times the largest cluster */

bool qcow2_can_unpack(unsigned compression)
{
    return compression == 0 ? HAVE_ZLIB : HAVE_ZSTD;
}

static int inflate_cluster(const uint8_t *from, size_t len, uint8_t *to, size_t size)
{
#if HAVE_ZLIB
    z_stream z = {0};
    int rc;

    /* raw deflate; the window of the writer may be smaller than this one */
    if (inflateInit2(&z, -15) != Z_OK)
        return -ENOMEM;
    z.next_in = from;
    z.avail_in = (uInt)len;
    z.next_out = to;
    z.avail_out = (uInt)size;
    rc = inflate(&z, Z_FINISH);
    inflateEnd(&z);
    return (rc == Z_STREAM_END || rc == Z_BUF_ERROR) && z.avail_out == 0 ? 0 : -EIO;
#else
    (void)from, (void)len, (void)to, (void)size;
    return -ENOTSUP;
#endif
}

static int zstd_cluster(const uint8_t *from, size_t len, uint8_t *to, size_t size)
{
#if HAVE_ZSTD
    ZSTD_inBuffer in = {.src = from, .size = len};
    ZSTD_outBuffer out = {.dst = to, .size = size};
    ZSTD_DCtx *z = ZSTD_createDCtx();
    size_t rc = 1;

    if (z == NULL)
        return -ENOMEM;
    ZSTD_DCtx_setParameter(z, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG);
    while (out.pos < out.size) {
        size_t before = in.pos + out.pos;

        rc = ZSTD_decompressStream(z, &out, &in);
        if (ZSTD_isError(rc) || in.pos + out.pos == before)
            break;
    }
    ZSTD_freeDCtx(z);
    return out.pos == out.size && !ZSTD_isError(rc) ? 0 : -EIO;
#else
    (void)from, (void)len, (void)to, (void)size;
    return -ENOTSUP;
#endif
}

static int unpack(struct qcow2 *q, uint64_t entry, uint8_t *to)
{
    uint64_t offset, len;
    uint8_t *packed;
    int rc;

    qcow2_packed_range(q->cluster_bits, entry, &offset, &len);
    packed = malloc(len); /* at most two clusters */
    if (packed == NULL)
        return -ENOMEM;
    rc = bfile_read(q->file, offset, packed, len);
    if (rc == 0 || rc == -ENXIO)
        rc = (q->header.compression == 0 ? inflate_cluster : zstd_cluster)(packed, len, to,
                                                                           q->cluster);
    free(packed);
    if (rc == -EIO)
        log_error(q->log, "%s: the compressed cluster at %#llx cannot be unpacked", q->file->name,
                  (unsigned long long)offset);
    return rc;
}

int qcow2_unpack(struct qcow2 *q, uint64_t entry, uint64_t skip, uint64_t len, uint8_t *to)
{
    uint8_t *fresh;
    bool hit;
    int rc;

    pthread_mutex_lock(&q->unpack);
    /* We never write a compressed cluster, so an entry's content does not change. */
    hit = q->unpacked != NULL && q->unpacked_entry == entry;
    if (hit)
        memcpy(to, q->unpacked + skip, len);
    pthread_mutex_unlock(&q->unpack);
    if (hit)
        return 0;
    fresh = malloc(q->cluster);
    rc = fresh == NULL ? -ENOMEM : unpack(q, entry, fresh);
    if (rc < 0) {
        free(fresh);
        return rc;
    }
    memcpy(to, fresh + skip, len);
    pthread_mutex_lock(&q->unpack);
    free(q->unpacked);
    q->unpacked = fresh;
    q->unpacked_entry = entry;
    pthread_mutex_unlock(&q->unpack);
    return 0;
}
