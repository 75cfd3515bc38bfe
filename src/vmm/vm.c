#include "vmm/vm.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "boot/multiboot.h"
#include "boot/pvh.h"
#include "boot/tables.h"
#include "bus/irqfd.h"
#include "host/program.h"
#include "vmm/change.h"
#include "vmm/devices.h"
#include "vmm/internal.h"
#include "vmm/profiler.h"
#include "vmm/rescue.h"

/* The VM object: puts the parts together, loads the guest, runs the loop, takes it all down. */

/* ---- ending ---- */

void vm_stop(struct vm *vm, enum vm_status status)
{
    int running = -1;

    if (!atomic_compare_exchange_strong(&vm->status, &running, (int)status))
        return;
    vcpus_leave(vm); /* who resets the machine executes nothing after it */
    loop_stop(vm->loop);
}

void vm_signal(struct vm *vm, int signo)
{
    struct error err = {0};

    if (signo == SIGUSR1) {
        vm_refresh(vm);
        return;
    }
    if (signo == SIGUSR2) {
        if (vm_switch_engine(vm, &err) < 0)
            log_warn(vm->log, "engine: no change: %s", err.text);
        return;
    }
    if (atomic_fetch_add(&vm->signals, 1) == 0 && vm->acpi) {
        log_info(vm->log, "power button pressed; a second signal ends the VM at once");
        acpipm_power_button(vm->acpipm);
        return;
    }
    vm_stop(vm, VM_POWEROFF);
}

struct loop *vm_loop(struct vm *vm)
{
    return vm->loop;
}

/* ---- parts ---- */

const struct engine_ops *vm_find_engine(const char *want)
{
    size_t len = strcspn(want, ","); /* behind a comma stands how the engine is to work */

    for (unsigned i = 0; engine_table[i] != NULL; i++) {
        if (strncmp(engine_table[i]->name, want, len) == 0 && engine_table[i]->name[len] == '\0')
            return engine_table[i];
    }
    return NULL;
}

/* The first of the table that works and is worth it. */
static int choose_engine(struct vm *vm, struct error *err)
{
    for (unsigned i = 0; engine_table[i] != NULL; i++) {
        const struct engine_ops *e = engine_table[i];
        struct error why = {0};
        int rc = e->probe(&vm->engine_env, true, &why);

        if (rc == 0 && vm->cpus > 1 && strcmp(e->name, "kvm") == 0)
            rc = error_set(&why, -ENOSYS,
                           "more than one vCPU is not built for it yet, so the software CPU runs "
                           "them; -c 1 would run by kvm");
        if (rc == 0) {
            vm->engine[0].ops = e;
            return 0;
        }
        if (rc == -ENOENT) /* most hosts: nothing to be done about it */
            log_info(vm->log, "engine: not %s: %s", e->name, why.text);
        else
            log_warn(vm->log, "engine: not %s: %s", e->name, why.text);
    }
    return error_set(err, -ENOENT, "no engine works here");
}

static int pick_engine(struct vm *vm, struct error *err)
{
    const char *want = config_get(vm->cfg, "engine");
    int rc;

    if (want == NULL || strcmp(want, "auto") == 0) {
        rc = choose_engine(vm, err);
    } else {
        vm->engine[0].ops = vm_find_engine(want);
        if (vm->engine[0].ops == NULL)
            return error_set(err, -ENOENT, "there is no engine '%s' on this host", want);
        rc = vm->engine[0].ops->probe(&vm->engine_env, false, err);
        if (rc != 0)
            error_prefix(err, "the engine '%s' cannot be used here", want);
    }
    if (rc == 0)
        log_info(vm->log, "engine: %s (%s)", vm->engine[0].ops->name, vm->engine[0].ops->summary);
    return rc;
}

static void wake_loop(void *ctx)
{
    struct vm *vm = ctx;

    loop_wake(vm->loop);
}

static uint64_t next_timer(void *ctx)
{
    struct vm *vm = ctx;

    return timerq_next_host(vm->timers);
}

