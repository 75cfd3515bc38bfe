/*
 * What the files of the NVMe controller share. env->lock is held around everything here.
 *
 * A command is copied out of its submission queue once and judged by the copy (struct nvme_cmd).
 * Admin commands are done on the spot, but for those that wait for something (asynchronous events,
 * deletion of a queue with commands under way). An I/O command takes a slot until its completion
 * has been written: so slots bound what is under way, and a full completion queue loses nothing.
 */
#ifndef STORAGE_NVME_IMPL_H
#define STORAGE_NVME_IMPL_H

#include "block/block.h"
#include "pci/pci.h"
#include "storage/nvme_spec.h"

#define NVME_IO_QUEUES_MAX 64u
#define NVME_QUEUES_MAX (NVME_IO_QUEUES_MAX + 1u) /* 0 is the admin queue */
#define NVME_SLOTS_MAX 1024u
#define NVME_MDTS 7u /* the largest transfer: 2^7 pages */
#define NVME_TRANSFER_MAX ((uint64_t)NVME_PAGE << NVME_MDTS)
#define NVME_SEGMENTS ((1u << NVME_MDTS) + 1u) /* one more if it does not begin on a page */
#define NVME_EVENT_REQUESTS 4u
#define NVME_ERROR_ENTRIES 16u
#define NVME_DSM_RANGES 256u
#define NVME_TEMPERATURE 300u /* kelvin; a disk in memory or a file does not get warm */

#define NVME_NOT_RESTED UINT32_MAX

struct nvme_sq {
    uint64_t base; /* gpa */
    uint32_t size; /* entries; 0: there is no such queue */
    uint32_t head, tail;
    uint16_t cqid;
    uint8_t deleting;    /* Delete I/O Submission Queue waits for what is under way */
    uint16_t delete_cid; /* that command */
    unsigned inflight;   /* slots that are not yet completed; not saved, 0 then */
    uint32_t rested;     /* the tail at which the doorbell was last asked for; not saved */
};

struct nvme_cq {
    uint64_t base;
    uint32_t size;
    uint32_t head, tail;
    uint16_t vector;
    uint8_t interrupts, phase;
    unsigned sqs;                       /* that complete here; derived */
    bool dirty;                         /* entries were written since the last message */
    struct nvme_slot *held, **held_end; /* completions that wait for room, oldest first */
};

/* A command's copy. */
struct nvme_cmd {
    uint8_t opcode;
    uint16_t flags; /* CDW0 bits 8-15: fused, PRP or SGL */
    uint16_t cid, sqid;
    uint32_t nsid;
    uint64_t prp1, prp2;
    uint32_t dw10, dw11, dw12, dw13;
};

/* The host memory of a transfer. gpa: of each piece, for gmem_written. */
struct nvme_map {
    unsigned count;
    struct iovec iov[NVME_SEGMENTS];
    uint64_t gpa[NVME_SEGMENTS];
};

struct nvme_slot {
    struct block_request req;
    struct nvme *n;
    struct nvme_slot *next; /* in the free list or in a queue's held ones */
    uint16_t sqid, cqid, cid, status;
    uint8_t opcode;
    uint64_t slba;
    uint8_t *ranges; /* Dataset Management: what is left to do; owned */
    unsigned range, range_count;
    struct nvme_map map;
};

struct nvme_features {
    uint32_t arbitration, power, error_recovery, write_cache, coalescing, atomicity, async_event;
    uint16_t over_temperature, under_temperature;
    uint16_t sqs, cqs;                      /* I/O queues that the driver may make */
    uint8_t no_coalescing[NVME_QUEUES_MAX]; /* by vector */
};

struct nvme_error {
    uint64_t count, lba;
    uint32_t nsid;
    uint16_t sqid, cid, status, location;
};

struct nvme_counters {
    uint64_t read_sectors, written_sectors; /* of 512 bytes */
    uint64_t reads, writes, media_errors, busy_ns;
};

struct nvme {
    struct dev_env *env;
    struct pci_func *f;
    struct block *block;
    struct block_geometry geometry;
    struct timer *kick; /* goes on with commands that were left */

    /* as the options say */
    unsigned io_queues;
    uint32_t queue_size;
    unsigned slot_count;
    unsigned lba_shift;
    uint64_t lba_count;
    bool dsm;
    char serial[21];
    char nqn[224];
    uint64_t eui64;
    uint8_t uuid[16];

    /* registers */
    uint32_t cc, aqa, intm;
    uint64_t asq, acq;
    uint8_t ready, fatal, shst;

    struct nvme_sq sq[NVME_QUEUES_MAX];
    struct nvme_cq cq[NVME_QUEUES_MAX];
    uint64_t dbbuf, eventidx; /* gpa of the shadow doorbell pages */
    uint8_t dbbuf_on;

    struct nvme_features feat;
    uint16_t event_cids[NVME_EVENT_REQUESTS]; /* Asynchronous Event Requests that wait */
    uint32_t event_requests;
    uint8_t events; /* bits of enum nvme_event: happened, not yet told */
    uint8_t masked; /* bits of event types: told, and their log page was not read since */
    uint8_t ns_changed;

