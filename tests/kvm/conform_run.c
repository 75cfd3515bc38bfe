/* Conformance: KVM_RUN in real mode: ports, MMIO, how it ends, what may happen in between. */
#include "conform.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

static void ports(struct conform *c)
{
    static const uint8_t code[] = {
        0xb8, 0x34, 0x12,       /* mov ax, 0x1234 */
        0xba, 0xf8, 0x03,       /* mov dx, 0x3f8 */
        0xee,                   /* out dx, al */
        0xef,                   /* out dx, ax */
        0x66, 0xef,             /* out dx, eax */
        0xe6, 0x80,             /* out 0x80, al */
        0xec,                   /* in al, dx */
        0xe7, 0x81,             /* out 0x81, ax */
        0xed,                   /* in ax, dx */
        0x66, 0xe7, 0x82,       /* out 0x82, eax */
        0x66, 0xed,             /* in eax, dx */
        0x66, 0xe7, 0x83, 0xf4, /* out 0x83, eax; hlt */
    };
    struct box b;

    if (!box_open(c, &b, false))
        return;
    START(&b, code);
    box_run(&b, "out dx, al");
    box_run(&b, "out dx, ax");
    box_run(&b, "out dx, eax");
    box_run(&b, "out imm, al");
    box_run(&b, "in al, dx");
    box_data(&b, 0xaa);
    box_run(&b, "only al");
    box_run(&b, "in ax, dx");
    box_data(&b, 0xbbcc);
    box_run(&b, "all of ax");
    box_run(&b, "in eax, dx");
    box_data(&b, 0xddeeff11);
    box_run(&b, "all of eax");
    box_run(&b, "end");
    box_close(&b);
}

/* One element at a time, or several: what is read is the same. */
static void strings(struct conform *c)
{
    static const uint8_t code[] = {
        0xbe, 0x00, 0x20, 0xbf, 0x00, 0x21, /* si = 0x2000, di = 0x2100 */
        0xba, 0x10, 0x00, 0xb9, 0x03, 0x00, /* dx = 0x10, cx = 3 */
        0xf3, 0x6e,                         /* rep outsb */
        0xb9, 0x03, 0x00, 0xf3, 0x6c,       /* cx = 3; rep insb */
        0xf4,
    };
    unsigned out = 0, in = 0;
    uint8_t seen[8] = {0}, give = 0x60;
    struct box b;

    if (!box_open(c, &b, false))
        return;
    START(&b, code);
    box_code(&b, 0x2000, "abc", 3);
    while (call_n(c, b.cpu, KVM_RUN, 0) == 0 && b.run->exit_reason == KVM_EXIT_IO) {
        uint8_t *data = (uint8_t *)b.run + b.run->io.data_offset;

        for (unsigned i = 0; i < b.run->io.count && in < 8 && out < 8; i++) {
            if (b.run->io.direction == KVM_EXIT_IO_OUT)
                seen[out++] = data[i];
            else
                data[i] = give++, in++;
        }
    }
    say(c, "out", "%u bytes, %s", out, (const char *)seen);
    say(c, "in", "%u bytes, %#x %#x %#x", in, b.ram[0x2100], b.ram[0x2101], b.ram[0x2102]);
    box_close(&b);
}

static void mmio(struct conform *c)
{
    static const uint8_t code[] = {
        0xb8, 0x00, 0xd0, 0x8e, 0xd8,             /* ds = 0xd000 */
        0x66, 0xb8, 0x78, 0x56, 0x34, 0x12,       /* mov eax, 0x12345678 */
        0xa2, 0x01, 0x00,                         /* mov [1], al */
        0xa3, 0x02, 0x00,                         /* mov [2], ax */
        0x66, 0xa3, 0x04, 0x00,                   /* mov [4], eax */
        0xa0, 0x08, 0x00,                         /* mov al, [8] */
        0xa1, 0x0a, 0x00,                         /* mov ax, [0xa] */
        0x66, 0xa1, 0x0c, 0x00,                   /* mov eax, [0xc] */
        0x66, 0x0f, 0xb6, 0x16, 0x10, 0x00, 0xf4, /* movzx edx, byte [0x10]; hlt */
    };
    struct box b;

    if (!box_open(c, &b, false))
        return;
    START(&b, code);
    box_run(&b, "write al");
    box_run(&b, "write ax");
    box_run(&b, "write eax");
    box_run(&b, "read al");
    box_data(&b, 0x9a);
    box_run(&b, "read ax");
    say_regs(&b, "al was read");
    box_data(&b, 0xbcde);
    box_run(&b, "read eax");
    box_data(&b, 0xf0e1d2c3);
    box_run(&b, "read and extend");
    box_data(&b, 0xff);
    box_run(&b, "end");
    say_regs(&b, "all read");
    box_close(&b);
}

