#include "chardev/chardev.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "chardev/kinds.h"
#include "host/clock.h"
#include "host/fd.h"
#include "host/loop.h"

#define READ_CHUNK 4096u
#define WRITE_CHUNK (64 * KIB)
#define DRAIN_MAX (256 * KIB) /* at one go: the owner's lock is held, the guest may want it */
#define MEMORY_OUT (1 * MIB)
#define MEMORY_IN (4 * KIB)

const char *const chardev_kinds[] = {
    "stdio",
    "standard input and output; on a terminal Ctrl-A x quits",
    "stdio=output",
    "standard output alone",
    "autopty[=LINK]",
    "a new pseudo-terminal; LINK becomes a symbolic link to it",
    "tcp=[ADDR:]PORT",
    "listens on TCP, by default on 127.0.0.1; one peer at a time",
    "unix=PATH",
    "listens on a Unix socket; one peer at a time",
    "file=PATH",
    "writes output to a file",
    "/dev/PATH",
    "a terminal device",
    "null",
    "drops output",
    NULL,
};

static const struct chardev_kind *const kinds[] = {
    &chardev_stdio, &chardev_autopty, &chardev_tcp, &chardev_unix, &chardev_file, &chardev_null,
};

/* ---- input ---- */

static void input_end(struct chardev *c, int code)
{
    if (c->kind->input_end != NULL) {
        c->kind->input_end(c, code);
        return;
    }
    loop_del(c->in_watch);
    c->in_watch = NULL;
    log_debug(c->log, "%s: end of input", c->name);
}

static void on_input(void *ctx, unsigned events)
{
    struct chardev *c = ctx;
    uint8_t buf[READ_CHUNK];
    size_t room = ring_room(&c->in);
    size_t want = c->in_discard ? sizeof(buf) : (size_t)min_u64(room, sizeof(buf));
    size_t len;
    ssize_t n;

    if (want == 0) {
        loop_mod(c->in_watch, 0);
        return;
    }
    n = read(c->in_fd, buf, want);
    if (n < 0 && errno == EINTR)
        return;
    if (n < 0 && errno == EAGAIN && !(events & LOOP_HANGUP))
        return;
    if (n <= 0) {
        input_end(c, n < 0 ? -errno : 0);
        return;
    }
    len = (size_t)n;
    if (c->kind->filter != NULL)
        len = c->kind->filter(c, buf, len);
    ring_put(&c->in, buf, (size_t)min_u64(len, room));
    if (ring_room(&c->in) == 0 && !c->in_discard)
        loop_mod(c->in_watch, 0); /* chardev_read looks again */
    if (len > 0 && c->events != NULL && c->events->readable != NULL)
        c->events->readable(c->ctx);
}

size_t chardev_read(struct chardev *c, void *to, size_t len)
{
    size_t n = ring_take(&c->in, to, len);

    if (n > 0 && c->in_watch != NULL)
        loop_mod(c->in_watch, LOOP_READ);
    return n;
}

/* ---- output ---- */

static void output_end(struct chardev *c, int code)
{
    if (c->kind->output_end != NULL) {
        c->kind->output_end(c, code);
        return;
    }
    loop_del(c->out_watch);
    c->out_watch = NULL;
    c->out_fd = -1;
    c->out_off = true;
    log_warn(c->log, "%s: output goes nowhere from here on: %s", c->name, strerror(-code));
}

static bool writable_now(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};

    return poll(&p, 1, 0) > 0;
}

/* The count or -errno. */
static ssize_t output_write(struct chardev *c, const uint8_t *data, size_t len)
{
    ssize_t n;

    if (c->out_socket)
        return fd_send(c->out_fd, data, len);
    if (c->out_careful && !writable_now(c->out_fd))
        return -EAGAIN;
    n = write(c->out_fd, data, len);
    return n < 0 ? -errno : n;
}

