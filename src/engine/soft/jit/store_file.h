/*
 * The file of kept translations, for store.c, which reads it, and store_save.c, which writes it.
 */
#ifndef ENGINE_SOFT_JIT_STORE_FILE_H
#define ENGINE_SOFT_JIT_STORE_FILE_H

#include <stdlib.h>

#include "engine/soft/jit/store.h"
#include "engine/soft/jit/translate.h"

/*
 * The file: a head, records one behind the other, an index. In a record the code is as if both
 * halves began where the cache's do, behind the stubs; links are not made, and places in the arena
 * are left open.
 */

/*
 * Linux is moved by KASLR, and code is full of its addresses. So where an instruction of the kernel
 * holds a 32-bit number that may be one (a field), a record fits other numbers too, if all of the
 * block's differ by the same distance, which is then added to those in the host code. Where those
 * are is found when the file is written, by translating a block again with other numbers in it.
 */

enum {
    MOST_FILE = 64 << 20,
    MOST_RECORD = 64 << 10,
    REST_AFTER = 4096, /* records, the pages of the file that were read are given back */
    FIRST_BYTES = 16,  /* of the guest's code that the index is by */
    NEXT_BYTES = 768,  /* most records are no longer */
    AHEAD = 4,         /* records behind the last one that may be the next */
};

#define STORE_MAGIC "xhyvejit"

struct head {
    char magic[8];
    uint64_t identity, index, slots, count, size;
    uint64_t sum; /* of the fields above and the index */
};

/* A slot; at 0: free. A record is in the first free one from its hash on. */
struct index {
    uint32_t hash, at; /* in units of 8 bytes */
};

/* Behind it, each at a multiple of 8: guest code, hot, cold, relocations, links, instructions,
 * fields. */
struct record {
    uint64_t sum; /* of all that follows */
    uint32_t size, hash;
    uint16_t off, key, lo, hi; /* as in struct jit_block */
    uint16_t hot, cold, relocs, uops, links;
    uint16_t body, guest; /* bytes of guest code */
    uint8_t insns, smap, entry, fields, spans, polls;
};

struct link_record {
    uint16_t at, cold, target;
    uint8_t apart, at_cold;
};

/* Of a block in the cache: what its record will need, or which one it is. */
struct jit_origin {
    uint32_t at; /* of its record in the file, in units of 8 bytes; 0: it is new */
    uint32_t hash, hot, cold;
    uint16_t hot_len, cold_len, relocs, uops, fields, spans, guest;
    bool smap;
    /* if it is new: relocations, spans, places of the interpreter's instructions, fields, code */
    uint32_t reloc[];
};

static inline uint16_t (*origin_spans(struct jit_origin *o))[2]
{
    return (uint16_t(*)[2])(o->reloc + o->relocs);
}

static inline uint16_t *origin_uops(struct jit_origin *o)
{
    return (uint16_t *)(origin_spans(o) + o->spans);
}

static inline uint16_t *origin_fields(struct jit_origin *o)
{
    return origin_uops(o) + o->uops;
}

static inline uint8_t *origin_guest(struct jit_origin *o)
{
    return (uint8_t *)(origin_fields(o) + o->fields);
}

struct jit_store {
    int dir, fd; /* fd -1: there is no file yet */
    char name[40];
    uint64_t identity, size; /* size: of the head and the records */
    struct index *index;
    unsigned slots;           /* of the index, a power of two; 0: nothing to find */
    unsigned count;           /* of records */
    const uint8_t *bytes;     /* of the file, mapped */
    uint64_t next;            /* behind the record that was used last */
    uint64_t rested;          /* records used when the vCPU last went to sleep */
    struct jit_block **block; /* of the cache, in the order in which they came */
    unsigned blocks, room, fresh;
    bool failed; /* no memory for the list: nothing will be written */
};

static inline uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9E3779B97F4A7C15ull;
    return h ^ h >> 29;
}

/* Four sums side by side: a processor does as many at once. */
static inline uint64_t sum_of(uint64_t h, const void *p, size_t len)
{
    const uint8_t *b = p;
    uint64_t lane[4] = {h, h + 1, h + 2, h + 3}, v;

    for (; len >= 32; len -= 32, b += 32) {
        for (unsigned i = 0; i < 4; i++) {
            memcpy(&v, b + 8 * i, 8);
            lane[i] = mix(lane[i], v);
        }
    }
    h = mix(mix(lane[0], lane[1]), mix(lane[2], lane[3]));
    for (; len >= 8; len -= 8, b += 8) {
        memcpy(&v, b, 8);
        h = mix(h, v);
    }
    v = 0;
    memcpy(&v, b, len);
    return mix(h, v ^ (uint64_t)len << 56);
}

static inline uint64_t record_sum(const struct record *r)
{
    return sum_of(1, &r->size, r->size - offsetof(struct record, size));
}

static inline uint32_t load32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, 4);
    return v;
}

/* Linux's image and modules: the last 2 GiB but one. */
static inline bool is_address(uint32_t v)
{
    return v >> 30 == 2;
}

/* From there to a variable of the processor, and far from what no longer fits into 32 bits. */
static inline bool is_distance(uint32_t v)
{
    return v >> 30 == 1 && v < 0x7fff0000;
}

static inline size_t up(size_t n)
{
    return (n + 7) & ~(size_t)7;
}

static inline size_t record_size(const struct record *r)
{
    return sizeof(*r) + up(r->guest) + up(r->hot) + up(r->cold) + up(r->relocs * sizeof(uint32_t)) +
           r->links * sizeof(struct link_record) + up(r->uops * sizeof(uint16_t)) +
           up(r->fields * sizeof(uint16_t)) + up(r->spans * sizeof(uint32_t));
}

struct parts {
    const uint8_t *guest, *hot, *cold;
    const uint32_t *reloc;
    const struct link_record *link;
    const uint16_t *uop_at, *field;
    const uint16_t (*span)[2];
};

static inline struct parts parts_of(const struct record *r)
{
    struct parts p;
    const uint8_t *at = (const uint8_t *)(r + 1);

    p.guest = at;
    at += up(r->guest);
    p.hot = at;
    at += up(r->hot);
    p.cold = at;
    at += up(r->cold);
    p.reloc = (const void *)at;
    at += up(r->relocs * sizeof(uint32_t));
    p.link = (const void *)at;
    at += r->links * sizeof(struct link_record);
    p.uop_at = (const void *)at;
    at += up(r->uops * sizeof(uint16_t));
    p.field = (const void *)at;
    at += up(r->fields * sizeof(uint16_t));
    p.span = (const void *)at;
    return p;
}

static inline uint64_t head_sum(const struct head *h, const struct index *index)
{
    return sum_of(sum_of(3, h, offsetof(struct head, sum)), index, h->slots * sizeof(*index));
}

/* ---- store.c ---- */
/* Where the index has code: by the first instructions, without addresses. */
uint32_t store_place(const uint8_t *page, unsigned off, unsigned key, bool smap);
/* It is whole, as it was written. */
bool store_sound(const struct record *r);
/* The record at this place of the file, unchecked but for its size; NULL: it cannot be had. */
const struct record *store_record(struct jit_store *s, uint64_t at);
/* Moves code from where its halves began to where they begin now. */
void store_relocate(uint8_t *hot, uint8_t *cold, const uint32_t *reloc, unsigned n, int64_t by_hot,
                    int64_t by_cold);

/* ---- store_save.c ---- */
/* Writes the file anew; what goes wrong is logged. */
void store_save(struct soft_cpu *cpu);

#endif