/* One instruction that reads a device and writes it. */
static void read_write(struct conform *c)
{
    static const uint8_t code[] = {0xb8, 0x00, 0xd0, 0x8e, 0xd8, /* ds = 0xd000 */
                                   0xfe, 0x06, 0x20, 0x00,       /* inc byte [0x20] */
                                   0xf4};
    struct box b;

    if (!box_open(c, &b, false))
        return;
    START(&b, code);
    box_run(&b, "read");
    box_data(&b, 0x41);
    box_run(&b, "write");
    box_run(&b, "end");
    box_close(&b);
}

static void halt(struct conform *c)
{
    static const uint8_t code[] = {0xfb, 0xf4, 0xfa, 0xf4}; /* sti; hlt; cli; hlt */
    struct kvm_mp_state m = {99};
    struct box b;

    if (!box_open(c, &b, false))
        return;
    START(&b, code);
    box_run(&b, "with interrupts");
    say_ready(&b, "then");
    call(c, b.cpu, KVM_GET_MP_STATE, &m);
    say(c, "state", "%u", m.mp_state);
    box_run(&b, "without");
    say_ready(&b, "then too");
    box_close(&b);
}

static void shutdown(struct conform *c)
{
    static const uint8_t code[] = {0x0f, 0x0b};          /* ud2 */
    static const uint8_t handler[] = {0xe6, 0x06, 0xf4}; /* not to be reached */
    struct kvm_sregs s;
    struct box b;

    if (!box_open(c, &b, false))
        return;
    START(&b, code);
    call(c, b.cpu, KVM_GET_SREGS, &s);
    HANDLER(&b, 6, 0x2000, handler);
    s.idt.limit = 0; /* nothing can be delivered */
    call(c, b.cpu, KVM_SET_SREGS, &s);
    box_run(&b, "triple fault");
    box_close(&b);
}

static void immediate_exit(struct conform *c)
{
    static const uint8_t code[] = {0xe6, 0x10, 0xe4, 0x11, 0xe6, 0x12, 0xf4};
    struct box b;

    if (!box_open(c, &b, false))
        return;
    START(&b, code);
    b.run->immediate_exit = 1;
    box_run(&b, "before anything");
    say_rip(&b, "nothing has run");
    say_regs(&b, "registers then");
    b.run->immediate_exit = 0;
    box_run(&b, "out");
    b.run->immediate_exit = 1;
    box_run(&b, "completes it");
    say_rip(&b, "behind out");
    say_regs(&b, "registers behind out");
    b.run->immediate_exit = 0;
    box_run(&b, "in");
    box_data(&b, 0x77);
    b.run->immediate_exit = 1;
    box_run(&b, "completes that");
    say_rip(&b, "behind in");
    say_regs(&b, "registers behind in");
    b.run->immediate_exit = 0;
    box_run(&b, "goes on");
    box_run(&b, "end");
    box_close(&b);
}

