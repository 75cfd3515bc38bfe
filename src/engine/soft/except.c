#include "engine/soft/interp.h"

/*
 * Events through the IDT: interrupts, exceptions, double faults. Intel SDM Vol.3, chapter on
 * interrupt and exception handling.
 */

_Noreturn static void fault_now(struct soft_cpu *cpu)
{
    longjmp(*cpu->env, 1);
}

_Noreturn void soft_raise(struct soft_cpu *cpu, uint8_t vector)
{
    cpu->fault.vector = vector;
    cpu->fault.type = EV_EXCEPTION;
    cpu->fault.has_error = false;
    cpu->fault.error = 0;
    fault_now(cpu);
}

_Noreturn void soft_raise_error(struct soft_cpu *cpu, uint8_t vector, uint32_t error)
{
    cpu->fault.vector = vector;
    cpu->fault.type = EV_EXCEPTION;
    cpu->fault.has_error = true;
    cpu->fault.error = error;
    /* selector errors met while an event from outside is delivered say so; INT n, INT3, INTO not */
    if (cpu->delivering && cpu->delivering_type != EV_SOFT_INT &&
        cpu->delivering_type != EV_SOFT_EXC &&
        (vector == X86_EXC_TS || vector == X86_EXC_NP || vector == X86_EXC_SS ||
         vector == X86_EXC_GP))
        cpu->fault.error |= 1;
    fault_now(cpu);
}

_Noreturn void raise_pf(struct soft_cpu *cpu, uint64_t lin, uint32_t error)
{
    cpu->st.cr2 = lin;
    soft_raise_error(cpu, X86_EXC_PF, error);
}

_Noreturn void raise_db(struct soft_cpu *cpu, uint64_t dr6)
{
    cpu->st.dr6 = (cpu->st.dr6 & ~0xfull) | dr6;
    cpu->st.debugctl &= ~(uint64_t)DEBUGCTL_BTF;
    soft_raise(cpu, X86_EXC_DB);
}

static bool contributory(uint8_t v)
{
    return v == X86_EXC_DE || (v >= X86_EXC_TS && v <= X86_EXC_GP);
}

bool event_escalate(struct soft_cpu *cpu)
{
    uint8_t first = cpu->delivering_vector, second = cpu->fault.vector;
    bool exception = cpu->delivering_type == EV_EXCEPTION;

    if (!cpu->delivering)
        return true;
    if (exception && first == X86_EXC_DF)
        return false;
    if (exception && ((contributory(first) && contributory(second)) ||
                      (first == X86_EXC_PF && (contributory(second) || second == X86_EXC_PF)))) {
        cpu->fault.vector = X86_EXC_DF;
        cpu->fault.has_error = true;
        cpu->fault.error = 0;
    }
    return true;
}

/* RFLAGS as pushed: a fault resumes at the instruction with RF set. */
static uint64_t pushed_flags(const struct soft_cpu *cpu, uint8_t vector, enum event_type type)
{
    uint64_t fl = soft_flags(cpu);

    if (type == EV_EXCEPTION && vector != X86_EXC_DB && vector != X86_EXC_DF)
        fl |= X86_FL_RF;
    return fl;
}

static void clear_shadows(struct soft_cpu *cpu)
{
    cpu->st.sti_shadow = cpu->st.movss_shadow = false;
}

static void deliver_real(struct soft_cpu *cpu, uint8_t vector)
{
    uint32_t entry;

    if (vector * 4u + 3 > cpu->st.idtr.limit)
        soft_raise(cpu, X86_EXC_GP);
    entry = (uint32_t)sys_load(cpu, cpu->st.idtr.base + vector * 4u, 4);
    stack_push(cpu, 2, soft_flags(cpu));
    stack_push(cpu, 2, cpu->st.seg[X86_CS].selector);
    stack_push(cpu, 2, cpu->st.rip);
    seg_load_real(cpu, X86_CS, (uint16_t)(entry >> 16));
    soft_set_flags(cpu,
                   soft_flags(cpu) & ~(uint64_t)(X86_FL_IF | X86_FL_TF | X86_FL_AC | X86_FL_RF));
    soft_mode_changed(cpu);
    cpu->st.rip = entry & 0xffff;
}

struct idt_gate {
    uint16_t sel;
    uint64_t off;
    unsigned type, ist;
};

static void read_idt(struct soft_cpu *cpu, uint8_t vector, enum event_type type, struct idt_gate *g)
{
    unsigned width = in_long_mode(cpu) ? 16 : 8;
    uint32_t code = vector * 8u + 2;
    uint64_t lin = cpu->st.idtr.base + vector * width, v;
    bool soft = type == EV_SOFT_INT || type == EV_SOFT_EXC;

    if (vector * width + width - 1 > cpu->st.idtr.limit)
        soft_raise_error(cpu, X86_EXC_GP, code);
    v = sys_load(cpu, lin, 8);
    g->sel = (uint16_t)(v >> 16);
    g->off = (v & 0xffff) | ((v >> 32) & 0xffff0000u);
    g->type = (v >> 40) & 0x1f;
    g->ist = 0;
    if (in_long_mode(cpu)) {
        g->ist = (v >> 32) & 7;
        g->off |= sys_load(cpu, lin + 8, 8) << 32;
        if (g->type != 14 && g->type != 15)
            soft_raise_error(cpu, X86_EXC_GP, code);
    } else if (g->type != 5 && g->type != 6 && g->type != 7 && g->type != 14 && g->type != 15) {
        soft_raise_error(cpu, X86_EXC_GP, code);
    }
    if (soft && ((v >> 45) & 3) < cpu->cpl)
        soft_raise_error(cpu, X86_EXC_GP, code);
    if (!((v >> 47) & 1))
        soft_raise_error(cpu, X86_EXC_NP, code);
    if (g->type < 8)
        g->off &= 0xffff;
}

