/*
 * The kvm engine alone on the fake: what a whole guest would meet too rarely. With the argument
 * "real" on the host's device; with "nobreaks" behind it, one without hardware breakpoints (qemu's
 * emulation of SVM), with "nowatches" one that has them for instructions alone (a KVM that
 * emulates).
 */
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bus/doorbell.h"
#include "bus/irqfd.h"
#include "checks.h"
#include "dev/lapic.h"
#include "engine/kvm/kvm.h"
#include "engine/soft/soft.h"
#include "../unit/loop_fixture.h"
#include "fake.h"
#include "mem/gmem.h"

#define CODE 0x1000u
#define HANDLER 0x2000u
#define VECTOR 0x40u

static bool real;           /* the host's device, not the fake */
static bool breaks = true;  /* it has hardware breakpoints */
static bool watches = true; /* those for data, too */

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
    real_mode(st, CODE);
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

static void at_code(struct bench *b, const void *code, size_t len)
{
    static struct x86_state st;
    struct error err = {0};

    halted_at_code(&st);
    st.mp_state = X86_MP_RUNNING;
    st.rflags = X86_FL_FIXED;
    st.seg[X86_DS].attr = 0x93;
    st.gpr[X86_RAX] = 0x1234;
    gmem_write(b->env.mem, CODE, code, len);
    check(engine_kvm.set(b->cpu, &st, &err) == 0, "a state to run from");
}

/* ---- the TSC's frequency ---- */

/* mov eax, 0x40000010; cpuid; hlt */
static const uint8_t asks[] = {0x66, 0xb8, 0x10, 0x00, 0x00, 0x40, 0x0f, 0xa2, 0xf4};

static void frequency(struct bench *b)
{
    static struct x86_state st;
    struct error err = {0};
    struct vcpu_exit x;
    uint64_t hz = engine_kvm.tsc_hz(b->cpu);

    check(hz > 100000000 && hz % 1000 == 0, "the kernel knows how fast the TSC is");
    x86_cpuid_tsc(&b->cpuid, hz);
    check(engine_kvm.settled(b->cpu, &err) == 0, "and takes the model with it");
    at_code(b, asks, sizeof(asks));
    check(engine_kvm.run(b->cpu, 0, &x) == 0 && x.reason == VCPU_EXIT_HLT, "the guest asks");
    engine_kvm.get(b->cpu, &st);
    check(st.gpr[X86_RAX] == hz / 1000, "and is told");
}

/* ---- doorbells ---- */

#define BELL_PAGE 0x200000u /* beyond RAM */
#define BELL_PORT 0x20u

/* mov [0x100], ax; mov [0x100], al; out dx, ax; mov ax, 0x1235; out dx, ax; hlt */
static const uint8_t ringer[] = {0xa3, 0x00, 0x01, 0xa2, 0x00, 0x01,
                                 0xef, 0xb8, 0x35, 0x12, 0xef, 0xf4};

static void count_write(void *ctx, uint64_t offset, unsigned size, uint64_t value)
{
    unsigned *writes = ctx;

    (void)offset;
    (void)size;
    (void)value;
    ++*writes;
}

static void count_ring(void *ctx)
{
    unsigned *rings = ctx;

    ++*rings;
}

static void ring_all(struct bench *b, struct bus_doorbell *const bell[2])
{
    static struct x86_state st;
    struct error err = {0};
    struct vcpu_exit x;

    halted_at_code(&st);
    st.mp_state = X86_MP_RUNNING;
    st.rflags = X86_FL_FIXED;
    st.seg[X86_DS].attr = 0x93;
    st.seg[X86_DS].base = BELL_PAGE;
    st.seg[X86_DS].limit = 0xffff;
    st.gpr[X86_RAX] = 0x1234;
    st.gpr[X86_RDX] = BELL_PORT;
    gmem_write(b->env.mem, CODE, ringer, sizeof(ringer));
    check(engine_kvm.set(b->cpu, &st, &err) == 0 && engine_kvm.run(b->cpu, 0, &x) == 0 &&
              x.reason == VCPU_EXIT_HLT,
          "a guest that rings");
    bus_doorbell_poll(bell[0]);
    bus_doorbell_poll(bell[1]);
}

