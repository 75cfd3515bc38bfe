/*
 * A virtual machine: made from a configuration tree, run to its end. No process-wide state: several
 * can live in one process.
 *
 * vm_create, vm_run and vm_destroy on one thread. vm_run serves the event loop on that thread and
 * starts a thread for each vCPU. vm_signal and vm_stop from any thread.
 */
#ifndef VMM_VM_H
#define VMM_VM_H

#include "base/config.h"
#include "base/error.h"
#include "base/log.h"

struct vm;
struct loop;
struct kvm_sys;

/* How a VM ended: bhyve's exit statuses. */
enum vm_status {
    VM_REBOOT = 0,
    VM_POWEROFF = 1,
    VM_HALT = 2,
    VM_TRIPLE_FAULT = 3,
    VM_ERROR = 4,
    VM_SUSPENDED = 5
};

/* cfg and log are borrowed. -errno and a sentence otherwise; *out is NULL then. */
int vm_create_from_config(const struct config *cfg, struct log *log, struct vm **out,
                          struct error *err);
/* The same with something else than the host's /dev/kvm: engine/kvm/kvm.h. NULL: the host's. */
int vm_create_on(const struct config *cfg, struct log *log, const struct kvm_sys *kvm,
                 struct vm **out, struct error *err);
void vm_destroy(struct vm *vm); /* NULL is allowed */

/* Runs until the VM ends: an enum vm_status, or -errno. Once. */
int vm_run(struct vm *vm);

/*
 * SIGUSR1: disks look at the sizes of their images again.
 * SIGUSR2: the engines soft and kvm change places (needs cpu.model=portable).
 * SIGTERM and the like: the first presses the ACPI power button, a second one ends the VM. Without
 * ACPI tables the first ends it (VM_POWEROFF).
 */
void vm_signal(struct vm *vm, int signo);

/* Ends vm_run with this status, soon. The first call counts. */
void vm_stop(struct vm *vm, enum vm_status status);

/*
 * ---- What a person asks of a running VM (control.c). On the thread that is in vm_run, from a
 * callback of its loop. ----
 */

/*
 * Another medium into the drive at `where`: "SLOT", "SLOT:FUNC" or "BUS:SLOT:FUNC", with ".UNIT"
 * behind it where the device has several (0 if not given). path is absolute, or NULL to take out
 * what is in. force: although the guest has locked the drive; without it that is -EBUSY, and the
 * guest is asked to let go. -errno and a sentence otherwise: -EINVAL for `where`, -ENODEV, and what
 * opening the file says. Opens the file, so it takes as long as the host's file system does.
 */
int vm_insert(struct vm *vm, const char *where, const char *path, bool force, struct error *err);

/* Disks look at the sizes of their images again; what SIGUSR1 does. */
void vm_refresh(struct vm *vm);

/*
 * Presses the ACPI power button, as often as it is called; without ACPI tables it ends the VM
 * (VM_POWEROFF). It is not counted as a signal: the first SIGTERM after it still presses the
 * button, so that a service manager's stop does not cut off a guest that is already going down.
 */
void vm_power_button(struct vm *vm);

/*
 * Asks for the other engine, as SIGUSR2 does; -EINVAL or -ENOSYS and a sentence where this VM
 * cannot change. It happens later, on the vCPU's thread: then one of the two counts in vm_info goes
 * up.
 */
int vm_switch_engine(struct vm *vm, struct error *err);

struct vm_info {
    const char *name, *engine, *kernel; /* borrowed; NULL: not known */
    unsigned cpus;
    uint64_t memory;    /* bytes */
    uint64_t uptime_ns; /* since the VM was made */
    unsigned changes;   /* of the engine */
    unsigned failed_changes;
    bool ending; /* vm_stop was called */
    bool acpi;   /* there is a power button */
};
void vm_get_info(struct vm *vm, struct vm_info *out);

/* The n-th PCI device: where it is, as vm_insert takes it, and its name. False past the last. */
struct vm_device {
    char where[16];
    const char *name; /* borrowed */
};
bool vm_device_at(struct vm *vm, unsigned n, struct vm_device *out);

/* The VM's event loop, for the program's own descriptors. */
struct loop *vm_loop(struct vm *vm);

/* Writes the profile, if the key "profile" asks for one. After vm_run. */
void vm_write_profile(struct vm *vm);

/* One line of counters for --stats. */
void vm_print_stats(struct vm *vm, FILE *to);

#endif
