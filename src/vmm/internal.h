/* Inside vmm/: the VM's parts. Locks and threads stand at the fields. */
#ifndef VMM_INTERNAL_H
#define VMM_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "boot/board.h"
#include "boot/linux.h"
#include "bus/device.h"
#include "dev/chips.h"
#include "dev/lapic.h"
#include "engine/engine.h"
#include "host/clock.h"
#include "host/loop.h"
#include "pci/pci.h"
#include "vmm/iothread.h"
#include "vmm/vm.h"

#define VM_CHIPS_MAX 20u
#define VM_PCI_MAX 64u

struct vcpu {
    struct vm *vm;
    unsigned id;
    void *impl[2];         /* the engines', as in vm.engine */
    atomic_uint nmis;      /* how many have come */
    struct rescue *rescue; /* NULL: not needed yet */
    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* orders sleeping and waking */
    pthread_cond_t wake_up;
    atomic_bool wake;     /* something may have become runnable; set before sleeping is read */
    atomic_bool sleeping; /* set before wake is read */
    atomic_bool still;    /* sleeps, and no interrupt would end that */
    /* INIT and STARTUP, for its thread to carry out; see startup.c */
    atomic_bool init_wanted;
    atomic_uint sipi; /* STARTED and the vector of the last one */
    bool waits;       /* its thread's: for a STARTUP */
};

struct profiler;
struct rescue;

struct chip {
    struct dev_env env;
    struct device dev;
    char name[16];
};

struct vm {
    const struct config *cfg;
    struct log *log;
    struct gmem *mem;
    struct bus *bus;
    struct irq_router *irqs;
    struct timerq *timers;
    struct loop *loop;
    /*
     * The engine, and another that it changes places with. engine_on says which one runs; the
     * vCPU's thread changes it between two runs. ops is NULL where there is none.
     */
    struct engine_slot {
        const struct engine_ops *ops;
        void *vm;
    } engine[2];
    atomic_uint engine_on;
    atomic_bool change_wanted;
    atomic_uint changes, failed_changes; /* counted by the vCPU's thread */
    struct engine_env engine_env;        /* what it was made with */
    /* The CPU model; and what the software CPU shows of one that KVM cannot hide features from. */
    struct x86_cpuid cpuid, soft_cpuid;
    bool kvm_emulates; /* what comes to KVM goes on to the software CPU */
    uint64_t tsc_hz;
    struct host_tsc_sample tsc_start;

    unsigned cpus;
    struct vcpu *vcpu;
    struct timer *look; /* at vCPUs that sleep inside their engine; NULL: they do not */
    struct dev_env lapic_env;
    struct lapics *lapics;
    bool lapic_env_ready;

    struct chip chip[VM_CHIPS_MAX];
    unsigned chip_count;
    struct device *acpipm, *fpuerr; /* in chip[] */
    struct dev_env pci_env;
    bool pci_env_ready;
    struct pci *pci;
    struct dev_env pci_dev_env[VM_PCI_MAX];
    char pci_dev_name[VM_PCI_MAX][40];
    unsigned pci_dev_count;
    struct iothreads *iothreads; /* NULL: no device asked for one */

    struct board board;
    struct linux_info kernel;  /* zeros if another loader was used */
    struct profiler *profiler; /* NULL: not wanted */
    char cache_dir[512];       /* where translations are kept, unless the user says where */
    bool acpi;
    atomic_bool stopping; /* vCPU threads leave */
    _Atomic(int) status;  /* -1 while it runs */
    atomic_uint signals;  /* how many have come */
    uint64_t created_ns;
};

/* A vCPU on the engine that runs it now: one look, since another thread may see it change. */
struct vcpu_on {
    const struct engine_ops *ops;
    void *impl;
};

static inline struct vcpu_on vcpu_on(const struct vcpu *v)
{
    unsigned on = atomic_load(&v->vm->engine_on);

    return (struct vcpu_on){v->vm->engine[on].ops, v->impl[on]};
}

static inline void vcpu_on_kick(const struct vcpu *v)
{
    struct vcpu_on on = vcpu_on(v);

    on.ops->kick(on.impl);
}

/* The engine of this name, up to a comma; NULL: there is none. */
const struct engine_ops *vm_find_engine(const char *want);

/* The VM in engine[n].ops, as vm->engine_env says and with the CPU model as that engine has it. */
int vm_make_engine(struct vm *vm, unsigned n, struct error *err);

static inline const char *vm_engine_name(const struct vm *vm)
{
    return vm->engine[atomic_load(&vm->engine_on)].ops->name;
}

/* board.c: makes devices and fills vm->board. */
int board_create(struct vm *vm, struct error *err);
void board_destroy(struct vm *vm);

/*
 * startup.c: processors beside the first. prepare: before they run, with the first one's TSC
 * offset. signals: any thread. startup_take: on the vCPU's thread,
 * between two runs; false: it waits for a STARTUP, and runs nothing.
 */
int startup_prepare(struct vm *vm, uint64_t tsc_offset, struct error *err);
void startup_init(struct vcpu *v);
void startup_sipi(struct vcpu *v, uint8_t vector);
bool startup_take(struct vcpu *v);
/* On v's thread, when it halts for good or waits: true if no processor can go on by itself. */
bool startup_all_still(struct vcpu *v);

/* vcpu.c */
int vcpus_create(struct vm *vm, struct error *err);
void vcpus_destroy(struct vm *vm);
int vcpus_start(struct vm *vm, struct error *err);
void vcpus_leave(struct vm *vm);                  /* they run no more; any thread */
void vcpu_kick(struct vcpu *v);                   /* it leaves its engine, or wakes; any thread */
void vcpus_stop(struct vm *vm);                   /* joins all */
extern const struct vcpu_signal_ops vcpu_signals; /* ctx: the struct vm */

#endif
