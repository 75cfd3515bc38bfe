/* virtio-blk under a driver that does anything: see rig.h and virtio_rig.h. */
#include "virtio_rig.h"

#define T_IN 0u
#define T_DISCARD 11u
#define T_ZEROES 13u

/* Header, data, status. */
static unsigned blk_parts(struct rig *r, unsigned tag, struct part *p, unsigned *queue)
{
    static const uint8_t types[] = {T_IN, 1, T_IN, 1, 4, 8, T_DISCARD, T_ZEROES};
    uint8_t b = take8(&r->g);
    uint32_t type = types[b & 7], len = 512u * (b >> 4);
    uint64_t head = HEADS + 0x100 * tag, sector = take_number(&r->g);
    unsigned n = 1, ranges = 0;

    *queue = b >> 3 & 1;
    if (type == T_DISCARD || type == T_ZEROES) {
        ranges = b >> 5;
        for (unsigned i = 0; i < ranges; i++) {
            poke(r, head + 16 + 16 * i, take_number(&r->g), 8);
            poke(r, head + 24 + 16 * i, take_number(&r->g), 4);
            poke(r, head + 28 + 16 * i, take8(&r->g) & 1, 4);
        }
        len = 0;
    }
    if ((b & 7) == 7 && ranges == 0)
        type = (uint32_t)take_number(&r->g);
    poke(r, head, type, 4);
    poke(r, head + 4, 0, 4);
    poke(r, head + 8, sector, 8);
    p[0] = (struct part){head, 16 + 16 * ranges, false};
    if (len != 0)
        n += put_data(r, tag, p + 1, len + (b == 0xF0 ? 1 : 0), type != 1);
    p[n++] = (struct part){ANSWERS + 0x100 * tag, 1, true};
    return n;
}

static void blk_works(struct rig *r)
{
    struct part p[3] = {{HEADS, 16, false}, {DATA, 512, true}, {ANSWERS, 1, true}};

    poke(r, HEADS, T_IN, 8);
    poke(r, HEADS + 8, 1, 8);
    poke(r, DATA, 0, 8);
    poke(r, ANSWERS, 0xFF, 1);
    virtio_check_request(r, 1, p, 3);
    check(guest_get(r->m.mem, ANSWERS, 1) == 0);
    check(guest_get(r->m.mem, DATA, 1) == 0x5A);
}

static const struct target target = VIRTIO_TARGET(&virtio_blk_ops, blk_works);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct program g = {data, data + len};
    uint8_t how = take8(&g);
    struct virtio_driver d = {.queues = 2, .parts = blk_parts};

    disks_like(false, (how & 1) != 0, (how & 6) == 6, (how & 8) == 0);
    rig_run(&target, &g, &d);
    return 0;
}
