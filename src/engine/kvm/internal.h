/* Inside engine/kvm/: one VM and its vCPUs. What is a vCPU's belongs to its thread. */
#ifndef ENGINE_KVM_INTERNAL_H
#define ENGINE_KVM_INTERNAL_H

#include <linux/kvm.h>
#include <stdatomic.h>
#include <string.h>

#include "engine/kvm/kvm.h"

/* What this kernel's KVM can do, read once. */
struct kvm_caps {
    bool xsave, xcrs, sregs2, debugregs, exit_on_failure, readonly;
    bool guest_debug;
    bool x2apic_ids; /* KVM_CAP_X2APIC_API, switched on */
    bool sync_regs;  /* struct kvm_run holds the general registers after each KVM_RUN */
};

/* A transfer of MSRs: room for the kernel's struct kvm_msrs, whose end is open. */
#define KVM_MSRS_MAX 64u
struct kvm_msr_buf {
    _Alignas(8) uint8_t room[sizeof(struct kvm_msrs) + KVM_MSRS_MAX * sizeof(struct kvm_msr_entry)];
};

static inline struct kvm_msrs *kvm_msrs_in(struct kvm_msr_buf *b)
{
    memset(b->room, 0, sizeof(struct kvm_msrs));
    return (void *)b->room;
}

struct kvm_machine {
    struct engine_env env;
    const struct kvm_sys *sys;
    int dev_fd, fd; /* -1: not open */
    size_t run_size;
    struct kvm_caps caps;
    /*
     * With split, the vCPU's local APIC is the kernel's while it runs, and the board's while
     * `away`. Messages hold `moving` to read, who moves the APIC writes: none is lost on the way.
     */
    bool split, away;
    pthread_rwlock_t moving;
    const struct lapic_ops *board; /* the board's local APICs */
    void *board_ctx;
    struct kvm_cpu *_Atomic first; /* who hears the PIC */
    pthread_mutex_t routes;        /* for the next two */
    struct kvm_route *route;       /* what each GSI sends, the IOAPIC's pins first */
    unsigned route_count;
    bool irqfds;         /* this KVM has them */
    bool doorbells;      /* the bus tells us of them */
    atomic_bool refused; /* a message that the kernel's APIC does not take has been told of */
    uint16_t xsave_at[X86_XSAVE_COMPONENTS]; /* in the kernel's XSAVE area; 0: not there */
};

struct kvm_cpu {
    struct kvm_machine *vm;
    unsigned id;
    int fd;
    struct kvm_run *run;
    pthread_t thread;    /* of the KVM_RUN that may be under way */
    atomic_bool running; /* `thread` is valid; set before the next three are read */
    /* set by any thread, before `running` is read */
    atomic_bool kicked, irq_signal, nmi_signal, lint0_signal, lint1_signal;
    bool irq_waits; /* the local APIC has one that the vCPU does not take yet */
    bool halted, exit_wanted;
    uint64_t cr8;    /* as handed to the kernel last */
    bool unfinished; /* an access that userspace has answered ends at the next KVM_RUN */
    struct kvm_guest_debug debug; /* as the kernel was told last */
    struct vcpu_debug wanted;     /* a debugger's */
    bool pass;    /* a breakpoint at this linear address has ended run: let it pass ... */
    bool passing; /* ... by the step that is under way, from this RIP on */
    uint64_t pass_addr, pass_rip;
    bool debug_rearm; /* it has gone by: the kernel is to be told again */
    bool debug_stale; /* registers were set since: it may step no more */
    bool nmi_given;   /* an NMI may wait in the kernel */
    bool shutdown;
    bool stale; /* split: what the kernel says of the interrupt window is from before a change */
    _Atomic(uint64_t) tsc_offset;
    uint64_t msr_lost; /* a bit for each of state.c's MSRs that the kernel does not take ... */
    uint64_t msr_kept[KVM_MSRS_MAX]; /* ... and what they would hold */
    struct vcpu_stats stats;
    uint64_t exits[KVM_EXIT_NOTIFY + 1];
};

/* The system call by the VM's table; -errno. */
int kvm_vm_ioctl(const struct kvm_machine *vm, unsigned long request, uintptr_t arg);
int kvm_cpu_ioctl(const struct kvm_cpu *cpu, unsigned long request, uintptr_t arg);
int kvm_cpu_ioctl_p(const struct kvm_cpu *cpu, unsigned long request, void *arg);

/* state.c: the whole architectural state; nothing unfinished. 0 or -errno with a sentence. */
int kvm_state_get(struct kvm_cpu *cpu, struct x86_state *out, struct error *err);
int kvm_state_set(struct kvm_cpu *cpu, const struct x86_state *in, struct error *err);

#define KVM_DEVICE "/dev/kvm"

