/* virtio-scsi and its disk under a driver that does anything: see rig.h and virtio_rig.h. */
#include "virtio_rig.h"

#define HEAD 51u
#define ANSWER 108u

/* Task management, or a question about asynchronous notifications. */
static unsigned control_parts(struct rig *r, uint64_t head, uint64_t answer, struct part *p)
{
    uint8_t b = take8(&r->g);

    poke(r, head, b < 0x80 ? 0 : b & 3, 4);
    poke(r, head + 4, b & 7, 4);
    poke(r, head + 8, 1, 8);
    poke(r, head + 16, take8(&r->g), 8);
    p[0] = (struct part){head, b < 0x80 ? 24 : 16, false};
    p[1] = (struct part){answer, (b & 8) != 0 ? 1 : 5, true};
    return 2;
}

/* The bytes behind the opcode: as they come, but for those that say where and how much. */
static void put_cdb(struct rig *r, uint64_t at)
{
    static const uint8_t opcodes[] = {0x00, 0x03, 0x08, 0x0A, 0x12, 0x1A, 0x1B, 0x1E,
                                      0x25, 0x28, 0x2A, 0x2E, 0x2F, 0x35, 0x41, 0x42,
                                      0x5A, 0x88, 0x8A, 0x8E, 0x8F, 0x91, 0x93, 0x9E,
                                      0xA0, 0xA3, 0xA8, 0xAA, 0xAF, 0x15, 0x55, 0x9B};
    uint8_t b = take8(&r->g), shape = take8(&r->g);
    uint8_t cdb[32] = {b < 0xE0 ? opcodes[b & 31] : take8(&r->g)};
    unsigned given = shape & 15;

    cdb[cdb[0] < 0x20 ? 4 : cdb[0] < 0x60 ? 8 : cdb[0] < 0xA0 ? 13 : 9] = (uint8_t)(shape >> 4);
    if (cdb[0] == 0x42) /* eights: its list has a head and ranges */
        cdb[8] = (uint8_t)(cdb[8] * 8);
    for (unsigned i = 1; i <= given; i++)
        cdb[i] = take8(&r->g);
    guest_bytes(r->m.mem, at, cdb, sizeof(cdb));
}

/* Eight bytes of an unmap's list, and its ranges. */
static void put_unmap(struct rig *r, uint64_t at)
{
    uint8_t n = take8(&r->g) & 3;

    for (unsigned i = 0; i < 2; i++) /* big-endian */
        poke(r, at + 1 + 2 * i, 16u * n + 6 - 6 * i, 1);
    for (unsigned i = 0; i < n; i++) {
        poke(r, at + 8 + 16 * i + 6, take(&r->g, 2), 2);
        poke(r, at + 8 + 16 * i + 11, take8(&r->g), 1);
    }
}

static unsigned scsi_parts(struct rig *r, unsigned tag, struct part *p, unsigned *queue)
{
    uint8_t b = take8(&r->g);
    uint64_t head = HEADS + 0x100 * tag, answer = ANSWERS + 0x100 * tag;
    uint32_t len = (b & 8) != 0 ? 512u * (b >> 4) : (b >> 4) * 8u;
    bool out = (b & 4) != 0;
    unsigned n = 0;

    *queue = b & 3;
    if (*queue == 0)
        return control_parts(r, head, answer, p);
    if (*queue == 1) {
        p[0] = (struct part){answer, 16, true};
        return 1;
    }
    poke(r, head, b >= 0xF8 ? take(&r->g, 4) : 1, 8);
    poke(r, head + 8, tag, 8);
    poke(r, head + 16, b >> 4 == 15, 3);
    put_cdb(r, head + 19);
    p[n++] = (struct part){head, HEAD, false};
    if (out && len != 0) {
        put_unmap(r, DATA + 0x10000ull * tag);
        n += put_data(r, tag, p + n, len, false);
    }
    p[n++] = (struct part){answer, ANSWER, true};
    if (!out && len != 0)
        n += put_data(r, tag, p + n, len, true);
    return n;
}

/* The first command after a reset hears of it; INQUIRY is answered even so. */
static void scsi_works(struct rig *r)
{
    struct part p[3] = {{HEADS, HEAD, false}, {ANSWERS, ANSWER, true}, {DATA, 36, true}};

    guest_fill(r->m.mem, HEADS, 0, HEAD);
    poke(r, HEADS, 1, 1);
    poke(r, HEADS + 19, 0x12, 1);
    poke(r, HEADS + 23, 36, 1);
    poke(r, ANSWERS + 10, 0xFFFF, 2);
    virtio_check_request(r, 2, p, 3);
    check(guest_get(r->m.mem, ANSWERS + 10, 2) == 0);
    check(guest_get(r->m.mem, DATA + 8, 4) == 0x56594858); /* "XHYV" */
}

static const struct target target = VIRTIO_TARGET(&virtio_scsi_ops, scsi_works);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct program g = {data, data + len};
    uint8_t how = take8(&g);
    struct virtio_driver d = {.queues = 4, .parts = scsi_parts};

    disks_like((how & 3) == 3, (how & 1) != 0, (how & 12) == 12, (how & 16) == 0);
    rig_run(&target, &g, &d);
    return 0;
}
