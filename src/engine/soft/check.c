#include "engine/soft/check_runs.h"

#include <errno.h>
#include <stdlib.h>

#include "engine/soft/jit/translate.h"

/*
 * A stretch begins with no page writable by the TLB, so the first store to each page comes by the
 * slow way and the page is copied. TLB entries that change are remembered too, and put back before
 * the second run: both see the same TLB, and set the same bits in page tables.
 */

int check_init(struct soft_cpu *cpu, struct error *err)
{
    struct check *c = calloc(1, sizeof(*c));

    cpu->check = c;
    if (c != NULL) {
        c->before = calloc(MOST_PAGES, PAGE_SIZE);
        c->after = calloc(MOST_PAGES, PAGE_SIZE);
    }
    if (c == NULL || c->before == NULL || c->after == NULL)
        return error_set(err, -ENOMEM, "no memory for running translator and interpreter together");
    return 0;
}

void check_fini(struct soft_cpu *cpu)
{
    struct check *c = cpu->check;

    if (c == NULL)
        return;
    free(c->before);
    free(c->after);
    free(c);
    cpu->check = NULL;
}

/* ---- what happens during a stretch ---- */

void check_fill(struct soft_cpu *cpu, unsigned mode, unsigned slot)
{
    struct check *c = cpu->check;
    struct check_fill *f = &c->fill[c->fills];

    if (c->fills == MOST_FILLS) { /* begin anew with an empty TLB; both runs do without */
        mmu_flush_all(cpu);
        return;
    }
    f->mode = (uint8_t)mode;
    f->slot = (uint16_t)slot;
    f->used = cpu->tlb_used[mode][slot / 64] >> (slot % 64) & 1;
    f->global = cpu->tlb_global[mode][slot / 64] >> (slot % 64) & 1;
    f->old = cpu->tables[mode][slot];
    c->fills++;
}

void check_flush(struct soft_cpu *cpu)
{
    struct check *c = cpu->check;

    if (c == NULL)
        return;
    c->flushed = true;
}

_Noreturn static void leave(struct soft_cpu *cpu, enum cut cut)
{
    struct check *c = cpu->check;

    c->cut = cut;
    cpu->fault.type = FAULT_CUT;
    longjmp(*cpu->env, 1);
}

void check_cut(struct soft_cpu *cpu)
{
    const struct check *c = cpu->check;

    if (c != NULL && c->phase != IDLE)
        leave(cpu, CUT_DEVICE);
}

void check_op(struct soft_cpu *cpu, unsigned op)
{
    const struct check *c = cpu->check;

    if (c == NULL || c->phase == IDLE)
        return;
    switch (op) {
    case X86_IN:
    case X86_OUT:
    case X86_INS:
    case X86_OUTS:
    case X86_HLT:
    case X86_MWAIT:
    case X86_RDTSC:
    case X86_RDTSCP:
    case X86_RDPMC:
    case X86_RDRAND:
    case X86_RDSEED:
    case X86_RDMSR:
    case X86_WRMSR:
    case X86_MOVCR:
    case X86_MOVDR:
    case X86_LMSW:
    case X86_CLTS:
    case X86_INVLPG:
    case X86_INVPCID:
    case X86_VMCALL:
        leave(cpu, CUT_BEFORE);
    default:
        break;
    }
}

static unsigned hash_page(uint64_t gpa)
{
    return (unsigned)((gpa >> 12) * 0x9E3779B97F4A7C15ull >> 51) & (4 * MOST_PAGES - 1);
}

void check_write(struct soft_cpu *cpu, uint64_t gpa)
{
    struct check *c = cpu->check;
    unsigned h = hash_page(gpa);
    struct check_page *p;

    if (c->phase == IDLE)
        return;
    gpa &= PAGE_MASK;
    for (; c->page_hash[h] != 0; h = (h + 1) & (4 * MOST_PAGES - 1)) {
        p = &c->page[c->page_hash[h] - 1];
        if (p->gpa == gpa) {
            p->first |= c->phase == TRANSLATED;
            return;
        }
    }
    if (c->pages == MOST_PAGES)
        leave(cpu, CUT_FULL);
    p = &c->page[c->pages];
    *p = (struct check_page){.gpa = gpa, .first = c->phase == TRANSLATED};
    memcpy(c->before + (size_t)c->pages * PAGE_SIZE, host_page(cpu, gpa), PAGE_SIZE);
    c->page_hash[h] = (uint16_t)++c->pages;
    if (c->pages > MOST_PAGES / 2)
        cpu->hot.budget = 0; /* enough: the next block does not begin */
}