/* Two writes are bells, by their width and by their value; the two beside them are accesses. */
static void doorbells(struct bench *b)
{
    static const struct bus_ops ops = {.write = count_write};
    static const struct bus_spot spot[2] = {
        {.space = BUS_MMIO, .addr = BELL_PAGE + 0x100, .len = 2},
        {.space = BUS_PIO, .addr = BELL_PORT, .len = 2, .match = true, .value = 0x1234}};
    unsigned writes = 0, rings[2] = {0};
    struct bus_region r = {
        .base = BELL_PAGE, .len = 0x1000, .ops = &ops, .ctx = &writes, .name = "r"};
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    struct bus_doorbell *bell[2];
    struct error err = {0};
    struct loop *loop = loop_create(&err);

    check(bus_map(b->env.bus, BUS_MMIO, &r, &err) == 0, "a page of a device's");
    r.base = BELL_PORT;
    r.len = 4;
    check(bus_map(b->env.bus, BUS_PIO, &r, &err) == 0, "its ports");
    for (unsigned i = 0; i < 2; i++) {
        bell[i] = bus_doorbell_create(b->env.bus, loop, &lock, count_ring, &rings[i]);
        bus_doorbell_place(bell[i], &spot[i], &writes);
    }
    ring_all(b, bell);
    check(rings[0] == 1 && rings[1] == 1, "each bell was rung once");
    check(writes == 2, "the other two writes are accesses");
    bus_doorbell_place(bell[0], NULL, NULL);
    bus_doorbell_free(bell[1]);
    bell[1] = bell[0];
    ring_all(b, bell);
    check(rings[0] == 1 && rings[1] == 1 && writes == 6, "without bells all are");
    bus_doorbell_free(bell[0]);
    bus_unmap(b->env.bus, BUS_MMIO, BELL_PAGE, &writes);
    bus_unmap(b->env.bus, BUS_PIO, BELL_PORT, &writes);
    loop_destroy(loop);
}

/* ---- the log of written pages ---- */

/* mov [0x5000], ax; mov ax, [0x6000]; hlt */
static const uint8_t writer[] = {0xa3, 0x00, 0x50, 0xa1, 0x00, 0x60, 0xf4};

/* Of pages 0 to 63 of the first range just these; a real KVM may tell of more. */
static bool taken(struct bench *b, uint64_t want)
{
    uint64_t bits[4] = {0};

    check(gmem_log_take(b->env.mem, 0, bits, 4) == 0, "the log is read");
    return real ? (bits[0] & want) == want : bits[0] == want;
}

