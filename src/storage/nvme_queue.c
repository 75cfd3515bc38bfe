/*
 * Queues: doorbells and their shadows, fetching of commands, writing of completions, interrupts.
 *
 * Submission queues take turns, BURST commands each. A command is fetched only while a slot is free
 * for it (admin: while the admin completion queue has room), so what a driver queues beyond that
 * stays in its own memory.
 */
#include <stdatomic.h>
#include <string.h>

#include "base/endian.h"
#include "mem/gmem.h"
#include "pci/pci.h"
#include "storage/nvme_impl.h"

#define BURST 8u
#define RUN_MAX 2048u /* commands in one call; a driver on another vCPU could go on for ever */

static uint32_t ring_used(uint32_t size, uint32_t head, uint32_t tail)
{
    return tail >= head ? tail - head : size - head + tail;
}

bool nvme_ring_valid(struct nvme *n, uint64_t base, uint32_t size, unsigned entry)
{
    return (base & (NVME_PAGE - 1u)) == 0 &&
           gmem_ptr(n->env->mem, base, (size_t)size * entry) != NULL;
}

/* ---- shadow doorbells ----
 * The driver writes a doorbell's value to memory, and rings only if it steps over the value that we
 * have left in the other page (Doorbell Buffer Config command). The admin queue always rings.
 */

static uint64_t shadow_offset(unsigned qid, bool cq)
{
    return 8ull * qid + (cq ? 4 : 0);
}

static uint32_t shadow_read(struct nvme *n, unsigned qid, bool cq)
{
    return gmem_read32(n->env->mem, n->dbbuf + shadow_offset(qid, cq));
}

static void eventidx_write(struct nvme *n, unsigned qid, bool cq, uint32_t value)
{
    uint8_t raw[4];

    le32_store(raw, value);
    gmem_write(n->env->mem, n->eventidx + shadow_offset(qid, cq), raw, sizeof(raw));
    /* Pairs with the driver's barrier between its doorbell and its look at this value: one of both
     * sees what the other has written. */
    atomic_thread_fence(memory_order_seq_cst);
}

static void bad_doorbell(struct nvme *n, unsigned qid, const char *what, uint32_t value)
{
    log_guest(n->env, "queue %u: %s doorbell: %#x is no possible value", qid, what, value);
    nvme_log_error(n, (uint16_t)qid, 0xFFFF, ST_SUCCESS, 0, 0);
    nvme_event(n, EVENT_BAD_DOORBELL_VALUE);
}

static void sq_set_tail(struct nvme *n, unsigned qid, uint32_t tail)
{
    struct nvme_sq *q = &n->sq[qid];

    if (tail == q->tail)
        return;
    if (tail >= q->size ||
        ring_used(q->size, q->head, q->tail) + (uint64_t)ring_used(q->size, q->tail, tail) >=
            q->size) {
        bad_doorbell(n, qid, "submission", tail);
        return;
    }
    q->tail = tail;
}

static void cq_set_head(struct nvme *n, unsigned qid, uint32_t head)
{
    struct nvme_cq *q = &n->cq[qid];

    if (head == q->head)
        return;
    if (head >= q->size ||
        ring_used(q->size, q->head, head) > ring_used(q->size, q->head, q->tail)) {
        bad_doorbell(n, qid, "completion", head);
        return;
    }
    q->head = head;
}

static void sq_poll(struct nvme *n, unsigned qid)
{
    if (n->dbbuf_on && qid != 0)
        sq_set_tail(n, qid, shadow_read(n, qid, false));
}

/* An empty queue: asks for the doorbell, and looks again; once for each tail. */
static void sq_rest(struct nvme *n, unsigned qid)
{
    struct nvme_sq *q = &n->sq[qid];

    if (!n->dbbuf_on || qid == 0 || q->rested == q->tail)
        return;
    q->rested = q->tail;
    eventidx_write(n, qid, false, q->tail);
    sq_poll(n, qid);
}

static bool cq_full(const struct nvme_cq *q)
{
    return ring_used(q->size, q->head, q->tail) == q->size - 1;
}

/* Takes the head from the shadow, and asks for the doorbell at the next change. */
static void cq_poll(struct nvme *n, unsigned cqid)
{
    struct nvme_cq *q = &n->cq[cqid];
    uint32_t before;

    if (!n->dbbuf_on || cqid == 0)
        return;
    do { /* the head only moves towards the tail */
        before = q->head;
        eventidx_write(n, cqid, true, before);
        cq_set_head(n, cqid, shadow_read(n, cqid, true));
    } while (q->head != before);
}

bool nvme_cq_room(struct nvme *n, unsigned cqid)
{
    struct nvme_cq *q = &n->cq[cqid];

    /* The wire of INTx falls by the doorbell, so that is always wanted then. */
    if (cq_full(q) || !pci_msix_enabled(n->f))
        cq_poll(n, cqid);
    return !cq_full(q);
}

void nvme_dbbuf_start(struct nvme *n)
{
    if (!n->dbbuf_on)
        return;
    for (unsigned i = 1; i <= n->io_queues; i++) {
        n->sq[i].rested = NVME_NOT_RESTED;
        if (n->sq[i].size != 0)
            eventidx_write(n, i, false, n->sq[i].tail);
        if (n->cq[i].size != 0)
            eventidx_write(n, i, true, n->cq[i].head);
    }
}

