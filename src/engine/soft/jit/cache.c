#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include "engine/soft/check.h"
#include "engine/soft/jit/store.h"
#include "engine/soft/jit/trace.h"
#include "engine/soft/jit/translate.h"
#include "engine/soft/native.h"
#include "host/clock.h"
#include "host/memory.h"

/*
 * The code cache and the way through it: blocks by physical address and key, their links, tables
 * from linear address to code, and the C functions that translated code calls. Memory is cut from
 * bump allocators; when one is full, everything goes.
 */

#define OFF(field) offsetof(struct soft_cpu, field)

#define ARENA_BEGIN 16u /* place 0 is none */

static unsigned hash_pa(uint64_t pa)
{
    return (unsigned)((pa * 0x9E3779B97F4A7C15ull) >> (64 - JIT_HASH_BITS));
}

static unsigned hash_page(uint64_t pa)
{
    return (unsigned)(((pa >> 12) * 0x9E3779B97F4A7C15ull) >> (64 - JIT_PAGE_BITS));
}

void *jit_alloc(struct jit *j, size_t size)
{
    void *p = j->arena + j->arena_used;

    j->arena_used += (size + 15) & ~(size_t)15;
    return p;
}

struct jit_block *jit_find(struct jit *j, uint64_t pa, unsigned key)
{
    struct jit_block *b = j->hash[hash_pa(pa)];

    while (b != NULL && (b->pa != pa || b->key != key))
        b = b->hash_next;
    return b;
}

void jit_insert(struct jit *j, struct jit_block *b)
{
    struct jit_block **h = &j->hash[hash_pa(b->pa)], **p = &j->page[hash_page(b->pa)];

    b->hash_next = *h;
    *h = b;
    b->page_next = *p;
    *p = b;
}

static bool room(const struct jit *j)
{
    return j->hot_end - j->hot >= CODE_MOST && j->cold_end - j->cold >= CODE_MOST &&
           JIT_ARENA_SIZE - j->arena_used >= ARENA_MOST;
}

/*
 * In the hostile build translated code is left, and the cache emptied, when nothing asks for it,
 * and blocks are never linked. The numbers are the same in every run.
 */
static bool by_chance(struct jit *j, unsigned one_in)
{
#ifdef XHYVE_HOSTILE
    j->chance = j->chance * 6364136223846793005ull + 1442695040888963407ull;
    return (j->chance >> 33) % one_in == 0;
#else
    (void)j;
    (void)one_in;
    return false;
#endif
}

static bool may_link(void)
{
#ifdef XHYVE_HOSTILE
    return false;
#else
    return true;
#endif
}

/* ---- forgetting ---- */

static void clear_slots(struct soft_cpu *cpu)
{
    struct jit *j = cpu->jit;

    for (unsigned i = 0; i < j->dirties; i++)
        cpu->slots[j->dirty[i] >> 16][j->dirty[i] & 0xffff].code = j->stub[FN_MISS];
    j->dirties = 0;
}

void jit_context_changed(struct soft_cpu *cpu)
{
    struct jit *j = cpu->jit;

    if (j == NULL)
        return;
    cpu->hot.ctx[0] = cpu->hot.ctx[1] = ++j->epoch;
    memset(j->exec_filter, 0, sizeof(j->exec_filter));
    memset(j->space, 0, sizeof(j->space));
    j->pcid = cpu->st.cr4 & X86_CR4_PCIDE ? (unsigned)(cpu->st.cr3 & 4095) : 0;
    j->space[j->pcid] = j->epoch;
    j->local_kernel = false;
}

void jit_space_changed(struct soft_cpu *cpu, unsigned pcid, bool keep)
{
    struct jit *j = cpu->jit;

    if (j == NULL)
        return;
    j->pcid = pcid;
    ++j->epoch; /* a block that wrote CR3 is left */
    if (!keep || j->space[pcid] == 0)
        j->space[pcid] = j->epoch;
    cpu->hot.ctx[1] = j->space[pcid];
    if (j->local_kernel)
        cpu->hot.ctx[0] = j->epoch;
    j->local_kernel = false;
}

void jit_space_dropped(struct soft_cpu *cpu, unsigned pcid)
{
    struct jit *j = cpu->jit;

    if (j == NULL)
        return;
    if (pcid != j->pcid) {
        j->space[pcid] = 0;
        return;
    }
    cpu->hot.ctx[1] = j->space[pcid] = ++j->epoch;
    if (j->local_kernel)
        cpu->hot.ctx[0] = j->epoch;
    j->local_kernel = false;
}

static unsigned filter_bit(uint64_t lin)
{
    return (unsigned)(((lin >> 12) * 0x9E3779B97F4A7C15ull) >> 48);
}

