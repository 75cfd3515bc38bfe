#include "engine/soft/interp.h"

/*
 * Hardware task switches: far JMP and CALL to a TSS or task gate, events through a task gate, IRET
 * from a nested task. Intel SDM Vol.3, chapter on task management.
 *
 * Everything that can fault in the old task's context is looked at first. From then on the new task
 * runs, and what is wrong with its segments is its own exception, at its first instruction.
 */

enum { TSS16_LIMIT = 0x2b, TSS32_LIMIT = 0x67 };
enum { TASK_SEGS = 6 };

/* In the order in which both kinds of TSS hold them; a 16-bit one ends with DS. */
static const uint8_t tss_seg[TASK_SEGS] = {X86_ES, X86_CS, X86_SS, X86_DS, X86_FS, X86_GS};

struct tss_image {
    uint32_t cr3, eip, eflags, gpr[8];
    uint16_t seg[TASK_SEGS], ldt;
    bool trap;
};

/* The available or busy TSS that a selector names. */
struct task {
    uint16_t sel;
    struct x86_segment seg; /* as TR will hold it */
    uint64_t desc;          /* linear address of its descriptor */
    bool wide;              /* a 32-bit TSS */
};

/* Faults now if an access of the processor itself would later. */
static void sys_probe(struct soft_cpu *cpu, uint64_t lin, unsigned len, enum soft_access acc)
{
    enum tlb_mode mode = cpu->st.cr4 & X86_CR4_SMAP ? TLB_KERNEL : TLB_KERNEL_AC;
    uint64_t gpa;

    for (uint64_t page = lin & PAGE_MASK; page <= ((lin + len - 1) & PAGE_MASK); page += PAGE_SIZE)
        mmu_translate(cpu, X86_DS, page < lin ? lin : page, acc, mode, &gpa);
}

static bool is_wide(const struct x86_segment *tr)
{
    return (tr->attr & 8) != 0;
}

static void save_task(struct soft_cpu *cpu, uint32_t eip, uint32_t eflags)
{
    const struct x86_segment *tr = &cpu->st.tr;
    bool wide = is_wide(tr);
    unsigned size = wide ? 4 : 2, step = wide ? 4 : 2, count = wide ? 6 : 4;
    uint64_t at = tr->base + (wide ? 0x20 : 0x0e);

    sys_store(cpu, at, size, eip);
    sys_store(cpu, at + step, size, eflags);
    at += 2 * step;
    for (unsigned i = 0; i < 8; i++, at += step)
        sys_store(cpu, at, size, cpu->st.gpr[i]);
    for (unsigned i = 0; i < count; i++, at += step)
        sys_store(cpu, at, 2, cpu->st.seg[tss_seg[i]].selector);
}

static void read_task(struct soft_cpu *cpu, const struct task *t, struct tss_image *im)
{
    unsigned size = t->wide ? 4 : 2, step = size, count = t->wide ? 6 : 4;
    uint64_t at = t->seg.base + (t->wide ? 0x20 : 0x0e);

    memset(im, 0, sizeof(*im));
    if (t->wide)
        im->cr3 = (uint32_t)sys_load(cpu, t->seg.base + 0x1c, 4);
    im->eip = (uint32_t)sys_load(cpu, at, size);
    im->eflags = (uint32_t)sys_load(cpu, at + step, size);
    at += 2 * step;
    for (unsigned i = 0; i < 8; i++, at += step)
        im->gpr[i] = (uint32_t)sys_load(cpu, at, size) | (t->wide ? 0 : 0xffff0000u);
    for (unsigned i = 0; i < count; i++, at += step)
        im->seg[i] = (uint16_t)sys_load(cpu, at, 2);
    im->ldt = (uint16_t)sys_load(cpu, at, 2);
    if (t->wide)
        im->trap = sys_load(cpu, at + 4, 2) & 1;
}

/* A task's segment whose descriptor is refused: the new task's own #TS. */
static _Noreturn void bad_segment(struct soft_cpu *cpu, uint16_t sel)
{
    soft_raise_error(cpu, X86_EXC_TS, sel & 0xfffcu);
}

static void load_ldt(struct soft_cpu *cpu, uint16_t sel)
{
    struct descriptor d;
    uint64_t lin;

    cpu->st.ldtr = (struct x86_segment){.selector = sel, .attr = X86_SEG_UNUSABLE};
    if ((sel & 0xfffc) == 0)
        return;
    if ((sel & 4) || !desc_read(cpu, sel, &d, &lin) || (d.hi & 0x1f00) != 0x0200 ||
        !(d.hi & 0x8000))
        bad_segment(cpu, sel);
    desc_to_segment(d, sel, &cpu->st.ldtr);
}

