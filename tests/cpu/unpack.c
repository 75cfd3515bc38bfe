/*
 * Writes the ELF file inside a bzImage, for the decoder's tests:  unpack BZIMAGE ELF
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/bits.h"
#include "base/endian.h"
#include "boot/decompress.h"
#include "boot/file.h"

int main(int argc, char **argv)
{
    struct error err = {0};
    uint8_t *image = NULL, *elf = NULL;
    uint64_t size, setup, offset, len;
    size_t elf_size;
    FILE *out;

    if (argc != 3) {
        fprintf(stderr, "usage: unpack BZIMAGE ELF\n");
        return 2;
    }
    if (file_load("kernel", argv[1], 256 * MIB, &image, &size, &err) != 0)
        goto fail;
    if (size < 0x250 || le16_load(image + 0x206) < 0x208) {
        error_set(&err, -EINVAL, "%s is not a bzImage of protocol 2.08 or later", argv[1]);
        goto fail;
    }
    setup = (image[0x1f1] != 0 ? image[0x1f1] : 4u) + 1u;
    offset = setup * 512 + le32_load(image + 0x248);
    len = le32_load(image + 0x24c);
    if (offset > size || len > size - offset) {
        error_set(&err, -EINVAL, "%s is truncated", argv[1]);
        goto fail;
    }
    if (unpack(image + offset, len, 512 * MIB, &elf, &elf_size, &err) != 0)
        goto fail;
    out = fopen(argv[2], "wb");
    if (out == NULL || fwrite(elf, 1, elf_size, out) != elf_size || fclose(out) != 0) {
        error_set(&err, -EIO, "cannot write %s", argv[2]);
        goto fail;
    }
    free(elf);
    free(image);
    return 0;
fail:
    fprintf(stderr, "unpack: %s\n", err.text);
    free(elf);
    free(image);
    return 1;
}
