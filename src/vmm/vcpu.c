#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "vmm/change.h"
#include "vmm/internal.h"
#include "vmm/profiler.h"
#include "vmm/rescue.h"

/* vCPU threads: run until an exit, decide, sleep while halted. */

/* ---- signals from local APICs; any thread ---- */

static void vcpu_wake(struct vcpu *v)
{
    atomic_store(&v->wake, true); /* pairs with vcpu_sleep: wake before sleeping, there reversed */
    if (atomic_load(&v->sleeping)) {
        pthread_mutex_lock(&v->lock);
        pthread_cond_signal(&v->wake_up);
        pthread_mutex_unlock(&v->lock);
    }
}

static void vcpu_sleep(struct vcpu *v)
{
    pthread_mutex_lock(&v->lock);
    atomic_store(&v->sleeping, true);
    while (!atomic_load(&v->wake) && !atomic_load(&v->vm->stopping))
        pthread_cond_wait(&v->wake_up, &v->lock);
    atomic_store(&v->sleeping, false);
    atomic_store(&v->wake, false);
    pthread_mutex_unlock(&v->lock);
}

void vcpu_kick(struct vcpu *v)
{
    vcpu_on_kick(v);
    vcpu_wake(v);
}

static struct vcpu *vcpu_of(void *ctx, unsigned cpu)
{
    struct vm *vm = ctx;

    return cpu < vm->cpus && vm->vcpu != NULL && vm->vcpu[cpu].impl[0] != NULL ? &vm->vcpu[cpu]
                                                                               : NULL;
}

static void signal_interrupt(void *ctx, unsigned cpu)
{
    struct vcpu *v = vcpu_of(ctx, cpu);
    struct vcpu_on on;

    if (v == NULL)
        return;
    on = vcpu_on(v);
    on.ops->interrupt(on.impl);
    vcpu_wake(v);
}

static void signal_nmi(void *ctx, unsigned cpu)
{
    struct vcpu *v = vcpu_of(ctx, cpu);
    struct vcpu_on on;

    if (v == NULL)
        return;
    atomic_fetch_add(&v->nmis, 1); /* before engine_on is read: pairs with change_engine */
    on = vcpu_on(v);
    on.ops->nmi(on.impl);
    vcpu_wake(v);
}

static void signal_smi(void *ctx, unsigned cpu)
{
    struct vm *vm = ctx;

    UNIMPLEMENTED(vm->log, "system management interrupt to vCPU %u", cpu);
    vm_stop(vm, VM_ERROR);
}

/* The first one would begin in firmware: a reset of the machine, as chipsets make of it. */
static void signal_init(void *ctx, unsigned cpu)
{
    struct vm *vm = ctx;
    struct vcpu *v = vcpu_of(vm, cpu);

    if (cpu != 0 && v != NULL) {
        startup_init(v);
        return;
    }
    log_info(vm->log, "INIT to vCPU %u: reset", cpu);
    vm_stop(vm, VM_REBOOT);
}

/* A processor that does not wait for it ignores a STARTUP message. */
static void signal_sipi(void *ctx, unsigned cpu, uint8_t vector)
{
    struct vcpu *v = vcpu_of(ctx, cpu);

    if (cpu != 0 && v != NULL)
        startup_sipi(v, vector);
}

static uint64_t signal_tsc_now(void *ctx, unsigned cpu)
{
    struct vcpu *v = vcpu_of(ctx, cpu);

    struct vcpu_on on;

    if (v == NULL)
        return 0;
    on = vcpu_on(v);
    return on.ops->tsc(on.impl);
}

static uint64_t signal_tsc_hz(void *ctx, unsigned cpu)
{
    struct vm *vm = ctx;

    (void)cpu;
    return vm->tsc_hz;
}

