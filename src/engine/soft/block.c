#include <errno.h>
#include <stdlib.h>

#include "engine/soft/interp.h"
#include "engine/soft/jit/jit.h"
#include "host/memory.h"

/*
 * Decoded instructions, kept by physical page. Blocks are cut from one arena and never freed alone:
 * when it is full, all go. A page that holds decoded instructions is marked, so that every write to
 * it comes here (our own by the TLB, other vCPUs' by theirs, devices' by gmem's hook).
 *
 * A mark says that no vCPU writes to the page unnoticed. Whoever writes takes it away, and then
 * tells all who may hold instructions of the page; a mark that outlives them costs one slow write.
 */

#ifdef XHYVE_HOSTILE
enum { ARENA_SIZE = 64 << 10, BLOCK_MAX = 3, HASH_BITS = 4, COLD_BITS = 1 };
#else
enum { ARENA_SIZE = 24 << 20, BLOCK_MAX = 48, HASH_BITS = 14, COLD_BITS = 8 };
#endif
enum { INSN_MAX = 15 };

/* An instruction that crosses a page: found by address, checked by its bytes at every use. */
struct cold_block {
    uint64_t lin;
    uint8_t len;
    uint8_t bytes[INSN_MAX];
    union {
        struct soft_block block;
        uint8_t room[sizeof(struct soft_block) + sizeof(struct uop)];
    };
};

struct blocks {
    uint8_t *arena;
    size_t used;
    struct soft_block *hash[1u << HASH_BITS];
    struct soft_block *page[1u << HASH_BITS];
    struct cold_block cold[1u << COLD_BITS];
    struct cold_block single;
};

int blocks_init(struct soft_cpu *cpu, struct error *err)
{
    struct blocks *b = calloc(1, sizeof(*b));

    if (b == NULL)
        return error_set(err, -ENOMEM, "no memory for the instruction cache");
    b->arena = host_memory_alloc(ARENA_SIZE, err);
    if (b->arena == NULL) {
        free(b);
        return -ENOMEM;
    }
    cpu->blocks = b;
    return 0;
}

void blocks_fini(struct soft_cpu *cpu)
{
    struct blocks *b = cpu->blocks;

    if (b == NULL)
        return;
    host_memory_free(b->arena, ARENA_SIZE);
    free(b);
    cpu->blocks = NULL;
}

static unsigned hash_pa(uint64_t pa)
{
    return (unsigned)((pa * 0x9E3779B97F4A7C15ull) >> (64 - HASH_BITS));
}

static void forget_jumps(struct soft_cpu *cpu)
{
    memset(cpu->jumps, 0, sizeof(cpu->jumps));
}

void block_flush_all(struct soft_cpu *cpu)
{
    struct blocks *b = cpu->blocks;

    for (unsigned i = 0; i < countof(b->page); i++) {
        for (struct soft_block *k = b->page[i]; k != NULL; k = k->page_next)
            k->dead = true; /* the marks stay: others may have decoded the same pages */
    }
    memset(b->hash, 0, sizeof(b->hash));
    memset(b->page, 0, sizeof(b->page));
    b->used = 0;
    forget_jumps(cpu);
}

/* Takes out every block of the page that overlaps [from, to). Returns how many stay. */
static unsigned kill_range(struct soft_cpu *cpu, uint64_t from, uint64_t to)
{
    struct blocks *b = cpu->blocks;
    uint64_t page = from & PAGE_MASK;
    struct soft_block **link = &b->page[hash_pa(page)];
    unsigned stay = 0;
    bool killed = false;

    while (*link != NULL) {
        struct soft_block *k = *link;

        if ((k->pa & PAGE_MASK) != page) {
            link = &k->page_next;
        } else if (k->pa < to && from < k->pa + k->bytes) {
            struct soft_block **h = &b->hash[hash_pa(k->pa)];

            while (*h != k)
                h = &(*h)->hash_next;
            *h = k->hash_next;
            *link = k->page_next;
            k->dead = true;
            killed = true;
            if (k == cpu->block)
                soft_stop_block(cpu);
        } else {
            stay++;
            link = &k->page_next;
        }
    }
    if (killed)
        forget_jumps(cpu);
    return stay;
}

