/* IDENTIFY DEVICE and IDENTIFY PACKET DEVICE: 256 words about the device. ACS-2. */
#include <string.h>

#include "base/endian.h"
#include "storage/ata.h"

#define HEADS 16u
#define SECTORS 63u
#define CYLINDERS_MAX 16383u
#define LBA28_MAX 0x0FFFFFFFu

static void word(uint8_t *out, unsigned n, unsigned value)
{
    le16_store(out + 2 * n, (uint16_t)value);
}

/* Padded with spaces, the first character of each two in the upper byte. */
static void text(uint8_t *out, unsigned first, unsigned words, const char *s)
{
    size_t len = strlen(s);

    for (unsigned i = 0; i < 2 * words; i++)
        out[2 * first + (i ^ 1)] = i < len ? (uint8_t)s[i] : ' ';
}

static void capacity(const struct ata_device *d, uint8_t *w)
{
    uint64_t sectors = d->geo.size / d->geo.sector;
    uint64_t cylinders = min_u64(sectors / (HEADS * SECTORS), CYLINDERS_MAX);
    unsigned more = (unsigned)__builtin_ctz(d->geo.physical / d->geo.sector);

    word(w, 1, (unsigned)cylinders);
    word(w, 3, HEADS);
    word(w, 6, SECTORS);
    word(w, 54, (unsigned)cylinders);
    word(w, 55, HEADS);
    word(w, 56, SECTORS);
    le32_store(w + 2 * 57, (uint32_t)(cylinders * HEADS * SECTORS));
    le32_store(w + 2 * 60, (uint32_t)min_u64(sectors, LBA28_MAX));
    le64_store(w + 2 * 100, sectors);
    /* 2^more logical sectors in a physical one; whether a logical one has more than 256 words */
    word(w, 106, 0x4000u | (more != 0 ? 0x2000u | more : 0) | (d->geo.sector > 512 ? 0x1000u : 0));
    if (d->geo.sector > 512)
        le32_store(w + 2 * 117, d->geo.sector / 2);
    word(w, 209, 0x4000); /* the first logical sector begins a physical one */
}

static void disk(const struct ata_device *d, const struct ata_identify *i, uint8_t *w)
{
    unsigned enabled = 0x0008u | (i->write_cache ? 0x20u : 0) | (i->look_ahead ? 0x40u : 0);

    word(w, 0, 0x0040);
    capacity(d, w);
    word(w, 47, 0x8000u | ATA_MULTIPLE_MAX);
    word(w, 48, 0x4000);
    word(w, 59, i->multiple != 0 ? 0x0100u | i->multiple : 0);
    word(w, 75, ATA_QUEUE - 1);
    word(w, 76, 0x810E); /* three speeds, NCQ, logs by DMA are the same */
    word(w, 82, 0x0068); /* power management, write cache, look-ahead */
    word(w, 83, 0x7400); /* FLUSH CACHE (EXT), 48 bits */
    word(w, 84, 0x4060); /* logs, FUA */
    word(w, 85, enabled);
    word(w, 86, 0xB400);
    word(w, 87, 0x4060);
    word(w, 119, 0x4008); /* READ LOG DMA EXT */
    word(w, 120, 0x4008);
    if (i->trim_blocks != 0) {
        word(w, 69, 0x4020); /* what was trimmed reads as zeros, always */
        word(w, 105, i->trim_blocks);
        word(w, 169, 1);
    }
    word(w, 217, d->rotation);
}

static void packet(uint8_t *w)
{
    word(w, 0, 0x85C0);  /* CD drive, removable, packets of 12 bytes */
    word(w, 76, 0x000E); /* three speeds */
    word(w, 82, 0x0218); /* packets, DEVICE RESET, power management */
    word(w, 83, 0x4000);
    word(w, 84, 0x4000);
    word(w, 85, 0x0218);
    word(w, 87, 0x4000);
}

void ata_identify(const struct ata_device *d, const struct ata_identify *i,
                  uint8_t out[ATA_IDENTIFY_SIZE])
{
    unsigned mode = d->transfer & 7u;
    uint8_t sum = 0;

    memset(out, 0, ATA_IDENTIFY_SIZE);
    if (i->packet)
        packet(out);
    else
        disk(d, i, out);
    text(out, 10, 10, d->serial);
    text(out, 23, 4, d->revision);
    text(out, 27, 20, d->model);
    word(out, 49, 0x0F00); /* DMA, LBA, IORDY */
    word(out, 50, 0x4000);
    word(out, 53, i->packet ? 0x0006 : 0x0007);
    word(out, 63, 0x0007u | ((d->transfer & 0xF8) == 0x20 ? 0x100u << mode : 0));
    word(out, 64, 0x0003); /* PIO 3 and 4 */
    for (unsigned n = 65; n <= 68; n++)
        word(out, n, 120); /* ns of a cycle */
    word(out, 77, 0x0006); /* 6 Gb/s */
    word(out, 80, 0x03F0); /* ATA/ATAPI-4 to ACS-2 */
    word(out, 88, 0x007Fu | ((d->transfer & 0xF8) == 0x40 ? 0x100u << mode : 0));
    word(out, 222, 0x1040); /* SATA 3.0 */
    out[510] = 0xA5;
    for (unsigned n = 0; n < 511; n++)
        sum = (uint8_t)(sum + out[n]);
    out[511] = (uint8_t)-sum; /* all bytes add up to zero */
}
