/*
 * The virtqueue alone, split and packed, between a driver that does anything and a device that
 * keeps the rules of queue.h: it returns in any order what it has taken, and reads and writes its
 * data.
 */
#include <errno.h>

#include "memory.h"
#include "virtio/queue.h"

#define OPERATIONS 400u
#define OUT_MAX 1024u
#define MAX 256u /* of the queue */

#define RING 0x10000ull
#define DRIVER 0x14000ull
#define DEVICE 0x18000ull
#define TABLES 0x20000ull
#define DATA 0x40000ull

#define D_NEXT 1u
#define D_WRITE 2u
#define D_INDIRECT 4u
#define P_AVAIL 0x80u
#define P_USED 0x8000u

struct rig {
    struct program g;
    struct gmem *mem;
    struct virtq q;
    struct virtq_chain c;              /* the last one taken */
    struct virtq_token out[OUT_MAX];   /* not returned yet */
    unsigned out_count, at, next_desc; /* the driver's: where it puts the next */
    bool wrap, last_valid;             /* last_valid: c is out, the last of all */
};

static const uint64_t places[] = {RING,      RING + 16,  DRIVER,        DRIVER + 2,  DRIVER + 4,
                                  DEVICE,    DEVICE + 2, TABLES,        TABLES + 16, DATA,
                                  RING + 14, RING + 8,   TABLES + 0x400};

static uint64_t place(struct rig *r)
{
    return take_place(&r->g, places, countof(places));
}

/* ---- the driver ---- */

/* Sizes, addresses, features; mostly such as are right. */
static void op_enable(struct rig *r)
{
    uint8_t b = take8(&r->g), s = take8(&r->g);
    struct virtq *q = &r->q;

    virtq_reset(q);
    r->out_count = 0;
    r->last_valid = false;
    guest_fill(r->mem, RING, 0, 0xC000);
    q->packed = (b & 1) != 0;
    q->indirect = (b & 2) != 0;
    q->event_idx = (b & 4) != 0;
    q->desc = RING;
    q->avail = DRIVER;
    q->used = DEVICE;
    if ((b & 8) != 0)
        virtq_set_legacy(q, place(r));
    if ((b & 16) != 0)
        q->desc = place(r);
    if ((b & 32) != 0)
        q->avail = place(r);
    if ((b & 64) != 0)
        q->used = place(r);
    q->size = (uint16_t)(q->packed ? s + 1u : 1u << s % 9);
    r->at = r->next_desc = 0;
    r->wrap = true;
    check((virtq_enable(q) == 0) == !q->broken);
}

static void put_desc(struct rig *r, uint64_t at, uint64_t addr, uint32_t len, unsigned flags,
                     unsigned next)
{
    guest_put(r->mem, at, addr, 8);
    guest_put(r->mem, at + 8, len, 4);
    guest_put(r->mem, at + (r->q.packed ? 14 : 12), flags, 2);
    guest_put(r->mem, at + (r->q.packed ? 12 : 14), next, 2);
}

/* One more descriptor of the ring; head: of the chain. */
static void put_in_ring(struct rig *r, uint64_t addr, uint32_t len, unsigned flags)
{
    unsigned size = r->q.size != 0 ? r->q.size : 1u;

    if (r->q.packed) {
        flags |= r->wrap ? P_AVAIL : P_USED;
        put_desc(r, r->q.desc + 16 * r->at, addr, len, flags, r->next_desc & 0xFF);
        if (++r->at >= size) {
            r->at = 0;
            r->wrap = !r->wrap;
        }
    } else {
        put_desc(r, r->q.desc + 16 * (r->next_desc % size), addr, len, flags,
                 (r->next_desc + 1) % size);
    }
    r->next_desc++;
}

static void put_head(struct rig *r, unsigned head)
{
    unsigned size = r->q.size != 0 ? r->q.size : 1u;

    if (r->q.packed)
        return;
    guest_put(r->mem, r->q.avail + 4 + 2 * (r->at % size), head % size, 2);
    r->at++;
    guest_put(r->mem, r->q.avail + 2, r->at, 2);
}

/* A chain of up to eight, readable ones first; an indirect table in the last place, if asked for.
 */
