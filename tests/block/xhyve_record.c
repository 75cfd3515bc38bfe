/*
 * The xhyve program whose disks' files are recorded: every file that is opened to be written gets a
 * shell that notes each call (trace.h) in the file that XHYVE_RECORD names. What goes past the
 * shell is noted where it is submitted and where it comes back, or where it is carried out by the
 * submitter. Nothing else differs: the same requests go the same ways.
 *
 * A guest may change its memory while it is being written. So data is copied first, and the copy
 * is what is written and noted.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "block/file.h"
#include "host/aio.h"
#include "trace.h"

int __real_bfile_open(const char *path, const struct bfile_flags *flags, struct bfile **out,
                      struct error *err);
int __wrap_bfile_open(const char *path, const struct bfile_flags *flags, struct bfile **out,
                      struct error *err);
void __real_aio_submit(struct aio *a, struct aio_job *job);
void __wrap_aio_submit(struct aio *a, struct aio_job *job);
struct aio_job *__real_aio_reap(struct aio *a);
struct aio_job *__wrap_aio_reap(struct aio *a);

void __real_aio_run(struct aio_job *job);
void __wrap_aio_run(struct aio_job *job);

struct recorded {
    struct bfile f;
    struct bfile *inner;
    uint32_t number;
    struct recorded *next;
};

/* Submitted to io_uring or a thread. */
struct passing {
    struct aio_job *job;
    uint32_t id;
    uint64_t len;
    const struct iovec *iov; /* the job's own */
    unsigned count;
    struct iovec copy;
    struct passing *next;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* all below, and the order of entries */
static FILE *trace;
static uint32_t files, ids;
static struct recorded *open_files;
static struct passing *under_way;

/* A trace that lacks something proves nothing. */
static void put(const void *from, size_t len)
{
    if (len > 0 && fwrite(from, 1, len, trace) != len) {
        perror("xhyve-record: the trace cannot be written");
        exit(4);
    }
}

static void entry(uint32_t kind, uint32_t file, uint32_t id, uint64_t offset, uint64_t len,
                  const void *data)
{
    const struct trace_entry e = {
        .magic = TRACE_MAGIC, .kind = kind, .file = file, .id = id, .offset = offset, .len = len};

    put(&e, sizeof(e));
    if (data != NULL)
        put(data, len);
}

/* data: of a write. */
static uint32_t begin(uint32_t kind, uint32_t file, uint64_t offset, uint64_t len, const void *data)
{
    uint32_t id;

    pthread_mutex_lock(&lock);
    id = ++ids;
    entry(kind, file, id, offset, len, data);
    pthread_mutex_unlock(&lock);
    return id;
}

static void end(uint32_t file, uint32_t id, bool all)
{
    pthread_mutex_lock(&lock);
    entry(TRACE_END, file, id, all, 0, NULL);
    pthread_mutex_unlock(&lock);
}

static struct iovec flatten(const struct iovec *iov, unsigned count)
{
    struct iovec flat = {0};
    size_t at = 0;

    for (unsigned i = 0; i < count; i++)
        flat.iov_len += iov[i].iov_len;
    if (posix_memalign(&flat.iov_base, 4096, flat.iov_len + 1) != 0) {
        fprintf(stderr, "xhyve-record: no memory\n");
        exit(4);
    }
    for (unsigned i = 0; i < count; i++) {
        memcpy((uint8_t *)flat.iov_base + at, iov[i].iov_base, iov[i].iov_len);
        at += iov[i].iov_len;
    }
    return flat;
}

/* ---- the shell ---- */

static struct recorded *to_recorded(struct bfile *f)
{
    return container_of(f, struct recorded, f);
}

static int shell_read(struct bfile *f, uint64_t offset, const struct iovec *iov, unsigned count)
{
    struct bfile *inner = to_recorded(f)->inner;

    return inner->ops->read(inner, offset, iov, count);
}

static int shell_write(struct bfile *f, uint64_t offset, const struct iovec *iov, unsigned count)
{
    struct recorded *r = to_recorded(f);
    struct iovec flat = flatten(iov, count);
    uint32_t id = begin(TRACE_WRITE, r->number, offset, flat.iov_len, flat.iov_base);
    int rc = r->inner->ops->write(r->inner, offset, &flat, 1);

    end(r->number, id, rc == 0);
    free(flat.iov_base);
    return rc;
}

static int shell_flush(struct bfile *f)
{
    struct recorded *r = to_recorded(f);
    uint32_t id = begin(TRACE_FLUSH, r->number, 0, 0, NULL);
    int rc = r->inner->ops->flush(r->inner);

    end(r->number, id, rc == 0);
    return rc;
}

static int shell_zero(struct bfile *f, uint64_t offset, uint64_t len, bool punch)
{
    struct recorded *r = to_recorded(f);
    uint32_t id = begin(TRACE_ZERO, r->number, offset, len, NULL);
    int rc = r->inner->ops->zero(r->inner, offset, len, punch);

    end(r->number, id, rc == 0);
    return rc;
}

static int shell_discard(struct bfile *f, uint64_t offset, uint64_t len)
{
    struct recorded *r = to_recorded(f);
    uint32_t id = begin(TRACE_DISCARD, r->number, offset, len, NULL);
    int rc = r->inner->ops->discard(r->inner, offset, len);

    end(r->number, id, rc == 0);
    return rc;
}

static int shell_size(struct bfile *f, uint64_t *size)
{
    return bfile_size(to_recorded(f)->inner, size);
}

static int shell_truncate(struct bfile *f, uint64_t size)
{
    struct recorded *r = to_recorded(f);
    uint32_t id = begin(TRACE_SIZE, r->number, size, 0, NULL);
    int rc = bfile_truncate(r->inner, size);

    end(r->number, id, rc == 0);
    return rc;
}

static int shell_extent(struct bfile *f, uint64_t offset, bool *data, uint64_t *len)
{
    struct bfile *inner = to_recorded(f)->inner;

    return inner->ops->extent(inner, offset, data, len);
}

static void shell_close(struct bfile *f)
{
    struct recorded *r = to_recorded(f), **at;

    pthread_mutex_lock(&lock);
    for (at = &open_files; *at != r; at = &(*at)->next)
        ;
    *at = r->next;
    fflush(trace);
    pthread_mutex_unlock(&lock);
    bfile_close(r->inner);
    free(r);
}

static const struct bfile_ops shell_ops = {
    .read = shell_read,
    .write = shell_write,
    .flush = shell_flush,
    .zero = shell_zero,
    .size = shell_size,
    .truncate = shell_truncate,
    .extent = shell_extent,
    .discard = shell_discard,
    .close = shell_close,
};

static int open_trace(struct error *err)
{
    const char *path = getenv("XHYVE_RECORD");

    if (trace != NULL)
        return 0;
    if (path == NULL)
        return error_set(err, -EINVAL, "XHYVE_RECORD must name the file for the trace");
    trace = fopen(path, "wb");
    return trace != NULL ? 0 : error_set(err, -errno, "%s: cannot be made", path);
}

int __wrap_bfile_open(const char *path, const struct bfile_flags *flags, struct bfile **out,
                      struct error *err)
{
    struct bfile *inner;
    struct recorded *r;
    uint64_t size;
    int rc = __real_bfile_open(path, flags, &inner, err);

