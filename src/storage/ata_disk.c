/*
 * An ATA disk: ATA8-ACS with 48 bits, native command queuing (SATA 3.0), TRIM, logs.
 *
 * Queued commands are block requests side by side, and end in whatever order the host has them
 * done. After one has failed the others are void and the disk refuses everything until the guest
 * has read which one it was (log 0x10) or resets it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "storage/ata.h"

#define LOG_SECTOR 512u
#define LOG_DIRECTORY 0x00u
#define LOG_NCQ_ERROR 0x10u
#define LOG_NOT_QUEUED 0x80u /* in the log's first byte: the command that failed was not queued */

#define TRIM_BLOCKS 8u /* of 512 bytes, 64 ranges each, in one command */
#define TRIM_MAX (TRIM_BLOCKS * 64u)
#define VERIFY_PIECE (256 * KIB)

#define HEADS 16u
#define SECTORS 63u

struct disk {
    struct ata_device d; /* first */
    bool write_cache, look_ahead;
    uint8_t multiple; /* sectors in a block of READ MULTIPLE, 0: not set */
    uint8_t queued;   /* commands under way that are queued ones */
    bool ncq_failed;
    uint8_t ncq_log[16]; /* the first bytes of log 0x10, the rest is zero */
};

struct range {
    uint64_t offset, len;
};

enum { EXT = 1, WRITE = 2, FUA = 4, PIO = 8, MULTIPLE = 16, QUEUED = 32 };

struct opcode {
    uint8_t code, flags;
    void (*run)(struct disk *k, struct ata_command *c, const struct opcode *o);
};

static struct disk *disk_of(struct ata_device *d)
{
    return container_of(d, struct disk, d);
}

/* ---- ends and addresses ---- */

static void ncq_log(struct disk *k, const struct ata_command *c)
{
    uint8_t *log = k->ncq_log;

    log[0] = c->queued ? (uint8_t)c->tag : LOG_NOT_QUEUED;
    log[1] = 0;
    log[2] = c->out.status;
    log[3] = c->out.error;
    for (unsigned i = 0; i < 3; i++) {
        log[4 + i] = (uint8_t)(c->out.lba >> 8 * i);
        log[8 + i] = (uint8_t)(c->out.lba >> (24 + 8 * i));
    }
    log[7] = c->out.device;
    log[11] = 0;
    le16_store(log + 12, c->out.count);
    k->ncq_failed = true;
}

/* error 0: well. lba: where it went wrong. */
static void finish(struct disk *k, struct ata_command *c, uint8_t error, uint64_t lba)
{
    if (error == 0) {
        ata_ok(c);
        return;
    }
    c->out.lba = lba;
    c->out.status = ATA_READY | ATA_ERR;
    c->out.error = error;
    if (c->queued && !k->ncq_failed && !c->aborted)
        ncq_log(k, c);
    ata_end(c);
}

/* The bytes that a command is about. False: it has been ended, they are not all on the disk. */
static bool place(struct disk *k, struct ata_command *c, unsigned flags, struct range *out)
{
    uint64_t lba = c->in.lba, count = c->in.count, sectors = k->d.geo.size / k->d.geo.sector;

    if ((flags & QUEUED) != 0) {
        count = c->in.feature != 0 ? c->in.feature : 0x10000;
    } else if ((flags & EXT) != 0) {
        count = count != 0 ? count : 0x10000;
    } else {
        count = (count & 0xFF) != 0 ? count & 0xFF : 0x100;
        lba = (lba & 0xFFFFFF) | (uint64_t)(c->in.device & 0x0F) << 24;
    }
    if ((c->in.device & ATA_DEVICE_LBA) == 0) {
        /* cylinder, head and sector, as IDENTIFY describes them; sectors count from one */
        unsigned sector = (unsigned)(lba & 0xFF);

        if ((flags & (EXT | QUEUED)) != 0 || sector == 0 || sector > SECTORS) {
            finish(k, c, (flags & (EXT | QUEUED)) != 0 ? ATA_ABRT : ATA_IDNF, c->in.lba);
            return false;
        }
        lba = ((lba >> 8 & 0xFFFF) * HEADS + (c->in.device & 0x0Fu)) * SECTORS + sector - 1;
    }
    if (lba >= sectors || sectors - lba < count) {
        finish(k, c, ATA_IDNF, lba < sectors ? sectors : lba);
        return false;
    }
    out->offset = lba * k->d.geo.sector;
    out->len = count * k->d.geo.sector;
    return true;
}