static void op_offer(struct rig *r)
{
    uint8_t b = take8(&r->g);
    unsigned n = 1 + (b & 7), readable = b >> 3 & 7, head = r->next_desc;
    uint64_t table = TABLES + 0x400 * (uint64_t)(head % 16);
    bool indirect = (b & 0x80) != 0;

    for (unsigned i = 0; i < n; i++) {
        uint8_t how = take8(&r->g);
        uint64_t addr = how == 0xFF ? place(r) : DATA + 0x1000 * (uint64_t)i + (how & 15);
        uint32_t len = how == 0xFE ? (uint32_t)take_number(&r->g) : 16u * (how >> 4);
        unsigned flags = (i >= readable ? D_WRITE : 0) | (i + 1 < n ? D_NEXT : 0);

        if (indirect)
            put_desc(r, table + 16 * i, addr, len, r->q.packed ? flags & ~D_NEXT : flags, i + 1);
        else
            put_in_ring(r, addr, len, flags);
    }
    if (indirect)
        put_in_ring(r, table, 16 * n, D_INDIRECT);
    put_head(r, head);
}

static void op_poke(struct rig *r)
{
    uint64_t at = place(r);
    unsigned size = take_size(&r->g);

    guest_put(r->mem, at, take_number(&r->g), size);
}

static void op_poke_place(struct rig *r)
{
    uint64_t at = place(r);

    guest_put(r->mem, at, place(r), 8);
}

static void op_ambush(struct rig *r)
{
    unsigned calls = 1 + take8(&r->g) % 16u;
    uint64_t at = place(r);
    unsigned size = take_size(&r->g);

    ambush_set(calls, at, take_number(&r->g), size);
}

/* ---- the device ---- */

/* What a request says of itself is true. */
static void judge(struct rig *r)
{
    const struct virtq_chain *c = &r->c;
    uint64_t out = 0, in = 0;

    check(c->out_count <= VIRTQ_CHAIN_MAX && c->in_count <= VIRTQ_CHAIN_MAX - c->out_count);
    for (unsigned i = 0; i < c->out_count + c->in_count; i++) {
        const struct virtq_seg *s = &c->segs[i];

        check(s->len == 0 || s->hva == __real_gmem_ptr(r->mem, s->gpa, s->len));
        *(i < c->out_count ? &out : &in) += s->len;
    }
    check(out == c->out_len && in == c->in_len);
    check(r->out_count < r->q.size);
}

static void op_pop(struct rig *r)
{
    bool usable = r->q.enabled && !r->q.broken;
    int rc = virtq_pop(&r->q, &r->c);

    check(usable || rc == 0);
    if (rc < 0) {
        check(rc == -EINVAL && r->q.broken && r->q.why != NULL);
        check(virtq_pop(&r->q, &r->c) == 0);
        r->last_valid = false;
        return;
    }
    if (rc == 0)
        return;
    judge(r);
    r->out[r->out_count++] = r->c.token;
    r->last_valid = true;
}

static void give_back(struct rig *r, unsigned n, uint32_t written)
{
    struct virtq_token t = r->out[n];

    memmove(&r->out[n], &r->out[n + 1], (--r->out_count - n) * sizeof(t));
    virtq_push(&r->q, &t, written);
    r->last_valid = false;
}

static void op_push(struct rig *r)
{
    uint8_t b = take8(&r->g);

    if (r->out_count > 0)
        give_back(r, b % r->out_count, (uint32_t)take_number(&r->g));
}

static void op_unpop(struct rig *r)
{
    if (!r->last_valid)
        return;
    virtq_unpop(&r->q, &r->out[--r->out_count]);
    r->last_valid = false;
}

static void op_copy(struct rig *r)
{
    uint8_t buf[256];
    size_t len = take8(&r->g);
    uint64_t offset = take_number(&r->g);

    if (!r->last_valid)
        return;
    check(virtq_copy_out(&r->c, offset, buf, len) <= len);
    memset(buf, 0x77, sizeof(buf));
    check(virtq_copy_in(&r->q, &r->c, offset, buf, len) <= len);
    virtq_written(&r->q, &r->c, offset);
}

static void op_interrupt(struct rig *r)
{
    (void)virtq_wants_interrupt(&r->q);
}

