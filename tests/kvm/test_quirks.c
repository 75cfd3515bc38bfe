/*
 * The kvm engine on KVMs that do less than they say: the fake behind a table that changes some of
 * its answers.
 */
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "engine/kvm/kvm.h"
#include "checks.h"
#include "fake.h"
#include "mem/gmem.h"

#define CODE 0x1000u
#define HANDLER 0x2000u
#define TABLE 0x3000u

/* ---- the table ---- */

struct quirks {
    const struct kvm_sys *under;
    struct kvm_sys sys;
    bool late;     /* an NMI is looked at when KVM_RUN begins, and not where it was unblocked */
    bool nmi;      /* there is one */
    bool deaf_tsc; /* the TSC's offset is taken and forgotten */
    bool deaf_rf;  /* a debugger's breakpoints do not mind RF, as in KVM's emulator */
};

static int quirk_open(void *ctx, const char *path)
{
    struct quirks *q = ctx;

    return q->under->open(q->under->ctx, path);
}

static int quirk_ioctl(void *ctx, int fd, unsigned long request, uintptr_t arg)
{
    struct quirks *q = ctx;
    struct kvm_vcpu_events *events = (struct kvm_vcpu_events *)arg, now;
    int rc;

    if (q->deaf_tsc && request == KVM_SET_DEVICE_ATTR)
        return 0;
    if (q->deaf_rf && request == KVM_SET_REGS)
        ((struct kvm_regs *)arg)->rflags &= ~(uint64_t)X86_FL_RF;
    if (q->late && request == KVM_NMI) {
        q->nmi = true;
        return 0;
    }
    if (q->nmi && request == KVM_RUN &&
        q->under->ioctl(q->under->ctx, fd, KVM_GET_VCPU_EVENTS, (uintptr_t)&now) == 0 &&
        !now.nmi.masked) {
        q->nmi = false;
        q->under->ioctl(q->under->ctx, fd, KVM_NMI, 0);
    }
    rc = q->under->ioctl(q->under->ctx, fd, request, arg);
    if (request == KVM_GET_VCPU_EVENTS && q->nmi)
        events->nmi.pending = 1;
    return rc;
}

static void *quirk_mmap(void *ctx, int fd, size_t len)
{
    struct quirks *q = ctx;

    return q->under->mmap(q->under->ctx, fd, len);
}

static void quirk_munmap(void *ctx, void *p, size_t len)
{
    struct quirks *q = ctx;

    q->under->munmap(q->under->ctx, p, len);
}

static void quirk_close(void *ctx, int fd)
{
    struct quirks *q = ctx;

    q->under->close(q->under->ctx, fd);
}

static void quirk_kick(void *ctx, int fd, pthread_t thread)
{
    struct quirks *q = ctx;

    q->under->kick(q->under->ctx, fd, thread);
}

/* ---- a vCPU on it ---- */

struct bench {
    struct quirks q;
    struct kvm_fake *fake;
    struct engine_env env;
    struct x86_cpuid cpuid;
    struct x86_state st;
    void *vm, *cpu;
};

/* missing: a capability that this KVM has not, or 0. */
static struct bench *make(uint32_t missing)
{
    const struct kvm_fake_options options = {.missing = &missing, .missing_count = missing != 0};
    struct bench *b = calloc(1, sizeof(*b));
    struct error err = {0};
    int rc;

    if (b == NULL)
        exit(1);
    b->fake = kvm_fake_create(&options);
    b->q.under = kvm_fake_sys(b->fake);
    b->q.sys = (struct kvm_sys){.ctx = &b->q,
                                .open = quirk_open,
                                .ioctl = quirk_ioctl,
                                .mmap = quirk_mmap,
                                .munmap = quirk_munmap,
                                .close = quirk_close,
                                .kick = quirk_kick};
    b->env = (struct engine_env){.kvm = &b->q.sys, .cpus = 1, .board_lapic = true};
    b->env.cpuid = &b->cpuid;
    b->env.strict_io = true;
    b->env.log = log_create(2, LOG_WARN);
    b->env.mem = gmem_create(1 << 20, &err);
    b->env.bus = bus_create(b->env.log);
    rc = x86_cpuid_create(&b->cpuid, "v2", NULL, 2000000000, &err);
    if (rc == 0)
        rc = engine_kvm.vm_create(&b->env, &b->vm, &err);
    if (rc == 0)
        rc = engine_kvm.vcpu_create(b->vm, 0, &b->cpu, &err);
    if (rc != 0) {
        printf("FAIL %s\n", err.text);
        exit(1);
    }
    return b;
}

static void drop(struct bench *b)
{
    engine_kvm.vcpu_destroy(b->cpu);
    engine_kvm.vm_destroy(b->vm);
    bus_destroy(b->env.bus);
    gmem_destroy(b->env.mem);
    log_destroy(b->env.log);
    kvm_fake_destroy(b->fake);
    free(b);
}

/* In b->st: real mode, at CODE, which is `code`. */
static void at_code(struct bench *b, const void *code, size_t len)
{
    gmem_write(b->env.mem, CODE, code, len);
    real_mode(&b->st, CODE);
}

static bool set(struct bench *b)
{
    struct error err = {0};

    return engine_kvm.set(b->cpu, &b->st, &err) == 0;
}

static bool comes_to(struct bench *b, unsigned port)
{
    struct vcpu_exit x;

    return engine_kvm.run(b->cpu, 0, &x) == 0 && x.reason == VCPU_EXIT_PIO && x.io.addr == port;
}

/* ---- what is checked ---- */

