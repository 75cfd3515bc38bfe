/* Conformance: the system, VMs, memory slots, descriptors, eventfds. */
#include "conform.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "host/memory.h"

static void version(struct conform *c)
{
    int size = call_n(c, c->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);

    say(c, "version", "%d", call_n(c, c->kvm, KVM_GET_API_VERSION, 0));
    say_result(c, "version with an argument", call_n(c, c->kvm, KVM_GET_API_VERSION, 1));
    say(c, "run size", "%s",
        size >= (int)sizeof(struct kvm_run) && size % 4096 == 0 ? "whole pages" : "wrong");
    say_result(c, "run size with an argument", call_n(c, c->kvm, KVM_GET_VCPU_MMAP_SIZE, 1));
    say_result(c, "a VM of an unknown type", call_n(c, c->kvm, KVM_CREATE_VM, 0xff));
}

static void caps(struct conform *c)
{
    static const struct {
        uint32_t cap;
        int least;
        const char *name;
    } wanted[] = {
        {KVM_CAP_HLT, 1, "hlt"},
        {KVM_CAP_USER_MEMORY, 1, "user memory"},
        {KVM_CAP_SET_TSS_ADDR, 1, "set tss addr"},
        {KVM_CAP_EXT_CPUID, 1, "ext cpuid"},
        {KVM_CAP_NR_VCPUS, 1, "nr vcpus"},
        {KVM_CAP_MAX_VCPUS, 2, "max vcpus"},
        {KVM_CAP_NR_MEMSLOTS, 8, "nr memslots"},
        {KVM_CAP_MP_STATE, 1, "mp state"},
        {KVM_CAP_DESTROY_MEMORY_REGION_WORKS, 1, "destroy memory region"},
        {KVM_CAP_USER_NMI, 1, "user nmi"},
        {KVM_CAP_SET_GUEST_DEBUG, 1, "set guest debug"},
        {KVM_CAP_IRQ_ROUTING, 24, "irq routing"},
        {KVM_CAP_IRQFD, 1, "irqfd"},
        {KVM_CAP_IOEVENTFD, 1, "ioeventfd"},
        {KVM_CAP_SET_IDENTITY_MAP_ADDR, 1, "set identity map addr"},
        {KVM_CAP_VCPU_EVENTS, 1, "vcpu events"},
        {KVM_CAP_DEBUGREGS, 1, "debugregs"},
        {KVM_CAP_XSAVE, 1, "xsave"},
        {KVM_CAP_XCRS, 1, "xcrs"},
        {KVM_CAP_GET_TSC_KHZ, 1, "get tsc khz"},
        {KVM_CAP_SYNC_REGS, 7, "sync regs"},
        {KVM_CAP_SIGNAL_MSI, 1, "signal msi"},
        {KVM_CAP_READONLY_MEM, 1, "readonly mem"},
        {KVM_CAP_ENABLE_CAP_VM, 1, "enable cap vm"},
        {KVM_CAP_CHECK_EXTENSION_VM, 1, "check extension vm"},
        {KVM_CAP_SPLIT_IRQCHIP, 1, "split irqchip"},
        {KVM_CAP_IMMEDIATE_EXIT, 1, "immediate exit"},
        {KVM_CAP_X86_USER_SPACE_MSR, 1, "user space msr"},
        {KVM_CAP_X86_MSR_FILTER, 1, "msr filter"},
        {KVM_CAP_SREGS2, 1, "sregs2"},
        {KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1, "exit on emulation failure"},
    };
    int vm = call_n(c, c->kvm, KVM_CREATE_VM, 0);

    for (unsigned i = 0; i < countof(wanted); i++) {
        int system = call_n(c, c->kvm, KVM_CHECK_EXTENSION, wanted[i].cap);
        int here = call_n(c, vm, KVM_CHECK_EXTENSION, wanted[i].cap);

        say(c, wanted[i].name, "%s%s", system >= wanted[i].least ? "yes" : "no",
            here != system ? ", and the VM differs" : "");
    }
    say_result(c, "one that there is not", call_n(c, c->kvm, KVM_CHECK_EXTENSION, 9999));
    c->sys->close(c->sys->ctx, vm);
}