void jit_page_changed(struct soft_cpu *cpu, uint64_t lin)
{
    struct jit *j = cpu->jit;
    unsigned bit = filter_bit(lin);

    if (j != NULL && (j->exec_filter[bit / 64] >> (bit % 64) & 1))
        jit_context_changed(cpu); /* and the filter begins anew */
}

/* With an empty index: what was made before is no more. */
static void begin_anew(struct soft_cpu *cpu)
{
    struct jit *j = cpu->jit;

    j->hot = j->start_hot;
    j->cold = j->start_cold;
    j->arena_used = ARENA_BEGIN;
    jit_context_changed(cpu);
}

void jit_flush(struct soft_cpu *cpu)
{
    struct jit *j = cpu->jit;

    if (j == NULL)
        return;
    if (unlikely(j->trace != NULL))
        jit_trace_flush(cpu);
    j->stats.flushes++;
    if (j->arena_used > ARENA_BEGIN) { /* fresh pages are not taken to be cleared */
        memset(j->hash, 0, sizeof(j->hash));
        memset(j->page, 0, sizeof(j->page));
    }
    if (j->store != NULL)
        store_forget(cpu);
    j->killed = true;
    begin_anew(cpu);
    clear_slots(cpu);
}

static void set_link(struct jit *j, struct jit_link *l, uint32_t to)
{
    set_target(jit_at(j, l->at), jit_at(j, to));
}

static void unlink_block(struct jit *j, struct jit_block *b)
{
    for (uint32_t in = b->in; in != 0; in = jit_link_at(j, in)->next) {
        struct jit_link *l = jit_link_at(j, in);

        set_link(j, l, l->cold);
        l->to = 0;
    }
    b->in = 0;
    for (unsigned i = 0; i < b->links; i++) {
        struct jit_link *l = &b->link[i];
        uint32_t *at;

        if (l->to == 0)
            continue;
        for (at = &jit_block_at(j, l->to)->in; *at != jit_place(j, l);
             at = &jit_link_at(j, *at)->next)
            ;
        *at = l->next;
        l->to = 0;
    }
}

/* Slots lead to a dead block's entry still, and from there to where they are filled. */
static void close_entry(struct jit *j, struct jit_block *b)
{
    uint8_t *at = jit_at(j, b->entry);
    struct emit e = {.p = at};

    if (b->entry == 0)
        return;
    memcpy(b->first, at, sizeof(b->first));
    put_jmp_to(&e, j->rw + (j->stub[FN_MISS] - j->rx));
}

static bool is_closed(const struct jit_slot *s)
{
    return *(const uint8_t *)s->code == 0xe9;
}

unsigned jit_kill_range(struct soft_cpu *cpu, uint64_t from, uint64_t to)
{
    struct jit *j = cpu->jit;
    uint64_t page = from & PAGE_MASK;
    struct jit_block **at;
    unsigned stay = 0;

    if (j == NULL)
        return 0;
    at = &j->page[hash_page(page)];
    while (*at != NULL) {
        struct jit_block *b = *at, **h;

        if ((b->pa & PAGE_MASK) != page) {
            at = &b->page_next;
            continue;
        }
        if (page + b->lo >= to || from >= page + b->hi) {
            stay++;
            at = &b->page_next;
            continue;
        }
        for (h = &j->hash[hash_pa(b->pa)]; *h != b; h = &(*h)->hash_next)
            ;
        *h = b->hash_next;
        *at = b->page_next;
        b->dead = true;
        j->stats.kills++;
        unlink_block(j, b);
        close_entry(j, b);
        j->killed = true;
        soft_stop_block(cpu);
    }
    return stay;
}

/* ---- finding ---- */

unsigned jit_key(const struct soft_cpu *cpu)
{
    unsigned key = cpu->cpl == 3 ? KEY_USER : 0;
    const struct jit *j = cpu->jit;
    uint32_t mxcsr;

    memcpy(&mxcsr, cpu->st.xsave + FX_MXCSR, sizeof(mxcsr));
    if (!(cpu->st.cr0 & (X86_CR0_EM | X86_CR0_TS)) && (cpu->st.cr4 & X86_CR4_OSFXSR) &&
        (mxcsr & 0x1f80) == 0x1f80) {
        key |= KEY_SSE;
        if ((cpu->st.cr4 & X86_CR4_OSXSAVE) && (cpu->st.xcr0 & 6) == 6)
            key |= KEY_AVX;
    }
    if (!(cpu->st.cr0 & (X86_CR0_EM | X86_CR0_TS)) && j->xsave &&
        (cpu->st.xsave[FX_FCW] & 0x3f) == 0x3f && !(cpu->st.xsave[FX_FSW] & FSW_ES) &&
        !cpu->st.ignne && !cpu->st.ferr)
        key |= KEY_X87;
    if (cpu->budgeted || cpu->vm->count)
        key |= KEY_COUNT;
    if (!cpu->long_code)
        key |= KEY_32;
    return key;
}

