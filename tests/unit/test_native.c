/* Native execution of x87, MMX, SSE and AVX with a flat 64 KiB memory instead of the MMU. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/soft/interp.h"
#include "engine/soft/check.h"
#include "engine/soft/native.h"

#define RAM_SIZE 0x10000u
#define DATA 0x1000u

struct machine {
    struct soft_cpu cpu;
    struct soft_vm vm;
    uint8_t ram[RAM_SIZE];
};

static struct machine *machine_of(struct soft_cpu *cpu)
{
    return container_of(cpu, struct machine, cpu);
}

/* ---- the memory ---- */

void soft_raise_error(struct soft_cpu *cpu, uint8_t vector, uint32_t error)
{
    cpu->fault.vector = vector;
    cpu->fault.error = error;
    longjmp(*cpu->env, 1);
}

void soft_raise(struct soft_cpu *cpu, uint8_t vector)
{
    soft_raise_error(cpu, vector, 0);
}

void soft_unimplemented(struct soft_cpu *cpu, const char *what)
{
    (void)what;
    soft_raise_error(cpu, 255, 0);
}

void soft_freeze(struct soft_cpu *cpu)
{
    soft_raise_error(cpu, 254, 0);
}

void soft_pkru_changed(struct soft_cpu *cpu)
{
    (void)cpu;
}

void check_cut(struct soft_cpu *cpu)
{
    (void)cpu;
}

static uint8_t *at(struct soft_cpu *cpu, unsigned seg, uint64_t ea, unsigned len)
{
    uint64_t linear = cpu->base[seg] + ea;

    if (linear >= RAM_SIZE || linear + len > RAM_SIZE)
        soft_raise_error(cpu, X86_EXC_PF, 0);
    return machine_of(cpu)->ram + linear;
}

void soft_read(struct soft_cpu *cpu, unsigned seg, uint64_t ea, void *to, unsigned len)
{
    memcpy(to, at(cpu, seg, ea, len), len);
}

void soft_write(struct soft_cpu *cpu, unsigned seg, uint64_t ea, const void *from, unsigned len)
{
    memcpy(at(cpu, seg, ea, len), from, len);
}

void soft_probe_write(struct soft_cpu *cpu, unsigned seg, uint64_t ea, unsigned len)
{
    at(cpu, seg, ea, len);
}

uint32_t soft_ld32(struct soft_cpu *cpu, unsigned seg, uint64_t ea)
{
    uint32_t v;

    soft_read(cpu, seg, ea, &v, 4);
    return v;
}

uint64_t soft_ld64(struct soft_cpu *cpu, unsigned seg, uint64_t ea)
{
    uint64_t v;

    soft_read(cpu, seg, ea, &v, 8);
    return v;
}

void soft_st8(struct soft_cpu *cpu, unsigned seg, uint64_t ea, uint8_t v)
{
    soft_write(cpu, seg, ea, &v, 1);
}

void soft_st32(struct soft_cpu *cpu, unsigned seg, uint64_t ea, uint32_t v)
{
    soft_write(cpu, seg, ea, &v, 4);
}

void soft_st64(struct soft_cpu *cpu, unsigned seg, uint64_t ea, uint64_t v)
{
    soft_write(cpu, seg, ea, &v, 8);
}

/* ---- running ---- */

static struct machine *start(void)
{
    struct machine *m = aligned_alloc(64, align_up(sizeof(*m), 64));

    assert_non_null(m);
    memset(m, 0, sizeof(*m));
    m->cpu.vm = &m->vm;
    m->cpu.long_code = true;
    m->cpu.mode = X86_MODE_64;
    m->cpu.rip_mask = UINT64_MAX;
    m->cpu.st.cr0 = X86_CR0_PE | X86_CR0_NE | X86_CR0_MP;
    m->cpu.st.cr4 = X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT | X86_CR4_OSXSAVE;
    m->cpu.st.xcr0 = 7;
    m->cpu.st.rip = 0x400;
    fx_set16(&m->cpu, FX_FCW, FCW_DEFAULT);
    fx_set32(&m->cpu, FX_MXCSR, MXCSR_DEFAULT);
    assert_int_equal(native_init(&m->cpu, NULL), 0);
    return m;
}

