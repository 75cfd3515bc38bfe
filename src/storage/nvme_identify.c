/* Identify: what controller and namespace are and can do. */
#include <stdio.h>
#include <string.h>

#include "base/endian.h"
#include "storage/nvme_impl.h"

enum {
    CNS_NAMESPACE = 0x00,
    CNS_CONTROLLER = 0x01,
    CNS_ACTIVE_LIST = 0x02,
    CNS_DESCRIPTORS = 0x03,
};

#define IDENTIFY_SIZE 4096u

/* ASCII, padded with spaces. */
static void text(uint8_t *to, size_t len, const char *from)
{
    size_t n = strlen(from);

    memset(to, ' ', len);
    memcpy(to, from, n < len ? n : len);
}

static void controller(const struct nvme *n, uint8_t *p)
{
    const uint8_t *cfg = pci_cfg(n->f);

    memcpy(p, cfg, 2);            /* VID */
    memcpy(p + 2, cfg + 0x2C, 2); /* SSVID */
    text(p + 4, 20, n->serial);
    text(p + 24, 40, "xhyve-NVMe");
    text(p + 64, 8, "1.0");
    p[72] = 3;             /* RAB: commands in a turn of arbitration, 2^n */
    p[77] = NVME_MDTS;     /* in pages of 4096 bytes */
    le16_store(p + 78, 1); /* CNTLID */
    le32_store(p + 80, NVME_VERSION);
    le32_store(p + 92, 1u << 8);  /* OAES: namespace attribute notices */
    p[111] = 1;                   /* CNTRLTYPE: I/O controller */
    le16_store(p + 256, 1u << 8); /* OACS: doorbell buffers */
    p[258] = 3;                   /* ACL: four Abort commands at once */
    p[259] = NVME_EVENT_REQUESTS - 1;
    p[260] = 0x3;                    /* FRMW: one slot, read-only */
    p[261] = 0x6;                    /* LPA: commands effects, offsets and lengths */
    p[262] = NVME_ERROR_ENTRIES - 1; /* ELPE */
    le16_store(p + 266, 343);        /* WCTEMP, CCTEMP: kelvin */
    le16_store(p + 268, 353);
    p[512] = SQE_SHIFT << 4 | SQE_SHIFT;
    p[513] = CQE_SHIFT << 4 | CQE_SHIFT;
    le32_store(p + 516, 1);                                            /* NN */
    le16_store(p + 520, (uint16_t)(1u << 3 | (n->dsm ? 1u << 2 : 0))); /* ONCS */
    p[525] = 0x7; /* VWC: present; Flush takes all namespaces */
    memcpy(p + 768, n->nqn, strlen(n->nqn));
    le16_store(p + 2048, 2500); /* power state 0: 25 W */
}

static void namespace_data(const struct nvme *n, uint8_t *p)
{
    unsigned lba = 1u << n->lba_shift;

    le64_store(p, n->lba_count);
    le64_store(p + 8, n->lba_count);
    le64_store(p + 16, n->lba_count);
    p[33] = 1u << 3; /* DLFEAT: Write Zeroes deallocates; a deallocated block reads as anything */
    p[99] = n->geometry.read_only ? 1 : 0; /* NSATTR */
    if (n->geometry.physical > lba) {
        uint16_t unit = (uint16_t)(n->geometry.physical / lba - 1);

        p[24] = 1u << 4;          /* NSFEAT: the fields for good performance hold */
        le16_store(p + 64, unit); /* NPWG, NPWA, NPDG, NPDA */
        le16_store(p + 66, unit);
        le16_store(p + 68, unit);
        le16_store(p + 70, unit);
    }
    be64_store(p + 120, n->eui64);
    p[128 + 2] = (uint8_t)n->lba_shift; /* LBAF0 */
}

static void descriptors(const struct nvme *n, uint8_t *p)
{
    p[0] = 1; /* EUI-64 */
    p[1] = 8;
    be64_store(p + 4, n->eui64);
    p[12] = 3; /* UUID */
    p[13] = 16;
    memcpy(p + 16, n->uuid, 16);
}

uint16_t nvme_identify(struct nvme *n, const struct nvme_cmd *c)
{
    uint8_t data[IDENTIFY_SIZE] = {0};

    switch (c->dw10 & 0xFF) {
    case CNS_NAMESPACE:
        if (c->nsid != 1)
            return ST_INVALID_NAMESPACE;
        namespace_data(n, data);
        break;
    case CNS_CONTROLLER:
        controller(n, data);
        break;
    case CNS_ACTIVE_LIST:
        if (c->nsid >= NSID_ALL - 1)
            return ST_INVALID_NAMESPACE;
        le32_store(data, c->nsid == 0 ? 1 : 0);
        break;
    case CNS_DESCRIPTORS:
        if (c->nsid != 1)
            return ST_INVALID_NAMESPACE;
        descriptors(n, data);
        break;
    default:
        return ST_INVALID_FIELD;
    }
    return nvme_copy_to_host(n, c, data, sizeof(data));
}