/* 32-bit code, of which no address depends on a segment but FS and GS, and no segment faults. */
static bool flat_32(const struct soft_cpu *cpu)
{
    enum { NEEDED = 1 << X86_CS | 1 << X86_SS | 1 << X86_DS | 1 << X86_ES };

    return cpu->mode == X86_MODE_32 && cpu->sp_size == 4 && (cpu->flat & NEEDED) == NEEDED &&
           (cpu->base[X86_CS] | cpu->base[X86_SS] | cpu->base[X86_DS] | cpu->base[X86_ES]) == 0 &&
           has_descriptors(cpu);
}

bool jit_usable(const struct soft_cpu *cpu)
{
    /* levels 1 and 2 are too rare to have a key of their own */
    return cpu->tlb_mode != TLB_CHECKED && (cpu->cpl == 0 || cpu->cpl == 3) &&
           (cpu->long_code || flat_32(cpu));
}

/*
 * Translates the code at lin, which is pa, and counts it. Time is taken only where counters are
 * wanted: asking costs as well.
 */
static struct jit_block *translate(struct soft_cpu *cpu, uint64_t lin, uint64_t pa,
                                   const uint8_t *code, unsigned key, bool entry)
{
    struct jit *j = cpu->jit;
    uint64_t start = cpu->vm->count ? host_clock_ns() : 0;
    const uint8_t *hot = j->hot, *cold = j->cold;
    bool kept = j->store != NULL && !(key & KEY_32);
    struct jit_block *b;

    if (!block_protect(cpu, pa & PAGE_MASK))
        return NULL;
    code = soft_code_copy(cpu, code - (lin & 4095), 0, PAGE_SIZE) + (lin & 4095);
    b = kept ? store_find(cpu, pa, code - (lin & 4095), key) : NULL;
    if (b != NULL)
        return b;
    b = jit_translate(cpu, lin, pa, code - (lin & 4095), key, entry);
    if (b != NULL && kept)
        store_note(cpu, b);
    if (cpu->vm->count)
        j->stats.ns += host_clock_ns() - start;
    if (b != NULL) {
        j->stats.blocks++;
        j->stats.translated += b->insns;
    }
    j->stats.bytes += (uint64_t)(j->hot - hot + j->cold - cold);
    if (unlikely(j->trace != NULL))
        jit_trace_block(cpu, lin, b, hot, cold);
    return b;
}

/*
 * The block at this linear address; NULL if it cannot be translated. entry: one that is made gets
 * its entry right before its body. May fault (fetch).
 */
static struct jit_block *block_at(struct soft_cpu *cpu, uint64_t lin, unsigned key, bool entry)
{
    struct jit *j = cpu->jit;
    struct jit_block *b;
    const uint8_t *code;
    uint64_t gpa;

    code = mmu_fetch(cpu, lin, &gpa);
    if (code == NULL)
        return NULL;
    if (cpu->fetch_writable)
        key |= KEY_STRICT;
    b = jit_find(j, gpa, key);
    if (b != NULL)
        return b;
    if (!room(j) || by_chance(j, 256))
        jit_flush(cpu);
    return translate(cpu, lin, gpa, code, key, entry);
}

/* A jump to code that is always there. */
static void put_out(struct emit *e, struct jit *j, unsigned cc, const uint8_t *to, struct tx *t)
{
    set_target(put_jcc(e, cc), j->rw + (to - j->rx));
    if (t != NULL)
        tx_reloc(t, RELOC_FIXED, e->p - 4, 0);
}

void jit_put_entry(struct soft_cpu *cpu, struct emit *e, unsigned key, bool polls, struct tx *t)
{
    struct jit *j = cpu->jit;
    unsigned user = key & KEY_USER ? 1 : 0;
    struct mem slot = {.base = H_RSP, .index = S2, .shift = 2};
    const uint8_t *miss = j->stub[FN_MISS];

    slot.disp = (int32_t)(OFF(slots) + user * sizeof(cpu->slots[0]));
    slot.disp += 8;
    put_op_mem(e, true, 0x3b, S1, slot); /* cmp */
    put_out(e, j, CC_NE, miss, t);
    slot.disp += 8;
    put_load(e, S3, slot);
    put_op_mem(e, true, 0x3b, S3, mem_cpu(OFF(hot.ctx) + 8 * user));
    put_out(e, j, CC_NE, miss, t);
    if (!polls) {
        put_op_mem(e, false, 0x83, 7, mem_cpu(OFF(pending))); /* cmp dword, 0 */
        put8(e, 0);
        put_out(e, j, CC_NE, j->poll, t);
    }
    put_alu_imm(e, true, 4, S1, -4096);
    put_store(e, mem_cpu(OFF(block_rip)), S1);
}