static void run_timers(void *ctx)
{
    struct vm *vm = ctx;

    timerq_run(vm->timers);
}

static int create_base(struct vm *vm, struct error *err)
{
    struct gmem_backing how = {0};
    uint64_t size;
    int rc = config_size(vm->cfg, "memory.size", 256 * MIB, &size, err);

    if (rc == 0)
        rc = config_bool(vm->cfg, "memory.hugepages", false, &how.huge, err);
    if (rc == 0)
        rc = config_bool(vm->cfg, "memory.wired", false, &how.wired, err);
    if (rc != 0)
        return rc;
    vm->mem = gmem_create_backed(size, &how, err);
    if (vm->mem == NULL)
        return err->code;
    vm->loop = loop_create(err);
    if (vm->loop == NULL)
        return err->code;
    vm->bus = bus_create(vm->log);
    vm->irqs = irq_router_create(vm->log);
    vm->timers = timerq_create(false, wake_loop, vm);
    if (vm->bus == NULL || vm->irqs == NULL || vm->timers == NULL)
        return error_set(err, -ENOMEM, "no memory for the board");
    loop_set_timers(vm->loop, next_timer, run_timers, vm);
    return 0;
}

/* A vCPU's FERR#: on its thread, no lock held. */
static void x87_error(void *ctx, unsigned cpu)
{
    struct vm *vm = ctx;

    (void)cpu;
    fpuerr_raise(vm->fpuerr);
}

/* Where translations are kept: jit.cache, or the user's cache directory if there is one. */
static int jit_cache(struct vm *vm, struct engine_env *env, struct error *err)
{
    const char *path = config_get(vm->cfg, "jit.cache");

    env->jit_worth = path != NULL ? 1 : 1000; /* nobody has asked: not for tiny guests */
    if (path != NULL && strcmp(path, "off") == 0)
        return 0;
    if (path == NULL) {
        if (host_cache_dir("xhyve", vm->cache_dir, sizeof(vm->cache_dir)) == 0)
            env->jit_cache = vm->cache_dir;
        return 0;
    }
    env->jit_cache = path;
    return host_own_dir(path, err);
}

/* What this engine can run of the CPU model; a portable one is what the others can run, too. */
static int fit_model(struct vm *vm, const struct engine_env *env, const char *model,
                     struct error *err)
{
    bool portable = strcmp(model, "portable") == 0;

    for (unsigned i = 0; engine_table[i] != NULL; i++) {
        const struct engine_ops *e = engine_table[i];
        int rc;

        if (e->cpuid == NULL || (e != vm->engine[0].ops && !portable) ||
            (e != vm->engine[0].ops && e->probe(env, false, NULL) != 0))
            continue;
        rc = e->cpuid(env, model, &vm->cpuid, err);
        if (rc != 0)
            return rc;
    }
    vm->soft_cpuid = vm->cpuid;
    if (vm->cpuid.insisted)
        x86_cpuid_hide(&vm->soft_cpuid);
    return 0;
}

/*
 * A KVM that cannot hide the processor's features has no hardware behind it. If it emulates the
 * guest's kernel, too, then the software CPU does all better, and some of it at all: the KVM that
 * was seen makes SYSCALL a jump that keeps the privilege level, and INT in a program undefined.
 */
static int judge_kvm(struct vm *vm, struct error *err)
{
    bool leave;
    int rc = config_bool(vm->cfg, "kvm.leave", true, &leave, err);

    if (rc == 0 && leave && vm->cpuid.insisted)
        vm->kvm_emulates = vm_find_engine("kvm")->probe(&vm->engine_env, true, NULL) == -EOPNOTSUPP;
    return rc;
}

int vm_make_engine(struct vm *vm, unsigned n, struct error *err)
{
    struct engine_slot *slot = &vm->engine[n];
    struct engine_env env = vm->engine_env;

    if (strcmp(slot->ops->name, "soft") == 0)
        env.cpuid = &vm->soft_cpuid;
    return slot->ops->vm_create(&env, &slot->vm, err);
}

