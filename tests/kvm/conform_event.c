/* Conformance: interrupts from userspace, NMIs, the debugger, in real mode. */
#include "conform.h"

#include <string.h>

static int inject(struct box *b, uint32_t vector)
{
    struct kvm_interrupt i = {vector};

    return call(b->c, b->cpu, KVM_INTERRUPT, &i);
}

static void window(struct conform *c)
{
    /* nop; out 0x10; sti; nop; nop; out 0x11; cli; out 0x12; hlt */
    static const uint8_t code[] = {0x90, 0xe6, 0x10, 0xfb, 0x90, 0x90,
                                   0xe6, 0x11, 0xfa, 0xe6, 0x12, 0xf4};
    static const uint8_t handler[] = {0xe6, 0x21, 0xcf}; /* out 0x21, al; iret */
    struct box b;

    if (!box_open(c, &b, false))
        return;
    START(&b, code);
    HANDLER(&b, 0x21, 0x2000, handler);
    box_run(&b, "interrupts are off");
    say_ready(&b, "before");
    b.run->request_interrupt_window = 1;
    box_run(&b, "window asked for");
    say_ready(&b, "window");
    say_result(c, "interrupt", inject(&b, 0x21));
    b.run->request_interrupt_window = 0;
    box_run(&b, "its handler");
    say_ready(&b, "in the handler");
    box_run(&b, "back");
    say_ready(&b, "after it");
    b.run->request_interrupt_window = 1;
    box_run(&b, "open already, but out has to end");
    b.run->request_interrupt_window = 0;
    box_run(&b, "off again");
    b.run->request_interrupt_window = 1;
    box_run(&b, "no window before the end");
    box_close(&b);
}

/* Injected, but not delivered yet: it shows in the events. */
static void queued(struct conform *c)
{
    static const uint8_t code[] = {0xfb, 0x90, 0xf4, 0xf4}; /* sti; nop; hlt; hlt */
    static const uint8_t handler[] = {0xe6, 0x33, 0xcf};
    struct kvm_vcpu_events e = {0};
    struct box b;

    if (!box_open(c, &b, false))
        return;
    START(&b, code);
    HANDLER(&b, 0x33, 0x2000, handler);
    box_run(&b, "halts");
    inject(&b, 0x33);
    b.run->immediate_exit = 1;
    box_run(&b, "not run");
    call(c, b.cpu, KVM_GET_VCPU_EVENTS, &e);
    say(c, "queued", "%u nr %#x", e.interrupt.injected, e.interrupt.nr);
    say_ready(&b, "no other fits");
    b.run->immediate_exit = 0;
    box_run(&b, "delivered");
    call(c, b.cpu, KVM_GET_VCPU_EVENTS, &e);
    say(c, "queued then", "%u", e.interrupt.injected);
    box_run(&b, "end");
    box_close(&b);
}

/* An exception with the state: what another engine had not delivered. */
static void exception(struct conform *c)
{
    static const uint8_t code[] = {0x90, 0xf4};
    static const uint8_t handler[] = {0xe6, 0x06, 0xcf};
    struct kvm_vcpu_events e = {.exception = {.injected = 1, .nr = 6}};
    struct box b;

    if (!box_open(c, &b, false))
        return;
    START(&b, code);
    HANDLER(&b, 6, 0x2000, handler);
    say_result(c, "#UD given", call(c, b.cpu, KVM_SET_VCPU_EVENTS, &e));
    box_run(&b, "its handler");
    call(c, b.cpu, KVM_GET_VCPU_EVENTS, &e);
    say(c, "left", "%u", e.exception.injected);
    box_run(&b, "end");
    box_close(&b);
}

static void say_nmi(struct box *b, const char *what)
{
    struct kvm_vcpu_events e = {0};

    call(b->c, b->cpu, KVM_GET_VCPU_EVENTS, &e);
    say(b->c, what, "pending %u masked %u", e.nmi.pending, e.nmi.masked);
}

static void nmi(struct conform *c)
{
    static const uint8_t code[] = {0xe6, 0x10, 0x90, 0xf4};          /* out; nop; hlt */
    static const uint8_t handler[] = {0xe6, 0x02, 0xe6, 0x03, 0xcf}; /* out; out; iret */
    struct box b;

    if (!box_open(c, &b, false))
        return;
    START(&b, code);
    HANDLER(&b, 2, 0x2000, handler);
    box_run(&b, "first");
    say_result(c, "nmi", call_n(c, b.cpu, KVM_NMI, 0));
    box_run(&b, "handler, with interrupts off");
    say_nmi(&b, "in the handler");
    call_n(c, b.cpu, KVM_NMI, 0);
    say_nmi(&b, "another");
    box_run(&b, "the handler ends first");
    box_run(&b, "handler again");
    say_nmi(&b, "the other one");
    box_run(&b, "its end");
    box_run(&b, "end");
    say_nmi(&b, "after all");
    box_close(&b);
}

