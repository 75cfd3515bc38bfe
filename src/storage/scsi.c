#include "storage/scsi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "storage/scsi_impl.h"

/* Operation codes. */
#define TEST_UNIT_READY 0x00u
#define REQUEST_SENSE 0x03u
#define READ_6 0x08u
#define WRITE_6 0x0Au
#define INQUIRY 0x12u
#define MODE_SENSE_6 0x1Au
#define START_STOP_UNIT 0x1Bu
#define READ_CAPACITY_10 0x25u
#define READ_10 0x28u
#define WRITE_10 0x2Au
#define VERIFY_10 0x2Fu
#define SYNCHRONIZE_CACHE_10 0x35u
#define WRITE_SAME_10 0x41u
#define UNMAP 0x42u
#define MODE_SENSE_10 0x5Au
#define READ_16 0x88u
#define WRITE_16 0x8Au
#define VERIFY_16 0x8Fu
#define SYNCHRONIZE_CACHE_16 0x91u
#define WRITE_SAME_16 0x93u
#define SERVICE_ACTION_IN_16 0x9Eu
#define REPORT_LUNS 0xA0u
#define READ_12 0xA8u
#define WRITE_12 0xAAu
#define VERIFY_12 0xAFu

#define READ_CAPACITY_16 0x10u /* the service action */

#define CDB_FUA 0x08u
#define CDB_PROTECT 0xE0u
#define CDB_BYTCHK 0x06u
#define CDB_UNMAP 0x08u /* WRITE SAME */
#define CDB_NDOB 0x01u  /* WRITE SAME (16): no data, zeros */

#define PATTERN_BYTES 65536u

/* ---- ending a command ---- */

static void finish(struct scsi_command *c)
{
    free(c->ranges);
    free(c->pattern);
    c->ranges = NULL;
    c->pattern = NULL;
    c->done(c);
}

void scsi_good(struct scsi_command *c)
{
    c->status = SCSI_GOOD;
    finish(c);
}

void scsi_sense(uint8_t sense[SCSI_SENSE_LEN], uint32_t what)
{
    memset(sense, 0, SCSI_SENSE_LEN);
    sense[0] = 0x70; /* current, fixed format */
    sense[2] = (uint8_t)(what >> 16);
    sense[7] = SCSI_SENSE_LEN - 8;
    sense[12] = (uint8_t)(what >> 8);
    sense[13] = (uint8_t)what;
}

void scsi_check(struct scsi_command *c, uint32_t what)
{
    c->status = SCSI_CHECK_CONDITION;
    scsi_sense(c->sense, what);
    finish(c);
}

/* Data for the driver, as much as it has asked for and has room for. */
void scsi_reply(struct scsi_command *c, const uint8_t *data, size_t len, uint64_t allocation)
{
    size_t left = (size_t)min_u64(len, allocation);

    if (c->to_device)
        left = 0;
    for (unsigned i = 0; i < c->iov_count && left > 0; i++) {
        size_t n = left < c->iov[i].iov_len ? left : c->iov[i].iov_len;

        memcpy(c->iov[i].iov_base, data, n);
        data += n;
        left -= n;
        c->transferred += n;
    }
    scsi_good(c);
}

/* Up to len bytes of what the driver sent; how many. */
static size_t sent(const struct scsi_command *c, uint64_t offset, void *to, size_t len)
{
    size_t done = 0;

    for (unsigned i = 0; c->to_device && i < c->iov_count && done < len; i++) {
        size_t n;

        if (offset >= c->iov[i].iov_len) {
            offset -= c->iov[i].iov_len;
            continue;
        }
        n = (size_t)min_u64(c->iov[i].iov_len - offset, len - done);
        memcpy((uint8_t *)to + done, (const uint8_t *)c->iov[i].iov_base + offset, n);
        done += n;
        offset = 0;
    }
    return done;
}

/* ---- requests to the disk ---- */

static uint32_t sense_of(const struct scsi_command *c, int rc)
{
    switch (rc) {
    case -EROFS:
        return SENSE_WRITE_PROTECTED;
    case -ENOSPC:
        return SENSE_NO_SPACE;
    case -EINVAL:
        return SENSE_LBA_OUT_OF_RANGE; /* the disk has become smaller */
    default:
        return c->is_read ? SENSE_READ_ERROR : SENSE_WRITE_ERROR;
    }
}

static void next_range(struct scsi_command *c);

static void io_done(struct block_request *io, int rc)
{
    struct scsi_command *c = container_of(io, struct scsi_command, io);

    if (rc != 0) {
        c->transferred = 0;
        scsi_check(c, sense_of(c, rc));
    } else if (c->range < c->range_count) {
        next_range(c);
    } else {
        scsi_good(c);
    }
}

