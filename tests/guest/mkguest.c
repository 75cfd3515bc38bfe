/*
 * mkguest NAME > FILE writes a guest of tiny.h; without a name: their list.
 * mkguest multiboot > FILE writes the kernel of multiboot.h.
 * mkguest bomb CLAIM > FILE writes a kernel whose gzip payload makes 1.3 GB of zeros out of 8 MiB,
 * and claims to make CLAIM bytes.
 */
#include <stdio.h>
#include <stdlib.h>

#include "multiboot.h"
#include "tiny.h"

enum { BOMB_SIZE = 8 << 20 };

struct bits {
    uint8_t *at;
    unsigned used; /* of the byte there */
};

static void put(struct bits *b, unsigned value, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        *b->at |= (uint8_t)(((value >> i) & 1) << b->used);
        b->at += b->used == 7;
        b->used = (b->used + 1) % 8;
    }
}

/* One deflate block of fixed codes: a zero, then "258 bytes from one byte back" without end. */
static void deflate_zeros(uint8_t *to, size_t len)
{
    struct bits b = {to, 0};

    put(&b, 1, 1);    /* last block */
    put(&b, 1, 2);    /* fixed codes */
    put(&b, 0x0C, 8); /* literal 0: 00110000, first bit first */
    while ((size_t)(b.at - to) + 4 < len) {
        put(&b, 0xA3, 8); /* length 258: 11000101 */
        put(&b, 0, 5);    /* distance 1 */
    }
    put(&b, 0, 7); /* end of block */
}

static void put32(uint8_t *p, uint32_t v)
{
    tiny_put16(p, v & 0xFFFF);
    tiny_put16(p + 2, v >> 16);
}

static int bomb(uint32_t claim)
{
    static const uint8_t gzip[10] = {0x1F, 0x8B, 8};
    uint8_t *image = calloc(1, TINY_CODE + BOMB_SIZE);
    uint8_t *payload = image + TINY_CODE;
    int rc;

    if (image == NULL)
        return 1;
    tiny_header(image, 0x020C);
    put32(image + 0x1F4, BOMB_SIZE / 16);
    put32(image + 0x230, 2 << 20); /* alignment */
    image[0x234] = 1;              /* may be moved */
    image[0x236] = 1;              /* has a 64-bit entry */
    put32(image + 0x24C, BOMB_SIZE);
    put32(image + 0x258, 16 << 20); /* preferred address */
    put32(image + 0x260, 16 << 20); /* memory that it needs */
    memcpy(payload, gzip, sizeof(gzip));
    deflate_zeros(payload + sizeof(gzip), BOMB_SIZE - sizeof(gzip) - 8);
    put32(payload + BOMB_SIZE - 4, claim);
    rc = fwrite(image, TINY_CODE + BOMB_SIZE, 1, stdout) != 1 || fflush(stdout) != 0;
    free(image);
    return rc;
}

int main(int argc, char **argv)
{
    uint8_t image[TINY_SIZE];

    if (argc < 2) {
        for (size_t i = 0; i < sizeof(tiny_guests) / sizeof(tiny_guests[0]); i++)
            puts(tiny_guests[i].name);
        return 0;
    }
    if (argc == 3 && strcmp(argv[1], "bomb") == 0)
        return bomb((uint32_t)strtoul(argv[2], NULL, 0));
    if (argc == 2 && strcmp(argv[1], "multiboot") == 0) {
        multiboot_guest(image);
    } else if (argc != 2 || !tiny_guest(argv[1], image)) {
        fprintf(stderr, "%s: no guest '%s'\n", argv[0], argv[1]);
        return 1;
    }
    return fwrite(image, sizeof(image), 1, stdout) != 1 || fflush(stdout) != 0;
}
