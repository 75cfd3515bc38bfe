/* What the fake has that no real KVM does: faults on demand, an emulator that fails; and several
 * vCPUs. */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "checks.h"
#include "conform.h"
#include "fake.h"

static struct conform open_fake(struct kvm_fake *f, FILE *out)
{
    struct conform c = {.sys = kvm_fake_sys(f), .out = out, .step = "fake"};

    c.kvm = c.sys->open(c.sys->ctx, "/dev/kvm");
    return c;
}

/* ---- faults ---- */

static void test_faults(FILE *out)
{
    static const uint32_t missing[] = {KVM_CAP_SYNC_REGS, KVM_CAP_VCPU_EVENTS, KVM_CAP_IRQFD};
    static const struct kvm_fake_fault faults[] = {{KVM_CREATE_VM, ENOMEM, false},
                                                   {KVM_SET_TSS_ADDR, EPERM, true}};
    const struct kvm_fake_options options = {
        .missing = missing, .missing_count = 3, .faults = faults, .fault_count = 2};
    struct kvm_fake_fault refuse = {0, EACCES, false};
    struct kvm_fake *f = kvm_fake_create(&options);
    struct conform c = open_fake(f, out);
    struct kvm_vcpu_events e;
    struct kvm_irqfd irq = {0};
    int vm, cpu;

    check(call_n(&c, c.kvm, KVM_CREATE_VM, 0) == -ENOMEM, "a fault comes");
    vm = call_n(&c, c.kvm, KVM_CREATE_VM, 0);
    check(vm >= 0, "and goes");
    check(call_n(&c, vm, KVM_SET_TSS_ADDR, 0) == -EPERM, "another comes");
    check(call_n(&c, vm, KVM_SET_TSS_ADDR, 0) == -EPERM, "and stays");
    check(call_n(&c, c.kvm, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_REGS) == 0, "no capability");
    check(call_n(&c, c.kvm, KVM_CHECK_EXTENSION, KVM_CAP_IOEVENTFD) == 1, "the others are there");
    cpu = call_n(&c, vm, KVM_CREATE_VCPU, 0);
    check(call(&c, cpu, KVM_GET_VCPU_EVENTS, &e) == -EINVAL, "its vCPU's ioctl is unknown");
    check(call(&c, vm, KVM_IRQFD, &irq) == -ENOTTY, "its VM's ioctl is unknown");
    check(kvm_fake_fail(f, &refuse) == 0, "one more");
    check(c.sys->open(c.sys->ctx, "/dev/kvm") == -EACCES, "open fails");
    check(c.sys->open(c.sys->ctx, "/dev/kvm") >= 0, "open works");
    kvm_fake_destroy(f); /* closes what is open */
}

/* ---- the emulator that fails ---- */

static bool fails_on_aam(void *ctx, const uint8_t *bytes, unsigned len)
{
    unsigned *asked = ctx;

    (*asked)++;
    return len >= 2 && bytes[0] == 0xd4;
}

static void test_emulation(FILE *out)
{
    /* mov al, 25; aam; out 0x10, al; hlt */
    static const uint8_t code[] = {0xb0, 0x19, 0xd4, 0x0a, 0xe6, 0x10, 0xf4};
    static const uint8_t handler[] = {0xe6, 0x06, 0xf4};
    struct kvm_enable_cap cap = {.cap = KVM_CAP_EXIT_ON_EMULATION_FAILURE, .args = {1}};
    unsigned asked = 0;
    const struct kvm_fake_options options = {.fails = fails_on_aam, .fails_ctx = &asked};
    struct kvm_fake *f = kvm_fake_create(&options);
    struct conform c = open_fake(f, out);
    struct kvm_regs r;
    struct box b;

    if (!box_open(&c, &b, false))
        return;
    START(&b, code);
    HANDLER(&b, 6, 0x2000, handler);
    check(call(&c, b.vm, KVM_ENABLE_CAP, &cap) == 0, "failures exit");
    for (int i = 0; i < 2; i++) {
        check(call_n(&c, b.cpu, KVM_RUN, 0) == 0 && b.run->exit_reason == KVM_EXIT_INTERNAL_ERROR &&
                  b.run->emulation_failure.suberror == KVM_INTERNAL_ERROR_EMULATION,
              "it exits, each time");
        check(b.run->emulation_failure.flags == 1 && b.run->emulation_failure.insn_size == 15 &&
                  memcmp(b.run->emulation_failure.insn_bytes, code + 2, 5) == 0,
              "with the instruction's bytes");
        call(&c, b.cpu, KVM_GET_REGS, &r);
        check(r.rip == BOX_CODE + 2 && (r.rax & 0xffff) == 0x19, "at the instruction, before it");
    }
    check(asked >= 3, "each instruction is asked for");
    r.rip += 2; /* whoever carries it out puts RIP behind it */
    r.rax = 0x205;
    call(&c, b.cpu, KVM_SET_REGS, &r);
    check(call_n(&c, b.cpu, KVM_RUN, 0) == 0 && b.run->exit_reason == KVM_EXIT_IO &&
              ((uint8_t *)b.run)[b.run->io.data_offset] == 5,
          "and it goes on");
    cap.args[0] = 0;
    call(&c, b.vm, KVM_ENABLE_CAP, &cap);
    box_set_rip(&b, BOX_CODE);
    check(call_n(&c, b.cpu, KVM_RUN, 0) == 0 && b.run->exit_reason == KVM_EXIT_INTERNAL_ERROR,
          "ring 0 exits in any case");
    check(call_n(&c, b.cpu, KVM_RUN, 0) == 0 && b.run->exit_reason == KVM_EXIT_IO &&
              b.run->io.port == 6,
          "and gets #UD");
    box_close(&b); /* in the middle of that OUT */
    kvm_fake_destroy(f);
}

