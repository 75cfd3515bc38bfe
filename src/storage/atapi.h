/*
 * A CD drive's insides, for atapi.c (commands, tray) and atapi_pages.c (what it tells about
 * itself). Threading as in ata.h.
 */
#ifndef STORAGE_ATAPI_H
#define STORAGE_ATAPI_H

#include "storage/ata.h"

#define ATAPI_BLOCK 2048u
#define ATAPI_PATH_MAX 1024u
#define ATAPI_PAGE_MAX 512u

/* Sense: key, additional code and its qualifier in one number. SPC. */
#define SENSE(key, asc, ascq) ((uint32_t)(key) << 16 | (asc) << 8 | (ascq))
#define SENSE_NONE 0u
#define SENSE_NO_MEDIUM SENSE(2, 0x3A, 0x01)      /* tray closed */
#define SENSE_NO_MEDIUM_OPEN SENSE(2, 0x3A, 0x02) /* tray open */
#define SENSE_READ_ERROR SENSE(3, 0x11, 0x00)     /* unrecovered */
#define SENSE_TRAY SENSE(4, 0x53, 0x00)           /* load or eject failed */
#define SENSE_OPCODE SENSE(5, 0x20, 0x00)         /* invalid command */
#define SENSE_RANGE SENSE(5, 0x21, 0x00)          /* LBA out of range */
#define SENSE_FIELD SENSE(5, 0x24, 0x00)          /* invalid field in the packet */
#define SENSE_NO_SAVED SENSE(5, 0x39, 0x00)       /* saved parameters not supported */
#define SENSE_LOCKED SENSE(5, 0x53, 0x02)         /* medium removal prevented */
#define SENSE_MODE SENSE(5, 0x64, 0x00)           /* illegal mode for this track */
#define SENSE_CHANGED SENSE(6, 0x28, 0x00)        /* medium may have changed */
#define SENSE_RESET SENSE(6, 0x29, 0x00)          /* power on or reset */

enum atapi_event { EVENT_NONE, EVENT_EJECT_REQUEST, EVENT_NEW_MEDIA, EVENT_REMOVAL };

struct atapi {
    struct ata_device d; /* first */
    bool open;           /* the tray */
    bool locked;         /* by PREVENT ALLOW MEDIUM REMOVAL */
    bool was_reset;      /* unit attentions that have not been told yet */
    bool was_changed;
    bool inserting; /* the block layer is still to tell of a change that is ours */
    uint8_t event;  /* enum atapi_event, the next answer to GET EVENT STATUS NOTIFICATION */
    uint32_t sense;
    char path[ATAPI_PATH_MAX]; /* what lies in the tray, "" for nothing */
};

static inline struct atapi *atapi_of(struct ata_device *d)
{
    return container_of(d, struct atapi, d);
}

/* 0: no disc, or one on a device whose sectors are too large to be read as blocks. */
static inline uint32_t atapi_blocks(const struct atapi *a)
{
    if (a->d.geo.sector > ATAPI_BLOCK)
        return 0;
    return (uint32_t)min_u64(a->d.geo.size / ATAPI_BLOCK, UINT32_MAX);
}

static inline bool atapi_has_medium(const struct atapi *a)
{
    return !a->open && atapi_blocks(a) != 0;
}

/*
 * Answers: fill `out` (zeroed, ATAPI_PAGE_MAX bytes) from the packet and return the length, before
 * the packet's allocation length cuts it; 0 with *sense for a refusal.
 */
typedef unsigned (*atapi_answer)(struct atapi *a, const uint8_t *packet, uint8_t *out,
                                 uint32_t *sense);
unsigned atapi_inquiry(struct atapi *a, const uint8_t *packet, uint8_t *out, uint32_t *sense);
unsigned atapi_request_sense(struct atapi *a, const uint8_t *packet, uint8_t *out, uint32_t *sense);
unsigned atapi_capacity(struct atapi *a, const uint8_t *packet, uint8_t *out, uint32_t *sense);
unsigned atapi_toc(struct atapi *a, const uint8_t *packet, uint8_t *out, uint32_t *sense);
unsigned atapi_mode_sense(struct atapi *a, const uint8_t *packet, uint8_t *out, uint32_t *sense);
unsigned atapi_configuration(struct atapi *a, const uint8_t *packet, uint8_t *out, uint32_t *sense);
unsigned atapi_event_status(struct atapi *a, const uint8_t *packet, uint8_t *out, uint32_t *sense);
unsigned atapi_disc_information(struct atapi *a, const uint8_t *packet, uint8_t *out,
                                uint32_t *sense);
unsigned atapi_track_information(struct atapi *a, const uint8_t *packet, uint8_t *out,
                                 uint32_t *sense);
unsigned atapi_mechanism(struct atapi *a, const uint8_t *packet, uint8_t *out, uint32_t *sense);

#endif