/* ---- taking back ---- */

/* Entries that were filled hold no permission to write any more. */
static void forbid_writes(struct soft_cpu *cpu)
{
    struct check *c = cpu->check;

    for (unsigned i = 0; i < c->fills; i++)
        cpu->tables[c->fill[i].mode][c->fill[i].slot].wtag = tlb_empty(c->fill[i].slot);
    c->fills = 0;
    c->flushed = false;
}

static void put_back_tlb(struct soft_cpu *cpu)
{
    struct check *c = cpu->check;

    if (c->flushed) {
        c->fills = 0;
        mmu_flush_all(cpu);
    }
    while (c->fills > 0) {
        const struct check_fill *f = &c->fill[--c->fills];
        uint64_t bit = 1ull << (f->slot % 64);

        cpu->tables[f->mode][f->slot] = f->old;
        if (!f->used)
            cpu->tlb_used[f->mode][f->slot / 64] &= ~bit;
        if (!f->global)
            cpu->tlb_global[f->mode][f->slot / 64] &= ~bit;
        else
            cpu->tlb_global[f->mode][f->slot / 64] |= bit;
    }
    if (!c->flushed)
        memcpy(cpu->fetch, c->fetch, sizeof(c->fetch));
    c->flushed = false;
}

/* Only what was changed: nobody else's bytes are touched. */
static void put_back_memory(struct soft_cpu *cpu)
{
    struct check *c = cpu->check;

    for (unsigned i = 0; i < c->pages; i++) {
        const uint8_t *old = c->before + (size_t)i * PAGE_SIZE;
        uint8_t *now = host_page(cpu, c->page[i].gpa);

        if (memcmp(old, now, PAGE_SIZE) == 0)
            continue;
        for (unsigned k = 0; k < PAGE_SIZE; k += 8) {
            if (memcmp(old + k, now + k, 8) != 0)
                memcpy(now + k, old + k, 8);
        }
    }
}

static void forget_pages(struct check *c)
{
    for (unsigned i = 0; i < c->pages; i++) {
        unsigned h = hash_page(c->page[i].gpa);

        while (c->page_hash[h] != 0) { /* the whole run of occupied places */
            c->page_hash[h] = 0;
            h = (h + 1) & (4 * MOST_PAGES - 1);
        }
    }
    c->pages = 0;
}

static void put_back(struct soft_cpu *cpu)
{
    struct check *c = cpu->check;

    put_back_memory(cpu);
    put_back_tlb(cpu);
    cpu->st = c->begin.st;
    cpu->cc = c->begin.cc;
    cpu->cpl = c->begin.cpl;
    cpu->stats = c->stats;
    cpu->halt_wanted = false;
    cpu->exit_wanted = false;
    cpu->delivering = false;
    cpu->db_hit = 0;
    soft_mode_changed(cpu);
}

static void record(struct soft_cpu *cpu, struct check_end *e, bool left)
{
    e->st = cpu->st;
    e->st.rflags = soft_flags(cpu);
    e->cpl = cpu->cpl;
    e->instructions = cpu->stats.instructions;
    e->left = left;
    e->type = left ? cpu->fault.type : 0;
    e->vector = cpu->fault.vector;
    e->error = cpu->fault.error;
    e->payload = cpu->fault.payload;
}

/* ---- the two runs ---- */

/* The translator may have looked at where it was going on, which marks that page as used. */
static void fetch_next(struct soft_cpu *cpu)
{
    uint64_t gpa;

    if (jit_usable(cpu))
        (void)mmu_fetch(cpu, cpu->st.rip, &gpa);
}