static void written_pages(struct bench *b)
{
    static struct x86_state st;
    struct engine_env env = b->env;
    struct error err = {0};
    struct vcpu_exit x;
    uint64_t bits[4] = {0};
    void *vm = NULL, *cpu = NULL;

    at_code(b, writer, sizeof(writer));
    check(gmem_log_take(b->env.mem, 0, bits, 4) == -EINVAL, "no log, nothing to read");
    check(gmem_log_begin(b->env.mem, engine_kvm.dirty_take, b->vm, &err) == 0, "a log");
    check(engine_kvm.dirty(b->vm, true, &err) == 0, "the engine's");
    check(taken(b, 0), "nothing is written yet");
    gmem_write(b->env.mem, 0x9ffe, "four", 4);
    check(engine_kvm.run(b->cpu, 0, &x) == 0 && x.reason == VCPU_EXIT_HLT, "the guest writes");
    check(taken(b, 1ull << 5 | 1ull << 9 | 1ull << 10), "its page and the device's two");
    check(taken(b, 0), "each is told once");
    check(gmem_ptr(b->env.mem, 0xb000, 4) != NULL && taken(b, 1ull << 11),
          "an address to write to counts");
    check(gmem_ptr_ro(b->env.mem, 0xb000, 4) != NULL && taken(b, 0), "one to read from does not");
    check(gmem_log_take(b->env.mem, 0, bits, 3) == -EINVAL, "too few words for a MiB");
    check(gmem_log_take(b->env.mem, 1, bits, 4) == -EINVAL, "no such range");
    /* what a software CPU writes for the vCPU, as at a rescue */
    env.visiting = env.interpret = true;
    gmem_keeper_begin(b->env.mem);
    engine_kvm.get(b->cpu, &st);
    st.rip = CODE;
    st.mp_state = X86_MP_RUNNING;
    st.gpr[X86_RAX] = 0x4321;
    check(engine_soft.vm_create(&env, &vm, &err) == 0 &&
              engine_soft.vcpu_create(vm, 0, &cpu, &err) == 0 &&
              engine_soft.set(cpu, &st, &err) == 0 && engine_soft.run(cpu, 8, &x) == 0,
          "a visit");
    gmem_keeper_end(b->env.mem);
    check(gmem_log_take(b->env.mem, 0, bits, 4) == 0 && (bits[0] & 1ull << 5) != 0,
          "a visitor's page");
    engine_soft.vcpu_destroy(cpu);
    engine_soft.vm_destroy(vm);
    check(engine_kvm.dirty(b->vm, false, &err) == 0, "the log ends");
    gmem_log_end(b->env.mem);
    check(!gmem_log_on(b->env.mem) && gmem_log_take(b->env.mem, 0, bits, 4) == -EINVAL, "for all");
}

/* ---- a debugger ---- */

/* nop; mov [0x5000], ax; mov ax, [0x5002]; mov eax, dr0; nop; hlt */
static const uint8_t stepped[] = {0x90, 0xa3, 0x00, 0x50, 0xa1, 0x02,
                                  0x50, 0x0f, 0x21, 0xc0, 0x90, 0xf4};

static bool stops(struct bench *b, unsigned at, bool step, unsigned points)
{
    struct vcpu_exit x;
    int rc = engine_kvm.run(b->cpu, 0, &x);

    return rc == 0 && x.reason == VCPU_EXIT_DEBUG && x.rip == CODE + at && x.debug.step == step &&
           x.debug.points == points;
}

static void breakpoints(struct bench *b)
{
    static struct x86_state st;
    struct vcpu_debug d = {.step = true};
    struct vcpu_exit x;
    struct error err = {0};

    at_code(b, stepped, sizeof(stepped));
    engine_kvm.get(b->cpu, &st);
    st.dr[0] = 0x1234;
    check(engine_kvm.set(b->cpu, &st, &err) == 0, "a breakpoint register of the guest's own");
    check(engine_kvm.debug(b->cpu, &d, &err) == 0 && stops(b, 1, true, 0), "a step");
    d = (struct vcpu_debug){.point = {[1] = {VCPU_BREAK_WRITE, 2, 0x5000},
                                      [2] = {VCPU_BREAK_ACCESS, 1, 0x5003},
                                      [3] = {VCPU_BREAK_EXEC, 1, CODE + 10}}};
    if (!breaks)
        return;
    check(engine_kvm.debug(b->cpu, &d, &err) == 0, "breakpoints");
    if (watches) {
        check(stops(b, 4, false, 1 << 1), "a write");
        check(stops(b, 7, false, 1 << 2), "a read of the word's other half");
    }
    check(stops(b, 10, false, 1 << 3), "an instruction, before it runs");
    engine_kvm.get(b->cpu, &st);
    check(st.gpr[X86_RAX] == 0x1234 && st.dr[0] == 0x1234, "the guest reads its own DR0");
    check(engine_kvm.run(b->cpu, 0, &x) == 0 && x.reason == VCPU_EXIT_HLT && x.rip == CODE + 12,
          "the next run lets it pass");
    d.point[0] = (struct vcpu_breakpoint){VCPU_BREAK_WRITE, 4, 0x5002};
    check(engine_kvm.debug(b->cpu, &d, &err) == -EINVAL && strstr(err.text, "multiple") != NULL,
          "four bytes at an odd place");
    d.point[0] = (struct vcpu_breakpoint){VCPU_BREAK_EXEC, 2, 0x5002};
    check(engine_kvm.debug(b->cpu, &d, &err) == -EINVAL, "an instruction of two bytes");
    d.point[0] = (struct vcpu_breakpoint){VCPU_BREAK_WRITE, 3, 0x5001};
    check(engine_kvm.debug(b->cpu, &d, &err) == -EINVAL, "three bytes");
    memset(&d, 0, sizeof(d));
    at_code(b, stepped, sizeof(stepped));
    check(engine_kvm.debug(b->cpu, &d, &err) == 0 && engine_kvm.run(b->cpu, 0, &x) == 0 &&
              x.reason == VCPU_EXIT_HLT,
          "nothing of it any more");
}