static void submit(struct scsi_command *c, enum block_op op)
{
    c->io.op = op;
    c->io.done = io_done;
    block_submit(c->unit->block, &c->io);
}

/* A part of the first range that is left; with a pattern, as much as that is long. */
static void next_range(struct scsi_command *c)
{
    struct scsi_range *r = &c->ranges[c->range];

    c->io.offset = r->offset;
    c->io.len = r->len;
    if (c->pattern != NULL && r->len > PATTERN_BYTES)
        c->io.len = PATTERN_BYTES;
    r->offset += c->io.len;
    r->len -= c->io.len;
    if (r->len == 0)
        c->range++;
    if (c->pattern != NULL) {
        c->pattern_iov.iov_len = (size_t)c->io.len;
        c->io.iov = &c->pattern_iov;
        c->io.iov_count = 1;
    }
    submit(c, c->io.op);
}

/* In bytes; false: it is not on the disk. */
static bool range(const struct scsi_unit *u, uint64_t lba, uint64_t blocks, struct scsi_range *r)
{
    uint64_t count = u->geo.size / u->geo.sector;

    if (lba > count || blocks > count - lba)
        return false;
    r->offset = lba * u->geo.sector;
    r->len = blocks * u->geo.sector;
    return true;
}

/* Where an address and a length are in commands of 6, 10, 12 and 16 bytes. */
static void address(const uint8_t *cdb, uint64_t *lba, uint64_t *blocks)
{
    switch (cdb[0] >> 5) {
    case 0:
        *lba = (uint32_t)(cdb[1] & 0x1F) << 16 | (uint32_t)cdb[2] << 8 | cdb[3];
        *blocks = cdb[4] != 0 ? cdb[4] : 256;
        break;
    case 4:
        *lba = be64_load(cdb + 2);
        *blocks = be32_load(cdb + 10);
        break;
    case 5:
        *lba = be32_load(cdb + 2);
        *blocks = be32_load(cdb + 6);
        break;
    default:
        *lba = be32_load(cdb + 2);
        *blocks = be16_load(cdb + 7);
        break;
    }
}

/* Cuts iov to the first len bytes. */
static void trim(struct scsi_command *c, uint64_t len)
{
    unsigned i = 0;

    for (; i < c->iov_count && len > 0; i++) {
        c->iov[i].iov_len = (size_t)min_u64(c->iov[i].iov_len, len);
        len -= c->iov[i].iov_len;
    }
    c->iov_count = i;
}

static void read_write(struct scsi_command *c, bool write)
{
    struct scsi_unit *u = c->unit;
    bool six = c->cdb[0] >> 5 == 0;
    struct scsi_range r;
    uint64_t lba, blocks;

    address(c->cdb, &lba, &blocks);
    if (!six && (c->cdb[1] & CDB_PROTECT) != 0) {
        scsi_check(c, SENSE_INVALID_FIELD);
        return;
    }
    if (write && u->geo.read_only) {
        scsi_check(c, SENSE_WRITE_PROTECTED);
        return;
    }
    if (!range(u, lba, blocks, &r)) {
        scsi_check(c, SENSE_LBA_OUT_OF_RANGE);
        return;
    }
    if (r.len > SCSI_TRANSFER_MAX) {
        scsi_check(c, SENSE_INVALID_FIELD);
        return;
    }
    if (r.len == 0) {
        scsi_good(c);
        return;
    }
    if (c->data_len < r.len || c->to_device != write) {
        c->overrun = true;
        scsi_good(c);
        return;
    }
    trim(c, r.len);
    c->is_read = !write;
    c->transferred = r.len;
    c->io.offset = r.offset;
    c->io.len = r.len;
    c->io.iov = c->iov;
    c->io.iov_count = c->iov_count;
    c->io.fua = write && !six && (c->cdb[1] & CDB_FUA) != 0;
    submit(c, write ? BLOCK_WRITE : BLOCK_READ);
}

static void synchronize(struct scsi_command *c)
{
    struct scsi_range r;
    uint64_t lba, blocks;

    address(c->cdb, &lba, &blocks);
    if (!range(c->unit, lba, blocks, &r)) {
        scsi_check(c, SENSE_LBA_OUT_OF_RANGE);
        return;
    }
    submit(c, BLOCK_FLUSH); /* all of it, which the range is part of */
}

