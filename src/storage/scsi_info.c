/* Commands that describe the disk. SPC-4 and SBC-3. */
#include <string.h>

#include "base/endian.h"
#include "storage/scsi_impl.h"

#define VPD_SUPPORTED 0x00u
#define VPD_SERIAL 0x80u
#define VPD_IDENTIFICATION 0x83u
#define VPD_LIMITS 0xB0u
#define VPD_CHARACTERISTICS 0xB1u
#define VPD_PROVISIONING 0xB2u

#define VENDOR "XHYVE   "
#define PRODUCT "DISK            "
#define REVISION "0001"

#define MODE_CACHING 0x08u
#define MODE_CONTROL 0x0Au
#define MODE_ALL 0x3Fu

/* ---- INQUIRY ---- */

static size_t vpd_limits(const struct scsi_unit *u, uint8_t *p)
{
    uint32_t blocks = (uint32_t)(SCSI_RANGE_MAX / u->geo.sector);

    p[4] = 1; /* WSNZ: WRITE SAME of 0 blocks is not "to the end" */
    be32_store(p + 8, (uint32_t)(SCSI_TRANSFER_MAX / u->geo.sector));
    if (u->geo.discard && !u->geo.read_only) {
        be32_store(p + 20, blocks);
        be32_store(p + 24, SCSI_RANGES_MAX);
        be32_store(p + 28, u->geo.physical / u->geo.sector);
    }
    be64_store(p + 36, blocks);
    return 64;
}

/* A designator: the vendor, and a serial number that tells its disks apart. */
static size_t vpd_identification(const struct scsi_unit *u, uint8_t *p)
{
    size_t len = strlen(u->serial);

    p[4] = 0x02; /* ASCII */
    p[5] = 0x01; /* of the unit, T10 vendor ID */
    p[7] = (uint8_t)(8 + len);
    memcpy(p + 8, VENDOR, 8);
    memcpy(p + 16, u->serial, len);
    return 16 + len;
}

/* The page into p, which is zero and has room for 128 bytes; its length, 0: there is none. */
static size_t vpd(const struct scsi_unit *u, uint8_t page, uint8_t *p)
{
    static const uint8_t pages[] = {VPD_SUPPORTED, VPD_SERIAL,          VPD_IDENTIFICATION,
                                    VPD_LIMITS,    VPD_CHARACTERISTICS, VPD_PROVISIONING};
    size_t len;

    switch (page) {
    case VPD_SUPPORTED:
        memcpy(p + 4, pages, sizeof(pages));
        len = 4 + sizeof(pages);
        break;
    case VPD_SERIAL:
        len = strlen(u->serial);
        memcpy(p + 4, u->serial, len);
        len += 4;
        break;
    case VPD_IDENTIFICATION:
        len = vpd_identification(u, p);
        break;
    case VPD_LIMITS:
        len = vpd_limits(u, p);
        break;
    case VPD_CHARACTERISTICS:
        be16_store(p + 4, 1); /* it does not rotate */
        len = 64;
        break;
    case VPD_PROVISIONING:
        if (u->geo.discard && !u->geo.read_only) {
            p[5] = 0x80; /* by UNMAP */
            p[6] = 2;    /* thin */
        }
        if (!u->geo.read_only)
            p[5] |= 0x60; /* by WRITE SAME (16) and (10) */
        len = 8;
        break;
    default:
        return 0;
    }
    p[1] = page;
    be16_store(p + 2, (uint16_t)(len - 4));
    return len;
}

void scsi_inquiry(struct scsi_command *c)
{
    uint8_t data[128] = {0};
    uint16_t allocation = be16_load(c->cdb + 3);
    size_t len = 36;

    if ((c->cdb[1] & 1) != 0) {
        len = vpd(c->unit, c->cdb[2], data);
        if (len == 0)
            scsi_check(c, SENSE_INVALID_FIELD);
        else
            scsi_reply(c, data, len, allocation);
        return;
    }
    if (c->cdb[2] != 0 || c->cdb[1] != 0) {
        scsi_check(c, SENSE_INVALID_FIELD);
        return;
    }
    data[2] = 0x06; /* SPC-4 */
    data[3] = 0x12; /* hierarchical numbers of units; the format of this data */
    data[4] = (uint8_t)(len - 5);
    data[7] = 0x02; /* takes many commands at once */
    memcpy(data + 8, VENDOR, 8);
    memcpy(data + 16, PRODUCT, 16);
    memcpy(data + 32, REVISION, 4);
    scsi_reply(c, data, len, allocation);
}

