/*
 * The insides of the fake KVM, shared by tests/kvm/fake_*.c. Nobody else includes this.
 *
 * Threads: "caller" is whoever makes a call; "CPU thread" is the thread of a vCPU's software CPU.
 * Of the two only one runs: `turn` says which. The loop thread of a VM serves timers and irqfds.
 *
 * Lock order: kvm_fake.lock, fake_vcpu.calls, irqfd_lock, fake_vm.lock, fake_vcpu.lock. None is
 * held while guest instructions run but `calls`, by the caller that waits.
 */
#ifndef TESTS_KVM_FAKE_IMPL_H
#define TESTS_KVM_FAKE_IMPL_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>

#include "base/bits.h"
#include "bus/device.h"
#include "dev/lapic.h"
#include "engine/engine.h"
#include "fake.h"

enum {
    FAKE_FD_FIRST = 100, /* not a number that a real descriptor of a test is likely to have */
    FAKE_FDS = 256,
    FAKE_FAULTS = 32,
    FAKE_VCPUS = 16,
    FAKE_SLOTS = 64,
    FAKE_IOEVENTS = 64,
    FAKE_IRQFDS = 64,
    FAKE_ROUTES = 256,
    FAKE_RANGES = KVM_MSR_FILTER_MAX_RANGES,
    FAKE_CPUID = 128,
    FAKE_RUN_SIZE = 3 * 4096, /* struct kvm_run, a page of port data, one for coalesced MMIO */
    FAKE_PIO = KVM_PIO_PAGE_OFFSET * 4096,
    FAKE_MISSING = 64,
};

enum fake_kind { FAKE_FREE, FAKE_SYSTEM, FAKE_VM, FAKE_VCPU };

struct fake_fd {
    enum fake_kind kind;
    void *object; /* struct fake_vm or fake_vcpu */
};

struct fake_slot {
    struct kvm_userspace_memory_region r; /* memory_size 0: no such slot */
    uint8_t *copy;                        /* as of the last dirty log, if it is kept */
};

struct fake_ioevent {
    struct kvm_ioeventfd e;
    bool used;
};

struct fake_irqfd {
    int fd;
    uint32_t gsi;
    bool used;
};

/* Memory and the software processor over it; made anew when slots, CPUID or vCPUs change. */
struct fake_machine {
    unsigned refs;       /* vm->lock: the VM's own and one for each vCPU that uses it */
    uint64_t generation; /* of the VM, when this was made */
    struct gmem *mem;
    struct x86_cpuid cpuid;
    void *soft_vm;
    void *soft[FAKE_VCPUS]; /* all made at once: the software CPUs know each other */
};

struct fake_vm {
    struct kvm_fake *fake;
    unsigned refs; /* kvm_fake.lock: descriptors and mappings, of the VM and its vCPUs */
    pthread_mutex_t lock;
    struct fake_vcpu *vcpu[FAKE_VCPUS];

    /* Under lock. */
    struct fake_slot slot[FAKE_SLOTS];
    struct fake_ioevent ioevent[FAKE_IOEVENTS];
    struct fake_irqfd irqfd[FAKE_IRQFDS];
    struct kvm_irq_routing_entry route[FAKE_ROUTES];
    unsigned routes;
    struct fake_machine *machine;
    _Atomic uint64_t generation;
    struct kvm_cpuid_entry2 cpuid[FAKE_CPUID]; /* of whoever set it last: APIC ids are soft's */
    unsigned cpuid_count;

    /* Fixed when vCPUs run. */
    bool split;              /* KVM_CAP_SPLIT_IRQCHIP: local APICs are here */
    unsigned ioapic_pins;    /* its argument */
    bool emulation_exits;    /* KVM_CAP_EXIT_ON_EMULATION_FAILURE */
    unsigned disabled_exits; /* KVM_X86_DISABLE_EXITS_* */
    unsigned msr_exits;      /* KVM_CAP_X86_USER_SPACE_MSR: KVM_MSR_EXIT_REASON_* */
    bool filter_denies;      /* what is in no range of the filter */
    unsigned filter_count;
    struct kvm_msr_filter_range filter[FAKE_RANGES]; /* with bitmaps of our own */