/* ---- reads and writes ---- */

static void moved(struct block_request *r, int rc)
{
    struct ata_command *c = ata_of(r);
    struct disk *k = disk_of(c->dev);
    uint64_t lba = r->offset / k->d.geo.sector;

    if (c->queued)
        k->queued--;
    if (rc == 0) {
        c->len = r->len;
        finish(k, c, 0, 0);
    } else if (rc == -EINVAL) { /* the disk has become smaller meanwhile */
        finish(k, c, ATA_IDNF, lba);
    } else if (r->op == BLOCK_READ) {
        finish(k, c, ATA_UNC, lba);
    } else {
        finish(k, c, ATA_ABRT, lba);
    }
}

static void read_write(struct disk *k, struct ata_command *c, const struct opcode *o)
{
    bool write = (o->flags & WRITE) != 0, fua = (o->flags & FUA) != 0;
    struct block_request *r;
    struct range at;

    if ((o->flags & PIO) != 0)
        c->protocol = write ? ATA_PIO_OUT : ATA_PIO_IN;
    else
        c->protocol = write ? ATA_DMA_OUT : ATA_DMA_IN;
    if ((o->flags & MULTIPLE) != 0 && k->multiple == 0) {
        ata_fail(c, ATA_ABRT);
        return;
    }
    if ((o->flags & QUEUED) != 0) {
        /* The tag stands in the upper five bits of the count. */
        if ((c->in.count >> 3 & 0x1F) != c->tag) {
            log_guest(k->d.env, "queued command with tag %u in slot %u", c->in.count >> 3 & 0x1Fu,
                      c->tag);
            finish(k, c, ATA_ABRT, c->in.lba);
            return;
        }
        fua = write && (c->in.device & ATA_DEVICE_FUA) != 0;
    }
    if (!place(k, c, o->flags, &at) || !k->d.host->map(c, at.len))
        return;
    if (c->queued)
        k->queued++;
    r = ata_request(c, write ? BLOCK_WRITE : BLOCK_READ, at.offset, at.len, moved);
    r->fua = write && (fua || !k->write_cache);
    r->iov = c->iov;
    r->iov_count = c->iov_count;
    block_submit(k->d.block, r);
}

/* READ VERIFY: the medium is read, and what comes is thrown away. */
static void verify(struct disk *k, struct ata_command *c, const struct opcode *o)
{
    struct block_request *r;
    struct range at;
    unsigned pieces;
    struct iovec *iov;
    uint8_t *scrap;

    if (!place(k, c, o->flags, &at))
        return;
    pieces = (unsigned)((at.len + VERIFY_PIECE - 1) / VERIFY_PIECE);
    c->buffer = malloc(pieces * sizeof(*iov) + VERIFY_PIECE);
    if (c->buffer == NULL) {
        ata_fail(c, ATA_ABRT);
        return;
    }
    iov = c->buffer;
    scrap = (uint8_t *)(iov + pieces);
    for (unsigned i = 0; i < pieces; i++) {
        iov[i].iov_base = scrap;
        iov[i].iov_len = (size_t)min_u64(VERIFY_PIECE, at.len - i * VERIFY_PIECE);
    }
    r = ata_request(c, BLOCK_READ, at.offset, at.len, moved);
    r->iov = iov;
    r->iov_count = pieces;
    block_submit(k->d.block, r);
}

static void flushed(struct block_request *r, int rc)
{
    finish(disk_of(ata_of(r)->dev), ata_of(r), rc != 0 ? ATA_ABRT : 0, 0);
}

static void flush(struct disk *k, struct ata_command *c, const struct opcode *o)
{
    (void)o;
    block_submit(k->d.block, ata_request(c, BLOCK_FLUSH, 0, 0, flushed));
}

/* ---- TRIM ---- */