static void debug(struct box *b, uint32_t control)
{
    struct kvm_guest_debug d = {.control = control};

    if (call(b->c, b->cpu, KVM_SET_GUEST_DEBUG, &d) < 0)
        say(b->c, "debugging", "refused");
}

static void single_step(struct conform *c)
{
    /* nop; inc ax; jmp +1; hlt; mov al, [0x2000]; out 0x10, al; nop; hlt; nop; hlt */
    static const uint8_t code[] = {0x90, 0x40, 0xeb, 0x01, 0xf4, 0xa0, 0x00,
                                   0x20, 0xe6, 0x10, 0x90, 0xf4, 0x90, 0xf4};
    struct box b;

    if (!box_open(c, &b, false))
        return;
    START(&b, code);
    debug(&b, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP);
    box_run(&b, "nop");
    box_run(&b, "inc");
    box_run(&b, "jmp");
    box_run(&b, "mov");
    box_run(&b, "out");
    box_run(&b, "out's end");
    box_run(&b, "nop again");
    debug(&b, 0);
    box_run(&b, "end");
    box_close(&b);
}

static void breakpoint(struct conform *c)
{
    /* nop; int3; nop; nop; hlt; hlt */
    static const uint8_t code[] = {0x90, 0xcc, 0x90, 0x90, 0xf4, 0xf4};
    static const uint8_t handler[] = {0xe6, 0x03, 0xcf}; /* not to be reached */
    struct kvm_guest_debug d = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP};
    struct box b;

    if (!box_open(c, &b, false))
        return;
    START(&b, code);
    HANDLER(&b, 3, 0x2000, handler);
    debug(&b, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP);
    box_run(&b, "int3");
    box_set_rip(&b, BOX_CODE + 2);
    d.arch.debugreg[0] = BOX_CODE + 3;
    d.arch.debugreg[7] = 0x402;
    call(c, b.cpu, KVM_SET_GUEST_DEBUG, &d);
    box_run(&b, "hardware breakpoint");
    debug(&b, 0);
    box_run(&b, "end");
    box_close(&b);
}

/* A debugger's data breakpoints, beside what the guest holds in its own debug registers. */
static void watchpoint(struct conform *c)
{
    /* nop; mov [0x5000], ax; mov ax, [0x5002]; mov eax, dr0; nop; hlt */
    static const uint8_t code[] = {0x90, 0xa3, 0x00, 0x50, 0xa1, 0x02,
                                   0x50, 0x0f, 0x21, 0xc0, 0x90, 0xf4};
    struct kvm_debugregs own = {.db = {0x1234}, .dr6 = 0xffff0ff0, .dr7 = 0x400};
    struct kvm_guest_debug d = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP};
    struct kvm_regs r;
    struct box b;

    if (!box_open(c, &b, false))
        return;
    START(&b, code);
    say_result(c, "the guest's", call(c, b.cpu, KVM_SET_DEBUGREGS, &own));
    d.arch.debugreg[1] = 0x5000; /* two bytes, written */
    d.arch.debugreg[2] = 0x5003; /* one, written or read */
    d.arch.debugreg[3] = BOX_CODE + 10;
    d.arch.debugreg[7] = 0x400 | 2u << 2 | 2u << 4 | 2u << 6 | 5u << 20 | 3u << 24;
    say_result(c, "the debugger's", call(c, b.cpu, KVM_SET_GUEST_DEBUG, &d));
    box_run(&b, "a write");
    box_run(&b, "a read of a word's other half");
    box_run(&b, "an instruction");
    say_regs(&b, "the guest's own");
    call(c, b.cpu, KVM_GET_REGS, &r);
    r.rflags |= X86_FL_RF;
    call(c, b.cpu, KVM_SET_REGS, &r);
    box_run(&b, "it passes by RF");
    memset(&own, 0, sizeof(own));
    call(c, b.cpu, KVM_GET_DEBUGREGS, &own);
    say(c, "kept", "dr0 %#llx dr7 %#llx", (unsigned long long)own.db[0],
        (unsigned long long)own.dr7);
    box_close(&b);
}

const struct step event_steps[] = {
    {"window", window},           {"queued", queued},
    {"exception", exception},     {"nmi", nmi},
    {"single-step", single_step}, {"breakpoint", breakpoint},
    {"watchpoint", watchpoint},   {NULL, NULL},
};