/* ---- the kernel's local APIC, and the board's ---- */

static void signal_none(void *ctx, unsigned cpu)
{
    (void)ctx;
    (void)cpu;
}

static void signal_sipi(void *ctx, unsigned cpu, uint8_t vector)
{
    (void)ctx;
    (void)cpu;
    (void)vector;
}

static uint64_t signal_tsc(void *ctx, unsigned cpu)
{
    (void)ctx;
    (void)cpu;
    return 0;
}

static const struct vcpu_signal_ops signals = {.interrupt = signal_none,
                                               .nmi = signal_none,
                                               .smi = signal_none,
                                               .init = signal_none,
                                               .sipi = signal_sipi,
                                               .tsc_now = signal_tsc,
                                               .tsc_hz = signal_tsc};

/* in al, 0x10; sti; nop; hlt; and of the handler: out 0x11, al. Nothing claims the ports. */
static const uint8_t listens[] = {0xe4, 0x10, 0xfb, 0x90, 0xf4};
static const uint8_t heard[] = {0xe6, 0x11};

static bool comes_to(void *cpu, unsigned port)
{
    struct vcpu_exit x;

    return engine_kvm.run(cpu, 0, &x) == 0 && x.reason == VCPU_EXIT_PIO && x.io.addr == port;
}

/* The ways of a message: a call, a descriptor by us and by others, a pin of the IOAPIC. */
enum way { BY_CALL, BY_FD, BY_OTHERS, BY_PIN };

static struct irq_fd *fd;
static const struct irq_message sent = {.assert = true, .vector = VECTOR};
#define PIN 5u

static void count_up(int event)
{
    static const uint64_t one = 1;

    check(write(event, &one, sizeof(one)) == (ssize_t)sizeof(one), "a descriptor is counted up");
}

static void send_by(const struct bench *b, enum way way)
{
    switch (way) {
    case BY_CALL:
        msi_send(b->env.irqs, 0xfee00000, VECTOR);
        break;
    case BY_FD:
        irq_fd_send(fd, &sent);
        break;
    case BY_OTHERS:
        count_up(irq_fd_descriptor(fd));
        break;
    case BY_PIN:
        irq_deliver_pin(b->env.irqs, PIN, &sent);
        break;
    }
}

/* The loop's thread, or the fake's, may have it still. */
static bool comes_soon(struct lapics *apics)
{
    for (unsigned ms = 0; ms < 10000; ms++) {
        if (lapics_cpu_ops.pending(apics, 0))
            return true;
        usleep(1000);
    }
    return false;
}