/* An entry apart from the block, for one that was first reached by a link. */
static void make_entry(struct soft_cpu *cpu, struct jit_block *b, uint64_t lin)
{
    struct jit *j = cpu->jit;
    struct emit e = {.p = j->cold};

    b->entry = jit_offset(j, e.p);
    jit_put_entry(cpu, &e, b->key, b->polls, NULL);
    put_jmp_to(&e, jit_at(j, b->body));
    j->cold = e.p;
    if (unlikely(j->trace != NULL))
        jit_trace_entry(cpu, lin, b);
}

static const void *enter_block(struct soft_cpu *cpu, struct jit_block *b, uint64_t lin)
{
    struct jit *j = cpu->jit;
    unsigned user = b->key & KEY_USER ? 1 : 0, bit = filter_bit(lin);

    if (!(b->key & KEY_APART) && (b->entry != 0 || room(j))) {
        struct jit_slot *s = &cpu->slots[user][jit_slot_of(lin)];

        if (b->entry == 0)
            make_entry(cpu, b, lin);
        if (s->code == j->stub[FN_MISS])
            j->dirty[j->dirties++] = user << 16 | jit_slot_of(lin);
        s->code = j->rx + b->entry;
        s->lin = lin;
        s->ctx = cpu->hot.ctx[user];
        s->body = j->rx + b->body;
        j->exec_filter[bit / 64] |= 1ull << (bit % 64);
        if (!user && !cpu->fetch_global)
            j->local_kernel = true;
    }
    cpu->block_rip = lin & PAGE_MASK;
    return j->rx + b->body;
}

static const void *leave(struct soft_cpu *cpu, enum jit_leave why)
{
    ((struct jit *)cpu->jit)->stats.leaves[why]++;
    return cpu->hot.exit;
}

static const void *leave_at(struct soft_cpu *cpu, uint64_t rip)
{
    cpu->st.rip = rip;
    cpu->insn = INSN_NONE;
    return leave(cpu, atomic_load_explicit(&cpu->pending, memory_order_relaxed) != 0
                          ? LEAVE_PENDING
                          : LEAVE_CHANGED);
}

/* The key of what runs next. Slots do not hold it: those of a context belong to one. */
static void take_key(struct soft_cpu *cpu)
{
    struct jit *j = cpu->jit;
    unsigned key = jit_key(cpu), user = key & KEY_USER ? 1 : 0;
    uint16_t *had = user ? &j->space_key[j->pcid] : &j->kernel_key;

    if (unlikely(key != *had)) {
        *had = (uint16_t)key;
        cpu->hot.ctx[user] = ++j->epoch;
        if (user)
            j->space[j->pcid] = j->epoch;
    }
    cpu->hot.key = (uint16_t)key;
}

/* Where execution goes on at rip; the current state decides. May fault. */
static const void *go_on(struct soft_cpu *cpu, uint64_t rip)
{
    const struct jit_slot *s;
    struct jit_block *b;

    cpu->st.rip = rip;
    cpu->insn = INSN_NONE;
    if (atomic_load_explicit(&cpu->pending, memory_order_relaxed) != 0 || cpu->exit_wanted ||
        by_chance(cpu->jit, 16))
        return leave(cpu, LEAVE_PENDING);
    if (!jit_usable(cpu))
        return leave(cpu, LEAVE_MODE);
    take_key(cpu);
    s = &cpu->slots[cpu->cpl == 3][jit_slot_of(rip)];
    if (s->lin == rip && s->ctx == cpu->hot.ctx[cpu->cpl == 3] && !is_closed(s)) {
        cpu->block_rip = rip & PAGE_MASK;
        return s->body;
    }
    b = block_at(cpu, rip, cpu->hot.key, true);
    return b != NULL ? enter_block(cpu, b, rip) : leave(cpu, LEAVE_CODE);
}

/* ---- what translated code calls ---- */

/* The instruction at this page offset is what a fault would be about. */
static void begin_insn(struct soft_cpu *cpu, struct uop *u, unsigned off)
{
    u->off = (uint16_t)off;
    cpu->uop = u;
    cpu->uop_end = NULL;
    cpu->block = NULL;
    cpu->insn = INSN_RUNS;
}

void jit_uncount(struct soft_cpu *cpu, unsigned off)
{
    const struct jit_block *b = cpu->hot.block;

    if (!(cpu->hot.key & KEY_COUNT) || b == NULL)
        return;
    for (unsigned i = b->insns; i-- > 0 && b->offsets[i] >= off;)
        cpu->stats.instructions--;
}

/* Has what translated code takes for granted changed? */
static bool must_leave(struct soft_cpu *cpu, uint64_t epoch)
{
    struct jit *j = cpu->jit;

    return by_chance(j, 16) || cpu->uop_end != NULL || j->killed || epoch != j->epoch ||
           cpu->exit_wanted || atomic_load_explicit(&cpu->pending, memory_order_relaxed) != 0 ||
           !jit_usable(cpu) || jit_key(cpu) != cpu->hot.key;
}