static void finish(struct machine *m)
{
    native_fini(&m->cpu);
    free(m);
}

#define NOT_NATIVE (-2)

/* The exception, or -1. */
static int run_insn(struct machine *m, const struct x86_insn *in, const uint8_t *bytes)
{
    struct soft_cpu *cpu = &m->cpu;
    struct uop u = {
        .op = in->op,
        .len = in->len,
        .seg = in->seg,
        .base = in->base,
        .index = in->index,
        .disp = in->disp,
        .asize = in->asize,
        .osize = in->osize,
        .shift = (uint8_t)(in->scale == 8   ? 3
                           : in->scale == 4 ? 2
                           : in->scale == 2 ? 1
                                            : 0),
    };
    jmp_buf env;

    if (u.base == X86_REG_RIP) {
        u.base = X86_REG_NONE;
        u.flags |= UOP_RIP;
    }
    if (!native_prepare(cpu, in, bytes, &u))
        return NOT_NATIVE;
    cpu->block_rip = cpu->st.rip;
    cpu->uop = &u;
    cpu->env = &env;
    if (setjmp(env) != 0)
        return cpu->fault.vector;
    u.fn(cpu, &u);
    return -1;
}

static int run_bytes(struct machine *m, const uint8_t *bytes, size_t n)
{
    struct x86_insn in;

    assert_int_equal(x86_decode(bytes, n, X86_MODE_64, &in), (int)n);
    return run_insn(m, &in, bytes);
}

#define RUN(m, ...)                                                                                \
    run_bytes(m, (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__}))

static void set_xmm(struct machine *m, unsigned reg, uint64_t lo, uint64_t hi)
{
    fx_set64(&m->cpu, FX_XMM + 16 * reg, lo);
    fx_set64(&m->cpu, FX_XMM + 16 * reg + 8, hi);
}

static void check_xmm(struct machine *m, unsigned reg, uint64_t lo, uint64_t hi)
{
    assert_int_equal(fx_get64(&m->cpu, FX_XMM + 16 * reg), lo);
    assert_int_equal(fx_get64(&m->cpu, FX_XMM + 16 * reg + 8), hi);
}

static uint64_t bits(double d)
{
    uint64_t v;

    memcpy(&v, &d, 8);
    return v;
}

/* ---- tests ---- */

static void sse_registers_and_memory(void **state)
{
    struct machine *m = start();
    uint64_t pair[2] = {5, 7};

    (void)state;
    set_xmm(m, 9, 1, 2);
    set_xmm(m, 12, 10, 20);
    assert_int_equal(RUN(m, 0x66, 0x45, 0x0f, 0xd4, 0xe1), -1); /* paddq xmm12, xmm9 */
    check_xmm(m, 12, 11, 22);
    check_xmm(m, 9, 1, 2);
    assert_int_equal(RUN(m, 0x66, 0x45, 0x0f, 0xd4, 0xc9), -1); /* paddq xmm9, xmm9 */
    check_xmm(m, 9, 2, 4);
    m->cpu.st.gpr[X86_RSP] = DATA - 8;
    m->cpu.st.gpr[X86_R12] = 2;
    memcpy(m->ram + DATA, pair, 16);
    /* paddq xmm12, [rsp + r12*4] */
    assert_int_equal(RUN(m, 0x66, 0x46, 0x0f, 0xd4, 0x24, 0xa4), -1);
    check_xmm(m, 12, 16, 29);
    assert_int_equal(RUN(m, 0x44, 0x0f, 0x11, 0x64, 0x24, 0x18), -1); /* movups [rsp+24], xmm12 */
    memcpy(pair, m->ram + DATA + 16, 16);
    assert_int_equal(pair[0], 16);
    assert_int_equal(pair[1], 29);
    assert_int_equal(RUN(m, 0x66, 0x44, 0x0f, 0x6f, 0x44, 0x24, 8), -1); /* movdqa xmm8, [rsp+8] */
    check_xmm(m, 8, 5, 7);
    assert_int_equal(RUN(m, 0x66, 0x44, 0x0f, 0x6f, 0x44, 0x24, 9), X86_EXC_GP);
    assert_int_equal(RUN(m, 0x66, 0x44, 0x0f, 0xfe, 0x44, 0x24, 4), X86_EXC_GP); /* paddd */
    assert_int_equal(RUN(m, 0xf3, 0x44, 0x0f, 0x6f, 0x44, 0x24, 9), -1);         /* movdqu */
    finish(m);
}

