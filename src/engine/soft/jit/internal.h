/*
 * What the translator's files share: the code cache, blocks and their links, and what translated
 * code calls. On the vCPU's thread, as in jit.h.
 */
#ifndef ENGINE_SOFT_JIT_INTERNAL_H
#define ENGINE_SOFT_JIT_INTERNAL_H

#include "engine/soft/interp.h"
#include "engine/soft/jit/emit.h"
#include "engine/soft/jit/jit.h"

/* Scratch registers. */
enum { S1 = H_RBP, S2 = H_R8, S3 = H_R9 };

/* A block's key beside its physical address: what its code takes for granted. */
#define KEY_USER 1u    /* CPL 3 */
#define KEY_SSE 2u     /* SSE may run: no trap, no unmasked exception */
#define KEY_AVX 4u     /* and AVX */
#define KEY_COUNT 8u   /* counts instructions, stops at the budget */
#define KEY_STRICT 32u /* the code can write to itself: flags are exact wherever it stores */
#define KEY_X87 64u    /* x87 and MMX may run: no trap, no unmasked exception */
#define KEY_APART 16u  /* every access has a probe of its own */
#define KEY_32 128u    /* 32-bit code in protected mode, its segments flat; else 64-bit code */

#ifdef XHYVE_HOSTILE
enum { JIT_INSNS = 5, JIT_HASH_BITS = 4, JIT_PAGE_BITS = 4 };
#define JIT_CODE_SIZE (16u << 10) /* hot, and as much cold */
#define JIT_ARENA_SIZE (96u << 10)
enum { CODE_MOST = 4 << 10, ARENA_MOST = 16 << 10 }; /* most that one block may need */
#else
enum { JIT_INSNS = 40, JIT_HASH_BITS = 17, JIT_PAGE_BITS = 12 };
#define JIT_CODE_SIZE (24u << 20)
#define JIT_ARENA_SIZE (32u << 20)
enum { CODE_MOST = 16 << 10, ARENA_MOST = 32 << 10 };
#endif
enum { JIT_EXITS = 12 };

struct jit_block;

/* A direct jump to another block of the same page, patched once the target exists. */
struct jit_link {
    uint32_t at;     /* of the displacement, in the cache */
    uint32_t cold;   /* where it goes while it is not linked */
    uint16_t target; /* offset in the page */
    bool apart;      /* to a block with KEY_APART */
    /* blocks, and the next of those that lead to `to`, as places in the arena (jit_place); 0: none
     */
    uint32_t from, to, next;
};

struct jit_block {
    struct jit_block *hash_next, *page_next;
    uint64_t pa;
    uint32_t in;          /* the first link that leads here */
    uint32_t body, entry; /* offsets in the cache; entry 0: not made */
    uint16_t lo, hi;      /* page offsets of the bytes it depends on */
    uint16_t key;
    uint8_t insns, links;
    uint8_t first[5]; /* of a dead block's entry: a jump to the stub is in their place */
    bool dead, polls; /* polls: looks for what is pending itself */
    struct jit_link *link;
    uint16_t *offsets;         /* of the instructions, with KEY_COUNT */
    struct jit_origin *origin; /* store.c's; NULL: not to be kept */
};

/*
 * A place in a block's code that depends on where things lie, for store.c: kind, half, index, and
 * the distance from the half's start.
 */
enum jit_reloc {
    RELOC_FIXED, /* distance to a stub */
    RELOC_OTHER, /* distance to the block's other half */
    RELOC_LINK,  /* arena offset of link `index` */
    RELOC_UOP,   /* of the interpreter's instruction `index`; or one of these */
};
#define RELOC_GUEST 0x1fffu /* an address of the guest's */
#define RELOC_BACK 0x1ffeu  /* one that moves the other way */
#define RELOC(kind, cold, index, pos)                                                              \
    ((uint32_t)(kind) << 30 | (uint32_t)(cold) << 29 | (uint32_t)(index) << 16 | (uint32_t)(pos))
#define RELOC_KIND(r) ((r) >> 30)
#define RELOC_COLD(r) ((r) >> 29 & 1)
#define RELOC_INDEX(r) ((r) >> 16 & 0x1fff)
#define RELOC_POS(r) ((r)&0xffff)

enum jit_fn { FN_SLOW, FN_UOP, FN_END, FN_MISS, FN_LINK, FN_STEP, FN_APART, FN_ACROSS, JIT_FNS };

/* The instruction that a block is made of goes on in the next page, with these bytes there. */
struct jit_across {
    uint64_t pa; /* of its beginning */
    uint8_t len;
    uint8_t bytes[15];
};

/* Why translated code was left, beside faults. */
enum jit_leave {
    LEAVE_PENDING, /* an interrupt, a kick, an invalidation */
    LEAVE_MODE,    /* not 64-bit code, single steps, breakpoints on data, CPL 1 or 2 */
    LEAVE_CODE,    /* a fetch from a device, other bytes where an instruction crosses into a page */
    LEAVE_CHANGED, /* the instruction before has changed what the code takes for granted */
    JIT_LEAVES,
};

/* Why a look into the TLB failed. */
enum jit_why {
    WHY_ABSENT,   /* the page was not in it */
    WHY_WRITE,    /* not for writing: clean until now, or read-only */
    WHY_CROSSING, /* the access ends in the next page */
    WHY_SPAN,     /* accesses that share a look-up end there */
    WHY_ALIGN,    /* it must be aligned, and is not */
    WHY_NO_RAM,   /* a device, or a page with code */
    JIT_WHYS,
};

