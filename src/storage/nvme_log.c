/*
 * Log pages, the error log, and asynchronous events. An event is told once; its type is then silent
 * until the driver has read the log page that belongs to it.
 */
#include <string.h>

#include "base/endian.h"
#include "storage/nvme_impl.h"

#define RETAIN_EVENT (1u << 15) /* DW10 of Get Log Page */

#define WARN_TEMPERATURE 0x02u
#define NSEC_PER_HOUR (3600 * NSEC_PER_SEC)
#define NSEC_PER_MINUTE (60 * NSEC_PER_SEC)

/* ---- events ---- */

static const struct {
    uint8_t type, info, page;
} event_table[] = {
    [EVENT_BAD_DOORBELL] = {EVENT_TYPE_ERROR, 0, LOG_PAGE_ERROR},
    [EVENT_BAD_DOORBELL_VALUE] = {EVENT_TYPE_ERROR, 1, LOG_PAGE_ERROR},
    [EVENT_TEMPERATURE] = {EVENT_TYPE_HEALTH, 1, LOG_PAGE_HEALTH},
    [EVENT_NS] = {EVENT_TYPE_NOTICE, 0, LOG_PAGE_CHANGED_NS},
};

bool nvme_too_hot(const struct nvme *n)
{
    return NVME_TEMPERATURE >= n->feat.over_temperature ||
           NVME_TEMPERATURE <= n->feat.under_temperature;
}

void nvme_event(struct nvme *n, enum nvme_event event)
{
    if (!n->ready || (event == EVENT_NS && (n->feat.async_event & AEC_NS_ATTRIBUTE) == 0) ||
        (event == EVENT_TEMPERATURE && (n->feat.async_event & AEC_TEMPERATURE) == 0))
        return;
    n->events |= (uint8_t)(1u << event);
}

void nvme_events_deliver(struct nvme *n)
{
    for (unsigned i = 0; i < countof(event_table) && n->event_requests > 0; i++) {
        unsigned type = event_table[i].type;

        if ((n->events >> i & 1) == 0 || (n->masked >> type & 1) != 0 || !nvme_cq_room(n, 0))
            continue;
        n->events &= (uint8_t) ~(1u << i);
        n->masked |= (uint8_t)(1u << type);
        nvme_cq_post(n, 0, 0, n->event_cids[0], ST_SUCCESS,
                     type | (uint32_t)event_table[i].info << 8 |
                         (uint32_t)event_table[i].page << 16);
        n->event_requests--;
        memmove(&n->event_cids[0], &n->event_cids[1], n->event_requests * sizeof(n->event_cids[0]));
    }
}

/* ---- the error log ---- */

void nvme_log_error(struct nvme *n, uint16_t sqid, uint16_t cid, uint16_t status, uint64_t lba,
                    uint32_t nsid)
{
    n->errors[n->error_count % NVME_ERROR_ENTRIES] = (struct nvme_error){
        .count = n->error_count + 1,
        .lba = lba,
        .nsid = nsid,
        .sqid = sqid,
        .cid = cid,
        .status = status,
        .location = 0xFFFF, /* which byte of the command is not told */
    };
    n->error_count++;
}

/* Newest first. */
static void error_page(const struct nvme *n, uint8_t *p)
{
    uint64_t count = min_u64(n->error_count, NVME_ERROR_ENTRIES);

    for (uint64_t i = 0; i < count; i++) {
        const struct nvme_error *e = &n->errors[(n->error_count - 1 - i) % NVME_ERROR_ENTRIES];

        le64_store(p + 64 * i, e->count);
        le16_store(p + 64 * i + 8, e->sqid);
        le16_store(p + 64 * i + 10, e->cid);
        le16_store(p + 64 * i + 12, (uint16_t)(e->status << 1));
        le16_store(p + 64 * i + 14, e->location);
        le64_store(p + 64 * i + 16, e->lba);
        le32_store(p + 64 * i + 24, e->nsid);
    }
}

/* ---- pages ---- */

/* Units of 1,000 times 512 bytes, rounded up. */
static uint64_t data_units(uint64_t sectors)
{
    return (sectors + 999) / 1000;
}