static void load_code(struct soft_cpu *cpu, uint16_t sel)
{
    struct descriptor d;
    uint64_t lin;
    unsigned rpl = sel & 3, dpl;

    if ((sel & 0xfffc) == 0 || !desc_read(cpu, sel, &d, &lin) || (d.hi & 0x1800) != 0x1800)
        bad_segment(cpu, sel);
    dpl = (d.hi >> 13) & 3;
    if (d.hi & 0x400 ? dpl > rpl : dpl != rpl)
        bad_segment(cpu, sel);
    if (!(d.hi & 0x8000))
        soft_raise_error(cpu, X86_EXC_NP, sel & 0xfffcu);
    desc_mark_accessed(cpu, &d, lin);
    desc_to_segment(d, sel, &cpu->st.seg[X86_CS]);
    soft_mode_changed(cpu);
}

static void load_stack(struct soft_cpu *cpu, uint16_t sel)
{
    struct descriptor d;
    uint64_t lin;

    if ((sel & 0xfffc) == 0 || !desc_read(cpu, sel, &d, &lin) || (d.hi & 0x1a00) != 0x1200 ||
        ((d.hi >> 13) & 3) != cpu->cpl || (sel & 3u) != cpu->cpl)
        bad_segment(cpu, sel);
    if (!(d.hi & 0x8000))
        soft_raise_error(cpu, X86_EXC_SS, sel & 0xfffcu);
    desc_mark_accessed(cpu, &d, lin);
    desc_to_segment(d, sel, &cpu->st.seg[X86_SS]);
    soft_mode_changed(cpu);
}

static void load_data(struct soft_cpu *cpu, unsigned seg, uint16_t sel)
{
    struct descriptor d;
    bool conforming;
    unsigned dpl;
    uint64_t lin;

    if ((sel & 0xfffc) == 0)
        return;
    if (!desc_read(cpu, sel, &d, &lin) || !(d.hi & 0x1000) || (d.hi & 0x0a00) == 0x0800)
        bad_segment(cpu, sel); /* not there, a system segment, or code that cannot be read */
    conforming = (d.hi & 0x0c00) == 0x0c00;
    dpl = (d.hi >> 13) & 3;
    if (!conforming && (dpl < cpu->cpl || dpl < (sel & 3u)))
        bad_segment(cpu, sel);
    if (!(d.hi & 0x8000))
        soft_raise_error(cpu, X86_EXC_NP, sel & 0xfffcu);
    desc_mark_accessed(cpu, &d, lin);
    desc_to_segment(d, sel, &cpu->st.seg[seg]);
    soft_mode_changed(cpu);
}

/* From here on faults belong to the new task: RIP is its own, nothing of the old one comes back. */
static void enter_task(struct soft_cpu *cpu, const struct tss_image *im)
{
    bool vm86 = (im->eflags & X86_FL_VM) != 0;

    if (cpu->insn == INSN_RUNS)
        cpu->insn = INSN_SWITCHED;
    cpu->st.rip = cpu->next_rip = im->eip;
    for (unsigned i = 0; i < 8; i++)
        cpu->st.gpr[i] = im->gpr[i];
    cpu->deliver_rsp = im->gpr[X86_RSP];
    for (unsigned i = 0; i < TASK_SEGS; i++)
        cpu->st.seg[tss_seg[i]] =
            (struct x86_segment){.selector = im->seg[i], .attr = X86_SEG_UNUSABLE};
    cpu->st.ldtr = (struct x86_segment){.selector = im->ldt, .attr = X86_SEG_UNUSABLE};
    cpu->cpl = vm86 ? 3 : im->seg[1] & 3u;
    cpu->st.cr0 |= X86_CR0_TS;
    cpu->st.dr7 &= ~0x155ull; /* breakpoints that are local to a task, and LE */
    soft_set_flags(cpu, im->eflags);
    soft_mode_changed(cpu);
    if (cpu->st.cr0 & X86_CR0_PG)
        cr_write(cpu, 3, im->cr3);
    load_ldt(cpu, im->ldt);
    if (vm86) {
        for (unsigned i = 0; i < TASK_SEGS; i++)
            seg_load_real(cpu, tss_seg[i], im->seg[i]);
        soft_mode_changed(cpu);
        return;
    }
    load_code(cpu, im->seg[1]);
    load_stack(cpu, im->seg[2]);
    for (unsigned i = 0; i < TASK_SEGS; i++) {
        if (tss_seg[i] != X86_CS && tss_seg[i] != X86_SS)
            load_data(cpu, tss_seg[i], im->seg[i]);
    }
}