static bool can_trim(const struct disk *k)
{
    return k->d.geo.discard && !k->d.geo.read_only;
}

static void trim_next(struct ata_command *c);

static void trimmed(struct block_request *r, int rc)
{
    struct ata_command *c = ata_of(r);
    struct disk *k = disk_of(c->dev);

    if (rc != 0 || c->aborted)
        finish(k, c, ATA_ABRT, r->offset / k->d.geo.sector);
    else
        trim_next(c);
}

/* One range after the other, as zeros: what was trimmed reads as zeros, IDENTIFY says. */
static void trim_next(struct ata_command *c)
{
    const struct range *ranges = c->buffer;
    struct block_request *r;

    if (c->at == c->ranges) {
        ata_ok(c);
        return;
    }
    r = ata_request(c, BLOCK_ZERO, ranges[c->at].offset, ranges[c->at].len, trimmed);
    r->punch = true;
    c->at++;
    block_submit(c->dev->block, r);
}

/* From the list of the guest's; neighbours become one. False: a range is not on the disk. */
static bool trim_ranges(struct disk *k, struct ata_command *c, const uint8_t *list, unsigned n,
                        struct range *out, uint64_t *bad)
{
    uint64_t sector = k->d.geo.sector, sectors = k->d.geo.size / sector;

    c->ranges = 0;
    for (unsigned i = 0; i < n; i++) {
        uint64_t entry = le64_load(list + 8 * i), lba = entry & 0xFFFFFFFFFFFF, len = entry >> 48;
        struct range *last = c->ranges != 0 ? &out[c->ranges - 1] : NULL;

        if (len == 0)
            continue;
        if (lba >= sectors || sectors - lba < len) {
            *bad = lba;
            return false;
        }
        if (last != NULL && last->offset + last->len == lba * sector)
            last->len += len * sector;
        else
            out[c->ranges++] = (struct range){lba * sector, len * sector};
    }
    return true;
}

static void trim(struct disk *k, struct ata_command *c, const struct opcode *o)
{
    unsigned blocks = c->in.count;
    uint8_t list[TRIM_BLOCKS * 512];
    uint64_t bad = 0;

    (void)o;
    c->protocol = ATA_DMA_OUT;
    if (c->in.feature != 1 || !can_trim(k) || blocks == 0 || blocks > TRIM_BLOCKS) {
        ata_fail(c, ATA_ABRT);
        return;
    }
    if (!ata_data_out(c, list, blocks * 512u))
        return;
    c->buffer = calloc(TRIM_MAX, sizeof(struct range));
    c->at = 0;
    if (c->buffer == NULL)
        finish(k, c, ATA_ABRT, 0);
    else if (!trim_ranges(k, c, list, blocks * 64, c->buffer, &bad))
        finish(k, c, ATA_IDNF, bad);
    else
        trim_next(c);
}

/* ---- about the disk ---- */

static void identify(struct disk *k, struct ata_command *c, const struct opcode *o)
{
    struct ata_identify i = {.write_cache = k->write_cache,
                             .look_ahead = k->look_ahead,
                             .multiple = k->multiple,
                             .trim_blocks = can_trim(k) ? TRIM_BLOCKS : 0};
    uint8_t words[ATA_IDENTIFY_SIZE];

    (void)o;
    c->protocol = ATA_PIO_IN;
    ata_identify(&k->d, &i, words);
    if (ata_data_in(c, words, sizeof(words)))
        ata_ok(c);
}

/* ATA has no "end of the disk" but its last address. */
static void native_max(struct disk *k, struct ata_command *c, const struct opcode *o)
{
    uint64_t sectors = k->d.geo.size / k->d.geo.sector;
    uint64_t last = sectors != 0 ? sectors - 1 : 0;

    if ((o->flags & EXT) != 0) {
        c->out.lba = last;
    } else {
        last = min_u64(last, 0x0FFFFFFF);
        c->out.lba = last & 0xFFFFFF;
        c->out.device = (uint8_t)((c->in.device & 0xF0) | last >> 24);
    }
    ata_ok(c);
}

static bool reads_ncq_log(const struct ata_command *c)
{
    return (c->in.command == 0x2F || c->in.command == 0x47) && (c->in.lba & 0xFF) == LOG_NCQ_ERROR;
}

