/*
 * virtio-blk: a disk. virtio 1.2, "Block Device".
 *
 * A request is a header and data to the device, data and a status byte from it, cut into
 * descriptors as the driver likes. Data goes between guest memory and the image without a copy;
 * requests end in any order. How many are out is bounded by the rings, what each may hold by
 * VIRTQ_CHAIN_MAX and BLK_PARTS_MAX.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "block/block.h"
#include "virtio/pci.h"
#include "virtio/span.h"
#include "virtio/virtio.h"

#define BLK_F_SEG_MAX (1ull << 2)
#define BLK_F_RO (1ull << 5)
#define BLK_F_BLK_SIZE (1ull << 6)
#define BLK_F_FLUSH (1ull << 9)
#define BLK_F_TOPOLOGY (1ull << 10)
#define BLK_F_CONFIG_WCE (1ull << 11)
#define BLK_F_MQ (1ull << 12)
#define BLK_F_DISCARD (1ull << 13)
#define BLK_F_WRITE_ZEROES (1ull << 14)

#define BLK_T_IN 0u
#define BLK_T_OUT 1u
#define BLK_T_FLUSH 4u
#define BLK_T_GET_ID 8u
#define BLK_T_DISCARD 11u
#define BLK_T_WRITE_ZEROES 13u
#define BLK_T_BARRIER 0x80000000u /* legacy, of a feature that is not offered; no meaning here */

#define BLK_S_OK 0u
#define BLK_S_IOERR 1u
#define BLK_S_UNSUPP 2u

/* The configuration. */
#define CFG_CAPACITY 0u /* 8, in 512 bytes */
#define CFG_SEG_MAX 12u
#define CFG_BLK_SIZE 20u
#define CFG_PHYSICAL_EXP 24u /* 1 */
#define CFG_MIN_IO_SIZE 26u  /* 2 */
#define CFG_WRITEBACK 32u    /* 1 */
#define CFG_NUM_QUEUES 34u   /* 2 */
#define CFG_MAX_DISCARD_SECTORS 36u
#define CFG_MAX_DISCARD_SEG 40u
#define CFG_DISCARD_ALIGNMENT 44u
#define CFG_MAX_ZEROES_SECTORS 48u
#define CFG_MAX_ZEROES_SEG 52u
#define CFG_ZEROES_MAY_UNMAP 56u /* 1 */
#define CFG_SIZE 60u

#define BLK_HEADER 16u /* type 32, reserved 32, sector 64 */
#define BLK_SECTOR 512u
#define BLK_ID_SIZE 20u
#define BLK_QUEUE_SIZE 256u
#define BLK_QUEUES_DEFAULT 4u /* at most; fewer with fewer vCPUs */
#define BLK_PARTS_MAX 64u     /* ranges in one discard */
#define BLK_PART_SIZE 16u     /* on the wire: sector 64, sectors 32, flags 32 */
#define BLK_PART_SECTORS (1u << 22)
#define BLK_PART_UNMAP 1u
#define BLK_DATA_MAX (1ull << 30) /* bytes of one request */

struct blk_part {
    uint64_t offset, len;
    bool punch;
};

struct blk_request {
    struct block_request io;
    struct blk *b;
    struct blk_request *next; /* on the list of unused ones */
    unsigned queue;
    struct virtq_token token;
    uint32_t type;
    uint32_t in_len; /* what the driver is told was written: all of it, with the status */
    uint8_t *status;
    uint64_t status_gpa;
    struct virtq_span data; /* of a read or a write */
    struct blk_part *parts; /* BLK_PARTS_MAX once it was needed */
    unsigned part, part_count;
};

struct blk {
    struct dev_env *env;
    struct virtio *v;
    struct block *block;
    struct block_geometry geo;
    struct blk_request *unused;
    unsigned queues;
    bool batch; /* blk_notify will look at batch_queue's interrupt itself */
    unsigned batch_queue;
    uint8_t writeback; /* the cache is the driver's to flush */
    char id[BLK_ID_SIZE];
};

/* ---- ending a request ---- */

static void blk_end(struct blk_request *r, uint8_t status)
{
    struct blk *b = r->b;

    *r->status = status;
    gmem_written(b->env->mem, r->status_gpa, 1);
    virtio_push(b->v, r->queue, &r->token, r->in_len);
    if (!b->batch || b->batch_queue != r->queue)
        virtio_flush(b->v, r->queue);
    r->next = b->unused;
    b->unused = r;
}

