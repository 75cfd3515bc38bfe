/*
 * Character back ends: where a serial port's bytes go. One object, one peer: the process's stdio, a
 * new pty, a terminal device, a TCP or Unix socket (listening), a file, or nothing.
 *
 * A slow, absent or closed reader never stalls the guest: output is kept in a bounded ring and the
 * oldest is dropped (counted, logged once). Descriptors are served on the event loop.
 *
 * All calls with the owner's lock held, on any thread; callbacks come on the loop with that same
 * lock held.
 */
#ifndef CHARDEV_CHARDEV_H
#define CHARDEV_CHARDEV_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/log.h"

struct loop;
struct chardev;

struct chardev_events {
    /* Input is there: the owner takes what it can with chardev_read, now or later. */
    void (*readable)(void *ctx);
    /* The user typed Ctrl-A x on stdio. */
    void (*quit)(void *ctx);
};

/*
 * spec: "stdio[=output]", "autopty[=LINK]", "tcp=[ADDR:]PORT", "unix=PATH", "file=PATH", "null", or
 * the path of a terminal device. "autopty" logs the pty's path at info level, and makes LINK a
 * symbolic link to it, removed at the end. -EINVAL/-errno and a sentence otherwise.
 */
int chardev_open(const char *spec, const char *owner_name, struct loop *loop, struct log *log,
                 pthread_mutex_t *lock, const struct chardev_events *events, void *ctx,
                 struct chardev **out, struct error *err);
void chardev_close(struct chardev *c); /* tries to write what is pending, for at most a second */

/* A memory-backed one for tests: output collects, input is fed. */
struct chardev *chardev_memory(const struct chardev_events *events, void *ctx);
void chardev_memory_feed(struct chardev *c, const void *data, size_t len);
size_t chardev_memory_take(struct chardev *c, void *to, size_t len);

/* Up to len bytes of input; 0 if none. Taking input lets more come. */
size_t chardev_read(struct chardev *c, void *to, size_t len);

/* Always takes all len bytes (see above). */
void chardev_write(struct chardev *c, const void *from, size_t len);

/* The kinds for "-l help": NULL-terminated "name" / "what" pairs. */
extern const char *const chardev_kinds[];

#endif
