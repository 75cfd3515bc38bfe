/*
 * Inside chardev/: what the kinds of back end share. chardev.c owns the rings and moves bytes
 * between them and up to two descriptors; a kind opens these, and says what their end means.
 */
#ifndef CHARDEV_KINDS_H
#define CHARDEV_KINDS_H

#include <stdbool.h>

#include "chardev/chardev.h"
#include "chardev/ring.h"

struct loop_fd;

#define CHARDEV_SECOND 1000000000ull

struct chardev_kind {
    const char *name;
    size_t in_size, out_size; /* rings, powers of two */
    uint64_t flush_ns;        /* how long close waits for a slow reader */
    /* arg is what follows "NAME=", NULL if nothing; for terminals the path. */
    int (*open)(struct chardev *c, const char *arg, struct error *err);
    void (*close)(struct chardev *c); /* may be NULL; also after open failed half-way */
    /* Edits input in place and returns what remains. NULL: as it is. */
    size_t (*filter)(struct chardev *c, uint8_t *data, size_t len);
    /* Input (output) came to its end; code is 0 or -errno. NULL: the other direction goes on. */
    void (*input_end)(struct chardev *c, int code);
    void (*output_end)(struct chardev *c, int code);
};

/* All under the owner's lock. */
struct chardev {
    const struct chardev_kind *kind; /* NULL: memory */
    void *impl;                      /* the kind's own, freed by its close */
    char name[32];                   /* the owner's, for messages */
    struct loop *loop;
    struct log *log;
    pthread_mutex_t *lock;
    const struct chardev_events *events; /* may be NULL */
    void *ctx;

    struct ring in, out;
    int in_fd, out_fd; /* -1: none now */
    int owned[2];      /* closed after the kind's close; -1: none */
    struct loop_fd *in_watch, *out_watch;
    bool in_discard; /* a full input ring loses new bytes instead of holding the peer back */
    bool out_off;    /* nothing will ever read: output is not even kept */
    bool out_socket;
    bool out_careful; /* the descriptor may block: poll first, and write out_max at most */
    size_t out_max;
    bool out_blocked; /* did not take the last write; the loop will say when it does */
    uint64_t dropped; /* bytes lost since the last message about it */
    bool drop_logged;
};

/* Serves these on the loop from now on; -1 for none. */
int chardev_attach(struct chardev *c, int in_fd, int out_fd, struct error *err);
void chardev_detach(struct chardev *c);

extern const struct chardev_kind chardev_stdio, chardev_autopty, chardev_tty, chardev_tcp,
    chardev_unix, chardev_file, chardev_null;

#endif
