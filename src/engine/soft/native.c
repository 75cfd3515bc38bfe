/*
 * x87, MMX, SSE and AVX instructions run on the host: a stub loads the guest's registers, executes
 * the same instruction with its memory operand in a buffer, and stores the results. Stubs are made
 * once and shared by all instructions that differ only in register numbers; they live as long as
 * the vCPU, since decoded blocks point to them.
 */
#include "engine/soft/native.h"

#include <cpuid.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/endian.h"
#include "base/error.h"
#include "engine/soft/check.h"
#include "host/memory.h"

#define CHUNK_SIZE (64 * KIB)
#define CHUNK_MAX 512u
#define HASH_BITS 12u
#define FX_USED 416u /* bytes of the FXSAVE image that hold registers */

struct native {
    struct native_buf buf;
    bool host[X86_FEAT_HIDDEN + 1];
    struct native_stub *hash[1u << HASH_BITS];
    uint8_t *chunk[CHUNK_MAX];
    unsigned chunks;
    size_t used; /* of the last chunk */
};

_Static_assert(offsetof(struct soft_cpu, st.xsave) + FX_XMM + 256 <= 8 * 256, "slots are a byte");

/* ---- checks ---- */

/*
 * CR0.NE = 0: FERR# makes the board raise IRQ 13, and the processor waits for it before the
 * instruction. Its handler tells the board, which drives IGNNE#: the handler can then use the unit
 * to clear the error. Intel SDM Vol.1, appendix on MS-DOS compatible handling of x87 exceptions.
 */
static void report_by_interrupt(struct soft_cpu *cpu)
{
    const struct engine_env *env = &cpu->vm->env;

    if (cpu->st.ignne)
        return;
    check_cut(cpu); /* the board is told once */
    if (!cpu->st.ferr && env->ferr != NULL)
        env->ferr(env->ferr_ctx, cpu->id);
    cpu->st.ferr = true;
    soft_freeze(cpu);
}

void native_pending_x87(struct soft_cpu *cpu)
{
    uint32_t unmasked = fx_get16(cpu, FX_FSW) & ~(uint32_t)fx_get16(cpu, FX_FCW) & 0x3fu;

    if (likely(unmasked == 0)) {
        cpu->st.ferr = cpu->st.ignne = false;
        return;
    }
    if ((cpu->st.cr0 & X86_CR0_NE) != 0)
        soft_raise(cpu, X86_EXC_MF);
    report_by_interrupt(cpu);
}

void native_need_x87_nowait(struct soft_cpu *cpu)
{
    if (unlikely((cpu->st.cr0 & (X86_CR0_EM | X86_CR0_TS)) != 0))
        soft_raise(cpu, X86_EXC_NM);
}

void native_need_x87(struct soft_cpu *cpu)
{
    native_need_x87_nowait(cpu);
    native_pending_x87(cpu);
}

void native_need_mmx(struct soft_cpu *cpu)
{
    if (unlikely((cpu->st.cr0 & X86_CR0_EM) != 0))
        soft_raise(cpu, X86_EXC_UD);
    if (unlikely((cpu->st.cr0 & X86_CR0_TS) != 0))
        soft_raise(cpu, X86_EXC_NM);
    native_pending_x87(cpu);
}

void native_need_sse(struct soft_cpu *cpu)
{
    if (unlikely((cpu->st.cr0 & X86_CR0_EM) != 0 || (cpu->st.cr4 & X86_CR4_OSFXSR) == 0))
        soft_raise(cpu, X86_EXC_UD);
    if (unlikely((cpu->st.cr0 & X86_CR0_TS) != 0))
        soft_raise(cpu, X86_EXC_NM);
}

void native_need_avx(struct soft_cpu *cpu)
{
    uint64_t both = XFEATURE_SSE | XFEATURE_YMM;

    if (unlikely((cpu->st.cr4 & X86_CR4_OSXSAVE) == 0 || (cpu->st.xcr0 & both) != both ||
                 (cpu->st.cr0 & X86_CR0_PE) == 0 || (cpu->st.rflags & X86_FL_VM) != 0))
        soft_raise(cpu, X86_EXC_UD);
    if (unlikely((cpu->st.cr0 & X86_CR0_TS) != 0))
        soft_raise(cpu, X86_EXC_NM);
}

