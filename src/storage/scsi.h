/*
 * A SCSI disk: the commands of SPC-4 and SBC-3 that operating systems use, over a block device.
 * What carries them (virtio-scsi, ATAPI ...) makes a struct scsi_command and gets status, sense and
 * data.
 *
 * Owner: a device, whose env->lock is held around every call, and inside `done`. Commands run at
 * once, many at a time; `done` comes inside scsi_execute or later, as with block_submit.
 */
#ifndef STORAGE_SCSI_H
#define STORAGE_SCSI_H

#include "block/block.h"

#define SCSI_CDB_MAX 32u
#define SCSI_SENSE_LEN 18u

#define SCSI_GOOD 0x00u
#define SCSI_CHECK_CONDITION 0x02u

/* A logical unit. Fill in block and serial, zero the rest, then scsi_unit_init. */
struct scsi_unit {
    struct block *block; /* borrowed */
    struct dev_env *env;
    char serial[64];
    struct block_geometry geo;
    uint16_t
        attention; /* additional sense of a unit attention that is due: code << 8 | qualifier */
};

struct scsi_range {
    uint64_t offset, len; /* bytes */
};

/*
 * The transport's until scsi_execute, and again from `done` on. cdb, data and done are its to fill
 * in, aux is its own; all else is zero. Data goes one way only: `to_device` says which. iov is
 * writable: what the command does not transfer is cut off it.
 */
struct scsi_command {
    uint8_t cdb[SCSI_CDB_MAX];
    bool to_device;
    struct iovec *iov;
    unsigned iov_count;
    uint64_t data_len; /* the sum of iov */
    void (*done)(struct scsi_command *c);

    /* results */
    uint8_t status;
    uint8_t sense[SCSI_SENSE_LEN]; /* if status is CHECK CONDITION */
    uint64_t transferred;          /* bytes of iov, from the first on */
    bool overrun;                  /* the command transfers more than data_len: it was not begun */

    struct block_request io; /* from here on scsi.c's */
    struct scsi_unit *unit;
    struct scsi_range *ranges; /* owned while it runs: what is still to do, a part at a time */
    unsigned range, range_count;
    void *pattern; /* WRITE SAME with what is not zero */
    struct iovec pattern_iov;
    bool is_read;
};

void scsi_unit_init(struct scsi_unit *u);
/* The disk has another size: the driver hears of it at its next command. */
void scsi_unit_changed(struct scsi_unit *u);
/* Power-on or reset, with nothing under way. */
void scsi_unit_reset(struct scsi_unit *u);

void scsi_execute(struct scsi_unit *u, struct scsi_command *c);
/* For a logical unit that does not exist, of a target that does. */
void scsi_execute_nowhere(struct scsi_command *c);

#endif