static void sse_gpr_and_flags(void **state)
{
    struct machine *m = start();

    (void)state;
    m->cpu.st.gpr[X86_RSP] = 0x8877665544332211;
    assert_int_equal(RUN(m, 0x66, 0x48, 0x0f, 0x6e, 0xdc), -1); /* movq xmm3, rsp */
    check_xmm(m, 3, 0x8877665544332211, 0);
    m->cpu.st.gpr[X86_R14] = UINT64_MAX;
    assert_int_equal(RUN(m, 0x66, 0x44, 0x0f, 0xd7, 0xf3), -1); /* pmovmskb r14d, xmm3 */
    assert_int_equal(m->cpu.st.gpr[X86_R14], 0x80);
    set_xmm(m, 1, bits(1.0), 0);
    set_xmm(m, 2, bits(2.0), 0);
    assert_int_equal(RUN(m, 0x66, 0x0f, 0x2f, 0xca), -1); /* comisd xmm1, xmm2: below */
    assert_int_equal(m->cpu.cc & 0xd501u, 0x100);
    assert_int_equal(RUN(m, 0x66, 0x0f, 0x2f, 0xc9), -1); /* equal */
    assert_int_equal(m->cpu.cc & 0xd501u, 0x4000);
    assert_int_equal(RUN(m, 0xf2, 0x48, 0x0f, 0x2d, 0xe2), -1); /* cvtsd2si rsp, xmm2 */
    assert_int_equal(m->cpu.st.gpr[X86_RSP], 2);
    finish(m);
}

static void sse_exceptions(void **state)
{
    struct machine *m = start();

    (void)state;
    set_xmm(m, 1, bits(1.0), 0);
    set_xmm(m, 2, 0, 0);
    assert_int_equal(RUN(m, 0xf2, 0x0f, 0x5e, 0xca), -1); /* divsd xmm1, xmm2 */
    check_xmm(m, 1, bits(__builtin_inf()), 0);
    assert_int_equal(fx_get32(&m->cpu, FX_MXCSR), 0x1f84);
    fx_set32(&m->cpu, FX_MXCSR, 0x1d80); /* divide by zero unmasked */
    set_xmm(m, 1, bits(1.0), 0);
    assert_int_equal(RUN(m, 0xf2, 0x0f, 0x5e, 0xca), X86_EXC_XM);
    check_xmm(m, 1, bits(1.0), 0);
    assert_int_equal(fx_get32(&m->cpu, FX_MXCSR), 0x1d84);
    m->cpu.st.cr4 &= ~(uint64_t)X86_CR4_OSXMMEXCPT;
    assert_int_equal(RUN(m, 0xf2, 0x0f, 0x5e, 0xca), X86_EXC_UD);
    m->cpu.st.cr0 |= X86_CR0_TS;
    assert_int_equal(RUN(m, 0xf2, 0x0f, 0x5e, 0xca), X86_EXC_NM);
    m->cpu.st.cr4 &= ~(uint64_t)X86_CR4_OSFXSR;
    assert_int_equal(RUN(m, 0xf2, 0x0f, 0x5e, 0xca), X86_EXC_UD);
    finish(m);
}

