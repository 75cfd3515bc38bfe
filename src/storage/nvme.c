/*
 * "nvme": an NVM Express 1.4 controller with one namespace, whose content is a disk of block/.
 * Registers in BAR 0, MSI-X in BAR 4 (a vector for each queue) or INTx, PRP lists, volatile write
 * cache, deallocation.
 *
 * Here the controller as a PCI device: registers, and what enables, resets and shuts it down.
 */
#include "storage/storage.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "storage/nvme_impl.h"

#define NVME_BAR 0u
#define NVME_BAR_SIZE 0x4000u
#define NVME_BAR_MSIX 4u
#define NVME_VENDOR 0xFB5Du /* bhyve's */
#define NVME_DEVICE 0x0A0Au
#define NVME_CLASS 0x010802u /* mass storage, non-volatile memory, NVM Express */
#define NVME_TIMEOUT 40u     /* in 500 ms: a reset waits for what is under way */

static_assert(REG_DOORBELLS + 8 * NVME_QUEUES_MAX <= NVME_BAR_SIZE, "doorbells fit in the BAR");

/* ---- enable, reset, shutdown ---- */

/* Everything under way ends, nothing of it is told. */
static void drain(struct nvme *n)
{
    n->dropping = true;
    block_drain(n->block);
    n->dropping = false;
}

/* CC.EN from 1 to 0. AQA, ASQ and ACQ stay. */
static void controller_reset(struct nvme *n)
{
    drain(n);
    nvme_queues_reset(n);
    nvme_features_reset(n);
    n->ready = n->fatal = false;
    n->shst = SHST_NORMAL;
    n->intm = 0;
    n->event_requests = 0;
    n->events = n->masked = 0;
    n->ns_changed = 0;
    pci_intx(n->f, false);
}

static void enable(struct nvme *n)
{
    uint32_t asqs = (n->aqa & 0xFFF) + 1, acqs = (n->aqa >> 16 & 0xFFF) + 1;
    struct nvme_cq *cq = &n->cq[0];
    struct nvme_sq *sq = &n->sq[0];

    n->shst = SHST_NORMAL;
    if ((n->cc >> CC_CSS_SHIFT & 7) != 0 || (n->cc >> CC_MPS_SHIFT & 0xF) != 0 ||
        (n->cc >> CC_AMS_SHIFT & 7) != 0 || asqs < 2 || acqs < 2 ||
        !nvme_ring_valid(n, n->asq, asqs, SQE_SIZE) ||
        !nvme_ring_valid(n, n->acq, acqs, CQE_SIZE)) {
        log_guest(n->env, "cannot be enabled with CC %#x, AQA %#x, ASQ %#llx, ACQ %#llx", n->cc,
                  n->aqa, (unsigned long long)n->asq, (unsigned long long)n->acq);
        n->fatal = true;
        return;
    }
    sq->base = n->asq;
    sq->size = asqs;
    cq->base = n->acq;
    cq->size = acqs;
    cq->interrupts = true;
    cq->phase = 1;
    cq->sqs = 1;
    n->ready = true;
}

static void cc_write(struct nvme *n, uint32_t value)
{
    uint32_t old = n->cc;

    n->cc = value & CC_WRITABLE;
    if ((old & CC_EN) != 0 && (value & CC_EN) == 0)
        controller_reset(n);
    else if ((old & CC_EN) == 0 && (value & CC_EN) != 0)
        enable(n);
    if ((old >> CC_SHN_SHIFT & 3) == 0 && (value >> CC_SHN_SHIFT & 3) != 0)
        nvme_shutdown_begin(n);
}

/* ---- registers ---- */

static uint64_t cap(const struct nvme *n)
{
    return (n->queue_size - 1) | CAP_CQR | (uint64_t)NVME_TIMEOUT << CAP_TO_SHIFT | CAP_CSS_NVM;
}

