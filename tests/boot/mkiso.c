/*
 * Makes the smallest CD image for tests: ISO 9660 with one file, DATA.TXT.
 *
 *     mkiso OUTPUT VOLUME TEXT
 *
 * Sectors of 2048 bytes: 16 the volume's descriptor, 17 the last descriptor, 18 and 19 path tables,
 * 20 the only directory, 21 the file.
 */
#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define SECTOR 2048u
#define SECTORS 64u

enum { DESCRIPTOR = 16, LAST, PATHS_LITTLE, PATHS_BIG, DIRECTORY, CONTENT };

static void put16(uint8_t *p, unsigned v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

/* Numbers stand there twice, the second time big-endian. */
static void both16(uint8_t *p, unsigned v)
{
    put16(p, v);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

static void both32(uint8_t *p, uint32_t v)
{
    put16(p, v & 0xFFFF);
    put16(p + 2, v >> 16);
    for (unsigned i = 0; i < 4; i++)
        p[4 + i] = p[3 - i];
}

static unsigned record(uint8_t *p, const char *name, unsigned name_len, unsigned sector,
                       uint32_t size, bool directory)
{
    unsigned len = (33 + name_len + 1) & ~1u;

    p[0] = (uint8_t)len;
    both32(p + 2, sector);
    both32(p + 10, size);
    p[18] = 124; /* 2024-01-01 */
    p[19] = p[20] = 1;
    p[25] = directory ? 2 : 0;
    both16(p + 28, 1);
    p[32] = (uint8_t)name_len;
    memcpy(p + 33, name, name_len);
    return len;
}

static void descriptor(uint8_t *p, const char *volume)
{
    p[0] = 1;
    memcpy(p + 1, "CD001\1", 6);
    memset(p + 8, ' ', 64);
    for (unsigned i = 0; volume[i] != '\0' && i < 32; i++)
        p[40 + i] = (uint8_t)toupper((unsigned char)volume[i]);
    both32(p + 80, SECTORS);
    both16(p + 120, 1);
    both16(p + 124, 1);
    both16(p + 128, SECTOR);
    both32(p + 132, 10); /* bytes of a path table */
    put16(p + 140, PATHS_LITTLE);
    p[151] = PATHS_BIG;
    record(p + 156, "", 1, DIRECTORY, SECTOR, true);
    memset(p + 190, ' ', 623);
    p[881] = 1;
}

int main(int argc, char **argv)
{
    static uint8_t disc[SECTORS][SECTOR];
    unsigned at = 0;
    FILE *out;

    if (argc != 4 || strlen(argv[3]) + 1 >= SECTOR) {
        fprintf(stderr, "usage: mkiso OUTPUT VOLUME TEXT\n");
        return 2;
    }
    descriptor(disc[DESCRIPTOR], argv[2]);
    memcpy(disc[LAST], "\377CD001\1", 7);
    disc[PATHS_LITTLE][0] = disc[PATHS_BIG][0] = 1;
    disc[PATHS_LITTLE][2] = disc[PATHS_BIG][5] = DIRECTORY;
    disc[PATHS_LITTLE][6] = disc[PATHS_BIG][7] = 1;
    at += record(disc[DIRECTORY], "", 1, DIRECTORY, SECTOR, true);
    at += record(disc[DIRECTORY] + at, "\1", 1, DIRECTORY, SECTOR, true);
    record(disc[DIRECTORY] + at, "DATA.TXT;1", 10, CONTENT, (uint32_t)strlen(argv[3]) + 1, false);
    snprintf((char *)disc[CONTENT], SECTOR, "%s\n", argv[3]);
    out = fopen(argv[1], "wb");
    if (out == NULL || fwrite(disc, sizeof(disc), 1, out) != 1 || fclose(out) != 0) {
        perror(argv[1]);
        return 1;
    }
    return 0;
}
