/*
 * The controller in a snapshot: registers and features as one section, then each queue that exists,
 * then completions that wait for room. The disk is quiet when it is saved: what was under way is
 * done by then, and commands not yet fetched lie in the guest's memory. What is loaded is not
 * trusted: it is judged as the guest's own commands are.
 */
#include <errno.h>
#include <string.h>

#include "storage/nvme_impl.h"

/* What must be the same in both machines. */
struct nvme_shape {
    uint32_t io_queues, queue_size, lba_shift;
};

struct held_state {
    uint16_t more, cqid, sqid, cid, status;
};

const struct state_field nvme_state[NVME_STATE_COUNT] = {
    STATE_FIELD(1, struct nvme, cc),
    STATE_FIELD(2, struct nvme, aqa),
    STATE_FIELD(3, struct nvme, intm),
    STATE_FIELD(4, struct nvme, asq),
    STATE_FIELD(5, struct nvme, acq),
    STATE_FIELD(6, struct nvme, ready),
    STATE_FIELD(7, struct nvme, fatal),
    STATE_FIELD(8, struct nvme, shst),
    STATE_FIELD(9, struct nvme, dbbuf),
    STATE_FIELD(10, struct nvme, eventidx),
    STATE_FIELD(11, struct nvme, dbbuf_on),
    STATE_FIELD(12, struct nvme, feat.arbitration),
    STATE_FIELD(13, struct nvme, feat.power),
    STATE_FIELD(14, struct nvme, feat.error_recovery),
    STATE_FIELD(15, struct nvme, feat.write_cache),
    STATE_FIELD(16, struct nvme, feat.coalescing),
    STATE_FIELD(17, struct nvme, feat.atomicity),
    STATE_FIELD(18, struct nvme, feat.async_event),
    STATE_FIELD(19, struct nvme, feat.over_temperature),
    STATE_FIELD(20, struct nvme, feat.under_temperature),
    STATE_FIELD(21, struct nvme, feat.sqs),
    STATE_FIELD(22, struct nvme, feat.cqs),
    STATE_FIELD(23, struct nvme, feat.no_coalescing),
    STATE_FIELD(24, struct nvme, event_cids),
    STATE_FIELD(25, struct nvme, event_requests),
    STATE_FIELD(26, struct nvme, events),
    STATE_FIELD(27, struct nvme, masked),
    STATE_FIELD(28, struct nvme, ns_changed),
    STATE_FIELD(29, struct nvme, error_count),
    STATE_CLOCK(30, struct nvme, epoch_ns),
    STATE_FIELD(31, struct nvme, counters.read_sectors),
    STATE_FIELD(32, struct nvme, counters.written_sectors),
    STATE_FIELD(33, struct nvme, counters.reads),
    STATE_FIELD(34, struct nvme, counters.writes),
    STATE_FIELD(35, struct nvme, counters.media_errors),
    STATE_FIELD(36, struct nvme, counters.busy_ns),
};

static const struct state_field shape_fields[] = {
    STATE_FIELD(1, struct nvme_shape, io_queues),
    STATE_FIELD(2, struct nvme_shape, queue_size),
    STATE_FIELD(3, struct nvme_shape, lba_shift),
};

static const struct state_field sq_fields[] = {
    STATE_FIELD(1, struct nvme_sq, base),       STATE_FIELD(2, struct nvme_sq, size),
    STATE_FIELD(3, struct nvme_sq, head),       STATE_FIELD(4, struct nvme_sq, tail),
    STATE_FIELD(5, struct nvme_sq, cqid),       STATE_FIELD(6, struct nvme_sq, deleting),
    STATE_FIELD(7, struct nvme_sq, delete_cid),
};

static const struct state_field cq_fields[] = {
    STATE_FIELD(1, struct nvme_cq, base),   STATE_FIELD(2, struct nvme_cq, size),
    STATE_FIELD(3, struct nvme_cq, head),   STATE_FIELD(4, struct nvme_cq, tail),
    STATE_FIELD(5, struct nvme_cq, vector), STATE_FIELD(6, struct nvme_cq, interrupts),
    STATE_FIELD(7, struct nvme_cq, phase),
};

static const struct state_field held_fields[] = {
    STATE_FIELD(1, struct held_state, more),   STATE_FIELD(2, struct held_state, cqid),
    STATE_FIELD(3, struct held_state, sqid),   STATE_FIELD(4, struct held_state, cid),
    STATE_FIELD(5, struct held_state, status),
};

static const struct state_field error_fields[] = {
    STATE_FIELD(1, struct nvme_error, count),    STATE_FIELD(2, struct nvme_error, lba),
    STATE_FIELD(3, struct nvme_error, nsid),     STATE_FIELD(4, struct nvme_error, sqid),
    STATE_FIELD(5, struct nvme_error, cid),      STATE_FIELD(6, struct nvme_error, status),
    STATE_FIELD(7, struct nvme_error, location),
};

#define SAVE(table, obj) state_save(table, countof(table), obj, n->env->timers, out)
#define LOAD(table, obj) state_load(table, countof(table), obj, n->env->timers, data, len, pos, err)

/* ---- saving ---- */

void nvme_quiesce(void *dev)
{
    struct nvme *n = dev;

    n->quiet = true;
    block_drain(n->block);
    n->quiet = false;
    /* If this VM goes on, it takes up what it left: its clock stands still until then. */
    timer_set(n->kick, clock_now(n->env));
}

