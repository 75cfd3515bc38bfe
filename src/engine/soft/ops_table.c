#include "engine/soft/interp.h"

/* Instructions on descriptor tables and descriptors: SGDT ... LTR, SMSW, LMSW, ARPL, LAR ... VERW.
 */

static void op_store_table(struct soft_cpu *cpu, const struct uop *u)
{
    const struct x86_dtable *t = u->op == X86_SGDT ? &cpu->st.gdtr : &cpu->st.idtr;
    unsigned base_size = cpu->long_code ? 8 : 4;
    uint64_t ea = soft_ea(cpu, u);

    if ((cpu->st.cr4 & X86_CR4_UMIP) && cpu->cpl != 0)
        soft_raise_error(cpu, X86_EXC_GP, 0);
    soft_probe_write(cpu, u->seg, ea, 2 + base_size);
    mem_store(cpu, u->seg, ea, 2, t->limit);
    mem_store(cpu, u->seg, ea + 2, base_size, t->base);
}

static void op_load_table(struct soft_cpu *cpu, const struct uop *u)
{
    struct x86_dtable *t = u->op == X86_LGDT ? &cpu->st.gdtr : &cpu->st.idtr;
    uint64_t ea = soft_ea(cpu, u), base;
    uint16_t limit;

    need_cpl0(cpu);
    limit = (uint16_t)mem_load(cpu, u->seg, ea, 2);
    base = mem_load(cpu, u->seg, ea + 2, cpu->long_code ? 8 : 4);
    if (u->osize == 2 && !cpu->long_code)
        base &= 0xffffff;
    if (cpu->long_code && !soft_canonical_register(cpu, base))
        soft_raise_error(cpu, X86_EXC_GP, 0);
    t->limit = limit;
    t->base = base;
}

/* SLDT, STR, SMSW: 16 bits to memory, the operand size to a register */
static void store_word(struct soft_cpu *cpu, const struct uop *u, uint64_t v)
{
    if ((cpu->st.cr4 & X86_CR4_UMIP) && cpu->cpl != 0)
        soft_raise_error(cpu, X86_EXC_GP, 0);
    if (u->flags & UOP_REG)
        reg_set(cpu, u->dst, u->osize, v);
    else
        mem_store(cpu, u->seg, soft_ea(cpu, u), 2, v);
}

static void op_sldt(struct soft_cpu *cpu, const struct uop *u)
{
    need_descriptors(cpu);
    store_word(cpu, u, cpu->st.ldtr.selector);
}

static void op_str(struct soft_cpu *cpu, const struct uop *u)
{
    need_descriptors(cpu);
    store_word(cpu, u, cpu->st.tr.selector);
}

static void op_smsw(struct soft_cpu *cpu, const struct uop *u)
{
    store_word(cpu, u, cpu->st.cr0);
}

static void op_lldt(struct soft_cpu *cpu, const struct uop *u)
{
    need_descriptors(cpu);
    need_cpl0(cpu);
    seg_lldt(cpu, (uint16_t)rm_load(cpu, u, 2));
}

static void op_ltr(struct soft_cpu *cpu, const struct uop *u)
{
    need_descriptors(cpu);
    need_cpl0(cpu);
    seg_ltr(cpu, (uint16_t)rm_load(cpu, u, 2));
}

static void op_lmsw(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t v;

    need_cpl0(cpu);
    v = rm_load(cpu, u, 2) & 0xf;
    v |= cpu->st.cr0 & X86_CR0_PE; /* LMSW cannot clear PE */
    cr_write(cpu, 0, (cpu->st.cr0 & ~0xfull) | v);
}

static void op_arpl(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t d, s;

    need_descriptors(cpu);
    d = rm_load(cpu, u, 2);
    s = reg_get(cpu, u->src, 2);
    if ((d & 3) < (s & 3)) {
        rm_store(cpu, u, 2, (d & ~3ull) | (s & 3));
        cpu->cc |= CC_ZF;
    } else {
        cpu->cc &= ~CC_ZF;
    }
}