static void avx(void **state)
{
    struct machine *m = start();
    uint64_t quad[4] = {1, 2, 3, 4};

    (void)state;
    if (!__builtin_cpu_supports("avx2"))
        skip();
    memcpy(m->ram + DATA, quad, 32);
    m->cpu.st.gpr[X86_R13] = DATA;
    assert_int_equal(RUN(m, 0xc4, 0x41, 0x7e, 0x6f, 0x7d, 0x00), -1); /* vmovdqu ymm15, [r13] */
    check_xmm(m, 15, 1, 2);
    assert_int_equal(fx_get64(&m->cpu, X86_XSAVE_YMM + 15 * 16 + 8), 4);
    assert_int_equal(RUN(m, 0xc4, 0x41, 0x05, 0xd4, 0x45, 0x00), -1); /* vpaddq ymm8,ymm15,[r13] */
    check_xmm(m, 8, 2, 4);
    assert_int_equal(fx_get64(&m->cpu, X86_XSAVE_YMM + 8 * 16), 6);
    assert_int_equal(RUN(m, 0xc4, 0x41, 0x01, 0xd4, 0xc7), -1); /* vpaddq xmm8, xmm15, xmm15 */
    check_xmm(m, 8, 2, 4);
    assert_int_equal(fx_get64(&m->cpu, X86_XSAVE_YMM + 8 * 16), 0);
    assert_int_equal(RUN(m, 0xc4, 0x41, 0x7c, 0x28, 0x7d, 0x01), X86_EXC_GP); /* vmovaps */
    m->cpu.st.xcr0 = 3;
    assert_int_equal(RUN(m, 0xc4, 0x41, 0x05, 0xd4, 0x45, 0x00), X86_EXC_UD);
    finish(m);
}

static void x87(void **state)
{
    struct machine *m = start();
    double d = 1.5;
    uint16_t fsw;

    (void)state;
    memcpy(m->ram + DATA, &d, 8);
    m->cpu.st.gpr[X86_RDX] = DATA;
    assert_int_equal(RUN(m, 0xd9, 0xe8), -1); /* fld1 */
    assert_int_equal(RUN(m, 0xdc, 0x02), -1); /* fadd qword [rdx] */
    assert_int_equal(fx_get64(&m->cpu, FX_FDP), DATA);
    assert_int_equal(fx_get64(&m->cpu, FX_FIP), 0x400);
    assert_int_equal(RUN(m, 0xdd, 0x5a, 8), -1); /* fstp qword [rdx+8] */
    memcpy(&d, m->ram + DATA + 8, 8);
    assert_true(d == 2.5);
    assert_int_equal(m->cpu.st.xsave[FX_FTW], 0);
    /* Stack underflow, unmasked: nothing is stored, the next waiting instruction reports it. */
    fx_set16(&m->cpu, FX_FCW, 0x37e);
    assert_int_equal(RUN(m, 0xdd, 0x12), -1); /* fst qword [rdx] */
    memcpy(&d, m->ram + DATA, 8);
    assert_true(d == 1.5);
    assert_int_equal(RUN(m, 0xdf, 0xe0), -1); /* fnstsw ax */
    fsw = (uint16_t)m->cpu.st.gpr[X86_RAX];
    assert_int_equal(fsw & 0xc1, 0xc1);
    assert_int_equal(RUN(m, 0xd9, 0xe8), X86_EXC_MF);
    assert_int_equal(RUN(m, 0x9b), X86_EXC_MF); /* fwait */
    assert_int_equal(RUN(m, 0xdb, 0xe2), -1);   /* fnclex */
    assert_int_equal(RUN(m, 0x9b), -1);
    assert_int_equal(RUN(m, 0xdb, 0xe3), -1); /* fninit */
    assert_int_equal(fx_get16(&m->cpu, FX_FCW), FCW_DEFAULT);
    m->cpu.st.cr0 |= X86_CR0_EM;
    assert_int_equal(RUN(m, 0xd9, 0xe8), X86_EXC_NM);
    finish(m);
}

static void mmx(void **state)
{
    struct machine *m = start();

    (void)state;
    m->cpu.st.gpr[X86_RBX] = 0x0102030405060708;
    assert_int_equal(RUN(m, 0x48, 0x0f, 0x6e, 0xeb), -1); /* movq mm5, rbx */
    assert_int_equal(RUN(m, 0x0f, 0xfc, 0xed), -1);       /* paddb mm5, mm5 */
    assert_int_equal(m->cpu.st.xsave[FX_FTW], 0xff);
    assert_int_equal(RUN(m, 0xf3, 0x44, 0x0f, 0xd6, 0xf5), -1); /* movq2dq xmm14, mm5 */
    check_xmm(m, 14, 0x020406080a0c0e10, 0);
    assert_int_equal(RUN(m, 0x0f, 0x77), -1); /* emms */
    assert_int_equal(m->cpu.st.xsave[FX_FTW], 0);
    finish(m);
}