    struct bus *bus;
    struct irq_router *router;
    struct timerq *timers;
    struct lapics *lapics;
    struct dev_env env; /* of the local APICs */
    pthread_mutex_t eoi_lock;
    pthread_mutex_t irqfd_lock; /* while one's count is sent, and while they change */
    _Atomic unsigned accepted;  /* interrupts that some APIC has taken on */
    pthread_t loop;
    bool loop_runs;
    _Atomic bool loop_ends;
    int wake[2]; /* a pipe to the loop */
};

/* What waits to be delivered: KVM's "injected" events. */
struct fake_event {
    bool valid, has_error, soft;
    uint8_t nr;
    uint32_t error;
};

enum fake_turn { TURN_CALLER, TURN_CPU };

struct fake_vcpu {
    struct fake_vm *vm;
    unsigned id;
    pthread_mutex_t calls; /* one ioctl at a time, as in Linux */
    struct kvm_run *run;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* Under lock. */
    enum fake_turn turn;
    bool in_run;                  /* KVM_RUN has begun */
    bool signal;                  /* a kick came during it */
    bool quit;                    /* the thread must end */
    bool wake;                    /* look at what follows, also while halted */
    bool init;                    /* an INIT came */
    _Atomic bool nmi_message;     /* an NMI came by message; any thread sets it */
    int sipi;                     /* a STARTUP's vector, -1: none */
    struct fake_machine *machine; /* changed by the CPU thread */
    void *running;                /* `soft` while instructions run: what a kick is for */

    /* Whose turn it is. */
    pthread_t thread;
    bool started; /* there is a thread */
    void *soft;
    struct x86_state st;     /* as the caller sees it */
    bool dirty;              /* the caller has changed it */
    bool pending;            /* the CPU waits in the middle of an instruction */
    bool completed;          /* an access of this instruction has come back */
    struct x86_state before; /* st when it began to wait */
    struct x86_state wanted; /* st as the caller changed it meanwhile */
    bool merge;              /* wanted is to be merged */
    bool finish_only;        /* immediate_exit */
    int result;              /* of KVM_RUN */
    struct fake_event exception, interrupt, nmi;
    int extint; /* KVM_INTERRUPT beside local APICs: waits for LINT0; -1: none */
    int eoi;    /* a vector whose end userspace must hear of; -1: none */
    uint64_t cr8, apic_base;
    bool tpr_lowered;
    bool init_received;
    bool has_run;
    bool window; /* run ended for an interrupt window */
    uint32_t tsc_khz;
    uint32_t debug; /* KVM_SET_GUEST_DEBUG's control */
    uint64_t debug_reg[8];
    uint64_t step_pc; /* linear, where a step was set ... */
    bool step_gone;   /* ... which registers that were set elsewhere took away, as TF's owner */
    uint64_t own_dr[4], own_dr7; /* the guest's, while the debugger's are in their place */
    bool watched;                /* they are */
    uint32_t debug_hit;          /* DR6 of a #DB that is the debugger's */
    bool gives_up;               /* run has ended in the access of an instruction unknown to KVM */
    struct kvm_cpuid_entry2 cpuid[FAKE_CPUID];
    unsigned cpuid_count;
};

struct kvm_fake {
    struct kvm_sys sys;
    pthread_mutex_t lock;
    struct fake_fd fd[FAKE_FDS];
    struct kvm_fake_fault fault[FAKE_FAULTS];
    unsigned faults;
    uint32_t missing[FAKE_MISSING];
    unsigned missing_count;
    bool (*fails)(void *ctx, const uint8_t *bytes, unsigned len);
    void *fails_ctx;
    bool fast, shows;
    struct log *log;
    struct x86_cpuid host; /* what KVM_GET_SUPPORTED_CPUID tells */
    uint32_t tsc_khz;
    struct fake_vm *vm[FAKE_FDS]; /* all that are, for kvm_fake_destroy */
};

/* fake.c */
bool fake_lacks(const struct kvm_fake *fake, uint32_t cap);
int fake_fd_new(struct kvm_fake *fake, enum fake_kind kind, void *object);

