/* The kvm engine alone on the fake: what a whole guest would meet too rarely. */
#include <errno.h>
#include <linux/kvm.h>
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

/* ---- what stands in the way, said so that a person can act on it ---- */

/* An emulator that looks at each instruction, as KVMs without hardware do, and is as slow. */
static bool looks(void *ctx, const uint8_t *bytes, unsigned len)
{
    (void)ctx;
    (void)bytes;
    (void)len;
    return false;
}

/* A KVM with this fault or without this capability: the engine says no, and these words. */
static void refuses(const struct kvm_fake_fault *fault, uint32_t missing, bool choose,
                    const char *words)
{
    const struct kvm_fake_options options = {.faults = fault,
                                             .fault_count = fault != NULL ? 1 : 0,
                                             .missing = &missing,
                                             .missing_count = missing != 0 ? 1 : 0,
                                             .fails = choose ? looks : NULL};
    struct kvm_fake *fake = kvm_fake_create(&options);
    struct engine_env env = {.kvm = kvm_fake_sys(fake), .cpus = 1};
    struct error err = {0};
    void *vm;
    int rc = engine_kvm.probe(&env, choose, &err);

    if (rc == 0 && !choose) /* what only shows when a VM is made */
        rc = engine_kvm.vm_create(&env, &vm, &err);
    check(rc < 0 && strstr(err.text, words) != NULL, words);
    kvm_fake_destroy(fake);
}

static void refusals(void)
{
    refuses(&(struct kvm_fake_fault){0, ENOENT, true}, 0, false, "there is no /dev/kvm");
    refuses(&(struct kvm_fake_fault){0, EACCES, true}, 0, false, "add yourself to its group");
    refuses(&(struct kvm_fake_fault){0, ENODEV, true}, 0, false, "load kvm_intel or kvm_amd");
    refuses(&(struct kvm_fake_fault){0, EBUSY, true}, 0, false, "in use by another hypervisor");
    refuses(&(struct kvm_fake_fault){KVM_CREATE_VM, EBUSY, true}, 0, false, "another hypervisor");
    refuses(&(struct kvm_fake_fault){KVM_CREATE_VM, ENOMEM, true}, 0, false, "makes no VM");
    refuses(NULL, KVM_CAP_X86_MSR_FILTER, false, "too old: it has no KVM_CAP_X86_MSR_FILTER");
    refuses(NULL, KVM_CAP_IMMEDIATE_EXIT, false, "too old: it has no KVM_CAP_IMMEDIATE_EXIT");
    refuses(NULL, 0, true, "emulates instead of running");
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
    refusals();
    engine_kvm.vcpu_destroy(b.cpu);
    engine_kvm.vm_destroy(b.vm);
    bus_destroy(b.env.bus);
    gmem_destroy(b.env.mem);
    log_destroy(b.env.log);
    kvm_fake_destroy(fake);
    printf("%u checks, %u failed\n", checks, failed);
    return failed != 0;
}