/* One instruction by the interpreter; where to go on, `resume` if it is simply the next one. */
static const void *step(struct soft_cpu *cpu, unsigned off, const void *resume)
{
    struct jit *j = cpu->jit;
    uint64_t page = cpu->block_rip, epoch = j->epoch, next, counted;
    struct soft_block *k;

    j->killed = false;
    j->stats.steps++;
    cpu->insn = INSN_NONE;
    cpu->st.rip = page + off;
    k = block_get(cpu, true);
    check_op(cpu, k->uop[0].op);
    next = (page + off + k->bytes) & cpu->rip_mask;
    counted = cpu->stats.instructions;
    soft_run_block(cpu, k);
    cpu->stats.instructions = counted;
    cpu->block_rip = page;
    cpu->block = NULL;
    if (!(cpu->hot.key & KEY_COUNT))
        cpu->stats.instructions++;
    cpu->uop_end = NULL; /* stops are seen by what caused them */
    if (resume != NULL && cpu->st.rip == next && !must_leave(cpu, epoch))
        return resume;
    jit_uncount(cpu, off + k->bytes);
    return leave_at(cpu, cpu->st.rip);
}

static int32_t data_at(const uint8_t *ret, unsigned n)
{
    int32_t v;

    memcpy(&v, ret + 4 * n, 4);
    return v;
}

/* What runs while vector registers are still the guest's calls nothing else (tests/cpu/light.sh).
 */
#if defined(__clang__)
#define LIGHT                                                                                      \
    __attribute__((target("general-regs-only"), disable_sanitizer_instrumentation,                 \
                   no_sanitize("address", "undefined")))
#else
#define LIGHT __attribute__((target("general-regs-only")))
#endif

LIGHT static const struct tlb_entry *tlb_at(const struct soft_cpu *cpu, uint64_t lin)
{
    return &cpu->tlb[(lin >> 12) & (SOFT_TLB_SIZE - 1)];
}

/* Are this page and the next one in the TLB? */
LIGHT static bool both_known(const struct soft_cpu *cpu, uint64_t lin, bool write)
{
    const struct tlb_entry *a = tlb_at(cpu, lin), *b = tlb_at(cpu, lin + PAGE_SIZE);
    uint64_t page = lin & PAGE_MASK;

    return (write ? a->wtag : a->rtag) == page && (write ? b->wtag : b->rtag) == page + PAGE_SIZE;
}

/*
 * An access that begins in one page and ends in the next, both plain RAM: its host address to S1.
 * Pages that follow each other in the host need no more; else what is read is put together, and
 * what is written is left to the interpreter.
 */
static bool across_pages(struct soft_cpu *cpu, uint64_t lin, uint32_t packed)
{
    unsigned size = SLOW_SIZE(packed), first = PAGE_SIZE - (unsigned)(lin & 4095);
    enum soft_access acc = packed & SLOW_WRITE ? ACC_WRITE : ACC_READ;
    struct uop u = {.op = 0};
    const uint8_t *p, *p2;
    uint64_t gpa;

    if (first >= size || (acc == ACC_WRITE && both_known(cpu, lin, true)) || /* fn_light has seen */
        !soft_canonical(cpu, lin + size - 1) || !soft_canonical(cpu, lin) ||
        (!cpu->long_code && lin + size - 1 > UINT32_MAX))
        return false;
    begin_insn(cpu, &u, SLOW_OFF(packed));
    p = mmu_translate(cpu, SLOW_SEG(packed), lin, acc, (enum tlb_mode)cpu->tlb_mode, &gpa);
    p2 = mmu_translate(cpu, SLOW_SEG(packed), lin + first, acc, (enum tlb_mode)cpu->tlb_mode, &gpa);
    cpu->insn = INSN_NONE;
    if (p == NULL || p2 == NULL || (acc == ACC_WRITE && p2 != p + first))
        return false;
    cpu->hot.s1 = (uintptr_t)p;
    if (packed & SLOW_SPLIT)
        cpu->hot.s3 = 0;
    if (p2 != p + first) {
        memcpy(cpu->hot.bounce, p, first);
        memcpy(cpu->hot.bounce + first, p2, size - first);
        cpu->hot.s1 = (uintptr_t)cpu->hot.bounce;
    }
    return true;
}

static enum jit_why why_missed(const struct soft_cpu *cpu, uint64_t lin, unsigned size,
                               unsigned align)
{
    const struct tlb_entry *e = tlb_at(cpu, lin);

    if ((lin & align) != 0)
        return WHY_ALIGN;
    if ((lin & 4095) + size > PAGE_SIZE)
        return WHY_CROSSING;
    return e->rtag == (lin & PAGE_MASK) ? WHY_WRITE : WHY_ABSENT;
}

/*
 * What fn_slow would find out, where that takes neither a page walk nor vector registers, which are
 * still the guest's: an access that ends in the next page, both in the TLB. NULL: ask fn_slow.
 */
