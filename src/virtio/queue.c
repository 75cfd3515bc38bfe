#include "virtio/queue.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "base/endian.h"
#include "virtio/ring.h"

#define AVAIL_NO_INTERRUPT 1u
#define USED_NO_NOTIFY 1u

#define LEGACY_ALIGN 4096u

/* ---- setting up ---- */

void virtq_init(struct virtq *q, struct gmem *mem, unsigned max)
{
    memset(q, 0, sizeof(*q));
    q->mem = mem;
    q->max = (uint16_t)(max < VIRTQ_SIZE_MAX ? max : VIRTQ_SIZE_MAX);
    q->size = q->max;
}

void virtq_reset(struct virtq *q)
{
    uint32_t era = q->era + 1;

    virtq_init(q, q->mem, q->max);
    q->era = era;
}

bool virtq_size_valid(const struct virtq *q, unsigned size)
{
    return size != 0 && size <= q->max && (q->packed || (size & (size - 1)) == 0);
}

static size_t avail_len(const struct virtq *q)
{
    return q->packed ? EVENT_SIZE : 6 + 2 * (size_t)q->size;
}

static size_t used_len(const struct virtq *q)
{
    return q->packed ? EVENT_SIZE : 6 + 8 * (size_t)q->size;
}

int virtq_break(struct virtq *q, const char *why)
{
    q->broken = true;
    q->why = why;
    return -EINVAL;
}

static int virtq_map(struct virtq *q)
{
    q->desc_hva = NULL;
    q->avail_hva = NULL;
    q->used_hva = NULL;
    if (!virtq_size_valid(q, q->size))
        return virtq_break(q, "its size is not possible");
    if (q->desc % 16 != 0 || q->avail % (q->packed ? 4 : 2) != 0 || q->used % 4 != 0)
        return virtq_break(q, "its rings are not aligned");
    q->desc_hva = gmem_ptr(q->mem, q->desc, DESC_SIZE * (size_t)q->size);
    if (q->desc_hva == NULL)
        return virtq_break(q, "its descriptor table is not in RAM");
    q->avail_hva = gmem_ptr(q->mem, q->avail, avail_len(q));
    if (q->avail_hva == NULL)
        return virtq_break(q, "its available ring is not in RAM");
    q->used_hva = gmem_ptr(q->mem, q->used, used_len(q));
    if (q->used_hva == NULL)
        return virtq_break(q, "its used ring is not in RAM");
    return 0;
}

int virtq_enable(struct virtq *q)
{
    q->next_avail = 0;
    q->next_used = 0;
    q->signalled = 0;
    q->avail_wrap = q->used_wrap = true;
    q->pushed = 0;
    q->broken = false;
    q->why = NULL;
    q->quiet = false;
    q->enabled = true;
    return virtq_map(q);
}

void virtq_set_legacy(struct virtq *q, uint64_t base)
{
    q->desc = base;
    q->avail = base + DESC_SIZE * (uint64_t)q->size;
    q->used = align_up(q->avail + avail_len(q), LEGACY_ALIGN);
}

/* Requests that are out; more than size: the indices are impossible. */
static unsigned split_out(const struct virtq *q)
{
    return (uint16_t)(q->next_avail - q->next_used);
}

int virtq_loaded(struct virtq *q)
{
    q->desc_hva = NULL;
    q->avail_hva = NULL;
    q->used_hva = NULL;
    if (!virtq_size_valid(q, q->size))
        return -EINVAL;
    if (!q->enabled)
        return 0;
    if (q->packed ? !packed_indices_valid(q) : split_out(q) > q->size)
        return -EINVAL;
    if (q->broken) {
        q->why = "it was so when it was saved";
        return 0;
    }
    return virtq_map(q);
}

/* ---- ring fields. All are naturally aligned: virtq_map has seen to it. ---- */

