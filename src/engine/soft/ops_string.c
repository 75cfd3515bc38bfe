#include "engine/soft/alu.h"

/*
 * String instructions. A repeated one moves RCX, RSI, RDI after every element (or page-sized
 * chunk), so a fault or an interrupt in the middle finds them exact; it is always a block's last,
 * so that it can be entered again.
 */

enum { STRING_SLICE = 1024 }; /* elements between two looks at pending events */

static void advance(struct soft_cpu *cpu, const struct uop *u, unsigned r, uint64_t bytes)
{
    uint64_t v = cpu->st.gpr[r];

    v = cpu->st.rflags & X86_FL_DF ? v - bytes : v + bytes;
    reg_set(cpu, r, u->asize, v);
}

static uint64_t pointer(const struct soft_cpu *cpu, const struct uop *u, unsigned r)
{
    return cpu->st.gpr[r] & bytes_mask(u->asize);
}

static void one_movs(struct soft_cpu *cpu, const struct uop *u)
{
    unsigned n = u->cc;
    uint64_t v = mem_load(cpu, u->seg, pointer(cpu, u, X86_RSI), n);

    mem_store(cpu, X86_ES, pointer(cpu, u, X86_RDI), n, v);
    advance(cpu, u, X86_RSI, n);
    advance(cpu, u, X86_RDI, n);
}

static void one_stos(struct soft_cpu *cpu, const struct uop *u)
{
    mem_store(cpu, X86_ES, pointer(cpu, u, X86_RDI), u->cc, cpu->st.gpr[X86_RAX]);
    advance(cpu, u, X86_RDI, u->cc);
}

static void one_lods(struct soft_cpu *cpu, const struct uop *u)
{
    reg_set(cpu, X86_RAX, u->cc, mem_load(cpu, u->seg, pointer(cpu, u, X86_RSI), u->cc));
    advance(cpu, u, X86_RSI, u->cc);
}

static void compare(struct soft_cpu *cpu, unsigned n, uint64_t a, uint64_t b)
{
    switch (n) {
    case 1:
        (void)alu_cmp_1(cpu, (uint8_t)a, (uint8_t)b);
        break;
    case 2:
        (void)alu_cmp_2(cpu, (uint16_t)a, (uint16_t)b);
        break;
    case 4:
        (void)alu_cmp_4(cpu, (uint32_t)a, (uint32_t)b);
        break;
    default:
        (void)alu_cmp_8(cpu, a, b);
    }
}

static void one_cmps(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t a = mem_load(cpu, u->seg, pointer(cpu, u, X86_RSI), u->cc);
    uint64_t b = mem_load(cpu, X86_ES, pointer(cpu, u, X86_RDI), u->cc);

    compare(cpu, u->cc, a, b);
    advance(cpu, u, X86_RSI, u->cc);
    advance(cpu, u, X86_RDI, u->cc);
}

static void one_scas(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t b = mem_load(cpu, X86_ES, pointer(cpu, u, X86_RDI), u->cc);

    compare(cpu, u->cc, cpu->st.gpr[X86_RAX], b);
    advance(cpu, u, X86_RDI, u->cc);
}

static void one_ins(struct soft_cpu *cpu, const struct uop *u)
{
    uint16_t port = (uint16_t)cpu->st.gpr[X86_RDX];
    uint64_t ea = pointer(cpu, u, X86_RDI);

    port_check(cpu, port, u->cc);
    soft_probe_write(cpu, X86_ES, ea, u->cc); /* a port read cannot be undone */
    mem_store(cpu, X86_ES, ea, u->cc, port_in(cpu, port, u->cc));
    advance(cpu, u, X86_RDI, u->cc);
}

static void one_outs(struct soft_cpu *cpu, const struct uop *u)
{
    uint16_t port = (uint16_t)cpu->st.gpr[X86_RDX];

    port_check(cpu, port, u->cc);
    port_out(cpu, port, u->cc, (uint32_t)mem_load(cpu, u->seg, pointer(cpu, u, X86_RSI), u->cc));
    advance(cpu, u, X86_RSI, u->cc);
}

static uint8_t *tlb_host(struct soft_cpu *cpu, uint64_t lin, bool write)
{
    const struct tlb_entry *e = &cpu->tlb[(lin >> 12) & (SOFT_TLB_SIZE - 1)];

    if (!tlb_hit(write ? e->wtag : e->rtag, lin, 1))
        return NULL;
    return (uint8_t *)(lin + e->addend);
}

/* The host's own instruction: memset and memcpy would begin by asking what the processor can do. */
static void fill(uint8_t *to, uint64_t count, unsigned n, uint64_t v)
{
    switch (n) {
    case 1:
        __asm__ volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(v) : "memory");
        break;
    case 2:
        __asm__ volatile("rep stosw" : "+D"(to), "+c"(count) : "a"(v) : "memory");
        break;
    case 4:
        __asm__ volatile("rep stosl" : "+D"(to), "+c"(count) : "a"(v) : "memory");
        break;
    default:
        __asm__ volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(v) : "memory");
    }
}

