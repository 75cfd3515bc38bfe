/*
 * virtio-scsi: a SCSI host with one disk, target 0, unit 0. virtio 1.2, "SCSI Host Device". What
 * the commands mean is storage/scsi.c's; here are requests, task management and events.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "storage/scsi.h"
#include "virtio/pci.h"
#include "virtio/span.h"
#include "virtio/virtio.h"

#define SCSI_F_CHANGE (1ull << 2)

#define QUEUE_CONTROL 0u
#define QUEUE_EVENT 1u
#define QUEUE_REQUEST 2u /* the first */

/* The configuration. */
#define CFG_NUM_QUEUES 0u
#define CFG_SEG_MAX 4u
#define CFG_MAX_SECTORS 8u
#define CFG_CMD_PER_LUN 12u
#define CFG_EVENT_INFO_SIZE 16u
#define CFG_SENSE_SIZE 20u
#define CFG_CDB_SIZE 24u
#define CFG_SIZE 36u /* the highest channel 16, target 16 and unit 32 end it: all 0 */

/* A request: unit 64, id 64, attribute 8, priority 8, crn 8, then the command. */
#define REQ_LUN 0u
#define REQ_ID 8u
#define REQ_ATTRIBUTE 16u
#define REQ_CDB 19u
#define ATTRIBUTE_ORDERED 1u

/* Its answer: sense length 32, residual 32, qualifier 16, status 8, response 8, then the sense. */
#define RESP_SENSE_LEN 0u
#define RESP_RESIDUAL 4u
#define RESP_STATUS 10u
#define RESP_RESPONSE 11u
#define RESP_SENSE 12u

#define S_OK 0u
#define S_OVERRUN 1u
#define S_BAD_TARGET 3u
#define S_FAILURE 9u
#define S_FUNCTION_COMPLETE 0u
#define S_FUNCTION_SUCCEEDED 10u
#define S_FUNCTION_REJECTED 11u
#define S_INCORRECT_LUN 12u

/* Control requests. */
#define T_TMF 0u
#define T_AN_QUERY 1u
#define T_AN_SUBSCRIBE 2u
#define TMF_ABORT_TASK 0u
#define TMF_ABORT_TASK_SET 1u
#define TMF_CLEAR_TASK_SET 3u
#define TMF_I_T_NEXUS_RESET 4u
#define TMF_LOGICAL_UNIT_RESET 5u
#define TMF_QUERY_TASK 6u
#define TMF_QUERY_TASK_SET 7u
#define TMF_SIZE 24u /* type 32, subtype 32, unit 64, id 64 */
#define AN_SIZE 16u  /* type 32, unit 64, events 32 */

/* Events: event 32, unit 64, reason 32. */
#define EVENT_SIZE 16u
#define EVENT_PARAM_CHANGE 3u
#define EVENTS_MISSED 0x80000000u
#define CAPACITY_CHANGED 0x092Au /* qualifier << 8 | code */

#define QUEUE_SIZE 128u
#define QUEUES_DEFAULT 4u /* of requests, at most; fewer with fewer vCPUs */
#define CDB_SIZE 32u
#define SENSE_SIZE 96u
#define SENSE_SIZE_MAX 252u
#define MAX_SECTORS 65536u

struct request {
    struct scsi_command c;
    struct host *h;
    struct request *next, **link; /* on the list of those that are out, or of unused ones */
    unsigned queue;
    struct virtq_token token;
    uint64_t id;
    uint64_t data_in;
    struct virtq_span data;
    struct virtq_span answer; /* where it goes: the first bytes that may be written */
    uint32_t answer_len;
};

struct host {
    struct dev_env *env;
    struct virtio *v;
    struct block *block;
    struct scsi_unit unit;
    struct request *unused, *out;
    unsigned queues; /* of requests */
    bool batch;
    unsigned batch_queue;
    uint32_t sense_size, cdb_size;
    bool event_missed;
    bool change_due; /* an event that found no buffer */
};

/* ---- ending a request ---- */

static void take_out(struct request *r)
{
    *r->link = r->next;
    if (r->next != NULL)
        r->next->link = r->link;
    r->next = r->h->unused;
    r->h->unused = r;
}

