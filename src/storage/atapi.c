/*
 * A CD drive: packets (SPC, MMC) by ATA, a tray, one disc. The disc is an image of 2048-byte
 * blocks.
 *
 * The guest opens and closes the tray. Opening it lets go of the image's file, closing it opens the
 * path again: so what lies there by then is the new disc. From outside, `insert` puts in another.
 */
#include "storage/atapi.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"

#define READ_MAX 65535u /* blocks in one command */

#define REASON_DONE 3u /* in the count register: neither command nor data is to follow */

enum { NEEDS_MEDIUM = 1, QUIET = 2 }; /* QUIET: does not tell, nor clear, a unit attention */

struct packet_command {
    uint8_t code, flags;
    uint8_t room; /* where the packet's allocation length stands */
    uint8_t room_len;
    atapi_answer answer;
    void (*run)(struct atapi *a, struct ata_command *c);
};

/* ---- ends ---- */

static void packet_end(struct atapi *a, struct ata_command *c, uint32_t sense)
{
    a->sense = sense;
    c->out.count = REASON_DONE;
    if (sense == SENSE_NONE)
        ata_ok(c);
    else
        ata_fail(c, (uint8_t)(sense >> 16 << 4 | ATA_ABRT));
}

/* ---- reading ---- */

static void read_done(struct block_request *r, int rc)
{
    struct ata_command *c = ata_of(r);

    if (rc == 0)
        c->len = r->len;
    packet_end(atapi_of(c->dev), c, rc != 0 ? SENSE_READ_ERROR : SENSE_NONE);
}

static void read_blocks(struct atapi *a, struct ata_command *c, uint32_t lba, uint32_t count)
{
    struct block_request *r;

    if (lba > atapi_blocks(a) || atapi_blocks(a) - lba < count) {
        packet_end(a, c, SENSE_RANGE);
        return;
    }
    if (count == 0) {
        packet_end(a, c, SENSE_NONE);
        return;
    }
    if (count > READ_MAX) {
        packet_end(a, c, SENSE_FIELD);
        return;
    }
    if (!a->d.host->map(c, (uint64_t)count * ATAPI_BLOCK))
        return;
    r = ata_request(c, BLOCK_READ, (uint64_t)lba * ATAPI_BLOCK, (uint64_t)count * ATAPI_BLOCK,
                    read_done);
    r->iov = c->iov;
    r->iov_count = c->iov_count;
    block_submit(a->d.block, r);
}

static void read_10(struct atapi *a, struct ata_command *c)
{
    read_blocks(a, c, be32_load(c->packet + 2), be16_load(c->packet + 7));
}

static void read_12(struct atapi *a, struct ata_command *c)
{
    read_blocks(a, c, be32_load(c->packet + 2), be32_load(c->packet + 6));
}

/* READ CD: the 2048 bytes of data blocks, or nothing; there is no audio and there are no headers.
 */
static void read_cd(struct atapi *a, struct ata_command *c)
{
    uint32_t count = be32_load(c->packet + 5) & 0xFFFFFF; /* three bytes from 6 on */
    unsigned type = c->packet[1] >> 2 & 7;

    if ((c->packet[9] & 0xF8) == 0 && (c->packet[10] & 7) == 0)
        count = 0;
    else if ((type != 0 && type != 2) || (c->packet[9] & 0xF8) != 0x10 ||
             (c->packet[10] & 7) != 0) {
        packet_end(a, c, SENSE_MODE);
        return;
    }
    read_blocks(a, c, be32_load(c->packet + 2), count);
}

static void seek(struct atapi *a, struct ata_command *c)
{
    packet_end(a, c, be32_load(c->packet + 2) >= atapi_blocks(a) ? SENSE_RANGE : SENSE_NONE);
}

static void nothing(struct atapi *a, struct ata_command *c)
{
    packet_end(a, c, SENSE_NONE);
}

/* ---- the tray ---- */

