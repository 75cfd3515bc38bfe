#include "base/endian.h"
#include "engine/soft/check.h"
#include "engine/soft/interp.h"
#include "engine/soft/jit/jit.h"

/*
 * Linear to physical to host: page walks, the soft TLB, and the slow halves of memory accesses.
 * Intel SDM Vol.3, chapter on paging.
 */

#define PTE_P 0x001ull
#define PTE_W 0x002ull
#define PTE_U 0x004ull
#define PTE_A 0x020ull
#define PTE_D 0x040ull
#define PTE_PS 0x080ull
#define PTE_G 0x100ull
#define PTE_NX (1ull << 63)

#define PF_P 1u
#define PF_W 2u
#define PF_U 4u
#define PF_RSVD 8u
#define PF_I 16u
#define PF_PK 32u

struct walk {
    uint64_t gpa;     /* of the linear address itself */
    uint64_t size;    /* of the page */
    bool user, write; /* allowed by all levels */
    bool nx;
    bool global; /* stays when CR3 is written */
    bool dirty;
    uint8_t key; /* protection key */
};

bool soft_canonical(const struct soft_cpu *cpu, uint64_t lin)
{
    unsigned unused = cpu->st.cr4 & X86_CR4_LA57 ? 7 : 16;

    return (uint64_t)((int64_t)(lin << unused) >> unused) == lin;
}

bool soft_canonical_register(const struct soft_cpu *cpu, uint64_t lin)
{
    unsigned unused = 64 - cpu->vm->env.cpuid->lin_bits;

    return (uint64_t)((int64_t)(lin << unused) >> unused) == lin;
}

static uint64_t a20(const struct soft_cpu *cpu, uint64_t pa)
{
    return cpu->st.a20_masked ? pa & ~(1ull << 20) : pa;
}

/*
 * Sets A (and D) in an entry. false: it changed meanwhile, walk again. The entry lies in RAM, which
 * the caller has read it from.
 */
