#include "engine/soft/interp.h"

/*
 * Segment registers and far control transfers, by the Intel SDM's checks: Vol.3, chapters on
 * protection and on 64-bit mode; the instructions' own pages in Vol.2.
 */

enum {
    DT_TSS16 = 1,
    DT_LDT = 2,
    DT_TSS16_BUSY = 3,
    DT_CALL16 = 4,
    DT_TASK = 5,
    DT_TSS32 = 9,
    DT_TSS32_BUSY = 11,
    DT_CALL32 = 12
};

static unsigned desc_type(struct descriptor d)
{
    return (d.hi >> 8) & 15;
}

static bool desc_is_system(struct descriptor d)
{
    return !(d.hi & 0x1000);
}

static unsigned desc_dpl(struct descriptor d)
{
    return (d.hi >> 13) & 3;
}

static bool desc_present(struct descriptor d)
{
    return (d.hi & 0x8000) != 0;
}

static _Noreturn void gp_sel(struct soft_cpu *cpu, uint16_t sel)
{
    soft_raise_error(cpu, X86_EXC_GP, sel & 0xfffcu);
}

bool desc_read(struct soft_cpu *cpu, uint16_t sel, struct descriptor *out, uint64_t *lin)
{
    bool ldt = (sel & 4) != 0;
    uint64_t base = ldt ? cpu->st.ldtr.base : cpu->st.gdtr.base;
    uint32_t limit = ldt ? cpu->st.ldtr.limit : cpu->st.gdtr.limit;
    uint64_t v;

    if ((ldt && (cpu->st.ldtr.attr & X86_SEG_UNUSABLE)) || (sel | 7u) > limit)
        return false;
    *lin = base + (sel & 0xfff8u);
    v = sys_load(cpu, *lin, 8);
    out->lo = (uint32_t)v;
    out->hi = (uint32_t)(v >> 32);
    return true;
}

void desc_to_segment(struct descriptor d, uint16_t sel, struct x86_segment *out)
{
    uint32_t limit = (d.lo & 0xffff) | (d.hi & 0xf0000);

    out->selector = sel;
    out->attr = (d.hi >> 8) & 0xf0ff;
    out->base = (d.lo >> 16) | (uint64_t)(d.hi & 0xff) << 16 | (d.hi & 0xff000000u);
    out->limit = d.hi & (1u << 23) ? limit << 12 | 0xfff : limit;
}

void desc_mark_accessed(struct soft_cpu *cpu, struct descriptor *d, uint64_t lin)
{
    if (!(d->hi & 0x100)) {
        d->hi |= 0x100;
        sys_store(cpu, lin + 5, 1, (d->hi >> 8) & 0xff);
    }
}

static void set_base(struct soft_cpu *cpu, unsigned seg)
{
    bool zero = cpu->long_code && seg != X86_FS && seg != X86_GS;

    cpu->base[seg] = zero ? 0 : cpu->st.seg[seg].base;
    soft_set_flat(cpu, seg);
}

static void set_null(struct soft_cpu *cpu, unsigned seg, uint16_t sel)
{
    cpu->st.seg[seg] = (struct x86_segment){
        .selector = sel,
        .attr = X86_SEG_UNUSABLE | (seg == X86_SS ? (cpu->cpl << 5) | 0xc013u : 0),
        .limit = 0,
    };
    set_base(cpu, seg);
    if (seg == X86_SS)
        soft_mode_changed(cpu);
}

void seg_load_real(struct soft_cpu *cpu, unsigned seg, uint16_t sel)
{
    struct x86_segment *s = &cpu->st.seg[seg];

    s->selector = sel;
    s->base = (uint64_t)sel << 4;
    if (in_vm86(cpu)) {
        s->attr = 0xf3;
        s->limit = 0xffff;
    } else if (seg == X86_CS) {
        s->attr = 0x93; /* what real mode's CS can do: read, write, execute */
    } else {
        s->attr &= ~X86_SEG_UNUSABLE;
        if (!(s->attr & X86_SEG_P))
            s->attr = 0x93;
    }
    set_base(cpu, seg);
}

