/*
 * Checks of what CPUID offers beyond instructions of user code: registers that must be there, and
 * keep what is written. A processor of the model "host" at CPL 0 in 64-bit mode.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "bus/bus.h"
#include "bus/irq.h"
#include "engine/engine.h"
#include "host/clock.h"
#include "mem/gmem.h"
#include "oracle.h"
#include "x86/cpuid.h"

extern const struct engine_ops engine_soft;

#define A_PML4 0x1000u
#define A_PDPT 0x2000u
#define A_PD 0x3000u
#define A_CODE 0x8000u
#define A_DATA 0x10000u
#define RAM 0x200000u

struct box {
    struct x86_cpuid cpuid;
    struct engine_env env;
    struct x86_state st;
    void *vm, *vcpu;
};

static bool box_open(struct box *b)
{
    struct host_tsc_sample sample = host_tsc_sample();
    struct error err = {0};
    uint64_t table[] = {A_PDPT | 3, A_PD | 3, 0x83};

    usleep(20000);
    memset(b, 0, sizeof(*b));
    if (x86_cpuid_create(&b->cpuid, "host", NULL, host_tsc_hz(sample), &err) < 0)
        return false;
    b->env = (struct engine_env){.cpuid = &b->cpuid, .cpus = 1, .strict_msr = true};
    b->env.log = log_create(2, LOG_ERROR);
    b->env.mem = gmem_create(RAM, &err);
    b->env.bus = bus_create(b->env.log);
    b->env.irqs = irq_router_create(b->env.log);
    if (b->env.mem == NULL || engine_soft.vm_create(&b->env, &b->vm, &err) < 0 ||
        engine_soft.vcpu_create(b->vm, 0, &b->vcpu, &err) < 0) {
        printf("oracle: %s\n", err.text);
        return false;
    }
    gmem_write(b->env.mem, A_PML4, &table[0], 8);
    gmem_write(b->env.mem, A_PDPT, &table[1], 8);
    gmem_write(b->env.mem, A_PD, &table[2], 8);
    return true;
}

static void box_close(struct box *b)
{
    if (b->vcpu != NULL)
        engine_soft.vcpu_destroy(b->vcpu);
    if (b->vm != NULL)
        engine_soft.vm_destroy(b->vm);
    irq_router_destroy(b->env.irqs);
    bus_destroy(b->env.bus);
    gmem_destroy(b->env.mem);
    log_destroy(b->env.log);
}

static void box_reset(struct box *b)
{
    x86_state_reset(&b->st, true);
    b->st.cr0 = X86_CR0_PE | X86_CR0_NE | X86_CR0_PG | X86_CR0_ET;
    b->st.cr3 = A_PML4;
    b->st.cr4 = X86_CR4_PAE | X86_CR4_OSFXSR | X86_CR4_OSXSAVE;
    b->st.efer = X86_EFER_LME | X86_EFER_LMA;
    b->st.xcr0 = b->cpuid.xcr0_mask;
    b->st.seg[X86_CS] = (struct x86_segment){.selector = 8, .attr = 0xa09b, .limit = UINT32_MAX};
    b->st.seg[X86_DS] = b->st.seg[X86_ES] = b->st.seg[X86_SS] =
        (struct x86_segment){.selector = 16, .attr = 0xc093, .limit = UINT32_MAX};
    b->st.idtr.limit = 0; /* an exception is a shutdown */
    b->st.rip = A_CODE;
    b->st.rflags = X86_FL_FIXED;
}

/* Runs the bytes to their HLT; false if something else came. */
static bool box_run(struct box *b, const void *code, size_t len)
{
    struct vcpu_exit exit = {.reason = VCPU_EXIT_FAIL};
    struct error err = {0};

    gmem_fill(b->env.mem, A_CODE, 0xf4, 64);
    gmem_write(b->env.mem, A_CODE, code, len);
    if (engine_soft.set(b->vcpu, &b->st, &err) < 0)
        return false;
    engine_soft.run(b->vcpu, 100, &exit);
    engine_soft.get(b->vcpu, &b->st);
    return exit.reason == VCPU_EXIT_HLT;
}

