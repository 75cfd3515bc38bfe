#include "promise.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct look {
    const struct promises *p;
    const char *path, *name;
    unsigned worker, breaches;
    uint8_t found[CONTENT_MOST + 1], right[CONTENT_MOST];
};

void promise_say(struct promises *p, const struct say *s)
{
    if (s->magic != SAY_MAGIC || s->worker >= WORKERS || s->count > SAY_MOST)
        return;
    for (uint32_t i = 0; i < s->count; i++) {
        const struct say_item *item = &s->item[i];

        for (uint32_t n = item->object; n < OBJECTS && n - item->object < item->count; n++) {
            struct promise *to = &p->of[s->worker][n];

            if (s->stable != 0 && item->version > to->stable)
                to->stable = item->version;
            if (item->version > to->begun)
                to->begun = item->version;
        }
    }
}

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

void promise_content(unsigned worker, unsigned object, uint32_t version, uint8_t *to, size_t len)
{
    uint64_t seed = mix(((uint64_t)worker << 48 | (uint64_t)object << 32 | version) + 1);

    for (size_t at = 0; at < len; at += 8) {
        uint64_t word = at == 0 ? version : mix(seed + at);

        memcpy(to + at, &word, len - at < 8 ? len - at : 8);
    }
}

size_t promise_length(unsigned worker, unsigned object, uint32_t version)
{
    uint64_t h = mix(~((uint64_t)worker << 48 | (uint64_t)object << 32 | version));

    /* most are small, some have several extents' worth */
    return (size_t)(8 + h % ((h >> 40) % 4 == 0 ? CONTENT_MOST - 8 : 3000));
}

static void __attribute__((format(printf, 2, 3))) breach(struct look *l, const char *fmt, ...)
{
    va_list ap;

    printf("%s: w%u/", l->name, l->worker);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
    l->breaches++;
}

/* At most len bytes from offset on into `found`; -1: there is no such file. */
static ssize_t look_at(struct look *l, const char *file, uint64_t offset, size_t len)
{
    char path[512];
    size_t at = 0;
    ssize_t n = 1;
    int fd;

    snprintf(path, sizeof(path), "%s/w%u/%s", l->path, l->worker, file);
    fd = open(path, O_RDONLY);
    if (fd < 0) {
        if (errno != ENOENT)
            breach(l, "%s: cannot be opened: %s", file, strerror(errno));
        return -1;
    }
    while (at < len && (n = pread(fd, l->found + at, len - at, (off_t)(offset + at))) > 0)
        at += (size_t)n;
    if (n < 0)
        breach(l, "%s: cannot be read: %s", file, strerror(errno));
    close(fd);
    return (ssize_t)at;
}

/* The version that the bytes in `found` say they are; false: they are not that. */
static bool is_whole(struct look *l, unsigned object, size_t len, uint32_t *version)
{
    uint64_t word = 0;

    if (len < 8)
        return false;
    memcpy(&word, l->found, 8);
    *version = (uint32_t)word;
    promise_content(l->worker, object, *version, l->right, len);
    return memcmp(l->found, l->right, len) == 0;
}

static void check_log(struct look *l)
{
    struct promise p = l->p->of[l->worker][OBJECT_LOG];

    for (uint32_t n = 1; n <= p.stable; n++) {
        ssize_t len = look_at(l, "log", (uint64_t)(n - 1) * LOG_RECORD, LOG_RECORD);
        uint32_t version = 0;

        if (len == LOG_RECORD && is_whole(l, OBJECT_LOG, LOG_RECORD, &version) && version == n)
            continue;
        breach(l,
               "log: record %" PRIu32 " of %" PRIu32
               " that are stable is %s (%zd bytes, says %" PRIu32 ")",
               n, p.stable, len < (ssize_t)LOG_RECORD ? "missing" : "wrong", len, version);
        return;
    }
}

/* A file that is whole or not there; while it comes it may be there in part, unless it is renamed.
 */
static void check_file(struct look *l, unsigned object, const char *file, bool comes_whole)
{
    struct promise p = l->p->of[l->worker][object];
    ssize_t len = look_at(l, file, 0, CONTENT_MOST + 1);
    bool may_lack = comes_whole ? p.stable == 0 : p.begun > p.stable || p.stable % 2 == 0;
    uint32_t version = 0;

    if (len < 0) {
        if (!may_lack)
            breach(l, "%s: is not there, version %" PRIu32 " is stable, %" PRIu32 " begun", file,
                   p.stable, p.begun);
        return;
    }
    if (len <= (ssize_t)CONTENT_MOST && is_whole(l, object, (size_t)len, &version) &&
        (size_t)len == promise_length(l->worker, object, version)) {
        if (version < p.stable || version > p.begun)
            breach(l, "%s: has version %" PRIu32 ", stable %" PRIu32 ", begun %" PRIu32, file,
                   version, p.stable, p.begun);
        return;
    }
    /* in part: one that is begun, and was not stable before */
    if (comes_whole || p.begun == p.stable || (p.begun == p.stable + 1 && p.begun % 2 == 0))
        breach(l, "%s: is not whole (%zd bytes), version %" PRIu32 " is stable, %" PRIu32 " begun",
               file, len, p.stable, p.begun);
}

static void check_sectors(struct look *l)
{
    for (unsigned i = 0; i < SECTORS; i++) {
        struct promise p = l->p->of[l->worker][OBJECT_SECTOR + i];
        ssize_t len = look_at(l, "data", i * PROMISE_SECTOR, PROMISE_SECTOR);
        uint32_t version = 0;

        if (len < 0) {
            breach(l, "data: is not there");
            return;
        }
        if (len != PROMISE_SECTOR || !is_whole(l, OBJECT_SECTOR + i, PROMISE_SECTOR, &version))
            breach(l, "data: sector %u holds what nobody wrote (%zd bytes)", i, len);
        else if (version < p.stable || version > p.begun)
            breach(l, "data: sector %u has version %" PRIu32 ", stable %" PRIu32 ", begun %" PRIu32,
                   i, version, p.stable, p.begun);
    }
}

unsigned promise_check(const struct promises *p, const char *path, const char *name)
{
    static struct look l;
    char file[16];

    l = (struct look){.p = p, .path = path, .name = name};
    for (l.worker = 0; l.worker < WORKERS; l.worker++) {
        if (p->of[l.worker][OBJECT_READY].stable == 0)
            continue;
        check_log(&l);
        check_file(&l, OBJECT_CONF, "conf", true);
        for (unsigned i = 0; i < FILES; i++) {
            snprintf(file, sizeof(file), "f%02u", i);
            check_file(&l, OBJECT_FILE + i, file, false);
        }
        check_sectors(&l);
    }
    return l.breaches;
}