static void save_held(struct nvme *n, struct state_buf *out)
{
    struct held_state h = {0};

    for (unsigned i = 0; i <= n->io_queues; i++) {
        for (const struct nvme_slot *s = n->cq[i].held; s != NULL; s = s->next) {
            h = (struct held_state){1, s->cqid, s->sqid, s->cid, s->status};
            SAVE(held_fields, &h);
        }
    }
    h = (struct held_state){0};
    SAVE(held_fields, &h);
}

void nvme_save(void *dev, struct state_buf *out)
{
    struct nvme *n = dev;
    struct nvme_shape shape = {n->io_queues, n->queue_size, n->lba_shift};

    SAVE(shape_fields, &shape);
    for (unsigned i = 0; i < NVME_ERROR_ENTRIES; i++)
        SAVE(error_fields, &n->errors[i]);
    for (unsigned i = 0; i <= n->io_queues; i++) {
        SAVE(sq_fields, &n->sq[i]);
        SAVE(cq_fields, &n->cq[i]);
    }
    save_held(n, out);
}

/* ---- loading ---- */

static bool sq_sane(struct nvme *n, unsigned qid)
{
    const struct nvme_sq *q = &n->sq[qid];
    uint32_t max = qid == 0 ? 4096 : n->queue_size;

    if (q->size == 0)
        return !n->ready || qid != 0;
    return n->ready && q->size >= 2 && q->size <= max && q->head < q->size && q->tail < q->size &&
           q->cqid <= n->io_queues && (q->cqid == 0) == (qid == 0) && n->cq[q->cqid].size != 0 &&
           (qid != 0 || !q->deleting) && nvme_ring_valid(n, q->base, q->size, SQE_SIZE);
}

static bool cq_sane(struct nvme *n, unsigned qid)
{
    const struct nvme_cq *q = &n->cq[qid];
    uint32_t max = qid == 0 ? 4096 : n->queue_size;

    if (q->size == 0)
        return !n->ready || qid != 0;
    return n->ready && q->size >= 2 && q->size <= max && q->head < q->size && q->tail < q->size &&
           q->vector <= n->io_queues && q->phase <= 1 &&
           nvme_ring_valid(n, q->base, q->size, CQE_SIZE);
}

static bool sane(struct nvme *n)
{
    const struct nvme_features *f = &n->feat;

    if (f->sqs == 0 || f->sqs > n->io_queues || f->cqs == 0 || f->cqs > n->io_queues ||
        n->event_requests > NVME_EVENT_REQUESTS ||
        (n->shst != SHST_NORMAL && n->shst != SHST_COMPLETE))
        return false;
    if (n->dbbuf_on && (!nvme_ring_valid(n, n->dbbuf, 1, NVME_PAGE) ||
                        !nvme_ring_valid(n, n->eventidx, 1, NVME_PAGE)))
        return false;
    for (unsigned i = 0; i <= n->io_queues; i++)
        if (!cq_sane(n, i) || !sq_sane(n, i))
            return false;
    return true;
}

/* The one thing here that grows: bounded by the slots. */
static int load_held(struct nvme *n, const uint8_t *data, size_t len, size_t *pos,
                     struct error *err)
{
    for (;;) {
        struct held_state h = {0};
        struct nvme_slot *s;
        int rc = LOAD(held_fields, &h);

        if (rc != 0 || h.more == 0)
            return rc;
        if (h.sqid == 0 || h.sqid > n->io_queues || n->sq[h.sqid].size == 0 ||
            n->sq[h.sqid].cqid != h.cqid || (s = nvme_slot_get(n)) == NULL)
            return error_set(err, -EINVAL, "%s: the saved completions do not fit the queues",
                             n->env->name);
        s->cqid = h.cqid;
        s->sqid = h.sqid;
        s->cid = h.cid;
        s->status = h.status;
        nvme_hold(s);
    }
}

int nvme_load(void *dev, const uint8_t *data, size_t len, size_t *pos, struct error *err)
{
    struct nvme *n = dev;
    struct nvme_shape shape = {0};
    int rc = LOAD(shape_fields, &shape);

    nvme_held_free(n);
    if (rc == 0 && (shape.io_queues != n->io_queues || shape.queue_size != n->queue_size ||
                    shape.lba_shift != n->lba_shift))
        rc = error_set(err, -EINVAL,
                       "%s: the saved controller has maxq=%u, qsz=%u and blocks of %u bytes",
                       n->env->name, shape.io_queues, shape.queue_size,
                       shape.lba_shift < 32 ? 1u << shape.lba_shift : 0);
    for (unsigned i = 0; rc == 0 && i < NVME_ERROR_ENTRIES; i++)
        rc = LOAD(error_fields, &n->errors[i]);
    for (unsigned i = 0; rc == 0 && i <= n->io_queues; i++) {
        rc = LOAD(sq_fields, &n->sq[i]);
        if (rc == 0)
            rc = LOAD(cq_fields, &n->cq[i]);
    }
    if (rc == 0 && !sane(n))
        rc = error_set(err, -EINVAL, "%s: the saved queues are not possible", n->env->name);
    for (unsigned i = 0; rc == 0 && i <= n->io_queues; i++)
        n->cq[i].sqs = 0;
    for (unsigned i = 0; rc == 0 && i <= n->io_queues; i++) {
        n->sq[i].inflight = 0;
        n->sq[i].rested = NVME_NOT_RESTED;
        if (n->sq[i].size != 0)
            n->cq[n->sq[i].cqid].sqs++;
    }
    if (rc == 0)
        rc = load_held(n, data, len, pos, err);
    /* Nothing half loaded is ever used. */
    if (rc != 0) {
        n->ready = false;
        nvme_queues_reset(n);
        nvme_features_reset(n);
        n->event_requests = 0;
    }
    return rc;
}
