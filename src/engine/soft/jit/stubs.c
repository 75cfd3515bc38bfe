#include <stddef.h>

#include "engine/soft/jit/internal.h"
#include "engine/soft/native.h"

/*
 * The few pieces of code that are there before any block: entry and exit, calls of C with the
 * guest's registers put away, and the vector registers' way in and out.
 */

#define OFF(field) offsetof(struct soft_cpu, field)
#define OFF_GPR(n) (OFF(st.gpr) + 8u * (n))

/* Guest registers that live in host registers, and where. */
static const uint8_t home[16] = {H_RAX,  H_RCX,  H_RDX,  H_RBX,  H_R10, H_R11, H_RSI, H_RDI,
                                 H_NONE, H_NONE, H_NONE, H_NONE, H_R12, H_R13, H_R14, H_R15};

static void put_spill(struct emit *e)
{
    for (unsigned r = 0; r < 16; r++) {
        if (home[r] != H_NONE)
            put_store(e, mem_cpu(OFF_GPR(r)), home[r]);
    }
}

static void put_reload(struct emit *e)
{
    for (unsigned r = 0; r < 16; r++) {
        if (home[r] != H_NONE)
            put_load(e, home[r], mem_cpu(OFF_GPR(r)));
    }
}

static void put_bytes(struct emit *e, const uint8_t *b, unsigned n)
{
    memcpy(e->p, b, n);
    e->p += n;
}