static void blk_next_part(struct blk_request *r)
{
    const struct blk_part *p = &r->parts[r->part++];

    r->io.offset = p->offset;
    r->io.len = p->len;
    r->io.punch = p->punch;
    block_submit(r->b->block, &r->io);
}

/* What went wrong on the host was logged by the block layer. */
static void blk_done(struct block_request *io, int rc)
{
    struct blk_request *r = (struct blk_request *)(void *)io; /* its first member */

    if (r->type == BLK_T_IN)
        virtq_span_written(&r->data, r->b->env->mem);
    if (rc == 0 && r->part < r->part_count)
        blk_next_part(r);
    else
        blk_end(r, (uint8_t)(rc == 0 ? BLK_S_OK : BLK_S_IOERR));
}

static_assert(offsetof(struct blk_request, io) == 0, "blk_done finds the request by it");

/* ---- beginning one ---- */

static struct blk_request *blk_unused(struct blk *b)
{
    struct blk_request *r = b->unused;

    if (r == NULL)
        return calloc(1, sizeof(*r));
    b->unused = r->next;
    return r;
}

/* The last byte that the device may write. c->in_len is not 0. */
static void blk_find_status(struct blk_request *r, const struct virtq_chain *c)
{
    const struct virtq_seg *s = &c->segs[c->out_count + c->in_count - 1];

    while (s->len == 0)
        s--;
    r->status = (uint8_t *)s->hva + s->len - 1;
    r->status_gpa = s->gpa + s->len - 1;
}

/* Where in bytes. False, and a line in the log, if that is not whole blocks of the disk. */
static bool blk_range(struct blk *b, uint64_t sector, uint64_t len, uint64_t *offset)
{
    uint64_t end;

    if (len > BLK_DATA_MAX) {
        log_guest(b->env, "a request of %llu bytes, at most %llu are taken",
                  (unsigned long long)len, BLK_DATA_MAX);
        return false;
    }
    if (__builtin_mul_overflow(sector, (uint64_t)BLK_SECTOR, offset) ||
        __builtin_add_overflow(*offset, len, &end) || end > b->geo.size) {
        log_guest(b->env, "%llu bytes from sector %llu are not on the disk",
                  (unsigned long long)len, (unsigned long long)sector);
        return false;
    }
    if (*offset % b->geo.sector != 0 || len % b->geo.sector != 0) {
        log_guest(b->env, "%llu bytes from sector %llu are not whole blocks of %u",
                  (unsigned long long)len, (unsigned long long)sector, b->geo.sector);
        return false;
    }
    return true;
}

static void blk_read_write(struct blk_request *r, const struct virtq_chain *c, uint64_t sector)
{
    struct blk *b = r->b;
    bool write = r->type == BLK_T_OUT;
    uint64_t len = write ? c->out_len - BLK_HEADER : c->in_len - 1;
    unsigned n = write ? c->out_count : c->in_count;

    if (write && b->geo.read_only) {
        log_guest(b->env, "write to a read-only disk");
        blk_end(r, BLK_S_IOERR);
        return;
    }
    if (!blk_range(b, sector, len, &r->io.offset) ||
        !virtq_span_set(&r->data, write ? c->segs : c->segs + c->out_count, n,
                        write ? BLK_HEADER : 0, len)) {
        blk_end(r, BLK_S_IOERR);
        return;
    }
    if (len == 0) {
        blk_end(r, BLK_S_OK);
        return;
    }
    r->io.iov = r->data.iov;
    r->io.iov_count = r->data.count;
    r->io.op = write ? BLOCK_WRITE : BLOCK_READ;
    r->io.fua = write && !b->writeback;
    r->io.len = len;
    block_submit(b->block, &r->io);
}

static void blk_get_id(struct blk_request *r, const struct virtq_chain *c)
{
    struct blk *b = r->b;
    size_t len = (size_t)min_u64(c->in_len - 1, BLK_ID_SIZE);

    virtq_copy_in(virtio_queue(b->v, r->queue), c, 0, b->id, len);
    blk_end(r, BLK_S_OK);
}