static uint32_t reg_read(const struct nvme *n, uint64_t offset)
{
    switch (offset) {
    case REG_CAP:
        return (uint32_t)cap(n);
    case REG_CAP + 4:
        return (uint32_t)(cap(n) >> 32);
    case REG_VS:
        return NVME_VERSION;
    case REG_INTMS:
    case REG_INTMC:
        return n->intm;
    case REG_CC:
        return n->cc;
    case REG_CSTS:
        return (n->ready ? CSTS_RDY : 0) | (n->fatal ? CSTS_CFS : 0) |
               (uint32_t)n->shst << CSTS_SHST_SHIFT;
    case REG_AQA:
        return n->aqa;
    case REG_ASQ:
        return (uint32_t)n->asq;
    case REG_ASQ + 4:
        return (uint32_t)(n->asq >> 32);
    case REG_ACQ:
        return (uint32_t)n->acq;
    case REG_ACQ + 4:
        return (uint32_t)(n->acq >> 32);
    default: /* reserved, or what CAP does not offer; doorbells are written only */
        return 0;
    }
}

static void set_half(uint64_t *reg, bool high, uint32_t value)
{
    if (high)
        *reg = (uint32_t)*reg | (uint64_t)value << 32;
    else
        *reg = (*reg & ~0xFFFFFFFFull) | (value & ~(NVME_PAGE - 1u));
}

static void reg_write(struct nvme *n, uint64_t offset, uint32_t value)
{
    switch (offset) {
    case REG_INTMS:
        n->intm |= value;
        nvme_intx_update(n);
        return;
    case REG_INTMC:
        n->intm &= ~value;
        nvme_intx_update(n);
        return;
    case REG_CC:
        cc_write(n, value);
        return;
    case REG_AQA:
    case REG_ASQ:
    case REG_ASQ + 4:
    case REG_ACQ:
    case REG_ACQ + 4:
        if ((n->cc & CC_EN) != 0) {
            log_guest(n->env, "write to register %#x of the admin queue while enabled",
                      (unsigned)offset);
            return;
        }
        if (offset == REG_AQA)
            n->aqa = value & AQA_WRITABLE;
        else
            set_half(offset < REG_ACQ ? &n->asq : &n->acq, (offset & 4) != 0, value);
        return;
    default:
        log_guest(n->env, "write of %#x to register %#x, which cannot be written", value,
                  (unsigned)offset);
        return;
    }
}

static uint64_t nvme_bar_read(void *dev, unsigned bar, uint64_t offset, unsigned size)
{
    struct nvme *n = dev;
    uint64_t at = offset & ~3ull, value = reg_read(n, at);

    (void)bar;
    if ((offset & 3) + size > 4)
        value |= (uint64_t)reg_read(n, at + 4) << 32;
    return value >> 8 * (offset & 3) & bytes_mask(size);
}

static void nvme_bar_write(void *dev, unsigned bar, uint64_t offset, unsigned size, uint64_t value)
{
    struct nvme *n = dev;

    (void)bar;
    /* The specification asks for aligned accesses of 32 or 64 bits; doorbells have 32. */
    if ((offset & 3) != 0 || size < 4 || (size == 8 && offset >= REG_DOORBELLS)) {
        log_guest(n->env, "write of %u bytes to register %#x", size, (unsigned)offset);
        return;
    }
    if (offset >= REG_DOORBELLS) {
        nvme_doorbell(n, offset - REG_DOORBELLS, (uint32_t)value);
        return;
    }
    reg_write(n, offset, (uint32_t)value);
    if (size == 8)
        reg_write(n, offset + 4, (uint32_t)(value >> 32));
}

/* ---- the disk ---- */

static void disk_changed(void *ctx)
{
    struct nvme *n = ctx;

    block_geometry(n->block, &n->geometry);
    n->lba_count = n->geometry.size >> n->lba_shift;
    log_info(n->env->log, "%s: the namespace has %llu blocks now", n->env->name,
             (unsigned long long)n->lba_count);
    if (n->ready)
        n->ns_changed = 1;
    nvme_event(n, EVENT_NS);
    nvme_run(n);
}

static void nvme_refresh(void *dev)
{
    struct nvme *n = dev;

    block_refresh(n->block);
}

static const struct block_events disk_events = {.changed = disk_changed};

/* ---- the device ---- */

static void kicked(void *ctx)
{
    nvme_run(ctx);
}

static void nvme_free(struct nvme *n)
{
    for (unsigned i = 0; n->slots != NULL && i < n->slot_count; i++)
        free(n->slots[i].ranges);
    timer_free(n->kick);
    free(n->slots);
    free(n);
}