static void state_images(void **state)
{
    struct machine *m = start();
    uint64_t header;

    (void)state;
    m->cpu.st.gpr[X86_RDI] = DATA;
    m->cpu.st.gpr[X86_RAX] = 7;
    set_xmm(m, 5, 55, 66);
    assert_int_equal(RUN(m, 0x0f, 0xae, 0x27), -1); /* xsave [rdi] */
    memcpy(&header, m->ram + DATA + 512, 8);
    assert_int_equal(header, 2);
    set_xmm(m, 5, 0, 0);
    assert_int_equal(RUN(m, 0x0f, 0xae, 0x2f), -1); /* xrstor [rdi] */
    check_xmm(m, 5, 55, 66);
    m->ram[DATA + 512 + 8] = 1; /* reserved in the header */
    assert_int_equal(RUN(m, 0x0f, 0xae, 0x2f), X86_EXC_GP);
    assert_int_equal(RUN(m, 0x0f, 0xc7, 0x27), -1); /* xsavec [rdi] */
    memcpy(&header, m->ram + DATA + 520, 8);
    assert_int_equal(header, 0x8000000000000007);
    set_xmm(m, 5, 0, 0);
    assert_int_equal(RUN(m, 0x0f, 0xae, 0x2f), -1);
    check_xmm(m, 5, 55, 66);
    assert_int_equal(RUN(m, 0x48, 0x0f, 0xae, 0x47, 0x10), -1); /* fxsave64 [rdi+16] */
    assert_int_equal(RUN(m, 0x48, 0x0f, 0xae, 0x47, 0x11), X86_EXC_GP);
    m->ram[DATA + 16 + FX_MXCSR + 2] = 1;
    assert_int_equal(RUN(m, 0x48, 0x0f, 0xae, 0x4f, 0x10), X86_EXC_GP); /* fxrstor64 */
    finish(m);
}

/* Which of ZMM0 to 15 keep their upper halves, by a bit for each. */
static unsigned wide(const struct machine *m)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < 16; i++)
        kept |= (unsigned)(m->cpu.st.xsave[X86_XSAVE_ZMM_HI + 32 * i + 31] != 0) << i;
    return kept;
}

#define WIDE_AFTER(m, ...)                                                                         \
    (memset((m)->cpu.st.xsave + X86_XSAVE_ZMM_HI, 2, 512),                                         \
     assert_int_equal(RUN(m, __VA_ARGS__), -1), wide(m))

static void wide_results_are_cleared(struct machine *m)
{
    m->cpu.st.gpr[X86_RDI] = DATA;
    assert_int_equal(WIDE_AFTER(m, 0x0f, 0x58, 0xc1), 0xffff);             /* addps xmm0 */
    assert_int_equal(WIDE_AFTER(m, 0xc5, 0xd0, 0x58, 0xd9), 0xfff7);       /* vaddps xmm3, 5, 1 */
    assert_int_equal(WIDE_AFTER(m, 0xc4, 0x41, 0x7c, 0x10, 0xf9), 0x7fff); /* vmovups ymm15, ymm9 */
    assert_int_equal(WIDE_AFTER(m, 0xc4, 0x41, 0x7c, 0x11, 0xf9), 0xfdff); /* ymm9, ymm15 */
    assert_int_equal(WIDE_AFTER(m, 0xc5, 0xfc, 0x10, 0x27), 0xffef);       /* vmovups ymm4, [rdi] */
    assert_int_equal(WIDE_AFTER(m, 0xc5, 0xfc, 0x11, 0x27), 0xffff);       /* [rdi], ymm4 */
    assert_int_equal(WIDE_AFTER(m, 0xc5, 0xc9, 0x71, 0xd2, 1), 0xffbf);    /* vpsrlw xmm6, 2, 1 */
    assert_int_equal(WIDE_AFTER(m, 0xc5, 0xf8, 0x2e, 0xc1), 0xffff);       /* vucomiss */
    assert_int_equal(WIDE_AFTER(m, 0xc4, 0xe3, 0x71, 0x4a, 0xea, 0x40), 0xffdf); /* vblendvps 5 */
    assert_int_equal(WIDE_AFTER(m, 0xc4, 0xe3, 0x79, 0x62, 0xd1, 0), 0xfffe);    /* vpcmpistrm */
    assert_int_equal(WIDE_AFTER(m, 0xc4, 0xe2, 0x69, 0x2c, 0x0f), 0xfffd); /* vmaskmovps xmm1 */
    assert_int_equal(WIDE_AFTER(m, 0xc4, 0xe2, 0x69, 0x2e, 0x0f), 0xffff); /* its store */
}