/* One range of a discard or a write of zeros; the status. */
static uint8_t blk_part(struct blk_request *r, const uint8_t *raw, struct blk_part *p)
{
    uint64_t sector = le64_load(raw);
    uint32_t sectors = le32_load(raw + 8), flags = le32_load(raw + 12);

    if ((flags & ~BLK_PART_UNMAP) != 0 || (r->type == BLK_T_DISCARD && flags != 0))
        return BLK_S_UNSUPP;
    if (sectors > BLK_PART_SECTORS) {
        log_guest(r->b->env, "a range of %u sectors, at most %u are allowed", sectors,
                  BLK_PART_SECTORS);
        return BLK_S_IOERR;
    }
    p->len = (uint64_t)sectors * BLK_SECTOR;
    p->punch = (flags & BLK_PART_UNMAP) != 0;
    return (uint8_t)(blk_range(r->b, sector, p->len, &p->offset) ? BLK_S_OK : BLK_S_IOERR);
}

/* The ranges into r->parts: all are judged before the first is carried out. */
static uint8_t blk_parts(struct blk_request *r, const struct virtq_chain *c)
{
    uint64_t len = c->out_len - BLK_HEADER;
    uint8_t raw[BLK_PART_SIZE], status;

    r->part = r->part_count = 0;
    if (len == 0 || len % BLK_PART_SIZE != 0 || len / BLK_PART_SIZE > BLK_PARTS_MAX) {
        log_guest(r->b->env, "ranges of %llu bytes, must be 1 to %u of %u", (unsigned long long)len,
                  BLK_PARTS_MAX, BLK_PART_SIZE);
        return BLK_S_IOERR;
    }
    if (r->parts == NULL)
        r->parts = calloc(BLK_PARTS_MAX, sizeof(*r->parts));
    if (r->parts == NULL)
        return BLK_S_IOERR;
    for (uint64_t at = 0; at < len; at += BLK_PART_SIZE) {
        virtq_copy_out(c, BLK_HEADER + at, raw, sizeof(raw));
        status = blk_part(r, raw, &r->parts[r->part_count]);
        if (status != BLK_S_OK)
            return status;
        if (r->parts[r->part_count].len != 0)
            r->part_count++;
    }
    return BLK_S_OK;
}

static void blk_discard_or_zero(struct blk_request *r, const struct virtq_chain *c)
{
    struct blk *b = r->b;
    bool discard = r->type == BLK_T_DISCARD;
    uint8_t status;

    if ((virtio_features(b->v) & (discard ? BLK_F_DISCARD : BLK_F_WRITE_ZEROES)) == 0) {
        blk_end(r, BLK_S_UNSUPP);
        return;
    }
    status = b->geo.read_only ? BLK_S_IOERR : blk_parts(r, c);
    if (status != BLK_S_OK || r->part_count == 0) {
        blk_end(r, status);
        return;
    }
    r->io.op = discard ? BLOCK_DISCARD : BLOCK_ZERO;
    r->io.fua = !discard && !b->writeback;
    blk_next_part(r);
}

static void blk_begin(struct blk_request *r, const struct virtq_chain *c)
{
    uint8_t header[BLK_HEADER];

    virtq_copy_out(c, 0, header, sizeof(header));
    r->type = le32_load(header) & ~BLK_T_BARRIER;
    switch (r->type) {
    case BLK_T_IN:
    case BLK_T_OUT:
        blk_read_write(r, c, le64_load(header + 8));
        break;
    case BLK_T_FLUSH:
        r->io.op = BLOCK_FLUSH;
        block_submit(r->b->block, &r->io);
        break;
    case BLK_T_GET_ID:
        blk_get_id(r, c);
        break;
    case BLK_T_DISCARD:
    case BLK_T_WRITE_ZEROES:
        blk_discard_or_zero(r, c);
        break;
    default:
        blk_end(r, BLK_S_UNSUPP);
        break;
    }
}

/* False: no more can be taken. */
static bool blk_take(struct blk *b, unsigned queue, const struct virtq_chain *c)
{
    struct blk_request *r;

    if (c->out_len < BLK_HEADER || c->in_len < 1) {
        virtio_fail(b->v, "a disk request has no room for its header or its status");
        return false;
    }
    r = blk_unused(b);
    if (r == NULL) {
        virtq_unpop(virtio_queue(b->v, queue), &c->token);
        log_error(b->env->log, "%s: no memory for a request; it waits", b->env->name);
        return false;
    }
    r->io = (struct block_request){.done = blk_done};
    r->b = b;
    r->queue = queue;
    r->token = c->token;
    r->in_len = (uint32_t)min_u64(c->in_len, UINT32_MAX);
    r->part = r->part_count = 0;
    r->data.count = 0;
    blk_find_status(r, c);
    blk_begin(r, c);
    return true;
}