/* A portable model may change its engine: its local APICs are the board's. */
static int kernel_lapic(struct vm *vm, struct engine_env *env, struct error *err)
{
    const char *model = config_get(vm->cfg, "cpu.model"),
               *chip = config_get(vm->cfg, "kvm.irqchip");

    if (chip != NULL && strcmp(chip, "user") != 0 && strcmp(chip, "split") != 0)
        return error_set(err, -EINVAL, "kvm.irqchip is user or split, not '%s'", chip);
    env->board_lapic = (chip != NULL && strcmp(chip, "user") == 0) ||
                       (model != NULL && strcmp(model, "portable") == 0);
    return 0;
}

/* Before devices are made: their messages are the kernel's by a descriptor, where it takes them. */
static int allow_irqfds(struct vm *vm, struct error *err)
{
    bool wanted;
    int rc = config_bool(vm->cfg, "kvm.irqfd", false, &wanted, err);

    return rc == 0 && wanted ? irq_fds_allow(vm->irqs, vm->loop, err) : rc;
}

static int create_engine(struct vm *vm, struct error *err)
{
    const char *model = config_get(vm->cfg, "cpu.model"), *engine = config_get(vm->cfg, "engine");
    struct x86_cpu_options options = {0};
    struct engine_env env = {
        .log = vm->log,
        .mem = vm->mem,
        .bus = vm->bus,
        .irqs = vm->irqs,
        .lapic = &lapics_cpu_ops,
        .cpuid = &vm->cpuid,
        .cpus = vm->cpus,
        .kvm = vm->engine_env.kvm,
        .ferr = x87_error,
        .ferr_ctx = vm,
        .interpret = engine != NULL && strcmp(engine, "soft,interp") == 0,
        .check = engine != NULL && strcmp(engine, "soft,check") == 0,
    };
    int rc;

    rc = jit_cache(vm, &env, err);
    if (rc == 0)
        rc = config_bool(vm->cfg, "stats", false, &env.count, err);
    if (rc == 0)
        rc = config_bool(vm->cfg, "jit.perfmap", false, &env.perf_map, err);
    if (rc == 0)
        rc = config_bool(vm->cfg, "x86.strictmsr", true, &env.strict_msr, err);
    if (rc == 0)
        rc = config_bool(vm->cfg, "x86.strictio", false, &env.strict_io, err);
    if (rc == 0)
        rc = config_bool(vm->cfg, "x86.vmexit_on_pause", false, &env.exit_on_pause, err);
    if (rc == 0)
        rc = config_bool(vm->cfg, "cpu.la57", false, &options.la57, err);
    if (rc == 0)
        rc = kernel_lapic(vm, &env, err);
    if (model == NULL)
        model = "host";
    if (rc == 0)
        rc = x86_cpuid_create(&vm->cpuid, model, &options, NSEC_PER_SEC, err); /* until settled */
    if (rc == 0)
        rc = fit_model(vm, &env, model, err);
    if (rc == 0)
        rc = judge_kvm(vm, err);
    if (rc == 0)
        rc = allow_irqfds(vm, err);
    if (rc == 0)
        rc = board_create(vm, err);
    if (rc != 0)
        return rc;
    env.lapic_ctx = vm->lapics;
    vm->engine_env = env;
    rc = vm_make_engine(vm, 0, err);
    return rc != 0 ? rc : vcpus_create(vm, err);
}

static int load_linux(struct vm *vm, uint64_t rsdp, struct x86_state *state, struct error *err)
{
    const char *decompress = config_get(vm->cfg, "boot.decompress");
    struct linux_params p = {
        .kernel = config_get(vm->cfg, "boot.kernel"),
        .initrd = config_get(vm->cfg, "boot.initrd"),
        .cmdline = config_get(vm->cfg, "boot.cmdline"),
        .decompress = decompress != NULL && strcmp(decompress, "guest") == 0
                          ? LINUX_DECOMPRESS_GUEST
                          : LINUX_DECOMPRESS_HOST,
        .rsdp = rsdp,
    };
    struct linux_info *info = &vm->kernel;
    int rc = linux_load(&vm->board, &p, state, info, err);

    if (rc == 0)
        log_debug(vm->log, "kernel at %#llx, slide %#llx, entry %#llx (%s%s)",
                  (unsigned long long)info->phys, (unsigned long long)info->virt_slide,
                  (unsigned long long)info->entry, info->direct ? "unpacked here: " : "packed",
                  info->compression);
    return rc;
}

