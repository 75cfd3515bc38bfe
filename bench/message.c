/*
 * What a message to the kernel's local APIC costs the thread that sends it: by KVM_SIGNAL_MSI, and
 * by an eventfd that the kernel turns into the same message (irqfd). Beside them a system call that
 * does nothing. message             status 77 where there is no /dev/kvm tools/kvm-bed.sh --file
 * build/bench/message -- message
 */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 20000u
#define TURNS 5u
#define GSI 24u
#define ADDRESS 0xfee00000u
#define DATA 0x41u
#define REG_SVR 0xf0
#define REG_IRR2 0x220 /* vectors 0x40 to 0x5f */

static double now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* A VM with one vCPU whose local APIC is switched on, and GSI as that message. 0, or what failed.
 */
static const char *make(int dev, int *vm, int *cpu, int event)
{
    struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {GSI}};
    struct kvm_irqfd irq = {.fd = (uint32_t)event, .gsi = GSI};
    _Alignas(8) uint8_t room[sizeof(struct kvm_irq_routing) + sizeof(struct kvm_irq_routing_entry)];
    struct kvm_irq_routing *r = (void *)room;
    struct kvm_lapic_state apic;
    const uint32_t on = 0x1ff;

    memset(room, 0, sizeof(room));
    r->nr = 1;
    r->entries[0] = (struct kvm_irq_routing_entry){
        .gsi = GSI, .type = KVM_IRQ_ROUTING_MSI, .u.msi = {.address_lo = ADDRESS, .data = DATA}};
    *vm = ioctl(dev, KVM_CREATE_VM, 0);
    if (*vm < 0 || ioctl(*vm, KVM_ENABLE_CAP, &split) < 0)
        return "a VM with local APICs";
    *cpu = ioctl(*vm, KVM_CREATE_VCPU, 0);
    if (*cpu < 0 || ioctl(*cpu, KVM_GET_LAPIC, &apic) < 0)
        return "a vCPU";
    memcpy(apic.regs + REG_SVR, &on, sizeof(on));
    if (ioctl(*cpu, KVM_SET_LAPIC, &apic) < 0)
        return "its local APIC";
    if (ioctl(*vm, KVM_SET_GSI_ROUTING, r) < 0 || ioctl(*vm, KVM_IRQFD, &irq) < 0)
        return "an irqfd";
    return NULL;
}

static double cost(int vm, int event, int way)
{
    struct kvm_msi msi = {.address_lo = ADDRESS, .data = DATA};
    const uint64_t one = 1;
    double start = now_ns();
    long bad = 0;

    for (unsigned i = 0; i < ROUNDS; i++) {
        if (way == 0)
            bad |= ioctl(vm, KVM_SIGNAL_MSI, &msi) < 0;
        else if (way == 1)
            bad |= write(event, &one, sizeof(one)) != sizeof(one);
        else
            bad |= syscall(SYS_getppid) < 0;
    }
    return bad ? -1 : (now_ns() - start) / ROUNDS;
}

int main(void)
{
    static const char *const name[3] = {"KVM_SIGNAL_MSI", "irqfd", "getppid"};
    int dev = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm = -1, cpu = -1;
    int event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct kvm_lapic_state apic;
    const char *missing;

    if (dev < 0) {
        puts("message: skipped: /dev/kvm cannot be opened");
        return 77;
    }
    missing = make(dev, &vm, &cpu, event);
    if (missing != NULL) {
        printf("message: KVM does not give %s\n", missing);
        return 1;
    }
    for (int way = 0; way < 3; way++) {
        double best = -1, worst = -1;

        for (unsigned turn = 0; turn < TURNS; turn++) {
            double ns = cost(vm, event, way);

            if (ns < 0) {
                printf("message: %s fails\n", name[way]);
                return 1;
            }
            best = best < 0 || ns < best ? ns : best;
            worst = ns > worst ? ns : worst;
        }
        printf("%-16s %6.0f ns, at most %.0f\n", name[way], best, worst);
    }
    if (ioctl(cpu, KVM_GET_LAPIC, &apic) < 0 || !(apic.regs[REG_IRR2] & 2)) {
        puts("message: the interrupt is not in the local APIC");
        return 1;
    }
    return 0;
}
