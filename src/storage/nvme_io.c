/*
 * The NVM commands: each becomes a request to the disk; Dataset Management one for each of its
 * ranges. What is wrong with a command is found before anything is begun.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "mem/gmem.h"
#include "storage/nvme_impl.h"

#define RW_FUA (1u << 30)   /* DW12 */
#define WZ_DEAC (1u << 25)  /* DW12, Write Zeroes: deallocate */
#define DSM_DEALLOCATE 0x4u /* DW11 */
#define DSM_RANGE_SIZE 16u

static void finish(struct nvme_slot *s, uint16_t status)
{
    s->status = status;
    free(s->ranges);
    s->ranges = NULL;
    nvme_complete(s);
}

static uint16_t status_of(const struct nvme_slot *s, int rc)
{
    switch (rc) {
    case 0:
        return ST_SUCCESS;
    case -EINVAL: /* only if the disk has become smaller meanwhile */
        return ST_LBA_RANGE | ST_DNR;
    case -EROFS:
        return ST_WRITE_PROTECTED | ST_DNR;
    case -ENOSPC:
        return ST_CAPACITY_EXCEEDED;
    default:
        return s->opcode == NVM_READ ? ST_UNRECOVERED_READ : ST_WRITE_FAULT;
    }
}

static void submit(struct nvme_slot *s)
{
    struct nvme *n = s->n;

    if (n->busy_slots++ == 0)
        n->busy_since = clock_now(n->env);
    block_submit(n->block, &s->req);
}

static bool dsm_next(struct nvme_slot *s);

static void count_done(struct nvme *n, const struct nvme_slot *s)
{
    if (s->req.op == BLOCK_READ) {
        n->counters.reads++;
        n->counters.read_sectors += s->req.len / 512;
    } else if (s->req.op == BLOCK_WRITE) {
        n->counters.writes++;
        n->counters.written_sectors += s->req.len / 512;
    }
}

static void io_done(struct block_request *r, int rc)
{
    struct nvme_slot *s = container_of(r, struct nvme_slot, req);
    struct nvme *n = s->n;

    if (--n->busy_slots == 0)
        n->counters.busy_ns += clock_now(n->env) - n->busy_since;
    if (s->opcode == NVM_READ)
        nvme_map_written(n, &s->map); /* after an error, too: some of it may be there */
    if (rc == 0)
        count_done(n, s);
    else if (rc == -EIO)
        n->counters.media_errors++;
    if (rc != 0 || s->opcode != NVM_DSM || n->dropping || !dsm_next(s))
        finish(s, status_of(s, rc));
    nvme_run(n); /* does nothing inside itself; else it tells of the completion, and goes on */
}

/* slba and the number of blocks lie in the namespace. */
static bool in_range(const struct nvme *n, uint64_t slba, uint64_t blocks)
{
    return slba <= n->lba_count && blocks <= n->lba_count - slba;
}

static uint16_t check_blocks(const struct nvme *n, struct nvme_slot *s, const struct nvme_cmd *c,
                             uint64_t *blocks)
{
    s->slba = (uint64_t)c->dw11 << 32 | c->dw10;
    *blocks = (c->dw12 & 0xFFFF) + 1ull;
    return in_range(n, s->slba, *blocks) ? ST_SUCCESS : ST_LBA_RANGE | ST_DNR;
}

static void request(struct nvme_slot *s, enum block_op op, uint64_t slba, uint64_t blocks, bool fua)
{
    struct nvme *n = s->n;

    memset(&s->req, 0, sizeof(s->req));
    s->req.op = op;
    s->req.fua = fua;
    s->req.offset = slba << n->lba_shift;
    s->req.len = blocks << n->lba_shift;
    s->req.done = io_done;
}

/* Without the volatile write cache every write is stable when it is done. */
static bool wants_fua(const struct nvme *n, const struct nvme_cmd *c)
{
    return (c->dw12 & RW_FUA) != 0 || n->feat.write_cache == 0;
}

static uint16_t begin_rw(struct nvme_slot *s, const struct nvme_cmd *c)
{
    struct nvme *n = s->n;
    bool write = c->opcode == NVM_WRITE;
    uint64_t blocks;
    uint16_t st = check_blocks(n, s, c, &blocks);

    if (st != ST_SUCCESS)
        return st;
    if (blocks << n->lba_shift > NVME_TRANSFER_MAX)
        return ST_INVALID_FIELD | ST_DNR;
    if (write && n->geometry.read_only)
        return ST_WRITE_PROTECTED | ST_DNR;
    st = nvme_prp_map(n, c->prp1, c->prp2, blocks << n->lba_shift, &s->map);
    if (st != ST_SUCCESS)
        return st | ST_DNR;
    request(s, write ? BLOCK_WRITE : BLOCK_READ, s->slba, blocks, write && wants_fua(n, c));
    s->req.iov = s->map.iov;
    s->req.iov_count = s->map.count;
    submit(s);
    return ST_SUCCESS;
}

static uint16_t begin_zeroes(struct nvme_slot *s, const struct nvme_cmd *c)
{
    struct nvme *n = s->n;
    uint64_t blocks;
    uint16_t st = check_blocks(n, s, c, &blocks);

    if (st != ST_SUCCESS)
        return st;
    if (n->geometry.read_only)
        return ST_WRITE_PROTECTED | ST_DNR;
    request(s, BLOCK_ZERO, s->slba, blocks, wants_fua(n, c));
    s->req.punch = (c->dw12 & WZ_DEAC) != 0;
    submit(s);
    return ST_SUCCESS;
}