LIGHT static const void *fn_light(struct soft_cpu *cpu, uint64_t lin, const uint8_t *ret)
{
    uint32_t p;
    unsigned size, first = PAGE_SIZE - (unsigned)(lin & 4095);
    bool write;
    int32_t found;
    uint8_t *from, *then;

    __builtin_memcpy(&p, ret, sizeof(p));
    size = SLOW_SIZE(p);
    write = (p & SLOW_WRITE) != 0;
    if (first >= size || size > sizeof(cpu->hot.bounce) || (lin & SLOW_ALIGN(p)) != 0 ||
        !both_known(cpu, lin, write) || (!cpu->long_code && lin > UINT32_MAX - size))
        return NULL;
    from = (uint8_t *)tlb_at(cpu, lin)->page + (lin & 4095);
    then = (uint8_t *)tlb_at(cpu, lin + PAGE_SIZE)->page;
    if (then != from + first) {
        if (write)
            return NULL;
        for (unsigned i = 0; i < size; i++)
            cpu->hot.bounce[i] = i < first ? from[i] : then[i - first];
        from = cpu->hot.bounce;
    }
    cpu->stats.tlb_misses++;
    ((struct jit *)cpu->jit)->stats.whys[WHY_CROSSING]++;
    cpu->hot.s1 = (uintptr_t)from;
    if (p & SLOW_SPLIT)
        cpu->hot.s3 = 0;
    __builtin_memcpy(&found, ret + 8, sizeof(found));
    return ret + found;
}

/*
 * A probe missed. Behind the call: packed arguments, the way back to the probe, then to
 * where the probe has found it, then the resumption.
 */
static const void *fn_slow(struct soft_cpu *cpu, uint64_t lin, uint64_t s2, uint64_t s3,
                           const uint8_t *ret)
{
    uint32_t p = (uint32_t)data_at(ret, 0);
    unsigned size = SLOW_SIZE(p);
    struct uop u = {.op = 0};
    struct jit *j = cpu->jit;
    uint64_t gpa;

    (void)s2;
    (void)s3;
    cpu->stats.tlb_misses++;
    j->stats.whys[why_missed(cpu, lin, size, SLOW_ALIGN(p))]++;
    if ((lin & 4095) + size <= PAGE_SIZE && (lin & SLOW_ALIGN(p)) == 0) {
        begin_insn(cpu, &u, SLOW_OFF(p));
        if (mmu_translate(cpu, SLOW_SEG(p), lin, p & SLOW_WRITE ? ACC_WRITE : ACC_READ,
                          (enum tlb_mode)cpu->tlb_mode, &gpa) != NULL) {
            cpu->insn = INSN_NONE;
            j->stats.fills++;
            return ret + data_at(ret, 1);
        }
        j->stats.whys[WHY_NO_RAM]++;
    }
    if ((lin & SLOW_ALIGN(p)) == 0 && across_pages(cpu, lin, p))
        return ret + data_at(ret, 2);
    return step(cpu, SLOW_OFF(p), p & SLOW_BRANCH ? NULL : ret + 12);
}

/*
 * The probe of a group's span missed; behind the call: packed arguments, the way back, the distance
 * to the access at hand, the span. lin: the span's start.
 */
static const void *fn_group(struct soft_cpu *cpu, uint64_t lin, uint64_t s2, uint64_t s3,
                            const uint8_t *ret)
{
    uint32_t p = (uint32_t)data_at(ret, 0);
    unsigned size = SLOW_SIZE(p), span = (unsigned)data_at(ret, 3);
    const struct tlb_entry *e = tlb_at(cpu, lin);
    uint64_t at = lin + (uint64_t)(int64_t)data_at(ret, 2), rip = cpu->block_rip + SLOW_OFF(p), gpa;
    struct jit *j = cpu->jit;
    struct uop u = {.op = 0};
    struct jit_block *b;

    (void)s2;
    (void)s3;
    cpu->stats.tlb_misses++;
    j->stats.whys[(lin & 4095) + span > PAGE_SIZE ? WHY_SPAN
                                                  : why_missed(cpu, at, size, SLOW_ALIGN(p))]++;
    if ((at & 4095) + size <= PAGE_SIZE && (lin & 4095) + span <= PAGE_SIZE &&
        (lin & SLOW_ALIGN(p)) == 0 && (cpu->long_code || lin <= UINT32_MAX)) {
        begin_insn(cpu, &u, SLOW_OFF(p));
        (void)mmu_translate(cpu, SLOW_SEG(p), at, p & SLOW_WRITE ? ACC_WRITE : ACC_READ,
                            (enum tlb_mode)cpu->tlb_mode, &gpa);
        cpu->insn = INSN_NONE;
        if (tlb_hit(p & SLOW_GROUP_WRITE ? e->wtag : e->rtag, lin, span)) {
            j->stats.fills++;
            return ret + data_at(ret, 1);
        }
    }
    j->stats.apart++;
    jit_uncount(cpu, SLOW_OFF(p));
    cpu->st.rip = rip;
    cpu->insn = INSN_NONE;
    b = block_at(cpu, rip, cpu->hot.key | KEY_APART, false);
    if (b == NULL)
        return leave(cpu, LEAVE_CODE);
    cpu->block_rip = rip & PAGE_MASK;
    return j->rx + b->body;
}