static void set_busy(struct soft_cpu *cpu, uint64_t desc, bool busy)
{
    uint8_t type = (uint8_t)sys_load(cpu, desc + 5, 1);

    sys_store(cpu, desc + 5, 1, busy ? type | 2u : type & ~2u);
}

static void switch_to(struct soft_cpu *cpu, const struct task *t, enum task_cause why, uint32_t eip,
                      uint32_t eflags)
{
    const struct x86_segment old = cpu->st.tr;
    bool nest = why == TASK_CALL || why == TASK_EVENT;
    uint64_t old_desc = cpu->st.gdtr.base + (old.selector & 0xfff8u);
    unsigned save_at = is_wide(&old) ? 0x20 : 0x0e;
    struct tss_image im;

    if (t->seg.limit < (t->wide ? TSS32_LIMIT : TSS16_LIMIT))
        soft_raise_error(cpu, X86_EXC_TS, t->sel & 0xfffcu);
    read_task(cpu, t, &im);
    sys_probe(cpu, old.base + save_at, (is_wide(&old) ? 0x60 : 0x2a) - save_at, ACC_WRITE);
    if (nest)
        sys_probe(cpu, t->seg.base, 2, ACC_WRITE);
    if (why != TASK_IRET)
        sys_probe(cpu, t->desc, 8, ACC_WRITE);
    if (!nest)
        sys_probe(cpu, old_desc, 8, ACC_WRITE);

    if (!nest)
        set_busy(cpu, old_desc, false);
    if (why == TASK_IRET)
        eflags &= ~X86_FL_NT;
    save_task(cpu, eip, eflags);
    if (nest) {
        sys_store(cpu, t->seg.base, 2, old.selector);
        im.eflags |= X86_FL_NT;
    }
    if (why != TASK_IRET)
        set_busy(cpu, t->desc, true);
    cpu->st.tr = t->seg;
    cpu->st.tr.attr |= 2;
    enter_task(cpu, &im);
    if (im.trap) {
        cpu->db_hit |= 1u << 15;
        soft_set_slow(cpu);
    }
}

/* A TSS selector from a gate or a back link. bad: the exception for one that names no such TSS. */
static void find_task(struct soft_cpu *cpu, uint16_t sel, bool busy, uint8_t bad, struct task *t)
{
    struct descriptor d;
    unsigned type;

    if ((sel & 4) || !desc_read(cpu, sel, &d, &t->desc) || (sel & 0xfffc) == 0)
        soft_raise_error(cpu, bad, sel & 0xfffcu);
    type = (d.hi >> 8) & 0x1f;
    if ((type & ~8u) != (busy ? 3u : 1u))
        soft_raise_error(cpu, bad, sel & 0xfffcu);
    if (!(d.hi & 0x8000))
        soft_raise_error(cpu, X86_EXC_NP, sel & 0xfffcu);
    desc_to_segment(d, sel, &t->seg);
    t->sel = sel;
    t->wide = (type & 8) != 0;
}

void task_jump(struct soft_cpu *cpu, uint16_t sel, struct descriptor d, bool call)
{
    struct task t;

    if (((d.hi >> 13) & 3) < cpu->cpl || ((d.hi >> 13) & 3) < (sel & 3u))
        soft_raise_error(cpu, X86_EXC_GP, sel & 0xfffcu);
    if (((d.hi >> 8) & 15) == 5) { /* a gate: its DPL counts, the TSS's does not */
        if (!(d.hi & 0x8000))
            soft_raise_error(cpu, X86_EXC_NP, sel & 0xfffcu);
        sel = (uint16_t)(d.lo >> 16);
    }
    find_task(cpu, sel, false, X86_EXC_GP, &t);
    switch_to(cpu, &t, call ? TASK_CALL : TASK_JUMP, (uint32_t)cpu->next_rip,
              (uint32_t)soft_flags(cpu));
}

void task_return(struct soft_cpu *cpu)
{
    struct task t;
    uint16_t link = (uint16_t)sys_load(cpu, cpu->st.tr.base, 2);

    find_task(cpu, link, true, X86_EXC_TS, &t);
    switch_to(cpu, &t, TASK_IRET, (uint32_t)cpu->next_rip, (uint32_t)soft_flags(cpu));
}

void task_event(struct soft_cpu *cpu, uint16_t sel, uint64_t flags, bool has_error, uint32_t error)
{
    struct task t;

    find_task(cpu, sel, false, X86_EXC_GP, &t);
    switch_to(cpu, &t, TASK_EVENT, (uint32_t)cpu->st.rip, (uint32_t)flags);
    if (has_error)
        stack_push(cpu, t.wide ? 4 : 2, error);
}