/* The answer's memory is as much as the driver gave; what does not fit is lost. */
static void write_answer(struct request *r, const uint8_t *answer)
{
    size_t at = 0;

    for (unsigned i = 0; i < r->answer.count; i++) {
        memcpy(r->answer.iov[i].iov_base, answer + at, r->answer.iov[i].iov_len);
        at += r->answer.iov[i].iov_len;
    }
    virtq_span_written(&r->answer, r->h->env->mem);
}

static void end(struct request *r, uint8_t response)
{
    struct host *h = r->h;
    struct scsi_command *c = &r->c;
    uint8_t answer[RESP_SENSE + SENSE_SIZE_MAX] = {0};
    uint64_t residual = c->data_len - c->transferred;
    uint64_t written = r->answer_len;

    if (response == S_OK) {
        answer[RESP_STATUS] = c->status;
        le32_store(answer + RESP_RESIDUAL, (uint32_t)min_u64(residual, UINT32_MAX));
        if (c->status == SCSI_CHECK_CONDITION) {
            uint32_t len = h->sense_size < SCSI_SENSE_LEN ? h->sense_size : SCSI_SENSE_LEN;

            le32_store(answer + RESP_SENSE_LEN, len);
            memcpy(answer + RESP_SENSE, c->sense, len);
        }
        if (r->data_in != 0) {
            virtq_span_written(&r->data, h->env->mem);
            written += c->transferred;
        }
    }
    answer[RESP_RESPONSE] = response;
    write_answer(r, answer);
    virtio_push(h->v, r->queue, &r->token, (uint32_t)min_u64(written, UINT32_MAX));
    if (!h->batch || h->batch_queue != r->queue)
        virtio_flush(h->v, r->queue);
    take_out(r);
}

static void command_done(struct scsi_command *c)
{
    struct request *r = container_of(c, struct request, c);

    end(r, c->overrun ? S_OVERRUN : S_OK);
}

/* ---- beginning one ---- */

static struct request *new_request(struct host *h)
{
    struct request *r = h->unused;

    if (r == NULL) {
        r = calloc(1, sizeof(*r));
        if (r == NULL)
            return NULL;
    } else {
        h->unused = r->next;
    }
    r->h = h;
    r->c = (struct scsi_command){.done = command_done};
    r->data.count = r->answer.count = 0;
    r->next = h->out;
    if (r->next != NULL)
        r->next->link = &r->next;
    r->link = &h->out;
    h->out = r;
    return r;
}

/* A unit's address: 1, target, unit in 16 bits (flat addresses have 01 above), zeros. */
static bool lun_of(const uint8_t *lun, unsigned *target, unsigned *unit)
{
    *target = lun[1];
    *unit = (unsigned)(lun[2] & 0x3F) << 8 | lun[3];
    return lun[0] == 1 && lun[2] >> 6 <= 1 && le32_load(lun + 4) == 0;
}

static void begin(struct request *r, const uint8_t *head)
{
    struct host *h = r->h;
    bool ordered = head[REQ_ATTRIBUTE] == ATTRIBUTE_ORDERED;
    unsigned target, unit;

    if (!lun_of(head + REQ_LUN, &target, &unit) || target != 0) {
        end(r, S_BAD_TARGET);
        return;
    }
    if (unit != 0) {
        scsi_execute_nowhere(&r->c);
        return;
    }
    /* Nothing passes an ordered command, either way. */
    if (ordered)
        block_drain(h->block);
    scsi_execute(&h->unit, &r->c);
    if (ordered)
        block_drain(h->block);
}