static void begin_flush(struct nvme_slot *s)
{
    request(s, BLOCK_FLUSH, 0, 0, false);
    submit(s);
}

/* ---- Dataset Management ---- */

static void dsm_range(const struct nvme_slot *s, unsigned i, uint64_t *slba, uint64_t *blocks)
{
    const uint8_t *r = s->ranges + (size_t)i * DSM_RANGE_SIZE;

    *blocks = le32_load(r + 4);
    *slba = le64_load(r + 8);
}

/* Begins the next range that is not empty; false after the last. */
static bool dsm_next(struct nvme_slot *s)
{
    while (s->range < s->range_count) {
        uint64_t slba, blocks;

        dsm_range(s, s->range++, &slba, &blocks);
        if (blocks == 0)
            continue;
        request(s, BLOCK_DISCARD, slba, blocks, false);
        submit(s);
        return true;
    }
    return false;
}

static uint16_t dsm_read(struct nvme_slot *s, const struct nvme_cmd *c)
{
    struct nvme *n = s->n;
    size_t len = (size_t)s->range_count * DSM_RANGE_SIZE;
    uint16_t st = nvme_prp_map(n, c->prp1, c->prp2, len, &s->map);
    size_t at = 0;

    if (st != ST_SUCCESS)
        return st | ST_DNR;
    s->ranges = malloc(len);
    if (s->ranges == NULL)
        return ST_INTERNAL;
    for (unsigned i = 0; i < s->map.count; i++) {
        memcpy(s->ranges + at, s->map.iov[i].iov_base, s->map.iov[i].iov_len);
        at += s->map.iov[i].iov_len;
    }
    for (unsigned i = 0; i < s->range_count; i++) {
        uint64_t slba, blocks;

        dsm_range(s, i, &slba, &blocks);
        if (!in_range(n, slba, blocks)) {
            s->slba = slba;
            return ST_LBA_RANGE | ST_DNR;
        }
    }
    return ST_SUCCESS;
}

/* True if it is done, with *st; the other attributes than deallocation are hints. */
static bool begin_dsm(struct nvme_slot *s, const struct nvme_cmd *c, uint16_t *st)
{
    struct nvme *n = s->n;

    if (!n->dsm) {
        *st = ST_INVALID_OPCODE | ST_DNR;
        return true;
    }
    s->range = 0;
    s->range_count = (c->dw10 & 0xFF) + 1;
    *st = dsm_read(s, c);
    if (*st != ST_SUCCESS)
        return true;
    if ((c->dw11 & DSM_DEALLOCATE) == 0)
        return true;
    if (n->geometry.read_only) {
        *st = ST_WRITE_PROTECTED | ST_DNR;
        return true;
    }
    /* Deallocation is a wish: a disk that cannot give space back keeps it. */
    return !n->geometry.discard || !dsm_next(s);
}

/* ---- dispatch ---- */

void nvme_io(struct nvme_slot *s, const struct nvme_cmd *c)
{
    struct nvme *n = s->n;
    uint16_t st = ST_SUCCESS;
    bool done = false;

    if ((c->flags & CMD_FUSE_PSDT) != 0) { /* fused operations and SGLs are not offered */
        st = ST_INVALID_FIELD | ST_DNR;
    } else if (c->nsid != 1 && !(c->opcode == NVM_FLUSH && c->nsid == NSID_ALL)) {
        st = ST_INVALID_NAMESPACE | ST_DNR;
    } else {
        switch (c->opcode) {
        case NVM_FLUSH:
            begin_flush(s);
            break;
        case NVM_READ:
        case NVM_WRITE:
            st = begin_rw(s, c);
            break;
        case NVM_WRITE_ZEROES:
            st = begin_zeroes(s, c);
            break;
        case NVM_DSM:
            done = begin_dsm(s, c, &st);
            break;
        default:
            st = ST_INVALID_OPCODE | ST_DNR;
            break;
        }
    }
    /* Once begun, the slot may already be another command's. */
    if (st == ST_SUCCESS && !done)
        return;
    if (st != ST_SUCCESS)
        log_guest(n->env, "queue %u: command %#x (cid %u) ends with status %#x", c->sqid, c->opcode,
                  c->cid, st & ST_CODE);
    finish(s, st);
}

/* ---- shutdown ---- */

static void shutdown_done(struct block_request *r, int rc)
{
    struct nvme *n = container_of(r, struct nvme, shutdown);

    n->shutdown_busy = false;
    if (n->dropping)
        return;
    if (rc != 0)
        log_error(n->env->log, "%s: the disk could not be flushed at the guest's shutdown",
                  n->env->name);
    n->shst = SHST_COMPLETE;
}

void nvme_shutdown_begin(struct nvme *n)
{
    if (n->shutdown_busy)
        return;
    n->shst = SHST_OCCURRING;
    n->shutdown_busy = true;
    memset(&n->shutdown, 0, sizeof(n->shutdown));
    n->shutdown.op = BLOCK_FLUSH;
    n->shutdown.done = shutdown_done;
    block_submit(n->block, &n->shutdown);
}