uint32_t native_mxcsr_mask(const struct soft_cpu *cpu)
{
    const struct x86_cpuid *id = cpu->vm->env.cpuid;

    return id != NULL && id->mxcsr_mask != 0 ? id->mxcsr_mask & 0xffffu : 0xffffu;
}

/* ---- SIMD floating-point exceptions ---- */

static void mxcsr_begin(const struct soft_cpu *cpu, struct native_buf *buf)
{
    uint32_t m = fx_get32(cpu, FX_MXCSR);

    buf->mxcsr_in = (m & (0xffffu & ~MXCSR_FLAGS)) | MXCSR_DEFAULT;
    buf->stop = ~(m >> 7) & MXCSR_FLAGS;
    /*
     * An unmasked underflow is raised by any tiny result, a masked one only by an inexact one.
     * Flush to zero reports both, and where it changes a result the guest gets an exception
     * instead.
     */
    if (unlikely((m & MXCSR_UM) == 0))
        buf->mxcsr_in |= MXCSR_FTZ;
}

/* Sets the flags that the stub found and raises the exception if one of them is unmasked. */
static void mxcsr_raise(struct soft_cpu *cpu, uint32_t flags, uint32_t unmasked)
{
    /* Intel SDM Vol.1, SIMD exceptions: what is found before computing hides what comes after. */
    if ((flags & unmasked & 7u) != 0)
        flags &= 7u;
    fx_set32(cpu, FX_MXCSR, fx_get32(cpu, FX_MXCSR) | flags);
    soft_raise(cpu, (cpu->st.cr4 & X86_CR4_OSXMMEXCPT) != 0 ? X86_EXC_XM : X86_EXC_UD);
}

static void call_stub(struct soft_cpu *cpu, struct native_buf *buf, const struct uop *u)
{
    char *base = (char *)cpu;

    u->native->fn(cpu, buf, base + 8u * u->dst, base + 8u * u->src, base + 8u * u->cc,
                  base + 8u * u->rep);
}

/*
 * VCVTPS2PH takes no notice of flush to zero, so tiny results that are exact are found by looking
 * at the sources: multiples of 2^-24 below 2^-14. u->osize: how many there are.
 */
static bool exact_tiny_half(const struct soft_cpu *cpu, const struct uop *u)
{
    size_t at = 8u * u->dst; /* ModRM.reg comes first: the low half, in struct soft_cpu */
    size_t reg = (at - offsetof(struct soft_cpu, st.xsave) - FX_XMM) / 16;
    const uint8_t *low = (const uint8_t *)cpu + at;
    const uint8_t *high = cpu->st.xsave + X86_XSAVE_YMM + 16 * reg;

    for (unsigned i = 0; i < u->osize; i++) {
        uint32_t v = le32_load(i < 4 ? low + 4 * i : high + 4 * (i - 4)) & 0x7fffffff;
        unsigned exponent = v >> 23; /* 103: 2^-24; 113: 2^-14 */

        if (exponent >= 103 && exponent < 113 && (v & ((1u << (126 - exponent)) - 1)) == 0)
            return true;
    }
    return false;
}

static void call_fp(struct soft_cpu *cpu, struct native_buf *buf, const struct uop *u)
{
    uint32_t flags, unmasked;
    bool tiny;

    mxcsr_begin(cpu, buf);
    unmasked = buf->stop;
    tiny = u->op == X86_VCVTPS2PH && (unmasked & MXCSR_UE) != 0 && exact_tiny_half(cpu, u);
    if (unlikely(tiny))
        buf->stop = UINT32_MAX; /* store nothing */
    call_stub(cpu, buf, u);
    buf->stop = unmasked;
    flags = (buf->mxcsr_out & MXCSR_FLAGS) | (tiny ? MXCSR_UE : 0);
    if (likely((flags & buf->stop) == 0)) {
        fx_set32(cpu, FX_MXCSR, fx_get32(cpu, FX_MXCSR) | flags);
        return;
    }
    if ((flags & MXCSR_UE) != 0 && (buf->stop & MXCSR_UE) != 0) {
        /* Once more without flushing, to learn whether the tiny result is inexact. */
        buf->mxcsr_in &= ~MXCSR_FTZ;
        buf->stop = UINT32_MAX; /* store nothing */
        call_stub(cpu, buf, u);
        buf->stop = unmasked;
        flags = (buf->mxcsr_out & MXCSR_FLAGS) | MXCSR_UE;
    }
    mxcsr_raise(cpu, flags, buf->stop);
}