/* ---- slots ---- */

struct nvme_slot *nvme_slot_get(struct nvme *n)
{
    struct nvme_slot *s = n->free_slots;

    if (s != NULL)
        n->free_slots = s->next;
    return s;
}

void nvme_slot_put(struct nvme_slot *s)
{
    s->next = s->n->free_slots;
    s->n->free_slots = s;
}

/* ---- completions ---- */

void nvme_intx_update(struct nvme *n)
{
    bool level = false;

    for (unsigned i = 0; i <= n->io_queues && !level; i++) {
        const struct nvme_cq *q = &n->cq[i];

        level = q->size != 0 && q->interrupts && q->head != q->tail;
    }
    pci_intx(n->f, level && (n->intm & 1) == 0);
}

void nvme_interrupts(struct nvme *n)
{
    bool any = false;

    for (unsigned i = 0; i <= n->io_queues; i++) {
        struct nvme_cq *q = &n->cq[i];

        if (!q->dirty)
            continue;
        q->dirty = false;
        any = true;
        if (q->interrupts && pci_msix_enabled(n->f))
            pci_msix_send(n->f, q->vector);
    }
    if (any)
        nvme_intx_update(n);
}

void nvme_cq_post(struct nvme *n, unsigned cqid, uint16_t sqid, uint16_t cid, uint16_t status,
                  uint32_t result)
{
    struct nvme_cq *q = &n->cq[cqid];
    uint64_t at = q->base + (uint64_t)q->tail * CQE_SIZE;
    uint8_t e[CQE_SIZE];

    le32_store(e, result);
    le32_store(e + 4, 0);
    le16_store(e + 8, (uint16_t)n->sq[sqid].head);
    le16_store(e + 10, sqid);
    le16_store(e + 12, cid);
    le16_store(e + 14, (uint16_t)(status << 1 | q->phase));
    /* The phase bit says that the rest is there, so it goes last. */
    gmem_write(n->env->mem, at, e, 12);
    atomic_thread_fence(memory_order_release);
    gmem_write(n->env->mem, at + 12, e + 12, 4);
    if (++q->tail == q->size) {
        q->tail = 0;
        q->phase ^= 1;
    }
    q->dirty = true;
}

static void sq_one_less(struct nvme *n, unsigned sqid)
{
    struct nvme_sq *q = &n->sq[sqid];

    q->inflight--;
    if (q->deleting && q->inflight == 0)
        nvme_admin_waiting(n);
}

void nvme_hold(struct nvme_slot *s)
{
    struct nvme_cq *q = &s->n->cq[s->cqid];

    s->next = NULL;
    *q->held_end = s;
    q->held_end = &s->next;
}

void nvme_complete(struct nvme_slot *s)
{
    struct nvme *n = s->n;
    unsigned sqid = s->sqid;

    if (n->dropping) {
        n->sq[sqid].inflight--;
        nvme_slot_put(s);
        return;
    }
    if (s->status != ST_SUCCESS) {
        nvme_log_error(n, s->sqid, s->cid, s->status, s->slba, 1);
        s->status |= ST_MORE;
    }
    if (n->cq[s->cqid].held == NULL && nvme_cq_room(n, s->cqid)) {
        nvme_cq_post(n, s->cqid, s->sqid, s->cid, s->status, 0);
        nvme_slot_put(s);
    } else {
        nvme_hold(s);
    }
    sq_one_less(n, sqid);
}

void nvme_held_flush(struct nvme *n, unsigned cqid)
{
    struct nvme_cq *q = &n->cq[cqid];

    while (q->held != NULL && nvme_cq_room(n, cqid)) {
        struct nvme_slot *s = q->held;

        q->held = s->next;
        if (q->held == NULL)
            q->held_end = &q->held;
        nvme_cq_post(n, cqid, s->sqid, s->cid, s->status, 0);
        nvme_slot_put(s);
    }
}

void nvme_held_drop(struct nvme *n, unsigned sqid)
{
    struct nvme_cq *q = &n->cq[n->sq[sqid].cqid];
    struct nvme_slot *s = q->held;

    q->held = NULL;
    q->held_end = &q->held;
    while (s != NULL) {
        struct nvme_slot *next = s->next;

        if (s->sqid == sqid)
            nvme_slot_put(s);
        else
            nvme_hold(s);
        s = next;
    }
}

/* ---- commands ---- */

static void fetch(struct nvme *n, unsigned qid, struct nvme_cmd *c)
{
    struct nvme_sq *q = &n->sq[qid];
    uint8_t e[SQE_SIZE] = {0};

    /* The driver's doorbell was read before: what it has written is there. The ring is RAM. */
    atomic_thread_fence(memory_order_acquire);
    gmem_read(n->env->mem, q->base + (uint64_t)q->head * SQE_SIZE, e, sizeof(e));
    q->head = q->head + 1 == q->size ? 0 : q->head + 1;
    c->opcode = e[0];
    c->flags = e[1];
    c->cid = le16_load(e + 2);
    c->sqid = (uint16_t)qid;
    c->nsid = le32_load(e + 4);
    c->prp1 = le64_load(e + 24);
    c->prp2 = le64_load(e + 32);
    c->dw10 = le32_load(e + 40);
    c->dw11 = le32_load(e + 44);
    c->dw12 = le32_load(e + 48);
    c->dw13 = le32_load(e + 52);
}