static bool read_msr(struct box *b, uint32_t msr, uint64_t *v)
{
    box_reset(b);
    b->st.gpr[X86_RCX] = msr;
    if (!box_run(b, "\x0f\x32", 2))
        return false;
    *v = b->st.gpr[X86_RDX] << 32 | (uint32_t)b->st.gpr[X86_RAX];
    return true;
}

/* Writes, and reads in the same run what is there then. */
static bool write_msr(struct box *b, uint32_t msr, uint64_t v, uint64_t *after)
{
    box_reset(b);
    b->st.gpr[X86_RCX] = msr;
    b->st.gpr[X86_RAX] = (uint32_t)v;
    b->st.gpr[X86_RDX] = v >> 32;
    if (!box_run(b, after != NULL ? "\x0f\x30\x0f\x32" : "\x0f\x30", after != NULL ? 4 : 2))
        return false;
    if (after != NULL)
        *after = b->st.gpr[X86_RDX] << 32 | (uint32_t)b->st.gpr[X86_RAX];
    return true;
}

/* ---- the checks ---- */

#define MSR_SPEC_CTRL 0x48u
#define MSR_PRED_CMD 0x49u
#define MSR_ARCH_CAPABILITIES 0x10au
#define MSR_MCG_CAP 0x179u
#define MSR_MCG_STATUS 0x17au

/* As many banks as MCG_CAP says can be read; CR4.MCE stays set. */
static bool machine_check(struct box *b)
{
    uint64_t cap, v, bank;

    if (!read_msr(b, MSR_MCG_CAP, &cap) || !read_msr(b, MSR_MCG_STATUS, &v) || v != 0)
        return false;
    for (bank = 0; bank < (cap & 0xff); bank++)
        if (!read_msr(b, 0x401 + 4 * (uint32_t)bank, &v))
            return false;
    box_reset(b);
    b->st.gpr[X86_RAX] = b->st.cr4 | X86_CR4_MCE;
    return box_run(b, "\x0f\x22\xe0", 3) && (b->st.cr4 & X86_CR4_MCE) != 0;
}

/* IBRS, SSBD and BHI_DIS_S are kept, what is not offered is refused, a barrier can be ordered. */
static bool speculation(struct box *b)
{
    static const uint64_t bits[] = {1, 4, 0x400, 0};
    uint64_t v;
    unsigned i;

    for (i = 0; i < countof(bits); i++)
        if (!write_msr(b, MSR_SPEC_CTRL, bits[i], &v) || v != bits[i])
            return false;
    return !write_msr(b, MSR_SPEC_CTRL, 1ull << 40, NULL) && write_msr(b, MSR_PRED_CMD, 1, NULL);
}

static bool capabilities(struct box *b)
{
    uint64_t v;

    return read_msr(b, MSR_ARCH_CAPABILITIES, &v) && v == X86_ARCH_CAPABILITIES &&
           !write_msr(b, MSR_ARCH_CAPABILITIES, v, NULL);
}

/* Leaf 0x40000000 tells the highest of its kind. */
static bool hypervisor(struct box *b)
{
    uint32_t r[4];

    x86_cpuid_query(&b->cpuid, 0x40000000, 0, 0, 1, 0, 1, 0, r);
    return r[0] >= 0x40000000 && r[0] < 0x40000100 && r[1] != 0;
}

/* One alone has no siblings; of two each has its own number, in leaves 1 and 0xB. */
static bool processors(struct box *b)
{
    uint32_t r[4], x[4];
    unsigned cpu;

    x86_cpuid_query(&b->cpuid, 1, 0, 0, 1, 0, 1, 0, r);
    if ((r[3] >> 28 & 1) != 0)
        return false;
    for (cpu = 0; cpu < 2; cpu++) {
        x86_cpuid_query(&b->cpuid, 1, 0, cpu, 2, 0, 1, 0, r);
        x86_cpuid_query(&b->cpuid, 0xb, 1, cpu, 2, 0, 1, 0, x);
        if ((r[3] >> 28 & 1) == 0 || (r[1] >> 16 & 0xff) != 2 || r[1] >> 24 != cpu || x[1] != 2 ||
            x[3] != cpu)
            return false;
    }
    return true;
}

