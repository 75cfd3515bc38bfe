/*
 * What the guest of guest_load.c writes, and what must be there of it after a crash. Each of its
 * workers has objects with versions that only grow: the number of records in a log, the content of
 * a file that is replaced by renaming, files that come (odd) and go (even), sectors of a file that
 * are written in place. On a disk of its own the guest says what it begins ("version 7 of file 3")
 * and, when fsync has returned, what is stable. After a crash an object has a version from the last
 * that was stable to the last that was begun.
 *
 * Part of the guest's program and of the host's.
 */
#ifndef TESTS_BLOCK_PROMISE_H
#define TESTS_BLOCK_PROMISE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WORKERS 3u
#define FILES 16u       /* w0/f00 and on */
#define SECTORS 64u     /* of w0/data */
#define OBJECT_READY 0u /* 1: the folder and data are there */
#define OBJECT_LOG 1u   /* w0/log: records */
#define OBJECT_CONF 2u  /* w0/conf; 0: not there yet */
#define OBJECT_FILE 3u
#define OBJECT_SECTOR (OBJECT_FILE + FILES)
#define OBJECTS (OBJECT_SECTOR + SECTORS)

#define LOG_RECORD 256u
#define PROMISE_SECTOR 512u
#define CONTENT_MOST (40u * 1024)

struct promise {
    uint32_t stable, begun;
};

struct promises {
    struct promise of[WORKERS][OBJECTS];
};

/* One sector that the guest says it in: `count` objects from `object` on have this version. */
#define SAY_MAGIC 0x5afe0001u
#define SAY_MOST 40u

struct say {
    uint32_t magic, worker;
    uint32_t stable; /* 0: begun */
    uint32_t count;
    struct say_item {
        uint32_t object, count, version;
    } item[SAY_MOST];
    uint8_t rest[512 - 16 - 12 * SAY_MOST];
};

void promise_say(struct promises *p, const struct say *s);

/* What an object's version holds: its bytes from 0 to len, the first 8 are the version. */
void promise_content(unsigned worker, unsigned object, uint32_t version, uint8_t *to, size_t len);
/* Bytes of conf and of the files. */
size_t promise_length(unsigned worker, unsigned object, uint32_t version);

/*
 * The tree of all workers under `path`: each breach is one line on standard output, after `name`;
 * how many. Breaches of what was never promised (a content that nobody wrote) count too.
 */
unsigned promise_check(const struct promises *p, const char *path, const char *name);

#endif
