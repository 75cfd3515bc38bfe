/*
 * The packed ring. virtio 1.2, "Packed Virtqueues".
 *
 * Both sides go round one ring of descriptors. Each has a bit that flips every time it passes the
 * end (the wrap counter); a descriptor is available if its AVAIL bit is the driver's counter and
 * its USED bit is not, and used if both are the device's. A request of several descriptors lies in
 * consecutive places; one used descriptor returns it, and the device steps over as many places as
 * the request had taken.
 */
#include <errno.h>
#include <stdatomic.h>

#include "base/endian.h"
#include "virtio/ring.h"

#define PACKED_AVAIL 0x0080u
#define PACKED_USED 0x8000u

/* A descriptor in the ring. */
#define PACKED_LEN 8u
#define PACKED_ID 12u
#define PACKED_FLAGS 14u

/* An event area, one aligned word: where in its low half, how in the high. */
#define EVENT_WRAP 0x8000u
#define EVENT_ENABLE 0u
#define EVENT_DISABLE 1u
#define EVENT_DESC 2u
#define EVENT_FLAGS 3u

/* Places that requests which are out take: at most size, as packed_indices_valid has it. */
static unsigned places_out(const struct virtq *q)
{
    if (q->avail_wrap == q->used_wrap)
        return (unsigned)q->next_avail - q->next_used;
    return (unsigned)q->size + q->next_avail - q->next_used;
}

bool packed_indices_valid(const struct virtq *q)
{
    if (q->next_avail >= q->size || q->next_used >= q->size)
        return false;
    return q->avail_wrap == q->used_wrap ? q->next_avail >= q->next_used
                                         : q->next_avail <= q->next_used;
}

static void advance(const struct virtq *q, uint16_t *index, bool *wrap, unsigned places)
{
    unsigned to = *index + places; /* places <= size */

    if (to >= q->size) {
        to -= q->size;
        *wrap = !*wrap;
    }
    *index = (uint16_t)to;
}

/* ---- taking requests ---- */

/*
 * Acquire: pairs with the driver's write barrier between a request's descriptors and the flags of
 * its first.
 */
static uint16_t flags_of(const struct virtq *q, unsigned index)
{
    const uint8_t *p = q->desc_hva + DESC_SIZE * (size_t)index + PACKED_FLAGS;

    return __atomic_load_n((const uint16_t *)(const void *)p, __ATOMIC_ACQUIRE);
}

static bool available(const struct virtq *q, uint16_t flags)
{
    return ((flags & PACKED_AVAIL) != 0) == q->avail_wrap &&
           ((flags & PACKED_USED) != 0) != q->avail_wrap;
}

static void set_device_area(struct virtq *q, unsigned how)
{
    uint32_t where = q->next_avail | (q->avail_wrap ? EVENT_WRAP : 0);

    __atomic_store_n((uint32_t *)(void *)q->used_hva, where | how << 16, __ATOMIC_RELAXED);
    gmem_written(q->mem, q->used, EVENT_SIZE);
    atomic_thread_fence(memory_order_seq_cst); /* before the next look at the ring */
}

void packed_set_notify(struct virtq *q)
{
    if (q->quiet)
        set_device_area(q, EVENT_DISABLE);
    else
        set_device_area(q, q->event_idx ? EVENT_DESC : EVENT_ENABLE);
}

/* One copy of table[index], with the id in *id. */
static int load_packed(struct virtq *q, uint64_t table, unsigned index, struct desc *d,
                       uint16_t *id)
{
    uint8_t raw[DESC_SIZE];

    if (virtq_copy_desc(q, table, index, raw) != 0)
        return -EINVAL;
    d->addr = le64_load(raw);
    d->len = le32_load(raw + PACKED_LEN);
    d->flags = le16_load(raw + PACKED_FLAGS);
    d->next = 0;
    *id = le16_load(raw + PACKED_ID);
    return 0;
}

/* All entries of the table, in order: of their flags only "writable" counts. */
static int packed_table(struct virtq *q, struct virtq_chain *c, const struct desc *table)
{
    struct desc d;
    uint16_t id;

    if (virtq_table_valid(q, table) != 0)
        return -EINVAL;
    for (unsigned i = 0; i < table->len / DESC_SIZE; i++) {
        if (load_packed(q, table->addr, i, &d, &id) != 0)
            return -EINVAL;
        if ((d.flags & DESC_INDIRECT) != 0)
            return virtq_break(q, "an indirect table holds an indirect descriptor");
        if (virtq_add_seg(q, c, &d) != 0)
            return -EINVAL;
    }
    return 0;
}