/* ---- handlers ---- */

static struct native_buf *buf_of(struct soft_cpu *cpu)
{
    return &((struct native *)cpu->native)->buf;
}

static inline uint64_t operand(struct soft_cpu *cpu, const struct uop *u)
{
    uint64_t ea = soft_ea(cpu, u);

    if (unlikely(((cpu->base[u->seg] + ea) & u->native->align) != 0))
        soft_raise_error(cpu, X86_EXC_GP, 0);
    return ea;
}

#define XMM_SLOT ((unsigned)(offsetof(struct soft_cpu, st.xsave) + FX_XMM) / 8u)

/* Which slot holds the vector register that a VEX instruction writes, for wide_results. */
static uint8_t vex_flags(const struct x86_insn *insn, const struct native_code *code)
{
    uint8_t flags = 0;

    if (insn->op == X86_VPCMPESTRM || insn->op == X86_VPCMPISTRM)
        flags = UOP_VEX_XMM0;
    for (unsigned i = 0; i < insn->opnd_count; i++) {
        const struct x86_opnd *o = &insn->opnd[i];
        unsigned reg = o->reg & (insn->mode == X86_MODE_64 ? 15u : 7u);

        if (o->kind != X86_OPND_REG || o->rclass != X86_RC_VEC || (o->access & X86_ACC_W) == 0)
            continue;
        for (unsigned k = 0; k < code->slots; k++) {
            if (code->slot[k] == XMM_SLOT + 2 * reg)
                flags = (uint8_t)(UOP_VEX | k << UOP_VEX_SHIFT);
        }
    }
    return flags;
}

static void wide_results(struct soft_cpu *cpu, const struct uop *u)
{
    const uint8_t slot[] = {u->dst, u->src, u->cc, u->rep};

    if ((u->flags & UOP_VEX) != 0)
        native_wide_written(cpu, (slot[u->flags >> UOP_VEX_SHIFT] - XMM_SLOT) / 2u);
    if ((u->flags & UOP_VEX_XMM0) != 0)
        native_wide_written(cpu, 0);
}

/* One of these for each kind, so that what a kind does not need costs nothing. */
static inline __attribute__((always_inline)) void
run_vector(struct soft_cpu *cpu, const struct uop *u, bool avx, bool fp, unsigned dir)
{
    struct native_buf *buf = buf_of(cpu);
    uint64_t ea = 0;

    if (avx)
        native_need_avx(cpu);
    else
        native_need_sse(cpu);
    if (dir != 0)
        ea = operand(cpu, u);
    if (dir == N_LOAD)
        soft_read(cpu, u->seg, ea, buf->mem, u->native->mem_size);
    else if (dir == N_STORE && fp)
        soft_probe_write(cpu, u->seg, ea, u->native->mem_size);
    if (fp)
        call_fp(cpu, buf, u);
    else
        call_stub(cpu, buf, u);
    if (dir == N_STORE)
        soft_write(cpu, u->seg, ea, buf->mem, u->native->mem_size);
    fx_touch(cpu, avx ? XFEATURE_SSE | XFEATURE_YMM : XFEATURE_SSE);
    if (avx && unlikely((cpu->st.xcr0 & X86_XCR0_AVX512) != 0))
        wide_results(cpu, u);
}

#define VECTOR(name, avx, fp, dir)                                                                 \
    static void name(struct soft_cpu *cpu, const struct uop *u)                                    \
    {                                                                                              \
        run_vector(cpu, u, avx, fp, dir);                                                          \
    }
VECTOR(sse_reg, false, false, 0)
VECTOR(sse_load, false, false, N_LOAD)
VECTOR(sse_store, false, false, N_STORE)
VECTOR(sse_fp_reg, false, true, 0)
VECTOR(sse_fp_load, false, true, N_LOAD)
VECTOR(avx_reg, true, false, 0)
VECTOR(avx_load, true, false, N_LOAD)
VECTOR(avx_store, true, false, N_STORE)
VECTOR(avx_fp_reg, true, true, 0)
VECTOR(avx_fp_load, true, true, N_LOAD)
VECTOR(avx_fp_store, true, true, N_STORE)