void seg_load(struct soft_cpu *cpu, unsigned seg, uint16_t sel)
{
    unsigned rpl = sel & 3;
    struct x86_segment s;
    struct descriptor d;
    uint64_t lin;

    if (!has_descriptors(cpu)) {
        seg_load_real(cpu, seg, sel);
        return;
    }
    if ((sel & 0xfffc) == 0) {
        if (seg == X86_SS && !(cpu->long_code && cpu->cpl != 3 && rpl == cpu->cpl))
            soft_raise_error(cpu, X86_EXC_GP, 0);
        set_null(cpu, seg, sel);
        return;
    }
    if (!desc_read(cpu, sel, &d, &lin) || desc_is_system(d))
        gp_sel(cpu, sel);
    if (seg == X86_SS) {
        if (rpl != cpu->cpl || desc_dpl(d) != cpu->cpl || (desc_type(d) & 10) != 2)
            gp_sel(cpu, sel);
        if (!desc_present(d))
            soft_raise_error(cpu, X86_EXC_SS, sel & 0xfffcu);
    } else {
        bool code = (desc_type(d) & 8) != 0, conforming = (desc_type(d) & 12) == 12;

        if (code && !(desc_type(d) & 2))
            gp_sel(cpu, sel);
        if (!conforming && (rpl > desc_dpl(d) || cpu->cpl > desc_dpl(d)))
            gp_sel(cpu, sel);
        if (!desc_present(d))
            soft_raise_error(cpu, X86_EXC_NP, sel & 0xfffcu);
    }
    desc_mark_accessed(cpu, &d, lin);
    desc_to_segment(d, sel, &s);
    cpu->st.seg[seg] = s;
    if (seg == X86_SS)
        soft_mode_changed(cpu);
    else
        set_base(cpu, seg);
}

void set_cpl(struct soft_cpu *cpu, unsigned cpl)
{
    cpu->cpl = cpl;
    mmu_update_mode(cpu);
}

void seg_flat_code(struct soft_cpu *cpu, uint16_t sel, unsigned dpl, bool l)
{
    cpu->st.seg[X86_CS] = (struct x86_segment){
        .selector = sel,
        .attr = 0x8000u | (l ? X86_SEG_L : X86_SEG_DB) | 0x9bu | dpl << 5,
        .limit = 0xffffffff,
    };
    cpu->cpl = dpl;
}

void seg_flat_stack(struct soft_cpu *cpu, uint16_t sel, unsigned dpl)
{
    cpu->st.seg[X86_SS] =
        (struct x86_segment){.selector = sel, .attr = 0xc093u | dpl << 5, .limit = 0xffffffff};
}

/* ---- LDTR and TR ---- */

/* A system descriptor of 16 bytes in long mode; 8 otherwise. */
static void load_system(struct soft_cpu *cpu, uint16_t sel, bool tss, struct x86_segment *out,
                        uint64_t *lin)
{
    struct descriptor d;
    unsigned type;

    if ((sel & 4) || !desc_read(cpu, sel, &d, lin) || !desc_is_system(d))
        gp_sel(cpu, sel);
    type = desc_type(d);
    if (tss ? type != DT_TSS32 && (type != DT_TSS16 || in_long_mode(cpu)) : type != DT_LDT)
        gp_sel(cpu, sel);
    if (!desc_present(d))
        soft_raise_error(cpu, X86_EXC_NP, sel & 0xfffcu);
    desc_to_segment(d, sel, out);
    if (in_long_mode(cpu)) {
        uint64_t upper;

        if ((sel | 15u) > cpu->st.gdtr.limit)
            gp_sel(cpu, sel);
        upper = sys_load(cpu, *lin + 8, 8);
        if ((upper >> 40) & 0x1f)
            gp_sel(cpu, sel);
        out->base |= upper << 32;
        if (!soft_canonical_register(cpu, out->base))
            gp_sel(cpu, sel);
    }
}