/* From its beginning, with a message at the first stop; home: then the APIC is the board's. */
static void message(struct bench *b, struct lapics *apics, void *cpu, bool home, enum way way,
                    const char *what)
{
    static struct x86_state st;
    struct error err = {0};

    halted_at_code(&st);
    st.mp_state = X86_MP_RUNNING;
    st.rflags = X86_FL_FIXED;
    check(engine_kvm.set(cpu, &st, &err) == 0 && comes_to(cpu, 0x10), "it runs");
    if (home)
        check(engine_kvm.lapic_home(cpu) == 0 && !lapics_cpu_ops.pending(apics, 0),
              "the APIC comes");
    send_by(b, way);
    check(home ? comes_soon(apics) : !lapics_cpu_ops.pending(apics, 0),
          "the message goes where the APIC is");
    if (!home)
        check(engine_kvm.lapic_home(cpu) == 0 && comes_soon(apics), "or comes with it");
    check(comes_to(cpu, 0x11), what);
    check(!lapics_cpu_ops.pending(apics, 0), "it is the kernel's again");
    check(engine_kvm.lapic_home(cpu) == 0 && lapics_cpu_ops.ack(apics, 0) == -1 &&
              !lapics_cpu_ops.pending(apics, 0),
          "once");
    lapics_cpu_ops.mmio_write(apics, 0, 0xb0, 4, 0); /* its end */
}

/* By descriptor; `home` and not, so often that the APIC moves while one is on its way. */
static void by_descriptor(struct bench *b, struct lapics *apics)
{
    uint64_t before;

    fd = irq_fd_create(b->env.irqs);
    check(fd != NULL, "a descriptor");
    if (fd == NULL)
        return;
    irq_fd_message(fd, &sent);
    irq_pin(b->env.irqs, PIN, &sent, false);
    before = irq_fds_sent(b->env.irqs);
    message(b, apics, b->cpu, false, BY_FD, "a message by descriptor");
    message(b, apics, b->cpu, false, BY_PIN, "a pin's, too");
    check(irq_fds_sent(b->env.irqs) == before + 2, "both were the kernel's");
    message(b, apics, b->cpu, true, BY_FD, "a message by descriptor, to the board's");
    message(b, apics, b->cpu, true, BY_PIN, "a pin's, to the board's");
    check(irq_fds_sent(b->env.irqs) == before + 2, "and not those");
    for (unsigned i = 0; i < 50; i++)
        message(b, apics, b->cpu, i & 1, BY_OTHERS, "what others count up");
    irq_fd_message(fd, NULL);
    count_up(irq_fd_descriptor(fd));
    irq_fd_message(fd, &sent);
    check(comes_soon(apics), "what was counted up while it had no message");
    check(lapics_cpu_ops.ack(apics, 0) == (int)VECTOR, "is one");
    lapics_cpu_ops.mmio_write(apics, 0, 0xb0, 4, 0);
    irq_fd_free(fd);
}