/* READ LOG EXT: log in LBA 7:0, page in 15:8 and 39:32; count in pages. */
static void read_log(struct disk *k, struct ata_command *c, const struct opcode *o)
{
    unsigned log = (unsigned)(c->in.lba & 0xFF);
    uint8_t page[LOG_SECTOR] = {0}, sum = 0;

    c->protocol = (o->flags & PIO) != 0 ? ATA_PIO_IN : ATA_DMA_IN;
    if ((log != LOG_DIRECTORY && log != LOG_NCQ_ERROR) || c->in.count != 1 ||
        (c->in.lba & 0xFF0000FF00) != 0) {
        ata_fail(c, ATA_ABRT);
        return;
    }
    if (log == LOG_DIRECTORY) {
        page[0] = 1; /* version */
        page[2 * LOG_NCQ_ERROR] = 1;
    } else {
        memcpy(page, k->ncq_log, sizeof(k->ncq_log));
        for (unsigned i = 0; i < LOG_SECTOR - 1; i++)
            sum = (uint8_t)(sum + page[i]);
        page[LOG_SECTOR - 1] = (uint8_t)-sum;
    }
    if (!ata_data_in(c, page, sizeof(page)))
        return;
    if (log == LOG_NCQ_ERROR)
        k->ncq_failed = false;
    ata_ok(c);
}

static void set_multiple(struct disk *k, struct ata_command *c, const struct opcode *o)
{
    unsigned n = c->in.count & 0xFF;

    (void)o;
    if (n > ATA_MULTIPLE_MAX || (n & (n - 1)) != 0) {
        ata_fail(c, ATA_ABRT);
        return;
    }
    k->multiple = (uint8_t)n;
    ata_ok(c);
}

/* Without the cache a write is stable when it ends; what was written before must be, too. */
static void set_features(struct disk *k, struct ata_command *c, const struct opcode *o)
{
    switch (c->in.feature & 0xFF) {
    case 0x02:
        k->write_cache = true;
        ata_ok(c);
        break;
    case 0x82:
        k->write_cache = false;
        flush(k, c, o);
        break;
    case 0x55:
    case 0xAA:
        k->look_ahead = (c->in.feature & 0xFF) == 0xAA;
        ata_ok(c);
        break;
    default:
        ata_common(&k->d, c);
        break;
    }
}

/* ---- dispatch ---- */

static const struct opcode opcodes[] = {
    {0x06, EXT, trim},
    {0x20, PIO, read_write},
    {0x21, PIO, read_write},
    {0x24, PIO | EXT, read_write},
    {0x25, EXT, read_write},
    {0x27, EXT, native_max},
    {0x29, PIO | EXT | MULTIPLE, read_write},
    {0x2F, PIO | EXT, read_log},
    {0x30, PIO | WRITE, read_write},
    {0x31, PIO | WRITE, read_write},
    {0x34, PIO | WRITE | EXT, read_write},
    {0x35, WRITE | EXT, read_write},
    {0x39, PIO | WRITE | EXT | MULTIPLE, read_write},
    {0x3D, WRITE | EXT | FUA, read_write},
    {0x40, 0, verify},
    {0x41, 0, verify},
    {0x42, EXT, verify},
    {0x47, EXT, read_log},
    {0x60, QUEUED, read_write},
    {0x61, QUEUED | WRITE, read_write},
    {0xC4, PIO | MULTIPLE, read_write},
    {0xC5, PIO | WRITE | MULTIPLE, read_write},
    {0xC6, 0, set_multiple},
    {0xC8, 0, read_write},
    {0xC9, 0, read_write},
    {0xCA, WRITE, read_write},
    {0xCB, WRITE, read_write},
    {0xCE, PIO | WRITE | EXT | MULTIPLE | FUA, read_write},
    {0xE7, 0, flush},
    {0xEA, EXT, flush},
    {0xEC, 0, identify},
    {0xEF, 0, set_features},
    {0xF8, 0, native_max},
};

static const struct opcode *opcode_find(uint8_t code)
{
    for (unsigned i = 0; i < countof(opcodes); i++)
        if (opcodes[i].code == code)
            return &opcodes[i];
    return NULL;
}