/* The uop at this place in the arena, by the interpreter. */
static inline const struct uop *run_uop(struct soft_cpu *cpu, uint64_t place)
{
    struct jit *j = cpu->jit;
    const struct uop *u = (const void *)(j->arena + place);

    j->stats.helpers[u->op]++;
    cpu->uop = u;
    cpu->uop_end = NULL;
    cpu->block = NULL;
    cpu->insn = INSN_RUNS;
    cpu->next_rip = cpu->block_rip + u->off + u->len;
    if (unlikely(cpu->check != NULL))
        check_op(cpu, u->op);
    u->fn(cpu, u);
    return u;
}

/* An instruction that the interpreter runs always: s1 is its uop's place in the arena. */
static const void *fn_uop(struct soft_cpu *cpu, uint64_t s1, uint64_t s2, uint64_t s3,
                          const uint8_t *ret)
{
    struct jit *j = cpu->jit;
    uint64_t epoch = j->epoch;
    const struct uop *u;

    (void)s3;
    j->killed = false;
    u = run_uop(cpu, s1);
    cpu->insn = INSN_NONE;
    if (likely(s2 ? cpu->uop_end == NULL && !j->killed &&
                        atomic_load_explicit(&cpu->pending, memory_order_relaxed) == 0
                  : !must_leave(cpu, epoch)))
        return ret;
    jit_uncount(cpu, u->off + u->len);
    return leave_at(cpu, cpu->next_rip & cpu->rip_mask);
}

/* The same for a block's last instruction, which may go anywhere. */
static const void *fn_end(struct soft_cpu *cpu, uint64_t s1, uint64_t s2, uint64_t s3,
                          const uint8_t *ret)
{
    const struct uop *u = run_uop(cpu, s1);

    (void)s2;
    (void)s3;
    (void)ret;
    jit_uncount(cpu, u->off + u->len);
    return go_on(cpu, cpu->next_rip & cpu->rip_mask);
}

/* No slot for the target s1. s3: offset of the branch, and how far it has moved RSP. */
static const void *fn_miss(struct soft_cpu *cpu, uint64_t lin, uint64_t s2, uint64_t s3,
                           const uint8_t *ret)
{
    (void)s2;
    (void)ret;
    if (unlikely(!soft_canonical(cpu, lin)) && (uint32_t)s3 != FAR_FALLS) {
        struct uop u = {.op = 0};

        cpu->st.gpr[X86_RSP] -= (uint32_t)s3 >> 12;
        begin_insn(cpu, &u, (unsigned)s3 & 4095);
        soft_raise_error(cpu, X86_EXC_GP, 0);
    }
    ((struct jit *)cpu->jit)->stats.misses++;
    return go_on(cpu, lin);
}

/* A direct jump inside the page: s1 is the link's place in the arena. */
static const void *fn_link(struct soft_cpu *cpu, uint64_t s1, uint64_t s2, uint64_t s3,
                           const uint8_t *ret)
{
    struct jit *j = cpu->jit;
    struct jit_link *l = jit_link_at(j, (uint32_t)s1);
    uint64_t rip = cpu->block_rip + l->target, epoch = j->epoch;
    struct jit_block *b;

    (void)s2;
    (void)s3;
    (void)ret;
    cpu->st.rip = rip;
    cpu->insn = INSN_NONE;
    if (atomic_load_explicit(&cpu->pending, memory_order_relaxed) != 0)
        return leave(cpu, LEAVE_PENDING);
    b = block_at(cpu, rip, cpu->hot.key | (l->apart ? KEY_APART : 0), false);
    if (b == NULL)
        return leave(cpu, LEAVE_CODE);
    /* a flush on the way has taken the link too */
    if (may_link() && epoch == j->epoch && !jit_block_at(j, l->from)->dead && l->to == 0 &&
        (b->pa & PAGE_MASK) == (jit_block_at(j, l->from)->pa & PAGE_MASK)) {
        l->to = jit_place(j, b);
        l->next = b->in;
        b->in = jit_place(j, l);
        set_link(j, l, b->body);
        j->stats.links++;
    }
    return j->rx + b->body;
}

/*
 * Before an instruction that goes on in the next page: what that page has there now, which may be
 * another one than when it was translated. s1 is not used; behind the call: the arena's place.
 */