/* The range is there; the medium is not read. A comparison with data is not offered. */
static void verify(struct scsi_command *c)
{
    struct scsi_range r;
    uint64_t lba, blocks;

    address(c->cdb, &lba, &blocks);
    if ((c->cdb[1] & (CDB_PROTECT | CDB_BYTCHK)) != 0)
        scsi_check(c, SENSE_INVALID_FIELD);
    else if (!range(c->unit, lba, blocks, &r))
        scsi_check(c, SENSE_LBA_OUT_OF_RANGE);
    else
        scsi_good(c);
}

static void start_stop(struct scsi_command *c)
{
    bool start = (c->cdb[4] & 1) != 0;

    if (start)
        scsi_good(c);
    else
        submit(c, BLOCK_FLUSH); /* what a disk does before it stops; it does not stop */
}

/* ---- many blocks at once ---- */

static bool room_for_ranges(struct scsi_command *c, unsigned count)
{
    c->ranges = calloc(count, sizeof(*c->ranges));
    return c->ranges != NULL;
}

/* The pattern, PATTERN_BYTES of it, from the one block that was sent; NULL: no memory. */
static bool make_pattern(struct scsi_command *c, const uint8_t *block, unsigned sector)
{
    c->pattern = malloc(PATTERN_BYTES);
    if (c->pattern == NULL)
        return false;
    for (unsigned at = 0; at < PATTERN_BYTES; at += sector)
        memcpy((uint8_t *)c->pattern + at, block, sector);
    c->pattern_iov.iov_base = c->pattern;
    return true;
}

