/*
 * What the tests of disks share: an environment with or without a loop of its own thread, a file
 * that records, waits and fails, requests that remember their end.
 */
#ifndef TESTS_BLOCK_FIXTURE_H
#define TESTS_BLOCK_FIXTURE_H

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "base/config.h"
#include "block/block.h"
#include "host/loop.h"

static const struct dev_option block_rows[] = {BLOCK_OPTIONS};

struct disk {
    struct dev_env env;
    struct loop *loop;
    pthread_t thread;
    pthread_cond_t ended; /* with env.lock: a request has ended */
    struct config *node;
    struct options opts;
    struct block *b;
    char path[64];
    char log[8][256]; /* the last lines */
    unsigned log_count;
    unsigned changed;
};

static inline void disk_log(void *ctx, enum log_level level, const char *line)
{
    struct disk *d = ctx;

    if (level <= LOG_INFO)
        snprintf(d->log[d->log_count++ % 8], sizeof(d->log[0]), "%s", line);
}

static inline void disk_changed(void *ctx)
{
    struct disk *d = ctx;

    d->changed++;
}

static inline void *disk_loop(void *arg)
{
    struct disk *d = arg;

    loop_run(d->loop);
    return NULL;
}

static inline uint64_t disk_timer_next(void *ctx)
{
    return timerq_next_host(ctx);
}

static inline void disk_timer_run(void *ctx)
{
    timerq_run(ctx);
}

static inline void disk_timer_wake(void *ctx)
{
    struct disk *d = ctx;

    if (d->loop != NULL)
        loop_wake(d->loop);
}

/* stepped: no loop, the clock moves by timerq_step. Nothing is opened yet. */
static inline struct disk *disk_create(bool with_loop)
{
    struct disk *d = calloc(1, sizeof(*d));

    assert_non_null(d);
    dev_env_init(&d->env, "disk0");
    pthread_cond_init(&d->ended, NULL);
    d->env.log = log_create(2, LOG_INFO);
    log_set_sink(d->env.log, disk_log, d);
    d->env.timers = timerq_create(!with_loop, disk_timer_wake, d);
    if (with_loop) {
        d->loop = loop_create(NULL);
        assert_non_null(d->loop);
        loop_set_timers(d->loop, disk_timer_next, disk_timer_run, d->env.timers);
        d->env.loop = d->loop;
        assert_int_equal(pthread_create(&d->thread, NULL, disk_loop, d), 0);
    }
    d->node = config_create();
    return d;
}

/* An image of size bytes in a file of its own; size 0: an empty one. */
static inline void disk_file(struct disk *d, uint64_t size)
{
    const char *dir = getenv("TMPDIR");
    int fd;

    snprintf(d->path, sizeof(d->path), "%.40s/block-XXXXXX", dir != NULL ? dir : "/tmp");
    fd = mkstemp(d->path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    close(fd);
}

/* text: the options behind the path, "" for none. */
static inline int disk_open(struct disk *d, const char *text, bool removable, struct error *err)
{
    static const struct block_events events = {.changed = disk_changed};
    int rc = 0;

    config_destroy(d->node);
    d->node = config_create();
    if (d->path[0] != '\0' && strstr(text, "ram=") == NULL)
        rc = config_set(d->node, "path", d->path, err);
    assert_int_equal(rc, 0);
    rc = options_parse(d->node, block_rows, countof(block_rows), text, "disk", err);
    if (rc < 0)
        return rc;
    d->opts = (struct options){.node = d->node, .table = block_rows, .count = countof(block_rows)};
    return block_open(&d->env, &d->opts, removable, &events, d, &d->b, err);
}

static inline void disk_open_ok(struct disk *d, const char *text)
{
    struct error err = {0};

    if (disk_open(d, text, false, &err) < 0)
        fail_msg("%s", err.text);
}

static inline void disk_close(struct disk *d)
{
    pthread_mutex_lock(&d->env.lock);
    block_close(d->b);
    pthread_mutex_unlock(&d->env.lock);
    d->b = NULL;
}

static inline void disk_destroy(struct disk *d)
{
    disk_close(d);
    if (d->loop != NULL) {
        loop_stop(d->loop);
        pthread_join(d->thread, NULL);
    }
    config_destroy(d->node);
    timerq_destroy(d->env.timers);
    loop_destroy(d->loop);
    log_destroy(d->env.log);
    dev_env_fini(&d->env);
    pthread_cond_destroy(&d->ended);
    if (d->path[0] != '\0')
        unlink(d->path);
    free(d);
}

/* A request that remembers. */
struct call {
    struct block_request r;
    struct iovec iov[4];
    struct disk *d;
    int rc;         /* 1: not ended */
    unsigned order; /* of its end, from 1 */
};

static inline void call_done(struct block_request *r, int rc)
{
    struct call *c = container_of(r, struct call, r);

    assert_int_equal(c->rc, 1);
    assert_int_not_equal(pthread_mutex_trylock(&c->d->env.lock), 0);
    c->rc = rc;
    pthread_cond_broadcast(&c->d->ended);
}

static inline void call_init(struct call *c, struct disk *d, enum block_op op, uint64_t offset,
                             void *p, uint64_t len)
{
    memset(c, 0, sizeof(*c));
    c->d = d;
    c->rc = 1;
    c->iov[0] = (struct iovec){.iov_base = p, .iov_len = (size_t)len};
    c->r = (struct block_request){.op = op,
                                  .offset = offset,
                                  .len = len,
                                  .iov = c->iov,
                                  .iov_count = op == BLOCK_READ || op == BLOCK_WRITE,
                                  .done = call_done};
}

static inline void call_submit(struct call *c)
{
    pthread_mutex_lock(&c->d->env.lock);
    block_submit(c->d->b, &c->r);
    pthread_mutex_unlock(&c->d->env.lock);
}

static inline int call_wait(struct call *c)
{
    pthread_mutex_lock(&c->d->env.lock);
    while (c->rc == 1 && c->d->loop != NULL)
        pthread_cond_wait(&c->d->ended, &c->d->env.lock);
    pthread_mutex_unlock(&c->d->env.lock);
    return c->rc;
}

/* Submits and waits. */
static inline int disk_do(struct disk *d, enum block_op op, uint64_t offset, void *p, uint64_t len)
{
    struct call c;

    call_init(&c, d, op, offset, p, len);
    call_submit(&c);
    return call_wait(&c);
}

#endif