void seg_lldt(struct soft_cpu *cpu, uint16_t sel)
{
    struct x86_segment s = {.selector = sel, .attr = X86_SEG_UNUSABLE};
    uint64_t lin;

    if ((sel & 0xfffc) != 0)
        load_system(cpu, sel, false, &s, &lin);
    cpu->st.ldtr = s;
}

void seg_ltr(struct soft_cpu *cpu, uint16_t sel)
{
    struct x86_segment s;
    uint64_t lin;

    if ((sel & 0xfffc) == 0)
        soft_raise_error(cpu, X86_EXC_GP, 0);
    load_system(cpu, sel, true, &s, &lin);
    s.attr |= 2; /* busy */
    sys_store(cpu, lin + 5, 1, s.attr & 0xff);
    cpu->st.tr = s;
}

void tss_stack(struct soft_cpu *cpu, unsigned cpl, uint16_t *ss, uint64_t *sp)
{
    const struct x86_segment *tr = &cpu->st.tr;
    unsigned off, need;

    if (in_long_mode(cpu)) {
        off = 4 + 8 * cpl;
        if (off + 7 > tr->limit)
            soft_raise_error(cpu, X86_EXC_TS, tr->selector & 0xfffcu);
        *sp = sys_load(cpu, tr->base + off, 8);
        *ss = (uint16_t)cpl;
        return;
    }
    if ((tr->attr & 15) == DT_TSS32_BUSY) {
        off = 4 + 8 * cpl;
        need = 5;
    } else {
        off = 2 + 4 * cpl;
        need = 3;
    }
    if (off + need > tr->limit)
        soft_raise_error(cpu, X86_EXC_TS, tr->selector & 0xfffcu);
    if (need == 5) {
        *sp = sys_load(cpu, tr->base + off, 4);
        *ss = (uint16_t)sys_load(cpu, tr->base + off + 4, 2);
    } else {
        *sp = sys_load(cpu, tr->base + off, 2);
        *ss = (uint16_t)sys_load(cpu, tr->base + off + 2, 2);
    }
}

/* ---- code segment of a far transfer ---- */

/* Checks CS.limit or canonical form of a target in segment s. */
static void check_target(struct soft_cpu *cpu, const struct x86_segment *s, uint64_t rip)
{
    bool code64 = in_long_mode(cpu) && (s->attr & X86_SEG_L);

    if (code64 ? !soft_canonical(cpu, rip) : rip > s->limit)
        soft_raise_error(cpu, X86_EXC_GP, 0);
}

static void commit_code(struct soft_cpu *cpu, struct x86_segment *s, unsigned cpl, uint64_t rip)
{
    s->selector = (uint16_t)((s->selector & 0xfffc) | cpl);
    cpu->st.seg[X86_CS] = *s;
    cpu->cpl = cpl;
    soft_mode_changed(cpu);
    cpu->next_rip = rip;
}

/* Reads and checks a code descriptor for a jump or call without a gate. */
static void direct_code(struct soft_cpu *cpu, uint16_t sel, struct descriptor *d, uint64_t lin,
                        struct x86_segment *s)
{
    bool conforming = (desc_type(*d) & 4) != 0;

    if (!(desc_type(*d) & 8))
        gp_sel(cpu, sel);
    if (conforming ? desc_dpl(*d) > cpu->cpl : (sel & 3u) > cpu->cpl || desc_dpl(*d) != cpu->cpl)
        gp_sel(cpu, sel);
    if (in_long_mode(cpu) && (d->hi & (1u << 21)) && (d->hi & (1u << 22)))
        gp_sel(cpu, sel);
    if (!desc_present(*d))
        soft_raise_error(cpu, X86_EXC_NP, sel & 0xfffcu);
    desc_mark_accessed(cpu, d, lin);
    desc_to_segment(*d, sel, s);
}

static uint64_t size_mask(unsigned osize)
{
    return bytes_mask(osize);
}