/* Legacy moves of whole registers are most of what there is, so they need no stub. */
static void sse_move_load(struct soft_cpu *cpu, const struct uop *u)
{
    native_need_sse(cpu);
    soft_read(cpu, u->seg, operand(cpu, u), (char *)cpu + 8u * u->dst, 16);
    fx_touch(cpu, XFEATURE_SSE);
}

static void sse_move_store(struct soft_cpu *cpu, const struct uop *u)
{
    native_need_sse(cpu);
    soft_write(cpu, u->seg, operand(cpu, u), (const char *)cpu + 8u * u->dst, 16);
}

/* ES and B follow from the flags and masks; the host would trap if the guest's image lied. */
static void fx_set_es(uint8_t *fx)
{
    uint16_t fcw, fsw;

    memcpy(&fcw, fx + FX_FCW, 2);
    memcpy(&fsw, fx + FX_FSW, 2);
    fsw &= (uint16_t) ~(FSW_ES | FSW_B);
    if ((fsw & ~(unsigned)fcw & 0x3fu) != 0)
        fsw |= FSW_ES | FSW_B;
    memcpy(fx + FX_FSW, &fsw, 2);
}

static void x87_pointers(struct soft_cpu *cpu, const struct uop *u, uint64_t ea)
{
    unsigned flags = u->native->flags;

    if ((flags & N_INIT) != 0) {
        fx_set16(cpu, FX_FOP, 0);
        fx_set64(cpu, FX_FIP, 0);
        fx_set64(cpu, FX_FDP, 0);
    } else if ((flags & N_X87) != 0 && (flags & N_CTL) == 0) {
        fx_set16(cpu, FX_FOP, u->native->fop);
        fx_set64(cpu, FX_FIP, soft_rip(cpu));
        if ((flags & (N_LOAD | N_STORE)) != 0)
            fx_set64(cpu, FX_FDP, ea);
    }
}

/* x87 and MMX: the whole image goes through the host's unit. */
static void run_x87(struct soft_cpu *cpu, const struct uop *u)
{
    struct native_buf *buf = buf_of(cpu);
    const struct native_stub *s = u->native;
    uint8_t pointers[18];
    uint32_t mxcsr = fx_get32(cpu, FX_MXCSR), mask = MXCSR_DEFAULT;
    uint64_t ea = 0;
    uint32_t cc = cpu->cc;
    uint8_t ignored = 0;

    if ((s->flags & N_MMX) != 0)
        native_need_mmx(cpu);
    else if ((s->flags & N_NOWAIT) != 0)
        native_need_x87_nowait(cpu);
    else
        native_need_x87(cpu);
    if ((s->flags & (N_LOAD | N_STORE)) != 0)
        ea = operand(cpu, u);
    if ((s->flags & N_LOAD) != 0) {
        soft_read(cpu, u->seg, ea, buf->mem, s->mem_size);
    } else if ((s->flags & N_STORE) != 0) {
        soft_probe_write(cpu, u->seg, ea, s->mem_size);
        /* An unmasked exception keeps a store from happening: what was there is written back. */
        if ((fx_get16(cpu, FX_FCW) & 0x3fu) != 0x3fu)
            soft_read(cpu, u->seg, ea, buf->mem, s->mem_size);
    }
    memcpy(buf->fx, cpu->st.xsave, FX_USED);
    /* under IGNNE# an error may wait here, which the host's unit would report */
    if (unlikely(cpu->st.ignne) && (s->flags & N_NOWAIT) == 0) {
        ignored = buf->fx[FX_FSW] & 0x3fu;
        buf->fx[FX_FSW] &= 0xc0u;
    }
    fx_set_es(buf->fx);
    if ((s->flags & N_FP) != 0) {
        mxcsr_begin(cpu, buf);
        mask = buf->mxcsr_in;
    }
    memcpy(buf->fx + FX_MXCSR, &mask, sizeof(mask));
    call_stub(cpu, buf, u);
    if ((s->flags & N_FP) != 0) {
        uint32_t out;

        memcpy(&out, buf->fx + FX_MXCSR, sizeof(out));
        out &= MXCSR_FLAGS;
        if ((out & buf->stop) != 0) {
            /* The unit has been switched to MMX by the time the exception is found. */
            native_set_fsw(cpu, fx_get16(cpu, FX_FSW) & (uint16_t)~FSW_TOP);
            cpu->st.xsave[FX_FTW] = 0xff;
            mxcsr_raise(cpu, out, buf->stop);
        }
        mxcsr |= out;
    }
    if ((s->flags & N_STORE) != 0)
        soft_write(cpu, u->seg, ea, buf->mem, s->mem_size);
    memcpy(pointers, cpu->st.xsave + FX_FOP, sizeof(pointers));
    /* An unmasked #IA leaves flags and condition codes as they were; not every host does so. */
    if (unlikely((buf->fx[FX_FSW] & ~(unsigned)buf->fx[FX_FCW] & 1u) != 0)) {
        cpu->cc = cc;
        buf->fx[FX_FSW + 1] =
            (uint8_t)((buf->fx[FX_FSW + 1] & ~FSW_CODES) | (cpu->st.xsave[FX_FSW + 1] & FSW_CODES));
    }
    if (unlikely(ignored != 0)) {
        buf->fx[FX_FSW] |= ignored;
        fx_set_es(buf->fx);
    }
    memcpy(cpu->st.xsave, buf->fx, FX_USED);
    memcpy(cpu->st.xsave + FX_FOP, pointers, sizeof(pointers));
    fx_set32(cpu, FX_MXCSR, mxcsr);
    x87_pointers(cpu, u, ea);
    fx_touch(cpu, XFEATURE_X87 | XFEATURE_SSE);
}