static void medium_event(struct atapi *a)
{
    block_geometry(a->d.block, &a->d.geo);
    if (atapi_has_medium(a)) {
        a->was_changed = true;
        a->event = EVENT_NEW_MEDIA;
    } else {
        a->event = EVENT_REMOVAL;
    }
}

static int change(struct atapi *a, const char *path, struct error *err)
{
    int rc;

    a->inserting = true;
    rc = block_insert(a->d.block, path, err);
    if (rc != 0)
        a->inserting = false;
    return rc;
}

static int tray_open(struct atapi *a, struct error *err)
{
    int rc = a->open ? 0 : change(a, NULL, err);

    if (a->open || rc != 0)
        return rc;
    a->open = true;
    medium_event(a);
    return 0;
}

/* What cannot be opened is no disc to the drive. */
static void tray_close(struct atapi *a)
{
    struct error err = {0};

    if (!a->open)
        return;
    a->open = false;
    if (a->path[0] != '\0' && change(a, a->path, &err) != 0)
        log_warn(a->d.env->log, "%s: the tray is closed and there is no disc: %s", a->d.env->name,
                 err.text);
    medium_event(a);
}

static void start_stop(struct atapi *a, struct ata_command *c)
{
    struct error err = {0};
    bool load = (c->packet[4] & 2) != 0, start = (c->packet[4] & 1) != 0;

    if ((c->packet[4] & 0xF0) != 0) { /* a power condition: there is one speed to all */
        packet_end(a, c, SENSE_NONE);
        return;
    }
    if (load && start) {
        tray_close(a);
    } else if (load) {
        if (a->locked) {
            packet_end(a, c, SENSE_LOCKED);
            return;
        }
        if (tray_open(a, &err) != 0) {
            log_warn(a->d.env->log, "%s: the tray does not open: %s", a->d.env->name, err.text);
            packet_end(a, c, SENSE_TRAY);
            return;
        }
    }
    packet_end(a, c, SENSE_NONE);
}

static void prevent_allow(struct atapi *a, struct ata_command *c)
{
    a->locked = (c->packet[4] & 1) != 0;
    packet_end(a, c, SENSE_NONE);
}

/* A person's hand. While the guest holds the tray it is only told that somebody wants to. */
static int atapi_insert(struct ata_device *d, const char *path, bool force, struct error *err)
{
    struct atapi *a = atapi_of(d);
    int rc;

    if (path != NULL && strlen(path) >= sizeof(a->path))
        return error_set(err, -ENAMETOOLONG, "%s: the image's path is longer than %zu bytes",
                         d->env->name, sizeof(a->path) - 1);
    if (a->locked && atapi_has_medium(a) && !force) {
        a->event = EVENT_EJECT_REQUEST;
        return error_set(err, -EBUSY,
                         "%s: the guest has locked the drive; it was asked to let go, try again "
                         "later or by force",
                         d->env->name);
    }
    rc = change(a, path, err);
    if (rc != 0)
        return rc;
    a->open = false;
    a->locked = false;
    snprintf(a->path, sizeof(a->path), "%s", path != NULL ? path : "");
    medium_event(a);
    return 0;
}

/* ---- packets ---- */

