/* What a CD drive answers about itself and its disc: SPC and MMC. Numbers are big-endian. */
#include <string.h>

#include "base/endian.h"
#include "storage/atapi.h"

#define PROFILE_CD 0x0008u
#define PROFILE_DVD 0x0010u
#define CD_BLOCKS_MAX 450000u /* 100 minutes; a larger disc is a DVD */

#define TRACK_LEAD_OUT 0xAAu
#define TRACK_DATA 0x14u /* ADR 1, data that may not be copied */

static void padded(uint8_t *to, size_t room, const char *text)
{
    size_t len = strlen(text);

    memset(to, ' ', room);
    memcpy(to, text, len < room ? len : room);
}

unsigned atapi_inquiry(struct atapi *a, const uint8_t *packet, uint8_t *out, uint32_t *sense)
{
    const char *space = strchr(a->d.model, ' ');

    if ((packet[1] & 1) != 0 || packet[2] != 0) { /* no vital product data */
        *sense = SENSE_FIELD;
        return 0;
    }
    out[0] = 0x05; /* CD drive */
    out[1] = 0x80; /* removable */
    out[2] = 0x05; /* SPC-3 */
    out[3] = 0x02; /* this layout; ATAPI's version before it was in the upper half */
    out[4] = 36 - 5;
    /* the model's first word is the vendor's name */
    padded(out + 8, 8, "");
    memcpy(out + 8, a->d.model,
           space != NULL && space - a->d.model < 8 ? (size_t)(space - a->d.model)
                                                   : strnlen(a->d.model, 8));
    padded(out + 16, 16, space != NULL ? space + 1 : a->d.model);
    padded(out + 32, 4, a->d.revision);
    return 36;
}

unsigned atapi_request_sense(struct atapi *a, const uint8_t *packet, uint8_t *out, uint32_t *sense)
{
    (void)packet;
    (void)sense;
    out[0] = 0x70; /* of the last command, fixed layout */
    out[2] = (uint8_t)(a->sense >> 16);
    out[7] = 18 - 8;
    out[12] = (uint8_t)(a->sense >> 8);
    out[13] = (uint8_t)a->sense;
    a->sense = SENSE_NONE;
    return 18;
}

unsigned atapi_capacity(struct atapi *a, const uint8_t *packet, uint8_t *out, uint32_t *sense)
{
    (void)packet;
    (void)sense;
    be32_store(out, atapi_blocks(a) - 1);
    be32_store(out + 4, ATAPI_BLOCK);
    return 8;
}

/* A block's address as minute, second and frame, which begin two seconds before block 0. */
static void address(uint8_t out[4], uint32_t lba, bool msf)
{
    uint32_t frames = lba + 150;

    if (!msf) {
        be32_store(out, lba);
        return;
    }
    out[0] = 0;
    out[1] = (uint8_t)min_u64(frames / 75 / 60, 255);
    out[2] = (uint8_t)(frames / 75 % 60);
    out[3] = (uint8_t)(frames % 75);
}

static unsigned toc_tracks(struct atapi *a, unsigned first, bool msf, uint8_t *out)
{
    unsigned at = 4;

    out[2] = out[3] = 1; /* first and last track */
    for (unsigned n = 0; n < 2; n++) {
        unsigned track = n == 0 ? 1 : TRACK_LEAD_OUT;

        if (track < first)
            continue;
        out[at + 1] = TRACK_DATA;
        out[at + 2] = (uint8_t)track;
        address(out + at + 4, n == 0 ? 0 : atapi_blocks(a), msf);
        at += 8;
    }
    return at;
}

static unsigned toc_sessions(bool msf, uint8_t *out)
{
    out[2] = out[3] = 1;
    out[5] = TRACK_DATA;
    out[6] = 1;
    address(out + 8, 0, msf);
    return 12;
}