/* False: no more can be taken. */
static bool take(struct host *h, unsigned queue, const struct virtq_chain *c)
{
    uint32_t head_len = REQ_CDB + h->cdb_size, answer_len = RESP_SENSE + h->sense_size;
    uint8_t head[REQ_CDB + SCSI_CDB_MAX] = {0};
    uint64_t out_len, in_len;
    struct request *r;
    bool fits;

    if (c->out_len < head_len || c->in_len < answer_len) {
        virtio_fail(h->v, "a SCSI request has no room for its command or its answer");
        return false;
    }
    r = new_request(h);
    if (r == NULL) {
        virtq_unpop(virtio_queue(h->v, queue), &c->token);
        log_error(h->env->log, "%s: no memory for a request; it waits", h->env->name);
        return false;
    }
    virtq_copy_out(c, 0, head, head_len);
    out_len = c->out_len - head_len;
    in_len = c->in_len - answer_len;
    r->queue = queue;
    r->token = c->token;
    r->id = le64_load(head + REQ_ID);
    r->data_in = in_len;
    r->answer_len = answer_len;
    r->c.to_device = out_len != 0;
    r->c.data_len = out_len != 0 ? out_len : in_len;
    memcpy(r->c.cdb, head + REQ_CDB, h->cdb_size);
    fits = virtq_span_set(&r->answer, c->segs + c->out_count, c->in_count, 0, answer_len);
    if (out_len != 0)
        fits = virtq_span_set(&r->data, c->segs, c->out_count, head_len, out_len) && fits;
    else
        fits = virtq_span_set(&r->data, c->segs + c->out_count, c->in_count, answer_len, in_len) &&
               fits;
    r->c.iov = r->data.iov;
    r->c.iov_count = r->data.count;
    if (!fits || (out_len != 0 && in_len != 0)) /* data goes one way: INOUT is not offered */
        end(r, S_FAILURE);
    else
        begin(r, head);
    return true;
}

static void request_notify(struct host *h, unsigned queue)
{
    struct virtq_chain c;

    h->batch = true;
    h->batch_queue = queue;
    block_plug(h->block);
    while (virtio_pop(h->v, queue, &c) && take(h, queue, &c))
        ;
    block_unplug(h->block);
    h->batch = false;
    virtio_flush(h->v, queue);
}

/* ---- task management ---- */

static bool is_out(const struct host *h, uint64_t id, bool any)
{
    for (const struct request *r = h->out; r != NULL; r = r->next)
        if (any || r->id == id)
            return true;
    return false;
}

/* A command that has begun cannot be called back: what is to be aborted ends first. */
static uint8_t task_management(struct host *h, const uint8_t *raw)
{
    uint64_t id = le64_load(raw + 16);
    unsigned target, unit;

    if (!lun_of(raw + 8, &target, &unit) || target != 0)
        return S_BAD_TARGET;
    if (unit != 0)
        return S_INCORRECT_LUN;
    switch (le32_load(raw + 4)) {
    case TMF_ABORT_TASK:
    case TMF_ABORT_TASK_SET:
    case TMF_CLEAR_TASK_SET:
        block_drain(h->block);
        return S_FUNCTION_COMPLETE;
    case TMF_I_T_NEXUS_RESET:
    case TMF_LOGICAL_UNIT_RESET:
        block_drain(h->block);
        scsi_unit_reset(&h->unit);
        return S_FUNCTION_COMPLETE;
    case TMF_QUERY_TASK:
        return is_out(h, id, false) ? S_FUNCTION_SUCCEEDED : S_FUNCTION_COMPLETE;
    case TMF_QUERY_TASK_SET:
        return is_out(h, 0, true) ? S_FUNCTION_SUCCEEDED : S_FUNCTION_COMPLETE;
    default:
        return S_FUNCTION_REJECTED;
    }
}

/* The answer to a control request into answer[5]; its length, 0: the request is malformed. */
static size_t control(struct host *h, const struct virtq_chain *c, uint8_t answer[5])
{
    uint8_t raw[TMF_SIZE] = {0};
    size_t len = virtq_copy_out(c, 0, raw, sizeof(raw));
    size_t room = (size_t)min_u64(c->in_len, 5);

    switch (len >= 4 ? le32_load(raw) : UINT32_MAX) {
    case T_TMF:
        if (len < TMF_SIZE || room < 1)
            return 0;
        answer[0] = task_management(h, raw);
        return 1;
    case T_AN_QUERY:
    case T_AN_SUBSCRIBE:
        if (len < AN_SIZE || room < 5)
            return 0;
        le32_store(answer, 0); /* a disk has no such events */
        answer[4] = S_OK;
        return 5;
    default:
        return 0;
    }
}

static void control_notify(struct host *h)
{
    struct virtq_chain c;

    while (virtio_pop(h->v, QUEUE_CONTROL, &c)) {
        uint8_t answer[5];
        size_t len = control(h, &c, answer);

        if (len == 0) {
            virtio_fail(h->v, "a control request is of no known kind, or has no room");
            return;
        }
        len = virtq_copy_in(virtio_queue(h->v, QUEUE_CONTROL), &c, 0, answer, len);
        virtio_push(h->v, QUEUE_CONTROL, &c.token, (uint32_t)len);
    }
    virtio_flush(h->v, QUEUE_CONTROL);
}