static const struct packet_command packets[] = {
    {.code = 0x00, .flags = NEEDS_MEDIUM, .run = nothing}, /* TEST UNIT READY */
    {.code = 0x03, .flags = QUIET, .room = 4, .room_len = 1, .answer = atapi_request_sense},
    {.code = 0x12, .flags = QUIET, .room = 3, .room_len = 2, .answer = atapi_inquiry},
    {.code = 0x1B, .run = start_stop},
    {.code = 0x1E, .run = prevent_allow},
    {.code = 0x25, .flags = NEEDS_MEDIUM, .room_len = 0, .answer = atapi_capacity},
    {.code = 0x28, .flags = NEEDS_MEDIUM, .run = read_10},
    {.code = 0x2B, .flags = NEEDS_MEDIUM, .run = seek},
    {.code = 0x43, .flags = NEEDS_MEDIUM, .room = 7, .room_len = 2, .answer = atapi_toc},
    {.code = 0x46, .flags = QUIET, .room = 7, .room_len = 2, .answer = atapi_configuration},
    {.code = 0x4A, .flags = QUIET, .room = 7, .room_len = 2, .answer = atapi_event_status},
    {.code = 0x51,
     .flags = NEEDS_MEDIUM,
     .room = 7,
     .room_len = 2,
     .answer = atapi_disc_information},
    {.code = 0x52,
     .flags = NEEDS_MEDIUM,
     .room = 7,
     .room_len = 2,
     .answer = atapi_track_information},
    {.code = 0x5A, .room = 7, .room_len = 2, .answer = atapi_mode_sense},
    {.code = 0xA8, .flags = NEEDS_MEDIUM, .run = read_12},
    {.code = 0xBB, .run = nothing}, /* SET CD SPEED: there is but one */
    {.code = 0xBD, .room = 8, .room_len = 2, .answer = atapi_mechanism},
    {.code = 0xBE, .flags = NEEDS_MEDIUM, .run = read_cd},
};

static void answer(struct atapi *a, struct ata_command *c, const struct packet_command *p)
{
    uint8_t page[ATAPI_PAGE_MAX] = {0};
    uint32_t sense = SENSE_NONE;
    unsigned len = p->answer(a, c->packet, page, &sense), room = len;

    if (p->room_len == 1)
        room = c->packet[p->room];
    else if (p->room_len == 2)
        room = be16_load(c->packet + p->room);
    if (len > room)
        len = room;
    if (sense == SENSE_NONE && !ata_data_in(c, page, len))
        return;
    packet_end(a, c, sense);
}

/* One that waits comes before the command, which is not carried out then. */
static uint32_t unit_attention(struct atapi *a)
{
    if (a->was_reset) {
        a->was_reset = false;
        return SENSE_RESET;
    }
    if (a->was_changed) {
        a->was_changed = false;
        return SENSE_CHANGED;
    }
    return SENSE_NONE;
}

static void packet(struct atapi *a, struct ata_command *c)
{
    const struct packet_command *p = NULL;
    uint32_t sense;

    c->protocol = (c->in.feature & 1) != 0 ? ATA_DMA_IN : ATA_PIO_IN;
    for (unsigned i = 0; i < countof(packets) && p == NULL; i++)
        p = packets[i].code == c->packet[0] ? &packets[i] : NULL;
    if (p == NULL) {
        packet_end(a, c, SENSE_OPCODE);
        return;
    }
    sense = (p->flags & QUIET) != 0 ? SENSE_NONE : unit_attention(a);
    if (sense == SENSE_NONE && (p->flags & NEEDS_MEDIUM) != 0 && !atapi_has_medium(a))
        sense = a->open ? SENSE_NO_MEDIUM_OPEN : SENSE_NO_MEDIUM;
    if (sense != SENSE_NONE)
        packet_end(a, c, sense);
    else if (p->answer != NULL)
        answer(a, c, p);
    else
        p->run(a, c);
}

/* ---- the device ---- */

static bool atapi_queued(uint8_t command)
{
    (void)command;
    return false;
}

static void atapi_reset(struct ata_device *d, bool power_on)
{
    struct atapi *a = atapi_of(d);

    a->sense = SENSE_NONE;
    a->was_reset = true;
    a->locked = false;
    d->power = 0xFF;
    if (power_on)
        d->transfer = 0x46;
}

static void atapi_execute(struct ata_device *d, struct ata_command *c)
{
    struct atapi *a = atapi_of(d);
    struct ata_identify i = {.packet = true};
    uint8_t words[ATA_IDENTIFY_SIZE];

    c->out = c->in;
    c->protocol = ATA_NO_DATA;
    switch (c->in.command) {
    case 0x08: /* DEVICE RESET */
        atapi_reset(d, false);
        ata_signature(d, &c->out);
        ata_end(c);
        break;
    case ATA_PACKET:
        d->power = 0xFF;
        packet(a, c);
        break;
    case 0xA1:
        c->protocol = ATA_PIO_IN;
        ata_identify(d, &i, words);
        if (ata_data_in(c, words, sizeof(words)))
            ata_ok(c);
        break;
    case 0xEC: /* IDENTIFY DEVICE: by the signature one finds what this is */
        ata_signature(d, &c->out);
        c->out.status = ATA_READY | ATA_ERR;
        c->out.error = ATA_ABRT;
        ata_end(c);
        break;
    default:
        if (!ata_common(d, c))
            ata_fail(c, ATA_ABRT);
        break;
    }
}