/* As it lies in the lead-in: three pointers and the track, 11 bytes each, always MSF. */
static unsigned toc_raw(struct atapi *a, uint8_t *out)
{
    static const uint8_t points[] = {0xA0, 0xA1, 0xA2, 1};
    unsigned at = 4;

    out[2] = out[3] = 1;
    for (unsigned i = 0; i < countof(points); i++, at += 11) {
        uint8_t msf[4];

        out[at] = 1; /* session */
        out[at + 1] = TRACK_DATA;
        out[at + 3] = points[i];
        switch (points[i]) {
        case 0xA0:
        case 0xA1: /* first and last track, in the place of the minute */
            out[at + 8] = 1;
            break;
        default:
            address(msf, points[i] == 0xA2 ? atapi_blocks(a) : 0, true);
            memcpy(out + at + 8, msf + 1, 3);
            break;
        }
    }
    return at;
}

unsigned atapi_toc(struct atapi *a, const uint8_t *packet, uint8_t *out, uint32_t *sense)
{
    unsigned format = packet[2] & 0x0Fu, len;
    bool msf = (packet[1] & 2) != 0;

    if (format == 0) /* drivers of old put it into the control byte */
        format = packet[9] >> 6;
    switch (format) {
    case 0:
        if (packet[6] > 1 && packet[6] != TRACK_LEAD_OUT) {
            *sense = SENSE_FIELD;
            return 0;
        }
        len = toc_tracks(a, packet[6], msf, out);
        break;
    case 1:
        len = toc_sessions(msf, out);
        break;
    case 2:
        len = toc_raw(a, out);
        break;
    default:
        *sense = SENSE_FIELD;
        return 0;
    }
    be16_store(out, (uint16_t)(len - 2));
    return len;
}

/* ---- modes ---- */

static unsigned page_recovery(uint8_t *out)
{
    out[0] = 0x01;
    out[1] = 10;
    return 12;
}

static unsigned page_capabilities(const struct atapi *a, uint8_t *out)
{
    out[0] = 0x2A;
    out[1] = 18;
    out[2] = 0x18;                          /* reads DVD-ROM and DVD-R */
    out[4] = 0x40;                          /* several sessions */
    out[6] = 0x29 | (a->locked ? 0x02 : 0); /* tray, ejects, locks */
    be16_store(out + 8, 4234);              /* kB/s */
    be16_store(out + 12, 512);              /* KiB of buffer */
    be16_store(out + 14, 4234);
    return 20;
}

unsigned atapi_mode_sense(struct atapi *a, const uint8_t *packet, uint8_t *out, uint32_t *sense)
{
    unsigned page = packet[2] & 0x3Fu, control = packet[2] >> 6, len = 8;

    if (control == 3) {
        *sense = SENSE_NO_SAVED;
        return 0;
    }
    if ((page != 0x01 && page != 0x2A && page != 0x3F) || packet[3] != 0) {
        *sense = SENSE_FIELD;
        return 0;
    }
    if (page != 0x2A)
        len += page_recovery(out + len);
    if (page != 0x01)
        len += page_capabilities(a, out + len);
    if (control == 1) /* what may be changed: nothing */
        for (unsigned at = 8; at < len; at += 2u + out[at + 1])
            memset(out + at + 2, 0, out[at + 1]);
    be16_store(out, (uint16_t)(len - 2));
    out[2] = a->open ? 0x71 : !atapi_has_medium(a) ? 0x70 : 0x01;
    return len;
}

/* ---- features ---- */

struct feature {
    uint16_t code;
    uint8_t version; /* version << 2 | persistent << 1 | current */
    uint8_t len;
    uint8_t data[8];
    bool medium; /* current only with a disc */
};

static const struct feature features[] = {
    {0x0000, 0x03, 8, {0, 0x10, 0, 0, 0, 0x08, 0, 0}, false}, /* profiles */
    {0x0001, 0x0B, 8, {0, 0, 0, 2, 0, 0, 0, 0}, false},       /* core: ATAPI */
    {0x0003, 0x03, 4, {0x29, 0, 0, 0}, false},                /* removable: tray, ejects, locks */
    {0x0010, 0x00, 8, {0, 0, 0x08, 0, 0, 1, 0, 0}, true},     /* blocks of 2048, one at a time */
    {0x001E, 0x08, 4, {0, 0, 0, 0}, true},                    /* reads CDs */
    {0x001F, 0x00, 0, {0}, true},                             /* reads DVDs */
    {0x0100, 0x03, 0, {0}, false},                            /* power management */
    {0x0105, 0x07, 4, {0, 0, 0, 0}, false},                   /* time-outs */
};

