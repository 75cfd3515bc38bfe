/*
 * What a person does to an image that no VM has open: create, look, check, convert, resize. Long
 * work tells how far it is. One thread for each call; errors are one sentence that names the file.
 */
#ifndef BLOCK_IMAGE_H
#define BLOCK_IMAGE_H

#include "block/format.h"

/* done and total in bytes; returning true ends the work with -ECANCELED. */
struct image_progress {
    bool (*step)(void *ctx, uint64_t done, uint64_t total);
    void *ctx;
};

struct image_info {
    const struct block_format *format;
    struct block_info block;
    uint64_t file_size;
    char backing[256], detail[256]; /* copies of what block_info borrows */
};

/* format NULL: by the content, everywhere here. */
int image_create(const char *path, const struct block_format *format, const struct block_create *o,
                 struct error *err);
int image_info(const char *path, const struct block_format *format, struct image_info *out,
               struct error *err);
int image_check(const char *path, const struct block_format *format, bool fix,
                struct block_check *out, struct error *err);
/* to must not exist; backing: the source's backing files are followed, too. */
int image_convert(const char *from, const struct block_format *from_format, const char *to,
                  const struct block_format *to_format, const struct block_create *o, bool backing,
                  const struct image_progress *progress, struct error *err);
int image_resize(const char *path, const struct block_format *format, uint64_t size, bool shrink,
                 struct error *err);

/* Calls `each` for the extents from 0 to the end of the disk. */
int image_map(const char *path, const struct block_format *format, bool backing,
              void (*each)(void *ctx, uint64_t offset, uint64_t len, enum block_extent kind,
                           uint64_t in_file),
              void *ctx, struct error *err);

#endif
