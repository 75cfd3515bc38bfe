#include "block/backing.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The part of path up to its last '/'; "" if there is none. */
static char *directory_of(const char *path)
{
    const char *slash = strrchr(path, '/');

    return strndup(path, slash == NULL ? 0 : (size_t)(slash - path) + 1);
}

void backing_begin(struct backing *b, const char *path, const struct bfile *file)
{
    b->dir[0] = directory_of(path);
    if (file == NULL || file->fd < 0 || fstat(file->fd, &b->seen[0]) < 0)
        memset(&b->seen[0], 0, sizeof(b->seen[0]));
}

void backing_end(struct backing *b)
{
    for (unsigned i = 0; i <= BACKING_MOST; i++)
        free(b->dir[i]);
    memset(b, 0, sizeof(*b));
}

/* Asked before the file is opened, since its lock would be the image's own. */
static bool loops(struct backing *b, const char *path, unsigned depth)
{
    struct stat *st = &b->seen[depth];

    if (stat(path, st) < 0)
        return false;
    for (unsigned i = 0; i < depth; i++) {
        if (b->seen[i].st_dev == st->st_dev && b->seen[i].st_ino == st->st_ino)
            return true;
    }
    return false;
}

int backing_open(void *ctx, const char *name, unsigned depth, struct bfile **file,
                 struct error *err)
{
    const struct bfile_flags flags = {.read_only = true, .lock = true};
    struct backing *b = ctx;
    char *path = NULL;
    int rc;

    if (depth == 0 || depth > BACKING_MOST)
        return error_set(err, -ELOOP, "%s: more than %u backing files behind each other", name,
                         BACKING_MOST);
    if (b->dir[depth - 1] == NULL ||
        asprintf(&path, "%s%s", name[0] == '/' ? "" : b->dir[depth - 1], name) < 0)
        return error_set(err, -ENOMEM, "%s: no memory to open it", name);
    if (loops(b, path, depth))
        rc = error_set(err, -ELOOP, "%s: the backing files form a loop", path);
    else
        rc = bfile_open(path, &flags, file, err);
    free(b->dir[depth]);
    b->dir[depth] = directory_of(path);
    free(path);
    return rc;
}