void scsi_inquiry_nowhere(struct scsi_command *c)
{
    uint8_t data[36] = {0x7F, 0, 0x06, 0x12, 31}; /* no unit can be here */

    if ((c->cdb[1] & 1) != 0)
        scsi_check(c, SENSE_NO_UNIT);
    else
        scsi_reply(c, data, sizeof(data), be16_load(c->cdb + 3));
}

/* Unit 0 and no other. */
void scsi_report_luns(struct scsi_command *c)
{
    uint8_t data[16] = {0};
    uint8_t select = c->cdb[2];

    if (select > 2) {
        scsi_check(c, SENSE_INVALID_FIELD);
        return;
    }
    be32_store(data, select == 1 ? 0 : 8); /* 1: well-known ones only */
    scsi_reply(c, data, select == 1 ? 8 : 16, be32_load(c->cdb + 6));
}

/* ---- MODE SENSE ---- */

/* The pages into p; how long they are. changeable: which bits could be changed (none). */
static size_t mode_pages(const struct scsi_unit *u, uint8_t page, bool changeable, uint8_t *p)
{
    size_t len = 0;

    if (page == MODE_CACHING || page == MODE_ALL) {
        p[0] = MODE_CACHING;
        p[1] = 18;
        if (!changeable && !u->geo.read_only)
            p[2] = 0x04; /* WCE: what was written is stable after SYNCHRONIZE CACHE */
        len += 20;
    }
    if (page == MODE_CONTROL || page == MODE_ALL) {
        p[len] = MODE_CONTROL;
        p[len + 1] = 10;
        if (!changeable)
            p[len + 3] = 0x10; /* commands may be reordered */
        len += 12;
    }
    return len;
}

static size_t block_descriptor(const struct scsi_unit *u, uint8_t *p)
{
    uint64_t blocks = u->geo.size / u->geo.sector;

    be32_store(p, blocks > UINT32_MAX ? UINT32_MAX : (uint32_t)blocks);
    be32_store(p + 4, u->geo.sector); /* three bytes, and a reserved one before */
    return 8;
}

void scsi_mode_sense(struct scsi_command *c)
{
    const struct scsi_unit *u = c->unit;
    bool ten = c->cdb[0] == 0x5A;
    uint8_t data[64] = {0};
    size_t head = ten ? 8 : 4, len = head, pages;
    uint8_t control = c->cdb[2] >> 6;

    if (control == 3) {
        scsi_check(c, SENSE_NO_SAVED);
        return;
    }
    if ((c->cdb[1] & 0x08) == 0) /* DBD */
        len += block_descriptor(u, data + len);
    pages = mode_pages(u, c->cdb[2] & 0x3F, control == 1, data + len);
    if (pages == 0 || (c->cdb[3] != 0 && c->cdb[3] != 0xFF)) {
        scsi_check(c, SENSE_INVALID_FIELD);
        return;
    }
    if (ten) {
        be16_store(data + 6, (uint16_t)(len - head));
        data[3] = u->geo.read_only ? 0x90 : 0x10; /* write-protected; DPO and FUA are known */
    } else {
        data[3] = (uint8_t)(len - head);
        data[2] = u->geo.read_only ? 0x90 : 0x10;
    }
    len += pages;
    if (ten)
        be16_store(data, (uint16_t)(len - 2));
    else
        data[0] = (uint8_t)(len - 1);
    scsi_reply(c, data, len, ten ? be16_load(c->cdb + 7) : c->cdb[4]);
}

/* ---- READ CAPACITY ---- */

static uint64_t last_block(const struct scsi_unit *u)
{
    uint64_t blocks = u->geo.size / u->geo.sector;

    return blocks != 0 ? blocks - 1 : 0;
}

void scsi_read_capacity_10(struct scsi_command *c)
{
    uint64_t last = last_block(c->unit);
    uint8_t data[8];

    be32_store(data, last > UINT32_MAX ? UINT32_MAX : (uint32_t)last); /* the latter: ask (16) */
    be32_store(data + 4, c->unit->geo.sector);
    scsi_reply(c, data, sizeof(data), sizeof(data));
}

void scsi_read_capacity_16(struct scsi_command *c)
{
    const struct scsi_unit *u = c->unit;
    uint8_t data[32] = {0};

    be64_store(data, last_block(u));
    be32_store(data + 8, u->geo.sector);
    data[13] = (uint8_t)__builtin_ctz(u->geo.physical / u->geo.sector);
    if (u->geo.discard && !u->geo.read_only)
        data[14] = 0x80; /* blocks can be given up; they read as anything then */
    scsi_reply(c, data, sizeof(data), be32_load(c->cdb + 10));
}