/* Reads a call gate: its target, offset, parameter count; checks privilege and presence. */
struct gate {
    uint16_t sel;
    uint64_t off;
    unsigned size; /* of what is pushed: 2, 4, 8 */
    unsigned params;
};

static void read_gate(struct soft_cpu *cpu, uint16_t sel, struct descriptor d, uint64_t lin,
                      struct gate *g)
{
    unsigned type = desc_type(d);

    if (in_long_mode(cpu) ? type != DT_CALL32 : type != DT_CALL32 && type != DT_CALL16) {
        gp_sel(cpu, sel);
    }
    if (desc_dpl(d) < cpu->cpl || desc_dpl(d) < (sel & 3u))
        gp_sel(cpu, sel);
    if (!desc_present(d))
        soft_raise_error(cpu, X86_EXC_NP, sel & 0xfffcu);
    g->sel = (uint16_t)(d.lo >> 16);
    g->off = (d.lo & 0xffff) | (d.hi & 0xffff0000u);
    g->size = type == DT_CALL16 ? 2 : 4;
    g->params = d.hi & 31;
    if (g->size == 2)
        g->off &= 0xffff;
    if (in_long_mode(cpu)) {
        uint64_t upper = sys_load(cpu, lin + 8, 8);

        if ((upper >> 40) & 0x1f)
            gp_sel(cpu, sel);
        g->off |= upper << 32;
        g->size = 8;
        g->params = 0;
    }
}

/* The gate's code segment; dpl_out: the privilege it runs at. */
static void gate_code(struct soft_cpu *cpu, const struct gate *g, bool call, struct x86_segment *s,
                      unsigned *cpl)
{
    struct descriptor d;
    uint64_t lin;
    bool conforming;

    if ((g->sel & 0xfffc) == 0)
        soft_raise_error(cpu, X86_EXC_GP, 0);
    if (!desc_read(cpu, g->sel, &d, &lin) || desc_is_system(d) || !(desc_type(d) & 8))
        gp_sel(cpu, g->sel);
    conforming = (desc_type(d) & 4) != 0;
    if (desc_dpl(d) > cpu->cpl || (!call && !conforming && desc_dpl(d) != cpu->cpl))
        gp_sel(cpu, g->sel);
    if (in_long_mode(cpu) && (!(d.hi & (1u << 21)) || (d.hi & (1u << 22))))
        gp_sel(cpu, g->sel);
    if (!desc_present(d))
        soft_raise_error(cpu, X86_EXC_NP, g->sel & 0xfffcu);
    desc_mark_accessed(cpu, &d, lin);
    desc_to_segment(d, g->sel, s);
    *cpl = conforming ? cpu->cpl : desc_dpl(d);
}

/* A TSS that is not busy, or a task gate. */
static bool is_task(const struct soft_cpu *cpu, struct descriptor d)
{
    unsigned type = desc_type(d);

    return desc_is_system(d) && !in_long_mode(cpu) &&
           (type == DT_TASK || type == DT_TSS16 || type == DT_TSS32);
}

/* The descriptor of a far branch's target. */
static void read_target(struct soft_cpu *cpu, uint16_t sel, struct descriptor *d, uint64_t *lin)
{
    if ((sel & 0xfffc) == 0)
        soft_raise_error(cpu, X86_EXC_GP, 0);
    if (!desc_read(cpu, sel, d, lin))
        gp_sel(cpu, sel);
}

void far_jump(struct soft_cpu *cpu, uint16_t sel, uint64_t off, unsigned osize)
{
    struct x86_segment s;
    struct descriptor d;
    uint64_t lin;

    off &= size_mask(osize);
    if (!has_descriptors(cpu)) {
        if (off > cpu->st.seg[X86_CS].limit)
            soft_raise_error(cpu, X86_EXC_GP, 0);
        seg_load_real(cpu, X86_CS, sel);
        soft_mode_changed(cpu);
        cpu->next_rip = off;
        return;
    }
    read_target(cpu, sel, &d, &lin);
    if (is_task(cpu, d)) {
        task_jump(cpu, sel, d, false);
        return;
    }
    if (desc_is_system(d)) {
        struct gate g;
        unsigned cpl;

        read_gate(cpu, sel, d, lin, &g);
        gate_code(cpu, &g, false, &s, &cpl);
        check_target(cpu, &s, g.off);
        commit_code(cpu, &s, cpl, g.off);
        return;
    }
    direct_code(cpu, sel, &d, lin, &s);
    check_target(cpu, &s, off);
    commit_code(cpu, &s, cpu->cpl, off);
}