/* fake_caps.c: -1 for an ioctl that no capability brings. */
int fake_check_extension(struct kvm_fake *fake, uint32_t cap);
int fake_cap_of(unsigned long request);

/* fake_vm.c */
int fake_vm_create(struct kvm_fake *fake, struct fake_vm **out);
void fake_vm_free(struct fake_vm *vm);
int fake_vm_ioctl(struct fake_vm *vm, unsigned long request, uintptr_t arg);
/* fake_memory.c */
int fake_set_memory(struct fake_vm *vm, const struct kvm_userspace_memory_region *r);
int fake_dirty_log(struct fake_vm *vm, const struct kvm_dirty_log *log);
/* Reads guest memory wherever a slot has it; false: somewhere is none. */
bool fake_memory_read(struct fake_vm *vm, uint64_t gpa, void *to, size_t len);
/* The running vCPUs have left the machine of earlier generations when it returns. */
void fake_generation(struct fake_vm *vm);
/* The machine of now, with a reference; NULL: no memory. */
struct fake_machine *fake_machine_get(struct fake_vm *vm);
void fake_machine_put(struct fake_vm *vm, struct fake_machine *m);

/* fake_irq.c */
int fake_irq_split(struct fake_vm *vm);
int fake_irq_start(struct fake_vm *vm);
void fake_irq_stop(struct fake_vm *vm);
int fake_ioeventfd(struct fake_vm *vm, const struct kvm_ioeventfd *e);
int fake_irqfd(struct fake_vm *vm, const struct kvm_irqfd *e);
int fake_set_routing(struct fake_vm *vm, const struct kvm_irq_routing *r);
int fake_signal_msi(struct fake_vm *vm, const struct kvm_msi *msi);
int fake_irq_line(struct fake_vm *vm, uint32_t gsi, bool level);
/* A guest's write that an eventfd takes. */
bool fake_ioevent_hit(struct fake_vm *vm, bool pio, uint64_t addr, unsigned size, uint64_t value);
void fake_get_lapic(struct fake_vcpu *v, struct kvm_lapic_state *out);
void fake_set_lapic(struct fake_vcpu *v, const struct kvm_lapic_state *in);
void fake_lapic_reset(struct fake_vcpu *v);
uint64_t fake_get_apic_base(struct fake_vcpu *v);
bool fake_set_apic_base(struct fake_vcpu *v, uint64_t value); /* false: it cannot be */
bool fake_lapic_takes_extint(struct fake_vcpu *v);
/* What the software CPU is given as its local APIC; ctx is the struct fake_vm. */
extern const struct lapic_cpu_ops fake_lapic_ops;

/* fake_vcpu.c */
int fake_vcpu_create(struct fake_vm *vm, uint32_t id, struct fake_vcpu **out);
void fake_vcpu_free(struct fake_vcpu *v);
int fake_vcpu_ioctl(struct fake_vcpu *v, unsigned long request, uintptr_t arg);
struct fake_vcpu *fake_vcpu_of(struct fake_vm *vm, unsigned id);
/* The vCPU whose CPU thread this is; NULL: none. */
struct fake_vcpu *fake_vcpu_self(struct fake_vm *vm);
void fake_vcpu_wake(struct fake_vcpu *v);

