/*
 * ATA devices behind a host adapter: a disk (ata_disk.c) and a CD drive (atapi.c). The adapter
 * brings a command's registers; the device asks it for the memory of the data, carries the command
 * out, and says when it has ended: at once, or later from the block layer.
 *
 * The adapter's device lock is held around every call but the two that make and destroy. ATA8-ACS
 * and ACS-2 for disks, SPC and MMC for the packets of a CD drive.
 */
#ifndef STORAGE_ATA_H
#define STORAGE_ATA_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "block/block.h"
#include "bus/device.h"

/* Status and error registers. */
#define ATA_ERR 0x01u
#define ATA_DRQ 0x08u
#define ATA_DSC 0x10u /* seek complete; newer editions have no name for it, drivers expect it */
#define ATA_DRDY 0x40u
#define ATA_BSY 0x80u
#define ATA_READY (ATA_DRDY | ATA_DSC)
#define ATA_ABRT 0x04u
#define ATA_IDNF 0x10u
#define ATA_UNC 0x40u

#define ATA_PACKET 0xA0u
#define ATA_DEVICE_LBA 0x40u
#define ATA_DEVICE_FUA 0x80u /* of the FPDMA commands */

#define ATA_QUEUE 32u

struct ata_device;

/* What the registers hold, the "previous" halves of the 48-bit commands above the others. */
struct ata_regs {
    uint8_t command, device, status, error;
    uint16_t feature, count;
    uint64_t lba; /* 48 bits */
};

enum ata_protocol { ATA_NO_DATA, ATA_PIO_IN, ATA_PIO_OUT, ATA_DMA_IN, ATA_DMA_OUT };

/* One command; the adapter has one for each tag. */
struct ata_command {
    struct ata_device *dev;
    unsigned tag;
    bool queued;        /* FPDMA: set by ata_queued's answer before `execute` */
    bool aborted;       /* the adapter's: nobody waits for the end any more, so come to it soon */
    struct ata_regs in; /* as the guest wrote them */
    uint8_t packet[16];

    struct ata_regs out;        /* as the guest will read them */
    enum ata_protocol protocol; /* set before `map` */
    uint64_t len;               /* bytes of data moved */

    /* by the adapter's `map`: exactly the bytes that were asked for, in order; none may be empty */
    struct iovec *iov;
    unsigned iov_count;

    /* the device's */
    struct block_request req;
    void *buffer; /* malloc'ed; freed at the end */
    uint64_t start;
    unsigned at, ranges;
};

struct ata_host {
    /*
     * Memory of the guest for len bytes (not 0) of this command's data. False: there is none; the
     * adapter has seen to it, and for the device the command has ended: it does not call `done`.
     */
    bool (*map)(struct ata_command *c, uint64_t len);
    void (*done)(struct ata_command *c);
};

struct ata_ops {
    uint8_t signature[4]; /* LBA low, mid, high and count after a reset, as in PxSIG: MSB first */
    uint8_t reset_status;
    bool (*queued)(uint8_t command);
    void (*execute)(struct ata_device *d, struct ata_command *c);
    void (*reset)(struct ata_device *d, bool power_on); /* nothing is under way */
    void (*changed)(struct ata_device *d);              /* the image or its size */
    void (*destroy)(struct ata_device *d);              /* of what is not in here */
    void (*save)(struct ata_device *d, struct state_buf *out);
    int (*load)(struct ata_device *d, const uint8_t *data, size_t len, size_t *pos,
                struct error *err);
    /* NULL takes out what is in; NULL for a disk. */
    int (*insert)(struct ata_device *d, const char *path, bool force, struct error *err);
};

struct ata_device {
    const struct ata_ops *ops;
    struct dev_env *env;
    const struct ata_host *host;
    struct block *block;
    struct block_geometry geo;
    char serial[21], model[41], revision[9];
    uint16_t rotation; /* as in word 217: 0 not reported, 1 does not rotate, else rpm */
    uint8_t power;     /* as CHECK POWER MODE says: 0xFF active, 0x80 idle, 0 standby */
    uint8_t transfer;  /* as SET FEATURES was told */
};

/*
 * Opens the image that the options name: rows of BLOCK_OPTIONS and ATA_OPTIONS. env->lock is not
 * held. Errors are one sentence.
 */
int ata_disk_create(struct dev_env *env, const struct options *opts, const struct ata_host *host,
                    struct ata_device **out, struct error *err);
int atapi_create(struct dev_env *env, const struct options *opts, const struct ata_host *host,
                 struct ata_device **out, struct error *err);
void ata_destroy(struct ata_device *d); /* env->lock not held; NULL is allowed */

#define ATA_OPTIONS                                                                                \
    {.name = "ser", .type = OPT_STRING, .value_name = "TEXT", .help = "serial number, up to 20"},  \
        {.name = "rev",                                                                            \
         .type = OPT_STRING,                                                                       \
         .value_name = "TEXT",                                                                     \
         .help = "firmware revision, up to 8"},                                                    \
        {.name = "model", .type = OPT_STRING, .value_name = "TEXT", .help = "model, up to 40"},    \
    {                                                                                              \
        .name = "nmrr", .type = OPT_U64, .value_name = "N",                                        \
        .help = "rotations per minute; 1 (the default): does not rotate, 0: not told"              \
    }

/* ---- between ata.c, ata_disk.c, ata_identify.c and atapi.c ---- */

/* Opens the block device and fills in the names; d is zeroed but for ops, env and host. */
int ata_open(struct ata_device *d, const struct options *opts, bool removable, const char *model,
             struct error *err);

/* Ends c: status ATA_READY, or ATA_ERR with these error bits. */
void ata_ok(struct ata_command *c);
void ata_fail(struct ata_command *c, uint8_t error);
/* c->out is filled in. */
void ata_end(struct ata_command *c);

/* A new request of c: the caller submits it. */
struct block_request *ata_request(struct ata_command *c, enum block_op op, uint64_t offset,
                                  uint64_t len, void (*done)(struct block_request *r, int rc));
static inline struct ata_command *ata_of(struct block_request *r)
{
    return container_of(r, struct ata_command, req);
}

/* Maps len bytes and copies data there; ends nothing. False as `map`. */
bool ata_data_in(struct ata_command *c, const void *data, uint64_t len);
/* From the guest. */
bool ata_data_out(struct ata_command *c, void *data, uint64_t len);

/* Commands that disks and packet devices share; false if this is none. */
bool ata_common(struct ata_device *d, struct ata_command *c);

/* What stands in the registers after a reset. */
void ata_signature(const struct ata_device *d, struct ata_regs *out);

/* The 512 bytes of IDENTIFY (PACKET) DEVICE, ready to be sent. */
#define ATA_IDENTIFY_SIZE 512u
struct ata_identify {
    bool packet, write_cache, look_ahead;
    uint8_t multiple;
    uint16_t trim_blocks; /* that one DATA SET MANAGEMENT may have; 0: no TRIM */
};
void ata_identify(const struct ata_device *d, const struct ata_identify *i,
                  uint8_t out[ATA_IDENTIFY_SIZE]);

#define ATA_MULTIPLE_MAX 16u

#endif