void stack_room(struct soft_cpu *cpu, const struct x86_segment *ss, uint64_t sp, unsigned size,
                unsigned n, uint32_t error)
{
    uint64_t mask = ss->attr & X86_SEG_DB ? 0xffffffff : 0xffff;

    for (unsigned i = 0; i < n; i++) {
        sp = (sp - size) & mask;
        if (ss->attr & 4 ? sp <= ss->limit || sp + size - 1 > mask : sp + size - 1 > ss->limit)
            soft_raise_error(cpu, X86_EXC_SS, error);
    }
}

/* Pushes on a stack that is not current yet. */
struct new_stack {
    struct x86_segment ss;
    uint64_t sp, mask;
};

static void new_push(struct soft_cpu *cpu, struct new_stack *st, unsigned size, uint64_t v)
{
    uint64_t sp = (st->sp - size) & st->mask;

    sys_store(cpu, in_long_mode(cpu) ? sp : (uint32_t)(st->ss.base + sp), size, v);
    st->sp = sp;
}

/* Checks and reads the stack segment for a switch to cpl; #TS with its selector. */
static void new_stack_segment(struct soft_cpu *cpu, uint16_t sel, unsigned cpl,
                              struct x86_segment *out)
{
    struct descriptor d;
    uint64_t lin;

    if ((sel & 0xfffc) == 0 || (sel & 3u) != cpl || !desc_read(cpu, sel, &d, &lin) ||
        desc_is_system(d) || (desc_type(d) & 10) != 2 || desc_dpl(d) != cpl)
        soft_raise_error(cpu, X86_EXC_TS, sel & 0xfffcu);
    if (!desc_present(d))
        soft_raise_error(cpu, X86_EXC_SS, sel & 0xfffcu);
    desc_mark_accessed(cpu, &d, lin);
    desc_to_segment(d, sel, out);
}

static void call_inner(struct soft_cpu *cpu, const struct gate *g, struct x86_segment *s,
                       unsigned cpl)
{
    uint64_t old_sp = cpu->st.gpr[X86_RSP], params[32], sp;
    struct new_stack st;
    uint16_t ss;

    tss_stack(cpu, cpl, &ss, &sp);
    if (in_long_mode(cpu)) {
        st.ss = (struct x86_segment){.selector = (uint16_t)cpl,
                                     .attr = X86_SEG_UNUSABLE | 0xc013u | cpl << 5};
        st.mask = ~0ull;
        if (!soft_canonical(cpu, sp - 1))
            soft_raise_error(cpu, X86_EXC_SS, 0);
    } else {
        new_stack_segment(cpu, ss, cpl, &st.ss);
        st.mask = st.ss.attr & X86_SEG_DB ? 0xffffffff : 0xffff;
    }
    st.sp = sp;
    if (!in_long_mode(cpu))
        stack_room(cpu, &st.ss, sp, g->size, 4 + g->params, st.ss.selector & 0xfffcu);
    for (unsigned i = 0; i < g->params; i++)
        params[i] = stack_peek(cpu, g->size, i * g->size);
    new_push(cpu, &st, g->size, cpu->st.seg[X86_SS].selector);
    new_push(cpu, &st, g->size, old_sp);
    for (unsigned i = g->params; i-- > 0;)
        new_push(cpu, &st, g->size, params[i]);
    new_push(cpu, &st, g->size, cpu->st.seg[X86_CS].selector);
    new_push(cpu, &st, g->size, cpu->next_rip);
    check_target(cpu, s, g->off);
    cpu->st.seg[X86_SS] = st.ss;
    commit_code(cpu, s, cpl, g->off);
    cpu->st.gpr[X86_RSP] = st.mask == 0xffff ? (old_sp & ~0xffffull) | (st.sp & 0xffff) : st.sp;
}