/* May this selector be used by LAR, LSL, VERR, VERW? Fills d. */
static bool probe_selector(struct soft_cpu *cpu, uint16_t sel, struct descriptor *d)
{
    uint64_t lin;
    bool conforming;
    unsigned dpl;

    if ((sel & 0xfffc) == 0 || !desc_read(cpu, sel, d, &lin))
        return false;
    conforming = (d->hi & 0x1c00) == 0x1c00;
    dpl = (d->hi >> 13) & 3;
    return conforming || (dpl >= cpu->cpl && dpl >= (sel & 3u));
}

/* System descriptor types that LAR and LSL accept. */
static bool system_type_ok(const struct soft_cpu *cpu, unsigned type, bool lsl)
{
    unsigned legacy = lsl ? 0x0a0e : 0x1a3e; /* bit n: type n */

    if (in_long_mode(cpu))
        legacy = lsl ? 0x0a04 : 0x1a04;
    return (legacy >> type) & 1;
}

static void op_lar_lsl(struct soft_cpu *cpu, const struct uop *u)
{
    bool lsl = u->op == X86_LSL, ok;
    struct descriptor d;
    uint16_t sel;

    need_descriptors(cpu);
    sel = (uint16_t)(u->flags & UOP_REG ? cpu->st.gpr[u->src]
                                        : mem_load(cpu, u->seg, soft_ea(cpu, u), 2));
    ok = probe_selector(cpu, sel, &d);
    if (ok && !(d.hi & 0x1000))
        ok = system_type_ok(cpu, (d.hi >> 8) & 15, lsl);
    cpu->cc = (cpu->cc & ~CC_ZF) | (ok ? CC_ZF : 0);
    if (!ok)
        return;
    if (lsl) {
        struct x86_segment s;

        desc_to_segment(d, sel, &s);
        reg_set(cpu, u->dst, u->osize, s.limit);
    } else {
        reg_set(cpu, u->dst, u->osize, d.hi & 0x00ffff00);
    }
}

static void op_verr_verw(struct soft_cpu *cpu, const struct uop *u)
{
    struct descriptor d;
    bool ok;

    need_descriptors(cpu);
    ok = probe_selector(cpu, (uint16_t)rm_load(cpu, u, 2), &d) && (d.hi & 0x1000);
    if (ok && u->op == X86_VERW)
        ok = !(d.hi & 0x800) && (d.hi & 0x200);
    else if (ok)
        ok = !(d.hi & 0x800) || (d.hi & 0x200);
    cpu->cc = (cpu->cc & ~CC_ZF) | (ok ? CC_ZF : 0);
}

static const struct {
    uint16_t op;
    uint8_t flags;
    uop_fn fn;
} table[] = {
    {X86_SGDT, 0, op_store_table}, {X86_SIDT, 0, op_store_table}, {X86_LGDT, 0, op_load_table},
    {X86_LIDT, 0, op_load_table},  {X86_SLDT, 0, op_sldt},        {X86_STR, 0, op_str},
    {X86_SMSW, 0, op_smsw},        {X86_LLDT, 0, op_lldt},        {X86_LTR, 0, op_ltr},
    {X86_LMSW, UOP_END, op_lmsw},  {X86_ARPL, 0, op_arpl},        {X86_LAR, 0, op_lar_lsl},
    {X86_LSL, 0, op_lar_lsl},      {X86_VERR, 0, op_verr_verw},   {X86_VERW, 0, op_verr_verw},
};

bool build_table(const struct x86_insn *insn, struct uop *u)
{
    for (size_t i = 0; i < countof(table); i++) {
        if (table[i].op == insn->op) {
            u->fn = table[i].fn;
            u->flags |= table[i].flags;
            return true;
        }
    }
    return false;
}