static int make_slots(struct nvme *n, struct error *err)
{
    n->slots = calloc(n->slot_count, sizeof(*n->slots));
    n->kick = timer_create_env(n->env, kicked, n);
    if (n->slots == NULL || n->kick == NULL)
        return error_set(err, -ENOMEM, "no memory for %u commands of %s", n->slot_count,
                         n->env->name);
    for (unsigned i = n->slot_count; i-- > 0;) {
        n->slots[i].n = n;
        nvme_slot_put(&n->slots[i]);
    }
    return 0;
}

static int make_pci(struct nvme *n, struct error *err)
{
    int rc;

    pci_set_ids(n->f, NVME_VENDOR, NVME_DEVICE, 0, NVME_CLASS, NVME_VENDOR, NVME_DEVICE);
    pci_add_intx(n->f);
    rc = pci_add_bar(n->f, NVME_BAR, PCI_BAR_MEM64, NVME_BAR_SIZE, err);
    if (rc == 0)
        rc = pci_add_msix(n->f, n->io_queues + 1, NVME_BAR_MSIX, err);
    return rc;
}

static int nvme_create(struct dev_env *env, struct pci_func *f, const struct options *opts,
                       void **out, struct error *err)
{
    struct nvme *n = calloc(1, sizeof(*n));
    int rc;

    if (n == NULL)
        return error_set(err, -ENOMEM, "%s: no memory", env->name);
    n->env = env;
    n->f = f;
    n->epoch_ns = clock_now(env);
    rc = nvme_options_read(n, opts, err);
    if (rc == 0)
        rc = make_pci(n, err);
    if (rc == 0)
        rc = make_slots(n, err);
    if (rc == 0)
        rc = block_open(env, opts, false, &disk_events, n, &n->block, err);
    if (rc == 0) {
        block_geometry(n->block, &n->geometry);
        rc = nvme_disk_options(n, opts, err);
        if (rc != 0)
            block_close(n->block);
    }
    if (rc != 0) {
        nvme_free(n);
        return rc;
    }
    nvme_queues_reset(n);
    nvme_features_reset(n);
    *out = n;
    return 0;
}

static void nvme_destroy(void *dev)
{
    struct nvme *n = dev;

    drain(n);
    block_close(n->block);
    nvme_free(n);
}

/* The error log and the counters are of the disk and survive, as on hardware. */
static void nvme_reset(void *dev)
{
    struct nvme *n = dev;

    controller_reset(n);
    timer_cancel(n->kick);
    n->cc = n->aqa = 0;
    n->asq = n->acq = 0;
}

/* Commands that were left in a queue when the state was saved: after all devices are loaded. */
static void nvme_loaded(void *dev)
{
    struct nvme *n = dev;

    nvme_intx_update(n);
    timer_set(n->kick, clock_now(n->env));
}

static const struct dev_option nvme_options[] = {
    BLOCK_OPTIONS,
    {.name = "maxq", .type = OPT_U64, .value_name = "N", .help = "I/O queue pairs, 1-64 (16)"},
    {.name = "qsz",
     .type = OPT_U64,
     .value_name = "N",
     .help = "entries of the longest queue, 2-65536 (2048)"},
    {.name = "ioslots",
     .type = OPT_U64,
     .value_name = "N",
     .help = "commands under way at once, 1-1024 (128)"},
    {.name = "sectsz",
     .type = OPT_U64,
     .value_name = "BYTES",
     .help = "bytes of a logical block, 512, 4096 or 8192 (default: the image's sector)"},
    {.name = "ser", .type = OPT_STRING, .value_name = "TEXT", .help = "serial number"},
    {.name = "eui64", .type = OPT_U64, .value_name = "NUMBER", .help = "the namespace's EUI-64"},
    {.name = "dsm",
     .type = OPT_STRING,
     .value_name = "auto|enable|disable",
     .help = "offer deallocation (auto: if the image can give space back)"},
};

const struct pci_ops nvme_ops = {
    .name = "nvme",
    .summary = "NVMe controller with one disk",
    .options = nvme_options,
    .option_count = countof(nvme_options),
    .state = nvme_state,
    .state_count = NVME_STATE_COUNT,
    .create = nvme_create,
    .destroy = nvme_destroy,
    .reset = nvme_reset,
    .loaded = nvme_loaded,
    .bar_read = nvme_bar_read,
    .bar_write = nvme_bar_write,
    .quiesce = nvme_quiesce,
    .refresh = nvme_refresh,
    .save = nvme_save,
    .load = nvme_load,
};
