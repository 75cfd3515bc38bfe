/* Shared by scsi.c (commands that touch the disk) and scsi_info.c (those that describe it). */
#ifndef STORAGE_SCSI_IMPL_H
#define STORAGE_SCSI_IMPL_H

#include "storage/scsi.h"

/* Sense key, additional sense code and its qualifier. */
#define SENSE_READ_ERROR 0x031100u
#define SENSE_WRITE_ERROR 0x030C00u
#define SENSE_LIST_LENGTH 0x051A00u
#define SENSE_INVALID_OPCODE 0x052000u
#define SENSE_LBA_OUT_OF_RANGE 0x052100u
#define SENSE_INVALID_FIELD 0x052400u
#define SENSE_NO_UNIT 0x052500u
#define SENSE_INVALID_PARAMETER 0x052600u
#define SENSE_NO_SAVED 0x053900u
#define SENSE_NO_RESOURCES 0x055503u
#define SENSE_UNIT_ATTENTION 0x060000u
#define SENSE_WRITE_PROTECTED 0x072700u
#define SENSE_NO_SPACE 0x072707u

#define SCSI_CAPACITY_CHANGED 0x2A09u

#define SCSI_RANGES_MAX 64u             /* in one UNMAP */
#define SCSI_RANGE_MAX (1ull << 31)     /* bytes in one range of UNMAP, and in a WRITE SAME */
#define SCSI_TRANSFER_MAX (64ull << 20) /* bytes of one read or write */

/* Each ends the command. */
void scsi_good(struct scsi_command *c);
void scsi_check(struct scsi_command *c, uint32_t what);
void scsi_reply(struct scsi_command *c, const uint8_t *data, size_t len, uint64_t allocation);
void scsi_inquiry(struct scsi_command *c);
void scsi_inquiry_nowhere(struct scsi_command *c);
void scsi_report_luns(struct scsi_command *c);
void scsi_mode_sense(struct scsi_command *c);
void scsi_read_capacity_10(struct scsi_command *c);
void scsi_read_capacity_16(struct scsi_command *c);

void scsi_sense(uint8_t sense[SCSI_SENSE_LEN], uint32_t what);

#endif