void far_call(struct soft_cpu *cpu, uint16_t sel, uint64_t off, unsigned osize)
{
    uint64_t ret = cpu->next_rip, lin, sp;
    uint16_t old_cs = cpu->st.seg[X86_CS].selector;
    unsigned cpl = cpu->cpl;
    struct x86_segment s;
    struct descriptor d;

    off &= size_mask(osize);
    if (!has_descriptors(cpu)) {
        if (off > cpu->st.seg[X86_CS].limit)
            soft_raise_error(cpu, X86_EXC_GP, 0);
        sp = cpu->st.gpr[X86_RSP];
        mem_store(cpu, X86_SS, (sp - osize) & sp_mask(cpu), osize, old_cs);
        mem_store(cpu, X86_SS, (sp - 2 * osize) & sp_mask(cpu), osize, ret);
        sp_set(cpu, sp - 2 * osize);
        seg_load_real(cpu, X86_CS, sel);
        soft_mode_changed(cpu);
        cpu->next_rip = off;
        return;
    }
    read_target(cpu, sel, &d, &lin);
    if (is_task(cpu, d)) {
        task_jump(cpu, sel, d, true);
        return;
    }
    if (desc_is_system(d)) {
        struct gate g;

        read_gate(cpu, sel, d, lin, &g);
        gate_code(cpu, &g, true, &s, &cpl);
        if (cpl != cpu->cpl) {
            call_inner(cpu, &g, &s, cpl);
            return;
        }
        off = g.off;
        osize = g.size;
    } else {
        direct_code(cpu, sel, &d, lin, &s);
    }
    check_target(cpu, &s, off);
    sp = cpu->st.gpr[X86_RSP];
    mem_store(cpu, X86_SS, (sp - osize) & sp_mask(cpu), osize, old_cs);
    mem_store(cpu, X86_SS, (sp - 2 * osize) & sp_mask(cpu), osize, ret);
    sp_set(cpu, sp - 2 * osize);
    commit_code(cpu, &s, cpl, off);
}

/* On a return to a less privileged level, segments it may not use become null. */
static void drop_segments(struct soft_cpu *cpu)
{
    static const uint8_t data[] = {X86_ES, X86_DS, X86_FS, X86_GS};

    for (unsigned i = 0; i < countof(data); i++) {
        struct x86_segment *s = &cpu->st.seg[data[i]];
        bool conforming = (s->attr & 12) == 12;

        if (!(s->attr & X86_SEG_UNUSABLE) && !conforming && ((s->attr >> 5) & 3) < cpu->cpl) {
            uint64_t base = s->base;

            set_null(cpu, data[i], 0);
            if (in_long_mode(cpu)) {
                s->base = base; /* hidden base stays; only a 64-bit FS or GS can see it */
                set_base(cpu, data[i]);
            }
        }
    }
}

/* The code segment a RETF or IRET goes to. */
static void return_code(struct soft_cpu *cpu, uint16_t sel, struct x86_segment *s)
{
    struct descriptor d;
    uint64_t lin;
    unsigned rpl = sel & 3;

    if ((sel & 0xfffc) == 0)
        soft_raise_error(cpu, X86_EXC_GP, 0);
    if (!desc_read(cpu, sel, &d, &lin) || desc_is_system(d) || !(desc_type(d) & 8) ||
        rpl < cpu->cpl)
        gp_sel(cpu, sel);
    if (desc_type(d) & 4 ? desc_dpl(d) > rpl : desc_dpl(d) != rpl)
        gp_sel(cpu, sel);
    if (in_long_mode(cpu) && (d.hi & (1u << 21)) && (d.hi & (1u << 22)))
        gp_sel(cpu, sel);
    if (!desc_present(d))
        soft_raise_error(cpu, X86_EXC_NP, sel & 0xfffcu);
    desc_mark_accessed(cpu, &d, lin);
    desc_to_segment(d, sel, s);
}

