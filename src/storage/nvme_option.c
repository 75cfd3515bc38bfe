/* The options of "nvme", and the names that a controller without them gets. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/endian.h"
#include "storage/nvme_impl.h"

#define DEFAULT_QUEUES 16u
#define DEFAULT_QUEUE_SIZE 2048u
#define DEFAULT_SLOTS 128u

static int number(struct nvme *n, const struct options *opts, const char *name, uint64_t dflt,
                  uint64_t min, uint64_t max, uint32_t *out, struct error *err)
{
    uint64_t v = opt_u64(opts, name, dflt);

    if (v < min || v > max)
        return error_set(err, -EINVAL, "%s: %s=%llu: must be %llu to %llu", n->env->name, name,
                         (unsigned long long)v, (unsigned long long)min, (unsigned long long)max);
    *out = (uint32_t)v;
    return 0;
}

static int read_serial(struct nvme *n, const char *ser, struct error *err)
{
    size_t len = ser != NULL ? strlen(ser) : 0;

    if (len > sizeof(n->serial) - 1)
        return error_set(err, -EINVAL, "%s: ser=%s: a serial number has up to %zu characters",
                         n->env->name, ser, sizeof(n->serial) - 1);
    for (size_t i = 0; i < len; i++) {
        if (ser[i] < ' ' || ser[i] > '~')
            return error_set(err, -EINVAL, "%s: ser=%s: only printable ASCII characters",
                             n->env->name, ser);
    }
    if (len != 0)
        memcpy(n->serial, ser, len + 1);
    return 0;
}

int nvme_options_read(struct nvme *n, const struct options *opts, struct error *err)
{
    const char *dsm = opt_string(opts, "dsm", "auto");
    uint32_t queues = 0, slots = 0;
    int rc = number(n, opts, "maxq", DEFAULT_QUEUES, 1, NVME_IO_QUEUES_MAX, &queues, err);

    if (rc == 0)
        rc = number(n, opts, "qsz", DEFAULT_QUEUE_SIZE, 2, 65536, &n->queue_size, err);
    if (rc == 0)
        rc = number(n, opts, "ioslots", DEFAULT_SLOTS, 1, NVME_SLOTS_MAX, &slots, err);
    if (rc == 0)
        rc = read_serial(n, opt_string(opts, "ser", NULL), err);
    if (rc == 0 && strcmp(dsm, "auto") != 0 && strcmp(dsm, "enable") != 0 &&
        strcmp(dsm, "disable") != 0)
        rc = error_set(err, -EINVAL, "%s: dsm=%s: must be auto, enable or disable", n->env->name,
                       dsm);
    n->io_queues = queues;
    n->slot_count = slots;
    return rc;
}

/* From the machine's UUID, the slot and the disk: two controllers never share a name. */
static void make_names(struct nvme *n, const struct options *opts)
{
    uint64_t half[2] = {FNV1A_START, 0x84222325CBF29CE4ull};
    const uint8_t *u = n->uuid;

    for (unsigned i = 0; i < 2; i++) {
        half[i] = fnv1a(half[i], n->env->uuid, sizeof(n->env->uuid));
        half[i] = fnv1a(half[i], n->env->name, strlen(n->env->name));
        half[i] = fnv1a(half[i], n->geometry.serial, strlen(n->geometry.serial));
        le64_store(n->uuid + 8 * i, half[i]);
    }
    if (n->serial[0] == '\0') {
        snprintf(n->serial, sizeof(n->serial), "%.20s", n->geometry.serial);
        if (n->serial[0] == '\0')
            snprintf(n->serial, sizeof(n->serial), "%016llX", (unsigned long long)half[0]);
    }
    n->uuid[6] = (uint8_t)((n->uuid[6] & 0x0F) | 0x80); /* version 8: made as one likes */
    n->uuid[8] = (uint8_t)((n->uuid[8] & 0x3F) | 0x80);
    /* Locally administered, for one device. */
    n->eui64 = opt_u64(opts, "eui64", 0);
    if (n->eui64 == 0)
        n->eui64 = (half[1] & ~(3ull << 56)) | 2ull << 56;
    snprintf(n->nqn, sizeof(n->nqn),
             "nqn.2014-08.org.nvmexpress:uuid:%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-"
             "%02x%02x%02x%02x%02x%02x",
             u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13],
             u[14], u[15]);
}

int nvme_disk_options(struct nvme *n, const struct options *opts, struct error *err)
{
    const char *dsm = opt_string(opts, "dsm", "auto");
    uint64_t lba = opt_u64(opts, "sectsz", n->geometry.sector);

    if (lba != 512 && lba != 4096 && lba != 8192)
        return error_set(err, -EINVAL, "%s: sectsz=%llu: must be 512, 4096 or 8192", n->env->name,
                         (unsigned long long)lba);
    if (lba < n->geometry.sector)
        return error_set(err, -EINVAL,
                         "%s: sectsz=%llu is less than a sector of the image, which has %u bytes",
                         n->env->name, (unsigned long long)lba, n->geometry.sector);
    if (n->geometry.size < lba)
        return error_set(err, -EINVAL, "%s: the image has %llu bytes, less than one block of %llu",
                         n->env->name, (unsigned long long)n->geometry.size,
                         (unsigned long long)lba);
    n->lba_shift = (unsigned)__builtin_ctzll(lba);
    n->lba_count = n->geometry.size >> n->lba_shift;
    n->dsm = strcmp(dsm, "auto") == 0 ? n->geometry.discard && !n->geometry.read_only
                                      : strcmp(dsm, "enable") == 0;
    make_names(n, opts);
    return 0;
}
