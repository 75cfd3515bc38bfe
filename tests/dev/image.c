/*
 * Images of disks for scripts, in files that are gone at the end:
 *
 *     image NAME SIZE           of zeros; "@NAME" in the options of `pci` is its path
 *     image NAME SIZE count     each 8 bytes hold their own offset
 *     imageq NAME OFFSET = V    what lies in the file
 *     insert SLOT UNIT NAME     another medium into a drive; "-" takes out what is in
 *     insert SLOT UNIT NAME force
 */
#define _DEFAULT_SOURCE

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/endian.h"
#include "runner.h"

struct image {
    int fd;
    char path[128];
};

static int nothing_created(struct unit *u, struct error *err)
{
    (void)u;
    (void)err;
    return 0;
}

static void nothing(struct unit *u)
{
    (void)u;
}

static void nothing_saved(struct unit *u, struct state_buf *out)
{
    (void)u;
    (void)out;
}

static int nothing_loaded(struct unit *u, const uint8_t *data, size_t len, size_t *pos,
                          struct error *err)
{
    (void)u;
    (void)data;
    (void)len;
    (void)pos;
    (void)err;
    return 0;
}

static void image_fini(struct unit *u)
{
    struct image *i = u->ctx;

    close(i->fd);
    unlink(i->path);
    free(i);
}

static const struct unit_ops image_ops = {
    .create = nothing_created,
    .destroy = nothing,
    .save = nothing_saved,
    .load = nothing_loaded,
    .reset = nothing,
    .fini = image_fini,
};

static struct image *image_find(struct runner *r, const char *name)
{
    char full[64];
    struct unit *u;

    snprintf(full, sizeof(full), "image:%.40s", name);
    u = unit_find(r, full);
    if (u == NULL)
        fail(r, "there is no image '%s'", name);
    return u != NULL ? u->ctx : NULL;
}

static bool fill(struct runner *r, int fd, uint64_t size)
{
    uint8_t block[4096];

    for (uint64_t at = 0; at < size; at += sizeof(block)) {
        size_t n = (size_t)min_u64(sizeof(block), size - at);

        for (size_t i = 0; i + 8 <= n; i += 8)
            le64_store(block + i, at + i);
        if (pwrite(fd, block, n, (off_t)at) != (ssize_t)n) {
            fail(r, "the image cannot be written");
            return false;
        }
    }
    return true;
}

static void cmd_image(struct runner *r, unsigned count, char **words)
{
    const char *dir = getenv("TMPDIR");
    struct image *i = calloc(1, sizeof(*i));
    char full[64];
    uint64_t size;

    if (i == NULL || !number(r, words[2], &size)) {
        free(i);
        return;
    }
    snprintf(i->path, sizeof(i->path), "%.90s/dev-image-XXXXXX", dir != NULL ? dir : "/tmp");
    i->fd = mkstemp(i->path);
    if (i->fd < 0 || ftruncate(i->fd, (off_t)size) != 0) {
        fail(r, "%s cannot be made", i->path);
        free(i);
        return;
    }
    snprintf(full, sizeof(full), "image:%.40s", words[1]);
    if (count > 3 && !fill(r, i->fd, size))
        return;
    unit_add(r, full, &image_ops, NULL, NULL, i);
}

static void cmd_imageq(struct runner *r, unsigned count, char **words)
{
    struct image *i = image_find(r, words[1]);
    uint8_t bytes[8];
    uint64_t at;

    (void)count;
    if (i == NULL || !number(r, words[2], &at))
        return;
    if (pread(i->fd, bytes, sizeof(bytes), (off_t)at) != (ssize_t)sizeof(bytes))
        fail(r, "the image ends before %s", words[2]);
    else
        check_value(r, "the image", le64_load(bytes), words[4]);
}

char *image_expand(struct runner *r, const char *text)
{
    const char *at = strchr(text, '@');
    char name[41], *out;
    struct image *i;
    size_t len, rest;

    if (at == NULL)
        return strdup(text);
    len = strcspn(at + 1, ",");
    snprintf(name, sizeof(name), "%.*s", (int)len, at + 1);
    i = image_find(r, name);
    if (i == NULL)
        return NULL;
    rest = strlen(at + 1 + len);
    out = malloc((size_t)(at - text) + strlen(i->path) + rest + 1);
    if (out != NULL)
        sprintf(out, "%.*s%s%s", (int)(at - text), text, i->path, at + 1 + len);
    if (out != NULL && strchr(out, '@') != NULL) {
        char *more = image_expand(r, out);

        free(out);
        return more;
    }
    return out;
}

static void cmd_insert(struct runner *r, unsigned count, char **words)
{
    struct image *i = strcmp(words[3], "-") != 0 ? image_find(r, words[3]) : NULL;
    struct error err = {0};
    uint64_t slot, unit;
    int rc;

    if ((i == NULL && strcmp(words[3], "-") != 0) || !number(r, words[1], &slot) ||
        !number(r, words[2], &unit))
        return;
    rc = board_insert(r, (unsigned)slot, (unsigned)unit, i != NULL ? i->path : NULL,
                      count > 4 && strcmp(words[4], "force") == 0, &err);
    if (count > 4 && strcmp(words[4], "refused") == 0)
        check(r, rc != 0, "the medium was taken");
    else
        check(r, rc == 0, "%s", err.text);
}

const struct command image_commands[] = {
    {"image", 2, 3, cmd_image, "NAME SIZE [count]"},
    {"imageq", 4, 4, cmd_imageq, "NAME OFFSET = VALUE"},
    {"insert", 3, 4, cmd_insert, "SLOT UNIT NAME|- [force|refused]"},
    {0},
};