static bool disk_queued(uint8_t command)
{
    const struct opcode *o = opcode_find(command);

    return o != NULL && (o->flags & QUEUED) != 0;
}

static void disk_execute(struct ata_device *d, struct ata_command *c)
{
    struct disk *k = disk_of(d);
    const struct opcode *o = opcode_find(c->in.command);

    c->out = c->in;
    c->protocol = ATA_NO_DATA;
    if (k->ncq_failed && !reads_ncq_log(c)) {
        finish(k, c, ATA_ABRT, c->in.lba);
        return;
    }
    if (!c->queued && k->queued != 0) {
        /* One that is not queued among queued ones: that is the end of them all. */
        log_guest(d->env, "ATA command %#x while %u queued ones are under way", c->in.command,
                  k->queued);
        c->out.status = ATA_READY | ATA_ERR;
        c->out.error = ATA_ABRT;
        ncq_log(k, c);
        ata_end(c);
        return;
    }
    if (o != NULL && (o->run == read_write || o->run == verify))
        d->power = 0xFF;
    if (o != NULL)
        o->run(k, c, o);
    else if (!ata_common(d, c))
        ata_fail(c, ATA_ABRT);
}

/* A reset by the guest leaves what SET FEATURES has set, but for the error. */
static void disk_reset(struct ata_device *d, bool power_on)
{
    struct disk *k = disk_of(d);

    k->queued = 0;
    k->ncq_failed = false;
    memset(k->ncq_log, 0, sizeof(k->ncq_log));
    d->power = 0xFF;
    if (!power_on)
        return;
    k->write_cache = k->look_ahead = true;
    k->multiple = 0;
    d->transfer = 0x46;
}

static void disk_changed(struct ata_device *d)
{
    log_info(d->env->log, "%s: the disk has %llu MiB now; the guest sees it when it asks again",
             d->env->name, (unsigned long long)(d->geo.size / MIB));
}

static const struct state_field disk_state[] = {
    STATE_FIELD(1, struct disk, write_cache), STATE_FIELD(2, struct disk, look_ahead),
    STATE_FIELD(3, struct disk, multiple),    STATE_FIELD(4, struct disk, ncq_failed),
    STATE_FIELD(5, struct disk, ncq_log),     STATE_FIELD(6, struct disk, d.power),
    STATE_FIELD(7, struct disk, d.transfer),
};

static void disk_save(struct ata_device *d, struct state_buf *out)
{
    state_save(disk_state, countof(disk_state), disk_of(d), d->env->timers, out);
}

static int disk_load(struct ata_device *d, const uint8_t *data, size_t len, size_t *pos,
                     struct error *err)
{
    struct disk *k = disk_of(d);
    int rc = state_load(disk_state, countof(disk_state), k, d->env->timers, data, len, pos, err);

    if (k->multiple > ATA_MULTIPLE_MAX || (k->multiple & (k->multiple - 1u)) != 0)
        k->multiple = 0;
    return rc;
}

static const struct ata_ops disk_ops = {
    .signature = {0x00, 0x00, 0x01, 0x01},
    .reset_status = ATA_READY,
    .queued = disk_queued,
    .execute = disk_execute,
    .reset = disk_reset,
    .changed = disk_changed,
    .save = disk_save,
    .load = disk_load,
};

int ata_disk_create(struct dev_env *env, const struct options *opts, const struct ata_host *host,
                    struct ata_device **out, struct error *err)
{
    struct disk *k = calloc(1, sizeof(*k));
    int rc;

    if (k == NULL)
        return error_set(err, -ENOMEM, "no memory for a disk");
    k->d.ops = &disk_ops;
    k->d.env = env;
    k->d.host = host;
    rc = ata_open(&k->d, opts, false, "BHYVE SATA DISK", err);
    if (rc == 0 && k->d.geo.size == 0)
        rc = error_set(err, -EINVAL, "the image is empty; a disk has at least one sector");
    if (rc != 0) {
        ata_destroy(&k->d);
        return rc;
    }
    disk_reset(&k->d, true);
    *out = &k->d;
    return 0;
}