static uint16_t load16(const uint8_t *p)
{
    return __atomic_load_n((const uint16_t *)(const void *)p, __ATOMIC_RELAXED);
}

static void store16(struct virtq *q, size_t offset, uint16_t v)
{
    __atomic_store_n((uint16_t *)(void *)(q->used_hva + offset), v, __ATOMIC_RELAXED);
    gmem_written(q->mem, q->used + offset, 2);
}

static uint16_t avail_flags(const struct virtq *q)
{
    return load16(q->avail_hva);
}

/*
 * Acquire: pairs with the driver's write barrier between the entries (and descriptors) and the
 * index, so that what the index covers is seen whole.
 */
static uint16_t avail_index(const struct virtq *q)
{
    return __atomic_load_n((const uint16_t *)(const void *)(q->avail_hva + 2), __ATOMIC_ACQUIRE);
}

static uint16_t avail_entry(const struct virtq *q, uint16_t n)
{
    return load16(q->avail_hva + 4 + 2 * (size_t)(n & (q->size - 1)));
}

static uint16_t used_event(const struct virtq *q)
{
    return load16(q->avail_hva + 4 + 2 * (size_t)q->size);
}

static void set_avail_event(struct virtq *q, uint16_t v)
{
    store16(q, 4 + 8 * (size_t)q->size, v);
}

/* ---- taking requests ---- */

int virtq_copy_desc(struct virtq *q, uint64_t table, unsigned index, uint8_t raw[DESC_SIZE])
{
    const uint8_t *p = gmem_ptr_ro(q->mem, table + DESC_SIZE * (uint64_t)index, DESC_SIZE);

    if (p == NULL)
        return virtq_break(q, "a descriptor is not in RAM");
    if ((uintptr_t)p % 8 != 0) {
        for (unsigned i = 0; i < DESC_SIZE; i++)
            raw[i] = __atomic_load_n(p + i, __ATOMIC_RELAXED);
        return 0;
    }
    for (unsigned i = 0; i < DESC_SIZE; i += 8) {
        uint64_t part = __atomic_load_n((const uint64_t *)(const void *)(p + i), __ATOMIC_RELAXED);

        memcpy(raw + i, &part, 8);
    }
    return 0;
}

/* table: guest-physical, in RAM up to `index`. One copy; nothing is looked at twice. */
static int load_desc(struct virtq *q, uint64_t table, unsigned index, struct desc *d)
{
    uint8_t raw[DESC_SIZE];

    if (virtq_copy_desc(q, table, index, raw) != 0)
        return -EINVAL;
    d->addr = le64_load(raw);
    d->len = le32_load(raw + 8);
    d->flags = le16_load(raw + 12);
    d->next = le16_load(raw + 14);
    return 0;
}

int virtq_add_seg(struct virtq *q, struct virtq_chain *c, const struct desc *d)
{
    unsigned n = c->out_count + c->in_count;
    struct virtq_seg *s = &c->segs[n];

    if (n == VIRTQ_CHAIN_MAX)
        return virtq_break(q, "a request has too many descriptors");
    s->gpa = d->addr;
    s->len = d->len;
    s->hva = d->len != 0 ? gmem_ptr(q->mem, d->addr, d->len) : NULL;
    if (d->len != 0 && s->hva == NULL)
        return virtq_break(q, "a buffer is not in RAM");
    if ((d->flags & DESC_WRITE) != 0) {
        c->in_count++;
        c->in_len += d->len;
    } else {
        if (c->in_count != 0)
            return virtq_break(q, "a readable descriptor follows a writable one");
        c->out_count++;
        c->out_len += d->len;
    }
    return 0;
}