/* Can no offset fault or wrap inside a page? */
static bool whole_chunks(const struct soft_cpu *cpu, const struct uop *u)
{
    unsigned needed = 1u << X86_ES | (u->op == X86_MOVS ? 1u << u->seg : 0);

    if (cpu->long_code)
        return u->asize == 8;
    return u->asize == 4 && (cpu->flat & needed) == needed && cpu->base[X86_ES] == 0 &&
           (u->op != X86_MOVS || (u->seg != X86_CS && cpu->base[u->seg] == 0));
}

/*
 * Elements that MOVS or STOS can do at once: inside one page on either side, forward, both pages in
 * the TLB, no overlap that shows. 0: one by one.
 */
static uint64_t do_chunk(struct soft_cpu *cpu, const struct uop *u, uint64_t count)
{
    unsigned n = u->cc;
    uint64_t dst = cpu->base[X86_ES] + pointer(cpu, u, X86_RDI), src, most, done;
    uint8_t *to, *from;

    if ((cpu->st.rflags & X86_FL_DF) || !whole_chunks(cpu, u))
        return 0;
    to = tlb_host(cpu, dst, true);
    most = min_u64(count, (PAGE_SIZE - (dst & 4095)) / n);
    if (to == NULL || most == 0)
        return 0;
    if (u->op == X86_STOS) {
        uint64_t v = cpu->st.gpr[X86_RAX];

        fill(to, most, n, v);
        reg_set(cpu, X86_RDI, u->asize, cpu->st.gpr[X86_RDI] + most * n);
        return most;
    }
    src = cpu->base[u->seg] + pointer(cpu, u, X86_RSI);
    from = tlb_host(cpu, src, false);
    most = min_u64(most, (PAGE_SIZE - (src & 4095)) / n);
    if (from == NULL || most == 0)
        return 0;
    if (to > from && to < from + most * n)
        return 0; /* a copy that reads what it has just written */
    done = most * n;
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(done) : : "memory");
    reg_set(cpu, X86_RSI, u->asize, cpu->st.gpr[X86_RSI] + most * n);
    reg_set(cpu, X86_RDI, u->asize, cpu->st.gpr[X86_RDI] + most * n);
    return most;
}

static void repeat(struct soft_cpu *cpu, const struct uop *u, uop_fn one)
{
    /* a single step is one element */
    bool block = (u->op == X86_MOVS || u->op == X86_STOS) && !(cpu->st.rflags & X86_FL_TF);
    bool tests = u->op == X86_CMPS || u->op == X86_SCAS;
    uint64_t count = pointer(cpu, u, X86_RCX);
    uint32_t cc = cpu->cc;

    for (unsigned i = 0; count != 0; i++) {
        uint64_t done = block ? do_chunk(cpu, u, count) : 0;

        if (done == 0) {
            if (tests)
                cpu->cc = cc; /* what a fault of REPE CMPS or SCAS leaves */
            one(cpu, u);
            done = 1;
        }
        count -= done;
        reg_set(cpu, X86_RCX, u->asize, count);
        if (tests && ((cpu->cc & CC_ZF) != 0) != (u->rep == 0xf3))
            return;
        if (count == 0)
            return;
        if (cpu->db_hit != 0 || (cpu->st.rflags & X86_FL_TF) || i >= STRING_SLICE ||
            (atomic_load_explicit(&cpu->pending, memory_order_relaxed) & ~SOFT_PENDING_SLOW) != 0 ||
            (cpu->block != NULL && cpu->block->dead))
            break;
    }
    if (count != 0) { /* what comes now finds RF set: the instruction's breakpoint has been seen */
        cpu->next_rip = soft_rip(cpu);
        cpu->st.rflags |= X86_FL_RF;
        soft_set_slow(cpu);
    }
}

#define DEF_STRING(name)                                                                           \
    static void rep_##name(struct soft_cpu *cpu, const struct uop *u)                              \
    {                                                                                              \
        repeat(cpu, u, one_##name);                                                                \
    }
DEF_STRING(movs)
DEF_STRING(stos)
DEF_STRING(lods)
DEF_STRING(cmps)
DEF_STRING(scas)
DEF_STRING(ins)
DEF_STRING(outs)

static const struct {
    uint16_t op;
    uop_fn one, rep;
} string_table[] = {
    {X86_MOVS, one_movs, rep_movs}, {X86_STOS, one_stos, rep_stos}, {X86_LODS, one_lods, rep_lods},
    {X86_CMPS, one_cmps, rep_cmps}, {X86_SCAS, one_scas, rep_scas}, {X86_INS, one_ins, rep_ins},
    {X86_OUTS, one_outs, rep_outs},
};

bool build_string(const struct x86_insn *insn, struct uop *u)
{
    for (size_t i = 0; i < countof(string_table); i++) {
        if (string_table[i].op == insn->op) {
            u->cc = (uint8_t)insn->opnd[0].size;
            u->fn = insn->rep ? string_table[i].rep : string_table[i].one;
            if (insn->rep || insn->op == X86_INS || insn->op == X86_OUTS)
                u->flags |= UOP_END;
            return true;
        }
    }
    return false;
}