/* One that comes in the handler of another, whose IRET leads to a HLT. */
static void nmi(void)
{
    static const uint8_t code[] = {0xe6, 0x10, 0xf4, 0xf4};    /* out 0x10, al; hlt; hlt */
    static const uint8_t handler[] = {0xe6, 0x11, 0x90, 0xcf}; /* out 0x11, al; nop; iret */
    static const uint16_t entry[2] = {HANDLER, 0};

    for (unsigned late = 0; late < 2; late++) {
        struct bench *b = make(0);
        struct vcpu_exit x;

        b->q.late = late != 0;
        gmem_write(b->env.mem, HANDLER, handler, sizeof(handler));
        gmem_write(b->env.mem, 4 * 2, entry, sizeof(entry));
        at_code(b, code, sizeof(code));
        check(set(b) && comes_to(b, 0x10), "the guest runs");
        engine_kvm.nmi(b->cpu);
        check(comes_to(b, 0x11), "an NMI comes");
        engine_kvm.nmi(b->cpu);
        check(comes_to(b, 0x11), "one that was blocked comes before the vCPU sleeps");
        check(engine_kvm.run(b->cpu, 0, &x) == 0 && x.reason == VCPU_EXIT_HLT, "and once");
        drop(b);
    }
}

static void tsc(void)
{
    static const uint8_t hlt = 0xf4;
    struct bench *b = make(0);

    b->q.deaf_tsc = true;
    at_code(b, &hlt, 1);
    b->st.tsc_offset = 1ull << 50;
    check(set(b), "an offset of the TSC is taken");
    check(engine_kvm.tsc(b->cpu) < 1ull << 49, "what others are told is what the guest reads");
    engine_kvm.get(b->cpu, &b->st);
    check(b->st.tsc_offset != 1ull << 50, "and what an engine after this one gets");
    drop(b);
}

/* Without KVM_GET_SREGS2 they are where the guest had them from. */
static void pdptrs(void)
{
    static const uint8_t hlt = 0xf4;
    struct bench *b = make(KVM_CAP_SREGS2);

    at_code(b, &hlt, 1);
    b->st.cr0 |= X86_CR0_PE | X86_CR0_PG;
    b->st.cr3 = TABLE + 0x20;
    b->st.cr4 |= X86_CR4_PAE;
    for (unsigned i = 0; i < 4; i++) {
        uint64_t entry = 0x10000u * (i + 1) | 1;

        gmem_write(b->env.mem, TABLE + 0x20 + 8 * i, &entry, sizeof(entry));
        b->st.pdptr[i] = entry;
    }
    check(set(b), "PAE paging");
    memset(b->st.pdptr, 0, sizeof(b->st.pdptr));
    engine_kvm.get(b->cpu, &b->st);
    for (unsigned i = 0; i < 4; i++)
        check(b->st.pdptr[i] == (0x10000u * (i + 1) | 1), "a page directory's place");
    drop(b);
}

static bool steps_to(struct bench *b, unsigned at)
{
    struct vcpu_exit x;

    return engine_kvm.run(b->cpu, 0, &x) == 0 && x.reason == VCPU_EXIT_DEBUG && x.debug.step &&
           x.rip == CODE + at;
}

/* A state from elsewhere in the middle of a debugger's steps. */
static void steps(void)
{
    static const uint8_t code[] = {0x90, 0x90, 0x90, 0x90, 0xf4};
    static const struct vcpu_debug step = {.step = true};
    struct error err = {0};
    struct bench *b = make(0);

    at_code(b, code, sizeof(code));
    check(set(b) && engine_kvm.debug(b->cpu, &step, &err) == 0, "a debugger steps");
    check(steps_to(b, 1) && steps_to(b, 2), "two steps");
    b->st.rip = CODE + 1;
    check(set(b) && steps_to(b, 2) && steps_to(b, 3), "two more from another place");
    drop(b);
}

static bool stops_at(struct bench *b, unsigned at, unsigned points)
{
    struct vcpu_exit x;

    return engine_kvm.run(b->cpu, 0, &x) == 0 && x.reason == VCPU_EXIT_DEBUG && !x.debug.step &&
           x.debug.points == points && x.rip == CODE + at;
}

/* Instructions with a breakpoint run once each time that they are come to. */
static void breakpoints(void)
{
    static const uint8_t code[] = {0x40, 0xe6, 0x10, 0xeb, 0xfb}; /* inc ax; out 0x10, al; jmp */
    static const struct vcpu_debug two = {
        .point = {[0] = {VCPU_BREAK_EXEC, 1, CODE + 1}, [3] = {VCPU_BREAK_EXEC, 1, CODE}}};
    struct error err = {0};

    for (unsigned deaf = 0; deaf < 2; deaf++) {
        struct bench *b = make(0);

        b->q.deaf_rf = deaf != 0;
        at_code(b, code, sizeof(code));
        check(set(b) && engine_kvm.debug(b->cpu, &two, &err) == 0, "two breakpoints");
        for (unsigned turn = 0; turn < 3; turn++) {
            check(stops_at(b, 0, 1 << 3), "the first");
            check(stops_at(b, 1, 1 << 0), "and the one behind it");
            check(comes_to(b, 0x10), "whose instruction ends the run");
        }
        engine_kvm.get(b->cpu, &b->st);
        check((b->st.gpr[X86_RAX] & 0xff) == 3, "each has run once a turn");
        drop(b);
    }
}

int main(void)
{
    nmi();
    tsc();
    pdptrs();
    steps();
    breakpoints();
    return checks_end();
}