void block_written(struct soft_cpu *cpu, uint64_t gpa, unsigned len)
{
    unsigned stay = kill_range(cpu, gpa, gpa + len) + jit_kill_range(cpu, gpa, gpa + len);
    uint32_t who = gmem_take_code(cpu->vm->env.mem, gpa & PAGE_MASK, stay != 0 ? soft_bit(cpu) : 0);

    /* who decodes in between has a mark of its own again, and sees the new bytes */
    soft_tell_written(cpu, gpa & PAGE_MASK, who);
}

void block_flush_page(struct soft_cpu *cpu, uint64_t gpa_page)
{
    kill_range(cpu, gpa_page, gpa_page + PAGE_SIZE);
    jit_kill_range(cpu, gpa_page, gpa_page + PAGE_SIZE);
}

static void op_invalid(struct soft_cpu *cpu, const struct uop *u)
{
    (void)u;
    soft_raise(cpu, X86_EXC_UD);
}

static void op_too_long(struct soft_cpu *cpu, const struct uop *u)
{
    (void)u;
    soft_raise_error(cpu, X86_EXC_GP, 0);
}

/* The instruction at offset off of its block; what cannot be decoded becomes one that faults. */
void block_make_uop(struct soft_cpu *cpu, const uint8_t *code, unsigned avail, unsigned off,
                    struct uop *u)
{
    struct x86_insn insn;
    int len = x86_decode(code, avail, cpu->mode, &insn);

    memset(u, 0, sizeof(*u));
    if (len > 0) {
        u->len = (uint8_t)len;
        u->off = (uint16_t)off;
        uop_build(cpu, &insn, code, u);
        if (u->flags & UOP_RIP)
            u->disp += off + u->len;
        return;
    }
    /* all bytes that were looked at: a store into any of them makes another instruction of it */
    u->len = len == X86_DECODE_TOOLONG ? INSN_MAX : insn.len;
    u->off = (uint16_t)off;
    u->flags = UOP_END;
    u->fn = len == X86_DECODE_TOOLONG ? op_too_long : op_invalid;
}

/*
 * An instruction whose bytes may lie on two pages. The second page is touched only if the first
 * does not hold all of it. A fetch fault reports the address of the byte that could not be had.
 */
static struct soft_block *make_single(struct soft_cpu *cpu, uint64_t lin, const uint8_t *first,
                                      unsigned have, struct cold_block *c)
{
    uint8_t code[INSN_MAX];
    unsigned avail = have < INSN_MAX ? have : INSN_MAX;
    struct x86_insn insn;

    memcpy(code, first, avail);
    if (avail < INSN_MAX && x86_decode(code, avail, cpu->mode, &insn) == X86_DECODE_MORE) {
        uint64_t gpa, next = cpu->long_code ? lin + avail : (uint32_t)(lin + avail);
        const uint8_t *second = mmu_fetch(cpu, next, &gpa);

        if (second == NULL)
            mmu_fetch_device(cpu, gpa, code + avail, INSN_MAX - avail);
        else
            memcpy(code + avail, second, INSN_MAX - avail);
        avail = INSN_MAX;
    }
    if (c->block.count == 1 && c->lin == lin && c->block.mode == cpu->block_mode &&
        c->len <= avail && memcmp(c->bytes, code, c->len) == 0)
        return &c->block;
    memset(c, 0, sizeof(*c));
    block_make_uop(cpu, code, avail, 0, &c->block.uop[0]);
    c->lin = lin;
    c->len = c->block.uop[0].len;
    memcpy(c->bytes, code, c->len);
    c->block.count = 1;
    c->block.bytes = c->len;
    c->block.mode = cpu->block_mode;
    c->block.pa = UINT64_MAX;
    return &c->block;
}

const uint8_t *soft_code_copy(struct soft_cpu *cpu, const uint8_t *at, unsigned from, unsigned to)
{
    const uint8_t *page = at - from;

    if (!cpu->vm->smp)
        return at;
    for (unsigned i = from & ~7u; i < to; i += 8) {
        uint64_t word =
            __atomic_load_n((const uint64_t *)(const void *)(page + i), __ATOMIC_RELAXED);

        memcpy(cpu->code_copy + i, &word, sizeof(word));
    }
    return cpu->code_copy + from;
}