/* fake_state.c: each on the caller's turn. */
void fake_get_regs(struct fake_vcpu *v, struct kvm_regs *r);
void fake_set_regs(struct fake_vcpu *v, const struct kvm_regs *r);
void fake_get_sregs(struct fake_vcpu *v, struct kvm_sregs *s);
int fake_set_sregs(struct fake_vcpu *v, const struct kvm_sregs *s);
void fake_get_sregs2(struct fake_vcpu *v, struct kvm_sregs2 *s);
int fake_set_sregs2(struct fake_vcpu *v, const struct kvm_sregs2 *s);
void fake_get_events(struct fake_vcpu *v, struct kvm_vcpu_events *e);
int fake_set_events(struct fake_vcpu *v, const struct kvm_vcpu_events *e);
/* fake_fpu.c */
void fake_get_fpu(struct fake_vcpu *v, struct kvm_fpu *f);
void fake_set_fpu(struct fake_vcpu *v, const struct kvm_fpu *f);
void fake_get_xsave(struct fake_vcpu *v, struct kvm_xsave *x);
int fake_set_xsave(struct fake_vcpu *v, const struct kvm_xsave *x);
void fake_get_xcrs(struct fake_vcpu *v, struct kvm_xcrs *x);
int fake_set_xcrs(struct fake_vcpu *v, const struct kvm_xcrs *x);
void fake_get_debugregs(struct fake_vcpu *v, struct kvm_debugregs *d);
int fake_set_debugregs(struct fake_vcpu *v, const struct kvm_debugregs *d);
/* fake_cpuid.c */
int fake_supported_cpuid(struct kvm_fake *fake, struct kvm_cpuid2 *c);
int fake_get_cpuid(struct fake_vcpu *v, struct kvm_cpuid2 *c);
int fake_set_cpuid(struct fake_vcpu *v, const struct kvm_cpuid2 *c);
uint64_t fake_cr4_mask(struct fake_vcpu *v);
void fake_make_cpuid(struct fake_vm *vm, struct x86_cpuid *out);

/* fake_msr.c */
int fake_msr_list(struct kvm_msr_list *list);
int fake_get_msrs(struct fake_vcpu *v, struct kvm_msrs *m);
int fake_set_msrs(struct fake_vcpu *v, const struct kvm_msrs *m);
int fake_set_filter(struct fake_vm *vm, const struct kvm_msr_filter *f);
/* Why KVM does not answer a guest's access itself (KVM_MSR_EXIT_REASON_*); 0: it does. */
uint32_t fake_msr_refused(struct fake_vcpu *v, uint32_t index, bool write);
/* An exit for it, if userspace wants one; false: #GP. */
bool fake_msr_exit(struct fake_vcpu *v, uint32_t reason, uint32_t index, bool write,
                   uint64_t *value);
void fake_filter_free(struct fake_vm *vm);

/* fake_run.c */
int fake_run(struct fake_vcpu *v);
void *fake_cpu_main(void *vcpu);
/*
 * On the CPU thread, in the middle of an instruction: lets KVM_RUN return 0 with what stands in
 * v->run, and waits for the next. Does not return if there will be none.
 */
void fake_park(struct fake_vcpu *v);
/* On the CPU thread between two instructions: run ends with this exit reason. Does not return. */
void fake_window(struct fake_vcpu *v) __attribute__((noreturn));
extern const struct bus_ops fake_port_ops, fake_mmio_ops; /* ctx: struct fake_vm */

/* fake_soft.c: what reaches into the software CPU. On the CPU thread or while it waits. */
void fake_soft_get(struct fake_vcpu *v, struct x86_state *out);
void fake_soft_set(struct fake_vcpu *v, const struct x86_state *in);
void fake_soft_forget(struct fake_vcpu *v);     /* decoded instructions */
void fake_soft_stop_after(struct fake_vcpu *v); /* the running instruction is the last */
void fake_soft_abort(struct fake_vcpu *v) __attribute__((noreturn)); /* run returns now */
void fake_soft_unhalt(struct fake_vcpu *v);
bool fake_soft_halting(const struct fake_vcpu *v);
void fake_soft_event(struct fake_vcpu *v, uint8_t type, const struct fake_event *e);
void fake_soft_nmi(struct fake_vcpu *v);
/* The debugger's breakpoints in the place of the guest's, for the next instruction; and back. */
void fake_soft_watch(struct fake_vcpu *v, bool on);
bool fake_soft_resumes(const struct fake_vcpu *v);                /* RF is set */
unsigned fake_soft_fetch(struct fake_vcpu *v, uint8_t bytes[15]); /* at RIP; how many */
unsigned fake_soft_insn(struct fake_vcpu *v, uint8_t bytes[15]);  /* the same in an access */
unsigned fake_soft_cpl(const struct fake_vcpu *v);
bool fake_soft_interruptible(const struct fake_vcpu *v);
uint64_t fake_soft_pc(const struct fake_vcpu *v); /* linear */

#endif
