/* The admin commands: queues, and what goes on to the other files. */
#include <string.h>

#include "storage/nvme_impl.h"

#define QUEUE_CONTIGUOUS 0x1u /* DW11 */
#define CQ_INTERRUPTS 0x2u

/* ---- queues ---- */

static uint16_t create_cq(struct nvme *n, const struct nvme_cmd *c)
{
    unsigned qid = c->dw10 & 0xFFFF;
    uint32_t size = (c->dw10 >> 16) + 1;
    unsigned vector = c->dw11 >> 16;
    struct nvme_cq *q;

    if (qid == 0 || qid > n->feat.cqs || n->cq[qid].size != 0)
        return ST_INVALID_QID;
    if (size < 2 || size > n->queue_size || (n->cc >> CC_IOCQES_SHIFT & 0xF) != CQE_SHIFT)
        return ST_INVALID_QSIZE;
    if (vector > n->io_queues || (vector != 0 && !pci_msix_enabled(n->f)))
        return ST_INVALID_VECTOR;
    if ((c->dw11 & QUEUE_CONTIGUOUS) == 0)
        return ST_INVALID_FIELD;
    if ((c->prp1 & (NVME_PAGE - 1u)) != 0)
        return ST_PRP_OFFSET;
    if (!nvme_ring_valid(n, c->prp1, size, CQE_SIZE))
        return ST_INVALID_FIELD;
    q = &n->cq[qid];
    q->base = c->prp1;
    q->size = size;
    q->head = q->tail = 0;
    q->vector = (uint16_t)vector;
    q->interrupts = (c->dw11 & CQ_INTERRUPTS) != 0;
    q->phase = 1;
    nvme_dbbuf_start(n);
    return ST_SUCCESS;
}

static uint16_t create_sq(struct nvme *n, const struct nvme_cmd *c)
{
    unsigned qid = c->dw10 & 0xFFFF;
    uint32_t size = (c->dw10 >> 16) + 1;
    unsigned cqid = c->dw11 >> 16;
    struct nvme_sq *q;

    if (cqid == 0 || cqid > n->io_queues || n->cq[cqid].size == 0)
        return ST_CQ_INVALID;
    if (qid == 0 || qid > n->feat.sqs || n->sq[qid].size != 0)
        return ST_INVALID_QID;
    if (size < 2 || size > n->queue_size || (n->cc >> CC_IOSQES_SHIFT & 0xF) != SQE_SHIFT)
        return ST_INVALID_QSIZE;
    if ((c->dw11 & QUEUE_CONTIGUOUS) == 0)
        return ST_INVALID_FIELD;
    if ((c->prp1 & (NVME_PAGE - 1u)) != 0)
        return ST_PRP_OFFSET;
    if (!nvme_ring_valid(n, c->prp1, size, SQE_SIZE))
        return ST_INVALID_FIELD;
    q = &n->sq[qid];
    memset(q, 0, sizeof(*q));
    q->base = c->prp1;
    q->size = size;
    q->cqid = (uint16_t)cqid;
    n->cq[cqid].sqs++;
    nvme_dbbuf_start(n);
    return ST_SUCCESS;
}

static uint16_t delete_cq(struct nvme *n, const struct nvme_cmd *c)
{
    unsigned qid = c->dw10 & 0xFFFF;

    if (qid == 0 || qid > n->io_queues || n->cq[qid].size == 0)
        return ST_INVALID_QID;
    if (n->cq[qid].sqs != 0)
        return ST_INVALID_QUEUE_DELETION;
    n->cq[qid].size = 0; /* without submission queues nothing is held for it */
    n->cq[qid].dirty = false;
    nvme_intx_update(n);
    return ST_SUCCESS;
}

/* Its commands are done first; those not fetched yet are dropped. */
static bool delete_sq(struct nvme *n, const struct nvme_cmd *c, uint16_t *status)
{
    unsigned qid = c->dw10 & 0xFFFF;

    if (qid == 0 || qid > n->io_queues || n->sq[qid].size == 0 || n->sq[qid].deleting) {
        *status = ST_INVALID_QID;
        return true;
    }
    n->sq[qid].deleting = true;
    n->sq[qid].delete_cid = c->cid;
    return false; /* nvme_admin_waiting completes it, perhaps at once */
}