static int load_multiboot(struct vm *vm, uint64_t rsdp, struct x86_state *state, struct error *err)
{
    const struct multiboot_params p = {
        .kernel = config_get(vm->cfg, "boot.kernel"),
        .modules = config_get(vm->cfg, "boot.modules"),
        .cmdline = config_get(vm->cfg, "boot.cmdline"),
    };

    (void)rsdp; /* such a kernel looks for it below 1 MiB */
    return multiboot_load(&vm->board, &p, state, NULL, err);
}

static int load_pvh(struct vm *vm, uint64_t rsdp, struct x86_state *state, struct error *err)
{
    const struct pvh_params p = {
        .kernel = config_get(vm->cfg, "boot.kernel"),
        .initrd = config_get(vm->cfg, "boot.initrd"),
        .cmdline = config_get(vm->cfg, "boot.cmdline"),
        .rsdp = rsdp,
    };

    return pvh_load(&vm->board, &p, state, NULL, err);
}

/* boot.method; without one it is the first. */
static const struct loader {
    const char *method;
    int (*load)(struct vm *vm, uint64_t rsdp, struct x86_state *state, struct error *err);
} loaders[] = {
    {"kexec", load_linux},
    {"multiboot", load_multiboot},
    {"pvh", load_pvh},
};

/*
 * The TSC's frequency, after all else that takes time: it is measured from the beginning on, unless
 * the engine's kernel knows it.
 */
static int settle_tsc(struct vm *vm, struct error *err)
{
    const struct engine_ops *e = vm->engine[0].ops;
    int rc = 0;

    if (e->tsc_hz != NULL)
        vm->tsc_hz = e->tsc_hz(vm->vcpu[0].impl[0]);
    if (vm->tsc_hz == 0)
        vm->tsc_hz = host_tsc_hz(vm->tsc_start);
    vm->board.tsc_hz = vm->tsc_hz;
    x86_cpuid_tsc(&vm->cpuid, vm->tsc_hz);
    x86_cpuid_tsc(&vm->soft_cpuid, vm->tsc_hz);
    for (unsigned i = 0; i < vm->cpus && rc == 0 && e->settled != NULL; i++)
        rc = e->settled(vm->vcpu[i].impl[0], err);
    return rc;
}

static int load_guest(struct vm *vm, struct error *err)
{
    const char *method = config_get(vm->cfg, "boot.method");
    const struct loader *loader = &loaders[0];
    struct x86_state state;
    uint64_t rsdp = 0;
    int rc = 0;

    if (config_get(vm->cfg, "boot.kernel") == NULL)
        return error_set(err, -EINVAL, "no kernel: give -f kexec,KERNEL,INITRD,CMDLINE");
    for (size_t i = 0; method != NULL && i < countof(loaders); i++) {
        if (strcmp(loaders[i].method, method) == 0)
            loader = &loaders[i];
    }
    if (vm->acpi)
        rc = acpi_write(&vm->board, &rsdp, err);
    if (rc == 0 && vm->board.mptable)
        rc = mptable_write(&vm->board, err);
    if (rc != 0)
        return rc;
    x86_state_reset(&state, true);
    rc = loader->load(vm, rsdp, &state, err);
    if (rc == 0)
        rc = settle_tsc(vm, err);
    if (rc == 0)
        rc = smbios_write(&vm->board, err);
    if (rc != 0)
        return rc;
    state.tsc_offset = 0 - host_tsc();
    rc = vm->engine[0].ops->set(vm->vcpu[0].impl[0], &state, err);
    return rc == 0 ? startup_prepare(vm, state.tsc_offset, err) : rc;
}