/* ---- events ---- */

/* The one that is due, if there is a buffer for it. */
static void event_notify(struct host *h)
{
    uint8_t event[EVENT_SIZE] = {0};
    struct virtq_chain c;
    size_t len;

    if (!h->change_due || !virtio_ready(h->v) || !virtio_pop(h->v, QUEUE_EVENT, &c))
        return;
    if (c.in_len < EVENT_SIZE) {
        virtio_fail(h->v, "a buffer for events is too small for one");
        return;
    }
    le32_store(event, EVENT_PARAM_CHANGE | (h->event_missed ? EVENTS_MISSED : 0));
    event[4] = 1; /* target 0, unit 0 */
    le32_store(event + 12, CAPACITY_CHANGED);
    len = virtq_copy_in(virtio_queue(h->v, QUEUE_EVENT), &c, 0, event, sizeof(event));
    h->change_due = h->event_missed = false;
    virtio_push(h->v, QUEUE_EVENT, &c.token, (uint32_t)len);
    virtio_flush(h->v, QUEUE_EVENT);
}

static void changed(void *ctx)
{
    struct host *h = ctx;

    scsi_unit_changed(&h->unit);
    if ((virtio_features(h->v) & SCSI_F_CHANGE) == 0)
        return;
    h->event_missed = h->change_due; /* the one before is told together with this one */
    h->change_due = true;
    event_notify(h);
}

/* ---- the device ---- */

static void notify(void *dev, unsigned queue)
{
    if (queue == QUEUE_CONTROL)
        control_notify(dev);
    else if (queue == QUEUE_EVENT)
        event_notify(dev);
    else
        request_notify(dev, queue);
}

static uint8_t cfg_read(void *dev, unsigned offset)
{
    const struct host *h = dev;
    unsigned segs = virtio_queue(h->v, QUEUE_REQUEST)->max;
    uint8_t cfg[CFG_SIZE] = {0};

    le32_store(cfg + CFG_NUM_QUEUES, h->queues);
    le32_store(cfg + CFG_SEG_MAX, segs > 3 ? segs - 2 : 1);
    le32_store(cfg + CFG_MAX_SECTORS, MAX_SECTORS);
    le32_store(cfg + CFG_CMD_PER_LUN, segs);
    le32_store(cfg + CFG_EVENT_INFO_SIZE, EVENT_SIZE);
    le32_store(cfg + CFG_SENSE_SIZE, h->sense_size);
    le32_store(cfg + CFG_CDB_SIZE, h->cdb_size);
    return cfg[offset];
}

static void cfg_write(void *dev, unsigned offset, unsigned size, uint32_t value)
{
    struct host *h = dev;

    if (size == 4 && offset == CFG_SENSE_SIZE && value <= SENSE_SIZE_MAX && !virtio_ready(h->v))
        h->sense_size = value;
    else if (size == 4 && offset == CFG_CDB_SIZE && value != 0 && value <= SCSI_CDB_MAX &&
             !virtio_ready(h->v))
        h->cdb_size = value;
    else
        log_guest(h->env, "configuration +%#x cannot become %#x now", offset, value);
}

static void drain(void *dev)
{
    struct host *h = dev;

    block_drain(h->block);
}

static void refresh(void *dev)
{
    struct host *h = dev;

    block_refresh(h->block);
}

static void reset(void *dev)
{
    struct host *h = dev;

    block_drain(h->block);
    scsi_unit_reset(&h->unit);
    h->sense_size = SENSE_SIZE;
    h->cdb_size = CDB_SIZE;
    h->event_missed = h->change_due = false;
}

static void queue_reset(void *dev, unsigned queue)
{
    (void)queue;
    drain(dev);
}

/* Out of a snapshot: what the rest of the code takes for granted. */
static void loaded(void *dev)
{
    struct host *h = dev;

    if (h->sense_size > SENSE_SIZE_MAX)
        h->sense_size = SENSE_SIZE;
    if (h->cdb_size == 0 || h->cdb_size > SCSI_CDB_MAX)
        h->cdb_size = CDB_SIZE;
}