static void kernel_apic(const struct bench *of, const struct kvm_sys *sys)
{
    static struct bench b;
    struct lapic_config cfg = {.cpus = 1, .phys_bits = 39, .signals = &signals};
    static struct dev_env dev;
    struct lapics *apics = NULL;
    struct error err = {0};
    struct loop_thread server;

    b = *of;
    b.env.kvm = sys;
    b.env.board_lapic = false;
    b.env.strict_io = true;
    b.env.irqs = irq_router_create(b.env.log);
    check(!irq_fds_allowed(b.env.irqs) && irq_fd_create(b.env.irqs) == NULL, "nobody has asked");
    if (loop_thread_start(&server) != 0 || irq_fds_allow(b.env.irqs, server.loop, &err) != 0) {
        check(false, "a loop");
        return;
    }
    dev_env_init(&dev, "lapics");
    dev.irqs = b.env.irqs;
    dev.log = b.env.log;
    dev.timers = timerq_create(true, NULL, NULL);
    check(lapics_create(&dev, &cfg, &apics, &err) == 0, "the board's APIC");
    b.env.lapic = &lapics_cpu_ops;
    b.env.lapic_ctx = apics;
    gmem_write(b.env.mem, CODE, listens, sizeof(listens));
    gmem_write(b.env.mem, HANDLER, heard, sizeof(heard));
    check(engine_kvm.vm_create(&b.env, &b.vm, &err) == 0 &&
              engine_kvm.vcpu_create(b.vm, 0, &b.cpu, &err) == 0,
          "a VM with the kernel's");
    message(&b, apics, b.cpu, false, BY_CALL, "a message to the kernel's");
    message(&b, apics, b.cpu, true, BY_CALL, "a message while it is the board's");
    by_descriptor(&b, apics);
    engine_kvm.vcpu_destroy(b.cpu);
    engine_kvm.vm_destroy(b.vm);
    lapics_destroy(apics);
    irq_router_destroy(b.env.irqs);
    loop_thread_stop(&server);
    timerq_destroy(dev.timers);
    dev_env_fini(&dev);
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
    refuses(NULL, KVM_CAP_USER_MEMORY, false, "too old: it has no KVM_CAP_USER_MEMORY");
    refuses(NULL, KVM_CAP_EXT_CPUID, false, "too old: it has no KVM_CAP_EXT_CPUID");
    refuses(NULL, KVM_CAP_MP_STATE, false, "too old: it has no KVM_CAP_MP_STATE");
    refuses(NULL, KVM_CAP_VCPU_EVENTS, false, "too old: it has no KVM_CAP_VCPU_EVENTS");
    refuses(NULL, KVM_CAP_IMMEDIATE_EXIT, false, "too old: it has no KVM_CAP_IMMEDIATE_EXIT");
    refuses(NULL, KVM_CAP_X86_USER_SPACE_MSR, false, "it has no KVM_CAP_X86_USER_SPACE_MSR");
    refuses(NULL, KVM_CAP_X86_MSR_FILTER, false, "too old: it has no KVM_CAP_X86_MSR_FILTER");
    refuses(NULL, 0, true, "emulates instead of running");
}

static int open_bench(struct bench *b, const struct kvm_sys *sys)
{
    struct error err = {0};
    int rc;

    b->env.kvm = sys;
    b->env.cpus = 1;
    b->env.lapic = &lapic;
    b->env.board_lapic = true;
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

int main(int argc, char **argv)
{
    static struct bench b;
    static const uint8_t hlt = 0xf4;
    static const uint16_t entry[2] = {HANDLER, 0};
    struct kvm_fake *fake = kvm_fake_create(NULL);

    real = argc > 1 && strcmp(argv[1], "real") == 0;
    breaks = argc <= 2 || strcmp(argv[2], "nobreaks") != 0;
    watches = argc <= 2 || strcmp(argv[2], "nowatches") != 0;
    if (open_bench(&b, real ? &kvm_sys_host : kvm_fake_sys(fake)) != 0)
        return 1;
    frequency(&b);
    gmem_write(b.env.mem, CODE, &hlt, 1);
    gmem_write(b.env.mem, HANDLER, &hlt, 1);
    gmem_write(b.env.mem, 4 * VECTOR, entry, sizeof(entry));
    halted_elsewhere(&b);
    kicked(&b);
    halted_for_good(&b);
    doorbells(&b);
    written_pages(&b);
    breakpoints(&b);
    kernel_apic(&b, real ? &kvm_sys_host : kvm_fake_sys(fake));
    if (!real)
        refusals();
    engine_kvm.vcpu_destroy(b.cpu);
    engine_kvm.vm_destroy(b.vm);
    bus_destroy(b.env.bus);
    gmem_destroy(b.env.mem);
    log_destroy(b.env.log);
    kvm_fake_destroy(fake);
    return checks_end();
}
