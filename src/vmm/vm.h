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

/* The VM's event loop, for the program's own descriptors. */
struct loop *vm_loop(struct vm *vm);

/* Writes the profile, if the key "profile" asks for one. After vm_run. */
void vm_write_profile(struct vm *vm);

/* One line of counters for --stats. */
void vm_print_stats(struct vm *vm, FILE *to);

#endif