static void blk_notify(void *dev, unsigned queue)
{
    struct blk *b = dev;
    struct virtq_chain c;

    b->batch = true;
    b->batch_queue = queue;
    block_plug(b->block);
    while (virtio_pop(b->v, queue, &c) && blk_take(b, queue, &c))
        ;
    block_unplug(b->block);
    b->batch = false;
    virtio_flush(b->v, queue);
}

/* ---- configuration ---- */

static void blk_cfg(const struct blk *b, uint8_t cfg[CFG_SIZE])
{
    unsigned ratio = b->geo.physical / b->geo.sector;
    unsigned segs = virtio_queue(b->v, 0)->max;

    memset(cfg, 0, CFG_SIZE);
    le64_store(cfg + CFG_CAPACITY, b->geo.size / BLK_SECTOR);
    /* A request's header and status take two places, and it may not be longer than the ring. */
    le32_store(cfg + CFG_SEG_MAX, segs > 3 ? segs - 2 : 1);
    le32_store(cfg + CFG_BLK_SIZE, b->geo.sector);
    cfg[CFG_PHYSICAL_EXP] = (uint8_t)__builtin_ctz(ratio);
    le16_store(cfg + CFG_MIN_IO_SIZE, (uint16_t)ratio);
    cfg[CFG_WRITEBACK] = b->writeback;
    le16_store(cfg + CFG_NUM_QUEUES, (uint16_t)b->queues);
    le32_store(cfg + CFG_MAX_DISCARD_SECTORS, BLK_PART_SECTORS);
    le32_store(cfg + CFG_MAX_DISCARD_SEG, BLK_PARTS_MAX);
    le32_store(cfg + CFG_DISCARD_ALIGNMENT, b->geo.physical / BLK_SECTOR);
    le32_store(cfg + CFG_MAX_ZEROES_SECTORS, BLK_PART_SECTORS);
    le32_store(cfg + CFG_MAX_ZEROES_SEG, BLK_PARTS_MAX);
    cfg[CFG_ZEROES_MAY_UNMAP] = 1;
}

static uint8_t blk_cfg_read(void *dev, unsigned offset)
{
    uint8_t cfg[CFG_SIZE];

    blk_cfg(dev, cfg);
    return cfg[offset];
}

static void blk_flushed(struct block_request *io, int rc)
{
    (void)io;
    (void)rc; /* logged; there is nobody to tell */
}

static void blk_cfg_write(void *dev, unsigned offset, unsigned size, uint32_t value)
{
    struct blk *b = dev;

    if (offset != CFG_WRITEBACK || size != 1 || value > 1 ||
        (virtio_features(b->v) & BLK_F_CONFIG_WCE) == 0) {
        log_guest(b->env, "write of %#x to read-only configuration at +%#x", value, offset);
        return;
    }
    if (b->writeback && value == 0) {
        /* From now on what is done is stable, so what was done before must be, too. */
        struct block_request flush = {.op = BLOCK_FLUSH, .done = blk_flushed};

        block_submit(b->block, &flush);
        block_drain(b->block);
    }
    b->writeback = (uint8_t)value;
}

/* A driver that cannot flush gets a disk whose writes are stable when they are done. */
static void blk_negotiated(void *dev, uint64_t features)
{
    struct blk *b = dev;

    b->writeback = (features & BLK_F_FLUSH) != 0;
}

static void blk_changed(void *ctx)
{
    struct blk *b = ctx;

    block_geometry(b->block, &b->geo);
    virtio_config_changed(b->v);
}

/* ---- the device ---- */

static void blk_drain(void *dev)
{
    struct blk *b = dev;

    block_drain(b->block);
}

static void blk_refresh(void *dev)
{
    struct blk *b = dev;

    block_refresh(b->block);
}

static void blk_reset(void *dev)
{
    struct blk *b = dev;

    block_drain(b->block);
    b->writeback = 0;
}

static void blk_queue_reset(void *dev, unsigned queue)
{
    (void)queue; /* the others' requests are done a little earlier than they would be */
    blk_drain(dev);
}