static void op_notify(struct rig *r)
{
    virtq_set_notify(&r->q, (take8(&r->g) & 1) != 0);
}

/* What is out when the queue is reset cannot come back: memory stays as it is. */
static void op_reset(struct rig *r)
{
    static uint8_t before[0xC000];

    virtq_reset(&r->q);
    check(__real_gmem_read(r->mem, RING, before, sizeof(before)) == 0);
    while (r->out_count > 0)
        give_back(r, 0, 1);
    check(!virtq_wants_interrupt(&r->q) && virtq_pop(&r->q, &r->c) == 0);
    check(memcmp(before, __real_gmem_ptr_ro(r->mem, RING, sizeof(before)), sizeof(before)) == 0);
}

/* A snapshot is loaded, of which some fields are others. Nothing is out then. */
static void op_loaded(struct rig *r)
{
    struct virtq *q = &r->q;
    uint8_t fields = take8(&r->g);
    uint16_t *const small[] = {&q->size, &q->next_avail, &q->next_used, &q->signalled};
    uint64_t *const large[] = {&q->desc, &q->avail, &q->used};
    bool *const flags[] = {&q->enabled,    &q->broken,    &q->packed, &q->indirect,
                           &q->avail_wrap, &q->used_wrap, &q->quiet,  &q->event_idx};

    while (r->out_count > 0)
        give_back(r, 0, 0);
    if ((fields & 1) != 0)
        *small[(fields >> 3) % countof(small)] = (uint16_t)take_number(&r->g);
    if ((fields & 2) != 0)
        *large[(fields >> 3) % countof(large)] = place(r);
    if ((fields & 4) != 0)
        *flags[(fields >> 3) % countof(flags)] ^= true;
    if ((fields & 0x80) != 0)
        q->pushed = (uint32_t)take_number(&r->g);
    if (virtq_loaded(q) != 0)
        virtq_reset(q);
    r->last_valid = false;
}

static void (*const operations[16])(struct rig *r) = {
    op_offer,  op_offer,      op_offer, op_pop,  op_pop,   op_push,      op_push,   op_copy,
    op_notify, op_poke_place, op_poke,  op_poke, op_unpop, op_interrupt, op_ambush, op_loaded,
};

/* After anything at all, a queue that is set up anew takes a request and gives it back. */
static void works(struct rig *r, bool packed)
{
    ambush_none();
    op_reset(r);
    guest_fill(r->mem, RING, 0, 0xC000);
    r->q.packed = packed;
    r->q.desc = RING;
    r->q.avail = DRIVER;
    r->q.used = DEVICE;
    r->q.size = (uint16_t)min_u64(8, r->q.max);
    r->at = r->next_desc = 0;
    r->wrap = true;
    check(virtq_enable(&r->q) == 0);
    put_in_ring(r, DATA, 16, D_NEXT);
    put_in_ring(r, DATA + 0x1000, 16, D_WRITE);
    put_head(r, 0);
    check(virtq_pop(&r->q, &r->c) == 1);
    judge(r);
    check(r->c.out_len == 16 && r->c.in_len == 16);
    virtq_push(&r->q, &r->c.token, 5);
    check(virtq_wants_interrupt(&r->q));
    if (packed)
        check((guest_get(r->mem, RING + 14, 2) & (P_AVAIL | P_USED)) == (P_AVAIL | P_USED));
    else
        check(guest_get(r->mem, DEVICE + 2, 2) == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct rig *r = calloc(1, sizeof(*r));

    check(r != NULL);
    r->g = (struct program){data, data + len};
    r->mem = gmem_create(LOW_SIZE, NULL);
    check(r->mem != NULL);
    virtq_init(&r->q, r->mem, MAX);
    op_enable(r);
    for (unsigned i = 0; i < OPERATIONS && r->g.at < r->g.end; i++) {
        uint8_t b = take8(&r->g);

        if (b == 0xFF)
            op_enable(r);
        else if (b == 0xFE)
            op_reset(r);
        else
            operations[b & 15](r);
    }
    works(r, false);
    works(r, true);
    gmem_destroy(r->mem);
    free(r);
    return 0;
}