/* The stack segment a RETF or IRET to privilege rpl goes to; code64: a null one is allowed. */
static void return_stack(struct soft_cpu *cpu, uint16_t sel, unsigned rpl, bool code64,
                         struct x86_segment *s)
{
    struct descriptor d;
    uint64_t lin;

    if ((sel & 0xfffc) == 0) {
        if (!code64 || rpl == 3 || (sel & 3u) != rpl)
            soft_raise_error(cpu, X86_EXC_GP, 0);
        *s = (struct x86_segment){.selector = sel, .attr = X86_SEG_UNUSABLE | 0xc013u | rpl << 5};
        return;
    }
    if (!desc_read(cpu, sel, &d, &lin) || (sel & 3u) != rpl || desc_is_system(d) ||
        (desc_type(d) & 10) != 2 || desc_dpl(d) != rpl)
        gp_sel(cpu, sel);
    if (!desc_present(d))
        soft_raise_error(cpu, X86_EXC_SS, sel & 0xfffcu);
    desc_mark_accessed(cpu, &d, lin);
    desc_to_segment(d, sel, s);
}

void far_return(struct soft_cpu *cpu, unsigned osize, unsigned drop)
{
    uint64_t rip = stack_peek(cpu, osize, 0);
    uint16_t cs = (uint16_t)stack_peek(cpu, osize, osize);
    struct x86_segment s, ss;
    unsigned rpl = cs & 3;
    uint64_t sp;
    bool code64;

    if (!has_descriptors(cpu)) {
        if (rip > cpu->st.seg[X86_CS].limit)
            soft_raise_error(cpu, X86_EXC_GP, 0);
        stack_drop(cpu, 2u * osize + drop);
        seg_load_real(cpu, X86_CS, cs);
        soft_mode_changed(cpu);
        cpu->next_rip = rip;
        return;
    }
    return_code(cpu, cs, &s);
    code64 = in_long_mode(cpu) && (s.attr & X86_SEG_L);
    if (rpl == cpu->cpl) {
        check_target(cpu, &s, rip);
        stack_drop(cpu, 2u * osize + drop);
        commit_code(cpu, &s, rpl, rip);
        return;
    }
    sp = stack_peek(cpu, osize, 2u * osize + drop);
    return_stack(cpu, (uint16_t)stack_peek(cpu, osize, 3u * osize + drop), rpl, code64, &ss);
    check_target(cpu, &s, rip);
    cpu->st.seg[X86_SS] = ss;
    commit_code(cpu, &s, rpl, rip);
    sp_set(cpu, sp + drop);
    drop_segments(cpu);
}

/* ---- IRET ---- */

/* Which flags IRET may change, by operand size and privilege. */
static uint64_t iret_flag_mask(const struct soft_cpu *cpu, unsigned osize)
{
    uint64_t mask = X86_FL_ARITH | X86_FL_TF | X86_FL_DF | X86_FL_NT;
    unsigned iopl = (cpu->st.rflags >> 12) & 3;

    if (osize != 2)
        mask |= X86_FL_RF | X86_FL_AC | X86_FL_ID;
    if (cpu->cpl <= iopl)
        mask |= X86_FL_IF;
    if (cpu->cpl == 0) {
        mask |= X86_FL_IOPL;
        if (osize != 2)
            mask |= X86_FL_VIF | X86_FL_VIP;
    }
    return mask;
}