    if (rc < 0 || flags->read_only) {
        *out = inner;
        return rc;
    }
    r = calloc(1, sizeof(*r));
    rc = r == NULL ? error_set(err, -ENOMEM, "no memory to record") : open_trace(err);
    if (rc == 0)
        rc = bfile_size(inner, &size);
    if (rc < 0) {
        free(r);
        bfile_close(inner);
        return rc;
    }
    r->f = *inner;
    r->f.ops = &shell_ops;
    r->inner = inner;
    pthread_mutex_lock(&lock);
    r->number = files++;
    r->next = open_files;
    open_files = r;
    entry(TRACE_FILE, r->number, 0, size, strlen(path), path);
    pthread_mutex_unlock(&lock);
    *out = &r->f;
    return 0;
}

/* ---- past the shell ---- */

static const struct recorded *by_fd(int fd)
{
    const struct recorded *r;

    pthread_mutex_lock(&lock);
    for (r = open_files; r != NULL && r->f.fd != fd; r = r->next)
        ;
    pthread_mutex_unlock(&lock);
    return r;
}

void __wrap_aio_submit(struct aio *a, struct aio_job *job)
{
    bool changes = job->op == AIO_WRITE || job->op == AIO_FLUSH;
    const struct recorded *r = changes ? by_fd(job->fd) : NULL;
    struct passing *p = r != NULL ? calloc(1, sizeof(*p)) : NULL;

    if (p != NULL) {
        p->job = job;
        p->iov = job->iov;
        p->count = job->count;
        if (job->op == AIO_WRITE) {
            p->copy = flatten(job->iov, job->count);
            job->iov = &p->copy;
            job->count = 1;
        }
        p->len = p->copy.iov_len;
        p->id = begin(job->op == AIO_WRITE ? TRACE_WRITE : TRACE_FLUSH, r->number, job->offset,
                      p->len, p->copy.iov_base);
        pthread_mutex_lock(&lock);
        p->next = under_way;
        under_way = p;
        pthread_mutex_unlock(&lock);
    }
    __real_aio_submit(a, job);
}

/* What the block layer carries out itself; the calls of threads, in aio.c, do not come here. */
void __wrap_aio_run(struct aio_job *job)
{
    const struct recorded *r = job->op == AIO_WRITE ? by_fd(job->fd) : NULL;
    const struct iovec *iov = job->iov;
    unsigned count = job->count;
    struct iovec copy;
    uint32_t id;

    if (r == NULL) {
        __real_aio_run(job);
        return;
    }
    copy = flatten(iov, count);
    job->iov = &copy;
    job->count = 1;
    id = begin(TRACE_WRITE, r->number, job->offset, copy.iov_len, copy.iov_base);
    __real_aio_run(job);
    end(r->number, id, job->result >= 0 && (uint64_t)job->result == copy.iov_len);
    job->iov = iov;
    job->count = count;
    free(copy.iov_base);
}

struct aio_job *__wrap_aio_reap(struct aio *a)
{
    struct aio_job *job = __real_aio_reap(a);
    struct passing *p = NULL, **at;

    if (job == NULL)
        return NULL;
    pthread_mutex_lock(&lock);
    for (at = &under_way; *at != NULL && (*at)->job != job; at = &(*at)->next)
        ;
    if (*at != NULL) {
        p = *at;
        *at = p->next;
        entry(TRACE_END, 0, p->id, job->result >= 0 && (uint64_t)job->result == p->len, 0, NULL);
    }
    pthread_mutex_unlock(&lock);
    if (p != NULL) {
        job->iov = p->iov;
        job->count = p->count;
        free(p->copy.iov_base);
        free(p);
    }
    return job;
}
