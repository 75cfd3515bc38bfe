#include "block/format.h"

#include <errno.h>
#include <string.h>

#include "base/bits.h"

const struct block_format *const block_formats[] = {
    &block_raw,
    NULL,
};

const struct block_format *block_format_find(const char *name)
{
    for (unsigned i = 0; block_formats[i] != NULL; i++) {
        if (strcmp(block_formats[i]->name, name) == 0)
            return block_formats[i];
    }
    return NULL;
}

int block_format_probe(struct bfile *file, const struct block_format **out, struct error *err)
{
    uint8_t head[BLOCK_HEAD] = {0};
    uint64_t size = 0;
    int rc = bfile_size(file, &size);
    size_t len = (size_t)min_u64(size, sizeof(head));

    if (rc == 0)
        rc = bfile_read(file, 0, head, len);
    if (rc < 0 && rc != -ENXIO)
        return error_set(err, rc, "%s: cannot be read: %s", file->name, strerror(-rc));
    for (unsigned i = 0; block_formats[i] != NULL; i++) {
        if (block_formats[i]->probe(head, len, size)) {
            *out = block_formats[i];
            return 0;
        }
    }
    return error_set(err, -EINVAL, "%s: no format of disk images knows it", file->name);
}
