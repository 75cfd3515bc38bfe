/* Conformance: local APICs in the kernel, all else in userspace (KVM_CAP_SPLIT_IRQCHIP). */
#include "conform.h"

#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/endian.h"

static uint32_t apic_reg(struct kvm_lapic_state *s, unsigned offset)
{
    return le32_load((uint8_t *)s->regs + offset);
}

static void lapic(struct conform *c)
{
    struct kvm_lapic_state s = {0};
    struct kvm_mp_state m = {99};
    struct box b;
    int second;

    if (!box_open(c, &b, true))
        return;
    memset(&s, 0xff, sizeof(s));
    say_result(c, "get", call(c, b.cpu, KVM_GET_LAPIC, &s));
    say(c, "power on", "id %#x svr %#x lint0 %#x lint1 %#x timer %#x tpr %#x", apic_reg(&s, 0x20),
        apic_reg(&s, 0xf0), apic_reg(&s, 0x350), apic_reg(&s, 0x360), apic_reg(&s, 0x320),
        apic_reg(&s, 0x80));
    le32_store((uint8_t *)s.regs + 0xf0, 0x1ff);
    le32_store((uint8_t *)s.regs + 0x80, 0x20);
    say_result(c, "set", call(c, b.cpu, KVM_SET_LAPIC, &s));
    memset(&s, 0, sizeof(s));
    call(c, b.cpu, KVM_GET_LAPIC, &s);
    say(c, "then", "svr %#x tpr %#x", apic_reg(&s, 0xf0), apic_reg(&s, 0x80));
    call(c, b.cpu, KVM_GET_MP_STATE, &m);
    say(c, "first vCPU", "%u", m.mp_state);
    second = call_n(c, b.vm, KVM_CREATE_VCPU, 1);
    call(c, second, KVM_GET_MP_STATE, &m);
    say(c, "second vCPU", "%u", m.mp_state);
    m.mp_state = KVM_MP_STATE_HALTED;
    say_result(c, "halted", call(c, second, KVM_SET_MP_STATE, &m));
    call(c, second, KVM_GET_MP_STATE, &m);
    say(c, "second vCPU then", "%u", m.mp_state);
    c->sys->close(c->sys->ctx, second);
    box_close(&b);
}

static void enable_apic(struct box *b)
{
    struct kvm_lapic_state s = {0};

    call(b->c, b->cpu, KVM_GET_LAPIC, &s);
    le32_store((uint8_t *)s.regs + 0xf0, 0x1ff);
    call(b->c, b->cpu, KVM_SET_LAPIC, &s);
}

static int msi(struct box *b, uint32_t data)
{
    struct kvm_msi m = {.address_lo = 0xfee00000, .data = data};

    return call(b->c, b->vm, KVM_SIGNAL_MSI, &m);
}

/* A gate for the handler at 0x2000 + 0x40 n, which is code. */
static void gate(struct box *b, uint8_t vector, uint32_t at, const void *code, size_t len)
{
    uint64_t entry = (at & 0xffff) | 8u << 16 | 0x8e00ull << 32;

    box_code(b, 0x4000 + 8u * vector, &entry, sizeof(entry));
    box_code(b, at, code, len);
}

/*
 * out 0x10, al; sti; hlt; cli; out 0x11, al; jmp back to sti. An interrupt comes at HLT, however
 * early it was sent.
 */
static const uint8_t waits[] = {0xe6, 0x10, 0xfb, 0xf4, 0xfa, 0xe6, 0x11, 0xeb, 0xf9};
/*
 * out 0x31, al; mov dword [0xfee000b0], 0; push dword [esp+8]; popf; ret 8: as IRET, which KVM's
 * emulator has in real mode only.
 */
static const uint8_t ends[] = {0xe6, 0x31, 0xc7, 0x05, 0xb0, 0x00, 0xe0, 0xfe, 0,    0,
                               0,    0,    0xff, 0x74, 0x24, 0x08, 0x9d, 0xc2, 0x08, 0x00};

/* What happens while the vCPU sleeps in HLT. */
struct later {
    struct box *b;
    uint32_t msi, gsi; /* 0: none */
    int fd;            /* -1: none */
    int rc;
};

static void *later_main(void *p)
{
    struct later *l = p;
    struct kvm_irq_level line = {.irq = l->gsi, .level = 1};
    uint64_t one = 1;

    usleep(20000); /* most likely it sleeps by then */
    if (l->msi != 0)
        l->rc = msi(l->b, l->msi) > 0;
    else if (l->gsi != 0)
        l->rc = call(l->b->c, l->b->vm, KVM_IRQ_LINE, &line);
    else
        l->rc = write(l->fd, &one, sizeof(one)) != (ssize_t)sizeof(one);
    return NULL;
}

static void run_later(struct box *b, const char *what, struct later l)
{
    pthread_t thread;

    l.b = b;
    if (pthread_create(&thread, NULL, later_main, &l) != 0)
        return;
    box_run(b, what);
    pthread_join(thread, NULL);
    say_result(b->c, "which was sent", l.rc);
}

