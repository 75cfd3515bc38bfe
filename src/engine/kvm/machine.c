#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "bus/doorbell.h"
#include "bus/irqfd.h"
#include "engine/kvm/internal.h"
#include "host/clock.h"

/* The VM object: capabilities, memory, vCPUs. */

int kvm_vm_ioctl(const struct kvm_machine *vm, unsigned long request, uintptr_t arg)
{
    return vm->sys->ioctl(vm->sys->ctx, vm->fd, request, arg);
}

int kvm_cpu_ioctl(const struct kvm_cpu *cpu, unsigned long request, uintptr_t arg)
{
    return cpu->vm->sys->ioctl(cpu->vm->sys->ctx, cpu->fd, request, arg);
}

int kvm_cpu_ioctl_p(const struct kvm_cpu *cpu, unsigned long request, void *arg)
{
    return kvm_cpu_ioctl(cpu, request, (uintptr_t)arg);
}

/* ---- what is there ---- */

int kvm_check_extension(const struct kvm_sys *sys, int fd, unsigned long cap)
{
    int rc = sys->ioctl(sys->ctx, fd, KVM_CHECK_EXTENSION, cap);

    return rc > 0 ? rc : 0;
}

/* The device, open, of the version that all kernels of the last years have. */
static int open_device(const struct kvm_sys *sys, struct error *err)
{
    int fd = sys->open(sys->ctx, KVM_DEVICE), version;

    switch (fd) {
    case -ENOENT:
        return error_set(err, fd,
                         "there is no " KVM_DEVICE ": this host offers no virtualization, or its "
                         "module is not loaded (modprobe kvm_intel or kvm_amd)");
    case -EACCES:
    case -EPERM:
        return error_set(err, fd,
                         "no permission to use " KVM_DEVICE "; add yourself to its group (often "
                         "\"kvm\"), or pass the device into the container");
    case -ENODEV:
    case -ENXIO:
        return error_set(err, fd,
                         KVM_DEVICE " is there, but no kernel module behind it; load kvm_intel or "
                                    "kvm_amd, or enable virtualization in the firmware");
    case -EBUSY:
        return error_set(err, fd, KVM_DEVICE " is in use by another hypervisor");
    default:
        break;
    }
    if (fd < 0)
        return error_set(err, fd, "cannot open " KVM_DEVICE ": %s", strerror(-fd));
    version = sys->ioctl(sys->ctx, fd, KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION) {
        sys->close(sys->ctx, fd);
        return error_set(err, -ENOTSUP, "KVM's interface has version %d, not %d", version,
                         KVM_API_VERSION);
    }
    return fd;
}