/* State that is set while an access is pending. */
static void pending(struct conform *c)
{
    static const uint8_t code[] = {0xe6, 0x10, 0xe4, 0x11, 0xf4, /* out; in; hlt */
                                   0xe6, 0x10, 0xf4};            /* out; hlt */
    struct kvm_regs r;
    struct box b;

    if (!box_open(c, &b, false))
        return;
    START(&b, code);
    box_run(&b, "out");
    call(c, b.cpu, KVM_GET_REGS, &r);
    r.rdx = 0x1234;
    call(c, b.cpu, KVM_SET_REGS, &r);
    box_run(&b, "runs once");
    box_data(&b, 0x55);
    call(c, b.cpu, KVM_GET_REGS, &r);
    say(c, "rdx is kept", "%#llx", (unsigned long long)r.rdx);
    box_run(&b, "end");
    say_regs(&b, "both");
    box_set_rip(&b, BOX_CODE + 5);
    box_run(&b, "out again");
    box_set_rip(&b, BOX_CODE + 4);
    box_run(&b, "where it was sent");
    box_close(&b);
}

static void sync_regs(struct conform *c)
{
    static const uint8_t code[] = {0x40, 0xe6, 0x10, 0xf4}; /* inc ax; out 0x10, al; hlt */
    struct box b;

    if (!box_open(c, &b, false))
        return;
    START(&b, code);
    b.run->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;
    box_run(&b, "run");
    say(c, "rax", "%#llx", (unsigned long long)b.run->s.regs.regs.rax);
    say(c, "cr0", "%#llx", (unsigned long long)b.run->s.regs.sregs.cr0 & X86_CR0_PE);
    b.run->immediate_exit = 1;
    box_run(&b, "complete");
    b.run->immediate_exit = 0;
    b.run->s.regs.regs.rax = 0x41;
    b.run->s.regs.regs.rip = BOX_CODE;
    b.run->kvm_dirty_regs = KVM_SYNC_X86_REGS;
    box_run(&b, "from registers given");
    say(c, "taken", "%#llx", (unsigned long long)b.run->kvm_dirty_regs);
    box_run(&b, "end");
    say(c, "rip", "%#llx", (unsigned long long)b.run->s.regs.regs.rip);
    b.run->kvm_valid_regs = 1u << 10;
    box_run(&b, "an unknown class");
    b.run->kvm_valid_regs = 0;
    b.run->kvm_dirty_regs = 1u << 10;
    box_run(&b, "an unknown class given");
    box_close(&b);
}

struct kicker {
    struct box *b;
    pthread_t runs;
    bool stop;
};

static void *kick_main(void *p)
{
    struct kicker *k = p;

    while (!__atomic_load_n(&k->stop, __ATOMIC_ACQUIRE)) {
        usleep(1000);
        if (__atomic_load_n(&k->b->ram[0x6000], __ATOMIC_RELAXED) == 0)
            continue; /* it does not run yet */
        __atomic_store_n(&k->b->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
        k->b->c->sys->kick(k->b->c->sys->ctx, k->b->cpu, k->runs);
    }
    return NULL;
}

static void kick(struct conform *c)
{
    /* inc byte [0x6000]; jmp -; hlt */
    static const uint8_t code[] = {0xfe, 0x06, 0x00, 0x60, 0xeb, 0xfa, 0xf4};
    struct kicker k = {.runs = pthread_self()};
    pthread_t thread;
    struct box b;

    if (!box_open(c, &b, false))
        return;
    START(&b, code);
    k.b = &b;
    b.run->exit_reason = 99;
    if (pthread_create(&thread, NULL, kick_main, &k) == 0) {
        box_run(&b, "ends");
        __atomic_store_n(&k.stop, true, __ATOMIC_RELEASE);
        pthread_join(thread, NULL);
    }
    say(c, "reason", "%u", b.run->exit_reason);
    b.run->immediate_exit = 0;
    box_set_rip(&b, BOX_CODE + 6);
    box_run(&b, "runs on");
    box_close(&b);
}

const struct step run_steps[] = {
    {"ports", ports},
    {"strings", strings},
    {"mmio", mmio},
    {"read-write", read_write},
    {"halt", halt},
    {"shutdown", shutdown},
    {"immediate-exit", immediate_exit},
    {"pending", pending},
    {"sync-regs", sync_regs},
    {"kick", kick},
    {NULL, NULL},
};