/*
 * AVX-512's state, which no instruction of ours makes: saved and restored in the places of the
 * guest's processor, and kept out of what another engine has to do.
 */
static void wide_state_is_held(void **state)
{
    struct machine *m;
    struct x86_cpuid id = {.xsave_at = {[2] = 0x240, [5] = 0x340, [6] = 0x380, [7] = 0x580}};
    uint64_t header;
    uint8_t *x;

    (void)state;
    if (!__builtin_cpu_supports("avx"))
        skip();
    m = start();
    x = m->cpu.st.xsave;
    memset(id.feature, 1, sizeof(id.feature));
    m->vm.env.cpuid = &id;
    m->vm.env.visiting = true;
    m->cpu.st.xcr0 = 0xe7;
    m->cpu.st.gpr[X86_RDI] = DATA;
    m->cpu.st.gpr[X86_RAX] = 0xe7;
    x[X86_XSAVE_OPMASK + 63] = 1;
    x[X86_XSAVE_ZMM_HI + 511] = 2;
    x[X86_XSAVE_HI16_ZMM + 1023] = 3;
    assert_int_equal(RUN(m, 0x0f, 0xae, 0x27), -1); /* xsave [rdi] */
    memcpy(&header, m->ram + DATA + 512, 8);
    assert_int_equal(header, 0xe0);
    assert_int_equal(m->ram[DATA + 0x340 + 63], 1);
    assert_int_equal(m->ram[DATA + 0x380 + 511], 2);
    assert_int_equal(m->ram[DATA + 0x580 + 1023], 3);
    memset(x + X86_XSAVE_OPMASK, 0, 1600);
    assert_int_equal(RUN(m, 0x0f, 0xae, 0x2f), -1); /* xrstor [rdi] */
    assert_int_equal(x[X86_XSAVE_OPMASK + 63], 1);
    assert_int_equal(x[X86_XSAVE_ZMM_HI + 511], 2);
    assert_int_equal(x[X86_XSAVE_HI16_ZMM + 1023], 3);
    memset(m->ram + DATA, 0, 4096);
    m->cpu.st.gpr[X86_RAX] = 0xc3;                  /* neither YMM nor opmasks: packed */
    assert_int_equal(RUN(m, 0x0f, 0xc7, 0x27), -1); /* xsavec [rdi] */
    memcpy(&header, m->ram + DATA + 520, 8);
    assert_int_equal(header, 0x80000000000000c3);
    assert_int_equal(m->ram[DATA + 0x240 + 511], 2);
    assert_int_equal(m->ram[DATA + 0x440 + 1023], 3);
    m->cpu.long_code = false; /* of ZMM0 to 7 alone */
    memset(m->ram + DATA, 0, 4096);
    m->cpu.st.gpr[X86_RAX] = 0xe7;
    assert_int_equal(RUN(m, 0x0f, 0xae, 0x27), -1);
    assert_int_equal(m->ram[DATA + 0x380 + 511], 0);
    assert_int_equal(m->ram[DATA + 0x580 + 1023], 0);
    m->cpu.long_code = true;
    wide_results_are_cleared(m);
    assert_int_equal(RUN(m, 0xc5, 0xf8, 0x77), -1); /* vzeroupper */
    assert_int_equal(x[X86_XSAVE_ZMM_HI + 511], 0);
    assert_int_equal(x[X86_XSAVE_HI16_ZMM + 1023], 3);
    m->cpu.st.xcr0 = 7;
    assert_int_equal(RUN(m, 0xc5, 0xf8, 0x58, 0xc1), -1);
    finish(m);
}