static void iret_real(struct soft_cpu *cpu, unsigned osize)
{
    uint64_t rip = stack_peek(cpu, osize, 0), fl = stack_peek(cpu, osize, 2u * osize);
    uint16_t cs = (uint16_t)stack_peek(cpu, osize, osize);
    uint64_t mask = iret_flag_mask(cpu, osize) & ~(uint64_t)(X86_FL_VIF | X86_FL_VIP);
    bool vme = false;

    if (in_vm86(cpu)) {
        vme = (cpu->st.rflags & X86_FL_IOPL) != X86_FL_IOPL;
        if (vme && (!(cpu->st.cr4 & X86_CR4_VME) || osize != 2))
            soft_raise_error(cpu, X86_EXC_GP, 0);
        mask &= ~(uint64_t)X86_FL_IOPL;
    }
    if (rip > cpu->st.seg[X86_CS].limit)
        soft_raise_error(cpu, X86_EXC_GP, 0);
    if (vme)
        vme_load(cpu, fl);
    stack_drop(cpu, 3u * osize);
    seg_load_real(cpu, X86_CS, cs);
    soft_mode_changed(cpu);
    cpu->next_rip = rip;
    if (!vme)
        soft_set_flags(cpu, (soft_flags(cpu) & ~mask) | (fl & mask));
}

static void iret_to_vm86(struct soft_cpu *cpu, uint64_t rip, uint16_t cs, uint64_t fl)
{
    uint64_t esp = stack_peek(cpu, 4, 12);
    uint16_t sel[5]; /* SS ES DS FS GS */
    static const uint8_t seg[5] = {X86_SS, X86_ES, X86_DS, X86_FS, X86_GS};

    for (unsigned i = 0; i < 5; i++)
        sel[i] = (uint16_t)stack_peek(cpu, 4, 16 + 4 * i);
    if (rip > 0xffff)
        soft_raise_error(cpu, X86_EXC_GP, 0);
    soft_set_flags(cpu, fl | X86_FL_VM);
    cpu->cpl = 3;
    seg_load_real(cpu, X86_CS, cs);
    for (unsigned i = 0; i < 5; i++)
        seg_load_real(cpu, seg[i], sel[i]);
    soft_mode_changed(cpu);
    cpu->st.gpr[X86_RSP] = (uint32_t)esp;
    cpu->next_rip = rip;
}

void soft_iret(struct soft_cpu *cpu, unsigned osize)
{
    uint64_t rip, fl, sp = 0, mask;
    struct x86_segment s, ss;
    unsigned rpl;
    uint16_t cs;
    bool code64, outer;

    cpu->st.nmi_blocked = false;
    if (cpu->st.nmi_pending)
        atomic_fetch_or(&cpu->pending, SOFT_PENDING_NMI);
    if (!has_descriptors(cpu)) {
        iret_real(cpu, osize);
        return;
    }
    if (cpu->st.rflags & X86_FL_NT) {
        if (in_long_mode(cpu))
            soft_raise_error(cpu, X86_EXC_GP, 0);
        task_return(cpu);
        return;
    }
    rip = stack_peek(cpu, osize, 0);
    cs = (uint16_t)stack_peek(cpu, osize, osize);
    fl = stack_peek(cpu, osize, 2u * osize);
    if (osize == 4 && (fl & X86_FL_VM) && cpu->cpl == 0 && !in_long_mode(cpu)) {
        iret_to_vm86(cpu, rip, cs, fl);
        return;
    }
    return_code(cpu, cs, &s);
    rpl = cs & 3;
    code64 = in_long_mode(cpu) && (s.attr & X86_SEG_L);
    outer = rpl != cpu->cpl;
    mask = iret_flag_mask(cpu, osize);
    if (outer || cpu->long_code) {
        sp = stack_peek(cpu, osize, 3u * osize);
        return_stack(cpu, (uint16_t)stack_peek(cpu, osize, 4u * osize), rpl, code64, &ss);
        check_target(cpu, &s, rip);
        cpu->st.seg[X86_SS] = ss;
        commit_code(cpu, &s, rpl, rip);
        if (cpu->long_code)
            cpu->st.gpr[X86_RSP] = sp;
        else
            sp_set(cpu, sp);
        if (outer)
            drop_segments(cpu);
    } else {
        check_target(cpu, &s, rip);
        stack_drop(cpu, 3u * osize);
        commit_code(cpu, &s, rpl, rip);
    }
    soft_set_flags(cpu, (soft_flags(cpu) & ~mask) | (fl & mask));
}
