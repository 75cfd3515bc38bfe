/*
 * Cases in the soft engine: a VM in 64-bit mode whose page tables give user code the child's
 * addresses. Every exception ends at a HLT in supervisor space: its address is the vector, the
 * frame on the stack tells where it came from.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "bus/bus.h"
#include "bus/irq.h"
#include "engine/engine.h"
#include "mem/gmem.h"
#include "oracle.h"
#include "x86/state.h"

extern const struct engine_ops engine_soft;

/* guest-physical */
#define G_PML4 0x1000ull
#define G_PDPT 0x2000ull
#define G_PD0 0x3000ull
#define G_PD1 0x4000ull
#define G_PDPT1 0x7000ull
#define G_PT_DATA 0x5000ull
#define G_PT_SYS 0x6000ull
#define G_SYS 0x8000ull /* handlers, tables, stack: 4 pages */
#define G_DATA 0x10000ull
#define G_RO 0x12000ull
#define G_PROG 0x14000ull
#define G_CODE 0x1000000ull
#define G_SIZE 0x2000000ull

/* linear, supervisor only */
#define L_SYS 0xffffff8000000000ull
#define L_HANDLERS L_SYS
#define L_GDT (L_SYS + 0x1000)
#define L_TSS (L_SYS + 0x1100)
#define L_IDT (L_SYS + 0x2000)
#define L_STACK (L_SYS + 0x4000)

#define PTE_P 1ull
#define PTE_W 2ull
#define PTE_U 4ull
#define PTE_AD 0x60ull
#define PTE_PS 0x80ull
#define PTE_NX (1ull << 63)

#define BUDGET 1000u
#define BUDGET_PROGRAM 3000000u /* a change may have made a long loop */
#define TRACE_MAX 500000u

struct oracle_soft {
    struct x86_cpuid cpuid;
    struct engine_env env;
    struct x86_state base, state;
    void *vm, *vcpu;
};

static void put64(struct oracle_soft *s, uint64_t gpa, uint64_t v)
{
    if (gmem_write(s->env.mem, gpa, &v, sizeof(v)) < 0)
        abort();
}

static uint64_t sys_gpa(uint64_t lin)
{
    return G_SYS + (lin - L_SYS);
}

static void make_tables(struct oracle_soft *s)
{
    uint64_t table = PTE_P | PTE_W | PTE_U | PTE_AD, i;

    put64(s, G_PML4, G_PDPT | table);
    put64(s, G_PDPT, G_PD0 | table);
    put64(s, G_PML4 + 8 * 511, G_PDPT1 | table);
    put64(s, G_PDPT1, G_PD1 | table);
    for (i = 0; i < ORACLE_CODE_SIZE >> 21; i++)
        put64(s, G_PD0 + 8 * ((ORACLE_CODE >> 21) + i),
              (G_CODE + (i << 21)) | PTE_P | PTE_U | PTE_AD | PTE_PS);
    put64(s, G_PD0 + 8 * (ORACLE_DATA >> 21), G_PT_DATA | table);
    put64(s, G_PT_DATA, G_DATA | table | PTE_NX);
    put64(s, G_PT_DATA + 8, (G_DATA + 0x1000) | table | PTE_NX);
    put64(s, G_PT_DATA + 24, G_RO | PTE_P | PTE_U | PTE_AD | PTE_NX);
    for (i = 0; i < ORACLE_PROG_SIZE >> 12; i++)
        put64(s, G_PT_DATA + 8 * (((ORACLE_PROG - ORACLE_DATA) >> 12) + i),
              (G_PROG + (i << 12)) | table);
    put64(s, G_PD1, G_PT_SYS | table);
    for (i = 0; i < 4; i++)
        put64(s, G_PT_SYS + 8 * i, (G_SYS + (i << 12)) | PTE_P | PTE_W | PTE_AD);
}