static void health_page(struct nvme *n, uint8_t *p)
{
    const struct nvme_counters *c = &n->counters;
    uint64_t busy = c->busy_ns + (n->busy_slots != 0 ? clock_now(n->env) - n->busy_since : 0);

    p[0] = nvme_too_hot(n) ? WARN_TEMPERATURE : 0;
    le16_store(p + 1, NVME_TEMPERATURE);
    p[3] = 100; /* spare blocks left, in percent */
    p[4] = 10;
    le64_store(p + 32, data_units(c->read_sectors));
    le64_store(p + 48, data_units(c->written_sectors));
    le64_store(p + 64, c->reads);
    le64_store(p + 80, c->writes);
    le64_store(p + 96, busy / NSEC_PER_MINUTE);
    le64_store(p + 112, 1); /* power cycles: the VM's own, nothing is kept beyond it */
    le64_store(p + 128, (clock_now(n->env) - n->epoch_ns) / NSEC_PER_HOUR);
    le64_store(p + 160, c->media_errors);
    le64_store(p + 176, n->error_count);
}

static void firmware_page(uint8_t *p)
{
    p[0] = 1; /* slot 1 is active */
    memcpy(p + 8, "1.0     ", 8);
}

static void effects_page(const struct nvme *n, uint8_t *p)
{
    static const uint8_t admin[] = {
        ADMIN_DELETE_SQ,    ADMIN_CREATE_SQ,   ADMIN_GET_LOG_PAGE, ADMIN_DELETE_CQ,
        ADMIN_CREATE_CQ,    ADMIN_IDENTIFY,    ADMIN_ABORT,        ADMIN_SET_FEATURES,
        ADMIN_GET_FEATURES, ADMIN_ASYNC_EVENT, ADMIN_DBBUF_CONFIG,
    };
    uint8_t *io = p + 1024;

    /* Bit 0: supported; bit 1: changes the content of blocks. */
    for (unsigned i = 0; i < countof(admin); i++)
        le32_store(p + 4 * admin[i], 1);
    le32_store(io + 4 * NVM_FLUSH, 1);
    le32_store(io + 4 * NVM_READ, 1);
    le32_store(io + 4 * NVM_WRITE, 3);
    le32_store(io + 4 * NVM_WRITE_ZEROES, 3);
    if (n->dsm)
        le32_store(io + 4 * NVM_DSM, 3);
}

/* The page in p, which holds 4096 zero bytes; its length, 0 if there is no such page. */
static uint64_t page_make(struct nvme *n, unsigned id, uint8_t *p, unsigned *type)
{
    *type = EVENT_TYPES;
    switch (id) {
    case LOG_PAGE_ERROR:
        error_page(n, p);
        *type = EVENT_TYPE_ERROR;
        return NVME_ERROR_ENTRIES * 64ull;
    case LOG_PAGE_HEALTH:
        health_page(n, p);
        *type = EVENT_TYPE_HEALTH;
        return 512;
    case LOG_PAGE_FIRMWARE:
        firmware_page(p);
        return 512;
    case LOG_PAGE_CHANGED_NS:
        le32_store(p, n->ns_changed);
        *type = EVENT_TYPE_NOTICE;
        return 4096;
    case LOG_PAGE_EFFECTS:
        effects_page(n, p);
        return 4096;
    default:
        return 0;
    }
}

uint16_t nvme_get_log_page(struct nvme *n, const struct nvme_cmd *c)
{
    uint8_t page[4096] = {0}, copy[4096] = {0};
    unsigned id = c->dw10 & 0xFF, type;
    uint64_t len = (((uint64_t)(c->dw11 & 0xFFFF) << 16 | c->dw10 >> 16) + 1) * 4;
    uint64_t offset = (uint64_t)c->dw13 << 32 | c->dw12;
    uint64_t size = page_make(n, id, page, &type);
    uint16_t st;

    if (size == 0)
        return ST_INVALID_LOG;
    if ((offset & 3) != 0 || offset > size || len > NVME_TRANSFER_MAX)
        return ST_INVALID_FIELD;
    /* No page is by namespace (LPA bit 0). */
    if (id == LOG_PAGE_HEALTH && c->nsid != 0 && c->nsid != NSID_ALL)
        return ST_INVALID_FIELD;
    memcpy(copy, page + offset, size - offset);
    /* What lies behind the page's end is undefined and left alone. */
    st = nvme_copy_to_host(n, c, copy, min_u64(len, sizeof(copy)));
    if (st != ST_SUCCESS)
        return st;
    if ((c->dw10 & RETAIN_EVENT) == 0 && type < EVENT_TYPES) {
        n->masked &= (uint8_t) ~(1u << type);
        if (type == EVENT_TYPE_NOTICE)
            n->ns_changed = 0;
    }
    return ST_SUCCESS;
}