/* ---- several vCPUs ---- */

struct runner {
    struct box *b;
    int cpu;
    struct kvm_run *run;
    int first, second; /* answers of KVM_RUN */
};

static void *run_main(void *p)
{
    struct runner *r = p;

    r->first = call_n(r->b->c, r->cpu, KVM_RUN, 0);
    if (r->first == -EAGAIN)
        r->second = call_n(r->b->c, r->cpu, KVM_RUN, 0);
    return NULL;
}

/* The first wakes the second by INIT and STARTUP, and both use the same memory. */
static void test_startup(FILE *out)
{
    static const uint8_t code[] = {
        0xbf, 0x00, 0x03, 0xe0, 0xfe,             /* mov edi, 0xfee00300 */
        0xc7, 0x47, 0x10, 0x00, 0x00, 0x00, 0x01, /* [ICR high] = 1 << 24 */
        0xc7, 0x07, 0x00, 0x45, 0x00, 0x00,       /* [ICR] = INIT */
        0xc7, 0x07, 0x05, 0x46, 0x00, 0x00,       /* [ICR] = STARTUP at 0x5000 */
        0x80, 0x3d, 0x00, 0x60, 0x00, 0x00, 0x77, /* cmp byte [0x6000], 0x77 */
        0x75, 0xf7,                               /* jne - */
        0xe6, 0x10, 0xf4,                         /* out 0x10, al; hlt */
    };
    /* mov byte cs:[0x1000], 0x77; out 0x55, al; hlt: CS is 0x500 */
    static const uint8_t second[] = {0x2e, 0xc6, 0x06, 0x00, 0x10, 0x77, 0xe6, 0x55, 0xf4};
    struct kvm_fake *f = kvm_fake_create(NULL);
    struct conform c = open_fake(f, out);
    struct runner r = {0};
    pthread_t thread;
    struct box b;

    if (!box_open(&c, &b, true))
        return;
    flat_start(&b, false, code, sizeof(code));
    box_code(&b, 0x5000, second, sizeof(second));
    r.b = &b;
    r.cpu = call_n(&c, b.vm, KVM_CREATE_VCPU, 1);
    r.run = c.sys->mmap(c.sys->ctx, r.cpu, b.run_size);
    check(pthread_create(&thread, NULL, run_main, &r) == 0, "a thread");
    check(call_n(&c, b.cpu, KVM_RUN, 0) == 0 && b.run->exit_reason == KVM_EXIT_IO &&
              b.run->io.port == 0x10,
          "the first sees what the second writes");
    pthread_join(thread, NULL);
    check(r.first == -EAGAIN, "STARTUP ends the first KVM_RUN");
    check(r.second == 0 && r.run->exit_reason == KVM_EXIT_IO && r.run->io.port == 0x55,
          "the next one runs");
    c.sys->munmap(c.sys->ctx, r.run, b.run_size);
    c.sys->close(c.sys->ctx, r.cpu);
    box_close(&b);
    kvm_fake_destroy(f);
}

/* Memory comes and goes while a vCPU runs: it goes on, and finds it. */
static void test_slot_while_running(FILE *out)
{
    static const uint8_t code[] = {
        0x80, 0x3e, 0x00, 0x60, 0x01,       /* cmp byte [0x6000], 1 */
        0x75, 0xf9,                         /* jne - */
        0xb8, 0x00, 0x90, 0x8e, 0xd8,       /* ds = 0x9000 */
        0xa0, 0x00, 0x00, 0xe6, 0x10, 0xf4, /* out 0x10, [0]; hlt */
    };
    static _Alignas(4096) uint8_t ours[4096] = {0x42};
    struct kvm_userspace_memory_region r = {
        .slot = 1, .guest_phys_addr = 0x90000, .userspace_addr = (uintptr_t)ours};
    struct kvm_fake *f = kvm_fake_create(NULL);
    struct conform c = open_fake(f, out);
    struct runner run = {0};
    pthread_t thread;
    struct box b;

    if (!box_open(&c, &b, false))
        return;
    START(&b, code);
    run.b = &b;
    run.cpu = b.cpu;
    check(pthread_create(&thread, NULL, run_main, &run) == 0, "a thread");
    usleep(20000);
    for (unsigned i = 0; i < 21; i++) {
        r.memory_size = i % 2 == 0 ? sizeof(ours) : 0;
        check(call(&c, b.vm, KVM_SET_USER_MEMORY_REGION, &r) == 0, "a slot comes and goes");
    }
    __atomic_store_n(&b.ram[0x6000], 1, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
    check(run.first == 0 && b.run->exit_reason == KVM_EXIT_IO &&
              ((uint8_t *)b.run)[b.run->io.data_offset] == 0x42,
          "the vCPU goes on, and reads it");
    box_close(&b);
    kvm_fake_destroy(f);
}

int main(void)
{
    FILE *out = tmpfile();

    if (out == NULL)
        return 1;
    alarm(60);
    test_faults(out);
    test_emulation(out);
    test_startup(out);
    test_slot_while_running(out);
    printf("%u checks, %u failed\n", checks, failed);
    fclose(out);
    return failed != 0;
}