/* The handler's code segment and privilege. */
static void handler_code(struct soft_cpu *cpu, const struct idt_gate *g, struct x86_segment *cs,
                         unsigned *cpl)
{
    struct descriptor d;
    uint64_t lin;
    uint32_t err = g->sel & 0xfffcu;
    bool conforming;

    if (err == 0)
        soft_raise_error(cpu, X86_EXC_GP, 0);
    if (!desc_read(cpu, g->sel, &d, &lin) || !(d.hi & 0x1000) || !(d.hi & 0x800))
        soft_raise_error(cpu, X86_EXC_GP, err);
    if (((d.hi >> 13) & 3) > cpu->cpl)
        soft_raise_error(cpu, X86_EXC_GP, err);
    if (in_long_mode(cpu) && (!(d.hi & (1u << 21)) || (d.hi & (1u << 22))))
        soft_raise_error(cpu, X86_EXC_GP, err);
    if (!(d.hi & 0x8000))
        soft_raise_error(cpu, X86_EXC_NP, err);
    conforming = (d.hi & 0x400) != 0;
    *cpl = conforming ? cpu->cpl : (d.hi >> 13) & 3;
    if (in_vm86(cpu) && *cpl != 0)
        soft_raise_error(cpu, X86_EXC_GP, err);
    if (!(d.hi & 0x100))
        sys_store(cpu, lin + 5, 1, ((d.hi >> 8) & 0xff) | 1);
    desc_to_segment(d, g->sel, cs);
    cs->attr |= 1;
}

static void enter_handler(struct soft_cpu *cpu, const struct idt_gate *g, struct x86_segment *cs,
                          unsigned cpl)
{
    uint64_t clear = X86_FL_TF | X86_FL_NT | X86_FL_RF | X86_FL_VM;

    if (!(g->type & 1))
        clear |= X86_FL_IF;
    cs->selector = (uint16_t)((cs->selector & 0xfffc) | cpl);
    cpu->st.seg[X86_CS] = *cs;
    cpu->cpl = cpl;
    soft_set_flags(cpu, soft_flags(cpu) & ~clear);
    soft_mode_changed(cpu);
    cpu->st.rip = g->off;
}

static void deliver_long(struct soft_cpu *cpu, uint8_t vector, enum event_type type, bool has_error,
                         uint32_t error)
{
    uint64_t frame[6], rsp = cpu->st.gpr[X86_RSP];
    struct x86_segment cs;
    struct idt_gate g;
    unsigned cpl, n = 0;

    read_idt(cpu, vector, type, &g);
    handler_code(cpu, &g, &cs, &cpl);
    if (g.ist != 0) {
        unsigned off = 0x24 + 8 * (g.ist - 1);

        if (off + 7 > cpu->st.tr.limit)
            soft_raise_error(cpu, X86_EXC_TS, cpu->st.tr.selector & 0xfffcu);
        rsp = sys_load(cpu, cpu->st.tr.base + off, 8);
    } else if (cpl < cpu->cpl) {
        uint16_t ss;

        tss_stack(cpu, cpl, &ss, &rsp);
    }
    if (!soft_canonical(cpu, rsp))
        soft_raise_error(cpu, X86_EXC_SS, 0);
    if (!soft_canonical(cpu, g.off))
        soft_raise_error(cpu, X86_EXC_GP, 0);
    rsp &= ~15ull;
    frame[n++] = cpu->st.seg[X86_SS].selector;
    frame[n++] = cpu->st.gpr[X86_RSP];
    frame[n++] = pushed_flags(cpu, vector, type);
    frame[n++] = cpu->st.seg[X86_CS].selector;
    frame[n++] = cpu->st.rip;
    if (has_error)
        frame[n++] = error;
    for (unsigned i = 0; i < n; i++) {
        rsp -= 8;
        if (cpl == 3)
            mem_store_lin(cpu, X86_SS, rsp, 8, frame[i]);
        else
            sys_store(cpu, rsp, 8, frame[i]);
    }
    if (cpl < cpu->cpl)
        cpu->st.seg[X86_SS] = (struct x86_segment){.selector = (uint16_t)cpl,
                                                   .attr = X86_SEG_UNUSABLE | 0xc013u | cpl << 5};
    enter_handler(cpu, &g, &cs, cpl);
    cpu->st.gpr[X86_RSP] = rsp;
}