static void blk_destroy(void *dev)
{
    struct blk *b = dev;

    block_close(b->block); /* `done` of what is under way puts it on the list below */
    while (b->unused != NULL) {
        struct blk_request *r = b->unused;

        b->unused = r->next;
        virtq_span_free(&r->data);
        free(r->parts);
        free(r);
    }
    free(b);
}

static int blk_identify(struct blk *b, const struct options *opts, struct error *err)
{
    const char *serial = opt_string(opts, "ser", b->geo.serial);
    size_t len = strlen(serial);

    if (len > BLK_ID_SIZE && serial != b->geo.serial)
        return error_set(err, -EINVAL, "ser=%s: a serial number has at most %u characters", serial,
                         BLK_ID_SIZE);
    memcpy(b->id, serial, len < BLK_ID_SIZE ? len : BLK_ID_SIZE);
    return 0;
}

static void blk_offer(struct blk *b)
{
    uint64_t features = BLK_F_SEG_MAX | BLK_F_BLK_SIZE | BLK_F_TOPOLOGY;

    if (b->geo.read_only)
        features |= BLK_F_RO;
    else
        features |= BLK_F_FLUSH | BLK_F_CONFIG_WCE | BLK_F_WRITE_ZEROES;
    if (b->geo.discard && !b->geo.read_only)
        features |= BLK_F_DISCARD;
    if (b->queues > 1)
        features |= BLK_F_MQ;
    virtio_add_features(b->v, features);
}

static int blk_type_create(struct virtio *v, struct dev_env *env, const struct options *opts,
                           void **out, struct error *err)
{
    static const struct block_events events = {.changed = blk_changed};
    unsigned cpus = env->cpus != 0 ? env->cpus : 1;
    uint64_t queues =
        opt_u64(opts, "queues", cpus < BLK_QUEUES_DEFAULT ? cpus : BLK_QUEUES_DEFAULT);
    struct blk *b = calloc(1, sizeof(*b));
    int rc;

    if (b == NULL)
        return error_set(err, -ENOMEM, "no memory for virtio-blk");
    *out = b; /* the transport destroys it if this fails */
    b->env = env;
    b->v = v;
    b->queues = (unsigned)queues;
    if (queues == 0 || queues > VIRTIO_QUEUES_MAX)
        return error_set(err, -EINVAL, "queues=%llu: must be 1 to %u", (unsigned long long)queues,
                         VIRTIO_QUEUES_MAX);
    rc = virtio_set_queues(v, b->queues, err);
    if (rc == 0)
        rc = block_open(env, opts, false, &events, b, &b->block, err);
    if (rc != 0)
        return rc;
    block_geometry(b->block, &b->geo);
    blk_offer(b);
    return blk_identify(b, opts, err);
}

static const struct state_field blk_state[] = {
    STATE_FIELD(1, struct blk, writeback),
};

static const struct virtio_ops blk_ops = {
    .id = 2,
    .pci_id = 0x1001,
    .class_code = 0x018000, /* mass storage, other */
    .queues = 1,
    .queue_size = BLK_QUEUE_SIZE,
    .cfg_len = CFG_SIZE,
    .state = blk_state,
    .state_count = countof(blk_state),
    .create = blk_type_create,
    .destroy = blk_destroy,
    .reset = blk_reset,
    .quiesce = blk_drain,
    .refresh = blk_refresh,
    .negotiated = blk_negotiated,
    .cfg_read = blk_cfg_read,
    .cfg_write = blk_cfg_write,
    .notify = blk_notify,
    .queue_reset = blk_queue_reset,
};

static int blk_create(struct dev_env *env, struct pci_func *f, const struct options *opts,
                      void **out, struct error *err)
{
    return virtio_pci_create(env, f, opts, &blk_ops, out, err);
}

static const struct dev_option blk_options[] = {
    BLOCK_OPTIONS,
    {.name = "ser",
     .type = OPT_STRING,
     .value_name = "TEXT",
     .help = "serial number, at most 20 characters"},
    {.name = "queues",
     .type = OPT_U64,
     .value_name = "N",
     .help = "request queues (default: one for each vCPU, at most 4)"},
    VIRTIO_PCI_OPTIONS,
};

const struct pci_ops virtio_blk_ops = {
    .name = "virtio-blk",
    .summary = "a disk",
    .options = blk_options,
    .option_count = countof(blk_options),
    .create = blk_create,
    VIRTIO_PCI_OPS,
};