static void descriptors(struct conform *c)
{
    uint64_t unused[64] = {0};
    struct box b;
    int vm, closed;

    say(c, "open of something else", "%s",
        result_name(c->sys->open(c->sys->ctx, "/dev/no-such-device")));
    say_result(c, "ioctl on no descriptor", call_n(c, -1, KVM_GET_API_VERSION, 0));
    say_result(c, "ioctl on an unused one", call_n(c, 9999, KVM_GET_API_VERSION, 0));
    if (!box_open(c, &b, false))
        return;
    vm = call_n(c, c->kvm, KVM_CREATE_VM, 0);
    closed = vm;
    c->sys->close(c->sys->ctx, vm);
    say_result(c, "ioctl on a closed VM", call_n(c, closed, KVM_CREATE_VCPU, 0));
    say_result(c, "system: unknown", call(c, c->kvm, _IO(KVMIO, 0xfe), unused));
    say_result(c, "system: a vCPU's", call_n(c, c->kvm, KVM_RUN, 0));
    say_result(c, "VM: unknown", call(c, b.vm, _IO(KVMIO, 0xfe), unused));
    say_result(c, "VM: a vCPU's", call(c, b.vm, KVM_GET_REGS, unused));
    say_result(c, "VM: the system's", call_n(c, b.vm, KVM_GET_API_VERSION, 0));
    say_result(c, "vCPU: unknown", call(c, b.cpu, _IO(KVMIO, 0xfe), unused));
    say_result(c, "vCPU: a VM's", call_n(c, b.cpu, KVM_CREATE_VCPU, 1));
    say_result(c, "vCPU: no KVM ioctl", call(c, b.cpu, _IO('x', 1), unused));
    say_result(c, "run with an argument", call_n(c, b.cpu, KVM_RUN, 1));
    say(c, "mmap of a VM", "%s",
        c->sys->mmap(c->sys->ctx, b.vm, b.run_size) == NULL ? "refused" : "taken");
    say_result(c, "the same vCPU again", call_n(c, b.vm, KVM_CREATE_VCPU, 0));
    say_result(c, "vCPU 1000000", call_n(c, b.vm, KVM_CREATE_VCPU, 1000000));
    box_close(&b);
}

static void addresses(struct conform *c)
{
    int vm = call_n(c, c->kvm, KVM_CREATE_VM, 0), cpu;
    uint64_t map = 0xfffbc000;

    say_result(c, "TSS", call_n(c, vm, KVM_SET_TSS_ADDR, 0xfffbd000));
    say_result(c, "TSS at the end", call_n(c, vm, KVM_SET_TSS_ADDR, 0xffffe000));
    say_result(c, "identity map", call(c, vm, KVM_SET_IDENTITY_MAP_ADDR, &map));
    cpu = call_n(c, vm, KVM_CREATE_VCPU, 0);
    say_result(c, "identity map late", call(c, vm, KVM_SET_IDENTITY_MAP_ADDR, &map));
    c->sys->close(c->sys->ctx, cpu);
    c->sys->close(c->sys->ctx, vm);
}

static void memory(struct conform *c)
{
    static const struct {
        const char *what;
        uint32_t slot, flags;
        uint64_t gpa, size;
        unsigned at; /* offset in our memory */
    } steps[] = {
        {"slot 0", 0, 0, 0x10000, 0x10000, 0},
        {"the same again", 0, 0, 0x10000, 0x10000, 0},
        {"overlap at the end", 1, 0, 0x1f000, 0x2000, 0},
        {"overlap inside", 1, 0, 0x14000, 0x1000, 0},
        {"beside", 1, 0, 0x20000, 0x1000, 0},
        {"size not whole pages", 2, 0, 0x100000, 0x1800, 0},
        {"address in a page", 2, 0, 0x100800, 0x1000, 0},
        {"our memory in a page", 2, 0, 0x100000, 0x1000, 0x800},
        {"unknown flag", 2, 1u << 5, 0x100000, 0x1000, 0},
        {"unknown slot", 1000000, 0, 0x100000, 0x1000, 0},
        {"past the end", 2, 0, 0xfffffffffffff000ull, 0x2000, 0},
        {"another size", 0, 0, 0x10000, 0x8000, 0},
        {"other memory", 0, 0, 0x10000, 0x10000, 0x1000},
        {"read-only now", 0, KVM_MEM_READONLY, 0x10000, 0x10000, 0},
        {"move", 0, 0, 0x40000, 0x10000, 0},
        {"move onto another", 0, 0, 0x18000, 0x10000, 0},
        {"where it was is free", 2, 0, 0x10000, 0x1000, 0},
        {"delete", 0, 0, 0x40000, 0, 0},
        {"delete again", 0, 0, 0x40000, 0, 0},
        {"delete without its address", 2, 0, 0, 0, 0},
        {"read-only", 0, KVM_MEM_READONLY, 0x10000, 0x1000, 0},
    };
    int vm = call_n(c, c->kvm, KVM_CREATE_VM, 0);
    uint8_t *ours = host_memory_alloc(0x20000, NULL);

    for (unsigned i = 0; i < countof(steps) && ours != NULL; i++) {
        struct kvm_userspace_memory_region r = {
            .slot = steps[i].slot,
            .flags = steps[i].flags,
            .guest_phys_addr = steps[i].gpa,
            .memory_size = steps[i].size,
            .userspace_addr = (uintptr_t)ours + steps[i].at,
        };

        say_result(c, steps[i].what, call(c, vm, KVM_SET_USER_MEMORY_REGION, &r));
    }
    c->sys->close(c->sys->ctx, vm);
    host_memory_free(ours, 0x20000);
}