/* The mark first, then a look at who may write: such a one looks at the mark after it says so. */
bool block_protect(struct soft_cpu *cpu, uint64_t gpa_page)
{
    struct gmem *mem = cpu->vm->env.mem;
    bool fresh = !(gmem_is_code(mem, gpa_page) & soft_bit(cpu));
    uint32_t who;

    if (fresh) {
        gmem_mark_code(mem, gpa_page, soft_bit(cpu));
        mmu_protect_code(cpu, gpa_page);
    }
    if (!cpu->vm->smp)
        return true;
    who = gmem_set_writer(mem, gpa_page, 0) & ~soft_bit(cpu);
    return who == 0 || soft_settle(cpu, gpa_page, who, fresh);
}

/*
 * Decodes from `code` (have bytes to the page's end) into the arena; NULL if the first crosses, or
 * the bytes are not ours to keep yet.
 */
static struct soft_block *make_block(struct soft_cpu *cpu, uint64_t pa, const uint8_t *code,
                                     unsigned have)
{
    struct blocks *b = cpu->blocks;
    size_t most = sizeof(struct soft_block) + BLOCK_MAX * sizeof(struct uop);
    struct soft_block *k;
    unsigned off = 0;

    if (ARENA_SIZE - b->used < most)
        block_flush_all(cpu);
    if (!block_protect(cpu, pa & PAGE_MASK))
        return NULL;
    code = soft_code_copy(cpu, code, PAGE_SIZE - have, PAGE_SIZE);
    k = (void *)(b->arena + b->used);
    memset(k, 0, sizeof(*k));
    k->pa = pa;
    k->mode = cpu->block_mode;
    while (k->count < BLOCK_MAX) {
        struct uop *u = &k->uop[k->count];
        struct x86_insn insn;

        if (have - off < INSN_MAX &&
            x86_decode(code + off, have - off, cpu->mode, &insn) == X86_DECODE_MORE)
            break;
        block_make_uop(cpu, code + off, have - off, off, u);
        off += u->len;
        k->count++;
        if ((u->flags & UOP_END) || off >= have)
            break;
    }
    if (k->count == 0)
        return NULL;
    k->bytes = (uint16_t)off;
    b->used += (sizeof(*k) + k->count * sizeof(struct uop) + 63) & ~(size_t)63;
    k->hash_next = b->hash[hash_pa(pa)];
    b->hash[hash_pa(pa)] = k;
    k->page_next = b->page[hash_pa(pa & PAGE_MASK)];
    b->page[hash_pa(pa & PAGE_MASK)] = k;
    return k;
}

/* One instruction's bytes, `have` before the page's end. */
static const uint8_t *insn_copy(struct soft_cpu *cpu, const uint8_t *code, unsigned have)
{
    unsigned from = PAGE_SIZE - have;

    return soft_code_copy(cpu, code, from, from + (have < INSN_MAX ? have : INSN_MAX));
}

struct soft_block *block_get(struct soft_cpu *cpu, bool single)
{
    struct blocks *b = cpu->blocks;
    uint64_t lin = cpu->base[X86_CS] + cpu->st.rip, gpa;
    uint8_t device[INSN_MAX];
    const uint8_t *code;
    struct cold_block *cold;
    struct soft_block *k;
    unsigned have;

    cpu->block_rip = cpu->st.rip;
    cpu->block = NULL;
    if (!cpu->long_code) {
        lin = (uint32_t)lin;
        if (cpu->st.rip > cpu->st.seg[X86_CS].limit)
            soft_raise_error(cpu, X86_EXC_GP, 0);
    }
    have = PAGE_SIZE - (unsigned)(lin & 4095);
    code = mmu_fetch(cpu, lin, &gpa);
    if (code == NULL) { /* registers of a device: one instruction, fetched anew each time */
        have = have < INSN_MAX ? have : INSN_MAX;
        mmu_fetch_device(cpu, gpa, device, have);
        return make_single(cpu, lin, device, have, &b->single);
    }
    cold = &b->cold[lin & ((1u << COLD_BITS) - 1)];
    if (single)
        return make_single(cpu, lin, insn_copy(cpu, code, have), have, cold);
    for (k = b->hash[hash_pa(gpa)]; k != NULL; k = k->hash_next) {
        if (k->pa == gpa && k->mode == cpu->block_mode)
            return k;
    }
    k = make_block(cpu, gpa, code, have);
    if (k == NULL)
        k = make_single(cpu, lin, insn_copy(cpu, code, have), have, cold);
    return k;
}
