#include "engine/null/null.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "host/clock.h"

struct null_cpu {
    atomic_bool kicked;
    struct vcpu_stats stats;
    struct x86_state state;
};

static int null_probe(const struct engine_env *env, bool choose, struct error *err)
{
    (void)env;
    (void)choose;
    (void)err;
    return 0;
}

/* There is nothing to a VM but its vCPUs; the pointer only has to be one. */
static int null_vm_create(const struct engine_env *env, void **vm, struct error *err)
{
    (void)err;
    log_info(env->log, "the null engine runs no instructions");
    *vm = env->bus;
    return 0;
}

static void null_vm_destroy(void *vm)
{
    (void)vm;
}

static int null_vcpu_create(void *vm, unsigned id, void **vcpu, struct error *err)
{
    struct null_cpu *cpu = aligned_alloc(_Alignof(struct null_cpu), sizeof(*cpu));

    (void)vm;
    if (cpu == NULL)
        return error_set(err, -ENOMEM, "no memory for a vCPU");
    memset(cpu, 0, sizeof(*cpu));
    x86_state_reset(&cpu->state, id == 0);
    *vcpu = cpu;
    return 0;
}

static void null_get(void *vcpu, struct x86_state *out)
{
    const struct null_cpu *cpu = vcpu;

    *out = cpu->state;
}

static int null_set(void *vcpu, const struct x86_state *in, struct error *err)
{
    struct null_cpu *cpu = vcpu;

    (void)err;
    cpu->state = *in;
    return 0;
}

/* As if the guest's next instruction were HLT with interrupts on: the thread goes to sleep. */
static int null_run(void *vcpu, uint64_t budget, struct vcpu_exit *exit)
{
    struct null_cpu *cpu = vcpu;

    (void)budget;
    exit->rip = cpu->state.rip;
    exit->interrupts_off = false;
    if (atomic_exchange(&cpu->kicked, false)) {
        exit->reason = VCPU_EXIT_INTERRUPTED;
        return 0;
    }
    cpu->stats.halts++;
    exit->reason = VCPU_EXIT_HLT;
    return 0;
}

static void null_kick(void *vcpu)
{
    struct null_cpu *cpu = vcpu;

    atomic_store(&cpu->kicked, true); /* pairs with the exchange in null_run */
}

/* Interrupts wait at the local APIC for ever. */
static void null_interrupt(void *vcpu)
{
    (void)vcpu;
}

static uint64_t null_tsc(void *vcpu)
{
    const struct null_cpu *cpu = vcpu;

    return host_tsc() + cpu->state.tsc_offset;
}

static void null_stats(void *vcpu, struct vcpu_stats *out)
{
    const struct null_cpu *cpu = vcpu;

    *out = cpu->stats;
}

const struct engine_ops engine_null = {
    .name = "null",
    .summary = "runs nothing; for looking at the machine",
    .probe = null_probe,
    .vm_create = null_vm_create,
    .vm_destroy = null_vm_destroy,
    .vcpu_create = null_vcpu_create,
    .vcpu_destroy = free,
    .get = null_get,
    .set = null_set,
    .run = null_run,
    .kick = null_kick,
    .interrupt = null_interrupt,
    .nmi = null_interrupt,
    .tsc = null_tsc,
    .stats = null_stats,
};