/* The request that begins at next_avail. head_flags: as they were when it was found available. */
static int packed_chain(struct virtq *q, struct virtq_chain *c, uint16_t head_flags)
{
    unsigned room = q->size - places_out(q);
    unsigned index = q->next_avail;
    struct desc d;

    for (unsigned slots = 1; slots <= room; slots++) {
        if (load_packed(q, q->desc, index, &d, &c->token.head) != 0)
            return -EINVAL;
        if (slots == 1)
            d.flags = head_flags;
        c->token.slots = (uint16_t)slots;
        if ((d.flags & DESC_INDIRECT) != 0)
            return packed_table(q, c, &d);
        if (virtq_add_seg(q, c, &d) != 0)
            return -EINVAL;
        if ((d.flags & DESC_NEXT) == 0)
            return 0; /* the id is that of the last */
        if (++index == q->size)
            index = 0;
    }
    return virtq_break(q, "a request is longer than the ring has room");
}

int packed_pop(struct virtq *q, struct virtq_chain *c)
{
    uint16_t flags = flags_of(q, q->next_avail);

    if (!available(q, flags) && q->event_idx && !q->quiet) {
        /* Ask to be told of the next one, then look again: as in the split ring. */
        set_device_area(q, EVENT_DESC);
        flags = flags_of(q, q->next_avail);
    }
    if (!available(q, flags))
        return 0;
    if (packed_chain(q, c, flags) != 0)
        return -EINVAL;
    advance(q, &q->next_avail, &q->avail_wrap, c->token.slots);
    return 1;
}

void packed_unpop(struct virtq *q, const struct virtq_token *t)
{
    if (t->slots > places_out(q))
        return;
    if (t->slots > q->next_avail) {
        q->next_avail = (uint16_t)(q->next_avail + q->size);
        q->avail_wrap = !q->avail_wrap;
    }
    q->next_avail = (uint16_t)(q->next_avail - t->slots);
}

/* ---- giving them back ---- */

void packed_push(struct virtq *q, const struct virtq_token *t, uint32_t written)
{
    uint8_t *d = q->desc_hva + DESC_SIZE * (size_t)q->next_used;
    uint16_t flags = q->used_wrap ? PACKED_AVAIL | PACKED_USED : 0;

    if (t->slots == 0 || t->slots > places_out(q))
        return; /* not one that is out */
    if (written != 0)
        flags |= DESC_WRITE; /* the length counts */
    le32_store(d + PACKED_LEN, written);
    le16_store(d + PACKED_ID, t->head);
    /* Release: data, length and id are seen before the flags; pairs with the driver's read. */
    __atomic_store_n((uint16_t *)(void *)(d + PACKED_FLAGS), flags, __ATOMIC_RELEASE);
    gmem_written(q->mem, q->desc + DESC_SIZE * (uint64_t)q->next_used + PACKED_LEN,
                 DESC_SIZE - PACKED_LEN);
    advance(q, &q->next_used, &q->used_wrap, t->slots);
    q->pushed += t->slots;
}

bool packed_wants_interrupt(struct virtq *q)
{
    uint32_t area, pushed = q->pushed;
    uint16_t now = q->next_used, event;

    q->pushed = 0;
    if (pushed == 0)
        return false;
    /* Our descriptors before its wish: the driver does it the other way round. */
    atomic_thread_fence(memory_order_seq_cst);
    area = __atomic_load_n((const uint32_t *)(const void *)q->avail_hva, __ATOMIC_RELAXED);
    if ((area >> 16 & EVENT_FLAGS) == EVENT_DISABLE)
        return false;
    if ((area >> 16 & EVENT_FLAGS) != EVENT_DESC || !q->event_idx || pushed >= q->size)
        return true;
    /* Is that place among the last `pushed` before now? One of the round before is less. */
    event = (uint16_t)(area & ~EVENT_WRAP);
    if (((area & EVENT_WRAP) != 0) != q->used_wrap)
        event = (uint16_t)(event - q->size);
    return (uint16_t)(now - event - 1) < pushed;
}