/* Three pages and one below them that some processors need for real mode; nothing else is there. */
#define KVM_TSS_ADDR 0xfeffd000u
#define KVM_IDENTITY_ADDR 0xfeffc000u

/* probe.c: 0 if the guest's instructions run at about the host's speed, else -errno and why not. */
int kvm_probe_speed(const struct kvm_sys *sys, int dev_fd, struct error *err);

/* cpuid.c: the kernel's list, at most max leaves; how many, or -errno. */
int kvm_cpuid_supported(const struct kvm_sys *sys, int dev_fd, struct x86_cpuid_leaf *leaf,
                        unsigned max);
/* engine_ops.cpuid */
int kvm_cpuid_fit(const struct engine_env *env, const char *model, struct x86_cpuid *c,
                  struct error *err);
int kvm_cpuid_set(struct kvm_cpu *cpu, struct error *err);

/* memory.c: the map of guest memory, and engine_ops.dirty, dirty_take */
int kvm_memory_map(struct kvm_machine *vm, bool log, struct error *err);
int kvm_dirty(void *vm, bool on, struct error *err);
int kvm_dirty_take(void *vm, unsigned n, uint64_t *bits, size_t words);

/* doorbell.c: from begin to end the bus's doorbells are the kernel's, if it has such a thing */
void kvm_doorbells_begin(struct kvm_machine *vm);
void kvm_doorbells_end(struct kvm_machine *vm);

/* debug.c: engine_ops.debug; what the kernel is to do in this run, before it begins; after an exit:
 * false if the guest just goes on. */
int kvm_debug(void *vcpu, const struct vcpu_debug *want, struct error *err);
int kvm_debug_begin(struct kvm_cpu *cpu, bool count);
bool kvm_debug_exit(struct kvm_cpu *cpu, struct vcpu_exit *x);

/*
 * apic.c: local APICs in the kernel. wanted: this KVM has them, and nobody wants the board's.
 * setup: before vCPUs are made. in: before a run, from the board.
 */
bool kvm_apic_wanted(const struct kvm_sys *sys, int dev_fd, const struct engine_env *env);
uint32_t kvm_apic_hz(const struct kvm_sys *sys, int dev_fd);
int kvm_apic_setup(struct kvm_machine *vm, struct error *err);
void kvm_apic_end(struct kvm_machine *vm);
int kvm_apic_in(struct kvm_cpu *cpu);
int kvm_lapic_home(void *vcpu);         /* engine_ops.lapic_home */
int kvm_apic_pins(struct kvm_cpu *cpu); /* LINT0 and LINT1 have something to say */
int kvm_apic_eoi(struct kvm_cpu *cpu, uint8_t vector);
/*
 * irqfd.c: the routes, from begin to end; what a pin sends, with its IOAPIC's lock held; whether
 * messages by descriptor are the kernel's now. 0 or -errno. And a message as KVM writes it.
 */
int kvm_routes_begin(struct kvm_machine *vm);
void kvm_routes_end(struct kvm_machine *vm);
int kvm_route_pin(struct kvm_machine *vm, unsigned pin, const struct irq_message *m);
void kvm_irqfds(struct kvm_machine *vm, bool on);
struct kvm_msi kvm_msi_of(const struct irq_message *m);

/* mp_state of the kernel; -errno */
int kvm_mp_state(struct kvm_cpu *cpu, uint32_t *state);

/* run.c: engine_ops.run, kick, interrupt, nmi */
int kvm_run(void *vcpu, uint64_t budget, struct vcpu_exit *exit);
void kvm_kick(void *vcpu);
void kvm_interrupt(void *vcpu);
void kvm_nmi(void *vcpu);
/* Ends an access whose answer is in struct kvm_run; the guest does not go on. */
int kvm_finish(struct kvm_cpu *cpu, struct vcpu_exit *x);

/* msr.c: which MSRs are ours to answer, and the answers to KVM_EXIT_X86_RDMSR and WRMSR. */
/* run.c: wakes the vCPU up for what stands in its flags; any thread */
void kvm_poke(struct kvm_cpu *cpu);
int kvm_check_extension(const struct kvm_sys *sys, int fd, unsigned long cap);

int kvm_msr_setup(struct kvm_machine *vm, struct error *err);
void kvm_msr_exit(struct kvm_cpu *cpu);

/* state.c: what the guest's TSC is ahead of the host's; and its change. */
uint64_t kvm_tsc_offset(struct kvm_cpu *cpu);
int kvm_tsc_set_offset(struct kvm_cpu *cpu, uint64_t offset);
int kvm_msr_get(struct kvm_cpu *cpu, uint32_t index, uint64_t *value);
int kvm_msr_set(struct kvm_cpu *cpu, uint32_t index, uint64_t value);

#endif