const struct vcpu_signal_ops vcpu_signals = {
    .interrupt = signal_interrupt,
    .nmi = signal_nmi,
    .smi = signal_smi,
    .init = signal_init,
    .sipi = signal_sipi,
    .tsc_now = signal_tsc_now,
    .tsc_hz = signal_tsc_hz,
};

/* ---- the run loop ---- */

static void report_io(struct vcpu *v, const char *what, const struct vcpu_exit *x)
{
    log_error(v->vm->log,
              "vCPU %u: %s %s %#llx (%u bytes) at RIP %#llx: nothing is there; "
              "leave out -e to let such accesses pass",
              v->id, x->io.write ? "write to" : "read from", what, (unsigned long long)x->io.addr,
              x->io.size, (unsigned long long)x->rip);
}

/* Returns false when the thread must end. */
static bool vcpu_exit(struct vcpu *v, const struct vcpu_exit *x)
{
    struct vm *vm = v->vm;

    switch (x->reason) {
    case VCPU_EXIT_INTERRUPTED:
    case VCPU_EXIT_BUDGET:
        return true;
    case VCPU_EXIT_HLT:
        if (x->interrupts_off && startup_all_still(v)) { /* nothing can wake one any more */
            log_info(vm->log, "the guest has halted with interrupts off");
            vm_stop(vm, VM_HALT);
            return false;
        }
        vcpu_sleep(v);
        atomic_store(&v->still, false);
        return true;
    case VCPU_EXIT_PAUSE: /* the guest spins: whoever it waits for may need this core */
        sched_yield();
        return true;
    case VCPU_EXIT_SHUTDOWN:
        log_error(vm->log, "vCPU %u: triple fault at RIP %#llx; --trace event shows what led to it",
                  v->id, (unsigned long long)x->rip);
        vm_stop(vm, VM_TRIPLE_FAULT);
        return false;
    case VCPU_EXIT_PIO:
        report_io(v, "port", x);
        break;
    case VCPU_EXIT_MMIO:
        report_io(v, "address", x);
        break;
    case VCPU_EXIT_MSR:
        log_error(vm->log, "vCPU %u: unknown MSR %#x at RIP %#llx; -w ignores such accesses", v->id,
                  x->msr.index, (unsigned long long)x->rip);
        break;
    case VCPU_EXIT_DEBUG:
        log_error(vm->log, "vCPU %u: debug exit without a debugger", v->id);
        break;
    case VCPU_EXIT_EMULATE:
        log_error(vm->log, "vCPU %u: nobody rescues the instruction at RIP %#llx", v->id,
                  (unsigned long long)x->rip);
        break;
    case VCPU_EXIT_FAIL:
        log_error(vm->log, "vCPU %u: %s", v->id, x->text);
        break;
    }
    vm_stop(vm, VM_ERROR);
    return false;
}

static void *vcpu_main(void *arg)
{
    struct vcpu *v = arg;
    struct vm *vm = v->vm;
    struct vcpu_exit x;

    while (!atomic_load(&vm->stopping)) {
        struct vcpu_on on;
        int rc;

        if (!startup_take(v)) {
            if (startup_all_still(v)) {
                log_info(vm->log, "all processors have halted with interrupts off");
                vm_stop(vm, VM_HALT);
            }
            vcpu_sleep(v);
            atomic_store(&v->still, false);
            continue;
        }
        if (vm->kvm_emulates)
            change_leave_kvm(v);
        on = vcpu_on(v);
        rc = on.ops->run(on.impl, 0, &x);
        if (rc < 0) {
            log_error(vm->log, "vCPU %u: the %s engine failed: %s", v->id, on.ops->name,
                      strerror(-rc));
            vm_stop(vm, VM_ERROR);
            break;
        }
        if (x.reason == VCPU_EXIT_EMULATE && rescue_run(v, &x))
            continue;
        if (atomic_exchange(&vm->change_wanted, false))
            change_engine(v);
        if (!vcpu_exit(v, &x))
            break;
        if (vm->profiler != NULL)
            profiler_look(v, &x);
    }
    return NULL;
}