/* Not by us: the image has another size. */
static void atapi_changed(struct ata_device *d)
{
    struct atapi *a = atapi_of(d);

    if (!a->inserting)
        medium_event(a);
    a->inserting = false;
}

/* ---- state ---- */

static const struct state_field atapi_state[] = {
    STATE_FIELD(1, struct atapi, open),       STATE_FIELD(2, struct atapi, locked),
    STATE_FIELD(3, struct atapi, was_reset),  STATE_FIELD(4, struct atapi, was_changed),
    STATE_FIELD(5, struct atapi, event),      STATE_FIELD(6, struct atapi, sense),
    STATE_FIELD(7, struct atapi, path),       STATE_FIELD(8, struct atapi, d.power),
    STATE_FIELD(9, struct atapi, d.transfer),
};

static void atapi_save(struct ata_device *d, struct state_buf *out)
{
    state_save(atapi_state, countof(atapi_state), atapi_of(d), d->env->timers, out);
}

/* The disc that was in the drive goes into this one. */
static int atapi_load(struct ata_device *d, const uint8_t *data, size_t len, size_t *pos,
                      struct error *err)
{
    struct atapi *a = atapi_of(d), was = *a;
    const char *path;
    int rc = state_load(atapi_state, countof(atapi_state), a, d->env->timers, data, len, pos, err);

    a->path[sizeof(a->path) - 1] = '\0';
    if (a->event > EVENT_REMOVAL)
        a->event = EVENT_NONE;
    if (rc == 0 && (strcmp(was.path, a->path) != 0 || was.open != a->open)) {
        uint8_t event = a->event;
        bool changed = a->was_changed;

        path = a->open || a->path[0] == '\0' ? NULL : a->path;
        rc = change(a, path, err);
        block_geometry(d->block, &d->geo);
        a->event = event;
        a->was_changed = changed;
    }
    return rc;
}

static const struct ata_ops atapi_ops = {
    .signature = {0xEB, 0x14, 0x01, 0x01},
    .reset_status = 0,
    .queued = atapi_queued,
    .execute = atapi_execute,
    .reset = atapi_reset,
    .changed = atapi_changed,
    .save = atapi_save,
    .load = atapi_load,
    .insert = atapi_insert,
};

int atapi_create(struct dev_env *env, const struct options *opts, const struct ata_host *host,
                 struct ata_device **out, struct error *err)
{
    struct atapi *a = calloc(1, sizeof(*a));
    const char *path = opt_string(opts, "path", "");
    int rc;

    if (a == NULL)
        return error_set(err, -ENOMEM, "no memory for a CD drive");
    a->d.ops = &atapi_ops;
    a->d.env = env;
    a->d.host = host;
    if (strlen(path) >= sizeof(a->path))
        rc = error_set(err, -ENAMETOOLONG, "the image's path is longer than %zu bytes",
                       sizeof(a->path) - 1);
    else
        rc = ata_open(&a->d, opts, true, "BHYVE SATA DVD ROM", err);
    if (rc == 0 && a->d.geo.sector > ATAPI_BLOCK)
        rc = error_set(err, -EINVAL, "sectors of %u bytes are too large for a CD, which has 2048",
                       a->d.geo.sector);
    if (rc != 0) {
        ata_destroy(&a->d);
        return rc;
    }
    snprintf(a->path, sizeof(a->path), "%s", path);
    atapi_reset(&a->d, true);
    *out = &a->d;
    return 0;
}