int virtq_table_valid(struct virtq *q, const struct desc *table)
{
    if (!q->indirect)
        return virtq_break(q, "an indirect descriptor was not negotiated");
    if ((table->flags & DESC_NEXT) != 0)
        return virtq_break(q, "an indirect descriptor has a next one");
    if (table->len == 0 || table->len % DESC_SIZE != 0)
        return virtq_break(q, "an indirect table's length is not a multiple of 16");
    if (gmem_ptr_ro(q->mem, table->addr, table->len) == NULL)
        return virtq_break(q, "an indirect table is not in RAM");
    return 0;
}

static int indirect_chain(struct virtq *q, struct virtq_chain *c, const struct desc *table)
{
    unsigned entries = table->len / DESC_SIZE;
    unsigned index = 0;
    struct desc d;

    if (virtq_table_valid(q, table) != 0)
        return -EINVAL;
    for (unsigned steps = 0; steps < entries; steps++) {
        if (load_desc(q, table->addr, index, &d) != 0)
            return -EINVAL;
        if ((d.flags & DESC_INDIRECT) != 0)
            return virtq_break(q, "an indirect table holds an indirect descriptor");
        if (virtq_add_seg(q, c, &d) != 0)
            return -EINVAL;
        if ((d.flags & DESC_NEXT) == 0)
            return 0;
        index = d.next;
        if (index >= entries)
            return virtq_break(q, "an indirect descriptor's next one is outside the table");
    }
    return virtq_break(q, "an indirect table loops");
}

static int ring_chain(struct virtq *q, struct virtq_chain *c)
{
    unsigned index = c->token.head;
    struct desc d;

    if (index >= q->size)
        return virtq_break(q, "a head is outside the descriptor table");
    /* As many steps as there are descriptors: one more would visit one of them again. */
    for (unsigned steps = 0; steps < q->size; steps++) {
        if (load_desc(q, q->desc, index, &d) != 0)
            return -EINVAL;
        if ((d.flags & DESC_INDIRECT) != 0)
            return indirect_chain(q, c, &d);
        if (virtq_add_seg(q, c, &d) != 0)
            return -EINVAL;
        if ((d.flags & DESC_NEXT) == 0)
            return 0;
        index = d.next;
        if (index >= q->size)
            return virtq_break(q, "a descriptor's next one is outside the table");
    }
    return virtq_break(q, "a chain loops");
}

static uint16_t waiting(const struct virtq *q)
{
    return (uint16_t)(avail_index(q) - q->next_avail);
}

static int split_pop(struct virtq *q, struct virtq_chain *c)
{
    uint16_t n;

    n = waiting(q);
    if (n == 0 && q->event_idx && !q->quiet) {
        /*
         * Ask for a notification of the next entry, then look again: the driver stores its index
         * and then reads avail_event, we store avail_event and then read its index. With a full
         * barrier on both sides one of us sees the other.
         */
        set_avail_event(q, q->next_avail);
        atomic_thread_fence(memory_order_seq_cst);
        n = waiting(q);
    }
    if (n == 0)
        return 0;
    if (n > q->size)
        return virtq_break(q, "the available index is further ahead than the ring is long");
    if (split_out(q) >= q->size)
        return virtq_break(q, "more requests are out than the ring is long");
    c->token.head = avail_entry(q, q->next_avail);
    if (ring_chain(q, c) != 0)
        return -EINVAL;
    q->next_avail++;
    return 1;
}

int virtq_pop(struct virtq *q, struct virtq_chain *c)
{
    c->out_count = c->in_count = 0;
    c->out_len = c->in_len = 0;
    c->token = (struct virtq_token){.era = q->era};
    if (!q->enabled || q->broken)
        return 0;
    return q->packed ? packed_pop(q, c) : split_pop(q, c);
}

void virtq_unpop(struct virtq *q, const struct virtq_token *t)
{
    if (t->era != q->era || !q->enabled || q->broken)
        return;
    if (q->packed)
        packed_unpop(q, t);
    else
        q->next_avail--;
}

