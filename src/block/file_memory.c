/*
 * A file in memory: a table of chunks, of which those that are all zeros need not exist. A guest
 * may write what it reads, at the same time: such races are its own, and the lock keeps only the
 * table.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "block/file.h"

#define CHUNK (64 * KIB)

struct memory_file {
    struct bfile f;
    pthread_rwlock_t lock; /* shared: content; exclusive: size, table, chunks that come and go */
    uint64_t size;
    uint8_t **chunk; /* chunk_count of them, NULL: zeros */
    size_t chunk_count;
    char name[];
};

static struct memory_file *to_memory(struct bfile *f)
{
    return container_of(f, struct memory_file, f);
}

static size_t chunks_for(uint64_t size)
{
    return (size_t)(size / CHUNK + (size % CHUNK != 0));
}

/* The part of [offset, ...) that lies in one chunk. */
static size_t in_chunk(uint64_t offset, size_t len)
{
    return (size_t)min_u64(len, CHUNK - offset % CHUNK);
}

static int memory_read(struct bfile *f, uint64_t offset, const struct iovec *iov, unsigned count)
{
    struct memory_file *m = to_memory(f);
    int rc = 0;

    pthread_rwlock_rdlock(&m->lock);
    for (unsigned i = 0; i < count; i++) {
        uint8_t *to = iov[i].iov_base;
        size_t left = iov[i].iov_len;

        while (left > 0) {
            size_t n = in_chunk(offset, left);
            uint8_t *chunk = NULL;

            if (offset >= m->size)
                rc = -ENXIO;
            else
                chunk = m->chunk[offset / CHUNK];
            if (rc == 0 && n > m->size - offset)
                rc = -ENXIO; /* what the chunk holds behind the end is zero */
            if (chunk != NULL)
                memcpy(to, chunk + offset % CHUNK, n);
            else
                memset(to, 0, n);
            to += n;
            left -= n;
            offset += n;
        }
    }
    pthread_rwlock_unlock(&m->lock);
    return rc;
}

static int grow(struct memory_file *m, uint64_t size)
{
    size_t count = chunks_for(size);
    uint8_t **table;

    if (count > m->chunk_count) {
        if (count > SIZE_MAX / sizeof(*table))
            return -EFBIG;
        table = realloc(m->chunk, count * sizeof(*table));
        if (table == NULL)
            return -ENOSPC;
        memset(table + m->chunk_count, 0, (count - m->chunk_count) * sizeof(*table));
        m->chunk = table;
        m->chunk_count = count;
    }
    m->size = size;
    return 0;
}

/* Makes [offset, end) ready to be written; exclusive. */
static int provide(struct memory_file *m, uint64_t offset, uint64_t end)
{
    int rc = end > m->size ? grow(m, end) : 0;

    for (uint64_t at = align_down(offset, CHUNK); rc == 0 && at < end; at += CHUNK) {
        if (m->chunk[at / CHUNK] == NULL) {
            m->chunk[at / CHUNK] = calloc(1, CHUNK);
            if (m->chunk[at / CHUNK] == NULL)
                rc = -ENOSPC;
        }
    }
    return rc;
}

static bool is_there(const struct memory_file *m, uint64_t offset, uint64_t end)
{
    if (end > m->size)
        return false;
    for (uint64_t at = align_down(offset, CHUNK); at < end; at += CHUNK) {
        if (m->chunk[at / CHUNK] == NULL)
            return false;
    }
    return true;
}

static int memory_write(struct bfile *f, uint64_t offset, const struct iovec *iov, unsigned count)
{
    struct memory_file *m = to_memory(f);
    uint64_t end = offset;
    int rc = 0;

    for (unsigned i = 0; i < count; i++) {
        if (__builtin_add_overflow(end, iov[i].iov_len, &end) || end > INT64_MAX)
            return -EFBIG;
    }
    pthread_rwlock_rdlock(&m->lock);
    while (!is_there(m, offset, end)) { /* until nobody took it away between the two locks */
        pthread_rwlock_unlock(&m->lock);
        pthread_rwlock_wrlock(&m->lock);
        rc = provide(m, offset, end);
        pthread_rwlock_unlock(&m->lock);
        if (rc < 0)
            return rc;
        pthread_rwlock_rdlock(&m->lock);
    }
    for (unsigned i = 0; i < count; i++) {
        const uint8_t *from = iov[i].iov_base;
        size_t left = iov[i].iov_len;

        while (left > 0) {
            size_t n = in_chunk(offset, left);

            memcpy(m->chunk[offset / CHUNK] + offset % CHUNK, from, n);
            from += n;
            left -= n;
            offset += n;
        }
    }
    pthread_rwlock_unlock(&m->lock);
    return rc;
}