/* ---- creation ---- */

int vcpus_create(struct vm *vm, struct error *err)
{
    vm->vcpu = calloc(vm->cpus, sizeof(*vm->vcpu));
    if (vm->vcpu == NULL)
        return error_set(err, -ENOMEM, "no memory for vCPUs");
    for (unsigned i = 0; i < vm->cpus; i++) {
        struct vcpu *v = &vm->vcpu[i];
        int rc;

        v->vm = vm;
        v->id = i;
        v->waits = i != 0;
        pthread_mutex_init(&v->lock, NULL);
        pthread_cond_init(&v->wake_up, NULL);
        rc = vm->engine[0].ops->vcpu_create(vm->engine[0].vm, i, &v->impl[0], err);
        if (rc != 0)
            return rc;
    }
    return 0;
}

void vcpus_destroy(struct vm *vm)
{
    if (vm->vcpu == NULL)
        return;
    for (unsigned i = 0; i < vm->cpus; i++) {
        struct vcpu *v = &vm->vcpu[i];

        if (v->vm == NULL)
            continue;
        rescue_destroy(v);
        for (unsigned n = 0; n < countof(v->impl); n++) {
            if (v->impl[n] != NULL)
                vm->engine[n].ops->vcpu_destroy(v->impl[n]);
        }
        pthread_cond_destroy(&v->wake_up);
        pthread_mutex_destroy(&v->lock);
    }
    free(vm->vcpu);
    vm->vcpu = NULL;
}

/*
 * An engine with local APICs of its own sleeps in HLT by itself, and would for ever if interrupts
 * are off: a kick now and then lets it say so. On the loop's thread.
 */
#define LOOK_NS 500000000u

static void look(void *ctx)
{
    struct vm *vm = ctx;

    for (unsigned i = 0; i < vm->cpus; i++)
        vcpu_on_kick(&vm->vcpu[i]);
    timer_set(vm->look, timerq_now(vm->timers) + LOOK_NS);
}

static int look_begin(struct vm *vm, struct error *err)
{
    if (vm->engine[0].ops->lapic_home == NULL || vm->engine_env.board_lapic)
        return 0;
    vm->look = timer_create_on(vm->timers, NULL, look, vm);
    if (vm->look == NULL)
        return error_set(err, -ENOMEM, "no memory for a timer");
    timer_set(vm->look, timerq_now(vm->timers) + LOOK_NS);
    return 0;
}

int vcpus_start(struct vm *vm, struct error *err)
{
    int begun = look_begin(vm, err);

    if (begun != 0)
        return begun;
    for (unsigned i = 0; i < vm->cpus; i++) {
        int rc = pthread_create(&vm->vcpu[i].thread, NULL, vcpu_main, &vm->vcpu[i]);

        if (rc != 0)
            return error_set(err, -rc, "cannot start a vCPU's thread: %s", strerror(rc));
        vm->vcpu[i].started = true;
    }
    return 0;
}

void vcpus_leave(struct vm *vm)
{
    atomic_store(&vm->stopping, true);
    for (unsigned i = 0; i < vm->cpus; i++) {
        if (vcpu_of(vm, i) != NULL)
            vcpu_on_kick(&vm->vcpu[i]);
    }
}

void vcpus_stop(struct vm *vm)
{
    atomic_store(&vm->stopping, true);
    timer_free(vm->look);
    vm->look = NULL;
    for (unsigned i = 0; i < vm->cpus; i++) {
        struct vcpu *v = &vm->vcpu[i];

        if (!v->started)
            continue;
        vcpu_on_kick(v);
        pthread_mutex_lock(&v->lock);
        pthread_cond_signal(&v->wake_up);
        pthread_mutex_unlock(&v->lock);
        pthread_join(v->thread, NULL);
        v->started = false;
    }
}