/* Writes a protected-mode frame below sp on a stack segment; returns the new pointer. */
static uint64_t push_frame(struct soft_cpu *cpu, const struct x86_segment *ss, uint64_t sp,
                           unsigned size, const uint64_t *frame, unsigned n, bool inner)
{
    uint64_t mask = ss->attr & X86_SEG_DB ? 0xffffffff : 0xffff;
    bool user = cpu->cpl == 3 && !inner;

    stack_room(cpu, ss, sp, size, n, inner ? ss->selector & 0xfffcu : 0);
    for (unsigned i = 0; i < n; i++) {
        uint64_t lin;

        sp = (sp - size) & mask;
        lin = (uint32_t)(ss->base + sp);
        if (user)
            mem_store_lin(cpu, X86_SS, lin, size, frame[i]);
        else
            sys_store(cpu, lin, size, frame[i]);
    }
    return sp;
}

static void deliver_protected(struct soft_cpu *cpu, uint8_t vector, enum event_type type,
                              bool has_error, uint32_t error)
{
    static const uint8_t vm86_segs[4] = {X86_GS, X86_FS, X86_DS, X86_ES};
    struct x86_segment cs, ss = cpu->st.seg[X86_SS];
    uint64_t frame[10], sp = cpu->st.gpr[X86_RSP], mask;
    unsigned cpl, n = 0, size;
    bool vm86 = in_vm86(cpu), inner;
    struct idt_gate g;

    read_idt(cpu, vector, type, &g);
    if (vm86 && (type == EV_SOFT_INT) && (cpu->st.rflags & X86_FL_IOPL) != X86_FL_IOPL)
        soft_raise_error(cpu, X86_EXC_GP, 0);
    if (g.type == 5) {
        task_event(cpu, g.sel, pushed_flags(cpu, vector, type), has_error, error);
        return;
    }
    handler_code(cpu, &g, &cs, &cpl);
    size = g.type >= 8 ? 4 : 2;
    inner = cpl < cpu->cpl;
    if (inner) {
        struct descriptor d;
        uint64_t lin;
        uint16_t sel;

        tss_stack(cpu, cpl, &sel, &sp);
        if ((sel & 0xfffc) == 0 || (sel & 3u) != cpl || !desc_read(cpu, sel, &d, &lin) ||
            !(d.hi & 0x1000) || ((d.hi >> 8) & 10) != 2 || ((d.hi >> 13) & 3) != cpl)
            soft_raise_error(cpu, X86_EXC_TS, sel & 0xfffcu);
        if (!(d.hi & 0x8000))
            soft_raise_error(cpu, X86_EXC_SS, sel & 0xfffcu);
        desc_mark_accessed(cpu, &d, lin);
        desc_to_segment(d, sel, &ss);
        for (unsigned i = 0; vm86 && i < 4; i++)
            frame[n++] = cpu->st.seg[vm86_segs[i]].selector;
        frame[n++] = cpu->st.seg[X86_SS].selector;
        frame[n++] = cpu->st.gpr[X86_RSP];
    }
    frame[n++] = pushed_flags(cpu, vector, type);
    frame[n++] = cpu->st.seg[X86_CS].selector;
    frame[n++] = cpu->st.rip;
    if (has_error)
        frame[n++] = error;
    if (g.off > cs.limit)
        soft_raise_error(cpu, X86_EXC_GP, 0);
    sp = push_frame(cpu, &ss, sp, size, frame, n, inner);
    if (inner) {
        cpu->st.seg[X86_SS] = ss;
        for (unsigned i = 0; vm86 && i < 4; i++)
            cpu->st.seg[vm86_segs[i]] = (struct x86_segment){.attr = X86_SEG_UNUSABLE};
    }
    enter_handler(cpu, &g, &cs, cpl);
    mask = sp_mask(cpu);
    cpu->st.gpr[X86_RSP] = mask == 0xffff ? (cpu->st.gpr[X86_RSP] & ~mask) | (sp & mask) : sp;
}

void event_deliver(struct soft_cpu *cpu, uint8_t vector, enum event_type type, bool has_error,
                   uint32_t error)
{
    cpu->delivering = true;
    cpu->delivering_vector = vector;
    cpu->delivering_type = (uint8_t)type;
    cpu->deliver_rsp = cpu->st.gpr[X86_RSP];
    log_trace(cpu->vm->env.log, "event", "vector %#x type %u error %#x rip %#llx cr2 %#llx", vector,
              type, error, (unsigned long long)cpu->st.rip, (unsigned long long)cpu->st.cr2);
    if (type == EV_NMI)
        cpu->st.nmi_blocked = true;
    if (!in_protected(cpu))
        deliver_real(cpu, vector);
    else if (in_long_mode(cpu))
        deliver_long(cpu, vector, type, has_error, error);
    else
        deliver_protected(cpu, vector, type, has_error, error);
    clear_shadows(cpu);
    if (type == EV_EXCEPTION && vector == X86_EXC_DB)
        cpu->st.dr7 &= ~(1ull << 13); /* its handler may use the debug registers */
    cpu->delivering = false;
}