/* MMX and XMM together (cvtpi2ps, movq2dq ...). */
static void run_mixed(struct soft_cpu *cpu, const struct uop *u)
{
    native_need_sse(cpu);
    run_x87(cpu, u);
}

static void raise_ud(struct soft_cpu *cpu, const struct uop *u)
{
    (void)u;
    soft_raise(cpu, X86_EXC_UD);
}

static void no_memory(struct soft_cpu *cpu, const struct uop *u)
{
    (void)u;
    soft_unimplemented(cpu, "more native stubs than there is code memory for");
}

/* ---- stubs ---- */

static uint32_t hash_of(const struct native_code *c)
{
    uint32_t h = 2166136261u;
    unsigned i;

    for (i = 0; i < c->size; i++)
        h = (h ^ c->text[i]) * 16777619u;
    return h;
}

/* A place for size bytes, writable until the chunk is sealed again. NULL: none left. */
static uint8_t *code_place(struct native *n, size_t size)
{
    uint8_t *p;

    if (n->chunks == 0 || n->used + size > CHUNK_SIZE) {
        if (n->chunks == CHUNK_MAX)
            return NULL;
        p = host_code_alloc(CHUNK_SIZE, NULL);
        if (p == NULL)
            return NULL;
        n->chunk[n->chunks++] = p;
        n->used = 0;
    } else if (host_code_unseal(n->chunk[n->chunks - 1], CHUNK_SIZE, NULL) < 0) {
        return NULL;
    }
    p = n->chunk[n->chunks - 1] + n->used;
    n->used += align_up(size, 16);
    return p;
}

static const struct native_stub *stub_get(struct native *n, const struct native_code *c,
                                          const struct native_stub *like)
{
    uint32_t hash = hash_of(c);
    struct native_stub **head = &n->hash[hash >> (32 - HASH_BITS)], *s;
    uint8_t *place;
    bool sealed;

    for (s = *head; s != NULL; s = s->next)
        if (s->hash == hash && s->code_size == c->size && s->flags == like->flags &&
            s->mem_size == like->mem_size && s->align == like->align && s->fop == like->fop &&
            memcmp(s->code, c->text, c->size) == 0)
            return s;
    s = malloc(sizeof(*s));
    if (s == NULL)
        return NULL;
    place = code_place(n, c->size);
    if (place != NULL)
        memcpy(place, c->text, c->size);
    sealed = n->chunks > 0 && host_code_seal(n->chunk[n->chunks - 1], CHUNK_SIZE, NULL) == 0;
    if (place == NULL || !sealed) {
        free(s);
        return NULL;
    }
    *s = *like;
    memcpy(&s->fn, &place, sizeof(s->fn));
    s->code = place;
    s->code_size = (uint8_t)c->size;
    s->hash = hash;
    s->next = *head;
    *head = s;
    return s;
}

bool native_flags(unsigned op, unsigned *flags)
{
    switch (op) {
#define NATIVE(name, value)                                                                        \
    case X86_##name:                                                                               \
        *flags = (value);                                                                          \
        return true;
#include "engine/soft/native_ops.def"
#undef NATIVE
    default:
        return false;
    }
}