static void run_admin(struct nvme *n, const struct nvme_cmd *c)
{
    uint16_t status = ST_SUCCESS;
    uint32_t result = 0;

    if (!nvme_admin(n, c, &status, &result)) {
        nvme_admin_waiting(n); /* perhaps it need not wait */
        return;
    }
    if (status != ST_SUCCESS) {
        /* No mistake that a person should see: so drivers find out what there is. */
        log_debug(n->env->log, "%s: admin command %#x (cid %u) ends with status %#x", n->env->name,
                  c->opcode, c->cid, status & ST_CODE);
        nvme_log_error(n, 0, c->cid, status, 0, c->nsid);
        status |= ST_MORE;
    }
    nvme_cq_post(n, 0, 0, c->cid, status, result);
}

/* One command of this queue; false if there is none, or nothing to put it in. */
static bool step(struct nvme *n, unsigned qid)
{
    struct nvme_sq *q = &n->sq[qid];
    struct nvme_slot *s;
    struct nvme_cmd c;

    if (q->size == 0 || q->deleting)
        return false;
    if (q->head == q->tail) {
        sq_poll(n, qid);
        if (q->head == q->tail) {
            sq_rest(n, qid);
            if (q->head == q->tail)
                return false;
        }
    }
    if (qid == 0) {
        if (!nvme_cq_room(n, 0))
            return false;
        fetch(n, 0, &c);
        run_admin(n, &c);
        return true;
    }
    /* What could not be completed would only take slots from other queues. */
    if (n->cq[q->cqid].held != NULL)
        return false;
    s = nvme_slot_get(n);
    if (s == NULL)
        return false;
    fetch(n, qid, &c);
    q->inflight++;
    s->sqid = c.sqid;
    s->cqid = q->cqid;
    s->cid = c.cid;
    s->status = ST_SUCCESS;
    s->opcode = c.opcode;
    s->slba = 0;
    nvme_io(s, &c);
    return true;
}

static bool may_run(const struct nvme *n)
{
    return n->ready && !n->fatal && n->shst == SHST_NORMAL && !n->quiet && pci_bus_master(n->f);
}

void nvme_run(struct nvme *n)
{
    unsigned left = RUN_MAX;
    bool more = true;

    if (n->running || n->dropping)
        return;
    n->running = true;
    while (more && left > 0 && may_run(n)) {
        more = false;
        nvme_admin_waiting(n);
        block_plug(n->block);
        for (unsigned qid = 0; qid <= n->io_queues; qid++) {
            for (unsigned i = 0; i < BURST && left > 0 && step(n, qid); i++) {
                left--;
                more = true;
            }
        }
        block_unplug(n->block);
    }
    if (left == 0)
        timer_set(n->kick, clock_now(n->env));
    nvme_admin_waiting(n);
    n->running = false;
    nvme_interrupts(n);
}

void nvme_doorbell(struct nvme *n, uint64_t offset, uint32_t value)
{
    unsigned qid = (unsigned)(offset / 8);
    bool cq = (offset & 4) != 0;

    if (!n->ready || n->fatal) {
        log_guest(n->env, "doorbell of queue %u while the controller is not ready", qid);
        return;
    }
    if (qid > n->io_queues || (cq ? n->cq[qid].size : n->sq[qid].size) == 0) {
        log_guest(n->env, "doorbell of %s queue %u, which does not exist",
                  cq ? "completion" : "submission", qid);
        nvme_log_error(n, (uint16_t)qid, 0xFFFF, ST_SUCCESS, 0, 0);
        nvme_event(n, EVENT_BAD_DOORBELL);
    } else if (!cq) {
        sq_set_tail(n, qid, value);
    } else {
        cq_set_head(n, qid, value);
        if (!pci_msix_enabled(n->f))
            cq_poll(n, qid);
        nvme_held_flush(n, qid);
        nvme_intx_update(n);
    }
    nvme_run(n);
}

void nvme_held_free(struct nvme *n)
{
    for (unsigned i = 0; i < NVME_QUEUES_MAX; i++) {
        struct nvme_cq *q = &n->cq[i];

        while (q->held != NULL) {
            struct nvme_slot *s = q->held;

            q->held = s->next;
            nvme_slot_put(s);
        }
        q->held_end = &q->held;
    }
}

void nvme_queues_reset(struct nvme *n)
{
    nvme_held_free(n);
    memset(n->sq, 0, sizeof(n->sq));
    memset(n->cq, 0, sizeof(n->cq));
    for (unsigned i = 0; i < NVME_QUEUES_MAX; i++)
        n->cq[i].held_end = &n->cq[i].held;
    n->dbbuf_on = false;
    n->dbbuf = n->eventidx = 0;
}