static void destroy(void *dev)
{
    struct host *h = dev;

    block_close(h->block); /* `done` of what is under way puts it on the list below */
    while (h->unused != NULL) {
        struct request *r = h->unused;

        h->unused = r->next;
        virtq_span_free(&r->data);
        virtq_span_free(&r->answer);
        free(r);
    }
    free(h);
}

static int set_serial(struct host *h, const struct options *opts, struct error *err)
{
    struct block_geometry geo;
    const char *serial;

    block_geometry(h->block, &geo);
    serial = opt_string(opts, "ser", geo.serial);
    if (strlen(serial) >= sizeof(h->unit.serial))
        return error_set(err, -EINVAL, "ser=%s: a serial number has at most %zu characters", serial,
                         sizeof(h->unit.serial) - 1);
    memcpy(h->unit.serial, serial, strlen(serial) + 1);
    return 0;
}

static int type_create(struct virtio *v, struct dev_env *env, const struct options *opts,
                       void **out, struct error *err)
{
    static const struct block_events events = {.changed = changed};
    unsigned cpus = env->cpus != 0 ? env->cpus : 1;
    uint64_t queues = opt_u64(opts, "queues", cpus < QUEUES_DEFAULT ? cpus : QUEUES_DEFAULT);
    struct host *h = calloc(1, sizeof(*h));
    int rc = 0;

    if (h == NULL)
        return error_set(err, -ENOMEM, "no memory for virtio-scsi");
    *out = h; /* the transport destroys it if this fails */
    h->env = env;
    h->v = v;
    h->sense_size = SENSE_SIZE;
    h->cdb_size = CDB_SIZE;
    h->queues = (unsigned)queues;
    if (queues == 0 || queues > VIRTIO_QUEUES_MAX - QUEUE_REQUEST)
        return error_set(err, -EINVAL, "queues=%llu: must be 1 to %u", (unsigned long long)queues,
                         VIRTIO_QUEUES_MAX - QUEUE_REQUEST);
    rc = virtio_set_queues(v, QUEUE_REQUEST + h->queues, err);
    if (rc == 0)
        rc = block_open(env, opts, false, &events, h, &h->block, err);
    if (rc == 0)
        rc = set_serial(h, opts, err);
    if (rc != 0)
        return rc;
    h->unit.block = h->block;
    h->unit.env = env;
    scsi_unit_init(&h->unit);
    virtio_add_features(v, SCSI_F_CHANGE);
    return 0;
}

static const struct state_field scsi_state[] = {
    STATE_FIELD(1, struct host, sense_size),     STATE_FIELD(2, struct host, cdb_size),
    STATE_FIELD(3, struct host, event_missed),   STATE_FIELD(4, struct host, change_due),
    STATE_FIELD(5, struct host, unit.attention),
};

static const struct virtio_ops scsi_ops = {
    .id = 8,
    .pci_id = 0x1004,
    .class_code = 0x010000, /* mass storage, SCSI */
    .queues = QUEUE_REQUEST + 1,
    .queue_size = QUEUE_SIZE,
    .cfg_len = CFG_SIZE,
    .state = scsi_state,
    .state_count = countof(scsi_state),
    .create = type_create,
    .destroy = destroy,
    .reset = reset,
    .quiesce = drain,
    .refresh = refresh,
    .loaded = loaded,
    .cfg_read = cfg_read,
    .cfg_write = cfg_write,
    .notify = notify,
    .queue_reset = queue_reset,
};

static int scsi_create(struct dev_env *env, struct pci_func *f, const struct options *opts,
                       void **out, struct error *err)
{
    return virtio_pci_create(env, f, opts, &scsi_ops, out, err);
}

static const struct dev_option scsi_options[] = {
    BLOCK_OPTIONS,
    {.name = "ser",
     .type = OPT_STRING,
     .value_name = "TEXT",
     .help = "serial number, at most 63 characters"},
    {.name = "queues",
     .type = OPT_U64,
     .value_name = "N",
     .help = "request queues (default: one for each vCPU, at most 4)"},
    VIRTIO_PCI_OPTIONS,
};

const struct pci_ops virtio_scsi_ops = {
    .name = "virtio-scsi",
    .summary = "a SCSI host with a disk",
    .options = scsi_options,
    .option_count = countof(scsi_options),
    .create = scsi_create,
    VIRTIO_PCI_OPS,
};
