/*
 * What the NVM Express specification fixes: registers, commands, status codes. NVM Express Base
 * Specification 1.4; names are its own.
 */
#ifndef STORAGE_NVME_SPEC_H
#define STORAGE_NVME_SPEC_H

/* Registers in BAR 0. */
#define REG_CAP 0x00u
#define REG_VS 0x08u
#define REG_INTMS 0x0Cu
#define REG_INTMC 0x10u
#define REG_CC 0x14u
#define REG_CSTS 0x1Cu
#define REG_AQA 0x24u
#define REG_ASQ 0x28u
#define REG_ACQ 0x30u
#define REG_DOORBELLS 0x1000u /* stride 0: SQyTDBL at 8y, CQyHDBL at 8y + 4 from here */

#define CAP_CQR (1ull << 16)
#define CAP_TO_SHIFT 24 /* in 500 ms */
#define CAP_CSS_NVM (1ull << 37)

#define NVME_VERSION 0x00010400u

#define CC_EN 0x1u
#define CC_CSS_SHIFT 4  /* 3 bits: command set */
#define CC_MPS_SHIFT 7  /* 4 bits: page size */
#define CC_AMS_SHIFT 11 /* 3 bits: arbitration */
#define CC_SHN_SHIFT 14 /* 2 bits: shutdown notification */
#define CC_IOSQES_SHIFT 16
#define CC_IOCQES_SHIFT 20
#define CC_WRITABLE 0x00FFFFF1u

#define CSTS_RDY 0x1u
#define CSTS_CFS 0x2u
#define CSTS_SHST_SHIFT 2
#define SHST_NORMAL 0u
#define SHST_OCCURRING 1u
#define SHST_COMPLETE 2u

#define AQA_WRITABLE 0x0FFF0FFFu

#define SQE_SIZE 64u
#define CQE_SIZE 16u
#define SQE_SHIFT 6u /* what IOSQES and IOCQES must be */
#define CQE_SHIFT 4u
#define NVME_PAGE 4096u

/* Admin commands. */
enum {
    ADMIN_DELETE_SQ = 0x00,
    ADMIN_CREATE_SQ = 0x01,
    ADMIN_GET_LOG_PAGE = 0x02,
    ADMIN_DELETE_CQ = 0x04,
    ADMIN_CREATE_CQ = 0x05,
    ADMIN_IDENTIFY = 0x06,
    ADMIN_ABORT = 0x08,
    ADMIN_SET_FEATURES = 0x09,
    ADMIN_GET_FEATURES = 0x0A,
    ADMIN_ASYNC_EVENT = 0x0C,
    ADMIN_DBBUF_CONFIG = 0x7C,
};

/* NVM commands. */
enum {
    NVM_FLUSH = 0x00,
    NVM_WRITE = 0x01,
    NVM_READ = 0x02,
    NVM_WRITE_ZEROES = 0x08,
    NVM_DSM = 0x09,
};

/* The status field of a completion: type and code, and bits above. */
enum {
    ST_SUCCESS = 0x000,
    ST_INVALID_OPCODE = 0x001,
    ST_INVALID_FIELD = 0x002,
    ST_DATA_TRANSFER = 0x004,
    ST_INTERNAL = 0x006,
    ST_ABORT_REQUESTED = 0x007,
    ST_INVALID_NAMESPACE = 0x00B,
    ST_COMMAND_SEQUENCE = 0x00C,
    ST_PRP_OFFSET = 0x013,
    ST_WRITE_PROTECTED = 0x020,
    ST_LBA_RANGE = 0x080,
    ST_CAPACITY_EXCEEDED = 0x081,
    ST_CQ_INVALID = 0x100,
    ST_INVALID_QID = 0x101,
    ST_INVALID_QSIZE = 0x102,
    ST_ASYNC_LIMIT = 0x105,
    ST_INVALID_VECTOR = 0x108,
    ST_INVALID_LOG = 0x109,
    ST_INVALID_QUEUE_DELETION = 0x10C,
    ST_FEATURE_NOT_SAVEABLE = 0x10D,
    ST_FEATURE_NOT_CHANGEABLE = 0x10E,
    ST_WRITE_FAULT = 0x280,
    ST_UNRECOVERED_READ = 0x281,
};
#define ST_CODE 0x7FFu
#define ST_MORE 0x2000u /* there is an entry in the error log */
#define ST_DNR 0x4000u  /* do not retry */

/* Features. */
enum {
    FEAT_ARBITRATION = 0x01,
    FEAT_POWER = 0x02,
    FEAT_TEMPERATURE = 0x04,
    FEAT_ERROR_RECOVERY = 0x05,
    FEAT_WRITE_CACHE = 0x06,
    FEAT_QUEUES = 0x07,
    FEAT_COALESCING = 0x08,
    FEAT_VECTOR = 0x09,
    FEAT_ATOMICITY = 0x0A,
    FEAT_ASYNC_EVENT = 0x0B,
};

/* Log pages. */
enum {
    LOG_PAGE_ERROR = 0x01,
    LOG_PAGE_HEALTH = 0x02,
    LOG_PAGE_FIRMWARE = 0x03,
    LOG_PAGE_CHANGED_NS = 0x04,
    LOG_PAGE_EFFECTS = 0x05,
};

/* Asynchronous events: type in DW0 bits 0-2, information in 8-15, log page in 16-23. */
enum { EVENT_TYPE_ERROR = 0, EVENT_TYPE_HEALTH = 1, EVENT_TYPE_NOTICE = 2, EVENT_TYPES = 3 };

#define AEC_TEMPERATURE 0x002u /* of the critical warnings */
#define AEC_NS_ATTRIBUTE 0x100u

/* Of nvme_cmd.flags: fused operation, and how data is described (0: by PRPs). */
#define CMD_FUSE_PSDT 0xC3u

#define NSID_ALL 0xFFFFFFFFu

#endif