static bool all_zero(const uint8_t *p, unsigned len)
{
    return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

static void write_same(struct scsi_command *c)
{
    struct scsi_unit *u = c->unit;
    uint8_t block[4096] = {0};
    bool ndob = c->cdb[0] == WRITE_SAME_16 && (c->cdb[1] & CDB_NDOB) != 0;
    struct scsi_range r;
    uint64_t lba, blocks;

    address(c->cdb, &lba, &blocks);
    /* Protection, the obsolete LBDATA and PBDATA, anchoring; and 0 blocks, as VPD B0h says. */
    if ((c->cdb[1] & (CDB_PROTECT | 0x16u)) != 0 || blocks == 0) {
        scsi_check(c, SENSE_INVALID_FIELD);
        return;
    }
    if (u->geo.read_only) {
        scsi_check(c, SENSE_WRITE_PROTECTED);
        return;
    }
    if (!range(u, lba, blocks, &r)) {
        scsi_check(c, SENSE_LBA_OUT_OF_RANGE);
        return;
    }
    if (r.len > SCSI_RANGE_MAX) {
        scsi_check(c, SENSE_INVALID_FIELD);
        return;
    }
    if (!ndob && sent(c, 0, block, u->geo.sector) != u->geo.sector) {
        c->overrun = true;
        scsi_good(c);
        return;
    }
    if (!room_for_ranges(c, 1) ||
        (!all_zero(block, u->geo.sector) && !make_pattern(c, block, u->geo.sector))) {
        scsi_check(c, SENSE_NO_RESOURCES);
        return;
    }
    c->transferred = ndob ? 0 : u->geo.sector;
    c->ranges[0] = r;
    c->range_count = 1;
    c->io.op = c->pattern != NULL ? BLOCK_WRITE : BLOCK_ZERO;
    c->io.punch = (c->cdb[1] & CDB_UNMAP) != 0;
    next_range(c);
}

/* The list of UNMAP: all of it is judged before the first range is given up. */
static uint32_t unmap_list(struct scsi_command *c, unsigned count)
{
    struct scsi_unit *u = c->unit;
    uint8_t raw[16];

    for (unsigned i = 0; i < count; i++) {
        struct scsi_range *r = &c->ranges[c->range_count];

        if (sent(c, 8 + 16ull * i, raw, sizeof(raw)) != sizeof(raw))
            return SENSE_LIST_LENGTH;
        if (!range(u, be64_load(raw), be32_load(raw + 8), r))
            return SENSE_LBA_OUT_OF_RANGE;
        if (r->len > SCSI_RANGE_MAX)
            return SENSE_INVALID_PARAMETER;
        if (r->len != 0)
            c->range_count++;
    }
    return 0;
}

static void unmap(struct scsi_command *c)
{
    unsigned length = be16_load(c->cdb + 7);
    uint8_t head[8];
    uint32_t sense;
    unsigned count;

    if (!c->unit->geo.discard || c->unit->geo.read_only) {
        scsi_check(c, c->unit->geo.read_only ? SENSE_WRITE_PROTECTED : SENSE_INVALID_OPCODE);
        return;
    }
    if ((c->cdb[1] & 1) != 0) { /* ANCHOR */
        scsi_check(c, SENSE_INVALID_FIELD);
        return;
    }
    if (length == 0) {
        scsi_good(c);
        return;
    }
    if (length > c->data_len) {
        c->overrun = true;
        scsi_good(c);
        return;
    }
    if (length < sizeof(head) || sent(c, 0, head, sizeof(head)) != sizeof(head)) {
        scsi_check(c, SENSE_LIST_LENGTH);
        return;
    }
    count = be16_load(head + 2) / 16u;
    if (count > SCSI_RANGES_MAX || 8 + 16 * count > length) {
        scsi_check(c, SENSE_INVALID_PARAMETER);
        return;
    }
    if (count != 0 && !room_for_ranges(c, count)) {
        scsi_check(c, SENSE_NO_RESOURCES);
        return;
    }
    sense = unmap_list(c, count);
    c->transferred = length;
    if (sense != 0) {
        scsi_check(c, sense);
    } else if (c->range_count == 0) {
        scsi_good(c);
    } else {
        c->io.op = BLOCK_DISCARD;
        next_range(c);
    }
}

/* ---- which command it is ---- */

static void request_sense(struct scsi_command *c)
{
    struct scsi_unit *u = c->unit;
    uint8_t sense[SCSI_SENSE_LEN];

    if ((c->cdb[1] & 1) != 0) { /* descriptor format */
        scsi_check(c, SENSE_INVALID_FIELD);
        return;
    }
    scsi_sense(sense, u->attention != 0 ? SENSE_UNIT_ATTENTION | u->attention : 0);
    u->attention = 0;
    scsi_reply(c, sense, sizeof(sense), c->cdb[4]);
}

static void dispatch(struct scsi_command *c)
{
    switch (c->cdb[0]) {
    case TEST_UNIT_READY:
        scsi_good(c);
        break;
    case READ_6:
    case READ_10:
    case READ_12:
    case READ_16:
        read_write(c, false);
        break;
    case WRITE_6:
    case WRITE_10:
    case WRITE_12:
    case WRITE_16:
        read_write(c, true);
        break;
    case SYNCHRONIZE_CACHE_10:
    case SYNCHRONIZE_CACHE_16:
        synchronize(c);
        break;
    case VERIFY_10:
    case VERIFY_12:
    case VERIFY_16:
        verify(c);
        break;
    case WRITE_SAME_10:
    case WRITE_SAME_16:
        write_same(c);
        break;
    case UNMAP:
        unmap(c);
        break;
    case START_STOP_UNIT:
        start_stop(c);
        break;
    case MODE_SENSE_6:
    case MODE_SENSE_10:
        scsi_mode_sense(c);
        break;
    case READ_CAPACITY_10:
        scsi_read_capacity_10(c);
        break;
    case SERVICE_ACTION_IN_16:
        if ((c->cdb[1] & 0x1F) == READ_CAPACITY_16)
            scsi_read_capacity_16(c);
        else
            scsi_check(c, SENSE_INVALID_FIELD);
        break;
    default:
        scsi_check(c, SENSE_INVALID_OPCODE);
        break;
    }
}

void scsi_execute(struct scsi_unit *u, struct scsi_command *c)
{
    uint16_t attention = u->attention;

    c->unit = u;
    switch (c->cdb[0]) { /* those that a unit attention does not hold back */
    case INQUIRY:
        scsi_inquiry(c);
        return;
    case REPORT_LUNS:
        scsi_report_luns(c);
        return;
    case REQUEST_SENSE:
        request_sense(c);
        return;
    default:
        break;
    }
    if (attention != 0) {
        u->attention = 0;
        scsi_check(c, SENSE_UNIT_ATTENTION | attention);
        return;
    }
    dispatch(c);
}

void scsi_execute_nowhere(struct scsi_command *c)
{
    uint8_t sense[SCSI_SENSE_LEN];

    switch (c->cdb[0]) {
    case INQUIRY:
        scsi_inquiry_nowhere(c);
        break;
    case REPORT_LUNS:
        scsi_report_luns(c);
        break;
    case REQUEST_SENSE:
        scsi_sense(sense, SENSE_NO_UNIT);
        scsi_reply(c, sense, sizeof(sense), c->cdb[4]);
        break;
    default:
        scsi_check(c, SENSE_NO_UNIT);
        break;
    }
}

/* ---- the unit ---- */

void scsi_unit_init(struct scsi_unit *u)
{
    block_geometry(u->block, &u->geo);
    scsi_unit_reset(u);
}

void scsi_unit_changed(struct scsi_unit *u)
{
    block_geometry(u->block, &u->geo);
    u->attention = SCSI_CAPACITY_CHANGED;
}

void scsi_unit_reset(struct scsi_unit *u)
{
    u->attention = 0x2900; /* power on, reset, or bus device reset occurred */
}