static const struct x86_opnd *memory_operand(const struct x86_insn *insn)
{
    unsigned i;

    for (i = 0; i < insn->opnd_count; i++)
        if (insn->opnd[i].kind == X86_OPND_MEM)
            return &insn->opnd[i];
    return NULL;
}

static bool has_class(const struct x86_insn *insn, unsigned rclass)
{
    unsigned i;

    for (i = 0; i < insn->opnd_count; i++)
        if (insn->opnd[i].kind == X86_OPND_REG && insn->opnd[i].rclass == rclass)
            return true;
    return false;
}

static bool power_of_two(unsigned v)
{
    return v != 0 && (v & (v - 1)) == 0;
}

/* What the stub's caller must know. False: a memory operand that does not fit. */
static bool describe(const struct x86_insn *insn, unsigned flags, struct native_stub *s)
{
    const struct x86_opnd *mem = memory_operand(insn);

    memset(s, 0, sizeof(*s));
    if (has_class(insn, X86_RC_MMX) || insn->op == X86_EMMS)
        flags |= N_MMX;
    if (insn->enc == X86_ENC_VEX)
        flags |= N_AVX;
    if (insn->op == X86_FNINIT)
        flags |= N_INIT;
    if (mem != NULL) {
        if (mem->size == 0 || mem->size > 64 || (mem->access & 3u) == 3u || mem->access == 0)
            return false;
        flags |= (mem->access & X86_ACC_W) != 0 ? N_STORE : N_LOAD;
        s->mem_size = (uint8_t)mem->size;
        if ((flags & N_AVX) != 0 ? (flags & N_ALIGNED) != 0
                                 : mem->size == 16 && (flags & N_UNALIGNED) == 0)
            s->align = (uint8_t)(mem->size - 1);
        if (s->align != 0 && !power_of_two(mem->size))
            return false;
    }
    if ((flags & N_X87) != 0)
        s->fop = (uint16_t)((insn->opcode & 7u) << 8 | insn->modrm);
    s->flags = (uint16_t)flags;
    return true;
}

static uop_fn vector_handler(unsigned flags)
{
    bool fp = (flags & N_FP) != 0;

    if ((flags & N_AVX) != 0) {
        if ((flags & N_LOAD) != 0)
            return fp ? avx_fp_load : avx_load;
        if ((flags & N_STORE) != 0)
            return fp ? avx_fp_store : avx_store;
        return fp ? avx_fp_reg : avx_reg;
    }
    if ((flags & N_LOAD) != 0)
        return fp ? sse_fp_load : sse_load;
    if ((flags & N_STORE) != 0)
        return sse_store;
    return fp ? sse_fp_reg : sse_reg;
}

static uop_fn pick_handler(const struct x86_insn *insn, const struct native_stub *s)
{
    switch (insn->op) {
    case X86_MOVUPS:
    case X86_MOVAPS:
    case X86_MOVUPD:
    case X86_MOVAPD:
    case X86_MOVDQU:
    case X86_MOVDQA:
    case X86_LDDQU:
    case X86_MOVNTPS:
    case X86_MOVNTPD:
    case X86_MOVNTDQ:
        if ((s->flags & (N_AVX | N_LOAD)) == N_LOAD && s->mem_size == 16)
            return sse_move_load;
        if ((s->flags & (N_AVX | N_STORE)) == N_STORE && s->mem_size == 16)
            return sse_move_store;
        break;
    default:
        break;
    }
    if ((s->flags & N_MMX) != 0 && has_class(insn, X86_RC_VEC))
        return run_mixed;
    if ((s->flags & (N_MMX | N_X87)) != 0)
        return run_x87;
    return vector_handler(s->flags);
}

static bool guest_has(const struct soft_cpu *cpu, unsigned feature)
{
    const struct x86_cpuid *id = cpu->vm->env.cpuid;

    return feature < X86_FEAT_HIDDEN && (id == NULL || id->feature[feature]);
}

bool native_prepare(struct soft_cpu *cpu, const struct x86_insn *insn, const uint8_t *bytes,
                    struct uop *u)
{
    struct native *n = cpu->native;
    struct native_code code;
    struct native_stub like;
    unsigned flags;

