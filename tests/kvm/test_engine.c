/* The kvm engine alone on the fake: what a whole guest would meet too rarely. */
#include <stdlib.h>
#include <string.h>

#include "engine/kvm/kvm.h"
#include "fake.h"
#include "mem/gmem.h"

#define CODE 0x1000u
#define HANDLER 0x2000u
#define VECTOR 0x40u

static unsigned checks, failed;

static void check(bool ok, const char *what)
{
    checks++;
    if (ok)
        return;
    failed++;
    printf("FAIL %s\n", what);
}

/* ---- a local APIC that has at most one interrupt ---- */

static bool waits;

static bool pending(void *ctx, unsigned cpu)
{
    (void)ctx;
    (void)cpu;
    return waits;
}

static int ack(void *ctx, unsigned cpu)
{
    (void)ctx;
    (void)cpu;
    if (!waits)
        return -1;
    waits = false;
    return VECTOR;
}

static int msr(void *ctx, unsigned cpu, uint32_t index, uint64_t *value)
{
    (void)ctx;
    (void)cpu;
    *value = 0xfee00900;
    return index == 0x1b ? 0 : -1;
}

static uint8_t get_cr8(void *ctx, unsigned cpu)
{
    (void)ctx;
    (void)cpu;
    return 0;
}

static void set_cr8(void *ctx, unsigned cpu, uint8_t value)
{
    (void)ctx;
    (void)cpu;
    (void)value;
}

static const struct lapic_cpu_ops lapic = {
    .pending = pending, .ack = ack, .msr_read = msr, .get_cr8 = get_cr8, .set_cr8 = set_cr8};

/* ---- checks ---- */

struct bench {
    struct engine_env env;
    struct x86_cpuid cpuid;
    void *vm, *cpu;
};

/* Real mode; a handler that halts. */
static void halted_at_code(struct x86_state *st)
{
    x86_state_reset(st, true);
    memset(&st->seg[X86_CS], 0, sizeof(st->seg[X86_CS]));
    st->seg[X86_CS].attr = 0x9b;
    st->seg[X86_CS].limit = 0xffff;
    st->rip = CODE;
    st->gpr[X86_RSP] = 0x8000;
    st->rflags = X86_FL_FIXED | X86_FL_IF;
    st->mp_state = X86_MP_HALTED;
}

/* A state that comes from another engine says that the vCPU sleeps; an interrupt wakes it. */
static void halted_elsewhere(struct bench *b)
{
    static struct x86_state st;
    struct error err = {0};
    struct vcpu_exit x;

    halted_at_code(&st);
    check(engine_kvm.set(b->cpu, &st, &err) == 0, "a halted vCPU's state is taken");
    check(engine_kvm.run(b->cpu, 0, &x) == 0 && x.reason == VCPU_EXIT_HLT && x.rip == CODE,
          "it sleeps");
    waits = true;
    engine_kvm.interrupt(b->cpu);
    check(engine_kvm.run(b->cpu, 0, &x) == 0 && x.reason == VCPU_EXIT_HLT && x.rip == HANDLER + 1,
          "an interrupt wakes it");
    check(!waits, "and is taken");
}

static void kicked(struct bench *b)
{
    struct vcpu_exit x;

    engine_kvm.kick(b->cpu);
    check(engine_kvm.run(b->cpu, 0, &x) == 0 && x.reason == VCPU_EXIT_INTERRUPTED,
          "a kick before it runs is not lost");
}

/* With interrupts off it sleeps on, and the VM is told that nothing will wake it. */
static void halted_for_good(struct bench *b)
{
    static struct x86_state st;
    struct error err = {0};
    struct vcpu_exit x;

    halted_at_code(&st);
    st.rflags = X86_FL_FIXED;
    check(engine_kvm.set(b->cpu, &st, &err) == 0, "one with interrupts off, too");
    waits = true;
    engine_kvm.interrupt(b->cpu);
    check(engine_kvm.run(b->cpu, 0, &x) == 0 && x.reason == VCPU_EXIT_HLT && x.interrupts_off,
          "it sleeps for good");
    check(waits, "the interrupt still waits");
    engine_kvm.get(b->cpu, &st);
    check(st.mp_state == X86_MP_HALTED && st.rip == CODE, "and the state says so");
}

static int open_bench(struct bench *b, struct kvm_fake *fake)
{
    struct error err = {0};
    int rc;

    b->env.kvm = kvm_fake_sys(fake);
    b->env.cpus = 1;
    b->env.lapic = &lapic;
    b->env.cpuid = &b->cpuid;
    b->env.log = log_create(2, LOG_WARN);
    b->env.mem = gmem_create(1 << 20, &err);
    b->env.bus = bus_create(b->env.log);
    rc = x86_cpuid_create(&b->cpuid, "host", NULL, 2000000000, &err);
    if (rc == 0)
        rc = engine_kvm.cpuid(&b->env, "host", &b->cpuid, &err);
    if (rc == 0)
        rc = engine_kvm.vm_create(&b->env, &b->vm, &err);
    if (rc == 0)
        rc = engine_kvm.vcpu_create(b->vm, 0, &b->cpu, &err);
    if (rc != 0)
        printf("FAIL %s\n", err.text);
    return rc;
}

int main(void)
{
    static struct bench b;
    static const uint8_t hlt = 0xf4;
    static const uint16_t entry[2] = {HANDLER, 0};
    struct kvm_fake *fake = kvm_fake_create(NULL);

    if (open_bench(&b, fake) != 0)
        return 1;
    gmem_write(b.env.mem, CODE, &hlt, 1);
    gmem_write(b.env.mem, HANDLER, &hlt, 1);
    gmem_write(b.env.mem, 4 * VECTOR, entry, sizeof(entry));
    halted_elsewhere(&b);
    kicked(&b);
    halted_for_good(&b);
    engine_kvm.vcpu_destroy(b.cpu);
    engine_kvm.vm_destroy(b.vm);
    bus_destroy(b.env.bus);
    gmem_destroy(b.env.mem);
    log_destroy(b.env.log);
    kvm_fake_destroy(fake);
    printf("%u checks, %u failed\n", checks, failed);
    return failed != 0;
}