int vm_create_from_config(const struct config *cfg, struct log *log, struct vm **out,
                          struct error *err)
{
    return vm_create_on(cfg, log, NULL, out, err);
}

int vm_create_on(const struct config *cfg, struct log *log, const struct kvm_sys *kvm,
                 struct vm **out, struct error *err)
{
    struct vm *vm;
    uint64_t cpus = 1;
    int rc = vm_check_built(cfg, err);

    *out = NULL;
    if (rc != 0)
        return rc;
    vm = calloc(1, sizeof(*vm));
    if (vm == NULL)
        return error_set(err, -ENOMEM, "no memory for the VM");
    vm->cfg = cfg;
    vm->log = log;
    vm->engine_env = (struct engine_env){.log = log, .kvm = kvm};
    vm->status = -1;
    vm->created_ns = host_clock_ns();
    vm->tsc_start = host_tsc_sample();
    rc = config_u64(cfg, "cpus", 1, &cpus, err);
    vm->cpus = (unsigned)cpus;
    if (rc == 0)
        rc = config_bool(cfg, "acpi_tables", false, &vm->acpi, err);
    if (rc == 0)
        rc = pick_engine(vm, err);
    if (rc == 0)
        rc = create_base(vm, err);
    if (rc == 0)
        rc = create_engine(vm, err);
    if (rc == 0)
        rc = load_guest(vm, err);
    if (rc == 0)
        rc = profiler_create(vm, err);
    if (rc != 0) {
        vm_destroy(vm);
        return rc;
    }
    *out = vm;
    return 0;
}

void vm_destroy(struct vm *vm)
{
    if (vm == NULL)
        return;
    profiler_destroy(vm->profiler);
    board_destroy(vm);
    vcpus_destroy(vm);
    for (unsigned i = 0; i < countof(vm->engine); i++) {
        if (vm->engine[i].vm != NULL)
            vm->engine[i].ops->vm_destroy(vm->engine[i].vm);
    }
    timerq_destroy(vm->timers);
    irq_router_destroy(vm->irqs);
    bus_destroy(vm->bus);
    loop_destroy(vm->loop);
    gmem_destroy(vm->mem);
    free(vm);
}

int vm_run(struct vm *vm)
{
    struct error err = {0};
    int rc = vcpus_start(vm, &err);

    if (rc != 0)
        log_error(vm->log, "%s", err.text);
    else
        rc = loop_run(vm->loop);
    vcpus_stop(vm);
    if (rc != 0)
        return rc;
    return atomic_load(&vm->status);
}

void vm_write_profile(struct vm *vm)
{
    if (vm->profiler != NULL)
        profiler_report(vm->profiler);
}

void vm_print_stats(struct vm *vm, FILE *to)
{
    double seconds = (double)(host_clock_ns() - vm->created_ns) / 1e9;

    for (unsigned i = 0; i < vm->cpus; i++) {
        struct vcpu_stats s = {0};

        struct vcpu_on on = vcpu_on(&vm->vcpu[i]);

        on.ops->stats(on.impl, &s);
        fprintf(to,
                "vcpu %u: %.3f s, %llu instructions, %llu block lookups, %llu TLB misses, "
                "%llu port and %llu MMIO accesses, %llu exceptions, %llu interrupts, %llu halts\n",
                i, seconds, (unsigned long long)s.instructions, (unsigned long long)s.blocks,
                (unsigned long long)s.tlb_misses, (unsigned long long)s.pio,
                (unsigned long long)s.mmio, (unsigned long long)s.exceptions,
                (unsigned long long)s.interrupts, (unsigned long long)s.halts);
        if (on.ops->report != NULL)
            on.ops->report(on.impl, to);
        rescue_report(&vm->vcpu[i], to);
        if (vm->changes != 0)
            fprintf(to, "vcpu %u: changed its engine %u times, and ends on %s\n", i, vm->changes,
                    on.ops->name);
    }
}