static bool pte_mark(struct soft_cpu *cpu, uint64_t pa, unsigned size, uint64_t old, uint64_t set)
{
    uint8_t *p = gmem_ptr(cpu->vm->env.mem, a20(cpu, pa), size);

    if ((old & set) == set || p == NULL) /* a page table in ROM cannot be marked */
        return true;
    if (unlikely(cpu->check != NULL))
        check_write(cpu, a20(cpu, pa));
    if (size == 4) {
        uint32_t expect = (uint32_t)old;

        return __atomic_compare_exchange_n((uint32_t *)(void *)p, &expect, (uint32_t)(old | set),
                                           false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    return __atomic_compare_exchange_n((uint64_t *)(void *)p, &old, old | set, false,
                                       __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

static uint64_t pte_load(struct soft_cpu *cpu, uint64_t pa, unsigned size)
{
    const uint8_t *p = gmem_ptr_ro(cpu->vm->env.mem, a20(cpu, pa), size);

    if (p == NULL)
        return size == 4 ? 0xffffffffull : ~0ull;
    return size == 4 ? __atomic_load_n((const uint32_t *)(const void *)p, __ATOMIC_ACQUIRE)
                     : __atomic_load_n((const uint64_t *)(const void *)p, __ATOMIC_ACQUIRE);
}

/* Does the page's protection key forbid this data access? PKRU for user pages, PKRS for others. */
static bool key_denies(const struct soft_cpu *cpu, const struct walk *w, enum soft_access acc,
                       enum tlb_mode mode)
{
    uint64_t rights;

    if (likely(!(cpu->st.cr4 & (X86_CR4_PKE | X86_CR4_PKS))) || acc == ACC_EXEC ||
        !in_long_mode(cpu))
        return false;
    if (w->user && (cpu->st.cr4 & X86_CR4_PKE))
        rights = le32_load(cpu->st.xsave + X86_XSAVE_PKRU);
    else if (!w->user && mode != TLB_USER && (cpu->st.cr4 & X86_CR4_PKS))
        rights = cpu->st.pkrs;
    else
        return false;
    rights >>= 2 * w->key;
    return (rights & 1) ||
           ((rights & 2) && acc == ACC_WRITE && (mode == TLB_USER || (cpu->st.cr0 & X86_CR0_WP)));
}

/* Whether the permissions allow the access. */
static bool allowed(const struct soft_cpu *cpu, const struct walk *w, enum soft_access acc,
                    enum tlb_mode mode)
{
    bool user = mode == TLB_USER;

    if (user && !w->user)
        return false;
    if (acc == ACC_EXEC)
        return !w->nx && (user || !w->user || !(cpu->st.cr4 & X86_CR4_SMEP));
    if (!user && w->user && mode == TLB_KERNEL)
        return false; /* SMAP */
    if (key_denies(cpu, w, acc, mode))
        return false;
    if (acc == ACC_WRITE)
        return w->write || (!user && !(cpu->st.cr0 & X86_CR0_WP));
    return true;
}

static _Noreturn void walk_fault(struct soft_cpu *cpu, uint64_t lin, uint32_t code,
                                 enum soft_access acc, enum tlb_mode mode)
{
    bool pae_nx = (cpu->st.cr4 & X86_CR4_PAE) && (cpu->st.efer & X86_EFER_NXE);

    if (acc == ACC_WRITE)
        code |= PF_W;
    if (mode == TLB_USER)
        code |= PF_U;
    if (acc == ACC_EXEC && (pae_nx || (cpu->st.cr4 & X86_CR4_SMEP)))
        code |= PF_I;
    raise_pf(cpu, lin, code);
}

/* 32-bit paging: two levels of four-byte entries. */
static bool walk_32(struct soft_cpu *cpu, uint64_t lin, enum soft_access acc, enum tlb_mode mode,
                    struct walk *w)
{
    uint64_t pde_pa = (cpu->st.cr3 & 0xfffff000u) + ((lin >> 22) & 0x3ff) * 4;
    uint64_t pde = pte_load(cpu, pde_pa, 4), pte, pte_pa;
    uint64_t mark;

    if (!(pde & PTE_P))
        walk_fault(cpu, lin, 0, acc, mode);
    w->nx = false;
    if ((pde & PTE_PS) && (cpu->st.cr4 & X86_CR4_PSE)) {
        /* PSE-36: bits 20:13 are address bits 39:32; bit 21 is reserved */
        if (pde & (1u << 21))
            walk_fault(cpu, lin, PF_P | PF_RSVD, acc, mode);
        w->user = (pde & PTE_U) != 0;
        w->write = (pde & PTE_W) != 0;
        w->size = 4u << 20;
        w->gpa = (pde & 0xffc00000u) | ((pde & 0x1fe000u) << 19) | (lin & 0x3fffff);
        if (!allowed(cpu, w, acc, mode))
            walk_fault(cpu, lin, PF_P, acc, mode);
        mark = acc == ACC_WRITE ? PTE_A | PTE_D : PTE_A;
        w->dirty = ((pde | mark) & PTE_D) != 0;
        w->global = (pde & PTE_G) && (cpu->st.cr4 & X86_CR4_PGE);
        return pte_mark(cpu, pde_pa, 4, pde, mark);
    }
    pte_pa = (pde & 0xfffff000u) + ((lin >> 12) & 0x3ff) * 4;
    pte = pte_load(cpu, pte_pa, 4);
    if (!(pte & PTE_P))
        walk_fault(cpu, lin, 0, acc, mode);
    w->user = (pde & pte & PTE_U) != 0;
    w->write = (pde & pte & PTE_W) != 0;
    w->size = PAGE_SIZE;
    w->gpa = (pte & 0xfffff000u) | (lin & 0xfff);
    if (!allowed(cpu, w, acc, mode))
        walk_fault(cpu, lin, PF_P, acc, mode);
    mark = acc == ACC_WRITE ? PTE_A | PTE_D : PTE_A;
    w->dirty = ((pte | mark) & PTE_D) != 0;
    w->global = (pte & PTE_G) && (cpu->st.cr4 & X86_CR4_PGE);
    return pte_mark(cpu, pde_pa, 4, pde, PTE_A) && pte_mark(cpu, pte_pa, 4, pte, mark);
}

/* PAE, 4-level and 5-level paging: eight-byte entries. */
static bool walk_64(struct soft_cpu *cpu, uint64_t lin, enum soft_access acc, enum tlb_mode mode,
                    struct walk *w)
{
    bool lma = in_long_mode(cpu);
    uint64_t addr_mask = cpu->vm->phys_mask & PAGE_MASK;
    uint64_t reserved = ~cpu->vm->phys_mask & 0x000ffffffffff000ull;
    uint64_t pa[5], e[5], table;
    unsigned level, n = 0;

    w->user = w->write = true;
    w->nx = false;
    if (!(cpu->st.efer & X86_EFER_NXE))
        reserved |= PTE_NX;
    if (lma) {
        table = cpu->st.cr3 & addr_mask;
        level = cpu->st.cr4 & X86_CR4_LA57 ? 5 : 4;
    } else {
        uint64_t pdpte = cpu->st.pdptr[(lin >> 30) & 3];

        if (!(pdpte & PTE_P))
            walk_fault(cpu, lin, 0, acc, mode);
        table = pdpte & addr_mask;
        level = 2;
        reserved |= 0x7ff0000000000000ull; /* PAE entries have no ignored high bits */
    }
    for (;; level--) {
        uint64_t bad = reserved, entry;

        pa[n] = table + ((lin >> (12 + 9 * (level - 1))) & 511) * 8;
        entry = e[n] = pte_load(cpu, pa[n], 8);
        n++;
        if (!(entry & PTE_P))
            walk_fault(cpu, lin, 0, acc, mode);
        if (level >= 4)
            bad |= PTE_PS;
        if (level == 3 && (entry & PTE_PS))
            bad |= 0x3fffe000;
        if (level == 2 && (entry & PTE_PS))
            bad |= 0x1fe000;
        if (entry & bad)
            walk_fault(cpu, lin, PF_P | PF_RSVD, acc, mode);
        w->user &= (entry & PTE_U) != 0;
        w->write &= (entry & PTE_W) != 0;
        w->nx |= (entry & PTE_NX) != 0;
        table = entry & addr_mask;
        if (level == 1 || (level <= 3 && (entry & PTE_PS)))
            break;
    }
    w->size = 1ull << (12 + 9 * (level - 1));
    w->gpa = (e[n - 1] & addr_mask & ~(w->size - 1)) | (lin & (w->size - 1));
    w->key = (e[n - 1] >> 59) & 15;
    if (!allowed(cpu, w, acc, mode))
        walk_fault(cpu, lin, PF_P | (key_denies(cpu, w, acc, mode) ? PF_PK : 0), acc, mode);
    for (unsigned i = 0; i + 1 < n; i++) {
        if (!pte_mark(cpu, pa[i], 8, e[i], PTE_A))
            return false;
    }
    w->dirty = (e[n - 1] & PTE_D) != 0 || acc == ACC_WRITE;
    w->global = (e[n - 1] & PTE_G) && (cpu->st.cr4 & X86_CR4_PGE);
    return pte_mark(cpu, pa[n - 1], 8, e[n - 1], acc == ACC_WRITE ? PTE_A | PTE_D : PTE_A);
}

static void walk(struct soft_cpu *cpu, unsigned seg, uint64_t lin, enum soft_access acc,
                 enum tlb_mode mode, struct walk *w)
{
    if (in_long_mode(cpu)) {
        if (!soft_canonical(cpu, lin))
            soft_raise_error(cpu, seg == X86_SS ? X86_EXC_SS : X86_EXC_GP, 0);
    } else {
        lin = (uint32_t)lin;
    }
    if (!(cpu->st.cr0 & X86_CR0_PG)) {
        *w = (struct walk){
            .gpa = lin, .size = PAGE_SIZE, .user = true, .write = true, .dirty = true};
    } else if (cpu->st.cr4 & X86_CR4_PAE) {
        while (!walk_64(cpu, lin, acc, mode, w))
            ;
    } else {
        while (!walk_32(cpu, lin, acc, mode, w))
            ;
    }
    w->gpa = a20(cpu, w->gpa);
}

/* Remembers where large pages were cached: INVLPG of one address drops the whole page. */
static void note_large(struct soft_cpu *cpu, uint64_t lin, uint64_t size)
{
    uint64_t mask = ~(size - 1);

    if (cpu->large_mask == 0) {
        cpu->large_base = lin & mask;
        cpu->large_mask = mask;
        return;
    }
    mask &= cpu->large_mask;
    while (((cpu->large_base ^ lin) & mask) != 0)
        mask <<= 1;
    cpu->large_base &= mask;
    cpu->large_mask = mask;
}

static enum tlb_mode system_mode(const struct soft_cpu *cpu)
{
    return cpu->st.cr4 & X86_CR4_SMAP ? TLB_KERNEL : TLB_KERNEL_AC;
}

/* Where the translation of a page without memory is kept, for this kind of access. */
static struct device_entry *device_entry(struct soft_cpu *cpu, uint64_t lin, enum soft_access acc,
                                         enum tlb_mode mode)
{
    return &cpu->devices[mode][acc == ACC_WRITE][(lin >> 12) & (SOFT_DEVICE_PAGES - 1)];
}

/* No memory: the next access of this kind needs no walk. Not in lock-step, which compares walks. */
static void keep_device(struct soft_cpu *cpu, uint64_t lin, enum soft_access acc,
                        enum tlb_mode mode, const struct walk *w)
{
    if (mode == TLB_CHECKED || acc == ACC_EXEC || cpu->check != NULL)
        return;
    if (w->size > PAGE_SIZE)
        note_large(cpu, lin, w->size);
    *device_entry(cpu, lin, acc, mode) =
        (struct device_entry){(lin & PAGE_MASK) | cpu->gen, w->gpa & PAGE_MASK};
}

/*
 * Before one of several vCPUs writes to a page unnoticed: its bit first, then a look whether the
 * page has become code; block_protect has it the other way round. false: it has.
 */
static bool claim(struct soft_cpu *cpu, uint64_t gpa_page)
{
    struct gmem *mem = cpu->vm->env.mem;
    uint32_t me = soft_bit(cpu);
    bool fresh = !(gmem_set_writer(mem, gpa_page, 0) & me);

    if (fresh)
        gmem_set_writer(mem, gpa_page, me);
    if (gmem_is_code(mem, gpa_page) == 0)
        return true;
    if (fresh)
        gmem_clear_writer(mem, gpa_page, me);
    return false;
}

uint8_t *mmu_translate(struct soft_cpu *cpu, unsigned seg, uint64_t lin, enum soft_access acc,
                       enum tlb_mode mode, uint64_t *gpa)
{
    struct gmem *mem = cpu->vm->env.mem;
    enum tlb_mode rights = mode;
    struct walk w;
    uint64_t tag = lin & PAGE_MASK;
    const struct device_entry *d = device_entry(cpu, lin, acc, mode);
    const uint8_t *page;
    bool ram, code;

    if (d->tag == (tag | cpu->gen) && acc != ACC_EXEC) {
        *gpa = d->gpa | (lin & 4095);
        return NULL;
    }
    if (rights == TLB_CHECKED)
        rights = cpu->cpl == 3                                                   ? TLB_USER
                 : !(cpu->st.cr4 & X86_CR4_SMAP) || (cpu->st.rflags & X86_FL_AC) ? TLB_KERNEL_AC
                                                                                 : TLB_KERNEL;
    walk(cpu, seg, lin, acc, rights, &w);
    *gpa = w.gpa;
    page =
        w.gpa >> 12 == cpu->apic_page >> 12 ? NULL : gmem_ptr_ro(mem, w.gpa & PAGE_MASK, PAGE_SIZE);
    if (page == NULL) {
        keep_device(cpu, lin, acc, mode, &w);
        return NULL;
    }
    ram = gmem_ptr(mem, w.gpa & PAGE_MASK, PAGE_SIZE) != NULL;
    code = gmem_is_code(mem, w.gpa & PAGE_MASK) != 0;
    if (cpu->vm->smp && ram && !code && acc != ACC_EXEC &&
        (acc == ACC_WRITE || (w.dirty && allowed(cpu, &w, ACC_WRITE, mode))))
        code = !claim(cpu, w.gpa & PAGE_MASK);
    if (w.size > PAGE_SIZE)
        note_large(cpu, lin, w.size);
    if (acc == ACC_EXEC) {
        cpu->fetch_writable = allowed(cpu, &w, ACC_WRITE, mode);
        cpu->fetch_global = w.global;
    }
    if (mode != TLB_CHECKED && acc != ACC_EXEC) {
        unsigned slot = (lin >> 12) & (SOFT_TLB_SIZE - 1);
        uintptr_t addend = (uintptr_t)page - (lin & PAGE_MASK);
        struct tlb_entry *e = &cpu->tables[mode][slot];

        if (unlikely(cpu->check != NULL))
            check_fill(cpu, mode, slot);
        if (e->addend != addend || e->rtag != tag) {
            e->wtag = tlb_empty(slot);
            e->rtag = tag;
            e->page = (uintptr_t)page;
            e->addend = addend;
            cpu->tlb_used[mode][slot / 64] |= 1ull << (slot % 64);
            if (w.global)
                cpu->tlb_global[mode][slot / 64] |= 1ull << (slot % 64);
            else
                cpu->tlb_global[mode][slot / 64] &= ~(1ull << (slot % 64));
        }
        /* in lock-step a page that can be written has been copied */
        if (ram && !code && w.dirty && allowed(cpu, &w, ACC_WRITE, mode) &&
            (likely(cpu->check == NULL) || acc == ACC_WRITE))
            e->wtag = tag;
    }
    if (acc == ACC_WRITE && (!ram || code))
        return NULL;
    if (unlikely(cpu->check != NULL) && acc == ACC_WRITE)
        check_write(cpu, w.gpa);
    return (uint8_t *)(uintptr_t)page + (lin & 4095);
}

const uint8_t *mmu_fetch(struct soft_cpu *cpu, uint64_t lin, uint64_t *gpa)
{
    struct fetch_entry *e = &cpu->fetch[cpu->cpl == 3][(lin >> 12) & (SOFT_FETCH_SIZE - 1)];
    const uint8_t *p;

    if (likely(e->tag == ((lin & PAGE_MASK) | (e->global ? cpu->gen_global : cpu->gen)))) {
        *gpa = e->gpa | (lin & 4095);
        cpu->fetch_writable = e->writable;
        cpu->fetch_global = e->global;
        return e->page + (lin & 4095);
    }
    p = mmu_translate(cpu, X86_CS, lin, ACC_EXEC, cpu->cpl == 3 ? TLB_USER : TLB_KERNEL, gpa);
    if (p == NULL)
        return NULL;
    e->global = cpu->fetch_global;
    e->tag = (lin & PAGE_MASK) | (e->global ? cpu->gen_global : cpu->gen);
    e->gpa = *gpa & PAGE_MASK;
    e->page = p - (lin & 4095);
    e->writable = cpu->fetch_writable;
    return p;
}

static void empty_tables(struct soft_cpu *cpu, bool global)
{
    for (unsigned m = 0; m < TLB_MODES; m++) {
        for (unsigned w = 0; w < countof(cpu->tlb_used[m]); w++) {
            uint64_t keep = global ? 0 : cpu->tlb_global[m][w];
            uint64_t used = cpu->tlb_used[m][w] & ~keep;

            for (; used != 0; used &= used - 1) {
                unsigned slot = 64 * w + (unsigned)__builtin_ctzll(used);

                cpu->tables[m][slot].rtag = cpu->tables[m][slot].wtag = tlb_empty(slot);
            }
            cpu->tlb_used[m][w] &= keep;
        }
    }
}

void mmu_init(struct soft_cpu *cpu)
{
    cpu->gen = cpu->gen_global = 1;
    for (unsigned m = 0; m < TLB_MODES; m++) {
        for (unsigned i = 0; i < SOFT_TLB_SIZE; i++)
            cpu->tables[m][i].rtag = cpu->tables[m][i].wtag = tlb_empty(i);
    }
}

static void next_generation(struct soft_cpu *cpu)
{
    cpu->jumps_live = false;
    if (++cpu->gen == PAGE_SIZE) {
        cpu->gen = 1;
        memset(cpu->fetch, 0, sizeof(cpu->fetch));
        memset(cpu->devices, 0, sizeof(cpu->devices));
        memset(cpu->jumps, 0, sizeof(cpu->jumps));
    }
}

void mmu_flush_all(struct soft_cpu *cpu)
{
    cpu->large_mask = 0;
    check_flush(cpu);
    empty_tables(cpu, true);
    jit_context_changed(cpu);
    next_generation(cpu);
    if (++cpu->gen_global == PAGE_SIZE) {
        cpu->gen_global = 1;
        memset(cpu->fetch, 0, sizeof(cpu->fetch));
    }
}

void mmu_flush_context(struct soft_cpu *cpu)
{
    check_flush(cpu);
    empty_tables(cpu, false);
    next_generation(cpu);
}

void mmu_flush_page(struct soft_cpu *cpu, uint64_t lin)
{
    if (cpu->large_mask != 0 && ((lin ^ cpu->large_base) & cpu->large_mask) == 0) {
        mmu_flush_all(cpu);
        return;
    }
    check_flush(cpu);
    for (unsigned m = 0; m < TLB_MODES; m++) {
        unsigned slot = (lin >> 12) & (SOFT_TLB_SIZE - 1);

        cpu->tables[m][slot].rtag = cpu->tables[m][slot].wtag = tlb_empty(slot);
        device_entry(cpu, lin, ACC_READ, m)->tag = 0;
        device_entry(cpu, lin, ACC_WRITE, m)->tag = 0;
    }
    jit_page_changed(cpu, lin);
    cpu->fetch[0][(lin >> 12) & (SOFT_FETCH_SIZE - 1)].tag = 0;
    cpu->fetch[1][(lin >> 12) & (SOFT_FETCH_SIZE - 1)].tag = 0;
    /* the jump cache holds translations of instruction addresses on that page */
    for (unsigned i = 0; cpu->jumps_live && i < 1u << SOFT_JUMP_BITS; i++) {
        if (((cpu->jumps[i].lin ^ lin) & PAGE_MASK) == 0)
            cpu->jumps[i].key = 0;
    }
}

void mmu_protect_code(struct soft_cpu *cpu, uint64_t gpa_page)
{
    struct gmem *mem = cpu->vm->env.mem;
    uintptr_t hva = (uintptr_t)gmem_ptr_ro(mem, gpa_page, PAGE_SIZE);

    for (unsigned m = 0; m < TLB_MODES; m++) {
        for (unsigned w = 0; w < countof(cpu->tlb_used[m]); w++) {
            for (uint64_t used = cpu->tlb_used[m][w]; used != 0; used &= used - 1) {
                unsigned slot = 64 * w + (unsigned)__builtin_ctzll(used);
                struct tlb_entry *e = &cpu->tables[m][slot];

                if (e->wtag != tlb_empty(slot) && e->page == hva)
                    e->wtag = tlb_empty(slot);
            }
        }
    }
    if (cpu->vm->smp)
        gmem_clear_writer(mem, gpa_page, soft_bit(cpu));
}

void mmu_update_mode(struct soft_cpu *cpu)
{
    enum tlb_mode mode;

    if (cpu->cpl == 3)
        mode = TLB_USER;
    else if (!(cpu->st.cr4 & X86_CR4_SMAP) || (cpu->st.rflags & X86_FL_AC))
        mode = TLB_KERNEL_AC;
    else
        mode = TLB_KERNEL;
    cpu->check_align = cpu->cpl == 3 && (cpu->st.cr0 & X86_CR0_AM) && (cpu->st.rflags & X86_FL_AC);
    /* DR7: enable bits 7:0, kinds (1 write, 3 read or write) from bit 16, two of four bits each */
    for (unsigned i = 0; i < 4 && unlikely((cpu->st.dr7 & 0xff) != 0); i++) {
        if (((cpu->st.dr7 >> (2 * i)) & 3) != 0 && ((cpu->st.dr7 >> (16 + 4 * i)) & 1) != 0)
            mode = TLB_CHECKED;
    }
    if (cpu->check_align)
        mode = TLB_CHECKED;
    cpu->tlb_mode = (uint8_t)mode;
    cpu->tlb = cpu->tables[mode];
}

/* ---- MMIO ---- */

static uint64_t mmio_load(struct soft_cpu *cpu, uint64_t gpa, unsigned size)
{
    const struct engine_env *env = &cpu->vm->env;
    uint64_t v;

    check_cut(cpu);
    cpu->stats.mmio++;
    if (gpa >> 12 == cpu->apic_page >> 12)
        return env->lapic->mmio_read(env->lapic_ctx, cpu->id, gpa & 4095, size);
    bus_read(env->bus, cpu->id, BUS_MMIO, gpa, size, &v);
    return v;
}

static void mmio_store(struct soft_cpu *cpu, uint64_t gpa, unsigned size, uint64_t v)
{
    const struct engine_env *env = &cpu->vm->env;

    check_cut(cpu);
    cpu->stats.mmio++;
    if (gpa >> 12 == cpu->apic_page >> 12) {
        env->lapic->mmio_write(env->lapic_ctx, cpu->id, gpa & 4095, size, v);
        soft_check_irq(cpu);
        return;
    }
    bus_write(env->bus, cpu->id, BUS_MMIO, gpa, size, v);
    if (atomic_load_explicit(&cpu->pending, memory_order_relaxed) != 0)
        soft_stop_block(cpu);
}

/* What lies behind a physical address, piece by piece inside one page: RAM, ROM, code, MMIO. */
static uint64_t phys_load(struct soft_cpu *cpu, uint64_t gpa, unsigned size)
{
    const uint8_t *p =
        gpa >> 12 == cpu->apic_page >> 12 ? NULL : gmem_ptr_ro(cpu->vm->env.mem, gpa, size);

    return p != NULL ? host_load(p, size) : mmio_load(cpu, gpa, size);
}

static void phys_store(struct soft_cpu *cpu, uint64_t gpa, unsigned size, uint64_t v)
{
    struct gmem *mem = cpu->vm->env.mem;
    uint8_t *p = gpa >> 12 == cpu->apic_page >> 12 ? NULL : gmem_ptr(mem, gpa, size);

    if (p != NULL) {
        if (unlikely(cpu->check != NULL))
            check_write(cpu, gpa);
        host_store(p, size, v);
        if (cpu->vm->smp)
            atomic_thread_fence(memory_order_seq_cst); /* the bytes, then a look at the mark */
        if (gmem_is_code(mem, gpa & PAGE_MASK) != 0)
            block_written(cpu, gpa, size);
    } else if (gpa >> 12 == cpu->apic_page >> 12 || gmem_ptr_ro(mem, gpa, size) == NULL) {
        mmio_store(cpu, gpa, size, v);
    } /* else ROM: dropped */
}

void mmu_fetch_device(struct soft_cpu *cpu, uint64_t gpa, uint8_t *to, unsigned len)
{
    for (unsigned i = 0; i < len; i++)
        to[i] = (uint8_t)phys_load(cpu, gpa + i, 1);
}

/* ---- slow halves ---- */

/* An access that leaves the canonical half is refused before its first page is looked at. */
static void check_canonical(struct soft_cpu *cpu, unsigned seg, uint64_t lin)
{
    if (in_long_mode(cpu) && !soft_canonical(cpu, lin))
        soft_raise_error(cpu, seg == X86_SS ? X86_EXC_SS : X86_EXC_GP, 0);
}

static void check_access(struct soft_cpu *cpu, unsigned seg, uint64_t lin, unsigned size,
                         bool write)
{
    /* numbers at their size, 80-bit ones at 8 bytes, FPU images at 4 */
    unsigned align = size == 10 ? 8 : size > 64 || (size & (size - 1)) != 0 ? 4 : size;

    check_canonical(cpu, seg, lin); /* canonical form comes before alignment */
    check_canonical(cpu, seg, lin + size - 1);
    if (cpu->check_align && (lin & (align - 1)) != 0)
        soft_raise_error(cpu, X86_EXC_AC, 0);
    for (unsigned i = 0; i < 4; i++) {
        unsigned kind = (cpu->st.dr7 >> (16 + 4 * i)) & 3;
        unsigned len = (cpu->st.dr7 >> (18 + 4 * i)) & 3;
        uint64_t bytes = len == 2 ? 8 : len + 1;
        uint64_t at = cpu->st.dr[i] & ~(bytes - 1);

        if (((cpu->st.dr7 >> (2 * i)) & 3) == 0 || !(kind & 1) || (kind == 1 && !write))
            continue;
        if (lin < at + bytes && at < lin + size) {
            cpu->db_hit |= 1u << i;
            soft_set_slow(cpu);
        }
    }
}

uint64_t mmu_load_slow(struct soft_cpu *cpu, unsigned seg, uint64_t lin, unsigned size)
{
    unsigned first = PAGE_SIZE - (unsigned)(lin & 4095);
    uint64_t gpa, gpa2, v = 0;
    const uint8_t *p;

    cpu->stats.tlb_misses++;
    if (cpu->tlb_mode == TLB_CHECKED)
        check_access(cpu, seg, lin, size, false);
    if (first >= size) {
        p = mmu_translate(cpu, seg, lin, ACC_READ, cpu->tlb_mode, &gpa);
        return p != NULL ? host_load(p, size) : phys_load(cpu, gpa, size);
    }
    check_canonical(cpu, seg, lin + size - 1);
    mmu_translate(cpu, seg, lin, ACC_READ, cpu->tlb_mode, &gpa);
    mmu_translate(cpu, seg, lin + first, ACC_READ, cpu->tlb_mode, &gpa2);
    for (unsigned i = 0; i < size; i++)
        v |= phys_load(cpu, i < first ? gpa + i : gpa2 + (i - first), 1) << (8 * i);
    return v;
}

void mmu_store_slow(struct soft_cpu *cpu, unsigned seg, uint64_t lin, unsigned size, uint64_t v)
{
    unsigned first = PAGE_SIZE - (unsigned)(lin & 4095);
    uint64_t gpa, gpa2;
    uint8_t *p;

    cpu->stats.tlb_misses++;
    if (cpu->tlb_mode == TLB_CHECKED)
        check_access(cpu, seg, lin, size, true);
    if (first >= size) {
        p = mmu_translate(cpu, seg, lin, ACC_WRITE, cpu->tlb_mode, &gpa);
        if (p != NULL)
            host_store(p, size, v);
        else
            phys_store(cpu, gpa, size, v);
        return;
    }
    check_canonical(cpu, seg, lin + size - 1);
    mmu_translate(cpu, seg, lin, ACC_WRITE, cpu->tlb_mode, &gpa);
    mmu_translate(cpu, seg, lin + first, ACC_WRITE, cpu->tlb_mode, &gpa2);
    for (unsigned i = 0; i < size; i++)
        phys_store(cpu, i < first ? gpa + i : gpa2 + (i - first), 1, (v >> (8 * i)) & 0xff);
}

/*
 * With several vCPUs nothing may come between the load and the store. Code is changed in place, and
 * those that have decoded it are told after the instruction (mmu_rmw_end); two pages that follow
 * each other in the host are one place; over others all such instructions exclude each other.
 */
static uint8_t *rmw_shared(struct soft_cpu *cpu, uint64_t gpa, uint64_t gpa2, unsigned size)
{
    struct gmem *mem = cpu->vm->env.mem;
    bool two = gpa2 != UINT64_MAX;
    uint8_t *p = two && gpa2 != (gpa | (PAGE_SIZE - 1)) + 1 ? NULL : gmem_ptr(mem, gpa, size);

    if (gpa >> 12 == cpu->apic_page >> 12 || (two && gpa2 >> 12 == cpu->apic_page >> 12))
        return NULL;
    if (p == NULL && (!two || gmem_ptr(mem, gpa, 1) == NULL || gmem_ptr(mem, gpa2, 1) == NULL))
        return NULL; /* a device's register */
    soft_stop_block(cpu);
    atomic_fetch_or(&cpu->pending, SOFT_PENDING_INVAL);
    if (p == NULL) {
        pthread_mutex_lock(&cpu->vm->split);
        cpu->split_held = true;
        return NULL;
    }
    cpu->rmw_code = gpa;
    cpu->rmw_len = (uint8_t)size;
    return p;
}

void mmu_rmw_end(struct soft_cpu *cpu)
{
    uint64_t gpa = cpu->rmw_code, end = gpa + cpu->rmw_len;

    if (cpu->split_held) {
        cpu->split_held = false;
        pthread_mutex_unlock(&cpu->vm->split);
    }
    if (gpa == UINT64_MAX)
        return;
    cpu->rmw_code = UINT64_MAX;
    atomic_thread_fence(memory_order_seq_cst);
    for (uint64_t at = gpa; at < end; at = (at | (PAGE_SIZE - 1)) + 1) {
        if (gmem_is_code(cpu->vm->env.mem, at & PAGE_MASK) != 0)
            block_written(cpu, at, (unsigned)(min_u64(end, (at | (PAGE_SIZE - 1)) + 1) - at));
    }
}

uint8_t *mmu_rmw_slow(struct soft_cpu *cpu, unsigned seg, uint64_t lin, unsigned size)
{
    unsigned first = PAGE_SIZE - (unsigned)(lin & 4095);
    uint64_t gpa, gpa2 = UINT64_MAX;
    uint8_t *p;

    if (cpu->tlb_mode == TLB_CHECKED)
        check_access(cpu, seg, lin, size, true);
    if (first < size)
        check_canonical(cpu, seg, lin + size - 1);
    p = mmu_translate(cpu, seg, lin, ACC_WRITE, cpu->tlb_mode, &gpa);
    if (first < size) {
        mmu_translate(cpu, seg, lin + first, ACC_WRITE, cpu->tlb_mode, &gpa2);
        p = NULL;
    }
    return p == NULL && cpu->vm->smp ? rmw_shared(cpu, gpa, gpa2, size) : p;
}

uint64_t sys_load(struct soft_cpu *cpu, uint64_t lin, unsigned size)
{
    enum tlb_mode mode = system_mode(cpu);
    const struct tlb_entry *e = &cpu->tables[mode][(lin >> 12) & (SOFT_TLB_SIZE - 1)];
    unsigned first = PAGE_SIZE - (unsigned)(lin & 4095);
    uint64_t gpa, v = 0;
    const uint8_t *p;

    if (first < size) {
        for (unsigned i = 0; i < size; i++)
            v |= sys_load(cpu, lin + i, 1) << (8 * i);
        return v;
    }
    if (tlb_hit(e->rtag, lin, 1))
        return host_load((const uint8_t *)(lin + e->addend), size);
    p = mmu_translate(cpu, X86_DS, lin, ACC_READ, mode, &gpa);
    return p != NULL ? host_load(p, size) : phys_load(cpu, gpa, size);
}

void sys_store(struct soft_cpu *cpu, uint64_t lin, unsigned size, uint64_t v)
{
    unsigned first = PAGE_SIZE - (unsigned)(lin & 4095);
    uint64_t gpa;
    uint8_t *p;

    if (first < size) {
        mmu_translate(cpu, X86_DS, lin + first, ACC_WRITE, system_mode(cpu), &gpa);
        for (unsigned i = 0; i < size; i++)
            sys_store(cpu, lin + i, 1, (v >> (8 * i)) & 0xff);
        return;
    }
    p = mmu_translate(cpu, X86_DS, lin, ACC_WRITE, system_mode(cpu), &gpa);
    if (p != NULL)
        host_store(p, size, v);
    else
        phys_store(cpu, gpa, size, v);
}

/* ---- by segment ---- */

static _Noreturn void seg_fault(struct soft_cpu *cpu, unsigned seg)
{
    soft_raise_error(cpu, seg == X86_SS ? X86_EXC_SS : X86_EXC_GP, 0);
}

uint64_t soft_linear(struct soft_cpu *cpu, unsigned seg, uint64_t ea, unsigned len, bool write)
{
    const struct x86_segment *s = &cpu->st.seg[seg];
    uint64_t last = ea + len - 1;

    if (cpu->long_code)
        return cpu->base[seg] + ea;
    if (has_descriptors(cpu)) {
        bool code = (s->attr & 8) != 0;

        if (s->attr & X86_SEG_UNUSABLE)
            seg_fault(cpu, seg);
        if (write ? code || !(s->attr & 2) : code && !(s->attr & 2))
            seg_fault(cpu, seg);
        if (!code && (s->attr & 4)) { /* expand-down: valid above the limit */
            uint64_t top = s->attr & X86_SEG_DB ? 0xffffffffull : 0xffffull;

            if (ea <= s->limit || last > top)
                seg_fault(cpu, seg);
            return (uint32_t)(s->base + ea);
        }
    }
    if (last > s->limit)
        seg_fault(cpu, seg);
    return (uint32_t)(s->base + ea);
}

uint8_t soft_ld8(struct soft_cpu *cpu, unsigned seg, uint64_t ea)
{
    return (uint8_t)mem_load(cpu, seg, ea, 1);
}

uint16_t soft_ld16(struct soft_cpu *cpu, unsigned seg, uint64_t ea)
{
    return (uint16_t)mem_load(cpu, seg, ea, 2);
}

uint32_t soft_ld32(struct soft_cpu *cpu, unsigned seg, uint64_t ea)
{
    return (uint32_t)mem_load(cpu, seg, ea, 4);
}

uint64_t soft_ld64(struct soft_cpu *cpu, unsigned seg, uint64_t ea)
{
    return mem_load(cpu, seg, ea, 8);
}

void soft_st8(struct soft_cpu *cpu, unsigned seg, uint64_t ea, uint8_t v)
{
    mem_store(cpu, seg, ea, 1, v);
}

void soft_st16(struct soft_cpu *cpu, unsigned seg, uint64_t ea, uint16_t v)
{
    mem_store(cpu, seg, ea, 2, v);
}

void soft_st32(struct soft_cpu *cpu, unsigned seg, uint64_t ea, uint32_t v)
{
    mem_store(cpu, seg, ea, 4, v);
}

void soft_st64(struct soft_cpu *cpu, unsigned seg, uint64_t ea, uint64_t v)
{
    mem_store(cpu, seg, ea, 8, v);
}

/* One page's part of a longer copy, already translated. */
static void copy_part(struct soft_cpu *cpu, uint8_t *host, uint64_t gpa, uint8_t *buf, unsigned len,
                      bool write)
{
    if (host != NULL && write) {
        memcpy(host, buf, len);
        return;
    }
    if (host != NULL) {
        memcpy(buf, host, len);
        return;
    }
    while (len > 0) {
        unsigned n = len >= 8 && (gpa & 7) == 0 ? 8 : len >= 4 && (gpa & 3) == 0 ? 4 : 1;
        uint64_t v = 0;

        if (write) {
            memcpy(&v, buf, n);
            phys_store(cpu, gpa, n, v);
        } else {
            v = phys_load(cpu, gpa, n);
            memcpy(buf, &v, n);
        }
        gpa += n;
        buf += n;
        len -= n;
    }
}

static void copy(struct soft_cpu *cpu, unsigned seg, uint64_t ea, uint8_t *buf, unsigned len,
                 bool write)
{
    enum soft_access acc = write ? ACC_WRITE : ACC_READ;
    uint64_t lin = soft_linear(cpu, seg, ea, len, write);
    unsigned first = PAGE_SIZE - (unsigned)(lin & 4095);
    const struct tlb_entry *e = &cpu->tlb[(lin >> 12) & (SOFT_TLB_SIZE - 1)];
    uint64_t gpa, gpa2 = 0;
    uint8_t *p, *p2 = NULL;

    if (first >= len && tlb_hit(write ? e->wtag : e->rtag, lin, 1)) {
        copy_part(cpu, (uint8_t *)(lin + e->addend), 0, buf, len, write);
        return;
    }
    if (cpu->tlb_mode == TLB_CHECKED)
        check_access(cpu, seg, lin, len, write);
    if (first > len)
        first = len;
    check_canonical(cpu, seg, lin + len - 1);
    p = mmu_translate(cpu, seg, lin, acc, cpu->tlb_mode, &gpa);
    if (first < len)
        p2 = mmu_translate(cpu, seg, lin + first, acc, cpu->tlb_mode, &gpa2);
    copy_part(cpu, p, gpa, buf, first, write);
    if (first < len)
        copy_part(cpu, p2, gpa2, buf + first, len - first, write);
}

void soft_read(struct soft_cpu *cpu, unsigned seg, uint64_t ea, void *to, unsigned len)
{
    copy(cpu, seg, ea, to, len, false);
}

void soft_write(struct soft_cpu *cpu, unsigned seg, uint64_t ea, const void *from, unsigned len)
{
    copy(cpu, seg, ea, (uint8_t *)(uintptr_t)from, len, true);
}

static void probe(struct soft_cpu *cpu, unsigned seg, uint64_t ea, unsigned len, bool write)
{
    enum soft_access acc = write ? ACC_WRITE : ACC_READ;
    uint64_t lin = soft_linear(cpu, seg, ea, len, write);
    unsigned first = PAGE_SIZE - (unsigned)(lin & 4095);
    const struct tlb_entry *e = &cpu->tlb[(lin >> 12) & (SOFT_TLB_SIZE - 1)];
    uint64_t gpa;

    if (first >= len && tlb_hit(write ? e->wtag : e->rtag, lin, 1))
        return;
    if (cpu->tlb_mode == TLB_CHECKED)
        check_access(cpu, seg, lin, len, write);
    check_canonical(cpu, seg, lin + len - 1);
    mmu_translate(cpu, seg, lin, acc, cpu->tlb_mode, &gpa);
    if (first < len)
        mmu_translate(cpu, seg, lin + first, acc, cpu->tlb_mode, &gpa);
}

void soft_probe_write(struct soft_cpu *cpu, unsigned seg, uint64_t ea, unsigned len)
{
    probe(cpu, seg, ea, len, true);
}

void soft_probe_read(struct soft_cpu *cpu, unsigned seg, uint64_t ea, unsigned len)
{
    probe(cpu, seg, ea, len, false);
}