/* As fast as leaf 0x15 says, to two per cent; more than once, since a busy host may interrupt. */
static bool time_stamps(struct box *b)
{
    uint32_t r[4];
    unsigned tries;

    x86_cpuid_query(&b->cpuid, 0x15, 0, 0, 1, 0, 1, 0, r);
    for (tries = 0; tries < 20; tries++) {
        uint64_t t0 = engine_soft.tsc(b->vcpu), n0 = host_tsc_sample().ns, t1, n1;
        double told = (double)r[2] * r[1] / r[0], seen;

        usleep(50000);
        t1 = engine_soft.tsc(b->vcpu);
        n1 = host_tsc_sample().ns;
        seen = (double)(t1 - t0) * 1e9 / (double)(n1 - n0);
        if (seen > told * 0.98 && seen < told * 1.02)
            return true;
    }
    return false;
}

/* XSAVES, the registers cleared, XRSTORS: all is back. The image is in compact format. */
static bool supervisor_state(struct box *b)
{
    static const char code[] = "\x48\x0f\xc7\x2b" /* xsaves64 [rbx] */
                               "\x0f\x57\xc0"     /* xorps xmm0, xmm0 */
                               "\x48\x0f\xc7\x1b" /* xrstors64 [rbx] */;
    uint8_t wanted[16], header[16];
    uint64_t comp;

    box_reset(b);
    memset(wanted, 0x5a, sizeof(wanted));
    memcpy(b->st.xsave + 160, wanted, sizeof(wanted));
    b->st.xsave[X86_XSAVE_HDR] = 7;
    b->st.gpr[X86_RAX] = b->cpuid.xcr0_mask;
    b->st.gpr[X86_RBX] = A_DATA;
    gmem_fill(b->env.mem, A_DATA, 0, 4096);
    if (!box_run(b, code, sizeof(code) - 1))
        return false;
    gmem_read(b->env.mem, A_DATA + X86_XSAVE_HDR, header, sizeof(header));
    memcpy(&comp, header + 8, 8);
    return memcmp(b->st.xsave + 160, wanted, sizeof(wanted)) == 0 &&
           comp == (1ull << 63 | b->cpuid.xcr0_mask);
}

/* FNSTENV after an instruction with a memory operand: both selectors are zero. */
static bool no_selectors(struct box *b)
{
    static const char code[] = "\xd9\x03" /* fld dword [rbx] */
                               "\xd9\x33" /* fnstenv [rbx] */;
    uint8_t env[28];

    box_reset(b);
    b->st.gpr[X86_RBX] = A_DATA;
    gmem_fill(b->env.mem, A_DATA, 0, sizeof(env));
    if (!box_run(b, code, sizeof(code) - 1))
        return false;
    gmem_read(b->env.mem, A_DATA, env, sizeof(env));
    return env[16] == 0 && env[17] == 0 && env[24] == 0 && env[25] == 0;
}

static const struct {
    const char *name;
    bool (*run)(struct box *b);
} checks[] = {
    {"machine check", machine_check},
    {"speculation control", speculation},
    {"architectural capabilities", capabilities},
    {"hypervisor leaves", hypervisor},
    {"processors", processors},
    {"time stamp counter", time_stamps},
    {"XSAVES and XRSTORS", supervisor_state},
    {"x87 selectors", no_selectors},
};

bool oracle_msr_check(const char *name)
{
    struct box b;
    unsigned i;
    bool good = false;

    if (!box_open(&b))
        return false;
    for (i = 0; i < countof(checks); i++)
        if (strcmp(checks[i].name, name) == 0)
            good = checks[i].run(&b);
    box_close(&b);
    return good;
}