static void make_descriptors(struct oracle_soft *s)
{
    unsigned v;

    put64(s, sys_gpa(L_GDT) + 0x08, 0x00af9b000000ffffull); /* kernel code */
    put64(s, sys_gpa(L_GDT) + 0x10, 0x00cf93000000ffffull);
    put64(s, sys_gpa(L_GDT) + 0x20, 0x00cffb000000ffffull);
    put64(s, sys_gpa(L_GDT) + 0x28, 0x00cff3000000ffffull);
    put64(s, sys_gpa(L_GDT) + 0x30, 0x00affb000000ffffull);
    put64(s, sys_gpa(L_TSS) + 4, L_STACK);
    put64(s, sys_gpa(L_TSS) + 0x60, 0xffffull << 48); /* no ports for users */
    for (v = 0; v < 32; v++) {
        uint64_t handler = L_HANDLERS + 16ull * v, dpl = v == 3 || v == 4 ? 3 : 0;

        gmem_fill(s->env.mem, sys_gpa(handler), 0xf4, 16);
        put64(s, sys_gpa(L_IDT) + 16 * v,
              (handler & 0xffff) | 0x08ull << 16 | (0x8e00ull | dpl << 13) << 32 |
                  (handler >> 16 & 0xffff) << 48);
        put64(s, sys_gpa(L_IDT) + 16 * v + 8, handler >> 32);
    }
}

static void make_state(struct x86_state *st)
{
    unsigned i;

    memset(st, 0, sizeof(*st));
    st->cr0 =
        X86_CR0_PE | X86_CR0_MP | X86_CR0_ET | X86_CR0_NE | X86_CR0_WP | X86_CR0_AM | X86_CR0_PG;
    st->cr3 = G_PML4;
    st->cr4 = X86_CR4_PAE | X86_CR4_PGE | X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE |
              X86_CR4_FSGSBASE;
    st->efer = X86_EFER_SCE | X86_EFER_LME | X86_EFER_LMA | X86_EFER_NXE;
    st->xcr0 = 7;
    st->dr6 = 0xffff0ff0;
    st->dr7 = 0x400;
    for (i = 0; i < X86_SEG_COUNT; i++)
        st->seg[i].attr = X86_SEG_UNUSABLE;
    st->seg[X86_CS] =
        (struct x86_segment){.selector = ORACLE_CS64, .attr = 0xa0fb, .limit = UINT32_MAX};
    st->seg[X86_DS] = st->seg[X86_ES] = st->seg[X86_SS] =
        (struct x86_segment){.selector = ORACLE_SS, .attr = 0xc0f3, .limit = UINT32_MAX};
    st->ldtr.attr = X86_SEG_UNUSABLE;
    st->tr = (struct x86_segment){.selector = 0x40, .attr = 0x8b, .limit = 0x67, .base = L_TSS};
    st->gdtr = (struct x86_dtable){.base = L_GDT, .limit = 0x3f};
    st->idtr = (struct x86_dtable){.base = L_IDT, .limit = 0x1ff};
    st->pat = 0x0007040600070406ull;
    st->mp_state = X86_MP_RUNNING;
}

struct oracle_soft *oracle_soft_open(const bool feature[X86_FEAT_HIDDEN + 1], bool interpret)
{
    struct oracle_soft *s = calloc(1, sizeof(*s));
    struct error err = {0};

    if (s == NULL)
        return NULL;
    memcpy(s->cpuid.feature, feature, sizeof(s->cpuid.feature));
    s->cpuid.phys_bits = 40;
    s->cpuid.lin_bits = 48;
    s->cpuid.tsc_hz = NSEC_PER_SEC;
    s->cpuid.xcr0_mask = 7;
    s->cpuid.xsave_at[2] = X86_XSAVE_YMM;
    s->cpuid.mxcsr_mask = 0xffff;
    s->cpuid.cr4_mask = UINT64_MAX;
    s->cpuid.efer_mask = UINT64_MAX;
    s->env.cpuid = &s->cpuid;
    s->env.cpus = 1;
    s->env.interpret = interpret;
    s->env.log = log_create(2, LOG_WARN);
    s->env.mem = gmem_create(G_SIZE, &err);
    s->env.bus = bus_create(s->env.log);
    s->env.irqs = irq_router_create(s->env.log);
    if (s->env.mem == NULL || engine_soft.vm_create(&s->env, &s->vm, &err) < 0 ||
        engine_soft.vcpu_create(s->vm, 0, &s->vcpu, &err) < 0) {
        fprintf(stderr, "oracle: %s\n", err.text);
        return NULL;
    }
    make_tables(s);
    make_descriptors(s);
    make_state(&s->base);
    return s;
}

