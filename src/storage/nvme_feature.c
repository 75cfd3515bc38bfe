/* Set Features and Get Features. None can be saved over a power cycle. */
#include <string.h>

#include "base/endian.h"
#include "storage/nvme_impl.h"

#define SET_SAVE (1u << 31) /* DW10 */
#define GET_SELECT(dw10) ((dw10) >> 8 & 7)

#define THRESHOLD_UNDER 1u /* DW11 bits 20-21 of the temperature threshold */
#define VECTOR_NO_COALESCING (1u << 16)
#define ASYNC_EVENTS_KNOWN 0x1FFu /* the critical warnings, attribute changes of the namespace */

void nvme_features_reset(struct nvme *n)
{
    struct nvme_features *f = &n->feat;

    memset(f, 0, sizeof(*f));
    f->write_cache = 1;
    f->over_temperature = 0xFFFF;
    f->sqs = f->cqs = (uint16_t)n->io_queues;
}

static uint16_t set_temperature(struct nvme *n, uint32_t v)
{
    uint16_t kelvin = (uint16_t)v;
    unsigned sensor = v >> 16 & 0xF, type = v >> 20 & 3;

    /* 0 is the composite temperature, 15 all; there is no sensor beside it. */
    if ((sensor != 0 && sensor != 15) || type > THRESHOLD_UNDER)
        return ST_INVALID_FIELD;
    if (type == THRESHOLD_UNDER)
        n->feat.under_temperature = kelvin;
    else
        n->feat.over_temperature = kelvin;
    if (nvme_too_hot(n))
        nvme_event(n, EVENT_TEMPERATURE);
    return ST_SUCCESS;
}

static uint16_t set_queues(struct nvme *n, uint32_t v, uint32_t *result)
{
    uint32_t sqs = (v & 0xFFFF) + 1, cqs = (v >> 16) + 1;

    if (sqs > 0xFFFF || cqs > 0xFFFF)
        return ST_INVALID_FIELD;
    for (unsigned i = 1; i <= n->io_queues; i++)
        if (n->sq[i].size != 0 || n->cq[i].size != 0)
            return ST_COMMAND_SEQUENCE;
    n->feat.sqs = (uint16_t)min_u64(sqs, n->io_queues);
    n->feat.cqs = (uint16_t)min_u64(cqs, n->io_queues);
    *result = (uint32_t)(n->feat.cqs - 1) << 16 | (uint32_t)(n->feat.sqs - 1);
    return ST_SUCCESS;
}

static uint16_t set_vector(struct nvme *n, uint32_t v)
{
    unsigned vector = v & 0xFFFF;

    if (vector > n->io_queues)
        return ST_INVALID_FIELD;
    n->feat.no_coalescing[vector] = (v & VECTOR_NO_COALESCING) != 0;
    return ST_SUCCESS;
}

/*
 * Coalescing and arbitration are kept and change nothing: both are recommendations, and messages
 * are sent once for all that a call has completed.
 */
uint16_t nvme_set_features(struct nvme *n, const struct nvme_cmd *c, uint32_t *result)
{
    struct nvme_features *f = &n->feat;
    uint32_t v = c->dw11;

    if ((c->dw10 & SET_SAVE) != 0)
        return ST_FEATURE_NOT_SAVEABLE;
    switch (c->dw10 & 0xFF) {
    case FEAT_ARBITRATION:
        f->arbitration = v & 0xFFFFFF07u;
        return ST_SUCCESS;
    case FEAT_POWER:
        if ((v & 0x1F) != 0) /* there is one power state */
            return ST_INVALID_FIELD;
        f->power = v & 0xE0u;
        return ST_SUCCESS;
    case FEAT_TEMPERATURE:
        return set_temperature(n, v);
    case FEAT_ERROR_RECOVERY:
        if ((v & 0x10000u) != 0) /* errors for deallocated blocks are not offered */
            return ST_INVALID_FIELD;
        f->error_recovery = v & 0xFFFFu;
        return ST_SUCCESS;
    case FEAT_WRITE_CACHE:
        f->write_cache = v & 1;
        return ST_SUCCESS;
    case FEAT_QUEUES:
        return set_queues(n, v, result);
    case FEAT_COALESCING:
        f->coalescing = v & 0xFFFFu;
        return ST_SUCCESS;
    case FEAT_VECTOR:
        return set_vector(n, v);
    case FEAT_ATOMICITY:
        f->atomicity = v & 1;
        return ST_SUCCESS;
    case FEAT_ASYNC_EVENT:
        f->async_event = v & ASYNC_EVENTS_KNOWN;
        if (nvme_too_hot(n))
            nvme_event(n, EVENT_TEMPERATURE);
        return ST_SUCCESS;
    default:
        return ST_INVALID_FIELD;
    }
}

static uint16_t get_temperature(const struct nvme *n, uint32_t v, uint32_t *result)
{
    unsigned sensor = v >> 16 & 0xF, type = v >> 20 & 3;

    if (sensor != 0 || type > THRESHOLD_UNDER)
        return ST_INVALID_FIELD;
    *result = type == THRESHOLD_UNDER ? n->feat.under_temperature : n->feat.over_temperature;
    return ST_SUCCESS;
}

uint16_t nvme_get_features(struct nvme *n, const struct nvme_cmd *c, uint32_t *result)
{
    const struct nvme_features *f = &n->feat;
    unsigned vector = c->dw11 & 0xFFFF;

    if (GET_SELECT(c->dw10) != 0) /* not offered (ONCS) */
        return ST_INVALID_FIELD;
    switch (c->dw10 & 0xFF) {
    case FEAT_ARBITRATION:
        *result = f->arbitration;
        return ST_SUCCESS;
    case FEAT_POWER:
        *result = f->power;
        return ST_SUCCESS;
    case FEAT_TEMPERATURE:
        return get_temperature(n, c->dw11, result);
    case FEAT_ERROR_RECOVERY:
        *result = f->error_recovery;
        return ST_SUCCESS;
    case FEAT_WRITE_CACHE:
        *result = f->write_cache;
        return ST_SUCCESS;
    case FEAT_QUEUES:
        *result = (uint32_t)(f->cqs - 1) << 16 | (uint32_t)(f->sqs - 1);
        return ST_SUCCESS;
    case FEAT_COALESCING:
        *result = f->coalescing;
        return ST_SUCCESS;
    case FEAT_VECTOR:
        if (vector > n->io_queues)
            return ST_INVALID_FIELD;
        *result = vector | (f->no_coalescing[vector] != 0 ? VECTOR_NO_COALESCING : 0);
        return ST_SUCCESS;
    case FEAT_ATOMICITY:
        *result = f->atomicity;
        return ST_SUCCESS;
    case FEAT_ASYNC_EVENT:
        *result = f->async_event;
        return ST_SUCCESS;
    default:
        return ST_INVALID_FIELD;
    }
}