static void control_bits_refuse(void **state)
{
    struct machine *m = start();
    struct soft_cpu *cpu = &m->cpu;

    (void)state;
    cpu->st.cr0 |= X86_CR0_TS;
    assert_int_equal(RUN(m, 0xd9, 0xe8), X86_EXC_NM);       /* fld1 */
    assert_int_equal(RUN(m, 0x9b), X86_EXC_NM);             /* fwait: MP is set */
    assert_int_equal(RUN(m, 0x0f, 0xfc, 0xc1), X86_EXC_NM); /* paddb mm0, mm1 */
    assert_int_equal(RUN(m, 0x0f, 0xae, 0x07), X86_EXC_NM); /* fxsave */
    cpu->st.cr0 &= ~(uint64_t)X86_CR0_MP;
    assert_int_equal(RUN(m, 0x9b), -1);
    cpu->st.cr0 = (cpu->st.cr0 & ~(uint64_t)X86_CR0_TS) | X86_CR0_EM;
    assert_int_equal(RUN(m, 0x0f, 0xfc, 0xc1), X86_EXC_UD);
    assert_int_equal(RUN(m, 0x0f, 0x58, 0xc1), X86_EXC_UD); /* addps */
    cpu->st.cr0 &= ~(uint64_t)X86_CR0_EM;
    cpu->st.cr4 &= ~(uint64_t)X86_CR4_OSXSAVE;
    assert_int_equal(RUN(m, 0x0f, 0xae, 0x27), X86_EXC_UD);       /* xsave */
    assert_int_equal(RUN(m, 0xc5, 0xf8, 0x58, 0xc1), X86_EXC_UD); /* vaddps */
    cpu->st.cr4 |= X86_CR4_OSXSAVE;
    cpu->st.cr0 &= ~(uint64_t)X86_CR0_PE; /* VEX needs protected mode */
    assert_int_equal(RUN(m, 0xc5, 0xf8, 0x58, 0xc1), X86_EXC_UD);
    finish(m);
}

static void hidden_features_are_undefined(void **state)
{
    struct machine *m = start();
    struct x86_cpuid id = {0};

    (void)state;
    m->vm.env.cpuid = &id; /* nothing at all */
    assert_int_equal(RUN(m, 0x66, 0x0f, 0xd4, 0xca), X86_EXC_UD);
    id.feature[X86_FEAT_SSE2] = true;
    assert_int_equal(RUN(m, 0x66, 0x0f, 0xd4, 0xca), -1);
    id.feature[X86_FEAT_AES] = true; /* the VEX form needs AVX too */
    assert_int_equal(RUN(m, 0xc4, 0xe2, 0x71, 0xdc, 0xc2), X86_EXC_UD);
    finish(m);
}

/* An element that faults leaves those before it done, so that the gather goes on from there. */
static void gather_keeps_what_is_done(void **state)
{
    struct machine *m = start();
    uint32_t index[4] = {0, 1, RAM_SIZE, 2}, mask[4], value[4] = {10, 20, 30, 40};

    (void)state;
    memset(mask, 0xff, sizeof(mask));
    memcpy(m->ram + DATA, value, 16);
    memcpy(m->cpu.st.xsave + FX_XMM + 16, index, 16);
    memcpy(m->cpu.st.xsave + FX_XMM + 32, mask, 16);
    m->cpu.st.gpr[X86_RDX] = DATA;
    /* vpgatherdd xmm0, [rdx + xmm1*4], xmm2 */
    assert_int_equal(RUN(m, 0xc4, 0xe2, 0x69, 0x90, 0x04, 0x8a), X86_EXC_PF);
    check_xmm(m, 0, 10 | 20ull << 32, 0);
    check_xmm(m, 2, 0, UINT64_MAX);
    index[2] = 3;
    memcpy(m->cpu.st.xsave + FX_XMM + 16, index, 16);
    assert_int_equal(RUN(m, 0xc4, 0xe2, 0x69, 0x90, 0x04, 0x8a), -1);
    check_xmm(m, 0, 10 | 20ull << 32, 40 | 30ull << 32);
    check_xmm(m, 2, 0, 0);
    finish(m);
}