/* What the engine cannot do without, by name. */
static const struct {
    unsigned long cap;
    const char *name;
} needed[] = {
    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
    {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
    {KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
    {KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT (Linux 4.13)"},
    {KVM_CAP_X86_USER_SPACE_MSR, "KVM_CAP_X86_USER_SPACE_MSR (Linux 5.10)"},
    {KVM_CAP_X86_MSR_FILTER, "KVM_CAP_X86_MSR_FILTER (Linux 5.10)"},
};

static int check_needed(const struct kvm_sys *sys, int fd, struct error *err)
{
    for (unsigned i = 0; i < countof(needed); i++) {
        if (kvm_check_extension(sys, fd, needed[i].cap) == 0)
            return error_set(err, -ENOTSUP, "this kernel's KVM is too old: it has no %s",
                             needed[i].name);
    }
    return 0;
}

static void read_caps(struct kvm_machine *vm)
{
    const struct kvm_sys *sys = vm->sys;
    struct kvm_caps *c = &vm->caps;
    struct x86_cpuid_leaf leaf[X86_CPUID_MAX];
    int n;

    c->xsave = kvm_check_extension(sys, vm->fd, KVM_CAP_XSAVE) != 0;
    c->xcrs = kvm_check_extension(sys, vm->fd, KVM_CAP_XCRS) != 0;
    c->sregs2 = kvm_check_extension(sys, vm->fd, KVM_CAP_SREGS2) != 0;
    c->guest_debug = kvm_check_extension(sys, vm->fd, KVM_CAP_SET_GUEST_DEBUG) != 0;
    c->debugregs = kvm_check_extension(sys, vm->fd, KVM_CAP_DEBUGREGS) != 0;
    c->readonly = kvm_check_extension(sys, vm->fd, KVM_CAP_READONLY_MEM) != 0;
    n = kvm_check_extension(sys, vm->fd, KVM_CAP_SYNC_REGS);
    c->sync_regs = ((unsigned)n & KVM_SYNC_X86_REGS) != 0;
    c->exit_on_failure = kvm_check_extension(sys, vm->fd, KVM_CAP_EXIT_ON_EMULATION_FAILURE) != 0;
    n = kvm_cpuid_supported(sys, vm->dev_fd, leaf, X86_CPUID_MAX);
    for (int i = 0; i < n; i++) {
        unsigned part = leaf[i].subleaf, at = leaf[i].ebx;

        if (leaf[i].leaf == 0xd && part >= 2 && x86_xsave_size(part) != 0 && at >= X86_XSAVE_YMM &&
            at + x86_xsave_size(part) <= sizeof(struct kvm_xsave))
            vm->xsave_at[part] = (uint16_t)at;
    }
}

static int kvm_probe(const struct engine_env *env, bool choose, struct error *err)
{
    const struct kvm_sys *sys = env->kvm != NULL ? env->kvm : &kvm_sys_host;
    int fd = open_device(sys, err), rc;

    if (fd < 0)
        return fd;
    rc = check_needed(sys, fd, err);
    if (rc == 0 && choose)
        rc = kvm_probe_speed(sys, fd, err);
    sys->close(sys->ctx, fd);
    return rc;
}

/* ---- the VM ---- */

static int setup(struct kvm_machine *vm, struct error *err)
{
    uint64_t identity = KVM_IDENTITY_ADDR;
    struct kvm_enable_cap cap = {.cap = KVM_CAP_EXIT_ON_EMULATION_FAILURE, .args = {1}};
    int rc;

    /* processors that need neither have no such call, or do not care */
    (void)kvm_vm_ioctl(vm, KVM_SET_IDENTITY_MAP_ADDR, (uintptr_t)&identity);
    (void)kvm_vm_ioctl(vm, KVM_SET_TSS_ADDR, KVM_TSS_ADDR);
    if (vm->caps.exit_on_failure) {
        rc = kvm_vm_ioctl(vm, KVM_ENABLE_CAP, (uintptr_t)&cap);
        if (rc < 0)
            return error_set(err, rc, "KVM does not report what it cannot emulate: %s",
                             strerror(-rc));
    }
    if (vm->split) {
        rc = kvm_apic_setup(vm, err);
        if (rc < 0)
            return rc;
    }
    rc = kvm_msr_setup(vm, err);
    if (rc == 0)
        rc = kvm_memory_map(vm, false, err);
    if (rc == 0)
        kvm_doorbells_begin(vm);
    return rc;
}

static void kvm_vm_destroy(void *p)
{
    struct kvm_machine *vm = p;

    if (vm == NULL)
        return;
    kvm_apic_end(vm);
    kvm_doorbells_end(vm);
    if (vm->fd >= 0)
        vm->sys->close(vm->sys->ctx, vm->fd);
    if (vm->dev_fd >= 0)
        vm->sys->close(vm->sys->ctx, vm->dev_fd);
    pthread_rwlock_destroy(&vm->moving);
    pthread_mutex_destroy(&vm->routes);
    free(vm);
}

static int create_vm(struct kvm_machine *vm, struct error *err)
{
    const struct kvm_sys *sys = vm->sys;
    int rc;

    vm->dev_fd = open_device(sys, err);
    if (vm->dev_fd < 0)
        return vm->dev_fd;
    rc = check_needed(sys, vm->dev_fd, err);
    if (rc < 0)
        return rc;
    do /* a signal ends this call early on some kernels */
        vm->fd = sys->ioctl(sys->ctx, vm->dev_fd, KVM_CREATE_VM, 0);
    while (vm->fd == -EINTR);
    if (vm->fd == -EBUSY || vm->fd == -EPERM)
        return error_set(err, vm->fd,
                         "KVM makes no VM: %s; another hypervisor may hold the processor's "
                         "virtualization",
                         strerror(-vm->fd));
    if (vm->fd < 0)
        return error_set(err, vm->fd, "KVM makes no VM: %s", strerror(-vm->fd));
    rc = sys->ioctl(sys->ctx, vm->dev_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (rc < (int)sizeof(struct kvm_run))
        return error_set(err, rc < 0 ? rc : -EINVAL, "KVM shares no page of a vCPU");
    vm->run_size = (size_t)rc;
    rc = kvm_check_extension(sys, vm->fd, KVM_CAP_MAX_VCPUS);
    if (rc == 0)
        rc = kvm_check_extension(sys, vm->fd, KVM_CAP_NR_VCPUS);
    if (rc > 0 && vm->env.cpus > (unsigned)rc)
        return error_set(err, -E2BIG, "KVM runs at most %d vCPUs here, not %u; give a smaller -c",
                         rc, vm->env.cpus);
    read_caps(vm);
    vm->split = kvm_apic_wanted(sys, vm->dev_fd, &vm->env);
    return setup(vm, err);
}

static int kvm_vm_create(const struct engine_env *env, void **out, struct error *err)
{
    struct kvm_machine *vm = calloc(1, sizeof(*vm));
    int rc;

    if (vm == NULL)
        return error_set(err, -ENOMEM, "no memory for a VM");
    vm->env = *env;
    vm->sys = env->kvm != NULL ? env->kvm : &kvm_sys_host;
    vm->dev_fd = vm->fd = -1;
    if (pthread_rwlock_init(&vm->moving, NULL) != 0) {
        free(vm);
        return error_set(err, -ENOMEM, "no memory for a VM");
    }
    pthread_mutex_init(&vm->routes, NULL);
    rc = create_vm(vm, err);
    if (rc < 0) {
        kvm_vm_destroy(vm);
        return rc;
    }
    *out = vm;
    return 0;
}

/* ---- vCPUs ---- */

static void kvm_vcpu_destroy(void *p)
{
    struct kvm_cpu *cpu = p;
    const struct kvm_sys *sys;

    if (cpu == NULL)
        return;
    sys = cpu->vm->sys;
    if (atomic_load(&cpu->vm->first) == cpu)
        atomic_store(&cpu->vm->first, NULL);
    if (cpu->run != NULL)
        sys->munmap(sys->ctx, cpu->run, cpu->vm->run_size);
    if (cpu->fd >= 0)
        sys->close(sys->ctx, cpu->fd);
    free(cpu);
}

static int create_vcpu(struct kvm_cpu *cpu, struct error *err)
{
    const struct kvm_sys *sys = cpu->vm->sys;
    struct x86_state state;
    int rc;

    cpu->fd = kvm_vm_ioctl(cpu->vm, KVM_CREATE_VCPU, cpu->id);
    if (cpu->fd < 0)
        return error_set(err, cpu->fd, "KVM makes no vCPU %u: %s", cpu->id, strerror(-cpu->fd));
    cpu->run = sys->mmap(sys->ctx, cpu->fd, cpu->vm->run_size);
    if (cpu->run == NULL)
        return error_set(err, -ENOMEM, "no memory for what KVM shares of vCPU %u", cpu->id);
    if (cpu->vm->caps.sync_regs)
        cpu->run->kvm_valid_regs = KVM_SYNC_X86_REGS;
    rc = kvm_cpuid_set(cpu, err);
    if (rc < 0)
        return rc;
    x86_state_reset(&state, cpu->id == 0);
    state.tsc_offset = 0 - host_tsc();
    rc = kvm_state_set(cpu, &state, err);
    if (rc == 0 && cpu->id == 0)
        atomic_store(&cpu->vm->first, cpu);
    return rc;
}

static int kvm_vcpu_create(void *p, unsigned id, void **out, struct error *err)
{
    struct kvm_machine *vm = p;
    struct kvm_cpu *cpu = calloc(1, sizeof(*cpu));
    int rc;

    if (cpu == NULL)
        return error_set(err, -ENOMEM, "no memory for a vCPU");
    cpu->vm = vm;
    cpu->id = id;
    cpu->fd = -1;
    rc = create_vcpu(cpu, err);
    if (rc < 0) {
        kvm_vcpu_destroy(cpu);
        return rc;
    }
    *out = cpu;
    return 0;
}

static void kvm_get(void *vcpu, struct x86_state *out)
{
    struct kvm_cpu *cpu = vcpu;
    struct error err = {0};

    if (kvm_state_get(cpu, out, &err) < 0)
        log_error(cpu->vm->env.log, "%s", err.text);
}

static int kvm_set(void *vcpu, const struct x86_state *in, struct error *err)
{
    return kvm_state_set(vcpu, in, err);
}

static uint64_t kvm_tsc(void *vcpu)
{
    struct kvm_cpu *cpu = vcpu;

    return host_tsc() + atomic_load(&cpu->tsc_offset);
}

/* The kernel has measured it for seconds, and says it in kHz. */
static uint64_t kvm_tsc_hz(void *vcpu)
{
    int khz = kvm_cpu_ioctl(vcpu, KVM_GET_TSC_KHZ, 0);

    return khz > 0 ? 1000ull * (unsigned)khz : 0;
}

static int kvm_settled(void *vcpu, struct error *err)
{
    return kvm_cpuid_set(vcpu, err);
}

static void kvm_stats(void *vcpu, struct vcpu_stats *out)
{
    const struct kvm_cpu *cpu = vcpu;

    *out = cpu->stats;
}

static void kvm_report(void *vcpu, FILE *to)
{
    static const struct {
        unsigned reason;
        const char *name;
    } names[] = {
        {KVM_EXIT_IO, "port"},
        {KVM_EXIT_MMIO, "MMIO"},
        {KVM_EXIT_HLT, "HLT"},
        {KVM_EXIT_IRQ_WINDOW_OPEN, "interrupt window"},
        {KVM_EXIT_SET_TPR, "TPR"},
        {KVM_EXIT_IOAPIC_EOI, "EOI"},
        {KVM_EXIT_X86_RDMSR, "RDMSR"},
        {KVM_EXIT_X86_WRMSR, "WRMSR"},
        {KVM_EXIT_INTERNAL_ERROR, "cannot emulate"},
    };
    const struct kvm_cpu *cpu = vcpu;

    fprintf(to, "vcpu %u: local APIC: %s; exits:", cpu->id,
            cpu->vm->split ? "the kernel's" : "ours");
    for (unsigned i = 0; i < countof(names); i++)
        fprintf(to, "%s %llu %s", i == 0 ? "" : ",",
                (unsigned long long)cpu->exits[names[i].reason], names[i].name);
    if (cpu->vm->doorbells)
        fprintf(to, "; %llu doorbells", (unsigned long long)bus_doorbell_rings(cpu->vm->env.bus));
    if (cpu->vm->split && irq_fds_allowed(cpu->vm->env.irqs))
        fprintf(to, "; %llu messages by irqfd",
                (unsigned long long)irq_fds_sent(cpu->vm->env.irqs));
    fprintf(to, "\n");
}

const struct engine_ops engine_kvm = {
    .name = "kvm",
    .summary = "the Linux kernel's KVM: the hardware's speed, needs /dev/kvm",
    .caps = ENGINE_CAP_STEP,
    .probe = kvm_probe,
    .cpuid = kvm_cpuid_fit,
    .vm_create = kvm_vm_create,
    .vm_destroy = kvm_vm_destroy,
    .vcpu_create = kvm_vcpu_create,
    .vcpu_destroy = kvm_vcpu_destroy,
    .tsc_hz = kvm_tsc_hz,
    .settled = kvm_settled,
    .get = kvm_get,
    .set = kvm_set,
    .run = kvm_run,
    .kick = kvm_kick,
    .interrupt = kvm_interrupt,
    .nmi = kvm_nmi,
    .tsc = kvm_tsc,
    .lapic_home = kvm_lapic_home,
    .dirty = kvm_dirty,
    .dirty_take = kvm_dirty_take,
    .debug = kvm_debug,
    .stats = kvm_stats,
    .report = kvm_report,
};