static int memory_flush(struct bfile *f)
{
    (void)f; /* as stable as it gets: the disk is gone with the process */
    return 0;
}

static void zero_locked(struct memory_file *m, uint64_t offset, uint64_t end)
{
    while (offset < end) {
        size_t n = in_chunk(offset, (size_t)min_u64(end - offset, CHUNK));
        uint8_t **chunk = &m->chunk[offset / CHUNK];

        if (n == CHUNK) {
            free(*chunk);
            *chunk = NULL;
        } else if (*chunk != NULL) {
            memset(*chunk + offset % CHUNK, 0, n);
        }
        offset += n;
    }
}

static int memory_zero(struct bfile *f, uint64_t offset, uint64_t len, bool punch)
{
    struct memory_file *m = to_memory(f);
    uint64_t end;

    (void)punch; /* what is zero takes no memory in either case */
    if (__builtin_add_overflow(offset, len, &end))
        return -EINVAL;
    pthread_rwlock_wrlock(&m->lock);
    zero_locked(m, offset, min_u64(end, m->size));
    pthread_rwlock_unlock(&m->lock);
    return 0;
}

static int memory_discard(struct bfile *f, uint64_t offset, uint64_t len)
{
    return memory_zero(f, offset, len, true);
}

static int memory_size(struct bfile *f, uint64_t *size)
{
    struct memory_file *m = to_memory(f);

    pthread_rwlock_rdlock(&m->lock);
    *size = m->size;
    pthread_rwlock_unlock(&m->lock);
    return 0;
}

static int memory_truncate(struct bfile *f, uint64_t size)
{
    struct memory_file *m = to_memory(f);
    int rc = 0;

    if (size > INT64_MAX)
        return -EFBIG;
    pthread_rwlock_wrlock(&m->lock);
    if (size < m->size)
        zero_locked(m, size, m->size); /* or it would be there again when the file grows */
    rc = grow(m, size);
    pthread_rwlock_unlock(&m->lock);
    return rc;
}

static int memory_extent(struct bfile *f, uint64_t offset, bool *data, uint64_t *len)
{
    struct memory_file *m = to_memory(f);
    uint64_t at = offset;

    *data = false;
    pthread_rwlock_rdlock(&m->lock);
    if (at < m->size)
        *data = m->chunk[at / CHUNK] != NULL;
    while (at < m->size && (m->chunk[at / CHUNK] != NULL) == *data)
        at = align_down(at, CHUNK) + CHUNK;
    at = min_u64(at, m->size);
    *len = at > offset ? at - offset : 0;
    pthread_rwlock_unlock(&m->lock);
    return 0;
}

static void memory_close(struct bfile *f)
{
    struct memory_file *m = to_memory(f);

    for (size_t i = 0; i < m->chunk_count; i++)
        free(m->chunk[i]);
    free(m->chunk);
    pthread_rwlock_destroy(&m->lock);
    free(m);
}

static const struct bfile_ops memory_ops = {
    .read = memory_read,
    .write = memory_write,
    .flush = memory_flush,
    .zero = memory_zero,
    .size = memory_size,
    .truncate = memory_truncate,
    .extent = memory_extent,
    .discard = memory_discard,
    .close = memory_close,
};

int bfile_memory(const char *name, uint64_t size, struct bfile **out, struct error *err)
{
    size_t len = strlen(name) + 1;
    struct memory_file *m;

    if (size > INT64_MAX || chunks_for(size) > SIZE_MAX / sizeof(*m->chunk))
        return error_set(err, -EFBIG, "%s: no memory is that large; choose a smaller size", name);
    m = calloc(1, sizeof(*m) + len);
    if (m == NULL)
        return error_set(err, -ENOMEM, "%s: no memory for a disk in memory", name);
    m->chunk_count = chunks_for(size);
    m->chunk = calloc(m->chunk_count + 1, sizeof(*m->chunk));
    if (m->chunk == NULL) {
        free(m);
        return error_set(err, -ENOMEM,
                         "%s: no memory for a disk of that size; choose a smaller one", name);
    }
    memcpy(m->name, name, len);
    pthread_rwlock_init(&m->lock, NULL);
    m->size = size;
    m->f = (struct bfile){
        .ops = &memory_ops, .name = m->name, .fd = -1, .sector = 512, .physical = 4096};
    *out = &m->f;
    return 0;
}