static void sq_delete_finish(struct nvme *n, unsigned qid)
{
    uint16_t cid = n->sq[qid].delete_cid;

    nvme_held_drop(n, qid);
    n->cq[n->sq[qid].cqid].sqs--;
    memset(&n->sq[qid], 0, sizeof(n->sq[qid]));
    nvme_cq_post(n, 0, 0, cid, ST_SUCCESS, 0);
}

void nvme_admin_waiting(struct nvme *n)
{
    if (n->cq[0].size == 0)
        return;
    for (unsigned i = 1; i <= n->io_queues; i++) {
        if (n->sq[i].deleting && n->sq[i].inflight == 0 && nvme_cq_room(n, 0))
            sq_delete_finish(n, i);
    }
    nvme_events_deliver(n);
}

/* ---- the rest ---- */

/* What is at the disk cannot be called back, what is not fetched yet is not looked for. */
static uint16_t abort_command(struct nvme *n, const struct nvme_cmd *c, uint32_t *result)
{
    unsigned sqid = c->dw10 & 0xFFFF, cid = c->dw10 >> 16;

    if (sqid > n->io_queues || n->sq[sqid].size == 0)
        return ST_INVALID_FIELD;
    *result = 1; /* not aborted */
    for (unsigned i = 0; sqid == 0 && i < n->event_requests; i++) {
        if (n->event_cids[i] != cid)
            continue;
        /* Two completions: the request's, then the one of Abort. */
        if (n->cq[0].size - 1 < (n->cq[0].tail + n->cq[0].size - n->cq[0].head) % n->cq[0].size + 2)
            break;
        nvme_cq_post(n, 0, 0, (uint16_t)cid, ST_ABORT_REQUESTED, 0);
        memmove(&n->event_cids[i], &n->event_cids[i + 1],
                (n->event_requests - i - 1) * sizeof(n->event_cids[0]));
        n->event_requests--;
        *result = 0;
    }
    return ST_SUCCESS;
}

static bool event_request(struct nvme *n, const struct nvme_cmd *c, uint16_t *status)
{
    if (n->event_requests == NVME_EVENT_REQUESTS) {
        *status = ST_ASYNC_LIMIT;
        return true;
    }
    n->event_cids[n->event_requests++] = c->cid;
    return false;
}

static uint16_t dbbuf_config(struct nvme *n, const struct nvme_cmd *c)
{
    if (c->prp1 == 0 || c->prp2 == 0 || (c->prp1 & (NVME_PAGE - 1u)) != 0 ||
        (c->prp2 & (NVME_PAGE - 1u)) != 0 || !nvme_ring_valid(n, c->prp1, 1, NVME_PAGE) ||
        !nvme_ring_valid(n, c->prp2, 1, NVME_PAGE))
        return ST_INVALID_FIELD;
    n->dbbuf = c->prp1;
    n->eventidx = c->prp2;
    n->dbbuf_on = true;
    nvme_dbbuf_start(n);
    return ST_SUCCESS;
}

bool nvme_admin(struct nvme *n, const struct nvme_cmd *c, uint16_t *status, uint32_t *result)
{
    bool done = true;

    if ((c->flags & CMD_FUSE_PSDT) != 0) {
        *status = ST_INVALID_FIELD | ST_DNR;
        return true;
    }
    switch (c->opcode) {
    case ADMIN_DELETE_SQ:
        done = delete_sq(n, c, status);
        break;
    case ADMIN_CREATE_SQ:
        *status = create_sq(n, c);
        break;
    case ADMIN_GET_LOG_PAGE:
        *status = nvme_get_log_page(n, c);
        break;
    case ADMIN_DELETE_CQ:
        *status = delete_cq(n, c);
        break;
    case ADMIN_CREATE_CQ:
        *status = create_cq(n, c);
        break;
    case ADMIN_IDENTIFY:
        *status = nvme_identify(n, c);
        break;
    case ADMIN_ABORT:
        *status = abort_command(n, c, result);
        break;
    case ADMIN_SET_FEATURES:
        *status = nvme_set_features(n, c, result);
        break;
    case ADMIN_GET_FEATURES:
        *status = nvme_get_features(n, c, result);
        break;
    case ADMIN_ASYNC_EVENT:
        done = event_request(n, c, status);
        break;
    case ADMIN_DBBUF_CONFIG:
        *status = dbbuf_config(n, c);
        break;
    default: /* firmware, Format NVM, security, ...: Identify and the effects log say so */
        *status = ST_INVALID_OPCODE;
        break;
    }
    if (*status != ST_SUCCESS)
        *status |= ST_DNR;
    return done;
}