static unsigned profile(const struct atapi *a)
{
    if (!atapi_has_medium(a))
        return 0;
    return atapi_blocks(a) > CD_BLOCKS_MAX ? PROFILE_DVD : PROFILE_CD;
}

unsigned atapi_configuration(struct atapi *a, const uint8_t *packet, uint8_t *out, uint32_t *sense)
{
    unsigned wanted = packet[1] & 3u, from = be16_load(packet + 2), len = 8;

    if (wanted == 3) {
        *sense = SENSE_FIELD;
        return 0;
    }
    for (unsigned i = 0; i < countof(features); i++) {
        const struct feature *f = &features[i];
        bool current = (f->version & 1) != 0 || (f->medium && atapi_has_medium(a));

        if (f->code == 0x1E || f->code == 0x1F)
            current = profile(a) == (f->code == 0x1E ? PROFILE_CD : PROFILE_DVD);
        if ((wanted == 2 && f->code != from) || f->code < from || (wanted == 1 && !current))
            continue;
        be16_store(out + len, f->code);
        out[len + 2] = (uint8_t)(f->version | (current ? 1 : 0));
        out[len + 3] = f->len;
        memcpy(out + len + 4, f->data, f->len);
        if (f->code == 0) { /* which of the two profiles is current */
            out[len + 6] = profile(a) == PROFILE_DVD;
            out[len + 10] = profile(a) == PROFILE_CD;
        }
        len += 4u + f->len;
    }
    be32_store(out, len - 4);
    be16_store(out + 6, (uint16_t)profile(a));
    return len;
}

/* ---- events and states ---- */

#define CLASS_MEDIA 4u

unsigned atapi_event_status(struct atapi *a, const uint8_t *packet, uint8_t *out, uint32_t *sense)
{
    if ((packet[1] & 1) == 0) { /* only polled, nothing that would wait */
        *sense = SENSE_FIELD;
        return 0;
    }
    out[3] = 1u << CLASS_MEDIA; /* what there is */
    if ((packet[4] >> CLASS_MEDIA & 1) == 0) {
        be16_store(out, 2);
        out[2] = 0x80; /* no event of these classes */
        return 4;
    }
    be16_store(out, 6);
    out[2] = CLASS_MEDIA;
    out[4] = a->event;
    out[5] = (uint8_t)((a->open ? 1 : 0) | (atapi_has_medium(a) ? 2 : 0));
    a->event = EVENT_NONE;
    return 8;
}

unsigned atapi_disc_information(struct atapi *a, const uint8_t *packet, uint8_t *out,
                                uint32_t *sense)
{
    (void)a;
    if ((packet[1] & 7) != 0) {
        *sense = SENSE_FIELD;
        return 0;
    }
    be16_store(out, 32);
    out[2] = 0x0E; /* complete, and so is its last session */
    out[3] = out[4] = out[5] = out[6] = 1;
    out[7] = 0x20; /* for unrestricted use */
    memset(out + 16, 0xFF, 8);
    return 34;
}

unsigned atapi_track_information(struct atapi *a, const uint8_t *packet, uint8_t *out,
                                 uint32_t *sense)
{
    unsigned type = packet[1] & 3u;
    uint32_t n = be32_load(packet + 2);

    /* by address, by track, by session */
    if (type == 3 || (type == 0 ? n >= atapi_blocks(a) : n != 1)) {
        *sense = type == 0 ? SENSE_RANGE : SENSE_FIELD;
        return 0;
    }
    be16_store(out, 34);
    out[2] = out[3] = 1;
    out[5] = 0x04; /* data */
    out[6] = 0x01; /* of mode 1 */
    be32_store(out + 24, atapi_blocks(a));
    return 36;
}

unsigned atapi_mechanism(struct atapi *a, const uint8_t *packet, uint8_t *out, uint32_t *sense)
{
    (void)packet;
    (void)sense;
    out[1] = a->open ? 0x10 : 0;
    return 8;
}