/* Slots that come, go and move while the vCPU stands. */
static void slots(struct conform *c)
{
    /* mov ax, [0xfff8]; hlt; jmp back, with DS at 0x90000 */
    static const uint8_t code[] = {0xb8, 0x00, 0x90, 0x8e, 0xd8, 0xa1,
                                   0xf8, 0xff, 0xf4, 0xeb, 0xfa, 0x90};
    struct kvm_userspace_memory_region r = {
        .slot = 1, .guest_phys_addr = 0x9f000, .memory_size = 0x1000};
    uint8_t *ours = host_memory_alloc(0x1000, NULL);
    struct box b;

    if (ours == NULL || !box_open(c, &b, false))
        return;
    r.userspace_addr = (uintptr_t)ours;
    ours[0xff8] = 0x34;
    ours[0xff9] = 0x12;
    START(&b, code);
    box_run(&b, "no memory there");
    box_data(&b, 0xbeef);
    box_run(&b, "its read");
    say_regs(&b, "registers");
    say_result(c, "a slot", call(c, b.vm, KVM_SET_USER_MEMORY_REGION, &r));
    box_run(&b, "memory");
    say_regs(&b, "registers of memory");
    ours[0xff9] = 0x56;
    box_run(&b, "memory changed by us");
    say_regs(&b, "registers of the change");
    r.memory_size = 0;
    say_result(c, "deleted", call(c, b.vm, KVM_SET_USER_MEMORY_REGION, &r));
    box_run(&b, "no memory again");
    box_close(&b);
    host_memory_free(ours, 0x1000);
}

static void read_only(struct conform *c)
{
    /* DS = 0x9000: mov al, [0]; mov byte [1], 0x77; mov ah, [1]; far jump to 0x9000:0x10 */
    static const uint8_t code[] = {0xb8, 0x00, 0x90, 0x8e, 0xd8, 0xa0, 0x00, 0x00,
                                   0xc6, 0x06, 0x01, 0x00, 0x77, 0x8a, 0x26, 0x01,
                                   0x00, 0xea, 0x10, 0x00, 0x00, 0x90};
    /* at 0x10: out 0x44, al; hlt */
    static const uint8_t rom[] = {0x11, 0x22, [0x10] = 0xe6, 0x44, 0xf4};
    struct kvm_userspace_memory_region r = {
        .slot = 1, .flags = KVM_MEM_READONLY, .guest_phys_addr = 0x90000, .memory_size = 0x1000};
    uint8_t *ours = host_memory_alloc(0x1000, NULL);
    struct box b;

    if (ours == NULL || !box_open(c, &b, false))
        return;
    memcpy(ours, rom, sizeof(rom));
    r.userspace_addr = (uintptr_t)ours;
    say_result(c, "slot", call(c, b.vm, KVM_SET_USER_MEMORY_REGION, &r));
    START(&b, code);
    box_run(&b, "write");
    box_run(&b, "code in it");
    box_run(&b, "end");
    say_regs(&b, "what was read");
    say(c, "memory", "%#x", ours[1]);
    box_close(&b);
    host_memory_free(ours, 0x1000);
}

