/*
 * The files behind an image: names that images hold become files, opened to read and locked. For
 * block_open.backing; one for each opened image, on the thread that opens it.
 */
#ifndef BLOCK_BACKING_H
#define BLOCK_BACKING_H

#include <sys/stat.h>

#include "block/file.h"

#define BACKING_MOST 16u /* files behind each other */

struct backing {
    /* By depth, 0 is the image itself: where a name that it holds begins ("": here), and who it is.
     */
    char *dir[BACKING_MOST + 1];
    struct stat seen[BACKING_MOST + 1];
};

/* b is all zeros. The image at this path, file if it is open. */
void backing_begin(struct backing *b, const char *path, const struct bfile *file);
void backing_end(struct backing *b);

/*
 * struct block_open's `backing`, ctx the struct backing. -ELOOP: one that was there already, under
 * whatever name, or too many.
 */
int backing_open(void *ctx, const char *name, unsigned depth, struct bfile **file,
                 struct error *err);

#endif