/* Said when output moves again: before, the log might well go the same blocked way. */
static void report_dropped(struct chardev *c)
{
    if (c->dropped > 0 && !c->drop_logged) {
        log_warn(c->log, "%s: output was not read in time; lost the oldest %" PRIu64 " bytes",
                 c->name, c->dropped);
        c->drop_logged = true;
    }
    c->dropped = 0;
}

/* Writes what the descriptor takes without waiting. */
static void output_drain(struct chardev *c)
{
    size_t budget = DRAIN_MAX;

    while (c->out_fd >= 0 && ring_used(&c->out) > 0 && budget > 0) {
        const uint8_t *run;
        size_t len = ring_peek(&c->out, &run);
        ssize_t n;

        len = (size_t)min_u64(min_u64(len, c->out_max), budget);
        n = output_write(c, run, len);
        if (n == -EINTR)
            continue;
        c->out_blocked = n == -EAGAIN || n == 0;
        if (c->out_blocked)
            break;
        if (n < 0) {
            output_end(c, (int)n);
            break;
        }
        ring_skip(&c->out, (size_t)n);
        budget -= (size_t)n;
        report_dropped(c);
    }
    if (c->out_watch != NULL)
        loop_mod(c->out_watch, ring_used(&c->out) > 0 ? LOOP_WRITE : 0);
}

static void on_output(void *ctx, unsigned events)
{
    struct chardev *c = ctx;

    c->out_blocked = false;
    output_drain(c);
    if ((events & LOOP_HANGUP) && c->out_blocked && c->out_fd >= 0)
        output_end(c, -EPIPE); /* hung up, yet no error from writing: would spin */
}

/*
 * The loop writes, so bytes of a burst go out together. Only before something would be lost does
 * the guest's own thread, and not again until the loop has seen the descriptor writable.
 */
void chardev_write(struct chardev *c, const void *from, size_t len)
{
    if (c->out_off)
        return;
    if (len > ring_room(&c->out) && c->out_fd >= 0 && !c->out_blocked)
        output_drain(c);
    c->dropped += ring_put(&c->out, from, len);
    if (c->out_watch != NULL)
        loop_mod(c->out_watch, LOOP_WRITE);
}

/* ---- descriptors ---- */

int chardev_attach(struct chardev *c, int in_fd, int out_fd, struct error *err)
{
    struct stat st;

    if (in_fd >= 0) {
        unsigned events = c->in_discard || ring_room(&c->in) > 0 ? LOOP_READ : 0;

        c->in_watch = loop_add(c->loop, in_fd, events, c->lock, on_input, c, err);
        if (c->in_watch == NULL)
            return -ENOMEM;
        c->in_fd = in_fd;
    }
    if (out_fd >= 0) {
        unsigned events = ring_used(&c->out) > 0 ? LOOP_WRITE : 0;

        c->out_watch = loop_add(c->loop, out_fd, events, c->lock, on_output, c, err);
        if (c->out_watch == NULL) {
            chardev_detach(c);
            return -ENOMEM;
        }
        c->out_fd = out_fd;
        c->out_socket = fstat(out_fd, &st) == 0 && S_ISSOCK(st.st_mode);
        c->out_blocked = false;
    }
    return 0;
}

void chardev_detach(struct chardev *c)
{
    loop_del(c->in_watch);
    loop_del(c->out_watch);
    c->in_watch = NULL;
    c->out_watch = NULL;
    c->in_fd = -1;
    c->out_fd = -1;
}

/* ---- opening and closing ---- */

/* "NAME" or "NAME=ARG"; a path is a terminal. */
static const struct chardev_kind *find_kind(const char *spec, const char **arg)
{
    size_t len = strcspn(spec, "=");

    if (spec[0] == '/') {
        *arg = spec;
        return &chardev_tty;
    }
    *arg = spec[len] == '=' ? spec + len + 1 : NULL;
    for (size_t i = 0; i < countof(kinds); i++) {
        if (strlen(kinds[i]->name) == len && strncmp(spec, kinds[i]->name, len) == 0)
            return kinds[i];
    }
    return NULL;
}