static const void *fn_across(struct soft_cpu *cpu, uint64_t s1, uint64_t s2, uint64_t s3,
                             const uint8_t *ret)
{
    struct jit *j = cpu->jit;
    const struct jit_across *a = (const void *)(j->arena + (uint32_t)data_at(ret, 0));
    uint64_t next = (cpu->block_rip + PAGE_SIZE) & cpu->rip_mask, gpa;
    const uint8_t *code;

    (void)s1;
    (void)s2;
    (void)s3;
    cpu->st.rip = cpu->block_rip | (a->pa & 4095);
    cpu->insn = INSN_NONE;
    code = mmu_fetch(cpu, next, &gpa);
    if (likely(code != NULL && memcmp(code, a->bytes, a->len) == 0))
        return ret + 4;
    jit_kill_range(cpu, a->pa, a->pa + 1);
    return leave(cpu, LEAVE_CODE);
}

static const void *fn_step(struct soft_cpu *cpu, uint64_t s1, uint64_t s2, uint64_t s3,
                           const uint8_t *ret)
{
    (void)s1;
    (void)s2;
    (void)s3;
    return step(cpu, SLOW_OFF((uint32_t)data_at(ret, 0)),
                data_at(ret, 0) & (int32_t)SLOW_BRANCH ? NULL : ret + 4);
}

bool jit_run(struct soft_cpu *cpu)
{
    struct jit *j = cpu->jit;
    struct jit_block *b;
    uint64_t rip = cpu->st.rip;

    if (j == NULL || !jit_usable(cpu))
        return false;
    take_key(cpu);
    cpu->hot.budget = cpu->budgeted ? cpu->budget : UINT64_MAX;
    cpu->hot.block = NULL;
    cpu->jit_runs = false;
    b = block_at(cpu, rip, cpu->hot.key, true);
    if (b == NULL)
        return false;
    if (cpu->budgeted && cpu->budget - cpu->stats.instructions < b->insns)
        return false;
    cpu->jit_runs = true;
    j->enter(cpu, enter_block(cpu, b, rip));
    cpu->jit_runs = false;
    cpu->insn = INSN_NONE;
    return true;
}

void jit_rest(struct soft_cpu *cpu)
{
    struct jit *j = cpu->jit;

    if (j != NULL && j->store != NULL)
        store_rest(cpu);
}

int jit_init(struct soft_cpu *cpu, struct error *err)
{
    static const void *(*const fns[JIT_FNS])(struct soft_cpu *, uint64_t, uint64_t, uint64_t,
                                             const uint8_t *) = {
        fn_slow, fn_uop, fn_end, fn_miss, fn_link, fn_step, fn_group, fn_across,
    };
    const void *(*light)(struct soft_cpu *, uint64_t, const uint8_t *);
    struct jit *j = host_memory_alloc(sizeof(*j), err);
    void *rw, *rx;
    int rc;

    if (j == NULL)
        return -ENOMEM;
    j->size = 2 * JIT_CODE_SIZE + 2 * CODE_MOST;
    rc = host_code_views(j->size, &rw, &rx, err);
    if (rc < 0) {
        host_memory_free(j, sizeof(*j));
        return rc;
    }
    j->rw = rw;
    j->rx = rx;
    cpu->jit = j;
    j->arena = host_memory_alloc(JIT_ARENA_SIZE, err);
    j->tx = calloc(1, sizeof(*j->tx));
    j->dirty = calloc(2 * JIT_SLOTS, sizeof(*j->dirty));
    if (j->arena == NULL || j->tx == NULL || j->dirty == NULL)
        return -ENOMEM; /* jit_fini cleans up */
    memcpy(cpu->hot.fn, fns, sizeof(fns));
    light = fn_light;
    memcpy(&cpu->hot.light, &light, sizeof(light));
    j->hot = j->rw;
    jit_make_stubs(cpu, j);
    j->start_hot = j->hot;
    j->hot_end = j->hot + JIT_CODE_SIZE;
    j->start_cold = j->hot_end;
    j->cold_end = j->start_cold + JIT_CODE_SIZE;
    for (unsigned t = 0; t < 2; t++) {
        for (unsigned i = 0; i < JIT_SLOTS; i++)
            cpu->slots[t][i].code = j->stub[FN_MISS];
    }
    begin_anew(cpu);
    rc = jit_trace_init(cpu, err);
    if (rc == 0 && cpu->vm->env.jit_cache != NULL)
        store_open(cpu, cpu->vm->env.jit_cache);
    return rc;
}

void jit_fini(struct soft_cpu *cpu)
{
    struct jit *j = cpu->jit;

    if (j == NULL)
        return;
    store_close(cpu);
    jit_trace_fini(j->trace);
    free(j->tx);
    free(j->dirty);
    host_memory_free(j->arena, JIT_ARENA_SIZE);
    host_code_views_free(j->rw, j->rx, j->size);
    host_memory_free(j, sizeof(*j));
    cpu->jit = NULL;
}