static void messages(struct conform *c)
{
    struct kvm_irqfd irq = {.gsi = 5};
    _Alignas(8)
        uint8_t room[sizeof(struct kvm_irq_routing) + 2 * sizeof(struct kvm_irq_routing_entry)] = {
            0};
    struct kvm_irq_routing *routes = (void *)room;
    struct kvm_irq_routing_entry *e = routes->entries;
    struct box b;
    int fd = eventfd(0, EFD_NONBLOCK);

    if (!box_open(c, &b, true))
        return;
    flat_start(&b, false, waits, sizeof(waits));
    gate(&b, 0x41, 0x2000, ends, sizeof(ends));
    gate(&b, 0x42, 0x2000, ends, sizeof(ends));
    say_result(c, "to a disabled APIC", msi(&b, 0x41) > 0);
    enable_apic(&b);
    box_run(&b, "runs");
    run_later(&b, "message", (struct later){.msi = 0x41, .fd = -1});
    box_run(&b, "it has ended hlt");
    routes->nr = 2;
    e[0] = (struct kvm_irq_routing_entry){
        .gsi = 4, .type = KVM_IRQ_ROUTING_MSI, .u.msi = {.address_lo = 0xfee00000, .data = 0xc041}};
    e[1] = e[0];
    e[1].gsi = 5;
    e[1].u.msi.data = 0x42; /* KVM tells of each end of a vector that a level may have */
    say_result(c, "routes", call(c, b.vm, KVM_SET_GSI_ROUTING, routes));
    irq.fd = (uint32_t)fd;
    say_result(c, "irqfd", call(c, b.vm, KVM_IRQFD, &irq));
    say_result(c, "irqfd again", call(c, b.vm, KVM_IRQFD, &irq));
    run_later(&b, "eventfd", (struct later){.fd = fd});
    box_run(&b, "that has, too");
    run_later(&b, "level", (struct later){.gsi = 4, .fd = -1});
    box_run(&b, "its end");
    box_run(&b, "goes on");
    irq.flags = KVM_IRQFD_FLAG_DEASSIGN;
    say_result(c, "irqfd taken away", call(c, b.vm, KVM_IRQFD, &irq));
    irq.flags = KVM_IRQFD_FLAG_RESAMPLE;
    irq.resamplefd = (uint32_t)fd;
    say_result(c, "one for levels, without an IOAPIC", call(c, b.vm, KVM_IRQFD, &irq));
    box_close(&b);
    close(fd);
}

/* The APIC's own timer wakes a vCPU that sleeps. */
static void timer(struct conform *c)
{
    static const uint8_t code[] = {
        0xbf, 0x00, 0x00, 0xe0, 0xfe,                               /* mov edi, 0xfee00000 */
        0xc7, 0x87, 0xe0, 0x03, 0x00, 0x00, 0x0b, 0x00, 0x00, 0x00, /* divide by 1 */
        0xc7, 0x87, 0x20, 0x03, 0x00, 0x00, 0x41, 0x00, 0x00, 0x00, /* one shot, vector 0x41 */
        0xc7, 0x87, 0x80, 0x03, 0x00, 0x00, 0xa0, 0x86, 0x01, 0x00, /* 100000 */
        0xfb, 0xf4, 0xe6, 0x11, 0xf4,                               /* sti; hlt; out; hlt */
    };
    struct box b;

    if (!box_open(c, &b, true))
        return;
    flat_start(&b, false, code, sizeof(code));
    gate(&b, 0x41, 0x2000, ends, sizeof(ends));
    enable_apic(&b);
    box_run(&b, "its handler");
    box_run(&b, "it has ended hlt");
    box_close(&b);
}

/* KVM_INTERRUPT beside local APICs: the PIC is userspace's, and reaches LINT0. */
static void extint(struct conform *c)
{
    static const uint8_t code[] = {0xfb, 0x90, 0xe6, 0x10, 0xf4}; /* sti; nop; out 0x10, al; hlt */
    static const uint8_t handler[] = {0xe6, 0x22, 0xcf};
    struct kvm_interrupt i = {0x22};
    struct box b;

    if (!box_open(c, &b, true))
        return;
    flat_start(&b, false, code, sizeof(code));
    gate(&b, 0x22, 0x2000, handler, sizeof(handler));
    enable_apic(&b);
    box_run(&b, "runs");
    say_ready(&b, "then");
    b.run->request_interrupt_window = 1;
    box_run(&b, "window");
    say_result(c, "interrupt", call(c, b.cpu, KVM_INTERRUPT, &i));
    say_result(c, "another", call(c, b.cpu, KVM_INTERRUPT, &i));
    b.run->request_interrupt_window = 0;
    box_run(&b, "its handler");
    box_close(&b);
}

const struct step apic_steps[] = {
    {"lapic", lapic}, {"messages", messages}, {"timer", timer}, {"extint", extint}, {NULL, NULL}};