    struct nvme_error errors[NVME_ERROR_ENTRIES]; /* ring; the last at (error_count - 1) */
    uint64_t error_count;
    struct nvme_counters counters;
    uint64_t epoch_ns; /* VM time at power-on */
    uint64_t busy_since;

    struct nvme_slot *slots, *free_slots;
    unsigned busy_slots; /* at the block layer */
    struct block_request shutdown;
    bool shutdown_busy;
    bool running;  /* inside nvme_run */
    bool dropping; /* a reset drains: completions go nowhere */
    bool quiet;    /* nothing new is begun */
    struct nvme_map admin_map;
};

enum nvme_event { EVENT_BAD_DOORBELL, EVENT_BAD_DOORBELL_VALUE, EVENT_TEMPERATURE, EVENT_NS };

/* ---- nvme_queue.c ---- */
/* Fetches and begins commands while there are any, and room for them. */
void nvme_run(struct nvme *n);
void nvme_doorbell(struct nvme *n, uint64_t offset, uint32_t value);
/* Whether the completion queue takes another entry. */
bool nvme_cq_room(struct nvme *n, unsigned cqid);
/* Writes one; there must be room. Interrupts follow with nvme_interrupts. */
void nvme_cq_post(struct nvme *n, unsigned cqid, uint16_t sqid, uint16_t cid, uint16_t status,
                  uint32_t result);
void nvme_interrupts(struct nvme *n);
void nvme_intx_update(struct nvme *n);
/* The slot's command is done: its completion is written, or held until there is room. */
void nvme_complete(struct nvme_slot *s);
void nvme_held_flush(struct nvme *n, unsigned cqid);
/* Commands of this submission queue whose completions were held have no completion any more. */
void nvme_held_drop(struct nvme *n, unsigned sqid);
void nvme_hold(struct nvme_slot *s);
void nvme_held_free(struct nvme *n); /* all of them */
struct nvme_slot *nvme_slot_get(struct nvme *n);
void nvme_slot_put(struct nvme_slot *s);
void nvme_queues_reset(struct nvme *n);
/* size entries at base are in RAM and begin on a page. */
bool nvme_ring_valid(struct nvme *n, uint64_t base, uint32_t size, unsigned entry);
/* Tells the driver where the shadow doorbells stand, so that it rings when that is needed. */
void nvme_dbbuf_start(struct nvme *n);

/* ---- nvme_prp.c ---- */
/* The host memory of len bytes (1 to NVME_TRANSFER_MAX) behind PRP1 and PRP2; a status. */
uint16_t nvme_prp_map(struct nvme *n, uint64_t prp1, uint64_t prp2, uint64_t len,
                      struct nvme_map *m);
/* After the memory was written. */
void nvme_map_written(struct nvme *n, const struct nvme_map *m);
/* Copies to and from the memory of an admin command; a status. */
uint16_t nvme_copy_to_host(struct nvme *n, const struct nvme_cmd *c, const void *from,
                           uint64_t len);
uint16_t nvme_copy_from_host(struct nvme *n, const struct nvme_cmd *c, void *to, uint64_t len);

/* ---- nvme_admin.c ---- */
/* True if c is done, with *status and *result; false if its completion comes later. */
bool nvme_admin(struct nvme *n, const struct nvme_cmd *c, uint16_t *status, uint32_t *result);
/* Completes what waited: deleted queues, events. */
void nvme_admin_waiting(struct nvme *n);

/* ---- nvme_feature.c ---- */
void nvme_features_reset(struct nvme *n);
uint16_t nvme_set_features(struct nvme *n, const struct nvme_cmd *c, uint32_t *result);
uint16_t nvme_get_features(struct nvme *n, const struct nvme_cmd *c, uint32_t *result);

/* ---- nvme_identify.c ---- */
uint16_t nvme_identify(struct nvme *n, const struct nvme_cmd *c);

/* ---- nvme_log.c ---- */
uint16_t nvme_get_log_page(struct nvme *n, const struct nvme_cmd *c);
void nvme_log_error(struct nvme *n, uint16_t sqid, uint16_t cid, uint16_t status, uint64_t lba,
                    uint32_t nsid);
void nvme_event(struct nvme *n, enum nvme_event event);
/* Gives events that happened to requests that wait, while the admin queue has room. */
void nvme_events_deliver(struct nvme *n);
bool nvme_too_hot(const struct nvme *n);

/* ---- nvme_io.c ---- */
/* Begins an I/O command in a slot that holds its ids. */
void nvme_io(struct nvme_slot *s, const struct nvme_cmd *c);
void nvme_shutdown_begin(struct nvme *n);

/* ---- nvme_state.c ---- */
#define NVME_STATE_COUNT 36u
extern const struct state_field nvme_state[NVME_STATE_COUNT];
/* Ends what is under way; nothing new is begun until the VM's clock goes on. */
void nvme_quiesce(void *dev);
void nvme_save(void *dev, struct state_buf *out);
int nvme_load(void *dev, const uint8_t *data, size_t len, size_t *pos, struct error *err);

/* ---- nvme_option.c ---- */
/* Before and after the disk is open. */
int nvme_options_read(struct nvme *n, const struct options *opts, struct error *err);
int nvme_disk_options(struct nvme *n, const struct options *opts, struct error *err);

#endif