    if (!guest_has(cpu, insn->feature) ||
        (insn->enc == X86_ENC_VEX && !guest_has(cpu, X86_FEAT_AVX))) {
        u->fn = raise_ud;
        return true;
    }
    u->native = NULL;
    u->fn = fpu_handler(insn, u);
    if (u->fn != NULL)
        return true;
    u->fn = native_mask_handler(insn, u);
    if (u->fn != NULL)
        return true;
    if (!native_flags(insn->op, &flags) || !n->host[insn->feature] ||
        (insn->enc == X86_ENC_VEX && !n->host[X86_FEAT_AVX]) || !describe(insn, flags, &like) ||
        !native_emit(insn, bytes, like.flags, &code))
        return false;
    u->dst = code.slot[0];
    u->src = code.slot[1];
    u->cc = code.slot[2];
    u->rep = code.slot[3];
    if (insn->op == X86_VCVTPS2PH)
        u->osize = (uint8_t)(insn->opnd[1].size / 4);
    if (insn->enc == X86_ENC_VEX)
        u->flags |= vex_flags(insn, &code);
    u->native = stub_get(n, &code, &like);
    u->fn = u->native != NULL ? pick_handler(insn, u->native) : no_memory;
    return true;
}

/* ---- the host ---- */

static bool host_has_ymm(uint32_t leaf1_ecx)
{
    uint32_t lo, hi;

    if ((leaf1_ecx & 1u << 27) == 0)
        return false;
    __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
    return (lo & 6u) == 6u;
}

void native_host_features(bool f[X86_FEAT_HIDDEN + 1])
{
    uint32_t a = 0, b = 0, c = 0, d = 0, b7 = 0, c7 = 0, d7 = 0;
    bool ymm;

    memset(f, 0, sizeof(bool) * (X86_FEAT_HIDDEN + 1));
    __get_cpuid(1, &a, &b, &c, &d);
    __get_cpuid_count(7, 0, &a, &b7, &c7, &d7);
    ymm = host_has_ymm(c);
    f[X86_FEAT_BASE] = f[X86_FEAT_X87] = f[X86_FEAT_CMOV] = f[X86_FEAT_MMX] = true;
    f[X86_FEAT_FXSR] = f[X86_FEAT_SSE] = f[X86_FEAT_SSE2] = true; /* of every 64-bit processor */
    f[X86_FEAT_SSE3] = (c & 1u) != 0;
    f[X86_FEAT_PCLMUL] = (c & 1u << 1) != 0;
    f[X86_FEAT_SSSE3] = (c & 1u << 9) != 0;
    f[X86_FEAT_FMA] = ymm && (c & 1u << 12) != 0;
    f[X86_FEAT_SSE41] = (c & 1u << 19) != 0;
    f[X86_FEAT_SSE42] = (c & 1u << 20) != 0;
    f[X86_FEAT_AES] = (c & 1u << 25) != 0;
    f[X86_FEAT_AVX] = ymm && (c & 1u << 28) != 0;
    f[X86_FEAT_F16C] = ymm && (c & 1u << 29) != 0;
    f[X86_FEAT_AVX2] = ymm && (b7 & 1u << 5) != 0;
    f[X86_FEAT_SHA] = (b7 & 1u << 29) != 0;
    f[X86_FEAT_GFNI] = (c7 & 1u << 8) != 0;
    f[X86_FEAT_VAES] = ymm && (c7 & 1u << 9) != 0;
    f[X86_FEAT_VPCLMUL] = ymm && (c7 & 1u << 10) != 0;
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d))
        f[X86_FEAT_AVXVNNI] = ymm && (a & 1u << 4) != 0;
}

int native_init(struct soft_cpu *cpu, struct error *err)
{
    struct native *n = aligned_alloc(64, align_up(sizeof(struct native), 64));

    if (n == NULL)
        return error_set(err, -ENOMEM, "no memory for native execution");
    memset(n, 0, sizeof(*n));
    native_host_features(n->host);
    cpu->native = n;
    return 0;
}

void native_fini(struct soft_cpu *cpu)
{
    struct native *n = cpu->native;
    unsigned i;

    if (n == NULL)
        return;
    for (i = 0; i < countof(n->hash); i++) {
        while (n->hash[i] != NULL) {
            struct native_stub *next = n->hash[i]->next;

            free(n->hash[i]);
            n->hash[i] = next;
        }
    }
    for (i = 0; i < n->chunks; i++)
        host_memory_free(n->chunk[i], CHUNK_SIZE);
    free(n);
    cpu->native = NULL;
}
