/* What a disk and a CD drive have in common: names, the ends of commands, their data, power. */
#include "storage/ata.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FEATURE_TRANSFER 0x03u

#define POWER_ACTIVE 0xFFu
#define POWER_IDLE 0x80u
#define POWER_STANDBY 0x00u

/* ---- ends ---- */

void ata_end(struct ata_command *c)
{
    free(c->buffer);
    c->buffer = NULL;
    c->dev->host->done(c);
}

void ata_ok(struct ata_command *c)
{
    c->out.status = ATA_READY;
    c->out.error = 0;
    ata_end(c);
}

void ata_fail(struct ata_command *c, uint8_t error)
{
    c->out.status = ATA_READY | ATA_ERR;
    c->out.error = error;
    ata_end(c);
}

/* ---- data ---- */

struct block_request *ata_request(struct ata_command *c, enum block_op op, uint64_t offset,
                                  uint64_t len, void (*done)(struct block_request *r, int rc))
{
    struct block_request *r = &c->req;

    memset(r, 0, sizeof(*r));
    r->op = op;
    r->offset = offset;
    r->len = len;
    r->done = done;
    return r;
}

bool ata_data_in(struct ata_command *c, const void *data, uint64_t len)
{
    const uint8_t *p = data;

    if (len == 0)
        return true;
    if (!c->dev->host->map(c, len))
        return false;
    for (unsigned i = 0; i < c->iov_count; p += c->iov[i].iov_len, i++)
        memcpy(c->iov[i].iov_base, p, c->iov[i].iov_len);
    c->len = len;
    return true;
}

bool ata_data_out(struct ata_command *c, void *data, uint64_t len)
{
    uint8_t *p = data;

    if (!c->dev->host->map(c, len))
        return false;
    for (unsigned i = 0; i < c->iov_count; p += c->iov[i].iov_len, i++)
        memcpy(p, c->iov[i].iov_base, c->iov[i].iov_len);
    c->len = len;
    return true;
}

/* ---- commands of both ---- */

/* Modes of PIO, multiword DMA and Ultra DMA; on SATA they change nothing but what IDENTIFY says. */
static bool transfer_mode(struct ata_device *d, uint8_t mode)
{
    static const struct {
        uint8_t type, max;
    } modes[] = {{0x00, 1}, {0x08, 4}, {0x20, 2}, {0x40, 6}};

    for (unsigned i = 0; i < countof(modes); i++) {
        if ((mode & 0xF8) == modes[i].type && (mode & 7) <= modes[i].max) {
            if (mode >= 0x20)
                d->transfer = mode;
            return true;
        }
    }
    return false;
}

static void flushed(struct block_request *r, int rc)
{
    struct ata_command *c = ata_of(r);

    if (rc != 0)
        ata_fail(c, ATA_ABRT);
    else
        ata_ok(c);
}

/* Standby may be the guest's last word before its power is cut: the cache goes to the medium. */
static void power_down(struct ata_device *d, struct ata_command *c, uint8_t power)
{
    d->power = power;
    if (d->geo.size == 0 || d->geo.read_only) {
        ata_ok(c);
        return;
    }
    block_submit(d->block, ata_request(c, BLOCK_FLUSH, 0, 0, flushed));
}

bool ata_common(struct ata_device *d, struct ata_command *c)
{
    switch (c->in.command) {
    case 0x90: /* EXECUTE DEVICE DIAGNOSTIC: passed */
        ata_signature(d, &c->out);
        ata_end(c);
        return true;
    case 0xE0: /* STANDBY IMMEDIATE */
    case 0xE2: /* STANDBY */
    case 0xE6: /* SLEEP: the next command wakes it, where a drive would wait for a reset */
        power_down(d, c, POWER_STANDBY);
        return true;
    case 0xE1: /* IDLE IMMEDIATE */
    case 0xE3: /* IDLE */
        d->power = POWER_IDLE;
        ata_ok(c);
        return true;
    case 0xE5: /* CHECK POWER MODE */
        c->out.count = d->power;
        ata_ok(c);
        return true;
    case 0xEF: /* SET FEATURES; the disk has taken its own before */
        if ((c->in.feature & 0xFF) == FEATURE_TRANSFER &&
            transfer_mode(d, (uint8_t)(c->in.count & 0xFF)))
            ata_ok(c);
        else
            ata_fail(c, ATA_ABRT);
        return true;
    default:
        return false;
    }
}

void ata_signature(const struct ata_device *d, struct ata_regs *out)
{
    const uint8_t *s = d->ops->signature;

    memset(out, 0, sizeof(*out));
    out->lba = (uint64_t)s[0] << 16 | (uint64_t)s[1] << 8 | s[2];
    out->count = s[3];
    out->error = 1; /* passed */
    out->status = d->ops->reset_status;
}

/* ---- making ---- */

static void block_changed(void *ctx)
{
    struct ata_device *d = ctx;

    block_geometry(d->block, &d->geo);
    d->ops->changed(d);
}

static const struct block_events events = {.changed = block_changed};

/* ATA strings are printable ASCII, and shorter than what a user may write. */
static int name_set(char *to, size_t room, const struct options *opts, const char *option,
                    const char *dflt, struct error *err)
{
    const char *text = opt_string(opts, option, NULL);

    if (text == NULL) {
        snprintf(to, room, "%.*s", (int)room - 1, dflt);
        return 0;
    }
    if (strlen(text) >= room)
        return error_set(err, -EINVAL, "%s=%s is longer than %zu characters", option, text,
                         room - 1);
    for (const char *p = text; *p != '\0'; p++)
        if (*p < ' ' || *p > '~')
            return error_set(err, -EINVAL, "%s= may hold printable ASCII characters only", option);
    snprintf(to, room, "%s", text);
    return 0;
}

static int rotation_set(struct ata_device *d, const struct options *opts, struct error *err)
{
    uint64_t rotation = opt_u64(opts, "nmrr", 1);

    if (rotation > 1 && (rotation < 1025 || rotation > 65534))
        return error_set(err, -EINVAL,
                         "nmrr=%llu is no rotation rate; wanted 0, 1 or 1025 to 65534",
                         (unsigned long long)rotation);
    d->rotation = (uint16_t)rotation;
    return 0;
}

int ata_open(struct ata_device *d, const struct options *opts, bool removable, const char *model,
             struct error *err)
{
    int rc = rotation_set(d, opts, err);

    if (rc == 0)
        rc = block_open(d->env, opts, removable, &events, d, &d->block, err);
    if (rc != 0)
        return rc;
    block_geometry(d->block, &d->geo);
    rc = name_set(d->serial, sizeof(d->serial), opts, "ser", d->geo.serial, err);
    if (rc == 0)
        rc = name_set(d->model, sizeof(d->model), opts, "model", model, err);
    if (rc == 0)
        rc = name_set(d->revision, sizeof(d->revision), opts, "rev", "001", err);
    return rc;
}

void ata_destroy(struct ata_device *d)
{
    if (d == NULL)
        return;
    if (d->block != NULL)
        block_close(d->block);
    if (d->ops->destroy != NULL)
        d->ops->destroy(d);
    free(d);
}