static void run_translated(struct soft_cpu *cpu, unsigned length)
{
    struct check *c = cpu->check;
    jmp_buf *outer = cpu->env;
    bool budgeted = cpu->budgeted;
    bool volatile left = true;
    uint64_t budget = cpu->budget, limit = cpu->stats.instructions + length;

    c->phase = TRANSLATED;
    cpu->env = &c->env;
    if (setjmp(c->env) == 0) {
        cpu->budget = budgeted && budget < limit ? budget : limit;
        cpu->budgeted = true;
        while (cpu->stats.instructions < cpu->budget && !cpu->exit_wanted &&
               atomic_load_explicit(&cpu->pending, memory_order_relaxed) == 0 && jit_run(cpu))
            ;
        fetch_next(cpu);
        left = false;
    } else {
        soft_rewind(cpu);
        if (cpu->fault.type == FAULT_EXIT || cpu->fault.type == FAULT_FREEZE) {
            cpu->fault.type = FAULT_CUT; /* happens again when the instruction runs alone */
            c->cut = CUT_BEFORE;
        }
    }
    cpu->env = outer;
    cpu->budgeted = budgeted;
    cpu->budget = budget;
    record(cpu, &c->first, left);
    c->phase = IDLE;
}

/* As the run loop does before an instruction; translated code has no need of them. */
static void end_shadows(struct soft_cpu *cpu)
{
    cpu->st.sti_shadow = cpu->st.movss_shadow = false;
    cpu->st.rflags &= ~(uint64_t)X86_FL_RF;
}

/* What goes into a frame as flags. */
static uint32_t pushed_flags(const struct x86_insn *in)
{
    return in->op == X86_INT || in->op == X86_INT3 || in->op == X86_INTO || in->op == X86_INT1 ||
                   in->op == X86_SYSCALL
               ? X86_FL_ARITH
               : 0;
}

/*
 * Before one instruction: which flags nobody defines behind it. Bit 31: it has used one that nobody
 * defined, and what came of that is not to be compared.
 */
static uint32_t note_step(struct soft_cpu *cpu, uint32_t undefined)
{
    struct x86_insn in;

    if (check_decode(cpu, cpu->st.rip, &in) <= 0)
        return undefined;
    if ((undefined & ~UNDEFINED_USED & (in.flags_read | pushed_flags(&in))) != 0)
        undefined |= UNDEFINED_USED;
    return (undefined & ~in.flags_written) | in.flags_undefined;
}

/*
 * As many instructions as the first run did; singly: one by one, and says which flags are undefined
 * behind the last of them. The one that ended the first run is tried as well.
 */
static uint32_t run_interpreted(struct soft_cpu *cpu, bool singly, uint64_t *trace)
{
    struct check *c = cpu->check;
    jmp_buf *outer = cpu->env;
    uint32_t volatile undefined = 0;
    unsigned volatile n = 0;
    bool volatile left = true;

    c->phase = INTERPRETED;
    cpu->env = &c->env;
    if (setjmp(c->env) == 0) {
        while (cpu->stats.instructions < c->first.instructions) {
            uint64_t room = c->first.instructions - cpu->stats.instructions;
            struct soft_block *k;

            if (singly && trace != NULL && n < MOST_STEPS)
                trace[n++] = cpu->st.rip;
            k = singly ? block_get(cpu, true) : soft_next_block(cpu);
            if (k->count > room)
                k = block_get(cpu, true);
            end_shadows(cpu);
            if (singly)
                undefined = note_step(cpu, undefined);
            soft_run_block(cpu, k);
        }
        if (c->first.left && (c->first.type != FAULT_CUT || c->cut == CUT_DEVICE)) {
            struct soft_block *k;

            if (singly && trace != NULL && n < MOST_STEPS)
                trace[n++] = cpu->st.rip;
            k = block_get(cpu, true);
            end_shadows(cpu);
            soft_run_block(cpu, k);
        }
        fetch_next(cpu);
        left = false;
    } else {
        soft_rewind(cpu);
    }
    cpu->env = outer;
    record(cpu, &c->second, left);
    c->phase = IDLE;
    return undefined;
}

/* ---- a stretch ---- */

static void begin(struct soft_cpu *cpu)
{
    struct check *c = cpu->check;

    forget_pages(c);
    forbid_writes(cpu);
    c->begin.st = cpu->st;
    c->begin.cc = cpu->cc;
    c->begin.cpl = cpu->cpl;
    c->stats = cpu->stats;
    memcpy(c->fetch, cpu->fetch, sizeof(c->fetch));
}

/* What waits outside does not cut the second run short; it waits until both are through. */
static uint32_t run_second(struct soft_cpu *cpu, bool singly, uint64_t *trace)
{
    uint32_t held = atomic_exchange(&cpu->pending, 0);
    uint32_t undefined = run_interpreted(cpu, singly, trace);

    atomic_fetch_or(&cpu->pending, held);
    return undefined;
}