static void environment_formats(void **state)
{
    struct machine *m = start();
    uint16_t words[7];

    (void)state;
    m->cpu.st.gpr[X86_RDI] = DATA;
    fx_set64(&m->cpu, FX_FIP, 0x12345);
    fx_set64(&m->cpu, FX_FDP, 0x6789a);
    fx_set16(&m->cpu, FX_FOP, 0x123);
    assert_int_equal(RUN(m, 0xd9, 0x37), -1); /* fnstenv: 32-bit protected */
    assert_int_equal(*(uint32_t *)(void *)(m->ram + DATA + 12), 0x12345);
    assert_int_equal(*(uint32_t *)(void *)(m->ram + DATA + 16), 0x123u << 16);
    m->cpu.st.cr0 &= ~(uint64_t)X86_CR0_PE;
    assert_int_equal(RUN(m, 0x66, 0xd9, 0x37), -1); /* 16-bit real */
    memcpy(words, m->ram + DATA, sizeof(words));
    assert_int_equal(words[2], 0xffff);
    assert_int_equal(words[3], 0x2345);
    assert_int_equal(words[4], 0x1123);
    assert_int_equal(words[5], 0x789a);
    assert_int_equal(words[6], 0x6000);
    fx_set64(&m->cpu, FX_FIP, 0);
    fx_set64(&m->cpu, FX_FDP, 0);
    assert_int_equal(RUN(m, 0x66, 0xd9, 0x27), -1); /* fldenv */
    assert_int_equal(fx_get64(&m->cpu, FX_FIP), 0x12345);
    assert_int_equal(fx_get64(&m->cpu, FX_FDP), 0x6789a);
    assert_int_equal(fx_get16(&m->cpu, FX_FOP), 0x123);
    finish(m);
}

/* Whatever the table lets through must run on this host without harm. */
static void random_bytes_do_no_harm(void **state)
{
    struct machine *m = start();
    uint64_t seed = 88172645463325252u;
    unsigned ran = 0, i, k;

    (void)state;
    for (i = 0; i < 3000000; i++) {
        static const uint8_t lead[] = {0x0f, 0x66, 0xf2, 0xf3, 0xc4, 0xc5, 0x48, 0x0f};
        uint8_t bytes[15];
        struct x86_insn in;

        for (k = 0; k < sizeof(bytes); k++) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            bytes[k] = (uint8_t)(seed >> 32);
        }
        switch (i & 3u) {
        case 0:
            bytes[0] = (uint8_t)(0xd8 | (bytes[0] & 7));
            break;
        case 1:
            bytes[0] = lead[bytes[0] & 7];
            bytes[1] = 0x0f;
            break;
        default:
            bytes[0] = lead[bytes[0] & 7];
            break;
        }
        if (x86_decode(bytes, sizeof(bytes), (enum x86_mode)(seed % 3), &in) < 0)
            continue;
        if (in.op < X86_FXSAVE)
            continue;
        for (k = 0; k < 16; k++)
            m->cpu.st.gpr[k] = seed >> (k + 20) & 0xfff0;
        m->cpu.long_code = in.mode == X86_MODE_64;
        fx_set32(&m->cpu, FX_MXCSR, (uint32_t)(seed >> 40) & 0xffff);
        if ((i & 15u) != 0) {
            fx_set16(&m->cpu, FX_FCW, FCW_DEFAULT);
        }
        ran += run_insn(m, &in, bytes) == -1;
    }
    assert_true(ran > 100000);
    print_message("%u ran\n", ran);
    finish(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sse_registers_and_memory),
        cmocka_unit_test(sse_gpr_and_flags),
        cmocka_unit_test(sse_exceptions),
        cmocka_unit_test(avx),
        cmocka_unit_test(x87),
        cmocka_unit_test(mmx),
        cmocka_unit_test(state_images),
        cmocka_unit_test(control_bits_refuse),
        cmocka_unit_test(wide_state_is_held),
        cmocka_unit_test(hidden_features_are_undefined),
        cmocka_unit_test(gather_keeps_what_is_done),
        cmocka_unit_test(environment_formats),
        cmocka_unit_test(random_bytes_do_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
