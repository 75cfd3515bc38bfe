#include <errno.h>
#include <string.h>

#include "base/bits.h"
#include "engine/kvm/internal.h"
#include "host/clock.h"
#include "host/memory.h"

/*
 * Is this KVM worth having? By what a loop in ring 0 takes there, and on the host itself: some KVMs
 * have no hardware behind them and emulate each instruction, hundreds of times slower than the
 * software CPU. Names and vendors do not tell.
 */

#define ROUNDS 20000u  /* two instructions each; some 10 us on hardware */
#define TOO_SLOW 10u   /* times the host: what the software CPU does better */
#define SLACK_NS 50000 /* clocks, caches, an interrupt of the host's */
#define TRIES 4u
#define HOST_TRIES 8u
#define GLANCE_ROUNDS 500u /* enough to know a KVM that takes a hundred times as long */
#define GLANCE_SLOW 100u
#define CODE_AT 0x1000u

/* dec ecx; jnz back; hlt */
static const uint8_t code[] = {0x49, 0x75, 0xfd, 0xf4};

struct trial {
    const struct kvm_sys *sys;
    int vm, cpu;
    struct kvm_run *run;
    size_t run_size;
    uint8_t *memory;
};

static void segment_flat(struct kvm_segment *s, unsigned type)
{
    *s = (struct kvm_segment){.limit = UINT32_MAX,
                              .selector = 8,
                              .type = (uint8_t)type,
                              .present = 1,
                              .db = 1,
                              .s = 1,
                              .g = 1};
}

static int begin(struct trial *t, int dev_fd)
{
    const struct kvm_sys *sys = t->sys;
    uint64_t identity = KVM_IDENTITY_ADDR;
    struct kvm_userspace_memory_region m = {.guest_phys_addr = CODE_AT, .memory_size = GMEM_PAGE};
    struct kvm_sregs s;
    int rc;

    t->vm = sys->ioctl(sys->ctx, dev_fd, KVM_CREATE_VM, 0);
    if (t->vm < 0)
        return t->vm;
    (void)sys->ioctl(sys->ctx, t->vm, KVM_SET_IDENTITY_MAP_ADDR, (uintptr_t)&identity);
    (void)sys->ioctl(sys->ctx, t->vm, KVM_SET_TSS_ADDR, KVM_TSS_ADDR);
    t->memory = host_memory_alloc(GMEM_PAGE, NULL);
    if (t->memory == NULL)
        return -ENOMEM;
    memcpy(t->memory, code, sizeof(code));
    m.userspace_addr = (uintptr_t)t->memory;
    rc = sys->ioctl(sys->ctx, t->vm, KVM_SET_USER_MEMORY_REGION, (uintptr_t)&m);
    if (rc < 0)
        return rc;
    t->cpu = sys->ioctl(sys->ctx, t->vm, KVM_CREATE_VCPU, 0);
    if (t->cpu < 0)
        return t->cpu;
    rc = sys->ioctl(sys->ctx, dev_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (rc < (int)sizeof(*t->run))
        return -EINVAL;
    t->run_size = (size_t)rc;
    t->run = sys->mmap(sys->ctx, t->cpu, t->run_size);
    if (t->run == NULL)
        return -ENOMEM;
    rc = sys->ioctl(sys->ctx, t->cpu, KVM_GET_SREGS, (uintptr_t)&s);
    if (rc < 0)
        return rc;
    segment_flat(&s.cs, 11);
    segment_flat(&s.ds, 3);
    s.es = s.ss = s.fs = s.gs = s.ds;
    s.cr0 |= X86_CR0_PE;
    return sys->ioctl(sys->ctx, t->cpu, KVM_SET_SREGS, (uintptr_t)&s);
}

static void end(struct trial *t)
{
    const struct kvm_sys *sys = t->sys;

    if (t->run != NULL)
        sys->munmap(sys->ctx, t->run, t->run_size);
    if (t->cpu >= 0)
        sys->close(sys->ctx, t->cpu);
    if (t->vm >= 0)
        sys->close(sys->ctx, t->vm);
    host_memory_free(t->memory, GMEM_PAGE);
}

/* The loop in the guest, its exit included; 0 or -errno. */
static int guest_loop(struct trial *t, uint32_t rounds, uint64_t *ns)
{
    const struct kvm_sys *sys = t->sys;
    struct kvm_regs r = {.rcx = rounds, .rip = CODE_AT, .rflags = X86_FL_FIXED};
    uint64_t start;
    int rc = sys->ioctl(sys->ctx, t->cpu, KVM_SET_REGS, (uintptr_t)&r);

    if (rc < 0)
        return rc;
    start = host_clock_ns();
    do
        rc = sys->ioctl(sys->ctx, t->cpu, KVM_RUN, 0);
    while (rc == -EINTR);
    *ns = host_clock_ns() - start;
    if (rc == 0 && t->run->exit_reason != KVM_EXIT_HLT)
        return -EIO;
    return rc;
}

static uint64_t host_loop(uint32_t rounds)
{
    uint64_t start = host_clock_ns();

    __asm__ volatile("1: dec %0\n\tjnz 1b" : "+r"(rounds) : : "cc");
    return host_clock_ns() - start;
}

/* What the loop takes in the guest, the exit taken off, and on the host: the least of some tries,
 * as what disturbs makes both slower. Ends early once the guest is fast enough. */
static int compare(struct trial *t, uint32_t rounds, unsigned slow, uint64_t *guest, uint64_t *host)
{
    *guest = *host = UINT64_MAX;
    for (unsigned i = 0; i < HOST_TRIES; i++) /* one that is disturbed would let all pass */
        *host = min_u64(*host, host_loop(rounds));
    for (unsigned i = 0; i < TRIES; i++) {
        uint64_t once, all;
        int rc = guest_loop(t, 1, &once);

        if (rc == 0)
            rc = guest_loop(t, rounds, &all);
        if (rc < 0)
            return rc;
        *guest = min_u64(*guest, all > once ? all - once : 0);
        if (*guest <= slow * *host + SLACK_NS)
            return 1;
    }
    return 0;
}

static int judge(struct trial *t, struct error *err)
{
    uint64_t guest, host;
    int rc = compare(t, GLANCE_ROUNDS, GLANCE_SLOW, &guest, &host);

    if (rc > 0) /* not hopeless */
        rc = compare(t, ROUNDS, TOO_SLOW, &guest, &host);
    if (rc < 0)
        return error_set(err, rc, "this KVM does not run a simple loop: %s", strerror(-rc));
    if (rc > 0)
        return 0;
    return error_set(
        err, -EOPNOTSUPP,
        "this KVM emulates instead of running on the processor (a loop takes %llu times "
        "as long as on the host); nested virtualization, switched on where this machine "
        "was made, would help, and --engine kvm takes it as it is",
        (unsigned long long)(guest / (host + 1)));
}

int kvm_probe_speed(const struct kvm_sys *sys, int dev_fd, struct error *err)
{
    struct trial t = {.sys = sys, .vm = -1, .cpu = -1};
    int rc = begin(&t, dev_fd);

    if (rc < 0)
        error_set(err, rc, "this KVM makes no VM: %s", strerror(-rc));
    else
        rc = judge(&t, err);
    end(&t);
    return rc;
}