/* Counters for --stats. */
struct jit_stats {
    uint64_t translated, blocks, bytes, ns; /* instructions, blocks, host bytes, time */
    uint64_t fills, steps, apart, links, misses, flushes, kills;
    uint64_t loaded; /* blocks that an earlier run has translated */
    uint64_t leaves[JIT_LEAVES], whys[JIT_WHYS];
    uint64_t helpers[X86_OP_COUNT];
};

struct tx;
struct jit_trace;
struct jit_store;

struct jit {
    uint8_t *rw, *rx; /* two views of the cache: hot half, cold half */
    size_t size;
    uint8_t *hot, *hot_end, *cold, *cold_end; /* writable view */
    uint8_t *start_hot, *start_cold;          /* behind the stubs */
    uint8_t *arena;
    size_t arena_used;
    struct jit_block *hash[1u << JIT_HASH_BITS];
    struct jit_block *page[1u << JIT_PAGE_BITS];
    uint64_t exec_filter[1024]; /* pages that jump tables name, hashed */
    uint64_t space[4096];       /* contexts of PCIDs; 0: none */
    uint16_t space_key[4096];   /* the key that entries of each, if there are any, were made for */
    uint16_t kernel_key;        /* the same of the supervisor's context */
    unsigned pcid;              /* the current one */
    bool local_kernel;          /* supervisor slots may name pages that are not global */
    uint64_t epoch;             /* counts flushes */
    uint64_t chance;            /* by_chance's last number */
    uint32_t *dirty;            /* slots that lead to code: table << 16 | slot */
    unsigned dirties;
    bool killed; /* a block was killed since the flag was cleared */
    /* stubs, in the executable view */
    void (*enter)(struct soft_cpu *cpu, const void *code);
    const uint8_t *exit, *stub[JIT_FNS], *vec_save, *vec_load, *x87_save, *x87_load, *poll;
    bool xsave;    /* the host has it */
    struct tx *tx; /* translate.c's */
    struct jit_stats stats;
    struct jit_trace *trace; /* trace.c's; NULL: not wanted */
    struct jit_store *store; /* store.c's; NULL: nothing is kept for the next run */
};

/* ---- stubs.c ---- */
/* Writes the stubs at the start of the cache. */
void jit_make_stubs(struct soft_cpu *cpu, struct jit *j);

/* ---- translate.c ---- */
/*
 * Translates the code at lin, which is pa, and whose page lies at `page` in the host. NULL: its
 * first instruction cannot be. The caller has seen to it that there is room. May fault: an
 * instruction that goes on in the next page is fetched from there, unless lin is JIT_NOWHERE.
 */
#define JIT_NOWHERE UINT64_MAX
struct jit_block *jit_translate(struct soft_cpu *cpu, uint64_t lin, uint64_t pa,
                                const uint8_t *page, unsigned key, bool entry);

/* ---- cache.c ---- */
/*
 * The code by which slots lead to a block: checks that the slot is for this address and context,
 * looks for what is pending, and goes on in the body, which must follow. t: being translated, or
 * NULL.
 */
void jit_put_entry(struct soft_cpu *cpu, struct emit *e, unsigned key, bool polls, struct tx *t);
void *jit_alloc(struct jit *j, size_t size);
struct jit_block *jit_find(struct jit *j, uint64_t pa, unsigned key);
void jit_insert(struct jit *j, struct jit_block *b);

/* Blocks and links are named by where they are in the arena. */
static inline uint32_t jit_place(const struct jit *j, const void *p)
{
    return (uint32_t)((const uint8_t *)p - j->arena);
}

static inline struct jit_link *jit_link_at(const struct jit *j, uint32_t place)
{
    return (void *)(j->arena + place);
}

static inline struct jit_block *jit_block_at(const struct jit *j, uint32_t place)
{
    return (void *)(j->arena + place);
}

static inline uint8_t *jit_rx(const struct jit *j, const uint8_t *rw)
{
    return j->rx + (rw - j->rw);
}

static inline uint8_t *jit_at(const struct jit *j, uint32_t offset)
{
    return j->rw + offset;
}

static inline uint32_t jit_offset(const struct jit *j, const uint8_t *rw)
{
    return (uint32_t)(rw - j->rw);
}

/* What the interpreter's current state asks of a block's key. */
unsigned jit_key(const struct soft_cpu *cpu);

/* S3 at a way to another page: the branch's offset, from bit 12 on how far it has moved RSP. */
#define FAR_FALLS UINT32_MAX /* no branch: execution runs off the page */

/* Packed arguments of FN_SLOW, behind the call. */
#define SLOW_OFF(x) ((x)&0xfffu)
#define SLOW_SIZE(x) (((x) >> 12) & 0x7fu)
#define SLOW_WRITE (1u << 19)
#define SLOW_SEG(x) (((x) >> 20) & 7u)
#define SLOW_GROUP_WRITE (1u << 30)
#define SLOW_SPLIT (1u << 31)  /* S1 is the address still, S3 the distance to the host's */
#define SLOW_BRANCH (1u << 29) /* there is no next instruction to go on with */
#define SLOW_ALIGN(x) (((x) >> 23) & 63u) /* mask that the address must not meet */

#endif