static void both_again(struct soft_cpu *cpu, unsigned length, uint64_t *trace, uint32_t *undefined)
{
    struct check *c = cpu->check;
    uint32_t held = atomic_exchange(&cpu->pending, 0);

    put_back(cpu);
    run_translated(cpu, length);
    for (unsigned i = 0; i < c->pages; i++)
        memcpy(c->after + (size_t)i * PAGE_SIZE, host_page(cpu, c->page[i].gpa), PAGE_SIZE);
    put_back(cpu);
    *undefined = run_second(cpu, true, trace);
    atomic_fetch_or(&cpu->pending, held);
}

/* Says what came out differently, for the shortest stretch that shows it, and ends the VM. */
_Noreturn static void report(struct soft_cpu *cpu, const uint64_t *trace, unsigned steps,
                             const struct difference *d)
{
    struct check *c = cpu->check;
    struct log *log = cpu->vm->env.log;

    log_error(log, "translator and interpreter differ after %llu instructions from RIP %#llx: %s",
              (unsigned long long)(c->second.instructions - c->stats.instructions),
              (unsigned long long)c->begin.st.rip, d->text);
    for (unsigned i = 0; i < steps; i++) {
        struct x86_insn in;
        char text[96] = "?";

        if (check_decode(cpu, trace[i], &in) > 0)
            x86_format(&in, trace[i], text, sizeof(text));
        log_error(log, "  %#llx: %s", (unsigned long long)trace[i], text);
    }
    for (unsigned i = 0; i < 16; i++)
        log_error(log, "  %s: before %#llx, translated %#llx, interpreted %#llx", check_gpr[i],
                  (unsigned long long)c->begin.st.gpr[i], (unsigned long long)c->first.st.gpr[i],
                  (unsigned long long)c->second.st.gpr[i]);
    cpu->exit->reason = VCPU_EXIT_FAIL;
    snprintf(
        cpu->exit->text, sizeof(cpu->exit->text),
        "translator and interpreter differ: %.120s; run with --engine soft,interp and report it",
        d->text);
    cpu->exit_wanted = true;
    cpu->fault.type = FAULT_EXIT;
    longjmp(*cpu->env, 1);
}

/*
 * They differ. What comes from outside in the middle of a run (a kick, an interrupt that cuts a
 * string short) does so once; a difference that stays is real.
 */
static void look_closer(struct soft_cpu *cpu, unsigned length, const struct difference *first)
{
    struct difference d;
    uint64_t trace[MOST_STEPS];
    uint32_t undefined;
    unsigned shorter = 1;

    log_trace(cpu->vm->env.log, "check", "from RIP %#llx once: %s",
              (unsigned long long)((struct check *)cpu->check)->begin.st.rip, first->text);
    for (unsigned i = 0; i < RETRIES; i++) {
        both_again(cpu, length, trace, &undefined);
        if (!check_compare(cpu, undefined, &d))
            return;
    }
    for (; shorter < length; shorter += shorter / 2 + 1) {
        both_again(cpu, shorter, trace, &undefined);
        if (check_compare(cpu, undefined, &d))
            break;
    }
    if (shorter >= length) {
        both_again(cpu, length, trace, &undefined);
        (void)check_compare(cpu, undefined, &d);
    }
    {
        struct check *c = cpu->check;
        uint64_t steps = c->second.instructions - c->stats.instructions + (c->second.left ? 1 : 0);

        report(cpu, trace, steps < MOST_STEPS ? (unsigned)steps : MOST_STEPS, &d);
    }
}

bool check_run(struct soft_cpu *cpu)
{
    struct check *c = cpu->check;
    struct difference d;
    uint32_t undefined;

    begin(cpu);
    run_translated(cpu, STRETCH);
    if (c->first.instructions == c->stats.instructions &&
        (!c->first.left || c->first.type == FAULT_CUT)) {
        put_back(cpu);
        return false;
    }
    for (unsigned i = 0; i < c->pages; i++)
        memcpy(c->after + (size_t)i * PAGE_SIZE, host_page(cpu, c->page[i].gpa), PAGE_SIZE);
    put_back(cpu);
    undefined = run_second(cpu, false, NULL);
    if (check_compare(cpu, undefined, &d))
        look_closer(cpu, STRETCH, &d);
    if (c->second.left && c->second.type != FAULT_CUT)
        longjmp(*cpu->env, 1); /* both agree: the fault is delivered */
    return true;
}