void virtq_set_notify(struct virtq *q, bool wanted)
{
    q->quiet = !wanted;
    if (!q->enabled || q->broken)
        return;
    if (q->packed) {
        packed_set_notify(q);
    } else if (q->event_idx) {
        /* Quiet: an event index that lies behind does not come round for 65,535 entries. */
        set_avail_event(q, wanted ? q->next_avail : (uint16_t)(q->next_avail - 1));
    } else {
        store16(q, 0, (uint16_t)(wanted ? 0 : USED_NO_NOTIFY));
    }
    atomic_thread_fence(memory_order_seq_cst); /* as in virtq_pop */
}

/* ---- giving them back ---- */

static void split_push(struct virtq *q, const struct virtq_token *t, uint32_t written)
{
    size_t offset = 4 + 8 * (size_t)(q->next_used & (q->size - 1));

    le32_store(q->used_hva + offset, t->head);
    le32_store(q->used_hva + offset + 4, written);
    gmem_written(q->mem, q->used + offset, 8);
    q->next_used++;
    /* Release: the data and the entry are seen before the index; pairs with the driver's read. */
    __atomic_store_n((uint16_t *)(void *)(q->used_hva + 2), q->next_used, __ATOMIC_RELEASE);
    gmem_written(q->mem, q->used + 2, 2);
}

void virtq_push(struct virtq *q, const struct virtq_token *t, uint32_t written)
{
    if (!q->enabled || q->broken || t->era != q->era)
        return;
    if (q->packed)
        packed_push(q, t, written);
    else
        split_push(q, t, written);
}

static bool split_wants_interrupt(struct virtq *q)
{
    uint16_t old = q->signalled, now = q->next_used;

    q->signalled = now;
    if (old == now)
        return false;
    /* Our index before its wish: the driver does it the other way round. */
    atomic_thread_fence(memory_order_seq_cst);
    if (!q->event_idx)
        return (avail_flags(q) & AVAIL_NO_INTERRUPT) == 0;
    /* Whether used_event lies in [old, now), modulo 2^16. */
    return (uint16_t)(now - used_event(q) - 1) < (uint16_t)(now - old);
}

bool virtq_wants_interrupt(struct virtq *q)
{
    if (!q->enabled || q->broken)
        return false;
    return q->packed ? packed_wants_interrupt(q) : split_wants_interrupt(q);
}

/* ---- data ---- */

size_t virtq_copy_out(const struct virtq_chain *c, uint64_t offset, void *to, size_t len)
{
    size_t done = 0;

    for (unsigned i = 0; i < c->out_count && done < len; i++) {
        const struct virtq_seg *s = &c->segs[i];
        size_t n;

        if (offset >= s->len) {
            offset -= s->len;
            continue;
        }
        n = (size_t)min_u64(s->len - offset, len - done);
        memcpy((uint8_t *)to + done, (const uint8_t *)s->hva + offset, n);
        done += n;
        offset = 0;
    }
    return done;
}

size_t virtq_copy_in(struct virtq *q, const struct virtq_chain *c, uint64_t offset,
                     const void *from, size_t len)
{
    size_t done = 0;

    for (unsigned i = c->out_count; i < c->out_count + c->in_count && done < len; i++) {
        const struct virtq_seg *s = &c->segs[i];
        size_t n;

        if (offset >= s->len) {
            offset -= s->len;
            continue;
        }
        n = (size_t)min_u64(s->len - offset, len - done);
        memcpy((uint8_t *)s->hva + offset, (const uint8_t *)from + done, n);
        gmem_written(q->mem, s->gpa + offset, n);
        done += n;
        offset = 0;
    }
    return done;
}

void virtq_written(struct virtq *q, const struct virtq_chain *c, uint64_t len)
{
    for (unsigned i = c->out_count; i < c->out_count + c->in_count && len > 0; i++) {
        uint64_t n = min_u64(c->segs[i].len, len);

        gmem_written(q->mem, c->segs[i].gpa, (size_t)n);
        len -= n;
    }
}
