/*
 * A file for tests that writes down what is asked of it, makes callers wait at a gate, and fails
 * when told to. It lies in front of another file, whose bytes it passes on.
 */
#ifndef TESTS_BLOCK_GATE_H
#define TESTS_BLOCK_GATE_H

#include <errno.h>

#include "block/internal.h"
#include "block_fixture.h"

struct gate_entry {
    char what; /* r w f z d */
    uint64_t offset, len;
};

struct gate {
    struct bfile f;
    struct bfile *behind;
    pthread_mutex_t lock;
    pthread_cond_t moved;
    char closed[8];  /* operations that wait, by their letters */
    unsigned inside; /* that wait */
    char failing[8]; /* operations that fail with `code`, `fails` times */
    int code;
    unsigned fails;
    struct gate_entry log[512]; /* in the order of their ends */
    unsigned count, began;
};

static inline struct gate *to_gate(struct bfile *f)
{
    return container_of(f, struct gate, f);
}

/* Waits at the gate; -errno if it is to fail. */
static inline int gate_enter(struct gate *g, char what)
{
    int rc = 0;

    pthread_mutex_lock(&g->lock);
    g->began++;
    g->inside++;
    pthread_cond_broadcast(&g->moved);
    while (strchr(g->closed, what) != NULL)
        pthread_cond_wait(&g->moved, &g->lock);
    g->inside--;
    if (g->fails > 0 && strchr(g->failing, what) != NULL) {
        g->fails--;
        rc = g->code;
    }
    pthread_mutex_unlock(&g->lock);
    return rc;
}

static inline void gate_leave(struct gate *g, char what, uint64_t offset, uint64_t len)
{
    pthread_mutex_lock(&g->lock);
    if (g->count < countof(g->log))
        g->log[g->count++] = (struct gate_entry){.what = what, .offset = offset, .len = len};
    pthread_mutex_unlock(&g->lock);
}

static inline uint64_t gate_sum(const struct iovec *iov, unsigned count)
{
    uint64_t len = 0;

    for (unsigned i = 0; i < count; i++)
        len += iov[i].iov_len;
    return len;
}

static inline int gate_read(struct bfile *f, uint64_t offset, const struct iovec *iov,
                            unsigned count)
{
    struct gate *g = to_gate(f);
    int rc = gate_enter(g, 'r');

    if (rc == 0)
        rc = g->behind->ops->read(g->behind, offset, iov, count);
    gate_leave(g, 'r', offset, gate_sum(iov, count));
    return rc;
}

static inline int gate_write(struct bfile *f, uint64_t offset, const struct iovec *iov,
                             unsigned count)
{
    struct gate *g = to_gate(f);
    int rc = gate_enter(g, 'w');

    if (rc == 0)
        rc = g->behind->ops->write(g->behind, offset, iov, count);
    gate_leave(g, 'w', offset, gate_sum(iov, count));
    return rc;
}

static inline int gate_flush(struct bfile *f)
{
    struct gate *g = to_gate(f);
    int rc = gate_enter(g, 'f');

    gate_leave(g, 'f', 0, 0);
    return rc;
}

static inline int gate_zero(struct bfile *f, uint64_t offset, uint64_t len, bool punch)
{
    struct gate *g = to_gate(f);
    int rc = gate_enter(g, 'z');

    if (rc == 0)
        rc = g->behind->ops->zero(g->behind, offset, len, punch);
    gate_leave(g, 'z', offset, len);
    return rc;
}

static inline int gate_discard(struct bfile *f, uint64_t offset, uint64_t len)
{
    struct gate *g = to_gate(f);
    int rc = gate_enter(g, 'd');

    gate_leave(g, 'd', offset, len);
    return rc;
}

static inline int gate_size(struct bfile *f, uint64_t *size)
{
    return bfile_size(to_gate(f)->behind, size);
}

static inline void gate_close(struct bfile *f)
{
    struct gate *g = to_gate(f);

    bfile_close(g->behind);
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->moved);
    free(g);
}

static const struct bfile_ops gate_ops = {
    .read = gate_read,
    .write = gate_write,
    .flush = gate_flush,
    .zero = gate_zero,
    .discard = gate_discard,
    .size = gate_size,
    .close = gate_close,
};

/* Puts a gate in front of the open disk's file; the disk must be raw and idle. */
static inline struct gate *gate_install(struct disk *d)
{
    const struct block_open how = {.log = d->env.log};
    struct gate *g = calloc(1, sizeof(*g));
    struct block_image *i = d->b->image;

    assert_non_null(g);
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->moved, NULL);
    g->behind = i->file;
    g->f = (struct bfile){.ops = &gate_ops, .name = "gate", .fd = -1};
    i->format->close(i->image);
    i->file = &g->f;
    assert_int_equal(i->format->open(i->file, &how, &i->image, NULL), 0);
    return g;
}

/* The operations whose letters stand in `what` wait from now on; "" lets all go. */
static inline void gate_set(struct gate *g, const char *what)
{
    pthread_mutex_lock(&g->lock);
    snprintf(g->closed, sizeof(g->closed), "%.7s", what);
    pthread_cond_broadcast(&g->moved);
    pthread_mutex_unlock(&g->lock);
}

static inline void gate_fail(struct gate *g, const char *what, int code, unsigned times)
{
    pthread_mutex_lock(&g->lock);
    snprintf(g->failing, sizeof(g->failing), "%.7s", what);
    g->code = code;
    g->fails = times;
    pthread_mutex_unlock(&g->lock);
}

/* Until so many stand at the gate. */
static inline void gate_wait(struct gate *g, unsigned inside)
{
    pthread_mutex_lock(&g->lock);
    while (g->inside < inside)
        pthread_cond_wait(&g->moved, &g->lock);
    pthread_mutex_unlock(&g->lock);
}

/* What has ended, as letters. */
static inline const char *gate_text(struct gate *g, char *out)
{
    pthread_mutex_lock(&g->lock);
    for (unsigned i = 0; i < g->count; i++)
        out[i] = g->log[i].what;
    out[g->count] = '\0';
    pthread_mutex_unlock(&g->lock);
    return out;
}

#endif