bool oracle_soft_interprets(const struct oracle_soft *s)
{
    return s->env.interpret;
}

const bool *oracle_soft_features(const struct oracle_soft *s)
{
    return s->cpuid.feature;
}

void oracle_soft_close(struct oracle_soft *s)
{
    engine_soft.vcpu_destroy(s->vcpu);
    engine_soft.vm_destroy(s->vm);
    irq_router_destroy(s->env.irqs);
    bus_destroy(s->env.bus);
    gmem_destroy(s->env.mem);
    log_destroy(s->env.log);
    free(s);
}

/* Cases can read each other's code, so all of a batch is there from the start. */
void oracle_soft_load(struct oracle_soft *s, const struct oracle_case *c, unsigned n)
{
    uint8_t code[ORACLE_SLOT];
    unsigned i;

    for (i = 0; i < n; i++) {
        if (c[i].program)
            continue;
        memset(code, 0xcc, sizeof(code));
        memcpy(code + (c[i].addr - c[i].slot), c[i].code, c[i].len);
        gmem_write(s->env.mem, G_CODE + (c[i].slot - ORACLE_CODE), code, sizeof(code));
    }
}

static void load(struct oracle_soft *s, const struct oracle_case *c)
{
    uint64_t features = 7;

    gmem_fill(s->env.mem, G_DATA, 0, ORACLE_DATA_SIZE);
    gmem_write(s->env.mem, G_DATA + ORACLE_WINDOW, c->window, ORACLE_WINDOW_SIZE);
    gmem_write(s->env.mem, G_PROG, c->prog, ORACLE_PROG_SIZE);
    s->state = s->base;
    if (c->compat) {
        s->state.seg[X86_CS].selector = ORACLE_CS32;
        s->state.seg[X86_CS].attr = 0xc0fb;
    }
    if (c->small) {
        s->state.seg[X86_CS] =
            (struct x86_segment){.selector = c->program ? ORACLE_CSP16 : ORACLE_CS16,
                                 .attr = 0x00fb,
                                 .limit = 0xffff,
                                 .base = c->cs_base};
        s->state.seg[X86_DS] = (struct x86_segment){
            .selector = ORACLE_DS16, .attr = 0x00f3, .limit = 0xffff, .base = c->ds_base};
        s->state.seg[X86_ES] = s->state.seg[X86_SS] = s->state.seg[X86_DS];
    }
    s->state.seg[X86_FS].base = c->in.fs_base;
    s->state.seg[X86_GS].base = c->in.gs_base;
    memcpy(s->state.gpr, c->in.gpr, sizeof(c->in.gpr));
    s->state.rip = c->in.rip;
    s->state.rflags = c->in.rflags;
    memcpy(s->state.xsave, c->in.fx, 512);
    memcpy(s->state.xsave + X86_XSAVE_YMM, c->in.ymm, 256);
    memcpy(s->state.xsave + X86_XSAVE_HDR, &features, 8);
}

static bool pushes_error(unsigned v)
{
    return v == 8 || (v >= 10 && v <= 14) || v == 17;
}