#define PUT(e, ...)                                                                                \
    put_bytes(e, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

/* ldmxcsr (ext 2), stmxcsr (ext 3) */
static void put_mxcsr(struct emit *e, unsigned ext, size_t off)
{
    PUT(e, 0x0f, 0xae);
    put_modrm_mem(e, ext, mem_cpu(off));
}

/* Moves one vector register's halves between the host and the standard-format image. */
static void put_vec(struct emit *e, bool load, unsigned r, bool ymm)
{
    size_t low = OFF(st.xsave) + FX_XMM + 16u * r;
    size_t high = OFF(st.xsave) + X86_XSAVE_YMM + 16u * r;
    unsigned rbit = r < 8 ? 0x80 : 0; /* VEX.R, inverted */

    if (!ymm) {
        if (r >= 8)
            put8(e, 0x44);
        PUT(e, 0x0f, load ? 0x10 : 0x11);
        put_modrm_mem(e, r, mem_cpu(low));
        return;
    }
    PUT(e, 0xc5, (uint8_t)(rbit | 0x78), load ? 0x10 : 0x11); /* vmovups xmm */
    put_modrm_mem(e, r, mem_cpu(low));
    if (load) { /* vinsertf128 ymm, ymm, [high], 1 */
        PUT(e, 0xc4, (uint8_t)(rbit | 0x63), (uint8_t)((~r & 15) << 3 | 5), 0x18);
    } else { /* vextractf128 [high], ymm, 1 */
        PUT(e, 0xc4, (uint8_t)(rbit | 0x63), 0x7d, 0x19);
    }
    put_modrm_mem(e, r, mem_cpu(high));
    put8(e, 1);
}

/* Both are called; the return address waits in hot.next, since it moves RSP. */
static void put_vec_save(struct emit *e, bool ymm)
{
    put_op_mem(e, false, 0x8f, 0, mem_cpu(OFF(hot.next))); /* pop */
    for (unsigned r = 0; r < 16; r++)
        put_vec(e, false, r, ymm);
    put_mxcsr(e, 3, OFF(st.xsave) + FX_MXCSR);
    put_mxcsr(e, 2, OFF(hot.host_mxcsr));
    if (ymm)
        PUT(e, 0xc5, 0xf8, 0x77); /* vzeroupper */
    put_op_mem(e, false, 0xc6, 0, mem_cpu(OFF(hot.vec_live)));
    put8(e, 0);
    put_jmp_mem(e, mem_cpu(OFF(hot.next)));
}

static void put_vec_load(struct emit *e, bool ymm)
{
    put_op_mem(e, false, 0x8f, 0, mem_cpu(OFF(hot.next)));
    put_mxcsr(e, 2, OFF(st.xsave) + FX_MXCSR);
    for (unsigned r = 0; r < 16; r++)
        put_vec(e, true, r, ymm);
    put_op_mem(e, true, 0x83, 1, mem_cpu(OFF(st.xsave) + X86_XSAVE_HDR)); /* or qword, imm8 */
    put8(e, ymm ? XFEATURE_SSE | XFEATURE_YMM : XFEATURE_SSE);
    put_op_mem(e, false, 0xc6, 0, mem_cpu(OFF(hot.vec_live)));
    put8(e, 1);
    put_jmp_mem(e, mem_cpu(OFF(hot.next)));
}

/* xsave64 (ext 4) or xrstor64 (ext 5) of the x87 unit alone: the mask is 1 in EDX:EAX. */
static void put_xsave(struct emit *e, unsigned ext)
{
    put_store(e, mem_cpu(OFF(hot.rax)), H_RAX);
    put_store(e, mem_cpu(OFF(hot.rdx)), H_RDX);
    put_mov_imm32(e, H_RDX, 0);
    if (ext == 5) { /* other components' bits may be unknown to this host */
        put_load(e, H_RAX, mem_cpu(OFF(st.xsave) + X86_XSAVE_HDR));
        put_store(e, mem_cpu(OFF(hot.header)), H_RAX);
        put_mov_imm32(e, H_RAX, 1);
        put_store(e, mem_cpu(OFF(st.xsave) + X86_XSAVE_HDR), H_RAX);
    } else {
        put_mov_imm32(e, H_RAX, 1);
    }
    PUT(e, 0x48, 0x0f, 0xae);
    put_modrm_mem(e, ext, mem_cpu(OFF(st.xsave)));
    if (ext == 5)
        put_load(e, H_RAX, mem_cpu(OFF(hot.header)));
    else
        put_load(e, H_RAX, mem_cpu(OFF(st.xsave) + X86_XSAVE_HDR));
    put_alu_imm(e, true, 1, H_RAX, 1);
    put_store(e, mem_cpu(OFF(st.xsave) + X86_XSAVE_HDR), H_RAX);
}

/* The unit's pointers are the guest's, kept beside it. */
static void put_x87_save(struct emit *e)
{
    put_op_mem(e, false, 0x8f, 0, mem_cpu(OFF(hot.next)));
    put_xsave(e, 4);
    put_op_mem(e, false, 0x8b, H_RAX, mem_cpu(OFF(hot.x87_last)));
    put_mov32(e, H_RDX, H_RAX);
    put_op_reg(e, false, 0xc1, 5, H_RDX); /* shr */
    put8(e, 12);
    put8(e, 0x66);
    put_op_mem(e, false, 0x89, H_RDX, mem_cpu(OFF(st.xsave) + FX_FOP));
    put_alu_imm(e, false, 4, H_RAX, 4095);
    put_op_mem(e, true, 0x03, H_RAX, mem_cpu(OFF(hot.x87_page)));
    put_store(e, mem_cpu(OFF(st.xsave) + FX_FIP), H_RAX);
    put_load(e, H_RAX, mem_cpu(OFF(hot.x87_fdp)));
    put_store(e, mem_cpu(OFF(st.xsave) + FX_FDP), H_RAX);
    PUT(e, 0xdb, 0xe3); /* fninit: C finds the unit empty */
    put_load(e, H_RAX, mem_cpu(OFF(hot.rax)));
    put_load(e, H_RDX, mem_cpu(OFF(hot.rdx)));
    put_op_mem(e, false, 0xc6, 0, mem_cpu(OFF(hot.x87_live)));
    put8(e, 0);
    put_jmp_mem(e, mem_cpu(OFF(hot.next)));
}

static void put_x87_load(struct emit *e)
{
    put_op_mem(e, false, 0x8f, 0, mem_cpu(OFF(hot.next)));
    put_xsave(e, 5);
    PUT(e, 0x0f); /* movzx eax, word */
    put_op_mem(e, false, 0xb7, H_RAX, mem_cpu(OFF(st.xsave) + FX_FOP));
    put_op_reg(e, false, 0xc1, 4, H_RAX); /* shl */
    put8(e, 12);
    put_load(e, H_RDX, mem_cpu(OFF(st.xsave) + FX_FIP));
    put_alu_imm(e, false, 4, H_RDX, 4095);
    put_op_reg(e, false, 0x09, H_RDX, H_RAX); /* or */
    put_op_mem(e, false, 0x89, H_RAX, mem_cpu(OFF(hot.x87_last)));
    put_load(e, H_RAX, mem_cpu(OFF(st.xsave) + FX_FIP));
    put_alu_imm(e, true, 4, H_RAX, -4096);
    put_store(e, mem_cpu(OFF(hot.x87_page)), H_RAX);
    put_load(e, H_RAX, mem_cpu(OFF(st.xsave) + FX_FDP));
    put_store(e, mem_cpu(OFF(hot.x87_fdp)), H_RAX);
    put_load(e, H_RAX, mem_cpu(OFF(hot.rax)));
    put_load(e, H_RDX, mem_cpu(OFF(hot.rdx)));
    put_op_mem(e, false, 0xc6, 0, mem_cpu(OFF(hot.x87_live)));
    put8(e, 1);
    put_jmp_mem(e, mem_cpu(OFF(hot.next)));
}

/* Calls the C function that this field names, on the stack of who called enter. RBP is lost. */
static void put_call_on_stack(struct emit *e, size_t field)
{
    put_mov(e, H_RBP, H_RSP);
    put_load(e, H_RSP, mem_at(H_RBP, (int32_t)OFF(hot.host_rsp)));
    put_op_mem(e, false, 0xff, 2, mem_at(H_RBP, (int32_t)field));
    put_mov(e, H_RSP, H_RBP);
}

/*
 * Before FN_SLOW: a C function that uses no vector registers and raises nothing may find an answer
 * at once.
 */
static void put_light(struct emit *e)
{
    uint8_t *skip;

    put_mov(e, H_RDI, H_RSP);
    put_mov(e, H_RSI, S1);
    put_load(e, H_RDX, mem_cpu(OFF(hot.ret)));
    put_call_on_stack(e, OFF(hot.light));
    PUT(e, 0x48, 0x85, 0xc0); /* test rax, rax */
    skip = put_jcc(e, CC_E);
    put_store(e, mem_cpu(OFF(hot.ret)), H_RAX);
    put_reload(e);
    put_load(e, S1, mem_cpu(OFF(hot.s1)));
    put_load(e, S3, mem_cpu(OFF(hot.s3)));
    put_jmp_mem(e, mem_cpu(OFF(hot.ret)));
    set_target(skip, e->p);
    put_load(e, S1, mem_cpu(OFF(hot.s1)));
    put_load(e, S3, mem_cpu(OFF(hot.s3)));
}

/*
 * Puts the guest's registers away and calls a C function of the form
 *     const void *f(struct soft_cpu *cpu, uint64_t s1, uint64_t s2, uint64_t s3, void *ret)
 * which says where execution goes on. called: reached by a call, whose return address is `ret`.
 * keep: vector registers that were loaded are loaded again.
 */
static void put_call_c(struct emit *e, struct jit *j, unsigned fn, bool called, bool keep,
                       const uint8_t *vec_save, const uint8_t *x87_save, const uint8_t *leave)
{
    uint8_t *skip;

    if (called)
        put_op_mem(e, false, 0x8f, 0, mem_cpu(OFF(hot.ret))); /* pop */
    put_spill(e);
    if (called) {
        put_store(e, mem_cpu(OFF(hot.s1)), S1);
        put_store(e, mem_cpu(OFF(hot.s3)), S3);
    }
    if (fn == FN_SLOW)
        put_light(e);
    put_op_mem(e, false, 0x8a, H_RAX, mem_cpu(OFF(hot.vec_live)));
    put_op_mem(e, false, 0x88, H_RAX, mem_cpu(OFF(hot.vec_was)));
    PUT(e, 0x84, 0xc0); /* test al, al */
    skip = put_jcc(e, CC_E);
    set_target(put_call(e), vec_save);
    set_target(skip, e->p);
    put_op_mem(e, false, 0x8a, H_RAX, mem_cpu(OFF(hot.x87_live)));
    put_op_mem(e, false, 0x88, H_RAX, mem_cpu(OFF(hot.x87_was)));
    PUT(e, 0x84, 0xc0);
    skip = put_jcc(e, CC_E);
    set_target(put_call(e), x87_save);
    set_target(skip, e->p);
    put_mov(e, H_RDI, H_RSP);
    put_mov(e, H_RSI, S1);
    put_mov(e, H_RDX, S2);
    put_mov(e, H_RCX, S3);
    put_load(e, H_R8, mem_cpu(OFF(hot.ret)));
    put_call_on_stack(e, OFF(hot.fn) + 8u * fn);
    put_op_mem(e, true, 0x3b, H_RAX, mem_cpu(OFF(hot.exit)));
    set_target(put_jcc(e, CC_E), leave);
    put_store(e, mem_cpu(OFF(hot.ret)), H_RAX);
    if (keep) {
        put_op_mem(e, false, 0x8a, H_RAX, mem_cpu(OFF(hot.vec_was)));
        PUT(e, 0x84, 0xc0);
        skip = put_jcc(e, CC_E);
        set_target(put_call(e), j->rw + (j->vec_load - j->rx));
        set_target(skip, e->p);
        put_cmp8_mem(e, mem_cpu(OFF(hot.x87_was)), 0);
        skip = put_jcc(e, CC_E);
        set_target(put_call(e), j->rw + (j->x87_load - j->rx));
        set_target(skip, e->p);
    }
    put_reload(e);
    if (called) {
        put_load(e, S1, mem_cpu(OFF(hot.s1)));
        put_load(e, S3, mem_cpu(OFF(hot.s3)));
    }
    put_jmp_mem(e, mem_cpu(OFF(hot.ret)));
}

void jit_make_stubs(struct soft_cpu *cpu, struct jit *j)
{
    static const uint8_t saved[] = {H_RBX, H_RBP, H_R12, H_R13, H_R14, H_R15};
    struct emit em = {.p = j->hot}, *e = &em;
    bool feature[X86_FEAT_HIDDEN + 1], ymm;
    const uint8_t *vec_save, *x87_save, *leave, *start;
    uint8_t *skip;

    native_host_features(feature);
    ymm = feature[X86_FEAT_AVX];

    /* enter: the C caller's registers go to its stack */
    start = e->p;
    for (unsigned i = 0; i < countof(saved); i++) {
        if (saved[i] >= 8)
            put8(e, 0x41);
        put8(e, 0x50 | (saved[i] & 7));
    }
    put_alu_imm(e, true, 5, H_RSP, 8);
    put_store(e, mem_at(H_RDI, (int32_t)OFF(hot.host_rsp)), H_RSP);
    put_mov(e, H_RSP, H_RDI);
    put_mxcsr(e, 3, OFF(hot.host_mxcsr));
    put_store(e, mem_cpu(OFF(hot.ret)), H_RSI);
    put_reload(e);
    put_jmp_mem(e, mem_cpu(OFF(hot.ret)));
    {
        const uint8_t *p = jit_rx(j, start);

        memcpy(&j->enter, &p, sizeof(p));
    }

    vec_save = e->p;
    put_vec_save(e, ymm);
    j->vec_load = jit_rx(j, e->p);
    put_vec_load(e, ymm);
    j->vec_save = jit_rx(j, vec_save);
    j->xsave = ymm; /* who has AVX has XSAVE */
    x87_save = e->p;
    put_x87_save(e);
    j->x87_save = jit_rx(j, x87_save);
    j->x87_load = jit_rx(j, e->p);
    put_x87_load(e);

    /* exit, with the guest's registers still in the host's */
    j->exit = jit_rx(j, e->p);
    put_spill(e);
    put_cmp8_mem(e, mem_cpu(OFF(hot.vec_live)), 0);
    skip = put_jcc(e, CC_E);
    set_target(put_call(e), vec_save);
    set_target(skip, e->p);
    put_cmp8_mem(e, mem_cpu(OFF(hot.x87_live)), 0);
    skip = put_jcc(e, CC_E);
    set_target(put_call(e), x87_save);
    set_target(skip, e->p);
    leave = e->p;
    put_load(e, H_RSP, mem_cpu(OFF(hot.host_rsp)));
    put_alu_imm(e, true, 0, H_RSP, 8);
    for (unsigned i = countof(saved); i-- > 0;) {
        if (saved[i] >= 8)
            put8(e, 0x41);
        put8(e, 0x58 | (saved[i] & 7));
    }
    put8(e, 0xc3);

    /* something is pending at an entry: S1 is the address */
    j->poll = jit_rx(j, e->p);
    put_store(e, mem_cpu(OFF(st.rip)), S1);
    put_jmp_to(e, j->rw + (j->exit - j->rx));

    for (unsigned fn = 0; fn < JIT_FNS; fn++) {
        bool called = fn != FN_END && fn != FN_MISS && fn != FN_LINK;

        j->stub[fn] = jit_rx(j, e->p);
        put_call_c(e, j, fn, called, called, vec_save, x87_save, leave);
    }
    cpu->hot.exit = j->exit;
    j->hot = e->p;
}