static void dirty_log(struct conform *c)
{
    /* mov [0x5000], sp; mov [0x9000], sp; hlt */
    static const uint8_t code[] = {0x89, 0x26, 0x00, 0x50, 0x89, 0x26, 0x00, 0x90, 0xf4};
    struct kvm_userspace_memory_region r = {.flags = KVM_MEM_LOG_DIRTY_PAGES,
                                            .memory_size = BOX_RAM};
    uint64_t map[BOX_RAM / 4096 / 64 + 1] = {0};
    struct kvm_dirty_log log = {.slot = 0, .dirty_bitmap = map};
    struct box b;

    if (!box_open(c, &b, false))
        return;
    say_result(c, "without a log", call(c, b.vm, KVM_GET_DIRTY_LOG, &log));
    r.userspace_addr = (uintptr_t)b.ram;
    START(&b, code);
    say_result(c, "log on", call(c, b.vm, KVM_SET_USER_MEMORY_REGION, &r));
    box_run(&b, "run");
    say_result(c, "get", call(c, b.vm, KVM_GET_DIRTY_LOG, &log));
    say(c, "pages", "%#llx", (unsigned long long)map[0]);
    say_result(c, "get again", call(c, b.vm, KVM_GET_DIRTY_LOG, &log));
    say(c, "pages now", "%#llx", (unsigned long long)map[0]);
    log.slot = 1000000;
    say_result(c, "unknown slot", call(c, b.vm, KVM_GET_DIRTY_LOG, &log));
    box_close(&b);
}

static void say_count(struct conform *c, const char *what, int fd)
{
    uint64_t n = 0;

    if (read(fd, &n, sizeof(n)) != (ssize_t)sizeof(n))
        n = 0;
    say(c, what, "%llu", (unsigned long long)n);
}

static void ioeventfd(struct conform *c)
{
    /* mov al, 5; out 0x50, al; out 0x50, ax; DS = 0x9000: mov [0x10], al; mov al, 6; again; hlt */
    static const uint8_t code[] = {0xb0, 0x05, 0xe6, 0x50, 0xe7, 0x50, 0xb8, 0x00,
                                   0x90, 0x8e, 0xd8, 0xb0, 0x05, 0xa2, 0x10, 0x00,
                                   0xb0, 0x06, 0xa2, 0x10, 0x00, 0xf4};
    struct kvm_ioeventfd port = {.addr = 0x50, .len = 1, .flags = KVM_IOEVENTFD_FLAG_PIO};
    struct kvm_ioeventfd mmio = {
        .addr = 0x90010, .len = 1, .datamatch = 5, .flags = KVM_IOEVENTFD_FLAG_DATAMATCH};
    struct box b;

    port.fd = eventfd(0, EFD_NONBLOCK);
    mmio.fd = eventfd(0, EFD_NONBLOCK);
    if (!box_open(c, &b, false))
        return;
    say_result(c, "port", call(c, b.vm, KVM_IOEVENTFD, &port));
    say_result(c, "port again", call(c, b.vm, KVM_IOEVENTFD, &port));
    say_result(c, "mmio", call(c, b.vm, KVM_IOEVENTFD, &mmio));
    START(&b, code);
    box_run(&b, "another size");
    box_run(&b, "another value");
    box_run(&b, "end");
    say_count(c, "port's count", port.fd);
    say_count(c, "mmio's count", mmio.fd);
    port.len = 3;
    say_result(c, "of three bytes", call(c, b.vm, KVM_IOEVENTFD, &port));
    port.len = 2;
    port.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
    say_result(c, "take away another", call(c, b.vm, KVM_IOEVENTFD, &port));
    port.len = 1;
    say_result(c, "take away", call(c, b.vm, KVM_IOEVENTFD, &port));
    START(&b, code);
    box_run(&b, "then it exits");
    box_close(&b);
    close(port.fd);
    close(mmio.fd);
}

const struct step system_steps[] = {
    {"version", version},         {"caps", caps},
    {"descriptors", descriptors}, {"addresses", addresses},
    {"memory", memory},           {"slots", slots},
    {"read-only", read_only},     {"dirty-log", dirty_log},
    {"ioeventfd", ioeventfd},     {NULL, NULL},
};