static void store(struct oracle_soft *s, struct oracle_result *r)
{
    uint64_t frame[6] = {0};

    memcpy(r->out.gpr, s->state.gpr, sizeof(r->out.gpr));
    r->out.fs_base = s->state.seg[X86_FS].base;
    r->out.gs_base = s->state.seg[X86_GS].base;
    memcpy(r->out.fx, s->state.xsave, 512);
    memcpy(r->out.ymm, s->state.xsave + X86_XSAVE_YMM, 256);
    gmem_read(s->env.mem, G_DATA, r->data, ORACLE_DATA_SIZE);
    gmem_read(s->env.mem, G_PROG, r->prog, ORACLE_PROG_SIZE);
    r->cr2 = s->state.cr2;
    if (s->state.rip < L_HANDLERS || s->state.rip > L_HANDLERS + 32 * 16) {
        r->vector = ORACLE_FAILED;
        r->out.rip = s->state.rip;
        r->out.rflags = s->state.rflags;
        return;
    }
    r->vector = (uint32_t)(s->state.rip - 1 - L_HANDLERS) / 16;
    gmem_read(s->env.mem, sys_gpa(L_STACK) - 48, frame, 48);
    if (pushes_error(r->vector))
        r->error = (uint32_t)frame[0];
    r->out.rip = frame[1];
    r->out.rflags = frame[3];
    r->out.gpr[X86_RSP] = frame[4];
}

void oracle_soft_run(struct oracle_soft *s, const struct oracle_case *c, struct oracle_result *r)
{
    struct vcpu_exit exit = {.reason = VCPU_EXIT_FAIL};
    struct error err = {0};

    memset(r, 0, sizeof(*r));
    load(s, c);
    if (engine_soft.set(s->vcpu, &s->state, &err) < 0) {
        fprintf(stderr, "oracle: %s\n", err.text);
        r->vector = ORACLE_FAILED;
        return;
    }
    engine_soft.run(s->vcpu, c->program ? BUDGET_PROGRAM : BUDGET, &exit);
    engine_soft.get(s->vcpu, &s->state);
    if (exit.reason == VCPU_EXIT_BUDGET) {
        r->vector = ORACLE_TIMEOUT;
        return;
    }
    if (exit.reason != VCPU_EXIT_HLT) {
        printf("  soft engine stopped: reason %d, rip %#llx %s\n", (int)exit.reason,
               (unsigned long long)s->state.rip, exit.reason == VCPU_EXIT_FAIL ? exit.text : "");
        r->vector = ORACLE_FAILED;
        memcpy(r->out.gpr, s->state.gpr, sizeof(r->out.gpr));
        return;
    }
    store(s, r);
}

/* ---- step by step ---- */

static uint64_t gpa_of(uint64_t lin)
{
    if (lin - ORACLE_CODE < ORACLE_CODE_SIZE)
        return G_CODE + (lin - ORACLE_CODE);
    if (lin - ORACLE_PROG < ORACLE_PROG_SIZE)
        return G_PROG + (lin - ORACLE_PROG);
    return UINT64_MAX;
}

/* The instruction at RIP, or as much of it as there is. */
static bool fetch(struct oracle_soft *s, const struct oracle_case *c, struct x86_insn *in)
{
    uint64_t lin = s->state.rip + c->cs_base, gpa = gpa_of(lin);
    uint8_t code[15];
    unsigned n = 0;

    while (n < sizeof(code) && gpa_of(lin + n) == gpa + n)
        n++;
    return gpa != UINT64_MAX && gmem_read(s->env.mem, gpa, code, n) == 0 &&
           x86_decode(code, n, oracle_mode(c), in) > 0;
}

bool oracle_soft_trace(struct oracle_soft *s, const struct oracle_case *c, oracle_step step,
                       void *ctx)
{
    struct vcpu_exit exit = {.reason = VCPU_EXIT_BUDGET};
    struct x86_insn in;
    struct error err = {0};
    unsigned k;

    load(s, c);
    if (engine_soft.set(s->vcpu, &s->state, &err) < 0)
        return false;
    for (k = 0; k < TRACE_MAX && exit.reason == VCPU_EXIT_BUDGET; k++) {
        engine_soft.get(s->vcpu, &s->state);
        if (s->state.rip >= L_SYS)
            return true;
        if (gpa_of(s->state.rip + c->cs_base) == UINT64_MAX)
            return true; /* nothing can be executed there */
        if (!fetch(s, c, &in))
            return false;
        if (!step(ctx, &in, &s->state))
            return true;
        engine_soft.run(s->vcpu, 1, &exit);
    }
    return k < TRACE_MAX;
}