static void chardev_free(struct chardev *c)
{
    if (c->kind != NULL && c->kind->close != NULL)
        c->kind->close(c);
    for (size_t i = 0; i < countof(c->owned); i++) {
        if (c->owned[i] >= 0)
            close(c->owned[i]);
    }
    ring_fini(&c->in);
    ring_fini(&c->out);
    free(c);
}

static struct chardev *chardev_new(size_t in_size, size_t out_size)
{
    struct chardev *c = calloc(1, sizeof(*c));

    if (c == NULL)
        return NULL;
    c->in_fd = -1;
    c->out_fd = -1;
    c->owned[0] = -1;
    c->owned[1] = -1;
    c->out_max = WRITE_CHUNK;
    if (ring_init(&c->in, in_size) < 0 || ring_init(&c->out, out_size) < 0) {
        chardev_free(c);
        return NULL;
    }
    return c;
}

int chardev_open(const char *spec, const char *owner_name, struct loop *loop, struct log *log,
                 pthread_mutex_t *lock, const struct chardev_events *events, void *ctx,
                 struct chardev **out, struct error *err)
{
    const char *arg;
    const struct chardev_kind *kind = find_kind(spec, &arg);
    struct chardev *c;
    int rc;

    if (kind == NULL)
        return error_set(err, -EINVAL,
                         "%s: unknown back end '%s'; known are stdio, autopty[=LINK], "
                         "tcp=[ADDR:]PORT, unix=PATH, file=PATH, null and paths of terminals",
                         owner_name, spec);
    if (loop == NULL && kind != &chardev_null)
        return error_set(err, -EINVAL, "%s: back end '%s' needs an event loop", owner_name, spec);
    c = chardev_new(kind->in_size, kind->out_size);
    if (c == NULL)
        return error_set(err, -ENOMEM, "%s: no memory for back end '%s'", owner_name, spec);
    c->kind = kind;
    snprintf(c->name, sizeof(c->name), "%s", owner_name);
    c->loop = loop;
    c->log = log;
    c->lock = lock;
    c->events = events;
    c->ctx = ctx;
    rc = kind->open(c, arg, err);
    if (rc < 0) {
        chardev_detach(c);
        chardev_free(c);
        error_prefix(err, "%s", owner_name);
        return rc;
    }
    *out = c;
    return 0;
}

/* A reader that is merely slow gets the last words. */
static void output_flush(struct chardev *c)
{
    uint64_t end = host_clock_ns() + c->kind->flush_ns;

    while (c->out_fd >= 0 && ring_used(&c->out) > 0) {
        uint64_t now = host_clock_ns();
        struct pollfd p = {.fd = c->out_fd, .events = POLLOUT};

        output_drain(c);
        if (!c->out_blocked)
            continue;
        if (now >= end || poll(&p, 1, (int)((end - now) / 1000000) + 1) < 0)
            break;
        if (p.revents & (POLLERR | POLLHUP | POLLNVAL))
            break;
    }
}

void chardev_close(struct chardev *c)
{
    if (c == NULL)
        return;
    if (c->kind != NULL) {
        loop_del(c->in_watch);
        loop_del(c->out_watch);
        c->in_watch = NULL;
        c->out_watch = NULL;
        output_flush(c);
        chardev_detach(c);
    }
    chardev_free(c);
}

/* ---- memory ---- */

struct chardev *chardev_memory(const struct chardev_events *events, void *ctx)
{
    struct chardev *c = chardev_new(MEMORY_IN, MEMORY_OUT);

    if (c == NULL)
        return NULL;
    c->events = events;
    c->ctx = ctx;
    return c;
}

void chardev_memory_feed(struct chardev *c, const void *data, size_t len)
{
    if (ring_grow(&c->in, len) < 0)
        return; /* a test that feeds more than the host has will see what is missing */
    ring_put(&c->in, data, len);
    if (c->events != NULL && c->events->readable != NULL)
        c->events->readable(c->ctx);
}

size_t chardev_memory_take(struct chardev *c, void *to, size_t len)
{
    return ring_take(&c->out, to, len);
}
